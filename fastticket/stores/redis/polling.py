"""Asking several servers the same thing at once: an answer by most of them, and no waiting for one
that hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

STRAGGLERS_S = 0.05  # for the others, once most have answered
FEW_S = 0.25  # and once one has
DOUBT = 1.5  # times `confirm_s`: how old a confirmation may be; older, the process was held up


async def in_time(
    asking: Iterable[asyncio.Task[T]], asked: int, is_answer: Callable[[asyncio.Task[T]], bool]
) -> AsyncIterator[asyncio.Task[T]]:
    """The tasks that end in time, as they end. `asked`: of how many servers most count;
    `is_answer`: whether a task's result is one.
    """
    loop = asyncio.get_running_loop()
    pending = set(asking)
    answers = 0
    give_up_at_s = float("inf")
    while pending and loop.time() < give_up_at_s:
        wait_s = None if give_up_at_s == float("inf") else give_up_at_s - loop.time()
        done, pending = await asyncio.wait(pending, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            answers += is_answer(task)
            yield task
        if answers:
            few = answers <= asked // 2
            give_up_at_s = min(give_up_at_s, loop.time() + (FEW_S if few else STRAGGLERS_S))
