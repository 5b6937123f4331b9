"""The link between a gateway and a server, with faults: delay, bites, silence, refusal, cuts, lost
notifications.

`Links` is the schedule's handle. The proxy itself is this file run as a process, so that a stall of
the schedule is none of the link's. Each *door* is a port of its own that leads to one server;
commands go to it as lines of JSON, and each is answered when it is in force.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import json
import re
import socket
import struct
import subprocess
import sys
from typing import Any

Address = tuple[str, int]
#: A notification up to the length of its text, in RESP 2 and 3.
NOTIFICATION = re.compile(rb"[*>]3\r\n\$7\r\nmessage\r\n\$\d+\r\n[^\r]*\r\n\$(\d+)\r\n")
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time: the other side gets RST


class Links:
    """The proxy's process. Its doors are closed with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._numbers = itertools.count()

    def door(self, target: Address) -> Door:
        from lab.redis_servers import free_port  # here: the process does without

        number = next(self._numbers)
        port = self.command(door=number, make=list(target), port=free_port())
        return Door(self, number, ("127.0.0.1", port))

    def command(self, **words: Any) -> Any:
        """Send a command, and return the answer, which comes when the command is in force."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        answer = self._process.stdout.readline()
        assert answer, "the link's process has ended"
        return json.loads(answer)

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Door:
    """One way to one server. What is set holds for connections that are open, too."""

    def __init__(self, links: Links, number: int, address: Address) -> None:
        self._links = links
        self._number = number
        self.address = address

    @property
    def url_address(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    def delay(self, there_s: float, back_s: float | None = None) -> None:
        """Delay every byte, in order; one number is for both directions."""
        self._set(delay_s=[there_s, there_s if back_s is None else back_s])

    def bite(self, size: int, pause_s: float) -> None:
        """Forward so many bytes, then pause; size 0: whole."""
        self._set(bite=[size, pause_s])

    def hold(self) -> None:
        """Half-open: accept, read, and forward nothing. What is held flows after `open`."""
        self._set(mode="hold")

    def refuse(self) -> None:
        """Connections are refused; those that are open are reset."""
        self._set(mode="refuse")

    def open(self) -> None:
        """Forward."""
        self._set(mode="forward")

    def mute(self, is_muted: bool = True) -> None:
        """Notifications are lost, and nothing else."""
        self._set(mute=is_muted)

    def cut(self, *, reset: bool = True) -> None:
        """End the open connections, by RST or FIN; new ones are served."""
        self._set(cut="reset" if reset else "end")

    def lead_to(self, target: Address) -> None:
        """New connections go to another server."""
        self._set(target=list(target))

    def _set(self, **words: Any) -> None:
        self._links.command(door=self._number, **words)


# The proxy's process, from here on.


@dataclasses.dataclass(eq=False)
class _Connection:
    """The task that serves a connection, and both of its ends."""

    task: asyncio.Task[None]
    writers: list[asyncio.StreamWriter]


class _Doorway:
    """A door's state: what its pumps look at before each chunk."""

    def __init__(self, target: Address, port: int) -> None:
        self.target = target
        self.port = port  # its own, for when it listens again
        self.delay_s = [0.0, 0.0]
        self.bite = (0, 0.0)
        self.is_muted = False
        self.flows = asyncio.Event()
        self.flows.set()
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_address=True)

    async def apply(self, words: dict[str, Any]) -> None:
        if "target" in words:
            self.target = (words["target"][0], words["target"][1])
        if "delay_s" in words:
            self.delay_s = words["delay_s"]
        if "bite" in words:
            self.bite = (words["bite"][0], words["bite"][1])
        if "mute" in words:
            self.is_muted = words["mute"]
        if "cut" in words:
            self._cut(words["cut"] == "reset")
        if "mode" in words:
            await self._change(words["mode"])

    async def _change(self, mode: str) -> None:
        if mode == "refuse":
            if self._server:
                self._server.close()
                self._server = None
            self._cut(True)
        else:
            await self.listen()
        if mode == "hold":
            self.flows.clear()
        else:
            self.flows.set()

    def _cut(self, is_reset: bool) -> None:
        for connection in self._connections:
            for writer in connection.writers:
                _close(writer, is_reset)
            connection.task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        own = _Connection(task, [writer])
        self._connections.add(own)
        try:
            await self.flows.wait()
            server_reader, server_writer = await asyncio.open_connection(*self.target)
            own.writers.append(server_writer)
            there = _Pump(self, 0, reader, server_writer)
            back = _Pump(self, 1, server_reader, writer)
            await _first_of(there.run(), back.run())
        except (OSError, asyncio.CancelledError):
            _close(writer, True)
        finally:
            self._connections.discard(own)
            for each in own.writers:
                _close(each, False)


class _Pump:
    """One direction of one connection: reads at once, writes when its time has come, in order."""

    def __init__(
        self, door: _Doorway, direction: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._door = door
        self._direction = direction
        self._reader = reader
        self._writer = writer
        self._under_way: collections.deque[tuple[float, bytes]] = collections.deque()
        self._arrived = asyncio.Event()

    async def run(self) -> None:
        await _first_of(self._read(), self._write())

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            chunk = await self._reader.read(65536)
            self._under_way.append((loop.time() + self._door.delay_s[self._direction], chunk))
            self._arrived.set()
            if not chunk:
                await asyncio.Event().wait()  # the writer ends both, once all that came before is out

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._under_way:
                self._arrived.clear()
                await self._arrived.wait()
            due, chunk = self._under_way.popleft()
            if (wait_s := due - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            await self._door.flows.wait()
            if not chunk:
                return
            if self._direction == 1 and self._door.is_muted:
                chunk = _without_notifications(chunk)
            await self._forward(chunk)

    async def _forward(self, chunk: bytes) -> None:
        size, pause_s = self._door.bite
        if not size:
            self._writer.write(chunk)
            await self._writer.drain()
            return
        for at in range(0, len(chunk), size):
            self._writer.write(chunk[at : at + size])
            await self._writer.drain()
            await asyncio.sleep(pause_s)


def _without_notifications(chunk: bytes) -> bytes:
    """What comes before and after them, in one chunk as it may be."""
    while found := NOTIFICATION.search(chunk):
        chunk = chunk[: found.start()] + chunk[found.end() + int(found[1]) + 2 :]
    return chunk


async def _first_of(*coroutines: Any) -> None:
    """Until one has ended; the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _close(writer: asyncio.StreamWriter, is_reset: bool) -> None:
    with contextlib.suppress(OSError, AttributeError, ValueError):
        if is_reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()
        else:
            writer.close()


async def _main() -> None:
    """Until standard input ends, as it does with the schedule's process."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    doors: dict[int, _Doorway] = {}
    while line := await reader.readline():
        words = json.loads(line)
        number = words.pop("door")
        if "make" in words:
            doors[number] = _Doorway((words["make"][0], words["make"][1]), words["port"])
            await doors[number].listen()
        else:
            await doors[number].apply(words)
        print(json.dumps(doors[number].port), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
