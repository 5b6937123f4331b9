"""The configuration file (TOML) as typed values.

Each table of the file is a dataclass here; its fields are the keys, with their types and defaults.
What is wrong is one line that names the file, the key and the reason. All paths in a file are
relative to that file.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import json
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from fastticket.core.ticket import Keyring
from fastticket.dataplane.balance import ALL_SERVERS_MAX, GROUP_SERVERS_MAX, GROUPS_MAX, WEIGHT_MAX
from fastticket.dataplane.fieldnames import KNOWN, Names
from fastticket.dataplane.paths import routing_path
from fastticket.dataplane.proxy import LIMITS, ROUTE_TIMEOUTS, TIMEOUTS_S
from fastticket.dataplane.routes import ROUTES_MAX, in_order, with_head
from fastticket.errors import ConfigError
from fastticket.gateway.addresses import Access, Address, is_loopback, parse_access, parse_address, parse_server
from fastticket.gateway.exemption import Exemption
from fastticket.keyfile import read_keys
from fastticket.stores import read_url, without_password
from fastticket.stores.contract import Store
from fastticket.tomlfile import read_toml
from fastticket.web.cookies import TicketCookie, faults_of

COUNT_MAX = 1_000_000
DAY_S = 86_400
SECONDS_MAX = (1 << 32) - 1  # that a ticket has room for
NAME_CHARS_MAX = 64
WATCHDOG_MIN_S = 3
MINIMUM_S = 0.01  # of what is done again and again
HEADERS_BYTES_MAX = 2000  # that a route adds
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
LOOKED_AT = {"set-cookie", "www-authenticate"}  # in responses, and for no other meaning: a route may add them
PROTOCOL = re.compile(rf"{TOKEN.pattern}(/{TOKEN.pattern})?")
HOST = re.compile(r"([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
#: By these some applications take another method than the request's, and it is the request's that
#: was judged.
METHOD_OVERRIDES = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
NEVER_FORWARDED = ("CONNECT", "TRACE")

#: The store's URL, where the file says none: with a password in it, it is in no list of processes
#: and no file.
STORE_VARIABLE = "FASTTICKET_STORE"

#: `[ticket]` keys by the options of a TicketCookie.
COOKIE_KEYS = {
    "name": "cookie",
    "is_secure": "cookie_secure",
    "domain_level": "cookie_domain_level",
    "path": "cookie_path",
    "same_site": "cookie_same_site",
    "is_partitioned": "cookie_partitioned",
}

COMMAND_LINE = "command line"  #: the source of a configuration that options make
OPTIONS = {
    "[gateway] listen": "--listen",
    "[gateway] workers": "--workers",
    "[[upstream]] app: servers": "--upstream",
    "[store] url": "--store",
    "[ticket] keys": "--keys",
}

_T = TypeVar("_T")


@dataclass(frozen=True)
class Gateway:
    """`[gateway]`"""

    listen: list[str] = field(default_factory=lambda: ["127.0.0.1:8080"])
    workers: int = 1
    login_url: str = ""
    next_parameter: str = "next"  #: of `login_url`, with where the client wanted to go; "": none
    auth_path: str = ""
    auth_front: Literal["", "nginx", "haproxy", "traefik", "caddy", "envoy"] = ""  #: who asks there
    trusted_proxies: list[str] = field(default_factory=list)
    proxy_protocol: bool = False
    forwarded: bool = False
    identity_header: str = "X-Forwarded-User"
    identity_encoding: Literal["utf-8", "percent"] = "utf-8"
    request_id_header: str = ""
    no_use_header: str = ""
    lifetime_header: str = ""
    upgrades: list[str] = field(default_factory=lambda: ["websocket"])
    access_log: str = ""
    access_log_format: Literal["text", "json"] = "text"
    error_log: str = ""
    error_log_format: Literal["text", "json"] = "text"
    drain_timeout_s: float = 10.0
    retire_timeout_s: float = 60.0
    shutdown_delay_s: float = 0.0
    watchdog_timeout_s: float = 10.0
    admin: str = ""
    readiness: list[Literal["workers", "store", "store-any", "upstreams", "upstreams-any"]] = field(
        default_factory=lambda: ["workers", "store", "upstreams"]
    )
    admin_mode: str = "0600"  #: of the file, if that is a Unix socket
    admin_owner: str = ""  #: the same: user, user:group or :group; default: whoever runs the gateway
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True)
class Ticket:
    """`[ticket]`"""

    keys: str = ""
    cookie: str = "ticket"
    cookie_secure: bool | Literal["auto"] = "auto"  #: "auto": unless the request came by http to a loopback host
    forward_ticket: bool = False  #: whether applications see it
    cookie_domain_level: int = 0  #: labels of the request's Host that make the cookie's Domain; 0: the host alone
    cookie_path: str = "/"
    cookie_same_site: Literal["Lax", "Strict", "None"] = "Lax"
    cookie_partitioned: bool = False
    audience: str = "default"
    idle_timeout_s: int = 7200
    absolute_lifetime_s: int = 86400
    remember_lifetime_s: int = 2_592_000
    sessions_max: int = 0
    sessions_max_policy: Literal["evict-oldest", "refuse"] = "evict-oldest"
    login_details: list[Literal["address", "user_agent"]] = field(default_factory=list)


@dataclass(frozen=True)
class StoreSettings:
    """`[store]`"""

    url: str = "sqlite:///fastticket.db"
    flush_interval_ms: int = 500
    lease_ms: int = 2000
    touch_resolution_ms: int = 0
    outage_policy: Literal["serve-cached", "deny"] = "serve-cached"
    outage_grace_s: int = 300


@dataclass(frozen=True)
class Cache:
    """`[cache]`"""

    capacity: int = 100_000


@dataclass(frozen=True)
class Upstream:
    """`[[upstream]]`"""

    name: str
    servers: list[str]
    weights: list[int] = field(default_factory=list)  #: of the servers, in their order; default: all alike
    balance: Literal["round_robin", "least_connections", "ip_hash", "ticket_hash"] = "round_robin"
    connections_max: int = 0
    pending_max: int = 1000
    retry_percent: int = 20
    slow_return_s: float = 10.0
    resolve_interval_s: float = 30.0
    health_path: str = ""
    health_host: str = ""  #: default: the server's own address
    health_interval_s: float = 5.0
    health_timeout_s: float = 2.0
    health_failures: int = 2
    health_successes: int = 2


@dataclass(frozen=True)
class Route:
    """`[[route]]`"""

    path: str
    host: str = ""
    first: bool = False  #: before the routes of any host
    methods: list[str] = field(default_factory=list)  #: default: all
    auth: Literal["required", "optional", "none"] = "required"
    exempt: str = ""
    touch: bool = True
    login: bool = False
    upstream: str = ""  #: default: the first one
    consistency: Literal["near", "strong"] = "near"
    request_headers: dict[str, str] = field(default_factory=dict)
    response_headers: dict[str, str] = field(default_factory=dict)
    timeouts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """The whole file, and where it was."""

    source: str
    base: Path
    gateway: Gateway
    ticket: Ticket
    store: StoreSettings
    cache: Cache
    limits: Mapping[str, int]
    timeouts: Mapping[str, float]
    upstream: list[Upstream]
    route: list[Route]

    def routes(self) -> list[Route]:
        """Those of the file, and the endpoint that answers for a ticket: first, or a host with
        routes of its own would hide it.
        """
        endpoint = [Route(path=self.gateway.auth_path, first=True)] if self.gateway.auth_path else []
        return [*self.route, *endpoint]

    def overrides_dropped(self) -> tuple[str, ...]:
        """Fields that no application gets to see, because the method of a request has decided about
        it.
        """
        return METHOD_OVERRIDES if any(route.methods for route in self.route) else ()

    def listen_addresses(self) -> list[Address]:
        """Where to listen."""
        return [self._address(text, "[gateway] listen") for text in self.gateway.listen]

    def admin_address(self) -> Address | None:
        """Where operators ask; None: nowhere."""
        return self._address(self.gateway.admin, "[gateway] admin") if self.gateway.admin else None

    def admin_access(self) -> Access:
        """Who may come there, on a Unix socket."""
        try:
            return parse_access(self.gateway.admin_mode, self.gateway.admin_owner)
        except ValueError as error:
            raise self._error("[gateway] admin_mode, admin_owner", str(error)) from None

    def log_path(self, name: Literal["access_log", "error_log"]) -> Path | None:
        """The file of a log; None: a standard stream."""
        text = self.gateway.access_log if name == "access_log" else self.gateway.error_log
        return None if text in ("", "-") else self.base / text

    def server_addresses(self, upstream: Upstream) -> list[Address]:
        """The servers of an upstream."""
        return [self.server_address(text, upstream) for text in upstream.servers]

    def server_address(self, text: str, upstream: Upstream) -> Address:
        """One of them."""
        return self._address(text, f"[[upstream]] {upstream.name}: servers", parse_server)

    def trusted_networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network | str]:
        """Networks, or the word "unix"."""
        try:
            return [text if text == "unix" else ipaddress.ip_network(text) for text in self.gateway.trusted_proxies]
        except ValueError as error:
            raise self._error("[gateway] trusted_proxies", str(error)) from None

    def key_pairs(self) -> list[tuple[int, bytes]] | None:
        """The keys of the key file, oldest first; None: they come from the environment."""
        return read_keys(self.base / self.ticket.keys) if self.ticket.keys else None

    def keyring(self) -> Keyring:
        """From the key file, or from the environment's FASTTICKET_KEYS."""
        return self.keyring_of(self.key_pairs())

    def keyring_of(self, pairs: Sequence[tuple[int, bytes]] | None) -> Keyring:
        """By `key_pairs`; None: from the environment. ConfigError."""
        if pairs is not None:
            return Keyring(pairs, self.ticket.audience)
        if "FASTTICKET_KEYS" not in os.environ:
            raise self._error(
                "[ticket] keys", "not given, and FASTTICKET_KEYS is not set; make a file with `fastticket keygen`"
            )
        return Keyring.from_env(audience=self.ticket.audience)

    def ticket_cookie(self) -> TicketCookie:
        """What `[ticket] cookie_*` say of it."""
        return TicketCookie(**_cookie_options(self.ticket))

    def open_store(self, *, creates: bool = True) -> Store:
        """The store that the URL names, not opened yet; `creates` as for `fastticket.open_store`."""
        return self._store_maker(creates)

    @cached_property
    def _store_maker(self) -> Callable[[bool], Store]:
        """Read once, with the configuration: whoever goes by it later needs no password file."""
        try:
            return read_url(self.store.url, base=self.base)
        except ConfigError as error:
            raise self._error("[store] url", str(error).removeprefix("store url: ")) from None

    def _address(self, text: str, where: str, parse: Callable[[str, Path], Address] = parse_address) -> Address:
        try:
            return parse(text, self.base)
        except ValueError as error:
            raise self._error(where, str(error)) from None

    def _error(self, where: str, reason: str) -> ConfigError:
        return ConfigError(f"{place_of(self.source, where)}: {reason}")


def place_of(source: str, where: str) -> str:
    """Where something stands: a file and its key, or the option that says it."""
    return OPTIONS[where] if source == COMMAND_LINE and where in OPTIONS else f"{source}: {where}"


class FaultyConfig(ConfigError):  # noqa: N818 -- it is one
    """`config` is what is left of it without what is wrong, to look for more; nobody can serve by
    it.
    """

    def __init__(self, config: Config, problems: Iterable[str]) -> None:
        super().__init__(*problems)
        self.config = config


class Problems:
    """All that is found wrong with a configuration. `incomplete`: the lists of which entries are
    left out, because they are wrong.
    """

    def __init__(self, source: str) -> None:
        self.found: list[str] = []
        self.incomplete: set[str] = set()
        self._source = source

    def add(self, where: str, reason: str) -> None:
        """Once, however often it is found."""
        self._add(f"{place_of(self._source, where)}: {reason}")

    def require(self, holds: object, where: str, reason: str) -> None:
        """Else it is a problem."""
        if not holds:
            self.add(where, reason)

    def attempt(self, read: Callable[[], _T]) -> _T | None:
        """What it returns, or the problem that it raises."""
        try:
            return read()
        except ConfigError as error:
            for problem in error.problems:
                self._add(problem)
            return None

    def refuse_unknown(self, table: Iterable[str], known: Iterable[str], where: str) -> bool:
        """Whether there was none."""
        names = list(known)
        unknown = [key for key in table if key not in names]
        for key in unknown:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            self.add(f"{where} {key}".strip(), f"no such key; {hint}")
        return not unknown

    def _add(self, problem: str) -> None:
        if problem not in self.found:
            self.found.append(problem)


SECTIONS: dict[str, type] = {"gateway": Gateway, "ticket": Ticket, "store": StoreSettings, "cache": Cache}
LISTS: dict[str, type] = {"upstream": Upstream, "route": Route}


def load_config(path: Path) -> Config:
    """Read and check a file. ConfigError."""
    table = read_toml(path)
    store = table.setdefault("store", {})
    if isinstance(store, dict) and (url := os.environ.get(STORE_VARIABLE)):
        store.setdefault("url", url)
    return read_config(table, str(path), path.parent)


def read_config(table: Mapping[str, Any], source: str, base: Path) -> Config:
    """Check a table of the form of the file. FaultyConfig, which has all that is wrong with it."""
    problems = Problems(source)
    problems.refuse_unknown(table, [*SECTIONS, *LISTS, "limits", "timeouts"], "")
    values: dict[str, Any] = {
        name: _read(kind, table.get(name, {}), problems, f"[{name}]") or kind() for name, kind in SECTIONS.items()
    }
    for name, kind in LISTS.items():
        values[name] = _read_list(kind, table.get(name, []), problems, name)
    values["limits"] = _read_limits(table.get("limits", {}), problems)
    values["timeouts"] = _read_timeouts(table.get("timeouts", {}), TIMEOUTS_S, problems, "[timeouts]")
    values["route"] = [_with_timeouts(route, problems) for route in values["route"]]
    config = Config(source=source, base=base, **values)
    _check(config, problems)
    if problems.found:
        raise FaultyConfig(config, problems.found)
    return config


def simple_config(listen: list[str], upstream: list[str], store: str, keys: str, workers: int = 1) -> Config:
    """What `serve` makes of its flags: `/login` logs in, everything else needs a ticket."""
    table = {
        "gateway": {"listen": listen, "login_url": "/login", "workers": workers},
        "ticket": {"keys": keys},
        "store": {"url": store},
        "upstream": [{"name": "app", "servers": upstream}],
        "route": [{"path": "/login", "auth": "none", "login": True}, {"path": "/", "auth": "required"}],
    }
    return read_config(table, COMMAND_LINE, Path())


def _read(kind: type[_T], table: Any, problems: Problems, where: str) -> _T | None:
    """What is wrong is left out, so that more can be found; None: then not enough is left."""
    if not isinstance(table, dict):
        problems.add(where, "must be a table")
        return None
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    are_known = problems.refuse_unknown(table, fields, where)
    wrong = {name: _mismatch(value, hints[name]) for name, value in table.items() if name in fields}
    for name, problem in wrong.items():
        problems.require(not problem, f"{where} {name}", problem)
    good = {name: table[name] for name, problem in wrong.items() if not problem}
    needed = [
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in needed if name not in table]
    if missing and are_known:  # else it may be there under another name
        problems.add(where, f"{missing[0]} is missing")
    return kind(**good) if all(name in good for name in needed) else None


def _read_list(kind: type[_T], entries: Any, problems: Problems, name: str) -> list[_T]:
    if not isinstance(entries, list):
        problems.add(name, f"write it as [[{name}]], once for each")
        problems.incomplete.add(name)
        return []
    found = [_read(kind, entry, problems, f"[[{name}]] number {n}") for n, entry in enumerate(entries, 1)]
    if None in found:
        problems.incomplete.add(name)
    return [entry for entry in found if entry is not None]


def _read_limits(table: Any, problems: Problems) -> dict[str, int]:
    """`[limits]`: the names of `fastticket.dataplane.proxy.LIMITS`."""
    if not isinstance(table, dict):
        problems.add("[limits]", "must be a table")
        return {}
    problems.refuse_unknown(table, LIMITS, "[limits]")
    good = {}
    for name, value in table.items():
        _, least, most = LIMITS.get(name, (0, 0, 0))
        if type(value) is int and least <= value <= most:
            good[name] = value
        elif name in LIMITS:
            problems.add(f"[limits] {name}", f"must be from {least} to {most}, not {value!r}")
    return good


def _read_timeouts(table: Any, names: Iterable[str], problems: Problems, where: str) -> dict[str, float]:
    """`[timeouts]`: these names, with `_s`."""
    if not isinstance(table, dict):
        problems.add(where, "must be a table")
        return {}
    known = [f"{name}_s" for name in names]
    problems.refuse_unknown(table, known, where)
    good = {}
    for name, value in table.items():
        if not isinstance(value, bool) and isinstance(value, int | float) and 0 < value <= DAY_S:
            good[name.removesuffix("_s")] = float(value)
        elif name in known:
            problems.add(f"{where} {name}", f"must be a number of seconds, more than 0 and at most {DAY_S}")
    return good


def _with_timeouts(route: Route, problems: Problems) -> Route:
    where = f"[[route]] {route.host}{route.path} timeouts"
    return dataclasses.replace(route, timeouts=_read_timeouts(route.timeouts, ROUTE_TIMEOUTS, problems, where))


def _mismatch(value: Any, wanted: Any) -> str:
    """What is wrong with a value, or nothing."""
    if typing.get_origin(wanted) is Literal:
        choices = typing.get_args(wanted)
        return "" if value in choices else f"must be one of {', '.join(choices)}, not {value!r}"
    if typing.get_origin(wanted) is typing.Union:
        problems = [_mismatch(value, each) for each in typing.get_args(wanted)]
        kinds = [problem.removeprefix("must be ").partition(", not ")[0] for problem in problems]
        return "" if "" in problems else f"must be {' or '.join(kinds)}, not {value!r}"
    if isinstance(wanted, types.GenericAlias):
        return _mismatch_inside(value, typing.get_origin(wanted), typing.get_args(wanted)[-1])
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        return "" if value >= 0 else f"must not be negative, it is {value}"
    if wanted is int and isinstance(value, int) and not isinstance(value, bool):
        return "" if value >= 0 else f"must not be negative, it is {value}"
    names = {str: "a string", int: "a whole number", bool: "true or false", float: "a number"}
    return "" if type(value) is wanted else f"must be {names[wanted]}, not {value!r}"


def _mismatch_inside(value: Any, container: type, item: type) -> str:
    """The same for lists, and for tables by name."""
    items = value.values() if isinstance(value, dict) else value
    if isinstance(value, container) and not any(_mismatch(each, item) for each in items):
        return ""
    names = {str: "strings", int: "whole numbers", float: "numbers"}
    wanted = names.get(item) or " and ".join(typing.get_args(item))
    return f"must be a {'table' if container is dict else 'list'} of {wanted}, not {value!r}"


def _check(config: Config, problems: Problems) -> None:
    """What the types do not say."""
    gateway, ticket, require = config.gateway, config.ticket, problems.require

    require(gateway.listen, "[gateway] listen", "must name at least one address")
    require(1 <= gateway.workers <= 256, "[gateway] workers", "must be from 1 to 256")
    require(
        not gateway.login_url or re.fullmatch(r"(/|https?://)[!-~]{0,300}", gateway.login_url),
        "[gateway] login_url",
        "must be a path or a URL of at most 300 characters",
    )
    for option, reason in faults_of(**_cookie_options(ticket)):
        problems.add(f"[ticket] {COOKIE_KEYS[option]}", reason)
    require(
        1 <= ticket.remember_lifetime_s <= SECONDS_MAX,
        "[ticket] remember_lifetime_s",
        f"must be from 1 to {SECONDS_MAX}: it is the cookie's Max-Age, too",
    )
    require(ticket.sessions_max <= COUNT_MAX, "[ticket] sessions_max", f"must be at most {COUNT_MAX}; 0 is any number")
    require(1 <= config.cache.capacity <= 1 << 30, "[cache] capacity", "must be from 1 to 1073741824 sessions")
    is_whole = {name: name not in problems.incomplete for name in LISTS}
    require(config.upstream or not is_whole["upstream"], "[[upstream]]", "there must be one")
    require(config.route or not is_whole["route"], "[[route]]", 'there must be one; path = "/" catches everything')
    require(gateway.shutdown_delay_s <= DAY_S, "[gateway] shutdown_delay_s", f"must be at most {DAY_S}")
    require(
        gateway.watchdog_timeout_s == 0 or gateway.watchdog_timeout_s >= WATCHDOG_MIN_S,
        "[gateway] watchdog_timeout_s",
        f"must be at least {WATCHDOG_MIN_S}: workers say that they live once a second; 0: none is killed",
    )
    listen = [problems.attempt(partial(config._address, text, "[gateway] listen")) for text in gateway.listen]
    admin = problems.attempt(config.admin_address)
    require(
        not admin or not admin.port or admin.port not in [address.port for address in listen if address],
        "[gateway] admin",
        "must have a port of its own, or clients would come to it",
    )
    require(len(config.upstream) <= GROUPS_MAX, "[[upstream]]", f"at most {GROUPS_MAX}")
    require(len(config.routes()) <= ROUTES_MAX, "[[route]]", f"at most {ROUTES_MAX}, auth_path among them")
    servers = sum(len(upstream.servers) for upstream in config.upstream)
    require(
        servers <= ALL_SERVERS_MAX, "[[upstream]]", f"at most {ALL_SERVERS_MAX} servers in all of them, not {servers}"
    )
    for upstream in config.upstream:
        _check_upstream(config, upstream, require)
    for route in config.routes():
        _check_route(config, route, problems)
    _check_login_url(config, problems)
    require(
        all(PROTOCOL.fullmatch(name) and name.lower() not in ("h2c", "h2") for name in gateway.upgrades)
        and len(gateway.upgrades) <= 8,
        "[gateway] upgrades",
        "must be at most 8 names of protocols; HTTP/2 is not one of them",
    )
    require(
        gateway.trusted_proxies or not gateway.proxy_protocol,
        "[gateway] proxy_protocol",
        "is believed of trusted_proxies only, and there are none",
    )
    _check_header_names(config, problems)
    require(
        not gateway.next_parameter
        or (TOKEN.fullmatch(gateway.next_parameter) and len(gateway.next_parameter) <= NAME_CHARS_MAX),
        "[gateway] next_parameter",
        f"must be a name of at most {NAME_CHARS_MAX} characters: letters, digits and a few signs",
    )
    require(
        gateway.auth_path or not gateway.auth_front,
        "[gateway] auth_front",
        "says who asks at auth_path, and there is none",
    )
    require(
        gateway.trusted_proxies or not gateway.auth_front,
        "[gateway] auth_front",
        f"{gateway.auth_front} is believed only if it is one of trusted_proxies, and there are none",
    )
    require(
        admin is None or is_loopback(admin),
        "[gateway] admin",
        f"{admin} is not unix:PATH and not a loopback address: nobody else may ask there",
    )
    problems.attempt(config.admin_access)
    require(
        not gateway.admin_owner or gateway.admin.startswith("unix:"),
        "[gateway] admin_owner",
        "is for a Unix socket: admin is none",
    )
    problems.attempt(config.trusted_networks)
    for upstream in config.upstream:
        for text in upstream.servers:
            problems.attempt(partial(config.server_address, text, upstream))
    problems.attempt(config.open_store)


def _check_header_names(config: Config, problems: Problems) -> None:
    """They must be names, and each of them its own."""
    gateway = config.gateway
    named: dict[str, str] = {"no_use": gateway.no_use_header, "lifetime": gateway.lifetime_header}
    places: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("identity_header", "", {}),
        ("request_id_header", gateway.request_id_header, {}),
        ("no_use_header", gateway.request_id_header, {"no_use": gateway.no_use_header}),
        ("lifetime_header", gateway.request_id_header, named),
    )
    for key, request_id, others in places:
        try:
            Names((gateway.identity_header,), request_id, dropped=config.overrides_dropped(), **others)
        except ValueError as error:
            problems.add(f"[gateway] {key}", str(error))
            return  # the following have this one in them


def _cookie_options(ticket: Ticket) -> dict[str, Any]:
    """Of a TicketCookie."""
    options = {option: getattr(ticket, key) for option, key in COOKIE_KEYS.items()}
    return options | {"is_secure": None if ticket.cookie_secure == "auto" else ticket.cookie_secure}


def _check_upstream(config: Config, upstream: Upstream, require: Callable[[object, str, str], None]) -> None:
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
    require(
        len(upstream.weights) in (0, len(upstream.servers)) and all(1 <= w <= WEIGHT_MAX for w in upstream.weights),
        f"{where}: weights",
        f"must be a number from 1 to {WEIGHT_MAX} for each of servers",
    )
    require(upstream.retry_percent <= 100, f"{where}: retry_percent", "must be from 0 to 100")
    require(upstream.resolve_interval_s >= 1, f"{where}: resolve_interval_s", "must be at least 1")
    require(
        not upstream.health_path or re.fullmatch(r"/[!-~]{0,254}", upstream.health_path),
        f"{where}: health_path",
        "must begin with / and have at most 255 plain characters",
    )
    require(
        not upstream.health_host or (HOST.fullmatch(upstream.health_host) and len(upstream.health_host) <= 255),
        f"{where}: health_host",
        "must be a name or an address, with or without a port",
    )
    require(
        min(upstream.health_interval_s, upstream.health_timeout_s) >= MINIMUM_S,
        f"{where}: health_interval_s, health_timeout_s",
        f"must be at least {MINIMUM_S}",
    )
    require(
        upstream.health_failures >= 1 and upstream.health_successes >= 1,
        f"{where}: health_failures, health_successes",
        "must be at least 1",
    )


def _check_route(config: Config, route: Route, problems: Problems) -> None:
    require = problems.require
    gateway = config.gateway
    ours = {name.lower() for name in (gateway.identity_header, gateway.no_use_header, gateway.lifetime_header)}
    in_file = route in config.route
    where = f"[[route]] {route.host}{route.path}" if in_file else f"[gateway] auth_path {route.path}"
    require(
        re.fullmatch(r"/[!-~]{0,254}", route.path),
        where,
        "path must begin with / and have at most 255 plain characters",
    )
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
    _check_place(config, route, where, require)
    for method in route.methods:
        require(
            TOKEN.fullmatch(method)
            and method == method.upper()
            and len(method) <= 32
            and method not in NEVER_FORWARDED,
            f"{where} methods",
            f"{method!r} is no method in capitals, or one that nobody may send",
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
    require(
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
    for key, headers in (("request_headers", route.request_headers), ("response_headers", route.response_headers)):
        for name, value in headers.items():
            require(
                TOKEN.fullmatch(name) and name.lower() not in {*KNOWN, *ours} - LOOKED_AT,
                f"{where} {key}",
                f"{name!r} is not a field name, or one that has a meaning of its own",
            )
            require(
                re.fullmatch(r"[ -~\x80-\xff]{0,1000}", value) and value == value.strip(),
                f"{where} {key} {name}",
                "must be at most 1000 printable characters of Latin-1",
            )
        size = sum(len(name) + len(value) + 4 for name, value in headers.items())
        require(size <= HEADERS_BYTES_MAX, f"{where} {key}", f"must not have more than {HEADERS_BYTES_MAX} bytes")


def _check_place(config: Config, route: Route, where: str, require: Callable[[object, str, str], None]) -> None:
    """Requests must fall under it, and under it alone."""
    routes = config.routes()
    same = [other for other in routes if (other.host, other.path) == (route.host, route.path)]
    require(sum(not _are_apart(route, other) for other in same) == 1, where, "the path is there twice")
    require(
        not (route.first and route.host), f"{where} first", "is for routes without a host: they go before every host's"
    )
    hiding = [
        other.path
        for other in ([] if route.first else routes)
        if other.first
        and not other.methods
        and _covers(other.path, route.path)
        and (other not in same or route.methods)
    ]
    require(not hiding, where, f"no request falls under it: {''.join(hiding[:1])} goes first, and covers it")


def _are_apart(route: Route, other: Route) -> bool:
    """Of one host and path: for other methods; one of them may be for all, and goes last."""
    mine, theirs = set(with_head(route.methods)), set(with_head(other.methods))
    return bool(mine or theirs) and not mine & theirs


def _covers(path: str, other: str) -> bool:
    """Whether a path is that one or above it."""
    return (other + "/").startswith(path.rstrip("/") + "/")


def _check_login_url(config: Config, problems: Problems) -> None:
    """Whoever is sent there must get something else than being sent there."""
    if not config.gateway.login_url.startswith("/") or config.gateway.login_url.startswith("//"):
        return  # somebody else's
    path = re.split("[?#]", config.gateway.login_url)[0]
    for host in dict.fromkeys(["", *(route.host for route in config.route)]):
        route = route_of(config, host, path)
        problems.require(
            route is None or (routing_path(path.encode()) and (route.auth != "required" or _may_pass(route, path))),
            "[gateway] login_url",
            f"{path} needs a ticket itself{f' on {host}' if host else ''}, by [[route]] {route and route.host + route.path}: "
            'browsers would be sent there for ever; give it a route with auth = "none" and login = true',
        )


def route_of(config: Config, host: str, path: str, method: str = "GET") -> Route | None:
    """The route of a path on a host, by its name, as `*.name`, or on any other host (""); as the
    data plane finds it.
    """
    normal = (routing_path(path.encode()) or path.encode()).decode()
    for route in in_order(config.routes()):
        is_of_host = route.host in ("", host) or (route.host.startswith("*") and host.endswith(route.host[1:]))
        if route.methods and method not in with_head(route.methods):
            continue
        if is_of_host and (normal + "/").startswith(route.path.rstrip("/") + "/") and len(normal) >= len(route.path):
            return route
    return None


def _may_pass(route: Route, path: str) -> bool:
    try:
        return bool(route.exempt) and Exemption(route.exempt).covers(path.encode())
    except ValueError:
        return True  # that is said elsewhere


def to_toml(config: Config) -> str:
    """The configuration in full, defaults included, as a file that reads the same."""
    lines: list[str] = []
    for name in SECTIONS:
        _table(lines, f"[{name}]", dataclasses.asdict(getattr(config, name)))
    _table(lines, "[limits]", {name: config.limits.get(name, default) for name, (default, _, _) in LIMITS.items()})
    _table(
        lines,
        "[timeouts]",
        {f"{name}_s": config.timeouts.get(name, float(default)) for name, (_, default) in TIMEOUTS_S.items()},
    )
    for upstream in config.upstream:
        _table(lines, "[[upstream]]", dataclasses.asdict(upstream))
    for route in config.route:
        timeouts = {f"{name}_s": value for name, value in route.timeouts.items()}
        _table(lines, "[[route]]", dataclasses.asdict(route) | {"timeouts": timeouts})
    return "\n".join(lines)


def without_secrets(config: Config) -> Config:
    """The same with `***` for passwords in the store's URL, and for the values that routes tell
    applications.
    """
    return dataclasses.replace(
        config,
        store=dataclasses.replace(config.store, url=without_password(config.store.url)),
        route=[
            dataclasses.replace(route, request_headers=dict.fromkeys(route.request_headers, "***"))
            for route in config.route
        ],
    )


def _table(lines: list[str], header: str, values: Mapping[str, Any]) -> None:
    lines.append(header)
    lines += [f"{key} = {_toml_value(value)}" for key, value in values.items()]
    lines.append("")


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_value(name)} = {_toml_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML's escapes are JSON's
    return str(value)
