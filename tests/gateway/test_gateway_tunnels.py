"""An admission holds for one answer, and no longer than the session: tunnels and streams end with
it.
"""

import contextlib
import json
import sqlite3
import threading
import time

import pytest
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server
from conftest import BOUND_S, OK, fields_of, status_of
from lab.redis_servers import wait_until

KEY = "Sec-WebSocket-Key: x"
TEXT = b"\x81\x81\0\0\0\0x"  # a frame of a client (RFC 6455, 5.2)
LOOK_S = 0.25  # the session of a tunnel is looked at so often
STALL_S = 2.0  # how long a busy machine may hold up gateway and client


def upgrade(*fields, ticket=None, protocol="websocket"):
    lines = ["GET /chat HTTP/1.1", "Host: a", "Connection: Upgrade", f"Upgrade: {protocol}", *fields]
    return "\r\n".join([*lines, *([f"Cookie: ticket={ticket}"] if ticket else []), "", ""]).encode()


class Echo:
    """An origin that changes to whatever protocol it is asked for, and sends back what comes.
    `ended`: its client has gone.
    """

    def __init__(self):
        self.ended = threading.Event()
        self.heads = []

    def __call__(self, connection):
        self.heads.append(connection.read_head())
        protocol = fields_of(self.heads[-1])[b"upgrade"]
        connection.sendall(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n" % protocol)
        try:
            while got := connection.recv(100):
                connection.sendall(got)
        finally:
            self.ended.set()


def open_tunnel(at, ticket=None, **options):
    client = at.connect()
    client.sendall(upgrade(KEY, ticket=ticket, **options))
    assert status_of(client.read_head()) == 101
    client.sendall(b"hello")
    assert client.read_exactly(5) == b"hello"
    return client


def ends_within_s(client, bound_s):
    began = time.monotonic()
    assert client.read_all() == b""
    return time.monotonic() - began < bound_s


def test_a_tunnel_ends_when_its_session_is_revoked(gateway, origin):
    """Both sides of it, and at once: the bound is the lease, a minute here, but the doorbell is
    heard.
    """
    behind = Echo()
    at = gateway(origin(behind), routes=[{"path": "/"}], store={"lease_ms": 60_000})
    ticket = at.login()
    with open_tunnel(at, ticket) as client:
        at.run(at.cache.logout(ticket))
        assert ends_within_s(client, LOOK_S + STALL_S)
    assert behind.ended.wait(BOUND_S)
    assert at.stats["cut"] == 1


def test_p2_a_tunnel_ends_within_the_lease_if_the_revocation_was_elsewhere_and_the_doorbell_is_silent(gateway, origin):
    at = gateway(origin(Echo()), routes=[{"path": "/"}], store={"flush_interval_ms": 200, "lease_ms": 1000})
    ticket = at.login()
    with open_tunnel(at, ticket) as client:
        at.cache._store.on_doorbell(lambda *_: None)
        session = at.run(at.cache.sessions("alice"))[0]
        at.run(at.cache._store.revoke(session.id, "alice"))
        assert ends_within_s(client, 1.0 + LOOK_S + STALL_S)


def test_p2_a_tunnel_is_looked_up_as_often_as_it_has_to_be(gateway, origin, tmp_path):
    """After each gap in the log: the session may have ended in any of them."""
    at = gateway(origin(Echo()), routes=[{"path": "/"}], cache={"capacity": 100})

    def is_due():
        return bool(at.cache._near.stale(0, 1)[0])

    with open_tunnel(at, at.login()) as client:
        for _ in range(2):
            # For the tunnel; or by the repair, if a busy machine has let the lease run out.
            assert at.call(lambda: at.cache._near.bump_epoch(0) or is_due())
            wait_until(lambda: not at.call(is_due), "it is looked up", BOUND_S)
            client.sendall(b"on")
            assert client.read_exactly(2) == b"on"
        with contextlib.closing(sqlite3.connect(tmp_path / "sessions.db")) as db, db:
            db.execute("DELETE FROM live")  # by hand: no log tells of it
        at.call(at.cache._near.bump_epoch, 0)
        assert ends_within_s(client, LOOK_S + STALL_S)


def test_a_tunnel_ends_when_its_session_idles_out(gateway, origin):
    """Nothing comes from the client; what the server sends is no use of the session."""

    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n")
        connection.settimeout(0.1)
        while True:
            try:
                if not connection.recv(100):
                    return
            except TimeoutError:
                connection.sendall(b".")

    at = gateway(origin(serve), routes=[{"path": "/"}], ticket={"idle_timeout_s": 2})
    with at.connect() as client:
        client.sendall(upgrade(KEY, ticket=at.login()))
        assert status_of(client.read_head()) == 101
        assert set(client.read_all()) == {ord(".")}
    assert at.stats["cut"] == 1


def test_p4_what_a_client_sends_through_a_tunnel_is_use_of_the_session(gateway, origin):
    """It outlives its idle timeout."""
    at = gateway(origin(Echo()), routes=[{"path": "/"}], ticket={"idle_timeout_s": 4})
    ends_at = time.monotonic() + 6
    with open_tunnel(at, at.login()) as client:
        while time.monotonic() < ends_at:
            client.sendall(TEXT)
            assert client.read_exactly(len(TEXT)) == TEXT
            threading.Event().wait(0.1)


def test_a_tunnel_ends_at_the_session_s_absolute_deadline(gateway, origin):
    at = gateway(origin(Echo()), routes=[{"path": "/"}], ticket={"idle_timeout_s": 0, "absolute_lifetime_s": 4})
    with open_tunnel(at, at.login()) as client:
        assert ends_within_s(client, 4.0 + LOOK_S + STALL_S)


def test_a_tunnel_ends_when_its_key_leaves_the_ring(gateway, origin, keys):
    at = gateway(origin(Echo()), routes=[{"path": "/"}])
    with open_tunnel(at, at.login()) as client:
        at.call(at.cache.replace_keys, [(200, bytes(range(32)))])
        assert ends_within_s(client, LOOK_S + STALL_S)


def test_p8_a_tunnel_survives_an_outage_of_the_store(gateway, origin, monkeypatch):
    """As long as a request would be admitted: who was held when it began, by a lease that had not
    run out because the machine was busy.
    """
    from fastticket.errors import StoreUnavailable

    lease_s = 2.0
    store = {"flush_interval_ms": 50, "lease_ms": int(lease_s * 1000)}
    at = gateway(origin(Echo()), routes=[{"path": "/"}], store=store)

    async def away(requests):
        raise StoreUnavailable("gone for a test")

    with open_tunnel(at, at.login()) as client:
        monkeypatch.setattr(at.cache._store, "exchange", away)
        threading.Event().wait(lease_s + 2 * LOOK_S)
        client.sendall(b"still")
        assert client.read_exactly(5) == b"still"


def test_a_stream_ends_when_its_session_is_revoked(gateway, origin):
    """Server-sent events, for hours: no request comes any more that could be refused."""
    gone = threading.Event()

    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        assert connection.recv(1) == b""
        gone.set()

    at = gateway(origin(serve), routes=[{"path": "/"}])
    ticket = at.login()
    with at.connect() as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\n\r\n".encode())
        client.read_until(b"data: 1\n\n")
        at.run(at.cache.logout(ticket))
        assert not client.read_all().endswith(b"0\r\n\r\n")  # cut, and not completed
    assert gone.wait(BOUND_S)


def test_an_upload_ends_when_its_session_is_revoked(gateway, origin):
    """However much comes of it."""
    begun = threading.Event()

    def serve(connection):
        connection.read_head()
        begun.set()
        while connection.recv(65536):
            pass

    at = gateway(origin(serve), routes=[{"path": "/"}])
    ticket = at.login()
    with at.connect() as client:
        client.sendall(
            f"POST / HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\nContent-Length: 1000000000\r\n\r\n".encode()
        )
        assert begun.wait(BOUND_S)
        at.run(at.cache.logout(ticket))
        with contextlib.suppress(ConnectionError):
            while True:
                client.sendall(b"x" * 1000)
    assert at.stats["cut"] == 1


def test_a_stream_that_began_before_its_request_was_over_ends_with_its_session(gateway, origin):
    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        assert connection.read_exactly(4) == b"body"
        connection.recv(1)

    at = gateway(origin(serve), routes=[{"path": "/"}])
    ticket = at.login()
    with at.connect() as client:
        client.sendall(f"POST / HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\nContent-Length: 4\r\n\r\nbo".encode())
        client.read_until(b"1\r\na\r\n")
        client.sendall(b"dy")
        at.run(at.cache.logout(ticket))
        assert client.read_all() == b""
    assert at.stats["cut"] == 1


def test_a_tunnel_without_a_ticket_has_no_session_to_end_with(gateway, origin):
    at = gateway(origin(Echo()), routes=[{"path": "/", "auth": "none"}])
    with open_tunnel(at) as client:
        threading.Event().wait(0.6)
        client.sendall(b"on")
        assert client.read_exactly(2) == b"on"


def test_a_tunnel_in_which_nothing_moves_ends(gateway, origin):
    at = gateway(origin(Echo()), timeouts={"tunnel_idle_s": 1.0})
    with open_tunnel(at) as client:
        for _ in range(6):
            threading.Event().wait(0.2)
            client.sendall(b"x")
            assert client.read_exactly(1) == b"x"
        assert ends_within_s(client, 1.0 + STALL_S)


# --- other protocols


def test_a_protocol_that_is_allowed(gateway, origin):
    at = gateway(origin(Echo()), gateway={"upgrades": ["websocket", "Chat/2"]})
    with open_tunnel(at, protocol="chat/2"):
        pass


@pytest.mark.parametrize("protocol", ["chat", "h2c", "websocket2", "chat, websocket"])
def test_one_that_is_not_is_not_offered_to_the_server(gateway, origin, protocol):
    behind = origin()
    head, _ = gateway(behind).ask(upgrade(KEY, protocol=protocol))
    assert status_of(head) == 200
    assert b"upgrade" not in fields_of(behind.requests[0][0])


def test_websockets_can_be_switched_off(gateway, origin):
    behind = origin()
    assert status_of(gateway(behind, gateway={"upgrades": []}).ask(upgrade(KEY))[0]) == 200
    assert b"upgrade" not in fields_of(behind.requests[0][0])


def test_a_server_that_changes_to_something_else_is_not_believed(gateway, origin):
    at = gateway(origin(answer=b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"))
    assert status_of(at.ask(upgrade(KEY))[0]) == 502


@pytest.mark.parametrize(
    "fields", [b"", b"Connection: Upgrade\r\n", b"Up-grade: websocket\r\n", b"Upgrade:\r\n", b"Up_grade: websocket\r\n"]
)
def test_a_server_that_does_not_say_what_it_changes_to_is_not_believed(gateway, origin, fields):
    """RFC 9110, 7.8: it must. Who answers 101 to everything would else get a tunnel."""
    behind = origin(answer=b"HTTP/1.1 101 Switching Protocols\r\n" + fields + b"\r\n")
    at = gateway(behind)
    head, body = at.ask(upgrade(KEY))
    assert (status_of(head), json.loads(body)["reason"]) == (502, "upstream_malformed")
    assert at.stats["tunnels"] == 0


@pytest.mark.parametrize("protocol", ["websocket", "chat"])
@pytest.mark.parametrize("answer", [OK, b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"])
def test_a_connection_whose_upgrade_was_declined_is_not_used_again(gateway, origin, protocol, answer):
    """The parser behind may have stopped at the offer, and may misread what comes next."""
    behind = origin(answer=answer)
    at = gateway(behind, gateway={"upgrades": ["websocket", "chat"]})
    with at.connect() as client:
        for number in range(1, 4):
            client.sendall(upgrade(KEY, protocol=protocol))
            client.read_response()
            assert len(behind.connections) == number
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        for _ in range(2):
            client.read_response()
    assert len(behind.connections) == 4


def test_http2_is_not_to_be_allowed(gateway, origin):
    with pytest.raises(Exception, match="HTTP/2 is not one of them"):
        gateway(origin(), gateway={"upgrades": ["h2c"]})


# --- leaving


GOES_AWAY = b"\x88\x02\x03\xe9"  # an unmasked close frame: 1001
ANSWER = b"\x88\x82\0\0\0\0\x03\xe9"  # the client's, masked


def stopping(at):
    """A thread that stops the gateway."""
    thread = threading.Thread(target=at.stop)
    thread.start()
    return thread


def test_a_websocket_is_told_that_the_gateway_goes_away(gateway, origin):
    """Its answer passes to the upstream, which ends it: the gateway need not wait for the drain
    timeout.
    """
    heard = []

    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi")
        heard.append(connection.read_exactly(len(ANSWER)))
        connection.sendall(b"\x88\x02\x03\xe9")  # is not passed on: nothing follows a close frame

    at = gateway(origin(serve), gateway={"drain_timeout_s": 60.0})
    with at.connect() as client:
        client.sendall(upgrade(KEY))
        assert status_of(client.read_head()) == 101
        assert client.read_exactly(4) == b"\x81\x02hi"
        began = time.monotonic()
        thread = stopping(at)
        assert client.read_exactly(len(GOES_AWAY)) == GOES_AWAY
        client.sendall(ANSWER)
        assert client.read_all() == b""
    thread.join(BOUND_S)
    assert heard == [ANSWER]
    assert time.monotonic() - began < BOUND_S


@pytest.mark.parametrize(
    "frame",
    [
        b"\x81\x05hello",
        b"\x82\x7e\x01\x00" + b"x" * 256,
        b"\x82\x7f" + (70_000).to_bytes(8, "big") + b"x" * 70_000,
        b"\x81\x84\1\2\3\4abcd",
        b"\x89\x00",
    ],
    ids=["short", "16 bits", "64 bits", "masked", "empty"],
)
def test_no_close_frame_comes_inside_of_another(gateway, origin, frame):
    """Wherever the upstream pauses."""
    half, go_on = threading.Event(), threading.Event()
    cuts = sorted({1, 2, min(3, len(frame) - 1), len(frame) - 1} & set(range(1, len(frame))))
    for cut in cuts:
        half.clear()
        go_on.clear()

        def serve(connection, cut=cut):
            connection.read_head()
            connection.sendall(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            connection.sendall(frame[:cut])
            assert go_on.wait(BOUND_S)
            connection.sendall(frame[cut:])
            connection.read_all()

        at = gateway(origin(serve), gateway={"drain_timeout_s": 60.0})
        with at.connect() as client:
            client.sendall(upgrade(KEY))
            assert status_of(client.read_head()) == 101
            assert client.read_exactly(cut) == frame[:cut]
            thread = stopping(at)
            client.settimeout(0.3)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(BOUND_S)
            go_on.set()
            assert client.read_exactly(len(frame) - cut) == frame[cut:]
            assert client.read_exactly(len(GOES_AWAY)) == GOES_AWAY
        thread.join(BOUND_S)


def test_many_websockets_are_told_one_after_the_other(gateway, origin):
    at = gateway(origin(Echo()), gateway={"drain_timeout_s": 2.5})
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(40):
            clients.append(stack.enter_context(at.connect()))
            clients[-1].sendall(upgrade(KEY))
            assert status_of(clients[-1].read_head()) == 101
        told_s = []

        def hear(client):
            client.read_exactly(len(GOES_AWAY))
            told_s.append(time.monotonic())

        hearing = [threading.Thread(target=hear, args=(client,)) for client in clients]
        for each in hearing:
            each.start()
        stopping(at).join(2 * BOUND_S)
        for each in hearing:
            each.join(BOUND_S)
    assert len(told_s) == 40
    assert max(told_s) - min(told_s) > 1  # the kernel has not told them in one moment, and neither have we


def test_other_protocols_are_not_told(gateway, origin):
    """Nobody knows where their messages begin."""
    at = gateway(origin(Echo()), gateway={"upgrades": ["chat"], "drain_timeout_s": 0.5})
    with at.connect() as client:
        client.sendall(upgrade(protocol="chat"))
        assert status_of(client.read_head()) == 101
        stopping(at).join(BOUND_S)
        assert client.recv(1) == b""


def test_a_real_websocket_hears_why(gateway):
    """Both sides' library takes it for a close handshake of the other."""
    codes = []

    def echo(connection):
        for message in connection:
            connection.send(message)
        codes.append(connection.protocol.close_rcvd.code)

    with websockets.sync.server.serve(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = "127.0.0.1:{}".format(*server.socket.getsockname()[1:])
        at = gateway(upstream=[{"name": "app", "servers": [address]}], gateway={"drain_timeout_s": 60.0})
        with websockets.sync.client.connect("ws://{}:{}/".format(*at.address)) as client:
            client.send("hello")
            assert client.recv(BOUND_S) == "hello"
            stopped = stopping(at)
            with pytest.raises(websockets.exceptions.ConnectionClosedOK, match="1001"):
                client.recv(BOUND_S)
        stopped.join(BOUND_S)
        assert not stopped.is_alive()
        server.shutdown()
        thread.join(BOUND_S)
    assert codes == [1001]
