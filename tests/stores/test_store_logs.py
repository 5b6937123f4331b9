"""What goes wrong for long is not said again and again."""

from __future__ import annotations

import asyncio

import pytest
from lab.redis_servers import Server

import fastticket
from fastticket import Keyring, TicketCache

LINES_MAX = 12


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
async def cache(server):
    async with TicketCache(fastticket.open_store(f"redis://{server.address}/0"), Keyring([(1, b"k" * 32)])) as cache:
        await cache.authenticate(await cache.login("alice"))
        yield cache


async def test_a_doorbell_that_is_cut_off_at_once_each_time_is_told_of_once(server, cache, caplog):
    for _ in range(150):
        await asyncio.to_thread(server.admin, "CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(0.02)
    assert len(caplog.records) <= LINES_MAX


async def test_a_store_that_is_away_while_events_are_followed_is_told_of_when_it_begins(server, cache, caplog):
    async def follow():
        async for _ in cache.events():
            pass

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.5)
    server.kill()
    await asyncio.sleep(5)
    following.cancel()
    server.start()
    assert len(caplog.records) <= LINES_MAX
