"""How a gateway leaves: noticed before it is gone, by every signal, and without keeping anybody
waiting. Real processes.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import BOUND_S, Client, fields_of, status_of
from lab.processes import Site
from lab.redis_servers import wait_until

from fastticket.keyfile import create_key_file

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@pytest.fixture
def table(tmp_path, origin):
    create_key_file(tmp_path / "keys.toml")

    def serve(connection):
        while True:
            if b"/ws" in connection.read_head():
                connection.sendall(SWITCHING)
                connection.read_all()
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    behind = origin(serve)

    def make(**gateway):
        return {
            "gateway": {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock", **gateway},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///s.db"},
            "upstream": [{"name": "app", "servers": [behind.address]}],
            "route": [{"path": "/", "auth": "none"}],
        }

    return make


def readiness(at):
    with Client(str(at.folder / "admin.sock")) as client:
        client.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        head, body = client.read_response()
        return status_of(head), json.loads(body)["away"]


@pytest.mark.timed
def test_a_balancer_has_time_to_notice(site, table):
    """Not ready at once, and yet whoever comes is served, for one answer each; then it ends."""
    at = site(table(shutdown_delay_s=3.0))
    with at.connect() as early:
        early.sendall(GET)
        assert b"connection" not in fields_of(early.read_response()[0])
        began_s = time.monotonic()
        at.at.process.send_signal(signal.SIGTERM)
        wait_until(lambda: readiness(at) == (503, ["gateway: it stops"]), "it is not ready", BOUND_S)
        head = wait_until(
            lambda: [h for h, _ in [at.ask(GET)] if fields_of(h).get(b"connection") == b"close"], "leaving", BOUND_S
        )
        assert status_of(head[0]) == 200
        early.sendall(GET)
        assert fields_of(early.read_response()[0])[b"connection"] == b"close"
        assert early.read_all() == b""
        assert time.monotonic() - began_s < 3
    assert at.at.process.wait(BOUND_S) == 0
    assert time.monotonic() - began_s >= 3


def test_the_second_signal_ends_the_delay(site, table):
    at = site(table(shutdown_delay_s=60.0))
    at.at.process.send_signal(signal.SIGTERM)
    wait_until(lambda: readiness(at)[0] == 503, "it is not ready", BOUND_S)
    assert at.at.end(signal.SIGTERM) == 0


def test_a_worker_that_dies_while_it_leaves_is_replaced(site, table):
    at = site(table(shutdown_delay_s=60.0))
    at.at.process.send_signal(signal.SIGTERM)
    wait_until(lambda: readiness(at)[0] == 503, "it is not ready", BOUND_S)
    os.kill(at.workers()[0], signal.SIGKILL)
    assert status_of(at.ask(GET)[0]) == 200
    assert at.at.end(signal.SIGTERM) == 0


@pytest.mark.timed
def test_a_restart_on_a_kept_socket_keeps_nobody_waiting_for_a_websocket(site, table):
    """systemd keeps the socket and starts the next one when this one has gone: until then it is
    this one that serves.
    """
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        kept.listen(64)
        at = site(table(listen=[f"fd:{kept.fileno()}"], drain_timeout_s=3.0), pass_fds=[kept.fileno()])
        with at.connect() as tunnel:
            tunnel.sendall(UPGRADE)
            assert status_of(tunnel.read_head()) == 101
            at.at.process.send_signal(signal.SIGTERM)
            worst_s, asked = 0.0, 0
            while at.at.process.poll() is None:
                began_s = time.monotonic()
                with contextlib.suppress(OSError, EOFError), Client(kept.getsockname()) as client:
                    client.settimeout(0.5)  # in the queue when it ended: the next gateway's
                    client.sendall(GET)
                    assert status_of(client.read_response()[0]) == 200
                    asked += 1
                    worst_s = max(worst_s, time.monotonic() - began_s)
                threading.Event().wait(0.02)
        assert at.at.process.wait(BOUND_S) == 0
        assert asked > 10
        assert worst_s < 0.5


@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace is root's to make")
@pytest.mark.parametrize("after_s", [0.1, 0.15, 0.2, 0.3, 0.5, 1.0])
def test_sigterm_ends_pid_1_at_any_moment(tmp_path, table, after_s):
    """A container's first process: the kernel drops signals that it has no handler for. Only
    Python's own start is before that.
    """
    config = Site.__new__(Site)
    config.folder = tmp_path
    config.configure(table())
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "fastticket_start", "serve"]
    with subprocess.Popen(
        [*command, "--config", "fastticket.toml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as unshare:
        first = wait_until(lambda: children_of(unshare.pid), "the first process", BOUND_S)[0]
        wait_until(lambda: handles_sigterm(first), "Python has started", BOUND_S)
        threading.Event().wait(after_s - 0.1)
        os.kill(first, signal.SIGTERM)
        assert unshare.wait(BOUND_S) in (0, 128 + signal.SIGTERM)


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def handles_sigterm(pid):
    with open(f"/proc/{pid}/status") as file:
        caught = next(line for line in file if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_systemd_is_told(site, table, tmp_path, monkeypatch):
    """When it serves, reloads, and stops, and each second that it lives."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(BOUND_S)

        def told():
            while (words := manager.recv(1000)) == b"WATCHDOG=1":
                beats.append(words)
            return words.partition(b"\n")[0]

        beats = []
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        at = site(table())
        assert told() == b"READY=1"
        assert at.reload().startswith("reloaded")
        assert [told(), told()] == [b"RELOADING=1", b"READY=1"]
        assert at.reload("nonsense").startswith("not reloaded")
        assert [told(), told()] == [b"RELOADING=1", b"READY=1"]
        at.at.process.send_signal(signal.SIGTERM)
        assert told() == b"STOPPING=1"
        assert beats
        at.at.process.wait(BOUND_S)
