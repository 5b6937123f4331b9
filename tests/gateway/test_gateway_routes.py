"""Routes: host and path, strong consistency, exemption by regular expression, fields
that are added, timeouts.
"""

import itertools
import re
import threading
from dataclasses import dataclass

import pytest
from conftest import BOUND_S, OK, fields_of, read_body, status_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fastticket.dataplane.routes import Routes, in_order
from fastticket.gateway.routing import route_of


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


@dataclass(frozen=True)
class Place:
    host: str
    path: str
    methods: tuple[str, ...] = ()
    first: bool = False


HOSTS = ("", "a", "*.a", "b.a", "*.b.a")
PATHS = ("/", "/x", "/x/y")
METHODS = ((), ("GET",), ("OPTIONS", "PROPFIND"), ("POST",))
PLACES = st.builds(
    Place, st.sampled_from(HOSTS), st.sampled_from(PATHS), st.sampled_from(METHODS), st.booleans()
).filter(lambda place: not (place.first and place.host))


@given(st.lists(PLACES, unique=True))
def test_whatever_the_order_in_the_file(places):
    routes = Routes()
    for place in in_order(places):
        routes.add(place.path, "none", host=place.host, methods=place.methods, first=place.first)


def wanted(places, host, path, method):
    """The slow, obvious twin: of those that a request falls under, the one that goes before all
    others; None: there is none.
    """

    def is_covered(place):
        of_host = place.host in ("", host) or (place.host.startswith("*") and host.endswith(place.host[1:]))
        below = path == place.path or path.startswith(place.path if place.path.endswith("/") else place.path + "/")
        asked = "GET" if method == "HEAD" and "HEAD" not in place.methods else method
        return of_host and below and (not place.methods or asked in place.methods)

    def precedence(place):
        nearness = 0 if place.first else 1 if place.host and not place.host.startswith("*") else 2 if place.host else 3
        return nearness, -len(place.host), -len(place.path), not place.methods

    return min(filter(is_covered, places), key=precedence, default=None)


TABLE = [
    Place("", "/"),
    Place("", "/x", ("OPTIONS", "PROPFIND")),
    Place("", "/x", ("GET",)),
    Place("", "/first", first=True),
    Place("", "/x/y", ("POST",), first=True),
    Place("", "/", ("OPTIONS",), first=True),
    Place("a", "/"),
    Place("a", "/x"),
    Place("a", "/x", ("POST", "PUT")),
    Place("a", "/x/y", ("GET",)),
    Place("*.a", "/x", ("HEAD",)),
    Place("*.a", "/x"),
    Place("b.a", "/x/y", ("DELETE",)),
    Place("only", "/x"),
]


@pytest.mark.parametrize("has_others", [True, False], ids=["all", "without a last resort"])
def test_every_request_finds_the_route_that_its_twin_finds(gateway, origin, has_others):
    places = TABLE if has_others else [place for place in TABLE if place.host]
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    at = gateway(
        origin(answer=answer),
        routes=[
            {
                "path": place.path,
                "host": place.host,
                "methods": list(place.methods),
                "first": place.first,
                "auth": "none",
                "response_headers": {"X-Route": str(number)},
            }
            for number, place in enumerate(places)
        ],
    )
    hosts = ("a", "b.a", "c.b.a", "other", "only")
    paths = ("/", "/x", "/x/", "/x/y", "/x/y/z", "/xy", "/first", "/first/x", "/firsts")
    methods = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "get")
    seen = set()
    with at.connect() as client:
        for host, path, method in itertools.product(hosts, paths, methods):
            client.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode())
            head, _ = client.read_response(to_head=method == "HEAD")
            found = places[int(fields_of(head)[b"x-route"])] if status_of(head) == 200 else None
            assert found == wanted(places, host, path, method), (host, path, method)
            route = route_of(at.config, host, path, method)
            assert (route and Place(route.host, route.path, tuple(route.methods), route.first)) == found
            seen.add(found)
    assert seen - {None} == set(places)


# --- methods


def request(method, path="/", *fields, host="a"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", "Content-Length: 0", *fields, "", ""]).encode()


PREFLIGHT = ("Origin: https://elsewhere", "Access-Control-Request-Method: PUT")


def test_a_preflight_needs_no_ticket_and_nothing_else_gets_by_as_one(gateway, origin):
    """A browser sends no cookie with it, and an application answers for itself whom it lets in from
    where.
    """
    behind = origin()
    at = gateway(behind, routes=[{"path": "/api", "methods": ["OPTIONS"], "auth": "none"}, {"path": "/"}])
    assert status_of(at.ask(request("OPTIONS", "/api/x", *PREFLIGHT))[0]) == 200
    for method, path in (
        ("GET", "/api/x"),
        ("OPTIONS", "/other"),
        ("options", "/api"),
        ("OPTIONSX", "/api"),
        ("OPTION", "/api"),
    ):
        assert status_of(at.ask(request(method, path, *PREFLIGHT))[0]) == 401
    for path in ("/api/../other", "/api//x", "/api/%2e%2e/other"):  # another reader could take it for another route's
        assert status_of(at.ask(request("OPTIONS", path, *PREFLIGHT))[0]) == 401
    assert [head.split()[:2] for head, _ in behind.requests] == [[b"OPTIONS", b"/api/x"]]


@pytest.mark.parametrize(
    "name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "x_http_method_override"]
)
def test_what_was_judged_by_its_method_keeps_it(gateway, origin, name):
    """Some applications take another method from a field; where none has decided about a ticket,
    they may.
    """
    behind = origin()
    at = gateway(behind, routes=[{"path": "/api", "methods": ["OPTIONS"], "auth": "none"}, {"path": "/"}])
    plain = gateway(behind)
    assert status_of(at.ask(request("OPTIONS", "/api/x", f"{name}: DELETE", "X-Method: kept"))[0]) == 200
    assert status_of(plain.ask(request("POST", "/api/x", f"{name}: DELETE"))[0]) == 200
    judged, other = (head for head, _ in behind.requests)
    assert b"DELETE" not in judged
    assert b"X-Method: kept" in judged
    assert f"{name}: DELETE".encode() in other


# --- first


def test_one_login_route_serves_every_host(gateway, origin):
    """Whatever routes a host has of its own."""
    behind = origin(answer=b"HTTP/1.1 200 OK\r\nX-Ticket-Login: alice\r\nContent-Length: 0\r\n\r\n")
    hosts = [{"path": "/", "host": host} for host in ("a.example", "*.example", "b.example")]
    at = gateway(behind, routes=[{"path": "/login", "auth": "none", "login": True, "first": True}, *hosts])
    for host in ("a.example", "b.example", "c.example", "elsewhere"):
        head, _ = at.ask(request("POST", "/login", host=host))
        assert (status_of(head), b"set-cookie" in fields_of(head)) == (200, True)
    assert status_of(at.ask(request("GET", "/logins", host="a.example"))[0]) == 401


# --- strong consistency


def test_a_strong_route_sees_a_revocation_that_no_news_has_come_of(gateway, origin):
    """Another gateway revokes; this one has heard nothing yet, and admits where the near cache will
    do.
    """
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


def test_two_tickets_are_none_on_an_exempt_path(exempting):
    at, behind = exempting
    ticket = at.login()
    assert status_of(at.ask(get("/public/x", f"Cookie: ticket={ticket}", ticket=ticket))[0]) == 200
    assert status_of(at.ask(get("/private", f"Cookie: ticket={ticket}", ticket=ticket))[0]) == 400
    assert [b"x-forwarded-user" in fields_of(head) for head, _ in behind.requests] == [False]


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
        ({"methods": ["get"]}, "[[route]] / methods: 'get' is not a method in capitals"),
        ({"methods": ["TRACE"]}, "methods: 'TRACE' is not a method in capitals, or one that is never forwarded"),
        ({"methods": "GET"}, "methods: must be a list of strings"),
        ({"first": True, "host": "a"}, "first: is for routes without a host"),
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


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        (
            [{"path": "/x", "methods": ["GET"]}, {"path": "/x", "methods": ["HEAD", "POST"]}],
            "[[route]] /x: the path is there twice",
        ),
        (
            [{"path": "/x", "methods": ["GET"]}, {"path": "/x", "methods": ["GET"], "first": True}],
            "/x: the path is there twice",
        ),
        ([{"path": "/x", "first": True}, {"path": "/x"}], "/x: the path is there twice"),
        ([{"path": "/", "first": True}, {"path": "/x"}], "/x: no request falls under it: / goes first, and covers it"),
        (
            [{"path": "/x", "first": True}, {"path": "/x/y", "host": "a"}],
            "a/x/y: no request falls under it: /x goes first",
        ),
        ([{"path": "/x", "first": True}, {"path": "/x", "host": "a"}], "a/x: no request falls under it: /x goes first"),
        (
            [{"path": "/x", "first": True}, {"path": "/x", "methods": ["GET"]}],
            "/x: no request falls under it: /x goes first",
        ),
    ],
)
def test_routes_that_can_not_be_beside_each_other(gateway, origin, routes, said):
    with pytest.raises(Exception, match=re.escape(said)):
        gateway(origin(), routes=routes)


def test_routes_that_can(gateway, origin):
    routes = [
        {"path": "/x", "methods": ["GET"]},
        {"path": "/x", "methods": ["POST"]},
        {"path": "/x"},
        {"path": "/x", "methods": ["PUT"], "first": True},
        {"path": "/x", "host": "a"},
        {"path": "/x/y", "first": True},
    ]
    assert len(gateway(origin(), routes=routes).config.routes()) == 6
