"""Real programs for a demonstration: each on a free port of 127.0.0.1. All of them end with the
lab, and nothing is left on the disk.

A server inherits a listening socket, so nothing has to wait for its start, and no port is chosen
twice. nginx cannot inherit one, so the lab waits for it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BOUND_S = 10.0  # for a program to start, to change, to end
LOG_CHARACTERS = 2000
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


class Lab:
    """A context manager: a folder, and the programs that were started there."""

    def __enter__(self) -> Lab:
        self.folder = Path(tempfile.mkdtemp(prefix="sharing-"))
        self.folder.chmod(0o711)  # nginx's worker is another user
        self._processes: list[subprocess.Popen[bytes]] = []
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            _wait_for_end(process)
        if kind and issubclass(kind, Exception):
            for log in sorted(self.folder.glob("*.log")):
                sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-LOG_CHARACTERS:]}")
        shutil.rmtree(self.folder)

    def start(self, name: str, command: list[object], *, sockets: tuple[socket.socket, ...] = ()) -> Program:
        """Start a program. It inherits the sockets under the descriptors that they have here."""
        port = sockets[0].getsockname()[1] if sockets else 0
        started = Program(port, self.folder / f"{name}.log")
        with started.log.open("wb") as log:
            started.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                pass_fds=[each.fileno() for each in sockets],
                preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
            )
        self._processes.append(started.process)
        for each in sockets:
            each.close()
        return started

    def application(
        self, script: str, name: str, *arguments: object, sockets: tuple[socket.socket, ...] = ()
    ) -> Program:
        """Start one of the applications beside this file. Its first argument is the descriptor of
        its socket.
        """
        listener = listening()
        command = [sys.executable, HERE / script, listener.fileno(), name, *arguments]
        return self.start(name, command, sockets=(listener, *sockets))


class Program:
    """A running program. `port` is where it listens."""

    process: subprocess.Popen[bytes]

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        """Stop it as an operator does: it finishes the requests under way."""
        self.process.terminate()
        _wait_for_end(self.process)

    def children(self) -> set[str]:
        """The pids of its child processes."""
        pid = self.process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def listening() -> socket.socket:
    """A listening socket on a port that the system has chosen."""
    return socket.create_server(("127.0.0.1", 0), backlog=512)


def wait_until(holds: Callable[[], Any], what: str) -> Any:
    """Wait until `holds()` is true, and return its value."""
    give_up_at = time.monotonic() + BOUND_S
    while not (found := holds()):
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"not in {BOUND_S:g} s: {what}")
        time.sleep(0.005)
    return found


def program(name: str) -> str:
    """The path of Debian's program, whatever PATH says."""
    path = os.pathsep.join(["/usr/sbin", "/usr/bin", "/usr/local/bin", os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if not found:
        sys.exit(f"{name} is missing: apt-get install nginx-light redis-server")
    return found


def _wait_for_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(BOUND_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
