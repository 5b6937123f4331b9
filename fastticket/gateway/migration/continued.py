"""Sessions here that continue another system's. Whoever takes up the same old session gets the same
session: its id is made of the old one's, and the store makes it once.

    1. it is there                          its ticket is minted by what the store has of it
    2. the store makes it                   now it is there
    3. it has idled out here, while it was  it begins again, under the next id: an id whose session
       used at the other system             was over never lives again
    4. it was ended here, or has reached    it stays so
       its absolute lifetime
"""

from __future__ import annotations

from fastticket.core.ticket import Keyring, Ticket, decode_session_id
from fastticket.errors import StoreUnavailable, Verdict
from fastticket.moving.derived import next_session_id
from fastticket.sessions.shards import Shards
from fastticket.stores.contract import RestoredSession, StoredSession

IDS_MAX = 16  # of one old session, one after the other
HISTORY_MAX = 8192  # entries of a shard's log, which is about all that it keeps


async def take_up(shards: Shards, wanted: RestoredSession) -> str | Verdict:
    """The ticket of the session that continues an old one, or why there is none: REVOKED, EXPIRED,
    IDLE. `wanted`: as it would be made. StoreUnavailable.
    """
    session = wanted.session
    for _ in range(IDS_MAX):
        alive = await _alive(shards, session)
        if alive:
            return ticket_of(shards.keys, alive)
        end = shards.known_end(session.id)
        if end is None:
            (outcome,) = await shards.usable.restore([wanted._replace(session=session)])
            if outcome == "created":
                return ticket_of(shards.keys, session)
            if outcome == "exists":  # another gateway was as fast
                alive = await _alive(shards, session)
                if alive:
                    return ticket_of(shards.keys, alive)
                raise StoreUnavailable("the session has ended while it was taken up; try again")
            end = Verdict.EXPIRED if outcome == "expired" else await _why_ended(shards, session)
        if end is not Verdict.IDLE:
            return end
        session = session._replace(id=next_session_id(session.id))
    return Verdict.IDLE


def ticket_of(keys: Keyring, session: StoredSession) -> str:
    """A ticket for a session, the same wherever it is minted under the same key."""
    return keys.mint(
        session.principal,
        session.created_ms,
        session.idle_timeout_s,
        session.absolute_lifetime_s,
        decode_session_id(session.id),
    )


def continues(session_id: str, first_id: str) -> bool:
    """Whether a session's id is the one that an old session's is derived to, or one of the next."""
    for _ in range(IDS_MAX):
        if session_id == first_id:
            return True
        first_id = next_session_id(first_id)
    return False


def deadline_ms(shards: Shards, session: StoredSession, used_ms: int) -> int:
    """The idle deadline of a session that was last used then."""
    ticket = shards.keys.verify(ticket_of(shards.keys, session), used_ms)
    slack_ms = shards.fleet.flush_interval_ms
    return ticket.idle_deadline_ms(used_ms, slack_ms) if isinstance(ticket, Ticket) else 0


async def _alive(shards: Shards, session: StoredSession) -> StoredSession | None:
    found = await shards.usable.sessions(session.principal)
    return next((each for each in found if each.id == session.id), None)


async def _why_ended(shards: Shards, session: StoredSession) -> Verdict:
    """By the log. What it does not say (any more) was an end by somebody: a mark says that there
    was one.
    """
    history = await shards.usable.history(shards.of(session.principal).number, HISTORY_MAX)
    for event in reversed(history):
        if event.session_id == session.id and event.kind == "expired":
            return Verdict.EXPIRED if event.reason == "absolute" else Verdict.IDLE
        if event.session_id == session.id and event.kind in ("revoked", "rotated"):
            break
    return Verdict.REVOKED
