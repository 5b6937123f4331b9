"""What a reader of sessions yields, whatever it reads: a file of ours, a store, another system.

    MovedSession   a session that is to live on here
    Skipped        what could not be read, or must not live on; counted, and told why

A session id is 16 bytes. Where the source has ids of its own, its reader derives ours from them,
always the same one: so reading twice is moving once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from fastticket.core.ticket import check_principal, decode_session_id, encode_session_id
from fastticket.errors import InvalidPrincipal
from fastticket.stores.contract import NEVER_MS, NO_ATTRIBUTES, NO_DETAILS, RestoredSession, StoredSession

DETAILS_BYTES_MAX = 1024  # as JSON: what a login may record
CREATED_MS_END = 1 << 48  # a ticket has 48 bits for it
LIFETIME_S_END = 1 << 32  # and 32 for each lifetime


class MovedSession(NamedTuple):
    """Times are ms since the epoch, by the clock of the store that it goes to (a source's own clock
    should be within a second of it).
    """

    principal: str
    session_id: bytes  #: 16 bytes
    created_ms: int  #: the login
    last_access_ms: int
    idle_timeout_s: int  #: 0: none
    absolute_lifetime_s: int  #: from the login on; 0: none
    details: Mapping[str, str] = NO_DETAILS  #: of the login, as `TicketCache.login` takes them
    attributes: Mapping[str, bytes] = NO_ATTRIBUTES  #: serialized as the application's serializer does it
    #: Whether `created_ms` is when it began, and not the latest use or renewal, the best that its
    #: source says.
    says_began: bool = True

    @property
    def began_ms(self) -> int:
        """When it began, for bars; 0: nobody knows."""
        return self.created_ms if self.says_began else 0


class Skipped(NamedTuple):
    """`what`: which one, without anything that lets somebody in: a line, six characters of an id.
    `why`: a slug, by which they are counted: "expired", "unreadable", "no_principal".
    """

    what: str
    why: str


def of_stored(session: StoredSession, attributes: Mapping[str, bytes], slack_ms: int) -> MovedSession:
    """A store's session. `slack_ms`: the fleet's longest flush interval there, which its deadlines
    include. Where the idle deadline has met the absolute one, the last access may have been later.
    """
    used_ms = session.idle_deadline_ms - session.idle_timeout_s * 1000 - slack_ms
    return MovedSession(
        session.principal,
        decode_session_id(session.id),
        session.created_ms,
        max(used_ms, session.created_ms) if session.idle_timeout_s else session.created_ms,
        session.idle_timeout_s,
        session.absolute_lifetime_s,
        session.details,
        attributes,
    )


def to_restored(moved: MovedSession, slack_ms: int) -> RestoredSession:
    """For `Store.restore`. `slack_ms`: the fleet's longest flush interval (`Store.join`): deadlines
    include it.
    """
    session = StoredSession(
        encode_session_id(moved.session_id),
        moved.principal,
        NEVER_MS,
        moved.created_ms,
        moved.idle_timeout_s,
        moved.absolute_lifetime_s,
        moved.details,
    )
    deadline_ms = session.absolute_deadline_ms
    if moved.idle_timeout_s:
        deadline_ms = min(deadline_ms, moved.last_access_ms + moved.idle_timeout_s * 1000 + slack_ms)
    return RestoredSession(session._replace(idle_deadline_ms=deadline_ms), moved.attributes, moved.began_ms)


def fault_of(moved: MovedSession, attributes_bytes_max: int) -> str:
    """Why no store can hold this session, as a slug; "" if it can."""
    try:
        check_principal(moved.principal)
    except InvalidPrincipal:
        return "invalid_principal"
    if len(moved.session_id) != 16:
        return "invalid_session_id"
    if not 0 <= moved.created_ms < CREATED_MS_END or not 0 <= moved.last_access_ms < CREATED_MS_END:
        return "invalid_time"
    if not all(0 <= seconds < LIFETIME_S_END for seconds in (moved.idle_timeout_s, moved.absolute_lifetime_s)):
        return "invalid_lifetime"
    if len(json.dumps(dict(moved.details), ensure_ascii=False).encode()) > DETAILS_BYTES_MAX:
        return "details_too_large"
    if sum(len(name.encode()) + len(value) for name, value in moved.attributes.items()) > attributes_bytes_max:
        return "attributes_too_large"
    return ""
