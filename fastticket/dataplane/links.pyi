"""Connections to the servers of upstream groups."""

from collections.abc import Collection, Iterable
from typing import Any

from typing_extensions import disjoint_base

from fastticket.dataplane.answers import Answers
from fastticket.dataplane.balance import Upstreams, _Server

@disjoint_base
class Links(Answers):
    """Connections to the servers of upstream groups."""

    upstreams: Upstreams

    def set_servers(
        self,
        group: int,
        servers: Iterable[tuple[_Server, int]],
        seconds: Iterable[tuple[Collection[_Server], Collection[_Server]]] = (),
    ) -> None:
        """Replace a group's servers, as `Upstreams.set_servers` has it; connections to those that
        go end with what is under way.
        """

    def set_health(self, group: int, server: _Server, is_well: bool) -> None:
        """What a health check has found."""

    def upstream_news(self) -> list[tuple[int, str, str]]:
        """Which servers went down or came up since the last call, as `Upstreams.news` (balance)
        gives it.
        """

    def faults(self) -> tuple[list[tuple[int, str, str]], int]:
        """What servers have done since the last call that an operator should hear of: ([(group,
        server, what)], how many more).

        `what`: what their response was, for which the client got 502; empty: they set the ticket's
        cookie, which was dropped.
        """

    def upstream_states(self) -> list[dict[str, Any]]:
        """Each server, as `Upstreams.state` has it."""
