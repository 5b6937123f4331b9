"""The near cache beside caches that one would take from PyPI: a get, a put that evicts, and bytes
an entry.

    python -m pytest bench/bench_cache.py

Each holds 10,000 sessions, full. What one would keep for a session in a cache of objects: session
id -> (principal, idle deadline, absolute deadline). The near cache keeps the ticket, marks the use
on a get, and compares the whole ticket; the others do neither.
"""

from __future__ import annotations

import functools
import itertools
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import cachetools
import passes
import theine
from pytest_benchmark.fixture import BenchmarkFixture

from fastticket import Keyring
from fastticket.core.nearcache import NearCache

SESSIONS = 10_000
SPARE = 50_000  # to be put in a full cache, in turn
NOW_MS = time.time_ns() // 1_000_000
DEADLINE_MS = NOW_MS + 7_200_000

Put = Callable[[int], object]
Get = Callable[[int], object]


@functools.cache
def _raws() -> list[bytes]:
    """Verified tickets of users with names of 10 characters."""
    keys = Keyring.generate()
    texts = (keys.mint(f"user{number:06}", NOW_MS, 7200, 86_400) for number in range(SESSIONS + SPARE))
    return [keys.verify(text, NOW_MS).raw for text in texts]


@functools.cache
def _ids() -> list[str]:
    return [raw[2:18].hex() for raw in _raws()]


def _near_cache() -> tuple[Put, Get]:
    near, raws = NearCache(SESSIONS), _raws()
    near.renew_lease(0, NOW_MS + 3_600_000)
    return (
        lambda number: near.insert(raws[number], 0, DEADLINE_MS, NOW_MS, False),
        lambda number: near.lookup(raws[number], NOW_MS),
    )


def _mapping(made: Any) -> tuple[Put, Get]:
    ids = _ids()

    def put(number: int) -> None:
        made[ids[number]] = (f"user{number:06}", DEADLINE_MS, DEADLINE_MS)

    return put, lambda number: made[ids[number]]


def _theine() -> tuple[Put, Get]:
    made, ids = theine.Cache(SESSIONS), _ids()

    def put(number: int) -> None:
        made.set(ids[number], (f"user{number:06}", DEADLINE_MS, DEADLINE_MS))

    return put, lambda number: made.get(ids[number])


CACHES: dict[str, Callable[[], tuple[Put, Get]]] = {
    "near cache": _near_cache,
    "cachetools LRUCache": lambda: _mapping(cachetools.LRUCache(SESSIONS)),
    "cachetools TTLCache": lambda: _mapping(cachetools.TTLCache(SESSIONS, 7200)),
    "theine": _theine,
    "dict, unbounded": lambda: _mapping({}),
}


@functools.cache
def _full(name: str) -> tuple[Put, Get]:
    put, get = CACHES[name]()
    for number in range(SESSIONS):
        put(number)
    return put, get


@passes.over(CACHES)
def test_get(benchmark: BenchmarkFixture, number: int, row: str) -> None:
    """Get an entry that is there, each in turn."""
    put, get = _full(row)
    for key in range(SESSIONS):  # all there again, after puts
        put(key)
    keys = itertools.cycle(range(SESSIONS // 2, SESSIONS))
    assert get(SESSIONS - 1)
    benchmark.extra_info["reference"] = "get: near cache"
    passes.time_calls(benchmark, "cache", f"get: {row}", lambda calls: [get(next(keys)) for _ in range(calls)])


@passes.over(name for name in CACHES if name != "dict, unbounded")
def test_put(benchmark: BenchmarkFixture, number: int, row: str) -> None:
    """Put a new entry into a full cache."""
    put, _ = _full(row)
    keys = itertools.cycle(range(SESSIONS, SESSIONS + SPARE))
    benchmark.extra_info["reference"] = "put: near cache"
    passes.time_calls(benchmark, "cache", f"put: {row}", lambda calls: [put(next(keys)) for _ in range(calls)])


def test_bytes_an_entry(record_figure: Any) -> None:
    """Key and entry; of the near cache, its one allocation."""
    near = NearCache(SESSIONS)
    record_figure("cache/bytes: near cache", near.memory_bytes / SESSIONS, "bytes a session")
    for name, make in CACHES.items():
        if name == "near cache":
            continue
        _ids()
        tracemalloc.start()
        put, _ = make()
        for number in range(SESSIONS):
            put(number)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        key_bytes = sys.getsizeof(_ids()[0])  # it was there before, and would be the cache's own
        record_figure(f"cache/bytes: {name}", size / SESSIONS + key_bytes, "bytes a session")
