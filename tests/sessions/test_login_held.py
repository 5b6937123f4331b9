"""A session that this process has just made is held here, and never longer than one that was
loaded: each attack is a login or rotation whose session ends while its answer is on the way, or is
lost from the log.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from lab.model_store import ModelStore, in_virtual_time, pass_ms, settle
from lab.virtual_gateways import (
    FLUSH_MS,
    GRACE_MS,
    LEASE_MS,
    NEW_KEY,
    OLD_KEY,
    SETTINGS,
    gateway,
    new_server,
    pass_ms_in_use,
    said_of,
)

from fastticket import Keyring, Session, StoreUnavailable, TicketCache
from fastticket.errors import Verdict


def is_made(call):
    return call.name in ("create", "rotate")


async def log_in(cache):
    return await cache.login("alice")


async def rotate(cache):
    return await cache.rotate(await cache.login("alice"))


HOW = pytest.mark.parametrize("make", [log_in, rotate])


@contextlib.asynccontextmanager
async def serving(server, **settings):
    """A gateway that serves somebody else of the shard, which therefore has a lease."""
    async with gateway(server, **settings) as (cache, store):
        await cache.authenticate(await cache.login("zoe"))
        yield cache, store


@contextlib.asynccontextmanager
async def held_back(cache, store, make):
    """A ticket in the making: its session is in the store, and the answer is on its way until the
    block is left.
    """
    old = await cache.login("alice") if make is rotate else ""
    gate = store.hold_replies(is_made)
    making = asyncio.create_task(cache.rotate(old) if old else cache.login("alice"))
    await gate.arrival()
    yield making
    gate.open()


@HOW
@in_virtual_time
async def test_a_session_that_was_made_here_is_admitted_at_once_and_nothing_is_asked(make):
    server = new_server(1)
    async with serving(server) as (cache, store):
        ticket = await make(cache)
        calls, loads = len(store.calls), len(store.loads)
        session = cache.check(ticket)
        assert isinstance(session, Session)
        assert session.idle_deadline_ms == server.live[session.id].idle_deadline_ms
        assert (await cache.authenticate(ticket)).id == session.id
        assert (len(store.calls), len(store.loads)) == (calls, loads)


@in_virtual_time
async def test_where_no_other_session_of_the_shard_is_held_it_is_not():
    """No flush would ask for the shard's log, and so none renew its lease."""
    async with gateway(new_server(1)) as (cache, store):
        ticket = await cache.login("alice")
        assert cache.check(ticket) is Verdict.MISS
        calls = len(store.calls)
        await pass_ms(3 * FLUSH_MS)
        assert not any(call.requests for call in store.calls[calls:])


@in_virtual_time
async def test_p8_in_an_outage_that_begins_right_then_it_goes_on_being_admitted():
    """As what was loaded does: its lease was renewed by the latest flush."""
    async with serving(new_server(1)) as (cache, store):
        for _ in range(20):
            await pass_ms(FLUSH_MS)
        ticket = await cache.login("alice")
        store.wire.is_down = True
        assert set(await pass_ms_in_use(cache, ticket, GRACE_MS - LEASE_MS, step_ms=50)) == {"alice"}


@in_virtual_time
async def test_it_costs_no_call_of_its_own():
    server = new_server(1)
    async with serving(server) as (cache, store):
        before = len(store.calls)
        await cache.login("alice")
        assert [call.name for call in store.calls[before:]] == ["create"]


@in_virtual_time
async def test_a_rotated_ticket_is_over_at_once():
    async with serving(new_server(1)) as (cache, _):
        old = await cache.login("alice")
        new = await cache.rotate(old)
        assert cache.check(old) is Verdict.REVOKED
        assert cache.check(new)


@HOW
@in_virtual_time
async def test_p2_what_ended_before_the_answer_came_is_not_brought_back(make):
    """1. written 2. ended by another process 3. the log is read here 4. the answer comes."""
    server = new_server(1)
    async with serving(server) as (here, store), gateway(server) as (there, _):
        async with held_back(here, store, make) as making:
            await there.logout_everywhere("alice")
            await settle()  # the doorbell has rung
        ticket = await making
        assert not here.check(ticket)
        assert await said_of(here, ticket) == "revoked"


@HOW
@in_virtual_time
async def test_p2_what_ended_unheard_is_admitted_for_a_lease_at_most(make):
    server = new_server(1)
    async with serving(server) as (here, store), gateway(server) as (there, _):
        store.wire.is_deaf = True
        async with held_back(here, store, make) as making:
            await there.logout_everywhere("alice")
        ticket = await making
        assert here.check(ticket)
        await pass_ms_in_use(here, ticket, LEASE_MS)
        assert here.check(ticket) is Verdict.REVOKED


@HOW
@in_virtual_time
async def test_p2_it_answers_no_longer_than_its_shard_has_a_lease(make):
    """With the store silent from the answer on: nothing that is heard renews the lease."""
    async with serving(new_server(1), outage_policy="deny") as (cache, store):
        ticket = await make(cache)
        assert cache.check(ticket)
        store.hold_requests()
        await pass_ms(LEASE_MS)
        assert cache.check(ticket) is Verdict.REFRESH


@HOW
@in_virtual_time
async def test_p2_an_end_that_the_log_has_lost_is_not_missed(make):
    server = new_server(1)
    async with serving(server) as (here, store), gateway(server) as (there, _):
        store.wire.is_deaf = True
        async with held_back(here, store, make) as making:
            await there.logout_everywhere("alice")
            for log in server.logs:
                log.lose(entries=1)
            for shard in range(server.shards):
                here._keeper.on_doorbell(shard)
            await settle()
        ticket = await making
        assert not here.check(ticket)
        assert await said_of(here, ticket) in ("unknown_session", "revoked")


@in_virtual_time
async def test_p2_what_this_process_ended_meanwhile_is_not_held():
    async with serving(new_server(1)) as (cache, store):
        async with held_back(cache, store, log_in) as making:
            await cache.logout_everywhere("alice")
        assert cache.check(await making) is Verdict.REVOKED


@in_virtual_time
async def test_p2_where_the_log_was_not_heard_yet_nothing_is_held():
    """Ends are heard from a position on. Here the first one lies behind the end."""
    server = new_server(1)
    store = ModelStore(server)
    store.wire.shards_down, store.wire.is_deaf = {0}, True
    async with gateway(server) as (there, _), TicketCache(store, Keyring([OLD_KEY]), **SETTINGS) as here:
        assert here._shards[0].position is None
        store.wire.shards_down = set()
        zoe = await there.login("zoe")
        async with held_back(here, store, log_in) as making:
            await there.logout_everywhere("alice")
            await here.authenticate(zoe)  # finds a position, and has a lease
        ticket = await making
        assert not here.check(ticket)
        assert await said_of(here, ticket) in ("unknown_session", "revoked")


@HOW
@in_virtual_time
@pytest.mark.parametrize(("keys", "reason"), [([NEW_KEY], "unknown_key"), ([NEW_KEY, (1, b"x" * 32)], "bad_signature")])
async def test_p1_a_ticket_whose_key_left_meanwhile_is_not_held(make, keys, reason):
    async with gateway(new_server(1), keys=[OLD_KEY, NEW_KEY]) as (cache, store):
        await cache.authenticate(zoe := await cache.login("zoe"))  # under the key that stays
        cache.replace_keys([NEW_KEY, OLD_KEY])
        async with held_back(cache, store, make) as making:
            cache.replace_keys(keys)
        assert cache.check(zoe)
        ticket = await making
        assert cache.check(ticket).reason == reason


@HOW
@in_virtual_time
async def test_what_the_store_did_not_make_is_not_held(make):
    async with serving(new_server(1)) as (cache, store):
        old = await cache.login("alice")
        held = cache.stats["sessions_held"]
        store.wire.loses_replies = True
        with pytest.raises(StoreUnavailable):
            await (cache.rotate(old) if make is rotate else cache.login("bob"))
        store.wire.loses_replies = False
        assert cache.stats["sessions_held"] <= held
        assert not any(shard.flights for shard in cache._shards)


@in_virtual_time
async def test_who_gives_up_a_login_leaves_nothing_behind():
    async with serving(new_server(1)) as (cache, store):
        async with held_back(cache, store, log_in) as making:
            making.cancel()
            with pytest.raises(asyncio.CancelledError):
                await making
        assert cache.stats["sessions_held"] == 1  # zoe's
        assert not any(shard.flights for shard in cache._shards)


@in_virtual_time
async def test_who_knows_the_ticket_before_its_login_is_done_waits_for_nothing_that_never_comes():
    """`suits` sees it, for one."""
    async with serving(new_server(1)) as (cache, store):
        seen = []
        gate = store.hold_replies(is_made)
        making = asyncio.create_task(cache.login("alice", suits=lambda ticket: not seen.append(ticket)))
        await gate.arrival()
        asking = asyncio.create_task(said_of(cache, seen[0]))
        await settle()
        gate.open()
        assert (await making, await asking) == (seen[0], "alice")
