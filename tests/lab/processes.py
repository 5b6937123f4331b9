"""Commands of ours and a real nginx, as processes that a test starts and ends."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

from conftest import BOUND_S, Client

from fastticket.gateway.reader import read_config
from fastticket.gateway.writer import to_toml
from lab.redis_servers import START_BOUND_S, wait_until

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
FASTTICKET = ("-m", "fastticket")


class Process:
    """A command that prints a line with its address when it serves. It ends with the test process
    even if that is killed.

    `program`: what Python runs.
    """

    def __init__(self, *arguments, cwd, program=FASTTICKET, preexec_fn=lambda: None, **options):
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=cwd,
            preexec_fn=lambda: (_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), preexec_fn()),
            stdout=subprocess.PIPE,
            stderr=options.pop("stderr", subprocess.DEVNULL),
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            **options,
        )
        self.output = ""
        self.address = ("127.0.0.1", self._port())

    def _port(self):
        """The port that it says it serves on. A process that does not say one is killed."""
        bound = threading.Timer(START_BOUND_S, self.process.kill)
        bound.start()
        try:
            while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", self.output)):
                line = self.process.stdout.readline()
                assert line, f"it ended: {self.output}"
                self.output += line
        except BaseException:
            self.process.kill()
            self.process.wait(BOUND_S)
            self.process.stdout.close()
            raise
        finally:
            bound.cancel()
        return int(found[1])

    def ask(self, raw):
        with Client(self.address) as client:
            client.sendall(raw)
            return client.read_response()

    def end(self, number):
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(BOUND_S)

    def workers(self):
        """The pids of its children."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            return [int(pid) for pid in file.read().split()]

    def kill(self):
        """All of its processes at once, as if the power had failed: its workers have no time to
        notice. When this returns, nothing of theirs is open.
        """
        stop_still(self.process.pid)
        workers = self.workers()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: all(states_of(pid) == ["Z"] for pid in workers), "they are dead", BOUND_S)
        self.end(signal.SIGKILL)


class Site:
    """A gateway that serves by a configuration file, which a test changes. Its log is in `log`."""

    def __init__(self, folder, config, **options):
        self.folder = folder
        self.configure(config)
        self._log = folder / "log"
        with self._log.open("ab") as log:
            self.at = Process("serve", "--config", "fastticket.toml", cwd=folder, stderr=log, **options)
        self.pid = self.at.process.pid
        self.address = self.at.address
        self.workers = self.at.workers

    def configure(self, config):
        """TOML, or a table of the form of the file."""
        text = config if isinstance(config, str) else to_toml(read_config(config, "test", self.folder))
        (self.folder / "fastticket.toml").write_text(text)

    @property
    def log(self):
        return self._log.read_text()

    def reload(self, config=None):
        """SIGHUP, by another configuration if there is one; what the log says came of it."""
        if config is not None:
            self.configure(config)
        outcome = re.compile(r"(?:reloaded: |not reloaded).*")
        before = len(outcome.findall(self.log))
        self.at.process.send_signal(signal.SIGHUP)
        return wait_until(lambda: outcome.findall(self.log)[before:], "the reload", BOUND_S)[0]

    def ask(self, raw):
        return self.at.ask(raw)

    def connect(self):
        return Client(self.address)

    def halt(self, pid):
        """Let one of its processes stand still, without a lock on an SQLite store."""
        database = self.folder / "s.db"
        with contextlib.closing(
            sqlite3.connect(database if database.exists() else ":memory:", isolation_level=None)
        ) as db:
            db.execute("BEGIN IMMEDIATE")
            stop_still(pid)

    def stop(self):
        """End it, if it has not ended."""
        if self.at.process.poll() is None:
            self.at.process.terminate()
        try:
            self.at.process.wait(BOUND_S)
        except subprocess.TimeoutExpired:
            self.at.process.kill()
            self.at.process.wait(BOUND_S)
        self.at.process.stdout.close()


def stop_still(pid):
    """SIGSTOP, until it stands: `kill` returns before that."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: set(states_of(pid)) == {"T"}, "it stands", BOUND_S)


def states_of(pid):
    """The state of each thread of a process; of one that is dead and not waited for, `Z` alone."""
    return [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]


@contextlib.contextmanager
def starting_none(at):
    """Meanwhile its supervisor can fork no worker: that takes two descriptors, and it has one, when
    the worker that it has is dead.
    """
    used = [int(fd) for fd in os.listdir(f"/proc/{at.pid}/fd")]
    free = next(fd for fd in itertools.count() if fd not in used)
    soft, hard = resource.prlimit(at.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(at.pid, resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.prlimit(at.pid, resource.RLIMIT_NOFILE, (soft, hard))


class Nginx:
    """nginx with a configuration of ours. `address`: one that it listens on."""

    def __init__(self, folder: Path, config: str, address: str | tuple[str, int]):
        self._config = folder / "nginx.conf"
        self._let_in_everybody(folder)
        self._config.write_text(config)
        self._process = subprocess.Popen([shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(self._config)])
        wait_until(lambda: self._listens(address), f"nginx listens; see {folder}/error.log")

    def _listens(self, address: str | tuple[str, int]) -> bool:
        assert self._process.poll() is None, "nginx has ended"
        with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as probe:
            return probe.connect_ex(address) == 0

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
