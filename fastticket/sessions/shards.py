"""What this process knows of the store's shards, and the one way to ask the store.

    Flight    a load under way for one session; sessions/loads.py moves it
    Shard     one shard: how far its log was heard, its outage, flights
    Shards    all of them, with near cache and clock; `exchange` asks and applies the answers

Rules of this file
- What may be believed, and until when, `fastticket.sessions.coherence` decides.
- Every reply is applied in one place, `_apply`: events first, then the lease, counted from the time
  the request was *sent*.
- A flight whose session ends meanwhile lands with that end: its answer may be older. A flight whose
  shard's log shows a gap is poisoned: its answer may miss what the gap has lost, so it asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fastticket.core.check import Checker, clock_resolution_ms
from fastticket.core.nearcache import NearCache
from fastticket.core.ticket import Keyring, Ticket, decode_session_id
from fastticket.errors import StoreBusy, StoreUnavailable, Verdict
from fastticket.sessions.coherence import Failure, Pulse, credited_until_ms, granted_until_ms, read_tail
from fastticket.sessions.life import Life
from fastticket.sessions.nearattributes import NearAttributes
from fastticket.sessions.settings import Settings
from fastticket.stores.contract import Event, Position, Reply, Request, Store, is_canary, shard_of

log = logging.getLogger("fastticket.cache")

ENDS_MAX = 16_384  # ended sessions whose reason is remembered; the reason of others is UNKNOWN_SESSION
GAPS_LOGGED_S = 1.0  # after the first: the gaps of a store that restarts go into one line
GIVEN_BACK_MS = 5000  # from a lease after a loss on: so long others may take for giving back what they hold
TAKEN_OVER = "another server has just taken over, and may not have the session yet; try again"

Key = tuple[str, str]  # session id, principal


class Flight:
    """A load under way for one session. `landed` gets the idle deadline; a refusal (REVOKED,
    UNKNOWN_SESSION, IDLE, EXPIRED), which the near cache has by then; or MISS: check the ticket
    again.
    """

    def __init__(self, ticket: Ticket, landed: asyncio.Future[int | Verdict]) -> None:
        self.ticket = ticket
        self.key: Key = (ticket.session_id, ticket.principal)
        self.landed = landed
        self.has_departed = False  # its answer may be older than a question that is asked now
        self.asked_ms = 0  # store time
        self.ended: Verdict | None = None  # a log, or a logout here, says that the session is over
        self.poisoned = False  # its answer may be older than what a gap has lost
        self.key_is_gone = False  # its ticket's key has left the ring


class Lost(NamedTuple):
    """A shard lacks data that it had; ms of this process's monotonic clock."""

    at_ms: int  #: noticed then
    heard_at_ms: int  #: what was there before was heard then, for the last time


class Shard:
    """One shard of the store. Times are ms of this process's monotonic clock."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.position: Position | None = None  # in its log, as far as it was heard
        self.answered_at_ms = 0  # when the latest question was sent that was answered
        self.outage_since_ms: int | None = None
        self.uncertain_until_ms = 0  # after a failover: sessions that it lacks may be made again until then
        self.lost: Lost | None = None  # until what is held here was given back: sessions/restoring.py
        self.flights: dict[Key, Flight] = {}
        self.is_followed = False  # somebody wants to hear its log, whatever is held of it


class Shards:
    """The shards, the near cache and the clock that belong to one store. One event loop."""

    def __init__(self, store: Store, keys: Keyring, settings: Settings, clock: Callable[[], int] | None) -> None:
        self.store = store
        self.keys = keys
        self.settings = settings
        self.near = NearCache(
            settings.capacity,
            store.shards,
            slack_ms=settings.flush_interval_ms,
            touch_resolution_ms=settings.touch_resolution_ms,
            recheck_s=settings.recheck_s,
        )
        self.near_attributes = NearAttributes(settings.near_attributes_bytes)
        self.checker = Checker(keys, self.near, clock)
        self.clock_resolution_ms = 0 if clock else clock_resolution_ms()
        self.pulse = Pulse(settings.lease_ms // 4)
        self.fleet = settings.fleet  # the longest settings of all processes on the store
        self.absence = ""  # why the store has never been open, while that is awaited
        self.life = Life(store)
        #: When a sweep last saw the store answer; None: there was none yet; 0: the store has failed
        #: since.
        self.observed_at_ms: int | None = None
        self.on_gap: Callable[[], None] = lambda: None  # sessions must be looked up again: sessions/repair.py
        self.on_loss: Callable[[], None] = lambda: None  # shards lack data: sessions/restoring.py
        self.on_event: Callable[[Event], None] = lambda event: None  # what became of a session, as the log says
        self.on_canary: Callable[[Event], None] = lambda _: None  # one is over: sessions/canary.py
        self.awaited: int | None = None  # the shard of a canary whose end was not heard yet
        self.heard: Counter[tuple[str, str]] = Counter()  # kind and reason of what the logs said of sessions
        self.gaps = self.store_errors = self.exchanges = 0
        self._shards = [Shard(number) for number in range(store.shards)]
        self._gaps_to_log: set[int] = set()
        self._ends: dict[str, Verdict] = {}  # why the latest sessions ended, for clients that come back much later

    def __iter__(self) -> Iterator[Shard]:
        return iter(self._shards)

    def __getitem__(self, number: int) -> Shard:
        return self._shards[number]

    def of(self, principal: str) -> Shard:
        """The shard that has all of a principal's sessions."""
        return self._shards[shard_of(principal, len(self._shards))]

    @property
    def usable(self) -> Store:
        """The store, for a call of the program. CacheClosed, CacheMisused; StoreUnavailable: it has
        never been open yet.
        """
        self.life.check()
        return self.opened

    @property
    def opened(self) -> Store:
        """The store, for what goes on by itself, also while the cache closes. StoreUnavailable: it
        has never been open yet.
        """
        if self.absence:
            raise StoreUnavailable(self.absence)
        return self.store

    # --- the clock

    def now_ms(self) -> int:
        """The store's clock as known here, ms since the epoch."""
        return self.checker.now_ms()

    def clock_ahead_ms(self) -> int:
        """How far this machine's clock is before the store's; negative: behind. 0 until the store's
        is known. Nothing depends on it but the times in logs.
        """
        return time.time_ns() // 1_000_000 - self.now_ms() if self.checker.offset_ms else 0

    def monotonic_ms(self) -> int:
        """This process's clock, which cannot be set and counts suspensions of the machine."""
        return self.checker.monotonic_ms()

    # --- asking the store

    async def exchange(self, requests: Mapping[int, Request]) -> Mapping[int, Reply | StoreUnavailable]:
        """Ask several shards, and apply what they answer. Raises nothing: a shard that failed has
        its error for a reply.
        """
        sent_at_ms = self.monotonic_ms()
        self.exchanges += len(requests)
        try:
            replies = await self.opened.exchange(requests)
        except StoreUnavailable as error:
            replies = dict.fromkeys(requests, error)
        except Exception as error:  # a bug; callers that wait for a load must hear of it all the same
            log.exception("the store failed in an unexpected way")
            replies = dict.fromkeys(requests, StoreUnavailable(f"unexpected: {type(error).__name__}"))
        for number, reply in replies.items():
            if isinstance(reply, StoreUnavailable):
                self._note_failure(self._shards[number], reply, sent_at_ms)
            else:
                self._apply(self._shards[number], requests[number], reply, sent_at_ms)
        if log.isEnabledFor(logging.DEBUG):
            _log_exchange(requests, replies, self.monotonic_ms() - sent_at_ms)
        return replies

    async def find_positions(self, numbers: Iterator[int] | Sequence[int]) -> None:
        """A load needs a position in its shard's log to go on from: only from there on is a
        revocation heard.
        """
        unknown = {number: Request(None) for number in numbers if self._shards[number].position is None}
        if unknown:
            await self.exchange(unknown)

    def _apply(self, shard: Shard, request: Request, reply: Reply, sent_at_ms: int) -> None:
        """A gap does not poison the flights that came with this reply: their deadlines were read
        after the log.
        """
        effect = read_tail(shard.position, request.since, reply.position, reply.gap)
        if shard.outage_since_ms is not None:
            shard.outage_since_ms = None
            if not self.away_count():
                log.warning("the store answers again, for every shard")
        if reply.replaced:
            self._note_replaced(shard)
        if effect.forgets:
            self.gaps += 1
            self.near.bump_epoch(shard.number)
            self.near_attributes.forget(shard.number)
            self.on_gap()
        if effect.poisons:
            self._log_gap(shard.number)
            own = set(request.wanted)
            for key, flight in shard.flights.items():
                flight.poisoned |= key not in own
        for event in reply.events:
            self._hear(event)
        shard.position = effect.position
        shard.answered_at_ms = max(shard.answered_at_ms, sent_at_ms)
        if effect.renews:
            confirmed_at_ms = sent_at_ms - self.store.doubt_ms
            until_ms = granted_until_ms(self._leased_until_ms(shard), confirmed_at_ms, self.settings.lease_ms)
            self._renew_lease(shard, until_ms)

    def _note_replaced(self, shard: Shard) -> None:
        """Another server than before, or older data. What came between the loss and this is not
        what was there before: a loss that was noted already keeps its time.
        """
        now_ms = self.monotonic_ms()
        shard.uncertain_until_ms = now_ms + self.fleet.lease_ms
        if self.settings.restore_from_cache and shard.answered_at_ms:
            shard.lost = Lost(now_ms, shard.lost.heard_at_ms if shard.lost else shard.answered_at_ms)
            self.doubt([shard.number])
            self.on_loss()

    def _hear(self, event: Event) -> None:
        self.on_event(event)
        log.debug("heard: %s session %.6s of %r %s", event.kind, event.session_id, event.principal, event.reason)
        match event.kind:
            case "revoked" | "rotated":
                self.end(event.session_id, event.principal, Verdict.REVOKED)
            case "expired":
                verdict = Verdict.EXPIRED if event.reason == "absolute" else Verdict.IDLE
                self.end(event.session_id, event.principal, verdict)
            case "changed":
                self.near_attributes.changed(event.session_id, event.position)
        if is_canary(event.principal):
            self.on_canary(event)
        else:
            self.heard[event.kind, event.reason] += 1

    def _log_gap(self, number: int) -> None:
        if not self._gaps_to_log:
            asyncio.get_running_loop().call_later(GAPS_LOGGED_S, self._log_gaps)
        self._gaps_to_log.add(number)

    def _log_gaps(self) -> None:
        numbers = ", ".join(map(str, sorted(self._gaps_to_log)))
        self._gaps_to_log.clear()
        log.warning("the store's log has a gap; every session will be looked up again of the shards %s", numbers)

    # --- sessions that are over

    def end(self, session_id: str, principal: str, verdict: Verdict) -> None:
        """A session is over, for ever: refuse it from now on, whatever load is under way."""
        with contextlib.suppress(ValueError):  # the log may name an id that is none of a ticket's session
            self.near.refuse(decode_session_id(session_id), verdict, self.now_ms())
        self.near_attributes.end(session_id)
        self._ends[session_id] = verdict
        if len(self._ends) > ENDS_MAX:
            del self._ends[next(iter(self._ends))]
        flight = self.of(principal).flights.get((session_id, principal))
        if flight:
            flight.ended = verdict

    def known_end(self, session_id: str) -> Verdict | None:
        """Why a session is over; None: not known (any more)."""
        known = self._ends.get(session_id)
        return self.refusal_in_memory(session_id) if known is None else known

    def refusal_in_memory(self, session_id: str) -> Verdict | None:
        """Why the near cache refuses the session; None: it does not know that it has ended."""
        return self.near.remembered_refusal(decode_session_id(session_id), self.now_ms())

    def check_certain(self, principal: str) -> None:
        """StoreUnavailable: that the store lacks a session of this principal means nothing yet."""
        if self.is_uncertain(self.of(principal)):
            raise StoreUnavailable(TAKEN_OVER)

    def doubt(self, numbers: Iterable[int]) -> None:
        """Sessions that these shards lack may be given back, here or by another process."""
        until_ms = self.monotonic_ms() + self.fleet.lease_ms + GIVEN_BACK_MS
        for number in numbers:
            self._shards[number].uncertain_until_ms = max(self._shards[number].uncertain_until_ms, until_ms)

    async def confirm_complete(self, numbers: Collection[int]) -> None:
        """StoreUnavailable: the store may have lacked sessions of these shards just now that come
        back later.

            1. the store loses its data, and nothing here has noticed that
            2. all sessions are listed, and ended
            3. another process gives back what the list lacked
        """
        if self.settings.restore_from_cache:
            replies = await self.exchange({number: Request(self._shards[number].position) for number in numbers})
            failures = [reply for reply in replies.values() if isinstance(reply, StoreUnavailable)]
            if failures:
                raise failures[0]
        if any(self.is_uncertain(self._shards[number]) for number in numbers):
            raise StoreUnavailable(TAKEN_OVER)

    def is_uncertain(self, shard: Shard) -> bool:
        """Whether another server has taken over less than a lease ago. Until then every process
        makes again what the new one may lack.
        """
        return self.monotonic_ms() < shard.uncertain_until_ms

    # --- outages

    def begin_away(self, reason: str) -> None:
        """The store could not be opened: it is away from the start, in every shard."""
        self.absence = reason
        self.observed_at_ms = 0
        now_ms = self.monotonic_ms()
        for shard in self._shards:
            shard.outage_since_ms = now_ms
        log.error("%s; it is away from the start: whoever needs a session is told to try again until it comes", reason)

    def away_count(self) -> int:
        """Shards that do not answer."""
        return sum(shard.outage_since_ms is not None for shard in self._shards)

    def outage_ms(self) -> int:
        """How long the shard that is away for longest has been; 0: none is."""
        since_ms = [shard.outage_since_ms for shard in self._shards if shard.outage_since_ms is not None]
        return self.monotonic_ms() - min(since_ms) if since_ms else 0

    def _note_failure(self, shard: Shard, error: StoreUnavailable, sent_at_ms: int) -> None:
        """Credit, if that is due: sessions that are held go on being admitted while the outage is
        young.
        """
        self.store_errors += 1
        self.observed_at_ms = 0
        if isinstance(error, StoreBusy) or shard.answered_at_ms > sent_at_ms:
            return  # nothing was asked; or a later question was answered: no outage
        now_ms = self.monotonic_ms()
        self.pulse.beat(now_ms)
        since_ms = shard.outage_since_ms
        if since_ms is None:
            if not self.away_count():
                grace_s = self.settings.outage_grace_ms // 1000
                log.error(
                    "%s; sessions held here are admitted for %d s (outage_policy, outage_grace_s)", error, grace_s
                )
            since_ms = shard.outage_since_ms = now_ms
        failure = Failure(sent_at_ms, now_ms, self.pulse.stalled_at_ms, shard.answered_at_ms, since_ms)
        settings = self.settings
        until_ms = credited_until_ms(self._leased_until_ms(shard), failure, settings.lease_ms, settings.outage_grace_ms)
        self._renew_lease(shard, until_ms)

    # --- leases

    def is_leased(self, principal: str) -> bool:
        """Whether a session of this principal may be admitted from memory now."""
        return self.near.lease_until_ms(self.of(principal).number) > self.now_ms()

    def leased_count(self) -> int:
        """Shards whose lease is in force."""
        now_ms = self.now_ms()
        return sum(self.near.lease_until_ms(shard.number) > now_ms for shard in self._shards)

    def step_clock(self, by_ms: int) -> None:
        """Correct the offset to the store's clock. Leases are spans of this process's time, and
        keep their length. Other threads look on: in between a lease may only seem to be shorter.
        """
        if by_ms < 0:
            self._shift_leases(by_ms)
        self.checker.set_offset_ms(self.checker.offset_ms + by_ms)
        if by_ms > 0:
            self._shift_leases(by_ms)

    def _shift_leases(self, by_ms: int) -> None:
        for shard in self._shards:
            self.near.shift_lease(shard.number, by_ms)

    def _leased_until_ms(self, shard: Shard) -> int:
        """By the monotonic clock. The near cache has it in store time, and earlier by what its own
        clock may be late.
        """
        return self.near.lease_until_ms(shard.number) - self.checker.offset_ms + self.clock_resolution_ms

    def _renew_lease(self, shard: Shard, until_ms: int) -> None:
        self.near.renew_lease(shard.number, until_ms + self.checker.offset_ms - self.clock_resolution_ms)


def _log_exchange(
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
