"""Whether a ticket cache may be used here and now: open, not closed, in the event loop in which it
was opened, and alone on its store object.

    Life    of one cache: `begin`, `check`, `end`, `leave`

Rules of this file
- A store object serves one cache at a time: it has one doorbell, and closing it closes it for all.
  Two caches open a store of their own each, by the same URL.
- `check` never refuses what may be a request in a server that stops with anything but
  StoreUnavailable, which is answered with 503. What only a mistake in a program brings about is
  CacheMisused.
- No lock: threads may open caches at the same time, and a signal handler in the midst of it. A
  claim is one step of a dictionary.
"""

from __future__ import annotations

import asyncio
import weakref
from functools import partial

from fastticket.errors import CacheClosed, CacheMisused
from fastticket.stores.contract import Store

#: Who uses a store object, by its id. Whoever does so keeps it alive, so no other has this id.
_users: dict[int, weakref.ref[Life]] = {}


class Life:
    """New, open, closed: the life of a cache, which begins and ends once."""

    def __init__(self, store: Store) -> None:
        self.is_closed = False
        self._store = store
        self._loop: asyncio.AbstractEventLoop | None = None  # in which it was opened

    def begin(self) -> None:
        """The store is about to be opened. CacheMisused: it was open before, or the store serves
        another cache.
        """
        if self.is_closed:
            raise CacheMisused("cache_closed")
        if self._loop is not None:
            raise CacheMisused("cache_open_already")
        self._loop = asyncio.get_running_loop()
        try:
            self._claim()
        except CacheMisused:
            self._loop = None
            raise

    def undo(self) -> None:
        """The store could not be opened: it may be tried again."""
        self._loop = None
        self.leave()

    def check(self) -> None:
        """CacheClosed; CacheMisused: it is not open, or was opened in another event loop."""
        if self.is_closed:
            raise CacheClosed
        if self._loop is None:
            raise CacheMisused("cache_not_open")
        if self._loop is not asyncio.get_running_loop():
            raise CacheMisused("cache_of_another_loop")

    def end(self) -> bool:
        """Nobody may use it from now on. False: there is nothing to close. CacheMisused: it was
        opened in another event loop.
        """
        was_open = not self.is_closed and self._loop is not None
        if was_open:
            self.check()
        self.is_closed = True
        return was_open

    def leave(self) -> None:
        """The store is closed, and may serve another cache."""
        if (held := _users.get(id(self._store))) and held() is self:
            del _users[id(self._store)]

    def _claim(self) -> None:
        mine = weakref.ref(self, partial(_forget, id(self._store)))
        held = _users.setdefault(id(self._store), mine)
        if held is not mine and _is_over(held()):
            held = _users[id(self._store)] = mine
        if held is not mine:
            raise CacheMisused("store_in_use")


def _is_over(life: Life | None) -> bool:
    """Whether a cache that was never closed can do nothing any more: its event loop is closed."""
    return life is None or (life._loop is not None and life._loop.is_closed())


def _forget(store_id: int, claim: weakref.ref[Life]) -> None:
    """A cache is gone that was never closed."""
    if _users.get(store_id) is claim:
        del _users[store_id]
