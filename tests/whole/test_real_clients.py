"""Real clients: curl, wrk, h2load, the WebSockets of Python and of Node, and a browser; each logged
in, with a real server behind.
"""

import os
import re

import pytest
from conftest import BOUND_S
from lab.real_programs import DEBIANS_NODE_MODULES, PEERS, nginx, run, uvicorn
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

ROUTES = [
    {"path": "/"},
    {"path": "/login", "auth": "optional", "login": True},
    {"path": "/page", "auth": "none"},
    {"path": "/poll", "auth": "none"},
    {"path": "/publish", "auth": "none"},
]


@pytest.fixture(scope="module")
def application(tmp_path_factory):
    with uvicorn(tmp_path_factory.mktemp("uvicorn")) as address:
        yield address


@pytest.fixture
def at(gateway, application):
    return gateway(application, routes=ROUTES)


def url(at, path="", scheme="http"):
    host, port = at.address
    return f"{scheme}://{host}:{port}{path}"


def cookie(at):
    """A field line that a logged-in client sends."""
    return f"Cookie: ticket={at.login()}"


def curl(at, *arguments):
    return run("curl", "-sS", "--max-time", BOUND_S, "-H", cookie(at), *arguments)


# --- curl


def test_curl_gets(at):
    assert curl(at, url(at, "/whoami")) == "alice"


@pytest.mark.parametrize("framing", [[], ["-H", "Transfer-Encoding: chunked"]], ids=["length", "chunked"])
def test_curl_posts(at, framing):
    assert curl(at, *framing, "-d", "a=1&b=2", url(at, "/echo")) == "a=1&b=2"


def test_curl_uploads_when_it_is_told_to_continue(at, tmp_path):
    """It would wait for that for longer than it may take in all."""
    (tmp_path / "sent").write_bytes(os.urandom(200_000))
    waits = ("-H", "Expect: 100-continue", "--expect100-timeout", 2 * BOUND_S)
    curl(at, *waits, "-T", tmp_path / "sent", "-o", tmp_path / "received", url(at, "/echo"))
    assert (tmp_path / "received").read_bytes() == (tmp_path / "sent").read_bytes()


def test_curl_with_http_1_0_gets_no_chunks_and_a_connection_a_request(at):
    """`--raw`: chunks would be seen."""
    shown = curl(at, "-0", "--raw", "-w", " %{num_connects} ", "-d", "body", url(at, "/echo"), url(at, "/echo"))
    assert shown == "body 1 body 1 "


def test_curl_asks_for_the_head(at):
    head = curl(at, "-I", url(at, "/whoami"))
    assert head.startswith("HTTP/1.1 200 OK\n")
    assert "content-length: 5\n" in head.lower()
    assert head.endswith("\n\n")


def test_curl_wants_http_2_and_is_answered_in_http_1(at):
    """It would upgrade this connection; the body has to arrive all the same."""
    assert curl(at, "--http2", "-w", " %{http_version}", "-d", "body", url(at, "/echo")) == "body 1.1"


@pytest.mark.parametrize("framing", [[], ["-H", "Transfer-Encoding: chunked"]], ids=["length", "chunked"])
def test_curl_reads_why_its_upload_is_refused(at, tmp_path, framing):
    """It is in the middle of it then."""
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 50_000_000)
    upload = ("-T", tmp_path / "large", "-H", "Expect:", *framing, url(at, "/echo"))
    assert run("curl", "-sS", "-w", "%{http_code}", *upload).endswith('"reason": "missing"}\n401')


def test_curl_keeps_its_connection(at):
    assert curl(at, "-w", " %{num_connects} ", url(at, "/whoami"), url(at, "/whoami")) == "alice 1 alice 0 "


# --- load generators


@pytest.fixture
def quick(gateway, tmp_path):
    """A gateway before a server that is not the bottleneck."""
    with nginx(tmp_path) as address:
        yield gateway(address, routes=ROUTES)


def test_wrk_sees_no_error(quick):
    report = run("wrk", "-t1", "-c16", "-d1s", "--timeout", BOUND_S, "-H", cookie(quick), url(quick, "/hello"))
    assert int(re.search(r"(\d+) requests in", report)[1]) > 0
    assert "Socket errors" not in report
    assert "Non-2xx" not in report


def test_h2load_sees_no_error(quick):
    report = run("h2load", "--h1", "-n", 10_000, "-c", 16, "-H", cookie(quick), url(quick, "/hello"))
    assert "10000 succeeded, 0 failed, 0 errored, 0 timeout" in report
    assert "status codes: 10000 2xx" in report


# --- WebSockets


@pytest.fixture
def websocket(at):
    fields = {"Cookie": f"ticket={at.login()}"}
    with connect(url(at, "/socket", "ws"), additional_headers=fields, proxy=None, max_size=None) as socket:
        yield socket


@pytest.mark.parametrize(
    "message", ["text", b"bytes", "", os.urandom(1 << 20)], ids=["text", "bytes", "nothing", "a megabyte"]
)
def test_a_websocket_message_comes_back(websocket, message):
    websocket.send(message)
    assert websocket.recv(BOUND_S) == message


def test_a_websocket_ping_is_answered(websocket):
    assert websocket.ping().wait(BOUND_S)


def test_a_websocket_is_closed_by_the_client(websocket):
    websocket.close(1000, "enough")
    assert websocket.close_code == 1000  # as the server has repeated it


def test_a_websocket_is_closed_by_the_server(websocket):
    websocket.send("bye")
    with pytest.raises(ConnectionClosedError) as closed:
        websocket.recv(BOUND_S)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "bye")


def test_a_websocket_needs_a_ticket(at):
    with pytest.raises(InvalidStatus) as refused:
        connect(url(at, "/socket", "ws"), proxy=None)
    assert refused.value.response.status_code == 401


def test_nodes_websocket(at):
    """The `ws` of Debian, which a Node that is not Debian's does not find by itself."""
    assert (DEBIANS_NODE_MODULES / "ws").exists(), "node-ws is missing; make test installs it"
    places = {**os.environ, "NODE_PATH": str(DEBIANS_NODE_MODULES)}
    ticket = f"ticket={at.login()}"
    said = run("node", PEERS / "websocket_client.js", url(at, "/socket", "ws"), ticket, env=places)
    assert said.splitlines() == ["open", "text", "1048576 bytes", "pong still there?", "close 4000 bye"]


# --- a browser


def test_a_browser_logs_in_and_uses_everything_it_has(at, tmp_path):
    """`peers/page.html` notes each step that it takes."""
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
    page = run("chromium", *flags, f"--user-data-dir={tmp_path}/profile", "--dump-dom", url(at, "/page"))
    assert re.findall("<li>(.*?)</li>", page) == [
        "before: 401",
        "login: 200 welcome",
        "fetch: 200 alice",
        "WebSocket: hello 1000",
        "EventSource: one two end",
    ]
