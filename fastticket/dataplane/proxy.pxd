# Clients, and the requests that they send: the data plane as Python sees it.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastticket.dataplane.asks cimport Order, Told
from fastticket.dataplane.clients cimport Networks
from fastticket.dataplane.conn cimport Conn
from fastticket.dataplane.connections cimport Timer
from fastticket.dataplane.dialogue cimport Dialogue
from fastticket.dataplane.http1 cimport Head
from fastticket.dataplane.occupancy cimport Occupancy
from fastticket.dataplane.sockets cimport sockaddr_storage


cdef class Proxy(Dialogue):
    cdef Networks trusted
    cdef bint expects_proxy_header
    cdef uint32_t fields_max
    cdef uint32_t target_bytes_max

    cdef int _set_limits(self, dict limits, Occupancy occupancy) except -1
    cdef int _allocate(self) except -1
    cdef int _command(self, Order order, int64_t value, uint64_t flags, bytes address) except -1
    cdef void _obey(self, const Told *told) noexcept nogil
    cdef void _stop_accepting(self) noexcept nogil
    cdef void _drain(self) noexcept nogil
    cdef bint _close_if_quiet(self, uint32_t index) noexcept nogil
    cdef void _release(self, int64_t most) noexcept nogil
    cdef void _adopt(self, const Told *told) noexcept nogil
    cdef void _end(self) noexcept nogil
    cdef void _accept(self, int listener) noexcept nogil
    cdef bint _read_peer(self, Conn *c, const sockaddr_storage *address) noexcept nogil
    cdef bint _register_peer(self, Conn *c) noexcept nogil
    cdef bint _read_proxy_header(self, uint32_t index) noexcept nogil
    cdef void _note_unannounced(self, const Conn *c, const char *why) noexcept nogil
    cdef void _close_downstream(self, uint32_t index) noexcept nogil
    cdef void _advance_downstream(self, uint32_t index) noexcept nogil
    cdef void _read_head(self, uint32_t index) noexcept nogil
    cdef void _serve(self, uint32_t index) noexcept nogil
    cdef int _over_limits(self, const Head *head, int size) noexcept nogil
    cdef void _on_event(self, uint32_t index, uint32_t events) noexcept nogil
    cdef void _on_timeout(self, uint32_t index, Timer timer) noexcept nogil
    cdef void _on_closing(self, uint32_t index) noexcept nogil
