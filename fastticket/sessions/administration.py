"""What operators do with sessions that are not their own: look at any, count them, end any, give
one another ticket. It works on the ticket cache of a gateway, so that what it ends is refused there
at once.

Rule of this file: that a session is not there, or that all have ended, is said only when the store
has all that it is to have. After a failover or a loss of data some sessions come back a moment
later (`Shards.confirm_complete`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fastticket.core.ticket import Ticket, decode_session_id
from fastticket.errors import StoreUnavailable, Verdict
from fastticket.sessions.ticketcache import Lifetime, SessionInfo, TicketCache, session_info, shards_of
from fastticket.stores.contract import EVERYBODY, NO_DETAILS, Bar, StoredSession

AT_ONCE = 100  # sessions that are read or ended at the same time
FILL_S = 2.0  # for a page to fill up
PAGE = 200  # of a walk through all sessions: no more than the loop may be held up for


class Details(NamedTuple):
    """A live session, and what the application keeps in it."""

    session: SessionInfo
    attributes: Mapping[str, bytes]  #: serialized


class Issued(NamedTuple):
    """A ticket, and whose."""

    ticket: str
    session_id: str
    principal: str

    def __repr__(self) -> str:
        return f"Issued({self.session_id[:6]}…)"


class Administration:
    """Of the sessions of one ticket cache's store. Every method: StoreUnavailable."""

    def __init__(self, cache: TicketCache) -> None:
        self._cache = cache
        self._shards = shards_of(cache)

    # --- look

    async def of(self, principal: str) -> list[Details]:
        """The live sessions of a principal."""
        return await self._detailed(await self._shards.usable.sessions(principal))

    async def find(self, session_id: str, principal: str) -> Details | None:
        """A live session by its id; None: that principal has none of it."""
        stored = await self._stored(session_id, principal)
        return (await self._detailed([stored]))[0] if stored else None

    async def owner_of(self, session_id: str) -> str:
        """The principal of a live session; "": there is none. It looks through all sessions."""
        cursor = ""
        while True:
            cursor, some = await self._shards.usable.scan(cursor, PAGE)
            for each in some:
                if each.id == session_id:
                    return each.principal
            if not cursor:
                await self._confirm_complete()
                return ""

    async def scan(self, cursor: str, count: int) -> tuple[str, list[Details]]:
        """Some of all live sessions: about so many, unless there are no more, or it takes over
        FILL_S; and the cursor to go on from, "" at the end. A store may find few at a time, or
        none. ValueError: no such cursor.
        """
        until_s, found = time.monotonic() + FILL_S, list[StoredSession]()
        while True:
            cursor, some = await self._shards.usable.scan(cursor, count - len(found))
            found += some
            if not cursor or len(found) >= count or time.monotonic() >= until_s:
                return cursor, await self._detailed(found)

    async def count(self) -> int:
        """How many sessions live."""
        return await self._shards.usable.count()

    # --- end

    async def end_of(self, principal: str, but: str = "") -> Sequence[str]:
        """End every session of a principal, or all but one. Returns the ids of those that were
        there. What the store has lost a moment ago, and would be given back, is over, too: all that
        the principal had has a mark.
        """
        ended = await self._shards.usable.revoke_all(principal, keep=but, reason="revoked")
        for session_id in ended:
            self._shards.end(session_id, principal, Verdict.REVOKED)
        if but:  # one that comes back later would not be told from the one to keep
            await self._confirm_complete(principal)
        return ended

    async def end(self, session_id: str, principal: str) -> bool:
        """End one. False: that principal has none of it."""
        is_ended = await self._cache.revoke(session_id, principal)
        if not is_ended:
            await self._confirm_complete(principal)
        return is_ended

    async def end_all(self, patience_s: float) -> tuple[int, bool]:
        """End every session that lives now, but begin nothing after so long: how many, and whether
        that were all. Sessions of another system that began by now stay outside, too: a bar of
        everybody's says so, and in the end another one takes the place of each user's.
        """
        until_s, cursor, ended = time.monotonic() + patience_s, "", 0
        await self._bar_everybody()
        while True:
            cursor, some = await self._shards.usable.scan(cursor, PAGE)
            principals = sorted({each.principal for each in some})
            for first in range(0, len(principals), AT_ONCE):
                ended += sum(map(len, await asyncio.gather(*map(self.end_of, principals[first : first + AT_ONCE]))))
            if not cursor:
                await self._bar_everybody()
                return ended, await self._are_all_there()
            if time.monotonic() >= until_s:
                return ended, False

    async def _bar_everybody(self) -> None:
        store = self._shards.usable
        await store.bar([Bar(EVERYBODY, await store.time_ms())])

    # --- tickets

    async def issue(
        self,
        principal: str,
        *,
        remember: bool = False,
        idle_timeout_s: Lifetime = None,
        absolute_lifetime_s: Lifetime = None,
        details: Mapping[str, str] = NO_DETAILS,
    ) -> Issued:
        """As `TicketCache.login`."""
        text = await self._cache.login(
            principal,
            remember=remember,
            idle_timeout_s=idle_timeout_s,
            absolute_lifetime_s=absolute_lifetime_s,
            details=details,
        )
        return self._issued(text)

    async def rotate(self, session_id: str, principal: str) -> Issued | None:
        """A new ticket for a live session, under another id; the old one is over. None: there is
        no such session. TicketRefused: it has ended meanwhile.
        """
        stored = await self._stored(session_id, principal)
        if not stored:
            return None
        old = self._shards.keys.mint(
            principal,
            stored.created_ms,
            stored.idle_timeout_s,
            stored.absolute_lifetime_s,
            decode_session_id(session_id),
        )
        return self._issued(await self._cache.rotate(old))

    def _issued(self, text: str) -> Issued:
        ticket = self._shards.keys.verify(text, self._cache.now_ms())
        assert isinstance(ticket, Ticket)  # noqa: S101 -- it was made a moment ago
        return Issued(text, ticket.session_id, ticket.principal)

    # --- what the store has

    async def _stored(self, session_id: str, principal: str) -> StoredSession | None:
        sessions = await self._shards.usable.sessions(principal)
        found = next((each for each in sessions if each.id == session_id), None)
        if not found:
            await self._confirm_complete(principal)
        return found

    async def _confirm_complete(self, *principals: str) -> None:
        """Of these, or of all. StoreUnavailable: some of their sessions may come back later."""
        shards = map(self._shards.of, principals) if principals else self._shards
        await self._shards.confirm_complete([shard.number for shard in shards])

    async def _are_all_there(self) -> bool:
        """Whether no session comes back later of those that live."""
        try:
            await self._confirm_complete()
        except StoreUnavailable:
            return False
        return True

    async def _detailed(self, sessions: Sequence[StoredSession]) -> list[Details]:
        found: list[Details] = []
        for first in range(0, len(sessions), AT_ONCE):
            some = sessions[first : first + AT_ONCE]
            read = self._shards.usable.read_attributes
            stored = await asyncio.gather(*(read(each.id, each.principal) for each in some))
            found += [
                Details(session_info(self._cache, each), attributes.values if attributes else {})
                for each, attributes in zip(some, stored, strict=True)
            ]
        return found
