"""The log of errors: whoever has something to say never waits for who reads it, and says the same
thing only so often.

Lines are made by the one who speaks, wait in a bounded queue, and are written by a thread. Of one
message (by its format string), at most LINES_MAX are written in WINDOW_S; then one line says how
many more there were. What found no room in the queue is counted, too. Text, or JSON by
`error_log_format`.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from fastticket.gateway.outlet import Outlet
from fastticket.gateway.settings import Config

PENDING_BYTES_MAX = 1024 * 1024
LINES_MAX = 50  # of one message in a window
WINDOW_S = 10.0
MESSAGES_MAX = 500  # that are told apart
STDERR = 2
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__(TEXT)


class _Json(logging.Formatter):
    """One object a line, with the time as the access log has it."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class _Window:
    """Of one message."""

    def __init__(self, ends_s: float, record: logging.LogRecord) -> None:
        self.ends_s = ends_s
        self.record = record  #: the first one
        self.lines = 0
        self.left_out = 0


class ErrorLog(logging.Handler):
    """One a process; it goes on in a forked child, with a thread and a queue of its own."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        super().__init__()
        self._window_s = window_s
        self._path: Path | None = None
        self.setFormatter(_Text())
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """With nothing said yet: what waits in a parent's queue is the parent's to write."""
        self._windows: dict[tuple[str, str], _Window] = {}
        self._dropped = 0
        self._timer: threading.Timer | None = None
        self._outlet = self._make_outlet()

    def _make_outlet(self) -> Outlet:
        return Outlet(self._path, STDERR, PENDING_BYTES_MAX, self._lost)

    def move_to(self, path: Path | None, *, is_json: bool) -> None:
        """Write there from now on; None: the standard error. A file that can not be opened is tried
        again with later lines.
        """
        with self._locked():
            self.setFormatter(_Json() if is_json else _Text())
            if path != self._path:
                self._outlet.close()
                self._path = path
                self._outlet = self._make_outlet()

    def reopen(self) -> None:
        """The file by that name may be another one now."""
        self._outlet.reopen()

    def emit(self, record: logging.LogRecord) -> None:
        """Soon, or not at all. `Handler.handle` holds the handler's lock."""
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
        self._wake_at_ends(now_s)

    def close(self) -> None:
        """Say what is left, in bounded time. Nothing is taken any more."""
        with self._locked():
            if self._timer:
                self._timer.cancel()
            self._end_windows(float("inf"))
            outlet = self._outlet
        outlet.close()
        super().close()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """As `Handler.handle` holds it."""
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
        """Of the first window that has something to say then."""
        ends_s = [window.ends_s for window in self._windows.values() if window.left_out]
        if ends_s and self._timer is None:
            self._timer = threading.Timer(min(ends_s) - now_s, self._tell_left_out)
            self._timer.daemon = True
            self._timer.start()

    def _end_windows(self, now_s: float) -> None:
        """Of those that are over, say how much was left out."""
        for key, window in list(self._windows.items()):
            if window.ends_s <= now_s:
                del self._windows[key]
                if window.left_out:
                    said = window.record
                    what = "left out %d more in %g s like %r", (window.left_out, self._window_s, key[1])
                    self._put(logging.LogRecord(said.name, said.levelno, said.pathname, said.lineno, *what, None))

    def _put(self, record: logging.LogRecord) -> None:
        """Into the queue. What had no room before comes first, as a number."""
        try:
            line = self.format(record) + "\n"
            if self._dropped:
                text = "%d lines of this log are lost: nobody reads it, or it is full"
                lost = logging.LogRecord(__name__, logging.ERROR, __file__, 0, text, (self._dropped,), None)
                line = f"{self.format(lost)}\n{line}"
            if self._outlet.write(line.encode(errors="backslashreplace")):
                self._dropped = 0
            else:
                self._dropped += 1
        except Exception:  # a message that does not fit its arguments
            self.handleError(record)

    def _lost(self, _reason: str, lines: int) -> None:
        """Said by the thread that writes, with no lock held: a count that is a little off does no
        harm.
        """
        self._dropped += lines


_log: ErrorLog | None = None


def begin() -> None:
    """Everything that is logged in this process goes through an `ErrorLog` from now on."""
    global _log
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler:  # of `basicConfig`
            root.removeHandler(handler)
    _log = ErrorLog()
    root.addHandler(_log)
    root.setLevel(logging.INFO)
    logging.raiseExceptions = False


def follow(config: Config) -> None:
    """What a configuration says. Nothing but the level where nobody has begun."""
    logging.getLogger().setLevel(config.gateway.log_level.upper())
    if _log:
        _log.move_to(config.log_path("error_log"), is_json=config.gateway.error_log_format == "json")


def reopen() -> None:
    """The log's file anew."""
    if _log:
        _log.reopen()


def end() -> None:
    """Before the process ends without another word: write what is left, in bounded time."""
    if _log:
        _log.close()


def say(text: str, timeout_s: float = 1.0) -> None:
    """A line to the standard error; of a process that has begun, if somebody takes it in time."""
    if _log is None:
        print(text, file=sys.stderr)
        return
    end()
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    if poll.poll(timeout_s * 1000):
        os.write(STDERR, text.encode(errors="backslashreplace")[: select.PIPE_BUF - 1] + b"\n")
