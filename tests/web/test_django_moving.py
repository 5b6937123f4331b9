"""Sessions of Django's own engines go on as tickets: by the command, and as browsers come."""

import contextlib
import io
import json
import time

import pytest
from lab.django_projects import TICKET, value
from lab.redis_servers import Server

DB = "django.contrib.sessions.backends.db"
CACHE = "django.contrib.sessions.backends.cache"
COOKIE = "sessionid"
MOVES = pytest.mark.parametrize("at", [{"moved_from": DB}], indirect=True)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    yield f"redis://{server.address}/1"
    server.kill()


@pytest.fixture
def caches(redis_url):
    """The project's cache is in Redis, and empty."""
    from django.core.cache import cache
    from django.test import override_settings

    with override_settings(
        CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis_url}}
    ):
        cache.clear()
        yield
        cache._cache.get_client().connection_pool.disconnect()


@contextlib.contextmanager
def before(engine=DB):
    """The project as it was: Django's own sessions and middleware."""
    from django.conf import settings
    from django.test import Client, override_settings

    middleware = [
        name.replace(
            "fastticket.django.middleware.TicketMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware"
        )
        for name in settings.MIDDLEWARE
    ]
    with override_settings(SESSION_ENGINE=engine, SESSION_COOKIE_NAME=COOKIE, MIDDLEWARE=middleware):
        yield Client


@pytest.fixture(autouse=True)
def no_sessions(project):
    from django.contrib.sessions.models import Session

    Session.objects.all().delete()


def logged_in(user, engine=DB):
    """The cookie of a user who logged in before, and has something in the cart."""
    with before(engine) as client:
        browser = client()
        browser.get(f"/login?user={user}")
        browser.get("/add?item=tea")
        return browser.cookies[COOKIE].value


def browser_of(at, cookie):
    browser = at.client()
    browser.cookies[COOKIE] = cookie
    return browser


def move(tmp_path, *options):
    """The command's report."""
    from django.core.management import call_command

    output = io.StringIO()
    call_command("move_sessions", "--json", "--progress", str(tmp_path / "progress"), *options, stdout=output)
    return json.loads(output.getvalue())


@MOVES
def test_whoever_was_logged_in_stays_so_with_what_the_session_had(at):
    browser = browser_of(at, logged_in("alice"))
    assert value(browser.get("/who")) == "alice"
    assert browser.cookies[TICKET].value
    assert value(browser.get("/get?name=cart")) == ["tea"]
    (session,) = at.cache.sessions("alice")
    assert 0 < session.absolute_deadline_ms / 1000 - time.time() <= 14 * 86_400  # as there
    del browser.cookies[COOKIE]
    assert value(browser.get("/who")) == "alice"
    assert len(at.cache.sessions("alice")) == 1


@MOVES
def test_two_browsers_with_one_old_cookie_have_one_session(at):
    cookie = logged_in("alice")
    for _ in range(2):
        assert value(browser_of(at, cookie).get("/who")) == "alice"
    assert len(at.cache.sessions("alice")) == 1


@MOVES
def test_a_logout_ends_both(at):
    cookie = logged_in("alice")
    browser = browser_of(at, cookie)
    browser.get("/who")
    browser.get("/logout")
    assert value(browser_of(at, cookie).get("/who")) is None
    with before() as client:
        old = client()
        old.cookies[COOKIE] = cookie
        assert value(old.get("/who")) is None


@MOVES
def test_a_session_that_was_ended_here_does_not_come_back_by_its_old_cookie(at):
    cookie = logged_in("alice")
    browser_of(at, cookie).get("/who")
    at.cache.logout_everywhere("alice")
    assert value(browser_of(at, cookie).get("/who")) is None


@MOVES
def test_the_old_cookie_counts_for_nothing_beside_a_ticket(at):
    browser = browser_of(at, logged_in("alice"))
    browser.cookies[TICKET] = at.cache.login("bob")
    assert value(browser.get("/who")) == "bob"
    assert at.cache.sessions("alice") == []


@MOVES
@pytest.mark.parametrize("cookie", ["", "x", "x" * 5000, "é", "a" * 32])
def test_a_cookie_that_is_no_session_is_nobody(at, cookie):
    assert value(browser_of(at, cookie).get("/who")) is None


@MOVES
def test_a_new_password_ends_sessions_that_have_not_come_yet(at, project):
    from django.contrib.auth import get_user_model

    cookie = logged_in("bob")
    bob = get_user_model().objects.get(username="bob")
    bob.set_password("another")
    bob.save()
    try:
        assert value(browser_of(at, cookie).get("/who")) is None
    finally:
        bob.set_password("bob's")
        bob.save()


@MOVES
def test_a_store_that_is_away_logs_nobody_out(at):
    browser = browser_of(at, logged_in("alice"))
    at.store.is_away = True
    assert browser.get("/who").status_code == 503
    at.store.is_away = False
    assert value(browser.get("/who")) == "alice"


@pytest.mark.parametrize("at", [{"moved_from": "fastticket.django.cookies"}], indirect=True)
def test_what_is_no_engine_is_said(at):
    from django.core.exceptions import ImproperlyConfigured

    browser = browser_of(at, "x")
    browser.raise_request_exception = True
    with pytest.raises(ImproperlyConfigured, match="no session engine"):
        browser.get("/who")


@pytest.mark.parametrize("engine", [DB, CACHE])
def test_the_command_counts_what_is_in_and_what_moves(at, caches, engine, tmp_path, monkeypatch):
    from importlib import import_module

    from django.conf import settings

    cookies = {user: logged_in(user, engine) for user in ("alice", "bob")}
    store = import_module(engine).SessionStore
    anonymous = store()
    anonymous["cart"] = [1]
    anonymous.save()
    for user_id in ("999", "d37d1c0a-5c4a", "9" * 30):  # gone, and of users who had other ids
        gone = store()
        gone["_auth_user_id"], gone["_auth_user_backend"] = user_id, settings.AUTHENTICATION_BACKENDS[0]
        gone.save()
    monkeypatch.setitem(settings.FASTTICKET, "store", f"sqlite:///{tmp_path}/sessions.db")
    counts = {"read": 6, "created": 2, "skipped": {"anonymous": 1, "inactive_user": 3}}
    for options in (["--dry-run"], []):
        report = move(tmp_path, "--from", engine, *options)
        assert {name: report[name] for name in counts} == counts
        assert not any(cookie in json.dumps(report) for cookie in cookies.values())
    again = move(tmp_path, "--from", engine)
    assert (again["read"], again["created"], again["done_before"]) == (6, 0, 2)
    assert store(cookies["alice"]).load()  # nothing was deleted there
    assert used(settings.FASTTICKET | {"moved_from": engine}, cookies["alice"]) == ["tea"]


@pytest.mark.parametrize(
    ("content", "why"),
    [(["a list"], "malformed"), ({}, "malformed"), ({"_session_expiry": "soon"}, "bad_times")],
    ids=str,
)
def test_what_no_engine_has_written_is_skipped(at, content, why):
    from fastticket.django.moving import Found, OldSessions

    if isinstance(content, dict) and content:
        from django.contrib.sessions.backends.db import SessionStore

        content |= SessionStore(logged_in("alice")).load()
    assert OldSessions(DB)._record(Found("key", content, 0)).why == why


def used(said, cookie):
    """What the session has that the command moved, by its old cookie, at the project of today."""
    from django.test import Client, override_settings

    from fastticket.django import _cache_of_settings, ticket_cache

    with override_settings(FASTTICKET=said), pytest.MonkeyPatch.context() as patch:
        from fastticket.stores import open_store

        patch.setattr("fastticket.django.open_store", open_store)
        _cache_of_settings.cache_clear()
        with contextlib.closing(ticket_cache()) as cache:
            browser = Client()
            browser.cookies[COOKIE] = cookie
            assert value(browser.get("/who")) == "alice"
            assert len(cache.sessions("alice")) == 1
            found = value(browser.get("/get?name=cart"))
    _cache_of_settings.cache_clear()
    return found


def test_a_cache_that_cannot_list_its_keys_is_said(at, tmp_path, monkeypatch):
    from django.conf import settings
    from django.core.management import CommandError

    monkeypatch.setitem(settings.FASTTICKET, "store", f"sqlite:///{tmp_path}/sessions.db")
    with pytest.raises(CommandError, match="when its cookie comes"):
        move(tmp_path, "--from", CACHE)
    with pytest.raises(CommandError, match="name the engine"):
        move(tmp_path)
