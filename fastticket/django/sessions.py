"""The session engine. Django's session key is a ticket or, before a login, the session itself,
signed.

    anonymous   the content is in the cookie, so that crawlers leave nothing in the store
                (fastticket/django/anonymous.py)
    logged in   the content is the attributes of the ticket's session, shared with every application
                that admits the ticket (fastticket/django/shared.py)

Rules of this file
- The ticket says which principal is logged in; the note of its login says which user that is in
  this project (fastticket/django/users.py).
- Django's `login()` is noticed by its signal. The ticket is made when the session is saved, and so
  is a new one after `cycle_key()`.
- `flush()` is done at once, as everywhere in Django. A session that has expired when it is saved is
  flushed then.
- Of a ticket's session only the attributes that changed are written.
- The middleware reads, and tells, which version of the attributes the client has seen
  (fastticket/web/readyourwrites.py).
- What Django's own sessions do not have begins with an underscore: in a template
  `request.session.user` is an attribute, or nothing.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils import timezone

from fastticket.core.check import Session
from fastticket.django import passwords, ticket_cache
from fastticket.django.anonymous import is_ticket, signed, unsigned
from fastticket.django.expiry import EXPIRY, Lifetimes, ends_in_s, is_past, lifetimes_s, usual_again_s
from fastticket.django.logins import NOTE_KEYS, Note, id_of, note_names, principal_of
from fastticket.django.shared import SharedData, is_hidden
from fastticket.django.users import SessionUser
from fastticket.errors import AttributesTooLarge, InvalidPrincipal, StoreUnavailable, TicketRefused, Verdict
from fastticket.stores.contract import NEVER_MS, NEVER_WRITTEN, NO_DETAILS
from fastticket.sync import Attributes
from fastticket.web.readyourwrites import SeenVersion
from fastticket.web.session import NOTHING_STORED
from fastticket.web.visitor import Visitor

__all__ = ["SessionStore"]


class SessionStore(SessionBase):
    """One request's session. Whatever has to ask the store raises StoreUnavailable if the store
    does not answer.
    """

    _session_key: str | None
    _session_cache: MutableMapping[str, Any]

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._admitted: Session | None = None
        self._found_user = SessionUser(self)
        self._login_due = ""  # the principal that a ticket is made for when the session is saved
        self._login_details: Mapping[str, str] = NO_DETAILS
        self._is_key_due = False  # another ticket, by `cycle_key`
        self._is_expiry_due = False  # by `set_expiry`
        self._had_expiry = False  # before `set_expiry` took it back
        self._is_for_cookie = False  # the response is done: Django's SessionMiddleware asks for how long
        self._is_cookie_due = False  # the ticket is another one, or its cookie lasts otherwise
        self._ends_with_browser: bool | None = None  # the cookie of a ticket that was made here
        self._has_failed = False  # the store, in this request
        self._is_password_new = False  # since this request's user was saved
        self._is_kept = False  # in spite of that: it has another ticket since
        self._first_seen_with = ""  # the hash of a password, to be written down
        self._seen = SeenVersion(())
        self._ambiguous_keys: list[str] = []  # those of the request, if it brought several
        self._ambiguous_path = ""  # of that request
        self._end_old: Callable[[], None] = lambda: None  # that of an engine before (fastticket/django/moving.py)

    # --- which session it is

    def _set_ambiguous(self, session_keys: list[str], path: str) -> None:
        """The request for `path` brought several cookies of the session: it is anonymous."""
        if len(session_keys) > 1:
            self._ambiguous_keys, self._ambiguous_path = session_keys, path

    def _end_ambiguous(self) -> None:
        """End all sessions that the request brought: a logout or a login. StoreUnavailable."""
        for key in self._ambiguous_keys:
            self.delete(key)
        self._ambiguous_keys = []

    def _admit(self) -> Session | None:
        """The session of the ticket. None: there is no ticket, or it is refused, and then the key
        is dropped. StoreUnavailable.
        """
        if self._admitted is None and is_ticket(self.session_key):
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

    def _note_failure(self) -> None:
        """The store has failed: a 500 of this request becomes a 503 (fastticket/web/outcome.py)."""
        self._has_failed = True

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except StoreUnavailable:
            self._note_failure()
            raise

    # --- who is logged in

    @property
    def _principal(self) -> str:
        """The principal of the ticket, or of this request's login; empty: nobody is logged in.
        StoreUnavailable.
        """
        admitted = self._admit()
        return self._login_due or (admitted.principal if admitted else "")

    def _user(self, request: HttpRequest | None = None) -> AbstractBaseUser | AnonymousUser:
        """The principal's user in this project. Anonymous: nobody is logged in, or nobody whom this
        project knows. StoreUnavailable.
        """
        self.accessed = True
        return self._found_user.user(request)

    def _note(self) -> Note | None:
        """What this project has noted of the login. None: nothing. StoreUnavailable."""
        data = self._session
        if isinstance(data, SharedData):
            return data.note()
        return {name: data[name] for name in NOTE_KEYS if name in data} or None

    def _derived_note(self) -> Note:
        return self._found_user.derived_note()

    @property
    def _is_verifying(self) -> bool:
        return self._found_user.is_verifying

    def _log_in(self, principal: str, details: Mapping[str, str] = NO_DETAILS) -> None:
        """Have a ticket made for this principal when the session is saved. A session of another
        principal ends now, with its attributes. StoreUnavailable.
        """
        if self._principal not in ("", principal):
            note = self._note() or {}
            self.flush()
            self._session.update(note)
        if not self._admit():
            self._login_due, self._login_details = principal, details
            self.modified = True

    def _notice_login(self) -> None:
        """A login may also be Django's notes, written into the session without `login()`: if they
        are true, it is one.
        """
        data = self.__dict__.get("_session_cache")
        if data and not self._login_due and not is_ticket(self.session_key) and SESSION_KEY in data:
            user = self._found_user.claimed()
            self._login_due = "" if user.is_anonymous else principal_of(user)

    # --- a password that is another now (fastticket/django/passwords.py)

    def _kept_for(self, principal: str) -> Session | None:
        """As `passwords.RequestSession` says."""
        if self._admitted is None or self._admitted.principal != principal:
            return None
        if passwords.serving.get() is not self and not self._is_kept:
            return None
        self._is_password_new = True
        return self._admitted

    def _end_if_password_is_new(self) -> None:
        """End a session that `update_session_auth_hash()` has not kept. StoreUnavailable."""
        data = self.__dict__.get("_session_cache")
        is_renewed = self._is_kept or (isinstance(data, SharedData) and data.is_hash_renewed)
        if self._is_password_new and not is_renewed:
            self.flush()

    def _has_old_password(self, user: AbstractBaseUser) -> bool:
        """As `NotedSession` says."""
        data = self._session
        can_tell = isinstance(data, SharedData) and hasattr(user, "get_session_auth_hash")
        if not can_tell or not passwords.ends_sessions():
            return False
        known, now = data.first_seen(), user.get_session_auth_hash()
        if known != now:
            self._first_seen_with = now
        return known is not None and not passwords.has_hash(user, known)

    def _write_first_seen(self) -> bool:
        """Whether all that there is to write is with which password the session was first seen. It
        is written; or, if that fails, the next request tries again.
        """
        data = self.__dict__.get("_session_cache")
        if not self._first_seen_with or not isinstance(data, SharedData) or data.note() is not None:
            return False
        is_alone = data.see_first(self._first_seen_with)
        if not is_alone or self._is_key_due or self._is_expiry_due or self._is_cookie_due:
            return False
        with contextlib.suppress(StoreUnavailable, TicketRefused, AttributesTooLarge):
            data.attributes.save()
        return True

    # --- its content

    def load(self) -> MutableMapping[str, Any]:
        """Attributes, which are read when they are first looked at; or the content of the anonymous
        cookie.
        """
        admitted = self._admit()
        if admitted:
            attributes = ticket_cache().attributes(admitted, seen=self._seen.version)
            return SharedData(attributes, self)
        if not self.session_key:
            return {}
        data = unsigned(self.session_key, self.serializer, self.get_session_cookie_age())
        if data is None:
            self._session_key = None
        return data or {}

    async def aload(self) -> MutableMapping[str, Any]:
        """As `load`, but attributes are read now: a coroutine cannot wait for them later."""
        return await sync_to_async(self._loaded_and_read)()

    def _loaded_and_read(self) -> MutableMapping[str, Any]:
        data = self.load()
        if isinstance(data, SharedData):
            data.read()
        return data

    def _read(self) -> MutableMapping[str, Any]:
        """The session's content, read now. A session that turns out to be over is anonymous, and
        empty. StoreUnavailable.
        """
        data: MutableMapping[str, Any] = self._session
        if isinstance(data, SharedData):
            data.read()
        return self._session

    def _become_anonymous(self, data: MutableMapping[str, Any]) -> None:
        """The session was over before it was read. `data` is the content from now on: later writes
        are an anonymous visitor's.
        """
        self._reset()
        self._seen.forget()
        self._session_cache = data

    def _reset(self) -> None:
        """No key, nobody logged in, no content, nothing due."""
        self._session_key = None
        self._admitted = self._ends_with_browser = None
        self._login_due, self._login_details = "", NO_DETAILS
        self._is_key_due = self._is_expiry_due = self._is_cookie_due = self._had_expiry = False
        self._is_password_new = False
        self._first_seen_with = ""
        self._session_cache = {}

    async def aget(self, key: str, default: Any = None) -> Any:
        """As `get`."""
        return await sync_to_async(self.get)(key, default)

    async def aset(self, key: str, value: Any) -> None:
        """As `session[key] = value`."""
        await sync_to_async(self.__setitem__)(key, value)

    async def ahas_key(self, key: str) -> bool:
        """As `has_key`."""
        return await sync_to_async(self.has_key)(key)

    # --- writing

    def _finish(self) -> bool:
        """Save what changed of a ticket's session, when the request is done. Whether the client
        needs a cookie for it.

        StoreUnavailable; UpdateError: the session has ended.
        """
        self._end_if_password_is_new()
        self._notice_login()
        if not self._login_due and not is_ticket(self.session_key):
            return False
        if not self._write_first_seen():
            self.save()
        self.modified = self._is_cookie_due
        return self.modified

    def _discard(self) -> None:
        """Save nothing: the request has failed. A password that it has changed stays changed."""
        self.modified = False
        if self._is_password_new and not self._is_kept:
            with contextlib.suppress(StoreUnavailable):
                self.flush()

    def save(self, must_create: bool = False) -> None:
        """Make the ticket that a login waits for; write attributes; replace the ticket. Of an
        anonymous session: sign it.

        StoreUnavailable; UpdateError: the session has ended. For a login, TooManySessions,
        InvalidPrincipal; for attributes, BadAttribute, AttributesTooLarge. ValueError: no ticket
        has the lifetime that `set_expiry` asks for.
        """
        try:
            with self._noting_failure():
                self._save()
        except TicketRefused as error:
            raise UpdateError(str(error)) from error

    def _save(self) -> None:
        self._notice_login()
        has_ticket = is_ticket(self.session_key)
        if (self._login_due or (has_ticket and self._is_expiry_due)) and is_past(self.get(EXPIRY)):
            self.flush()
        elif self._login_due:
            self._make_ticket()
        elif has_ticket:
            self._write()
        else:
            content = {name: value for name, value in self._session.items() if name not in NOTE_KEYS}
            self._session_key = signed(content, self.serializer)

    def _make_ticket(self) -> None:
        self._end_ambiguous()
        self._seen.forget()
        data = {name: value for name, value in self._session.items() if not is_hidden(name)}
        note = self._note()
        principal, self._login_due = self._login_due, ""  # a login that fails is not tried again
        for name in NOTE_KEYS:
            self._session.pop(name, None)
        idle_timeout_s, absolute_lifetime_s = self._lifetimes_s()
        ends_with_browser = self.get_expire_at_browser_close()
        ticket = ticket_cache().login(
            principal,
            idle_timeout_s=idle_timeout_s,
            absolute_lifetime_s=absolute_lifetime_s,
            details=self._login_details,
        )
        try:
            attributes = self._continue_with(ticket, ends_with_browser)
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

    def _rotate(self, lifetimes_s: Lifetimes, *, is_password_new: bool) -> None:
        ends_with_browser = self.get_expire_at_browser_close()
        idle_timeout_s, absolute_lifetime_s = lifetimes_s
        ticket = ticket_cache().rotate(
            str(self.session_key), idle_timeout_s=idle_timeout_s, absolute_lifetime_s=absolute_lifetime_s
        )
        self._continue_with(ticket, ends_with_browser)
        self._is_kept |= is_password_new
        if is_password_new:
            ticket_cache().logout_everywhere(self._principal, keep=self._admitted)

    def _continue_with(self, ticket: str, ends_with_browser: bool) -> Attributes:
        """The session is this ticket's from now on. Its attributes."""
        self._reset()
        self._session_key = ticket
        self._is_cookie_due = True
        self._ends_with_browser = ends_with_browser
        self._admitted = ticket_cache().authenticate(ticket)
        attributes = ticket_cache().attributes(self._admitted, seen=self._seen.version)
        self._session_cache = SharedData(attributes, self)
        return attributes

    # --- which version the client has seen

    def _note_read(self, attributes: Attributes) -> None:
        if attributes.is_loaded:
            self._seen.read(attributes.version or NEVER_WRITTEN)

    def _seen_news(self) -> str | None:
        """As `SeenVersion.news`, when the request is done."""
        data = self.__dict__.get("_session_cache")
        if isinstance(data, SharedData):
            self._note_read(data.attributes)
        return self._seen.news

    def _seen_max_age_s(self) -> int | None:
        """How long the client keeps the version that it has seen: as long as the ticket. None: as
        long as the browser runs. Does not ask the store.
        """
        data = self.__dict__.get("_session_cache")
        may_ask = self._ends_with_browser is not None or (isinstance(data, SharedData) and data.attributes.is_loaded)
        ends_with_browser = self.get_expire_at_browser_close() if may_ask else settings.SESSION_EXPIRE_AT_BROWSER_CLOSE
        return None if ends_with_browser or not self._admitted else self.get_expiry_age()

    # --- its beginning and end

    def exists(self, session_key: str) -> bool:
        """Whether a key is a ticket that is admitted. An anonymous session exists nowhere.
        StoreUnavailable.
        """
        return bool(SessionStore(session_key)._admit())

    def create(self) -> None:
        """Become another session, anonymous and empty."""
        self._reset()
        self._seen.forget()
        self.save()
        self.modified = True

    def cycle_key(self) -> None:
        """Replace the ticket by another one of the same session, when that is saved. An anonymous
        session gets one with the login.

        Nothing is done where Django asks for it because SECRET_KEY has changed: a ticket is signed
        with another key, and of several requests at once only one could have the new ticket.
        """
        self._is_key_due |= not self._is_verifying
        self.modified = True

    async def acycle_key(self) -> None:
        """As `cycle_key`."""
        self.cycle_key()

    def clear(self) -> None:
        """Empty the session. In an empty session nobody is logged in, so a ticket is revoked.
        StoreUnavailable.
        """
        if self._login_due or self._ambiguous_keys or is_ticket(self.session_key):
            self.flush()
        else:
            super().clear()

    def flush(self) -> None:
        """End the session, now: its ticket is revoked, for every application. StoreUnavailable:
        nothing has changed.
        """
        self._end_ambiguous()
        self.delete()
        self._end_old()
        self._reset()
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
        if is_ticket(key):
            with self._noting_failure(), contextlib.suppress(TicketRefused):
                ticket_cache().logout(key)

    @classmethod
    def clear_expired(cls) -> None:
        """Nothing to do: the ticket cache removes expired sessions."""

    # --- how long it lasts

    def set_expiry(self, value: float | datetime | timedelta | None) -> None:
        """As in Django: so many seconds without use; a moment; 0: the cookie ends with the browser;
        None: the usual lifetimes.

        A ticket says how long it lives, so the present one is replaced by another when the session
        is saved. 0 and None do that only after another expiry; otherwise, they change the cookie
        alone.
        """
        self._had_expiry |= not value and bool(self.get(EXPIRY))
        super().set_expiry(value)
        self._is_expiry_due = self._is_cookie_due = True

    async def aset_expiry(self, value: float | datetime | timedelta | None) -> None:
        """As `set_expiry`."""
        self._had_expiry |= not value and bool(await self.aget(EXPIRY))
        await super().aset_expiry(value)
        self._is_expiry_due = self._is_cookie_due = True

    def get_expiry_age(self, **kwargs: Any) -> int:
        """Seconds until the session ends if it is not used; of an anonymous one, as in Django.
        StoreUnavailable.

        To SessionMiddleware, which asks when the response is done: until it ends however much it is
        used. A cookie that went earlier would log out who does use it.
        """
        admitted = None if kwargs else self._admit()
        if admitted is None:
            return super().get_expiry_age(**kwargs)
        left_s = _until_s(admitted.absolute_deadline_ms) if self._is_for_cookie else self._unused_s(admitted)
        return self.get_session_cookie_age() if left_s == math.inf else max(0, round(left_s))

    def _unused_s(self, admitted: Session) -> float:
        """In how many seconds it ends if it is not used, by its ticket or by `set_expiry`."""
        if self._is_expiry_due and any(lifetimes := self._lifetimes_s()):
            return ends_in_s(lifetimes, admitted.issued_at_ms)
        expiry = self.get(EXPIRY)
        idle_s = expiry if expiry and not isinstance(expiry, str) else math.inf
        return min(idle_s, _until_s(admitted.idle_deadline_ms), _until_s(admitted.absolute_deadline_ms))

    async def aget_expiry_age(self, **kwargs: Any) -> int:
        """As `get_expiry_age`."""
        return await sync_to_async(self.get_expiry_age)(**kwargs)

    def get_expiry_date(self, **kwargs: Any) -> datetime:
        """When the session ends if it is not used; of an anonymous one, as in Django.
        StoreUnavailable.
        """
        if kwargs or self._admit() is None:
            return super().get_expiry_date(**kwargs)
        return timezone.now() + timedelta(seconds=self.get_expiry_age())

    async def aget_expiry_date(self, **kwargs: Any) -> datetime:
        """As `get_expiry_date`."""
        return await sync_to_async(self.get_expiry_date)(**kwargs)

    def get_expire_at_browser_close(self) -> bool:
        """Whether the cookie ends with the browser. True if the store would have to be asked and
        does not answer: Django's SessionMiddleware asks when the response is done.
        """
        if self._ends_with_browser is None:
            try:
                return super().get_expire_at_browser_close()
            except StoreUnavailable:
                return True
        return self._ends_with_browser

    def _lifetimes_s(self) -> Lifetimes:
        """Those of a ticket that is made now."""
        expiry, admitted, cache = self.get(EXPIRY), self._admit(), ticket_cache()
        issued_at_ms = admitted.issued_at_ms if admitted else None
        if expiry:
            return lifetimes_s(expiry, issued_at_ms, cache.absolute_lifetime_s)
        if self._had_expiry:
            return usual_again_s(issued_at_ms, cache.idle_timeout_s, cache.absolute_lifetime_s)
        return None, None


def _until_s(deadline_ms: int) -> float:
    return math.inf if deadline_ms == NEVER_MS else deadline_ms / 1000 - time.time()


@receiver(user_logged_in, dispatch_uid="fastticket")
def _on_login(request: HttpRequest | None, user: AbstractBaseUser, **_: Any) -> None:
    """Take Django's `login()` for a login of the session. The signal counts only if the session has
    the user: others send it too, for logins without a session.

    InvalidPrincipal, raised out of `login()`: nobody is logged in.
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
    environ: Mapping[str, str] = getattr(request, "META", {})
    visitor = Visitor(address=environ.get("REMOTE_ADDR", ""), user_agent=environ.get("HTTP_USER_AGENT", ""))
    session._log_in(principal, visitor.details)
