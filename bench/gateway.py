"""What the gateway costs a request, beside nginx as a plain proxy: CPU, requests a second, latencies, system calls.

    python bench/gateway.py                      20 rounds, about two minutes
    python bench/gateway.py --quick              4 rounds
    python bench/gateway.py --connections 256    the budget of p99 is for so many
    python bench/gateway.py --slice-ms 2000      what is written now and then has its exact share in every slice
    python bench/gateway.py --json FILE          every slice of it, too

Run it in the project's environment, on a machine of two cores or more that has nothing else to do. nginx and gcc must be there;
strace is used if it is.

Method: the gateway under test has core 0 for itself; loader and upstream are one spinning process on core 1 (bench/load.c). All
candidates run from the start and are idle except in their slices, which take turns, in another order each round. CPU is what the
kernel accounts to all threads and processes of a candidate from before a slice until after its last answer, divided by the requests
answered. A ratio is taken within a round, and the median over the rounds is reported, with quartiles. "core" is how much of core 0
a candidate used during its slices: near 100 % it was the bottleneck, as it should be.

fastticket checks a ticket on every request (10,000 sessions in turn), notes its use, and writes the uses to its store, SQLite,
twice a second; all of that is in its CPU. With "lazy touches" it writes a session once a minute (touch_resolution_ms = 60000): the
difference is what the store costs. nginx authenticates nobody. floor passes bytes on unread.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import re
import select
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fastticket

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"

GATEWAY_CORE = 0
LOAD_CORE = 1
SESSIONS = 10_000
SLICE_MS = 400
ROUNDS = 20
QUICK_ROUNDS = 4
WARM_UP_SLICES_MAX = 25
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 15.0
TRACED_MS = 1000
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

REFERENCE = "nginx"
LAZY = "fastticket, lazy touches"
CPU_RATIO_MAX = 0.80
P99_RATIO_MAX = 1.0

NGINX_CONF = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream app {{
        server {upstream};
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""

FASTTICKET_CONF = """\
[gateway]
listen = ["127.0.0.1:0"]
login_url = "/login"
[ticket]
keys = "{keys}"
[store]
url = "sqlite:///{store}"
touch_resolution_ms = {touch_resolution_ms}
[[upstream]]
name = "app"
servers = ["{upstream}"]
[[route]]
path = "/login"
auth = "none"
login = true
[[route]]
path = "/"
auth = "required"
"""


class BenchError(Exception):
    """Nothing to measure: what is missing, or what went wrong."""


# ------------------------------------------------------------------------------------------------------------ processes


class Child:
    """A process of ours on one core, ended with us. Its standard error goes to a file that is shown if it fails."""

    def __init__(self, core: int, command: Sequence[str | Path], log: Path) -> None:
        self._name = " ".join(map(str, command))
        self._log = log
        with log.open("wb") as error:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core), *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=error,
                text=True,
                bufsize=1,
            )
        self.pid = self._process.pid

    def write_line(self, text: str) -> None:
        """To its standard input."""
        assert self._process.stdin
        try:
            self._process.stdin.write(text + "\n")
        except BrokenPipeError:
            raise self.failed("it has ended") from None

    def read_line(self, timeout_s: float) -> str:
        """Of its standard output."""
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise self.failed(f"no word from it in {timeout_s:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise self.failed("it has ended")
        return line

    def failed(self, reason: str) -> BenchError:
        """An error with the end of what it had to say."""
        return BenchError(f"{self._name}: {reason}\n{self._log.read_text(errors='replace')[-2000:]}")

    def processes(self) -> list[int]:
        """Its id, and those of its descendants."""
        children: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(stat.parent.name))
        found = [self.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()


def cpu_ns(pids: Sequence[int]) -> int:
    """What the scheduler has accounted to every thread of these processes. Exact for threads that sleep."""
    return sum(
        int(file.read_text().split()[0]) for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


def user_ns(pids: Sequence[int]) -> int:
    """The part of it that was not in the kernel: sampled at clock ticks, good only in sums."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(values[11]) for values in fields) * TICK_NS


class Loader:
    """`load.c`: loader and upstream."""

    def __init__(self, folder: Path, name: str, connections: int, tickets: Path, unix: bool) -> None:
        where = folder / f"{name}.socket" if unix else "tcp"
        self.child = Child(LOAD_CORE, [BUILD / "load", str(connections), tickets, where], folder / f"{name}.load.log")
        self.upstream: str = json.loads(self.child.read_line(START_TIMEOUT_S))["upstream"]

    def connect(self, port: int) -> None:
        """To the gateway, on 127.0.0.1."""
        self._command(f"connect {port}", START_TIMEOUT_S)

    def slice(self, ms: int) -> dict[str, float]:
        """Load the gateway for so long. What came of it."""
        return self._command(f"slice {ms}", ms / 1000 + 10)

    def _command(self, text: str, timeout_s: float) -> dict[str, float]:
        self.child.write_line(text)
        answer: dict[str, float] = json.loads(self.child.read_line(timeout_s))
        return answer


# ----------------------------------------------------------------------------------------------------------- candidates


@dataclasses.dataclass(frozen=True)
class Scene:
    """What all candidates share."""

    folder: Path
    keys: Path
    sessions: Path
    tickets: Path
    connections: int
    slice_ms: int


class Candidate:
    """A gateway with a loader of its own. `start` starts one in front of an upstream: the process, and its port."""

    def __init__(
        self, name: str, scene: Scene, unix: bool, identifies: bool, start: Callable[..., tuple[Child, int]]
    ) -> None:
        self.name = name
        self._identifies = identifies
        self._slice_ms = scene.slice_ms
        label = re.sub(r"\W+", "-", name)
        with contextlib.ExitStack() as on_failure:
            self._loader = Loader(scene.folder, label, scene.connections, scene.tickets, unix)
            on_failure.callback(self._loader.child.stop)
            self._gateway, port = start(scene, label, self._loader.upstream)
            on_failure.callback(self._gateway.stop)
            self._loader.connect(port)
            self._pids = self._gateway.processes()
            self._warm_up()
            on_failure.pop_all()

    def _warm_up(self) -> None:
        """Every ticket has been seen, then once more."""
        seen = 0
        for _ in range(WARM_UP_SLICES_MAX):
            seen += int(self._loader.slice(self._slice_ms)["requests"])
            if seen >= 2 * SESSIONS:
                self._pids = self._gateway.processes()
                return
        raise self._gateway.failed(f"only {seen} requests in the warm-up")

    def slice(self) -> dict[str, float]:
        """One slice: what the loader saw, and the CPU it took."""
        cpu_before, user_before = cpu_ns(self._pids), user_ns(self._pids)
        seen = self._loader.slice(self._slice_ms)
        requests = seen["requests"]
        if seen["identified"] != (requests if self._identifies else 0):
            raise BenchError(
                f"{self.name}: {seen['identified']} of {requests} requests reached the upstream with a user"
            )
        seen["cpu_us"] = (cpu_ns(self._pids) - cpu_before) / 1e3 / requests
        seen["user_us"] = (user_ns(self._pids) - user_before) / 1e3 / requests
        seen["core_share"] = seen["cpu_us"] * requests / 1e6 / seen["seconds"]
        return seen

    def system_calls(self, folder: Path) -> dict[str, float]:
        """Calls a request, by name. Being traced makes the gateway slow, so its batches are larger than they were."""
        summary = folder / "strace"
        command = ["strace", "-c", "-f", "-qq", "-o", str(summary)]
        for pid in self._pids:
            command += ["-p", str(pid)]
        tracer = subprocess.Popen(["taskset", "-c", str(LOAD_CORE), *command], stderr=subprocess.DEVNULL)
        try:
            time.sleep(0.5)  # it attaches
            requests = self._loader.slice(TRACED_MS)["requests"]
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(STOP_TIMEOUT_S)
        return {name: calls / requests for name, calls in _read_strace(summary.read_text())}

    def stop(self) -> None:
        """Both of it."""
        self._gateway.stop()
        self._loader.child.stop()


def _read_strace(summary: str) -> Iterator[tuple[str, int]]:
    for line in summary.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            yield fields[-1], int(fields[3])


def start_fastticket(scene: Scene, label: str, upstream: str, touch_resolution_ms: int = 0) -> tuple[Child, int]:
    """One worker with the defaults, on a copy of the sessions."""
    store, config = scene.folder / f"{label}.db", scene.folder / f"{label}.toml"
    shutil.copy(scene.sessions, store)
    config.write_text(
        FASTTICKET_CONF.format(keys=scene.keys, store=store, touch_resolution_ms=touch_resolution_ms, upstream=upstream)
    )
    command: list[str | Path] = [sys.executable, "-m", "fastticket", "serve", "--config", config]
    child = Child(GATEWAY_CORE, command, scene.folder / f"{label}.log")
    with _stopped_on_failure(child):
        return child, int(child.read_line(START_TIMEOUT_S).rsplit(":", 1)[1])


def start_nginx(scene: Scene, label: str, upstream: str) -> tuple[Child, int]:
    """One worker, and nothing that a good operator would leave out: no logs, connections that stay, on both sides."""
    folder = scene.folder / label
    folder.mkdir()
    port = _free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX_CONF.format(folder=folder, upstream=upstream, port=port, user=user))
    command = [_nginx(), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    child = Child(GATEWAY_CORE, command, scene.folder / f"{label}.log")
    with _stopped_on_failure(child):
        _wait_for(port, child)
    return child, port


def start_floor(scene: Scene, label: str, upstream: str) -> tuple[Child, int]:
    """`floor.c`."""
    child = Child(GATEWAY_CORE, [BUILD / "floor", upstream.rsplit(":", 1)[1]], scene.folder / f"{label}.log")
    with _stopped_on_failure(child):
        return child, int(json.loads(child.read_line(START_TIMEOUT_S))["listening"])


# Name -> upstream over a Unix socket, names the user to the upstream, how it is started.
CANDIDATES: Mapping[str, tuple[bool, bool, Callable[..., tuple[Child, int]]]] = {
    REFERENCE: (False, False, start_nginx),
    "fastticket": (False, True, start_fastticket),
    LAZY: (False, True, functools.partial(start_fastticket, touch_resolution_ms=60_000)),
    "floor": (False, False, start_floor),
    "nginx, Unix upstream": (True, False, start_nginx),
    "fastticket, Unix upstream": (True, True, start_fastticket),
}


@contextlib.contextmanager
def _stopped_on_failure(child: Child) -> Iterator[None]:
    try:
        yield
    except BaseException:
        child.stop()
        raise


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, child: Child) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise child.failed(f"nobody listens on port {port}")


def _nginx() -> str:
    return shutil.which("nginx") or "/usr/sbin/nginx"


# ---------------------------------------------------------------------------------------------------------------- the run


def build() -> None:
    """The C programs."""
    BUILD.mkdir(exist_ok=True)
    for name in ("load", "floor"):
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", BUILD / name, HERE / f"{name}.c"], check=True
        )


def prepare(folder: Path, connections: int, slice_ms: int) -> Scene:
    """Build the C programs, make keys, sessions and tickets."""
    build()
    scene = Scene(folder, folder / "keys.toml", folder / "sessions.db", folder / "tickets", connections, slice_ms)
    subprocess.run([sys.executable, "-m", "fastticket", "keygen", "--out", scene.keys], check=True)
    asyncio.run(_make_sessions(scene))
    return scene


async def _make_sessions(scene: Scene) -> None:
    store = fastticket.open_store(f"sqlite:///{scene.sessions}")
    async with fastticket.TicketCache(store, fastticket.Keyring.from_file(scene.keys)) as cache:
        tickets = [await cache.login(f"user-{number:05}") for number in range(SESSIONS)]
    scene.tickets.write_text("\n".join(tickets) + "\n")


def measure(candidates: Sequence[Candidate], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Slices of each candidate, one a round."""
    slices: dict[str, list[dict[str, float]]] = {candidate.name: [] for candidate in candidates}
    order = list(candidates)
    for number in range(rounds):
        print(f"\rround {number + 1} of {rounds} ", end="", file=sys.stderr, flush=True)
        for candidate in order:
            slices[candidate.name].append(candidate.slice())
        order = [*order[1:], order[0]]
    print("\r" + " " * 30 + "\r", end="", file=sys.stderr, flush=True)
    return slices


def ratios(slices: Mapping[str, Sequence[Mapping[str, float]]], name: str, value: str) -> list[float]:
    """Candidate ÷ reference, within each round."""
    return [a[value] / b[value] for a, b in zip(slices[name], slices[REFERENCE], strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile."""
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, middle, third


def table(slices: Mapping[str, Sequence[Mapping[str, float]]]) -> Iterator[str]:
    """One row for each candidate."""
    head = f"{'median (quartiles)':26} {'CPU µs/request':>20} {'user':>5} {'÷ nginx':>18} {'requests/s':>10}"
    yield f"{head} {'p50 µs':>7} {'p99 µs':>7} {'p99.9':>7} {'core':>5} {'loader idle':>11}"
    for name, own in slices.items():
        cpu = quartiles([s["cpu_us"] for s in own])
        ratio = quartiles(ratios(slices, name, "cpu_us"))
        total = sum(s["requests"] for s in own)
        user_us = sum(s["user_us"] * s["requests"] for s in own) / total
        rate = statistics.median(s["requests"] / s["seconds"] for s in own)
        p50, p99, p999, core, idle = (
            statistics.median(s[key] for s in own)
            for key in ("p50_us", "p99_us", "p999_us", "core_share", "idle_share")
        )
        yield (
            f"{name:26} {cpu[1]:7.2f} ({cpu[0]:.2f}-{cpu[2]:.2f}) {user_us:5.1f} {ratio[1]:5.2f} ({ratio[0]:.2f}-{ratio[2]:.2f})"
            f" {rate:10,.0f} {p50:7,.0f} {p99:7,.0f} {p999:7,.0f} {core:5.0%} {idle:11.0%}"
        )


def budgets(slices: Mapping[str, Sequence[Mapping[str, float]]], connections: int) -> Iterator[str]:
    """Those of the design that are measured here."""
    cpu = statistics.median(ratios(slices, "fastticket", "cpu_us"))
    p99 = statistics.median(ratios(slices, "fastticket", "p99_us"))
    yield f"CPU per authenticated request ÷ nginx proxy_pass: {cpu:.2f}, wanted ≤ {CPU_RATIO_MAX:g}: {_met(cpu, CPU_RATIO_MAX)}"
    note = "" if connections == 256 else " (a budget for 256)"
    yield f"p99 at {connections} connections{note} ÷ nginx: {p99:.2f}, wanted ≤ {P99_RATIO_MAX:g}: {_met(p99, P99_RATIO_MAX)}"


def _met(value: float, bound: float) -> str:
    return "met" if value <= bound else "MISSED"


def environment() -> dict[str, Any]:
    """What was measured, and where."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    nginx = subprocess.run([_nginx(), "-v"], capture_output=True, text=True, check=True).stderr
    return {
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
        "machine": f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "uvloop": importlib.metadata.version("uvloop"),
        "openssl": ssl.OPENSSL_VERSION,
        "nginx": nginx.strip().rpartition("/")[2],
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", HERE, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything; what the JSON file holds."""
    names = options.only or list(CANDIDATES)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastticket-bench-")))
        scene = prepare(folder, options.connections, options.slice_ms)
        candidates = []
        for name in names:
            unix, identifies, start = CANDIDATES[name]
            candidates.append(Candidate(name, scene, unix, identifies, start))
            stack.callback(candidates[-1].stop)
        slices = measure(candidates, QUICK_ROUNDS if options.quick else options.rounds)
        calls = {c.name: c.system_calls(folder) for c in candidates} if shutil.which("strace") else {}
    settings = {"connections": options.connections, "sessions": SESSIONS, "slice_ms": options.slice_ms}
    return {"environment": environment(), "settings": settings, "slices": slices, "system_calls": calls}


def report(result: Mapping[str, Any]) -> Iterator[str]:
    """The result, to be read."""
    settings, slices = result["settings"], result["slices"]
    yield ", ".join(f"{name} {value}" for name, value in {**result["environment"], **settings}.items())
    yield ""
    if REFERENCE in slices:
        yield from table(slices)
    yield ""
    for name, calls in result["system_calls"].items():
        often = sorted(((count, call) for call, count in calls.items() if count >= 0.005), reverse=True)
        yield f"system calls a request, {name}: " + ", ".join(f"{call} {count:.2f}" for count, call in often)
    if result["system_calls"]:
        yield ""
    if {REFERENCE, "fastticket"} <= set(slices):
        yield from budgets(slices, settings["connections"])


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="CPU per request of the gateway, beside nginx.")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="%(default)s")
    parser.add_argument("--slice-ms", type=int, default=SLICE_MS, help="%(default)s")
    parser.add_argument("--connections", type=int, default=64, help="%(default)s")
    parser.add_argument(
        "--only", action="append", choices=CANDIDATES, help="this candidate; repeatable; ratios need nginx"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every slice to it")
    options = parser.parse_args()
    if {GATEWAY_CORE, LOAD_CORE} - os.sched_getaffinity(0):
        raise BenchError(f"cores {GATEWAY_CORE} and {LOAD_CORE} are needed, each for one process")
    os.sched_setaffinity(0, {LOAD_CORE})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended"))  # so that all is put away
    result = run(options)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    for line in report(result):
        print(line)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
