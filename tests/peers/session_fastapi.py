"""A FastAPI application, for uvicorn."""

from fastapi import FastAPI, Request, Response
from session_views import answer, cache

from fastticket import TicketCache
from fastticket.asgi import SessionMiddleware

application = FastAPI()
application.add_middleware(SessionMiddleware, cache=cache(TicketCache))


@application.get("/{view}")
async def view(request: Request):
    return Response(answer(request.session, request.url.path, request.url.query), media_type="application/json")
