"""Faults of one Redis: each with two gateways under load."""

from __future__ import annotations

import asyncio
import contextlib
import time

import redis
from lab.redis_servers import Server, free_port, wait_until

from whole.acts import away, census, end_some, people, under_load, until
from whole.history import Loss
from whole.stage import Stage, schedule


async def _one_server(stage: Stage, options: dict[str, object] | None = None) -> Server:
    server = stage.server(options)
    await stage.gateways(stage.url(server), stage.url(server))
    return server


@schedule()
async def no_fault(stage: Stage) -> None:
    """Nothing happens: what the judge says of a healthy run."""
    server = await _one_server(stage)

    async def nothing() -> None:
        await until(stage, 2)

    await under_load(stage, nothing)
    await stage.settle()
    stage.measure_touches(server, time.monotonic() - stage.rules.flush_s)


@schedule()
async def redis_killed(stage: Stage) -> None:
    """SIGKILL, and back a moment later from a snapshot of before the logouts."""
    server = stage.server()
    await stage.gateways(stage.url(server), stage.url(server))

    async def fault() -> None:
        start_s = time.monotonic()
        await asyncio.to_thread(server.kill)
        gone_s = time.monotonic()
        await until(stage, 3)
        await asyncio.to_thread(server.start)
        stage.fleet.window((0, 1), start_s)
        stage.history.losses.append(Loss(gone_s, kept_s))

    made = await people(stage, stage.scaled(400, 60))
    await asyncio.to_thread(server.admin, "SAVE")
    kept_s = time.monotonic()
    third = len(made) // 3
    async with stage.fleet.crowd(made, (0, 1), per_s=stage.scaled(250, 150)):
        await end_some(stage, made[:third])
        await fault()
        await until(stage, 3)
        await end_some(stage, made[third : 2 * third])
        await stage.settle()
    await census(stage, made)


@schedule()
async def redis_stopped(stage: Stage) -> None:
    """SIGSTOP for four times the timeout."""
    server = await _one_server(stage)
    await under_load(stage, lambda: away(stage, server.pause, server.resume, for_s=4))


@schedule()
async def redis_paused_by_command(stage: Stage) -> None:
    """CLIENT PAUSE of everything."""
    server = await _one_server(stage)
    await under_load(
        stage,
        lambda: away(
            stage,
            lambda: server.admin("CLIENT", "PAUSE", stage.scaled(4000, 1200), "ALL"),
            lambda: server.admin("PING"),  # it is answered when the pause is over, as UNPAUSE would be
            for_s=3,
        ),
    )


@schedule()
async def flushall(stage: Stage) -> None:
    """FLUSHALL: what is lost is lost, and who logs in then is in."""
    server = await _one_server(stage)
    fresh: list[object] = []

    async def fault() -> None:
        await asyncio.to_thread(server.admin, "FLUSHALL")
        stage.history.losses.append(Loss(time.monotonic()))
        made = await people(stage, stage.scaled(100, 20))
        fresh.extend(made)
        await until(stage, 3)
        await census(stage, made)

    await under_load(stage, fault)


@schedule()
async def script_flush(stage: Stage) -> None:
    """SCRIPT FLUSH, again and again: nobody notices."""
    server = await _one_server(stage)

    async def fault() -> None:
        for _ in range(10):
            await asyncio.to_thread(server.admin, "SCRIPT", "FLUSH")
            await until(stage, 0.3)

    await under_load(stage, fault)


@schedule()
async def restarted_empty(stage: Stage) -> None:
    """SIGKILL and back with nothing."""
    server = await _one_server(stage)

    async def fault() -> None:
        start_s = time.monotonic()
        await asyncio.to_thread(server.restart)
        stage.history.losses.append(Loss(time.monotonic()))
        stage.fleet.window((0, 1), start_s)
        await until(stage, 5)

    await under_load(stage, fault)


@schedule()
async def out_of_memory(stage: Stage) -> None:
    """OOM: logins fail with 503, everything else goes on."""
    server = await _one_server(stage)
    stage.rules.may_be_refused = ("login", "rotate")

    async def fault() -> None:
        await asyncio.to_thread(server.admin, "CONFIG", "SET", "maxmemory", "1")
        for _ in range(10):
            await stage.fleet.log_in(0)
            await until(stage, 0.2)
        await asyncio.to_thread(server.admin, "CONFIG", "SET", "maxmemory", "0")

    await under_load(stage, fault)


async def _unreachable(stage: Stage, server: Server, setting: str, value: str) -> None:
    """A setting that shuts gateways out of a server that is alive, while one connection of ours
    stays.
    """
    with contextlib.closing(server.client()) as client:
        before = client.config_get(setting)[setting]

        def begin() -> None:
            client.config_set(setting, value)
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub")

        await away(stage, begin, lambda: client.config_set(setting, before or ""), for_s=3)


@schedule()
async def too_many_clients(stage: Stage) -> None:
    """`maxclients` reached, and every connection of the gateways gone."""
    server = await _one_server(stage)
    await under_load(stage, lambda: _unreachable(stage, server, "maxclients", "1"))


@schedule()
async def password_changed(stage: Stage) -> None:
    """The gateways' password is wrong for a while."""
    server = await _one_server(stage)
    await under_load(stage, lambda: _unreachable(stage, server, "requirepass", "another"))


@schedule()
async def read_only(stage: Stage) -> None:
    """READONLY: the server is made a replica of one that is not there, and a primary again."""
    server = await _one_server(stage)
    nobody = free_port()
    await under_load(
        stage,
        lambda: away(
            stage,
            lambda: server.admin("REPLICAOF", "127.0.0.1", nobody),
            lambda: server.admin("REPLICAOF", "NO", "ONE"),
            for_s=3,
        ),
    )


@schedule()
async def too_few_replicas(stage: Stage) -> None:
    """`min-replicas-to-write 1`, and the replica stands still."""
    server = stage.server({"min-replicas-to-write": 1, "min-replicas-max-lag": 1, "repl-diskless-sync-delay": 0})
    replica = stage.server({"replicaof": f"127.0.0.1 {server.port}"})
    await asyncio.to_thread(_wait_for_good_replica, server)
    await stage.gateways(stage.url(server), stage.url(server))

    def end() -> None:
        replica.resume()
        _wait_for_good_replica(server)

    await under_load(stage, lambda: away(stage, replica.pause, end, for_s=4))


def _wait_for_good_replica(server: Server) -> None:
    wait_until(lambda: server.admin("INFO", "replication").get("min_slaves_good_slaves") == 1, "a good replica")


@schedule()
async def doorbell_killed(stage: Stage) -> None:
    """CLIENT KILL TYPE pubsub, over and over, and nothing else."""
    server = await _one_server(stage)

    async def fault() -> None:
        made = await people(stage, stage.scaled(100, 20))
        task = asyncio.create_task(_kill_over_and_over(server, "pubsub"))
        async with stage.fleet.crowd(made, (0, 1)):
            await end_some(stage, made[: len(made) // 2])
            await stage.settle()
        task.cancel()

    await under_load(stage, fault)


async def _kill_over_and_over(server: Server, kind: str) -> None:
    with contextlib.closing(server.client()) as client:
        while True:
            with contextlib.suppress(redis.RedisError):
                await asyncio.to_thread(client.client_kill_filter, _type=kind, skipme=True)
            await asyncio.sleep(0.2)


@schedule()
async def connections_killed(stage: Stage) -> None:
    """CLIENT KILL TYPE normal, over and over: a lost connection is answered by sending again."""
    server = await _one_server(stage)

    async def fault() -> None:
        start_s = time.monotonic()
        task = asyncio.create_task(_kill_over_and_over(server, "normal"))
        await until(stage, 3)
        task.cancel()
        stage.fleet.window((0, 1), start_s, is_deaf=False)

    await under_load(stage, fault)


@schedule()
async def clock_jumps(stage: Stage) -> None:
    """The store's clock jumps by an hour, forth and back."""
    server, clock = stage.skewed_server()
    await stage.gateways(stage.url(server), stage.url(server))

    async def fault() -> None:
        clock.set(3600)
        await until(stage, stage.scaled(12, 2))
        clock.set(0)
        await until(stage, stage.scaled(12, 2))

    await under_load(stage, fault)
