"""Spring Session in a database, by an export of the table SPRING_SESSION as CSV (RFC 4180), with
a line of column names: SESSION_ID, CREATION_TIME and LAST_ACCESS_TIME (ms), MAX_INACTIVE_INTERVAL
(s) and PRINCIPAL_NAME, in any order, beside others.

Attributes do not move: they are in another table, serialized by Java. The file is read anew for
each move; `read_one` keeps it in memory.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from fastticket.errors import ConfigError
from fastticket.moving.record import MovedSession, Skipped
from fastticket.moving.sources import shown
from fastticket.moving.sources.rediskeys import ID_CHARS_MAX
from fastticket.moving.sources.spring import check_times, identifier_in, moved
from fastticket.moving.sources.values import LeftBehind, Unreadable, principal_of

COLUMNS = ("SESSION_ID", "CREATION_TIME", "LAST_ACCESS_TIME", "MAX_INACTIVE_INTERVAL", "PRINCIPAL_NAME")
ROWS_MAX = 2_000_000  # in memory
DIGITS_MAX = 15

Row = Mapping[str, str]


class SpringExport:
    """See above."""

    def __init__(self, path: Path, *, absolute_lifetime_s: int = 0) -> None:
        self.left = LeftBehind()
        self._path = path
        self._absolute_lifetime_s = absolute_lifetime_s
        self._rows: dict[str, Row] | None = None

    async def records(self) -> AsyncIterator[MovedSession | Skipped]:
        """As a source's. ConfigError: not such a file."""
        for row in self._read():
            yield self._record(row)

    async def read_one(self, cookie: str) -> MovedSession | Skipped:
        """As a source's. ConfigError."""
        if self._rows is None:
            self._rows = {_id_in(row): row for row in itertools.islice(self._read(), ROWS_MAX)}
        row = self._rows.get(identifier_in(cookie))
        return Skipped(shown(cookie), "not_found") if row is None else self._record(row)

    def _read(self) -> Iterator[Row]:
        """ConfigError."""
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, strict=True)
                names = [name.strip().upper() for name in next(reader, [])]
                if missing := [name for name in COLUMNS if name not in names]:
                    raise ConfigError(
                        f"{self._path}: the first line must name the columns; missing: {', '.join(missing)}"
                    )
                for values in reader:
                    yield dict(zip(names, values, strict=False))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"{self._path}: {error}") from error

    def _record(self, row: Row) -> MovedSession | Skipped:
        identifier = _id_in(row)
        if not identifier or len(identifier) > ID_CHARS_MAX:
            return Skipped(shown(identifier), "malformed")
        try:
            created_ms, used_ms, idle_s = (_number(row, name) for name in COLUMNS[1:4])
            check_times(created_ms, used_ms, idle_s)
            if not row.get("PRINCIPAL_NAME"):
                return Skipped(shown(identifier), "anonymous")
            principal = principal_of(row["PRINCIPAL_NAME"])
        except Unreadable as error:
            return Skipped(shown(identifier), error.reason)
        return moved(identifier, principal, (created_ms, used_ms, idle_s), self._absolute_lifetime_s)

    async def aclose(self) -> None:
        """As a source's."""


def _id_in(row: Row) -> str:
    return row.get("SESSION_ID", "").strip()  # the column is CHAR(36)


def _number(row: Row, name: str) -> int:
    text = row.get(name, "").strip()
    if not text.removeprefix("-").isdecimal() or not text.isascii() or len(text) > DIGITS_MAX:
        raise Unreadable("bad_times")
    return int(text)
