"""The rule of server errors, for all frameworks: what becomes of a session with its response.

    response                    what was changed               what the client receives
    below 500                   written before the first byte  the application's response
    below 500, and the store    stays unwritten                503, as below
      does not take the write
    500 and more                stays unwritten                the application's response
    500 of the framework for    stays unwritten                503
      an error of the store
    none: StoreUnavailable was  stays unwritten                503
      raised before it began
    none: another exception     stays unwritten                the server's response

Frameworks make a 500 of an exception that nobody catches, so a 500 counts as an exception does.
What `login`, `logout`, `rotate` and `save` have written at once stays written; so each of these
responses has the cookies of what was written (fastticket/web/reply.py), the 503 too.
"""

from __future__ import annotations

import enum

from fastticket.errors import StoreUnavailable

SERVER_ERROR = 500  # RFC 9110, section 15.6: from here on
RETRY_AFTER_S = 1
UNAVAILABLE_STATUS = StoreUnavailable.status
UNAVAILABLE_BODY = b'{"detail":"sessions are unavailable; try again"}'
UNAVAILABLE_FIELDS = (
    ("Content-Type", "application/json"),
    ("Content-Length", str(len(UNAVAILABLE_BODY))),
    ("Retry-After", str(RETRY_AFTER_S)),
    ("Cache-Control", "no-store"),
)


class Outcome(enum.Enum):
    """What an integration does when a response is about to begin."""

    WRITE = "write"  # what the request changed; a StoreUnavailable makes it UNAVAILABLE
    DISCARD = "discard"  # what the request changed
    UNAVAILABLE = "unavailable"  # discard, and answer 503 in place of this response


def outcome_of(status: int, *, has_store_failed: bool = False) -> Outcome:
    """The outcome of a response with this status code.

    `has_store_failed`: the store has failed the request. Flask and Django make a response of an
    exception before this rule is asked, so a 500 may stand for that failure.
    """
    if status < SERVER_ERROR:
        return Outcome.WRITE
    if status == SERVER_ERROR and has_store_failed:
        return Outcome.UNAVAILABLE
    return Outcome.DISCARD
