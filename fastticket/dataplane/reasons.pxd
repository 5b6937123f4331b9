# The data plane's own answers: one row each. What the rows say stands in reasons.pyx (ANSWERS).

from fastticket.core.verdict cimport VERDICTS

cpdef enum Reason:
    BAD_REQUEST = 0
    BAD_METHOD
    TARGET_TOO_LONG
    BAD_EXPECTATION
    FIELDS_TOO_LARGE
    NOT_IMPLEMENTED
    BAD_VERSION
    HEAD_TOO_LARGE
    HEAD_LATE
    BODY_LATE
    NO_ROUTE_FOUND
    NO_ROUTE_DESCRIBED
    AMBIGUOUS_DESCRIPTION
    SESSION_OVER
    VERDICT_LATE
    UPSTREAM_UNRESOLVED
    UPSTREAM_BUSY
    PENDING_LATE
    OUT_OF_DESCRIPTORS
    OUT_OF_MEMORY
    UPSTREAM_REFUSED
    UPSTREAM_CLOSED
    UPSTREAM_MALFORMED
    UPSTREAM_LATE


cdef enum:
    REASONS = 24
    UNCOUNTED = -1


cdef struct Row:
    int status
    const char *slug            # `reason` in the body, `verdict` in the access log
    int counter                 # the place of the counter that it adds to (counters.NUMBERS), or UNCOUNTED


cdef const Row *row_of(Reason reason) noexcept nogil
cdef const char *slug_of(int verdict) noexcept nogil
cdef const char *phrase_of(int status) noexcept nogil
cdef Reason unreadable(int status) noexcept nogil
