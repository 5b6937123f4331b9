"""Which server a request goes to: groups, balancing, weights, who is down, how often one may try
again.
"""

from collections.abc import Collection, Iterable
from typing import Any, final

#: What `add_group` takes for `balance`, with its number.
BALANCES: dict[str, int]

#: A server: (host, port), numeric, or a Unix socket's path.
_Server = tuple[str, int] | str

WEIGHT_MAX: int
GROUPS_MAX: int
GROUP_SERVERS_MAX: int

#: Of all groups together.
ALL_SERVERS_MAX: int

@final
class Upstreams:
    """Groups of servers. Times are monotonic, ms."""

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
        that one server has under way, 0 for no limit; `pending_max`: requests that wait for one.
        `retry_percent`: retries for 100 requests. ValueError: more than 64 groups.
        """

    def set_servers(
        self,
        number: int,
        servers: Iterable[tuple[_Server, int]],
        seconds: Iterable[tuple[Collection[_Server], Collection[_Server]]] = (),
    ) -> None:
        """All servers of a group, each with its weight, 1 to 1000. ValueError, and nothing has
        changed.

        `seconds`: of each name that has addresses of two families, (firsts, seconds), all of them
        servers; a second gets requests while no first one of its name is up.
        """

    def set_health(self, number: int, address: _Server, is_well: bool, now_ms: int) -> None:
        """What a health check has found."""

    def state(self, now_ms: int) -> list[dict[str, Any]]:
        """Each server: group, server, state ("up", "down"), active and idle connections, queued
        requests of its group.

        Not seconds without a connection while a first one is up.
        """

    def name_of(self, slot: int) -> tuple[int, str]:
        """(group, server) of a slot of the table, as `news` names them."""

    def news(self) -> list[tuple[int, str, str]]:
        """Who has failed, or taken a connection again, since the last call: (group, server,
        reason); no reason: it is up.
        """

def server_text(server: _Server) -> str:
    """As a configuration has it."""

def picks(upstreams: Upstreams, group: int, keys: Iterable[int], now_ms: int = 1) -> list[str | None]:
    """Which servers a row of requests goes to, by their keys (0: none); None for one that has to
    wait. Nothing is connected.
    """

def report(upstreams: Upstreams, group: int, server: _Server, event: str, now_ms: int = 1) -> None:
    """Let a server have `failed`, `faulted`, `connected`, `opened` a connection or `closed` one."""
