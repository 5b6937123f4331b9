"""Where a schedule is played: servers, links and gateways that are all ended with it, and what
comes of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.redis_servers import ClusterSetup, SentinelSetup, Server

from whole.fleet import Fleet, Settings
from whole.history import History, Rules
from whole.judge import Judgement, judge, touches_lost
from whole.link import Door, Links

RUN_BOUND_S = 180.0
CLOCK_SOURCE = Path(__file__).parent / "skewed_clock.c"


class Stage:
    """One run of one schedule. `is_short`: the form for `make test`, with smaller numbers and
    shorter times.
    """

    def __init__(self, folder: Path, *, is_short: bool) -> None:
        self.folder = folder
        self.is_short = is_short
        self.notes: list[str] = []
        self.broken: list[str] = []
        self.history = History(Rules())
        if is_short:
            self.history.rules.lease_s, self.history.rules.flush_s = 0.8, 0.2
        self.touches: tuple[float, float] | None = None  # the worst age, and the bound
        self._exits = contextlib.ExitStack()
        self._links: Links | None = None
        self._fleet: Fleet | None = None

    @property
    def rules(self) -> Rules:
        return self.history.rules

    def scaled(self, whole: int, short: int) -> int:
        return short if self.is_short else whole

    @property
    def timeout_ms(self) -> int:
        """The timeout of a call of the store, in the URL: below lease - flush interval, as
        docs/how-to/redis.md wants it.
        """
        return 500 if self.is_short else 1000

    # Servers

    def server(
        self, options: dict[str, object] | None = None, *, environment: Mapping[str, str] | None = None
    ) -> Server:
        with started_with(environment or {}):
            made = Server(self.folder, options)
        self._exits.callback(made.kill)
        return made

    def sentinel(self, **options: Any) -> SentinelSetup:
        made = SentinelSetup(self.folder, **options)
        self._exits.callback(made.close)
        return made

    def cluster(self, **options: Any) -> ClusterSetup:
        made = ClusterSetup(self.folder, **options)
        self._exits.callback(made.close)
        return made

    def skewed_server(self) -> tuple[Server, Clock]:
        """A server whose clock the schedule sets."""
        clock = Clock(self.folder)
        return self.server(environment=clock.environment), clock

    def small_disk(self, size_kib: int) -> Path | None:
        """A file system of its own; None: this machine lets nobody mount."""
        folder = self.folder / "disk"
        folder.mkdir()
        options = f"size={size_kib}k"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if mounted.returncode:
            return None
        self._exits.callback(subprocess.run, ["umount", "--lazy", str(folder)], capture_output=True, check=False)
        return folder

    def link(self, server: Server) -> Door:
        """A door of its own to a server."""
        if self._links is None:
            self._links = Links()
            self._exits.callback(self._links.close)
        return self._links.door(("127.0.0.1", server.port))

    # Gateways

    @property
    def fleet(self) -> Fleet:
        if self._fleet is None:
            self._fleet = Fleet(self.folder, self.history)
            self._exits.callback(self._fleet.close)
        return self._fleet

    async def gateways(self, *urls: str, **settings: Any) -> Fleet:
        """One gateway for each URL of the store, with the stage's times."""
        common: dict[str, Any] = {
            "flush_ms": round(self.rules.flush_s * 1000),
            "lease_ms": round(self.rules.lease_s * 1000),
            "grace_s": round(self.rules.grace_s),
            "policy": self.rules.outage_policy,
        }
        if self.rules.idle_s != math.inf:
            common["idle_s"] = round(self.rules.idle_s)
        await self.fleet.start(*(Settings(url=url, **{**common, **settings}) for url in urls))
        return self.fleet

    def url(self, at: Server | Door, **options: object) -> str:
        address = at.url_address if isinstance(at, Door) else at.address
        words = {"timeout_ms": self.timeout_ms, **options}
        return f"redis://{address}/0?" + "&".join(f"{name}={value}" for name, value in words.items())

    # What came of it

    async def settle(self, leases: float = 1.0) -> None:
        """As long as a gateway may take to hear of something, and a moment."""
        await asyncio.sleep(leases * self.rules.lease_s + 0.1)

    def want(self, holds: bool, what: str) -> None:
        """Something that the history does not show."""
        if not holds:
            self.broken.append(what)

    def measure_touches(
        self, server: Server, until_s: float, *, round_trip_s: float = 0.0, idle_s: float = 7200
    ) -> None:
        """P5, in the store now, of what was answered until then (when a gateway died)."""
        behind_s = time.time() - time.monotonic()
        deadlines_s: dict[str, float] = {}
        with server.client() as client:
            for key in client.scan_iter("{ft:*}:live"):
                for member, deadline_ms in client.zrange(key, 0, -1, withscores=True):
                    principal = member.partition(".")[2]
                    last_use_s = deadline_ms / 1000 - idle_s - self.rules.flush_s - behind_s
                    deadlines_s[principal] = max(deadlines_s.get(principal, 0.0), last_use_s)
        worst = touches_lost(self.history, deadlines_s, until_s, clock_error_s=0.05 + round_trip_s)
        if worst is None:
            self.broken.append("no session is in the store")
            return
        self.touches = (worst[0], self.rules.flush_s + round_trip_s + 0.1)

    def judgement(self) -> Judgement:
        made = judge(self.history)
        made.notes, made.broken = self.notes, self.broken
        if self.touches:
            made.touches_lost_s, made.touches_bound_s = self.touches
        return made

    def close(self) -> None:
        self._exits.close()


class Clock:
    """The time of a server that was started with `environment`: ahead of the true one by `set`, and
    faster.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        library = folder / "skewed_clock.so"
        subprocess.run(
            ["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(CLOCK_SOURCE)], check=True, capture_output=True
        )
        self.set(0.0, 0.0)
        self.environment = {"LD_PRELOAD": str(library), "SKEWED_CLOCK": str(self._file)}

    def set(self, ahead_s: float, drift: float = 0.0) -> None:
        """From now on. `drift`: seconds a second."""
        words = f"{time.clock_gettime(time.CLOCK_MONOTONIC):.6f} {ahead_s:.6f} {drift:.9f}"
        file = os.open(self._file, os.O_WRONLY | os.O_CREAT)  # not cut to nothing first: it is mapped
        os.pwrite(file, words.ljust(100).encode() + b"\n", 0)
        os.close(file)


@contextlib.contextmanager
def started_with(values: Mapping[str, str]) -> Iterator[None]:
    """For a process that starts within."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


Play = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Schedule:
    """One row of the table."""

    name: str
    play: Play
    about: str
    has_short_form: bool


SCHEDULES: dict[str, Schedule] = {}


def schedule(*, short: bool = True) -> Callable[[Play], Play]:
    """Registers a function as a schedule, by its name. `short=False`: it cannot be short, and is
    only in `make faults`.
    """

    def register(play: Play) -> Play:
        name = play.__name__
        SCHEDULES[name] = Schedule(name, play, (play.__doc__ or "").strip().splitlines()[0], short)
        return play

    return register


async def perform(made: Schedule, folder: Path, *, is_short: bool, bound_s: float = RUN_BOUND_S) -> Judgement:
    """Play it, and judge. Everything that it started has ended when this returns."""
    stage = Stage(folder, is_short=is_short)
    try:
        async with asyncio.timeout(bound_s):
            await made.play(stage)
        return stage.judgement()
    finally:
        stage.close()
