"""An answer that breaks off never looks whole. HTTP/1.0 has no other end of a body than the
connection's: there it is a reset.

Over a Unix socket there is no reset (docs/reference/http.md).
"""

import os
import signal
import socket
import struct
import threading

import pytest
from conftest import BOUND_S, Client, fields_of, status_of
from lab.processes import Nginx, Site
from lab.redis_servers import wait_until

from fastticket.keyfile import create_key_file

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nhello"


def get(ticket=None, minor=0):
    cookie = f"Cookie: ticket={ticket}\r\n" if ticket else ""
    return f"GET / HTTP/1.{minor}\r\nHost: a\r\n{cookie}\r\n".encode()


def end_of(client):
    """(bytes until the connection ends, how it ends)"""
    got = client.buffer
    try:
        while more := client.recv(65536):
            got += more
    except ConnectionResetError:
        return got, "reset"
    return got, "closed"


def fin(connection):
    connection.close()


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    connection.close()


def stall(connection):
    connection.read_all()


def garbage(connection):
    connection.sendall(b"zz\r\n")
    connection.read_all()


class Teller:
    """An origin that says the beginning of an answer, and then, when it is told to (if it stalls,
    at once), `breaks`.
    """

    def __init__(self, begin, breaks):
        self.begin, self.breaks = begin, breaks
        self.go_on = threading.Event()
        if breaks is stall:
            self.go_on.set()

    def __call__(self, connection):
        connection.read_head()
        connection.sendall(self.begin)
        assert self.go_on.wait(BOUND_S)
        self.breaks(connection)


def begin_reading(client, raw):
    """Send a request, and read the head and the first bytes of its answer."""
    client.sendall(raw)
    head = client.read_head()
    assert status_of(head) == 200
    assert client.read_exactly(5) == b"hello"
    return head


BREAKS = [
    pytest.param(CHUNKED, fin, id="chunked, FIN"),
    pytest.param(CHUNKED, reset, id="chunked, RST"),
    pytest.param(CHUNKED, stall, id="chunked, stall"),
    pytest.param(CHUNKED, garbage, id="chunked, malformed"),
    pytest.param(UNTIL_CLOSE, reset, id="no length, RST"),
    pytest.param(UNTIL_CLOSE, stall, id="no length, stall"),
]


@pytest.mark.parametrize(("begin", "breaks"), BREAKS)
@pytest.mark.parametrize("version", ["1.0", "1.0, keep-alive"])
def test_to_a_client_of_http_1_0_it_ends_with_a_reset(gateway, origin, begin, breaks, version):
    behind = Teller(begin, breaks)
    at = gateway(origin(behind), timeouts={"response_body_window_s": 0.3})
    keep_alive = b"Connection: keep-alive\r\n\r\n" if "keep" in version else b"\r\n"
    with at.connect() as client:
        head = begin_reading(client, get().removesuffix(b"\r\n") + keep_alive)
        assert not {b"content-length", b"transfer-encoding"} & set(fields_of(head))
        behind.go_on.set()
        assert end_of(client) == (b"", "reset")
    assert at.stats["cut_short"] == 1


@pytest.mark.parametrize(("begin", "breaks"), BREAKS)
def test_to_a_client_of_http_1_1_the_last_chunk_does_not_come(gateway, origin, begin, breaks):
    """All bytes before it do come."""
    behind = Teller(begin, breaks)
    with gateway(origin(behind), timeouts={"response_body_window_s": 0.3}).connect() as client:
        client.sendall(get(minor=1))
        client.read_head()
        assert client.read_until(b"hello\r\n") == b"5\r\nhello\r\n"
        behind.go_on.set()
        assert end_of(client) == (b"", "closed")


@pytest.mark.parametrize("begin", [CHUNKED + b"0\r\n\r\n", UNTIL_CLOSE])
def test_an_answer_that_is_whole_ends_as_it_should(gateway, origin, begin):
    behind = Teller(begin, fin)
    with gateway(origin(behind)).connect() as client:
        begin_reading(client, get())
        behind.go_on.set()
        assert end_of(client) == (b"", "closed")


def test_a_large_one_that_is_whole_arrives_whole(gateway, origin):
    """Its end is read while much of it still waits for a client that takes little at a time."""
    size = 8_000_000

    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * size)

    with gateway(origin(serve)).connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(get())
        client.read_head()
        assert end_of(client) == (b"x" * size, "closed")


def test_what_a_client_does_not_take_is_not_taken_for_whole(gateway, origin):
    """All of it has been read, and not all of it could be sent."""
    size = 8_000_000

    def serve(connection):
        connection.read_head()
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * size)

    at = gateway(origin(serve), timeouts={"response_body_window_s": 0.3})
    with at.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(get())
        wait_until(lambda: at.call(lambda: at.worker.proxy.connection_count) == 0, "it has gone", BOUND_S)
        got, how = end_of(client)
        assert len(got) < size
        assert how == "reset"


@pytest.mark.parametrize("begin", [CHUNKED, UNTIL_CLOSE])
def test_a_session_that_ends_takes_the_stream_with_it(gateway, origin, begin):
    at = gateway(origin(Teller(begin, stall)), routes=[{"path": "/"}])
    ticket = at.login()
    with at.connect() as client:
        begin_reading(client, get(ticket))
        at.run(at.cache.logout(ticket))
        assert end_of(client) == (b"", "reset")


def test_a_session_that_reaches_its_deadline_takes_the_stream_with_it(gateway, origin):
    at = gateway(
        origin(Teller(CHUNKED, stall)),
        routes=[{"path": "/"}],
        ticket={"idle_timeout_s": 0, "absolute_lifetime_s": 2},
    )
    with at.connect() as client:
        begin_reading(client, get(at.login()))
        assert end_of(client) == (b"", "reset")


@pytest.mark.parametrize("timeouts", [{}, {"response_body_window_s": 0.3}], ids=["malformed", "stalls"])
def test_a_request_that_fails_while_its_answer_goes_on_takes_that_with_it(gateway, origin, timeouts):
    """An application may begin to answer before it has the whole request. A client with an answer
    need not send the rest (RFC 9112, section 9.5), so that of two sides that both stall the
    answer's window ends them.
    """

    def serve(connection):
        connection.read_until(b"abc")
        connection.sendall(CHUNKED)
        connection.read_all()

    with gateway(origin(serve), timeouts=timeouts).connect() as client:
        begin_reading(client, b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        if not timeouts:
            client.shutdown(socket.SHUT_WR)
        assert end_of(client) == (b"", "reset")


# --- real processes


@pytest.fixture
def site(tmp_path, origin):
    create_key_file(tmp_path / "keys.toml")
    made = Site(
        tmp_path,
        {
            "gateway": {"listen": ["127.0.0.1:0"], "drain_timeout_s": 0.3},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///s.db"},
            "upstream": [{"name": "app", "servers": [origin(Teller(CHUNKED, stall)).address]}],
            "route": [{"path": "/", "auth": "none"}],
        },
    )
    yield made
    made.stop()


def test_a_gateway_that_stops_cuts_what_goes_on(site):
    with site.connect() as client:
        begin_reading(client, get())
        os.kill(site.pid, signal.SIGTERM)
        assert end_of(client) == (b"", "reset")


def test_a_worker_that_is_killed_has_said_beforehand_how_its_connections_end(site):
    with site.connect() as client:
        begin_reading(client, get())
        os.kill(site.workers()[0], signal.SIGKILL)
        assert end_of(client) == (b"", "reset")


# --- a balancer that speaks HTTP/1.0, and keeps what looks whole

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi; proxy_cache_path {folder}/cache keys_zone=kept:1m;
  server {{
    listen unix:{folder}/nginx.sock;
    location / {{
      proxy_pass http://{gateway}; proxy_http_version 1.0; proxy_cache kept; proxy_cache_valid 200 1m;
      add_header X-Cache $upstream_cache_status;
    }}
  }}
}}
"""
CACHED = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"


@pytest.mark.parametrize("begin", [CHUNKED, UNTIL_CLOSE], ids=["chunked", "no length"])
def test_a_real_nginx_does_not_cache_a_half(gateway, origin, tmp_path, begin):
    """The second client gets a whole answer, or none; and of one that was whole, the same again."""
    answers = (
        [(CHUNKED, reset), (CHUNKED + b"0\r\n\r\n", fin)]
        if begin is CHUNKED
        else [(UNTIL_CLOSE, reset), (UNTIL_CLOSE, fin)]
    )
    told = iter(answers)

    def serve(connection):
        text, breaks = next(told)
        connection.read_head()
        connection.sendall(CACHED + text.partition(b"\r\n")[2])
        assert begun.acquire(timeout=BOUND_S)
        breaks(connection)

    begun = threading.Semaphore(0)
    at = gateway(origin(serve))
    address = "{}:{}".format(*at.address)
    nginx = Nginx(tmp_path, NGINX.format(folder=tmp_path, gateway=address), f"{tmp_path}/nginx.sock")
    try:
        found = []
        for _ in range(3):
            with Client(f"{tmp_path}/nginx.sock") as client:
                before = at.stats["responses"]
                client.sendall(get())
                wait_until(lambda n=before: at.stats["responses"] > n or has_bytes(client), "it comes", BOUND_S)
                begun.release()
                found.append(fields_of(client.read_head())[b"x-cache"])
                client.read_all()
    finally:
        nginx.stop()
    assert found == [b"MISS", b"MISS", b"HIT"]


def has_bytes(client):
    client.setblocking(False)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        client.settimeout(BOUND_S)
