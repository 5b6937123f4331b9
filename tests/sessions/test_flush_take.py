"""What a flush takes while other sessions are used."""

import asyncio
from types import SimpleNamespace

from fastticket.core.nearcache import NearCache
from fastticket.core.ticket import Keyring
from fastticket.sessions.flush import TOUCHES_PER_SLICE, Flusher

NOW_MS = 1_700_000_000_000


class Shards(SimpleNamespace):
    def __iter__(self):
        return iter(())


async def test_p5_a_flush_takes_every_use_from_before_it():
    """Sessions that are first used while it takes must not take the place of those that were there:
    these would wait for the next flush, twice the interval.
    """
    keys = Keyring.generate()
    near = NearCache(20_000)
    tickets = [keys.verify(keys.mint(f"user{number}", NOW_MS, idle_timeout_s=3600), NOW_MS) for number in range(8_000)]
    before, later = tickets[:4_000], tickets[4_000:]
    for each in before:
        near.insert(each.raw, 0, NOW_MS, NOW_MS)
    flusher = Flusher(Shards(near=near, store=SimpleNamespace(touches_per_exchange=400)))
    taken = {}
    taking = asyncio.create_task(flusher._take(taken))
    while not taking.done():
        for _ in range(TOUCHES_PER_SLICE // 2):
            if later:
                near.insert(later.pop().raw, 0, NOW_MS, NOW_MS)
        await asyncio.sleep(0)
    names = {principal for pieces in taken.values() for each in pieces for _, principal, _ in each}
    assert {each.principal for each in before} - names == set()
