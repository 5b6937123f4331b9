"""How raw bytes come to the gateway: whole, in two pieces split at any boundary, or byte by byte.

Rule: a piece goes out only when the gateway has read the one before, and nobody sleeps for that.
What has been sent over the loopback is there for the gateway at once, and its loop serves all that
is there before it answers a call.
"""

import contextlib
import socket

LONG = 2000  # bytes; of what is longer, the middle is repetition
NEAR_AN_END = 150
STRIDE = 2503


def whole(raw):
    return [raw]


def bytewise(raw):
    """Single bytes; larger ones of what is long."""
    size = 1 + len(raw) // LONG
    return [raw[at : at + size] for at in range(0, len(raw), size)]


def in_two(raw, dull=b""):
    """Each way to split it. What is long is split near its ends, and now and then between them;
    what is dull only at its ends.
    """
    begin = raw.find(dull)
    skipped = range(begin + 2, begin + len(dull) - 1) if begin >= 0 else ()
    for at in range(1, len(raw)):
        is_looked_at = len(raw) <= LONG or min(at, len(raw) - at) <= NEAR_AN_END or at % STRIDE == 0
        if is_looked_at and at not in skipped:
            yield [raw[:at], raw[at:]]


def send(gateway, connection, pieces):
    """As far as the gateway lets us: it may close before the end. What was taken has been served on
    return.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            connection.sendall(piece)
            settle(gateway)
    settle(gateway)


def settle(gateway):
    """Let the gateway serve all that it has been sent."""
    gateway.call(lambda: None)
