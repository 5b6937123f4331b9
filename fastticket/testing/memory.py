"""A store in memory: the plain reading of `fastticket.stores.contract`.

    MemoryServer   the truth: sessions and logs by shard, each call in one step
    MemoryStore    one cache's Store on it

Caches in several threads may each have a store on one server; so a call holds the server's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self, TypeVar

from fastticket.errors import AttributesTooLarge, StoreUnavailable, TooManySessions
from fastticket.stores.contract import (
    BAR_LASTS_MS,
    EVERYBODY,
    GATEWAYS_MAX,
    NEVER_WRITTEN,
    SESSION_ID_CHARS,
    Bar,
    Changed,
    Event,
    Fleet,
    Loss,
    Position,
    Reply,
    Request,
    Restored,
    RestoredSession,
    Ring,
    StoredAttributes,
    StoredSession,
    Tail,
    Written,
    check_card,
    shard_of,
)

T = TypeVar("T")

EPOCH_MS = 1_750_000_000_000  # what a clock of a test is added to


class Log:
    """One shard's lifecycle log. Entries up to `lost_up_to` are gone."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.lost_up_to = 0
        self.last = 0

    def append(self, kind: str, session: StoredSession, reason: str = "", successor_id: str = "") -> Position:
        """Add an entry; its position."""
        self.last += 1
        self.events.append(Event((self.last, 0), kind, session.id, session.principal, reason, successor_id))
        return self.last, 0

    @property
    def change(self) -> Changed | None:
        """The change of attributes that the doorbell rings for, if the last entry is one."""
        event = self.events[-1] if self.events else None
        return Changed(event.session_id, event.position) if event and event.kind == "changed" else None

    def tail(self, since: Position | None) -> tuple[list[Event], bool]:
        """What came after a position, and whether some of it is lost."""
        if since is None:
            return [], False
        if not self.lost_up_to <= since[0] <= self.last:
            return [], True
        return [event for event in self.events if event.position > since], False

    def page(self, since: Position | None, entries_max: int) -> Tail:
        """As `Store.tails`."""
        if since is None:
            return Tail((self.last, 0), [], False)
        _, gap = self.tail(since)
        left = [event for event in self.events if gap or event.position > since][:entries_max]
        return Tail(left[-1].position if left else (self.last, 0) if gap else since, left, gap)

    def lose(self, entries: int = 0) -> None:
        """Lose what there is, and what somebody else may have seen of it."""
        self.last += entries
        self.lost_up_to = self.last
        self.events.clear()


class MemoryServer:
    """The truth. `clock`: a monotonic one, ms; `shift_ms`: how far the store's time is ahead of
    it.
    """

    def __init__(self, clock: Callable[[], int], shards: int = 1, shift_ms: int = EPOCH_MS) -> None:
        self.clock = clock
        self.began_at_ms = 0
        self.shift_ms = shift_ms
        self.shards = shards
        self.live: dict[str, StoredSession] = {}
        self.attributes: dict[str, StoredAttributes] = {}
        self.logs = [Log() for _ in range(shards)]
        self.ended: set[tuple[str, str]] = set()  # by an end, of sessions that may be elsewhere
        self.ended_before_ms: dict[str, int] = {}  # all of a principal's that were created by then
        self.barred_ms: dict[str, int] = {}  # by principal: bars, as many as there are
        self.fleet: Fleet | None = None
        self.register: dict[str, tuple[int, bytes]] = {}  # by id: until when (store time), and the card

    def join(self, fleet: Fleet) -> Fleet | None:
        """As `Store.join`."""
        before = self.fleet
        self.fleet = fleet if before is None else Fleet(*map(max, before, fleet))
        return before

    def time_ms(self) -> int:
        """The store's clock."""
        return self.clock() + self.shift_ms

    def uptime_ms(self) -> int:
        """Since the clock began."""
        return self.clock() - self.began_at_ms

    def announce(self, gateway_id: str, card: bytes, lease_ms: int) -> bool:
        """As `Store.announce`."""
        now_ms = self.time_ms()
        self.register = {
            each: entry for each, entry in self.register.items() if entry[0] > now_ms and each != gateway_id
        }
        if lease_ms and len(self.register) >= GATEWAYS_MAX:
            return False
        if lease_ms:
            self.register[gateway_id] = now_ms + lease_ms, card
        return True

    def gateways(self) -> dict[str, bytes]:
        """As `Store.gateways`."""
        now_ms = self.time_ms()
        return {gateway_id: card for gateway_id, (until_ms, card) in self.register.items() if until_ms > now_ms}

    def create(self, session: StoredSession, sessions_max: int, evicts: bool) -> list[str]:
        """As `Store.create`."""
        gone = []
        if sessions_max:
            now_ms = self.time_ms()
            others = self._of(session.principal)
            dead = sorted((s for s in others if s.idle_deadline_ms <= now_ms), key=lambda s: (s.idle_deadline_ms, s.id))
            alive = sorted((s for s in others if s.idle_deadline_ms > now_ms), key=lambda s: (s.created_ms, s.id))
            if len(alive) >= sessions_max and not evicts:
                raise TooManySessions(sessions_max)
            self._remove("expired", dead[: max(0, len(others) + 1 - sessions_max)])
            gone = alive[: max(0, len(alive) + 1 - sessions_max)]
            self._remove("revoked", gone, "evicted")
        self.live[session.id] = session
        self._log("created", session)
        return [s.id for s in gone]

    def rotate(self, session_id: str, successor: StoredSession) -> bool:
        """As `Store.rotate`."""
        before = self.live.get(session_id)
        if successor.id in self.live:
            return True
        if before is None or before.principal != successor.principal:
            return False
        del self.live[session_id]
        self.live[successor.id] = successor._replace(details=before.details)
        self.ended.add(before[:2])
        if session_id in self.attributes:
            self.attributes[successor.id] = self.attributes.pop(session_id)
        self._log("rotated", before, successor_id=successor.id)
        return True

    def exchange(self, shard: int, request: Request) -> Reply:
        """As `Store.exchange`, for one shard."""
        for touch in request.touches:
            self._touch(*touch)
        log = self.logs[shard]
        events, gap = log.tail(request.since)
        return Reply((log.last, 0), events, gap, [self.deadline_ms(*key) for key in request.wanted])

    def revoke(self, session_id: str, principal: str, reason: str) -> bool:
        """As `Store.revoke`."""
        self.ended.add((session_id, principal))
        return bool(self._remove("revoked", [s for s in self._of(principal) if s.id == session_id], reason))

    def revoke_all(self, principal: str, keep: str, reason: str) -> list[str]:
        """As `Store.revoke_all`."""
        gone = [session for session in self._of(principal) if session.id != keep]
        at_ms = max([self.time_ms(), *(session.created_ms for session in self._of(principal))])
        if not keep:
            self.ended_before_ms[principal] = at_ms
        self.bar([Bar(principal, at_ms)])
        return self._remove("revoked", gone, reason)

    def count(self) -> int:
        """As `Store.count`."""
        return sum(session.idle_deadline_ms > self.time_ms() for session in self.live.values())

    def scan(self, cursor: str, count: int) -> tuple[str, list[StoredSession]]:
        """As `Store.scan`."""
        if len(cursor) not in (0, SESSION_ID_CHARS):
            raise ValueError(f"not a cursor of this store: {cursor!r}")
        found = sorted(session_id for session_id in self.live if session_id > cursor)[:count]
        sessions = [self.live[session_id] for session_id in found]
        living = [session for session in sessions if session.idle_deadline_ms > self.time_ms()]
        return found[-1] if len(found) == count else "", living

    def restore(self, sessions: Sequence[RestoredSession]) -> list[Restored]:
        """As `Store.restore`."""
        return [self._restore(*each) for each in sessions]

    def bar(self, bars: Sequence[Bar]) -> None:
        """As `Store.bar`."""
        for principal, at_ms in bars:
            self.barred_ms[principal] = max(at_ms, self.barred_ms.get(principal, 0))
        everybodys_ms = self.barred_ms.get(EVERYBODY, 0)
        others = {name: at_ms for name, at_ms in self.barred_ms.items() if at_ms > everybodys_ms}
        self.barred_ms = others | ({EVERYBODY: everybodys_ms} if everybodys_ms else {})

    def bars(self, shard: int, since_ms: int, bars_max: int) -> list[Bar]:
        """As `Store.bars`."""
        found = sorted((at_ms, name) for name, at_ms in self.barred_ms.items() if at_ms >= since_ms)
        mine = [Bar(name, at_ms) for at_ms, name in found if name == EVERYBODY or shard_of(name, self.shards) == shard]
        return mine[:bars_max]

    def _is_barred(self, principal: str, began_ms: int) -> bool:
        at_ms = max(self.barred_ms.get(principal, 0), self.barred_ms.get(EVERYBODY, 0))
        return began_ms <= at_ms and at_ms > self.time_ms() - BAR_LASTS_MS

    def _restore(self, session: StoredSession, attributes: Mapping[str, bytes], began_ms: int | None) -> Restored:
        if self.deadline_ms(session.id, session.principal) is not None:
            self._touch(*session[:3])
            return "exists"
        if session[:2] in self.ended or session.created_ms <= self.ended_before_ms.get(session.principal, -1):
            return "ended"
        if began_ms is not None and self._is_barred(session.principal, began_ms):
            return "ended"
        if min(session.idle_deadline_ms, session.absolute_deadline_ms) <= self.time_ms():
            return "expired"
        self.live[session.id] = session
        version = self._log("created", session)
        if attributes:
            self.attributes[session.id] = StoredAttributes(version, dict(attributes))
        return "created"

    def read_attributes(self, session_id: str, principal: str) -> StoredAttributes | None:
        """As `Store.read_attributes`."""
        if self.deadline_ms(session_id, principal) is None:
            return None
        return self.attributes.get(session_id, StoredAttributes(NEVER_WRITTEN, {}))

    def write_attributes(
        self, session_id: str, principal: str, values: Mapping[str, bytes], removed: Sequence[str], bytes_max: int
    ) -> Written | None:
        """As `Store.write_attributes`."""
        before = self.read_attributes(session_id, principal)
        if before is None:
            return None
        now = {name: value for name, value in before.values.items() if name not in removed} | dict(values)
        size_bytes = sum(len(name.encode()) + len(value) for name, value in now.items())
        held_bytes = sum(len(name.encode()) + len(value) for name, value in before.values.items())
        if size_bytes > max(bytes_max, held_bytes):
            raise AttributesTooLarge(size_bytes, bytes_max)
        version = self._log("changed", self.live[session_id])
        self.attributes[session_id] = StoredAttributes(version, now)
        return Written(version, before.version)

    def sessions(self, principal: str) -> list[StoredSession]:
        """As `Store.sessions`."""
        now_ms = self.time_ms()
        alive = [session for session in self._of(principal) if session.idle_deadline_ms > now_ms]
        return sorted(alive, key=lambda session: session.idle_deadline_ms)

    def sweep(self, dead_before_ms: int, sessions_max: int) -> int:
        """As `Store.sweep`."""
        before_ms = min(dead_before_ms, self.time_ms())
        dead = [session for session in self.live.values() if session.idle_deadline_ms <= before_ms]
        return len(self._remove("expired", dead[:sessions_max]))

    def deadline_ms(self, session_id: str, principal: str) -> int | None:
        """The idle deadline of a session; None: there is none such."""
        session = self.live.get(session_id)
        return session.idle_deadline_ms if session and session.principal == principal else None

    def _of(self, principal: str) -> list[StoredSession]:
        return [session for session in self.live.values() if session.principal == principal]

    def _touch(self, session_id: str, principal: str, idle_deadline_ms: int) -> None:
        stored_ms = self.deadline_ms(session_id, principal)
        if stored_ms is not None and stored_ms < idle_deadline_ms:
            self.live[session_id] = self.live[session_id]._replace(idle_deadline_ms=idle_deadline_ms)

    def _remove(self, kind: str, sessions: list[StoredSession], reason: str = "") -> list[str]:
        for session in sessions:
            del self.live[session.id]
            self.ended.add(session[:2])
            self.attributes.pop(session.id, None)
            self._log(kind, session, reason or self._expiry_of(session))
        return [session.id for session in sessions]

    @staticmethod
    def _expiry_of(session: StoredSession) -> str:
        return "absolute" if session.idle_deadline_ms >= session.absolute_deadline_ms else "idle"

    def _log(self, kind: str, session: StoredSession, reason: str = "", successor_id: str = "") -> Position:
        return self.logs[shard_of(session.principal, self.shards)].append(kind, session, reason, successor_id)


class _Shared:
    """What the stores on one server have in common."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.lock = threading.Lock()
        self.stores: list[MemoryStore] = []  # those that are open
        self.is_away = False


class MemoryStore:
    """See `fastticket.stores.contract.Store`. Sessions last as long as the object, closed or not.

    `clock`: the test's, which the caches on this store have, too; None: real time. A store object
    serves one cache: `another` makes the next one's.
    """

    shards = 1
    touches_per_exchange = 1000
    doubt_ms = 0

    def __init__(self, clock: Callable[[], int] | None = None) -> None:
        if clock is None:
            server = MemoryServer(_boot_time_ms, shift_ms=time.time_ns() // 1_000_000 - _boot_time_ms())
        else:
            server = MemoryServer(clock)
        self._begin(_Shared(server))

    def _begin(self, shared: _Shared) -> None:
        self._shared = shared
        self._server = shared.server
        self._ring: Ring | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # in which it is open

    def another(self) -> Self:
        """A second store with the same sessions, as another process has one."""
        made = type(self).__new__(type(self))
        made._begin(self._shared)
        return made

    @property
    def is_away(self) -> bool:
        """Whether every call is StoreUnavailable, of this store and of those that `another` made.
        Set it.
        """
        return self._shared.is_away

    @is_away.setter
    def is_away(self, is_away: bool) -> None:
        self._shared.is_away = is_away

    @property
    def servers(self) -> Mapping[str, str]:
        """Always empty: there is no server."""
        return {}

    async def open(self) -> None:
        """Begin to answer, and to hear the doorbell."""
        self._loop = asyncio.get_running_loop()
        with self._shared.lock:
            self._shared.stores.append(self)
        await self._call(lambda: None)

    @property
    def is_replaced(self) -> bool:
        """Never."""
        return False

    async def settle(self) -> None:
        """There is nothing to lose."""

    async def aclose(self) -> None:
        """Answer no more. Idempotent."""
        self._loop = None
        with self._shared.lock, contextlib.suppress(ValueError):
            self._shared.stores.remove(self)

    async def join(self, fleet: Fleet) -> Fleet | None:
        """See the contract, as for all that follow."""
        return await self._call(lambda: self._server.join(fleet))

    async def time_ms(self) -> int:
        """The clock, as a time since the epoch."""
        return await self._call(self._server.time_ms)

    async def uptime_ms(self) -> int:
        """As long as the clock."""
        return await self._call(self._server.uptime_ms)

    async def announce(self, gateway_id: str, card: bytes, lease_ms: int) -> bool:
        """One step."""
        check_card(card)
        return await self._call(lambda: self._server.announce(gateway_id, card, lease_ms))

    async def gateways(self) -> Mapping[str, bytes]:
        """One step."""
        return await self._call(self._server.gateways)

    async def create(self, session: StoredSession, *, sessions_max: int = 0, evicts: bool = True) -> Sequence[str]:
        """One step."""
        return await self._call(lambda: self._server.create(session, sessions_max, evicts))

    async def rotate(self, session_id: str, successor: StoredSession) -> bool:
        """One step."""
        return await self._call(lambda: self._server.rotate(session_id, successor))

    async def exchange(self, requests: Mapping[int, Request]) -> Mapping[int, Reply | StoreUnavailable]:
        """One step."""
        try:
            exchange = self._server.exchange
            return await self._call(lambda: {shard: exchange(shard, request) for shard, request in requests.items()})
        except StoreUnavailable as error:
            return dict.fromkeys(requests, error)

    async def revoke(self, session_id: str, principal: str, reason: str = "logout") -> bool:
        """One step."""
        return await self._call(lambda: self._server.revoke(session_id, principal, reason))

    async def revoke_all(self, principal: str, *, keep: str = "", reason: str = "logout_everywhere") -> Sequence[str]:
        """One step."""
        return await self._call(lambda: self._server.revoke_all(principal, keep, reason))

    async def sessions(self, principal: str) -> Sequence[StoredSession]:
        """One step."""
        return await self._call(lambda: self._server.sessions(principal))

    async def read_attributes(self, session_id: str, principal: str) -> StoredAttributes | None:
        """One step."""
        return await self._call(lambda: self._server.read_attributes(session_id, principal))

    async def write_attributes(
        self, session_id: str, principal: str, values: Mapping[str, bytes], removed: Sequence[str], *, bytes_max: int
    ) -> Written | None:
        """One step."""
        write = self._server.write_attributes
        return await self._call(lambda: write(session_id, principal, values, removed, bytes_max))

    async def sweep(self, dead_before_ms: int, sessions_max: int) -> int:
        """One step."""
        return await self._call(lambda: self._server.sweep(dead_before_ms, sessions_max))

    async def count(self) -> int:
        """One step."""
        return await self._call(self._server.count)

    async def scan(self, cursor: str, count: int) -> tuple[str, Sequence[StoredSession]]:
        """One step. By session id, which is the cursor."""
        return await self._call(lambda: self._server.scan(cursor, count))

    async def restore(self, sessions: Sequence[RestoredSession]) -> Sequence[Restored]:
        """One step."""
        return await self._call(lambda: self._server.restore(sessions))

    async def bar(self, bars: Sequence[Bar]) -> None:
        """One step."""
        await self._call(lambda: self._server.bar(bars))

    async def bars(self, shard: int, since_ms: int, bars_max: int) -> Sequence[Bar]:
        """One step."""
        return await self._call(lambda: self._server.bars(shard, since_ms, bars_max))

    async def note_loss(self, heard_ms: Mapping[int, int]) -> Mapping[int, Loss | StoreUnavailable]:
        """Nothing to note: no server takes over."""
        return {shard: Loss(span_ms, span_ms) for shard, span_ms in heard_ms.items()}

    async def history(self, shard: int, entries_max: int) -> Sequence[Event]:
        """The log's end."""
        return await self._call(lambda: self._server.logs[shard].events[-entries_max:])

    async def tails(
        self, since: Mapping[int, Position | None], entries_max: int
    ) -> Mapping[int, Tail | StoreUnavailable]:
        """One step."""
        logs = self._server.logs
        try:
            return await self._call(lambda: {shard: logs[shard].page(at, entries_max) for shard, at in since.items()})
        except StoreUnavailable as error:
            return dict.fromkeys(since, error)

    def on_doorbell(self, ring: Ring) -> None:
        """Rung for all that another store does."""
        self._ring = ring

    async def _call(self, do: Callable[[], T]) -> T:
        """In one step, and not in the turn of the loop that asks: no server answers at once."""
        await asyncio.sleep(0)
        if self._loop is None:
            raise StoreUnavailable("the store in memory is not open")
        if self._shared.is_away:
            raise StoreUnavailable("the store in memory is away (is_away)")
        with self._shared.lock:
            seen = [log.last for log in self._server.logs]
            done = do()
            news = [(shard, log.change) for shard, log in enumerate(self._server.logs) if log.last != seen[shard]]
            others = [store for store in self._shared.stores if store is not self]
        for shard, change in news:
            for other in others:
                other._hear(shard, change)
        return done

    def _hear(self, shard: int, change: Changed | None) -> None:
        """In its own event loop, which may be another thread's, or closed by now."""
        loop, ring = self._loop, self._ring
        if loop and ring:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ring, shard, change)


def _boot_time_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
