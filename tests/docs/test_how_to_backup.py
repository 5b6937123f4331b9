"""Backup and restore, as the page says: alice's session is there again."""

import json

import pytest
from lab.pages import shown
from lab.snippets import blocks

from fastticket.commands.cli import main

BLOCKS = blocks("how-to/backup.md")
SQLITE_BACKUP, SQLITE_RESTORE, REDIS_BACKUP, REDIS_USER, REDIS_RESTORE, EXPORT, IMPORT, REVOKE, REHEARSAL = (
    block.text for block in BLOCKS if block.language == "console"
)


def live_sessions(store, capsys):
    """Those of alice."""
    capsys.readouterr()
    assert main(["sessions", "--user", "alice", "--json", "--store", store]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def at(tmp_path, monkeypatch):
    """The terminal, in the current folder, in which there is a key."""
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "--out", "keys.toml"]) == 0
    with shown("how-to/backup.md", tmp_path) as terminal:
        yield terminal


def is_for_its_owner_only(path):
    return path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("store", "restored", "backup", "restore"),
    [
        ("sqlite:///sessions.db", "sqlite:///sessions.db", SQLITE_BACKUP, SQLITE_RESTORE),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6380/0", REDIS_BACKUP, REDIS_RESTORE),
    ],
)
def test_what_was_lost_is_there_again(at, tmp_path, capsys, store, restored, backup, restore):
    store, restored = at.here(store), at.here(restored)
    try:
        assert main(["issue", "alice", "--keys", "keys.toml", "--store", store]) == 0
        at.run(backup)
        (copy,) = tmp_path.glob("backup.*db")
        assert is_for_its_owner_only(copy)
        assert main(["revoke", "--user", "alice", "--store", store]) == 0
        assert not live_sessions(store, capsys)
        at.run(restore)
        assert live_sessions(restored, capsys)
        if restored != store:
            at.run(REVOKE)
            assert not live_sessions(restored, capsys)
    finally:
        at.run("$ redis-cli -p 6380 shutdown nosave || true\n")


def test_a_user_with_two_commands_can_copy_redis(at, tmp_path):
    at.run(REDIS_USER)
    assert (tmp_path / "backup.rdb").read_bytes().startswith(b"REDIS")
    assert is_for_its_owner_only(tmp_path / "backup.rdb")
    at.run("$ redis-cli -p 6379 acl log | wc -c\n1\n")  # nothing was denied


def test_a_rehearsal_lists_who_was_there(at, capsys):
    assert main(["issue", "alice", "--keys", "keys.toml", "--store", "sqlite:///sessions.db"]) == 0
    at.run(SQLITE_BACKUP)
    at.run(REHEARSAL)
    assert live_sessions("sqlite:///rehearsal/sessions.db", capsys)


def test_an_export_is_imported(at, capsys):
    store = at.here("redis://127.0.0.1:6379/0")
    assert main(["issue", "alice", "--keys", "keys.toml", "--store", store]) == 0
    at.run(EXPORT)
    at.run(IMPORT)
    (imported,) = live_sessions("sqlite:///imported.db", capsys)
    assert [imported] == live_sessions(store, capsys)
