"""A ticket cache in a thread of its own, for callers in other threads.

    CacheThread   opens the cache with the first call, runs the calls of others, closes it
    _Call         what another thread waits for
    _close_all    at the end of the interpreter

Rules of this file
- No lock. A signal handler may call anything while the same thread is in the midst of anything
  here, and a fork may come at any time: either would find a lock held.
- Every wait is on a queue of its own, which the cache's thread answers, at the latest when it ends.
  A caller enters its queue, then asks whether the thread has ended; the thread notes that it has
  ended, then looks for queues. So one sees the other.
- Opening and closing belong to the cache's thread: an exception in a thread that waits for them
  interrupts neither. It cancels a call.
- Closing writes the touches, then ends the calls that are still pending. The end of the interpreter
  closes before it waits for threads, since one of them may wait for us.
- A call leaves its caller's context variables behind: what it begins in the cache may live long,
  and would keep the caller's request, its form, and its application.
- The thread belongs to the process that started it. A child process does not have it, and its
  cache is refused.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - at the end of the interpreter it must come after this module: see `_close_all`
import contextlib
import contextvars
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import uvloop

from fastticket.errors import CacheClosed, CacheMisused, ConfigError
from fastticket.sessions.ticketcache import TicketCache

log = logging.getLogger("fastticket.sync")

T = TypeVar("T")

JOIN_S = 1.0  # for a thread that has nothing left to do; bounded, for a signal handler may come in the midst of a join


def _refuse_green_threads() -> None:
    """ConfigError where gevent or eventlet has replaced the system's threads by its own: the event
    loop would block the one thread in which all of them run.
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


class CacheThread:
    """Opens the asyncio cache with the first call, runs calls of other threads, and closes it.

    If the cache cannot be opened, the thread ends: `on_failure` is called, and every pending call
    gets the error.
    """

    def __init__(self, cache: TicketCache, on_failure: Callable[[], None]) -> None:
        _refuse_green_threads()
        self._cache = cache
        self._on_failure = on_failure
        self._failure: BaseException | None = None
        self._process = os.getpid()
        self._waiting: set[SimpleQueue[Any]] = set()
        self._is_closing = False
        self._is_over = False
        self._context = contextvars.Context()
        self._loop = self._context.run(uvloop.new_event_loop)
        self._was_called = asyncio.Event()
        self._is_open = asyncio.Event()
        self._is_to_end = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        begin = partial(contextvars.Context().run, self._live)
        self._thread = threading.Thread(target=begin, name="fastticket", daemon=True)
        try:
            self._thread.start()
        except BaseException:  # there may be no more threads
            self._loop.close()
            raise
        _running.add(self)  # it cannot have ended yet: no other thread knows it

    # --- called in other threads

    def run(self, what: Callable[[], Awaitable[T]]) -> T:
        """Call a coroutine function in the cache's thread; what it returns or raises."""
        if self._is_closing:
            raise CacheClosed
        if self._process != os.getpid():
            raise CacheMisused("cache_of_another_process")
        self._refuse_own_thread()
        call = _Call(what)
        try:
            self._post(partial(self._begin, call))
            task = self._wait(call.ended)
        except BaseException:
            self._post(call.cancel)
            raise
        if task is None or task.cancelled():
            raise self._failure or CacheClosed
        try:
            return task.result()
        finally:
            del call, task  # an error leads to this frame, and would from here lead to itself

    def close(self) -> None:
        """Have the thread close the cache and end, and wait for that. In a child process, do
        nothing.
        """
        if self._process != os.getpid():
            return
        self._refuse_own_thread()
        self._is_closing = True
        self._post(self._end)
        self._wait(SimpleQueue[None]())
        self._thread.join(JOIN_S)

    def close_later(self) -> None:
        """Have the thread close the cache and end, without waiting: the garbage collector calls
        this, in whichever thread.
        """
        if self._process == os.getpid():
            self._is_closing = True
            self._post(self._end)

    def _refuse_own_thread(self) -> None:
        if threading.get_ident() == self._thread.ident:
            raise CacheMisused("cache_in_its_own_thread")

    def _wait(self, ended: SimpleQueue[T]) -> T | None:
        """What the thread puts into the queue; None: it has ended."""
        self._waiting.add(ended)
        try:
            if self._is_over:
                ended.put(None)  # type: ignore[arg-type]
            return ended.get()
        finally:
            self._waiting.discard(ended)

    def _post(self, what: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(what, context=self._context)

    # --- called in the cache's thread

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
    """A call of another thread. `ended` gets its task when that is done."""

    def __init__(self, what: Callable[[], Awaitable[T]]) -> None:
        self.what = what
        self.ended: SimpleQueue[asyncio.Task[T]] = SimpleQueue()
        self.task: asyncio.Task[T] | None = None

    def cancel(self) -> None:
        """Its caller does not wait any more. Called in the cache's thread."""
        if self.task:
            self.task.cancel()


_running: set[CacheThread] = set()


def _close_all() -> None:
    for thread in _running.copy():
        thread.close()


# Not atexit: its functions are called when thread pools have been shut down, and a store may use
# one. Those registered here are called last in, first out: so caches are closed before the pools,
# whose module is imported above.
with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
    threading._register_atexit(_close_all)  # type: ignore[attr-defined]
