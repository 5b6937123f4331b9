"""What may be believed, and until when: the decisions by themselves, and a gateway that sleeps,
stalls, or is alone with a slow store.

Virtual time, as in test_cache.py; a machine that is suspended is a clock that jumps while no timer
runs. tests/model explores the same decisions in every interleaving.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab.model_store import in_virtual_time, is_load, pass_ms, settle, virtual_ms
from lab.store_contract import principal_in
from lab.virtual_gateways import (
    CLOCK_MS,
    FLUSH_MS,
    GRACE_MS,
    IDLE_MS,
    LEASE_MS,
    OLD_KEY,
    gateway,
    new_server,
    pass_ms_in_use,
    said_of,
    said_of_each,
    stored_deadline_ms,
)

from fastticket import Keyring
from fastticket.errors import ConfigError, StoreBusy, Verdict
from fastticket.sessions.coherence import (
    CLOCK_JUMP_MS,
    Failure,
    Landing,
    Pulse,
    clock_step,
    credited_until_ms,
    granted_until_ms,
    landing,
    read_tail,
)

# --- the decisions


def test_a_lease_counts_from_the_question_and_is_never_shortened():
    assert granted_until_ms(0, 100, 2000) == 2100
    assert granted_until_ms(5000, 100, 2000) == 5000


CREDIT = Failure(sent_at_ms=1000, failed_at_ms=2000, stalled_at_ms=0, answered_at_ms=500, outage_since_ms=2000)


@pytest.mark.parametrize(
    ("lease_until_ms", "failure", "credited"),
    [
        (2500, CREDIT, 4000),
        (1001, CREDIT, 4000),  # it ran out while the question was under way
        (1000, CREDIT, 1000),  # it had run out when the question was sent
        (0, CREDIT, 0),
        (2500, CREDIT._replace(stalled_at_ms=1500), 2500),
        (2500, CREDIT._replace(stalled_at_ms=1000), 2500),
        (2500, CREDIT._replace(stalled_at_ms=999), 4000),
        (2500, CREDIT._replace(answered_at_ms=1001), 2500),
        (2500, CREDIT._replace(answered_at_ms=1000), 4000),
        (2500, CREDIT._replace(outage_since_ms=-27_500), 2500),  # the grace is over
        (2500, CREDIT._replace(outage_since_ms=-27_000), 3000),
        (4500, CREDIT, 4500),
    ],
)
def test_credit_goes_on_with_a_lease_and_begins_none(lease_until_ms, failure, credited):
    assert credited_until_ms(lease_until_ms, failure, LEASE_MS, GRACE_MS) == credited


def test_no_grace_no_credit():
    assert credited_until_ms(2500, CREDIT, LEASE_MS, 0) == 2500


@pytest.mark.parametrize(
    ("known", "since", "position", "gap", "effect"),
    [
        (None, None, (5, 0), False, ((5, 0), False, False, False)),
        ((7, 0), None, (5, 0), False, ((7, 0), False, False, False)),
        ((5, 0), (5, 0), (6, 0), False, ((6, 0), True, False, False)),
        ((8, 0), (5, 0), (6, 0), False, ((8, 0), True, False, False)),  # overtaken
        ((5, 0), (5, 0), (3, 0), True, ((3, 0), True, True, True)),  # older data
        ((8, 0), (5, 0), (9, 0), True, ((8, 0), False, True, False)),  # an old question
    ],
)
def test_what_a_tail_means(known, since, position, gap, effect):
    assert read_tail(known, since, position, gap) == effect


def test_what_a_load_lands_with():
    """The first of these that holds counts."""
    reasons = {
        "ended": (Verdict.REVOKED, None),
        "has_failed": (True, False),
        "is_poisoned": (True, False),
        "is_keyless": (True, False),
    }
    lands = dict(zip(reasons, [Landing.ENDED, Landing.FAILED, Landing.AGAIN, Landing.KEYLESS], strict=True))
    for chosen in itertools.product([True, False], repeat=len(reasons)):
        known = {name: reasons[name][0 if holds else 1] for name, holds in zip(reasons, chosen, strict=True)}
        holding = [name for name, holds in zip(reasons, chosen, strict=True) if holds]
        for deadline_ms, otherwise in [
            (None, Landing.GONE),
            (90, Landing.IDLE),
            (91, Landing.AGAIN),
            (100, Landing.AGAIN),
            (101, Landing.LIVES),
        ]:
            where = landing(**known, deadline_ms=deadline_ms, asked_ms=90, now_ms=100)
            assert where is (lands[holding[0]] if holding else otherwise)


def test_the_clock_is_followed_in_steps_and_beyond_them_it_jumps():
    assert clock_step(1000, 1003, uncertainty_ms=3) == (0, False)
    assert clock_step(1000, 1004, uncertainty_ms=3) == (4, False)
    assert clock_step(1000, 1000 - CLOCK_JUMP_MS, uncertainty_ms=0) == (-CLOCK_JUMP_MS, False)
    assert clock_step(1000, 1001 + CLOCK_JUMP_MS, uncertainty_ms=0) == (1 + CLOCK_JUMP_MS, True)


def test_a_pulse_notices_a_stall_whoever_is_first_to_look():
    pulse = Pulse(500)
    pulse.beat(10_000)
    assert pulse.stalled_at_ms == 10_000  # nobody knows what was before the start
    for now_ms in range(10_000, 20_000, 250):
        pulse.beat(now_ms)
    assert pulse.stalled_at_ms == 10_000
    pulse.beat(20_250)
    assert pulse.stalled_at_ms == 10_000
    pulse.beat(20_751)
    assert pulse.stalled_at_ms == 20_751


# --- a process that does not run


class Machine:
    """A clock that goes on while nothing of this process runs."""

    def __init__(self):
        self.suspended_ms = 0

    def now_ms(self):
        return virtual_ms() + self.suspended_ms


@in_virtual_time
@pytest.mark.parametrize("stalled_ms", [600, 1500, 5000, 3_600_000])
async def test_p2_a_process_that_stalled_with_an_exchange_in_flight_admits_nobody_on_credit(stalled_ms):
    """1. a flush is sent. 2. the process stops; a session is revoked elsewhere. 3. it goes on, and
    the flush fails.
    """
    server, machine = new_server(), Machine()
    async with gateway(server) as (here, _), gateway(server, clock=machine.now_ms) as (there, store):
        store.wire.is_deaf = True
        tickets = [await here.login(f"user{number}") for number in range(8)]
        await said_of_each(there, tickets)
        gate = store.hold_replies(lambda call: call.name == "exchange")
        await gate.arrival()
        await asyncio.gather(*map(here.logout, tickets))
        machine.suspended_ms += stalled_ms
        store.wire.loses_replies = True
        gate.open()
        await settle()
        store.hold_requests(lambda call: call.name == "exchange")  # what comes next is slow, but no failure
        lease_left_ms = max(0, LEASE_MS - stalled_ms)
        await pass_ms(lease_left_ms)
        for _ in range(20):
            assert not any(there.check(ticket, touch=False) for ticket in tickets)
            await pass_ms(FLUSH_MS // 2)


@in_virtual_time
async def test_p8_a_stall_of_no_consequence_costs_no_credit():
    """The store is away already, and the process is held up for a moment between two flushes."""
    server, machine = new_server(), Machine()
    async with gateway(server, clock=machine.now_ms) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        store.wire.is_down = True
        for _ in range(20):
            await pass_ms(FLUSH_MS)
            machine.suspended_ms += 100
            assert await said_of(cache, ticket) == "alice"


@in_virtual_time
async def test_p2_one_lost_answer_among_others_is_no_outage():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server) as (there, store):
        store.wire.is_deaf = True
        ticket = await here.login(principal_in(0, server.shards))
        await there.authenticate(ticket)
        other = await here.login(principal_in(0, server.shards))
        gate = store.hold_replies(lambda call: call.name == "exchange" and not call.wanted)
        await gate.arrival()
        await pass_ms(10)
        assert await said_of(there, other) == principal_in(0, server.shards)
        answered_ms = virtual_ms()
        await here.logout(ticket)
        store.wire.loses_replies = True
        gate.open()
        await settle()
        store.wire.loses_replies = False
        store.hold_replies(lambda call: call.name == "exchange")
        await pass_ms(LEASE_MS - (virtual_ms() - answered_ms))
        assert there.check(ticket) is Verdict.REFRESH


@in_virtual_time
async def test_p2_a_load_that_took_longer_than_its_lease_admits_nobody_even_where_there_is_no_room():
    server = new_server()
    async with gateway(server) as (here, _), gateway(server, capacity=3) as (there, store):
        store.wire.is_deaf = True
        crowd = [await here.login(principal_in(1, server.shards)) for _ in range(3)]
        ticket = await here.login(principal_in(0, server.shards))
        await said_of_each(there, crowd)
        gate = store.hold_replies(lambda call: len(call.wanted) == 1)
        asking = asyncio.create_task(said_of(there, ticket))
        await gate.arrival()
        await pass_ms(2 * LEASE_MS + FLUSH_MS // 2)
        assert all(there.check(t) for t in crowd)  # each is dirty until the next flush: there is no room
        again = store.hold_requests(is_load)
        gate.open()
        await again.arrival()  # it is asked again, for what it brought is too old
        await here.logout(ticket)
        again.open()
        assert await asking == "revoked"


@in_virtual_time
async def test_p2_a_lease_counts_from_when_the_primary_was_confirmed():
    """The server that was asked may have been replaced up to `doubt_ms` before, and then does not
    know the writes to its successor.
    """
    server = new_server()
    async with gateway(server) as (cache, store):
        store.doubt_ms = 750
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        store.hold_requests(lambda call: call.name == "exchange")
        await pass_ms(LEASE_MS - store.doubt_ms - 1)
        assert cache.check(ticket)
        await pass_ms(1)
        assert cache.check(ticket) is Verdict.REFRESH


@in_virtual_time
async def test_p4_who_has_just_logged_in_is_not_refused_while_another_primary_may_have_taken_over():
    """The login was at another primary, of which this gateway has not heard yet."""
    server = new_server()
    async with gateway(server) as (cache, store):
        store.doubt_ms = 750
        ticket = Keyring([OLD_KEY]).mint("alice", cache.now_ms(), IDLE_MS // 1000, 600)
        await pass_ms(LEASE_MS - 1)
        assert await said_of(cache, ticket) == "store_unavailable"
        await pass_ms(1)
        assert await said_of(cache, ticket) == "unknown_session"


@in_virtual_time
async def test_p8_a_store_that_is_busy_is_not_away():
    """Nothing was asked: no outage begins, nothing goes on by credit, and the next question
    decides.
    """
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        exchange = store.exchange

        async def refuse(requests):
            return dict.fromkeys(requests, StoreBusy("the store is busy"))

        store.exchange = refuse
        await pass_ms(FLUSH_MS)
        assert await said_of(cache, ticket) == "alice"
        await pass_ms(LEASE_MS)
        assert await said_of(cache, ticket) == "store_unavailable"
        assert (cache.stats["shards_away"], cache.stats["shards_leased"]) == (0, 0)
        store.exchange = exchange
        await pass_ms(FLUSH_MS)
        assert await said_of(cache, ticket) == "alice"


PRELOAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, out);
    if (clock == CLOCK_BOOTTIME && access(WOKEN, F_OK) == 0) out->tv_sec += 3600;
    return result;
}
"""
SLEEPER = """
import asyncio, sys
from pathlib import Path
import fastticket

async def main():
    keys = fastticket.Keyring.generate()
    async with fastticket.TicketCache(fastticket.open_store("sqlite://:memory:"), keys, idle_timeout_s=86400) as cache:
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)
        assert cache.check(ticket), "it is held, and leased"
        before_ms = cache.now_ms()
        Path(sys.argv[1]).touch()
        while cache.now_ms() == before_ms:
            pass  # the coarse clock's tick
        print(cache.check(ticket).reason, round((cache.now_ms() - before_ms) / 3_600_000))

asyncio.run(main())
"""


def test_p2_a_machine_that_was_suspended_for_an_hour_has_no_lease(tmp_path):
    """CLOCK_BOOTTIME goes on while CLOCK_MONOTONIC stands still: as this process sees it, before
    the event loop has had a turn.
    """
    source, library, woken = tmp_path / "suspend.c", tmp_path / "suspend.so", tmp_path / "woken"
    source.write_text(PRELOAD)
    define = f'-DWOKEN="{woken}"'
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, define, source, "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("COVERAGE_PROCESS_START", None)
    done = subprocess.run(
        [sys.executable, "-c", SLEEPER, woken],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.split(), done.returncode) == (["refresh", "1"], 0), done.stderr


# --- the fleet


@in_virtual_time
async def test_p4_a_gateway_that_flushes_seldom_is_waited_for_by_all():
    """Flush intervals of 500 and 2,000 ms on one store, an idle timeout of 8 s: what the slow one
    sees is in every deadline.
    """
    server = new_server()
    slow = {"flush_interval_ms": 2000, "lease_ms": 8000, "idle_timeout_s": 8}
    async with gateway(server, idle_timeout_s=8) as (fast, _):
        tickets = [await fast.login(f"user{number}") for number in range(20)]
        await said_of_each(fast, tickets)
        async with gateway(server, **slow) as (seldom, _):
            for second in range(60):
                using = seldom if second % 8 < 7 else fast  # each is used all the time, mostly through the slow one
                for ticket in tickets:
                    assert await said_of(using, ticket, touch=True) in {f"user{number}" for number in range(20)}
                    assert await said_of(fast, ticket) != "idle"
                await pass_ms(1000)


@in_virtual_time
async def test_p4_a_use_at_the_last_moment_through_one_that_flushes_seldom_counts_for_all():
    server = new_server()
    slow = {"flush_interval_ms": 2000, "lease_ms": 8000, "idle_timeout_s": 8}
    async with gateway(server, **slow) as (seldom, _), gateway(server, idle_timeout_s=8) as (fast, _):
        await pass_ms(3 * CLOCK_MS)
        for phase_ms in range(0, 2000, 250):  # of the slow one's flushes
            ticket = await fast.login("alice")
            await seldom.authenticate(ticket, touch=False)
            await pass_ms(3000 + phase_ms)
            assert await said_of(fast, ticket, touch=True) == "alice"
            await pass_ms(7900)
            assert await said_of(seldom, ticket, touch=True) == "alice"
            for _ in range(20):
                await pass_ms(100)
                assert await said_of(fast, ticket) == "alice"


@in_virtual_time
async def test_who_joins_with_longer_intervals_flushes_as_often_as_the_others_expect_until_they_know():
    server = new_server()
    slower = {"flush_interval_ms": 2000, "lease_ms": 8000}
    async with gateway(server) as (first, _), gateway(server, **slower) as (slow, store):
        ticket = await first.login("alice")
        await slow.authenticate(ticket)
        await pass_ms(FLUSH_MS + 100)  # more than what a login's deadline allows for
        slow.check(ticket)
        used_ms = server.time_ms()
        await pass_ms(FLUSH_MS)
        assert stored_deadline_ms(server, "alice") >= used_ms + IDLE_MS
        await pass_ms(3 * CLOCK_MS)
        assert first._near.slack_ms == slow._near.slack_ms == 2000
        store.calls.clear()
        for _ in range(20):
            await pass_ms(FLUSH_MS)
            slow.check(ticket)
        assert len(store.touches) in (4, 5, 6)  # every 2 s by now


@in_virtual_time
async def test_a_store_made_anew_for_another_layout_is_an_outage_that_says_why(caplog):
    server = new_server()
    async with gateway(server) as (cache, store):
        ticket = await cache.login("alice")
        await cache.authenticate(ticket)

        async def refuse(fleet):
            raise ConfigError("made with shards 32, not 16")

        store.join = refuse
        await pass_ms(2 * CLOCK_MS)
        assert "made with shards 32, not 16" in caplog.text
        assert "Traceback" not in caplog.text
        assert await said_of(cache, ticket) == "alice"


# --- bounds


@in_virtual_time
async def test_p9_touches_that_the_store_does_not_take_are_bounded_and_none_is_dropped():
    """Reads work, writes do not: whoever is loaded would leave another touch."""
    server = new_server(shards=1)
    async with gateway(server, capacity=3) as (cache, store):
        tickets = [await cache.login(f"user{number}") for number in range(1500)]
        await pass_ms(10)
        store.wire.refuses_writes = True
        said = [await said_of(cache, ticket, touch=True) for ticket in tickets]
        admitted = [ticket for ticket, name in zip(tickets, said, strict=True) if name != "store_unavailable"]
        assert 3 < len(admitted) < 1500
        for _ in range(3):
            await pass_ms(FLUSH_MS)
        assert [await said_of(cache, ticket, touch=True) for ticket in tickets] == said
        assert cache.stats["touches_unwritten"] == len(admitted)
        used_ms = server.time_ms() + IDLE_MS + FLUSH_MS
        store.wire.refuses_writes = False
        await pass_ms(2 * FLUSH_MS)
        assert cache.stats["touches_unwritten"] == 0
        assert sum(session.idle_deadline_ms == used_ms for session in server.live.values()) == len(admitted)
        assert await said_of(cache, tickets[-1]) == "user1499"


@in_virtual_time
async def test_p5_a_flush_of_any_size_takes_one_round_trip():
    server = new_server()
    async with gateway(server) as (cache, store):
        tickets = [await cache.login(f"user{number}") for number in range(8000)]
        await said_of_each(cache, tickets)
        await pass_ms(2 * FLUSH_MS)
        for ticket in tickets:
            cache.check(ticket)
        store.calls.clear()
        gate = store.hold_replies(lambda call: bool(call.touches))
        flushing = asyncio.create_task(cache.flush())
        await settle()
        await pass_ms(FLUSH_MS)
        assert len({touch.session_id for touch in store.touches}) == 8000  # though no answer has come
        gate.open()
        await flushing
        assert cache.stats["touches_unwritten"] == 0


@in_virtual_time
async def test_p2_whatever_is_held_is_heard_of_within_the_lease_used_or_not():
    server = new_server()
    async with gateway(server, idle_timeout_s=600) as (cache, _):
        tickets = [await cache.login(principal_in(shard, server.shards)) for shard in range(server.shards)]
        await said_of_each(cache, tickets)
        for _ in range(100):
            await pass_ms(LEASE_MS)
            assert cache.stats["shards_leased"] == server.shards
        assert await pass_ms_in_use(cache, tickets[0], 1000) == [principal_in(0, server.shards)] * 10
