"""fastticket.sync: the ticket cache from threads, and in processes that fork and end."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fastticket
import fastticket.sync
from fastticket.errors import CacheClosed, StoreUnavailable, TicketRefused, Verdict
from fastticket.sync import TicketCache

BOUND_S = 30.0
KEYS = [(1, b"k" * 32)]


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:////{tmp_path}/tickets.db"


def opened(url: str, **settings: object) -> TicketCache:
    return TicketCache(fastticket.open_store(url), fastticket.Keyring(KEYS), **settings)


def run(program: str, url: str) -> str:
    """The output of a Python program, which must end with exit code 0."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=3 * BOUND_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def threads_of_caches() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "fastticket"}


class Clock:
    """Monotonic, in ms; goes on when it is told to."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


#: Nothing is written by itself while a test runs.
UNFLUSHED = {"flush_interval_ms": 60_000, "lease_ms": 120_000}

#: For programs: a cache with a touch that is not written yet, and a closing that says when it
#: begins and waits for `go_on`.
PROGRAM = """
import asyncio, signal, sys, threading, fastticket
from fastticket.errors import StoreUnavailable
from fastticket.sync import TicketCache
store, keys = fastticket.open_store(sys.argv[1]), fastticket.Keyring([(1, b"k" * 32)])
now_ms = 1_000_000
cache = TicketCache(store, keys, flush_interval_ms=60_000, lease_ms=120_000, clock=lambda: now_ms)
go_on = threading.Event()
class Interrupted(Exception):
    pass
def interrupt():
    raise Interrupted
heard = threading.Event()
def on_signal(handle):
    def once(*_):
        if not heard.is_set():
            heard.set()
            handle()
    signal.signal(signal.SIGTERM, once)
async def signal_main_thread():
    # Again, until it is heard: one that comes just before a thread blocks waits for as long as the thread does.
    while not heard.is_set():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
        await asyncio.sleep(0.01)  # not in the loop's executor, which would need a new thread when the program ends
def touch():
    global now_ms
    ticket = cache.login("alice")
    cache.authenticate(ticket)
    now_ms += 1000
    cache.authenticate(ticket)
    assert cache.stats["touches_unwritten"] == 1
def signal_when_it_closes():
    aclose = cache._cache.aclose
    async def signalled():
        await signal_main_thread()
        await asyncio.to_thread(go_on.wait, 20)
        await aclose()
    cache._cache.aclose = signalled
def are_threads_gone():
    return not [thread for thread in threading.enumerate() if thread.name == "fastticket"]
"""


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
        assert cache.stats["loads"] >= 1  # the strong one


def test_events_are_iterated_by_a_thread(url):
    with opened(url) as cache, opened(url) as other, ThreadPoolExecutor() as threads:
        events = cache.events()
        told = threads.submit(lambda: [next(events) for _ in range(3)])
        for name in ("alice", "bob", "carol"):
            other.login(name)
        told = told.result(BOUND_S)
        assert [event.principal for event in told] == ["alice", "bob", "carol"]
        assert next(cache.events(told[0].position)) == told[1]


def test_events_begin_when_they_are_asked_for_and_not_with_the_first_look(url):
    with ThreadPoolExecutor() as threads, opened(url) as cache, opened(url) as other:
        events = cache.events()
        other.login("alice")
        assert threads.submit(next, events).result(BOUND_S).principal == "alice"


def test_strong_asks_the_store_for_a_session_that_is_held(url):
    with opened(url, **UNFLUSHED) as cache:
        ticket = cache.login("alice")
        cache.authenticate(ticket)
        loads = cache.stats["loads"]
        cache.authenticate(ticket)
        assert cache.stats["loads"] == loads
        cache.authenticate(ticket, consistency="strong")
        assert cache.stats["loads"] == loads + 1


@pytest.mark.parametrize("consistency", ["near", "strong"])
def test_without_touch_it_is_no_use(url, consistency):
    clock = Clock()
    with opened(url, clock=clock, **UNFLUSHED) as cache, opened(url, clock=clock, **UNFLUSHED) as other:
        ticket = cache.login("alice")
        before_ms = cache.authenticate(ticket, touch=False).idle_deadline_ms
        clock.now_ms += 1000
        for each in (cache, other):  # held, and loaded
            assert each.authenticate(ticket, touch=False, consistency=consistency).idle_deadline_ms == before_ms
            assert each.stats["touches_unwritten"] == 0
            assert each.authenticate(ticket, consistency=consistency).idle_deadline_ms > before_ms
            assert each.stats["touches_unwritten"] == 1


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


def test_p11_who_has_seen_a_later_version_is_not_shown_a_near_copy(url):
    near = {"near_attributes_bytes": 100_000, **UNFLUSHED}
    with opened(url, **near) as cache, opened(url, **near) as other:
        cache._cache._store.on_doorbell(lambda *_: None)
        session = cache.authenticate(cache.login("alice"))
        assert dict(cache.attributes(session)) == {}
        with other.attributes(session) as changed:
            changed["cart"] = ["tea"]
        assert dict(cache.attributes(session)) == {}
        for _ in range(2):
            seen = cache.attributes(session, seen=changed.version)
            assert (dict(seen), seen.version) == ({"cart": ["tea"]}, changed.version)


# --- threads


def test_threads_share_one_near_cache_and_lose_no_touch(url):
    """Each of many threads uses sessions of its own and one of all; in the end the store knows
    every use.
    """
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

        cache._thread()._loop.call_soon_threadsafe(stand)
        assert stands.wait(BOUND_S)
        assert cache.check(ticket)
        assert cache.authenticate(ticket).principal == "alice"
        go_on.set()


def test_a_near_copy_of_attributes_hops_to_no_other_thread(url):
    with ThreadPoolExecutor() as threads, opened(url, near_attributes_bytes=100_000) as cache:
        session = cache.authenticate(cache.login("alice"))
        with cache.attributes(session) as attributes:
            attributes["cart"] = ["tea"]
        assert dict(cache.attributes(session)) == {"cart": ["tea"]}
        go_on = threading.Event()
        cache._thread()._loop.call_soon_threadsafe(go_on.wait, BOUND_S)
        try:
            assert threads.submit(dict, cache.attributes(session)).result(5) == {"cart": ["tea"]}
        finally:
            go_on.set()


def test_a_callback_in_the_caches_own_thread_can_not_call_it(url):
    program = """
for call in (lambda: cache.sessions("alice"), cache.close):
    try:
        cache.login("alice", suits=lambda ticket: call())
    except RuntimeError as error:
        print(error)
print(len(cache.sessions("alice")))
"""
    first, second, sessions = run(PROGRAM + program, url).splitlines()
    assert first == second
    assert first.startswith("a callback of the ticket cache, such as `suits`, runs in the cache's own thread")
    assert sessions == "0"


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
    with pytest.raises(StoreUnavailable, match="closed"):
        cache.authenticate(ticket, consistency="strong")


def test_a_store_that_can_not_be_opened_can_be_tried_again(tmp_path):
    cache = opened(f"sqlite:////{tmp_path}/not/there.db")
    for _ in range(2):
        with pytest.raises(fastticket.ConfigError, match="does not exist"):
            cache.login("alice")
    (tmp_path / "not").mkdir()
    assert cache.login("alice")
    cache.close()


def test_a_store_that_can_not_be_opened_leaves_no_thread(tmp_path):
    before = threads_of_caches()
    started = []

    class Started(fastticket.sync.CacheThread):
        def _live(self) -> None:
            started.append(self._thread)
            super()._live()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastticket.sync, "CacheThread", Started)
        with pytest.raises(fastticket.ConfigError):
            opened(f"sqlite:////{tmp_path}/not/there.db").open()
    [thread] = started
    thread.join(BOUND_S)
    assert threads_of_caches() <= before


def test_closing_writes_the_touches_and_then_ends_what_is_pending(url):
    clock = Clock()
    cache = opened(url, clock=clock, **UNFLUSHED)
    has_begun, unwritten = threading.Event(), []

    async def never() -> None:
        has_begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            unwritten.append(cache.stats["touches_unwritten"])

    with ThreadPoolExecutor() as threads:
        events = cache.events()
        pending = [threads.submit(cache._run, never), threads.submit(next, events)]
        assert has_begun.wait(BOUND_S)
        ticket = cache.login("alice")
        assert pending[1].result(BOUND_S).principal == "alice"
        pending[1] = threads.submit(next, events)
        cache.authenticate(ticket)
        clock.now_ms += 1000
        cache.authenticate(ticket)
        assert cache.stats["touches_unwritten"] == 1
        cache.close()
        for each in pending:
            with pytest.raises(StoreUnavailable, match="the ticket cache is closed"):
                each.result(BOUND_S)
    assert unwritten == [0]


def test_a_call_is_refused_as_soon_as_closing_has_begun(url):
    cache = opened(url)
    cache.open()
    has_begun, go_on = threading.Event(), threading.Event()
    aclose = cache._cache.aclose

    async def slow() -> None:
        has_begun.set()
        await asyncio.to_thread(go_on.wait, BOUND_S)
        await aclose()

    cache._cache.aclose = slow
    with ThreadPoolExecutor() as threads:
        closing = threads.submit(cache.close)
        assert has_begun.wait(BOUND_S)
        try:
            with pytest.raises(StoreUnavailable, match="closed"):
                cache.login("alice")
        finally:
            go_on.set()
        closing.result(BOUND_S)


def test_a_closed_cache_is_kept_alive_by_nothing(url):
    cache = opened(url)
    cache.login("alice")
    inner = weakref.ref(cache._cache)
    cache.close()
    outer = weakref.ref(cache)
    del cache
    gc.collect()
    assert (outer(), inner()) == (None, None)


def test_whoever_starts_a_second_thread_takes_the_first(url, monkeypatch):
    """Between the look whether there is one and its own, another thread, or a signal handler, has
    opened the cache.
    """
    cache = opened(url)
    made = []

    class Late(fastticket.sync.CacheThread):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            made.append(self)
            if len(made) == 1:
                cache.open()

    monkeypatch.setattr(fastticket.sync, "CacheThread", Late)
    ticket = cache.login("alice")
    assert [each._thread.is_alive() for each in made] == [False, True]
    assert cache.authenticate(ticket)
    cache.close()
    assert not made[1]._thread.is_alive()


def test_a_cache_that_is_closed_while_its_thread_starts_stays_closed(url, monkeypatch):
    cache = opened(url)
    made = []

    class Late(fastticket.sync.CacheThread):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            made.append(self._thread)
            cache.close()

    monkeypatch.setattr(fastticket.sync, "CacheThread", Late)
    with pytest.raises(StoreUnavailable, match="closed"):
        cache.login("alice")
    assert not made[0].is_alive()


def test_a_thread_that_is_told_to_end_before_it_has_begun_ends(url, monkeypatch):
    class Slow(fastticket.sync.CacheThread):
        def _live(self) -> None:
            self._post(self._end)
            super()._live()

    monkeypatch.setattr(fastticket.sync, "CacheThread", Slow)
    with ThreadPoolExecutor() as threads, pytest.raises(StoreUnavailable, match="closed"):
        threads.submit(opened(url).login, "alice").result(BOUND_S)


# --- signals, and the end of the program


def test_a_signal_handler_may_close_while_the_cache_is_closed(url):
    program = """
def close():
    go_on.set()
    cache.close()
    print("handled", cache.stats["touches_unwritten"], are_threads_gone())
on_signal(close)
touch()
signal_when_it_closes()
cache.close()
print("closed")
"""
    assert run(PROGRAM + program, url) == "handled 0 True\nclosed\n"


def test_a_signal_handler_may_close_while_the_cache_is_opened(url):
    """The store does not answer: closing does not wait for it."""
    program = """
def close():
    cache.close()
    print("handled", are_threads_gone())
on_signal(close)
async def never():
    await signal_main_thread()
    await asyncio.Event().wait()
store.open = never
try:
    cache.open()
except StoreUnavailable as error:
    print(error)
"""
    assert run(PROGRAM + program, url) == f"handled True\n{CacheClosed()}\n"


def test_closing_goes_on_when_who_waits_for_it_is_interrupted(url):
    program = """
on_signal(interrupt)
touch()
signal_when_it_closes()
try:
    cache.close()
except Interrupted:
    print("interrupted", cache.stats["touches_unwritten"])
go_on.set()
cache.close()
print("closed", cache.stats["touches_unwritten"], are_threads_gone())
"""
    assert run(PROGRAM + program, url) == "interrupted 1\nclosed 0 True\n"


def test_a_call_is_cancelled_when_who_waits_for_it_is_interrupted(url):
    program = """
on_signal(interrupt)
async def never():
    try:
        await signal_main_thread()
        await asyncio.Event().wait()
    finally:
        go_on.set()
try:
    cache._run(never)
except Interrupted:
    print("interrupted", go_on.wait(20))
print(cache.sessions("alice"))
"""
    assert run(PROGRAM + program, url) == "interrupted True\n[]\n"


def test_a_thread_that_follows_the_events_does_not_keep_a_program_from_ending(url):
    program = """
events = cache.events()
def follow():
    try:
        for event in events:
            go_on.set()
    except StoreUnavailable as error:
        print(error)
threading.Thread(target=follow).start()
cache.login("alice")
go_on.wait(20)
"""
    assert run(PROGRAM + program, url) == f"{CacheClosed()}\n"


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


def test_green_threads_are_refused(url, monkeypatch):
    """They would stop the worker for good."""
    patched = types.ModuleType("gevent.monkey")
    patched.is_module_patched = lambda name: name == "threading"
    monkeypatch.setitem(sys.modules, "gevent.monkey", patched)
    with pytest.raises(fastticket.ConfigError, match="gthread"):
        opened(url).login("alice")


def test_it_runs_beside_an_event_loop_of_the_callers(url):
    async def main() -> str:
        with opened(url) as cache:
            return cache.authenticate(cache.login("alice")).principal

    assert asyncio.run(main()) == "alice"


def test_the_package_does_not_need_it():
    """A program with an event loop of its own gets no thread."""
    code = "import sys, fastticket; print('fastticket.sync' in sys.modules)"
    assert run(code, "") == "False\n"
    assert Path(fastticket.__file__).with_name("sync.py").exists()
