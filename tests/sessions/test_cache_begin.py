"""A cache that begins without its store (P12): nobody is refused who is only not known yet, and all
is well when the store comes.
"""

from __future__ import annotations

import asyncio
import os

import pytest
from lab.model_store import ModelStore, in_virtual_time, pass_ms, settle
from lab.virtual_gateways import OLD_KEY, SETTINGS, gateway, new_server

from fastticket import Keyring, TicketCache
from fastticket.errors import ConfigError, StoreUnavailable, TicketRefused, Verdict
from fastticket.stores.sqlite import SQLiteStore

COME_MS = 1000  # a store that is there again is found within


def make(server):
    store = ModelStore(server)
    return TicketCache(store, Keyring([OLD_KEY]), **SETTINGS), store


@in_virtual_time
async def test_p12_a_store_that_is_away_is_an_outage_from_the_start(caplog):
    server = new_server()
    async with gateway(server) as (other, _):
        ticket = await other.login("alice")
        cache, store = make(server)
        store.wire.is_down = True
        await cache.begin(5.0)
        assert cache.stats["shards_away"] == server.shards
        for ask in (
            lambda: cache.authenticate(ticket),
            lambda: cache.authenticate(ticket, consistency="strong"),
            lambda: cache.login("bob"),
            lambda: cache.logout(ticket),
            lambda: cache.logout_everywhere("alice"),
            lambda: cache.rotate(ticket),
            lambda: cache.sessions("alice"),
            lambda: cache.revoke("x", "alice"),
        ):
            with pytest.raises(StoreUnavailable):
                await ask()
        assert cache.check(ticket) is Verdict.MISS
        store.wire.is_down = False
        await pass_ms(COME_MS)
        assert (await cache.authenticate(ticket)).principal == "alice"
        await other.logout(ticket)
        await settle()
        with pytest.raises(TicketRefused):
            await cache.authenticate(ticket)
        await cache.aclose()
    said = [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "WARNING")]
    assert [("away from the start" in line, "answers again" in line) for line in said] == [(True, False), (False, True)]


@pytest.mark.parametrize("silent_at", ["open", "join", "time_ms", "exchange"])
@in_virtual_time
async def test_p12_a_store_that_is_silent_is_waited_for_so_long_and_no_longer(silent_at):
    """Whatever it does not answer first."""
    server = new_server()
    cache, store = make(server)
    gate = store.hold_requests(lambda call: call.name == silent_at)
    beginning = asyncio.create_task(cache.begin(0.5))
    await pass_ms(490)
    assert not beginning.done()
    await pass_ms(20)
    assert beginning.done()
    with pytest.raises(StoreUnavailable):
        await cache.login("alice")
    gate.open()
    await pass_ms(COME_MS)
    await cache.authenticate(await cache.login("alice"))
    await cache.aclose()


@in_virtual_time
async def test_p12_nothing_is_asked_of_a_store_that_was_not_checked_yet():
    """It answers, but whether it is the right one is still open."""
    server = new_server()
    cache, store = make(server)
    gate = store.hold_requests(lambda call: call.name == "join")
    await cache.begin(0.1)
    with pytest.raises(StoreUnavailable):
        await cache.login("alice")
    assert server.live == {}
    gate.open()
    await pass_ms(COME_MS)
    await cache.login("alice")
    await cache.aclose()


@in_virtual_time
async def test_p12_a_wrong_store_ends_the_first_start_and_is_an_outage_for_who_knows_better(monkeypatch):
    server = new_server()
    is_wrong = True

    real = server.join

    def join(fleet):
        if is_wrong:
            raise ConfigError("made for others")
        return real(fleet)

    monkeypatch.setattr(server, "join", join)
    cache, store = make(server)
    with pytest.raises(ConfigError):
        await cache.begin(5.0)
    assert store.is_closed
    cache, _ = make(server)
    await cache.begin(5.0, is_known_good=True)
    with pytest.raises(StoreUnavailable, match="made for others"):
        await cache.login("alice")
    is_wrong = False
    await pass_ms(COME_MS)
    await cache.login("alice")
    await cache.aclose()


@in_virtual_time
@pytest.mark.parametrize("is_silent", [False, True])
async def test_p12_a_cache_that_waits_for_its_store_can_be_closed(is_silent):
    server = new_server()
    cache, store = make(server)
    store.wire.is_down = not is_silent
    if is_silent:
        store.hold_requests(lambda call: call.name == "open")
    await cache.begin(0.1)
    async with asyncio.timeout(5):
        await cache.aclose()
    assert store.is_closed


@in_virtual_time
async def test_p12_who_gives_up_leaves_nothing_behind():
    server = new_server()
    cache, store = make(server)
    store.hold_requests(lambda call: call.name == "open")
    beginning = asyncio.create_task(cache.begin(60.0))
    await settle()
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    assert store.is_closed
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("at", ["exchange", "note_loss"])
@pytest.mark.parametrize("ends", ["fails", "given up"])
async def test_an_opening_that_ends_after_the_store_was_opened_closes_it(tmp_path, monkeypatch, at, ends):
    """It would have been nobody's, and the next attempt would have opened another beside it."""
    path = tmp_path / "sessions.db"
    store, came = SQLiteStore(path), asyncio.Event()
    cache = TicketCache(store, Keyring([OLD_KEY]), restore_from_cache=True)

    async def breaks_off(*_):
        came.set()
        if ends == "fails":
            raise StoreUnavailable("it has gone")
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(cache._shards if at == "exchange" else store, at, breaks_off)
        opening = asyncio.create_task(cache.open())
        await came.wait()
        if ends == "given up":
            opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled() or isinstance(opening.exception(), StoreUnavailable)
    assert not is_open(path)
    assert cache._keeper._beater.cancelled()
    async with cache:
        assert is_open(path)
    assert not is_open(path)


def is_open(path):
    """Whether this process has the file open."""
    return any(os.path.realpath(f"/proc/self/fd/{number}") == str(path) for number in os.listdir("/proc/self/fd"))
