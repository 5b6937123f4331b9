"""Users of a Linkis installation: they ask on and on, each with the cookies that they have, through
whichever gateways the balancer in front sends them to at the time.
"""

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections import Counter

WHO = "/api/rest_j/v1/jobhistory/list"


async def close(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None) -> None:
    if connection:
        connection[1].close()
        with contextlib.suppress(OSError):
            await connection[1].wait_closed()


class User:
    """`cookies`: as a browser keeps them."""

    def __init__(self, name: str, **cookies: str) -> None:
        self.name = name
        self.cookies = cookies
        self.begun = 0  # requests
        self.answered = 0  # the latest one

    def request(self, path: str, method: str = "GET", body: bytes = b"", *fields: str) -> bytes:
        pairs = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        lines = [f"{method} {path} HTTP/1.1", "Host: linkis", f"Content-Length: {len(body)}", *fields]
        return "\r\n".join([*lines, *([f"Cookie: {pairs}"] if pairs else []), "", ""]).encode() + body

    def keep(self, head: str) -> None:
        """Take the cookies of an answer."""
        for line in head.split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "set-cookie":
                cookie, _, text = value.partition(";")[0].partition("=")
                self.cookies.pop(cookie, None)
                if text and "max-age=0" not in value.lower():
                    self.cookies[cookie] = text


class Crowd:
    """Asks for all users in turn, in a thread of its own. `entry`: the addresses that the balancer
    knows; a test changes it.
    """

    def __init__(self, users: list[User], entry: list[tuple[str, int]], workers: int = 8) -> None:
        self.entry = entry
        self.failures: Counter[str] = Counter()
        self._users = users
        self._turn = itertools.cycle(users)
        self._addresses = itertools.count()
        self._is_over = threading.Event()
        self._workers = workers
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._is_over.set()
        self._thread.join(60)

    def go_round(self, bound_s: float = 60) -> None:
        """Wait until every user has begun to ask again, and was answered."""
        before = [user.begun for user in self._users]
        give_up_at = time.monotonic() + bound_s
        while any(user.answered <= begun for user, begun in zip(self._users, before, strict=True)):
            assert time.monotonic() < give_up_at, (
                "the users have not all been answered in time",
                sum(user.answered for user in self._users),
                self.failures.most_common(3),
            )
            assert self._thread.is_alive()
            self._is_over.wait(0.02)

    async def _run(self) -> None:
        await asyncio.gather(*(self._work() for _ in range(self._workers)))

    async def _work(self) -> None:
        connections: dict[tuple[str, int], tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        while not self._is_over.is_set():
            user = next(self._turn)
            for _ in range(5):  # as a balancer tries the next one
                user.begun += 1
                number = user.begun
                address = self.entry[next(self._addresses) % len(self.entry)]
                try:
                    if address not in connections:
                        connections[address] = await asyncio.open_connection(*address)
                    status, head, said = await self._ask(*connections[address], user)
                    break
                except (OSError, EOFError):
                    await close(connections.pop(address, None))
            else:
                self.failures["no gateway answers"] += 1
                continue
            user.keep(head)
            user.answered = max(user.answered, number)
            if status != 200 or said["data"]["user"] != user.name:
                self.failures[f"{status} {said}"] += 1
        for connection in connections.values():
            await close(connection)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: User):
        async with asyncio.timeout(30):
            writer.write(user.request(WHO))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = int(head.lower().partition("content-length:")[2].split("\r\n")[0])
            return int(head.split(" ", 2)[1]), head, json.loads(await reader.readexactly(length))
