"""What a reload costs those who are served, and the store: sessions loaded again, requests failed,
p99 beside that of the same load without one.

    .venv/bin/python bench/reload.py [--reloads 3] [--sessions 100000] [--rate 10000] [--quick]

Method: one gateway with a Redis on core 0, load.c on core 1. All sessions are used once, so that
the near cache holds them all. Then requests come at a steady rate on 64 connections, each due at
its time whatever became of those before, tickets in turn. For each reload: a window without one; a
window that begins with SIGHUP, the configuration having a route more than before; and then as many
requests as there are sessions, so that whatever was forgotten is asked for. Nothing is sent again:
what is not answered with 200 has failed, and so has a connection that closes while idle without
having said so. Loads are those of `/metrics`. Medians are over the reloads, sums are of all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import budgets
import figures
from children import (
    GATEWAY_CORE,
    LOAD_CORE,
    START_TIMEOUT_S,
    BenchError,
    Child,
    claim_machine,
    free_port,
    run_program,
)
from loader import Loader, build
from sessions import counters, fill_redis, start_redis

CONNECTIONS = 64
WINDOW_MS = 2000
LOADS = "fastticket_store_loads_total"
RELOADS = "fastticket_reloads_total/done"
COUNTED_TIMEOUT_S = 20.0
COUNTED_AFTER_S = 2.0  # the last loads are in /metrics
CONFIG = """
[gateway]
listen = ["127.0.0.1:0"]
admin = "127.0.0.1:{admin}"
[ticket]
keys = "{keys}"
[store]
url = "{store}"
[cache]
capacity = {capacity}
[[upstream]]
name = "app"
servers = ["{upstream}"]
"""
ROUTE = """
[[route]]
path = "{path}"
"""


class Reloaded:
    """A gateway that holds all sessions, and a load on it."""

    def __init__(self, folder: Path, sessions: int, rate: int) -> None:
        self._rate = rate
        self._sessions = sessions
        self._routes = ["/"]
        with contextlib.ExitStack() as stack:
            redis, redis_port = start_redis(folder, GATEWAY_CORE)
            stack.callback(redis.stop)
            store = f"redis://127.0.0.1:{redis_port}/0"
            keys, tickets = fill_redis(folder, sessions, store)
            self._loader = Loader(folder, "reload", CONNECTIONS, tickets)
            stack.callback(self._loader.stop)
            self._admin_port = free_port()
            self._values = {"keys": keys, "store": store, "upstream": self._loader.upstream}
            self._values |= {"admin": self._admin_port, "capacity": 2 * sessions}
            self._config = folder / "fastticket.toml"
            self._write_config()
            command = [sys.executable, "-m", "fastticket", "serve", "--config", self._config]
            self._gateway = Child(GATEWAY_CORE, command, folder / "gateway.log")
            stack.callback(self._gateway.stop)
            self._loader.connect(int(self._gateway.read_line(START_TIMEOUT_S).rpartition(":")[2]))
            self._hold_all()
            self.stop = stack.pop_all().close

    def _write_config(self) -> None:
        routes = "".join(ROUTE.format(path=path) for path in self._routes)
        self._config.write_text(CONFIG.format(**self._values) + routes)

    def _hold_all(self) -> None:
        seen, give_up_at_s = 0, time.monotonic() + 60
        while seen < self._sessions:
            seen += int(self._loader.slice(400)["requests"])
            if time.monotonic() > give_up_at_s:
                raise BenchError(f"{seen} of {self._sessions} sessions were asked for in a minute")
        self._wait_for("fastticket_near_cache_sessions", self._sessions)

    def reload(self) -> dict[str, float]:
        """One reload: its loads and failures, and p99 without and with it."""
        before = counters(self._admin_port)
        quiet = self._loader.pace(WINDOW_MS, self._rate)
        self._routes.insert(0, f"/more/{len(self._routes)}")
        self._write_config()
        during = self._loader.pace(WINDOW_MS, self._rate, lambda: os.kill(self._gateway.pid, signal.SIGHUP))
        rest = self._loader.pace(self._sessions * 1000 // self._rate, self._rate)
        self._wait_for(RELOADS, before[RELOADS] + 1)
        time.sleep(COUNTED_AFTER_S)
        windows = [quiet, during, rest]
        return {
            "loads": counters(self._admin_port)[LOADS] - before[LOADS],
            "requests": sum(each["requests"] for each in windows),
            "failed": sum(each["failed"] + each["closed"] for each in windows),
            "reopened": sum(each["reopened"] for each in windows),
            "quiet_p99_us": quiet["p99_us"],
            "p99_us": during["p99_us"],
            "most_us": during["most_us"],
        }

    def _wait_for(self, name: str, value: float) -> None:
        """Until that much has been counted; `/metrics` is a moment behind."""
        give_up_at_s = time.monotonic() + COUNTED_TIMEOUT_S
        while (seen := counters(self._admin_port)[name]) < value:
            if time.monotonic() > give_up_at_s:
                raise self._gateway.failed(f"{name} is {seen:,.0f}, and should be {value:,.0f}")
            time.sleep(0.1)


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reloads", type=int, default=3, help="%(default)s")
    parser.add_argument("--sessions", type=int, default=100_000, help="held; %(default)s")
    parser.add_argument("--rate", type=int, default=10_000, help="requests/s; %(default)s")
    parser.add_argument("--quick", action="store_true", help="one reload, and a tenth of the sessions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to it")
    options = parser.parse_args()
    sessions, reloads = (options.sessions // 10, 1) if options.quick else (options.sessions, options.reloads)
    claim_machine(LOAD_CORE)
    build()
    with tempfile.TemporaryDirectory(prefix="fastticket-bench-") as folder:
        gateway = Reloaded(Path(folder), sessions, options.rate)
        try:
            seen = [gateway.reload() for _ in range(reloads)]
        finally:
            gateway.stop()
    total = {name: sum(each[name] for each in seen) for name in ("loads", "requests", "failed", "reopened")}
    p99s, quiet = [each["p99_us"] for each in seen], [each["quiet_p99_us"] for each in seen]
    found = {
        "reload/loads": figures.figure(total["loads"], "sessions"),
        "reload/requests": figures.figure(total["requests"], "requests"),
        "reload/failed": figures.figure(total["failed"], "requests"),
        "reload/reopened": figures.figure(total["reopened"], "connections"),
        "reload/p99 before": figures.middle(quiet, "µs"),
        "reload/p99": figures.middle(p99s, "µs"),
        "reload/most": figures.figure(max(each["most_us"] for each in seen), "µs"),
        "reload/ratio/p99: during ÷ before": figures.middle([a / b for a, b in zip(p99s, quiet, strict=True)], "ratio"),
    }
    print(
        f"{reloads} reloads at {options.rate:,} requests/s with {sessions:,} sessions held, {CONNECTIONS} connections"
    )
    print("{requests:,.0f} requests, {failed:,.0f} failed; {loads:,.0f} sessions loaded again".format(**total))
    print("{reopened:,.0f} connections opened anew, as announced".format(**total))
    print(
        f"p99 {statistics.median(quiet):,.0f} µs before, {statistics.median(p99s):,.0f} µs in the {WINDOW_MS / 1000:g} s from"
        f" SIGHUP on; at most {found['reload/most']['value']:,.0f} µs"
    )
    figures.write(options.json, found)
    print(*budgets.lines(found), sep="\n")
    return 0 if budgets.all_met(found) else 1


if __name__ == "__main__":
    run_program(main)
