"""The session of a framework that is neither ASGI nor known: by raw calls. With real frameworks,
tests/docs/test_shop_pages.py.
"""

import pytest

from fastticket import Keyring, NotLoggedIn, StoreUnavailable, TicketCache, TooManySessions, open_store
from fastticket.web.adapter import AdaptedSession


@pytest.fixture
async def cache():
    store, keys = open_store("sqlite://:memory:"), Keyring.generate()
    settings = {"sessions_max": 1, "sessions_max_policy": "refuse", "attributes_bytes_max": 100}
    async with TicketCache(store, keys, **settings) as cache:
        yield cache


async def visit(cache, *fields, ticket="", **options):
    """A session that has begun."""
    fields = [("Host", "shop.test"), *fields, *([("cookie", f"ticket={ticket}")] if ticket else [])]
    session = AdaptedSession(cache, fields, **options)
    await session.begin()
    return session


def cookies(ending):
    return [value for name, value in ending.fields if name == "Set-Cookie"]


async def test_what_is_set_is_written_at_the_end(cache):
    session = await visit(cache, ("USER-AGENT", "test/1"), address="192.0.2.7")
    session["user"] = "alice"
    session["color"] = "red"
    ending = await session.end(200, [("Vary", "Accept")])
    assert ending.status == 200
    assert dict(ending.fields).keys() == {"Vary", "Set-Cookie", "Cache-Control"}
    *others, cookie = cookies(ending)
    assert all(other.endswith("Max-Age=0") for other in others)
    assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
    (info,) = await cache.sessions("alice")
    assert info.details == {"address": "192.0.2.7", "user_agent": "test/1"}
    again = await visit(cache, ticket=cookie.partition(";")[0].partition("=")[2])
    assert again == {"user": "alice", "color": "red"}


async def test_after_a_server_error_nothing_is(cache):
    session = await visit(cache)
    session["user"] = "alice"
    assert (await session.end(500)).status == 500
    assert await cache.sessions("alice") == []


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"color": "red"}, NotLoggedIn.status),
        ({"user": "full"}, TooManySessions.status),
        ({"user": "alice", "color": "x" * 100}, 500),
        ({"user": "alice", "color": object()}, 500),
    ],
)
async def test_what_is_wrong_with_what_was_set_is_logged_and_the_status(cache, caplog, values, status):
    await cache.login("full")
    session = await visit(cache)
    session.update(values)
    ending = await session.end(200, [("Cache-Control", "private")])
    assert (ending.status, cookies(ending)) == (status, [])
    assert f"{status}: the session was not written" in caplog.text
    assert await cache.sessions("alice") == []


async def test_an_error_that_is_none_of_ours_is_500(cache, monkeypatch, caplog):
    session = await visit(cache)
    session["user"] = "alice"
    monkeypatch.setattr(cache, "login", None)
    assert (await session.end(200)).status == 500
    assert "TypeError" in caplog.text


async def test_save_does_it_at_once_and_raises(cache):
    session = await visit(cache)
    session["user"] = "alice"
    await session.save()
    assert len(await cache.sessions("alice")) == 1
    other = await visit(cache)
    other["user"] = "alice"
    with pytest.raises(TooManySessions):
        await other.save()
    assert await session.logout_everywhere(keep_this=False) == 1
    with pytest.raises(NotLoggedIn):
        await session.logout_everywhere()


async def test_several_cookie_fields_are_one(cache):
    tickets = [await cache.login(name) for name in ("alice", "bob")]
    session = await visit(cache, *(("Cookie", f"ticket={ticket}") for ticket in tickets))
    assert session.principal is None


@pytest.mark.parametrize("status", [500, 503])
async def test_a_ticket_that_can_not_be_judged_is_503_whatever_the_framework_says(cache, status, monkeypatch):
    async def fail(ticket):
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(cache, "authenticate", fail)
    session = AdaptedSession(cache, [("Cookie", "ticket=x")])
    with pytest.raises(StoreUnavailable):
        await session.begin()
    ending = await session.end(status)
    assert (ending.status, ending.fields) == (503, [("Retry-After", "1"), ("Cache-Control", "no-store")])
    assert (await session.end(404)).status == 404
