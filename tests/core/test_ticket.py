"""The ticket, from outside: wire format, refusals, key ring, rotation. The oracle is
tests/lab/reference.py.

FASTTICKET_FUZZ=<factor> multiplies the number of mutated tickets (40: two million);
FASTTICKET_FUZZ_SEED=<n> picks others.
"""

from __future__ import annotations

import base64
import copy
import gc
import json
import os
import pickle
import random
import re
import resource
import sys
import traceback
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import reference

from fastticket.core.ticket import Keyring, Ticket, decode_session_id, encode_session_id
from fastticket.errors import ConfigError, InvalidPrincipal, Verdict
from fastticket.keyfile import read_keys

DOCUMENTATION = (Path(__file__).parents[2] / "docs/reference/ticket-format.md").read_text()
VECTORS = json.loads((Path(__file__).parents[1] / "lab" / "vectors.json").read_text())
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
NOW_MS = 1_750_000_000_000
NEVER_MS = 2**53 - 1  # the deadline of what has none
LATEST_MS = NEVER_MS - 1  # in the year 287,396
SESSION_ID = bytes(range(100, 116))
OLD, NEW, STRANGE = (bytes([seed]) * 32 for seed in (7, 8, 9))
RING = [(1, OLD), (2, NEW)]

thorough = settings(deadline=None, max_examples=500)


def said(result):
    """What a check said, in the shape of `reference.verify`."""
    if isinstance(result, Ticket):
        return reference.Fields(
            result.key_id,
            base64.urlsafe_b64decode(result.session_id + "=="),
            result.issued_at_ms,
            result.idle_timeout_s,
            result.absolute_lifetime_s,
            result.principal,
        )
    assert isinstance(result, Verdict)
    assert not result
    assert result.is_refusal
    return result.reason


def body(
    name=b"alice", *, ticket_format=1, key_id=2, issued_at_ms=NOW_MS, idle_timeout_s=7200, lifetime_s=60, length=None
):
    """All of a raw ticket but the tag, right or wrong."""
    issued_at = issued_at_ms.to_bytes(6, "big")
    length = len(name) if length is None else length
    return reference.HEAD.pack(ticket_format, key_id, SESSION_ID, issued_at, idle_timeout_s, lifetime_s, length) + name


def signed(body_bytes, secret=NEW):
    return reference.sign(secret, "default", body_bytes)


def raw_of(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.fixture
def keyring():
    return Keyring(RING)


# ------------------------------------------------------------------------------------- test vectors


def vector_ring(vector):
    ring = VECTORS["rings"][vector["ring"]]
    return [(key["id"], bytes.fromhex(key["secret_hex"])) for key in ring["keys"]], ring["audience"]


def by_name(vector):
    return vector["name"]


@pytest.mark.parametrize("name", VECTORS["rings"])
def test_vector_signing_keys(name):
    ring = VECTORS["rings"][name]
    for key in ring["keys"]:
        assert reference.signing_key(bytes.fromhex(key["secret_hex"]), ring["audience"]).hex() == key["signing_key_hex"]


@pytest.mark.parametrize("vector", VECTORS["accepted"], ids=by_name)
def test_accepted_vectors(vector):
    ring, audience = vector_ring(vector)
    session_id = bytes.fromhex(vector["session_id_hex"])
    values = [vector[field] for field in ("principal", "issued_at_ms", "idle_timeout_s", "absolute_lifetime_s")]
    fields = reference.Fields(vector["key_id"], session_id, *values[1:], values[0])
    compiled = Keyring(ring, audience)

    assert reference.mint(ring, audience, *values, session_id) == vector["ticket"]
    assert compiled.mint(*values, session_id=session_id) == vector["ticket"]
    for text in (vector["ticket"], vector["ticket"].encode()):
        assert reference.verify(ring, audience, text, vector["now_ms"]) == fields
        assert said(compiled.verify(text, vector["now_ms"])) == fields


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=by_name)
def test_refused_vectors(vector):
    ring, audience = vector_ring(vector)
    compiled = Keyring(ring, audience)
    for text in (vector["ticket"], vector["ticket"].encode()):
        assert reference.verify(ring, audience, text, vector["now_ms"]) == vector["reason"]
        assert said(compiled.verify(text, vector["now_ms"])) == vector["reason"]


def test_the_vectors_cover_every_reason_and_every_length_of_tail():
    assert {vector["reason"] for vector in VECTORS["refused"]} == {
        "malformed",
        "unknown_key",
        "bad_signature",
        "expired",
    }
    assert {len(vector["ticket"]) % 4 for vector in VECTORS["accepted"]} == {0, 2, 3}


def test_the_tickets_in_the_documentation_are_vectors():
    shown = set(re.findall(r"^([A-Za-z0-9_-]{88,})$", DOCUMENTATION, re.MULTILINE))
    assert len(shown) == 3
    assert shown <= {vector["ticket"] for vector in VECTORS["accepted"] + VECTORS["refused"]}


def test_the_keys_in_the_documentation_are_the_vectors(tmp_path, monkeypatch):
    (key_file,) = re.findall(r"```toml\n(.*?)```", DOCUMENTATION, re.DOTALL)
    (variable,) = re.findall(r"^(1:.*)$", DOCUMENTATION, re.MULTILINE)
    (tmp_path / "keys.toml").write_text(key_file)
    monkeypatch.setenv("FASTTICKET_KEYS", variable)
    ring, _ = vector_ring({"ring": "two"})
    assert read_keys(tmp_path / "keys.toml") == ring
    for keyring in (Keyring.from_file(tmp_path / "keys.toml"), Keyring.from_env()):
        assert keyring.mint("alice", 1, 2, 3, SESSION_ID) == reference.mint(
            ring, "default", "alice", 1, 2, 3, SESSION_ID
        )


# -------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("principal", ["a", "alice@example.org", "two words", "Zoë", "🎫", "é" * 95, "x" * 190])
def test_what_was_minted_is_what_is_read(keyring, principal):
    text = keyring.mint(principal, NOW_MS, 7200, 86400, SESSION_ID)
    ticket = keyring.verify(text, NOW_MS)
    assert said(ticket) == reference.Fields(2, SESSION_ID, NOW_MS, 7200, 86400, principal)
    assert ticket.absolute_deadline_ms == NOW_MS + 86_400_000


def test_by_default_a_ticket_has_no_timeouts_and_a_fresh_session_id(keyring):
    tickets = [keyring.verify(keyring.mint("alice", NOW_MS), LATEST_MS) for _ in range(100)]
    assert len({ticket.session_id for ticket in tickets}) == 100
    assert {(ticket.idle_timeout_s, ticket.absolute_lifetime_s) for ticket in tickets} == {(0, 0)}
    assert tickets[0].absolute_deadline_ms == NEVER_MS


@pytest.mark.parametrize(
    ("lifetime_s", "since_issue_ms", "expected"),
    [
        (0, LATEST_MS - NOW_MS, None),
        (1, 999, None),
        (1, 1000, "expired"),
        (60, -NOW_MS, None),
        (60, 59_999, None),
        (60, 60_000, "expired"),
        (2**32 - 1, 1000 * (2**32 - 1) - 1, None),
        (2**32 - 1, 1000 * (2**32 - 1), "expired"),
    ],
)
def test_a_ticket_expires_on_the_millisecond(keyring, lifetime_s, since_issue_ms, expected):
    text = keyring.mint("alice", NOW_MS, 0, lifetime_s)
    result = keyring.verify(text, NOW_MS + since_issue_ms)
    assert (result.reason if not result else None) == expected


def test_raw_is_the_decoded_ticket(keyring):
    text = keyring.mint("alice", NOW_MS)
    assert keyring.verify(text, NOW_MS).raw == raw_of(text)


@pytest.mark.parametrize(
    ("idle_timeout_s", "lifetime_s", "slack_ms", "after_issue_ms"),
    [
        (10, 60, 0, 15_000),
        (10, 60, 500, 15_500),
        (56, 60, 0, 60_000),
        (55, 60, 0, 60_000),
        (54, 60, 999, 59_999),
        (54, 60, 1001, 60_000),
        (10, 0, 0, 15_000),
        (0, 60, 500, 60_000),
        (0, 0, 500, NEVER_MS - NOW_MS),
    ],
)
def test_the_idle_deadline_follows_the_use_but_never_passes_the_absolute_one(
    keyring, idle_timeout_s, lifetime_s, slack_ms, after_issue_ms
):
    ticket = keyring.verify(keyring.mint("alice", NOW_MS, idle_timeout_s, lifetime_s), NOW_MS)
    assert ticket.idle_deadline_ms(NOW_MS + 5000, slack_ms) == NOW_MS + after_issue_ms


def test_the_idle_timeout_is_the_caches_to_judge(keyring):
    assert keyring.verify(keyring.mint("alice", NOW_MS, idle_timeout_s=1), NOW_MS + 10**9)


# ------------------------------------------------------------------------------------------ minting


NO_PRINCIPALS = ["", " ", " a", "a ", "a\n", "\ta", "a\0b", "a\x1f", "\x7f", "\ud800", "a\udfffb", "\ud83c\udfab"]
TOO_LONG = ["x" * 191, "é" * 95 + "x", "x" * 100_000]


@pytest.mark.parametrize("principal", NO_PRINCIPALS + TOO_LONG)
def test_what_is_no_principal_is_not_minted(keyring, principal):
    with pytest.raises(InvalidPrincipal) as caught:
        keyring.mint(principal, NOW_MS)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("principal", [b"alice", None, 7])
def test_a_principal_is_a_str(keyring, principal):
    with pytest.raises(TypeError):
        keyring.mint(principal, NOW_MS)


@pytest.mark.parametrize("issued_at_ms", [-1, 2**48, 2**80])
def test_issued_at_has_six_bytes(keyring, issued_at_ms):
    with pytest.raises(ValueError):
        keyring.mint("alice", issued_at_ms)


@pytest.mark.parametrize("field", ["idle_timeout_s", "absolute_lifetime_s"])
@pytest.mark.parametrize("value", [-1, 2**32, 2**80])
def test_a_timeout_has_four_bytes(keyring, field, value):
    with pytest.raises(ValueError):
        keyring.mint("alice", NOW_MS, **{field: value})


@pytest.mark.parametrize("session_id", [b"", bytes(15), bytes(17)])
def test_a_session_id_has_sixteen_bytes(keyring, session_id):
    with pytest.raises(ValueError):
        keyring.mint("alice", NOW_MS, session_id=session_id)


@pytest.mark.parametrize("session_id", ["A" * 16, 16, array("H", range(16)), memoryview(array("H", range(16)))])
def test_sixteen_of_something_else_is_no_session_id(keyring, session_id):
    """`array("H")` has 16 items in 32 bytes; `array("Q")`, in 128, would overrun the ticket's
    buffer.
    """
    with pytest.raises((TypeError, ValueError)):
        keyring.mint("alice", NOW_MS, session_id=session_id)


# ------------------------------------------------------------------------------- session id as text


@given(st.binary(min_size=16, max_size=16))
def test_a_session_id_as_text(session_id):
    text = encode_session_id(session_id)
    assert text == reference.encode_text(session_id)
    assert decode_session_id(text) == decode_session_id(text.encode()) == session_id


@pytest.mark.parametrize("session_id", [b"", bytes(15), bytes(17), bytes(255)])
def test_only_sixteen_bytes_are_a_session_id(session_id):
    with pytest.raises(ValueError):
        encode_session_id(session_id)


@pytest.mark.parametrize("text", ["", "A" * 21, "A" * 23, "A" * 22 + "==", "A" * 21 + "=", "A" * 21 + "é", "+" * 22])
def test_other_text_is_no_session_id(text):
    with pytest.raises(ValueError):
        decode_session_id(text)


@pytest.mark.parametrize("bits", range(1, 16))
def test_a_session_id_has_one_text(bits):
    text = encode_session_id(SESSION_ID)
    with pytest.raises(ValueError):
        decode_session_id(text[:-1] + ALPHABET[ALPHABET.index(text[-1]) | bits])


# ----------------------------------------------------------------------------------- forged tickets


@pytest.mark.parametrize("principal", ["alice", "bob", "carl", "x" * 190])
def test_no_flipped_bit_is_accepted(keyring, principal):
    raw = raw_of(keyring.mint(principal, NOW_MS, 7200, 60, SESSION_ID))
    reasons = set()
    for at in range(len(raw)):
        for bit in range(8):
            text = reference.encode_text(raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :])
            result = keyring.verify(text, NOW_MS)
            assert not result, (at, bit)
            assert result.reason == reference.verify(RING, "default", text, NOW_MS), (at, bit)
            reasons.add(result.reason)
    assert reasons == {"malformed", "unknown_key", "bad_signature"}


@pytest.mark.parametrize("principal", ["alice", "bob", "carl"])
def test_no_changed_character_is_accepted(keyring, principal):
    text = keyring.mint(principal, NOW_MS, 7200, 60, SESSION_ID)
    for at in range(len(text)):
        for character in map(chr, range(129)):
            changed = text[:at] + character + text[at + 1 :]
            result = keyring.verify(changed, NOW_MS)
            assert bool(result) == (changed == text), (at, character)
            assert said(result) == reference.verify(RING, "default", changed, NOW_MS), (at, character)


@pytest.mark.parametrize("principal", ["alice", "bob", "carl"])
def test_no_other_text_of_the_same_bytes_is_accepted(keyring, principal):
    """Canonical base64url: lenient decoders read all of these as the ticket."""
    text = keyring.mint(principal, NOW_MS, 7200, 60, SESSION_ID)
    others = [text + "=", text + "==", text + "===", text + "\n", text + "A", " " + text, text + "\0", "\ufeff" + text]
    others += [text[:50] + inner + text[50:] for inner in (" ", "\n", "\r\n", "=", ".", "é", "\0")]
    others += [text[:50] + chr(0xFEE0 + ord(text[50])) + text[51:]]  # full-width form of the same character
    for other in others:
        assert keyring.verify(other, NOW_MS) is Verdict.MALFORMED
        assert keyring.verify(other.encode(), NOW_MS) is Verdict.MALFORMED


@pytest.mark.parametrize(("principal", "spare_bits"), [("alice", 4), ("bob", 2)])
def test_bits_that_encode_nothing_are_zero(keyring, principal, spare_bits):
    text = keyring.mint(principal, NOW_MS, 7200, 60, SESSION_ID)
    value = ALPHABET.index(text[-1])
    for bits in range(1, 1 << spare_bits):
        other = text[:-1] + ALPHABET[value | bits]
        assert raw_of(other) == raw_of(text)
        assert keyring.verify(other, NOW_MS) is Verdict.MALFORMED, bits


@pytest.mark.parametrize("issued_at_ms", [0xFBEFBEFBEFBE, 2**48 - 1])
def test_the_ordinary_base64_alphabet_is_refused(keyring, issued_at_ms):
    text = keyring.mint("alice", issued_at_ms)
    other = text.replace("-", "+").replace("_", "/")
    assert other != text
    assert keyring.verify(other, NOW_MS) is Verdict.MALFORMED


@pytest.mark.parametrize("chars", [*range(90), 340, 341, 342, 343, 344, 10_000, 1_000_000])
def test_no_length_is_too_strange(keyring, chars):
    assert keyring.verify("A" * chars, NOW_MS) is Verdict.MALFORMED
    assert keyring.verify(b"_" * chars, NOW_MS) is Verdict.MALFORMED


def test_every_principal_length_but_zero_and_more_than_190(keyring):
    for length in range(256):
        text = signed(body(b"x" * length))
        assert bool(keyring.verify(text, NOW_MS)) == (1 <= length <= 190), length


@pytest.mark.parametrize("length", range(256))
def test_the_principal_length_must_fit_the_size(keyring, length):
    text = signed(body(b"x" * 100, length=length))
    assert said(keyring.verify(text, NOW_MS)) == reference.verify(RING, "default", text, NOW_MS)
    assert bool(keyring.verify(text, NOW_MS)) == (length == 100)


@pytest.mark.parametrize("ticket_format", [0, 2, 0x81, 255])
def test_other_formats_are_refused(keyring, ticket_format):
    assert keyring.verify(signed(body(ticket_format=ticket_format)), NOW_MS) is Verdict.MALFORMED


def test_every_byte_in_a_principal_is_judged_as_the_reference_judges_it(keyring):
    """All one- and two-byte principals, and the second byte after every lead byte of three and
    four.
    """
    names = [bytes([first]) for first in range(256)]
    names += [bytes([first, second]) for first in range(256) for second in range(256)]
    names += [bytes([first, second, 0x80]) for first in range(0xE0, 0xF0) for second in range(256)]
    names += [bytes([first, second, 0x80, 0xBF]) for first in range(0xF0, 0xF8) for second in range(256)]
    names += [bytes([first, 0x90, second, 0xBF]) for first in range(0xF0, 0xF8) for second in range(256)]
    accepted = 0
    for name in names:
        text = signed(body(name))
        result = keyring.verify(text, NOW_MS)
        assert bool(result) == (reference.principal_text(name) is not None), name
        assert result or result is Verdict.MALFORMED
        accepted += bool(result)
    assert 0 < accepted < len(names)


# Each ticket has two faults; the first in the order of the specification is the one that is told.
@pytest.mark.parametrize(
    ("ticket", "expected"),
    [
        (signed(body(ticket_format=2, key_id=9)), Verdict.MALFORMED),
        (signed(body(key_id=9), STRANGE), Verdict.UNKNOWN_KEY),
        (signed(body(key_id=9, lifetime_s=1)), Verdict.UNKNOWN_KEY),
        (signed(body(b"a\nb"), STRANGE), Verdict.BAD_SIGNATURE),
        (signed(body(lifetime_s=1), STRANGE), Verdict.BAD_SIGNATURE),
        (signed(body(b"a\nb", lifetime_s=1)), Verdict.MALFORMED),
        (signed(body(lifetime_s=1)), Verdict.EXPIRED),
    ],
)
def test_order_of_refusal(keyring, ticket, expected):
    assert keyring.verify(ticket, NOW_MS + 60_000) is expected


@pytest.mark.parametrize("not_text", [None, 7, 7.0, [], bytearray(94), memoryview(bytes(94)), object()])
def test_a_ticket_is_str_or_bytes(keyring, not_text):
    with pytest.raises(TypeError, match="a ticket is str or bytes"):
        keyring.verify(not_text, NOW_MS)


def test_subclasses_of_str_and_bytes_are_text_too(keyring):
    class Text(str):
        pass

    class Octets(bytes):
        pass

    text = keyring.mint("alice", NOW_MS)
    assert said(keyring.verify(Text(text), NOW_MS)) == said(keyring.verify(text, NOW_MS))
    assert said(keyring.verify(Octets(text.encode()), NOW_MS)) == said(keyring.verify(text, NOW_MS))
    assert keyring.verify(Text("é" + text[1:]), NOW_MS) is Verdict.MALFORMED


# ---------------------------------------------------------------------------- against the reference

any_text = st.text(st.characters(exclude_categories=()), max_size=200)
awkward_text = st.lists(
    st.sampled_from(["a", " ", "\0", "\n", "\x1f", "\x7f", "\x80", "é", "\ud800", "\udfff", "\uffff", "🎫", "x" * 63])
).map("".join)
principals = any_text | awkward_text | st.text("ab ", min_size=185, max_size=195)
octets_4 = st.integers(0, 2**32 - 1)
octets_6 = st.integers(0, 2**48 - 1)


@thorough
@given(principals, octets_6, octets_4, octets_4, st.binary(min_size=16, max_size=16))
def test_mint_agrees_with_the_reference(principal, issued_at_ms, idle_timeout_s, lifetime_s, session_id):
    keyring = Keyring(RING)
    values = (principal, issued_at_ms, idle_timeout_s, lifetime_s, session_id)
    try:
        expected = reference.mint(RING, "default", *values)
    except ValueError:
        with pytest.raises(InvalidPrincipal):
            keyring.mint(*values)
        return
    assert keyring.mint(*values) == expected
    assert said(keyring.verify(expected, issued_at_ms)) == reference.verify(RING, "default", expected, issued_at_ms)


@thorough
@given(st.binary(max_size=192) | any_text.map(lambda text: text.encode("utf-8", "surrogatepass")), octets_4, octets_6)
def test_verify_agrees_on_whatever_was_signed(name, lifetime_s, now_ms):
    text = signed(body(name[:255], lifetime_s=lifetime_s))
    assert said(Keyring(RING).verify(text, now_ms)) == reference.verify(RING, "default", text, now_ms)


@thorough
@given(st.text(ALPHABET + "+/= é", max_size=345) | st.text(ALPHABET, min_size=88, max_size=340))
def test_verify_agrees_on_any_text(text):
    assert said(Keyring(RING).verify(text, NOW_MS)) == reference.verify(RING, "default", text, NOW_MS)


@thorough
@given(
    st.text(min_size=1, max_size=20).filter(lambda text: reference.principal_text(text.encode()) is not None),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2), st.text(ALPHABET + "=+\n", max_size=3)), max_size=3),
)
def test_verify_agrees_on_edited_tickets(principal, edits):
    keyring = Keyring(RING)
    minted = keyring.mint(principal, NOW_MS, 7200, 60)
    text = minted
    for at, removed, inserted in edits:
        at %= len(text) + 1
        text = text[:at] + inserted + text[at + removed :]
    assert said(keyring.verify(text, NOW_MS)) == reference.verify(RING, "default", text, NOW_MS)
    assert bool(keyring.verify(text, NOW_MS)) == (text == minted)


RING_AND_A_STRANGER = {1: OLD, 2: NEW, 9: STRANGE}
NAME_PARTS = [b"a", b" ", b"\0", b"\n", b"\x7f", b"\xc3\xa9", b"\xe6\x9d\xb1", b"\xf0\x9f\x8e\xab", b"\x80"]
NAME_PARTS += [b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"bob", b"x" * 60]


class Mutator:
    """Tickets that an attacker, a bug or a proxy could have made. Seeded: the same seed gives the
    same tickets.
    """

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.pool = []
        self.refill()

    def refill(self):
        self.pool = [self.genuine() for _ in range(64)]

    def genuine(self):
        name = b"".join(self.random.choices((b"a", b"\xc3\xa9", b"bob", b"x" * 20), k=self.random.randint(1, 9)))
        return self.sign(self.some_body(name))

    def some_body(self, name):
        pick = self.random.choice
        lifetime_s = pick((0, 1, 60, 2**32 - 1))
        return body(name, key_id=pick((1, 2, 2, 9)), issued_at_ms=pick((0, NOW_MS, 2**48 - 1)), lifetime_s=lifetime_s)

    def sign(self, body_bytes):
        return signed(body_bytes, RING_AND_A_STRANGER.get(body_bytes[1], OLD))

    def next(self):
        """(text, whether this very text was signed with the right key)"""
        mutation = self.random.choice((self.edit_text, self.edit_text, self.edit_raw, self.edit_body, self.edit_name))
        return mutation(self.random.choice(self.pool))

    def edit_text(self, text):
        at = self.random.choice((self.random.randrange(len(text)), len(text) - 1))
        inserted = self.random.choice((*ALPHABET, "", "AA", "=", "==", "+", "/", " ", "\n", "\0", "\x80", "é", "東"))
        removed = self.random.choice((0, 1, 1, 1, 1, 2, 3, 400))
        return text[:at] + inserted + text[at + removed :], False

    def edit_raw(self, text):
        return reference.encode_text(self.edit_bytes(raw_of(text))), False

    def edit_body(self, text):
        changed = self.edit_bytes(raw_of(text)[:-32])
        return self.sign(changed) if len(changed) > 1 else "", True

    def edit_name(self, _):
        parts = self.random.choices(NAME_PARTS, k=self.random.randint(1, 4))
        return self.sign(self.some_body(b"".join(parts))), True

    def edit_bytes(self, data):
        at = self.random.randrange(len(data))
        kind = self.random.randrange(8)
        if kind < 4:
            changed = bytes([data[at] ^ 1 << self.random.randrange(8)])
            return data[:at] + changed + data[at + 1 :]
        if kind == 4:
            return data[:at] + self.random.randbytes(1) + data[at + 1 :]
        if kind == 5:
            return data[:at] + data[at + self.random.randint(1, 3) :]
        if kind == 6:
            return data[:at] + self.random.randbytes(self.random.randint(1, 3)) + data[at:]
        return data[:at] + raw_of(self.random.choice(self.pool))[at : len(data)]


def test_mutated_tickets_are_judged_as_the_reference_judges_them(keyring):
    count = int(50_000 * float(os.environ.get("FASTTICKET_FUZZ", "1")))
    seed = int(os.environ.get("FASTTICKET_FUZZ_SEED", "1"))
    mutator = Mutator(seed)
    clocks_ms = (0, 999, 1000, NOW_MS, NOW_MS + 999, NOW_MS + 1000, NOW_MS + 59_999, NOW_MS + 60_000, LATEST_MS)
    seen = dict.fromkeys(("accepted", "malformed", "unknown_key", "bad_signature", "expired"), 0)
    for number in range(count):
        if number % 1000 == 999:
            mutator.refill()
        text, is_signed = mutator.next()
        now_ms = clocks_ms[number % len(clocks_ms)]
        expected = reference.verify(RING, "default", text, now_ms)
        result = keyring.verify(text, now_ms)
        assert said(result) == expected, (seed, number, text, now_ms)
        # Whatever the two agree on: a text that nobody signed is refused. (An edit may lead back to
        # a genuine ticket.)
        assert not result or is_signed or text in mutator.pool, (seed, number, text, now_ms)
        seen["accepted" if result else result.reason] += 1
    assert min(seen.values()) >= count // 200, seen


# ----------------------------------------------------------------------------------------- key ring


def test_the_newest_key_signs_and_any_key_verifies():
    before, after = Keyring([(1, OLD)]), Keyring([(1, OLD), (2, NEW)])
    old, new = before.mint("alice", NOW_MS), after.mint("alice", NOW_MS)
    assert after.verify(old, NOW_MS).key_id == 1
    assert after.verify(new, NOW_MS).key_id == 2
    assert before.verify(new, NOW_MS) is Verdict.UNKNOWN_KEY


def test_newest_is_the_last_one_not_the_largest_id():
    keyring = Keyring([(200, OLD), (3, NEW)])
    assert keyring.ids == (200, 3)
    assert keyring.verify(keyring.mint("alice", NOW_MS), NOW_MS).key_id == 3


def test_a_full_ring():
    ring = [(key_id, bytes([key_id]) * 32) for key_id in range(256)]
    keyring = Keyring(ring)
    for key_id, secret in ring:
        assert keyring.verify(signed(body(key_id=key_id), secret), NOW_MS).key_id == key_id
    assert keyring.uses == dict.fromkeys(range(256), 1)


def test_a_removed_key_is_unknown(keyring):
    old = Keyring([(1, OLD)]).mint("alice", NOW_MS)
    assert keyring.verify(old, NOW_MS)
    assert keyring.replace([(2, NEW)]) == {1}
    assert keyring.ids == (2,)
    assert keyring.verify(old, NOW_MS) is Verdict.UNKNOWN_KEY


def test_replace_signs_with_the_new_newest(keyring):
    assert keyring.replace([*RING, (3, STRANGE)]) == set()
    assert keyring.verify(keyring.mint("alice", NOW_MS), NOW_MS).key_id == 3


def test_replace_tells_an_id_whose_secret_changed(keyring):
    text = keyring.mint("alice", NOW_MS)
    keyring.verify(text, NOW_MS)
    assert keyring.replace([(1, OLD), (2, STRANGE)]) == {2}
    assert keyring.verify(text, NOW_MS) is Verdict.BAD_SIGNATURE
    assert keyring.uses == {1: 0, 2: 0}


def test_replace_by_entirely_other_keys(keyring):
    assert keyring.replace([(3, STRANGE)]) == {1, 2}
    assert keyring.uses == {3: 0}


def test_uses_count_good_signatures_and_nothing_else(keyring):
    tag_off_by_one_bit = raw_of(signed(body()))
    tag_off_by_one_bit = reference.encode_text(tag_off_by_one_bit[:-1] + bytes([tag_off_by_one_bit[-1] ^ 1]))
    keyring.mint("alice", NOW_MS)
    for refused in ("", tag_off_by_one_bit, signed(body(), STRANGE), signed(body(key_id=9)), signed(body(length=6))):
        assert not keyring.verify(refused, NOW_MS)
    assert keyring.uses == {1: 0, 2: 0}

    keyring.verify(signed(body()), NOW_MS)
    keyring.verify(signed(body()), NOW_MS)
    assert keyring.uses == {1: 0, 2: 2}
    keyring.verify(signed(body(key_id=1), OLD), NOW_MS)
    assert keyring.uses == {1: 1, 2: 2}
    assert keyring.verify(signed(body()), NOW_MS + 60_000) is Verdict.EXPIRED
    assert keyring.uses == {1: 1, 2: 3}


def test_uses_are_carried_over_replace(keyring):
    for _ in range(3):
        keyring.verify(signed(body()), NOW_MS)
    keyring.verify(signed(body(key_id=1), OLD), NOW_MS)
    assert keyring.replace([(2, NEW), (1, OLD), (3, STRANGE)]) == set()
    assert keyring.uses == {2: 3, 1: 1, 3: 0}
    assert keyring.ids == (2, 1, 3)


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [(1, OLD), (1, NEW)],
        [(1, OLD), (2, NEW[:31])],
        [(1, OLD), (256, NEW)],
        [(3, STRANGE), (-1, NEW)],
        [(3, STRANGE), ("2", NEW)],
        [(3, STRANGE), (True, NEW)],
        [(3, STRANGE), (10**5000, NEW)],
    ],
)
def test_a_failing_replace_leaves_the_ring_as_it_was(keyring, keys):
    text = keyring.mint("alice", NOW_MS)
    keyring.verify(text, NOW_MS)
    with pytest.raises(ConfigError):
        keyring.replace(keys)
    assert keyring.ids == (1, 2)
    assert keyring.uses == {1: 0, 2: 1}
    assert keyring.verify(text, NOW_MS).key_id == 2
    assert keyring.mint("alice", NOW_MS, 0, 0, SESSION_ID) == reference.mint(
        RING, "default", "alice", NOW_MS, 0, 0, SESSION_ID
    )


def test_a_replace_whose_keys_fail_to_arrive_leaves_the_ring_as_it_was(keyring):
    def keys():
        yield (3, STRANGE)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        keyring.replace(keys())
    assert keyring.ids == (1, 2)


def test_what_ids_and_uses_return_is_the_callers_to_keep(keyring):
    keyring.uses[2] = 99
    assert keyring.uses == {1: 0, 2: 0}


def test_audiences_are_separate():
    rings = {audience: Keyring(RING, audience) for audience in ("default", "default/", "Default", "", "büro")}
    for minted_for, minting in rings.items():
        text = minting.mint("alice", NOW_MS)
        for audience, verifying in rings.items():
            result = verifying.verify(text, NOW_MS)
            assert result if audience == minted_for else result is Verdict.BAD_SIGNATURE


def test_replace_keeps_the_audience():
    keyring = Keyring(RING, "payroll")
    keyring.replace([(3, STRANGE)])
    text = keyring.mint("alice", NOW_MS, 1, 2, SESSION_ID)
    assert text == reference.mint([(3, STRANGE)], "payroll", "alice", NOW_MS, 1, 2, SESSION_ID)
    assert keyring.audience == "payroll"


def test_generated_rings_differ():
    one, other = Keyring.generate(), Keyring.generate("payroll")
    assert one.ids == other.ids == (1,)
    assert (one.audience, other.audience) == ("default", "payroll")
    assert one.verify(other.mint("alice", NOW_MS), NOW_MS) is Verdict.BAD_SIGNATURE
    assert Keyring.generate().verify(one.mint("alice", NOW_MS), NOW_MS) is Verdict.BAD_SIGNATURE


# ----------------------------------------------------------------------------- where keys come from

# Looks like nothing else, so that a message that shows it is found. 43 characters: 32 bytes.
SECRET_TEXT = "Sup3rS3cretSup3rS3cretSup3rS3cretSup3rS3cr0"
OTHER_TEXT = "0therS3cr3t0therS3cr3t0therS3cr3t0therS3cr0"
TOO_SHORT_TEXT = "Sup3rS3cretSup3rS3cretSup3rS3cretSup3rS3cQ"  # 31 bytes


def key_table(key_id, secret=SECRET_TEXT):
    return f'[[key]]\nid = {key_id}\nsecret = "{secret}"\n'


def assert_one_clear_line(error, place, *fragments):
    """One line that names the place and says what is wrong, and shows no secret: neither does the
    traceback.
    """
    message = str(error)
    assert message.startswith(place)
    assert "\n" not in message
    assert len(message) < 300
    for fragment in fragments:
        assert fragment in message
    whole = "".join(traceback.format_exception(error))
    for secret in (SECRET_TEXT, OTHER_TEXT, TOO_SHORT_TEXT):
        for length in range(8, len(secret)):
            assert secret[:length] not in message
        assert secret not in whole
        assert repr(raw_of(secret)) not in whole
        assert raw_of(secret).hex() not in whole


def test_a_ring_from_a_file(tmp_path):
    path = tmp_path / "keys.toml"
    path.write_text("# oldest first\n" + key_table(7) + key_table(3, OTHER_TEXT + "="))
    keys = [(7, raw_of(SECRET_TEXT)), (3, raw_of(OTHER_TEXT))]
    assert read_keys(path) == read_keys(str(path)) == keys
    keyring = Keyring.from_file(path, "payroll")
    assert keyring.ids == (7, 3)
    assert keyring.audience == "payroll"
    assert keyring.mint("alice", 1, 2, 3, SESSION_ID) == reference.mint(keys, "payroll", "alice", 1, 2, 3, SESSION_ID)


@pytest.mark.parametrize("text", ["7:{},3:{}", " 7:{} , 3:{}= ", "007:{},3:{}\n"])
def test_a_ring_from_the_environment(monkeypatch, text):
    monkeypatch.setenv("FASTTICKET_KEYS", text.format(SECRET_TEXT, OTHER_TEXT))
    keys = [(7, raw_of(SECRET_TEXT)), (3, raw_of(OTHER_TEXT))]
    keyring = Keyring.from_env(audience="payroll")
    assert keyring.ids == (7, 3)
    assert keyring.mint("alice", 1, 2, 3, SESSION_ID) == reference.mint(keys, "payroll", "alice", 1, 2, 3, SESSION_ID)


def test_the_environment_variable_can_have_another_name(monkeypatch):
    monkeypatch.delenv("FASTTICKET_KEYS", raising=False)
    monkeypatch.setenv("PAYROLL_KEYS", f"7:{SECRET_TEXT}")
    assert Keyring.from_env("PAYROLL_KEYS").ids == (7,)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ("", "[[key]]"),
        ("key = []", "no key"),
        ("key = 1", "[[key]]"),
        (key_table(1).replace("[[key]]", "[key]"), "[[key]]"),
        (key_table(1) + "[other]\n", "[[key]]"),
        ("key = [1]", "number 1"),
        (key_table(1) + "[[key]]\nid = 2\n", "number 2"),
        (key_table(1) + 'note = "mine"\n', "number 1"),
        (key_table(1) + "[[key]]\nid = 2\nsecret = 12345678\n", "number 2"),
        (key_table(1, SECRET_TEXT + "!"), "base64url"),
        (key_table(1, SECRET_TEXT[:-2]), "base64url"),
        (key_table(1, SECRET_TEXT + "é"), "base64url"),
        (key_table(1, SECRET_TEXT[:20] + " " + SECRET_TEXT[20:]), "base64url"),
        (key_table(1, ""), "at least 32"),
        (key_table(1, TOO_SHORT_TEXT), "at least 32"),
        (key_table(1) + key_table(256), "0 to 255"),
        (key_table(-1), "0 to 255"),
        (key_table("1.0"), "0 to 255"),
        (key_table("true"), "0 to 255"),
        (key_table('"1"'), "0 to 255"),
        (key_table(f'"{OTHER_TEXT}"'), "0 to 255"),  # id and secret mixed up
        (key_table("0x" + "f" * 9999), "0 to 255"),
        (key_table("9" * 9999), "not TOML"),
        (key_table(1) + key_table(1, OTHER_TEXT), "twice"),
        (f"[[key]]\nid = 1\nsecret = {SECRET_TEXT}\n", "not TOML"),
        (f'[[key]]\nid = 1\nsecret = "{SECRET_TEXT}\n', "not TOML"),
        ("[" * 20_000, "not TOML"),
        ("key = " + "[" * 20_000, "not TOML"),
    ],
)
def test_a_bad_key_file(tmp_path, content, fragment):
    path = tmp_path / "keys.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        Keyring.from_file(path)
    assert_one_clear_line(caught.value, f"{path}: ", fragment)


def test_a_key_file_that_is_not_text(tmp_path):
    path = tmp_path / "keys.toml"
    path.write_bytes(key_table(1).encode() + b"\xff")
    with pytest.raises(ConfigError) as caught:
        Keyring.from_file(path)
    assert_one_clear_line(caught.value, f"{path}: not TOML")


@pytest.mark.parametrize(("name", "fragment"), [("absent.toml", "No such file"), (".", "Is a directory")])
def test_a_key_file_that_can_not_be_read(tmp_path, name, fragment):
    with pytest.raises(ConfigError) as caught:
        Keyring.from_file(str(tmp_path / name))
    assert_one_clear_line(caught.value, str(tmp_path), fragment)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "not set"),
        (" \n", "not set"),
        (SECRET_TEXT, "item 1 is not id:secret"),
        (f":{SECRET_TEXT}", "item 1 is not id:secret"),
        (f"1:{SECRET_TEXT},", "item 2 is not id:secret"),
        (f"1:{SECRET_TEXT};2:{OTHER_TEXT}", "item 1"),
        (f"{SECRET_TEXT}:1", "item 1 is not id:secret"),
        (f"-1:{SECRET_TEXT}", "item 1 is not id:secret"),
        (f"1 :{SECRET_TEXT}", "item 1 is not id:secret"),
        (f"\u0661:{SECRET_TEXT}", "item 1 is not id:secret"),
        (f"1: {SECRET_TEXT}", "base64url"),
        (f"1:{SECRET_TEXT},2:{OTHER_TEXT}!", "item 2"),
        (f"1:{SECRET_TEXT}\udcff", "base64url"),
        ("1:", "at least 32"),
        (f"1:{TOO_SHORT_TEXT}", "at least 32"),
        (f"256:{SECRET_TEXT}", "0 to 255"),
        ("9" * 9999 + f":{SECRET_TEXT}", "item 1 is not id:secret"),
        (f"1:{SECRET_TEXT},1:{OTHER_TEXT}", "twice"),
    ],
)
def test_bad_keys_in_the_environment(monkeypatch, text, fragment):
    monkeypatch.setenv("FASTTICKET_KEYS", text)
    with pytest.raises(ConfigError) as caught:
        Keyring.from_env()
    assert_one_clear_line(caught.value, "FASTTICKET_KEYS", fragment)


def test_no_environment_variable(monkeypatch):
    monkeypatch.delenv("FASTTICKET_KEYS", raising=False)
    with pytest.raises(ConfigError) as caught:
        Keyring.from_env()
    assert_one_clear_line(caught.value, "FASTTICKET_KEYS is not set")


def test_a_pair_the_wrong_way_round_shows_no_secret():
    for secret in (SECRET_TEXT, SECRET_TEXT.encode(), raw_of(SECRET_TEXT)):
        with pytest.raises(ConfigError) as caught:
            Keyring([(secret, 1)])
        assert_one_clear_line(caught.value, "key ring: ", "0 to 255")


# ---------------------------------------------------------------------------- what must not get out


def test_no_representation_shows_a_secret_or_a_ticket(keyring):
    text = keyring.mint("alice", NOW_MS)
    ticket = keyring.verify(text, NOW_MS)
    shown = [repr(keyring), str(keyring), f"{keyring}", repr(ticket), str(ticket), f"{ticket}"]
    shown += [repr(keyring.verify(text[:-1] + "*", NOW_MS)), str(keyring.verify("", NOW_MS)), repr(keyring.uses)]
    shown += [repr(getattr(keyring, name)) for name in dir(keyring) if not name.startswith("__")]
    for one in shown:
        assert text not in one
        assert ticket.session_id not in one
        for _, secret in RING:
            for form in (secret, reference.signing_key(secret, "default")):
                assert repr(form)[2:-1] not in one
                assert form.hex() not in one
                assert reference.encode_text(form) not in one


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_neither_keyring_nor_ticket_can_be_pickled(keyring, protocol):
    for one in (keyring, keyring.verify(signed(body()), NOW_MS)):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(one, protocol)
        with pytest.raises(TypeError, match="cannot pickle"):
            copy.deepcopy(one)


def test_a_ticket_can_not_be_changed(keyring):
    ticket = keyring.verify(signed(body()), NOW_MS)
    for name in ("principal", "key_id", "absolute_lifetime_s", "anything_else"):
        with pytest.raises(AttributeError):
            setattr(ticket, name, "mallory")


def test_a_ticket_outlives_its_keyring_and_its_text():
    ticket = Keyring(RING).verify(signed(body()), NOW_MS)
    gc.collect()
    assert ticket.principal == "alice"


# -------------------------------------------------------------------------------------------- leaks

GOOD, FOREIGN, FORGED, BAD_NAME = signed(body()), signed(body(key_id=9)), signed(body(), STRANGE), signed(body(b"a\nb"))
TWICE = [*RING, (1, STRANGE)]


def failing(error, work, *arguments):
    with pytest.raises(error):
        work(*arguments)


LEAKS = {
    "mint": lambda keyring: keyring.mint("alice", NOW_MS, 7200, 60),
    "mint, no principal": lambda keyring: failing(InvalidPrincipal, keyring.mint, "a\nb", NOW_MS),
    "mint, no session id": lambda keyring: failing(ValueError, keyring.mint, "alice", NOW_MS, 0, 0, b""),
    "verify": lambda keyring: said(keyring.verify(GOOD, NOW_MS)),
    "verify bytes": lambda keyring: said(keyring.verify(GOOD.encode(), NOW_MS)),
    "malformed": lambda keyring: keyring.verify("A" * 94, NOW_MS),
    "not ASCII": lambda keyring: keyring.verify("é" * 94, NOW_MS),
    "unknown key": lambda keyring: keyring.verify(FOREIGN, NOW_MS),
    "bad signature": lambda keyring: keyring.verify(FORGED, NOW_MS),
    "bad principal": lambda keyring: keyring.verify(BAD_NAME, NOW_MS),
    "expired": lambda keyring: keyring.verify(GOOD, NOW_MS + 60_000),
    "wrong type": lambda keyring: failing(TypeError, keyring.verify, 7, NOW_MS),
    "new ring": lambda _: Keyring(RING),
    "new ring, refused": lambda _: failing(ConfigError, Keyring, TWICE),
    "replace": lambda keyring: keyring.replace(RING),
    "replace, refused": lambda keyring: failing(ConfigError, keyring.replace, TWICE),
    "ids and uses": lambda keyring: (keyring.ids, keyring.uses, repr(keyring)),
}


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps freed memory on purpose")
@pytest.mark.parametrize("work", LEAKS.values(), ids=LEAKS)
def test_nothing_is_leaked(keyring, work):
    """Python's allocator counts its blocks exactly; what libcrypto holds shows only in the resident
    size.
    """
    rounds = 10_000
    for _ in range(rounds // 4):
        work(keyring)
    gc.collect()
    blocks_before, resident_before = sys.getallocatedblocks(), resident_bytes()
    for _ in range(rounds):
        work(keyring)
    gc.collect()
    assert sys.getallocatedblocks() - blocks_before < rounds // 10
    assert resident_bytes() - resident_before < rounds * 100


def test_arguments_are_not_kept(keyring):
    text = "".join(list(keyring.mint("alice", NOW_MS)))
    arguments = [text, text.encode(), "alice " * 3 + "x", bytes(bytearray(SESSION_ID))]
    before = [sys.getrefcount(argument) for argument in arguments]
    for _ in range(1000):
        keyring.verify(arguments[0], NOW_MS)
        keyring.verify(arguments[1], NOW_MS)
        keyring.mint(arguments[2], NOW_MS, session_id=arguments[3])
    assert [sys.getrefcount(argument) for argument in arguments] == before


def test_tickets_of_an_accepted_audience_are_good_and_of_no_other():
    """While the audience changes. The ring signs for its own."""
    keys = [(1, b"k" * 32), (2, b"l" * 32)]
    old, new = Keyring(keys, "old"), Keyring(keys, "new", ["old", "older"])
    theirs, own = old.mint("alice", NOW_MS), new.mint("alice", NOW_MS)
    assert isinstance(new.verify(theirs, NOW_MS), Ticket)
    assert isinstance(new.verify(own, NOW_MS), Ticket)
    assert old.verify(own, NOW_MS) is Verdict.BAD_SIGNATURE
    assert new.verify(Keyring(keys, "strange").mint("alice", NOW_MS), NOW_MS) is Verdict.BAD_SIGNATURE
    assert new.uses == {1: 0, 2: 2}
    assert (new.audience, new.accept_audiences) == ("new", ("old", "older"))
    assert new.replace([(2, b"m" * 32), (3, b"n" * 32)]) == {1, 2}
    assert new.verify(theirs, NOW_MS) is Verdict.BAD_SIGNATURE  # the key is gone from all of them
    old.replace([(2, b"m" * 32), (3, b"n" * 32)])
    assert isinstance(new.verify(old.mint("alice", NOW_MS), NOW_MS), Ticket)
    with pytest.raises(ConfigError, match="at most 8"):
        Keyring(keys, "new", map(str, range(9)))
