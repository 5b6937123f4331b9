"""The access log's file: a thread appends to it, so that a slow disk or a full pipe delays neither
requests nor the end of the process.

At most PENDING_BYTES_MAX wait to be written. Lines beyond that are lost, counted, and reported in
the error log: the first time, and then at most every TOLD_INTERVAL_S, so that one full disk does
not fill another.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fastticket.dataplane.accesslog import AccessLog
from fastticket.errors import ConfigError
from fastticket.gateway.linewriter import LineWriter, open_log
from fastticket.gateway.settings import Config

log = logging.getLogger("fastticket.gateway")

PENDING_BYTES_MAX = 16 * 1024 * 1024
TOLD_INTERVAL_S = 60.0
LOGS: tuple[Literal["access_log", "error_log", "admin_audit_log"], ...] = ("access_log", "error_log", "admin_audit_log")
END_TIMEOUT_S = 2.0  # for the last lines; a reader that has not read them by then does not get them


class LogFile:
    """A log in a file, or on the standard output (`path` None). Opened at once; a file that cannot
    be opened is reported, and tried again with later lines.
    """

    def __init__(self, path: Path | None) -> None:
        self.lines_lost = 0  #: since the start
        self._path = path or "standard output"
        # Guards lines_lost and the next two: losses are reported by the line writer's thread, too.
        self._lock = threading.Lock()
        self._untold = 0
        self._tell_at_s = 0.0
        self._fd = -1 if path else os.dup(1)
        self._writer = LineWriter(path, self._fd, PENDING_BYTES_MAX, self._lost)
        self._writer.reopen()

    def write(self, lines: bytes) -> None:
        """Write whole lines soon; they are lost if there is no room for them."""
        if lines and not self._writer.write(lines):
            self._lost("too slow, or full", lines.count(b"\n"))

    def reopen(self) -> None:
        """Open the file anew: log rotation has moved it away."""
        self._writer.reopen()

    async def aclose(self, lines: bytes) -> None:
        """Write these last lines, and end; END_TIMEOUT_S at most."""
        self.write(lines)
        is_written = await asyncio.to_thread(self._writer.close, END_TIMEOUT_S)
        if self._untold:
            log.error("%s: %d lines of the access log are lost", self._path, self._untold)
        if not is_written:
            log.error("%s: nobody reads it, or it is full: the end of the access log is lost", self._path)
        elif self._fd >= 0:
            os.close(self._fd)

    def _lost(self, reason: str, lines: int) -> None:
        now_s = time.monotonic()
        with self._lock:
            self.lines_lost += lines
            self._untold += lines
            told = self._untold if now_s >= self._tell_at_s else 0
            if told:
                self._untold, self._tell_at_s = 0, now_s + TOLD_INTERVAL_S
        if told:
            log.error("%s: %s: %d lines of the access log are lost", self._path, reason, told)


class AccessLogFile:
    """Writes the lines that data planes have put into their access logs."""

    def __init__(self, sources: Sequence[AccessLog], path: Path | None) -> None:
        self._sources = sources
        self._file = LogFile(path)

    @property
    def lines_lost(self) -> int:
        """Lines since the start that found no room, in memory or on the way to the file."""
        return self._file.lines_lost + sum(source.dropped for source in self._sources)

    def collect(self) -> None:
        """Write the lines since the last call."""
        self._file.write(self._take())

    def reopen(self) -> None:
        """Open the file anew: log rotation has moved it away."""
        self._file.reopen()

    async def aclose(self) -> None:
        """Write the last lines, and end."""
        await self._file.aclose(self._take())

    def _take(self) -> bytes:
        return b"".join(source.take() for source in self._sources)


def check_logs(config: Config) -> None:
    """ConfigError: a log file of the configuration cannot be opened. A pipe without a reader can:
    its lines wait.
    """
    for name in LOGS:
        path = config.log_path(name)
        try:
            if path:
                os.close(open_log(path, os.O_NONBLOCK))
        except OSError as error:
            if error.errno == errno.ENXIO and path and path.is_fifo():
                continue
            raise ConfigError(f"{config.source}: [gateway] {name}: {path}: {error.strerror}") from None
