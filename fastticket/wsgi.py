"""WSGI middleware (PEP 3333): the session in `environ`, written before the response's first byte.

    from fastticket.sync import TicketCache
    from fastticket.wsgi import SessionMiddleware

    application = SessionMiddleware(application, TicketCache(store, keys))

The application finds the session, a mapping, in `environ["fastticket.session"]`, and the principal
that is logged in in `REMOTE_USER`.

Rules of this file
- The response begins when the application has returned and called `start_response`; if it calls
  that later, or calls `write`, with the first piece of the body. Until then what it does to the
  session counts, and a StoreUnavailable can still become the response.
- What is written is decided by the rule of server errors (fastticket/web/outcome.py). A response
  with `exc_info` counts as one of 500. `login` and its like write at once: their errors are the
  application's to handle.
- A body is passed on unwrapped if the response has begun, so that a server still recognizes a list
  or a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastticket.errors import StoreUnavailable
from fastticket.sync import TicketCache
from fastticket.web.caches import Entries, at_once
from fastticket.web.cookies import TicketCookie
from fastticket.web.outcome import UNAVAILABLE_BODY, UNAVAILABLE_FIELDS, UNAVAILABLE_STATUS, Outcome, outcome_of
from fastticket.web.session import WebSession
from fastticket.web.visitor import Visitor, is_by_https

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ENVIRON_KEY", "SessionMiddleware", "ThreadSession", "login", "logout", "logout_everywhere", "rotate"]

ENVIRON_KEY = "fastticket.session"  #: where `environ` has the session
UNAVAILABLE_STATUS_LINE = f"{UNAVAILABLE_STATUS} {HTTPStatus(UNAVAILABLE_STATUS).phrase}"


class ThreadSession(WebSession):
    """`environ["fastticket.session"]`: a mapping of attributes, with the principal that is logged
    in under `principal_key`. It belongs to the thread of its request.

    Attributes are read when the application first looks at one: StoreUnavailable.
    """

    def logout_everywhere(self, *, keep_this: bool = True) -> int:
        """End every session of the principal, now. Returns how many ended.

        `keep_this`: all but this one. NotLoggedIn, StoreUnavailable.
        """
        return at_once(self.end_all(keep_this=keep_this))

    def _readable(self) -> Entries:
        if self._attributes is not None and not self._attributes.is_loaded:
            at_once(self.read())
        return super()._readable()


class SessionMiddleware:
    """Sessions for a WSGI application: `SessionMiddleware(application, cache)` is one itself.

    cache          a fastticket.sync.TicketCache; TypeError: it is another
    cookie         by default `TicketCookie()`
    principal_key  the session's entry that is the principal

    `REMOTE_USER` is the ticket's principal (UTF-8, decoded as Latin-1: PEP 3333), or removed. A
    ticket that cannot be judged, because the store does not answer, is answered with 503.
    """

    def __init__(
        self,
        application: WSGIApplication,
        cache: TicketCache,
        *,
        cookie: TicketCookie | None = None,
        principal_key: str = "user",
    ) -> None:
        self._application = application
        self._cache = of_threads(cache)
        self._cookie = cookie or TicketCookie()
        self._principal_key = principal_key

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request. Inside another SessionMiddleware it does nothing."""
        if ENVIRON_KEY in environ:
            return self._application(environ, start_response)
        session = ThreadSession(self._cache, self._cookie, visitor_of(environ), self._principal_key)
        response = _Response(session, start_response)
        try:
            at_once(session.admit())
            _put_into(environ, session)
            body = self._application(environ, response.start)
            return response.begin(body) if response.is_started else response.begin_late(body)
        except StoreUnavailable as error:
            return response.replace(error)


def login(environ: WSGIEnvironment, principal: str, *, remember: bool = False) -> None:
    """Begin a session, now; the response brings its cookie.

    `remember`: the cookie outlives the browser. A session that there was ends, with its attributes.
    InvalidPrincipal, TooManySessions, StoreUnavailable, BadAttribute, AttributesTooLarge.
    RuntimeError: the response has begun.
    """
    session = _session_of(environ)
    session.login(principal, remember=remember)
    at_once(session.carry_out())


def logout(environ: WSGIEnvironment) -> None:
    """End the session, now, if there is one. StoreUnavailable: it may go on."""
    session = _session_of(environ)
    session.logout()
    at_once(session.carry_out())


def rotate(environ: WSGIEnvironment) -> None:
    """Replace the ticket by another one of the same session, now: after a change of privileges.
    NotLoggedIn, StoreUnavailable. RuntimeError: the response has begun.
    """
    session = _session_of(environ)
    session.rotate()
    at_once(session.carry_out())


def logout_everywhere(environ: WSGIEnvironment, *, keep_this: bool = True) -> int:
    """End every session of the principal that is logged in, now. Returns how many ended.

    `keep_this`: all but this one. NotLoggedIn, StoreUnavailable.
    """
    return _session_of(environ).logout_everywhere(keep_this=keep_this)


def of_threads(cache: object) -> TicketCache:
    """The cache. TypeError: it is not one for threads."""
    if not isinstance(cache, TicketCache):
        kind = f"{type(cache).__module__}.{type(cache).__qualname__}"
        raise TypeError(f"WSGI needs a fastticket.sync.TicketCache, which is that of threads; this is a {kind}")
    return cache


def visitor_of(environ: WSGIEnvironment) -> Visitor:
    """The visitor of a request."""
    value = environ.get
    return Visitor(
        cookies=value("HTTP_COOKIE", ""),
        host=value("HTTP_HOST", ""),
        address=value("REMOTE_ADDR", ""),
        user_agent=value("HTTP_USER_AGENT", ""),
        is_https=is_by_https(value("wsgi.url_scheme") == "https", value("HTTP_ORIGIN", "")),
        path=value("SCRIPT_NAME", "") + value("PATH_INFO", ""),
    )


def _session_of(environ: WSGIEnvironment) -> ThreadSession:
    session: ThreadSession = environ[ENVIRON_KEY]
    return session


def _put_into(environ: WSGIEnvironment, session: ThreadSession) -> None:
    """Give the application the session, and its principal in the CGI variable for it (RFC 3875).
    `HTTP_REMOTE_USER` would be a field that the client sent.
    """
    environ[ENVIRON_KEY] = session
    for name in ("REMOTE_USER", "HTTP_REMOTE_USER"):
        environ.pop(name, None)
    if session.is_admitted and session.principal:
        environ["REMOTE_USER"] = session.principal.encode().decode("latin-1")


class _Response:
    """The application's response. It is started, and perhaps started again, until it begins: then
    the server's `start_response` is called.
    """

    def __init__(self, session: ThreadSession, start_response: StartResponse) -> None:
        self._session = session
        self._start_response = start_response
        self._status = ""
        self._fields: list[tuple[str, str]] = []
        self._exc_info: OptExcInfo | None = None
        self._write: Callable[[bytes], object] | None = None  # the server's, after the beginning

    @property
    def is_started(self) -> bool:
        return bool(self._status)

    def start(
        self, status: str, fields: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """The application's `start_response`."""
        if self._write is not None:
            return self._start_at_server(status, fields, exc_info)
        if self.is_started and exc_info is None:
            raise AssertionError("start_response was called before, and this is no error's response")
        self._status, self._fields, self._exc_info = status, fields, exc_info
        return self.write

    def write(self, data: bytes) -> None:
        """The application's `write`."""
        self._begin()(data)

    def begin(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Begin the response now. Returns the body."""
        try:
            self._begin()
        except BaseException:
            _close(body)
            raise
        return body

    def begin_late(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """Begin the response with the first piece of the body: the application starts it when it is
        asked for that.
        """
        try:
            for piece in body:
                self._begin()
                yield piece
            self._begin()
        except StoreUnavailable as error:
            yield from self.replace(error)
        finally:
            _close(body)

    def replace(self, error: StoreUnavailable) -> list[bytes]:
        """Answer 503 in place of the application's response: the body. Raises `error` if that
        response has begun.
        """
        if self._write is not None:
            raise error
        self._write = self._start_at_server(UNAVAILABLE_STATUS_LINE, self._with_added(UNAVAILABLE_FIELDS), None)
        return [UNAVAILABLE_BODY]

    def _with_added(self, fields: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return [*fields, *self._session.fields(fields)]

    def _begin(self) -> Callable[[bytes], object]:
        """Carry out what the session asks for, and start the response at the server. Returns the
        server's `write`.
        """
        if self._write is not None:
            return self._write
        if not self.is_started:
            raise AssertionError("the application's body came before its start_response")
        if self._exc_info is None and outcome_of(_code_of(self._status)) is Outcome.WRITE:
            at_once(self._session.carry_out())
        exc_info, self._exc_info = self._exc_info, None  # it refers to this frame
        self._write = self._start_at_server(self._status, self._with_added(self._fields), exc_info)
        return self._write

    def _start_at_server(
        self, status: str, fields: list[tuple[str, str]], exc_info: OptExcInfo | None
    ) -> Callable[[bytes], object]:
        """Some servers take no third argument that is None."""
        return self._start_response(status, fields, exc_info) if exc_info else self._start_response(status, fields)


def _code_of(status: str) -> int:
    """The code of a status line; 0 if it has none, which is the server's to refuse."""
    code = status[:3]
    return int(code) if code.isdecimal() else 0


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close:
        close()
