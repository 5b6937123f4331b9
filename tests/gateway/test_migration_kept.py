"""How a use here keeps a session alive at the old system: by that session's own idle timeout,
whatever ours is, and never beyond it.
"""

import base64
import json
import time
from typing import ClassVar

import pytest
import redis
from conftest import status_of
from lab.old_systems import KEYS, flask_logins, now_ms, put_spring_session, star_logins
from lab.redis_servers import wait_until
from test_migration import LEASE_MS, NEVER, ROUTES, counts_of
from test_migration_sources import request

from fastticket.moving.sources.spring import number_of

STORE = {"lease_ms": LEASE_MS, "flush_interval_ms": 100}
IDLE_S = 40


def a_round(at):
    """A round of the watch begins and ends; the first one after an exchange has written by then."""
    (held,) = at.call(lambda: list(at.service.exchange._held))
    for _ in range(2):
        held.seen = None
        wait_until(lambda: held.seen, "a round")


@pytest.mark.parametrize("is_indexed", [True, False])
def test_the_own_timeout_of_a_session_of_spring_is_kept_to(gateway, origin, redis_server, is_indexed):
    """`[ticket] idle_timeout_s` is two hours."""
    at = gateway(
        origin(),
        migration=[
            {
                "source": "spring",
                "url": f"redis://{redis_server.address}/0",
                "until": NEVER,
                "principal_attributes": ["who"],
            }
        ],
        routes=ROUTES,
        store=STORE,
    )
    used_ms = now_ms() - IDLE_S * 500
    with redis.Redis(port=redis_server.port) as there:
        put_spring_session(there, "id", used_ms=used_ms, idle_s=IDLE_S, who=b'"alice"')
        there.expire(f"{KEYS}id", IDLE_S // 2 + (300 if is_indexed else 0))
        there.expire(f"{KEYS}expires:id", IDLE_S // 2)
        if not is_indexed:
            there.delete(f"{KEYS}expires:id")
        cookies = {"SESSION": base64.b64encode(b"id").decode()}
        assert status_of(at.ask(request("/", cookies))[0]) == 200
        wait_until(lambda: number_of(there.hget(f"{KEYS}id", "lastAccessedTime")) > used_ms, "the use there")
        a_round(at)
        most_s = IDLE_S + (300 if is_indexed else 0)
        assert most_s - 10 < there.ttl(f"{KEYS}id") <= most_s
        assert there.ttl(f"{KEYS}expires:id") <= IDLE_S
        assert (there.ttl(f"{KEYS}expires:id") > IDLE_S - 10) == is_indexed


def flask(port):
    (cookie,) = flask_logins(port, ["alice"], PERMANENT_SESSION_LIFETIME=3600)
    return cookie, f"session:{cookie}"


def star(port):
    """Not rolling: it ends an hour after the login."""
    (cookie,) = star_logins(port, ["alice"], lifetime=3600)
    return cookie, f"starsessions.{cookie}"


class Rolling:
    """Used a moment ago, two lifetimes after its login."""

    table: ClassVar = {"idle_timeout_s": 3600}

    def __call__(self, port):
        (cookie,) = star_logins(port, ["alice"], lifetime=3600, rolling=True)
        with redis.Redis(port=port) as there:
            content = json.loads(there.get(f"starsessions.{cookie}"))
            content["__metadata__"]["created"] = time.time() - 7200
            there.set(f"starsessions.{cookie}", json.dumps(content), ex=3600)
        return cookie, f"starsessions.{cookie}"


@pytest.mark.parametrize("made", [flask, star, Rolling()], ids=["flask", "star", "rolling"])
def test_nothing_lengthens_a_session_whose_timeout_nobody_has_told(gateway, origin, redis_server, made):
    """Its key says when it ends, and not whether a use puts that off, or for how long."""
    table = {"url": f"redis://{redis_server.address}/0", "until": NEVER}
    if made is flask:
        table["source"] = "flask-session"
    else:
        table |= {"source": "starsessions", "principal_attributes": ["user.name"]}
    at = gateway(origin(), migration=[table | getattr(made, "table", {})], routes=ROUTES, store=STORE)
    cookie, key = made(redis_server.port)
    with redis.Redis(port=redis_server.port) as there:
        there.expire(key, 1800)
        assert status_of(at.ask(request("/", {"session": cookie}))[0]) == 200
        a_round(at)
        left_s = 3600 if isinstance(made, Rolling) else 1800
        assert left_s - 60 < there.ttl(key) <= left_s
        assert counts_of(at).get("written_back", 0) == int(isinstance(made, Rolling))
