"""The error log: logging never blocks, and never floods.

A line is formatted by the thread that logs it, waits in a bounded queue, and is written by another
thread. At most LINES_MAX lines of one message (by its format string) are written in WINDOW_S; then
one line says how many were left out. Lines that find no room in the queue are counted and reported,
too. The form is text, or JSON by `error_log_format` (`fastticket.loglines`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from fastticket.gateway.linewriter import LineWriter
from fastticket.gateway.settings import Config
from fastticket.loglines import JsonLines, TextLines

PENDING_BYTES_MAX = 1024 * 1024
LINES_MAX = 50  # of one message in one window
WINDOW_S = 10.0
MESSAGES_MAX = 500  # with a window of their own at a time
STDERR = 2


class _Window:
    """The lines of one message until `ends_s`; `record` is the first."""

    def __init__(self, ends_s: float, record: logging.LogRecord) -> None:
        self.ends_s = ends_s
        self.record = record
        self.lines = 0
        self.left_out = 0


class ErrorLog(logging.Handler):
    """One for each process. A forked child goes on with its own thread and queue."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        super().__init__()
        self._window_s = window_s
        self._path: Path | None = None
        self.setFormatter(TextLines())
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Start with empty queues: the parent writes what waits in its own."""
        self._windows: dict[tuple[str, str], _Window] = {}
        self._dropped = 0
        self.left_out = self.lost = 0  #: lines since the start of this process
        self._timer: threading.Timer | None = None
        self._writer = self._make_writer()

    def _make_writer(self) -> LineWriter:
        return LineWriter(self._path, STDERR, PENDING_BYTES_MAX, self._lost)

    def move_to(self, path: Path | None, *, is_json: bool) -> None:
        """Write to this file from now on; None: to the standard error. A file that cannot be opened
        is tried again with later lines.
        """
        with self._locked():
            self.setFormatter(JsonLines() if is_json else TextLines())
            if path != self._path:
                self._writer.close()
                self._path = path
                self._writer = self._make_writer()

    def reopen(self) -> None:
        """Open the file anew: log rotation has moved it away."""
        self._writer.reopen()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or count it. Called by `Handler.handle`, which holds the handler's lock."""
        now_s = time.monotonic()
        key = (record.name, record.msg if isinstance(record.msg, str) else type(record.msg).__name__)
        window = self._windows.get(key)
        if window is None or now_s >= window.ends_s:
            self._end_windows(now_s)
            if len(self._windows) >= MESSAGES_MAX:
                self._end_windows(float("inf"))
            window = self._windows[key] = _Window(now_s + self._window_s, record)
        window.lines += 1
        if window.lines <= LINES_MAX:
            self._put(record)
            return
        window.left_out += 1
        self.left_out += 1
        self._wake_at_ends(now_s)

    def write_out(self) -> None:
        """Write what is queued, in bounded time, and go on."""
        with self._locked():
            self._writer.close()
            self._writer = self._make_writer()

    def close(self) -> None:
        """Write what is queued, and what was left out, in bounded time. Later lines are dropped."""
        with self._locked():
            if self._timer:
                self._timer.cancel()
            self._end_windows(float("inf"))
            writer = self._writer
        writer.close()
        super().close()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the handler's lock, as `Handler.handle` does."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _tell_left_out(self) -> None:
        with self._locked():
            self._timer = None
            now_s = time.monotonic()
            self._end_windows(now_s)
            self._wake_at_ends(now_s)

    def _wake_at_ends(self, now_s: float) -> None:
        """Start a timer for the first end of a window that has left lines out."""
        ends_s = [window.ends_s for window in self._windows.values() if window.left_out]
        if ends_s and self._timer is None:
            timer = threading.Timer(min(ends_s) - now_s, self._tell_left_out)
            timer.daemon = True
            with contextlib.suppress(RuntimeError):  # there may be no more threads: the next line tries again
                timer.start()
                self._timer = timer

    def _end_windows(self, now_s: float) -> None:
        """Drop the windows that are over, and log how many lines each has left out."""
        for key, window in list(self._windows.items()):
            if window.ends_s <= now_s:
                del self._windows[key]
                if window.left_out:
                    said = window.record
                    what = "left out %d more in %g s like %r", (window.left_out, self._window_s, key[1])
                    self._put(logging.LogRecord(said.name, said.levelno, said.pathname, said.lineno, *what, None))

    def _put(self, record: logging.LogRecord) -> None:
        """Queue a line; before it, the number of lines that had no room."""
        try:
            line = self.format(record) + "\n"
            if self._dropped:
                text = "%d lines of this log are lost: nobody reads it, or it is full"
                lost = logging.LogRecord(__name__, logging.ERROR, __file__, 0, text, (self._dropped,), None)
                line = f"{self.format(lost)}\n{line}"
            if self._writer.write(line.encode(errors="backslashreplace")):
                self._dropped = 0
            else:
                self._dropped += 1
                self.lost += 1
        except Exception:  # a message that does not fit its arguments
            self.handleError(record)

    def _lost(self, _reason: str, lines: int) -> None:
        """Called by the writing thread without the lock: a count that is a little off does no
        harm.
        """
        self._dropped += lines
        self.lost += lines


_log: ErrorLog | None = None


def begin() -> None:
    """Send everything that this process logs through an `ErrorLog`."""
    global _log
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler:  # from `basicConfig`
            root.removeHandler(handler)
    _log = ErrorLog()
    root.addHandler(_log)
    root.setLevel(logging.INFO)
    logging.raiseExceptions = False


def follow(config: Config) -> None:
    """Apply a configuration's log settings; without a `begin`, the level only."""
    logging.getLogger().setLevel(config.gateway.log_level.upper())
    if _log:
        _log.move_to(config.log_path("error_log"), is_json=config.gateway.error_log_format == "json")


def reopen() -> None:
    """Open the log's file anew: log rotation has moved it away."""
    if _log:
        _log.reopen()


def write_out() -> None:
    """Write what is left, in bounded time, before another program may take this one's place."""
    if _log:
        _log.write_out()


def end() -> None:
    """Write what is left, in bounded time, before the process ends."""
    if _log:
        _log.close()


def counted() -> dict[str, int]:
    """The lines that this process has not written: `error_lines_left_out` of one message, because
    there were more; `error_lines_lost`, because there was no room.
    """
    return {
        "error_lines_left_out": _log.left_out if _log else 0,
        "error_lines_lost": _log.lost if _log else 0,
    }


def say(text: str, timeout_s: float = 1.0) -> None:
    """Write a line to the standard error. After `begin`, end the log first, and drop the line if
    nobody reads it in time.
    """
    if _log is None:
        print(text, file=sys.stderr)
        return
    end()
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    if poll.poll(timeout_s * 1000):
        os.write(STDERR, text.encode(errors="backslashreplace")[: select.PIPE_BUF - 1] + b"\n")
