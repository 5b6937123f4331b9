"""Bring sessions into a store, from whatever reader yields them.

    import_sessions   read, check, restore some at a time, count
    Imported          what became of them

Rules of this file
- A session ends up in the store at most once: what was brought by an earlier run, the journal says
  (moving/journal.py), and is not brought again.
- The store has the last word: what it knows to have ended stays so (`Store.restore`), and so do the
  sessions that began before all of their user's were ended, for as long as that bar lasts.
- Memory is bounded: BATCH_SESSIONS, or BATCH_BYTES of attributes, are held at a time.
- A store that is away is waited for, PATIENCE_S at a time; then the import ends, and goes on when
  it is started again.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from fastticket.core.ticket import encode_session_id
from fastticket.errors import StoreUnavailable
from fastticket.moving.journal import Journal
from fastticket.moving.record import MovedSession, Skipped, fault_of, to_restored
from fastticket.stores.contract import (
    BAR_LASTS_MS,
    ENDED_MS,
    EVERYBODY,
    Bar,
    Fleet,
    Request,
    Restored,
    RestoredSession,
    Store,
    shard_of,
)

BATCH_SESSIONS = 200
BARS_AT_ONCE = 1000  # more than were left within one millisecond
BATCH_BYTES = 1_000_000
ATTRIBUTES_BYTES_MAX = 1 << 24  # of one session: no store's limit, but memory's
EXAMPLES_MAX = 10
PATIENCE_S = 60.0
PAUSES_S = (0.1, 0.5, 1.0, 2.0)  # between attempts; the last one over and over
TAKEOVER_S = 5.0  # within a lease every gateway makes again what the new server lacks
FLUSH_INTERVAL_MS = 500  # what deadlines allow for where no gateway has ever joined the store

T = TypeVar("T")

Records = AsyncIterable[MovedSession | Skipped] | Iterable[MovedSession | Skipped]


@dataclass
class Imported:
    """How many sessions were made; were there; had ended, or expired; were brought by an earlier
    run; may have been brought by one and have ended (left out; counted among those, too). And what
    was skipped, by the slug of the reason, with the first few.
    """

    created: int = 0
    exists: int = 0
    ended: int = 0
    expired: int = 0
    done_before: int = 0
    in_doubt: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: list[Skipped] = field(default_factory=list)

    def skip(self, skipped: Skipped) -> None:
        """One more."""
        self.skipped[skipped.why] += 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(skipped)

    def count(self, outcomes: Iterable[Restored]) -> None:
        """What the store said."""
        for outcome in outcomes:
            setattr(self, outcome, getattr(self, outcome) + 1)


async def import_sessions(
    store: Store,
    records: Records,
    *,
    journal: Journal | None = None,
    rate_per_s: int = 0,
    is_dry_run: bool = False,
    attributes_bytes_max: int = ATTRIBUTES_BYTES_MAX,
    advance: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Bring the records into an open store.

    `journal`: where an earlier run may have got to. `rate_per_s`: sessions a second at most; 0: any
    number. `is_dry_run`: write nothing, here or there, and say what would become of them. `advance`
    is told how many more records are dealt with. StoreUnavailable; what a reader raises ends it.
    """
    imported = Imported()
    slack_ms = await slack_of(store)
    barred_ms = {bar.principal: bar.at_ms async for bar in all_bars(store)} if is_dry_run else {}
    pace = Pace(rate_per_s)
    async for batch in _batches(records, imported, attributes_bytes_max, advance):
        left = await _without_known(store, batch, journal, imported)
        restored = [to_restored(moved, slack_ms) for moved in left]
        if is_dry_run:
            imported.count(await _foretell(store, restored, barred_ms))
        elif restored:
            ids = [moved.session_id for moved in left]
            if journal:
                journal.begin(ids)
            imported.count(await patiently(partial(store.restore, restored)))
            if journal:
                journal.finish(ids)
        advance(len(batch))
        await pace.after(len(left))
    return imported


async def slack_of(store: Store) -> int:
    """What idle deadlines in a store allow for, ms: its fleet's longest flush interval.
    StoreUnavailable.
    """
    fleet = await patiently(partial(store.join, Fleet(0, 0)))
    return max(FLUSH_INTERVAL_MS, fleet.flush_interval_ms if fleet else 0)


async def _batches(
    records: Records, imported: Imported, attributes_bytes_max: int, advance: Callable[[int], None]
) -> AsyncIterator[list[MovedSession]]:
    """What stores can hold, some at a time; each session once in a batch. The rest is counted."""
    batch: dict[bytes, MovedSession] = {}
    size = 0
    async for record in _each(records):
        if isinstance(record, MovedSession) and (fault := fault_of(record, attributes_bytes_max)):
            record = Skipped(f"session {encode_session_id(record.session_id.ljust(16)[:16])[:6]}", fault)
        if isinstance(record, Skipped):
            imported.skip(record)
            advance(1)
            continue
        if record.session_id in batch or len(batch) == BATCH_SESSIONS or size > BATCH_BYTES:
            yield list(batch.values())
            batch, size = {}, 0
        batch[record.session_id] = record
        size += sum(map(len, record.attributes.values()))
    if batch:
        yield list(batch.values())


async def _each(records: Records) -> AsyncIterator[MovedSession | Skipped]:
    if isinstance(records, AsyncIterable):
        async for record in records:
            yield record
    else:
        for record in records:
            yield record


async def _without_known(
    store: Store, batch: Sequence[MovedSession], journal: Journal | None, imported: Imported
) -> list[MovedSession]:
    """Those that no earlier run has brought."""
    known = journal.known(moved.session_id for moved in batch) if journal else {}
    left = [moved for moved in batch if known.get(moved.session_id) in (None, "begun")]
    doubtful = [moved for moved in batch if known.get(moved.session_id) == "doubtful"]
    if journal and doubtful:
        keys = [(encode_session_id(moved.session_id), moved.principal) for moved in doubtful]
        deadlines_ms = await patiently(partial(deadlines_of, store, keys))
        imported.in_doubt += deadlines_ms.count(None) + deadlines_ms.count(ENDED_MS)
        journal.finish(moved.session_id for moved in doubtful)
    imported.done_before += len(batch) - len(left)
    return left


async def _foretell(store: Store, restored: Sequence[RestoredSession], barred_ms: Mapping[str, int]) -> list[Restored]:
    """What `restore` would do, as far as looking shows it. `barred_ms`: the store's bars."""
    now_ms = await store.time_ms()
    found = await deadlines_of(store, [each.session[:2] for each in restored])
    return [
        "ended"
        if deadline_ms == ENDED_MS or (deadline_ms is None and _is_barred(each, barred_ms, now_ms))
        else "exists"
        if deadline_ms is not None
        else "expired"
        if min(each.session.idle_deadline_ms, each.session.absolute_deadline_ms) <= now_ms
        else "created"
        for each, deadline_ms in zip(restored, found, strict=True)
    ]


def _is_barred(restored: RestoredSession, barred_ms: Mapping[str, int], now_ms: int) -> bool:
    at_ms = max(barred_ms.get(restored.session.principal, 0), barred_ms.get(EVERYBODY, 0))
    return restored.began_ms is not None and restored.began_ms <= at_ms and at_ms > now_ms - BAR_LASTS_MS


async def all_bars(store: Store) -> AsyncIterator[Bar]:
    """A store's bars, some more than once. StoreUnavailable."""
    for shard in range(store.shards):
        since_ms, is_last = 0, False
        while not is_last:
            page = await patiently(partial(store.bars, shard, since_ms, BARS_AT_ONCE))
            for bar in page:
                yield bar
            is_last = len(page) < BARS_AT_ONCE
            since_ms = max(page[-1].at_ms, since_ms + 1) if page else 0


async def deadlines_of(store: Store, keys: Sequence[tuple[str, str]]) -> list[int | None]:
    """The idle deadlines of sessions (id, principal), as `Reply.deadlines_ms` has them. Nothing is
    written. StoreUnavailable.
    """
    wanted: dict[int, list[tuple[str, str]]] = {}
    for each in keys:
        wanted.setdefault(shard_of(each[1], store.shards), []).append(each)
    found: dict[tuple[str, str], int | None] = {}
    replies = await store.exchange(
        {shard: Request(None, wanted=asked, only_looks=True) for shard, asked in wanted.items()}
    )
    for shard, reply in replies.items():
        if isinstance(reply, StoreUnavailable):
            raise reply
        if reply.replaced and None in reply.deadlines_ms:
            await asyncio.sleep(TAKEOVER_S)
            raise StoreUnavailable("another server has taken over, and may not have every session yet; try again")
        found |= dict(zip(wanted[shard], reply.deadlines_ms, strict=True))
    return [found[each] for each in keys]


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Its answer; it is called again while the store is away. StoreUnavailable: for PATIENCE_S."""
    give_up_s = time.monotonic() + PATIENCE_S
    for attempt in itertools.count():
        try:
            return await call()
        except StoreUnavailable:
            pause_s = PAUSES_S[min(attempt, len(PAUSES_S) - 1)]
            if time.monotonic() + pause_s > give_up_s:
                raise
            await asyncio.sleep(pause_s)
    raise AssertionError("unreachable")


class Pace:
    """At most so many sessions a second, on average since the start; 0: any number."""

    def __init__(self, rate_per_s: int) -> None:
        self._rate_per_s = rate_per_s
        self._began_s = time.monotonic()
        self._count = 0

    async def after(self, count: int) -> None:
        """Wait as long as so many more need."""
        self._count += count
        if self._rate_per_s:
            await asyncio.sleep(max(0.0, self._began_s + self._count / self._rate_per_s - time.monotonic()))
