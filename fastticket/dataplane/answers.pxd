# Answers of the data plane's own, what follows an answer, and the access log.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastticket.dataplane.accesslog cimport AccessLog
from fastticket.dataplane.conn cimport Conn
from fastticket.dataplane.connections cimport Connections
from fastticket.dataplane.endpoint cimport Front
from fastticket.dataplane.forwarding cimport Forwarding
from fastticket.dataplane.fieldnames cimport Names
from fastticket.dataplane.http1 cimport Head
from fastticket.dataplane.reasons cimport Reason, Row
from fastticket.dataplane.routes cimport Routes, Text
from fastticket.dataplane.writer cimport Writer

cdef enum:
    NO_HANDLE = 0xFFFFFFFFFFFFFFFF        # `head_of`: of no request
    NEXT_BYTES_MAX = 4096                 # of where a client wanted to go, encoded
    LOCATION_BYTES_MAX = 5120


cdef class Answers(Connections):
    cdef readonly Routes routes
    cdef readonly AccessLog log
    cdef Forwarding forwarding
    cdef Names names
    cdef Front front                    # the gateway that asks at the endpoint
    cdef bint records_agent
    cdef bint keeps_entry               # of each request: for the log, or its id
    cdef int64_t date_s                 # which second `date` says
    cdef char[40] date
    cdef Head head                      # the last one parsed
    cdef uint64_t head_of               # the handle of the connection whose request it is of, or NO_HANDLE
    cdef Writer out                     # what is about to be sent

    cdef void _answer(self, uint32_t index, Reason reason) noexcept nogil
    cdef void _count(self, const Row *row) noexcept nogil
    cdef void _reject_unreadable(self, uint32_t index, Reason reason) noexcept nogil
    cdef void _fail_exchange(self, uint32_t index, Reason reason) noexcept nogil
    cdef void _fail_exchange_as(self, uint32_t index, int status, const char *slug) noexcept nogil
    cdef void _begin_answer(self, uint32_t index, int status, const char *slug) noexcept nogil
    cdef Text _sign(self, int status) noexcept nogil
    cdef void _put_challenge(self, const char *slug) noexcept nogil
    cdef void _end_answer(self, uint32_t index, int status, const char *slug) noexcept nogil
    cdef void _put_own_fields(self, const Text *lines) noexcept nogil
    cdef void _put_location(self, const Conn *c) noexcept nogil
    cdef bint _put_next(self, const Conn *c) noexcept nogil
    cdef void _answer_identity(self, uint32_t index) noexcept nogil
    cdef void _set_date(self) noexcept nogil
    cdef const char *_connection_field(self, Conn *c) noexcept nogil
    cdef void _deliver(self, uint32_t index, int status, const uint8_t *answer, uint32_t size) noexcept nogil
    cdef void _flush_out(self, uint32_t index) noexcept nogil
    cdef void _after_answer(self, uint32_t index) noexcept nogil
    cdef void _wait_for_request(self, uint32_t index) noexcept nogil
    cdef void _linger(self, uint32_t index, bint more_held) noexcept nogil
    cdef void _discard(self, uint32_t index) noexcept nogil
    cdef void _note_request(self, Conn *c) noexcept nogil
    cdef void _note_target(self, Conn *c) noexcept nogil
    cdef void _note_nothing(self, Conn *c) noexcept nogil
    cdef void _note_refused(self, Conn *c, int verdict) noexcept nogil
    cdef void _note_agent(self, Conn *c) noexcept nogil
    cdef void _note_cookies(self, Conn *c) noexcept nogil
    cdef void _note_where(self, Conn *c) noexcept nogil
    cdef void _account(self, Conn *c, bint was_cut) noexcept nogil
    cdef void _close_entry(self, Conn *c, int64_t took_us, bint was_cut) noexcept nogil
    cdef void _log(self, const Conn *c, int64_t took_us, bint was_cut) noexcept nogil
