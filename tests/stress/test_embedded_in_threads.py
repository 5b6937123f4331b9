"""A program's own threads on one embedded cache: `fastticket.sync`, and the classes of the core.

With a GIL they take turns. Where there is none (3.13t, 3.14t: `make versions`) they are at it at
the same time, and the interpreter is not to switch the GIL on for our modules.
"""

import itertools
import os
import random
import sys
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastticket.core.check import Checker, Session
from fastticket.core.nearcache import NearCache
from fastticket.core.ticket import Keyring
from fastticket.errors import TicketRefused, Verdict
from fastticket.stores import open_store
from fastticket.sync import TicketCache

DURATION_S = float(os.environ.get("FASTTICKET_STRESS_S", "1"))
ROUNDS = 30
THREADS = 4
HAS_NO_GIL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def steps():
    """Numbers, for as long as a run goes on."""
    ends_s = time.monotonic() + DURATION_S
    return itertools.takewhile(lambda _: time.monotonic() < ends_s, itertools.count())


def in_threads(work):
    """Call `work(number)` in each of the threads at once; what it raises fails the test."""
    begin = threading.Barrier(THREADS)

    def run(number):
        begin.wait()
        work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(run, number) for number in range(THREADS)]:
            done.result()


@pytest.fixture
def cache(tmp_path):
    with TicketCache(
        open_store(f"sqlite:///{tmp_path / 'sessions.db'}"),
        Keyring.generate(),
        idle_timeout_s=600,
        absolute_lifetime_s=3600,
        capacity=200,
        flush_interval_ms=20,
    ) as opened:
        yield opened


@pytest.mark.skipif(not HAS_NO_GIL, reason="of an interpreter without a GIL")
def test_our_modules_do_not_switch_the_gil_on():
    assert not sys._is_gil_enabled()


def test_sessions_begin_and_end_in_many_threads(cache):
    shared = [cache.login(f"shared{number}") for number in range(5)]

    def work(number):
        mine = {}
        for step in steps():
            if step % 10 == 0:
                mine[cache.login(f"user{number}.{step}")] = f"user{number}.{step}"
            for ticket, principal in mine.items():
                assert cache.authenticate(ticket).principal == principal
            assert all(cache.authenticate(ticket).principal.startswith("shared") for ticket in shared)
            if len(mine) > 5:
                ended, _ = mine.popitem()
                assert cache.logout(ended)
                assert not cache.check(ended)
                with pytest.raises(TicketRefused):
                    cache.authenticate(ended)

    in_threads(work)
    assert cache.stats["hits"] > 0


def test_a_session_that_one_thread_ends_no_thread_admits(cache):
    rounds = [cache.login("alice") for _ in range(ROUNDS)]
    ended = [threading.Event() for _ in rounds]

    def work(number):
        for ticket, is_ended in zip(rounds, ended, strict=True):
            if number == 0:
                cache.authenticate(ticket)
                cache.logout(ticket)
                is_ended.set()
            while not is_ended.is_set():
                cache.check(ticket)
            assert not cache.check(ticket)

    in_threads(work)


def test_a_checker_and_its_keys_are_for_all_threads():
    """One thread changes sessions and keys, as a cache's own thread does; all others check."""
    secrets = {number: bytes([number]) * 32 for number in (1, 2)}
    keys = Keyring(list(secrets.items()))
    near = NearCache(50, 1)
    near.share()
    checker = Checker(keys, near)
    now_ms = checker.now_ms()
    near.renew_lease(0, now_ms + 3_600_000)
    tickets = [keys.mint(f"user{number}", now_ms, 600) for number in range(100)]
    raws = [keys.verify(ticket, now_ms).raw for ticket in tickets]
    is_over = threading.Event()

    def change():
        for step in steps():
            near.insert(raws[step % len(raws)], 0, now_ms + 600_000, checker.now_ms())
            if step % 50 == 0:
                keys.replace([(2, secrets[2])])
                keys.replace(list(secrets.items()))
                taken = {}
                near.take(taken, 1000, 100)
                for touches in itertools.chain.from_iterable(taken.values()):
                    near.acknowledge(touches)

    def check(number):
        order = random.Random(number)
        while not is_over.is_set():
            place = order.randrange(len(tickets))
            found = checker.check(tickets[place])
            if isinstance(found, Session):
                assert found.principal == f"user{place}"
            else:
                assert found is Verdict.MISS
            assert keys.verify(tickets[place], now_ms).principal == f"user{place}"
            assert keys.verify(keys.mint("bob", now_ms), now_ms).principal == "bob"

    def work(number):
        if number:
            check(number)
        else:
            try:
                change()
            finally:
                is_over.set()

    in_threads(work)
    assert near.hits > 0
