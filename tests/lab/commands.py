"""Commands of ours without the start of Python and the imports, which take most of a command's
time: each is forked from a process that has done both.

A command sees what a process of its own sees: its arguments, folder, environment and standard
streams. What Python reads of the environment when it starts is what `Commands` was given.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

BOUND_S = 60  # for a command; it is killed then


class Commands:
    """Runs one command after the other. `environment`: what Python starts with, beside ours."""

    def __init__(self, **environment: str) -> None:
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
        self._link, there = socket.socketpair()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(there.fileno())],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=self._environment,
            )
        self._codes = self._link.makefile()

    def run(self, *arguments: str, cwd: Path, stdin: bytes = b"", **environment: str) -> tuple[int, bytes, bytes]:
        """`python -m fastticket ARGUMENTS`: (exit code, output, error output)."""
        with tempfile.TemporaryDirectory() as folder:
            streams = [Path(folder, name) for name in ("in", "out", "err")]
            streams[0].write_bytes(stdin)
            command = {
                "arguments": arguments,
                "cwd": str(cwd),
                "environment": {**self._environment, **environment},
                "streams": list(map(str, streams)),
            }
            self._link.sendall(json.dumps(command).encode() + b"\n")
            code = int(self._codes.readline())
            return code, streams[1].read_bytes(), streams[2].read_bytes()

    def close(self) -> None:
        """No more commands: the process ends."""
        self._codes.close()
        self._link.close()
        self._process.wait(BOUND_S)


def serve(link: socket.socket) -> None:
    """Fork a process for each line; answer with its exit code."""
    import fastticket.commands.cli  # noqa: F401 - once, for all of them

    for line in link.makefile():
        child = os.fork()
        if not child:
            become(**json.loads(line))
        link.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def become(arguments: list[str], cwd: str, environment: dict[str, str], streams: list[str]) -> None:
    """The command, in this process, which ends with it."""
    signal.alarm(BOUND_S)
    for number, path in enumerate(streams):
        opened = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv[1:] = arguments
    sys.exit(runpy.run_module("fastticket", run_name="__main__", alter_sys=True))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
