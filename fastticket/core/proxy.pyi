"""The data plane: an HTTP/1.1 reverse proxy that checks tickets, on an epoll of its own."""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import final

from fastticket.core.check import Checker
from fastticket.errors import Verdict

ASK_AUTHENTICATE: int
ASK_LOGIN: int
ASK_LOGOUT: int
ASK_LOGOUT_EVERYWHERE: int

#: Name of each timeout: (number, default in s).
TIMEOUTS_S: Mapping[str, tuple[int, float]]

@final
class Proxy:
    """One per event loop. Register `fileno()` for reading and call `turn` whenever it is readable, `tick` some times a second."""

    checker: Checker

    def __init__(
        self,
        checker: Checker,
        *,
        connections_max: int = 10000,
        cookie: str = "ticket",
        identity_field: str = "X-Forwarded-User",
        login_url: str = "",
        keeps_host: bool = False,
        timeouts_s: Mapping[str, float] | None = None,
        request_rate_min: int = 500,
        response_rate_min: int = 500,
    ) -> None:
        """Rates are bytes/s that a body must keep over its window. ValueError: a field name that has a meaning of its own."""

    def fileno(self) -> int:
        """The epoll descriptor."""

    def listen(self, fd: int) -> None:
        """Accept connections from a listening, non-blocking socket; the caller keeps and closes it. OSError."""

    def add_group(self, servers: Sequence[tuple[str, int] | str]) -> int:
        """Upstream servers that share the requests: (host, port), numeric, or a Unix socket's path. The group's number."""

    def add_route(
        self, path: str, auth: str, group: int | None, *, touches: bool = True, logs_in: bool = False
    ) -> None:
        """Requests whose normal path is `path` or below it. `auth`: none, optional, required. Longer paths come first.

        Without a group no upstream is asked: 204 with the identity field for a good ticket (`auth` is required), else 401 or 503.
        """

    def trust(self, networks: Iterable[IPv4Network | IPv6Network | str]) -> None:
        """Clients whose X-Forwarded-* and Forwarded fields are believed; "unix" for those on Unix sockets."""

    def turn(self) -> bool:
        """Serve every ready socket. True: there is more to do at once."""

    def tick(self) -> None:
        """End what took too long."""

    def stop_accepting(self) -> None:
        """Let go of the listeners, which may then be closed. Every connection closes after its next answer."""

    def drain(self) -> None:
        """Close idle connections."""

    def asks(self) -> list[tuple[int, int, str, bool | bytes, str]]:
        """What the control plane is asked since the last call: (kind, handle, ticket, value, host).

        `host`: the request's Host, for login and logout with `keeps_host`; empty if it is longer than 100 bytes.

        ASK_AUTHENTICATE: `value` says whether the request counts as a use; answer with `admit` or `refuse`.
        ASK_LOGIN (`value`: the principal), ASK_LOGOUT, ASK_LOGOUT_EVERYWHERE: answer with `relay` or `fail`.
        """

    def admit(self, handle: int) -> None:
        """The ticket is alive: forward the request. Nothing happens if the client has gone, as in all that take a handle."""

    def refuse(self, handle: int, verdict: Verdict) -> None:
        """Answer 401, or 503 for STORE_UNAVAILABLE; where a ticket is optional, forward without identity."""

    def relay(self, handle: int, fields: bytes) -> None:
        """Let a response that waited go on, with these field lines (each ended by CRLF, 8,192 bytes at most) added."""

    def fail(self, handle: int, status: int, slug: str) -> None:
        """Answer with an error in place of a response that waited."""

    @property
    def connection_count(self) -> int:
        """Client connections that are open."""

    @property
    def stats(self) -> dict[str, int | dict[str, int]]:
        """Counters since the start."""
