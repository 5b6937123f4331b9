from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastticket.dataplane.http1 cimport Field, Head

cdef enum:
    ROUTES_LIMIT = 256
    ROUTE_PATH_MAX = 255
    ROUTE_HOST_MAX = 253
    NO_ROUTE = 0xFFFF


cdef enum Auth:
    AUTH_NONE = 0
    AUTH_OPTIONAL
    AUTH_REQUIRED


cdef struct Text:
    const uint8_t *at
    uint32_t size


cdef struct Route:
    uint16_t path_size
    uint8_t[ROUTE_PATH_MAX] path
    uint8_t host_size           # 0: every host
    bint is_partial             # not for every host and method
    bint is_wildcard            # `host` begins with the dot after the "*"
    uint8_t[ROUTE_HOST_MAX] host
    Auth auth
    bint touches
    bint logs_in
    bint is_strong              # the store is asked, whatever the near cache says
    bint has_exemption          # the control plane may know a path that needs no ticket
    bint is_endpoint            # answered here: 204 with the identity, no upstream
    uint16_t group
    uint8_t waits               # which of the proxy's sets of timeouts
    Text methods                # each with its LF; empty: all of them
    Text request_fields         # lines that are added, each with its CRLF
    Text response_fields


cdef class Routes:
    cdef Route[ROUTES_LIMIT] table
    cdef readonly uint16_t count
    cdef bint has_strong
    cdef uint16_t endpoint      # the route that is one
    cdef list texts             # what the routes' lines borrow
    cdef object _last_rank
    cdef Text _lines(self, fields) except *
    cdef Text _methods(self, methods) except *
    cdef bint _is_of_one_route(self, const uint8_t *normal, uint32_t size, uint32_t odd_at) noexcept nogil
    cdef uint16_t find(self, const uint8_t *at, const Head *head, bint *is_plain) noexcept nogil


cdef bint adds(const Text *lines, const uint8_t *at, const Field *field) noexcept nogil
