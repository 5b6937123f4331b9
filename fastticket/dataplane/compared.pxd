# Which cookies of another system have come with which of our sessions and were found to be of the
# same user, or of nobody's session.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastticket.dataplane.http1 cimport Head
from fastticket.dataplane.routes cimport Text

cdef enum:
    COMPARED_BITS = 16          # of places: half a megabyte
    COMPARED_FOR_BITS = 16      # of ms: about a minute


cdef class ComparedCookies:
    cdef uint64_t *table

    cdef bint has(self, uint64_t mark) noexcept nogil
    cdef void put(self, uint64_t mark) noexcept nogil


cdef uint64_t mark_of(
    const uint8_t *at, const Head *head, const Text *names, uint32_t count, const uint8_t *session, int64_t now_ms) noexcept nogil
