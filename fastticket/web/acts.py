"""Acts on a session that are awaited in the event loop of its request, and done at once when they
are called in a thread.

FastAPI and Starlette call a `def` endpoint in a thread. Nothing can be awaited there, so a
coroutine that it makes is never run, and nobody is told: the logout that was promised does not
happen.

    in the request's event loop   an Act; nothing is done until it is awaited
    in a thread                   the request's event loop does it, while the thread waits; the
                                  call returns the result, or raises

Rule of this file
- An Act that nobody has begun when the response begins was forgotten: `refuse_forgotten` raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")

#: What makes the coroutine of an act, when it begins.
Doing = Callable[[], Coroutine[Any, Any, T]]


class Act(Coroutine[Any, Any, T]):
    """One act, to be awaited once. `asyncio.create_task` takes it, too."""

    def __init__(self, do: Doing[T], unbegun: dict[Act[Any], str]) -> None:
        self._do = do
        self._unbegun = unbegun  # this one stands there until it begins
        self._coroutine: Coroutine[Any, Any, T] | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._begun().__await__()

    def send(self, value: Any, /) -> Any:
        """As of a coroutine."""
        return self._begun().send(value)

    def throw(self, *error: Any) -> Any:
        """As of a coroutine."""
        return self._begun().throw(*error)

    def close(self) -> None:
        """As of a coroutine."""
        self._begun().close()

    def _begun(self) -> Coroutine[Any, Any, T]:
        if self._coroutine is None:
            self._unbegun.pop(self, None)
            self._coroutine = self._do()
        return self._coroutine


class Acts:
    """The acts on one request's session. Made in the request's event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._unbegun: dict[Act[Any], str] = {}

    def call(self, name: str, do: Doing[T]) -> Act[T]:
        """What a call of the function `name` returns: an Act; in a thread, the result itself."""
        if _is_in_loop():
            act = Act(do, self._unbegun)
            self._unbegun[act] = name
            return act
        # An annotation cannot say that it depends on the caller's thread.
        return cast("Act[T]", asyncio.run_coroutine_threadsafe(do(), self._loop).result())

    def refuse_forgotten(self) -> None:
        """RuntimeError: an act was called, and not awaited."""
        names = sorted(set(self._unbegun.values()))
        self._unbegun.clear()
        if names:
            raise RuntimeError(
                f"{', '.join(names)}: called without `await`, so nothing was done; await it, or call it in a "
                "`def` endpoint, where it is done at once"
            )


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
