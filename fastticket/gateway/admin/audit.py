"""The log of changes: one JSON line for each, in `admin_audit_log`, or on the standard error.

A line says when, who (the user and process at the other end of a Unix socket, or the name of the
token, and the address), what (the operation with its parameters), and what came of it. It holds no
ticket, token, key or attribute.

A change that is refused has a line, too, wherever it is refused; and so has whatever is asked for
with a token that is not known. Who has no name here can ask as often as the network lets it, so its
lines are bounded: REFUSALS_MAX in REFUSALS_S, and the next one has `left_out`.

A thread writes it, so that a slow disk does not hold up the supervisor.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastticket.gateway.admin.contract import Who
from fastticket.gateway.linewriter import LineWriter
from fastticket.loglines import json_line, utc

log = logging.getLogger("fastticket.admin")

STDERR = 2
PENDING_BYTES_MAX = 1024 * 1024
REFUSALS_MAX = 60  # of those without a name, in REFUSALS_S
REFUSALS_S = 60.0


class AuditLog:
    """Writes lines to a file, or to the standard error."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._writer = self._make_writer()
        self._window_s = 0.0  # of refusals; monotonic
        self._refusals = self._left_out = 0  # since then, and not told yet

    def _make_writer(self) -> LineWriter:
        return LineWriter(self._path, STDERR, PENDING_BYTES_MAX, self._lost)

    def move_to(self, path: Path | None) -> None:
        """Write to this file from now on; None: to the standard error."""
        if path != self._path:
            self._writer.close()
            self._path = path
            self._writer = self._make_writer()

    def reopen(self) -> None:
        """Open the file anew: log rotation has moved it away."""
        self._writer.reopen()

    def write_out(self) -> None:
        """Write what waits, in bounded time, and go on: another program may take this one's
        place.
        """
        self._writer.close()
        self._writer = self._make_writer()

    def note(self, who: Who, operation: str, what: Mapping[str, Any], result: str, told: Mapping[str, Any]) -> None:
        """Write one line. `result`: "done", or the slug of what it was refused for; `told`: what of
        the answer is to be in it.
        """
        if result != "done" and not who.name:
            if not self._has_room():
                self._left_out += 1
                return
            told, self._left_out = {**told, **({"left_out": self._left_out} if self._left_out else {})}, 0
        by = {name: value for name, value in who._asdict().items() if value not in (None, "")}
        line = {"time": utc(time.time()), "audit": operation, "who": by, "what": dict(what), "result": result, **told}
        if not self._writer.write(json_line(line).encode(errors="replace") + b"\n"):
            self._lost("too slow, or full", 1)

    def _has_room(self) -> bool:
        """For one more line of somebody without a name."""
        now_s = time.monotonic()
        if now_s - self._window_s >= REFUSALS_S:
            self._window_s, self._refusals = now_s, 0
        self._refusals += 1
        return self._refusals <= REFUSALS_MAX

    def _lost(self, reason: str, lines: int) -> None:
        log.error("%s: %s: %d lines of the audit log are lost", self._path or "standard error", reason, lines)
