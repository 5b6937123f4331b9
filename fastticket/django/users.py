"""The user of a session's principal in this project, found once a request.

A session with a note of this project (fastticket/django/logins.py) is asked of the backend in the
note, by Django's own `get_user`. One without a note began elsewhere: the user of the principal's
name counts, unless the password has changed since the session was first seen here.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Protocol

from django.contrib.auth import get_user
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest

from fastticket.django.logins import Note, is_called, note_of, user_from_elsewhere


class NotedSession(Protocol):
    """What is asked of a session."""

    @property
    def _principal(self) -> str:
        """The principal that is logged in; empty: nobody is. StoreUnavailable."""

    def _note(self) -> Note | None:
        """What this project has noted of the login. None: nothing."""

    def _has_old_password(self, user: AbstractBaseUser) -> bool:
        """Whether a session from elsewhere was first seen here when the user had another password.
        StoreUnavailable.
        """

    def flush(self) -> None:
        """End the session. StoreUnavailable."""


class SessionUser:
    """The user of a session, kept as long as neither its principal nor its note changes.

    `is_verifying`: Django's `get_user` is checking the note, and may call `cycle_key`, or write the
    hash anew, in a session whose SECRET_KEY is a fallback.
    """

    def __init__(self, session: NotedSession) -> None:
        self.is_verifying = False
        self._session = session
        self._known_by: object = None  # the principal and note for which `_known` was found
        self._known: AbstractBaseUser | None = None
        self._elsewhere_principal = ""  # for whom `_elsewhere` was found
        self._elsewhere: tuple[AbstractBaseUser, str] | None = None  # with the backend's path

    def user(self, request: HttpRequest | None) -> AbstractBaseUser | AnonymousUser:
        """Anonymous: nobody is logged in, or nobody whom this project knows. StoreUnavailable."""
        note = self._session._note()
        known_by = self._session._principal, note and tuple(note.items())
        if known_by != self._known_by:
            self._known = self._user_from_elsewhere(request) if note is None else self._noted_user()
            self._known_by = known_by
        return self._known or AnonymousUser()

    def derived_note(self) -> Note:
        """What a login would have noted of the principal's user; empty: this project has none."""
        self._user_from_elsewhere()
        return note_of(*self._elsewhere) if self._elsewhere else {}

    def claimed(self) -> AbstractBaseUser | AnonymousUser:
        """The user of a note that somebody has written into the session without `login()`;
        anonymous: it is not true.
        """
        return get_user(SimpleNamespace(session=self._session))

    def _noted_user(self) -> AbstractBaseUser | None:
        """The user of the login's backend, if its name is still the principal's. A hash that has
        changed ends the session.
        """
        self.is_verifying = True
        try:
            user: Any = get_user(SimpleNamespace(session=self._session))
        finally:
            self.is_verifying = False
        return None if user.is_anonymous or not is_called(user, self._session._principal) else user

    def _user_from_elsewhere(self, request: HttpRequest | None = None) -> AbstractBaseUser | None:
        principal = self._session._principal
        if principal != self._elsewhere_principal:
            self._elsewhere = user_from_elsewhere(request, principal)
            self._elsewhere_principal = principal
            if self._elsewhere and self._session._has_old_password(self._elsewhere[0]):
                self._elsewhere = None
                self._session.flush()
        return self._elsewhere and self._elsewhere[0]
