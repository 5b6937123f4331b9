"""The data plane: an HTTP/1.1 reverse proxy that checks tickets, on an epoll of its own."""

from collections.abc import Collection, Mapping
from typing import Any, Self, final

from typing_extensions import Buffer

from fastticket.core.check import Checker
from fastticket.dataplane.accesslog import AccessLog
from fastticket.dataplane.connections import ROUTE_TIMEOUTS as ROUTE_TIMEOUTS
from fastticket.dataplane.connections import TIMEOUTS_S as TIMEOUTS_S
from fastticket.dataplane.dialogue import Dialogue
from fastticket.dataplane.forwarding import Forwarding
from fastticket.dataplane.occupancy import Occupancy
from fastticket.dataplane.routes import Routes
from fastticket.dataplane.upstreams import Upstreams

#: Name of each limit: (default, least, most). 0 is "no limit" for those whose least is 0.
LIMITS: Mapping[str, tuple[int, int, int]]

@final
class Proxy(Dialogue):
    """A plane. The first one of a process is driven by the event loop, others run in threads."""

    def __new__(
        cls,
        checker: Checker,
        upstreams: Upstreams,
        routes: Routes,
        forwarding: Forwarding,
        *,
        occupancy: Occupancy | None = None,
        in_thread: bool = False,
        limits: Mapping[str, int] | None = None,
        timeouts_s: Mapping[str, float] | None = None,
        front: str = "",
        login_details: Collection[str] = (),
        expects_proxy_header: bool = False,
        tells_traces: bool = False,
        log: AccessLog | None = None,
        counters: Buffer | None = None,
    ) -> Self:
        """Routes and groups may be added after it is made, before the first turn.

        Planes share `checker`, `upstreams`, `routes` and `occupancy`; each has a `forwarding`, a
        `log` and `counters` of its own. Each must have made the same sets of timeouts
        (`add_waits`), since routes name them by number.

        `occupancy`: None for one of its own, with `limits` for connections_max and
        connections_per_client_max; else these two stand there. `in_thread`: it is driven by `run`.
        `front`: of `endpoint.FRONTS`, whose description of a request is judged at the endpoint.
        `login_details`: what a login records, out of "address" and "user_agent".
        `expects_proxy_header`: connections begin with one, if they come from a trusted proxy.
        `tells_traces`: questions have the traceparent of their request.
        `counters`: `counters.COUNTERS_BYTES` that are written in place, for others to read.
        ValueError: a limit out of its bounds, or more than `upstreams.PLANES_MAX` planes.
        """

    def listen(self, fd: int) -> None:
        """Accept connections from a listening, non-blocking socket, through a descriptor of its
        own; the caller keeps and closes this one. OSError: there is no descriptor.
        """

    def leave(self, is_leaving: bool = True) -> None:
        """Every connection closes after its next answer. Others are still let in. False: it does
        not, after all.
        """

    def stop_accepting(self) -> None:
        """Accept who has connected so far, and close the listeners. Every connection closes after
        its next answer.
        """

    def drain(self) -> None:
        """Close idle connections, and those that become idle; those also that were let go of, and
        that nobody has taken.
        """

    def part(self, most: int) -> int:
        """Tell clients with a WebSocket that the gateway goes away (1001), so many at most; how
        many were told since the last call. A client in the middle of a frame is told later.
        """

    def release(self) -> tuple[int, bytes, bool] | None:
        """Let go of the client that has waited longest between two requests: its descriptor, which
        is the caller's to close, its address (16 bytes, or none on a Unix socket), and whether it
        was a trusted proxy. None: there is none, or the plane's thread has not let go of one yet
        (`asks_fileno` says when).
        """

    def adopt(self, fd: int, address: bytes, is_believed: bool, is_last: bool = False) -> None:
        """Serve a client that another data plane has released. `is_believed`: it may be a trusted
        proxy, if it is one of ours. `is_last`: its connection closes after one answer.
        """

    def stop(self) -> None:
        """Close every connection. `run` returns, if it runs. What it is told afterwards is
        dropped.
        """

    @property
    def connection_count(self) -> int:
        """Client connections that are open."""

    @property
    def shortages(self) -> dict[str, int]:
        """How often clients had to wait, by why: `full` (connections_max), `out_of_descriptors`."""

    @property
    def stats(self) -> dict[str, Any]:
        """Counters since the start, as `counters.read_counters` has them."""
