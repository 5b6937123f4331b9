"""Checker and Session: the order in which a ticket is judged."""

import time

import pytest

from fastticket.core.check import Checker, Session, clock_resolution_ms
from fastticket.core.nearcache import NearCache
from fastticket.core.ticket import Keyring
from fastticket.errors import Verdict

NOW = 1_700_000_000_000
KEY = (1, b"k" * 32)


class Bench:
    """A checker at a time that the test sets, and a ticket that the near cache holds."""

    def __init__(self):
        self.now_ms = NOW
        self.keys = Keyring([KEY])
        self.near = NearCache(10)
        self.near.renew_lease(0, NOW + 10**6)
        self.checker = Checker(self.keys, self.near, lambda: self.now_ms)
        self.text = self.keys.mint("alice", NOW, 60, 3600)
        self.ticket = self.keys.verify(self.text, NOW)
        self.near.insert(self.ticket.raw, 0, NOW + 60_500, NOW, False)


@pytest.fixture
def bench():
    return Bench()


@pytest.mark.parametrize("as_type", [str, lambda text: text.encode()])
def test_a_hit_is_a_session(bench, as_type):
    bench.now_ms += 5
    session = bench.checker.check(as_type(bench.text))
    assert isinstance(session, Session)
    assert session
    assert (session.principal, session.id) == ("alice", bench.ticket.session_id)
    assert (session.issued_at_ms, session.idle_deadline_ms) == (NOW, NOW + 60_505)
    assert session.absolute_deadline_ms == NOW + 3_600_000
    assert bench.text not in repr(session)
    assert bench.near.dirty_count == 1


def test_a_check_without_touch_is_no_use(bench):
    bench.now_ms += 5
    assert bench.checker.check(bench.text, False).idle_deadline_ms == NOW + 60_500
    assert bench.near.dirty_count == 0


def test_every_verdict(bench):
    other = bench.keys.mint("bob", NOW, 60, 3600)
    foreign = Keyring([(2, b"f" * 32)]).mint("alice", NOW)
    old = bench.keys.mint("alice", NOW - 10_000, 0, 10)
    forged = bench.text[:-8] + ("AAAAAAAA" if bench.text[-8:] != "AAAAAAAA" else "BBBBBBBB")
    said = {text: bench.checker.check(text) for text in (other, foreign, old, forged, "", "ü" * 94, "x" * 94)}
    assert list(said.values()) == [
        Verdict.MISS,
        Verdict.UNKNOWN_KEY,
        Verdict.EXPIRED,
        Verdict.BAD_SIGNATURE,
        Verdict.MALFORMED,
        Verdict.MALFORMED,
        Verdict.MALFORMED,
    ]
    assert not any(said.values())
    bench.near.bump_epoch(0)
    assert bench.checker.check(bench.text) is Verdict.REFRESH
    with pytest.raises(TypeError):
        bench.checker.check(None)


def test_a_forged_ticket_of_a_cached_session_neither_enters_nor_disturbs(bench):
    for at in range(24, len(bench.text)):
        forged = bench.text[:at] + ("A" if bench.text[at] != "A" else "B") + bench.text[at + 1 :]
        assert bench.checker.check(forged) in (Verdict.BAD_SIGNATURE, Verdict.MALFORMED, Verdict.EXPIRED)
    assert bench.checker.check(bench.text)


def test_a_refusal_is_told_only_to_a_good_signature(bench):
    bench.near.refuse(bench.ticket.raw[2:18], Verdict.REVOKED, NOW)
    forged = bench.text[:-8] + ("AAAAAAAA" if bench.text[-8:] != "AAAAAAAA" else "BBBBBBBB")
    assert bench.checker.check(bench.text) is Verdict.REVOKED
    assert bench.checker.check(forged) is Verdict.BAD_SIGNATURE
    bench.now_ms += 1000
    assert bench.checker.check(bench.text) is Verdict.MISS


def test_p1_a_key_that_leaves_takes_its_entries_along(bench):
    gone = bench.keys.replace([(2, b"n" * 32)])
    for key_id in gone:
        bench.near.drop_key(key_id)
    assert bench.checker.check(bench.text) is Verdict.UNKNOWN_KEY


def test_the_clock():
    checker = Checker(Keyring([KEY]), NearCache(1))
    before_ms = time.monotonic_ns() // 1_000_000
    now_ms = checker.now_ms()
    assert before_ms - clock_resolution_ms() - 1 <= now_ms <= time.monotonic_ns() // 1_000_000
    checker.set_offset_ms(5000)
    assert checker.offset_ms == 5000
    before_ms = checker.monotonic_ms()
    assert before_ms - 10 <= checker.now_ms() - 5000 <= checker.monotonic_ms() + 10


def test_a_session_for_who_has_loaded_it_himself(bench):
    session = bench.checker.session_of(bench.text, 7)
    assert (session.principal, session.idle_deadline_ms) == ("alice", 7)
    for bad in ("nonsense", "ü"):
        with pytest.raises(ValueError):
            bench.checker.session_of(bad, 7)
    with pytest.raises(ValueError):
        _ = Session().principal
