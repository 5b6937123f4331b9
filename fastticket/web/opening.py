"""Opens and closes the ticket cache of an asyncio application that does not do so itself.

Rules of this file
- Those that wait for an opening share one attempt; for OPENING_PAUSE_S after an attempt that failed
  they share its failure.
- What the application opened itself is the application's to close.
- A cache belongs to the event loop in which it was opened, and cannot be opened again.
- A cache has one opening, however many middlewares it serves: they would open it side by side.
"""

from __future__ import annotations

import asyncio
import logging

from fastticket.errors import CacheMisused, StoreUnavailable
from fastticket.sessions.ticketcache import TicketCache
from fastticket.tasks import end

log = logging.getLogger("fastticket.asgi")

OPENING_PAUSE_S = 1.0  # after an attempt that failed


class CacheOpening:
    """Opens a cache when the first caller needs it, and closes it again."""

    def __init__(self, cache: TicketCache) -> None:
        self.cache = cache
        self._loop: asyncio.AbstractEventLoop | None = None  # in which the cache is opened
        self._attempt: asyncio.Task[None] | None = None
        self._pause_ends_s = 0.0  # of the loop's time
        self._is_ours = False  # the cache was opened here
        self._is_undone = False

    @classmethod
    def of(cls, cache: TicketCache) -> CacheOpening:
        """The cache's one opening."""
        opening: CacheOpening = vars(cache).setdefault("_opening", cls(cache))
        return opening

    def begin(self) -> None:
        """Begin an attempt in the running loop, unless the cache is open, one is under way, or one
        has just failed.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop and not (self._loop and self.cache.was_opened):
            self._loop, self._attempt, self._pause_ends_s = loop, None, 0.0
        is_idle = self._attempt is None or self._attempt.done()
        if is_idle and not self.cache.was_opened and loop.time() >= self._pause_ends_s:
            self._attempt = loop.create_task(self._try(), name="fastticket-open")

    async def done(self) -> None:
        """Wait until the cache is open. StoreUnavailable, ConfigError. CacheMisused: it was closed
        when the application stopped, or opened in another event loop.
        """
        self.begin()
        if not self.cache.was_opened and self._attempt:
            await asyncio.shield(self._attempt)
        if not self.cache.was_opened:
            raise StoreUnavailable("the store could not be opened")
        if self._is_undone:
            raise CacheMisused("cache_closed")
        if self._loop is not asyncio.get_running_loop():
            raise CacheMisused("cache_of_another_loop")

    async def undo(self) -> None:
        """Close the cache, if it was opened here: the application has stopped."""
        if self._attempt and not self._attempt.done():
            await end(self._attempt)
        if self._is_ours:
            self._is_undone = True
            await self.cache.aclose()

    async def _try(self) -> None:
        try:
            await self.cache.open()
            self._is_ours = True
        except StoreUnavailable as error:
            log.info("the store could not be opened: %s", error)
            self._pause_ends_s = asyncio.get_running_loop().time() + OPENING_PAUSE_S
