"""The ticket's cookie as the gateway sets and clears it: for whom, with what, and what becomes of
who has two.
"""

import logging

import pytest
from conftest import fields_of, status_of
from test_gateway_auth import answering, put_away, verdict_of

ROUTES = [
    {"path": "/login", "auth": "none", "login": True},
    {"path": "/optional", "auth": "optional", "login": True},
    {"path": "/exempt", "exempt": "/exempt/.*"},
    {"path": "/"},
]
PLAIN = {"cookie_secure": False}
CLEARED = "ticket=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"
OF_PARENT = "ticket=; Path=/; HttpOnly; SameSite=Lax; Domain=shop.test; Max-Age=0"


def request(path, *fields, tickets=(), host="shop.test", method="GET", body=b""):
    cookie = [f"Cookie: {'; '.join(f'ticket={ticket}' for ticket in tickets)}"] if tickets else []
    length = [f"Content-Length: {len(body)}"] if method == "POST" else []
    return (
        "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, *cookie, *length, "", ""]).encode() + body
    )


def cookies_of(head):
    lines = head.decode().split("\r\n")
    return [line.partition(": ")[2] for line in lines if line.lower().startswith("set-cookie: ")]


@pytest.fixture
def start(gateway, origin):
    """`start(ticket's settings)`: a gateway; each path is answered with the fields in `lines`.
    `start.behind` has the requests.
    """
    lines = {
        "/login": b"X-Ticket-Login: alice",
        "/optional/login": b"X-Ticket-Login: alice",
        "/optional/logout": b"X-Ticket-Logout: session",
        "/optional/everywhere": b"X-Ticket-Logout: everywhere",
        "/optional/rotate": b"X-Ticket-Rotate: 1",
        "/logout": b"X-Ticket-Logout: session",
        "/rotate": b"X-Ticket-Rotate: 1",
    }

    def serve(connection):
        while True:
            head, _ = behind.request(connection)
            connection.sendall(answering(lines.get(head.split(b" ")[1].decode(), b"X-Nothing: x")))

    behind = origin(serve)

    def start(ticket=PLAIN, **tables):
        return gateway(behind, routes=ROUTES, ticket=ticket, **tables)

    start.behind = behind
    return start


# --- two tickets


def test_who_has_two_tickets_is_refused_and_loses_them(start):
    at = start()
    head, body = at.ask(request("/x", tickets=[at.login(), at.login("bob")]))
    assert verdict_of(head, body) == (400, "ambiguous")
    of_path = [line.replace("Path=/", "Path=/x") for line in (CLEARED, OF_PARENT)]
    assert cookies_of(head) == [OF_PARENT, *of_path, CLEARED]
    assert fields_of(head)[b"cache-control"] == b"no-store"
    assert start.behind.requests == []


@pytest.mark.parametrize("is_good", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
def test_neither_is_chosen_whichever_is_newer_or_better(start, is_good, is_first):
    """The good one may be the one that was planted."""
    at = start()
    old, new = at.login(), at.login("mallory")
    if not is_good:
        at.run(at.cache.logout(old))
    tickets = [old, new] if is_first else [new, old]
    assert verdict_of(*at.ask(request("/x", tickets=tickets))) == (400, "ambiguous")
    assert status_of(at.ask(request("/optional/x", tickets=tickets))[0]) == 200
    assert [b"x-forwarded-user" in fields_of(head) for head, _ in start.behind.requests] == [False]


def test_an_empty_cookie_is_none(start):
    at = start()
    assert status_of(at.ask(request("/x", tickets=["", at.login(), ""]))[0]) == 200
    assert verdict_of(*at.ask(request("/x", tickets=["", ""]))) == (401, "missing")


@pytest.mark.parametrize("path", ["/optional/x", "/exempt/x"])
def test_who_has_two_is_anonymous_where_tickets_are_optional_and_loses_them(start, path):
    at = start()
    head, body = at.ask(request(path, tickets=["a", "b"]))
    assert (status_of(head), body) == (200, b"ok")
    assert (cookies_of(head)[0], cookies_of(head)[-1]) == (OF_PARENT, CLEARED)
    assert b"x-forwarded-user" not in fields_of(start.behind.requests[0][0])


def test_the_next_request_of_the_connection_has_nothing_of_that(start):
    at = start()
    with at.connect() as client:
        client.sendall(request("/optional/x", tickets=["a", "b"]) + request("/optional/x"))
        assert [len(cookies_of(client.read_response()[0])) for _ in range(2)] == [8, 0]


def test_a_login_on_an_optional_route_ends_both_sessions_and_sets_its_cookie_last(start):
    at = start()
    tickets = [at.login(), "forged", at.login("bob")]
    head, _ = at.ask(request("/optional/login", tickets=tickets))
    *cleared, mine = cookies_of(head)
    assert all(line.endswith("; Max-Age=0") for line in cleared)
    assert {CLEARED, OF_PARENT} < set(cleared)
    ticket = mine.partition(";")[0].partition("=")[2]
    assert status_of(at.ask(request("/x", tickets=[ticket]))[0]) == 200
    assert [status_of(at.ask(request("/x", tickets=[each]))[0]) for each in tickets] == [401, 401, 401]


@pytest.mark.parametrize(("scope", "others"), [("logout", 200), ("everywhere", 401)])
def test_a_logout_says_the_truth_of_two(start, scope, others):
    at = start()
    tickets = [at.login(), "forged", at.login("bob")]
    elsewhere = [at.login(), at.login("bob")]
    head, _ = at.ask(request(f"/optional/{scope}", tickets=tickets))
    assert status_of(head) == 200
    assert cookies_of(head)[-1] == CLEARED
    assert [status_of(at.ask(request("/x", tickets=[each]))[0]) for each in tickets] == [401, 401, 401]
    assert [status_of(at.ask(request("/x", tickets=[each]))[0]) for each in elsewhere] == [others, others]


def test_a_logout_of_two_that_the_store_does_not_take_is_none(start):
    at = start()
    tickets = [at.login(), at.login("bob")]
    put_away(at)
    head, body = at.ask(request("/optional/logout", tickets=tickets))
    assert verdict_of(head, body) == (503, "store_unavailable")


def test_a_rotation_needs_one_session(start):
    at = start()
    head, _ = at.ask(request("/optional/rotate", tickets=[at.login(), at.login()]))
    assert status_of(head) == 200
    assert all(line.endswith("; Max-Age=0") for line in cookies_of(head))


def test_a_ticket_in_the_authorization_field_is_the_other_one(start):
    at = start()
    one, other = at.login(), at.login("bob")
    raw = request("/optional/logout", f"Authorization: Ticket {other}", tickets=[one])
    assert status_of(at.ask(raw)[0]) == 200
    assert [status_of(at.ask(request("/x", tickets=[each]))[0]) for each in (one, other)] == [401, 401]


def test_many_tickets_in_the_longest_host_and_path_are_one_answer(start):
    at = start()
    tickets = [at.login()] * 60
    path = "/optional" + "/x" * 1000
    head, _ = at.ask(request(path, tickets=tickets, host=".".join("a" * 50)))
    assert status_of(head) == 200
    assert len(head) < 3000
    head, _ = at.ask(request(path[9:], tickets=tickets, host=".".join("a" * 50)))
    assert status_of(head) == 400
    assert len(head) < 3000


def test_a_body_that_is_still_coming_is_no_matter(start):
    """The Host of a login and the fact of two tickets are kept until the body is over."""
    at = start()
    tickets = [at.login(), at.login("bob")]
    raw = request("/optional/logout", tickets=tickets, method="POST", body=b"x" * 300_000)
    head, _ = at.ask(raw)
    assert (status_of(head), cookies_of(head)[-1]) == (200, CLEARED)
    assert [status_of(at.ask(request("/x", tickets=[each]))[0]) for each in tickets] == [401, 401]
    head, _ = at.ask(request("/login", method="POST", body=b"x" * 300_000))
    assert cookies_of(head)[0] == OF_PARENT


# --- one


def test_a_login_a_logout_and_a_rotation_clear_what_else_there_may_be(start):
    at = start()
    for path, others in (("/login", [OF_PARENT]), ("/rotate", [OF_PARENT]), ("/logout", [OF_PARENT, CLEARED])):
        found = cookies_of(at.ask(request(path, tickets=[at.login()]))[0])
        assert found[: len(others)] == others
        assert len(found) == 2


def test_of_a_cookie_for_the_host_alone_there_is_no_other(start):
    at = start({"cookie": "__Host-ticket"})
    (mine,) = cookies_of(at.ask(request("/login"))[0])
    assert mine.startswith("__Host-ticket=")
    assert mine.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")


@pytest.mark.parametrize(
    ("settings", "attributes"),
    [
        ({"cookie_path": "/app"}, "; Path=/app; HttpOnly; SameSite=Lax; Secure"),
        ({"cookie_same_site": "Strict"}, "; Path=/; HttpOnly; SameSite=Strict; Secure"),
        (
            {"cookie_same_site": "None", "cookie_partitioned": True},
            "; Path=/; HttpOnly; SameSite=None; Secure; Partitioned",
        ),
    ],
)
def test_the_cookie_is_as_the_file_has_it(start, settings, attributes):
    at = start(settings)
    assert cookies_of(at.ask(request("/login"))[0])[-1].endswith(attributes)
    head, _ = at.ask(request("/logout", tickets=[at.login()]))
    assert cookies_of(head)[-1] == f"ticket={attributes}; Max-Age=0"


@pytest.mark.parametrize("path", ["/login", "/logout", "/rotate", "/optional/x"])
def test_no_cache_keeps_an_answer_with_a_cookie_of_ours(gateway, origin, path):
    """Whatever the application says of its page."""
    lines = {
        "/login": b"X-Ticket-Login: alice",
        "/logout": b"X-Ticket-Logout: session",
        "/rotate": b"X-Ticket-Rotate: 1",
    }
    answer = answering(b"Cache-Control: public, max-age=60\r\n" + lines.get(path, b"X-Nothing: x"))
    at = gateway(origin(answer=answer), routes=ROUTES, ticket=PLAIN)
    tickets = ["a", "b"] if "optional" in path else [at.login()]
    head, _ = at.ask(request(path, tickets=tickets))
    assert cookies_of(head)
    assert head.lower().count(b"cache-control: no-store\r\n") == 1
    if path != "/optional/x":
        return
    head, _ = at.ask(request(path))
    assert b"no-store" not in head


# --- Secure


@pytest.mark.parametrize("how", ["login", "a long login", "logout", "rotate"])
@pytest.mark.parametrize(
    ("host", "proto", "secure", "is_secure"),
    [
        ("shop.test", "", "auto", True),
        ("127.0.0.1:8080", "", "auto", False),
        ("localhost", "http", "auto", False),
        ("localhost", "https", "auto", True),
        ("localhost", "HTTPS", "auto", True),
        ("localhost", "https, http", "auto", True),
        ("localhost", "http, https", "auto", False),
        ("localhost", "httpsx", "auto", False),
        ("localhost", "", True, True),
        ("shop.test", "https", False, False),
    ],
)
def test_the_cookie_is_secure_unless_it_is_for_this_machine_by_http(start, host, proto, secure, is_secure, how):
    at = start({"cookie_secure": secure}, gateway={"trusted_proxies": ["127.0.0.1/32"]})
    fields = [f"X-Forwarded-Proto: {proto}"] if proto else []
    path = "/" + how.rpartition(" ")[2]
    more = {"method": "POST", "body": b"x" * 300_000} if "long" in how else {}
    head, _ = at.ask(request(path, *fields, host=host, tickets=[] if "login" in how else [at.login()], **more))
    assert cookies_of(head)
    assert {"; Secure" in line for line in cookies_of(head)} == {is_secure}


def test_who_is_no_proxy_of_ours_is_not_believed(start):
    at = start({})
    head, _ = at.ask(request("/login", "X-Forwarded-Proto: https", host="localhost"))
    assert "Secure" not in cookies_of(head)[-1]


def test_what_one_request_said_is_not_said_of_the_next(start):
    at = start({}, gateway={"trusted_proxies": ["127.0.0.1/32"]})
    with at.connect() as client:
        for fields, is_secure in (["X-Forwarded-Proto: https"], True), ([], False):
            client.sendall(request("/login", *fields, host="localhost"))
            assert ("Secure" in cookies_of(client.read_response()[0])[-1]) == is_secure


def test_a_login_by_http_whose_cookie_may_be_lost_is_said_once(start, caplog):
    at = start({}, gateway={"trusted_proxies": ["127.0.0.1/32"]})

    def warned():  # the start of a gateway may say something, too
        return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]

    with caplog.at_level(logging.WARNING, "fastticket.gateway"):
        for fields, host in (([], "localhost"), (["X-Forwarded-Proto: https"], "shop.test")):
            at.ask(request("/login", *fields, host=host))
        assert warned() == []
        for _ in range(2):
            at.ask(request("/login"))
    (said,) = warned()
    assert said.startswith("a login on shop.test came by http")
    assert "cookie_secure" in said
