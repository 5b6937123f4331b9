"""oauth2-proxy's cookie and session, as it keeps them with Redis (version 7).

    cookie    base64url(ticket) "|" seconds "|" base64url(HMAC-SHA-256). Signed by the cookie's
              secret, as it is configured, over the cookie's name, the first part and the second
    ticket    "v2." base64url(id) "." base64url(secret), without padding; the id is the key in Redis
    session   nonce (12), ciphertext, tag (16): AES-GCM under the ticket's secret, which only the
              cookie has; inside a map of msgpack

A session is not read before the cookie's signature is good.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import hmac
from typing import Any, NamedTuple

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fastticket.moving.formats import Refused

NONCE_BYTES, TAG_BYTES = 12, 16
SECRET_BYTES = (16, 24, 32)  # 16 is what it makes
COOKIE_CHARS_MAX = 4096
ID_CHARS_MAX = 256
SESSION_BYTES_MAX = 1_000_000
DIGITS_MAX = 12
EARLY_S = 300  # a cookie may come from a clock that is so far ahead

#: Names of a session's fields, and what they are called inside.
NAMES = {"user": "u", "email": "e", "preferred_username": "pu"}


class ProxyTicket(NamedTuple):
    """What a cookie says. No repr: `secret` opens the session."""

    id: str  #: the key in Redis
    secret: bytes
    issued_s: int

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id[-6:]!r}, issued_s={self.issued_s})"


class ProxySession(NamedTuple):
    """Whose a session is. Times are ms since the epoch; 0: it does not say."""

    names: dict[str, str]  #: user, email, preferred_username: those that there are
    created_ms: int
    expires_ms: int  #: of the access token


def read_cookie(name: str, value: str, secret: str, now_s: int, expire_s: int) -> ProxyTicket | Refused:
    """What a cookie says; or `malformed`, `forged`, `expired`. `secret`: cookie_secret, as it is
    configured; `expire_s`: cookie_expire. Raises nothing.
    """
    parts = value.split("|")
    if len(value) > COOKIE_CHARS_MAX or not value.isascii() or len(parts) != 3:
        return Refused("malformed")
    encoded, issued, signature = parts
    made = hmac.digest(secret.encode(), f"{name}{encoded}{issued}".encode(), hashlib.sha256)
    if not hmac.compare_digest(base64.urlsafe_b64encode(made), signature.encode()):
        return Refused("forged")
    if not issued.isdecimal() or len(issued) > DIGITS_MAX:
        return Refused("malformed")
    if not now_s - expire_s < int(issued) < now_s + EARLY_S:
        return Refused("expired")
    words = (_decoded(encoded) or b"").decode("ascii", "replace").split(".")
    if len(words) != 3 or words[0] != "v2":
        return Refused("malformed")
    identifier, sealed_by = _decoded(words[1]), _decoded(words[2])
    if not identifier or not sealed_by or len(sealed_by) not in SECRET_BYTES:
        return Refused("malformed")
    key = identifier.decode("ascii", "replace")
    if len(key) > ID_CHARS_MAX or not key.isprintable() or "\ufffd" in key:
        return Refused("malformed")
    return ProxyTicket(key, sealed_by, int(issued))


def open_session(sealed: bytes, secret: bytes) -> ProxySession | Refused:
    """What is stored; or `forged`: it does not open; `malformed`. Raises nothing."""
    if not NONCE_BYTES + TAG_BYTES < len(sealed) <= SESSION_BYTES_MAX:
        return Refused("malformed")
    try:
        plain = AESGCM(secret).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
    except (InvalidTag, ValueError):
        return Refused("forged")
    try:
        found = msgpack.unpackb(plain, timestamp=1, strict_map_key=True)
    except (ValueError, msgpack.UnpackException):
        return Refused("malformed")
    if not isinstance(found, dict):
        return Refused("malformed")
    names = {name: found[short] for name, short in NAMES.items() if isinstance(found.get(short), str) and found[short]}
    return ProxySession(names, _ms(found.get("ca")), _ms(found.get("eo")))


def _ms(value: Any) -> int:
    """Of a time of msgpack, which is read as seconds; 0: it is none."""
    if isinstance(value, datetime.datetime) or not isinstance(value, int | float) or isinstance(value, bool):
        return 0
    return round(value * 1000) if 0 < value < 1 << 40 else 0


def _decoded(text: str) -> bytes | None:
    """Canonical base64url, with or without padding; None: it is none."""
    bare = text.rstrip("=")
    try:
        found = base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if base64.urlsafe_b64encode(found).decode().rstrip("=") == bare else None
