"""Sessions of other systems than Linkis go on at the gateway, each by its own cookie: what their
libraries have written in Redis, and oauth2-proxy's by the facts of its form.
"""

import base64
import itertools
import json
import os
import time
from typing import ClassVar

import pytest
import redis
from conftest import fields_of, status_of
from lab.old_systems import KEYS, flask_logins, now_ms, put_spring_session, star_logins
from lab.redis_servers import wait_until
from moving.test_oauth2_proxy_session import SECRET, sealed, signed, ticket_text
from test_migration import ROUTES, answering_with, ticket_in

from fastticket.moving.sources.spring import number_of

ANSWERS = {"/logout": b"X-Ticket-Logout: session"}
IDLE_S = 1800


class Spring:
    """`keys`: what is there of a session."""

    table: ClassVar = {"source": "spring"}
    cookie = "SESSION"

    def __init__(self, redis, port):
        self.redis = redis
        self.numbers = itertools.count()

    def login(self, user, **more):
        used_ms, identifier = now_ms() - IDLE_S * 500, f"id-{user}-{next(self.numbers)}"
        put_spring_session(self.redis, identifier, used_ms=used_ms, idle_s=IDLE_S, user=user, cart=b"[1]", **more)
        for name, left_s in ((f"{KEYS}{identifier}", IDLE_S), (f"{KEYS}expires:{identifier}", IDLE_S // 2)):
            self.redis.expire(name, left_s)
        return base64.b64encode(identifier.encode()).decode()

    def id_of(self, cookie):
        return base64.b64decode(cookie).decode()

    def is_alive(self, cookie):
        name = self.id_of(cookie)
        interval = self.redis.hget(KEYS + name, "maxInactiveInterval")
        return interval is not None and number_of(interval) > 0 and self.redis.exists(f"{KEYS}expires:{name}") == 1

    def left_s(self, cookie):
        name = self.id_of(cookie)
        used_ms = number_of(self.redis.hget(KEYS + name, "lastAccessedTime"))
        left_s = used_ms / 1000 + IDLE_S - time.time()
        assert self.redis.ttl(KEYS + name) >= left_s
        return min(left_s, self.redis.ttl(f"{KEYS}expires:{name}"))

    def logout(self, cookie):
        self.redis.delete(KEYS + self.id_of(cookie))


class Keys:
    """A system that keeps a string for each session, under a key that `key_of` tells."""

    cookie = "session"

    def __init__(self, redis, port):
        self.redis = redis
        self.port = port

    def is_alive(self, cookie):
        return self.redis.exists(self.key_of(cookie)) == 1

    def left_s(self, cookie):
        return self.redis.ttl(self.key_of(cookie))

    def logout(self, cookie):
        assert self.redis.delete(self.key_of(cookie))

    def _made(self, cookie):
        self.redis.expire(self.key_of(cookie), IDLE_S // 2)
        return cookie


class Flask(Keys):
    table: ClassVar = {"source": "flask-session"}

    def key_of(self, cookie):
        return f"session:{cookie}"

    def login(self, user):
        (cookie,) = flask_logins(self.port, [user], PERMANENT_SESSION_LIFETIME=IDLE_S)
        return self._made(cookie)


class Star(Keys):
    table: ClassVar = {"source": "starsessions", "principal_attributes": ["user.name"]}

    def key_of(self, cookie):
        return f"starsessions.{cookie}"

    def login(self, user):
        (cookie,) = star_logins(self.port, [user], lifetime=IDLE_S, rolling=True)
        return self._made(cookie)


class OAuth2Proxy(Keys):
    cookie = "_oauth2_proxy"
    table: ClassVar = {"source": "oauth2-proxy", "key_file": "cookie-secret", "idle_timeout_s": 3600}

    def __init__(self, redis, port):
        super().__init__(redis, port)
        self.keys = {}

    def key_of(self, cookie):
        return self.keys[cookie]

    def login(self, user):
        secret, key, now_s = os.urandom(16), f"_oauth2_proxy-{os.urandom(16).hex()}", int(time.time())
        self.redis.set(key, sealed(secret, u=user, e=f"{user}@x", ca=now_s - 60, eo=now_s + 600), ex=3600)
        cookie = signed(ticket_text(key, secret), now_s)
        self.keys[cookie] = key
        return cookie


def request(path, cookies):
    line = "; ".join(f"{name}={value}" for name, value in cookies.items() if value)
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nCookie: {line}\r\n\r\n".encode()


@pytest.mark.parametrize("system", [Spring, Flask, Star, OAuth2Proxy])
def test_sessions_of_each_system_go_on_and_end_on_both_sides(gateway, origin, redis_server, tmp_path, system):
    client = redis.Redis(port=redis_server.port)
    there = system(client, redis_server.port)
    (tmp_path / "cookie-secret").write_text(SECRET + "\n")
    table: ClassVar = {"url": f"redis://{redis_server.address}/0", "until": "2999-12-31", "idle_timeout_s": IDLE_S}
    behind = answering_with(ANSWERS)(origin)
    at = gateway(
        behind, migration=[table | system.table], routes=ROUTES, store={"lease_ms": 1000, "flush_interval_ms": 100}
    )
    alice, bob = there.login("alice"), there.login("bob")
    tickets = {}
    for user, old in (("alice", alice), ("bob", bob)):
        head, _ = at.ask(request("/", {there.cookie: old}))
        assert status_of(head) == 200
        assert fields_of(behind.requests[-1][0])[b"x-forwarded-user"] == user.encode()
        tickets[user] = ticket_in(head)
    if system is OAuth2Proxy:
        late = signed(ticket_text("_oauth2_proxy-late", b"s" * 16), int(time.time()) - 3601)
        assert b'"reason": "idle"' in at.ask(request("/", {there.cookie: late}))[1]
    for bad in (alice[:-2] + "AA", "x", alice[::-1]):
        assert status_of(at.ask(request("/", {there.cookie: bad}))[0]) == 401
    if system is not OAuth2Proxy:  # its cookie says when it ends
        wait_until(lambda: there.left_s(alice) > IDLE_S * 0.9, "the use there")
    assert status_of(at.ask(request("/logout", {there.cookie: alice, "ticket": tickets["alice"]}))[0]) == 200
    assert not there.is_alive(alice)
    assert status_of(at.ask(request("/", {there.cookie: alice}))[0]) == 401
    there.logout(bob)
    wait_until(lambda: status_of(at.ask(request("/", {"ticket": tickets["bob"]}))[0]) == 401, "the end here")
    client.close()
    assert json.dumps(at.call(lambda: at.service.exchange.now)) == '{"held": 0, "late": 0}'
