"""Dependencies for FastAPI, to use with `fastticket.asgi.SessionMiddleware`. OpenAPI shows their
cookie.

user: CurrentUser          the principal; without one PleaseLogIn, which is a 401 (a WebSocket is
                           closed with 1008)
user: OptionalUser         the principal; None: nobody is logged in
session: CurrentSession    `request.session`, typed
"""

from typing import Annotated

from fastapi import Depends, HTTPException, Security, WebSocketException
from fastapi.security import APIKeyCookie
from starlette.requests import HTTPConnection

from fastticket.asgi import RequestSession, session_of
from fastticket.errors import NotLoggedIn

__all__ = [
    "CurrentSession",
    "CurrentUser",
    "OptionalUser",
    "PleaseLogIn",
    "current_session",
    "current_user",
    "optional_user",
    "ticket_cookie",
]

UNAUTHORIZED = 401
POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
PLEASE_LOG_IN = "please log in"


class _CookieOfOpenAPI(APIKeyCookie):
    """Only for OpenAPI: it is the middleware that reads the cookie. That of FastAPI 0.115
    fails in a WebSocket, which has no Request.
    """

    async def __call__(self, request: HTTPConnection) -> None:
        return None


ticket_cookie = _CookieOfOpenAPI(
    name="ticket", scheme_name="ticket", description="A session ticket, given by a login.", auto_error=False
)
"""The security scheme that OpenAPI shows for `CurrentUser` and `OptionalUser`: an API key in the
cookie `ticket`. It reads nothing, and admits everybody.
"""


class PleaseLogIn(NotLoggedIn, HTTPException):
    """Nobody is logged in: to FastAPI a 401, `{"detail": "please log in"}`. An exception handler of
    NotLoggedIn, of HTTPException, or of 401 can answer otherwise.
    """

    status = UNAUTHORIZED

    def __init__(self) -> None:
        HTTPException.__init__(self, UNAUTHORIZED, PLEASE_LOG_IN)


async def current_session(connection: HTTPConnection) -> RequestSession:
    """The session of a request or WebSocket. RuntimeError: there is no SessionMiddleware."""
    return session_of(connection)


CurrentSession = Annotated[RequestSession, Depends(current_session)]
"""The type of a parameter that is `request.session`: a visitor's, if nobody is logged in."""


async def optional_user(session: CurrentSession, _: Annotated[None, Security(ticket_cookie)]) -> str | None:
    """The principal that is logged in. None: nobody is."""
    return session.principal


OptionalUser = Annotated[str | None, Depends(optional_user)]
"""The type of a parameter that is the principal that is logged in. None: nobody is."""


async def current_user(connection: HTTPConnection, user: OptionalUser) -> str:
    """The principal that is logged in. PleaseLogIn, which is an HTTPException with 401; for a
    WebSocket, WebSocketException with 1008: nobody is.
    """
    if user is not None:
        return user
    if connection.scope["type"] == "websocket":
        raise WebSocketException(POLICY_VIOLATION, PLEASE_LOG_IN)
    raise PleaseLogIn()


CurrentUser = Annotated[str, Depends(current_user)]
"""The type of a parameter that is the principal that is logged in. Without one: `PleaseLogIn`, a
401; a WebSocket is closed with 1008.
"""
