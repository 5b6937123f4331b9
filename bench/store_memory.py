"""What a session costs in Redis' memory: fastticket's layout, Linkis' and Spring Session's, for the
same sessions.

    python bench/store_memory.py [--sessions 1000000]

Method: a fresh redis-server (Debian's, jemalloc) for each layout, on loopback, nothing written to
disk. One session a user; user names are 12 bytes. `used_memory` of INFO memory, before and after,
by the number of sessions. fastticket's sessions are made by its own store, so its lifecycle log is
in the figure; the other two are written as their projects write them, from the documentation of
their keys:

Linkis          one entry of one hash, ticket -> last access time: no index by user, no expiry, no
                events.
Spring Session  RedisIndexedSessionRepository: the session's hash (creationTime, lastAccessedTime,
                maxInactiveInterval and the principal's name, serialized by Java), the key that
                expires, its minute's set of expirations, the index by principal.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import budgets
import figures
import redis

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from lab.redis_servers import Server  # noqa: E402

import fastticket  # noqa: E402
from fastticket.stores.contract import StoredSession  # noqa: E402

AT_ONCE = 500


def user(number: int) -> str:
    return f"user{number:08}"


def new_id() -> str:
    return base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")


async def fill_fastticket(server: Server, sessions: int) -> None:
    store = fastticket.open_store(f"redis://{server.address}/0?timeout_ms=10000")
    await store.open()
    now_ms = await store.time_ms()
    for start in range(0, sessions, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, sessions))
        made = [StoredSession(new_id(), user(n), now_ms + 7_200_500 + n, now_ms + n, 7200, 86400) for n in numbers]
        await asyncio.gather(*(store.create(session) for session in made))
    await store.aclose()


def linkis(number: int) -> list[tuple[object, ...]]:
    ticket = base64.b64encode(os.urandom(32))  # "bfs_", user, "," and the time, encrypted
    return [("HSET", "user_ticket_redis_key", ticket, int(time.time() * 1000) + number)]


def spring(number: int) -> list[tuple[object, ...]]:
    session_id = "-".join(os.urandom(n).hex() for n in (4, 2, 2, 2, 6))
    now_ms = int(time.time() * 1000)
    java_number = b"xr\x00\x10java.lang.Number\x86\xac\x95\x1d\x0b\x94\xe0\x8b\x02\x00\x00xp"
    java_long = (
        b"\xac\xed\x00\x05sr\x00\x0ejava.lang.Long;\x8b\xe4\x90\xcc\x8f#\xdf\x02\x00\x01J\x00\x05value" + java_number
    )
    java_long += now_ms.to_bytes(8, "big")
    java_int = (
        b"\xac\xed\x00\x05sr\x00\x11java.lang.Integer\x12\xe2\xa0\xa4\xf7\x81\x878\x02\x00\x01I\x00\x05value"
        + java_number
    )
    java_int += (1800).to_bytes(4, "big")
    name = user(number).encode()
    java_name = b"\xac\xed\x00\x05t" + len(name).to_bytes(2, "big") + name
    java_id = b"\xac\xed\x00\x05t" + len(session_id).to_bytes(2, "big") + session_id.encode()
    key = f"spring:session:sessions:{session_id}"
    attribute = "sessionAttr:org.springframework.session.FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME"
    minute_ms = (now_ms // 60_000 + 31 + number % 30) * 60_000
    principal = f"org.springframework.session.FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME:{user(number)}"
    return [
        (
            "HSET",
            key,
            "creationTime",
            java_long,
            "lastAccessedTime",
            java_long,
            "maxInactiveInterval",
            java_int,
            attribute,
            java_name,
        ),
        ("EXPIRE", key, 2100),
        ("SET", f"spring:session:sessions:expires:{session_id}", "", "EX", 1800),
        (
            "SADD",
            f"spring:session:expirations:{minute_ms}",
            b"\xac\xed\x00\x05t\x00," + f"expires:{session_id}".encode(),
        ),
        ("SADD", f"spring:session:index:{principal}", java_id),
    ]


def fill_by(server: Server, sessions: int, layout: object) -> None:
    with redis.Redis(port=server.port) as client:
        numbers: Iterator[int] = iter(range(sessions))
        while batch := list(itertools.islice(numbers, AT_ONCE)):
            pipeline = client.pipeline(transaction=False)
            for number in batch:
                for command in layout(number):  # type: ignore[operator]
                    pipeline.execute_command(*command)
            pipeline.execute()


def used_bytes(server: Server) -> int:
    return int(server.admin("INFO", "memory")["used_memory"])


def measure(name: str, sessions: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        try:
            before = used_bytes(server)
            if name == "fastticket":
                asyncio.run(fill_fastticket(server, sessions))
            else:
                fill_by(server, sessions, {"Linkis": linkis, "Spring Session": spring}[name])
            return (used_bytes(server) - before) / sessions
        finally:
            server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description="Bytes a session takes in Redis.")
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="*", metavar="LAYOUT")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {}
    for name in options.only or ("fastticket", "Linkis", "Spring Session"):
        found[name] = measure(name, options.sessions)
        print(f"{name:16} {found[name]:8.1f} bytes a session of {options.sessions:,}", flush=True)
    written = {f"store memory/{name}": figures.figure(size, "bytes a session") for name, size in found.items()}
    figures.write(options.json, written)
    print(*budgets.lines(written), sep="\n")


if __name__ == "__main__":
    main()
