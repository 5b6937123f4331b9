"""Sessions of another session engine of Django: all of them, for `manage.py move_sessions`, and the
one of a request that still brings the engine's cookie.

    FASTTICKET = {..., "moved_from": "django.contrib.sessions.backends.db"}

Rules of this file
- The engine reads its sessions: its signatures and serializer are checked as ever, and nothing of
  the project's is guessed. Nothing is written there; a logout ends the session there, too.
- Who is logged in is asked of Django's `get_user`: a user who is gone, or not active, or has
  another password since, does not move.
- A session ends here when it would have ended there.
- A request with a ticket is not looked at. One with the old cookie alone has a session that is made
  here, unless it was, and gets the ticket. If the session has ended here, the request is anonymous.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterator
from datetime import datetime
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user
from django.core.cache.backends.redis import RedisCache
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.http import HttpRequest

from fastticket.django import fastticket_settings, ticket_cache
from fastticket.django.expiry import EXPIRY
from fastticket.django.logins import NOTE_KEYS, note_names, principal_of
from fastticket.errors import InvalidPrincipal, TicketRefused
from fastticket.moving.record import MovedSession, Skipped, to_restored
from fastticket.moving.sources import id_here, is_over, now_ms, shown
from fastticket.moving.sources.values import LeftBehind, Unreadable, attribute, attributes_of

SOURCE = "django"
COOKIE = "sessionid"
ROWS = 200
KEY_CHARS_MAX = 4096  # a signed cookie is one

log = logging.getLogger("fastticket.django")


class Found(NamedTuple):
    """A session as its engine has it."""

    key: str
    content: dict[str, Any]
    ends_ms: int  #: ms since the epoch; 0: a session's time from now on


class OldSessions:
    """The sessions of an engine, by its dotted path. ImproperlyConfigured: there is none."""

    def __init__(self, engine: str) -> None:
        self.left = LeftBehind()
        try:
            self._store: Any = import_module(engine).SessionStore
        except (ImportError, AttributeError) as error:
            raise ImproperlyConfigured(f'FASTTICKET["moved_from"]: {engine} is no session engine: {error}') from None
        self._model = getattr(self._store, "get_model_class", lambda: None)()

    def records(self) -> Iterator[MovedSession | Skipped]:
        """All sessions. ImproperlyConfigured: this engine cannot tell which there are."""
        if self._model is not None:
            for row in self._model.objects.order_by("session_key").iterator(chunk_size=ROWS):
                yield self._record(self._of_row(row))
        else:
            for key in _keys_in_cache(self._store):
                yield self.read_one(key)

    def read_one(self, key: str) -> MovedSession | Skipped:
        """The session of a cookie's value."""
        if not key or len(key) > KEY_CHARS_MAX:
            return Skipped(shown(key), "malformed")
        if self._model is None:
            found = self._of_store(key)
        else:
            row = self._model.objects.filter(session_key=key).first()
            found = self._of_row(row) if row else None
        return self._record(found) if found else Skipped(shown(key), "not_found")

    def end(self, key: str) -> None:
        """End a session."""
        self._store(key).delete(key)

    def _of_row(self, row: Any) -> Found:
        content = self._store(row.session_key).decode(row.session_data)
        return Found(row.session_key, content, int(row.expire_date.timestamp() * 1000))

    def _of_store(self, key: str) -> Found | None:
        """An engine without a table does not say when a session ends: it is as long as a session
        lasts, from now on.
        """
        store = self._store(key)
        content = store.load()
        return Found(key, content, 0) if content and store.session_key is not None else None

    def _record(self, found: Found) -> MovedSession | Skipped:
        if not isinstance(found.content, dict) or not found.content:
            return Skipped(shown(found.key), "malformed")
        content = dict(found.content)
        if SESSION_KEY not in content:
            return Skipped(shown(found.key), "anonymous")
        note = _Note({name: content.pop(name) for name in NOTE_KEYS if name in content})
        user = _user_of(note)
        if user is None or user.is_anonymous:
            return Skipped(shown(found.key), "inactive_user")
        try:
            principal = principal_of(user)
            age_s = _age_s(content.get(EXPIRY))
            attributes = attributes_of(content, self.left, ticket_cache().serializer.dumps)
        except InvalidPrincipal:
            return Skipped(shown(found.key), "bad_principal")
        except Unreadable as error:
            return Skipped(shown(found.key), error.reason)
        lifetime_s = max(1, age_s)
        ends_ms = found.ends_ms or now_ms() + 1000 * age_s
        began_ms = max(0, ends_ms - 1000 * lifetime_s)
        session = MovedSession(
            principal,
            id_here(SOURCE, found.key),
            created_ms=began_ms,
            last_access_ms=began_ms,
            idle_timeout_s=0,
            absolute_lifetime_s=lifetime_s,
            attributes=attributes | {next(iter(note_names())): attribute(dict(note))},
            says_began=False,
        )
        return Skipped(shown(found.key), "expired") if is_over(session) else session


class _Note(dict[str, Any]):
    """The note of a login, for `get_user`: that writes the hash anew in a note under one of
    SECRET_KEY_FALLBACKS, and flushes one that is not true.
    """

    def cycle_key(self) -> None:
        """The key is another one here anyway."""

    def flush(self) -> None:
        """The session at its engine stays as it is."""


def _user_of(note: _Note) -> Any:
    """Whose a login is. None: the project has no such users any more, but other ids."""
    try:
        return get_user(SimpleNamespace(session=note))
    except (ValidationError, ValueError, TypeError, OverflowError):
        return None


def _age_s(expiry: Any) -> int:
    """How long a session lasts, by what `set_expiry` has left in it. Unreadable."""
    try:
        if isinstance(expiry, str):
            return max(0, math.ceil(datetime.fromisoformat(expiry).timestamp() - time.time()))
        return int(expiry) if expiry and not isinstance(expiry, bool) else int(settings.SESSION_COOKIE_AGE)
    except (ValueError, TypeError, OverflowError):
        raise Unreadable("bad_times") from None


def _keys_in_cache(store_class: Any) -> Iterator[str]:
    """The session keys of the cache engine. ImproperlyConfigured: the cache cannot list them."""
    store = store_class()
    cache, prefix = getattr(store, "_cache", None), getattr(store, "cache_key_prefix", "")
    if not isinstance(cache, RedisCache) or not prefix:
        raise ImproperlyConfigured(
            "this session engine can not say which sessions it has; without this command, each moves when its cookie "
            'comes: FASTTICKET["moved_from"]'
        )
    whole = cache.make_key(prefix)
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", whole) + "*"
    for key in cache._cache.get_client().scan_iter(match=pattern, count=ROWS):
        yield key.decode("utf-8", "replace").removeprefix(whole)


# ------------------------------------------------------------------------------- a request


def continue_session(request: HttpRequest) -> None:
    """Give a request that brings the old cookie alone its session. StoreUnavailable."""
    said = fastticket_settings()
    engine = said.get("moved_from")
    key = request.COOKIES.get(said.get("moved_cookie", COOKIE), "") if engine else ""
    if not engine or not key:
        return
    old = OldSessions(engine)
    request.session._end_old = lambda: old.end(key)
    if settings.SESSION_COOKIE_NAME in request.COOKIES or request.session._ambiguous_path:
        return
    record = old.read_one(key)
    if isinstance(record, Skipped):
        return
    try:
        with request.session._noting_failure():
            ticket = ticket_cache().take_up(to_restored(record, 0))
            request.session._continue_with(ticket, ends_with_browser=settings.SESSION_EXPIRE_AT_BROWSER_CLOSE)
    except TicketRefused:
        log.info("a session of %s has ended here: its cookie opens nothing", engine)
