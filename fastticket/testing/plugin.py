"""Fixtures for pytest, which finds them by itself where fastticket is installed.

ticket_cache         a cache for asyncio, for the application under test; it is not open
thread_ticket_cache  the same for threads: Flask, Django, WSGI
ticket_store         the store of both, in memory: `ticket_store.is_away = True`
ticket_clock         the time of all of them: `ticket_clock.advance(3600)`
ticket_keys          their key ring
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import fastticket
import fastticket.sync
from fastticket.testing import Clock, MemoryStore


@pytest.fixture
def ticket_clock() -> Clock:
    """The time, which stands still until the test moves it."""
    return Clock()


@pytest.fixture
def ticket_store(ticket_clock: Clock) -> MemoryStore:
    """What the caches' sessions are in; nothing yet."""
    return MemoryStore(ticket_clock)


@pytest.fixture
def ticket_keys() -> fastticket.Keyring:
    """A key ring of one random key."""
    return fastticket.Keyring.generate()


@pytest.fixture
def ticket_cache(
    ticket_store: MemoryStore, ticket_keys: fastticket.Keyring, ticket_clock: Clock
) -> fastticket.TicketCache:
    """A cache for asyncio. The middleware opens and closes it; a test without one uses `async
    with`.
    """
    return fastticket.TicketCache(ticket_store.another(), ticket_keys, clock=ticket_clock)


@pytest.fixture
def thread_ticket_cache(
    ticket_store: MemoryStore, ticket_keys: fastticket.Keyring, ticket_clock: Clock
) -> Iterator[fastticket.sync.TicketCache]:
    """A cache for threads. It opens itself, and is closed after the test, whose store is back by
    then.
    """
    cache = fastticket.sync.TicketCache(ticket_store.another(), ticket_keys, clock=ticket_clock)
    yield cache
    ticket_store.is_away = False
    cache.close()
