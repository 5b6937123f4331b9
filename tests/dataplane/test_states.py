"""The table of moves between the states of a connection is one that connections can go through."""

import re

import pytest

from fastticket.dataplane import states
from fastticket.dataplane.states import MOVES, Downstream, Upstream

STATES = [*Downstream, *Upstream]
LAST = {Downstream.LINGERING, Downstream.TUNNELLING, Upstream.TUNNELLED}


def reachable(before):
    found, waiting = set(), [before]
    while waiting:
        for after in MOVES[waiting.pop()] - found:
            found.add(after)
            waiting.append(after)
    return found


def test_each_state_has_a_row():
    assert set(MOVES) == set(STATES)
    assert set.union(*map(set, MOVES.values())) <= set(STATES)


def test_each_state_is_reached_from_the_start():
    assert reachable(Downstream.NEW) == set(STATES) - {Downstream.NEW}


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_a_connection_stays_on_its_side(state):
    if state != Downstream.NEW:
        assert all(type(after) is type(state) for after in MOVES[state])


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_only_what_ends_with_its_connection_has_no_way_on(state):
    assert (MOVES[state] == frozenset()) == (state in LAST)


def test_a_client_s_connection_can_serve_again_from_wherever_it_is():
    for state in set(Downstream) - LAST:
        assert Downstream.READING_HEAD in reachable(state)


def test_a_way_to_a_server_can_be_used_again():
    assert Upstream.AWAITING_HEAD in reachable(Upstream.RELAYING)


def test_the_diagrams_have_each_state():
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", states.__doc__))
    assert {state.name for state in STATES} <= named
