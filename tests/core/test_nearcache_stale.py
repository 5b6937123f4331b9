"""The search for stale entries after a gap, in a large near cache of which few are stale."""

from __future__ import annotations

import time

from fastticket import Keyring
from fastticket.core.nearcache import NearCache

NOW_MS = 1_760_000_000_000
HELD = 200_000
SHARDS = 512


def test_no_step_of_the_search_looks_at_the_whole_table():
    near = NearCache(HELD, SHARDS)
    keys = Keyring([(1, b"k" * 32)])
    ids = [[] for _ in range(SHARDS)]
    for number in range(HELD):
        ticket = keys.verify(keys.mint("alice", NOW_MS, 7200, 86400), NOW_MS)
        near.insert(ticket.raw, number % SHARDS, NOW_MS + 7_200_000, NOW_MS, False)
        ids[number % SHARDS].append(ticket.raw[2:18])
    near.bump_epoch(3)
    began_s = time.process_time()
    found, cursor = near.stale(0, HELD)
    assert cursor is not None
    assert time.process_time() - began_s < 0.01
    while cursor is not None:
        more, cursor = near.stale(cursor, HELD)
        found += more
    assert sorted(session_id for _, session_id, _ in found) == sorted(ids[3])
