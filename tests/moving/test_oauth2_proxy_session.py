"""oauth2-proxy's cookies and sessions: made here by the facts of its sources."""

import base64
import hashlib
import hmac
import os
import time

import msgpack
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from fastticket.moving.formats.oauth2_proxy_session import open_session, read_cookie

NAME, SECRET = "_oauth2_proxy", "0123456789abcdef0123456789abcdef"
NOW_S = 1_800_000_000
EXPIRE_S = 3600


def raw64(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signed(text, issued_s, name=NAME, secret=SECRET):
    encoded = base64.urlsafe_b64encode(text.encode()).decode()
    mac = hmac.new(secret.encode(), f"{name}{encoded}{issued_s}".encode(), hashlib.sha256).digest()
    return f"{encoded}|{issued_s}|{base64.urlsafe_b64encode(mac).decode()}"


def ticket_text(key, secret):
    return f"v2.{raw64(key.encode())}.{raw64(secret)}"


def sealed(secret, **fields):
    """As Go's GCM with the nonce first, and msgpack with times of its extension."""
    times = {k: msgpack.Timestamp(v, 0) if k in ("ca", "eo") else v for k, v in fields.items()}
    nonce = os.urandom(12)
    return nonce + AESGCM(secret).encrypt(nonce, msgpack.packb(times), None)


def read(value, now_s=NOW_S):
    return read_cookie(NAME, value, SECRET, now_s, EXPIRE_S)


def test_a_cookie_leads_to_its_session():
    secret = os.urandom(16)
    ticket = read(signed(ticket_text(f"{NAME}-00ff", secret), NOW_S - 5))
    assert (ticket.id, ticket.secret, ticket.issued_s) == (f"{NAME}-00ff", secret, NOW_S - 5)
    assert raw64(secret) not in repr(ticket)
    assert secret.hex() not in repr(ticket)
    session = open_session(sealed(secret, u="alice", e="a@b.c", ca=NOW_S - 9, eo=NOW_S + 9, at="x", g=["a"]), secret)
    assert session.names == {"user": "alice", "email": "a@b.c"}
    assert (session.created_ms, session.expires_ms) == ((NOW_S - 9) * 1000, (NOW_S + 9) * 1000)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (signed("v2.a.b", NOW_S, secret="another"), "forged"),
        (signed("v2.a.b", NOW_S, name="another"), "forged"),
        (signed(ticket_text("k", b"x" * 16), NOW_S - EXPIRE_S), "expired"),
        (signed(ticket_text("k", b"x" * 16), NOW_S + 301), "expired"),
        (signed(ticket_text("k", b"x" * 15), NOW_S), "malformed"),
        (signed(ticket_text("k\n", b"x" * 16), NOW_S), "malformed"),
        (signed(ticket_text("é", b"x" * 16), NOW_S), "malformed"),
        (signed("handle.secret", NOW_S), "malformed"),
        ("||", "forged"),
        ("", "malformed"),
        ("a|b", "malformed"),
    ],
)
def test_other_cookies_are_refused(value, reason):
    assert read(value).reason == reason


@pytest.mark.parametrize(
    "plain", [b"", b"\x80x", b"\xc1", b"\x01", msgpack.packb([1]), msgpack.packb({"u": 5, "ca": "x"})]
)
def test_other_sessions_are_refused_or_say_nothing(plain):
    nonce, secret = os.urandom(12), b"k" * 16
    session = open_session(nonce + AESGCM(secret).encrypt(nonce, plain, None), secret)
    assert not session or (session.names, session.created_ms) == ({}, 0)
    assert open_session(nonce + plain + b"x" * 20, secret).reason == "forged"


@given(st.text(max_size=300), st.binary(max_size=300))
def test_foreign_bytes_raise_nothing(text, data):
    assert not read(text)
    assert not read(signed(text, NOW_S)) or text.startswith("v2.")
    assert not open_session(data, b"k" * 16)
    nonce = b"n" * 12
    open_session(nonce + AESGCM(b"k" * 16).encrypt(nonce, data, None), b"k" * 16)


@given(st.data())
def test_every_character_of_a_cookie_counts(data):
    cookie = signed(ticket_text("key", b"s" * 16), int(time.time()))
    at = data.draw(st.integers(0, len(cookie) - 1))
    changed = cookie[:at] + data.draw(st.sampled_from("Aa09-_|=")) + cookie[at + 1 :]
    assert changed == cookie or not read_cookie(NAME, changed, SECRET, int(time.time()), EXPIRE_S)
