"""Servers that took no connection are asked for one as soon as their pause is over.

So no request has to find out that a server is away still; a gateway without requests, which
balancers send none because its servers are away, hears that they are back; and what is said to be
up has been seen to be.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools

from fastticket.dataplane.balance import Upstreams
from fastticket.gateway.addresses import Server
from fastticket.gateway.health import connect
from fastticket.tasks import end

LOOK_S = 0.25  # between two looks; a server is asked so long before its pause is over
TIMEOUT_S = 2.0
AT_ONCE = 16  # each needs a descriptor


class Knocking:
    """At the servers of all groups of `upstreams`, from `start` on."""

    def __init__(self, upstreams: Upstreams, groups: int) -> None:
        self._upstreams = upstreams
        self._groups = groups
        self._task: asyncio.Task[None] | None = None
        self._knocks: dict[tuple[int, Server], asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._look_for_ever(), name="fastticket-knocking")

    async def stop(self) -> None:
        """End, with what is under way."""
        await end(self._task)
        await end(*self._knocks.values())

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            due = [
                (group, server)
                for group in range(self._groups)
                for server in self._upstreams.unreached(group, int(LOOK_S * 1000))
                if (group, server) not in self._knocks
            ]
            for place in itertools.islice(due, AT_ONCE - len(self._knocks)):
                self._knocks[place] = asyncio.create_task(self._knock(*place), name="fastticket-knock")

    async def _knock(self, group: int, server: Server) -> None:
        try:
            self._upstreams.knocked(group, server, await _reason(server))
        finally:
            del self._knocks[group, server]


async def _reason(server: Server) -> int:
    """Why it takes no connection, an errno; 0: it does."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await connect(server)
    except TimeoutError:
        return errno.ETIMEDOUT
    except OSError as error:
        return error.errno or errno.ECONNREFUSED
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return 0
