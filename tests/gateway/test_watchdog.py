"""A worker that hangs is replaced, and no client can make one hang. Real processes."""

import os
import re
import signal
import threading

import pytest
from conftest import BOUND_S, Client, status_of
from lab.processes import Site
from lab.redis_servers import wait_until

from fastticket.gateway.sharedmemory import Slot
from fastticket.keyfile import create_key_file

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def site(tmp_path, origin):
    create_key_file(tmp_path / "keys.toml")
    behind = origin()
    started = []

    def start(route=None, **gateway):
        table = {
            "gateway": {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock", "drain_timeout_s": 2.0, **gateway},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///s.db"},
            "upstream": [{"name": "app", "servers": [behind.address]}],
            "route": [route or {"path": "/", "auth": "none"}],
        }
        started.append(Site(tmp_path, table))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def state(at, path):
    with Client(str(at.folder / "admin.sock")) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head, body = client.read_response()
        return status_of(head), body


def test_a_worker_that_hangs_is_replaced(site):
    """Those that wait in its queue are served by the next one."""
    at = site(workers=2, watchdog_timeout_s=6.0)
    hung = at.workers()[0]
    os.kill(hung, signal.SIGSTOP)
    answers = []
    clients = [threading.Thread(target=lambda: answers.append(status_of(at.ask(GET)[0]))) for _ in range(20)]
    for client in clients:
        client.start()
    wait_until(lambda: state(at, "/readyz")[0] == 503, "it is missing", BOUND_S)
    assert b'fastticket_workers{state="missing"} 1.0' in state(at, "/metrics")[1]
    wait_until(lambda: hung not in at.workers() and len(at.workers()) == 2, "it is replaced", 2 * BOUND_S)
    for client in clients:
        client.join(BOUND_S)
    assert answers == [200] * 20
    assert re.search(rf"worker \d \(pid {hung}\) is killed: it hangs, for 6 s", at.log)
    wait_until(lambda: state(at, "/readyz")[0] == 200, "all are there", BOUND_S)


def test_a_worker_that_hangs_while_it_retires_is_no_better(site):
    """Its clients waited for as long as it might have retired."""
    at = site(watchdog_timeout_s=3.0)
    (hung,) = at.workers()
    with at.connect() as client:
        client.sendall(GET)
        assert status_of(client.read_response()[0]) == 200
        os.kill(hung, signal.SIGSTOP)
        assert at.reload().startswith("reloaded")
        client.sendall(GET)
        assert client.read_all() == b""
    assert f"(pid {hung}) is killed: it hangs, for 3 s" in at.log
    assert status_of(at.ask(GET)[0]) == 200


def test_who_slept_with_its_supervisor_does_not_hang(site):
    at = site(watchdog_timeout_s=3.0)
    (worker,) = at.workers()
    for pid in (at.pid, worker):
        os.kill(pid, signal.SIGSTOP)
    threading.Event().wait(5)
    for pid in (at.pid, worker):
        os.kill(pid, signal.SIGCONT)
    assert status_of(at.ask(GET)[0]) == 200
    threading.Event().wait(1.5)  # it is watched again
    assert at.workers() == [worker]


def test_no_path_makes_an_exemption_take_long(site):
    at = site(route={"path": "/", "exempt": "/(a+)+b"})
    head, _ = at.ask(b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 2000))
    assert status_of(head) == 401
    assert status_of(at.ask(b"GET /%sb HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 2000))[0]) == 200


def test_beats_are_seen_by_who_made_the_slot():
    slot = Slot()
    if (pid := os.fork()) == 0:
        for _ in range(3):
            slot.beat()
        os._exit(0)
    os.waitpid(pid, 0)
    assert slot.beats == 3
