"""A FastAPI application for uvicorn, as people write it who have not read everything: `def`
endpoints, a forgotten `await`, exception handlers, and middleware in each order. The environment
names the store and the key file.
"""

import os

from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as SignedCookieMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import fastticket
from fastticket.asgi import SessionMiddleware, login, logout, logout_everywhere, rotate, session_of
from fastticket.fastapi import CurrentSession, CurrentUser

cache = fastticket.TicketCache(
    fastticket.open_store(os.environ["STORE_URL"]),
    fastticket.Keyring.from_file(os.environ["KEY_FILE"]),
    near_attributes_bytes=1_000_000,
    sessions_max=3,
    sessions_max_policy="refuse",
)
ours = Middleware(SessionMiddleware, cache=cache, cookie=fastticket.TicketCookie(is_secure=False))
signed = Middleware(SignedCookieMiddleware, secret_key="x" * 32)

application = FastAPI(middleware=[ours])


# --- in threads


@application.post("/login/{name}")
def log_in(name: str, request: Request):
    login(request, name)
    return request.session.principal


@application.post("/logout")
def log_out(request: Request):
    logout(request)
    return request.session.principal


@application.post("/rotate")
def replace(request: Request):
    rotate(request)


@application.post("/logout-everywhere")
def log_out_everywhere(request: Request) -> int:
    return logout_everywhere(request)


@application.post("/save/{value}")
def save(value: str, session: CurrentSession):
    session["color"] = value
    session.save()
    raise LookupError("a mistake, after it was saved")


@application.post("/later")
def begin_later(session: CurrentSession, tasks: BackgroundTasks):
    def remember():
        session["later"] = "done"
        session.save()

    tasks.add_task(remember)


@application.post("/task/logout")
def log_out_later(request: Request, tasks: BackgroundTasks):
    tasks.add_task(logout, request)


def leaves(request: Request):
    logout(request)


@application.post("/dependency/logout", dependencies=[Depends(leaves)])
async def of_a_dependency(request: Request):
    return request.session.principal


@application.get("/session")
def show(session: CurrentSession) -> dict:
    return dict(session)


# --- forgotten


@application.post("/forgotten/{act}")
async def forget(act: str, request: Request):
    session = request.session
    calls = {
        "login": lambda: login(request, "mallory"),
        "logout": lambda: logout(request),
        "rotate": lambda: rotate(request),
        "logout_everywhere": lambda: logout_everywhere(request),
        "session.logout_everywhere": session.logout_everywhere,
        "session.save": session.save,
        "session.load": session.load,
    }
    calls[act]()
    return "done"


# --- handled


@application.exception_handler(fastticket.NotLoggedIn)
async def ask_to_log_in(request: Request, error: fastticket.NotLoggedIn):
    return RedirectResponse(f"/log-in?from={request.url.path}", 303)


@application.exception_handler(fastticket.TooManySessions)
def say_how_many(request: Request, error: fastticket.TooManySessions):
    """In a thread."""
    return JSONResponse({"max": error.sessions_max}, error.status)


@application.post("/needs/user")
async def needs_a_user(user: CurrentUser):
    return user


@application.post("/needs/rotation")
async def needs_a_session(request: Request):
    await rotate(request)


@application.post("/needs/place")
async def needs_a_place(session: CurrentSession, tasks: BackgroundTasks):
    session["cart"] = ["tea"]
    return "kept"


@application.exception_handler(fastticket.BadAttribute)
async def say_which(request: Request, error: fastticket.BadAttribute):
    request.session["said"] = error.name
    return JSONResponse({"attribute": error.name}, 422)


@application.post("/unwritable")
async def set_what_no_session_holds(session: CurrentSession):
    session.update(color="red", when=object())


@application.post("/set/{name}")
async def set_the_user(name: str, session: CurrentSession):
    session["user"] = name


# --- middleware in each order


def asks(app):
    """A middleware that wants to know who is logged in."""

    async def middleware(scope, receive, send):
        if scope["type"] == "http":
            try:
                session_of(scope)
            except RuntimeError as error:
                await PlainTextResponse(str(error))(scope, receive, send)
                return
        await app(scope, receive, send)

    return middleware


async def tell(request):
    try:
        session_of(request)
    except RuntimeError as error:
        return PlainTextResponse(str(error))
    return PlainTextResponse("there is one")


async def sign_in(request):
    request.session["user"] = "alice"
    return PlainTextResponse("welcome")


async def shop(request):
    request.session["cart"] = ["tea"]
    return PlainTextResponse("it is in your cart")


def with_middleware(*middleware):
    routes = [Route("/", tell), Route("/sign-in", sign_in, methods=["POST"]), Route("/cart", shop, methods=["POST"])]
    return Starlette(routes=routes, middleware=middleware)


nothing = with_middleware()
asking_outside = with_middleware(Middleware(asks), ours)
asking_inside = with_middleware(ours, Middleware(asks))
signed_inside = with_middleware(ours, signed)
signed_outside = with_middleware(signed, ours)
mounted = FastAPI(middleware=[ours])
mounted.mount("/inner", with_middleware())
