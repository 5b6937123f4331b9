"""What a route decides: host and path, strong consistency, exemption by regular expression, fields that are added, timeouts."""

import re
import threading

import pytest
from conftest import BOUND_S, OK, fields_of, read_body, status_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fastticket.core.routes import Routes, in_order


def get(path="/", *fields, host="a", ticket=None):
    cookie = [f"Cookie: ticket={ticket}"] if ticket else []
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *fields, *cookie, "", ""]).encode("latin-1")


def named(origin, name):
    """An origin that says who it is."""
    return origin(answer=b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name))


# --- host and path


@pytest.fixture
def by_host(gateway, origin):
    names = ("any", "shop", "shop-api", "wild", "v6")
    return gateway(
        routes=[
            {"path": "/", "auth": "none", "upstream": "any"},
            {"path": "/", "host": "shop.example", "auth": "none", "upstream": "shop"},
            {"path": "/api", "host": "shop.example", "auth": "none", "upstream": "shop-api"},
            {"path": "/", "host": "*.shop.example", "auth": "none", "upstream": "wild"},
            {"path": "/longer/than/the/others", "auth": "none", "upstream": "any"},
            {"path": "/", "host": "[::1]", "auth": "none", "upstream": "v6"},
        ],
        upstream=[{"name": name, "servers": [named(origin, name.encode()).address]} for name in names],
    )


@pytest.mark.parametrize(
    ("host", "path", "upstream"),
    [
        ("other", "/", b"any"),
        ("shop.example", "/", b"shop"),
        ("SHOP.example", "/", b"shop"),
        ("shop.example.", "/", b"shop"),
        ("shop.example:8080", "/api", b"shop-api"),
        ("shop.example.:8080", "/api/x", b"shop-api"),
        ("shop.example", "/apis", b"shop"),
        ("shop.example", "/longer/than/the/others", b"shop"),
        ("a.shop.example", "/api", b"wild"),
        ("a.b.shop.example", "/", b"wild"),
        ("xshop.example", "/", b"any"),
        (".shop.example", "/", b"any"),
        ("shop.example.org", "/", b"any"),
        ("[::1]", "/", b"v6"),
        ("[::1]:80", "/", b"v6"),
        ("[::2]", "/", b"any"),
    ],
)
def test_the_host_goes_before_the_path(by_host, host, path, upstream):
    assert by_host.ask(get(path, host=host))[1] == upstream


def test_an_absolute_target_s_host_counts(by_host):
    assert by_host.ask(get("http://shop.example/api", host="other"))[1] == b"shop-api"


def test_without_a_route_it_is_404(gateway, origin):
    at = gateway(origin(), routes=[{"path": "/", "host": "a", "auth": "none"}])
    assert status_of(at.ask(get(host="a"))[0]) == 200
    assert status_of(at.ask(get(host="b"))[0]) == 404


def test_routes_out_of_order_are_an_error():
    routes = Routes()
    routes.add("/a", "none")
    with pytest.raises(ValueError, match="goes before"):
        routes.add("/a/b", "none")


class Place:
    def __init__(self, host, path):
        self.host, self.path = host, path


@given(st.lists(st.tuples(st.sampled_from(["", "a", "*.a", "b.a", "*.b.a"]), st.sampled_from(["/", "/x", "/x/y"]))))
def test_whatever_the_order_in_the_file(places):
    routes = Routes()
    for place in in_order([Place(*place) for place in set(places)]):
        routes.add(place.path, "none", host=place.host)


# --- strong consistency


def test_a_strong_route_sees_a_revocation_that_no_news_has_come_of(gateway, origin):
    """Another gateway revokes; this one has heard nothing yet, and admits where the near cache will do."""
    store = {"flush_interval_ms": 60_000, "lease_ms": 200_000}
    at = gateway(origin(), routes=[{"path": "/pay", "consistency": "strong"}, {"path": "/"}], store=store)
    ticket = at.login()
    for path in ("/", "/pay"):
        assert status_of(at.ask(get(path, ticket=ticket))[0]) == 200
    at.cache._store.on_doorbell(lambda *_: None)
    session = at.run(at.cache.sessions("alice"))[0]
    at.run(at.cache._store.revoke(session.id, "alice"))
    assert status_of(at.ask(get("/", ticket=ticket))[0]) == 200
    head, body = at.ask(get("/pay", ticket=ticket))
    assert status_of(head) == 401
    assert b"revoked" in body
    assert status_of(at.ask(get("/", ticket=ticket))[0]) == 401  # now it has heard


def test_a_strong_route_asks_each_time(gateway, origin):
    at = gateway(origin(), routes=[{"path": "/pay", "consistency": "strong"}, {"path": "/"}])
    ticket = at.login()
    for _ in range(3):
        assert status_of(at.ask(get("/pay", ticket=ticket))[0]) == 200
    assert at.cache.stats["loads"] == 3
    for _ in range(3):
        at.ask(get("/", ticket=ticket))
    assert at.cache.stats["loads"] == 3


def test_a_strong_route_refuses_a_forgery_without_asking(gateway, origin):
    at = gateway(origin(), routes=[{"path": "/", "consistency": "strong"}])
    assert status_of(at.ask(get(ticket="A" * 100))[0]) == 401
    assert at.cache.stats["loads"] == 0


# --- exemption


@pytest.fixture
def exempting(gateway, origin):
    behind = origin()
    at = gateway(behind, routes=[{"path": "/", "exempt": r"/public/.*|/files/[0-9]+\.png"}])
    return at, behind


@pytest.mark.parametrize("path", ["/public/x", "/public/", "/files/12.png", "/%70ublic/x", "/public/a%20b"])
def test_an_exempt_path_needs_no_ticket(exempting, path):
    at, behind = exempting
    assert status_of(at.ask(get(path, "X-Forwarded-User: root"))[0]) == 200
    assert b"x-forwarded-user" not in fields_of(behind.requests[0][0])


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/public", "/files/12.png/x", "/files/x.png", "/x/public/x"),
        *(
            "/public/../private",
            "/public/%2e%2e/private",
            "/public//x",
            "/public/x;y",
            "/public\\..\\x",
            "/public/%2fx",
        ),
    ],
)
def test_any_other_does_and_so_does_one_that_could_be_read_in_two_ways(exempting, path):
    at, behind = exempting
    assert status_of(at.ask(get(path))[0]) == 401
    assert behind.requests == []


@pytest.mark.parametrize("path", ["/public/../private", "/public//x", "/public/%2fx"])
def test_an_expression_that_matches_everything_still_exempts_no_path_of_two_readings(gateway, origin, path):
    at = gateway(origin(), routes=[{"path": "/", "exempt": ".*"}])
    assert status_of(at.ask(get("/public/x"))[0]) == 200
    assert status_of(at.ask(get(path))[0]) == 401


@pytest.mark.parametrize(
    "path", ["/x/%C3%A9", "/public/a;v=1", "/public/x%3F/public", "/100%25", "/public/%E6%96%87.png"]
)
def test_an_expression_is_not_asked_about_an_odd_path(gateway, origin, path):
    """It may end anywhere in a path, so that what readers leave out could be what it looks for."""
    at = gateway(origin(), routes=[{"path": "/", "exempt": ".*"}])
    assert status_of(at.ask(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())[0]) == 401


def test_who_has_a_ticket_is_named_on_an_exempt_path(exempting):
    at, behind = exempting
    assert status_of(at.ask(get("/public/x", ticket=at.login("alice")))[0]) == 200
    assert fields_of(behind.requests[0][0])[b"x-forwarded-user"] == b"alice"


def test_a_bad_ticket_is_none_on_an_exempt_path(exempting):
    at, behind = exempting
    ticket = at.login()
    at.run(at.cache.logout(ticket))
    assert status_of(at.ask(get("/public/x", ticket=ticket))[0]) == 200
    assert status_of(at.ask(get("/private", ticket=ticket))[0]) == 401
    assert [b"x-forwarded-user" in fields_of(head) for head, _ in behind.requests] == [False]


def test_two_tickets_are_refused_on_an_exempt_path(exempting):
    at, _ = exempting
    ticket = at.login()
    assert status_of(at.ask(get("/public/x", f"Cookie: ticket={ticket}", ticket=ticket))[0]) == 400


def test_requests_that_wait_for_an_exemption_keep_their_order(exempting):
    at, behind = exempting
    with at.connect() as client:
        client.sendall(get("/public/1") + get("/private") + get("/public/2"))
        assert [status_of(client.read_response()[0]) for _ in range(3)] == [200, 401, 200]
    assert [head.split()[1] for head, _ in behind.requests] == [b"/public/1", b"/public/2"]


# --- fields


def test_a_route_adds_fields_and_nobody_else_sets_them(gateway, origin):
    behind = origin(
        answer=b"HTTP/1.1 200 OK\r\nstrict_transport-Security: no\r\nServer: x\r\nContent-Length: 0\r\n\r\n"
    )
    at = gateway(
        behind,
        routes=[
            {
                "path": "/shop",
                "auth": "none",
                "request_headers": {"X-Tenant": "shop: 7", "X-Other": ""},
                "response_headers": {"Strict-Transport-Security": "max-age=60"},
            },
            {"path": "/", "auth": "none"},
        ],
    )
    head, _ = at.ask(get("/shop", "X-Tenant: evil", "x_tenant: evil", "X-Tenants: kept"))
    assert head == (
        b"HTTP/1.1 200 OK\r\nServer: x\r\nStrict-Transport-Security: max-age=60\r\nContent-Length: 0\r\n\r\n"
    )
    seen = behind.requests[0][0]
    assert b"X-Tenant: shop: 7\r\nX-Other: \r\n" in seen
    assert b"X-Tenants: kept" in seen
    assert b"evil" not in seen
    head, _ = at.ask(get("/", "X-Tenant: mine"))
    assert b"strict_transport-Security: no" in head
    assert b"X-Tenant: mine" in behind.requests[1][0]


# --- timeouts


def test_a_route_may_wait_longer_than_the_others(gateway, origin):
    """Both are asked at once; the short one's end lets the long one's answer go."""
    ended = threading.Event()

    def serve(connection):
        path = connection.read_head().split()[1]
        assert ended.wait(BOUND_S)
        if path == b"/slow":
            connection.sendall(OK)

    at = gateway(
        origin(serve),
        routes=[
            {"path": "/slow", "auth": "none", "timeouts": {"upstream_first_byte_s": 60}},
            {"path": "/", "auth": "none"},
        ],
        timeouts={"upstream_first_byte_s": 0.2},
    )
    with at.connect() as slow, at.connect() as fast:
        slow.sendall(get("/slow"))
        fast.sendall(get("/"))
        assert status_of(fast.read_head()) == 504
        ended.set()
        head = slow.read_head()
        assert status_of(head) == 200
        assert read_body(head, slow) == b"ok"


@settings(max_examples=30)
@given(st.lists(st.sampled_from([0.5, 1, 2, 3.5]), min_size=1, max_size=20))
def test_routes_with_the_same_timeouts_share_them(lengths):
    from test_gateway_limits import bare_proxy

    proxy = bare_proxy()
    numbers = [proxy.add_waits({"upstream_first_byte": length}) for length in lengths]
    assert numbers == list(range(1, len(lengths) + 1))
    with pytest.raises(ValueError, match="keep_alive"):
        proxy.add_waits({"keep_alive": 1})


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ({"host": "Shop"}, "host: must be a name in lower case"),
        ({"host": "shop:80"}, "host: must be a name"),
        ({"exempt": "("}, "exempt: not a regular expression"),
        (
            {"exempt": r"/(a)\1"},
            "exempt: not a regular expression of RE2 (no look-around, no back-references): invalid",
        ),
        ({"exempt": "/(?!a)b"}, "exempt: not a regular expression of RE2"),
        ({"exempt": "/x", "auth": "none"}, "exempt: is for auth"),
        ({"consistency": "weak"}, "consistency: must be one of near, strong"),
        ({"request_headers": {"Host": "x"}}, "request_headers: 'Host' is not a field name, or one that has a meaning"),
        ({"request_headers": {"x-forwarded-user": "x"}}, "'x-forwarded-user' is not"),
        ({"request_headers": {"X": "a\r\nb"}}, "request_headers X: must be at most 1000 printable"),
        ({"response_headers": {"X": 1}}, "response_headers: must be a table of strings"),
        ({"timeouts": {"upstream_first_bite_s": 1}}, "timeouts upstream_first_bite_s: no such key; did you mean"),
        ({"timeouts": {"keep_alive_s": 1}}, "timeouts keep_alive_s: no such key"),
    ],
)
def test_what_a_route_can_not_have(gateway, origin, route, said):
    with pytest.raises(Exception, match=re.escape(said)):
        gateway(origin(), routes=[{"path": "/", **route}])
