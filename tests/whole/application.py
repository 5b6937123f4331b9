"""The application behind the gateways, as a process: `/login` logs in whoever says so, `/logout`,
`/everywhere` and `/rotate` do that, and everything else names whom the gateway has named. It prints
its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

WISHES = {
    b"/logout": b"X-Ticket-Logout: session\r\n",
    b"/everywhere": b"X-Ticket-Logout: everywhere\r\n",
    b"/rotate": b"X-Ticket-Rotate: 1\r\n",
}


class Application(asyncio.Protocol):
    """Requests without a body, one after the other."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        assert self._transport
        self._received += data
        while (at := self._received.find(b"\r\n\r\n")) >= 0:
            head, self._received = self._received[: at + 2], self._received[at + 4 :]
            self._transport.write(_answer(head))


def _answer(head: bytes) -> bytes:
    path = head.split(b" ", 2)[1]
    if path == b"/login":
        wish, body = b"X-Ticket-Login: %s\r\n" % _field(head, b"\r\nx-user: "), b""
    else:
        wish, body = WISHES.get(path, b""), _field(head, b"\r\nx-forwarded-user: ")
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (wish, len(body), body)


def _field(head: bytes, name: bytes) -> bytes:
    at = head.lower().find(name)
    return head[at + len(name) : head.index(b"\r\n", at + 2)] if at >= 0 else b""


async def main() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Application, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
