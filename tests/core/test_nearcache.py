"""The near cache against its rules, and against the plain-Python model."""

import os
import random

import pytest
from hypothesis import settings, stateful
from hypothesis import strategies as st
from lab.nearcache_model import Model

from fastticket.core.nearcache import NearCache
from fastticket.core.ticket import Keyring, decode_session_id
from fastticket.core.touches import Touches
from fastticket.errors import Verdict

FUZZ = float(os.environ.get("FASTTICKET_FUZZ", "1"))
NOW = 1_700_000_000_000
FAR = NOW + 10**9


def raw_ticket(number=0, principal=b"alice", *, key=1, idle_s=60, lifetime_s=3600, issued_ms=NOW, tag=None):
    """A raw ticket; the near cache verifies no signature. Session ids of one number are equal."""
    session_id = random.Random(number).randbytes(16)
    fields = issued_ms.to_bytes(6, "big") + idle_s.to_bytes(4, "big") + lifetime_s.to_bytes(4, "big")
    body = bytes((1, key)) + session_id + fields + bytes((len(principal),)) + principal
    return body + (tag or random.Random(f"tag {number}").randbytes(32))


def session_id(raw):
    return raw[2:18]


def cache_with(*tickets, capacity=10, deadline_ms=FAR, **settings):
    near = NearCache(capacity, **settings)
    near.renew_lease(0, FAR)
    for raw in tickets:
        assert near.insert(raw, 0, deadline_ms, NOW, touch=False)
    return near


def taken(near, touches_max=10_000, piece=1000):
    """The touches that wait, as one piece of each shard."""
    pieces = {}
    near.take(pieces, touches_max, piece)
    return [touches for of_shard in pieces.values() for touches in of_shard]


def plain(pieces):
    """(session id, principal, deadline) of each touch, as bytes."""
    return [(decode_session_id(each[0]), each[1].encode(), each[2]) for touches in pieces for each in touches]


def written(near):
    """Touches that wait, taken and acknowledged."""
    pieces = taken(near)
    for touches in pieces:
        near.acknowledge(touches)
    return plain(pieces)


ALICE = raw_ticket()


def test_a_hit_is_the_whole_ticket():
    near = cache_with(ALICE)
    assert near.lookup(ALICE, NOW) == FAR
    for at in range(18, len(ALICE)):
        changed = ALICE[:at] + bytes([ALICE[at] ^ 1]) + ALICE[at + 1 :]
        assert near.lookup(changed, NOW) is Verdict.MISS
    assert near.lookup(ALICE, NOW) == FAR


@pytest.mark.parametrize("size", [1, 24, 28, 29, 30, 157, 158, 190])
def test_principals_of_any_length(size):
    raw = raw_ticket(principal=(b"abcdefghij" * 19)[:size])
    near = cache_with(raw)
    assert near.lookup(raw, NOW) == FAR
    for at in range(33, len(raw)):
        assert near.lookup(raw[:at] + bytes([raw[at] ^ 128]) + raw[at + 1 :], NOW) is Verdict.MISS
    near = cache_with(raw, deadline_ms=NOW + 1)
    near.lookup(raw, NOW)
    assert written(near) == [(session_id(raw), raw[33 : 33 + size], NOW + 60_500)]


@pytest.mark.parametrize(
    ("at_ms", "before", "after"),
    [
        (NOW + 1000, NOW + 1000, Verdict.REFRESH),  # idle deadline: another gateway may know better
        (NOW + 3_600_000, Verdict.REFRESH, Verdict.EXPIRED),  # absolute deadline: nobody does
    ],
)
def test_deadlines_to_the_millisecond(at_ms, before, after):
    near = cache_with(ALICE, deadline_ms=NOW + 1000)
    assert near.lookup(ALICE, at_ms - 1, False) == before
    assert near.lookup(ALICE, at_ms, False) == after


def test_lease_epoch_and_recheck_ask_for_a_refresh():
    near = NearCache(10, recheck_s=300)
    near.insert(ALICE, 0, FAR, NOW, False)
    assert near.lookup(ALICE, NOW) is Verdict.REFRESH  # no lease yet
    near.renew_lease(0, NOW + 2000)
    near.renew_lease(0, NOW + 1000)  # never shortened
    assert near.lookup(ALICE, NOW + 1999, False) == FAR
    assert near.lookup(ALICE, NOW + 2000, False) is Verdict.REFRESH
    near.renew_lease(0, FAR)
    near.bump_epoch(0)
    assert near.lookup(ALICE, NOW) is Verdict.REFRESH
    near.insert(ALICE, 0, FAR, NOW, False)
    assert near.lookup(ALICE, NOW + 299_999, False) == FAR
    assert near.lookup(ALICE, NOW + 300_000, False) is Verdict.REFRESH
    near.shift_lease(0, -(FAR - NOW))
    assert near.lookup(ALICE, NOW, False) is Verdict.REFRESH


def test_p7_touches_coalesce():
    near = cache_with(ALICE, deadline_ms=NOW + 1)
    near.lookup(ALICE, NOW)
    for later_ms in range(100):
        near.lookup(ALICE, NOW + later_ms)
    assert near.dirty_count == 1
    assert written(near) == [(session_id(ALICE), b"alice", NOW + 99 + 60_500)]
    assert written(near) == []


def test_the_deadline_ends_at_the_absolute_one():
    raw = raw_ticket(idle_s=60, lifetime_s=30)
    near = cache_with(raw, deadline_ms=NOW + 10)
    assert near.lookup(raw, NOW) == NOW + 30_000
    assert near.lookup(raw, NOW + 5) == NOW + 30_000
    assert written(near) == [(session_id(raw), b"alice", NOW + 30_000)]
    near.lookup(raw, NOW + 6)
    assert written(near) == []


def test_touch_resolution():
    near = cache_with(ALICE, deadline_ms=NOW + 60_500, touch_resolution_ms=1000)
    near.lookup(ALICE, NOW + 1000)
    assert near.dirty_count == 0
    near.lookup(ALICE, NOW + 1001)
    assert written(near)[0][2] == NOW + 61_501


def test_the_least_recently_used_goes_first():
    tickets = [raw_ticket(number) for number in range(5)]
    near = cache_with(*tickets[:4], capacity=4)
    near.lookup(tickets[0], NOW + 1024, False)
    assert near.insert(tickets[4], 0, FAR, NOW, False)
    assert [near.lookup(raw, NOW, False) == FAR for raw in tickets] == [True, False, True, True, True]
    assert near.evictions == 1


def test_eviction_loses_no_touch():
    """Dirty entries linger until they are drained; one that is used meanwhile stays for good."""
    old = [raw_ticket(number) for number in range(4)]
    new = [raw_ticket(number) for number in range(4, 8)]
    near = cache_with(*old, capacity=4, deadline_ms=NOW + 1)
    for raw in old:
        near.lookup(raw, NOW)
    assert not near.insert(new[0], 0, FAR, NOW)  # everything is dirty
    assert near.lookup(old[2], NOW + 1) == NOW + 60_501
    assert {touch[0] for touch in written(near)} == {session_id(raw) for raw in old}
    assert [near.lookup(raw, NOW, False) is not Verdict.MISS for raw in old] == [False, False, True, False]
    assert all(near.insert(raw, 0, FAR, NOW) for raw in new)


@pytest.mark.parametrize("sizes", [(5, 190), (190, 5), (30, 120)])
def test_a_second_principal_under_one_session_id_is_not_held(sizes):
    """No login makes that; whose the session is stays as it was, and nothing is written past its
    slots.
    """
    first, second = (raw_ticket(principal=b"p" * size) for size in sizes)
    near = cache_with(first)
    assert not near.insert(second, 0, FAR, NOW)
    assert near.lookup(second, NOW) is Verdict.MISS
    assert near.lookup(first, NOW) == FAR


def test_a_touch_is_written_once_and_none_is_lost():
    """Dirty, sent, and clean; or dirty again, because it was used again or was not written."""
    near = cache_with(ALICE, deadline_ms=NOW + 1)
    near.lookup(ALICE, NOW)
    (first,) = taken(near)
    assert (near.dirty_count, near.sent_count, taken(near)) == (0, 1, [])
    near.lookup(ALICE, NOW + 5)  # used again while it is on its way
    assert (near.dirty_count, taken(near)) == (1, [])  # one at a time
    near.give_back(first)
    near.give_back(first)  # no effect
    near.acknowledge(first)
    assert (near.dirty_count, near.sent_count) == (1, 0)
    (second,) = taken(near)
    assert plain([second]) == [(session_id(ALICE), b"alice", NOW + 5 + 60_500)]
    near.give_back(second)
    assert plain(taken(near)) == plain([second])


def test_a_session_that_ends_takes_its_sent_touch_along():
    near = cache_with(ALICE, deadline_ms=NOW + 1)
    near.lookup(ALICE, NOW)
    (sent,) = taken(near)
    near.refuse(session_id(ALICE), Verdict.REVOKED, NOW)
    assert near.lookup(ALICE, NOW) is Verdict.REFRESH
    near.give_back(sent)
    assert (len(near), near.dirty_count, near.sent_count) == (0, 0, 0)


def test_touches_as_a_command_has_them():
    touches = Touches.of(3, [("AAECAwQFBgcICQoLDA0ODw", "zoë", NOW), ("AAAAAAAAAAAAAAAAAAAAAA", "b", 2**53 - 1)])
    assert touches.packed == (
        b"$13\r\n1700000000000\r\n$27\r\nAAECAwQFBgcICQoLDA0ODw.zo\xc3\xab\r\n"
        b"$16\r\n9007199254740991\r\n$24\r\nAAAAAAAAAAAAAAAAAAAAAA.b\r\n"
    )
    assert (touches.shard, len(touches)) == (3, 2)
    assert list(touches) == [("AAECAwQFBgcICQoLDA0ODw", "zoë", NOW), ("AAAAAAAAAAAAAAAAAAAAAA", "b", 2**53 - 1)]
    assert (list(Touches(1)), Touches(1).packed) == ([], b"")


def test_uses_of_sessions_without_room_wait_in_bounds():
    near = NearCache(4, 2)
    ids = [random.Random(number).randbytes(16) for number in range(2000)]
    accepted = [each for each in ids if near.touch_unheld(1, each, b"alice", NOW + 5)]
    assert 500 < len(accepted) < 2000
    assert near.touch_unheld(1, accepted[0], b"alice", NOW + 9)  # it waits already: the later one counts
    assert near.touch_unheld(1, accepted[1], b"alice", NOW + 1)
    assert (len(near), near.held_in(0), near.held_in(1)) == (0, 0, len(accepted))
    assert near.idle_deadline_ms(accepted[0]) == NOW + 9
    near.refuse(accepted[2], Verdict.REVOKED, NOW)
    wanted = dict.fromkeys(accepted, NOW + 5) | {accepted[0]: NOW + 9}
    del wanted[accepted[2]]
    assert {each[0]: each[2] for each in written(near)} == wanted
    assert (near.held_in(1), near.dirty_count, near.sent_count, near.idle_deadline_ms(accepted[0])) == (0, 0, 0, 0)
    assert all(near.touch_unheld(1, each, b"alice", NOW) for each in accepted)


def test_p9_to_make_room_for_one_not_many_are_looked_at():
    """All are dirty, so none can go at once: those that were looked at go when their touches are
    written, and no others.
    """
    old = [raw_ticket(number) for number in range(500)]
    near = cache_with(*old, capacity=500, deadline_ms=NOW + 1)
    for raw in old:
        near.lookup(raw, NOW)
    for number in (500, 501):
        assert not near.insert(raw_ticket(number), 0, FAR, NOW)
    written(near)
    assert len(near) == 500 - 2 * 64


def test_no_slot_is_ever_lost():
    """After any history the whole capacity can be filled again."""
    rnd = random.Random(3)
    near = cache_with(capacity=30)
    for _ in range(3000):
        raw = raw_ticket(rnd.randrange(60), b"p" * rnd.choice([5, 30, 190]))
        near.insert(raw, 0, NOW + 1, NOW, rnd.random() < 0.3)
        if rnd.random() < 0.1:
            near.refuse(session_id(raw), Verdict.REVOKED, NOW)
        if rnd.random() < 0.1:
            written(near)
    written(near)
    near.drop_key(1)
    assert len(near) == 0
    tickets = [raw_ticket(1000 + number) for number in range(30)]
    assert all(near.insert(raw, 0, FAR, NOW, False) for raw in tickets)
    assert [near.lookup(raw, NOW, False) for raw in tickets] == [FAR] * 30


def test_refusals_are_brief_and_take_the_touch_along():
    near = cache_with(ALICE, deadline_ms=NOW + 1)
    near.lookup(ALICE, NOW)
    near.refuse(session_id(ALICE), Verdict.REVOKED, NOW)
    assert near.lookup(ALICE, NOW) is Verdict.REFRESH  # lingers until it is drained
    assert near.remembered_refusal(session_id(ALICE), NOW + 999) is Verdict.REVOKED
    assert near.remembered_refusal(session_id(ALICE), NOW + 1000) is None
    assert written(near) == []
    assert near.lookup(ALICE, NOW) is Verdict.MISS


def test_another_signature_for_the_same_session():
    newer = raw_ticket(key=2, tag=bytes(32))
    near = cache_with(ALICE)
    assert near.insert(newer, 0, NOW + 5, NOW, False)
    assert near.lookup(newer, NOW, False) == FAR  # what was known of the session stays known
    assert near.lookup(ALICE, NOW) is Verdict.MISS
    assert not near.insert(raw_ticket(principal=b"mallory"), 0, FAR, NOW)
    assert near.drop_key(1) == 0
    assert near.drop_key(2) == 1
    assert near.lookup(newer, NOW) is Verdict.MISS


@pytest.mark.parametrize("count", [3, 10_000])
def test_another_process_goes_on_with_a_snapshot(count):
    """With what may answer: neither what a gap has made stale nor what has ended, and nothing that
    was signed by another key.
    """
    keys, stranger = Keyring([(1, b"k" * 32)]), Keyring([(2, b"s" * 32)])
    tickets = [keys.verify(keys.mint("alice", NOW, 60, 3600), NOW).raw for _ in range(count)]
    forged = stranger.verify(stranger.mint("mallory", NOW, 60, 3600), NOW).raw
    near = NearCache(count + 1, 2, recheck_s=30)
    near.renew_lease(0, FAR)
    for raw in tickets:
        near.insert(raw, 0, NOW + 7, NOW, True)
    near.insert(forged, 0, NOW + 7, NOW, True)
    near.insert(raw_ticket(), 1, FAR, NOW, True)
    near.bump_epoch(1)
    near.refuse(session_id(tickets[0]), Verdict.REVOKED, NOW)
    parts, cursor = [], 0
    while cursor is not None:
        part, cursor = near.snapshot(cursor)
        parts.append(part)
    heir = NearCache(count, 2, recheck_s=30)
    heir.bump_epoch(0)
    assert heir.restore(b"".join(parts), keys, NOW + 10_000) == count - 1
    assert heir.lookup(tickets[1], NOW + 10_000, False) is Verdict.REFRESH  # no lease yet
    heir.renew_lease(0, FAR)
    assert heir.lookup(tickets[1], NOW + 10_000, False) == NOW + 60_500
    assert heir.lookup(tickets[1], NOW + 30_000, False) is Verdict.REFRESH  # to be looked up again when it was due
    assert heir.lookup(tickets[0], NOW, False) is Verdict.MISS
    assert heir.dirty_count == 0
    with pytest.raises(ValueError):
        heir.restore(parts[0][:-1], keys, NOW)


def test_arguments():
    near = NearCache(10, 2)
    for call in (
        lambda: NearCache(0),
        lambda: NearCache(1, 0),
        lambda: near.touch_unheld(2, bytes(16), b"alice", 1),
        lambda: near.touch_unheld(0, bytes(15), b"alice", 1),
        lambda: near.touch_unheld(0, bytes(16), b"", 1),
        lambda: near.restore(b"short", Keyring.generate(), 1),
        lambda: Touches.of(0, [("short", "alice", 1)]),
        lambda: near.renew_lease(-1, 1),
        lambda: near.insert(b"short", 0, 1, 1),
        lambda: near.insert(ALICE, 2, 1, 1),
        lambda: near.lookup(ALICE + bytes(200), 1),
        lambda: near.refuse(b"short", Verdict.REVOKED, 1),
        lambda: near.idle_deadline_ms(b"short"),
        lambda: near.remembered_refusal(b"short", 1),
    ):
        with pytest.raises(ValueError):
            call()


def test_a_million_sessions():
    """All fit, all are found, within 160 bytes each (principals of 24 bytes)."""
    count = 1_000_000
    near = NearCache(count)
    near.renew_lease(0, FAR)
    ids = random.Random(7).randbytes(16 * count)
    head, rest = raw_ticket(principal=b"p" * 24)[:2], raw_ticket(principal=b"p" * 24)[18:]
    for at in range(0, 16 * count, 16):
        assert near.insert(head + ids[at : at + 16] + rest, 0, FAR, NOW, False)
    assert len(near) == count
    assert near.evictions == 0
    for at in range(0, 16 * count, 16 * 17):
        assert near.lookup(head + ids[at : at + 16] + rest, NOW, False) == FAR
    assert near.memory_bytes / count <= 160


# --- against the model


class Pair:
    """The core and the model, moved alike."""

    def __init__(self, capacity, shards, resolution_ms):
        self.shards = shards
        self.now_ms = NOW
        self.core = NearCache(
            capacity, shards, slack_ms=500, touch_resolution_ms=resolution_ms, recheck_s=30, refusal_ms=1000
        )
        self.model = Model(capacity, shards, 500, resolution_ms, 30, 1000)
        self.flights = []

    def raw(self, number, variant):
        principal = (b"a" * 5, b"b" * 29, b"c" * 30, b"d" * 190)[number % 4]
        return raw_ticket(
            number, principal, key=1 + variant, idle_s=(0, 20)[number % 3 > 0], lifetime_s=(0, 90)[number % 2]
        )

    def shard(self, number):
        return number % self.shards

    def both(self, name, *arguments):
        core, model = getattr(self.core, name)(*arguments), getattr(self.model, name)(*arguments)
        assert core == model, (name, arguments)
        return core

    def step(self, rnd):
        number, variant = rnd.randrange(12), int(rnd.random() < 0.1)
        raw, shard = self.raw(number, variant), self.shard(number)
        choice = rnd.random()
        if choice < 0.35:
            self.both("lookup", raw, self.now_ms, rnd.random() < 0.7)
        elif choice < 0.6:
            self.both("insert", raw, shard, self.now_ms + rnd.choice([0, 100, 20_000]), self.now_ms, rnd.random() < 0.5)
        elif choice < 0.66:
            self.take(rnd.choice([0, 1, 100]))
        elif choice < 0.7:
            self.settle(rnd.randrange(1 + len(self.flights)), rnd.random() < 0.6)
        elif choice < 0.72:
            principal = raw[33 : 33 + raw[32]]
            self.both("touch_unheld", shard, session_id(raw), principal, self.now_ms + rnd.choice([1, 20_000]))
        elif choice < 0.8:
            self.now_ms += rnd.choice([0, 1, 500, 5000])
            for each in range(self.shards):
                self.lease(each, self.now_ms + 3000)
        elif choice < 0.84:
            self.both("refuse", session_id(raw), rnd.choice([Verdict.REVOKED, Verdict.IDLE]), self.now_ms)
        elif choice < 0.88:
            self.both("remembered_refusal", session_id(raw), self.now_ms)
        elif choice < 0.9:
            self.both("idle_deadline_ms", session_id(raw))
        elif choice < 0.93:
            self.both("extend", raw, self.now_ms)
        elif choice < 0.95:
            asked_in = max(0, self.core.epoch(shard) - int(rnd.random() < 0.3))  # there may have been a gap since
            self.both("confirm", session_id(raw), asked_in, self.now_ms + rnd.choice([100, 20_000]), self.now_ms)
        elif choice < 0.98:
            self.core.bump_epoch(shard)
            self.model.epoch[shard] += 1
        else:
            self.both("drop_key", rnd.choice([1, 2]))
        assert len(self.core) == len(self.model.entries)
        assert self.core.dirty_count == len(self.model.dirty) + len(self.model.unheld_dirty)
        assert self.core.sent_count == sum(map(len, self.model.flights))
        for each in range(self.shards):
            self.both("held_in", each)
        stale, cursor = self.core.stale(0, 100)
        assert (set(stale), len(stale), cursor) == (self.model.stale(), len(self.model.stale()), None)

    def take(self, touches_max):
        pieces = {}
        count = self.core.take(pieces, touches_max, 2)
        self.flights.append([touches for of_shard in pieces.values() for touches in of_shard])
        found = [(touches.shard, *each) for touches in self.flights[-1] for each in plain([touches])]
        wanted = self.model.take(touches_max)
        assert sorted(found) == sorted(wanted)
        assert count == len(wanted)
        assert all(0 < len(touches) <= 2 for touches in self.flights[-1])

    def settle(self, number, is_written):
        if number < len(self.flights):
            for touches in self.flights.pop(number):
                (self.core.acknowledge if is_written else self.core.give_back)(touches)
            self.model.settle(number, is_written)

    def lease(self, shard, until_ms):
        self.core.renew_lease(shard, until_ms)
        self.model.lease_until_ms[shard] = max(self.model.lease_until_ms[shard], until_ms)


@pytest.mark.parametrize("capacity", [1, 4, 9, 40])
def test_random_walks_agree_with_the_model(capacity):
    """Millions of steps with FASTTICKET_FUZZ=30."""
    for seed in range(int(25 * FUZZ) or 1):
        rnd = random.Random(f"{capacity} {seed}")
        pair = Pair(capacity, rnd.choice([1, 3]), rnd.choice([0, 700]))
        for _ in range(1000):
            pair.step(rnd)


class Machine(stateful.RuleBasedStateMachine):
    """The same under hypothesis, which shrinks what it finds."""

    @stateful.initialize(capacity=st.integers(1, 10), shards=st.integers(1, 3), resolution_ms=st.sampled_from([0, 700]))
    def begin(self, capacity, shards, resolution_ms):
        self.pair = Pair(capacity, shards, resolution_ms)

    @stateful.rule(seed=st.integers(0, 2**32))
    def step(self, seed):
        self.pair.step(random.Random(seed))


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=int(100 * FUZZ) or 1, stateful_step_count=50, deadline=None)
