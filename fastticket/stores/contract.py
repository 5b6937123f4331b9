"""The contract between the cache and a store.

A store keeps live sessions, each with an idle deadline and its attributes, and a *lifecycle log*
per shard: what was created, rotated, changed, revoked, expired. All times are the store's own, in
ms since the epoch. A caller that holds sessions in a near cache learns what became of them from the
log alone; the doorbell only makes it look sooner.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from fastticket.errors import StoreUnavailable

#: A place in a shard's log. Later entries compare greater.
Position = tuple[int, int]

#: The version of attributes that nobody has written.
NEVER_WRITTEN: Position = (0, 0)

#: The deadline of what nothing ends, ms.
NEVER_MS = 2**53 - 1

#: In place of a deadline: the store knows that the session was ended. It may not know of all that
#: were.
ENDED_MS = -1

SESSION_ID_CHARS = 22  # base64url of 16 bytes

NO_DETAILS: Mapping[str, str] = MappingProxyType({})


class StoredSession(NamedTuple):
    """A session as the store holds it. Deadlines are the store's time, ms since the epoch; 2**53 -
    1 where there is none.
    """

    id: str  #: 22 characters, base64url
    principal: str
    idle_deadline_ms: int
    created_ms: int  #: when its principal logged in
    idle_timeout_s: int  #: 0: none
    absolute_lifetime_s: int  #: 0: none
    details: Mapping[str, str] = NO_DETAILS  #: what the login recorded: an address, a user agent

    @property
    def absolute_deadline_ms(self) -> int:
        """2**53 - 1 if there is none."""
        return self.created_ms + self.absolute_lifetime_s * 1000 if self.absolute_lifetime_s else NEVER_MS


class Touch(NamedTuple):
    """A session was used: its idle deadline moves on, if it is there and the deadline is later than
    the one stored.
    """

    session_id: str
    principal: str
    idle_deadline_ms: int


class Event(NamedTuple):
    """An entry of the lifecycle log."""

    position: Position
    kind: str  #: created, rotated, changed (its attributes), revoked or expired
    session_id: str
    principal: str
    reason: str = ""  #: of a revocation; of an expiry, idle or absolute
    successor_id: str = ""  #: of a rotation: the session's id from then on


class Request(NamedTuple):
    """What to do in one shard, in this order: write `touches`, read the log from `since`, look up
    `wanted`.
    """

    since: Position | None  #: the last position known; None: from now on
    touches: Sequence[Touch | tuple[str, str, int]] = ()
    wanted: Sequence[tuple[str, str]] = ()  #: (session id, principal)


class Reply(NamedTuple):
    """What one shard answered.

    The log was read before the sessions were looked up: a revocation that `events` does not show
    yet may already show in `deadlines_ms`, never the other way round.
    """

    position: Position
    events: Sequence[Event]
    gap: bool  #: entries after `since` are lost: nothing known of this shard's sessions holds any more
    deadlines_ms: Sequence[
        int | None
    ]  #: idle deadlines of `wanted`, in order; None: no such session; ENDED_MS: it was ended
    replaced: bool = (
        False  #: a gap, because another server answers than before, or older data: what is not there may come yet
    )


class Tail(NamedTuple):
    """A piece of a shard's log."""

    position: Position  #: to go on from
    events: Sequence[Event]
    gap: bool  #: entries before these are lost


class StoredAttributes(NamedTuple):
    """A session's attributes, serialized."""

    version: Position  #: where the log says `changed`; NEVER_WRITTEN: nowhere
    values: Mapping[str, bytes]


class Fleet(NamedTuple):
    """Settings that every process on a store must know of each other: the longest there are."""

    flush_interval_ms: int
    lease_ms: int


class Written(NamedTuple):
    """Attributes were written."""

    version: Position  #: the attributes' from now on
    replaced: Position  #: the version that they had before


class Changed(NamedTuple):
    """A session's attributes were written; what the log says, too."""

    session_id: str
    version: Position


#: Of a shard: there is news in its log. With a `Changed`, that one alone, which is all told.
Ring = Callable[[int, Changed | None], None]


class Store(Protocol):
    """Every method may raise StoreUnavailable: nothing is known then, and whether a write was done
    is open.
    """

    #: How many shards there are; fixed when the store is made.
    shards: int
    #: How many touches an exchange should bring at most, in all its shards: what one bite of work
    #: is for this store.
    touches_per_exchange: int

    @property
    def doubt_ms(self) -> int:
        """How old the knowledge of who the primary is may be when something is asked, ms. A lease
        is shorter by it.
        """

    @property
    def servers(self) -> Mapping[str, str]:
        """The servers behind it, by name, and the state of their circuit breakers: closed, open or
        half-open.
        """

    async def open(self) -> None:
        """Connect, and create or check the layout. ConfigError: made for another format or number
        of shards.

        If it fails, the caller closes the store, and may open it again.
        """

    async def aclose(self) -> None:
        """Let go of every resource. Idempotent."""

    async def join(self, fleet: Fleet) -> Fleet | None:
        """Write down what of these settings is longer than what was written down, and what of the
        layout is missing (the store may have lost its data). What was written down before; None:
        nothing.

        ConfigError: the store was made anew, for another layout; whatever else is asked is
        StoreUnavailable from then on.
        """

    async def time_ms(self) -> int:
        """The store's clock, ms since the epoch."""

    async def uptime_ms(self) -> int:
        """For how long it is known to have been there for every process, ms; 0: nobody knows. A
        hang that is over may be in it.
        """

    async def create(self, session: StoredSession, *, sessions_max: int = 0, evicts: bool = True) -> Sequence[str]:
        """Add a session; logs `created`. Durable when it returns.

        `sessions_max`: that many live sessions the principal may have then, this one included; 0:
        any number. The oldest are revoked for it (`evicted`), and their ids returned; or, without
        `evicts`, TooManySessions. Sessions past their deadline that were not swept yet count as
        long as there is room for them. IssuedTooEarly: all of the principal's sessions that began
        by then are over.
        """

    async def rotate(self, session_id: str, successor: StoredSession) -> bool:
        """A session goes on under another id, with its attributes and details; logs `rotated`.
        False: there was none. Durable.
        """

    async def exchange(self, requests: Mapping[int, Request]) -> Mapping[int, Reply | StoreUnavailable]:
        """Per shard: touches, log tail, deadlines. A shard that failed has the error for a reply;
        its touches may be sent again.
        """

    async def revoke(self, session_id: str, principal: str, reason: str = "logout") -> bool:
        """End a session; logs `revoked`. False: there was none. Durable when it returns."""

    async def revoke_all(self, principal: str, *, keep: str = "", reason: str = "logout_everywhere") -> Sequence[str]:
        """End every session of a principal but the one with the id `keep`; logs `revoked` for each.
        Their ids. Durable, too.
        """

    async def sessions(self, principal: str) -> Sequence[StoredSession]:
        """The principal's live sessions, oldest deadline first."""

    async def read_attributes(self, session_id: str, principal: str) -> StoredAttributes | None:
        """None: no such session."""

    async def write_attributes(
        self, session_id: str, principal: str, values: Mapping[str, bytes], removed: Sequence[str], *, bytes_max: int
    ) -> Written | None:
        """Set and remove some attributes, and leave the others, in one step; logs `changed`. None:
        no such session.

        AttributesTooLarge, and nothing is written, if names and values would have more bytes than
        that, and more than before. They end with the session.
        """

    async def sweep(self, dead_before_ms: int, sessions_max: int) -> int:
        """Remove sessions whose idle deadline is at or before `dead_before_ms`, and past; logs
        `expired`. How many.

        At most so many of a shard; 0: there are no more.
        """

    async def history(self, shard: int, entries_max: int) -> Sequence[Event]:
        """The end of a shard's log, oldest first; how far back it goes is the store's affair."""

    async def tails(
        self, since: Mapping[int, Position | None], entries_max: int
    ) -> Mapping[int, Tail | StoreUnavailable]:
        """Per shard: the log's next entries after a position, at most so many; None: from now on,
        so none. Every kind of event.

        After a gap it goes on with the oldest entry that is left.
        """

    def on_doorbell(self, ring: Ring) -> None:
        """Call `ring(shard, None)` in the event loop soon after another process revoked a session
        of that shard. May be lost.

        It may ring for other reasons, too, and for no reason. Where attributes were written, a
        store that can tell which calls `ring(shard, changed)`, another one rings as for a
        revocation.
        """


def shard_of(principal: str, shards: int) -> int:
    """All that belongs to a principal is in one shard."""
    return zlib.crc32(principal.encode()) % shards
