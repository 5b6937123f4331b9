"""What an operator sees when something breaks: eight faults, each on a gateway of two threads with
Redis, as a table; `make drill`.

Beside each fault: what clients saw while it lasted, the lines that the log has gained, and what the
admin listener said in the middle of it. What clients must not see (all but `Fault.allowed`) ends
the program with 1. python -m whole.drill [--only NAME]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.operators_site import with_more
from lab.processes import Site
from lab.redis_servers import Server, wait_until

BOUND_S = 30.0
ANSWER_BOUND_S = 12.0  # a client's patience; longer than the watchdog's
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

CONFIG = with_more(
    """
threads = 2
access_log = "disk/access.log"
drain_timeout_s = 2.0
""",
    """
[[upstream]]
name = "partner"
servers = ["{partner}"]
[[route]]
path = "/open"
auth = "none"
[[route]]
path = "/partner"
auth = "none"
upstream = "partner"
""",
)

KINDS = ("held", "open", "login", "partner")
GAUGES = (
    "workers{",
    "store_shards_away ",
    "worker_restarts_total ",
    "reloads_total{",
    "descriptor_shortages_total ",
    "connections_full_total ",
    "upstream_errors_total ",
    "upstream_up{",
    "access_log_lines_lost_total ",
)


class Scene:
    """A gateway with its Redis and application, and four kinds of clients who ask for as long as it
    stands.
    """

    def __init__(
        self,
        folder: Path,
        *,
        partner: str = "",
        descriptors: int = 0,
        is_log_unread: bool = False,
        redis: Server | None = None,
        store: str = "",
        timeout_ms: int = 1000,
        template: str = CONFIG,
    ) -> None:
        self.folder = folder
        self._exits = contextlib.ExitStack()
        self.redis = redis or Server(folder, {"appendonly": "yes", "appendfsync": "always"})  # a restart loses nothing
        self._exits.callback(self.redis.kill)
        application = subprocess.Popen(
            [sys.executable, "-m", "whole.application"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._exits.callback(application.communicate)
        assert application.stdout
        self._application = f"127.0.0.1:{int(application.stdout.readline())}"
        subprocess.run([sys.executable, "-m", "fastticket", "keygen", "--out", str(folder / "keys.toml")], check=True)
        (folder / "disk").mkdir(exist_ok=True)
        config = template.format(
            store=store or f"redis://{self.redis.address}/0?timeout_ms={timeout_ms}",
            application=self._application,
            partner=partner or self._application,
        )

        def before() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        self.unread: int | None = None
        if is_log_unread:
            self.unread, writing = os.pipe()
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
            self._exits.callback(os.close, self.unread)
            self._exits.callback(os.close, writing)
            stuck = lambda: (before(), os.dup2(writing, 2))  # noqa: E731 - what the gateway does before it starts
            self.site = Site(folder, config, preexec_fn=stuck, pass_fds=(writing,))
        else:
            self.site = Site(folder, config, preexec_fn=before)
        self._exits.callback(self.site.stop)
        self.clients = Clients(self.site.address)
        self._exits.callback(self.clients.stop)

    def close(self) -> None:
        self._exits.close()

    def page(self, path: str) -> tuple[int, str]:
        """The admin listener's answer."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(BOUND_S)
            admin.connect(str(self.folder / "admin.sock"))
            admin.sendall(f"GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n".encode())
            raw = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
        head, _, body = raw.partition("\r\n\r\n")
        return int(head.split(" ")[1]), body

    def figures(self) -> dict[str, float]:
        """Those of GAUGES, by name and labels."""
        lines = [line.removeprefix("fastticket_") for line in self.page("/metrics")[1].splitlines()]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith(GAUGES)}


class Clients:
    """`held`: a session in use; `open`: no ticket needed; `login`; `partner`: of another upstream.

    Two of each ask every 10 ms, on a connection that is kept until it breaks.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._seen: Counter[tuple[str, str]] = Counter()
        self.slowest_s: dict[str, float] = {}
        self._cookie = self._log_in()
        self._threads = [
            threading.Thread(target=self._ask, args=(kind,), daemon=True) for kind in KINDS for _ in range(2)
        ]
        for thread in self._threads:
            thread.start()

    def _log_in(self) -> str:
        connection = http.client.HTTPConnection(*self._address, timeout=ANSWER_BOUND_S)
        connection.request("GET", "/login", headers={"X-User": "alice"})
        cookie = (connection.getresponse().getheader("Set-Cookie") or "").partition(";")[0]
        connection.close()
        assert cookie, "nobody could log in before the fault"
        return cookie

    def _ask(self, kind: str) -> None:
        path, headers = {
            "held": ("/", {"Cookie": self._cookie}),
            "open": ("/open", {}),
            "login": ("/login", {"X-User": "bob"}),
            "partner": ("/partner", {}),
        }[kind]
        connection = http.client.HTTPConnection(*self._address, timeout=ANSWER_BOUND_S)
        while not self._is_over.wait(0.01):
            began_s = time.monotonic()
            try:
                connection.request("GET", path, headers=headers)
                response = connection.getresponse()
                response.read()
                outcome = str(response.status)
            except (OSError, http.client.HTTPException) as error:
                outcome = type(error).__name__
                connection.close()
            with self._lock:
                self._seen[kind, outcome] += 1
                self.slowest_s[kind] = max(self.slowest_s.get(kind, 0.0), time.monotonic() - began_s)
        connection.close()

    def forget(self) -> None:
        """The answers until now."""
        with self._lock:
            self._seen.clear()
            self.slowest_s.clear()

    def seen(self) -> Counter[tuple[str, str]]:
        with self._lock:
            return self._seen.copy()

    def wait_for(self, kind: str, outcome: str, times: int = 20) -> None:
        """Until that has come so often, from now on."""
        before = self.seen()[kind, outcome]
        wait_until(lambda: self.seen()[kind, outcome] >= before + times, f"{times} more of {kind} {outcome}", BOUND_S)

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(BOUND_S)


@dataclass(frozen=True)
class Fault:
    """One row. `breaks` returns when the fault can be seen, `mends` when all is well again."""

    name: str
    scene: Callable[[Path], contextlib.AbstractContextManager[Scene]]
    breaks: Callable[[Scene], None]
    mends: Callable[[Scene], None]
    allowed: frozenset[tuple[str, str]]  #: what clients may see beside 200
    at_first: frozenset[tuple[str, str]] = frozenset()  #: before it, too


@contextlib.contextmanager
def ordinary(folder: Path, **options: object) -> Iterator[Scene]:
    """A scene; its processes end with the block."""
    scene = Scene(folder, **options)  # type: ignore[arg-type]
    try:
        yield scene
    finally:
        scene.close()


@contextlib.contextmanager
def on_small_disk(folder: Path) -> Iterator[Scene]:
    """Its access log is on a file system of 64 kB, or, where nobody may mount one, is /dev/full."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if not is_mounted:
        (disk / "access.log").symlink_to("/dev/full")
    try:
        with ordinary(folder) as scene:
            yield scene
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(disk)], capture_output=True, check=False)


def kill_worker(scene: Scene) -> None:
    """Until another one serves in its place."""
    before = scene.site.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(set(scene.site.workers()) - set(before)) == 1, "a worker in its place", BOUND_S)
    all_serve(scene)
    scene.clients.wait_for("open", "200", 200)


def all_serve(scene: Scene) -> None:
    """Wait until the worker serves."""
    wait_until(lambda: scene.page("/healthz")[0] == 200, "a worker that serves", BOUND_S)


def nothing(_: Scene) -> None:
    """The step of a fault that needs none."""


def store_away(scene: Scene) -> None:
    scene.redis.kill()
    scene.clients.wait_for("login", "503")
    kill_worker(scene)  # what it needed to start once, it does not need again
    scene.clients.wait_for("open", "200")


def store_back(scene: Scene) -> None:
    scene.redis.start()
    scene.clients.wait_for("held", "200", 50)
    scene.clients.wait_for("login", "200")


def name_away(scene: Scene) -> None:
    scene.clients.wait_for("partner", "503")
    kill_worker(scene)


def key_file_broken(scene: Scene) -> None:
    (scene.folder / "keys.toml").rename(scene.folder / "keys.good")
    (scene.folder / "keys.toml").write_text("oops\n")
    scene.site.reload()
    for _ in range(2):
        kill_worker(scene)
    scene.clients.wait_for("held", "200")


def key_file_mended(scene: Scene) -> None:
    (scene.folder / "keys.good").replace(scene.folder / "keys.toml")
    scene.site.reload()
    all_serve(scene)


def disk_full(scene: Scene) -> None:
    log = scene.folder / "disk" / "access.log"
    size = lambda: log.stat().st_size  # noqa: E731
    wait_until(lambda: log.is_symlink() or size() > 60_000, "a full disk", BOUND_S)
    scene.clients.wait_for("held", "200", 200)


def pipe_stuck(scene: Scene) -> None:
    scene.redis.kill()  # which makes lines
    for _ in range(4):
        scene.clients.wait_for("login", "503", 100)


def pipe_read(scene: Scene) -> None:
    assert scene.unread is not None
    reading = scene.unread
    threading.Thread(target=lambda: drain(reading, scene.folder / "log"), daemon=True).start()
    store_back(scene)


def drain(pipe: int, into: Path) -> None:
    """Everything written to a pipe, to its end."""
    with into.open("ab") as file, contextlib.suppress(OSError):
        while data := os.read(pipe, 65536):
            file.write(data)
            file.flush()


def descriptors_gone(scene: Scene) -> None:
    idle = [socket.create_connection(scene.site.address) for _ in range(600)]
    scene.clients.wait_for("held", "200", 50)
    scene.folder.joinpath("idle").write_text(str(len(idle)))
    _held_open.extend(idle)


def clients_gone(_: Scene) -> None:
    while _held_open:
        _held_open.pop().close()


_held_open: list[socket.socket] = []


def worker_stopped(scene: Scene) -> None:
    before = scene.site.workers()
    os.kill(before[0], signal.SIGSTOP)
    wait_until(lambda: scene.page("/healthz")[0] == 503, "a worker that counts as missing", BOUND_S)


def worker_replaced(scene: Scene) -> None:
    wait_until(lambda: scene.page("/healthz")[0] == 200, "a worker again", BOUND_S)
    scene.clients.wait_for("held", "200", 50)


BROKEN = frozenset(
    (kind, how)
    for kind in KINDS
    for how in ("RemoteDisconnected", "ConnectionResetError", "BrokenPipeError", "BadStatusLine", "IncompleteRead")
)
AWAY = frozenset({("login", "503"), ("held", "503")})  # held: of a worker that is new, and holds nobody yet

FAULTS = (
    Fault("store away", ordinary, store_away, store_back, AWAY | BROKEN),
    Fault(
        "name away",
        lambda folder: ordinary(folder, partner="partner.invalid:80"),
        name_away,
        nothing,
        frozenset({("partner", "503")}) | BROKEN,
        frozenset({("partner", "503")}),
    ),
    Fault("key file broken", ordinary, key_file_broken, key_file_mended, BROKEN),
    Fault("log disk full", on_small_disk, disk_full, nothing, frozenset()),
    Fault("log pipe stuck", lambda folder: ordinary(folder, is_log_unread=True), pipe_stuck, pipe_read, AWAY),
    Fault(
        "descriptors gone",
        lambda folder: ordinary(folder, descriptors=256),
        descriptors_gone,
        clients_gone,
        frozenset(),
    ),
    Fault("worker stopped", ordinary, worker_stopped, worker_replaced, BROKEN | {("held", "TimeoutError")}),
    # A store that has to wait for a processor is not away: this row is a test, on a loaded machine.
    Fault("worker killed", lambda folder: ordinary(folder, timeout_ms=5000), kill_worker, nothing, BROKEN),
)


def main() -> int:
    """Play each, print it, and say whether clients saw what they must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="the beginning of a name")
    wanted = parser.parse_args().only
    rows = [fault for fault in FAULTS if fault.name.startswith(wanted)]
    if not rows:
        parser.error(f"there is no row {wanted!r}; there are: {', '.join(fault.name for fault in FAULTS)}")
    bad = 0
    for fault in rows:
        with tempfile.TemporaryDirectory(prefix="drill-", ignore_cleanup_errors=True) as folder:
            bad += not play(fault, Path(folder))
    return 1 if bad else 0


def play(fault: Fault, folder: Path) -> bool:
    """One row, printed. Whether clients saw nothing but what is allowed."""
    with fault.scene(folder) as scene:
        all_serve(scene)
        for kind in KINDS:
            scene.clients.wait_for(kind, "503" if (kind, "503") in fault.at_first else "200", 50)
        before, began = scene.figures(), len(scene.site.log)
        scene.clients.forget()
        fault.breaks(scene)
        pages = {path: scene.page(path) for path in ("/healthz", "/readyz")}
        during = scene.figures()
        fault.mends(scene)
        seen, slowest_s = scene.clients.seen(), dict(scene.clients.slowest_s)
        ended = scene.site.at.end(signal.SIGTERM)
        lines = shortened(scene.site.log[began:])
    print(f"\n### {fault.name}\n")
    for kind in sorted({kind for kind, _ in seen}):
        outcomes = ", ".join(f"{n} x {outcome}" for (k, outcome), n in sorted(seen.items()) if k == kind)
        print(f"- {kind}: {outcomes}; slowest {slowest_s[kind] * 1000:.0f} ms")
    for path, (status, body) in pages.items():
        print(f"- {path}: {status} {json.dumps(json.loads(body))}")
    changed = [f"{name} {before.get(name, 0):g} -> {n:g}" for name, n in during.items() if before.get(name, 0) != n]
    print(f"- /metrics: {'; '.join(changed) or 'nothing changed'}")
    print(f"- SIGTERM: exit code {ended}")
    print("- log:", *lines, sep="\n      ")
    wrong = {(kind, how) for kind, how in seen if how != "200"} - fault.allowed
    if wrong or ended:
        print(f"- WRONG: {sorted(wrong)}, exit code {ended}")
    sys.stdout.flush()
    return not wrong and ended == 0


def shortened(log: str) -> list[str]:
    """Its lines without time and pid, each once, with how often it came."""
    lines = [re.sub(r"^\S+ \S+ ", "", re.sub(r"\b(pid|:)\s?\d{4,6}\b", r"\1 N", line)) for line in log.splitlines()]
    return [f"{line}{f'  (x {n})' if n > 1 else ''}" for line, n in Counter(lines).items()]


if __name__ == "__main__":
    sys.exit(main())
