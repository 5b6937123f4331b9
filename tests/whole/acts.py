"""Parts that many schedules share: a crowd that goes on, sessions that are ended beside it, and
the census at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from lab.redis_servers import Server

from whole.fleet import Session
from whole.stage import Stage


async def people(
    stage: Stage, number: int, gateways: Sequence[int] = (0, 1), *, login_by: Sequence[int] = ()
) -> list[Session]:
    """So many sessions, made through one gateway after the other, and used through each."""
    made = await stage.fleet.log_in_all(number, login_by or gateways)
    await stage.fleet.use_all(made, gateways)
    return made


async def end_some(stage: Stage, sessions: Sequence[Session], gateways: Sequence[int] = (0, 1)) -> None:
    """Each is logged out, everywhere or here, or rotated, through one of the gateways."""
    for number, session in enumerate(sessions):
        gateway = random.choice(gateways)
        if number % 3 == 2:
            await stage.fleet.rotate(gateway, session)
        else:
            await stage.fleet.ask(gateway, session, ("logout", "everywhere")[number % 3])


async def census(stage: Stage, sessions: Sequence[Session], gateways: Sequence[int] = (0, 1)) -> None:
    """One more use of each, through each gateway: what is ended, lost, or alive again shows."""
    await stage.fleet.use_all(sessions, gateways)


async def until(stage: Stage, seconds: float) -> None:
    """So long in the whole form; in the short one, as many leases of its own."""
    await asyncio.sleep(seconds * (0.4 if stage.is_short else 1.0))


@contextlib.asynccontextmanager
async def logins(stage: Stage, gateways: Sequence[int] = (0, 1), *, per_s: float = 20) -> AsyncIterator[list[Session]]:
    """New sessions all the time, while the block runs; those that were acknowledged."""
    made: list[Session] = []

    async def one(gateway: int) -> None:
        if session := await stage.fleet.log_in(gateway):
            made.append(session)

    async def go_on() -> None:
        async with asyncio.TaskGroup() as group:
            while not is_over.is_set():
                for gateway in gateways:
                    group.create_task(one(gateway))
                await asyncio.sleep(1 / per_s)

    is_over = asyncio.Event()
    task = asyncio.create_task(go_on())
    try:
        yield made
    finally:
        is_over.set()
        await task


async def under_load(
    stage: Stage,
    fault: Callable[[], Awaitable[None]],
    *,
    gateways: Sequence[int] = (0, 1),
    number: int = 0,
    ends_before: bool = True,
    login_by: Sequence[int] = (),
) -> list[Session]:
    """The usual course: a crowd, some sessions ended, the fault, some more ended, time to hear of
    it, and the census.
    """
    made = await people(stage, number or stage.scaled(400, 60), gateways, login_by=login_by)
    third = len(made) // 3
    async with stage.fleet.crowd(made, gateways, per_s=stage.scaled(250, 150)):
        await until(stage, 1)
        if ends_before:
            await end_some(stage, made[:third], gateways)
            await stage.settle()
        await fault()
        await until(stage, 1)
        await end_some(stage, made[third : 2 * third], gateways)
        await stage.settle()
    fresh = await stage.fleet.log_in_all(10, login_by or gateways) if not _is_broken(stage) else []
    await census(stage, [*made, *fresh], gateways)
    return made


def _is_broken(stage: Stage) -> bool:
    """Whether the last requests failed: then no login can be wanted."""
    return sum(event.is_failure for event in stage.history.events[-20:]) > 5


async def away(
    stage: Stage,
    begin: Callable[[], object],
    end: Callable[[], object],
    *,
    for_s: float,
    gateways: Sequence[int] = (0, 1),
    **options: bool,
) -> None:
    """A fault with a begin and an end, noted as a window."""
    start_s = time.monotonic()
    await asyncio.to_thread(begin)
    await until(stage, for_s)
    await asyncio.to_thread(end)
    stage.fleet.window(gateways, start_s, **options)


def come_back_from_snapshot(server: Server) -> float:
    """SIGKILL, and a start from what SAVE wrote; when it was gone."""
    server.kill()
    gone_s = time.monotonic()
    server.start()
    return gone_s
