"""Faults of the link between one gateway and Redis, while the other gateway is well."""

from __future__ import annotations

import asyncio
import time

from whole.acts import away, census, end_some, people, under_load, until
from whole.link import Door
from whole.stage import Stage, schedule

SIGNAL_S = 0.05  # until a signal has stopped a process: it may still answer what it has read


async def _one_link(stage: Stage) -> Door:
    """Gateway 0 by the link, gateway 1 without."""
    server = stage.server()
    door = stage.link(server)
    await stage.gateways(stage.url(door), stage.url(server))
    return door


async def _ends_meanwhile(stage: Stage, door: Door, begin: str) -> None:
    """The link is gone; sessions end through gateway 1; it comes back, and gateway 0 has a lease to
    know.
    """
    made = await people(stage, stage.scaled(200, 40))
    async with stage.fleet.crowd(made, (0, 1)):
        start_s = time.monotonic()
        await asyncio.to_thread(getattr(door, begin))
        await until(stage, 1)
        await end_some(stage, made[: len(made) // 2], (1,))
        await until(stage, 3)
        await asyncio.to_thread(door.open)
        stage.fleet.window((0,), start_s)
        await until(stage, 2)
        await stage.settle()
    await census(stage, made)


@schedule()
async def link_refused(stage: Stage) -> None:
    """Gateway 0 cannot connect, sessions end elsewhere, and it can again."""
    await _ends_meanwhile(stage, await _one_link(stage), "refuse")


@schedule()
async def link_half_open(stage: Stage) -> None:
    """The link accepts everything and carries nothing; then all that was held arrives."""
    await _ends_meanwhile(stage, await _one_link(stage), "hold")


@schedule()
async def link_in_bites(stage: Stage) -> None:
    """A few bytes, a pause, a few bytes: slow, and not an outage."""
    door = await _one_link(stage)
    await asyncio.to_thread(door.bite, 128, 0.001)

    async def nothing() -> None:
        await until(stage, 2)

    await under_load(stage, nothing)


@schedule()
async def link_slow(stage: Stage) -> None:
    """A round trip of half the timeout: slow, and not an outage."""
    door = await _one_link(stage)
    await asyncio.to_thread(door.delay, stage.timeout_ms / 4000)

    async def nothing() -> None:
        await until(stage, 2)

    await under_load(stage, nothing, login_by=(1,))


async def _cuts(stage: Stage, *, reset: bool) -> None:
    door = await _one_link(stage)

    async def fault() -> None:
        start_s = time.monotonic()
        for _ in range(8):
            await asyncio.to_thread(door.cut, reset=reset)
            await until(stage, 0.5)
        stage.fleet.window((0,), start_s, is_deaf=False)

    await under_load(stage, fault)


@schedule()
async def link_reset(stage: Stage) -> None:
    """All connections reset, eight times."""
    await _cuts(stage, reset=True)


@schedule()
async def link_ended(stage: Stage) -> None:
    """All connections ended, eight times."""
    await _cuts(stage, reset=False)


@schedule()
async def doorbell_silent(stage: Stage) -> None:
    """Every notification is lost: revocations are seen within the lease."""
    door = await _one_link(stage)
    await asyncio.to_thread(door.mute)

    async def nothing() -> None:
        await until(stage, 2)

    await under_load(stage, nothing)


@schedule()
async def outage_under_deny(stage: Stage) -> None:
    """`outage_policy = "deny"`: a lease after the store is gone nobody is admitted."""
    stage.rules.outage_policy = "deny"
    server = stage.server()
    await stage.gateways(stage.url(server), stage.url(server))

    async def fault() -> None:
        await away(stage, server.pause, server.resume, for_s=5)
        window = stage.history.windows[-1]
        late = [
            event
            for event in stage.history.events
            if event.kind == "use" and event.status == 200
            and window.start_s + SIGNAL_S + stage.rules.lease_s < event.sent_s and event.received_s < window.end_s
        ]  # fmt: skip
        stage.want(not late, f"{len(late)} admitted without a lease")

    await under_load(stage, fault)
