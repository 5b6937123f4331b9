"""The flush from outside: whatever happens to an exchange, its touches are written or wait again;
and callers whose touches find no room to wait have some made.

A touch that waits is *dirty*; one that was taken for an exchange that is not over is *sent*.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest
from lab.model_store import ModelServer, ModelStore, in_virtual_time, pass_ms, settle, writes_touches
from lab.store_contract import principal_in
from lab.virtual_gateways import FLUSH_MS, gateway, new_server, said_of, said_of_each, used_now_ms

from fastticket import TicketCache
from fastticket.errors import StoreUnavailable
from fastticket.sessions import flush


async def use_sessions(cache: TicketCache, principals: list[str]) -> list[str]:
    """Tickets of sessions that are held, and whose touches wait."""
    tickets = [await cache.login(principal) for principal in principals]
    assert await said_of_each(cache, tickets) == principals
    await pass_ms(10)
    use_again(cache, tickets)
    return tickets


def use_again(cache: TicketCache, tickets: list[str]) -> None:
    assert all(cache.check(ticket) for ticket in tickets)


def users(count: int) -> list[str]:
    return [f"user{number}" for number in range(count)]


def waiting(cache: TicketCache) -> tuple[int, int]:
    """Touches that are dirty, and that are sent."""
    near = cache._near
    assert cache.stats["touches_unwritten"] == near.dirty_count + near.sent_count
    return near.dirty_count, near.sent_count


def stored_deadlines_ms(server: ModelServer) -> set[int]:
    return {session.idle_deadline_ms for session in server.live.values()}


def touched_ids(store: ModelStore) -> list[str]:
    return sorted(touch.session_id for touch in store.touches)


async def silence(requests):
    return {}


# --- what fails is written later


@pytest.mark.parametrize(
    "fault", ["is_down", "is_silent", "loses_replies", "refuses_writes", "breaks_with", "exchange"]
)
@in_virtual_time
async def test_p5_touches_of_a_failed_exchange_wait_again_and_the_next_flush_writes_them(fault, caplog):
    server = new_server()
    async with gateway(server) as (cache, store):
        await use_sessions(cache, users(40))
        latest_ms = used_now_ms(server)
        whole = store.exchange
        if fault == "exchange":
            store.exchange = silence  # a store that answers for no shard
        else:
            setattr(store.wire, fault, RuntimeError("a bug") if fault == "breaks_with" else True)
        await cache.flush()
        assert waiting(cache) == (40, 0)
        store.exchange = whole
        store.wire.__init__()
        store.calls.clear()
        await cache.flush()
        assert waiting(cache) == (0, 0)
        assert len(store.touches) == len(set(touched_ids(store))) == 40
        assert stored_deadlines_ms(server) == {latest_ms}


@in_virtual_time
async def test_p5_a_shard_that_fails_keeps_its_touches_and_no_others():
    server = new_server()
    async with gateway(server) as (cache, store):
        await use_sessions(cache, [principal_in(shard, server.shards) for shard in range(server.shards)])
        store.wire.shards_down = {1}
        await cache.flush()
        assert waiting(cache) == (1, 0)
        store.wire.shards_down = set()
        store.calls.clear()
        await cache.flush()
        assert [touch.principal for touch in store.touches] == [principal_in(1, server.shards)]


@in_virtual_time
async def test_p5_a_flush_cancelled_at_any_time_leaves_nothing_sent(monkeypatch):
    monkeypatch.setattr(flush, "TOUCHES_PER_SLICE", 7)
    monkeypatch.setattr(ModelStore, "touches_per_exchange", 5)
    server = new_server()
    async with gateway(server) as (cache, _):
        tickets = await use_sessions(cache, users(40))
        turns = 0
        while True:
            flushing = asyncio.create_task(cache.flush())
            for _ in range(turns):
                await asyncio.sleep(0)
            if flushing.done():
                break
            flushing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await flushing
            dirty, sent = waiting(cache)
            assert (dirty <= 40, sent) == (True, 0), f"cancelled after {turns} turns"
            await pass_ms(3)
            use_again(cache, tickets)
            latest_ms = used_now_ms(server)
            turns += 1
        assert turns > 20  # slices and exchanges
        await flushing
        assert waiting(cache) == (0, 0)
        assert stored_deadlines_ms(server) == {latest_ms}


@in_virtual_time
async def test_p5_a_cache_closed_while_its_store_is_away_says_how_much_was_not_written(caplog):
    server = new_server()
    async with gateway(server) as (cache, store):
        await use_sessions(cache, users(40))
        store.wire.is_down = True
        await cache.aclose()
        assert waiting(cache) == (40, 0)
        assert "closing with 40 touches unwritten" in caplog.text


@in_virtual_time
async def test_p5_a_cache_closed_while_a_flush_is_under_way_writes_everything():
    server = new_server()
    async with gateway(server) as (cache, store):
        tickets = await use_sessions(cache, users(40))
        gate = store.hold_replies(writes_touches)
        await pass_ms(FLUSH_MS)  # the keeper's own
        await gate.arrival()
        use_again(cache, tickets)
        latest_ms = used_now_ms(server)
        closing = asyncio.create_task(cache.aclose())
        await settle()
        gate.open()
        await closing
        assert waiting(cache) == (0, 0)
        assert stored_deadlines_ms(server) == {latest_ms}


# --- what comes in between


@pytest.mark.parametrize("reply", ["comes", "is lost"])
@in_virtual_time
async def test_p7_a_session_used_while_its_touch_is_on_its_way_has_one_in_the_next_flush(reply):
    server = new_server()
    async with gateway(server) as (cache, store):
        tickets = await use_sessions(cache, users(5))
        gate = store.hold_replies(writes_touches)
        flushing = asyncio.create_task(cache.flush())
        await gate.arrival()
        assert waiting(cache) == (0, 5)
        await pass_ms(10)
        use_again(cache, tickets)
        latest_ms = used_now_ms(server)
        store.wire.loses_replies = reply == "is lost"
        gate.open()
        await flushing
        assert waiting(cache) == (5, 0)
        store.wire.loses_replies = False
        store.calls.clear()
        await cache.flush()
        assert len(store.touches) == 5
        assert stored_deadlines_ms(server) == {latest_ms}


@pytest.mark.parametrize("reply", ["comes", "is lost"])
@in_virtual_time
async def test_p6_a_session_that_ends_while_its_touch_is_on_its_way_has_none_any_more(reply):
    server = new_server()
    async with gateway(server) as (cache, store):
        [ticket] = await use_sessions(cache, ["alice"])
        gate = store.hold_replies(writes_touches)
        flushing = asyncio.create_task(cache.flush())
        await gate.arrival()
        await cache.logout(ticket)
        store.wire.loses_replies = reply == "is lost"
        gate.open()
        await flushing
        store.wire.loses_replies = False
        assert waiting(cache) == (0, 0)
        assert len(cache._near) == 0
        store.calls.clear()
        await cache.flush()
        assert store.touches == []


@in_virtual_time
async def test_p4_a_gap_while_a_touch_is_on_its_way_does_not_move_the_deadline_back():
    server = new_server(shards=1)
    async with gateway(server) as (cache, store):
        [ticket] = await use_sessions(cache, ["alice"])
        latest_ms = cache.check(ticket).idle_deadline_ms
        gate = store.hold_requests(writes_touches)
        flushing = asyncio.create_task(cache.flush())
        await gate.arrival()
        server.logs[0].lose(entries=1)
        cache._keeper.on_doorbell(0)
        await settle()
        assert (await cache.authenticate(ticket, touch=False)).idle_deadline_ms == latest_ms
        gate.open()
        await flushing
        assert waiting(cache) == (0, 0)


# --- slices and pieces


@in_virtual_time
async def test_every_shard_is_heard_of_once_however_many_there_are():
    """Most have nothing to write; and an exchange is for a bounded number of them."""
    server = new_server(shards=100)
    async with gateway(server) as (cache, store):
        tickets = await use_sessions(cache, [principal_in(shard, 100) for shard in range(100)])
        await cache.flush()
        await pass_ms(10)
        use_again(cache, tickets[:7])
        store.calls.clear()
        await cache.flush()
        asked = [sorted(call.requests) for call in store.calls]
        assert sorted(shard for shards in asked for shard in shards) == list(range(100))
        assert max(map(len, asked)) <= flush.SHARDS_PER_EXCHANGE
        assert len(store.touches) == 7


@in_virtual_time
async def test_a_flush_lets_others_run_between_its_slices(monkeypatch):
    monkeypatch.setattr(flush, "TOUCHES_PER_SLICE", 10)
    monkeypatch.setattr(ModelStore, "touches_per_exchange", 1000)
    server = new_server(shards=1)
    async with gateway(server) as (cache, store):
        await use_sessions(cache, users(200))
        store.calls.clear()
        flushing = asyncio.create_task(cache.flush())
        turns = 0
        while not store.touches:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 200 // 10
        await flushing


# --- touches that find no room to wait


def fill(cache: TicketCache) -> int:
    """Have touches wait, of sessions that nobody knows, until there is no room for more."""
    count = 0
    while cache._near.touch_unheld(0, os.urandom(16), b"nobody", 1):
        count += 1
    return count


@contextlib.asynccontextmanager
async def crowded(server: ModelServer, capacity: int = 3):
    """A cache where every place has a session whose touch waits, and no touch more may wait."""
    async with gateway(server, capacity=capacity) as (cache, store):
        await use_sessions(cache, users(capacity))
        assert fill(cache) > capacity
        yield cache, store


@in_virtual_time
async def test_p9_who_finds_no_room_for_a_touch_has_some_made():
    server = new_server()
    async with crowded(server) as (cache, _):
        ticket = await cache.login("alice")
        session = await cache.authenticate(ticket)
        assert session.principal == "alice"
        dirty, sent = waiting(cache)
        assert (dirty <= 1, sent) == (True, 0)
        await cache.flush()
        assert stored_deadlines_ms(server) == {used_now_ms(server)}


@in_virtual_time
async def test_p9_who_only_looks_needs_no_room():
    server = new_server()
    async with crowded(server) as (cache, store):
        ticket = await cache.login("alice")
        store.calls.clear()
        assert await said_of(cache, ticket) == "alice"
        assert store.touches == []


@in_virtual_time
async def test_p9_those_who_find_no_room_at_the_same_time_share_a_flush():
    server = new_server(shards=1)
    async with crowded(server) as (cache, store):
        tickets = [await cache.login(f"visitor{number}") for number in range(50)]
        store.calls.clear()
        said = await asyncio.gather(*(said_of(cache, ticket, touch=True) for ticket in tickets))
        assert said == [f"visitor{number}" for number in range(50)]
        flushes = len([call for call in store.calls if call.touches]) / 2  # 1,000 touches, then the rest
        assert flushes == 1


@in_virtual_time
async def test_p5_while_the_store_takes_no_touch_nobody_is_admitted_whose_use_would_be_lost():
    server = new_server(shards=1)
    async with crowded(server) as (cache, store):
        ticket = await cache.login("alice")
        unwritten = cache.stats["touches_unwritten"]
        store.wire.refuses_writes = True
        for _ in range(3):
            assert await said_of(cache, ticket, touch=True) == "store_unavailable"
            assert waiting(cache) == (unwritten, 0)
        with pytest.raises(StoreUnavailable, match="too many touches wait"):
            await cache.authenticate(ticket)
        store.wire.refuses_writes = False
        assert await said_of(cache, ticket, touch=True) == "alice"
        await cache.flush()
        assert waiting(cache) == (0, 0)


@in_virtual_time
async def test_p2_who_waited_for_room_is_not_admitted_by_what_was_known_before():
    server = new_server(shards=1)
    async with gateway(server) as (other, _), crowded(server) as (cache, store):
        store.wire.is_deaf = True
        ticket = await other.login("alice")
        gate = store.hold_requests(writes_touches)
        asking = asyncio.create_task(said_of(cache, ticket, touch=True))
        await gate.arrival()
        await other.logout(ticket)
        cache._near.forget_refusals()
        gate.open()
        assert await asking == "revoked"


@in_virtual_time
async def test_p9_a_caller_that_waits_for_room_may_be_cancelled_and_another_is_admitted():
    server = new_server(shards=1)
    async with crowded(server) as (cache, store):
        tickets = [await cache.login(name) for name in ("alice", "bob")]
        gate = store.hold_requests(writes_touches)
        first, second = (asyncio.create_task(said_of(cache, ticket, touch=True)) for ticket in tickets)
        await gate.arrival()
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        gate.open()
        assert await second == "bob"
        await cache.flush()
        assert waiting(cache) == (0, 0)


@in_virtual_time
async def test_p7_a_use_without_an_entry_and_one_with_it_are_one_touch():
    server = new_server(shards=1)
    async with gateway(server, capacity=3) as (cache, store):
        await use_sessions(cache, users(3))
        ticket = await cache.login("alice")
        gate = store.hold_replies(writes_touches)
        flushing = asyncio.create_task(cache.flush())
        await gate.arrival()
        session_id = (await cache.authenticate(ticket)).id
        assert waiting(cache) == (1, 3)  # there was no room for an entry
        gate.open()
        await flushing
        await pass_ms(10)
        await cache.authenticate(ticket)
        assert cache.check(ticket)  # now there is
        store.calls.clear()
        await cache.flush()
        assert touched_ids(store) == [session_id]
        assert waiting(cache) == (0, 0)
