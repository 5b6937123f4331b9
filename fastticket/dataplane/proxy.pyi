"""The data plane: an HTTP/1.1 reverse proxy that checks tickets, on an epoll of its own."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Self, final

from typing_extensions import Buffer

from fastticket.core.check import Checker
from fastticket.dataplane.accesslog import AccessLog
from fastticket.dataplane.asks import Ask
from fastticket.dataplane.balance import Upstreams, _Server
from fastticket.dataplane.clients import Networks
from fastticket.dataplane.routes import Routes
from fastticket.errors import Verdict

#: Name of each limit: (default, least, most). 0 is "no limit" for those whose least is 0.
LIMITS: Mapping[str, tuple[int, int, int]]

#: Name of each timeout: (number, default in s).
TIMEOUTS_S: Mapping[str, tuple[int, float]]

#: The timeouts that a route may have of its own.
ROUTE_TIMEOUTS: tuple[str, ...]

@final
class Proxy:
    """One per event loop. Register `fileno()` for reading and call `turn` whenever it is readable,
    `tick` some times a second.
    """

    checker: Checker
    upstreams: Upstreams
    routes: Routes
    log: AccessLog | None

    def __new__(
        cls,
        checker: Checker,
        upstreams: Upstreams,
        routes: Routes,
        *,
        limits: Mapping[str, int] | None = None,
        timeouts_s: Mapping[str, float] | None = None,
        cookie: str = "ticket",
        identity_field: str = "X-Forwarded-User",
        escapes_identity: bool = False,
        request_id_field: str = "",
        login_url: str = "",
        next_parameter: str = "",
        front: str = "",
        no_use_field: str = "",
        lifetime_field: str = "",
        dropped_fields: Iterable[str] = (),
        forwards_ticket: bool = False,
        login_details: Collection[str] = (),
        trusted: Networks | None = None,
        expects_proxy_header: bool = False,
        writes_forwarded: bool = False,
        upgrades: Iterable[str] = ("websocket",),
        log: AccessLog | None = None,
        counters: Buffer | None = None,
        descriptors_max: int = 0,
    ) -> Self:
        """Routes and groups may be added after it is made, before the first turn.

        `escapes_identity`: the identity field in percent-encoding; else its bytes are UTF-8.
        `trusted`: whose X-Forwarded-*, request id and PROXY header (`expects_proxy_header`) are
        believed. `request_id_field`: the field that gets a request id, "" for none.
        `next_parameter`: of `login_url`, for where the client wanted to go. `front`: of `endpoint.FRONTS`,
        whose description of a request is judged at the endpoint. `no_use_field`, `lifetime_field`:
        by which a client says that a request is no use of its session, and asks how long that still
        lives. `dropped_fields`: never forwarded. `forwards_ticket`: whether upstreams see it.
        `login_details`: what a login records, out of "address" and "user_agent". `upgrades`:
        protocols that clients may change to. `counters`: `counters.COUNTERS_BYTES` that are written in place,
        for others to read. `descriptors_max`: connections of both sides together, beyond which none
        is kept that idles; 0: any number. ValueError: a limit out of its bounds, a field name that
        has a meaning of its own.
        """

    def fileno(self) -> int:
        """The epoll descriptor."""

    def listen(self, fd: int) -> None:
        """Accept connections from a listening, non-blocking socket; the caller keeps and closes it.
        OSError.
        """

    def add_waits(self, timeouts_s: Mapping[str, float]) -> int:
        """A set of timeouts for routes: those of ROUTE_TIMEOUTS that differ from the general ones.
        Its number, for `Routes.add`.
        """

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
        """Who is down or up since the last call, as `Upstreams.news` has it."""

    def faults(self) -> tuple[list[tuple[int, str, str]], int]:
        """What servers have done since the last call that an operator should hear of: ([(group,
        server, what)], how many more).

        `what`: what their response was, for which the client got 502; empty: they set the ticket's
        cookie, which was dropped.
        """

    def upstream_states(self) -> list[dict[str, Any]]:
        """Each server, as `Upstreams.state` has it."""

    def turn(self) -> bool:
        """Serve every ready socket. True: there is more to do at once."""

    def tick(self) -> None:
        """End what took too long."""

    def leave(self, is_leaving: bool = True) -> None:
        """Every connection closes after its next answer. Others are still let in. False: it does
        not, after all.
        """

    def stop_accepting(self) -> None:
        """Let go of the listeners, which may then be closed. Every connection closes after its next
        answer.
        """

    def drain(self) -> None:
        """Close idle connections."""

    def release(self) -> tuple[int, bytes, bool] | None:
        """Let go of the client that has waited longest between two requests: his descriptor, which
        is the caller's to close, his address (16 bytes, or none on a Unix socket), and whether he
        was a trusted proxy. None: there is none.
        """

    def adopt(self, fd: int, address: bytes, is_believed: bool, is_last: bool = False) -> None:
        """Serve a client whom another data plane has released. `is_believed`: he may be a trusted
        proxy, if he is one of ours. `is_last`: his connection closes after one answer.
        """

    def part(self, most: int) -> int:
        """Tell clients with a WebSocket that the gateway goes away (1001), so many at most; how
        many. Who is being sent a frame is not told yet.
        """

    def asks(self) -> list[Ask]:
        """What the control plane is asked since the last call."""

    def admit(self, handle: int) -> None:
        """The ticket is alive: forward the request. Nothing happens if the client has gone, as in
        all that take a handle.
        """

    def refuse(self, handle: int, verdict: Verdict) -> None:
        """Answer 401, or 503 for STORE_UNAVAILABLE; where a ticket is optional, forward without
        identity.
        """

    def doubt(self, handle: int, fields: bytes, tickets: bytes) -> None:
        """Refuse a request with these tickets (spaces between), or pass it on without identity.

        The answer gets the fields, 3,000 bytes at most.
        """

    def exempt(self, handle: int, is_exempt: bool) -> None:
        """Pass the request on without identity, or refuse it as it would have been."""

    def vouch(self, handle: int, is_alive: bool) -> None:
        """Let a stream or tunnel go on, or end it at once."""

    def suits(self, handle: int, ticket: str) -> bool:
        """Whether the holder of that ticket will come back to the server whose response waits now."""

    def readmit(self, handle: int, ticket: str) -> None:
        """The session of a response that waits has another ticket now (AskKind.ROTATE): a stream or
        tunnel that begins goes on with it.
        """

    def relay(self, handle: int, fields: bytes) -> None:
        """Let a response that waited go on, with these field lines (each ended by CRLF, 8,192 bytes
        at most) added.
        """

    def fail(self, handle: int, status: int, slug: str) -> None:
        """Answer with an error in place of a response that waited."""

    @property
    def connection_count(self) -> int:
        """Client connections that are open."""

    @property
    def tunnel_count(self) -> int:
        """Clients with a tunnel now."""

    @property
    def shortages(self) -> dict[str, int]:
        """How often clients had to wait, by why: `full` (connections_max), `out_of_descriptors`."""

    @property
    def unannounced(self) -> tuple[int, str, str]:
        """How many connections were closed for want of a PROXY header that counts; the last one's
        address ("" of a Unix socket); why
        """

    @property
    def stats(self) -> dict[str, Any]:
        """Counters since the start, as `counters.read_counters` has them."""
