"""Whatever our parser accepts, llhttp (by httptools) and h11 must accept too, and read the same.

Messages are made by a grammar from a seed, or are real ones, and are mutated. Ours reads them
first; the peers then read the same bytes and have to see the same messages: start line, fields in
order, body.

The seed of a failure is in its message, and makes the same bytes again.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.attack_corpus import ATTACKS
from lab.http_grammar import FACTOR, REAL_REQUESTS, REAL_RESPONSES, chunked_body, mutated, requests, responses, seeds
from lab.readers import (
    CHUNKED,
    H11_RESPONSES_REFUSES,
    ONLY_GETS,
    REQUEST_PEERS,
    RESPONSE_PEERS,
    SWITCHED,
    UNKNOWN_INTERIM,
    Reading,
    difference,
    h11_responses,
    our_requests,
    our_responses,
    request,
    response,
)


def check_request(raw: bytes, note: object = "") -> Reading:
    ours = our_requests(raw)
    for peer, (read, stricter) in REQUEST_PEERS.items() if ours.messages else ():
        found = difference(ours, read(raw), stricter)
        assert found is None, f"{peer}, {note}: {found}\n{raw!r}"
    return ours


def check_response(raw: bytes, note: object = "") -> Reading:
    ours = our_responses(raw, ONLY_GETS)
    for peer, (read, stricter) in RESPONSE_PEERS.items() if ours.messages else ():
        found = difference(ours, read(raw), stricter)
        assert found is None, f"{peer}, {note}: {found}\n{raw!r}"
    return ours


def tally(counts: Counter, ours: Reading) -> None:
    counts["cases"] += 1
    counts["messages"] += len(ours.messages)
    counts["accepted"] += bool(ours.messages) and ours.error is None
    counts["refused"] += ours.error is not None
    counts["bodies"] += sum(message.is_whole and bool(message.body) for message in ours.messages)


def check_tally(counts: Counter) -> None:
    """Fuzzing that is nearly always refused, or never, would test nothing."""
    assert counts["accepted"] > counts["cases"] * 0.15, counts
    assert counts["refused"] > counts["cases"] * 0.15, counts
    assert counts["bodies"] > counts["cases"] * 0.1, counts


def test_requests_are_read_alike():
    counts: Counter = Counter()
    for seed in seeds(25000):
        rng = random.Random(seed)
        tally(counts, check_request(mutated(rng, requests(rng)), seed))
    check_tally(counts)


def test_responses_are_read_alike():
    counts: Counter = Counter()
    for seed in seeds(20000):
        rng = random.Random(seed)
        tally(counts, check_response(mutated(rng, responses(rng)), seed))
    check_tally(counts)


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=int(300 * FACTOR) + 1)
def test_what_hypothesis_makes_is_read_alike(rng):
    """The same grammar, searched and shrunk."""
    check_request(requests(rng))
    check_response(responses(rng))


def test_real_messages_are_read_alike():
    for raw in REAL_REQUESTS:
        assert [message.is_whole for message in check_request(raw).messages] == [True]
    for raw in REAL_RESPONSES:
        assert len(check_response(raw).messages) == 1


def test_mutations_of_real_messages_are_read_alike():
    for seed in seeds(10000):
        rng = random.Random(seed)
        check_request(mutated(rng, rng.choice(REAL_REQUESTS)), seed)
        check_response(mutated(rng, rng.choice(REAL_RESPONSES)), seed)


def test_responses_to_head_are_read_alike():
    """By h11 alone: httptools cannot be told what was asked."""
    for seed in seeds(5000):
        rng = random.Random(seed)
        raw, asked = mutated(rng, responses(rng)), rng.choices(["GET", "HEAD"], k=30)
        ours = our_responses(raw, asked)
        found = difference(ours, h11_responses(raw, asked), H11_RESPONSES_REFUSES)
        assert found is None, f"{seed}: {found}\n{raw!r}"


def test_chunked_bodies_are_read_alike():
    counts: Counter = Counter()
    for seed in seeds(25000):
        rng = random.Random(seed)
        body = mutated(rng, chunked_body(rng)) + rng.choice([b"", b"", request()])
        tally(counts, check_request(request(CHUNKED) + body, seed))
    assert counts["bodies"] > counts["cases"] * 0.1, counts


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_attacks_that_pass_are_read_alike(attack):
    check_request(attack.raw(), attack.id)


@pytest.mark.parametrize(
    ("peer", "number"), [(peer, n) for peer, (_, s) in REQUEST_PEERS.items() for n in range(len(s))]
)
def test_peers_are_stricter_where_it_is_said(peer, number):
    """Else the list has grown old, and hides differences."""
    read, stricter = REQUEST_PEERS[peer]
    for example in stricter[number].examples:
        raw = example + request()
        ours, theirs = our_requests(raw), read(raw)
        assert ours.error is None
        assert len(ours.messages) == 2, example
        assert stricter[number].applies(ours.messages[0]), example
        assert difference(ours, theirs, []) is not None, example
        assert difference(ours, theirs, [stricter[number]]) is None, example


@pytest.mark.parametrize("peer", RESPONSE_PEERS)
def test_peers_read_interim_responses_otherwise(peer):
    read, stricter = RESPONSE_PEERS[peer]
    for one in (SWITCHED, UNKNOWN_INTERIM):
        raw = one.examples[0] + response("Content-Length: 0")
        ours, theirs = our_responses(raw, ONLY_GETS), read(raw)
        assert (difference(ours, theirs, []) is not None) == (one in stricter)
        assert difference(ours, theirs, stricter) is None
