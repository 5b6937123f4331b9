"""Commands of ours that are killed in the middle, and how far they had got."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from conftest import BOUND_S

from lab.redis_servers import wait_until


@contextlib.contextmanager
def killed_when(holds: Callable[[], bool]) -> Iterator[Callable[..., None]]:
    """A function that starts a command, which is killed as soon as something holds."""
    started: list[subprocess.Popen[bytes]] = []
    yield lambda *words: started.append(subprocess.Popen([sys.executable, "-m", "fastticket", *map(str, words)]))
    with started[0] as process:
        try:
            wait_until(holds, "it has got so far", BOUND_S)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL


def done_by(progress: Path) -> int:
    """How many sessions an import has brought, by its progress file."""
    if not progress.exists():
        return 0
    with contextlib.closing(sqlite3.connect(progress)) as db, contextlib.suppress(sqlite3.OperationalError):
        return int(db.execute("SELECT count(*) FROM sessions WHERE is_done").fetchone()[0])
    return 0
