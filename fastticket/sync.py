"""The ticket cache for threads: WSGI applications, scripts.

A thread of its own runs the asyncio cache; whatever may wait is sent there, and waited for. A check
is not: it is one call into the core, which changes the near cache in one step under the
interpreter's lock, so threads share it as coroutines do. The near cache keeps the latest deadline
it was told, in whichever order; so a use here and a load there lose nothing.

Rules of this file
- No lock. A signal handler may call anything while the same thread is in the midst of anything
  here, and a fork may come at any time: either would find a lock held. What threads share changes
  in single steps of the interpreter (`dict.setdefault`).
- Every wait is on a queue of its own, which the cache's thread answers, at the latest when it ends.
  A wait is entered, then asks whether the thread has ended; the thread says that it has, then looks
  who waits. So one sees the other.
- Opening and closing belong to the cache's thread: an exception in whoever waits for them
  interrupts neither. It cancels a call.
- Closing writes the touches, then ends the calls that are still pending. The end of the interpreter
  closes before it waits for threads, since one of them may wait for us.
- The thread belongs to the process that started it. In a child it is not there, and its cache is
  refused.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - at the end of the interpreter it must come after this module: see `_close_all`
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, Unpack

import uvloop

from fastticket.core.check import Session
from fastticket.core.ticket import Keyring
from fastticket.errors import ConfigError, StoreUnavailable, Verdict
from fastticket.sessions import ticketcache as asynchronous
from fastticket.sessions.attributes import AttributeChanges, Serializer
from fastticket.sessions.events import KINDS, SessionEvent
from fastticket.sessions.settings import SettingNames
from fastticket.sessions.ticketcache import Consistency, SessionInfo
from fastticket.stores.contract import NEVER_WRITTEN, NO_DETAILS, Position, Store

log = logging.getLogger("fastticket.sync")

P = ParamSpec("P")
T = TypeVar("T")

JOIN_S = 1.0  # for a thread that has nothing left to do; bounded, for a signal handler may come in the midst of a join


class TicketCache:
    """As `fastticket.TicketCache`, with its settings, for any number of threads. A `check` waits
    for nobody, in the caller's thread.

    Opens itself with the first call that needs it, so an object made before a server forks is
    opened in each worker; `open()` does it at once. `close()`, or the end of the interpreter,
    writes what is unwritten. Also a context manager.
    """

    def __init__(
        self,
        store: Store,
        keys: Keyring,
        *,
        serializer: Serializer | None = None,
        clock: Callable[[], int] | None = None,
        **settings: Unpack[SettingNames],
    ) -> None:
        self._cache = asynchronous.TicketCache(store, keys, serializer=serializer, clock=clock, **settings)
        self._threads: dict[str, _CacheThread] = {}  # one, or none; `setdefault` decides whose
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
        self._run(_nothing)

    def close(self) -> None:
        """Write every touch, then end what is still waiting, with StoreUnavailable, and close the
        store. Idempotent.

        Returns when all that is done, whoever began it; so an interrupted one can be called again.
        A signal handler may call it.
        """
        self._is_closed = True
        thread = self._threads.get("cache")
        if thread:
            thread.close()

    # --- the hot path

    def check(self, ticket: str | bytes, touch: bool = True) -> Session | Verdict:
        """A Session, or a falsy Verdict with `.reason`, from the near cache alone. Never waits."""
        return self._cache.check(ticket, touch)

    def authenticate(self, ticket: str | bytes, *, touch: bool = True, consistency: Consistency = "near") -> Session:
        """The session of a ticket, loaded if need be. TicketRefused (`.reason` is a slug),
        StoreUnavailable.
        """
        if consistency == "near":
            found = self._cache.check(ticket, touch)
            if isinstance(found, Session):
                return found
        return self._run(self._cache.authenticate, ticket, touch=touch, consistency=consistency)

    # --- what waits for the store

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

    def rotate(
        self,
        ticket: str | bytes,
        *,
        idle_timeout_s: asynchronous.Lifetime = None,
        absolute_lifetime_s: asynchronous.Lifetime = None,
        suits: Callable[[str], bool] | None = None,
    ) -> str:
        """A new ticket for the same session, under another id. As `fastticket.TicketCache.rotate`."""
        return self._run(
            self._cache.rotate,
            ticket,
            idle_timeout_s=idle_timeout_s,
            absolute_lifetime_s=absolute_lifetime_s,
            suits=suits,
        )

    def logout(self, ticket: str | bytes) -> bool:
        """End the session of a ticket. False: it had none any more. TicketRefused,
        StoreUnavailable.
        """
        return self._run(self._cache.logout, ticket)

    def logout_everywhere(self, principal: str, *, keep: Session | None = None) -> int:
        """End every session of a principal, or all but one. How many there were. StoreUnavailable."""
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
        """What becomes of sessions, from now on or from a position; waits for each. As
        `fastticket.TicketCache.events`.
        """
        stream = self._cache.events(position, kinds)
        if position is None:
            self._run(stream.start)
        return iter(lambda: self._run(stream.__anext__), None)

    def attributes(self, session: Session, *, seen: Position = NEVER_WRITTEN) -> Attributes:
        """What the application keeps in a session: a mapping, read when it is first looked at.
        `save()`, or use it with `with`.

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
    def absolute_lifetime_s(self) -> int:
        """How long a session lasts that was begun without `remember`, in s; 0: no end."""
        return self._cache.absolute_lifetime_s

    # --- the other thread

    def _run(self, what: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread().run(partial(what, *args, **kwargs))

    def _thread(self) -> _CacheThread:
        """The one that is there, else a new one. It runs before it is entered: who finds it may
        wait for it.
        """
        thread = self._threads.get("cache")
        if thread is None:
            if self._is_closed:
                raise _closed()
            mine = _CacheThread(self._cache, on_failure=self._threads.clear)
            thread = self._threads.setdefault("cache", mine)
            if self._is_closed or thread is not mine:  # somebody was faster, who may not have seen it
                mine.close()
        return thread


class Attributes(AttributeChanges):
    """The attributes of one session, for threads: read when they are first looked at. One thread at
    a time.
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
            cache, seen = self._cache._cache, self._seen
            copy = cache.near_copy(self._session, seen=seen)
            self.hold(copy or self._cache._run(cache.read_attributes, self._session, seen=seen))
        return self

    def save(self) -> bool:
        """Write what changed; one command, or none. Whether there was anything. Errors as
        `fastticket.sessions.attributes.Attributes.save`.
        """
        changes = self.changes()
        if changes:
            cache = self._cache._cache
            self.settle(changes, self._cache._run(cache.write_attributes, self._session, changes, self._held))
        return bool(changes)

    def _load_now(self) -> None:
        self.load()


def _refuse_green_threads() -> None:
    """Where gevent or eventlet has put its own threads in place of the system's, the loop would
    wait in the thread of all others.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    is_patched = (gevent and gevent.is_module_patched("threading")) or (
        eventlet and eventlet.is_monkey_patched("thread")
    )
    if is_patched:
        raise ConfigError(
            "fastticket.sync needs threads of the system, and gevent or eventlet has replaced them: use gunicorn's sync or gthread "
            "workers, or an ASGI server"
        )


class _CacheThread:
    """A thread that opens the asyncio cache with the first call, runs what other threads ask for,
    and closes it.

    A cache that could not be opened ends it: `on_failure` is called, and every pending call gets
    the error.
    """

    def __init__(self, cache: asynchronous.TicketCache, on_failure: Callable[[], None]) -> None:
        _refuse_green_threads()
        self._cache = cache
        self._on_failure = on_failure
        self._failure: BaseException | None = None
        self._process = os.getpid()
        self._waiting: set[SimpleQueue[Any]] = set()
        self._is_closing = False
        self._is_over = False
        self._loop = uvloop.new_event_loop()
        self._was_called = asyncio.Event()
        self._is_open = asyncio.Event()
        self._is_to_end = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._live, name="fastticket", daemon=True)
        self._thread.start()
        _running.add(self)  # it can not have ended yet: nobody else knows it

    # --- for other threads

    def run(self, what: Callable[[], Awaitable[T]]) -> T:
        """What a coroutine function returns or raises, called over there."""
        if self._is_closing:
            raise _closed()
        if self._process != os.getpid():
            raise RuntimeError(
                "the ticket cache was opened before this process was forked, and its connections belong to the parent; "
                "open it in the child, or make one there"
            )
        self._refuse_own_thread()
        call = _Call(what)
        try:
            self._post(partial(self._begin, call))
            task = self._wait(call.ended)
        except BaseException:
            self._post(call.cancel)
            raise
        if task is None or task.cancelled():
            raise self._failure or _closed()
        try:
            return task.result()
        finally:
            del call, task  # an error leads to this frame, and would from here lead to itself

    def close(self) -> None:
        """Have it close the cache and end, and wait for that. In a child of its process, nothing."""
        if self._process != os.getpid():
            return
        self._refuse_own_thread()
        self._is_closing = True
        self._post(self._end)
        self._wait(SimpleQueue[None]())
        self._thread.join(JOIN_S)

    def _refuse_own_thread(self) -> None:
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError(
                "a callback of the ticket cache, such as `suits`, runs in the cache's own thread, which can not wait for itself: "
                "call the cache before or after"
            )

    def _wait(self, ended: SimpleQueue[T]) -> T | None:
        """What is put there; None: the thread has ended."""
        self._waiting.add(ended)
        try:
            if self._is_over:
                ended.put(None)  # type: ignore[arg-type]
            return ended.get()
        finally:
            self._waiting.discard(ended)

    def _post(self, what: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(what)

    # --- in the thread

    def _live(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # leaving it cancels what is pending
                runner.run(self._open())
                if self._was_called.is_set() and not self._failure:
                    runner.run(self._close())
        finally:
            self._is_over = True
            _running.discard(self)
            for ended in self._waiting.copy():
                ended.put(None)

    async def _open(self) -> None:
        """Returns when it is time to close."""
        self._life = asyncio.current_task()
        if self._is_to_end.is_set():
            return
        try:
            await self._was_called.wait()
            await self._cache.open()
            self._is_open.set()
            await self._is_to_end.wait()
        except asyncio.CancelledError:
            pass  # `_end`
        except BaseException as error:
            self._failure = error
            self._on_failure()

    async def _close(self) -> None:
        try:
            await self._cache.aclose()
        except Exception:
            log.exception("the ticket cache could not be closed")

    def _end(self) -> None:
        self._is_to_end.set()
        if self._life:
            self._life.cancel()  # it may be opening

    def _begin(self, call: _Call[Any]) -> None:
        self._was_called.set()
        call.task = self._loop.create_task(self._when_open(call.what))
        call.task.add_done_callback(call.ended.put)

    async def _when_open(self, what: Callable[[], Awaitable[T]]) -> T:
        await self._is_open.wait()
        return await what()


class _Call(Generic[T]):
    """What another thread waits for. `ended` gets the task when it is done."""

    def __init__(self, what: Callable[[], Awaitable[T]]) -> None:
        self.what = what
        self.ended: SimpleQueue[asyncio.Task[T]] = SimpleQueue()
        self.task: asyncio.Task[T] | None = None

    def cancel(self) -> None:
        """Nobody waits any more. In the cache's thread."""
        if self.task:
            self.task.cancel()


_running: set[_CacheThread] = set()


def _close_all() -> None:
    for thread in _running.copy():
        thread.close()


# Not atexit: that is called when thread pools have been shut down, and a store may use one. Last
# come, first called: so ours is closed before the pools, whose module is imported above.
with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
    threading._register_atexit(_close_all)  # type: ignore[attr-defined]


def _closed() -> StoreUnavailable:
    return StoreUnavailable("the ticket cache is closed")


async def _nothing() -> None:
    """Once this has been run, the cache is open."""
