"""The exception handlers of a Starlette or FastAPI application, for an error that is found when a
response begins: `app.exception_handler(NotLoggedIn)`.

What is wrong with what a view has set is known when its response begins. Starlette refuses to
handle an exception from then on. Nothing has been sent yet, so `fastticket.asgi` asks here for the
response that the application's handler makes.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

__all__ = ["response_to"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def response_to(error: Exception, scope: MutableMapping[str, Any], receive: Receive) -> Any:
    """The response of the handler that the application has for this class of errors, an ASGI
    application. None: it has no handler, or that answers nothing.
    """
    handlers, _ = scope["starlette.exception_handlers"]
    handler = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
    if handler is None:
        return None
    request = Request(scope, receive)
    if inspect.iscoroutinefunction(handler):
        return await handler(request, error)
    response = await run_in_threadpool(handler, request, error)
    return await response if inspect.isawaitable(response) else response
