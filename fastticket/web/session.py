"""One visitor's session for the length of a request, whichever framework asks: a mapping, and what
becomes of it at the end.

    Visitor     what is known of the request: its cookies, its host, from where, by what
    WebSession  the mapping; who is logged in is one entry of it, `principal_key`
    at_once     runs its coroutines to their end where the cache is that of threads, so that nothing in them waits

Rules of this file
- The application's reads and writes are memory alone. `admit` comes before them, `carry_out` after:
  before the response's first byte.
- What is changed of a session is written, nothing else. What an anonymous visitor leaves is never
  the store's.
- A value that can not be written, or has no place to be kept in, is found before anything is done,
  but for a logout.
- A login that fails is not tried again: the visitor is anonymous, and no session is left of it. A
  logout that fails is tried again.
- A session that ends while the application works leaves the visitor anonymous, and is no error.
- What a request has written the next one must see, in whichever process (fastticket/web/seen.py):
  the response says which version it is.
- The cookie of a revoked ticket stays: a rotation may have revoked it, whose response has brought
  another ticket by now.
- It is a `dict`, for whoever looks whether it is one (json, pydantic), and all of its methods are
  here. What the `dict` itself holds is one thing that nobody can make use of: who reads it past the
  methods (orjson) is to fail, and not to find an empty session.
- Who comes with several tickets is anonymous, and leaves with none; a logout or another login ends
  the sessions of all of them.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Coroutine, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar, cast

from fastticket import sync
from fastticket.core.check import Session
from fastticket.core.ticket import check_principal
from fastticket.errors import FastticketError, NotLoggedIn, StoreUnavailable, TicketRefused, Verdict
from fastticket.sessions import attributes as asynchronous
from fastticket.sessions.attributes import RESERVED, AttributeChanges
from fastticket.sessions.ticketcache import TicketCache
from fastticket.stores.contract import NEVER_WRITTEN, StoredAttributes
from fastticket.web.cookies import TicketCookie
from fastticket.web.seen import SeenVersion

USER_AGENT_CHARACTERS_MAX = 200  # of what a login records
RETRY_AFTER_S = 1
UNAVAILABLE_STATUS = StoreUnavailable.status
UNAVAILABLE_BODY = b'{"detail":"sessions are unavailable; try again"}'
UNAVAILABLE_FIELDS = (
    ("Content-Type", "application/json"),
    ("Content-Length", str(len(UNAVAILABLE_BODY))),
    ("Retry-After", str(RETRY_AFTER_S)),
    ("Cache-Control", "no-store"),
)

NOTHING_STORED = StoredAttributes(NEVER_WRITTEN, {})

T = TypeVar("T")


class Visitor(NamedTuple):
    """What is known of a request; empty where nothing is. `cookies`, `host`, `user_agent`: the
    values of those fields.

    `path`: as it came, or decoded.
    """

    cookies: str = ""
    host: str = ""
    address: str = ""
    user_agent: str = ""
    is_https: bool = False
    path: str = "/"

    @property
    def details(self) -> dict[str, str]:
        """What a login records."""
        agent = "".join(character for character in self.user_agent if character.isprintable())
        said = {"address": self.address, "user_agent": agent[:USER_AGENT_CHARACTERS_MAX]}
        return {name: value for name, value in said.items() if value}


if TYPE_CHECKING:
    _Mapping = MutableMapping[str, Any]
else:

    class _Mapping(MutableMapping, dict):
        """Its methods are a MutableMapping's."""


class NotByItsMethods:
    """What is found in a session by who reads a `dict` past its methods: give him `dict(session)`."""


class WebSession(_Mapping):
    """A visitor's session as the application sees it: attributes by name, and under `principal_key`
    who is logged in.

    Setting that entry logs in; deleting it, or setting None, logs out: at the end of the request.
    `anonymous`: where the framework keeps what a visitor without a session leaves; None: nowhere,
    and leaving something is NotLoggedIn.
    """

    def __init__(
        self,
        cache: TicketCache | sync.TicketCache,
        cookie: TicketCookie,
        visitor: Visitor,
        principal_key: str = "user",
        anonymous: MutableMapping[str, Any] | None = None,
    ) -> None:
        self._cache = cache
        self._cookie = cookie
        self._visitor = visitor
        self._principal_key = principal_key
        self._has_place = anonymous is not None
        self._place: MutableMapping[str, Any] = {} if anonymous is None else anonymous
        tickets = cookie.find_all(visitor.cookies) if visitor.cookies else []
        self._ticket = tickets[0] if len(tickets) == 1 else ""
        self._seen = SeenVersion(cookie.find_seen(visitor.cookies))
        self._session: Session | None = None
        self._attributes: asynchronous.Attributes | sync.Attributes | None = None
        self._unreadable: StoreUnavailable | None = None
        self._principal: str | None = None
        self._newcomer: str | None = None  # to be logged in
        self._doubtful = tickets if len(tickets) > 1 else []  # nobody knows which of them is meant
        self._doubted_path = visitor.path if self._doubtful else ""
        self._outgoing: list[str] = []  # the tickets to be logged out
        self._remembers = self._rotates = False
        self._set_cookies: list[str] = []
        self._may_be_replaced = (
            False  # the ticket that came, by another request: its cookie stays unless somebody logs out
        )
        self._is_looked_at = self._has_answered = False
        dict.__setitem__(cast("dict[str, Any]", self), "by its methods", NotByItsMethods())
        if self._doubtful:
            self._clear_cookies()

    # --- what the application does

    @property
    def principal(self) -> str | None:
        """Who is logged in, or will be at the end of the request. None: nobody."""
        self._is_looked_at = True
        return self._principal

    @property
    def session(self) -> Session | None:
        """The session of the ticket. None: there is none, or not yet."""
        self._is_looked_at = True
        return self._session

    def login(self, principal: str, *, remember: bool = False) -> None:
        """Begin a new session. `remember`: its cookie outlives the browser. One that there was
        ends, with all that was in it.

        InvalidPrincipal: nobody can log in under this name. TypeError: it is no text.
        """
        if not isinstance(principal, str):
            kind = type(principal).__name__
            raise TypeError(
                f"session[{self._principal_key!r}] is who is logged in: a str, not {kind}; `principal_key` names another entry"
            )
        check_principal(principal)
        if self._principal is not None:
            self.logout()
        self._outgoing, self._doubtful = self._outgoing + self._doubtful, []
        self._is_looked_at = True
        self._principal = self._newcomer = principal
        self._remembers = remember

    def logout(self) -> None:
        """End the session, if there is one, and forget all that was in it."""
        self._is_looked_at = True
        if self._session is not None:
            self._outgoing = [self._ticket]
        elif self._may_be_replaced:
            self._clear_cookies()
        self._outgoing, self._doubtful = self._outgoing + self._doubtful, []
        self._become_anonymous()
        self._place.clear()  # what was brought to a login that is not carried out yet goes with it

    def rotate(self) -> None:
        """Go on under another ticket. NotLoggedIn."""
        if self.principal is None:
            raise NotLoggedIn("rotate: nobody is logged in, so there is no ticket to replace")
        self._rotates = self._newcomer is None

    def __getitem__(self, name: str) -> Any:
        if name == self._principal_key:
            if self.principal is None:
                raise KeyError(name)
            return self._principal
        return self._readable()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name != self._principal_key:
            self._writable()[name] = value
        elif value is None and self._doubtful:
            self.logout()
        elif value == self.principal:
            return
        elif value is None:
            self.logout()
        else:
            self.login(value)

    def __delitem__(self, name: str) -> None:
        if name != self._principal_key:
            del self._readable()[name]
        elif self.principal is None:
            raise KeyError(name)
        else:
            self.logout()

    def __contains__(self, name: object) -> bool:
        return self.principal is not None if name == self._principal_key else name in self._readable()

    def __iter__(self) -> Iterator[str]:
        names = [name for name in self._readable() if self._is_shown(name)]
        return iter(names if self._principal is None else [self._principal_key, *names])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def pop(self, name: str, *default: Any) -> Any:
        """As a mapping's; of the principal it is how many an application logs out, also whoever
        came with several tickets.
        """
        if name == self._principal_key and self._doubtful:
            self.logout()
        return super().pop(name, *default)

    def clear(self) -> None:
        """Log out, and forget everything."""
        self.logout()

    def update(self, *others: Any, **named: Any) -> None:
        """As of a dictionary. If it logs somebody in, the rest is the new session's, whatever comes
        first.
        """
        values: dict[str, Any] = dict(*others, **named)
        if self._principal_key in values:
            self[self._principal_key] = values.pop(self._principal_key)
        for name, value in values.items():
            self[name] = value

    def popitem(self) -> tuple[str, Any]:
        """Take out what was put in last. Never who is logged in. KeyError: there is nothing else."""
        names = [name for name in self if name != self._principal_key]
        if not names:
            raise KeyError("popitem(): there are no attributes in the session")
        return names[-1], self.pop(names[-1])

    def copy(self) -> dict[str, Any]:
        """All of it, as a plain dictionary."""
        return dict(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(dict(self), memo)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self))

    def __or__(self, other: Any) -> dict[str, Any]:
        return dict(self) | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[str, Any]:
        return dict(other) | dict(self) if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {'anonymous' if self._principal is None else 'logged in'}>"

    # --- what the integration does

    @property
    def is_admitted(self) -> bool:
        """Whether there is a session. To ask is no look at it, of which `Vary` would tell."""
        return self._session is not None

    async def admit(self) -> None:
        """Judge the ticket that came. StoreUnavailable: it can not be judged, and the visitor is
        not anonymous for that.
        """
        if not self._ticket:
            return
        try:
            await self._enter(self._ticket)
        except TicketRefused as refused:
            self._end(refused.verdict)

    async def read(self) -> None:
        """Read the attributes, if there is a session. StoreUnavailable; whoever looks at an
        attribute then has it, too.
        """
        self._unreadable = None
        if self._attributes is None:
            return
        try:
            await _result_of(self._attributes.load())
            self._seen.read(self._attributes.version or NEVER_WRITTEN)
        except TicketRefused as refused:
            self._end(refused.verdict)
        except StoreUnavailable as error:
            self._unreadable = error
            raise

    async def carry_out(self) -> None:
        """Do what the application asked for since the last time: logout, login, attributes, another
        ticket.

        StoreUnavailable; and what is wrong with what was set: NotLoggedIn, BadAttribute,
        AttributesTooLarge, InvalidPrincipal, TooManySessions, TypeError. RuntimeError: there is no
        response to begin any more, so the visitor can not be given a ticket.
        """
        if self._has_answered and (self._newcomer is not None or self._rotates):
            raise _too_late()
        if self._outgoing and self._newcomer is None:
            await self._log_out()  # whatever is wrong with the rest
        newcomer, brought = self._newcomer, self._brought()
        if self._outgoing:
            await self._log_out()
        try:
            if newcomer is not None:
                await self._log_in(newcomer, brought)
            if self._attributes is not None and await _result_of(self._attributes.save()):
                self._seen.wrote(self._attributes.version or NEVER_WRITTEN)
            if self._rotates:
                await self._take_another_ticket()
        except TicketRefused as refused:
            self._end(refused.verdict)

    async def logout_everywhere(self, *, keep_this: bool = True) -> int:
        """End every session of who is logged in, now; how many. `keep_this`: all but this one.
        NotLoggedIn, StoreUnavailable.
        """
        if self.principal is None:
            raise NotLoggedIn("logout_everywhere: nobody is logged in")
        kept = self._session if keep_this else None
        ended: int = await _result_of(self._cache.logout_everywhere(self.principal, keep=kept))
        if not keep_this:
            self._end()
            self._place.clear()
        return ended

    async def forgo_fields(self) -> None:
        """The connection ends without a response. RuntimeError: it would have brought a ticket,
        whose session ends with it.
        """
        is_given = not self._has_answered and bool(self._set_cookies) and self._session is not None
        self._has_answered = True
        if is_given:
            self.logout()
            await self.carry_out()
            raise _too_late()

    def fields(self, given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """What to add to the fields of the response, once, when all is carried out. `given`: those
        that it has.

        Of a 503, too: a ticket may have been replaced before the store went away.
        """
        self._has_answered = True
        cookies = [*self._set_cookies, *self._seen_cookies()]
        if not self._is_looked_at and not cookies:
            return []
        said = {name.lower(): value for name, value in given}
        added = [] if _varies_by_cookie(said.get("vary", "")) else [("Vary", "Cookie")]
        added += [("Set-Cookie", cookie) for cookie in cookies]
        if cookies and "cache-control" not in said:
            added.append(("Cache-Control", "no-store"))
        return added

    # --- inside

    @property
    def _leaves(self) -> bool:
        """Whether a session is to be ended."""
        return bool(self._outgoing)

    def _readable(self) -> MutableMapping[str, Any]:
        if self._unreadable is not None:
            raise StoreUnavailable(f"the session's attributes could not be read: {self._unreadable}")
        return self._writable()

    def _writable(self) -> MutableMapping[str, Any]:
        self._is_looked_at = True
        return self._place if self._attributes is None else self._attributes

    def _is_shown(self, name: str) -> bool:
        return name != self._principal_key and not name.startswith(RESERVED)

    def _brought(self) -> dict[str, Any]:
        """What moves into the new session. BadAttribute before there is one; NotLoggedIn if there
        will be none, and no place.
        """
        if self._newcomer is None:
            if self._place and not self._has_place:
                raise self._homeless()
            return {}
        trial = AttributeChanges(self._cache.serializer)
        trial.hold(NOTHING_STORED)
        trial.update({name: value for name, value in self._place.items() if name != self._principal_key})
        trial.changes()
        return dict(trial)

    def _homeless(self) -> NotLoggedIn:
        names = ", ".join(map(repr, sorted(self._place)))
        return NotLoggedIn(
            f"session: {names} can not be kept for a visitor who is not logged in: log in "
            f"(session[{self._principal_key!r}] = …), or put the framework's own signed-cookie sessions around this one"
        )

    async def _log_out(self) -> None:
        for ticket in self._outgoing:
            with contextlib.suppress(TicketRefused):  # its key has left the ring meanwhile, or it was one of several
                await _result_of(self._cache.logout(ticket))
        self._outgoing = []
        self._clear_cookies()

    async def _log_in(self, principal: str, brought: dict[str, Any]) -> None:
        remember = self._remembers
        self._seen.forget()
        try:
            ticket = await self._new_ticket(principal)
        except BaseException:
            self._become_anonymous()  # the application may have an answer to that, which must not try again
            raise
        self._newcomer = None
        try:
            await self._fill(ticket, brought)
        except BaseException:
            await self._undo_login(ticket)
            raise
        self._give_ticket(ticket, self._cache.remember_lifetime_s if remember else None)
        self._place.clear()

    async def _new_ticket(self, principal: str) -> str:
        login = self._cache.login(principal, remember=self._remembers, details=self._visitor.details)
        ticket: str = await _result_of(login)
        return ticket

    async def _fill(self, ticket: str, brought: dict[str, Any]) -> None:
        attributes = await self._enter(ticket)
        attributes.hold(NOTHING_STORED)
        attributes.update(brought)
        await _result_of(attributes.save())

    async def _undo_login(self, ticket: str) -> None:
        """Nobody will have this ticket."""
        self._become_anonymous()
        with contextlib.suppress(FastticketError):
            await _result_of(self._cache.logout(ticket))

    async def _take_another_ticket(self) -> None:
        self._rotates = False
        was_read = self._attributes is not None and self._attributes.is_loaded
        ticket = await _result_of(self._cache.rotate(self._ticket))
        self._give_ticket(ticket, self._cache.remembered_s(ticket))
        await self._enter(ticket)
        if was_read:
            await self.read()

    async def _enter(self, ticket: str) -> asynchronous.Attributes | sync.Attributes:
        session = await _result_of(self._cache.authenticate(ticket))
        self._ticket, self._session, self._principal = ticket, session, session.principal
        self._attributes = self._cache.attributes(session, seen=self._seen.version)
        return self._attributes

    def _end(self, why: Verdict | None = None) -> None:
        """The session is over. `why`: its ticket was refused so."""
        is_gone = why in (Verdict.REVOKED, Verdict.UNKNOWN_SESSION)
        self._may_be_replaced = is_gone and not self._set_cookies  # one that is given here is nobody else's yet
        self._become_anonymous()
        if not self._may_be_replaced:
            self._set_cookies = [self._cookie.clear_own(self._visitor.host, is_https=self._visitor.is_https)]
            self._seen.forget()

    def _become_anonymous(self) -> None:
        self._ticket = ""
        self._principal = self._session = self._attributes = self._unreadable = self._newcomer = None
        self._remembers = self._rotates = False

    def _give_ticket(self, ticket: str, max_age_s: int | None) -> None:
        self._ticket = ticket
        visitor = self._visitor
        self._set_cookies = self._cookie.set(
            ticket, visitor.host, is_https=visitor.is_https, max_age_s=max_age_s, asked_path=self._doubted_path
        )

    def _clear_cookies(self) -> None:
        visitor = self._visitor
        self._set_cookies = self._cookie.clear(visitor.host, is_https=visitor.is_https, asked_path=self._doubted_path)
        self._seen.forget()

    def _seen_cookies(self) -> list[str]:
        """The Set-Cookie values that tell the client which version it has seen, or take that away;
        none: there is no need to.
        """
        news = self._seen.news
        if news is None:
            return []
        visitor = self._visitor
        return self._cookie.set_seen(
            news,
            visitor.host,
            is_https=visitor.is_https,
            max_age_s=self._remembered_s,
            are_several=len(self._cookie.find_seen(visitor.cookies)) > 1,
        )

    @property
    def _remembered_s(self) -> int | None:
        """The Max-Age of the cookies beside the ticket's; None: they go with the browser."""
        return self._cache.remembered_s(self._ticket) if self._session else None


def _too_late() -> RuntimeError:
    return RuntimeError(
        "the response has begun, or there will be none: it is too late for a login or rotation, whose cookie would come with it"
    )


async def _result_of(value: Any) -> Any:
    """Of a call to either cache: that of threads has it already."""
    return await value if inspect.isawaitable(value) else value


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of a WebSession whose cache is `fastticket.sync`'s: it waits in its calls,
    and never suspends.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("it waits for an event loop: give it a fastticket.sync.TicketCache")


def _varies_by_cookie(vary: str) -> bool:
    return not {"cookie", "*"}.isdisjoint(name.strip().lower() for name in vary.split(","))
