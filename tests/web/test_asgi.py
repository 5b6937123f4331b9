"""Sessions in ASGI applications: every rule that the integrations share, by raw ASGI calls, in
virtual time, on a store that counts.

A `Browser` keeps cookies. What it asks is a view: a function of the session whose result is the
answer, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import ctypes
import inspect
import json
import logging
import random
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any, NamedTuple

import pytest
from lab.model_store import ModelServer, ModelStore, in_virtual_time, pass_ms, settle, virtual_ms
from pydantic import TypeAdapter

from fastticket import Keyring, TicketCache
from fastticket.asgi import SessionMiddleware, login, logout, logout_everywhere, rotate, session_of
from fastticket.errors import (
    AttributesTooLarge,
    BadAttribute,
    FastticketError,
    InvalidPrincipal,
    NotLoaded,
    NotLoggedIn,
    StoreUnavailable,
    TicketRefused,
    TooManySessions,
)
from fastticket.sync import TicketCache as SyncTicketCache
from fastticket.web.caches import at_once
from fastticket.web.cookies import TicketCookie
from fastticket.web.session import WebSession
from fastticket.web.visitor import Visitor

KEY = (1, b"k" * 32)
DAY_S = 86400
NEAR_BYTES = 1_000_000


class Answer(NamedTuple):
    status: int
    fields: list[tuple[str, str]]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.fields if each == name]


class Browser:
    """Asks applications behind the middleware, one request at a time, and keeps what cookies they
    set.
    """

    def __init__(self, site: Site, **settings: Any) -> None:
        self.site = site
        self.settings = settings
        self.host = b"shop"
        self.cookies: dict[str, str] = {}

    async def ask(self, view, **scope) -> Answer:
        return await self.request(page(view), **scope)

    async def say(self, view, **scope) -> Any:
        """The value that the view returns."""
        answer = await self.ask(view, **scope)
        assert answer.status == 200
        return answer.said

    async def request(self, application, headers=(), **scope) -> Answer:
        sent = await run(SessionMiddleware(application, self.site.cache, **self.settings), self.scope(headers, **scope))
        start, *rest = [message for message in sent if message["type"].startswith("http.response")]
        fields = [(name.decode(), value.decode()) for name, value in start["headers"]]
        answer = Answer(start["status"], fields, b"".join(message.get("body", b"") for message in rest))
        self._take_cookies(answer)
        return answer

    def scope(self, headers=(), kind="http", **others) -> dict[str, Any]:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        fields = [(b"host", self.host), (b"user-agent", b"test/1"), *headers]
        if cookies:
            fields.append((b"cookie", cookies.encode()))
        return {"type": kind, "path": "/", "headers": fields, "client": ("192.0.2.7", 1234), **others}

    def _take_cookies(self, answer: Answer) -> None:
        for line in answer.all("set-cookie"):
            for name, cookie in SimpleCookie(line).items():
                self.cookies.pop(name, None)
                if cookie["max-age"] != "0":
                    self.cookies[name] = cookie.value

    @property
    def ticket(self) -> str | None:
        return self.cookies.get("ticket")


class Site:
    """A cache of its own, on a server that it may share with others."""

    def __init__(self, server: ModelServer, cache: TicketCache, store: ModelStore) -> None:
        self.server = server
        self.cache = cache
        self.store = store

    def browser(self, **settings) -> Browser:
        return Browser(self, **settings)

    @contextlib.contextmanager
    def commands(self, *names: str):
        """The store was asked exactly this, in this order."""
        before = len(self.store.calls)
        yield
        assert [call.name for call in self.store.calls[before:]] == list(names)


@contextlib.asynccontextmanager
async def site(server: ModelServer | None = None, **settings) -> AsyncIterator[Site]:
    server = server or ModelServer(virtual_ms)
    store = ModelStore(server)
    settings = {"near_attributes_bytes": NEAR_BYTES, "clock": virtual_ms, **settings}
    async with TicketCache(store, Keyring([KEY]), **settings) as cache:
        yield Site(server, cache, store)
        store.wire.is_down = False


def page(view):
    """An application that answers with what a view of its session returns; or of its scope, if that
    is the parameter's name.
    """
    of_scope = next(iter(inspect.signature(view).parameters)) == "scope"

    async def application(scope, receive, send):
        said = view(scope if of_scope else scope["session"])
        body = json.dumps(await said if inspect.isawaitable(said) else said).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    return application


async def run(application, scope, *received) -> list[dict[str, Any]]:
    """The messages that an application sends, given these."""
    sent: list[dict[str, Any]] = []
    messages = iter(received)

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message)

    await application(scope, receive, send)
    return sent


def put(**values):
    """A view that sets these."""
    return lambda session: session.update(values)


def everything(session):
    return dict(session)


async def logged_in(at: Site, principal="alice", **settings) -> Browser:
    """A browser whose session is in the near cache, and its attributes, too."""
    browser = at.browser(**settings)
    await browser.ask(put(user=principal))
    await browser.ask(lambda scope: "read")
    return browser


# --- who is who


@in_virtual_time
async def test_without_a_ticket_everybody_is_anonymous_and_the_store_is_not_asked():
    async with site() as at:
        with at.commands():
            answer = await at.browser().ask(everything)
        assert (answer.said, answer.all("set-cookie"), answer.all("vary")) == ({}, [], ["Cookie"])


@in_virtual_time
async def test_a_response_that_does_not_depend_on_the_session_does_not_vary():
    async with site() as at:
        browser = await logged_in(at)
        for asked in (at.browser(), browser):
            answer = await asked.ask(lambda scope: "static")
            assert answer.fields == [("content-type", "application/json")]


@in_virtual_time
async def test_two_tickets_are_nobody_and_go():
    async with site() as at:
        tickets = [await at.cache.login("alice") for _ in range(2)]
        cookies = [(b"cookie", f"ticket={ticket}".encode()) for ticket in tickets]
        for several in (cookies, cookies[:1] * 2):
            answer = await at.browser().ask(everything, headers=several)
            partitioned = CLEARED.replace("; Max-Age", "; Partitioned; Max-Age")
            assert (answer.said, answer.all("set-cookie")) == ({}, [partitioned, CLEARED])
            assert (answer.all("cache-control"), answer.all("vary")) == (["no-store"], ["Cookie"])


async def log_out_at_once(scope):
    await logout(scope)


async def log_in_at_once(scope):
    await login(scope, "carol")


@pytest.mark.parametrize(
    ("view", "is_in"),
    [
        (lambda session: session.clear(), False),
        (lambda session: session.pop("user", None), False),
        (put(user=None), False),
        (log_out_at_once, False),
        (put(user="carol"), True),
        (log_in_at_once, True),
    ],
)
@in_virtual_time
async def test_a_logout_or_login_with_two_tickets_ends_the_sessions_of_both(view, is_in):
    async with site() as at:
        tickets = [await at.cache.login("alice"), "forged", await at.cache.login("bob")]
        headers = [(b"cookie", "; ".join(f"ticket={ticket}" for ticket in tickets).encode())]
        browser = at.browser()
        browser.host = b"a.shop.test"
        answer = await browser.ask(view, headers=headers, path="/x")
        for ticket in tickets:
            with pytest.raises(TicketRefused):
                await at.cache.authenticate(ticket)
        assert (browser.ticket is not None) == bool(at.server.live) == is_in
        *others, mine = answer.all("set-cookie")
        assert all(other.endswith("; Max-Age=0") for other in others)
        assert ("Max-Age=0" in mine) == (browser.ticket is None)
        assert {line.split("; ")[1] for line in others} == {"Path=/", "Path=/x"}
        assert {line.partition("Domain=")[2].partition(";")[0] for line in others} == {"", "a.shop.test", "shop.test"}


@in_virtual_time
async def test_a_login_and_a_rotation_clear_what_else_there_may_be():
    async with site() as at:
        browser = at.browser(cookie=TicketCookie(domain_level=2))
        browser.host = b"a.shop.test"
        others = [CLEARED, CLEARED.replace("; Max-Age", "; Domain=a.shop.test; Max-Age")]
        for view in (put(user="alice"), lambda session: session.rotate(), lambda session: session.clear()):
            answer = await browser.ask(view)
            assert answer.all("set-cookie")[:2] == others
            assert len(answer.all("set-cookie")) == 3


@pytest.mark.parametrize(
    ("host", "scheme", "origin", "is_secure"),
    [
        (b"shop.test", "http", b"", True),
        (b"localhost:8000", "http", b"http://localhost:8000", False),
        (b"localhost:8000", "https", b"", True),
        (b"127.0.0.1:8000", "wss", b"", True),
        (b"127.0.0.1:8000", "http", b"https://shop.test", True),  # a proxy that says neither Host nor scheme
    ],
)
@in_virtual_time
async def test_the_cookie_is_secure_unless_it_is_for_this_machine_by_http(host, scheme, origin, is_secure):
    async with site() as at:
        browser = at.browser()
        browser.host = host
        answer = await browser.ask(put(user="alice"), headers=[(b"origin", origin)] if origin else [], scheme=scheme)
        assert ("; Secure" in answer.all("set-cookie")[-1]) == is_secure


@in_virtual_time
async def test_a_refused_ticket_is_anonymous_and_its_cookie_cleared():
    async with site() as at:
        browser = at.browser()
        browser.cookies["ticket"] = await at.cache.login("alice", absolute_lifetime_s=60)
        await pass_ms(60_000)
        answer = await browser.ask(lambda scope: scope["user"].is_authenticated)
        assert answer.said is False
        assert answer.all("set-cookie") == [CLEARED]
        assert answer.all("cache-control") == ["no-store"]
        assert browser.ticket is None


@in_virtual_time
async def test_so_is_that_of_a_malformed_one_in_a_response_that_does_not_look_at_it():
    async with site() as at:
        browser = at.browser()
        browser.cookies["ticket"] = "malformed"
        answer = await browser.ask(lambda scope: "static")
        assert (browser.ticket, answer.all("vary")) == (None, ["Cookie"])


@in_virtual_time
async def test_the_cookie_of_a_revoked_ticket_stays_for_it_may_have_been_replaced_meanwhile():
    async with site() as at:
        browser = await logged_in(at)
        first = browser.ticket
        await browser.ask(lambda scope: rotate(scope))
        second, browser.cookies["ticket"] = browser.ticket, first
        answer = await browser.ask(everything)
        assert (answer.said, answer.all("set-cookie")) == ({}, [])
        browser.cookies["ticket"] = second
        assert await browser.say(everything) == {"user": "alice"}


@in_virtual_time
async def test_a_ticket_that_can_not_be_judged_is_503_and_stays():
    async with site() as at:
        browser = at.browser()
        browser.cookies["ticket"] = await at.cache.login("alice")
        at.store.wire.is_down = True
        answer = await browser.ask(everything)
        assert (answer.status, answer.all("retry-after"), answer.all("set-cookie")) == (503, ["1"], [])
        assert "detail" in answer.said
        assert browser.ticket
        at.store.wire.is_down = False
        assert await browser.say(everything) == {"user": "alice"}


@in_virtual_time
async def test_an_outage_is_not_felt_by_who_is_cached():
    async with site() as at:
        browser = await logged_in(at)
        await browser.ask(put(color="red"))
        at.store.wire.is_down = True
        await pass_ms(5000)
        assert await browser.say(everything) == {"user": "alice", "color": "red"}


@in_virtual_time
async def test_attributes_that_can_not_be_read_concern_who_looks_at_one(caplog):
    async with site(near_attributes_bytes=0) as at:
        browser = await logged_in(at)
        at.store.wire.is_down = True
        assert await browser.say(lambda session: session["user"]) == "alice"
        assert (await browser.ask(lambda session: session.get("color"))).status == 503
        assert (await browser.ask(put(color="red"))).status == 503
        assert browser.ticket
        assert browser.ticket not in caplog.text


@in_virtual_time
async def test_they_can_be_read_again():
    async def read_again(session):
        at.store.wire.is_down = False
        await session.load()
        return dict(session)

    async with site(near_attributes_bytes=0) as at:
        browser = await logged_in(at)
        at.store.wire.is_down = True
        assert await browser.say(read_again) == {"user": "alice"}


@in_virtual_time
async def test_whoever_issued_the_ticket_the_session_says_whose_it_is():
    async with site() as at:
        browser = at.browser(principal_key="user_id")
        browser.cookies["ticket"] = await at.cache.login("alice")
        assert await browser.say(everything) == {"user_id": "alice"}
        assert await browser.say(lambda session: ["user" in session, "user_id" in session]) == [False, True]


@in_virtual_time
async def test_what_starlette_wants_of_a_user():
    def user(scope):
        user = scope["user"]
        return [user.is_authenticated, user.display_name, user.identity, scope["auth"].scopes]

    async with site() as at:
        answer = await at.browser().ask(user)
        assert (answer.said, answer.all("vary")) == ([False, "", "", []], ["Cookie"])
        assert await (await logged_in(at)).say(user) == [True, "alice", "alice", ["authenticated"]]


class Robot:
    is_authenticated = True
    display_name = "robot"


@in_virtual_time
async def test_whom_another_middleware_has_authenticated_stays_unless_somebody_is_logged_in_here():
    def name(scope):
        return [scope["user"].display_name, scope["auth"] == "of the robot"]

    async with site() as at:
        around = {"user": Robot(), "auth": "of the robot"}
        assert await at.browser().say(name, **around) == ["robot", True]
        assert await (await logged_in(at)).say(name, **around) == ["alice", False]


# --- what is asked of the store


@in_virtual_time
async def test_a_hit_that_changes_nothing_asks_nothing():
    async with site() as at:
        browser = await logged_in(at)
        await browser.ask(put(cart=["tea"]))
        with at.commands():
            for _ in range(100):
                assert await browser.say(everything) == {"user": "alice", "cart": ["tea"]}
            await browser.ask(put(cart=["tea"], user="alice"))


@in_virtual_time
async def test_a_hit_that_changes_something_asks_once():
    async with site() as at:
        browser = await logged_in(at)
        with at.commands("write_attributes"):
            await browser.ask(put(cart=["tea"], color="red"))
        with at.commands("write_attributes"):
            await browser.ask(lambda session: session["cart"].append("milk"))
        with at.commands():
            assert await browser.say(everything) == {"user": "alice", "cart": ["tea", "milk"], "color": "red"}
        with at.commands("write_attributes"):
            assert await browser.say(lambda session: session.pop("color")) == "red"
        assert at.store.calls[-1].arguments[2:] == ({}, ["color"])


@in_virtual_time
async def test_without_near_copies_it_asks_once_more():
    async with site(near_attributes_bytes=0) as at:
        browser = await logged_in(at)
        with at.commands("read_attributes"):
            assert await browser.say(lambda scope: "static") == "static"


@in_virtual_time
async def test_lazy_sessions_are_read_when_that_is_asked_for():
    async def color(session):
        await session.load()
        return session["color"]

    async with site(near_attributes_bytes=0) as at:
        browser = await logged_in(at, lazy=True)
        with at.commands():
            assert await browser.say(lambda session: session["user"]) == "alice"
        with at.commands("write_attributes"):
            await browser.ask(put(color="red"))
        for look in (lambda session: session.get("color"), list, lambda session: "color" in session):
            with pytest.raises(NotLoaded, match=r"await request\.session\.load\(\)"):
                await browser.ask(look)
        with pytest.raises(NotLoaded, match=r"await request\.session\.load\(\)"):
            await browser.ask(lambda session: session.__delitem__("color"))
        assert await browser.say(lambda session: [session.update(mine=1), session["mine"]]) == [None, 1]
        with at.commands("read_attributes"):
            assert await browser.say(color) == "red"
        with at.commands("rotate"):
            await browser.ask(lambda scope: rotate(scope))
        at.store.wire.is_down = True
        assert (await browser.ask(lambda session: session.load())).status == 503


# --- log in and out


@in_virtual_time
async def test_setting_the_principal_logs_in_and_what_else_is_set_comes_along():
    async with site() as at:
        browser = at.browser()
        answer = await browser.ask(put(color="red", user="alice", cart=["tea"]))
        assert answer.all("cache-control") == ["no-store"]
        (cookie,) = answer.all("set-cookie")
        assert cookie == f"ticket={browser.ticket}; Path=/; HttpOnly; SameSite=Lax; Secure"
        with at.commands():
            assert await browser.say(list) == ["user", "color", "cart"]
            assert await browser.say(lambda session: session.copy()) == {
                "user": "alice",
                "color": "red",
                "cart": ["tea"],
            }
        (info,) = await at.cache.sessions("alice")
        assert info.details == {"address": "192.0.2.7", "user_agent": "test/1"}
        assert "user" not in at.server.attributes[info.id].values


@in_virtual_time
async def test_deleting_the_principal_logs_out_and_so_does_clear():
    def leave_twice(session):
        del session["user"]
        session.clear()

    async with site() as at:
        for leave in (
            lambda session: session.pop("user"),
            lambda session: session.clear(),
            put(user=None),
            leave_twice,
        ):
            browser = await logged_in(at)
            ticket = browser.ticket
            with at.commands("revoke"):
                answer = await browser.ask(leave)
            assert answer.all("set-cookie")[0].endswith("Max-Age=0")
            browser.cookies["ticket"] = ticket
            assert await browser.say(everything) == {}


@in_virtual_time
async def test_nobody_is_not_logged_out():
    async with site() as at:
        around = {"color": "red"}
        await at.browser().ask(put(user=None), session=around)
        assert around == {"color": "red"}


@in_virtual_time
async def test_another_principal_gets_nothing_of_the_first_ones():
    async with site() as at:
        browser = await logged_in(at)
        await browser.ask(put(color="red"))
        first = browser.ticket
        await browser.ask(put(user="bob", cart=["tea"]))
        assert await browser.say(everything) == {"user": "bob", "cart": ["tea"]}
        assert await at.cache.sessions("alice") == []
        assert browser.ticket != first


@in_virtual_time
async def test_who_changes_his_mind_within_a_request_takes_nothing_along():
    def waver(session):
        session.update(user="alice", secret="of alice")
        session["user"] = "bob"

    async with site() as at:
        browser = at.browser()
        with at.commands("create", "exchange"):
            await browser.ask(waver)
        assert await browser.say(everything) == {"user": "bob"}


@in_virtual_time
async def test_clear_and_log_in_is_another_session_of_the_same_principal():
    def log_in_again(session):
        session.clear()
        session["user"] = "alice"

    async with site() as at:
        browser = await logged_in(at)
        await browser.ask(put(color="red"))
        first = browser.ticket
        await browser.ask(log_in_again)
        assert await browser.say(everything) == {"user": "alice"}
        assert len(await at.cache.sessions("alice")) == 1
        assert browser.ticket != first


@in_virtual_time
async def test_a_principal_is_a_str():
    async with site() as at:
        with pytest.raises(TypeError, match=r"session\['user'\] is who is logged in: a str, not int"):
            await at.browser().ask(put(user=7))
        with pytest.raises(InvalidPrincipal):
            await at.browser().ask(put(user=""))
        assert at.server.live == {}


@in_virtual_time
async def test_who_is_not_logged_in_is_no_entry():
    async with site() as at:
        for view in (lambda session: session["user"], lambda session: session.pop("user")):
            with pytest.raises(KeyError, match="user"):
                await at.browser().ask(view)
        with pytest.raises(KeyError, match="user"):
            await at.browser().ask(lambda session: session.__delitem__("user"))
        assert await at.browser().say(lambda session: session.pop("user", "nobody")) == "nobody"


@in_virtual_time
async def test_ones_own_session_among_all():
    async def others(scope):
        own = scope["session"].session
        return [each.id == own.id for each in await at.cache.sessions(own.principal)]

    async with site() as at:
        browser = await logged_in(at)
        await at.cache.login("alice")
        assert sorted(await browser.say(others)) == [False, True]
        assert await at.browser().say(lambda session: session.session) is None


@in_virtual_time
async def test_an_attribute_of_the_principals_name_is_never_seen():
    async with site() as at:
        browser = await logged_in(at)
        session = await at.cache.authenticate(browser.ticket)
        async with at.cache.attributes(session) as attributes:
            attributes["user"] = "mallory"
        assert await browser.say(everything) == {"user": "alice"}
        assert await browser.say(len) == 1


@in_virtual_time
async def test_a_login_that_is_remembered_has_a_cookie_that_outlives_the_browser():
    async with site(remember_lifetime_s=7 * DAY_S) as at:
        browser = at.browser()
        for step in (lambda scope: login(scope, "alice", remember=True), rotate):
            answer = await browser.ask(lambda scope, step=step: step(scope))
            assert answer.all("set-cookie")[0].endswith(f"; Max-Age={7 * DAY_S}")
        for lifetime_s in (DAY_S, 7 * DAY_S):
            browser.cookies["ticket"] = await at.cache.login("bob", absolute_lifetime_s=lifetime_s)
            answer = await browser.ask(lambda scope: rotate(scope))
            assert "Max-Age" not in answer.all("set-cookie")[0]


@in_virtual_time
async def test_explicit_calls_are_done_at_once():
    async def log_in(scope):
        await login(scope, "alice")
        return [each.principal for each in await at.cache.sessions("alice")]

    async def log_out(scope):
        await logout(scope)
        return [len(await at.cache.sessions("alice")), scope["user"].is_authenticated]

    async with site() as at:
        browser = at.browser()
        assert await browser.say(log_in) == ["alice"]
        assert await browser.say(log_out) == [0, False]
        with at.commands():
            await browser.ask(lambda scope: logout(scope))


@in_virtual_time
async def test_rotation_keeps_everything_but_the_ticket():
    async def change_privileges(scope):
        scope["session"]["color"] = "red"
        await rotate(scope)
        scope["session"]["role"] = "admin"
        return dict(scope["session"])

    async with site() as at:
        browser = await logged_in(at)
        first = browser.ticket
        assert await browser.say(change_privileges) == {"user": "alice", "color": "red", "role": "admin"}
        assert browser.ticket != first
        assert await browser.say(everything) == {"user": "alice", "color": "red", "role": "admin"}
        browser.cookies["ticket"] = first
        assert await browser.say(everything) == {}


@in_virtual_time
async def test_a_login_has_a_ticket_of_its_own_anyway():
    async def log_in_and_rotate(scope):
        scope["session"]["user"] = "alice"
        await rotate(scope)

    async with site() as at:
        with at.commands("create", "exchange"):
            await at.browser().ask(log_in_and_rotate)


@in_virtual_time
async def test_logout_of_a_ticket_whose_key_has_left():
    def replace_the_keys_and_leave(session):
        at.cache.replace_keys([(2, b"n" * 32)])
        session.clear()

    async with site() as at:
        browser = await logged_in(at)
        with at.commands():
            await browser.ask(replace_the_keys_and_leave)
        assert browser.ticket is None


@in_virtual_time
async def test_logout_everywhere():
    async with site() as at:
        browsers = [await logged_in(at) for _ in range(3)]
        assert await browsers[0].say(lambda scope: logout_everywhere(scope)) == 2
        assert [await each.say(everything) for each in browsers] == [{"user": "alice"}, {}, {}]
        assert await browsers[0].say(lambda scope: logout_everywhere(scope, keep_this=False)) == 1
        assert browsers[0].ticket is None


@in_virtual_time
async def test_logout_everywhere_of_another_principal_does_not_forget_the_first_ones_logout():
    async def become_nobody(scope):
        scope["session"]["user"] = "eve"
        return await logout_everywhere(scope, keep_this=False)

    async with site() as at:
        browser = await logged_in(at)
        assert await browser.say(become_nobody) == 0
        assert (browser.ticket, at.server.live) == (None, {})


@in_virtual_time
async def test_logout_everywhere_forgets_what_was_brought():
    async def leave(scope):
        scope["session"].update(user="eve", secret="of eve")
        return await logout_everywhere(scope, keep_this=False)

    async with site() as at:
        around = {"color": "red"}
        assert await at.browser().say(leave, session=around) == 0
        assert around == {}


@in_virtual_time
async def test_what_only_a_session_can_do():
    async with site() as at:
        for view in (rotate, logout_everywhere):
            with pytest.raises(NotLoggedIn, match="nobody is logged in"):
                await at.browser().ask(lambda scope, view=view: view(scope))


@in_virtual_time
@pytest.mark.parametrize(("principal", "error"), [("alice", TooManySessions), ("", InvalidPrincipal)])
async def test_a_login_that_is_refused_can_be_handled(principal, error):
    async def log_in(scope):
        try:
            await login(scope, principal)
        except FastticketError as refused:
            return [refused.reason, dict(scope["session"])]

    async with site(sessions_max=1, sessions_max_policy="refuse") as at:
        await at.cache.login("alice")
        browser = at.browser()
        assert await browser.say(log_in) == [error.reason, {}]
        assert browser.ticket is None


@in_virtual_time
async def test_a_logout_that_failed_is_tried_again_when_the_response_begins():
    async def log_out(scope):
        at.store.wire.is_down = True
        try:
            await logout(scope)
        except StoreUnavailable:
            at.store.wire.is_down = False
        return scope["user"].is_authenticated

    async with site() as at:
        browser = await logged_in(at)
        assert await browser.say(log_out) is False
        assert (browser.ticket, at.server.live) == (None, {})


# --- anonymous visitors


@in_virtual_time
async def test_what_an_anonymous_visitor_leaves_is_not_lost_in_silence():
    async with site() as at:
        with pytest.raises(NotLoggedIn, match=r"'cart', 'color' can not be kept"):
            await at.browser().ask(put(color="red", cart=[]))
        assert await at.browser().say(lambda session: [session.update(color="red"), session.pop("color")]) == [
            None,
            "red",
        ]
        assert at.server.live == {}

        browser = await logged_in(at)
        with pytest.raises(NotLoggedIn):
            await browser.ask(lambda session: [session.clear(), session.update(color="red")])
        assert at.server.live == {}  # the logout is done, whatever is wrong with the rest
        assert await browser.say(everything) == {}


@in_virtual_time
async def test_anonymous_attributes_are_kept_in_the_session_around_and_move_at_login():
    async with site() as at:
        browser, around = at.browser(), {"user": "of an older application"}
        await browser.ask(put(color="red"), session=around)
        assert around == {"user": "of an older application", "color": "red"}
        assert await browser.say(everything, session=around) == {"color": "red"}
        await browser.ask(put(user="alice"), session=around)
        assert around == {}
        (stored,) = at.server.attributes.values()
        assert stored.values == {"color": b'"red"'}
        assert await browser.say(everything, session=around) == {"user": "alice", "color": "red"}

        await browser.ask(put(cart=[]), session=around)
        assert around == {}
        await browser.ask(lambda session: [session.clear(), session.update(flash="bye")], session=around)
        assert around == {"flash": "bye"}


# --- when it is written, and when not


@in_virtual_time
async def test_an_exception_of_the_application_writes_nothing():
    def fail(session):
        session["color"] = "red"
        del session["user"]
        raise LookupError("a mistake")

    async with site() as at:
        browser = await logged_in(at)
        with at.commands(), pytest.raises(LookupError):
            await browser.ask(fail)
        assert await browser.say(everything) == {"user": "alice"}


@in_virtual_time
@pytest.mark.parametrize(("status", "said"), [(404, {"user": "alice", "color": "red"}), (500, {"user": "alice"})])
async def test_nor_does_what_a_framework_made_of_one(status, said):
    async def application(scope, receive, send):
        scope["session"]["color"] = "red"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    async with site() as at:
        browser = await logged_in(at)
        await browser.request(application)
        assert await browser.say(everything) == said


@in_virtual_time
async def test_one_within_another_does_nothing():
    async with site() as at:
        browser = await logged_in(at)
        with at.commands("revoke", "create", "exchange"):
            answer = await browser.request(SessionMiddleware(page(put(user="bob")), at.cache))
        assert len(answer.all("set-cookie")) == 1
        assert await browser.say(everything) == {"user": "bob"}


@in_virtual_time
async def test_everything_is_written_before_the_first_byte():
    async with site() as at:
        browser = await logged_in(at)
        gate = at.store.hold_requests(lambda call: call.name == "write_attributes")
        sent = []

        async def keep(message):
            sent.append(message)

        request = asyncio.ensure_future(
            SessionMiddleware(page(put(color="red")), at.cache)(browser.scope(), None, keep)
        )
        await gate.arrival()
        await settle()
        assert sent == []
        gate.open()
        await request
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


@in_virtual_time
@pytest.mark.parametrize("view", [put(color="red"), put(user="bob"), lambda session: session.clear()])
async def test_what_the_store_does_not_take_is_503_and_logs_nobody_out(view):
    async with site() as at:
        browser = await logged_in(at)
        at.store.wire.is_down = True
        answer = await browser.ask(view)
        assert (answer.status, answer.all("retry-after"), answer.all("set-cookie")) == (503, ["1"], [])
        at.store.wire.is_down = False
        assert await browser.say(everything) == {"user": "alice"}


@in_virtual_time
async def test_an_application_does_not_hear_of_the_503_that_takes_its_responses_place():
    """It has begun its response; what its handlers of errors had to say would be a second one."""
    heard = []

    async def application(scope, receive, send):
        scope["session"]["color"] = "red"
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"1", "more_body": True})
            await send({"type": "http.response.body", "body": b"2"})
        except Exception as error:
            heard.append(error)
        raise StoreUnavailable("of the application")

    async with site() as at:
        browser = await logged_in(at)
        at.store.wire.is_down = True
        sent = []

        async def keep(message):
            sent.append(message)

        with pytest.raises(StoreUnavailable, match="of the application"):
            await SessionMiddleware(application, at.cache)(browser.scope(), None, keep)
        assert heard == []
        start, body = sent
        assert (start["status"], (b"retry-after", b"1") in start["headers"]) == (503, True)
        assert "detail" in json.loads(body["body"])


@in_virtual_time
@pytest.mark.parametrize(("status", "is_recovered", "seen"), [(500, False, 503), (502, False, 502), (500, True, 500)])
async def test_what_a_framework_made_of_a_store_that_is_away_is_503(status, is_recovered, seen):
    async def application(scope, receive, send):
        at.store.wire.is_down = True
        with contextlib.suppress(StoreUnavailable):
            await login(scope, "bob")
        if is_recovered:
            at.store.wire.is_down = False
            await scope["session"].save()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with site() as at:
        answer = await at.browser().request(application)
        assert (answer.status, answer.all("retry-after")) == (seen, ["1"] if seen == 503 else [])


@in_virtual_time
async def test_a_new_ticket_gets_to_its_owner_even_if_the_store_goes_away_then():
    async with site() as at:
        browser = await logged_in(at)
        gate = at.store.hold_replies(lambda call: call.name == "rotate")

        async def go_away():
            await gate.arrival()
            at.store.wire.is_down = True
            gate.open()

        going = asyncio.ensure_future(go_away())
        assert (await browser.ask(lambda scope: rotate(scope))).status == 503
        await going
        at.store.wire.is_down = False
        assert await browser.say(everything) == {"user": "alice"}


@in_virtual_time
async def test_values_that_can_not_be_written_are_the_applications_error():
    async with site(attributes_bytes_max=100) as at:
        browser = await logged_in(at)
        with at.commands(), pytest.raises(BadAttribute, match="color"):
            await browser.ask(put(color=object()))
        with pytest.raises(AttributesTooLarge):
            await browser.ask(put(color="x" * 100))
        with at.commands(), pytest.raises(BadAttribute, match="color"):
            await at.browser().ask(put(user="bob", color=object()))
        assert await browser.say(everything) == {"user": "alice"}


@in_virtual_time
async def test_a_login_whose_attributes_can_not_be_written_leaves_no_session():
    async with site(attributes_bytes_max=100) as at:
        around = {"cart": "x" * 100}
        with pytest.raises(AttributesTooLarge):
            await at.browser().ask(put(user="alice"), session=around)
        assert (at.server.live, around) == ({}, {"cart": "x" * 100})


@in_virtual_time
async def test_a_login_too_large_can_be_handled():
    async def log_in(scope):
        try:
            await login(scope, "alice")
        except AttributesTooLarge:
            return [scope["user"].is_authenticated, dict(scope["session"])]

    async with site(attributes_bytes_max=100) as at:
        browser, around = at.browser(), {"cart": "x" * 100}
        answer = await browser.ask(log_in, session=around)
        assert (answer.said, answer.all("set-cookie"), at.server.live) == ([False, around], [], {})


@in_virtual_time
async def test_a_login_whose_attributes_the_store_does_not_take_leaves_no_session():
    async with site() as at:
        browser, around = at.browser(), {"cart": ["tea"]}
        gate = at.store.hold_requests(lambda call: call.name == "write_attributes")

        revoking = at.store.hold_requests(lambda call: call.name == "revoke")

        async def fail_until_the_logout():
            await gate.arrival()
            at.store.wire.is_down = True
            gate.open()
            await revoking.arrival()
            at.store.wire.is_down = False
            revoking.open()

        failing = asyncio.ensure_future(fail_until_the_logout())
        answer = await browser.ask(put(user="alice"), session=around)
        await failing
        assert (answer.status, answer.all("set-cookie")) == (503, [])
        assert (at.server.live, around) == ({}, {"cart": ["tea"]})


@in_virtual_time
async def test_a_session_that_ends_while_the_application_works_is_anonymous():
    async def be_logged_out(session):
        await at.cache.logout_everywhere("alice")
        session["color"] = "red"

    async with site() as at:
        browser = await logged_in(at)
        answer = await browser.ask(be_logged_out)
        assert (answer.status, answer.all("set-cookie")) == (200, [])
        assert await browser.say(everything) == {}


@in_virtual_time
async def test_a_login_that_ends_within_its_request_gives_no_cookie():
    async def log_in(scope):
        await login(scope, "alice")
        await at.cache.logout_everywhere("alice")
        scope["session"]["color"] = "red"

    async with site() as at:
        browser = at.browser()
        await browser.ask(log_in)
        assert browser.ticket is None


@in_virtual_time
async def test_the_session_ends_between_the_check_and_the_reading():
    server = ModelServer(virtual_ms)
    async with site(server, near_attributes_bytes=0) as here, site(server) as there:
        here.store.wire.is_deaf = True
        browser = await logged_in(here)
        await there.cache.logout_everywhere("alice")
        answer = await browser.ask(everything)
        assert (answer.said, answer.all("set-cookie")) == ({}, [])


@in_virtual_time
async def test_fields_that_the_application_has_set_are_kept():
    async def application(scope, receive, send):
        scope["session"]["user"] = "alice"
        fields = [[b"Vary", b"Accept, cookie"], [b"Cache-Control", b"private"], [b"Set-Cookie", b"a=1"]]
        await send({"type": "http.response.start", "status": 201, "headers": iter(fields)})
        await send({"type": "http.response.body"})

    async def bare(scope, receive, send):
        scope["session"].get("x")
        await send({"type": "http.response.start", "status": 204})

    async def varying(scope, receive, send):
        scope["session"].get("x")
        await send({"type": "http.response.start", "status": 204, "headers": [(b"vary", b"*")]})

    async with site() as at:
        browser = at.browser()
        answer = await browser.request(application)
        assert [name for name, _ in answer.fields] == ["Vary", "Cache-Control", "Set-Cookie", "set-cookie"]
        assert browser.ticket
        assert (await browser.request(bare)).fields == [("vary", "Cookie")]
        assert (await browser.request(varying)).fields == [("vary", "*")]


@in_virtual_time
async def test_what_is_set_while_a_response_streams_is_written_at_its_end():
    async def stream(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"]["seen"] = 1
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        await scope["session"].save()
        scope["session"]["seen"] = 2
        await send({"type": "http.response.body", "body": b"2"})

    async def log_in_late(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"]["user"] = "bob"

    async def rotate_late(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"].rotate()

    async with site() as at:
        browser = await logged_in(at)
        with at.commands("write_attributes", "write_attributes"):
            assert (await browser.request(stream)).body == b"12"
        assert await browser.say(lambda session: session["seen"]) == 2
        with pytest.raises(RuntimeError, match="too late for a login"):
            await browser.request(log_in_late)
        with at.commands(), pytest.raises(RuntimeError, match="too late for a login or rotation"):
            await browser.request(rotate_late)
        assert await at.cache.sessions("bob") == []


@in_virtual_time
async def test_an_outage_in_the_middle_of_a_response_is_an_error_of_the_connection():
    async def stream(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        at.store.wire.is_down = True
        scope["session"]["seen"] = 1

    async with site() as at:
        browser = await logged_in(at)
        with pytest.raises(StoreUnavailable):
            await browser.request(stream)


@in_virtual_time
async def test_a_login_says_no_more_of_the_client_than_fits():
    async with site() as at:
        agent = ("\x01" * 300 + '"ü' * 300).encode("latin-1")
        browser = at.browser()
        await browser.ask(put(user="alice"), headers=[(b"user-agent", agent)], client=None)
        (info,) = await at.cache.sessions("alice")
        assert info.details == {"user_agent": ("test/1 " + '"ü' * 100)[:200]}


@in_virtual_time
async def test_the_cookie_is_made_to_ones_wishes():
    async with site() as at:
        browser = at.browser(cookie=TicketCookie("sid", is_secure=False, domain_level=2))
        browser.host = b"a.shop.test"
        answer = await browser.request(page(put(user="alice")))
        assert answer.all("set-cookie")[-1].endswith("; Path=/; HttpOnly; SameSite=Lax; Domain=shop.test")
        assert list(browser.cookies) == ["sid"]


@in_virtual_time
async def test_nothing_of_a_ticket_is_shown():
    async with site() as at:
        browser = await logged_in(at)
        assert await browser.say(repr) == "<RequestSession: logged in>"
        assert await at.browser().say(repr) == "<RequestSession: anonymous>"


@in_virtual_time
async def test_the_cache_of_an_event_loop_is_not_for_threads():
    async with site() as at:
        visitor = Visitor(cookies=f"ticket={await at.cache.login('alice')}")
        with pytest.raises(RuntimeError, match=r"sync\.TicketCache"):
            at_once(WebSession(at.cache, TicketCookie(), visitor).admit())


def test_a_scope_without_the_middleware_says_so():
    with pytest.raises(RuntimeError, match="no fastticket"):
        session_of({"type": "http", "session": {}})


# --- P11, read your writes


SEEN = "ticket-seen"
CLEARED = "ticket=; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0"


@contextlib.asynccontextmanager
async def two_sites(*, is_deaf=True, **settings) -> AsyncIterator[tuple[Site, Site, Browser]]:
    """Two processes of one application, and somebody who is logged in and known to both."""
    async with site(**settings) as here, site(here.server, **settings) as there:
        for at in (here, there):
            at.store.wire.is_deaf = is_deaf
        browser = await logged_in(here)
        browser.site = there
        await browser.say(everything)
        browser.site = here
        yield here, there, browser


@in_virtual_time
async def test_p11_what_was_written_here_the_next_request_sees_there():
    async with two_sites() as (here, there, browser):
        for number in range(5):
            for browser.site in (here, there):
                await browser.ask(lambda session: session.setdefault("cart", []).append(0))
                browser.site = there if browser.site is here else here
                with browser.site.commands("read_attributes"):
                    cart = (await browser.say(everything))["cart"]
                with browser.site.commands():
                    assert await browser.say(everything) == {"user": "alice", "cart": cart}
            assert len(cart) == 2 * number + 2


@in_virtual_time
async def test_p11_it_is_a_cookie_beside_the_tickets_that_says_so():
    async with site(remember_lifetime_s=1000) as at:
        browser = await logged_in(at)
        assert set(browser.cookies) == {"ticket"}  # a session that nobody had before: nobody has a copy of it
        answer = await browser.ask(put(color="red"))
        version = at.server.attributes[session_id_of(at, browser)].version
        assert answer.all("set-cookie") == [f"{SEEN}={version[0]}-0; Path=/; HttpOnly; SameSite=Lax; Secure"]
        assert (answer.all("cache-control"), answer.all("vary")) == (["no-store"], ["Cookie"])
        for view in (everything, put(color="red"), lambda scope: "static"):
            assert (await browser.ask(view)).all("set-cookie") == []
        remembered = at.browser()
        await remembered.ask(lambda scope: login(scope, "bob", remember=True))
        (cookie,) = (await remembered.ask(put(color="red"))).all("set-cookie")
        assert cookie.endswith("; Secure; Max-Age=1000")


def session_id_of(at: Site, browser: Browser) -> str:
    return at.cache.check(browser.ticket).id


@in_virtual_time
@pytest.mark.parametrize("claim", ["999999-0", "rubbish", "1-0-0"])
async def test_p11_a_claim_that_the_store_does_not_bear_out_is_corrected(claim):
    async with two_sites() as (here, _, browser):
        await browser.ask(put(color="red"))
        honest = browser.cookies[SEEN]
        browser.cookies[SEEN] = claim
        with here.commands("read_attributes"):
            answer = await browser.ask(lambda scope: "static")
        assert browser.cookies[SEEN] == honest
        assert answer.all("cache-control") == ["no-store"]
        with here.commands():
            assert (await browser.ask(everything)).all("set-cookie") == []


@in_virtual_time
async def test_p11_what_nobody_has_written_takes_the_claim_away():
    async with site() as at:
        browser = await logged_in(at)
        browser.cookies[SEEN] = "7-0"
        (cookie,) = (await browser.ask(everything)).all("set-cookie")
        assert cookie == f"{SEEN}=; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0"


@in_virtual_time
async def test_p11_a_claim_of_another_session_ends_with_a_login_and_with_a_logout():
    async with two_sites() as (_, _, browser):
        await browser.ask(put(color="red"))
        await browser.ask(put(user="bob"))
        assert set(browser.cookies) == {"ticket"}
        await browser.ask(put(color="red"))
        assert set(browser.cookies) == {"ticket", SEEN}
        answer = await browser.ask(lambda scope: logout(scope))
        assert browser.cookies == {}
        assert [line.partition("=")[0] for line in answer.all("set-cookie")] == [SEEN, "ticket"]
        assert answer.all("cache-control") == ["no-store"]
        browser.cookies[SEEN] = "7-0"  # somebody else logged the visitor out: the gateway
        assert (await browser.ask(everything)).all("set-cookie") == []
        await browser.ask(put(user="alice"))
        assert set(browser.cookies) == {"ticket"}


@in_virtual_time
async def test_p11_of_several_claims_the_wrong_ones_are_cleared_or_they_would_cost_a_read_for_ever():
    """One of the host's own, say, and a planted one of the domain above it."""
    async with site() as at:
        browser = await logged_in(at)
        browser.host = b"a.shop.test"
        claims = [(b"cookie", f"{SEEN}=999999999999999-0; {SEEN}=7-0".encode())]
        answer = await browser.ask(everything, headers=claims)
        cleared = [line for line in answer.all("set-cookie") if line.endswith("Max-Age=0")]
        domains = [line.partition("Domain=")[2].partition(";")[0] for line in cleared if line.startswith(f"{SEEN}=;")]
        assert {"a.shop.test", "shop.test"} <= set(domains)


@in_virtual_time
async def test_p11_a_refused_ticket_takes_the_claim_along_but_for_one_that_may_have_been_replaced():
    async with two_sites() as (here, _, browser):
        await browser.ask(put(color="red"))
        mine = dict(browser.cookies)
        browser.cookies["ticket"] = "malformed"
        await browser.ask(everything)
        assert browser.cookies == {}
        browser.cookies = mine
        await here.cache.logout(browser.ticket)
        assert (await browser.ask(everything)).all("set-cookie") == []


@in_virtual_time
async def test_p11_it_outlives_a_rotation():
    async def change_and_rotate(scope):
        scope["session"]["color"] = "blue"
        await rotate(scope)
        scope["session"]["size"] = scope["session"]["color"]

    async with two_sites() as (here, there, browser):
        await browser.ask(put(color="red"))
        answer = await browser.ask(change_and_rotate)
        assert [line.partition("=")[0] for line in answer.all("set-cookie")] == [SEEN, "ticket"]
        for browser.site in (there, here):
            assert await browser.say(everything) == {"user": "alice", "color": "blue", "size": "blue"}
        await browser.ask(lambda scope: rotate(scope))
        for browser.site in (there, here, there):
            await browser.ask(lambda session: session.update(count=session.get("count", 0) + 1))
        assert (await browser.say(everything))["count"] == 3


@in_virtual_time
async def test_p11_it_is_told_whatever_the_response_is_once_it_was_written():
    async def save_and_fail(scope, receive, send):
        scope["session"]["color"] = "red"
        await scope["session"].save()
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def save_and_be_cut_off(scope, receive, send):
        scope["session"]["color"] = "blue"
        await scope["session"].save()
        here.store.wire.is_down = True
        scope["session"]["color"] = "green"
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async with two_sites() as (here, there, browser):
        for application, status, color in ((save_and_fail, 500, "red"), (save_and_be_cut_off, 503, "blue")):
            browser.site = here
            assert (await browser.request(application)).status == status
            browser.site = there
            assert (await browser.say(everything))["color"] == color


@in_virtual_time
@pytest.mark.parametrize("is_deaf", [True, False])
async def test_p11_what_is_written_after_the_response_has_begun_others_see_by_the_doorbell_or_within_the_lease(is_deaf):
    async def late(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"]["color"] = "red"
        await send({"type": "http.response.body", "body": b""})

    async with two_sites(is_deaf=is_deaf) as (_, there, browser):
        assert (await browser.request(late)).all("set-cookie") == []
        browser.site = there
        await settle()
        if is_deaf:
            assert "color" not in await browser.say(everything)
            await pass_ms(2000)
        assert (await browser.say(everything))["color"] == "red"


@in_virtual_time
async def test_p11_a_websocket_says_it_as_it_is_accepted():
    async def application(scope, receive, send):
        scope["session"]["color"] = "red"
        await send({"type": "websocket.accept"})
        await receive()

    async with two_sites() as (_, there, browser):
        sent = await talk(browser, application, DISCONNECT)
        fields = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
        browser._take_cookies(Answer(101, fields, b""))
        browser.site = there
        assert (await browser.say(everything))["color"] == "red"


@in_virtual_time
async def test_p11_requests_that_overlap_lose_nothing_and_their_answers_may_come_in_any_order():
    """The later answer may name the earlier version; so the next request may see that one alone,
    until the log is read.
    """
    async with two_sites(is_deaf=True) as (here, there, browser):
        other = there.browser()
        other.cookies = dict(browser.cookies)
        gate = there.store.hold_requests(lambda call: call.name == "write_attributes")
        writing = asyncio.create_task(other.ask(put(b=2)))
        await gate.arrival()
        await browser.ask(put(a=1))  # begins later, and is answered sooner
        first = browser.cookies[SEEN]
        gate.open()
        await writing
        assert other.cookies[SEEN] != first
        for seen, name, value in ((first, "a", 1), (other.cookies[SEEN], "b", 2)):
            browser.cookies[SEEN] = seen
            for browser.site in (there, here):
                assert (await browser.say(everything))[name] == value
        await pass_ms(2000)
        for browser.site in (there, here):
            assert await browser.say(everything) == {"user": "alice", "a": 1, "b": 2}


@in_virtual_time
@pytest.mark.parametrize("seed", range(40))
async def test_p11_a_visitor_finds_what_he_left_whatever_happens_between_his_requests(seed):
    """Some processes keep copies, some none; some hear the doorbell; the log is lost, sessions get
    other ids, claims are false.
    """
    rng = random.Random(seed)
    server = ModelServer(virtual_ms)
    async with contextlib.AsyncExitStack() as running:
        sites = [
            await running.enter_async_context(site(server, near_attributes_bytes=size))
            for size in (NEAR_BYTES, NEAR_BYTES, NEAR_BYTES, 0)
        ]
        for at in sites:
            at.store.wire.is_deaf = rng.random() < 0.8
        browser, cart = await logged_in(sites[0]), []
        for number in range(80):
            browser.site = rng.choice(sites)
            step = rng.choices(("add", "look", "rotate", "again", "wait", "gap", "lie"), (40, 30, 8, 2, 8, 4, 8))[0]
            if step == "add":
                await browser.ask(lambda session, item=number: session.setdefault("cart", []).append(item))
                cart.append(number)
            elif step == "rotate":
                await browser.ask(lambda scope: rotate(scope))
            elif step == "again":
                await browser.ask(put(user=rng.choice(["bob", None])))
                await browser.ask(put(user="alice"))
                cart = []
            elif step == "wait":
                await pass_ms(rng.choice([1, 100, 700]))
            elif step == "gap":
                server.lose_log(rng.randrange(server.shards))
            elif step == "lie":
                browser.cookies[SEEN] = rng.choice(["rubbish", f"{10 ** rng.randrange(3, 15)}-0"])
            said = await browser.say(everything)
            assert (said.get("user"), said.get("cart", [])) == ("alice", cart), (seed, number, step)


@in_virtual_time
async def test_p11_with_the_store_away_an_old_copy_is_no_answer():
    async with two_sites() as (_, there, browser):
        await browser.ask(put(color="red"))
        cookies = dict(browser.cookies)
        browser.site = there
        there.store.wire.is_down = True
        assert (await browser.ask(everything)).status == 503
        assert await browser.say(lambda session: session["user"]) == "alice"
        assert browser.cookies == cookies
        there.store.wire.is_down = False
        assert (await browser.say(everything))["color"] == "red"


# --- WebSockets


def conversation(view):
    """Accepts, calls the view, and ends when the client has left."""

    async def application(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        said = view(scope["session"])
        if inspect.isawaitable(said):
            await said
        assert (await receive())["type"] == "websocket.disconnect"

    return application


CONNECT, DISCONNECT = {"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}


async def talk(browser: Browser, application, *received, **scope):
    at = SessionMiddleware(application, browser.site.cache)
    return await run(at, browser.scope(kind="websocket", **scope), *(received or (CONNECT, DISCONNECT)))


@in_virtual_time
async def test_a_websocket_has_the_session_and_saves_it_at_its_end():
    async with site() as at:
        browser = await logged_in(at)
        with at.commands("write_attributes"):
            await talk(browser, conversation(put(color="red")))
        assert await browser.say(everything) == {"user": "alice", "color": "red"}

        seen = []
        await talk(at.browser(), conversation(lambda session: seen.append(dict(session))))
        assert seen == [{}]


@in_virtual_time
async def test_a_websocket_saves_when_it_is_asked_to_and_when_the_application_closes():
    async def application(scope, receive, send):
        scope["session"]["step"] = 1
        await send({"type": "websocket.accept"})
        steps.append(await step_of(browser))
        scope["session"]["step"] = 2
        await scope["session"].save()
        steps.append(await step_of(browser))
        scope["session"]["step"] = 3
        await send({"type": "websocket.close"})
        steps.append(await step_of(browser))

    async def step_of(browser):
        return await browser.say(lambda session: session["step"])

    steps = []
    async with site() as at:
        browser = await logged_in(at)
        await talk(browser, application)
        assert steps == [1, 2, 3]


@in_virtual_time
async def test_a_websocket_whose_application_fails_saves_nothing():
    def fail(session):
        session["color"] = "red"
        raise LookupError("a mistake")

    async with site() as at:
        browser = await logged_in(at)
        with at.commands(), pytest.raises(LookupError):
            await talk(browser, conversation(fail))


@in_virtual_time
async def test_what_a_websocket_left_is_saved_when_the_client_leaves_whatever_the_application_makes_of_that():
    async def application(scope, receive, send):
        scope["session"]["color"] = "red"
        await receive()
        raise ConnectionAbortedError("the client has left")

    async with site() as at:
        browser = await logged_in(at)
        with at.commands("write_attributes"), pytest.raises(ConnectionAbortedError):
            await talk(browser, application, DISCONNECT)


@in_virtual_time
async def test_a_login_in_a_websocket_comes_with_its_acceptance():
    async def application(scope, receive, send):
        await login(scope, "alice")
        await send({"type": "websocket.accept", "headers": [(b"x", b"1")]})

    async with site() as at:
        (accept,) = await talk(at.browser(), application)
        assert [name for name, _ in accept["headers"]] == [b"x", b"vary", b"set-cookie", b"cache-control"]
        with pytest.raises(RuntimeError, match="too late"):
            await talk(at.browser(), conversation(put(user="bob")))


@in_virtual_time
@pytest.mark.parametrize(
    "log_in", [lambda scope: scope["session"].update(user="alice"), lambda scope: login(scope, "alice")]
)
async def test_a_login_in_one_that_is_closed_is_none(log_in):
    async def application(scope, receive, send):
        done = log_in(scope)
        if done is not None:
            await done
        await send({"type": "websocket.close"})

    async with site() as at:
        with pytest.raises(RuntimeError, match="too late for a login"):
            await talk(at.browser(), application)
        assert at.server.live == {}


@in_virtual_time
async def test_a_websocket_is_closed_once():
    sent = []

    async def keep(message):
        sent.append(message)

    async def application(scope, receive, send):
        await send({"type": "websocket.close"})
        raise StoreUnavailable("of the application")

    async with site() as at:
        with pytest.raises(StoreUnavailable):
            await SessionMiddleware(application, at.cache)(at.browser().scope(kind="websocket"), None, keep)
        assert sent == [{"type": "websocket.close"}]


@in_virtual_time
async def test_a_websocket_whose_login_the_store_does_not_take_is_not_accepted():
    async with site() as at:
        browser = await logged_in(at)

        async def application(scope, receive, send):
            scope["session"]["color"] = "red"
            at.store.wire.is_down = True
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "hello"})
            assert (await receive())["type"] == "websocket.disconnect"

        assert await talk(browser, application, DISCONNECT) == [{"type": "websocket.close", "code": 1013}]


@in_virtual_time
async def test_a_websocket_whose_ticket_can_not_be_judged_is_503_or_try_again_later():
    async with site() as at:
        browser = at.browser()
        browser.cookies["ticket"] = await at.cache.login("alice")
        at.store.wire.is_down = True
        called = conversation(everything)
        assert await talk(browser, called) == [{"type": "websocket.close", "code": 1013}]
        start, body = await talk(browser, called, extensions={"websocket.http.response": {}})
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
        assert body["type"] == "websocket.http.response.body"


# --- lifespan


async def stand_by(scope, receive, send):
    """An application with a lifespan, and nothing to do in it."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await page(everything)(scope, receive, send)


def new_cache() -> tuple[TicketCache, ModelStore]:
    store = ModelStore(ModelServer(virtual_ms))
    return TicketCache(store, Keyring([KEY]), clock=virtual_ms), store


@in_virtual_time
async def test_the_cache_is_opened_when_the_application_starts_and_closed_when_it_stops():
    cache, store = new_cache()
    application = SessionMiddleware(stand_by, cache)
    sent = await run(application, {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert [call.name for call in store.calls].count("open") == 1
    assert (cache.was_opened, store.is_closed) == (True, True)


@in_virtual_time
async def test_a_cache_that_the_application_opened_is_left_to_it():
    cache, store = new_cache()

    async def owner(scope, receive, send):
        async with cache:
            await stand_by(scope, receive, send)
            assert not store.is_closed

    await run(SessionMiddleware(owner, cache), {"type": "lifespan"}, {"type": "lifespan.startup"}, {})
    assert [call.name for call in store.calls].count("open") == 1


@in_virtual_time
async def test_without_a_lifespan_the_first_request_opens_it():
    cache, store = new_cache()
    at = Site(store.server, cache, store)
    application = SessionMiddleware(page(everything), cache)
    for sent in await asyncio.gather(*(run(application, at.browser().scope()) for _ in range(3))):
        assert sent[0]["status"] == 200
    assert [call.name for call in store.calls].count("open") == 1
    await cache.aclose()


@in_virtual_time
async def test_a_start_without_the_store(caplog):
    """It starts; who has a ticket waits for the store, and nobody else."""
    cache, store = new_cache()
    store.wire.is_down = True
    at = Site(store.server, cache, store)
    with caplog.at_level(logging.WARNING):
        await run(SessionMiddleware(stand_by, cache), {"type": "lifespan"}, {"type": "lifespan.startup"}, {})
    assert "started without the store" in caplog.text
    assert not cache.was_opened
    browser = at.browser()
    assert (await browser.ask(everything)).status == 200
    browser.cookies["ticket"] = Keyring([KEY]).mint("alice", virtual_ms())
    assert (await browser.ask(everything)).status == 503
    assert browser.ticket


def visitor_with_a_ticket(at: Site) -> Browser:
    browser = at.browser()
    browser.cookies["ticket"] = Keyring([KEY]).mint("alice", virtual_ms())
    return browser


def opened(store: ModelStore) -> int:
    """How often the store was opened."""
    return [call.name for call in store.calls].count("open")


@in_virtual_time
async def test_a_store_that_hangs_is_waited_for_together_and_not_by_who_has_no_ticket():
    cache, store = new_cache()
    store.wire.is_silent = True
    at = Site(store.server, cache, store)
    application = SessionMiddleware(page(everything), cache)
    began_ms = virtual_ms()
    (start, _) = await run(application, at.browser().scope())
    assert (start["status"], virtual_ms() - began_ms) == (200, 0)

    scope = visitor_with_a_ticket(at).scope()
    for sent in await asyncio.gather(*(run(application, scope) for _ in range(8))):
        assert sent[0]["status"] == 503
    assert (virtual_ms() - began_ms, opened(store)) == (1000, 1)

    store.is_closed = False
    await pass_ms(999)
    began_ms = virtual_ms()
    assert (await run(application, scope))[0]["status"] == 503
    assert (virtual_ms() - began_ms, opened(store)) == (0, 1)

    store.wire.is_silent = False
    await pass_ms(1)
    assert (await run(application, scope))[0]["status"] == 200
    assert opened(store) == 2
    await cache.aclose()


@in_virtual_time
async def test_a_login_waits_for_the_store_to_be_opened():
    cache, store = new_cache()
    browser = Site(store.server, cache, store).browser()
    (start, _) = await run(SessionMiddleware(page(put(user="alice")), cache), browser.scope())
    assert (start["status"], len(store.server.live)) == (200, 1)
    await cache.aclose()


@in_virtual_time
async def test_a_stop_does_not_wait_for_a_store_that_hangs():
    cache, store = new_cache()
    at = Site(store.server, cache, store)
    gate = store.hold_requests(lambda call: call.name == "open")

    async def application(scope, receive, send):
        await run(middleware, at.browser().scope())
        await gate.arrival()
        await send({"type": "lifespan.shutdown.complete"})
        assert store.is_closed

    async def inside(scope, receive, send):
        await (application if scope["type"] == "lifespan" else page(everything))(scope, receive, send)

    middleware = SessionMiddleware(inside, cache)
    await run(middleware, {"type": "lifespan"})
    assert not cache.was_opened


@in_virtual_time
async def test_what_the_middleware_could_not_open_it_does_not_close():
    cache, store = new_cache()

    async def application(scope, receive, send):
        store.wire.is_down = True
        await send({"type": "lifespan.startup.complete"})
        store.wire.is_down = store.is_closed = False
        async with cache:
            await send({"type": "lifespan.shutdown.complete"})
            assert not store.is_closed

    await run(SessionMiddleware(application, cache), {"type": "lifespan"})


@in_virtual_time
async def test_a_second_lifespan_says_that_the_cache_is_closed():
    cache, _ = new_cache()
    application = SessionMiddleware(stand_by, cache)
    lifespan = {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    await run(application, *lifespan)
    with pytest.raises(RuntimeError, match="a closed one stays so: make it anew"):
        await run(application, *lifespan)


def test_another_event_loop_says_so():
    cache, store = new_cache()
    at = Site(store.server, cache, store)
    application = SessionMiddleware(page(everything), cache)
    log_in = SessionMiddleware(page(put(user="alice")), cache)
    in_virtual_time(lambda: run(log_in, at.browser().scope()))()
    in_virtual_time(lambda: run(application, at.browser().scope()))()

    async def come_back():
        with pytest.raises(RuntimeError, match="opened in another event loop"):
            await run(log_in, visitor_with_a_ticket(at).scope())
        with pytest.raises(RuntimeError, match="opened in another event loop"):
            await run(log_in, at.browser().scope())

    in_virtual_time(come_back)()


def test_another_event_loop_may_open_what_the_first_could_not():
    cache, store = new_cache()
    at = Site(store.server, cache, store)
    log_in = SessionMiddleware(page(put(user="alice")), cache)
    store.wire.is_down = True
    in_virtual_time(lambda: run(log_in, at.browser().scope()))()

    async def come_back():
        store.wire.is_down = store.is_closed = False
        assert (await run(log_in, at.browser().scope()))[0]["status"] == 200
        await cache.aclose()

    in_virtual_time(come_back)()


def test_a_cache_of_threads_is_none_of_asgi():
    with pytest.raises(TypeError, match=r"that of fastticket\.sync is for threads"):
        SessionMiddleware(stand_by, SyncTicketCache(ModelStore(ModelServer(virtual_ms)), Keyring([KEY])))


@in_virtual_time
async def test_what_is_neither_request_nor_lifespan_passes():
    cache, _ = new_cache()
    seen = []

    async def application(scope, receive, send):
        seen.append(scope)

    await run(SessionMiddleware(application, cache), {"type": "another"})
    assert seen == [{"type": "another"}]


# --- a session is a dictionary


def as_a_model_sees_it(session):
    return TypeAdapter(dict[str, Any]).validate_python(session, strict=True)


@in_virtual_time
@pytest.mark.parametrize("read", [json.dumps, as_a_model_sees_it, copy.copy, copy.deepcopy, everything])
async def test_a_session_is_a_dict_to_who_looks_whether_it_is_one(read):
    """JSONResponse(request.session), say, and a model of pydantic."""

    def said(session):
        assert isinstance(session, dict)
        found = read(session)
        return json.loads(found) if isinstance(found, str) else found

    async with site() as at:
        browser = at.browser()
        assert await browser.say(said) == {}
        await browser.ask(put(user="alice", cart=["tea"], n=1))
        wanted = {"user": "alice", "cart": ["tea"], "n": 1}
        assert await browser.say(said) == wanted

        def changed(session):
            session["cart"].append("milk")
            session["new"] = True
            del session["n"]
            return said(session)

        assert await browser.say(changed) == {"user": "alice", "cart": ["tea", "milk"], "new": True}
        assert await browser.say(lambda session: [session.logout(), said(session)][1]) == {}


@in_virtual_time
async def test_a_session_of_a_visitor_who_is_not_logged_in_is_a_dict_too():
    async with site() as at:
        browser = at.browser()
        place = {"a": 1}
        assert await browser.say(as_a_model_sees_it, session=place) == {"a": 1}
        assert (await browser.say(json_of, session=place)) == {"a": 1}

        def login_and_see(session):
            session["user"] = "alice"
            return as_a_model_sees_it(session)

        assert await browser.say(login_and_see, session=place) == {"user": "alice", "a": 1}
        assert await browser.say(as_a_model_sees_it, session={}) == {"user": "alice", "a": 1}


def json_of(session):
    return json.loads(json.dumps(session))


@in_virtual_time
async def test_sessions_are_merged_as_dicts_are():
    async with site() as at:
        browser = at.browser()
        await browser.ask(put(user="alice", a=1))

        def merged(session):
            before, after = session | {"a": 2}, {"a": 3, "b": 3} | session
            session |= {"c": 4}
            return [type(before).__name__, before, after, list(reversed(session)), session == {**session}]

        said = ["dict", {"user": "alice", "a": 2}, {"user": "alice", "a": 1, "b": 3}, ["c", "a", "user"], True]
        assert await browser.say(merged) == said
        assert await browser.say(everything) == {"user": "alice", "a": 1, "c": 4}
        assert await browser.say(lambda session: session != {"user": "alice", "a": 1, "c": 4}) is False
        with pytest.raises(TypeError):
            await browser.ask(lambda session: session | 1)


@in_virtual_time
async def test_what_logs_in_comes_first_however_it_is_merged():
    async with site() as at:
        browser = at.browser()
        await browser.ask(put(user="alice", old=1))
        await browser.ask(lambda session: session.update({"new": 2, "user": "bob"}))
        assert await browser.say(everything) == {"user": "bob", "new": 2}


@in_virtual_time
async def test_to_take_items_out_one_by_one_logs_nobody_out():
    async with site() as at:
        browser = at.browser()
        await browser.ask(put(user="alice", a=1, b=2))

        def emptied(session):
            taken = [session.popitem(), session.popitem()]
            with pytest.raises(KeyError):
                session.popitem()
            return taken

        assert await browser.say(emptied) == [["b", 2], ["a", 1]]
        assert await browser.say(everything) == {"user": "alice"}


@in_virtual_time
async def test_who_reads_a_dict_past_its_methods_does_not_find_it_empty():
    """As orjson does; it says that it cannot serialize this."""
    items = ctypes.pythonapi.PyDict_Items
    items.argtypes, items.restype = [ctypes.py_object], ctypes.py_object
    async with site() as at:
        assert await at.browser().say(lambda session: [type(value).__name__ for _, value in items(session)]) == [
            "NotByItsMethods"
        ]


@in_virtual_time
async def test_what_an_integration_keeps_for_itself_is_not_shown():
    async with site() as at:
        browser = await logged_in(at)
        session = await at.cache.authenticate(browser.ticket)
        async with at.cache.attributes(session) as attributes:
            attributes.update({"_fastticket.django": {"hash": "secret"}, "a": 1})
        for read in (everything, json_of):
            assert await browser.say(read) == {"user": "alice", "a": 1}


# --- who can log in


@in_virtual_time
@pytest.mark.parametrize(
    ("principal", "why"),
    [
        ("", "is empty"),
        ("文" * 64, "has 192 bytes in 64 characters"),
        ("a" * 191, "has 191 bytes"),
        (" alice", "has outer spaces"),
        ("alice ", "has outer spaces"),
        ("a\nb", "has what is no character"),
    ],
)
async def test_who_can_not_log_in_is_told_at_once_and_the_session_goes_on(principal, why):
    async with site() as at:
        browser = await logged_in(at)

        def log_in(session):
            for attempt in (lambda: session.login(principal), lambda: session.update(user=principal)):
                with pytest.raises(InvalidPrincipal, match=f"1 to 190 bytes.*{why}"):
                    attempt()
            return session["user"]

        assert await browser.say(log_in) == "alice"
        assert await browser.say(everything) == {"user": "alice"}
