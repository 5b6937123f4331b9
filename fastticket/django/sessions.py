"""The session engine. Django's session key is a ticket, or, before login, the session itself,
signed.

    anonymous   as in django.contrib.sessions.backends.signed_cookies: crawlers leave nothing in the store
    logged in   the session's attributes, shared with every application that the ticket admits to; only what changed is written

Rules of this file
- Whose session it is, the ticket says. Who that is in this project, the note of its login
  (fastticket/django/logins.py).
- `login()` is heard of by its signal; the ticket is made when the session is saved, and so is a new
  one after `cycle_key()`.
- `flush()` is done at once, as everywhere in Django. What has expired when it is saved is flushed
  then.
- Which version of the attributes the client has seen, the middleware reads and tells
  (fastticket/web/seen.py).
- What Django's own sessions do not have begins with an underscore: to a template
  `request.session.user` is an attribute, or nothing.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, MutableMapping
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.core import signing
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils import timezone

from fastticket.core.check import Session
from fastticket.django import ticket_cache
from fastticket.django.logins import Note, id_of, is_called, note_names, note_of, principal_of, user_from_elsewhere
from fastticket.django.shared import DERIVED, SharedData, is_hidden
from fastticket.errors import InvalidPrincipal, StoreUnavailable, TicketRefused, Verdict
from fastticket.stores.contract import NEVER_MS, NEVER_WRITTEN, NO_DETAILS
from fastticket.sync import Attributes
from fastticket.web.seen import SeenVersion
from fastticket.web.session import NOTHING_STORED
from fastticket.web.visitor import Visitor

SALT = "fastticket.django.sessions"
EXPIRY = "_session_expiry"


class SessionStore(SessionBase):
    """One request's session. StoreUnavailable from whatever has to ask the store."""

    _session_key: str | None
    _session_cache: MutableMapping[str, Any]

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._admitted: Session | None = None
        self._newcomer = ""  # whom login() told of
        self._details: Mapping[str, str] = NO_DETAILS
        self._user_of: tuple[object, AbstractBaseUser | None] = (None, None)
        self._stranger: tuple[str, tuple[AbstractBaseUser, str] | None] = (
            "",
            None,
        )  # the user of a principal from elsewhere
        self._is_verifying = False  # whether the note is true
        self._has_failed = False  # the store, in this request
        self._is_key_due = False  # another one, by cycle_key()
        self._is_expiry_due = False  # by set_expiry()
        self._is_cookie_due = False  # of a ticket: it is another one, or lasts otherwise
        self._ends_with_browser: bool | None = None  # the cookie of a ticket that was made here
        self._seen = SeenVersion(())
        self._doubtful: list[str] = []  # what came in place of one session, where that were several
        self._doubted_path = ""  # of the request that brought them

    # --- whose it is

    def _doubt(self, session_keys: list[str], path: str) -> None:
        """The client came with several cookies of the session: nobody knows which is meant."""
        if len(session_keys) > 1:
            self._doubtful, self._doubted_path = session_keys, path

    def _end_doubtful(self) -> None:
        """A logout, or a login, ends whatever session the client came with. StoreUnavailable."""
        for key in self._doubtful:
            self.delete(key)
        self._doubtful = []

    def _admit(self) -> Session | None:
        """The session of the ticket. None: there is no ticket, or it is refused, and then the key
        is dropped. StoreUnavailable.
        """
        if self._admitted is None and _is_ticket(self.session_key):
            try:
                with self._noting_failure():
                    self._admitted = ticket_cache().authenticate(str(self.session_key))
            except TicketRefused:
                self._session_key = None
        return self._admitted

    @property
    def _has_ended(self) -> bool:
        """Whether the ticket has been refused since it was admitted."""
        found = ticket_cache().check(str(self.session_key), touch=False) if self._admitted else None
        return isinstance(found, Verdict) and found.is_refusal

    @property
    def _principal(self) -> str:
        """Who is logged in, by the ticket or by this request's login(); empty: nobody.
        StoreUnavailable.
        """
        admitted = self._admit()
        return self._newcomer or (admitted.principal if admitted else "")

    def _user(self, request: HttpRequest | None = None) -> AbstractBaseUser | AnonymousUser:
        """The principal's user in this project. Anonymous: nobody is logged in, or nobody whom this
        project knows. StoreUnavailable.
        """
        self.accessed = True
        note = self._note()
        known = self._principal, note and tuple(note.items())
        if known != self._user_of[0]:
            self._user_of = known, self._user_from_elsewhere(request) if note is None else self._noted_user()
        return self._user_of[1] or AnonymousUser()

    def _note(self) -> Note | None:
        """What this project keeps of a login. None: nothing."""
        data = self._session
        if isinstance(data, SharedData):
            return data.note()
        return {name: data[name] for name in DERIVED if name in data} or None

    def _noted_user(self) -> AbstractBaseUser | None:
        """Whom the backend of the login has for it, if his name still is the principal's. A hash
        that has changed ends the session.
        """
        self._is_verifying = True
        try:
            user = get_user(SimpleNamespace(session=self))
        finally:
            self._is_verifying = False
        return None if user.is_anonymous or not is_called(user, self._principal) else user

    def _user_from_elsewhere(self, request: HttpRequest | None = None) -> AbstractBaseUser | None:
        principal = self._principal
        if principal != self._stranger[0]:
            self._stranger = principal, user_from_elsewhere(request, principal)
        return self._stranger[1] and self._stranger[1][0]

    def _derived(self) -> Note:
        """What a login would have noted of the user in this project; empty: it has no such user."""
        user = self._user_from_elsewhere()
        return note_of(user, self._stranger[1][1]) if user and self._stranger[1] else {}

    def _log_in(self, principal: str, details: Mapping[str, str] = NO_DETAILS) -> None:
        """A ticket is made for this principal when the session is saved. Another one's session ends
        now, and its attributes with it.
        """
        if self._principal not in ("", principal):
            note = self._note() or {}
            self.flush()
            self._session.update(note)
        if not self._admit():
            self._newcomer, self._details = principal, details
            self.modified = True

    # --- what it holds

    def load(self) -> MutableMapping[str, Any]:
        """Attributes, which are read when they are looked at; or what the anonymous cookie has."""
        admitted = self._admit()
        if admitted:
            attributes = ticket_cache().attributes(admitted, seen=self._seen.version)
            return SharedData(attributes, self)
        return self._unsigned() if self.session_key else {}

    async def aload(self) -> MutableMapping[str, Any]:
        """As `load`, but attributes are read now: later, nobody can wait for them."""
        return await sync_to_async(self._loaded_and_read)()

    def _loaded_and_read(self) -> MutableMapping[str, Any]:
        data = self.load()
        if isinstance(data, SharedData):
            data.read()
        return data

    def _read(self) -> MutableMapping[str, Any]:
        """What the session holds, read now. If it turns out to be over: nothing, anonymous.
        StoreUnavailable.
        """
        data: MutableMapping[str, Any] = self._session
        if isinstance(data, SharedData):
            data.read()
        return self._session

    def _end_unseen(self, data: MutableMapping[str, Any]) -> None:
        """The session was over before it was read. `data`: what there is now; a later write is an
        anonymous visitor's.
        """
        self._forget()
        self._seen.forget()
        self._session_cache = data

    def _note_failure(self) -> None:
        """The store has failed: whatever a middleware makes of that, the response is a 503."""
        self._has_failed = True

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable:
            self._note_failure()
            raise

    async def aget(self, key: str, default: Any = None) -> Any:
        """As `get`."""
        return await sync_to_async(self.get)(key, default)

    async def aset(self, key: str, value: Any) -> None:
        """As `session[key] = value`."""
        await sync_to_async(self.__setitem__)(key, value)

    async def ahas_key(self, key: str) -> bool:
        """As `has_key`."""
        return await sync_to_async(self.has_key)(key)

    def _signed(self) -> str:
        data = {name: value for name, value in self._session.items() if name not in DERIVED}
        return signing.dumps(data, salt=SALT, serializer=self.serializer, compress=True)

    def _unsigned(self) -> dict[str, Any]:
        try:
            data = self._unpacked(self.get_session_cookie_age())
            expiry = data.get(EXPIRY)
            if expiry and not isinstance(expiry, str):
                data = self._unpacked(expiry)
        except Exception:  # forged, too old, or of another serializer: as if it were not there
            data = None
        if data is None or _is_over(data.get(EXPIRY)):
            self._session_key = None
            return {}
        return data

    def _unpacked(self, max_age_s: float) -> dict[str, Any]:
        return signing.loads(self.session_key, salt=SALT, serializer=self.serializer, max_age=max_age_s)

    # --- writing

    def _finish(self) -> bool:
        """Save what there is to save of a ticket's session. Whether the client needs a cookie for
        it.

        StoreUnavailable; UpdateError: the session has ended.
        """
        self._claim()
        if not self._newcomer and not _is_ticket(self.session_key):
            return False
        self.save()
        self.modified = self._is_cookie_due
        return self.modified

    def save(self, must_create: bool = False) -> None:
        """Make the ticket that a login waits for; write attributes; take another key. Anonymous:
        sign.

        StoreUnavailable; UpdateError: the session has ended. Of a login, TooManySessions,
        InvalidPrincipal; of attributes, BadAttribute, AttributesTooLarge. ValueError: no ticket has
        the lifetime that `set_expiry` asks for.
        """
        try:
            with self._noting_failure():
                self._save()
        except TicketRefused as error:
            raise UpdateError(str(error)) from error

    def _save(self) -> None:
        self._claim()
        has_ticket = _is_ticket(self.session_key)
        if (self._newcomer or (has_ticket and self._is_expiry_due)) and _is_over(self.get(EXPIRY)):
            self.flush()
        elif self._newcomer:
            self._make_ticket()
        elif has_ticket:
            self._write()
        else:
            self._session_key = self._signed()

    def _claim(self) -> None:
        """Somebody has written Django's notes himself, in place of calling `login()`: if they are
        true, it is one.
        """
        data = self.__dict__.get("_session_cache")
        if data and not self._newcomer and not _is_ticket(self.session_key) and SESSION_KEY in data:
            user = get_user(SimpleNamespace(session=self))
            self._newcomer = "" if user.is_anonymous else principal_of(user)

    def _make_ticket(self) -> None:
        self._end_doubtful()
        self._seen.forget()
        data = {name: value for name, value in self._session.items() if not is_hidden(name)}
        note = self._note()
        newcomer, self._newcomer = self._newcomer, ""  # a login that fails is not tried again
        for name in DERIVED:
            self._session.pop(name, None)
        idle_timeout_s, absolute_lifetime_s = self._lifetimes_s()
        ends_with_browser = self.get_expire_at_browser_close()
        ticket = ticket_cache().login(
            newcomer,
            idle_timeout_s=idle_timeout_s,
            absolute_lifetime_s=absolute_lifetime_s,
            details=self._details,
        )
        try:
            attributes = self._go_on_with(ticket, ends_with_browser)
            attributes.hold(NOTHING_STORED)
            attributes.update(data)
            if note:
                attributes[next(iter(note_names()))] = note
            attributes.save()
        except BaseException:
            ticket_cache().logout(ticket)
            raise

    def _write(self) -> None:
        data = self.__dict__.get("_session_cache")
        if isinstance(data, SharedData):
            self._save_attributes(data.attributes)
        lifetimes_s = self._lifetimes_s() if self._is_expiry_due else (None, None)
        if self._is_key_due or any(lifetimes_s):
            self._rotate(lifetimes_s, is_password_new=isinstance(data, SharedData) and data.is_hash_renewed)

    def _save_attributes(self, attributes: Attributes) -> None:
        self._note_read(attributes)
        if attributes.save():
            self._seen.wrote(attributes.version or NEVER_WRITTEN)

    def _note_read(self, attributes: Attributes) -> None:
        if attributes.is_loaded:
            self._seen.read(attributes.version or NEVER_WRITTEN)

    def _rotate(self, lifetimes_s: tuple[float | None, float | None], *, is_password_new: bool) -> None:
        ends_with_browser = self.get_expire_at_browser_close()
        idle_timeout_s, absolute_lifetime_s = lifetimes_s
        ticket = ticket_cache().rotate(
            str(self.session_key), idle_timeout_s=idle_timeout_s, absolute_lifetime_s=absolute_lifetime_s
        )
        self._go_on_with(ticket, ends_with_browser)
        if is_password_new:
            ticket_cache().logout_everywhere(self._principal, keep=self._admitted)

    def _go_on_with(self, ticket: str, ends_with_browser: bool) -> Attributes:
        self._forget()
        self._session_key = ticket
        self._is_cookie_due = True
        self._ends_with_browser = ends_with_browser
        self._admitted = ticket_cache().authenticate(ticket)
        attributes = ticket_cache().attributes(self._admitted, seen=self._seen.version)
        self._session_cache = SharedData(attributes, self)
        return attributes

    def _forget(self) -> None:
        self._session_key = None
        self._admitted = self._ends_with_browser = None
        self._newcomer, self._details = "", NO_DETAILS
        self._is_key_due = self._is_expiry_due = self._is_cookie_due = False
        self._session_cache = {}

    # --- what the client is told of it

    def _news(self) -> str | None:
        """As `SeenVersion.news`, when the request is done."""
        data = self.__dict__.get("_session_cache")
        if isinstance(data, SharedData):
            self._note_read(data.attributes)
        return self._seen.news

    def _news_age_s(self) -> int | None:
        """How long the client is to know it: as long as the ticket. None: as long as the browser.
        Asks the store nothing.
        """
        data = self.__dict__.get("_session_cache")
        may_ask = self._ends_with_browser is not None or (isinstance(data, SharedData) and data.attributes.is_loaded)
        ends_with_browser = self.get_expire_at_browser_close() if may_ask else settings.SESSION_EXPIRE_AT_BROWSER_CLOSE
        return None if ends_with_browser or not self._admitted else self.get_expiry_age()

    # --- its beginning and end

    def exists(self, session_key: str) -> bool:
        """Whether it is a ticket that is admitted. An anonymous session exists nowhere.
        StoreUnavailable.
        """
        return bool(SessionStore(session_key)._admit())

    def create(self) -> None:
        """Another session, anonymous and empty."""
        self._forget()
        self._seen.forget()
        self.save()
        self.modified = True

    def cycle_key(self) -> None:
        """The same data under another ticket, when it is saved. An anonymous session gets one with
        the login.

        Not where Django asks for it because SECRET_KEY is another: a ticket is signed with another
        key, and of several requests at once only one could have the new one.
        """
        self._is_key_due |= not self._is_verifying
        self.modified = True

    async def acycle_key(self) -> None:
        """As `cycle_key`."""
        self.cycle_key()

    def clear(self) -> None:
        """Empty it; nobody is logged in to an empty session, so a ticket is revoked.
        StoreUnavailable.
        """
        if self._newcomer or self._doubtful or _is_ticket(self.session_key):
            self.flush()
        else:
            super().clear()

    def flush(self) -> None:
        """End the session: its ticket is revoked, for every application. StoreUnavailable, and
        nothing is changed then.
        """
        self._end_doubtful()
        self.delete()
        self._forget()
        self._seen.forget()
        self.accessed = self.modified = True

    async def aflush(self) -> None:
        """As `flush`."""
        await sync_to_async(self.flush)()

    def delete(self, session_key: str | None = None) -> None:
        """Revoke a ticket, by default this session's. Of an anonymous session there is nothing to
        delete. StoreUnavailable.
        """
        key = session_key or self.session_key
        if _is_ticket(key):
            with self._noting_failure(), contextlib.suppress(TicketRefused):
                ticket_cache().logout(key)

    @classmethod
    def clear_expired(cls) -> None:
        """Nothing to do: the ticket cache sweeps."""

    # --- how long

    def set_expiry(self, value: float | datetime | timedelta | None) -> None:
        """As in Django: unused for so many seconds; at a moment; 0: the cookie ends with the
        browser; None: the usual lifetimes.

        A ticket says how long it lives, so one that is there is exchanged for another when the
        session is saved. 0 and None change the cookie alone.
        """
        super().set_expiry(value)
        self._is_expiry_due = self._is_cookie_due = True

    async def aset_expiry(self, value: float | datetime | timedelta | None) -> None:
        """As `set_expiry`."""
        await super().aset_expiry(value)
        self._is_expiry_due = self._is_cookie_due = True

    def get_expiry_age(self, **kwargs: Any) -> int:
        """Seconds until the session ends though it is used; for an anonymous one, as in Django."""
        admitted = None if kwargs else self._admit()
        if admitted is None:
            return super().get_expiry_age(**kwargs)
        if admitted.absolute_deadline_ms == NEVER_MS:
            return self.get_session_cookie_age()
        return max(0, round(admitted.absolute_deadline_ms / 1000 - time.time()))

    async def aget_expiry_age(self, **kwargs: Any) -> int:
        """As `get_expiry_age`."""
        return await sync_to_async(self.get_expiry_age)(**kwargs)

    def get_expiry_date(self, **kwargs: Any) -> datetime:
        """When the session ends though it is used; for an anonymous one, as in Django."""
        if kwargs or self._admit() is None:
            return super().get_expiry_date(**kwargs)
        return timezone.now() + timedelta(seconds=self.get_expiry_age())

    async def aget_expiry_date(self, **kwargs: Any) -> datetime:
        """As `get_expiry_date`."""
        return await sync_to_async(self.get_expiry_date)(**kwargs)

    def get_expire_at_browser_close(self) -> bool:
        """Whether the cookie ends with the browser; also if the store can not say it, for
        SessionMiddleware asks when all is done.
        """
        if self._ends_with_browser is None:
            try:
                return super().get_expire_at_browser_close()
            except StoreUnavailable:
                return True
        return self._ends_with_browser

    def _lifetimes_s(self) -> tuple[float | None, float | None]:
        """What `set_expiry` means for a ticket that is made now: idle and absolute, which counts
        from the login. None: the usual.
        """
        expiry = self.get(EXPIRY)
        if not expiry:
            return None, None
        admitted = self._admit()
        age_s = time.time() - admitted.issued_at_ms / 1000 if admitted else 0.0
        if isinstance(expiry, str):
            return math.inf, math.ceil(age_s + _left_s(expiry))
        usual_s = ticket_cache().absolute_lifetime_s
        idle_s = math.ceil(expiry)
        return idle_s, max(usual_s, math.ceil(age_s + idle_s)) if usual_s else math.inf


def _is_over(expiry: Any) -> bool:
    """Whether what `set_expiry` has left says that the session is over: a moment that is past, or
    less than nothing.
    """
    if isinstance(expiry, str):
        return _left_s(expiry) <= 0
    return expiry is not None and expiry < 0


def _left_s(moment: str) -> float:
    return (datetime.fromisoformat(moment) - timezone.now()).total_seconds()


@receiver(user_logged_in, dispatch_uid="fastticket")
def _on_login(request: HttpRequest | None, user: AbstractBaseUser, **_: Any) -> None:
    """Others send this signal, too, for logins that are none of a session: it counts if the session
    says who it is.

    InvalidPrincipal, out of `login()`: nobody is logged in.
    """
    session = getattr(request, "session", None)
    if not isinstance(session, SessionStore) or session.get(SESSION_KEY) != id_of(user):
        return
    try:
        principal = principal_of(user)
    except InvalidPrincipal:
        session.flush()
        if request is not None and hasattr(request, "user"):
            request.user = AnonymousUser()
        raise
    said: Mapping[str, str] = getattr(request, "META", {})
    visitor = Visitor(address=said.get("REMOTE_ADDR", ""), user_agent=said.get("HTTP_USER_AGENT", ""))
    session._log_in(principal, visitor.details)


def _is_ticket(session_key: str | None) -> bool:
    """A signed session has colons, a ticket none."""
    return bool(session_key) and ":" not in str(session_key)
