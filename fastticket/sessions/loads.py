"""Loads: asking the store about sessions that the near cache does not have, one flight a session.

    load         join the session's flight, or begin one; flights of one turn depart together
    load_anew    the same, but not by an answer to an earlier question
    watching     a session that is being made, to `hold` it without asking for it
    _fly         ask for a batch of flights until each has landed
    _land        what an answer means for a flight, as `coherence.landing` decides

Rules of this file
- A flight belongs to the batch that sends it; callers only wait for `Flight.landed`. So nobody's
  cancellation cancels a load.
- A session that lives is entered into the near cache in `_land`, before anything else runs: a
  moment later it may have ended.
- A session that this process makes is watched as a flight from before the store is asked. What is
  heard in between decides whether it is held, as it decides for a load:
      1. a login is written
      2. another process ends the session
      3. a flush reads the log, and its reply arrives first
      4. the login's reply arrives. It must not bring the session back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator

from fastticket.core.ticket import Ticket, decode_session_id
from fastticket.errors import StoreUnavailable, Verdict
from fastticket.sessions.coherence import Landing, landing
from fastticket.sessions.shards import TAKEN_OVER, Flight, Key, Shards
from fastticket.stores.contract import ENDED_MS, Request

#: A load asks again when it was poisoned, and `TicketCache.authenticate` loads again when the
#: answer came back past its lease.
LOAD_ATTEMPTS = 4


class Loads:
    """The flights of all shards. `count`: how many there were since the start."""

    def __init__(self, shards: Shards) -> None:
        self.count = 0
        self._shards = shards
        self._departures: list[Flight] = []
        self._batches: set[asyncio.Task[None]] = set()

    async def load(self, ticket: Ticket) -> int | Verdict:
        """Load the session; its idle deadline, or a refusal. StoreUnavailable, CacheMisused."""
        self._shards.life.check()
        flights = self._shards.of(ticket.principal).flights
        key = (ticket.session_id, ticket.principal)
        flight = flights.get(key)
        if flight is None:
            loop = asyncio.get_running_loop()
            flight = flights[key] = Flight(ticket, loop.create_future())
            self.count += 1
            if not self._departures:
                loop.call_soon(self._depart)
            self._departures.append(flight)
        return await asyncio.shield(flight.landed)

    async def load_anew(self, ticket: Ticket) -> int | Verdict:
        """As `load`, but the store is asked after this call. StoreUnavailable."""
        flights = self._shards.of(ticket.principal).flights
        while (flight := flights.get((ticket.session_id, ticket.principal))) and flight.has_departed:
            await asyncio.wait([flight.landed])
        return await self.load(ticket)

    @contextlib.contextmanager
    def watching(self, ticket: Ticket) -> Iterator[Flight]:
        """While the store is asked to make this session: what is heard of it."""
        shard = self._shards.of(ticket.principal)
        flight = Flight(ticket, asyncio.get_running_loop().create_future())
        flight.has_departed = True
        flight.poisoned = shard.position is None  # then ends are not heard from before the session begins
        shard.flights[flight.key] = flight
        try:
            yield flight
        finally:
            del shard.flights[flight.key]
            flight.landed.set_result(Verdict.MISS)

    def hold(self, flight: Flight, deadline_ms: int) -> None:
        """Enter a session that the store has just made, unless something was heard that makes it
        doubtful. Only beside others of its shard, under the lease that these have renewed all the
        time: an entry whose lease is about to run out would be lost in an outage.
        """
        principal, now_ms = flight.ticket.principal, self._shards.now_ms()
        if not self._shards.near.held_in(self._shards.of(principal).number) or not self._shards.is_leased(principal):
            return
        where = landing(
            ended=flight.ended,
            has_failed=False,
            is_poisoned=flight.poisoned,
            is_keyless=flight.key_is_gone,
            deadline_ms=deadline_ms,
            asked_ms=now_ms,
            now_ms=now_ms,
        )
        if where is Landing.LIVES:
            self._arrive(flight, where, deadline_ms, now_ms)

    def drop_keys(self, key_ids: Iterable[int]) -> None:
        """These keys have left the ring: flights for their tickets land with MISS."""
        gone = set(key_ids)
        for shard in self._shards:
            for flight in shard.flights.values():
                flight.key_is_gone |= flight.ticket.key_id in gone

    async def wait(self) -> None:
        """Until every batch under way has ended."""
        if self._batches:
            await asyncio.wait(self._batches)

    def _depart(self) -> None:
        flights, self._departures = self._departures, []
        batch = asyncio.create_task(self._fly(flights), name="fastticket-load")
        self._batches.add(batch)
        batch.add_done_callback(self._batches.discard)

    async def _fly(self, flights: list[Flight]) -> None:
        why = "the load was ended early; try again"  # by a cancellation, or an unexpected error
        try:
            for _ in range(LOAD_ATTEMPTS):
                for flight in flights:
                    flight.poisoned = False
                    flight.has_departed = True
                    flight.asked_ms = self._shards.now_ms()
                answers = await self._look_up([flight.key for flight in flights])
                flights = [flight for flight in flights if not self._land(flight, answers[flight.key])]
                if not flights:
                    return
            why = "the session changes faster than it can be loaded; try again"
        finally:  # whatever happened, no caller waits for ever
            for flight in (flight for flight in flights if not flight.landed.done()):
                self._land(flight, StoreUnavailable(why))

    async def _look_up(self, keys: list[Key]) -> dict[Key, int | StoreUnavailable | None]:
        wanted: dict[int, list[Key]] = {}
        for key in keys:
            wanted.setdefault(self._shards.of(key[1]).number, []).append(key)
        await self._shards.find_positions(list(wanted))
        requests = {number: Request(self._shards[number].position, wanted=batch) for number, batch in wanted.items()}
        answers: dict[Key, int | StoreUnavailable | None] = {}
        for number, reply in (await self._shards.exchange(requests)).items():
            if isinstance(reply, StoreUnavailable):
                answers.update(dict.fromkeys(wanted[number], reply))
            else:
                answers.update(zip(wanted[number], reply.deadlines_ms, strict=True))
        return answers

    def _land(self, flight: Flight, answer: int | StoreUnavailable | None) -> bool:
        """Deliver an answer to the callers. False: it may be outdated, ask again."""
        now_ms = self._shards.now_ms()
        error = answer if isinstance(answer, StoreUnavailable) else None
        deadline_ms = None if isinstance(answer, StoreUnavailable) else self._latest_deadline_ms(flight, answer)
        where = landing(
            ended=flight.ended,
            has_failed=error is not None,
            is_poisoned=flight.poisoned,
            is_keyless=flight.key_is_gone,
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
            flight.landed.exception()  # retrieved, even if every caller has gone
        else:
            flight.landed.set_result(self._arrive(flight, where, deadline_ms, now_ms))
        del self._shards.of(flight.ticket.principal).flights[flight.key]
        return True

    def _arrive(self, flight: Flight, where: Landing, deadline_ms: int | None, now_ms: int) -> int | Verdict:
        """Enter into the near cache what the store said. The deadline, or why there is none."""
        ticket, near = flight.ticket, self._shards.near
        if where is Landing.LIVES and deadline_ms is not None:
            near.insert(ticket.raw, self._shards.of(ticket.principal).number, deadline_ms, now_ms, False)
            return deadline_ms
        if where is Landing.ENDED and flight.ended is not None:
            return flight.ended
        if where is Landing.KEYLESS:
            return Verdict.MISS
        known = self._shards.known_end(ticket.session_id)
        verdict = Verdict.IDLE if where is Landing.IDLE else Verdict.UNKNOWN_SESSION if known is None else known
        near.refuse(decode_session_id(ticket.session_id), verdict, now_ms)
        return verdict

    def _latest_deadline_ms(self, flight: Flight, stored_deadline_ms: int | None) -> int | None:
        """The latest known one counts: a use that this process saw may not have reached the store
        yet. None: the store has no such session.
        """
        if stored_deadline_ms is None or stored_deadline_ms == ENDED_MS:
            return None
        known_ms = self._shards.near.idle_deadline_ms(decode_session_id(flight.ticket.session_id))
        return max(stored_deadline_ms, known_ms)

    def _may_come_yet(self, ticket: Ticket, now_ms: int) -> bool:
        """Whether a session that the store lacks may still turn up there. Another server has just
        taken over; or the session is so new that its login may have been written to a server that
        this process has not heard of yet.
        """
        age_ms = now_ms - ticket.issued_at_ms
        is_recent_login = self._shards.store.doubt_ms > 0 and age_ms < self._shards.settings.lease_ms
        return is_recent_login or self._shards.is_uncertain(self._shards.of(ticket.principal))
