"""What the store costs the process that asks it, a session: fastticket's exchanges beside redis-py
as one would use it.

    python -m pytest bench/bench_stores.py

A real Redis 8 on this machine (redis-py's client-side caching wants 7.4 or newer), on the core of
the process that asks it, so that nobody is woken from sleep; wall time, so the server's part is in
it. "held" is what fastticket does for nearly every request, and redis-py's client-side caching
(blocking; it has none for asyncio) for a read: neither asks Redis.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import passes
import pytest
import redis.asyncio
import uvloop
from children import GATEWAY_CORE
from pytest_benchmark.fixture import BenchmarkFixture
from redis.cache import CacheConfig
from sessions import start_redis

import fastticket
from fastticket.core.ticket import encode_session_id
from fastticket.core.touches import Touches
from fastticket.stores.contract import Request, Store, StoredSession, shard_of

AT_ONCE = 400
SESSIONS = 2_000

Call = Callable[[], Awaitable[object]]


def session_id(number: int) -> str:
    """22 characters."""
    return encode_session_id(number.to_bytes(16, "big"))


class Scene:
    """A Redis and a SQLite file with the same sessions, on one loop."""

    def __init__(self, folder: Path) -> None:
        self.loop = uvloop.new_event_loop()
        self._server, port = start_redis(folder, GATEWAY_CORE, "redis8")
        keys = fastticket.Keyring.generate()
        self._cache = fastticket.TicketCache(
            fastticket.open_store(f"redis://127.0.0.1:{port}/0"), keys, lease_ms=60_000
        )
        self.redis = fastticket.open_store(f"redis://127.0.0.1:{port}/0")
        self.sqlite = fastticket.open_store(f"sqlite:///{folder / 'sessions.db'}")
        self.client = redis.asyncio.Redis(port=port, protocol=2)
        self.blocking = redis.Redis(port=port)
        self.caching = redis.Redis(port=port, protocol=3, cache_config=CacheConfig(max_size=SESSIONS))
        now_ms = time.time_ns() // 1_000_000
        self.sessions = [
            StoredSession(session_id(number), f"user-{number:05}", now_ms + 7_200_000, now_ms, 7200, 86400)
            for number in range(SESSIONS)
        ]
        self._next_id = SESSIONS
        self._deadline_ms = now_ms + 7_200_000
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        await self._cache.open()
        self.ticket = await self._cache.login("alice")
        await self._cache.authenticate(self.ticket)
        assert self._cache.check(self.ticket)
        for store in (self.redis, self.sqlite):
            await store.open()
            for session in self.sessions:
                await store.create(session)
        for session in self.sessions:
            await self.client.set(f"session:{session.id}", session.principal, ex=7200)

    def by_shard(self, store: Store, count: int) -> dict[int, list[StoredSession]]:
        found: dict[int, list[StoredSession]] = {}
        for session in self.sessions[:count]:
            found.setdefault(shard_of(session.principal, store.shards), []).append(session)
        return found

    def check(self) -> None:
        assert self._cache.check(self.ticket)

    def touch(self, store: Store) -> Call:
        """Touch AT_ONCE sessions in one exchange; every deadline moves."""
        grouped = self.by_shard(store, AT_ONCE)

        async def call() -> None:
            self._deadline_ms += 1
            requests = {
                shard: Request(None, Touches.of(shard, [(s.id, s.principal, self._deadline_ms) for s in sessions]))
                for shard, sessions in grouped.items()
            }
            replies = await store.exchange(requests)
            assert not any(isinstance(reply, Exception) for reply in replies.values())

        return call

    def load(self, store: Store, count: int) -> Call:
        requests = {
            shard: Request(None, wanted=[(s.id, s.principal) for s in sessions])
            for shard, sessions in self.by_shard(store, count).items()
        }

        async def call() -> None:
            for reply in (await store.exchange(requests)).values():
                assert all(reply.deadlines_ms)

        return call

    def create(self, store: Store) -> Call:
        async def call() -> None:
            self._next_id += 1
            await store.create(self.sessions[0]._replace(id=session_id(self._next_id)))

        return call

    async def get(self) -> None:
        assert await self.client.get(f"session:{self.sessions[0].id}")

    async def get_and_expire(self) -> None:
        await self.get()
        await self.client.expire(f"session:{self.sessions[0].id}", 7200)

    async def get_and_expire_in_a_pipeline(self) -> None:
        pipeline = self.client.pipeline(transaction=False)
        for session in self.sessions[:AT_ONCE]:
            pipeline.get(f"session:{session.id}").expire(f"session:{session.id}", 7200)
        await pipeline.execute()

    def get_cached(self) -> None:
        assert self.caching.get(f"session:{self.sessions[0].id}")

    def get_blocking(self) -> None:
        assert self.blocking.get(f"session:{self.sessions[0].id}")

    async def _close(self) -> None:
        await self._cache.aclose()
        await self.redis.aclose()
        await self.sqlite.aclose()
        await self.client.aclose()
        await asyncio.sleep(0)

    def close(self) -> None:
        self.loop.run_until_complete(self._close())
        self.loop.close()
        self.caching.close()
        self.blocking.close()
        self._server.stop()


# Row -> its call, whether it is awaited, and how many sessions it serves.
ROWS: dict[str, tuple[Callable[[Scene], Callable[[], Any]], bool, int]] = {
    "check, session held": (lambda scene: scene.check, False, 1),
    "redis-py GET, client-side caching": (lambda scene: scene.get_cached, False, 1),
    "redis-py GET, blocking": (lambda scene: scene.get_blocking, False, 1),
    "redis-py GET": (lambda scene: scene.get, True, 1),
    "redis-py GET, then EXPIRE": (lambda scene: scene.get_and_expire, True, 1),
    "redis-py GET and EXPIRE, 400 pipelined": (lambda scene: scene.get_and_expire_in_a_pipeline, True, AT_ONCE),
    "Redis, touch, 400 in an exchange": (lambda scene: scene.touch(scene.redis), True, AT_ONCE),
    "Redis, load, 400 in an exchange": (lambda scene: scene.load(scene.redis, AT_ONCE), True, AT_ONCE),
    "Redis, load, one": (lambda scene: scene.load(scene.redis, 1), True, 1),
    "Redis, create": (lambda scene: scene.create(scene.redis), True, 1),
    "SQLite, touch, 400 in an exchange": (lambda scene: scene.touch(scene.sqlite), True, AT_ONCE),
    "SQLite, load, 400 in an exchange": (lambda scene: scene.load(scene.sqlite, AT_ONCE), True, AT_ONCE),
    "SQLite, load, one": (lambda scene: scene.load(scene.sqlite, 1), True, 1),
    "SQLite, create": (lambda scene: scene.create(scene.sqlite), True, 1),
}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Made once."""
    with tempfile.TemporaryDirectory() as folder:
        made = Scene(Path(folder))
        yield made
        made.close()


@functools.cache
def _run(scene: Scene, row: str) -> passes.Run:
    make, is_awaited, _ = ROWS[row]
    call = make(scene)
    if not is_awaited:
        return lambda calls: [call() for _ in range(calls)]

    async def many(calls: int) -> None:
        for _ in range(calls):
            await call()

    return lambda calls: scene.loop.run_until_complete(many(calls))


@passes.over(ROWS)
def test_call(benchmark: BenchmarkFixture, scene: Scene, number: int, row: str) -> None:
    """One pass over one row."""
    benchmark.extra_info["reference"] = "redis-py GET, then EXPIRE"
    passes.time_calls(benchmark, "stores", row, _run(scene, row), ROWS[row][2])
