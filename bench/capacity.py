"""How many gateways and Redis nodes for so many sessions and requests: a model of the load on the
store.

    python bench/capacity.py --sessions 1e8 --active 5e6 --rate 1e6   a plan
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
- A gateway is a process with a thread for each core, on one near cache: what it loads, writes and
  holds is once for the machine, however many cores serve. Its requests spread over the threads as
  the kernel hashes connections (SO_REUSEPORT): the busiest has more than its share, by the maximum
  of a binomial distribution. The first thread also carries the control plane (touches, loads),
  which therefore may not take more than one core.

Costs a unit are those that scale.py measured on the machine of
docs/explanation/benchmarks.md; yours differ, ratios less so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import track

TOUCHES_AN_EXCHANGE = 400
COMMANDS_AN_EXCHANGE = 3  # EVALSHA, and in it ZADD and XRANGE; of a load ZMSCORE in place of ZADD
NEAR_CACHE_BYTES = 150
REDIS_BYTES = 285
UTILISATION = 0.6  # what is planned for: the rest is for peaks, and for the loss of a node


TURNS_PER_S = 1000.0


@dataclasses.dataclass(frozen=True)
class Costs:
    """Measured, µs of CPU (scale.py: redis; flush.py; gateway.py). `redis_*` are of Redis, the
    others of a gateway.
    """

    request: float = 16.0  # proxied, with its check; touches not counted; on any of its cores
    gateway_touch: float = 1.9  # as a record says, of which `of` takes it
    gateway_load: float = 2.5  # and for each call that takes some to the store:
    gateway_call: float = 110.0
    redis_touch: float = 8.0  # 5.4 at 10^6 sessions, and about 2.5 more for each power of ten
    redis_exchange: float = 8.0  # of a flush, in a pipeline with all the others
    redis_load_exchange: float = 16.0  # with some others; one alone takes 40 to 50
    redis_load: float = 3.0  # 2.3 at 10^6

    @classmethod
    def of(cls, measured: Mapping[str, Mapping[str, float]]) -> Costs:
        """With what a record says of a touch; the others are rounded up by hand from several."""
        return cls(gateway_touch=round(measured["flush/cpu"]["value"], 1))


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
    cores: int = 1  # of a gateway, a thread on each
    connections: float = 1_000  # of clients, on a gateway


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


def busiest(cores: int, connections: float) -> float:
    """What the busiest of so many threads serves, ÷ its fair share: connections fall on threads at
    random and stay. The expected maximum of `cores` normal variables is at most sqrt(2 ln cores)
    deviations above their mean.
    """
    if cores == 1:
        return 1.0
    deviation = math.sqrt((cores - 1) / connections)  # of a thread's connections, ÷ their mean
    return min(cores, 1 + math.sqrt(2 * math.log(cores)) * deviation)


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
    first_thread: float  # how much of a core the busiest thread of a gateway needs
    near_cache_gib: float
    redis_cores: float
    redis_gib: float

    def primaries(self, node_gib: float) -> int:
        """How many Redis nodes: for their CPU, or for their memory."""
        for_memory = self.redis_gib / UTILISATION / node_gib
        return math.ceil(max(self.redis_cores / UTILISATION, for_memory))


def plan(sessions: float, fleet: Fleet, costs: Costs) -> Plan:
    """For so many live sessions in Redis, and a fleet whose number of gateways is found here."""
    gateways = 1
    while True:
        tried = dataclasses.replace(fleet, gateways=gateways)
        store = load(tried)
        requests = tried.requests_per_s * costs.request / 1e6
        control = store.gateway_cores(costs)
        needs = busiest_thread(tried, requests / gateways, control / gateways)
        if needs <= UTILISATION:
            break
        enough = math.ceil((requests + control) / tried.cores / UTILISATION)
        gateways = max(gateways + 1, min(enough, math.ceil(gateways * needs / UTILISATION)))
    seen = tried.active_sessions / gateways if tried.hashed else tried.active_sessions
    near_cache_gib = min(seen, tried.near_cache_sessions) * NEAR_CACHE_BYTES / 2**30
    redis_gib = sessions * REDIS_BYTES / 2**30
    return Plan(tried, store, requests + control, needs, near_cache_gib, store.redis_cores(costs), redis_gib)


def busiest_thread(fleet: Fleet, request_cores: float, control_cores: float) -> float:
    """How much of a core it needs, of a gateway with so much to do: the first, with the control
    plane beside an equal share of the requests, or whichever got most of the connections.
    """
    share = request_cores / fleet.cores
    return max(share + control_cores, share * busiest(fleet.cores, fleet.connections))


# ------------------------------------------------------------------------------------------ to read


def plan_lines(found: Plan, node_gib: float) -> Iterator[str]:
    fleet, store = found.fleet, found.store
    per_1000 = store.commands / fleet.requests_per_s * 1000
    cores = "one core" if fleet.cores == 1 else f"{fleet.cores} cores"
    yield f"gateways of {cores:14}{fleet.gateways} ({found.gateway_cores:.1f} cores busy; the busiest thread {found.first_thread:.0%})"
    yield f"near cache of each        {found.near_cache_gib:.2f} GiB"
    yield f"Redis primaries           {found.primaries(node_gib)} (nodes of {node_gib:g} GiB)"
    yield f"Redis, all of them        {found.redis_cores:.2f} cores busy, {found.redis_gib:.1f} GiB of sessions"
    yield f"a second                  {store.touches:,.0f} touches, {store.loads:,.0f} loads, {store.commands:,.0f} commands"
    yield f"commands, 1,000 requests  {per_1000:.1f}"


EXAMPLE = [""]
EXAMPLE += [f"{how}, gateways of {cores}" for cores in ("one core", "8 cores") for how in ("round robin", "hashed")]
PLANNED = ["active sessions", "balancing", "`touch_resolution_ms`", "gateways of 8 cores"]
PLANNED += ["near cache of each, GiB", "touches/s", "loads/s", "commands for 1,000 requests", "Redis cores busy"]
NODE_GIB = 16.0


def example_rows(costs: Costs) -> Iterator[list[str]]:
    """100 million sessions, 5 million of them active, a million requests a second: by how it is
    balanced, and by the cores of a gateway.
    """
    found = [
        plan(1e8, Fleet(1, 5e6, 1e6, hashed, shards=64, touch_resolution_s=60.0 if hashed else 0.0, cores=cores), costs)
        for cores in (1, 8)
        for hashed in (False, True)
    ]
    yield ["gateways", *(str(each.fleet.gateways) for each in found)]
    yield [f"Redis primaries of one core and {NODE_GIB:g} GiB", *(str(each.primaries(NODE_GIB)) for each in found)]
    yield ["near cache of each gateway, GiB", *(f"{each.near_cache_gib:.2f}" for each in found)]
    yield ["touches a second", *(f"{each.store.touches:,.0f}" for each in found)]
    yield ["loads a second", *(f"{each.store.loads:,.0f}" for each in found)]
    yield ["Redis commands for 1,000 requests", *(f"{each.store.commands / 1000:,.0f}" for each in found)]


def planned_rows(costs: Costs) -> Iterator[list[str]]:
    """100 million sessions, a million requests a second, gateways of 8 cores."""
    for active in (1e6, 5e6, 20e6, 100e6):
        for hashed in (False, True):
            for resolution_s in (0.0, 60.0):
                fleet = Fleet(1, active, 1e6, hashed, shards=64, touch_resolution_s=resolution_s, cores=8)
                found = plan(100e6, fleet, costs)
                yield [
                    f"{active / 1e6:g} M",
                    "hashed" if hashed else "round robin",
                    f"{resolution_s * 1000:,.0f}",
                    str(found.fleet.gateways),
                    f"{found.near_cache_gib:.2f}",
                    f"{found.store.touches:,.0f}",
                    f"{found.store.loads:,.0f}",
                    f"{found.store.commands / 1000:.1f}",
                    f"{found.redis_cores:.2f}",
                ]


CHECKED = ["run", "commands for 1,000 requests: model · measured", "touches/s: model · measured"]
CHECKED += ["loads/s: model · measured"]


def checked_rows(measured: Mapping[str, Mapping[str, float]]) -> Iterator[list[str]]:
    """The model beside scale.py's runs: gateways, routing, shards, touch resolution, rechecks."""
    for name, fleet in fleets(measured):
        predicted = load(fleet)
        commands = predicted.commands / fleet.requests_per_s * 1000
        said = {key: measured[f"{name}/{key}"]["value"] for key in ("commands", "touches", "loads")}
        yield [
            name.removeprefix("scale/").replace("/", ", "),
            f"{commands:.2f} · {said['commands']:.2f}",
            f"{predicted.touches:,.0f} · {said['touches']:,.0f}",
            f"{predicted.loads:,.0f} · {said['loads']:,.0f}",
        ]


def check(measured: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """The same, for a terminal."""
    for cells in (CHECKED, *checked_rows(measured)):
        yield f"{cells[0]:38} {cells[1]:>46} {cells[2]:>28} {cells[3]:>26}"


def fleets(measured: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, Fleet]]:
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
    parser.add_argument("--cores", type=int, default=1, help="of a gateway, a thread on each; %(default)s")
    parser.add_argument("--connections", type=float, default=1e3, help="of clients, on a gateway; %(default)g")
    parser.add_argument("--hashed", action="store_true", help="the balancer hashes on the ticket")
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--touch-resolution-ms", type=float, default=0)
    parser.add_argument(
        "--near-cache", type=float, default=1e7, metavar="SESSIONS", help="a gateway's capacity; %(default)g"
    )
    parser.add_argument("--node-gib", type=float, default=NODE_GIB, help="memory of a Redis node; %(default)g")
    parser.add_argument(
        "--recheck-s", type=float, default=300.0, metavar="S", help="recheck_s of the near caches; %(default)g"
    )
    parser.add_argument("--check", type=Path, metavar="FILE", help="what scale.py wrote")
    options = parser.parse_args()
    positive = (options.active, options.rate, options.near_cache, options.shards, options.cores, options.connections)
    if min(positive) <= 0 or options.active > options.sessions:
        parser.error("numbers are above 0, and no more sessions are active than there are")
    costs = Costs.of(json.loads(track.records()[-1].read_text())["figures"])
    if options.check:
        lines = check(json.loads(options.check.read_text())["figures"])
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
            cores=options.cores,
            connections=options.connections,
        )
        lines = plan_lines(plan(options.sessions, fleet, costs), options.node_gib)
    for line in lines:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
