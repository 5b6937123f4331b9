"""A generation: a configuration, and the worker processes that serve by it."""

from __future__ import annotations

import dataclasses
import socket

from fastticket.errors import FastticketError
from fastticket.gateway.inheritance import Given
from fastticket.gateway.listeners import Sockets
from fastticket.gateway.processes import WorkerProcess
from fastticket.gateway.settings import Config

STEADY_S = 10.0  # a worker that has lived so long is replaced at once
PAUSE_FIRST_S = 0.1  # before a worker that died sooner is replaced; twice as long each time
PAUSE_MAX_S = 30.0


@dataclasses.dataclass(eq=False)
class Generation:
    """The workers are numbers from 0; a number without a process waits for a replacement, which
    gets the same `given`.
    """

    given: Given
    sockets: Sockets
    admin: socket.socket | None  #: the admin listener, bound beside that of the generation before
    processes: dict[int, WorkerProcess] = dataclasses.field(default_factory=dict)  #: by worker number
    pauses_s: dict[int, float] = dataclasses.field(default_factory=dict)  #: the last pause, by worker number
    due_s: dict[int, float] = dataclasses.field(default_factory=dict)  #: when replacements start, loop time
    failure: FastticketError | None = None  #: why it cannot serve

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.given.config

    @property
    def is_ready(self) -> bool:
        """Whether all of its workers can serve."""
        return all(n in self.processes and self.processes[n].is_ready for n in range(len(self.sockets)))

    def retire(self) -> None:
        """Tell all workers to retire. One that is not ready has no handler for the signal yet, and
        is ended by it.
        """
        for process in self.processes.values():
            process.retire(self.config)

    def stop(self) -> None:
        """Tell all workers to stop."""
        for process in self.processes.values():
            process.stop(self.config)

    def schedule_replacement(self, number: int, lived_s: float, now_s: float) -> float:
        """A worker has died: start another one at once, or after a pause if it died young. Returns
        the pause.
        """
        before_s = self.pauses_s.get(number, 0.0)
        pause_s = 0.0 if lived_s >= STEADY_S else min(max(PAUSE_FIRST_S, 2 * before_s), PAUSE_MAX_S)
        self.pauses_s[number] = pause_s
        self.due_s[number] = now_s + pause_s
        return pause_s

    def take_due(self, now_s: float) -> list[int]:
        """The numbers of the workers to start now; they are not due any more."""
        due = [number for number, at_s in self.due_s.items() if at_s <= now_s]
        for number in due:
            del self.due_s[number]
        return due
