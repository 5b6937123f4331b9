"""A plugin of pytest: Starlette's session middleware with ours. SUITE_SESSIONS says for which
visitors.

anonymous  visitors who are not logged in: ours stands within Starlette's own
ticket     visitors who are logged in from the start: ours stands in its place. Starlette's tests
           compare all that is in a session, so the user is taken out of the answers
"""

import asyncio
import json
import os
import tempfile

import starlette.middleware.sessions
import starlette.testclient

from fastticket import Keyring, TicketCache, open_store
from fastticket.asgi import SessionMiddleware
from fastticket.web.cookies import TicketCookie

OWN = starlette.middleware.sessions.SessionMiddleware
KEYS = Keyring.generate()
FOLDER = tempfile.TemporaryDirectory()


class Ours:
    """With a cache for every client, whose event loops are their own: they are as processes on one
    store.
    """

    def __init__(self, app):
        self._app = app
        self._middleware = {}

    async def __call__(self, scope, receive, send):
        loop = asyncio.get_running_loop()
        if loop not in self._middleware:
            store = open_store(f"sqlite:///{FOLDER.name}/sessions.db")
            cache = TicketCache(store, KEYS, near_attributes_bytes=1_000_000)
            self._middleware[loop] = SessionMiddleware(self._app, cache, cookie=TicketCookie(is_secure=False))
        await self._middleware[loop](scope, receive, send)


class Within(OWN):
    """Our middleware within Starlette's own, whose cookie keeps what anonymous visitors leave."""

    def __init__(self, app, **options):
        super().__init__(Ours(app), **options)


class InPlace:
    """Every visitor is alice."""

    def __init__(self, app, **options):
        self._app = Ours(_logged_in(app))

    async def __call__(self, scope, receive, send):
        await self._app(scope, receive, _without_user(send))


def _logged_in(app):
    async def application(scope, receive, send):
        session = scope.get("session")
        if session is not None and not session.is_admitted:
            session.login("alice")
            session._is_accessed = False
        await app(scope, receive, send)

    return application


def _without_user(send):
    async def send_without(message):
        if message["type"] == "http.response.start":
            message["headers"] = [field for field in message["headers"] if field[0] != b"content-length"]
        elif message["type"] == "http.response.body":
            said = json.loads(message["body"])
            if isinstance(said.get("session"), dict):
                said["session"].pop("user", None)
            message["body"] = json.dumps(said).encode()
        await send(message)

    return send_without


def pytest_configure():
    kind = os.environ["SUITE_SESSIONS"]
    if kind != "own":
        starlette.middleware.sessions.SessionMiddleware = InPlace if kind == "ticket" else Within
        _live_from_the_start(starlette.testclient.TestClient)


def _live_from_the_start(client):
    """Outside of `with`, a client has an event loop for every request; a cache has one for its
    life.
    """
    begin = client.__init__

    def begin_and_live(self, *arguments, **options):
        begin(self, *arguments, **options)
        self.__enter__()
        clients.append(self)

    client.__init__ = begin_and_live


clients = []


def pytest_runtest_teardown():
    while clients:
        clients.pop().__exit__(None, None, None)
