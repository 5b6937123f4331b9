"""Which gateway this is, for the fleet's register and for operators.

The id is made of what the kernel says of the supervisor's process. So all of its workers have one
id, an upgrade in its place (`upgrade`) keeps it, and a restart makes another one, also where each
start has process 1 of a container.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from pathlib import Path

from fastticket import __version__


@dataclasses.dataclass(frozen=True)
class Identity:
    """One supervisor's process."""

    id: str
    host: str  #: the machine's name for itself
    pid: int
    started_ms: int  #: since the epoch, by this machine's clock
    version: str


def of_this_process() -> Identity:
    """Called in the supervisor."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    space = os.stat("/proc/self/ns/pid").st_ino
    # proc(5): field 22, counted after the name, which may have blanks.
    began_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - began_ticks / os.sysconf("SC_CLK_TCK")
    return Identity(
        id=f"{boot[:12]}-{space:x}-{os.getpid():x}-{began_ticks:x}",
        host=socket.gethostname(),
        pid=os.getpid(),
        started_ms=round((time.time() - age_s) * 1000),
        version=__version__,
    )
