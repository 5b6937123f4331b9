"""How many gateways and Redis nodes for so many sessions and requests: a model of the load on the
store.

    python bench/capacity.py --sessions 1e8 --active 5e6 --rate 1e6   a plan
    python bench/capacity.py --table                                  tables of docs/capacity.md
    python bench/capacity.py --check FILE                             against figures of scale.py

The rules it is made of, each one a line of `load`:

- A gateway writes a session once a flush in which it was used, however often: of S sessions asked
  at random, r requests a flush fall on S (1 - e^(-r/S)). With `touch_resolution_ms` it writes one
  at its first use after that time: 1 / (T + S/R) times a second.
- A flush sends one exchange for every shard, and one more for every 400 touches of a shard beyond
  the first 400.
- A session is loaded when a gateway does not hold it (the near cache is smaller than what it sees),
  and again at its first use after `recheck_s`. Loads of one turn of the event loop, taken as a
  millisecond, go out together: one call, one exchange a shard concerned.
- With any balancing that does not look at the ticket (round robin), every gateway sees every active
  session; with hashing on the ticket, each its share.

Costs a unit are those that scale.py measured on the machine of docs/benchmarks.md; yours differ,
ratios less so.
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


TURNS_PER_S = 1000.0


@dataclasses.dataclass(frozen=True)
class Costs:
    """Measured, µs of CPU (scale.py: redis; flush.py; gateway.py). `redis_*` are of Redis, the
    others of a gateway.
    """

    request: float = 16.0  # proxied, with its check; touches not counted
    gateway_touch: float = 1.9
    gateway_load: float = 2.5  # and for each call that takes some to the store:
    gateway_call: float = 110.0
    redis_touch: float = 8.0  # 5.4 at 10^6 sessions, and about 2.5 more for each power of ten
    redis_exchange: float = 8.0  # of a flush, in a pipeline with all the others
    redis_load_exchange: float = 16.0  # with some others; one alone takes 40 to 50
    redis_load: float = 3.0  # 2.3 at 10^6


@dataclasses.dataclass(frozen=True)
class Fleet:
    """The gateways of a fleet, their settings and their load."""

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
    flush_exchanges: float
    loads: float
    load_calls: float
    load_exchanges: float

    @property
    def commands(self) -> float:
        """As `INFO commandstats` counts them."""
        return (self.flush_exchanges + self.load_exchanges) * COMMANDS_AN_EXCHANGE

    def redis_cores(self, costs: Costs) -> float:
        """The cores of Redis that the load keeps busy."""
        exchanges = self.flush_exchanges * costs.redis_exchange + self.load_exchanges * costs.redis_load_exchange
        return (self.touches * costs.redis_touch + self.loads * costs.redis_load + exchanges) / 1e6

    def gateway_cores(self, costs: Costs) -> float:
        """Busy ones, of all gateways, besides those for the requests."""
        loads = self.loads * costs.gateway_load + self.load_calls * costs.gateway_call
        return (self.touches * costs.gateway_touch + loads) / 1e6


def load(fleet: Fleet) -> Load:
    """The load of a fleet on its store."""
    rate = fleet.requests_per_s / fleet.gateways
    seen = fleet.active_sessions / fleet.gateways if fleet.hashed else fleet.active_sessions
    touches = distinct(seen, rate * fleet.flush_interval_s) / fleet.flush_interval_s
    if fleet.touch_resolution_s > fleet.flush_interval_s:
        touches = first_uses(seen, rate, fleet.touch_resolution_s)
    a_shard_and_flush = touches * fleet.flush_interval_s / fleet.shards
    flush_exchanges = fleet.shards * max(1, math.ceil(a_shard_and_flush / TOUCHES_AN_EXCHANGE)) / fleet.flush_interval_s
    held_share = min(1.0, fleet.near_cache_sessions / seen)
    loads = rate * (1 - held_share) + first_uses(seen * held_share, rate * held_share, fleet.recheck_s)
    a_turn = loads / TURNS_PER_S
    return Load(
        touches=fleet.gateways * touches,
        flush_exchanges=fleet.gateways * flush_exchanges,
        loads=fleet.gateways * loads,
        load_calls=fleet.gateways * TURNS_PER_S * -math.expm1(-a_turn),
        load_exchanges=fleet.gateways * TURNS_PER_S * distinct(fleet.shards, a_turn),
    )


def distinct(sessions: float, requests: float) -> float:
    """How many sessions so many requests at random fall on."""
    return sessions * -math.expm1(-requests / sessions)


def first_uses(sessions: float, rate: float, after_s: float) -> float:
    """How often a second a session is used for the first time after so long: each time after that,
    and the wait for its next use.
    """
    return sessions / (after_s + sessions / rate) if sessions else 0.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """The gateways and Redis nodes that a load needs."""

    fleet: Fleet
    store: Load
    gateway_cores: float
    near_cache_gib: float
    redis_cores: float
    redis_gib: float


def plan(sessions: float, fleet: Fleet, costs: Costs) -> Plan:
    """For so many live sessions in Redis, and a fleet whose number of gateways (of one core each)
    is found here.
    """
    gateways = 1
    while True:
        tried = dataclasses.replace(fleet, gateways=gateways)
        store = load(tried)
        cores = tried.requests_per_s * costs.request / 1e6 + store.gateway_cores(costs)
        if cores <= gateways * UTILISATION:
            break
        gateways = max(gateways + 1, math.ceil(cores / UTILISATION))
    seen = tried.active_sessions / gateways if tried.hashed else tried.active_sessions
    near_cache_gib = min(seen, tried.near_cache_sessions) * NEAR_CACHE_BYTES / 2**30
    redis_gib = sessions * REDIS_BYTES / 2**30
    return Plan(tried, store, cores, near_cache_gib, store.redis_cores(costs), redis_gib)


# ------------------------------------------------------------------------------------------ to read


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
    """The model beside scale.py's runs: gateways, routing, shards, touch resolution, rechecks."""
    yield f"{'':44} {'commands per 1,000':>22} {'touches/s':>20} {'loads/s':>20}"
    for name, fleet in fleets(measured):
        predicted = load(fleet)
        said = {key: measured[f"{name}/{key}"]["value"] for key in ("commands", "touches", "loads")}
        commands = predicted.commands / fleet.requests_per_s * 1000
        yield (
            f"{name:44} {commands:9.2f} of {said['commands']:9.2f} {predicted.touches:9,.0f} of {said['touches']:8,.0f}"
            f" {predicted.loads:9,.0f} of {said['loads']:8,.0f}"
        )


def fleets(measured: dict[str, dict[str, float]]) -> Iterator[tuple[str, Fleet]]:
    """Those that scale.py ran: `scale/gateways/4, hashed/commands` and so on."""
    for path in measured:
        name, _, quantity = path.rpartition("/")
        if quantity == "shards":
            known = {
                key: measured[f"{name}/{key}"]["value"]
                for key in ("rate", "sessions", "gateways", "resolution", "recheck")
            }
            yield (
                name,
                Fleet(
                    gateways=int(known["gateways"]),
                    active_sessions=known["sessions"],
                    requests_per_s=known["rate"],
                    hashed="hashed" in name,
                    shards=int(measured[path]["value"]),
                    touch_resolution_s=known["resolution"],
                    recheck_s=known["recheck"]
                    if known["recheck"] < 300
                    else math.inf,  # none falls into so short a run
                ),
            )


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    parser.add_argument(
        "--recheck-s", type=float, default=300.0, metavar="S", help="recheck_s of the near caches; %(default)g"
    )
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--check", type=Path, metavar="FILE", help="what scale.py wrote")
    options = parser.parse_args()
    if min(options.active, options.rate, options.near_cache, options.shards) <= 0 or options.active > options.sessions:
        parser.error("numbers are above 0, and no more sessions are active than there are")
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
            recheck_s=options.recheck_s,
            near_cache_sessions=options.near_cache,
        )
        lines = plan_lines(plan(options.sessions, fleet, Costs()), options.node_gib)
    for line in lines:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
