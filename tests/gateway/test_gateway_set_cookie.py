"""An application that is not trusted with logins cannot set the cookie, in any spelling."""

import pytest
from conftest import OK, fields_of, status_of
from lab.redis_servers import wait_until

ROUTES = [
    {"path": "/login", "auth": "none", "login": True},
    {"path": "/open", "auth": "none"},
    {"path": "/maybe", "auth": "optional"},
    {"path": "/"},
]
#: As a browser reads it (RFC 6265bis): white space around the name goes; a cookie without a name is
#: sent as its value.
SPELLINGS = [
    "ticket={ticket}",
    "ticket={ticket}; Path=/; HttpOnly; SameSite=Lax",
    "ticket={ticket}; Domain=a.test; Path=/x",
    "\t ticket \t= {ticket}",
    "={name}={ticket}",
    " = ticket={ticket}; Path=/",
    "ticket=; Max-Age=0",
]


@pytest.fixture
def serving(gateway, origin):
    """`start(lines)`: an origin that says these field lines in every response."""

    def start(*lines, **tables):
        head = "".join(f"{line}\r\n" for line in lines).encode()
        behind = origin(answer=OK.replace(b"\r\n\r\n", b"\r\n" + head + b"\r\n"))
        return gateway(behind, routes=ROUTES, **tables)

    return start


def cookies_of(at, path, ticket=None, method="GET"):
    cookie = f"Cookie: ticket={ticket}\r\n" if ticket else ""
    head, _ = at.ask(f"{method} {path} HTTP/1.1\r\nHost: a.test\r\n{cookie}\r\n".encode())
    assert status_of(head) == 200
    return [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"set-cookie:")]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("path", ["/open", "/maybe", "/private", "/login/..%2f"])
def test_nobody_is_logged_in_by_who_may_not(serving, spelling, path):
    at = serving("Set-Cookie: theme=dark")
    evil = spelling.format(ticket=at.login("mallory"), name="ticket")
    at = serving("Set-Cookie: theme=dark", f"Set-Cookie: {evil}", f"set-COOKIE: {evil}", "Set-Cookie: a=ticket=b")
    assert cookies_of(at, path, at.login()) == [b"theme=dark", b"a=ticket=b"]
    assert at.stats["cookies_dropped"] == 2


def test_in_a_response_to_head_and_in_one_that_logs_out(serving):
    at = serving("Set-Cookie: ticket=x", "X-Ticket-Logout: session")
    cleared = cookies_of(at, "/x", at.login(), "GET")
    assert cleared
    assert all(line.startswith(b"ticket=; ") and line.endswith(b"Max-Age=0") for line in cleared)
    assert at.stats["cookies_dropped"] == 1


@pytest.mark.parametrize(
    "line", ["Set-Cookie: tickets=x", "Set-Cookie: Ticket=x", "Set-Cookie: ticket", "Set-Cookie: "]
)
def test_other_cookies_pass(serving, line):
    assert cookies_of(serving(line), "/open") == [line.partition(": ")[2].encode()]


def test_the_name_is_the_configured_one(serving):
    at = serving("Set-Cookie: ticket=x", "Set-Cookie: __Host-t=x", ticket={"cookie": "__Host-t", "cookie_secure": True})
    assert cookies_of(at, "/open") == [b"ticket=x"]


def test_an_application_that_may_log_in_may_do_it_itself(serving):
    """One with sessions in the same store (docs/how-to/frameworks.md). If it asks the gateway to do
    it, the gateway's is the only one.
    """
    assert cookies_of(serving("Set-Cookie: ticket=theirs"), "/login") == [b"ticket=theirs"]
    at = serving("Set-Cookie: ticket=theirs", "X-Ticket-Login: alice")
    *cleared, ours = cookies_of(at, "/login")
    assert all(line.startswith(b"ticket=; ") for line in cleared)
    assert ours.startswith(b"ticket=A")


def test_a_response_that_changes_protocols(gateway, origin):
    def serve(connection):
        connection.read_head()
        connection.sendall(
            b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSet-Cookie: ticket=x\r\n\r\n"
        )

    at = gateway(origin(serve))
    with at.connect() as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n"
        )
        head = client.read_head()
        assert (status_of(head), b"set-cookie" in fields_of(head)) == (101, False)


def test_the_operator_hears_of_it(serving, caplog):
    """Which upstream it was, and nothing of the value."""
    at = serving("Set-Cookie: ticket=secret")
    cookies_of(at, "/open")
    server = at.config.upstream[0].servers[0]
    said = f"upstream app: {server} sets the cookie ticket, on a route without login = true: dropped"
    wait_until(lambda: said in caplog.text, "a line")
    assert "secret" not in caplog.text
