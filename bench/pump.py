"""The floor of a proxy on uvloop: bytes from one side to the other, unread. What parses, checks and
routes costs comes on top.

python bench/pump.py UPSTREAM-PORT           prints {"listening": PORT}, both on 127.0.0.1
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop


class Side(asyncio.Protocol):
    """One end of a pair. Bytes that come before the other end is there wait."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None
        self.waiting = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other:
            self.other.transport.write(data)
        else:
            self.waiting += data

    def connection_lost(self, error: Exception | None) -> None:
        if self.other:
            self.other.transport.close()


class Downstream(Side):
    """The client's end: it opens the other one."""

    def __init__(self, upstream_port: int) -> None:
        super().__init__()
        self._upstream_port = upstream_port

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        _, upstream = await asyncio.get_running_loop().create_connection(Side, "127.0.0.1", self._upstream_port)
        upstream.other, self.other = self, upstream
        upstream.transport.write(self.waiting)


async def serve(upstream_port: int) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: Downstream(upstream_port), "127.0.0.1", 0, backlog=4096
    )
    print(json.dumps({"listening": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
