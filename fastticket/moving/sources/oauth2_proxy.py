"""oauth2-proxy's configuration as ours, and line by line what has no counterpart.

oauth2-proxy is a gateway that logs users in at an identity provider. The gateway part is carried
over: addresses, upstreams, paths without a login, the cookie, Redis. The login is not: here an
application logs in (docs/how-to/from-oauth2-proxy.md). Its sessions are sealed by a secret that is
in the users' cookies alone, so none can be read from Redis; the gateway exchanges each when its
cookie comes.

It has two files: this one is for TOML (`--config`), oauth2_proxy_alpha.py for YAML
(`--alpha-config`), which takes the place of some settings of the first.

Rules of this file
- What is not carried over is never less strict: a rule that opens a path and is not understood
  opens none here.
- No secret is repeated: not the client's, not the cookie's, not a password in a URL.
- Every key that is set is in the report, whether it is carried over, has no counterpart, or is not
  known.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fastticket.errors import ConfigError
from fastticket.moving.sources.oauth2_proxy_alpha import ALPHA_INSTEAD, take_alpha
from fastticket.moving.sources.oauth2_proxy_left import LEFT
from fastticket.moving.sources.oauth2_proxy_ours import Line, Ours, is_expression, seconds
from fastticket.moving.sources.oauth2_proxy_stays import migration_of, redis_url, to_do

LINE = re.compile(r"\s*([A-Za-z0-9_]+)\s*=")
ROUTE_RULE = re.compile(r"([A-Za-z]+)=(?!=)(.*)", re.DOTALL)
NOT_A_METHOD = re.compile(r"[A-Za-z]+!=")
#: Taken first: what others mean depends on them.
FIRST = ("upstreams", "set_xauthrequest")


class Translation(NamedTuple):
    """Our configuration, as TOML, the report, and what is still to do."""

    toml: str
    lines: list[Line]
    to_do: list[str]


def translate(text: str, source: str, alpha: tuple[str, str] | None = None) -> Translation:
    """Their file as ours. `alpha`: the text of the alpha configuration beside it, and its name.
    ConfigError: one is not what it should be, or the library for YAML is missing.
    """
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # int() and deep nesting raise them through tomllib
        if re.search(r"^\w+:\s*$", text, re.MULTILINE):
            raise ConfigError(
                f"{source}: seems to be YAML, the alpha configuration: name it with --alpha-config"
            ) from None
        raise ConfigError(f"{source}: {error}") from None
    ours = Ours(str(table.get("proxy_prefix", "/oauth2")).rstrip("/"))
    if "cookie_secure" not in table:
        ours.ticket["cookie_secure"] = True
    made = _Making(ours, table, source, _line_numbers(text), has_alpha=alpha is not None)
    for key in dict.fromkeys([*(key for key in FIRST if key in table), *table]):
        made.take(key)
    lines = sorted(made.lines)
    if _sets_authorization(table):
        ours.remove("Authorization")
    ours.migration = migration_of(table, ours.store["url"], ours.lifetime_s)
    if alpha is not None:
        lines += take_alpha(ours, *alpha)
    left = to_do(table, ours.store["url"], ours.migration)
    sources = [each for each in (source if table or not alpha else "", alpha[1] if alpha else "") if each]
    return Translation(ours.toml(sources, left), lines, left)


def _sets_authorization(table: Mapping[str, Any]) -> bool:
    """Whether upstreams get an Authorization of oauth2-proxy's, and so no client's."""
    has_password = bool(table.get("basic_auth_password")) and table.get("pass_basic_auth") is not False
    return has_password or table.get("pass_authorization_header") is True


def _line_numbers(text: str) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if found := LINE.match(line):
            numbers.setdefault(found[1], number)
    return numbers


class _Making:
    """Our tables, while the settings of their file are carried over."""

    def __init__(
        self, ours: Ours, table: Mapping[str, Any], source: str, numbers: Mapping[str, int], *, has_alpha: bool
    ) -> None:
        self.lines: list[Line] = []
        self._ours = ours
        self._table = table
        self._source = source
        self._numbers = numbers
        self._has_alpha = has_alpha

    def take(self, key: str) -> None:
        """Carry a setting over, or say why not."""
        value, number = self._table[key], self._numbers.get(key, 0)
        if self._has_alpha and key in ALPHA_INSTEAD:
            ours, note = "", "the alpha configuration says it in its place; oauth2-proxy does not start with both"
        elif key in CARRIED:
            try:
                ours, note = CARRIED[key](self, _checked(key, value))
            except ValueError:
                ours, note = "", "its value is not of the kind that oauth2-proxy takes"
        elif key in PARTS_OF_REDIS:
            ours, note = "[store] url", "see redis_connection_url"
        else:
            ours, note = "", LEFT.get(key, "not known here: look up what it was for")
        self.lines.append(Line(self._source, number, key, ours, note))

    # --- one setting each: which of ours it became, and a note

    def http_address(self, value: str) -> tuple[str, str]:
        self._ours.listen_at(value)
        return "[gateway] listen", ""

    def reverse_proxy(self, value: bool) -> tuple[str, str]:
        if not value:
            return "", ""
        self._ours.gateway["trusted_proxies"] = []
        return "[gateway] trusted_proxies", "name the proxies there: none is believed without"

    def proxy_prefix(self, value: str) -> tuple[str, str]:
        return "[gateway] auth_path", f"{value}/auth answers as before; the other pages below {value} are the login's"

    def set_xauthrequest(self, value: bool) -> tuple[str, str]:
        if not value:
            return "", ""
        if self._ours.has_servers:
            field = self._ours.gateway["identity_header"]
            self._ours.answer_others(field)
            return "[gateway] auth_path", f"the user's name, in {field}, where upstreams read it, too; nothing else"
        self._ours.answer_others("X-Auth-Request-User")
        return "[gateway] auth_path, identity_header", "the user's name; there is no e-mail address and no groups"

    def pass_user_headers(self, value: bool) -> tuple[str, str]:
        field = self._ours.gateway["identity_header"]
        note = f"the user's name in {field}; there is no X-Forwarded-Email" if value else f"{field} is always set"
        return "[gateway] identity_header", note

    def prefer_email_to_user(self, value: bool) -> tuple[str, str]:
        return ("[[migration]] principal_attributes", "the login names users by it, too") if value else ("", "")

    def skip_auth_strip_headers(self, value: bool) -> tuple[str, str]:
        note = "" if value else "what a client says of its user is always removed"
        return "[gateway] removed_headers", note

    def upstreams(self, value: list[str]) -> tuple[str, str]:
        left = [why for url in value if (why := self._ours.add_server(url))]
        note = f"not carried over: {', '.join(left)} (static answers, files and TLS to upstreams are not here)"
        return ("[[upstream]], [[route]]" if self._ours.has_servers else ""), note if left else ""

    def upstream_timeout(self, value: float) -> tuple[str, str]:
        self._ours.timeouts["upstream_first_byte_s"] = value
        return "[timeouts] upstream_first_byte_s", "until the response begins, not until it ends"

    def skip_auth_routes(self, value: list[str]) -> tuple[str, str]:
        left = []
        for rule in value:
            method, expression = "", rule
            if found := ROUTE_RULE.fullmatch(rule):
                method, expression = found[1].upper(), found[2]
            if NOT_A_METHOD.match(rule) or not is_expression(expression):
                left.append(rule)
            else:
                self._ours.open.append((method, expression))
        return "[[route]] exempt", _needing_a_ticket(left)

    def skip_auth_regex(self, value: list[str]) -> tuple[str, str]:
        known = [each for each in value if is_expression(each)]
        self._ours.open += [("", each) for each in known]
        left = [each for each in value if each not in known]
        return "[[route]] exempt", _needing_a_ticket(left)

    def skip_auth_preflight(self, value: bool) -> tuple[str, str]:
        self._ours.lets_preflights_pass = value
        return ('[[route]] methods = ["OPTIONS"]', "") if value else ("", "")

    def cookie_name(self, value: str) -> tuple[str, str]:
        return "[[migration]] cookie", f"our cookie has a name of its own, ticket; {value} is what the exchange reads"

    def cookie_domains(self, value: list[str]) -> tuple[str, str]:
        levels = {each.strip(".").count(".") + 1 for each in value}
        if len(levels) != 1 or levels == {1}:
            return "", "these domains have no one number of labels: see cookie_domain_level"
        self._ours.ticket["cookie_domain_level"] = levels.pop()
        return "[ticket] cookie_domain_level", ""

    def cookie_path(self, value: str) -> tuple[str, str]:
        self._ours.ticket["cookie_path"] = value
        return "[ticket] cookie_path", ""

    def cookie_expire(self, value: float) -> tuple[str, str]:
        whole_s = round(value)
        if not whole_s:
            return "", "the cookie ends with the browser, as ours does unless the login says remember"
        self._ours.live_for(whole_s)
        return "[ticket] absolute_lifetime_s", "also idle_timeout_s: there is no other end there, so none here"

    def cookie_secure(self, value: bool) -> tuple[str, str]:
        self._ours.ticket["cookie_secure"] = value
        return "[ticket] cookie_secure", ""

    def cookie_samesite(self, value: str) -> tuple[str, str]:
        if value.capitalize() not in ("Lax", "Strict", "None"):
            return "", "browsers take Lax, which is ours"
        self._ours.ticket["cookie_same_site"] = value.capitalize()
        return "[ticket] cookie_same_site", ""

    def session_store_type(self, value: str) -> tuple[str, str]:
        return ("[store] url", "see redis_connection_url") if value == "redis" else ("", "sessions are in SQLite, here")

    def redis_connection_url(self, value: str) -> tuple[str, str]:
        return self.redis_servers([value])

    def redis_servers(self, value: list[str]) -> tuple[str, str]:
        if not value:
            return "", ""
        self._ours.store["url"] = redis_url(self._table, value)
        return "[store] url", "the number of shards is 16; passwords belong into files: how-to/redis"

    def request_logging(self, value: bool) -> tuple[str, str]:
        self._ours.gateway["access_log"] = "-" if value else ""
        return "[gateway] access_log", ""

    def logging_filename(self, value: str) -> tuple[str, str]:
        if value:
            self._ours.gateway["access_log"] = value
        return "[gateway] access_log", ""

    def metrics_address(self, value: str) -> tuple[str, str]:
        self._ours.admin_at(value)
        return "[gateway] admin", "/metrics; also /healthz and /readyz"

    def ping_path(self, value: str) -> tuple[str, str]:
        return "", f"{value} goes to the application now; the admin listener has /healthz"


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
    "prefer_email_to_user": _Making.prefer_email_to_user,
    "skip_auth_strip_headers": _Making.skip_auth_strip_headers,
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
        found = value.split(",") if isinstance(value, str) else value  # as there
        is_right = isinstance(found, list) and all(isinstance(each, str) for each in found)
    elif key in DURATIONS:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return seconds(f"{value}s" if is_number else str(value))
    else:
        found, is_right = value, isinstance(value, bool if key in SWITCHES else str)
    if not is_right:
        raise ValueError(key)
    return found


def _needing_a_ticket(rules: list[str]) -> str:
    return f"not carried over, so these need a ticket: {', '.join(map(ascii, rules))}" if rules else ""
