"""How a service leaves.

retire   another service has taken its place: accept no more clients, hand over those with
         nothing under way, and finish what is under way, for `retire_timeout_s`
drain    nobody takes its place: close what idles, and let the others finish, for a time
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from fastticket.gateway.pacing import Pacing
from fastticket.gateway.service import Client, Service

log = logging.getLogger("fastticket.gateway")

TICK_S = 0.1
LAST_ANSWERS_S = 1.0  # for clients that were accepted while tunnels used up the drain timeout


async def retire(service: Service, who: str, give: Callable[[Client], bool], is_over: asyncio.Event) -> None:
    """Until its last client has gone, `is_over` is set, or its time is over. `who`: for the log;
    `give`: hands a client to another service, False: there is no room for it now.
    """
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + service.config.gateway.retire_timeout_s
    service.stop_accepting()
    hand_over(service, give)
    log.info("%s retires: %d connections", who, service.connection_count)
    is_empty = False
    while not is_empty and not is_over.is_set() and loop.time() < ends_s:
        await service.next_tick()
        is_empty = not _has_clients(service)
        hand_over(service, give)  # also of one that is empty: its threads have let go of clients since the last tick
        is_empty = is_empty and not service.connection_count


def hand_over(service: Service, give: Callable[[Client], bool]) -> None:
    """Give away the clients with nothing under way, as many as there is room for."""
    while client := service.release():
        if not give(client):
            service.readopt(client)
            return


async def drain(service: Service, timeout_s: float, *, outwaits: bool) -> None:
    """Until its last client has gone, or the time is over. `outwaits`: nobody else reads the listen
    queue before this process has gone, so new clients are served until the tunnels have ended.
    """
    loop = asyncio.get_running_loop()
    drained_s = loop.time() + timeout_s
    service.pacing = Pacing(service.tunnel_count, loop.time(), timeout_s)
    if outwaits:
        service.leave(True)
        while service.tunnel_count and loop.time() < drained_s:
            await service.next_tick()
    service.stop_accepting()
    if _has_clients(service):
        await asyncio.sleep(TICK_S)  # clients that were accepted last have not sent their request yet
    service.drain()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(max(drained_s, loop.time() + LAST_ANSWERS_S)):
            while not service.is_caught_up or _awaited(service, drained_s):
                await service.next_tick()
    if service.connection_count:
        log.warning("%d connections were still in use after the drain timeout", service.connection_count)


def _has_clients(service: Service) -> bool:
    """Planes in threads accept those in their queues a moment after they were told: what they have
    done is asked first, and then counted.
    """
    return not service.is_caught_up or bool(service.connection_count)


def _awaited(service: Service, drained_s: float) -> int:
    """Connections that a drain waits for: tunnels only until `drained_s`."""
    is_over = asyncio.get_running_loop().time() >= drained_s
    return service.connection_count - (service.tunnel_count if is_over else 0)
