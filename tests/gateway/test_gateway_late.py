"""Answers of the control plane that come late are for the request that asked, or for nobody; and
what waits is judged again.
"""

import asyncio
import socket
import threading

import pytest
from conftest import BOUND_S, OK, fields_of, status_of
from lab.redis_servers import wait_until

from fastticket.errors import Verdict

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def get(path="/", ticket=None):
    cookie = f"Cookie: ticket={ticket}\r\n" if ticket else ""
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{cookie}\r\n".encode()


@pytest.fixture
def asking(gateway, origin, monkeypatch):
    """(a gateway whose control plane answers nothing by itself, its asks, the origin)"""
    behind = origin()
    at = gateway(behind, routes=[{"path": "/exempting", "exempt": "/exempting/public"}, {"path": "/"}])
    asks = []

    async def note(ask):
        asks.append(ask)

    monkeypatch.setattr(at.service._answers[0], "_answer", note)
    return at, asks, behind


def test_p1_a_verdict_is_not_taken_for_the_next_request_s(asking):
    at, asks, behind = asking
    tickets = [at.login(name) for name in ("alice", "mallory")]
    with at.connect() as client:
        client.sendall(get(ticket=tickets[0]))
        wait_until(lambda: len(asks) == 1, "it asks")
        at.call(at.worker.proxy.refuse, asks[0].handle, Verdict.REVOKED)
        assert status_of(client.read_response()[0]) == 401
        client.sendall(get(ticket=tickets[1]))
        wait_until(lambda: len(asks) == 2, "it asks again")
        assert asks[0].handle != asks[1].handle
        for answer in (at.worker.proxy.admit, lambda handle: at.worker.proxy.exempt(handle, True)):
            at.call(answer, asks[0].handle)  # late
        assert behind.requests == []
        at.call(at.worker.proxy.refuse, asks[1].handle, Verdict.REVOKED)
        assert status_of(client.read_response()[0]) == 401


def test_p1_a_verdict_is_not_taken_for_the_next_client_s(asking):
    """The client that is gone and the one that has its slot now are at their first request."""
    at, asks, behind = asking
    tickets = [at.login(name) for name in ("alice", "mallory")]
    with at.connect() as gone:
        gone.sendall(get(ticket=tickets[0]))
        wait_until(lambda: len(asks) == 1, "it asks")
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: at.call(lambda: at.worker.proxy.connection_count) == 0, "it has gone")
    with at.connect() as client:
        client.sendall(get(ticket=tickets[1]))
        wait_until(lambda: len(asks) == 2, "the next one asks")
        assert (asks[0].handle ^ asks[1].handle) & 0xFFFFFFFF == 0, "in the same place"
        at.call(at.worker.proxy.admit, asks[0].handle)  # late
        at.call(at.worker.proxy.refuse, asks[1].handle, Verdict.REVOKED)
        assert status_of(client.read_response()[0]) == 401
    assert behind.requests == []


def test_p1_a_ticket_that_is_not_authentic_is_not_held_while_its_path_is_looked_at(asking, keys):
    at, asks, behind = asking
    ticket = at.login()
    forged = ticket[:-4] + ("AAAA" if ticket[-4:] != "AAAA" else "BBBB")
    with at.connect() as client:
        client.sendall(get("/exempting/private", forged))
        wait_until(lambda: len(asks) == 1, "it asks")
        assert asks[0].tickets == ""
        at.call(at.worker.proxy.admit, asks[0].handle)  # not what was asked
        at.call(at.worker.proxy.exempt, asks[0].handle, False)
        assert status_of(client.read_response()[0]) == 401
    assert behind.requests == []


def test_after_a_verdict_that_did_not_come_the_connection_ends(gateway, origin, monkeypatch):
    at = gateway(origin(), routes=[{"path": "/", "timeouts": {"verdict_s": 0.2}}])
    ticket = at.login()
    real = at.cache._store.exchange

    async def slow(requests):
        await asyncio.sleep(0.5)
        return await real(requests)

    monkeypatch.setattr(at.cache._store, "exchange", slow)
    with at.connect() as client:
        client.sendall(get(ticket=ticket))
        head, _ = client.read_response()
        assert status_of(head) == 503
        assert fields_of(head)[b"connection"] == b"close"
        assert client.read_all() == b""


@pytest.mark.parametrize("consistency", ["near", "strong"])
def test_a_verdict_that_fails_unexpectedly_is_503(gateway, origin, monkeypatch, consistency):
    """A bug leaves nobody waiting, and lets nobody in."""
    behind = origin()
    at = gateway(behind, routes=[{"path": "/", "consistency": consistency}])
    ticket = at.login()

    async def broken(*_, **__):
        raise RuntimeError("for a test")

    monkeypatch.setattr(at.cache, "authenticate", broken)
    head, _ = at.ask(get(ticket=ticket))
    assert (status_of(head), fields_of(head)[b"retry-after"]) == (503, b"1")
    assert behind.requests == []


def test_p2_who_was_revoked_while_waiting_for_a_server_is_refused(gateway, origin):
    go_on = threading.Event()

    def serve(connection):
        while connection.read_head():
            assert go_on.wait(BOUND_S)
            connection.sendall(OK)

    behind = origin(serve)
    at = gateway(routes=[{"path": "/"}], upstream=[{"name": "app", "servers": [behind.address], "connections_max": 1}])
    tickets = [at.login(name) for name in ("alice", "bob")]
    with at.connect() as first, at.connect() as second:
        first.sendall(get(ticket=tickets[0]))
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["active"] == 1, "active")
        second.sendall(get(ticket=tickets[1]))
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["queued"] == 1, "queued")
        at.run(at.cache.logout(tickets[1]))
        go_on.set()
        assert status_of(first.read_response()[0]) == 200
        assert status_of(second.read_response()[0]) == 401


def test_p2_each_request_that_waits_for_a_server_is_judged_again(gateway, origin):
    """Also one on a connection whose last one had to be looked up after it had waited."""
    slots, asked = threading.Semaphore(0), []

    def serve(connection):
        while True:
            asked.append(behind.request(connection))
            assert slots.acquire(timeout=BOUND_S)
            connection.sendall(OK)

    behind = origin(serve)
    at = gateway(routes=[{"path": "/"}], upstream=[{"name": "app", "servers": [behind.address], "connections_max": 1}])
    alice, bob = at.login("alice"), at.login("bob")

    def waits(client, number):
        """Send a request that is queued behind one of alice's."""
        first.sendall(get(ticket=alice))
        wait_until(lambda: len(asked) == number, "active")
        client.sendall(get(ticket=bob))
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["queued"] == 1, "queued")

    with at.connect() as first, at.connect() as second:
        waits(second, 1)
        at.call(at.cache._near.bump_epoch, 0)  # what is held has to be loaded again
        slots.release(2)
        for client in (first, second):
            assert status_of(client.read_response()[0]) == 200
        waits(second, 3)
        at.run(at.cache.logout(bob))
        slots.release(2)
        assert status_of(first.read_response()[0]) == 200
        assert status_of(second.read_response()[0]) == 401
    assert len(asked) == 3


def test_p10_who_was_revoked_while_waiting_for_a_server_is_nobody_on_an_optional_route(gateway, origin):
    go_on = threading.Event()

    def serve(connection):
        while behind.request(connection):
            assert go_on.wait(BOUND_S)
            connection.sendall(OK)

    behind = origin(serve)
    at = gateway(
        routes=[{"path": "/", "auth": "optional"}],
        upstream=[{"name": "app", "servers": [behind.address], "connections_max": 1}],
    )
    ticket = at.login("bob")
    with at.connect() as first, at.connect() as second:
        first.sendall(GET)
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["active"] == 1, "active")
        second.sendall(get(ticket=ticket))
        wait_until(lambda: at.call(at.worker.proxy.upstreams.state)[0]["queued"] == 1, "queued")
        at.run(at.cache.logout(ticket))
        go_on.set()
        for client in (first, second):
            assert status_of(client.read_response()[0]) == 200
    assert [fields_of(head).get(b"x-forwarded-user") for head, _ in behind.requests] == [None, None]


def test_p10_nobody_is_named_who_was_let_in_without_a_ticket_after_somebody_with_one(gateway, origin):
    """On one connection, in every order: open, optional, private, and a private one that is
    refused.
    """
    behind = origin()
    routes = [{"path": "/open", "auth": "none"}, {"path": "/may", "auth": "optional"}, {"path": "/"}]
    at = gateway(behind, routes=routes)
    alice, bob = at.login("alice"), at.login("bob")
    asked = [
        ("/x", alice),
        ("/open", None),
        ("/x", bob),
        ("/may", None),
        ("/may", alice),
        ("/open", bob),
        ("/may", None),
    ]
    with at.connect() as client:
        for path, ticket in asked:
            client.sendall(get(path, ticket))
            assert status_of(client.read_response()[0]) == 200
        client.sendall(get("/x", alice))
        assert status_of(client.read_response()[0]) == 200
        at.run(at.cache.logout(alice))
        client.sendall(get("/may", alice))
        assert status_of(client.read_response()[0]) == 200
    named = [fields_of(head).get(b"x-forwarded-user") for head, _ in behind.requests]
    assert named == [b"alice", None, b"bob", None, b"alice", None, None, b"alice", None]


@pytest.mark.parametrize("path", ["/x/../pay", "//pay", "/./pay", "/pay;x", "/%2e/pay", "/pay"])
def test_p2_no_spelling_of_a_strong_path_is_weaker(gateway, origin, path):
    store = {"flush_interval_ms": 60_000, "lease_ms": 200_000}
    at = gateway(origin(), routes=[{"path": "/pay", "consistency": "strong"}, {"path": "/"}], store=store)
    ticket = at.login()
    assert status_of(at.ask(get("/", ticket))[0]) == 200
    at.cache._store.on_doorbell(lambda *_: None)
    session = at.run(at.cache.sessions("alice"))[0]
    at.run(at.cache._store.revoke(session.id, "alice"))
    assert status_of(at.ask(get(path, ticket))[0]) == 401


def test_a_lingering_connection_costs_no_turns(gateway, origin):
    at = gateway(origin(), limits={"head_bytes_max": 1024})
    turns = []
    turn = at.service._drivers[0].turn
    at.service._drivers[0].turn = lambda: (turns.append(1), turn())
    with at.connect() as client:
        head = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
        client.sendall(head + b"x" * (1024 - len(head)))
        assert status_of(client.read_head()) == 431
        before = len(turns)
        for _ in range(20):
            at.call(lambda: None)
        assert len(turns) - before < 10


def test_interim_responses_without_end_are_a_bad_answer(gateway, origin):
    def serve(connection):
        connection.read_head()
        while True:
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10)

    assert status_of(gateway(origin(serve)).ask(GET)[0]) == 502


def test_pooled_connections_leave_room_for_clients(gateway, origin):
    """A few clients, and many more servers than that."""
    servers = [origin() for _ in range(12)]
    at = gateway(
        limits={"connections_max": 2},
        upstream=[{"name": "app", "servers": [server.address for server in servers], "retry_percent": 0}],
    )
    with at.connect() as client:
        for _ in range(36):
            client.sendall(GET)
            assert status_of(client.read_response()[0]) == 200
        assert sum(s["idle"] for s in at.call(at.worker.proxy.upstreams.state)) <= 2


def test_vouching_fails_closed(gateway, origin, monkeypatch):
    """Whatever goes wrong when a tunnel's session is looked up."""
    from test_gateway_tunnels import Echo, open_tunnel

    at = gateway(origin(Echo()), routes=[{"path": "/"}])
    with open_tunnel(at, at.login()) as client:

        async def broken(*_, **__):
            raise RuntimeError("for a test")

        monkeypatch.setattr(at.cache, "authenticate", broken)
        at.call(at.cache._near.bump_epoch, 0)
        assert client.read_all() == b""
