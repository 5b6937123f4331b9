"""oauth2-proxy's configuration file as one of ours, and line by line what has no counterpart.

oauth2-proxy is a gateway that logs users in at an identity provider. The gateway part is carried
over: addresses, upstreams, paths without a login, the cookie, Redis. The login is not: here an
application logs in (docs/how-to/from-oauth2-proxy.md). Its sessions are sealed by a secret that is
in the users' cookies alone, so none can be read from Redis; the gateway exchanges each when its
cookie comes.

Rules of this file
- What is not carried over is never less strict: a rule that opens a path and is not understood
  opens none here.
- No secret is repeated: not the client's, not the cookie's, not a password in a URL.
- Every key that is set is in the report, whether it is carried over, has no counterpart, or is not
  known.
"""

from __future__ import annotations

import json
import re
import tomllib
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import re2

from fastticket.errors import ConfigError
from fastticket.moving.sources.oauth2_proxy_left import LEFT

LINE = re.compile(r"\s*([A-Za-z0-9_]+)\s*=")
DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
UNIT_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
ROUTE_RULE = re.compile(r"([A-Za-z]+)=(?!=)(.*)", re.DOTALL)
NOT_A_METHOD = re.compile(r"[A-Za-z]+!=")
EVERYWHERE = "0.0.0.0"  # noqa: S104 -- as theirs
REDIS_PORT, SENTINEL_PORT = 6379, 26379


class Line(NamedTuple):
    """What became of a setting of theirs. `ours` is empty where there is no counterpart."""

    number: int  #: of the line in their file, from 1
    key: str
    ours: str
    note: str


class Translation(NamedTuple):
    """Our configuration, as TOML, and the report."""

    toml: str
    lines: list[Line]


def translate(text: str, source: str) -> Translation:
    """Their file as ours. ConfigError: it is not TOML, or is the alpha configuration in YAML."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        if re.search(r"^\w+:\s*$", text, re.MULTILINE):
            raise ConfigError(
                f"{source}: seems to be YAML, the alpha configuration, which is not read; its upstreams go under "
                "[[upstream]] and [[route]], its injectRequestHeaders under identity_header"
            ) from None
        raise ConfigError(f"{source}: {error}") from None
    made = _Making(table, _line_numbers(text))
    for key in table:
        made.take(key)
    return Translation(made.toml(source), sorted(made.lines))


def _line_numbers(text: str) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if found := LINE.match(line):
            numbers.setdefault(found[1], number)
    return numbers


class _Making:
    """Our tables, while they are filled."""

    def __init__(self, table: Mapping[str, Any], numbers: Mapping[str, int]) -> None:
        self.lines: list[Line] = []
        self._table = table
        self._numbers = numbers
        self._gateway: dict[str, Any] = {"identity_header": "X-Forwarded-User", "login_url": "/login"}
        self._ticket: dict[str, Any] = {"keys": "keys.toml"}
        self._store: dict[str, Any] = {"url": "sqlite:///fastticket.db"}
        self._timeouts: dict[str, Any] = {}
        self._servers: list[tuple[str, str]] = []  # path, server
        self._open: list[tuple[str, str]] = []  # method or "", expression
        self._lets_preflights_pass = False

    def take(self, key: str) -> None:
        """Carry a setting over, or say why not."""
        value, number = self._table[key], self._numbers.get(key, 0)
        if key in CARRIED:
            try:
                ours, note = CARRIED[key](self, _checked(key, value))
            except ValueError:
                ours, note = "", "its value is not of the kind that oauth2-proxy takes"
        elif key in PARTS_OF_REDIS:
            ours, note = "[store] url", "see redis_connection_url"
        else:
            ours, note = "", LEFT.get(key, "not known here: look up what it was for")
        self.lines.append(Line(number, key, ours, note))

    # --- one setting each: which of ours it became, and a note

    def http_address(self, value: str) -> tuple[str, str]:
        address = value.removeprefix("http://").replace("unix://", "unix:")
        self._gateway["listen"] = [f"{EVERYWHERE}{address}" if address.startswith(":") else address]
        return "[gateway] listen", ""

    def reverse_proxy(self, value: bool) -> tuple[str, str]:
        return ("[gateway] trusted_proxies", "name the proxies there: none is believed without") if value else ("", "")

    def proxy_prefix(self, value: str) -> tuple[str, str]:
        return "[gateway] auth_path", f"{value}/auth answers as before; the other pages below {value} are the login's"

    def set_xauthrequest(self, value: bool) -> tuple[str, str]:
        if not value:
            return "", ""
        self._gateway["auth_path"] = f"{str(self._table.get('proxy_prefix', '/oauth2')).rstrip('/')}/auth"
        self._gateway["identity_header"] = "X-Auth-Request-User"
        return "[gateway] auth_path, identity_header", "the user's name; there is no e-mail address and no groups"

    def pass_user_headers(self, value: bool) -> tuple[str, str]:
        note = "the user's name in X-Forwarded-User; there is no X-Forwarded-Email" if value else "it is always set"
        return "[gateway] identity_header", note

    def upstreams(self, value: list[str]) -> tuple[str, str]:
        left = []
        for url in value:
            split = urllib.parse.urlsplit(url)
            if split.scheme == "http" and split.hostname:
                host = f"[{split.hostname}]" if ":" in split.hostname else split.hostname
                self._servers.append((split.path or "/", f"{host}:{split.port or 80}"))
            elif split.scheme == "unix" and split.path:
                self._servers.append(("/", f"unix:{split.path}"))
            else:
                left.append(split.scheme or "?")
        if not left:
            return "[[upstream]], [[route]]", ""
        note = f"not carried over: {', '.join(left)}:// (static answers, files and TLS to upstreams are not here)"
        return ("[[upstream]], [[route]]" if self._servers else ""), note

    def upstream_timeout(self, value: float) -> tuple[str, str]:
        self._timeouts["upstream_first_byte_s"] = value
        return "[timeouts] upstream_first_byte_s", "until the response begins, not until it ends"

    def skip_auth_routes(self, value: list[str]) -> tuple[str, str]:
        left = []
        for rule in value:
            method, expression = "", rule
            if found := ROUTE_RULE.fullmatch(rule):
                method, expression = found[1].upper(), found[2]
            if NOT_A_METHOD.match(rule) or not _is_expression(expression):
                left.append(rule)
            else:
                self._open.append((method, expression))
        return "[[route]] exempt", _needing_a_ticket(left)

    def skip_auth_regex(self, value: list[str]) -> tuple[str, str]:
        known = [each for each in value if _is_expression(each)]
        self._open += [("", each) for each in known]
        left = [each for each in value if each not in known]
        return "[[route]] exempt", _needing_a_ticket(left)

    def skip_auth_preflight(self, value: bool) -> tuple[str, str]:
        self._lets_preflights_pass = value
        return ('[[route]] methods = ["OPTIONS"]', "") if value else ("", "")

    def cookie_name(self, value: str) -> tuple[str, str]:
        return "", f"our cookie has a name of its own, ticket; {value} is what the exchange reads"

    def cookie_domains(self, value: list[str]) -> tuple[str, str]:
        levels = {each.strip(".").count(".") + 1 for each in value}
        if len(levels) != 1 or levels == {1}:
            return "", "these domains have no one number of labels: see cookie_domain_level"
        self._ticket["cookie_domain_level"] = levels.pop()
        return "[ticket] cookie_domain_level", ""

    def cookie_path(self, value: str) -> tuple[str, str]:
        self._ticket["cookie_path"] = value
        return "[ticket] cookie_path", ""

    def cookie_expire(self, value: float) -> tuple[str, str]:
        seconds = round(value)
        if not seconds:
            return "", "the cookie ends with the browser, as ours does unless the login says remember"
        self._ticket["absolute_lifetime_s"] = seconds
        return "[ticket] absolute_lifetime_s", ""

    def cookie_secure(self, value: bool) -> tuple[str, str]:
        self._ticket["cookie_secure"] = value
        return "[ticket] cookie_secure", ""

    def cookie_samesite(self, value: str) -> tuple[str, str]:
        if value.capitalize() not in ("Lax", "Strict", "None"):
            return "", "browsers take Lax, which is ours"
        self._ticket["cookie_same_site"] = value.capitalize()
        return "[ticket] cookie_same_site", ""

    def session_store_type(self, value: str) -> tuple[str, str]:
        return ("[store] url", "see redis_connection_url") if value == "redis" else ("", "sessions are in SQLite, here")

    def redis_connection_url(self, value: str) -> tuple[str, str]:
        self._put_store(value)
        return "[store] url", "the number of shards is 16; passwords belong into files: how-to/redis"

    def redis_servers(self, value: list[str]) -> tuple[str, str]:
        return self.redis_connection_url(value[0]) if value else ("", "")

    def _put_store(self, url: str) -> None:
        table = self._table
        scheme = urllib.parse.urlsplit(url).scheme
        secure = "rediss" if scheme == "rediss" else "redis"
        has_password = bool(table.get("redis_password") or urllib.parse.urlsplit(url).password)
        query = "?password_file=redis-password" if has_password else ""
        if table.get("redis_use_cluster"):
            hosts = _hosts(
                _checked("redis_cluster_connection_urls", table.get("redis_cluster_connection_urls", url)), REDIS_PORT
            )
            self._store["url"] = f"{secure}+cluster://{hosts}{query}"
        elif table.get("redis_use_sentinel"):
            hosts = _hosts(
                _checked("redis_sentinel_connection_urls", table.get("redis_sentinel_connection_urls", url)),
                SENTINEL_PORT,
            )
            master = table.get("redis_sentinel_master_name", "mymaster")
            self._store["url"] = f"{secure}+sentinel://{hosts}/{master}{query}"
        elif scheme == "unix":
            self._store["url"] = f"unix://{urllib.parse.urlsplit(url).path}{query}"
        else:
            database = urllib.parse.urlsplit(url).path
            self._store["url"] = f"{secure}://{_hosts([url], REDIS_PORT)}{database}{query}"

    def request_logging(self, value: bool) -> tuple[str, str]:
        self._gateway["access_log"] = "-" if value else ""
        return "[gateway] access_log", ""

    def logging_filename(self, value: str) -> tuple[str, str]:
        if value:
            self._gateway["access_log"] = value
        return "[gateway] access_log", ""

    def metrics_address(self, value: str) -> tuple[str, str]:
        self._gateway["admin"] = f"127.0.0.1{value}" if value.startswith(":") else value.removeprefix("http://")
        return "[gateway] admin", "/metrics; also /healthz and /readyz"

    def ping_path(self, value: str) -> tuple[str, str]:
        return "", f"{value} goes to the application now; the admin listener has /healthz"

    # --- our file

    def toml(self, source: str) -> str:
        """As TOML."""
        parts = [f"# Of {Path(source).name}, by `fastticket migrate oauth2-proxy`.", ""]
        tables = {"gateway": self._gateway, "ticket": self._ticket, "store": self._store, "timeouts": self._timeouts}
        for name, values in tables.items():
            if values:
                parts += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]
        servers: dict[str, list[str]] = {}
        for path, server in self._servers or [("/", "127.0.0.1:9001")]:
            servers.setdefault(path, []).append(server)
        names = {path: f"app{number}" if number > 1 else "app" for number, path in enumerate(servers, 1)}
        for path, name in names.items():
            parts += ["[[upstream]]", f"name = {_toml(name)}", f"servers = {_toml(servers[path])}", ""]
        for path in servers:
            parts += self._routes(path, names[path])
        if "/login" not in servers:
            parts += ["# Where an application logs in.", *_route("/login", "", 'auth = "optional"', "login = true")]
        return "\n".join(parts)

    def _routes(self, path: str, upstream: str) -> list[str]:
        named = f"upstream = {_toml(upstream)}"
        path = path.rstrip("/") or "/"
        parts = _route(path, '["OPTIONS"]', 'auth = "none"', named) if self._lets_preflights_pass else []
        methods = sorted({method for method, _ in self._open if method})
        for method in ["", *methods]:
            expressions = [expression for each, expression in self._open if each in ("", method)]
            if self._lets_preflights_pass and method == "OPTIONS":
                continue
            more = [f"exempt = {_toml(_whole(expressions))}"] if expressions else []
            parts += _route(path, f'["{method}"]' if method else "", 'auth = "required"', named, *more)
        return parts


Carry = Callable[[_Making, Any], tuple[str, str]]

TEXTS: Mapping[str, Carry] = {
    "http_address": _Making.http_address,
    "proxy_prefix": _Making.proxy_prefix,
    "cookie_name": _Making.cookie_name,
    "cookie_path": _Making.cookie_path,
    "cookie_samesite": _Making.cookie_samesite,
    "session_store_type": _Making.session_store_type,
    "redis_connection_url": _Making.redis_connection_url,
    "logging_filename": _Making.logging_filename,
    "metrics_address": _Making.metrics_address,
    "ping_path": _Making.ping_path,
    "ready_path": _Making.ping_path,
}
SWITCHES: Mapping[str, Carry] = {
    "reverse_proxy": _Making.reverse_proxy,
    "set_xauthrequest": _Making.set_xauthrequest,
    "pass_user_headers": _Making.pass_user_headers,
    "skip_auth_preflight": _Making.skip_auth_preflight,
    "cookie_secure": _Making.cookie_secure,
    "request_logging": _Making.request_logging,
}
LISTS: Mapping[str, Carry] = {
    "upstreams": _Making.upstreams,
    "skip_auth_routes": _Making.skip_auth_routes,
    "skip_auth_regex": _Making.skip_auth_regex,
    "cookie_domains": _Making.cookie_domains,
    "redis_sentinel_connection_urls": _Making.redis_servers,
    "redis_cluster_connection_urls": _Making.redis_servers,
}
DURATIONS: Mapping[str, Carry] = {
    "upstream_timeout": _Making.upstream_timeout,
    "cookie_expire": _Making.cookie_expire,
}
CARRIED: Mapping[str, Carry] = {**TEXTS, **SWITCHES, **LISTS, **DURATIONS}
PARTS_OF_REDIS = frozenset(
    {
        *("redis_use_sentinel", "redis_sentinel_master_name", "redis_sentinel_password", "redis_use_cluster"),
        *("redis_password", "redis_username", "redis_ca_path"),
    }
)


def _checked(key: str, value: Any) -> Any:
    """The value, if it is of the setting's kind; a duration in s. ValueError."""
    if key in LISTS:
        found = [value] if isinstance(value, str) else value
        is_right = isinstance(found, list) and all(isinstance(each, str) for each in found)
    elif key in DURATIONS:
        return _seconds(str(value)) if not isinstance(value, int) or value is True else float(value)
    else:
        found, is_right = value, isinstance(value, bool if key in SWITCHES else str)
    if not is_right:
        raise ValueError(key)
    return found


def _seconds(value: str) -> float:
    """A duration of Go, `168h0m0s`. ValueError."""
    parts = DURATION.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(value)
    return sum(float(number) * UNIT_S[unit] for number, unit in parts)


def _needing_a_ticket(rules: list[str]) -> str:
    return f"not carried over, so these need a ticket: {', '.join(map(ascii, rules))}" if rules else ""


def _is_expression(text: str) -> bool:
    try:
        options = re2.Options()
        options.log_errors = False
        re2.compile(_whole([text]), options)
    except re2.error:
        return False
    return True


def _whole(expressions: Iterable[str]) -> str:
    """An expression for whole paths: there they are searched for anywhere in a path."""
    return f"(?s:.*)(?:{'|'.join(f'(?:{each})' for each in expressions)})(?s:.*)"


def _hosts(urls: Iterable[str], port: int) -> str:
    found = []
    for url in urls:
        split = urllib.parse.urlsplit(url if "://" in url else f"//{url}")
        host = split.hostname or "127.0.0.1"
        found.append(f"{f'[{host}]' if ':' in host else host}:{split.port or port}")
    return ",".join(found)


def _route(path: str, methods: str, *lines: str) -> list[str]:
    return ["[[route]]", f"path = {_toml(path)}", *([f"methods = {methods}"] if methods else []), *lines, ""]


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML's escapes are JSON's
    return str(value).lower()
