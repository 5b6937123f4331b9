"""Every named limit of the gateway: what is over it is refused, and what is at it is served."""

import asyncio

import pytest
from conftest import fields_of, status_of
from lab.redis_servers import wait_until

import fastticket
from fastticket.dataplane.forwarding import Forwarding
from fastticket.dataplane.proxy import LIMITS, Proxy
from fastticket.dataplane.routes import Routes
from fastticket.dataplane.upstreams import Upstreams
from fastticket.sessions.ticketcache import checker_of

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def bare_proxy(**options):
    async def make():
        store = fastticket.open_store("sqlite://:memory:")
        return checker_of(fastticket.TicketCache(store, fastticket.Keyring.generate()))

    checker = asyncio.run(make())
    return Proxy(checker, Upstreams(), Routes(), Forwarding(checker), **options)


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_has_limits(name):
    _, least, most = LIMITS[name]
    bare_proxy(limits={name: least})
    for value in (least - 1, most + 1):
        with pytest.raises((ValueError, OverflowError), match=name):
            bare_proxy(limits={name: value})


def test_head_bytes(gateway, origin):
    at = gateway(origin(), limits={"head_bytes_max": 2048})
    rest = 2048 - len(GET) - len("X: \r\n")
    assert status_of(at.ask(GET[:-2] + b"X: " + b"v" * rest + b"\r\n\r\n")[0]) == 200
    assert status_of(at.ask(GET[:-2] + b"X: " + b"v" * (rest + 1) + b"\r\n\r\n")[0]) == 431


def test_large_heads_can_be_allowed(gateway, origin):
    behind = origin()
    at = gateway(behind, limits={"head_bytes_max": 65536})
    value = b"v" * 60_000
    assert status_of(at.ask(GET[:-2] + b"X: " + value + b"\r\n\r\n")[0]) == 200
    assert fields_of(behind.requests[0][0])[b"x"] == value


def test_fields(gateway, origin):
    at = gateway(origin(), limits={"fields_max": 5})
    assert status_of(at.ask(GET[:-2] + b"X: y\r\n" * 4 + b"\r\n")[0]) == 200
    assert status_of(at.ask(GET[:-2] + b"X: y\r\n" * 5 + b"\r\n")[0]) == 431


def test_target_bytes(gateway, origin):
    at = gateway(origin(), limits={"target_bytes_max": 100})
    assert status_of(at.ask(b"GET /" + b"u" * 99 + b" HTTP/1.1\r\nHost: a\r\n\r\n")[0]) == 200
    assert status_of(at.ask(b"GET /" + b"u" * 100 + b" HTTP/1.1\r\nHost: a\r\n\r\n")[0]) == 414


def test_response_head_bytes(gateway, origin):
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: %s\r\n\r\n"
    at = gateway(origin(answer=large % (b"v" * 2100)), limits={"response_head_bytes_max": 2048})
    assert status_of(at.ask(GET)[0]) == 502
    at = gateway(origin(answer=large % (b"v" * 60_000)), limits={"response_head_bytes_max": 65536})
    assert status_of(at.ask(GET)[0]) == 200


@pytest.mark.parametrize("side", ["request", "response"])
@pytest.mark.parametrize(("size", "is_served"), [(20, True), (21, False)])
def test_chunk_extension_bytes(gateway, origin, side, size, is_served):
    """The limit is for a whole body, however they are spread; the `;` is not counted."""
    one, other = b"e" * (size // 2), b"e" * (size - size // 2 - 2)
    body = b"1;%s\r\na\r\n1;%s\r\nb\r\n0\r\n\r\n" % (one, other)
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    behind = origin(answer=answer + body) if side == "response" else origin()
    at = gateway(behind, limits={"chunk_extension_bytes_max": 20})
    request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body if side == "request" else GET
    head, got = at.ask(request)
    assert status_of(head) == (200 if is_served else 400 if side == "request" else 502)
    if is_served:
        assert b"ab" in (behind.requests[0][1], got)


def test_connections_per_client(gateway, origin):
    at = gateway(origin(), limits={"connections_per_client_max": 2})
    clients = [at.connect() for _ in range(2)]
    for client in clients:
        client.sendall(GET)
        assert status_of(client.read_response()[0]) == 200
    with at.connect() as third:
        assert third.read_all() == b""
    assert at.stats["over_client_limit"] == 1
    clients[0].close()
    wait_until(lambda: at.call(lambda: at.worker.proxy.connection_count) == 1, "it has seen the end of the first")
    assert status_of(at.ask(GET)[0]) == 200
    clients[1].close()


def test_proxies_of_ours_may_have_more_connections(gateway, origin):
    at = gateway(origin(), limits={"connections_per_client_max": 1}, gateway={"trusted_proxies": ["127.0.0.1/32"]})
    clients = [at.connect() for _ in range(5)]
    for client in clients:
        client.sendall(GET)
        assert status_of(client.read_response()[0]) == 200
        client.close()


def test_requests_per_connection(gateway, origin):
    at = gateway(origin(), limits={"requests_per_connection_max": 3})
    with at.connect() as client:
        client.sendall(GET * 4)
        heads = [client.read_response()[0] for _ in range(3)]
        assert [b"Connection: close" in head for head in heads] == [False, False, True]
        assert client.read_all() == b""


@pytest.mark.parametrize(("fields", "status"), [(129, 200), (511, 200), (512, 502)])
def test_fields_of_a_response(gateway, origin, fields, status):
    """512, Content-Length among them: a page with many cookies and policies has more than a
    hundred.
    """
    lines = b"".join(b"X-%d: y\r\n" % n for n in range(fields))
    at = gateway(origin(answer=b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 2\r\n\r\nok"))
    head, _ = at.ask(GET)
    assert status_of(head) == status
    assert head.count(b"\r\nX-") == (fields if status == 200 else 0)


def test_fields_of_a_request_may_be_as_many(gateway, origin):
    behind = origin()
    at = gateway(behind, limits={"fields_max": 512})
    assert status_of(at.ask(GET[:-2] + b"X: y\r\n" * 511 + b"\r\n")[0]) == 200
    assert behind.requests[0][0].count(b"X: y\r\n") == 511
    assert status_of(at.ask(GET[:-2] + b"X: y\r\n" * 512 + b"\r\n")[0]) == 431
    at = gateway(behind)
    assert status_of(at.ask(GET[:-2] + b"X: y\r\n" * 127 + b"\r\n")[0]) == 200
    assert status_of(at.ask(GET[:-2] + b"X: y\r\n" * 128 + b"\r\n")[0]) == 431


@pytest.mark.parametrize("path", [b"/", b"/a%20b/"])
def test_long_targets_can_be_allowed(gateway, origin, path):
    """A query of 10,800 bytes is real; so may a path be, spelled with escapes or without."""
    behind = origin()
    at = gateway(behind, limits={"head_bytes_max": 65536, "target_bytes_max": 60_000})
    for target in (path + b"?q=" + b"u" * 10_800, path + b"u" * 59_000, path + b"%20" * 19_000):
        assert status_of(at.ask(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % target)[0]) == 200
        assert behind.requests[-1][0].startswith(b"GET %s HTTP/1.1\r\n" % target)
    assert status_of(at.ask(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % (path + b"u" * 60_001))[0]) == 414


def test_a_target_that_is_too_long_is_told_before_its_head_is(gateway, origin):
    """Also where the whole head would not fit."""
    at = gateway(origin())
    with at.connect() as client:
        client.sendall(b"GET /" + b"u" * 8_192 + b" HTTP/1.1\r\n")
        assert status_of(client.read_response()[0]) == 414
    assert status_of(at.ask(b"GET /" + b"u" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")[0]) == 414


# --- what is not a response is told to the operator

TOO_LARGE = b"HTTP/1.1 200 OK\r\nX: " + b"v" * 40_000 + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"garbage\r\n\r\n", "no status line"),
        (b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "a line that is no field"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 513 + b"\r\n", "too many fields"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "that can be read in two ways"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "in two ways"),
        (TOO_LARGE, "a head of more than response_head_bytes_max"),
        (b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n", "a change of protocols that nobody asked for"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 200, "interim responses without end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "a body that is not as its head says"),
        (b"HTTP/1.1 200 OK\r\nX-Ticket-Logout: secret\r\n\r\n", "an X-Ticket field with an unknown value"),
        (
            b"HTTP/1.1 200 OK\r\nX-Ticket-Logout: session\r\nX-Ticket-Rotate: 1\r\n\r\n",
            "contradictory X-Ticket fields",
        ),
    ],
)
def test_a_malformed_response_leaves_a_word(gateway, origin, caplog, answer, why):
    behind = origin(answer=answer)
    at = gateway(behind)
    assert status_of(at.ask(GET)[0]) == 502
    wait_until(lambda: f"upstream app: {behind.address}: 502, no response: " in caplog.text, "a line")
    assert why in caplog.text
    assert "secret" not in caplog.text


def test_a_server_that_closes_instead_of_answering_leaves_a_word(gateway, origin, caplog):
    behind = origin(lambda connection: connection.read_head())
    assert status_of(gateway(behind).ask(GET)[0]) == 502
    wait_until(lambda: "closed before its head was there" in caplog.text, "a line")


def test_many_malformed_responses_leave_few_words(gateway, origin, caplog):
    """The log counts them instead of telling of each."""
    at = gateway(origin(answer=b"garbage\r\n\r\n"))
    with at.connect() as client:
        client.sendall(GET * 100)
        for _ in range(100):
            assert status_of(client.read_response()[0]) == 502

    def told():
        records = [record for record in caplog.records if record.msg.startswith("upstream")]
        more = sum(int(record.args[0]) for record in records if "more such faults" in record.msg)
        return more + sum("502" in record.msg for record in records)

    wait_until(lambda: told() == 100, "all are accounted for")
