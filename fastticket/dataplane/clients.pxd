from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    ADDRESS_BYTES = 16          # of IPv6; an IPv4 address is mapped into it
    ADDRESS_TEXT_MAX = 46       # with the NUL
    NETWORKS_MAX = 64


cdef struct Network:
    uint8_t[ADDRESS_BYTES] address
    uint8_t bits


cdef struct Counted:
    uint8_t[ADDRESS_BYTES] address
    uint32_t count              # 0: the place is free


cdef enum Who:
    NAMED = 0                   # a client with an address of TCP over IPv4 or IPv6
    NAMELESS                    # a client without such an address
    ITSELF                      # the proxy's own connection, a health check, say


cdef struct Announced:
    # What a PROXY header says of the client.
    Who who
    uint8_t[ADDRESS_BYTES] source       # if NAMED


cdef class Networks:
    cdef Network[NETWORKS_MAX] table
    cdef int count
    cdef readonly bint has_unix
    cdef bint contains(self, const uint8_t *address) noexcept nogil


cdef class Tally:
    cdef Counted *table
    cdef uint32_t mask
    cdef uint64_t seed
    cdef uint32_t add(self, const uint8_t *address) noexcept nogil
    cdef void remove(self, const uint8_t *address) noexcept nogil
    cdef void take_over(self, Tally other) noexcept nogil
    cdef uint32_t _place(self, const uint8_t *address) noexcept nogil
    cdef uint32_t _find(self, const uint8_t *address) noexcept nogil


cdef bint read_address(const uint8_t *text, uint32_t size, uint8_t *address) noexcept nogil
cdef int write_address(const uint8_t *address, char *text) noexcept nogil
cdef bint is_v4(const uint8_t *address) noexcept nogil
cdef int read_proxy_header(const uint8_t *at, uint32_t size, uint32_t most, Announced *announced) noexcept nogil
