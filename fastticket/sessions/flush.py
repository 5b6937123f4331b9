"""The flush: touches out, log tails in, leases renewed, for every shard that sessions could be
admitted from.

    flush       collect what is dirty, cut it into pieces, write them all at once
    _collect    from the near cache's dirty chains to `Shard.unwritten`
    _pieces     what one exchange may bring at most is the store's to say

Rules of this file
- A session has one touch in a flush: what is used again while it goes on waits for the next one.
- No piece waits for another's answer: what a crash loses must not grow with the round trip (P5).
- Slices and pauses: a flush of any size holds the loop for a millisecond or so at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from fastticket.core.touches import Touches
from fastticket.sessions.shards import Key, Shard, Shards
from fastticket.stores.contract import Reply, Request

TOUCHES_PER_SLICE = 400  # drained at once: about a millisecond


class Flusher:
    """Raises nothing: what failed stays unwritten, for the next flush."""

    def __init__(self, shards: Shards) -> None:
        self.touches_written = 0
        self._shards = shards
        self._turn = asyncio.Lock()
        self._all_written_ms = 0  # every use before this is in the store

    def begin(self) -> None:
        """The store is open, and nothing is unwritten yet."""
        self._all_written_ms = self._shards.monotonic_ms()

    @property
    def pending(self) -> int:
        """Touches that are not written."""
        return self._shards.near.dirty_count + self._shards.unwritten_count

    @property
    def lag_ms(self) -> int:
        """No unwritten use of a session is older; 0: there is none."""
        return self._shards.monotonic_ms() - self._all_written_ms if self.pending else 0

    async def flush(self) -> None:
        """Write what is dirty now, and read the logs."""
        async with self._turn:
            began_ms = self._shards.monotonic_ms()
            await self._collect()
            due = [shard for shard in self._shards if self._is_due(shard)]
            writing = []
            for requests in self._pieces({shard.number: list(shard.unwritten) for shard in due}):
                writing.append(asyncio.create_task(self._write(requests), name="fastticket-write"))
                await asyncio.sleep(0)  # requests come in between
            await asyncio.gather(*writing)
            if not self._shards.unwritten_count:
                self._all_written_ms = began_ms

    def _is_due(self, shard: Shard) -> bool:
        """Every shard that sessions could be admitted from is heard of within the lease, used or
        not: an outage finds it leased, or not at all. A shard that is away is asked, too, so that
        the end of its outage is noticed.
        """
        is_away = shard.outage_since_ms is not None
        return is_away or self._shards.near.held_in(shard.number) > 0 or bool(shard.unwritten)

    async def _collect(self) -> None:
        """What is dirty now, and no use that comes in between."""
        left = self._shards.near.dirty_count
        while left > 0:
            taken: dict[int, list[Touches]] = {}
            self._shards.near.take(taken, min(left, TOUCHES_PER_SLICE), TOUCHES_PER_SLICE)
            for touches in (touches for pieces in taken.values() for touches in pieces):
                for session_id, principal, deadline_ms in touches:
                    self._shards[touches.shard].keep_unwritten((session_id, principal), deadline_ms)
                self._shards.near.acknowledge(touches)
            left -= TOUCHES_PER_SLICE
            if left > 0:
                await asyncio.sleep(0)

    def _pieces(self, left: dict[int, list[Key]]) -> Iterator[dict[int, Request]]:
        """The keys of each shard, as requests of one exchange each. A shard is cut only if it is
        more than a piece: each part is a command of its own.
        """
        most = self._shards.store.touches_per_exchange
        while left:
            room = most
            requests: dict[int, Request] = {}
            for number, keys in list(left.items()):
                if requests and keys and (room == 0 or room < len(keys) <= most):
                    continue
                shard = self._shards[number]
                taken, rest = keys[:room], keys[room:]
                touches = [(key[0], key[1], shard.unwritten[key]) for key in taken if key in shard.unwritten]
                requests[number] = Request(shard.position, touches)
                room -= len(taken)
                if rest:
                    left[number] = rest
                else:
                    del left[number]
            yield requests

    async def _write(self, requests: Mapping[int, Request]) -> None:
        for number, reply in (await self._shards.exchange(requests)).items():
            if isinstance(reply, Reply):
                self.touches_written += len(requests[number].touches)
                self._shards[number].acknowledge(requests[number].touches)
