"""Groups of servers, what is known of each, and how often a request may be retried."""

from collections.abc import Collection, Iterable
from typing import Any, final

#: A server: (host, port), numeric, or a Unix socket's path.
_Server = tuple[str, int] | str

WEIGHT_MAX: int
GROUPS_MAX: int
GROUP_SERVERS_MAX: int

#: Servers of all groups together.
ALL_SERVERS_MAX: int

#: Planes that may share one `Upstreams`.
PLANES_MAX: int

@final
class Upstreams:
    """Groups of servers, for all planes of a configuration. The control plane calls these methods.
    Times are monotonic, ms; None is now.
    """

    group_count: int

    def add_group(
        self,
        balance: str = "round_robin",
        *,
        connections_max: int = 0,
        pending_max: int = 1000,
        slow_return_ms: int = 10_000,
        retry_percent: int = 20,
    ) -> int:
        """A group without servers; its number.

        `balance`: round_robin, least_connections, ip_hash, ticket_hash. `connections_max`: requests
        under way at one server, 0 for no limit. `pending_max`: requests that wait for a server.
        `slow_return_ms`: how long the share of a server that comes back grows. `retry_percent`:
        retries for 100 requests. ValueError: more than 64 groups.
        """

    def set_servers(
        self,
        number: int,
        servers: Iterable[tuple[_Server, int]],
        seconds: Iterable[tuple[Collection[_Server], Collection[_Server]]] = (),
    ) -> None:
        """Replace the servers of a group, each with its weight, 1 to 1000; connections to those
        that go end with what is under way. ValueError: nothing was changed.

        `seconds`: for each name with addresses of two families, (firsts, seconds), all of them
        servers of the group. A second one gets requests while no first one of its name is up.
        """

    def set_health(self, number: int, address: _Server, is_well: bool, now_ms: int | None = None) -> None:
        """Note what a health check found."""

    def unreached(self, number: int, within_ms: int, now_ms: int | None = None) -> list[_Server]:
        """The servers of a group that failed last, and whose pause is over in `within_ms`."""

    def knocked(self, number: int, address: _Server, reason: int, now_ms: int | None = None) -> None:
        """Note whether a server took a connection: an errno, or 0. Nothing happens if the group has
        no such server now.
        """

    def state(self, now_ms: int | None = None) -> list[dict[str, Any]]:
        """A dictionary for each server: `group`, `server`, `state` ("up", "down"), `why` it is
        down ("" for its health check), `active` and `idle` connections, and `queued` requests of
        its group. A second address that is not in use has none.
        """

    def under_way(self, number: int, address: _Server) -> int:
        """How many requests are under way at an address of a group, also if it has left it.
        ValueError: there is no such group, or it is no address.
        """

    def name_of(self, slot: int) -> tuple[int, str]:
        """The (group, server) of a slot of the table, as `news` has them."""

    def news(self) -> list[tuple[int, str, str]]:
        """Servers that failed or took a connection again since the last call: (group, server,
        reason). An empty reason: it is up.
        """

    def faults(self) -> tuple[list[tuple[int, str, str]], int]:
        """What servers have done since the last call that an operator should hear of: ([(group,
        server, what)], how many more).

        `what`: what their response was, for which the client got 502; empty: they set the ticket's
        cookie, which was dropped.
        """

    def suits(self, number: int, ticket: str, now_ms: int | None = None) -> bool:
        """Whether the holder of that ticket will come back to this server, given by its number (of
        an `Ask`).
        """

def server_text(server: _Server) -> str:
    """A server as a configuration has it."""

def picks(upstreams: Upstreams, group: int, keys: Iterable[int], now_ms: int = 1) -> list[str | None]:
    """For tests: the servers of requests with these keys (0: none), one after the other; None for
    a request that waits. Nothing is connected.
    """

def report(upstreams: Upstreams, group: int, server: _Server, event: str, now_ms: int = 1) -> None:
    """For tests: report to the balancer that a server has `failed`, `faulted`, `connected`,
    `opened` a connection or `closed` one.
    """
