"""Authentication, and how sessions begin and end: the gateway from the outside."""

import itertools
import json
import os
import random
import time
from urllib.parse import quote

import pytest
from conftest import OK, fields_of, status_of

import fastticket
from fastticket.gateway.reader import simple_config
from fastticket.keyfile import add_key, promote_key, read_keys
from fastticket.sync import TicketCache

LOGIN = {"path": "/login", "auth": "none", "login": True}
PRIVATE = {"path": "/"}
TOKEN_SIGNS = "!#$%&'*+-.^_`|~"  # what a field name may hold besides letters and digits


def get(path="/x", *fields, ticket=None):
    lines = [f"GET {path} HTTP/1.1", "Host: a", *fields, *([f"Cookie: theme=dark; ticket={ticket}"] if ticket else [])]
    return "\r\n".join([*lines, "", ""]).encode()


def answering(extra):
    return b"HTTP/1.1 200 OK\r\n" + extra + b"\r\nContent-Length: 2\r\n\r\nok"


def verdict_of(head, body):
    return status_of(head), json.loads(body)["reason"]


def ticket_of(head):
    return fields_of(head)[b"set-cookie"].split(b";")[0].partition(b"=")[2].decode()


# --- who is let in


def test_a_ticket_is_taken_from_the_cookie_or_the_authorization_field(gateway, origin):
    behind = origin()
    at = gateway(behind, routes=[PRIVATE])
    ticket = at.login("älice")
    for raw in (
        get(ticket=ticket),
        get("/x", f"Authorization: Ticket {ticket}"),
        get("/x", f"authorization: tIcKeT {ticket}"),
    ):
        assert status_of(at.ask(raw)[0]) == 200
    assert {fields_of(head)[b"x-forwarded-user"] for head, _ in behind.requests} == {"älice".encode()}


def expired_ticket(keys):
    return keys.mint("alice", 1000, 0, 1)


def foreign_ticket(_):
    return fastticket.Keyring([(9, os.urandom(32))]).mint("alice", 1000)


def unheard_of_ticket(keys):
    """Authentic, but the store knows no such session."""
    return keys.mint("alice", time.time_ns() // 1_000_000, 3600, 3600)


def forged_ticket(keys):
    ticket = keys.mint("alice", 1000)
    return ticket[:-8] + ("AAAAAAAA" if ticket[-8:] != "AAAAAAAA" else "BBBBBBBB")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: None, "missing"),
        (lambda _: "nonsense", "malformed"),
        (foreign_ticket, "unknown_key"),
        (forged_ticket, "bad_signature"),
        (expired_ticket, "expired"),
        (unheard_of_ticket, "unknown_session"),
    ],
)
def test_refusals_say_why(gateway, origin, keys, make, reason):
    behind = origin()
    head, body = gateway(behind, routes=[PRIVATE]).ask(get(ticket=make(keys)))
    assert verdict_of(head, body) == (401, reason)
    assert fields_of(head)[b"www-authenticate"] == f'Ticket realm="fastticket", error="{reason}"'.encode()
    assert behind.connections == []


def test_two_tickets_are_refused_whatever_they_are(gateway, origin):
    behind = origin()
    at = gateway(behind, routes=[PRIVATE])
    ticket = at.login()
    for raw in (
        get("/x", f"Cookie: ticket={ticket}", ticket=ticket),
        get("/x", f"Authorization: Ticket {ticket}", ticket=ticket),
        get("/x", f"Cookie: ticket={ticket}; ticket={ticket}"),
    ):
        assert verdict_of(*at.ask(raw)) == (400, "ambiguous")
    assert behind.connections == []


def test_p1_no_forged_ticket_is_admitted(gateway, origin):
    """Every ticket with one character changed, while the true one is in the near cache."""
    behind = origin()
    at = gateway(behind, routes=[PRIVATE])
    ticket = at.login()
    assert status_of(at.ask(get(ticket=ticket))[0]) == 200
    rnd = random.Random(1)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    forged = [
        ticket[:at_] + rnd.choice(alphabet.replace(ticket[at_], "")) + ticket[at_ + 1 :] for at_ in range(len(ticket))
    ] * 20
    with at.connect() as client:
        for number, text in enumerate(forged):
            client.sendall(get(ticket=text))
            if number % 100 == 0:
                client.sendall(get(ticket=ticket))
        answers = [status_of(client.read_response()[0]) for _ in range(len(forged) + (len(forged) + 99) // 100)]
    assert answers.count(200) == len(behind.requests) - 1 == (len(forged) + 99) // 100
    assert answers.count(401) == len(forged)


def test_browsers_are_sent_to_the_login_page(gateway, origin):
    login = {"path": "/login", "auth": "none", "login": True}
    at = gateway(origin(), routes=[PRIVATE, login], gateway={"login_url": "/login"})
    head, _ = at.ask(get("/x", "Accept: text/html,application/xhtml+xml"))
    assert (status_of(head), fields_of(head)[b"location"]) == (302, b"/login?next=/x")
    assert status_of(at.ask(get("/x", "Accept: application/json"))[0]) == 401
    assert status_of(at.ask(b"POST /x HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nContent-Length: 0\r\n\r\n")[0]) == 401


# --- routes


def test_routes_by_the_longest_path_on_segment_borders(gateway, origin):
    at = gateway(
        origin(),
        routes=[PRIVATE, {"path": "/api", "auth": "none"}, {"path": "/api/admin"}, {"path": "/files/", "auth": "none"}],
    )
    expected = {
        "/api": 200,
        "/api/": 200,
        "/api/x?y=/api/admin": 200,
        "/%61pi/x": 200,
        "/apis": 401,
        "/API": 401,
        "/api/admin": 401,
        "/api/admin/x": 401,
        "/api/%61dmin": 401,
        "/files": 401,
        "/files/x": 200,
        "/": 401,
    }
    assert {path: status_of(at.ask(get(path))[0]) for path in expected} == expected


@pytest.mark.parametrize(
    "path",
    [
        "/open/../x",
        "/open/..%2fx",
        "/open/%2e%2e/x",
        "/open//x",
        "//open",
        "/open/./x",
        "/open\\..\\x",
        "/open/..;/x",
        "/open/%ff",
        "/open/%zz",
    ],
)
def test_an_ambiguous_path_matches_no_exempt_route(gateway, origin, path):
    """Forwarded unchanged, but only with a ticket, and nobody logs in there."""
    behind = origin(answer=answering(b"X-Ticket-Login: mallory"))
    at = gateway(
        behind,
        routes=[PRIVATE, {"path": "/open", "auth": "none", "login": True}, {"path": "/optional", "auth": "optional"}],
    )
    assert verdict_of(*at.ask(get(path))) == (401, "missing")
    assert verdict_of(*at.ask(get(path.replace("open", "optional")))) == (401, "missing")
    head, _ = at.ask(get(path, ticket=at.login()))
    assert (status_of(head), b"set-cookie" in fields_of(head)) == (200, False)
    assert behind.requests[0][0].split(b" ")[1] == path.encode()


def test_no_route(gateway, origin):
    at = gateway(origin(), routes=[{"path": "/only", "auth": "none"}])
    assert verdict_of(*at.ask(get("/other"))) == (404, "no_route")


def test_routes_choose_the_upstream(gateway, origin):
    one, two = origin(), origin()
    at = gateway(
        one,
        routes=[{"path": "/", "auth": "none", "upstream": "one"}, {"path": "/two", "auth": "none", "upstream": "two"}],
        upstream=[{"name": "one", "servers": [one.address]}, {"name": "two", "servers": [two.address]}],
    )
    at.ask(get("/"))
    at.ask(get("/two/x"))
    assert (len(one.requests), len(two.requests)) == (1, 1)


def test_optional_routes(gateway, origin, keys):
    behind = origin()
    at = gateway(behind, routes=[{"path": "/", "auth": "optional"}])
    for ticket, user in (
        (None, None),
        (at.login(), b"alice"),
        (forged_ticket(keys), None),
        (unheard_of_ticket(keys), None),
    ):
        assert status_of(at.ask(get(ticket=ticket))[0]) == 200
        assert fields_of(behind.requests[-1][0]).get(b"x-forwarded-user") == user


def test_a_route_without_touch_is_no_use(gateway, origin):
    at = gateway(
        origin(),
        routes=[PRIVATE, {"path": "/poll", "touch": False}],
        store={"flush_interval_ms": 60_000, "lease_ms": 120_000},
    )
    ticket = at.login()
    at.ask(get("/poll", ticket=ticket))
    at.ask(get("/poll", ticket=ticket))
    assert at.call(lambda: at.cache._near.dirty_count) == 0
    at.ask(get("/x", ticket=ticket))
    assert at.call(lambda: at.cache._near.dirty_count) in (0, 1)  # 0: within the same millisecond as the login


# --- identity


def spellings(name):
    for signs in itertools.product(TOKEN_SIGNS, repeat=name.count("-")):
        parts = name.split("-")
        yield "".join(part + sign for part, sign in zip(parts, [*signs, ""], strict=True))


def test_p10_no_spelling_of_the_identity_field_gets_through(gateway, origin):
    behind = origin()
    at = gateway(behind, routes=[PRIVATE, {"path": "/open", "auth": "none"}])
    ticket = at.login()
    names = [*spellings("X-Forwarded-User"), "x-forwarded-user", "X-FORWARDED-USER"]
    with at.connect() as client:
        for start in range(0, len(names), 60):
            lines = [f"{name}: mallory" for name in names[start : start + 60]]
            for raw in (
                get("/x", *lines, ticket=ticket),
                get("/open", *lines),
                get("/open", "Connection: x-forwarded-user", *lines),
            ):
                client.sendall(raw)
                assert status_of(client.read_response()[0]) == 200
    assert all(b"mallory" not in head for head, _ in behind.requests)
    assert {fields_of(head).get(b"x-forwarded-user") for head, _ in behind.requests} == {b"alice", None}


def test_what_could_override_path_or_address_is_dropped(gateway, origin):
    behind = origin()
    names = ["X-Original-URL", "X_Rewrite_URL", "X-Real-IP", "True-Client-IP", "X-Forwarded-Port", "X-Forwarded-Prefix"]
    gateway(behind, routes=[{"path": "/", "auth": "none"}]).ask(get("/x", *(f"{name}: evil" for name in names)))
    assert b"evil" not in behind.requests[0][0]


@pytest.mark.parametrize(
    "name", ["alice", "Zoë", "张三", "a@b.c", "a b%2F\"'\\", "-._~", "\x80", "🎫" * 47, "Å" + "x" * 180]
)
def test_p10_an_identity_in_percent_encoding(gateway, origin, name):
    behind = origin()
    options = {"identity_encoding": "percent", "auth_path": "/_auth"}
    at = gateway(behind, routes=[PRIVATE], gateway=options)
    ticket = at.login(name)
    at.ask(get("/x", "X-Forwarded-User: mallory", ticket=ticket))
    told = [behind.requests[0][0], at.ask(get("/_auth", ticket=ticket))[0]]
    for head in told:
        assert fields_of(head)[b"x-forwarded-user"] == quote(name, safe="").encode()
        assert head.count(b"User:") == 1


def test_another_identity_field(gateway, origin):
    behind = origin()
    at = gateway(behind, routes=[PRIVATE], gateway={"identity_header": "X-Auth-Name"})
    at.ask(get("/x", "X_Auth_Name: mallory", "X-Forwarded-User: kept", ticket=at.login()))
    fields = fields_of(behind.requests[0][0])
    assert (fields[b"x-auth-name"], fields[b"x-forwarded-user"]) == (b"alice", b"kept")


# --- login and logout


@pytest.mark.parametrize("secure", [False, True])
def test_login(gateway, origin, secure):
    at = gateway(
        origin(answer=answering(b"X-Ticket-Login: alice")), routes=[LOGIN, PRIVATE], ticket={"cookie_secure": secure}
    )
    head, body = at.ask(b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nuser")
    name, *attributes = fields_of(head)[b"set-cookie"].split(b"; ")
    assert (status_of(head), body) == (200, b"ok")
    assert name.startswith(b"ticket=")
    assert attributes == [b"Path=/", b"HttpOnly", b"SameSite=Lax"] + [b"Secure"] * secure
    assert b"ticket-login" not in head.lower()
    assert status_of(at.ask(get(ticket=ticket_of(head)))[0]) == 200
    assert [s.principal for s in at.run(at.cache.sessions("alice"))] == ["alice"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX-Ticket-Login: alice\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Ticket-Login: alice\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000,
    ],
)
def test_a_login_response_may_have_any_body(gateway, origin, answer):
    with gateway(origin(answer=answer), routes=[LOGIN]).connect() as client:
        for _ in range(2):
            client.sendall(get("/login") + get("/login"))
            for _ in range(2):
                head, body = client.read_response()
                assert ticket_of(head)
                assert body in (b"ok", b"x" * 300_000)


def test_only_a_login_route_logs_in(gateway, origin):
    behind = origin(answer=answering(b"X-Ticket-Login: mallory"))
    at = gateway(behind, routes=[LOGIN, PRIVATE, {"path": "/open", "auth": "none"}])
    for raw in (get("/open"), get("/x", ticket=at.login())):
        head, _ = at.ask(raw)
        assert b"set-cookie" not in fields_of(head)
        assert b"ticket-login" not in head.lower()
    assert at.run(at.cache.sessions("mallory")) == []


@pytest.mark.parametrize("principal", [b"", b"x" * 191, b"\xff\xfe"])
def test_an_impossible_principal_is_the_applications_error(gateway, origin, principal):
    at = gateway(origin(answer=answering(b"X-Ticket-Login: " + principal)), routes=[LOGIN])
    assert verdict_of(*at.ask(get("/login"))) == (502, "invalid_principal")


def test_two_wishes_at_once_are_the_applications_error(gateway, origin):
    at = gateway(origin(answer=answering(b"X-Ticket-Login: a\r\nX-Ticket-Login: b")), routes=[LOGIN])
    assert verdict_of(*at.ask(get("/login"))) == (502, "upstream_malformed")


def test_a_login_with_an_old_ticket_ends_the_old_session(gateway, origin):
    at = gateway(origin(answer=answering(b"X-Ticket-Login: alice")), routes=[{**LOGIN, "auth": "optional"}, PRIVATE])
    old = at.login()
    new = ticket_of(at.ask(get("/login", ticket=old))[0])
    assert verdict_of(*at.ask(get(ticket=old))) == (401, "revoked")
    assert status_of(at.ask(get(ticket=new))[0]) == 200


def test_the_login_route_of_the_simple_flags_ends_the_old_session():
    config = simple_config(["127.0.0.1:0"], ["127.0.0.1:9001"], "sqlite://:memory:", "keys.toml")
    assert [(route.path, route.auth, route.login) for route in config.route] == [
        ("/login", "optional", True),
        ("/", "required", False),
    ]


@pytest.mark.parametrize(("scope", "other_status"), [("session", 200), ("everywhere", 401)])
def test_logout(gateway, origin, scope, other_status):
    def serve(connection):
        while True:
            head, _ = behind.request(connection)
            connection.sendall(answering(b"X-Ticket-Logout: " + scope.encode()) if b" /logout" in head else OK)

    behind = origin(serve)
    at = gateway(behind, routes=[PRIVATE])
    mine, other, somebodys = at.login(), at.login(), at.login("bob")
    for ticket in (mine, other, somebodys):
        assert status_of(at.ask(get(ticket=ticket))[0]) == 200
    head, body = at.ask(get("/logout", ticket=mine))
    assert (status_of(head), body) == (200, b"ok")
    assert fields_of(head)[b"set-cookie"] == b"ticket=; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0"
    assert b"ticket-logout" not in head.lower()
    assert [status_of(at.ask(get(ticket=t))[0]) for t in (mine, other, somebodys)] == [401, other_status, 200]


def test_logout_without_a_session_is_only_removed(gateway, origin):
    at = gateway(origin(answer=answering(b"X-Ticket-Logout: session")), routes=[{"path": "/", "auth": "none"}])
    head, _ = at.ask(get())
    assert b"set-cookie" not in fields_of(head)
    assert b"ticket-logout" not in head.lower()


# --- the store is away


def put_away(at):
    """Close the store under the cache: every later call to it fails."""
    at.run(at.cache._store.aclose())


def test_p8_an_outage_logs_nobody_out(gateway, origin, tmp_path):
    at = gateway(
        origin(answer=answering(b"X-Ticket-Login: carol")),
        routes=[LOGIN, PRIVATE, {"path": "/optional", "auth": "optional"}],
    )
    known = at.login()
    with TicketCache(f"sqlite:////{tmp_path}/sessions.db", tmp_path / "keys.toml") as elsewhere:
        unknown = elsewhere.login("bob")
    assert status_of(at.ask(get(ticket=known))[0]) == 200
    put_away(at)
    for path in ("/x", "/optional"):
        head, body = at.ask(get(path, ticket=unknown))
        assert verdict_of(head, body) == (503, "store_unavailable")
        assert fields_of(head)[b"retry-after"] == b"1"
    assert status_of(at.ask(get(ticket=known))[0]) == 200
    assert verdict_of(*at.ask(get("/login"))) == (503, "store_unavailable")  # and not the application's "welcome"


# --- keys


def test_a_reloaded_key_ring(gateway, origin, tmp_path):
    """A worker gets a new key ring from its supervisor: a new key signs; with a key that is gone,
    the entries verified by it go (P1).
    """
    at = gateway(origin(), routes=[PRIVATE])
    path = tmp_path / "keys.toml"
    old = at.login()
    assert status_of(at.ask(get(ticket=old))[0]) == 200

    promote_key(path, add_key(path))
    at.call(at.cache.replace_keys, read_keys(path))
    new = at.login()
    assert [status_of(at.ask(get(ticket=t))[0]) for t in (old, new)] == [200, 200]

    at.call(at.cache.replace_keys, [(2, os.urandom(32))])
    assert [verdict_of(*at.ask(get(ticket=t)))[1] for t in (old, new)] == ["unknown_key", "bad_signature"]
