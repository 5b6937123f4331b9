"""The access log's file: appended to by a thread, so that a slow disk or a full pipe holds up nobody.

At most one write is under way and PENDING_BYTES_MAX wait for it; what comes beyond that is dropped, and the drop is said in the log of
errors. "-" is the standard output.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from pathlib import Path

from fastticket.errors import ConfigError

log = logging.getLogger("fastticket.gateway")

PIPE_BYTES = 4096  # PIPE_BUF
PENDING_BYTES_MAX = 16 * 1024 * 1024


class LogFile:
    """Opened at once. ConfigError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending = bytearray()
        self._writing: asyncio.Future[None] | None = None
        try:
            if path.name == "-":
                self._fd = os.dup(1)
            else:
                self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        except OSError as error:
            raise ConfigError(f"[gateway] access_log: {path}: {error.strerror}") from None

    def write(self, lines: bytes) -> None:
        """Soon. Whole lines."""
        if len(self._pending) + len(lines) > PENDING_BYTES_MAX:
            log.error("%s: too slow, or full: %d lines of the access log are lost", self._path, lines.count(b"\n"))
        else:
            self._pending += lines
        if self._pending and (self._writing is None or self._writing.done()):
            taken, self._pending = bytes(self._pending), bytearray()
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._write, taken)

    async def aclose(self, lines: bytes) -> None:
        """Write what is left, and end."""
        self._pending += lines
        if self._writing:
            await self._writing
        await asyncio.get_running_loop().run_in_executor(None, self._write, bytes(self._pending))
        os.close(self._fd)

    def _write(self, lines: bytes) -> None:
        """To a file in one go; to a pipe so much at once as does not mix with what other workers write."""
        try:
            while lines:
                end = len(lines) if self._is_file or len(lines) <= PIPE_BYTES else lines.rfind(b"\n", 0, PIPE_BYTES) + 1
                lines = lines[os.write(self._fd, lines[: end or len(lines)]) :]
        except OSError as error:
            log.error("%s: %s: %d lines of the access log are lost", self._path, error.strerror, lines.count(b"\n"))
