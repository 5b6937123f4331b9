"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

log = logging.getLogger("fastticket.tasks")

CANCEL_AGAIN_S = 0.1
CANCELS_MAX = 50


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and wait until it has ended, whatever it raises.

    One `cancel()` may not arrive: `asyncio.wait_for` of CPython 3.11 swallows one that comes as its own timeout fires, and so does
    whatever library awaits through it. So it is said again, for a few seconds.
    """
    for attempt in range(CANCELS_MAX):
        if attempt == 1:
            log.info("%s has swallowed its cancellation; it is cancelled again", task.get_name())
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_S)
        if task.done():
            if not task.cancelled():
                task.exception()  # looked at
            return
    log.error("%s does not end", task.get_name())
