# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""The data plane's own answers: status, reason phrase, slug, and the counter that each adds to.

An answer of ours is JSON, `{"error": phrase, "reason": slug}`. ANSWERS has one row for each that
the data plane decides on by itself; REFUSALS those for which a ticket is refused.
docs/reference/answers.md says when each is given and what to do about it; a test compares the two.
"""

from fastticket.dataplane.counters import NUMBERS as _NUMBERS
from fastticket.errors import Verdict

# (status, slug, counter)
ANSWERS = {
    Reason.BAD_REQUEST: (400, "bad_request", None),
    Reason.BAD_METHOD: (405, "bad_request", None),
    Reason.TARGET_TOO_LONG: (414, "bad_request", None),
    Reason.BAD_EXPECTATION: (417, "bad_request", None),
    Reason.FIELDS_TOO_LARGE: (431, "bad_request", None),
    Reason.NOT_IMPLEMENTED: (501, "bad_request", None),
    Reason.BAD_VERSION: (505, "bad_request", None),
    Reason.HEAD_TOO_LARGE: (431, "head_too_large", None),
    Reason.HEAD_LATE: (408, "request_timeout", "timeouts"),
    Reason.BODY_LATE: (408, "request_timeout", "timeouts"),
    Reason.NO_ROUTE_FOUND: (404, "no_route", None),
    Reason.NO_ROUTE_DESCRIBED: (403, "no_route", None),
    Reason.AMBIGUOUS_DESCRIPTION: (403, "ambiguous", None),
    Reason.SESSION_OVER: (401, "session_over", None),
    Reason.VERDICT_LATE: (503, "store_unavailable", "timeouts"),
    Reason.UPSTREAM_UNRESOLVED: (503, "upstream_unresolved", None),
    Reason.UPSTREAM_BUSY: (503, "upstream_busy", "queue_full"),
    Reason.PENDING_LATE: (503, "upstream_busy", "timeouts"),
    Reason.OUT_OF_DESCRIPTORS: (503, "out_of_descriptors", None),
    Reason.OUT_OF_MEMORY: (503, "out_of_memory", None),
    Reason.UPSTREAM_REFUSED: (502, "upstream_refused", None),
    Reason.UPSTREAM_CLOSED: (502, "upstream_closed", "upstream_errors"),
    Reason.UPSTREAM_MALFORMED: (502, "upstream_malformed", "upstream_errors"),
    Reason.UPSTREAM_LATE: (504, "upstream_timeout", "upstream_timeouts"),
}

# Of each verdict that refuses: the statuses of its answers. 302 sends a browser to the
# login page; a 503 is never a redirect.
REFUSALS = {verdict: (302, 401) for verdict in Verdict if verdict.is_refusal} | {
    Verdict.AMBIGUOUS: (302, 400, 401),
    Verdict.STORE_UNAVAILABLE: (503,),
    Verdict.OLD_STORE_UNAVAILABLE: (503,),
}

PHRASES = {
    302: b"Found",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}

cdef enum:
    STATUSES = 600

# The same for C. `_TEXTS` owns what the pointers lead to.
cdef Row[REASONS] ROWS
cdef const char *SLUGS[VERDICTS]
cdef const char *PHRASE_OF[STATUSES]
cdef list _TEXTS = []


cdef const char *_kept(bytes text):
    _TEXTS.append(text)
    return text


cdef void _fill() except *:
    cdef int i
    for i in range(REASONS):
        status, slug, counter = ANSWERS[i]
        ROWS[i] = Row(status, _kept(slug.encode()), UNCOUNTED if counter is None else _NUMBERS[counter])
    for i in range(<int>VERDICTS):
        SLUGS[i] = b""
    for verdict in Verdict:
        SLUGS[<int>verdict.value] = _kept(verdict.reason.encode())
    for i in range(STATUSES):
        PHRASE_OF[i] = b"Error"
    for status, phrase in PHRASES.items():
        PHRASE_OF[<int>status] = phrase


_fill()


cdef const Row *row_of(Reason reason) noexcept nogil:
    return &ROWS[<int>reason]


cdef const char *slug_of(int verdict) noexcept nogil:
    """The slug of a verdict that refuses (errors.Verdict.reason)."""
    return SLUGS[verdict]


cdef const char *phrase_of(int status) noexcept nogil:
    """The reason phrase; "Error" of a status that has none here."""
    return PHRASE_OF[status] if 0 <= status < STATUSES else <const char *>b"Error"


cdef Reason unreadable(int status) noexcept nogil:
    """The answer to a request that could not be read, by the status that the parser gives."""
    cdef int i
    for i in range(<int>Reason.BAD_REQUEST, <int>Reason.BAD_VERSION + 1):
        if ROWS[i].status == status:
            return <Reason>i
    return Reason.BAD_REQUEST
