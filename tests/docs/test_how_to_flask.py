"""docs/how-to/flask.md, with exactly its code: two processes on one Redis that are asked by turns,
flask-login, tests, CSRF, plain WSGI.
"""

import re

import pytest
from conftest import BOUND_S
from lab.documents import ROOT
from lab.redis_servers import wait_until
from lab.shown_sites import Shopper, ShownSite, lines_of, shop_by_turns
from lab.snippets import blocks, write_files

from fastticket import Keyring, open_store
from fastticket.sync import TicketCache


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flask")
    files = write_files("how-to/flask.md", folder)
    site = ShownSite(blocks("how-to/flask.md"), files, folder)
    site.run("fastticket keygen")
    site.environment |= {"COOKIE_SECRET": "of a test", "PYTEST_ADDOPTS": "-p fastticket.testing.plugin -p no:asyncio"}
    yield site
    site.redis.kill()


@pytest.fixture
def cache(site):
    """The page's store and keys, in this process."""
    store = open_store(f"redis://{site.redis.address}/0?timeout_ms=10000")
    with TicketCache(store, Keyring.from_file(site.folder / "keys.toml")) as made:
        yield made
        made.logout_everywhere("alice")


def log_in(shopper):
    assert lines_of(shopper.click("/login", name="alice", password="wonderland"))[0] == "Welcome, alice"


def test_a_cart_messages_and_redirects_in_two_processes(site, cache):
    with site.serve("shop:app", 8001) as one, site.serve("shop:app", 8002) as other:
        shopper = Shopper(one, other)
        shop_by_turns(shopper, log_in, lambda shopper: shopper.click("/logout"))
        assert shopper.ticket == ""
        assert cache.sessions("alice") == []


def test_one_server_with_two_workers(site):
    with site.serve("shop:app", 8000) as at:
        shop_by_turns(Shopper(at, at), log_in, lambda shopper: shopper.click("/logout"))


def test_it_works_without_redis_for_the_processes_of_one_machine(site, monkeypatch):
    """With the other store that the page names."""
    url = "sqlite:///sessions.db"
    assert f"`export STORE_URL={url}`" in (ROOT / "docs/how-to/flask.md").read_text()
    monkeypatch.setitem(site.environment, "STORE_URL", url)
    with site.serve("shop:app", 8001) as one, site.serve("shop:app", 8002) as other:
        shop_by_turns(Shopper(one, other), log_in, lambda shopper: shopper.click("/logout"))


def test_the_commands_print_what_the_page_shows(site):
    with site.serve("shop:app", 8001) as one, site.serve("shop:app", 8002) as other:
        site.run("curl", port8001=one, port8002=other)


def test_a_wrong_password_is_said_on_the_next_page(site):
    with site.serve("shop:app", 8001) as one, site.serve("shop:app", 8002) as other:
        shopper = Shopper(one, other)
        page = shopper.click("/login", name="alice", password="a guess")
        assert lines_of(page) == ["Wrong name or password", "nobody has nothing"]


def test_flask_login_in_two_processes(site, cache):
    with site.serve("members_wsgi:app", 8001) as one, site.serve("members_wsgi:app", 8002) as other:
        shopper = Shopper(one, other)
        assert shopper.ask("/")[0] == 302
        assert "<form" in shopper.look(shopper.location)
        assert "Wrong name or password" in shopper.click("/login", name="alice", password="a guess")
        for _ in range(3):  # the third request is the other process's
            assert shopper.click("/login", name="alice", password="wonderland") == "hello, alice"
            assert shopper.look() == "hello, alice"
        assert len(cache.sessions("alice")) == 1
        elsewhere = Shopper(one)
        elsewhere.cookies = dict(shopper.cookies)
        assert shopper.ask("/logout", "POST")[1] == b"bye"
        wait_until(lambda: elsewhere.ask("/")[0] == 302, "the other process has heard of the logout", BOUND_S)


def test_who_stays_has_a_ticket_that_lasts_and_no_cookie_of_flask_logins(site, cache):
    with site.serve("members_wsgi:app") as one:
        shopper = Shopper(one)
        shopper.click("/login", name="alice", password="wonderland", stay="yes")
        assert cache.remembered_s(shopper.ticket) > cache.remember_lifetime_s - 60
        assert set(shopper.cookies) == {"ticket", "session"} & set(shopper.cookies)


def test_flask_logins_own_cookie_would_log_in_again(cache):
    """As the page says."""
    import flask
    import flask_login

    from fastticket.flask import TicketSessions

    app = flask.Flask("app")
    app.secret_key = "x"
    app.session_interface = TicketSessions(cache, principal_key="_user_id")
    manager = flask_login.LoginManager(app)

    @manager.user_loader
    def load(name):
        user = flask_login.UserMixin()
        user.id = name
        return user

    app.add_url_rule("/in", "in", view_func=lambda: str(flask_login.login_user(load("alice"), remember=True)))
    app.add_url_rule("/", "page", view_func=lambda: str(flask_login.current_user.is_authenticated))
    client = app.test_client()
    client.get("/in")
    cache.logout_everywhere("alice")
    assert client.get("/").text == "True"


def test_the_pages_tests_pass(site):
    site.run("pytest")


def test_the_factorys_server(site, cache):
    with site.serve("wsgi:app", 8001) as one, site.serve("wsgi:app", 8002) as other:
        shopper = Shopper(one, other)
        assert shopper.ask("/cart")[0] == 401
        shopper.ask("/login", "POST", {"name": "alice"})
        assert [shopper.ask("/cart") for _ in range(2)] == [(200, [])] * 2


def test_a_token_is_good_in_both_processes_before_a_login_and_after(site, cache):
    with site.serve("guarded:app", 8001) as one, site.serve("guarded:app", 8002) as other:
        shopper = Shopper(one, other)
        assert shopper.ask("/cart", "POST", {"item": "tea"})[0] == 400
        shopper.look()
        token = shopper.look("/token")
        shopper.click("/login", name="alice", password="wonderland", csrf_token=token)
        assert lines_of(shopper.click("/cart", item="tea", csrf_token=token))[-1] == "alice has tea"
        assert shopper.ask("/cart", "POST", {"item": "tea", "csrf_token": "forged"})[0] == 400


def test_plain_wsgi_in_two_processes(site, cache):
    with site.serve("plain:application", 8001) as one, site.serve("plain:application", 8002) as other:
        shopper = Shopper(one, other)
        assert shopper.look() == "hello, nobody"
        assert shopper.look("/login") == "hello, alice"
        assert shopper.look() == "hello, alice"


def test_the_first_table_is_true(site, cache):
    """Each way to say who is logged in, and what is written for it."""
    import flask

    from fastticket.flask import TicketSessions

    (table,) = re.findall(r"\| the application has.*?\n\n", (ROOT / "docs/how-to/flask.md").read_text(), re.DOTALL)
    for interface, entry in (
        ("TicketSessions(cache)", "user"),
        ('TicketSessions(cache, principal_key="user_id")', "user_id"),
        ('TicketSessions(cache, principal_key="_user_id")', "_user_id"),
    ):
        assert f"`{interface}`" in table
        app = flask.Flask("app")
        app.secret_key = "x"
        app.session_interface = eval(interface, {"TicketSessions": TicketSessions, "cache": cache})
        with app.test_client().session_transaction() as session:
            session[entry] = "alice"
        assert len(cache.sessions("alice")) == 1
        cache.logout_everywhere("alice")
