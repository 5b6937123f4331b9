"""A store's URL in parts: the servers, how to log in to them, and options."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.crc import key_slot

from fastticket.errors import ConfigError

Command = Sequence[Any]  # its name, then bytes, str and int, at its end perhaps words that are `link.Packed`

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
REDIS_PORT = 6379
SENTINEL_PORT = 26379
TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


@dataclass(frozen=True)
class Address:
    """A store's URL in parts. Secrets stay out of its repr."""

    kind: str  #: single, unix, sentinel or cluster
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""  #: of a Unix socket
    master: str = ""  #: Sentinel's name of it
    db: int = 0
    tls: bool = False
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls_files: tuple[tuple[str, str], ...] = ()
    shards: int = 16
    timeout_s: float = 1.0
    is_replicated: bool = False  #: writes that must last wait for a replica


@dataclass(frozen=True)
class Place:
    """Where a server is, and how to log in to it. Secrets stay out of its repr."""

    host: str = ""
    port: int = 0
    path: str = ""  #: of a Unix socket, in place of host and port
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_files: tuple[tuple[str, str], ...] = ()
    is_sentinel: bool = False  #: a sentinel has no databases, and its run id is not needed

    @property
    def name(self) -> str:
        """In logs and metrics: host:port or the path."""
        return self.path or f"{self.host}:{self.port}"

    def greeting(self) -> list[Command]:
        """The commands that a new connection begins with, in one write."""
        commands: list[Command] = []
        if self.password:
            commands.append(("AUTH", self.username, self.password) if self.username else ("AUTH", self.password))
        if self.db:
            commands.append(("SELECT", self.db))
        if not self.is_sentinel:
            commands.append(("INFO", "server"))
        return commands


def place_of(address: Address, host: str = "", port: int = 0) -> Place:
    """A server with data, at a host and port or at the address' path."""
    return Place(
        *(host, port, "" if host else address.path),
        db=address.db,
        username=address.username,
        password=address.password,
        tls=address.tls,
        tls_files=address.tls_files,
    )


def parse_url(url: str, base: Path) -> Address:
    """The parts of a URL. ConfigError, which repeats no secret."""
    # Not by urlsplit: since a security release of Python it refuses several hosts of which one is
    # in brackets.
    full_scheme, _, rest = url.partition("://")
    rest, hash_sign, _ = rest.partition("#")
    place, _, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    if hash_sign:
        raise ConfigError("store url: can not be read; write what is special in a name or password as %XX")
    if full_scheme.lower() not in SCHEMES:
        raise ConfigError(f"store url: {full_scheme}: no such kind of Redis")
    scheme, _, kind = full_scheme.lower().partition("+")
    credentials, _, where = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    options = _options(query)
    secrets = {name: _secret(options, name, base) for name in ("password", "sentinel_password")}
    if password and secrets["password"]:
        raise ConfigError("store url: password_file: there is a password in the URL, too; leave one of them out")
    values: dict[str, Any] = {
        "kind": "unix" if scheme == "unix" else kind or "single",
        "tls": scheme == "rediss",
        "username": urllib.parse.unquote(username) or None,
        "password": urllib.parse.unquote(password) or secrets["password"],
        "sentinel_username": options.pop("sentinel_username", None),
        "sentinel_password": secrets["sentinel_password"],
        "tls_files": tuple((name, str(base / options.pop(name))) for name in TLS_OPTIONS if name in options),
        "shards": _whole(options.pop("shards", "16"), "shards", 1, 4096),
        "timeout_s": _whole(options.pop("timeout_ms", "1000"), "timeout_ms", 10, 60_000) / 1000,
        "is_replicated": _durability(options.pop("durability", "primary")),
    }
    path = urllib.parse.unquote(slash + path)
    if kind == "sentinel":
        master, _, db = path.strip("/").partition("/")
        if not master:
            raise ConfigError("store url: redis+sentinel: write the master's name after the hosts, as in /mymaster")
        values |= {"hosts": _hosts(where, SENTINEL_PORT), "master": master, "db": _db(db)}
    elif kind == "cluster":
        if path.strip("/"):
            raise ConfigError("store url: redis+cluster: a Cluster has no numbered databases; leave the path out")
        values |= {"hosts": _hosts(where, REDIS_PORT)}
    elif scheme == "unix":
        if not path:
            raise ConfigError("store url: unix: write unix:///path/to/redis.sock")
        values |= {"path": path, "db": _db(options.pop("db", ""))}
    else:
        hosts = _hosts(where, REDIS_PORT)
        if len(hosts) > 1:
            raise ConfigError("store url: redis: several hosts need redis+sentinel or redis+cluster")
        values |= {"hosts": hosts, "db": _db(path.strip("/"))}
    if options:
        raise ConfigError(
            f"store url: {next(iter(options))}: no such option; known are shards, timeout_ms, durability, "
            f"{', '.join(TLS_OPTIONS)}, password_file, sentinel_username, sentinel_password, sentinel_password_file"
        )
    return Address(**values)


def _options(query: str) -> dict[str, str]:
    try:
        return dict(urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise ConfigError("store url: what follows ? must be name=value, joined by &") from None


def _secret(options: dict[str, str], name: str, base: Path) -> str | None:
    """A password that is an option (the sentinels') or the first line of a file (`NAME_file`,
    either's); None: neither.
    """
    said = options.pop(name, None) if name != "password" else None
    file = options.pop(f"{name}_file", None)
    if file is None:
        return said
    if said is not None:
        raise ConfigError(f"store url: {name}_file: there is {name}, too; leave one of them out")
    try:
        text = (base / file).read_text("utf-8-sig")  # not the locale's encoding; with or without a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"store url: {name}_file: {base / file}: {reason}") from None
    secret = text.partition("\n")[0].removesuffix("\r")
    if not secret:
        raise ConfigError(f"store url: {name}_file: {base / file}: its first line is empty; the password belongs there")
    return secret


def _whole(text: str, name: str, low: int, high: int) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ConfigError(f"store url: {name}: must be a whole number from {low} to {high}")
    return int(text)


def _db(text: str) -> int:
    return _whole(text or "0", "database", 0, 1 << 30)


def _durability(text: str) -> bool:
    if text not in ("primary", "replicated"):
        raise ConfigError("store url: durability: must be primary or replicated")
    return text == "replicated"


def _hosts(text: str, default_port: int) -> tuple[tuple[str, int], ...]:
    found = []
    for part in text.split(","):
        try:
            split = urllib.parse.urlsplit(f"//{part}")
            host, port = split.hostname, split.port
        except ValueError:
            host, port = None, None
        if not host:
            raise ConfigError("store url: hosts: must be host:port or [v6]:port, joined by commas")
        found.append((host, port or default_port))
    return tuple(found)


def slot_of(key: str) -> int:
    """The Cluster's hash slot of a key."""
    return int(key_slot(key.encode()))
