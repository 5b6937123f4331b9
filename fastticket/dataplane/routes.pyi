"""Which rule a request falls under: by its host, then by the longest path, then by its method."""

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
    """A table for `Proxy`. Routes are added in the order in which they are tried, that of
    `in_order`.
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
        waits: int = 0,
        request_fields: Iterable[tuple[str, str]] = (),
        response_fields: Iterable[tuple[str, str]] = (),
        methods: Collection[str] = (),
        first: bool = False,
    ) -> None:
        """Requests whose normal path is `path` or below it, for one host, `*.domain`, or all, by
        these methods, or all.

        `first`: it goes before the routes of every host, and is for every host itself.

        `auth`: none, optional, required. `waits`: a number from `Proxy.add_waits`. Fields are
        added, in place of those that come by that name. Without a group no upstream is asked: 204
        with the identity field for a good ticket (`auth` is required), else 401 or 503. ValueError:
        too many or too long ones, or out of order.
        """

def with_head(methods: Collection[str]) -> list[str]:
    """What a route for these methods covers: HEAD, too, where GET is one of them."""

def in_order(routes: Iterable[_T]) -> list[_T]:
    """Sorted as `Routes.add` wants them."""
