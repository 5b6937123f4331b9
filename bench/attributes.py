"""What values in a session cost a web application: fastticket's middleware beside starsessions and
Flask-Session, on the same Redis.

    python bench/attributes.py [--requests 3000]

Method: each application is called in this process, as its server would call it, one request after
the other; a real redis-server on the other core. A session holds a cart of ten items and four short
values, some 500 bytes as JSON. Three kinds of requests: one that reads the cart, one that reads it
and adds to a counter, one that looks at nothing. Candidates take turns, request by request, so a
mood of the machine strikes all alike. Commands are those that clients send, counted by MONITOR in a
run of its own, without those that scripts call; fastticket's flush, which goes by the clock and not
by requests, is kept out of that run. Bytes are the growth of Redis' memory by session, for 2,000 of
them.

Wanted: at most 1 command for a request that changes something, none for one that does not, where
near copies are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench_middleware
import figures
import flask
import flask_session
import redis
import redis.asyncio
import starsessions
import starsessions.stores.redis
import uvloop
from children import LOAD_CORE
from sessions import start_redis

import fastticket
import fastticket.asgi
import fastticket.flask
import fastticket.sync

VALUES = {
    "cart": [{"item": number, "name": f"article {number}", "price": 9.99} for number in range(10)],
    "language": "en",
    "theme": "dark",
    "csrf": "0123456789abcdef0123456789abcdef",
    "count": 0,
}
KINDS = ("read", "change", "ignore")
NEAR = ("ASGI, fastticket, near", "Flask, fastticket, near")
MEMORY_SESSIONS = 2000
NEAR_BYTES = 50_000_000
IDLE_TIMEOUT_S = 7200
NO_CLOCK_MS = 600_000  # between flushes, where commands are counted

Ask = Callable[[str, str], str]  # path and cookie -> the cookie that came, if any


def use(session: Any, path: str) -> None:
    """The application's use of its session. `/login-NAME` fills it."""
    if path.startswith("/login-"):
        session["user"] = path.removeprefix("/login-")
        session.update(VALUES)
    elif path == "/read":
        assert len(session["cart"]) == len(VALUES["cart"])
    elif path == "/change":
        assert session["cart"]
        session["count"] += 1


class Asgi:
    """An ASGI application behind a middleware."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wrap: Callable[[Any], Any], close: Callable[[], Any]) -> None:
        self._loop = loop
        self._app = wrap(self._application)
        self._close = close

    @staticmethod
    async def _application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/ignore":
            use(scope["session"], scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def ask(self, path: str, cookie: str) -> str:
        sent = self._loop.run_until_complete(bench_middleware.ask(self._app, path, cookie))
        assert sent[0]["status"] == 200, sent
        return bench_middleware.cookie_of(sent[0]["headers"])

    def close(self) -> None:
        self._loop.run_until_complete(self._close())


class Wsgi:
    """A Flask application with some session interface."""

    def __init__(self, configure: Callable[[flask.Flask], None], close: Callable[[], Any]) -> None:
        self._app = flask.Flask("bench")
        self._app.secret_key = "0123456789abcdef"
        configure(self._app)
        self._app.add_url_rule("/<path:path>", view_func=self._view)
        self.close = close

    @staticmethod
    def _view(path: str) -> str:
        flask.session.permanent = True
        if path != "ignore":
            use(flask.session, f"/{path}")
        return "ok"

    def ask(self, path: str, cookie: str) -> str:
        return bench_middleware.cookie_of(bench_middleware.ask_wsgi(self._app, path, cookie)[1])


def asgi_fastticket(loop: asyncio.AbstractEventLoop, port: int, near_bytes: int, **settings: Any) -> Asgi:
    cache = fastticket.TicketCache(
        fastticket.open_store(f"redis://127.0.0.1:{port}/0"),
        fastticket.Keyring.generate(),
        near_attributes_bytes=near_bytes,
        **settings,
    )
    wrap = functools.partial(fastticket.asgi.SessionMiddleware, cache=cache)
    return Asgi(loop, wrap, cache.aclose)


def asgi_starsessions(loop: asyncio.AbstractEventLoop, port: int) -> Asgi:
    client = redis.asyncio.Redis(port=port, protocol=2)
    store = starsessions.stores.redis.RedisStore(connection=client)

    def wrap(app: Any) -> Any:
        autoload = starsessions.SessionAutoloadMiddleware(app)
        return starsessions.SessionMiddleware(
            autoload, store=store, lifetime=IDLE_TIMEOUT_S, rolling=True, cookie_https_only=False
        )

    return Asgi(loop, wrap, client.aclose)


def flask_fastticket(port: int, near_bytes: int, **settings: Any) -> Wsgi:
    cache = fastticket.sync.TicketCache(
        fastticket.open_store(f"redis://127.0.0.1:{port}/0"),
        fastticket.Keyring.generate(),
        near_attributes_bytes=near_bytes,
        **settings,
    )

    def configure(app: flask.Flask) -> None:
        app.session_interface = fastticket.flask.TicketSessions(cache)

    return Wsgi(configure, cache.close)


def flask_session_redis(port: int) -> Wsgi:
    client = redis.Redis(port=port)

    def configure(app: flask.Flask) -> None:
        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client, SESSION_PERMANENT=True)
        flask_session.Session(app)

    return Wsgi(configure, client.close)


Candidates = dict[str, Callable[..., Any]]


def candidates(loop: asyncio.AbstractEventLoop) -> Candidates:
    """Each is made with a port of Redis, and settings of fastticket's cache."""
    return {
        "ASGI, fastticket, near": lambda port, **named: asgi_fastticket(loop, port, NEAR_BYTES, **named),
        "ASGI, fastticket": lambda port, **named: asgi_fastticket(loop, port, 0, **named),
        "ASGI, starsessions": lambda port, **_: asgi_starsessions(loop, port),
        "Flask, fastticket, near": lambda port, **named: flask_fastticket(port, NEAR_BYTES, **named),
        "Flask, fastticket": lambda port, **named: flask_fastticket(port, 0, **named),
        "Flask, Flask-Session": lambda port, **_: flask_session_redis(port),
    }


@contextlib.contextmanager
def served(folder: Path) -> Iterator[int]:
    """A Redis of its own; its port."""
    folder.mkdir()
    server, port = start_redis(folder, LOAD_CORE)
    try:
        yield port
    finally:
        server.stop()


def measure_latency(made: dict[str, Any], requests: int) -> dict[str, dict[str, list[float]]]:
    """Candidate -> kind -> µs of each request; in turns."""
    cookies = {name: each.ask("/login-alice", "") for name, each in made.items()}
    took_us: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in KINDS} for name in made}
    for number in range(requests):
        for kind in KINDS:
            for name, each in made.items():
                began_s = time.perf_counter()
                each.ask(f"/{kind}", cookies[name])
                if number >= requests // 10:
                    took_us[name][kind].append((time.perf_counter() - began_s) * 1e6)
    return took_us


def count_commands(make: Callable[..., Any], port: int, requests: int = 200) -> dict[str, float]:
    """Kind -> commands that the candidate sends for a request, once its session is held."""
    each = make(port, flush_interval_ms=NO_CLOCK_MS, lease_ms=2 * NO_CLOCK_MS, idle_timeout_s=NO_CLOCK_MS)
    cookie = each.ask("/login-alice", "")
    for kind in KINDS:
        each.ask(f"/{kind}", cookie)
    found = {}
    for kind in KINDS:
        with redis.Redis(port=port) as client, client.monitor() as monitor:
            for _ in range(requests):
                each.ask(f"/{kind}", cookie)
            with redis.Redis(port=port) as marker:
                marker.echo("the end")
            sent = 0
            while "the end" not in (line := monitor.next_command())["command"]:
                sent += line["client_type"] != "lua" and not line["command"].startswith(("HELLO", "CLIENT", "SELECT"))
        found[kind] = sent / requests
    each.close()
    return found


def count_bytes(make: Callable[..., Any], port: int) -> float:
    """The bytes in Redis of a session with its values."""
    each = make(port)
    each.ask("/login-first", "")
    with redis.Redis(port=port) as client:
        before = client.info("memory")["used_memory"]
        for number in range(MEMORY_SESSIONS):
            each.ask(f"/login-user{number:06}", "")
        grown = client.info("memory")["used_memory"] - before
    each.close()
    return float(grown / MEMORY_SESSIONS)


def main() -> int:
    parser = argparse.ArgumentParser(description="Attributes of sessions, beside others.")
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    found: dict[str, figures.Figure] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        makers = candidates(loop)
        with served(folder / "latency") as port:
            made = {name: make(port) for name, make in makers.items()}
            took_us = measure_latency(made, options.requests)
            for each in made.values():
                each.close()
        print(f"{'':26}{'read, µs':>12}{'p99':>8}{'change, µs':>12}{'p99':>8}{'ignore, µs':>12}", end="")
        print("   commands: read change ignore   bytes")
        for number, (name, make) in enumerate(makers.items()):
            with served(folder / f"commands{number}") as port:
                commands = count_commands(make, port)
            with served(folder / f"bytes{number}") as port:
                size = count_bytes(make, port)
            row = f"{name:26}"
            for kind in KINDS:
                values = sorted(took_us[name][kind])
                median, p99 = values[len(values) // 2], values[len(values) * 99 // 100]
                row += f"{median:12.0f}" + (f"{p99:8.0f}" if kind != "ignore" else "")
                found[f"attributes/{name}/{kind}"] = figures.middle(values, "µs a request")
                found[f"attributes/{name}/{kind} p99"] = figures.figure(p99, "µs")
                found[f"attributes/{name}/{kind} commands"] = figures.figure(commands[kind], "a request")
            found[f"attributes/{name}/bytes"] = figures.figure(size, "bytes a session")
            print(f"{row}{commands['read']:18.2f}{commands['change']:7.2f}{commands['ignore']:7.2f}{size:8.0f}")
    figures.write(options.json, found)
    most = {kind: max(found[f"attributes/{name}/{kind} commands"]["value"] for name in NEAR) for kind in KINDS}
    is_met = most["change"] <= 1 and most["read"] == most["ignore"] == 0
    print(f"near copies: at most 1 command where something changes, 0 where not: {'met' if is_met else 'MISSED'}")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
