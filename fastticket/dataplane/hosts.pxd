from libc.stdint cimport uint8_t

from fastticket.dataplane.octets cimport Span

cdef bint read_host(const uint8_t *at, Span *host) noexcept nogil
cdef bint split_absolute(const uint8_t *at, Span *target, Span *host) noexcept nogil
