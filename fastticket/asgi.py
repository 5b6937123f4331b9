"""ASGI middleware: a session for every request and WebSocket, in the places where Starlette and
FastAPI look for it.

    scope["session"]  a mapping, RequestSession: Starlette's `request.session`
    scope["user"]     who is logged in: `request.user.is_authenticated`, `.display_name`, `.identity`
    scope["auth"]     its scopes, `authenticated` or none: `@requires("authenticated")`

Rules of this file
- What the application has set is written before its response's first byte; `login` and its like
  write at once, and `save` does.
- An exception writes nothing, nor does a response of 500 or more: that is what an exception becomes
  where the framework catches it.
- A ticket that can not be judged, and a write that the store does not take, is a 503, as long as
  nothing was sent. If it takes the place of a response that the application has begun, the
  application hears nothing of it: it could not answer twice.
- Who has no ticket does not wait for the store.
- What is set later, while a response streams or in a WebSocket, is written when the application is
  done, or the connection.
- Nothing of Starlette is imported: any ASGI application will do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from fastticket.errors import NotLoaded, StoreUnavailable
from fastticket.sessions.ticketcache import TicketCache
from fastticket.tasks import end
from fastticket.web.cookies import TicketCookie
from fastticket.web.session import UNAVAILABLE_BODY, UNAVAILABLE_FIELDS, UNAVAILABLE_STATUS, Visitor, WebSession

log = logging.getLogger("fastticket.asgi")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

BEGINNINGS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
LIFESPAN_ENDS = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")
FAILURE_STATUS = 500  # and more
OPENING_PAUSE_S = 1.0  # after an attempt that failed
TRY_AGAIN_LATER = 1013  # RFC 6455's registry of close codes


class RequestSession(WebSession):
    """What `request.session` is: a mapping of attributes, and who is logged in under
    `principal_key`.
    """

    def __init__(
        self,
        opening: _Opening,
        cookie: TicketCookie,
        visitor: Visitor,
        principal_key: str,
        anonymous: MutableMapping[str, Any] | None,
    ) -> None:
        super().__init__(opening.cache, cookie, visitor, principal_key, anonymous)
        self._opening = opening

    async def load(self) -> None:
        """Read the attributes; with `lazy=True`, before looking at one. StoreUnavailable."""
        await self.read()

    async def save(self) -> None:
        """Write what has changed now, not when the response begins: in a WebSocket, a stream, a
        background task.

        Errors as `WebSession.carry_out`.
        """
        await self.carry_out()

    async def admit(self) -> None:
        """Judge the ticket that came. StoreUnavailable; RuntimeError: the cache can not be opened
        any more.
        """
        if self._ticket:
            await self._opening.done()
        else:
            self._opening.begin()
        await super().admit()

    async def _log_out(self) -> None:
        await self._opening.done()  # who came with several tickets was judged by none
        await super()._log_out()

    async def _new_ticket(self, principal: str) -> str:
        await self._opening.done()
        return await super()._new_ticket(principal)

    def __getitem__(self, name: str) -> Any:
        with _saying_how_to_load():
            return super().__getitem__(name)

    def __delitem__(self, name: str) -> None:
        with _saying_how_to_load():
            super().__delitem__(name)

    def __contains__(self, name: object) -> bool:
        with _saying_how_to_load():
            return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        with _saying_how_to_load():
            return super().__iter__()


@contextlib.contextmanager
def _saying_how_to_load() -> Iterator[None]:
    try:
        yield
    except NotLoaded:
        raise NotLoaded("the session's attributes are not loaded: `await request.session.load()`") from None


class User:
    """What `request.user` is: who is logged in at present, with the attributes of Starlette's
    users.
    """

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

    Opens the cache, if nobody else did, when the application has started, and closes it then when
    that has stopped. `cookie`: by default `TicketCookie()`. `principal_key`: the session's entry
    that says who is logged in. `lazy`: attributes are read when the application awaits
    `request.session.load()`, not before it is called. What another middleware around this one has
    put into scope["session"] is where anonymous visitors' attributes are kept. Whom another one has
    authenticated stays scope["user"], unless somebody is logged in here. Within another one of
    these it does nothing. TypeError: the cache is that of threads, say.
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
        self._opening = _Opening(cache)

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
            self._opening, self._cookie, _visitor(scope), self._principal_key, anonymous=scope.get("session")
        )
        answer = _Answer(scope, session, receive, send)
        try:
            await self._admit(session)
            await self.app({**scope, **_seen(scope, session)}, answer.receive, answer.send)
            await answer.end()
        except StoreUnavailable as error:
            if answer.has_begun:
                raise
            log.info("503: %s", error)  # the cache has warned
            await answer.send_unavailable()

    async def _admit(self, session: RequestSession) -> None:
        await session.admit()
        if not self._is_lazy:
            with contextlib.suppress(StoreUnavailable):  # it concerns whoever looks at one
                await session.load()

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application starts first, for it may open the cache itself; and stops first, for it
        may use it until then.
        """

        async def send_between(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                try:
                    await self._opening.done()
                except StoreUnavailable as error:  # a request may find it again
                    log.warning("started without the store: %s", error)
            elif message["type"] in LIFESPAN_ENDS:
                await self._opening.undo()
            await send(message)

        await self.app(scope, receive, send_between)


async def login(request: Mapping[str, Any], principal: str, *, remember: bool = False) -> None:
    """Begin a session, now; the response brings its cookie. `request`: Starlette's, or the scope.

    `remember`: the cookie outlives the browser. One that there was ends, with its attributes; those
    of an anonymous visitor come along. InvalidPrincipal, TooManySessions, StoreUnavailable,
    BadAttribute, AttributesTooLarge. RuntimeError: the response has begun.
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
    """Go on under another ticket, from now on: after a change of privileges. NotLoggedIn,
    StoreUnavailable, RuntimeError as `login`.
    """
    session = session_of(request)
    session.rotate()
    await session.save()


async def logout_everywhere(request: Mapping[str, Any], *, keep_this: bool = True) -> int:
    """End every session of who is logged in, now; how many. `keep_this`: all but this one.
    NotLoggedIn, StoreUnavailable.
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


class _Opening:
    """Of the cache, if nobody else opens it. Whoever waits for it shares one attempt, and its
    failure for a while.
    """

    def __init__(self, cache: TicketCache) -> None:
        self.cache = cache
        self._loop: asyncio.AbstractEventLoop | None = None  # the cache's
        self._attempt: asyncio.Task[None] | None = None
        self._pause_ends_s = 0.0  # of the loop's time
        self._is_ours = self._is_undone = False

    def begin(self) -> None:
        """Begin an attempt, if it is time for one."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop and not (self._loop and self.cache.was_opened):
            self._loop, self._attempt, self._pause_ends_s = loop, None, 0.0
        is_idle = self._attempt is None or self._attempt.done()
        if is_idle and not self.cache.was_opened and loop.time() >= self._pause_ends_s:
            self._attempt = loop.create_task(self._try(), name="fastticket-open")

    async def done(self) -> None:
        """Wait until the cache is open. StoreUnavailable, ConfigError; RuntimeError: it is closed,
        or another loop's.
        """
        self.begin()
        if not self.cache.was_opened and self._attempt:
            await asyncio.shield(self._attempt)
        if not self.cache.was_opened:
            raise StoreUnavailable("the store could not be opened")
        if self._is_undone:
            raise RuntimeError(
                "the ticket cache was closed when the application stopped: make both anew to start it again"
            )
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "the ticket cache was opened in another event loop: serve every request in one (`with TestClient(app)`)"
            )

    async def undo(self) -> None:
        """The application has stopped."""
        if self._attempt and not self._attempt.done():
            await end(self._attempt)
        if self._is_ours:
            self._is_undone = True
            await self.cache.aclose()

    async def _try(self) -> None:
        try:
            await self.cache.open()
            self._is_ours = True
        except StoreUnavailable as error:
            log.info("the store could not be opened: %s", error)
            self._pause_ends_s = asyncio.get_running_loop().time() + OPENING_PAUSE_S


class _Answer:
    """The application's `receive` and `send` of one connection: what it asked for is carried out
    before its answer begins.
    """

    def __init__(self, scope: Scope, session: RequestSession, receive: Receive, send: Send) -> None:
        self.has_begun = False
        self._has_failed = self._is_replaced = False
        self._scope = scope
        self._session = session
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            await self.end()
        return message

    async def send(self, message: Message) -> None:
        if self._is_replaced:
            return
        if message["type"] == "websocket.close":
            await self._session.forgo_fields()
            await self.end()
            self.has_begun = True
        elif message["type"] in BEGINNINGS:
            self._has_failed = message.get("status", 0) >= FAILURE_STATUS
            try:
                await self.end()
            except StoreUnavailable as error:
                log.info("503: %s", error)
                await self.send_unavailable()
                return
            given = list(message.get("headers", ()))
            message = {**message, "headers": [*given, *self._added(given)]}
            self.has_begun = True
        await self._send(message)

    async def end(self) -> None:
        """Nothing more is set, or nothing of it is wanted."""
        if not self._has_failed and not self._is_replaced:
            await self._session.save()

    async def send_unavailable(self) -> None:
        """503, if the server lets a WebSocket be answered so. What the application sends is dropped
        from now on.
        """
        self.has_begun = self._is_replaced = True
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
    said: dict[bytes, list[str]] = {b"cookie": [], b"host": [], b"user-agent": [], b"origin": []}
    for name, value in scope["headers"]:
        if name in said:
            said[name].append(value.decode("latin-1"))
    client = scope.get("client")
    return Visitor(
        cookies="; ".join(said[b"cookie"]),
        host=",".join(said[b"host"]),
        address=client[0] if client else "",
        user_agent=" ".join(said[b"user-agent"]),
        is_https=scope.get("scheme") in ("https", "wss") or any(each.startswith("https:") for each in said[b"origin"]),
        path=(scope.get("raw_path") or scope.get("path", "/").encode()).decode("latin-1"),
    )


def _seen(scope: Scope, session: RequestSession) -> dict[str, Any]:
    """What the application finds in its scope."""
    if not session.is_admitted and getattr(scope.get("user"), "is_authenticated", False):
        return {"session": session}
    return {"session": session, "user": User(session), "auth": Credentials(session)}


def _encoded(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
