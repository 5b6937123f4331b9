"""A server as its callers see it: commands in, replies out; and how it is noticed that another
server answers than before. `Server.check_configuration` refuses a version or a `maxmemory-policy`
that would lose sessions.

    call ──► breaker ──► SendQueue             ──► Link
                     └─► SendQueue with WAIT   ──► Link     confirmed writes: they delay no others
    subscribe ───────────────────────────────────► Link     the doorbell's

Rules of this file
- A server that is silent, cannot be reached, or answers that it is no primary, has failed: all
  calls that wait or are under way fail with it.
- A lost connection is no failure: another one is made, and calls that were under way are sent again
  (`SendQueue`).
- Every new link learns the server's run id. If that or the place is another than before, the links
  to the old server are dropped at once, and `on_change` is called before any reply of the new one
  is handed out: its data may be older.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError, TryAgainError

from fastticket.errors import ConfigError, StoreUnavailable
from fastticket.stores.redis.address import Command, Place
from fastticket.stores.redis.breaker import Breaker
from fastticket.stores.redis.connecting import connect, info_of
from fastticket.stores.redis.errors import AWAY, shortened
from fastticket.stores.redis.link import Link, LinkLost, pack
from fastticket.stores.redis.sendqueue import ENDS_PER_TURN, Call, SendQueue
from fastticket.stores.usage import Traffic
from fastticket.tasks import end

log = logging.getLogger("fastticket.redis")

VERSION_MIN = (7, 0)
CLOSE_S = 1.0  # for calls under way to end, when the server is closed
PUSHED_MAX = 1000  # messages that wait for the listener; the oldest are dropped


class Server:
    """`name` is for logs and metrics; `place` may change. `on_change`: it is another server now;
    `on_trouble`: a link was lost, or the server has failed. `traffic`: where its links count.
    """

    def __init__(
        self,
        name: str,
        place: Place | None,
        timeout_s: float,
        on_change: Callable[[Server], None],
        on_trouble: Callable[[], None] | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self.name = name
        self.place = place
        self.version = ""
        self._timeout_s = timeout_s
        self._on_change = on_change
        self._on_trouble = on_trouble
        self._traffic = traffic or Traffic()
        self._loop = asyncio.get_running_loop()
        self._run_id = ""
        self._is_closed = False
        self._queue = SendQueue(self)
        self._confirmed_queue = SendQueue(self, pack([("WAIT", 1, int(timeout_s * 500))]))
        self._listeners: set[Listener] = set()
        self._links: set[Link] = set()  # until their sockets are closed
        self._connecting: set[asyncio.Task[Any]] = set()
        self.breaker = Breaker(self._loop.time)

    async def call(self, commands: Sequence[Command], *, confirm: bool = False) -> list[Any]:
        """Send commands in one go. Their replies in order, a ResponseError for a command that
        failed.

        `confirm`: one reply more, the number of replicas that have confirmed the writes.
        StoreUnavailable: all failed; StoreBusy: the call has waited for too long, or too much
        waits.
        """
        if self._is_closed:
            raise StoreUnavailable("the redis store is closed")
        state = self.breaker.state
        if state == "open":
            raise StoreUnavailable(f"redis {self.name}: not asked, it failed a moment ago")
        call = Call(self, commands, self._loop.create_future())
        call.is_probe = state == "half-open"
        self.breaker.admit()
        try:
            (self._confirmed_queue if confirm else self._queue).add(call)
        except StoreUnavailable:
            self.skipped(call)
            raise
        return await call.answer

    async def subscribe(self, channel: str) -> Listener:
        """Listen to a channel, on a link of its own; the caller closes the listener. RedisError,
        OSError.
        """
        link = await self._connect()
        listener = Listener(link, self._listeners)
        try:
            (reply,) = await link.ask([("SUBSCRIBE", channel)])
            if isinstance(reply, RedisError):
                raise reply
        except BaseException:
            listener.close()
            raise
        return listener

    def move(self, place: Place) -> None:
        """Another server, at another place, is in this one's role now. Calls that were under way
        are sent again, to it.
        """
        old, self.place = self.place, place
        if old is None:
            return
        log.warning("redis %s: is at %s now, no more at %s", self.name, place.name, old.name)
        self._run_id = ""
        self.breaker = Breaker(self._loop.time)
        self._change()

    def retire(self) -> None:
        """The server has no slots any more: its calls are answered TRYAGAIN, so that their senders
        look up which server has them.
        """
        for listener in list(self._listeners):
            listener.lose(LinkLost("another server answers now"))
        for call in self._drop_all():
            self.skipped(call)
            if not call.answer.done():
                call.answer.set_result([TryAgainError("another server answers now") for _ in range(call.count)])

    @property
    def is_idle(self) -> bool:
        """Whether no call waits for it, and no listener."""
        return not (self._queue.calls or self._confirmed_queue.calls or self._listeners)

    async def aclose(self) -> None:
        """End every connection, also if it is cancelled. Calls under way get CLOSE_S to end.
        Idempotent.
        """
        if self._is_closed:
            return
        self._is_closed = True
        pending = {call.answer for queue in (self._queue, self._confirmed_queue) for call in queue.calls}
        try:
            if pending:
                await asyncio.wait(pending, timeout=min(CLOSE_S, self._timeout_s))
        finally:
            self._end_calls(self._drop_all(), "is closed", None)
            for listener in list(self._listeners):
                listener.lose(LinkLost("the store is closed"))
        await end(*self._connecting)
        if sockets := {link.closed for link in self._links if not link.closed.done()}:
            await asyncio.wait(sockets, timeout=CLOSE_S)

    async def check_configuration(self) -> None:
        """At start: check the version, and that no keys are evicted. ConfigError,
        StoreUnavailable.
        """
        (memory,) = await self.call([("INFO", "memory")])
        if isinstance(memory, ResponseError):
            raise ConfigError(f"redis {self.name}: {memory} (how-to/redis in the documentation lists the ACL rules)")
        if tuple(int(part) for part in self.version.split(".")[:2]) < VERSION_MIN:
            raise ConfigError(
                f"redis {self.name}: is version {self.version}; fastticket needs Redis 7.0 or newer, or Valkey"
            )
        policy = info_of(memory).get("maxmemory_policy", "")
        if policy.startswith("allkeys"):
            raise ConfigError(
                f"redis {self.name}: maxmemory-policy is {policy}, which throws sessions away; set it to noeviction"
            )
        if policy.startswith("volatile"):
            log.warning(
                "redis %s: maxmemory-policy is %s, which throws attributes of sessions away when memory is short; "
                "noeviction does not",
                self.name,
                policy,
            )

    # --- called by the queues (sendqueue.Owner)

    def answered(self, call: Call) -> None:
        """A call has all its replies. If one says that the server cannot serve, the server has
        failed.
        """
        for reply in call.replies:
            if isinstance(reply, RedisError) and (isinstance(reply, AWAY) or not isinstance(reply, ResponseError)):
                self._fail([call], reply)
                return
        if self.breaker.succeeded():
            log.warning("redis %s: answers again", self.name)
        if not call.answer.done():
            call.answer.set_result(call.replies)

    def skipped(self, call: Call) -> None:
        """A call ends unanswered, for a reason that says nothing of the server."""
        if call.is_probe:
            self.breaker.gave_up()

    def failed(self, error: BaseException) -> None:
        """The server hangs or cannot be reached."""
        self._fail([], error)

    def lost(self, error: BaseException) -> None:
        """A link was lost."""
        if self._on_trouble:
            self._on_trouble()

    async def new_link(self, queue: SendQueue) -> Link:
        """A link to the present place. Called in a task of the queue's."""
        task = asyncio.current_task()
        assert task  # noqa: S101 -- for mypy
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return await self._connect()

    # --- links

    async def _connect(self) -> Link:
        """A link; returns once it is known whether it leads to the same server as before. OSError,
        RedisError.
        """
        place = self.place
        if place is None or self._is_closed:
            raise LinkLost("there is no server")
        link = await connect(place, self._timeout_s)
        if self.place is not place or self._is_closed:
            link.close()
            raise LinkLost("another server answers now")
        link.traffic = self._traffic
        self._links.add(link)
        link.closed.add_done_callback(lambda _: self._links.discard(link))
        self.version = link.info.get("redis_version", "0")
        old, self._run_id = self._run_id, link.info.get("run_id", "")
        if old and old != self._run_id:
            log.warning("redis %s: another server answers there now", self.name)
            self._change()
        return link

    def _change(self) -> None:
        """Another server than before: drop all links, except the one that is being made in this
        task: that one has told.
        """
        for queue in (self._queue, self._confirmed_queue):
            if queue.connecting is None or queue.connecting is not asyncio.current_task():
                queue.restart()
        for listener in list(self._listeners):
            listener.lose(LinkLost("another server answers now"))
        self._on_change(self)

    # --- failing

    def _drop_all(self) -> list[Call]:
        return [*self._queue.drop(), *self._confirmed_queue.drop()]

    def _fail(self, calls: list[Call], error: BaseException) -> None:
        reason = shortened(error) or type(error).__name__
        # The caller of `open` logs the failure of a server that has never answered.
        if self.breaker.failed() and self.version:
            log.error("redis %s: %s; asked again after a back-off", self.name, reason)
        if isinstance(error, AuthenticationError | NoPermissionError):
            reason += (
                " (look at the user, the password and the ACL rules; how-to/redis in the documentation lists them)"
            )
        self._end_calls(calls + self._drop_all(), reason, error)
        if self._on_trouble:
            self._on_trouble()

    def _end_calls(self, calls: list[Call], reason: str, cause: BaseException | None) -> None:
        """ENDS_PER_TURN in this turn of the loop, more in the next ones: not all callers wake up at
        once.
        """
        for call in calls[:ENDS_PER_TURN]:
            error = StoreUnavailable(f"redis {self.name}: {reason}")
            error.__cause__ = cause
            call.fail(error)
        if len(calls) > ENDS_PER_TURN:
            self._loop.call_soon(self._end_calls, calls[ENDS_PER_TURN:], reason, cause)


class Listener:
    """The messages of a channel."""

    def __init__(self, link: Link, among: set[Listener]) -> None:
        self._link = link
        self._among = among
        self._messages: deque[Any] = deque(maxlen=PUSHED_MAX)
        self._news: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        among.add(self)
        link.on_push = self._heard
        link.on_lost = self._lost

    async def next(self, timeout_s: float) -> Any:
        """The next message or pong; None: there was none in time. LinkLost."""
        if not self._messages and not self._error:
            self._news = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._news], timeout=timeout_s)
        if self._messages:
            return self._messages.popleft()
        if self._error:
            raise self._error
        return None

    async def published(self, ping_s: float) -> AsyncIterator[bytes]:
        """Messages, until two pings in a row were not answered. LinkLost."""
        unanswered = 0
        while unanswered < 2:
            message = await self.next(ping_s)
            if message is None:
                unanswered += 1
                self.ping()
                continue
            unanswered = 0
            if message[0] == b"message":
                yield message[2]

    def ping(self) -> None:
        """Send PING; its reply comes as a message."""
        self._link.write([("PING",)])

    def close(self) -> None:
        """End the connection. Idempotent."""
        self._among.discard(self)
        self._link.close()

    def lose(self, error: Exception) -> None:
        """End the connection by an error, which `next` raises."""
        self._link.lose(error)

    def _heard(self, message: Any) -> None:
        self._messages.append(message)
        self._wake()

    def _lost(self, link: Link, error: Exception, batches: list[Any]) -> None:
        for batch in batches:
            batch.fail(error)
        self._among.discard(self)
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._news and not self._news.done():
            self._news.set_result(None)
