"""What becomes of sessions, as a stream that can be resumed.

    LogFollower   reads on in every shard's log: `look` reads a page of each
    EventStream   tells what was read, event by event, with a position to resume after each

The store's lifecycle log is read shard after shard, so nothing is missed while nobody listens, for
as long as the log goes back. Events of one principal come in order. A stream's position is a place
in every shard's log: behind what was told, never behind what was only read.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Self

from fastticket.errors import StoreUnavailable
from fastticket.stores.contract import Event, Position, Store, Tail, is_canary

#: The kinds that are told of by default.
KINDS = ("created", "rotated", "revoked", "expired", "lost")
EVERY_KIND = frozenset({*KINDS, "changed"})
PAGE_EVENTS_MAX = 2000  # in one look, of all shards together
LOOK_INTERVAL_S = 0.25
PLACE = re.compile(r"(<?)([0-9]{1,20})-([0-9]{1,20})")
LOST = "lost"  # entries are missing: told whatever kinds were asked for
OLDEST: Position = (0, 0)  # before every entry: a log that is read from there begins with what is left of it


class SessionEvent(NamedTuple):
    """Something happened to a session."""

    kind: str  #: created, rotated, changed, revoked, expired; lost: the log did not go back far enough, so look sessions up again
    session_id: str
    principal: str
    reason: str  #: revoked: logout, logout_everywhere, revoked, evicted, reissued; expired: idle, absolute
    successor_id: str  #: rotated: the session's id from now on
    position: str  #: to resume after this event


class Place(NamedTuple):
    """A place in a shard's log: behind an entry, or before the first entry that a gap has left.

    What lies before that entry is gone, so no store can be asked from there: the log is read from
    its oldest entry on, and a gap is news only if that is another entry.
    """

    entry: Position
    is_before: bool = False

    @property
    def since(self) -> Position:
        """To ask the store from."""
        return OLDEST if self.is_before else self.entry

    def knows_gap(self, tail: Tail) -> bool:
        """Whether the gap before this tail is the one that this place is behind."""
        return self.is_before and bool(tail.events) and tail.events[0].position == self.entry

    def __str__(self) -> str:
        return f"{'<' if self.is_before else ''}{self.entry[0]}-{self.entry[1]}"


class Read(NamedTuple):
    """A step through a shard's log."""

    shard: int
    place: Place  #: behind it
    event: Event  #: of the kind "lost" where entries are missing


class LogFollower:
    """Reads on in every shard's log, from the `places` given and otherwise from now on.

    `failed`: the shards that did not answer the last time, and why.
    """

    def __init__(self, store: Store, places: Mapping[int, Place]) -> None:
        self.failed: dict[int, StoreUnavailable] = {}
        self.places = dict(places)
        self._store = store

    async def find_ends(self) -> bool:
        """Begin now in the logs that have no place yet. False: not every shard has answered."""
        unknown = [shard for shard in range(self._store.shards) if shard not in self.places]
        if unknown:
            tails = await self._tails(dict.fromkeys(unknown), 1)
            self.places |= {shard: Place(tail.position) for shard, tail in tails.items()}
        return len(self.places) == self._store.shards

    async def look(self, reads: deque[Read]) -> bool:
        """Append the next page of every log to `reads`. Whether there was any news: then there may
        be more.
        """
        since = {shard: place.since for shard, place in self.places.items()}
        tails = await self._tails(since, max(1, PAGE_EVENTS_MAX // self._store.shards))
        news = [self._take(shard, tail, reads) for shard, tail in tails.items()]
        return any(news)

    async def _tails(self, since: Mapping[int, Position | None], entries_max: int) -> dict[int, Tail]:
        """Of the shards that answer."""
        try:
            tails = await self._store.tails(since, entries_max)
        except StoreUnavailable as error:
            tails = dict.fromkeys(since, error)
        for shard, tail in tails.items():
            if isinstance(tail, StoreUnavailable):
                self.failed[shard] = tail
            else:
                self.failed.pop(shard, None)
        return {shard: tail for shard, tail in tails.items() if isinstance(tail, Tail)}

    def _take(self, shard: int, tail: Tail, reads: deque[Read]) -> bool:
        before, after = self.places[shard], Place(tail.position)
        if after == before and not tail.gap:
            return False
        if tail.gap and not before.knows_gap(tail):
            left = Place(tail.events[0].position, is_before=True) if tail.events else after
            reads.append(Read(shard, left, Event(left.entry, LOST, "", "")))
        reads.extend(Read(shard, Place(event.position), event) for event in tail.events)
        self.places[shard] = after
        return True


class EventStream:
    """`async for event in cache.events()`. An outage of the store only delays it; once the cache is
    closed, it is StoreUnavailable.

    Several tasks may share a stream: each event goes to one of them. `on_look` is called for each
    event that is asked for, and before each look at the log; what it raises ends the stream.
    ValueError: no such position, no such kind.
    """

    def __init__(
        self, store: Store, position: str | None, kinds: Collection[str], interval_s: float, on_look: Callable[[], None]
    ) -> None:
        self._kinds = _checked(kinds) | {LOST}
        self._interval_s = min(interval_s, LOOK_INTERVAL_S)
        self._on_look = on_look
        self._turn = asyncio.Lock()
        self._follower = LogFollower(store, {} if position is None else _places(position, store.shards))
        self._told_to = [] if position is None else position.split(",")  # as text; empty: not every shard is known yet
        self._untold: deque[Read] = deque()

    @property
    def position(self) -> str | None:
        """Behind the last event that was told, and what was left out there. None: the stream has
        not started.
        """
        return ",".join(self._told_to) or None

    async def start(self) -> Self:
        """Begin now rather than with the first event that is asked for: all that happens after this
        is told. StoreUnavailable, CacheMisused.
        """
        self._on_look()
        async with self._turn:
            if not self._told_to and not await self._begin():
                raise StoreUnavailable("events: the store does not answer for every shard")
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionEvent:
        self._on_look()
        async with self._turn:
            while not (event := self._next()):
                if not await self._look():
                    await asyncio.sleep(self._interval_s)
                self._on_look()
        return event

    def ready(self) -> SessionEvent | None:
        """The next event that was read already; None: the log has to be looked at."""
        return None if self._turn.locked() else self._next()

    def _next(self) -> SessionEvent | None:
        """The next event of a kind that was asked for, of a session that is somebody's. The
        position passes the others, too.
        """
        while self._untold:
            shard, place, event = self._untold.popleft()
            self._told_to[shard] = str(place)
            if event.kind in self._kinds and not is_canary(event.principal):
                _, kind, session_id, principal, reason, successor_id = event
                return SessionEvent(kind, session_id, principal, reason, successor_id, ",".join(self._told_to))
        return None

    async def _look(self) -> bool:
        """Whether there was anything: then there may be more."""
        return await (self._follower.look(self._untold) if self._told_to else self._begin())

    async def _begin(self) -> bool:
        """Nothing is told before the end of every log is known: a position names each."""
        if not await self._follower.find_ends():
            return False
        self._told_to = [str(place) for _, place in sorted(self._follower.places.items())]
        return True


def _checked(kinds: Collection[str]) -> frozenset[str]:
    unknown = sorted(set(kinds) - EVERY_KIND)
    if unknown:
        raise ValueError(f"events: no such kinds: {', '.join(unknown)}; kinds is a collection of {sorted(EVERY_KIND)}")
    return frozenset(kinds)


def _places(position: str, shards: int) -> dict[int, Place]:
    """Like `1763740000000-0,<1763740000123-4`: a place in each shard's log."""
    found = [PLACE.fullmatch(place) for place in position.split(",")]
    if len(found) != shards or None in found:
        raise ValueError(f"events: not a position of a store with {shards} shards; use one that an event of it had")
    return {shard: Place((int(at[2]), int(at[3])), bool(at[1])) for shard, at in enumerate(found) if at}
