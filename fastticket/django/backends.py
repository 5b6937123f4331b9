"""Who a ticket's principal is among the users of this project."""

from __future__ import annotations

from django.contrib.auth.backends import RemoteUserBackend

from fastticket.django import fastticket_settings


class TicketBackend(RemoteUserBackend):
    """The active user whose name is the principal. Needs no place in AUTHENTICATION_BACKENDS.

    Where there is none, one is made if FASTTICKET says `create_unknown_users`; else the request is anonymous, to this project.
    """

    @property
    def create_unknown_user(self) -> bool:
        """As Django's RemoteUserBackend has it."""
        return bool(fastticket_settings().get("create_unknown_users", False))
