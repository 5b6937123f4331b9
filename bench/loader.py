"""`load.c`, driven from Python: loader and upstream in one process on the core that the gateway
does not have.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from children import LOAD_CORE, START_TIMEOUT_S, Child

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"


def build() -> None:
    """The C programs: `load` and `floor`."""
    BUILD.mkdir(exist_ok=True)
    for name in ("load", "floor"):
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", BUILD / name, HERE / f"{name}.c", "-lm"], check=True
        )


class Loader:
    """A running one. `upstream` and `auth` are where the gateway shall connect to, as
    `127.0.0.1:PORT` or `unix:PATH`.
    """

    def __init__(self, folder: Path, name: str, connections: int, tickets: Path, unix: bool = False) -> None:
        where = folder / f"{name}.socket" if unix else "tcp"
        self._child = Child(LOAD_CORE, [BUILD / "load", str(connections), tickets, where], folder / f"{name}.load.log")
        self._connections = connections
        told = json.loads(self._child.read_line(START_TIMEOUT_S))
        self.upstream: str = told["upstream"]
        self.auth: str = told["auth"]

    def connect(self, port: int) -> None:
        """To the gateway, on 127.0.0.1."""
        self._command(f"connect {port}", START_TIMEOUT_S)

    def slice(self, ms: int, at_once: int | None = None) -> dict[str, float]:
        """Load the gateway for so long, with so many requests in flight: one a connection, unless
        told. What came of it.
        """
        return self._command(f"slice {ms} {at_once or self._connections}", ms / 1000 + 10)

    def pace(self, ms: int, rate: int, meanwhile: Callable[[], object] = lambda: None) -> dict[str, float]:
        """So many requests a second, for so long, whatever becomes of them. What came of it."""
        return self._command(f"pace {ms} {rate}", 3 * ms / 1000 + 20, meanwhile)

    def stop(self) -> None:
        """End the process."""
        self._child.stop()

    def _command(self, text: str, timeout_s: float, meanwhile: Callable[[], object] = lambda: None) -> dict[str, float]:
        self._child.write_line(text)
        meanwhile()
        answer: dict[str, float] = json.loads(self._child.read_line(timeout_s))
        return answer
