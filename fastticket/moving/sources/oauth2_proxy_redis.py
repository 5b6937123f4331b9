"""oauth2-proxy's sessions in Redis, one at a time: only the user's cookie has the secret that opens
its session, so there is nothing to move beforehand.

Rules of this file
- A session whose access token is over is expired: oauth2-proxy would ask the identity provider for
  another, or refuse it.
- Each refresh (cookie_refresh) says anew when a session was created, so none says when it began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastticket.moving.formats import Refused as NotOne
from fastticket.moving.formats.oauth2_proxy_session import SESSION_BYTES_MAX, ProxyTicket, open_session, read_cookie
from fastticket.moving.record import MovedSession, Skipped
from fastticket.moving.sources import id_here, shown
from fastticket.moving.sources.oauth2_proxy_stays import EXPIRE_S, PRINCIPALS
from fastticket.moving.sources.values import Unreadable, principal_of
from fastticket.stores.redis.foreign import ForeignRedis, Refused

SOURCE = "oauth2-proxy"


class ProxySessions:
    """See above. `principals`: which of user, email and preferred_username is the principal, the
    first that there is.
    """

    def __init__(
        self,
        redis: ForeignRedis,
        *,
        cookie: str,
        secret: str,
        principals: Sequence[str] = PRINCIPALS,
        expire_s: int = EXPIRE_S,
        now_ms: Callable[[], int],
    ) -> None:
        self._redis = redis
        self._cookie = cookie
        self._secret = secret
        self._principals = principals
        self._expire_s = expire_s
        self._now_ms = now_ms

    def identify(self, cookie: str) -> str:
        """The key of a cookie's session; empty: the cookie is not good."""
        found = self._ticket(cookie)
        return found.id if isinstance(found, ProxyTicket) else ""

    def fault(self, cookie: str) -> str:
        """Why that finds no key: `expired`, or `forged`."""
        found = self._ticket(cookie)
        return "expired" if isinstance(found, NotOne) and found.reason == "expired" else "forged"

    async def read_one(self, cookie: str) -> MovedSession | Skipped:
        """As a source's. StoreUnavailable."""
        ticket = self._ticket(cookie)
        if isinstance(ticket, NotOne):
            return Skipped(shown(cookie), ticket.reason)
        (sealed,) = await self._redis.ask([("GETRANGE", ticket.id, 0, SESSION_BYTES_MAX)])
        if isinstance(sealed, Refused):
            return Skipped(shown(cookie), "wrong_type")
        if not sealed:
            return Skipped(shown(cookie), "not_found")
        session = open_session(sealed, ticket.secret)
        if isinstance(session, NotOne):
            return Skipped(shown(cookie), session.reason)
        if session.expires_ms and session.expires_ms <= self._now_ms():
            return Skipped(shown(cookie), "expired")
        name = next((session.names[each] for each in self._principals if each in session.names), "")
        if not name:
            return Skipped(shown(cookie), "anonymous")
        try:
            principal = principal_of(name)
        except Unreadable as error:
            return Skipped(shown(cookie), error.reason)
        return MovedSession(
            principal,
            id_here(SOURCE, ticket.id),
            created_ms=session.created_ms or ticket.issued_s * 1000,
            last_access_ms=self._now_ms(),
            idle_timeout_s=0,
            absolute_lifetime_s=0,
            says_began=False,
        )

    def _ticket(self, cookie: str) -> ProxyTicket | NotOne:
        return read_cookie(self._cookie, cookie, self._secret, self._now_ms() // 1000, self._expire_s)
