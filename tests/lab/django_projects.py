"""Django in this process: the project of `peers/django_application.py`, with a store of its own for
each test.
"""

import json
import sys
import time
from types import SimpleNamespace

import pytest

from fastticket.keyfile import create_key_file
from lab.real_programs import PEERS
from lab.web_stores import QUIET, CountedStore

TICKET = "ticket"


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """`peers/django_application.py`, set up in this process, with users alice and bob."""
    folder = tmp_path_factory.mktemp("django")
    create_key_file(folder / "keys.toml")
    settings = {"store": "counted", "keys": str(folder / "keys.toml"), **QUIET, "idle_timeout_s": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTTICKET", json.dumps(settings))
        patch.setenv("DJANGO_DATABASE", str(folder / "database"))
        sys.path.insert(0, str(PEERS))
        import django_application

        django_application.prepare("alice", "bob")
    yield django_application
    from django.db import connections

    connections.close_all()
    sys.path.remove(str(PEERS))


@pytest.fixture
def at(project, monkeypatch, request):
    """The project with a store of its own: `at.client()`, `at.store`, `at.cache`. Its parameter:
    more settings in FASTTICKET.
    """
    from django.conf import settings
    from django.test import AsyncClient, Client

    from fastticket.django import _cache_of_settings, ticket_cache

    monkeypatch.setattr(settings, "FASTTICKET", settings.FASTTICKET | getattr(request, "param", {}))

    store = CountedStore()
    monkeypatch.setattr("fastticket.django.open_store", lambda url: store)
    _cache_of_settings.cache_clear()
    cache = ticket_cache()
    cache.open()

    def client(ticket="", kind=Client):
        made = kind(raise_request_exception=False)
        if ticket:
            made.cookies[TICKET] = ticket
        return made

    yield SimpleNamespace(
        client=client,
        async_client=lambda ticket="": client(ticket, AsyncClient),
        store=store,
        cache=cache,
        override=override_settings,
        said=settings.FASTTICKET,
    )
    store.is_away = False
    cache.close()
    _cache_of_settings.cache_clear()


@pytest.fixture
def about():
    """`about(7000)`: so many seconds, give or take a moment and the time that the test took."""
    began_s = time.monotonic()
    return lambda seconds: pytest.approx(seconds, abs=2 + time.monotonic() - began_s)


def override_settings(**settings):
    from django.test import override_settings

    return override_settings(**settings)


def answer(response):
    assert response.status_code == 200, response.content
    return json.loads(response.content)


def value(response):
    return answer(response)["value"]


def answered_by(view, ticket="", **cookies):
    """The response to a request that goes through the two middlewares alone."""
    from django.contrib.sessions.middleware import SessionMiddleware
    from django.test import RequestFactory

    from fastticket.django.middleware import TicketMiddleware

    factory = RequestFactory()
    if ticket:
        factory.cookies[TICKET] = ticket
    for name, said in cookies.items():
        factory.cookies[name] = said
    return SessionMiddleware(TicketMiddleware(view))(factory.get("/"))


def held(at, ticket):
    """The attributes of a ticket's session, without what projects keep of logins."""
    attributes = dict(at.cache.attributes(at.cache.authenticate(ticket)))
    return {name: value for name, value in attributes.items() if not name.startswith("_fastticket.")}
