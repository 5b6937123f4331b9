"""A worker's process, as its supervisor sees and treats it.

to the worker     messages (`control`); SIGUSR2 retire, SIGTERM stop, SIGUSR1 open the log files
                  anew, SIGKILL
from the worker   messages; counters, beats and notes in a `Slot`
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastticket.gateway.admin.refusals import Refused
from fastticket.gateway.channel import Channel
from fastticket.gateway.control import (
    DrainServers,
    Failed,
    Handed,
    HandSessions,
    Inquiry,
    Leave,
    Ready,
    Reload,
    Reloaded,
    ReplaceKeys,
    Serve,
    SetLogLevel,
    Told,
)
from fastticket.gateway.inheritance import Given
from fastticket.gateway.listeners import Sockets
from fastticket.gateway.settings import Config
from fastticket.gateway.sharedmemory import Slot
from fastticket.gateway.snapshot import is_fresh
from fastticket.gateway.upgrade import HeldProcess, socket_of
from fastticket.sessions.handing import Known

log = logging.getLogger("fastticket.supervisor")

INQUIRIES_MAX = 64  # without an answer at a time
INQUIRY_MARGIN_S = 1.0  # for the answer of a worker that has noticed by itself that it takes too long
END_MARGIN_S = 10.0  # for a worker to write what it has after its time to drain; then SIGKILL


class WorkerProcess:
    """A process, from its fork until it has been waited for."""

    def __init__(self, pid: int, channel: Channel, slot: Slot, loop: asyncio.AbstractEventLoop) -> None:
        """`channel`: the supervisor's end; `loop`: for timers."""
        self.pid = pid
        self.slot = slot
        self._channel = channel
        self._loop = loop
        self.born_s = time.monotonic()
        self.is_ready = False  #: it has said that it can serve
        self.is_serving = False  #: it was told to serve
        self.is_dismissed = False  #: it was told to retire or to stop
        self.is_stopped = False  #: it was told to stop
        self.is_to_reopen = False  #: its log files are to be opened anew once it is ready
        self.reason = ""  #: why it could not start
        self.reloaded: Reloaded | None = None  #: what came of the last `reload`
        self.handed: list[Known | bytes] = []  #: what it holds of sessions, if it was asked
        self.has_handed = False  #: that is all
        self._inquiries: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._silent_s = 0.0
        self._beats = 0
        self._deadline: asyncio.TimerHandle | None = None  # when it has to be ready, or gone

    @classmethod
    def adopt(cls, held: HeldProcess, loop: asyncio.AbstractEventLoop) -> WorkerProcess:
        """One that the program before has started, which serves."""
        process = cls(held.pid, Channel(socket_of(held.channel)), Slot(held.slot), loop)
        process.born_s = held.born_s
        process.is_ready = process.is_serving = True
        process.is_dismissed = not held.is_present
        return process

    def held(self) -> HeldProcess:
        """For `adopt`, by the program after."""
        return HeldProcess(self.pid, self._channel.fileno(), self.slot.fileno(), self.born_s, not self.is_dismissed)

    @property
    def is_idle(self) -> bool:
        """Whether no message to or from it is on its way here."""
        return self._channel.is_idle

    def __str__(self) -> str:
        return f"worker (pid {self.pid})"

    # --- what it says

    def follow(
        self, heard: Callable[[], None], drained: Callable[[WorkerProcess, frozenset[tuple[str, str]]], None]
    ) -> None:
        """Listen to it; `heard` is called when it has said something, `drained` with the servers
        that an operator has drained there.
        """

        def hear(message: Any, _sockets: Sequence[object]) -> None:
            if isinstance(message, DrainServers):
                drained(self, message.servers)
            self._hear(message)
            heard()

        self._channel.attach(self._loop, hear)

    def _hear(self, message: Any) -> None:
        match message:
            case Ready():
                self.is_ready = True
                self._has_come()
                if self.is_to_reopen:
                    self.reopen_logs()
            case Failed(reason):
                self.reason = reason
            case Handed(part):
                if part is None:
                    self.has_handed = True
                else:
                    if isinstance(part, Known):  # nothing of an answer that was given up
                        self.handed = []
                    self.handed.append(part)
            case Reloaded():
                self.reloaded = message
                self._has_come()
            case Told(number):
                self._take_answer(self._inquiries.get(number), message)

    @staticmethod
    def _take_answer(waiting: asyncio.Future[Any] | None, told: Told) -> None:
        if waiting is None or waiting.done():  # it came too late
            return
        if told.refusal:
            waiting.set_exception(Refused(told.refusal, told.message))
        else:
            waiting.set_result(told.answer)

    def _has_come(self) -> None:
        """What it had to do in time is done."""
        if self._deadline and not self.is_dismissed:
            self._deadline.cancel()

    def silent_s(self, passed_s: float) -> float:
        """For how long its loop has not run; `passed_s`: the time since the last call, as far as
        this process was awake itself.
        """
        beats = self.slot.beats
        self._silent_s = 0.0 if beats != self._beats else self._silent_s + passed_s
        self._beats = beats
        return self._silent_s

    @property
    def is_giving_back(self) -> bool:
        """Whether it gives sessions back to a store that has lost its data, and is not stuck."""
        note = self.slot.note()
        return note is not None and note.get("is_giving_back", False) and is_fresh(note)

    # --- what it is told

    def let_serve(self) -> None:
        """Serve."""
        self.is_serving = True
        self._channel.send(Serve())

    def leave(self, is_leaving: bool) -> None:
        """Go on, but close every connection after its next answer; or keep them open again."""
        self._channel.send(Leave(is_leaving))

    def replace_keys(self, pairs: Sequence[tuple[int, bytes]]) -> None:
        """Use these keys from now on."""
        self._channel.send(ReplaceKeys(pairs))

    def hand_sessions(self) -> None:
        """Tell what it holds of sessions: `handed`."""
        self.handed, self.has_handed = [], False
        self._channel.send(HandSessions())

    def reload(self, given: Given, sockets: Sockets, timeout_s: float) -> None:
        """Serve by another configuration, on these sockets. `reloaded` has the answer; without one
        in time it is killed.
        """
        self.reloaded = None
        every = list(dict.fromkeys(each for of_plane in sockets for each in of_plane))
        listeners = [[every.index(each) for each in of_plane] for of_plane in sockets]
        config = dataclasses.replace(given.config)  # without what it has read for itself
        self._channel.send(Reload(config, given.pairs, given.servers, listeners), every)
        self.kill_after(timeout_s)

    def state(self) -> dict[str, Any]:
        """What there is to say of it."""
        note = self.slot.note() or {}
        running = "serving" if self.is_serving else "starting"
        return {
            "pid": self.pid,
            "state": "stopping" if self.is_stopped else "retiring" if self.is_dismissed else running,
            "age_s": round(time.monotonic() - self.born_s, 3),
            "silent_s": round(self._silent_s, 3),
            "connections": sum(thread["connections"] for thread in note.get("threads", [])),
            "sessions_held": note["now"]["sessions_held"] if note else 0,
            "retiring_configurations": note.get("retiring", 0),
            "threads": note.get("threads", []),
        }

    def drain_servers(self, servers: frozenset[tuple[str, str]]) -> None:
        """Let these (upstream, server) have no new request, and all others."""
        self._channel.send(DrainServers(servers))

    def set_log_level(self, level: str) -> None:
        """Log from this level on."""
        self._channel.send(SetLogLevel(level))

    async def inquire(self, name: str, arguments: Mapping[str, Any], timeout_s: float) -> Any:
        """Ask for what is under that name in `inquiries`. Refused."""
        if len(self._inquiries) >= INQUIRIES_MAX:
            raise Refused("busy")
        number, answer = next(self._numbers), self._loop.create_future()
        self._inquiries[number] = answer
        self._channel.send(Inquiry(number, name, arguments, timeout_s))
        try:
            async with asyncio.timeout(timeout_s + INQUIRY_MARGIN_S):
                return await answer
        except TimeoutError:
            raise Refused("worker_silent") from None
        finally:
            del self._inquiries[number]

    def reopen_logs(self) -> None:
        """Open the log files anew; later, if it is not ready to answer the signal yet."""
        self.is_to_reopen = not self.is_ready
        if self.is_ready:
            self.send(signal.SIGUSR1)

    # --- its end

    def retire(self, config: Config) -> None:
        """Serve the connected clients to the end, and accept no others."""
        self._dismiss(signal.SIGUSR2, _retirement_s(config))

    def expect_end(self, config: Config) -> None:
        """It was told to retire by the program before."""
        self.kill_after(_retirement_s(config) + END_MARGIN_S)

    def stop(self, config: Config) -> None:
        """Drain and end."""
        self.is_stopped = True
        self._dismiss(signal.SIGTERM, config.gateway.drain_timeout_s)

    def _dismiss(self, number: int, timeout_s: float) -> None:
        self.is_dismissed = True
        self.send(number)
        self.kill_after(timeout_s + END_MARGIN_S)

    def kill_after(self, timeout_s: float) -> None:
        """SIGKILL, unless it is ready before that; or gone, if it was dismissed."""
        if self._deadline:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(timeout_s, self._kill_late, timeout_s)

    def _kill_late(self, timeout_s: float) -> None:
        log.error("%s is killed: not %s in %g s", self, "gone" if self.is_dismissed else "ready", timeout_s)
        self.send(signal.SIGKILL)

    def send(self, number: int) -> None:
        """Send a signal. The pid is its own until `exit_code` has returned one."""
        os.kill(self.pid, number)

    def exit_code(self) -> int | None:
        """None: it lives. Negative: the signal that killed it. Once it is there, the pid may be
        another process's.
        """
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def read_last(self) -> None:
        """It has ended: hear the rest of what it said."""
        self._channel.read_last()

    def close(self) -> None:
        """Free what belongs to it, once it has ended."""
        for waiting in self._inquiries.values():
            if not waiting.done():
                waiting.set_exception(Refused("no_worker", "the worker has ended meanwhile; a change may be done"))
        self._channel.close()
        self.slot.close()
        if self._deadline:
            self._deadline.cancel()


def _retirement_s(config: Config) -> float:
    return config.gateway.retire_timeout_s + config.gateway.drain_timeout_s


def ending_of(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"has ended with {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
