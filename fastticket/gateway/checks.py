"""What `fastticket check-config` checks beyond the rules of the file: keys and cache settings,
likely mistakes, and with `--live` the machine and the network.

A problem is something for which a start would be refused. Likely mistakes are warnings.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from fastticket.core.ticket import Keyring
from fastticket.errors import ConfigError, FastticketError, NoStore
from fastticket.gateway.addresses import Address
from fastticket.gateway.admin.access import access_of
from fastticket.gateway.assembly import make_cache, make_exchange
from fastticket.gateway.logfile import LOGS
from fastticket.gateway.lookups import UnresolvedName, look_up_aside
from fastticket.gateway.routing import route_of
from fastticket.gateway.settings import CacheSettings, Config
from fastticket.stores import without_password

_T = TypeVar("_T")

LIVE_TIMEOUT_S = 10.0  # of each live check


def problems_of(config: Config) -> list[str]:
    """Problems that key ring, ticket cache, exchange and admin listener find when they are made."""
    problems: list[str] = []
    keys = Keyring.generate()
    try:
        keys = config.keyring()
    except ConfigError as error:
        problems += error.problems
    try:
        access_of(config)
    except ConfigError as error:
        problems += error.problems
    try:
        make_exchange(config, make_cache(_small(config), keys), None)
    except ConfigError as error:
        problems += error.problems
    return problems


def _small(config: Config) -> Config:
    """The configuration without the values that the file's own rules have refused, and with a near
    cache of one session, to save memory.
    """
    ticket = dataclasses.replace(config.ticket, remember_lifetime_s=max(1, config.ticket.remember_lifetime_s))
    return dataclasses.replace(config, ticket=ticket, cache=CacheSettings(capacity=1))


def warnings_of(config: Config) -> list[str]:
    """Likely mistakes: the gateway would start with them."""
    warnings = [*config.outdated]
    if config.ticket.keys and (others := _others_may(config.base / config.ticket.keys)):
        warnings.append(
            f"{config.base / config.ticket.keys}: everybody on this machine can {others} the keys; chmod o= it"
        )
    if config.tokens.file and (others := _others_may(config.base / config.tokens.file)):
        warnings.append(
            f"{config.base / config.tokens.file}: everybody on this machine can {others} the tokens; chmod o= it"
        )
    login_url = config.gateway.login_url
    hosts = dict.fromkeys(route.host for route in config.route if route.auth == "required")
    lost = [host for host in hosts if login_url[:1] == "/" != login_url[1:2] and not route_of(config, host, login_url)]
    if lost:
        where = f" on {', '.join(filter(None, lost))}" if any(lost) else ""
        warnings.append(
            f"{config.source}: [gateway] login_url: {login_url} falls under no [[route]]{where}: it is 404 there"
        )
    away = [route for route in config.route if route.auth == "required" and not _may_get_cookies(route.path, config)]
    warnings += [
        f"{config.source}: [ticket] cookie_path: {config.ticket.cookie_path}: no browser sends the ticket to [[route]] "
        f"{route.host}{route.path}, which needs one"
        for route in away
    ]
    logins = [route for route in config.route if route.login]
    if logins and all(route.auth == "required" and not route.exempt for route in logins):
        names = ", ".join(route.host + route.path for route in logins)
        warnings.append(
            f'{config.source}: [[route]] {names}: login = true with auth = "required": nobody without a ticket gets there '
            'to log in; auth = "optional" lets them'
        )
    warnings += [
        f"{config.source}: [[route]] {route.host}{route.path}: exempt: {route.exempt!r} matches no path: they begin with /"
        for route in config.route
        if route.exempt[:1].isalnum()
    ]
    return warnings


def _may_get_cookies(path: str, config: Config) -> bool:
    """Whether browsers send the cookie (its `cookie_path`) to the path, or to one below it."""
    route, cookie = f"{path.rstrip('/')}/", f"{config.ticket.cookie_path.rstrip('/')}/"
    return route.startswith(cookie) or cookie.startswith(route)


def _others_may(path: Path) -> str:
    """What all users may do with a file: "write", "read" or ""."""
    mode = path.stat().st_mode
    return "write" if mode & stat.S_IWOTH else "read" if mode & stat.S_IROTH else ""


async def live_problems_of(config: Config) -> list[str]:
    """What the store, the name server and the file system are missing, as seen by the user who runs
    this. No file and no store is made. A faulty configuration is checked as far as possible.
    """
    names = _readable(_names, config)
    stores = [_check_store(each, key) for key, each in _stores(config).items()]
    checks = (*stores, _check_old_stores(config), *(_check_name(*each) for each in names))
    answers = await asyncio.gather(*checks)
    sections = [*answers, _readable(_check_logs, config), _readable(_check_folders, config)]
    return [f"{config.source}: {problem}" for found in sections for problem in found]


def _readable(each: Callable[[Config], Iterator[_T]], config: Config) -> list[_T]:
    """All that it yields, up to a value that the file's own rules have refused."""
    found: list[_T] = []
    with contextlib.suppress(ConfigError):
        found.extend(each(config))
    return found


def _stores(config: Config) -> dict[str, Config]:
    """Of the store and of its mirror, by their keys: the configuration as if that were the only
    one.
    """
    urls = {"url": config.store.url} | ({"mirror_url": config.store.mirror_url} if config.store.mirror_url else {})
    stores = {key: dataclasses.replace(config.store, url=url, mirror_url="") for key, url in urls.items()}
    return {key: dataclasses.replace(config, store=store) for key, store in stores.items()}


async def _check_store(config: Config, key: str) -> list[str]:
    """Whether the store answers. A missing SQLite file must be one that the first start can make.
    `key`: where it is configured.
    """
    where = f"[store] {key}"
    shown = without_password(config.store.url)
    try:
        store = config.open_store(creates=False)
    except ConfigError:
        return []  # the file's own rules have refused the URL
    try:
        async with asyncio.timeout(LIVE_TIMEOUT_S):
            try:
                await store.open()
                await store.time_ms()
            finally:
                await store.aclose()
    except NoStore:
        return [] if (path := _sqlite_path(config)) is None else list(_why_not_made(path, f"{where}: {path}"))
    except TimeoutError:
        return [f"{where}: {shown}: no answer in {LIVE_TIMEOUT_S:g} s"]
    except FastticketError as error:
        return [f"{where}: {shown}: {error}"]
    path = _sqlite_path(config)
    if path and (others := _others_may(path)):
        return [f"{where}: {path}: everybody on this machine can {others} the sessions; chmod o= it"]
    return []


async def _check_old_stores(config: Config) -> list[str]:
    """Whether the stores of `[[migration]]` answer, and allow what a gateway does there."""
    try:
        exchange = make_exchange(config, make_cache(_small(config), Keyring.generate()), None)
    except ConfigError:
        return []  # `problems_of` says it
    if not exchange:
        return []
    try:
        async with asyncio.timeout(LIVE_TIMEOUT_S):
            return await exchange.faults()
    except TimeoutError:
        return [f"[[migration]] url: no answer in {LIVE_TIMEOUT_S:g} s"]
    finally:
        await exchange.aclose()


def _sqlite_path(config: Config) -> Path | None:
    scheme, _, rest = config.store.url.partition(":///")
    return config.base / rest if scheme == "sqlite" and rest else None


def _names(config: Config) -> Iterator[tuple[str, Address]]:
    for address in config.listen_addresses():
        yield "[gateway] listen", address
    admin = config.admin_address()
    if admin:
        yield "[gateway] admin", admin
    for upstream in config.upstream:
        for address in config.server_addresses(upstream):
            yield f"[[upstream]] {upstream.name}: servers", address


async def _check_name(where: str, address: Address) -> list[str]:
    if not address.host:
        return []
    try:
        async with asyncio.timeout(LIVE_TIMEOUT_S):
            await look_up_aside(address)
    except TimeoutError:
        return [f"{where}: {address}: {UnresolvedName('no answer')}"]
    except UnresolvedName as error:
        return [f"{where}: {address}: {error}"]
    return []


def _check_logs(config: Config) -> Iterator[str]:
    for name in LOGS:
        text = getattr(config.gateway, name)
        if text in ("", "-"):
            continue
        path = config.base / text
        where = f"[gateway] {name}: {path}"
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC))
        except FileNotFoundError:
            yield from _why_not_made(path, where)
        except OSError as error:
            yield f"{where}: {error.strerror}"


def _check_folders(config: Config) -> Iterator[str]:
    """The folders of Unix sockets."""
    listen = [("[gateway] listen", address) for address in config.listen_addresses()]
    admin = config.admin_address()
    for where, address in [*listen, *([("[gateway] admin", admin)] if admin else [])]:
        if address.path:
            yield from _why_not_made(Path(address.path), f"{where}: {address.path}")


def _why_not_made(path: Path, where: str) -> Iterable[str]:
    """Why a file cannot be made: its folder is missing, or this user may not write there."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(path.parent.stat().st_mode):
            return (
                []
                if os.access(path.parent, os.W_OK | os.X_OK)
                else [f"{where}: this user may not write in {path.parent}"]
            )
    return [f"{where}: the folder {path.parent} is not there"]
