"""Runs the workers of one gateway: one in this process, or several under a supervisor.

The supervisor makes every worker's listening sockets before it forks and keeps them: a worker that dies leaves its backlog to the
one that takes its place. It forwards SIGTERM, SIGINT, SIGHUP and SIGUSR1.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

import uvloop

from fastticket.errors import FastticketError
from fastticket.gateway.addresses import listen
from fastticket.gateway.config import Config
from fastticket.gateway.worker import Worker

log = logging.getLogger("fastticket.supervisor")

RESTART_PAUSE_S = 1.0
STOPPING = (signal.SIGTERM, signal.SIGINT)
FORWARDED = (*STOPPING, signal.SIGHUP, signal.SIGUSR1)


def run(config: Config, ready: Callable[[list[str]], None]) -> int:
    """Serve until told to stop. `ready` is called with the addresses. The exit code."""
    config.keyring()  # what can be wrong shall be wrong before anything listens
    several = config.gateway.workers > 1
    sockets = [[listen(a, shared=several) for a in config.listen_addresses()]]
    names = [_name(s) for s in sockets[0]]
    if not several:
        return _work(config, sockets[0], lambda: ready(names))
    bound = [
        a._replace(port=s.getsockname()[1]) if a.host else a
        for a, s in zip(config.listen_addresses(), sockets[0], strict=True)
    ]
    for _ in range(config.gateway.workers - 1):
        sockets.append([listen(a, shared=True) if a.host else s.dup() for a, s in zip(bound, sockets[0], strict=True)])
    return Supervisor(config, sockets).run(lambda: ready(names))


def _name(listener: socket.socket) -> str:
    address = listener.getsockname()
    if isinstance(address, str):
        return f"unix:{address}"
    return (
        f"http://[{address[0]}]:{address[1]}"
        if listener.family == socket.AF_INET6
        else f"http://{address[0]}:{address[1]}"
    )


def _work(config: Config, listeners: list[socket.socket], ready: Callable[[], None]) -> int:
    async def main() -> None:
        await Worker(config, listeners).run(ready)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return 0


class Supervisor:
    """One process for each list of sockets; a dead one is replaced."""

    def __init__(self, config: Config, sockets: list[list[socket.socket]]) -> None:
        self._config = config
        self._sockets = sockets
        self._workers: dict[int, int] = {}  # pid -> number
        self._stopping = False

    def run(self, ready: Callable[[], None]) -> int:
        """Until SIGTERM or SIGINT, and every worker is gone."""
        for forwarded in FORWARDED:
            signal.signal(forwarded, self._forward)
        for number in range(len(self._sockets)):
            self._start(number, ready if number == 0 else lambda: None)
        code = 0
        while self._workers:
            pid, status = os.wait()
            number = self._workers.pop(pid)
            if self._stopping:
                code = code or os.waitstatus_to_exitcode(status)
                continue
            log.error("worker %d ended (%d); starting another", number, os.waitstatus_to_exitcode(status))
            time.sleep(RESTART_PAUSE_S)
            if not self._stopping:
                self._start(number, lambda: None)
        return code

    def _forward(self, number: int, _: object) -> None:
        if number in STOPPING:
            self._stopping = True
            for listener in itertools.chain.from_iterable(self._sockets):
                listener.close()
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _start(self, number: int, ready: Callable[[], None]) -> None:
        pid = os.fork()
        if pid:
            self._workers[pid] = number
            return
        code = 1
        try:
            for inherited in FORWARDED:
                signal.signal(inherited, signal.SIG_DFL)
            code = _work(self._config, self._sockets[number], ready)
        except FastticketError as error:
            log.error("worker %d: %s", number, error)
        except BaseException:
            log.exception("worker %d", number)
        finally:
            sys.stdout.flush()
            os._exit(code)
