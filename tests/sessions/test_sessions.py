"""Sessions as applications see them: lifetimes, other ids, limits, events, attributes. In virtual
time, as test_cache.py.
"""

from __future__ import annotations

import asyncio
import math

import pytest
from lab.model_store import ModelServer, ModelStore, in_virtual_time, pass_ms, settle
from lab.store_contract import principal_in
from lab.virtual_gateways import (
    ABSOLUTE_MS,
    FLUSH_MS,
    HOUR_MS,
    IDLE_MS,
    LEASE_MS,
    gateway,
    new_server,
    pass_ms_in_use,
    said_of,
    session_id_of,
)

from fastticket import Keyring, Session, TicketCache
from fastticket.errors import (
    AttributesTooLarge,
    BadAttribute,
    ConfigError,
    NotConfirmed,
    StoreUnavailable,
    TicketRefused,
    TooManySessions,
    Verdict,
)
from fastticket.stores.contract import NEVER_MS, StoredSession, shard_of


def said(found: Session | Verdict) -> str:
    return found.principal if isinstance(found, Session) else found.reason


def calls_of(store: ModelStore, *names: str) -> list[str]:
    """The calls of the store by name; without names, all but flushes."""
    return [call.name for call in store.calls if call.name in names or (not names and call.name != "exchange")]


# --- lifetimes


@in_virtual_time
async def test_a_session_may_have_lifetimes_of_its_own():
    server = new_server()
    async with gateway(server) as (cache, _), gateway(server) as (other, _):
        short = await cache.login("alice", idle_timeout_s=10, absolute_lifetime_s=30)
        usual = await cache.login("alice")
        assert set(await pass_ms_in_use(other, short, 29_000, 1000)) == {"alice"}
        await pass_ms(1100)
        assert await said_of(other, short) == "expired"
        assert await said_of(other, usual) == "alice"
        idle = await cache.login("alice", idle_timeout_s=10)
        await pass_ms(10_000 + FLUSH_MS)
        assert await said_of(other, idle) == "idle"
        assert await said_of(other, usual, touch=True) == "alice"


@in_virtual_time
async def test_a_remembered_session_may_go_unused_and_ends_all_the_same():
    server = new_server()
    async with gateway(server, remember_lifetime_s=3600) as (cache, _):
        ticket = await cache.login("alice", remember=True)
        await pass_ms(HOUR_MS - 1000)
        assert await said_of(cache, ticket) == "alice"
        await pass_ms(1000)
        assert await said_of(cache, ticket) == "expired"


@in_virtual_time
async def test_a_cookie_is_kept_for_as_long_as_its_remembered_session():
    async with gateway(new_server(), remember_lifetime_s=3600) as (cache, _):
        remembered = await cache.login("alice", remember=True)
        assert cache.remembered_s(remembered) == 3600
        await pass_ms(1_500_500)
        assert cache.remembered_s(remembered) == cache.remembered_s(await cache.rotate(remembered)) == 2100
        assert (
            cache.remembered_s(await cache.login("alice", idle_timeout_s=math.inf, absolute_lifetime_s=math.inf))
            == 3600
        )
        assert cache.remembered_s(await cache.login("alice")) is None
        assert cache.remembered_s("no ticket") is None


@in_virtual_time
@pytest.mark.parametrize("name", ["idle_timeout_s", "absolute_lifetime_s"])
@pytest.mark.parametrize("seconds", [0, -1, -0.0, 0.4, 1 << 32, -math.inf, math.nan, "60", True])
async def test_lifetimes_that_can_not_be_are_refused(name, seconds):
    """Also nothing: what is left of a lifetime, computed, may come to that, and must not mean that
    there is no end.
    """
    if seconds is True and name == "absolute_lifetime_s":
        pytest.skip("a second is a lifetime")
    async with gateway(new_server()) as (cache, store):
        with pytest.raises((ValueError, TypeError), match=name):
            await cache.login("alice", **{name: seconds})
        ticket = await cache.login("alice")
        with pytest.raises((ValueError, TypeError), match=name):
            await cache.rotate(ticket, **{name: seconds})
        assert await said_of(cache, ticket) == "alice"
        assert calls_of(store, "create", "rotate") == ["create"]


@in_virtual_time
async def test_what_has_no_end_is_asked_for_as_infinite():
    async with gateway(new_server()) as (cache, _):
        ticket = await cache.login("alice", idle_timeout_s=math.inf, absolute_lifetime_s=math.inf)
        session = cache.check(ticket) or await cache.authenticate(ticket)
        assert session.idle_deadline_ms == session.absolute_deadline_ms == NEVER_MS
        ticket = await cache.rotate(ticket, idle_timeout_s=60)
        session = await cache.authenticate(ticket)
        assert (session.idle_deadline_ms < NEVER_MS, session.absolute_deadline_ms) == (True, NEVER_MS)


# --- rotate


@in_virtual_time
async def test_a_rotated_ticket_is_refused_everywhere_and_its_successor_goes_on():
    server = new_server()
    async with gateway(server) as (cache, _), gateway(server) as (other, _):
        old = await cache.login("alice", details={"address": "192.0.2.7"})
        for at in (cache, other):
            assert await said_of(at, old) == "alice"
        new = await cache.rotate(old)
        assert new != old
        assert await said_of(cache, old) == "revoked"
        await settle()  # the doorbell
        for at in (cache, other):
            assert await said_of(at, old) == "revoked"
            assert await said_of(at, new) == "alice"
        [info] = await other.sessions("alice")
        assert info.id == session_id_of(cache, new)
        assert dict(info.details) == {"address": "192.0.2.7"}


@in_virtual_time
async def test_without_the_doorbell_a_rotated_ticket_is_refused_within_the_lease():
    server = new_server()
    async with gateway(server) as (cache, _), gateway(server) as (other, store):
        old = await cache.login("alice")
        assert await said_of(other, old) == "alice"
        store.wire.is_deaf = True
        await cache.rotate(old)
        await pass_ms(LEASE_MS)
        assert await said_of(other, old) == "revoked"


@in_virtual_time
async def test_the_absolute_lifetime_counts_from_the_login():
    server = new_server()
    async with gateway(server, idle_timeout_s=0) as (cache, _):
        ticket = await cache.login("alice")
        created_ms = server.time_ms()
        await pass_ms(ABSOLUTE_MS // 2)
        ticket = await cache.rotate(ticket)
        [info] = await cache.sessions("alice")
        assert (info.created_ms, info.absolute_deadline_ms) == (created_ms, created_ms + ABSOLUTE_MS)
        await pass_ms(ABSOLUTE_MS // 2)
        assert await said_of(cache, ticket) == "expired"


@in_virtual_time
async def test_lifetimes_can_be_changed_while_the_session_lives():
    server = new_server()
    async with gateway(server) as (cache, _), gateway(server) as (other, _):
        ticket = await cache.rotate(await cache.login("alice"), idle_timeout_s=3600, absolute_lifetime_s=math.inf)
        await pass_ms(ABSOLUTE_MS * 2)
        assert await said_of(other, ticket, touch=True) == "alice"
        ticket = await other.rotate(ticket, idle_timeout_s=10)
        await pass_ms(10_000 + FLUSH_MS)
        assert await said_of(cache, ticket) == "idle"


@in_virtual_time
async def test_a_lifetime_that_is_over_already_is_refused_and_the_session_goes_on():
    async with gateway(new_server()) as (cache, store):
        ticket = await cache.login("alice")
        await pass_ms_in_use(cache, ticket, 20_000, 1000)
        with pytest.raises(ValueError, match="log out"):
            await cache.rotate(ticket, absolute_lifetime_s=20)
        assert await said_of(cache, ticket) == "alice"
        assert calls_of(store, "rotate") == []


@in_virtual_time
async def test_a_session_that_is_over_can_not_be_rotated():
    server = new_server()
    async with gateway(server) as (cache, store), gateway(server) as (other, _):
        store.wire.is_deaf = True
        revoked, idle = await cache.login("alice"), await cache.login("alice")
        assert await said_of(cache, revoked) == "alice"
        await other.logout(revoked)
        with pytest.raises(TicketRefused, match="revoked"):  # this cache has not heard of it: the store has
            await cache.rotate(revoked)
        await pass_ms(IDLE_MS + FLUSH_MS)
        with pytest.raises(TicketRefused, match="idle"):
            await cache.rotate(idle)
        with pytest.raises(TicketRefused, match="bad_signature"):
            await cache.rotate(Keyring([(1, b"x" * 32)]).mint("alice", server.time_ms()))
        assert len(server.live) == 1


@in_virtual_time
@pytest.mark.parametrize("fault", ["is_down", "loses_replies"])
async def test_a_rotation_whose_reply_is_lost_is_asked_for_again(fault):
    """Else the old ticket is over, and nobody has the new one."""
    server = new_server()
    async with gateway(server) as (cache, store):
        old = await cache.login("alice")
        assert await said_of(cache, old) == "alice"
        setattr(store.wire, fault, True)
        rotating = asyncio.create_task(cache.rotate(old))
        await pass_ms(250)
        setattr(store.wire, fault, False)
        new = await rotating
        assert await said_of(cache, old) == "revoked"
        assert await said_of(cache, new) == "alice"
        assert len(server.live) == 1


@in_virtual_time
async def test_a_rotation_that_no_replica_has_confirmed_is_one():
    """The old ticket is over: who asked for another one gets it. A failover that loses it is the
    store's to mend.
    """
    server = new_server()
    async with gateway(server) as (cache, store):
        old = await cache.login("alice")
        rotate = store.rotate

        async def rotate_unconfirmed(session_id: str, successor: StoredSession) -> bool:
            await rotate(session_id, successor)
            raise NotConfirmed("no replica")

        store.rotate = rotate_unconfirmed
        new = await cache.rotate(old)
        assert [await said_of(cache, ticket) for ticket in (old, new)] == ["revoked", "alice"]
        assert calls_of(store, "rotate") == ["rotate"]


@in_virtual_time
async def test_a_rotation_that_never_reached_the_store_leaves_the_old_ticket():
    async with gateway(new_server()) as (cache, store):
        old = await cache.login("alice")
        assert await said_of(cache, old) == "alice"
        store.wire.is_down = True
        with pytest.raises(StoreUnavailable):
            await cache.rotate(old)
        assert await said_of(cache, old) == "alice"
        store.wire.is_down = False
        assert await said_of(cache, await cache.rotate(old)) == "alice"


@in_virtual_time
async def test_a_use_is_written_often_enough_for_each_sessions_own_idle_timeout():
    """So a lifetime that is too short for `touch_resolution_ms` is refused, whichever way it is
    asked for.
    """
    async with gateway(new_server(), touch_resolution_ms=30_000) as (cache, _):
        ticket = await cache.login("alice", idle_timeout_s=60)
        for asked in (cache.login("alice", idle_timeout_s=59), cache.rotate(ticket, idle_timeout_s=59)):
            with pytest.raises(ValueError, match="touch_resolution_ms"):
                await asked
        assert set(await pass_ms_in_use(cache, ticket, 300_000, 1000)) == {"alice"}


# --- sessions


@in_virtual_time
async def test_what_sessions_says():
    server = new_server()
    async with gateway(server) as (cache, _):
        ticket = await cache.login("alice", details={"address": "192.0.2.7", "user_agent": "Ünknown/1"})
        remembered = await cache.login("alice", remember=True)
        created_ms = server.time_ms()
        assert await said_of(cache, remembered) == "alice"
        await pass_ms(5000)
        assert await said_of(cache, ticket, touch=True) == "alice"
        used_ms = server.time_ms()
        await pass_ms(FLUSH_MS + 100)
        by_id = {info.id: info for info in await cache.sessions("alice")}
        info, other = by_id[session_id_of(cache, ticket)], by_id[session_id_of(cache, remembered)]
        assert (info.principal, info.created_ms, info.last_access_ms) == ("alice", created_ms, used_ms)
        assert info.idle_deadline_ms == used_ms + IDLE_MS + FLUSH_MS
        assert info.absolute_deadline_ms == created_ms + ABSOLUTE_MS
        assert dict(info.details) == {"address": "192.0.2.7", "user_agent": "Ünknown/1"}
        assert (other.last_access_ms, dict(other.details)) == (None, {})


@in_virtual_time
async def test_details_have_a_limit():
    async with gateway(new_server()) as (cache, store):
        with pytest.raises(ValueError, match="1024 bytes"):
            await cache.login("alice", details={"user_agent": "x" * 1024})
        assert calls_of(store, "create") == []


@in_virtual_time
async def test_one_of_the_sessions_that_are_listed_can_be_ended():
    server = new_server()
    async with gateway(server) as (cache, _), gateway(server) as (other, _):
        here, there = await cache.login("alice"), await other.login("alice")
        assert await said_of(cache, there) == "alice"
        assert await cache.revoke(session_id_of(cache, there), "alice")
        assert await said_of(cache, there) == "revoked"
        assert not await cache.revoke("A" * 22, "alice")
        assert await said_of(other, here) == "alice"


@in_virtual_time
async def test_who_names_somebody_elses_session_ends_nothing_here_or_there():
    server = new_server()
    async with gateway(server) as (cache, _), gateway(server) as (other, _):
        ticket = await cache.login("alice")
        session_id = (await cache.authenticate(ticket)).id
        for wrong in ("eve", "Alice", "user7"):
            assert await cache.revoke(session_id, wrong) is False
            assert said(cache.check(ticket)) == "alice"
            assert await said_of(other, ticket) == "alice"
        await pass_ms(LEASE_MS)
        assert await said_of(cache, ticket) == "alice"
        assert await cache.revoke(session_id, "alice")
        assert await said_of(cache, ticket) == "revoked"


@in_virtual_time
async def test_who_hears_that_a_session_has_ended_already_looks_why_at_once():
    """The first answer may have been lost, and the session be held here."""
    server = new_server()
    async with gateway(server) as (cache, store), gateway(server) as (other, _):
        ticket = await cache.login("alice")
        session_id = (await cache.authenticate(ticket)).id
        store.wire.is_deaf = True
        assert await other.revoke(session_id, "alice")
        assert await cache.revoke(session_id, "alice") is False
        await settle()
        assert said(cache.check(ticket)) == "revoked"


@in_virtual_time
async def test_all_but_this_session_can_be_ended():
    server = new_server()
    async with gateway(server) as (cache, _), gateway(server) as (other, _):
        tickets = [await cache.login("alice") for _ in range(3)]
        session = await other.authenticate(tickets[1])
        assert await other.logout_everywhere("alice", keep=session) == 2
        assert [await said_of(other, ticket) for ticket in tickets] == ["revoked", "alice", "revoked"]
        await settle()
        assert [await said_of(cache, ticket) for ticket in tickets] == ["revoked", "alice", "revoked"]


# --- limits


@in_virtual_time
async def test_who_logs_in_once_more_than_allowed_loses_the_oldest_session():
    server = new_server()
    limit = {"sessions_max": 2}
    async with gateway(server, **limit) as (cache, _), gateway(server, **limit) as (other, _):
        tickets = []
        for _ in range(3):
            tickets.append(await cache.login("alice"))
            for at in (cache, other):
                assert await said_of(at, tickets[-1]) == "alice"
            await pass_ms(10)
        assert await said_of(cache, tickets[0]) == "revoked"
        assert [await said_of(other, ticket) for ticket in tickets] == ["revoked", "alice", "alice"]


@in_virtual_time
async def test_who_may_not_log_in_once_more_keeps_the_others():
    limit = {"sessions_max": 2, "sessions_max_policy": "refuse"}
    async with gateway(new_server(), **limit) as (cache, _):
        tickets = [await cache.login("alice") for _ in range(2)]
        with pytest.raises(TooManySessions, match="2 sessions") as failure:
            await cache.login("alice")
        assert (failure.value.reason, failure.value.status) == ("too_many_sessions", 409)
        assert [await said_of(cache, ticket) for ticket in tickets] == ["alice", "alice"]
        await cache.login("bob")
        await cache.logout(tickets[0])
        assert await said_of(cache, await cache.login("alice")) == "alice"


@in_virtual_time
async def test_a_login_elsewhere_does_not_end_who_is_cut_off_and_in_nobodys_way():
    server, limit = new_server(), {"sessions_max": 3}
    async with gateway(server, **limit) as (here, store), gateway(server, **limit) as (other, _):
        ticket = await here.login("alice")
        assert await said_of(here, ticket) == "alice"
        await pass_ms(IDLE_MS - 1000)
        store.wire.is_down = True
        assert await said_of(here, ticket, touch=True) == "alice"
        await pass_ms(10_000)  # its deadline has passed in the store
        for _ in range(2):
            await other.login("alice")
        store.wire.is_down = False
        await pass_ms(FLUSH_MS)
        assert await said_of(here, ticket) == "alice"
        assert len(server.live) == 3


@in_virtual_time
@pytest.mark.parametrize("fault", ["is_down", "loses_replies"])
async def test_a_login_that_failed_leaves_no_session_that_counts(fault):
    server = new_server()
    async with gateway(server, sessions_max=1, sessions_max_policy="refuse") as (cache, store):
        gate = store.hold_replies(lambda call: call.name == "create")
        setattr(store.wire, fault, True)
        failing = asyncio.create_task(cache.login("alice"))
        if fault == "loses_replies":
            await gate.arrival()
        gate.open()
        with pytest.raises(StoreUnavailable):
            await failing
        setattr(store.wire, fault, False)
        assert server.live == {}
        assert await said_of(cache, await cache.login("alice")) == "alice"


@pytest.mark.parametrize(
    "named",
    [
        {"sessions_max": -1},
        {"sessions_max_policy": "evict"},
        {"remember_lifetime_s": 0},
        {"attributes_bytes_max": -1},
        {"near_attributes_bytes": -1},
    ],
)
def test_limits_that_can_not_be_are_refused(named):
    with pytest.raises(ConfigError, match=next(iter(named))):
        TicketCache(ModelStore(ModelServer(lambda: 0)), Keyring.generate(), **named)


# --- attributes


@in_virtual_time
async def test_attributes_are_the_same_through_every_gateway():
    server = new_server()
    async with gateway(server) as (cache, _), gateway(server) as (other, _):
        session = await cache.authenticate(await cache.login("alice"))
        async with cache.attributes(session) as attributes:
            attributes["cart"] = ["tea"]
            attributes["color"] = "red"
        async with other.attributes(session) as attributes:
            assert dict(attributes) == {"cart": ["tea"], "color": "red"}
            attributes["cart"].append("milk")
            del attributes["color"]
        assert dict(await cache.attributes(session).load()) == {"cart": ["tea", "milk"]}


@in_virtual_time
async def test_attributes_cost_one_read_and_one_write_of_what_changed():
    async with gateway(new_server()) as (cache, store):
        session = await cache.authenticate(await cache.login("alice"))
        async with cache.attributes(session) as attributes:
            attributes["cart"], attributes["color"] = ["tea"], "red"
        store.calls.clear()
        async with cache.attributes(session) as attributes:
            attributes["cart"].append("milk")
        read, written = [call for call in store.calls if call.name != "exchange"]
        assert (read.name, written.name) == ("read_attributes", "write_attributes")
        assert dict(written.arguments[2]) == {"cart": b'["tea","milk"]'}
        store.calls.clear()
        async with cache.attributes(session) as attributes:
            assert attributes["color"] == "red"
        assert calls_of(store) == ["read_attributes"]
        blind = cache.attributes(session)
        blind["color"] = "blue"
        store.calls.clear()
        assert await blind.save()
        assert not await blind.save()
        assert calls_of(store) == ["write_attributes"]


@in_virtual_time
async def test_near_copies_cost_nothing_while_nobody_writes_and_one_write_for_who_does():
    async with gateway(new_server(), near_attributes_bytes=100_000) as (cache, store):
        session = await cache.authenticate(await cache.login("alice"))
        async with cache.attributes(session) as attributes:
            attributes["count"] = 0
        for number in range(20):
            store.calls.clear()
            async with cache.attributes(session) as attributes:
                assert attributes["count"] == number
                attributes["count"] += 1
            assert calls_of(store) == ["write_attributes"]
            store.calls.clear()
            async with cache.attributes(session) as attributes:
                assert attributes["count"] == number + 1
            assert calls_of(store) == []
            await pass_ms(173)
            cache.check(await cache.login("bob"))


@in_virtual_time
@pytest.mark.parametrize("is_deaf", [True, False])
async def test_a_near_copy_is_no_older_than_the_lease(is_deaf):
    server, near = new_server(), {"near_attributes_bytes": 100_000}
    async with gateway(server, **near) as (cache, store), gateway(server, **near) as (other, _):
        ticket = await cache.login("alice")
        session = await cache.authenticate(ticket)
        store.wire.is_deaf = is_deaf
        for number in range(30):
            async with other.attributes(session) as attributes:
                attributes["count"] = number
            await pass_ms_in_use(cache, ticket, LEASE_MS, 100)
            assert (await cache.attributes(session).load())["count"] == number
            await pass_ms(number * 7)


@in_virtual_time
async def test_p11_a_near_copy_is_not_served_to_who_has_seen_a_later_version():
    server, near = new_server(), {"near_attributes_bytes": 100_000}
    async with gateway(server, **near) as (cache, store), gateway(server, **near) as (other, _):
        session = await cache.authenticate(await cache.login("alice"))
        store.wire.is_deaf = True
        for number in range(1, 4):
            await cache.attributes(session).load()
            changed = other.attributes(session)
            changed["count"] = number
            await changed.save()
            store.calls.clear()
            assert (await cache.attributes(session).load()).get("count") == (number - 1 or None)
            assert calls_of(store) == []
            for calls in (["read_attributes"], []):
                store.calls.clear()
                seen = await cache.attributes(session, seen=changed.version).load()
                assert (seen["count"], seen.version) == (number, changed.version)
                assert calls_of(store) == calls


@in_virtual_time
async def test_p11_the_version_written_is_told_also_where_others_wrote_in_between():
    server, near = new_server(), {"near_attributes_bytes": 100_000}
    async with gateway(server, **near) as (cache, store), gateway(server, **near) as (other, _):
        session = await cache.authenticate(await cache.login("alice"))
        store.wire.is_deaf = True
        attributes = await cache.attributes(session).load()
        async with other.attributes(session) as elsewhere:
            elsewhere["x"] = 1
        attributes["y"] = 2
        assert await attributes.save()
        assert attributes.version == server.attributes[session.id].version > elsewhere.version
        assert dict(await other.attributes(session, seen=attributes.version).load()) == {"x": 1, "y": 2}


@in_virtual_time
async def test_the_doorbell_makes_an_old_copy_go_and_asks_the_store_nothing():
    server, near = new_server(), {"near_attributes_bytes": 100_000}
    async with gateway(server, **near) as (cache, store), gateway(server, **near) as (other, _):
        session = await cache.authenticate(await cache.login("alice"))
        await cache.attributes(session).load()
        store.calls.clear()
        async with other.attributes(session) as attributes:
            attributes["x"] = 1
        await settle()
        assert store.calls == []
        assert cache._attributes.near_copy(session) is None
        assert dict(await cache.attributes(session).load()) == {"x": 1}


@in_virtual_time
async def test_a_read_under_way_when_the_doorbell_rings_brings_no_old_copy():
    server, near = new_server(), {"near_attributes_bytes": 100_000}
    async with gateway(server, **near) as (cache, store), gateway(server, **near) as (other, _):
        session = await cache.authenticate(await cache.login("alice"))
        gate = store.hold_replies(lambda call: call.name == "read_attributes")
        reading = asyncio.create_task(cache.attributes(session).load())
        await gate.arrival()
        async with other.attributes(session) as attributes:
            attributes["x"] = 1
        await settle()
        gate.open()
        assert dict(await reading) == {}
        assert dict(await cache.attributes(session).load()) == {"x": 1}


@in_virtual_time
async def test_a_near_copy_is_not_served_past_the_lease():
    """No session of the shard is held, so nothing reads its log: then the copy may be old."""
    server, near = new_server(), {"near_attributes_bytes": 100_000, "capacity": 3}
    async with gateway(server, **near) as (cache, store), gateway(server) as (other, _):
        session = await cache.authenticate(await cache.login("alice", idle_timeout_s=math.inf))
        store.wire.is_deaf = True
        await cache.attributes(session).load()
        elsewhere = principal_in((shard_of("alice", server.shards) + 1) % server.shards, server.shards)
        for _ in range(3):
            await cache.authenticate(await cache.login(elsewhere, idle_timeout_s=math.inf))
        await pass_ms(LEASE_MS + FLUSH_MS)
        async with other.attributes(session) as attributes:
            attributes["x"] = 1
        assert dict(await cache.attributes(session).load()) == {"x": 1}


@in_virtual_time
async def test_a_near_copy_does_not_hide_what_was_written_while_it_was_read():
    server, near = new_server(), {"near_attributes_bytes": 100_000}
    async with gateway(server, **near) as (cache, store), gateway(server) as (other, _):
        ticket = await cache.login("alice")
        session = await cache.authenticate(ticket)
        gate = store.hold_replies(lambda call: call.name == "read_attributes")
        reading = asyncio.create_task(cache.attributes(session).load())
        await gate.arrival()
        async with other.attributes(session) as attributes:
            attributes["x"] = 1
        await pass_ms_in_use(cache, ticket, LEASE_MS)
        gate.open()
        assert dict(await reading) == {}
        assert dict(await cache.attributes(session).load()) == {"x": 1}


@in_virtual_time
async def test_a_process_sees_its_own_writes_at_once_whatever_read_is_under_way():
    async with gateway(new_server(), near_attributes_bytes=100_000) as (cache, store):
        session = await cache.authenticate(await cache.login("alice"))
        gate = store.hold_replies(lambda call: call.name == "read_attributes")
        reading = asyncio.create_task(cache.attributes(session).load())
        await gate.arrival()
        blind = cache.attributes(session)
        blind["x"] = 1
        await blind.save()
        gate.open()
        assert dict(await reading) == {}
        assert dict(await cache.attributes(session).load()) == {"x": 1}


@in_virtual_time
async def test_a_gap_in_the_log_makes_near_copies_worthless():
    server, near = new_server(), {"near_attributes_bytes": 100_000}
    async with gateway(server, **near) as (cache, store), gateway(server) as (other, _):
        ticket = await cache.login("alice")
        session = await cache.authenticate(ticket)
        await cache.attributes(session).load()
        store.wire.is_deaf = True
        async with other.attributes(session) as attributes:
            attributes["x"] = 1
        for shard in range(server.shards):
            server.lose_log(shard)
        await pass_ms_in_use(cache, ticket, LEASE_MS)
        assert dict(await cache.attributes(session).load()) == {"x": 1}


@in_virtual_time
@pytest.mark.parametrize("near_attributes_bytes", [0, 100_000])
async def test_nobody_reads_or_writes_attributes_past_the_absolute_deadline(near_attributes_bytes):
    async with gateway(new_server(), near_attributes_bytes=near_attributes_bytes) as (cache, _):
        session = await cache.authenticate(await cache.login("alice", idle_timeout_s=math.inf, absolute_lifetime_s=10))
        attributes = await cache.attributes(session).load()
        attributes["x"] = 1
        await pass_ms(10_000)
        with pytest.raises(TicketRefused, match="expired"):
            await attributes.save()
        with pytest.raises(TicketRefused, match="expired"):
            await cache.attributes(session).load()


@in_virtual_time
async def test_a_lowered_limit_does_not_forbid_to_take_something_away():
    server = new_server()
    async with gateway(server) as (cache, _), gateway(server, attributes_bytes_max=10) as (strict, _):
        session = await cache.authenticate(await cache.login("alice"))
        async with cache.attributes(session) as attributes:
            attributes["a"], attributes["b"] = "x" * 50, "y" * 50
        attributes = strict.attributes(session)
        attributes.discard("b")
        assert await attributes.save()
        attributes["b"] = "y"
        with pytest.raises(AttributesTooLarge):
            await attributes.save()


@in_virtual_time
async def test_two_that_change_different_attributes_lose_neither():
    server, near = new_server(), {"near_attributes_bytes": 100_000}
    async with gateway(server, **near) as (cache, _), gateway(server, **near) as (other, _):
        session = await cache.authenticate(await cache.login("alice"))

        async def change(at: TicketCache, name: str) -> None:
            for number in range(20):
                async with at.attributes(session) as attributes:
                    assert attributes.get(name, 0) == number
                    attributes[name] = number + 1

        await asyncio.gather(*(change(at, f"{name}{n}") for n, at in enumerate((cache, other)) for name in "abc"))
        for at in (cache, other):
            await pass_ms(LEASE_MS)
            assert dict(await at.attributes(session).load()) == {f"{name}{n}": 20 for n in (0, 1) for name in "abc"}


@in_virtual_time
@pytest.mark.parametrize("near_attributes_bytes", [0, 100_000])
async def test_attributes_end_with_their_session(near_attributes_bytes):
    server = new_server()
    async with (
        gateway(server, near_attributes_bytes=near_attributes_bytes) as (cache, store),
        gateway(server) as (other, _),
    ):
        ticket = await cache.login("alice")
        session = await cache.authenticate(ticket)
        attributes = await cache.attributes(session).load()
        store.wire.is_deaf = True
        await other.logout(ticket)
        attributes["x"] = 1
        with pytest.raises(TicketRefused, match="revoked"):
            await attributes.save()
        assert cache.check(ticket) is Verdict.REVOKED  # the store has said so
        with pytest.raises(TicketRefused, match="revoked"):
            await cache.attributes(session).load()
        assert server.attributes == {}


@in_virtual_time
async def test_attributes_move_with_a_rotation():
    async with gateway(new_server(), near_attributes_bytes=100_000) as (cache, _):
        old = await cache.login("alice")
        session = await cache.authenticate(old)
        async with cache.attributes(session) as attributes:
            attributes["cart"] = ["tea"]
        new = await cache.authenticate(await cache.rotate(old))
        assert dict(await cache.attributes(new).load()) == {"cart": ["tea"]}
        with pytest.raises(TicketRefused):
            await cache.attributes(session).load()


@in_virtual_time
async def test_what_can_not_be_written_leaves_all_as_it_was():
    async with gateway(new_server(), attributes_bytes_max=100) as (cache, _):
        session = await cache.authenticate(await cache.login("alice"))
        async with cache.attributes(session) as attributes:
            attributes["a"] = 1
        for value, error in (("x" * 200, AttributesTooLarge), (object(), BadAttribute)):
            attributes = await cache.attributes(session).load()
            attributes["a"], attributes["b"] = 2, value
            with pytest.raises(error, match=r"b|200"):
                await attributes.save()
            assert dict(await cache.attributes(session).load()) == {"a": 1}
            attributes["b"] = 3
            assert await attributes.save()  # the changes are still there
            async with cache.attributes(session) as attributes:
                assert dict(attributes) == {"a": 2, "b": 3}
                attributes["a"] = 1
                del attributes["b"]


@in_virtual_time
async def test_an_exception_saves_nothing():
    async with gateway(new_server()) as (cache, _):
        session = await cache.authenticate(await cache.login("alice"))
        with pytest.raises(ZeroDivisionError):
            async with cache.attributes(session) as attributes:
                attributes["a"] = 1 / 0
        attributes["b"] = 1
        with pytest.raises(ZeroDivisionError):
            async with attributes:
                attributes["c"] = 1 / 0
        assert dict(await cache.attributes(session).load()) == {}


@in_virtual_time
async def test_with_the_store_away_near_copies_go_on_as_their_sessions_do():
    near = {"near_attributes_bytes": 100_000, "outage_grace_s": 30}
    async with gateway(new_server(), **near) as (cache, store):
        ticket = await cache.login("alice")
        session = await cache.authenticate(ticket)
        async with cache.attributes(session) as attributes:
            attributes["x"] = 1
        store.wire.is_down = True
        for _ in range(20):
            await pass_ms(1000)
            assert await said_of(cache, ticket, touch=True) == "alice"
            assert dict(await cache.attributes(session).load()) == {"x": 1}
        changed = await cache.attributes(session).load()
        changed["x"] = 2
        with pytest.raises(StoreUnavailable):
            await changed.save()
        await pass_ms(20_000)
        with pytest.raises(StoreUnavailable):
            await cache.attributes(session).load()
        store.wire.is_down = False
        assert await changed.save()
        assert dict(await cache.attributes(session).load()) == {"x": 2}


@in_virtual_time
async def test_a_serializer_can_be_chosen():
    class Reversed:
        def dumps(self, value: str) -> bytes:
            return value[::-1].encode()

        def loads(self, data: bytes) -> str:
            return data.decode()[::-1]

    server = new_server()
    async with gateway(server, serializer=Reversed()) as (cache, _):
        session = await cache.authenticate(await cache.login("alice"))
        async with cache.attributes(session) as attributes:
            attributes["word"] = "abc"
        assert server.attributes[session.id].values == {"word": b"cba"}
        assert (await cache.attributes(session).load())["word"] == "abc"
