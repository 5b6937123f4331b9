"""Sessions of other systems, made by their own libraries; Spring's and Linkis' by bytes of their
form, which tests/moving/test_sources_values.py compares with published ones.
"""

from __future__ import annotations

import contextlib
import time

import flask
import redis
import redis.asyncio
from flask_session import Session
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starsessions import SessionAutoloadMiddleware, SessionMiddleware
from starsessions.stores.redis import RedisStore

from fastticket.moving.sources.spring import INDEX

JAVA = b"\xac\xed\x00\x05"
NUMBER = b"xr\x00\x10java.lang.Number\x86\xac\x95\x1d\x0b\x94\xe0\x8b\x02\x00\x00xp"
LONG = JAVA + b"sr\x00\x0ejava.lang.Long;\x8b\xe4\x90\xcc\x8f#\xdf\x02\x00\x01J\x00\x05value" + NUMBER
INTEGER = JAVA + b"sr\x00\x11java.lang.Integer\x12\xe2\xa0\xa4\xf7\x81\x878\x02\x00\x01I\x00\x05value" + NUMBER
KEYS = "spring:session:sessions:"
HOUR_MS = 3_600_000


def now_ms():
    return time.time_ns() // 1_000_000


def java_long(number):
    return LONG + number.to_bytes(8, "big", signed=True)


def java_integer(number):
    return INTEGER + number.to_bytes(4, "big", signed=True)


def java_text(text):
    encoded = text.encode()
    return JAVA + b"t" + len(encoded).to_bytes(2, "big") + encoded


def put_spring_session(there, identifier, *, used_ms=None, created_ms=None, idle_s=1800, user="", **attributes):
    """As Spring Session's indexed repository writes it; `user`: in the index."""
    used_ms = used_ms or now_ms()
    times = {
        "creationTime": java_long(created_ms or used_ms - HOUR_MS),
        "lastAccessedTime": java_long(used_ms),
        "maxInactiveInterval": java_integer(idle_s),
    }
    there.hset(KEYS + identifier, mapping=times | {f"sessionAttr:{name}": data for name, data in attributes.items()})
    there.set(f"{KEYS}expires:{identifier}", "")
    there.sadd(f"spring:session:expirations:{used_ms // 60_000 * 60_000}", java_text(f"expires:{identifier}"))
    if user:
        there.sadd(f"spring:session:index:{INDEX}:{user}", java_text(identifier))


def flask_logins(port, users, **config):
    """The cookies of users who logged in at an application with Flask-Session; `nobody` did not."""
    application, client = flask.Flask("shop"), redis.Redis(port=port)
    application.config.update(SESSION_TYPE="redis", SESSION_REDIS=client, **config)
    Session(application)

    @application.get("/login/<user>")
    def login(user):
        flask.session.update({"_user_id": user, "cart": {"tea": 2}, "seen": b"\x00"} if user != "nobody" else {"a": 1})
        return "ok"

    cookies = []
    for user in users:
        browser = application.test_client()
        browser.get(f"/login/{user}")
        cookies.append(browser.get_cookie("session").value)
    client.close()
    return cookies


def star_logins(port, users, **settings):
    """The cookies of users who logged in at an application with starsessions; `nobody` did not."""

    async def login(request):
        user = request.query_params["user"]
        request.session.update({"user": {"name": user}, "cart": [1]} if user != "nobody" else {"a": 1})
        return PlainTextResponse("ok")

    connection = redis.asyncio.Redis(port=port)

    @contextlib.asynccontextmanager
    async def lifespan(_):
        yield
        await connection.aclose()

    middleware = [
        Middleware(SessionMiddleware, store=RedisStore(connection=connection), cookie_https_only=False, **settings),
        Middleware(SessionAutoloadMiddleware),
    ]
    cookies = []
    with TestClient(Starlette(routes=[Route("/login", login)], middleware=middleware, lifespan=lifespan)) as client:
        for user in users:
            client.cookies.clear()
            client.get("/login", params={"user": user})
            cookies.append(client.cookies["session"])
    return cookies
