"""The listener for operators, a small HTTP server: `/healthz`, `/readyz`, `/metrics`, and the admin
API under `/v1/`. POST `/drain` makes the gateway not ready, DELETE `/drain` makes it ready again.

It runs in the supervisor, which answers for all workers, even while they are busy. One answer a
connection. What is bounded: the bytes of a head and a body, the time to send them and to take the
answer, connections that say nothing, operations under way, streams and what waits in each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastticket.dataplane.http1 import request_head
from fastticket.gateway.admin.access import Access, Client, client_of, gathered
from fastticket.gateway.admin.audit import AuditLog
from fastticket.gateway.admin.dispatch import PREFIX, Answer, Dispatcher, Found, Request, refusal_answer
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.refusals import Refused
from fastticket.gateway.metrics import metrics_page
from fastticket.gateway.snapshot import Snapshot
from fastticket.tasks import end

log = logging.getLogger("fastticket.admin")

HEAD_BYTES_MAX = 8192
TIMEOUT_S = 5.0  # of a connection, from start to end; of an operation, to send it, and to take its answer
#: What /drain is called in the audit log.
DRAINS = {"POST": "drain.begin", "DELETE": "drain.end"}
CONNECTIONS_MAX = 64  # beyond that the oldest is closed: a probe takes milliseconds, so that one is idle
OPERATIONS_MAX = 32  # under way at a time
STREAMS_MAX = 16
STALL_S = 5.0  # for the reader of a stream to take what is sent; later, it is dropped
UNREAD_BYTES_MAX = 1024 * 1024  # of a body that is refused: else its client might not see the answer
UNREAD_TIMEOUT_S = 1.0
#: Of every answer: no page of another site can use it, and nothing in it is a program.
FIELDS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
NO_PROGRAM = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")


class AdminListener:
    """Answers each request from the state of that moment."""

    def __init__(self, gateway: Gateway, files: Mapping[str, Answer]) -> None:
        """`files`: pages that anybody may have who may ask at all, by their paths."""
        self.audit = AuditLog()
        self._gateway = gateway
        self._files = files
        self._dispatcher = Dispatcher(gateway, self.audit)
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None  # what it listens on
        self._access: Access | None = None
        self._connections: dict[asyncio.StreamWriter, None] = {}  # that have not asked yet, the oldest one first
        self._operations = 0
        self._streams: set[asyncio.Task[None]] = set()

    async def move_to(self, listener: socket.socket | None, access: Access | None) -> None:
        """Serve on this socket instead of the one before, by these rules; None: nowhere. If it is
        another one, streams end: their readers ask again, and go on where they were.
        """
        if listener and listener is self._listener:
            self._access = access
            return
        await self.close()
        self._access, self._listener = access, listener
        if listener:
            self._server = await asyncio.start_server(self._serve, sock=listener, limit=HEAD_BYTES_MAX)

    async def close(self) -> None:
        """Accept the connections that wait, and no more, and end streams."""
        if self._server:
            await self._accept_waiting()
            self._server.close()
            self._server = None
        await end(*self._streams)

    async def _accept_waiting(self) -> None:
        """Those that are in the queue of the socket: they would be reset with it."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while self._listener:
                accepted, _ = self._listener.accept()
                accepted.setblocking(False)
                await loop.connect_accepted_socket(self._protocol, accepted)

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        """What `asyncio.start_server` makes of a connection."""
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=HEAD_BYTES_MAX), self._serve)

    # --- a connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        access = self._access
        if len(self._connections) >= CONNECTIONS_MAX:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.close()
        self._connections[writer] = None
        try:
            with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(TIMEOUT_S) as bound:
                    if access and access.tls:
                        await writer.start_tls(access.tls)
                    if access:
                        await self._exchange(reader, writer, access, bound)
                    self._connections.pop(writer, None)
                    if bound.when() is None:
                        bound.reschedule(_in_s(TIMEOUT_S))
                    writer.close()
                    await writer.wait_closed()
        finally:
            self._connections.pop(writer, None)
            writer.transport.abort()  # else a client that does not take the rest of its answer would keep it open

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, access: Access, bound: asyncio.Timeout
    ) -> None:
        """Read one request, and answer it. To HEAD the answer has no content, not even with an
        error.
        """
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            start = await reader.read(len(b"HEAD "))
            await _send(writer, _error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), with_body=start != b"HEAD ")
            return
        head = request_head(raw)
        if isinstance(head, int):
            status = HTTPStatus(-head if head else HTTPStatus.BAD_REQUEST)
            await _send(writer, _error(status), with_body=not raw.startswith(b"HEAD "))
            return
        request = _request_of(head)
        client = client_of(writer.get_extra_info("socket"), writer.get_extra_info("peername"))
        if access.admits(client) and request.path.startswith(PREFIX):
            await self._answer_operation(reader, writer, request, client, access, bound, head["expect_continue"])
            return
        await _send(writer, self._plain_answer(request, client, access), with_body=request.method != "HEAD")

    # --- probes, /metrics and files

    def _plain_answer(self, request: Request, client: Client, access: Access) -> Answer:
        if request.path == "/drain" and request.method in DRAINS:
            return self._drain_answer(request, client, access)
        if not access.admits(client):
            self._dispatcher.note_refused(request, client.stranger, "forbidden")
            return _error(HTTPStatus.FORBIDDEN)
        if request.method not in ("GET", "HEAD"):
            return _error(HTTPStatus.METHOD_NOT_ALLOWED)._replace(fields=[("Allow", "GET, HEAD")])
        if request.path in self._files:
            try:
                access.check_page(client, {}, request.host)
            except Refused as error:
                return refusal_answer(error)
            return self._files[request.path]
        return _page(request.path, self._gateway.snapshot(), ",".join(request.fields.get("accept", ())))

    def _drain_answer(self, request: Request, client: Client, access: Access) -> Answer:
        """Of POST and DELETE /drain."""
        operation, result = DRAINS[request.method], "done"
        try:
            who = access.who_drains(client, request.fields)
        except Refused as error:
            self.audit.note(client.stranger, operation, {}, error.reason, {})
            return refusal_answer(error)
        if request.method == "POST":
            self._gateway.drain()
        elif not self._gateway.undrain():
            result = "stopping"
        self.audit.note(who, operation, {}, result, {})
        return _readiness(self._gateway.snapshot())

    # --- operations

    async def _answer_operation(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: Request,
        client: Client,
        access: Access,
        bound: asyncio.Timeout,
        expects_continue: bool,
    ) -> None:
        with_body = request.method != "HEAD"
        unread = UNREAD_BYTES_MAX if request.body_bytes is None else request.body_bytes
        try:
            found = self._dispatcher.find(request, client, access)
            body = await self._read_body(reader, writer, request.body_bytes or 0, expects_continue)
            unread = 0
            self._connections.pop(writer, None)  # from now on it is not idle
            bound.reschedule(None)
            result = await self._run(found, body)
        except Refused as error:
            bound.reschedule(_in_s(TIMEOUT_S))
            await _send(writer, refusal_answer(error), with_body=with_body)
            await _discard(reader, unread)
            return
        if isinstance(result, Answer):
            bound.reschedule(_in_s(TIMEOUT_S))
            await _send(writer, result, with_body=with_body)
        elif with_body:
            await self._stream(reader, writer, result)
        else:
            await result.aclose()
            await _send(writer, Answer(HTTPStatus.OK, b"", "text/event-stream"), with_body=False)

    @staticmethod
    async def _read_body(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int, expects_continue: bool
    ) -> bytes:
        if size and expects_continue:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await reader.readexactly(size)

    async def _run(self, found: Found, body: bytes) -> Answer | AsyncGenerator[bytes, None]:
        if self._operations >= OPERATIONS_MAX:
            raise self._dispatcher.refused(found, Refused("busy"))
        if found.operation.is_stream and len(self._streams) >= STREAMS_MAX:
            raise Refused("busy", f"there are {STREAMS_MAX} streams already")
        self._operations += 1
        try:
            return await self._dispatcher.run(found, body)
        finally:
            self._operations -= 1

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pieces: AsyncGenerator[bytes, None]
    ) -> None:
        """Send pieces until the client goes, does not read, or the stream ends."""
        task = asyncio.create_task(_pump(writer, pieces), name="fastticket-admin-stream")
        self._streams.add(task)
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            await end(task)
            self._streams.discard(task)


async def _pump(writer: asyncio.StreamWriter, pieces: AsyncGenerator[bytes, None]) -> None:
    writer.write(_head(HTTPStatus.OK, "text/event-stream", [NO_PROGRAM]))
    with contextlib.suppress(OSError):
        async for piece in pieces:
            writer.write(piece)
            try:
                async with asyncio.timeout(STALL_S):
                    await writer.drain()
            except TimeoutError:
                log.warning("the reader of a stream is dropped: it takes nothing for %g s", STALL_S)
                writer.transport.abort()
                return


async def _send(writer: asyncio.StreamWriter, answer: Answer, *, with_body: bool = True) -> None:
    fields = [*answer.fields, ("Content-Length", str(len(answer.body)))]
    if not any(name == NO_PROGRAM[0] for name, _ in fields):
        fields.append(NO_PROGRAM)
    writer.write(_head(answer.status, answer.content_type, fields) + (answer.body if with_body else b""))
    await writer.drain()


def _head(status: HTTPStatus, content_type: str, fields: Sequence[tuple[str, str]]) -> bytes:
    lines = [("Content-Type", content_type), *FIELDS, *fields, ("Connection", "close")]
    text = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{text}\r\n".encode()


async def _discard(reader: asyncio.StreamReader, size: int) -> None:
    """Read what a refused client still sends, within bounds: a socket that is closed with something
    unread is reset, and the answer may be lost.
    """
    left = min(size, UNREAD_BYTES_MAX)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(UNREAD_TIMEOUT_S):
            while left > 0 and (data := await reader.read(left)):
                left -= len(data)


def _in_s(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def _request_of(head: Any) -> Request:
    """The request of a head that was understood (`http1.request_head`)."""
    fields = gathered(head["fields"])
    size = {"none": 0, "length": head["content_length"] or 0}.get(head["framing"])
    return Request(
        head["method"].decode("latin-1"),
        head["path"].decode("latin-1"),
        head["target"].decode("latin-1").partition("?")[2],
        head["host"].decode("latin-1"),
        fields,
        size,
    )


def _page(path: str, snapshot: Snapshot, accept: str) -> Answer:
    match path:
        case "/healthz":
            unhealthy = snapshot.unhealthy()
            return _state({"healthy": not unhealthy, "away": unhealthy}, unhealthy)
        case "/readyz":
            return _readiness(snapshot)
        case "/metrics":
            return Answer(HTTPStatus.OK, *metrics_page(snapshot, accept))
    return _error(HTTPStatus.NOT_FOUND)


def _readiness(snapshot: Snapshot) -> Answer:
    reasons = snapshot.unready()
    return _state({"ready": not reasons, "away": snapshot.away(), "reasons": reasons}, reasons)


def _state(shown: Mapping[str, object], reasons: list[str]) -> Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return Answer(status, json.dumps(shown).encode() + b"\n")


def _error(status: HTTPStatus) -> Answer:
    return Answer(status, json.dumps({"error": status.phrase}).encode() + b"\n")
