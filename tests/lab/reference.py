"""The slow, obvious twin: what fastticket promises, in plain Python, standard library only.

It is the oracle of the tests: written from the specification (docs/reference/ticket-format.md),
never from the compiled code, and nothing in the package imports it. Where the two disagree, one of
them is wrong: read the specification.

    python tests/lab/reference.py > tests/lab/vectors.json      writes the test vectors again, byte
                                                                for byte
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import struct
from typing import NamedTuple

# ==================================================================================================
# the ticket

FORMAT = 1
PRINCIPAL_BYTES_MAX = 190
TAG_BYTES = 32
TEXT_CHARS_MIN = 88
TEXT_CHARS_MAX = 340
HEAD = struct.Struct(">BB16s6sIIB")  # format, key id, session id, issued at, idle timeout, absolute lifetime, L

Ring = list[tuple[int, bytes]]  # (key id, secret), oldest first


class Fields(NamedTuple):
    """The fields of an authentic ticket."""

    key_id: int
    session_id: bytes
    issued_at_ms: int
    idle_timeout_s: int
    absolute_lifetime_s: int
    principal: str


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def signing_key(secret: bytes, audience: str) -> bytes:
    """HKDF-SHA-256 (RFC 5869): no salt, info = "fastticket/1/" + audience, 32 bytes."""
    pseudorandom_key = hmac_sha256(bytes(32), secret)
    return hmac_sha256(pseudorandom_key, b"fastticket/1/" + audience.encode("utf-8") + b"\x01")


def encode_text(raw: bytes) -> str:
    """base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode_text(text: str | bytes) -> bytes | None:
    """The inverse. None for whatever `encode_text` would not have written."""
    try:
        characters = text if isinstance(text, bytes) else text.encode("ascii")
        raw = base64.urlsafe_b64decode(characters + b"=" * (-len(characters) % 4))
    except (UnicodeEncodeError, binascii.Error):
        return None
    return raw if encode_text(raw).encode("ascii") == characters else None


def principal_text(name: bytes) -> str | None:
    """The principal, or None where the bytes are not one."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not 1 <= len(name) <= PRINCIPAL_BYTES_MAX:
        return None
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        return None
    if text.startswith(" ") or text.endswith(" "):
        return None
    return text


def sign(secret: bytes, audience: str, body: bytes) -> str:
    """The text of a ticket with this body, whatever the body says."""
    return encode_text(body + hmac_sha256(signing_key(secret, audience), body))


def mint(
    ring: Ring,
    audience: str,
    principal: str,
    issued_at_ms: int,
    idle_timeout_s: int,
    absolute_lifetime_s: int,
    session_id: bytes,
) -> str:
    """A ticket signed with the newest key. ValueError: `principal` is none."""
    key_id, secret = ring[-1]
    name = principal.encode("utf-8", "surrogatepass")
    if principal_text(name) is None:
        raise ValueError("not a principal")
    issued_at = issued_at_ms.to_bytes(6, "big")
    head = HEAD.pack(FORMAT, key_id, session_id, issued_at, idle_timeout_s, absolute_lifetime_s, len(name))
    return sign(secret, audience, head + name)


def verify(ring: Ring, audience: str, ticket: str | bytes, now_ms: int) -> Fields | str:
    """The ticket's fields, or the reason for refusing it."""
    raw = decode_text(ticket) if TEXT_CHARS_MIN <= len(ticket) <= TEXT_CHARS_MAX else None
    if raw is None:
        return "malformed"
    ticket_format, key_id, session_id, issued_at, idle_timeout_s, lifetime_s, length = HEAD.unpack_from(raw)
    if ticket_format != FORMAT or not 1 <= length <= PRINCIPAL_BYTES_MAX or len(raw) != HEAD.size + length + TAG_BYTES:
        return "malformed"
    secret = dict(ring).get(key_id)
    if secret is None:
        return "unknown_key"
    body, tag = raw[:-TAG_BYTES], raw[-TAG_BYTES:]
    if not hmac.compare_digest(hmac_sha256(signing_key(secret, audience), body), tag):
        return "bad_signature"
    principal = principal_text(body[HEAD.size :])
    if principal is None:
        return "malformed"
    issued_at_ms = int.from_bytes(issued_at, "big")
    if lifetime_s != 0 and now_ms >= issued_at_ms + 1000 * lifetime_s:
        return "expired"
    return Fields(key_id, session_id, issued_at_ms, idle_timeout_s, lifetime_s, principal)


# ------------------------------------------------------------------------ the ticket's test vectors

NOW_MS = 1_750_000_000_000
SECRETS = {
    "a": bytes(range(32)),
    "b": hashlib.sha256(b"fastticket test vector, secret b").digest(),
    "long": hashlib.sha512(b"fastticket test vector, secret of 64 bytes").digest(),
}
VECTOR_RINGS: dict[str, tuple[str, Ring]] = {
    "one": ("default", [(1, SECRETS["a"])]),
    "two": ("default", [(1, SECRETS["a"]), (2, SECRETS["b"])]),
    "newest": ("default", [(2, SECRETS["b"])]),
    "other audience": ("büro", [(1, SECRETS["a"])]),
    "edge ids": ("default", [(255, SECRETS["b"]), (0, SECRETS["long"])]),
}
SESSION_ID = bytes(range(0x10, 0x20))


def _body(key_id: int, name: bytes, issued_at_ms: int = NOW_MS, lifetime_s: int = 86400) -> bytes:
    return HEAD.pack(FORMAT, key_id, SESSION_ID, issued_at_ms.to_bytes(6, "big"), 7200, lifetime_s, len(name)) + name


def _accepted_vectors() -> list[dict[str, object]]:
    cases = [
        # name, ring, principal, issued at, idle timeout, absolute lifetime, session id, now
        ("tail of two characters", "one", "alice", NOW_MS, 7200, 86400, SESSION_ID, NOW_MS),
        ("tail of three characters", "one", "bob", NOW_MS, 7200, 86400, SESSION_ID, NOW_MS),
        ("no tail", "one", "carl", NOW_MS, 7200, 86400, SESSION_ID, NOW_MS),
        ("shortest, nothing ends", "one", "a", 0, 0, 0, bytes(16), 2**48),
        ("longest, largest fields", "one", "z" * 190, 2**48 - 1, 2**32 - 1, 2**32 - 1, b"\xff" * 16, 2**48),
        ("the newest key signs", "two", "alice", NOW_MS, 7200, 86400, SESSION_ID, NOW_MS),
        ("audience that is not ASCII", "other audience", "alice", NOW_MS, 7200, 86400, SESSION_ID, NOW_MS),
        ("key id 0, secret of 64 bytes", "edge ids", "alice", NOW_MS, 7200, 86400, SESSION_ID, NOW_MS),
        ("two, three and four byte characters", "one", "Zoë 東京 🎫", NOW_MS, 7200, 86400, SESSION_ID, NOW_MS),
        ("C1 controls and wide spaces are allowed", "one", "\u0085a\u00a0", NOW_MS, 7200, 86400, SESSION_ID, NOW_MS),
        ("last millisecond", "one", "alice", NOW_MS, 7200, 60, SESSION_ID, NOW_MS + 59_999),
        ("issued in the future", "one", "alice", NOW_MS, 7200, 60, SESSION_ID, 0),
    ]
    vectors = []
    for name, ring_name, principal, issued_at_ms, idle_timeout_s, lifetime_s, session_id, now_ms in cases:
        audience, ring = VECTOR_RINGS[ring_name]
        vectors.append(
            {
                "name": name,
                "ring": ring_name,
                "key_id": ring[-1][0],
                "session_id_hex": session_id.hex(),
                "issued_at_ms": issued_at_ms,
                "idle_timeout_s": idle_timeout_s,
                "absolute_lifetime_s": lifetime_s,
                "principal": principal,
                "now_ms": now_ms,
                "ticket": mint(ring, audience, principal, issued_at_ms, idle_timeout_s, lifetime_s, session_id),
            }
        )
    return vectors


def _refused_vectors() -> list[dict[str, object]]:
    def signed(body: bytes, secret: bytes = SECRETS["a"], audience: str = "default") -> str:
        return sign(secret, audience, body)

    alice, bob, carl = (signed(_body(1, name)) for name in (b"alice", b"bob", b"carl"))
    raw = decode_text(alice)
    assert raw is not None
    dashes = signed(_body(1, b"bob", issued_at_ms=0xFBEFBEFBEFBE))  # "--------"
    underscores = signed(_body(1, b"bob", issued_at_ms=2**48 - 1))  # "________"
    cases = [
        # name, ring, ticket, now, reason
        ("empty", "one", "", NOW_MS, "malformed"),
        ("87 characters", "one", signed(_body(1, b"a"))[:87], NOW_MS, "malformed"),
        ("341 characters", "one", signed(_body(1, b"z" * 190)) + "A", NOW_MS, "malformed"),
        ("principal of 191 bytes", "one", signed(_body(1, b"z" * 191)), NOW_MS, "malformed"),
        ("padded, two", "one", alice + "==", NOW_MS, "malformed"),
        ("padded, one", "one", bob + "=", NOW_MS, "malformed"),
        *(
            (f"tail of two, trailing bits {bits}", "one", _with_trailing_bits(alice, bits), NOW_MS, "malformed")
            for bits in (1, 2, 4, 8, 15)
        ),
        *(
            (f"tail of three, trailing bits {bits}", "one", _with_trailing_bits(bob, bits), NOW_MS, "malformed")
            for bits in (1, 2, 3)
        ),
        ("length % 4 = 1", "one", carl + "A", NOW_MS, "malformed"),
        ("+ for -", "one", dashes.replace("-", "+"), NOW_MS, "malformed"),
        ("/ for _", "one", underscores.replace("_", "/"), NOW_MS, "malformed"),
        ("newline at the end", "one", alice + "\n", NOW_MS, "malformed"),
        ("space before", "one", " " + alice, NOW_MS, "malformed"),
        ("NUL in it", "one", alice[:40] + "\0" + alice[41:], NOW_MS, "malformed"),
        ("not ASCII", "one", alice[:40] + "é" + alice[41:], NOW_MS, "malformed"),
        ("format 0", "one", signed(b"\x00" + raw[1:-32]), NOW_MS, "malformed"),
        ("format 2", "one", signed(b"\x02" + raw[1:-32]), NOW_MS, "malformed"),
        ("L = 0", "one", signed(raw[:32] + b"\x00" + raw[33:-32]), NOW_MS, "malformed"),
        ("L too small by one", "one", signed(raw[:32] + b"\x04" + raw[33:-32]), NOW_MS, "malformed"),
        ("L too large by one", "one", signed(raw[:32] + b"\x06" + raw[33:-32]), NOW_MS, "malformed"),
        ("one byte more", "one", encode_text(raw + b"\0"), NOW_MS, "malformed"),
        ("one byte less", "one", encode_text(raw[:-1]), NOW_MS, "malformed"),
        ("malformed comes before unknown key", "newest", signed(b"\x02" + raw[1:-32]), NOW_MS, "malformed"),
        ("key that left the ring", "newest", alice, NOW_MS, "unknown_key"),
        ("unknown key comes before a bad tag", "newest", encode_text(raw[:-32] + bytes(32)), NOW_MS, "unknown_key"),
        ("tag of another audience", "other audience", alice, NOW_MS, "bad_signature"),
        ("tag by another key of the ring", "two", signed(_body(1, b"alice"), SECRETS["b"]), NOW_MS, "bad_signature"),
        ("first bit of the tag", "one", encode_text(_flipped(raw, len(raw) - 32, 0x80)), NOW_MS, "bad_signature"),
        ("last bit of the tag", "one", encode_text(_flipped(raw, len(raw) - 1, 0x01)), NOW_MS, "bad_signature"),
        ("another principal", "one", encode_text(_flipped(raw, 33, 0x01)), NOW_MS, "bad_signature"),
        ("a longer life", "one", encode_text(_flipped(raw, 28, 0x01)), NOW_MS, "bad_signature"),
        ("the secret itself as key", "one", _with_tag_under(SECRETS["a"], raw[:-32]), NOW_MS, "bad_signature"),
        ("bad tag comes before expired", "one", encode_text(raw[:-32] + bytes(32)), NOW_MS * 2, "bad_signature"),
        (
            "bad tag comes before the principal",
            "one",
            encode_text(_body(1, b"a\nb") + bytes(32)),
            NOW_MS,
            "bad_signature",
        ),
        *(
            (f"principal {what}", "one", signed(_body(1, name)), NOW_MS, "malformed")
            for what, name in [
                ("with a line feed", b"alice\r\nX-Admin: 1"),
                ("with a tab", b"a\tb"),
                ("with NUL", b"alice\0"),
                ("with unit separator", b"a\x1fb"),
                ("with DEL", b"a\x7fb"),
                ("after a space", b" alice"),
                ("before a space", b"alice "),
                ("that is a space", b" "),
                ("with a lone continuation byte", b"a\x80"),
                ("cut in the middle of a character", b"a\xe2\x82"),
                ("with an overlong slash", b"a\xc0\xaf"),
                ("with an overlong NUL, three bytes", b"a\xe0\x80\x80"),
                ("with an overlong euro, four bytes", b"a\xf0\x82\x82\xac"),
                ("with a surrogate", b"a\xed\xa0\x80"),
                ("with a surrogate pair (CESU-8)", b"\xed\xa0\xbd\xed\xb8\x80"),
                ("past U+10FFFF", b"a\xf4\x90\x80\x80"),
                ("with 0xFF", b"a\xff"),
            ]
        ),
        (
            "bad principal comes before expired",
            "one",
            signed(_body(1, b"a\tb", lifetime_s=1)),
            NOW_MS * 2,
            "malformed",
        ),
        ("at the deadline", "one", signed(_body(1, b"alice", lifetime_s=60)), NOW_MS + 60_000, "expired"),
        ("long past the deadline", "one", alice, 2**48, "expired"),
        (
            "largest deadline",
            "one",
            signed(_body(1, b"alice", 2**48 - 1, 2**32 - 1)),
            2**48 - 1 + 1000 * (2**32 - 1),
            "expired",
        ),
    ]
    return [
        {"name": name, "ring": ring, "ticket": ticket, "now_ms": now_ms, "reason": reason}
        for name, ring, ticket, now_ms, reason in cases
    ]


def _flipped(raw: bytes, at: int, bits: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ bits]) + raw[at + 1 :]


def _with_trailing_bits(text: str, bits: int) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) | bits]


def _with_tag_under(key: bytes, body: bytes) -> str:
    return encode_text(body + hmac_sha256(key, body))


def vectors() -> dict[str, object]:
    """The content of tests/lab/vectors.json."""
    rings = {
        name: {
            "audience": audience,
            "keys": [
                {"id": key_id, "secret_hex": secret.hex(), "signing_key_hex": signing_key(secret, audience).hex()}
                for key_id, secret in ring
            ],
        }
        for name, (audience, ring) in VECTOR_RINGS.items()
    }
    return {
        "about": "fastticket, wire format 1: docs/reference/ticket-format.md. Keys are oldest first, the last one signs. "
        "An accepted ticket is what minting its fields gives, and verifies at now_ms. Never use these secrets.",
        "format": FORMAT,
        "rings": rings,
        "accepted": _accepted_vectors(),
        "refused": _refused_vectors(),
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1, ensure_ascii=True))
