"""Commands of ours and a real nginx, as processes that a test starts and ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from conftest import BOUND_S, Client


class Process:
    """A command that prints a line with its address when it serves."""

    def __init__(self, *arguments, cwd, **options):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastticket", *arguments],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=options.pop("stderr", subprocess.DEVNULL),
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            **options,
        )
        bound = threading.Timer(BOUND_S, self.process.kill)
        bound.start()
        self.output = ""
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", self.output)):
            line = self.process.stdout.readline()
            assert line, f"it ended: {self.output}"
            self.output += line
        bound.cancel()
        self.address = ("127.0.0.1", int(found[1]))

    def ask(self, raw):
        with Client(self.address) as client:
            client.sendall(raw)
            return client.read_response()

    def end(self, number):
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(BOUND_S)


class Nginx:
    """nginx with a configuration of ours. `address`: one that it listens on."""

    def __init__(self, folder: Path, config: str, address: str | tuple[str, int]):
        self._config = folder / "nginx.conf"
        self._let_in_everybody(folder)
        self._config.write_text(config)
        self._process = subprocess.Popen([shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(self._config)])
        late = threading.Event()
        timer = threading.Timer(BOUND_S, late.set)
        timer.start()
        while True:
            with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as probe:
                if probe.connect_ex(address) == 0:
                    break
            assert not late.is_set(), "nginx does not listen"
        timer.cancel()

    @staticmethod
    def _let_in_everybody(folder: Path) -> None:
        """nginx's worker is another user."""
        while folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o055)
            folder = folder.parent

    def reload(self, config: str) -> None:
        """Serve by another configuration; requests under way end by the old one."""
        self._config.write_text(config)
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(BOUND_S)
