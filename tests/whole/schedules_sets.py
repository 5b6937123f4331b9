"""Faults of sets of servers: Sentinel and Cluster."""

# ruff: noqa: ASYNC110 -- what another process does is looked for, at every turn

from __future__ import annotations

import asyncio
import time

from lab.redis_servers import ClusterSetup

from whole.acts import under_load, until
from whole.stage import Stage, schedule

SLOTS = 16_384


@schedule(short=False)
async def sentinel_master_killed(stage: Stage) -> None:
    """SIGKILL to the master, and what the sentinels take to name another one."""
    setup = await asyncio.to_thread(stage.sentinel)
    url = f"{setup.url}?timeout_ms={stage.timeout_ms}"
    await stage.gateways(url, url)
    old = setup.master

    async def fault() -> None:
        start_s = time.monotonic()
        await asyncio.to_thread(old.kill)
        while setup.current_master() is old:
            await asyncio.sleep(0.05)
        stage.fleet.window((0, 1), start_s)
        stage.notes.append(f"another master after {time.monotonic() - start_s:.1f} s")
        await until(stage, 5)

    await under_load(stage, fault)


def _slot_of_shard(setup: ClusterSetup, shard: int) -> int:
    return int(setup.servers[0].admin("CLUSTER", "KEYSLOT", f"{{ft:{shard:03}}}:live"))


@schedule(short=False)
async def cluster_primary_killed(stage: Stage) -> None:
    """SIGKILL to a primary; its replica takes over."""
    setup = await asyncio.to_thread(lambda: stage.cluster(replicas=1))
    url = f"{setup.url}?timeout_ms={stage.timeout_ms}"
    await stage.gateways(url, url)
    slot = _slot_of_shard(setup, 0)

    async def fault() -> None:
        victim = await asyncio.to_thread(setup.owner_of, slot)
        start_s = time.monotonic()
        await asyncio.to_thread(victim.kill)
        while await asyncio.to_thread(_owner_port, setup, slot) in (0, victim.port):
            await asyncio.sleep(0.05)
        stage.fleet.window((0, 1), start_s)
        stage.notes.append(f"another primary after {time.monotonic() - start_s:.1f} s")
        await until(stage, 5)

    await under_load(stage, fault)


def _owner_port(setup: ClusterSetup, slot: int) -> int:
    """0: nobody says that the cluster is whole again."""
    try:
        owner = setup.owner_of(slot)
        return owner.port if owner.admin("CLUSTER INFO")["cluster_state"] == "ok" else 0
    except Exception:  # the one that was killed, or a server that has not heard yet
        return 0


@schedule()
async def cluster_slots_moved(stage: Stage) -> None:
    """Slots with sessions move to another primary, key by key, under load: nobody notices."""
    setup = await asyncio.to_thread(stage.cluster)
    url = f"{setup.url}?timeout_ms={stage.timeout_ms}"
    await stage.gateways(url, url)

    async def fault() -> None:
        for shard in range(stage.scaled(8, 2)):
            await asyncio.to_thread(_move, setup, _slot_of_shard(setup, shard))
            await until(stage, 0.3)

    await under_load(stage, fault)


def _move(setup: ClusterSetup, slot: int) -> None:
    source = setup.owner_of(slot)
    target = setup.primaries[(setup.primaries.index(source) + 1) % len(setup.primaries)]
    target.admin("CLUSTER", "SETSLOT", slot, "IMPORTING", source.admin("CLUSTER MYID"))
    source.admin("CLUSTER", "SETSLOT", slot, "MIGRATING", target.admin("CLUSTER MYID"))
    while keys := source.admin("CLUSTER", "GETKEYSINSLOT", slot, 100):
        for key in keys:
            source.admin("MIGRATE", "127.0.0.1", target.port, key, 0, 1000)
            time.sleep(0.02)  # for traffic to meet a slot that is half moved
    for server in (target, source, *setup.primaries):
        server.admin("CLUSTER", "SETSLOT", slot, "NODE", target.admin("CLUSTER MYID"))
