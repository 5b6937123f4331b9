"""Which sessions an import has brought already: a small SQLite file, so that a killed import goes
on where it was.

Why it must: a session that was imported, and has been ended since, must not be imported again by
the second run. Its mark in the store lasts three minutes, and the import's own entries soon fill
the store's log. So a session is written down as begun before the store is asked, and as done
afterwards. One that was begun and not done, long ago, may have been there and ended: it is left
out, if it is not there (`DOUBT_MS`).

It has session ids, which let nobody in, and nothing else of a session.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from fastticket.errors import ConfigError

DOUBT_MS = 120_000  # less than a mark in a store lasts (prelude.lua, sqlite.py)

SCHEMA = """
CREATE TABLE IF NOT EXISTS about (text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sessions (
    session_id BLOB PRIMARY KEY, began_ms INTEGER NOT NULL, is_done INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""

Known = Literal["done", "begun", "doubtful"]


class Journal:
    """`about`: what is imported into what; a file that is about something else is a ConfigError."""

    def __init__(self, path: Path, about: str) -> None:
        self.path = path
        try:
            if not path.exists():
                os.mknod(path, stat.S_IFREG | 0o600)
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"progress file {path}: {error}") from None
        self._db.execute("INSERT INTO about SELECT ? WHERE NOT EXISTS (SELECT 1 FROM about)", (about,))
        (known,) = self._db.execute("SELECT text FROM about").fetchone()
        if known != about:
            self.close()
            raise ConfigError(
                f"progress file {path}: it is about another import ({known}); name another file with --progress, "
                "or delete this one if that import is over"
            )

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    @property
    def done(self) -> int:
        """How many sessions are done."""
        return int(self._db.execute("SELECT count(*) FROM sessions WHERE is_done").fetchone()[0])

    def known(self, session_ids: Iterable[bytes]) -> Mapping[bytes, Known]:
        """What was written down of these sessions; those of which nothing was are left out."""
        found: dict[bytes, Known] = {}
        for session_id in session_ids:
            row = self._db.execute(
                "SELECT is_done, began_ms FROM sessions WHERE session_id = ?", (session_id,)
            ).fetchone()
            if row:
                is_recent = 0 <= _now_ms() - row[1] < DOUBT_MS
                found[session_id] = "done" if row[0] else "begun" if is_recent else "doubtful"
        return found

    def begin(self, session_ids: Iterable[bytes]) -> None:
        """The store is about to be asked for these sessions. The first time counts."""
        rows = [(session_id, _now_ms()) for session_id in session_ids]
        self._write("INSERT OR IGNORE INTO sessions (session_id, began_ms) VALUES (?, ?)", rows)

    def finish(self, session_ids: Iterable[bytes]) -> None:
        """It has answered."""
        self._write("UPDATE sessions SET is_done = 1 WHERE session_id = ?", [(each,) for each in session_ids])

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """ConfigError: the disk is full, or another import writes the file."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(statement, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise ConfigError(f"progress file {self.path}: {error}; mend that, and type the same again") from None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
