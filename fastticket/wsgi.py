"""WSGI middleware (PEP 3333): who is asking, in `environ`, and a session that is written before the
response's first byte.

    from fastticket.sync import TicketCache
    from fastticket.wsgi import SessionMiddleware

    application = SessionMiddleware(application, TicketCache(store, keys))

The application finds the session, a mapping, in `environ["fastticket.session"]`, and who is logged
in in `REMOTE_USER`.

Rules of this file
- The response begins when the application has returned and said its status; if it says it later, or
  calls `write`, then with the first piece of the body. Until then what it does to the session
  counts, and a store that is away can still become the response.
- A response of 500 and more, or one with `exc_info`, writes nothing. `login` and its like write at
  once: their errors are the application's to handle.
- A body is passed on as it is, so that a server still knows a list or a file for what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from fastticket.errors import StoreUnavailable
from fastticket.sync import TicketCache
from fastticket.web.cookies import TicketCookie
from fastticket.web.session import UNAVAILABLE_BODY, UNAVAILABLE_FIELDS, Visitor, WebSession, at_once

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["ENVIRON_KEY", "SessionMiddleware", "ThreadSession", "login", "logout", "logout_everywhere", "rotate"]

ENVIRON_KEY = "fastticket.session"
UNAVAILABLE_STATUS_LINE = "503 Service Unavailable"


class ThreadSession(WebSession):
    """A WebSession on the cache of threads: its attributes are read when they are first looked at."""

    def _readable(self) -> MutableMapping[str, Any]:
        if self._attributes is not None and not self._attributes.is_loaded:
            at_once(self.read())
        return super()._readable()


class SessionMiddleware:
    """A WSGI application around another one. `principal_key`: the session's entry that is who is
    logged in.

    `REMOTE_USER` is whom the ticket admitted (UTF-8, decoded as Latin-1, as PEP 3333 has it),
    whatever it was before. A ticket that can not be judged is answered with 503.
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
        """PEP 3333. Within another such middleware it does nothing."""
        if ENVIRON_KEY in environ:
            return self._application(environ, start_response)
        session = ThreadSession(self._cache, self._cookie, visitor_of(environ), self._principal_key)
        response = _Response(session, start_response)
        try:
            at_once(session.admit())
            _introduce(environ, session)
            body = self._application(environ, response.say)
            return response.begin(body) if response.is_said else response.begin_late(body)
        except StoreUnavailable:
            return response.replace()


def login(environ: WSGIEnvironment, principal: str, *, remember: bool = False) -> None:
    """Begin a session, now; the response brings its cookie. `remember`: it outlives the browser.
    One that there was ends.

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
    """Go on under another ticket, from now on: after a change of privileges. NotLoggedIn,
    StoreUnavailable, RuntimeError: too late.
    """
    session = _session_of(environ)
    session.rotate()
    at_once(session.carry_out())


def logout_everywhere(environ: WSGIEnvironment, *, keep_this: bool = True) -> int:
    """End every session of who is logged in, now; how many. `keep_this`: all but this one.
    NotLoggedIn, StoreUnavailable.
    """
    return at_once(_session_of(environ).logout_everywhere(keep_this=keep_this))


def of_threads(cache: object) -> TicketCache:
    """The cache, if it is one that WSGI can use. TypeError."""
    if not isinstance(cache, TicketCache):
        kind = f"{type(cache).__module__}.{type(cache).__qualname__}"
        raise TypeError(f"WSGI needs a fastticket.sync.TicketCache, which is that of threads; this is a {kind}")
    return cache


def visitor_of(environ: WSGIEnvironment) -> Visitor:
    """What is known of a request."""
    said = environ.get
    return Visitor(
        cookies=said("HTTP_COOKIE", ""),
        host=said("HTTP_HOST", ""),
        address=said("REMOTE_ADDR", ""),
        user_agent=said("HTTP_USER_AGENT", ""),
        is_https=said("wsgi.url_scheme") == "https" or said("HTTP_ORIGIN", "").startswith("https:"),
        path=said("SCRIPT_NAME", "") + said("PATH_INFO", ""),
    )


def _session_of(environ: WSGIEnvironment) -> ThreadSession:
    session: ThreadSession = environ[ENVIRON_KEY]
    return session


def _introduce(environ: WSGIEnvironment, session: ThreadSession) -> None:
    """The session, and its principal where applications of the CGI's days look. `HTTP_REMOTE_USER`
    is a field that a client sent.
    """
    environ[ENVIRON_KEY] = session
    for name in ("REMOTE_USER", "HTTP_REMOTE_USER"):
        environ.pop(name, None)
    if session.is_admitted and session.principal:
        environ["REMOTE_USER"] = session.principal.encode().decode("latin-1")


class _Response:
    """The application's response: said, and perhaps said again, until it begins."""

    def __init__(self, session: ThreadSession, start_response: StartResponse) -> None:
        self._session = session
        self._start_response = start_response
        self._status = ""
        self._fields: list[tuple[str, str]] = []
        self._exc_info: OptExcInfo | None = None
        self._write: Callable[[bytes], object] | None = None  # the server's; there is one when the response has begun

    @property
    def is_said(self) -> bool:
        return bool(self._status)

    def say(
        self, status: str, fields: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """The application's `start_response`."""
        if self._write is not None:
            return self._say(status, fields, exc_info)
        if self.is_said and exc_info is None:
            raise AssertionError("start_response was called before, and this is no error's response")
        self._status, self._fields, self._exc_info = status, fields, exc_info
        return self.write

    def write(self, data: bytes) -> None:
        """The application's `write`."""
        self._begin()(data)

    def begin(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """The response begins now. The body."""
        try:
            self._begin()
        except BaseException:
            _close(body)
            raise
        return body

    def begin_late(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """The application says its response when the body is asked for."""
        try:
            for piece in body:
                self._begin()
                yield piece
            self._begin()
        except StoreUnavailable:
            yield from self.replace()
        finally:
            _close(body)

    def replace(self) -> list[bytes]:
        """The response to a request that the store failed. Once another one has begun, the failure
        is raised again.
        """
        if self._write is not None:
            raise
        self._write = self._say(UNAVAILABLE_STATUS_LINE, self._with_added(UNAVAILABLE_FIELDS), None)
        return [UNAVAILABLE_BODY]

    def _with_added(self, fields: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return [*fields, *self._session.fields(fields)]

    def _begin(self) -> Callable[[bytes], object]:
        """Carry out what the session asks for, and start the response. The server's `write`."""
        if self._write is not None:
            return self._write
        if not self.is_said:
            raise AssertionError("the application's body came before its start_response")
        if self._exc_info is None and not self._status.startswith("5"):
            at_once(self._session.carry_out())
        exc_info, self._exc_info = self._exc_info, None  # it refers to this frame
        self._write = self._say(self._status, self._with_added(self._fields), exc_info)
        return self._write

    def _say(
        self, status: str, fields: list[tuple[str, str]], exc_info: OptExcInfo | None
    ) -> Callable[[bytes], object]:
        """To the server; not every one takes a third argument that is None."""
        return self._start_response(status, fields, exc_info) if exc_info else self._start_response(status, fields)


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close:
        close()
