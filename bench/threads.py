"""Two data-plane threads beside one, as a part of `scale.py`: requests a second on two cores, what
the store is sent, memory.

A machine of two cores has none left for the loader. So throughput is counted by CPU: requests
answered, divided by the CPU time of all the gateway's threads (`/proc/PID/task/*/schedstat`); that
is what a core does that is the gateway's alone. One thread runs on core 0. Of two, the first runs
on core 0, and the second on core 1, where it takes turns with loader and upstream (load.c, which
spins); whenever it runs, so does the first, because enough requests wait for both. Two busy cores
answer twice what a CPU second of theirs does, so two ÷ one is 2 x the CPU of a request with one ÷
the CPU of a request with two: what the threads cost each other (locks, cache lines, memory) is in
it, and the loader is not. How busy both were is printed. The two gateways take turns, and the ratio
is taken within a round.

What the store is sent is counted at a steady rate, below what either can do, with so few sessions
that each is used several times between two flushes: commands by Redis itself, touches by
`/metrics`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import candidates
import figures
import gateway
from children import GATEWAY_CORE, LOAD_CORE, threads_ns
from loader import build
from sessions import counters, make_sessions, redis_commands

CONNECTIONS = 512
ROUNDS = 10
PACED_S = 20
PACED_RATE = 8_000
PACED_SESSIONS = 1_000
PACED_CONNECTIONS = 64
FLUSHED_AFTER_S = 1.5
THREADS = (1, 2)
TOUCHES = "fastticket_touches_written_total"


def measure(rounds: int = ROUNDS, paced_s: int = PACED_S) -> dict[str, figures.Figure]:
    """All figures of `scale/threads`."""
    build()
    found: dict[str, figures.Figure] = {}
    with _running(gateway.SESSIONS, CONNECTIONS) as running:
        _pin_apart(running[2])
        slices: dict[int, list[dict[str, float]]] = {count: [] for count in THREADS}
        for _ in range(rounds):
            for count, each in running.items():
                slices[count].append(_slice(each))
        for count, each in running.items():
            found |= _figures(count, slices[count])
            found[f"scale/threads/{count}/memory"] = figures.figure(each.resident_kib() / 1024, "MiB resident")
    with _running(PACED_SESSIONS, PACED_CONNECTIONS) as running:
        for count, each in running.items():
            found |= _sent_to_store(count, each, paced_s)
            _tell(count, found, slices[count])
    return found | _ratios(found, slices)


@contextlib.contextmanager
def _running(session_count: int, connections: int) -> Iterator[dict[int, gateway.Running]]:
    """A gateway with one thread, and one with two."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastticket-bench-")))
        sessions = make_sessions(folder, session_count)
        running = {}
        for count in THREADS:
            cores = str(GATEWAY_CORE) if count == 1 else f"{GATEWAY_CORE},{LOAD_CORE}"
            start = functools.partial(candidates.fastticket, store="redis", threads=count, cores=cores)
            each = gateway.Running(f"{count} threads", candidates.Candidate(start), folder, sessions, connections)
            stack.callback(each.stop)
            running[count] = each
        yield running


def _pin_apart(two: gateway.Running) -> None:
    """The two threads that serve, each to a core; the others stay where the kernel puts them."""
    before = threads_ns(two.pids)
    two.slice(gateway.SLICE_MS)
    after = threads_ns(two.pids)
    busiest = sorted(after, key=lambda thread: before.get(thread, 0) - after[thread])[:2]
    for thread, core in zip(sorted(busiest), (GATEWAY_CORE, LOAD_CORE), strict=True):
        os.sched_setaffinity(thread, {core})


def _slice(each: gateway.Running) -> dict[str, float]:
    """CPU a request, and the shares of a core that the two busiest threads had."""
    before = threads_ns(each.pids)
    seen = each.slice(gateway.SLICE_MS)
    used = sorted((ns - before.get(thread, 0) for thread, ns in threads_ns(each.pids).items()), reverse=True)
    seen["cpu_us"] = sum(used) / 1e3 / seen["requests"]
    seen["first_share"], seen["second_share"] = (ns / 1e9 / seen["seconds"] for ns in (*used, 0)[:2])
    return seen


def _figures(count: int, slices: list[dict[str, float]]) -> dict[str, figures.Figure]:
    path = f"scale/threads/{count}"
    rates = [count * 1e6 / each["cpu_us"] for each in slices]
    return {
        f"{path}/cpu": figures.middle([each["cpu_us"] for each in slices], "µs a request"),
        f"{path}/rate": figures.middle(rates, "requests/s of busy cores"),
        f"{path}/p99": figures.middle([each["p99_us"] for each in slices], "µs"),
    }


def _sent_to_store(count: int, each: gateway.Running, paced_s: int) -> dict[str, figures.Figure]:
    """At a steady rate: commands while it lasts, touches until all are written."""
    time.sleep(FLUSHED_AFTER_S)
    touches, commands = counters(each.admin_port)[TOUCHES], sum(redis_commands(each.redis_port).values())
    requests = each.pace(paced_s * 1000, PACED_RATE)["requests"]
    commands = sum(redis_commands(each.redis_port).values()) - commands
    time.sleep(FLUSHED_AFTER_S)
    touches = counters(each.admin_port)[TOUCHES] - touches
    return {
        f"scale/threads/{count}/touches": figures.figure(touches / paced_s, "touches/s"),
        f"scale/threads/{count}/commands": figures.figure(commands / requests * 1000, "per 1,000 requests"),
    }


def _tell(count: int, found: dict[str, figures.Figure], slices: list[dict[str, float]]) -> None:
    own = {name.rpartition("/")[2]: each["value"] for name, each in found.items() if f"threads/{count}/" in name}
    first, second = (statistics.median(each[name] for each in slices) for name in ("first_share", "second_share"))
    busy = f"busy: {first:.0%} of core 0" + (f", {second:.0%} of core 1, beside the loader" if count > 1 else "")
    print(
        "{count} threads: {cpu:.1f} µs of CPU a request ({busy}): {rate:,.0f} requests/s on as many cores; {touches:,.0f}"
        " touches/s, {commands:.1f} commands for 1,000 requests, {memory:.0f} MiB".format(
            count=count, busy=busy, **own
        ),
        flush=True,
    )


def _ratios(found: dict[str, figures.Figure], slices: dict[int, list[dict[str, float]]]) -> dict[str, figures.Figure]:
    """Two ÷ one."""
    by_cpu = [2 * one["cpu_us"] / two["cpu_us"] for one, two in zip(slices[1], slices[2], strict=True)]
    ratios = {"scale/threads/ratio/requests": figures.middle(by_cpu, "ratio")}
    for name in ("commands", "touches", "memory"):
        one, two = (found[f"scale/threads/{count}/{name}"]["value"] for count in THREADS)
        ratios[f"scale/threads/ratio/{name}"] = figures.figure(two / one, "ratio")
    return ratios
