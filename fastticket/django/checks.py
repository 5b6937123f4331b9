"""What `manage.py check`, and every start of Django, says about the settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

ENGINE = "fastticket.django.sessions"
OURS = "fastticket.django.middleware.TicketMiddleware"
DJANGOS = "django.contrib.auth.middleware.AuthenticationMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"


@checks.register()
def check_middleware(**_: Any) -> list[CheckMessage]:
    """Whether TicketMiddleware stands where it can do its work."""
    return list(_faults(list(settings.MIDDLEWARE))) if settings.SESSION_ENGINE == ENGINE else []


def _faults(middleware: list[str]) -> Iterator[CheckMessage]:
    if OURS not in middleware:
        yield checks.Error(
            f"SESSION_ENGINE is {ENGINE}, and MIDDLEWARE has no TicketMiddleware.",
            hint=f"Put {OURS} in the place of {DJANGOS}.",
            id="fastticket.E001",
        )
        return
    if DJANGOS in middleware:
        yield checks.Warning(
            "MIDDLEWARE has both TicketMiddleware and Django's AuthenticationMiddleware.",
            hint=f"Remove {DJANGOS}: the other one stands in its place.",
            id="fastticket.W001",
        )
    if settings.CSRF_USE_SESSIONS and CSRF in middleware and middleware.index(CSRF) < middleware.index(OURS):
        yield checks.Warning(
            "With CSRF_USE_SESSIONS, CsrfViewMiddleware needs the session before TicketMiddleware has judged it.",
            hint=f"Move {OURS} up, to right behind SessionMiddleware.",
            id="fastticket.W002",
        )
