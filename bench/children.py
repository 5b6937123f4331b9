"""The processes of a benchmark: each on its core, ended with the benchmark, its CPU and its system
calls counted.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

GATEWAY_CORE = 0
LOAD_CORE = 1
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 15.0
CPUCLOCK_SCHED = 2
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Nothing to measure: what is missing, or what went wrong."""


def claim_machine(core: int) -> None:
    """Run on that core, with as many open files as are allowed. BenchError if there are not two
    cores.
    """
    os.sched_setaffinity(0, {GATEWAY_CORE, LOAD_CORE})  # as far as they are there
    if len(os.sched_getaffinity(0)) < 2:
        raise BenchError(f"cores {GATEWAY_CORE} and {LOAD_CORE} are needed, each for one process")
    os.sched_setaffinity(0, {core})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def run_program(main: Callable[[], int | None]) -> NoReturn:
    """A benchmark as a command: its exit code, or why there is nothing to measure."""
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")


class Child:
    """A process of ours on one core, or on a list of them as taskset takes it; ended with us. Its
    standard error goes to a file that is shown if it fails.
    """

    def __init__(
        self, cores: int | str, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._name = " ".join(map(str, command))
        self._log = log
        with log.open("wb") as error:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(cores), *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=error,
                text=True,
                bufsize=1,
                env={**os.environ, **(environment or {})},
            )
        self.pid = self._process.pid

    def write_line(self, text: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin
        try:
            self._process.stdin.write(text + "\n")
        except BrokenPipeError:
            raise self.failed("it has ended") from None

    def read_line(self, timeout_s: float) -> str:
        """The next line of its standard output."""
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise self.failed(f"no word from it in {timeout_s:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise self.failed("it has ended")
        return line

    def wait_for(self, port: int) -> None:
        """Until somebody listens there, on 127.0.0.1."""
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up_at and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.05)
        raise self.failed(f"nobody listens on port {port}")

    def failed(self, reason: str) -> BenchError:
        """An error with the end of what it had to say."""
        return BenchError(f"{self._name}: {reason}\n{self._log.read_text(errors='replace')[-2000:]}")

    def processes(self) -> list[int]:
        """Its id, and those of its descendants."""
        children: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(stat.parent.name))
        found = [self.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_ns(pids: Sequence[int]) -> int:
    """The CPU time that the scheduler has accounted to all threads of these processes, ended ones
    among them.

    By each process's clock: clock_getcpuclockid(3).
    """
    return sum(time.clock_gettime_ns(~pid << 3 | CPUCLOCK_SCHED) for pid in pids)


def threads_ns(pids: Sequence[int]) -> dict[int, int]:
    """The CPU time of each thread that these processes have now, by its id; in nanoseconds."""
    stats = (stat for pid in pids for stat in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return {int(stat.parent.name): int(stat.read_text().split()[0]) for stat in stats}


def user_ns(pids: Sequence[int]) -> int:
    """The part of it that was not in the kernel: sampled at clock ticks, good only in sums."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(values[11]) for values in fields) * TICK_NS


@contextlib.contextmanager
def system_calls(pids: Sequence[int], folder: Path) -> Iterator[dict[str, int]]:
    """How often each was made while the block ran. Needs strace, which makes the processes slow."""
    summary, calls = folder / "strace", dict[str, int]()
    command = ["strace", "-c", "-f", "-qq", "-o", str(summary)]
    for pid in pids:
        command += ["-p", str(pid)]
    tracer = subprocess.Popen(["taskset", "-c", str(LOAD_CORE), *command], stderr=subprocess.DEVNULL)
    try:
        _wait_until_traced(pids)
        yield calls
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(STOP_TIMEOUT_S)
    for line in summary.read_text().splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])


def _wait_until_traced(pids: Sequence[int]) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while any("TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text() for pid in pids):
        if time.monotonic() > give_up_at:
            raise BenchError("strace could not attach; is ptrace allowed here?")
        time.sleep(0.02)
