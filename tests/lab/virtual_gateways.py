"""Ticket caches over the model store, each as in a gateway of its own, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastticket import Keyring, Session, TicketCache
from fastticket.errors import StoreUnavailable, TicketRefused
from lab.model_store import ModelServer, ModelStore, pass_ms, virtual_ms

IDLE_MS = 60_000
ABSOLUTE_MS = 600_000
FLUSH_MS = 500
LEASE_MS = 2000
GRACE_MS = 30_000
CLOCK_MS = 10_000  # how often a cache reads the store's clock
HOUR_MS = 3_600_000
SETTINGS = {
    "idle_timeout_s": IDLE_MS // 1000,
    "absolute_lifetime_s": ABSOLUTE_MS // 1000,
    "flush_interval_ms": FLUSH_MS,
    "lease_ms": LEASE_MS,
    "outage_grace_s": GRACE_MS // 1000,
    "capacity": 200_000,  # refusals are remembered in a sixteenth as many places: few collide
    "clock": virtual_ms,
}
OLD_KEY, NEW_KEY = (1, b"o" * 32), (2, b"n" * 32)


@contextlib.asynccontextmanager
async def gateway(server: ModelServer, keys=(OLD_KEY,), **settings) -> AsyncIterator[tuple[TicketCache, ModelStore]]:
    """A cache with a store handle of its own, as in a process of its own."""
    store = ModelStore(server)
    cache = TicketCache(store, Keyring(keys), **SETTINGS | settings)
    try:
        await cache.open()
        yield cache, store
    finally:
        store.wire.open_gates()
        await cache.aclose()


def new_server(shards: int = 4) -> ModelServer:
    server = ModelServer(virtual_ms, shards)
    server.began_at_ms = virtual_ms()
    return server


async def said_of(cache: TicketCache, ticket: str, *, touch: bool = False) -> str:
    """Whose ticket it is, or why it is not admitted."""
    try:
        return (await cache.authenticate(ticket, touch=touch)).principal
    except (TicketRefused, StoreUnavailable) as error:
        return error.reason


async def said_of_each(cache: TicketCache, tickets: list[str]) -> list[str]:
    """The verdicts of tickets that are asked for in one turn of the loop."""
    return await asyncio.gather(*(said_of(cache, ticket) for ticket in tickets))


def session_id_of(cache: TicketCache, ticket: str) -> str:
    session = cache.check(ticket, touch=False)
    assert isinstance(session, Session)
    return session.id


def stored_deadline_ms(server: ModelServer, principal: str) -> int:
    [session] = [session for session in server.live.values() if session.principal == principal]
    return session.idle_deadline_ms


def used_now_ms(server: ModelServer) -> int:
    """The idle deadline of a session that is used now."""
    return server.time_ms() + IDLE_MS + FLUSH_MS


async def pass_ms_in_use(cache: TicketCache, ticket: str, ms: int, step_ms: int = 100) -> list[str]:
    """Let time pass with a request every step. What was said."""
    said = []
    for _ in range(ms // step_ms):
        await pass_ms(step_ms)
        said.append(await said_of(cache, ticket, touch=True))
    return said
