"""The data plane over real sockets: bytes in, bytes out."""

import contextlib
import hashlib
import json
import os
import resource
import socket
import threading

import pytest
from conftest import BOUND_S, OK, Client, fields_of, read_body, status_of
from lab.redis_servers import wait_until

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
BIG = 24 * 1024 * 1024


def chunked(*pieces):
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def reason_of(body):
    return json.loads(body)["reason"]


# --- requests


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "get"])
def test_any_method_is_forwarded_as_it_is(gateway, origin, method):
    behind = origin()
    head, body = gateway(behind).ask(f"{method} /x?y=1 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert (status_of(head), body) == (200, b"ok")
    assert behind.requests[0][0].startswith(f"{method} /x?y=1 HTTP/1.1\r\nHost: a\r\n".encode())


@pytest.mark.parametrize("split", [1, 7, 10_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_request_bodies(gateway, origin, framing, split):
    behind = origin()
    data = os.urandom(20_000)
    pieces = [data[at : at + 999] for at in range(0, len(data), 999)]
    field, body = (
        ("Content-Length: 20000", data) if framing == "length" else ("Transfer-Encoding: chunked", chunked(*pieces))
    )
    raw = f"POST /x HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n".encode() + body
    with gateway(behind).connect() as client:
        for at in range(0, len(raw), split):
            client.sendall(raw[at : at + split])
        assert status_of(client.read_response()[0]) == 200
    head, seen = behind.requests[0]
    assert seen == data
    assert (b"transfer-encoding" in fields_of(head)) == (framing == "chunked")


def test_trailers_and_extensions_are_dropped(gateway, origin):
    behind = origin()
    body = b'2;name="value"\r\nab\r\n0\r\nX-Forwarded-User: mallory\r\n\r\n'
    gateway(behind).ask(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    head, seen = behind.requests[0]
    assert seen == b"ab"
    assert b"mallory" not in head


def test_a_body_malformed_from_the_start_is_not_forwarded_at_all(gateway, origin):
    behind = origin()
    head, _ = gateway(behind).ask(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
    assert status_of(head) == 400
    assert behind.connections == []


def test_a_body_malformed_later_ends_the_exchange(gateway, origin):
    begun, broken = threading.Event(), threading.Event()

    def serve(connection):
        connection.read_until(b"abc")
        begun.set()
        connection.read_all()
        broken.set()

    with gateway(origin(serve)).connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        assert begun.wait(BOUND_S)
        client.sendall(b"zz\r\n")
        assert status_of(client.read_head()) == 400
        client.read_all()
    assert broken.wait(BOUND_S)


def test_expect_is_answered_here(gateway, origin):
    behind = origin()
    with gateway(behind).connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert client.read_head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert client.read_response()[1] == b"ok"
    assert b"expect" not in fields_of(behind.requests[0][0])


def test_head_limits(gateway, origin):
    at = gateway(origin())
    assert status_of(at.ask(b"GET /" + b"u" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")[0]) == 414
    assert status_of(at.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"v" * 20_000 + b"\r\n\r\n")[0]) == 431
    assert status_of(at.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n")[0]) == 431


# --- fields


def test_what_goes_upstream_is_written_anew(gateway, origin):
    behind = origin()
    gateway(behind).ask(
        b"GET / HTTP/1.1\r\nHost: shop:81\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        b"Proxy: evil\r\nUpgrade: h2c\r\nX-Kept:   v w \r\nForwarded: for=9.9.9.9\r\nX-Forwarded-For: 9.9.9.9\r\n"
        b"X-Forwarded-Proto: https\r\nX_Forwarded_Host: evil\r\nX-Ticket-Login: mallory\r\n\r\n"
    )
    assert behind.requests[0][0] == (
        b"GET / HTTP/1.1\r\nHost: shop:81\r\nX-Kept: v w\r\nX-Forwarded-For: 127.0.0.1\r\n"
        b"X-Forwarded-Proto: http\r\nX-Forwarded-Host: shop:81\r\n\r\n"
    )


def test_a_trusted_proxy_is_believed(gateway, origin):
    behind = origin()
    at = gateway(behind, gateway={"trusted_proxies": ["127.0.0.0/8"]})
    at.ask(
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Proto: https\r\n"
        b"X-Forwarded-Host: shop\r\nForwarded: for=9.9.9.9\r\n\r\n"
    )
    fields = fields_of(behind.requests[0][0])
    assert fields[b"x-forwarded-for"] == b"8.8.8.8, 127.0.0.1"  # nobody vouches for what is left of it
    assert (fields[b"x-forwarded-proto"], fields[b"x-forwarded-host"]) == (b"https", b"shop")
    assert b"forwarded" not in fields  # it may be the client's own


def test_an_absolute_target_replaces_host(gateway, origin):
    behind = origin()
    gateway(behind).ask(b"GET http://shop?q HTTP/1.1\r\nHost: other\r\n\r\n")
    assert behind.requests[0][0].startswith(b"GET /?q HTTP/1.1\r\nHost: shop\r\n")


def test_response_fields(gateway, origin):
    answer = (
        b"HTTP/1.1 201 Made It\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Kept: v\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Ticket-Login: mallory\r\nx_ticket_login: eve\r\n\r\nok"
    )
    head, _ = gateway(origin(answer=answer)).ask(GET)
    assert head == (
        b"HTTP/1.1 201 Made It\r\nX-Kept: v\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\n"
    )


# --- responses


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"a", b"bc"), b"abc"),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
    ],
)
def test_response_bodies(gateway, origin, minor, answer, body):
    def serve(connection):
        connection.read_head()
        connection.sendall(answer)

    with gateway(origin(serve)).connect() as client:
        client.sendall(b"GET / HTTP/1.%d\r\nHost: a\r\n\r\n" % minor)
        head = client.read_head()
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        if minor == 1:
            assert read_body(head, client) == body
        else:
            assert b"transfer-encoding" not in fields_of(head)
            assert client.read_all() == body


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(gateway, origin, status):
    behind = origin(answer=b"HTTP/1.1 %d x\r\nETag: y\r\n\r\n" % status)
    with gateway(behind).connect() as client:
        for _ in range(3):
            client.sendall(GET)
            assert status_of(client.read_head()) == status
    assert len(behind.connections) == 1


def test_head_has_a_length_and_no_body(gateway, origin):
    behind = origin(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    with gateway(behind).connect() as client:
        for _ in range(3):
            client.sendall(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert fields_of(client.read_head())[b"content-length"] == b"500"
    assert len(behind.connections) == 1


def test_a_response_in_single_bytes(gateway, origin):
    def serve(connection):
        connection.read_head()
        for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"abc", b"d" * 300):
            connection.sendall(bytes([byte]))

    assert gateway(origin(serve)).ask(GET)[1] == b"abc" + b"d" * 300


# --- connections


def test_connections_are_kept_on_both_sides(gateway, origin):
    behind = origin()
    with gateway(behind).connect() as client:
        for _ in range(50):
            client.sendall(GET)
            assert client.read_response()[1] == b"ok"
    assert len(behind.connections) == 1
    assert len(behind.requests) == 50


@pytest.mark.parametrize(
    ("request_end", "keeps"),
    [
        ("1.1\r\nHost: a\r\n\r\n", True),
        ("1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False),
        ("1.0\r\nHost: a\r\n\r\n", False),
        ("1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_who_closes_when(gateway, origin, request_end, keeps):
    with gateway(origin()).connect() as client:
        client.sendall(f"GET / HTTP/{request_end}".encode())
        head, _ = client.read_response()
        if keeps:
            client.sendall(GET)
            assert client.read_response()[1] == b"ok"
        else:
            assert fields_of(head)[b"connection"] == b"close"
            assert client.read_all() == b""


def test_hundreds_of_pipelined_requests_are_answered_in_order(gateway, origin):
    def serve(connection):
        while True:
            head, body = behind.request(connection)
            answer = head.split(b" ")[1] + body
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))

    behind = origin(serve)
    with gateway(behind, routes=[{"path": "/", "auth": "none"}, {"path": "/private"}]).connect() as client:
        raw, wanted = b"", []
        for number in range(300):
            if number % 7 == 0:
                raw += b"GET /private HTTP/1.1\r\nHost: a\r\n\r\n"
                wanted.append(b'{"error": "Unauthorized", "reason": "missing"}\n')
            elif number % 3:
                raw += b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number
                wanted.append(b"/%d" % number)
            elif number % 2:
                raw += b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody" % number
                wanted.append(b"/%dbody" % number)
            else:
                raw += (
                    b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"
                    % number
                )
                wanted.append(b"/%dbody" % number)
        client.sendall(raw)
        assert [client.read_response()[1] for _ in wanted] == wanted


def test_pipelined_after_a_streamed_chunked_body(gateway, origin):
    behind = origin()
    body = os.urandom(100_000)
    with gateway(behind).connect() as client:
        client.sendall(b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body) + GET * 3)
        for _ in range(4):
            assert client.read_response()[1] == b"ok"
    assert [head.split(b" ")[1] for head, _ in behind.requests] == [b"/1", b"/x", b"/x", b"/x"]
    assert behind.requests[0][1] == body


def test_a_client_may_close_its_half(gateway, origin):
    with gateway(origin()).connect() as client:
        client.sendall(GET)
        client.shutdown(socket.SHUT_WR)
        assert client.read_response()[1] == b"ok"
        assert client.read_all() == b""


@pytest.mark.parametrize("started", [False, True])
def test_a_client_that_goes_away_takes_its_upstream_connection_along(gateway, origin, started):
    asked, ended = threading.Event(), threading.Event()

    def serve(connection):
        connection.read_head()
        if started:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        asked.set()
        connection.read_all()
        ended.set()

    with gateway(origin(serve)).connect() as client:
        client.sendall(GET)
        assert asked.wait(BOUND_S)
        if started:
            client.read_until(b"abc")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    assert ended.wait(BOUND_S)


def test_unix_sockets_and_ipv6(gateway, origin, tmp_path):
    behind = origin(path=str(tmp_path / "origin.sock"))
    at = gateway(behind, listen=f"unix:{tmp_path}/gateway.sock")
    assert at.ask(GET)[1] == b"ok"
    assert b"x-forwarded-for" not in fields_of(behind.requests[0][0])
    at = gateway(behind, listen="[::1]:0")
    assert at.ask(GET)[1] == b"ok"
    assert fields_of(behind.requests[1][0])[b"x-forwarded-for"] == b"::1"


def test_more_clients_than_allowed_wait(gateway, origin):
    at = gateway(origin(), limits={"connections_max": 2})
    first, second, third = at.connect(), at.connect(), at.connect()
    with first, second, third:
        for client in (first, second):
            client.sendall(GET)
            assert client.read_response()[1] == b"ok"
        third.sendall(GET)
        for _ in range(20):
            assert at.call(lambda: at.worker.proxy.connection_count) == 2
        assert at.stats["accepted"] == 2
        first.close()
        assert third.read_response()[1] == b"ok"


def test_websockets_pass_both_ways(gateway, origin):
    def serve(connection):
        head = connection.read_head()
        assert fields_of(head)[b"upgrade"] == b"websocket"
        assert fields_of(head)[b"connection"] == b"Upgrade"
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello"
        )
        while got := connection.recv(100):
            connection.sendall(got.upper())
        connection.sendall(b"bye")

    with gateway(origin(serve)).connect() as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\nearly"
        )
        assert status_of(client.read_head()) == 101
        assert client.read_until(b"EARLY") == b"helloEARLY"
        client.sendall(b"more")
        assert client.read_exactly(4) == b"MORE"
        client.shutdown(socket.SHUT_WR)
        assert client.read_all() == b"bye"


# --- flow


def digest_of(connection, size):
    """Read so many bytes and return their hash."""
    digest = hashlib.sha256()
    while size:
        got = connection.recv(min(size, 65536))
        assert got
        digest.update(got)
        size -= len(got)
    return digest.digest()


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_back_pressure_on_a_response(gateway, origin):
    """The client reads nothing until the origin's sending has come to a stop."""
    block = os.urandom(65536)
    stuck = threading.Event()

    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
        connection.settimeout(0.3)
        for _ in range(BIG // len(block)):
            sent = 0
            while sent < len(block):
                try:
                    sent += connection.send(block[sent:])
                except TimeoutError:
                    stuck.set()

    with gateway(origin(serve)).connect() as client:
        before = resident_bytes()
        client.sendall(GET)
        assert stuck.wait(BOUND_S)
        assert resident_bytes() - before < 4 * 1024 * 1024
        client.read_head()
        rest = BIG - len(client.buffer)
        digest = hashlib.sha256(client.buffer)
        while rest:
            got = client.recv(min(rest, 65536))
            digest.update(got)
            rest -= len(got)
    assert digest.digest() == hashlib.sha256(block * (BIG // len(block))).digest()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_back_pressure_on_a_request(gateway, origin, framing):
    block = os.urandom(65536)
    begin, done = threading.Event(), []

    def serve(connection):
        head = connection.read_head()
        assert begin.wait(BOUND_S)
        done.append(hashlib.sha256(read_body(head, connection)).digest())
        connection.sendall(OK)

    with gateway(origin(serve)).connect() as client:
        field = b"Content-Length: %d" % BIG if framing == "length" else b"Transfer-Encoding: chunked"
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n")
        client.settimeout(0.3)
        part = block if framing == "length" else b"%x\r\n%b\r\n" % (len(block), block)
        for _ in range(BIG // len(block)):
            sent = 0
            while sent < len(part):
                try:
                    sent += client.send(part[sent:])
                except TimeoutError:
                    begin.set()  # everything between us is full
        assert begin.is_set()
        client.settimeout(BOUND_S)
        client.sendall(b"" if framing == "length" else b"0\r\n\r\n")
        assert client.read_response()[1] == b"ok"
    assert done == [hashlib.sha256(block * (BIG // len(block))).digest()]


def test_an_early_answer_reaches_a_client_that_is_still_sending(gateway, origin):
    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")

    with gateway(origin(serve)).connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 100_000)
        head, body = client.read_response()
        assert (status_of(head), body) == (413, b"no")
        client.read_all()


# --- upstream trouble


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
        b"HTTP/1.1 200 OK\r\nX: " + b"v" * 40_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
    ],
)
def test_bad_answers_are_502_and_the_connection_is_not_used_again(gateway, origin, answer):
    def serve(connection):
        while True:
            connection.read_head()
            connection.sendall(answer)
            if len(answer) < 30 and not answer.startswith(b"HTTP/2"):
                return

    behind = origin(serve)
    at = gateway(behind)
    for _ in range(2):
        head, body = at.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert status_of(head) == 502
        assert reason_of(body) in ("upstream_malformed", "upstream_closed")
    assert len(behind.connections) == 2


@pytest.mark.parametrize(
    ("framing", "first", "last"),
    [(b"Content-Length: 4", b"ab", b"cd"), (b"Transfer-Encoding: chunked", b"2\r\nab\r\n", b"2\r\ncd\r\n0\r\n\r\n")],
)
def test_what_follows_an_answer_is_nobodys(gateway, origin, framing, first, last):
    """An answer that comes by and by, and at its end another one that nobody has asked for: the
    next request must not get that.
    """
    go_on = threading.Event()

    def serve(connection):
        behind.request(connection)
        if go_on.is_set():
            connection.sendall(OK)
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (framing, first))
        assert go_on.wait(BOUND_S)
        connection.sendall(last + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        behind.request(connection)
        connection.sendall(OK)

    behind = origin(serve)
    with gateway(behind).connect() as client:
        client.sendall(GET)
        client.read_head()
        assert client.read_exactly(len(first)) == first
        go_on.set()
        assert client.read_exactly(len(last)) == last
        client.sendall(GET)
        assert client.read_response()[1] == b"ok"
    assert len(behind.connections) == 2
    assert len(behind.requests) == 2


def test_what_follows_an_answer_that_came_early_is_no_request(gateway, origin):
    """It is what is left of the body, and the answer was complete before it came."""
    go_on = threading.Event()

    def serve(connection):
        heads.append(connection.read_head())
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        assert go_on.wait(BOUND_S)
        connection.sendall(b"cd")
        connection.read_all()

    heads = []
    with gateway(origin(serve)).connect() as client:
        client.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        client.read_head()
        assert client.read_exactly(2) == b"ab"
        go_on.set()
        assert client.read_exactly(2) == b"cd"
        with contextlib.suppress(ConnectionError):
            client.sendall(GET.replace(b"/x", b"/smuggled"))
        assert client.read_all() == b""
    assert len(heads) == 1


def test_a_body_cut_short_is_not_completed(gateway, origin):
    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    with gateway(origin(serve)).connect() as client:
        client.sendall(GET)
        client.read_head()
        assert client.read_all() == b"abc"


def test_nobody_listens_upstream(gateway):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        head, body = gateway(f"127.0.0.1:{unused.getsockname()[1]}").ask(GET)
    assert (status_of(head), reason_of(body)) == (502, "upstream_refused")


def test_servers_take_turns_and_a_dead_one_is_left_out(gateway, origin):
    first, second = origin(), origin()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        at = gateway(first, f"127.0.0.1:{unused.getsockname()[1]}", second)
        for _ in range(20):
            assert at.ask(GET)[1] == b"ok"
    assert len(first.requests) + len(second.requests) == 20
    assert min(len(first.requests), len(second.requests)) >= 8


class ClosesWhenIdle:
    """Answers once, then closes its first connection as soon as the second request is there: the
    race of a pooled connection.
    """

    def __init__(self):
        self.seen = []

    def __call__(self, connection):
        first = not self.seen
        self.seen.append(connection.read_head())
        connection.sendall(OK)
        head = connection.read_head()
        if first:
            self.seen.append(b"dropped")
            return
        self.seen.append(head)
        connection.sendall(OK)


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("PUT", 200), ("DELETE", 200), ("POST", 502), ("PATCH", 502)]
)
def test_only_idempotent_requests_are_sent_again(gateway, origin, method, status):
    serve = ClosesWhenIdle()
    with gateway(origin(serve)).connect() as client:
        client.sendall(GET)
        assert client.read_response()[1] == b"ok"
        client.sendall(f"{method} /again HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
        assert status_of(client.read_response()[0]) == status
    assert sum(b"/again" in head for head in serve.seen) == (1 if status == 200 else 0)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_what_can_not_be_sent_again_gets_a_connection_that_is_open(gateway, origin, method):
    """A body that is not all here cannot. The origin closes while the gateway is busy, and has the
    request before it has the close.
    """
    sent, closed = threading.Event(), threading.Event()

    def serve(connection):
        behind.request(connection)
        connection.sendall(OK)
        if len(behind.connections) == 1:
            assert sent.wait(BOUND_S)
            connection.close()
            closed.set()

    def close_the_idle_one():
        client.sendall(f"{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab".encode())
        sent.set()
        assert closed.wait(BOUND_S)

    behind = origin(serve)
    at = gateway(behind)
    with at.connect() as client:
        client.sendall(GET)
        client.read_response()
        at.call(close_the_idle_one)
        client.sendall(b"cd")
        assert status_of(client.read_response()[0]) == 200


# --- timeouts


@pytest.mark.parametrize(
    ("timeout", "sent", "status"),
    [
        ("request_head_s", b"GET / HTTP/1.1\r\nHos", 408),
        ("request_body_window_s", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab", 408),
        ("upstream_first_byte_s", GET, 504),
        ("keep_alive_s", b"", None),
    ],
)
def test_timeouts(gateway, origin, timeout, sent, status):
    def serve(connection):
        connection.read_all()

    with gateway(origin(serve), timeouts={timeout: 0.2}).connect() as client:
        client.sendall(sent)
        if status is None:
            assert client.read_all() == b""
        else:
            assert status_of(client.read_response()[0]) == status


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HEAD /x HTTP/1.1\r\nHos", 408),
        (b"HEAD /x HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
        (b"HEAD /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", 408),
        (b"HEAD /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabX", 400),
        (b"HEAD /away HTTP/1.1\r\nHost: a\r\n\r\n", 502),
    ],
)
def test_no_answer_of_ours_to_head_has_content(gateway, origin, sent, status):
    """Whatever came before on the connection, and whatever of the request could be read."""

    def serve(connection):
        while b"/away" not in behind.request(connection)[0]:
            connection.sendall(OK)

    behind = origin(serve)
    at = gateway(behind, timeouts={"request_head_s": 0.2, "request_body_window_s": 0.2})
    with at.connect() as client:
        client.sendall(GET)
        client.read_response()
        client.sendall(sent)
        head = client.read_head()
        assert status_of(head) == status
        assert int(fields_of(head)[b"content-length"]) > 0
        client.shutdown(socket.SHUT_WR)
        assert client.read_all() == b""


def test_a_byte_now_and_then_does_not_extend_the_head_timeout(gateway, origin):
    with gateway(origin(), timeouts={"request_head_s": 0.5}).connect() as client:
        client.settimeout(0.05)
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(40):  # 2 s at most
            client.send(b"y")
            try:
                assert status_of(client.recv(4096)) == 408
                return
            except TimeoutError:
                continue
    pytest.fail("still waiting")


def test_a_response_that_stalls_is_ended(gateway, origin):
    def serve(connection):
        connection.read_head()
        connection.settimeout(None)  # it is not the origin that ends it
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        connection.read_all()

    with gateway(origin(serve), timeouts={"response_body_window_s": 0.2}).connect() as client:
        client.sendall(GET)
        client.read_head()
        assert client.read_all() == b"abc"


def test_an_upload_that_becomes_too_slow_is_ended(gateway, origin):
    """A client that sends part of a body at once may not be slow with the rest: each window has its
    minimum.
    """

    def serve(connection):
        connection.settimeout(None)
        connection.read_all()

    at = gateway(origin(serve), timeouts={"request_body_window_s": 0.2}, limits={"request_body_rate_min": 1000})
    with at.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000)
        client.settimeout(0.05)
        for _ in range(100):  # 20 bytes a second
            client.send(b"y")
            try:
                assert status_of(client.recv(4096)) == 408
                return
            except TimeoutError:
                continue
    pytest.fail("it goes on")


def test_who_asks_and_asks_and_reads_no_answer_keeps_no_connection(gateway, origin):
    """The answers are ours, and the kernel takes no more of them."""
    at = gateway(
        origin(),
        routes=[{"path": "/only", "auth": "none"}],
        timeouts={"response_body_window_s": 0.3, "keep_alive_s": 0.3},
    )
    with at.connect() as client:
        client.settimeout(0.3)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                client.sendall(GET * 1000)
        wait_until(lambda: at.call(lambda: at.worker.proxy.connection_count) == 0, "its time is over", BOUND_S)


def test_who_was_refused_and_does_not_close_keeps_no_connection(gateway, origin):
    at = gateway(origin(), timeouts={"linger_s": 0.2})
    with at.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert status_of(client.read_response()[0]) == 400
        wait_until(lambda: at.call(lambda: at.worker.proxy.connection_count) == 0, "its time is over", BOUND_S)


def test_a_kept_connection_is_kept_however_often_it_is_used(gateway, origin):
    """Among as few as there may be."""
    behind = origin()
    with gateway(behind, limits={"connections_max": 1}).connect() as client:
        for _ in range(10):
            client.sendall(GET)
            assert client.read_response()[1] == b"ok"
    assert len(behind.connections) == 1


def test_interim_responses_are_counted_for_each_request_anew(gateway, origin):
    def serve(connection):
        while connection.read_head():
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 60 + OK)

    behind = origin(serve)
    with gateway(behind).connect() as client:
        for _ in range(4):
            client.sendall(GET)
            assert client.read_response()[1] == b"ok"
    assert len(behind.connections) == 1


def test_a_stale_handle_reaches_nobody(gateway, origin):
    """An answer of the control plane to a connection that is gone, or went on, does nothing."""
    at = gateway(origin())
    assert at.ask(GET)[1] == b"ok"
    for handle in (0, 1, 1 << 32, (1 << 64) - 1):
        at.call(at.worker.proxy.admit, handle)
        at.call(at.worker.proxy.relay, handle, b"")
        at.call(at.worker.proxy.fail, handle, 500, "x")
    assert at.ask(GET)[1] == b"ok"


def test_an_idle_upstream_connection_that_talks_is_dropped(gateway, origin):
    talked = threading.Event()

    def serve(connection):
        connection.read_head()
        connection.sendall(OK)
        if not talked.is_set():
            talk.wait(BOUND_S)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            connection.read_all()
            talked.set()
        else:
            connection.read_all()

    talk = threading.Event()
    with gateway(origin(serve)).connect() as client:
        client.sendall(GET)
        assert client.read_response()[1] == b"ok"
        talk.set()
        assert talked.wait(BOUND_S)
        client.sendall(GET)
        assert client.read_response()[1] == b"ok"


def test_client_type(gateway, origin):
    """The fixtures' own client sees what is really sent."""
    at = gateway(origin())
    with Client(at.address) as client:
        client.sendall(GET)
        assert client.read_until(b"ok").endswith(b"Content-Length: 2\r\n\r\nok")
