# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""The states of a connection and the moves between them. Closing a connection is no move.

Downstream, a client's connection:

    NEW ──► IDLE ───────────────────────┐
     └────► AWAITING_PROXY_HEADER ──────┤
                                        ▼
            NEXT_HELD, QUEUED ──► READING_HEAD ──► ASKING
                                        │             │
                                        ▼             ▼
            forwarded:   QUEUED, CONNECTING or EXCHANGING ──► TUNNELLING
                                        │        ▲ ▼
                                        │     CHANGING
                                        ▼        ▼
            answered:    IDLE, NEXT_HELD, FLUSHING or LINGERING

A request that is sent again moves among the forwarded states; one that was QUEUED is read again
first. Only EXCHANGING leads to CHANGING and TUNNELLING. An answer leads from READING_HEAD, ASKING,
CONNECTING, EXCHANGING or CHANGING to an answered state, and from FLUSHING to another one of them.
LINGERING and TUNNELLING end with the connection.

Upstream, a connection to a server, which may be connected at once:

    NEW ──► OPENING ──► AWAITING_HEAD ──► RELAYING ──► TUNNELLED
     └──────────────────► ▲  ▲              │  │
                          │  └── POOLED ◄───┘  │
                          └───── KEPT ◄────────┘

A build with FASTTICKET_DEBUG=1 ends the process at a move that MOVES lacks, and keeps which were
made (`moves_made`).
"""

from libc.stdint cimport uint32_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort

from fastticket.core.atomics cimport RELAXED as MOVE_ORDER, or_u32 as note_move

_ANSWERED = frozenset((Downstream.IDLE, Downstream.NEXT_HELD, Downstream.FLUSHING, Downstream.LINGERING))
_FORWARDED = frozenset((Downstream.QUEUED, Downstream.CONNECTING, Downstream.EXCHANGING))

MOVES = {
    Downstream.NEW: frozenset((
        Downstream.IDLE, Downstream.AWAITING_PROXY_HEADER, Upstream.OPENING, Upstream.AWAITING_HEAD)),
    Downstream.AWAITING_PROXY_HEADER: frozenset((Downstream.READING_HEAD, Downstream.FLUSHING, Downstream.LINGERING)),
    Downstream.IDLE: frozenset((Downstream.READING_HEAD,)),
    Downstream.READING_HEAD: _ANSWERED | _FORWARDED | {Downstream.ASKING},
    Downstream.NEXT_HELD: frozenset((Downstream.READING_HEAD,)),
    Downstream.ASKING: _ANSWERED | _FORWARDED | {Downstream.ASKING},
    Downstream.QUEUED: frozenset((Downstream.READING_HEAD,)),
    Downstream.CONNECTING: _ANSWERED | _FORWARDED,
    Downstream.EXCHANGING: _ANSWERED | _FORWARDED | {Downstream.CHANGING, Downstream.TUNNELLING},
    Downstream.CHANGING: _ANSWERED | {Downstream.EXCHANGING},
    Downstream.FLUSHING: _ANSWERED - {Downstream.FLUSHING},
    Downstream.LINGERING: frozenset(),
    Downstream.TUNNELLING: frozenset(),
    Upstream.OPENING: frozenset((Upstream.AWAITING_HEAD,)),
    Upstream.AWAITING_HEAD: frozenset((Upstream.AWAITING_HEAD, Upstream.RELAYING)),
    Upstream.RELAYING: frozenset((Upstream.POOLED, Upstream.KEPT, Upstream.TUNNELLED)),
    Upstream.POOLED: frozenset((Upstream.AWAITING_HEAD,)),
    Upstream.KEPT: frozenset((Upstream.AWAITING_HEAD,)),
    Upstream.TUNNELLED: frozenset(),
}

# MOVES as bit masks, and the moves made so far: bit n is a move to state n.
cdef uint32_t[STATES] ALLOWED
cdef uint32_t[STATES] MADE


cdef void _fill() except *:
    cdef int i
    for i in range(STATES):
        ALLOWED[i] = MADE[i] = 0
    for before, following in MOVES.items():
        for after in following:
            ALLOWED[<int>before] |= <uint32_t>1 << <int>after


_fill()


cdef void check_move(int before, int after) noexcept nogil:
    """End the process if the table has no such move."""
    if not ALLOWED[before] >> after & 1:
        fprintf(stderr, "fastticket: a connection moves from state %d to %d\n", before, after)
        abort()
    note_move(&MADE[before], <uint32_t>1 << after, MOVE_ORDER)


def moves_made():
    """The moves made so far in this process; none unless it is a debug build."""
    return {(before, after) for before in MOVES for after in MOVES if MADE[<int>before] >> <int>after & 1}
