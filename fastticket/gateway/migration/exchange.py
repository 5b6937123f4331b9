"""Exchanges cookies of other systems for tickets of ours.

    ticket_for   the ticket of a request that brings such a cookie
    note         a request came with both: now this gateway knows what its session was, too
    other_user   a request came with both: is the cookie's session another user's?
    end          a session ends here: so does the old one
    end_brought  a client logs in or out here: what it has brought of other users ends, too
    mint         an upstream reads its user from a ticket of Linkis': the session has one
    superseded   the upstream sets such a cookie: is the client somebody else there now?

Bounds: at most EXCHANGES_MAX wait, at most AT_ONCE ask the old stores at the same time, requests
with one cookie wait for one exchange, and a refusal is remembered for REFUSAL_S, the latest
REFUSALS_MAX of them. So a client with made-up cookies costs an old store what a busy one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from fastticket.core.ticket import Ticket, decode_session_id
from fastticket.errors import OldStoreUnavailable, StoreUnavailable, TicketRefused, Verdict
from fastticket.gateway.migration.continued import take_up
from fastticket.gateway.migration.held import Held, HeldSession
from fastticket.gateway.migration.oldstores import LinkisHash, OldStore, Seen
from fastticket.gateway.migration.programs import MadeForToken, Programs
from fastticket.gateway.migration.rotations import Rotations
from fastticket.gateway.migration.walks import Walks
from fastticket.gateway.migration.watch import NOBODY, ROUNDS_PER_LEASE, Watch
from fastticket.gateway.tokens import Tokens
from fastticket.moving.derived import derive_session_id
from fastticket.moving.formats.linkis_ticket import TicketFormat
from fastticket.moving.record import MovedSession, Skipped, to_restored
from fastticket.moving.sources import shown
from fastticket.sessions.ticketcache import TicketCache, checker_of, shards_of
from fastticket.stores.contract import Event
from fastticket.web.cookies import cookies_named

EXCHANGES_MAX = 1000
AT_ONCE = 64
REFUSAL_S = 2.0
REFUSALS_MAX = 4096
AWAY_S = 1.0  # after a failure an old store is not asked for so long
COOKIE_CHARS_MAX = 4096

#: Beside `refused_` and a reason.
RESULTS = ("exchanged", "minted", "written_back", "ended_there", "ended_here")

#: What a reason of a source's reader is to a client.
VERDICTS = {
    "anonymous": Verdict.UNKNOWN_SESSION,
    "expired": Verdict.IDLE,
    "forged": Verdict.BAD_SIGNATURE,
    "inactive_user": Verdict.REVOKED,
    "minted": Verdict.UNKNOWN_SESSION,
    "not_found": Verdict.UNKNOWN_SESSION,
}


class Migration(NamedTuple):
    """One `[[migration]]`."""

    store: OldStore
    cookie: str
    until: datetime.date  #: the last day
    writes_back: bool
    mints: bool  #: upstreams get tickets that are made there, also after `until`


class Refusal(NamedTuple):
    """Why a cookie is not exchanged. Falsy."""

    verdict: Verdict
    reason: str  #: for the counters: of a bounded set

    def __bool__(self) -> bool:
        return False


Outcome = str | Refusal  # a ticket


class Exchange:
    """Of one service. `counts`: since the start of the process, by (source, result)."""

    def __init__(
        self,
        migrations: Sequence[Migration],
        cache: TicketCache,
        lease_ms: int,
        held_max: int,
        before: Exchange | None,
        tokens: Tokens | None = None,
    ) -> None:
        """`before`: of the configuration before, which gives way (`give_way`) when this one has
        started. `tokens`: of programs.
        """
        self.counts: Counter[tuple[str, str]] = before.counts if before else Counter()
        for migration in migrations:  # so that `rate()` sees the first one
            self.counts.update({(migration.store.source, result): 0 for result in RESULTS})
        self._migrations = migrations
        self._cache = cache
        self._shards = shards_of(cache)
        near = checker_of(cache).near
        self._held = Held(held_max, lambda session_id: bool(near.idle_deadline_ms(decode_session_id(session_id))))
        self._rotations: Rotations = before._rotations if before else Rotations(self._shards)
        self._watch = Watch(cache, self._held, self.counts, lease_ms)
        self._pause_s = lease_ms / 1000 / ROUNDS_PER_LEASE
        self._walks = Walks(cache, self.counts, self._pause_s)
        self._flights: dict[tuple[OldStore, str], asyncio.Future[Outcome]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._making: dict[str, asyncio.Future[str]] = {}
        self._programs = Programs(tokens)
        self._judging: asyncio.Task[None] | None = None  # of what programs got
        self._room = asyncio.Semaphore(AT_ONCE)
        self._refusals: OrderedDict[tuple[OldStore, str], tuple[float, Refusal]] = OrderedDict()
        self._away_until_s: dict[OldStore, float] = {}

    # --- life

    def start(self) -> None:
        """Begin to watch the old stores."""
        migrations = self._migrations
        self._watch.start([each.store for each in migrations], {each.store for each in migrations if each.writes_back})
        self._walks.start(each.store for each in migrations)
        self._shards.on_event = self._hear
        self._judging = asyncio.get_running_loop().create_task(self._end_over(), name="fastticket-migration-programs")
        self._tasks.add(self._judging)
        self._judging.add_done_callback(self._tasks.discard)

    def give_way(self, coming: Exchange | None) -> None:
        """Another configuration is in force: its exchange, which has started, watches the old
        stores from now on, those that are there in both, and nobody the others. None: it has none.
        While this one retires, what it holds, ends and makes goes on to that one at once. Called
        again for each further configuration.
        """
        there = coming._those_of(self) if coming else {}
        self._held.give_way(coming._held if coming else None, there)
        self._watch.give_way(coming._watch if coming else None, there)
        self._walks.give_way(coming._walks if coming else None, there)
        if self._judging:
            self._judging.cancel()
        is_same_hash = coming and [there.get(store) for store in self._hashes()[:1]] == coming._hashes()[:1]
        self._programs.give_way(coming._programs if coming and is_same_hash else None)

    def _those_of(self, before: Exchange) -> dict[OldStore, OldStore]:
        """Which old store of the configuration before is which one here."""
        here = {(each.store.source, each.cookie): each.store for each in self._migrations}
        return {
            each.store: here[each.store.source, each.cookie]
            for each in before._migrations
            if (each.store.source, each.cookie) in here
        }

    async def aclose(self) -> None:
        """Stop, and close the old stores."""
        if self._shards.on_event == self._hear:
            self._shards.on_event = _ignore
        for store in self._hashes()[:1]:
            self._watch.note((store, each.old_id) for each in self._programs.take_all())
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._watch.stop()
        await self._walks.stop()
        for migration in self._migrations:
            await migration.store.aclose()

    def _hear(self, event: Event) -> None:
        if event.kind == "rotated":
            self._rotations.hear(event.session_id, event.successor_id)
        self._watch.hear(event)

    @property
    def counted(self) -> dict[str, int]:
        """The counts, by "source result"."""
        return {f"{source} {result}": count for (source, result), count in self.counts.items()}

    @property
    def now(self) -> dict[str, int]:
        """How many exchanged sessions are held, and of how many ends the old stores still have to
        learn.
        """
        return {"held": len(self._held), "late": self._watch.late_count + self._walks.late_count}

    @property
    def away(self) -> dict[str, bool]:
        """By source: whether an old store is away, where that keeps anybody out."""
        found: dict[str, bool] = {}
        for store in (each.store for each in self._migrations if self._counts_today(each) or each.mints):
            found[store.source] = found.get(store.source, False) or self._watch.is_away(store)
        return found

    async def faults(self) -> list[str]:
        """Which old stores do not answer, or do not let this gateway do what it has to do there:
        each is asked about a session that is nowhere, so that nothing changes.
        """
        found = []
        for migration in self._migrations:
            try:
                await migration.store.uses([NOBODY])
                await migration.store.end([NOBODY])
                if migration.writes_back:
                    await migration.store.keep({NOBODY: Seen(self._cache.now_ms(), 60)})
            except StoreUnavailable as error:
                found.append(f"[[migration]] {migration.store.source}: url: {error}")
        return found

    # --- requests

    async def ticket_for(self, cookies: str, *, is_strong: bool = False) -> str | Verdict:
        """The ticket for what a Cookie field brings, or why there is none. `is_strong`: the old
        store is asked, whatever is known. StoreUnavailable.
        """
        verdict = Verdict.MISSING
        for migration, value in self._brought(cookies):
            store = migration.store
            old_id = store.identify(value) if value else ""
            if not old_id:
                fault = store.fault(value)
                self.counts[store.source, f"refused_{fault}"] += 1
                verdict = VERDICTS[fault]
                continue
            outcome = await self._known(store, old_id) if not is_strong else None
            if outcome is None:
                outcome = await self._exchange(store, old_id, value)
            if isinstance(outcome, str):
                return outcome
            verdict = outcome.verdict
        return verdict

    def note(self, ticket: str, cookies: str) -> None:
        """A request came with a ticket of ours that was good, and with other cookies: if it is the
        session of one of them, it is held from now on.
        """
        verified = self._shards.keys.verify(ticket, self._cache.now_ms())
        if not isinstance(verified, Ticket) or self._held.get(verified.session_id):
            return
        if self._is_noted(ticket, verified, cookies) or self._rotations.is_read(verified.principal):
            return
        if len(self._tasks) < EXCHANGES_MAX:
            task = asyncio.get_running_loop().create_task(self._note_rotated(ticket, verified, cookies))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _is_noted(self, ticket: str, verified: Ticket, cookies: str) -> bool:
        """Whether one of the cookies, if there is one, is of the ticket's session."""
        is_one_of_none = True
        for migration, value in self._brought(cookies):
            old_id = migration.store.identify(value) if value else ""
            if not old_id:
                continue
            is_one_of_none = False
            if self._is_of(verified, migration.store, old_id):
                self._hold(migration.store, old_id, ticket, verified)
                return True
        return is_one_of_none

    async def _note_rotated(self, ticket: str, verified: Ticket, cookies: str) -> None:
        """The session may have been rotated before this gateway began: the log says so."""
        with contextlib.suppress(StoreUnavailable):
            if not self._rotations.is_read(verified.principal):
                await self._rotations.read(verified.principal)
            is_over = self._shards.known_end(verified.session_id) is not None
            if not self._held.get(verified.session_id) and self._is_noted(ticket, verified, cookies) and is_over:
                session = self._held.drop(verified.session_id)
                if session:
                    await self._watch.end(session.store, session.old_id)

    async def mint(self, ticket: str, kind: TicketFormat) -> str:
        """A ticket of Linkis' for the session of ours whose ticket this is: the one that it was
        exchanged for, or one that is made once, and is in the hash while the session lives.
        StoreUnavailable.
        """
        verified = self._shards.keys.verify(ticket, self._cache.now_ms())
        if not isinstance(verified, Ticket):
            raise StoreUnavailable("the ticket's key has gone; try again")
        store = self._hashes()[0]
        held = self._held.get(verified.session_id)
        if held and held.store is store:
            return held.old_id
        making = self._making.get(verified.session_id)
        if making is None:
            making = asyncio.ensure_future(self._make(store, ticket, verified, kind))
            self._making[verified.session_id] = making
            making.add_done_callback(lambda _: self._making.pop(verified.session_id))
        return await asyncio.shield(making)

    async def _make(self, store: LinkisHash, ticket: str, verified: Ticket, kind: TicketFormat) -> str:
        now_ms = self._cache.now_ms()
        made = await store.make(verified.principal, verified.issued_at_ms, kind, now_ms)
        self._hold(store, made, ticket, verified, is_ours=True)
        self.counts[store.source, "minted"] += 1
        return made

    async def mint_for_token(self, made_for: Ticket, kind: TicketFormat, on_gone: Callable[[], None]) -> str:
        """As `mint`, for requests of a program's token (`passes`); programs.py says when it ends.
        `on_gone` is called when the hash does not have it any more. StoreUnavailable.
        """
        store = self._hashes()[0]
        now_ms = self._cache.now_ms()
        made = await store.make(made_for.principal, now_ms, kind, now_ms, is_of_token=True)
        self._hold(store, made, "", made_for, is_ours=True, on_gone=on_gone)
        self._programs.add(MadeForToken(now_ms, made_for.session_id, made_for.principal, made))
        self.counts[store.source, "minted"] += 1
        return made

    async def _end_over(self) -> None:
        """End what was made for programs, in time."""
        while True:
            await asyncio.sleep(self._pause_s)
            for store in self._hashes()[:1]:
                over = self._programs.take_over(store, self._cache.now_ms())
                for made in over:
                    self._held.drop(made.session_id)
                self._watch.note((store, made.old_id) for made in over)

    def _hashes(self) -> list[LinkisHash]:
        """Of Linkis; what is made here is in the first."""
        return [each.store for each in self._migrations if isinstance(each.store, LinkisHash)]

    async def end(self, ticket: str, cookies: str) -> None:
        """The session of a ticket was ended here: what it was ends, too. Raises nothing."""
        verified = self._shards.keys.verify(ticket, self._cache.now_ms())
        if not isinstance(verified, Ticket):
            return
        if not self._held.get(verified.session_id) and not self._is_noted(ticket, verified, cookies):
            await self._note_rotated(ticket, verified, cookies)
        session = self._held.drop(verified.session_id)
        if session:
            self.counts[session.store.source, "ended_here"] += 1
            await self._watch.end(session.store, session.old_id)

    async def end_brought(self, cookies: str, but_of: str = "") -> None:
        """A client has logged in or out here: the old sessions that its cookies name end, but those
        of the user `but_of`, and those in which nobody is logged in. Raises nothing.
        """
        for migration, value in self._brought(cookies):
            store = migration.store
            old_id = store.identify(value) if value else ""
            if old_id:
                try:
                    moved = await self._read(store, old_id, value)
                except StoreUnavailable:  # whoever it is
                    await self._watch.end(store, old_id)
                else:
                    if isinstance(moved, MovedSession) and moved.principal != but_of:
                        self.counts[store.source, "ended_here"] += 1
                        await self._watch.end(store, old_id)

    async def other_user(self, ticket: str, cookies: str) -> bool:
        """Whether a request with a good ticket has come with the cookie of a session that goes on
        at the other system, and is of another user. That one was exchanged then. False, where the
        old store is away.
        """
        verified = self._shards.keys.verify(ticket, self._cache.now_ms())
        named = [
            (each.store, each.store.identify(value) if value else "", value) for each, value in self._brought(cookies)
        ]
        if not isinstance(verified, Ticket) or any(self._is_of(verified, *each[:2]) for each in named):
            return False
        for store, old_id, value in named:
            if old_id:
                with contextlib.suppress(StoreUnavailable):
                    moved = await self._read(store, old_id, value)
                    is_other = isinstance(moved, MovedSession) and moved.principal != verified.principal
                    if is_other and await self._exchange(store, old_id, value):
                        return True
        return False

    def _is_of(self, verified: Ticket, store: OldStore, old_id: str) -> bool:
        """Whether an old session is what the session of a ticket was."""
        held = self._held.get(verified.session_id)
        if held and (held.store, held.old_id) == (store, old_id):
            return True
        return bool(old_id) and self._rotations.continues(verified.session_id, derive_session_id(store.source, old_id))

    async def superseded(self, ticket: str, cookies: str, set_cookie: str) -> bool:
        """Whether a response makes the client somebody else at the old system, or logs it out
        there. `cookies`: what the request has brought.
        """
        self.note(ticket, cookies)
        verified = self._shards.keys.verify(ticket, self._cache.now_ms())
        held = self._held.get(verified.session_id) if isinstance(verified, Ticket) else None
        for migration in self._migrations:
            values = cookies_named(migration.cookie, set_cookie.partition(";")[0])
            if values and held and held.store is migration.store:
                return migration.store.identify(values[0]) != held.old_id
            if values and isinstance(verified, Ticket) and self._counts_today(migration):
                return await self._is_other_login(migration, values[0], verified.principal, cookies)
        return False

    async def _is_other_login(self, migration: Migration, value: str, principal: str, cookies: str) -> bool:
        """Of a session that began here. A session there in which nobody is logged in, or the same
        user, goes well with it; that a cookie is deleted counts if the client has brought it.
        """
        try:
            old_id = migration.store.identify(value)
            moved = await self._read(migration.store, old_id, value) if old_id else None
        except StoreUnavailable:
            return True  # who it is cannot be told
        if isinstance(moved, MovedSession):
            return moved.principal != principal
        is_anonymous = moved is not None and moved.why == "anonymous"
        return not is_anonymous and any(brought is migration for brought, _ in self._brought(cookies))

    async def _read(self, store: OldStore, old_id: str, cookie: str) -> MovedSession | Skipped:
        """The session of a cookie, if its store has not failed a moment ago, and does not have it
        only because it could not be told of its end yet. OldStoreUnavailable.
        """
        if self._watch.is_late(store, old_id):
            return Skipped(shown(old_id), "not_found")
        async with self._room:
            if self._is_away(store):
                raise OldStoreUnavailable(f"[[migration]] {store.source}: the old store is away; try again")
            try:
                return await store.read(cookie)
            except StoreUnavailable:
                self._away_until_s[store] = asyncio.get_running_loop().time() + AWAY_S
                raise

    def _counts_today(self, migration: Migration) -> bool:
        today = datetime.datetime.fromtimestamp(self._cache.now_ms() / 1000, datetime.UTC).date()
        return today <= migration.until

    def _brought(self, cookies: str) -> Iterator[tuple[Migration, str]]:
        """The cookies of a request that are exchanged now; the value is empty if it cannot be one:
        too long, or there are several.
        """
        for migration in self._migrations:
            values = set(cookies_named(migration.cookie, cookies)) - {""}
            if values and self._counts_today(migration):
                value = values.pop()
                yield migration, value if not values and len(value) <= COOKIE_CHARS_MAX else ""

    async def _known(self, store: OldStore, old_id: str) -> Outcome | None:
        """The answer that needs no question to the old store: the session is held, and the watch
        would have heard of an end there; or it was refused a moment ago.
        """
        session = self._held.of_old(store, old_id)
        if session and session.is_ours:
            return Refusal(VERDICTS["minted"], "minted")  # it was in no browser: somebody has it from a log
        if session and session.ticket:
            with contextlib.suppress(TicketRefused):
                await self._cache.authenticate(session.ticket, touch=False)
                return session.ticket
        until_s, refusal = self._refusals.get((store, old_id), (0.0, None))
        return refusal if asyncio.get_running_loop().time() < until_s else None

    # --- exchanges

    async def _exchange(self, store: OldStore, old_id: str, cookie: str) -> Outcome:
        """One at a time for each old session. StoreUnavailable."""
        loop = asyncio.get_running_loop()
        flight = self._flights.get((store, old_id))
        if flight is None:
            if len(self._flights) >= EXCHANGES_MAX or self._is_away(store):
                self.counts[store.source, "refused_unavailable"] += 1
                raise OldStoreUnavailable(f"[[migration]] {store.source}: the old store is away or busy; try again")
            flight = self._flights[store, old_id] = loop.create_future()
            task = loop.create_task(self._fly(flight, store, old_id, cookie))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(flight)

    def _is_away(self, store: OldStore) -> bool:
        """Whether it has failed a moment ago."""
        return asyncio.get_running_loop().time() < self._away_until_s.get(store, 0.0)

    async def _fly(self, flight: asyncio.Future[Outcome], store: OldStore, old_id: str, cookie: str) -> None:
        try:
            flight.set_result(await self._ask(store, old_id, cookie))
        except Exception as error:
            self.counts[store.source, "refused_unavailable"] += 1
            is_known = isinstance(error, StoreUnavailable)
            flight.set_exception(error if is_known else StoreUnavailable(f"unexpected: {type(error).__name__}"))
            flight.exception()  # retrieved, even if every caller has gone
        finally:
            del self._flights[store, old_id]
            if not flight.done():
                flight.cancel()

    async def _ask(self, store: OldStore, old_id: str, cookie: str) -> Outcome:
        moved = await self._read(store, old_id, cookie)
        if isinstance(moved, Skipped):
            return self._refuse(store, old_id, VERDICTS.get(moved.why, Verdict.MALFORMED), moved.why)
        wanted = to_restored(self._as_ours(moved), self._shards.fleet.flush_interval_ms)
        ticket = await take_up(self._shards, wanted._replace(began_ms=moved.began_ms))  # by the old store's clock
        if isinstance(ticket, Verdict):
            return self._refuse(store, old_id, ticket, ticket.reason)
        verified = self._shards.keys.verify(ticket, self._cache.now_ms())
        if not isinstance(verified, Ticket):
            return self._refuse(store, old_id, verified, verified.reason)
        self._hold(store, old_id, ticket, verified)
        self.counts[store.source, "exchanged"] += 1
        return ticket

    def _as_ours(self, moved: MovedSession) -> MovedSession:
        """With the lifetimes of our configuration. The exchange is a use of it, and its absolute
        lifetime counts from now on: the other system has none, or another.
        """
        now_ms, cache = self._cache.now_ms(), self._cache
        created_ms = min(moved.created_ms, now_ms)
        age_s = -((created_ms - now_ms) // 1000)
        return moved._replace(
            created_ms=created_ms,
            last_access_ms=now_ms,
            idle_timeout_s=cache.idle_timeout_s,
            absolute_lifetime_s=age_s + cache.absolute_lifetime_s if cache.absolute_lifetime_s else 0,
        )

    def _hold(
        self,
        store: OldStore,
        old_id: str,
        ticket: str,
        verified: Ticket,
        *,
        is_ours: bool = False,
        on_gone: Callable[[], None] | None = None,
    ) -> None:
        words = (verified.session_id, verified.principal, ticket, verified.idle_timeout_s)
        session = HeldSession(store, old_id, *words)
        session.is_ours, session.on_gone = is_ours, on_gone
        self._held.add(session)
        self._shards.of(verified.principal).is_followed = True

    def _refuse(self, store: OldStore, old_id: str, verdict: Verdict, reason: str) -> Refusal:
        refusal = Refusal(verdict, reason)
        self.counts[store.source, f"refused_{reason}"] += 1
        self._refusals[store, old_id] = (asyncio.get_running_loop().time() + REFUSAL_S, refusal)
        self._refusals.move_to_end((store, old_id))
        if len(self._refusals) > REFUSALS_MAX:
            self._refusals.popitem(last=False)
        return refusal


def _ignore(event: Event) -> None:
    pass
