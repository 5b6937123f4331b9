"""Commands that only look, and dry runs, write nothing: not where there is no store yet, and not
into one that has sessions.
"""

import asyncio
import contextlib
import json

import pytest
from lab.commands import Commands
from lab.linkis_tickets import HASH, Tickets, now_ms
from lab.redis_servers import Server

import fastticket
from fastticket.keyfile import create_key_file

#: What they are typed with; {store} is where the sessions are.
LOOKS = (
    "sessions --user alice",
    "sessions --all",
    "sessions --all --count",
    "events",
    "inspect {ticket} --keys keys.toml",
    "export looked.jsonl",
    "import sessions.jsonl --dry-run",
    "migrate linkis --from {old} --dry-run",
)


@pytest.fixture(scope="module")
def commands():
    with contextlib.closing(Commands()) as made:
        yield made


def in_the_store(server, folder):
    """All that it holds."""
    with contextlib.closing(server.client(db=1)) as client:
        found = {key: client.dump(key) for key in client.scan_iter()}
    # What SQLite keeps of a file is no more than a copy of it, once nobody has it open.
    return found | {path.name: path.read_bytes() for path in folder.glob("*.db*")}


def forget_empty_logs(server):
    """As in a store whose shards nobody but one has asked for anything yet."""
    with contextlib.closing(server.client(db=1)) as client:
        for key in list(client.scan_iter("*:log")):
            if all("opened" in fields for _, fields in client.xrange(key)):
                client.delete(key)


async def log_in(url, folder):
    async with fastticket.TicketCache(fastticket.open_store(url, base=folder), folder / "keys.toml") as cache:
        return await cache.login("alice")


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
def test_who_only_looks_writes_nothing(commands, tmp_path, kind):
    create_key_file(tmp_path / "keys.toml")
    server = Server(tmp_path)
    with contextlib.closing(server.client()) as old, contextlib.ExitStack() as exits:
        exits.callback(server.kill)
        old.hset(HASH, mapping={Tickets("1.8").make(f"user{n}", now_ms()): now_ms() for n in range(30)})
        made, new = (
            (f"redis://{server.address}/1?timeout_ms=10000", f"redis://{server.address}/2?shards=4")
            if kind == "redis"
            else ("sqlite:///made.db", "sqlite:///new.db")
        )
        ticket = asyncio.run(log_in(made, tmp_path))
        words = {"ticket": ticket, "old": f"redis://{server.address}/0"}
        code, _, error = commands.run("export", "sessions.jsonl", "--store", made, cwd=tmp_path)
        assert code == 0, error
        forget_empty_logs(server)
        before = in_the_store(server, tmp_path)
        with contextlib.closing(server.client(db=2)) as nothing:
            for store, is_there in ((made, True), (new, False)):
                for look in LOOKS:
                    typed = [*look.format(**words).split(), "--store", store]
                    code, _, error = commands.run(*typed, cwd=tmp_path)
                    assert (code == 0) is (is_there or "--dry-run" in look), (look, error)
                    assert in_the_store(server, tmp_path) == before, look
                    assert not list(nothing.scan_iter()), look
        report = json.loads(
            commands.run(
                *f"migrate linkis --from {words['old']} --dry-run --json".split(), "--store", made, cwd=tmp_path
            )[1]
        )
        assert report["created"] == 30
