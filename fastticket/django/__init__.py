"""Django with tickets for sessions: a login at one application is a login at all that share the
store and the keys.

    SESSION_ENGINE = "fastticket.django.sessions"
    SESSION_COOKIE_NAME = "ticket"  # the name that the other applications and the gateway use
    FASTTICKET = {"store": "redis://127.0.0.1:6379/0", "keys": BASE_DIR / "keys.toml"}
    INSTALLED_APPS = [..., "fastticket.django"]
    MIDDLEWARE = [
        ...
        "django.contrib.sessions.middleware.SessionMiddleware",
        "fastticket.django.middleware.TicketMiddleware",  # not Django's AuthenticationMiddleware
        ...
    ]

What FASTTICKET may hold:

    store                 the store's URL, as of `fastticket.open_store`, or a store
    keys                  the key file (a relative path goes by the current folder), or a key ring;
                          without it FASTTICKET_KEYS of the environment has the keys
    audience              the key ring's; "default" without it
    create_unknown_users  whether a principal that has no user here gets one; False without it
    cookie_partitioned    whether the session's cookie is Partitioned; False without it
    cookie_domain_level   how many last labels of the host its Domain has, in place of
                          SESSION_COOKIE_DOMAIN; 0 without it: the host alone
    end_sessions_on_password_change  True without it (fastticket/django/passwords.py)
    moved_from            the engine before: its sessions go on (fastticket/django/moving.py)
    moved_cookie          its cookie; "sessionid" without it
    project               a word that tells projects apart which have the same SECRET_KEY
    test                  what is different while tests run
    all others            settings of `fastticket.TicketCache`

While Django's tests run, the store is one in memory, with keys of its own: as tests have a database
of their own, no test sees, or ends, a session of the real store. `test` has others.

This file imports no model: it may be imported before Django's applications are loaded.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from fastticket.core.ticket import Keyring
from fastticket.stores import open_store
from fastticket.sync import TicketCache

__all__ = ["ticket_cache"]

OWN_SETTINGS = frozenset(
    {
        *("store", "keys", "audience", "project", "test"),
        *("moved_from", "moved_cookie"),
        *("create_unknown_users", "end_sessions_on_password_change", "cookie_partitioned", "cookie_domain_level"),
    }
)
TEST_STORE = "sqlite://:memory:"
NEAR_ATTRIBUTES_BYTES = 16_000_000  # by default: a request for its user reads the attributes

_making = threading.Lock()  # `functools.cache` alone lets threads that call together make one each


def ticket_cache() -> TicketCache:
    """The process's ticket cache, made from the settings in FASTTICKET when it is first asked for.

    For what Django itself has no function for: `ticket_cache().logout_everywhere("alice")`,
    `.sessions("alice")`. ConfigError; ImproperlyConfigured: FASTTICKET is missing, names no store,
    or has a setting that does not exist.
    """
    with _making:
        return _cache_of_settings(_are_tests_running())


@functools.cache
def _cache_of_settings(are_tests_running: bool) -> TicketCache:
    found = fastticket_settings()
    if "store" not in found:
        raise ImproperlyConfigured('FASTTICKET must name the store: {"store": "redis://127.0.0.1:6379/0", ...}')
    store = open_store(found["store"]) if isinstance(found["store"], str) else found["store"]
    keys = _keys_of(found, are_tests_running)
    others = {name: value for name, value in found.items() if name not in OWN_SETTINGS}
    others.setdefault("near_attributes_bytes", NEAR_ATTRIBUTES_BYTES)
    try:
        return TicketCache(store, keys, **others)
    except TypeError as error:
        raise ImproperlyConfigured(f"FASTTICKET: {error}") from error


def key_ring() -> Keyring:
    """The ring that FASTTICKET names; while tests run, without one, a ring of their own.
    ConfigError; ImproperlyConfigured.
    """
    return _keys_of(fastticket_settings(), _are_tests_running())


def _keys_of(found: Mapping[str, Any], are_tests_running: bool) -> Keyring:
    keys, audience = found.get("keys"), found.get("audience", "default")
    if isinstance(keys, Keyring):
        return keys
    if keys is not None:
        return Keyring.from_file(keys, audience)
    return Keyring.generate(audience) if are_tests_running else Keyring.from_env("FASTTICKET_KEYS", audience=audience)


def fastticket_settings() -> Mapping[str, Any]:
    """The project's setting FASTTICKET; while Django's tests run, without the real store and keys.
    ImproperlyConfigured: it is missing, or empty.
    """
    found = getattr(settings, "FASTTICKET", None)
    if not found:
        raise ImproperlyConfigured(
            'FASTTICKET is missing: {"store": "redis://127.0.0.1:6379/0", "keys": BASE_DIR / "keys.toml"}'
        )
    return _for_tests(found) if _are_tests_running() else found


def _for_tests(found: Mapping[str, Any]) -> Mapping[str, Any]:
    others = {name: value for name, value in found.items() if name not in ("store", "keys")}
    return {**others, "store": TEST_STORE, **found.get("test", {})}


def _are_tests_running() -> bool:
    """Whether `setup_test_environment()` was called: by `manage.py test`, by pytest-django."""
    state = getattr(sys.modules.get("django.test.utils"), "_TestState", None)
    return hasattr(state, "saved_data")
