"""Apache Linkis in Redis: one hash, whose fields are the users' whole tickets and whose values are
when each was last used, in ms since the epoch, decimal. The cookie is the ticket.

Rules of this file
- A ticket counts if the hash has it and it opens: anybody can make one that opens under the key
  that everybody knows.
- One that a gateway of ours has made for services is nobody's session: who brings it has it from a
  log. One made for a program's token goes with no session, so it ends with all of its user's.
- Linkis never removes a session that nobody uses any more, and a value may be up to half an idle
  timeout old. As there, a session is over an idle timeout after the value.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Set

from fastticket.moving.formats import Refused as NotATicket
from fastticket.moving.formats.linkis_ticket import LinkisTickets, hash_fields, unbroken
from fastticket.moving.record import MovedSession, Skipped
from fastticket.moving.sources import Begun, begun_of, id_here, is_over, shown
from fastticket.moving.sources.rediskeys import PAGE_KEYS
from fastticket.moving.sources.values import LeftBehind, Unreadable, principal_of
from fastticket.stores.redis.foreign import ForeignRedis, Refused

SOURCE = "linkis"
HASH = "user_ticket_redis_key"
COOKIE = "linkis_user_session_ticket_id_v1"
IDLE_TIMEOUT_S = 7200  # wds.linkis.server.web.session.timeout
TIME_DIGITS_MAX = 15


class LinkisSessions:
    """See above. `idle_timeout_s`: wds.linkis.server.web.session.timeout."""

    def __init__(
        self,
        redis: ForeignRedis,
        tickets: LinkisTickets,
        *,
        key: str = HASH,
        idle_timeout_s: int = IDLE_TIMEOUT_S,
        absolute_lifetime_s: int = 0,
    ) -> None:
        self.left = LeftBehind()
        self._redis = redis
        self._tickets = tickets
        self._key = key
        self._lifetimes_s = (idle_timeout_s, absolute_lifetime_s)

    async def records(self) -> AsyncIterator[MovedSession | Skipped]:
        """As a source's. StoreUnavailable."""
        cursor, begins = "", True
        while begins or cursor:
            begins = False
            cursor, found = await self._redis.scan_hash(self._key, cursor, PAGE_KEYS)
            pairs = dict(zip(found[::2], found[1::2], strict=True))
            for field, value in pairs.items():
                yield self._record(field.decode("ascii", "replace"), value)

    async def begun(self, principals: Set[str]) -> AsyncIterator[list[Begun]]:
        """The sessions of these principals, or of EVERYBODY: only the tickets themselves say whose
        they are, so it goes through the whole hash. StoreUnavailable.
        """
        cursor, begins = "", True
        while begins or cursor:
            begins = False
            cursor, found = await self._redis.scan_hash(self._key, cursor, PAGE_KEYS)
            yield begun_of((self._begun(field.decode("ascii", "replace")) for field in found[::2]), principals)

    def _begun(self, ticket: str) -> Begun | None:
        opened = self._tickets.open(ticket)
        if isinstance(opened, NotATicket) or (opened.is_minted and not opened.is_of_token):
            return None
        try:
            return Begun(unbroken(ticket), principal_of(opened.user), opened.login_ms)
        except Unreadable:
            return None

    async def read_one(self, cookie: str) -> MovedSession | Skipped:
        """As a source's."""
        for value in await self._redis.ask([("HGET", self._key, field) for field in hash_fields(cookie)]):
            if isinstance(value, Refused):
                return Skipped(shown(cookie), "wrong_type")
            if value is not None:
                return self._record(cookie, value)
        return Skipped(shown(cookie), "not_found")

    def _record(self, ticket: str, value: bytes) -> MovedSession | Skipped:
        opened = self._tickets.open(ticket)
        if isinstance(opened, NotATicket):
            return Skipped(shown(ticket), opened.reason)
        if opened.is_minted:
            return Skipped(shown(ticket), "minted")
        if not value.isdigit() or len(value) > TIME_DIGITS_MAX:
            return Skipped(shown(ticket), "bad_times")
        try:
            principal = principal_of(opened.user)
        except Unreadable as error:
            return Skipped(shown(ticket), error.reason)
        idle_timeout_s, absolute_lifetime_s = self._lifetimes_s
        session = MovedSession(
            principal,
            id_here(SOURCE, unbroken(ticket)),
            created_ms=opened.login_ms,
            last_access_ms=int(value),
            idle_timeout_s=idle_timeout_s,
            absolute_lifetime_s=absolute_lifetime_s,
        )
        return Skipped(shown(ticket), "expired") if is_over(session) else session

    async def aclose(self) -> None:
        """As a source's."""
        await self._redis.aclose()
