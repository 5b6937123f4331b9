"""A server that has just taken over lacks what was acknowledged last: whoever is asked says 503
until all was made again, not 401.
"""

from __future__ import annotations

import asyncio

import pytest
from lab.redis_servers import Server
from lab.store_contract import new_session, new_session_id

import fastticket
from fastticket import Keyring, TicketCache
from fastticket.errors import IssuedTooEarly, StoreUnavailable, TicketRefused
from fastticket.sessions.attributes import Changes

KEYS = [(1, b"k" * 32)]


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


def url_of(server):
    """A server on a busy machine may be silent for longer than the default timeout."""
    return f"redis://{server.address}/0?timeout_ms=10000"


def gateway(server, **settings):
    return TicketCache(fastticket.open_store(url_of(server)), Keyring(KEYS), **settings)


ASKED = {
    "read": lambda cache, session, _: cache._attributes.read(session),
    "write": lambda cache, session, _: cache._attributes.write(session, Changes({"a": b"1"}, ()), None),
    "rotate": lambda cache, _, ticket: cache.rotate(ticket),
}


@pytest.mark.parametrize("asked", ASKED)
async def test_p8_a_session_that_is_made_again_is_not_refused_meanwhile(server, asked):
    """Whatever it is that finds the new server."""
    async with gateway(server) as cache, asyncio.timeout(60):
        server.admin("SAVE")
        ticket = await cache.login("alice")
        session = await cache.authenticate(ticket)
        await asyncio.to_thread(server.restart)
        while True:
            try:
                await ASKED[asked](cache, session, ticket)
                break
            except StoreUnavailable:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("asked", ASKED)
async def test_p8_what_nobody_makes_again_is_refused_after_a_lease_and_not_before(server, asked):
    """The gateway that had it made is gone; another one, that has the session in its near cache, is
    asked.
    """
    async with gateway(server) as cache, asyncio.timeout(60):
        server.admin("SAVE")
        async with gateway(server) as first:
            ticket = await first.login("alice")
        session = await cache.authenticate(ticket)
        began_s = asyncio.get_running_loop().time()
        await asyncio.to_thread(server.restart)
        while True:
            try:
                await ASKED[asked](cache, session, ticket)
                pytest.fail("it is there")
            except StoreUnavailable:
                await asyncio.sleep(0.01)
            except TicketRefused:
                break
        assert 2 <= asyncio.get_running_loop().time() - began_s < 20


async def test_p8_who_logs_in_right_after_logging_out_everywhere_stays_in(server):
    """A change of password; then another server takes over that has lost nothing."""
    async with gateway(server) as cache, gateway(server) as other, asyncio.timeout(60):
        tickets = []
        for number in range(30):
            await cache.login(f"user{number}")
            await cache.logout_everywhere(f"user{number}")
            tickets.append(await cache.login(f"user{number}"))
            await other.authenticate(tickets[-1])
        server.admin("SAVE")
        await asyncio.to_thread(server.restart)
        made_again = 0
        while made_again < 2:  # by both
            made_again = 0
            for each in (cache, other):
                try:
                    await each.authenticate(tickets[0])
                    made_again += not each._store._takeover.behind
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
        for each in (cache, other):
            for ticket in tickets:
                assert (await each.authenticate(ticket, consistency="strong")).principal


async def test_p6_a_login_that_comes_twice_does_not_live_again_after_a_logout_everywhere(server):
    """A connection was lost, it was sent again; the first one comes after all."""
    store = fastticket.open_store(url_of(server))
    await store.open()
    try:
        session = await new_session(store)
        await store.create(session)
        await store.revoke_all(session.principal)
        await store.create(session)
        with pytest.raises(IssuedTooEarly):
            await store.create(session._replace(id=new_session_id()))
        assert await store.sessions(session.principal) == []
    finally:
        await store.aclose()
