"""Sessions that every candidate of a benchmark knows: tickets, tokens, and their stores."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import secrets
import shutil
import sys
import time
import urllib.request
from pathlib import Path

import itsdangerous
import jwt
import redis
from children import Child, free_port
from prometheus_client.parser import text_string_to_metric_families

import fastticket
from fastticket.keyfile import create_key_file
from fastticket.stores.contract import StoredSession

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from lab import redis_servers

LIFETIME_S = 86_400
AT_ONCE = 400


@dataclasses.dataclass(frozen=True)
class Sessions:
    """Made once. `cookies` are files with one a line, for `load.c`.

    tickets   fastticket's own
    tokens    JSON Web Tokens, HS256
    signed    itsdangerous, TimestampSigner: session id, "|", user
    """

    keys: Path
    database: Path  # SQLite
    cookies: dict[str, Path]
    token_secret: str  # of tokens and signed
    ids: tuple[str, ...]  # in hexadecimal

    def copy_to(self, database: Path) -> str:
        """A SQLite store with these sessions; its URL."""
        shutil.copy(self.database, database)
        return f"sqlite:///{database}"

    def write_to_redis(self, port: int) -> str:
        """In the layouts of all who keep sessions in Redis; the URL for fastticket."""
        url = f"redis://127.0.0.1:{port}/0"
        asyncio.run(_replay(self.keys, self.cookies["tickets"].read_text().split(), url))
        with redis.Redis(port=port) as client:
            pipeline = client.pipeline(transaction=False)
            for session_id in self.ids:
                pipeline.set(f"session:{session_id}", "x", ex=7200)
                pipeline.hset("user_ticket_redis_key", session_id, "1732170000000")
                pipeline.hset(f"spring:session:sessions:{session_id}", "creationTime", "1732170000000")
            pipeline.execute()
        return url


def make_sessions(folder: Path, count: int) -> Sessions:
    """So many, of users `user-00000` and so on."""
    keys, database = folder / "keys.toml", folder / "sessions.db"
    create_key_file(keys)
    tickets = asyncio.run(_log_in(keys, f"sqlite:///{database}", count))
    ids = tuple(base64.urlsafe_b64decode(ticket + "==")[2:18].hex() for ticket in tickets)
    secret, now_s = secrets.token_urlsafe(32), int(time.time())
    claims = ({"sub": f"user-{n:05}", "iat": now_s, "exp": now_s + LIFETIME_S} for n in range(count))
    signer = itsdangerous.TimestampSigner(secret)
    cookies = {
        "tickets": tickets,
        "tokens": [jwt.encode(claim, secret, "HS256") for claim in claims],
        "signed": [signer.sign(f"{session_id}|user-{n:05}").decode() for n, session_id in enumerate(ids)],
    }
    for name, values in cookies.items():
        (folder / name).write_text("\n".join(values) + "\n")
    return Sessions(keys, database, {name: folder / name for name in cookies}, secret, ids)


def fill_redis(folder: Path, count: int, url: str) -> tuple[Path, Path]:
    """So many sessions in a Redis, without logins, which take their time. Files of keys and of
    tickets.
    """
    keys_file, tickets_file = folder / "keys.toml", folder / "tickets"
    create_key_file(keys_file)
    keys, now_ms = fastticket.Keyring.from_file(keys_file), time.time_ns() // 1_000_000
    tickets = [keys.mint(f"user-{number:05}", now_ms, 7200, LIFETIME_S) for number in range(count)]
    asyncio.run(_replay(keys_file, tickets, url))
    tickets_file.write_text("\n".join(tickets) + "\n")
    return keys_file, tickets_file


async def _log_in(keys: Path, url: str, count: int) -> list[str]:
    async with fastticket.TicketCache(fastticket.open_store(url), fastticket.Keyring.from_file(keys)) as cache:
        return [await cache.login(f"user-{number:05}") for number in range(count)]


async def _replay(keys_file: Path, tickets: list[str], url: str) -> None:
    """The logins of these tickets once more, into another store."""
    keys, now_ms = fastticket.Keyring.from_file(keys_file), time.time_ns() // 1_000_000
    store = fastticket.open_store(url)
    await store.open()
    try:
        for start in range(0, len(tickets), AT_ONCE):
            made = (_stored(keys.verify(text, now_ms), now_ms) for text in tickets[start : start + AT_ONCE])
            await asyncio.gather(*(store.create(each) for each in made))
    finally:
        await store.aclose()


def _stored(ticket: fastticket.Ticket, now_ms: int) -> StoredSession:
    times = ticket.issued_at_ms, ticket.idle_timeout_s, ticket.absolute_lifetime_s
    return StoredSession(ticket.session_id, ticket.principal, ticket.idle_deadline_ms(now_ms), *times)


def start_redis(folder: Path, core: int, engine: str = "redis") -> tuple[Child, int]:
    """A server that writes nothing to disk, and its port: Debian's, or another of the tests'."""
    port = free_port()
    program = redis_servers.engine(engine)
    command: list[str | Path] = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    child = Child(core, command, folder / f"redis-{port}.log")
    try:
        child.wait_for(port)
    except BaseException:
        child.stop()
        raise
    return child, port


def counters(admin_port: int) -> dict[str, float]:
    """What a gateway of ours has counted: `/metrics`, by name, and by the values of labels after a
    slash.
    """
    with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = (sample for family in families for sample in family.samples)
    return {"/".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


def redis_commands(port: int) -> dict[str, int]:
    """How often each command was called since the last CONFIG RESETSTAT, those of scripts too,
    those of this bench not.
    """
    ours = ("info", "config|resetstat", "ping", "client|setinfo", "client|kill")
    with redis.Redis(port=port) as client:
        stats = client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()}
    return {name: number for name, number in calls.items() if name not in ours}
