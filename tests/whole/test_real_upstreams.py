"""Real servers behind the gateway: nginx, uvicorn, gunicorn, Node and Caddy; what each does with
bodies, streams and connections.
"""

import contextlib
import functools
import json
import os

import pytest
from conftest import fields_of, status_of
from lab.processes import Nginx
from lab.real_programs import caddy, gunicorn, nginx, nginx_config, node, run, uvicorn


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """`serving(server)`: its address. Each is started once for all tests here."""
    with contextlib.ExitStack() as running:
        yield functools.cache(lambda server: running.enter_context(server(tmp_path_factory.mktemp(server.__name__))))


def request(method, path, *fields, body=b""):
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *fields, *length, "", ""]).encode() + body


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def read_chunk(client):
    size = int(client.read_until(b"\r\n"), 16)
    return client.read_exactly(size + 2)[:-2]


# --- streams


def publish(at, message):
    assert status_of(at.ask(request("POST", "/publish", body=message))[0]) == 200


def test_an_event_is_here_before_the_next_one_is_sent(gateway, serving):
    """The application has nothing to send until an event is published, and that is when the one
    before has been read.
    """
    at = gateway(serving(uvicorn))
    with at.connect() as client:
        client.sendall(request("GET", "/events"))
        assert fields_of(client.read_head())[b"content-type"] == b"text/event-stream"
        for message in [b"one", b"two", b"three", b"end"]:
            publish(at, message)
            assert read_chunk(client) == b"data: %b\n\n" % message
        assert read_chunk(client) == b""


def test_many_streams_are_open_at_once(gateway, serving):
    at = gateway(serving(uvicorn))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(at.connect()) for _ in range(50)]
        for number, client in enumerate(clients):
            client.sendall(request("GET", f"/events?{number}"))
            client.read_head()
        for number, client in reversed(list(enumerate(clients))):
            assert status_of(at.ask(request("POST", f"/publish?{number}", body=b"end"))[0]) == 200
            assert read_chunk(client) == b"data: end\n\n"


def test_a_long_poll_is_answered_when_there_is_news(gateway, serving):
    """And then the same connection asks again."""
    at = gateway(serving(uvicorn))
    with at.connect() as client:
        for message in [b"one", b"two"]:
            client.sendall(request("GET", "/poll"))
            publish(at, message)
            assert client.read_response()[1] == message


def test_an_application_learns_that_its_reader_has_left(gateway, serving):
    """By the first message that nobody takes: before, the reader might have closed its own half
    only.
    """
    at = gateway(serving(uvicorn))
    with at.connect() as client:
        client.sendall(request("GET", "/stay"))
        assert status_of(client.read_head()) == 200
    publish(at, b"news")
    assert at.ask(request("GET", "/poll"))[1] == b"left"


@pytest.mark.parametrize("server", [uvicorn, node])
def test_a_conversation_within_one_request(gateway, serving, server):
    """Each piece of the response answers a piece of the request, and the next is sent only then."""
    with gateway(serving(server)).connect() as client:
        client.sendall(request("POST", "/echo", "Transfer-Encoding: chunked") + chunk(b"hello"))
        assert status_of(client.read_head()) == 200
        assert read_chunk(client) == b"hello"
        for piece in [b"how are you?", os.urandom(10_000)]:
            client.sendall(chunk(piece))
            received = b""
            while len(received) < len(piece):
                received += read_chunk(client)
            assert received == piece
        client.sendall(b"0\r\n\r\n")
        assert read_chunk(client) == b""
        client.sendall(request("POST", "/echo", body=b"bye"))
        assert client.read_response()[1] == b"bye"


@pytest.mark.parametrize("server", [uvicorn, node, gunicorn])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_comes_back_equal(gateway, serving, server, framing):
    data = os.urandom(300_000)
    pieces = b"".join(chunk(data[at : at + 7_000]) for at in range(0, len(data), 7_000)) + b"0\r\n\r\n"
    post = functools.partial(request, "POST", "/echo")
    raw = post(body=data) if framing == "length" else post("Transfer-Encoding: chunked") + pieces
    assert gateway(serving(server)).ask(raw)[1] == data


def test_the_application_sees_what_the_gateway_wrote(gateway, serving):
    at = gateway(serving(uvicorn), routes=[{"path": "/"}])
    cookies = f"Cookie: theme=dark; ticket={at.login('alice')}; size=1"
    raw = request("GET", "/fields", cookies, "X-Forwarded-User: mallory", "X-Kept: 1", "Connection: X-Hop", "X-Hop: 1")
    assert json.loads(at.ask(raw)[1]) == [
        ["host", "a"],
        ["cookie", "theme=dark; size=1"],
        ["x-kept", "1"],
        ["x-forwarded-for", "127.0.0.1"],
        ["x-forwarded-proto", "http"],
        ["x-forwarded-host", "a"],
        ["x-forwarded-user", "alice"],
    ]


# --- files


FILE = bytes(range(256)) * 100


@pytest.fixture(scope="module", params=[nginx, caddy], ids=lambda server: server.__name__)
def files(request, tmp_path_factory):
    """A server of `/file`."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "file").write_bytes(FILE)
    with request.param(folder) as address:
        yield address


def test_head_tells_the_length_of_what_it_does_not_send(gateway, files):
    with gateway(files).connect() as client:
        for _ in range(2):  # a body would be taken for the next answer
            client.sendall(request("HEAD", "/file"))
            head = client.read_head()
            assert (status_of(head), fields_of(head)[b"content-length"]) == (200, b"25600")


def test_not_modified(gateway, files):
    with gateway(files).connect() as client:
        client.sendall(request("GET", "/file"))
        head, body = client.read_response()
        tag = fields_of(head)[b"etag"]
        assert (status_of(head), body) == (200, FILE)
        client.sendall(request("GET", "/file", f"If-None-Match: {tag.decode()}"))
        head = client.read_head()
        assert (status_of(head), fields_of(head)[b"etag"]) == (304, tag)
        client.sendall(request("GET", "/file", 'If-None-Match: "another"'))
        assert client.read_response()[1] == FILE


def test_ranges(gateway, files):
    at = gateway(files)
    head, body = at.ask(request("GET", "/file", "Range: bytes=100-299"))
    assert (status_of(head), body) == (206, FILE[100:300])
    assert fields_of(head)[b"content-range"] == b"bytes 100-299/25600"

    head, body = at.ask(request("GET", "/file", "Range: bytes=0-1,-2"))
    assert (status_of(head), body.count(b"Content-Range: bytes ")) == (206, 2)
    assert fields_of(head)[b"content-type"].startswith(b"multipart/byteranges")

    head, _ = at.ask(request("GET", "/file", "Range: bytes=25600-"))
    assert (status_of(head), fields_of(head)[b"content-range"]) == (416, b"bytes */25600")


LITTLE = "dav_methods PUT; client_max_body_size 1k;"


@pytest.mark.parametrize(
    ("framing", "begun"),
    [("Content-Length: 1000000", b"x" * 10), ("Transfer-Encoding: chunked", chunk(b"x" * 2000))],
    ids=["length", "chunked"],
)
def test_an_answer_to_an_upload_that_is_not_over(gateway, tmp_path, framing, begun):
    """nginx refuses a body as soon as it is too large; the client reads that without having sent
    the rest.
    """
    with nginx(tmp_path, LITTLE) as address, gateway(address).connect() as client:
        client.sendall(request("PUT", "/new", framing) + begun)
        head, _ = client.read_response()
        assert (status_of(head), fields_of(head)[b"connection"]) == (413, b"close")
        assert client.read_all() == b""


@pytest.mark.parametrize("framing", [[], ["-H", "Transfer-Encoding: chunked"]], ids=["length", "chunked"])
def test_curl_reads_the_refusal_of_an_upload_that_it_is_in_the_middle_of(gateway, tmp_path, framing):
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 50_000_000)
    with nginx(tmp_path, LITTLE) as address:
        host, port = gateway(address).address
        answer = run("curl", "-sS", "-w", "%{http_code}", "-o", "/dev/null", "-H", "Expect:", *framing,
                     "-T", tmp_path / "large", f"http://{host}:{port}/new")  # fmt: skip
        assert answer == "413"


# --- connections


@pytest.mark.parametrize(
    ("server", "path"),
    [(nginx, "/hello"), (caddy, "/hello"), (uvicorn, "/echo"), (node, "/echo"), (gunicorn, "/echo")],
)
def test_h2load_pipelines_uploads_and_sees_no_error(gateway, serving, tmp_path, server, path):
    (tmp_path / "body").write_bytes(os.urandom(5_000))
    host, port = gateway(serving(server)).address
    load = ("--h1", "-n", 1000, "-c", 16, "-m", 8, "-d", tmp_path / "body")
    assert "1000 succeeded, 0 failed, 0 errored, 0 timeout" in run("h2load", *load, f"http://{host}:{port}{path}")


def test_node_keeps_its_connection(gateway, serving):
    """Its `Keep-Alive` field is between it and the gateway."""
    at = gateway(serving(node))
    heads = [at.ask(request("GET", "/"))[0] for _ in range(5)]
    assert len({fields_of(head)[b"x-connection"] for head in heads}) == 1
    assert not any(b"keep-alive" in fields_of(head) for head in heads)


def test_gunicorn_keeps_none(gateway, serving):
    """Not even for requests that must not be sent twice does the gateway mistake a connection for
    one that goes on.
    """
    at = gateway(serving(gunicorn))
    with at.connect() as client:
        for _ in range(20):
            client.sendall(request("POST", "/pieces", body=b"abc"))
            head, body = client.read_response()
            assert (body, b"connection" in fields_of(head)) == (b"abc", False)
    assert at.stats["upstream_connects"] == 20


@pytest.mark.parametrize("requests_kept", [1, 2, 7])
def test_nginx_closes_after_so_many_requests(gateway, tmp_path, requests_kept):
    with nginx(tmp_path, f"keepalive_requests {requests_kept};") as address, gateway(address).connect() as client:
        for _ in range(50):
            client.sendall(request("POST", "/hello"))
            assert client.read_response()[1] == b"hello"


def get_all(clients, path):
    """The bodies that as many requests at once are answered with; each with 200."""
    for client in clients:
        client.sendall(request("GET", path))
    answers = [client.read_response() for client in clients]
    assert {status_of(head) for head, _ in answers} == {200}
    return {body for _, body in answers}


ROUNDS_MAX = 5000


def test_no_get_fails_while_nginx_reloads(gateway, tmp_path):
    """Its old worker closes idle connections while the gateway uses them."""

    def config(generation):
        return nginx_config(tmp_path, f'location = /generation {{ return 200 "{generation}"; }}')

    with contextlib.ExitStack() as stack:
        server = Nginx(tmp_path, config(0), f"{tmp_path}/nginx.sock")
        stack.callback(server.stop)
        at = gateway(f"unix:{tmp_path}/nginx.sock")
        clients = [stack.enter_context(at.connect()) for _ in range(16)]
        for generation in range(1, 6):
            server.reload(config(generation))
            assert any(get_all(clients, "/generation") == {b"%d" % generation} for _ in range(ROUNDS_MAX))


IMPATIENT = {
    "nginx": lambda folder: nginx(folder, "keepalive_timeout 1ms;"),
    "caddy": lambda folder: caddy(folder, idle="1ms"),
}


@pytest.mark.parametrize("server", IMPATIENT)
def test_no_get_fails_because_an_idle_connection_was_just_closed(gateway, tmp_path, server):
    """A server that gives up an idle connection after a millisecond, until requests and closes have
    crossed each other often.
    """
    with IMPATIENT[server](tmp_path) as address, contextlib.ExitStack() as stack:
        at = gateway(address)
        clients = [stack.enter_context(at.connect()) for _ in range(16)]

        def have_crossed_often():
            assert get_all(clients, "/hello") == {b"hello"}
            return at.stats["retries"] >= 50

        assert any(have_crossed_often() for _ in range(ROUNDS_MAX))
