"""Ending a task for certain: a library may swallow a cancellation (asyncio.wait_for does on CPython
3.11), so one `cancel()` is not enough.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

log = logging.getLogger("fastticket.tasks")

STEP_S = 0.5  # for a task to clean up after itself, before it is cancelled again
STEPS_MAX = 10


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks, again and again, until they have ended, or STEPS_MAX times, which is logged. So
    is what they raise.
    """
    for step in range(STEPS_MAX):
        left = [task for task in tasks if task and not task.done()]
        if not left:
            break
        if step:
            log.warning("%s: a cancellation got lost; cancelled again", ", ".join(task.get_name() for task in left))
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=STEP_S)
    for task in filter(None, tasks):
        if task.cancelled():
            continue
        if not task.done():
            log.error("%s: does not end, although cancelled %d times", task.get_name(), STEPS_MAX)
        elif error := task.exception():
            log.error("%s: ended with %s: %s", task.get_name(), type(error).__name__, error)
