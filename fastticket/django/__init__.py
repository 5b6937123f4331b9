"""Django with tickets for sessions: whoever is logged in at one application is logged in at all
that share the store and the keys.

    SESSION_ENGINE = "fastticket.django.sessions"
    SESSION_COOKIE_NAME = "ticket"  # as the other applications and the gateway call it
    FASTTICKET = {"store": "redis://127.0.0.1:6379/0", "keys": "keys.toml"}
    MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "fastticket.django.middleware.TicketMiddleware",  # in place of Django's AuthenticationMiddleware
        ...
    ]

What else is in FASTTICKET are settings of `fastticket.TicketCache`; and `audience`, the key ring's;
`create_unknown_users`, whether a ticket's principal that has no user here gets one;
`cookie_partitioned`, what SESSION_COOKIE_* has no word for; and `project`, a word that tells
projects apart which have one SECRET_KEY.

This file imports no model: it may be imported before Django's applications are loaded.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from fastticket.core.ticket import Keyring
from fastticket.stores import open_store
from fastticket.sync import TicketCache

__all__ = ["ticket_cache"]

OWN_SETTINGS = frozenset({"store", "keys", "audience", "create_unknown_users", "cookie_partitioned", "project"})
NEAR_ATTRIBUTES_BYTES = 16_000_000  # unless said otherwise: who the user is stands in the attributes

_making = threading.Lock()  # `functools.cache` alone lets threads that come together make one each


def ticket_cache() -> TicketCache:
    """The process's ticket cache, of the settings in FASTTICKET. ConfigError, ImproperlyConfigured.

    For what Django has no name for: `ticket_cache().logout_everywhere("alice")`,
    `.sessions("alice")`.
    """
    with _making:
        return _cache_of_settings()


@functools.cache
def _cache_of_settings() -> TicketCache:
    said = fastticket_settings()
    if "store" not in said:
        raise ImproperlyConfigured('FASTTICKET must name the store: {"store": "redis://127.0.0.1:6379/0", ...}')
    audience = said.get("audience", "default")
    keys = (
        Keyring.from_file(said["keys"], audience)
        if "keys" in said
        else Keyring.from_env("FASTTICKET_KEYS", audience=audience)
    )
    others = {name: value for name, value in said.items() if name not in OWN_SETTINGS}
    others.setdefault("near_attributes_bytes", NEAR_ATTRIBUTES_BYTES)
    try:
        return TicketCache(open_store(said["store"]), keys, **others)
    except TypeError as error:
        raise ImproperlyConfigured(f"FASTTICKET: {error}") from error


def fastticket_settings() -> Mapping[str, Any]:
    """What the project's settings say. ImproperlyConfigured: nothing."""
    said = getattr(settings, "FASTTICKET", None)
    if not said:
        raise ImproperlyConfigured('FASTTICKET is missing: {"store": "redis://127.0.0.1:6379/0", "keys": "keys.toml"}')
    return said
