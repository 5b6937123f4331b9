"""The endpoint that answers for a ticket: by itself, and behind the gateways that ask it, run from
examples/auth as they are.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BOUND_S, OK, Client, fields_of, status_of
from lab.redis_servers import free_port, wait_until

from fastticket.sessions.ticketcache import checker_of

EXAMPLES = Path(__file__).parents[2] / "examples" / "auth"
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


# --- what the gateway in front says of the request that it has


PUBLIC = [
    LOGIN,
    {"path": "/public", "auth": "none"},
    {"path": "/api", "methods": ["OPTIONS"], "auth": "none"},
    {"path": "/maybe", "auth": "optional"},
    {"path": "/files", "exempt": "/files/open/.*"},
    {"path": "/pay", "consistency": "strong"},
    {"path": "/poll", "touch": False},
    {"path": "/", "host": "open.example", "auth": "none"},
    {"path": "/"},
]


def nginx_says(method, uri, host="a"):
    return "/_ticket/auth", host, [f"X-Original-Method: {method}", f"X-Original-URI: {uri}"], "GET"


def traefik_says(method, uri, host="a"):
    fields = [f"X-Forwarded-Method: {method}", f"X-Forwarded-Uri: {uri}", f"X-Forwarded-Host: {host}"]
    return "/_ticket/auth", "auth.internal", fields, "GET"


def envoy_says(method, uri, host="a"):
    return f"/_ticket/auth{uri}", host, [], method


SAYS = {"nginx": nginx_says, "haproxy": nginx_says, "traefik": traefik_says, "caddy": traefik_says, "envoy": envoy_says}
MAY_PASS = {"nginx": 204, "haproxy": 204, "traefik": 204, "caddy": 204, "envoy": 200}
REDIRECTS = {"nginx": 401, "haproxy": 401, "traefik": 302, "caddy": 302, "envoy": 302}


@pytest.fixture(params=SAYS)
def fronted(request, gateway, origin, tmp_path, monkeypatch):
    """A gateway that such a one asks: `ask(method, uri, ...)`. Before the control plane answers,
    another client's head is read: what waits has to be read again.
    """
    behind = origin()
    settings = {
        "auth_front": request.param,
        "trusted_proxies": ["127.0.0.1/32"],
        "login_url": "/login",
        "access_log": "access.log",
        "access_log_format": "json",
    }
    at = gateway(behind, routes=PUBLIC, gateway={**ENDPOINT, **settings})
    answer = at.service._answers[0]._answer

    async def answer_after_another(asked):
        reader, writer = await asyncio.open_connection(*at.address)
        writer.write(get("/x"))
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401")
        writer.close()
        await answer(asked)

    monkeypatch.setattr(at.service._answers[0], "_answer", answer_after_another)

    def ask(method, uri, *fields, host="a", ticket=None, over=None):
        path, own_host, said, own_method = SAYS[request.param](method, uri, host)
        raw = get(path, *said, *fields, ticket=ticket, method=own_method).replace(
            b"Host: a\r\n", f"Host: {own_host}\r\n".encode()
        )
        if over:  # a connection that goes on
            over.sendall(raw)
            return over.read_head()
        head, _ = at.ask(raw)
        return head

    yield at, ask, request.param
    assert behind.requests == []


def test_the_route_of_the_request_decides(fronted):
    _, ask, front = fronted
    passes = MAY_PASS[front]
    expected = {
        ("GET", "/public/x", "a"): passes,
        ("GET", "/publicx", "a"): 401,
        ("OPTIONS", "/api/x?y=1", "a"): passes,
        ("DELETE", "/api/x", "a"): 401,
        ("GET", "/maybe", "a"): passes,
        ("GET", "/files/open/1", "a"): passes,
        ("GET", "/files/1", "a"): 401,
        ("GET", "/x", "open.example"): passes,
        ("GET", "/x", "open.example:443"): passes,
        ("GET", "/x", "a"): 401,
        ("GET", "/pay", "a"): 401,
        ("GET", "/public/../x", "a"): 401,
        ("GET", "/public//x", "a"): 401,
        ("GET", "/public/%2e%2e/x", "a"): 401,
    }
    for (method, uri, host), status in expected.items():
        head = ask(method, uri, host=host)
        assert (status_of(head), fields_of(head).get(b"x-forwarded-user")) == (
            status,
            b"" if status == passes else None,
        ), uri


def test_who_has_a_ticket_is_named_unless_nobody_looks_at_it(fronted):
    at, ask, front = fronted
    ticket = at.login("alice")
    for uri, user in (
        ("/x", b"alice"),
        ("/maybe", b"alice"),
        ("/files/open/1", b"alice"),
        ("/pay", b"alice"),
        ("/public/x", b""),
    ):
        head = ask("GET", uri, ticket=ticket)
        assert (status_of(head), fields_of(head)[b"x-forwarded-user"]) == (MAY_PASS[front], user), uri


def test_nobody_is_named_by_who_was_there_before_on_the_connection(fronted):
    """Gateways in front ask for all their clients over a few."""
    at, ask, front = fronted
    ticket = at.login("alice")
    with at.connect() as over:
        for uri, given, user in (
            ("/x", ticket, b"alice"),
            ("/public/x", ticket, b""),
            ("/maybe", ticket, b"alice"),
            ("/maybe", None, b""),
            ("/files/open/1", None, b""),
            ("/public/x", None, b""),
        ):
            head = ask("GET", uri, ticket=given, over=over)
            assert (status_of(head), fields_of(head)[b"x-forwarded-user"]) == (MAY_PASS[front], user), uri


def test_a_strong_route_asks_the_store_and_a_poll_is_no_use(fronted):
    at, ask, front = fronted
    ticket = at.login()
    assert status_of(ask("GET", "/x", ticket=ticket)) == MAY_PASS[front]
    loads = at.cache.stats["loads"]
    assert status_of(ask("GET", "/pay", ticket=ticket)) == MAY_PASS[front]
    assert at.cache.stats["loads"] == loads + 1
    held_ms = at.call(lambda: at.cache.check(ticket, touch=False).idle_deadline_ms)
    began_ms = at.call(at.cache.now_ms)
    wait_until(lambda: at.call(at.cache.now_ms) > began_ms + 10, "the clock goes on")
    assert status_of(ask("GET", "/poll", ticket=ticket)) == MAY_PASS[front]
    assert at.call(lambda: at.cache.check(ticket, touch=False).idle_deadline_ms) == held_ms
    assert status_of(ask("GET", "/x", ticket=ticket)) == MAY_PASS[front]
    assert at.call(lambda: at.cache.check(ticket, touch=False).idle_deadline_ms) > held_ms


def test_the_access_log_says_what_was_asked_of_whom(fronted, tmp_path):
    _, ask, _ = fronted
    assert status_of(ask("DELETE", "/orders/7?secret=1", "X-Forwarded-For: 9.9.9.9", host="shop.example")) == 401
    line = json.loads(wait_until((tmp_path / "access.log").read_text, "a line"))
    assert {name: line[name] for name in ("client", "method", "host", "path", "status", "verdict")} == {
        "client": "9.9.9.9",
        "method": "DELETE",
        "host": "shop.example",
        "path": "/orders/7",
        "status": 401,
        "verdict": "missing",
    }


def test_a_browser_is_told_where_to_log_in(fronted):
    """nginx can make a redirect of 401 and Location, and 500 of a redirect; the others pass a
    redirect on.
    """
    _, ask, front = fronted
    for uri, carried in (("/x?a=1&b=2", "?next=/x%3Fa%3D1%26b%3D2"), ("//evil.example", "")):
        for method in ("GET", "HEAD"):
            head = ask(method, uri, "Accept: text/html")
            assert (status_of(head), fields_of(head)[b"location"].decode()) == (REDIRECTS[front], f"/login{carried}")
            assert (b"www-authenticate" in fields_of(head)) == (REDIRECTS[front] == 401)
    for head in (ask("POST", "/x", "Accept: text/html"), ask("GET", "/x", "Accept: */*"), ask("GET", "/x")):
        assert (status_of(head), b"location" in fields_of(head)) == (401, False)


def test_a_browser_whose_session_has_to_be_looked_up_is_told_the_same(fronted):
    """A request that waited for the store is read again, with the fields of the proxy in front."""
    at, ask, front = fronted

    def ticket():  # of a session that nobody has heard of, each time another
        return at.call(lambda: checker_of(at.cache).keys.mint("alice", at.cache.now_ms(), 3600, 3600))

    for uri in ("/x?y", "/files/open/../x"):
        head = ask("GET", uri, "Accept: text/html", ticket=ticket())
        assert status_of(head) == REDIRECTS[front]
    assert status_of(ask("GET", "/files/open/2", ticket=ticket())) == MAY_PASS[front]


@pytest.mark.parametrize(
    "uri", ["", "x", "http://a/public", "*", "/public/x y", "/public/\xe4", "/public/#x", "/public/%00"]
)
def test_what_is_no_target_is_refused(fronted, uri):
    _, ask, front = fronted
    if front != "envoy":  # it is what comes, and is judged as such
        assert status_of(ask("GET", uri)) == 403


AMBIGUOUS = {
    "nginx": [
        ["X-Original-URI: /public"],
        ["X-Original-Method: GET"],
        ["X-Original-Method: GET", "X-Original-URI: /public", "X-Original-URI: /public"],
        ["X-Original-Method: GET", "X_Original_Method: GET", "X-Original-URI: /public"],
        ["X-Original-Method: G T", "X-Original-URI: /public"],
        ["X-Original-Method:", "X-Original-URI: /public"],
    ],
    "traefik": [
        ["X-Forwarded-Method: GET", "X-Forwarded-Uri: /public"],
        ["X-Forwarded-Method: GET", "X-Forwarded-Uri: /public", "X-Forwarded-Host: a", "X-Forwarded-Host: a"],
        ["X-Forwarded-Method: GET", "X-Forwarded-Uri: /public", "X-Forwarded-Host: a b"],
        ["X-Forwarded-Method: GET", "X-Forwarded-Uri: /public", "x_forwarded_uri: /public", "X-Forwarded-Host: a"],
    ],
}


@pytest.mark.parametrize(("front", "said"), [(front, said) for front, cases in AMBIGUOUS.items() for said in cases])
def test_what_can_be_read_in_two_ways_or_in_none_is_refused(gateway, origin, front, said):
    settings = {**ENDPOINT, "auth_front": front, "trusted_proxies": ["127.0.0.1/32"]}
    at = gateway(origin(), routes=PUBLIC, gateway=settings)
    assert status_of(at.ask(get("/_ticket/auth", *said))[0]) == 403
    assert status_of(at.ask(get("/_ticket/auth", *said, ticket=at.login()))[0]) == 403


EVERYTHING = [
    "X-Original-Method: GET",
    "X-Original-URI: /public",
    "X-Forwarded-Method: GET",
    "X-Forwarded-Uri: /public",
    "X-Forwarded-Host: a",
]


@pytest.mark.parametrize(
    "settings",
    [
        {"trusted_proxies": ["127.0.0.1/32"]},
        {"trusted_proxies": ["10.0.0.0/8"], "auth_front": "nginx"},
        {"trusted_proxies": ["10.0.0.0/8"], "auth_front": "caddy"},
        {"trusted_proxies": ["10.0.0.0/8"], "auth_front": "envoy"},
    ],
    ids=["no front", *("not trusted " + front for front in ("nginx", "caddy", "envoy"))],
)
def test_nobody_else_is_believed(gateway, origin, settings):
    """A client gets to the endpoint, too; and where nobody says who asks there, it may be a
    client's word that comes through.
    """
    at = gateway(origin(), routes=PUBLIC, gateway={**ENDPOINT, "login_url": "/login", **settings})
    for path in ("/_ticket/auth", "/_ticket/auth/public"):
        head, _ = at.ask(get(path, *EVERYTHING, "Accept: text/html"))
        assert (status_of(head), b"location" in fields_of(head)) == (401, False)
        assert (
            status_of(at.ask(get(path, *EVERYTHING, ticket=at.login()))[0])
            == MAY_PASS[settings.get("auth_front", "nginx")]
        )


@pytest.mark.parametrize("front", SAYS)
def test_without_a_word_of_a_request_it_is_about_the_ticket(gateway, origin, front):
    """A page asks, through the gateway in front, how long its session still lives."""
    at = gateway(
        origin(), routes=PUBLIC, gateway={**ENDPOINT, "auth_front": front, "trusted_proxies": ["127.0.0.1/32"]}
    )
    assert status_of(at.ask(get("/_ticket/auth?x=/public"))[0]) == 401
    assert status_of(at.ask(get("/_ticket/auth", ticket=at.login()))[0]) == MAY_PASS[front]


def test_a_request_without_a_route_is_403(gateway, origin):
    settings = {**ENDPOINT, "auth_front": "nginx", "trusted_proxies": ["127.0.0.1/32"]}
    at = gateway(origin(), routes=[{"path": "/", "host": "known", "auth": "none"}], gateway=settings)
    said = ("X-Original-Method: GET", "X-Original-URI: /x")
    head, body = at.ask(get("/_ticket/auth", *said))
    assert (status_of(head), b"no_route" in body) == (403, True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"auth_front": "nginx", "trusted_proxies": ["unix"]},
            "auth_front: names the proxy that asks at auth_path, and there is no auth_path",
        ),
        ({**ENDPOINT, "auth_front": "nginx"}, "auth_front: nginx is believed only if it is one of trusted_proxies"),
        ({**ENDPOINT, "auth_front": "apache"}, "auth_front: must be one of"),
    ],
)
def test_a_front_that_could_not_ask(gateway, origin, settings, said):
    with pytest.raises(Exception, match=re.escape(said)):
        gateway(origin(), gateway=settings)


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


def envoy(folder):
    return [program("envoy"), "-c", folder / "envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


def haproxy(folder):
    return [program("haproxy"), "-db", "-f", folder / "haproxy.cfg"]


@pytest.fixture(params=[nginx, caddy, traefik, envoy, haproxy], ids=lambda command: command.__name__)
def front(request, tmp_path, gateway, origin):
    """A gateway of another make that asks ours: its address, our gateway, and the application."""
    answer = [OK]

    def serve(connection):
        while True:
            behind.request(connection)
            connection.sendall(answer[0])

    behind = origin(serve)
    settings = {
        "auth_front": request.param.__name__,
        "trusted_proxies": ["127.0.0.1/32"],
        "login_url": "/login",
        "access_log": "access.log",
        "access_log_format": "json",
    }
    at = gateway(behind, routes=[*PUBLIC, {"path": "/logout"}], gateway={**ENDPOINT, **settings})
    with example(request.param, tmp_path / "front", at.address[1], behind.address.rpartition(":")[2]) as address:
        wait_until(lambda: refuses(address), "it has read its routes")
        yield address, at, behind, answer


@contextlib.contextmanager
def example(command, folder, gateway_port, application_port):
    """The address of one that runs by its example, with these ports in the place of those there."""
    port = free_port()
    shutil.copytree(EXAMPLES, folder)
    for file in folder.iterdir():
        text = file.read_text()
        for there, here in ((8080, port), (8081, gateway_port), (9001, application_port)):
            text = re.sub(rf"\b{there}\b", str(here), text)
        file.write_text(text)
    let_in_everybody(folder)
    process = subprocess.Popen(
        [str(word) for word in command(folder)],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield ("127.0.0.1", port)
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
    """As a client that is none of the proxies."""
    with socket.socket() as client:
        client.bind(("127.0.0.2", 0))
        client.settimeout(BOUND_S)
        client.connect(address)
        with Client(fileno=client.detach()) as client:
            client.sendall(raw)
            return client.read_response(to_head=raw.startswith(b"HEAD "))


def test_the_application_hears_who_it_is_and_nobody_else_gets_there(front):
    address, at, behind, _ = front
    ticket = at.login("alice")
    head, body = ask(address, get("/orders/7", "X-Forwarded-User: root", ticket=ticket))
    assert (status_of(head), body) == (200, b"ok")
    assert [fields_of(head)[b"x-forwarded-user"] for head, _ in behind.requests] == [b"alice"]
    at.run(at.cache.logout(ticket))
    for refused in (get("/orders/7", ticket=ticket), get("/orders/7"), get("/orders/7", "X-Forwarded-User: root")):
        head, _ = ask(address, refused)
        assert status_of(head) == 401
        assert head.lower().count(b"www-authenticate:") == 1
    assert len(behind.requests) == 1


def test_an_error_of_the_application_stays_what_it_is(front):
    address, at, _, answer = front
    answer[0] = OK.replace(b"200 OK", b"500 Internal Server Error")
    assert status_of(ask(address, get("/x", ticket=at.login()))[0]) == 500


def test_a_login_through_it_makes_a_session(front):
    address, _, behind, answer = front
    answer[0] = b"HTTP/1.1 200 OK\r\nX-Ticket-Login: bob\r\nContent-Length: 2\r\n\r\nok"
    head, _ = ask(address, get("/login", method="GET"))
    ticket = fields_of(head)[b"set-cookie"].split(b";")[0].partition(b"=")[2].decode()
    answer[0] = OK
    assert status_of(ask(address, get("/x", ticket=ticket))[0]) == 200
    assert fields_of(behind.requests[-1][0])[b"x-forwarded-user"] == b"bob"


def test_behind_it_the_route_of_a_request_decides(front):
    """Where no ticket is needed nobody is named, whatever the client says."""
    address, at, behind, _ = front
    spoofed = "X-Forwarded-User: root"
    passed = [
        get("/public/x?y=1", spoofed),
        get("/api/x", spoofed, method="OPTIONS"),
        get("/files/open/1", spoofed),
        get("/x", spoofed).replace(b"Host: a\r\n", b"Host: open.example\r\n"),
        get("/public/x", spoofed, ticket=at.login()),
    ]
    for raw in passed:
        assert status_of(ask(address, raw)[0]) == 200, raw
    assert [fields_of(head).get(b"x-forwarded-user", b"") for head, _ in behind.requests] == [b""] * len(passed)
    for raw in (get("/publicx"), get("/api/x"), get("/files/1"), get("/x", method="OPTIONS")):
        assert status_of(ask(address, raw)[0]) == 401, raw
    assert len(behind.requests) == len(passed)


DESCRIPTIONS = [
    "X-Original-Method: OPTIONS",
    "X-Original-URI: /public",
    "X_Original_URI: /public",
    "X-Original-URL: /public",
    "X-Forwarded-Method: OPTIONS",
    "X-Forwarded-Uri: /public",
    "x_forwarded_uri: /public",
    "X-Forwarded-Host: open.example",
    "X-Forwarded-Prefix: /public",
    "X-Http-Method-Override: OPTIONS",
    "X-Rewrite-Url: /public",
    "X-Envoy-Original-Path: /public",
    "Forwarded: host=open.example",
]


def test_behind_it_a_client_s_own_description_gets_nobody_past(front):
    address, _, behind, _ = front
    for said in ([], DESCRIPTIONS, *([one] for one in DESCRIPTIONS), *([one, one] for one in DESCRIPTIONS)):
        for path in ("/private", "/api/private"):
            assert status_of(ask(address, get(path, *said))[0]) in (401, 403), said
    assert behind.requests == []


@pytest.mark.parametrize(
    "path",
    [
        "/public/../x",
        "/public/%2e%2e/x",
        "/public/..%2fx",
        "/public/%2e%2e%2fx",
        "//public",
        "/public//../../x",
        "/public/..;/x",
        "/public\\..\\x",
    ],
)
def test_behind_it_a_path_of_two_readings_gets_nobody_past(front, path):
    """Some proxies rewrite the path before they ask: the application gets the rewritten one."""
    address, _, behind, _ = front
    head, _ = ask(address, get(path))
    if status_of(head) == 200:
        (seen, _), *_ = behind.requests
        assert re.fullmatch(rb"/public(/[a-z]*)?", seen.split()[1]), seen
    else:
        assert behind.requests == []


def test_behind_it_a_browser_is_sent_to_the_login_page_and_told_the_way_back(front):
    address, _, behind, _ = front
    for method in ("GET", "HEAD"):
        head, _ = ask(address, get("/orders?page=2&sort=name", "Accept: text/html,*/*", method=method))
        assert (status_of(head), fields_of(head)[b"location"]) == (302, b"/login?next=/orders%3Fpage%3D2%26sort%3Dname")
    head, _ = ask(address, get("/orders", "Accept: text/html,*/*", method="DELETE"))
    assert (status_of(head), fields_of(head)[b"www-authenticate"]) == (
        401,
        b'Ticket realm="fastticket", error="missing"',
    )
    assert behind.requests == []


@pytest.mark.parametrize("command", [nginx, caddy, envoy, haproxy], ids=lambda command: command.__name__)
def test_a_gateway_that_hangs_is_given_up(tmp_path, command):
    """It accepts and says nothing. Traefik waits for 30 s, and has no setting for it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as hung,
        example(command, tmp_path / "front", hung.getsockname()[1], free_port()) as address,
    ):
        head, _ = wait_until(lambda: answer_of(address), "an answer")
        assert status_of(head) in (503, 504)
        assert fields_of(head).get(b"retry-after") == (b"1" if command is nginx else None)


def answer_of(address):
    """None: it does not listen yet."""
    with contextlib.suppress(ConnectionRefusedError):
        return ask(address, get("/x"))


def test_behind_it_the_access_log_says_who_asked_for_what(front, tmp_path):
    address, at, _, _ = front
    passes = MAY_PASS[at.config.gateway.auth_front]
    raw = get("/orders/7?x=1", ticket=at.login("alice"), method="DELETE").replace(
        b"Host: a\r\n", b"Host: shop.example\r\n"
    )
    assert status_of(ask(address, raw)[0]) == 200

    def line():
        lines = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
        return next((line for line in lines if line.get("path") == "/orders/7"), None)

    found = wait_until(line, "its line")
    wanted = {"client": "127.0.0.2", "principal": "alice", "method": "DELETE", "host": "shop.example", "status": passes}
    assert {name: found[name] for name in wanted} == wanted
