"""`log_in` of each framework, with the real one."""

from __future__ import annotations

import flask
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from fastticket import ConfigError, InvalidPrincipal, StoreUnavailable, TicketCookie
from fastticket.asgi import SessionMiddleware, logout, rotate
from fastticket.fastapi import CurrentUser
from fastticket.flask import TicketSessions
from fastticket.testing import django as of_django
from fastticket.testing.flask import log_in as log_in_flask
from fastticket.testing.starlette import log_in

HTTPS = "https://testserver"

# --- Starlette and FastAPI


async def who(request):
    return JSONResponse(dict(request.session))


async def leave(request):
    await logout(request)
    return JSONResponse({})


async def renew(request):
    await rotate(request)
    return JSONResponse({})


def starlette_app(cache, **options):
    app = Starlette(routes=[Route("/who", who), Route("/leave", leave), Route("/renew", renew)])
    app.add_middleware(SessionMiddleware, cache=cache, **options)
    return app


@pytest.mark.parametrize(
    ("base_url", "cookie"),
    [
        (HTTPS, TicketCookie()),
        (HTTPS, TicketCookie("__Host-ticket")),
        ("https://shop.test", TicketCookie(domain_level=2)),
        ("http://localhost", TicketCookie()),
        ("http://testserver", TicketCookie("sid", is_secure=False)),
    ],
)
def test_starlette(ticket_cache, base_url, cookie):
    with TestClient(starlette_app(ticket_cache, cookie=cookie), base_url=base_url) as client:
        assert client.get("/who").json() == {}
        assert log_in(client, "alice", {"cart": ["tea"]}) is client
        assert client.get("/who").json() == {"user": "alice", "cart": ["tea"]}
        for _ in range(2):  # the cookie is the one that the application knows
            client.get("/renew")
            assert client.get("/who").json() == {"user": "alice", "cart": ["tea"]}
        client.get("/leave")
        assert list(client.cookies) == []
        assert client.get("/who").json() == {}


def test_starlette_two_users(ticket_cache):
    with TestClient(starlette_app(ticket_cache), base_url=HTTPS) as client:
        log_in(client, "alice", {"a": 1})
        log_in(client, "bob")
        assert client.get("/who").json() == {"user": "bob"}


def test_fastapi(ticket_cache):
    app = FastAPI()
    app.add_middleware(SessionMiddleware, cache=ticket_cache)

    @app.get("/cart")
    async def cart(user: CurrentUser, request: Request) -> dict[str, list[str]]:
        return {user: request.session.get("cart", [])}

    with TestClient(app, base_url=HTTPS) as client:
        assert client.get("/cart").status_code == 401
        log_in(client, "alice", {"cart": ["tea"]})
        assert client.get("/cart").json() == {"alice": ["tea"]}


def test_what_the_middleware_wraps_may_be_any_application(ticket_cache):
    inner = Starlette(routes=[Route("/who", who)])
    app = SessionMiddleware(Starlette(routes=[Mount("/in", inner)]), cache=ticket_cache)
    with TestClient(app, base_url=HTTPS) as client:
        assert log_in(client, "alice").get("/in/who").json() == {"user": "alice"}


def test_a_client_that_would_not_send_the_cookie_is_told_so(ticket_cache):
    """Else the test would see an anonymous visitor, and not why."""
    with (
        TestClient(starlette_app(ticket_cache)) as client,
        pytest.raises(ConfigError, match='base_url="https://testserver"'),
    ):
        log_in(client, "alice")


def test_a_client_that_was_not_entered_is_told_so(ticket_cache):
    with pytest.raises(ConfigError, match="with TestClient"):
        log_in(TestClient(starlette_app(ticket_cache), base_url=HTTPS), "alice")


def test_an_application_without_sessions_is_told_so():
    with TestClient(Starlette(), base_url=HTTPS) as client, pytest.raises(ConfigError, match="no fastticket"):
        log_in(client, "alice")


def test_what_the_login_raises_is_raised(ticket_cache, ticket_store):
    with TestClient(starlette_app(ticket_cache), base_url=HTTPS) as client:
        with pytest.raises(InvalidPrincipal):
            log_in(client, " alice")
        ticket_store.is_away = True
        with pytest.raises(StoreUnavailable):
            log_in(client, "alice")
        ticket_store.is_away = False


# --- Flask


def flask_app(cache, **options):
    app = flask.Flask(__name__)
    app.session_interface = TicketSessions(cache, **options)

    @app.get("/who")
    def who():
        return dict(flask.session)

    return app


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"principal_key": "_user_id"},
        {"cookie": TicketCookie("__Host-ticket")},
        {"cookie": TicketCookie(is_secure=True)},
    ],
    ids=["usual", "principal_key", "host", "secure"],
)
def test_flask(thread_ticket_cache, options):
    client = log_in_flask(flask_app(thread_ticket_cache, **options).test_client(), "alice", {"cart": ["tea"]})
    assert client.get("/who").json == {options.get("principal_key", "user"): "alice", "cart": ["tea"]}
    client = log_in_flask(client, "bob")
    assert client.get("/who").json == {options.get("principal_key", "user"): "bob"}


def test_flask_without_our_sessions_is_told_so():
    with pytest.raises(ConfigError, match="TicketSessions"):
        log_in_flask(flask.Flask(__name__).test_client(), "alice")


# --- Django


def test_django(at):
    client = of_django.log_in(at.client(), "alice", {"a": 1})
    assert client.get("/who").json()["value"] == "alice"
    assert client.get("/get?name=a").json()["value"] == 1
    assert [info.principal for info in at.cache.sessions("alice")] == ["alice"]


# --- the clock, through a framework


def test_a_session_that_idles_out_in_a_test(ticket_cache, ticket_clock):
    with TestClient(starlette_app(ticket_cache), base_url=HTTPS) as client:
        log_in(client, "alice")
        ticket_clock.advance(7200 - 1)
        assert client.get("/who").json() == {"user": "alice"}
        ticket_clock.advance(7200 + 1)
        assert client.get("/who").json() == {}


def test_who_is_known_goes_on_while_the_store_is_away(ticket_cache, ticket_store):
    async def name(request):
        return JSONResponse(request.session["user"])

    app = Starlette(routes=[Route("/name", name)])
    app.add_middleware(SessionMiddleware, cache=ticket_cache)
    with TestClient(app, base_url=HTTPS) as client:
        log_in(client, "alice")
        ticket_store.is_away = True
        assert client.get("/name").json() == "alice"
        ticket_store.is_away = False


def test_the_store_is_away_in_a_test(ticket_cache, ticket_store, ticket_clock):
    with TestClient(starlette_app(ticket_cache), base_url=HTTPS) as client:
        log_in(client, "alice")
        ticket_store.is_away = True
        ticket_clock.advance(3)
        answer = client.get("/who")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        ticket_store.is_away = False
        assert client.get("/who").json() == {"user": "alice"}
