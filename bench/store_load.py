"""How many commands a gateway sends to Redis, beside the naive path.

    python bench/store_load.py [--seconds 10] [--json FILE]

Method: a real redis-server, 1,000 sessions, 10,000 requests a second (in bursts, ten a second) for
10 s through one gateway. Commands are those that Redis itself counts (`INFO commandstats`), with
those that scripts call; what this bench asks is taken off. A gateway first answers every session
once, so that it holds them; what this warm-up costs is shown apart.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import budgets
import figures
import redis
from candidates import CANDIDATES, Stage
from loader import Loader, build
from sessions import make_sessions, redis_commands

SESSIONS = 1000
REQUESTS_PER_S = 10_000
BURSTS_PER_S = 10
CONNECTIONS = 64
MEASURED = ("fastticket", "naive: GET, EXPIRE", "naive: Linkis", "naive: Spring Session")


def measure(name: str, seconds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        sessions = make_sessions(folder, SESSIONS)
        loader = Loader(folder, "gateway", CONNECTIONS, sessions.cookies["tickets"])
        try:
            gateway = CANDIDATES[name].start(Stage(folder, "gateway", loader, sessions))
            try:
                loader.connect(gateway.port)
                return load(loader, gateway.redis_port, seconds)
            finally:
                gateway.stop()
        finally:
            loader.stop()


def load(loader: Loader, redis_port: int, seconds: int) -> dict[str, Any]:
    with redis.Redis(port=redis_port) as client:
        client.config_resetstat()
        warm = 0.0
        while warm < 3 * SESSIONS:
            warm += loader.slice(20)["requests"]
        warm_up = sum(redis_commands(redis_port).values())
        client.config_resetstat()
    requests = 0.0
    began = time.monotonic()
    burst_ms = 20.0
    for burst in range(seconds * BURSTS_PER_S):
        time.sleep(max(0.0, began + burst / BURSTS_PER_S - time.monotonic()))
        wanted = (burst + 1) * REQUESTS_PER_S / BURSTS_PER_S - requests
        got = loader.slice(max(1, round(burst_ms)))["requests"] if wanted > 0 else 0.0
        burst_ms = min(95.0, max(1.0, burst_ms * wanted / got)) if got else burst_ms
        requests += got
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    calls = redis_commands(redis_port)
    elapsed_s = time.monotonic() - began
    return {
        "requests": requests,
        "requests_per_s": requests / elapsed_s,
        "per_1000_requests": sum(calls.values()) / requests * 1000,
        "warm_up_commands": warm_up,
        "calls": calls,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Redis commands per 1,000 requests.")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--only", nargs="*", metavar="CANDIDATE")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    build()
    found = {}
    for name in options.only or MEASURED:
        found[name] = measure(name, options.seconds)
        print(
            "{0:22} {per_1000_requests:9.2f} commands per 1,000 requests ({requests:,.0f} requests at {requests_per_s:,.0f}/s; "
            "warm-up {warm_up_commands:,} commands)".format(name, **found[name]),
            flush=True,
        )
        print(" " * 22, dict(sorted(found[name]["calls"].items(), key=lambda item: -item[1])), flush=True)
    written = {
        f"store load/{name}/commands": figures.figure(each["per_1000_requests"], "per 1,000 requests")
        for name, each in found.items()
    }
    figures.write(options.json, written)
    print(*budgets.lines(written), sep="\n")
    return 0 if budgets.all_met(written) else 1


if __name__ == "__main__":
    sys.exit(main())
