"""A Redis that another system keeps its sessions in, to be read: one connection, made when it is
needed, and made again after it was lost.

Nothing of a store's is here (no shards, no leases, no taking over): a reader that fails is run
again. With Sentinel the sentinels are asked for the master when a connection is made. Any version
of Redis or Valkey will do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from fastticket.errors import ConfigError, OldStoreUnavailable
from fastticket.stores import without_password
from fastticket.stores.redis.address import Address, Command, Place, parse_url, place_of
from fastticket.stores.redis.connecting import connect
from fastticket.stores.redis.errors import AWAY, shortened
from fastticket.stores.redis.link import Link, LinkLost
from fastticket.tasks import end

#: In place of the reply to one command: the key is of another type.
Refused = RedisError
WRONG_TYPE = "WRONGTYPE"


class ForeignRedis:
    """See above. `url`: as a store's, `redis://`, `rediss://`, `unix://` or `redis+sentinel://`.
    ConfigError.
    """

    def __init__(self, url: str, base: Path | None = None) -> None:
        self.shown = without_password(url)  #: for messages
        self._address = parse_url(url, base or Path())
        if self._address.kind == "cluster":
            raise ConfigError(f"{self.shown}: a Cluster can not be read as one: run it for each primary, by redis://")
        self._link: Link | None = None
        self._connecting: asyncio.Task[Link] | None = None

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The replies, in order; a command for a key of another type has its error for a reply.
        OldStoreUnavailable: the server did not answer, or is none, or refuses for a cause of its
        own (it loads, is a replica, lets this user do no such thing): that says nothing of a
        session.
        """
        if not commands:
            return []
        link = None
        try:
            link = await self._connected()
            replies = await link.ask(commands)
        except (OSError, RedisError) as error:
            self._drop(link)
            raise OldStoreUnavailable(f"{self.shown}: {shortened(error)}") from error
        for reply in replies:
            if isinstance(reply, Refused) and not str(reply).startswith(WRONG_TYPE):
                if isinstance(reply, AWAY):  # the next call looks for the primary again
                    self._drop(link)
                raise OldStoreUnavailable(f"{self.shown}: {shortened(reply)}")
        return replies

    async def scan(self, pattern: str, cursor: str, count: int) -> tuple[str, list[bytes]]:
        """The next keys of a pattern, some perhaps twice, and the cursor to go on with; "" begins
        and ends. OldStoreUnavailable.
        """
        reply = (await self.ask([("SCAN", cursor or "0", "MATCH", pattern, "COUNT", count)]))[0]
        return self._page(reply)

    async def scan_hash(self, key: str, cursor: str, count: int) -> tuple[str, list[bytes]]:
        """As `scan`, the fields of a hash and their values, by turns. OldStoreUnavailable."""
        reply = (await self.ask([("HSCAN", key, cursor or "0", "COUNT", count)]))[0]
        return self._page(reply)

    async def aclose(self) -> None:
        """Close the connection, also one that is being made; the next call makes another."""
        try:
            await end(self._connecting)
        finally:
            self._drop(self._link)

    def _drop(self, link: Link | None) -> None:
        """Have another link made. Who waits on this one, too, hears of it."""
        if link:
            link.lose(LinkLost("the connection was closed"))
        if link is self._link:
            self._link = None

    def _page(self, reply: Any) -> tuple[str, list[bytes]]:
        if isinstance(reply, Refused):
            raise OldStoreUnavailable(f"{self.shown}: {shortened(reply)}")
        cursor, found = reply
        return "" if cursor == b"0" else cursor.decode(), found

    async def _connected(self) -> Link:
        if self._link is None or self._link.is_over:
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
                self._connecting.add_done_callback(self._has_connected)
            connecting = self._connecting
            await asyncio.wait([connecting])
            if connecting.cancelled():
                raise LinkLost("the connection was closed")
            return connecting.result()
        return self._link

    async def _connect(self) -> Link:
        """Once for all who wait: they fail together, and not each after a timeout of its own."""
        self._link = await connect(await self._place(), self._address.timeout_s)
        return self._link

    def _has_connected(self, task: asyncio.Task[Link]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # retrieved, even if every caller has gone

    async def _place(self) -> Place:
        if self._address.kind != "sentinel":
            return place_of(self._address, *(self._address.hosts or [("", 0)])[0])
        why: Exception = LinkLost("no sentinel was named")
        for host, port in self._address.hosts:
            try:
                return place_of(self._address, *await _master(self._address, host, port))
            except (OSError, RedisError) as error:
                why = error
        raise LinkLost(f"no sentinel names the master: {shortened(why)}")


async def _master(address: Address, host: str, port: int) -> tuple[str, int]:
    """Host and port of the master, as this sentinel says. OSError, RedisError."""
    place = Place(
        *(host, port),
        username=address.sentinel_username,
        password=address.sentinel_password,
        tls=address.tls,
        tls_files=address.tls_files,
        is_sentinel=True,
    )
    link = await connect(place, address.timeout_s)
    try:
        (found,) = await link.ask([("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.master)])
    finally:
        link.close()
    if isinstance(found, RedisError):
        raise found
    if not found:
        raise LinkLost(f"this sentinel knows no master {address.master}")
    return found[0].decode(), int(found[1])
