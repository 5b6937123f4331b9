"""Makes a ticket cache and data planes of a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from fastticket.core.check import Checker
from fastticket.core.ticket import Keyring
from fastticket.dataplane.accesslog import AccessLog
from fastticket.dataplane.clients import Networks
from fastticket.dataplane.forwarding import Forwarding
from fastticket.dataplane.occupancy import Occupancy
from fastticket.dataplane.proxy import LIMITS, Proxy
from fastticket.dataplane.routes import Routes, in_order
from fastticket.dataplane.upstreams import Upstreams
from fastticket.errors import ConfigError
from fastticket.gateway import descriptors, tracing
from fastticket.gateway.settings import Config, RouteSettings
from fastticket.gateway.sharedmemory import Page
from fastticket.sessions.settings import ChangeableNames
from fastticket.sessions.ticketcache import TicketCache, checker_of
from fastticket.stores.contract import Store
from fastticket.stores.usage import MeasuredStore

if TYPE_CHECKING:
    from fastticket.gateway.migration.exchange import Exchange

#: By this in the body of a 401, Linkis' web pages know that they have to show the login page.
LINKIS_LOGIN = ', "status": -1'
#: Packages of the extra `migration`.
OF_MIGRATIONS = ("cryptography", "msgpack")


def make_cache(config: Config, keys: Keyring) -> TicketCache:
    """The ticket cache of a configuration, not opened yet. ConfigError."""
    return TicketCache(
        cast(Store, MeasuredStore(config.open_store())),
        keys,
        capacity=config.cache.capacity,
        flush_interval_ms=config.store.flush_interval_ms,
        lease_ms=config.store.lease_ms,
        touch_resolution_ms=config.store.touch_resolution_ms,
        **changeable_settings(config),
    )


def changeable_settings(config: Config) -> ChangeableNames:
    """What a ticket cache takes over while it serves; with the rest it is made
    (`changes.FIXED`).
    """
    return {
        "idle_timeout_s": config.ticket.idle_timeout_s,
        "absolute_lifetime_s": config.ticket.absolute_lifetime_s,
        "remember_lifetime_s": config.ticket.remember_lifetime_s,
        "sessions_max": config.ticket.sessions_max,
        "sessions_max_policy": config.ticket.sessions_max_policy,
        "outage_policy": config.store.outage_policy,
        "outage_grace_s": config.store.outage_grace_s,
        "restore_from_cache": config.store.restore_from_cache,
    }


def make_exchange(config: Config, cache: TicketCache, before: Exchange | None) -> Exchange | None:
    """What exchanges other systems' cookies, not started; None: nothing does. `before`: of the
    configuration that this one replaces. ConfigError.
    """
    if not config.migration:
        return None
    if missing := [name for name in OF_MIGRATIONS if find_spec(name) is None]:
        raise ConfigError(f'[[migration]] needs {" and ".join(missing)}: pip install "fastticket[migration]"')
    from fastticket.gateway.migration import making

    return making.make_exchange(config, cache, before)


def make_planes(
    config: Config, cache: TicketCache, upstreams: Upstreams, occupancy: Occupancy, pages: Sequence[Page]
) -> list[Proxy]:
    """The data planes of a configuration, without listeners and routes: the first one for the event
    loop, the others for threads. `pages`: the memory in which each counts.
    """
    checker, routes = checker_of(cache), Routes()
    if len(pages) > 1:
        checker.near.share()
    return [
        _make_plane(config, checker, upstreams, routes, occupancy, page, in_thread=number > 0)
        for number, page in enumerate(pages)
    ]


def _make_plane(
    config: Config,
    checker: Checker,
    upstreams: Upstreams,
    routes: Routes,
    occupancy: Occupancy,
    page: Page,
    *,
    in_thread: bool,
) -> Proxy:
    gateway = config.gateway
    forwarding = Forwarding(
        checker,
        cookie=config.ticket.cookie,
        old_cookies=config.old_cookies(),
        minted_cookie=config.minted_cookie(),
        login_sign=LINKIS_LOGIN if config.linkis() else "",
        identity_field=gateway.identity_header,
        escapes_identity=gateway.identity_encoding == "percent",
        request_id_field=gateway.request_id_header,
        login_url=gateway.login_url,
        next_parameter=gateway.next_parameter,
        no_use_field=gateway.no_use_header,
        lifetime_field=gateway.lifetime_header,
        dropped_fields=config.overrides_dropped(),
        removed_fields=config.removed_fields(),
        forwards_ticket=config.ticket.forward_ticket,
        trusted=Networks(config.trusted_networks()),
        writes_forwarded=gateway.forwarded,
        upgrades=gateway.upgrades,
        tokens=config.token_fields(),
    )
    return Proxy(
        checker,
        upstreams,
        routes,
        forwarding,
        occupancy=occupancy,
        in_thread=in_thread,
        limits=config.limits,
        timeouts_s=config.timeouts,
        front=gateway.auth_front,
        login_details=config.ticket.login_details,
        expects_proxy_header=gateway.proxy_protocol,
        tells_traces=tracing.are_wanted(),
        log=AccessLog(gateway.access_log_format == "json") if gateway.access_log else None,
        counters=page.counters,
    )


def add_routes(planes: Sequence[Proxy], config: Config, groups: Mapping[str, int]) -> list[RouteSettings]:
    """Add the routes of a configuration to its data planes; `groups`: the number of each upstream.
    Returns the routes in the order of the numbers that the data planes give them.
    """
    routes = in_order(config.routes())
    for route in routes:
        (waits,) = {plane.add_waits(route.timeouts) for plane in planes}  # all alike
        planes[0].routes.add(
            route.path,
            route.auth,
            None if route not in config.route else groups[route.upstream or config.upstream[0].name],
            host=route.host,
            touches=route.touch,
            logs_in=route.login,
            is_strong=route.consistency == "strong",
            has_exemption=bool(route.exempt),
            wants_old_ticket=route in config.route and bool(config.upstream_of(route).linkis_ticket),
            compares_old=bool(config.migration),
            waits=waits,
            request_fields=route.request_headers.items(),
            response_fields=route.response_headers.items(),
            methods=route.methods,
            first=route.first,
        )
    return routes


def allow(occupancy: Occupancy, config: Config) -> None:
    """Let the process have as many connections as a configuration says."""
    per_client = config.limits.get("connections_per_client_max", LIMITS["connections_per_client_max"][0])
    occupancy.allow(clients_max(config)[0], per_client_max=per_client, descriptors_max=_shares(config).connections)


def clients_max(config: Config) -> tuple[int, int]:
    """How many clients there may be at a time: as far as file descriptors go, and as configured."""
    wanted = config.limits.get("connections_max", LIMITS["connections_max"][0])
    return min(wanted, _shares(config).clients), wanted


def _shares(config: Config) -> descriptors.Shares:
    return descriptors.share(
        descriptors.limit(), sum(len(upstream.servers) for upstream in config.upstream), config.gateway.threads
    )
