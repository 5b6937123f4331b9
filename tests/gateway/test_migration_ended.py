"""All sessions of a user, or of everybody, are ended here: so are those of the system before that
nobody has exchanged, here for good, and there where they can be found by user.
"""

import json

import pytest
import redis
from conftest import status_of
from lab.old_systems import java_text
from lab.redis_servers import wait_until
from moving.test_oauth2_proxy_session import SECRET
from test_migration import (
    HASH,
    LEASE_MS,
    NEVER,
    ROUTES,
    answering_with,
    counts_of,
    linkis,  # noqa: F401 -- a fixture
    now_ms,
    request,
    ticket_in,
)
from test_migration_sources import Flask, OAuth2Proxy, Spring, Star
from test_migration_sources import request as request_with

import fastticket.sync
from fastticket.commands.cli import main
from fastticket.moving.sources.spring import INDEX
from fastticket.sessions.administration import Administration

ENDED = ("alice", "bob", "carol", "dave")
NAMES = (*ENDED, "erin", "frank")  # of erin all but one; of frank none
KINDS = ["des", "aes-gcm"] * 3
OLD_USER = "gateway"


def told(at, raw):
    return status_of(at.ask(raw)[0])


def test_p6_an_end_of_all_holds_when_the_bar_alone_is_left(gateway, origin, linkis, tmp_path, capsys):  # noqa: F811
    """Whoever ended them. All gateways restart, marks and log have gone, and the old store lets
    nothing be ended all the while. A new login there goes on here.
    """
    linkis.redis.acl_setuser(OLD_USER, enabled=True, nopass=True, keys=["*"], commands=["+@all", "-hdel"])
    ours = f"redis://{linkis.server.address}/1"
    behind = answering_with({"/out": b"X-Ticket-Logout: everywhere"})(origin)
    there = f"redis://{OLD_USER}:x@{linkis.server.address}/0"

    def start():
        store = {"url": ours, "lease_ms": LEASE_MS, "flush_interval_ms": 100}
        table = {"source": "linkis", "url": there, "until": NEVER}
        return gateway(behind, migration=[table], store=store, routes=ROUTES)

    at = start()
    old = {name: linkis.login(name, kind, login_ms=now_ms() - 600_000) for name, kind in zip(NAMES, KINDS, strict=True)}
    here = {name: linkis.login(name, login_ms=now_ms() - 300_000) for name in ("dave", "erin")}
    tickets = {name: ticket_in(at.ask(request("/", each))[0]) for name, each in here.items()}
    assert main(["revoke", "--user", "alice", "--store", ours]) == 1  # none was here
    assert not at.run(Administration(at.cache).end_of("bob"))
    with fastticket.sync.TicketCache(ours, str(tmp_path / "keys.toml")) as application:
        application.logout_everywhere("carol")
        assert application.logout_everywhere("erin", keep=application.authenticate(tickets["erin"])) == 0
    assert told(at, request("/out", here["dave"], tickets["dave"])) == 200
    at.stop()
    with redis.Redis(port=linkis.server.port, db=1) as inside:
        assert inside.delete(*inside.keys("*:ended"), *inside.keys("*:log"))
        for key in inside.keys("*:bars"):  # it was two minutes ago
            for name, at_ms in inside.zrange(key, 0, -1, withscores=True):
                inside.zadd(key, {name: at_ms - 120_000})
    at = start()
    assert [told(at, request("/", old[name])) for name in (*ENDED, "erin")] == [401] * 5
    assert told(at, request("/", here["dave"])) == 401
    assert counts_of(at)["refused_revoked"] == 6  # by this store, not by the old one
    assert [told(at, request("/", each)) for each in (old["frank"], here["erin"])] == [200, 200]
    again = linkis.login("alice", login_ms=now_ms())
    assert told(at, request("/", again)) == 200
    move = ["migrate", "linkis", "--from", there, "--store", ours, "--progress", str(tmp_path / "progress"), "--json"]
    capsys.readouterr()
    for more in (["--dry-run"], []):
        assert main([*move, *more]) in (0, 1)
        said = json.loads(capsys.readouterr().out)
        assert (said["ended"], said["exists"], said["created"]) == (6, 3, 0), said
    # The old store can be written again: there, too, those have ended, and nobody else.
    left = {old["frank"], here["erin"], again, linkis.login("bob", login_ms=now_ms())}
    linkis.redis.acl_setuser(OLD_USER, enabled=True, nopass=True, keys=["*"], commands=["+@all"])
    wait_until(lambda: set(linkis.redis.hkeys(HASH)) == left, "the ends there")
    wait_until(lambda: at.call(lambda: at.service.exchange.now)["late"] == 0, "all was told")
    assert told(at, request("/", here["erin"], tickets["erin"])) == 200


@pytest.mark.parametrize("system", [Spring, Flask, Star, OAuth2Proxy])
def test_all_are_ended_there_where_they_say_whose_they_are_and_when_they_began(
    gateway, origin, redis_server, tmp_path, system
):
    client = redis.Redis(port=redis_server.port)
    there = system(client, redis_server.port)
    (tmp_path / "cookie-secret").write_text(SECRET + "\n")
    table = {"url": f"redis://{redis_server.address}/0", "until": NEVER, "idle_timeout_s": 1800}
    at = gateway(
        origin(),
        migration=[table | system.table],
        routes=ROUTES,
        store={"lease_ms": LEASE_MS, "flush_interval_ms": 100},
    )

    def ask(old):
        return told(at, request_with("/", {there.cookie: old}))

    kept, other, bobs = there.login("alice"), there.login("alice"), there.login("bob")
    assert ask(kept) == 200
    (session,) = at.run(at.cache.sessions("alice"))
    at.run(at.cache.logout_everywhere("alice", keep=session))
    says_more = system in (Spring, Star)
    assert ask(other) == 401
    if says_more:
        wait_until(lambda: not there.is_alive(other), "the end there")
    assert [there.is_alive(each) for each in (kept, other, bobs)] == [True, not says_more, True]
    assert ask(kept) == 200
    at.run(Administration(at.cache).end_all(5.0))
    assert [ask(each) for each in (kept, bobs)] == [401] * 2
    clearly_ms = 1000  # two clocks
    more = {"created_ms": now_ms() + clearly_ms, INDEX: java_text("bob")} if system is Spring else {}
    later = there.login("bob", **more)
    if system is Flask:
        client.expire(there.key_of(later), 1800)  # it was used since
    assert ask(later) == (200 if says_more else 401)
    if says_more:
        wait_until(lambda: not there.is_alive(bobs), "the end there")
        assert there.is_alive(later)
    client.close()
