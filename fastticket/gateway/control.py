"""The commands of a supervisor to a worker: lines on a pipe.

SERVE, LEAVE and STAY are words; any other line is a key ring, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

SERVE = b"go"  #: accept clients
LEAVE = b"leave"  #: SIGTERM will follow: close every connection after its next answer
STAY = b"stay"  #: it will not follow after all


def key_ring_command(pairs: Sequence[tuple[int, bytes]]) -> bytes:
    """The command that replaces a worker's keys by these (id, secret) pairs."""
    return json.dumps([(key_id, secret.hex()) for key_id, secret in pairs]).encode()


def pairs_of(command: bytes) -> list[tuple[int, bytes]]:
    """The (id, secret) pairs of a key ring command."""
    return [(key_id, bytes.fromhex(secret)) for key_id, secret in json.loads(command)]


def line_of(command: bytes) -> bytes:
    """The command as it goes into the pipe."""
    return command + b"\n"


class CommandReader:
    """Puts commands together again that come out of a pipe in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The commands that are complete with this piece."""
        *commands, self._rest = (self._rest + data).split(b"\n")
        return commands
