# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""The auth endpoint: what a gateway in front says of the request that it asks about."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, strlen

from fastticket.dataplane.fieldnames cimport reads_as
from fastticket.dataplane.hosts cimport read_host
from fastticket.dataplane.http1 cimport Field, Head, take_target
from fastticket.dataplane.octets cimport Span
from fastticket.dataplane.routes cimport Route

# Gateways that may ask, and how each describes the request that it has.
FRONTS = {
    "": Front.NO_FRONT,
    "nginx": Front.SAYS_ORIGINAL,
    "haproxy": Front.SAYS_ORIGINAL,
    "traefik": Front.SAYS_FORWARDED,
    "caddy": Front.SAYS_FORWARDED,
    "envoy": Front.SAYS_BELOW,
}


cdef int find_original(Front front, const Route *endpoint, const uint8_t *at, Head *head) noexcept nogil:
    """Put what the gateway in front was asked into `head`: method, target, host. 1: it is
    there; 0: nothing is said of it; -1: in a way that can be read as two, or as none.
    """
    cdef bint is_forwarded = front == Front.SAYS_FORWARDED
    cdef Span method = head.method_name
    cdef Span target = Span(0, 0)
    cdef Span host = head.host
    cdef Field *field
    cdef int methods = 0
    cdef int targets = 0
    cdef int hosts = 0
    cdef int i
    if front == Front.SAYS_BELOW:
        if not _find_below(endpoint, at, head, &target):
            return 0
        return 1 if take_target(at, target, method, head) else -1
    for i in range(head.field_count):
        field = &head.fields[i]
        if _is_called(at, field, b"x-forwarded-method" if is_forwarded else b"x-original-method"):
            methods += 1
            method = field.value
        elif _is_called(at, field, b"x-forwarded-uri" if is_forwarded else b"x-original-uri"):
            targets += 1
            target = field.value
        elif is_forwarded and _is_called(at, field, b"x-forwarded-host"):
            hosts += 1
            host = field.value
    if methods == 0 and targets == 0:
        return 0
    if methods != 1 or targets != 1 or is_forwarded and (hosts != 1 or not read_host(at, &host)):
        return -1
    if not take_target(at, target, method, head):
        return -1
    head.host = host
    return 1


cdef bint _find_below(const Route *route, const uint8_t *at, const Head *head, Span *target) noexcept nogil:
    """What of the target comes after the endpoint's path. False: nothing does."""
    cdef uint32_t size = route.path_size - (route.path[route.path_size - 1] == c'/')
    if head.target.size <= size or memcmp(at + head.target.at, route.path, size) != 0:
        return False
    target[0] = Span(head.target.at + size, head.target.size - size)
    return at[target.at] == c'/'


cdef bint _is_called(const uint8_t *at, const Field *field, const char *name) noexcept nogil:
    """Whether somebody could take the field for that one."""
    return reads_as(at + field.name.at, field.name.size, <const uint8_t *>name, <uint32_t>strlen(name))
