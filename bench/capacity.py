"""How many gateways and Redis nodes for so many sessions and requests: a model of the load on the store.

    python bench/capacity.py --sessions 1e8 --active 5e6 --rate 1e6          a plan
    python bench/capacity.py --table                                         the tables of docs/capacity.md
    python bench/capacity.py --check FILE                                    beside what scale.py measured

The rules it is made of, each one a line of `load`:

- A gateway writes a session once in an interval in which it was used, however often: of S sessions asked at random r times an
  interval, S (1 - e^(-r/S)) are. The interval is `flush_interval_ms`, or `touch_resolution_ms` if that is longer.
- A flush sends one exchange for every shard, and one more for every 400 touches of a shard beyond the first 400.
- A session is loaded when a gateway does not hold it (the near cache is smaller than what it sees), and again every `recheck_s`.
- With any balancing that does not look at the ticket (round robin), every gateway sees every active session; with hashing on the
  ticket, each its share.

Costs a unit are those that scale.py measured on the machine of docs/benchmarks.md; yours differ, ratios less so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

TOUCHES_AN_EXCHANGE = 400
COMMANDS_AN_EXCHANGE = 3  # EVALSHA, and in it ZADD and XRANGE; of a load ZMSCORE in place of ZADD
NEAR_CACHE_BYTES = 151
REDIS_BYTES = 285
UTILISATION = 0.6  # what is planned for: the rest is for peaks, and for the loss of a node


@dataclasses.dataclass(frozen=True)
class Costs:
    """Measured, µs of CPU. `redis_*` are of Redis, the others of a gateway."""

    request: float = 16.0  # proxied, with its check; touches not counted
    gateway_touch: float = 1.9
    redis_touch: float = 8.0  # 5.4 at 10^6 sessions, and about 2.5 more for each power of ten
    redis_exchange: float = 20.0
    redis_load: float = 3.0  # 2.3 at 10^6


@dataclasses.dataclass(frozen=True)
class Fleet:
    """What runs, and what it is asked."""

    gateways: int
    active_sessions: float  # that are in use in the same minutes
    requests_per_s: float
    hashed: bool = False
    shards: int = 16
    flush_interval_s: float = 0.5
    touch_resolution_s: float = 0.0
    recheck_s: float = 300.0
    near_cache_sessions: float = 10_000_000


@dataclasses.dataclass(frozen=True)
class Load:
    """On the store, from the whole fleet, a second."""

    touches: float
    exchanges: float
    loads: float

    @property
    def commands(self) -> float:
        """As `INFO commandstats` counts them."""
        return self.exchanges * COMMANDS_AN_EXCHANGE

    def redis_cores(self, costs: Costs) -> float:
        """Busy ones."""
        us = self.touches * costs.redis_touch + self.exchanges * costs.redis_exchange + self.loads * costs.redis_load
        return us / 1e6


def load(fleet: Fleet) -> Load:
    """What a fleet asks of its store."""
    rate = fleet.requests_per_s / fleet.gateways
    seen = fleet.active_sessions / fleet.gateways if fleet.hashed else fleet.active_sessions
    interval_s = max(fleet.flush_interval_s, fleet.touch_resolution_s)
    touches = distinct(seen, rate * interval_s) / interval_s
    a_shard_and_flush = touches * fleet.flush_interval_s / fleet.shards
    exchanges = fleet.shards * max(1, math.ceil(a_shard_and_flush / TOUCHES_AN_EXCHANGE)) / fleet.flush_interval_s
    held = min(seen, fleet.near_cache_sessions)
    misses = rate * (1 - held / seen)
    rechecks = distinct(held, rate * fleet.recheck_s) / fleet.recheck_s
    return Load(
        touches=fleet.gateways * touches,
        exchanges=fleet.gateways * exchanges + fleet.gateways * load_exchanges(misses + rechecks, fleet.shards),
        loads=fleet.gateways * (misses + rechecks),
    )


def distinct(sessions: float, requests: float) -> float:
    """How many sessions so many requests at random fall on."""
    return sessions * -math.expm1(-requests / sessions)


def load_exchanges(loads: float, shards: int, turns_per_s: float = 1000.0) -> float:
    """Exchanges a second for so many loads: those of one turn of the loop go out together, one for each shard that is concerned."""
    return turns_per_s * distinct(shards, loads / turns_per_s)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to buy."""

    fleet: Fleet
    store: Load
    gateway_cores: float
    near_cache_gib: float
    redis_cores: float
    redis_gib: float


def plan(sessions: float, fleet: Fleet, costs: Costs) -> Plan:
    """For so many live sessions in Redis, and a fleet whose number of gateways (of one core each) is found here."""
    gateways = 1
    while True:
        tried = dataclasses.replace(fleet, gateways=gateways)
        store = load(tried)
        cores = (tried.requests_per_s * costs.request + store.touches * costs.gateway_touch) / 1e6
        if cores <= gateways * UTILISATION:
            break
        gateways = max(gateways + 1, math.ceil(cores / UTILISATION))
    seen = tried.active_sessions / gateways if tried.hashed else tried.active_sessions
    near_cache_gib = min(seen, tried.near_cache_sessions) * NEAR_CACHE_BYTES / 2**30
    redis_gib = sessions * REDIS_BYTES / 2**30
    return Plan(tried, store, cores, near_cache_gib, store.redis_cores(costs), redis_gib)


# ------------------------------------------------------------------------------------------------------------------- to read


def plan_lines(found: Plan, node_gib: float) -> Iterator[str]:
    fleet, store = found.fleet, found.store
    for_cpu = math.ceil(found.redis_cores / UTILISATION)
    for_memory = math.ceil(found.redis_gib / UTILISATION / node_gib)
    per_1000 = store.commands / fleet.requests_per_s * 1000
    yield f"gateways of one core      {fleet.gateways} ({found.gateway_cores:.1f} cores busy)"
    yield f"near cache of each        {found.near_cache_gib:.2f} GiB"
    yield f"Redis primaries           {max(for_cpu, for_memory)} (CPU: {for_cpu}; memory: {for_memory}, nodes of {node_gib:g} GiB)"
    yield f"Redis, all of them        {found.redis_cores:.2f} cores busy, {found.redis_gib:.1f} GiB of sessions"
    yield f"a second                  {store.touches:,.0f} touches, {store.loads:,.0f} loads, {store.commands:,.0f} commands"
    yield f"commands, 1,000 requests  {per_1000:.1f}"


def tables(costs: Costs) -> Iterator[str]:
    columns = [
        "active sessions",
        "balancing",
        "`touch_resolution_ms`",
        "gateways",
        "near cache of each, GiB",
        "touches/s",
    ]
    columns += ["loads/s", "commands for 1,000 requests", "Redis cores busy"]
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for active in (1e6, 5e6, 20e6, 100e6):
        for hashed in (False, True):
            for resolution_s in (0.0, 60.0):
                fleet = Fleet(1, active, 1e6, hashed, shards=64, touch_resolution_s=resolution_s)
                found = plan(100e6, fleet, costs)
                balancing = "hashed" if hashed else "round robin"
                yield (
                    f"| {active / 1e6:g} M | {balancing} | {resolution_s * 1000:,.0f} | {found.fleet.gateways} |"
                    f" {found.near_cache_gib:.2f} | {found.store.touches:,.0f} | {found.store.loads:,.0f} |"
                    f" {found.store.commands / 1000:.1f} | {found.redis_cores:.2f} |"
                )


def check(measured: dict[str, dict[str, float]]) -> Iterator[str]:
    """The model beside scale.py's runs: gateways, routing, shards."""
    yield f"{'':44} {'commands per 1,000':>22} {'touches/s':>20}"
    for name, fleet in fleets(measured):
        predicted = load(fleet)
        said = {key: measured[f"{name}/{key}"]["value"] for key in ("commands", "touches", "rate")}
        fleet_commands = predicted.commands / fleet.requests_per_s * 1000
        yield (
            f"{name:44} {fleet_commands:9.2f} of {said['commands']:9.2f} {predicted.touches:9,.0f} of {said['touches']:8,.0f}"
        )


def fleets(measured: dict[str, dict[str, float]]) -> Iterator[tuple[str, Fleet]]:
    """Those that scale.py ran: `scale/gateways/4, hashed/commands` and so on."""
    for path in measured:
        parts = path.split("/")
        if len(parts) == 4 and parts[1] in ("gateways", "shards") and parts[3] == "commands":
            name = path.rpartition("/")[0]
            number, _, routing = parts[2].partition(", ")
            known = {key: measured[f"{name}/{key}"]["value"] for key in ("rate", "sessions")}
            counts = {"gateways": int(number)} if parts[1] == "gateways" else {"gateways": 1, "shards": int(number)}
            # Rechecks and misses do not fall in so short a run, in which everything is held.
            yield (
                name,
                Fleet(
                    active_sessions=known["sessions"],
                    requests_per_s=known["rate"],
                    hashed=routing == "hashed",
                    recheck_s=math.inf,
                    **counts,
                ),
            )


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Gateways and Redis nodes for a load.")
    parser.add_argument("--sessions", type=float, default=1e8, help="live in Redis; %(default)g")
    parser.add_argument("--active", type=float, default=5e6, help="in use in the same minutes; %(default)g")
    parser.add_argument("--rate", type=float, default=1e6, help="requests a second; %(default)g")
    parser.add_argument("--hashed", action="store_true", help="the balancer hashes on the ticket")
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--touch-resolution-ms", type=float, default=0)
    parser.add_argument(
        "--near-cache", type=float, default=1e7, metavar="SESSIONS", help="a gateway's capacity; %(default)g"
    )
    parser.add_argument("--node-gib", type=float, default=16, help="memory of a Redis node; %(default)g")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--check", type=Path, metavar="FILE", help="what scale.py wrote")
    options = parser.parse_args()
    if options.check:
        lines = check(json.loads(options.check.read_text())["figures"])
    elif options.table:
        lines = tables(Costs())
    else:
        fleet = Fleet(
            1,
            options.active,
            options.rate,
            options.hashed,
            options.shards,
            touch_resolution_s=options.touch_resolution_ms / 1000,
            near_cache_sessions=options.near_cache,
        )
        lines = plan_lines(plan(options.sessions, fleet, Costs()), options.node_gib)
    for line in lines:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
