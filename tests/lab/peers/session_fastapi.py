"""A FastAPI application, for uvicorn."""

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from session_views import AFTER_POST, answer, cache

from fastticket import TicketCache
from fastticket.asgi import SessionMiddleware

application = FastAPI()
application.add_middleware(SessionMiddleware, cache=cache(TicketCache))


@application.api_route("/{view}", methods=["GET", "POST"])
async def view(request: Request):
    body = answer(request.session, request.url.path, request.url.query)
    if request.method == "POST":
        return RedirectResponse(AFTER_POST, 303)
    return Response(body, media_type="application/json")
