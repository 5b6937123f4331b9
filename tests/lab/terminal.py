"""A terminal into which a test types what a page shows, and reads what it prints.

    with terminal(folder, {6379: 12345}) as at:
        at.run(text)        a block of `console`

A port that the page names is another one here, in what is typed and in what is printed. A command
that ends in `&` goes on; it is waited for until it has printed what the page shows, and a
program of Python until somebody listens on the port of applications. Of what a page
shows, each line has to be printed, in any order; `…` in it stands for anything. Every other command
must succeed, unless the page shows that it fails: `$ false || true` is for that.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from conftest import BOUND_S, Client

from lab.documents import ROOT
from lab.redis_servers import wait_until
from lab.snippets import commands

#: Without the environment of this test, which has an old Redis.
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DONE = "\x01done "
APPLICATION = 9001  # where a page has its application
#: Ours, whatever is installed: programs, because a function of the shell would not get the signals
#: of its job.
PROGRAMS = {"fastticket": f'exec {sys.executable} -m fastticket "$@"', "python": f'exec {sys.executable} "$@"'}


class Terminal:
    """`output`: all that was printed so far, in one text."""

    def __init__(self, process: subprocess.Popen[str], output: int, ports: Mapping[int, int]) -> None:
        self._process = process
        self._ports = ports
        self._changed = threading.Condition()
        self.output = ""
        threading.Thread(target=self._read, args=(output,), daemon=True).start()

    def here(self, text: str) -> str:
        """A text of the page, with the ports that are used here. A Redis on a loaded machine may
        take longer for an answer than stores wait by default.
        """
        text = re.sub(r"\b\d{4,5}\b", lambda port: str(self._ports.get(int(port[0]), port[0])), text)
        return re.sub(r"redis://127\.0\.0\.1:\d+/\d\b(?!\?)", r"\g<0>?timeout_ms=10000", text)

    def run(self, text: str) -> None:
        """Type the commands of a block, one after the other."""
        for command, printed in commands(self.here(text)):
            begin = len(self.output)
            self._type(f"{command}\nprintf '\\n{DONE}%d\\n' $?\n")
            status = int(self._wait(rf"{DONE}(\d+)", begin, command)[1])
            assert status == 0, f"{command}: {self.output[begin:]}"
            for line in filter(str.strip, printed.splitlines()):
                self._wait(_pattern(line), begin, command)
            if re.match(r"python .*&", command):
                port = self._ports[APPLICATION]
                wait_until(lambda at=port: Client(("127.0.0.1", at)).close() is None, f"{command} listens", 3 * BOUND_S)

    def _type(self, text: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def _read(self, output: int) -> None:
        """Until all that the shell has started is gone: a daemon may be there for longer."""
        with open(output, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with self._changed:
                    self.output += line
                    self._changed.notify_all()

    def _wait(self, pattern: str, begin: int, command: str) -> re.Match[str]:
        give_up_at_s = time.monotonic() + 3 * BOUND_S
        with self._changed:
            while not (found := re.search(pattern, self.output[begin:])):
                left_s = give_up_at_s - time.monotonic()
                assert left_s > 0, f"{command}: {pattern!r} is not in {self.output[begin:]!r}"
                self._changed.wait(left_s)
        return found


def _pattern(line: str) -> str:
    """What finds a line of a page, however its words are spaced."""
    words = (re.escape(word).replace("…", ".*") for word in line.split())
    return r"(?m)^\s*" + r"\s+".join(words) + r"\s*$"


@contextlib.contextmanager
def terminal(folder: Path, ports: Mapping[int, int]) -> Iterator[Terminal]:
    """A shell in a folder. All that it started ends with it."""
    programs = folder / ".programs"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    output, inward = os.pipe()
    process = subprocess.Popen(
        ["bash", "--norc", "-o", "pipefail"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=inward,
        stderr=inward,
        text=True,
        env={
            **os.environ,
            "PATH": f"{programs}:{SYSTEM}",
            "PYTHONPATH": str(ROOT),  # no more: a test before may have put other programs on its own path
        },
        start_new_session=True,
    )
    os.close(inward)
    try:
        yield Terminal(process, output, ports)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(BOUND_S)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
