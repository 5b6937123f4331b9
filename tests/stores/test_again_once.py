"""Making again, when there is a lot of it, when many ask at the same time, and when somebody wants
it to hurt.
"""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from lab.redis_servers import Server
from lab.store_contract import new_session_id

import fastticket
from fastticket.stores.contract import Request, StoreUnavailable
from fastticket.stores.redis.again import HEARD_MAX, Ledger

ENDS = 2000  # a shard
RECORD = (1).to_bytes(6, "big") + bytes(8)


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


def evalshas(server) -> int:
    return server.admin("INFO", "commandstats").get("cmdstat_evalsha", {}).get("calls", 0)


async def test_many_who_find_out_together_that_data_is_lost_make_the_ledger_again_once(server):
    """Each load and each piece of a flush is an exchange of its own, and all of them ask from a
    place that is lost.
    """
    store = fastticket.open_store(f"redis://{server.address}/0?shards=8&timeout_ms=10000")
    await store.open()
    try:
        positions = {
            shard: r.position for shard, r in (await store.exchange(dict.fromkeys(range(8), Request(None)))).items()
        }
        for shard in range(8):
            for number in range(ENDS):
                store._takeover.ledger.ended(shard, f"{number:022}", f"user{number}")
        await asyncio.to_thread(server.admin, "FLUSHALL")
        before = evalshas(server)

        async def ask(turn: int, shard: int):
            await asyncio.sleep(0.002 * turn)
            return (await store.exchange({shard: Request(positions[shard])}))[shard]

        async with asyncio.timeout(30):
            replies = await asyncio.gather(*(ask(turn, shard) for turn in range(50) for shard in range(8)))
        assert not [reply for reply in replies if isinstance(reply, StoreUnavailable)]
        assert any(reply.replaced for reply in replies)
        assert not store._takeover.behind
        pieces = 8 * -(-ENDS // 500)
        assert evalshas(server) - before < 3 * len(replies) + 2 * pieces
    finally:
        await store.aclose()


def test_the_end_of_a_session_that_was_rotated_very_often_is_heard():
    ledger = Ledger(1, time.monotonic)
    ids = [new_session_id() for _ in range(3000)]
    for before, after in itertools.pairwise(ids):
        ledger.rotated(0, before, "mallory", after, 1, RECORD)
    ledger.ended(0, ids[-1], "mallory")
    assert {word[0] for piece in ledger.words(0) for word in piece} == {"end"}


def test_what_a_logout_everywhere_costs_does_not_grow_with_what_others_did():
    """Everybody is logged out, one after the other, by an administrator: every gateway hears all of
    it.
    """
    logouts = 20_000

    def entry(number: int):
        member = b"-" * 22 + b".user%d" % number
        return b"%d-0" % (1_760_000_000_000 + number), [b"everywhere", member, b"before", b"1", b"keep", b""]

    ledger = Ledger(1, time.monotonic)
    for number in range(HEARD_MAX):
        ledger.ended(0, f"{number:022}", f"other{number}")
    began_s = time.process_time()
    ledger.hear(0, [entry(number) for number in range(logouts)])
    assert (time.process_time() - began_s) / logouts < 100e-6


def test_nothing_stays_of_what_was_rotated_and_logged_out_everywhere():
    now_s = 0.0
    ledger = Ledger(1, lambda: now_s)
    for number in range(100):
        ledger.rotated(0, f"a{number:021}", f"user{number}", f"b{number:021}", 1, RECORD)
        ledger.created(0, f"c{number:021}", f"user{number}", 1, RECORD)
        ledger.ended_everywhere(0, f"user{number}", 10, "")
    assert {word[0] for piece in ledger.words(0) for word in piece} == {"everywhere"}
    now_s = 1000.0
    assert list(ledger.words(0)) == []
    assert not ledger._shards[0]._origins
    assert not ledger._shards[0]._beginnings
