"""How a worker process is forked, and its first and last steps."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
from collections.abc import Iterable
from typing import NoReturn

import uvloop

from fastticket.errors import ConfigError, FastticketError
from fastticket.gateway import errorlog
from fastticket.gateway.channel import Channel, channel_pair
from fastticket.gateway.control import Failed
from fastticket.gateway.exitcodes import BAD_USAGE, FAILED
from fastticket.gateway.handover import Handover
from fastticket.gateway.inheritance import Given
from fastticket.gateway.listeners import Sockets
from fastticket.gateway.processes import WorkerProcess
from fastticket.gateway.sharedmemory import Slot
from fastticket.gateway.worker import Worker

log = logging.getLogger("fastticket.gateway")

PR_SET_PDEATHSIG = 1  # prctl(2)


def fork_worker(given: Given, listeners: Sockets, handover: Handover, loop: asyncio.AbstractEventLoop) -> WorkerProcess:
    """Start a worker on these sockets. Must not be called while an event loop runs: the child would
    be inside of it. `loop`: the supervisor's, for timers. OSError: there are too many processes, or
    no descriptors.
    """
    slot, parent = Slot(), os.getpid()
    try:
        ours, its = channel_pair()
    except OSError:
        slot.close()
        raise
    # A signal that reached the child before it has handlers of its own would be written to the
    # parent's event loop.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _become_worker(given, listeners, handover, slot, its, parent, mask)
    except OSError:
        ours.close()
        slot.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        its.close()
    return WorkerProcess(pid, ours, slot, loop)


def end_with_parent(parent: int) -> None:
    """Let the kernel send this process SIGTERM when its parent ends, in whatever way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it has ended before the call
        signal.raise_signal(signal.SIGTERM)


# --- in the child


def _become_worker(
    given: Given,
    listeners: Sockets,
    handover: Handover,
    slot: Slot,
    channel: Channel,
    parent: int,
    mask: Iterable[int],
) -> NoReturn:
    code = FAILED
    try:
        # The parent's objects are never collected: its sockets would close descriptors that have
        # the same numbers here.
        gc.freeze()
        _reset_signals()
        listening = {listener.fileno() for of_plane in listeners for listener in of_plane}
        _close_all_but({channel.fileno(), *handover.filenos(), *listening})
        end_with_parent(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = _work(given, listeners, handover, slot, channel)
    except BaseException:
        log.exception("worker (pid %d)", os.getpid())
    finally:
        try:
            errorlog.end()
        finally:
            os._exit(code)


def _work(given: Given, listeners: Sockets, handover: Handover, slot: Slot, channel: Channel) -> int:
    """Serve; the exit code."""
    errorlog.follow(given.config)

    async def main() -> None:
        await Worker(given, listeners, slot, handover).run(channel)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        return 0
    except FastticketError as error:
        channel.send(Failed(str(error)))
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
