"""Keeps exchanged sessions and their old stores in step, by one question an old store and round.

    ended there          our session is revoked, everywhere
    used here            the last use there is moved on, with `write_back`
    ended here           it is ended there. Where the old store is away, that is asked for again
                         each round, until it is done
    expired here (idle)  it is forgotten; the old store judges by itself

Where all of a user's were ended here, walks.py ends those there that nobody has exchanged.

A round comes ROUNDS_PER_LEASE times a lease, so that an end there is heard in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Set

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

    def start(self, stores: Iterable[OldStore], writes_back: Set[OldStore]) -> None:
        """Begin the rounds. `writes_back`: the old stores whose sessions are kept alive."""
        self._writes_back = writes_back
        self._stores = list(stores)
        self._task = asyncio.get_running_loop().create_task(self._go_round(), name="fastticket-migration")

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
        """A session was ended here: end it there, now, or later if it does not answer."""
        try:
            await store.end([old_id])
        except StoreUnavailable:
            self._note_late(store, old_id)

    def is_late(self, store: OldStore, old_id: str) -> bool:
        """Whether a session has ended here, and the old store still has to learn of it."""
        return (store, old_id) in self._late

    def take_over(self, before: Watch, stores: dict[OldStore, OldStore]) -> None:
        """The ends of which old stores still have to learn, from the watch before. `stores`: which
        old store is which one here.
        """
        for store, old_id in before._late:
            if store in stores:
                self._note_late(stores[store], old_id)

    @property
    def late_count(self) -> int:
        """How many ends the old stores still have to learn of."""
        return len(self._late)

    @property
    def away(self) -> dict[str, bool]:
        """By source: whether an old store did not answer when it was last asked."""
        sources = {store.source: False for store in self._stores}
        return sources | {store.source: True for store in self._away}

    def note(self, ends: Iterable[tuple[OldStore, str]]) -> None:
        """As `end`, with the next round or the last word."""
        for store, old_id in ends:
            self._note_late(store, old_id)

    def _note_late(self, store: OldStore, old_id: str) -> None:
        self._late[store, old_id] = None
        if len(self._late) > LATE_MAX:
            del self._late[next(iter(self._late))]
            self._counts[store.source, "end_lost"] += 1

    # --- rounds

    async def _go_round(self) -> None:
        while True:
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
            if self._held.get(session.session_id) is not session:
                continue  # it has ended meanwhile
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
                "[[migration]] %s: the old store does not answer: %s; those whom nobody knows here are told to try again",
                store.source,
                error,
            )

    def _note_back(self, store: OldStore) -> None:
        if store in self._away:
            self._away.discard(store)
            log.warning("[[migration]] %s: the old store answers again", store.source)
