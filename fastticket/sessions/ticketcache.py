"""TicketCache: the one control flow between tickets, the near cache and the store.

    check          the near cache alone, synchronous: the hot path
    authenticate   the same; on MISS or REFRESH it waits for a load
    load           single-flight per session; all that falls in one loop turn goes out together
    flush          every `flush_interval_ms`, for every shard that could be admitted from: touches out, log tail in, lease renewed
    repair         after a gap: what is held is looked up again, before an outage could make it unknown
    doorbell       a tail, now
    sweep          every minute, or four times a second while somebody follows the events

Rules of this file
- What may be believed, and until when, `fastticket.sessions.coherence` decides.
- Whatever a reply says goes through `_apply`, in one place: events first, then the lease, from the
  time the request was *sent*.
- A load in flight while its session ends lands with that end: its answer may be older. One in
  flight while its shard's log shows a gap is poisoned: nobody knows what its answer missed, so it
  is asked again.
- Nobody's cancellation cancels a load: flights belong to the batch that sends them, callers only
  look on.
- A touch leaves `_unwritten` only when the store has acknowledged it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, Self, Unpack

from fastticket.core.check import Checker, Session, clock_resolution_ms
from fastticket.core.nearcache import NearCache
from fastticket.core.ticket import Keyring, Ticket, decode_session_id, encode_session_id
from fastticket.errors import (
    ConfigError,
    IssuedTooEarly,
    NotConfirmed,
    StoreBusy,
    StoreUnavailable,
    TicketRefused,
    Verdict,
)
from fastticket.sessions.attributes import Attributes, Changes, JSONSerializer, Saved, Serializer, after
from fastticket.sessions.coherence import (
    Failure,
    Landing,
    Pulse,
    clock_step,
    credited_until_ms,
    granted_until_ms,
    landing,
    take_in,
)
from fastticket.sessions.events import KINDS, EventStream
from fastticket.sessions.nearattributes import NearAttributes
from fastticket.sessions.settings import SettingNames, Settings
from fastticket.stores.contract import (
    ENDED_MS,
    NEVER_WRITTEN,
    NO_DETAILS,
    Changed,
    Event,
    Fleet,
    Position,
    Reply,
    Request,
    Store,
    StoredAttributes,
    StoredSession,
    shard_of,
)
from fastticket.tasks import end

log = logging.getLogger("fastticket.cache")

Consistency = Literal["near", "strong"]
Lifetime = int | float | None  # s: a whole number, or math.inf: no end; None: the usual one

TOUCHES_PER_SLICE = 400  # drained at once, so that no flush holds the loop for more than a millisecond or so
LOAD_ATTEMPTS = 4  # a load is asked again when it was poisoned, or came back past its lease
REPAIRED_AT_ONCE = 500  # entries looked up again in one exchange after a gap,
REPAIR_PAUSE_S = 0.05  # and the pause after it: a store that has just come back has others to serve, too
REPAIR_AGAIN_S = 1.0  # before it is begun again where the store did not answer
UNWRITTEN_MIN = 100_000  # touches that wait for a store which does not take them; or as many as the capacity. Then nothing is loaded
OPEN_PAUSE_S = 0.5  # on average, between two attempts to open a store that was away from the start
SWEEP_INTERVAL_S = 60.0
SWEEP_FOLLOWED_S = 0.25  # while somebody follows the events
FOLLOWED_S = 60.0  # that long after an event was asked for: who handles one may take his time
SWEEP_SESSIONS_MAX = 200  # of each shard in one go: a script holds up everybody else
SETTLE_LEASES = 5  # that long after an outage every gateway has brought its touches
OBSERVED_GAP_MS = 1000  # between sweeps: a store that was away in it would not have been noticed
CLOCK_INTERVAL_S = 10.0  # the store's clock, and what the fleet's longest settings are
FLEET_SETTLE_S = 2.5 * CLOCK_INTERVAL_S  # until every gateway knows that one with longer intervals has joined
CLOSE_ATTEMPTS = 3
LOGIN_ATTEMPTS = 3
TAKEN_OVER = "another server has just taken over, and may not have the session yet; try again"
DRAWS_MAX = 1000  # of tickets, until one suits
DETAILS_BYTES_MAX = 1024
ROTATE_PAUSES_S = (0.1, 0.4)

ENDS_MAX = 16_384  # whose reason is remembered; of others that are gone it is UNKNOWN_SESSION
GAPS_TOLD_S = 1.0  # after the first of them
#: What in `TicketCache.stats` is no counter.
NOW = frozenset(
    {
        "sessions_held",
        "touches_unwritten",
        "flush_lag_ms",
        "shards_leased",
        "shards_away",
        "outage_ms",
        "is_outage_tolerated",
    }
)


_Key = tuple[str, str]  # session id, principal


class SessionInfo(NamedTuple):
    """One of a principal's live sessions. Store time, ms since the epoch."""

    id: str  #: 22 characters, base64url
    principal: str
    created_ms: int
    last_access_ms: int | None  #: at the earliest, as `TicketCache.sessions` says; None: there is no idle timeout
    idle_deadline_ms: int
    absolute_deadline_ms: int  #: 2**53 - 1 if there is none
    details: Mapping[str, str]  #: what the login recorded


class _Flight:
    """A load under way for one session.

    `landed` gets the idle deadline, or a refusal (REVOKED, UNKNOWN_SESSION, IDLE, EXPIRED); the
    near cache knows it then, if there was room. MISS: check again.
    """

    def __init__(self, ticket: Ticket, landed: asyncio.Future[int | Verdict]) -> None:
        self.ticket = ticket
        self.key = (ticket.session_id, ticket.principal)
        self.landed = landed
        self.has_departed = False  # it was asked before now: too early for whoever wants to know how things are now
        self.asked_ms = 0  # store time
        self.ended: Verdict | None = None  # a log, or a logout here, says that the session is over
        self.poisoned = False  # its answer may be older than what was lost in a gap
        self.keyless = False  # its ticket's key has left the ring


class _Check(Protocol):
    """`TicketCache.check` is the checker's own compiled method: no call of Python's lies around it."""

    def __call__(self, ticket: str | bytes, touch: bool = True) -> Session | Verdict:
        """A Session, or a falsy Verdict with `.reason`. Never waits. `touch`: whether it counts as
        a use of the session.
        """


class TicketCache:
    """Authenticates tickets against a near cache that a store keeps true. One event loop; not for
    several threads.

    Use as an async context manager, or `open()` and `aclose()`. Times are ms unless the name says
    s; `clock` (monotonic, ms) is for tests. ConfigError if the settings contradict each other.

    `sessions_max`: of a principal, 0 is any number. `near_attributes_bytes`: for near copies of
    attributes, 0 is none. `expiry_margin_s`: how long after its deadline a session is removed, and
    its end told; by default as long as an outage may last, so that a gateway which was cut off from
    the store can still bring the uses that it saw. Another value, such as 0, holds while somebody
    follows the `events`.
    """

    check: _Check

    def __init__(
        self,
        store: Store,
        keys: Keyring,
        *,
        serializer: Serializer | None = None,
        clock: Callable[[], int] | None = None,
        **settings: Unpack[SettingNames],
    ) -> None:
        self._settings = Settings(**settings)
        self._store = store
        self._keys = keys
        self.serializer: Serializer = serializer or JSONSerializer()
        self._fleet = self._settings.fleet  # the longest settings of all gateways
        self._known_to_all = self._fleet  # the longest that every gateway has heard of, until it has heard of `_fleet`
        self._settled_at_ms = 0
        self._unwritten_max = max(UNWRITTEN_MIN, self._settings.capacity)
        self.near = NearCache(
            self._settings.capacity,
            store.shards,
            slack_ms=self._settings.flush_interval_ms,
            touch_resolution_ms=self._settings.touch_resolution_ms,
            recheck_s=self._settings.recheck_s,
        )
        self.near_attributes = NearAttributes(self._settings.near_attributes_bytes)
        self.checker = Checker(keys, self.near, clock)
        self.check = self.checker.check
        self._clock_resolution_ms = 0 if clock else clock_resolution_ms()
        self._positions: list[Position | None] = [None] * store.shards
        self._outage_since_ms: list[int | None] = [None] * store.shards
        self._answered_at_ms = [0] * store.shards  # when the latest question was sent that was answered
        # Until when who is not in the store may be on the way there, after a failover.
        self._uncertain_until_ms = [0] * store.shards
        self._pulse = Pulse(self._settings.lease_ms // 4)
        self._beater: asyncio.TimerHandle | None = None
        self._repairing: asyncio.Task[None] | None = None
        self._repair_from: int | None = (
            None  # a place in the near cache; None: all that is held was looked up since the last gap
        )
        self._repair_only: set[int] | None = None  # shards; None: all
        self._unwritten: list[dict[_Key, int]] = [{} for _ in range(store.shards)]
        self._flights: dict[_Key, _Flight] = {}
        self._departures: list[_Flight] = []
        self._batches: set[asyncio.Task[None]] = set()
        self._rung: set[int] = set()
        self._bell = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._absence = ""  # why the store was never open yet, while it is awaited (`begin`)
        self._closed = False
        # Since when, and until when, looks at the store have followed each other closely, and it
        # has answered.
        self._observed_since_ms = 0
        self._observed_at_ms: int | None = None  # None: not yet; 0: it has not answered since it failed
        self._followed_until_s = self._sweep_at_s = 0.0
        self._all_written_ms = 0  # whatever was used before is in the store
        self._loads = self._touches_written = self._gaps = self._store_errors = 0
        self._gap_shards: set[int] = set()  # not said yet
        self._ends: dict[str, Verdict] = {}  # of the last sessions that ended: why, for who comes back much later

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Open the store, read its clock and the end of its logs, and start to flush.
        StoreUnavailable, ConfigError.
        """
        await self._open_store()
        self._keeper = asyncio.create_task(self._keep(), name="fastticket-flush")

    async def begin(self, patience_s: float, *, is_known_good: bool = False) -> None:
        """As `open`, but a store that is away, or does not answer in time, is an outage from the
        start: it is opened in the background, and until then whatever needs it is StoreUnavailable.

        ConfigError: it has answered, and is none for us. `is_known_good`: it was one, so that is an
        outage, too.
        """
        opening = asyncio.create_task(self._open_store(), name="fastticket-open")
        try:
            await asyncio.wait({opening}, timeout=patience_s)
        except BaseException:
            await end(opening)
            raise
        if opening.done() and (error := opening.exception()):
            if not isinstance(error, StoreUnavailable | ConfigError) or (
                isinstance(error, ConfigError) and not is_known_good
            ):
                raise error
            self._be_away(str(error))
        elif not opening.done():
            self._be_away(f"the store has not answered in {patience_s:g} s")
        self._keeper = asyncio.create_task(self._await_store(opening), name="fastticket-flush")

    async def _open_store(self) -> None:
        try:
            await self._store.open()
            await self._join()
            await self._read_clock()
        except BaseException:
            await self._store.aclose()
            raise
        self._absence = ""
        self._beat()
        self._all_written_ms = self.checker.monotonic_ms()
        self._store.on_doorbell(self._on_doorbell)
        await self._exchange({shard: Request(None) for shard in range(self._store.shards)})

    def _be_away(self, reason: str) -> None:
        self._absence = reason
        self._observed_at_ms = 0
        self._outage_since_ms = [self.checker.monotonic_ms()] * self._store.shards
        log.error("%s; it is away from the start: whoever needs a session is told to try again until it comes", reason)

    async def _await_store(self, opening: asyncio.Task[None]) -> None:
        """Until it is open, then as ever. `opening`: the attempt that is under way, or has failed."""
        attempt: Awaitable[None] = opening
        while True:
            try:
                await attempt
                break
            except ConfigError as error:
                if str(error) != self._absence:
                    log.error("%s", error)
                self._absence = str(error)
            except StoreUnavailable as error:
                self._absence = str(error)
            except Exception:
                log.exception("the store could not be opened; it is tried again")
            await asyncio.sleep(OPEN_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311
            attempt = self._open_store()
        await self._keep()

    @property
    def _opened(self) -> Store:
        """The store. StoreUnavailable: it is still awaited."""
        if self._absence:
            raise StoreUnavailable(self._absence)
        return self._store

    @property
    def was_opened(self) -> bool:
        """Whether `open` has succeeded; true of a closed cache, too."""
        return self._keeper is not None

    @property
    def remember_lifetime_s(self) -> int:
        """How long a session lasts that was begun with `remember`, in s."""
        return self._settings.remember_lifetime_s

    async def aclose(self) -> None:
        """Write every touch, then close the store. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await end(self._keeper, self._repairing)
        if self._beater:
            self._beater.cancel()
        if self._batches:
            await asyncio.wait(self._batches)
        for _ in range(CLOSE_ATTEMPTS):
            await self.flush()
            if not self._pending():
                break
        else:
            log.error("closing with %d touches unwritten: the store does not take them", self._pending())
        await self._store.aclose()

    # --- sessions

    async def login(
        self,
        principal: str,
        *,
        remember: bool = False,
        idle_timeout_s: Lifetime = None,
        absolute_lifetime_s: Lifetime = None,
        details: Mapping[str, str] = NO_DETAILS,
        suits: Callable[[str], bool] | None = None,
    ) -> str:
        """Create a session and return its ticket, ready for a cookie.

        `remember`: it may go unused, and ends after `remember_lifetime_s`. The two lifetimes
        override that, and this cache's own: whole seconds, 1 or more; math.inf: no end. 0 is
        refused: what is computed, and comes to nothing, is not to last for ever. `details`: what
        `sessions` shall say of this login, e.g. address and user agent; at most 1,024 bytes as
        JSON. `suits`: whether a ticket will do; they are made until one does, at most DRAWS_MAX.

        InvalidPrincipal, StoreUnavailable; TooManySessions if the policy for more than
        `sessions_max` is to refuse; ValueError.
        """
        if len(json.dumps(dict(details), ensure_ascii=False).encode()) > DETAILS_BYTES_MAX:
            raise ValueError(f"details must have at most {DETAILS_BYTES_MAX} bytes as JSON: shorten them")
        usual_s = (self._settings.idle_timeout_s, self._settings.absolute_lifetime_s)
        if remember:
            usual_s = (0, self._settings.remember_lifetime_s)
        lifetimes_s = self._lifetimes_s(idle_timeout_s, absolute_lifetime_s, usual_s)
        issued_at_ms = self.now_ms()
        for _ in range(LOGIN_ATTEMPTS):
            text = self._draw(principal, issued_at_ms, lifetimes_s, suits)
            try:
                await self._create(self._stored_session(self._verified(text, issued_at_ms), issued_at_ms, details))
            except IssuedTooEarly as early:
                issued_at_ms = early.after_ms + 1
            else:
                return text
        raise StoreUnavailable("the principal is being logged out everywhere over and over; try again")

    async def _create(self, session: StoredSession) -> None:
        try:
            gone = await self._opened.create(
                session,
                sessions_max=self._settings.sessions_max,
                evicts=self._settings.sessions_max_policy == "evict-oldest",
            )
        except StoreUnavailable:
            with contextlib.suppress(StoreUnavailable):  # it may be there: a session that nobody has, and that counts
                await self._opened.revoke(session.id, session.principal)
            raise
        for session_id in gone:
            self._end(session_id, session.principal, Verdict.REVOKED)

    async def rotate(
        self,
        ticket: str | bytes,
        *,
        idle_timeout_s: Lifetime = None,
        absolute_lifetime_s: Lifetime = None,
        suits: Callable[[str], bool] | None = None,
    ) -> str:
        """A new ticket for the same session, under another id: after a change of privileges, or to
        change its lifetimes.

        The old ticket is refused from now on, everywhere within the lease. Attributes and details
        stay; the absolute lifetime counts from the login. `suits`: as for `login`. TicketRefused,
        StoreUnavailable (the old ticket may be over then); ValueError: it would be over at once.
        """
        await self.authenticate(ticket)
        now_ms = self.now_ms()
        old = self._verified(ticket, now_ms)
        lifetimes_s = self._lifetimes_s(
            idle_timeout_s, absolute_lifetime_s, (old.idle_timeout_s, old.absolute_lifetime_s)
        )
        text = self._draw(old.principal, old.issued_at_ms, lifetimes_s, suits)
        new = self._keys.verify(text, now_ms)
        if not isinstance(new, Ticket):
            raise ValueError(
                f"absolute_lifetime_s: {lifetimes_s[1]} s after its login the session would be over; log out"
            )
        is_done = await self._rotated(old.session_id, self._stored_session(new, now_ms))
        if not is_done:
            self._check_certain(old.principal)
        self._end(old.session_id, old.principal, Verdict.REVOKED)
        if not is_done:
            raise TicketRefused(Verdict.REVOKED)
        return text

    async def _rotated(self, session_id: str, successor: StoredSession) -> bool:
        """Where a reply was lost, the old ticket may be over, and nobody has the new one: so ask
        again, for the same one.
        """
        for pause_s in ROTATE_PAUSES_S:
            try:
                return await self._opened.rotate(session_id, successor)
            except NotConfirmed:
                return True  # a failover may lose it; the store then does it again
            except StoreUnavailable:
                await asyncio.sleep(pause_s)
        return await self._opened.rotate(session_id, successor)

    async def authenticate(
        self, ticket: str | bytes, *, touch: bool = True, consistency: Consistency = "near"
    ) -> Session:
        """The session of a ticket, loaded if need be. TicketRefused (`.reason` is a slug),
        StoreUnavailable.

        `consistency="strong"`: the store is asked in any case, and a session that was revoked
        before this call is refused. With the store away nobody is admitted, whatever the outage
        policy.
        """
        if consistency == "strong":
            await self._confirm(ticket)
        loaded: int | Verdict = Verdict.MISS
        for _ in range(LOAD_ATTEMPTS):
            verdict = self.check(ticket, touch)
            if isinstance(verdict, Session):
                return verdict
            if verdict.is_refusal:
                raise TicketRefused(verdict)
            verified = self._verified(ticket, self.now_ms())
            if verdict is Verdict.MISS and isinstance(loaded, int) and self._is_leased(verified.principal):
                return self._uncached(ticket, verified, loaded, touch)
            try:
                loaded = await self._load(verified)
            except StoreUnavailable:
                # On credit, as long as `_outage` renews the lease.
                credited = self.near.extend(verified.raw, self.now_ms()) and self.check(ticket, touch)
                if isinstance(credited, Session):
                    return credited
                raise
            if isinstance(loaded, Verdict) and loaded.is_refusal:
                raise TicketRefused(loaded)
        raise StoreUnavailable(
            "the store answers too slowly: loads come back after their lease is over; look at its latency"
        )

    async def _confirm(self, ticket: str | bytes) -> None:
        """Load what the store says now. A load that was sent before is waited for, and not
        believed.
        """
        verified = self._verified(ticket, self.now_ms())
        while (flight := self._flights.get((verified.session_id, verified.principal))) and flight.has_departed:
            await asyncio.wait([flight.landed])
        loaded = await self._load(verified)
        if isinstance(loaded, Verdict) and loaded.is_refusal:
            raise TicketRefused(loaded)

    async def logout(self, ticket: str | bytes) -> bool:
        """End the session of a ticket. False: it had none any more. TicketRefused if it is not
        authentic; StoreUnavailable.
        """
        verified = self._keys.verify(ticket, self.now_ms())
        if not isinstance(verified, Ticket):
            if verified is Verdict.EXPIRED:
                return False
            raise TicketRefused(verified)
        ended = await self._opened.revoke(verified.session_id, verified.principal)
        self._end(verified.session_id, verified.principal, Verdict.REVOKED)
        return ended

    async def logout_everywhere(self, principal: str, *, keep: Session | None = None) -> int:
        """End every session of a principal, or all but one. Returns how many there were.
        StoreUnavailable.
        """
        ended = await self._opened.revoke_all(principal, keep=keep.id if keep else "")
        for session_id in ended:
            self._end(session_id, principal, Verdict.REVOKED)
        return len(ended)

    async def revoke(self, session_id: str, principal: str) -> bool:
        """End one of the sessions that `sessions` names. False: that principal has none with this
        id (any more). StoreUnavailable.
        """
        ended = await self._opened.revoke(session_id, principal, "revoked")
        if ended:
            self._end(session_id, principal, Verdict.REVOKED)
        else:  # it may be somebody else's, and live; if it has ended, the log says so
            self._on_doorbell(shard_of(principal, self._store.shards))
        return ended

    async def sessions(self, principal: str) -> Sequence[SessionInfo]:
        """The principal's live sessions. StoreUnavailable.

        The last access is at most a flush interval old. It follows from the idle deadline: where
        that one has met the absolute deadline, the access may have been later.
        """
        return [self._session_info(session) for session in await self._opened.sessions(principal)]

    def events(self, position: str | None = None, kinds: Collection[str] = KINDS) -> EventStream:
        """What becomes of sessions from now on, or from a `position` that an event had: `async for
        event in cache.events()`.

        While somebody iterates, and for a minute after each event, sessions that have passed their
        deadline are ended in time for `expiry_margin_s`. A gap in the log is `lost`, whatever
        `kinds` says. ValueError: no such position, no such kind.
        """
        return EventStream(self._opened, position, kinds, self._settings.flush_interval_ms / 1000, self._on_followed)

    # --- attributes

    def attributes(self, session: Session, *, seen: Position = NEVER_WRITTEN) -> Attributes:
        """What the application keeps in a session: a mapping to `load`, or to use with `async
        with`. Asks nothing yet.

        `seen`: the version that its reader knows of, as `Attributes.version` had it, perhaps in
        another process: he is shown none that is older.
        """
        return Attributes(self, session, self.serializer, seen)

    async def read_attributes(self, session: Session, *, seen: Position = NEVER_WRITTEN) -> StoredAttributes:
        """As stored, or a near copy if there is one that is not older than `seen`, and the lease
        holds. `attributes` decodes them.

        The store has the last word: if its version is older than `seen`, there is no later one.
        TicketRefused, StoreUnavailable.
        """
        self._check_end(session)
        copy = self.near_copy(session, seen=seen)
        if copy:
            return copy
        session_id, principal = session.id, session.principal
        shard = shard_of(principal, self._store.shards)
        await self._find_positions([shard])
        flight = self.near_attributes.depart(session_id, shard)
        found = None
        try:
            found = await self._opened.read_attributes(session_id, principal)
        finally:
            self.near_attributes.land(flight, found)
        if found is None:
            raise self._over(session_id, principal)
        return found

    def near_copy(self, session: Session, *, seen: Position = NEVER_WRITTEN) -> StoredAttributes | None:
        """The near copy of a session's attributes, if there is one of `seen` or later, and the
        lease holds. Never waits; any thread.
        """
        # The lease first: a copy that is there after it was renewed has survived what the log said
        # then.
        copy = self.near_attributes.find(session.id) if self._is_leased(session.principal) else None
        return copy if copy and copy.version >= seen else None

    async def write_attributes(self, session: Session, changes: Changes, held: StoredAttributes | None) -> Saved:
        """Write changes to what was read as `held`. AttributesTooLarge, TicketRefused,
        StoreUnavailable.
        """
        self._check_end(session)
        session_id, principal = session.id, session.principal
        held = held or self.near_attributes.find(session_id)
        flight = self.near_attributes.depart(session_id, shard_of(principal, self._store.shards))
        now = None
        try:
            written = await self._opened.write_attributes(
                session_id, principal, changes.values, changes.removed, bytes_max=self._settings.attributes_bytes_max
            )
            if written:
                # As the log will say: whatever is under way since before this write is older.
                self.near_attributes.changed(session_id, written.version)
                now = after(held, changes, written)
        finally:
            self.near_attributes.land(flight, now)
        if written is None:
            raise self._over(session_id, principal)
        return Saved(written.version, now)

    def _check_end(self, session: Session) -> None:
        """A session that somebody holds on to does not outlive its end, even if the store has not
        removed it yet.
        """
        if self.now_ms() >= session.absolute_deadline_ms:
            raise TicketRefused(Verdict.EXPIRED)

    def _over(self, session_id: str, principal: str) -> TicketRefused:
        """The store has no such session, and never will again. StoreUnavailable: or it may."""
        self._check_certain(principal)
        logged = self.near.remembered_refusal(decode_session_id(session_id), self.now_ms())
        verdict = Verdict.REVOKED if logged is None else logged
        self._end(session_id, principal, verdict)
        return TicketRefused(verdict)

    # --- keys, counters

    def replace_keys(self, keys: Iterable[tuple[int, bytes]]) -> None:
        """Another key ring, oldest first. What was verified under a key that is gone is forgotten.
        ConfigError.
        """
        gone = self._keys.replace(keys)
        for key_id in gone:
            self.near.drop_key(key_id)
        for flight in self._flights.values():
            flight.keyless |= flight.ticket.key_id in gone

    @property
    def stats(self) -> dict[str, int]:
        """Counters since the start, and how things are now (`NOW`).

        `flush_lag_ms`: no use of a session that is not written yet is older.
        """
        now_ms = self.checker.monotonic_ms()
        clock_ms = self.now_ms()
        pending = self._pending()
        outages_ms = [now_ms - since_ms for since_ms in self._outage_since_ms if since_ms is not None]
        return {
            "hits": self.near.hits,
            "misses": self.near.misses,
            "refreshes": self.near.refreshes,
            "evictions": self.near.evictions,
            "sessions_held": len(self.near),
            "loads": self._loads,
            "touches_written": self._touches_written,
            "touches_coalesced": self.near.touches_coalesced,
            "touches_unwritten": pending,
            "flush_lag_ms": now_ms - self._all_written_ms if pending else 0,
            "gaps": self._gaps,
            "store_errors": self._store_errors,
            "shards_leased": sum(self.near.lease_until_ms(shard) > clock_ms for shard in range(self._store.shards)),
            "shards_away": len(outages_ms),
            "outage_ms": max(outages_ms, default=0),
            "is_outage_tolerated": not self._absence and max(outages_ms, default=0) < self._settings.outage_grace_ms,
        }

    @property
    def store_servers(self) -> Mapping[str, str]:
        """The servers behind the store, and whether they are asked: `closed` (yes), `open` (no, one
        failed), `half-open` (on trial).
        """
        return self._store.servers

    @property
    def absolute_lifetime_s(self) -> int:
        """How long a session lasts that was begun without `remember`, in s; 0: no end."""
        return self._settings.absolute_lifetime_s

    def now_ms(self) -> int:
        """The store's clock as known here, ms since the epoch."""
        return self.checker.now_ms()

    # --- what a session is

    def _lifetimes_s(self, idle_s: Lifetime, absolute_s: Lifetime, usual_s: tuple[int, int]) -> tuple[int, int]:
        """Those asked for, checked, else the usual ones; as a ticket has them, 0: none."""
        lifetimes_s = (
            _in_ticket("idle_timeout_s", idle_s, usual_s[0]),
            _in_ticket("absolute_lifetime_s", absolute_s, usual_s[1]),
        )
        error = self._settings.lifetimes_fault(*lifetimes_s, self._fleet.flush_interval_ms)
        if error:
            raise ValueError(error)
        return lifetimes_s

    def _draw(
        self, principal: str, issued_at_ms: int, lifetimes_s: tuple[int, int], suits: Callable[[str], bool] | None
    ) -> str:
        """A ticket with a session id of its own; the last one drawn if none suits."""
        for _ in range(DRAWS_MAX):
            text = self._keys.mint(principal, issued_at_ms, *lifetimes_s)
            if suits is None or suits(text):
                break
        return text

    def _stored_session(self, ticket: Ticket, now_ms: int, details: Mapping[str, str] = NO_DETAILS) -> StoredSession:
        return StoredSession(
            ticket.session_id,
            ticket.principal,
            ticket.idle_deadline_ms(now_ms, self._fleet.flush_interval_ms),
            ticket.issued_at_ms,
            ticket.idle_timeout_s,
            ticket.absolute_lifetime_s,
            details,
        )

    def _session_info(self, session: StoredSession) -> SessionInfo:
        used_ms = session.idle_deadline_ms - session.idle_timeout_s * 1000 - self._fleet.flush_interval_ms
        return SessionInfo(
            session.id,
            session.principal,
            session.created_ms,
            max(used_ms, session.created_ms) if session.idle_timeout_s else None,
            session.idle_deadline_ms,
            session.absolute_deadline_ms,
            session.details,
        )

    # --- load

    def _verified(self, text: str | bytes, now_ms: int) -> Ticket:
        ticket = self._keys.verify(text, now_ms)
        if not isinstance(ticket, Ticket):
            raise TicketRefused(ticket)
        return ticket

    async def _load(self, ticket: Ticket) -> int | Verdict:
        """What a flight lands with. Joins the one that is under way for the session."""
        if self._closed:
            raise StoreUnavailable("the ticket cache is closed")
        if sum(map(len, self._unwritten)) >= self._unwritten_max:
            raise StoreUnavailable(
                f"{self._unwritten_max} touches wait: the store does not take them, so nobody is loaded"
            )
        key = (ticket.session_id, ticket.principal)
        flight = self._flights.get(key)
        if flight is None:
            loop = asyncio.get_running_loop()
            flight = self._flights[key] = _Flight(ticket, loop.create_future())
            self._loads += 1
            if not self._departures:
                loop.call_soon(self._depart)
            self._departures.append(flight)
        return await asyncio.shield(flight.landed)

    def _depart(self) -> None:
        flights, self._departures = self._departures, []
        batch = asyncio.create_task(self._fly(flights), name="fastticket-load")
        self._batches.add(batch)
        batch.add_done_callback(self._batches.discard)

    async def _fly(self, flights: list[_Flight]) -> None:
        try:
            for _ in range(LOAD_ATTEMPTS):
                for flight in flights:
                    flight.poisoned = False
                    flight.has_departed = True
                    flight.asked_ms = self.now_ms()
                answers = await self._look_up([flight.key for flight in flights])
                flights = [flight for flight in flights if not self._land(flight, answers[flight.key])]
                if not flights:
                    return
        finally:  # whatever happened, nobody waits for ever
            for flight in (flight for flight in flights if not flight.landed.done()):
                self._land(flight, StoreUnavailable("the session changes faster than it can be loaded; try again"))

    async def _look_up(self, keys: list[_Key]) -> dict[_Key, int | StoreUnavailable | None]:
        wanted: dict[int, list[_Key]] = {}
        for key in keys:
            wanted.setdefault(shard_of(key[1], self._store.shards), []).append(key)
        await self._find_positions(wanted)
        requests = {shard: Request(self._positions[shard], (), batch) for shard, batch in wanted.items()}
        answers: dict[_Key, int | StoreUnavailable | None] = {}
        for shard, reply in (await self._exchange(requests)).items():
            if isinstance(reply, StoreUnavailable):
                answers.update(dict.fromkeys(wanted[shard], reply))
            else:
                answers.update(zip(wanted[shard], reply.deadlines_ms, strict=True))
        return answers

    async def _find_positions(self, shards: Iterable[int]) -> None:
        """A load needs a place in the log to go on from: only then does somebody see what is
        revoked after it.
        """
        unknown = {shard: Request(None) for shard in shards if self._positions[shard] is None}
        if unknown:
            await self._exchange(unknown)

    def _land(self, flight: _Flight, answer: int | StoreUnavailable | None) -> bool:
        """False: it must go again. What lives is entered right here, before anything else runs:
        later, it could have ended.
        """
        now_ms = self.now_ms()
        error = answer if isinstance(answer, StoreUnavailable) else None
        deadline_ms = None if isinstance(answer, StoreUnavailable) else self._latest_deadline_ms(flight.ticket, answer)
        where = landing(
            ended=flight.ended,
            has_failed=error is not None,
            is_poisoned=flight.poisoned,
            is_keyless=flight.keyless,
            deadline_ms=deadline_ms,
            asked_ms=flight.asked_ms,
            now_ms=now_ms,
        )
        if where is Landing.AGAIN:
            return False
        if where is Landing.GONE and answer != ENDED_MS and self._may_come_yet(flight.ticket, now_ms):
            error = StoreUnavailable(TAKEN_OVER)
        if error and where in (Landing.FAILED, Landing.GONE):
            flight.landed.set_exception(error)
            flight.landed.exception()  # looked at, even if every caller has gone
        else:
            flight.landed.set_result(self._arrive(flight, where, deadline_ms, now_ms))
        del self._flights[flight.key]
        return True

    def _arrive(self, flight: _Flight, where: Landing, deadline_ms: int | None, now_ms: int) -> int | Verdict:
        """Enter what the store said; the deadline, or why there is none."""
        session_id = decode_session_id(flight.ticket.session_id)
        if where is Landing.LIVES and deadline_ms is not None:
            self.near.insert(flight.ticket.raw, self._shard_of(flight), deadline_ms, now_ms, False)
            return deadline_ms
        if where is Landing.ENDED and flight.ended is not None:
            return flight.ended
        if where is Landing.KEYLESS:
            return Verdict.MISS
        logged = self._ends.get(flight.ticket.session_id)
        if logged is None:
            logged = self.near.remembered_refusal(session_id, now_ms)
        verdict = Verdict.IDLE if where is Landing.IDLE else Verdict.UNKNOWN_SESSION if logged is None else logged
        self.near.refuse(session_id, verdict, now_ms)
        return verdict

    def _latest_deadline_ms(self, ticket: Ticket, stored_deadline_ms: int | None) -> int | None:
        """The latest one known counts: a use that this gateway saw may not have reached the store,
        for as long as it was away.
        """
        if stored_deadline_ms is None or stored_deadline_ms == ENDED_MS:
            return None
        unwritten = self._unwritten[shard_of(ticket.principal, self._store.shards)]
        unwritten_ms = unwritten.get((ticket.session_id, ticket.principal), 0)
        return max(stored_deadline_ms, unwritten_ms, self.near.idle_deadline_ms(decode_session_id(ticket.session_id)))

    def _is_uncertain(self, shard: int) -> bool:
        """Whether another server has taken over less than a lease ago: until then, every gateway
        makes again what it may lack.
        """
        return self.checker.monotonic_ms() < self._uncertain_until_ms[shard]

    def _may_come_yet(self, ticket: Ticket, now_ms: int) -> bool:
        """Whether a session that the store does not have may still be there: another server has
        just taken over; or one has, of which this gateway has not heard yet, and the login was
        there.
        """
        is_news = self._store.doubt_ms > 0 and now_ms - ticket.issued_at_ms < self._settings.lease_ms
        return is_news or self._is_uncertain(shard_of(ticket.principal, self._store.shards))

    def _check_certain(self, principal: str) -> None:
        """StoreUnavailable: that the store does not have a session means nothing yet."""
        if self._is_uncertain(shard_of(principal, self._store.shards)):
            raise StoreUnavailable(TAKEN_OVER)

    def _uncached(self, text: str | bytes, ticket: Ticket, deadline_ms: int, touch: bool) -> Session:
        """Admit a session that was loaded and found no room, or has lost it again. Its touch waits
        with the unwritten ones.
        """
        if touch:
            shard = shard_of(ticket.principal, self._store.shards)
            used_ms = ticket.idle_deadline_ms(self.now_ms(), self._fleet.flush_interval_ms)
            self._keep_unwritten(shard, (ticket.session_id, ticket.principal), used_ms)
        return self.checker.session_of(text, deadline_ms)

    # --- flush

    async def flush(self) -> None:
        """Write what is dirty now and read the logs. Called every flush interval; raises nothing,
        what failed is kept.

        What is used again while this goes on waits for the next one: a session has one touch in a
        flush.
        """
        async with self._flushing:
            began_ms = self.checker.monotonic_ms()
            due = [shard for shard in range(self._store.shards) if self._is_due(shard)]
            for shard in due:
                await self._collect(shard)
            # None waits for another's answer: what a crash loses must not grow with the round trip
            # (P5).
            writing = []
            for requests in self._write_requests({shard: list(self._unwritten[shard]) for shard in due}):
                writing.append(asyncio.create_task(self._write(requests), name="fastticket-write"))
                await asyncio.sleep(0)  # requests come in between
            await asyncio.gather(*writing)
            if not any(self._unwritten):
                self._all_written_ms = began_ms

    async def _write(self, requests: Mapping[int, Request]) -> None:
        for shard, reply in (await self._exchange(requests)).items():
            if isinstance(reply, Reply):
                self._written(shard, requests[shard].touches)

    def _write_requests(self, left: dict[int, list[_Key]]) -> Iterator[dict[int, Request]]:
        """Pieces of what is there to write. A shard is cut only if it is more than a piece: each
        part is a command of its own.
        """
        most = self._store.touches_per_exchange
        while left:
            room = most
            requests: dict[int, Request] = {}
            for shard, keys in list(left.items()):
                if requests and keys and (room == 0 or room < len(keys) <= most):
                    continue
                unwritten = self._unwritten[shard]
                taken, rest = keys[:room], keys[room:]
                touches = [(key[0], key[1], unwritten[key]) for key in taken if key in unwritten]
                requests[shard] = Request(self._positions[shard], touches)
                room -= len(taken)
                if rest:
                    left[shard] = rest
                else:
                    del left[shard]
            yield requests

    def _is_due(self, shard: int) -> bool:
        """Whatever could be admitted from is heard of within the lease, used or not: an outage
        finds it leased, or not at all.
        """
        is_away = self._outage_since_ms[shard] is not None  # so that somebody notices when it is over
        return is_away or self.near.held_in(shard) > 0 or bool(self._unwritten[shard])

    async def _collect(self, shard: int) -> None:
        """Move what is dirty now, and joins no more, to the unwritten; in slices, so that requests
        come in between.
        """
        unwritten = self._unwritten[shard]
        left = self.near.dirty_in(shard)
        while left > 0:
            self.checker.collect(shard, min(left, TOUCHES_PER_SLICE), unwritten)
            left -= TOUCHES_PER_SLICE
            if left > 0:
                await asyncio.sleep(0)

    def _keep_unwritten(self, shard: int, key: _Key, deadline_ms: int) -> None:
        unwritten = self._unwritten[shard]
        unwritten[key] = max(deadline_ms, unwritten.get(key, 0))

    def _written(self, shard: int, touches: Sequence[tuple[str, str, int]]) -> None:
        unwritten = self._unwritten[shard]
        self._touches_written += len(touches)
        for session_id, principal, deadline_ms in touches:
            key = session_id, principal
            # A later use may have come while this one was being written.
            if unwritten.get(key) == deadline_ms:
                del unwritten[key]

    def _pending(self) -> int:
        return self.near.dirty_count + sum(map(len, self._unwritten))

    # --- what the store says

    async def _exchange(self, requests: Mapping[int, Request]) -> Mapping[int, Reply | StoreUnavailable]:
        sent_at_ms = self.checker.monotonic_ms()
        try:
            replies = await self._opened.exchange(requests)
        except StoreUnavailable as error:
            replies = dict.fromkeys(requests, error)
        except Exception as error:  # a bug; whoever waits for a load must hear of it all the same
            log.exception("the store failed in an unexpected way")
            replies = dict.fromkeys(requests, StoreUnavailable(f"unexpected: {type(error).__name__}"))
        for shard, reply in replies.items():
            if isinstance(reply, StoreUnavailable):
                self._outage(shard, reply, sent_at_ms)
            else:
                self._apply(shard, requests[shard], reply, sent_at_ms)
        if log.isEnabledFor(logging.DEBUG):
            self._tell_exchange(requests, replies, self.checker.monotonic_ms() - sent_at_ms)
        return replies

    @staticmethod
    def _tell_exchange(
        requests: Mapping[int, Request], replies: Mapping[int, Reply | StoreUnavailable], took_ms: int
    ) -> None:
        answered = [reply for reply in replies.values() if isinstance(reply, Reply)]
        log.debug(
            "exchange: %d touches, %d sessions looked up, %d shards of which %d answered, %d events, in %d ms",
            sum(len(request.touches) for request in requests.values()),
            sum(len(request.wanted) for request in requests.values()),
            len(requests),
            len(answered),
            sum(len(reply.events) for reply in answered),
            took_ms,
        )

    def _apply(self, shard: int, request: Request, reply: Reply, sent_at_ms: int) -> None:
        """Take in what a log says. It does not poison the loads that came with it: their deadlines
        were read after it.
        """
        tidings = take_in(self._positions[shard], request.since, reply.position, reply.gap)
        if self._outage_since_ms[shard] is not None:
            self._outage_since_ms[shard] = None
            if not self._shards_away():
                log.warning("the store answers again, for every shard")
        if reply.replaced:
            self._uncertain_until_ms[shard] = self.checker.monotonic_ms() + self._fleet.lease_ms
        if tidings.forgets:
            self._gaps += 1
            self.near.bump_epoch(shard)
            self.near_attributes.forget(shard)
            self._repair()
        if tidings.poisons:
            self._note_gap(shard)
            own = set(request.wanted)
            for key, flight in self._flights.items():
                flight.poisoned |= key not in own and self._shard_of(flight) == shard
        for event in reply.events:
            self._hear(event)
        self._positions[shard] = tidings.position
        self._answered_at_ms[shard] = max(self._answered_at_ms[shard], sent_at_ms)
        if tidings.renews:
            confirmed_at_ms = sent_at_ms - self._store.doubt_ms
            self._lease(shard, granted_until_ms(self._leased_until_ms(shard), confirmed_at_ms, self._settings.lease_ms))

    def _note_gap(self, shard: int) -> None:
        """A store that restarts has one in each shard: they are said together."""
        if not self._gap_shards:
            asyncio.get_running_loop().call_later(GAPS_TOLD_S, self._tell_gaps)
        self._gap_shards.add(shard)

    def _tell_gaps(self) -> None:
        shards = ", ".join(map(str, sorted(self._gap_shards)))
        self._gap_shards.clear()
        log.warning("the store's log has a gap; every session will be looked up again of the shards %s", shards)

    def _hear(self, event: Event) -> None:
        log.debug("heard: %s session %.6s of %r %s", event.kind, event.session_id, event.principal, event.reason)
        match event.kind:
            case "revoked" | "rotated":
                self._end(event.session_id, event.principal, Verdict.REVOKED)
            case "expired":
                verdict = Verdict.EXPIRED if event.reason == "absolute" else Verdict.IDLE
                self._end(event.session_id, event.principal, verdict)
            case "changed":
                self.near_attributes.changed(event.session_id, event.position)

    def _end(self, session_id: str, principal: str, verdict: Verdict) -> None:
        """A session is over, for ever: refuse it from now on, whatever load is under way."""
        with contextlib.suppress(ValueError):  # not the id of a ticket's session
            self.near.refuse(decode_session_id(session_id), verdict, self.now_ms())
        self.near_attributes.end(session_id)
        self._ends[session_id] = verdict
        if len(self._ends) > ENDS_MAX:
            del self._ends[next(iter(self._ends))]
        flight = self._flights.get((session_id, principal))
        if flight:
            flight.ended = verdict

    def _shard_of(self, flight: _Flight) -> int:
        return shard_of(flight.ticket.principal, self._store.shards)

    def _outage(self, shard: int, error: StoreUnavailable, sent_at_ms: int) -> None:
        """The shard did not answer. While that is young, what is held goes on being admitted, if it
        was until now.
        """
        self._store_errors += 1
        self._observed_at_ms = 0
        if isinstance(error, StoreBusy) or self._answered_at_ms[shard] > sent_at_ms:
            return  # nothing was asked; or somebody has asked later, and was answered: no outage
        now_ms = self.checker.monotonic_ms()
        self._pulse.beat(now_ms)
        since_ms = self._outage_since_ms[shard]
        if since_ms is None:
            if not self._shards_away():
                grace_s = self._settings.outage_grace_ms // 1000
                log.error(
                    "%s; sessions held here are admitted for %d s (outage_policy, outage_grace_s)", error, grace_s
                )
            since_ms = self._outage_since_ms[shard] = now_ms
        failure = Failure(sent_at_ms, now_ms, self._pulse.stalled_at_ms, self._answered_at_ms[shard], since_ms)
        leased_until_ms = self._leased_until_ms(shard)
        self._lease(
            shard, credited_until_ms(leased_until_ms, failure, self._settings.lease_ms, self._settings.outage_grace_ms)
        )

    def _shards_away(self) -> int:
        return sum(since_ms is not None for since_ms in self._outage_since_ms)

    def _leased_until_ms(self, shard: int) -> int:
        """By this process's clock. The near cache has it in store time, and early by what its own
        clock may be late.
        """
        return self.near.lease_until_ms(shard) - self.checker.offset_ms + self._clock_resolution_ms

    def _lease(self, shard: int, until_ms: int) -> None:
        self.near.renew_lease(shard, until_ms + self.checker.offset_ms - self._clock_resolution_ms)

    def _is_leased(self, principal: str) -> bool:
        return self.near.lease_until_ms(shard_of(principal, self._store.shards)) > self.now_ms()

    async def _read_clock(self) -> None:
        """Follow the store's clock. Leases are spans of this process's time: they move along, and a
        jump extends none.
        """
        before_ms = self.checker.monotonic_ms()
        store_ms = await self._store.time_ms()
        after_ms = self.checker.monotonic_ms()
        measured_ms = store_ms - (before_ms + after_ms) // 2
        uncertainty_ms = after_ms - before_ms + self._clock_resolution_ms
        step = clock_step(self.checker.offset_ms, measured_ms, uncertainty_ms)
        if not step.by_ms:
            return
        self.checker.set_offset_ms(self.checker.offset_ms + step.by_ms)
        for shard in range(self._store.shards):
            self.near.shift_lease(shard, step.by_ms)
        if step.is_jump:
            self.near.forget_refusals()
            for shard in range(self._store.shards):
                self.near.bump_epoch(shard)
            self._repair()

    # --- the fleet

    async def _join(self) -> None:
        """Tell the fleet this gateway's intervals, and learn the longest: the time that a use takes
        to be written is in every deadline.

        1. the others' deadlines allow for a flush interval of 500 ms
        2. a gateway joins that flushes every 2,000 ms: until all have heard of it, its uses could come too late for them
        So until then it flushes as often as they expect.
        """
        before = await self._store.join(self._fleet)
        longest = self._fleet if before is None else Fleet(*map(max, before, self._fleet))
        if before is not None and longest != before:
            self._known_to_all = before
            self._settled_at_ms = self.checker.monotonic_ms() + round(FLEET_SETTLE_S * 1000)
            log.info("the fleet's longest flush interval is now %d ms, its longest lease %d ms", *longest)
        self._fleet = longest
        self.near.slack_ms = longest.flush_interval_ms

    @property
    def _interval_ms(self) -> int:
        """Between two flushes."""
        if self.checker.monotonic_ms() >= self._settled_at_ms:
            return self._settings.flush_interval_ms
        return min(self._settings.flush_interval_ms, self._known_to_all.flush_interval_ms)

    # --- after a gap

    def _repair(self) -> None:
        """Look up again what is held: if the store went away first, nobody could say who may still
        be admitted (P8).
        """
        self._repair_from, self._repair_only = 0, None
        if self._keeper and (self._repairing is None or self._repairing.done()):
            self._repairing = asyncio.create_task(self._look_up_stale(), name="fastticket-repair")

    async def _look_up_stale(self) -> None:
        """Until all was looked up. Shards that did not answer, as those of servers that have just
        taken over may not, are looked up again: else who is not used meanwhile would be unknown in
        the next outage.
        """
        failed: set[int] = set()
        while self._repair_from is not None:
            stale = await self._find_stale()
            wanted: dict[int, list[tuple[bytes, _Key]]] = {}
            for shard, session_id, principal in stale:
                if self._repair_only is None or shard in self._repair_only:
                    key = encode_session_id(session_id), principal.decode()
                    wanted.setdefault(shard, []).append((session_id, key))
            epochs = {shard: self.near.epoch(shard) for shard in wanted}
            requests = {
                shard: Request(self._positions[shard], (), [key for _, key in held]) for shard, held in wanted.items()
            }
            for shard, reply in (await self._exchange(requests)).items():
                if isinstance(reply, Reply):
                    self._confirm_held(wanted[shard], reply.deadlines_ms, shard, epochs[shard])
                else:
                    failed.add(shard)
            if failed and self._repair_from is None:
                self._repair_from, self._repair_only, failed = 0, failed, set()
                await asyncio.sleep(REPAIR_AGAIN_S)
            await asyncio.sleep(REPAIR_PAUSE_S)

    async def _find_stale(self) -> list[tuple[int, bytes, bytes]]:
        """Enough for one exchange, in slices, so that requests come in between. Fewer: there are no
        more.
        """
        found: list[tuple[int, bytes, bytes]] = []
        while self._repair_from is not None and len(found) < REPAIRED_AT_ONCE:
            more, self._repair_from = self.near.stale(self._repair_from, REPAIRED_AT_ONCE - len(found))
            found += more
            await asyncio.sleep(0)
        return found

    def _confirm_held(
        self, held: Sequence[tuple[bytes, _Key]], deadlines_ms: Sequence[int | None], shard: int, epoch: int
    ) -> None:
        """What is not there is left as it is: whoever uses it has it loaded, and hears why it is
        refused.
        """
        now_ms = self.now_ms()
        for (session_id, key), deadline_ms in zip(held, deadlines_ms, strict=True):
            if deadline_ms is not None and deadline_ms != ENDED_MS:
                latest_ms = max(deadline_ms, self._unwritten[shard].get(key, 0))
                self.near.confirm(session_id, epoch, latest_ms, now_ms)

    # --- the keeper of all this

    def _on_doorbell(self, shard: int, changed: Changed | None = None) -> None:
        """Of a change all is told. A near copy that is older goes at once, and the store is asked
        when somebody wants another.
        """
        if changed:
            self.near_attributes.changed(*changed)
            return
        self._rung.add(shard)
        self._bell.set()

    def _beat(self) -> None:
        """So that a stall is noticed."""
        self._pulse.beat(self.checker.monotonic_ms())
        self._beater = asyncio.get_running_loop().call_later(self._settings.lease_ms / 8000, self._beat)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        flush_at = loop.time() + self._interval_ms / 1000
        clock_at = loop.time() + CLOCK_INTERVAL_S
        self._sweep_at_s = loop.time() + _sweep_pause_s()
        while True:
            is_due = False
            wake_at = min(flush_at, self._sweep_at_s)
            try:
                async with asyncio.timeout_at(wake_at):
                    await self._bell.wait()
            except TimeoutError:
                is_due = wake_at == flush_at
            try:
                await self._answer_doorbell()
                now = loop.time()
                if is_due or now >= flush_at:
                    flush_at = now + self._interval_ms / 1000
                    await self.flush()
                    if self._settings.expiry_margin_ms is not None:
                        await self._observe()
                if now >= clock_at:
                    clock_at = now + CLOCK_INTERVAL_S
                    await self._join()
                    await self._read_clock()
                if now >= self._sweep_at_s:
                    is_followed = self._is_followed
                    self._sweep_at_s = now + (SWEEP_FOLLOWED_S if is_followed else _sweep_pause_s())
                    if await self._sweep() >= SWEEP_SESSIONS_MAX:  # a shard may have more
                        self._sweep_at_s = now + (0 if is_followed else SWEEP_FOLLOWED_S)
            except (StoreUnavailable, ConfigError) as error:
                self._observed_at_ms = 0
                if isinstance(error, ConfigError) or not self._shards_away():  # that they are was said when it began
                    log.warning("%s", error)
            except Exception:
                log.exception("the flush loop goes on after an unexpected error")

    async def _sweep(self) -> int:
        """How many it removed. Final: a touch that comes later brings nobody back.

        So a session that has passed its deadline stays for as long as an outage may last. It goes
        sooner, if so configured, while somebody follows the events, and once this cache has seen
        the store answer all the time for a while: after an outage every gateway must have had that
        long to bring touches of sessions that were in use meanwhile.
        """
        now_ms = self.checker.monotonic_ms()
        await self._begin_observation(now_ms)
        is_settled = now_ms - self._observed_since_ms >= SETTLE_LEASES * self._fleet.lease_ms
        margin_ms = max(self._settings.outage_grace_ms, self._fleet.lease_ms)
        if is_settled and self._is_followed and self._settings.expiry_margin_ms is not None:
            margin_ms = self._settings.expiry_margin_ms
        swept = await self._opened.sweep(self.now_ms() - margin_ms, SWEEP_SESSIONS_MAX)
        self._observed_at_ms = now_ms
        return swept

    async def _begin_observation(self, now_ms: int) -> None:
        """If none goes on. A process that has just started asks the store for how long it has been
        there; else each begins now.
        """
        if self._observed_at_ms is None:
            self._observed_since_ms = now_ms - await self._opened.uptime_ms()
        elif now_ms - self._observed_at_ms > OBSERVED_GAP_MS:
            self._observed_since_ms = now_ms

    async def _observe(self) -> None:
        """Whether the store answers while nobody follows yet, where who follows is to hear in time.
        It says so of one server alone.
        """
        if not self._store.doubt_ms:
            now_ms = self.checker.monotonic_ms()
            await self._begin_observation(now_ms)
            await self._opened.time_ms()
            self._observed_at_ms = now_ms

    @property
    def _is_followed(self) -> bool:
        return asyncio.get_running_loop().time() < self._followed_until_s

    def _on_followed(self) -> None:
        """Somebody asks for events: who expires shall be told of in time. StoreUnavailable: this
        cache is closed.
        """
        if self._closed:
            raise StoreUnavailable("the ticket cache is closed")
        now_s = asyncio.get_running_loop().time()
        self._followed_until_s = now_s + FOLLOWED_S
        self._sweep_at_s = min(self._sweep_at_s, now_s + SWEEP_FOLLOWED_S)

    async def _answer_doorbell(self) -> None:
        """Tails only: touches keep to their interval."""
        self._bell.clear()
        rung, self._rung = self._rung, set()
        if rung:
            await self._exchange({shard: Request(self._positions[shard]) for shard in rung})


def _sweep_pause_s() -> float:
    """Jittered, so that gateways take turns."""
    return SWEEP_INTERVAL_S * random.uniform(0.5, 1.5)  # noqa: S311


def _in_ticket(name: str, asked_s: Lifetime, usual_s: int) -> int:
    """What a caller asks for, as a ticket has it. TypeError; ValueError: it would be over at once,
    and 0 is no end there.
    """
    if asked_s is None:
        return usual_s
    if asked_s == math.inf:
        return 0
    if not isinstance(asked_s, int):
        raise TypeError(f"{name} is a whole number of seconds, or math.inf, not {asked_s!r}")
    if asked_s < 1:
        raise ValueError(
            f"{name} is {asked_s}: the session would be over at once, so do not begin it, or log out; math.inf is no limit"
        )
    return asked_s
