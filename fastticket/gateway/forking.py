"""How a worker process is forked, and its first and last steps."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import io
import logging
import os
import signal
import socket
from collections.abc import Iterable
from typing import NoReturn

import uvloop

from fastticket.errors import ConfigError, FastticketError
from fastticket.gateway import errorlog
from fastticket.gateway.exitcodes import BAD_USAGE, FAILED
from fastticket.gateway.handover import Handover
from fastticket.gateway.inheritance import Given
from fastticket.gateway.processes import READY, REPORT_BYTES_MAX, WorkerProcess
from fastticket.gateway.sharedmemory import Slot
from fastticket.gateway.worker import Worker

log = logging.getLogger("fastticket.gateway")

PR_SET_PDEATHSIG = 1  # prctl(2)


def fork_worker(
    number: int,
    given: Given,
    listeners: list[socket.socket],
    handover: Handover,
    loop: asyncio.AbstractEventLoop,
) -> WorkerProcess:
    """Start a worker on these sockets. Must not be called while an event loop runs: the child would
    be inside of it. `loop`: the supervisor's, for timers. OSError: there are too many processes, or
    no descriptors.
    """
    slot, parent = Slot(), os.getpid()
    report, telling = os.pipe()
    try:
        obeying, commands = os.pipe()
    except OSError:
        os.close(report)
        os.close(telling)
        raise
    os.set_blocking(report, False)
    os.set_blocking(commands, False)
    # A signal that reached the child before it has handlers of its own would be written to the
    # parent's event loop.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _become_worker(given, listeners, handover, slot, telling, obeying, parent, mask)
    except OSError:
        os.close(report)
        os.close(commands)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(telling)
        os.close(obeying)
    return WorkerProcess(number, pid, report, commands, slot, loop)


def end_with_parent(parent: int) -> None:
    """Let the kernel send this process SIGTERM when its parent ends, in whatever way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has ended before the call
        signal.raise_signal(signal.SIGTERM)


# --- in the child


def _become_worker(
    given: Given,
    listeners: list[socket.socket],
    handover: Handover,
    slot: Slot,
    telling: int,
    obeying: int,
    parent: int,
    mask: Iterable[int],
) -> NoReturn:
    code = FAILED
    try:
        # The parent's objects are never collected: its sockets would close descriptors that have
        # the same numbers here.
        gc.freeze()
        _reset_signals()
        _close_all_but({telling, obeying, *handover.filenos(), *(listener.fileno() for listener in listeners)})
        end_with_parent(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with open(telling, "wb", buffering=0) as pipe:
            code = _work(given, listeners, handover, slot, pipe, obeying)
    except BaseException:
        log.exception("worker (pid %d)", os.getpid())
    finally:
        errorlog.end()
        os._exit(code)


def _work(
    given: Given, listeners: list[socket.socket], handover: Handover, slot: Slot, pipe: io.FileIO, obeying: int
) -> int:
    """Serve; the exit code. An error before READY goes to the supervisor as the report."""
    errorlog.follow(given.config)

    def ready() -> None:
        pipe.write(READY)
        pipe.close()

    async def main() -> None:
        await Worker(given, listeners, slot, handover).run(ready, obeying)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        return 0
    except FastticketError as error:
        if pipe.closed:
            raise
        pipe.write(str(error).encode()[:REPORT_BYTES_MAX])
        return BAD_USAGE if isinstance(error, ConfigError) else FAILED


def _reset_signals() -> None:
    """Drop the parent's handlers, and ignore what a terminal sends to all processes at once: the
    parent answers it.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) or number == signal.SIGUSR2:
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _close_all_but(kept: set[int]) -> None:
    """Close every descriptor but these and the standard streams."""
    first = 3
    for fd in sorted(kept - {0, 1, 2}):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
