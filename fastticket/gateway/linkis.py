"""Reads Apache Linkis' own files, `linkis.properties` and `linkis-mg-gateway.properties`, as a
configuration.

A setting that has nothing to do with the gateway's sessions is ignored, and one line says how many
were. One about sessions that is not understood is an error, and so is one that makes Linkis refuse
requests which fastticket would admit. docs/how-to/linkis.md says what each setting becomes.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastticket.errors import ConfigError
from fastticket.gateway.exemption import Exemption
from fastticket.gateway.linkisfiles import CRYPT_KEY, DEFAULT_CRYPT_KEY, MARK, LinkisFiles
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
VERSION = "wds.linkis.server.version"
TICKET_HEADER = "wds.linkis.ticket.header"
SUFFIX_SWITCH = "linkis.username.suffix.enable"
SUFFIX = "linkis.username.suffix.name"
TOKEN_SWITCH = "wds.linkis.gateway.conf.enable.token.auth"  # noqa: S105
REFERER = "wds.linkis.server.security.referer.validate"
WHITELIST = "wds.linkis.enable.gateway.auth"
SSO = "wds.linkis.gateway.conf.enable.sso"
TEST_MODE = "wds.linkis.test.mode"
OAUTH = "wds.linkis.gateway.conf.enable.oauth.auth"
PROXY_USER = "wds.linkis.gateway.conf.enable.proxy.user"

#: What is understood, with Linkis' built-in values.
DEFAULTS = {
    REDIS + "cache.enabled": "false",
    REDIS + "host": "127.0.0.1",
    REDIS + "port": "6379",
    REDIS + "password": "",
    REDIS + "sentinel.master": "",
    REDIS + "sentinel.nodes": "",
    REDIS + "sentinel.password": "",
    TIMEOUT: "2h",
    COOKIE: "linkis_user_session_ticket_id_v1",
    PASS_BY_USER: "",
    PASS_BY_CONF: "/dws/",
    PASS_BY_REGEX: ".*visualis.*share.*",
    SSL: "false",
    DOMAIN_SWITCH: "false",
    DOMAIN_LEVEL: "3",
    VERSION: "v1",
    CRYPT_KEY: DEFAULT_CRYPT_KEY,
    TICKET_HEADER: "bfs_",
    SUFFIX_SWITCH: "false",
    SUFFIX: "_c",
    TOKEN_SWITCH: "false",
    **dict.fromkeys((REFERER, WHITELIST, SSO, OAUTH, TEST_MODE, PROXY_USER), "false"),
}
#: Keys with these prefixes decide who is admitted: they are understood, or refused.
OF_SESSIONS = ("linkis.session.", "wds.linkis.session.", "wds.linkis.server.web.session.")
#: With these, Linkis refuses requests that fastticket would admit.
STRICTER = {
    REFERER: "Linkis refuses requests by their Referer",
    WHITELIST: "Linkis admits the addresses of auth.txt only",
}
#: With these, Linkis admits requests that fastticket refuses, or as another user.
OTHERWISE = {
    SSO: "fastticket asks no single sign-on: linkis-gateway behind it does, or a login service, which sends X-Ticket-Login",
    OAUTH: "fastticket asks no OAuth: linkis-gateway behind it does, or a login service, which sends X-Ticket-Login",
    TEST_MODE: "Linkis admits everybody as a test user; fastticket admits nobody without a login",
    PROXY_USER: "fastticket maps no user to another: a login service names the user that services are to see",
}

UPSTREAM, LOGIN_UPSTREAM = "linkis", "login"
#: What Linkis' files do not contain.
OF_OPTIONS = {
    "[gateway] listen": "--listen, or 127.0.0.1:8080",
    "[gateway] admin": "--admin, or none",
    "[gateway] trusted_proxies": "--trusted-proxy, or none",
    "[gateway] threads": "--threads, or 1",
    "[ticket] keys": "--keys, or the environment's FASTTICKET_KEYS",
    f"[[upstream]] {UPSTREAM}": "--upstream; linkis_ticket: --linkis-ticket, if there is --login",
    f"[[upstream]] {LOGIN_UPSTREAM}": "--login",
}
#: What Spring tells of a service. Services leave it open because only the gateway reaches them.
ACTUATOR = "/actuator"
UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "": 1e-3}

#: An expression that matches this path matches everything.
UNLIKELY_PATH = b"/a/path/that/no/expression/has/in/mind"

#: A regular expression for one path and everything below it. A dot in it is taken literally, which
#: exempts fewer paths than the expression.
PLAIN_PREFIX = re.compile(r"\^?(/(?:[A-Za-z0-9_/-]|\\?\.(?![*+?{]))*?)/?(?:(?:\(\.\*\)|\.\*|\.\+)\$?|\$)?")


@dataclasses.dataclass(frozen=True)
class Around:
    """What a gateway has around it, and Linkis' files do not contain. `keys`, `tokens`: files."""

    listen: Sequence[str]
    upstream: Sequence[str]  #: servers: the linkis-gateways or, with `login`, the services
    keys: str = ""
    tokens: str = ""
    until: str = ""  #: the last day on which Linkis' own sessions go on; "": they do not
    admin: str = ""
    trusted_proxies: Sequence[str] = ()
    login: Sequence[str] = ()  #: servers of a login service: fastticket is in the place of linkis-gateway
    linkis_ticket: str = ""  #: which services get then
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)  #: threads, or workers

    @property
    def is_in_front(self) -> bool:
        """Whether linkis-gateways work on behind this."""
        return bool(self.until and not self.login)


def load_linkis(paths: Sequence[Path], around: Around, *, names_ignored: bool = False) -> Config:
    """Read files, of which a later one wins. `names_ignored`: name each setting that is ignored, in
    a line of its own. ConfigError.
    """
    files = LinkisFiles(paths, DEFAULTS)
    base = paths[0].parent
    _look_at_names(files, names_ignored)
    _look_at_switches(files)
    _look_at_login(around)
    origins = dict(OF_OPTIONS)
    url = _store_url(files, origins)
    gateway = {"listen": list(around.listen), "admin": around.admin, "trusted_proxies": list(around.trusted_proxies)}
    services = {"name": UPSTREAM, "servers": list(around.upstream)}
    if around.login:
        services["linkis_ticket"] = around.linkis_ticket
    login = [{"name": LOGIN_UPSTREAM, "servers": list(around.login)}] if around.login else []
    table = {
        "gateway": {**gateway, **around.sizes},
        "ticket": _ticket(files, origins, goes_beside=bool(around.until)) | {"keys": _beside(base, around.keys)},
        "tokens": _tokens(files, _beside(base, around.tokens), origins, is_in_front=not around.login),
        "store": {"url": url},
        "upstream": [services, *login],
        "route": _routes(files, origins, around),
        "migration": [_migration(files, base, url, around.until, origins)] if around.until else [],
    }
    config = dataclasses.replace(read_config(table, files.source, base), origins=origins)
    _look_at_hosts(config)
    return config


def _beside(base: Path, file: str) -> str:
    """The name of a file from the folder of Linkis' files, if it lies there or below: it can go to
    another machine with them. Else the whole path. "": there is none.
    """
    path = Path(file).absolute()
    return str(path.relative_to(base.absolute()) if path.is_relative_to(base.absolute()) else path) if file else ""


def _look_at_login(around: Around) -> None:
    if around.login and not around.until:
        raise ConfigError(
            "--login puts fastticket in the place of linkis-gateway, whose sessions go on: --until is missing"
        )
    if bool(around.login) != bool(around.linkis_ticket):
        raise ConfigError(
            "--login and --linkis-ticket go together: des for services of Linkis up to 1.8.0, aes-gcm for later ones"
        )


def _look_at_hosts(config: Config) -> None:
    """Behind a balancer that is not trusted, every client has its address."""
    if config.known_tokens and config.known_tokens.have_hosts and not config.gateway.trusted_proxies:
        log.warning(
            "%s: tokens are for some addresses only (legal_hosts), and there is no --trusted-proxy: if a balancer is in "
            "front, every program has its address, and is refused",
            config.base / config.tokens.file,
        )


def _look_at_names(files: LinkisFiles, names_ignored: bool) -> None:
    """Refuse what is about sessions and not understood; say what is ignored."""
    ignored = []
    for name in files.names():
        marked = name.removeprefix(MARK)
        if name != marked and (marked in DEFAULTS or marked.startswith(OF_SESSIONS)):
            raise ConfigError(
                f"{files.source_of(name)}: begins with a byte order mark, which Java takes for a part of the first name: "
                f"Linkis does not see {marked}; save it without the mark"
            )
        if name != marked:
            log.warning(
                "%s: begins with a byte order mark, which Java takes for a part of the first name; save it without",
                files.source_of(name),
            )
        elif name not in DEFAULTS and name.startswith(OF_SESSIONS):
            raise ConfigError(f"{files.where(name)}: is about sessions, and fastticket does not know it; take it out")
        elif name not in DEFAULTS:
            ignored.append(name)
    for name in ignored if names_ignored else ():
        log.warning("%s: is not about the gateway's sessions: ignored", files.where(name))
    if ignored and not names_ignored:
        count = f"{len(ignored)} settings are" if len(ignored) > 1 else "1 setting is"
        log.warning("%s: %s not about the gateway's sessions: ignored; --verbose names each", files.source, count)


def _look_at_switches(files: LinkisFiles) -> None:
    for name, reason in STRICTER.items():
        if files.switch(name):
            raise ConfigError(f"{files.where(name)}: {reason}, and fastticket does not: let the proxy in front do it")
    for name, reason in OTHERWISE.items():
        if files.switch(name):
            log.warning("%s: %s", files.where(name), reason)


def _ticket(files: LinkisFiles, origins: dict[str, str], *, goes_beside: bool) -> dict[str, Any]:
    """`goes_beside`: Linkis' cookie stays, so ours needs another name."""
    idle_timeout_s = _seconds(files)
    table: dict[str, Any] = {
        "cookie": TicketSettings.cookie if goes_beside else files.value(COOKIE),
        "cookie_secure": files.switch(SSL),
        "idle_timeout_s": idle_timeout_s,
        "absolute_lifetime_s": max(TicketSettings.absolute_lifetime_s, idle_timeout_s),
    }
    named = {"cookie_secure": [SSL], "idle_timeout_s": [TIMEOUT]}
    if not goes_beside:
        named["cookie"] = [COOKIE]
    if files.switch(DOMAIN_SWITCH):
        table["cookie_domain_level"] = files.whole(DOMAIN_LEVEL)
        named["cookie_domain_level"] = [DOMAIN_SWITCH, DOMAIN_LEVEL]
    origins |= {f"[ticket] {key}": files.origin(*names) for key, names in named.items()}
    return table


def _store_url(files: LinkisFiles, origins: dict[str, str]) -> str:
    if not files.switch(REDIS + "cache.enabled"):
        origins["[store] url"] = f"{files.origin(REDIS + 'cache.enabled')}: the sessions are in a file"
        return StoreSettings.url
    password, master = files.value(REDIS + "password"), files.value(REDIS + "sentinel.master")
    credentials = f":{urllib.parse.quote(password, safe='')}@" if password else ""
    if not master:
        origins["[store] url"] = files.origin(*(REDIS + name for name in ("host", "port", "password")))
        return f"redis://{credentials}{files.value(REDIS + 'host')}:{files.whole(REDIS + 'port')}/0"
    if files.has(REDIS + "host"):
        log.warning("%s: there is a Sentinel master, too: Sentinel wins, as in Linkis", files.where(REDIS + "host"))
    origins["[store] url"] = files.origin(
        *(REDIS + name for name in ("sentinel.master", "sentinel.nodes", "sentinel.password", "password"))
    )
    nodes, secret = files.value(REDIS + "sentinel.nodes").replace(" ", ""), files.value(REDIS + "sentinel.password")
    if not nodes:
        raise ConfigError(f"{files.where(REDIS + 'sentinel.nodes')}: missing; write host:port,host:port")
    option = f"?sentinel_password={urllib.parse.quote(secret, safe='')}" if secret else ""
    return f"redis+sentinel://{credentials}{nodes}/{urllib.parse.quote(master, safe='')}{option}"


def _tokens(files: LinkisFiles, file: str, origins: dict[str, str], *, is_in_front: bool) -> dict[str, Any]:
    """Linkis has its tokens in MySQL: the file is that table, exported."""
    is_on = files.switch(TOKEN_SWITCH)
    if file and not is_on:
        raise ConfigError(f"{files.where(TOKEN_SWITCH)}: is false: leave --tokens out, or set it to true")
    if is_on and not file:
        log.warning(
            "%s: is true, and Linkis' tokens are in MySQL: export the table and name it with --tokens; without it, token "
            "clients get 401",
            files.where(TOKEN_SWITCH),
        )
    if not file:
        return {}
    origins["[tokens] file"] = f"--tokens; {files.origin(TOKEN_SWITCH)}"
    reasons = ("services read their user from a ticket of Linkis", "a linkis-gateway behind fastticket needs them, too")
    origins["[tokens] forward"] = reasons[is_in_front]
    return {"file": file, "forward": is_in_front}


def _migration(files: LinkisFiles, base: Path, url: str, until: str, origins: dict[str, str]) -> dict[str, Any]:
    """How sessions of Linkis go on here."""
    if not files.switch(REDIS + "cache.enabled"):
        raise ConfigError(
            f"{files.where(REDIS + 'cache.enabled')}: is false: Linkis' sessions are in its gateways' memory, where nothing "
            "can find them; leave --until out, or set it to true, and restart the gateways first"
        )
    origins["[[migration]] linkis"] = "--until; " + files.origin(COOKIE, TICKET_HEADER, SUFFIX_SWITCH, CRYPT_KEY)
    key_file = _beside(base, files.source_of(CRYPT_KEY)) if files.has(CRYPT_KEY) else ""
    return {
        "source": "linkis",
        "url": url,
        "until": until,
        "cookie": files.value(COOKIE),
        "key_file": key_file,
        "prefix": files.value(TICKET_HEADER),
        "user_suffix": files.value(SUFFIX) if files.switch(SUFFIX_SWITCH) else "",
    }


# --- routes


def _routes(files: LinkisFiles, origins: dict[str, str], around: Around) -> list[dict[str, Any]]:
    # On a public path, Linkis' gateway and services still look at a ticket that comes along:
    # auth = "optional". With "none", services would never get one.
    api = f"/api/rest_j/{files.value(VERSION)}"
    user, offline = f"{api}/user", f"{api}/offline"
    login, public_key = f"{user}/login", f"{user}/publicKey"
    plain, rest = _alternatives(files.value(PASS_BY_REGEX))
    paths = [(PASS_BY_REGEX, path) for path in plain]
    for name in (PASS_BY_USER, PASS_BY_CONF):
        paths += [(name, path.strip()) for path in files.value(name).split(",")]
    is_sso = around.is_in_front and files.switch(SSO)
    of_login = {"upstream": LOGIN_UPSTREAM} if around.login else {}
    routes: list[dict[str, Any]] = [
        {"path": login, "auth": "optional", "login": True, **of_login},
        {"path": public_key, "auth": "none", **of_login},
        *([{"path": user, "auth": "optional", **of_login}] if around.until else []),
        {"path": offline, "auth": "required"},
        {"path": "/", "auth": "optional"} if is_sso else {"path": "/", "exempt": _exemption(files, rest)},
    ]
    if is_sso:
        log.warning(
            '%s: [[route]] / has auth = "optional": Linkis\' own 401, which leads browsers to the single sign-on, answers '
            "those without a session",
            files.where(SSO),
        )
    origins |= {
        f"[[route]] {user}": "login, logout, OAuth, who it is: what answers there judges by itself",
        f"[[route]] {login}": "Linkis' login; a login ends the session that the client came with",
        f"[[route]] {public_key}": "the login page asks for it",
        f"[[route]] {offline}": "never public, whatever the files say: it takes an instance out of service",
        "[[route]] /": files.origin(SSO)
        if is_sso
        else f"all the rest needs a ticket; exempt: {files.origin(PASS_BY_REGEX)}",
    }
    for name, path in paths:
        prefix = path.rstrip("/")
        if path and not prefix:
            raise ConfigError(f"{files.where(name)}: {path} would let everybody in everywhere; name what is public")
        if _is_below(prefix, offline) or (name == PASS_BY_USER and _is_below(prefix, ACTUATOR)):
            log.warning(
                "%s: %s needs a ticket all the same: services leave it open to gateways", files.where(name), path
            )
        elif prefix and prefix not in (login, public_key, *([user] if around.until else [])):
            routes = [route for route in routes if route["path"] != prefix]
            of_user = of_login if _is_below(prefix, user) else {}
            routes.insert(-1, {"path": prefix, "auth": "optional", **of_user})
            origins[f"[[route]] {prefix}"] = files.origin(name)
    return routes


def _is_below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")


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


def _exemption(files: LinkisFiles, regex: str) -> str:
    """The expression, if RE2 knows it; else "", with a warning: its paths need a ticket.
    ConfigError: it matches everything.
    """
    where = files.where(PASS_BY_REGEX)
    try:
        if Exemption(regex).covers(UNLIKELY_PATH):
            raise ConfigError(f"{where}: {regex} would let everybody in everywhere; name what is public")
    except ValueError as error:
        log.warning("%s: %s: %s; what it matches needs a ticket", where, regex, error)
        return ""
    return regex


# --- values


def _seconds(files: LinkisFiles) -> int:
    """Seconds of `2h`, `30m`, `7200s`; a number without a unit is ms, as in Linkis."""
    text, where = files.value(TIMEOUT), files.where(TIMEOUT)
    split = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([a-z]*)", text.lower())
    if not split or split[2] not in UNIT_S:
        raise ConfigError(f"{where}: must be like 2h, 30m or 7200s, not {text}")
    seconds = int(float(split[1]) * UNIT_S[split[2]])
    if seconds < 1:
        raise ConfigError(f"{where}: is {text}, less than a second; a number without a unit is ms")
    return seconds
