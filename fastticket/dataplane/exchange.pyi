"""A request and its response: heads, bodies, tunnels."""

from typing_extensions import disjoint_base

from fastticket.dataplane.links import Links

@disjoint_base
class Exchange(Links):
    """Requests and their responses."""

    @property
    def tunnel_count(self) -> int:
        """Clients with a tunnel now."""

    def part(self, most: int) -> int:
        """Tell clients with a WebSocket that the gateway goes away (1001), so many at most; how
        many. A client in the middle of a frame is told later.
        """
