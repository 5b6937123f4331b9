"""FastAPI applications that call what is to be awaited in a thread, or forget to await it, that
handle errors, and that have their middleware in the wrong order: served by uvicorn, asked over a
socket.
"""

import pytest
from lab.real_programs import uvicorn
from lab.redis_servers import Server
from test_fastapi import Browser

from fastticket.keyfile import create_key_file


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def serve(redis, tmp_path_factory):
    """Serves one of the applications of handling_application.py: the path of its socket."""

    def served(name):
        folder = tmp_path_factory.mktemp(name)
        create_key_file(folder / "keys.toml")
        environment = {
            "STORE_URL": f"redis://{redis.address}/0?timeout_ms=10000",
            "KEY_FILE": str(folder / "keys.toml"),
        }
        return uvicorn(folder, f"handling_application:{name}", environment)

    return served


@pytest.fixture(scope="module")
def at(serve):
    with serve("application") as address:
        yield address.removeprefix("unix:")


def logged_in(at, name):
    browser = Browser()
    assert browser.post(at, f"/login/{name}") == name
    return browser


# --- in a thread, a call is done when it returns


def test_a_login_in_a_thread_is_one(at):
    browser = logged_in(at, "alice")
    assert browser.get(at, "/session") == {"user": "alice"}


def test_a_logout_in_a_thread_is_one(at):
    browser = logged_in(at, "bob")
    ticket = browser.cookies["ticket"]
    assert browser.post(at, "/logout") is None
    assert browser.cookies == {}
    browser.cookies["ticket"] = ticket
    assert browser.get(at, "/session") == {}


def test_a_rotation_in_a_thread_is_one(at):
    browser = logged_in(at, "carol")
    before = browser.cookies["ticket"]
    browser.post(at, "/rotate")
    assert browser.get(at, "/session") == {"user": "carol"}
    browser.cookies["ticket"] = before
    assert browser.get(at, "/session") == {}


def test_logout_everywhere_in_a_thread_says_how_many(at):
    browser, other = logged_in(at, "dave"), logged_in(at, "dave")
    assert browser.post(at, "/logout-everywhere") == 1
    assert (browser.get(at, "/session"), other.get(at, "/session")) == ({"user": "dave"}, {})


def test_save_in_a_thread_writes_at_once(at):
    browser = logged_in(at, "erin")
    assert browser.ask(at, "POST", "/save/red").status == 500
    assert browser.get(at, "/session") == {"user": "erin", "color": "red"}


def test_background_tasks_in_a_thread(at):
    browser = logged_in(at, "frank")
    browser.post(at, "/later")
    browser.gets_soon(at, "/session", {"user": "frank", "later": "done"})
    browser.post(at, "/task/logout")
    browser.gets_soon(at, "/session", {})


def test_a_dependency_in_a_thread(at):
    browser = logged_in(at, "grace")
    assert browser.post(at, "/dependency/logout") is None
    assert "ticket" not in browser.cookies


def test_an_error_of_the_call_is_the_threads(at):
    """NotLoggedIn, which this application handles."""
    for path in ("/rotate", "/logout-everywhere"):
        answer = Browser().ask(at, "POST", path)
        assert (answer.status, answer.fields["Location"]) == (303, f"/log-in?from={path}")


# --- in the loop, what nobody awaits is an error


@pytest.mark.parametrize(
    "act",
    [
        "login",
        "logout",
        "rotate",
        "logout_everywhere",
        "session.logout_everywhere",
        "session.save",
        "session.load",
    ],
)
def test_what_nobody_awaits_is_no_success(at, act):
    browser = logged_in(at, f"heidi-{act}")
    assert browser.ask(at, "POST", f"/forgotten/{act}").status == 500
    assert browser.get(at, "/session") == {"user": f"heidi-{act}"}


# --- the application's exception handlers


@pytest.mark.parametrize("path", ["/needs/user", "/needs/rotation", "/needs/place"])
def test_who_is_not_logged_in_can_be_asked_to(at, path):
    """By a dependency, in the endpoint, and when its response would begin."""
    answer = Browser().ask(at, "POST", path)
    assert (answer.status, answer.fields["Location"]) == (303, f"/log-in?from={path}")
    assert answer.fields["Vary"] == "Cookie"
    assert answer.fields.get_all("Set-Cookie") is None


@pytest.mark.parametrize("path", ["/needs/user", "/needs/rotation", "/needs/place"])
def test_the_answer_of_a_handler_clears_a_ticket_that_is_refused(at, path):
    browser = Browser()
    browser.cookies["ticket"] = "malformed"
    answer = browser.ask(at, "POST", path)
    assert (answer.status, browser.cookies, answer.fields["Cache-Control"]) == (303, {}, "no-store")


@pytest.mark.parametrize("path", ["/login", "/set"])
def test_a_login_that_is_refused_can_be_handled(at, path):
    """Where it is called, or, set as an entry, when the response would begin."""
    name = f"ivan-of-{path[1:]}"
    for _ in range(3):
        logged_in(at, name)
    browser = Browser()
    answer = browser.ask(at, "POST", f"{path}/{name}")
    assert (answer.status, answer.said, browser.cookies) == (409, {"max": 3}, {})


def test_what_the_request_has_set_is_not_written_nor_what_the_handler_sets(serve, capfd):
    with serve("application") as address:
        at = address.removeprefix("unix:")
        browser = logged_in(at, "kate")
        answer = browser.ask(at, "POST", "/unwritable")
        assert (answer.status, answer.said) == (422, {"attribute": "when"})
        assert browser.get(at, "/session") == {"user": "kate"}
    assert "Traceback" not in capfd.readouterr().err


def test_the_cookie_of_what_was_done_comes_with_the_answer_of_a_handler(at):
    """Judy logs in as somebody who may not have more sessions: her own session has ended."""
    for _ in range(3):
        logged_in(at, "many")
    browser = logged_in(at, "judy")
    ticket = browser.cookies["ticket"]
    assert browser.ask(at, "POST", "/set/many").status == 409
    assert browser.cookies == {}
    browser.cookies["ticket"] = ticket
    assert browser.get(at, "/session") == {}


# --- the order of middleware


@pytest.mark.parametrize(
    ("application", "said"),
    [
        ("nothing", "there is no fastticket.asgi.SessionMiddleware around this code: app.add_middleware"),
        ("asking_outside", "this code runs before fastticket.asgi.SessionMiddleware, which is further inside"),
        ("asking_inside", "there is one"),
        ("signed_inside", "another middleware, inside of fastticket.asgi.SessionMiddleware, has put a session"),
        ("signed_outside", "there is one"),
    ],
)
def test_what_is_wrong_with_the_order(serve, application, said):
    with serve(application) as address:
        answer = Browser().ask(address.removeprefix("unix:"), "GET", "/")
    assert answer.said.decode().startswith(said)


@pytest.mark.parametrize(("application", "warnings"), [("signed_inside", 1), ("signed_outside", 0)])
def test_who_sets_the_user_where_it_logs_nobody_in_is_warned_once(serve, application, warnings, capfd):
    with serve(application) as address:
        for path in ("/cart", "/sign-in", "/sign-in"):
            Browser().post(address.removeprefix("unix:"), path)
    assert capfd.readouterr().err.count("session['user'] is set, which logs nobody in: another middleware") == warnings


def test_an_application_within_the_application_has_the_session(serve):
    with serve("mounted") as address:
        assert Browser().ask(address.removeprefix("unix:"), "GET", "/inner/").said == b"there is one"
