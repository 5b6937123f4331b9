"""Several data planes on one near cache, without the GIL, while the control plane changes all that
it can.

Each test is a run of random steps of the control plane. What must hold, whatever the interleaving:

- nobody is admitted on a ticket once its session's end, or its key's, was told (guarantee 2);
- each use that was admitted is covered by a deadline that was written, unless the session or its
  key was ended later (guarantee 5);
- counts and chains are those of the entries that are there.

Under ThreadSanitizer (`make tsan`) it also finds accesses that no lock orders. FASTTICKET_STRESS_S
says for how long each run goes on, FASTTICKET_SEED plays one seed only.
"""

import itertools
import os
import random
import secrets
import threading
import time
from pathlib import Path

import pytest
from lab.building import build

from fastticket.core.check import Checker
from fastticket.core.nearcache import NearCache
from fastticket.core.ticket import Keyring, decode_session_id
from fastticket.errors import Verdict

DURATION_S = float(os.environ.get("FASTTICKET_STRESS_S", "1"))
SEEDS = [int(os.environ["FASTTICKET_SEED"])] if "FASTTICKET_SEED" in os.environ else [1, 2]
JUDGES = 3
SHARDS = 4
IDLE_S = 3600
SLACK_MS = 500
LEASE_MS = 3_600_000


class Session:
    """One of the sessions, and what the store and the control plane know of it."""

    def __init__(self, number, keys, key_id, principal, now_ms):
        self.number = number
        self.key_id = key_id
        self.principal = principal.encode()
        self.shard = number % SHARDS
        self.ticket = keys.mint(principal, now_ms, idle_timeout_s=IDLE_S)
        opened = keys.verify(self.ticket, now_ms)
        self.raw = opened.raw
        self.id = decode_session_id(opened.session_id)
        self.written_ms = now_ms + IDLE_S * 1000
        self.promised_ms = 0  # a use that the control plane itself has noted
        self.excused_ms = 0  # uses up to then may be lost: their key was withdrawn
        self.has_ended = False


class ControlPlane:
    """Makes random steps: one thread, as in a gateway."""

    def __init__(self, judges, capacity, sessions, seed):
        self.random = random.Random(seed)
        self.secrets = {number: secrets.token_bytes(32) for number in (1, 2, 3)}
        self.keys = Keyring(list(self.secrets.items()))
        self.near = NearCache(capacity, SHARDS, slack_ms=SLACK_MS, refusal_ms=60_000)
        self.near.share()
        self.checker = Checker(self.keys, self.near)
        self.checker.set_offset_ms(1_700_000_000_000)
        now_ms = self.checker.now_ms()
        by_key = {number: Keyring([(number, secret)]) for number, secret in self.secrets.items()}
        self.sessions = [
            Session(
                number,
                by_key[1 + number % 3],
                1 + number % 3,
                f"user{number}" + "x" * self.random.choice([0, 120]),
                now_ms,
            )
            for number in range(sessions)
        ]
        self.by_id = {session.id: session for session in self.sessions}
        self.fates = judges.Fates(sessions)
        self.on_their_way = []
        self.withdrawn = set()
        for shard in range(SHARDS):
            self.near.renew_lease(shard, now_ms + LEASE_MS)
        self.steps = {
            self.insert: 60,
            self.take: 5,
            self.settle: 6,
            self.use_without_entry: 3,
            self.end_session: 1,
            self.withdraw_key: 0.05,
            self.restore_key: 0.1,
            self.bump_epoch: 0.2,
            self.confirm: 5,
            self.extend: 2,
            self.set_lease: 1,
            self.walk: 0.3,
            self.look: 1,
            self.set_clock: 0.2,
        }

    def step(self):
        (step,) = self.random.choices(list(self.steps), self.steps.values())
        step()

    def any(self):
        session = self.random.choice(self.sessions)
        return session if not session.has_ended and session.key_id not in self.withdrawn else None

    def insert(self):
        if session := self.any():
            now_ms = self.checker.now_ms()
            touch = self.random.random() < 0.5
            if self.near.insert(session.raw, session.shard, session.written_ms, now_ms, touch) and touch:
                session.promised_ms = max(session.promised_ms, now_ms + IDLE_S * 1000)

    def use_without_entry(self):
        session = self.any()
        if session and not self.near.idle_deadline_ms(session.id):
            deadline_ms = self.checker.now_ms() + IDLE_S * 1000 + SLACK_MS
            if self.near.touch_unheld(session.shard, session.id, session.principal, deadline_ms):
                session.promised_ms = max(session.promised_ms, deadline_ms)

    def take(self):
        taken = {}
        touches_max = self.random.choice([1, 10, 1000])
        count = self.near.take(taken, touches_max, self.random.choice([1, 3, 100]))
        assert count == sum(len(touches) for pieces in taken.values() for touches in pieces) <= touches_max
        self.on_their_way += itertools.chain.from_iterable(taken.values())

    def settle(self):
        if self.on_their_way:
            touches = self.on_their_way.pop(self.random.randrange(len(self.on_their_way)))
            if self.random.random() < 0.2:
                self.near.give_back(touches)
            else:
                self.write(touches)

    def write(self, touches):
        for session_id, principal, deadline_ms in touches:
            session = self.by_id[decode_session_id(session_id)]
            assert (touches.shard, principal.encode()) == (session.shard, session.principal)
            session.written_ms = max(session.written_ms, deadline_ms)
        self.near.acknowledge(touches)

    def end_session(self):
        if session := self.any():
            session.has_ended = True
            self.near.refuse(session.id, Verdict.REVOKED, self.checker.now_ms())
            self.fates.bar(session.number)

    def withdraw_key(self):
        if len(self.withdrawn) < 2:
            key_id = self.random.choice([number for number in self.secrets if number not in self.withdrawn])
            self.withdrawn.add(key_id)
            assert self.keys.replace(self.ring()) == {key_id}
            self.near.drop_key(key_id)
            for session in self.sessions:
                if session.key_id == key_id:
                    self.fates.bar(session.number)
                    session.excused_ms = self.checker.now_ms() + IDLE_S * 1000 + SLACK_MS

    def restore_key(self):
        if self.withdrawn:
            key_id = self.withdrawn.pop()
            for session in self.sessions:
                if session.key_id == key_id and not session.has_ended:
                    self.fates.allow(session.number)
            assert self.keys.replace(self.ring()) == set()

    def ring(self):
        return [(number, secret) for number, secret in self.secrets.items() if number not in self.withdrawn]

    def bump_epoch(self):
        self.near.bump_epoch(self.random.randrange(SHARDS))

    def confirm(self):
        if session := self.any():
            self.near.confirm(session.id, self.near.epoch(session.shard), session.written_ms, self.checker.now_ms())

    def extend(self):
        if session := self.any():
            self.near.extend(session.raw, self.checker.now_ms())

    def set_lease(self):
        shard = self.random.randrange(SHARDS)
        self.near.shift_lease(shard, self.random.choice([-1, 1]))
        self.near.renew_lease(shard, self.checker.now_ms() + LEASE_MS)

    def walk(self):
        cursor, seen = 0, set()
        while cursor is not None:
            found, cursor = self.near.stale(cursor, 100)
            seen |= {(shard, session_id, principal) for shard, session_id, principal in found}
        assert all((self.by_id[each].shard, self.by_id[each].principal) == (shard, user) for shard, each, user in seen)
        other = NearCache(self.near.capacity, SHARDS)
        cursor, restored = 0, 0
        while cursor is not None:
            entries, cursor = self.near.snapshot(cursor)
            restored += other.restore(entries, self.keys, self.checker.now_ms())
        assert restored <= len(self.near)

    def look(self):
        near = self.near
        assert len(near) >= 0
        assert near.dirty_count + near.sent_count >= 0
        assert sum(near.held_in(shard) for shard in range(SHARDS)) >= len(near)
        assert sum(self.keys.uses.values()) >= 0
        assert set(self.keys.ids) == {number for number, _ in self.ring()}

    def set_clock(self):
        self.near.slack_ms = SLACK_MS
        self.checker.set_offset_ms(self.checker.offset_ms + 1)
        self.near.forget_refusals()

    def finish(self):
        """Write all that is left."""
        while self.on_their_way:
            self.write(self.on_their_way.pop())
        while self.near.dirty_count:
            self.take()
            while self.on_their_way:
                self.write(self.on_their_way.pop())


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    return build(Path(__file__).with_name("judges.pyx"), tmp_path_factory.mktemp("judges"))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("capacity", "sessions"), [(64, 150), (4096, 6000)], ids=["one partition", "partitions"])
def test_judging_in_threads_while_all_that_can_change_changes(judges, capacity, sessions, seed):
    control = ControlPlane(judges, capacity, sessions, seed)
    tickets = [session.ticket.encode() for session in control.sessions]
    crowd = [judges.Judge(control.checker, control.fates, tickets, seed * 100 + i) for i in range(JUDGES)]
    threads = [threading.Thread(target=judge.run) for judge in crowd]
    ends_s = time.monotonic() + DURATION_S
    for thread in threads:
        thread.start()
    try:
        while time.monotonic() < ends_s:
            control.step()
    finally:
        control.fates.stop()
        for thread in threads:
            thread.join()
    control.finish()

    near = control.near
    assert sum(judge.wrongly_admitted for judge in crowd) == 0
    assert judges.flaws(near) == []
    assert (near.dirty_count, near.sent_count) == (0, 0)
    assert sum(near.held_in(shard) for shard in range(SHARDS)) == len(near)
    judged = [sum(counts) for counts in zip(*(judge.verdicts for judge in crowd), strict=True)]
    assert near.hits == judged[0] > 0
    assert near.hits + near.misses + near.refreshes == sum(judged)
    lost = [
        session.number
        for session in control.sessions
        if not session.has_ended
        and max(session.promised_ms, *(judge.deadline_ms(session.number) for judge in crowd))
        > max(session.written_ms, session.excused_ms)
    ]
    assert lost == []
