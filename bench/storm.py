"""A gateway in a storm: reloaded every second, its worker killed every two, under a steady load.
What does a client notice?

    .venv/bin/python bench/storm.py   30 s; exit status 1 if anything failed but on a killed worker
    … --seconds 300 --rate 2000 --connections 64 --threads 2

Method: so many keep-alive connections, each at its own pace; one whose answer says `Connection:
close` is opened anew. Nothing is tried again, and whatever is not answered with 200 and the right
body is a failure, and so is a connection that closes without having said so. A worker that is to
die is stopped first, and what it has accepted is read from /proc: those connections, and no others,
may fail then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import figures
import uvloop
from children import GATEWAY_CORE, LOAD_CORE, START_TIMEOUT_S, Child, claim_machine, run_program
from sessions import make_sessions

SESSIONS = 200
RELOAD_EVERY_S = 1.0
KILL_EVERY_S = 2.0
ANSWER_TIMEOUT_S = 10.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PIDFD_GETFD = 438  # the system call

_libc = ctypes.CDLL(None, use_errno=True)

CONFIG = """
[gateway]
listen = ["127.0.0.1:0"]
threads = {threads}
[ticket]
keys = "keys.toml"
[store]
url = "sqlite:///sessions.db"
[[upstream]]
name = "app"
servers = ["127.0.0.1:{upstream}"]
[[route]]
path = "/"
"""


class Application(asyncio.Protocol):
    """Answers every request alike; heads come whole here, and there are no bodies."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER * data.count(b"\r\n\r\n"))  # type: ignore[attr-defined]


class Storm:
    """The load, and what came of it."""

    def __init__(self, gateway: Child, port: int, tickets: list[str]) -> None:
        self._gateway = gateway
        self._port = port
        self._tickets = tickets
        self._random = random.Random(1)
        self.doomed: set[int] = set()  # ports of clients whose worker was killed
        self.latencies_ms: list[float] = []
        self.expected: Counter[str] = Counter()  # failures
        self.unexpected: list[str] = []
        self.kills = self.reopened = 0

    async def client(self, pace_s: float, end_s: float) -> None:
        """One connection after the other, a request each `pace_s`."""
        due_s = time.monotonic() + self._random.uniform(0, pace_s)
        reader = writer = None
        while due_s < end_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            due_s += pace_s
            try:
                if writer and reader.at_eof():
                    self._failed(writer, "closed while idle, unannounced")
                    writer = None
                if not writer:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    self.reopened += 1
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    closes = await self._ask(reader, writer)
            except (OSError, EOFError, TimeoutError) as error:
                self._failed(writer, f"{type(error).__name__} {error}")
                closes = True
            if closes:
                if writer:
                    writer.close()
                writer = None
        if writer:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection ends with it."""
        asked_s = time.monotonic()
        ticket = self._random.choice(self._tickets)
        writer.write(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or b"Content-Length: 2\r\n" not in head:
            self._failed(writer, head.partition(b"\r\n")[0].decode())
            return True
        if await reader.readexactly(2) != b"ok":
            self._failed(writer, "another body")
        self.latencies_ms.append((time.monotonic() - asked_s) * 1e3)
        return b"\r\nConnection: close\r\n" in head

    def _failed(self, writer: asyncio.StreamWriter | None, what: str) -> None:
        address = writer.get_extra_info("sockname") if writer else None
        if address and address[1] in self.doomed:
            self.expected["while idle" if "idle" in what else "in flight"] += 1
        else:
            self.unexpected.append(f"{time.strftime('%H:%M:%S')} {address}: {what}")

    async def reload(self, end_s: float) -> None:
        """Send SIGHUP every RELOAD_EVERY_S."""
        while time.monotonic() + RELOAD_EVERY_S < end_s:
            await asyncio.sleep(RELOAD_EVERY_S)
            os.kill(self._gateway.pid, signal.SIGHUP)

    async def kill(self, end_s: float) -> None:
        """SIGKILL, to a worker there is then, new or retiring; not in step with the reloads."""
        while time.monotonic() + KILL_EVERY_S < end_s:
            await asyncio.sleep(KILL_EVERY_S * self._random.uniform(0.5, 1.5))
            await asyncio.to_thread(self._kill_one)

    def _kill_one(self) -> None:
        victim = self._random.choice(self._gateway.processes()[1:])
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(victim, signal.SIGSTOP)
            self.doomed |= clients_of(victim, self._port)
            os.kill(victim, signal.SIGKILL)
            self.kills += 1


def clients_of(pid: int, port: int) -> set[int]:
    """The ports of those whose connections to our `port` a process has accepted; it is stopped."""
    found = set()
    pidfd = os.pidfd_open(pid)
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(entry).startswith("socket:"):
            # A copy of the descriptor: to look for the socket in /proc/net/tcp takes a third of a
            # second.
            with socket.socket(fileno=_libc.syscall(PIDFD_GETFD, pidfd, int(entry.name), 0)) as copy:
                if copy.family == socket.AF_INET and copy.getsockname()[1] == port:
                    with contextlib.suppress(OSError):  # it listens, or its client has gone
                        found.add(copy.getpeername()[1])
    os.close(pidfd)
    return found


async def measure(folder: Path, options: argparse.Namespace) -> tuple[Storm, str]:
    """The storm, and the gateway's log."""
    sessions = await asyncio.to_thread(make_sessions, folder, SESSIONS)
    application = await asyncio.get_running_loop().create_server(Application, "127.0.0.1", 0)
    port = application.sockets[0].getsockname()[1]
    (folder / "fastticket.toml").write_text(CONFIG.format(threads=options.threads, upstream=port))
    command = [sys.executable, "-m", "fastticket", "serve", "--config", folder / "fastticket.toml"]
    log = folder / "log"
    gateway = Child(GATEWAY_CORE, command, log)
    try:
        line = await asyncio.to_thread(gateway.read_line, START_TIMEOUT_S)
        storm = Storm(gateway, int(line.rsplit(":", 1)[1]), sessions.cookies["tickets"].read_text().split())
        end_s = time.monotonic() + options.seconds
        pace_s = options.connections / options.rate
        clients = (storm.client(pace_s, end_s) for _ in range(options.connections))
        await asyncio.gather(*clients, storm.reload(end_s), storm.kill(end_s))
    finally:
        await asyncio.to_thread(gateway.stop)
        application.close()
    return storm, log.read_text()


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=2000.0, help="requests/s")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    claim_machine(LOAD_CORE)
    with tempfile.TemporaryDirectory(prefix="fastticket-bench-") as folder:
        storm, log = uvloop.run(measure(Path(folder), options))
    in_order = sorted(storm.latencies_ms)
    p99_ms = in_order[int(len(in_order) * 0.99)]
    failed = storm.expected.total() + len(storm.unexpected)
    requests = len(in_order) + storm.expected["in flight"] + len(storm.unexpected)
    print(f"{requests:,} requests in {options.seconds:g} s on {storm.reopened:,} connections")
    print(f"{log.count(' reloaded: ')} reloads, {log.count('not reloaded')} given up, {storm.kills} workers killed")
    print(f"latency: median {statistics.median(in_order):.2f} ms, p99 {p99_ms:.1f} ms, most {in_order[-1]:.0f} ms")
    print(f"{failed} failures; on a killed worker: {dict(storm.expected)}; others: {len(storm.unexpected)}")
    for line in storm.unexpected[:20]:
        print(f"  {line}")
    found = {
        "storm/requests": figures.figure(requests, "requests"),
        "storm/failed on a killed worker": figures.figure(storm.expected["in flight"], "requests"),
        "storm/closed while idle": figures.figure(storm.expected["while idle"], "connections"),
        "storm/failed otherwise": figures.figure(len(storm.unexpected), "requests"),
        "storm/killed": figures.figure(storm.kills, "workers"),
        "storm/reloads": figures.figure(log.count(" reloaded: "), "reloads"),
        "storm/given up": figures.figure(log.count("not reloaded"), "reloads"),
        "storm/p50": figures.figure(statistics.median(in_order), "ms"),
        "storm/p99": figures.figure(p99_ms, "ms"),
        "storm/most": figures.figure(in_order[-1], "ms"),
    }
    figures.write(options.json, found)
    return 1 if storm.unexpected else 0


if __name__ == "__main__":
    run_program(main)
