"""What sessions cost a Python application for each request, without a network: the application is
called as its server would.

    python -m pytest bench/bench_middleware.py

"no sessions" answers at once: the floor of its kind. fastticket is asked by hand, as README.md
shows. starsessions and Flask-Session keep their sessions in a real redis-server on this machine,
read them on every request and move their expiry on; Flask's own session is a signed cookie, which
nobody can revoke.
"""

from __future__ import annotations

import asyncio
import functools
import http.cookies
import io
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import flask_session
import passes
import pytest
import redis.asyncio
import starsessions
import starsessions.stores.redis
import uvloop
from children import LOAD_CORE
from pytest_benchmark.fixture import BenchmarkFixture
from sessions import start_redis

import fastticket

IDLE_TIMEOUT_S = 7200

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Says who asks. `/login` logs alice in, if there is a session."""
    session = scope.get("session")
    if session is not None and scope["path"] == "/login":
        session["user"] = "alice"
    user = session["user"] if session is not None else scope.get("user", "nobody")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": user.encode()})


class Tickets:
    """A middleware by hand: who the ticket in the cookie is of."""

    def __init__(self, inner: Asgi, cache: fastticket.TicketCache) -> None:
        self._inner = inner
        self._cache = cache

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        cookies = next((value.decode() for name, value in scope["headers"] if name == b"cookie"), "")
        ticket = next((part[7:] for part in cookies.split("; ") if part.startswith("ticket=")), "")
        session = self._cache.check(ticket) or await self._cache.authenticate(ticket)
        scope["user"] = session.principal
        await self._inner(scope, receive, send)


class Scene:
    """All the applications, and a Redis."""

    def __init__(self, folder: Path) -> None:
        self.loop = uvloop.new_event_loop()
        self._server, port = start_redis(folder, LOAD_CORE)
        store = fastticket.open_store(f"redis://127.0.0.1:{port}/0")
        self._cache = fastticket.TicketCache(store, fastticket.Keyring.generate(), lease_ms=60_000)
        self._client = redis.asyncio.Redis(port=port, protocol=2)
        self._blocking = redis.Redis(port=port)
        self.plain = application
        self.tickets = Tickets(application, self._cache)
        star_store = starsessions.stores.redis.RedisStore(connection=self._client)
        self.stars = starsessions.SessionMiddleware(
            starsessions.SessionAutoloadMiddleware(application),
            store=star_store,
            lifetime=IDLE_TIMEOUT_S,
            rolling=True,
            cookie_https_only=False,
        )
        self.ticket = self.loop.run_until_complete(self._log_in())
        self.star_cookie = cookie_of(self.ask(self.stars, "/login", "")[0]["headers"])

    async def _log_in(self) -> str:
        await self._cache.open()
        ticket = await self._cache.login("alice")
        await self._cache.authenticate(ticket)
        return ticket

    def ask(self, app: Asgi, path: str, cookie: str) -> list[Any]:
        return self.loop.run_until_complete(ask(app, path, cookie))

    def flask(self, kind: str) -> Callable[[str, str], tuple[bytes, list[Any]]]:
        """Flask with no session asked, its own, or Flask-Session's."""
        app = flask.Flask("bench")
        app.secret_key = "0123456789abcdef"
        if kind == "redis":
            app.config.update(SESSION_TYPE="redis", SESSION_REDIS=self._blocking, SESSION_PERMANENT=True)
            flask_session.Session(app)

        @app.get("/login")
        def login() -> str:
            flask.session["user"] = "alice"
            flask.session.permanent = True
            return "alice"

        @app.get("/")
        def who() -> str:
            return "nobody" if kind == "none" else flask.session["user"]

        return functools.partial(ask_wsgi, app)

    async def _close(self) -> None:
        await self._cache.aclose()
        await self._client.aclose()
        await asyncio.sleep(0)

    def close(self) -> None:
        self.loop.run_until_complete(self._close())
        self.loop.close()
        self._blocking.close()
        self._server.stop()


async def ask(app: Asgi, path: str, cookie: str) -> list[Any]:
    """The messages that the application sent."""
    sent: list[Any] = []
    headers = [(b"host", b"shop.example.com"), (b"accept", b"*/*")]
    if cookie:
        headers.append((b"cookie", cookie.encode()))
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, None, send)
    return sent


def ask_wsgi(app: Any, path: str, cookie: str) -> tuple[bytes, list[Any]]:
    """(body, headers)"""
    answered: list[Any] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "SERVER_NAME": "shop.example.com",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "HTTP_COOKIE": cookie,
    }
    body = b"".join(app.wsgi_app(environ, lambda status, headers: answered.append((status, headers))))
    assert answered[0][0] == "200 OK", answered
    return body, answered[0][1]


def cookie_of(headers: list[Any]) -> str:
    """The Cookie field that a browser would send back."""
    jar = http.cookies.SimpleCookie()
    for name, value in headers:
        text = name.decode() if isinstance(name, bytes) else name
        if text.lower() == "set-cookie":
            jar.load(value.decode() if isinstance(value, bytes) else value)
    return "; ".join(f"{name}={morsel.value}" for name, morsel in jar.items())


def _asgi(app: str, user: bytes, cookie: Callable[[Scene], str]) -> Callable[[Scene], passes.Run]:
    def make(scene: Scene) -> passes.Run:
        called, sent_cookie = getattr(scene, app), cookie(scene)
        assert scene.ask(called, "/", sent_cookie)[1]["body"] == user

        async def many(calls: int) -> None:
            for _ in range(calls):
                await ask(called, "/", sent_cookie)

        return lambda calls: scene.loop.run_until_complete(many(calls))

    return make


def _wsgi(kind: str, user: bytes) -> Callable[[Scene], passes.Run]:
    def make(scene: Scene) -> passes.Run:
        called = scene.flask(kind)
        cookie = "" if kind == "none" else cookie_of(called("/login", "")[1])
        assert called("/", cookie)[0] == user
        return lambda calls: [called("/", cookie) for _ in range(calls)]

    return make


ROWS: dict[str, Callable[[Scene], passes.Run]] = {
    "ASGI, no sessions": _asgi("plain", b"nobody", lambda scene: ""),
    "ASGI, fastticket by hand": _asgi("tickets", b"alice", lambda scene: f"theme=dark; ticket={scene.ticket}"),
    "ASGI, starsessions in Redis": _asgi("stars", b"alice", lambda scene: scene.star_cookie),
    "Flask, no sessions": _wsgi("none", b"nobody"),
    "Flask, its signed cookie": _wsgi("cookie", b"alice"),
    "Flask, Flask-Session in Redis": _wsgi("redis", b"alice"),
}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """One scene for all benchmarks of the module."""
    with tempfile.TemporaryDirectory() as folder:
        made = Scene(Path(folder))
        yield made
        made.close()


@functools.cache
def _run(scene: Scene, row: str) -> passes.Run:
    return ROWS[row](scene)


@passes.over(ROWS)
def test_request(benchmark: BenchmarkFixture, scene: Scene, number: int, row: str) -> None:
    """One pass over one row."""
    benchmark.extra_info["reference"] = "Flask, no sessions" if row.startswith("Flask") else "ASGI, no sessions"
    passes.time_calls(benchmark, "middleware", row, _run(scene, row))
