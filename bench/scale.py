"""What things cost as the work grows.

    python bench/scale.py [--quick] [--only sessions connections threads gateways shards redis]
                          [--json FILE]

sessions      10^3 to 10^6 in a near cache: ns a hit in random order, bytes a session
connections   4 to 10,000 on a gateway, at most 256 requests in flight: CPU a request, p99, memory a
              connection; nginx beside it
threads       1 and 2, on two cores: requests/s by CPU, Redis commands, touches, memory (threads.py)
gateways      1 to 8 on one Redis, balanced at random and by the ticket: Redis commands, touches,
              Redis' CPU
shards        1 to 64, of one gateway: the same
redis         10^3 to 10^6 sessions in Redis: bytes a session, Redis' CPU for a touch and for a load

gateways and shards are embedded caches in one process on core 0, 1,000 sessions and 8,000 checks a
second; Redis has core 1. Their runs are what the model in capacity.py is checked against: `python
bench/capacity.py --check FILE`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import bench_core
import candidates
import figures
import gateway
import redis
import threads
import uvloop
from children import GATEWAY_CORE, LOAD_CORE, Child, claim_machine, cpu_ns, run_program
from loader import build
from sessions import make_sessions, redis_commands, start_redis

import fastticket
from fastticket.core.ticket import encode_session_id
from fastticket.core.touches import Touches
from fastticket.stores.contract import Reply, Request, Store, StoredSession, shard_of

HIT_ROUNDS = 40
IN_FLIGHT_MAX = 256
FLEET_SESSIONS = 1_000
FLEET_RATE = 8_000
WARM_UP_S = 2.0
# One gateway with other settings; the model shall get these right, too. A session is asked every
# 0.125 s, and what began together goes in waves: these runs are long, so that a wave more or less
# does not count.
SETTINGS = {"touch resolution 1 s": {"touch_resolution_ms": 1000}, "recheck 3 s": {"recheck_s": 3}}
TURNS_PER_S = 100
AT_ONCE = 400
EXCHANGES = 50


@dataclasses.dataclass(frozen=True)
class Extent:
    """How far the work grows, and how long a run of it takes."""

    near_sessions: Sequence[int] = (10**3, 10**4, 10**5, 10**6)
    connections: Sequence[int] = (4, 16, 64, 256, 1024, 4096, 9900)  # connections_max is 10,000
    rounds: int = 8
    threads_rounds: int = threads.ROUNDS
    paced_s: int = threads.PACED_S
    gateways: Sequence[int] = (1, 2, 4, 8)
    shards: Sequence[int] = (1, 4, 16, 64)
    fleet_s: float = 5.0
    settings_s: float = 30.0
    redis_sessions: Sequence[int] = (10**3, 10**4, 10**5, 10**6)


QUICK = Extent(
    near_sessions=(10**3, 10**5),
    connections=(64, 256),
    rounds=2,
    threads_rounds=3,
    paced_s=6,
    gateways=(1, 2),
    shards=(1, 16),
    fleet_s=2.0,
    settings_s=6.0,
    redis_sessions=(10**3, 10**4),
)

Found = tuple[dict[str, figures.Figure], dict[str, Any]]


def tell(path: str, found: dict[str, figures.Figure]) -> None:
    """Print the figures of one part as soon as it is measured."""
    own = {name.removeprefix(f"{path}/"): each for name, each in found.items() if name.startswith(f"{path}/")}
    said = ", ".join(f"{name} {each['value']:,.4g} {each['unit']}" for name, each in own.items())
    print(f"{path.removeprefix('scale/'):28} {said}", flush=True)


# ----------------------------------------------------------------------- sessions in the near cache


def sessions(extent: Extent) -> Found:
    found, ns, sizes = {}, [], []
    for count in extent.near_sessions:
        cache, issued_at_ms = bench_core.full_cache(count)
        keys, order, rounds_ns = fastticket.Keyring([(1, bench_core.SECRET)]), random.Random(count), []
        for _ in range(HIT_ROUNDS):
            numbers = order.sample(range(count), bench_core.TICKETS_PER_ROUND)
            tickets = [bench_core.ticket_of(keys, number, issued_at_ms) for number in numbers]
            began = time.perf_counter_ns()
            bench_core.check_all(cache, tickets)
            rounds_ns.append((time.perf_counter_ns() - began) / len(tickets))
        ns.append(statistics.median(rounds_ns))
        sizes.append(cache._near.memory_bytes / count)
        found[f"scale/sessions/{count}/hit"] = figures.middle(rounds_ns, "ns a hit")
        found[f"scale/sessions/{count}/bytes"] = figures.figure(sizes[-1], "bytes a session")
        print(
            f"{count:12,} sessions in the near cache: {ns[-1]:6.0f} ns a hit, {sizes[-1]:6.1f} bytes a session",
            flush=True,
        )
        bench_core.full_cache.cache_clear()
    return found, {
        "near cache: cost of a hit": figures.series(extent.near_sessions, ns, "sessions in the near cache", "ns a hit"),
        "near cache: memory": figures.series(
            extent.near_sessions, sizes, "sessions in the near cache", "bytes a session"
        ),
    }


# ---------------------------------------------------------------- connections of a gateway


def connections(extent: Extent) -> Found:
    found: dict[str, figures.Figure] = {}
    names = ("fastticket", "nginx")
    for count in extent.connections:
        found |= side_by_side(
            "scale/connections",
            {f"{count}, {name}": candidates.CANDIDATES[name] for name in names},
            count,
            extent.rounds,
        )
    lines = {}
    for name in names:
        for quantity, title, unit in (("cpu", "CPU", "µs of CPU a request"), ("p99", "p99", "µs, p99")):
            y = [found[f"scale/connections/{count}, {name}/{quantity}"]["value"] for count in extent.connections]
            lines[f"gateway, {title}: {name}"] = figures.series(extent.connections, y, "connections", unit)
    return found, lines


def side_by_side(
    path: str, chosen: Mapping[str, candidates.Candidate], count: int, rounds: int
) -> dict[str, figures.Figure]:
    """Gateways with so many connections each, in turn: CPU a request, p99, and resident memory."""
    build()
    found: dict[str, figures.Figure] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastticket-bench-")))
        made = make_sessions(folder, gateway.SESSIONS)
        running = []
        for name, candidate in chosen.items():
            running.append(gateway.Running(name, candidate, folder, made, count))
            stack.callback(running[-1].stop)
        at_once = min(count, IN_FLIGHT_MAX)
        slices = gateway.measure(running, rounds, gateway.SLICE_MS, at_once)
        for each in running:
            own = slices[each.name]
            found[f"{path}/{each.name}/cpu"] = figures.middle([s["cpu_us"] for s in own], "µs a request")
            found[f"{path}/{each.name}/p99"] = figures.middle([s["p99_us"] for s in own], "µs")
            found[f"{path}/{each.name}/memory"] = figures.figure(each.resident_kib(), "KiB resident")
            tell(f"{path}/{each.name}", found)
    return found


def in_threads(extent: Extent) -> Found:
    return threads.measure(extent.threads_rounds, extent.paced_s), {}


# ----------------------------------------------------------------------------- a fleet on one Redis


def gateways(extent: Extent) -> Found:
    found: dict[str, figures.Figure] = {}
    for routing in ("round robin", "hashed"):
        for count in extent.gateways:
            found |= fleet(f"scale/gateways/{count}, {routing}", count, 16, routing, extent.fleet_s)
    for name, settings in SETTINGS.items():
        found |= fleet(f"scale/settings/{name}", 1, 16, "round robin", extent.settings_s, settings)
    lines = {}
    for quantity, unit in (
        ("commands", "Redis commands for 1,000 requests"),
        ("touches", "touches/s"),
        ("redis", "Redis' CPU, µs a request"),
    ):
        for routing in ("round robin", "hashed"):
            y = [found[f"scale/gateways/{count}, {routing}/{quantity}"]["value"] for count in extent.gateways]
            lines[f"fleet, {quantity}: {routing}"] = figures.series(extent.gateways, y, "gateways", unit)
    return found, lines


def shards(extent: Extent) -> Found:
    found: dict[str, figures.Figure] = {}
    for count in extent.shards:
        found |= fleet(f"scale/shards/{count}", 1, count, "round robin", extent.fleet_s)
    y = [found[f"scale/shards/{count}/commands"]["value"] for count in extent.shards]
    return found, {"shards: commands": figures.series(extent.shards, y, "shards", "Redis commands for 1,000 requests")}


def fleet(
    path: str,
    count: int,
    shard_count: int,
    routing: str,
    seconds: float,
    settings: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, figures.Figure]:
    """So many gateways on a Redis of their own."""
    with tempfile.TemporaryDirectory() as folder:
        server, port = start_redis(Path(folder), LOAD_CORE)
        try:
            seen = uvloop.run(run_fleet(server, port, count, shard_count, routing == "hashed", seconds, settings))
        finally:
            server.stop()
    commands = seen["commands"] / seen["requests"] * 1000
    found = {
        f"{path}/commands": figures.figure(commands, "per 1,000 requests"),
        f"{path}/touches": figures.figure(seen["touches"] / seen["seconds"], "touches/s"),
        f"{path}/redis": figures.figure(seen["redis_us"] / seen["requests"], "µs a request"),
        f"{path}/rate": figures.figure(seen["requests"] / seen["seconds"], "requests/s"),
        f"{path}/loads": figures.figure(seen["loads"] / seen["seconds"], "loads/s"),
        f"{path}/sessions": figures.figure(FLEET_SESSIONS, "sessions"),
        f"{path}/gateways": figures.figure(count, "gateways"),
        f"{path}/shards": figures.figure(shard_count, "shards"),
        f"{path}/resolution": figures.figure(settings.get("touch_resolution_ms", 0) / 1000, "s"),
        f"{path}/recheck": figures.figure(settings.get("recheck_s", 300), "s"),
    }
    tell(path, found)
    return found


async def run_fleet(
    server: Child, port: int, count: int, shard_count: int, hashed: bool, wanted_s: float, settings: Mapping[str, int]
) -> dict[str, float]:
    url = f"redis://127.0.0.1:{port}/0?shards={shard_count}"
    keys = fastticket.Keyring.generate()
    async with contextlib.AsyncExitStack() as stack:
        caches = [
            await stack.enter_async_context(fastticket.TicketCache(fastticket.open_store(url), keys, **settings))
            for _ in range(count)
        ]
        tickets = [await caches[0].login(f"user-{number:05}") for number in range(FLEET_SESSIONS)]
        for number, cache in enumerate(caches):
            seen = tickets[number::count] if hashed else tickets
            await asyncio.gather(*(cache.authenticate(ticket) for ticket in seen))
        await ask(caches, tickets, hashed, WARM_UP_S)
        with redis.Redis(port=port) as client:
            client.config_resetstat()
        before = total(caches, "touches_written"), total(caches, "loads"), cpu_ns([server.pid])
        requests, seconds = await ask(caches, tickets, hashed, wanted_s)
        return {
            "requests": requests,
            "seconds": seconds,
            "commands": sum(redis_commands(port).values()),
            "touches": total(caches, "touches_written") - before[0],
            "loads": total(caches, "loads") - before[1],
            "redis_us": (cpu_ns([server.pid]) - before[2]) / 1e3,
        }


def total(caches: Sequence[fastticket.TicketCache], name: str) -> int:
    return sum(cache.stats[name] for cache in caches)


async def ask(
    caches: Sequence[fastticket.TicketCache], tickets: Sequence[str], hashed: bool, seconds: float
) -> tuple[int, float]:
    """Check sessions at random, at a steady rate. How many, in how long."""
    loop, order, requests = asyncio.get_running_loop(), random.Random(1), 0
    began = loop.time()
    while (elapsed_s := loop.time() - began) < seconds:
        for _ in range(int(FLEET_RATE * elapsed_s) - requests):
            number = order.randrange(len(tickets))
            cache = caches[number % len(caches)] if hashed else order.choice(caches)
            if not cache.check(tickets[number]):
                await cache.authenticate(tickets[number])
            requests += 1
        await asyncio.sleep(1 / TURNS_PER_S)
    return requests, loop.time() - began


# -------------------------------------------------------------------------------- sessions in Redis


def in_redis(extent: Extent) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        server, port = start_redis(Path(folder), LOAD_CORE)
        try:
            return uvloop.run(fill_and_measure(server, port, extent.redis_sessions))
        finally:
            server.stop()


async def fill_and_measure(server: Child, port: int, counts: Sequence[int]) -> Found:
    store = fastticket.open_store(f"redis://127.0.0.1:{port}/0?timeout_ms=10000")
    await store.open()
    found: dict[str, figures.Figure] = {}
    now_ms, filled, order = await store.time_ms(), 0, random.Random(1)
    empty_bytes = used_bytes(port)
    for count in counts:
        for start in range(filled, count, AT_ONCE):
            made = (session(number, now_ms) for number in range(start, min(start + AT_ONCE, count)))
            await asyncio.gather(*(store.create(each) for each in made))
        filled = count
        size = (used_bytes(port) - empty_bytes) / count
        touch_us = await exchange_us(
            server, store, [touches(store, order, count, now_ms, n) for n in range(1, EXCHANGES)]
        )
        load_us = await exchange_us(server, store, [loads(store, order, count, now_ms) for _ in range(EXCHANGES)])
        empty = [{shard: Request(None) for shard in range(store.shards)}] * EXCHANGES
        few_us = await exchange_us(server, store, empty) / store.shards
        lone = [loads(store, order, count, now_ms, 1) for _ in range(EXCHANGES)]
        began_s = time.process_time()
        lone_us = await exchange_us(server, store, lone)
        call_us = (time.process_time() - began_s) / EXCHANGES * 1e6
        found[f"scale/redis/{count}/bytes"] = figures.figure(size, "bytes a session")
        found[f"scale/redis/{count}/touch"] = figures.figure(touch_us / AT_ONCE, "µs of Redis' CPU")
        found[f"scale/redis/{count}/load"] = figures.figure(load_us / AT_ONCE, "µs of Redis' CPU")
        found[f"scale/redis/{count}/exchange"] = figures.figure(few_us, "µs of Redis' CPU, in a pipeline")
        found[f"scale/redis/{count}/lone load"] = figures.figure(lone_us, "µs of Redis' CPU")
        found[f"scale/redis/{count}/gateway, lone load"] = figures.figure(call_us, "µs of the gateway's CPU")
        tell(f"scale/redis/{count}", found)
    await store.aclose()
    lines = {}
    for quantity, unit in (
        ("bytes", "bytes a session"),
        ("touch", "Redis' CPU, µs a touch"),
        ("load", "Redis' CPU, µs a load"),
    ):
        y = [found[f"scale/redis/{count}/{quantity}"]["value"] for count in counts]
        lines[f"Redis: {quantity}"] = figures.series(counts, y, "sessions in Redis", unit)
    return found, lines


def session(number: int, now_ms: int) -> StoredSession:
    principal = f"user{number:08}"
    return StoredSession(
        encode_session_id(number.to_bytes(16, "big")), principal, now_ms + 7_200_000, now_ms, 7200, 86400
    )


def used_bytes(port: int) -> int:
    with redis.Redis(port=port) as client:
        return int(client.info("memory")["used_memory"])


def by_shard(
    store: Store, order: random.Random, count: int, now_ms: int, wanted: int
) -> dict[int, list[StoredSession]]:
    found: dict[int, list[StoredSession]] = {}
    for number in order.sample(range(count), wanted):
        chosen = session(number, now_ms)
        found.setdefault(shard_of(chosen.principal, store.shards), []).append(chosen)
    return found


def touches(store: Store, order: random.Random, count: int, now_ms: int, number: int) -> dict[int, Request]:
    return {
        shard: Request(None, Touches.of(shard, [(s.id, s.principal, s.idle_deadline_ms + number) for s in chosen]))
        for shard, chosen in by_shard(store, order, count, now_ms, AT_ONCE).items()
    }


def loads(store: Store, order: random.Random, count: int, now_ms: int, wanted: int = AT_ONCE) -> dict[int, Request]:
    return {
        shard: Request(None, wanted=[(s.id, s.principal) for s in chosen])
        for shard, chosen in by_shard(store, order, count, now_ms, wanted).items()
    }


async def exchange_us(server: Child, store: Store, exchanges: Sequence[dict[int, Request]]) -> float:
    """Redis' CPU for one exchange, in microseconds."""
    before = cpu_ns([server.pid])
    for requests in exchanges:
        replies = await store.exchange(requests)
        assert all(isinstance(reply, Reply) and None not in reply.deadlines_ms for reply in replies.values())
    return (cpu_ns([server.pid]) - before) / 1e3 / len(exchanges)


SECTIONS: dict[str, Callable[[Extent], Found]] = {
    "sessions": sessions,
    "connections": connections,
    "threads": in_threads,
    "gateways": gateways,
    "shards": shards,
    "redis": in_redis,
}


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="not so far, and for a shorter time")
    parser.add_argument("--only", nargs="*", choices=SECTIONS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found: dict[str, figures.Figure] = {}
    lines: dict[str, Any] = {}
    for name in options.only or SECTIONS:
        claim_machine(LOAD_CORE if name in ("connections", "threads") else GATEWAY_CORE)
        section_figures, section_lines = SECTIONS[name](QUICK if options.quick else Extent())
        found |= section_figures
        lines |= section_lines
    figures.write(options.json, found, lines)
    return 0


if __name__ == "__main__":
    run_program(main)
