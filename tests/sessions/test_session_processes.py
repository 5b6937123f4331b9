"""Sessions of real processes on a real Redis: changes at once, logins at once, ends in time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab.redis_servers import Server

import fastticket
from fastticket.stores.contract import shard_of

BOUND_S = 60.0
KEYS = [(1, b"k" * 32)]
PRELUDE = """
import asyncio, sys, fastticket

def opened(**settings):
    return fastticket.TicketCache(fastticket.open_store(sys.argv[1]), fastticket.Keyring([(1, b"k" * 32)]), **settings)

def started():
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def server(tmp_path: Path):
    server = Server(tmp_path)
    yield server
    server.kill()


def url_of(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}/0?timeout_ms=10000"  # a busy machine's may be silent for long


def opened(server: Server, **settings: object) -> fastticket.TicketCache:
    return fastticket.TicketCache(fastticket.open_store(url_of(server)), fastticket.Keyring(KEYS), **settings)


def at_once(server: Server, program: str, *arguments: list[str]) -> list[str]:
    """The output of processes that run one program with different arguments, all at once when each
    is ready.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PRELUDE + program, url_of(server), *each],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for each in arguments
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=BOUND_S)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * len(processes)
        return outputs
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


@pytest.mark.parametrize("near_attributes_bytes", [0, 100_000])
def test_two_processes_that_change_different_attributes_of_one_session_lose_none(server, near_attributes_bytes):
    program = """
async def main(ticket, name, near):
    async with opened(near_attributes_bytes=int(near)) as cache:
        session = await cache.authenticate(ticket)
        started()
        for number in range(500):
            async with cache.attributes(session) as attributes:
                assert attributes.get(name, 0) == number, (attributes.get(name), number)
                attributes[name] = number + 1
                attributes[f"{name}{number}"] = "x"

asyncio.run(main(*sys.argv[2:]))
"""

    async def log_in() -> str:
        async with opened(server) as cache:
            return await cache.login("alice")

    async def attributes_of(ticket: str) -> dict[str, object]:
        async with opened(server) as cache:
            return dict(await cache.attributes(await cache.authenticate(ticket)).load())

    ticket = asyncio.run(log_in())
    at_once(server, program, *([ticket, name, str(near_attributes_bytes)] for name in ("here", "there")))
    found = asyncio.run(attributes_of(ticket))
    wanted = {f"{name}{number}": "x" for name in ("here", "there") for number in range(500)}
    assert found == wanted | {"here": 500, "there": 500}


@pytest.mark.parametrize("policy", ["evict-oldest", "refuse"])
def test_a_hundred_logins_at_once_in_two_processes_exceed_no_limit(server, policy):
    """Redis is asked all the time how many there are."""
    program = """
async def main(policy):
    async with opened(sessions_max=3, sessions_max_policy=policy) as cache:
        started()
        done = await asyncio.gather(*(cache.login("alice") for _ in range(50)), return_exceptions=True)
        assert all(isinstance(each, str | fastticket.TooManySessions) for each in done), done
        print(sum(isinstance(each, str) for each in done))

asyncio.run(main(*sys.argv[2:]))
"""
    live = f"{{ft:{shard_of('alice', 16):03}}}:live"
    watching = subprocess.Popen(
        [sys.executable, "-c", WATCHER, str(server.port), live],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout.readline() == "ready\n"
    admitted = sum(map(int, at_once(server, program, [policy], [policy])))
    looks, most = map(int, watching.communicate("stop\n", BOUND_S)[0].split())
    assert most == 3
    assert looks > 10
    assert int(server.admin("ZCARD", live)) == 3
    assert admitted == (100 if policy == "evict-oldest" else 3)


WATCHER = """
import redis, select, sys
client, looks, most = redis.Redis(port=int(sys.argv[1])), 0, 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    looks += 1
    most = max(most, client.zcard(sys.argv[2]))
print(looks, most)
"""


def in_one_shard(count: int) -> list[str]:
    names = (f"user{number}" for number in range(1000))
    return [name for name in names if shard_of(name, 16) == 0][:count]


@pytest.mark.alone
@pytest.mark.parametrize(
    ("principals", "idle_timeouts_s"),
    [([f"user{number}" for number in range(2000)], (2, 3)), (in_one_shard(4), (3,))],
    ids=["spread", "one-shard-one-deadline"],
)
async def test_sessions_that_expire_under_load_are_told_of_in_time(server, principals, idle_timeouts_s):
    """2,000 of them, while the gateway's loop is kept busy. A second is the bound for each on a
    machine of one's own.
    """
    short = {"flush_interval_ms": 100, "lease_ms": 200}
    async with opened(server, expiry_margin_s=0, **short) as cache:
        events = await cache.events(kinds=["expired"]).start()
        first = asyncio.create_task(anext(events))  # it follows, and so observes the store from now on
        tickets = [await cache.login(f"busy{number}") for number in range(200)]
        # At once, so that as many deadlines as possible are one.
        await asyncio.gather(
            *(
                cache.login(
                    principals[number % len(principals)],
                    idle_timeout_s=idle_timeouts_s[number % len(idle_timeouts_s)],
                )
                for number in range(2000)
            )
        )
        found = [info for principal in principals for info in await cache.sessions(principal)]
        deadlines_ms = {info.id: info.idle_deadline_ms for info in found}
        assert len(deadlines_ms) == 2000
        late_ms = []
        is_over = False

        async def load() -> None:
            while not is_over:
                for ticket in tickets:
                    await cache.authenticate(ticket)
                await asyncio.sleep(0)

        loading = asyncio.create_task(load())
        async with asyncio.timeout(BOUND_S):
            for _ in range(2000):
                event = await first if first else await anext(events)
                first = None
                late_ms.append(cache.now_ms() - deadlines_ms.pop(event.session_id))
        is_over = True
        await loading
        late_ms.sort()
        print(f"told after p50 {late_ms[1000]}, p99 {late_ms[1980]}, last {late_ms[-1]} ms")
        assert late_ms[0] >= 0
        assert late_ms[1000] <= 1000
        assert late_ms[-1] <= 3000
