# A queue of messages from one thread to one other, bounded in bytes, without a lock.
#
# A message stands in one piece: one that would go over the end of the buffer begins at its start
# again, and what is skipped is marked. Positions count bytes and are never wrapped.
#
# Nobody sleeps on a message: the writer makes `written_at` known, then looks whether the reader had
# read all that was there before (`publish`: then it must be woken); the reader makes `read_at`
# known, then looks for more (`consume`, `first_in`). Both are sequentially consistent, so one of
# the two sees the other.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from fastticket.core.atomics cimport SEQ_CST as RING_ORDER, load_u64 as load_position, store_u64 as store_position

cdef enum:
    ALIGNMENT = 8


cdef struct Piece:              # stands before each message
    uint32_t size               # with this, a multiple of ALIGNMENT
    bint is_skipped             # no message: the next one is at the start of the buffer


cdef struct Ring:
    uint8_t *bytes
    uint64_t size               # a power of two
    uint64_t writing_at         # the writer's: where the message begins that it makes
    uint64_t written_at
    uint8_t[64] apart           # the two are on cache lines of their own
    uint64_t read_at


cdef inline bint make_ring(Ring *ring, uint64_t message_bytes_max, uint64_t least) noexcept nogil:
    """A ring of `least` bytes or more, in which the largest message has room if it is empty. False:
    there is no memory.
    """
    ring.size = 64
    while ring.size < least or ring.size < 2 * (message_bytes_max + sizeof(Piece) + ALIGNMENT):
        ring.size *= 2
    ring.bytes = <uint8_t *>malloc(ring.size)
    return ring.bytes != NULL


cdef inline void end_ring(Ring *ring) noexcept nogil:
    free(ring.bytes)
    ring.bytes = NULL


cdef inline uint8_t *room_in(Ring *ring, uint64_t size) noexcept nogil:
    """Where a message of at most so many bytes may be written; NULL: not before some are read."""
    cdef uint64_t needed = sizeof(Piece) + size + ALIGNMENT
    cdef uint64_t left = ring.size - (ring.written_at - load_position(&ring.read_at, RING_ORDER))
    cdef uint64_t at = ring.written_at & (ring.size - 1)
    cdef uint64_t to_end = ring.size - at
    cdef Piece *skipped = <Piece *>(ring.bytes + at)
    ring.writing_at = ring.written_at
    if to_end < needed:
        if left < to_end + needed:
            return NULL
        skipped.size = <uint32_t>to_end
        skipped.is_skipped = True
        ring.writing_at += to_end
        at = 0
    elif left < needed:
        return NULL
    return ring.bytes + at + sizeof(Piece)


cdef inline bint publish(Ring *ring, uint64_t size) noexcept nogil:
    """Let the reader have the message that was written where `room_in` said. True: it had read all
    before, and may sleep.
    """
    cdef Piece *piece = <Piece *>(ring.bytes + (ring.writing_at & (ring.size - 1)))
    cdef uint64_t before = ring.written_at
    piece.size = <uint32_t>((sizeof(Piece) + size + ALIGNMENT - 1) & ~<uint64_t>(ALIGNMENT - 1))
    piece.is_skipped = False
    store_position(&ring.written_at, ring.writing_at + piece.size, RING_ORDER)
    return load_position(&ring.read_at, RING_ORDER) == before


cdef inline uint8_t *first_in(Ring *ring) noexcept nogil:
    """The oldest message that was not consumed yet, or NULL."""
    cdef uint64_t written_at = load_position(&ring.written_at, RING_ORDER)
    cdef Piece *piece
    while ring.read_at != written_at:
        piece = <Piece *>(ring.bytes + (ring.read_at & (ring.size - 1)))
        if not piece.is_skipped:
            return <uint8_t *>piece + sizeof(Piece)
        store_position(&ring.read_at, ring.read_at + piece.size, RING_ORDER)
    return NULL


cdef inline void consume(Ring *ring) noexcept nogil:
    """Be done with the message that `first_in` gave."""
    cdef Piece *piece = <Piece *>(ring.bytes + (ring.read_at & (ring.size - 1)))
    store_position(&ring.read_at, ring.read_at + piece.size, RING_ORDER)


cdef inline bint is_read_out(const Ring *ring) noexcept nogil:
    """Whether the reader is done with all that was written. For either thread."""
    return load_position(&ring.read_at, RING_ORDER) == load_position(&ring.written_at, RING_ORDER)
