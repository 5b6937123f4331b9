"""Which values of a configuration are allowed, beyond their types: ranges, forms, and settings that
contradict each other.

`read_config` applies these rules to every configuration. What needs the machine, such as keys, log
files and a store that answers, is in `checks`.
"""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

from fastticket.dataplane.fieldnames import KNOWN, Names
from fastticket.dataplane.paths import routing_path
from fastticket.dataplane.routes import ROUTES_MAX
from fastticket.dataplane.upstreams import ALL_SERVERS_MAX, GROUP_SERVERS_MAX, GROUPS_MAX, WEIGHT_MAX
from fastticket.gateway.addresses import Address, is_loopback
from fastticket.gateway.exemption import Exemption
from fastticket.gateway.migrationrules import check_migrations
from fastticket.gateway.problems import Problems
from fastticket.gateway.routing import covers, route_of, share_no_method
from fastticket.gateway.settings import COOKIE_KEYS, LISTS, Config, RouteSettings, UpstreamSettings
from fastticket.web.cookies import faults_of

COUNT_MAX = 1_000_000
DAY_S = 86_400
LIFETIME_S_MAX = (1 << 32) - 1  # a ticket has 32 bits for each lifetime
NAME_CHARS_MAX = 64
WATCHDOG_MIN_S = 3
HEALTH_MIN_S = 0.01  # of the interval and the timeout of health checks
ROUTE_FIELDS_BYTES_MAX = 2000  # that a route adds to a request, or to a response
UPGRADES_MAX = 8
THREADS_MAX = 64
CAPACITY_MAX = 1 << 30
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
PROTOCOL = re.compile(rf"{TOKEN.pattern}(/{TOKEN.pattern})?")
HOST = re.compile(r"([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")
PATH = re.compile(r"/[!-~]{0,254}")
#: The data plane only reads these fields, and only in responses: so a route may add them.
ADDABLE = {"set-cookie", "www-authenticate"}
NEVER_FORWARDED = ("CONNECT", "TRACE")


def apply_rules(config: Config, problems: Problems) -> None:
    """Note in `problems` every rule that the configuration breaks."""
    _check_gateway(config, problems)
    _check_listeners(config, problems)
    _check_trust(config, problems)
    _check_header_names(config, problems)
    _check_ticket(config, problems)
    _check_counts(config, problems)
    for upstream in config.upstream:
        _check_upstream(config, upstream, problems)
    for route in config.routes():
        _check_route(config, route, problems)
    _check_login_url(config, problems)
    check_migrations(config, problems)
    problems.attempt(config.open_store)
    problems.attempt(lambda: config.known_tokens)


# --- [gateway]


def _check_gateway(config: Config, problems: Problems) -> None:
    gateway, require = config.gateway, problems.require
    require(1 <= gateway.threads <= THREADS_MAX, "[gateway] threads", f"must be from 1 to {THREADS_MAX}")
    require(
        not gateway.login_url or re.fullmatch(r"(/|https?://)[!-~]{0,300}", gateway.login_url),
        "[gateway] login_url",
        "must be a path or a URL of at most 300 characters",
    )
    require(
        not gateway.next_parameter
        or (TOKEN.fullmatch(gateway.next_parameter) and len(gateway.next_parameter) <= NAME_CHARS_MAX),
        "[gateway] next_parameter",
        f"must be a name of at most {NAME_CHARS_MAX} characters: letters, digits and a few signs",
    )
    require(
        all(PROTOCOL.fullmatch(name) and name.lower() not in ("h2c", "h2") for name in gateway.upgrades)
        and len(gateway.upgrades) <= UPGRADES_MAX,
        "[gateway] upgrades",
        f"must be at most {UPGRADES_MAX} names of protocols; HTTP/2 is not one of them",
    )
    for key in ("shutdown_delay_s", "drain_timeout_s", "retire_timeout_s", "watchdog_timeout_s"):
        require(getattr(gateway, key) <= DAY_S, f"[gateway] {key}", f"must be at most {DAY_S}")
    require(
        gateway.watchdog_timeout_s == 0 or gateway.watchdog_timeout_s >= WATCHDOG_MIN_S,
        "[gateway] watchdog_timeout_s",
        f"must be at least {WATCHDOG_MIN_S}: workers say that they live once a second; 0: none is killed",
    )


def _check_listeners(config: Config, problems: Problems) -> None:
    gateway, require = config.gateway, problems.require
    require(gateway.listen, "[gateway] listen", "must name at least one address")
    listen = [problems.attempt(partial(config.listen_address, text)) for text in gateway.listen]
    admin = problems.attempt(config.admin_address)
    require(
        not admin or not admin.port or admin.port not in [address.port for address in listen if address],
        "[gateway] admin",
        "must have a port of its own, or clients would come to it",
    )
    require(
        admin is None or is_loopback(admin) or gateway.admin_networks,
        "[gateway] admin",
        f"{admin} is not unix:PATH and not a loopback address: only this machine may ask there; admin_networks names "
        "others that may read its pages",
    )
    problems.attempt(config.admin_readers)
    require(
        not gateway.admin_networks or (admin and admin.host and not is_loopback(admin)),
        "[gateway] admin_networks",
        "is for an admin listener that other machines reach: a host and port that is not loopback",
    )
    problems.attempt(config.admin_access)
    _check_operators(config, admin, problems)
    require(
        not gateway.admin_owner or gateway.admin.startswith("unix:"),
        "[gateway] admin_owner",
        "is for a Unix socket, and admin is not one",
    )


def _check_operators(config: Config, admin: Address | None, problems: Problems) -> None:
    """What is for the API of the admin listener."""
    gateway, require = config.gateway, problems.require
    for key in ("admin_hosts", "admin_token_file", "admin_certificate", "admin_audit_log"):
        require(not getattr(gateway, key) or gateway.admin, f"[gateway] {key}", "is for an admin listener: set admin")
    require(
        bool(gateway.admin_certificate) == bool(gateway.admin_key),
        "[gateway] admin_certificate, admin_key",
        "belong together: the certificates as PEM, and the key of the first one",
    )
    require(
        not gateway.admin_certificate or (admin and admin.host),
        "[gateway] admin_certificate",
        "is for a host and port: nobody can read along at a Unix socket",
    )
    require(
        not gateway.admin_token_file or admin is None or is_loopback(admin) or gateway.admin_certificate,
        "[gateway] admin_token_file",
        f"a token to {admin} could be read on the way: set admin_certificate and admin_key",
    )
    require(
        all(HOST_NAME.fullmatch(host) for host in gateway.admin_hosts),
        "[gateway] admin_hosts",
        "must be names of hosts, without ports",
    )


def _check_trust(config: Config, problems: Problems) -> None:
    """Settings that believe the proxies in front."""
    gateway, require = config.gateway, problems.require
    problems.attempt(config.trusted_networks)
    require(
        gateway.trusted_proxies or not gateway.proxy_protocol,
        "[gateway] proxy_protocol",
        "is believed of trusted_proxies only, and there are none",
    )
    require(
        gateway.auth_path or not gateway.auth_front,
        "[gateway] auth_front",
        "names the proxy that asks at auth_path, and there is no auth_path",
    )
    require(
        gateway.trusted_proxies or not gateway.auth_front,
        "[gateway] auth_front",
        f"{gateway.auth_front} is believed only if it is one of trusted_proxies, and there are none",
    )


def _check_header_names(config: Config, problems: Problems) -> None:
    """The five header settings must be field names, all different, without a meaning of their own.

    Each step adds one setting to those before it, and the first step that fails names its setting.
    """
    gateway = config.gateway
    named: dict[str, Any] = {"no_use": gateway.no_use_header, "lifetime": gateway.lifetime_header}
    common: dict[str, Any] = {"dropped": config.overrides_dropped(), "tokens": config.token_fields()}
    removed = [name for name in config.removed_fields() if name.lower() != "authorization"]
    steps: tuple[tuple[str, list[str], str, dict[str, Any]], ...] = (
        ("identity_header", [], "", {}),
        ("request_id_header", [], gateway.request_id_header, {}),
        ("no_use_header", [], gateway.request_id_header, {"no_use": gateway.no_use_header}),
        ("lifetime_header", [], gateway.request_id_header, named),
        ("removed_headers", removed, gateway.request_id_header, named),
    )
    for key, names in (("identity_header", [gateway.identity_header]), ("removed_headers", removed)):
        shown = [name for name in names if re.sub("[^a-z0-9]", "-", name.lower()) in ("token-code", "token-user")]
        if shown and config.token_fields() == "shown":
            text = f"shows applications the client's {shown[0]}, which by [gateway] {key} no client may send"
            problems.add("[tokens] forward", f"{text}: leave forward out")
            return
    problems.require(
        not config.ticket.forward_ticket or len(removed) == len(config.removed_fields()),
        "[gateway] removed_headers",
        "has Authorization, in which [ticket] forward_ticket shows tickets to applications: leave one of them out",
    )
    for key, more, request_id, others in steps:
        try:
            Names((gateway.identity_header, *more), request_id, **common, **others)
        except ValueError as error:
            problems.add(f"[gateway] {key}", str(error))
            return


# --- [ticket], [cache], and how many upstreams and routes there are


def _check_ticket(config: Config, problems: Problems) -> None:
    ticket, require = config.ticket, problems.require
    for option, reason in faults_of(**config.cookie_options()):
        problems.add(f"[ticket] {COOKIE_KEYS[option]}", reason)
    require(
        1 <= ticket.remember_lifetime_s <= LIFETIME_S_MAX,
        "[ticket] remember_lifetime_s",
        f"must be from 1 to {LIFETIME_S_MAX}: it is the cookie's Max-Age, too",
    )
    require(
        all(ticket.accept_audiences),
        "[ticket] accept_audiences",
        "an audience must not be empty; leave it out, or name the one whose tickets are to be good here, too",
    )
    require(
        ticket.audience not in ticket.accept_audiences,
        "[ticket] accept_audiences",
        f"{ticket.audience!r} is the audience of this gateway, whose tickets are good anyway; leave it out",
    )
    require(ticket.sessions_max <= COUNT_MAX, "[ticket] sessions_max", f"must be at most {COUNT_MAX}; 0 is any number")
    require(
        1 <= config.cache.capacity <= CAPACITY_MAX, "[cache] capacity", f"must be from 1 to {CAPACITY_MAX} sessions"
    )


def _check_counts(config: Config, problems: Problems) -> None:
    require = problems.require
    is_whole = {name: name not in problems.incomplete for name in LISTS}
    require(config.upstream or not is_whole["upstream"], "[[upstream]]", "there must be one")
    require(config.route or not is_whole["route"], "[[route]]", 'there must be one; path = "/" catches everything')
    require(len(config.upstream) <= GROUPS_MAX, "[[upstream]]", f"at most {GROUPS_MAX}")
    require(len(config.routes()) <= ROUTES_MAX, "[[route]]", f"at most {ROUTES_MAX}, auth_path among them")
    servers = sum(len(upstream.servers) for upstream in config.upstream)
    require(
        servers <= ALL_SERVERS_MAX, "[[upstream]]", f"at most {ALL_SERVERS_MAX} servers in all of them, not {servers}"
    )


# --- [[upstream]]


def _check_upstream(config: Config, upstream: UpstreamSettings, problems: Problems) -> None:
    require = problems.require
    where = f"[[upstream]] {upstream.name}"
    names = [other.name for other in config.upstream]
    require(names.count(upstream.name) == 1, where, "the name is there twice")
    require(1 <= len(upstream.name) <= NAME_CHARS_MAX, where, f"a name has from 1 to {NAME_CHARS_MAX} characters")
    require(upstream.servers, f"{where}: servers", "must name at least one address")
    require(
        len(upstream.servers) <= GROUP_SERVERS_MAX, f"{where}: servers", f"must not be more than {GROUP_SERVERS_MAX}"
    )
    for key in ("connections_max", "pending_max"):
        require(getattr(upstream, key) <= COUNT_MAX, f"{where}: {key}", f"must be at most {COUNT_MAX}")
    for key in ("slow_return_s", "resolve_interval_s", "health_interval_s", "health_timeout_s"):
        value = getattr(upstream, key)
        require(math.isfinite(value) and value <= DAY_S, f"{where}: {key}", f"must be at most {DAY_S}")
    require(len(set(upstream.servers)) == len(upstream.servers), f"{where}: servers", "an address is there twice")
    for text in upstream.servers:
        problems.attempt(partial(config.server_address, text, upstream))
    require(
        len(upstream.weights) in (0, len(upstream.servers)) and all(1 <= w <= WEIGHT_MAX for w in upstream.weights),
        f"{where}: weights",
        f"must be a number from 1 to {WEIGHT_MAX} for each of servers",
    )
    require(upstream.retry_percent <= 100, f"{where}: retry_percent", "must be from 0 to 100")
    require(upstream.resolve_interval_s >= 1, f"{where}: resolve_interval_s", "must be at least 1")
    _check_health(upstream, where, problems)


def _check_health(upstream: UpstreamSettings, where: str, problems: Problems) -> None:
    require = problems.require
    require(
        not upstream.health_path or PATH.fullmatch(upstream.health_path),
        f"{where}: health_path",
        "must begin with / and have at most 255 plain characters",
    )
    require(
        not upstream.health_host or (HOST.fullmatch(upstream.health_host) and len(upstream.health_host) <= 255),
        f"{where}: health_host",
        "must be a name or an address, with or without a port",
    )
    require(
        min(upstream.health_interval_s, upstream.health_timeout_s) >= HEALTH_MIN_S,
        f"{where}: health_interval_s, health_timeout_s",
        f"must be at least {HEALTH_MIN_S}",
    )
    require(
        1 <= upstream.health_failures <= COUNT_MAX and 1 <= upstream.health_successes <= COUNT_MAX,
        f"{where}: health_failures, health_successes",
        f"must be from 1 to {COUNT_MAX}",
    )


# --- [[route]]


def _check_route(config: Config, route: RouteSettings, problems: Problems) -> None:
    require = problems.require
    is_of_file = route in config.route
    where = f"[[route]] {route.host}{route.path}" if is_of_file else f"[gateway] auth_path {route.path}"
    _check_path(route, where, problems)
    _check_reachable(config, route, where, problems)
    for method in route.methods:
        require(
            TOKEN.fullmatch(method)
            and method == method.upper()
            and len(method) <= 32
            and method not in NEVER_FORWARDED,
            f"{where} methods",
            f"{method!r} is not a method in capitals, or one that is never forwarded",
        )
    require(
        not route.host or re.fullmatch(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]", route.host),
        f"{where} host",
        "must be a name in lower case without a port, or *.name",
    )
    require(
        not route.upstream
        or "upstream" in problems.incomplete
        or route.upstream in [upstream.name for upstream in config.upstream],
        f"{where} upstream",
        f"there is no upstream {route.upstream!r}",
    )
    _check_exemption(route, where, problems)
    _check_added_fields(config, route, where, problems)


def _check_path(route: RouteSettings, where: str, problems: Problems) -> None:
    require = problems.require
    require(PATH.fullmatch(route.path), where, "path must begin with / and have at most 255 plain characters")
    require(
        not set(route.path) & set("%?#;\\"),
        where,
        "path is compared after decoding: write it without % ? # ; and \\",
    )
    require(
        "*" not in route.path,
        where,
        "there are no wildcards in a path, so no request would fall under it: it covers what is below it, write "
        f"{route.path.partition('*')[0].rstrip('/') or '/'}",
    )
    require(
        set(route.path) & set("%?#;\\") or not route.path.startswith("/") or routing_path(route.path.encode()),
        where,
        "no request falls under it as it is: write it without empty and dot segments",
    )


def _check_reachable(config: Config, route: RouteSettings, where: str, problems: Problems) -> None:
    """Requests must be able to match this route, and no other one may match the same requests."""
    routes = config.routes()
    same = [other for other in routes if (other.host, other.path) == (route.host, route.path)]
    problems.require(sum(not share_no_method(route, other) for other in same) == 1, where, "the path is there twice")
    problems.require(
        not (route.first and route.host), f"{where} first", "is for routes without a host: they go before every host's"
    )
    hiding = [
        other.path
        for other in ([] if route.first else routes)
        if other.first and not other.methods and covers(other.path, route.path) and (other not in same or route.methods)
    ]
    problems.require(not hiding, where, f"no request falls under it: {''.join(hiding[:1])} goes first, and covers it")


def _check_exemption(route: RouteSettings, where: str, problems: Problems) -> None:
    problems.require(
        not route.exempt or route.auth == "required",
        f"{where} exempt",
        'is for auth = "required": elsewhere no ticket is needed anyway',
    )
    try:
        Exemption(route.exempt)
    except ValueError as error:
        problems.add(
            f"{where} exempt", f"not a regular expression of RE2 (no look-around, no back-references): {error}"
        )


def _check_added_fields(config: Config, route: RouteSettings, where: str, problems: Problems) -> None:
    require, gateway = problems.require, config.gateway
    ours = {name.lower() for name in (gateway.identity_header, gateway.no_use_header, gateway.lifetime_header)}
    for key, fields in (("request_headers", route.request_headers), ("response_headers", route.response_headers)):
        for name, value in fields.items():
            require(
                TOKEN.fullmatch(name) and name.lower() not in {*KNOWN, *ours} - ADDABLE,
                f"{where} {key}",
                f"{name!r} is not a field name, or one that has a meaning of its own",
            )
            require(
                re.fullmatch(r"[ -~\x80-\xff]{0,1000}", value) and value == value.strip(),
                f"{where} {key} {name}",
                "must be at most 1000 printable characters of Latin-1",
            )
        size = sum(len(name) + len(value) + 4 for name, value in fields.items())
        require(
            size <= ROUTE_FIELDS_BYTES_MAX,
            f"{where} {key}",
            f"must not have more than {ROUTE_FIELDS_BYTES_MAX} bytes",
        )


# --- the login page


def _check_login_url(config: Config, problems: Problems) -> None:
    """The login page must not need a ticket: browsers without one are redirected to it."""
    if not config.gateway.login_url.startswith("/") or config.gateway.login_url.startswith("//"):
        return  # the page is on another host
    path = re.split("[?#]", config.gateway.login_url)[0]
    for host in dict.fromkeys(["", *(route.host for route in config.route)]):
        route = route_of(config, host, path)
        problems.require(
            route is None or (routing_path(path.encode()) and (route.auth != "required" or _may_pass(route, path))),
            "[gateway] login_url",
            f"{path} needs a ticket itself{f' on {host}' if host else ''}, by [[route]] {route and route.host + route.path}: "
            'browsers would be sent there for ever; give it a route with auth = "optional" and login = true',
        )


def _may_pass(route: RouteSettings, path: str) -> bool:
    """Whether the route exempts the path. A faulty expression is reported elsewhere."""
    try:
        return bool(route.exempt) and Exemption(route.exempt).covers(path.encode())
    except ValueError:
        return True
