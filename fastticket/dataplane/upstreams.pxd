# The groups of servers that all planes share, and who waits for one.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.core.lock cimport Lock, acquire, release
from fastticket.dataplane.balance cimport Choice, Group, Server

cdef enum:
    SERVERS_MAX = 1024
    GROUPS_LIMIT = 64
    WEIGHT_LIMIT = 1000
    PLANES_LIMIT = 64
    FAULTS_NOTED_MAX = 16
    FAULTY = -1                 # in place of an errno: it took requests and gave no proper answer


cdef enum Queued:               # what `enqueue` says
    QUEUE_IS_FULL = 0
    WAITS
    HAS_ROOM                    # there is room by now


cdef enum Returned:             # what `give_back` says
    IS_GONE = 1                 # the server has left its group
    IS_ROOM_HERE = 2            # for a request of this plane that waits


cdef enum Place:                # whether a request that waits would find a server
    NO_PLACE = 0
    ONE_PLACE                   # and then it is another plane's turn
    A_PLACE


cdef struct Bell:               # what wakes a plane
    int fd                      # an eventfd; -1: never made
    bint is_taken               # by a plane
    uint64_t freed              # groups in which there may be room for requests of this plane
    uint32_t is_changed         # servers were replaced since it looked


cdef struct Noted:              # what an operator is to be told of a server
    uint16_t server
    const char *what


cdef class Upstreams:
    cdef Lock lock
    cdef bint is_shared         # with another thread
    cdef Server *servers
    cdef Group *groups
    cdef list names             # of each slot: its server, as it was configured
    cdef readonly int group_count
    cdef bint has_news          # a server failed or came back since the last `news`
    cdef int64_t refilled_ms
    cdef Bell[PLANES_LIMIT] bells
    cdef Noted[FAULTS_NOTED_MAX] noted
    cdef uint32_t noted_count
    cdef uint32_t noted_more            # for which there was no room

    cdef inline void hold(self) noexcept nogil:
        if self.is_shared:
            acquire(&self.lock)

    cdef inline void let_go(self) noexcept nogil:
        if self.is_shared:
            release(&self.lock)

    # of planes
    cdef int join(self, bint in_thread) except -1
    cdef void quit(self, int plane) noexcept
    cdef void ring(self, int plane, uint64_t groups) noexcept nogil
    # of requests
    cdef uint16_t take(self, int group, uint64_t key, uint32_t attempts, int plane, int64_t now_ms) noexcept nogil
    cdef Choice take_kept(self, uint16_t server, int plane) noexcept nogil
    cdef bint is_kept_busy(self, uint16_t server) noexcept nogil
    cdef int give_back(self, uint16_t server, bint is_closed, int plane) noexcept nogil
    cdef Queued enqueue(self, int group, uint64_t key, uint16_t kept, int plane, int64_t now_ms) noexcept nogil
    cdef void dequeue(self, int group) noexcept nogil
    cdef Place place_for(self, int group, uint64_t key, int plane, int64_t now_ms) noexcept nogil
    cdef void pass_turn(self, int group, int plane, bint has_more, bint has_placed, int64_t now_ms) noexcept nogil
    # of connections and answers
    cdef void opened(self, uint16_t server) noexcept nogil
    cdef void closed(self, uint16_t server) noexcept nogil
    cdef bint is_gone(self, uint16_t server) noexcept nogil
    cdef void connected(self, uint16_t server, int64_t now_ms) noexcept nogil
    cdef void failed(self, uint16_t server, int64_t now_ms, int reason) noexcept nogil
    cdef void faulted(self, uint16_t server, int64_t now_ms) noexcept nogil
    cdef void answered(self, uint16_t server) noexcept nogil
    cdef void note(self, uint16_t server, const char *what) noexcept nogil
    cdef void refill(self, int64_t now_ms) noexcept nogil
    # under the lock
    cdef void _add_retry_credit(self, Group *group) noexcept nogil
    cdef void _failed(self, uint16_t server, int64_t now_ms, int reason) noexcept nogil
    # of the control plane
    cdef Group *_group(self, int number) except NULL
    cdef int _check_servers(self, Group *group, dict wanted) except -1
    cdef int _slot_of(self, Group *group, address) except -2
    cdef bint _is_free(self, int slot) noexcept nogil
    cdef int _free_count(self) noexcept nogil
    cdef int _take_slot(self, int number, address) except -1
    cdef int _set_seconds(self, Group *group, seconds) except -1
