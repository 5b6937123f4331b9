"""The services of a worker: the one in force, and those before it that retire.

Clients go one way, from a service that retires to the one in force. At most RETIRING_MAX retire at
a time; one more, and the oldest has to end.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from fastticket.gateway.leaving import drain, hand_over, retire
from fastticket.gateway.service import Client, Service
from fastticket.gateway.sharedmemory import add

log = logging.getLogger("fastticket.gateway")

RETIRING_MAX = 8


class Services:
    """Begins with the first one, which is in force."""

    def __init__(self, first: Service) -> None:
        self.present = first
        self._retiring: dict[Service, tuple[asyncio.Task[None], asyncio.Event]] = {}  # the oldest one first
        self._is_leaving = False
        self._lines_lost = 0  # by services that have ended
        self._session_changes: Counter[str] = Counter()  # of those
        self._token_requests: Counter[str] = Counter()
        self._upstream_counts: dict[str, Any] = {}

    def __iter__(self) -> Iterator[Service]:
        return iter([self.present, *self._retiring])

    @property
    def is_leaving(self) -> bool:
        """Whether it was told to leave: balancers are to send nobody any more."""
        return self._is_leaving

    @property
    def retiring_count(self) -> int:
        """How many retire."""
        return len(self._retiring)

    def succeed(self, coming: Service) -> None:
        """Let a service that serves take the place of the one in force, which retires."""
        before, self.present = self.present, coming
        for service in (before, *self._retiring):
            if service.exchange:
                service.exchange.give_way(coming.exchange)
        coming.leave(self._is_leaving)
        is_over = asyncio.Event()
        task = asyncio.create_task(self._retire(before, is_over), name="fastticket-retire")
        self._retiring[before] = task, is_over
        for _, late in list(self._retiring.values())[:-RETIRING_MAX]:
            late.set()

    def leave(self, is_leaving: bool) -> None:
        """Close every connection after its next answer; or not, after all."""
        self._is_leaving = is_leaving
        self.present.leave(is_leaving)

    def follow_drains(self) -> None:
        """Servers were drained, or put back in: for all clients."""
        for service in self:
            service.upstreams.follow_drains()

    async def retire(self, give: Callable[[Client], bool], is_over: asyncio.Event) -> None:
        """All of them: another process serves from now on, and takes the clients that `give` hands
        over.
        """
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + self.present.config.gateway.retire_timeout_s
        await retire(self.present, f"worker (pid {os.getpid()})", give, is_over)
        while self._retiring and not is_over.is_set() and loop.time() < ends_s:
            await self.present.next_tick()
            hand_over(self.present, give)  # what those have handed to it

    async def stop(self, *, outwaits: bool) -> None:
        """Drain all of them, by the time that the one in force allows, and close them."""
        for _, is_over in self._retiring.values():
            is_over.set()
        await drain(self.present, self.present.config.gateway.drain_timeout_s, outwaits=outwaits)
        if self._retiring:
            await asyncio.wait([task for task, _ in self._retiring.values()])
        await self.present.close()

    def tick(self) -> None:
        """What the planes need the time for."""
        for service in self:
            service.tick()

    def are_alive(self) -> bool:
        """Whether all planes have run since the last call."""
        return all([service.are_alive() for service in self])  # noqa: C419 -- asks each

    def reopen_logs(self) -> None:
        """Log rotation has moved the files of the access logs away."""
        for service in self:
            service.reopen_log()

    def drained_states(self) -> list[dict[str, Any]]:
        """As `UpstreamGroups.drained_states` of the one in force; what those that retire still have
        under way there counts, too.
        """
        states = self.present.upstreams.drained_states()
        for service in self._retiring:
            for before in service.upstreams.drained_states():
                for state in states:
                    if (state["group"], state["server"]) == (before["group"], before["server"]):
                        state["active"] += before["active"]
        return states

    # --- numbers since the start

    @property
    def connection_count(self) -> int:
        """Clients that are connected."""
        return sum(service.connection_count for service in self)

    @property
    def tunnel_count(self) -> int:
        """Clients whose connection is a tunnel."""
        return sum(service.tunnel_count for service in self)

    @property
    def upstream_counts(self) -> dict[str, Any]:
        """What was counted of each upstream, by name."""
        counted = self._upstream_counts
        for service in self:
            counted = add(counted, service.upstream_counts)
        return counted

    @property
    def session_changes(self) -> Counter[str]:
        """How many sessions were changed, by what the application asked for."""
        return sum((service.session_changes for service in self), self._session_changes)

    @property
    def token_requests(self) -> Counter[str]:
        """How many requests came with a token, by what became of them."""
        return sum((service.token_requests for service in self), self._token_requests)

    @property
    def log_lines_lost(self) -> int:
        """Lines of access logs that could not be written."""
        return self._lines_lost + sum(service.log_lines_lost for service in self)

    # --- a service that retires

    async def _retire(self, service: Service, is_over: asyncio.Event) -> None:
        await retire(service, "the configuration before", self._give, is_over)
        await drain(service, self.present.config.gateway.drain_timeout_s, outwaits=False)
        await service.close()
        del self._retiring[service]
        log.info("the configuration before has ended")
        self._lines_lost += service.log_lines_lost
        self._session_changes += service.session_changes
        self._token_requests += service.token_requests
        self._upstream_counts = add(self._upstream_counts, service.upstream_counts)

    def _give(self, client: Client) -> bool:
        self.present.adopt(client)
        return True
