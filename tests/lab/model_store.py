"""A store in memory, for tests, whose faults are switched on and off.

    ModelServer   the truth, shared by the stores of several processes (fastticket.testing.memory)
    ModelStore    one process' Store protocol on it; remembers every call
    Wire          between the two: refuses, loses or holds back calls and answers
    VirtualLoop   an event loop in which time passes only when no task has anything left to do

The server does a call in one step, so that things happen in the order of the code that calls.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fastticket.errors import StoreUnavailable
from fastticket.stores.contract import (
    Fleet,
    Position,
    Reply,
    Request,
    Ring,
    StoredAttributes,
    StoredSession,
    Tail,
    Written,
    shard_of,
)
from fastticket.testing.memory import MemoryServer
from lab.touch import Touch

TIMEOUT_MS = 1000  # after which a store that says nothing is unavailable
BOUND_S = 60.0  # virtual: how long a test waits for what must happen


# --- time


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits, and nothing will ever happen")
            self._loop.now_s += max(timeout, 0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still during work, and jumps to the next timer."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now_s


def virtual_ms() -> int:
    """The running loop's time: a monotonic clock."""
    return round(asyncio.get_running_loop().time() * 1000)


async def pass_ms(ms: int) -> None:
    """Let virtual time pass, and everybody do what they do in it."""
    await asyncio.sleep(ms / 1000)


async def settle() -> None:
    """Let everything go on that can go on now, in no time."""
    for _ in range(50):
        await asyncio.sleep(0)


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in a VirtualLoop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*arguments, **named))

    return run


# --- the server


class ModelServer(MemoryServer):
    """The truth, for the stores of several processes. `shift_ms` is changed to make the store's
    clock jump.
    """

    def __init__(self, clock: Callable[[], int], shards: int = 4) -> None:
        super().__init__(clock, shards)
        self.stores: list[ModelStore] = []

    def lose_log(self, shard: int) -> None:
        """Trim everything: who knew an older position has a gap, if anything was appended since."""
        self.logs[shard].lose()

    def wipe(self) -> None:
        """Restart empty."""
        self.live.clear()
        for log in self.logs:
            log.lose(entries=1000)


# --- the way there and back


class Call(NamedTuple):
    """A call of the store by a process. `shards`: those that it is for, if only some."""

    name: str
    arguments: tuple[Any, ...] = ()
    shards: frozenset[int] = frozenset()

    @property
    def requests(self) -> Mapping[int, Request]:
        """The requests given to `exchange`; empty for other calls."""
        return self.arguments[0] if self.name == "exchange" else {}

    @property
    def touches(self) -> list[Touch]:
        return [Touch(*touch) for request in self.requests.values() for touch in request.touches]

    @property
    def wanted(self) -> list[str]:
        return [session_id for request in self.requests.values() for session_id, _ in request.wanted]


def is_load(call: Call) -> bool:
    return bool(call.wanted)


def writes_touches(call: Call) -> bool:
    return bool(call.touches)


def is_any(_: Call) -> bool:
    return True


class Gate:
    """Holds back the calls that `holds` is true of, until it is opened."""

    def __init__(self, holds: Callable[[Call], bool]) -> None:
        self._holds = holds
        self._opened = asyncio.Event()
        self._arrivals = asyncio.Semaphore(0)

    async def go_through(self, call: Call) -> None:
        if self._holds(call) and not self._opened.is_set():
            self._arrivals.release()
            await self._opened.wait()

    async def arrival(self) -> None:
        """Wait until the next call is held here."""
        async with asyncio.timeout(BOUND_S):
            await self._arrivals.acquire()

    def open(self) -> None:
        self._opened.set()


class Wire:
    """The connection of one process. In order until a test breaks it."""

    def __init__(self) -> None:
        self.is_down = False  # no request arrives
        self.loses_replies = False  # requests are done, but nobody hears of it
        self.refuses_writes = False  # a full disk, a read-only replica
        self.is_silent = False  # requests end in a timeout
        self.is_deaf = False  # no doorbell is heard
        self.shards_down: set[int] = set()
        self.breaks_with: Exception | None = None  # what no store should raise
        self.before: list[Gate] = []
        self.after: list[Gate] = []

    async def carry_request(self, call: Call) -> None:
        await asyncio.sleep(0)  # no answer comes within the turn that asks
        for gate in self.before:
            await gate.go_through(call)
        if self.breaks_with:
            raise self.breaks_with
        if self.is_silent:
            await pass_ms(TIMEOUT_MS)
            raise StoreUnavailable("model store: no answer")
        if self.is_down or (call.name != "exchange" and call.shards & self.shards_down):
            raise StoreUnavailable("model store: away")
        if self.refuses_writes and call.name in (
            "create",
            "rotate",
            "revoke",
            "revoke_all",
            "write_attributes",
            "sweep",
        ):
            raise StoreUnavailable("model store: read-only")

    async def carry_reply(self, call: Call) -> None:
        for gate in self.after:
            await gate.go_through(call)
        if self.loses_replies:
            raise StoreUnavailable("model store: the reply was lost")

    def refuses(self, shard: int, request: Request) -> bool:
        """Whether one shard of an exchange fails on its own."""
        return shard in self.shards_down or (self.refuses_writes and bool(request.touches))

    def open_gates(self) -> None:
        for gate in self.before + self.after:
            gate.open()

    def hears_doorbell(self) -> bool:
        return not self.is_deaf


class ModelStore:
    """See `fastticket.stores.contract.Store`."""

    touches_per_exchange = 1000
    doubt_ms = 0

    def __init__(self, server: ModelServer, wire: Wire | None = None) -> None:
        self.server = server
        self.shards = server.shards
        self.wire = wire or Wire()
        self.calls: list[Call] = []
        self.is_closed = False
        self._ring: Ring | None = None

    def hold_requests(self, holds: Callable[[Call], bool] = is_any) -> Gate:
        """Nothing of the held calls happens until the gate is opened."""
        gate = Gate(holds)
        self.wire.before.append(gate)
        return gate

    def hold_replies(self, holds: Callable[[Call], bool] = is_any) -> Gate:
        """The held calls are done, but their answers wait for the gate."""
        gate = Gate(holds)
        self.wire.after.append(gate)
        return gate

    @property
    def loads(self) -> list[list[str]]:
        """Session ids, call by call."""
        return [call.wanted for call in self.calls if is_load(call)]

    @property
    def touches(self) -> list[Touch]:
        return [touch for call in self.calls for touch in call.touches]

    @property
    def servers(self) -> Mapping[str, str]:
        return {}

    async def open(self) -> None:
        self.is_closed = False
        await self._call(Call("open"), lambda: self.server.stores.append(self))

    @property
    def is_replaced(self) -> bool:
        return False

    async def settle(self) -> None:
        pass

    async def aclose(self) -> None:
        self.is_closed = True
        if self in self.server.stores:
            self.server.stores.remove(self)

    async def join(self, fleet: Fleet) -> Fleet | None:
        return await self._call(Call("join"), lambda: self.server.join(fleet))

    async def time_ms(self) -> int:
        return await self._call(Call("time_ms"), self.server.time_ms)

    async def uptime_ms(self) -> int:
        return await self._call(Call("uptime_ms"), self.server.uptime_ms)

    async def create(self, session: StoredSession, *, sessions_max: int = 0, evicts: bool = True) -> Sequence[str]:
        call = Call("create", (session,), self._shards_of(session.principal))
        return await self._call(call, lambda: self.server.create(session, sessions_max, evicts))

    async def rotate(self, session_id: str, successor: StoredSession) -> bool:
        call = Call("rotate", (session_id, successor), self._shards_of(successor.principal))
        return await self._call(call, lambda: self.server.rotate(session_id, successor))

    async def exchange(self, requests: Mapping[int, Request]) -> Mapping[int, Reply | StoreUnavailable]:
        call = Call("exchange", (dict(requests),), frozenset(requests))
        return await self._call(call, lambda: {shard: self._exchange(shard, requests[shard]) for shard in requests})

    async def revoke(self, session_id: str, principal: str, reason: str = "logout") -> bool:
        call = Call("revoke", (session_id, principal), self._shards_of(principal))
        return await self._call(call, lambda: self.server.revoke(session_id, principal, reason))

    async def revoke_all(self, principal: str, *, keep: str = "", reason: str = "logout_everywhere") -> Sequence[str]:
        call = Call("revoke_all", (principal,), self._shards_of(principal))
        return await self._call(call, lambda: self.server.revoke_all(principal, keep, reason))

    async def read_attributes(self, session_id: str, principal: str) -> StoredAttributes | None:
        call = Call("read_attributes", (session_id, principal), self._shards_of(principal))
        return await self._call(call, lambda: self.server.read_attributes(session_id, principal))

    async def write_attributes(
        self, session_id: str, principal: str, values: Mapping[str, bytes], removed: Sequence[str], *, bytes_max: int
    ) -> Written | None:
        call = Call("write_attributes", (session_id, principal, values, removed), self._shards_of(principal))
        write = self.server.write_attributes
        return await self._call(call, lambda: write(session_id, principal, values, removed, bytes_max))

    async def tails(
        self, since: Mapping[int, Position | None], entries_max: int
    ) -> Mapping[int, Tail | StoreUnavailable]:
        pages = self.server.logs
        call = Call("tails", (dict(since),), frozenset(since))
        return await self._call(call, lambda: {s: pages[s].page(place, entries_max) for s, place in since.items()})

    async def sessions(self, principal: str) -> Sequence[StoredSession]:
        call = Call("sessions", (principal,), self._shards_of(principal))
        return await self._call(call, lambda: self.server.sessions(principal))

    async def sweep(self, dead_before_ms: int, sessions_max: int) -> int:
        call = Call("sweep", (dead_before_ms, sessions_max))
        return await self._call(call, lambda: self.server.sweep(dead_before_ms, sessions_max))

    def on_doorbell(self, ring: Ring) -> None:
        self._ring = ring

    def _exchange(self, shard: int, request: Request) -> Reply | StoreUnavailable:
        if self.wire.refuses(shard, request):
            return StoreUnavailable(f"model store: shard {shard} is away")
        return self.server.exchange(shard, request)

    def _shards_of(self, principal: str) -> frozenset[int]:
        return frozenset([shard_of(principal, self.shards)])

    async def _call(self, call: Call, do: Callable[[], Any]) -> Any:
        if self.is_closed:
            raise StoreUnavailable("model store: closed")
        self.calls.append(call)
        await self.wire.carry_request(call)
        seen = [log.last for log in self.server.logs]
        result = do()
        for shard in self._changed(seen):
            self._tell_the_others(shard)
        await self.wire.carry_reply(call)
        return result

    def _changed(self, seen: list[int]) -> Iterator[int]:
        return (shard for shard, log in enumerate(self.server.logs) if log.last != seen[shard])

    def _tell_the_others(self, shard: int) -> None:
        for other in self.server.stores:
            if other is not self and other._ring and other.wire.hears_doorbell():
                asyncio.get_running_loop().call_soon(other._ring, shard, self.server.logs[shard].change)
