"""The exchanged sessions that this gateway knows.

Rule of this file: whom the near cache admits without a question is held here, or nobody would hear
of an end at the old store. Who is let go must be loaded again, and comes back with that request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

from fastticket.gateway.migration.oldstores import OldStore, Seen

LOOKED_AT = 64  # at most, to find one to let go


class HeldSession:
    """A session of ours, and what it was. No repr: `old_id` and `ticket` admit to it."""

    __slots__ = (
        "idle_timeout_s",
        "is_ours",
        "old_id",
        "on_gone",
        "principal",
        "seen",
        "session_id",
        "store",
        "ticket",
        "used_ms",
    )

    def __init__(
        self, store: OldStore, old_id: str, session_id: str, principal: str, ticket: str, idle_timeout_s: int
    ) -> None:
        self.store = store
        self.old_id = old_id  #: what names it at the old store
        self.session_id = session_id
        self.principal = principal
        self.ticket = ticket  #: the one that was seen last; empty: its session has another id now
        self.idle_timeout_s = idle_timeout_s  #: of our session; 0: none
        self.is_ours = False  #: the old session was made here, for an upstream, and goes with ours
        self.on_gone: Callable[[], None] | None = None  #: it is of a program's token, and is over when it has gone
        self.seen: Seen | None = None  #: as the old store had it when it was asked last; None: not asked yet
        self.used_ms = 0  #: last use known here

    def at(self, store: OldStore) -> HeldSession:
        """The same, of another object for its old store."""
        words = (self.session_id, self.principal, self.ticket, self.idle_timeout_s)
        session = HeldSession(store, self.old_id, *words)
        session.is_ours, session.seen, session.used_ms = self.is_ours, self.seen, self.used_ms
        session.on_gone = self.on_gone
        return session


class Held:
    """By our session's id, the latest last. Beyond `most` those go that were longest not seen and
    that the near cache does not admit (`is_near`).
    """

    def __init__(self, most: int, is_near: Callable[[str], bool]) -> None:
        self._most = most
        self._is_near = is_near
        self._sessions: OrderedDict[str, HeldSession] = OrderedDict()
        self._by_old: dict[tuple[OldStore, str], HeldSession] = {}
        self._coming: Held | None = None
        self._there: Mapping[OldStore, OldStore] | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[HeldSession]:
        return iter(list(self._sessions.values()))

    def add(self, session: HeldSession) -> None:
        """Hold a session, in place of another with its id or its old one."""
        self.drop(session.session_id)
        former = self._by_old.get((session.store, session.old_id))
        if former:
            self.drop(former.session_id)
        self._sessions[session.session_id] = session
        self._by_old[session.store, session.old_id] = session
        self._pass_on(session)
        for _ in range(LOOKED_AT):
            if len(self._sessions) <= self._most:
                break
            oldest = next(iter(self._sessions))
            if oldest == session.session_id or self._is_near(oldest):
                self._sessions.move_to_end(oldest)
            else:
                self.drop(oldest)

    def give_way(self, coming: Held | None, there: Mapping[OldStore, OldStore]) -> None:
        """Sessions of the old stores `there`, which says what each of them is to `coming`, are held
        by that one, too: those that are held now, and each further one. It hears how they go on;
        here nobody does. So what is held here is passed on once only.
        """
        is_first, self._coming, self._there = self._there is None, coming, there
        for session in self if is_first else ():
            self._pass_on(session)

    def _pass_on(self, session: HeldSession) -> None:
        store = self._there.get(session.store) if self._there else None
        if store and self._coming is not None and not self._coming.get(session.session_id):
            self._coming.add(session.at(store))

    def drop(self, session_id: str) -> HeldSession | None:
        """Forget a session."""
        session = self._sessions.pop(session_id, None)
        if session:
            del self._by_old[session.store, session.old_id]
        return session

    def get(self, session_id: str) -> HeldSession | None:
        """By our id."""
        return self._sessions.get(session_id)

    def of_old(self, store: OldStore, old_id: str) -> HeldSession | None:
        """By the old store's."""
        return self._by_old.get((store, old_id))

    def rename(self, session_id: str, successor_id: str) -> None:
        """The session has another id and another ticket now, which is not known yet."""
        session = self.drop(session_id)
        if session:
            session.session_id, session.ticket = successor_id, ""
            self.add(session)
