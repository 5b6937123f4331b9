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
    # Borrowed bytes: their owner keeps them alive.
    const uint8_t *at
    uint32_t size


cdef struct Route:
    uint16_t path_size
    uint8_t host_size           # 0: every host
    bint is_partial             # for some hosts or methods only
    bint is_wildcard            # `host` is what follows the "*", and begins with a dot
    Auth auth
    bint touches                # a request counts as a use of its session
    bint logs_in                # responses may log in and out
    bint is_strong              # the store is asked, whatever the near cache says
    bint has_exemption          # the control plane may exempt paths from needing a ticket
    bint wants_old_ticket       # the upstream reads its user from another system's ticket
    bint minds_old_cookies      # a request with one, or for an upstream with `wants_old_ticket`, is not like the others
    bint is_endpoint            # the gateway answers: 204 with the identity; there is no upstream
    uint16_t group
    uint8_t waits               # the number of a set of timeouts, from `Proxy.add_waits`
    Text methods                # each followed by LF; empty: all methods
    Text request_fields         # field lines that are added, each with its CRLF
    Text response_fields
    uint8_t[ROUTE_PATH_MAX] path
    uint8_t[ROUTE_HOST_MAX] host


cdef class Routes:
    cdef Route[ROUTES_LIMIT] table
    cdef readonly uint16_t count
    cdef bint has_strong
    cdef uint16_t endpoint      # the number of the route that is one
    cdef list texts             # owns what the routes' `Text`s borrow
    cdef object _last_rank
    cdef Text _lines(self, fields) except *
    cdef Text _methods(self, methods) except *
    cdef bint _is_of_one_route(self, const uint8_t *normal, uint32_t size, uint32_t odd_at) noexcept nogil
    cdef uint16_t find(self, const uint8_t *at, const Head *head, bint *is_plain) noexcept nogil


cdef bint adds(const Text *lines, const uint8_t *at, const Field *field) noexcept nogil
