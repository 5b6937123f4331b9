"""Events of sessions, and the removal of those that have passed their deadline. In virtual time, as
test_cache.py.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Mapping

import pytest
from lab.model_store import ModelStore, in_virtual_time, pass_ms, settle
from lab.virtual_gateways import (
    CLOCK_MS,
    FLUSH_MS,
    IDLE_MS,
    LEASE_MS,
    OLD_KEY,
    SETTINGS,
    gateway,
    new_server,
    pass_ms_in_use,
    said_of,
)

from fastticket import Keyring, SessionEvent, TicketCache
from fastticket.errors import StoreUnavailable, TicketRefused
from fastticket.sessions.events import PAGE_EVENTS_MAX, EventStream
from fastticket.sessions.sweep import SWEEP_SESSIONS_MAX
from fastticket.stores.contract import Position, Reply, Request, Tail, shard_of

SETTLE_MS = 5 * LEASE_MS  # a follower sees the store answer for so long before it removes anybody early
FOLLOWED_MS = 1000  # what an expired event may take
FOLLOWING_MS = 60_000  # how long a cache counts as followed after an event was asked for


async def next_of(events: EventStream, count: int = 1) -> list[SessionEvent]:
    async with asyncio.timeout(60):
        return [await anext(events) for _ in range(count)]


async def follow(events: EventStream) -> None:
    async for _ in events:
        pass


def lose_shards(store: ModelStore, shards: Collection[int]) -> None:
    """Some shards do not answer who looks at their logs, until `shards` is empty."""
    tails = store.tails

    async def tails_of_others(
        since: Mapping[int, Position | None], entries_max: int
    ) -> Mapping[int, Tail | StoreUnavailable]:
        away = dict.fromkeys(shards, StoreUnavailable("away"))
        return {shard: away.get(shard, tail) for shard, tail in (await tails(since, entries_max)).items()}

    store.tails = tails_of_others


def principal_of(shard: int, shards: int) -> str:
    return next(name for name in (f"user{number}" for number in range(1000)) if shard_of(name, shards) == shard)


# --- what is told


@in_virtual_time
async def test_every_end_has_its_event_and_its_reason():
    server = new_server()
    async with gateway(server, sessions_max=3) as (cache, _), gateway(server, expiry_margin_s=0) as (other, _):
        events = await other.events().start()
        tickets = []
        for _ in range(4):
            tickets.append(await cache.login("alice"))
            await pass_ms(1)
        ids = [(await other.authenticate(ticket)).id for ticket in tickets[1:]]
        rotated = await cache.rotate(tickets[1])
        await other.logout(rotated)
        await other.revoke(ids[1], "alice")
        await cache.logout_everywhere("alice")
        told = await next_of(events, 4 + 1 + 1 + 3)
        assert [(event.kind, event.reason) for event in told] == [
            *[("created", "")] * 3,
            ("revoked", "evicted"),
            ("created", ""),
            ("rotated", ""),
            ("revoked", "logout"),
            ("revoked", "revoked"),
            ("revoked", "logout_everywhere"),
        ]
        assert {event.principal for event in told} == {"alice"}
        assert told[5].session_id == ids[0]
        assert told[5].successor_id == told[6].session_id
        await cache.login("bob", idle_timeout_s=30)
        await cache.login("carol", idle_timeout_s=math.inf, absolute_lifetime_s=40)
        told = await next_of(events, 4)
        assert [(event.kind, event.principal, event.reason) for event in told[2:]] == [
            ("expired", "bob", "idle"),
            ("expired", "carol", "absolute"),
        ]


@in_virtual_time
async def test_events_can_be_followed_from_where_one_was():
    server = new_server()
    async with gateway(server) as (cache, _), gateway(server) as (other, _):
        events = await other.events().start()
        for number in range(40):
            await cache.login(f"user{number}")
        told = await next_of(events, 15)
        assert events.position == told[-1].position
        rest = await next_of(other.events(told[-1].position), 25)
        assert rest == await next_of(events, 25)
        assert {event.principal for event in told + rest} == {f"user{number}" for number in range(40)}
        for at in (0, 7, 14):
            assert (await next_of(other.events(told[at].position), 39 - at)) == (told + rest)[at + 1 :]


@in_virtual_time
async def test_events_that_the_log_has_no_more_are_told_to_be_lost():
    server = new_server(shards=1)
    async with gateway(server) as (cache, _):
        events = await cache.events().start()
        await cache.login("alice")
        server.lose_log(0)
        await cache.login("bob")
        lost, created = await next_of(events, 2)
        assert (lost.kind, created.kind, created.principal) == ("lost", "created", "bob")
        await cache.login("carol")
        [event] = await next_of(events)
        assert (event.kind, event.principal) == ("created", "carol")


@in_virtual_time
async def test_an_outage_delays_events_and_loses_none():
    server = new_server()
    async with gateway(server) as (cache, store), gateway(server) as (other, _):
        events = await cache.events().start()
        store.wire.is_down = True
        following = asyncio.create_task(next_of(events))
        await other.login("alice")
        await pass_ms(5000)
        assert not following.done()
        store.wire.is_down = False
        [event] = await following
        assert event.principal == "alice"
        store.wire.is_down = True
        with pytest.raises(StoreUnavailable, match="events"):
            await cache.events().start()


@in_virtual_time
@pytest.mark.parametrize("position", ["", "1-0", "1-0,2-0,3-0,x", "1-0,2-0,3-0,4-0,5-0", "1-0,2-0,3-0,4"])
async def test_what_is_no_position_is_refused(position):
    async with gateway(new_server()) as (cache, _):
        with pytest.raises(ValueError, match="4 shards"):
            cache.events(position)


@in_virtual_time
async def test_a_log_that_has_lost_everything_is_told_of_at_once_and_only_once():
    server = new_server(shards=1)
    async with gateway(server) as (cache, _):
        events = await cache.events().start()
        await cache.login("alice")
        server.lose_log(0)
        began_ms = server.time_ms()
        [lost] = await next_of(events)
        assert (lost.kind, server.time_ms()) == ("lost", began_ms)
        resumed = cache.events(lost.position)
        await cache.login("bob")
        for stream in (events, resumed):
            assert [event.principal for event in await next_of(stream)] == ["bob"]


@in_virtual_time
async def test_a_gap_is_told_of_though_the_log_goes_on_where_one_was():
    async with gateway(new_server(shards=1)) as (cache, store):
        events = await cache.events().start()
        tails = store.tails

        async def gap(since: Mapping[int, Position], entries_max: int) -> Mapping[int, Tail]:
            store.tails = tails
            return {shard: Tail(place, [], True) for shard, place in since.items()}

        store.tails = gap
        [lost] = await next_of(events)
        assert (lost.kind, lost.position) == ("lost", "0-0")


@in_virtual_time
async def test_who_goes_on_from_a_gap_hears_what_it_has_left_and_not_of_the_gap_again():
    server = new_server(shards=1)
    async with gateway(server) as (cache, _):
        start = (await cache.events().start()).position
        await cache.login("alice")
        server.lose_log(0)
        for name in ("bob", "carol"):
            await cache.login(name)
        [lost] = await next_of(cache.events(start))
        assert lost.kind == "lost"
        for _ in range(2):
            told = await next_of(cache.events(lost.position), 2)
            assert [(event.kind, event.principal) for event in told] == [("created", "bob"), ("created", "carol")]
        server.lose_log(0)
        await cache.login("dora")
        told = await next_of(cache.events(lost.position), 2)
        assert [(event.kind, event.principal) for event in told] == [("lost", ""), ("created", "dora")]


@in_virtual_time
async def test_a_gap_is_told_of_whatever_one_asks_for():
    server = new_server(shards=1)
    async with gateway(server) as (cache, _):
        events = await cache.events(kinds=["revoked"]).start()
        await cache.login("alice")
        server.lose_log(0)
        await cache.logout(await cache.login("bob"))
        assert [event.kind for event in await next_of(events, 2)] == ["lost", "revoked"]


@in_virtual_time
@pytest.mark.parametrize(("kinds", "unknown"), [("revoked", "d, e, k, o, r, v"), (["revoked", "ended"], "ended")])
async def test_kinds_that_there_are_not_are_refused(kinds, unknown):
    async with gateway(new_server()) as (cache, _):
        with pytest.raises(ValueError, match=f"no such kinds: {unknown};.*'expired'"):
            cache.events(kinds=kinds)


@in_virtual_time
async def test_the_position_goes_on_past_what_was_not_asked_for():
    """Else a follower whose kind of event is rare would be told of a gap that he has not."""
    server = new_server()
    async with gateway(server) as (cache, _):
        events = await cache.events(kinds=["revoked"]).start()
        following = asyncio.create_task(next_of(events))
        for number in range(50):
            await cache.login(f"user{number}")
        await pass_ms(FOLLOWED_MS)
        assert events.position == (await cache.events().start()).position
        for shard in range(server.shards):
            server.lose_log(shard)
        ticket = await cache.login("alice")
        await cache.logout(ticket)
        [event] = await following
        assert event.kind == "revoked"


@in_virtual_time
async def test_the_position_is_behind_what_was_told_and_never_behind_what_was_only_read():
    server = new_server(shards=2)
    async with gateway(server) as (cache, store):
        away = {1}
        lose_shards(store, away)
        events = cache.events()
        assert events.position is None
        with pytest.raises(StoreUnavailable, match="every shard"):
            await events.start()
        assert events.position is None
        for number in range(4):
            await cache.login(principal_of(0, 2) if number % 2 else principal_of(1, 2))
        away.clear()
        start = (await events.start()).position
        assert start is not None
        told = await next_of(events, 1)  # of the shard that was known before
        assert (await events.start()).position == told[0].position
        told += await next_of(events, 1)
        assert events.position == told[1].position
        assert await next_of(cache.events(start), 2) == told
        [rest] = await next_of(cache.events(told[0].position))
        assert rest == told[1]


@in_virtual_time
async def test_nothing_is_told_before_every_shard_is_known():
    """A follower that resumed from such an event would miss the events of the shard that its
    position does not name.
    """
    server = new_server(shards=2)
    async with gateway(server) as (cache, store):
        away = {1}
        lose_shards(store, away)
        following = asyncio.create_task(next_of(cache.events(), 2))
        await pass_ms(FOLLOWED_MS)
        await cache.login(principal_of(0, 2))
        await pass_ms(FOLLOWED_MS)
        assert not following.done()
        away.clear()
        await pass_ms(FOLLOWED_MS)
        await cache.login(principal_of(1, 2))
        first, second = await following
        assert [first.principal, second.principal] == [principal_of(0, 2), principal_of(1, 2)]
        assert await next_of(cache.events(first.position)) == [second]


@in_virtual_time
async def test_tasks_that_share_a_stream_get_each_event_once():
    server = new_server()
    async with gateway(server) as (cache, _):
        events = await cache.events().start()
        waiting = [asyncio.create_task(next_of(events, 2)) for _ in range(10)]
        await settle()
        for number in range(20):
            await cache.login(f"user{number}")
        told = [event.principal for each in waiting for event in await each]
        assert sorted(told) == sorted(f"user{number}" for number in range(20))


@in_virtual_time
async def test_answers_to_tasks_that_share_a_stream_do_not_overtake_each_other():
    server = new_server(shards=1)
    async with gateway(server) as (cache, store):
        events = await cache.events().start()
        gate = store.hold_replies(lambda call: call.name == "tails" and server.logs[0].last == 0)
        first = asyncio.create_task(next_of(events))
        await gate.arrival()
        await cache.login("alice")
        second = asyncio.create_task(next_of(events))
        await settle()
        gate.open()
        await pass_ms(FOLLOWED_MS)
        await cache.login("bob")
        assert [event.principal for event in await first + await second] == ["alice", "bob"]


@in_virtual_time
async def test_a_stream_reads_so_many_events_at_once_however_many_shards_there_are():
    server = new_server(shards=64)
    async with gateway(server) as (cache, store):
        events = await cache.events().start()
        for number in range(2 * PAGE_EVENTS_MAX):
            await cache.login(f"user{number}")
        tails, read = store.tails, []

        async def counted(
            since: Mapping[int, Position | None], entries_max: int
        ) -> Mapping[int, Tail | StoreUnavailable]:
            found = await tails(since, entries_max)
            read.append(sum(len(tail.events) for tail in found.values()))
            return found

        store.tails = counted
        told = await next_of(events, 2 * PAGE_EVENTS_MAX)
        assert {event.principal for event in told} == {f"user{number}" for number in range(2 * PAGE_EVENTS_MAX)}
        assert PAGE_EVENTS_MAX // 2 <= max(read) <= PAGE_EVENTS_MAX


@in_virtual_time
async def test_a_stream_ends_with_its_cache():
    async with gateway(new_server()) as (cache, _):
        events = await cache.events().start()
        waiting = [asyncio.create_task(anext(events)) for _ in range(2)]
        await pass_ms(FOLLOWED_MS)
    await pass_ms(FOLLOWED_MS)
    for each in (*waiting, anext(events), anext(cache.events())):
        with pytest.raises(StoreUnavailable, match="closed"):
            await each


@in_virtual_time
@pytest.mark.parametrize(("lifetimes", "reason"), [({}, "idle"), ({"idle_timeout_s": math.inf}, "expired")])
async def test_a_gateway_hears_which_deadline_a_session_has_passed(lifetimes, reason):
    server = new_server()
    async with gateway(server, absolute_lifetime_s=IDLE_MS // 1000) as (cache, _):
        session = await cache.authenticate(await cache.login("alice", **lifetimes, absolute_lifetime_s=90))
        await pass_ms(IDLE_MS + FLUSH_MS if reason == "idle" else 90_000)
        await cache.login("alice")  # a use of the shard: its log is read
        await ModelStore(server).sweep(server.time_ms(), 10)
        cache._keeper.on_doorbell(shard_of("alice", server.shards))
        await settle()
        with pytest.raises(TicketRefused) as refused:
            await cache.attributes(session).load()
        assert refused.value.reason == reason


# --- when the expired are told of


@in_virtual_time
@pytest.mark.parametrize("follower_sweeps", [True, False])
async def test_a_session_that_expires_is_told_of_within_a_second(follower_sweeps):
    """Its deadline is what `idle_deadline_ms` says. Whoever sweeps it."""
    server = new_server()
    async with (
        gateway(server, expiry_margin_s=0 if follower_sweeps else 300) as (follower, _),
        gateway(server, expiry_margin_s=0) as (other, _),
    ):
        others = asyncio.create_task(next_of(await other.events(kinds=["expired"]).start(), 300))
        for number in range(300):
            await follower.login(f"user{number}", idle_timeout_s=SETTLE_MS // 1000 + number % 7)
            await pass_ms(7)
        deadlines_ms = {session.id: session.idle_deadline_ms for session in server.live.values()}
        events = await follower.events(kinds=["expired"]).start()
        for _ in range(300):
            [event] = await next_of(events)
            assert 0 <= server.time_ms() - deadlines_ms.pop(event.session_id) <= FOLLOWED_MS
        await others
    assert deadlines_ms == {}


@in_virtual_time
@pytest.mark.parametrize("before_ms", [0, 2 * FOLLOWING_MS])
async def test_the_first_that_expires_after_a_start_is_told_of_within_a_second_too(before_ms):
    """The store has been there for long enough. The process has just started, or nobody has
    followed in it so far.
    """
    server = new_server()
    await pass_ms(SETTLE_MS)
    async with gateway(server, expiry_margin_s=0) as (cache, _):
        await pass_ms(before_ms)
        await cache.login("alice", idle_timeout_s=2)
        [deadline_ms] = [session.idle_deadline_ms for session in server.live.values()]
        [event] = await next_of(await cache.events(kinds=["expired"]).start())
        assert event.principal == "alice"
        assert 0 <= server.time_ms() - deadline_ms <= FOLLOWED_MS


@in_virtual_time
@pytest.mark.parametrize("is_away_at_start", [True, False])
async def test_who_starts_when_the_store_does_waits_for_the_touches_of_others(is_away_at_start):
    server = new_server()
    if is_away_at_start:
        await pass_ms(SETTLE_MS)
    store = ModelStore(server)
    cache = TicketCache(store, Keyring([OLD_KEY]), **SETTINGS, expiry_margin_s=0)
    store.wire.is_down = is_away_at_start
    await cache.begin(0.1)
    store.wire.is_down = False
    try:
        await pass_ms(1000)
        await cache.login("alice", idle_timeout_s=2)
        following = asyncio.create_task(anext(cache.events(kinds=["expired"])))
        await pass_ms(SETTLE_MS - 2000)
        assert not following.done()
        await pass_ms(2000 + FOLLOWED_MS)
        assert following.done()
    finally:
        await cache.aclose()


@in_virtual_time
async def test_thousands_that_expire_at_once_in_one_shard_are_told_of_within_a_second():
    server = new_server(shards=1)
    async with gateway(server, expiry_margin_s=0) as (cache, _):
        following = asyncio.create_task(next_of(await cache.events(kinds=["expired"]).start(), 3000))
        for number in range(3000):
            await cache.login(f"user{number}", idle_timeout_s=SETTLE_MS // 1000 + 5)
        [deadline_ms] = {session.idle_deadline_ms for session in server.live.values()}
        await following
        assert 0 <= server.time_ms() - deadline_ms <= FOLLOWED_MS


@in_virtual_time
async def test_flushes_keep_their_time_while_many_are_removed():
    server = new_server(shards=1)
    async with gateway(server, expiry_margin_s=0) as (cache, store):
        sweep = store.sweep

        async def slow_sweep(dead_before_ms: int, sessions_max: int) -> int:
            await pass_ms(100)
            return await sweep(dead_before_ms, sessions_max)

        store.sweep = slow_sweep
        following = asyncio.create_task(next_of(await cache.events(kinds=["expired"]).start(), 6000))
        for number in range(6000):
            await cache.login(f"user{number}", idle_timeout_s=SETTLE_MS // 1000 + 5)
        ticket = await cache.login("alice")
        while not following.done():
            assert await pass_ms_in_use(cache, ticket, 100) == ["alice"]
            assert cache.stats["flush_lag_ms"] <= FLUSH_MS + 250


@in_virtual_time
async def test_a_backlog_is_removed_in_a_few_seconds_though_nobody_follows():
    server = new_server(shards=1)
    async with gateway(server) as (cache, _):
        for number in range(5 * SWEEP_SESSIONS_MAX):
            await cache.login(f"user{number}", idle_timeout_s=60)
        while len(server.live) == 5 * SWEEP_SESSIONS_MAX:
            await pass_ms(100)
        await pass_ms(5000)
        assert server.live == {}


@in_virtual_time
async def test_a_slow_consumer_is_told_of_the_expired_as_soon_as_he_asks():
    """He is as slow as handling an event takes, whether there are many or one that takes long."""
    server = new_server(shards=1)
    async with gateway(server, expiry_margin_s=0) as (cache, _):
        events = await cache.events().start()
        for number in range(100):
            await cache.login(f"user{number}", idle_timeout_s=3600)
        await cache.login("alice", idle_timeout_s=80)
        deadline_ms = server.time_ms() + 80_000 + FLUSH_MS
        for _ in range(101):
            [event] = await next_of(events)
            await pass_ms(1000)
            assert server.time_ms() < deadline_ms + FOLLOWED_MS or len(server.live) == 100
        [event] = await next_of(events)
        assert (event.kind, event.principal) == ("expired", "alice")
        await cache.login("bob", idle_timeout_s=FOLLOWING_MS // 1000 - 10)
        await next_of(events)
        await pass_ms(FOLLOWING_MS - 10_000 + FLUSH_MS + FOLLOWED_MS)
        assert len(server.live) == 100


@in_virtual_time
async def test_an_abandoned_stream_removes_nobody_early():
    server = new_server()
    async with gateway(server, expiry_margin_s=0, outage_grace_s=300) as (cache, _):
        following = asyncio.create_task(follow(cache.events()))
        await pass_ms(SETTLE_MS + 5000)
        following.cancel()
        await cache.login("alice", idle_timeout_s=FOLLOWING_MS // 1000)
        await pass_ms(FOLLOWING_MS + 100_000)
        assert len(server.live) == 1


@in_virtual_time
@pytest.mark.parametrize("phase_ms", range(0, FLUSH_MS, 100))
@pytest.mark.parametrize(("is_own", "flush_takes_ms"), [(False, 200), (True, 900)])
async def test_a_use_of_the_last_instant_of_the_idle_timeout_counts_though_its_flush_takes_a_while(
    is_own, flush_takes_ms, phase_ms
):
    """A quarter of a second of another's, any time of one's own."""
    server = new_server()
    async with gateway(server, expiry_margin_s=0) as follower, gateway(server) as other:
        following = asyncio.create_task(follow(follower[0].events()))
        await pass_ms(SETTLE_MS + 5000 + phase_ms)
        cache, store = follower if is_own else other
        ticket = await cache.login("alice", idle_timeout_s=4)
        assert await said_of(cache, ticket) == "alice"
        await pass_ms(4000)
        assert await said_of(cache, ticket, touch=True) == "alice"
        exchange = store.exchange

        async def slow_exchange(requests: Mapping[int, Request]) -> Mapping[int, Reply | StoreUnavailable]:
            await pass_ms(flush_takes_ms)
            return await exchange(requests)

        store.exchange = slow_exchange
        await pass_ms(2000)
        assert len(server.live) == 1
        following.cancel()


@in_virtual_time
async def test_nobody_expires_before_touches_that_an_outage_held_back_had_their_time():
    """An outage of the store for all gateways; they do not come back at once."""
    server = new_server()
    at_once = {"expiry_margin_s": 0, "outage_grace_s": 300}
    async with gateway(server, **at_once) as (here, store), gateway(server, **at_once) as (other, others_store):
        following = asyncio.create_task(anext(other.events(kinds=["expired"])))
        await pass_ms(SETTLE_MS + 5000)
        ticket = await here.login("alice")
        assert await said_of(here, ticket) == "alice"
        await pass_ms(IDLE_MS - 1000)
        store.wire.is_down = others_store.wire.is_down = True
        assert await said_of(here, ticket, touch=True) == "alice"
        await pass_ms(30_000)
        assert await said_of(here, ticket) == "alice"
        others_store.wire.is_down = False
        await pass_ms(SETTLE_MS - 2000)
        store.wire.is_down = False
        await pass_ms(5000)
        assert await said_of(here, ticket, touch=True) == "alice"
        assert not following.done()
        assert await said_of(other, ticket) == "alice"
        following.cancel()


@in_virtual_time
@pytest.mark.parametrize("notice", ["sweep", "load"])
async def test_a_follower_that_notices_an_outage_waits_for_the_touches_of_others(notice):
    """However short it was here, and in whatever it shows."""
    server = new_server()
    at_once = {"expiry_margin_s": 0, "outage_grace_s": 300}
    async with gateway(server, **at_once) as (here, store), gateway(server, **at_once) as (other, others_store):
        following = asyncio.create_task(follow(other.events()))
        await pass_ms(SETTLE_MS + 5000)
        ticket, another = await here.login("alice", idle_timeout_s=4), await here.login("bob")
        assert await said_of(here, ticket) == "alice"
        await pass_ms(3500)
        store.wire.is_down = True
        assert await said_of(here, ticket, touch=True) == "alice"
        if notice == "sweep":
            others_store.wire.is_down = True
        else:
            others_store.wire.shards_down = {shard_of("bob", server.shards)}
            assert await said_of(other, another) == "store_unavailable"
        await pass_ms(600)
        others_store.wire.is_down, others_store.wire.shards_down = False, set()
        await pass_ms(2000)
        store.wire.is_down = False
        await pass_ms(FOLLOWED_MS)
        assert await said_of(other, ticket, touch=True) == "alice"
        following.cancel()


@in_virtual_time
async def test_a_follower_that_has_not_looked_for_a_while_waits_for_the_touches_of_others():
    """An outage between its looks would not have been noticed."""
    server = new_server()
    at_once = {"expiry_margin_s": 0, "outage_grace_s": 300}
    async with gateway(server, **at_once) as (here, store), gateway(server, **at_once) as (other, others_store):
        following = asyncio.create_task(follow(other.events()))
        await pass_ms(SETTLE_MS + 5000)
        following.cancel()
        await pass_ms(FOLLOWING_MS)
        others_store.calls.clear()
        while "time_ms" not in [call.name for call in others_store.calls]:
            await pass_ms(100)
        ticket = await here.login("alice", idle_timeout_s=4)
        assert await said_of(here, ticket) == "alice"
        await pass_ms(3500)
        store.wire.is_down = others_store.wire.is_down = True
        assert await said_of(here, ticket, touch=True) == "alice"
        assert set(await pass_ms_in_use(here, ticket, CLOCK_MS - 3500 - 1000)) == {"alice"}
        others_store.wire.is_down = False
        following = asyncio.create_task(follow(other.events()))
        await pass_ms(2000)
        store.wire.is_down = False
        await pass_ms(FOLLOWED_MS)
        assert await said_of(other, ticket, touch=True) == "alice"
        following.cancel()
