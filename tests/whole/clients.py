"""HTTP clients that say when they sent and when they had the answer."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple, cast

Address = tuple[str, int]
ANSWER_BOUND_S = 30.0  # a client's own patience


class Answer(NamedTuple):
    """A response, or the lack of one (status 0, `body` says why)."""

    status: int
    sent_s: float
    received_s: float
    cookie: str = ""
    has_retry_after: bool = False
    body: str = ""


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.is_used = False
        self.is_over = False
        self._received = b""
        self._answer: asyncio.Future[tuple[bytes, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._received += data
        at = self._received.find(b"\r\n\r\n")
        if at < 0 or self._answer is None or self._answer.done():
            return
        head = self._received[: at + 2]
        size = int(_field(head, b"content-length") or b"0")
        if len(self._received) >= at + 4 + size:
            body = self._received[at + 4 : at + 4 + size]
            self._received = b""
            self._answer.set_result((head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        if self._answer and not self._answer.done():
            self._answer.set_exception(exc or EOFError("ended"))

    def eof_received(self) -> bool:
        self.is_over = True
        return False

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        assert self.transport
        self._answer = asyncio.get_running_loop().create_future()
        self.is_used = True
        if self.is_over:
            raise EOFError("ended")
        self.transport.write(request)
        return await self._answer


class Caller:
    """Clients of one gateway, on kept connections; as many as ask at the same time."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[_Connection] = []

    async def ask(self, path: str, *, cookie: str = "", user: str = "", is_safe: bool = False) -> Answer:
        """`is_safe`: send it again if a kept connection ended under it, as every client does."""
        request = (
            f"GET {path} HTTP/1.1\r\nHost: a\r\n"
            + (f"Cookie: {cookie}\r\n" if cookie else "")
            + (f"X-User: {user}\r\n" if user else "")
            + "\r\n"
        ).encode()
        while True:
            connection, answer = await self._ask_once(request)
            if not (is_safe and answer.status == 0 and answer.body == "EOFError" and connection):
                return answer
            self.close()

    async def _ask_once(self, request: bytes) -> tuple[bool, Answer]:
        """Whether it was a kept connection, and the answer."""
        sent_s = time.monotonic()
        connection: _Connection | None = None
        was_kept = False
        try:
            async with asyncio.timeout(ANSWER_BOUND_S):
                connection, was_kept = await self._connection()
                sent_s = time.monotonic()
                head, body = await connection.ask(request)
        except (OSError, EOFError, TimeoutError) as failure:
            self._drop(connection)
            return was_kept, Answer(0, sent_s, time.monotonic(), body=type(failure).__name__)
        except asyncio.CancelledError:
            self._drop(connection)
            raise
        received_s = time.monotonic()
        if b"\r\nconnection: close" in head.lower():
            self._drop(connection)
        else:
            self._idle.append(connection)
        status = int(head[9:12])
        cookie = _field(head, b"set-cookie").split(b";")[0].decode()
        return was_kept, Answer(
            status, sent_s, received_s, cookie, bool(_field(head, b"retry-after")), body[:80].decode()
        )

    async def _connection(self) -> tuple[_Connection, bool]:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_over:
                return connection, True
            self._drop(connection)
        _, made = await asyncio.get_running_loop().create_connection(_Connection, *self._address)
        return made, False

    def _drop(self, connection: _Connection | None) -> None:
        if connection and connection.transport:
            connection.transport.abort()

    def close(self) -> None:
        while self._idle:
            self._drop(self._idle.pop())


def _field(head: bytes, name: bytes) -> bytes:
    lower = head.lower()
    at = lower.find(b"\r\n" + name + b": ")
    if at < 0:
        return b""
    at += len(name) + 4
    return head[at : head.index(b"\r\n", at)]
