"""Stores: the shared truth about sessions. `contract` says what each of them does, `sqlite` and
`redis` do it; `open_store` makes the one that a URL names.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from pathlib import Path

from fastticket.errors import ConfigError
from fastticket.stores.contract import Store


def open_store(url: str, *, mirror_url: str = "", base: Path | None = None, creates: bool = True) -> Store:
    """Make the store that a URL names; `TicketCache` opens it.

    `sqlite:///relative/path`, `sqlite:////absolute/path` or `sqlite://:memory:`;
    `redis://[user:password@]host:port/db`, `rediss://`, `unix://`,
    `redis+sentinel://host:port,host:port/master` or `redis+cluster://host:port,host:port`
    (docs/how-to/redis.md). Relative paths are relative to `base`, by default the working directory.
    `mirror_url`: a second store, which gets every change, too (docs/how-to/move-store.md).
    Without `creates`, a place where there is no store yet is a ConfigError when it is opened.
    ConfigError: not a URL of a store.
    """
    return read_urls(url, mirror_url, base=base)(creates)


def read_urls(url: str, mirror_url: str, *, base: Path | None = None) -> Callable[[bool], Store]:
    """As `read_url`, of a store with its mirror; "": without one. ConfigError."""
    make = read_url(url, base=base)
    if not mirror_url:
        return make
    if mirror_url == url:
        raise ConfigError("mirror_url: it is the store's own URL; name another one, or leave it out")
    from fastticket.stores.mirrored import MirroredStore

    try:
        make_mirror = read_url(mirror_url, base=base)
    except ConfigError as error:
        raise ConfigError(f"mirror_url: {str(error).removeprefix('store url: ')}") from None
    return lambda creates: MirroredStore(make(creates), make_mirror(creates))


def read_url(url: str, *, base: Path | None = None) -> Callable[[bool], Store]:
    """As `open_store`, in two steps: this reads all that the URL names, password files included;
    the function that it returns makes the store, given `creates`. ConfigError.
    """
    scheme, separator, rest = url.partition("://")
    base = base or Path()
    if separator and scheme == "sqlite":
        from fastticket.stores.sqlite import SQLiteStore

        if rest == ":memory:":
            return lambda creates: SQLiteStore(None)
        if rest.startswith("/") and len(rest) > 1:
            return lambda creates: SQLiteStore(base / rest[1:], creates=creates)
        raise ConfigError(
            "store url: sqlite takes sqlite:///path (sqlite:////path from the root on) or sqlite://:memory:"
        )
    if separator and scheme.partition("+")[0] in ("redis", "rediss", "unix"):
        from fastticket.stores.redis.address import parse_url
        from fastticket.stores.redis.store import RedisStore

        address = parse_url(url, base)
        return lambda creates: RedisStore(address, creates=creates)
    if not separator:
        is_file = "/" in url or url.endswith((".db", ".sqlite", ".sqlite3"))
        instead = f"sqlite:///{url}" if is_file else "redis://host:6379/0, or sqlite:///path of a file"
        raise ConfigError(f"store url: no scheme: write {instead}")
    raise ConfigError(
        f"store url: {scheme}: known are sqlite://, redis://, rediss://, unix://, "
        "redis+sentinel:// and redis+cluster://"
    )


def without_password(url: str) -> str:
    """The URL with *** for its passwords, to be shown. It is split as the stores split it."""
    scheme, separator, rest = url.partition("://")
    place, question, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    user, colon, _ = credentials.partition(":")
    options = [
        f"{name}=***" if urllib.parse.unquote(name).endswith("password") else f"{name}{equals}{value}"
        for name, equals, value in (option.partition("=") for option in query.split("&"))
    ]
    shown = f"{user}:***" if colon else credentials
    return f"{scheme}{separator}{shown}{at}{hosts}{slash}{path}{question}{'&'.join(options)}"
