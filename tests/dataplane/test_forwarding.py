"""Heads written anew, without a socket: a raw request or response in, what goes on out."""

import ipaddress

import pytest

from fastticket.dataplane.clients import Networks
from fastticket.dataplane.forwarding import Forwarding

TICKET = "AbC-_09"
OURS = Networks([ipaddress.ip_network("10.0.0.0/8")])


def made(**options):
    return Forwarding(None, **options)


def request(*fields, target="/x", version="1.1", body=""):
    return "\r\n".join((f"GET {target} HTTP/{version}", *fields, "", body)).encode()


def lines_of(raw):
    """The request line and the fields, without the X-Forwarded-* that are always there."""
    lines = raw.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
    return [line for line in lines if not line.startswith(("X-Forwarded-Proto", "X-Forwarded-Host"))]


def values_of(raw, name):
    lines = raw.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")[1:]
    return [line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name.lower()}:")]


FORWARDED = [
    ("as it came", ["Host: a", "Accept: */*", "X-Odd: 1"], ["Accept: */*", "X-Odd: 1"]),
    ("space around a value", ["Host: a", "X-Odd:  1 "], ["X-Odd: 1"]),
    ("no hop-by-hop", ["Host: a", "Connection: x-hop", "X-Hop: 1", "Keep-Alive: 5", "TE: x"], []),
    ("no framing of the client's", ["Host: a", "Content-Length: 0"], ["Content-Length: 0"]),
    ("no identity", ["Host: a", "X-Forwarded-User: root", "X-Other: 1"], ["X-Other: 1"]),
    ("no identity in another spelling", ["Host: a", "x_forwarded_user: root"], []),
    ("no ticket", ["Host: a", f"Cookie: ticket={TICKET}"], []),
    ("no ticket beside others", ["Host: a", f"Cookie: a=1; ticket={TICKET}; b=2"], ["Cookie: a=1; b=2"]),
    ("no ticket of several", ["Host: a", f"Cookie: ticket={TICKET}; a=1; ticket=x"], ["Cookie: a=1"]),
    ("no ticket in Authorization", ["Host: a", f"Authorization: Ticket {TICKET}"], []),
    ("another Authorization", ["Host: a", "Authorization: Basic eA=="], ["Authorization: Basic eA=="]),
    ("no field of an application's", ["Host: a", "X-Ticket-Login: root"], []),
    ("no expectation", ["Host: a", "Expect: 100-continue", "Content-Length: 0"], ["Content-Length: 0"]),
]


@pytest.mark.parametrize("is_searched", [True, False], ids=["searched", "not searched"])
@pytest.mark.parametrize(("fields", "wanted"), [row[1:] for row in FORWARDED], ids=[row[0] for row in FORWARDED])
def test_what_goes_on_of_a_request(fields, wanted, is_searched):
    raw = made().forward_request(request(*fields), is_searched=is_searched)
    assert lines_of(raw) == ["GET /x HTTP/1.1", "Host: a", *wanted]


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("/x?y", "GET /x?y HTTP/1.1"),
        ("http://a/x", "GET /x HTTP/1.1"),
        ("http://a", "GET / HTTP/1.1"),
        ("http://a?q", "GET /?q HTTP/1.1"),
    ],
)
def test_the_target_goes_on_in_origin_form(target, line):
    assert lines_of(made().forward_request(request("Host: a", target=target)))[0] == line


@pytest.mark.parametrize("principal", [None, "alice", "Grüße", "a%b~c"])
@pytest.mark.parametrize("sent", [[], ["X-Forwarded-User: root"], ["X-FORWARDED-USER: root", "x-forwarded_user: root"]])
def test_p10_the_identity_is_the_ticket_s_alone(principal, sent):
    raw = made().forward_request(request("Host: a", *sent), principal=principal)
    assert values_of(raw, "X-Forwarded-User") == ([] if principal is None else [principal.encode().decode("latin-1")])


@pytest.mark.parametrize(
    ("principal", "written"),
    [("alice", "alice"), ("a b/c", "a%20b%2Fc"), ("é~%", "%C3%A9~%25"), ("a-b_c.d", "a-b_c.d")],
)
def test_an_identity_in_percent_encoding(principal, written):
    raw = made(escapes_identity=True).forward_request(request("Host: a"), principal=principal)
    assert values_of(raw, "X-Forwarded-User") == [written]


CLIENTS = [
    # peer, whether it is trusted, X-Forwarded-For that came, that goes on
    ("192.0.2.7", False, [], ["192.0.2.7"]),
    ("192.0.2.7", False, ["10.9.9.9"], ["192.0.2.7"]),
    ("10.0.0.1", True, ["192.0.2.7"], ["192.0.2.7, 10.0.0.1"]),
    ("10.0.0.1", True, ["6.6.6.6, 192.0.2.7"], ["192.0.2.7, 10.0.0.1"]),
    ("10.0.0.1", True, ["192.0.2.7, 10.0.0.2"], ["192.0.2.7, 10.0.0.2, 10.0.0.1"]),
    ("10.0.0.1", True, ["6.6.6.6", "192.0.2.7 , 10.0.0.2"], ["192.0.2.7 , 10.0.0.2, 10.0.0.1"]),
    ("10.0.0.1", True, ["nobody"], ["10.0.0.1"]),
    ("10.0.0.1", True, [], ["10.0.0.1"]),
    ("2001:db8::7", False, [], ["2001:db8::7"]),
    ("", False, [], []),
    ("", True, ["192.0.2.7"], ["192.0.2.7"]),
]


@pytest.mark.parametrize(("peer", "is_trusted", "came", "goes"), CLIENTS)
def test_p10_the_client_is_named_by_whom_we_trust(peer, is_trusted, came, goes):
    forwarding = made(trusted=OURS)
    fields = [f"X-Forwarded-For: {value}" for value in came]
    raw = forwarding.forward_request(request("Host: a", *fields), peer=peer, is_trusted=is_trusted)
    assert values_of(raw, "X-Forwarded-For") == goes


@pytest.mark.parametrize("is_trusted", [True, False])
def test_p10_scheme_and_host_are_believed_of_a_trusted_peer_alone(is_trusted):
    fields = ("Host: a", "X-Forwarded-Proto: https", "X-Forwarded-Host: b", "X-Real-Ip: 1.2.3.4")
    raw = made(trusted=OURS).forward_request(
        request(*fields), peer="10.0.0.1" if is_trusted else "192.0.2.7", is_trusted=is_trusted
    )
    assert values_of(raw, "X-Forwarded-Proto") == ["https" if is_trusted else "http"]
    assert values_of(raw, "X-Forwarded-Host") == ["b" if is_trusted else "a"]


@pytest.mark.parametrize(
    ("peer", "written"),
    [
        ("192.0.2.7", 'for=192.0.2.7;host="a";proto=http'),
        ("2001:db8::7", 'for="[2001:db8::7]";host="a";proto=http'),
        ("", 'for=unknown;host="a";proto=http'),
    ],
)
def test_forwarded_is_one_element_of_ours(peer, written):
    raw = made(writes_forwarded=True).forward_request(request("Host: a", "Forwarded: for=root"), peer=peer)
    assert values_of(raw, "Forwarded") == [written]


@pytest.mark.parametrize("is_trusted", [True, False])
def test_p10_a_request_id_is_believed_of_a_trusted_peer_alone(is_trusted):
    forwarding = made(request_id_field="X-Request-Id", trusted=OURS)
    raw = forwarding.forward_request(request("Host: a", "X-Request-Id: given"), peer="10.0.0.1", is_trusted=is_trusted)
    (name,) = values_of(raw, "X-Request-Id")
    assert name == "given" if is_trusted else len(name) == 32


def test_a_route_s_fields_take_the_place_of_the_client_s():
    raw = made().forward_request(request("Host: a", "X-Added: client"), request_fields=b"X-Added: route\r\n")
    assert values_of(raw, "X-Added") == ["route"]


def test_an_upgrade_that_is_ours_goes_on():
    fields = ("Host: a", "Connection: upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
    raw = made().forward_request(request(*fields, "Sec-WebSocket-Version: 13"))
    assert (values_of(raw, "Upgrade"), values_of(raw, "Connection")) == (["websocket"], ["Upgrade"])
    assert values_of(made(upgrades=()).forward_request(request(*fields)), "Upgrade") == []


@pytest.mark.parametrize("raw", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"])
def test_a_request_that_cannot_be_read_is_not_forwarded(raw):
    with pytest.raises(ValueError, match="no request head"):
        made().forward_request(raw)


def response(*fields, status="200 OK", body=""):
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "", body)).encode()


RETURNED = [
    ("as it came", ["Content-Length: 0", "ETag: x"], ["ETag: x", "Content-Length: 0"], 0),
    (
        "no hop-by-hop",
        ["Content-Length: 0", "Connection: x-a", "X-A: 1", "Keep-Alive: timeout=5"],
        ["Content-Length: 0"],
        0,
    ),
    (
        "no word to the gateway",
        ["Content-Length: 0", "X-Ticket-Login: bob", "X-Ticket-Logout: session"],
        ["Content-Length: 0"],
        0,
    ),
    ("no ticket of its own", ["Content-Length: 0", "Set-Cookie: ticket=x"], ["Content-Length: 0"], 1),
    ("another cookie", ["Content-Length: 0", "Set-Cookie: a=x"], ["Set-Cookie: a=x", "Content-Length: 0"], 0),
]


@pytest.mark.parametrize(
    ("fields", "wanted", "dropped"), [row[1:] for row in RETURNED], ids=[row[0] for row in RETURNED]
)
def test_what_goes_back_of_a_response(fields, wanted, dropped):
    raw, count = made().forward_response(response(*fields))
    assert raw.decode().split("\r\n")[1:-2] == wanted
    assert count == dropped


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        ({"logs_in": True}, 0),
        ({"logs_in": True, "is_plain": False}, 1),
        ({"logs_in": True, "fields": b"Set-Cookie: ticket=ours\r\n"}, 1),
        ({}, 1),
    ],
)
def test_a_ticket_s_cookie_comes_from_a_route_that_logs_in(options, dropped):
    raw, count = made().forward_response(response("Content-Length: 0", "Set-Cookie: ticket=x"), **options)
    assert count == dropped
    assert values_of(raw, "Set-Cookie").count("ticket=x") == 1 - dropped


@pytest.mark.parametrize(
    ("closes", "minor", "connection"), [(False, 1, []), (True, 1, ["close"]), (False, 0, ["keep-alive"])]
)
def test_a_response_says_whether_the_connection_stays(closes, minor, connection):
    raw, _ = made().forward_response(response("Content-Length: 0", "Connection: close"), closes=closes, minor=minor)
    assert values_of(raw, "Connection") == connection
