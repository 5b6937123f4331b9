"""The end of a worker, whatever its clients are in the middle of: each gets the answer to what it
has begun; who is idle goes.
"""

import contextlib
import socket
import threading

import pytest
from conftest import BOUND_S, OK, fields_of, status_of
from lab.redis_servers import wait_until
from test_gateway_sessions import RESET, Held

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


@pytest.fixture
def gateway(gateway):
    """One that waits longer for clients than a busy machine holds them up."""
    return lambda *origins, **tables: gateway(*origins, gateway={"drain_timeout_s": 0.9 * BOUND_S}, **tables)


class Stopping:
    """A gateway that is being stopped by a thread; `just_before` as of `Gateway.stop`."""

    def __init__(self, at, just_before=lambda: None):
        self._thread = threading.Thread(target=at.stop, args=(just_before,))
        self._thread.start()

    def has_ended(self, bound_s=BOUND_S):
        self._thread.join(bound_s)
        return not self._thread.is_alive()


def is_last_answer(client):
    """And the end. The client closes, too, so that nobody lingers for it."""
    with client:
        head, body = client.read_response()
        assert (status_of(head), body, fields_of(head)[b"connection"]) == (200, b"ok", b"close")
        return client.read_all() == b""


def test_a_head_that_is_half_there_is_read_to_its_end(gateway, origin):
    """Its first byte is enough: the client does not know that it should ask somebody else."""
    at = gateway(origin())
    with at.connect() as early, at.connect() as late, at.connect() as idle:
        for client in (early, late, idle):
            client.sendall(GET)
            client.read_response()
        early.sendall(GET[:1])
        late.sendall(GET[:-1])
        stopping = Stopping(at)
        assert idle.read_all() == b""
        early.sendall(GET[1:])
        late.sendall(GET[-1:])
        assert is_last_answer(early)
        assert is_last_answer(late)
        assert stopping.has_ended()


def test_a_head_that_never_ends_holds_up_nobody_for_longer_than_it_may(gateway, origin):
    at = gateway(origin(), timeouts={"request_head_s": 0.2})
    with at.connect() as client, at.connect() as idle:
        client.sendall(GET[:5])
        idle.sendall(GET)
        idle.read_response()
        stopping = Stopping(at)
        assert status_of(client.read_response()[0]) == 408
        client.close()
        assert stopping.has_ended()


def test_who_sends_a_body_or_waits_for_a_server_gets_an_answer(gateway, origin):
    go_on = threading.Event()

    def serve(connection):
        while behind.request(connection):
            assert go_on.wait(BOUND_S)
            connection.sendall(OK)

    behind = origin(serve)
    at = gateway(upstream=[{"name": "app", "servers": [behind.address], "connections_max": 2}])

    def states():
        (state,) = at.call(at.worker.proxy.upstreams.state)
        return state["active"], state["queued"]

    with contextlib.ExitStack() as stack:
        sending, waiting, queued, idle = (stack.enter_context(at.connect()) for _ in range(4))
        sending.sendall(POST + b"ab")
        waiting.sendall(GET)
        wait_until(lambda: states() == (2, 0), "two under way")
        queued.sendall(GET)
        wait_until(lambda: states() == (2, 1), "one waits")
        stopping = Stopping(at)
        assert idle.read_all() == b""
        sending.sendall(b"cd")
        go_on.set()
        for client in (sending, waiting, queued):
            assert is_last_answer(client)
        assert stopping.has_ended()
    assert sorted(body for _, body in behind.requests) == [b"", b"", b"abcd"]


def test_who_is_in_the_listen_queue_is_let_in(gateway, origin):
    """Connected as far as he knows, and seen by nobody yet when the listeners close."""
    at = gateway(origin())
    with contextlib.ExitStack() as stack:
        arrived = []

        def arrive():
            for _ in range(3):
                arrived.append(stack.enter_context(at.connect()))
                arrived[-1].sendall(GET)

        stopping = Stopping(at, arrive)
        assert stopping.has_ended()
        for client in arrived:
            assert is_last_answer(client)


def test_who_has_just_come_in_has_a_moment_to_ask(gateway, origin):
    at = gateway(origin())
    with contextlib.ExitStack() as stack:
        arrived = []

        def arrive():
            arrived.append(stack.enter_context(at.connect()))
            at.loop.call_soon(arrived[0].sendall, GET)

        assert Stopping(at, arrive).has_ended()
        assert is_last_answer(arrived[0])


def test_a_request_that_has_come_is_answered_though_nobody_has_read_it_yet(gateway, origin):
    """The gateway has stood still: it finds the request and the end of idle clients at once."""
    at = gateway(origin())
    with at.connect() as client:
        client.sendall(GET)
        client.read_response()
        drain = at.service.drain

        def ask_and_drain():
            client.sendall(GET)
            drain()

        at.call(setattr, at.service, "drain", ask_and_drain)
        stopping = Stopping(at)
        assert is_last_answer(client)
        assert stopping.has_ended()


def test_answers_of_ours_are_the_last_ones_too(gateway, origin):
    at = gateway(origin(), routes=[{"path": "/"}])
    with at.connect() as client, at.connect() as idle:
        client.sendall(GET[:-1])
        idle.sendall(GET)
        idle.read_response()
        stopping = Stopping(at)
        assert idle.read_all() == b""
        client.sendall(GET[-1:])
        head, _ = client.read_response()
        assert (status_of(head), fields_of(head)[b"connection"]) == (401, b"close")
        assert client.read_all() == b""
        client.close()
        assert stopping.has_ended()


def test_a_logout_under_way_is_done_before_the_store_is_closed(gateway, origin, monkeypatch):
    """Though its client has gone, and nobody waits for its answer."""
    at = gateway(
        origin(answer=b"HTTP/1.1 200 OK\r\nX-Ticket-Logout: session\r\nContent-Length: 0\r\n\r\n"),
        routes=[{"path": "/"}],
    )
    held = Held(at, monkeypatch, "revoke")
    with at.connect() as client:
        client.sendall(GET[:-2] + f"Cookie: ticket={at.login()}\r\n\r\n".encode())
        assert held.is_asked.wait(BOUND_S)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wait_until(lambda: at.call(lambda: at.worker.proxy.connection_count) == 0, "it has gone")
    stopping = Stopping(at)
    assert not stopping.has_ended(0.5)
    held.go_on()
    assert stopping.has_ended()
    after = gateway(origin())
    assert after.run(after.cache.sessions("alice")) == []


def test_p5_a_use_that_was_seen_last_of_all_is_written(gateway, origin, keys):
    """After the listeners have closed, and long before the next flush."""
    at = gateway(origin(), routes=[{"path": "/"}], store={"flush_interval_ms": 600_000, "lease_ms": 1_200_000})
    ticket = at.login()
    before = at.run(at.cache.sessions("alice"))[0].idle_deadline_ms
    asking = GET[:-2] + f"Cookie: ticket={ticket}\r\n\r\n".encode()
    with at.connect() as client:
        client.sendall(asking)
        client.read_response()
        at.run(at.cache.flush())
        client.sendall(asking[:-2])
        stopping = Stopping(at)
        client.sendall(asking[-2:])
        assert is_last_answer(client)
        assert stopping.has_ended()
    after = gateway(origin(), routes=[{"path": "/"}])
    assert after.run(after.cache.sessions("alice"))[0].idle_deadline_ms > before
    assert after.cache.stats["touches_unwritten"] == 0
