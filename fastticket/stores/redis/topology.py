"""Which server serves which slot: a single server, Sentinel's master, or a Cluster's primaries.

    URL ──► parse_url ──► Address ──► make_topology ──► Single | Sentinel | Cluster
    server_of(slot) ──► Server ──► SendQueue ──► Link

`confirm_s`: how often a topology confirms which server is the primary. When another server takes
one's place, `on_change` is called before any of its replies is handed out: its data may be older.
"""

from __future__ import annotations

from collections.abc import Callable

from fastticket.stores.redis.address import Address, place_of
from fastticket.stores.redis.cluster import Cluster
from fastticket.stores.redis.sentinel import Sentinel
from fastticket.stores.redis.servers import Server
from fastticket.stores.usage import Traffic

CONFIRM_S = 1.0


class Single:
    """A topology of one server, which nothing can replace."""

    confirm_s = CONFIRM_S  #: unused: there is nothing to confirm
    doubt_s = 0.0

    def __init__(self, address: Address, on_change: Callable[[Server], None], traffic: Traffic) -> None:
        place = place_of(address, *(address.hosts[0] if address.hosts else ()))
        self._server = Server(place.name, place, address.timeout_s, on_change, traffic=traffic)
        self.servers = {place.name: self._server}

    async def server_of(self, slot: int) -> Server:
        """The server."""
        return self._server

    async def moved(self) -> None:
        """Nothing to look up."""

    async def aclose(self) -> None:
        """Close its connections. Idempotent."""
        await self._server.aclose()


Topology = Single | Sentinel | Cluster


def make_topology(
    address: Address, on_change: Callable[[Server], None], confirm_s: float = CONFIRM_S, traffic: Traffic | None = None
) -> Topology:
    """The topology that an address describes. `traffic`: where its connections count."""
    traffic = traffic or Traffic()
    if address.kind == "sentinel":
        return Sentinel(address, on_change, confirm_s, traffic)
    if address.kind == "cluster":
        return Cluster(address, on_change, confirm_s, traffic)
    return Single(address, on_change, traffic)
