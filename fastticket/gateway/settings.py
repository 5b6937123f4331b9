"""What a configuration is: one frozen dataclass for each table of the file.

The fields are the file's keys, with their types and defaults. `reader` makes them of TOML, `rules`
says which values are allowed, `writer` writes them as TOML again. All paths in a configuration are
relative to `Config.base`, the folder of the file.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fastticket.core.ticket import Keyring
from fastticket.errors import ConfigError
from fastticket.gateway.addresses import Access, Address, parse_access, parse_address, parse_server
from fastticket.gateway.linkisfiles import crypt_key_of
from fastticket.gateway.problems import place_of
from fastticket.gateway.tokens import Tokens, read_tokens
from fastticket.keyfile import read_keys
from fastticket.sessions.settings import LimitPolicy, OutagePolicy, Settings
from fastticket.stores import read_urls
from fastticket.stores.contract import Store
from fastticket.web.cookies import TicketCookie

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Some applications take the method from one of these fields instead of the request line, and the
#: route was chosen by the request line.
METHOD_OVERRIDES = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
#: By these, services of Linkis take a request for a program's whose token a gateway has checked.
LINKIS_FIELDS = ("Token-Code", "Token-User")

#: The usual cookie of each system whose sessions can go on here.
OLD_COOKIES = {
    "linkis": "linkis_user_session_ticket_id_v1",
    "spring": "SESSION",
    "oauth2-proxy": "_oauth2_proxy",
    "flask-session": "session",
    "starsessions": "session",
}

#: The `[ticket]` key that sets each option of a TicketCookie.
COOKIE_KEYS = {
    "name": "cookie",
    "is_secure": "cookie_secure",
    "domain_level": "cookie_domain_level",
    "path": "cookie_path",
    "same_site": "cookie_same_site",
    "is_partitioned": "cookie_partitioned",
}


@dataclass(frozen=True)
class GatewaySettings:
    """`[gateway]`"""

    listen: list[str] = field(default_factory=lambda: ["127.0.0.1:8080"])
    threads: int = 1
    login_url: str = ""
    next_parameter: str = "next"  #: query parameter of `login_url` for the URL to return to; "": none
    auth_path: str = ""
    auth_front: Literal["", "nginx", "haproxy", "traefik", "caddy", "envoy"] = ""  #: which proxy asks at `auth_path`
    trusted_proxies: list[str] = field(default_factory=list)
    proxy_protocol: bool = False
    forwarded: bool = False
    identity_header: str = "X-Forwarded-User"
    identity_encoding: Literal["utf-8", "percent"] = "utf-8"
    removed_headers: list[str] = field(default_factory=list)  #: of requests: no client can send them to applications
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
    admin_networks: list[str] = field(default_factory=list)  #: that may read its pages, beside this machine
    admin_hosts: list[str] = field(default_factory=list)  #: names of this gateway that a browser may ask there by
    admin_token_file: str = ""  #: who may use /v1/ there, and by TCP /drain: a line each, NAME TOKEN
    admin_certificate: str = ""  #: PEM; with `admin_key`: TLS
    admin_key: str = ""
    admin_audit_log: str = ""  #: of changes made there; "": the standard error
    readiness: list[Literal["workers", "store", "store-any", "upstreams", "upstreams-any"]] = field(
        default_factory=lambda: ["workers", "store", "upstreams"]
    )
    admin_mode: str = "0600"  #: of the file of a Unix socket
    admin_owner: str = ""  #: of that file: user, user:group or :group; "": the user who runs the gateway
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True)
class TicketSettings:
    """`[ticket]`"""

    keys: str = ""
    cookie: str = "ticket"
    cookie_secure: bool | Literal["auto"] = "auto"  #: "auto": Secure unless the request is http to a loopback host
    forward_ticket: bool = False  #: applications see the ticket
    cookie_domain_level: int = 0  #: labels of the request's Host that make the cookie's Domain; 0: no Domain
    cookie_path: str = "/"
    cookie_same_site: Literal["Lax", "Strict", "None"] = "Lax"
    cookie_partitioned: bool = False
    audience: str = "default"
    accept_audiences: list[str] = field(default_factory=list)
    idle_timeout_s: int = Settings.idle_timeout_s
    absolute_lifetime_s: int = Settings.absolute_lifetime_s
    remember_lifetime_s: int = Settings.remember_lifetime_s
    sessions_max: int = Settings.sessions_max
    sessions_max_policy: LimitPolicy = Settings.sessions_max_policy
    login_details: list[Literal["address", "user_agent"]] = field(default_factory=list)


@dataclass(frozen=True)
class TokensSettings:
    """`[tokens]`"""

    file: str = ""
    forward: bool = False  #: applications see the fields Token-Code and Token-User


@dataclass(frozen=True)
class StoreSettings:
    """`[store]`"""

    url: str = "sqlite:///fastticket.db"
    mirror_url: str = ""
    flush_interval_ms: int = Settings.flush_interval_ms
    lease_ms: int = Settings.lease_ms
    touch_resolution_ms: int = Settings.touch_resolution_ms
    outage_policy: OutagePolicy = Settings.outage_policy
    outage_grace_s: int = Settings.outage_grace_s
    restore_from_cache: bool = Settings.restore_from_cache


@dataclass(frozen=True)
class CacheSettings:
    """`[cache]`"""

    capacity: int = Settings.capacity


@dataclass(frozen=True)
class UpstreamSettings:
    """`[[upstream]]`"""

    name: str
    servers: list[str]
    weights: list[int] = field(default_factory=list)  #: one for each of `servers`, in their order; []: all equal
    balance: Literal["round_robin", "least_connections", "ip_hash", "ticket_hash"] = "round_robin"
    connections_max: int = 0
    pending_max: int = 1000
    retry_percent: int = 20
    slow_return_s: float = 10.0
    resolve_interval_s: float = 30.0
    health_path: str = ""
    health_host: str = ""  #: "": the server's own address
    health_interval_s: float = 5.0
    health_timeout_s: float = 2.0
    health_failures: int = 2
    health_successes: int = 2
    linkis_ticket: Literal["", "des", "des-raw", "aes-gcm"] = ""  #: the format of a ticket of Linkis' for each session


@dataclass(frozen=True)
class RouteSettings:
    """`[[route]]`"""

    path: str
    host: str = ""
    first: bool = False  #: goes before the routes of every host
    methods: list[str] = field(default_factory=list)  #: []: all
    auth: Literal["required", "optional", "none"] = "required"
    exempt: str = ""
    touch: bool = True
    login: bool = False
    upstream: str = ""  #: "": the first upstream of the file
    consistency: Literal["near", "strong"] = "near"
    request_headers: dict[str, str] = field(default_factory=dict)
    response_headers: dict[str, str] = field(default_factory=dict)
    timeouts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MigrationSettings:
    """`[[migration]]`"""

    source: Literal["linkis", "spring", "oauth2-proxy", "flask-session", "starsessions"]
    url: str  #: of the old store
    until: str  #: the last day, as 2027-01-31; UTC
    cookie: str = ""  #: "": the source's usual one
    key_file: str = ""  #: Linkis' crypt key, Flask's SECRET_KEY if its cookies are signed, oauth2-proxy's cookie secret
    prefix: str = ""  #: of the old store's keys, of Linkis' tickets; "": the source's usual one
    user_suffix: str = ""  #: that Linkis adds to names in tickets
    principal_attributes: list[str] = field(default_factory=list)  #: where a session has its user; []: the usual ones
    idle_timeout_s: int = 0  #: at the old system; 0: it is not known; of Linkis as [ticket]
    write_back: bool = True


@dataclass(frozen=True)
class Config:
    """A whole configuration. `source` names it in messages; `base` is the folder of its paths."""

    source: str
    base: Path
    gateway: GatewaySettings
    ticket: TicketSettings
    tokens: TokensSettings
    store: StoreSettings
    cache: CacheSettings
    limits: Mapping[str, int]
    timeouts: Mapping[str, float]
    upstream: list[UpstreamSettings]
    route: list[RouteSettings]
    migration: list[MigrationSettings]
    #: What the file says in a way that has changed meanwhile.
    outdated: Sequence[str] = field(default=(), compare=False)
    #: Where values come from that another system's file has given: "[ticket] cookie", or
    #: "[[route]] /path" for a whole table, to words. Empty for a file of ours.
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def routes(self) -> list[RouteSettings]:
        """The routes of the file and the auth endpoint, which has `first`: otherwise a host with
        routes of its own would hide it.
        """
        endpoint = [RouteSettings(path=self.gateway.auth_path, first=True)] if self.gateway.auth_path else []
        return [*self.route, *endpoint]

    def upstream_of(self, route: RouteSettings) -> UpstreamSettings:
        """Where a route of the file leads."""
        return next((each for each in self.upstream if each.name == route.upstream), self.upstream[0])

    def overrides_dropped(self) -> tuple[str, ...]:
        """The request fields that are never forwarded, because routes judge requests by their
        method.
        """
        return METHOD_OVERRIDES if any(route.methods for route in self.route) else ()

    def removed_fields(self) -> tuple[str, ...]:
        """The request fields that no client can send to applications, beside the identity header:
        `removed_headers`; and Linkis' for programs, where its services are reached without a
        linkis-gateway and no token is checked here: they get tickets of Linkis', or Token-User.
        """
        gateway = self.gateway
        has_services = not self.tokens.file and (
            gateway.identity_header.lower() in map(str.lower, LINKIS_FIELDS)
            or any(upstream.linkis_ticket for upstream in self.upstream)
        )
        named = (gateway.identity_header, gateway.request_id_header, gateway.no_use_header, gateway.lifetime_header)
        known = {name.lower() for name in (*gateway.removed_headers, *named)}
        more = [name for name in LINKIS_FIELDS if has_services and name.lower() not in known]
        return (*gateway.removed_headers, *more)

    def listen_addresses(self) -> list[Address]:
        """The addresses that clients come to. ConfigError."""
        return [self.listen_address(text) for text in self.gateway.listen]

    def listen_address(self, text: str) -> Address:
        """One entry of `[gateway] listen`. ConfigError."""
        return self._address(text, "[gateway] listen")

    def admin_address(self) -> Address | None:
        """The address of the admin listener; None: there is none. ConfigError."""
        return self._address(self.gateway.admin, "[gateway] admin") if self.gateway.admin else None

    def admin_access(self) -> Access:
        """Mode and owner of the admin listener's Unix socket. ConfigError."""
        try:
            return parse_access(self.gateway.admin_mode, self.gateway.admin_owner)
        except ValueError as error:
            raise self._error("[gateway] admin_mode, admin_owner", str(error)) from None

    def admin_readers(self) -> list[Network]:
        """The networks that may read the pages of the admin listener, beside this machine.
        ConfigError.
        """
        try:
            return [ipaddress.ip_network(text) for text in self.gateway.admin_networks]
        except ValueError as error:
            raise self._error("[gateway] admin_networks", str(error)) from None

    def log_path(self, name: Literal["access_log", "error_log", "admin_audit_log"]) -> Path | None:
        """The file of a log; None: a standard stream."""
        text = getattr(self.gateway, name)
        return None if text in ("", "-") else self.base / text

    def server_addresses(self, upstream: UpstreamSettings) -> list[Address]:
        """The servers of an upstream. ConfigError."""
        return [self.server_address(text, upstream) for text in upstream.servers]

    def server_address(self, text: str, upstream: UpstreamSettings) -> Address:
        """One entry of an upstream's `servers`. ConfigError."""
        return self._address(text, f"[[upstream]] {upstream.name}: servers", parse_server)

    def trusted_networks(self) -> list[Network | str]:
        """The trusted proxies: networks, and the word "unix" for Unix sockets. ConfigError."""
        try:
            return [text if text == "unix" else ipaddress.ip_network(text) for text in self.gateway.trusted_proxies]
        except ValueError as error:
            raise self._error("[gateway] trusted_proxies", str(error)) from None

    def key_pairs(self) -> list[tuple[int, bytes]] | None:
        """The (id, secret) pairs of the key file, oldest first; None: the keys are in the
        environment. ConfigError.
        """
        return read_keys(self.base / self.ticket.keys) if self.ticket.keys else None

    def keyring(self) -> Keyring:
        """The key ring of the key file, or of the environment's FASTTICKET_KEYS. ConfigError."""
        return self.keyring_of(self.key_pairs())

    def keyring_of(self, pairs: Sequence[tuple[int, bytes]] | None) -> Keyring:
        """The key ring of what `key_pairs` has returned. ConfigError."""
        audiences = self.ticket.audience, self.ticket.accept_audiences
        if pairs is not None:
            return Keyring(pairs, *audiences)
        if "FASTTICKET_KEYS" not in os.environ:
            raise self._error(
                "[ticket] keys", "not given, and FASTTICKET_KEYS is not set; make a file with `fastticket keygen`"
            )
        return Keyring.from_env("FASTTICKET_KEYS", *audiences)

    @cached_property
    def known_tokens(self) -> Tokens | None:
        """The tokens of `[tokens] file`; None: there is no file. Read once, with the configuration:
        a worker that replaces another one later does not read it again. ConfigError.
        """
        return read_tokens(self.base / self.tokens.file) if self.tokens.file else None

    def token_fields(self) -> Literal["", "withheld", "shown"]:
        """What becomes of the fields Token-Code and Token-User; "": they mean nothing."""
        if not self.tokens.file:
            return ""
        return "shown" if self.tokens.forward else "withheld"

    def cookie_options(self) -> dict[str, Any]:
        """The keyword arguments of TicketCookie that `[ticket] cookie…` set."""
        options = {option: getattr(self.ticket, key) for option, key in COOKIE_KEYS.items()}
        return options | {"is_secure": None if self.ticket.cookie_secure == "auto" else self.ticket.cookie_secure}

    def store_digests(self) -> tuple[bytes, ...]:
        """What the files contain that the store's URL names, passwords and certificates: who made a
        store by it has to make another one when they change.
        """
        urls = (self.store.url, self.store.mirror_url)
        options = [option for url in urls for option in urllib.parse.parse_qsl(url.partition("?")[2])]
        paths = [self.base / value for name, value in options if name.endswith(("file", "_certs"))]
        return tuple(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"" for path in paths)

    def ticket_cookie(self) -> TicketCookie:
        """The cookie that carries the ticket."""
        return TicketCookie(**self.cookie_options())

    def open_store(self, *, creates: bool = True) -> Store:
        """The store of the URL, not opened yet; `creates` as for `fastticket.open_store`.
        ConfigError.
        """
        return self._store_maker(creates)

    @cached_property
    def _store_maker(self) -> Callable[[bool], Store]:
        """Read once, with the configuration: a worker that replaces another one later does not read
        the password file again.
        """
        try:
            return read_urls(self.store.url, self.store.mirror_url, base=self.base)
        except ConfigError as error:
            is_mirror, reason = str(error).startswith("mirror_url: "), str(error).partition(": ")[2]
            raise self._error("[store] mirror_url" if is_mirror else "[store] url", reason) from None

    def old_cookies(self) -> tuple[str, ...]:
        """The names of the cookies that are exchanged for tickets."""
        return tuple(settings.cookie or OLD_COOKIES[settings.source] for settings in self.migration)

    def linkis(self) -> MigrationSettings | None:
        """The `[[migration]]` from Linkis; None: there is none."""
        return next((each for each in self.migration if each.source == "linkis"), None)

    def minted_cookie(self) -> str:
        """The cookie in which upstreams with `linkis_ticket` get their tickets; empty: none
        does.
        """
        linkis = self.linkis()
        is_wanted = any(upstream.linkis_ticket for upstream in self.upstream)
        return (linkis.cookie or OLD_COOKIES["linkis"]) if linkis and is_wanted else ""

    def migration_key(self, settings: MigrationSettings) -> str:
        """The first line of a migration's key file, or the crypt key of a file of Linkis; empty: it
        has none. ConfigError.
        """
        return self._migration_keys[self.migration.index(settings)]

    @cached_property
    def _migration_keys(self) -> tuple[str, ...]:
        """Read once, as the store's URL is."""
        return tuple(self._first_line(each.key_file) if each.key_file else "" for each in self.migration)

    def _first_line(self, file: str) -> str:
        if file.endswith(".properties"):
            return crypt_key_of(self.base / file)
        try:
            line = (self.base / file).read_text("utf-8-sig").partition("\n")[0].removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise self._error("[[migration]] key_file", f"{self.base / file}: {reason}") from None
        if not line:
            raise self._error("[[migration]] key_file", f"{self.base / file}: its first line is empty")
        return line

    def _address(self, text: str, where: str, parse: Callable[[str, Path], Address] = parse_address) -> Address:
        try:
            return parse(text, self.base)
        except ValueError as error:
            raise self._error(where, str(error)) from None

    def _error(self, where: str, reason: str) -> ConfigError:
        return ConfigError(f"{place_of(self.source, where)}: {reason}")


#: The tables of the file, by name; those of LISTS stand in it as often as they are needed.
SECTIONS: dict[str, type] = {
    "gateway": GatewaySettings,
    "ticket": TicketSettings,
    "tokens": TokensSettings,
    "store": StoreSettings,
    "cache": CacheSettings,
}
LISTS: dict[str, type] = {"upstream": UpstreamSettings, "route": RouteSettings, "migration": MigrationSettings}
