"""A request of HTTP/1.0 without Host is routed, logged, answered and forwarded as if it had said
`Host: localhost`.

It must be one name for all of these: what the gateway has judged as one host must not be another
one to the service.
"""

import json

import pytest
from conftest import fields_of, status_of
from lab.attack_corpus import NO_HOST
from lab.redis_servers import wait_until

CHECK = b"OPTIONS / HTTP/1.0\r\n\r\n"  # HAProxy's, if it is not told another


def arrived(behind):
    head, _ = behind.requests[-1]
    return head.split(b"\r\n")[0], fields_of(head)


def test_what_the_service_gets(gateway, origin):
    behind = origin()
    head, body = gateway(behind, gateway={"forwarded": True}).ask(CHECK)
    assert (status_of(head), body) == (200, b"ok")
    line, fields = arrived(behind)
    assert line == b"OPTIONS / HTTP/1.1"
    assert fields[b"host"] == fields[b"x-forwarded-host"] == NO_HOST.encode()
    assert fields[b"forwarded"] == b'for=127.0.0.1;host="localhost";proto=http'
    assert behind.requests[-1][0].lower().count(b"\r\nhost:") == 1


ROUTES = [
    {"path": "/", "host": NO_HOST, "auth": "none", "response_headers": {"X-Route": "by its name"}},
    {"path": "/", "host": "shop.example", "auth": "none", "response_headers": {"X-Route": "the shop's"}},
    {"path": "/", "host": "*.example", "auth": "none", "response_headers": {"X-Route": "a wildcard's"}},
    {"path": "/", "auth": "required"},
]


@pytest.mark.parametrize(("routes", "status"), [(ROUTES, 200), (ROUTES[1:], 401), (ROUTES[1:3], 404)])
def test_which_route_it_takes(gateway, origin, routes, status):
    """The one that the service's reading of it would take."""
    behind = origin()
    head, _ = gateway(behind, routes=routes).ask(CHECK)
    assert status_of(head) == status
    assert len(behind.requests) == (status == 200)
    assert (b"x-route" in fields_of(head)) == (status == 200)


def test_what_stands_in_the_log(gateway, origin, tmp_path):
    gateway(origin(), gateway={"access_log": "access.log", "access_log_format": "json"}).ask(CHECK)
    wait_until((tmp_path / "access.log").read_text, "a line")
    line = json.loads((tmp_path / "access.log").read_text())
    assert (line["host"], line["path"], line["method"]) == (NO_HOST, "/", "OPTIONS")


def test_a_login_has_a_cookie_for_the_host_alone(gateway, origin):
    behind = origin(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Ticket-Login: alice\r\n\r\n")
    at = gateway(behind, routes=[{"path": "/", "auth": "none", "login": True}], ticket={"cookie_domain_level": 2})
    head, _ = at.ask(b"POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
    assert b"Domain" not in fields_of(head)[b"set-cookie"]


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "GET http://a/ HTTP/1.1", "OPTIONS * HTTP/1.1"])
def test_http_1_1_needs_one(gateway, origin, line):
    """RFC 9112, 3.2."""
    behind = origin()
    assert status_of(gateway(behind).ask(f"{line}\r\n\r\n".encode())[0]) == 400
    assert behind.connections == []


def test_an_absolute_target_names_it(gateway, origin):
    behind = origin()
    gateway(behind).ask(b"GET http://shop:81/x HTTP/1.0\r\n\r\n")
    line, fields = arrived(behind)
    assert (line, fields[b"host"], fields[b"x-forwarded-host"]) == (b"GET /x HTTP/1.1", b"shop:81", b"shop:81")


@pytest.mark.parametrize("sent", ["OPTIONS http://h HTTP/1.1", "OPTIONS * HTTP/1.1"])
def test_options_of_everything_are_routed_like_the_root(gateway, origin, sent):
    """`*` and an absolute target that means it are one thing, to an exemption, too."""
    behind = origin()
    at = gateway(behind, routes=[{"path": "/", "exempt": r"/|/public"}])
    assert status_of(at.ask(f"{sent}\r\nHost: h\r\n\r\n".encode())[0]) == 401
    ticket = at.login()
    assert status_of(at.ask(f"{sent}\r\nHost: h\r\nCookie: ticket={ticket}\r\n\r\n".encode())[0]) == 200
    line, fields = arrived(behind)
    assert (line, fields[b"host"]) == (b"OPTIONS * HTTP/1.1", b"h")
