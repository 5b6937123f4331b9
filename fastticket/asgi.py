"""ASGI middleware: a session for every HTTP request and WebSocket, where Starlette and FastAPI look
for it.

    scope["session"]  a mapping, RequestSession: Starlette's `request.session`
    scope["user"]     User: `request.user.is_authenticated`, `.display_name`, `.identity`
    scope["auth"]     Credentials: for `@requires("authenticated")`

Rules of this file
- What the application sets is written before its response's first byte, by the rule of server
  errors (fastticket/web/outcome.py). `login`, `logout`, `rotate`, and `save` write at once.
- A StoreUnavailable becomes a 503 as long as nothing was sent. Where that takes the place of a
  response that the application has begun, the application is not told: it cannot answer twice.
- A request without a ticket does not wait for the store.
- What is set later, while a response streams or in a WebSocket, is written when the application
  returns, or the connection ends.
- Nothing of Starlette is imported: any ASGI application can be served.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from fastticket.errors import NotLoaded, StoreUnavailable
from fastticket.sessions.ticketcache import TicketCache
from fastticket.web.cookies import TicketCookie
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

BEGINNINGS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
LIFESPAN_ENDS = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")
TRY_AGAIN_LATER = 1013  # in the registry of WebSocket close codes (RFC 6455, section 7.4)


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
        super().__init__(opening.cache, cookie, visitor, principal_key, anonymous)
        self._opening = opening

    async def load(self) -> None:
        """Read the attributes, once; with `lazy=True`, before the first look at one.
        StoreUnavailable.
        """
        await self.read()

    async def save(self) -> None:
        """Write what has changed now, not when the response begins: in a WebSocket, a stream, a
        background task.

        NotLoggedIn, BadAttribute, AttributesTooLarge, InvalidPrincipal, TooManySessions,
        StoreUnavailable. RuntimeError: a login or rotation after the response has begun.
        """
        await self.carry_out()

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
            await self.app({**scope, **_scope_entries(scope, session)}, connection.receive, connection.send)
            await connection.save()
        except StoreUnavailable as error:
            if connection.has_begun:
                raise
            log.info("503: %s", error)  # the cache has logged a warning
            await connection.send_unavailable()

    async def _admit(self, session: RequestSession) -> None:
        await session.admit()
        if not self._is_lazy:
            with contextlib.suppress(StoreUnavailable):  # a look at an attribute raises it again
                await session.load()

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


async def login(request: Mapping[str, Any], principal: str, *, remember: bool = False) -> None:
    """Begin a session, now; the response brings its cookie.

    `request`: Starlette's request or WebSocket, or the scope. `remember`: the cookie outlives the
    browser. A session that there was ends, with its attributes; those of an anonymous visitor move
    into the new one. InvalidPrincipal, TooManySessions, StoreUnavailable, BadAttribute,
    AttributesTooLarge. RuntimeError: the response has begun.
    """
    session = session_of(request)
    session.login(principal, remember=remember)
    await session.save()


async def logout(request: Mapping[str, Any]) -> None:
    """End the session, now, if there is one. StoreUnavailable: it may go on."""
    session = session_of(request)
    session.logout()
    await session.save()


async def rotate(request: Mapping[str, Any]) -> None:
    """Replace the ticket by another one of the same session, now: after a change of privileges.
    NotLoggedIn, StoreUnavailable. RuntimeError: the response has begun.
    """
    session = session_of(request)
    session.rotate()
    await session.save()


async def logout_everywhere(request: Mapping[str, Any], *, keep_this: bool = True) -> int:
    """End every session of the principal that is logged in, now. Returns how many ended.

    `keep_this`: all but this one. NotLoggedIn, StoreUnavailable.
    """
    return await session_of(request).logout_everywhere(keep_this=keep_this)


def session_of(request: Mapping[str, Any]) -> RequestSession:
    """The session of a request, a WebSocket, or a scope. RuntimeError: there is no
    SessionMiddleware around the application.
    """
    found = request.get("session")
    if not isinstance(found, RequestSession):
        raise RuntimeError("there is no fastticket.asgi.SessionMiddleware around this application")
    return found


class _Connection:
    """The `receive` and `send` of one request or WebSocket, as the application has them: what it
    asked of the session is carried out before its response begins.
    """

    def __init__(self, scope: Scope, session: RequestSession, receive: Receive, send: Send) -> None:
        self.has_begun = False
        self._outcome = Outcome.WRITE
        self._scope = scope
        self._session = session
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            await self.save()
        return message

    async def send(self, message: Message) -> None:
        if self._outcome is Outcome.UNAVAILABLE:
            return
        if message["type"] == "websocket.close":
            await self._session.forgo_fields()
            await self.save()
            self.has_begun = True
        elif message["type"] in BEGINNINGS:
            self._outcome = outcome_of(message.get("status", 0))
            try:
                await self.save()
            except StoreUnavailable as error:
                log.info("503: %s", error)
                await self.send_unavailable()
                return
            given = list(message.get("headers", ()))
            message = {**message, "headers": [*given, *self._added_to(given)]}
            self.has_begun = True
        await self._send(message)

    async def save(self) -> None:
        """Write what was set since the last time, unless the response's outcome is another."""
        if self._outcome is Outcome.WRITE:
            await self._session.save()

    async def send_unavailable(self) -> None:
        """Answer 503, or close a WebSocket whose server cannot answer it so. What the application
        sends from now on is dropped.
        """
        self.has_begun = True
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
    if not session.is_admitted and getattr(scope.get("user"), "is_authenticated", False):
        return {"session": session}
    return {"session": session, "user": User(session), "auth": Credentials(session)}


def _encoded(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
