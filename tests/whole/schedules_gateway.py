"""Faults of gateways, and of the disk under SQLite."""

# ruff: noqa: ASYNC110 -- what another process does is looked for, at every turn

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from lab.redis_servers import Server

from whole.acts import away, census, end_some, people, under_load, until
from whole.history import Loss
from whole.stage import Stage, schedule


async def _one_server(stage: Stage, **settings: int) -> Server:
    server = stage.server()
    await stage.gateways(stage.url(server), stage.url(server), **settings)
    return server


@schedule()
async def gateway_killed(stage: Stage) -> None:
    """SIGKILL to all processes of a gateway under load: a flush interval of touches is lost."""
    server = await _one_server(stage)
    made = await people(stage, stage.scaled(1000, 100))
    async with stage.fleet.crowd(made, (0,), per_s=stage.scaled(1000, 300)):
        await until(stage, 4)
        killed_s = time.monotonic()
        await asyncio.to_thread(stage.fleet.gateways[0].kill)
        await asyncio.sleep(0.2)
    stage.fleet.window((0,), killed_s, is_deaf=False)
    await asyncio.to_thread(stage.measure_touches, server, killed_s)
    await census(stage, made, (1,))


@schedule()
async def gateway_ended_under_load(stage: Stage) -> None:
    """SIGTERM under load: what is under way is answered, and no touch is lost."""
    server = await _one_server(stage)
    made = await people(stage, stage.scaled(1000, 100))
    async with stage.fleet.crowd(made, (0,), per_s=stage.scaled(1000, 300)):
        await until(stage, 3)
        start_s = time.monotonic()
        code = await asyncio.to_thread(stage.fleet.gateways[0].end)
        ended_s = time.monotonic()
        stage.fleet.window((0,), start_s, ended_s + 2, is_deaf=False)
    stage.want(code == 0, f"exit code {code}")
    await asyncio.to_thread(stage.measure_touches, server, ended_s)
    if stage.touches:
        stage.touches = (stage.touches[0], 0.0)  # none: P5
    await census(stage, made, (1,))


@schedule()
async def gateway_reloaded_under_load(stage: Stage) -> None:
    """SIGHUP three times under load, with two threads: no request is dropped, no session
    forgotten.
    """
    await _one_server(stage, threads=stage.scaled(2, 1))

    async def fault() -> None:
        for _ in range(stage.scaled(3, 1)):
            outcome = await asyncio.to_thread(stage.fleet.gateways[0].reload)
            stage.want(outcome.startswith("reloaded: the worker"), outcome)
            await until(stage, 1)

    await under_load(stage, fault)


@schedule()
async def gateway_stopped(stage: Stage) -> None:
    """SIGSTOP for five seconds; sessions end elsewhere meanwhile; awake, it must know."""
    await _one_server(stage)

    async def fault() -> None:
        made = await people(stage, stage.scaled(200, 40))
        async with stage.fleet.crowd(made, (0,), per_s=200, at_once=300):
            await asyncio.sleep(0.3)
            start_s = time.monotonic()
            stage.fleet.gateways[0].pause()
            await end_some(stage, made[: len(made) // 2], (1,))
            await until(stage, 5)
            stage.fleet.gateways[0].resume()
            stage.fleet.window((0,), start_s, is_deaf=False)
            await stage.settle()

    await under_load(stage, fault, ends_before=False)


@schedule()
async def worker_killed(stage: Stage) -> None:
    """The worker is killed, with two threads, and replaced."""
    await _one_server(stage, threads=2)

    async def fault() -> None:
        for _ in range(stage.scaled(3, 1)):
            start_s = time.monotonic()
            os.kill(stage.fleet.gateways[0].site.workers()[0], signal.SIGKILL)
            await until(stage, 2)
            stage.history.forgets.append((0, time.monotonic()))
            stage.fleet.window((0,), start_s, start_s + 0.5, is_deaf=False)

    await under_load(stage, fault)


@schedule(short=False)
async def worker_hangs(stage: Stage) -> None:
    """The worker is stopped by SIGSTOP and never continued: the gateway replaces it."""
    await _one_server(stage, threads=2)
    pid = stage.fleet.gateways[0].site.workers()[0]

    async def fault() -> None:
        start_s = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        while pid in stage.fleet.gateways[0].site.workers() and time.monotonic() < start_s + 20:
            await asyncio.sleep(0.2)
        is_replaced = pid not in stage.fleet.gateways[0].site.workers()
        stage.want(is_replaced, "the worker that hung was not replaced in 20 s")
        stage.notes.append(f"replaced after {time.monotonic() - start_s:.1f} s" if is_replaced else "")
        if not is_replaced:
            os.kill(pid, signal.SIGCONT)
        stage.history.forgets.append((0, time.monotonic()))
        stage.fleet.window((0,), start_s, is_deaf=False)

    await under_load(stage, fault)


@schedule()
async def sqlite_disk_full(stage: Stage) -> None:
    """The disk under SQLite is full for a while: two gateways with two threads each."""
    disk = await asyncio.to_thread(stage.small_disk, stage.scaled(16_384, 4096))
    if disk is None:
        stage.notes.append("not played: nothing can be mounted here")
        return
    url = f"sqlite:///{disk}/sessions.db"
    await stage.gateways(url, url, threads=2)
    filler = disk / "filler"
    stage.rules.may_be_refused = ("login", "logout", "everywhere", "rotate")

    async def fault() -> None:
        await asyncio.to_thread(_fill, filler)
        # SQLite has some room in files that it has already: until that is used up, too.
        refused = 0
        for _ in range(stage.scaled(200, 40)):
            refused += (await stage.fleet.log_in_at_once(50, 0, 25)).count(None)
            if refused > 100:
                break
        stage.want(refused > 0, "the disk was never full")
        await until(stage, 2)
        await asyncio.to_thread(filler.unlink)
        await until(stage, 2)

    # Nothing is to be seen of it in uses: what was read is held, and touches wait for the disk.
    await under_load(stage, fault)


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


@schedule()
async def sqlite_under_load(stage: Stage) -> None:
    """SQLite, two gateways with two threads each: sessions made and ended in any process are so in
    all.
    """
    url = f"sqlite:///{stage.folder}/sessions.db"
    await stage.gateways(url, url, threads=2)

    async def nothing() -> None:
        await until(stage, 2)

    await under_load(stage, nothing)


@schedule()
async def two_threads_each_and_redis_stopped(stage: Stage) -> None:
    """SIGSTOP of Redis under two gateways with two threads each."""
    server = await _one_server(stage, threads=2)
    made = await people(stage, stage.scaled(200, 40))
    await stage.fleet.use_all(made * 3, (0, 1))
    async with stage.fleet.crowd(made, (0, 1)):
        await end_some(stage, made[: len(made) // 3])
        # Which worker a request comes to is the kernel's choice: what one holds the other may not.
        await away(stage, server.pause, server.resume, for_s=4, holds=False)
        await until(stage, 1)
        await end_some(stage, made[len(made) // 3 : len(made) // 2])
        await stage.settle()
    await census(stage, made)


@schedule()
async def worker_replaced_while_the_store_is_away(stage: Stage) -> None:
    """P12: Redis is dead when the worker dies; the next one serves, says 503 for what it
    cannot know, and never 401.
    """
    server = await _one_server(stage, threads=2)
    made = await people(stage, stage.scaled(100, 40))
    await asyncio.to_thread(server.admin, "SAVE")
    kept_s = time.monotonic()
    async with stage.fleet.crowd(made, (0,), per_s=100):
        start_s = time.monotonic()
        await asyncio.to_thread(server.kill)
        gone_s = time.monotonic()
        before = set(stage.fleet.gateways[0].site.workers())
        os.kill(min(before), signal.SIGKILL)
        await until(stage, 5)
        after = set(stage.fleet.gateways[0].site.workers())
        stage.want(
            len(after - before) == 1,
            f"the worker was not replaced: {len(after)} are there, {len(after - before)} new",
        )
        await asyncio.to_thread(server.start)
        stage.fleet.window((0, 1), start_s, holds=False)
        stage.history.losses.append(Loss(gone_s, kept_s))
        await asyncio.sleep(2.5)
        await stage.settle()
    await census(stage, made)


@schedule()
async def worker_replaced_while_the_key_file_is_gone(stage: Stage) -> None:
    """P12: the key file is not there when the only worker dies: the next one goes on with the keys
    that the gateway had.
    """
    await _one_server(stage)
    made = await people(stage, stage.scaled(100, 40))
    keys, hidden = stage.folder / "keys.toml", stage.folder / "keys.hidden"
    async with stage.fleet.crowd(made, (0,), per_s=100):
        await asyncio.to_thread(keys.rename, hidden)
        start_s = time.monotonic()
        os.kill(stage.fleet.gateways[0].site.workers()[0], signal.SIGKILL)
        stage.fleet.window((0,), start_s, start_s + 1, is_deaf=False)
        await asyncio.sleep(stage.scaled(10, 6))  # recovery_s is over before the end, too
        await asyncio.to_thread(hidden.rename, keys)
    await census(stage, made)


@schedule()
async def no_descriptors_left(stage: Stage) -> None:
    """Idle clients take all descriptors of gateway 0: what it cannot accept waits, what it admits
    it knows, and it recovers.
    """
    await _one_server(stage, descriptors=200)
    made = await people(stage, stage.scaled(100, 40))
    async with stage.fleet.crowd(made, (0, 1), per_s=100, at_once=20):
        start_s = time.monotonic()
        idle = [await asyncio.open_connection(*stage.fleet.gateways[0].address) for _ in range(400)]
        await end_some(stage, made[: len(made) // 2], (1,))
        await until(stage, 4)
        for _, writer in idle:
            writer.close()
        stage.fleet.window((0,), start_s, is_deaf=False)
        await until(stage, 3)
        await stage.settle()
    await census(stage, made)
