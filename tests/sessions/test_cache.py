"""TicketCache from outside: each promise of the design that it carries, by name, and what else it
says it does.

Everything runs in virtual time (model_store.VirtualLoop): nothing sleeps, and a test that says "500
ms later" means exactly that. The keeper of each cache runs, too: it flushes every 500 virtual ms,
counted from when the cache was opened.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from lab.model_store import (
    TIMEOUT_MS,
    ModelServer,
    ModelStore,
    in_virtual_time,
    is_load,
    pass_ms,
    settle,
    virtual_ms,
    writes_touches,
)
from lab.store_contract import principal_in
from lab.virtual_gateways import (
    ABSOLUTE_MS,
    CLOCK_MS,
    FLUSH_MS,
    GRACE_MS,
    HOUR_MS,
    IDLE_MS,
    LEASE_MS,
    NEW_KEY,
    OLD_KEY,
    SETTINGS,
    gateway,
    new_server,
    pass_ms_in_use,
    said_of,
    said_of_each,
    session_id_of,
    stored_deadline_ms,
    used_now_ms,
)

from fastticket import Keyring, TicketCache
from fastticket.errors import ConfigError, InvalidPrincipal, StoreUnavailable, TicketRefused, Verdict

# --- login, and what is asked of the store


@in_virtual_time
async def test_a_login_is_good_at_every_gateway():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, _):
        ticket = await here.login("alice")
        session = await there.authenticate(ticket)
        assert (session.principal, session.issued_at_ms) == ("alice", server.time_ms())
        assert session.idle_deadline_ms == used_now_ms(server)
        assert session.absolute_deadline_ms == server.time_ms() + ABSOLUTE_MS
        assert session.id in server.live


@in_virtual_time
async def test_a_login_that_the_store_did_not_take_is_none():
    server = new_server()
    async with gateway(server) as (cache, store):
        store.wire.is_down = True
        with pytest.raises(StoreUnavailable):
            await cache.login("alice")
        with pytest.raises(InvalidPrincipal):
            await cache.login("")
        assert server.live == {}


@in_virtual_time
async def test_check_never_waits_and_authenticate_asks_once():
    server = new_server()
    async with gateway(server) as (cache, store), gateway(server) as (elsewhere, _):
        ticket = await elsewhere.login("alice")
        assert cache.check(ticket) is Verdict.MISS
        assert store.loads == []
        assert await said_of(cache, ticket) == "alice"
        calls = len(store.calls)
        for _ in range(100):
            assert cache.check(ticket).principal == "alice"
            assert (await cache.authenticate(ticket.encode())).principal == "alice"
        assert len(store.calls) == calls


# --- P1: authenticity


@in_virtual_time
async def test_p1_only_an_authentic_ticket_gets_as_far_as_the_store():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        strange = Keyring([(1, b"x" * 32)]).mint("alice", server.time_ms(), 60, 600)
        unknown = Keyring([(9, b"o" * 32)]).mint("alice", server.time_ms(), 60, 600)
        altered = ("B" if ticket[40] == "A" else "A").join([ticket[:40], ticket[41:]])
        calls = len(store.calls)
        for bad, reason in [
            (strange, "bad_signature"),
            (unknown, "unknown_key"),
            (altered, "bad_signature"),
            ("", "malformed"),
        ]:
            assert await said_of(cache, bad) == reason
            with pytest.raises(TicketRefused, match=reason):
                await cache.logout(bad)
        assert len(store.calls) == calls
        assert await said_of(cache, ticket) == "alice"
        assert await said_of(cache, altered) == "bad_signature"  # not even while the true one is in the near cache


@in_virtual_time
async def test_p1_tickets_of_a_key_that_left_the_ring_are_refused_at_once_and_no_others():
    server = new_server()
    async with gateway(server) as (cache, store):
        old = await cache.login("alice")
        cache.replace_keys([OLD_KEY, NEW_KEY])
        new = await cache.login("bob")
        assert await said_of_each(cache, [old, new]) == ["alice", "bob"]
        cache.replace_keys([NEW_KEY])
        calls = len(store.calls)
        assert await said_of_each(cache, [old, new]) == ["unknown_key", "bob"]
        assert len(store.calls) == calls


@in_virtual_time
@pytest.mark.parametrize(("keys", "reason"), [([NEW_KEY], "unknown_key"), ([(1, b"x" * 32)], "bad_signature")])
async def test_p1_a_load_does_not_bring_in_a_ticket_whose_key_left_meanwhile(keys, reason):
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        gate = store.hold_replies(is_load)
        asking = asyncio.create_task(said_of(cache, ticket))
        await gate.arrival()
        cache.replace_keys(keys)
        gate.open()
        assert await asking == reason
        assert cache.check(ticket).reason == reason


@in_virtual_time
async def test_p1_keys_that_can_not_be_used_leave_the_old_ones():
    server = new_server()
    async with gateway(server) as (cache, _):
        ticket = await cache.login("alice")
        with pytest.raises(ConfigError):
            cache.replace_keys([(1, b"short")])
        assert await said_of(cache, ticket) == "alice"


# --- P2: revocation bound


@in_virtual_time
async def test_p2_with_the_doorbell_a_revocation_is_seen_at_once():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, _):
        ticket = await here.login("alice")
        await there.authenticate(ticket)
        before_ms = virtual_ms()
        assert await here.logout(ticket)
        await settle()
        assert there.check(ticket) is Verdict.REVOKED
        assert virtual_ms() == before_ms


@in_virtual_time
@pytest.mark.parametrize("after_ms", [0, 1, 250, 499, 500, 777])
async def test_p2_revocation_is_seen_within_the_lease_without_doorbell(after_ms):
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        store.wire.is_deaf = True
        ticket = await here.login("alice")
        await there.authenticate(ticket)
        await pass_ms(after_ms)
        assert await here.logout(ticket)
        await pass_ms_in_use(there, ticket, LEASE_MS)
        assert there.check(ticket) is Verdict.REVOKED


@in_virtual_time
async def test_p2_a_lease_counts_from_the_moment_the_question_was_sent():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        gate = store.hold_replies(is_load)
        asking = asyncio.create_task(said_of(cache, ticket))
        await gate.arrival()
        store.hold_requests()  # from now on nothing renews it
        await pass_ms(LEASE_MS - 500)
        gate.open()
        assert await asking == "alice"
        await pass_ms(499)
        assert cache.check(ticket).principal == "alice"
        await pass_ms(1)
        assert cache.check(ticket) is Verdict.REFRESH


@in_virtual_time
async def test_p2_a_flush_whose_answer_is_late_renews_from_when_it_was_sent():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        store.wire.is_deaf = True
        ticket = await here.login("alice")
        await there.authenticate(ticket)
        gate = store.hold_replies()
        flushing = asyncio.create_task(there.flush())
        await gate.arrival()
        await here.logout(ticket)  # after the flush has read the log
        await pass_ms(LEASE_MS - 1)
        store.hold_requests()
        gate.open()
        await flushing
        assert there.check(ticket)
        await pass_ms(1)
        assert there.check(ticket) is Verdict.REFRESH


@in_virtual_time
async def test_p2_a_load_older_than_the_revocation_is_asked_again():
    """The interleaving that TicketCache._land describes."""
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        store.wire.is_deaf = True
        ticket = await here.login("alice")
        gate = store.hold_replies(is_load)
        asking = asyncio.create_task(said_of(there, ticket))
        await gate.arrival()  # 1. the load has found it alive
        await here.logout(ticket)  # 2. it is revoked
        other = await here.login("alice")
        store.wire.after.clear()
        await there.authenticate(other)  # 3. a reply with that news gets here first
        gate.open()  # 4. the load's answer gets here
        assert await asking == "revoked"
        assert there.check(ticket) is Verdict.REVOKED


@in_virtual_time
@pytest.mark.parametrize("everywhere", [False, True])
async def test_p2_logging_out_here_ends_a_load_under_way_here(everywhere):
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        gate = store.hold_replies(is_load)
        asking = asyncio.create_task(said_of(cache, ticket))
        await gate.arrival()
        if everywhere:
            assert await cache.logout_everywhere("alice") == 1
        else:
            assert await cache.logout(ticket)
        gate.open()
        assert await asking == "revoked"
        assert len(store.loads) == 1, "what is over is over: there is no need to ask again"


async def said_strongly(cache, ticket):
    """As `said_of`, as the store has it now."""
    try:
        return (await cache.authenticate(ticket, consistency="strong")).principal
    except (TicketRefused, StoreUnavailable) as error:
        return error.reason


@in_virtual_time
async def test_p2_strong_does_not_believe_a_load_that_was_sent_before():
    """It has read the session alive; then the session was revoked, then somebody asks strongly."""
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        store.wire.is_deaf = True
        ticket = await here.login("alice")
        gate = store.hold_replies(is_load)
        early = asyncio.create_task(said_of(there, ticket))
        await gate.arrival()
        await here.logout(ticket)
        store.wire.after.clear()
        strong = asyncio.create_task(said_strongly(there, ticket))
        await settle()
        gate.open()
        assert await strong == "revoked"
        assert await early in ("alice", "revoked")
        assert await said_of(there, ticket) == "revoked"


@in_virtual_time
async def test_p2_strong_asks_though_the_session_is_held_and_a_doorbell_was_missed():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        store.wire.is_deaf = True
        ticket = await here.login("alice")
        assert await said_of(there, ticket) == "alice"
        await here.logout(ticket)
        assert there.check(ticket).principal == "alice"  # within the lease
        assert await said_strongly(there, ticket) == "revoked"
        assert await said_of(there, ticket) == "revoked"


@in_virtual_time
async def test_p2_strong_waits_behind_every_load_that_was_sent_before_and_makes_one():
    """However many ask at once; and none of them hangs if the one before fails."""
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        gate = store.hold_replies(is_load)
        early = asyncio.create_task(said_of(cache, ticket))
        await gate.arrival()
        store.wire.after.clear()
        strong = [asyncio.create_task(said_strongly(cache, ticket)) for _ in range(5)]
        await settle()
        assert len(store.loads) == 1
        store.wire.loses_replies = True
        gate.open()
        assert await early == "store_unavailable"
        store.wire.loses_replies = False
        assert set(await asyncio.gather(*strong)) <= {"alice", "store_unavailable"}
        loads = len(store.loads)
        assert await asyncio.gather(*(said_strongly(cache, ticket) for _ in range(5))) == ["alice"] * 5
        assert len(store.loads) == loads + 1


@in_virtual_time
async def test_a_log_is_read_once():
    """Entries that a reply brought are not asked for again: logs are long, and are trimmed."""
    server = new_server(shards=1)
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        for _ in range(5):
            await cache.login("bob")
        await cache.flush()
        await cache.flush()
        assert store.calls[-1].requests[0].since == (server.logs[0].last, 0)


@in_virtual_time
async def test_p2_a_load_that_straddles_a_gap_is_asked_again():
    """The revocation was in the part of the log that is lost, so only the gap can tell."""
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        store.wire.is_deaf = True
        ticket = await here.login("alice")
        gate = store.hold_replies(is_load)
        asking = asyncio.create_task(said_of(there, ticket))
        await gate.arrival()
        await here.logout(ticket)
        server.lose_log(0), server.lose_log(1), server.lose_log(2), server.lose_log(3)
        store.wire.after.clear()
        store.calls.clear()
        await there.authenticate(await here.login("alice"))
        gate.open()
        assert await asking == "unknown_session"


@in_virtual_time
async def test_p2_after_a_gap_everything_of_the_shard_is_loaded_again_and_nothing_else():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        store.wire.is_deaf = True
        names = [principal_in(shard, server.shards) for shard in (0, 0, 1)]
        names[1] = next(n for n in (f"guest{i}" for i in range(999)) if principal_shard(n, server) == 0)
        ended, kept, elsewhere = [await here.login(name) for name in names]
        assert await said_of_each(there, [ended, kept, elsewhere]) == names
        await here.logout(ended)
        server.lose_log(0)
        gate = store.hold_requests(is_load)
        await there.flush()
        assert [there.check(t).reason if not there.check(t) else "hit" for t in (ended, kept, elsewhere)] == [
            "refresh",
            "refresh",
            "hit",
        ]
        gate.open()
        assert await said_of_each(there, [ended, kept, elsewhere]) == ["unknown_session", *names[1:]]


@in_virtual_time
async def test_p2_an_emptied_store_ends_every_session_within_the_lease():
    server = new_server()
    async with gateway(server) as (cache, _):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        server.wipe()
        said = await pass_ms_in_use(cache, ticket, LEASE_MS)
        assert said[-1] == "unknown_session"
        again = await cache.login("alice")
        assert await said_of(cache, again) == "alice"
        await pass_ms(2 * LEASE_MS)
        assert await said_of(cache, again) == "alice"


@in_virtual_time
async def test_p2_holds_in_a_shard_that_nobody_has_used_for_long():
    """Its log is read for as long as a session of it is held: an outage finds it leased (P8), and
    what was revoked is known.
    """
    server = new_server()
    async with gateway(server) as (here, _), gateway(server, idle_timeout_s=600) as (there, store):
        store.wire.is_deaf = True
        ticket = await there.login("alice")
        assert await said_of(there, ticket) == "alice"
        await pass_ms(200_000)
        assert there.check(ticket, touch=False)
        await here.logout(ticket)
        await pass_ms(LEASE_MS)
        store.wire.is_down = True
        for _ in range(20):
            assert await said_of(there, ticket) in ("revoked", "store_unavailable")
            await pass_ms(FLUSH_MS)


@in_virtual_time
async def test_p2_holds_where_there_is_no_room_to_cache():
    """The load's answer is 10 s old when it comes, and nothing else was read of that shard."""
    server = new_server()
    async with gateway(server) as (here, _), gateway(server, capacity=3) as (there, store):
        store.wire.is_deaf = True
        crowd = [await here.login(principal_in(0, server.shards)) for _ in range(3)]
        ticket = await here.login(principal_in(1, server.shards))
        await said_of_each(there, crowd)
        gate = store.hold_replies(lambda call: is_load(call) and 1 in call.shards)
        asking = asyncio.create_task(said_of(there, ticket))
        await gate.arrival()
        await here.logout(ticket)
        await pass_ms(10_000 + FLUSH_MS // 2)
        assert all(there.check(t) for t in crowd)  # each is dirty until the next flush: there is no room
        gate.open()
        assert await asking == "revoked"


@in_virtual_time
async def test_p2_holds_when_a_shard_was_away_at_the_start():
    """Where to read the log from is not known yet; what is learned first must not skip what a load
    has not seen.
    """
    server = new_server()
    store = ModelStore(server)
    store.wire.shards_down = set(range(server.shards))
    there = TicketCache(store, Keyring([OLD_KEY]), **SETTINGS)
    async with gateway(server) as (here, _), there:
        store.wire.is_deaf = True
        store.wire.shards_down.clear()
        ticket = await here.login("alice")
        gate = store.hold_replies(lambda call: call.wanted == [ended_id])
        ended_id = next(iter(server.live))
        asking = asyncio.create_task(said_of(there, ticket))
        await gate.arrival()
        await here.logout(ticket)
        await there.authenticate(await here.login("alice"))
        gate.open()
        await asking
        await pass_ms_in_use(there, ticket, LEASE_MS)
        assert there.check(ticket) is Verdict.REVOKED


@in_virtual_time
async def test_p2_a_late_answer_from_before_the_position_was_known_moves_nothing():
    server = new_server()
    store = ModelStore(server)
    store.wire.shards_down = set(range(server.shards))
    there = TicketCache(store, Keyring([OLD_KEY]), **SETTINGS)
    async with gateway(server) as (here, _), there:
        store.wire.is_deaf = True
        store.wire.shards_down.clear()
        ticket, other = await here.login("alice"), await here.login("alice")

        def reads_from_now_on(call):
            return [request.since for request in call.requests.values()] == [None]

        to_first = store.hold_replies(reads_from_now_on)
        asking = asyncio.create_task(said_of(there, ticket))
        await to_first.arrival()  # where the log ends; then it is loaded
        before_second = store.hold_requests(reads_from_now_on)
        asking_other = asyncio.create_task(said_of(there, other))
        await before_second.arrival()
        to_first.open()
        assert await asking == "alice"
        await here.logout(ticket)
        before_second.open()  # so for this one it ends after the revocation
        assert await asking_other == "alice"
        await pass_ms_in_use(there, ticket, LEASE_MS)
        assert there.check(ticket) is Verdict.REVOKED


@in_virtual_time
async def test_p2_what_was_deleted_by_hand_is_noticed_at_the_recheck():
    server = new_server()
    async with gateway(server, recheck_s=5) as (cache, _):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        server.live.clear()
        said = await pass_ms_in_use(cache, ticket, 6000)
        assert said[0] == "alice"
        assert said[-1] == "unknown_session"


@in_virtual_time
async def test_p2_a_revoked_session_stays_refused_when_the_refusal_is_forgotten():
    server = new_server()
    async with gateway(server) as (cache, _):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        await cache.logout(ticket)
        for _ in range(5):
            await pass_ms(1500)
            assert await said_of(cache, ticket) == "revoked"


def principal_shard(name: str, server: ModelServer) -> int:
    from fastticket.stores.contract import shard_of

    return shard_of(name, server.shards)


# --- P3: never too long


@in_virtual_time
async def test_p3_a_session_idles_out_one_flush_interval_after_its_timeout():
    server = new_server()
    async with gateway(server) as (cache, _):
        ticket = await cache.login("alice")
        assert await said_of(cache, ticket) == "alice"
        await pass_ms(IDLE_MS + FLUSH_MS - 1)
        assert await said_of(cache, ticket) == "alice"
        await pass_ms(1)
        assert await said_of(cache, ticket) == "idle"
        assert cache.check(ticket) is Verdict.IDLE


@in_virtual_time
async def test_p3_nothing_prolongs_a_session_past_its_absolute_deadline():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, _):
        ticket = await here.login("alice")
        assert set(await pass_ms_in_use(here, ticket, ABSOLUTE_MS - 1000, step_ms=7000)) == {"alice"}
        await pass_ms(ABSOLUTE_MS - (server.time_ms() - here.check(ticket).issued_at_ms) - 1)
        assert await said_of(here, ticket) == await said_of(there, ticket) == "alice"
        await pass_ms(1)
        assert await said_of(here, ticket) == await said_of(there, ticket) == "expired"
        assert await here.logout(ticket) is False


@in_virtual_time
async def test_p3_looking_without_touching_prolongs_nothing():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        for _ in range(60):
            await pass_ms(1000)
            assert await said_of(cache, ticket, touch=False) == "alice"
        await pass_ms(FLUSH_MS)
        assert await said_of(cache, ticket) == "idle"
        assert store.touches == []


# --- P4: never too short


@in_virtual_time
async def test_p4_a_session_used_elsewhere_does_not_idle_out_here():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, _):
        ticket = await here.login("alice")
        await here.authenticate(ticket)
        await pass_ms(IDLE_MS - 1)
        await there.authenticate(ticket)
        await pass_ms(IDLE_MS - 1)  # long past the deadline that is known here
        assert here.check(ticket) is Verdict.REFRESH
        assert await said_of(here, ticket) == "alice"


@in_virtual_time
async def test_p4_the_last_moment_counts_even_if_its_touch_is_still_on_its_way():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, _):
        ticket = await here.login("alice")
        await here.authenticate(ticket)
        await pass_ms(IDLE_MS - 1)
        await there.authenticate(ticket)
        await pass_ms(FLUSH_MS)
        assert await said_of(here, ticket) == "alice"


@in_virtual_time
async def test_p4_a_use_that_the_store_could_not_be_told_of_counts_here():
    """The entry was loaded again in between: the older deadline that the store holds must not
    replace the known one.
    """
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        store.wire.refuses_writes = True
        await pass_ms(IDLE_MS - 1000)
        assert await said_of(cache, ticket, touch=True) == "alice"
        await pass_ms(5000)
        assert stored_deadline_ms(server, "alice") < server.time_ms()
        for shard in range(server.shards):
            server.logs[shard].lose(entries=1)
        await pass_ms(LEASE_MS)
        assert await said_of(cache, ticket) == "alice"


@in_virtual_time
async def test_p4_a_use_counts_even_if_there_was_no_room_to_cache_it():
    server = new_server()
    async with gateway(server, capacity=3) as (cache, store):
        crowd = [await cache.login(f"user{number}") for number in range(3)]
        ticket = await cache.login("alice")
        await pass_ms(IDLE_MS - 1000)
        assert all([await said_of(cache, t, touch=True) for t in crowd])
        store.wire.refuses_writes = True
        assert await said_of(cache, ticket, touch=True) == "alice"
        await pass_ms(5000)
        assert stored_deadline_ms(server, "alice") < server.time_ms()
        assert await said_of(cache, ticket) == "alice"


@in_virtual_time
async def test_p4_the_sweep_waits_for_touches_that_an_outage_holds_back():
    server = new_server()
    async with gateway(server) as (here, store), gateway(server):
        ticket = await here.login("alice")
        await here.authenticate(ticket)
        await pass_ms(IDLE_MS - 1000)
        store.wire.is_down = True
        assert await said_of(here, ticket, touch=True) == "alice"
        await pass_ms(GRACE_MS - 1000)  # somebody may sweep meanwhile
        store.wire.is_down = False
        await pass_ms(FLUSH_MS)
        assert await said_of(here, ticket) == "alice"
        assert stored_deadline_ms(server, "alice") > server.time_ms()


@in_virtual_time
@pytest.mark.parametrize("policy", ["serve-cached", "deny"])
async def test_p4_the_sweep_leaves_time_for_touches_under_way(policy):
    server = new_server()
    async with gateway(server, outage_policy=policy) as (cache, store):
        await cache.login("alice")
        await pass_ms(300_000)
        assert server.live == {}
        sweeps = [call.arguments for call in store.calls if call.name == "sweep"]
        assert 3 <= len(sweeps) <= 10
        dead_before_ms, sessions_max = sweeps[-1]
        assert dead_before_ms <= server.time_ms() - LEASE_MS
        assert 0 < sessions_max <= 1000


@in_virtual_time
async def test_p4_a_swept_session_is_refused_as_idle():
    server = new_server()
    async with gateway(server) as (cache, _):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        await pass_ms(IDLE_MS + FLUSH_MS)
        await ModelStore(server).sweep(server.time_ms(), 10)
        assert await said_of(cache, ticket) == "idle"  # the log says more than the missing session
        assert cache.check(ticket) is Verdict.IDLE


# --- P5: touch loss bound


@in_virtual_time
async def test_p5_at_any_time_the_store_knows_every_use_older_than_the_flush_interval():
    """So a gateway that is killed then loses no more."""
    server = new_server()
    async with gateway(server) as (cache, _):
        ticket = await cache.login("alice")
        uses: list[tuple[int, int]] = []
        for _ in range(100):
            await cache.authenticate(ticket)
            uses.append((server.time_ms(), used_now_ms(server)))
            await pass_ms(130)
            known_ms = [deadline for used_ms, deadline in uses if used_ms <= server.time_ms() - FLUSH_MS]
            assert stored_deadline_ms(server, "alice") >= max(known_ms, default=0)


@in_virtual_time
async def test_p5_closing_writes_every_touch():
    server = new_server()
    async with gateway(server) as (cache, _):
        tickets = [await cache.login(f"user{number}") for number in range(50)]
        await pass_ms(10)
        await asyncio.gather(*(cache.authenticate(ticket) for ticket in tickets))
        await pass_ms(10)
        assert all(cache.check(ticket) for ticket in tickets)
        latest_ms = used_now_ms(server)
    assert {session.idle_deadline_ms for session in server.live.values()} == {latest_ms}


@in_virtual_time
@pytest.mark.parametrize("fault", ["is_down", "loses_replies", "refuses_writes", "is_silent"])
async def test_p5_a_touch_whose_write_failed_is_written_later(fault):
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        setattr(store.wire, fault, True)
        await pass_ms(100)
        assert cache.check(ticket)
        latest_ms = used_now_ms(server)
        await pass_ms(5 * FLUSH_MS)
        setattr(store.wire, fault, False)
        await pass_ms(FLUSH_MS + TIMEOUT_MS)
        assert stored_deadline_ms(server, "alice") == latest_ms


@in_virtual_time
async def test_p5_a_use_while_its_touch_is_being_written_is_written_next_time():
    server = new_server()
    async with gateway(server, capacity=3) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        await pass_ms(10)
        cache.check(ticket)
        gate = store.hold_replies(writes_touches)
        flushing = asyncio.create_task(cache.flush())
        await gate.arrival()
        await pass_ms(10)
        assert cache.check(ticket)
        latest_ms = used_now_ms(server)
        gate.open()
        await flushing
        await cache.flush()
        assert stored_deadline_ms(server, "alice") == latest_ms


@in_virtual_time
async def test_p5_an_uncached_use_while_its_touch_is_being_written_is_not_forgotten():
    server = new_server()
    async with gateway(server, capacity=3) as (cache, store):
        tickets = [await cache.login(f"user{number}") for number in range(4)]

        async def use_all() -> int:
            await pass_ms(10)
            for ticket in tickets:
                await cache.authenticate(ticket)
            return used_now_ms(server)

        await use_all()
        gate = store.hold_replies(writes_touches)
        flushing = asyncio.create_task(cache.flush())
        await gate.arrival()
        latest_ms = await use_all()
        gate.open()
        await flushing
        await cache.flush()
        assert {session.idle_deadline_ms for session in server.live.values()} == {latest_ms}


@in_virtual_time
async def test_p5_with_no_room_everybody_is_still_admitted_and_no_touch_is_lost():
    server = new_server()
    async with gateway(server, capacity=3) as (cache, _):
        tickets = [await cache.login(f"user{number}") for number in range(40)]
        await pass_ms(10)
        for _ in range(3):
            for number, ticket in enumerate(tickets):
                assert (await cache.authenticate(ticket)).principal == f"user{number}"
        latest_ms = used_now_ms(server)
        assert len(cache._near) <= 3
        await pass_ms(FLUSH_MS)
        assert {session.idle_deadline_ms for session in server.live.values()} == {latest_ms}


@in_virtual_time
async def test_p5_a_cancelled_flush_loses_nothing():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        await pass_ms(10)
        await cache.authenticate(ticket)
        latest_ms = used_now_ms(server)
        gate = store.hold_requests(writes_touches)
        flushing = asyncio.create_task(cache.flush())
        await gate.arrival()
        flushing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flushing
        store.wire.before.clear()
        await cache.flush()
        assert stored_deadline_ms(server, "alice") == latest_ms


# --- P6: monotone


@in_virtual_time
async def test_p6_a_touch_on_its_way_does_not_revive():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        store.wire.is_deaf = True
        ticket = await here.login("alice")
        await there.authenticate(ticket)
        await pass_ms(10)
        assert there.check(ticket)
        gate = store.hold_requests(writes_touches)
        flushing = asyncio.create_task(there.flush())
        await gate.arrival()
        await here.logout(ticket)
        gate.open()
        await flushing
        assert server.live == {}
        assert there.check(ticket) is Verdict.REVOKED


@in_virtual_time
async def test_p6_a_touch_that_was_never_sent_does_not_revive():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        ticket = await here.login("alice")
        await there.authenticate(ticket)
        store.wire.is_down = True
        await pass_ms_in_use(there, ticket, 1000)
        await here.logout(ticket)
        store.wire.is_down = False
        await pass_ms(2 * FLUSH_MS)
        assert server.live == {}
        assert await said_of(there, ticket) == "revoked"


@in_virtual_time
async def test_p6_an_older_load_does_not_move_a_known_deadline_back():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        await pass_ms(100)
        used = cache.check(ticket)
        server.logs[principal_shard("alice", server)].lose(entries=1)
        store.hold_requests(writes_touches)
        loading = store.hold_requests(is_load)
        cache._keeper.on_doorbell(principal_shard("alice", server))
        await settle()
        assert cache.check(ticket) is Verdict.REFRESH
        loading.open()
        again = await cache.authenticate(ticket, touch=False)
        assert again.idle_deadline_ms == used.idle_deadline_ms


# --- P7: one write


@in_virtual_time
async def test_p7_a_session_has_one_touch_in_each_flush_however_often_it_is_used():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        for flushes in range(1, 11):
            for _ in range(50):
                await pass_ms(FLUSH_MS // 50)
                assert await said_of(cache, ticket, touch=True) == "alice"
            assert flushes - 1 <= len(store.touches) <= flushes
        assert len({touch.idle_deadline_ms for touch in store.touches}) == len(store.touches)


@in_virtual_time
async def test_p7_doorbells_do_not_make_more_touches():
    server = new_server(shards=1)
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        ticket = await there.login("alice")
        await there.authenticate(ticket)
        await pass_ms(FLUSH_MS + 25)  # so that no ring falls on a flush
        store.calls.clear()
        sent_at_ms = []
        for _ in range(40):
            await pass_ms(50)
            assert there.check(ticket)
            touches = len(store.touches)
            await here.login("bob")
            await settle()
            sent_at_ms += [virtual_ms()] * (len(store.touches) - touches)
        assert sum(not call.touches for call in store.calls) >= 40  # each ring was answered
        assert len(store.touches) == 2000 // FLUSH_MS
        assert sent_at_ms == []  # and none of the touches went with an answer


@in_virtual_time
async def test_p7_a_flush_in_slices_sends_no_session_twice(monkeypatch):
    """A session that is used again while its slice is under way waits for the next flush."""
    monkeypatch.setattr(ModelStore, "touches_per_exchange", 500)
    server = new_server(shards=1)
    async with gateway(server, capacity=2000) as (cache, store):
        tickets = [await cache.login(f"user{number}") for number in range(1200)]
        await pass_ms(10)
        await asyncio.gather(*(cache.authenticate(ticket) for ticket in tickets))
        store.calls.clear()
        gate = store.hold_replies(writes_touches)
        flushing = asyncio.create_task(cache.flush())
        await gate.arrival()
        await pass_ms(10)
        assert all(cache.check(ticket) for ticket in tickets)
        latest_ms = used_now_ms(server)
        gate.open()
        await flushing
        sent = [touch.session_id for touch in store.touches]
        assert len(sent) == len(set(sent)) == 1200
        assert max(len(call.touches) for call in store.calls) <= 500
        await cache.flush()
        assert {session.idle_deadline_ms for session in server.live.values()} == {latest_ms}


@in_virtual_time
async def test_p7_a_flush_in_slices_sends_no_session_twice_after_an_outage(monkeypatch):
    monkeypatch.setattr(ModelStore, "touches_per_exchange", 500)
    server = new_server(shards=1)
    async with gateway(server, capacity=2000) as (cache, store):
        tickets = [await cache.login(f"user{number}") for number in range(700)]
        await asyncio.gather(*(cache.authenticate(ticket) for ticket in tickets))
        store.wire.refuses_writes = True
        await pass_ms(10)
        for ticket in tickets:
            cache.check(ticket)
        await cache.flush()
        await pass_ms(10)
        for ticket in tickets:
            cache.check(ticket)
        store.wire.refuses_writes = False
        store.calls.clear()
        gate = store.hold_replies(writes_touches)
        flushing = asyncio.create_task(cache.flush())
        await gate.arrival()
        await pass_ms(10)
        for ticket in tickets:
            cache.check(ticket)
        gate.open()
        await flushing
        sent = [touch.session_id for touch in store.touches]
        assert len(sent) == len(set(sent)) == 700


@in_virtual_time
async def test_p7_concurrent_misses_for_one_session_make_one_load():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        assert set(await said_of_each(cache, [ticket] * 100)) == {"alice"}
        assert len(store.loads) == 1
        assert len(store.loads[0]) == 1


@in_virtual_time
async def test_p7_who_comes_while_a_load_is_under_way_joins_it():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket, other = await cache.login("alice"), await cache.login("bob")
        gate = store.hold_requests(is_load)
        asking = []
        for _ in range(20):
            asking.append(asyncio.create_task(said_of(cache, ticket)))
            await settle()
        asking.append(asyncio.create_task(said_of(cache, other)))
        await settle()
        gate.open()
        assert await asyncio.gather(*asking) == ["alice"] * 20 + ["bob"]
        assert sorted(map(len, store.loads)) == [1, 1]


@in_virtual_time
async def test_p7_the_loads_of_one_loop_turn_go_out_together():
    server = new_server()
    async with gateway(server) as (cache, store):
        names = [f"user{number}" for number in range(100)]
        tickets = [await cache.login(name) for name in names]
        calls = len(store.calls)
        assert await said_of_each(cache, tickets) == names
        assert len(store.calls) == calls + 1
        assert sorted(store.loads[0]) == sorted(server.live)


@in_virtual_time
async def test_p7_touches_coarser_than_the_resolution_are_not_written():
    server = new_server()
    async with gateway(server, touch_resolution_ms=5000) as (cache, store):
        ticket = await cache.login("alice")
        await pass_ms_in_use(cache, ticket, 20_000, step_ms=250)
        assert 3 <= len(store.touches) <= 4
        assert used_now_ms(server) - stored_deadline_ms(server, "alice") <= 5000 + FLUSH_MS


@in_virtual_time
async def test_p7_what_is_used_again_during_an_outage_is_written_once():
    server = new_server()
    async with gateway(server) as (cache, store):
        tickets = [await cache.login(f"user{number}") for number in range(30)]
        await said_of_each(cache, tickets)
        await pass_ms(10)  # so that no flush of the cache's own falls together with that of the test
        store.wire.is_down = True
        for _ in range(40):
            await pass_ms(FLUSH_MS // 2)
            assert all(cache.check(ticket) for ticket in tickets)
        latest_ms = used_now_ms(server)
        store.wire.is_down = False
        store.calls.clear()
        await cache.flush()
        assert len(store.touches) == 30
        assert {session.idle_deadline_ms for session in server.live.values()} == {latest_ms}


# --- single-flight, cancelled


@in_virtual_time
async def test_a_cancelled_leader_takes_nobody_along():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        gate = store.hold_requests(is_load)
        leader, *followers = [asyncio.create_task(said_of(cache, ticket)) for _ in range(10)]
        await gate.arrival()
        leader.cancel()
        await settle()
        assert leader.cancelled()
        gate.open()
        assert await asyncio.gather(*followers) == ["alice"] * 9
        assert len(store.loads) == 1


@in_virtual_time
@pytest.mark.parametrize("fails", [False, True])
async def test_when_every_caller_is_cancelled_the_next_one_is_served(fails):
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        gate = store.hold_requests(is_load)
        callers = [asyncio.create_task(said_of(cache, ticket)) for _ in range(10)]
        await gate.arrival()
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        store.wire.is_down = fails
        gate.open()
        await settle()
        store.wire.is_down = False
        assert await said_of(cache, ticket) == "alice"
        assert len(store.loads) == 1 + fails


@in_virtual_time
async def test_callers_cancelled_before_the_load_leaves_harm_nobody():
    server = new_server()
    async with gateway(server) as (cache, _):
        ticket = await cache.login("alice")
        caller = asyncio.create_task(said_of(cache, ticket))
        await asyncio.sleep(0)
        caller.cancel()
        assert await said_of(cache, ticket) == "alice"


@in_virtual_time
async def test_a_failed_load_is_everybodys_and_is_not_remembered():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        store.wire.is_down = True
        assert set(await said_of_each(cache, [ticket] * 10)) == {"store_unavailable"}
        assert len(store.loads) == 1
        store.wire.is_down = False
        assert await said_of(cache, ticket) == "alice"


@in_virtual_time
async def test_a_bug_in_the_store_strands_nobody():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        store.wire.breaks_with = RuntimeError("a bug")
        assert set(await said_of_each(cache, [ticket] * 10)) == {"store_unavailable"}
        await pass_ms(2 * FLUSH_MS)  # the keeper lives through it as well
        store.wire.breaks_with = None
        assert await said_of(cache, ticket) == "alice"
        await pass_ms(FLUSH_MS)
        assert await said_of(cache, ticket) == "alice"


@in_virtual_time
async def test_a_load_that_is_poisoned_again_and_again_gives_up():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        for number in range(100):
            gate = store.hold_replies(is_load)
            if number == 0:
                asking = asyncio.create_task(said_of(cache, ticket))
            waiting = asyncio.create_task(gate.arrival())
            await asyncio.wait([waiting, asking], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if asking.done():
                break
            server.wipe_log_only() if hasattr(server, "wipe_log_only") else None
            for log in server.logs:
                log.lose(entries=1)
            store.wire.after.clear()
            await cache.flush()
            cache._keeper.on_doorbell(principal_shard("alice", server))
            await settle()
            gate.open()
        assert await asking == "store_unavailable"
        assert 2 <= len(store.loads) <= 10


@in_virtual_time
async def test_more_misses_at_once_than_there_is_room_for_are_all_admitted():
    server = new_server()
    async with gateway(server, capacity=3) as (cache, _):
        names = [f"user{number}" for number in range(100)]
        tickets = [await cache.login(name) for name in names]
        assert await said_of_each(cache, tickets) == names


@in_virtual_time
async def test_more_refusals_at_once_than_are_remembered_are_all_refusals():
    server = new_server()
    async with gateway(server, capacity=3) as (here, _), gateway(server, capacity=3) as (there, _):
        tickets = [await here.login("alice") for _ in range(100)]
        await here.logout_everywhere("alice")
        assert set(await said_of_each(there, tickets)) == {"revoked"}


# --- P8: outage


@in_virtual_time
@pytest.mark.parametrize("fault", ["is_down", "is_silent", "loses_replies"])
async def test_p8_sessions_at_hand_go_on_during_the_grace_and_others_are_503(fault):
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        known, unknown = await here.login("alice"), await here.login("bob")
        await there.authenticate(known)
        setattr(store.wire, fault, True)
        assert set(await pass_ms_in_use(there, known, GRACE_MS - LEASE_MS, step_ms=500)) == {"alice"}
        assert await said_of(there, unknown) == "store_unavailable"
        with pytest.raises(StoreUnavailable) as error:
            await there.authenticate(unknown)
        assert error.value.status == 503
        setattr(store.wire, fault, False)
        await pass_ms(TIMEOUT_MS + FLUSH_MS)
        assert await said_of_each(there, [known, unknown]) == ["alice", "bob"]


@in_virtual_time
async def test_p8_after_the_grace_it_is_503_and_nobody_was_logged_out():
    server = new_server()
    async with gateway(server, idle_timeout_s=600) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        store.wire.is_down = True
        await pass_ms(FLUSH_MS)  # by now it has been noticed
        said = await pass_ms_in_use(cache, ticket, GRACE_MS + 5000)
        assert said[(GRACE_MS - FLUSH_MS) // 100 - 1] == "alice"
        assert set(said[GRACE_MS // 100 :]) == {"store_unavailable"}
        store.wire.is_down = False
        assert await said_of(cache, ticket) == "alice"


@in_virtual_time
async def test_p8_after_the_grace_a_request_asks_the_store_once_not_again_and_again():
    server = new_server()
    async with gateway(server, idle_timeout_s=600) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        store.wire.is_silent = True
        await pass_ms(GRACE_MS + 5000)
        before_ms = virtual_ms()
        assert await said_of(cache, ticket) == "store_unavailable"
        assert virtual_ms() - before_ms <= TIMEOUT_MS


@in_virtual_time
async def test_p8_with_the_policy_deny_nothing_is_admitted_past_the_lease():
    server = new_server()
    async with gateway(server, outage_policy="deny") as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        store.wire.is_down = True
        said = await pass_ms_in_use(cache, ticket, 2 * LEASE_MS)
        assert said[0] == "alice"
        assert set(said[LEASE_MS // 100 :]) == {"store_unavailable"}
        store.wire.is_down = False
        assert await said_of(cache, ticket) == "alice"


@in_virtual_time
async def test_p8_a_deadline_that_passes_during_an_outage_is_503_not_a_refusal():
    """Another gateway may have seen a use."""
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        ticket = await here.login("alice")
        await there.authenticate(ticket)
        await pass_ms(IDLE_MS - 5000)
        store.wire.is_down = True
        await here.authenticate(ticket)
        await pass_ms(10_000)
        assert await said_of(there, ticket) == "store_unavailable"
        store.wire.is_down = False
        assert await said_of(there, ticket) == "alice"


@in_virtual_time
async def test_p8_a_recheck_that_falls_due_during_an_outage_is_put_off():
    server = new_server()
    async with gateway(server, recheck_s=5) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        store.wire.is_down = True
        assert set(await pass_ms_in_use(cache, ticket, GRACE_MS - LEASE_MS, step_ms=500)) == {"alice"}


@in_virtual_time
async def test_p8_a_session_known_to_be_over_is_not_admitted_on_credit():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        ticket, gap = await here.login("alice"), await here.login("bob")
        await said_of_each(there, [ticket, gap])
        await here.logout(ticket)
        await settle()
        for log in server.logs:
            log.lose(entries=1)
        repairing = store.hold_requests(is_load)
        await there.flush()
        store.wire.is_down = True
        repairing.open()
        for _ in range(10):
            await pass_ms(500)
            assert await said_of(there, ticket) in ("revoked", "store_unavailable")
            assert await said_of(there, gap) == "store_unavailable"


@in_virtual_time
async def test_p8_what_is_held_is_looked_up_again_after_a_gap_before_an_outage_can_make_it_unknown():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        tickets = [await here.login(f"user{number}") for number in range(2000)]
        await said_of_each(there, tickets)
        await here.logout(tickets[0])
        for log in server.logs:
            log.lose(entries=1)
        await pass_ms(FLUSH_MS)
        await pass_ms(FLUSH_MS)
        store.wire.is_down = True
        await pass_ms(LEASE_MS)
        said = await said_of_each(there, tickets)
        assert said[1:] == [f"user{number}" for number in range(1, 2000)]
        assert said[0] in ("revoked", "store_unavailable")


@in_virtual_time
async def test_p8_what_could_not_be_looked_up_again_is_tried_again():
    server = new_server()
    async with gateway(server) as (cache, store):
        tickets = [await cache.login(f"user{number}") for number in range(20)]
        await said_of_each(cache, tickets)
        for log in server.logs:
            log.lose(entries=1)
        repairing = store.hold_requests(is_load)
        await cache.flush()
        store.wire.is_down = True
        repairing.open()
        await pass_ms(FLUSH_MS)
        store.wire.is_down = False
        await pass_ms(4 * FLUSH_MS)  # nobody uses them
        store.wire.is_down = True
        await pass_ms(LEASE_MS)
        assert await said_of_each(cache, tickets) == [f"user{number}" for number in range(20)]


@in_virtual_time
async def test_p8_a_drifting_clock_costs_nothing():
    """The store's clock is 0.1 % fast; the store goes away half a second after a correction."""
    server = new_server()
    async with gateway(server, idle_timeout_s=600) as (cache, store):
        tickets = [await cache.login(f"user{number}") for number in range(200)]
        await said_of_each(cache, tickets)
        store.calls.clear()
        for _ in range(6):
            await pass_ms(CLOCK_MS)
            server.shift_ms += CLOCK_MS // 1000
        await pass_ms(CLOCK_MS + 500)
        assert store.loads == []
        assert abs(cache.now_ms() - server.time_ms()) <= 10
        store.wire.is_down = True
        await pass_ms(LEASE_MS)
        assert await said_of_each(cache, tickets) == [f"user{number}" for number in range(200)]


@in_virtual_time
async def test_p8_one_shards_outage_is_no_other_shards():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        names = [principal_in(shard, server.shards) for shard in (0, 1)]
        away, fine = [await here.login(name) for name in names]
        store.wire.shards_down = {0}
        assert await said_of_each(there, [away, fine]) == ["store_unavailable", names[1]]
        await pass_ms(10)
        assert there.check(fine)
        await pass_ms(FLUSH_MS)
        assert stored_deadline_ms(server, names[1]) == used_now_ms(server) - FLUSH_MS
        await here.logout(fine)
        await settle()
        assert there.check(fine) is Verdict.REVOKED
        store.wire.shards_down = set()
        assert await said_of(there, away) == names[0]


@in_virtual_time
async def test_p8_credit_ends_when_the_store_answers():
    """A revocation made during the outage is seen with the first answer, not at the end of the
    credit.
    """
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        ticket = await here.login("alice")
        await there.authenticate(ticket)
        store.wire.is_down = True
        await pass_ms_in_use(there, ticket, 5000)
        await here.logout(ticket)
        assert await said_of(there, ticket) == "alice"
        store.wire.is_down = False
        await pass_ms(FLUSH_MS)
        assert there.check(ticket) is Verdict.REVOKED


@in_virtual_time
async def test_p8_a_second_outage_has_a_grace_of_its_own():
    server = new_server()
    async with gateway(server, idle_timeout_s=600) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        for _ in range(3):
            store.wire.is_down = True
            assert set(await pass_ms_in_use(cache, ticket, GRACE_MS - LEASE_MS, step_ms=500)) == {"alice"}
            store.wire.is_down = False
            await pass_ms(FLUSH_MS)


# --- P9: bounded


@in_virtual_time
async def test_p9_the_near_cache_never_holds_more_than_its_capacity():
    server = new_server()
    async with gateway(server, capacity=50) as (cache, _):
        tickets = [await cache.login(f"user{number}") for number in range(300)]
        for ticket in tickets:
            await said_of(cache, ticket)
            assert len(cache._near) <= 50
        assert set(await said_of_each(cache, tickets)) == {f"user{number}" for number in range(300)}


@in_virtual_time
async def test_p9_closing_is_bounded_when_the_store_is_dead():
    server = new_server()
    store = ModelStore(server)
    cache = TicketCache(store, Keyring([OLD_KEY]), **SETTINGS)
    await cache.open()
    ticket, unknown = await cache.login("alice"), await cache.login("bob")
    await cache.authenticate(ticket)
    await pass_ms(10)
    assert cache.check(ticket)
    store.wire.is_silent = True
    asking = asyncio.create_task(said_of(cache, unknown))
    await settle()
    before_ms = virtual_ms()
    await cache.aclose()
    assert virtual_ms() - before_ms <= 5 * TIMEOUT_MS
    assert store.is_closed
    assert await asking == "store_unavailable"


@in_virtual_time
async def test_closing_is_idempotent_and_final():
    server = new_server()
    async with gateway(server) as (cache, store), gateway(server) as (elsewhere, _):
        known, unknown = await cache.login("alice"), await elsewhere.login("bob")
        await cache.authenticate(known)
        await cache.aclose()
        await cache.aclose()
        assert store.is_closed
        assert await said_of(cache, unknown) == "store_unavailable"
        with pytest.raises(StoreUnavailable):
            await cache.login("carol")
        await pass_ms(LEASE_MS)
        assert await said_of(cache, known) == "store_unavailable"


@in_virtual_time
async def test_a_store_that_does_not_open_is_closed_again():
    server = new_server()
    store = ModelStore(server)
    store.wire.is_down = True
    with pytest.raises(StoreUnavailable):
        await TicketCache(store, Keyring([OLD_KEY]), **SETTINGS).open()
    assert store.is_closed


# --- logout, sessions


@in_virtual_time
async def test_logout_of_a_ticket_that_was_never_loaded_here():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, _):
        ticket = await here.login("alice")
        assert await there.logout(ticket) is True
        assert server.live == {}
        assert await said_of(there, ticket) == await said_of(here, ticket) == "revoked"
        assert await there.logout(ticket) is False


@in_virtual_time
async def test_logout_ends_one_session_at_once():
    server = new_server()
    async with gateway(server) as (cache, _):
        ended, kept = await cache.login("alice"), await cache.login("alice")
        await said_of_each(cache, [ended, kept])
        assert await cache.logout(ended)
        assert cache.check(ended) is Verdict.REVOKED
        assert cache.check(kept).principal == "alice"


@in_virtual_time
async def test_logout_without_the_store_is_an_error_not_a_success():
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        store.wire.is_down = True
        with pytest.raises(StoreUnavailable):
            await cache.logout(ticket)
        with pytest.raises(StoreUnavailable):
            await cache.logout_everywhere("alice")
        store.wire.is_down = False
        assert len(server.live) == 1


@in_virtual_time
async def test_logout_everywhere_ends_all_sessions_of_one_principal():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, _):
        tickets = [await cache.login("alice") for cache in (here, there, here)]
        bystander = await here.login("alice2")
        await said_of_each(here, [*tickets[:2], bystander])
        await said_of_each(there, tickets)
        assert await there.logout_everywhere("alice") == 3
        assert [there.check(ticket) for ticket in tickets] == [Verdict.REVOKED] * 3
        await settle()
        assert [here.check(ticket) for ticket in tickets[:2]] == [Verdict.REVOKED] * 2
        assert await said_of(here, tickets[2]) == "revoked"
        assert await said_of(here, bystander) == "alice2"
        assert await there.logout_everywhere("alice") == 0


@in_virtual_time
async def test_sessions_lists_the_principals_own():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, _):
        tickets = [await here.login("alice") for _ in range(3)]
        await here.login("bob")
        ids = [(await there.authenticate(ticket)).id for ticket in tickets]
        assert sorted(session.id for session in await there.sessions("alice")) == sorted(ids)
        await there.logout(tickets[0])
        assert sorted(session.id for session in await here.sessions("alice")) == sorted(ids[1:])
        assert list(await here.sessions("nobody")) == []


# --- clocks


@in_virtual_time
async def test_gateways_whose_own_clocks_differ_by_a_day_agree():
    server = new_server()
    day_ms = 24 * HOUR_MS
    async with gateway(server) as (here, _), gateway(server, clock=lambda: virtual_ms() + day_ms) as (there, _):
        assert here.now_ms() == there.now_ms() == server.time_ms()
        ticket = await there.login("alice")
        assert await said_of(here, ticket) == await said_of(there, ticket) == "alice"
        await pass_ms(IDLE_MS + FLUSH_MS - 1)
        assert await said_of(here, ticket) == await said_of(there, ticket) == "alice"
        await pass_ms(1)
        assert await said_of(here, ticket) == await said_of(there, ticket) == "idle"


@in_virtual_time
async def test_a_jump_of_the_stores_clock_is_followed():
    """Deadlines are the store's: when its clock is an hour on, the sessions are dead."""
    server = new_server()
    async with gateway(server) as (cache, _):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        server.shift_ms += HOUR_MS
        await pass_ms(CLOCK_MS + FLUSH_MS)
        assert cache.now_ms() == server.time_ms()
        assert await said_of(cache, ticket) == "expired"


@in_virtual_time
@pytest.mark.parametrize("jump_ms", [-HOUR_MS, HOUR_MS])
async def test_a_jump_of_the_stores_clock_extends_no_lease(jump_ms):
    server = new_server()
    settings = {"idle_timeout_s": 0, "absolute_lifetime_s": 0, "outage_policy": "deny"}
    async with gateway(server) as (here, _), gateway(server, **settings) as (there, store):
        ticket = await there.login("alice")
        store.wire.is_deaf = True
        await there.authenticate(ticket)
        server.shift_ms += jump_ms
        await pass_ms_in_use(there, ticket, CLOCK_MS + FLUSH_MS)
        assert there.now_ms() == server.time_ms()
        assert await said_of(there, ticket) == "alice"
        store.wire.shards_down = set(range(server.shards))
        await here.logout(ticket)
        said = await pass_ms_in_use(there, ticket, 2 * LEASE_MS)
        assert set(said[LEASE_MS // 100 :]) == {"store_unavailable"}


@in_virtual_time
async def test_a_lease_lasts_no_longer_when_the_clock_jumps_during_it():
    server = new_server()
    settings = {"idle_timeout_s": 0, "absolute_lifetime_s": 0, "outage_policy": "deny"}
    async with gateway(server, **settings) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        await pass_ms_in_use(cache, ticket, CLOCK_MS - FLUSH_MS, step_ms=500)
        server.shift_ms -= HOUR_MS
        store.hold_requests(lambda call: call.name == "exchange" and not call.wanted)
        gate = store.hold_replies(is_load)
        before_ms = virtual_ms()
        asking = asyncio.create_task(said_of(cache, await cache.login("bob")))
        await gate.arrival()
        await cache._keeper.read_clock()
        gate.open()
        assert await asking in ("bob", "store_unavailable")
        await pass_ms(LEASE_MS - (virtual_ms() - before_ms))
        store.wire.is_down = True
        assert await said_of(cache, ticket) == "store_unavailable"


@in_virtual_time
@pytest.mark.parametrize("jump_ms", [-HOUR_MS, -300, 300, HOUR_MS])
async def test_p2_while_the_clock_is_set_no_lease_is_longer(jump_ms, monkeypatch):
    """Data planes in threads judge tickets between any two steps of it."""
    server = new_server()
    settings = {"idle_timeout_s": 0, "absolute_lifetime_s": 0, "outage_policy": "deny"}
    async with gateway(server, **settings) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        store.hold_requests(lambda call: call.name == "exchange")
        await pass_ms(LEASE_MS + 100)
        assert not cache.check(ticket), "its lease is over"
        shards = cache._shards
        shift = shards._shift_leases
        seen = []

        def shift_leases(by_ms):
            seen.append(bool(cache.check(ticket)))
            shift(by_ms)
            seen.append(bool(cache.check(ticket)))

        monkeypatch.setattr(shards, "_shift_leases", shift_leases)
        server.shift_ms += jump_ms
        await cache._keeper.read_clock()
        assert seen == [False, False]


@in_virtual_time
@pytest.mark.parametrize("jump_ms", [-HOUR_MS, HOUR_MS])
async def test_after_a_jump_of_the_stores_clock_nothing_is_admitted_that_was_not_loaded_since(jump_ms):
    """When it was loaded, was said by another clock: for an hour, who was loaded in the future
    would not be looked at again.
    """
    server = new_server()
    settings = {"idle_timeout_s": 3 * HOUR_MS // 1000, "absolute_lifetime_s": 0}
    async with gateway(server, **settings) as (cache, store):
        tickets = [await cache.login(name) for name in ("alice", "bob", "carol")]
        assert await said_of_each(cache, tickets) == ["alice", "bob", "carol"]
        server.live.pop(session_id_of(cache, tickets[0]))  # by hand: no log tells of it
        server.shift_ms += jump_ms
        await pass_ms(2 * CLOCK_MS)
        assert cache.now_ms() == server.time_ms()
        assert await said_of_each(cache, tickets) == ["unknown_session", "bob", "carol"]
        assert len({session_id for load in store.loads[1:] for session_id in load}) == 3


@in_virtual_time
async def test_nobody_stays_refused_when_the_stores_clock_is_put_right():
    server = new_server()
    async with gateway(server, absolute_lifetime_s=0) as (cache, _):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        server.shift_ms += HOUR_MS
        await pass_ms(CLOCK_MS + FLUSH_MS)
        assert await said_of(cache, ticket) == "idle"
        server.shift_ms -= HOUR_MS
        await pass_ms(CLOCK_MS + FLUSH_MS)
        assert await said_of(cache, ticket) == "alice"


@in_virtual_time
async def test_an_uncertain_clock_reading_changes_nothing():
    """The answer took 800 ms: what it says is no more exact than that."""
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        gate = store.hold_replies(lambda call: call.name == "time_ms")
        reading = asyncio.create_task(cache._keeper.read_clock())
        await gate.arrival()
        await pass_ms(800)
        gate.open()
        await reading
        assert cache.now_ms() == server.time_ms()
        await cache.flush()
        assert cache.check(ticket)


# --- settings


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"flush_interval_ms": 0}, "flush_interval_ms"),
        ({"lease_ms": 999}, "lease_ms"),
        ({"idle_timeout_s": 1}, "idle_timeout_s"),
        ({"touch_resolution_ms": 30_001}, "touch_resolution_ms"),
        ({"touch_resolution_ms": -1}, "touch_resolution_ms"),
        ({"idle_timeout_s": -1}, "idle_timeout_s"),
        ({"idle_timeout_s": 1 << 32}, "idle_timeout_s"),
        ({"absolute_lifetime_s": -1}, "absolute_lifetime_s"),
        ({"absolute_lifetime_s": 1 << 32}, "absolute_lifetime_s"),
        ({"outage_policy": "serve"}, "outage_policy"),
    ],
)
def test_settings_that_contradict_each_other_are_named(settings, named):
    with pytest.raises(ConfigError, match=named):
        TicketCache(ModelStore(ModelServer(lambda: 0)), Keyring([OLD_KEY]), **SETTINGS | settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"lease_ms": 1000},
        {"idle_timeout_s": 2},
        {"idle_timeout_s": 0},
        {"absolute_lifetime_s": 0},
        {"touch_resolution_ms": 30_000},
        {"idle_timeout_s": 0, "touch_resolution_ms": 1 << 30},
    ],
)
def test_settings_at_their_limits_are_fine(settings):
    TicketCache(ModelStore(ModelServer(lambda: 0)), Keyring([OLD_KEY]), **SETTINGS | settings)
