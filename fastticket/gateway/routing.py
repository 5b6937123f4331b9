"""Which route a request takes, as the data plane finds it: for checks of a configuration."""

from __future__ import annotations

from fastticket.dataplane.paths import routing_path
from fastticket.dataplane.routes import in_order, with_head
from fastticket.gateway.settings import Config, RouteSettings


def route_of(config: Config, host: str, path: str, method: str = "GET") -> RouteSettings | None:
    """The route of a request; None: there is none, which is 404.

    A route's host matches by its name, as `*.name`, or as "", which is any host.
    """
    normal = (routing_path(path.encode()) or path.encode()).decode()
    for route in in_order(config.routes()):
        is_of_host = route.host in ("", host) or (route.host.startswith("*") and host.endswith(route.host[1:]))
        if route.methods and method not in with_head(route.methods):
            continue
        if is_of_host and covers(route.path, normal) and len(normal) >= len(route.path):
            return route
    return None


def covers(path: str, other: str) -> bool:
    """Whether `other` is the path `path` or below it."""
    return (other + "/").startswith(path.rstrip("/") + "/")


def share_no_method(route: RouteSettings, other: RouteSettings) -> bool:
    """Whether no request can match both of two routes of the same host and path by its method. A
    route without methods is for all that the other one leaves.
    """
    mine, theirs = set(with_head(route.methods)), set(with_head(other.methods))
    return bool(mine or theirs) and not mine & theirs
