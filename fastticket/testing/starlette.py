"""`log_in`: for Starlette's and FastAPI's TestClient, without the application's login page.

    with TestClient(app, base_url="https://testserver") as client:
        log_in(client, "alice")

Rules of this file
- The cookie gets into the client as a response would bring it: what the client would not send back
  is an error here, not an anonymous visitor in the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.message import Message
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.request import Request

from fastticket.asgi import SessionMiddleware
from fastticket.errors import ConfigError
from fastticket.sessions.ticketcache import TicketCache
from fastticket.web.cookies import TicketCookie

if TYPE_CHECKING:
    from starlette.testclient import TestClient

__all__ = ["log_in"]


def log_in(client: TestClient, principal: str, attributes: Mapping[str, Any] | None = None) -> TestClient:
    """Begin a session of `principal`, with these attributes, and give the client its ticket. The
    client is returned.

    ConfigError: the client was not entered, its application has no SessionMiddleware, or it would
    not send the cookie. The errors of `TicketCache.login` and of attributes.
    """
    if client.portal is None:
        raise ConfigError("the application has not started: `with TestClient(app) as client:`, and `log_in` within it")
    middleware = _middleware_of(client.app)
    ticket = client.portal.call(partial(_begin, middleware._opening.cache, principal, attributes or {}))
    _give(client, middleware._cookie, ticket)
    return client


async def _begin(cache: TicketCache, principal: str, attributes: Mapping[str, Any]) -> str:
    """The ticket of a new session, which the process knows then, as after its login page."""
    ticket = await cache.login(principal)
    session = await cache.authenticate(ticket)
    if attributes:
        async with cache.attributes(session) as there:
            there.update(attributes)
    return ticket


def _middleware_of(app: Any) -> SessionMiddleware:
    """What is around an application, from the outside in. ConfigError: none of it is ours."""
    layer = app
    while layer is not None:
        if isinstance(layer, SessionMiddleware):
            return layer
        layer = getattr(layer, "middleware_stack", None) or getattr(layer, "app", None)
    raise ConfigError(
        "there is no fastticket.asgi.SessionMiddleware around this application: app.add_middleware(SessionMiddleware, cache=...)"
    )


def _give(client: TestClient, cookie: TicketCookie, ticket: str) -> None:
    url = str(client.base_url)
    request, jar = Request(url), client.cookies.jar  # noqa: S310 -- nothing is opened
    jar.extract_cookies(_Response(cookie.set(ticket, request.host, is_https=url.startswith("https:"))), request)  # type: ignore[arg-type]
    jar.add_cookie_header(request)
    if cookie.find(request.get_header("Cookie", "")) != ticket:
        raise ConfigError(
            f"this client would not send the ticket's cookie to {url}, as no browser would: "
            'make it with TestClient(app, base_url="https://testserver")'
        )


class _Response:
    """As far as a cookie jar looks at a response."""

    def __init__(self, set_cookie: list[str]) -> None:
        self._fields = Message()
        for value in set_cookie:
            self._fields["Set-Cookie"] = value

    def info(self) -> Message:
        return self._fields
