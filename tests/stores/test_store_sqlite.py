"""The SQLite store: the contract, and what only a file can suffer: killed writers, a full disk,
clocks that jump, rubbish.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from lab.redis_servers import wait_until
from lab.store_contract import (
    HOUR_MS,
    StoreContract,
    add_session,
    ask,
    deadline_of,
    everybodys_rises,
    is_there,
    new_session_id,
)
from lab.touch import Touch

from fastticket import Keyring, TicketCache, TicketRefused, open_store
from fastticket.errors import ConfigError, FastticketError, StoreUnavailable
from fastticket.stores import sqlite
from fastticket.stores.contract import Store
from fastticket.stores.sqlite import SQLiteStore

ROOT = Path(__file__).parents[2]
CHILD_BOUND_S = 60.0

# What every child process begins with. `say` is an acknowledgement: it leaves the process before
# anything else is done.
CHILD_PRELUDE = """
import asyncio, os, resource, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from fastticket.errors import ConfigError, StoreUnavailable
from fastticket.stores.contract import Request
from fastticket.stores.sqlite import SQLiteStore
from lab.store_contract import add_session, ask
from lab.touch import Touch

def say(*words):
    print(*words, flush=True)

async def opened():
    store = SQLiteStore(Path(sys.argv[1]))
    await store.open()
    return store
"""


def start_child(code: str, path: Path, **options: object) -> subprocess.Popen[str]:
    places = [str(ROOT), str(ROOT / "tests")]
    command = [sys.executable, "-c", CHILD_PRELUDE + code, str(path), *places]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


def finish_child(child: subprocess.Popen[str]) -> list[list[str]]:
    """The words of each line that it said; it must have ended well."""
    return finish_children([child])[0]


def finish_children(children: list[subprocess.Popen[str]]) -> list[list[list[str]]]:
    """The same for several. All of them are waited for, even if one fails."""
    said = []
    for child in children:
        with child:
            said.append([line.split() for line in child.communicate(timeout=CHILD_BOUND_S)[0].splitlines()])
    assert [child.returncode for child in children] == [0] * len(children)
    return said


def run_child(code: str, path: Path, **options: object) -> list[list[str]]:
    return finish_child(start_child(code, path, **options))


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, as somebody else opens it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path)
    try:
        await store.open()
        yield store
    finally:
        await store.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tickets.db"


class TestFile(StoreContract):
    tells_changes = False

    @pytest.fixture
    async def open_handle(self, path):
        handles = []

        async def open_one() -> Store:
            handles.append(SQLiteStore(path))
            await handles[-1].open()
            return handles[-1]

        yield open_one
        for handle in handles:
            await handle.aclose()

    def stop_clock(self, store: Store, patch: pytest.MonkeyPatch, now_ms: int) -> None:
        patch.setattr(store, "_now_ms", lambda: now_ms)

    async def test_where_there_are_too_many_bars_everybodys_rises(self, store, monkeypatch):
        monkeypatch.setattr(sqlite, "BARS_MAX", 2)
        await everybodys_rises(store)

    async def lose_log(self, store: Store, principal: str) -> None:
        with raw(store._path) as db:
            db.execute("DELETE FROM log WHERE id < (SELECT max(id) FROM log)")


class TestMemory(StoreContract):
    is_shared = False

    @pytest.fixture
    async def open_handle(self):
        handles = []

        async def open_one() -> Store:
            handles.append(open_store("sqlite://:memory:"))
            await handles[-1].open()
            return handles[-1]

        yield open_one
        for handle in handles:
            await handle.aclose()

    stop_clock = TestFile.stop_clock

    async def lose_log(self, store: Store, principal: str) -> None:
        """By filling it up: nobody else can reach it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite, "LOG_ENTRIES_MAX", 2)
            patch.setattr(sqlite, "LOG_TRIM_EVERY", 1)
            for _ in range(3):
                await store.revoke((await add_session(store, principal)).id, principal)


# --- killed while writing

KILLED_WRITER = """
async def main():
    store = await opened()
    made = []
    while True:
        made.append(await add_session(store, "alice"))
        say("created", made[-1].id)
        if len(made) % 3 == 0:
            session = made.pop(0)
            say("revoking", session.id)
            assert await store.revoke(session.id, "alice")
            say("revoked", session.id)
asyncio.run(main())
"""


def kill_after_acknowledgements(path: Path, acknowledgements: int) -> dict[str, set[str]]:
    """The writes that were acknowledged to a writer before SIGKILL ended it, by kind."""
    said: dict[str, set[str]] = {"created": set(), "revoking": set(), "revoked": set()}
    child = start_child(KILLED_WRITER, path)
    with child:
        for number, line in enumerate(child.stdout, 1):
            if not line.endswith("\n"):
                break  # the kill cut it off
            kind, session_id = line.split()
            said[kind].add(session_id)
            if number == acknowledgements:
                child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    return said


@pytest.mark.parametrize("acknowledgements", [1, 40, 173])
async def test_everything_acknowledged_survives_a_kill(path, acknowledgements):
    said = kill_after_acknowledgements(path, acknowledgements)
    async with opened(path) as store:
        alive = {session.id for session in await store.sessions("alice")}
        logged = {(event.kind, event.session_id) for event in (await ask(store, since=(1, 0))).events}
    unsure = said["revoking"] - said["revoked"]  # killed before the answer: both are right
    assert said["created"] - said["revoking"] <= alive
    assert not alive & said["revoked"]
    assert len(alive - said["created"]) <= 1  # one whose acknowledgement the kill cut off
    assert {("created", session_id) for session_id in said["created"]} <= logged
    assert {("revoked", session_id) for session_id in said["revoked"]} <= logged
    assert {session_id for kind, session_id in logged if kind == "revoked"} <= said["revoked"] | unsure


async def test_a_killed_writer_does_not_disturb_the_others(path):
    async with opened(path) as store:
        since = (await ask(store)).position
        said = await asyncio.to_thread(kill_after_acknowledgements, path, 60)
        mine = await add_session(store, "bob")
        logged = {event.session_id for event in (await ask(store, since=since)).events if event.kind == "created"}
        assert said["created"] | {mine.id} <= logged


async def test_what_is_acknowledged_has_been_synced(path):
    """No test can cut the power; so this one looks whether SQLite was told to sync at every commit
    (2: FULL).
    """
    async with opened(path) as store:
        assert await store._in_thread(lambda: store._db().execute("PRAGMA synchronous").fetchone()) == (2,)


# --- several processes

BUSY_WRITER = """
async def main():
    say("ready")
    sys.stdin.readline()
    store = await opened()
    for number in range(40):
        session = await add_session(store, "alice")
        say("created", session.id)
        await ask(store, touches=(Touch(session.id, "alice", session.idle_deadline_ms + 1),))
        if number % 2:
            assert await store.revoke(session.id, "alice")
            say("revoked", session.id)
    await store.aclose()
asyncio.run(main())
"""


def run_at_once(code: str, path: Path, processes: int) -> list[list[list[str]]]:
    """The output of each of several children that begin together."""
    children = [start_child(code, path) for _ in range(processes)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    return finish_children(children)


async def test_several_processes_share_one_file_under_load(path):
    """They also make it together: none of them finds it there."""
    said = [words for child in await asyncio.to_thread(run_at_once, BUSY_WRITER, path, 4) for words in child]
    created = {session_id for kind, session_id in said if kind == "created"}
    revoked = {session_id for kind, session_id in said if kind == "revoked"}
    assert (len(created), len(revoked)) == (160, 80)
    async with opened(path) as store:
        assert {session.id for session in await store.sessions("alice")} == created - revoked
        events = (await ask(store, since=(1, 0))).events
    assert sorted((e.kind, e.session_id) for e in events if e.session_id) == sorted(
        [("created", session_id) for session_id in created] + [("revoked", session_id) for session_id in revoked]
    )


OPENER = """
async def main():
    say("ready")
    sys.stdin.readline()
    store = await opened()
    say(await store.time_ms())
    await store.aclose()
asyncio.run(main())
"""


@pytest.mark.parametrize("attempt", range(3))
async def test_processes_that_start_together_agree_on_layout_and_clock(path, attempt):
    times_ms = [int(said[0][0]) for said in await asyncio.to_thread(run_at_once, OPENER, path, 6)]
    assert max(times_ms) - min(times_ms) < 10_000
    with raw(path) as db:
        assert db.execute("SELECT count(*) FROM meta WHERE key LIKE 'clock of boot %'").fetchone() == (1,)
        assert db.execute("SELECT count(*) FROM log").fetchone() == (1,)


async def test_sessions_survive_a_restart(path):
    async with opened(path) as store:
        session = await add_session(store)
        position = (await ask(store)).position
    async with opened(path) as store:
        assert await deadline_of(store, session) == session.idle_deadline_ms
        assert not (await ask(store, since=position)).gap


async def test_a_file_locked_for_too_long_is_unavailable_and_comes_back(path, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
    async with opened(path) as store:
        session = await add_session(store)
        touch = Touch(session.id, "alice", session.idle_deadline_ms + 1)
        with raw(path) as db:
            db.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked"):
                await store.revoke(session.id, "alice")
            with pytest.raises(StoreUnavailable, match="locked"):
                await ask(store, touches=(touch,))
            assert await deadline_of(store, session) == session.idle_deadline_ms  # readers are not in anybody's way
            db.execute("ROLLBACK")
        await ask(store, touches=(touch,))
        assert await deadline_of(store, session) == touch.idle_deadline_ms


# --- files that cannot be used


@pytest.mark.parametrize(("key", "theirs"), [("format", 1), ("shards", 16)])
async def test_another_layout_is_a_configuration_error(path, key, theirs):
    async with opened(path):
        pass
    with raw(path) as db:
        db.execute("UPDATE meta SET value = ? WHERE key = ?", (theirs, key))
    with pytest.raises(ConfigError, match=rf"tickets\.db: made with {key} {theirs}"):
        async with opened(path):
            pass
    with raw(path) as db:  # and it was not tampered with
        assert db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone() == (theirs,)


async def test_a_missing_folder_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match=r"the folder .*nowhere does not exist"):
        async with opened(tmp_path / "nowhere" / "tickets.db"):
            pass


@pytest.mark.parametrize("content", [b"\x89PNG\r\n" * 1000, b"SQLite format 3\0" + b"\xff" * 8176])
async def test_what_is_no_database_is_named_and_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(FastticketError, match=r"tickets\.db"):
        async with opened(path):
            pass
    assert path.read_bytes() == content


async def test_a_folder_is_no_database(path):
    path.mkdir()
    with pytest.raises(FastticketError, match=r"tickets\.db"):
        async with opened(path):
            pass


async def test_a_database_that_rots_while_it_is_open_is_unavailable(path):
    """Its header and pages are overwritten under our feet; nothing but StoreUnavailable comes out,
    however we ask.
    """
    async with opened(path) as store:
        session = await add_session(store)
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * (path.stat().st_size - 100))
    with pytest.raises(FastticketError, match=r"tickets\.db"):
        async with opened(path) as store:
            await store.revoke(session.id, "alice")


READ_ONLY_OPENER = """
if os.geteuid() == 0:  # whom no permission stops; so become somebody else, now that everything is imported
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

async def main():
    store = SQLiteStore(Path(sys.argv[1]))
    try:
        await store.open()
    except ConfigError as error:
        say(error)
    await store.aclose()
asyncio.run(main())
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Pytest's own folders are closed to other users."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        Path(folder).chmod(0o755)


async def test_a_read_only_folder_is_no_outage(open_folder):
    open_folder.chmod(0o555)
    [error] = await asyncio.to_thread(run_child, READ_ONLY_OPENER, open_folder / "tickets.db")
    assert "tickets.db" in " ".join(error)


async def test_a_read_only_file_is_no_outage(open_folder):
    async with opened(open_folder / "tickets.db") as store:
        await add_session(store)
    (open_folder / "tickets.db").chmod(0o444)
    open_folder.chmod(0o555)
    [error] = await asyncio.to_thread(run_child, READ_ONLY_OPENER, open_folder / "tickets.db")
    assert "tickets.db" in " ".join(error)


# --- a full disk

FILLING_WRITER = """
# The limit on the size of any one file that this process writes stands in for the end of the disk.
def room_bytes(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def fill(store):
    # With sessions, then with touches: these need the least room.
    try:
        while True:
            session = await add_session(store, "x" * 190)
            say("created", session.id)
    except StoreUnavailable as error:
        say("full", error)
    try:
        for later_ms in range(1_000_000):
            await touch(store, session, later_ms)
    except StoreUnavailable:
        pass

async def touch(store, session, by_ms):
    await ask(store, session.principal, touches=(Touch(*session[:2], session.idle_deadline_ms + by_ms),))

async def main():
    store = await opened()
    first = await add_session(store, "first")
    say("created", first.id)
    room_bytes(2_000_000)
    await fill(store)
    for attempt in (add_session(store, "more"), store.revoke(first.id, "first"), touch(store, first, 1)):
        try:
            await attempt
        except StoreUnavailable:
            say("refused")
    reply = await ask(store, "first", wanted=((first.id, "first"),))
    say("read", reply.deadlines_ms[0] - first.idle_deadline_ms)
    room_bytes(resource.RLIM_INFINITY)
    session = await add_session(store, "after")
    say("created", session.id)
    assert await store.revoke(first.id, "first")
    say("revoked", first.id)
    os._exit(0)  # not even a goodbye
asyncio.run(main())
"""


async def test_a_full_disk_is_unavailable_loses_nothing_and_passes(path):
    said = await asyncio.to_thread(run_child, FILLING_WRITER, path)
    words = [line[0] for line in said]
    assert words.count("full") == 1
    assert words[words.index("full") :] == ["full", "refused", "refused", "refused", "read", "created", "revoked"]
    assert ["read", "0"] in said
    created = {line[1] for line in said if line[0] == "created"}
    revoked = {line[1] for line in said if line[0] == "revoked"}
    assert len(created) > 20
    async with opened(path) as store:
        kept = {s.id for name in ("first", "x" * 190, "more", "after") for s in await store.sessions(name)}
    assert kept == created - revoked


async def fill(store: Store) -> None:
    for _ in range(1000):
        await add_session(store, "x" * 190)


async def test_a_file_at_its_page_limit_is_unavailable_and_recovers(path):
    async with opened(path) as store:
        session = await add_session(store)
        pages = await store._in_thread(lambda: store._db().execute("PRAGMA page_count").fetchone()[0])
        limit = f"PRAGMA max_page_count = {pages}"
        await store._in_thread(lambda: store._db().execute(limit).fetchone())
        with pytest.raises(StoreUnavailable, match="full"):
            await fill(store)
        assert await is_there(store, session)
        await store._in_thread(lambda: store._db().execute("PRAGMA max_page_count = 1000000").fetchone())
        await add_session(store, "after")


# --- the clock

JUMPED = """
real_ns = time.time_ns
time.time_ns = lambda: real_ns() + int({hours}) * 3_600_000_000_000
async def main():
    store = await opened()
    say(await store.time_ms())
    await store.aclose()
asyncio.run(main())
"""


@pytest.mark.parametrize("hours", [-1, 1, 10_000])
async def test_a_jump_of_the_wall_clock_moves_nothing(path, hours):
    """Processes of one boot that start before and after it agree."""
    async with opened(path) as store:
        before_ms = await store.time_ms()
        [[said_ms]] = await asyncio.to_thread(run_child, JUMPED.replace("{hours}", str(hours)), path)
        assert before_ms <= int(said_ms) <= await store.time_ms()


async def test_the_wall_clock_is_not_read_once_the_store_is_open(path, monkeypatch):
    async with opened(path) as store:
        session = await add_session(store)
        before_ms = await store.time_ms()
        real_ns = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 10 * HOUR_MS * 1_000_000)
        monkeypatch.setattr(time, "time", lambda: real_ns() / 1e9 + 36_000)
        assert 0 <= await store.time_ms() - before_ms < HOUR_MS
        assert list(await store.sessions("alice")) == [session]


async def test_the_first_process_after_a_boot_takes_the_wall_clock_again(path):
    async with opened(path):
        pass
    with raw(path) as db:
        db.execute("UPDATE meta SET key = 'clock of boot before', value = 12345 WHERE key LIKE 'clock of boot %'")
    async with opened(path) as store:
        assert abs(await store.time_ms() - time.time() * 1000) < 10_000
    with raw(path) as db:
        assert db.execute("SELECT count(*) FROM meta WHERE key LIKE 'clock of boot %'").fetchone() == (1,)


# --- bounds


async def test_the_log_is_trimmed_to_its_bound_and_no_further(path, monkeypatch):
    monkeypatch.setattr(sqlite, "LOG_ENTRIES_MAX", 40)
    monkeypatch.setattr(sqlite, "LOG_TRIM_EVERY", 10)
    async with opened(path) as store:
        positions = []
        for number in range(100):
            await add_session(store)
            positions.append((await ask(store)).position)
            with raw(path) as db:
                (entries,) = db.execute("SELECT count(*) FROM log").fetchone()
            assert min(40, number + 1) <= entries <= 50
        assert not (await ask(store, since=positions[-40])).gap
        assert (await ask(store, since=positions[-60])).gap


async def test_an_emptied_log_does_not_count_anew(path):
    """Else a place of before would some day be taken for one of now, and what lies between would
    never be heard of.
    """
    async with contextlib.aclosing(SQLiteStore(path)) as store:
        await store.open()
        for _ in range(5):
            await add_session(store)
        known = (await ask(store)).position
        with raw(path) as db:
            db.execute("DELETE FROM log")
        for _ in range(2 * known[0]):
            await add_session(store)
            assert (await ask(store, since=known)).gap


async def test_an_event_that_was_never_trimmed_is_never_a_gap(path):
    async with opened(path) as store:
        since = (await ask(store)).position
        for _ in range(5):
            await store.revoke((await add_session(store)).id, "alice")
        assert not (await ask(store, since=since)).gap


# --- together with the cache


async def test_two_caches_on_one_file_agree(path):
    """No waiting: `flush` is what the doorbell or the interval would have brought about."""
    keys = Keyring.generate()
    caches = [TicketCache(SQLiteStore(path), keys, flush_interval_ms=60_000, lease_ms=600_000) for _ in range(2)]
    async with caches[0] as here, caches[1] as there:
        ticket = await here.login("alice")
        assert (await there.authenticate(ticket)).principal == "alice"
        assert there.check(ticket)
        await there.flush()
        assert await here.logout(ticket)
        await there.flush()
        with pytest.raises(TicketRefused, match="revoked"):
            await there.authenticate(ticket)
        kept = await here.login("alice")
        await there.authenticate(kept)
        assert await there.logout_everywhere("alice") == 1
        await here.flush()
        with pytest.raises(TicketRefused, match="revoked"):
            await here.authenticate(kept)
        assert list(await here.sessions("alice")) == []


async def test_a_store_that_did_not_open_can_be_closed():
    store = SQLiteStore(Path("/nowhere/at/all.db"))
    with pytest.raises(ConfigError):
        await store.open()
    await store.aclose()
    with pytest.raises(StoreUnavailable):
        await store.revoke(new_session_id(), "alice")


async def test_a_store_that_is_not_open_yet_answers_nothing(path):
    store = SQLiteStore(path)
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.sessions("alice")
    with pytest.raises(StoreUnavailable):
        await store.time_ms()
    await store.aclose()


def test_the_file_is_its_owners(tmp_path):
    """And those beside it: sessions and principals are in all three."""
    before = os.umask(0o022)
    try:
        with opened_file(tmp_path) as path:
            files = sorted(tmp_path.iterdir())
            assert [each.name for each in files] == ["s.db", "s.db-shm", "s.db-wal"]
            assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
            path.chmod(0o640)  # by whoever wants a group to read it
        with opened_file(tmp_path) as path:
            assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o640}
    finally:
        os.umask(before)


@contextlib.contextmanager
def opened_file(folder):
    with asyncio.Runner() as runner:
        store = SQLiteStore(folder / "s.db")
        runner.run(store.open())
        yield folder / "s.db"
        runner.run(store.aclose())


@pytest.mark.parametrize("what", ["deleted", "replaced"])
async def test_p4_another_file_at_its_path_is_an_outage(tmp_path, what):
    """Else this process would go on with a file that nobody else has, and hear of no end."""
    path, other = tmp_path / "s.db", tmp_path / "other.db"
    async with opened(other) as copy:
        await add_session(copy)
    async with opened(path) as store:
        await add_session(store)
        path.unlink()
        if what == "replaced":
            other.rename(path)
        for call in (ask(store), store.sessions("alice"), store.revoke_all("alice")):
            with pytest.raises(StoreUnavailable, match="was deleted or replaced while it was open; restart"):
                await call
        assert isinstance((await store.tails({0: None}, 1))[0], StoreUnavailable)
    if what == "replaced":
        async with opened(path) as again:
            await add_session(again)


# --- closing in the midst of opening


async def test_a_file_that_is_being_opened_is_closed_too(path, monkeypatch):
    """A start that is given up: the thread opens the file all the same."""
    store, entered = SQLiteStore(path), threading.Event()
    refuse = store._refuse_unwritable

    def slowly(path):
        entered.set()
        wait_until(lambda: store._closed, "closed")
        refuse(path)

    monkeypatch.setattr(store, "_refuse_unwritable", slowly)
    opening = asyncio.create_task(store.open())
    await asyncio.to_thread(entered.wait)
    opening.cancel()
    await asyncio.wait([opening])
    await store.aclose()
    assert not is_open(path)
    monkeypatch.undo()
    await store.open()  # it may be opened again
    assert is_open(path)
    await store.aclose()
    assert not is_open(path)


def is_open(path):
    """Whether this process has the file open."""
    return any(fd.is_symlink() and Path(os.readlink(fd)) == path for fd in Path("/proc/self/fd").iterdir())
