"""The user of a ticket's principal in this project."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import RemoteUserBackend
from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest

from fastticket.django import fastticket_settings

__all__ = ["TicketBackend"]


class TicketBackend(RemoteUserBackend):
    """Finds the active user whose name is the principal. It need not be in AUTHENTICATION_BACKENDS.

    Where there is none, one is made if FASTTICKET says `create_unknown_users`; else the request is
    anonymous to this project.
    """

    @property
    def create_unknown_user(self) -> bool:
        """FASTTICKET["create_unknown_users"], as Django's RemoteUserBackend asks for it."""
        return bool(fastticket_settings().get("create_unknown_users", False))

    def authenticate(self, request: HttpRequest | None, remote_user: str) -> AbstractBaseUser | None:
        """The user of exactly this name; None: there is none, or it is not active.

        The name is compared here, too: a manager or a database that ignores case finds `admin` for
        the principal `ADMIN`.
        """
        if self.create_unknown_user and _is_spelled_otherwise(remote_user):
            return None
        user = super().authenticate(request, remote_user)
        return user if user is not None and user.get_username() == remote_user else None

    async def aauthenticate(self, request: HttpRequest | None, remote_user: str) -> AbstractBaseUser | None:
        """As `authenticate`."""
        return await sync_to_async(self.authenticate)(request, remote_user)


def _is_spelled_otherwise(principal: str) -> bool:
    """Whether the project finds a user for this principal whose name is another."""
    users = get_user_model()
    try:
        return bool(users._default_manager.get_by_natural_key(principal).get_username() != principal)
    except users.DoesNotExist:
        return False
