"""A worker's process, as its supervisor sees and treats it.

to the worker     commands on a pipe (`control`); SIGUSR2 retire, SIGTERM stop, SIGUSR1 open the log
                  files anew, SIGKILL
from the worker   one report on a pipe: READY, or why it cannot start; counters, beats and notes
                  in a `Slot`
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Sequence

from fastticket.gateway.control import LEAVE, SERVE, STAY, key_ring_command, line_of
from fastticket.gateway.settings import Config
from fastticket.gateway.sharedmemory import Slot

log = logging.getLogger("fastticket.supervisor")

READY = b"+"  # the report of a worker that can serve
REPORT_BYTES_MAX = 4096  # a pipe takes so much at once
END_MARGIN_S = 10.0  # for a worker to write what it has after its time to drain; then SIGKILL


class WorkerProcess:
    """A process, from its fork until it has been waited for."""

    def __init__(
        self, number: int, pid: int, report: int, commands: int, slot: Slot, loop: asyncio.AbstractEventLoop
    ) -> None:
        """`report`, `commands`: the supervisor's ends of the pipes; `loop`: for timers."""
        self.number = number  #: of the worker; the process that replaces this one has the same
        self.pid = pid
        self.report = report  #: -1 once the report has been read
        self.slot = slot
        self._commands = commands
        self._loop = loop
        self.born_s = time.monotonic()
        self.is_ready = False  #: it has reported that it can serve
        self.is_serving = False  #: it was told to serve
        self.is_dismissed = False  #: it was told to retire or to stop
        self.is_stopped = False  #: it was told to stop
        self.is_to_reopen = False  #: its log files are to be opened anew once it is ready
        self.reason = ""  #: why it could not start
        self._silent_s = 0.0
        self._beats = 0
        self._deadline: asyncio.TimerHandle | None = None  # when it has to be ready, or gone

    def __str__(self) -> str:
        return f"worker {self.number} (pid {self.pid})"

    # --- what it says

    def read_report(self) -> bool:
        """Read its report. False: there is none yet."""
        if self.report < 0:
            return True
        try:
            said = os.read(self.report, REPORT_BYTES_MAX)
        except BlockingIOError:
            return False
        self.is_ready = said == READY
        self.reason = "" if self.is_ready else said.decode(errors="replace")
        if self.is_ready and self._deadline and not self.is_dismissed:
            self._deadline.cancel()
        os.close(self.report)
        self.report = -1
        return True

    def silent_s(self, passed_s: float) -> float:
        """For how long its loop has not run; `passed_s`: the time since the last call, as far as
        this process was awake itself.
        """
        beats = self.slot.beats
        self._silent_s = 0.0 if beats != self._beats else self._silent_s + passed_s
        self._beats = beats
        return self._silent_s

    # --- what it is told

    def let_serve(self) -> None:
        """Serve: its sockets listen."""
        self.is_serving = True
        self._command(SERVE)

    def let_leave(self) -> None:
        """Go on, but close every connection after its next answer."""
        self._command(LEAVE)

    def let_stay(self) -> None:
        """Keep connections open again."""
        self._command(STAY)

    def replace_keys(self, pairs: Sequence[tuple[int, bytes]]) -> None:
        """Use these keys from now on."""
        self._command(key_ring_command(pairs))

    def _command(self, command: bytes) -> None:
        """A pipe holds more than all commands together. A worker that does not read them has died
        or hangs, which the supervisor finds out by other means.
        """
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(self._commands, line_of(command))

    def reopen_logs(self) -> None:
        """Open the log files anew; later, if it is not ready to answer the signal yet."""
        self.is_to_reopen = not self.is_ready
        if self.is_ready:
            self.send(signal.SIGUSR1)

    # --- its end

    def retire(self, config: Config) -> None:
        """Serve the connected clients to the end, and accept no others."""
        timeout_s = config.gateway.retire_timeout_s + config.gateway.drain_timeout_s
        self._dismiss(signal.SIGUSR2, timeout_s)

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

    def close(self) -> None:
        """It has ended: read its report, if that was still to be read, and free what belongs to
        it.
        """
        self.read_report()
        if self._deadline:
            self._deadline.cancel()
        os.close(self._commands)


def ending_of(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"has ended with {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
