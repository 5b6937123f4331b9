"""Which version of its session's attributes a client has seen, and what it must be told:
fastticket/web/readyourwrites.py alone.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastticket.stores.contract import NEVER_WRITTEN
from fastticket.web.readyourwrites import UNREADABLE, SeenVersion

POSITIONS = st.tuples(st.integers(0, 2**64), st.integers(0, 2**64))


def text(position):
    return f"{position[0]}-{position[1]}"


def test_who_says_nothing_has_seen_nothing_and_is_told_nothing():
    seen = SeenVersion([])
    assert (seen.version, seen.news) == (NEVER_WRITTEN, None)
    seen.read((7, 0))
    assert seen.news is None


@given(POSITIONS)
def test_a_version_is_told_as_it_is_read(position):
    seen = SeenVersion([])
    seen.wrote(position)
    if seen.news is not None:
        assert SeenVersion([seen.news]).version == position


@given(st.lists(POSITIONS, min_size=1))
def test_of_several_the_greatest_counts(positions):
    assert SeenVersion(map(text, positions)).version == max(positions)


@pytest.mark.parametrize(
    "value",
    ["", "-", "1", "1-", "-1", "1-1-1", "1--1", "+1-1", " 1-1", "1-1 ", "1-1\n", "\u0661-1", "1" * 21 + "-1", "a-b"],
)
def test_what_is_no_version_is_newer_than_any(value):
    for values in ([value], [value, "5-5"], ["5-5", value]):
        seen = SeenVersion(values)
        assert seen.version == UNREADABLE > (10**20 - 1, 10**20 - 1)
        seen.read((5, 5))
        assert seen.news == "5-5"


def test_a_claim_that_the_store_does_not_bear_out_is_corrected_and_any_other_stays():
    for claim, stored, news in (
        ("9-0", (5, 0), "5-0"),
        ("9-0", NEVER_WRITTEN, ""),
        ("5-1", (5, 0), "5-0"),
        ("5-0", (5, 0), None),
        ("5-0", (9, 0), None),
        ("0-0", NEVER_WRITTEN, None),
    ):
        seen = SeenVersion([claim])
        seen.read(stored)
        assert seen.news == news


def test_what_is_written_is_told_whatever_was_claimed():
    for claims in ([], ["3-0"], ["99-0"], ["rubbish"]):
        seen = SeenVersion(claims)
        seen.wrote((8, 1))
        assert (seen.version, seen.news) == ((8, 1), "8-1")


def test_of_two_writes_the_later_one_is_told_in_whichever_order_they_are_heard_of():
    seen = SeenVersion(["99-0"])
    seen.wrote((9, 0))
    seen.wrote((8, 0))
    seen.read((7, 0))  # its answer was under way
    assert seen.news == "9-0"


def test_who_has_no_session_any_more_needs_it_no_longer():
    seen = SeenVersion(["8-0"])
    seen.wrote((9, 0))
    seen.forget()
    assert (seen.version, seen.news) == (NEVER_WRITTEN, "")
    seen = SeenVersion([])
    seen.wrote((9, 0))
    seen.forget()
    assert seen.news is None
