"""Makes an Exchange of a configuration."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import partial

from fastticket.errors import ConfigError
from fastticket.gateway.migration.exchange import Exchange, Migration
from fastticket.gateway.migration.oldstores import FindBegun, LinkisHash, OldStore, Reader, Strings
from fastticket.gateway.migration.springstore import SpringHashes
from fastticket.gateway.settings import OLD_COOKIES, Config, MigrationSettings
from fastticket.moving.formats.linkis_ticket import DEFAULT_CRYPT_KEY, DEFAULT_HEADER, LinkisTickets
from fastticket.moving.sources import flask_session, oauth2_proxy_stays, spring, starsessions
from fastticket.moving.sources.flask_session import FlaskSessions
from fastticket.moving.sources.linkis import IDLE_TIMEOUT_S, LinkisSessions
from fastticket.moving.sources.oauth2_proxy_redis import ProxySessions
from fastticket.moving.sources.spring import SpringSessions
from fastticket.moving.sources.starsessions import StarSessions
from fastticket.sessions.ticketcache import TicketCache
from fastticket.stores.redis.foreign import ForeignRedis

HELD_MAX = 100_000  # exchanged sessions that one gateway watches: as many fields are read each round


def make_exchange(config: Config, cache: TicketCache, before: Exchange | None) -> Exchange:
    """Not started. `before`: of the configuration that this one replaces. ConfigError."""
    migrations = [
        Migration(
            _old_store(config, settings, cache),
            settings.cookie or OLD_COOKIES[settings.source],
            datetime.date.fromisoformat(settings.until),
            settings.write_back and _is_prolonged(settings),
            settings is config.linkis() and any(upstream.linkis_ticket for upstream in config.upstream),
        )
        for settings in config.migration
    ]
    held_max = min(config.cache.capacity, HELD_MAX)
    return Exchange(migrations, cache, config.store.lease_ms, held_max, before, config.known_tokens)


def _is_prolonged(settings: MigrationSettings) -> bool:
    """Whether a use there prolongs a session, and it is known for how long. oauth2-proxy's cookie
    says when its session ends. A key of Flask-Session and starsessions does not say how long it had
    to live when it was written, nor whether it is written anew with each use.
    """
    if settings.source in ("flask-session", "starsessions"):
        return settings.idle_timeout_s > 0
    return settings.source != "oauth2-proxy"


def _old_store(config: Config, settings: MigrationSettings, cache: TicketCache) -> OldStore:
    try:
        redis = ForeignRedis(settings.url, config.base)
    except ConfigError as error:
        raise ConfigError(f"[[migration]] {settings.source}: {error}") from None
    key = config.migration_key(settings)
    if settings.source == "linkis":
        idle_timeout_s = settings.idle_timeout_s or config.ticket.idle_timeout_s or IDLE_TIMEOUT_S
        return linkis_hash(redis, settings, key, idle_timeout_s)
    if settings.source == "spring":
        return _spring(redis, settings, cache.now_ms)
    if settings.source == "oauth2-proxy":
        return _oauth2_proxy(redis, settings, key, cache.now_ms)
    return _strings(redis, settings, key, cache.now_ms)


def linkis_hash(redis: ForeignRedis, settings: MigrationSettings, key: str, idle_timeout_s: int) -> LinkisHash:
    """Of Linkis."""
    tickets = LinkisTickets(
        key or DEFAULT_CRYPT_KEY, header=settings.prefix or DEFAULT_HEADER, user_suffix=settings.user_suffix
    )
    return LinkisHash(redis, LinkisSessions(redis, tickets, idle_timeout_s=idle_timeout_s), tickets, idle_timeout_s)


def _spring(redis: ForeignRedis, settings: MigrationSettings, now_ms: Callable[[], int]) -> OldStore:
    namespace = settings.prefix or spring.NAMESPACE
    reader = SpringSessions(redis, namespace=namespace, principals=settings.principal_attributes or (spring.INDEX,))
    return SpringHashes(redis, reader, namespace, now_ms)


def _oauth2_proxy(redis: ForeignRedis, settings: MigrationSettings, secret: str, now_ms: Callable[[], int]) -> OldStore:
    expire_s = settings.idle_timeout_s or oauth2_proxy_stays.EXPIRE_S
    reader = ProxySessions(
        redis,
        cookie=settings.cookie or OLD_COOKIES[settings.source],
        secret=secret,
        principals=settings.principal_attributes or oauth2_proxy_stays.PRINCIPALS,
        expire_s=expire_s,
        now_ms=now_ms,
    )
    return Strings(
        settings.source,
        redis,
        reader,
        prefix="",
        idle_timeout_s=expire_s,
        identify=reader.identify,
        fault=reader.fault,
        now_ms=now_ms,
    )


def _strings(redis: ForeignRedis, settings: MigrationSettings, key: str, now_ms: Callable[[], int]) -> OldStore:
    names = settings.principal_attributes
    reader: Reader
    identify: Callable[[str], str] = _as_it_is
    begun: FindBegun | None = None  # of Flask-Session: none says when it began
    if settings.source == "flask-session":
        prefix = settings.prefix or flask_session.PREFIX
        reader = FlaskSessions(
            redis,
            prefix=prefix,
            principals=names or flask_session.PRINCIPALS,
            idle_timeout_s=settings.idle_timeout_s,
            secret_key=key,
        )
        if key:
            identify = partial(_unsigned, key)
    else:
        prefix = settings.prefix or starsessions.PREFIX
        # Rolling or not, the key's time to live has the last word.
        reader = stars = StarSessions(redis, principals=names, prefix=prefix, is_rolling=True)
        begun = stars.begun
    return Strings(
        settings.source,
        redis,
        reader,
        prefix=prefix,
        idle_timeout_s=settings.idle_timeout_s or flask_session.LIFETIME_S,
        identify=identify,
        now_ms=now_ms,
        begun=begun,
    )


def _as_it_is(cookie: str) -> str:
    return cookie


def _unsigned(secret_key: str, cookie: str) -> str:
    return flask_session.unsigned(cookie, secret_key) or ""
