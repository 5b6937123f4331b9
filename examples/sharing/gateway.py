"""A fastticket gateway of a demonstration: `fastticket serve` with a file that can change while it
runs.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from lab import Lab, Program, listening, wait_until

CONFIG = """
[gateway]
listen = ["fd:{descriptor}"]

[ticket]
keys = "keys.toml"
idle_timeout_s = 600
forward_ticket = true  # the applications read the session's id and values with it

[store]
url = "{store}"

[[upstream]]
name = "users"
servers = [{servers}]

[[route]]
path = "/user/login"
auth = "none"
login = true

[[route]]
path = "/user/logout"
auth = "optional"

[[route]]
path = "/"
auth = "required"
"""


class Gateway:
    """A gateway in front of these applications. Its keys are in the lab's `keys.toml`."""

    def __init__(self, lab: Lab, name: str, store: str, applications: Sequence[Program]) -> None:
        listener = listening()
        self._file = lab.folder / f"{name}.toml"
        self._store = store
        self._descriptor = listener.fileno()
        self._write(applications)
        command = [sys.executable, "-m", "fastticket", "serve", "--config", self._file]
        self.program = lab.start(name, command, sockets=(listener,))

    def balance(self, applications: Sequence[Program]) -> None:
        """Balance over these applications from now on."""
        before = self._reloads()
        self._write(applications)
        self.program.signal(signal.SIGHUP)
        wait_until(lambda: self._reloads() > before, "the gateway serves by its new file")

    def _reloads(self) -> int:
        return self.program.log.read_text().count(" reloaded: ")

    def _write(self, applications: Sequence[Program]) -> None:
        servers = ", ".join(f'"127.0.0.1:{each.port}"' for each in applications)
        self._file.write_text(CONFIG.format(descriptor=self._descriptor, store=self._store, servers=servers))
