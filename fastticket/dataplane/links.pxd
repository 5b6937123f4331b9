# Connections to the servers of upstream groups.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.dataplane.answers cimport Answers
from fastticket.dataplane.conn cimport Conn
from fastticket.dataplane.upstreams cimport GROUPS_LIMIT, Upstreams
from fastticket.dataplane.counters cimport UpstreamCounters

cdef enum:
    NO_DESCRIPTOR = 0xFFFFFFFE


cdef struct Pool:               # of a server: this plane's connections that idle, for any client
    uint32_t first              # the one used last, which links to the others
    uint32_t count


cdef struct Pending:            # of a group: this plane's requests that wait for a server, linked
    uint32_t first
    uint32_t last
    uint32_t count


cdef class Links(Answers):
    cdef readonly Upstreams upstreams
    cdef int plane                      # our number among those that share them
    cdef Pool *pools                    # by server
    cdef UpstreamCounters *counted      # by group
    cdef Pending[GROUPS_LIMIT] pending
    cdef uint32_t pooled_count
    cdef uint64_t freed_groups          # a bit for each group in which a server may have room for a pending request

    cdef int _join(self) except -1
    cdef void _count_response(self, const Conn *c, int status) noexcept nogil
    cdef void _on_bell(self) noexcept nogil
    cdef void _close_retired(self) noexcept nogil
    cdef uint32_t _connect(self, uint16_t server) noexcept nogil
    cdef int _socket(self, int family) noexcept nogil
    cdef bint _close_idlest(self) noexcept nogil
    cdef void _close_upstream(self, uint32_t index) noexcept nogil
    cdef uint32_t _unpool(self, uint16_t server, bint is_repeatable) noexcept nogil
    cdef void _pool(self, uint32_t index) noexcept nogil
    cdef void _leave_pool(self, uint32_t index) noexcept nogil
    cdef uint32_t _kept_for(self, uint32_t index, uint16_t group) noexcept nogil
    cdef bint _waits_for_kept(self, const Conn *c, uint16_t group) noexcept nogil
    cdef void _keep(self, uint32_t index, uint32_t downstream) noexcept nogil
    cdef void _let_go_of_kept(self, Conn *c) noexcept nogil
    cdef uint64_t _key(self, const Conn *c, uint16_t group) noexcept nogil
    cdef void _make_pending(self, uint32_t index, uint16_t group, uint16_t kept) noexcept nogil
    cdef void _leave_pending(self, uint32_t index) noexcept nogil
    cdef bint _give_back(self, Conn *c, bint is_closed) noexcept nogil
    cdef void _return_server(self, uint16_t server) noexcept nogil
    cdef void _note_room(self, uint16_t group) noexcept nogil
    cdef void _serve_pending(self) noexcept nogil
    cdef bint _serve_group(self, uint16_t group) noexcept nogil
    cdef void _forward_now(self, uint32_t index) noexcept nogil
    cdef void _advance_downstream(self, uint32_t index) noexcept nogil
    cdef void _on_tick(self) noexcept nogil
    cdef void _on_turn_over(self) noexcept nogil
