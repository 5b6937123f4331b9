"""The states of a connection and the moves between them."""

import enum
from collections.abc import Mapping, Set

class Downstream(enum.IntEnum):
    """Of a client's connection."""

    NEW = 0
    IDLE = 1
    AWAITING_PROXY_HEADER = 2
    READING_HEAD = 3
    NEXT_HELD = 4
    ASKING = 5
    QUEUED = 6
    CONNECTING = 7
    EXCHANGING = 8
    CHANGING = 9
    FLUSHING = 10
    LINGERING = 11
    TUNNELLING = 12

class Upstream(enum.IntEnum):
    """Of a connection to a server."""

    OPENING = 16
    AWAITING_HEAD = 17
    RELAYING = 18
    POOLED = 19
    KEPT = 20
    TUNNELLED = 21

#: From each state, those that may follow.
MOVES: Mapping[Downstream | Upstream, Set[Downstream | Upstream]]

def moves_made() -> set[tuple[Downstream | Upstream, Downstream | Upstream]]:
    """The moves made so far in this process; none unless it is a debug build."""
