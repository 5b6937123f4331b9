"""The fields that a session adds to its response.

    Set-Cookie     the ticket's cookie, and the one that says which version the client has seen
    Cache-Control  `no-store` beside a cookie, unless the application has said something else
    Vary           `Cookie`, if the application looked at the session

Rules of this file
- A request that brought several tickets is answered with what clears all of them, whether the
  application logs in, logs out, or does neither.
- The ticket's cookie is the last one: of two cookies that expire in one response, curl 7.88 drops
  only the last from its jar.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastticket.web.cookies import TicketCookie
from fastticket.web.readyourwrites import SeenVersion
from fastticket.web.visitor import Visitor


class SessionReply:
    """What the response to one request says of its session. `has_several_tickets`: the request
    brought several; they are cleared.
    """

    def __init__(self, cookie: TicketCookie, visitor: Visitor, *, has_several_tickets: bool) -> None:
        self._cookie = cookie
        self._visitor = visitor
        self._asked_path = visitor.path if has_several_tickets else ""
        self._set_cookies: list[str] = []
        self.seen = SeenVersion(cookie.find_seen(visitor.cookies))
        if has_several_tickets:
            self.clear_ticket()

    @property
    def changes_ticket(self) -> bool:
        """Whether the ticket's cookie is set or cleared."""
        return bool(self._set_cookies)

    def set_ticket(self, ticket: str, max_age_s: int | None) -> None:
        """Give the client this ticket. `max_age_s`: as of `TicketCookie.set`."""
        visitor = self._visitor
        self._set_cookies = self._cookie.set(
            ticket, visitor.host, is_https=visitor.is_https, max_age_s=max_age_s, asked_path=self._asked_path
        )

    def clear_ticket(self) -> None:
        """Take every ticket from the client that its request could have brought: it has logged
        out, or brought several.
        """
        visitor = self._visitor
        self._set_cookies = self._cookie.clear(visitor.host, is_https=visitor.is_https, asked_path=self._asked_path)
        self.seen.forget()

    def clear_refused_ticket(self) -> None:
        """Take the ticket from the client that came, and was refused."""
        self._set_cookies = [self._cookie.clear_own(self._visitor.host, is_https=self._visitor.is_https)]
        self.seen.forget()

    def fields(
        self, given: Iterable[tuple[str, str]], *, is_accessed: bool, max_age_s: int | None
    ) -> list[tuple[str, str]]:
        """The fields to add to a response that has those in `given`: (name, value).

        `is_accessed`: the application looked at the session. `max_age_s`: how long the client keeps
        the ticket that it has, and therefore the version that it has seen.
        """
        cookies = [*self._seen_cookies(max_age_s), *self._set_cookies]
        if not is_accessed and not cookies:
            return []
        present = [(name.lower(), value) for name, value in given]
        varies = any(name == "vary" and _varies_by_cookie(value) for name, value in present)
        added = [] if varies else [("Vary", "Cookie")]
        added += [("Set-Cookie", cookie) for cookie in cookies]
        if cookies and not any(name == "cache-control" for name, _ in present):
            added.append(("Cache-Control", "no-store"))
        return added

    def _seen_cookies(self, max_age_s: int | None) -> list[str]:
        """The Set-Cookie values of the version that the client has seen; none if it has the right
        one already.
        """
        news = self.seen.news
        if news is None:
            return []
        visitor = self._visitor
        return self._cookie.set_seen(
            news,
            visitor.host,
            is_https=visitor.is_https,
            max_age_s=max_age_s,
            are_several=len(self._cookie.find_seen(visitor.cookies)) > 1,
        )


def _varies_by_cookie(vary: str) -> bool:
    return not {"cookie", "*"}.isdisjoint(name.strip().lower() for name in vary.split(","))
