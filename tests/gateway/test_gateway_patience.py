"""Timeouts, and which side is blamed for them: uploads that a server is slow to take, silent
streams, kept connections.
"""

import contextlib
import threading
import time

import pytest
from conftest import BOUND_S, OK, status_of
from lab.redis_servers import wait_until

from fastticket.dataplane.proxy import TIMEOUTS_S

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
# A session idles out after longer than a busy machine stands still; a flush more is given.
IDLE_S = 3
IDLE = {"ticket": {"idle_timeout_s": IDLE_S}, "store": {"flush_interval_ms": 100}}
PIECES, PIECE_S = 35, 0.1  # for longer than the session may idle
LARGE = 16 * 1024 * 1024  # more than the kernel keeps for a reader that does not read
MOMENT_S = 0.2
STALL_S = 1.2  # how long a busy machine may hold things up


def pause(seconds):
    threading.Event().wait(seconds)


def post(size, ticket=None, path="/"):
    cookie = f"Cookie: ticket={ticket}\r\n" if ticket else ""
    return f"POST {path} HTTP/1.1\r\nHost: a\r\n{cookie}Content-Length: {size}\r\n\r\n".encode()


def drain(connection, size):
    """Read the rest of a body."""
    size -= len(connection.buffer)
    connection.buffer = b""
    while size > 0:
        got = connection.recv(65536)
        if not got:
            raise EOFError
        size -= len(got)
    assert size == 0


def upload(client, ticket=None, size=LARGE, path="/"):
    """In a thread; it ends when all was taken, or the gateway has closed."""

    def send():
        with contextlib.suppress(OSError):
            client.sendall(post(size, ticket, path) + bytes(size))  # at once: no window begins without a byte

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def busy(seconds, then=lambda connection: drain(connection, LARGE)):
    """A server whose only worker has other things to do for so long."""

    def serve(connection):
        connection.read_head()
        pause(seconds)
        then(connection)
        connection.sendall(OK)

    return serve


# --- an answer that comes before the upload is over


@pytest.mark.parametrize("auth", ["none", "required"])
def test_who_has_his_answer_need_not_send_the_rest(gateway, origin, auth):
    """RFC 9112, 9.5. The answer was cut when the window of the upload was over."""

    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            connection.sendall(b"x")
            threading.Event().wait(0.1)

    at = gateway(origin(serve), routes=[{"path": "/", "auth": auth}], timeouts={"request_body_window_s": 0.2})
    cookie = f"Cookie: ticket={at.login()}\r\n" if auth == "required" else ""
    with at.connect() as client:
        client.sendall(f"POST /x HTTP/1.1\r\nHost: a\r\n{cookie}Content-Length: 1000000\r\n\r\nbegun".encode())
        head, body = client.read_response()
    assert (status_of(head), body, at.stats["timeouts"]) == (200, b"x" * 8, 0)


# --- an upload that the server is slow to take


@pytest.mark.parametrize("auth", ["none", "required"])
def test_a_busy_server_gets_the_upload_when_it_has_time(gateway, origin, auth):
    """The window is the client's, and the client is not to blame."""
    at = gateway(origin(busy(2.5)), routes=[{"path": "/", "auth": auth}], timeouts={"request_body_window_s": 2.0})
    with at.connect() as client:
        thread = upload(client, at.login() if auth == "required" else None)
        assert status_of(client.read_response()[0]) == 200
        thread.join(BOUND_S)
    assert (at.stats["timeouts"], at.stats["upstream_timeouts"]) == (0, 0)


@pytest.mark.timed
@pytest.mark.parametrize("auth", ["none", "required"])
def test_a_server_that_never_takes_it_is_the_one_that_is_late(gateway, origin, auth):
    over = threading.Event()

    def serve(connection):
        connection.read_head()
        assert over.wait(BOUND_S)

    timeouts = {"request_body_window_s": 0.2, "upstream_send_s": 0.6}
    at = gateway(origin(serve), routes=[{"path": "/", "auth": auth}], timeouts=timeouts)
    with at.connect() as client:
        began_s = time.monotonic()
        thread = upload(client, at.login() if auth == "required" else None)
        head, body = client.read_response()
        assert (status_of(head), b"upstream_timeout" in body) == (504, True)
        assert 0.5 < time.monotonic() - began_s < 0.6 + STALL_S
    over.set()
    thread.join(BOUND_S)
    assert (at.stats["timeouts"], at.stats["upstream_timeouts"]) == (0, 1)


def test_one_that_takes_a_little_now_and_then_is_not_late(gateway, origin):
    def sip(connection):
        left = LARGE - len(connection.buffer)
        connection.buffer = b""
        for _ in range(16):
            pause(0.2)
            taken = 0
            while taken < LARGE // 20:
                taken += len(connection.recv(65536)) or LARGE
            left -= taken
        drain(connection, left)

    at = gateway(origin(busy(0, sip)), timeouts={"upstream_send_s": 2.5})
    with at.connect() as client:
        thread = upload(client)
        assert status_of(client.read_response()[0]) == 200
        thread.join(BOUND_S)


def test_how_long_is_of_a_route(gateway, origin):
    routes = [{"path": "/", "auth": "none"}, {"path": "/slow", "auth": "none", "timeouts": {"upstream_send_s": 20}}]
    at = gateway(origin(busy(1.5)), routes=routes, timeouts={"upstream_send_s": 0.3})
    for path, status in (("/", 504), ("/slow", 200)):
        with at.connect() as client:
            thread = upload(client, path=path)
            assert status_of(client.read_response()[0]) == status
        thread.join(BOUND_S)


def test_a_client_that_stops_is_still_the_one_that_is_late(gateway, origin):
    """Also after the server has held it up."""
    at = gateway(origin(busy(0.6)), timeouts={"request_body_window_s": 0.3})
    with at.connect() as client:
        client.sendall(post(LARGE))
        client.sendall(bytes(LARGE // 2))
        assert status_of(client.read_response()[0]) == 408
    assert (at.stats["timeouts"], at.stats["upstream_timeouts"]) == (1, 0)


def test_three_uploads_that_are_not_taken_put_a_server_aside(gateway, origin):
    over = threading.Event()

    def serve(connection):
        connection.read_head()
        assert over.wait(BOUND_S)

    at = gateway(origin(serve), timeouts={"upstream_send_s": 0.2})
    threads = []
    for _ in range(3):
        with at.connect() as client:
            threads.append(upload(client))
            assert status_of(client.read_response()[0]) == 504
    assert at.call(at.worker.proxy.upstreams.state)[0]["state"] == "down"
    over.set()
    for thread in threads:
        thread.join(BOUND_S)


# --- an upload and its session


@pytest.mark.parametrize("is_chunked", [False, True])
def test_an_upload_is_use_of_the_session(gateway, origin, is_chunked):
    """It goes on for longer than the session may idle, and than a window of its rate."""
    at = gateway(origin(), routes=[{"path": "/"}], **IDLE, timeouts={"request_body_window_s": IDLE_S})
    ticket = at.login()
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {PIECES * 1000}"
    with at.connect() as client:
        client.sendall(f"POST / HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\n{framing}\r\n\r\n".encode())
        for _ in range(PIECES):
            client.sendall((b"3e8\r\n%s\r\n" if is_chunked else b"%s") % (b"x" * 1000))
            pause(PIECE_S)
        client.sendall(b"0\r\n\r\n" if is_chunked else b"")
        assert status_of(client.read_response()[0]) == 200
        client.sendall(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\n\r\n".encode())
        assert status_of(client.read_response()[0]) == 200


def test_so_is_one_that_the_server_holds_up(gateway, origin):
    at = gateway(origin(busy(IDLE_S + 0.5)), routes=[{"path": "/"}], timeouts={"request_body_window_s": 2.0}, **IDLE)
    with at.connect() as client:
        thread = upload(client, at.login())
        assert status_of(client.read_response()[0]) == 200
        thread.join(BOUND_S)


def test_an_upload_whose_session_ends_is_told_so(gateway, origin):
    """At once, and not only with a window."""
    begun, over = threading.Event(), threading.Event()

    def serve(connection):
        connection.read_head()
        begun.set()
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
        over.set()

    at = gateway(origin(serve), routes=[{"path": "/"}])
    ticket = at.login()
    with at.connect() as client:
        client.sendall(post(1000, ticket) + b"some of it")
        assert begun.wait(BOUND_S)
        at.run(at.cache.logout(ticket))
        head, body = client.read_response()
        assert (status_of(head), b"session_over" in body) == (401, True)
        assert b'WWW-Authenticate: Ticket realm="fastticket", error="session_over"\r\n' in head
        assert client.read_all() == b""
    assert over.wait(BOUND_S)
    assert at.stats["cut"] == 1


# --- a download and its session


def sending(head, piece, count, interval_s=PIECE_S, end=b""):
    def serve(connection):
        connection.read_head()
        connection.sendall(head)
        for _ in range(count):
            connection.sendall(piece)
            pause(interval_s)
        connection.sendall(end)

    return serve


def test_a_download_is_use_of_the_session(gateway, origin):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (PIECES * 1000)
    at = gateway(origin(sending(head, b"x" * 1000, PIECES)), routes=[{"path": "/"}], **IDLE)
    with at.connect() as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: ticket={at.login()}\r\n\r\n".encode())
        assert len(client.read_response()[1]) == PIECES * 1000


def test_a_stream_without_an_announced_end_is_not(gateway, origin):
    """A tab that somebody has left open would never idle out."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    at = gateway(origin(sending(head, b"1\r\nx\r\n", 2 * PIECES)), routes=[{"path": "/"}], **IDLE)
    with at.connect() as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: ticket={at.login()}\r\n\r\n".encode())
        assert not client.read_all().endswith(b"0\r\n\r\n")
    assert at.stats["cut"] == 1


# --- silence


def silent_after(first):
    """A server that says something after a moment, and then no more."""
    over = threading.Event()

    def serve(connection):
        connection.read_head()
        connection.sendall(first)
        pause(MOMENT_S)
        connection.sendall(b"1\r\nx\r\n")
        over.wait(BOUND_S)

    return serve, over


@pytest.mark.timed
@pytest.mark.parametrize("kind", ["stream", "tunnel"])
def test_what_falls_silent_ends_after_one_figure(gateway, origin, kind):
    """From the last byte on, and not with the second window after it."""
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n"
    heads = {
        "stream": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "tunnel": b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    }
    serve, over = silent_after(heads[kind])
    at = gateway(origin(serve), timeouts={"response_body_window_s": 2.0, "tunnel_idle_s": 2.0})
    with at.connect() as client:
        began_s = time.monotonic()
        client.sendall(GET if kind == "stream" else upgrade)
        client.read_until(b"x\r\n")
        if kind == "tunnel":
            client.read_until(b"x\r\n")
        last_s = time.monotonic()
        assert client.read_all() == b""
        ended_s = time.monotonic()
        assert ended_s - began_s >= MOMENT_S + 2.0 - 0.1
        assert ended_s - last_s < 2.0 + STALL_S
    over.set()


def test_what_is_never_silent_for_so_long_goes_on(gateway, origin):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    serve = sending(head, b"1\r\nx\r\n", 12, 0.25, b"0\r\n\r\n")
    at = gateway(origin(serve), timeouts={"response_body_window_s": 2.5})
    with at.connect() as client:
        client.sendall(GET)
        assert client.read_response()[1] == b"x" * 12


def test_a_client_that_takes_nothing_is_not_waited_for(gateway, origin):
    """However much the server has for it."""

    def serve(connection):
        connection.read_head()
        with contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE))

    at = gateway(origin(serve), timeouts={"response_body_window_s": 0.5})
    with at.connect() as client:
        client.sendall(GET)
        wait_until(lambda: at.stats["cut_short"] == 1, "it is cut", BOUND_S)


# --- frames that nobody has sent by hand

MASKED = b"\x80\0\0\0\0"
PONG, PING, CONTINUATION = b"\x8a" + MASKED, b"\x89\x83\0\0\0\0abc", b"\x80" + MASKED


@pytest.mark.parametrize(
    ("frames", "is_use"),
    [
        ([PONG], False),
        ([PING], False),
        ([PONG + PING + PONG], False),
        ([PING[:1], PING[1:5], PING[5:]], False),
        ([b"\x81\x80\0\0\0\0"], True),
        ([b"\x02\x81\0\0\0\0a", CONTINUATION], True),
        ([PONG + b"\x81\x81\0\0\0\0a"], True),
    ],
)
def test_control_frames_of_a_browser_are_no_use(gateway, origin, frames, is_use):
    """It answers the pings of a server by itself, in a tab that nobody looks at."""

    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        while connection.recv(1000):
            pass

    at = gateway(origin(serve), routes=[{"path": "/"}], **IDLE)
    with at.connect() as client:
        cookie = f"Cookie: ticket={at.login()}\r\n".encode()
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n"
            + cookie
            + b"\r\n"
        )
        assert status_of(client.read_head()) == 101
        ends_s = time.monotonic() + PIECES * PIECE_S
        with contextlib.suppress(OSError):
            while time.monotonic() < ends_s or not (is_use or at.stats["cut"]):
                for frame in frames:
                    client.sendall(frame)
                    pause(PIECE_S / len(frames))
    wait_until(lambda: at.stats["cut"] == (not is_use), "that is all")


def test_of_another_protocol_everything_is_use(gateway, origin):
    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 101 x\r\nUpgrade: chat\r\nConnection: Upgrade\r\n\r\n")
        while connection.recv(1000):
            pass

    at = gateway(origin(serve), routes=[{"path": "/"}], **IDLE, gateway={"upgrades": ["websocket", "chat"]})
    with at.connect() as client:
        cookie = f"Cookie: ticket={at.login()}\r\n".encode()
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: chat\r\nConnection: Upgrade\r\n" + cookie + b"\r\n")
        assert status_of(client.read_head()) == 101
        for _ in range(PIECES):
            client.sendall(PONG)
            pause(PIECE_S)
    assert at.stats["cut"] == 0


# --- connections that are kept


def test_the_default_is_less_than_what_servers_keep():
    """gunicorn 2 s, uvicorn and Node 5 s."""
    assert TIMEOUTS_S["upstream_idle"][1] <= 1.5


def saying(gateway, origin, field):
    """A gateway, and a server that says this in its answers."""
    line = f"Keep-Alive: {field}\r\n".encode() if field else b""
    behind = origin(answer=b"HTTP/1.1 200 OK\r\n" + line + b"Content-Length: 2\r\n\r\nok")
    return gateway(behind, timeouts={"upstream_idle_s": 30}), behind


@pytest.mark.parametrize(
    ("field", "pause_s", "connections"),
    [
        ("", 1.0, 1),
        ("timeout=1", 0.7, 2),
        ("max=100, timeout=1", 0.7, 2),
        ("TimeOut=1, max=5", 0.7, 2),
        ("timeout=0", 0.0, 2),
        ("timeout=5", 1.0, 1),
        ("timeout=99999999999999999999", 0.7, 1),
        ("timeout", 0.7, 1),
        ("max=1", 0.7, 1),
        ("timeout=", 0.7, 1),
    ],
)
def test_a_server_says_how_long_it_keeps_a_connection(gateway, origin, field, pause_s, connections):
    """It is used no longer than that, less a second, or half of the time: what is on its way then
    would be lost.
    """
    at, behind = saying(gateway, origin, field)
    assert status_of(at.ask(GET)[0]) == 200
    pause(pause_s)
    assert status_of(at.ask(GET)[0]) == 200
    assert len(behind.connections) == connections


def test_for_half_of_a_second_it_is_used_again(gateway, origin):
    at, behind = saying(gateway, origin, "timeout=1")

    def is_used_again():
        before = len(behind.connections)
        return status_of(at.ask(GET)[0]) == 200 and before and len(behind.connections) == before

    wait_until(is_used_again, "two requests within that time", BOUND_S)
