"""The census: how many sessions live in the store, asked so seldom that it costs nothing; and once
more when a part of the store's log was lost, because its sessions may be, too.
"""

from __future__ import annotations

import asyncio
import logging
import random

from fastticket.errors import FastticketError
from fastticket.sessions.shards import Shards
from fastticket.tasks import end

log = logging.getLogger("fastticket.cache")

#: The system's: a program that seeds Python's does not make all its processes act in step, nor does
#: a fork.
_random = random.SystemRandom()

INTERVAL_S = 60.0
LOOK_S = 1.0  # whether there was a gap


class Census:
    """Of one ticket cache, in its event loop. `living`: at the last count; None: there was none, or
    it has failed.
    """

    def __init__(self, shards: Shards) -> None:
        self.living: int | None = None
        self._shards = shards
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Count now, and again and again, until `stop`."""
        self._task = asyncio.create_task(self._run(), name="fastticket-census")

    async def stop(self) -> None:
        """Idempotent."""
        await end(self._task)

    async def _run(self) -> None:
        while True:
            try:
                self.living = await self._shards.opened.count()
            except FastticketError as error:  # an outage, which was logged when it began
                log.debug("census: %s", error)
                self.living = None
            except Exception:
                log.exception("sessions could not be counted; it is tried again")
                self.living = None
            await self._pause()

    async def _pause(self) -> None:
        loop, gaps = asyncio.get_running_loop(), self._shards.gaps
        due_s = loop.time() + INTERVAL_S * _random.uniform(0.5, 1.5)
        while loop.time() < due_s and self._shards.gaps == gaps:  # noqa: ASYNC110 -- nobody tells of a gap
            await asyncio.sleep(LOOK_S)
