"""An application's words on sessions beyond login and logout, and what a gateway keeps of logins:
from the outside.
"""

import asyncio
import itertools
import logging
import math
import socket
import threading
import time

import pytest
from conftest import BOUND_S, fields_of, status_of
from lab.redis_servers import wait_until
from test_gateway_auth import answering, put_away, ticket_of, verdict_of

from fastticket.web.visitor import USER_AGENT_CHARS_MAX

LOGIN = {"path": "/login", "auth": "none", "login": True}
OPEN = {"path": "/open", "auth": "none"}
PRIVATE = {"path": "/"}
REMEMBERED_S = 3_000_000
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER of no time: a client that closes so has gone, and does not only say no more
NOT_ONE = [b"", b"0", b"2", b"11", b"1, 1", b"true", b"\xff", b"1\r\nX-Ticket-%s: 1", b"1\r\nX-Ticket-%s: 0"]


def request(path, *fields, ticket=None, method="GET", body=b""):
    cookie = [f"Cookie: ticket={ticket}"] if ticket else []
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *fields, *cookie, *length, "", ""]).encode() + body


@pytest.fixture
def serving(gateway, origin):
    """`(gateway, origin)`; it answers each path with these field lines, and others with none."""

    def start(lines, **tables):
        def serve(connection):
            while True:
                head, _ = behind.request(connection)
                answer = answering(lines.get(head.split(b" ")[1].decode(), b"X-Nothing: x"))
                connection.sendall(answer[:-2] if head.startswith(b"HEAD ") else answer)

        behind = origin(serve)
        return gateway(behind, routes=[LOGIN, OPEN, PRIVATE], **tables), behind

    return start


def sessions_of(at, principal="alice"):
    return at.run(at.cache.sessions(principal))


def attributes_of(head):
    """The attributes of the cookie."""
    return fields_of(head)[b"set-cookie"].split(b"; ")[1:]


def is_admitted(at, ticket):
    return status_of(at.ask(request("/x", ticket=ticket))[0]) == 200


class Held:
    """A method of the gateway's store that waits, in the gateway's loop, until it may go on."""

    def __init__(self, at, monkeypatch, name):
        self.at = at
        self.is_asked = threading.Event()
        self._may_go_on = asyncio.Event()
        self._method = getattr(at.cache._store, name)
        monkeypatch.setattr(at.cache._store, name, self)

    async def __call__(self, *values, **named):
        self.is_asked.set()
        await self._may_go_on.wait()
        return await self._method(*values, **named)

    def go_on(self):
        self.at.call(self._may_go_on.set)


# --- how many sessions


def test_the_oldest_session_ends_for_one_too_many(serving):
    at, _ = serving({"/login": b"X-Ticket-Login: alice"}, ticket={"sessions_max": 2})
    tickets = []
    for _ in range(3):
        tickets.append(ticket_of(at.ask(request("/login"))[0]))
        began_ms = at.call(at.cache.now_ms)
        wait_until(lambda: at.call(at.cache.now_ms) > began_ms, "the next one is younger")  # noqa: B023
    assert [is_admitted(at, ticket) for ticket in tickets] == [False, True, True]


def test_a_login_too_many_is_a_conflict(serving):
    settings = {"sessions_max": 1, "sessions_max_policy": "refuse"}
    at, _ = serving({"/login": b"X-Ticket-Login: alice\r\nX-Secret: welcome"}, ticket=settings)
    with at.connect() as client:
        client.sendall(request("/login"))
        ticket = ticket_of(client.read_response()[0])
        for method in ("GET", "HEAD"):
            client.sendall(request("/login", method=method))
            head, body = client.read_response(to_head=method == "HEAD")
            assert head.startswith(b"HTTP/1.1 409 Conflict\r\n")
            assert not {b"set-cookie", b"x-secret", b"connection"} & fields_of(head).keys()
            assert (b"too_many_sessions" in body) == (method == "GET")
        client.sendall(request("/x", ticket=ticket))
        assert status_of(client.read_response()[0]) == 200
    assert len(sessions_of(at)) == 1


def test_where_a_login_too_many_shows(serving, tmp_path, caplog):
    """It is the user's to solve: not an error of the gateway."""
    settings = {"sessions_max": 1, "sessions_max_policy": "refuse"}
    at, _ = serving({"/login": b"X-Ticket-Login: alice"}, ticket=settings, gateway={"access_log": "access.log"})
    at.login()
    assert status_of(at.ask(request("/login"))[0]) == 409
    wait_until((tmp_path / "access.log").read_text, "a line")
    assert "too_many_sessions" in (tmp_path / "access.log").read_text()
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


# --- who is remembered


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_who_is_remembered_has_a_cookie_that_outlives_the_browser(serving, method):
    lines = {"/login": b"X-Ticket-Remember: 1\r\nX-Ticket-Login: alice"}
    at, _ = serving(lines, ticket={"remember_lifetime_s": REMEMBERED_S})
    head, _ = at.ask(request("/login", method=method))
    assert attributes_of(head) == [b"Path=/", b"HttpOnly", b"SameSite=Lax", b"Secure", b"Max-Age=%d" % REMEMBERED_S]
    assert b"x-ticket" not in head.lower()
    assert is_admitted(at, ticket_of(head))
    [session] = sessions_of(at)
    assert session.absolute_deadline_ms - session.created_ms == REMEMBERED_S * 1000
    assert session.last_access_ms is None  # it may go unused


def test_who_is_not_remembered_has_not(serving):
    """Whatever the client says of it."""
    at, behind = serving({"/login": b"X-Ticket-Login: alice"})
    head, _ = at.ask(request("/login", "X-Ticket-Remember: 1", "X-Ticket-Rotate: 1", "X-Ticket-Login: eve"))
    assert attributes_of(head) == [b"Path=/", b"HttpOnly", b"SameSite=Lax", b"Secure"]
    assert b"x-ticket" not in behind.requests[0][0].lower()
    [session] = sessions_of(at)
    assert session.absolute_deadline_ms - session.created_ms == 86_400_000


@pytest.mark.parametrize("value", NOT_ONE)
@pytest.mark.parametrize("is_first", [True, False])
def test_whether_to_remember_is_not_guessed(serving, value, is_first):
    lines = [b"X-Ticket-Login: alice", b"X-Ticket-Remember: " + value.replace(b"%s", b"Remember")]
    at, _ = serving({"/login": b"\r\n".join(reversed(lines) if is_first else lines)})
    head, body = at.ask(request("/login"))
    assert verdict_of(head, body) == (502, "upstream_malformed")
    assert b"set-cookie" not in fields_of(head)
    assert sessions_of(at) == []


@pytest.mark.parametrize("value", [b"1", *NOT_ONE])
def test_without_a_login_there_is_nothing_to_remember(serving, value):
    line = b"X-Ticket-Remember: " + value.replace(b"%s", b"Remember")
    lines = {
        "/login": line,
        "/open": line,
        "/x": line + b"\r\nX-Ticket-Login: eve",
        "/login/odd": b"X_Ticket_Remember: 1\r\nX-Ticket-Login: bob",
        "/logout": line + b"\r\nX-Ticket-Logout: session",
    }
    at, _ = serving(lines)
    ticket = at.login()
    for path in ("/login", "/open", "/x"):
        head, _ = at.ask(request(path, ticket=ticket))
        assert (status_of(head), b"set-cookie" in fields_of(head), b"x-ticket" in head.lower()) == (200, False, False)
    head, _ = at.ask(request("/login/odd"))
    assert attributes_of(head) == [b"Path=/", b"HttpOnly", b"SameSite=Lax", b"Secure"]
    assert b"ticket_remember" not in head.lower()
    head, _ = at.ask(request("/logout", ticket=ticket))
    assert (status_of(head), attributes_of(head)[-1]) == (200, b"Max-Age=0")
    assert sessions_of(at, "eve") == []


# --- what is recorded with a login

DETAILS = {"login_details": ["address", "user_agent"]}


def details_of(at, principal="alice"):
    return [dict(session.details) for session in sessions_of(at, principal)]


@pytest.mark.parametrize(
    ("settings", "recorded"),
    [
        ([], {}),
        (["address"], {"address": "127.0.0.1"}),
        (["user_agent"], {"user_agent": "curl/8"}),
        (["user_agent", "address"], {"address": "127.0.0.1", "user_agent": "curl/8"}),
    ],
)
def test_what_is_wanted_is_recorded(serving, settings, recorded):
    at, behind = serving({"/login": b"X-Ticket-Login: alice"}, ticket={"login_details": settings})
    assert status_of(at.ask(request("/login", "User-Agent: curl/8"))[0]) == 200
    assert details_of(at) == [recorded]
    assert fields_of(behind.requests[0][0])[b"user-agent"] == b"curl/8"


@pytest.mark.parametrize("said", ["X-Forwarded-For: 6.6.6.6, 9.9.9.9, 10.1.1.1", "X-Forwarded-For: 2001:470::1"])
@pytest.mark.parametrize("trusted", [[], ["127.0.0.0/8", "10.0.0.0/8"]])
def test_the_address_is_the_one_of_the_access_log(serving, said, trusted, tmp_path):
    settings = {"trusted_proxies": trusted, "access_log": "access.log"}
    at, _ = serving({"/login": b"X-Ticket-Login: alice"}, ticket=DETAILS, gateway=settings)
    at.ask(request("/login", said))
    wait_until((tmp_path / "access.log").read_text, "a line")
    logged = (tmp_path / "access.log").read_text().split(" ")[1]
    assert details_of(at) == [{"address": logged}]
    assert (logged == "127.0.0.1") == (not trusted)


def test_a_client_on_a_unix_socket_has_no_address(gateway, origin, tmp_path):
    behind = origin(answer=answering(b"X-Ticket-Login: alice"))
    at = gateway(behind, routes=[LOGIN], ticket=DETAILS, listen=f"unix:{tmp_path}/socket")
    assert status_of(at.ask(request("/login", "User-Agent: x"))[0]) == 200
    assert details_of(at) == [{"user_agent": "x"}]


@pytest.mark.parametrize(
    ("lines", "recorded"),
    [
        ([], None),
        ([b"User-Agent: "], ""),
        ([b"uSER-aGENT:\tMozilla/5.0 (X11) \xc3\xa4 "], "Mozilla/5.0 (X11) ä"),
        ([b"User-Agent: " + b"x" * 201], "x" * USER_AGENT_CHARS_MAX),  # as applications record it
        ([b"User-Agent: " + b'"\\' * 4000], '"\\' * 100),
        ([b"User-Agent: " + "𝄞".encode() * 201], "𝄞" * 200),
        ([b"User-Agent: " + b"a" + "𝄞".encode() * 300], "a" + "𝄞" * 199),
        ([b"User-Agent: a\xff\xc3b\xed\xa0\x80"], "a\ufffd\ufffdb\ufffd\ufffd\ufffd"),
        ([b"User-Agent: " + b"\xff" * 1000], "\ufffd" * 200),
        ([b"User-Agent: first", b"User-Agent: second"], "first"),
        ([b"User_Agent: odd", b"X-User-Agent: other"], None),
    ],
)
def test_what_a_client_calls_its_program(serving, lines, recorded):
    at, _ = serving({"/login": b"X-Ticket-Login: alice"}, ticket={"login_details": ["user_agent"]})
    raw = b"\r\n".join([b"GET /login HTTP/1.1", b"Host: a", *lines, b"", b""])
    assert status_of(at.ask(raw)[0]) == 200
    assert details_of(at) == [{} if recorded is None else {"user_agent": recorded}]


def test_what_a_client_calls_its_program_is_known_after_a_long_body(serving):
    """The head of the request has gone by then."""
    at, behind = serving({"/login": b"X-Ticket-Login: alice"}, ticket=DETAILS)
    body = b"User-Agent: body\r\n" * 20_000
    at.ask(request("/login", "User-Agent: head", method="POST", body=body))
    assert behind.requests[0][1] == body
    assert details_of(at) == [{"address": "127.0.0.1", "user_agent": "head"}]


def test_requests_of_one_connection_are_told_apart(serving):
    """Whose login is pipelined behind whose; and a request that did not log in leaves nothing to
    the next one.
    """
    lines = {f"/login/{name}": b"X-Ticket-Login: " + name.encode() for name in "abc"}
    at, _ = serving(lines, ticket={"login_details": ["user_agent"]})
    asked = [("/login/a", "User-Agent: 1"), ("/login", "User-Agent: 2"), ("/login/b",), ("/login/c", "User-Agent: 3")]
    with at.connect() as client:
        client.sendall(b"".join(request(*each) for each in asked))
        assert [status_of(client.read_response()[0]) for _ in asked] == [200] * len(asked)
    assert [details_of(at, name) for name in "abc"] == [[{"user_agent": "1"}], [{}], [{"user_agent": "3"}]]


def test_a_login_that_is_sent_again_says_the_same(gateway, origin):
    """On a pooled connection that closes under it."""
    count = itertools.count()

    def serve(connection):
        for answered in itertools.count():
            head, _ = behind.request(connection)
            if answered and b" /login " in head and next(count) == 0:
                return
            connection.sendall(answering(b"X-Ticket-Login: alice" if b" /login " in head else b"X-Nothing: x"))

    behind = origin(serve)
    at = gateway(behind, routes=[LOGIN, OPEN], ticket={"login_details": ["user_agent"]})
    assert status_of(at.ask(request("/open"))[0]) == 200
    assert status_of(at.ask(request("/login", "User-Agent: curl/8"))[0]) == 200
    assert [b" /login " in head for head, _ in behind.requests] == [False, True, True]
    assert details_of(at) == [{"user_agent": "curl/8"}]


@pytest.mark.parametrize("path", ["/login", "/login/never"])
def test_a_client_that_is_lost_leaves_nothing_behind(serving, monkeypatch, path):
    """While the store is asked, or the application: its login is made, or is not, and the slot's
    next user has another name.
    """
    at, behind = serving(
        {"/login": b"X-Ticket-Login: alice", "/login/bob": b"X-Ticket-Login: bob"},
        ticket={"login_details": ["user_agent"]},
    )
    held = Held(at, monkeypatch, "create")
    with at.connect() as client:
        client.sendall(request(path, "User-Agent: lost", *["Content-Length: 9"] * (path != "/login")))
        if path == "/login":
            assert held.is_asked.wait(BOUND_S)
        else:
            wait_until(lambda: behind.connections, "the application has it")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wait_until(lambda: at.call(lambda: at.worker.proxy.connection_count) == 0, "it is gone")
    with at.connect() as client:
        client.sendall(request("/login/bob"))
        assert held.is_asked.wait(BOUND_S)
        held.go_on()
        assert ticket_of(client.read_response()[0])
    assert details_of(at) == ([{"user_agent": "lost"}] if path == "/login" else [])
    assert details_of(at, "bob") == [{}]


def test_a_login_without_a_ticket_ends_nobodys_session(serving):
    """Not even that of the request before it on its connection, which a proxy may have sent for
    somebody else.
    """
    at, _ = serving({"/login": b"X-Ticket-Login: bob"})
    alice = at.login("alice")
    with at.connect() as client:
        for raw in (request("/x", ticket=alice), request("/login"), request("/x", ticket=alice)):
            client.sendall(raw)
            assert status_of(client.read_response()[0]) == 200
    assert (len(sessions_of(at)), len(sessions_of(at, "bob"))) == (1, 1)


def test_a_login_that_the_store_is_too_slow_for(serving, monkeypatch):
    at, _ = serving({"/login": b"X-Ticket-Login: alice"}, ticket=DETAILS, timeouts={"verdict_s": 0.1})
    held = Held(at, monkeypatch, "create")
    assert verdict_of(*at.ask(request("/login", "User-Agent: x"))) == (503, "store_unavailable")
    held.go_on()


# --- another ticket for the same session


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_session_goes_on_under_a_new_ticket(serving, method):
    at, behind = serving({"/sudo": b"X-Ticket-Rotate: 1"})
    old = at.run(at.cache.login("alice", details={"address": "1.2.3.4"}))
    [before] = sessions_of(at)
    head, body = at.ask(request("/sudo", ticket=old, method=method))
    assert (status_of(head), body) == (200, b"" if method == "HEAD" else b"ok")
    assert b"x-ticket" not in head.lower()
    assert attributes_of(head) == [b"Path=/", b"HttpOnly", b"SameSite=Lax", b"Secure"]
    assert verdict_of(*at.ask(request("/x", ticket=old))) == (401, "revoked")
    assert is_admitted(at, ticket_of(head))
    assert fields_of(behind.requests[-1][0])[b"x-forwarded-user"] == b"alice"
    [after] = sessions_of(at)
    assert after.id != before.id
    assert (after.details, after.absolute_deadline_ms) == (before.details, before.absolute_deadline_ms)


def test_the_old_ticket_is_refused_elsewhere(serving, gateway, origin):
    at, _ = serving({"/sudo": b"X-Ticket-Rotate: 1"}, store={"lease_ms": 60_000})
    other = gateway(origin(), routes=[PRIVATE], store={"lease_ms": 60_000})
    old = at.login()
    assert is_admitted(other, old)
    new = ticket_of(at.ask(request("/sudo", ticket=old))[0])
    wait_until(lambda: not is_admitted(other, old), "it is refused")
    assert is_admitted(other, new)


@pytest.mark.parametrize("ticket", [{}, {"idle_timeout_s": 0}])
def test_who_was_remembered_stays_so(serving, ticket):
    """No longer than the session: its lifetime counts from the login."""
    lines = {"/login": b"X-Ticket-Login: alice\r\nX-Ticket-Remember: 1", "/sudo": b"X-Ticket-Rotate: 1"}
    at, _ = serving(lines, ticket={"remember_lifetime_s": REMEMBERED_S, **ticket})
    began_s = time.monotonic()
    remembered = ticket_of(at.ask(request("/login"))[0])
    head, _ = at.ask(request("/sudo", ticket=remembered))
    name, _, max_age_s = attributes_of(head)[-1].partition(b"=")
    assert name == b"Max-Age"
    assert REMEMBERED_S - 2 - (time.monotonic() - began_s) < int(max_age_s) <= REMEMBERED_S
    assert is_admitted(at, ticket_of(head))
    assert b"Max-Age" not in at.ask(request("/sudo", ticket=at.login()))[0]


def test_a_cookie_ends_with_its_session(serving):
    at, _ = serving({"/sudo": b"X-Ticket-Rotate: 1"})
    ticket = at.run(at.cache.login("alice", idle_timeout_s=math.inf, absolute_lifetime_s=1000))
    name, _, max_age_s = attributes_of(at.ask(request("/sudo", ticket=ticket))[0])[-1].partition(b"=")
    assert name == b"Max-Age"
    assert 1000 - BOUND_S < int(max_age_s) <= 1000


@pytest.mark.parametrize("value", NOT_ONE)
def test_whether_to_rotate_is_not_guessed(serving, value):
    at, _ = serving({"/sudo": b"X-Ticket-Rotate: " + value.replace(b"%s", b"Rotate")})
    ticket = at.login()
    head, body = at.ask(request("/sudo", ticket=ticket))
    assert verdict_of(head, body) == (502, "upstream_malformed")
    assert b"set-cookie" not in fields_of(head)
    assert is_admitted(at, ticket)


@pytest.mark.parametrize("other", [b"X-Ticket-Logout: session", b"X-Ticket-Logout: everywhere"])
@pytest.mark.parametrize("is_first", [True, False])
def test_to_rotate_and_to_log_out_are_two_wishes(serving, other, is_first):
    lines = [other, b"X-Ticket-Rotate: 1"]
    at, _ = serving({"/sudo": b"\r\n".join(reversed(lines) if is_first else lines)})
    ticket = at.login()
    assert verdict_of(*at.ask(request("/sudo", ticket=ticket))) == (502, "upstream_malformed")
    assert is_admitted(at, ticket)


def test_to_rotate_and_to_log_in_are_two_wishes(gateway, origin):
    behind = origin(answer=answering(b"X-Ticket-Login: alice\r\nX-Ticket-Rotate: 1"))
    at = gateway(behind, routes=[{**LOGIN, "auth": "optional"}])
    assert verdict_of(*at.ask(request("/login"))) == (502, "upstream_malformed")  # though no session could go on
    assert verdict_of(*at.ask(request("/login", ticket=at.login()))) == (502, "upstream_malformed")
    assert len(sessions_of(at)) == 1


@pytest.mark.parametrize("value", [b"1", *NOT_ONE])
def test_without_a_session_none_goes_on(serving, value):
    """And what cannot be read is no response, with a session or without."""
    at, _ = serving({"/open": b"X-Ticket-Rotate: " + value.replace(b"%s", b"Rotate")})
    ticket = at.login()
    for raw in (request("/open"), request("/open", ticket=ticket)):
        head, _ = at.ask(raw)
        assert (status_of(head), b"x-ticket" in head.lower()) == (200 if value == b"1" else 502, False)
        assert b"set-cookie" not in fields_of(head)
    assert is_admitted(at, ticket)


# --- what is said of a logout must be true

NO_LOGOUT = [
    b"",
    b"1",
    b"true",
    b"all",
    b"session, everywhere",
    b"sessions",
    b"\xff",
    b"session\r\nX-Ticket-Logout: session",
]
TWO_WISHES = [
    b"X-Ticket-Logout: session\r\nX-Ticket-Rotate: 1",
    b"X-Ticket-Logout: session\r\nX-Ticket-Logout: everywhere",
    b"X-Ticket-Login: bob\r\nX-Ticket-Logout: session",
    b"X-Ticket-Login: bob\r\nX-Ticket-Rotate: 1",
    b"X-Ticket-Login: bob\r\nX-Ticket-Login: bob",
]


def refuses(at, path, ticket=None):
    """A response that nobody could understand does not pass, and has changed nothing."""
    head, body = at.ask(request(path, ticket=ticket))
    return (*verdict_of(head, body), b"set-cookie" in fields_of(head)) == (502, "upstream_malformed", False)


@pytest.mark.parametrize("value", NO_LOGOUT)
@pytest.mark.parametrize("path", ["/out", "/open", "/login"])
def test_whom_to_log_out_is_not_guessed(serving, value, path):
    """Nor is the client told that it is logged out: it sees no response of the application."""
    at, _ = serving({path: b"X-Ticket-Logout: " + value})
    ticket = at.login()
    assert refuses(at, path, ticket)
    assert refuses(at, path) or path == "/out"
    assert is_admitted(at, ticket)


@pytest.mark.parametrize("line", [b"X_Ticket_Logout: session", b"x-ticket.logout: everywhere", b"X-Ticket_Rotate: 1"])
@pytest.mark.parametrize("path", ["/out", "/open"])
def test_an_end_in_an_odd_spelling_does_not_pass_for_done(serving, line, path):
    at, _ = serving({path: line})
    assert refuses(at, path, at.login())


@pytest.mark.parametrize("lines", TWO_WISHES)
@pytest.mark.parametrize("path", ["/out", "/open", "/login"])
@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_wishes_none_is_done_on_any_route(serving, lines, path, is_first):
    parts = lines.split(b"\r\n")
    at, _ = serving({path: b"\r\n".join(parts if is_first else parts[::-1])})
    ticket = at.login()
    assert refuses(at, path, ticket)
    assert is_admitted(at, ticket)
    assert sessions_of(at, "bob") == []


def test_a_client_can_not_rotate(serving):
    at, behind = serving({})
    ticket = at.login()
    head, _ = at.ask(request("/x", "X-Ticket-Rotate: 1", "x_ticket_rotate: 1", ticket=ticket))
    assert b"set-cookie" not in fields_of(head)
    assert b"rotate" not in behind.requests[0][0].lower()
    assert is_admitted(at, ticket)


def test_of_two_that_rotate_the_first_one_s_cookie_stays(serving, monkeypatch):
    at, _ = serving({"/sudo": b"X-Ticket-Rotate: 1"})
    ticket = at.login()
    held = Held(at, monkeypatch, "rotate")
    with at.connect() as one, at.connect() as other:
        one.sendall(request("/sudo", ticket=ticket))
        assert held.is_asked.wait(BOUND_S)
        held.is_asked.clear()
        other.sendall(request("/sudo", ticket=ticket))
        assert held.is_asked.wait(BOUND_S)
        held.go_on()
        heads = [client.read_response()[0] for client in (one, other)]
    assert [status_of(head) for head in heads] == [200, 200]
    [given] = [ticket_of(head) for head in heads if b"set-cookie" in fields_of(head)]
    assert is_admitted(at, given)


def test_with_the_store_away_no_session_goes_on_under_a_new_ticket(serving):
    at, _ = serving({"/sudo": b"X-Ticket-Rotate: 1"})
    ticket = at.login()
    assert is_admitted(at, ticket)
    put_away(at)
    assert verdict_of(*at.ask(request("/sudo", ticket=ticket))) == (503, "store_unavailable")


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("/login", b"X-Ticket-Login: bob"),
        ("/out", b"X-Ticket-Logout: session"),
        ("/out", b"X-Ticket-Logout: everywhere"),
        ("/sudo", b"X-Ticket-Rotate: 1"),
    ],
)
def test_with_the_store_away_whatever_changes_a_session_is_to_be_tried_again_later(serving, path, action):
    at, _ = serving({path: action})
    ticket = at.login()
    assert is_admitted(at, ticket)
    put_away(at)
    head, body = at.ask(request(path, ticket=ticket))
    assert verdict_of(head, body) == (503, "store_unavailable")
    assert fields_of(head)[b"retry-after"] == b"1"
    assert is_admitted(at, ticket)


def test_a_client_that_is_lost_while_its_session_gets_a_new_ticket(serving, monkeypatch):
    at, _ = serving({"/sudo": b"X-Ticket-Rotate: 1"})
    old = at.login()
    held = Held(at, monkeypatch, "rotate")
    with at.connect() as client:
        client.sendall(request("/sudo", ticket=old))
        assert held.is_asked.wait(BOUND_S)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    wait_until(lambda: at.call(lambda: at.worker.proxy.connection_count) == 0, "it is gone")
    other = at.login("bob")
    with at.connect() as client:  # in the slot of the one before
        client.sendall(request("/x", ticket=other))
        assert status_of(client.read_response()[0]) == 200
        held.go_on()
        wait_until(lambda: not is_admitted(at, old), "it is done")
        client.sendall(request("/x", ticket=other))
        assert b"set-cookie" not in fields_of(client.read_response()[0])


def test_a_stream_that_rotates_goes_on_and_the_others_end(gateway, origin):
    """Longer than until its session is looked at again."""

    def serve(connection):
        head, _ = behind.request(connection)
        wish = b"X-Ticket-Rotate: 1\r\n" if b" /sudo " in head else b""
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + wish + b"Content-Length: 1000\r\n\r\nbegin")
        connection.read_all()

    behind = origin(serve)
    at = gateway(behind, routes=[PRIVATE])
    old = at.login()
    with at.connect() as stream, at.connect() as other:
        other.sendall(request("/x", ticket=old))
        assert status_of(other.read_head()) == 200
        assert other.read_exactly(5) == b"begin"
        stream.sendall(request("/sudo", ticket=old))
        new = ticket_of(stream.read_head())
        assert stream.read_exactly(5) == b"begin"
        assert other.read_all() == b""
        looked_at = at.call(lambda: at.cache._near.hits)
        wait_until(lambda: at.call(lambda: at.cache._near.hits) >= looked_at + 2, "the stream is looked at")
        assert at.stats["cut"] == 1
        at.run(at.cache.logout(new))
        assert stream.read_all() == b""


def test_ticket_hash_keeps_who_rotates_with_the_server_that_he_has(gateway, origin):
    servers = [origin(answer=answering(b"X-Ticket-Rotate: 1\r\nX-Name: " + name)) for name in (b"a", b"b", b"c", b"d")]
    upstream = [{"name": "app", "servers": [server.address for server in servers], "balance": "ticket_hash"}]
    at = gateway(routes=[PRIVATE], upstream=upstream)
    ticket = at.login()
    names = set()
    for _ in range(20):
        head, _ = at.ask(request("/x", ticket=ticket))
        names.add(fields_of(head)[b"x-name"])
        ticket = ticket_of(head)
    assert len(names) == 1
