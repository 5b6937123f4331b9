"""One connection to a Redis server: batches of commands are written as they come, replies come back
in order.

    connecting ──► Link ──► send(batches) ──► data_received ──► Batch.finish
                                              lost          ──► on_lost(link, error, batches)

Rules of this file
- `send` writes at once, and any number of batches may be under way: callers check `has_room` first.
- A turn of the event loop hands out REPLIES_PER_TURN replies at most: their callers wake up in the
  next.
- Without a reply for `timeout_s` while a batch is under way, the link is lost by a TimeoutError; in
  any other case by LinkLost.
- A link ends without QUIT: a server that hangs would not answer it.

See docs/decisions/0015-own-redis-link.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import hiredis

from fastticket.stores.redis.address import Command
from fastticket.stores.redis.errors import error_of, shortened
from fastticket.stores.redis.patience import Patience
from fastticket.stores.usage import Traffic

REPLIES_PER_TURN = 2  # a caller takes 20 to 50 µs to go on with its reply


class LinkLost(ConnectionError):  # noqa: N818 -- an event
    """The connection has ended; commands under way may have been done or not."""


class Batch:
    """Commands that are sent together, and their replies so far."""

    __slots__ = ("answer", "count", "packed", "replies")

    def __init__(self, packed: bytes, count: int, answer: asyncio.Future[list[Any]]) -> None:
        self.packed = packed
        self.count = count
        self.answer = answer
        self.replies: list[Any] = []

    def finish(self) -> None:
        """The last reply has come: `answer` gets all of them."""
        if not self.answer.done():
            self.answer.set_result(self.replies)

    def fail(self, error: BaseException) -> None:
        """`answer` gets an error."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Packed(NamedTuple):
    """Words of a command that are bytes of the protocol already; the last item of the command."""

    words: int
    data: bytes


def pack(commands: Iterable[Command]) -> bytes:
    """Commands as bytes of the protocol (RESP)."""
    return b"".join([part for command in commands for part in _parts(command)])


def _parts(command: Command) -> tuple[bytes, ...]:
    last = command[-1]
    if not isinstance(last, Packed):
        return (hiredis.pack_command(tuple(command)),)
    # An array's header says how many words follow: those of both parts.
    _, _, rest = hiredis.pack_command(tuple(command[:-1])).partition(b"\n")
    return b"*%d\r\n" % (len(command) - 1 + last.words), rest, last.data


class Link(asyncio.Protocol):
    """`on_lost` is called once, unless `close` is called first; `on_room` whenever there may be
    room again.
    """

    def __init__(self, timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(protocolError=hiredis.ProtocolError, replyError=error_of)
        self.under_way: deque[Batch] = deque()  #: sent, and not answered
        self._patience = Patience(timeout_s, self._silent_since, self._is_silent)
        self._since_s = 0.0  # when the last reply came, or the first command was sent after a pause
        self._transport: asyncio.Transport | None = None
        self._is_over = False
        self._error: Exception | None = None  # why it was lost
        self._hands_out_later = False
        self._is_paused = False  # nothing is read
        self.closed: asyncio.Future[None] = self._loop.create_future()  #: done when its socket is closed
        self.has_room = True  #: the transport's buffer is not full
        self.commands_under_way = self.bytes_under_way = self.batches_answered = 0
        self.info: dict[str, str] = {}  #: the server's INFO
        self.traffic = Traffic()  #: its server's, once it has greeted
        self.on_lost: Callable[[Link, Exception, list[Batch]], None] = fail_all
        self.on_room: Callable[[], None] = _do_nothing
        self.on_push: Callable[[Any], None] | None = None  #: gets messages that answer no command

    def send(self, batches: Sequence[Batch]) -> None:
        """Write batches, in one go. LinkLost, or the error that the link was lost by."""
        if self._is_over or self._transport is None:
            raise self._error or LinkLost("the connection has ended")
        if not self.under_way:
            self._since_s = self._loop.time()
        for batch in batches:
            self.under_way.append(batch)
            self.commands_under_way += batch.count
            self.bytes_under_way += len(batch.packed)
        self._patience.start()
        packed = batches[0].packed if len(batches) == 1 else b"".join([each.packed for each in batches])
        self.traffic.sent(len(packed))
        self._transport.write(packed)

    def ask(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Send one batch. Its replies; LinkLost, TimeoutError."""
        batch = Batch(pack(commands), len(commands), self._loop.create_future())
        self.send([batch])
        return batch.answer

    def write(self, commands: Sequence[Command]) -> None:
        """Write commands whose replies go to `on_push`."""
        if not self._is_over and self._transport:
            self._transport.write(pack(commands))

    def take(self) -> list[Batch]:
        """Take over the batches under way; the caller ends them."""
        taken = list(self.under_way)
        self.under_way.clear()
        self.commands_under_way = self.bytes_under_way = 0
        return taken

    def close(self) -> list[Batch]:
        """End the connection; returns the batches that were under way. Idempotent."""
        self._is_over = True
        self._patience.stop()
        if self._transport:
            self._transport.abort()
        elif not self.closed.done():
            self.closed.set_result(None)
        return self.take()

    def lose(self, error: Exception) -> None:
        """End the connection by an error, and call `on_lost`."""
        if not self._is_over:
            self._error = error
            self.on_lost(self, error, self.close())

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        return self._is_over

    # --- called by the event loop (asyncio.Protocol)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, TLS included."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Replies that had come before are handed out first."""
        self._hand_out(all_of_it=True)
        if not self.closed.done():
            self.closed.set_result(None)
        self.lose(LinkLost(f"the connection was lost{f': {error}' if error else ''}"))
        self._transport = None

    def pause_writing(self) -> None:
        """The write buffer is full: the server does not read."""
        self.has_room = False

    def resume_writing(self) -> None:
        """The server reads again."""
        self.has_room = True
        self.on_room()

    def data_received(self, data: bytes) -> None:
        """Replies or parts of them."""
        self.traffic.bytes_received += len(data)
        self._reader.feed(data)
        if not self._hands_out_later:
            self._hand_out()

    def _hand_out(self, all_of_it: bool = False) -> None:
        under_way, left = self.under_way, REPLIES_PER_TURN
        self._hands_out_later = False
        while not self._is_over:
            if not left and not all_of_it:
                self._hand_out_later()
                break
            try:
                reply = self._reader.gets()
            except hiredis.ProtocolError as error:
                self.lose(LinkLost(f"not the answer of a Redis server: {error}"))
                return
            if reply is False:
                self._read_on()
                break
            left -= 1
            if not under_way:
                self._push(reply)
                continue
            batch = under_way[0]
            batch.replies.append(reply)
            if len(batch.replies) == batch.count:
                under_way.popleft()
                self.commands_under_way -= batch.count
                self.bytes_under_way -= len(batch.packed)
                self.batches_answered += 1
                batch.finish()
        if left < REPLIES_PER_TURN and not self._is_over:
            self._since_s = self._loop.time()
            self.on_room()

    def _hand_out_later(self) -> None:
        """Go on in the next turn of the loop; until all is handed out nothing more is read."""
        self._hands_out_later = True
        if not self._is_paused and self._transport and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._hands_out_later:
            self._hand_out()

    def _read_on(self) -> None:
        if self._is_paused:
            self._is_paused = False
            if self._transport and not self._transport.is_closing():
                self._transport.resume_reading()

    def _push(self, reply: Any) -> None:
        if self.on_push is None:
            self.lose(LinkLost(f"the server said what it was not asked for: {shortened(reply)}"))
        else:
            self.on_push(reply)

    # --- patience

    def _silent_since(self) -> float | None:
        return self._since_s if self.under_way else None

    def _is_silent(self) -> None:
        self.lose(TimeoutError(f"no answer in {self._timeout_s:g} s"))


def fail_all(link: Link, error: Exception, batches: list[Batch]) -> None:
    """The `on_lost` of a link without an owner: its batches fail."""
    for batch in batches:
        batch.fail(error)


def _do_nothing() -> None:
    pass
