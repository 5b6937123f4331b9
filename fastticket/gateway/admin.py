"""The listener for operators: `/healthz`, `/readyz`, `/metrics`. POST `/drain` makes the gateway
not ready, DELETE `/drain` makes it ready again.

This machine may ask for all of it. Other machines may read the pages if the configuration names
their networks, and drain nothing.

It runs in the supervisor, which answers for all workers, even while they are busy. One answer a
connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

from fastticket.dataplane.http1 import request_head
from fastticket.gateway.metrics import METRICS_TYPE, metrics_text
from fastticket.gateway.settings import Network
from fastticket.gateway.snapshot import Snapshot

log = logging.getLogger("fastticket.admin")

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

HEAD_BYTES_MAX = 8192
TIMEOUT_S = 5.0  # of a connection, from start to end
#: A request with one of these fields comes from a page in a browser on this machine, not from an
#: operator.
BROWSER_FIELDS = (b"origin", b"sec-fetch-site")
CONNECTIONS_MAX = 64  # beyond that the oldest is closed: a probe takes milliseconds, so that one is idle


class Answer(NamedTuple):
    """Status, body and Content-Type of a page."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


class AdminListener:
    """Answers each request from a snapshot of that moment. `drain`, `undrain`: for POST and DELETE
    /drain.
    """

    def __init__(
        self, snapshot: Callable[[], Snapshot], drain: Callable[[], None], undrain: Callable[[], None]
    ) -> None:
        self._snapshot = snapshot
        self._changes = {b"POST": drain, b"DELETE": undrain}
        self._server: asyncio.Server | None = None
        self._readers: Sequence[Network] = ()
        self._connections: dict[asyncio.StreamWriter, None] = {}  # the oldest one first

    async def move_to(self, listener: socket.socket | None, readers: Sequence[Network]) -> None:
        """Serve on this socket instead of the one before; None: nowhere. `readers`: networks that
        may read its pages, beside this machine.
        """
        await self.close()
        self._readers = readers
        if listener:
            self._server = await asyncio.start_server(self._serve, sock=listener, limit=HEAD_BYTES_MAX)

    async def close(self) -> None:
        """Stop accepting connections."""
        if self._server:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) == CONNECTIONS_MAX:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.close()
        self._connections[writer] = None
        try:
            with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(TIMEOUT_S):
                    writer.write(await self._exchange(reader, _client_of(writer)))
                    await writer.drain()
        finally:
            self._connections.pop(writer, None)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, client: IPAddress | None) -> bytes:
        """Read one request of a client, None: on a Unix socket; its response. To HEAD it has no
        content, not even with an error.
        """
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            start = await reader.read(len(b"HEAD "))
            return _response(_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), with_body=start != b"HEAD ")
        head = request_head(raw)
        if isinstance(head, int):
            status = HTTPStatus(-head if head else HTTPStatus.BAD_REQUEST)
            return _response(_error(status), with_body=not raw.startswith(b"HEAD "))
        is_local = client is None or client.is_loopback
        if not (is_local or any(client in network for network in self._readers)):
            return _response(_error(HTTPStatus.FORBIDDEN), with_body=head["method"] != b"HEAD")
        if head["path"] == b"/drain" and head["method"] in self._changes:
            if not is_local or any(name.lower() in BROWSER_FIELDS for name, _, _ in head["fields"]):
                return _response(_error(HTTPStatus.FORBIDDEN))
            self._changes[head["method"]]()
            return _response(_readiness(self._snapshot()))
        if head["method"] not in (b"GET", b"HEAD"):
            return _response(_error(HTTPStatus.METHOD_NOT_ALLOWED), "Allow: GET, HEAD\r\n")
        answer = _page(head["path"], self._snapshot())
        return _response(answer, with_body=head["method"] == b"GET")


def _client_of(writer: asyncio.StreamWriter) -> IPAddress | None:
    """The address of a connection's client; None: it came through a Unix socket."""
    peer = writer.get_extra_info("peername")
    return ipaddress.ip_address(peer[0].partition("%")[0]) if isinstance(peer, tuple) else None


def _page(path: bytes, snapshot: Snapshot) -> Answer:
    match path:
        case b"/healthz":
            unhealthy = snapshot.unhealthy()
            return _state({"healthy": not unhealthy, "away": unhealthy}, unhealthy)
        case b"/readyz":
            return _readiness(snapshot)
        case b"/metrics":
            return Answer(HTTPStatus.OK, metrics_text(snapshot), METRICS_TYPE)
    return _error(HTTPStatus.NOT_FOUND)


def _readiness(snapshot: Snapshot) -> Answer:
    reasons = snapshot.unready()
    return _state({"ready": not reasons, "away": snapshot.away(), "reasons": reasons}, reasons)


def _state(shown: Mapping[str, object], reasons: list[str]) -> Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return Answer(status, json.dumps(shown).encode() + b"\n")


def _error(status: HTTPStatus) -> Answer:
    return Answer(status, json.dumps({"error": status.phrase}).encode() + b"\n")


def _response(answer: Answer, fields: str = "", *, with_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nCache-Control: no-store\r\n{fields}Connection: close\r\n\r\n"
    )
    return head.encode() + (answer.body if with_body else b"")
