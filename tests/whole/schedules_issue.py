"""Failures of the past, each as it was seen: the numbers of sessions, the delays and the waits are
those of issue 11.
"""

# ruff: noqa: ASYNC110 -- what another process does is looked for, at every turn

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from typing import Any

from lab.redis_servers import Server

from whole.acts import census, come_back_from_snapshot, end_some, logins, people
from whole.fleet import Session, Settings
from whole.history import Loss
from whole.stage import Stage, schedule

#: Logins under way at a time: each has a client's and an upstream's descriptor in the gateway, and
#: 20,000 is what this machine allows.
LOGINS_AT_ONCE = 9_500


@schedule()
async def stopped_with_an_exchange_in_flight(stage: Stage) -> None:
    """1a: 0.3 s each way; gateway 0 stopped for 5 s while it waits for answers; sessions end
    elsewhere; then it wakes.
    """
    server = stage.server()
    door = stage.link(server)
    await stage.gateways(stage.url(door), stage.url(server))
    cold = await stage.fleet.log_in_all(stage.scaled(4000, 300), (1,))
    for _ in range(stage.scaled(4, 1)):
        await asyncio.to_thread(door.delay, 0)
        await asyncio.sleep(stage.scaled(3, 0))
        made = await stage.fleet.log_in_all(stage.scaled(500, 60), (1,))
        await stage.fleet.use_all(made, (0, 1), at_once=200)
        await asyncio.to_thread(door.delay, 0.15 if stage.is_short else 0.3)
        async with (
            stage.fleet.crowd(made, (0,), per_s=stage.scaled(400, 200), at_once=stage.scaled(400, 100)),
            stage.fleet.crowd(cold, (0,), per_s=100),  # something is always under way
        ):
            await asyncio.sleep(0.7)
            start_s = time.monotonic()
            stage.fleet.gateways[0].pause()
            await end_some(stage, made[: len(made) // 2], (1,))
            await asyncio.sleep(max(0.0, start_s + stage.scaled(50, 20) / 10 - time.monotonic()))
            stage.fleet.gateways[0].resume()
            stage.fleet.window((0,), start_s, is_deaf=False)
            await stage.settle(1.5)


@schedule(short=False)
async def doorbell_silent_and_long_unused(stage: Stage) -> None:
    """1b: notifications lost, sessions unused here for 65 s, ended elsewhere, the store killed 10 s
    later.
    """
    server = stage.server()
    door = stage.link(server)
    await stage.gateways(stage.url(door), stage.url(server))
    await asyncio.to_thread(door.mute)
    made = await people(stage, 46)
    await asyncio.sleep(65)
    await end_some(stage, made[:23], (1,))
    await asyncio.sleep(10)
    start_s = time.monotonic()
    await asyncio.to_thread(server.kill)
    for _ in range(5):
        await census(stage, made[:23], (0,))
        await asyncio.sleep(0.5)
    stage.fleet.window((0, 1), start_s, holds=False)


@schedule()
async def failover_of_a_master_that_lives(stage: Stage) -> None:
    """2: SENTINEL FAILOVER; one gateway speaks to the new master at once, and the old one lives for
    ten seconds more.
    """
    setup = await asyncio.to_thread(stage.sentinel)
    url = f"{setup.url}?timeout_ms={stage.timeout_ms}"
    await stage.gateways(url, url)
    old = setup.master
    made = await people(stage, stage.scaled(300, 40))
    start_s = time.monotonic()
    async with stage.fleet.crowd(made, (0, 1), per_s=stage.scaled(250, 100)), logins(stage) as fresh:
        await asyncio.sleep(0.5)
        await asyncio.to_thread(setup.sentinels[0].admin, "SENTINEL", "FAILOVER", "main")
        while setup.current_master() is old:
            await asyncio.sleep(0.05)
        switched_s = time.monotonic()
        stage.fleet.window((0, 1), start_s, is_deaf=False)
        await asyncio.to_thread(stage.fleet.gateways[1].reload)
        await end_some(stage, made[: len(made) // 2], (1,))
        limit_s = switched_s + stage.scaled(15, 2)
        while old.admin("ROLE")[0] != "slave" and time.monotonic() < limit_s:
            await asyncio.sleep(0.1)
        if old.admin("ROLE")[0] != "slave":  # the short form: what the sentinels do after ten seconds
            _demote(old, setup.current_master())
        demoted_s = time.monotonic()
        await stage.settle()
        stage.fleet.window((0, 1), demoted_s, demoted_s + 0.1, is_deaf=False)
    await stage.settle()
    await census(stage, [*made, *fresh])
    after = {e.session for e in stage.history.events if e.kind == "login" and e.status == 200 and e.sent_s > switched_s}
    dead = {e.session for e in stage.history.events if e.status == 401 and e.session in after}
    stage.notes.append(
        f"the old master lived {demoted_s - switched_s:.1f} s; of {len(after)} logins after the switch {len(dead)} were 401; "
        f"gaps {sum(gateway.log.count('has a gap') for gateway in stage.fleet.gateways)}"
    )


def _demote(old: Server, master: Server) -> None:
    old.admin("REPLICAOF", "127.0.0.1", master.port)
    for kind in ("pubsub", "normal"):
        old.admin("CLIENT", "KILL", "TYPE", kind)


def _allow_descriptors() -> None:
    """Thousands of clients in one process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@schedule()
async def burst_of_logins(stage: Stage) -> None:
    """3: 20,000 logins at once on a healthy Redis; beside them sessions in use, and some that are
    ended elsewhere.
    """
    _allow_descriptors()
    server = stage.server()
    await stage.gateways(stage.url(server), stage.url(server))
    stage.rules.may_be_refused = ("login",)
    made = await people(stage, stage.scaled(400, 60))
    async with stage.fleet.crowd(made, (0,), per_s=200, at_once=400):
        await asyncio.sleep(1)
        before_s = time.monotonic()
        number = stage.scaled(20_000, 1500)
        burst = asyncio.create_task(stage.fleet.log_in_at_once(number, 0, LOGINS_AT_ONCE))
        await asyncio.sleep(0.2)
        await end_some(stage, made[: len(made) // 2], (1,))
        outcomes = await burst
        took_s = time.monotonic() - before_s
        await stage.settle()
    await census(stage, made)
    events = stage.history.events
    waits_ms = [1000 * (e.received_s - e.sent_s) for e in events if e.kind == "use" and e.sent_s < before_s]
    beside_ms = [
        1000 * (e.received_s - e.sent_s) for e in events if e.kind == "use" and before_s < e.sent_s < before_s + took_s
    ]
    stage.want(stage.fleet.trips() == 0, f"{stage.fleet.trips()} trips of a breaker on a healthy Redis")
    stage.notes.append(
        f"{number - outcomes.count(None)} of {number} logins in {took_s:.1f} s; p99 of uses {_p99(waits_ms):.0f} ms before, "
        f"{_p99(beside_ms):.0f} ms beside"
    )


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else 0.0


@schedule()
async def cold_sessions_over_many_connections(stage: Stage) -> None:
    """3: 16,000 sessions that gateway 0 does not hold, over 1,000 connections, 0.05 s to Redis."""
    _allow_descriptors()
    server = stage.server()
    door = stage.link(server)
    await stage.gateways(stage.url(door), stage.url(server))
    await asyncio.to_thread(door.delay, 0.05)
    made = await stage.fleet.log_in_all(stage.scaled(16_000, 1500), (1,), at_once=200)
    began_s = time.monotonic()
    await stage.fleet.use_all(made, (0,), at_once=stage.scaled(1000, 300))
    stage.want(stage.fleet.trips() == 0, f"{stage.fleet.trips()} trips of a breaker on a healthy Redis")
    stage.notes.append(f"{len(made)} cold uses in {time.monotonic() - began_s:.1f} s")


@schedule()
async def snapshot_after_a_rotation_and_its_end(stage: Stage) -> None:
    """4: gateway 0 rotates A to B, gateway 1 ends B, Redis comes back with A; gateway 1 is there
    first, gateway 0 4 s later.
    """
    server = stage.server()
    doors = [stage.link(server), stage.link(server)]
    await stage.gateways(*(stage.url(door) for door in doors))
    number = stage.scaled(20, 8)
    made = await people(stage, 3 * number)
    await asyncio.to_thread(server.admin, "SAVE")
    kept_s = time.monotonic()
    rotated = [session for session in await stage.fleet.rotate_all(0, made) if session]
    await stage.fleet.use_all(rotated, (0, 1))
    ended = [rotated[:number], rotated[number : 2 * number], rotated[2 * number :]]
    await stage.fleet.use_all(ended[0], (1,), kind="logout")
    await stage.fleet.use_all(ended[1], (1,), kind="everywhere")
    last = [session for session in await stage.fleet.rotate_all(1, ended[2]) if session]
    await stage.settle(0.6)
    start_s = time.monotonic()
    await asyncio.to_thread(doors[0].refuse)
    gone_s = await asyncio.to_thread(come_back_from_snapshot, server)
    back_s = time.monotonic()
    stage.fleet.window((1,), start_s, back_s)
    # The rotation in turn (C of B of A) is to be made again if that is possible; what must be is
    # that A and B are dead.
    stage.history.losses.append(Loss(gone_s, kept_s, are_rotations_made_again=False))
    await asyncio.sleep(4 if not stage.is_short else 2.5)
    await asyncio.to_thread(doors[0].open)
    stage.fleet.window((0,), start_s)
    await asyncio.sleep(2.5)
    await stage.settle()
    for _ in range(2):
        await census(stage, [*made, *rotated])
        await asyncio.sleep(0.5)
    alive = [_count_200(await stage.fleet.use_all(group, (1,))) for group in ended]
    successors = _count_200(await stage.fleet.use_all(last, (1,)))
    stage.notes.append(
        f"B lives after logout, everywhere, rotation: {alive} of {number}; the last successor: {successors} of {number}"
    )


def _count_200(answers: list) -> int:  # type: ignore[type-arg]
    return sum(answer.status == 200 for answer in answers)


async def _loss(stage: Stage, server: Server, kept_s: float, gateways: tuple[int, ...] = (0,)) -> None:
    """The server is lost, comes back from its snapshot, and the gateways have the time that they
    may take.
    """
    start_s = time.monotonic()
    gone_s = await asyncio.to_thread(come_back_from_snapshot, server)
    stage.fleet.window(gateways, start_s, holds=False)
    stage.history.losses.append(Loss(gone_s, kept_s))
    await asyncio.sleep(2.5)
    await stage.settle()


@schedule()
async def reload_between_a_logout_and_the_loss(stage: Stage) -> None:
    """5: the only gateway gets another worker after logouts, and then Redis comes back from before
    them.
    """
    server = stage.server()
    await stage.gateways(stage.url(server))
    number = stage.scaled(20, 8)
    made = await people(stage, 4 * number, (0,))
    await asyncio.to_thread(server.admin, "SAVE")
    kept_s = time.monotonic()
    await stage.fleet.use_all(made[:number], (0,), kind="logout")
    await stage.fleet.use_all(made[number : 2 * number], (0,), kind="everywhere")
    await stage.fleet.rotate_all(0, made[2 * number : 3 * number])
    outcome = await asyncio.to_thread(stage.fleet.gateways[0].replace)
    stage.want(outcome.startswith("reloaded: a new worker"), outcome)
    stage.fleet.gateways[0].caller.close()  # nobody is connected to the old worker any more: it ends
    await asyncio.sleep(1)
    await _loss(stage, server, kept_s)
    await census(stage, made, (0,))
    answers = await stage.fleet.use_all(made[: 3 * number], (0,))
    stage.notes.append(f"{_count_200(answers)} of {3 * number} alive again")


@schedule()
async def everywhere_for_a_crowd_then_the_loss(stage: Stage) -> None:
    """5: log a user with 12,000 sessions out everywhere, then Redis comes back from before it."""
    server = stage.server()
    await stage.gateways(stage.url(server))
    number = stage.scaled(12_000, 400)
    made = [session for session in await stage.fleet.log_in_at_once(number, 0, 100, principal="crowd") if session]
    await asyncio.to_thread(server.admin, "SAVE")
    kept_s = time.monotonic()
    await stage.fleet.ask(0, made[0], "everywhere")
    await asyncio.sleep(0.5)
    await _loss(stage, server, kept_s)
    answers = await stage.fleet.use_all(made, (0,))
    stage.notes.append(f"{_count_200(answers)} of {len(made)} alive again")


@schedule()
async def operators_revocation_then_the_loss(stage: Stage) -> None:
    """5: `fastticket revoke`, whose process is gone when Redis comes back from before it."""
    server = stage.server()
    await stage.gateways(stage.url(server), stage.url(server))
    made = await people(stage, stage.scaled(20, 6))
    await asyncio.to_thread(server.admin, "SAVE")
    kept_s = time.monotonic()
    revoked = made[: len(made) // 2]
    await asyncio.gather(
        *(stage.fleet.revoke(stage.url(server), s, everything=n % 2 == 0) for n, s in enumerate(revoked))
    )
    await stage.settle(0.6)
    await _loss(stage, server, kept_s, (0, 1))
    await census(stage, made)
    answers = await stage.fleet.use_all(revoked, (0,))
    stage.notes.append(f"{_count_200(answers)} of {len(revoked)} alive again")


@schedule(short=False)
async def store_clock_a_thousandth_fast(stage: Stage) -> None:
    """6: the store's clock 0.1 % fast, and Redis killed half a second after the gateway has looked
    at it.
    """
    server, clock = stage.skewed_server()
    clock.set(0.0, 0.001)
    await stage.gateways(stage.url(server))
    made = await people(stage, 2000, (0,))
    for _ in range(2):
        await stage.fleet.use_all(made, (0,))
        await _look_at_the_clock(server)
        await asyncio.sleep(0.5)
        await _killed_for(stage, server, made, 3)
        await asyncio.sleep(stage.rules.recovery_s + 1)


async def _look_at_the_clock(server: Server, bound_s: float = 15) -> None:
    """Until the gateway has asked for the store's time once more, or that long."""
    looks = lambda: server.admin("INFO", "commandstats").get("cmdstat_time", {}).get("calls", 0)  # noqa: E731
    before, limit_s = looks(), time.monotonic() + bound_s
    while looks() == before and time.monotonic() < limit_s:
        await asyncio.sleep(0.02)


async def _killed_for(stage: Stage, server: Server, made: list[Session], for_s: float) -> None:
    await asyncio.to_thread(server.admin, "SAVE")
    kept_s = time.monotonic()
    start_s = time.monotonic()
    await asyncio.to_thread(server.kill)
    gone_s = time.monotonic()
    await asyncio.sleep(0.2)
    await census(stage, made, (0,))
    await asyncio.sleep(for_s)
    await asyncio.to_thread(server.start)
    stage.fleet.window((0,), start_s)
    stage.history.losses.append(Loss(gone_s, kept_s))


@schedule()
async def gap_just_before_an_outage(stage: Stage) -> None:
    """6: the logs are trimmed under the gateway, and Redis is killed half a second later."""
    server = stage.server()
    await stage.gateways(stage.url(server))
    made = await people(stage, stage.scaled(2000, 200), (0,))
    await stage.settle()
    logs = await asyncio.to_thread(lambda: list(server.client().scan_iter("{ft:*}:log")))
    for log in logs:
        await asyncio.to_thread(server.admin, "XTRIM", log, "MAXLEN", "0")
    await asyncio.sleep(0.6 if not stage.is_short else 0.3)
    await _killed_for(stage, server, made, stage.scaled(3, 1))
    await stage.settle()
    await census(stage, made, (0,))


@schedule()
async def reset_on_a_long_link(stage: Stage) -> None:
    """7: a round trip of 0.35 s, `timeout_ms = 1000`, and one reset of all connections."""
    server = stage.server()
    door = stage.link(server)
    await stage.gateways(stage.url(door), stage.url(server))
    await asyncio.to_thread(door.delay, 0.0875 if stage.is_short else 0.175)
    made = await stage.fleet.log_in_all(stage.scaled(900, 200), (1,))
    warm, cold = made[: len(made) // 3], made[len(made) // 3 :]
    await stage.fleet.use_all(warm, (0,))
    start_s = time.monotonic()
    await asyncio.to_thread(door.cut)
    stage.fleet.window((0,), start_s, is_deaf=False)
    step = len(cold) // stage.scaled(30, 10)
    for number in range(0, len(cold), step):
        await stage.fleet.use_all(cold[number : number + step], (0,))
        await stage.fleet.log_in(0)
        await asyncio.sleep(0.5 if not stage.is_short else 0.3)


@schedule()
async def touches_of_a_crowd_on_a_long_link(stage: Stage) -> None:
    """8: 16,000 sessions in use at 0.1 s each way, and SIGKILL: touches are lost within a flush
    interval and a round trip.
    """
    server = stage.server()
    door = stage.link(server)
    await stage.gateways(stage.url(door), stage.url(server))
    made = await stage.fleet.log_in_all(stage.scaled(16_000, 1500), (1,), at_once=200)
    await stage.fleet.use_all(made, (0,), at_once=500)
    await asyncio.to_thread(door.delay, 0.1)
    await stage.settle()
    uses = asyncio.create_task(_use_over_and_over(stage, made, stage.scaled(8, 2)))
    await uses
    killed_s = time.monotonic()
    await asyncio.to_thread(stage.fleet.gateways[0].kill)
    await asyncio.sleep(0.5)
    await asyncio.to_thread(stage.measure_touches, server, killed_s, round_trip_s=0.2)


async def _use_over_and_over(stage: Stage, made: list[Session], for_s: float) -> None:
    limit_s = time.monotonic() + for_s
    while time.monotonic() < limit_s:
        for start in range(0, len(made), 500):
            await stage.fleet.use_all(made[start : start + 500], (0,), at_once=100)
            if time.monotonic() > limit_s:
                return


async def _hanging_sentinels(stage: Stage, number: int) -> None:
    """Gateway 0 serves when the first two sentinels begin to hang, and loses its connections then;
    gateway 1 starts after that.
    """
    setup = await asyncio.to_thread(lambda: stage.sentinel(sentinels=number))
    url = f"{setup.url}?timeout_ms={stage.timeout_ms}"
    await stage.gateways(url)
    made = await people(stage, 40, (0,))
    for sentinel in setup.sentinels[:2]:
        sentinel.pause()
    start_s = time.monotonic()
    await asyncio.to_thread(setup.master.admin, "CLIENT", "KILL", "TYPE", "normal")
    stage.fleet.window((0,), start_s, is_deaf=False)
    gateways = [0]
    try:
        await stage.gateways(url)
        gateways.append(1)
    except AssertionError:
        stage.want(False, f"gateway 1 did not start: {stage.fleet.gateways[1].log[-200:]}")
    stage.fleet.window((1,), start_s, is_deaf=False)
    async with stage.fleet.crowd(made, gateways, per_s=100), logins(stage, gateways, per_s=5) as fresh:
        await asyncio.sleep(10)
    stage.want(len(fresh) > 0, "no login in all that time")
    await census(stage, [*made, *fresh], gateways)
    for sentinel in setup.sentinels[:2]:
        sentinel.resume()
    stage.notes.append(f"{len(fresh)} logins")


@schedule(short=False)
async def two_of_five_sentinels_hang(stage: Stage) -> None:
    """9: the first two of five sentinels accept and say nothing."""
    await _hanging_sentinels(stage, 5)


@schedule(short=False)
async def two_of_three_sentinels_hang(stage: Stage) -> None:
    """9: the first two of three sentinels accept and say nothing."""
    await _hanging_sentinels(stage, 3)


@schedule()
async def other_number_of_shards_after_flushall(stage: Stage) -> None:
    """11: FLUSHALL, then a gateway with 32 shards beside one with 16: one of them refuses, and
    nobody gets a false 401.
    """
    server = stage.server()
    await stage.gateways(stage.url(server))
    await people(stage, 20, (0,))
    await asyncio.to_thread(server.admin, "FLUSHALL")
    stage.history.losses.append(Loss(time.monotonic()))
    made = await people(stage, 20, (0,))
    await stage.settle()
    try:
        await stage.gateways(stage.url(server, shards=32))
    except AssertionError:
        stage.want("shards" in stage.fleet.gateways[1].log, "the second one did not start, and does not say why")
        await census(stage, made, (0,))
        return
    stage.notes.append("both serve")
    for _ in range(2):
        for gateway in (0, 1):
            made += [s for s in [await stage.fleet.log_in(gateway) for _ in range(20)] if s]
        await census(stage, made)
        await stage.settle(0.5)
    refuses = [sum(e.is_failure for e in stage.history.events if e.gateway == g) for g in (0, 1)]
    stage.want(any(refuses), "two gateways with different shards serve side by side")


@schedule()
async def different_flush_intervals(stage: Stage) -> None:
    """11: `flush_interval_ms` 500 here and 2,000 there, idle timeout 8 s: in use through either is
    in use.
    """
    server = stage.server()
    scale = 0.5 if stage.is_short else 1.0
    idle_s, quick_ms, slow_ms = round(8 * scale), round(500 * scale), round(2000 * scale)
    stage.rules.idle_s, stage.rules.flush_s, stage.rules.lease_s = idle_s, slow_ms / 1000, 4.0
    common: dict[str, Any] = {"url": stage.url(server), "idle_s": idle_s, "lease_ms": 4000}
    await stage.fleet.start(Settings(**common, flush_ms=quick_ms), Settings(**common, flush_ms=slow_ms))
    made = await stage.fleet.log_in_all(100, (0,))
    for _ in range(stage.scaled(2, 1)):
        await asyncio.gather(*(_just_in_time(stage, s, n * 0.01, idle_s) for n, s in enumerate(made)))


QUICK_IS_OVER_S = 0.55  # the slack of the quick gateway, half a second, and a moment


async def _just_in_time(stage: Stage, session: Session, after_s: float, idle_s: float) -> None:
    """Used by the quick gateway, by the slow one shortly before the end, and by the quick one
    shortly after it.
    """
    await asyncio.sleep(after_s)
    began_s = time.monotonic()
    await stage.fleet.ask(0, session)
    await asyncio.sleep(began_s + idle_s - 0.1 - time.monotonic())
    await stage.fleet.ask(1, session)
    await asyncio.sleep(began_s + idle_s + QUICK_IS_OVER_S + 0.003 * (session.number % 100) - time.monotonic())
    await stage.fleet.ask(0, session)
