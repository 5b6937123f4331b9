from libc.stdint cimport uint8_t, uint32_t

from fastticket.dataplane.octets cimport Span

cdef bint sets_cookie(const uint8_t *at, Span value, const uint8_t *name, uint32_t name_size) noexcept nogil
cdef int find_cookie(const uint8_t *at, Span value, const uint8_t *name, uint32_t name_size, Span *found) noexcept nogil
cdef Span cookie_in(const uint8_t *at, Span value, uint32_t name_size, Span found) noexcept nogil
