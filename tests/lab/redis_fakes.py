"""Behaviour that real servers cannot be made to show: a server that answers as a test says, and a
link that delays, cuts and swallows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import hiredis


class Scripted:
    """Speaks RESP. `answer(words)` gives the reply's bytes, or waits before it does; None: this
    command gets no reply.
    """

    def __init__(self, answer: Callable[[list[bytes]], Awaitable[bytes | None] | bytes | None] = lambda _: b"+OK\r\n"):
        self.answer = answer
        self.run_id = "a" * 40
        self.greets = True
        self.heard: list[list[bytes]] = []  # every command
        self.pieces: list[int] = []  # how many commands came at a time
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        try:
            yield self
        finally:
            server.close()
            self.hang_up()
            for task in list(self.tasks):
                task.cancel()
            if self.tasks:
                await asyncio.wait(self.tasks)

    def hang_up(self, which: slice = slice(None)) -> None:
        """Reset connections."""
        for writer in self.writers[which]:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        task = asyncio.current_task()
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        parser = hiredis.Reader()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(1 << 20):
                parser.feed(data)
                words = list(iter(parser.gets, False))
                self.pieces.append(len(words))
                for command in words:
                    await self._reply(command, writer)
        writer.transport.abort()

    async def _reply(self, words: list[bytes], writer: asyncio.StreamWriter) -> None:
        self.heard.append(words)
        if words[0] == b"INFO" and self.greets:
            reply = bulk(f"redis_version:7.2.0\r\nrun_id:{self.run_id}\r\n".encode())
        else:
            reply = self.answer(words)
            if reply is not None and not isinstance(reply, bytes):
                reply = await reply
        if reply is not None:
            writer.write(reply)

    def count(self, name: bytes) -> int:
        """How often a command came."""
        return sum(words[0] == name for words in self.heard)


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


def array(*parts: bytes) -> bytes:
    """An array of replies that are encoded already."""
    return b"*%d\r\n" % len(parts) + b"".join(parts)


class Proxy:
    """A link to a server on 127.0.0.1 that takes `delay_s` each way, in pieces of `piece` bytes; it
    can be cut, and go silent.
    """

    def __init__(self, port: int, delay_s: float = 0.0, piece: int = 1 << 20) -> None:
        self._to = port
        self.delay_s = delay_s
        self.piece = piece
        self.swallows = False
        self.accepted = 0
        self._transports: list[asyncio.Transport] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for task in list(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    @property
    def open_links(self) -> int:
        return len(self._tasks)

    def cut(self) -> None:
        """Reset all connections, on both sides."""
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    async def _serve(self, reader, writer) -> None:
        self._track(asyncio.current_task())
        self.accepted += 1
        self._transports.append(writer.transport)
        try:
            onwards, back = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._transports.append(back.transport)
        for source, target in ((reader, back), (onwards, writer)):
            self._track(asyncio.create_task(self._carry(source, target)))

    def _track(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while data := await source.read(self.piece):
                if self.swallows:
                    continue
                if self.delay_s:
                    loop.call_later(self.delay_s, self._write, target, data)
                else:
                    self._write(target, data)
                    await asyncio.sleep(0)
        target.transport.abort()

    @staticmethod
    def _write(target: asyncio.StreamWriter, data: bytes) -> None:
        if not target.transport.is_closing():
            target.write(data)
