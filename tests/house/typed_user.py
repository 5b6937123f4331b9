"""A program that uses all of `fastticket.__all__`, as a strict type checker reads it;
test_typing.py also runs it.

Each `assert_type` is what the checker must find out by itself: there is neither a cast nor an
ignored line.
"""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, assert_type
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import fastticket
import fastticket.sync
from fastticket import asgi, wsgi
from fastticket.testing import Clock, MemoryStore

T0_MS = 1_750_000_000_000


def tickets_of_a_ring(keys: fastticket.Keyring) -> None:
    """Mint and verify, without a store."""
    text = assert_type(keys.mint("alice", T0_MS, idle_timeout_s=60, absolute_lifetime_s=3600), str)
    ticket = keys.verify(text.encode(), T0_MS)
    if isinstance(ticket, fastticket.Ticket):
        assert_type(ticket.principal, str)
        assert_type(ticket.absolute_deadline_ms, int)
        assert_type(ticket.idle_deadline_ms(T0_MS, slack_ms=500), int)
    else:
        assert_type(ticket.reason, str)
    assert_type(keys.ids, tuple[int, ...])
    assert_type(keys.uses, dict[int, int])
    assert_type(keys.replace([(2, bytes(32))]), set[int])
    try:
        keys.mint("", T0_MS)
    except fastticket.InvalidPrincipal as error:
        assert_type(error.reason, str)


def user_of(cache: fastticket.TicketCache, ticket: str) -> str:
    """The hot path: the truth of a verdict tells a session from a refusal."""
    verdict = assert_type(cache.check(ticket, touch=False), fastticket.Session | fastticket.Verdict)
    if verdict:
        return assert_type(verdict, fastticket.Session).principal
    assert_type(verdict, fastticket.Verdict)
    return "nobody" if verdict is fastticket.Verdict.EXPIRED else verdict.reason


async def sessions_of_a_cache(store: fastticket.Store, keys: fastticket.Keyring) -> None:
    """A session from its login to its end."""
    async with fastticket.TicketCache(store, keys, lease_ms=3000, outage_policy="deny") as cache:
        assert_type(cache, fastticket.TicketCache)
        ticket = assert_type(await cache.login("alice"), str)
        session = assert_type(await cache.authenticate(ticket, consistency="strong"), fastticket.Session)
        assert_type(session.id, str)
        assert_type(session.issued_at_ms, int)
        assert_type(session.idle_deadline_ms, int)
        assert_type(session.absolute_deadline_ms, int)
        assert user_of(cache, ticket) == "alice"

        (info,) = assert_type(await cache.sessions("alice"), Sequence[fastticket.SessionInfo])
        assert_type(info.last_access_ms, int | None)
        assert info.id == session.id
        await attributes_of(cache, session)
        ticket = assert_type(await cache.rotate(ticket, idle_timeout_s=600), str)
        assert_type(cache.stats, dict[str, int])
        assert_type(cache.now_ms(), int)
        cache.replace_keys([(1, bytes(range(32)))])

        assert_type(await cache.logout(await cache.login("bob")), bool)
        assert_type(await cache.logout_everywhere("alice"), int)
        try:
            await cache.authenticate(ticket)
        except fastticket.TicketRefused as refused:
            assert_type(refused.verdict, fastticket.Verdict)
            assert_type(refused.status, int)
        except fastticket.StoreUnavailable as away:
            raise SystemExit(str(away)) from away


class Plain(fastticket.JSONSerializer):
    """A serializer of one's own."""

    def loads(self, data: bytes) -> object:
        return super().loads(data)


async def attributes_of(cache: fastticket.TicketCache, session: fastticket.Session) -> None:
    """What an application keeps in a session."""
    assert_type(cache.serializer, fastticket.Serializer)
    async with cache.attributes(session) as attributes:
        assert_type(attributes, fastticket.Attributes)
        attributes["cart"] = ["tea"]
        assert_type(attributes.get("color", "red"), Any)
    try:
        len(cache.attributes(session))
    except fastticket.NotLoaded as error:
        assert_type(error.reason, str)
    version = assert_type(attributes.version, tuple[int, int] | None)
    attributes = cache.attributes(session, seen=version or (0, 0))
    attributes["today"] = object()
    try:
        assert_type(await attributes.save(), bool)
    except fastticket.BadAttribute as error:
        assert_type(error.name, str)
    attributes["today"] = "x" * 100_000
    try:
        await attributes.save()
    except fastticket.AttributesTooLarge as error:
        assert_type(error.bytes_max, int)


async def events_of(store: fastticket.Store, keys: fastticket.Keyring) -> None:
    """What becomes of sessions."""
    cache = fastticket.TicketCache(store, keys, sessions_max=1, sessions_max_policy="refuse", serializer=Plain())
    async with cache:
        events = assert_type(await cache.events().start(), fastticket.EventStream)
        await cache.login("carol", remember=True, details={"address": "192.0.2.7"})
        (stored,) = assert_type(await store.sessions("carol"), Sequence[fastticket.StoredSession])
        assert stored.idle_timeout_s == 0
        async for event in events:
            assert_type(event, fastticket.SessionEvent)
            assert (event.kind, event.principal) == ("created", "carol")
            assert_type(events.position, str | None)
            break
        try:
            await cache.login("carol")
        except fastticket.TooManySessions as error:
            assert_type(error.sessions_max, int)


def in_threads(store: fastticket.Store, keys: fastticket.Keyring) -> None:
    """The same for threads."""
    with fastticket.sync.TicketCache(store, keys, near_attributes_bytes=100_000) as cache:
        assert_type(cache, fastticket.sync.TicketCache)
        ticket = assert_type(cache.login("dave"), str)
        session = assert_type(cache.authenticate(ticket), fastticket.Session)
        with cache.attributes(session) as attributes:
            assert_type(attributes, fastticket.sync.Attributes)
            attributes["cart"] = ["tea"]
        assert_type(cache.attributes(session, seen=(1, 0)).version, tuple[int, int] | None)
        assert_type(cache.sessions("dave"), Sequence[fastticket.SessionInfo])
        assert_type(cache.check(ticket), fastticket.Session | fastticket.Verdict)


async def by_url_and_key_file(key_file: Path) -> None:
    """A cache makes its own store and key ring; one that is closed says so."""
    cache = fastticket.TicketCache("sqlite://:memory:", key_file)
    try:
        await cache.login("erin")
    except fastticket.CacheMisused as misuse:
        assert_type(misuse.reason, str)
    async with cache:
        ticket = assert_type(await cache.login("erin"), str)
        verdict = cache.check(ticket)
        if not verdict and not verdict.is_refusal:
            assert_type(await cache.authenticate(ticket), fastticket.Session)
    try:
        await cache.sessions("erin")
    except fastticket.CacheClosed as closed:
        unavailable: fastticket.StoreUnavailable = closed
        assert unavailable.reason == "store_unavailable"


def in_a_test(keys: fastticket.Keyring) -> None:
    """Sessions in memory, and time."""
    clock = Clock()
    store = MemoryStore(clock)
    shared: fastticket.Store = store.another()
    with fastticket.sync.TicketCache(shared, keys, clock=clock) as cache:
        cache.login("grace")
        clock.advance(1.5)
        assert_type(clock(), int)
    store.is_away = True


async def session_of_a_request(cache: fastticket.TicketCache) -> None:
    """An ASGI application with sessions."""

    async def application(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        session = assert_type(asgi.session_of(scope), asgi.RequestSession)
        assert_type(session.principal, str | None)
        session["user"] = "erin"
        assert_type(session["user"], Any)
        await session.save()
        await asgi.rotate(scope)
        assert_type(await asgi.logout_everywhere(scope), int)
        await asgi.logout(scope)
        session["color"] = "red"
        try:
            await session.save()
        except fastticket.NotLoggedIn as error:
            assert_type(error.reason, str)
        session.clear()

    async def receive() -> asgi.Message:
        return {"type": "http.request"}

    async def send(message: asgi.Message) -> None:
        assert message["type"]

    served: asgi.ASGIApp = asgi.SessionMiddleware(
        application, cache, cookie=fastticket.TicketCookie(same_site="Strict"), lazy=True
    )
    async with cache:
        await served({"type": "http", "headers": []}, receive, send)


def session_in_wsgi(cache: fastticket.sync.TicketCache) -> None:
    """A WSGI application with sessions."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        wsgi.login(environ, "frank", remember=True)
        wsgi.rotate(environ)
        assert_type(wsgi.logout_everywhere(environ), int)
        session: wsgi.ThreadSession = environ[wsgi.ENVIRON_KEY]
        assert_type(session.principal, str | None)
        wsgi.logout(environ)
        start_response("200 OK", [])
        return []

    def start_response(
        status: str, fields: list[tuple[str, str]], exc_info: object = None, /
    ) -> Callable[[bytes], object]:
        assert status == "200 OK"
        assert "Set-Cookie" in dict(fields)
        return len

    served: WSGIApplication = wsgi.SessionMiddleware(
        application, cache, cookie=fastticket.TicketCookie(is_secure=False)
    )
    assert list(served({}, start_response)) == []


def store_of(url: str) -> fastticket.Store | None:
    """Every error of ours has a slug and a status."""
    try:
        fastticket.check_principal("alice")
        return fastticket.open_store(url)
    except fastticket.ConfigError as error:
        problem: fastticket.FastticketError = error
        assert (problem.reason, problem.status) == ("config", 500)
        return None


def main() -> None:
    """All of it."""
    tickets_of_a_ring(fastticket.Keyring.generate(audience="shop"))
    store = store_of("sqlite://:memory:")
    assert store_of("nowhere") is None
    assert store
    keys = fastticket.Keyring([(1, bytes(range(32)))])
    asyncio.run(sessions_of_a_cache(store, keys))
    asyncio.run(events_of(fastticket.open_store("sqlite://:memory:"), keys))
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(f'[[key]]\nid = 1\nsecret = "{"A" * 43}"\n')
        file.flush()
        asyncio.run(by_url_and_key_file(Path(file.name)))
    in_a_test(keys)
    in_threads(fastticket.open_store("sqlite://:memory:"), keys)
    with fastticket.sync.TicketCache(fastticket.open_store("sqlite://:memory:"), keys) as cache:
        session_in_wsgi(cache)
    asyncio.run(session_of_a_request(fastticket.TicketCache(fastticket.open_store("sqlite://:memory:"), keys)))


if __name__ == "__main__":
    main()
