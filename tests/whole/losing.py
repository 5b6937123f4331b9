"""The store loses its data under load: two gateways on one Redis, sessions in use at both, and
FLUSHALL. Who had to log in again, and who came back that should not?

    python -m whole.losing [SESSIONS]

Exits with 1 if anybody who was active was refused, or anybody admitted who had been ended before.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lab.processes import Site
from lab.redis_servers import Server

import fastticket
from fastticket.keyfile import create_key_file

CLIENTS = 32  # connections to each gateway
BOUND_S = 240.0
ENDED_PART = 20  # each twentieth session was ended before

CONFIG = """
[gateway]
listen = ["127.0.0.1:0"]
[ticket]
keys = "../keys.toml"
[store]
url = "redis://{redis}/0"
restore_from_cache = true
[[upstream]]
name = "app"
servers = ["{origin}"]
[[route]]
path = "/"
"""
#: In the log of a gateway that knows of the loss. Its clients need not: another may have mended it.
NOTICED = "the store's log has a gap"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Outcome:
    """What clients saw from the loss on."""

    active: int
    answers: Counter[int]  #: of requests with active sessions, by status
    logged_out: int  #: active sessions that were refused, whenever
    ended: int  #: sessions that had been ended before
    came_back: int  #: of these, sessions that were admitted, whenever
    all_back_s: float  #: from the loss on, until each active session had been admitted again

    @property
    def is_good(self) -> bool:
        return not self.logged_out and not self.came_back

    def __str__(self) -> str:
        return (
            f"active sessions {self.active}, logged out {self.logged_out}; answers {dict(self.answers)}; "
            f"ended before {self.ended}, came back {self.came_back}; "
            f"all admitted again after {self.all_back_s:.1f} s"
        )


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


class _Client:
    """A connection to a gateway."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def status(self, ticket: str) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(f"GET / HTTP/1.1\r\nHost: a\r\nCookie: ticket={ticket}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(size)
        if b"\r\nconnection: close" in head.lower():
            self.close()
        return int(head[9:12])

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def _ask_all(clients: list[_Client], tickets: list[str]) -> dict[str, int]:
    """One request for each ticket."""
    seen: dict[str, int] = {}
    left = iter(tickets)

    async def ask(client: _Client) -> None:
        for ticket in left:
            seen[ticket] = await client.status(ticket)

    await asyncio.gather(*map(ask, clients))
    return seen


async def _refused(clients: list[_Client], tickets: list[str]) -> set[str]:
    """Those that are refused, however often 503 comes first."""
    refused, waiting = set[str](), tickets
    while waiting:
        answers = await _ask_all(clients, waiting)
        refused |= {ticket for ticket, status in answers.items() if status not in (200, 503)}
        waiting = [ticket for ticket, status in answers.items() if status == 503]
    return refused


async def _until_refused(clients: list[_Client], tickets: list[str]) -> None:
    """Until a gateway has heard that they are over."""
    while set((await _ask_all(clients, tickets)).values()) != {401}:
        pass


async def _run(folder: Path, server: Server, sites: list[Site], sessions: int) -> Outcome:
    keys = fastticket.Keyring.from_file(folder / "keys.toml")
    async with fastticket.TicketCache(f"redis://{server.address}/0?timeout_ms=10000", keys) as cache:
        tickets = [await cache.login(f"user{number}") for number in range(sessions)]
        clients = [[_Client(site.address) for _ in range(CLIENTS)] for site in sites]
        for each in clients:
            assert not await _refused(each, tickets)
        ended, active = tickets[::ENDED_PART], [t for n, t in enumerate(tickets) if n % ENDED_PART]
        await asyncio.gather(*map(cache.logout, ended))
    for each in clients:  # who has ended them is gone, so somebody else has to know it (decision 54)
        await _until_refused(each, ended)
    server.admin("FLUSHALL")
    lost_s, answers = time.monotonic(), Counter[int]()
    waiting, refused, came_back = set(active), set[str](), set[str]()
    have_noticed = False  # before, a gateway admits as it did: its lease is not over
    for each in itertools.cycle(clients):
        if not have_noticed and all(NOTICED in site.log for site in sites):
            have_noticed, waiting = True, set(active)
        for ticket, status in (await _ask_all(each, active)).items():
            answers[status] += 1
            if status == 200:
                waiting.discard(ticket)
            elif status != 503:
                refused.add(ticket)
        came_back |= {t for t, status in (await _ask_all(each, ended)).items() if status == 200}
        if have_noticed and not waiting - refused:
            break
    all_back_s = time.monotonic() - lost_s
    for each in clients:  # and what is so at the end
        refused |= await _refused(each, active)
        came_back |= {t for t, status in (await _ask_all(each, ended)).items() if status == 200}
    for client in itertools.chain(*clients):
        client.close()
    return Outcome(len(active), answers, len(refused), len(ended), len(came_back), all_back_s)


async def play(folder: Path, sessions: int) -> Outcome:
    """Start it all in a folder, and end it."""
    origin = await asyncio.start_server(_answer, "127.0.0.1", 0)
    create_key_file(folder / "keys.toml")
    (folder / "redis").mkdir()
    server, sites = Server(folder / "redis"), []
    try:
        behind = f"127.0.0.1:{origin.sockets[0].getsockname()[1]}"
        for name in ("one", "other"):
            (folder / name).mkdir()
            config = CONFIG.format(redis=server.address, origin=behind)
            sites.append(await asyncio.to_thread(Site, folder / name, config))
        async with asyncio.timeout(BOUND_S):
            return await _run(folder, server, sites, sessions)
    finally:
        for site in sites:
            await asyncio.to_thread(site.stop)
        server.kill()
        origin.close()


def main() -> int:
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(play(Path(folder), sessions))
    print(outcome)
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
