"""The ticket cache for threads: WSGI applications, scripts.

A thread of its own runs the asyncio cache (sessions/threads.py). A call that may wait for the store
is sent there, and the caller's thread waits for it. A check is one call into the core, in the
caller's thread: it changes the near cache in one step under the interpreter's lock, so threads
share the near cache as coroutines do. An interpreter without that lock has the near cache's own
(core/nearcache). The near cache keeps the latest deadline that it was told, in whichever order, so
a use here and a load there lose nothing.

Rules of this file
- No lock, for the reasons that sessions/threads.py gives. What threads share changes in single
  steps of the interpreter (`dict.setdefault`).
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from os import PathLike
from types import TracebackType
from typing import ParamSpec, Self, TypeVar, Unpack

from fastticket.core.check import Session
from fastticket.core.ticket import Keyring
from fastticket.errors import CacheClosed, CacheMisused, Verdict
from fastticket.sessions import ticketcache as asynchronous
from fastticket.sessions.attributes import AttributeChanges, Serializer
from fastticket.sessions.events import KINDS, SessionEvent
from fastticket.sessions.settings import SettingNames
from fastticket.sessions.threads import CacheThread
from fastticket.sessions.ticketcache import Consistency, SessionInfo, read_through_of
from fastticket.stores.contract import NEVER_WRITTEN, NO_DETAILS, Position, RestoredSession, Store

P = ParamSpec("P")
T = TypeVar("T")


class TicketCache:
    """As `fastticket.TicketCache`, with its `store`, `keys` and settings, for any number of
    threads. `check` never waits.

    Opens itself with the first call that needs it, so an object made before a server forks is
    opened in each worker; `open()` does it at once. `close()`, or the end of the interpreter,
    writes unwritten touches; so does the cache's thread when nobody has the object any more. Also a
    context manager.
    """

    def __init__(
        self,
        store: Store | str,
        keys: Keyring | str | PathLike[str],
        *,
        serializer: Serializer | None = None,
        clock: Callable[[], int] | None = None,
        **settings: Unpack[SettingNames],
    ) -> None:
        self._cache = asynchronous.TicketCache(store, keys, serializer=serializer, clock=clock, **settings)
        self._threads: dict[
            str, CacheThread
        ] = {}  # one, or none; if two threads make one, `setdefault` decides which is used
        self._is_closed = False
        weakref.finalize(self, _let_go, self._threads).atexit = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open the store and start to flush. Idempotent. StoreUnavailable, ConfigError.
        CacheMisused: it is closed, or its store serves another cache.
        """
        if self._is_closed:
            raise CacheMisused("cache_closed")
        self._run(_nothing)

    def close(self) -> None:
        """Write every touch, end calls that still wait, with StoreUnavailable, and close the store.
        Idempotent.

        Returns when all that is done, even if another call began it; so a `close` that was
        interrupted can be called again. A signal handler may call it.
        """
        self._is_closed = True
        thread = self._threads.get("cache")
        if thread:
            thread.close()

    # --- the hot path

    def check(self, ticket: str | bytes, touch: bool = True) -> Session | Verdict:
        """What the near cache alone says of a ticket: a Session, or a falsy Verdict with `.reason`.
        Never waits.

        Verdict.MISS and Verdict.REFRESH are no refusals: ask `authenticate`. As
        `fastticket.TicketCache.check`.
        """
        return self._cache.check(ticket, touch)

    def remembered_s(self, ticket: str | bytes) -> int | None:
        """For a cookie's Max-Age. As `fastticket.TicketCache.remembered_s`; never waits."""
        return self._cache.remembered_s(ticket)

    def authenticate(self, ticket: str | bytes, *, touch: bool = True, consistency: Consistency = "near") -> Session:
        """The session of a ticket, loaded if need be: what to call where `check` says MISS or
        REFRESH, or in its place. TicketRefused (`.reason` is a slug), StoreUnavailable.
        """
        if consistency == "near":
            found = self._cache.check(ticket, touch)
            if isinstance(found, Session):
                return found
        return self._run(self._cache.authenticate, ticket, touch=touch, consistency=consistency)

    # --- calls that wait for the store

    def login(
        self,
        principal: str,
        *,
        remember: bool = False,
        idle_timeout_s: asynchronous.Lifetime = None,
        absolute_lifetime_s: asynchronous.Lifetime = None,
        details: Mapping[str, str] = NO_DETAILS,
        suits: Callable[[str], bool] | None = None,
    ) -> str:
        """Create a session and return its ticket. As `fastticket.TicketCache.login`."""
        return self._run(
            self._cache.login,
            principal,
            remember=remember,
            idle_timeout_s=idle_timeout_s,
            absolute_lifetime_s=absolute_lifetime_s,
            details=details,
            suits=suits,
        )

    def take_up(self, restored: RestoredSession) -> str:
        """The ticket of a session that began elsewhere. As `fastticket.TicketCache.take_up`."""
        return self._run(self._cache.take_up, restored)

    def rotate(
        self,
        ticket: str | bytes,
        *,
        idle_timeout_s: asynchronous.Lifetime = None,
        absolute_lifetime_s: asynchronous.Lifetime = None,
        suits: Callable[[str], bool] | None = None,
    ) -> str:
        """A new ticket and id for the same session. As `fastticket.TicketCache.rotate`."""
        return self._run(
            self._cache.rotate,
            ticket,
            idle_timeout_s=idle_timeout_s,
            absolute_lifetime_s=absolute_lifetime_s,
            suits=suits,
        )

    def logout(self, ticket: str | bytes) -> bool:
        """End the session of a ticket. False: it was over already. TicketRefused,
        StoreUnavailable.
        """
        return self._run(self._cache.logout, ticket)

    def logout_everywhere(self, principal: str, *, keep: Session | None = None) -> int:
        """End every session of a principal, or all but one. Returns how many there were.
        StoreUnavailable.
        """
        return self._run(self._cache.logout_everywhere, principal, keep=keep)

    def revoke(self, session_id: str, principal: str) -> bool:
        """End one of the sessions that `sessions` names. False: that principal has none with this
        id (any more). StoreUnavailable.
        """
        return self._run(self._cache.revoke, session_id, principal)

    def sessions(self, principal: str) -> Sequence[SessionInfo]:
        """The principal's live sessions. As `fastticket.TicketCache.sessions`."""
        return self._run(self._cache.sessions, principal)

    def events(self, position: str | None = None, kinds: Collection[str] = KINDS) -> Iterator[SessionEvent]:
        """What becomes of sessions, from now on or from a position, as an iterator that waits for
        each event. As `fastticket.TicketCache.events`.
        """
        stream = self._cache.events(position, kinds)
        if position is None:
            self._run(stream.start)
        return iter(lambda: self._run(stream.__anext__), None)

    def attributes(self, session: Session, *, seen: Position = NEVER_WRITTEN) -> Attributes:
        """What the application keeps in a session: a mapping, read when it is first looked at;
        `save` it, or use it with `with`.

        `seen` as in `fastticket.TicketCache.attributes`.
        """
        return Attributes(self, session, self._cache.serializer, seen)

    @property
    def serializer(self) -> Serializer:
        """How attributes become bytes."""
        return self._cache.serializer

    @property
    def remember_lifetime_s(self) -> int:
        """How long a session lasts that was begun with `remember`, in s."""
        return self._cache.remember_lifetime_s

    @property
    def stats(self) -> dict[str, int]:
        """Counters since the start, and how things are now. As `fastticket.TicketCache.stats`."""
        return self._cache.stats

    @property
    def idle_timeout_s(self) -> int:
        """How long a session lasts without use that was begun without `remember`, in s; 0: it has
        no such end.
        """
        return self._cache.idle_timeout_s

    @property
    def absolute_lifetime_s(self) -> int:
        """How long a session lasts that was begun without `remember`, in s; 0: no end."""
        return self._cache.absolute_lifetime_s

    # --- the other thread

    def _run(self, what: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread().run(partial(what, *args, **kwargs))

    def _thread(self) -> CacheThread:
        """The cache's thread, started if there is none. It runs before it is entered in `_threads`:
        another thread that finds it there may wait for it.
        """
        thread = self._threads.get("cache")
        if thread is None:
            if self._is_closed:
                raise CacheClosed
            mine = CacheThread(self._cache, on_failure=self._threads.clear)
            thread = self._threads.setdefault("cache", mine)
            if self._is_closed or thread is not mine:  # `close` or another thread was faster, and may not have seen it
                mine.close()
        return thread


class Attributes(AttributeChanges):
    """The attributes of one session, for threads, read when they are first looked at. For one
    thread at a time.
    """

    def __init__(
        self, cache: TicketCache, session: Session, serializer: Serializer, seen: Position = NEVER_WRITTEN
    ) -> None:
        super().__init__(serializer)
        self._cache = cache
        self._session = session
        self._seen = seen

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.save()

    def load(self) -> Self:
        """Read them now, if they were not read before. TicketRefused: the session is over;
        StoreUnavailable.
        """
        if not self.is_loaded:
            source, seen = read_through_of(self._cache._cache), self._seen
            copy = source.near_copy(self._session, seen=seen)
            self.hold(copy or self._cache._run(source.read, self._session, seen=seen))
        return self

    def save(self) -> bool:
        """Write what changed, in one command. False: nothing did. Errors as
        `fastticket.sessions.attributes.Attributes.save`.
        """
        changes = self.changes()
        if changes:
            source = read_through_of(self._cache._cache)
            self.settle(changes, self._cache._run(source.write, self._session, changes, self._held))
        return bool(changes)

    def _load_now(self) -> None:
        self.load()


def _let_go(threads: dict[str, CacheThread]) -> None:
    """Nobody has the cache any more: its thread closes it, and ends."""
    thread = threads.get("cache")
    if thread:
        thread.close_later()


async def _nothing() -> None:
    """Once this has been run, the cache is open."""
