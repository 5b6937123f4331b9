"""Servers that took no connection are asked for one as soon as their pause is over.

So no request has to find out that a server is away still; a gateway without requests, which
balancers send none because its servers are away, hears that they are back; and what has failed is
said to be up only when it has been seen to be. Those that wait longest are asked first: so each has
its turn, however many are away. What this process lacks itself says nothing of a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno

from fastticket.dataplane.upstreams import Upstreams
from fastticket.gateway.addresses import Server
from fastticket.gateway.health import connect
from fastticket.tasks import end

LOOK_S = 0.25  # between two looks; a server is asked so long before its pause is over
TIMEOUT_S = 2.0
AT_ONCE = 16  # each needs a descriptor
OWN_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Place = tuple[int, Server]  # (group, server)


class Knocking:
    """At the servers of all groups of `upstreams`, from `start` on."""

    def __init__(self, upstreams: Upstreams, groups: int) -> None:
        self._upstreams = upstreams
        self._groups = groups
        self._task: asyncio.Task[None] | None = None
        self._knocks: dict[Place, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._look_for_ever(), name="fastticket-knocking")

    async def stop(self) -> None:
        """End, with what is under way."""
        await end(self._task, *self._knocks.values())
        self._task = None  # a cancelled task refers to its frame, and that to us: nobody would free the upstreams

    async def _look_for_ever(self) -> None:
        waiting: dict[Place, None] = {}
        while True:
            await asyncio.sleep(LOOK_S)
            due = {
                (group, server): None
                for group in range(self._groups)
                for server in self._upstreams.unreached(group, int(LOOK_S * 1000))
                if (group, server) not in self._knocks
            }
            waiting = {place: None for place in waiting if place in due} | due
            for place in [*waiting][: AT_ONCE - len(self._knocks)]:
                del waiting[place]
                self._knocks[place] = asyncio.create_task(self._knock(*place), name="fastticket-knock")

    async def _knock(self, group: int, server: Server) -> None:
        try:
            reason = await _reason(server)
            if reason not in OWN_LACKS:
                self._upstreams.knocked(group, server, reason)
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
