"""The contract between the ticket cache and a store.

A store keeps live sessions, each with an idle deadline and its attributes, and a *lifecycle log*
per shard: which sessions were created, rotated, changed, revoked or have expired. All times are the
store's own, in ms since the epoch. A cache that holds sessions in memory learns what became of them
from the log alone; the doorbell only makes it look sooner.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

from fastticket.errors import StoreUnavailable

#: A place in a shard's log. Later entries compare greater.
Position = tuple[int, int]

#: A session was used: session id, principal, idle deadline (ms). The stored deadline moves to it if
#: the session is there and the deadline is later.
Touch = tuple[str, str, int]


class Touches(Protocol):
    """Touches of one shard, to iterate over or to write as they are."""

    @property
    def packed(self) -> bytes:
        """For each touch its deadline and "<session id>.<principal>", as two bulk strings of the
        Redis protocol (RESP 2): `$13<CR LF>1700000000000<CR LF>$28<CR LF>...<CR LF>`.
        """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Touch]: ...


class _NoTouches:
    packed = b""

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Touch]:
        return iter(())


NO_TOUCHES: Touches = _NoTouches()

#: The version of attributes that were never written.
NEVER_WRITTEN: Position = (0, 0)

#: The deadline of a session without one, ms.
NEVER_MS = 2**53 - 1

#: In place of a deadline: the store knows that the session was ended. It does not know this of
#: every ended session.
ENDED_MS = -1

SESSION_ID_CHARS = 22  # base64url of 16 bytes

#: For how long a bar lasts, and how many there are in a shard. Where there are more, everybody's
#: takes the place of the oldest.
BAR_LASTS_MS = 180 * 86_400_000
BARS_MAX = 100_000
EVERYBODY = ""  #: in a bar, in place of a principal

GATEWAYS_MAX = 256  # in a store's register at a time
CARD_BYTES_MAX = 4096  # of what one says of itself there

NO_DETAILS: Mapping[str, str] = MappingProxyType({})
NO_ATTRIBUTES: Mapping[str, bytes] = MappingProxyType({})

#: What the principals of canaries begin with (sessions/canary.py). A principal of a ticket has no
#: outer space, so no user is called that.
CANARY = " canary "


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


class RestoredSession(NamedTuple):
    """A session that began elsewhere, to be held here from now on: as a file, another store or a
    near cache has it.
    """

    session: StoredSession
    attributes: Mapping[str, bytes] = NO_ATTRIBUTES  #: serialized
    #: When it began there, for bars: ms; 0: nobody knows. None: it has begun in a store of this
    #: fleet's, whose log says what has ended, so that bars do not concern it.
    began_ms: int | None = None


class Bar(NamedTuple):
    """All sessions of a principal were ended, or all but one: what began at another system by then
    is not restored.
    """

    principal: str  #: or EVERYBODY
    at_ms: int


#: What `Store.restore` did: made it; found it; knows that it was ended, or that it is past one of
#: its deadlines.
Restored = Literal["created", "exists", "ended", "expired"]


class Event(NamedTuple):
    """An entry of the lifecycle log."""

    position: Position
    kind: str  #: created, rotated, changed (its attributes), revoked or expired
    session_id: str
    principal: str
    reason: str = ""  #: of a revocation; of an expiry, idle or absolute
    successor_id: str = ""  #: of a rotation: the session's id from then on


class Request(NamedTuple):
    """For one shard, in this order: write `touches`, read the log from `since` on, look up the
    deadlines of `wanted`.
    """

    since: Position | None  #: the last known position; None: from now on
    touches: Touches = NO_TOUCHES
    wanted: Sequence[tuple[str, str]] = ()  #: (session id, principal)
    #: Nobody goes on from here: the log is not read, and an empty one is not begun.
    only_looks: bool = False


class Reply(NamedTuple):
    """One shard's answer.

    The log was read before the sessions were looked up: a revocation that `events` does not show
    yet may already show in `deadlines_ms`, never the other way round.
    """

    position: Position
    events: Sequence[Event]
    #: Entries after `since` are lost: what is known of this shard's sessions may be out of date.
    gap: bool
    #: Idle deadlines of `wanted`, in order; None: no such session; ENDED_MS: it was ended.
    deadlines_ms: Sequence[int | None]
    #: There is a gap because another server answers than before, or the same one with older data: a
    #: session that is not there may still be made again.
    replaced: bool = False


class Tail(NamedTuple):
    """A piece of a shard's log."""

    position: Position  #: to go on from
    events: Sequence[Event]
    gap: bool  #: entries before these are lost


class StoredAttributes(NamedTuple):
    """A session's attributes, serialized."""

    version: Position  #: of the log's entry `changed`; or NEVER_WRITTEN
    values: Mapping[str, bytes]


class Loss(NamedTuple):
    """A server has taken over a shard, or come back, without some of its data. Spans up to now,
    ms.
    """

    noticed_ms: int  #: since a process first said so
    heard_ms: int  #: since a process last heard the data that was there before, of those that have said so


class Fleet(NamedTuple):
    """The settings that processes on one store must know of each other: the longest of all."""

    flush_interval_ms: int
    lease_ms: int


class Written(NamedTuple):
    """Attributes were written."""

    version: Position  #: of the attributes from now on
    replaced: Position  #: of the attributes before


class Changed(NamedTuple):
    """A session's attributes were written; the log has an entry of it, too."""

    session_id: str
    version: Position


#: (shard, None): its log has new entries. (shard, changed): its log has that one, of which
#: `changed` says everything.
Ring = Callable[[int, Changed | None], None]


class Store(Protocol):
    """Every method may raise StoreUnavailable; a write may then have been done or not."""

    #: How many shards there are; fixed when the store is made.
    shards: int
    #: How many touches one exchange should bring at most, in all its shards: for this store a piece
    #: of work that holds up others for long enough.
    touches_per_exchange: int

    @property
    def doubt_ms(self) -> int:
        """How long ago, when a request is sent, it was confirmed which server is the primary; ms,
        at most. A lease is shorter by it.
        """

    @property
    def servers(self) -> Mapping[str, str]:
        """The servers behind the store, by name, and the states of their circuit breakers: closed,
        open or half-open.
        """

    async def open(self) -> None:
        """Connect, and create or check the layout. ConfigError: made for another format or number
        of shards.

        If it fails, the caller closes the store, and may open it again.
        """

    @property
    def is_replaced(self) -> bool:
        """Whether another store is at the address now: what was learned of this one says nothing of
        that one. Its calls raise StoreUnavailable then.
        """

    async def settle(self) -> None:
        """Return when what this process has changed can no longer be lost by its end: at once, or
        a few seconds after the last change, where servers take over from each other. Raises
        nothing.
        """

    async def aclose(self) -> None:
        """Close connections and files. Idempotent."""

    async def join(self, fleet: Fleet) -> Fleet | None:
        """Write down those of these settings that are longer than the stored ones, and the layout
        where that is missing (the store may have lost its data). Returns the settings that were
        stored before; None: there were none.

        ConfigError: the store was made anew, for another layout; every other method is
        StoreUnavailable from then on.
        """

    async def time_ms(self) -> int:
        """The store's clock, ms since the epoch."""

    async def uptime_ms(self) -> int:
        """For how long the store is known to have been up for every process, ms; 0: not known. A
        hang that is over may lie in it.
        """

    # --- the register of gateways

    async def announce(self, gateway_id: str, card: bytes, lease_ms: int) -> bool:
        """Put a gateway into the register, or renew it there, with `card` for what it says of
        itself. It stays for `lease_ms` from now on, a day at most; 0: it goes at once. False, and
        it is not there: GATEWAYS_MAX others are. ValueError: the card has more than CARD_BYTES_MAX
        bytes.
        """

    async def gateways(self) -> Mapping[str, bytes]:
        """The cards of the gateways whose lease is in force, by id."""

    # --- sessions

    async def create(self, session: StoredSession, *, sessions_max: int = 0, evicts: bool = True) -> Sequence[str]:
        """Add a session; logs `created`. Durable when it returns.

        `sessions_max`: how many live sessions the principal may have then, this one included; 0:
        any number. The oldest are revoked for it (`evicted`), and their ids returned; without
        `evicts` it is TooManySessions. Sessions past their deadline that were not swept yet count
        as long as there is room for them. IssuedTooEarly: a logout everywhere has ended all of the
        principal's sessions that began by then.
        """

    async def rotate(self, session_id: str, successor: StoredSession) -> bool:
        """Give a session another id; attributes and details stay. Logs `rotated`. False: there was
        no such session. Durable when it returns.
        """

    async def exchange(self, requests: Mapping[int, Request]) -> Mapping[int, Reply | StoreUnavailable]:
        """Per shard: write touches, read the log's tail and deadlines. A shard that failed has its
        error for a reply; its touches may be sent again.
        """

    async def revoke(self, session_id: str, principal: str, reason: str = "logout") -> bool:
        """End a session; logs `revoked`. False: there was none. Durable when it returns."""

    async def revoke_all(self, principal: str, *, keep: str = "", reason: str = "logout_everywhere") -> Sequence[str]:
        """End every session of a principal but the one with the id `keep`; logs `revoked` for each.
        Leaves a bar of this moment, or of the latest beginning of one of them, if that is later.
        Returns their ids. Durable when it returns.
        """

    async def sessions(self, principal: str) -> Sequence[StoredSession]:
        """The principal's live sessions, oldest deadline first."""

    async def read_attributes(self, session_id: str, principal: str) -> StoredAttributes | None:
        """All attributes of a session; None: no such session."""

    async def write_attributes(
        self, session_id: str, principal: str, values: Mapping[str, bytes], removed: Sequence[str], *, bytes_max: int
    ) -> Written | None:
        """Set and remove some attributes in one step, and leave the others; logs `changed`. None:
        no such session. Attributes end with their session.

        AttributesTooLarge, and nothing is written, if names and values would have more than
        `bytes_max` bytes, and more than before.
        """

    async def sweep(self, dead_before_ms: int, sessions_max: int) -> int:
        """Remove sessions whose idle deadline is past and not after `dead_before_ms`, at most
        `sessions_max` of a shard; logs `expired`. Returns how many; 0: there are no more.
        """

    async def count(self) -> int:
        """How many sessions live now."""

    async def scan(self, cursor: str, count: int) -> tuple[str, Sequence[StoredSession]]:
        """Some of all live sessions, about `count`, or none, in no order; and the cursor to go on
        from. "" begins, and "" is the end. The cursor holds for any process, and however long.

        A session that lives from the first call to the last is there at least once; one that begins
        or gets another id meanwhile may be missing. ValueError: not a cursor of this store.
        """

    async def restore(self, sessions: Sequence[RestoredSession]) -> Sequence[Restored]:
        """Add sessions as they are, with id, times, details and attributes; logs `created`. What
        became of each, in order. Doing it again is doing it once; after StoreUnavailable some may
        have been restored. Durable when it returns.

        Of one that exists, only the idle deadline is moved, and never back. One that was ended,
        has expired or has another id now stays so, as far as the store knows: from its log, and
        for some minutes from a mark of each end. So does one that was created before all of its
        principal's were ended; if it has begun elsewhere (`began_ms`), for as long as the bar
        lasts: BAR_LASTS_MS.
        """

    async def bar(self, bars: Sequence[Bar]) -> None:
        """Leave bars without ending anything. An older one of the same principal goes;
        everybody's takes the place of all that are older. Doing it again is doing it once. Durable
        when it returns.
        """

    async def bars(self, shard: int, since_ms: int, bars_max: int) -> Sequence[Bar]:
        """A shard's bars of `since_ms` or later, oldest first, at most `bars_max`; everybody's is
        in each shard.
        """

    async def note_loss(self, heard_ms: Mapping[int, int]) -> Mapping[int, Loss | StoreUnavailable]:
        """Say of shards that have lost data how long ago this process last heard what was there
        before, and hear what all have said. It is kept for some minutes after the first one said
        so.
        """

    async def history(self, shard: int, entries_max: int) -> Sequence[Event]:
        """The last `entries_max` entries of a shard's log, or as many as it still has; oldest
        first.
        """

    async def tails(
        self, since: Mapping[int, Position | None], entries_max: int
    ) -> Mapping[int, Tail | StoreUnavailable]:
        """Per shard: the next entries of its log after a position, at most `entries_max`, of every
        kind; for None the position from now on, and no entries. After a gap it goes on with the
        oldest entry that is left.
        """

    def on_doorbell(self, ring: Ring) -> None:
        """Call `ring(shard, None)` in the event loop soon after another process has revoked a
        session of that shard. A call may be lost, or come for another reason or none. Where
        attributes were written, a store that knows whose calls `ring(shard, changed)`; another
        store rings as for a revocation.
        """


def check_card(card: bytes) -> None:
    """ValueError: it has more than CARD_BYTES_MAX bytes."""
    if len(card) > CARD_BYTES_MAX:
        raise ValueError(f"a gateway's card has {len(card)} bytes; there is room for {CARD_BYTES_MAX}")


def is_canary(principal: str) -> bool:
    """Whether a session of this principal is nobody's: lists, counts and events leave it out."""
    return principal.startswith(CANARY)


def shard_of(principal: str, shards: int) -> int:
    """The shard of all that belongs to a principal: CRC-32 of its UTF-8, modulo `shards`."""
    return zlib.crc32(principal.encode()) % shards
