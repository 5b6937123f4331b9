"""Our configuration, while oauth2-proxy's becomes ours: what its files can say of it, and the TOML.

Rules of this file
- Who a user is comes from the gateway alone: a field that oauth2-proxy fills in and that is not
  filled in here is removed, or applications would believe what clients write into it.
- Two upstreams never become one: where two have the same path here, the second is left out.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import re2

from fastticket.moving.sources.oauth2_proxy_stays import EXPIRE_S

DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(h|ms|m|s)")
UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
EVERYWHERE = "0.0.0.0"  # noqa: S104 -- as theirs
PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
#: By which applications behind oauth2-proxy know a user, or that a request came through it.
FILLED_IN = (
    *(f"X-Forwarded-{name}" for name in ("User", "Email", "Groups", "Preferred-Username", "Access-Token")),
    *(f"X-Auth-Request-{name}" for name in ("User", "Email", "Groups", "Preferred-Username", "Access-Token")),
    *("GAP-Auth", "GAP-Signature"),
)
#: Of those that have a meaning here, the ones that go on as the client sent them.
CLIENTS_OWN = frozenset({"accept", "cookie", "host"})
#: Fields with a meaning here, which no setting may name (dataplane/fieldnames.pyx, KNOWN).
NOT_SET_BY_ROUTES = frozenset(
    {
        *("accept", "authorization", "connection", "content-length", "cookie", "expect", "forwarded", "host"),
        *("keep-alive", "proxy", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"),
        *("sec-websocket-key", "transfer-encoding", "true-client-ip", "upgrade", "x-client-ip", "x-forwarded-for"),
        *("x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto", "x-forwarded-scheme"),
        *("x-forwarded-server", "x-forwarded-ssl", "x-original-url", "x-real-ip", "x-rewrite-url"),
        *("x-ticket-login", "x-ticket-logout", "x-ticket-remember", "x-ticket-rotate"),
    }
)

EXCHANGE = [
    "# Who is logged in at oauth2-proxy stays so. The first of principal_attributes that a session has is",
    "# the user's name here: user, email or preferred_username, as the login sends it in X-Ticket-Login.",
    "[[migration]]",
]


class Line(NamedTuple):
    """What became of a setting of theirs. `ours` is empty where there is no counterpart."""

    file: str
    number: int  #: of the line in their file, from 1; 0: not found
    key: str
    ours: str
    note: str


class _Path(NamedTuple):
    """What one path of theirs leads to."""

    path: str  #: as theirs has it
    servers: list[str]
    name: str
    timeout_s: float  #: until a response begins; 0: as [timeouts]


class Ours:
    """Our tables. `prefix`: proxy_prefix, below which oauth2-proxy has pages of its own."""

    def __init__(self, prefix: str) -> None:
        self.gateway: dict[str, Any] = {"identity_header": "X-Forwarded-User", "login_url": "/login"}
        self.ticket: dict[str, Any] = {"keys": "keys.toml"}
        self.live_for(EXPIRE_S)
        self.store: dict[str, Any] = {"url": "sqlite:///fastticket.db"}
        self.timeouts: dict[str, Any] = {}
        self.migration: dict[str, Any] = {}
        self.prefix = prefix
        self.open: list[tuple[str, str]] = []  #: method or "", expression: what needs no ticket
        self.lets_preflights_pass = False
        self._removed = list(FILLED_IN)
        self._paths: dict[str, _Path] = {}  # by path as ours has it

    # --- what both files can say

    def listen_at(self, address: str) -> None:
        """Of a listener."""
        address = address.removeprefix("http://").replace("unix://", "unix:")
        self.gateway["listen"] = [f"{EVERYWHERE}{address}" if address.startswith(":") else address]

    def admin_at(self, address: str) -> None:
        """Of their listener for metrics."""
        self.gateway["admin"] = f"127.0.0.1{address}" if address.startswith(":") else address.removeprefix("http://")

    def answer_others(self, field: str) -> None:
        """Other gateways ask here about a request, and read its user from a field."""
        self.gateway["auth_path"] = f"{self.prefix}/auth"
        self.gateway["identity_header"] = field

    def live_for(self, lifetime_s: int) -> None:
        """How long a session lives, used or not."""
        names = ("idle_timeout_s", "absolute_lifetime_s", "remember_lifetime_s")
        self.ticket |= dict.fromkeys(names, lifetime_s)

    @property
    def lifetime_s(self) -> int:
        """As `live_for` was told."""
        return int(self.ticket["absolute_lifetime_s"])

    def remove(self, field: str) -> str:
        """A field that oauth2-proxy fills in: no client's goes on in its place. Why the file needs
        no word of it, or cannot have one; empty: it has.
        """
        name = field.lower()
        if name in CLIENTS_OWN:
            return "this field cannot be removed: what a client sends in it goes on to applications"
        if name in NOT_SET_BY_ROUTES and name != "authorization":
            return "no client's goes on: the gateway writes this field itself, or removes it"
        if name not in map(str.lower, self._removed):
            self._removed.append(field)
        return ""

    def add_server(self, url: str, path: str = "", name: str = "", timeout_s: float = 0.0) -> str:
        """A server under a path, by default that of its URL. Why it is not one here; empty: it is.
        ValueError: not a URL.
        """
        split = urllib.parse.urlsplit(url)
        if split.scheme == "http" and split.hostname:
            host = f"[{split.hostname}]" if ":" in split.hostname else split.hostname
            server, path = f"{host}:{split.port or 80}", path or split.path or "/"
        elif split.scheme == "unix" and split.path:
            server, path = f"unix:{split.path}", path or "/"
        else:
            return split.scheme or "?"
        here = path.rstrip("/") or "/"
        known = self._paths.setdefault(here, _Path(path, [], name, timeout_s))
        if known.path != path:
            return f"{path}, here the same as {known.path}"
        known.servers.append(server)
        return ""

    @property
    def has_servers(self) -> bool:
        """Whether requests are passed on to anything."""
        return bool(self._paths)

    # --- our file

    def toml(self, sources: Iterable[str], to_do: Iterable[str] = ()) -> str:
        """As TOML. `to_do`: what is needed before it can be used."""
        names = " and ".join(Path(source).name for source in sources)
        parts = [f"# Of {names}, by `fastticket migrate oauth2-proxy`.", *(f"# To do: {each}" for each in to_do), ""]
        identity = self.gateway["identity_header"].lower()
        removed = {"removed_headers": [field for field in self._removed if field.lower() != identity]}
        tables = {
            "gateway": self.gateway | removed,
            "ticket": self.ticket,
            "store": self.store,
            "timeouts": self.timeouts,
        }
        for name, values in tables.items():
            if values:
                parts += [f"[{name}]", *(f"{key} = {toml_value(value)}" for key, value in values.items()), ""]
        paths = self._paths or {"/": _Path("/", ["127.0.0.1:9001"], "", 0.0)}
        upstreams = self._upstream_names(paths)
        for path, upstream in upstreams.items():
            servers = toml_value(paths[path].servers)
            parts += ["[[upstream]]", f"name = {toml_value(upstream)}", f"servers = {servers}", ""]
        for path, upstream in upstreams.items():
            parts += self._routes(path, upstream, paths[path].timeout_s)
        if "/login" not in paths:
            which = " Name its upstream, too: upstream = ..." if len(paths) > 1 else ""
            parts += [
                f"# Where an application logs in.{which}",
                *_route("/login", "", 'auth = "optional"', "login = true"),
            ]
        if self.migration:
            parts += [*EXCHANGE, *(f"{key} = {toml_value(value)}" for key, value in self.migration.items()), ""]
        return "\n".join(parts)

    @staticmethod
    def _upstream_names(paths: dict[str, _Path]) -> dict[str, str]:
        """By path: theirs if it can be ours, too, else one that is made."""
        theirs = [each.name for each in paths.values()]
        names = {}
        for number, (path, each) in enumerate(paths.items(), 1):
            is_fit = PLAIN_NAME.fullmatch(each.name) and theirs.count(each.name) == 1
            made = f"app{number}" if number > 1 else "app"
            while made in theirs:
                made += "-"
            names[path] = each.name if is_fit else made
        return names

    def _routes(self, path: str, upstream: str, timeout_s: float) -> list[str]:
        common = [f"upstream = {toml_value(upstream)}"]
        if timeout_s:
            common.append(f"timeouts = {{upstream_first_byte_s = {timeout_s}}}")
        parts = _route(path, '["OPTIONS"]', 'auth = "none"', *common) if self.lets_preflights_pass else []
        methods = sorted({method for method, _ in self.open if method})
        for method in ["", *methods]:
            expressions = [expression for each, expression in self.open if each in ("", method)]
            if self.lets_preflights_pass and method == "OPTIONS":
                continue
            more = [f"exempt = {toml_value(_whole(expressions))}"] if expressions else []
            parts += _route(path, f'["{method}"]' if method else "", 'auth = "required"', *common, *more)
        return parts


def seconds(value: str) -> float:
    """A duration of Go, `168h0m0s`. ValueError."""
    parts = DURATION.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(value)
    return float(sum(float(number) * UNIT_S[unit] for number, unit in parts))


def is_expression(text: str) -> bool:
    """Whether our routes know this regular expression."""
    try:
        options = re2.Options()
        options.log_errors = False
        re2.compile(_whole([text]), options)
    except re2.error:
        return False
    return True


def toml_value(value: Any) -> str:
    """A text, number, truth value or a list of them."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML's escapes are JSON's
    return str(value).lower()


def _whole(expressions: Iterable[str]) -> str:
    """An expression for whole paths: there they are searched for anywhere in a path."""
    return f"(?s:.*)(?:{'|'.join(f'(?:{each})' for each in expressions)})(?s:.*)"


def _route(path: str, methods: str, *lines: str) -> list[str]:
    return ["[[route]]", f"path = {toml_value(path)}", *([f"methods = {methods}"] if methods else []), *lines, ""]
