# Tickets of another system, by our sessions: what an upstream of that system reads its user from.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastticket.dataplane.routes cimport Text

cdef enum:
    MINTED_BYTES_MAX = 1024
    MINTED_BITS = 14            # of sets
    MINTED_WAYS = 4


cdef struct Minted:
    uint8_t[16] session         # its id
    uint16_t size               # 0: free
    uint8_t *text


cdef class MintedTickets:
    cdef Minted *table          # NULL until the first one comes
    cdef uint32_t turn          # whose place is taken next where a set is full

    cdef Text find(self, const uint8_t *session) noexcept nogil
    cdef bint put(self, const uint8_t *session, const Text *ticket) noexcept nogil
