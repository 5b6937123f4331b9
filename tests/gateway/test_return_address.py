"""The login page is told where a browser wanted to go: a path of this host, never of another."""

import html
import re
import threading
import time
import urllib.parse
from http.server import ThreadingHTTPServer

import pytest
from conftest import fields_of, status_of
from lab.real_programs import run

from fastticket.commands.demo_application import Application, return_address

ROUTES = [{"path": "/login", "auth": "none", "login": True}, {"path": "/"}]
HTML = "Accept: text/html,application/xhtml+xml"


def request(target, *fields, method="GET"):
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", HTML, *fields, "", ""]).encode()


def redirected(at, raw):
    head, _ = at.ask(raw)
    assert status_of(head) == 302
    return fields_of(head)[b"location"].decode()


@pytest.fixture
def at(gateway, origin):
    return gateway(origin(), routes=ROUTES, gateway={"login_url": "/login"})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/orders/7",
        "/orders?page=2&sort=name+desc&q=100%25",
        "/?next=//evil.example&a=\\b",
        "/a%20b/%41?x=%2f%2F",
        "/x?y='\"<>;,:@!$&()*+=~`{|}^[]",
        "/" + "x" * 3000,
    ],
)
def test_path_and_query_are_carried(at, target, method):
    location = redirected(at, request(target, method=method))
    path, _, query = location.partition("?")
    assert path == "/login"
    assert re.fullmatch(r"next=([A-Za-z0-9/._-]|%[0-9A-F]{2})+", query)
    assert urllib.parse.parse_qs(query)["next"] == [target]
    assert return_address(target) == target


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "//evil.example/x",
        "/\\evil.example",
        "/%5cevil.example",
        "/x/..//evil.example",
        "/./",
        "/%2fevil.example",
        "///",
    ],
)
def test_what_a_browser_could_take_for_another_host_is_not(at, target):
    assert redirected(at, request(target)) == "/login"


@pytest.mark.parametrize(
    ("target", "carried"),
    [
        ("http://evil.example/x?y", "/x?y"),
        ("https://evil.example", "/"),
        ("http://evil.example?x", "/?x"),
        ("http://a//evil.example", None),
    ],
)
def test_of_an_absolute_target_the_path_is(at, target, carried):
    location = redirected(at, request(target))
    assert location == "/login" + (f"?next={urllib.parse.quote(carried)}" if carried else "")


def test_what_is_too_long_is_not(at):
    assert redirected(at, request("/" + "x" * 4090)).startswith("/login?next=/xxx")
    assert redirected(at, request("/" + "x" * 4100)) == "/login"
    assert redirected(at, request("/?" + "=" * 1500)) == "/login"


def test_a_request_that_does_more_than_look_is_401(at):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        head, _ = at.ask(request("/x", "Content-Length: 0", method=method))
        assert (status_of(head), b"location" in fields_of(head)) == (401, False)


def test_a_session_that_has_to_be_looked_up_is_no_exception(at, keys):
    """The request has waited, and is read again."""
    ticket = keys.mint("nobody", time.time_ns() // 1_000_000, 60, 60)
    assert at.cache.stats["loads"] == 0
    assert redirected(at, request("/x?y", f"Cookie: ticket={ticket}")) == "/login?next=/x%3Fy"
    assert at.cache.stats["loads"] == 1


@pytest.mark.parametrize(
    ("settings", "location"),
    [
        ({"login_url": "/login?a=b"}, "/login?a=b&next=/x"),
        ({"login_url": "/login?"}, "/login?next=/x"),
        ({"login_url": "/login#/form"}, "/login?next=/x#/form"),
        ({"login_url": "https://sso.example/in?app=1#top"}, "https://sso.example/in?app=1&next=/x#top"),
        ({"login_url": "/login", "next_parameter": "return_to"}, "/login?return_to=/x"),
        ({"login_url": "/login#/form", "next_parameter": ""}, "/login#/form"),
    ],
)
def test_the_parameter_goes_where_parameters_are(gateway, origin, settings, location):
    at = gateway(origin(), routes=ROUTES, gateway=settings)
    assert redirected(at, request("/x")) == location


@pytest.mark.parametrize("name", ["a=b&c", "a b", "a" * 65])
def test_a_name_that_is_none(gateway, origin, name):
    with pytest.raises(Exception, match="next_parameter: must be a name of at most 64 characters"):
        gateway(origin(), gateway={"next_parameter": name})


def test_the_longest_of_everything_is_whole(gateway, origin):
    url, name = "https://sso.example/" + "u" * 200 + "#" + "f" * 80, "n" * 64
    at = gateway(
        origin(), routes=ROUTES, gateway={"login_url": url, "next_parameter": name, "request_id_header": "X-Id"}
    )
    location = redirected(at, request("/" + "x" * 4092))
    assert location == f"https://sso.example/{'u' * 200}?{name}=/{'x' * 4092}#{'f' * 80}"


@pytest.mark.parametrize("wanted", ["/", "/x", "/x?y=//z", "/x/y#z"])
def test_the_demo_goes_where_it_was_wanted(wanted):
    assert return_address(wanted) == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "x",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "http://evil.example",
        "/\t/evil.example",
        "/x\r\ny",
        "/x\n",
        "/é",
        "javascript:1",
    ],
)
def test_the_demo_goes_nowhere_else(wanted):
    assert return_address(wanted) == "/"


def test_a_browser_finds_its_way_back(gateway, tmp_path):
    """Chromium, and the demo's application: where it wanted to go is in the form, and in what that
    is answered with.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        at = gateway(f"127.0.0.1:{server.server_port}", routes=ROUTES, gateway={"login_url": "/login"})
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
        url = f"http://127.0.0.1:{at.address[1]}/whoami?x=1&y"
        page = run("chromium", *flags, f"--user-data-dir={tmp_path}/profile", "--dump-dom", url)
        action = html.unescape(re.search(r'<form method="post" id="login" action="([^"]*)"', page)[1])
        assert action == "/login?next=/whoami%3Fx%3D1%26y"
        form = b"user=alice"
        head, _ = at.ask(request(action, f"Content-Length: {len(form)}", method="POST") + form)
        assert (status_of(head), fields_of(head)[b"location"]) == (303, b"/whoami?x=1&y")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
