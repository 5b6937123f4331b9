"""Attributes of sessions: read through the near copies, written to the store."""

from __future__ import annotations

from fastticket.core.check import Session
from fastticket.errors import TicketRefused, Verdict
from fastticket.sessions.attributes import Changes, Saved, after
from fastticket.sessions.shards import Shards
from fastticket.stores.contract import NEVER_WRITTEN, Position, StoredAttributes


class ReadThrough:
    """The `attributes.Source` of a ticket cache."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._copies = shards.near_attributes

    def near_copy(self, session: Session, *, seen: Position = NEVER_WRITTEN) -> StoredAttributes | None:
        """The near copy of a session's attributes, if there is one of version `seen` or later and
        the lease holds. Never waits; any thread.
        """
        # The lease first: a copy that is found after the lease was renewed has survived what the
        # log said then.
        copy = self._copies.find(session.id) if self._shards.is_leased(session.principal) else None
        return copy if copy and copy.version >= seen else None

    async def read(self, session: Session, *, seen: Position = NEVER_WRITTEN) -> StoredAttributes:
        """The near copy, or what the store has. The store has the last word: if its version is
        older than `seen`, there is no later one. TicketRefused, StoreUnavailable.
        """
        self._check_deadline(session)
        copy = self.near_copy(session, seen=seen)
        if copy:
            return copy
        store, session_id, principal = self._shards.usable, session.id, session.principal
        number = self._shards.of(principal).number
        await self._shards.find_positions([number])
        flight = self._copies.depart(session_id, number)
        found = None
        try:
            found = await store.read_attributes(session_id, principal)
        finally:
            self._copies.land(flight, found)
        if found is None:
            raise await self._refusal(session_id, principal)
        return found

    async def write(self, session: Session, changes: Changes, held: StoredAttributes | None) -> Saved:
        """Write changes to what was read as `held`. AttributesTooLarge, TicketRefused,
        StoreUnavailable.
        """
        self._check_deadline(session)
        store, session_id, principal = self._shards.usable, session.id, session.principal
        held = held or self._copies.find(session_id)
        flight = self._copies.depart(session_id, self._shards.of(principal).number)
        now = None
        try:
            written = await store.write_attributes(
                session_id,
                principal,
                changes.values,
                changes.removed,
                bytes_max=self._shards.settings.attributes_bytes_max,
            )
            if written:
                # As the log will say: reads that are under way since before this write are older.
                self._copies.changed(session_id, written.version)
                now = after(held, changes, written)
        finally:
            self._copies.land(flight, now)
        if written is None:
            raise await self._refusal(session_id, principal)
        return Saved(written.version, now)

    def _check_deadline(self, session: Session) -> None:
        """A Session object that is kept for long does not outlive its session, even if the store
        has not removed that yet.
        """
        if self._shards.now_ms() >= session.absolute_deadline_ms:
            raise TicketRefused(Verdict.EXPIRED)

    async def _refusal(self, session_id: str, principal: str) -> TicketRefused:
        """The store has no such session, and never will again. StoreUnavailable: it may have it
        again soon.
        """
        await self._shards.confirm_complete([self._shards.of(principal).number])
        known = self._shards.refusal_in_memory(session_id)
        verdict = Verdict.REVOKED if known is None else known
        self._shards.end(session_id, principal, verdict)
        return TicketRefused(verdict)
