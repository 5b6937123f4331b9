"""The way between a supervisor and its worker: whole messages, with sockets if need be.

One end of a pair of Unix sockets. A message is its header, and the pickled object; sockets come
along as descriptors (SCM_RIGHTS). Both ends are the same program, one forked of the other, so
pickle is safe, and a message needs no format of its own.

Nothing blocks: what the other end has not read yet waits here. An end that reads nothing hangs or
is dead, which its owner finds out by other means.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

READ_BYTES = 65_536
SOCKETS_PER_CALL = 200  # sendmsg(2) takes at most 253
_HEADER = struct.Struct("=QI")  # bytes of the object, number of sockets

Heard = Callable[[Any, list[socket.socket]], None]


class Channel:
    """One end. Messages wait until it is attached to a loop."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heard: Heard = lambda message, sockets: None
        self._is_over = False  # the other end is gone, and all that it said was heard
        self._unsent: deque[tuple[bytes, Sequence[socket.socket]]] = deque()
        self._received = bytearray()
        self._sockets: list[socket.socket] = []

    def fileno(self) -> int:
        """Its descriptor; -1 once it is closed."""
        return self._end.fileno()

    @property
    def is_idle(self) -> bool:
        """Whether no message is on its way through this end."""
        return not (self._unsent or self._received or self._sockets)

    def attach(self, loop: asyncio.AbstractEventLoop, heard: Heard) -> None:
        """Call `heard` with each message and its sockets, which are the callee's."""
        self._loop, self._heard = loop, heard
        loop.add_reader(self._end, self._read)

    def send(self, message: object, sockets: Sequence[socket.socket] = ()) -> None:
        """Send, now or soon; nothing, if the other end is gone. The sockets must stay open until
        the other end has answered.
        """
        body = pickle.dumps(message)
        self._unsent.append((_HEADER.pack(len(body), len(sockets)) + body, sockets))
        if len(self._unsent) == 1:
            self._write()

    def read_last(self) -> None:
        """The other end is gone: hear the rest of what it said."""
        while not self._is_over:
            self._read()

    def close(self) -> None:
        """Hear and say nothing any more."""
        if self._loop and self._end.fileno() >= 0:
            self._loop.remove_reader(self._end)
            self._loop.remove_writer(self._end)
        for each in self._sockets:
            each.close()
        self._end.close()

    def _write(self) -> None:
        """Send as much as there is room for, and the rest when there is more."""
        try:
            while self._unsent:
                self._write_some()
        except BlockingIOError:
            if self._loop:
                self._loop.add_writer(self._end, self._write)
            return
        except OSError:  # the other end is gone
            self._unsent.clear()
        if self._loop:
            self._loop.remove_writer(self._end)

    def _write_some(self) -> None:
        """One system call. With more sockets than it takes, all but the last call send one byte."""
        data, sockets = self._unsent[0]
        now, later = sockets[:SOCKETS_PER_CALL], sockets[SOCKETS_PER_CALL:]
        part = data[:1] if later else data
        sent = socket.send_fds(self._end, [part], [each.fileno() for each in now]) if now else self._end.send(part)
        if sent == len(data):
            self._unsent.popleft()
        else:
            self._unsent[0] = data[sent:], later

    def _read(self) -> None:
        """Take some of what has come."""
        try:
            data, fds, _, _ = socket.recv_fds(self._end, READ_BYTES, SOCKETS_PER_CALL)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        self._sockets += map(_socket_of, fds)
        self._received += data
        self._is_over = not data
        if self._is_over and self._loop:
            self._loop.remove_reader(self._end)
        for message, sockets in self._whole():
            self._heard(message, sockets)

    def _whole(self) -> Iterator[tuple[Any, list[socket.socket]]]:
        """The messages that are all there."""
        while len(self._received) >= _HEADER.size:
            size, count = _HEADER.unpack_from(self._received)
            end = _HEADER.size + size
            if len(self._received) < end:
                return
            message = pickle.loads(bytes(self._received[_HEADER.size : end]))  # noqa: S301 -- of our own parent or child
            sockets, self._sockets = self._sockets[:count], self._sockets[count:]
            del self._received[:end]
            yield message, sockets


def channel_pair() -> tuple[Channel, Channel]:
    """Two ends. OSError: there are no descriptors left."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(one), Channel(other)


def _socket_of(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)
