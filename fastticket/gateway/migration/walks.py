"""Ends, at the old stores, what began there before all sessions of a user were ended here,
exchanged or not: the store's bars say whose and when, whoever left them (stores/contract.py).

Rules of this file
- What goes on here goes on there: one session may have been kept.
- While an old store is away, or its walk fails, the next one tries again. A process that starts
  begins with the bars of BARS_BACK_MS.
- An old store is gone through for a twentieth of the time at most, and beside the rounds of
  watch.py, which must not wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from fastticket.errors import StoreUnavailable
from fastticket.gateway.migration.continued import continues
from fastticket.gateway.migration.oldstores import OldStore
from fastticket.moving.derived import derive_session_id
from fastticket.moving.sources import Begun
from fastticket.sessions.ticketcache import TicketCache, shards_of
from fastticket.stores.contract import EVERYBODY, Bar
from fastticket.tasks import end

log = logging.getLogger("fastticket.gateway")

LATE_MAX = 10_000  # users whom an old store still has to be gone through for
BARS_AT_ONCE = 1000  # of a shard, read in one round
BARS_BACK_MS = 3_600_000
BARS_OVERLAP_MS = 10_000  # clocks differ: bars are read again for so long
WALK_PART = 20


class Walks:
    """`counts`: by (source, result)."""

    def __init__(self, cache: TicketCache, counts: Counter[tuple[str, str]], pause_s: float) -> None:
        self._cache = cache
        self._shards = shards_of(cache)
        self._counts = counts
        self._pause_s = pause_s
        self._stores: list[OldStore] = []
        self._late: dict[tuple[OldStore, str], int] = {}  # ms: when all of a user's were ended
        self._since_ms: dict[int, int] = {}  # by shard: from where its bars are read next
        self._heard: dict[int, set[Bar]] = {}  # the last page of each shard
        self._next_s: dict[OldStore, float] = {}  # by the loop's clock
        self._failing: set[OldStore] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self, stores: Iterable[OldStore]) -> None:
        """Begin, for those that can tell whose their sessions are, and when they began."""
        self._stores = [store for store in stores if store.begun]
        if self._stores:
            self._task = asyncio.get_running_loop().create_task(self._go_on(), name="fastticket-migration-walks")

    async def stop(self) -> None:
        """No more of them."""
        await end(self._task)

    def give_way(self, coming: Walks | None, there: Mapping[OldStore, OldStore]) -> None:
        """No more of them: another configuration is in force. `coming`, its walks, which have
        started, do what is left. `there`: what each old store of both is to it. One that is new
        there has missed what was heard here: then it begins as a process that starts.
        """
        if self._task:
            self._task.cancel()
        if coming:
            if {there[store] for store in self._stores if store in there}.issuperset(coming._stores):
                coming._since_ms, coming._heard = self._since_ms, self._heard
            for (store, principal), at_ms in self._late.items():
                if store in there:
                    coming._note(there[store], Bar(principal, at_ms))
        self._stores, self._late = [], {}

    @property
    def late_count(self) -> int:
        """For how many users an old store still has to be gone through."""
        return len(self._late)

    def _note(self, store: OldStore, bar: Bar) -> None:
        key = store, bar.principal
        self._late[key] = max(bar.at_ms, self._late.pop(key, 0))
        if len(self._late) > LATE_MAX:
            del self._late[next(iter(self._late))]
            self._counts[store.source, "end_lost"] += 1

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(self._pause_s)
            try:
                await self._hear()
            except StoreUnavailable:
                continue  # ours: asked in the next round
            except Exception:
                log.exception("[[migration]]: bars could not be read")
            for store in self._stores:
                await self._try(store)

    async def _hear(self) -> None:
        """Whose sessions were all ended since the last round. Shards that do not answer are asked
        in the next one.
        """
        now_ms, shards = self._cache.now_ms(), list(self._shards)
        asked = [self._since_ms.get(shard.number, now_ms - BARS_BACK_MS) for shard in shards]
        store = self._shards.opened
        answers = await asyncio.gather(
            *(store.bars(shard.number, at_ms, BARS_AT_ONCE) for shard, at_ms in zip(shards, asked, strict=True)),
            return_exceptions=True,
        )
        for shard, found in zip(shards, answers, strict=True):
            if isinstance(found, StoreUnavailable):
                continue
            if isinstance(found, BaseException):
                raise found
            for bar in set(found) - self._heard.get(shard.number, set()):
                for old_store in self._stores:
                    self._note(old_store, bar)
            is_all = len(found) < BARS_AT_ONCE
            self._since_ms[shard.number] = now_ms - BARS_OVERLAP_MS if is_all else found[-1].at_ms
            self._heard[shard.number] = set(found)

    async def _try(self, store: OldStore) -> None:
        bars = {principal: at_ms for (of, principal), at_ms in self._late.items() if of is store}
        began_s = asyncio.get_running_loop().time()
        if not bars or began_s < self._next_s.get(store, 0.0):
            return
        try:
            await self._walk(store, bars)
        except StoreUnavailable as error:
            if store not in self._failing:
                self._failing.add(store)
                log.error("[[migration]] %s: what was ended here can not be ended there yet: %s", store.source, error)
        except Exception:
            log.exception("[[migration]] %s: a walk has failed", store.source)
        else:
            self._failing.discard(store)
        ended_s = asyncio.get_running_loop().time()
        self._next_s[store] = ended_s + WALK_PART * (ended_s - began_s)

    async def _walk(self, store: OldStore, bars: Mapping[str, int]) -> None:
        """Go through an old store for the sessions of these users. StoreUnavailable."""
        assert store.begun  # noqa: S101 -- for mypy
        async for page in store.begun(bars.keys()):
            await self._end(store, page, bars)
        for principal, at_ms in bars.items():
            if self._late.get((store, principal)) == at_ms:
                del self._late[store, principal]

    async def _end(self, store: OldStore, page: Sequence[Begun], bars: Mapping[str, int]) -> None:
        """End those that began by the end of all, and do not go on here."""
        ended = []
        for old_id, principal, began_ms in page:
            if began_ms <= max(bars.get(principal, 0), bars.get(EVERYBODY, 0)):
                first_id = derive_session_id(store.source, old_id)
                alive = await self._shards.usable.sessions(principal)
                if not any(each.created_ms == began_ms or continues(each.id, first_id) for each in alive):
                    ended.append(old_id)
        await store.end(ended)
        self._counts[store.source, "ended_here"] += len(ended)
