# Clients, and the requests that they send: the data plane as Python sees it.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from fastticket.dataplane.admission cimport Admission
from fastticket.dataplane.clients cimport ADDRESS_TEXT_MAX, Networks, Tally
from fastticket.dataplane.conn cimport Conn
from fastticket.dataplane.connections cimport Timer
from fastticket.dataplane.http1 cimport Head
from fastticket.dataplane.sockets cimport sockaddr_storage


cdef class Proxy(Admission):
    cdef Networks trusted
    cdef Tally clients
    cdef bint expects_proxy_header
    cdef const char *unannounced_why    # the last connection was closed that had no PROXY header that counts
    cdef char[ADDRESS_TEXT_MAX] unannounced_peer
    cdef uint32_t per_client_max
    cdef uint32_t fields_max
    cdef uint32_t target_bytes_max

    cdef int _set_limits(self, dict limits) except -1
    cdef int _allocate(self) except -1
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
