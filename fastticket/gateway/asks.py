"""Answers what the data plane asks: whose session a ticket is, whether a path is exempt, which
fields clear the cookies of several tickets, whether the session of a stream or tunnel is still
alive, and the changes that applications ask for (login, logout, rotation).

Each ask is answered in a task of its own, for the handle that it came with. If its client has gone
meanwhile, the data plane ignores the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from fastticket import spans
from fastticket.dataplane.asks import Ask, AskKind, Where
from fastticket.dataplane.proxy import Proxy
from fastticket.errors import (
    FastticketError,
    InvalidPrincipal,
    OldStoreUnavailable,
    StoreUnavailable,
    TicketRefused,
    TooManySessions,
    Verdict,
)
from fastticket.gateway.exemption import Exemption
from fastticket.gateway.passes import Passes
from fastticket.gateway.settings import Config, RouteSettings
from fastticket.sessions.ticketcache import Consistency, TicketCache

if TYPE_CHECKING:
    from fastticket.gateway.migration.exchange import Exchange

log = logging.getLogger("fastticket.gateway")

LOOKUPS_PER_TURN = 32  # begun in one turn of the loop: about a millisecond of work
CHANGES_PER_TURN = 8
NOT_CACHED = b"Cache-Control: no-store\r\n"
#: The asks that change a session.
CHANGES = frozenset(
    (
        *(AskKind.LOGIN, AskKind.LOGIN_REMEMBERED, AskKind.LOGOUT),
        *(AskKind.LOGOUT_EVERYWHERE, AskKind.ROTATE, AskKind.SUPERSEDED),
    )
)
#: The asks about a request's ticket, and how closely the store is followed.
CONSISTENCY: dict[AskKind, Consistency | Literal["latest"]] = {
    AskKind.AUTHENTICATE: "near",
    AskKind.AUTHENTICATE_STRONG: "strong",
    AskKind.AUTHENTICATE_LATEST: "latest",
}


#: What a trace calls the asks that may take the store's time.
SPANS: dict[AskKind, str] = {
    **dict.fromkeys(CONSISTENCY, "load"),
    AskKind.EXCHANGE: "exchange",
    AskKind.LOGIN: "login",
    AskKind.LOGIN_REMEMBERED: "login",
    AskKind.LOGOUT: "logout",
    AskKind.LOGOUT_EVERYWHERE: "logout everywhere",
    AskKind.ROTATE: "rotate",
}


class AskQueue:
    """The asks that no task works on yet: at most one for each connection.

    Changes of sessions wait behind everything else, so that a storm of logins delays nobody who is
    logged in.
    """

    def __init__(self) -> None:
        self._lookups: deque[Ask] = deque()
        self._changes: deque[Ask] = deque()

    def __bool__(self) -> bool:
        return bool(self._lookups or self._changes)

    def add(self, asks: Iterable[Ask]) -> bool:
        """Add asks. Returns whether the queue was empty and is not any more."""
        had_some = bool(self)
        for ask in asks:
            (self._changes if ask.kind in CHANGES else self._lookups).append(ask)
        return bool(self) and not had_some

    def take(self) -> list[Ask]:
        """The asks to begin with in this turn of the loop."""
        taken = [self._lookups.popleft() for _ in range(min(len(self._lookups), LOOKUPS_PER_TURN))]
        return taken + [self._changes.popleft() for _ in range(min(len(self._changes), CHANGES_PER_TURN))]


class Answers:
    """The answers for one data plane. `routes`: in the order of the numbers that it gave them."""

    def __init__(
        self,
        proxy: Proxy,
        cache: TicketCache,
        config: Config,
        routes: Sequence[RouteSettings],
        exchange: Exchange | None = None,
        passes: Passes | None = None,
    ) -> None:
        self.session_changes: Counter[str] = Counter()  #: done, by what the application asked for
        self._proxy = proxy
        self._cache = cache
        self._config = config
        self._cookie = config.ticket_cookie()
        self._passes = passes
        self._exemptions = [Exemption(route.exempt) if route.exempt else None for route in routes]
        self._are_strong = [route.consistency == "strong" for route in routes]
        self._ticket_formats = [config.upstream_of(route).linkis_ticket for route in routes]
        self._exchange = exchange
        self._queue = AskQueue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_warned_about_http = False

    def begin_new(self) -> None:
        """Begin to answer what was asked since the last call."""
        if self._queue.add(self._proxy.asks()):
            asyncio.get_running_loop().call_soon(self._begin)

    async def finish(self) -> None:
        """Wait for the answers that have begun."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self) -> None:
        """Begin some answers in this turn of the loop, more in the next: between them the data
        plane serves requests that need no answer.
        """
        for ask in self._queue.take():
            task = asyncio.get_running_loop().create_task(self._answer(ask))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._queue:
            asyncio.get_running_loop().call_soon(self._begin)

    async def _answer(self, ask: Ask) -> None:
        if ask.kind in SPANS:
            with spans.span(SPANS[ask.kind], ask.trace):
                await self._answer_it(ask)
        else:
            await self._answer_it(ask)
        self.begin_new()  # the connection may have gone on to its next request

    async def _answer_it(self, ask: Ask) -> None:
        if ask.kind in CONSISTENCY:
            await self._authenticate(ask, CONSISTENCY[ask.kind])
        elif ask.kind == AskKind.TOKEN:
            self._judge_token(ask)
        elif ask.kind == AskKind.EXEMPTION:
            self._proxy.exempt(ask.handle, self._is_exempt(ask.route, ask.path))
        elif ask.kind == AskKind.SEVERAL:
            self._doubt(ask)
        elif ask.kind == AskKind.EXCHANGE:
            await self._exchange_cookie(ask)
        elif ask.kind == AskKind.MINT:
            await self._mint(ask)
        elif ask.kind == AskKind.STILL_ALIVE:
            self._proxy.vouch(ask.handle, await self._is_alive(ask))
        elif ask.kind in (AskKind.LOGIN, AskKind.LOGIN_REMEMBERED):
            await self._change_session(ask, self._log_in(ask))
        elif ask.kind == AskKind.LOGOUT:
            await self._change_session(ask, self._log_out(ask))
        elif ask.kind == AskKind.LOGOUT_EVERYWHERE:
            await self._change_session(ask, self._log_out_everywhere(ask))
        elif ask.kind == AskKind.ROTATE:
            await self._change_session(ask, self._rotate(ask))
        elif ask.kind == AskKind.SUPERSEDED:
            await self._change_session(ask, self._end_superseded(ask))

    # --- tickets and paths

    async def _authenticate(self, ask: Ask, consistency: Consistency | Literal["latest"]) -> None:
        if (is_good := self._judge_pass(ask)) is not None:
            if is_good:
                self._proxy.admit(ask.handle)
            else:
                self._proxy.refuse(ask.handle, Verdict.BAD_TOKEN)
            return
        try:
            if consistency == "latest":
                await self._authenticate_latest(ask)
            else:
                await self._cache.authenticate(ask.tickets, touch=ask.is_use, consistency=consistency)
        except TicketRefused as refused:
            spans.note("refused", refused.reason)
            self._proxy.refuse(ask.handle, refused.verdict)
        except StoreUnavailable:
            spans.note("refused", StoreUnavailable.reason)
            self._proxy.refuse(ask.handle, Verdict.STORE_UNAVAILABLE)
        except Exception:
            spans.note("refused", StoreUnavailable.reason)
            log.exception("a session could not be loaded")
            self._proxy.refuse(ask.handle, Verdict.STORE_UNAVAILABLE)
        else:
            if self._exchange and ask.cookies and await self._is_somebody_else(ask):
                self._proxy.refuse(ask.handle, Verdict.REVOKED)  # and then the cookie is exchanged
            else:
                self._proxy.admit(ask.handle)

    async def _is_somebody_else(self, ask: Ask) -> bool:
        """Whether a good ticket came with a cookie of another user's session at another system,
        which that has set without us. Then our session is over: the client is who it is there.
        """
        assert self._exchange  # noqa: S101 -- for mypy
        cookies = ask.cookies.decode("latin-1")
        try:
            self._exchange.note(ask.tickets, cookies)
            if not await self._exchange.other_user(ask.tickets, cookies):
                return False
            await self._end_sessions(ask)
        except Exception as error:
            if not isinstance(error, FastticketError):
                log.exception("another system's cookie could not be compared")
            return False
        return True

    async def _authenticate_latest(self, ask: Ask) -> None:
        """For a request that asks when its session ends: other gateways may have moved the
        deadline. Without the store, as this gateway knows it.
        """
        try:
            await self._cache.authenticate(ask.tickets, touch=ask.is_use, consistency="strong")
        except StoreUnavailable:
            await self._cache.authenticate(ask.tickets, touch=ask.is_use)

    async def _is_alive(self, ask: Ask) -> bool:
        """Whether a stream or tunnel goes on: for as long as a request would be admitted."""
        if (is_good := self._judge_pass(ask)) is not None:
            return is_good
        try:
            await self._cache.authenticate(ask.tickets, touch=ask.is_use)
        except FastticketError:
            return False
        except Exception:
            log.exception("a session could not be looked up again")
            return False
        return True

    def _judge_token(self, ask: Ask) -> None:
        assert self._passes  # noqa: S101 -- no plane asks without them
        made = self._passes.admit(ask.cookies, ask.principal, ask.details.get("address", ""), ask.path)
        if made:
            self._proxy.exchanged(ask.handle, made, b"")
        else:
            self._proxy.refuse(ask.handle, Verdict.BAD_TOKEN)

    def _judge_pass(self, ask: Ask) -> bool | None:
        """Whether a request may go on that a token has admitted; None: no token has."""
        return self._passes.judge(ask.tickets) if self._passes else None

    def _is_exempt(self, route: int, path: bytes) -> bool:
        exemption = self._exemptions[route]
        return exemption is not None and exemption.covers(path)

    async def _exchange_cookie(self, ask: Ask) -> None:
        """The client has no good ticket, and the cookie of another system. Its response sets the
        ticket's cookie beside that.
        """
        assert self._exchange  # noqa: S101 -- for mypy
        is_strong = self._are_strong[ask.route]
        try:
            ticket = await self._exchange.ticket_for(ask.cookies.decode("latin-1"), is_strong=is_strong)
            if isinstance(ticket, str):
                consistency: Consistency = "strong" if is_strong else "near"
                await self._cache.authenticate(ticket, touch=ask.is_use, consistency=consistency)
        except TicketRefused as refused:
            ticket = refused.verdict
        except StoreUnavailable as error:
            ticket = _away(error)
        except Exception:
            log.exception("another system's cookie could not be exchanged")
            ticket = Verdict.STORE_UNAVAILABLE
        if isinstance(ticket, Verdict):
            self._proxy.refuse(ask.handle, ticket)
        else:
            values = self._cookie.set(ticket, ask.where.host, is_https=ask.where.is_https)
            self._proxy.exchanged(ask.handle, ticket, _set_cookies(values))

    async def _mint(self, ask: Ask) -> None:
        """The upstream reads its user from another system's ticket: the session gets one."""
        assert self._exchange  # noqa: S101 -- for mypy
        try:
            kind = self._ticket_formats[ask.route] or "des"
            made_for = self._passes.read(ask.tickets) if self._passes else None
            if self._passes and made_for:
                ticket = await self._exchange.mint_for_token(made_for, kind, self._passes.renew)
            else:
                ticket = await self._exchange.mint(ask.tickets, kind)
        except StoreUnavailable as error:
            self._proxy.refuse(ask.handle, _away(error))
        except Exception:
            log.exception("a ticket for an upstream could not be made")
            self._proxy.refuse(ask.handle, Verdict.STORE_UNAVAILABLE)
        else:
            self._proxy.minted(ask.handle, ticket.encode("ascii"))

    def _doubt(self, ask: Ask) -> None:
        """The client came with several tickets, and none is believed. The response clears their
        cookies; a login or logout will end the sessions of all of them.
        """
        tickets = [ticket for ticket in self._cookie.find_all(ask.cookies.decode("latin-1")) if " " not in ticket]
        values = self._cookie.clear(
            ask.where.host, is_https=ask.where.is_https, asked_path=ask.path.decode("latin-1") or "/"
        )
        self._proxy.doubt(ask.handle, _set_cookies(values), " ".join(tickets).encode("latin-1"))

    # --- changes of sessions

    async def _change_session(self, ask: Ask, change: Coroutine[None, None, bytes]) -> None:
        """Make a change, and only then let the response go on: one that says "logged out" must be
        true.

        `change` returns the field lines to add to the response.
        """
        try:
            self._proxy.relay(ask.handle, await change)
        except TicketRefused:  # the session has ended already
            self._proxy.relay(ask.handle, self._clear(ask.where))
        except TooManySessions as error:  # the user can end another one
            self._proxy.fail(ask.handle, error.status, error.reason)
        except FastticketError as error:
            spans.note("refused", error.reason)
            log.error("a session could not be changed: %s", error)
            self._proxy.fail(ask.handle, error.status, error.reason)
        except Exception:
            log.exception("a session could not be changed")
            self._proxy.fail(ask.handle, StoreUnavailable.status, StoreUnavailable.reason)

    async def _log_in(self, ask: Ask) -> bytes:
        """Every login makes a new session; the sessions that the client came with end, against
        session fixation.
        """
        try:
            principal = ask.principal.decode()
        except UnicodeDecodeError:
            raise InvalidPrincipal("the application named a principal that is not UTF-8") from None
        remember = ask.kind == AskKind.LOGIN_REMEMBERED
        ticket = await self._cache.login(
            principal,
            remember=remember,
            details=ask.details,
            suits=lambda ticket: self._proxy.upstreams.suits(ask.server, ticket),
        )
        await self._end_sessions(ask)
        await self._end_brought(ask, principal)
        self.session_changes["login"] += 1
        self._warn_about_http(ask.where)
        return self._set(ticket, ask.where, self._config.ticket.remember_lifetime_s if remember else None)

    async def _log_out(self, ask: Ask) -> bytes:
        await self._end_sessions(ask)
        await self._end_brought(ask)
        self.session_changes["logout"] += 1
        return self._clear(ask.where)

    async def _log_out_everywhere(self, ask: Ask) -> bytes:
        for ticket in ask.tickets.split():
            with contextlib.suppress(TicketRefused):
                principal = (await self._cache.authenticate(ticket, touch=False)).principal
                await self._cache.logout_everywhere(principal)
        await self._end_brought(ask)
        self.session_changes["logout_everywhere"] += 1
        return self._clear(ask.where)

    async def _rotate(self, ask: Ask) -> bytes:
        try:
            ticket = await self._cache.rotate(
                ask.tickets, suits=lambda ticket: self._proxy.upstreams.suits(ask.server, ticket)
            )
        except TicketRefused:  # another request may have rotated it: the cookie of its response stays
            return b""
        self.session_changes["rotation"] += 1
        self._proxy.readmit(ask.handle, ticket)
        return self._set(ticket, ask.where, self._cache.remembered_s(ticket))

    async def _end_superseded(self, ask: Ask) -> bytes:
        """The upstream sets another system's cookie: if the client is somebody else there now, or
        nobody, the session here is over.
        """
        words = (ask.cookies.decode("latin-1"), ask.principal.decode("latin-1"))
        is_over = self._exchange and await self._exchange.superseded(ask.tickets, *words)
        if not is_over:
            return b""
        await self._end_sessions(ask)
        return self._clear(ask.where)

    async def _end_sessions(self, ask: Ask) -> None:
        """End the sessions of a request's tickets: none, one, or several, and what they were at
        another system. Some may have ended already.
        """
        for ticket in ask.tickets.split():
            with contextlib.suppress(TicketRefused):
                await self._cache.logout(ticket)
            if self._exchange:
                await self._exchange.end(ticket, ask.cookies.decode("latin-1"))

    async def _end_brought(self, ask: Ask, principal: str = "") -> None:
        """End at another system what a client that logs in or out has brought of it."""
        if self._exchange and ask.cookies:
            await self._exchange.end_brought(ask.cookies.decode("latin-1"), but_of=principal)

    # --- cookies

    def _set(self, ticket: str, where: Where, max_age_s: int | None) -> bytes:
        """The field lines that give the client its ticket, and keep the response out of caches."""
        return (
            _set_cookies(self._cookie.set(ticket, where.host, is_https=where.is_https, max_age_s=max_age_s))
            + NOT_CACHED
        )

    def _clear(self, where: Where) -> bytes:
        """The field lines that take the ticket from the client."""
        return _set_cookies(self._cookie.clear(where.host, is_https=where.is_https)) + NOT_CACHED

    def _warn_about_http(self, where: Where) -> None:
        """Log once that the cookie of a login over plain http is Secure: browsers drop it."""
        if self._has_warned_about_http or where.is_https or not self._cookie.is_guessed_secure:
            return
        if self._cookie.is_secure(where.host, is_https=False):
            self._has_warned_about_http = True
            log.warning(
                "a login on %s came by http, as far as trusted_proxies say, and its cookie is Secure: browsers drop it unless https "
                "ends before this gateway. [ticket] cookie_secure = true if it does, false if there is none",
                where.host or "a host without a name",
            )


def _away(error: StoreUnavailable) -> Verdict:
    """Which store does not answer."""
    is_old = isinstance(error, OldStoreUnavailable)
    return Verdict.OLD_STORE_UNAVAILABLE if is_old else Verdict.STORE_UNAVAILABLE


def _set_cookies(values: Iterable[str]) -> bytes:
    """Set-Cookie field lines."""
    return "".join(f"Set-Cookie: {value}\r\n" for value in values).encode()
