"""After the store has lost data: what this process holds of it goes back, if `restore_from_cache`
says so.

    start      shards lack data (`Shard.lost`): what is held of them is offered, a lease later
    _offer     session by session: what the store lacks, and does not know to have ended

Rules of this file
- A lease first: until then every process makes its ends of the last minute again
  (stores/redis/takeover.py), and says how long ago it heard the log. What ended is barred by then.
- Of which shards sessions may go back `coherence.may_give_back` says. A process that was cut off
  for longer than others gives nothing back.
- Meanwhile the shard is uncertain: whoever's session is not there yet is told to try again, not to
  log in.
- A session comes back with what its ticket and the near cache know: whose it is, its lifetimes, its
  last use. Its attributes and what its login recorded are gone.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping, Sequence

from fastticket.core.ticket import Ticket, decode_session_id
from fastticket.errors import StoreUnavailable, Verdict
from fastticket.sessions.coherence import may_give_back
from fastticket.sessions.shards import GIVEN_BACK_MS, Lost, Shards
from fastticket.stores.contract import Loss, RestoredSession, StoredSession

log = logging.getLogger("fastticket.cache")

SESSIONS_AT_ONCE = 500
PAUSE_S = 0.01  # between two pieces: a store that has just come back has others to serve, too
NEVER_HEARD_MS = 1 << 52  # longer ago than any loss: it notes none
AGAIN_S = 0.5  # until shards that did not answer are asked again


class Restorer:
    """One task at most. `count`: sessions given back since the start."""

    def __init__(self, shards: Shards) -> None:
        self.count = 0
        self.task: asyncio.Task[None] | None = None
        self._shards = shards

    def start(self) -> None:
        """Shards have lost data, more than before."""
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._restore(), name="fastticket-restore")

    async def heed(self) -> None:
        """Before this process serves: others may be giving back what it has never heard of.
        StoreUnavailable.
        """
        recent_ms = self._shards.fleet.lease_ms + GIVEN_BACK_MS
        losses = await self._shards.store.note_loss({shard.number: NEVER_HEARD_MS for shard in self._shards})
        self._shards.doubt(
            number for number, loss in losses.items() if isinstance(loss, Loss) and loss.noticed_ms < recent_ms
        )

    @property
    def is_running(self) -> bool:
        """Whether something of this process's may still be given back."""
        return self.task is not None and not self.task.done()

    async def finish(self) -> None:
        """Return when nothing of this process's is to be given back any more; at most as long as
        others would wait for it.
        """
        if self.task is not None:
            await asyncio.wait([self.task], timeout=(self._shards.fleet.lease_ms + GIVEN_BACK_MS) / 1000)

    async def _restore(self) -> None:
        """Until each shard that has lost data was given back what is allowed."""
        while lost := {shard.number: shard.lost for shard in self._shards if shard.lost}:
            await self._note(lost)
            await self._wait(lost)
            losses = await self._note(lost)
            allowed = {number for number, loss in losses.items() if self._may_give_back(lost[number], loss)}
            is_done = await self._give_back(allowed)
            for number, noticed in lost.items():
                if number in losses and (is_done or number not in allowed) and self._shards[number].lost is noticed:
                    self._shards[number].lost = None
            if not is_done or len(losses) < len(lost):
                await asyncio.sleep(AGAIN_S)

    async def _note(self, lost: Mapping[int, Lost]) -> dict[int, Loss]:
        """Tell the others of these shards, and hear them. Shards that do not answer are left
        out.
        """
        now_ms = self._shards.monotonic_ms()
        spans_ms = {number: now_ms - noticed.heard_at_ms for number, noticed in lost.items()}
        try:
            answers = await self._shards.opened.note_loss(spans_ms)
        except StoreUnavailable:
            return {}
        return {number: answer for number, answer in answers.items() if isinstance(answer, Loss)}

    async def _wait(self, lost: Mapping[int, Lost]) -> None:
        until_ms = max(noticed.at_ms for noticed in lost.values()) + self._shards.fleet.lease_ms
        await asyncio.sleep(max(0, until_ms - self._shards.monotonic_ms()) / 1000)

    def _may_give_back(self, noticed: Lost, loss: Loss) -> bool:
        return may_give_back(self._shards.monotonic_ms() - noticed.heard_at_ms, loss)

    async def _give_back(self, numbers: set[int]) -> bool:
        """Offer all that is held of these shards; whether the store took it."""
        before, ended, cursor = self.count, 0, 0 if numbers else None
        try:
            while cursor is not None:
                self._shards.doubt(numbers)
                epochs = {number: self._shards.near.epoch(number) for number in numbers}
                found, cursor = self._shards.near.stale(cursor, SESSIONS_AT_ONCE)
                held = [self._held(session_id) for number, session_id, _ in found if number in numbers]
                ended += await self._offer([session for session in held if session], epochs)
                await asyncio.sleep(PAUSE_S)
        except StoreUnavailable as error:
            log.warning("sessions that are held here cannot be given back yet: %s", error)
            return False
        if self.count > before or ended:
            log.warning(
                "the store has lost data: %d sessions that are held here were given back, %d had ended",
                self.count - before,
                ended,
            )
        return True

    def _held(self, session_id: bytes) -> StoredSession | None:
        """What the ticket and the near cache know of a session; None: it is not held any more."""
        near = self._shards.near
        raw, deadline_ms = near.raw(session_id), near.idle_deadline_ms(session_id)
        ticket = raw and self._shards.keys.verify(base64.urlsafe_b64encode(raw).rstrip(b"="), self._shards.now_ms())
        if not isinstance(ticket, Ticket):
            return None
        return StoredSession(
            ticket.session_id,
            ticket.principal,
            deadline_ms,
            ticket.issued_at_ms,
            ticket.idle_timeout_s,
            ticket.absolute_lifetime_s,
        )

    async def _offer(self, sessions: Sequence[StoredSession], epochs: Mapping[int, int]) -> int:
        """How many had ended. StoreUnavailable: some may have been taken."""
        shards = self._shards
        answers = await shards.opened.restore([RestoredSession(session) for session in sessions])
        for session, answer in zip(sessions, answers, strict=True):
            number = shards.of(session.principal).number
            if answer == "ended":
                shards.end(session.id, session.principal, Verdict.REVOKED)
            elif answer != "expired":
                self.count += answer == "created"
                session_id = decode_session_id(session.id)
                shards.near.confirm(session_id, epochs[number], session.idle_deadline_ms, shards.now_ms())
        return sum(answer == "ended" for answer in answers)
