"""What a program does with a ticket cache that no cache can do: each has one error, of one reason,
whose message says what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import fastticket.sync
from fastticket import CacheClosed, CacheMisused, Keyring, StoreUnavailable, TicketCache, TicketRefused, open_store
from fastticket.errors import MISUSES, FastticketError, Verdict
from fastticket.keyfile import create_key_file
from fastticket.testing import MemoryStore

KEYS = Keyring([(1, b"k" * 32)])

#: Each way to need the store.
CALLS = {
    "login": lambda cache, ticket, session: cache.login("alice"),
    "authenticate": lambda cache, ticket, session: cache.authenticate(ticket),
    "strong": lambda cache, ticket, session: cache.authenticate(ticket, consistency="strong"),
    "rotate": lambda cache, ticket, session: cache.rotate(ticket),
    "logout": lambda cache, ticket, session: cache.logout(ticket),
    "logout_everywhere": lambda cache, ticket, session: cache.logout_everywhere("alice"),
    "revoke": lambda cache, ticket, session: cache.revoke(session.id, "alice"),
    "sessions": lambda cache, ticket, session: cache.sessions("alice"),
    "load": lambda cache, ticket, session: cache.attributes(session).load(),
    "save": lambda cache, ticket, session: changed(cache.attributes(session)).save(),
    "events": lambda cache, ticket, session: anext(cache.events()),
    "start": lambda cache, ticket, session: cache.events().start(),
    "flush": lambda cache, ticket, session: cache.flush(),
}
EACH_CALL = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def changed(attributes):
    attributes["a"] = 1
    return attributes


@pytest.fixture
async def elsewhere():
    """(ticket, session) of a session that other caches on the same store know nothing of."""
    async with TicketCache(store := MemoryStore(), KEYS) as cache:
        ticket = await cache.login("alice")
        yield store.another, ticket, await cache.authenticate(ticket)


def made(store, **settings):
    return TicketCache(store, KEYS, **settings)


# --- not open, closed, open already


@EACH_CALL
async def test_before_it_is_open_every_call_says_so(call, elsewhere):
    another, ticket, session = elsewhere
    with pytest.raises(CacheMisused, match="not open: use it within `async with cache:`") as caught:
        await call(made(another()), ticket, session)
    assert caught.value.reason == "cache_not_open"


@EACH_CALL
async def test_after_it_is_closed_every_call_is_a_503(call, elsewhere):
    """A server that stops may still have requests."""
    another, ticket, session = elsewhere
    async with made(another()) as cache:
        pass
    with pytest.raises(CacheClosed, match="closed: make a new one") as caught:
        await call(cache, ticket, session)
    assert (caught.value.reason, caught.value.status) == ("store_unavailable", 503)
    assert isinstance(caught.value, StoreUnavailable)


async def test_a_closed_one_admits_nobody_from_memory():
    """It does not hear any more of sessions that end."""
    cache = made(MemoryStore(), idle_timeout_s=60)
    await cache.open()
    ticket = await cache.login("alice")
    await cache.authenticate(ticket)
    assert cache.check(ticket)
    await cache.aclose()
    assert cache.check(ticket) is Verdict.REFRESH
    with pytest.raises(CacheClosed):
        await cache.authenticate(ticket)


async def test_while_it_closes_calls_are_refused_and_what_is_unwritten_is_written():
    store = MemoryStore()
    cache = made(store, idle_timeout_s=60)
    await cache.open()
    ticket = await cache.login("alice")
    await cache.authenticate(ticket)
    closing = asyncio.create_task(cache.aclose())
    await asyncio.sleep(0)
    with pytest.raises(CacheClosed):
        await cache.login("bob")
    await closing
    assert cache.stats["touches_unwritten"] == 0


@pytest.mark.parametrize("open_again", [lambda cache: cache.open(), lambda cache: cache.begin(1)])
async def test_a_closed_one_does_not_open_again(open_again):
    store = MemoryStore()
    for use in (lambda cache: cache.open(), lambda cache: asyncio.sleep(0)):  # and one that was never open
        cache = made(store.another())
        await use(cache)
        await cache.aclose()
        await cache.aclose()
        with pytest.raises(CacheMisused, match="a closed one stays so") as caught:
            await open_again(cache)
        assert caught.value.reason == "cache_closed"


async def test_one_that_is_open_does_not_open_again_and_goes_on():
    async with made(MemoryStore()) as cache:
        for _ in range(2):
            with pytest.raises(CacheMisused, match="open already") as caught:
                await cache.open()
            assert caught.value.reason == "cache_open_already"
        assert (await cache.authenticate(await cache.login("alice"))).principal == "alice"


async def test_one_whose_store_was_away_can_be_tried_again():
    store = MemoryStore()
    cache = made(store)
    store.is_away = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await cache.open()
    with pytest.raises(CacheMisused, match="not open"):
        await cache.login("alice")
    store.is_away = False
    async with cache:
        assert await cache.login("alice")


# --- another event loop


@EACH_CALL
def test_another_event_loop_says_so(call):
    store = MemoryStore()
    cache = made(store)

    async def begin():
        await cache.open()
        ticket = await cache.login("alice")
        return ticket, await cache.authenticate(ticket)

    async def go_on(ticket, session):
        cache._near.bump_epoch(0)  # what is held needs no loop
        with pytest.raises(CacheMisused, match="opened in another event loop") as caught:
            await call(cache, ticket, session)
        assert caught.value.reason == "cache_of_another_loop"
        with pytest.raises(CacheMisused, match="opened in another event loop"):
            await cache.aclose()

    with asyncio.Runner() as first:
        ticket, session = first.run(begin())
        asyncio.run(go_on(ticket, session))
        first.run(cache.aclose())


# --- two caches on one store object


async def test_a_second_cache_on_one_store_object_is_refused_and_the_first_goes_on(tmp_path):
    for store in (MemoryStore(), open_store("sqlite://:memory:"), open_store(f"sqlite:///{tmp_path}/sessions.db")):
        async with made(store) as first:
            second = made(store)
            for _ in range(2):
                with pytest.raises(CacheMisused, match="belongs to another ticket cache") as caught:
                    await second.open()
                assert caught.value.reason == "store_in_use"
            with pytest.raises(CacheMisused, match="belongs to another ticket cache"):
                await second.begin(1)
            await second.aclose()
            assert (await first.authenticate(await first.login("alice"))).principal == "alice"
            assert await first.sessions("alice")


async def test_a_second_cache_on_one_redis_store_is_refused(redis_server):
    store = open_store(f"redis://{redis_server.address}/0?timeout_ms=10000")
    async with made(store) as first:
        second = made(store)
        with pytest.raises(CacheMisused, match="belongs to another ticket cache"):
            await second.open()
        await second.aclose()
        assert (await first.authenticate(await first.login("alice"))).principal == "alice"
    async with made(store) as third:  # it is free again
        assert await third.sessions("alice")


async def test_the_store_of_a_closed_cache_serves_the_next_one():
    store = MemoryStore()
    async with made(store) as first:
        ticket = await first.login("alice")
    async with made(store) as second:
        assert (await second.authenticate(ticket)).principal == "alice"


def test_the_store_of_a_cache_whose_event_loop_has_ended_serves_the_next_one():
    """That cache was never closed, and never can be."""
    store = MemoryStore()

    async def use():
        async with made(store) as cache:
            assert await cache.login("alice")

    forgotten = made(store)
    asyncio.run(forgotten.open())
    asyncio.run(use())


def test_of_threads_that_open_caches_on_one_store_object_at_once_one_succeeds():
    store = MemoryStore()
    caches = [fastticket.sync.TicketCache(store, KEYS) for _ in range(8)]

    def try_to_open(cache):
        with contextlib.suppress(CacheMisused):
            cache.open()
            return cache

    with ThreadPoolExecutor(len(caches)) as threads:
        opened = [cache for cache in threads.map(try_to_open, caches) if cache]
    try:
        assert len(opened) == 1
        assert opened[0].login("alice")
    finally:
        for cache in caches:
            cache.close()


# --- threads


def test_of_threads_a_closed_one_stays_closed():
    cache = fastticket.sync.TicketCache(MemoryStore(), KEYS)
    cache.open()
    cache.open()  # as often as one likes
    cache.close()
    with pytest.raises(CacheClosed):
        cache.login("alice")
    with pytest.raises(CacheMisused, match="a closed one stays so"):
        cache.open()
    with pytest.raises(CacheMisused, match="a closed one stays so"), cache:
        pass


def test_of_threads_two_caches_on_one_store_object_are_refused():
    store = MemoryStore()
    with fastticket.sync.TicketCache(store, KEYS) as first:
        second = fastticket.sync.TicketCache(store, KEYS)
        with pytest.raises(CacheMisused, match="belongs to another ticket cache"):
            second.login("alice")
        second.close()
        assert first.login("alice")


def test_in_a_child_process_it_says_so(tmp_path):
    program = f"""
import os, fastticket
from fastticket.sync import TicketCache
cache = TicketCache("sqlite:///{tmp_path}/sessions.db", fastticket.Keyring.generate())
cache.login("alice")
if os.fork() == 0:
    try:
        cache.login("bob")
    except fastticket.CacheMisused as error:
        print(error.reason, flush=True)
    os._exit(0)
os.wait()
cache.close()
"""
    said = subprocess.check_output(
        [sys.executable, "-W", "ignore", "-c", program],
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert said == "cache_of_another_process\n"


# --- what is said


def test_each_misuse_says_what_to_do():
    for reason, message in MISUSES.items():
        error = CacheMisused(reason)
        assert isinstance(error, FastticketError)
        assert isinstance(error, RuntimeError)  # as such errors always were
        assert (error.reason, str(error), error.status) == (reason, message, 500)
        assert ": " in message or "; " in message


# --- what a cache is made of


async def test_a_url_and_a_key_file_are_enough(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    create_key_file(tmp_path / "keys.toml")
    async with TicketCache("sqlite:///sessions.db", "keys.toml") as cache:
        ticket = await cache.login("alice")
    assert (tmp_path / "sessions.db").exists()
    async with TicketCache(f"sqlite:////{tmp_path}/sessions.db", tmp_path / "keys.toml") as cache:
        assert (await cache.authenticate(ticket)).principal == "alice"
    with fastticket.sync.TicketCache("sqlite:///sessions.db", tmp_path / "keys.toml") as cache:
        assert cache.authenticate(ticket).principal == "alice"


async def test_redis_by_its_url(redis_server):
    url = f"redis://{redis_server.address}/0?timeout_ms=10000"  # it may be silent for long on a busy machine
    async with TicketCache(url, KEYS) as first, TicketCache(url, KEYS) as second:
        assert (await second.authenticate(await first.login("alice"))).principal == "alice"


@pytest.mark.parametrize("kind", [TicketCache, fastticket.sync.TicketCache])
def test_what_is_neither_is_named_at_once(kind, tmp_path):
    with pytest.raises(TypeError, match=r"store: the URL of a store .* not a Keyring"):
        kind(KEYS, open_store("sqlite://:memory:"))
    with pytest.raises(TypeError, match=r"keys: the path of a key file .* not a list"):
        kind("sqlite://:memory:", [(1, b"k" * 32)])
    with pytest.raises(fastticket.ConfigError, match="store url"):
        kind("sessions.db", KEYS)
    with pytest.raises(fastticket.ConfigError, match="keygen"):
        kind("sqlite://:memory:", tmp_path / "no-keys.toml")


async def test_a_refused_ticket_is_refused_whatever_the_cache_is():
    """Its text says enough."""
    with pytest.raises(TicketRefused):
        await made(MemoryStore()).authenticate("rubbish")
