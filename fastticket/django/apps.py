"""The application for INSTALLED_APPS: so that `manage.py changepassword`, a shell and other
processes that serve no request end sessions, too (fastticket/django/passwords.py).
"""

from __future__ import annotations

from django.apps import AppConfig


class FastticketConfig(AppConfig):
    """`fastticket.django`. It has no models."""

    name = "fastticket.django"
    label = "fastticket"

    def ready(self) -> None:
        """Listen for passwords that change, and check MIDDLEWARE."""
        from fastticket.django import checks, passwords  # noqa: F401 -- they import models
