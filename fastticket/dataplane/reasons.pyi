"""The data plane's own answers: status, reason phrase, slug, and the counter that each adds to."""

import enum
from collections.abc import Mapping

from fastticket.errors import Verdict

class Reason(enum.IntEnum):
    """One row each, as ANSWERS has them."""

    BAD_REQUEST = 0
    BAD_METHOD = 1
    TARGET_TOO_LONG = 2
    BAD_EXPECTATION = 3
    FIELDS_TOO_LARGE = 4
    NOT_IMPLEMENTED = 5
    BAD_VERSION = 6
    HEAD_TOO_LARGE = 7
    HEAD_LATE = 8
    BODY_LATE = 9
    NO_ROUTE_FOUND = 10
    NO_ROUTE_DESCRIBED = 11
    AMBIGUOUS_DESCRIPTION = 12
    SESSION_OVER = 13
    VERDICT_LATE = 14
    UPSTREAM_UNRESOLVED = 15
    UPSTREAM_BUSY = 16
    PENDING_LATE = 17
    OUT_OF_DESCRIPTORS = 18
    OUT_OF_MEMORY = 19
    UPSTREAM_REFUSED = 20
    UPSTREAM_CLOSED = 21
    UPSTREAM_MALFORMED = 22
    UPSTREAM_LATE = 23

#: (status, slug, name of the counter that it adds to)
ANSWERS: Mapping[Reason, tuple[int, str, str | None]]

#: The statuses of the answers by which a verdict's tickets are refused.
REFUSALS: Mapping[Verdict, tuple[int, ...]]

#: The reason phrase of each status that an answer of ours may have.
PHRASES: Mapping[int, bytes]
