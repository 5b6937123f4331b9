"""The endpoint that answers for a ticket: by itself, and behind the gateways that ask it, run from examples/auth as they are."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BOUND_S, OK, Client, fields_of, status_of
from redis_servers import free_port, wait_until

EXAMPLES = Path(__file__).parent.parent / "examples" / "auth"
LOGIN = {"path": "/login", "auth": "none", "login": True}
ROUTES = [LOGIN, {"path": "/logout"}, {"path": "/"}]
ENDPOINT = {"auth_path": "/_ticket/auth"}


def get(path="/_ticket/auth", *fields, ticket=None, method="GET"):
    cookie = [f"Cookie: theme=dark; ticket={ticket}"] if ticket else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *fields, *cookie, "", ""]).encode()


@pytest.fixture
def at(gateway, origin):
    """A gateway with the endpoint, before an origin that must never be asked about it."""
    behind = origin()
    yield gateway(behind, routes=ROUTES, gateway=ENDPOINT)
    assert behind.requests == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PROPFIND"])
def test_a_good_ticket_is_answered_with_its_user(at, method):
    head, body = at.ask(get(ticket=at.login("älice"), method=method))
    assert status_of(head) == 204
    assert body == b""
    fields = fields_of(head)
    assert re.fullmatch(rb"\w{3}, \d\d \w{3} 20\d\d \d\d:\d\d:\d\d GMT", fields.pop(b"date"))
    assert fields == {b"x-forwarded-user": "älice".encode(), b"cache-control": b"no-store"}


def test_a_user_that_the_client_names_is_not_believed(at):
    head, _ = at.ask(get("/_ticket/auth", "X-Forwarded-User: root", ticket=at.login("alice")))
    assert fields_of(head)[b"x-forwarded-user"] == b"alice"


def test_what_is_below_the_path_is_answered_and_what_is_beside_it_is_not(gateway, origin):
    behind = origin()
    at = gateway(behind, routes=ROUTES, gateway=ENDPOINT)
    ticket = at.login()
    assert status_of(at.ask(get("/_ticket/auth/orders/7?x=1", ticket=ticket))[0]) == 204
    assert status_of(at.ask(get("/_ticket/authority", ticket=ticket))[0]) == 200
    assert len(behind.requests) == 1


def test_a_host_with_routes_of_its_own_does_not_hide_it(gateway, origin):
    behind = origin()
    at = gateway(behind, routes=[*ROUTES, {"path": "/", "host": "a", "auth": "none"}], gateway=ENDPOINT)
    assert status_of(at.ask(get())[0]) == 401
    assert status_of(at.ask(get("/x"))[0]) == 200
    assert len(behind.requests) == 1


def test_it_is_off_by_default(gateway, origin):
    behind = origin()
    at = gateway(behind, routes=ROUTES)
    assert status_of(at.ask(get(ticket=at.login()))[0]) == 200
    assert len(behind.requests) == 1


def test_no_ticket_is_401_even_for_a_browser_that_would_be_redirected_elsewhere(gateway, origin):
    """nginx makes 500 of a redirect."""
    at = gateway(origin(), routes=ROUTES, gateway={**ENDPOINT, "login_url": "/login"})
    assert status_of(at.ask(get("/x", "Accept: text/html"))[0]) == 302
    head, body = at.ask(get("/_ticket/auth", "Accept: text/html"))
    assert status_of(head) == 401
    assert b"missing" in body


def test_two_tickets_are_401(at):
    """Everywhere else it is 400; nginx makes 500 of that. A new login cures it."""
    ticket = at.login()
    head, body = at.ask(get("/_ticket/auth", f"Cookie: ticket={ticket}", ticket=ticket))
    assert status_of(head) == 401
    assert b"ambiguous" in body
    assert fields_of(head)[b"www-authenticate"] == b'Ticket realm="fastticket", error="ambiguous"'
    assert fields_of(head)[b"set-cookie"].endswith(b"; Max-Age=0")


def test_a_revoked_ticket_is_401(at):
    ticket = at.login()
    assert status_of(at.ask(get(ticket=ticket))[0]) == 204
    at.run(at.cache.logout(ticket))
    assert status_of(at.ask(get(ticket=ticket))[0]) == 401


def test_a_session_that_is_not_held_here_is_loaded(at):
    ticket = at.login()
    assert status_of(at.ask(get(ticket=ticket))[0]) == 204
    assert at.cache.stats["loads"] == 1


def test_the_connection_stays(at):
    ticket = at.login()
    with at.connect() as client:
        for _ in range(3):
            client.sendall(get(ticket=ticket) * 2)
            for _ in range(2):
                assert status_of(client.read_until(b"\r\n\r\n")) == 204


def test_a_request_with_a_body_is_answered_and_closed_if_the_body_is_not_there(at):
    ticket = at.login()
    with at.connect() as client:
        client.sendall(get("/_ticket/auth", "Content-Length: 5", ticket=ticket, method="POST"))
        head = client.read_until(b"\r\n\r\n")
        assert status_of(head) == 204
        assert fields_of(head)[b"connection"] == b"close"


def test_use_is_noted(at):
    """As soon as the clock has moved on since the login."""
    ticket = at.login()

    def is_noted():
        assert status_of(at.ask(get(ticket=ticket))[0]) == 204
        return at.cache.stats["touches_written"] + at.cache.stats["touches_unwritten"] > 0

    wait_until(is_noted, "a touch")


def test_the_path_must_not_be_a_route(gateway, origin):
    with pytest.raises(Exception, match="the path is there twice"):
        gateway(origin(), routes=[{"path": "/_ticket/auth"}], gateway=ENDPOINT)


# --- behind others


def program(name):
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin")
    assert found, f"{name} is missing; make test installs it"
    return found


def nginx(folder):
    return [
        program("nginx"),
        "-e",
        "stderr",
        "-p",
        folder,
        "-c",
        folder / "nginx.conf",
        "-g",
        "daemon off; pid nginx.pid;",
    ]


def caddy(folder):
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"]


def traefik(folder):
    return [program("traefik"), f"--configFile={folder / 'traefik.yaml'}"]


@pytest.fixture(params=[nginx, caddy, traefik], ids=lambda command: command.__name__)
def front(request, tmp_path, gateway, origin):
    """A gateway of another make that asks ours: its address, our gateway, and the application."""
    answer = [OK]

    def serve(connection):
        while True:
            behind.request(connection)
            connection.sendall(answer[0])

    behind = origin(serve)
    at = gateway(behind, routes=ROUTES, gateway=ENDPOINT)
    port = free_port()
    folder = tmp_path / "front"
    shutil.copytree(EXAMPLES, folder)
    for file in folder.iterdir():
        text = file.read_text()
        for there, here in ((":8080", port), (":8081", at.address[1]), (":9001", behind.address.rpartition(":")[2])):
            text = text.replace(there, f":{here}")
        file.write_text(text)
    let_in_everybody(folder)
    process = subprocess.Popen(
        [str(word) for word in request.param(folder)],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = ("127.0.0.1", port)
    try:
        wait_until(lambda: refuses(address), "it has read its routes")
        yield address, at, behind, answer
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(BOUND_S)


def let_in_everybody(folder):
    """nginx's worker is another user."""
    while folder != folder.parent:
        folder.chmod(folder.stat().st_mode | 0o055)
        folder = folder.parent


def refuses(address):
    with contextlib.suppress(EOFError):
        return status_of(ask(address, get("/x"))[0]) == 401


def ask(address, raw):
    with Client(address) as client:
        client.sendall(raw)
        return client.read_response()


def test_the_application_hears_who_it_is_and_nobody_else_gets_there(front):
    address, at, behind, _ = front
    ticket = at.login("alice")
    head, body = ask(address, get("/orders/7", "X-Forwarded-User: root", ticket=ticket))
    assert (status_of(head), body) == (200, b"ok")
    assert [fields_of(head)[b"x-forwarded-user"] for head, _ in behind.requests] == [b"alice"]
    at.run(at.cache.logout(ticket))
    for refused in (get("/orders/7", ticket=ticket), get("/orders/7"), get("/orders/7", "X-Forwarded-User: root")):
        assert status_of(ask(address, refused)[0]) == 401
    assert len(behind.requests) == 1


def test_a_login_through_it_makes_a_session(front):
    address, _, behind, answer = front
    answer[0] = b"HTTP/1.1 200 OK\r\nX-Ticket-Login: bob\r\nContent-Length: 2\r\n\r\nok"
    head, _ = ask(address, get("/login", method="GET"))
    ticket = fields_of(head)[b"set-cookie"].split(b";")[0].partition(b"=")[2].decode()
    answer[0] = OK
    assert status_of(ask(address, get("/x", ticket=ticket))[0]) == 200
    assert fields_of(behind.requests[-1][0])[b"x-forwarded-user"] == b"bob"
