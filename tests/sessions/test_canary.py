"""Canaries: every gateway measures how late it hears of an end, and nobody else sees anything of
them. In virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from lab.model_store import in_virtual_time, pass_ms
from lab.virtual_gateways import FLUSH_MS, gateway, new_server

from fastticket import TicketCache
from fastticket.core.ticket import check_principal
from fastticket.errors import InvalidPrincipal
from fastticket.sessions.canary import INTERVAL_S, Canary
from fastticket.sessions.ticketcache import measured, shards_of
from fastticket.stores.contract import CANARY, is_canary

PERIOD_MS = round(1.5 * INTERVAL_S * 1000)  # one is ended at least so often
MINUTE_MS = 60_000


@contextlib.asynccontextmanager
async def watching(*caches: TicketCache) -> AsyncIterator[list[Canary]]:
    canaries = [Canary(shards_of(cache)) for cache in caches]
    for canary in canaries:
        canary.start()
    try:
        yield canaries
    finally:
        for canary in canaries:
            await canary.stop()


def heard(canary: Canary) -> int:
    return sum(count for _, count in canary.lag.counted["buckets"])


def latest(canary: Canary) -> float:
    """An upper bound of the longest lag, s."""
    return max((bound or 99.0 for bound, count in canary.lag.counted["buckets"] if count), default=0.0)


@in_virtual_time
async def test_one_gateway_ends_a_canary_and_all_of_them_observe_it():
    server = new_server()
    async with contextlib.AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(gateway(server)) for _ in range(5)]
        canaries = await stack.enter_async_context(watching(*(cache for cache, _ in gateways)))
        exchanges = [sum(call.name == "exchange" for call in store.calls) for _, store in gateways]
        await pass_ms(10 * MINUTE_MS)
        ended = sum(canary.ended["ended"] for canary in canaries)
        assert 10 * MINUTE_MS / PERIOD_MS <= ended <= 10 * MINUTE_MS / (INTERVAL_S * 1000)
        assert {heard(canary) for canary in canaries} <= {ended, ended - 1}  # the last one may be on its way
        assert all(canary.ended["ended"] for canary in canaries)  # nobody is elected
        for canary in canaries:  # this store's doorbell does not ring for one's own doings: the flush hears them
            soon = sum(count for bound, count in canary.lag.counted["buckets"] if bound and bound <= 0.001)
            assert soon >= heard(canary) - canary.ended["ended"]
            assert latest(canary) <= FLUSH_MS / 1000
        # What it costs each of them: a look at the log when one begins (this store rings for that,
        # too) and one when it ends; one more for its own.
        for (_, store), canary, before in zip(gateways, canaries, exchanges, strict=True):
            looks = sum(call.name == "exchange" for call in store.calls) - before
            assert looks <= 2 * heard(canary) + canary.ended["ended"]


@in_virtual_time
async def test_the_others_go_on_without_the_one_that_ended_them():
    server = new_server()
    async with gateway(server) as (one, _), gateway(server) as (other, _), watching(other) as [left]:
        async with watching(one):
            await pass_ms(MINUTE_MS)
        before = heard(left)
        await pass_ms(MINUTE_MS)
        assert heard(left) >= before + MINUTE_MS // PERIOD_MS


@in_virtual_time
async def test_a_canary_is_nobodys_session():
    """Not in lists, counts, limits and events; a user cannot be called like one; and one that a
    crash has left is swept.
    """
    server = new_server()
    with pytest.raises(InvalidPrincipal):
        check_principal(f"{CANARY}1")
    async with gateway(server, sessions_max=1) as (cache, store), watching(cache) as [canary]:
        events = await cache.events().start()
        told: list[str] = []

        async def follow() -> None:
            async for event in events:
                told.append(f"{event.kind} {event.principal}")

        following = asyncio.create_task(follow())
        await cache.login("alice")
        await pass_ms(MINUTE_MS)
        assert heard(canary) >= MINUTE_MS // PERIOD_MS
        assert [session.principal for session in server.live.values()] == ["alice"]
        assert cache.stats["sessions_held"] <= 1
        gate = store.hold_requests(lambda call: call.name == "revoke")
        await gate.arrival()
        [left] = [session for session in server.live.values() if is_canary(session.principal)]
        assert left.idle_deadline_ms <= server.time_ms()
        assert await cache.sessions(left.principal) == []
        await canary.stop()
        gate.open()
        await pass_ms(20 * MINUTE_MS)
        assert not [session for session in server.live.values() if is_canary(session.principal)]
        assert set(told) == {"created alice", "expired alice"}
        assert sum(sum(reasons.values()) for reasons in measured(cache)["events"].values()) <= 2
        following.cancel()


@in_virtual_time
async def test_the_lag_is_that_of_the_doorbell_and_the_log():
    """Without a doorbell it is the flush's; a gateway that waits for the store's answer hears it
    so much later.
    """
    server = new_server(shards=1)
    async with gateway(server) as (cache, store), watching(cache) as [canary]:
        store.wire.is_deaf = True
        await pass_ms(MINUTE_MS)
        assert heard(canary) >= MINUTE_MS // PERIOD_MS
        assert 0.05 < latest(canary) <= FLUSH_MS / 1000
        store.wire.is_deaf = False
        held = store.hold_replies(lambda call: call.name == "exchange")
        before = heard(canary)
        await held.arrival()
        await pass_ms(3000)
        assert heard(canary) == before
        held.open()
        await pass_ms(100)
        assert latest(canary) == 5.0


@in_virtual_time
async def test_without_the_store_the_last_observation_grows_old():
    server = new_server()
    async with gateway(server) as (cache, store), watching(cache) as [canary]:
        await pass_ms(MINUTE_MS)
        store.wire.is_down = True
        before, heard_s = heard(canary), canary.heard_s
        await pass_ms(MINUTE_MS)
        assert (heard(canary), canary.heard_s) == (before, heard_s)
        assert canary.ended["failed"] >= MINUTE_MS // PERIOD_MS
        store.wire.is_down = False
        await pass_ms(PERIOD_MS + FLUSH_MS)
        assert heard(canary) > before
        assert asyncio.get_running_loop().time() - canary.heard_s <= (PERIOD_MS + FLUSH_MS) / 1000
