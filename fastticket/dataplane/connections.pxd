# The lowest layer of the data plane; connections.pyx names the others.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport malloc

from fastticket.dataplane.conn cimport Conn, Side
from fastticket.dataplane.counters cimport Counters
from fastticket.dataplane.lists cimport NONE, append, remove
from fastticket.dataplane.occupancy cimport Occupancy
from fastticket.dataplane.sockets cimport epoll_event

cdef enum:
    SCRATCH_BYTES = 65536       # read at once
    CHUNK_END_BYTES = 16        # room after it, for what ends a chunk
    READS_MAX = 16              # from one connection in one turn
    VOUCH_MS = 250
    TIMERS = 14
    WAIT_BYTES = 16             # room for TIMERS entries; a power of two
    DEADLINES_MAX = 250
    WAITS_MAX = 64
    EVENTS_MAX = 64             # served before the kernel is asked again
    BUSY_EVENTS = 8             # so many at once: there will be more by now
    TURN_US = 300               # in which the kernel is asked again and again, so long as it is busy
    TICK_MS = 100               # of a plane in a thread of its own
    BLOCKS_KEPT_MAX = 256
    BLOCK_SPACING = 576         # so that blocks do not all begin in one set of a cache, for want of an odd size


cdef enum Timer:
    NO_TIMER = 0
    KEEP_ALIVE
    HEAD_IN
    ASKED
    CONNECT
    FIRST_BYTE
    REQUEST_BODY
    RESPONSE_BODY
    LINGER
    POOL
    PENDING
    TUNNEL
    VOUCH
    SEND                        # the upstream is slow to take a request


cdef struct Deadlines:          # of all that wait for the same, equally long: sorted by itself
    Timer kind
    uint32_t first
    uint32_t last
    int64_t length_ms


cdef class Connections:
    cdef int epoll_fd
    cdef Conn *conns
    cdef uint32_t conn_max              # slots that there are
    cdef uint32_t conn_count            # slots that were ever used: the first ones
    cdef uint32_t free_first            # of those that were used, linked
    cdef uint32_t freed_first           # closed in this turn: not to be reused before it ends
    cdef readonly Occupancy occupancy   # of all planes together
    cdef uint32_t downstream_count      # of this one
    cdef uint32_t downstream_max        # for which there are slots
    cdef bint in_thread                 # of its own: driven by `run`, not by the event loop
    cdef uint32_t is_stopping           # `run` is to return
    cdef bint accepts
    cdef int64_t accepts_again_ms
    cdef bint leaving               # every connection closes after its next answer; others are still let in
    cdef bint draining
    cdef bint closes_idle
    cdef uint32_t head_bytes            # of a request; also the size of a block
    cdef int deadlines_count
    cdef int waits_count
    cdef int64_t now_us                 # monotonic, of this turn
    cdef int64_t now_ms
    cdef uint8_t *scratch               # what was received just now
    cdef uint32_t block_count           # free blocks
    cdef uint64_t *again                # connections with more to read than one turn takes
    cdef uint32_t again_count
    cdef object page                    # a memoryview; a typed one would be 5,000 lines of C in each layer
    cdef Counters *counters             # in the page
    # behind what is small: the tables
    cdef uint8_t[WAITS_MAX][WAIT_BYTES] waits
    cdef Deadlines[DEADLINES_MAX] deadlines       # 0 is none, 1 to TIMERS - 1 those of the kinds
    cdef uint8_t *blocks[BLOCKS_KEPT_MAX]         # of `head_bytes`; the one used last comes first
    cdef epoll_event[EVENTS_MAX] events

    cdef inline uint64_t _handle(self, uint32_t index) noexcept nogil:
        return <uint64_t>self.conns[index].generation << 32 | index

    cdef inline void _received(self, Conn *c, ssize_t size, uint32_t room) noexcept nogil:
        """A short read has emptied the socket, and the kernel will say when there is more; but not
        again that it has ended.
        """
        if <uint32_t>size < room and not c.hung_up:
            c.readable = False

    cdef inline uint8_t *_take_block(self) noexcept nogil:
        if self.block_count == 0:
            return <uint8_t *>malloc(self.head_bytes + BLOCK_SPACING)
        self.block_count -= 1
        return self.blocks[self.block_count]

    cdef inline void _set_timer(self, uint32_t index, Timer timer) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Deadlines *list
        self._clear_timer(index)
        c.deadlines = self.waits[c.waits][<int>timer]
        list = &self.deadlines[c.deadlines]
        c.deadline_ms = self.now_ms + list.length_ms
        append(&self.conns.timer, sizeof(Conn), &list.first, &list.last, index)

    cdef inline void _clear_timer(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Deadlines *list = &self.deadlines[c.deadlines]
        if c.deadlines == 0:
            return
        remove(&self.conns.timer, sizeof(Conn), &list.first, &list.last, index)
        c.deadlines = 0

    cdef inline int64_t _length_ms(self, const Conn *c, Timer timer) noexcept nogil:
        return self.deadlines[self.waits[c.waits][<int>timer]].length_ms

    cdef int _set_timeouts(self, dict timeouts_s) except -1
    cdef int _allocate_connections(self) except -1
    cdef uint32_t _new_conn(self, int fd, Side side) noexcept nogil
    cdef uint32_t _take_slot(self) noexcept nogil
    cdef void _close(self, uint32_t index) noexcept nogil
    cdef void _close_both(self, uint32_t index) noexcept nogil
    cdef void _reclaim(self) noexcept nogil
    cdef bint _watch(self, uint32_t index, uint32_t events, int operation) noexcept nogil
    cdef void _give_block(self, uint8_t *block) noexcept nogil
    cdef void _tick(self) noexcept nogil
    cdef void _turns(self) noexcept nogil
    cdef int _turn(self, int timeout_ms) noexcept nogil
    cdef void _run(self) noexcept nogil
    cdef void _fetch(self, const Conn *c) noexcept nogil
    cdef void _read_clock(self) noexcept nogil
    cdef void _end_turn(self) noexcept nogil
    cdef void _continue_later(self, uint32_t index) noexcept nogil
    cdef void _pause_accepting(self) noexcept nogil
    cdef void _set_accepting(self, bint accepts) noexcept nogil
    cdef bint _listen(self, int fd) noexcept nogil
    cdef bint _send(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil
    cdef void _flush(self, uint32_t index) noexcept nogil
    cdef void _drop_unsent(self, Conn *c) noexcept nogil
    cdef bint _is_quiet(self, Conn *c) noexcept nogil
    cdef void _guard_end(self, Conn *c, bint is_unframed) noexcept nogil
    cdef void _on_event(self, uint32_t index, uint32_t events) noexcept nogil
    cdef void _on_timeout(self, uint32_t index, Timer timer) noexcept nogil
    cdef void _on_tick(self) noexcept nogil
    cdef void _end(self) noexcept nogil
    cdef int _check_driver(self, bint in_thread) except -1
    cdef void _on_turn_over(self) noexcept nogil
    cdef void _on_closing(self, uint32_t index) noexcept nogil
    cdef void _on_some_taken(self, uint32_t index) noexcept nogil
    cdef void _on_all_taken(self, uint32_t index) noexcept nogil
    cdef void _send_failed(self, uint32_t index) noexcept nogil
