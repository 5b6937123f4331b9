"""Writes lines to a file, a pipe or a standard stream in a thread, so that the caller never blocks.

When a disk is full or a pipe is not read, lines that do not fit into `pending_bytes_max` are not
taken, and `close` waits only as long as it is told to. The thread is a daemon: stuck in a write, it
does not keep the process alive.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

PIPE_BYTES = 4096  # PIPE_BUF: a write of so much does not mix with what other processes write
MODE = 0o640
REOPEN_PAUSE_S = 1.0  # before a file that could not be opened is tried again
END_TIMEOUT_S = 1.0


class LineWriter:
    """Writes to the file `path`, opened with the first line; if that is None, to the descriptor
    `fd`, which the caller closes.

    The thread calls `on_loss(reason, lines)` with the number of lines that it could not write. All
    methods are thread-safe.
    """

    def __init__(self, path: Path | None, fd: int, pending_bytes_max: int, on_loss: Callable[[str, int], None]) -> None:
        self._path = path
        self._fd = -1 if path else fd
        self._is_file = False
        self._pending_bytes_max = pending_bytes_max
        self._on_loss = on_loss
        self._pending = bytearray()
        self._changed = threading.Condition()
        self._is_ending = False
        self._is_reopening = False
        self._retry_at_s = 0.0
        self._thread: threading.Thread | None = None
        if self._fd >= 0:
            self._is_file = _is_file(self._fd)

    def write(self, lines: bytes) -> bool:
        """Write whole lines soon. False: there is no room for them."""
        with self._changed:
            if self._is_ending or len(self._pending) + len(lines) > self._pending_bytes_max:
                return False
            self._pending += lines
            self._wake()
        return True

    def reopen(self) -> None:
        """Open the file anew: log rotation has moved it away. Lines from before may still go to the
        old one.
        """
        with self._changed:
            if self._path and not self._is_ending:
                self._is_reopening = True
                self._wake()

    def close(self, timeout_s: float = END_TIMEOUT_S) -> bool:
        """Write what is pending, and end. False: it took longer than that, or there was no thread
        for it, and it is lost.
        """
        with self._changed:
            self._is_ending = True
            if self._pending:
                self._wake()
            self._changed.notify()
        if self._thread:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        self._close_file()
        return not self._pending

    def _wake(self) -> None:
        """Called under the lock."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="fastticket-outlet", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there may be no more threads: the next line tries again
                return
            self._thread = thread
        self._changed.notify()

    def _close_file(self) -> None:
        if self._path and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._is_reopening or self._is_ending)
                lines, self._pending = bytes(self._pending), bytearray()
                is_reopening, self._is_reopening = self._is_reopening, False
            if is_reopening:
                self._close_file()
                self._retry_at_s = 0.0
            elif not lines:
                return
            self._write(lines)

    def _write(self, lines: bytes) -> None:
        """To a file all at once; to a pipe in pieces of whole lines and at most PIPE_BYTES."""
        try:
            if self._fd < 0:
                self._open_again()
            while lines:
                end = len(lines) if self._is_file or len(lines) <= PIPE_BYTES else lines.rfind(b"\n", 0, PIPE_BYTES) + 1
                lines = lines[os.write(self._fd, lines[: end or len(lines)]) :]
        except OSError as error:
            self._on_loss(error.strerror or str(error), lines.count(b"\n"))

    def _open_again(self) -> None:
        """Open the file, REOPEN_PAUSE_S after the last attempt at the earliest. OSError."""
        if self._path is None or time.monotonic() < self._retry_at_s:
            raise OSError(0, "it could not be opened")
        self._retry_at_s = time.monotonic() + REOPEN_PAUSE_S
        self._fd = open_log(self._path)
        self._is_file = _is_file(self._fd)


def open_log(path: Path, flags: int = 0) -> int:
    """Open a log to append to it; make it if it is missing. Returns the descriptor. OSError. A pipe
    waits for its reader, or with `flags` O_NONBLOCK is ENXIO without one.
    """
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | flags, MODE)


def _is_file(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)
