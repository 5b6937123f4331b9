"""Which route a request takes: by its host, then by the longest path, then by its method."""

from collections.abc import Collection, Iterable
from typing import Protocol, TypeVar, final

AUTH: dict[str, int]
ROUTES_MAX: int

class _Placed(Protocol):
    @property
    def host(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def methods(self) -> Collection[str]: ...
    @property
    def first(self) -> bool: ...

_T = TypeVar("_T", bound=_Placed)

@final
class Routes:
    """The route table of a `Proxy`. Routes are added in the order in which they are tried, which is
    that of `in_order`.
    """

    count: int

    def add(
        self,
        path: str,
        auth: str = "required",
        group: int | None = 0,
        *,
        host: str = "",
        touches: bool = True,
        logs_in: bool = False,
        is_strong: bool = False,
        has_exemption: bool = False,
        wants_old_ticket: bool = False,
        compares_old: bool = False,
        waits: int = 0,
        request_fields: Iterable[tuple[str, str]] = (),
        response_fields: Iterable[tuple[str, str]] = (),
        methods: Collection[str] = (),
        first: bool = False,
    ) -> None:
        """Add a route for requests whose normal path is `path` or below it: of one host,
        `*.domain`, or every host (empty), by these methods, or all (empty).

        `first`: it is tried before the routes of any host, and is for every host. `auth`: none,
        optional, required. `group`: the upstream; None: the gateway answers itself, 204 with the
        identity field for a good ticket, else 401 or 503, and `auth` is required.
        `wants_old_ticket`: the upstream gets a ticket of another system. `compares_old`: another
        system's cookie beside a ticket is looked at (of a Forwarding with `old_cookies`). `waits`:
        a number from `Proxy.add_waits`. `request_fields` and `response_fields` replace fields of
        the same names. ValueError: there are too many routes, one is too long, or out of order.
        """

def with_head(methods: Collection[str]) -> list[str]:
    """The methods that a route for these covers: HEAD, too, if GET is one of them."""

def in_order(routes: Iterable[_T]) -> list[_T]:
    """Routes in the order in which `Routes.add` takes them."""
