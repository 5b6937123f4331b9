"""The admin API as an operator reads it: a real gateway on Redis, a Unix socket."""

import asyncio
import json
import os

import pytest
from lab.operators import Operator
from lab.processes import BOUND_S
from lab.redis_servers import wait_until

import fastticket
from fastticket.keyfile import create_key_file


@pytest.fixture
def at(site, tmp_path, redis_server, origin):
    """A gateway on Redis, whose operator is `at.operator`, and a cache beside it, `at.run`."""
    create_key_file(tmp_path / "keys.toml")
    started = site(
        {
            "gateway": {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock", "threads": 2, "drain_timeout_s": 2.0},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": f"redis://default:hunter2@{redis_server.address}/0?shards=4"},
            "upstream": [{"name": "app", "servers": [origin().address]}],
            "route": [{"path": "/", "request_headers": {"X-Key": "s3cret"}}],
        }
    )
    started.operator = Operator(str(tmp_path / "admin.sock"))
    return started


def in_cache(at, redis_server, act):
    """What comes of `act(cache)` in a ticket cache of this process."""

    async def run():
        url = f"redis://default:hunter2@{redis_server.address}/0?shards=4"
        async with fastticket.TicketCache(url, at.folder / "keys.toml") as cache:
            return await act(cache)

    return asyncio.run(run())


def test_what_the_gateway_is_and_does(at, redis_server):
    operator = at.operator
    status = wait_until(lambda: (s := operator.get("/v1/status"))["store"] and s, "a note", BOUND_S)
    assert status["is_healthy"]
    assert status["is_ready"]
    assert status["workers"][0]["pid"] == at.workers()[0]
    assert [len(worker["threads"]) for worker in operator.get("/v1/workers")["workers"]] == [2]
    config = operator.get("/v1/config")
    assert config["tables"]["gateway"]["threads"] == 2
    text = json.dumps([config, operator.get("/v1/store"), status, operator.get("/v1/keys")])
    secret = (at.folder / "keys.toml").read_text().split('"')[1]
    assert "hunter2" not in text
    assert "s3cret" not in text
    assert secret not in text
    assert operator.get("/v1/log-level") == {"level": "info", "configured": "info"}
    [upstream] = operator.get("/v1/upstreams")["upstreams"]
    assert [server["state"] for server in upstream["servers"]] == ["up"]
    [key] = operator.get("/v1/keys")["keys"]
    assert (key["state"], key["is_loaded"]) == ("signs", True)


def test_sessions_of_a_principal(at, redis_server):
    async def begin(cache):
        ticket = await cache.login("böb/1", details={"address": "192.0.2.1"})
        session = await cache.authenticate(ticket)
        async with cache.attributes(session) as kept:
            kept["cart"] = [1, 2]
        return session.id

    session_id = in_cache(at, redis_server, begin)
    path = "/v1/principals/b%C3%B6b%2F1/sessions"
    [seen] = at.operator.get(path)["sessions"]
    assert (seen["id"], seen["principal"], seen["details"]) == (session_id, "böb/1", {"address": "192.0.2.1"})
    assert seen["attributes"] == [{"name": "cart", "bytes": len(b"[1,2]")}]
    assert at.operator.get(path, values="true")["sessions"][0]["attributes"][0]["value"] == [1, 2]
    assert at.operator.get(f"/v1/sessions/{session_id}", principal="böb/1") == seen
    assert at.operator.refused("GET", f"/v1/sessions/{'A' * 22}?principal=alice") == (404, "no_such_session")

    def looks():
        lines = [json.loads(line) for line in at.log.splitlines() if '"audit"' in line]
        return [line["who"]["uid"] for line in lines if line["audit"] == "sessions_of_principal"]

    wait_until(lambda: looks() == [os.geteuid()], "the audit log has the one that saw values", BOUND_S)


def test_events_are_followed_and_resumed(at, redis_server):
    with at.operator.events() as stream:
        stream.begin()
        ticket = in_cache(at, redis_server, lambda cache: cache.login("alice"))
        kind, said = stream.next()
        assert (kind, said["principal"]) == ("created", "alice")
        os.kill(at.workers()[0], 9)  # and the stream goes on
        in_cache(at, redis_server, lambda cache: cache.logout(ticket))
        kind, said = stream.next()
        assert (kind, said["reason"]) == ("revoked", "logout")
        position = stream.last_id
    for name in ("bob", "carol"):
        in_cache(at, redis_server, lambda cache, name=name: cache.login(name))
    with at.operator.events(**{"Last-Event-ID": position}) as stream:
        assert sorted(stream.next()[1]["principal"] for _ in range(2)) == ["bob", "carol"]
    assert at.operator.refused("GET", "/v1/events?after=nonsense") == (400, "bad_request")
