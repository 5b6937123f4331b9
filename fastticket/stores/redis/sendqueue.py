"""Sending calls to one server: calls wait in queues, and leave in order on one link.

    call ──► Turns: a queue for each kind of call ──► one write a turn of the loop ──► Link

Rules of this file
- Waiting is not failing: a call's timeout begins when it is written. It waits in a bounded queue
  for a bounded time, after which it is StoreBusy.
- Kinds of calls take turns: a revocation does not wait behind a storm of logins, only behind the
  calls that are under way.
- A turn of the loop writes TURN_COMMANDS or TURN_BYTES at most; WINDOW_COMMANDS and WINDOW_BYTES
  may be under way at once. A call is written as a whole.
- A lost link is replaced, and calls that were under way on it are sent again, RESENDS_MAX times at
  most: they may be done twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from fastticket.errors import StoreBusy, StoreUnavailable
from fastticket.stores.redis.address import Command
from fastticket.stores.redis.link import Batch, Link, pack
from fastticket.stores.redis.patience import Patience

WAITING_COMMANDS_MAX = 50_000
WAITING_BYTES_MAX = 64 << 20
WAITING_S = 5.0
WINDOW_COMMANDS = 2048  # about 0.1 s of a server's work: so long an urgent call waits
WINDOW_BYTES = 4 << 20
TURN_COMMANDS = 256
TURN_BYTES = 256 << 10
GROUPS_UNDER_WAY = 2  # batches that wait for a replica: one is confirmed while the next is written
RESENDS_MAX = 2
ENDS_PER_TURN = 256  # of calls that fail together, so many callers wake up in a turn of the loop
LINKS_UNANSWERED_MAX = 2  # links lost in a row before anything was answered; after one more the server has failed


class Call(Batch):
    """A batch with a caller. `server` is told of its end."""

    __slots__ = ("is_probe", "kind", "losses", "server", "since_s")

    def __init__(self, server: Owner, commands: Sequence[Command], answer: asyncio.Future[list[Any]]) -> None:
        super().__init__(pack(commands), len(commands), answer)
        first = commands[0]
        self.kind = first[1] if first[0] in ("EVALSHA", "EVAL") else first[0]
        self.server = server
        self.since_s = 0.0  # when it began to wait
        self.losses = 0  # links that were lost while it was under way
        self.is_probe = False

    def finish(self) -> None:
        """The server checks the replies before the caller gets them."""
        self.server.answered(self)


class Group(Batch):
    """Calls with one WAIT behind them. Its reply, the number of replicas that have them, becomes
    the last reply of each call.
    """

    __slots__ = ("calls",)

    def __init__(self, calls: list[Call], wait: bytes) -> None:
        super().__init__(
            b"".join([*(call.packed for call in calls), wait]), 1 + sum(call.count for call in calls), calls[0].answer
        )
        self.calls = calls

    def finish(self) -> None:
        """Distribute the replies to the calls."""
        at = 0
        for call in self.calls:
            call.replies = [*self.replies[at : at + call.count], self.replies[-1]]
            at += call.count
        for call in self.calls:
            call.finish()


class Owner(Protocol):
    """The server that a `SendQueue` belongs to."""

    def answered(self, call: Call) -> None:
        """A call has all its replies."""

    def skipped(self, call: Call) -> None:
        """A call ends unanswered, for a reason that says nothing of the server."""

    def failed(self, error: BaseException) -> None:
        """The server hangs or cannot be reached."""

    def lost(self, error: BaseException) -> None:
        """A link was lost; the queue makes another one."""

    async def new_link(self, queue: SendQueue) -> Link:
        """Connect. OSError, RedisError."""


class SendQueue:
    """The calls that wait for one server, and the link that they leave on.

    `wait`: the packed WAIT that confirms writes; empty: they are not confirmed.
    """

    def __init__(self, owner: Owner, wait: bytes = b"") -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._wait = wait
        self._waiting = Turns()
        self._patience = Patience(WAITING_S, self._waits_since, self._drop_overdue)
        self._is_departing = False
        self._links_unanswered = 0
        self.link: Link | None = None
        self.connecting: asyncio.Task[None] | None = None

    def add(self, call: Call) -> None:
        """Have a call wait for its turn. StoreBusy: too much waits."""
        waiting = self._waiting
        if waiting and (
            waiting.commands + call.count > WAITING_COMMANDS_MAX or waiting.bytes + len(call.packed) > WAITING_BYTES_MAX
        ):
            raise StoreBusy(f"the store is busy: {waiting.commands} commands wait, try again")
        call.since_s = self._loop.time()
        waiting.add(call)
        self._patience.start()
        self.depart_soon()

    def depart_soon(self) -> None:
        """Write at the end of this turn of the loop, when all of its calls were added."""
        if not self._is_departing and self._waiting:
            self._is_departing = True
            self._loop.call_soon(self._depart)

    @property
    def calls(self) -> list[Call]:
        """The calls that wait or are under way."""
        return [*(_calls(self.link.under_way) if self.link else ()), *self._waiting]

    def drop(self) -> list[Call]:
        """End the link; returns all calls that waited or were under way, for the caller to end."""
        calls = self._end_link()
        calls += self._waiting.drain()
        self._patience.stop()
        return calls

    def restart(self) -> None:
        """End the link; calls that were under way are sent again on another one."""
        self._put_back(self._end_link())

    def _end_link(self) -> list[Call]:
        link, self.link = self.link, None
        if self.connecting:
            self.connecting.cancel()
            self.connecting = None
        return _calls(link.close()) if link else []

    # --- leaving

    def _depart(self) -> None:
        self._is_departing = False
        link = self.link
        if not self._waiting:
            return
        if link is None:
            self._connect()
            return
        calls: list[Call] = []
        commands = size = 0
        while self._waiting and commands < TURN_COMMANDS and size < TURN_BYTES and self._has_room(link, commands, size):
            call = self._waiting.pop()
            if call.answer.done():
                self._owner.skipped(call)
                continue
            calls.append(call)
            commands += call.count
            size += len(call.packed)
        if calls:
            link.send([Group(calls, self._wait)] if self._wait else calls)
        if self._has_room(link, 0, 0):
            self.depart_soon()

    def _has_room(self, link: Link, commands: int, size: int) -> bool:
        if self._wait and len(link.under_way) >= GROUPS_UNDER_WAY:
            return False
        return (
            link.has_room
            and link.commands_under_way + commands < WINDOW_COMMANDS
            and link.bytes_under_way + size < WINDOW_BYTES
        )

    def _connect(self) -> None:
        if self.connecting is None:
            self.connecting = self._loop.create_task(self._new_link(), name="fastticket-redis-connect")

    async def _new_link(self) -> None:
        try:
            link = await self._owner.new_link(self)
        except Exception as error:
            if self.connecting is asyncio.current_task():
                self.connecting = None
                self._owner.failed(error)
            return
        if self.connecting is not asyncio.current_task():
            link.close()
            return
        self.connecting = None
        self.link = link
        link.on_lost = self._lost
        link.on_room = self.depart_soon
        self.depart_soon()

    def _lost(self, link: Link, error: Exception, batches: list[Batch]) -> None:
        self.link = None
        self._links_unanswered = 0 if link.batches_answered else self._links_unanswered + bool(batches)
        calls = _calls(batches)
        if isinstance(error, TimeoutError) or self._links_unanswered > LINKS_UNANSWERED_MAX:
            self._links_unanswered = 0
            self._put_back(calls)
            self._owner.failed(error)
            return
        for call in calls:
            call.losses += 1
        self._put_back([call for call in calls if call.losses <= RESENDS_MAX])
        self._give_up(
            [call for call in calls if call.losses > RESENDS_MAX],
            lambda: StoreUnavailable(f"redis: {error}, again and again"),
        )
        self._owner.lost(error)

    def _put_back(self, calls: list[Call]) -> None:
        now_s = self._loop.time()
        for call in calls:
            call.replies = []
            call.since_s = now_s
        self._waiting.put_back(calls)
        self._patience.start()
        self.depart_soon()

    # --- waiting

    def _waits_since(self) -> float | None:
        return min((call.since_s for call in self._waiting.first_ones()), default=None)

    def _drop_overdue(self) -> None:
        """End calls that have waited too long, ENDS_PER_TURN at once; the next turn goes on."""
        waiting = self._waiting.commands
        overdue = self._waiting.take_first_ones(self._loop.time() - WAITING_S, ENDS_PER_TURN)
        says = f"the store is busy: {waiting} commands wait, this one for {WAITING_S:g} s; try again"
        self._give_up(overdue, lambda: StoreBusy(says))
        self._patience.start()

    def _give_up(self, calls: list[Call], make_error: Callable[[], StoreUnavailable]) -> None:
        for call in calls:
            self._owner.skipped(call)
            call.fail(make_error())


class Turns:
    """Queues, one for each kind of call, that take turns; calls that are sent again go first."""

    def __init__(self) -> None:
        self._again: deque[Call] = deque()
        self._kinds: dict[Any, deque[Call]] = {}
        self._order: deque[Any] = deque()
        self.commands = self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._again or self._order)

    def __iter__(self) -> Iterator[Call]:
        yield from self._again
        for queue in self._kinds.values():
            yield from queue

    def add(self, call: Call) -> None:
        """Append a call to the queue of its kind."""
        queue = self._kinds.get(call.kind)
        if queue is None:
            queue = self._kinds[call.kind] = deque()
            self._order.append(call.kind)
        queue.append(call)
        self._count(call, 1)

    def put_back(self, calls: list[Call]) -> None:
        """Put calls in front of all others, in their order."""
        self._again.extendleft(reversed(calls))
        for call in calls:
            self._count(call, 1)

    def pop(self) -> Call:
        """The call whose turn it is. There must be one."""
        if self._again:
            call = self._again.popleft()
        else:
            kind = self._order.popleft()
            queue = self._kinds[kind]
            call = queue.popleft()
            if queue:
                self._order.append(kind)
            else:
                del self._kinds[kind]
        self._count(call, -1)
        return call

    def first_ones(self) -> list[Call]:
        """The oldest call of each queue."""
        return [*(list(self._again)[:1]), *(queue[0] for queue in self._kinds.values())]

    def take_first_ones(self, before_s: float, most: int) -> list[Call]:
        """Remove calls that have waited since `before_s` or longer, at most `most`."""
        taken: list[Call] = []
        for queue in (self._again, *self._kinds.values()):
            while queue and queue[0].since_s <= before_s and len(taken) < most:
                taken.append(queue.popleft())
        for kind in [kind for kind, queue in self._kinds.items() if not queue]:
            del self._kinds[kind]
            self._order.remove(kind)
        for call in taken:
            self._count(call, -1)
        return taken

    def drain(self) -> list[Call]:
        """Remove all calls."""
        calls = list(self)
        self._again.clear()
        self._kinds.clear()
        self._order.clear()
        self.commands = self.bytes = 0
        return calls

    def _count(self, call: Call, sign: int) -> None:
        self.commands += sign * call.count
        self.bytes += sign * len(call.packed)


def _calls(batches: Sequence[Batch]) -> list[Call]:
    """The calls in these batches."""
    calls: list[Call] = []
    for batch in batches:
        if isinstance(batch, Group):
            calls += batch.calls
        elif isinstance(batch, Call):
            calls.append(batch)
    return calls
