"""The rule of server errors (fastticket/web/outcome.py) as a table. That the frameworks follow it
is shown in their own files.
"""

import pytest

from fastticket.web.outcome import UNAVAILABLE_BODY, UNAVAILABLE_FIELDS, UNAVAILABLE_STATUS, Outcome, outcome_of


@pytest.mark.parametrize(
    ("status", "outcome", "after_failure"),
    [
        (200, Outcome.WRITE, Outcome.WRITE),
        (302, Outcome.WRITE, Outcome.WRITE),
        (404, Outcome.WRITE, Outcome.WRITE),
        (499, Outcome.WRITE, Outcome.WRITE),
        (500, Outcome.DISCARD, Outcome.UNAVAILABLE),
        (501, Outcome.DISCARD, Outcome.DISCARD),
        (503, Outcome.DISCARD, Outcome.DISCARD),
    ],
)
def test_what_becomes_of_a_session_with_a_response(status, outcome, after_failure):
    assert outcome_of(status) is outcome
    assert outcome_of(status, has_store_failed=True) is after_failure


def test_the_response_of_a_store_that_does_not_answer():
    assert UNAVAILABLE_STATUS == 503
    assert dict(UNAVAILABLE_FIELDS) == {
        "Content-Type": "application/json",
        "Content-Length": str(len(UNAVAILABLE_BODY)),
        "Retry-After": "1",
        "Cache-Control": "no-store",
    }
