"""A worker that hangs is replaced, and no client can make one hang. Real processes."""

import contextlib
import ctypes
import os
import platform
import signal
import threading
from pathlib import Path

import pytest
from conftest import BOUND_S, Client, status_of
from lab.processes import Site
from lab.redis_servers import wait_until

from fastticket.gateway.sharedmemory import Slot
from fastticket.keyfile import create_key_file

EPOLL_WAITS = {"x86_64": ("232", "281"), "aarch64": ("22",)}.get(platform.machine(), ())
WALL = 0x40000000  # waitpid(2): threads, too
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
        started[-1].table = table
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
    at = site(threads=2, watchdog_timeout_s=6.0)
    (hung,) = at.workers()
    at.halt(hung)
    answers = []

    def ask():
        with at.connect() as client:
            client.settimeout(3 * BOUND_S)  # it hangs for 6 s, and its replacement takes its time
            client.sendall(GET)
            answers.append(status_of(client.read_response()[0]))

    clients = [threading.Thread(target=ask) for _ in range(20)]
    for client in clients:
        client.start()
    missing = b'fastticket_workers{state="missing"} 1.0'
    wait_until(lambda: missing in state(at, "/metrics")[1] and state(at, "/readyz")[0] == 503, "it is missing", BOUND_S)
    wait_until(lambda: at.workers() and hung not in at.workers(), "it is replaced", 2 * BOUND_S)
    for client in clients:
        client.join(3 * BOUND_S)
    assert answers == [200] * 20
    wait_until(lambda: f"worker (pid {hung}) is killed: it hangs, for 6 s" in at.log, "it says so", BOUND_S)
    wait_until(lambda: state(at, "/readyz")[0] == 200, "all are there", BOUND_S)


def test_a_worker_that_hangs_while_it_retires_is_no_better(site):
    """Its clients waited for as long as it might have retired."""
    at = site(watchdog_timeout_s=3.0)
    (hung,) = at.workers()
    with at.connect() as client:
        client.sendall(GET)
        assert status_of(client.read_response()[0]) == 200
        at.halt(hung)
        assert at.reload({**at.table, "cache": {"capacity": 1000}}).startswith("reloaded")
        client.sendall(GET)
        assert client.read_all() == b""
    wait_until(lambda: f"(pid {hung}) is killed: it hangs, for 3 s" in at.log, "it says so", BOUND_S)
    assert status_of(at.ask(GET)[0]) == 200


def test_a_worker_that_hangs_during_a_reload_is_replaced(site):
    """The reload comes to nothing, and the next one does not wait for it."""
    at = site(watchdog_timeout_s=3.0)
    (hung,) = at.workers()
    at.halt(hung)
    assert at.reload() == f"not reloaded, the configuration before stays: worker (pid {hung}) was killed by SIGKILL"
    assert status_of(at.ask(GET)[0]) == 200
    assert at.reload().startswith("reloaded: the worker")


def test_who_slept_with_its_supervisor_does_not_hang(site):
    at = site(watchdog_timeout_s=3.0)
    (worker,) = at.workers()
    for pid in (at.pid, worker):
        at.halt(pid)
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


class Stopped:
    """One thread of another process, stopped: the others go on."""

    PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207

    def __init__(self, thread):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._thread = thread
        if self._call(self.PTRACE_SEIZE) < 0:
            pytest.skip(f"ptrace: {os.strerror(ctypes.get_errno())}")
        self._call(self.PTRACE_INTERRUPT)

    def _call(self, request):
        return self._libc.ptrace(request, self._thread, None, None)

    def is_gone(self):
        """Whether it has ended; nobody else is told before this was asked."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._thread, os.WNOHANG | WALL)
        return not os.path.exists(f"/proc/{self._thread}")


def threads_of(pid):
    return [int(thread) for thread in os.listdir(f"/proc/{pid}/task")]


def waits_for_sockets(pid, thread):
    """Whether a thread is in epoll_wait or epoll_pwait."""
    return Path(f"/proc/{pid}/task/{thread}/syscall").read_text().split()[0] in EPOLL_WAITS


def test_a_worker_of_which_one_thread_hangs_is_replaced(site):
    """The event loop runs all the while."""
    at = site(threads=2, watchdog_timeout_s=3.0)
    (hung,) = at.workers()
    (plane,) = wait_until(
        lambda: [thread for thread in threads_of(hung) if thread != hung and waits_for_sockets(hung, thread)], "a plane"
    )
    stopped = Stopped(plane)
    wait_until(stopped.is_gone, "it is killed", 2 * BOUND_S)
    wait_until(lambda: at.workers() and hung not in at.workers(), "it is replaced", BOUND_S)
    wait_until(lambda: f"(pid {hung}) is killed: it hangs, for 3 s" in at.log, "it says so", BOUND_S)
    wait_until(lambda: state(at, "/readyz")[0] == 200, "all are there", BOUND_S)
    assert {status_of(at.ask(GET)[0]) for _ in range(20)} == {200}
