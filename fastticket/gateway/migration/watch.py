"""Keeps exchanged sessions and their old stores in step, by one question an old store and round.

    ended there          our session is revoked, everywhere
    used here            the last use there is moved on, with `write_back`
    ended here           it is ended there. Where the old store is away, that is asked for again
                         each round, until it is done
    expired here (idle)  it is forgotten; the old store judges by itself

Where all of a user's were ended here, walks.py ends those there that nobody has exchanged.

A round comes ROUNDS_PER_LEASE times a lease, so that an end there is heard in time. It is the watch
of the configuration in force that goes its rounds: an old store that is not in that one is left
alone, and may be emptied.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Set

from fastticket.core.ticket import decode_session_id
from fastticket.errors import StoreUnavailable
from fastticket.gateway.migration.held import Held, HeldSession
from fastticket.gateway.migration.oldstores import OldStore, Seen
from fastticket.sessions.ticketcache import TicketCache, checker_of
from fastticket.stores.contract import Event
from fastticket.tasks import end

log = logging.getLogger("fastticket.gateway")

ROUNDS_PER_LEASE = 2
LATE_MAX = 10_000  # ends that the old stores still have to learn of
KEPT_PART = 20  # a last use that is younger by a twentieth of the session's idle timeout there is not written back
LAST_WORD_S = 1.0
NOBODY = "fastticket-asks-whether-you-answer"  # no old store has such a session
TURN = 500  # sessions looked through in one turn of the loop


class Watch:
    """`counts`: by (source, result)."""

    def __init__(self, cache: TicketCache, held: Held, counts: Counter[tuple[str, str]], lease_ms: int) -> None:
        self._cache = cache
        self._near = checker_of(cache).near
        self._held = held
        self._counts = counts
        self._pause_s = lease_ms / 1000 / ROUNDS_PER_LEASE
        self._late: dict[tuple[OldStore, str], None] = {}
        self._stores: list[OldStore] = []
        self._away: set[OldStore] = set()
        self._writes_back: Set[OldStore] = frozenset()
        self._task: asyncio.Task[None] | None = None
        self._coming: Watch | None = None
        self._there: Mapping[OldStore, OldStore] = {}

    def start(self, stores: Iterable[OldStore], writes_back: Set[OldStore]) -> None:
        """Begin the rounds. `writes_back`: the old stores whose sessions are kept alive."""
        self._writes_back = writes_back
        self._stores = list(stores)
        self._task = asyncio.get_running_loop().create_task(self._go_round(), name="fastticket-migration")

    def give_way(self, coming: Watch | None, there: Mapping[OldStore, OldStore]) -> None:
        """No more rounds: another configuration is in force. The ends of which the old stores
        `there` still have to learn, and each further one, are told by `coming`, to which they are
        what `there` says; the others by the last word.
        """
        late, self._late = self._late, {}
        self._stores, self._coming, self._there = [], coming, there
        self.note(late)

    async def stop(self) -> None:
        """No more rounds. The ends that are left are told once more."""
        await end(self._task)
        for store in {store for store, _ in self._late}:
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(LAST_WORD_S):
                    await self._end_late(store)

    def hear(self, event: Event) -> None:
        """What became of a session, as our store's log says."""
        if event.kind == "rotated":
            self._held.rename(event.session_id, event.successor_id)
        elif event.kind in ("revoked", "expired"):
            session = self._held.drop(event.session_id)
            if session and (event.kind == "revoked" or event.reason == "absolute" or session.is_ours):
                self._note_late(session.store, session.old_id)

    async def end(self, store: OldStore, old_id: str) -> None:
        """A session was ended here: end it there, now, or later if it does not answer, or if this
        is cancelled.
        """
        try:
            await store.end([old_id])
        except BaseException as error:
            self._note_late(store, old_id)
            if not isinstance(error, StoreUnavailable):
                raise

    def is_late(self, store: OldStore, old_id: str) -> bool:
        """Whether a session has ended here, and the old store still has to learn of it."""
        if self._coming and store in self._there:
            return self._coming.is_late(self._there[store], old_id)
        return (store, old_id) in self._late

    @property
    def late_count(self) -> int:
        """How many ends the old stores still have to learn of."""
        return len(self._late)

    def is_away(self, store: OldStore) -> bool:
        """Whether an old store did not answer when it was last asked."""
        return store in self._away

    def note(self, ends: Iterable[tuple[OldStore, str]]) -> None:
        """As `end`, with the next round or the last word."""
        for store, old_id in ends:
            self._note_late(store, old_id)

    def _note_late(self, store: OldStore, old_id: str) -> None:
        if self._coming and store in self._there:
            self._coming._note_late(self._there[store], old_id)
            return
        self._late[store, old_id] = None
        if len(self._late) > LATE_MAX:
            del self._late[next(iter(self._late))]
            self._counts[store.source, "end_lost"] += 1

    # --- rounds

    async def _go_round(self) -> None:
        while self._stores:
            await asyncio.sleep(self._pause_s)
            for store in self._stores:
                try:
                    await self._visit(store)
                except StoreUnavailable as error:
                    self._note_away(store, error)
                except Exception:
                    log.exception("[[migration]] %s: a round has failed", store.source)
                else:
                    self._note_back(store)

    async def _visit(self, store: OldStore) -> None:
        await self._end_late(store)
        sessions = [session for session in self._held if session.store is store]
        if not sessions:
            await store.uses([NOBODY])  # so that its absence shows before somebody comes with its cookie
        for first in range(0, len(sessions), TURN):
            await self._compare(store, sessions[first : first + TURN])

    async def _end_late(self, store: OldStore) -> None:
        late = [old_id for of, old_id in self._late if of is store]
        if late:
            await store.end(late)
            for old_id in late:
                self._late.pop((store, old_id), None)

    async def _compare(self, store: OldStore, sessions: list[HeldSession]) -> None:
        uses = await store.uses([session.old_id for session in sessions])
        now_ms = self._cache.now_ms()
        kept: dict[str, Seen] = {}
        for session, seen in zip(sessions, uses, strict=True):
            if not self._stores or self._held.get(session.session_id) is not session:
                continue  # meanwhile another watch goes the rounds, or it has ended
            if seen is None:
                await self._gone(session, now_ms)
                continue
            session.seen = seen
            used_ms, idle_timeout_ms = self._used_ms(session, now_ms), seen.idle_timeout_s * 1000
            if store in self._writes_back and idle_timeout_ms and used_ms - seen.used_ms > idle_timeout_ms // KEPT_PART:
                kept[session.old_id] = seen._replace(used_ms=used_ms)
        if kept:
            self._counts[store.source, "written_back"] += await store.keep(kept)

    async def _gone(self, session: HeldSession, now_ms: int) -> None:
        """The old store has no such session any more: somebody has ended it there. If nobody keeps
        it alive there, it may only have been idle.
        """
        self._held.drop(session.session_id)
        if session.on_gone:
            session.on_gone()
            return
        if session.store not in self._writes_back and session.seen and session.seen.is_over(now_ms):
            return
        try:
            await self._cache.revoke(session.session_id, session.principal)
        except StoreUnavailable:
            self._held.add(session)  # the next round tries again
            raise
        self._counts[session.store.source, "ended_there"] += 1

    def _used_ms(self, session: HeldSession, now_ms: int) -> int:
        """When our session was last used, as far as it is known here; 0: not known."""
        deadline_ms = self._near.idle_deadline_ms(decode_session_id(session.session_id))
        if deadline_ms and not session.idle_timeout_s:
            session.used_ms = now_ms  # nothing says when; while it is held here it lives
        elif deadline_ms:
            used_ms = deadline_ms - session.idle_timeout_s * 1000 - self._near.slack_ms
            session.used_ms = max(session.used_ms, min(used_ms, now_ms))
        return session.used_ms

    def _note_away(self, store: OldStore, error: StoreUnavailable) -> None:
        if store not in self._away:
            self._away.add(store)
            log.error(
                "[[migration]] %s: the old store does not answer: %s; until it does, nobody new comes by its cookie, "
                "and no end there is heard",
                store.source,
                error,
            )

    def _note_back(self, store: OldStore) -> None:
        if store in self._away:
            self._away.discard(store)
            log.warning("[[migration]] %s: the old store answers again", store.source)
