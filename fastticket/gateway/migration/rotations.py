"""Which session's id came after which: a rotated session has an id that is not derived from its old
one any more, and a gateway that starts has not heard of the rotation.

From our log: what is heard, and, once a shard, what was there before. Ids admit nobody.
"""

from __future__ import annotations

from fastticket.gateway.migration.continued import HISTORY_MAX, continues
from fastticket.sessions.shards import Shards

ROTATIONS_MAX = 100_000  # the latest
STEPS_MAX = 64  # of one session


class Rotations:
    """See above."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._before: dict[str, str] = {}
        self._read: set[int] = set()

    def hear(self, session_id: str, successor_id: str) -> None:
        """A session was rotated."""
        self._before.pop(successor_id, None)
        self._before[successor_id] = session_id
        if len(self._before) > ROTATIONS_MAX:
            del self._before[next(iter(self._before))]

    def is_read(self, principal: str) -> bool:
        """Whether the log was read of the shard that a principal's sessions are in."""
        return self._shards.of(principal).number in self._read

    async def read(self, principal: str) -> None:
        """Read that log, as far as it goes back. StoreUnavailable."""
        number = self._shards.of(principal).number
        for event in await self._shards.usable.history(number, HISTORY_MAX):
            if event.kind == "rotated":
                self.hear(event.session_id, event.successor_id)
        self._read.add(number)

    def continues(self, session_id: str, first_id: str) -> bool:
        """As continued.continues, for a session that may have been rotated."""
        at: str | None = session_id
        for _ in range(STEPS_MAX):
            if at is None:
                return False
            if continues(at, first_id):
                return True
            at = self._before.get(at)
        return False
