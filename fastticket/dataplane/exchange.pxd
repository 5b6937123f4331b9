# A request and its response.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.dataplane.asks cimport AskKind
from fastticket.dataplane.conn cimport Conn
from fastticket.dataplane.connections cimport Timer
from fastticket.dataplane.http1 cimport Field, Method
from fastticket.dataplane.octets cimport Span
from fastticket.dataplane.links cimport Links
from fastticket.dataplane.routes cimport Text


cdef class Exchange(Links):
    cdef uint32_t response_head_bytes
    cdef uint32_t extension_bytes_max
    cdef uint64_t request_rate_min      # bytes/s
    cdef uint64_t response_rate_min
    cdef uint32_t tunnels               # clients with one

    cdef void _forward(self, uint32_t index) noexcept nogil
    cdef bint _forward_to_kept(self, uint32_t index, uint16_t group) noexcept nogil
    cdef void _use_kept(self, uint32_t index, uint32_t upstream) noexcept nogil
    cdef void _connected(self, uint32_t index) noexcept nogil
    cdef void _connect_failed(self, uint32_t index, int reason) noexcept nogil
    cdef void _read_again(self, uint32_t index) noexcept nogil
    cdef void _send_request(self, uint32_t index) noexcept nogil
    cdef void _advance_upstream(self, uint32_t index) noexcept nogil
    cdef void _read_response(self, uint32_t index) noexcept nogil
    cdef void _response_missing(self, uint32_t index) noexcept nogil
    cdef void _on_response(self, uint32_t index, uint8_t *at, uint32_t size) noexcept nogil
    cdef const char *_fault_of(self, int result, const uint8_t *at, uint32_t size, Method method) noexcept nogil
    cdef void _malformed(self, uint32_t index, const char *what) noexcept nogil
    cdef bint _hold(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil
    cdef bint _changes_session(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil
    cdef int _change_asked(self, const Conn *d, const uint8_t *at, const Field *field) noexcept nogil
    cdef int _login_kind(self, const uint8_t *at) noexcept nogil
    cdef void _relay(self, uint32_t index, uint8_t *at, uint32_t size, const Text *fields) noexcept nogil
    cdef void _note_dropped(self, uint16_t server, int cookies) noexcept nogil
    cdef void _finish(self, uint32_t index) noexcept nogil
    cdef bint _begin_body(self, Conn *c) noexcept nogil
    cdef void _pump(self, uint32_t index) noexcept nogil
    cdef uint32_t _room(self, Conn *c) noexcept nogil
    cdef bint _move(self, uint32_t index, uint8_t *at, uint32_t size) noexcept nogil
    cdef bint _is_use(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil
    cdef bint _take_body(self, Conn *c, uint8_t *at, uint32_t *consumed, uint32_t *produced) noexcept nogil
    cdef bint _send_body(self, uint32_t index, uint8_t *at, uint32_t size, bint complete) noexcept nogil
    cdef void _body_complete(self, uint32_t index) noexcept nogil
    cdef void _body_ended(self, uint32_t index, bint cleanly) noexcept nogil
    cdef void _malformed_body(self, uint32_t index) noexcept nogil
    cdef void _open_tunnel(self, uint32_t index) noexcept nogil
    cdef uint32_t _part(self, uint32_t most) noexcept nogil
    cdef bint _announce_close(self, uint32_t index) noexcept nogil
    cdef void _upstream_is_late(self, uint32_t index, Timer timer) noexcept nogil
    cdef bint _request_flows(self, uint32_t index) noexcept nogil
    cdef void _await_body(self, uint32_t index) noexcept nogil
    cdef bint _extend_if_response_flows(self, uint32_t index) noexcept nogil
    cdef void _restart_silence(self, uint32_t upstream) noexcept nogil
    cdef void _ask(self, uint32_t index, AskKind kind, Span value) noexcept nogil
    cdef void _send_failed(self, uint32_t index) noexcept nogil
    cdef void _on_some_taken(self, uint32_t index) noexcept nogil
    cdef void _on_all_taken(self, uint32_t index) noexcept nogil
