"""Importing: what a reader yields, into a store; killed, repeated, with the store away."""

from __future__ import annotations

import os
import stat

import pytest
from lab.store_contract import scan_all

from fastticket.errors import ConfigError, StoreUnavailable
from fastticket.moving import importing, journal
from fastticket.moving.importing import import_sessions
from fastticket.moving.journal import Journal
from fastticket.moving.record import MovedSession, Skipped, to_restored
from fastticket.stores.sqlite import SQLiteStore


@pytest.fixture
async def store(tmp_path):
    store = SQLiteStore(tmp_path / "tickets.db")
    await store.open()
    yield store
    await store.aclose()


@pytest.fixture
def progress(tmp_path):
    made = []

    def make(about="a into b"):
        made.append(Journal(tmp_path / "progress", about))
        return made[-1]

    yield make
    for each in made:
        each.close()


async def some_sessions(store, count, **changes):
    now_ms = await store.time_ms()
    moved = MovedSession("alice", b"", now_ms - 5000, now_ms - 1000, 7200, 86400, {"agent": "x"}, {"a": b"1"})
    return [moved._replace(session_id=os.urandom(16), principal=f"user{n}", **changes) for n in range(count)]


async def test_everything_is_counted_and_what_cannot_live_is_left_out(store):
    sessions = await some_sessions(store, 450)
    ended = to_restored(sessions[7], 500).session
    await store.revoke(ended.id, ended.principal)
    old = await some_sessions(store, 3, last_access_ms=1)
    wrong = [sessions[0]._replace(principal="\n"), sessions[0]._replace(session_id=b"short")]
    wrong += [sessions[0]._replace(idle_timeout_s=1 << 32), sessions[0]._replace(details={"a": "x" * 1024})]
    wrong += [sessions[0]._replace(created_ms=-1), Skipped("line 7", "unreadable")]
    large = sessions[0]._replace(attributes={"a": b"x" * 1000})
    dealt_with = []

    async def read():
        for record in [*sessions, *old, *wrong, large, sessions[1]]:
            yield record

    for is_dry_run in (True, False):
        imported = await import_sessions(
            store, read(), is_dry_run=is_dry_run, attributes_bytes_max=999, advance=dealt_with.append
        )
        assert (imported.created, imported.expired) == (449 + is_dry_run * 2, 3) if is_dry_run else (449, 3)
        assert imported.skipped == {
            **dict.fromkeys(["invalid_principal", "invalid_session_id", "invalid_lifetime", "invalid_time"], 1),
            **dict.fromkeys(["details_too_large", "attributes_too_large", "unreadable"], 1),
        }
        assert Skipped("line 7", "unreadable") in imported.examples
        assert await store.count() == (0 if is_dry_run else 449)
    assert (imported.exists, imported.ended) == (1, 1)
    assert sum(dealt_with) == 2 * (450 + 3 + 6 + 2)
    assert set(await scan_all(store)) == {to_restored(s, 500).session.id for s in sessions} - {ended.id}


async def test_p6_a_second_run_does_not_bring_back_what_the_first_brought_and_somebody_ended(
    store, progress, monkeypatch
):
    """However long ago: the store has forgotten it."""
    sessions = await some_sessions(store, 10)

    def killed_at(number):
        yield from sessions[:number]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importing, "BATCH_SESSIONS", 2)
        with pytest.raises(KeyboardInterrupt):
            await import_sessions(store, killed_at(7), journal=progress())
    assert await store.count() == 6
    ended = to_restored(sessions[3], 500).session
    await store.revoke(ended.id, ended.principal)
    forget_ends(store)
    again = await import_sessions(store, sessions, journal=progress())
    assert (again.done_before, again.created, again.ended) == (6, 4, 0)
    assert await store.count() == 9
    assert ended.id not in await scan_all(store)
    with pytest.raises(ConfigError, match="another import"):
        progress("a into c")
    assert stat.S_IMODE(progress().path.stat().st_mode) == 0o600


async def test_p6_what_may_have_been_brought_and_ended_is_left_out(store, progress, monkeypatch):
    """The first run was killed between the store's answer and the journal."""
    sessions = await some_sessions(store, 3)
    ids = [session.session_id for session in sessions]
    progress().begin(ids)
    await store.restore([to_restored(session, 500) for session in sessions[:2]])
    ended = to_restored(sessions[1], 500).session
    await store.revoke(ended.id, ended.principal)
    now_ms = journal._now_ms()
    monkeypatch.setattr(journal, "_now_ms", lambda: now_ms + journal.DOUBT_MS + 1)
    forget_ends(store)
    again = await import_sessions(store, sessions, journal=progress())
    assert (again.created, again.in_doubt, again.done_before) == (0, 2, 3)
    assert set(await scan_all(store)) == {to_restored(sessions[0], 500).session.id}


async def test_a_store_that_is_away_is_waited_for_and_at_last_the_import_can_be_continued(
    store, progress, monkeypatch, tmp_path
):
    sessions = await some_sessions(store, 10)
    restore, failures = store.restore, [StoreUnavailable("away")] * 3

    async def away_at_first(restored):
        if failures:
            raise failures.pop()
        return await restore(restored)

    monkeypatch.setattr(store, "restore", away_at_first)
    monkeypatch.setattr(importing, "PAUSES_S", (0.0,))
    assert (await import_sessions(store, sessions[:5])).created == 5
    await store.aclose()
    monkeypatch.setattr(importing, "PATIENCE_S", 0.0)
    monkeypatch.setattr(importing, "PAUSES_S", (0.01,))
    with pytest.raises(StoreUnavailable):
        await import_sessions(store, sessions, journal=progress())
    await store.open()
    monkeypatch.setattr(store, "restore", restore)
    again = await import_sessions(store, sessions, journal=progress(), rate_per_s=1000)
    assert (again.exists, again.created) == (5, 5)


def forget_ends(store):
    store._connection.execute("DELETE FROM log WHERE kind = 'revoked'")
    store._connection.execute("DELETE FROM ended")
