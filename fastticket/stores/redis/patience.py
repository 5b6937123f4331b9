"""Timeouts that tell a silent server from a process that did not listen.

A process that was stopped or held up finds, when it goes on, both an answer in its socket and the
timer due; which of the two it sees first is chance. So a timer that is due first lets the loop read
its sockets once more: for GLANCE_S, or for GRACE_S if the timer itself came late. A process that is
held up once more in that time would run the second timer before it reads, too; so at the end comes
a whole turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

GLANCE_S = 0.005  # at least one look of the event loop at its sockets
LATE_S = 0.05  # a timer that comes later than this shows that the process was held up
GRACE_S = 0.25  # for the answer, after that
STALLS_MAX = 3  # that prolong one wait


class Patience:
    """A timer that calls `over` when an answer has been awaited for `timeout_s`.

    `since`: when the wait began, in the loop's time; None: nothing is awaited.
    """

    __slots__ = ("_due_s", "_looked_for_s", "_looks", "_loop", "_over", "_since", "_timeout_s", "_timer")

    def __init__(self, timeout_s: float, since: Callable[[], float | None], over: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._since = since
        self._over = over
        self._timer: asyncio.Handle | None = None
        self._due_s = 0.0
        self._looks = 0  # how often it has looked again, for the wait that began at `_looked_for_s`
        self._looked_for_s = 0.0

    def start(self) -> None:
        """An answer is awaited. Cheap if the timer runs already."""
        if self._timer is None and (since_s := self._since()) is not None:
            self._run_until(since_s + self._timeout_s)

    def stop(self) -> None:
        """Nothing is awaited any more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _run_until(self, due_s: float) -> None:
        self._due_s = due_s
        self._timer = self._loop.call_at(due_s, self._look)

    def _look(self) -> None:
        self._timer = None
        since_s = self._since()
        if since_s is None:
            return
        now_s = self._loop.time()
        if since_s + self._timeout_s > now_s:
            self._run_until(since_s + self._timeout_s)
            return
        if since_s != self._looked_for_s:
            self._looked_for_s, self._looks = since_s, 0
        again_s = _again_s(now_s - self._due_s, self._looks, self._timeout_s)
        self._looks += 1
        if again_s:
            self._run_until(now_s + again_s)
        else:  # a callback of the turn after this one runs when the sockets have been read
            self._timer = self._loop.call_soon(self._turn, since_s)

    def _turn(self, since_s: float) -> None:
        self._timer = self._loop.call_soon(self._judge, since_s)

    def _judge(self, since_s: float) -> None:
        self._timer = None
        if self._since() == since_s:
            self._over()
        else:
            self.start()


async def patiently(awaitable: Awaitable[T], timeout_s: float) -> T:
    """Await with a timeout of this kind. TimeoutError: it took longer, and was cancelled."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(awaitable)
    try:
        span_s, looks = timeout_s, 0
        while span_s and not task.done():
            due_s = loop.time() + span_s
            await asyncio.wait([task], timeout=span_s)
            span_s = _again_s(loop.time() - due_s, looks, timeout_s)
            looks += 1
        for _ in range(2):  # a whole turn of the loop
            await asyncio.sleep(0)
        if task.done():
            return task.result()
        raise TimeoutError(f"no answer in {timeout_s:g} s")
    finally:
        task.cancel()


def _again_s(late_s: float, looks: int, timeout_s: float) -> float:
    """How much longer to wait when a timer came `late_s` late and `looks` were granted before; 0:
    no longer.
    """
    if late_s > LATE_S and looks < STALLS_MAX:
        return min(timeout_s, GRACE_S)
    return 0.0 if looks else GLANCE_S
