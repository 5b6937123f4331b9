"""Other systems' sessions, read where they are: a module a source. Nothing is ever written there.

    linkis          Apache Linkis: a hash in Redis
    spring          Spring Session in Redis
    spring_jdbc     Spring Session in a database, by its export as CSV
    flask_session   Flask-Session in Redis, as msgpack or JSON
    starsessions    starsessions in Redis, as JSON
    oauth2_proxy    no sessions, which only the cookie's secret opens: the configuration file

Each reads all sessions for `fastticket migrate`, and one session by its cookie for the
gateway's exchange. Django's are read within Django (fastticket/django/moving.py).

Rules of this folder
- A session that cannot be moved is Skipped, with a reason of WHY; no session stops a move.
- The id here is derived from the id there (fastticket/moving/derived.py), so moving twice makes one
  session, and so does moving and exchanging.
- What names a session at its source opens it there: only its beginning is shown.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping, Set
from typing import NamedTuple, Protocol

from fastticket.core.ticket import decode_session_id
from fastticket.moving.derived import derive_session_id
from fastticket.moving.record import MovedSession, Skipped
from fastticket.moving.sources.values import LeftBehind
from fastticket.stores.contract import EVERYBODY

SHOWN_CHARS = 6  # of a session's id at its source, as in logs

#: Why a session is not moved, or an attribute left behind.
WHY: Mapping[str, str] = {
    "anonymous": "nobody is logged in: no attribute, index or ticket names a user",
    "bad_name": "the attribute's name is empty or longer than 255 bytes",
    "bad_principal": "what names the user is no text of 1 to 190 bytes, and no whole number",
    "bad_times": "its times are missing, or are not numbers of milliseconds",
    "expired": "its time is over: the source would refuse it, too",
    "forged": "it was not made with this key",
    "inactive_user": "the user is gone, or not active, or has another password",
    "java_serialized": "it is serialized by Java, as a class that only its program knows",
    "malformed": "it is not in the source's form",
    "minted": "a gateway of ours made it, for services: it is in no browser",
    "name_is_no_text": "the attribute's name is not a text",
    "not_found": "the source has no such session",
    "not_in_json": "JSON has no such value, or would change it: bytes, a date, keys that are no texts",
    "not_json": "it is not JSON",
    "not_msgpack": "it is not msgpack",
    "pickled": "it is pickled: reading that would run what is in it",
    "reserved_name": "the attribute's name begins with _fastticket., which is ours",
    "too_deep": "values within values are more than 64 deep",
    "too_large": "it has more than 1,000,000 bytes",
    "too_many_attributes": "it has more than 1,000 attributes",
    "wrong_type": "the key in Redis is of another type, so of something else",
}


class Source(Protocol):
    """A source of sessions."""

    left: LeftBehind  #: attributes that did not move

    def records(self) -> AsyncIterator[MovedSession | Skipped]:
        """All sessions; one that others use meanwhile perhaps twice. StoreUnavailable,
        ConfigError.
        """

    async def read_one(self, cookie: str) -> MovedSession | Skipped:
        """The session of a cookie's value. StoreUnavailable, ConfigError."""

    async def aclose(self) -> None:
        """Close connections and files. Idempotent."""


class Begun(NamedTuple):
    """A session that says when it began, ms."""

    identifier: str  #: what names it at its source
    principal: str
    began_ms: int


def begun_of(found: Iterable[Begun | None], principals: Set[str]) -> list[Begun]:
    """Those of these principals, or all, if EVERYBODY is one of them."""
    return [each for each in found if each and (EVERYBODY in principals or each.principal in principals)]


def begun_in(identifier: str, record: MovedSession | Skipped) -> Begun | None:
    """None: it is no session, or does not say when it began."""
    if isinstance(record, MovedSession) and record.says_began:
        return Begun(identifier, record.principal, record.created_ms)
    return None


def shown(identifier: str) -> str:
    """What names a session at its source, cut so that it opens nothing."""
    beginning = "".join(char if char.isprintable() else "?" for char in identifier[:SHOWN_CHARS])
    return f"{beginning}…"


def id_here(source: str, identifier: str) -> bytes:
    """The session's id here, 16 bytes, of what names it there."""
    return decode_session_id(derive_session_id(source, identifier))


def now_ms() -> int:
    """Now, ms since the epoch."""
    return time.time_ns() // 1_000_000


def is_over(session: MovedSession) -> bool:
    """Whether its idle timeout or its absolute lifetime is over."""
    ends = [session.last_access_ms + session.idle_timeout_s * 1000] if session.idle_timeout_s else []
    if session.absolute_lifetime_s:
        ends.append(session.created_ms + session.absolute_lifetime_s * 1000)
    return any(end <= now_ms() for end in ends)
