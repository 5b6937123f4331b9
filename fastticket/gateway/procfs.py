"""Metrics of processes, by the names that Prometheus' libraries give them, out of /proc.

The processor time of workers does not go back when one ends: the kernel adds it to what its parent
knows of the children that it has waited for.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

#: Field of `Usage` -> help text. Its name is the metric's, behind `process_`.
GAUGES = {
    "resident_memory_bytes": "Memory in use.",
    "virtual_memory_bytes": "Addresses in use.",
    "open_fds": "File descriptors in use.",
    "max_fds": "File descriptors that there may be.",
    "start_time_seconds": "When it started, in seconds since the epoch.",
}


class Usage(NamedTuple):
    """Of one process."""

    cpu_seconds: float
    resident_memory_bytes: float
    virtual_memory_bytes: float
    open_fds: float
    max_fds: float
    start_time_seconds: float


def families(workers: Sequence[int]) -> Iterator[Metric]:
    """The metrics of this process, the supervisor, and of one worker, the first; the processor time
    is that of all workers that there are and were. One that has ended is left out.
    """
    usages = [usage for pid in workers if (usage := usage_of(pid))]
    own = usage_of(os.getpid())
    found = {"supervisor": own} if own else {}
    if usages:
        found["worker"] = usages[0]
    cpu = CounterMetricFamily("process_cpu_seconds", "Processor time, user and system.", labels=["process"])
    if own:
        cpu.add_metric(["supervisor"], own.cpu_seconds)
    cpu.add_metric(["worker"], _of_ended_children_s() + sum(usage.cpu_seconds for usage in usages))
    yield cpu
    for field, text in GAUGES.items():
        gauge = GaugeMetricFamily(f"process_{field}", text, labels=["process"])
        for name, usage in found.items():
            gauge.add_metric([name], getattr(usage, field))
        yield gauge


def usage_of(pid: int) -> Usage | None:
    """Of this process; None: it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        # Behind the name, which may have spaces and parentheses; the first is field 3 (proc(5)).
        stat = (folder / "stat").read_bytes().rpartition(b")")[2].split()
        limits = (folder / "limits").read_bytes().partition(b"Max open files")[2].split()
        open_fds = _count_in(folder / "fd")
    except OSError:
        return None
    return Usage(
        cpu_seconds=(int(stat[11]) + int(stat[12])) / TICKS_PER_S,
        resident_memory_bytes=int(stat[21]) * PAGE_BYTES,
        virtual_memory_bytes=int(stat[20]),
        open_fds=open_fds,
        max_fds=float("inf") if limits[0] == b"unlimited" else int(limits[0]),
        start_time_seconds=_boot_time_s() + int(stat[19]) / TICKS_PER_S,
    )


def _of_ended_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _count_in(folder: Path) -> int:
    """How many descriptors are there. Since Linux 6.2 the folder's size says it; to list 20,000 of
    them takes ten milliseconds.
    """
    return folder.stat().st_size or len(os.listdir(folder))


def _boot_time_s() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0
