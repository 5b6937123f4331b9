"""Flask's session on tickets: `flask.session["user"]` is who is logged in, whichever application
the login was at.

    from fastticket.flask import TicketSessions
    from fastticket.sync import TicketCache

    app.session_interface = TicketSessions(TicketCache(store, keys))

Rules of this file
- A visitor who is not logged in has Flask's own signed cookie, if the application has a secret key.
  A login takes along what is in it.
- What a request changed is written when its response is there; if that is one of 500 or more,
  nothing is. `login` and its like write at once, so their errors are the view's to handle.
- Where the store fails, the error is an HTTP error of 503 at the same time, so an application's
  error handlers see it as one.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, MutableMapping
from typing import Any, TypeVar

import flask
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionInterface, SessionMixin
from werkzeug.exceptions import ServiceUnavailable

from fastticket.errors import BadAttribute, ConfigError, NotLoggedIn, StoreUnavailable
from fastticket.sessions.attributes import AttributeChanges
from fastticket.sync import TicketCache
from fastticket.web.cookies import TicketCookie
from fastticket.web.session import RETRY_AFTER_S, UNAVAILABLE_BODY, UNAVAILABLE_FIELDS, UNAVAILABLE_STATUS, at_once
from fastticket.wsgi import ThreadSession, of_threads, visitor_of

__all__ = ["SessionsUnavailable", "TicketSession", "TicketSessions", "login", "logout", "logout_everywhere", "rotate"]

SERVER_ERRORS = 500  # and above
PERMANENT_KEY = "_permanent"  # Flask's

log = logging.getLogger("fastticket.flask")

T = TypeVar("T")


class SessionsUnavailable(StoreUnavailable, ServiceUnavailable):
    """The store did not answer; to Flask, a 503."""

    def __init__(self, message: str) -> None:
        StoreUnavailable.__init__(self, message)
        ServiceUnavailable.__init__(self, response=_unavailable())


class TicketSession(ThreadSession, SessionMixin):
    """`flask.session`. `permanent`: the login is remembered, if that is said in the request that
    logs in.
    """

    _failure: SessionsUnavailable | None = None  # why the ticket can not be judged, or its session not be read
    _is_marked = False
    _is_permanent = False  # where no place remembers it

    def __init__(self, *known: Any) -> None:
        super().__init__(*known)
        self._came = frozenset(self._place)

    def login(self, principal: str, *, remember: bool = False) -> None:
        """Begin a new session. `remember`: its cookie outlives the browser. One that there was
        ends, with all that was in it.
        """
        self._refuse_after_failure()
        super().login(principal, remember=remember or bool(self._place.get(PERMANENT_KEY, self._is_permanent)))

    def logout(self) -> None:
        """End the session, if there is one, and forget all that was in it."""
        self._refuse_after_failure()
        self._is_permanent = False
        super().logout()

    @property
    def permanent(self) -> bool:
        """Whether the cookie outlives the browser."""
        if self._newcomer is not None:
            return self._remembers
        if self._session is not None:
            return self._remembered_s is not None
        return bool(self._place.get(PERMANENT_KEY, self._is_permanent))

    @permanent.setter
    def permanent(self, value: bool) -> None:
        if self._newcomer is not None:
            self._remembers = bool(value)
        elif self._session is None and self._has_place:
            self._place[PERMANENT_KEY] = bool(value)
        else:
            self._is_permanent = bool(value)

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether it begins with this request."""
        return self._newcomer is not None

    @property
    def accessed(self) -> bool:
        """Whether the request looked at it."""
        return self._is_looked_at

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self._is_looked_at = value

    @property
    def modified(self) -> bool:
        """Whether there is something to write. Setting it is never needed: a change within a value
        is noticed.
        """
        return self._is_marked or self.new or self._rotates or self._leaves or bool(self._changes())

    @modified.setter
    def modified(self, value: bool) -> None:
        self._is_marked = value
        if isinstance(self._place, SecureCookieSession) and self._attributes is None:
            self._place.modified = value

    def save_place(self, interface: SessionInterface, app: flask.Flask, response: flask.Response) -> None:
        """Give the visitor the signed cookie, or take it away, where that is due."""
        if isinstance(self._place, SecureCookieSession) and (self._place or self._came):
            interface.save_session(app, self._place, response)

    def _changes(self) -> object:
        if self._attributes is not None:
            return self._attributes.changes()
        return isinstance(self._place, SecureCookieSession) and self._place.modified

    def _readable(self) -> MutableMapping[str, Any]:
        self._tell_failure()
        if self._failure is not None:
            return {}
        try:
            return super()._readable()
        except StoreUnavailable as error:
            self._failure = SessionsUnavailable(str(error))
            raise self._failure from error

    def _writable(self) -> MutableMapping[str, Any]:
        self._refuse_after_failure()
        return super()._writable()

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _tell_failure(self) -> None:
        """Only once, whether it is raised here or by Flask: the page that answers to it may look at
        the session, and finds nothing.
        """
        if self._failure is not None and not self._is_failure_told:
            raise self._failure

    @property
    def _is_failure_told(self) -> bool:
        """An error has a traceback since it was raised."""
        return self._failure is not None and self._failure.__traceback__ is not None

    @property
    def principal(self) -> str | None:
        """Who is logged in, or will be at the end of the request. None: nobody.
        SessionsUnavailable.
        """
        self._tell_failure()
        return super().principal

    def _brought(self) -> dict[str, Any]:
        if self._newcomer is not None:
            self._leave_behind_what_no_session_holds()
        return {name: value for name, value in super()._brought().items() if name != PERMANENT_KEY}

    def _leave_behind_what_no_session_holds(self) -> None:
        """Of what came with the signed cookie: its JSON has dates and bytes, too, and would fail
        each login of this visitor.
        """
        for name in self._came.intersection(self._place):
            alone = AttributeChanges(self._cache.serializer)
            try:
                alone[name] = self._place[name]
                alone.changes()
            except BadAttribute:
                log.warning("a login leaves behind %r of the signed cookie: no session can hold that", name)
                del self._place[name]

    def _homeless(self) -> NotLoggedIn:
        names = ", ".join(map(repr, sorted(self._place)))
        return NotLoggedIn(
            f"session: {names} can not be kept for a visitor who is not logged in: set app.secret_key, and such a visitor has Flask's "
            f"signed cookie; or log in (session[{self._principal_key!r}] = …)"
        )


class TicketSessions(SessionInterface):
    """`app.session_interface`. `principal_key`: the session's entry that is who is logged in.

    `SESSION_COOKIE_NAME` and its like are about the signed cookie of those who are not logged in;
    `cookie` is about the ticket's.
    """

    def __init__(self, cache: TicketCache, *, cookie: TicketCookie | None = None, principal_key: str = "user") -> None:
        self._cache = of_threads(cache)
        self._cookie = cookie or TicketCookie()
        self._principal_key = principal_key
        self._anonymous = SecureCookieSessionInterface()

    def open_session(self, app: flask.Flask, request: flask.Request) -> TicketSession:
        """Flask calls it. ConfigError: both cookies have one name."""
        place = self._anonymous.open_session(app, request)
        if place is not None and self.get_cookie_name(app) == self._cookie.name:
            raise ConfigError(
                f"SESSION_COOKIE_NAME is {self._cookie.name!r}, the ticket cookie's name: give it another"
            )
        session = TicketSession(self._cache, self._cookie, visitor_of(request.environ), self._principal_key, place)
        try:
            at_once(session.admit())
        except StoreUnavailable as error:
            session._failure = request.routing_exception = SessionsUnavailable(str(error))  # in place of the view
        return session

    def save_session(self, app: flask.Flask, session: SessionMixin, response: flask.Response) -> None:
        """Flask calls it. What is wrong with what was set is the application's error: NotLoggedIn,
        BadAttribute and so on.
        """
        if not isinstance(session, TicketSession):
            return
        if response.status_code < SERVER_ERRORS:
            try:
                at_once(session.carry_out())
                session.save_place(self._anonymous, app, response)
            except StoreUnavailable:
                _make_unavailable(response)
        elif session._is_failure_told:
            _say_unavailable(response)
        for name, value in session.fields(response.headers.items()):
            if name == "Vary":
                response.vary.add(value)
            else:
                response.headers.add(name, value)


def login(principal: str, *, remember: bool = False) -> None:
    """Begin a session, now; the response brings its cookie. `remember`: it outlives the browser.

    One that there was ends, with its attributes; those of an anonymous visitor come along.
    InvalidPrincipal, TooManySessions, SessionsUnavailable, BadAttribute, AttributesTooLarge.
    RuntimeError: the response has begun.
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
    """Go on under another ticket, now: after a change of privileges. NotLoggedIn,
    SessionsUnavailable; RuntimeError: too late.
    """
    session = _session()
    session.rotate()
    _run(session, session.carry_out())


def logout_everywhere(*, keep_this: bool = True) -> int:
    """End every session of who is logged in, now; how many. `keep_this`: all but this one.
    NotLoggedIn, SessionsUnavailable.
    """
    session = _session()
    return _run(session, session.logout_everywhere(keep_this=keep_this))


def _run(session: TicketSession, coroutine: Coroutine[Any, Any, T]) -> T:
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


def _unavailable() -> flask.Response:
    return flask.Response(UNAVAILABLE_BODY, UNAVAILABLE_STATUS, dict(UNAVAILABLE_FIELDS))


def _say_unavailable(response: flask.Response) -> None:
    """The application's own answer to the failure. One of 500 is none: its error page asked more of
    the session than there is.
    """
    if response.status_code == UNAVAILABLE_STATUS:
        response.headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    elif response.status_code == SERVER_ERRORS:
        _make_unavailable(response)


def _make_unavailable(response: flask.Response) -> None:
    """Flask has a response already, and goes on with it: it becomes another one."""
    if hasattr(response.response, "close"):
        response.response.close()
    response.headers.clear()
    response.status_code = UNAVAILABLE_STATUS
    response.set_data(UNAVAILABLE_BODY)
    response.headers.update(UNAVAILABLE_FIELDS)
