"""The primaries of a Cluster and their slots, by `CLUSTER SLOTS`.

Rules of this file
- The known primaries and the URL's servers are asked at once: when a server fails or redirects, and
  at least once per `confirm_s`.
- Nothing is sent by a table that was not read, or tried to be read, within DOUBT times `confirm_s`:
  a process that was stopped reads it first.
- Of each slot the owner that most answers name is believed: a former primary that is cut off from
  the others does not win against them. On a tie the owner that was believed before stays.
- A server that has lost all of its slots is dropped at once, and forgotten when no call waits for
  it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from fastticket.errors import StoreUnavailable
from fastticket.stores.redis.address import Address, place_of
from fastticket.stores.redis.polling import DOUBT, in_time
from fastticket.stores.redis.servers import Server
from fastticket.stores.usage import Traffic
from fastticket.tasks import end

log = logging.getLogger("fastticket.redis")

SLOTS_FRESH_S = 0.1  # a Cluster is asked for its slots no more often
FORGET_S = 10.0  # after which a server that has no slots, and is not of the URL, is closed

Range = tuple[int, int, str, int]  # first and last slot, host, port


class Cluster:
    """A topology of several servers, each with some slots."""

    def __init__(
        self, address: Address, on_change: Callable[[Server], None], confirm_s: float, traffic: Traffic
    ) -> None:
        self._address = address
        self._on_change = on_change
        self._traffic = traffic
        self.confirm_s = confirm_s
        self._ranges: list[tuple[int, int, Server]] = []
        self._is_stale = True
        self._read_at_s = self._failed_at_s = -SLOTS_FRESH_S
        self._tried_at_s = 0.0
        self._reading = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._confirming: asyncio.Task[None] | None = None
        self._is_closed = False
        self._named_at_s: dict[str, float] = {}  # when a redirection or a table last named a server
        self.servers: dict[str, Server] = {}

    async def server_of(self, slot: int) -> Server:
        """The slot's owner by the table, which is read first if it is known to be old.
        StoreUnavailable.
        """
        if self._is_stale or self._is_overdue():
            async with self._reading:
                if self._is_stale:
                    await self._read_slots()
                elif self._is_overdue():
                    with contextlib.suppress(StoreUnavailable):  # the old table is better than none
                        await self._read_slots()
        if server := self._in_table(slot):
            return server
        await self.moved()
        raise StoreUnavailable("redis cluster: a slot has no primary just now")

    def server_at(self, host: str, port: int) -> Server:
        """The server at an address that a redirection named."""
        name = f"{host}:{port}"
        self._named_at_s[name] = asyncio.get_running_loop().time()
        if name not in self.servers:
            place = place_of(self._address, host, port)
            self.servers[name] = Server(name, place, self._address.timeout_s, self._on_change, traffic=self._traffic)
        return self.servers[name]

    async def moved(self) -> None:
        """Have the table read again before its next use, unless it was read a moment ago."""
        self._is_stale |= asyncio.get_running_loop().time() >= self._read_at_s + SLOTS_FRESH_S

    async def aclose(self) -> None:
        """All of it, also if it is cancelled. Idempotent."""
        self._is_closed = True
        try:
            await end(self._confirming)
        finally:
            try:
                await asyncio.gather(*(server.aclose() for server in self.servers.values()))
            finally:
                await end(*self._tasks)

    def _is_overdue(self) -> bool:
        return asyncio.get_running_loop().time() > self._tried_at_s + self.doubt_s

    @property
    def doubt_s(self) -> float:
        """How old the table is at most when something is sent by it."""
        return DOUBT * self.confirm_s

    def _in_table(self, slot: int) -> Server | None:
        return next((server for first, last, server in self._ranges if first <= slot <= last), None)

    async def _confirm_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.confirm_s)
            try:
                async with self._reading:
                    await self._read_slots()
            except StoreUnavailable:
                pass  # the next caller of `server_of` hears of it
            except Exception:
                log.exception("redis: the cluster's slots are read again after an unexpected error")

    async def _read_slots(self) -> None:
        loop = asyncio.get_running_loop()
        self._tried_at_s = loop.time()
        if self._is_closed:
            raise StoreUnavailable("the redis store is closed")
        if loop.time() < self._failed_at_s + SLOTS_FRESH_S:
            raise StoreUnavailable("redis cluster: nobody knew a moment ago who has which slots")
        if self._confirming is None:
            self._confirming = loop.create_task(self._confirm_for_ever(), name="fastticket-cluster")
        known = (server for _, _, server in self._ranges)
        named = (self.server_at(host, port) for host, port in self._address.hosts)
        tables, error = await self._ask_all(list(dict.fromkeys([*known, *named])))
        if not tables:
            self._failed_at_s = loop.time()
            raise StoreUnavailable(f"redis cluster: {error}")
        self._believe(tables)
        self._read_at_s = loop.time()
        self._is_stale = False

    async def _ask_all(self, servers: Sequence[Server]) -> tuple[list[list[Range]], str]:
        """The tables of the servers that answer in time, and the error of one that did not."""
        asking = {asyncio.create_task(_slots_by(server), name="fastticket-slots") for server in servers}
        self._tasks |= asking
        for task in asking:
            task.add_done_callback(self._tasks.discard)
        tables: list[list[Range]] = []
        error = "no server to ask"
        async for task in in_time(asking, len(servers), lambda task: not task.exception()):
            if failure := task.exception():
                error = str(failure)
            else:
                tables.append(task.result())
        for task in asking:
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return tables, error

    def _believe(self, tables: Sequence[Sequence[Range]]) -> None:
        starts = sorted({edge for ranges in tables for first, last, *_ in ranges for edge in (first, last + 1)})
        ranges: list[tuple[int, int, Server]] = []
        for first, after in itertools.pairwise(starts):
            votes = Counter((host, port) for each in tables for low, high, host, port in each if low <= first <= high)
            if votes:
                ranges.append((first, after - 1, self._elected(first, votes)))
        before = {server for _, _, server in self._ranges}
        self._ranges = ranges
        self._forget(before)

    def _elected(self, slot: int, votes: Counter[tuple[str, int]]) -> Server:
        most = max(votes.values())
        best = [self.server_at(*where) for where, number in votes.items() if number == most]
        before = self._in_table(slot)
        return before if before in best else best[0]

    def _forget(self, before: set[Server]) -> None:
        """Retire servers that have lost all slots: calls that wait for one look up the slot's owner
        again.
        """
        serving = {server for _, _, server in self._ranges}
        for server in before - serving:
            server.retire()
        before_s = asyncio.get_running_loop().time() - FORGET_S
        for name, server in list(self.servers.items()):
            if server not in serving and self._named_at_s[name] < before_s and server.is_idle:
                del self.servers[name], self._named_at_s[name]
                closing = asyncio.create_task(server.aclose(), name="fastticket-close")
                self._tasks.add(closing)
                closing.add_done_callback(self._tasks.discard)


async def _slots_by(server: Server) -> list[Range]:
    """`CLUSTER SLOTS` as one server says. StoreUnavailable."""
    (slots,) = await server.call([("CLUSTER", "SLOTS")])
    if isinstance(slots, ResponseError) or not slots:
        raise StoreUnavailable(f"redis {server.name}: CLUSTER SLOTS: {slots or 'none'}")
    return [(first, last, _host(entry, server), int(entry[1])) for first, last, entry, *_ in slots]


def _host(entry: Sequence[Any], asked: Server) -> str:
    """The host in a table; of a server that does not know its own name, the host under which it was
    asked.
    """
    host = (entry[0] or b"").decode()
    return host if host not in ("", "?") else asked.name.rpartition(":")[0]
