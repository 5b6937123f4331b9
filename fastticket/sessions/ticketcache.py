"""TicketCache: login, authenticate, logout and the rest of what an application or a gateway calls.

    check           the near cache alone, synchronous: the hot path
    authenticate    as `check`; on MISS or REFRESH it waits for a load (sessions/loads.py)
    login, rotate   draw a ticket, then write the session to the store
    logout, revoke  end the session in the store, then here

What happens in between, flushes, log tails, leases, is the keeper's (sessions/keeper.py); what is
known of the store stands in the shards (sessions/shards.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, Unpack

from fastticket.core.check import Checker, Session
from fastticket.core.ticket import Keyring, Ticket, decode_session_id
from fastticket.errors import IssuedTooEarly, NotConfirmed, StoreUnavailable, TicketRefused, Verdict
from fastticket.sessions.attributes import Attributes, JSONSerializer, Serializer
from fastticket.sessions.events import KINDS, EventStream
from fastticket.sessions.handing import Known, handed, take_over
from fastticket.sessions.keeper import Keeper
from fastticket.sessions.loads import LOAD_ATTEMPTS, Loads
from fastticket.sessions.readthrough import ReadThrough
from fastticket.sessions.settings import ChangeableNames, SettingNames, Settings
from fastticket.sessions.shards import Shards
from fastticket.stores import open_store
from fastticket.stores.contract import NEVER_WRITTEN, NO_DETAILS, Position, RestoredSession, Store, StoredSession
from fastticket.stores.usage import MeasuredStore

Consistency = Literal["near", "strong"]
Lifetime = int | float | None  # s: a whole number, or math.inf: no end; None: as the cache's settings say

LOGIN_ATTEMPTS = 3
DRAWS_MAX = 1000  # tickets that are drawn until one suits
DETAILS_BYTES_MAX = 1024
ROTATE_PAUSES_S = (0.1, 0.4)

#: What in `TicketCache.stats` says how things are now; the rest are counters.
NOW = frozenset(
    {
        "sessions_held",
        "touches_unwritten",
        "flush_lag_ms",
        "shards_leased",
        "shards_away",
        "outage_ms",
        "is_outage_tolerated",
        "clock_ahead_ms",
    }
)


#: The reasons of events that are counted by name.
EVENT_REASONS = frozenset(("", "logout", "logout_everywhere", "revoked", "evicted", "reissued", "idle", "absolute"))


class SessionInfo(NamedTuple):
    """One of a principal's live sessions. Store time, ms since the epoch."""

    id: str  #: 22 characters, base64url
    principal: str
    created_ms: int
    last_access_ms: int | None  #: at the earliest, as `TicketCache.sessions` says; None: there is no idle timeout
    idle_deadline_ms: int
    absolute_deadline_ms: int  #: 2**53 - 1 if there is none
    details: Mapping[str, str]  #: what the login recorded


class TicketCache:
    """Authenticates tickets against a near cache that a store keeps true. One event loop; not for
    several threads: `fastticket.sync` is.

    Use as an async context manager, or `open()` and `aclose()`, once. `store`: a store's URL, as
    `fastticket.open_store` takes it, or a store of the cache's own. `keys`: the path of a key file,
    or a key ring. `settings` are the fields of `fastticket.sessions.settings.Settings`, which has
    their defaults. `serializer`: how attributes become bytes, JSON by default. `clock` (monotonic,
    ms) is for tests.

    ConfigError: the URL, the file or the settings cannot be used. TypeError: `store` or `keys` is
    something else. Every call may raise CacheMisused: the cache is not open, or is used in another
    event loop; and CacheClosed.
    """

    def __init__(
        self,
        store: Store | str,
        keys: Keyring | str | PathLike[str],
        *,
        serializer: Serializer | None = None,
        clock: Callable[[], int] | None = None,
        **settings: Unpack[SettingNames],
    ) -> None:
        self._settings = Settings(**settings)
        self.serializer: Serializer = serializer or JSONSerializer()
        self._store = store_of(store)
        self._keys = keyring_of(keys)
        self._shards = Shards(self._store, self._keys, self._settings, clock)
        self._life = self._shards.life
        self._near = self._shards.near
        self._checker = self._shards.checker
        self._loads = Loads(self._shards)
        self._keeper = Keeper(self._shards)
        self._attributes = ReadThrough(self._shards)
        vars(self)["check"] = self._checker.check  # the compiled method itself: no Python call lies around it

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Open the store, read its clock and the end of its logs, and start to flush.
        StoreUnavailable, ConfigError: it may be opened again. CacheMisused: it was open before, or
        its store serves another cache.
        """
        with self._beginning():
            await self._keeper.open()

    async def begin(self, patience_s: float, *, is_known_good: bool = False) -> None:
        """As `open`, but a store that is away, or does not answer within `patience_s`, is an outage
        from the start: it is opened in the background, and until then every call that needs it is
        StoreUnavailable.

        ConfigError: the store has answered, and does not fit. `is_known_good`: it did fit before,
        so that is an outage, too.
        """
        with self._beginning():
            await self._keeper.begin(patience_s, is_known_good=is_known_good)

    async def aclose(self) -> None:
        """Write every touch, then close the store. Idempotent; nothing opens the cache again, and
        nobody is admitted any more. Where servers take over from each other it takes some seconds
        after the last login or logout (`Store.settle`).
        """
        if not self._life.end():
            return
        await self._keeper.stop()
        await self._loads.wait()
        for shard in self._shards:  # from now on nobody hears what ends
            self._shards.near.bump_epoch(shard.number)
        await self._keeper.write_all()
        await self._store.settle()
        await self._store.aclose()
        self._life.leave()

    async def flush(self) -> None:
        """Write what is dirty now and read the logs. The cache does so by itself every
        `flush_interval_ms`. What failed is kept, and raises nothing.
        """
        self._life.check()
        await self._keeper.flusher.flush()

    # --- login, rotation, logout

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
        """Create a session and return its ticket, ready for a cookie. `check` may say MISS or
        REFRESH of it at first, which are no refusals: `authenticate` admits it, here and elsewhere.

        `remember`: the session has no idle timeout, and ends after `remember_lifetime_s`. The two
        lifetimes override that, and the cache's own: whole seconds, 1 or more; math.inf: no end.
        0 is refused: a computed lifetime that comes to nothing must not last for ever. `details`:
        what `sessions` is to say of this login, e.g. address and user agent; at most 1,024 bytes as
        JSON. `suits`: whether a ticket will do; tickets are drawn until one does, at most 1,000.

        InvalidPrincipal, StoreUnavailable; TooManySessions if `sessions_max_policy` is "refuse";
        ValueError.
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
            ticket = self._verified(text, issued_at_ms)
            session = self._stored_session(ticket, issued_at_ms, details)
            try:
                with self._loads.watching(ticket) as flight:
                    await self._create(session)
                    self._loads.hold(flight, session.idle_deadline_ms)
            except IssuedTooEarly as early:
                issued_at_ms = early.after_ms + 1
            else:
                return text
        raise StoreUnavailable("the principal is being logged out everywhere over and over; try again")

    async def take_up(self, restored: RestoredSession) -> str:
        """The ticket of a session that began elsewhere, with the id, times and attributes that it
        has there; it is made here, unless it was before. TicketRefused: it has ended here, or is
        past a deadline; StoreUnavailable.
        """
        session = restored.session
        (outcome,) = await self._shards.usable.restore([restored])
        if outcome in ("ended", "expired"):
            raise TicketRefused(Verdict.REVOKED if outcome == "ended" else Verdict.EXPIRED)
        if outcome == "exists":
            found = await self._shards.usable.sessions(session.principal)
            known = next((each for each in found if each.id == session.id), None)
            if known is None:
                raise TicketRefused(Verdict.REVOKED)
            session = known
        return self._keys.mint(
            session.principal,
            session.created_ms,
            session.idle_timeout_s,
            session.absolute_lifetime_s,
            decode_session_id(session.id),
        )

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
        stay; the absolute lifetime counts from the login. `suits`: as for `login`. TicketRefused;
        StoreUnavailable (the old ticket may be over then); ValueError: the session would be over at
        once.
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
        session = self._stored_session(new, now_ms)
        with self._loads.watching(new) as flight:
            is_done = await self._rotated(old.session_id, session)
            if is_done:
                self._loads.hold(flight, session.idle_deadline_ms)
        if not is_done:
            await self._shards.confirm_complete([self._shards.of(old.principal).number])
        self._shards.end(old.session_id, old.principal, Verdict.REVOKED)
        if not is_done:
            raise TicketRefused(Verdict.REVOKED)
        return text

    async def logout(self, ticket: str | bytes) -> bool:
        """End the session of a ticket. False: it was over already. TicketRefused if the ticket is
        not authentic; StoreUnavailable.
        """
        verified = self._keys.verify(ticket, self.now_ms())
        if not isinstance(verified, Ticket):
            if verified is Verdict.EXPIRED:
                return False
            raise TicketRefused(verified)
        ended = await self._shards.usable.revoke(verified.session_id, verified.principal)
        self._shards.end(verified.session_id, verified.principal, Verdict.REVOKED)
        return ended

    async def logout_everywhere(self, principal: str, *, keep: Session | None = None) -> int:
        """End every session of a principal, or all but one. Returns how many there were.
        StoreUnavailable; some may have ended then.
        """
        ended = await self._shards.usable.revoke_all(principal, keep=keep.id if keep else "")
        for session_id in ended:
            self._shards.end(session_id, principal, Verdict.REVOKED)
        if keep:  # one that comes back later would not be told from the one to keep
            await self._shards.confirm_complete([self._shards.of(principal).number])
        return len(ended)

    async def revoke(self, session_id: str, principal: str) -> bool:
        """End one of the sessions that `sessions` names. False: that principal has none with this
        id (any more). StoreUnavailable.
        """
        ended = await self._shards.usable.revoke(session_id, principal, "revoked")
        if ended:
            self._shards.end(session_id, principal, Verdict.REVOKED)
        else:  # it may be another principal's, and live; if it has ended, the log says so
            self._keeper.on_doorbell(self._shards.of(principal).number)
        return ended

    # --- authentication

    def check(self, ticket: str | bytes, touch: bool = True) -> Session | Verdict:
        """What the near cache alone says of a ticket: a Session, or a falsy Verdict with `.reason`.
        Never waits, in no thread. A bad ticket raises nothing.

        Verdict.MISS and Verdict.REFRESH are no refusals (`.is_refusal` is False): the ticket is
        authentic, and only the store knows whether its session lives. Ask `authenticate`. A login
        in another process is a MISS here at first. `touch`: whether the check counts as a use of
        the session. TypeError: `ticket` is neither str nor bytes.
        """
        return self._checker.check(ticket, touch)  # `__init__` puts that in this method's place

    async def authenticate(
        self, ticket: str | bytes, *, touch: bool = True, consistency: Consistency = "near"
    ) -> Session:
        """The session of a ticket, loaded if need be: what to call where `check` says MISS or
        REFRESH, or in its place. TicketRefused (`.reason` is a slug), StoreUnavailable.

        `consistency="strong"`: the store is asked in any case, and a session that was revoked
        before this call is refused. With the store away nobody is admitted, whatever the outage
        policy.
        """
        if consistency == "strong":
            _refuse_if_over(await self._loads.load_anew(self._verified(ticket, self.now_ms())))
        loaded: int | Verdict = Verdict.MISS
        for _ in range(LOAD_ATTEMPTS):
            verdict = self.check(ticket, touch)
            if isinstance(verdict, Session):
                return verdict
            if verdict.is_refusal:
                raise TicketRefused(verdict)
            verified = self._verified(ticket, self.now_ms())
            if verdict is Verdict.MISS and isinstance(loaded, int) and self._shards.is_leased(verified.principal):
                if not touch or self._touch_unheld(verified):
                    return self._checker.session_of(ticket, loaded)
                await self._keeper.flusher.make_room()
                loaded = Verdict.MISS  # the session may have ended meanwhile
            try:
                loaded = await self._loads.load(verified)
            except StoreUnavailable:
                # On credit, as long as the outage's policy renews the lease.
                credited = self._near.extend(verified.raw, self.now_ms()) and self.check(ticket, touch)
                if isinstance(credited, Session):
                    return credited
                raise
            _refuse_if_over(loaded)
        raise StoreUnavailable(
            "loads come back after their lease is over, or find no room in the near cache over and over: "
            "look at the store's latency, and at `capacity`"
        )

    def remembered_s(self, ticket: str | bytes) -> int | None:
        """The Max-Age of a ticket's cookie, in s, at most `remember_lifetime_s`. None: the cookie
        goes with the browser; or the ticket is not authentic. Asks the store nothing.

        A ticket is remembered if it has no idle timeout, and other lifetimes than the cache's own.
        """
        now_ms = self.now_ms()
        verified = self._keys.verify(ticket, now_ms)
        if not isinstance(verified, Ticket) or verified.idle_timeout_s:
            return None
        if (0, verified.absolute_lifetime_s) == (self._settings.idle_timeout_s, self._settings.absolute_lifetime_s):
            return None
        left_s = math.ceil((verified.absolute_deadline_ms - now_ms) / 1000)
        return min(left_s, self._settings.remember_lifetime_s)

    # --- what a principal has, and what becomes of it

    async def sessions(self, principal: str) -> Sequence[SessionInfo]:
        """The principal's live sessions. StoreUnavailable.

        The last access is at most a flush interval old. It follows from the idle deadline: where
        that one has met the absolute deadline, the access may have been later.
        """
        return [self._session_info(session) for session in await self._shards.usable.sessions(principal)]

    def events(self, position: str | None = None, kinds: Collection[str] = KINDS) -> EventStream:
        """What becomes of sessions from now on, or from a `position` that an event had: `async for
        event in cache.events()`.

        While somebody iterates, and for a minute after each event, sessions that have passed their
        deadline are ended in time for `expiry_margin_s`. A gap in the log is `lost`, whatever
        `kinds` says. ValueError: no such position, no such kind.
        """
        interval_s = self._settings.flush_interval_ms / 1000
        return EventStream(self._shards.opened, position, kinds, interval_s, self._keeper.sweeper.follow)

    def attributes(self, session: Session, *, seen: Position = NEVER_WRITTEN) -> Attributes:
        """What the application keeps in a session: a mapping to `load`, or to use with `async
        with`. Asks nothing yet.

        `seen`: the version that the caller's client knows of, as `Attributes.version` had it,
        perhaps in another process: none that is older is shown.
        """
        return Attributes(self._attributes, session, self.serializer, seen)

    # --- keys, settings, counters

    def replace_keys(self, keys: Iterable[tuple[int, bytes]]) -> None:
        """Another key ring, oldest first. What was verified under a key that is gone is forgotten.
        ConfigError.
        """
        gone = self._keys.replace(keys)
        for key_id in gone:
            self._near.drop_key(key_id)
        self._loads.drop_keys(gone)

    def change_settings(self, **changes: Unpack[ChangeableNames]) -> None:
        """Other settings from now on: lifetimes, of sessions that begin; limits of logins; the
        outage's policy. ConfigError, and nothing has changed.
        """
        self._settings = self._shards.settings = dataclasses.replace(self._settings, **changes)

    @property
    def stats(self) -> dict[str, int]:
        """Counters since the start, and how things are now (`NOW`).

        `flush_lag_ms`: no use of a session that is not written yet is older. `clock_ahead_ms`: of
        this machine's clock, before the store's; negative: it is behind.
        """
        near, shards, flusher = self._near, self._shards, self._keeper.flusher
        outage_ms = shards.outage_ms()
        return {
            "hits": near.hits,
            "misses": near.misses,
            "refreshes": near.refreshes,
            "evictions": near.evictions,
            "sessions_held": len(near),
            "loads": self._loads.count,
            "touches_written": flusher.touches_written,
            "touches_coalesced": near.touches_coalesced,
            "touches_unwritten": flusher.pending,
            "flush_lag_ms": flusher.lag_ms,
            "gaps": shards.gaps,
            "sessions_given_back": self._keeper.restorer.count,
            "exchanges": shards.exchanges,
            "store_errors": shards.store_errors,
            "shards_leased": shards.leased_count(),
            "shards_away": shards.away_count(),
            "outage_ms": outage_ms,
            "is_outage_tolerated": not shards.absence and outage_ms < self._settings.outage_grace_ms,
            "clock_ahead_ms": shards.clock_ahead_ms(),
        }

    @property
    def store_servers(self) -> Mapping[str, str]:
        """The servers behind the store, and the states of their circuit breakers: `closed` (asked),
        `open` (not asked, because it failed), `half-open` (on trial).
        """
        return self._store.servers

    @property
    def was_opened(self) -> bool:
        """Whether `open` has succeeded; true of a closed cache, too."""
        return self._keeper.was_started

    @property
    def idle_timeout_s(self) -> int:
        """How long a session lasts without use that was begun without `remember`, in s; 0: it has
        no such end.
        """
        return self._settings.idle_timeout_s

    @property
    def absolute_lifetime_s(self) -> int:
        """How long a session lasts that was begun without `remember`, in s; 0: no end."""
        return self._settings.absolute_lifetime_s

    @property
    def remember_lifetime_s(self) -> int:
        """How long a session lasts that was begun with `remember`, in s."""
        return self._settings.remember_lifetime_s

    def now_ms(self) -> int:
        """The store's clock as known here, ms since the epoch."""
        return self._checker.now_ms()

    # --- life

    @contextlib.contextmanager
    def _beginning(self) -> Iterator[None]:
        """The store is opened, for this cache alone."""
        self._life.begin()
        try:
            yield
        except BaseException:
            self._life.undo()
            raise

    # --- tickets and sessions

    def _verified(self, text: str | bytes, now_ms: int) -> Ticket:
        ticket = self._keys.verify(text, now_ms)
        if not isinstance(ticket, Ticket):
            raise TicketRefused(ticket)
        return ticket

    def _lifetimes_s(self, idle_s: Lifetime, absolute_s: Lifetime, usual_s: tuple[int, int]) -> tuple[int, int]:
        """The lifetimes that were asked for, else the usual ones, as a ticket has them: 0 is none.
        TypeError, ValueError.
        """
        lifetimes_s = (
            _in_ticket("idle_timeout_s", idle_s, usual_s[0]),
            _in_ticket("absolute_lifetime_s", absolute_s, usual_s[1]),
        )
        fault = self._settings.lifetimes_fault(*lifetimes_s, self._shards.fleet.flush_interval_ms)
        if fault:
            raise ValueError(fault)
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

    async def _create(self, session: StoredSession) -> None:
        store, settings = self._shards.usable, self._settings
        evicts = settings.sessions_max_policy == "evict-oldest"
        try:
            gone = await store.create(session, sessions_max=settings.sessions_max, evicts=evicts)
        except StoreUnavailable:
            # The session may be there, and count, although nobody has its ticket.
            with contextlib.suppress(StoreUnavailable):
                await self._shards.usable.revoke(session.id, session.principal)
            raise
        for session_id in gone:
            self._shards.end(session_id, session.principal, Verdict.REVOKED)

    async def _rotated(self, session_id: str, successor: StoredSession) -> bool:
        """Whether the store has rotated the session. Where a reply was lost, the old ticket may be
        over, and nobody has the new one: so the same rotation is asked for again.
        """
        for pause_s in ROTATE_PAUSES_S:
            try:
                return await self._shards.usable.rotate(session_id, successor)
            except NotConfirmed:
                return True  # a failover may lose it; the store then makes it again
            except StoreUnavailable:
                await asyncio.sleep(pause_s)
        return await self._shards.usable.rotate(session_id, successor)

    def _touch_unheld(self, ticket: Ticket) -> bool:
        """Note the use of a session that was loaded, and found no room in the near cache or has
        lost it again. False: nothing is noted; too many such touches wait.
        """
        used_ms = ticket.idle_deadline_ms(self.now_ms(), self._shards.fleet.flush_interval_ms)
        shard, session_id = self._shards.of(ticket.principal), decode_session_id(ticket.session_id)
        return self._near.touch_unheld(shard.number, session_id, ticket.principal.encode(), used_ms)

    def _stored_session(self, ticket: Ticket, now_ms: int, details: Mapping[str, str] = NO_DETAILS) -> StoredSession:
        return StoredSession(
            ticket.session_id,
            ticket.principal,
            ticket.idle_deadline_ms(now_ms, self._shards.fleet.flush_interval_ms),
            ticket.issued_at_ms,
            ticket.idle_timeout_s,
            ticket.absolute_lifetime_s,
            details,
        )

    def _session_info(self, session: StoredSession) -> SessionInfo:
        slack_ms = self._shards.fleet.flush_interval_ms
        used_ms = session.idle_deadline_ms - session.idle_timeout_s * 1000 - slack_ms
        return SessionInfo(
            session.id,
            session.principal,
            session.created_ms,
            max(used_ms, session.created_ms) if session.idle_timeout_s else None,
            session.idle_deadline_ms,
            session.absolute_deadline_ms,
            session.details,
        )


# --- what a cache is made of


def store_of(store: Store | str) -> Store:
    """The store, made if it is a URL. ConfigError; TypeError: neither."""
    if isinstance(store, str):
        return open_store(store)
    if not hasattr(store, "exchange"):
        raise TypeError(
            f'store: the URL of a store ("redis://127.0.0.1:6379/0"), or a store; not a {type(store).__name__}'
        )
    return store


def keyring_of(keys: Keyring | str | PathLike[str]) -> Keyring:
    """The key ring, read if it is the path of a key file. ConfigError; TypeError: neither."""
    if isinstance(keys, str | PathLike):
        return Keyring.from_file(keys)
    if not isinstance(keys, Keyring):
        raise TypeError(f'keys: the path of a key file ("keys.toml"), or a Keyring; not a {type(keys).__name__}')
    return keys


# --- for the gateway and for `fastticket.sync`, not for applications


def handed_by(cache: TicketCache) -> Iterator[Known | bytes]:
    """What the cache holds, part by part, for `hand_to` in another process of this machine; nothing
    if that one would find another store.
    """
    return iter(()) if cache._store.is_replaced else handed(cache._shards)


async def finish_giving_back(cache: TicketCache) -> None:
    """Before `handed_by`: what is being given back to the store is not held as what lives."""
    await cache._keeper.restorer.finish()


def is_giving_back(cache: TicketCache) -> bool:
    """Whether `finish_giving_back` would wait."""
    return cache._keeper.restorer.is_running


def hand_to(cache: TicketCache, parts: Iterable[Known | bytes]) -> int:
    """Let a cache that is not opened yet begin with what another one on the same store holds; how
    many sessions. ValueError: the store has another number of shards.
    """
    return take_over(cache._shards, parts)


def checker_of(cache: TicketCache) -> Checker:
    """The compiled checker whose method `cache.check` is, with key ring and near cache."""
    return cache._checker


def shards_of(cache: TicketCache) -> Shards:
    """What the cache knows of its store, and its way to it."""
    return cache._shards


def session_info(cache: TicketCache, session: StoredSession) -> SessionInfo:
    """As `TicketCache.sessions` tells of it."""
    return cache._session_info(session)


def measured(cache: TicketCache) -> dict[str, Any]:
    """What the cache has counted beside `stats`, since the start: `events` heard of users'
    sessions, by kind and reason; flushes as `Histogram.counted` has them, in s and in touches;
    the store's calls by kind in s, and its traffic, as far as they are measured.
    """
    flusher, store = cache._keeper.flusher, cache._store
    events: dict[str, dict[str, int]] = {}
    for (kind, reason), count in cache._shards.heard.items():
        known = events.setdefault(kind, {})
        reason = reason if reason in EVENT_REASONS else "other"
        known[reason] = known.get(reason, 0) + count
    counted: dict[str, Any] = {"events": events}
    counted |= {"flush_duration": flusher.durations.counted, "flush_size": flusher.sizes.counted}
    if isinstance(store, MeasuredStore):
        counted["store_calls"] = dict(store.counted)
    if traffic := getattr(store, "traffic", None):
        counted["store_traffic"] = dict(vars(traffic))
    return counted


def mirroring_of(cache: TicketCache) -> dict[str, Any] | None:
    """How the store's mirror is, as `MirroredStore.mirroring` has it; None: it has none."""
    found = getattr(cache._store, "mirroring", None)
    return None if found is None else dict(found)


def read_through_of(cache: TicketCache) -> ReadThrough:
    """Where the cache's `attributes` are read and written."""
    return cache._attributes


def _refuse_if_over(loaded: int | Verdict) -> None:
    if isinstance(loaded, Verdict) and loaded.is_refusal:
        raise TicketRefused(loaded)


def _in_ticket(name: str, asked_s: Lifetime, usual_s: int) -> int:
    """A lifetime as a ticket has it, where 0 is none. TypeError; ValueError: the session would be
    over at once.
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
