"""What becomes of sessions, as a stream that can be resumed.

The store's lifecycle log is read, shard after shard, so nothing is missed while nobody listens, for as long as the log goes back.
Events of one principal come in order. A `position` says how far one has come in every shard.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Self

from fastticket.errors import StoreUnavailable
from fastticket.stores.base import Event, Position, Store, Tail

#: What is told of unless one asks for something else. There is `changed`, too: attributes were written.
KINDS = ("created", "rotated", "revoked", "expired", "lost")
PAGE_EVENTS_MAX = 500  # of a shard, in one look
LOOK_INTERVAL_S = 0.25
PLACE = re.compile(r"(\d{1,20}-\d{1,20})|-")


class SessionEvent(NamedTuple):
    """Something happened to a session."""

    kind: str  #: created, rotated, changed, revoked, expired; lost: the log did not go back far enough, so look sessions up again
    session_id: str
    principal: str
    reason: str  #: revoked: logout, logout_everywhere, revoked, evicted, reissued; expired: idle, absolute
    successor_id: str  #: rotated: the session's id from now on
    position: str  #: to resume after this event


class EventStream:
    """`async for event in cache.events()`. Never ends by itself; an outage of the store only delays it.

    `on_look` is called before each look at the log.
    """

    def __init__(
        self, store: Store, position: str | None, kinds: Collection[str], interval_s: float, on_look: Callable[[], None]
    ) -> None:
        self._store = store
        self._places: list[Position | None] = (
            [None] * store.shards if position is None else _read(position, store.shards)
        )
        self._kinds = frozenset(kinds)
        self._interval_s = min(interval_s, LOOK_INTERVAL_S)
        self._on_look = on_look
        self._told: deque[SessionEvent] = deque()
        self._position = position

    @property
    def position(self) -> str | None:
        """Behind the last event that was told. None: nothing was, and the stream has not started."""
        return self._position

    async def start(self) -> Self:
        """Begin now rather than with the first event that is asked for: whatever happens after this is told. StoreUnavailable."""
        while None in self._places:
            if not await self._look() and None in self._places:
                raise StoreUnavailable("events: the store does not answer for every shard")
        self._position = _text(self._places)
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionEvent:
        while not self._told:
            self._on_look()
            if not await self._look():
                await asyncio.sleep(self._interval_s)
        event = self._told.popleft()
        self._position = event.position
        return event

    async def _look(self) -> bool:
        """Take in a page of each shard's log. Whether there was anything: then there may be more."""
        try:
            tails = await self._store.tails(dict(enumerate(self._places)), PAGE_EVENTS_MAX)
        except StoreUnavailable:
            return False
        is_news = False
        for shard, tail in tails.items():
            if isinstance(tail, Tail):
                is_news |= tail.gap or bool(tail.events)
                self._take(shard, tail)
        return is_news

    def _take(self, shard: int, tail: Tail) -> None:
        if tail.gap:
            self._tell("lost", Event(tail.position, "lost", "", ""))
        for event in tail.events:
            self._places[shard] = event.position
            self._tell(event.kind, event)
        self._places[shard] = tail.position

    def _tell(self, kind: str, event: Event) -> None:
        if kind in self._kinds:
            place = _text(self._places)
            self._told.append(
                SessionEvent(kind, event.session_id, event.principal, event.reason, event.successor_id, place)
            )


def _text(places: Sequence[Position | None]) -> str:
    """Like `1763740000000-0,-,1763740000123-4`: a place in each shard's log, `-` where none is known yet."""
    return ",".join("-" if place is None else f"{place[0]}-{place[1]}" for place in places)


def _read(position: str, shards: int) -> list[Position | None]:
    places = position.split(",")
    if len(places) != shards or not all(PLACE.fullmatch(place) for place in places):
        raise ValueError(f"events: not a position of a store with {shards} shards; use one that an event of it had")
    parts = (place.partition("-") for place in places)
    return [(int(part[0]), int(part[2])) if part[0] else None for part in parts]
