"""What a flush to Redis costs a gateway: CPU for each session touched, and how long it holds the
event loop.

    python bench/flush.py [--sessions 20000] [--json FILE]

Method: a TicketCache on uvloop, alone on one core, and a real redis-server. All sessions are held
and touched; then `process_time` over one flush, divided by the sessions, median of 9. In between, a
task that does nothing but yield notes the longest turn of the loop, in CPU time of its thread, so
that other programs on the core do not count. Garbage collection is as in a gateway: what is there
at the start is frozen.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import budgets
import figures
import uvloop

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from lab.redis_servers import Server  # noqa: E402

import fastticket  # noqa: E402

ROUNDS = 9
AT_ONCE = 500


async def measure(url: str, sessions: int) -> dict[str, float]:
    keys = fastticket.Keyring.generate()
    settings = {"flush_interval_ms": 60_000, "lease_ms": 240_000, "capacity": 2 * sessions}
    async with fastticket.TicketCache(fastticket.open_store(url), keys, **settings) as cache:
        tickets: list[str] = []
        for start in range(0, sessions, AT_ONCE):
            names = [f"user{number:08}" for number in range(start, min(start + AT_ONCE, sessions))]
            tickets += await asyncio.gather(*(cache.login(name) for name in names))
            await asyncio.gather(*(cache.authenticate(ticket) for ticket in tickets[-len(names) :]))
        await cache.flush()
        gc.collect()
        gc.freeze()
        cpu_us, stalls_ms = [], []
        for _ in range(ROUNDS):
            touch(cache, tickets)
            began = time.process_time()
            await cache.flush()
            cpu_us.append((time.process_time() - began) / sessions * 1e6)
            touch(cache, tickets)
            stalls_ms.append(await longest_stall_ms(cache))
        assert cache.stats["touches_unwritten"] == 0
    return {
        "us_a_session": statistics.median(cpu_us),
        "stall_ms": statistics.median(stalls_ms),
        "worst_stall_ms": max(stalls_ms),
    }


def touch(cache: fastticket.TicketCache, tickets: list[str]) -> None:
    time.sleep(0.01)  # so that every deadline moves
    assert all(cache.check(ticket) for ticket in tickets)


async def longest_stall_ms(cache: fastticket.TicketCache) -> float:
    flushing = asyncio.ensure_future(cache.flush())
    longest_s, last_s = 0.0, time.thread_time()
    while not flushing.done():
        await asyncio.sleep(0)
        now_s = time.thread_time()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
    return longest_s * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description="CPU of a flush to Redis.")
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            os.sched_setaffinity(0, {0})
            found = uvloop.run(measure(f"redis://{server.address}/0?timeout_ms=10000", options.sessions))
        finally:
            server.kill()
    written = {
        "flush/cpu": figures.figure(found["us_a_session"], "µs a session"),
        "flush/loop held": figures.figure(found["stall_ms"], "ms"),
    }
    figures.write(options.json, written)
    print(
        "{us_a_session:.2f} µs of CPU a session touched; the loop was held for {stall_ms:.2f} ms at most,"
        " in the worst of {0} flushes for {worst_stall_ms:.2f} ms".format(ROUNDS, **found)
    )
    print(*budgets.lines(written), sep="\n")
    return 0 if budgets.all_met(written) else 1


if __name__ == "__main__":
    sys.exit(main())
