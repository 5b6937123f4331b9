"""The ticket cache for threads: WSGI applications, scripts.

A thread of its own runs the asyncio cache; whatever may wait is sent there, and waited for. A check is not: it is one call into the
core, which changes the near cache in one step under the interpreter's lock, so threads share it as coroutines do. The near cache keeps
the latest deadline it was told, in whichever order; so a use here and a load there lose nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop

from fastticket import cache as asynchronous
from fastticket.attributes import AttributeChanges, Serializer
from fastticket.cache import Consistency, SessionInfo
from fastticket.core.check import Session
from fastticket.core.ticket import Keyring
from fastticket.errors import StoreUnavailable, Verdict
from fastticket.events import KINDS, SessionEvent
from fastticket.stores.base import NO_DETAILS, Store

T = TypeVar("T")


class TicketCache:
    """As `fastticket.TicketCache`, with its settings, for any number of threads. A `check` waits for nobody, in the caller's thread.

    Opens itself with the first call that needs it, so an object made before a server forks is opened in each worker; `open()` does it
    at once. `close()`, or the end of the interpreter, writes what is unwritten. Also a context manager.
    """

    def __init__(self, store: Store, keys: Keyring, **settings: Any) -> None:
        self._cache = asynchronous.TicketCache(store, keys, **settings)
        self._opening = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._is_closed = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open the store and start to flush. Idempotent. StoreUnavailable, ConfigError."""
        self._running_loop()

    def close(self) -> None:
        """Write every touch, then close the store. Idempotent."""
        with self._opening:
            self._is_closed = True
            loop, self._loop = self._loop, None
            if loop is None or self._thread is None or self._process != os.getpid():
                return
            asyncio.run_coroutine_threadsafe(self._cache.aclose(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()

    # --- the hot path

    def check(self, ticket: str | bytes, touch: bool = True) -> Session | Verdict:
        """A Session, or a falsy Verdict with `.reason`, from the near cache alone. Never waits."""
        return self._cache.check(ticket, touch)

    def authenticate(self, ticket: str | bytes, *, touch: bool = True, consistency: Consistency = "near") -> Session:
        """The session of a ticket, loaded if need be. TicketRefused (`.reason` is a slug), StoreUnavailable."""
        if consistency == "near":
            found = self._cache.check(ticket, touch)
            if isinstance(found, Session):
                return found
        return self._run(self._cache.authenticate(ticket, touch=touch, consistency=consistency))

    # --- what waits for the store

    def login(
        self,
        principal: str,
        *,
        remember: bool = False,
        idle_timeout_s: int | None = None,
        absolute_lifetime_s: int | None = None,
        details: Mapping[str, str] = NO_DETAILS,
        suits: Callable[[str], bool] | None = None,
    ) -> str:
        """Create a session and return its ticket. As `fastticket.TicketCache.login`."""
        return self._run(
            self._cache.login(
                principal,
                remember=remember,
                idle_timeout_s=idle_timeout_s,
                absolute_lifetime_s=absolute_lifetime_s,
                details=details,
                suits=suits,
            )
        )

    def rotate(
        self,
        ticket: str | bytes,
        *,
        idle_timeout_s: int | None = None,
        absolute_lifetime_s: int | None = None,
        suits: Callable[[str], bool] | None = None,
    ) -> str:
        """A new ticket for the same session, under another id. As `fastticket.TicketCache.rotate`."""
        return self._run(
            self._cache.rotate(
                ticket, idle_timeout_s=idle_timeout_s, absolute_lifetime_s=absolute_lifetime_s, suits=suits
            )
        )

    def logout(self, ticket: str | bytes) -> bool:
        """End the session of a ticket. False: it had none any more. TicketRefused, StoreUnavailable."""
        return self._run(self._cache.logout(ticket))

    def logout_everywhere(self, principal: str, *, keep: Session | None = None) -> int:
        """End every session of a principal, or all but one. How many there were. StoreUnavailable."""
        return self._run(self._cache.logout_everywhere(principal, keep=keep))

    def revoke(self, session_id: str, principal: str) -> bool:
        """End one of the sessions that `sessions` names. False: it had ended. StoreUnavailable."""
        return self._run(self._cache.revoke(session_id, principal))

    def sessions(self, principal: str) -> Sequence[SessionInfo]:
        """The principal's live sessions. As `fastticket.TicketCache.sessions`."""
        return self._run(self._cache.sessions(principal))

    def events(self, position: str | None = None, kinds: Collection[str] = KINDS) -> Iterator[SessionEvent]:
        """What becomes of sessions, from now on or from a position; waits for each. As `fastticket.TicketCache.events`."""
        stream = self._cache.events(position, kinds)
        if position is None:
            self._run(stream.start())
        return iter(lambda: self._run(anext(stream)), None)

    def attributes(self, session: Session) -> Attributes:
        """What the application keeps in a session: a mapping, read when it is first looked at. `save()`, or use it with `with`."""
        return Attributes(self, session, self._cache.serializer)

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
    def absolute_lifetime_s(self) -> int:
        """How long a session lasts that was begun without `remember`, in s; 0: no end."""
        return self._cache.absolute_lifetime_s

    # --- the other thread

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        try:
            loop = self._running_loop()
        except BaseException:
            what.close()
            raise
        return asyncio.run_coroutine_threadsafe(what, loop).result()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None:
            with self._opening:
                loop = self._loop or self._start()
        if self._process != os.getpid():
            raise RuntimeError(
                "the ticket cache was opened before this process was forked, and its connections belong to the parent; "
                "open it in the child, or make one there"
            )
        return loop

    def _start(self) -> asyncio.AbstractEventLoop:
        if self._is_closed:
            raise StoreUnavailable("the ticket cache is closed")
        loop = uvloop.new_event_loop()
        thread = threading.Thread(target=_run_for_ever, args=(loop,), name="fastticket", daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._cache.open(), loop).result()
        except BaseException:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            raise
        self._process, self._thread, self._loop = os.getpid(), thread, loop
        # Not atexit: that is called when thread pools have been shut down, and a store may use one.
        with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
            threading._register_atexit(self.close)  # type: ignore[attr-defined]
        return loop


class Attributes(AttributeChanges):
    """The attributes of one session, for threads: read when they are first looked at. One thread at a time."""

    def __init__(self, cache: TicketCache, session: Session, serializer: Serializer) -> None:
        super().__init__(serializer)
        self._cache = cache
        self._session = session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.save()

    def load(self) -> Self:
        """Read them now, if they were not read before. TicketRefused: the session is over; StoreUnavailable."""
        if not self.is_loaded:
            cache = self._cache._cache
            self.hold(cache.near_copy(self._session) or self._cache._run(cache.read_attributes(self._session)))
        return self

    def save(self) -> bool:
        """Write what changed; one command, or none. Whether there was anything. Errors as `fastticket.attributes.Attributes.save`."""
        changes = self.changes()
        if changes:
            cache = self._cache._cache
            self.settle(changes, self._cache._run(cache.write_attributes(self._session, changes, self._held)))
        return bool(changes)

    def _load_now(self) -> None:
        self.load()


def _run_for_ever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
