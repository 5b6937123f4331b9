"""Linkis' tickets are read and written as Linkis does it: the judge is a twin that was written from
what is known of Linkis alone (lab/linkis_tickets.py).
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.http_grammar import FACTOR
from lab.linkis_tickets import IllegalTicketError, Tickets

from fastticket.moving.formats.linkis_ticket import LinkisTickets

USERS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
KEYS = st.sampled_from(["bdp-for-server", "another key", "ключ"])  # Java wants 8 bytes
TIMES = st.integers(0, 9_999_999_999_999)


@given(USERS, TIMES, KEYS, st.sampled_from(["des", "des-raw", "aes-gcm"]))
@settings(deadline=None, max_examples=int(100 * FACTOR) + 1)
def test_linkis_reads_what_we_write(user, login_ms, key, kind):
    twin = Tickets("1.8" if kind == "des" else "later", key)
    assert twin.user_of(LinkisTickets(key).seal(user, login_ms, kind)) == user


def test_a_raw_ticket_of_any_user_is_one_for_later_versions():
    """Some begin with the byte that says AES there, whatever the time."""
    ours, twin = LinkisTickets(), Tickets("later")
    for user in (f"{number:04}" for number in range(1000)):
        for ticket in (ours.seal(user, 1_700_000_000_000, "des-raw"), ours.seal_minted(user, 5, "des-raw")):
            assert twin.user_of(ticket) == user


@given(USERS, TIMES, KEYS, st.sampled_from(["1.8", "later"]))
@settings(deadline=None, max_examples=int(100 * FACTOR) + 1)
def test_we_read_what_linkis_writes(user, login_ms, key, era):
    opened = LinkisTickets(key).open(Tickets(era, key).make(user, login_ms))
    assert (opened.user, opened.login_ms) == (user, login_ms)


def test_later_versions_do_not_read_the_tickets_of_1_8():
    with pytest.raises(IllegalTicketError):
        Tickets("later").user_of(Tickets("1.8").make("alice", 1_700_000_000_000))
