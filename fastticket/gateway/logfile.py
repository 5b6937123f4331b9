"""The access log's file: appended to by a thread, so that a slow disk or a full pipe holds up
nobody, nor the end.

PENDING_BYTES_MAX wait for it; what comes beyond that is lost, counted, and said in the log of
errors: the first time, and then at most every TOLD_INTERVAL_S, so that a full disk does not fill
another one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from pathlib import Path

from fastticket.errors import ConfigError
from fastticket.gateway.outlet import Outlet, open_log
from fastticket.gateway.settings import Config

log = logging.getLogger("fastticket.gateway")

PENDING_BYTES_MAX = 16 * 1024 * 1024
TOLD_INTERVAL_S = 60.0
END_TIMEOUT_S = 2.0  # for what is left; a reader that has not read until then does not get it


class LogFile:
    """Opened at once; what can not be opened is said, and tried again with later lines."""

    def __init__(self, path: Path | None) -> None:
        self.lines_lost = 0  #: since the start
        self._path = path or "standard output"
        self._lock = threading.Lock()  # of what follows, and lines_lost: the outlet's thread tells of losses, too
        self._untold = 0
        self._tell_at_s = 0.0
        self._fd = -1 if path else os.dup(1)
        self._outlet = Outlet(path, self._fd, PENDING_BYTES_MAX, self._lost)
        self._outlet.reopen()

    def write(self, lines: bytes) -> None:
        """Soon. Whole lines."""
        if lines and not self._outlet.write(lines):
            self._lost("too slow, or full", lines.count(b"\n"))

    def reopen(self) -> None:
        """The file by that name may be another one now."""
        self._outlet.reopen()

    async def aclose(self, lines: bytes) -> None:
        """Write what is left, and end: in bounded time."""
        self.write(lines)
        is_written = await asyncio.to_thread(self._outlet.close, END_TIMEOUT_S)
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


def check_logs(config: Config) -> None:
    """Whether the files of a configuration can be opened: before anybody serves by it. ConfigError."""
    logs = {"access_log": config.log_path("access_log"), "error_log": config.log_path("error_log")}
    for name, path in logs.items():
        try:
            if path:
                os.close(open_log(path))
        except OSError as error:
            raise ConfigError(f"{config.source}: [gateway] {name}: {path}: {error.strerror}") from None
