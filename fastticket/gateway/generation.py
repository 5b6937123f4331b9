"""A generation: a configuration, and the worker process that serves by it."""

from __future__ import annotations

import dataclasses
import socket

from fastticket.errors import FastticketError
from fastticket.gateway.admin.access import Access
from fastticket.gateway.changes import heritage
from fastticket.gateway.inheritance import Given
from fastticket.gateway.listeners import Sockets
from fastticket.gateway.processes import WorkerProcess
from fastticket.gateway.settings import Config

STEADY_S = 10.0  # a worker that has lived so long is replaced at once
PAUSE_FIRST_S = 0.1  # before a worker that died sooner is replaced; twice as long each time
PAUSE_MAX_S = 30.0


@dataclasses.dataclass(eq=False)
class Generation:
    """A reload makes another generation. It has a process of its own, or takes over the process of
    the one before. While that is open, the one before has the process.
    """

    given: Given
    sockets: Sockets
    admin: socket.socket | None  #: the admin listener, bound beside that of the generation before
    access: Access  #: who may ask there
    process: WorkerProcess | None = None  #: None: there is none, and a replacement may be due
    successor_of: Generation | None = None  #: whose process is to serve by this configuration
    heir_of: WorkerProcess | None = None  #: which hands over what it holds; then the process is started
    is_ready: bool = False  #: the process can serve by it
    failure: FastticketError | None = None  #: why it cannot
    heritage: str = ""  #: which generations may hand sessions to each other (`changes`)
    is_of_program_before: bool = False  #: its worker was started before an upgrade
    pause_s: float = 0.0  #: before the last replacement
    due_s: float | None = None  #: when a replacement starts, loop time

    def __post_init__(self) -> None:
        self.heritage = self.heritage or heritage(self.given.config)

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.given.config

    def take_over(self, before: Generation) -> None:
        """Have the process from now on, or the replacement of it that is due."""
        self.successor_of = None
        self.process, before.process = before.process, None
        self.pause_s, self.due_s, before.due_s = before.pause_s, before.due_s, None

    def retire(self) -> None:
        """Tell the worker to retire. One that is not ready has no handler for the signal yet, and
        is ended by it.
        """
        if self.process:
            self.process.retire(self.config)

    def stop(self) -> None:
        """Tell the worker to stop."""
        if self.process:
            self.process.stop(self.config)

    def schedule_replacement(self, lived_s: float, now_s: float) -> float:
        """The worker has died: start another one at once, or after a pause if it died young.
        Returns the pause.
        """
        pause_s = 0.0 if lived_s >= STEADY_S else min(max(PAUSE_FIRST_S, 2 * self.pause_s), PAUSE_MAX_S)
        self.pause_s = pause_s
        self.due_s = now_s + pause_s
        return pause_s

    def take_due(self, now_s: float) -> bool:
        """Whether to start a replacement now; it is not due any more."""
        if self.due_s is None or self.due_s > now_s:
            return False
        self.due_s = None
        return True
