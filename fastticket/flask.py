"""Flask's session on tickets: `flask.session["user"]` is the principal that is logged in, at
whichever application the login was.

    from fastticket.flask import TicketSessions
    from fastticket.sync import TicketCache

    app.session_interface = TicketSessions(TicketCache(store, keys))

Rules of this file
- A visitor who is not logged in has Flask's own signed cookie, if the application has a secret key.
  A login moves its contents into the new session.
- What a request changed is written when its response is there, by the rule of server errors
  (fastticket/web/outcome.py). `login` and its like write at once, so that the view can handle their
  errors.
- An error of the store is also an HTTP error of 503, so that the application's error handlers for
  either are called.
- A visitor's signed cookie is written if its content changed, also within a list or dictionary.
- The application is told once that the ticket cannot be judged, or the session not be read: by the
  first look at the session, or by Flask, in place of the view. After that the error page may look
  at the session, and finds an empty one; a change is the same error again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Coroutine, MutableMapping
from typing import Any, TypeVar

import flask
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface, SessionMixin
from werkzeug.exceptions import ServiceUnavailable

from fastticket.errors import BadAttribute, ConfigError, StoreUnavailable
from fastticket.sessions.attributes import AttributeChanges
from fastticket.sync import TicketCache
from fastticket.web.caches import Entries, at_once
from fastticket.web.cookies import TicketCookie
from fastticket.web.outcome import (
    RETRY_AFTER_S,
    UNAVAILABLE_BODY,
    UNAVAILABLE_FIELDS,
    UNAVAILABLE_STATUS,
    Outcome,
    outcome_of,
)
from fastticket.wsgi import ThreadSession, of_threads, visitor_of

__all__ = ["SessionsUnavailable", "TicketSession", "TicketSessions", "login", "logout", "logout_everywhere", "rotate"]

PERMANENT_KEY = "_permanent"  # Flask's
#: Entries by which applications with Flask's own sessions, and flask-login, say who is logged in.
LOGIN_NAMES = ("user_id", "_user_id", "userid", "username")

log = logging.getLogger("fastticket.flask")

_warned_of: set[str] = set()  # of LOGIN_NAMES, in this process

T = TypeVar("T")


class SessionsUnavailable(StoreUnavailable, ServiceUnavailable):
    """The store did not answer. To Flask it is a 503, with Retry-After."""

    def __init__(self, message: str) -> None:
        StoreUnavailable.__init__(self, message)
        ServiceUnavailable.__init__(self, response=_unavailable())

    @property
    def was_raised(self) -> bool:
        """Whether the application has been told: Python gives an exception its traceback when it is
        raised. Flask itself raises the one that `open_session` leaves in
        `request.routing_exception`, and nothing of ours is called then.
        """
        return self.__traceback__ is not None


class TicketSession(ThreadSession, SessionMixin):
    """`flask.session`: a mapping of attributes, with the principal that is logged in under
    `principal_key`. SessionsUnavailable: the store failed.
    """

    _failure: SessionsUnavailable | None = None  # the ticket cannot be judged, or attributes not read
    _is_marked = False  # by `session.modified = True`
    _is_permanent = False  # as `permanent` was set, without a session or signed cookie to hold it
    _content_read: str | None = None  # the signed cookie's, before the application could change it

    def __init__(self, *known: Any) -> None:
        super().__init__(*known)
        self._names_in_cookie = frozenset(self._anonymous)

    def login(self, principal: str, *, remember: bool = False) -> None:
        """Begin a new session, at the end of the request. Another session that there is ends, with
        its attributes.

        `remember`: the cookie outlives the browser; so it does if `permanent` is set.
        InvalidPrincipal, TypeError, SessionsUnavailable.
        """
        self._refuse_after_failure()
        super().login(principal, remember=remember or bool(self._anonymous.get(PERMANENT_KEY, self._is_permanent)))

    def logout(self) -> None:
        """End the session, if there is one, at the end of the request. Its attributes are gone.
        SessionsUnavailable.
        """
        self._refuse_after_failure()
        self._is_permanent = False
        super().logout()

    def logout_everywhere(self, *, keep_this: bool = True) -> int:
        """End every session of the principal, now. Returns how many ended.

        `keep_this`: all but this one. NotLoggedIn, SessionsUnavailable.
        """
        return _run(self, self.end_all(keep_this=keep_this))

    @property
    def principal(self) -> str | None:
        """The principal that is logged in, or will be at the end of the request. None: nobody is.
        SessionsUnavailable.
        """
        self._tell_failure()
        return super().principal

    # --- what Flask asks of a session

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser. To be set in the request that logs in."""
        if self._login_due is not None:
            return self._is_remembered_login
        if self._session is not None:
            return self._remembered_s is not None
        return bool(self._anonymous.get(PERMANENT_KEY, self._is_permanent))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        if self._login_due is not None:
            self._is_remembered_login = bool(value)
        elif self._session is None and self._keeps_anonymous:
            self._anonymous[PERMANENT_KEY] = bool(value)
        else:
            self._is_permanent = bool(value)

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether the session begins with this request."""
        return self._login_due is not None

    @property
    def accessed(self) -> bool:
        """Whether the request looked at the session."""
        return self._is_accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self._is_accessed = value

    @property
    def modified(self) -> bool:
        """Whether there is something to write. It need not be set: a change within a list or
        dictionary is noticed.
        """
        return self._is_marked or self.new or self._is_rotation_due or self._is_logout_due or bool(self._changes())

    @modified.setter
    def modified(self, value: bool) -> None:
        self._is_marked = value
        if isinstance(self._anonymous, SecureCookieSession) and self._attributes is None:
            self._anonymous.modified = value
            self._content_read = None

    def _changes(self) -> object:
        return self._is_place_changed() if self._attributes is None else self._attributes.changes()

    # --- the signed cookie of a visitor who is not logged in

    def save_place(self, interface: SessionInterface, app: flask.Flask, response: flask.Response) -> None:
        """Set the signed cookie of an anonymous visitor, or delete it, where that is due."""
        place = self._anonymous
        if isinstance(place, SecureCookieSession) and (place or self._names_in_cookie):
            place.modified = self._is_place_changed()
            interface.save_session(app, place, response)

    def _login_in_place(self) -> str | None:
        """The entry in an anonymous visitor's signed cookie that looks like a login. None: there is
        none.
        """
        return next((name for name in LOGIN_NAMES if name in self._anonymous), None)

    def _is_place_changed(self) -> bool:
        """Whether its content is another. Flask itself sees assignments, but not what is done to a
        list or dictionary.
        """
        place = self._anonymous
        if not isinstance(place, SecureCookieSession):
            return False
        return place.modified or self._content_read not in (None, _as_text(place))

    # --- where the store has failed

    def _readable(self) -> Entries:
        self._tell_failure()
        if self._failure is not None:
            return {}
        if self._attributes is None and self._anonymous and self._content_read is None:
            self._content_read = _as_text(self._anonymous)
        try:
            return super()._readable()
        except StoreUnavailable as error:
            self._failure = SessionsUnavailable(str(error))
            raise self._failure from error

    def _writable(self) -> Entries:
        self._refuse_after_failure()
        return super()._writable()

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _tell_failure(self) -> None:
        """Raise the failure, unless the application was told."""
        if self._failure is not None and not self._failure.was_raised:
            raise self._failure

    # --- what moves from the signed cookie into the session

    def _moving_into_session(self) -> dict[str, Any]:
        if self._login_due is not None:
            self._leave_behind_what_no_session_holds()
        return {name: value for name, value in super()._moving_into_session().items() if name != PERMANENT_KEY}

    def _leave_behind_what_no_session_holds(self) -> None:
        """Drop values that came in the signed cookie, whose JSON knows dates and bytes, and that
        are no attributes: they would make each login of this visitor fail.
        """
        for name in self._names_in_cookie.intersection(self._anonymous):
            alone = AttributeChanges(self._cache.serializer)
            try:
                alone[name] = self._anonymous[name]
                alone.changes()
            except BadAttribute:
                log.warning("a login leaves behind %r of the signed cookie: no session can hold that", name)
                del self._anonymous[name]

    def _remedy(self, log_in: str) -> str:
        name = self._login_in_place()
        if name:
            return f"{log_in}; or say that this entry is the login: TicketSessions(cache, principal_key={name!r})"
        return f"set app.secret_key, and such a visitor has Flask's signed cookie; or {log_in}"


class TicketSessions(SessionInterface):
    """`app.session_interface`.

    cache          a fastticket.sync.TicketCache; TypeError: it is another
    cookie         the ticket's; by default `TicketCookie()`. `SESSION_COOKIE_NAME` and its like
                   describe the signed cookie of visitors who are not logged in
    principal_key  the session's entry that is the principal; "user" without it. An entry of another
                   name logs nobody in. If one looks like a login, the log says so, once
    """

    def __init__(
        self, cache: TicketCache, *, cookie: TicketCookie | None = None, principal_key: str | None = None
    ) -> None:
        self._cache = of_threads(cache)
        self._cookie = cookie or TicketCookie()
        self._principal_key = "user" if principal_key is None else principal_key
        self._is_key_chosen = principal_key is not None
        self._signed_cookies = SecureCookieSessionInterface()

    def open_session(self, app: flask.Flask, request: flask.Request) -> TicketSession:
        """The session of a request; for Flask to call. ConfigError: both cookies have one name."""
        anonymous = self._signed_cookies.open_session(app, request)
        if anonymous is not None and self.get_cookie_name(app) == self._cookie.name:
            raise ConfigError(
                f"SESSION_COOKIE_NAME is {self._cookie.name!r}, the ticket cookie's name: give it another"
            )
        session = TicketSession(self._cache, self._cookie, visitor_of(request.environ), self._principal_key, anonymous)
        try:
            at_once(session.admit())
        except StoreUnavailable as error:
            # Flask raises it in place of the view, after the functions before the request.
            session._failure = request.routing_exception = SessionsUnavailable(str(error))
        return session

    def save_session(self, app: flask.Flask, session: SessionMixin, response: flask.Response) -> None:
        """Write what the request changed, and complete the response; for Flask to call.

        What is wrong with what was set is the application's error: NotLoggedIn, BadAttribute,
        AttributesTooLarge, TooManySessions, TypeError.
        """
        if not isinstance(session, TicketSession):
            return
        was_told = session._failure is not None and session._failure.was_raised
        outcome = outcome_of(response.status_code, has_store_failed=was_told)
        if outcome is Outcome.WRITE:
            try:
                at_once(session.carry_out())
                self._look_for_login(session)
                session.save_place(self._signed_cookies, app, response)
            except StoreUnavailable:
                outcome = Outcome.UNAVAILABLE
        elif was_told and response.status_code == UNAVAILABLE_STATUS:
            response.headers.setdefault("Retry-After", str(RETRY_AFTER_S))
        if outcome is Outcome.UNAVAILABLE:
            _make_unavailable(response)
        for name, value in session.fields(response.headers.items()):
            if name == "Vary":
                response.vary.add(value)
            else:
                response.headers.add(name, value)

    def _look_for_login(self, session: TicketSession) -> None:
        name = None if self._is_key_chosen or session.is_admitted else session._login_in_place()
        if name and name not in _warned_of:
            _warned_of.add(name)
            _warn_of_login_in_cookie(name)


def login(principal: str, *, remember: bool = False) -> None:
    """Begin a session, now; the response brings its cookie.

    `remember`: the cookie outlives the browser. A session that there was ends, with its attributes;
    those of an anonymous visitor move into the new one. InvalidPrincipal, TooManySessions,
    SessionsUnavailable, BadAttribute, AttributesTooLarge. RuntimeError: the response has begun.
    """
    session = _session()
    session.login(principal, remember=remember)
    _run(session, session.carry_out())


def logout() -> None:
    """End the session, now, if there is one. SessionsUnavailable: it may go on."""
    session = _session()
    session.logout()
    _run(session, session.carry_out())


def rotate() -> None:
    """Replace the ticket by another one of the same session, now: after a change of privileges.
    NotLoggedIn, SessionsUnavailable. RuntimeError: the response has begun.
    """
    session = _session()
    session.rotate()
    _run(session, session.carry_out())


def logout_everywhere(*, keep_this: bool = True) -> int:
    """End every session of the principal that is logged in, now. Returns how many ended.

    `keep_this`: all but this one. NotLoggedIn, SessionsUnavailable.
    """
    return _session().logout_everywhere(keep_this=keep_this)


def _run(session: TicketSession, coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. SessionsUnavailable, which is the session's failure from now on."""
    try:
        return at_once(coroutine)
    except StoreUnavailable as error:
        failure = SessionsUnavailable(str(error))
        if session.is_admitted:
            session._failure = failure
        raise failure from error


def _session() -> TicketSession:
    session = flask.session._get_current_object()  # type: ignore[attr-defined]
    if not isinstance(session, TicketSession):
        raise ConfigError("app.session_interface is not fastticket.flask.TicketSessions")
    return session


def _warn_of_login_in_cookie(name: str) -> None:
    """Say that an application that was written for Flask's own sessions seems to log in."""
    log.warning(
        "session[%r] is in the visitor's signed cookie alone, and logs nobody in: the entry of a login is session['user']. If "
        "%r says who is logged in, use TicketSessions(cache, principal_key=%r), and set it to a str; if not, principal_key='user' "
        "ends this warning",
        name,
        name,
        name,
    )


def _as_text(content: MutableMapping[str, Any]) -> str:
    """What a signed cookie would hold, to be compared."""
    return json.dumps(SecureCookieSessionInterface.serializer.tag(dict(content)), default=repr)


def _unavailable() -> flask.Response:
    return flask.Response(UNAVAILABLE_BODY, UNAVAILABLE_STATUS, dict(UNAVAILABLE_FIELDS))


def _make_unavailable(response: flask.Response) -> None:
    """Make it the 503: Flask goes on with the response object that it has."""
    if hasattr(response.response, "close"):
        response.response.close()
    response.headers.clear()
    response.status_code = UNAVAILABLE_STATUS
    response.set_data(UNAVAILABLE_BODY)
    response.headers.update(UNAVAILABLE_FIELDS)
