"""The store in memory: the contract of every store, time that a test moves, and being away."""

from __future__ import annotations

import asyncio

import pytest
from lab.store_contract import StoreContract

import fastticket.sync
from fastticket import Keyring, StoreUnavailable, TicketCache, TicketRefused
from fastticket.errors import Verdict
from fastticket.stores.contract import Store
from fastticket.testing import Clock, MemoryStore

KEYS = Keyring([(1, b"k" * 32)])
IDLE_S = 7200


class TestMemory(StoreContract):
    @pytest.fixture
    async def open_handle(self):
        handles = [MemoryStore()]

        async def open_one() -> Store:
            handles.append(handles[0].another())
            await handles[-1].open()
            return handles[-1]

        yield open_one
        for handle in handles:
            await handle.aclose()

    def stop_clock(self, store: Store, patch: pytest.MonkeyPatch, now_ms: int) -> None:
        patch.setattr(store._server, "clock", lambda: now_ms - store._server.shift_ms)

    async def lose_log(self, store: Store, principal: str) -> None:
        log = store._server.logs[0]
        log.lose(entries=1)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


def cache_on(store, clock, **settings):
    return TicketCache(store, KEYS, clock=clock, idle_timeout_s=IDLE_S, absolute_lifetime_s=86_400, **settings)


# --- time


async def test_time_stands_still_until_it_is_moved(store, clock):
    async with cache_on(store, clock) as cache:
        began_ms = cache.now_ms()
        session = await cache.authenticate(await cache.login("alice"))
        assert session.issued_at_ms == began_ms
        clock.advance(1.5)
        assert cache.now_ms() == began_ms + 1500


async def test_an_unused_session_idles_out_and_a_used_one_does_not(store, clock):
    async with cache_on(store, clock) as cache:
        used, unused = await cache.login("alice"), await cache.login("bob")
        for _ in range(3):
            clock.advance(IDLE_S / 2)
            assert await cache.authenticate(used)
        with pytest.raises(TicketRefused) as refused:
            await cache.authenticate(unused)
        assert refused.value.reason == "idle"


async def test_a_session_ends_however_much_it_is_used(store, clock):
    async with cache_on(store, clock) as cache:
        ticket = await cache.login("alice")
        for _ in range(23):
            clock.advance(3600)
            assert await cache.authenticate(ticket)
        clock.advance(3600)
        assert cache.check(ticket) is Verdict.EXPIRED


def test_time_does_not_go_back(clock):
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


async def test_without_a_clock_it_is_real_time():
    async with TicketCache(MemoryStore(), KEYS) as cache:
        assert abs(cache.now_ms() - await fresh_sqlite_time_ms()) < 10_000


async def fresh_sqlite_time_ms():
    store = fastticket.open_store("sqlite://:memory:")
    await store.open()
    try:
        return await store.time_ms()
    finally:
        await store.aclose()


# --- several caches


async def until(is_so):
    """The doorbell has rung, and what rang was read."""
    while not is_so():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_another_store_has_the_same_sessions_and_hears_of_an_end_at_once(store, clock):
    async with cache_on(store, clock) as here, cache_on(store.another(), clock) as there:
        ticket = await here.login("alice")
        assert await there.authenticate(ticket)
        await here.logout(ticket)
        async with asyncio.timeout(5):
            await until(lambda: not there.check(ticket))
        assert there.check(ticket) is Verdict.REVOKED


def test_caches_in_several_threads_share_it(store, clock):
    async def logs_out(ticket):
        async with cache_on(store, clock) as cache:
            return await cache.logout(ticket)

    with fastticket.sync.TicketCache(store.another(), KEYS, clock=clock) as cache:
        ticket = cache.login("alice")
        assert asyncio.run(logs_out(ticket))
        with pytest.raises(TicketRefused, match="revoked"):
            cache.authenticate(ticket, consistency="strong")


# --- away


async def test_away_means_that_nobody_knows_and_back_that_nothing_is_lost(store, clock):
    async with cache_on(store, clock, outage_policy="deny") as cache:
        ticket = await cache.login("alice")
        store.is_away = True
        assert store.another().is_away
        clock.advance(10)
        with pytest.raises(StoreUnavailable):
            await cache.authenticate(ticket)
        with pytest.raises(StoreUnavailable):
            await cache.login("bob")
        store.is_away = False
        assert await cache.authenticate(ticket)


async def test_a_store_that_is_away_can_not_be_opened(store, clock):
    store.is_away = True
    with pytest.raises(StoreUnavailable, match="is_away"):
        await cache_on(store, clock).open()
