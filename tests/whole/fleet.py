"""Gateways by their documented configuration, an application behind them, and visitors whose every
request is recorded.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import itertools
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from lab.processes import Site
from lab.redis_servers import free_port

from whole.clients import Answer, Caller
from whole.history import OPERATOR, Event, History, Window

CONFIG = """
[gateway]
listen = ["127.0.0.1:{port}"]
threads = {threads}
drain_timeout_s = 3.0
{gateway}
[ticket]
keys = "{keys}"
idle_timeout_s = {idle_s}
absolute_lifetime_s = {lifetime_s}
[store]
url = "{url}"
flush_interval_ms = {flush_ms}
lease_ms = {lease_ms}
outage_policy = "{policy}"
outage_grace_s = {grace_s}
[cache]
capacity = 200000
[[upstream]]
name = "app"
servers = ["{application}"]
[[route]]
path = "/login"
auth = "none"
login = true
[[route]]
path = "/strong"
consistency = "strong"
[[route]]
path = "/"
auth = "required"
"""

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
Made = TypeVar("Made")

PATHS = {
    "use": "/",
    "strong": "/strong",
    "logout": "/logout",
    "everywhere": "/everywhere",
    "rotate": "/rotate",
}


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its client has it: the cookie."""

    number: int
    principal: str
    cookie: str = field(repr=False)

    @property
    def id(self) -> str:
        """The id in a ticket (docs/reference/ticket-format.md), as the store has it."""
        ticket = self.cookie.partition("=")[2]
        return base64.urlsafe_b64encode(base64.urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4))[2:18])[:22].decode()


@dataclass(slots=True)
class Settings:
    """The settings of a gateway in which schedules differ."""

    url: str
    threads: int = 1
    flush_ms: int = 500
    lease_ms: int = 2000
    idle_s: int = 7200
    lifetime_s: int = 86400
    grace_s: int = 300
    policy: str = "serve-cached"
    gateway: str = ""  # further lines of [gateway]
    descriptors: int = 0  # so many, and not one more; 0: what this process may have


class Gateway:
    """One gateway, as processes."""

    def __init__(self, number: int, folder: Path, settings: Settings, keys: Path, application: str) -> None:
        self.number = number
        self.settings = settings
        self._folder = folder
        self._keys = keys
        self._application = application
        self._port = free_port()
        self._site: Site | None = None
        self.caller = Caller(self.address)
        folder.mkdir()

    def start(self) -> None:
        self._site = Site(self._folder, self._config(), preexec_fn=self._before)

    def _before(self) -> None:
        """In the new process: it ends with this one, and has the descriptors that it is to have."""
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if limit := self.settings.descriptors:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    def _config(self) -> str:
        values = {name: getattr(self.settings, name) for name in Settings.__slots__}
        return CONFIG.format(port=self._port, keys=self._keys, application=self._application, **values)

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self._port)

    @property
    def site(self) -> Site:
        assert self._site
        return self._site

    @property
    def is_running(self) -> bool:
        return self._site is not None and self._site.at.process.poll() is None

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace") if (self._folder / "log").exists() else ""

    def pids(self) -> list[int]:
        return [self.site.pid, *self.site.workers()]

    def pause(self) -> None:
        """All its processes stand still."""
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in reversed(self.pids()):
            os.kill(pid, signal.SIGCONT)

    def reload(self) -> str:
        """Inside its worker."""
        return self.site.reload(self._config())

    def replace(self) -> str:
        """As `reload`, for which it needs another worker."""
        return self.site.reload(self._config().replace("capacity = 200000", "capacity = 199999"))

    def kill(self) -> None:
        """SIGKILL to all its processes at once."""
        self.site.at.kill()

    def end(self) -> int:
        """SIGTERM; the exit code."""
        return self.site.at.end(signal.SIGTERM)

    def close(self) -> None:
        self.caller.close()
        if self._site is None:
            return
        process = self._site.at.process
        if process.poll() is None:
            with contextlib.suppress(OSError):
                self.resume()
            with contextlib.suppress(OSError, AssertionError):
                self._site.at.kill()
        process.wait(10)
        assert process.stdout
        process.stdout.close()


class Fleet:
    """Gateways, one application, and the history of what visitors saw."""

    def __init__(self, folder: Path, history: History) -> None:
        self._folder = folder
        self.history = history
        self.gateways: list[Gateway] = []
        self._numbers = itertools.count()
        self._keys = folder / "keys.toml"
        self._run("keygen", "--out", str(self._keys))
        self._application = subprocess.Popen(
            [sys.executable, "-m", "whole.application"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
        )
        assert self._application.stdout
        self._application_address = f"127.0.0.1:{int(self._application.stdout.readline())}"

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fastticket", *arguments]
        return subprocess.run(
            command, cwd=self._folder, capture_output=True, text=True, env=_environment(), timeout=60, check=False
        )

    async def start(self, *settings: Settings) -> Sequence[Gateway]:
        """Gateways with these settings, at once."""
        made = []
        for each in settings:
            number = len(self.gateways)
            made.append(
                Gateway(number, self._folder / f"gateway-{number}", each, self._keys, self._application_address)
            )
            self.gateways.append(made[-1])
        await asyncio.gather(*(asyncio.to_thread(gateway.start) for gateway in made))
        return made

    # Visitors

    async def log_in(self, gateway: int, principal: str = "") -> Session | None:
        """None: it was not acknowledged."""
        number = next(self._numbers)
        principal = principal or f"user{number}"
        answer = await self.gateways[gateway].caller.ask("/login", user=principal)
        is_made = answer.status == 200 and bool(answer.cookie)
        self._record("login", gateway, number, principal, answer)
        return Session(number, principal, answer.cookie) if is_made else None

    async def log_in_all(self, number: int, gateways: Sequence[int] = (0,), *, at_once: int = 50) -> list[Session]:
        """Log in so many sessions; all are acknowledged."""
        calls = [partial(self.log_in, gateways[n % len(gateways)]) for n in range(number)]
        outcomes = await self._limited(calls, at_once)
        made = [session for session in outcomes if session]
        assert len(made) == number, f"{number - len(made)} of {number} logins failed before the schedule began"
        return made

    async def log_in_at_once(
        self, number: int, gateway: int, at_once: int, principal: str = ""
    ) -> list[Session | None]:
        """So many, with so many under way at a time, each on a connection of its own; whatever
        comes of them.
        """
        return await self._limited([partial(self.log_in, gateway, principal)] * number, at_once)

    async def ask(self, gateway: int, session: Session, kind: str = "use") -> Answer:
        """One request with the session's cookie; `kind` is one of PATHS."""
        answer = await self.gateways[gateway].caller.ask(
            PATHS[kind], cookie=session.cookie, is_safe=kind in ("use", "strong")
        )
        self._record(kind, gateway, session.number, session.principal, answer)
        return answer

    async def rotate(self, gateway: int, session: Session) -> Session | None:
        """The session that it goes on as; None: it was not acknowledged."""
        answer = await self.gateways[gateway].caller.ask("/rotate", cookie=session.cookie)
        number = next(self._numbers) if answer.status == 200 and answer.cookie else None
        self._record("rotate", gateway, session.number, session.principal, answer, successor=number)
        return None if number is None else Session(number, session.principal, answer.cookie)

    async def use_all(
        self, sessions: Iterable[Session], gateways: Sequence[int], *, kind: str = "use", at_once: int = 50
    ) -> list[Answer]:
        """Each through each of the gateways."""
        pairs = [(g, s) for s in sessions for g in gateways]
        return await self._limited([partial(self.ask, g, s, kind) for g, s in pairs], at_once)

    async def rotate_all(self, gateway: int, sessions: Iterable[Session]) -> list[Session | None]:
        return await self._limited([partial(self.rotate, gateway, s) for s in sessions], 50)

    async def _limited(self, calls: Sequence[Callable[[], Awaitable[Made]]], at_once: int) -> list[Made]:
        gate = asyncio.Semaphore(at_once)

        async def one(call: Callable[[], Awaitable[Made]]) -> Made:
            async with gate:
                return await call()

        return await asyncio.gather(*(one(call) for call in calls))

    def _record(
        self, kind: str, gateway: int, session: int, principal: str, answer: Answer, successor: int | None = None
    ) -> None:
        is_asked = kind not in ("login", "revoke", "revoke_all")
        is_right = answer.status == 200 and (answer.body == principal or not is_asked)
        what = "" if is_right else answer.body
        self.history.events.append(
            Event(
                *(kind, gateway, session, principal, answer.sent_s, answer.received_s, answer.status),
                *(successor, answer.has_retry_after, what),
            )
        )

    async def revoke(self, url: str, session: Session, *, everything: bool = False) -> bool:
        """By the operator's command, in a process that ends."""
        sent_s = time.monotonic()
        which = ["--user", session.principal, *([] if everything else ["--", session.id])]
        done = await asyncio.to_thread(self._run, "revoke", "--store", url, *which)
        kind = "revoke_all" if everything else "revoke"
        answer = Answer(200 if done.returncode == 0 else 500, sent_s, time.monotonic(), body=done.stderr[:80])
        self._record(kind, OPERATOR, session.number, session.principal, answer)
        return done.returncode == 0

    # Load

    @contextlib.asynccontextmanager
    async def crowd(
        self, sessions: Sequence[Session], gateways: Sequence[int], *, per_s: float = 200, at_once: int = 100
    ) -> AsyncIterator[None]:
        """Uses of random sessions, so many a second through each gateway; `at_once` if it does not
        answer.
        """
        loads = [asyncio.create_task(self._load(sessions, gateway, per_s, at_once)) for gateway in gateways]
        try:
            yield
        finally:
            for load in loads:
                load.cancel()
            outcomes = await asyncio.gather(*loads, return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome

    async def _load(self, sessions: Sequence[Session], gateway: int, per_s: float, at_once: int) -> None:
        under_way: set[asyncio.Task[Answer]] = set()
        began_s, asked = time.monotonic(), 0
        try:
            while True:
                due = int((time.monotonic() - began_s) * per_s) - asked
                for _ in range(min(due, at_once - len(under_way))):
                    task = asyncio.create_task(self.ask(gateway, random.choice(sessions)))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                asked += max(due, 0)
                await asyncio.sleep(0.01)
        finally:
            if under_way:
                await asyncio.wait(under_way, timeout=3)
            for task in under_way:
                task.cancel()

    def window(self, gateways: Iterable[int], start_s: float, end_s: float | None = None, **options: bool) -> None:
        """It was so for these gateways, until now if nothing else is said."""
        end_s = time.monotonic() if end_s is None else end_s
        self.history.windows += [Window(gateway, start_s, end_s, **options) for gateway in gateways]

    def trips(self) -> int:
        """How often any gateway took a server for away, as its log says."""
        return sum(len(re.findall("asked again after a back-off", gateway.log)) for gateway in self.gateways)

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.close()
        assert self._application.stdin
        assert self._application.stdout
        self._application.stdin.close()
        self._application.stdout.close()
        try:
            self._application.wait(5)
        except subprocess.TimeoutExpired:
            self._application.kill()
            self._application.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
