"""The admin API in trouble: a worker that hangs or dies; clients that are slow, or many, or do not
read. The supervisor answers probes all the while.
"""

import os
import signal
import threading

import pytest
from conftest import BOUND_S, Client, status_of
from lab.operators import Operator
from lab.redis_servers import wait_until

from fastticket.gateway.admin.dispatch import BODY_BYTES_MAX
from fastticket.gateway.admin.listener import OPERATIONS_MAX, STREAMS_MAX
from fastticket.keyfile import create_key_file

HEAD = b"POST /v1/sessions HTTP/1.1\r\nHost: admin\r\nContent-Type: application/json\r\n"


@pytest.fixture
def at(site, tmp_path):
    create_key_file(tmp_path / "keys.toml")
    started = site(
        {
            "gateway": {
                "listen": ["127.0.0.1:0"],
                "admin": "unix:admin.sock",
                "watchdog_timeout_s": 0,
                "drain_timeout_s": 1.0,
            },
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///s.db"},
            "upstream": [{"name": "app", "servers": ["127.0.0.1:9"]}],
            "route": [{"path": "/"}],
        }
    )
    started.path = str(tmp_path / "admin.sock")
    started.operator = Operator(started.path)
    return started


def in_thread(act):
    """What a call returns that goes on meanwhile: a function to wait for it."""
    found = []
    thread = threading.Thread(target=lambda: found.append(act()))
    thread.start()

    def wait():
        thread.join(2 * BOUND_S)
        return found[0]

    return wait


def test_a_worker_that_hangs_or_dies_in_the_middle(at):
    """Each ask comes to an end, and holds up nothing."""
    worker = at.workers()[0]
    at.halt(worker)
    waits = [in_thread(lambda: at.operator.refused("GET", "/v1/sessions/count")) for _ in range(OPERATIONS_MAX + 3)]
    said = []
    while len(said) < len(waits):  # while they wait, probes are answered
        assert at.operator.ask("GET", "/healthz")[0] in (200, 503)
        said.append(waits[len(said)]())
    assert set(said) == {(503, "worker_silent"), (503, "busy")}
    assert said.count((503, "busy")) == 3
    waiting = in_thread(lambda: at.operator.refused("DELETE", "/v1/sessions?yes=true"))
    os.kill(worker, signal.SIGKILL)
    assert waiting() in ((503, "no_worker"), (503, "worker_silent"))
    wait_until(lambda: at.operator.ask("GET", "/v1/sessions/count")[0] == 200, "another worker", BOUND_S)
    assert at.operator.get("/v1/sessions/count") == {"count": 0}


def test_bodies_are_bounded(at):
    for length in (b"", b"Content-Length: %d\r\n" % (BODY_BYTES_MAX + 1), b"Transfer-Encoding: chunked\r\n"):
        with Client(at.path) as client:
            client.sendall(HEAD + length + b"\r\n")
            wanted = {b"": 400, b"T": 411, b"C": 413}[length[:1]]
            assert status_of(client.read_response()[0]) == wanted
    with Client(at.path) as client:  # and what is refused while it is sent is answered all the same
        client.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert status_of(client.read_response()[0]) == 413
    with Client(at.path) as slow:  # one that does not come is not waited for
        slow.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert slow.read_all() == b""
    with Client(at.path) as client:
        body = b'{"principal": "alice"}'
        client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert status_of(client.read_head()) == 100
        client.sendall(body)
        assert status_of(client.read_response()[0]) == 201


def test_streams_are_bounded_and_a_reader_that_does_not_read_is_dropped(at):
    operator = at.operator
    with Client(at.path) as idle:
        idle.sendall(b"GET /v1/events?after=0-1 HTTP/1.1\r\nHost: admin\r\n\r\n")
        idle.recv(1)
        for number in range(400):  # more than fits into the buffers on the way
            operator.do("POST", "/v1/sessions", {"principal": f"{number}{'x' * 180}"})
        wait_until(lambda: "the reader of a stream is dropped" in at.log, "it is dropped", 3 * BOUND_S)
        assert idle.read_all().count(b"event: created") < 400
    streams = [Client(at.path) for _ in range(STREAMS_MAX)]
    try:
        for client in streams:
            client.sendall(b"GET /v1/events HTTP/1.1\r\nHost: admin\r\n\r\n")
            assert status_of(client.read_head()) == 200
        assert operator.refused("GET", "/v1/events") == (503, "busy")
        streams.pop().close()  # one that goes makes room at once
        wait_until(lambda: operator.ask("HEAD", "/v1/events")[0] == 200, "room", BOUND_S)
        assert at.reload().startswith("reloaded")  # ends them: they come back by other rules
        for client in streams:
            assert b"\r\n\r\n" not in client.read_all()[-2:]
    finally:
        for client in streams:
            client.close()
    assert operator.ask("GET", "/healthz")[0] == 200
