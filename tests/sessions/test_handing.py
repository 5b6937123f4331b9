"""What one process hands to the next: sessions are not looked up again, and P2 holds all the same.
In virtual time.
"""

import contextlib

import pytest
from lab.model_store import ModelStore, in_virtual_time, is_load, pass_ms, virtual_ms
from lab.virtual_gateways import (
    IDLE_MS,
    NEW_KEY,
    OLD_KEY,
    SETTINGS,
    gateway,
    new_server,
    pass_ms_in_use,
    said_of,
    session_id_of,
)

from fastticket import Keyring, TicketCache
from fastticket.errors import Verdict
from fastticket.sessions.ticketcache import hand_to, handed_by


@contextlib.asynccontextmanager
async def heir(server, parts, keys=(OLD_KEY,), meanwhile=None, **settings):
    """The cache of a process that begins with what another one has handed over."""
    store = ModelStore(server)
    cache = TicketCache(store, Keyring(keys), **SETTINGS | settings)
    hand_to(cache, parts)
    if meanwhile:
        await meanwhile(cache)
    await cache.open()
    try:
        yield cache, store
    finally:
        await cache.aclose()


def loads(store):
    return sum(map(is_load, store.calls))


async def logged_in(cache, *principals):
    tickets = [await cache.login(principal) for principal in principals]
    for ticket in tickets:
        assert await said_of(cache, ticket) in principals
    return tickets


@in_virtual_time
async def test_an_heir_looks_nobody_up_again():
    server = new_server()
    names = [f"user{n}" for n in range(50)]
    async with gateway(server) as (old, _):
        tickets = await logged_in(old, *names)
        async with heir(server, list(handed_by(old))) as (new, store):
            assert [await said_of(new, ticket) for ticket in tickets] == names
            await pass_ms(10_000)
            assert [await said_of(new, ticket) for ticket in tickets] == names
            assert loads(store) == 0
            assert len(old._near) == len(new._near) == 50


@in_virtual_time
async def test_p2_an_heir_serves_nobody_before_the_store_has_answered():
    """A lease is of the process that asked."""
    server = new_server()
    async with gateway(server) as (old, _):
        (ticket,) = await logged_in(old, "alice")

        async def meanwhile(cache):
            assert cache.check(ticket) is Verdict.REFRESH

        async with heir(server, list(handed_by(old)), meanwhile=meanwhile) as (new, _):
            assert await said_of(new, ticket) == "alice"


@in_virtual_time
async def test_p2_an_heir_hears_of_what_ended_while_it_began():
    """Before, during and after the hand-over."""
    server = new_server()
    async with gateway(server) as (old, _), gateway(server) as (other, _):
        tickets = await logged_in(old, "before", "during", "after", "stays")
        await other.logout(tickets[0])
        await pass_ms(2000)
        parts = handed_by(old)
        known = next(parts)
        await other.logout(tickets[1])
        await pass_ms(1000)  # the one before has heard of it
        parts = [known, *parts]

        async def meanwhile(_):
            await other.logout(tickets[2])

        async with heir(server, parts, meanwhile=meanwhile) as (new, _):
            said = [await said_of(new, ticket) for ticket in tickets]
            assert said[1:] == ["revoked", "revoked", "stays"]
            assert said[0] in ("revoked", "unknown_session")


@in_virtual_time
async def test_p2_what_the_log_has_lost_meanwhile_is_looked_up_again():
    server = new_server()
    async with gateway(server) as (old, _):
        (ticket,) = await logged_in(old, "alice")
        parts = list(handed_by(old))
        for log in server.logs:
            log.lose(entries=1)
        async with heir(server, parts) as (new, store):
            assert await said_of(new, ticket) == "alice"
            assert loads(store) >= 1


@in_virtual_time
async def test_p1_an_heir_verifies_what_it_is_handed():
    """Under its own ring: with a key that was removed, nothing is left of its sessions."""
    server = new_server()
    async with gateway(server, keys=(OLD_KEY,)) as (old, _):
        (of_old,) = await logged_in(old, "alice")
        old.replace_keys([OLD_KEY, NEW_KEY])
        (of_new,) = await logged_in(old, "bob")
        async with heir(server, list(handed_by(old)), keys=(NEW_KEY,)) as (new, store):
            assert (await said_of(new, of_old), await said_of(new, of_new)) == ("unknown_key", "bob")
            assert (len(new._near), loads(store)) == (1, 0)


@in_virtual_time
async def test_p4_p5_uses_before_and_after_a_hand_over_count():
    """The process before writes what it saw; the heir what it sees."""
    server = new_server()
    async with gateway(server) as (old, _):
        (ticket,) = await logged_in(old, "alice")
        await pass_ms_in_use(old, ticket, IDLE_MS // 2)
        async with heir(server, list(handed_by(old))) as (new, _):
            await old.aclose()
            assert set(await pass_ms_in_use(new, ticket, 2 * IDLE_MS, step_ms=IDLE_MS // 2)) == {"alice"}
            session_id = session_id_of(new, ticket)
    assert server.live[session_id].idle_deadline_ms > virtual_ms() + server.shift_ms + IDLE_MS // 2


@in_virtual_time
async def test_an_heir_of_another_store_is_none():
    async with gateway(new_server(4)) as (old, _):
        parts = list(handed_by(old))
    with pytest.raises(ValueError, match="4 shards"):
        hand_to(TicketCache(ModelStore(new_server(8)), Keyring([OLD_KEY]), **SETTINGS), parts)


@in_virtual_time
async def test_a_smaller_heir_takes_what_it_has_room_for():
    server = new_server()
    async with gateway(server) as (old, _):
        tickets = await logged_in(old, *(f"user{n}" for n in range(50)))
        async with heir(server, list(handed_by(old)), capacity=10) as (new, _):
            assert {await said_of(new, ticket) for ticket in tickets} == {f"user{n}" for n in range(50)}
