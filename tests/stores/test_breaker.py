"""The circuit breaker, in virtual time."""

import pytest

from fastticket.gateway.settings import StoreSettings
from fastticket.stores.redis.breaker import BACKOFF_FIRST_S, BACKOFF_MAX_S, Breaker


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s

    def pass_s(self, seconds):
        self.now_s += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(clock, jitter=lambda: 1.0)


def test_closed_lets_every_call_through(breaker):
    assert breaker.state == "closed"
    assert all(breaker.admit() for _ in range(10))
    assert not breaker.succeeded()


def test_a_failure_opens_it_for_the_back_off(breaker, clock):
    assert breaker.admit()
    assert breaker.failed()
    assert breaker.state == "open"
    assert not breaker.admit()
    clock.pass_s(BACKOFF_FIRST_S - 0.001)
    assert not breaker.admit()
    clock.pass_s(0.001)
    assert breaker.state == "half-open"


def test_half_open_lets_one_call_through_and_its_outcome_decides(breaker, clock):
    breaker.admit()
    breaker.failed()
    clock.pass_s(BACKOFF_FIRST_S)
    assert [breaker.admit() for _ in range(3)] == [True, False, False]
    assert not breaker.failed()
    assert not breaker.admit()
    clock.pass_s(2 * BACKOFF_FIRST_S)
    assert breaker.admit()
    assert breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.admit()
    assert breaker.admit()


def test_a_store_that_is_back_is_asked_within_a_lease():
    """P2: what it was told as soon as it was back is known everywhere a lease later. It is asked
    with the first flush after the back-off, and if another question was let through, for another
    shard, with the next one.
    """
    defaults = StoreSettings()
    assert BACKOFF_MAX_S * 1000 + 2 * defaults.flush_interval_ms < defaults.lease_ms


def test_the_back_off_doubles_up_to_its_bound_and_starts_over(breaker, clock):
    waits_s = []
    breaker.admit()
    breaker.failed()
    for _ in range(10):
        since_s = clock.now_s
        while not breaker.admit():
            clock.pass_s(BACKOFF_FIRST_S / 10)
        waits_s.append(clock.now_s - since_s)
        breaker.failed()
    assert waits_s[:3] == pytest.approx(
        [BACKOFF_FIRST_S, 2 * BACKOFF_FIRST_S, 4 * BACKOFF_FIRST_S], abs=BACKOFF_FIRST_S / 5
    )
    assert waits_s[-1] == pytest.approx(BACKOFF_MAX_S, abs=BACKOFF_FIRST_S / 5)
    clock.pass_s(BACKOFF_MAX_S)
    breaker.admit()
    breaker.succeeded()
    breaker.admit()
    breaker.failed()
    clock.pass_s(BACKOFF_FIRST_S)
    assert breaker.admit()


def test_calls_that_were_under_way_together_count_as_one_failure(breaker, clock):
    for _ in range(8):
        assert breaker.admit()
    assert [breaker.failed() for _ in range(8)] == [True, *[False] * 7]
    clock.pass_s(BACKOFF_FIRST_S)
    assert breaker.admit()


def test_a_cancelled_probe_lets_another_one_through(breaker, clock):
    breaker.admit()
    breaker.failed()
    clock.pass_s(BACKOFF_FIRST_S)
    assert breaker.admit()
    breaker.gave_up()
    assert breaker.admit()


def test_the_back_off_is_jittered(clock):
    jitters = iter([0.5, 0.5])
    breaker = Breaker(clock, lambda: next(jitters))
    breaker.admit()
    breaker.failed()
    clock.pass_s(BACKOFF_FIRST_S / 2)
    assert breaker.admit()
