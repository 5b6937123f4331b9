# Connections to the servers of upstream groups.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.dataplane.answers cimport Answers
from fastticket.dataplane.conn cimport Conn
from fastticket.dataplane.balance cimport Group, Upstreams

cdef enum:
    FAULTS_NOTED_MAX = 16
    NO_DESCRIPTOR = 0xFFFFFFFE


cdef struct Noted:              # what an operator is to be told of a server
    uint16_t server
    const char *what


cdef class Links(Answers):
    cdef readonly Upstreams upstreams
    cdef uint32_t pooled_count
    cdef uint64_t freed_groups          # a bit for each group in which a server may have room for a pending request
    cdef Noted[FAULTS_NOTED_MAX] noted
    cdef uint32_t noted_count
    cdef uint32_t noted_more            # for which there was no room

    cdef uint32_t _connect(self, uint16_t server) noexcept nogil
    cdef int _socket(self, int family) noexcept nogil
    cdef bint _close_idlest(self) noexcept nogil
    cdef void _close_upstream(self, uint32_t index) noexcept nogil
    cdef void _note(self, uint16_t server, const char *what) noexcept nogil
    cdef uint32_t _unpool(self, uint16_t server, bint is_repeatable) noexcept nogil
    cdef void _pool(self, uint32_t index) noexcept nogil
    cdef void _leave_pool(self, uint32_t index) noexcept nogil
    cdef uint32_t _kept_for(self, uint32_t index, const Group *group) noexcept nogil
    cdef bint _waits_for_kept(self, const Conn *c, const Group *group) noexcept nogil
    cdef void _keep(self, uint32_t index, uint32_t downstream) noexcept nogil
    cdef void _let_go_of_kept(self, Conn *c) noexcept nogil
    cdef uint64_t _key(self, const Conn *c, const Group *group) noexcept nogil
    cdef void _make_pending(self, uint32_t index, Group *group) noexcept nogil
    cdef void _leave_pending(self, uint32_t index) noexcept nogil
    cdef void _note_room(self, uint16_t server) noexcept nogil
    cdef void _serve_pending(self) noexcept nogil
    cdef void _forward_now(self, uint32_t index) noexcept nogil
    cdef void _advance_downstream(self, uint32_t index) noexcept nogil
    cdef void _on_tick(self) noexcept nogil
    cdef void _on_turn_over(self) noexcept nogil


cdef uint64_t ticket_key(const uint8_t *raw, int size) noexcept nogil
