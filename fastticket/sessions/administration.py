"""What operators do with sessions that are not their own: look at any, end any, give one another
ticket. It works on the ticket cache of a gateway, so that what it ends is refused there at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fastticket.sessions.ticketcache import SessionInfo, TicketCache, shards_of

AT_ONCE = 100  # sessions whose attributes are read at the same time


class Details(NamedTuple):
    """A live session, and what the application keeps in it."""

    session: SessionInfo
    attributes: Mapping[str, bytes]  #: serialized


class Administration:
    """Of the sessions of one ticket cache's store. Every method: StoreUnavailable."""

    def __init__(self, cache: TicketCache) -> None:
        self._cache = cache
        self._shards = shards_of(cache)

    async def of(self, principal: str) -> list[Details]:
        """The live sessions of a principal."""
        return await self._detailed(await self._cache.sessions(principal))

    async def find(self, session_id: str, principal: str) -> Details | None:
        """A live session by its id; None: that principal has none of it."""
        found = [each for each in await self._cache.sessions(principal) if each.id == session_id]
        return (await self._detailed(found))[0] if found else None

    async def _detailed(self, sessions: Sequence[SessionInfo]) -> list[Details]:
        found: list[Details] = []
        for first in range(0, len(sessions), AT_ONCE):
            some = sessions[first : first + AT_ONCE]
            read = self._shards.usable.read_attributes
            stored = await asyncio.gather(*(read(each.id, each.principal) for each in some))
            found += [
                Details(each, attributes.values if attributes else {})
                for each, attributes in zip(some, stored, strict=True)
            ]
        return found
