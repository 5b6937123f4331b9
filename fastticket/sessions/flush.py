"""The flush: touches out, log tails in, leases renewed, for every shard that sessions could be
admitted from.

    flush        take what is dirty, divide it into exchanges, write them all at once
    make_room    the same, for callers whose touches find no room to wait
    _exchanges   what one exchange may bring at most is the store's to say

Rules of this file
- Touches wait in the near cache. Taken, they are `sent`; when their exchange is over they are
  acknowledged or given back, whatever has happened: none stays `sent`.
- A session has one touch in a flush: what is used again while it goes on waits for the next one.
- No exchange waits for another's answer: what a crash loses must not grow with the round trip (P5).
- Slices and pauses: a flush of any size holds the loop for a fifth of a millisecond or so at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence, Set

from fastticket import spans
from fastticket.core.touches import Touches
from fastticket.errors import StoreUnavailable
from fastticket.sessions.shards import Shard, Shards
from fastticket.stores.contract import NO_TOUCHES, Reply, Request
from fastticket.stores.contract import Touches as AnyTouches
from fastticket.stores.usage import Histogram
from fastticket.tasks import end

TOUCHES_PER_SLICE = 500  # taken at once: about a twentieth of a millisecond
SHARDS_PER_EXCHANGE = 32  # the same, where most have nothing to write
SIZES = (1, 10, 100, 1_000, 10_000, 100_000)  # upper bounds of what is counted by size
TURNS_PER_EXCHANGE = 2  # of the loop: in one it is made, in the next it is sent


class Flusher:
    """One flush at a time. What failed is dirty again, for the next one."""

    def __init__(self, shards: Shards) -> None:
        self.touches_written = 0
        self.durations = Histogram()  # s
        self.sizes = Histogram(SIZES)  # touches, of flushes with some
        self._shards = shards
        self._turn = asyncio.Lock()
        self._begun = self._ended = 0  # the numbers of the latest flush that has, and of the latest not cancelled
        self._has_failed = False  # something of the latest one
        self._all_written_ms = 0  # every use before this is in the store

    def begin(self) -> None:
        """The store is open, and nothing is unwritten yet."""
        self._all_written_ms = self._shards.monotonic_ms()

    @property
    def pending(self) -> int:
        """Touches that are not written."""
        return self._shards.near.dirty_count + self._shards.near.sent_count

    @property
    def lag_ms(self) -> int:
        """No unwritten use of a session is older; 0: there is none."""
        return self._shards.monotonic_ms() - self._all_written_ms if self.pending else 0

    async def flush(self) -> None:
        """Write what is dirty now, and read the logs. Raises nothing."""
        async with self._turn:
            await self._flush()

    async def make_room(self) -> None:
        """Return after a flush that has begun later than this call; those who wait at the same time
        share one. StoreUnavailable: some of it was not written.
        """
        begun_before = self._begun
        async with self._turn:
            if self._ended <= begun_before:
                await self._flush()
            if self._has_failed:
                raise StoreUnavailable("too many touches wait, and the store does not take them; try again")

    async def _flush(self) -> None:
        self._begun += 1
        began_ms = self._shards.monotonic_ms()
        began_s = time.perf_counter()
        taken: dict[int, list[Touches]] = {}
        written: set[Touches] = set()
        writing: list[asyncio.Task[None]] = []
        try:
            await self._take(taken)
            size = sum(len(touches) for of_shard in taken.values() for touches in of_shard)
            with spans.span("flush") if size else contextlib.nullcontext():
                spans.note("touches", size)
                for requests in self._exchanges(taken):
                    writing.append(asyncio.create_task(self._write(requests, written), name="fastticket-write"))
                    for _ in range(TURNS_PER_EXCHANGE):  # requests come in between
                        await asyncio.sleep(0)
                await asyncio.gather(*writing)
        finally:
            try:
                await end(*writing)  # if this one was cancelled, or has failed
            finally:
                self._has_failed = self._give_back(taken, written)
        self._ended = self._begun
        self.durations.add(time.perf_counter() - began_s)
        if size:
            self.sizes.add(size)
        if not self._has_failed:
            self._all_written_ms = began_ms

    async def _take(self, taken: dict[int, list[Touches]]) -> None:
        """What is dirty now, and no use that comes in between. Every shard that is due has a
        list.
        """
        near, piece = self._shards.near, self._shards.store.touches_per_exchange
        due = [shard.number for shard in self._shards if self._is_due(shard)]
        count = near.take(taken, TOUCHES_PER_SLICE, piece)
        while count == TOUCHES_PER_SLICE:
            await asyncio.sleep(0)
            count = near.take(taken, TOUCHES_PER_SLICE, piece, begins=False)
        for number in due:
            taken.setdefault(number, [])

    def _is_due(self, shard: Shard) -> bool:
        """Every shard that sessions could be admitted from is heard of within the lease, used or
        not: an outage finds it leased, or not at all. A shard that is away is asked, too, so that
        the end of its outage is noticed. With `restore_from_cache` every shard is: a process that
        lets others give sessions back must have made its own ends again by then.
        """
        is_awaited = shard.is_followed or shard.number == self._shards.awaited
        is_held = self._shards.near.held_in(shard.number) > 0 or is_awaited
        return is_held or shard.outage_since_ms is not None or self._shards.settings.restore_from_cache

    def _exchanges(self, taken: Mapping[int, Sequence[Touches]]) -> Iterator[dict[int, Request]]:
        """What was taken, in order, as requests of one exchange each."""
        most = self._shards.store.touches_per_exchange
        room, requests = most, dict[int, Request]()
        for number, touches in _in_order(taken):
            if len(touches) > room or number in requests or len(requests) == SHARDS_PER_EXCHANGE:
                yield requests
                room, requests = most, {}
            requests[number] = Request(self._shards[number].position, touches)
            room -= len(touches)
        if requests:
            yield requests

    async def _write(self, requests: Mapping[int, Request], written: set[Touches]) -> None:
        for number, reply in (await self._shards.exchange(requests)).items():
            touches = requests[number].touches
            if isinstance(reply, Reply) and isinstance(touches, Touches):
                self._shards.near.acknowledge(touches)
                self.touches_written += len(touches)
                written.add(touches)

    def _give_back(self, taken: Mapping[int, Sequence[Touches]], written: Set[Touches]) -> bool:
        """Whether there was something to give back."""
        failed = [touches for of_shard in taken.values() for touches in of_shard if touches not in written]
        for touches in failed:
            self._shards.near.give_back(touches)
        return bool(failed)


def _in_order(taken: Mapping[int, Sequence[Touches]]) -> Iterator[tuple[int, AnyTouches]]:
    """The first touches of each shard, none if it has none, then the second ones, and so on."""
    for at in range(max(map(len, taken.values()), default=0) or 1):
        for number, of_shard in taken.items():
            if at < len(of_shard):
                yield number, of_shard[at]
            elif at == 0:
                yield number, NO_TOUCHES
