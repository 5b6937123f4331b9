"""A Django project in one file: users in its own database, sessions by tickets. Settings come from
the environment.

Its views are those of any project: they use `request.session`, `request.user` and
`django.contrib.auth`, and know nothing of tickets.
"""

import asyncio
import json
import os
import threading
from pathlib import Path

import django
from django.conf import settings
from django.contrib import auth, messages
from django.core.management import call_command
from django.http import HttpResponse, HttpResponseRedirect, JsonResponse
from django.middleware.csrf import get_token
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from fastticket import TooManySessions
from fastticket.django import ticket_cache

DATABASE = Path(os.environ["DJANGO_DATABASE"])

settings.configure(
    SECRET_KEY=os.environ.get("DJANGO_SECRET", "of this project"),
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "fastticket.django",
        "shop",
    ],
    MIGRATION_MODULES={"auth": None, "contenttypes": None, "sessions": None},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE, "OPTIONS": {"timeout": 30}}},
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    USE_TZ=True,
    LOGGING_CONFIG=None,
    SESSION_ENGINE="fastticket.django.sessions",
    SESSION_COOKIE_NAME="ticket",
    MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
    FASTTICKET=json.loads(os.environ["FASTTICKET"]),
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "fastticket.django.middleware.TicketMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
)
django.setup()
if os.environ.get("IS_DEAF"):
    ticket_cache()._cache._store.on_doorbell = lambda _: None


def prepare(*names):
    """The tables, and users of these names."""
    call_command("migrate", run_syncdb=True, verbosity=0)
    for name in names:
        auth.get_user_model().objects.create_user(name, password=f"{name}'s")


# --- views


def told(value, **more):
    return JsonResponse({"value": value, "process": os.getpid(), **more})


def login(request):
    user = auth.authenticate(request, username=request.GET["user"], password=f"{request.GET['user']}'s")
    if "remember" in request.GET:
        request.session.set_expiry(int(request.GET["remember"]))
    auth.login(request, user)
    return who(request)


def logout(request):
    auth.logout(request)
    return who(request)


def clear(request):
    request.session.clear()
    return told("bye")


def who(request):
    return told(request.user.get_username() or None, id=request.user.pk)


def ignore(request):
    return HttpResponse("nobody asked who you are")


def put(request):
    for name, value in request.GET.items():
        request.session[name] = value
    return told(None)


def get(request):
    return told(request.session.get(request.GET["name"]))


def add(request):
    request.session["cart"] = [*request.session.get("cart", []), request.GET["item"]]
    return HttpResponseRedirect("/cart", status=303) if request.method == "POST" else told(None)


def cart(request):
    return told(request.session.get("cart"))


def flash(request):
    messages.info(request, request.GET["text"])
    return told(None)


def flashed(request):
    return told([str(message) for message in messages.get_messages(request)])


def login_with_rubbish(request):
    request.session["rubbish"] = object()
    return login(request)


def expire(request):
    request.session.set_expiry(int(request.GET["seconds"]))
    return told(None)


async def aexpire(request):
    await request.session.aset_expiry(int(request.GET["seconds"]))
    return told(None)


def login_if_there_is_room(request):
    auth.login(request, auth.get_user_model().objects.get(username=request.GET["user"]))
    try:
        request.session.save()
    except TooManySessions:
        return told("no room")
    return told("welcome")


def signal(request):
    """A login by a token, say, that begins no session."""
    user = auth.get_user_model().objects.get(username="alice")
    auth.user_logged_in.send(sender=type(user), request=request, user=user)
    return told(None)


def token(request):
    return told(get_token(request))


def append(request):
    request.session.setdefault("list", []).append(len(request.session["list"]))
    return told(request.session["list"])


def fail(request):
    request.session["lost"] = 1
    raise ZeroDivisionError


_both_are_here = threading.Barrier(2)


def put_together(request):
    """Two requests are in this view at once, and have both looked at the session, before either
    writes.
    """
    request.session.get("a")
    _both_are_here.wait(20)
    return put(request)


def put_at_last(request):
    """The session ends, by somebody else's doing, while this view works."""
    who(request)
    ticket_cache().logout(request.GET["logout"])
    return put(request)


def get_at_last(request):
    who(request)
    ticket_cache().logout(request.GET["logout"])
    return told(request.session.get("a"))


def password(request):
    """As PasswordChangeView does it."""
    request.user.set_password("another")
    request.user.save()
    auth.update_session_auth_hash(request, request.user)
    return who(request)


async def awho(request):
    user_id = await request.session.aget(auth.SESSION_KEY)
    user = await request.auser()
    assert (user_id is not None) == await request.session.ahas_key(auth.SESSION_KEY)
    return told(user.get_username() or None, is_known=user_id is not None)


async def alogin(request):
    user = await auth.aauthenticate(request, username=request.GET["user"], password=f"{request.GET['user']}'s")
    await auth.alogin(request, user)
    await request.session.aset("by", "alogin")
    return HttpResponse()


async def alogout(request):
    await auth.alogout(request)
    return HttpResponse()


async def aget(request):
    return told(await asyncio.gather(request.session.aget("by"), request.session.aget("missing", 7)))


VIEWS = (
    *(login, clear, logout, who, ignore, put, get, append, fail, put_together, password),
    *(put_at_last, get_at_last, login_with_rubbish, expire, aexpire, signal, token, login_if_there_is_room),
    *(awho, alogin, alogout, aget, cart, flash),
)
urlpatterns = [path(view.__name__, view) for view in VIEWS]
urlpatterns += [path("add", csrf_exempt(add)), path("messages", flashed)]


def wsgi():
    """The application as a WSGI server takes it."""
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()
