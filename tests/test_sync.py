"""fastticket.sync: the ticket cache from threads, and in processes that fork and end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fastticket
from fastticket.errors import StoreUnavailable, TicketRefused, Verdict
from fastticket.sync import TicketCache

BOUND_S = 30.0
KEYS = [(1, b"k" * 32)]


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:////{tmp_path}/tickets.db"


def opened(url: str, **settings: object) -> TicketCache:
    return TicketCache(fastticket.open_store(url), fastticket.Keyring(KEYS), **settings)


def run(program: str, url: str) -> str:
    """What a Python program prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# --- what it does


def test_it_does_what_the_asynchronous_one_does(url):
    with opened(url, near_attributes_bytes=100_000) as cache:
        ticket = cache.login("alice", details={"address": "192.0.2.7"})
        session = cache.authenticate(ticket)
        assert session.principal == "alice"
        assert cache.check(ticket)
        assert cache.authenticate(ticket, consistency="strong")
        [info] = cache.sessions("alice")
        assert (info.id, dict(info.details)) == (session.id, {"address": "192.0.2.7"})
        rotated = cache.rotate(ticket, idle_timeout_s=600)
        assert cache.check(ticket) is Verdict.REVOKED
        assert cache.logout(rotated)
        with pytest.raises(TicketRefused, match="revoked"):
            cache.authenticate(rotated)
        kept, other, last = [cache.login("alice", remember=True) for _ in range(3)]
        assert cache.revoke(cache.authenticate(other).id, "alice")
        assert cache.logout_everywhere("alice", keep=cache.authenticate(kept)) == 1
        assert cache.authenticate(kept)
        with pytest.raises(TicketRefused):
            cache.authenticate(last)
        assert cache.stats["loads"] >= 3


def test_events_are_iterated_by_a_thread(url):
    with opened(url) as cache, opened(url) as other, ThreadPoolExecutor() as threads:
        events = cache.events()
        told = threads.submit(lambda: [next(events) for _ in range(3)])
        for name in ("alice", "bob", "carol"):
            other.login(name)
        told = told.result(BOUND_S)
        assert [event.principal for event in told] == ["alice", "bob", "carol"]
        assert next(cache.events(told[0].position)) == told[1]


def test_attributes_are_read_when_they_are_looked_at_and_written_when_they_changed(url):
    with opened(url) as cache, opened(url) as other:
        session = cache.authenticate(cache.login("alice"))
        with cache.attributes(session) as attributes:
            attributes["cart"] = ["tea"]
            assert not attributes.is_loaded
        with other.attributes(session) as attributes:
            assert attributes["cart"] == ["tea"]
            attributes["cart"].append("milk")
        assert dict(cache.attributes(session)) == {"cart": ["tea", "milk"]}
        untouched = cache.attributes(session)
        assert not untouched.save()
        assert not untouched.is_loaded
        with pytest.raises(ZeroDivisionError), cache.attributes(session) as attributes:
            attributes["cart"] = 1 / 0
        cache.logout_everywhere("alice")
        with pytest.raises(TicketRefused, match="revoked"):
            dict(other.attributes(session))


# --- threads


def test_threads_share_one_near_cache_and_lose_no_touch(url):
    """Each of many threads uses sessions of its own and one of all; in the end the store knows every use."""
    with opened(url) as cache:
        common = cache.login("common")
        tickets = [[cache.login(f"user{n}") for _ in range(10)] for n in range(8)]

        def use(mine: list[str]) -> int:
            good = 0
            for _ in range(300):
                for ticket in (*mine, common):
                    good += cache.authenticate(ticket).principal in ("common", f"user{tickets.index(mine)}")
            return good

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(use, tickets)) == [300 * 11] * 8
        deadlines_ms = {t: cache.authenticate(t, touch=False).idle_deadline_ms for mine in tickets for t in mine}
    with opened(url) as after:
        assert {t: after.authenticate(t, touch=False).idle_deadline_ms for t in deadlines_ms} == deadlines_ms


def test_a_revocation_is_seen_by_every_thread_at_once(url):
    with opened(url) as cache, ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            ticket = cache.login("alice")
            cache.authenticate(ticket)
            is_over = threading.Event()

            def ask(ticket: str = ticket, is_over: threading.Event = is_over) -> int:
                """How often it was admitted after the logout had returned."""
                late = 0
                while True:
                    was_over = is_over.is_set()
                    verdict = cache.check(ticket)
                    if was_over:
                        return late + bool(verdict)

            asking = [threads.submit(ask) for _ in range(4)]
            cache.logout(ticket)
            is_over.set()
            assert [each.result(BOUND_S) for each in asking] == [0] * 4


def test_threads_that_change_different_attributes_lose_none(url):
    with opened(url, near_attributes_bytes=100_000) as cache, ThreadPoolExecutor(8) as threads:
        session = cache.authenticate(cache.login("alice"))

        def change(name: str) -> None:
            for number in range(10):
                with cache.attributes(session) as attributes:
                    assert attributes.get(name, 0) == number
                    attributes[name] = number + 1

        list(threads.map(change, "abcdefgh"))
        assert dict(cache.attributes(session)) == dict.fromkeys("abcdefgh", 10)


def test_a_check_hops_to_no_other_thread(url):
    """The loop stands still, and checks go on."""
    with opened(url) as cache:
        ticket = cache.login("alice")
        cache.authenticate(ticket)
        go_on, stands = threading.Event(), threading.Event()

        def stand() -> None:
            stands.set()
            go_on.wait(BOUND_S)

        cache._running_loop().call_soon_threadsafe(stand)
        assert stands.wait(BOUND_S)
        assert cache.check(ticket)
        assert cache.authenticate(ticket).principal == "alice"
        go_on.set()


# --- opening and closing


def test_it_opens_itself_and_a_closed_one_says_so(url):
    cache = opened(url)
    cache.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        cache.login("alice")
    cache = opened(url)
    ticket = cache.login("alice")
    cache.close()
    cache.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        cache.logout(ticket)
    assert cache.check(ticket) is Verdict.MISS


def test_a_store_that_can_not_be_opened_can_be_tried_again(tmp_path):
    cache = opened(f"sqlite:////{tmp_path}/not/there.db")
    for _ in range(2):
        with pytest.raises(fastticket.ConfigError, match="does not exist"):
            cache.login("alice")
    (tmp_path / "not").mkdir()
    assert cache.login("alice")
    cache.close()


def test_a_program_that_just_ends_writes_its_touches(url):
    program = """
import sys, fastticket
from fastticket.sync import TicketCache
store, keys = fastticket.open_store(sys.argv[1]), fastticket.Keyring([(1, b"k" * 32)])
cache = TicketCache(store, keys, flush_interval_ms=60_000, lease_ms=120_000)
ticket = cache.login("alice")
cache.authenticate(ticket)
used = cache.authenticate(ticket).idle_deadline_ms
while cache.authenticate(ticket).idle_deadline_ms == used:
    pass
print(ticket, cache.authenticate(ticket).idle_deadline_ms, cache.stats["touches_unwritten"])
"""
    ticket, deadline_ms, unwritten = run(program, url).split()
    assert int(unwritten) == 1
    with opened(url) as cache:
        assert cache.authenticate(ticket, touch=False).idle_deadline_ms >= int(deadline_ms)


def test_made_before_a_fork_it_opens_in_the_child_and_opened_before_it_says_so(url):
    program = """
import os, sys, fastticket
from fastticket.sync import TicketCache
def in_child(what):
    pid = os.fork()
    if not pid:
        try:
            what()
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(pid, 0)
cache = TicketCache(fastticket.open_store(sys.argv[1]), fastticket.Keyring([(1, b"k" * 32)]))
def use():
    print(cache.authenticate(cache.login("alice")).principal, flush=True)
    cache.close()
in_child(use)
use_here = cache.login("bob")
def misuse():
    try:
        cache.login("carol")
    except RuntimeError as error:
        print(error, flush=True)
    cache.close()
in_child(misuse)
print(cache.authenticate(use_here).principal)
"""
    first, second, third = run(program, url).splitlines()
    assert first == "alice"
    assert second.startswith("the ticket cache was opened before this process was forked")
    assert third == "bob"


def test_it_runs_beside_an_event_loop_of_the_callers(url):
    async def main() -> str:
        with opened(url) as cache:
            return cache.authenticate(cache.login("alice")).principal

    assert asyncio.run(main()) == "alice"


def test_the_package_does_not_need_it():
    """Whoever has an event loop gets no thread."""
    code = "import sys, fastticket; print('fastticket.sync' in sys.modules)"
    assert run(code, "") == "False\n"
    assert Path(fastticket.__file__).with_name("sync.py").exists()
