# The auth endpoint: what a gateway in front says of the request that it asks about.

from libc.stdint cimport uint8_t

from fastticket.dataplane.http1 cimport Head
from fastticket.dataplane.routes cimport Route

cdef enum Front:                # what the gateway that asks says of the request that it has
    NO_FRONT = 0
    SAYS_ORIGINAL               # X-Original-Method, X-Original-URI, Host
    SAYS_FORWARDED              # X-Forwarded-Method, X-Forwarded-Uri, X-Forwarded-Host
    SAYS_BELOW                  # its own method and Host, and the target after the endpoint's path


cdef int find_original(Front front, const Route *endpoint, const uint8_t *at, Head *head) noexcept nogil
