"""A worker's process: how it is forked, its first and last steps, and what its supervisor knows of
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import io
import logging
import os
import signal
import socket
import time
from collections.abc import Iterable, Sequence
from typing import NoReturn

import uvloop

from fastticket.errors import ConfigError, FastticketError
from fastticket.gateway import errorlog
from fastticket.gateway.given import GO, LEAVE, STAY, Given, word_of
from fastticket.gateway.handover import Handover
from fastticket.gateway.slot import Slot
from fastticket.gateway.worker import Worker

log = logging.getLogger("fastticket.gateway")

FAILED = 1
BAD_CONFIG = 2  # as of the command line
PR_SET_PDEATHSIG = 1
READY = b"+"  # the one word of a worker that serves; of one that can not it is the reason
WORD_BYTES_MAX = 4096  # a pipe takes so much at once


class WorkerProcess:
    """What a supervisor knows of one."""

    def __init__(self, number: int, pid: int, pipe: int, go: int, slot: Slot) -> None:
        self.number = number  #: of the worker; the process that takes its place has the same
        self.pid = pid
        self.pipe = pipe
        self.slot = slot
        self._go = go
        self.born_s = time.monotonic()
        self.is_ready = False
        self.is_serving = False  #: was told to
        self.is_dismissed = False  #: told to retire or to stop
        self.is_stopped = False  #: told to stop
        self.is_to_reopen = False  #: its log files, once it is ready
        self.reason = ""  #: why it could not start
        self.silent_s = 0.0  #: since it was last heard of, as far as its supervisor was awake
        self._beats = 0
        self.timer: asyncio.TimerHandle | None = None  #: when it has to be ready, or gone

    def __str__(self) -> str:
        return f"worker {self.number} (pid {self.pid})"

    def hear(self) -> bool:
        """Take in its word. False: it has said nothing yet."""
        if self.pipe < 0:
            return True
        try:
            word = os.read(self.pipe, WORD_BYTES_MAX)
        except BlockingIOError:
            return False
        self.is_ready = word == READY
        self.reason = "" if self.is_ready else word.decode(errors="replace")
        os.close(self.pipe)
        self.pipe = -1
        return True

    def listen(self, passed_s: float) -> float:
        """Hear whether its loop has run since the last time, so long ago; for how long it has not."""
        beats = self.slot.beats
        self.silent_s = 0.0 if beats != self._beats else self.silent_s + passed_s
        self._beats = beats
        return self.silent_s

    def let_serve(self) -> None:
        """Its sockets listen."""
        self.is_serving = True
        self._say(GO)

    def let_leave(self) -> None:
        """It goes on, but nobody shall stay."""
        self._say(LEAVE)

    def let_stay(self) -> None:
        """They may, after all."""
        self._say(STAY)

    def hand_keys(self, pairs: Sequence[tuple[int, bytes]]) -> None:
        """Its key ring from now on."""
        self._say(word_of(pairs))

    def _say(self, word: bytes) -> None:
        """A pipe holds more than is ever said. One whom it does not reach has died or hangs, and
        that will be seen.
        """
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(self._go, word + b"\n")

    def forget(self) -> None:
        """It has ended."""
        os.close(self._go)

    def send(self, number: int) -> None:
        """A signal. It has not been waited for, so the pid is still its own."""
        os.kill(self.pid, number)

    def exit_code(self) -> int | None:
        """None: it lives. Negative: the signal that killed it. Afterwards the pid may be somebody
        else's.
        """
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None


def fork_worker(number: int, given: Given, listeners: list[socket.socket], handover: Handover) -> WorkerProcess:
    """Start one on these sockets, by what it is given. Not while an event loop runs: the child must
    not be inside of it.
    """
    slot, parent = Slot(), os.getpid()
    hearing, telling = os.pipe()
    try:
        going, go = os.pipe()
    except OSError:
        os.close(hearing)
        os.close(telling)
        raise
    os.set_blocking(hearing, False)
    os.set_blocking(go, False)
    # A signal to the child before it has handlers of its own would be written to the parent's event
    # loop.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _become_worker(given, listeners, handover, slot, telling, going, parent, mask)
    except OSError:
        os.close(hearing)
        os.close(go)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(telling)
        os.close(going)
    return WorkerProcess(number, pid, hearing, go, slot)


def _become_worker(
    given: Given,
    listeners: list[socket.socket],
    handover: Handover,
    slot: Slot,
    telling: int,
    going: int,
    parent: int,
    mask: Iterable[int],
) -> NoReturn:
    code = FAILED
    try:
        gc.freeze()  # what is the parent's is never collected: its sockets have the numbers of descriptors of ours
        _reset_signals()
        _close_all_but({telling, going, *handover.filenos(), *(listener.fileno() for listener in listeners)})
        end_with_parent(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with open(telling, "wb", buffering=0) as pipe:
            code = _work(given, listeners, handover, slot, pipe, going)
    except BaseException:
        log.exception("worker (pid %d)", os.getpid())
    finally:
        errorlog.end()
        os._exit(code)


def _work(
    given: Given, listeners: list[socket.socket], handover: Handover, slot: Slot, pipe: io.FileIO, going: int
) -> int:
    errorlog.follow(given.config)

    def ready() -> None:
        pipe.write(READY)
        pipe.close()

    async def main() -> None:
        await Worker(given, listeners, slot, handover).run(ready, going)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        return 0
    except FastticketError as error:
        if pipe.closed:
            raise
        pipe.write(str(error).encode()[:WORD_BYTES_MAX])
        return BAD_CONFIG if isinstance(error, ConfigError) else FAILED


def _reset_signals() -> None:
    """None of the parent's handlers; what a terminal sends to all of its processes is for the
    parent to answer.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) or number == signal.SIGUSR2:
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _close_all_but(kept: set[int]) -> None:
    """And the standard streams."""
    first = 3
    for fd in sorted(kept - {0, 1, 2}):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def end_with_parent(parent: int) -> None:
    """SIGTERM to this process when that one is gone, however it went."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was faster
        signal.raise_signal(signal.SIGTERM)
