"""Two applications with sessions, for uvicorn: `of_fastapi` and `of_starlette`. The environment
names the store and the key file.
"""

import os

from fastapi import FastAPI, HTTPException, Request, WebSocket
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as AnonymousMiddleware
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

import fastticket
from fastticket.asgi import SessionMiddleware, login, logout, logout_everywhere, rotate
from fastticket.fastapi import CurrentSession, CurrentUser, OptionalUser
from fastticket.web.cookies import TicketCookie

cache = fastticket.TicketCache(
    fastticket.open_store(os.environ["STORE_URL"]),
    fastticket.Keyring.from_file(os.environ["KEY_FILE"]),
    near_attributes_bytes=1_000_000,
)
settings = {"cache": cache, "cookie": TicketCookie(is_secure=False)}


# --- FastAPI

of_fastapi = FastAPI()
of_fastapi.add_middleware(SessionMiddleware, **settings)


@of_fastapi.post("/login/{name}")
async def log_in(name: str, request: Request, remember: bool = False):
    await login(request, name, remember=remember)


@of_fastapi.post("/logout")
async def log_out(request: Request):
    await logout(request)


@of_fastapi.post("/logout-everywhere")
async def log_out_everywhere(request: Request, user: CurrentUser, keep: bool = True) -> int:
    return await logout_everywhere(request, keep_this=keep)


@of_fastapi.get("/me")
async def me(user: CurrentUser) -> str:
    return user


@of_fastapi.get("/greeting")
def greeting(user: OptionalUser) -> str:
    return f"hello {user or 'stranger'}"


@of_fastapi.get("/session")
async def session(session: CurrentSession) -> dict:
    return dict(session)


@of_fastapi.put("/session/{name}")
def put(name: str, value: str, request: Request):
    """In a thread: nothing here may need the event loop."""
    request.session[name] = value


@of_fastapi.put("/failing/{name}")
async def put_and_fail(name: str, session: CurrentSession, status: int = 0):
    session[name] = "set"
    if status:
        raise HTTPException(status)
    raise LookupError("a mistake")


@of_fastapi.websocket("/chat")
async def chat(websocket: WebSocket, user: CurrentUser, session: CurrentSession):
    await websocket.accept()
    async for text in websocket.iter_text():
        session["last"] = text
        await websocket.send_text(f"{user}: {text}")


# --- Starlette


def cart(request):
    """A view without async: it runs in a thread."""
    request.session.setdefault("cart", []).append(request.query_params["add"])
    return JSONResponse(dict(request.session))


async def sign_in(request):
    request.session["user"] = request.query_params["name"]
    return JSONResponse(dict(request.session))


async def sign_out(request):
    del request.session["user"]
    return JSONResponse(dict(request.session))


async def show(request):
    return JSONResponse(dict(request.session))


@requires("authenticated", status_code=401)
async def private(request):
    return JSONResponse(request.user.display_name)


@requires("authenticated")
async def become_admin(request):
    request.session["role"] = "admin"
    await rotate(request)
    return JSONResponse(dict(request.session))


async def later(request):
    async def remember():
        request.session["later"] = "done"
        await request.session.save()

    return JSONResponse("begun", background=BackgroundTask(remember))


async def stream(request):
    async def pieces():
        for number in range(3):
            request.session["piece"] = number
            yield f"{number}"

    return StreamingResponse(pieces())


of_starlette = Starlette(
    routes=[
        Route("/cart", cart, methods=["POST"]),
        Route("/sign-in", sign_in, methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
        Route("/session", show),
        Route("/private", private),
        Route("/become-admin", become_admin, methods=["POST"]),
        Route("/later", later, methods=["POST"]),
        Route("/stream", stream),
    ],
    middleware=[
        Middleware(AnonymousMiddleware, secret_key="x" * 32),
        Middleware(SessionMiddleware, **settings),
    ],
)
