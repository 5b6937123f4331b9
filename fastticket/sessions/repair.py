"""After a gap in a shard's log: look up again what is held, before the store can go away again.

After a gap every entry of the shard must be loaded at its next use. If the store is away by then,
nobody can say whether the session may still be admitted (P8). So a task goes through the near cache
and confirms what lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastticket.core.ticket import encode_session_id
from fastticket.sessions.shards import Key, Shards
from fastticket.stores.contract import ENDED_MS, Reply, Request

ENTRIES_PER_EXCHANGE = 500
PAUSE_S = 0.05  # between two exchanges: a store that has just come back has others to serve, too
AGAIN_S = 1.0  # until shards that did not answer are asked again


class Repair:
    """One task at most. `start` only notes what is due until `may_run` is set."""

    def __init__(self, shards: Shards) -> None:
        self.may_run = False
        self._shards = shards
        self.task: asyncio.Task[None] | None = None
        self._cursor: int | None = None  # in the near cache; None: all was looked up since the last gap
        self._only: set[int] | None = None  # shards; None: all

    def start(self) -> None:
        """Begin anew, with every shard."""
        self._cursor, self._only = 0, None
        if self.may_run and (self.task is None or self.task.done()):
            self.task = asyncio.create_task(self._look_up_stale(), name="fastticket-repair")

    async def _look_up_stale(self) -> None:
        """Until every stale entry was looked up. Shards that do not answer, as those of servers
        that have just taken over may not, are asked again: a session that is not used meanwhile
        would be unknown in the next outage.
        """
        failed: set[int] = set()
        while self._cursor is not None:
            wanted: dict[int, list[tuple[bytes, Key]]] = {}
            for number, session_id, principal in await self._find_stale():
                if self._only is None or number in self._only:
                    key = encode_session_id(session_id), principal.decode()
                    wanted.setdefault(number, []).append((session_id, key))
            epochs = {number: self._shards.near.epoch(number) for number in wanted}
            requests = {
                number: Request(self._shards[number].position, wanted=[key for _, key in held])
                for number, held in wanted.items()
            }
            for number, reply in (await self._shards.exchange(requests)).items():
                if isinstance(reply, Reply):
                    self._confirm(wanted[number], reply.deadlines_ms, epochs[number])
                else:
                    failed.add(number)
            if failed and self._cursor is None:
                self._cursor, self._only, failed = 0, failed, set()
                await asyncio.sleep(AGAIN_S)
            await asyncio.sleep(PAUSE_S)

    async def _find_stale(self) -> list[tuple[int, bytes, bytes]]:
        """(shard, session id, principal) of entries for one exchange, found in slices so that
        requests come in between. Fewer than ENTRIES_PER_EXCHANGE: these are the last.
        """
        found: list[tuple[int, bytes, bytes]] = []
        while self._cursor is not None and len(found) < ENTRIES_PER_EXCHANGE:
            more, self._cursor = self._shards.near.stale(self._cursor, ENTRIES_PER_EXCHANGE - len(found))
            found += more
            await asyncio.sleep(0)
        return found

    def _confirm(self, held: Sequence[tuple[bytes, Key]], deadlines_ms: Sequence[int | None], epoch: int) -> None:
        """Sessions that the store lacks stay as they are: their next use loads them, and hears why
        they are refused.
        """
        now_ms = self._shards.now_ms()
        for (session_id, _), deadline_ms in zip(held, deadlines_ms, strict=True):
            if deadline_ms is not None and deadline_ms != ENDED_MS:
                self._shards.near.confirm(session_id, epoch, deadline_ms, now_ms)
