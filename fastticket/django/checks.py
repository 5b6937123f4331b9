"""What `manage.py check`, and every start of Django, says about MIDDLEWARE and the key ring."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.module_loading import import_string

from fastticket.django import key_ring
from fastticket.errors import ConfigError

ENGINE = "fastticket.django.sessions"
OURS = "fastticket.django.middleware.TicketMiddleware"
DJANGOS = "django.contrib.auth.middleware.AuthenticationMiddleware"


@checks.register()
def check_middleware(**_: Any) -> list[CheckMessage]:
    """Whether TicketMiddleware, or a subclass, stands where it can do its work."""
    if settings.SESSION_ENGINE != ENGINE:
        return []
    try:
        return list(_faults([import_string(path) for path in settings.MIDDLEWARE]))
    except ImportError:  # Django says so itself, when it loads them
        return []


@checks.register()
def check_keys(**_: Any) -> list[CheckMessage]:
    """Whether the key ring can be read: otherwise the first login would fail. A warning: commands
    such as `migrate` may run where the keys are not.
    """
    if settings.SESSION_ENGINE != ENGINE:
        return []
    try:
        key_ring()
    except (ConfigError, ImproperlyConfigured) as error:
        hint = 'A relative path goes by the current folder: write "keys": BASE_DIR / "keys.toml".'
        return [checks.Warning(f"FASTTICKET: {error}", hint=hint, id="fastticket.W003")]
    return []


def _faults(middleware: list[Any]) -> Iterator[CheckMessage]:
    from fastticket.django.middleware import TicketMiddleware  # only a process that needs it loads the engine

    ours = _first(middleware, TicketMiddleware)
    if ours is None:
        yield checks.Error(
            f"SESSION_ENGINE is {ENGINE}, and MIDDLEWARE has no TicketMiddleware.",
            hint=f"Put {OURS} in the place of {DJANGOS}.",
            id="fastticket.E001",
        )
        return
    if any(_is_a(each, AuthenticationMiddleware) and not _is_a(each, TicketMiddleware) for each in middleware):
        yield checks.Warning(
            "MIDDLEWARE has both TicketMiddleware and Django's AuthenticationMiddleware.",
            hint=f"Remove {DJANGOS}: the other one stands in its place.",
            id="fastticket.W001",
        )
    csrf = _first(middleware, CsrfViewMiddleware)
    if settings.CSRF_USE_SESSIONS and csrf is not None and csrf < ours:
        yield checks.Warning(
            "With CSRF_USE_SESSIONS, CsrfViewMiddleware needs the session before TicketMiddleware has judged it.",
            hint=f"Move {OURS} up, to right behind SessionMiddleware.",
            id="fastticket.W002",
        )


def _first(middleware: list[Any], kind: type) -> int | None:
    """The place of the first that is of this class or a subclass. None: there is none."""
    return next((place for place, each in enumerate(middleware) if _is_a(each, kind)), None)


def _is_a(each: Any, kind: type) -> bool:
    return inspect.isclass(each) and issubclass(each, kind)
