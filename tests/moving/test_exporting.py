"""Export and import by the command line: between stores, killed and begun again, sealed,
damaged.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.killed import done_by, killed_when
from lab.redis_servers import ClusterSetup, Server, closing_all
from lab.store_contract import all_of, new_session_id, scan_all

from fastticket import Keyring, TicketCache, open_store
from fastticket.commands.cli import main
from fastticket.core.ticket import decode_session_id
from fastticket.moving.dump import end_line, is_session, line_of
from fastticket.stores.contract import RestoredSession, StoredSession

SESSIONS = 700
RATE = "20"  # of a command that is to be killed: after its first page it has half a minute to do yet


async def fill(url: str, count: int = SESSIONS) -> None:
    """Sessions of all kinds, some with attributes."""
    store = open_store(url)
    await store.open()
    now_ms = await store.time_ms()
    never_ms = 2**53 - 1
    made = []
    for number in range(count):
        idle_s, absolute_s = ((7200, 86400), (0, 86400), (7200, 0), (0, 0))[number % 4]
        created_ms = now_ms - 60_000 - number
        ends_ms = created_ms + absolute_s * 1000 if absolute_s else never_ms
        session = StoredSession(
            new_session_id(),
            f"ünïcode {number % 97}",
            min(ends_ms, now_ms + idle_s * 1000 + number) if idle_s else ends_ms,
            created_ms,
            idle_s,
            absolute_s,
            {"agent": 'x"\n\\ ü'} if number % 3 else {},
        )
        values = {"a": os.urandom(40), "ü\n": b"", f"n{number}": b"1"} if number % 5 else {}
        made.append(RestoredSession(session, values))
    assert set(await store.restore(made)) == {"created"}
    await store.aclose()


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "dump.key"
    path.write_bytes(b"k" * 43 + b"=\n")
    return str(path)


@pytest.mark.parametrize("is_sealed", [False, True], ids=["clear", "sealed"])
async def test_sessions_and_attributes_go_from_sqlite_to_redis_to_a_cluster_and_back(
    tmp_path, redis_server, secret, is_sealed, capfd
):
    """Each as it was, to the ms, in a store of another kind and another number of shards."""
    with contextlib.closing(ClusterSetup(tmp_path)) as cluster:
        urls = [
            f"sqlite:///{tmp_path}/a.db",
            f"redis://{redis_server.address}/1",
            f"{cluster.url}?shards=32",
            f"sqlite:///{tmp_path}/b.db",
        ]
        await fill(urls[0])
        expected = await all_of(urls[0])
        key = ["--key-file", secret] if is_sealed else []
        for number, (source, target) in enumerate(itertools.pairwise(urls)):
            out = tmp_path / f"out{number}"
            assert await command("export", out, "--store", source, *key) == 0
            assert out.stat().st_mode & 0o777 == 0o600
            assert (b"agent" in out.read_bytes()) != is_sealed
            assert await command("import", out, "--store", target, *key) == 0
            assert await all_of(target) == expected
    assert f"{SESSIONS} sessions made" in capfd.readouterr().out


async def command(*words: object) -> int:
    return await asyncio.to_thread(main, [str(word) for word in words])


@pytest.mark.parametrize("is_sealed", [False, True], ids=["clear", "sealed"])
async def test_an_export_and_an_import_that_were_killed_go_on(tmp_path, secret, is_sealed):
    """SIGKILL, several times, at no certain place."""
    source, target = (f"sqlite:///{tmp_path}/{name}.db" for name in "ab")
    await fill(source)
    out = tmp_path / "out"
    key = ["--key-file", secret] if is_sealed else []
    part = tmp_path / "out.partial"
    for _ in range(2):
        with killed_when(has_grown(part)) as run:
            run("export", out, "--store", source, "--rate", RATE, *key)
        with part.open("ab") as file:  # a piece that was half written
            file.write(b"\0\0\4\0half" if is_sealed else b'{"principal":"half')
    assert not out.exists()
    assert await command("export", out, "--store", source, *key) == 0
    progress = tmp_path / "out.progress"
    with killed_when(lambda: done_by(progress) > 0) as run:
        run("import", out, "--store", target, "--rate", RATE, *key)
    assert 0 < len(await all_of(target)) < SESSIONS
    ended = await end_one(target, progress)
    assert await command("import", out, "--store", target, *key) == 0
    expected = await all_of(source)
    assert ended in expected
    del expected[ended]
    assert await all_of(target) == expected


def has_grown(part: Path) -> Callable[[], bool]:
    """Whether a page or more came to the file."""
    size = part.stat().st_size if part.exists() else 0
    return lambda: part.exists() and part.stat().st_size > size + 1000


async def test_an_export_that_was_left_long_ago_does_not_go_on(tmp_path, capfd):
    """It would bring back who has logged out since, and lack who has logged in."""
    source, out, part = f"sqlite:///{tmp_path}/a.db", tmp_path / "out", tmp_path / "out.partial"
    await fill(source)
    with killed_when(has_grown(part)) as run:
        run("export", out, "--store", source, "--rate", RATE)
    long_ago_s = part.stat().st_mtime - 1000
    os.utime(part, (long_ago_s, long_ago_s))
    assert await command("export", out, "--store", source) == 2
    assert "delete it to begin again" in capfd.readouterr().err
    part.unlink()
    assert await command("export", out, "--store", source) == 0


async def test_an_import_whose_disk_is_full_says_so_and_goes_on(tmp_path):
    source, out = f"sqlite:///{tmp_path}/a.db", tmp_path / "out"
    await fill(source)
    assert await command("export", out, "--store", source) == 0
    with closing_all(server := Server(tmp_path)):
        target = f"redis://{server.address}/0"
        for kib in (40, 60):  # some pieces of the progress file have room
            # -B: a compiled module that was cut off would stay, for every process that comes after.
            run = f"ulimit -f {kib}; exec {sys.executable} -B -m fastticket import {out} --store {target}"
            ended = await asyncio.to_thread(subprocess.run, ["bash", "-c", run], check=False, stderr=subprocess.PIPE)
            assert ended.returncode == 2
            assert b"type the same again" in ended.stderr
            assert server.admin("DBSIZE") > 0
        assert await command("import", out, "--store", target) == 0
        assert await all_of(target) == await all_of(source)


async def end_one(url: str, progress: Path) -> str:
    """One of those that the import knows to be done, and let the store forget that it ended."""
    with contextlib.closing(sqlite3.connect(progress)) as db:
        [(session_id,)] = db.execute("SELECT session_id FROM sessions WHERE is_done LIMIT 1")
    store = open_store(url)
    await store.open()
    session = next(each for each in (await scan_all(store)).values() if decode_session_id(each.id) == session_id)
    assert await store.revoke(session.id, session.principal)
    store._connection.execute("DELETE FROM log WHERE kind = 'revoked'")
    await store.aclose()
    return session.id


async def test_what_is_damaged_cut_off_or_anothers_is_refused_before_anything_is_written(tmp_path, secret, capfd):
    source, target = (f"sqlite:///{tmp_path}/{name}.db" for name in "ab")
    await fill(source, 150)
    clear, sealed, other = (tmp_path / name for name in ("clear", "sealed", "other.key"))
    other.write_bytes(b"o" * 44)
    assert await command("export", clear, "--store", source) == 0
    assert await command("export", sealed, "--store", source, "--key-file", secret) == 0
    assert await command("export", clear, "--store", source) == 2
    assert "it exists" in capfd.readouterr().err

    async def refused(text: bytes, why: str, *options: object) -> None:
        changed = tmp_path / "changed"
        changed.write_bytes(text)
        assert await command("import", changed, "--store", target, *options) == 2
        assert why in capfd.readouterr().err
        assert not (tmp_path / "b.db").exists()

    text = clear.read_bytes()
    lines = text.splitlines(keepends=True)
    await refused(b"".join(lines[:-1]), "cut off")
    await refused(text[:-10], "cut off")
    await refused(b"".join(lines[:5] + lines[6:]), "was changed")
    await refused(text.replace(b"principal", b"principaI", 1), "was changed")
    await refused(text + lines[5], "after its end")
    await refused(b"", "no export")
    await refused(b"hello\n", "no export")
    await refused(text.replace(b'"version":1', b'"version":2', 1), "version 2")
    for line in (b"[" * 100_000, b'{"format":"fastticket-sessions","version":1}'):
        await refused(whole(line + b"\n"), "no export" if line[:1] == b"[" else "damaged")
    await refused(text, "not sealed", "--key-file", secret)
    text = sealed.read_bytes()
    await refused(text, "--key-file")
    await refused(text, "another key file", "--key-file", other)
    await refused(text[:-1], "cut off", "--key-file", secret)
    await refused(text[:200] + bytes([text[200] ^ 1]) + text[201:], "damaged", "--key-file", secret)
    other.write_bytes(b"c2hvcnQ=")
    await refused(text, "32 random bytes", "--key-file", other)


def whole(text: bytes) -> bytes:
    """With an end that fits, as somebody could make it."""
    return text + end_line(sum(map(is_session, text.splitlines())), hashlib.sha256(text).hexdigest())


@pytest.mark.parametrize(
    ("name", "value"),
    [("principal", 7), ("created_ms", "1"), ("idle_timeout_s", True), ("details", {"a": 1}), ("attributes", ["a"])],
)
async def test_a_line_of_another_kind_is_skipped(tmp_path, name, value, capfd):
    out, clear = f"sqlite:///{tmp_path}/a.db", tmp_path / "clear"
    await fill(out, 2)
    assert await command("export", clear, "--store", out) == 0
    head, first, *rest = clear.read_bytes().splitlines(keepends=True)[:-1]
    changed = line_of({**json.loads(first), name: value})
    (tmp_path / "changed").write_bytes(whole(head + changed + b"".join(rest)))
    capfd.readouterr()
    assert await command("import", tmp_path / "changed", "--store", f"sqlite:///{tmp_path}/b.db", "--json") == 0
    report = json.loads(capfd.readouterr().out)
    assert (report["created"], report["skipped"]) == (1, {"unreadable": 1})


async def test_no_ticket_is_in_an_export(tmp_path):
    keys, url, out = Keyring([(1, b"k" * 32)]), f"sqlite:///{tmp_path}/a.db", tmp_path / "out"
    async with TicketCache(open_store(url), keys) as cache:
        ticket = await cache.login("alice")
    assert await command("export", out, "--store", url) == 0
    text = out.read_bytes()
    assert b"alice" in text
    assert not any(ticket[at : at + 32].encode() in text for at in range(len(ticket) - 32))
