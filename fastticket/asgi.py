"""ASGI middleware: a session for every request and WebSocket, in the places where Starlette and FastAPI look for it.

    scope["session"]  a mapping, RequestSession: Starlette's `request.session`
    scope["user"]     who is logged in: `request.user.is_authenticated`, `.display_name`, `.identity`
    scope["auth"]     its scopes, `authenticated` or none: `@requires("authenticated")`

Rules of this file
- What the application has set is written before its response's first byte; `login` and its like write at once, and `save` does.
- An exception writes nothing, nor does a response of 500 or more: that is what an exception becomes where the framework catches it.
- A ticket that can not be judged, and a write that the store does not take, is a 503, as long as nothing was sent.
- What is set later, while a response streams or in a WebSocket, is written when the application is done, or the connection.
- Nothing of Starlette is imported: any ASGI application will do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from fastticket.cache import TicketCache
from fastticket.cookies import TicketCookie
from fastticket.errors import StoreUnavailable
from fastticket.websession import UNAVAILABLE_BODY, UNAVAILABLE_FIELDS, UNAVAILABLE_STATUS, Visitor, WebSession

log = logging.getLogger("fastticket.asgi")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

BEGINNINGS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
LIFESPAN_ENDS = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")
FAILURE_STATUS = 500  # and more
TRY_AGAIN_LATER = 1013  # RFC 6455's registry of close codes


class RequestSession(WebSession):
    """What `request.session` is: a mapping of attributes, and who is logged in under `principal_key`."""

    async def load(self) -> None:
        """Read the attributes; with `lazy=True`, before looking at one. StoreUnavailable."""
        await self.read()

    async def save(self) -> None:
        """Write what has changed now, not when the response begins: in a WebSocket, a stream, a background task.

        Errors as `WebSession.carry_out`.
        """
        await self.carry_out()


class User:
    """What `request.user` is: who is logged in at present, with the attributes of Starlette's users."""

    def __init__(self, session: WebSession) -> None:
        self._session = session

    @property
    def is_authenticated(self) -> bool:
        """Whether anybody is."""
        return self._session.principal is not None

    @property
    def display_name(self) -> str:
        """The principal; empty: anonymous."""
        return self._session.principal or ""

    @property
    def identity(self) -> str:
        """The same."""
        return self.display_name


class Credentials:
    """What `request.auth` is."""

    def __init__(self, session: WebSession) -> None:
        self._session = session

    @property
    def scopes(self) -> list[str]:
        """`authenticated`, or none."""
        return ["authenticated"] if self._session.principal is not None else []


class SessionMiddleware:
    """Sessions for an ASGI application: `app.add_middleware(SessionMiddleware, cache=cache)`.

    Opens the cache, if nobody else did, when the application has started, and closes it then when that has stopped. `cookie`: by
    default `TicketCookie()`. `principal_key`: the session's entry that says who is logged in. `lazy`: attributes are read when the
    application awaits `request.session.load()`, not before it is called. What another middleware around this one has put into
    scope["session"] is where anonymous visitors' attributes are kept. Within another one of these it does nothing.
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
        self.app = app
        self._cache = cache
        self._cookie = cookie or TicketCookie()
        self._principal_key = principal_key
        self._is_lazy = lazy
        self._opening = asyncio.Lock()
        self._has_opened = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket, or the application's lifespan."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] in ("http", "websocket") and not isinstance(scope.get("session"), RequestSession):
            await self._serve(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = RequestSession(
            self._cache, self._cookie, _visitor(scope), self._principal_key, anonymous=scope.get("session")
        )
        answer = _Answer(scope, session, receive, send)
        try:
            await self._admit(session)
            seen = {**scope, "session": session, "user": User(session), "auth": Credentials(session)}
            await self.app(seen, answer.receive, answer.send)
            await answer.end()
        except StoreUnavailable as error:
            if answer.has_begun:
                raise
            log.info("503: %s", error)  # the cache has warned
            await answer.send_unavailable()

    async def _admit(self, session: RequestSession) -> None:
        with contextlib.suppress(StoreUnavailable):  # it concerns whoever has a ticket
            await self._open()
        await session.admit()
        if not self._is_lazy:
            with contextlib.suppress(StoreUnavailable):  # it concerns whoever looks at one
                await session.load()

    async def _open(self) -> None:
        if self._cache.was_opened:
            return
        async with self._opening:
            if not self._cache.was_opened:
                await self._cache.open()
                self._has_opened = True

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application starts first, for it may open the cache itself; and stops first, for it may use it until then."""

        async def send_between(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                try:
                    await self._open()
                except StoreUnavailable as error:  # a request may find it again
                    log.warning("started without the store: %s", error)
            elif message["type"] in LIFESPAN_ENDS and self._has_opened:
                await self._cache.aclose()
            await send(message)

        await self.app(scope, receive, send_between)


async def login(request: Mapping[str, Any], principal: str, *, remember: bool = False) -> None:
    """Begin a session, now; the response brings its cookie. `request`: Starlette's, or the scope.

    `remember`: the cookie outlives the browser. One that there was ends, with its attributes; those of an anonymous visitor come along.
    InvalidPrincipal, TooManySessions, StoreUnavailable, BadAttribute, AttributesTooLarge. RuntimeError: the response has begun.
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
    """Go on under another ticket, from now on: after a change of privileges. NotLoggedIn, StoreUnavailable, RuntimeError as `login`."""
    session = session_of(request)
    session.rotate()
    await session.save()


async def logout_everywhere(request: Mapping[str, Any], *, keep_this: bool = True) -> int:
    """End every session of who is logged in, now; how many. `keep_this`: all but this one. NotLoggedIn, StoreUnavailable."""
    return await session_of(request).logout_everywhere(keep_this=keep_this)


def session_of(request: Mapping[str, Any]) -> RequestSession:
    """The session of a request, a WebSocket, or a scope. RuntimeError: there is no SessionMiddleware around the application."""
    found = request.get("session")
    if not isinstance(found, RequestSession):
        raise RuntimeError("there is no fastticket.asgi.SessionMiddleware around this application")
    return found


class _Answer:
    """The application's `receive` and `send` of one connection: what it asked for is carried out before its answer begins."""

    def __init__(self, scope: Scope, session: RequestSession, receive: Receive, send: Send) -> None:
        self.has_begun = False
        self._has_failed = False
        self._scope = scope
        self._session = session
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            await self._session.save()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.close":
            await self._session.save()
            self.has_begun = True
        elif message["type"] in BEGINNINGS:
            self._has_failed = message.get("status", 0) >= FAILURE_STATUS
            await self.end()
            given = list(message.get("headers", ()))
            message = {**message, "headers": [*given, *self._added(given)]}
            self.has_begun = True
        await self._send(message)

    async def end(self) -> None:
        """Nothing more is set, or nothing of it is wanted."""
        if not self._has_failed:
            await self._session.save()

    async def send_unavailable(self) -> None:
        """503, if the server lets a WebSocket be answered so."""
        kind = "http"
        if self._scope["type"] == "websocket":
            if "websocket.http.response" not in self._scope.get("extensions", {}):
                await self._send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
                return
            kind = "websocket.http"
        given = _encoded(UNAVAILABLE_FIELDS)
        fields = [*given, *self._added(given)]
        await self._send({"type": f"{kind}.response.start", "status": UNAVAILABLE_STATUS, "headers": fields})
        await self._send({"type": f"{kind}.response.body", "body": UNAVAILABLE_BODY})

    def _added(self, given: Iterable[Iterable[bytes]]) -> list[tuple[bytes, bytes]]:
        return _encoded(
            self._session.fields((name.decode("latin-1"), value.decode("latin-1")) for name, value in given)
        )


def _visitor(scope: Scope) -> Visitor:
    said: dict[bytes, list[str]] = {b"cookie": [], b"host": [], b"user-agent": []}
    for name, value in scope["headers"]:
        if name in said:
            said[name].append(value.decode("latin-1"))
    client = scope.get("client")
    return Visitor(
        cookies="; ".join(said[b"cookie"]),
        host=",".join(said[b"host"]),
        address=client[0] if client else "",
        user_agent=" ".join(said[b"user-agent"]),
    )


def _encoded(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
