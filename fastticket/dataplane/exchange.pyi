"""A request and its response: heads, bodies, tunnels."""

from typing_extensions import disjoint_base

from fastticket.dataplane.links import Links

@disjoint_base
class Exchange(Links):
    """Requests and their responses."""

    @property
    def tunnel_count(self) -> int:
        """Clients with a tunnel now."""
