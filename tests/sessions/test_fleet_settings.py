"""Gateways with different intervals that start at the same time; what is old is not made again."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from lab.redis_servers import Server

import fastticket
from fastticket.stores.contract import Fleet
from fastticket.stores.redis.again import AT_ONCE, HEARD_S, Ledger


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


async def test_of_gateways_that_join_at_the_same_time_the_longest_settings_are_written_down_and_heard_of(server):
    async with contextlib.AsyncExitStack() as stack:
        stores = [fastticket.open_store(f"redis://{server.address}/0?timeout_ms=10000") for _ in range(3)]
        for store in stores:
            await store.open()
            stack.push_async_callback(store.aclose)
        fleets = [Fleet(2000, 8000), Fleet(1000, 9000), Fleet(500, 2000)]
        for _ in range(20):
            server.admin("DEL", "ft:meta")
            told = await asyncio.gather(*map(lambda store, fleet: store.join(fleet), stores, fleets))
            assert told.count(None) == 1
            assert await stores[0].join(Fleet(0, 0)) == Fleet(2000, 9000)
            first = fleets[told.index(None)]
            assert all(before[0] >= first[0] and before[1] >= first[1] for before in told if before)


def test_p6_what_has_become_old_while_the_pieces_before_it_were_sent_is_not_made_again():
    now_s = 0.0
    ledger = Ledger(1, lambda: now_s)
    for number in range(AT_ONCE + 1):
        ledger.created(0, f"{number:022}", "alice", 1, bytes(14))
    pieces = ledger.words(0)
    assert len(next(pieces)) == AT_ONCE
    now_s = HEARD_S + 1  # the process was stopped
    assert not any(pieces)
