"""One visitor's session for the length of a request, in every framework.

The framework's integration calls `admit` before the application, `carry_out` when a response is
about to begin (fastticket/web/outcome.py says for which), and adds `fields` to that response. In
between the application reads and writes a mapping, in memory alone.

What the application asks for is a state until `carry_out`: a login (`_login_due`), tickets to log
out (`_tickets_to_end`), a rotation (`_is_rotation_due`), changed attributes.

Rules of this file
- Only what changed in a session is written. What an anonymous visitor leaves is kept by the
  framework (`anonymous`), never by the store.
- A value that cannot be written, or cannot be kept, is found before anything is done, except for a
  logout.
- A login that fails is not tried again: the visitor is anonymous, and the store has no session of
  it. A logout that fails is tried again.
- A session that ends while the application works leaves the visitor anonymous, without an error.
- The next request sees what this one wrote, in whichever process: the response says which version
  it is (fastticket/web/readyourwrites.py).
- The cookie of a revoked ticket stays: a rotation in a parallel request may have revoked it, whose
  response has brought the client another one by now.
- A request with several tickets is anonymous, and its response clears them. A logout or login ends
  the sessions of all of them (docs/decisions/0023).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

from fastticket.core.check import Session
from fastticket.core.ticket import check_principal
from fastticket.errors import FastticketError, NotLoggedIn, StoreUnavailable, TicketRefused, Verdict
from fastticket.sessions.attributes import AttributeChanges
from fastticket.stores.contract import NEVER_WRITTEN, StoredAttributes
from fastticket.web.caches import Entries, SessionAttributes, SessionCache, result_of
from fastticket.web.cookies import TicketCookie
from fastticket.web.mapping import SessionMapping
from fastticket.web.reply import SessionReply
from fastticket.web.visitor import Visitor

NOTHING_STORED = StoredAttributes(NEVER_WRITTEN, {})


class WebSession(SessionMapping):
    """A visitor's session as the application sees it: attributes by name, and the principal that is
    logged in under `principal_key`.

    Setting that entry logs in, deleting it or setting None logs out: at the end of the request.
    `anonymous`: where the framework keeps what a visitor without a session leaves. None: nowhere,
    and leaving something is NotLoggedIn.
    """

    def __init__(
        self,
        cache: SessionCache,
        cookie: TicketCookie,
        visitor: Visitor,
        principal_key: str = "user",
        anonymous: MutableMapping[str, Any] | None = None,
    ) -> None:
        super().__init__(principal_key)
        self._cache = cache
        self._visitor = visitor
        self._keeps_anonymous = anonymous is not None
        self._anonymous: MutableMapping[str, Any] = {} if anonymous is None else anonymous
        tickets = cookie.find_all(visitor.cookies) if visitor.cookies else []
        self._ticket = tickets[0] if len(tickets) == 1 else ""
        self._ambiguous_tickets = tickets if len(tickets) > 1 else []
        self._reply = SessionReply(cookie, visitor, has_several_tickets=bool(self._ambiguous_tickets))
        self._seen = self._reply.seen
        self._session: Session | None = None
        self._attributes: SessionAttributes | None = None
        self._unreadable: StoreUnavailable | None = None  # why the attributes could not be read
        self._login_due: str | None = None  # the principal
        self._is_remembered_login = False
        self._is_rotation_due = False
        self._tickets_to_end: list[str] = []
        self._was_revoked = False  # the ticket that came; its cookie stays unless the application logs out
        self._is_accessed = False  # by the application: the response depends on the cookie
        self._has_answered = False
        self.has_store_failed = False  # and the application has been told, whatever it makes of it

    # --- for the application

    @property
    def principal(self) -> str | None:
        """The principal that is logged in, or will be at the end of the request; None: nobody."""
        self._is_accessed = True
        return self._principal

    @property
    def session(self) -> Session | None:
        """The session of the ticket. None: there is none, or it does not exist yet."""
        self._is_accessed = True
        return self._session

    def login(self, principal: str, *, remember: bool = False) -> None:
        """Begin a new session, at the end of the request. Another session that there is ends, with
        its attributes.

        `remember`: the cookie outlives the browser. InvalidPrincipal: no ticket can carry this
        name. TypeError: it is not a str.
        """
        if not isinstance(principal, str):
            kind = type(principal).__name__
            raise TypeError(
                f"session[{self._principal_key!r}] is who is logged in: a str, not {kind}. Set str(...), or let `principal_key` "
                "name another entry"
            )
        check_principal(principal)
        if self._principal is not None:
            self.logout()
        self._end_ambiguous_tickets()
        self._is_accessed = True
        self._principal = self._login_due = principal
        self._is_remembered_login = remember

    def logout(self) -> None:
        """End the session, if there is one, at the end of the request. Its attributes are gone."""
        self._is_accessed = True
        if self._session is not None:
            self._tickets_to_end = [self._ticket]
        elif self._was_revoked:
            self._reply.clear_ticket()
        self._end_ambiguous_tickets()
        self._become_anonymous()
        self._anonymous.clear()  # with what was to move into the session of a login that was due

    def rotate(self) -> None:
        """Replace the ticket by another one of the same session, at the end of the request.
        NotLoggedIn.
        """
        if self.principal is None:
            raise NotLoggedIn("rotate: nobody is logged in, so there is no ticket to replace")
        self._is_rotation_due = self._login_due is None

    async def end_all(self, *, keep_this: bool = True) -> int:
        """End every session of the principal, now. Returns how many ended. Applications call
        `logout_everywhere`, which each integration has in the way of its framework.

        `keep_this`: all but this one. NotLoggedIn, StoreUnavailable.
        """
        if self.principal is None:
            raise NotLoggedIn("logout_everywhere: nobody is logged in")
        kept = self._session if keep_this else None
        with self._noting_failure():
            ended = await result_of(self._cache.logout_everywhere(self.principal, keep=kept))
        if not keep_this:
            self._end()
            self._anonymous.clear()
        return ended

    # --- for the integration

    @property
    def is_admitted(self) -> bool:
        """Whether there is a session. Asking does not count as the application's access, of which
        `Vary` tells.
        """
        return self._session is not None

    async def admit(self) -> None:
        """Judge the ticket that came. StoreUnavailable: it cannot be judged, so the visitor must
        not be taken for an anonymous one.
        """
        if not self._ticket:
            return
        try:
            await self._enter(self._ticket)
        except TicketRefused as refused:
            self._end(refused.verdict)

    async def read(self) -> None:
        """Read the attributes, if there is a session.

        StoreUnavailable: it is also raised when the application looks at an attribute afterwards.
        """
        self._unreadable = None
        if self._attributes is None:
            return
        try:
            await result_of(self._attributes.load())
            self._seen.read(self._attributes.version or NEVER_WRITTEN)
        except TicketRefused as refused:
            self._end(refused.verdict)
        except StoreUnavailable as error:
            self._unreadable = error
            raise

    async def carry_out(self) -> None:
        """Do what the application asked for since the last time: logout, login, write, rotation.

        StoreUnavailable; and what is wrong with what the application set: NotLoggedIn,
        BadAttribute, AttributesTooLarge, InvalidPrincipal, TooManySessions, TypeError.
        RuntimeError: the response has begun, so it cannot bring the visitor a ticket.
        """
        with self._noting_failure():
            await self._do_what_is_due()

    async def _do_what_is_due(self) -> None:
        if self._has_answered and (self._login_due is not None or self._is_rotation_due):
            raise _too_late()
        if self._tickets_to_end and self._login_due is None:
            await self._log_out()  # before an error in the attributes can prevent it
        login_due, moving = self._login_due, self._moving_into_session()
        if self._tickets_to_end:  # for a login, only now: a value that cannot move has undone nothing
            await self._log_out()
        try:
            if login_due is not None:
                await self._log_in(login_due, moving)
            if self._attributes is not None and await result_of(self._attributes.save()):
                self._seen.wrote(self._attributes.version or NEVER_WRITTEN)
            if self._is_rotation_due:
                await self._replace_ticket()
        except TicketRefused as refused:
            self._end(refused.verdict)

    async def forgo_fields(self) -> None:
        """The connection ends without a response. RuntimeError: it would have brought a ticket;
        the session of that ticket has ended.
        """
        has_unsent_ticket = not self._has_answered and self._reply.changes_ticket and self._session is not None
        self._has_answered = True
        if has_unsent_ticket:
            self.logout()
            await self.carry_out()
            raise _too_late()

    def fields(self, given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """The fields to add to the response, (name, value): once, after `carry_out`.

        `given`: those that the response has. A 503 gets them, too: a ticket may have been replaced
        before the store went away.
        """
        self._has_answered = True
        max_age_s = None if self._seen.news is None else self._remembered_s
        return self._reply.fields(given, is_accessed=self._is_accessed, max_age_s=max_age_s)

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """A framework may make a response of the error (fastticket/web/outcome.py)."""
        try:
            yield
        except StoreUnavailable:
            self.has_store_failed = True
            raise
        self.has_store_failed = False

    # --- attributes, and where an anonymous visitor's are

    @property
    def _has_several_tickets(self) -> bool:
        return bool(self._ambiguous_tickets)

    def _readable(self) -> Entries:
        if self._unreadable is not None:
            self.has_store_failed = True
            raise StoreUnavailable(f"the session's attributes could not be read: {self._unreadable}")
        return self._writable()

    def _writable(self) -> Entries:
        self._is_accessed = True
        return self._anonymous if self._attributes is None else self._attributes

    def _moving_into_session(self) -> dict[str, Any]:
        """An anonymous visitor's attributes that move into the session that begins.

        BadAttribute: it cannot hold one. NotLoggedIn: no session begins, and nothing keeps them.
        """
        if self._login_due is None:
            if self._anonymous and not self._keeps_anonymous:
                raise self._not_kept()
            return {}
        trial = AttributeChanges(self._cache.serializer)
        trial.hold(NOTHING_STORED)
        trial.update({name: value for name, value in self._anonymous.items() if name != self._principal_key})
        trial.changes()
        return dict(trial)

    def _not_kept(self) -> NotLoggedIn:
        names = ", ".join(map(repr, sorted(self._anonymous)))
        remedy = self._remedy(f"log in (session[{self._principal_key!r}] = …)")
        return NotLoggedIn(f"session: {names} can not be kept for a visitor who is not logged in: {remedy}")

    def _remedy(self, log_in: str) -> str:
        """How to keep something for anonymous visitors: text for an error."""
        return f"{log_in}, or put the framework's own signed-cookie sessions around this one"

    # --- logout, login, rotation

    @property
    def _is_logout_due(self) -> bool:
        return bool(self._tickets_to_end)

    def _end_ambiguous_tickets(self) -> None:
        self._tickets_to_end, self._ambiguous_tickets = self._tickets_to_end + self._ambiguous_tickets, []

    async def _log_out(self) -> None:
        for ticket in self._tickets_to_end:
            with contextlib.suppress(TicketRefused):  # it is over, or its key has left the ring
                await result_of(self._cache.logout(ticket))
        self._tickets_to_end = []
        self._reply.clear_ticket()

    async def _log_in(self, principal: str, attributes: dict[str, Any]) -> None:
        is_remembered = self._is_remembered_login
        self._seen.forget()
        try:
            ticket = await self._new_ticket(principal)
        except BaseException:
            self._become_anonymous()  # or the response to the error would try again
            raise
        self._login_due = None
        try:
            await self._fill(ticket, attributes)
        except BaseException:
            await self._undo_login(ticket)
            raise
        self._set_ticket(ticket, self._cache.remember_lifetime_s if is_remembered else None)
        self._anonymous.clear()

    async def _new_ticket(self, principal: str) -> str:
        return await result_of(
            self._cache.login(principal, remember=self._is_remembered_login, details=self._visitor.details)
        )

    async def _fill(self, ticket: str, values: dict[str, Any]) -> None:
        attributes = await self._enter(ticket)
        attributes.hold(NOTHING_STORED)
        attributes.update(values)
        await result_of(attributes.save())

    async def _undo_login(self, ticket: str) -> None:
        """End the session that the ticket has: the client does not get it."""
        self._become_anonymous()
        with contextlib.suppress(FastticketError):
            await result_of(self._cache.logout(ticket))

    async def _replace_ticket(self) -> None:
        self._is_rotation_due = False
        was_read = self._attributes is not None and self._attributes.is_loaded
        ticket = await result_of(self._cache.rotate(self._ticket))
        self._set_ticket(ticket, self._cache.remembered_s(ticket))
        await self._enter(ticket)
        if was_read:
            await self.read()

    async def _enter(self, ticket: str) -> SessionAttributes:
        """Make the ticket's session this one. TicketRefused, StoreUnavailable."""
        session = await result_of(self._cache.authenticate(ticket))
        self._ticket, self._session, self._principal = ticket, session, session.principal
        self._attributes = self._cache.attributes(session, seen=self._seen.version)
        return self._attributes

    def _end(self, why: Verdict | None = None) -> None:
        """The session is over. `why`: the verdict with which its ticket was refused."""
        is_revoked = why in (Verdict.REVOKED, Verdict.UNKNOWN_SESSION)
        # A ticket that this request has made cannot have been replaced by another request.
        self._was_revoked = is_revoked and not self._reply.changes_ticket
        self._become_anonymous()
        if not self._was_revoked:
            self._reply.clear_refused_ticket()

    def _become_anonymous(self) -> None:
        self._ticket = ""
        self._principal = self._session = self._attributes = self._unreadable = self._login_due = None
        self._is_remembered_login = self._is_rotation_due = False

    # --- how long the client keeps the ticket

    def _set_ticket(self, ticket: str, max_age_s: int | None) -> None:
        self._ticket = ticket
        self._reply.set_ticket(ticket, max_age_s)

    @property
    def _remembered_s(self) -> int | None:
        """The Max-Age of the ticket's cookie; None: the cookie goes with the browser."""
        return self._cache.remembered_s(self._ticket) if self._session else None


def _too_late() -> RuntimeError:
    return RuntimeError(
        "the response has begun, or there will be none: it is too late for a login or rotation, whose cookie would come with it"
    )
