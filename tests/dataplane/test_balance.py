"""Which server a request goes to: turns, weights, hashing, who is down, and what trying again
costs.
"""

import errno
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastticket.dataplane.upstreams import Upstreams, picks, report

A, B, C, D = (("10.0.0.1", port) for port in (1, 2, 3, 4))
NAMES = {server: f"10.0.0.1:{server[1]}" for server in (A, B, C, D)}
KEYS = [key * 0x9E3779B97F4A7C15 % 2**64 for key in range(1, 6001)]


def group_of(servers, balance="round_robin", **options):
    upstreams = Upstreams()
    assert upstreams.add_group(balance, **options) == 0
    upstreams.set_servers(0, servers.items() if isinstance(servers, dict) else [(server, 1) for server in servers])
    return upstreams


def turns(upstreams, count, now_ms=1):
    return picks(upstreams, 0, [0] * count, now_ms)


def test_round_robin():
    assert turns(group_of([A, B, C]), 7) == [NAMES[s] for s in (A, B, C, A, B, C, A)]


def test_weights_are_kept_and_spread():
    """As smooth as can be: a heavy server does not have all its turns in a row."""
    found = turns(group_of({A: 5, B: 1, C: 1}), 7)
    assert Counter(found) == {NAMES[A]: 5, NAMES[B]: 1, NAMES[C]: 1}
    assert "".join("A" if s == NAMES[A] else "x" for s in found) != "AAAAAxx"
    assert found == [NAMES[s] for s in (A, A, B, A, C, A, A)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_a_round_has_every_weight_exactly(weights):
    servers = dict(zip((A, B, C, D), weights, strict=False))
    found = Counter(turns(group_of(servers), 3 * sum(weights)))
    assert found == {NAMES[server]: 3 * weight for server, weight in servers.items()}


def test_least_connections():
    upstreams = group_of([A, B, C], "least_connections")
    for server, count in ((A, 3), (B, 1), (C, 2)):
        for _ in range(count):
            report(upstreams, 0, server, "opened")
    assert turns(upstreams, 1) == [NAMES[B]]
    report(upstreams, 0, B, "opened")
    report(upstreams, 0, C, "closed")
    assert turns(upstreams, 1) == [NAMES[C]]


def test_least_connections_by_weight():
    """Three under way of a server with weight 4 are fewer than one of a server with weight 1."""
    upstreams = group_of({A: 4, B: 1}, "least_connections")
    for _ in range(2):
        report(upstreams, 0, A, "opened")
    report(upstreams, 0, B, "opened")
    assert turns(upstreams, 1) == [NAMES[A]]


def test_equals_take_turns():
    assert set(turns(group_of([A, B, C], "least_connections"), 3)) == set(map(NAMES.get, (A, B, C)))


# --- hashing


def test_a_key_stays_with_its_server():
    one, other = (picks(group_of([A, B, C], "ticket_hash"), 0, KEYS) for _ in range(2))
    assert one == other
    assert all(1700 < count < 2300 for count in Counter(one).values())


def test_every_gateway_draws_alike_whatever_the_order_in_the_file():
    assert picks(group_of([A, B, C], "ip_hash"), 0, KEYS) == picks(group_of([C, A, B], "ip_hash"), 0, KEYS)


def test_a_server_that_goes_gives_away_its_own_keys_only():
    upstreams = group_of([A, B, C], "ticket_hash")
    before = picks(upstreams, 0, KEYS)
    upstreams.set_servers(0, [(A, 1), (C, 1)])
    after = picks(upstreams, 0, KEYS)
    assert all(b == a for b, a in zip(before, after, strict=True) if b != NAMES[B])
    assert {a for b, a in zip(before, after, strict=True) if b == NAMES[B]} == {NAMES[A], NAMES[C]}


def test_a_server_that_comes_takes_its_share_only():
    upstreams = group_of([A, B], "ticket_hash")
    before = picks(upstreams, 0, KEYS)
    upstreams.set_servers(0, [(A, 1), (B, 1), (C, 1)])
    after = picks(upstreams, 0, KEYS)
    moved = [a for b, a in zip(before, after, strict=True) if b != a]
    assert set(moved) == {NAMES[C]}
    assert 1700 < len(moved) < 2300


def test_keys_are_shared_by_weight():
    found = Counter(picks(group_of({A: 3, B: 1}, "ticket_hash"), 0, KEYS))
    assert 4300 < found[NAMES[A]] < 4700


def test_a_key_whose_server_is_down_goes_to_another_and_comes_back():
    upstreams = group_of([A, B, C], "ticket_hash")
    before = picks(upstreams, 0, KEYS)
    report(upstreams, 0, B, "failed")
    during = picks(upstreams, 0, KEYS)
    assert NAMES[B] not in during
    assert all(b == d for b, d in zip(before, during, strict=True) if b != NAMES[B])
    assert picks(upstreams, 0, KEYS, now_ms=5_000) == before


def test_a_key_whose_server_is_busy_waits_for_it():
    upstreams = group_of([A, B], "ticket_hash", connections_max=1)
    key = next(key for key in KEYS if picks(upstreams, 0, [key]) == [NAMES[A]])
    report(upstreams, 0, A, "opened")
    assert picks(upstreams, 0, [key]) == [None]
    assert picks(upstreams, 0, [0]) == [NAMES[B]]


# --- who is down


def test_a_server_that_refuses_is_left_alone_for_longer_each_time():
    upstreams = group_of([A, B])
    now_ms = 1
    for pause_ms in (1000, 2000, 3000, *[10_000] * 0):
        report(upstreams, 0, A, "failed", now_ms)
        assert set(turns(upstreams, 4, now_ms + pause_ms - 1)) == {NAMES[B]}
        assert NAMES[A] in turns(upstreams, 4, now_ms + pause_ms)
        now_ms += pause_ms


def test_a_server_that_was_reached_begins_anew():
    """Neither the pauses of an old trouble nor its faults are added to a new one."""
    upstreams = group_of([A, B], slow_return_ms=0)
    for _ in range(5):
        report(upstreams, 0, A, "failed")
    report(upstreams, 0, A, "connected", 100)
    assert NAMES[A] in turns(upstreams, 4, 100)
    report(upstreams, 0, A, "failed", 200)
    assert set(turns(upstreams, 4, 1199)) == {NAMES[B]}
    assert NAMES[A] in turns(upstreams, 4, 1200)


def test_a_server_that_failed_is_down_until_it_takes_a_connection():
    """And is to be knocked at whenever its pause is over."""
    upstreams = group_of([A, B])

    def state(now_ms):
        return upstreams.state(now_ms)[0]["state"]

    assert upstreams.unreached(0, 10_000, 1) == []
    report(upstreams, 0, A, "failed", 1)
    assert (upstreams.unreached(0, 0, 1000), upstreams.unreached(0, 0, 1001)) == ([], [A])
    assert upstreams.unreached(0, 250, 751) == [A]
    assert state(60_000) == "down"  # nobody has tried it
    upstreams.knocked(0, A, errno.ECONNREFUSED, 1001)
    assert (upstreams.unreached(0, 0, 3000), upstreams.unreached(0, 0, 3001)) == ([], [A])
    assert turns(upstreams, 4, 3000) == [NAMES[B]] * 4
    upstreams.knocked(0, A, 0, 3001)
    assert (state(3001), upstreams.unreached(0, 10_000, 3001)) == ("up", [])
    upstreams.knocked(0, ("127.0.0.1", 99), errno.ECONNREFUSED)  # of a server that has left meanwhile


def test_a_knock_that_took_too_long_says_nothing_of_a_server_that_a_request_has_reached_since():
    upstreams = group_of([A, B])
    report(upstreams, 0, A, "failed", 1)
    report(upstreams, 0, A, "connected", 2000)
    upstreams.knocked(0, A, errno.ETIMEDOUT, 2100)
    assert upstreams.state(2100)[0]["state"] == "up"


def test_no_pause_is_longer_than_ten_seconds():
    upstreams = group_of([A, B])
    for _ in range(50):
        report(upstreams, 0, A, "failed")
    assert set(turns(upstreams, 4, 10_000)) == {NAMES[B]}
    assert NAMES[A] in turns(upstreams, 4, 10_001)


def test_three_faults_count_once():
    """A server that comes back after its pause has three failures left again."""
    upstreams = group_of([A, B])
    for _ in range(3):
        report(upstreams, 0, A, "faulted")
    for _ in range(2):
        report(upstreams, 0, A, "faulted", 1001)
    assert NAMES[A] in turns(upstreams, 4, 1001)


def test_if_all_are_down_all_are_tried():
    upstreams = group_of([A, B])
    for server in (A, B):
        report(upstreams, 0, server, "failed")
    assert set(turns(upstreams, 4)) == {NAMES[A], NAMES[B]}


def test_one_bad_answer_does_not_put_a_server_aside_but_three_do():
    upstreams = group_of([A, B])
    for _ in range(2):
        report(upstreams, 0, A, "faulted")
    assert NAMES[A] in turns(upstreams, 4)
    report(upstreams, 0, A, "faulted")
    assert set(turns(upstreams, 4)) == {NAMES[B]}


def test_a_health_check_decides_for_itself():
    upstreams = group_of([A, B])
    upstreams.set_health(0, A, False, 1)
    assert set(turns(upstreams, 4, 100_000)) == {NAMES[B]}
    upstreams.set_health(0, A, True, 100_000)
    assert NAMES[A] in turns(upstreams, 100, 105_000)


def test_who_is_well_again_gets_its_share_by_and_by_and_who_was_well_has_it():
    upstreams = group_of([A, B], slow_return_ms=10_000)
    upstreams.set_health(0, A, False, 1)
    upstreams.set_health(0, A, True, 100_000)
    assert Counter(turns(upstreams, 640, 100_100))[NAMES[A]] < 20
    assert 150 < Counter(turns(upstreams, 640, 105_000))[NAMES[A]] < 250
    assert 318 <= Counter(turns(upstreams, 640, 110_000))[NAMES[A]] <= 322
    for server in (A, B):
        upstreams.set_health(0, server, True, 110_001)  # nothing new
    assert 318 <= Counter(turns(upstreams, 640, 110_001))[NAMES[A]] <= 322


def test_who_comes_back_gets_its_share_by_and_by():
    upstreams = group_of([A, B], slow_return_ms=10_000)
    report(upstreams, 0, A, "failed", 1)
    report(upstreams, 0, A, "connected", 2_000)
    shares = [Counter(turns(upstreams, 640, now_ms))[NAMES[A]] for now_ms in (2_100, 4_500, 7_000, 12_000)]
    assert shares == sorted(shares)
    assert shares[0] < 20
    assert 318 <= shares[-1] <= 322


# --- changes


def test_a_server_that_stays_keeps_what_is_known_of_it():
    upstreams = group_of([A, B])
    report(upstreams, 0, A, "failed")
    upstreams.set_servers(0, [(A, 1), (C, 1)])
    assert set(turns(upstreams, 4)) == {NAMES[C]}


@pytest.mark.parametrize(
    "servers", [[], [(A, 0)], [(A, 1001)], [(A, 1), ("x" * 200, 1)], [(A, 1), (("name.example", 1), 1)]]
)
def test_what_can_not_be_changes_nothing(servers):
    upstreams = group_of([A, B])
    with pytest.raises(ValueError, match=r"weight|servers|path|numeric"):
        upstreams.set_servers(0, servers)
    assert set(turns(upstreams, 4)) == {NAMES[A], NAMES[B]}


def test_slots_of_servers_that_went_are_used_again():
    upstreams = group_of([A])
    for number in range(5_000):
        upstreams.set_servers(0, [((f"10.1.{number // 250}.{number % 250}", 1), 1)])
    assert turns(upstreams, 1) == ["10.1.19.249:1"]


def test_a_server_that_went_keeps_its_slot_until_its_last_connection_ends():
    upstreams = group_of([A, B])
    report(upstreams, 0, A, "opened")
    upstreams.set_servers(0, [(B, 1)])
    assert [state["server"] for state in upstreams.state(1)] == [NAMES[B]]
    upstreams.set_servers(0, [(B, 1), (C, 1)])
    assert [state["active"] for state in upstreams.state(1)] == [0, 0]
