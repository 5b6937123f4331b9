"""Write all live sessions of a store to a file (moving/dump.py).

Rules of this file
- The file appears when it is whole: until then it is "<name>.partial". Both are for their owner
  only (mode 600).
- An export that was killed goes on: the partial file says how far it is, in its last line `cursor`.
  What is behind that line is cut off.
- One that was left alone for longer than STALE_S is not gone on with: most of what it has may have
  ended meanwhile, and who has logged in since is missing.
- Memory is bounded: PAGE sessions with their attributes at a time.
- It is no picture of one moment: each session is as it was when it was read. One that is in it may
  end while the export goes on.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fastticket.errors import ConfigError
from fastticket.moving import dump
from fastticket.moving.importing import Pace, patiently, slack_of
from fastticket.moving.record import MovedSession, of_stored
from fastticket.moving.sealing import Sealer
from fastticket.stores.contract import Store, StoredSession

PAGE = 100
STALE_S = 900.0


class Exported(NamedTuple):
    """How many sessions the file has, and how many of them an earlier run had written."""

    sessions: int
    done_before: int


async def export_sessions(
    store: Store,
    source: str,
    path: Path,
    *,
    secret: bytes | None = None,
    rate_per_s: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> Exported:
    """`source`: how the store is called in the file: its URL without passwords. `secret`: seal it.
    StoreUnavailable; ConfigError: the file is there, or cannot be written, or the partial one is of
    another store.
    """
    try:
        with _Partial(path, secret) as file:
            done_before = file.take_up(source)
            if file.cursor is None:
                file.begin(source, await patiently(store.time_ms))
            advance(done_before)
            await _write_sessions(store, file, Pace(rate_per_s), advance)
            file.finish()
            return Exported(file.sessions, done_before)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


async def _write_sessions(store: Store, file: _Partial, pace: Pace, advance: Callable[[int], None]) -> None:
    slack_ms = await slack_of(store)
    while not file.is_scanned:
        cursor, page = await patiently(partial(store.scan, file.cursor or "", PAGE))
        moved = await asyncio.gather(*(_with_attributes(store, session, slack_ms) for session in page))
        file.add([each for each in moved if each], cursor)
        advance(len(page))
        await pace.after(len(page))


async def _with_attributes(store: Store, session: StoredSession, slack_ms: int) -> MovedSession | None:
    """None: it has ended since it was found."""
    found = await patiently(partial(store.read_attributes, session.id, session.principal))
    return of_stored(session, found.values, slack_ms) if found else None


class _Partial:
    """The file that grows. `cursor`: where the scan goes on; None: nothing is written yet."""

    def __init__(self, path: Path, secret: bytes | None) -> None:
        self.path = path.with_name(f"{path.name}.partial")
        self._whole_path = path
        self.cursor: str | None = None
        self.sessions = 0
        self.is_scanned = False
        self._has_end = False
        self._secret = secret
        self._sealer: Sealer | None = None
        self._digest = hashlib.sha256()

    def __enter__(self) -> _Partial:
        if self._whole_path.exists():
            raise ConfigError(f"{self._whole_path}: it exists; delete it, or name another file")
        self._file: BinaryIO = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ConfigError(f"{self.path}: another export writes it just now") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take_up(self, source: str) -> int:
        """Read what an earlier run has written, as far as a line says where to go on, and cut off
        the rest; how many sessions that are. ConfigError.
        """
        age_s = time.time() - os.fstat(self._file.fileno()).st_mtime
        if age_s > STALE_S and self._file.seek(0, 2):
            raise ConfigError(f"{self.path}: an export left it {age_s / 60:.0f} minutes ago; delete it to begin again")
        kept, pending = 0, list[bytes]()
        try:
            for piece, at in dump.open_pieces(self._file, self._secret):
                pending += piece.splitlines(keepends=True)
                if self._goes_on_after(pending[-1], source):
                    self._count(pending)
                    kept, pending = at, []
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}; delete it to begin again") from None
        self._file.seek(kept)
        self._file.truncate()
        return self.sessions

    def _goes_on_after(self, line: bytes, source: str) -> bool:
        value = dump.value_of(line)
        if self.cursor is None:
            head = dump.checked_head(value)
            if head["from"] != source:
                raise ConfigError(f"it is of another store, {head['from']}")
            self.cursor = ""
        elif "cursor" in value:
            self.cursor = value["cursor"]
            self.is_scanned = not self.cursor
        elif "end" in value:
            self._has_end = True
        else:
            return False
        return True

    def begin(self, source: str, now_ms: int) -> None:
        """The first line."""
        head = {"format": dump.FORMAT, "version": dump.VERSION, "dump": secrets.token_hex(8)}
        self._write([dump.line_of({**head, "from": source, "exported_at_ms": now_ms})])
        self.cursor = ""

    def add(self, page: Iterable[MovedSession], cursor: str) -> None:
        """Sessions, and where to go on; "": nowhere."""
        self._write([*map(dump.session_line, page), dump.line_of({"cursor": cursor})])
        self.cursor, self.is_scanned = cursor, not cursor

    def finish(self) -> None:
        """The last line. The file gets its name."""
        if not self._has_end:
            self._write([dump.end_line(self.sessions, self._digest.hexdigest())])
        os.fsync(self._file.fileno())
        self.path.rename(self._whole_path)

    def _write(self, lines: list[bytes]) -> None:
        self._count(lines)
        text = b"".join(lines)
        if self._secret and not self._sealer:
            self._sealer = Sealer(self._secret)
            self._file.write(self._sealer.start)
        self._file.write(self._sealer.seal(text) if self._sealer else text)
        self._file.flush()

    def _count(self, lines: list[bytes]) -> None:
        for line in lines:
            self._digest.update(line)
            self.sessions += dump.is_session(line)
