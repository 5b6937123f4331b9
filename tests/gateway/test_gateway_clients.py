"""Whom the gateway takes its clients for: the PROXY header, X-Forwarded-For, Forwarded, request
ids, inherited sockets.
"""

import re
import socket

import pytest
from conftest import BOUND_S, OK, Client, fields_of, status_of
from lab.proxy_headers import V4, V6, tlvs, v2
from lab.redis_servers import wait_until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
TRUSTED = {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"]}


def get(*fields):
    return "\r\n".join(["GET / HTTP/1.1", "Host: a", *fields, "", ""]).encode()


def forwarded_for(behind):
    return fields_of(behind.requests[-1][0]).get(b"x-forwarded-for")


# --- X-Forwarded-For


@pytest.mark.parametrize(
    ("said", "passed_on"),
    [
        ([], "127.0.0.1"),
        (["9.9.9.9"], "9.9.9.9, 127.0.0.1"),
        (["6.6.6.6, 9.9.9.9"], "9.9.9.9, 127.0.0.1"),
        (["6.6.6.6", "9.9.9.9"], "9.9.9.9, 127.0.0.1"),
        (["6.6.6.6, 9.9.9.9, 10.1.1.1"], "9.9.9.9, 10.1.1.1, 127.0.0.1"),
        (["6.6.6.6, 9.9.9.9", "10.1.1.1", "10.2.2.2"], "9.9.9.9, 10.1.1.1, 10.2.2.2, 127.0.0.1"),
        (["9.9.9.9:4711 , [2001:db8::1]:80"], "9.9.9.9:4711 , [2001:db8::1]:80, 127.0.0.1"),
        (["10.3.3.3, 10.1.1.1"], "10.3.3.3, 10.1.1.1, 127.0.0.1"),
        (["9.9.9.9, unknown, 10.1.1.1"], "10.1.1.1, 127.0.0.1"),
        (["9.9.9.9, rubbish"], "127.0.0.1"),
        (["9.9.9.9,"], "127.0.0.1"),
        ([""], "127.0.0.1"),
    ],
)
def test_the_list_is_walked_from_right_to_left_as_far_as_proxies_of_ours_vouch_for_it(gateway, origin, said, passed_on):
    behind = origin()
    at = gateway(behind, gateway=TRUSTED)
    at.ask(get(*(f"X-Forwarded-For: {value}" for value in said)))
    assert forwarded_for(behind) == passed_on.encode()


def test_clients_of_one_connection_are_told_apart(gateway, origin):
    """A proxy's connection carries many; what one is does not stick to the next."""
    behind = origin()
    at = gateway(behind, gateway={**TRUSTED, "forwarded": True})
    with at.connect() as client:
        for said in ("X-Forwarded-For: 9.9.9.9", "X-Forwarded-For: 2001:470::1", "X-Other: x"):
            client.sendall(get(said))
            client.read_response()
    named = [fields_of(head)[b"forwarded"] for head, _ in behind.requests]
    assert named == [
        b'for=9.9.9.9;host="a";proto=http',
        b'for="[2001:470::1]";host="a";proto=http',
        b'for=127.0.0.1;host="a";proto=http',
    ]


def test_forwarded_is_ours_or_nobody_s(gateway, origin):
    behind = origin()
    gateway(behind, gateway={"forwarded": True}).ask(get("Forwarded: for=6.6.6.6", "X-Forwarded-Proto: https"))
    assert fields_of(behind.requests[0][0])[b"forwarded"] == b'for=127.0.0.1;host="a";proto=http'
    assert behind.requests[0][0].lower().count(b"forwarded:") == 1


def test_forwarded_over_a_unix_socket(gateway, origin, tmp_path):
    behind = origin()
    at = gateway(
        behind,
        listen=f"unix:{tmp_path}/g.sock",
        gateway={"forwarded": True, "trusted_proxies": ["unix", "10.0.0.0/8"]},
    )
    at.ask(get("X-Forwarded-Proto: https", "X-Forwarded-For: 9.9.9.9, 10.1.1.1"))
    assert fields_of(behind.requests[0][0])[b"forwarded"] == b'for=9.9.9.9;host="a";proto=https'
    assert forwarded_for(behind) == b"9.9.9.9, 10.1.1.1"
    at.ask(get())
    assert fields_of(behind.requests[1][0])[b"forwarded"] == b'for=unknown;host="a";proto=http'
    assert forwarded_for(behind) is None


# --- PROXY header


HASTY = {"request_head_s": 2}  # which is waited for


@pytest.fixture
def announced(gateway, origin):
    behind = origin()
    return gateway(behind, gateway={**TRUSTED, "proxy_protocol": True}), behind


@pytest.fixture
def hasty(gateway, origin):
    behind = origin()
    return gateway(behind, gateway={**TRUSTED, "proxy_protocol": True}, timeouts=HASTY), behind


@pytest.mark.parametrize("header", [b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n", v2()], ids=["v1", "v2"])
@pytest.mark.parametrize("pieces", ["at once", "apart", "byte by byte"])
def test_a_proxy_announces_its_client(announced, header, pieces):
    at, behind = announced
    whole = header + GET * 2
    sizes = {"at once": len(whole), "apart": len(header), "byte by byte": 1}
    with at.connect() as client:
        for start in range(0, len(whole), sizes[pieces]):
            client.sendall(whole[start : start + sizes[pieces]])
        for _ in range(2):
            assert status_of(client.read_response()[0]) == 200
    assert [fields_of(head)[b"x-forwarded-for"] for head, _ in behind.requests] == [b"192.0.2.1"] * 2


CLAIMS = get(
    "X-Forwarded-For: 6.6.6.6",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil",
    "X-Real-IP: 6.6.6.6",
    "Forwarded: for=6.6.6.6",
    "X-Request-Id: evil",
)


@pytest.mark.parametrize("header", [v2(command=0x20, family=0, rest=b""), v2(command=0x20), v2(command=0x20, rest=V6)])
def test_a_proxy_s_own_connection(announced, header):
    """A health check of the proxy's (LOCAL): it speaks for itself, and is believed as without a
    header.
    """
    at, behind = announced
    assert status_of(at.ask(header + get("X-Forwarded-For: 9.9.9.9"))[0]) == 200
    assert forwarded_for(behind) == b"9.9.9.9, 127.0.0.1"


NAMELESS = {
    "v1 UNKNOWN": b"PROXY UNKNOWN\r\n",
    "v1 UNKNOWN with addresses": b"PROXY UNKNOWN 9.9.9.9 9.9.9.8 1 2\r\n",
    "v2 UNSPEC": v2(family=0, rest=b""),
    "v2 UNIX": v2(family=0x31, rest=bytes(216)),
    "v2 UNIX datagrams": v2(family=0x32, rest=bytes(216)),
    "v2 UDP": v2(family=0x12),
    "v2 UDP over IPv6": v2(family=0x22, rest=V6),
}


@pytest.mark.parametrize("header", NAMELESS.values(), ids=NAMELESS)
def test_a_client_whom_its_proxy_does_not_name_is_believed_nothing(gateway, origin, header):
    """The client's own fields come through the proxy, but the proxy does not vouch for them. The
    address is that of the connection.
    """
    behind = origin()
    at = gateway(behind, gateway={**TRUSTED, "proxy_protocol": True, "request_id_header": "X-Request-Id"})
    with at.connect() as client:
        client.sendall(header + CLAIMS * 2)
        for _ in range(2):
            assert status_of(client.read_response()[0]) == 200
    for head, _ in behind.requests:
        fields = fields_of(head)
        assert fields[b"x-forwarded-for"] == b"127.0.0.1"
        assert (fields[b"x-forwarded-proto"], fields[b"x-forwarded-host"]) == (b"http", b"a")
        assert not {b"x-real-ip", b"forwarded"} & set(fields)
        assert b"6.6.6.6" not in head
        assert b"evil" not in head


def test_a_nameless_client_of_a_unix_socket(gateway, origin, tmp_path):
    behind = origin()
    gateway_table = {"trusted_proxies": ["unix"], "proxy_protocol": True, "forwarded": True}
    at = gateway(behind, listen=f"unix:{tmp_path}/g.sock", gateway=gateway_table)
    assert status_of(at.ask(b"PROXY UNKNOWN\r\n" + CLAIMS)[0]) == 200
    assert forwarded_for(behind) is None
    assert fields_of(behind.requests[0][0])[b"forwarded"] == b'for=unknown;host="a";proto=http'


def test_nameless_clients_are_not_counted_as_one(gateway, origin):
    """They have no address of their own to be counted by."""
    at = gateway(origin(), gateway={**TRUSTED, "proxy_protocol": True}, limits={"connections_per_client_max": 1})
    with at.connect() as one, at.connect() as other:
        for client in (one, other):
            client.sendall(b"PROXY UNKNOWN\r\n" + GET)
            assert status_of(client.read_response()[0]) == 200


@pytest.mark.parametrize("size", [537, 1024, 4096, 16_384])
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_a_header_with_what_balancers_add(announced, size, pieces):
    """TLVs: a name, an id, a certificate. They are skipped."""
    at, behind = announced
    whole = v2(rest=V4 + tlvs(size - 28)) + GET
    with at.connect() as client:
        step = -(-len(whole) // pieces)
        for start in range(0, len(whole), step):
            client.sendall(whole[start : start + step])
        assert status_of(client.read_response()[0]) == 200
    assert forwarded_for(behind) == b"192.0.2.1"


REFUSED = {
    "is larger than head_bytes_max": v2(rest=V4 + tlvs(20_000)),
    "is malformed": b"PROXY TCP4 1.2.3.4\r\n",
}


@pytest.mark.parametrize(("why", "header"), REFUSED.items())
def test_a_header_that_is_refused_leaves_a_word(announced, why, header, caplog):
    at, behind = announced
    with at.connect() as client:
        client.sendall(header + GET)
        assert client.read_all() == b""
    assert behind.connections == []
    wait_until(lambda: said(caplog), "it is said", BOUND_S)
    assert said(caplog) == [f"a connection from 127.0.0.1 was closed: its PROXY header {why} (1 so far)"]
    assert at.stats["proxy_headers_refused"] == 1


def said(caplog):
    return [record.getMessage() for record in caplog.records if "PROXY" in record.getMessage()]


def test_many_that_are_refused_are_one_word(announced, caplog):
    at, _ = announced
    for _ in range(20):
        with at.connect() as client:
            client.sendall(b"x" * 50)
            client.read_all()
    wait_until(lambda: said(caplog), "it is said", BOUND_S)
    assert at.stats["proxy_headers_refused"] == 20
    assert len(said(caplog)) == 1


@pytest.mark.parametrize(
    "start", [GET, b"PROXY TCP4 1.2.3.4\r\n" + GET, b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0" + GET, b"P", b""]
)
def test_without_a_header_nothing_is_served(hasty, start):
    at, behind = hasty
    with at.connect() as client:
        client.sendall(start)
        assert b" 200 " not in client.read_all()
    assert behind.connections == []


def test_after_the_header_a_client_may_take_its_time(hasty):
    """As long as any idle connection; what must come soon is a request that has begun."""
    at, _ = hasty
    with at.connect() as client:
        client.sendall(b"PROXY UNKNOWN\r\n")
        client.settimeout(HASTY["request_head_s"] + 0.5)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(BOUND_S)
        client.sendall(GET)
        assert status_of(client.read_response()[0]) == 200


def test_a_stranger_announces_nobody(gateway, origin, caplog):
    behind = origin()
    at = gateway(behind, gateway={"trusted_proxies": ["10.0.0.0/8"], "proxy_protocol": True})
    with at.connect() as client:
        client.sendall(b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n" + GET)
        assert client.read_all() == b""
    assert behind.connections == []
    assert at.stats["proxy_headers_refused"] == 1
    wait_until(lambda: said(caplog), "it is said", BOUND_S)
    assert said(caplog) == [
        "a connection from 127.0.0.1 was closed: it is not of trusted_proxies, whose PROXY header counts (1 so far)"
    ]


def test_an_announced_proxy_of_ours_is_believed_in_turn(announced):
    at, behind = announced
    at.ask(b"PROXY TCP4 10.0.0.7 10.0.0.1 5000 80\r\n" + get("X-Forwarded-For: 9.9.9.9"))
    assert forwarded_for(behind) == b"9.9.9.9, 10.0.0.7"
    at.ask(b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n" + get("X-Forwarded-For: 9.9.9.9"))
    assert forwarded_for(behind) == b"192.0.2.1"


def test_connections_are_counted_by_the_client_that_is_announced(gateway, origin):
    at = gateway(origin(), gateway={**TRUSTED, "proxy_protocol": True}, limits={"connections_per_client_max": 1})
    header = b"PROXY TCP4 192.0.2.%d 10.0.0.1 5000 80\r\n"
    with at.connect() as one, at.connect() as other, at.connect() as again:
        for client, number in ((one, 1), (other, 2)):
            client.sendall(header % number + GET)
            assert status_of(client.read_response()[0]) == 200
        again.sendall(header % 1 + GET)
        assert again.read_all() == b""


def test_a_proxy_header_needs_somebody_to_be_believed(gateway, origin):
    with pytest.raises(Exception, match="proxy_protocol: is believed of trusted_proxies only"):
        gateway(origin(), gateway={"proxy_protocol": True})


# --- request ids


def request_ids(behind):
    return [fields_of(head).get(b"x-request-id") for head, _ in behind.requests]


def test_every_request_gets_an_id_of_its_own(gateway, origin):
    behind = origin()
    at = gateway(behind, gateway={"request_id_header": "X-Request-Id"})
    with at.connect() as client:
        client.sendall(get("X-Request-Id: forged") * 50)
        for _ in range(50):
            client.read_response()
    found = request_ids(behind)
    assert len(set(found)) == 50
    assert all(re.fullmatch(rb"[0-9a-f]{32}", each) for each in found)


def test_a_proxy_of_ours_may_give_the_id(gateway, origin):
    behind = origin()
    at = gateway(behind, gateway={**TRUSTED, "request_id_header": "X-Request-Id"})
    at.ask(get("X-Request-Id: abc-1"))
    at.ask(get("X-Request-Id: " + "x" * 300))
    assert request_ids(behind)[0] == b"abc-1"
    assert len(request_ids(behind)[1]) == 32


def test_by_default_it_and_traceparent_pass_as_they_are(gateway, origin):
    behind = origin()
    trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    gateway(behind).ask(get("X-Request-Id: mine", trace))
    assert request_ids(behind) == [b"mine"]
    assert trace.encode() in behind.requests[0][0]


# --- sockets


def test_an_inherited_socket(gateway, origin):
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        address = inherited.getsockname()
        gateway(origin(answer=OK), listen=f"fd:{inherited.fileno()}")
        with Client(address) as client:
            client.sendall(GET)
            assert client.read_response()[1] == b"ok"
