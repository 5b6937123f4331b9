# Whether a request may pass.

from libc.stdint cimport uint32_t, uint64_t

from fastticket.core.check cimport Checker
from fastticket.dataplane.asks cimport AskKind, Question
from fastticket.dataplane.conn cimport Conn
from fastticket.dataplane.exchange cimport Exchange
from fastticket.dataplane.octets cimport Span

cdef class Admission(Exchange):
    cdef readonly Checker checker
    cdef bint records_address           # with a login
    cdef uint32_t requests_max
    cdef Question *ask_list             # asked, and not written to the control plane yet
    cdef uint32_t ask_count

    cdef void _begin(self, uint32_t index) noexcept nogil
    cdef void _refuse_body(self, uint32_t index) noexcept nogil
    cdef bint _judge_described_request(self, uint32_t index) noexcept nogil
    cdef void _check(self, uint32_t index) noexcept nogil
    cdef AskKind _asks_for(self, const Conn *c) noexcept nogil
    cdef bint _touches(self, const Conn *c) noexcept nogil
    cdef bint _is_strong(self, const Conn *c) noexcept nogil
    cdef void _admit(self, uint32_t index) noexcept nogil
    cdef void _pass(self, uint32_t index) noexcept nogil
    cdef void _go_on(self, uint32_t index) noexcept nogil
    cdef bint _asks_of_old(self, uint32_t index) noexcept nogil
    cdef void _note_compared(self, uint32_t index) noexcept nogil
    cdef uint64_t _old_mark(self, uint32_t index) noexcept nogil
    cdef void _forward_now(self, uint32_t index) noexcept nogil
    cdef void _refused(self, uint32_t index, int verdict) noexcept nogil
    cdef int _counted_as(self, const Conn *c, int verdict) noexcept nogil
    cdef bint _is_browser(self, uint32_t index) noexcept nogil
    cdef bint _has_old_cookie(self, uint32_t index) noexcept nogil
    cdef bint _has_token(self, uint32_t index) noexcept nogil
    cdef bint _has_exact_path(self, uint32_t index) noexcept nogil
    cdef void _recheck_session(self, uint32_t index) noexcept nogil
    cdef bint _is_alive(self, uint32_t index) noexcept nogil
    cdef void _end_for_session(self, uint32_t index) noexcept nogil
    cdef void _wait_for_verdict(self, uint32_t index, AskKind kind) noexcept nogil
    cdef void _ask(self, uint32_t index, AskKind kind, Span value) noexcept nogil
