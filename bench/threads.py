"""Two data-plane threads beside one, as a part of `scale.py`: requests a second on two cores, what
the store is sent, memory.

A machine of two cores has none left for the loader. So throughput is counted by CPU: requests
answered, by the CPU time of the gateway's threads (`/proc/PID/task/*/schedstat`). Of two threads,
the first has core 0, and the second is on core 1, where it takes turns with loader and upstream
(load.c, which spins). Whenever the second runs, so does the first, because enough requests wait for
both. What a core does for one thread by itself is measured beside it, on core 0 alone and on core 1
in turns with the loader, which costs caches. Had the two threads answered as many requests for
their CPU time as one does in the place of each, they would do twice as much on two cores as one on
one; so two ÷ one is 2 x the requests answered ÷ those. What the threads cost each other (locks,
cache lines, memory) is in it. What the loader costs is in `with the loader's harm`, which compares
two threads with the one that has core 0 alone. The gateways take turns, and ratios are taken within
a round.

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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import candidates
import figures
import gateway
from children import GATEWAY_CORE, LOAD_CORE, threads_ns
from loader import build
from sessions import counters, make_sessions, redis_commands

CONNECTIONS = 512
ROUNDS = 12
PACED_S = 30  # sixty flushes: one more or less does not count
PACED_RATE = 8_000
PACED_SESSIONS = 1_000
PACED_CONNECTIONS = 64
FLUSHED_AFTER_S = 1.5
TOUCHES = "fastticket_touches_written_total"

ONE, BESIDE, TWO = "1", "1, beside the loader", "2"
#: Threads, and the cores that they may use.
GATEWAYS = {
    ONE: (1, str(GATEWAY_CORE)),
    BESIDE: (1, str(LOAD_CORE)),
    TWO: (2, f"{GATEWAY_CORE},{LOAD_CORE}"),
}

Slices = Sequence[Mapping[str, float]]
Found = dict[str, figures.Figure]


def measure(rounds: int = ROUNDS, paced_s: int = PACED_S) -> Found:
    """All figures of `scale/threads`."""
    build()
    found: Found = {}
    with _running((ONE, BESIDE, TWO), gateway.SESSIONS, CONNECTIONS) as running:
        second = _pin_apart(running[TWO])
        slices: dict[str, list[dict[str, float]]] = {name: [] for name in running}
        for _ in range(rounds):
            for name, each in running.items():
                slices[name].append(_slice(each, second if name == TWO else 0))
        for name, own in slices.items():
            found |= _costs(name, own)
        for name in (ONE, TWO):
            memory = running[name].resident_kib() / 1024
            found[f"scale/threads/{name}/memory"] = figures.figure(memory, "MiB resident")
    found |= _by_cpu(slices)
    with _running((ONE, TWO), PACED_SESSIONS, PACED_CONNECTIONS) as running:
        for name, each in running.items():
            found |= _sent_to_store(name, each, paced_s)
            _tell(name, found)
    return found | _two_by_one(found)


@contextlib.contextmanager
def _running(names: Sequence[str], session_count: int, connections: int) -> Iterator[dict[str, gateway.Running]]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastticket-bench-")))
        sessions = make_sessions(folder, session_count)
        running = {}
        for name in names:
            count, cores = GATEWAYS[name]
            start = functools.partial(candidates.fastticket, store="redis", threads=count, cores=cores)
            each = gateway.Running(f"threads {name}", candidates.Candidate(start), folder, sessions, connections)
            stack.callback(each.stop)
            running[name] = each
        yield running


def _pin_apart(two: gateway.Running) -> int:
    """The two threads that serve, each to a core; the others stay where the kernel puts them. The
    id of the second.
    """
    before = threads_ns(two.pids)
    two.slice(gateway.SLICE_MS)
    after = threads_ns(two.pids)
    busiest = sorted(after, key=lambda thread: before.get(thread, 0) - after[thread])[:2]
    first, second = sorted(busiest)
    os.sched_setaffinity(first, {GATEWAY_CORE})
    os.sched_setaffinity(second, {LOAD_CORE})
    return second


def _slice(each: gateway.Running, second: int) -> dict[str, float]:
    """Seconds of CPU of the second thread, and of all others."""
    before = threads_ns(each.pids)
    seen = each.slice(gateway.SLICE_MS)
    used = {thread: ns - before.get(thread, 0) for thread, ns in threads_ns(each.pids).items()}
    seen["second_s"] = used.pop(second, 0) / 1e9
    seen["first_s"] = sum(used.values()) / 1e9
    seen["cpu_us"] = (seen["first_s"] + seen["second_s"]) * 1e6 / seen["requests"]
    return seen


def _costs(name: str, slices: Slices) -> Found:
    path = f"scale/threads/{name}"
    return {
        f"{path}/cpu": figures.middle([each["cpu_us"] for each in slices], "µs a request"),
        f"{path}/first busy": figures.middle([each["first_s"] / each["seconds"] for each in slices], "of a core"),
        f"{path}/second busy": figures.middle([each["second_s"] / each["seconds"] for each in slices], "of a core"),
    }


def _by_cpu(slices: Mapping[str, Slices]) -> Found:
    """Requests/s of as many cores, and two ÷ one."""
    one_rates, ratios, harmed = [], [], []
    for one, beside, two in zip(slices[ONE], slices[BESIDE], slices[TWO], strict=True):
        as_one = two["first_s"] * 1e6 / one["cpu_us"] + two["second_s"] * 1e6 / beside["cpu_us"]
        one_rates.append(1e6 / one["cpu_us"])
        ratios.append(2 * two["requests"] / as_one)
        harmed.append(2 * one["cpu_us"] / two["cpu_us"])
    rate = statistics.median(one_rates)
    return {
        "scale/threads/1/rate": figures.middle(one_rates, "requests/s"),
        "scale/threads/2/rate": figures.figure(rate * statistics.median(ratios), "requests/s"),
        "scale/threads/ratio/requests": figures.middle(ratios, "ratio"),
        "scale/threads/ratio/requests, with the loader's harm": figures.middle(harmed, "ratio"),
    }


def _sent_to_store(name: str, each: gateway.Running, paced_s: int) -> Found:
    """At a steady rate: commands while it lasts, touches until all are written."""
    time.sleep(FLUSHED_AFTER_S)
    touches, commands = counters(each.admin_port)[TOUCHES], sum(redis_commands(each.redis_port).values())
    seen = each.pace(paced_s * 1000, PACED_RATE)
    commands = sum(redis_commands(each.redis_port).values()) - commands
    time.sleep(FLUSHED_AFTER_S)
    touches = counters(each.admin_port)[TOUCHES] - touches
    return {
        f"scale/threads/{name}/touches": figures.figure(touches / seen["seconds"], "touches/s"),
        f"scale/threads/{name}/commands": figures.figure(commands / seen["requests"] * 1000, "per 1,000 requests"),
    }


def _tell(name: str, found: Found) -> None:
    own = {path.rpartition("/")[2]: each["value"] for path, each in found.items() if f"threads/{name}/" in path}
    print(
        "threads {name}: {cpu:.1f} µs of CPU a request (busy: {first busy:.0%} of core 0, {second busy:.0%} of core 1, in turns"
        " with the loader), {rate:,.0f} requests/s of as many cores by CPU; {touches:,.0f} touches/s, {commands:.1f} commands for"
        " 1,000 requests; {memory:.0f} MiB".format(name=name, **own),
        flush=True,
    )


def _two_by_one(found: Found) -> Found:
    ratios: Found = {}
    for name in ("commands", "touches", "memory"):
        one, two = (found[f"scale/threads/{count}/{name}"]["value"] for count in (ONE, TWO))
        ratios[f"scale/threads/ratio/{name}"] = figures.figure(two / one, "ratio")
    said = f"requests/s {found['scale/threads/ratio/requests']['value']:.2f}"
    said += "".join(f", {path.rpartition('/')[2]} {each['value']:.2f}" for path, each in ratios.items())
    harmed = found["scale/threads/ratio/requests, with the loader's harm"]["value"]
    beside = found[f"scale/threads/{BESIDE}/cpu"]["value"]
    print(f"two ÷ one: {said} (with the loader's harm {harmed:.2f}; one thread in turns with it: {beside:.1f} µs)")
    return ratios
