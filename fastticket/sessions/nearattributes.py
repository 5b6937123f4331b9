"""Near copies of sessions' attributes: kept in memory until the lifecycle log tells of a change."""

from __future__ import annotations

import threading
from collections import OrderedDict

from fastticket.stores.contract import Position, StoredAttributes

COPY_OVERHEAD_BYTES = 300  # Python's objects, about: of a copy,
VALUE_OVERHEAD_BYTES = 100  # and of each value in it


class Flight:
    """A read or write of a session's attributes that is under way."""

    def __init__(self, session_id: str, shard: int) -> None:
        self.session_id = session_id
        self.shard = shard
        self.heard: Position = (0, 0)  # the last change that the log has told of meanwhile
        self.is_void = False  # its result must not be kept: the session has ended, or the log has a gap


class NearAttributes:
    """The least recently used copies are dropped first. `bytes_max` 0: none is kept.

    A copy has the version at which it was read. The log tells of every later version; a read under
    way when it does must not bring the old one back:

    1. a read gets version 7
    2. another process writes version 8, and a flush here hears of it
    3. the read's reply arrives: 7 is less than the version heard, so it is not kept

    `find` may be called in any thread; the lock is for that.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._copies: OrderedDict[str, tuple[int, StoredAttributes, int]] = OrderedDict()
        self._under_way: dict[str, list[Flight]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._copies)

    def find(self, session_id: str) -> StoredAttributes | None:
        """The copy. The caller checks the shard's lease before it calls: the log was heard then."""
        with self._lock:
            copy = self._copies.get(session_id)
            if copy:
                self._copies.move_to_end(session_id)
            return copy and copy[1]

    def depart(self, session_id: str, shard: int) -> Flight:
        """A read or write begins."""
        flight = Flight(session_id, shard)
        self._under_way.setdefault(session_id, []).append(flight)
        return flight

    def land(self, flight: Flight, found: StoredAttributes | None) -> None:
        """A flight has ended. `found`: what the store holds; None: not known."""
        flights = self._under_way.get(flight.session_id, [])
        if flight in flights:
            flights.remove(flight)
            if not flights:
                del self._under_way[flight.session_id]
        if found is None:
            self.drop(flight.session_id)
        elif not flight.is_void and flight.heard <= found.version:
            self._keep(flight, found)

    def changed(self, session_id: str, version: Position) -> None:
        """The log tells of a write."""
        copy = self._copies.get(session_id)
        if copy and copy[1].version < version:
            self.drop(session_id)
        for flight in self._under_way.get(session_id, ()):
            flight.heard = max(flight.heard, version)

    def end(self, session_id: str) -> None:
        """The session is over."""
        self.drop(session_id)
        for flight in self._under_way.get(session_id, ()):
            flight.is_void = True

    def forget(self, shard: int) -> None:
        """The shard's log has a gap."""
        with self._lock:
            held = list(self._copies.items())
        for session_id, copy in held:
            if copy[0] == shard:
                self.drop(session_id)
        for flights in self._under_way.values():
            for flight in flights:
                flight.is_void |= flight.shard == shard

    def drop(self, session_id: str) -> None:
        """Forget a copy."""
        with self._lock:
            copy = self._copies.pop(session_id, None)
        if copy:
            self._bytes -= copy[2]

    def _keep(self, flight: Flight, found: StoredAttributes) -> None:
        known = self._copies.get(flight.session_id)
        if known and known[1].version > found.version:
            return
        self.drop(flight.session_id)
        size = COPY_OVERHEAD_BYTES + sum(
            VALUE_OVERHEAD_BYTES + len(name) + len(raw) for name, raw in found.values.items()
        )
        if size > self._bytes_max:
            return
        with self._lock:
            self._copies[flight.session_id] = flight.shard, found, size
            self._bytes += size
            while self._bytes > self._bytes_max:
                _, oldest = self._copies.popitem(last=False)
                self._bytes -= oldest[2]
