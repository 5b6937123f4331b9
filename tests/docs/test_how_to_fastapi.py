"""docs/how-to/fastapi.md: its shop, with exactly its code and its commands, in two processes on one
Redis, between which each click changes.
"""

import itertools
import shlex
import subprocess
import sys

import pytest
from lab.redis_servers import Server
from lab.shop_pages import CLAIM, Customer, has_what_is_installed, prepared, serving_page, shop
from lab.snippets import blocks, commands, write_files


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def ready(tmp_path_factory, redis):
    """The folder with the page's files, the command that serves, and its environment."""
    folder = tmp_path_factory.mktemp("shop")
    write_files("how-to/fastapi.md", folder)
    return folder, *prepared(folder, [command for command, _ in typed()[0]], redis)


def typed():
    """What the page types in its first terminal, and what in the second."""
    return [commands(block.text) for block in blocks("how-to/fastapi.md") if block.language == "console"]


@pytest.fixture(scope="module")
def at(ready, redis):
    with shop(*ready, redis) as found:
        yield found


@pytest.mark.parametrize("store", ["redis", "sqlite:///shop.db"])
def test_what_is_typed_in_the_second_terminal_prints_what_the_page_says(ready, store, tmp_path):
    """With two stores: the page names both."""
    folder, serve, environment = ready
    if store != "redis":
        environment = {**environment, "STORE_URL": store}
    with serving_page(folder, serve, environment) as at:
        for command, printed in typed()[1]:
            command = command.replace("localhost:8000", at.replace("127.0.0.1", "localhost"))
            assert subprocess.check_output(["bash", "-c", command], cwd=tmp_path, text=True) == printed.strip()


class Clicks(Customer):
    """One after the other: the next one always comes to the other process. Follows redirects."""

    def __init__(self, at):
        super().__init__()
        self._turns = itertools.cycle([at.here, at.there])

    def click(self, method, path, said=None):
        answer = self.ask(next(self._turns), method, path, said)
        if answer.status == 303:
            return self.click("GET", answer.fields["Location"])
        assert answer.status == 200, answer
        return answer.said


def test_the_cart_of_a_visitor_survives_the_login(at):
    customer = Clicks(at)
    for number, item in enumerate(("tea", "milk", "salt"), 1):
        assert customer.click("POST", f"/cart/{item}")["cart"] == ["tea", "milk", "salt"][:number]
    assert set(customer.cookies) == {"session"}
    assert customer.click("POST", "/login", CLAIM) == {"user": "alice"}
    assert "session" not in customer.cookies
    for _ in range(2):
        assert customer.click("GET", "/cart") == {"cart": ["tea", "milk", "salt"], "message": None}
    assert customer.click("GET", "/whoami") == {"user": "alice"}


@pytest.mark.parametrize("is_logged_in", [False, True], ids=["visitor", "logged in"])
def test_each_click_at_the_other_process_sees_the_cart_and_the_message_once(at, is_logged_in):
    customer = Clicks(at)
    if is_logged_in:
        customer.click("POST", "/login", CLAIM)
    cart = []
    for number in range(6):
        cart.append(f"item{number}")
        shown = customer.click("POST", f"/cart/item{number}")
        assert shown == {"cart": cart, "message": f"item{number} is in your cart"}
        assert customer.click("GET", "/cart") == {"cart": cart, "message": None}


def test_a_post_is_answered_by_a_redirect_that_brings_the_cookie(at):
    customer = Clicks(at)
    customer.click("POST", "/login", CLAIM)
    answer = customer.ask(at.here, "POST", "/cart/tea")
    assert (answer.status, answer.fields["Location"]) == (303, "/cart")
    assert [cookie.partition("=")[0] for cookie in answer.cookies] == ["ticket-seen"]
    assert "tea" in customer.get(at.there, "/cart")["cart"]


def test_a_response_varies_by_cookie_once(at):
    """Starlette's middleware adds the field, too, around this one."""
    customer = Customer()
    for method, path, said in (("POST", "/cart/tea", None), ("GET", "/cart", None), ("POST", "/login", CLAIM)):
        assert customer.ask(at.here, method, path, said).fields.get_all("Vary") == ["Cookie"]


def test_a_logout_in_a_def_endpoint_is_one(at):
    customer = Clicks(at)
    customer.click("POST", "/login", CLAIM)
    ticket = customer.cookies["ticket"]
    assert customer.click("POST", "/logout") == {"user": None}
    assert "ticket" not in customer.cookies
    customer.cookies["ticket"] = ticket
    customer.is_refused_soon(at.here)
    customer.is_refused_soon(at.there)


def test_the_login_is_remembered_and_a_wrong_password_is_none(at):
    answer = Customer().ask(at.here, "POST", "/login", CLAIM)
    assert answer.cookies[-1].endswith("; Secure; Max-Age=2592000")
    answer = Customer().ask(at.here, "POST", "/login", {**CLAIM, "password": "guessed"})
    assert (answer.status, answer.cookies) == (403, [])


def test_nobody_is_asked_to_log_in(at):
    answer = Customer().ask(at.here, "GET", "/whoami")
    assert (answer.status, answer.said) == (401, {"detail": "please log in"})


def test_a_handler_sends_to_the_login_page(ready):
    folder, serve, environment = ready
    with serving_page(folder, serve.replace("main:app", "pages:app"), environment) as at:
        answer = Customer().ask(at, "GET", "/whoami")
        assert (answer.status, answer.fields["Location"]) == (303, "/login")
        answer = Customer().ask(at, "GET", "/login")
        assert (answer.status, "<form>" in answer.said) == (200, True)
        assert Customer().post(at, "/login", CLAIM) == {"user": "alice"}


def test_the_pages_tests_pass(ready):
    folder, _, environment = ready
    (install, _), (command, printed) = typed()[2]
    has_what_is_installed(install)
    python, *words = shlex.split(command)
    assert python == "python"
    words = [sys.executable, *words, "-p", "fastticket.testing.plugin", "-p", "no:asyncio", "-W", "error"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert printed.strip() in done.stdout, done.stdout + done.stderr


def test_starlette(ready):
    folder, serve, environment = ready
    with serving_page(folder, serve.replace("main:app", "club:app"), environment) as at:
        customer = Customer()
        assert customer.ask(at, "POST", "/admin").status == 401
        assert customer.ask(at, "POST", "/login", {**CLAIM, "password": "guessed"}).status == 403
        assert customer.post(at, "/login", CLAIM) == "welcome"
        before = customer.cookies["ticket"]
        assert customer.post(at, "/admin") == "alice may do everything"
        assert customer.cookies["ticket"] != before
        assert customer.post(at, "/logout") == "bye"
        assert customer.ask(at, "POST", "/admin").status == 401
