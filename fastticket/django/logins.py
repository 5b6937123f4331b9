"""What a project notes of a login in its session, and the principal of a user.

    note        what Django's `login()` sets: the user's id, the backend of the login, and a hash
                that a new password changes. It is true in one project only: another has other ids
                and another SECRET_KEY. So each project has an attribute of its own for it, and
                shows no other's
    principal   the user's name, for every application that shares the tickets. That of a user of
                another model than AUTH_USER_MODEL begins with the model's label: a customer with
                the superuser's name is not the superuser, here or elsewhere

A session without this project's note began elsewhere: the user of the principal's name counts, if
one of AUTHENTICATION_BACKENDS knows it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest
from django.utils.crypto import salted_hmac

from fastticket.core.ticket import check_principal
from fastticket.django import fastticket_settings
from fastticket.django.backends import TicketBackend
from fastticket.errors import InvalidPrincipal
from fastticket.sessions.attributes import RESERVED

NOTE_KEYS = (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY)

Note = dict[str, Any]


def note_names() -> Iterator[str]:
    """The names of the attribute that holds this project's note: the one that is written now, then
    those under SECRET_KEY_FALLBACKS.
    """
    project = fastticket_settings().get("project", "")
    return (_note_name(secret, project) for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


@functools.lru_cache(maxsize=64)
def _note_name(secret: str | bytes, project: str) -> str:
    mark = salted_hmac("fastticket.django.project", project, secret=secret, algorithm="sha256").hexdigest()
    return f"{RESERVED}django.{mark[:16]}"


def principal_of(user: AbstractBaseUser) -> str:
    """The principal of a user. InvalidPrincipal: the user cannot log in under this name."""
    name = str(user.get_username() if hasattr(user, "get_username") else getattr(user, user.USERNAME_FIELD))
    if isinstance(user, get_user_model()):
        if _model_named_in(name):
            raise InvalidPrincipal(
                f"a user's name must not begin with a model's label and a colon: {name.partition(':')[0]}:"
            )
    elif name:
        name = f"{user._meta.concrete_model._meta.label}:{name}"
    check_principal(name)
    return name


def is_called(user: AbstractBaseUser, principal: str) -> bool:
    """Whether a user's principal is this one."""
    try:
        return principal_of(user) == principal
    except InvalidPrincipal:
        return False


def note_of(user: AbstractBaseUser, backend: str) -> Note:
    """The note of a login, as Django's `login()` sets it. `backend`: its dotted path."""
    hashed = user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else ""
    return {SESSION_KEY: id_of(user), BACKEND_SESSION_KEY: backend, HASH_SESSION_KEY: hashed}


def id_of(user: AbstractBaseUser) -> str:
    """A user's id, as Django's `login()` notes it."""
    return str(user._meta.pk.value_to_string(user))


def user_from_elsewhere(request: HttpRequest | None, principal: str) -> tuple[AbstractBaseUser, str] | None:
    """The user of exactly this name, and the dotted path of the first backend that knows it. None:
    there is no such user.
    """
    user = None if _model_named_in(principal) else TicketBackend().authenticate(request, principal)
    if user is None:
        return None
    for path in settings.AUTHENTICATION_BACKENDS:
        known = _known_to(load_backend(path), user)
        if known is not None and is_called(known, principal):
            return known, path
    return None


def _known_to(backend: Any, user: AbstractBaseUser) -> AbstractBaseUser | None:
    """The user, if this backend would log it in; else None. Django's own backend would read the
    same row once more, so its `get_user` is not called.
    """
    if getattr(type(backend), "get_user", None) is ModelBackend.get_user:
        return user if backend.user_can_authenticate(user) else None
    return backend.get_user(user.pk)


def _model_named_in(name: str) -> bool:
    """Whether a name begins with a model's label and a colon, as principals of other models do."""
    label, colon, _ = name.partition(":")
    if not colon or label.count(".") != 1:
        return False
    try:
        apps.get_model(label)
    except LookupError:
        return False
    return True
