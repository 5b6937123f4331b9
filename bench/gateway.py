"""What a gateway costs a request, ours beside those that users would pick instead: CPU, requests a
second, latencies, system calls. At 64 connections, and some of them at 256 as well.

    .venv/bin/python bench/gateway.py   every candidate, 20 rounds, about six minutes
    … --quick                4 rounds of those that budgets name, one minute and a half
    … --only nginx fastticket
    … --connections 64       and not the run at 256 beside it
    … --wrk                  wrk, and an nginx as the upstream, instead of load.c: see below
    … --json FILE            the figures

Run it by `make bench-gateway`, which installs the candidates, on a machine of two cores that has
nothing else to do.

Method: the gateway under test has core 0 for itself (with its Redis, if it asks one); loader and
upstream are one spinning process on core 1 (load.c), which is also the auth server for those that
ask one. All candidates run from the start and are idle except in their slices, which take turns, in
another order each round. CPU is what the kernel accounts to all threads and processes of a
candidate from before a slice until after its last answer, divided by the requests answered; a
Redis' is shown apart. A ratio is taken within a round, and the median over the rounds is reported,
with quartiles. "core" is how much of core 0 was used in a candidate's slices: near 100 % it was the
bottleneck, as it should be. Every answer is checked, and that the user was named to the upstream by
those that authenticate.

fastticket checks a ticket on every request (10,000 sessions in turn), notes its use, and writes the
uses to its store twice a second. What is written after a slice has ended is in nobody's: --slice-ms
2000 holds the exact share, and differs from the short slices by less than 0.02 in the ratio to
nginx. With "lazy touches" it writes a session when a minute has passed since it last did.

With --wrk, core 1 holds wrk and an nginx that answers (and that is the auth server), and is the
bottleneck for everything fast: the requests/s of all come out alike, and ratios shrink towards 1;
even `floor` gains nothing. A check on the order of things, no more.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import budgets
import figures
from candidates import CANDIDATES, PEERS, Candidate, Stage, program_path
from children import (
    LOAD_CORE,
    START_TIMEOUT_S,
    BenchError,
    Child,
    claim_machine,
    cpu_ns,
    free_port,
    run_program,
    system_calls,
    user_ns,
)
from loader import Loader, build
from sessions import Sessions, make_sessions, redis_commands

SESSIONS = 10_000
SLICE_MS = 400
ROUNDS = 20
QUICK_ROUNDS = 4
WARM_UP_SLICES_MAX = 40
TRACED_MS = 500
WRK_S = 2
WRK_ROUNDS = 3

REFERENCE = "nginx"
OURS = "fastticket"
TWO_THREADS = "fastticket, 2 threads"
UNIX = "fastticket, Unix upstream"
QUICK = [
    REFERENCE,
    OURS,
    TWO_THREADS,
    UNIX,
    "nginx, auth_request",
    "nginx, Lua, HMAC, Redis",
    "haproxy, jwt_verify",
]
QUICK += ["naive: GET, EXPIRE", "floor: 2 recv, 2 send"]

MANY_CONNECTIONS = 256
AT_MANY = [REFERENCE, OURS, TWO_THREADS, UNIX, "haproxy, jwt_verify"]

# What is divided by what, within each round.
RATIOS = [
    (OURS, REFERENCE),
    (TWO_THREADS, OURS),
    (OURS, "nginx, auth_request"),
    (OURS, "haproxy, jwt_verify"),
    (OURS, "nginx, Lua, HMAC, Redis"),
    ("naive: aiohttp, itsdangerous", OURS),
    ("naive: GET, EXPIRE", OURS),
]
CONNECTIONS = 64

Slices = Mapping[str, Sequence[Mapping[str, float]]]


class Running:
    """A candidate that runs, with a loader of its own."""

    def __init__(self, name: str, candidate: Candidate, folder: Path, sessions: Sessions, connections: int) -> None:
        self.name = name
        self._candidate = candidate
        self._connections = connections
        label = re.sub(r"\W+", "-", name)
        with contextlib.ExitStack() as on_failure:
            cookies = sessions.cookies[candidate.cookies]
            self._loader = Loader(folder, label, connections, cookies, candidate.unix)
            on_failure.callback(self._loader.stop)
            self._gateway = candidate.start(Stage(folder, label, self._loader, sessions))
            on_failure.callback(self._gateway.stop)
            if candidate.identifies and not candidate.is_vouched_for:
                self._see_it_refuse(cookies.read_text().split()[0])
            self._loader.connect(self._gateway.port)
            self._warm_up()
            on_failure.pop_all()

    def _see_it_refuse(self, cookie: str) -> None:
        """A request without a ticket, and one whose ticket is not what was signed. The loader
        sleeps: nobody else could answer.
        """
        forged = cookie[:-6] + ("A" if cookie[-6] != "A" else "B") + cookie[-5:]
        for fields in ({}, {"Cookie": f"ticket={forged}"}):
            connection = http.client.HTTPConnection("127.0.0.1", self._gateway.port, timeout=START_TIMEOUT_S)
            with contextlib.closing(connection):
                connection.request("GET", "/api/items/00000000", headers=fields)
                if (status := connection.getresponse().status) not in (302, 401, 403):
                    raise BenchError(f"{self.name} has answered {status} to {'a forged' if fields else 'no'} ticket")

    def _warm_up(self) -> None:
        """Every ticket has been seen, then once more; or for so long, if it is slow."""
        seen = 0
        for _ in range(WARM_UP_SLICES_MAX):
            seen += int(self._loader.slice(SLICE_MS, min(self._connections, 256))["requests"])
            if seen >= 2 * SESSIONS:  # a multiple, where there are fewer sessions
                break
        self.pids = self._gateway.child.processes()
        self.redis_port = self._gateway.redis_port
        self.admin_port = self._gateway.admin_port
        self._redis_pids = [self._gateway.redis.pid] if self._gateway.redis else []

    def pace(self, ms: int, rate: int) -> dict[str, float]:
        """So many requests a second for so long. What the loader saw."""
        return self._loader.pace(ms, rate)

    def slice(self, ms: int, at_once: int | None = None) -> dict[str, float]:
        """One slice: what the loader saw, and the CPU it took."""
        cpu_before, user_before, redis_before = cpu_ns(self.pids), user_ns(self.pids), cpu_ns(self._redis_pids)
        seen = self._load(ms, at_once)
        requests = seen["requests"]
        seen["cpu_us"] = (cpu_ns(self.pids) - cpu_before) / 1e3 / requests
        seen["user_us"] = (user_ns(self.pids) - user_before) / 1e3 / requests
        seen["redis_us"] = (cpu_ns(self._redis_pids) - redis_before) / 1e3 / requests
        seen["core_share"] = (seen["cpu_us"] + seen["redis_us"]) * requests / 1e6 / seen["seconds"]
        return seen

    def _load(self, ms: int, at_once: int | None = None) -> dict[str, float]:
        seen = self._loader.slice(ms, at_once)
        named = seen["vouched_for" if self._candidate.is_vouched_for else "identified"]
        if named != (seen["requests"] if self._candidate.identifies else 0):
            raise BenchError(
                f"{self.name}: {named} of {seen['requests']} requests reached the upstream with their user"
            )
        return seen

    def calls(self, folder: Path) -> dict[str, float]:
        """System calls a request, by name. Being traced makes a gateway slow, so its batches are
        larger than they were.
        """
        with system_calls(self.pids, folder) as calls:
            requests = self._load(TRACED_MS)["requests"]
        return {name: count / requests for name, count in calls.items()}

    def redis_commands(self) -> float | None:
        """That Redis was sent for a request, scripts and what they call included."""
        if not self._gateway.redis:
            return None
        before = sum(redis_commands(self._gateway.redis_port).values())
        requests = self._load(TRACED_MS)["requests"]
        return (sum(redis_commands(self._gateway.redis_port).values()) - before) / requests

    def resident_kib(self) -> float:
        """Memory of all its processes; what they share counts once."""
        texts = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids)
        return sum(int(found[1]) for text in texts if (found := re.search(r"^Pss:\s+(\d+)", text, re.M)))

    def require_same_processes(self) -> None:
        """As at the start: else somebody's CPU was not counted."""
        if set(self._gateway.child.processes()) != set(self.pids):
            raise BenchError(f"{self.name}: processes came or went while it was measured")

    def stop(self) -> None:
        """End the gateway and the loader."""
        self._gateway.stop()
        self._loader.stop()


def measure(
    running: Sequence[Running], rounds: int, slice_ms: int, at_once: int | None = None
) -> dict[str, list[dict[str, float]]]:
    """Slices of each candidate, one a round."""
    slices: dict[str, list[dict[str, float]]] = {candidate.name: [] for candidate in running}
    order = list(running)
    for number in range(rounds):
        print(f"\rround {number + 1} of {rounds} ", end="", file=sys.stderr, flush=True)
        for candidate in order:
            slices[candidate.name].append(candidate.slice(slice_ms, at_once))
        order = [*order[1:], order[0]]
    print("\r" + " " * 30 + "\r", end="", file=sys.stderr, flush=True)
    for candidate in running:
        candidate.require_same_processes()
    return slices


def ratios(slices: Slices, above: str, below: str, quantity: str) -> list[float]:
    """One candidate ÷ another, within each round."""
    return [a[quantity] / b[quantity] for a, b in zip(slices[above], slices[below], strict=True)]


def found_figures(
    root: str, slices: Slices, calls: Mapping[str, Mapping[str, float]], commands: Mapping[str, float]
) -> dict[str, figures.Figure]:
    """The figures of the report."""
    found = {}
    for above, below in RATIOS:
        if {above, below} <= set(slices):
            for prefix, quantity in (("", "cpu_us"), ("p99: ", "p99_us")):
                values = ratios(slices, above, below, quantity)
                found[f"{root}/ratio/{prefix}{above} ÷ {below}"] = figures.middle(values, "ratio")
    for name, own in slices.items():
        path = f"{root}/{name}"
        found[f"{path}/cpu"] = figures.middle([s["cpu_us"] for s in own], "µs a request")
        user_us = mean_us(own, "user_us")
        found[f"{path}/user"] = figures.figure(user_us, "µs a request")
        found[f"{path}/system"] = figures.figure(mean_us(own, "cpu_us") - user_us, "µs a request")
        if REFERENCE in slices:
            found[f"{path}/cpu ÷ nginx"] = figures.middle(ratios(slices, name, REFERENCE, "cpu_us"), "ratio")
            found[f"{path}/p99 ÷ nginx"] = figures.middle(ratios(slices, name, REFERENCE, "p99_us"), "ratio")
        found[f"{path}/rate"] = figures.middle([s["requests"] / s["seconds"] for s in own], "requests/s")
        for quantity in ("p50", "p99", "p999"):
            found[f"{path}/{quantity}"] = figures.middle([s[f"{quantity}_us"] for s in own], "µs")
        found[f"{path}/core"] = figures.figure(statistics.median(s["core_share"] for s in own), "share")
        if name in calls:
            found[f"{path}/system calls"] = figures.figure(sum(calls[name].values()), "a request")
        if name in commands:
            found[f"{path}/redis commands"] = figures.figure(commands[name], "a request")
            found[f"{path}/redis"] = figures.figure(mean_us(own, "redis_us"), "µs a request")
    return found


def mean_us(own: Sequence[Mapping[str, float]], quantity: str) -> float:
    """The mean over all requests of all slices."""
    return sum(s[quantity] * s["requests"] for s in own) / sum(s["requests"] for s in own)


def table(found: Mapping[str, figures.Figure], root: str, names: Sequence[str]) -> Iterator[str]:
    """One row for each candidate."""
    yield (
        f"{'median (quartiles)':33} {'CPU µs/request':>20} {'user':>5} {'system':>6} {'Redis':>6} {'÷ nginx':>19} {'requests/s':>10}"
        f" {'p50 µs':>7} {'p99 µs':>7} {'p99.9':>7} {'core':>5} {'calls':>6} {'commands':>8}"
    )
    for name in names:
        yield row(
            name,
            {path.rpartition("/")[2]: value for path, value in found.items() if path.startswith(f"{root}/{name}/")},
        )


def row(name: str, own: Mapping[str, Any]) -> str:
    """A candidate's line of the table."""
    ratio = f"{spread(own['cpu ÷ nginx'], 5)}" if "cpu ÷ nginx" in own else ""
    redis, commands = own.get("redis"), own.get("redis commands")
    calls = f"{own['system calls']['value']:6.2f}" if "system calls" in own else f"{'':6}"
    sent = f"{commands['value']:8.3f}" if commands else ""
    user, system, p50, p99, p999 = (own[quantity]["value"] for quantity in ("user", "system", "p50", "p99", "p999"))
    return (
        f"{name:33} {spread(own['cpu'], 6):>20} {user:5.1f} {system:6.1f} {redis['value'] if redis else 0:6.1f} {ratio:>19}"
        f" {own['rate']['value']:10,.0f} {p50:7,.0f} {p99:7,.0f} {p999:7,.0f} {own['core']['value']:5.0%} {calls} {sent}"
    )


def spread(value: Mapping[str, float], width: int) -> str:
    """A median with its quartiles."""
    return f"{value['value']:{width}.2f} ({value['low']:.2f}-{value['high']:.2f})"


def run(options: argparse.Namespace) -> dict[str, figures.Figure]:
    """Measure the candidates, with one number of connections after the other."""
    found: dict[str, figures.Figure] = {}
    for connections in options.connections:
        root = root_of(connections)
        own = run_with(options, connections, root)
        names = dict.fromkeys(path.split("/")[1] for path in own if path.endswith("/cpu"))
        print(f"\n{connections} connections, {SESSIONS:,} sessions")
        print(*table(own, root, list(names)), "", sep="\n", flush=True)
        found |= own
    return found


def run_with(options: argparse.Namespace, connections: int, root: str) -> dict[str, figures.Figure]:
    """Measure the candidates with so many connections. One that does not start is left out, and
    said to be.
    """
    names = options.only or (QUICK if options.quick else list(CANDIDATES))
    if connections != CONNECTIONS and not options.only:
        names = [name for name in AT_MANY if name in names]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastticket-bench-")))
        sessions = make_sessions(folder, SESSIONS)
        running = []
        for name in names:
            print(f"\rstarting {name:40}", end="", file=sys.stderr, flush=True)
            try:
                running.append(Running(name, CANDIDATES[name], folder, sessions, connections))
            except BenchError as error:
                print(f"\nLEFT OUT: {name}: {error}", flush=True)
            else:
                stack.callback(running[-1].stop)
        if not running:
            raise BenchError("no candidate has started")
        slices = measure(running, QUICK_ROUNDS if options.quick else options.rounds, options.slice_ms)
        calls = {each.name: each.calls(folder) for each in running} if shutil.which("strace") else {}
        commands = {each.name: count for each in running if (count := each.redis_commands()) is not None}
    for name, own in calls.items():
        often = sorted(((count, call) for call, count in own.items() if count >= 0.005), reverse=True)
        print(f"system calls a request, {name}: " + ", ".join(f"{call} {count:.2f}" for count, call in often))
    return found_figures(root, slices, calls, commands)


def root_of(connections: int) -> str:
    """The beginning of the names of the figures."""
    return "gateway" if connections == CONNECTIONS else f"gateway at {connections}"


# ---------------------------------------------------------------------------------- the cross-check


def run_wrk(options: argparse.Namespace) -> dict[str, figures.Figure]:
    """Requests a second of each candidate, from wrk to an nginx that answers, both on core 1."""
    found = {}
    names = options.only or [name for name in QUICK if not CANDIDATES[name].unix]
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(WRK_ROUNDS):
        for name in names:
            with contextlib.ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastticket-bench-")))
                rates[name].append(wrk_rate(name, folder, stack))
    for name, own in rates.items():
        found[f"wrk/{name}/rate"] = figures.middle(own, "requests/s")
        print(f"{name:33} {spread(found[f'wrk/{name}/rate'], 10)} requests/s (wrk and upstream on core 1)")
    return found


def wrk_rate(name: str, folder: Path, stack: contextlib.ExitStack) -> float:
    candidate, sessions = CANDIDATES[name], make_sessions(folder, SESSIONS)
    if candidate.unix:
        raise BenchError(f"{name}: --wrk has no upstream on a Unix socket")
    upstream = Answering(folder)
    stack.callback(upstream.child.stop)
    gateway = candidate.start(Stage(folder, "gateway", upstream, sessions))  # type: ignore[arg-type]
    stack.callback(gateway.stop)
    command = ["taskset", "-c", str(LOAD_CORE), program_path("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{WRK_S}s", "-s"]
    command += [PEERS / "tickets-in-turn.lua", f"http://127.0.0.1:{gateway.port}/api/items"]
    command += ["--", sessions.cookies[candidate.cookies]]
    subprocess.run(command, check=True, capture_output=True)  # warm
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise BenchError(f"{name}: {said}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert rate
    return float(rate[1])


class Answering:
    """An nginx that answers everything, for --wrk: in the place of `Loader`."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.upstream = self.auth = f"127.0.0.1:{port}"
        stage = Stage(folder, "answering", self, None)  # type: ignore[arg-type]
        user = "user root;" if os.geteuid() == 0 else ""
        site = stage.render("nginx-answering.conf", port=port)
        config = stage.render("nginx.conf", user=user, site=site, modules="")
        self.child = Child(
            LOAD_CORE, [program_path("nginx"), "-e", "stderr", "-p", folder, "-c", config], folder / "answering.log"
        )
        self.child.wait_for(port)


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds of {len(QUICK)} candidates")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of a slice for each candidate; %(default)s")
    parser.add_argument("--slice-ms", type=int, default=SLICE_MS, help="how long a slice is; %(default)s")
    parser.add_argument(
        "--connections",
        type=int,
        nargs="+",
        default=[CONNECTIONS, MANY_CONNECTIONS],
        metavar="N",
        help="one request in flight on each; %(default)s",
    )
    parser.add_argument("--only", nargs="*", choices=CANDIDATES, metavar="CANDIDATE", help="; ".join(CANDIDATES))
    parser.add_argument("--wrk", action="store_true", help="the cross-check")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to it")
    options = parser.parse_args()
    if options.wrk and (options.quick or options.rounds != ROUNDS or options.slice_ms != SLICE_MS):
        parser.error(f"--wrk has {WRK_ROUNDS} rounds of {WRK_S} s, whatever else is said")
    claim_machine(LOAD_CORE)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended"))  # so that all is put away
    build()
    found = run_wrk(options) if options.wrk else run(options)
    figures.write(options.json, found)
    print(figures.describe(figures.environment()), "", *budgets.lines(found), sep="\n")
    return 0


if __name__ == "__main__":
    run_program(main)
