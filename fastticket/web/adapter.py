"""A session for an asyncio framework that is not ASGI and that fastticket does not know: aiohttp
and Tornado are adapted in a few lines each (docs/how-to/aiohttp.md, tornado.md).

    session = AdaptedSession(cache, request.headers.items(), …)
    await session.begin()                              before the handler
    status, fields = await session.end(status, given)  before the response's first byte

Rules of this file
- A ticket that cannot be judged stops the request: nobody is taken for an anonymous visitor because
  the store is away. `begin` raises, and `end` makes it a 503, whatever the framework made of it.
- `end` raises nothing. It is called where a framework has no place for errors any more: what is
  wrong with what the application set is logged, and is the status of the response.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from typing import NamedTuple

from fastticket.errors import FastticketError, StoreUnavailable
from fastticket.sessions.ticketcache import TicketCache
from fastticket.web.cookies import TicketCookie
from fastticket.web.outcome import RETRY_AFTER_S, SERVER_ERROR, UNAVAILABLE_STATUS, Outcome, outcome_of
from fastticket.web.session import WebSession
from fastticket.web.visitor import Visitor, is_by_https

__all__ = ["AdaptedSession", "Ending"]

log = logging.getLogger("fastticket.web")

Field = tuple[str, str]


class Ending(NamedTuple):
    """What to answer. `status`: if it is another one than the framework's, its response is to be
    replaced by an empty one. `fields`: to be added to the response, (name, value).
    """

    status: int
    fields: list[Field]


class AdaptedSession(WebSession):
    """A mapping of attributes, with the principal that is logged in under `principal_key`.

    cache     an open fastticket.TicketCache
    headers   all fields of the request, (name, value); a name may come several times
    address   the client's IP address
    is_https  whether the request came by https
    path      of the request's target, without the query
    cookie    by default `TicketCookie()`
    """

    def __init__(
        self,
        cache: TicketCache,
        headers: Iterable[Field],
        address: str = "",
        is_https: bool = False,
        path: str = "/",
        *,
        cookie: TicketCookie | None = None,
        principal_key: str = "user",
    ) -> None:
        values: dict[str, list[str]] = {"cookie": [], "host": [], "user-agent": [], "origin": []}
        for name, value in headers:
            if name.lower() in values:
                values[name.lower()].append(value)
        visitor = Visitor(
            cookies="; ".join(values["cookie"]),
            host=",".join(values["host"]),
            address=address,
            user_agent=" ".join(values["user-agent"]),
            is_https=is_by_https(is_https, *values["origin"]),
            path=path,
        )
        super().__init__(cache, cookie or TicketCookie(), visitor, principal_key)

    async def begin(self) -> None:
        """Judge the ticket that came, and read its session's attributes. StoreUnavailable: the
        ticket cannot be judged, and the request must not go on.
        """
        with self._noting_failure():
            await self.admit()
        with contextlib.suppress(StoreUnavailable):  # a look at an attribute raises it again
            await self.read()

    async def end(self, status: int, given: Iterable[Field] = ()) -> Ending:
        """Write what the request changed, if its response has a status below 500.

        `given`: the fields that the response has.
        """
        if status == UNAVAILABLE_STATUS and self.has_store_failed:  # made of the error of `begin`, say
            status = SERVER_ERROR
        outcome = outcome_of(status, has_store_failed=self.has_store_failed)
        if outcome is Outcome.WRITE:
            try:
                await self.carry_out()
            except StoreUnavailable as error:
                log.info("503: %s", error)  # the cache has logged a warning
                outcome = Outcome.UNAVAILABLE
            except Exception as error:
                status = error.status if isinstance(error, FastticketError) else SERVER_ERROR
                log.exception("%d: the session was not written", status)
                given = ()
        if outcome is Outcome.UNAVAILABLE:
            away = [("Retry-After", str(RETRY_AFTER_S)), ("Cache-Control", "no-store")]
            return Ending(UNAVAILABLE_STATUS, [*away, *self.fields(away)])
        return Ending(status, self.fields(given))

    async def save(self) -> None:
        """Do now what was set since the last time: a login, a logout, attributes. NotLoggedIn,
        BadAttribute, AttributesTooLarge, TooManySessions, StoreUnavailable.
        """
        await self.carry_out()

    async def logout_everywhere(self, *, keep_this: bool = True) -> int:
        """End every session of the principal, now. Returns how many ended.

        `keep_this`: all but this one. NotLoggedIn, StoreUnavailable.
        """
        return await self.end_all(keep_this=keep_this)
