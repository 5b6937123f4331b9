"""Hands clients from a retiring worker, while nothing of theirs is under way, to a worker of the
present generation.

One pair of sockets serves all workers of a supervisor: retiring workers write to it, the others
read from it. A message is a client's descriptor (SCM_RIGHTS) with its address and whether it may be
a trusted proxy. Nothing blocks: a client for which the queue has no room is offered again later.
"""

from __future__ import annotations

import contextlib
import os
import socket

from fastticket.gateway.upgrade import socket_of

MESSAGE_BYTES_MAX = 17  # BELIEVED or STRANGER, and an address of 16 bytes
BELIEVED, STRANGER = b"+", b"-"  # may be a trusted proxy, or not


class Handover:
    """Made by the supervisor and inherited by its workers. OSError: there are no descriptors
    left.
    """

    def __init__(self, filenos: tuple[int, int] | None = None) -> None:
        """`filenos`: of another program, which has left it (`upgrade`); by default a fresh pair."""
        if filenos:
            self._giving, self._taking = map(socket_of, filenos)
        else:
            self._giving, self._taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._giving.setblocking(False)
        self._taking.setblocking(False)

    def filenos(self) -> tuple[int, int]:
        """The descriptors of its ends, which a worker must keep open: to give, and to take."""
        return self._giving.fileno(), self._taking.fileno()

    def fileno(self) -> int:
        """Readable when there is a client to take."""
        return self._taking.fileno()

    def give(self, fd: int, address: bytes, is_believed: bool) -> bool:
        """Offer a client. False: there is no room now. The caller closes its own descriptor."""
        try:
            socket.send_fds(self._giving, [(BELIEVED if is_believed else STRANGER) + address], [fd])
        except OSError:  # EAGAIN; ETOOMANYREFS
            return False
        return True

    def take(self) -> tuple[int, bytes, bool] | None:
        """Take a client: its descriptor, its address (16 bytes, none on a Unix socket), and whether
        it may be a trusted proxy.

        None: there is no client, or this process has no descriptor left for it, and it is lost.
        """
        with contextlib.suppress(OSError):
            message, fds, _, _ = socket.recv_fds(self._taking, MESSAGE_BYTES_MAX, 1)
            for fd in fds:
                os.set_blocking(fd, False)
                os.set_inheritable(fd, False)
                return fd, message[1:], message[:1] == BELIEVED
        return None

    def close(self) -> None:
        """Close both ends. Clients still in between are disconnected."""
        self._giving.close()
        self._taking.close()
