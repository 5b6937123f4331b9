"""The embedded store: one SQLite file in WAL mode, shared by the processes of one machine.

Rules of this file
- One shard. One connection, used by one worker thread, so the event loop never waits for the disk.
- A write is synced before it is acknowledged (`synchronous=FULL`): a revocation survives power
  loss.
- Time is CLOCK_BOOTTIME plus an offset that the first process of a boot took from the wall clock
  and wrote down for the others. A wall clock that jumps while they run, by NTP or by hand, moves no
  deadline.
- The doorbell is `PRAGMA data_version`, which changes when another connection has committed
  anything.
- A file that was deleted or replaced is an outage, until a restart: this process would go on with
  the old one, and hear of nothing that ends in the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fastticket.errors import AttributesTooLarge, ConfigError, NoStore, StoreUnavailable, TooManySessions
from fastticket.stores.contract import (
    BAR_LASTS_MS,
    BARS_MAX,
    EVERYBODY,
    GATEWAYS_MAX,
    NEVER_MS,
    NO_DETAILS,
    SESSION_ID_CHARS,
    Bar,
    Event,
    Fleet,
    Loss,
    Position,
    Reply,
    Request,
    Restored,
    RestoredSession,
    Ring,
    StoredAttributes,
    StoredSession,
    Tail,
    Written,
    check_card,
)
from fastticket.tasks import end

FORMAT = 2
LOG_ENTRIES_MAX = 16384
LOG_TRIM_EVERY = 256
RESTORED_AT_ONCE = 500  # sessions in one transaction
BUSY_TIMEOUT_S = 2.0
WAL_RETRY_S = 0.01
DOORBELL_INTERVAL_S = 0.025
#: How long an end is known that no entry of the log says: of a session that is not there, and of
#: all of a principal's (session id ""). And how many of these there are at most.
MARK_MS = 180_000
MARKS_MAX = 10_000
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
WRITES = "this user must be able to write the file and its folder, where SQLite keeps two more"

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS live (
    session_id TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    idle_deadline_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    idle_timeout_s INTEGER NOT NULL,
    absolute_lifetime_s INTEGER NOT NULL,
    details TEXT,
    version INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS live_by_principal ON live (principal);
CREATE TABLE IF NOT EXISTS attributes (
    session_id TEXT NOT NULL REFERENCES live ON UPDATE CASCADE ON DELETE CASCADE,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (session_id, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    session_id TEXT NOT NULL,
    principal TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    successor_id TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS ended (
    session_id TEXT NOT NULL,
    principal TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (session_id, principal)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bars (principal TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS bars_by_time ON bars (at_ms);
CREATE TABLE IF NOT EXISTS gateways (id TEXT PRIMARY KEY, until_ms INTEGER NOT NULL, card BLOB NOT NULL) WITHOUT ROWID;
"""

SESSION = "session_id, principal, idle_deadline_ms, created_ms, idle_timeout_s, absolute_lifetime_s, details"
EVENT = "id, kind, session_id, principal, reason, successor_id"
TOUCH = "UPDATE live SET idle_deadline_ms = ?3 WHERE session_id = ?1 AND principal = ?2 AND idle_deadline_ms < ?3"
EXPIRY = (
    "iif(absolute_lifetime_s > 0 AND idle_deadline_ms >= created_ms + absolute_lifetime_s * 1000, 'absolute', 'idle')"
)

T = TypeVar("T")


class SQLiteStore:
    """See `fastticket.stores.contract.Store`. `path` None: in memory, for as long as the process
    lives. `creates`: whether to make a store where there is none.
    """

    shards = 1
    doubt_ms = 0
    touches_per_exchange = 4000  # with fewer the same pages would be written more often

    def __init__(self, path: Path | None, *, creates: bool = True) -> None:
        self._path = path
        self._creates = creates
        self._name = f"sqlite {path}" if path else "sqlite in memory"
        self._thread = _one_thread()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._closing: Future[None] | None = None  # the thread's last work
        self._offset_ms = 0
        self._data_version = 0
        self._file: tuple[int, int] | None = None  # device and inode of the file that is open
        self._ring: Ring | None = None
        self._doorbell: asyncio.Task[None] | None = None

    @property
    def servers(self) -> Mapping[str, str]:
        """Always empty: a file has no server."""
        return {}

    @property
    def is_replaced(self) -> bool:
        """Whether the file was deleted or replaced."""
        return self._file is not None and self._file_at_path() != self._file

    async def open(self) -> None:
        """Create or check the file."""
        if self._closed:  # after an `open` that failed
            await self._closed_by_thread()
            self._thread = _one_thread()
            self._closed = False
        self._file = None
        await self._in_thread(self._open)
        if self._path:
            self._doorbell = asyncio.create_task(self._watch())

    async def _closed_by_thread(self) -> None:
        """Wait until the thread has closed the file, after all that it has begun, which may be an
        `open` that was cancelled. A caller who does not wait any more stops nothing.
        """
        if self._closing:
            await asyncio.shield(asyncio.wrap_future(self._closing))

    async def settle(self) -> None:
        """A transaction that is committed stays."""

    async def aclose(self) -> None:
        """Stop the doorbell and close the file. Idempotent."""
        doorbell, self._doorbell = self._doorbell, None
        if not self._closed:
            self._closed = True
            with contextlib.suppress(RuntimeError):  # there may be no more threads; then it has opened nothing
                self._closing = self._thread.submit(self._close)
            self._thread.shutdown(wait=False)
        if doorbell:
            await end(doorbell)
        await self._closed_by_thread()

    async def join(self, fleet: Fleet) -> Fleet | None:
        """Rows of `meta`."""
        return await self._in_thread(self._join, fleet)

    async def time_ms(self) -> int:
        """Boot time plus the offset that all processes of this boot share."""
        self._db()
        return self._now_ms()

    async def uptime_ms(self) -> int:
        """NEVER_MS: a file does not go away."""
        return NEVER_MS

    async def announce(self, gateway_id: str, card: bytes, lease_ms: int) -> bool:
        """A row, and none of those whose lease is over."""
        check_card(card)
        return await self._in_thread(self._announce, gateway_id, card, lease_ms)

    async def gateways(self) -> Mapping[str, bytes]:
        """Rows whose lease is in force."""
        return await self._in_thread(self._gateways)

    async def create(self, session: StoredSession, *, sessions_max: int = 0, evicts: bool = True) -> Sequence[str]:
        """Insert the row and its log entry."""
        return await self._in_thread(self._create, session, sessions_max, evicts)

    async def rotate(self, session_id: str, successor: StoredSession) -> bool:
        """Change the row's key."""
        return await self._in_thread(self._rotate, session_id, successor)

    async def exchange(self, requests: Mapping[int, Request]) -> Mapping[int, Reply | StoreUnavailable]:
        """One transaction; it writes only if there are touches."""
        try:
            return {shard: await self._in_thread(self._exchange, request) for shard, request in requests.items()}
        except StoreUnavailable as error:
            return dict.fromkeys(requests, error)

    async def revoke(self, session_id: str, principal: str, reason: str = "logout") -> bool:
        """Delete the row, or leave a mark."""
        return await self._in_thread(self._revoke, session_id, principal, reason)

    async def revoke_all(self, principal: str, *, keep: str = "", reason: str = "logout_everywhere") -> Sequence[str]:
        """Delete all rows of the principal but one, and leave a mark if it is all."""
        return await self._in_thread(self._revoke_all, principal, keep, reason)

    async def count(self) -> int:
        """Reads the whole table."""
        return await self._in_thread(self._count)

    async def scan(self, cursor: str, count: int) -> tuple[str, Sequence[StoredSession]]:
        """By session id, which is the cursor."""
        if len(cursor) not in (0, SESSION_ID_CHARS):
            raise ValueError(f"not a cursor of this store: {cursor!r}")
        return await self._in_thread(self._scan, cursor, count)

    async def restore(self, sessions: Sequence[RestoredSession]) -> Sequence[Restored]:
        """One transaction for some sessions."""
        outcomes: list[Restored] = []
        for first in range(0, len(sessions), RESTORED_AT_ONCE):
            outcomes += await self._in_thread(self._restore, sessions[first : first + RESTORED_AT_ONCE])
        return outcomes

    async def bar(self, bars: Sequence[Bar]) -> None:
        """One transaction."""
        await self._in_thread(self._bar, bars)

    async def bars(self, shard: int, since_ms: int, bars_max: int) -> Sequence[Bar]:
        """Rows, by time."""
        return await self._in_thread(self._bars, since_ms, bars_max)

    async def read_attributes(self, session_id: str, principal: str) -> StoredAttributes | None:
        """The rows of the session."""
        return await self._in_thread(self._read_attributes, session_id, principal)

    async def write_attributes(
        self, session_id: str, principal: str, values: Mapping[str, bytes], removed: Sequence[str], *, bytes_max: int
    ) -> Written | None:
        """The changed rows, and a log entry."""
        return await self._in_thread(self._write_attributes, session_id, principal, values, removed, bytes_max)

    async def sweep(self, dead_before_ms: int, sessions_max: int) -> int:
        """Delete dead rows. Reads the whole table: an index on the deadline, which every touch
        changes, would double the cost of a touch.
        """
        return len(await self._in_thread(self._sweep, min(dead_before_ms, self._now_ms()), sessions_max))

    async def tails(
        self, since: Mapping[int, Position | None], entries_max: int
    ) -> Mapping[int, Tail | StoreUnavailable]:
        """A read of the log."""
        try:
            return {shard: await self._in_thread(self._page, place, entries_max) for shard, place in since.items()}
        except StoreUnavailable as error:
            return dict.fromkeys(since, error)

    async def note_loss(self, heard_ms: Mapping[int, int]) -> Mapping[int, Loss | StoreUnavailable]:
        """Nothing to note: a file without its data is another store (`is_replaced`)."""
        return {shard: Loss(span_ms, span_ms) for shard, span_ms in heard_ms.items()}

    async def sessions(self, principal: str) -> Sequence[StoredSession]:
        """Rows not past their deadline."""
        return await self._in_thread(self._sessions, principal)

    async def history(self, shard: int, entries_max: int) -> Sequence[Event]:
        """The log's end, without the entry that `open` makes in an empty one."""
        return await self._in_thread(self._history, entries_max)

    def on_doorbell(self, ring: Ring) -> None:
        """Called from a task of this store's own."""
        self._ring = ring

    # --- run in the worker thread, up to `_watch`

    def _open(self) -> None:
        if self._path and not self._path.parent.is_dir():
            raise ConfigError(f"{self._name}: the folder {self._path.parent} does not exist; create it")
        if self._path:
            self._make_file(self._path)
            self._refuse_unwritable(self._path)
        self._connection = sqlite3.connect(
            self._path or ":memory:", timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        if not self._creates:
            self._refuse_strange(self._connection)
        self._switch_to_wal(self._connection)
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        with self._writing() as db:
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            self._check_meta(db)
            self._offset_ms = self._boot_offset_ms(db)
            if not db.execute("SELECT 1 FROM log LIMIT 1").fetchone():
                self._log(db, "created", "", "")  # a log always has a last entry
        self._data_version = self._read_data_version()
        self._file = self._file_at_path()

    def _close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _file_at_path(self) -> tuple[int, int] | None:
        """Device and inode of what is there now; None: nothing, or the store is in memory."""
        if not self._path:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _refuse_another_file(self) -> None:
        if self.is_replaced:
            raise StoreUnavailable(
                f"{self._name}: the file was deleted or replaced while it was open; restart to use what is there now"
            )

    def _make_file(self, path: Path) -> None:
        """Make the file for its owner only, whatever the umask is; SQLite gives the files beside it
        the same mode. An existing file keeps its mode.

        It is made without being opened: closing a descriptor would drop the locks that another
        connection of this process has on the file (POSIX advisory locks).
        """
        if not self._creates and not path.exists():
            raise NoStore(f"{self._name}: there is no such file; is it another one?")
        try:
            os.mknod(path, stat.S_IFREG | 0o600)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno in FORBIDDEN:
                raise ConfigError(f"{self._name}: {error.strerror}; {WRITES}") from None
            raise StoreUnavailable(f"{self._name}: {error.strerror}") from error

    def _refuse_unwritable(self, path: Path) -> None:
        """ConfigError: to wait for the store would be in vain."""
        are_writable = os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)
        if not are_writable:
            raise ConfigError(f"{self._name}: {WRITES}")

    def _refuse_strange(self, db: sqlite3.Connection) -> None:
        """NoStore, before anything is written to the file: it is another program's."""
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone():
            raise NoStore(f"{self._name}: there is no store of fastticket in it; is it another file?")

    @staticmethod
    def _switch_to_wal(db: sqlite3.Connection) -> None:
        """Several processes may make the file together, and SQLite does not wait for this lock: for
        all but one the statement fails at once.
        """
        give_up_at_s = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() >= give_up_at_s:
                    raise
                time.sleep(WAL_RETRY_S)
            else:
                return

    def _check_meta(self, db: sqlite3.Connection) -> None:
        for key, mine in (("format", FORMAT), ("shards", self.shards)):
            db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, mine))
            (theirs,) = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            if theirs != mine:
                raise ConfigError(
                    f"{self._name}: made with {key} {theirs}, this fastticket needs {mine}; use another file"
                )

    def _join(self, fleet: Fleet) -> Fleet | None:
        with self._writing() as db:
            self._check_meta(db)
            rows = [db.execute("SELECT value FROM meta WHERE key = ?", (name,)).fetchone() for name in fleet._fields]
            for name, mine, row in zip(fleet._fields, fleet, rows, strict=True):
                if mine > (row[0] if row else 0):
                    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, mine))
            return None if None in rows else Fleet(*(row[0] for row in rows))

    def _announce(self, gateway_id: str, card: bytes, lease_ms: int) -> bool:
        now_ms = self._now_ms()
        with self._writing() as db:
            db.execute("DELETE FROM gateways WHERE until_ms <= ? OR id = ?", (now_ms, gateway_id))
            (others,) = db.execute("SELECT count(*) FROM gateways").fetchone()
            if lease_ms and others >= GATEWAYS_MAX:
                return False
            if lease_ms:
                db.execute("INSERT INTO gateways VALUES (?, ?, ?)", (gateway_id, now_ms + lease_ms, card))
            return True

    def _gateways(self) -> dict[str, bytes]:
        return dict(
            self._db().execute("SELECT id, card FROM gateways WHERE until_ms > ?", (self._now_ms(),)).fetchall()
        )

    @staticmethod
    def _boot_offset_ms(db: sqlite3.Connection) -> int:
        key = "clock of boot " + Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        db.execute("DELETE FROM meta WHERE key LIKE 'clock of boot %' AND key <> ?", (key,))
        db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, time.time_ns() // 1_000_000 - _boot_time_ms()))
        (offset_ms,) = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(offset_ms)

    def _now_ms(self) -> int:
        return _boot_time_ms() + self._offset_ms

    def _create(self, session: StoredSession, sessions_max: int, evicts: bool) -> list[str]:
        with self._writing() as db:
            gone = self._make_room(db, session.principal, sessions_max, evicts) if sessions_max else []
            self._insert(db, session)
            return gone

    def _insert(self, db: sqlite3.Connection, session: StoredSession) -> int:
        """The log's entry."""
        details = json.dumps(dict(session.details), ensure_ascii=False) if session.details else None
        db.execute(f"INSERT INTO live ({SESSION}) VALUES (?, ?, ?, ?, ?, ?, ?)", (*session[:-1], details))  # noqa: S608
        return self._log(db, "created", session.id, session.principal)

    def _make_room(self, db: sqlite3.Connection, principal: str, sessions_max: int, evicts: bool) -> list[str]:
        """End as many sessions as needed, those past their deadline first: a touch that is on its
        way may bring one back, so they count. Returns the live ones that were ended.
        """
        now_ms = self._now_ms()
        dead_first = "ORDER BY idle_deadline_ms, session_id"
        oldest_first = "ORDER BY created_ms, session_id"
        of_principal = "SELECT session_id FROM live WHERE principal = ? AND idle_deadline_ms"
        dead, alive = (
            [row[0] for row in db.execute(f"{of_principal} {which}", (principal, now_ms))]
            for which in (f"<= ? {dead_first}", f"> ? {oldest_first}")
        )
        if len(alive) >= sessions_max and not evicts:
            raise TooManySessions(sessions_max)
        for session_id in dead[: max(0, len(dead) + len(alive) + 1 - sessions_max)]:
            self._delete(db, "expired", EXPIRY, "session_id = ?", (session_id,))
        gone = alive[: max(0, len(alive) + 1 - sessions_max)]
        for session_id in gone:
            self._delete(db, "revoked", "'evicted'", "session_id = ?", (session_id,))
        return gone

    def _rotate(self, session_id: str, successor: StoredSession) -> bool:
        with self._writing() as db:
            if self._deadline(db, successor.id, successor.principal) is not None:
                return True  # done already
            changed = db.execute(
                "UPDATE live SET session_id = ?, idle_deadline_ms = ?, created_ms = ?, idle_timeout_s = ?, absolute_lifetime_s = ? "
                "WHERE session_id = ? AND principal = ?",
                (successor.id, *successor[2:6], session_id, successor.principal),
            )
            if changed.rowcount:
                self._log(db, "rotated", session_id, successor.principal, successor_id=successor.id)
            return bool(changed.rowcount)

    def _exchange(self, request: Request) -> Reply:
        with self._writing() if request.touches else self._reading() as db:
            db.executemany(TOUCH, request.touches)
            position, events, gap = self._tail(db, request.since)
            return Reply(position, events, gap, [self._deadline(db, *key) for key in request.wanted])

    @staticmethod
    def _tail(db: sqlite3.Connection, since: Position | None) -> tuple[Position, list[Event], bool]:
        """The log from the last known entry inclusive: if that one is missing, later ones may be,
        too.
        """
        if since is None:
            (last,) = db.execute("SELECT max(id) FROM log").fetchone()
            return (last, 0), [], False
        rows = db.execute(f"SELECT {EVENT} FROM log WHERE id >= ? ORDER BY id", (since[0],)).fetchall()  # noqa: S608
        if not rows or rows[0][0] != since[0]:
            (last,) = db.execute("SELECT max(id) FROM log").fetchone()
            return (last, 0), [], True
        return (rows[-1][0], 0), [Event((row[0], 0), *row[1:]) for row in rows[1:]], False

    def _page(self, since: Position | None, entries_max: int) -> Tail:
        with self._reading() as db:
            if since is None:
                (last,) = db.execute("SELECT max(id) FROM log").fetchone()
                return Tail((last, 0), [], False)
            is_there = db.execute("SELECT 1 FROM log WHERE id = ?", (since[0],)).fetchone()
            rows = db.execute(
                f"SELECT {EVENT} FROM log WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608
                (since[0] if is_there else 0, entries_max),
            ).fetchall()
            events = [Event((row[0], 0), *row[1:]) for row in rows if row[2]]
            return Tail((rows[-1][0], 0) if rows else since, events, not is_there)

    @staticmethod
    def _deadline(db: sqlite3.Connection, session_id: str, principal: str) -> int | None:
        row = db.execute(
            "SELECT idle_deadline_ms FROM live WHERE session_id = ? AND principal = ?", (session_id, principal)
        ).fetchone()
        return row and int(row[0])

    def _read_attributes(self, session_id: str, principal: str) -> StoredAttributes | None:
        with self._reading() as db:
            version = self._version(db, session_id, principal)
            if version is None:
                return None
            rows = db.execute("SELECT name, value FROM attributes WHERE session_id = ?", (session_id,))
            return StoredAttributes((version, 0), dict(rows.fetchall()))

    def _write_attributes(
        self, session_id: str, principal: str, values: Mapping[str, bytes], removed: Sequence[str], bytes_max: int
    ) -> Written | None:
        with self._writing() as db:
            before = self._version(db, session_id, principal)
            if before is None:
                return None
            held_bytes = self._attributes_bytes(db, session_id)
            db.executemany(
                "DELETE FROM attributes WHERE session_id = ? AND name = ?", [(session_id, name) for name in removed]
            )
            db.executemany(
                "INSERT OR REPLACE INTO attributes VALUES (?, ?, ?)", [(session_id, *pair) for pair in values.items()]
            )
            size_bytes = self._attributes_bytes(db, session_id)
            if size_bytes > max(bytes_max, held_bytes):  # removing is allowed above a lowered limit
                raise AttributesTooLarge(size_bytes, bytes_max)
            version = self._log(db, "changed", session_id, principal)
            db.execute("UPDATE live SET version = ? WHERE session_id = ?", (version, session_id))
            return Written((version, 0), (before, 0))

    @staticmethod
    def _attributes_bytes(db: sqlite3.Connection, session_id: str) -> int:
        size = "SELECT total(length(CAST(name AS BLOB)) + length(value)) FROM attributes WHERE session_id = ?"
        return int(db.execute(size, (session_id,)).fetchone()[0])

    @staticmethod
    def _version(db: sqlite3.Connection, session_id: str, principal: str) -> int | None:
        row = db.execute(
            "SELECT version FROM live WHERE session_id = ? AND principal = ?", (session_id, principal)
        ).fetchone()
        return row and int(row[0])

    def _sweep(self, dead_before_ms: int, sessions_max: int) -> list[str]:
        dead = "SELECT session_id FROM live WHERE idle_deadline_ms <= ? ORDER BY idle_deadline_ms LIMIT ?"
        values = dead_before_ms, sessions_max
        if not self._db().execute(dead, values).fetchone():
            return []  # reading takes no lock
        return self._remove("expired", EXPIRY, f"session_id IN ({dead})", values)

    def _revoke(self, session_id: str, principal: str, reason: str) -> bool:
        where = "session_id = ? AND principal = ?"
        with self._writing() as db:
            ended = self._delete(db, "revoked", "?", where, (session_id, principal, reason))
            if not ended:
                self._mark(db, session_id, principal, self._now_ms())
            return bool(ended)

    def _revoke_all(self, principal: str, keep: str, reason: str) -> list[str]:
        where = "principal = ? AND session_id <> ?"
        with self._writing() as db:
            latest = "SELECT max(created_ms) FROM live WHERE principal = ?"
            at_ms = max(db.execute(latest, (principal,)).fetchone()[0] or 0, self._now_ms())
            if not keep:
                self._mark(db, "", principal, at_ms)
            self._leave_bars(db, [Bar(principal, at_ms)])
            return self._delete(db, "revoked", "?", where, (principal, keep, reason))

    def _mark(self, db: sqlite3.Connection, session_id: str, principal: str, at_ms: int) -> None:
        """What `restore` must not bring back, and the log does not say."""
        db.execute("DELETE FROM ended WHERE at_ms < ?", (self._now_ms() - MARK_MS,))
        oldest = "SELECT session_id, principal FROM ended ORDER BY at_ms DESC LIMIT -1 OFFSET ?"
        db.execute(f"DELETE FROM ended WHERE (session_id, principal) IN ({oldest})", (MARKS_MAX - 1,))  # noqa: S608
        db.execute("INSERT OR REPLACE INTO ended VALUES (?, ?, ?)", (session_id, principal, at_ms))

    def _bar(self, bars: Sequence[Bar]) -> None:
        with self._writing() as db:
            self._leave_bars(db, bars)

    def _leave_bars(self, db: sqlite3.Connection, bars: Sequence[Bar]) -> None:
        """And remove those that are out: everybody's covers them, or they are too old. Where there
        are too many, everybody's rises to the latest of the oldest.
        """
        leave = "INSERT INTO bars VALUES (?, ?) ON CONFLICT DO UPDATE SET at_ms = max(at_ms, excluded.at_ms)"
        db.executemany(leave, bars)
        over = "SELECT at_ms FROM bars ORDER BY at_ms DESC LIMIT 1 OFFSET ?"
        if row := db.execute(over, (BARS_MAX,)).fetchone():
            db.execute(leave, (EVERYBODY, *row))
        everybodys = "ifnull((SELECT at_ms FROM bars WHERE principal = ?1), 0)"
        values = (EVERYBODY, self._now_ms() - BAR_LASTS_MS)
        db.execute(f"DELETE FROM bars WHERE principal <> ?1 AND at_ms <= max({everybodys}, ?2)", values)  # noqa: S608

    def _bars(self, since_ms: int, bars_max: int) -> list[Bar]:
        rows = self._db().execute(
            "SELECT principal, at_ms FROM bars WHERE at_ms >= ? ORDER BY at_ms LIMIT ?", (since_ms, bars_max)
        )
        return [Bar(*row) for row in rows]

    def _is_barred(self, db: sqlite3.Connection, principal: str, began_ms: int) -> bool:
        barred = "SELECT 1 FROM bars WHERE principal IN (?, ?) AND at_ms >= ? AND at_ms > ?"
        values = (principal, EVERYBODY, began_ms, self._now_ms() - BAR_LASTS_MS)
        return db.execute(barred, values).fetchone() is not None

    def _count(self) -> int:
        living = "SELECT count(*) FROM live WHERE idle_deadline_ms > ?"
        return int(self._db().execute(living, (self._now_ms(),)).fetchone()[0])

    def _scan(self, cursor: str, count: int) -> tuple[str, list[StoredSession]]:
        rows = (
            self._db()
            .execute(f"SELECT {SESSION} FROM live WHERE session_id > ? ORDER BY session_id LIMIT ?", (cursor, count))  # noqa: S608
            .fetchall()
        )
        now_ms = self._now_ms()
        return rows[-1][0] if len(rows) == count else "", [_session(row) for row in rows if row[2] > now_ms]

    def _restore(self, sessions: Sequence[RestoredSession]) -> list[Restored]:
        with self._writing() as db:
            ended = self._ended_of(db, {each.session.id for each in sessions})
            return [self._restore_one(db, each, ended) for each in sessions]

    @staticmethod
    def _ended_of(db: sqlite3.Connection, session_ids: set[str]) -> set[tuple[str, str]]:
        """Which of these sessions the log says are over."""
        ends = "SELECT session_id, principal FROM log WHERE kind IN ('revoked', 'expired', 'rotated')"
        return {row for row in db.execute(ends) if row[0] in session_ids}

    def _restore_one(self, db: sqlite3.Connection, restored: RestoredSession, ended: set[tuple[str, str]]) -> Restored:
        session, now_ms = restored.session, self._now_ms()
        if self._deadline(db, session.id, session.principal) is not None:
            db.execute(TOUCH, session[:3])
            return "exists"
        marked = (
            "SELECT 1 FROM ended WHERE principal = ?2 AND at_ms >= ?4 "
            "AND (session_id = ?1 OR session_id = '' AND at_ms >= ?3) "
            "UNION SELECT 1 FROM live WHERE session_id = ?1"  # another principal's: an id is one session's
        )
        values = (session.id, session.principal, session.created_ms, now_ms - MARK_MS)
        if session[:2] in ended or db.execute(marked, values).fetchone():
            return "ended"
        if restored.began_ms is not None and self._is_barred(db, session.principal, restored.began_ms):
            return "ended"
        if min(session.idle_deadline_ms, session.absolute_deadline_ms) <= now_ms:
            return "expired"
        entry = self._insert(db, session)
        if restored.attributes:
            rows = [(session.id, *pair) for pair in restored.attributes.items()]
            db.executemany("INSERT INTO attributes VALUES (?, ?, ?)", rows)
            db.execute("UPDATE live SET version = ? WHERE session_id = ?", (entry, session.id))
        return "created"

    def _remove(self, kind: str, reason: str, where: str, values: tuple[str | int, ...]) -> list[str]:
        with self._writing() as db:
            return self._delete(db, kind, reason, where, values)

    def _delete(
        self, db: sqlite3.Connection, kind: str, reason: str, where: str, values: tuple[str | int, ...]
    ) -> list[str]:
        """Delete rows and log each; their ids. `reason`: an SQL expression over the row; if it has
        a parameter, that is the last of `values`.
        """
        gone = db.execute(
            f"DELETE FROM live WHERE {where} RETURNING session_id, principal, {reason}",  # noqa: S608
            values,
        ).fetchall()
        for session_id, principal, why in gone:
            self._log(db, kind, session_id, principal, why)
        return [session_id for session_id, *_ in gone]

    @staticmethod
    def _log(
        db: sqlite3.Connection, kind: str, session_id: str, principal: str, reason: str = "", successor_id: str = ""
    ) -> int:
        entry = db.execute(
            "INSERT INTO log (kind, session_id, principal, reason, successor_id) VALUES (?, ?, ?, ?, ?)",
            (kind, session_id, principal, reason, successor_id),
        )
        number = entry.lastrowid or 0
        if number % LOG_TRIM_EVERY == 0:
            db.execute("DELETE FROM log WHERE id <= ?", (number - LOG_ENTRIES_MAX,))
        return number

    def _sessions(self, principal: str) -> list[StoredSession]:
        rows = self._db().execute(
            f"SELECT {SESSION} FROM live WHERE principal = ? AND idle_deadline_ms > ? ORDER BY idle_deadline_ms",  # noqa: S608
            (principal, self._now_ms()),
        )
        return [_session(row) for row in rows]

    def _history(self, entries_max: int) -> list[Event]:
        rows = self._db().execute(
            f"SELECT {EVENT} FROM log WHERE session_id <> '' ORDER BY id DESC LIMIT ?",  # noqa: S608
            (entries_max,),
        )
        return [Event((row[0], 0), *row[1:]) for row in rows][::-1]

    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreUnavailable(f"{self._name} is not open")
        return self._connection

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        db = self._db()
        db.execute(begin)
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _writing(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._transaction("BEGIN IMMEDIATE")

    def _reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._transaction("BEGIN")

    def _read_data_version(self) -> int:
        return int(self._db().execute("PRAGMA data_version").fetchone()[0])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(DOORBELL_INTERVAL_S)
            with contextlib.suppress(StoreUnavailable):
                version = await self._in_thread(self._read_data_version)
                if version != self._data_version and self._ring:
                    self._data_version = version
                    self._ring(0, None)

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        if self._closed:
            raise StoreUnavailable(f"{self._name} is closed")

        def call() -> T:
            self._refuse_another_file()
            return function(*arguments)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self._name}: {error}") from error


def _session(row: Sequence[Any]) -> StoredSession:
    return StoredSession._make((*row[:6], json.loads(row[6]) if row[6] else NO_DETAILS))


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="fastticket-sqlite")


def _boot_time_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
