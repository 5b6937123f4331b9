"""The census: how many sessions live in the store, asked so seldom that it costs nothing."""

from __future__ import annotations

import asyncio
import logging
import random

from fastticket.errors import FastticketError
from fastticket.sessions.shards import Shards
from fastticket.tasks import end

log = logging.getLogger("fastticket.cache")

INTERVAL_S = 60.0


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
            await asyncio.sleep(INTERVAL_S * random.uniform(0.5, 1.5))  # noqa: S311
