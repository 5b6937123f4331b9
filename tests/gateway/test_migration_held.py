"""Which exchanged sessions a gateway knows: after a restart, an upgrade, a reload, a rotation, and
when there are more than it holds. Whom it admits without a question, it hears of at the old store.
"""

import contextlib
import signal
import threading

import pytest
import redis
from conftest import BOUND_S, fields_of, status_of
from lab.redis_servers import wait_until
from test_gateway_auth import answering
from test_migration import (
    HASH,
    HASTY_MS,
    LEASE_MS,
    NEVER,
    ROUTES,
    TICKETS,
    answering_with,
    linkis,  # noqa: F401 -- a fixture
    moving,  # noqa: F401 -- a fixture
    request,
    ticket_in,
)

from fastticket.commands.cli import main
from fastticket.gateway.migration.making import make_exchange
from fastticket.keyfile import create_key_file

ANSWERS = {
    "/login": b"X-Ticket-Login: alice",
    "/logout": b"X-Ticket-Logout: session",
    "/rotate": b"X-Ticket-Rotate: 1",
}
CODE = "a-long-random-code"
TOKENS = f'[[token]]\nname = "engines"\ncode = "{CODE}"\nusers = ["*"]\nhosts = ["*"]\n'
SLOW = "/open/slow"


@pytest.fixture
def rotated(moving, linkis):  # noqa: F811
    """A gateway that has just started, an old ticket, and the ticket of its rotated session."""
    before, _ = moving(answers=answering_with(ANSWERS))
    old = linkis.login()
    ticket = ticket_in(before.ask(request("/", old))[0])
    ticket = ticket_in(before.ask(request("/rotate", old, ticket))[0])
    before.stop()
    at, _ = moving(answers=answering_with(ANSWERS))
    return at, old, ticket


def test_a_logout_of_a_session_rotated_before_the_restart_ends_the_old_one(rotated, linkis):  # noqa: F811
    at, old, ticket = rotated
    assert status_of(at.ask(request("/logout", old, ticket))[0]) == 200
    assert linkis.used_ms(old) is None


def test_an_end_there_of_a_session_rotated_before_the_restart_is_heard(rotated, linkis):  # noqa: F811
    at, old, ticket = rotated
    assert status_of(at.ask(request("/", old, ticket))[0]) == 200
    linkis.logout(old)
    wait_until(lambda: status_of(at.ask(request("/", old, ticket))[0]) == 401, "the end here")


def test_who_is_admitted_without_a_question_is_held(moving, linkis):  # noqa: F811
    at, _ = moving(cache={"capacity": 8})
    old = linkis.login()
    ticket = ticket_in(at.ask(request("/", old))[0])
    for number in range(32):
        at.ask(request("/", linkis.login(f"user{number}")))
        assert status_of(at.ask(request("/", old, ticket))[0]) == 200
    linkis.logout(old)
    wait_until(lambda: status_of(at.ask(request("/", old, ticket))[0]) == 401, "the end here")


def table_of(behind, linkis):  # noqa: F811
    return {
        "gateway": {"listen": ["127.0.0.1:0"], "drain_timeout_s": 2.0},
        "ticket": {"keys": "keys.toml"},
        "store": {"url": "sqlite:///s.db", "lease_ms": LEASE_MS, "flush_interval_ms": 100},
        "upstream": [{"name": "app", "servers": [behind.address]}],
        "route": ROUTES,
        "migration": [{"source": "linkis", "url": f"redis://{linkis.server.address}/0", "until": NEVER}],
    }


def test_after_an_upgrade_an_end_there_is_heard(site, origin, linkis, tmp_path):  # noqa: F811
    create_key_file(tmp_path / "keys.toml")
    at = site(table_of(origin(), linkis))
    old = linkis.login()
    ticket = ticket_in(at.ask(request("/", old))[0])
    before = at.workers()
    at.at.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: len(at.workers()) == 1 and at.workers() != before, "the new worker alone")
    assert status_of(at.ask(request("/", old, ticket))[0]) == 200
    linkis.logout(old)
    wait_until(lambda: status_of(at.ask(request("/", old, ticket))[0]) == 401, "the end here")


@pytest.fixture
def slow(origin):
    """An origin that answers SLOW when the test is over: the configuration retires so long."""
    is_over = threading.Event()

    def serve(connection):
        while True:
            head, _ = behind.request(connection)
            if SLOW.encode() in head:
                is_over.wait(BOUND_S)
            connection.sendall(answering(b"X-Nothing: x"))

    behind = origin(serve)
    yield behind
    is_over.set()


@contextlib.contextmanager
def under_way(at, slow):
    """A request, from before a reload until after it."""
    with at.connect() as client:
        client.sendall(request(SLOW))
        wait_until(lambda: any(SLOW.encode() in head for head, _ in list(slow.requests)), "it is under way")
        yield


@pytest.mark.parametrize("left", [[], [{"source": "flask-session"}]], ids=["nothing", "another"])
def test_an_old_store_that_is_emptied_ends_all_but_where_it_was_taken_away_before(
    site,
    moving,  # noqa: F811
    linkis,  # noqa: F811
    slow,
    tmp_path,
    left,
):
    """Also while the configuration before still has a request under way."""
    create_key_file(tmp_path / "keys.toml")
    table = table_of(slow, linkis)
    without, (watching, _) = site(table), moving()
    old = linkis.login()
    ticket = ticket_in(without.ask(request("/", old))[0])
    with under_way(without, slow):
        later = [table["migration"][0] | each | {"url": f"redis://{linkis.server.address}/1"} for each in left]
        assert without.reload({**table, "migration": later}).startswith("reloaded")
        linkis.redis.delete(HASH)
        for user in ("bob", "carol"):  # two rounds of a gateway that watches
            other = linkis.login(user)
            ticket_of_other = ticket_in(watching.ask(request("/", other))[0])
            linkis.redis.delete(HASH)
            wait_until(lambda: status_of(watching.ask(request("/", None, ticket_of_other))[0]) == 401, "the end here")  # noqa: B023
        assert status_of(without.ask(request("/", old, ticket))[0]) == 200


def test_an_old_store_that_a_reload_adds_hears_of_what_was_ended_before(site, origin, linkis, tmp_path):  # noqa: F811
    """As it would after a restart."""
    create_key_file(tmp_path / "keys.toml")
    table = table_of(origin(), linkis)
    at = site(table)
    known, new = linkis.login(), linkis.login()
    with redis.Redis(port=linkis.server.port, db=1) as added:
        added.hset(HASH, new, linkis.used_ms(new))
        assert main(["revoke", "--user", "alice", "--config", str(tmp_path / "fastticket.toml")]) == 0
        wait_until(lambda: linkis.used_ms(known) is None, "the end there")
        more = {"cookie": "another", "url": f"redis://{linkis.server.address}/1"}
        at.reload({**table, "migration": [*table["migration"], table["migration"][0] | more]})
        wait_until(lambda: not added.exists(HASH), "the end at the other one", BOUND_S)


def test_a_reload_forgets_no_end_and_no_session(moving, linkis):  # noqa: F811
    """The old store is away for longer than the configuration before serves."""
    at, _ = moving(answers=answering_with(ANSWERS))
    first, second, third = (linkis.login(user) for user in ("alice", "bob", "carol"))
    tickets = [ticket_in(at.ask(request("/", old))[0]) for old in (first, second)]
    before = at.service.exchange

    def reload(*retiring):
        coming = make_exchange(at.config, at.cache, retiring[0])
        coming.start()
        for each in retiring:
            each.give_way(coming)
        return coming

    coming = at.call(reload, before)
    assert status_of(at.ask(request("/", third))[0]) == 200  # by the configuration before
    assert at.call(lambda: coming.now) == {"held": 3, "late": 0}
    linkis.server.kill()
    assert status_of(at.ask(request("/logout", first, tickets[0]))[0]) == 200
    wait_until(lambda: at.call(lambda: coming.now) == {"held": 2, "late": 1}, "the end is heard of")
    coming_later = at.call(reload, coming, before)
    at.run(before.aclose())
    at.run(coming.aclose())
    assert at.call(lambda: coming_later.now) == {"held": 2, "late": 1}
    at.run(coming_later.aclose())


def test_what_a_former_primary_says_is_no_verdict(moving, linkis):  # noqa: F811
    """It has become a replica, and its link to the new primary is down, or it loads."""
    at, _ = moving(answers=answering_with(ANSWERS))
    old, unknown = linkis.login(), linkis.login("bob")
    ticket = ticket_in(at.ask(request("/", old))[0])
    linkis.redis.config_set("replica-serve-stale-data", "no")
    linkis.redis.replicaof("127.0.0.1", 1)
    redis = at.service.exchange._migrations[0].store._redis
    link = redis._link
    assert status_of(at.ask(request("/", unknown))[0]) == 503
    assert status_of(at.ask(request("/logout", old, ticket))[0]) == 200
    wait_until(lambda: redis._link is not link, "it looks for the primary again")
    linkis.redis.replicaof("NO", "ONE")
    wait_until(lambda: linkis.used_ms(old) is None, "the end there")
    wait_until(lambda: status_of(at.ask(request("/", unknown))[0]) == 200, "exchanges again")


@pytest.mark.parametrize("kind", ["des", "aes-gcm"])
def test_a_ticket_made_for_services_lets_nobody_in(gateway, origin, linkis, tmp_path, kind):  # noqa: F811
    """Not at another gateway, not after a restart, not when its session is over."""
    (tmp_path / "tokens.toml").write_text(TOKENS)
    behind = answering_with(ANSWERS)(origin)

    def start():
        return gateway(
            upstream=[{"name": "app", "servers": [behind.address], "linkis_ticket": kind}],
            migration=[{"source": "linkis", "url": f"redis://{linkis.server.address}/0", "until": NEVER}],
            routes=ROUTES,
            tokens={"file": "tokens.toml"},
            store={"lease_ms": LEASE_MS, "flush_interval_ms": 100},
        )

    at = start()
    assert status_of(at.ask(request("/", None, None, f"Token-Code: {CODE}", "Token-User: bob"))[0]) == 200
    (of_token,) = linkis.redis.hkeys(HASH)
    ticket = ticket_in(at.ask(request("/login"))[0])
    assert status_of(at.ask(request("/", None, ticket))[0]) == 200
    (of_session,) = set(linkis.redis.hkeys(HASH)) - {of_token}
    at.stop()
    assert linkis.redis.hkeys(HASH) == [of_session]
    linkis.redis.hset(HASH, of_token, 0)  # as if it had been killed
    at = start()
    for minted in (of_token, of_session):
        assert status_of(at.ask(request("/", minted))[0]) == 401
    assert status_of(at.ask(request("/", None, ticket))[0]) == 200
    assert set(linkis.redis.hkeys(HASH)) == {of_token, of_session}  # made again, it is the same
    assert status_of(at.ask(request("/logout", None, ticket))[0]) == 200
    assert linkis.redis.hkeys(HASH) == [of_token]


def test_an_old_store_that_hangs_holds_nobody_up_for_long(moving, linkis):  # noqa: F811
    """All that wait fail with the first."""
    at, _ = moving(migration={"url": linkis.url(HASTY_MS)})
    linkis.server.pause()
    clients = [at.connect() for _ in range(100)]
    try:
        for number, client in enumerate(clients):
            client.sendall(request("/", TICKETS.seal(f"user{number}", 1, "des")))
        answers = [client.read_response() for client in clients]
    finally:
        linkis.server.resume()
        for client in clients:
            client.close()
    # Who waits until the gateway gives up is parted from it.
    assert {(status_of(head), fields_of(head).get(b"connection")) for head, _ in answers} == {(503, None)}
