"""An upgrade of the program without a break: the supervisor executes the new program in its own
place, which has its pid, its children and its sockets from then on.

    SIGUSR2   1. a trial: the new program checks the configuration, and whether it can go on from
                 here
              2. execve(2) of the new program, with what it must know in a memory file (Legacy)
              3. it makes a new worker, as for a reload. That one begins with the near cache of the
                 worker before, which retires

Rules of this file
- What goes wrong before 2 changes nothing. What goes wrong after it is a reload that is refused:
  the worker of the old program goes on, under the new supervisor.
- FORMAT stands for all that two versions must agree on: Legacy, the layout of a Slot, the messages
  of `control` and what `sessions.handing` hands over. A change of any of them raises it, and an
  upgrade across it is refused at 1: that takes a restart.
- No secret is in a Legacy.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastticket.errors import ConfigError

FORMAT = 4
VARIABLE = "FASTTICKET_UPGRADE"  # in the new program's environment: the descriptor of the Legacy
TRIAL_TIMEOUT_S = 30.0
OUTPUT_BYTES_MAX = 4096  # of a trial that fails
#: They wait from the execution until the new program answers them; each would end it before that.
WAITING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclasses.dataclass(frozen=True)
class HeldProcess:
    """A worker's process. `channel` and `slot` are descriptors."""

    pid: int
    channel: int
    slot: int
    born_s: float
    is_present: bool  #: it serves; the others retire


@dataclasses.dataclass(frozen=True)
class Legacy:
    """What a supervisor leaves to the program that takes its place. Sockets are descriptors."""

    version: str  #: of the program before
    heritage: str  #: `changes.heritage` of the configuration in force
    processes: Sequence[HeldProcess]
    listeners: Sequence[tuple[Sequence[Any], Sequence[int]]]  #: address, and its sockets
    handover: tuple[int, int]
    admin: int | None
    counted: Mapping[str, Any]  #: by workers that are gone
    servers: Mapping[str, Any]  #: the addresses of names
    restarts: int
    reloads: Mapping[str, int]
    unready_at_s: float | None  #: since when it is drained; CLOCK_MONOTONIC
    drained: Sequence[Sequence[str]] = ()  #: servers of upstreams that are: (upstream, server)

    @property
    def descriptors(self) -> set[int]:
        """All that must outlive the execution."""
        of_processes = {fd for each in self.processes for fd in (each.channel, each.slot)}
        of_listeners = {fd for _, fds in self.listeners for fd in fds}
        return of_processes | of_listeners | set(self.handover) | ({self.admin} - {None})  # type: ignore[operator]


@dataclasses.dataclass(frozen=True)
class Program:
    """How this program was called, and so how the one that is installed there now is called."""

    version: str
    trial: list[str]  #: only checks whether it would serve
    serve: list[str]

    @classmethod
    def of_this_process(cls, version: str) -> Program:
        """As `serve` was called on the command line."""
        serve = [sys.executable, *sys.orig_argv[1:]]
        return cls(version, [*serve, "--trial"], serve)


class Trial:
    """The new program, asked whether it would serve."""

    def __init__(self, program: Program, legacy: Legacy) -> None:
        """OSError: it cannot be started."""
        self._said = os.memfd_create("fastticket-trial")
        self._ends_s = time.monotonic() + TRIAL_TIMEOUT_S
        left = -1
        try:
            left = _leave(legacy)
            self._process = subprocess.Popen(  # noqa: S603 -- our own command line
                program.trial,
                env={**os.environ, VARIABLE: str(left)},
                pass_fds=[left],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
            )
        except BaseException:
            os.close(self._said)
            raise
        finally:
            if left >= 0:
                os.close(left)

    def verdict(self) -> str | None:
        """Why it would not, "" if it would; None: it is not known yet."""
        code = self._process.poll()
        if code is None:
            return None if time.monotonic() < self._ends_s else f"its check took more than {TRIAL_TIMEOUT_S:g} s"
        said = os.pread(self._said, OUTPUT_BYTES_MAX, 0).decode(errors="replace").strip()
        # Of a traceback the last line says what is wrong.
        said = said.splitlines()[-1] if said.startswith("Traceback") else said
        return (said or f"its check of the configuration has ended with {code}") if code else ""

    def close(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._said)


def execute(program: Program, legacy: Legacy) -> None:
    """Become the new program. OSError: that is not possible, and nothing has changed."""
    left = _leave(legacy)
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITING_SIGNALS)
    kept = {left, *legacy.descriptors}
    try:
        for fd in kept:
            os.set_inheritable(fd, True)
        os.execve(program.serve[0], program.serve, {**os.environ, VARIABLE: str(left)})  # noqa: S606
    finally:
        for fd in kept:
            os.set_inheritable(fd, False)
        os.close(left)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITING_SIGNALS)


def inherited() -> Legacy | None:
    """What the program before has left, if this one takes its place or is on trial. ConfigError:
    this version cannot go on from that one.
    """
    fd = os.environ.pop(VARIABLE, "")
    if not fd:
        return None
    with open(int(fd), "rb") as file:
        left = json.loads(file.read())
    if left["format"] != FORMAT:
        raise ConfigError(
            f"this version cannot take over from the one that runs (its format of upgrades is {left['format']}, not "
            f"{FORMAT}): restart the gateway instead"
        )
    of = left["legacy"]
    return Legacy(**{**of, "processes": [HeldProcess(**each) for each in of["processes"]]})


def socket_of(fd: int) -> socket.socket:
    """A socket that was inherited."""
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def _leave(legacy: Legacy) -> int:
    """Write a Legacy to a memory file, all of it; its descriptor. OSError."""
    fd = os.memfd_create("fastticket-legacy")
    try:
        with open(fd, "w", closefd=False) as file:
            json.dump({"format": FORMAT, "legacy": dataclasses.asdict(legacy)}, file)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd
