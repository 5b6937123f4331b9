"""Dependencies for FastAPI, beside `fastticket.asgi.SessionMiddleware`. They tell OpenAPI of the
cookie.

user: CurrentUser          who is logged in; anybody else has 401 (a WebSocket is closed with 1008)
user: OptionalUser         the same; None: nobody
session: CurrentSession    what `request.session` is, typed
"""

from typing import Annotated

from fastapi import Depends, HTTPException, Security, WebSocketException
from fastapi.security import APIKeyCookie
from starlette.requests import HTTPConnection

from fastticket.asgi import RequestSession, session_of

UNAUTHORIZED = 401
POLICY_VIOLATION = 1008  # RFC 6455
PLEASE_LOG_IN = "please log in"

#: For OpenAPI alone: who reads the cookie is the middleware.
ticket_cookie = APIKeyCookie(
    name="ticket", scheme_name="ticket", description="A session ticket, given by a login.", auto_error=False
)


async def current_session(connection: HTTPConnection) -> RequestSession:
    """The session of a request or WebSocket. RuntimeError: there is no SessionMiddleware."""
    return session_of(connection)


CurrentSession = Annotated[RequestSession, Depends(current_session)]


async def optional_user(session: CurrentSession, _: Annotated[str | None, Security(ticket_cookie)]) -> str | None:
    """Who is logged in. None: nobody."""
    return session.principal


OptionalUser = Annotated[str | None, Depends(optional_user)]


async def current_user(connection: HTTPConnection, user: OptionalUser) -> str:
    """Who is logged in. HTTPException with 401, or WebSocketException: nobody."""
    if user is not None:
        return user
    if connection.scope["type"] == "websocket":
        raise WebSocketException(POLICY_VIOLATION, PLEASE_LOG_IN)
    raise HTTPException(UNAUTHORIZED, PLEASE_LOG_IN)


CurrentUser = Annotated[str, Depends(current_user)]
