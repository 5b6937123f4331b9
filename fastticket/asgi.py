"""ASGI middleware: a session for every HTTP request and WebSocket, where Starlette and FastAPI look
for it.

    scope["session"]  a mapping, RequestSession: Starlette's `request.session`
    scope["user"]     User: `request.user.is_authenticated`, `.display_name`, `.identity`
    scope["auth"]     Credentials: for `@requires("authenticated")`

Rules of this file
- What the application sets is written before its response's first byte, by the rule of server
  errors (fastticket/web/outcome.py). `login`, `logout`, `rotate`, and `save` write at once.
- A StoreUnavailable becomes a 503 as long as nothing was sent, also if the framework has made a 500
  of it. Where that takes the place of a response that the application has begun, the application is
  not told: it cannot answer twice.
- A request without a ticket does not wait for the store.
- What is set later, while a response streams or in a WebSocket, is written when the application
  returns, or the connection ends.
- `login` and its like are awaited, or done at once in a thread (fastticket/web/acts.py). One that
  was forgotten makes the response an error.
- An error that is found when the response begins is the application's to handle: Starlette would
  say that it is too late, so its exception handler is called here (fastticket/starlette.py).
- Nothing of Starlette is imported, unless the application is one of it: any ASGI application can be
  served.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from functools import partial
from typing import Any, Protocol

from fastticket.errors import FastticketError, NotLoaded, StoreUnavailable
from fastticket.sessions.ticketcache import TicketCache
from fastticket.web.acts import Act, Acts
from fastticket.web.cookies import TicketCookie
from fastticket.web.nested import NestedChanges
from fastticket.web.opening import CacheOpening
from fastticket.web.outcome import UNAVAILABLE_BODY, UNAVAILABLE_FIELDS, UNAVAILABLE_STATUS, Outcome, outcome_of
from fastticket.web.session import WebSession
from fastticket.web.visitor import Visitor, is_by_https

__all__ = [
    "Credentials",
    "RequestSession",
    "SessionMiddleware",
    "User",
    "login",
    "logout",
    "logout_everywhere",
    "rotate",
    "session_of",
]

log = logging.getLogger("fastticket.asgi")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

SCOPE_KEY = "fastticket.session"  # beside "session", which other middleware uses, too
HANDLERS_KEY = "starlette.exception_handlers"  # in the scope of Starlette's applications
BEGINNINGS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
NAME = "fastticket.asgi.SessionMiddleware"
WHICH_IS_OUTSIDE = (
    "Of several `add_middleware`, the last is outermost and runs first; of a list `middleware=[…]`, the first"
)
LIFESPAN_ENDS = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")
TRY_AGAIN_LATER = 1013  # in the registry of WebSocket close codes (RFC 6455, section 7.4)


class HasScope(Protocol):
    """A request or WebSocket of Starlette, Litestar, Quart or Sanic."""

    @property
    def scope(self) -> Any:
        """The ASGI scope."""


Request = Mapping[str, Any] | HasScope


class RequestSession(WebSession):
    """`request.session`: a mapping of attributes, with the principal that is logged in under
    `principal_key`.

    Reading an attribute needs loaded ones: the middleware loads them, unless it is `lazy`. Setting
    does not. NotLoaded; StoreUnavailable: the attributes could not be read.
    """

    def __init__(
        self,
        opening: CacheOpening,
        cookie: TicketCookie,
        visitor: Visitor,
        principal_key: str,
        anonymous: MutableMapping[str, Any] | None,
    ) -> None:
        self._nested = None if anonymous is None else NestedChanges(anonymous)
        super().__init__(opening.cache, cookie, visitor, principal_key, self._nested)
        self._opening = opening
        self._acts = Acts()

    def load(self) -> Act[None]:
        """Read the attributes, once; with `lazy=True`, before the first look at one. Await it; in
        a thread, call it. StoreUnavailable.
        """
        return self._acts.call("session.load", self.read)

    def save(self) -> Act[None]:
        """Write what has changed now, not when the response begins: in a WebSocket, a stream, a
        background task. Await it; in a thread, call it.

        NotLoggedIn, BadAttribute, AttributesTooLarge, InvalidPrincipal, TooManySessions,
        StoreUnavailable. RuntimeError: a login or rotation after the response has begun.
        """
        return self._acts.call("session.save", self.carry_out)

    def logout_everywhere(self, *, keep_this: bool = True) -> Act[int]:
        """End every session of the principal, now. Await it; in a thread, call it. Returns how many
        ended.

        `keep_this`: all but this one. NotLoggedIn, StoreUnavailable.
        """
        return self._acts.call("logout_everywhere", partial(self.end_all, keep_this=keep_this))

    async def carry_out(self) -> None:
        """As of a WebSession. A visitor's nested changes are made known to who keeps them."""
        await super().carry_out()
        if self._nested is not None:
            self._nested.tell()

    def fields(self, given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """As of a WebSession, without a field that the middleware around this one will add."""
        if self._nested is not None and self._nested.adds_vary:
            given = [*given, ("vary", "Cookie")]
        return super().fields(given)

    async def admit(self) -> None:
        """Judge the ticket that came. StoreUnavailable; RuntimeError: the cache is closed, or was
        opened in another event loop.
        """
        if self._ticket:
            await self._opening.done()
        else:
            self._opening.begin()
        await super().admit()

    async def _log_out(self) -> None:
        await self._opening.done()  # `admit` has not, if there were several tickets
        await super()._log_out()

    async def _new_ticket(self, principal: str) -> str:
        await self._opening.done()
        return await super()._new_ticket(principal)

    def __getitem__(self, name: str) -> Any:
        with _naming_load():
            return super().__getitem__(name)

    def __delitem__(self, name: str) -> None:
        with _naming_load():
            super().__delitem__(name)

    def __contains__(self, name: object) -> bool:
        with _naming_load():
            return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        with _naming_load():
            return super().__iter__()


@contextlib.contextmanager
def _naming_load() -> Iterator[None]:
    """NotLoaded with a message that names `request.session.load`."""
    try:
        yield
    except NotLoaded:
        raise NotLoaded("the session's attributes are not loaded: `await request.session.load()`") from None


class User:
    """`request.user`: the principal that is logged in at present, as one of Starlette's users."""

    def __init__(self, session: WebSession) -> None:
        self._session = session

    @property
    def is_authenticated(self) -> bool:
        """Whether somebody is logged in."""
        return self._session.principal is not None

    @property
    def display_name(self) -> str:
        """The principal; empty: the visitor is anonymous."""
        return self._session.principal or ""

    @property
    def identity(self) -> str:
        """The principal; empty: the visitor is anonymous."""
        return self.display_name


class Credentials:
    """`request.auth`: the scopes that Starlette's `@requires` asks for."""

    def __init__(self, session: WebSession) -> None:
        self._session = session

    @property
    def scopes(self) -> list[str]:
        """`["authenticated"]` if somebody is logged in, else empty."""
        return ["authenticated"] if self._session.principal is not None else []


class SessionMiddleware:
    """Sessions for an ASGI application: `app.add_middleware(SessionMiddleware, cache=cache)`.

    cache          opened when the application has started, and closed when it has stopped, unless
                   the application opened it itself
    cookie         by default `TicketCookie()`
    principal_key  the session's entry that is the principal
    lazy           attributes are read when the application awaits `request.session.load()`, not
                   before each request

    A mapping that another middleware around this one has put into scope["session"] keeps what
    anonymous visitors leave. A user whom such a middleware has authenticated stays scope["user"],
    unless somebody is logged in here. Inside another SessionMiddleware it does nothing.
    TypeError: `cache` is not a fastticket.TicketCache.
    """

    def __init__(
        self,
        app: ASGIApp,
        cache: TicketCache,
        *,
        cookie: TicketCookie | None = None,
        principal_key: str = "user",
        lazy: bool = False,
    ) -> None:
        if not isinstance(cache, TicketCache):
            raise TypeError(
                f"cache: a fastticket.TicketCache, not {type(cache)}; that of fastticket.sync is for threads: fastticket.wsgi, .flask"
            )
        self.app = app
        self._cookie = cookie or TicketCookie()
        self._principal_key = principal_key
        self._is_lazy = lazy
        self._opening = CacheOpening.of(cache)
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket, or the application's lifespan."""
        if scope["type"] == "lifespan":
            await self._serve_lifespan(scope, receive, send)
        elif scope["type"] in ("http", "websocket") and not isinstance(scope.get("session"), RequestSession):
            await self._serve(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = RequestSession(
            self._opening, self._cookie, _visitor_of(scope), self._principal_key, anonymous=scope.get("session")
        )
        connection = _Connection(scope, session, receive, send)
        try:
            await self._admit(session)
            inner = connection.scope_with_session()
            await self.app(inner, connection.receive, connection.send)
            await connection.save()
            self._warn_of_another_session(inner.get("session"), session)
        except StoreUnavailable as error:
            if connection.has_begun:
                raise
            log.info("503: %s", error)  # the cache has logged a warning
            await connection.send_unavailable()

    def _warn_of_another_session(self, found: object, session: RequestSession) -> None:
        """Warn, once, that the application sets the principal where it logs nobody in: in the
        session of a middleware that is further inside, Starlette's, say.
        """
        if found is session or self._has_warned or not isinstance(found, Mapping):
            return
        if found.get(self._principal_key) not in (None, session.principal):
            self._has_warned = True
            log.warning("session[%r] is set, which logs nobody in: %s", self._principal_key, _which_is_inside(found))

    async def _admit(self, session: RequestSession) -> None:
        await session.admit()
        if not self._is_lazy:
            with contextlib.suppress(StoreUnavailable):  # a look at an attribute raises it again
                await session.read()

    async def _serve_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application starts before the cache is opened, since it may open the cache itself; it
        stops before the cache is closed, since it may use the cache until then.
        """

        async def send_between(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                try:
                    await self._opening.done()
                except StoreUnavailable as error:  # requests try again
                    log.warning("started without the store: %s", error)
            elif message["type"] in LIFESPAN_ENDS:
                await self._opening.undo()
            await send(message)

        await self.app(scope, receive, send_between)


def login(request: Request, principal: str, *, remember: bool = False) -> Act[None]:
    """Begin a session, now; the response brings its cookie. Await it; in a thread, call it.

    `request`: Starlette's request or WebSocket, or the scope. `remember`: the cookie outlives the
    browser. A session that there was ends, with its attributes; those of an anonymous visitor move
    into the new one. InvalidPrincipal, TooManySessions, StoreUnavailable, BadAttribute,
    AttributesTooLarge. RuntimeError: the response has begun.
    """

    async def log_in() -> None:
        session.login(principal, remember=remember)
        await session.carry_out()

    session = session_of(request)
    return session._acts.call("login", log_in)


def logout(request: Request) -> Act[None]:
    """End the session, now, if there is one. Await it; in a thread, call it. StoreUnavailable: it
    may go on.
    """

    async def log_out() -> None:
        session.logout()
        await session.carry_out()

    session = session_of(request)
    return session._acts.call("logout", log_out)


def rotate(request: Request) -> Act[None]:
    """Replace the ticket by another one of the same session, now: after a change of privileges.
    Await it; in a thread, call it. NotLoggedIn, StoreUnavailable. RuntimeError: the response has
    begun.
    """

    async def replace() -> None:
        session.rotate()
        await session.carry_out()

    session = session_of(request)
    return session._acts.call("rotate", replace)


def logout_everywhere(request: Request, *, keep_this: bool = True) -> Act[int]:
    """End every session of the principal that is logged in, now. Await it; in a thread, call it.
    Returns how many ended.

    `keep_this`: all but this one. NotLoggedIn, StoreUnavailable.
    """
    return session_of(request).logout_everywhere(keep_this=keep_this)


def session_of(request: Request) -> RequestSession:
    """The session of a request, a WebSocket, or a scope. RuntimeError: there is no
    SessionMiddleware around the application, or another middleware is in the wrong place.
    """
    scope = request if isinstance(request, Mapping) else request.scope
    found = scope.get("session")
    if not isinstance(found, RequestSession):
        raise RuntimeError(_why_none(scope))
    return found


def _why_none(scope: Mapping[str, Any]) -> str:
    """Why there is no session, and what to do."""
    if SCOPE_KEY in scope:
        return _which_is_inside(scope.get("session"))
    if any(_is_ours(each) for each in getattr(scope.get("app"), "user_middleware", ())):
        return (
            f"this code runs before {NAME}, which is further inside: put {NAME} around the middleware that asks "
            f"for the session. {WHICH_IS_OUTSIDE}"
        )
    return (
        f"there is no {NAME} around this code: app.add_middleware(SessionMiddleware, cache=cache). If there is one, "
        f"this code runs before it: in a middleware around it, or in an application around its application"
    )


def _which_is_inside(found: object) -> str:
    """What to do about another session in scope["session"]."""
    return (
        f"another middleware, inside of {NAME}, has put a session of its own into scope['session'] "
        f"({type(found).__module__}.{type(found).__qualname__}): put that middleware around {NAME}. {WHICH_IS_OUTSIDE}"
    )


def _is_ours(middleware: object) -> bool:
    """Whether an entry of `app.user_middleware` is this one."""
    kind = getattr(middleware, "cls", None)
    return isinstance(kind, type) and issubclass(kind, SessionMiddleware)


class _Connection:
    """The `receive` and `send` of one request or WebSocket, as the application has them: what it
    asked of the session is carried out before its response begins.
    """

    def __init__(self, scope: Scope, session: RequestSession, receive: Receive, send: Send) -> None:
        self.has_begun = False
        self._outcome = Outcome.WRITE
        self._is_replaced = False  # the application's response by another: the rest of it is dropped
        self._scope = scope
        self._session = session
        self._receive = receive
        self._send = send

    def scope_with_session(self) -> Scope:
        """The scope that the application gets. It may put more into it."""
        self._scope = {**self._scope, **_scope_entries(self._scope, self._session)}
        return self._scope

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            await self.save()
        return message

    async def send(self, message: Message) -> None:
        if self._is_replaced:
            return
        if message["type"] == "websocket.close":
            await self._session.forgo_fields()
            await self.save()
            self.has_begun = True
        elif message["type"] in BEGINNINGS:
            self._outcome = outcome_of(message.get("status", 0), has_store_failed=self._session.has_store_failed)
            if self._outcome is Outcome.UNAVAILABLE:
                await self.send_unavailable()
                return
            try:
                await self.save()
            except StoreUnavailable as error:
                log.info("503: %s", error)
                await self.send_unavailable()
                return
            except FastticketError as error:
                if not await self._is_handled(error):
                    raise
                return
            message = self._begun(message)
        await self._send(message)

    async def save(self) -> None:
        """Write what was set since the last time, unless the response's outcome is another."""
        if self._outcome is Outcome.WRITE:
            self._session._acts.refuse_forgotten()
            await self._session.carry_out()

    async def _is_handled(self, error: FastticketError) -> bool:
        """Whether the application has an exception handler for what is wrong with what it set. Its
        response takes the place of the one that was about to begin.
        """
        if HANDLERS_KEY not in self._scope or self._scope["type"] != "http":
            return False
        from fastticket.starlette import response_to  # the application has imported Starlette

        response = await response_to(error, self._scope, self._receive)
        if response is None:
            return False
        self._outcome = Outcome.DISCARD
        self._session._acts.refuse_forgotten()
        self._is_replaced = True
        await response(self._scope, self._receive, self._send_replacement)
        return True

    async def _send_replacement(self, message: Message) -> None:
        await self._send(self._begun(message) if message["type"] in BEGINNINGS else message)

    def _begun(self, message: Message) -> Message:
        """The beginning of a response, with the session's fields."""
        given = list(message.get("headers", ()))
        self.has_begun = True
        return {**message, "headers": [*given, *self._added_to(given)]}

    async def send_unavailable(self) -> None:
        """Answer 503, or close a WebSocket whose server cannot answer it so. What the application
        sends from now on is dropped.
        """
        self.has_begun = self._is_replaced = True
        self._outcome = Outcome.UNAVAILABLE
        kind = "http"
        if self._scope["type"] == "websocket":
            if "websocket.http.response" not in self._scope.get("extensions", {}):
                await self._send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
                return
            kind = "websocket.http"
        given = _encoded(UNAVAILABLE_FIELDS)
        fields = [*given, *self._added_to(given)]
        await self._send({"type": f"{kind}.response.start", "status": UNAVAILABLE_STATUS, "headers": fields})
        await self._send({"type": f"{kind}.response.body", "body": UNAVAILABLE_BODY})

    def _added_to(self, given: Iterable[Iterable[bytes]]) -> list[tuple[bytes, bytes]]:
        return _encoded(
            self._session.fields((name.decode("latin-1"), value.decode("latin-1")) for name, value in given)
        )


def _visitor_of(scope: Scope) -> Visitor:
    values: dict[bytes, list[str]] = {b"cookie": [], b"host": [], b"user-agent": [], b"origin": []}
    for name, value in scope["headers"]:
        if name in values:
            values[name].append(value.decode("latin-1"))
    client = scope.get("client")
    return Visitor(
        cookies="; ".join(values[b"cookie"]),
        host=",".join(values[b"host"]),
        address=client[0] if client else "",
        user_agent=" ".join(values[b"user-agent"]),
        is_https=is_by_https(scope.get("scheme") in ("https", "wss"), *values[b"origin"]),
        path=(scope.get("raw_path") or scope.get("path", "/").encode()).decode("latin-1"),
    )


def _scope_entries(scope: Scope, session: RequestSession) -> dict[str, Any]:
    """What the application finds in its scope beside what the server put there."""
    entries = {SCOPE_KEY: session, "session": session}
    if not session.is_admitted and getattr(scope.get("user"), "is_authenticated", False):
        return entries
    return {**entries, "user": User(session), "auth": Credentials(session)}


def _encoded(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
