"""The shops of docs/how-to/litestar.md, quart.md, sanic.md, aiohttp.md and tornado.md, each as its
page has it: its files, its commands, the real framework, two processes and one Redis.
"""

import os
import re
import subprocess
import sys
import threading

import pytest
from lab.documents import ROOT
from lab.redis_servers import Server, wait_until
from lab.shop_pages import CLAIM, Customer, prepared, shop
from lab.snippets import blocks, commands, write_files


def litestar(folder):
    write_files("how-to/litestar.md", folder)
    return blocks("how-to/litestar.md")


def quart(folder):
    write_files("how-to/quart.md", folder)
    return blocks("how-to/quart.md")


def sanic(folder):
    write_files("how-to/sanic.md", folder)
    return blocks("how-to/sanic.md")


def aiohttp(folder):
    write_files("how-to/aiohttp.md", folder)
    return blocks("how-to/aiohttp.md")


def tornado(folder):
    write_files("how-to/tornado.md", folder)
    return blocks("how-to/tornado.md")


PAGES = (litestar, quart, sanic, aiohttp, tornado)


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.mark.parametrize(
    ("page", "begins", "ends", "lines"),
    [(aiohttp, "@web.middleware", "async def with_cache", 19), (tornado, "class SessionHandler", r"\Z", 20)],
)
def test_an_adapter_is_as_short_as_its_page_says(page, begins, ends, lines, tmp_path):
    (text,) = [block.text for block in page(tmp_path) if block.name == "sessions.py"]
    adapter = re.search(f"^{begins}.*?(?={ends})", text, re.MULTILINE | re.DOTALL)[0]
    assert sum(1 for line in adapter.splitlines() if line.strip()) == lines <= 20
    assert f"{lines} lines long" in (ROOT / f"docs/how-to/{page.__name__}.md").read_text()


def started(page, folder, redis):
    (console,) = [each.text for each in page(folder) if each.language == "console"]
    return shop(folder, *prepared(folder, [command for command, _ in commands(console)], redis), redis)


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: page.__name__)
def at(request, redis, tmp_path_factory):
    with started(request.param, tmp_path_factory.mktemp(request.param.__name__), redis) as found:
        yield found


def alice(at):
    customer = Customer()
    customer.post(at.here, "/login", CLAIM)
    return customer


def test_a_login_is_one_at_both(at):
    customer = Customer()
    answer = customer.ask(at.here, "POST", "/login", CLAIM)
    assert answer.said == {"user": "alice"}
    assert [customer.get(each, "/whoami") for each in (at.there, at.here)] == [{"user": "alice"}] * 2


def test_the_cookie_is_only_for_http_of_this_site_and_https(at):
    own = {"; Path=/", "; HttpOnly", "; SameSite=Lax"}
    for host, flags in (("shop.test", own | {"; Secure"}), ("localhost", own)):
        answer = Customer().ask(at.here, "POST", "/login", CLAIM, host=host)
        ticket = answer.cookies[-1]
        assert ticket.startswith("ticket=")
        assert {f"; {flag}" for flag in ticket.split("; ")[1:]} == flags
        assert answer.fields["Cache-Control"] == "no-store"


def test_who_has_a_wrong_password_or_none_is_nobody(at):
    customer = Customer()
    assert customer.ask(at.here, "POST", "/login", {**CLAIM, "password": "guessed"}).status == 403
    assert customer.cookies == {}
    answer = customer.ask(at.here, "GET", "/whoami")
    assert (answer.status, answer.fields["Vary"]) == (401, "Cookie")
    assert customer.ask(at.there, "POST", "/cart/tea").status == 401


@pytest.mark.parametrize("page", [aiohttp, tornado], ids=lambda page: page.__name__)
def test_a_login_without_name_and_password_is_a_bad_request(page, redis, tmp_path):
    with started(page, tmp_path, redis) as at:
        for claim in (None, "a name", {"name": "alice"}, {"name": " alice", "password": ""}):
            assert Customer().ask(at.here, "POST", "/login", claim).status == 400


def test_each_process_sees_what_the_other_has_just_written(at):
    customer = alice(at)
    cart = []
    for number in range(6):
        cart.append(f"item{number}")
        assert customer.post((at.here, at.there)[number % 2], f"/cart/item{number}") == {"cart": cart}


def test_a_logout_is_one_at_both(at):
    customer = alice(at)
    ticket = customer.cookies["ticket"]
    assert customer.get(at.there, "/whoami") == {"user": "alice"}
    assert customer.post(at.here, "/logout") == {"user": None}
    assert "ticket" not in customer.cookies
    customer.cookies["ticket"] = ticket
    assert customer.ask(at.here, "GET", "/whoami").status == 401
    customer.is_refused_soon(at.there)


def test_who_is_logged_out_elsewhere_is_refused_soon(at):
    customer = alice(at)
    for each in (at.here, at.there):
        assert customer.get(each, "/whoami") == {"user": "alice"}
    with at.cache() as cache:
        cache.logout(customer.cookies["ticket"])
    for each in (at.here, at.there):
        customer.is_refused_soon(each)


def test_a_ticket_that_is_none_is_nobody_and_goes(at):
    customer = Customer()
    customer.cookies["ticket"] = "malformed"
    assert customer.ask(at.here, "GET", "/whoami").status == 401
    assert customer.cookies == {}


def test_two_tickets_are_nobody_and_go(at):
    tickets = [alice(at).cookies["ticket"] for _ in range(2)]
    customer = Customer()
    customer.cookies["ticket"] = f"{tickets[0]}; ticket={tickets[1]}"
    assert customer.ask(at.here, "GET", "/whoami").status == 401
    assert customer.cookies == {}


def test_an_unknown_page_is_no_error(at):
    assert alice(at).ask(at.here, "GET", "/nowhere").status == 404


def test_the_test_that_the_page_of_aiohttp_shows_passes(tmp_path):
    aiohttp(tmp_path)
    words = ["-m", "pytest", "-q", "-p", "fastticket.testing.plugin", "-p", "no:asyncio", "-W", "error", "test_shop.py"]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.__name__)
def test_a_store_that_is_slow_or_away(page, tmp_path):
    """Who is known stays in, who is not has to try again, and nobody else waits."""
    redis = Server(tmp_path)
    try:
        with started(page, tmp_path, redis) as at:
            customer, unknown = alice(at), Customer()
            redis.pause()
            logging_in = threading.Thread(target=lambda: unknown.ask(at.here, "POST", "/login", CLAIM))
            logging_in.start()
            assert Customer().ask(at.here, "GET", "/whoami").status == 401
            assert logging_in.is_alive()
            redis.resume()
            logging_in.join()
            assert "ticket" in unknown.cookies

            redis.kill()
            assert customer.get(at.here, "/whoami") == {"user": "alice"}
            answer = wait_until(lambda: customer.ask(at.there, "GET", "/whoami"), "an answer")
            assert (answer.status, answer.fields["Retry-After"]) == (503, "1")
            answer = Customer().ask(at.here, "POST", "/login", CLAIM)
            assert (answer.status, answer.fields["Retry-After"], answer.cookies) == (503, "1", [])
            assert customer.ask(at.here, "POST", "/cart/tea").status == 503
            assert "ticket" in customer.cookies
    finally:
        redis.kill()
