"""A new password ends the sessions that were begun under the old one.

    at once    when a user whose password was set is saved, all sessions of its principal end, in
               every application, when the transaction is committed: whoever logs in after that
               needs the new password. The session of the request that does it goes on if it calls
               Django's `update_session_auth_hash()`, or else ends with the request
    when seen  a password that was changed otherwise (SQL, `QuerySet.update`, another program) is
               noticed by Django's hash of it: the note of a login has that, and a session from
               elsewhere gets it when this project first sees it (fastticket/django/shared.py)

FASTTICKET["end_sessions_on_password_change"] = False leaves to Django what it does for its own
sessions: those that began here end when they are seen.
"""

from __future__ import annotations

from collections.abc import Collection
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils.crypto import constant_time_compare

from fastticket.core.check import Session
from fastticket.django import fastticket_settings, ticket_cache
from fastticket.django.logins import principal_of
from fastticket.errors import InvalidPrincipal


class RequestSession(Protocol):
    """What is asked of the session of the request that is served."""

    def _kept_for(self, principal: str) -> Session | None:
        """The password of this principal is another now. The session that goes on for the time
        being; None: it is not the principal's, or its request has ended and did not keep it.
        """


#: The session of the request that this thread or task serves.
serving: ContextVar[RequestSession | None] = ContextVar("fastticket.django.serving", default=None)


def ends_sessions() -> bool:
    """Whether a new password ends sessions that Django itself knows nothing of."""
    return bool(fastticket_settings().get("end_sessions_on_password_change", True))


def has_hash(user: AbstractBaseUser, known: str) -> bool:
    """Whether the user's password is the one that this hash was made of, under SECRET_KEY or one of
    its fallbacks.
    """
    hashes = (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())
    return any(constant_time_compare(known, each) for each in hashes)


@receiver(post_save, dispatch_uid="fastticket.passwords")
def _on_save(
    instance: Any, created: bool, using: str, raw: bool, update_fields: Collection[str] | None = None, **_: Any
) -> None:
    """Django keeps the text of a password between `set_password()` and the end of `save()`, and
    drops it when only the hash's algorithm changes.
    """
    if created or raw or not isinstance(instance, AbstractBaseUser) or instance._password is None:
        return
    if (update_fields is not None and "password" not in update_fields) or not ends_sessions():
        return
    try:
        principal = principal_of(instance)
    except InvalidPrincipal:  # nobody is logged in by that name
        return
    transaction.on_commit(partial(_end_sessions_of, principal, serving.get()), using=using)


def _end_sessions_of(principal: str, session: RequestSession | None) -> None:
    """`session`: of the request that has set the password. The commit comes later than its response
    where a test runs what waits for one.
    StoreUnavailable: the password is changed, and sessions go on until they are seen here.
    """
    ticket_cache().logout_everywhere(principal, keep=session._kept_for(principal) if session else None)
