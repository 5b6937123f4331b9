"""The rules of `[[migration]]`."""

from __future__ import annotations

import datetime
from pathlib import Path

from fastticket.errors import ConfigError
from fastticket.gateway.problems import Problems
from fastticket.gateway.settings import OLD_COOKIES, Config, MigrationSettings
from fastticket.stores.redis.address import parse_url
from fastticket.web.cookies import NAME

MIGRATIONS_MAX = 8  # OLD_COOKIES_MAX of the data plane
DAY_S = 86_400
KEY_NEEDED = ("oauth2-proxy",)
KEY_TAKEN = ("linkis", "flask-session", "oauth2-proxy")


def check_migrations(config: Config, problems: Problems) -> None:
    """Note in `problems` every rule that the tables break."""
    cookies = config.old_cookies()
    problems.require(len(cookies) <= MIGRATIONS_MAX, "[[migration]]", f"at most {MIGRATIONS_MAX}")
    for settings in config.migration:
        where = f"[[migration]] {settings.source}"
        cookie = settings.cookie or OLD_COOKIES[settings.source]
        _check_cookie(config, cookie, where, problems)
        problems.require(cookies.count(cookie) == 1, f"{where}: cookie", f"{cookie} is there twice")
        _check_until(settings, where, problems)
        _check_url(config, settings, where, problems)
        _check_of_source(settings, where, problems)
        problems.require(
            settings.idle_timeout_s <= 366 * DAY_S, f"{where}: idle_timeout_s", f"must be at most {366 * DAY_S}"
        )
    for upstream in config.upstream:
        problems.require(
            not upstream.linkis_ticket or config.linkis() or "migration" in problems.incomplete,
            f"[[upstream]] {upstream.name}: linkis_ticket",
            'needs a [[migration]] with source = "linkis", for its key and its hash; it goes on after `until`',
        )
    if config.migration:
        problems.attempt(lambda: [config.migration_key(settings) for settings in config.migration])


def _check_cookie(config: Config, cookie: str, where: str, problems: Problems) -> None:
    problems.require(NAME.fullmatch(cookie), f"{where}: cookie", f"{cookie!r} is not the name of a cookie")
    problems.require(
        cookie != config.ticket.cookie,
        f"{where}: cookie",
        f"{cookie} is the name of [ticket] cookie: give that another name, or the way back would be lost with the old cookie",
    )


def _check_until(settings: MigrationSettings, where: str, problems: Problems) -> None:
    try:
        datetime.date.fromisoformat(settings.until)
    except ValueError:
        problems.add(f"{where}: until", f"must be a day as 2027-01-31, not {settings.until!r}")


def _check_url(config: Config, settings: MigrationSettings, where: str, problems: Problems) -> None:
    scheme = settings.url.partition("://")[0]
    if scheme not in ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"):
        problems.add(f"{where}: url", "must begin with redis://, rediss://, unix:// or redis+sentinel://")
        return
    try:
        parse_url(settings.url, Path(config.base))
    except ConfigError as error:
        problems.add(f"{where}: url", str(error).removeprefix("store url: "))


def _check_of_source(settings: MigrationSettings, where: str, problems: Problems) -> None:
    """What only some sources have."""
    source, require = settings.source, problems.require
    require(settings.key_file or source not in KEY_NEEDED, f"{where}: key_file", "is missing: the cookie's secret")
    require(not settings.key_file or source in KEY_TAKEN, f"{where}: key_file", f"{source} has no key")
    require(not settings.user_suffix or source == "linkis", f"{where}: user_suffix", "is for linkis")
    require(
        settings.principal_attributes or source != "starsessions",
        f"{where}: principal_attributes",
        "is missing: which attribute of a session names its user",
    )
