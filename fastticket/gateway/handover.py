"""How the clients of a worker that retires, while nothing of theirs is under way, come to one that
serves by the new configuration.

One pair of sockets for all workers that a supervisor ever starts. Those that serve read from it;
those that retire write to it. A message is a descriptor, with the client's address, none on a Unix
socket, and whether it was a trusted proxy. Nobody waits: what the queue does not take is offered
again later.
"""

from __future__ import annotations

import contextlib
import os
import socket

MESSAGE_BYTES_MAX = 17  # whether it may be a trusted proxy, and the address
BELIEVED, STRANGER = b"+", b"-"


class Handover:
    """The supervisor makes it; it goes through forks. OSError: there is no descriptor for it."""

    def __init__(self) -> None:
        self._giving, self._taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._giving.setblocking(False)
        self._taking.setblocking(False)

    def filenos(self) -> set[int]:
        """What a worker needs of it."""
        return {self._giving.fileno(), self._taking.fileno()}

    def fileno(self) -> int:
        """Readable when there is somebody to take."""
        return self._taking.fileno()

    def give(self, fd: int, address: bytes, is_believed: bool) -> bool:
        """Whether there was room. The descriptor stays the caller's, to close."""
        try:
            socket.send_fds(self._giving, [(BELIEVED if is_believed else STRANGER) + address], [fd])
        except OSError:  # EAGAIN; ETOOMANYREFS
            return False
        return True

    def take(self) -> tuple[int, bytes, bool] | None:
        """A client's descriptor, his address, of 16 bytes or none, and whether he may be a trusted
        proxy.

        None: there is nobody, or no descriptor for him (he is lost).
        """
        with contextlib.suppress(OSError):
            message, fds, _, _ = socket.recv_fds(self._taking, MESSAGE_BYTES_MAX, 1)
            for fd in fds:
                os.set_blocking(fd, False)
                os.set_inheritable(fd, False)
                return fd, message[1:], message[:1] == BELIEVED
        return None

    def close(self) -> None:
        """Whoever is still in it has nobody to go to."""
        self._giving.close()
        self._taking.close()
