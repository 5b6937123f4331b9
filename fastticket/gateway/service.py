"""What serves one configuration inside a worker's process: data planes on listening sockets, the
answers to what they ask, the upstreams, the access log, notices.

    serve      clients are accepted
    leaving    leaving.py: no more clients are accepted, those that are connected finish
    close      the planes end, with what is still connected

A service never changes. A reload makes another one beside it, on the same ticket cache.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from fastticket.dataplane.occupancy import Occupancy
from fastticket.gateway import descriptors
from fastticket.gateway.asks import Answers
from fastticket.gateway.assembly import add_routes, clients_max, make_exchange, make_planes
from fastticket.gateway.binding import BACKLOG
from fastticket.gateway.driving import drivers_of
from fastticket.gateway.listeners import Sockets, is_of
from fastticket.gateway.logfile import AccessLogFile
from fastticket.gateway.notices import Notices
from fastticket.gateway.pacing import Pacing
from fastticket.gateway.passes import Passes
from fastticket.gateway.settings import Config
from fastticket.gateway.sharedmemory import Slot, add
from fastticket.gateway.upstreams import UpstreamGroups
from fastticket.sessions.ticketcache import TicketCache

if TYPE_CHECKING:
    from fastticket.gateway.migration.exchange import Exchange

log = logging.getLogger("fastticket.gateway")


class Client(NamedTuple):
    """A connection that one plane has let go of, for another one to serve."""

    fd: int
    address: bytes  #: 16 bytes; none on a Unix socket
    is_believed: bool  #: it may be a trusted proxy


class Service:
    """The planes of one configuration, and what they need of the control plane."""

    def __init__(
        self,
        config: Config,
        cache: TicketCache,
        upstreams: UpstreamGroups,
        occupancy: Occupancy,
        listeners: Sockets,
        slot: Slot,
        before: Service | None = None,
    ) -> None:
        """`before`: the service whose place this one will take.

        `upstreams` and `listeners`, bound sockets for each plane, are closed with this. `slot`:
        where the planes count. FastticketError, OSError: there is no room for more planes.
        """
        self.config = config
        self.upstreams = upstreams
        self.listeners = listeners
        self.pacing: Pacing | None = None  # of closing WebSockets, once it drains
        self._slot = slot
        self._is_serving = False
        self.exchange: Exchange | None = make_exchange(config, cache, before.exchange if before else None)
        self._pages = slot.take_pages(len(listeners))
        try:
            self._make_planes(cache, occupancy)
        except BaseException:
            slot.give_back(self._pages)
            raise
        self._adopters = itertools.cycle(self.planes)
        self._ticked = asyncio.Event()

    def _make_planes(self, cache: TicketCache, occupancy: Occupancy) -> None:
        """And what belongs to them."""
        config, upstreams = self.config, self.upstreams
        self.planes = make_planes(config, cache, upstreams.upstreams, occupancy, self._pages)
        routes = add_routes(self.planes, config, upstreams.numbers)
        self._passes = Passes(config.known_tokens, config.ticket.idle_timeout_s) if config.known_tokens else None
        self._answers = [Answers(plane, cache, config, routes, self.exchange, self._passes) for plane in self.planes]
        self._drivers = drivers_of(self.planes, self._answers)
        logs = [plane.log for plane in self.planes if plane.log]
        self._access_log = AccessLogFile(logs, config.log_path("access_log")) if logs else None
        self._notices = Notices(self.planes, upstreams.names, config.ticket.cookie)

    # --- from start to end

    def serve(self) -> None:
        """Accept clients. OSError."""
        self._tell_limit()
        for plane, listeners in zip(self.planes, self.listeners, strict=True):
            for listener in listeners:
                listener.listen(BACKLOG)
                plane.listen(listener.fileno())
        self._is_serving = True
        for driver in self._drivers:
            driver.start()
        if self.exchange:
            self.exchange.start()

    def _tell_limit(self) -> None:
        allowed, wanted = clients_max(self.config)
        if allowed < wanted:
            # A default that does not fit is nobody's mistake.
            is_configured = "connections_max" in self.config.limits
            log.log(
                logging.WARNING if is_configured else logging.INFO,
                "connections_max is %d, not %d: there may be %d file descriptors (ulimit -n, LimitNOFILE), and a client needs two",
                allowed,
                wanted,
                descriptors.limit(),
            )

    async def close(self) -> None:
        """End the planes, and what was asked by them; write the last lines of the access log."""
        self.close_listeners()
        await self.upstreams.stop()
        for driver in self._drivers:
            await driver.stop()
        for answers in self._answers:
            await answers.finish()
        if self.exchange:
            await self.exchange.aclose()
        try:
            if self._access_log:
                await self._access_log.aclose()
        finally:
            self._slot.give_back(self._pages)

    def close_listeners(self) -> None:
        """Close this service's descriptors of the listening sockets; its planes have their own."""
        for listener in self._every_listener():
            listener.close()
        self.listeners = []

    def _every_listener(self) -> set[socket.socket]:
        return {each for of_plane in self.listeners for each in of_plane}

    # --- clients

    @property
    def connection_count(self) -> int:
        """Clients that are connected."""
        return sum(plane.connection_count for plane in self.planes)

    @property
    def tunnel_count(self) -> int:
        """Clients whose connection is a tunnel."""
        return sum(plane.tunnel_count for plane in self.planes)

    @property
    def is_caught_up(self) -> bool:
        """Whether the planes have done all that they were told."""
        return not self._is_serving or all(plane.is_caught_up for plane in self.planes)

    def adopt(self, client: Client) -> None:
        """Serve a client of another service. One that came by an address on which this service does
        not listen gets one more answer.
        """
        next(self._adopters).adopt(*client, is_last=not is_of(client.fd, self._every_listener()))

    def readopt(self, client: Client) -> None:
        """Take back a client that `release` has let go of."""
        next(self._adopters).adopt(*client)

    def release(self) -> Client | None:
        """Let go of a client with nothing under way; None: there is none now."""
        for plane in self.planes:
            if client := plane.release():
                return Client(*client)
        return None

    def leave(self, is_leaving: bool) -> None:
        """Close every connection after its next answer, while others are still let in; or not,
        after all.
        """
        for plane in self.planes:
            plane.leave(is_leaving)

    def stop_accepting(self) -> None:
        """Accept the clients that are in the listen queues, and no more."""
        for plane in self.planes:
            plane.stop_accepting()
        self.close_listeners()

    def drain(self) -> None:
        """Close connections as soon as nothing is under way on them."""
        for plane in self.planes:
            plane.drain()

    # --- ticks

    def tick(self) -> None:
        """What the planes need the time for, and what may wait for so long."""
        for driver in self._drivers:
            driver.tick()
        if self.pacing:
            self._part(self.pacing)
        self._notices.tell(is_accepting=bool(self.listeners))
        if self._access_log:
            self._access_log.collect()
        self._ticked.set()

    def _part(self, pacing: Pacing) -> None:
        """Tell as many clients with a WebSocket as are due. A thread tells them a moment later, and
        how many they were at the next tick.
        """
        pacing.told += sum(driver.part(0) for driver in self._drivers)
        left = pacing.due(asyncio.get_running_loop().time())
        for driver, plane in zip(self._drivers, self.planes, strict=True):
            asked = min(left, plane.tunnel_count)
            pacing.told += driver.part(asked)
            left -= asked

    async def next_tick(self) -> None:
        """Wait for it."""
        self._ticked.clear()
        await self._ticked.wait()

    def are_alive(self) -> bool:
        """Whether all planes have run since the last call."""
        return not self._is_serving or all([driver.is_alive() for driver in self._drivers])  # noqa: C419 -- asks each

    # --- the access log, and numbers

    def reopen_log(self) -> None:
        """Log rotation has moved the file away."""
        if self._access_log:
            self._access_log.reopen()

    @property
    def session_changes(self) -> Counter[str]:
        """How many sessions were changed, by what the application asked for."""
        return sum((answers.session_changes for answers in self._answers), Counter[str]())

    @property
    def token_requests(self) -> Counter[str]:
        """How many requests came with a token, by what became of them."""
        return self._passes.outcomes if self._passes else Counter()

    @property
    def upstream_counts(self) -> dict[str, Any]:
        """What the planes have counted of each upstream, as `Proxy.upstream_counts` has it, by
        name.
        """
        names = self.upstreams.names
        counted: dict[str, Any] = {}
        for plane in self.planes:
            counted = add(counted, dict(zip(names, plane.upstream_counts, strict=True)))
        return counted

    @property
    def log_lines_lost(self) -> int:
        """Lines of the access log that could not be written."""
        return self._access_log.lines_lost if self._access_log else 0
