"""How a record of a log becomes one line: as text, or as a JSON object.

Rules of this file
- A record is one line. Line ends and other control characters in it are escaped, those of an
  exception's trace, too: a log can be read line by line, and nobody forges a line with a name that
  he chooses.
- Times are UTC, with milliseconds and a Z (RFC 3339), as in the access log and the audit log.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import traceback
from typing import Any

#: C0, DEL, C1, and the line ends that only Unicode knows.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class TextLines(logging.Formatter):
    """`time LEVEL logger: message`, and behind it the trace of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its end."""
        parts = [record.getMessage(), *([_trace_of(record)] if record.exc_info else [])]
        said = escaped("\n".join(parts))
        return f"{utc(record.created)} {record.levelname} {record.name}: {said}"


class JsonLines(logging.Formatter):
    """An object with time, level, logger, pid, message, and exception, if there was one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its end."""
        line = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = _trace_of(record)
        return json_line(line)


def utc(at_s: float) -> str:
    """A time in seconds since the epoch, as RFC 3339 has it: 2026-01-31T12:00:00.000Z."""
    at = datetime.datetime.fromtimestamp(at_s, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def escaped(text: str) -> str:
    r"""The text with \n, \r, \x1b, … for its control characters."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def json_line(value: Any) -> str:
    r"""JSON in one line, whoever reads it: what JSON itself leaves as it is becomes \uXXXX."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _trace_of(record: logging.LogRecord) -> str:
    assert record.exc_info  # noqa: S101 -- for mypy
    return "".join(traceback.format_exception(*record.exc_info)).rstrip()
