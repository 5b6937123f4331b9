"""Reads Apache Linkis' `linkis.properties` as a configuration.

A key that has nothing to do with the gateway's sessions is ignored with a warning. A key about
sessions that is not understood is an error, because ignoring it could admit requests that Linkis
refuses. docs/how-to/linkis.md says what each key becomes.
"""

from __future__ import annotations

import codecs
import logging
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastticket.errors import ConfigError
from fastticket.gateway.exemption import Exemption
from fastticket.gateway.properties import WHITE, MalformedProperties, read_properties
from fastticket.gateway.reader import read_config
from fastticket.gateway.settings import Config, StoreSettings, TicketSettings

log = logging.getLogger("fastticket.gateway")

REDIS = "linkis.session.redis."
TIMEOUT = "wds.linkis.server.web.session.timeout"
COOKIE = "wds.linkis.session.ticket.key"
PASS_BY_USER = "wds.linkis.server.user.restful.uri.pass.auth"  # noqa: S105 -- paths
PASS_BY_CONF = "wds.linkis.gateway.conf.url.pass.auth"  # noqa: S105
PASS_BY_REGEX = "wds.linkis.gateway.no.auth.url.regex"  # noqa: S105
SSL = "wds.linkis.server.security.ssl"
DOMAIN_SWITCH = "wds.linkis.gateway.cookie.domain.setup.switch"
DOMAIN_LEVEL = "wds.linkis.gateway.domain.level"

KNOWN = {
    *(REDIS + name for name in ("cache.enabled", "host", "port", "password")),
    *(REDIS + "sentinel." + name for name in ("master", "nodes", "password")),
    *(TIMEOUT, COOKIE, PASS_BY_USER, PASS_BY_CONF, PASS_BY_REGEX, SSL, DOMAIN_SWITCH, DOMAIN_LEVEL),
}
#: Keys with these prefixes decide who is admitted: they are understood, or refused.
OF_SESSIONS = ("linkis.session.", "wds.linkis.session.", "wds.linkis.server.web.session.")

LINKIS_COOKIE = "linkis_user_session_ticket_id_v1"
LINKIS_LOGIN = "/api/rest_j/v1/user/login"
LINKIS_PUBLIC_KEY = "/api/rest_j/v1/user/publicKey"  # the login page asks for it
MARK = "\ufeff"
LINKIS_TIMEOUT = "2h"
LINKIS_DOMAIN_LEVEL = 3
UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "": 1e-3}

#: An expression that matches this path matches everything.
UNLIKELY_PATH = b"/a/path/that/no/expression/has/in/mind"

#: A regular expression for one path and everything below it. A dot in it is taken literally, which
#: exempts fewer paths than the expression.
PLAIN_PREFIX = re.compile(r"\^?(/(?:[A-Za-z0-9_/-]|\\?\.(?![*+?{]))*?)/?(?:(?:\(\.\*\)|\.\*|\.\+)\$?|\$)?")


def load_linkis(
    path: Path, listen: Iterable[str], upstream: Iterable[str], keys: str, sizes: Mapping[str, int] | None = None
) -> Config:
    """Read a file. What it does not contain comes as arguments: addresses to listen on, servers of
    the upstream, the key file, and `sizes`: threads, or workers. ConfigError.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    properties = _properties(raw, str(path))
    _name_the_unknown(properties, str(path))
    table = {
        "gateway": {"listen": list(listen), **(sizes or {})},
        "ticket": _ticket(properties, str(path)) | {"keys": keys},
        "store": {"url": _store_url(properties, str(path))},
        "upstream": [{"name": "linkis", "servers": list(upstream)}],
        "route": _routes(properties, str(path)),
    }
    return read_config(table, str(path), path.parent)


def _properties(raw: bytes, source: str) -> dict[str, str]:
    """The properties of a file. Values are stripped of white space, except passwords, which stay as
    Java reads them. ConfigError.
    """
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(
            f"{source}: is UTF-16, which Linkis does not read; save it as UTF-8 without a byte order mark"
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # as Java reads it
    try:
        properties = read_properties(text)
    except MalformedProperties as error:
        raise ConfigError(f"{source}: {error}; Linkis does not read such a file either") from None
    for name, value in properties.items():
        if not _is_text(name + value):
            raise ConfigError(
                f"{source}: {name.encode(errors='backslashreplace').decode()}: has half a character (a \\uD800 to \\uDFFF by itself)"
            )
        if not name.endswith("password"):
            properties[name] = value.strip(WHITE)
        elif value.strip(WHITE) != value and name in KNOWN:
            log.warning("%s: %s: ends in white space, which Java takes for a part of it", source, name)
    return properties


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name_the_unknown(properties: Mapping[str, str], source: str) -> None:
    for name in properties:
        marked = name.removeprefix(MARK)
        if name != marked and (marked in KNOWN or marked.startswith(OF_SESSIONS)):
            raise ConfigError(
                f"{source}: begins with a byte order mark, which Java takes for a part of the first name: Linkis does not see "
                f"{marked}; save it without the mark"
            )
        if name != marked:
            log.warning(
                "%s: begins with a byte order mark, which Java takes for a part of the first name; save it without",
                source,
            )
            continue
        if name in KNOWN:
            continue
        if name.startswith(OF_SESSIONS):
            raise ConfigError(f"{source}: {name}: is about sessions, and fastticket does not know it; take it out")
        log.warning("%s: %s: unknown, ignored", source, name)


def _ticket(properties: Mapping[str, str], source: str) -> dict[str, Any]:
    idle_timeout_s = _seconds(properties.get(TIMEOUT) or LINKIS_TIMEOUT, source)
    table: dict[str, Any] = {
        "cookie": properties.get(COOKIE) or LINKIS_COOKIE,
        "cookie_secure": _switch(properties, SSL, source),
        "idle_timeout_s": idle_timeout_s,
        "absolute_lifetime_s": max(TicketSettings.absolute_lifetime_s, idle_timeout_s),
    }
    if _switch(properties, DOMAIN_SWITCH, source):
        table["cookie_domain_level"] = _whole(properties, DOMAIN_LEVEL, LINKIS_DOMAIN_LEVEL, source)
    return table


def _store_url(properties: Mapping[str, str], source: str) -> str:
    if not _switch(properties, REDIS + "cache.enabled", source):
        return StoreSettings.url
    password = properties.get(REDIS + "password", "")
    credentials = f":{urllib.parse.quote(password, safe='')}@" if password else ""
    master = properties.get(REDIS + "sentinel.master", "")
    if master:
        nodes = properties.get(REDIS + "sentinel.nodes", "").replace(" ", "")
        if not nodes:
            raise ConfigError(f"{source}: {REDIS}sentinel.nodes: missing; write host:port,host:port")
        secret = properties.get(REDIS + "sentinel.password", "")
        option = f"?sentinel_password={urllib.parse.quote(secret, safe='')}" if secret else ""
        return f"redis+sentinel://{credentials}{nodes}/{urllib.parse.quote(master, safe='')}{option}"
    host = properties.get(REDIS + "host") or "127.0.0.1"
    return f"redis://{credentials}{host}:{_whole(properties, REDIS + 'port', 6379, source)}/0"


def _routes(properties: Mapping[str, str], source: str) -> list[dict[str, Any]]:
    # Where the expression matches, Linkis still looks at a ticket that comes along, and names its
    # user to the service: auth = "optional".
    plain, rest = _alternatives(properties.get(PASS_BY_REGEX, "").strip())
    paths = [(PASS_BY_REGEX, "optional", path) for path in plain]
    for name in (PASS_BY_USER, PASS_BY_CONF):
        paths += [(name, "none", path.strip()) for path in properties.get(name, "").split(",")]
    free = {LINKIS_PUBLIC_KEY: {"path": LINKIS_PUBLIC_KEY, "auth": "none"}}
    for name, auth, path in paths:
        prefix = path.rstrip("/")
        if path and not prefix:
            raise ConfigError(f"{source}: {name}: {path} would let everybody in everywhere; name what is public")
        if prefix and prefix != LINKIS_LOGIN:
            free[prefix] = {"path": prefix, "auth": auth}
    return [
        {"path": LINKIS_LOGIN, "auth": "optional", "login": True},
        *free.values(),
        {"path": "/", "auth": "required", "exempt": _exemption(rest, source)},
    ]


def _alternatives(regex: str) -> tuple[list[str], str]:
    """The alternatives of an expression: the paths of those that are only a prefix, which become
    routes, and the rest as one expression.
    """
    inner = regex[1:-1] if re.fullmatch(r"\([^()]*\)", regex) else regex
    plain, rest = [], []
    for alternative in re.split(r"\|(?![^(]*\))", inner) if inner else []:
        prefix = PLAIN_PREFIX.fullmatch(alternative)
        if prefix:
            plain.append(prefix[1].replace("\\.", ".") or "/")
        else:
            rest.append(alternative)
    return plain, "|".join(rest)


def _exemption(regex: str, source: str) -> str:
    """The expression, if RE2 knows it; else "", with a warning: its paths need a ticket.
    ConfigError: it matches everything.
    """
    try:
        if Exemption(regex).covers(UNLIKELY_PATH):
            raise ConfigError(
                f"{source}: {PASS_BY_REGEX}: {regex} would let everybody in everywhere; name what is public"
            )
    except ValueError as error:
        log.warning("%s: %s: %s: %s; what it matches needs a ticket", source, PASS_BY_REGEX, regex, error)
        return ""
    return regex


def _switch(properties: Mapping[str, str], name: str, source: str) -> bool:
    text = properties.get(name, "").lower() or "false"
    if text not in ("true", "false"):
        raise ConfigError(f"{source}: {name}: must be true or false, not {text}")
    return text == "true"


def _whole(properties: Mapping[str, str], name: str, default: int, source: str) -> int:
    text = properties.get(name) or str(default)
    if not text.isdecimal():
        raise ConfigError(f"{source}: {name}: must be a whole number, not {text}")
    return int(text)


def _seconds(text: str, source: str) -> int:
    """Seconds of `2h`, `30m`, `7200s`; a number without a unit is ms, as in Linkis."""
    split = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]*)", text.lower())
    if not split or split[2] not in UNIT_S:
        raise ConfigError(f"{source}: {TIMEOUT}: must be like 2h, 30m or 7200s, not {text}")
    seconds = int(float(split[1]) * UNIT_S[split[2]])
    if seconds < 1:
        raise ConfigError(f"{source}: {TIMEOUT}: is {text}, less than a second; a number without a unit is ms")
    return seconds
