"""What one call costs: the core beside itsdangerous, PyJWT, joserfc and hmac.

    python -m pytest bench/bench_core.py                        everything; the table comes last
    python -m pytest bench/bench_core.py -k "check or unsign"   some of it
    ... --benchmark-group-by=func                               pytest-benchmark's own tables, too
    ... --benchmark-json=FILE                                   every round of it

Each statement below is what a server would run for each request, all for the principal "alice";
passes.py says how it is timed. The empty calls show how much of it is the call itself.
"""

from __future__ import annotations

import base64
import collections
import functools
import hashlib
import hmac
import random
import time
import timeit
from typing import Any

import itsdangerous
import joserfc.jwt
import jwt
import passes
import pytest
from joserfc.jwk import OctKey
from pytest_benchmark.fixture import BenchmarkFixture

from fastticket import Keyring, Session, Ticket, TicketCache, Verdict, open_store

SECRET = b"0123456789abcdef0123456789abcdef"
PRINCIPAL = "alice"
IDLE_TIMEOUT_S = 7200
LIFETIME_S = 86400
LEASE_MS = 3_600_000  # longer than any run
FEW_SESSIONS = 1_000
MANY_SESSIONS = 1_000_000
TICKETS_PER_ROUND = 1_000

# Row of the table -> statement, in the names that `_names` makes.
STATEMENTS = {
    "empty call, C method": "ticket.isascii()",
    "empty call, Python function": "empty(ticket)",
    "cached check": "check(ticket)",
    "check with HMAC": "check_unknown(ticket)",
    "verify": "verify(ticket, now_ms)",
    "hmac.digest": 'digest(secret, body, "sha256")',
    "itsdangerous Signer.unsign": "unsign(signed)",
    "itsdangerous TimestampSigner.unsign": "unsign_timestamp(timestamped, max_age=7200)",
    "PyJWT decode HS256": 'decode(token, secret, algorithms=["HS256"])',
    "joserfc decode HS256": 'decode_jose(token, jose_key, algorithms=["HS256"])',
    "mint": 'mint("alice", now_ms, 7200, 86400)',
    "itsdangerous TimestampSigner.sign": 'sign_timestamp("alice")',
}


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _keys() -> Keyring:
    return Keyring([(1, SECRET)])


def _cache(capacity: int = 100_000) -> TicketCache:
    """On this machine's clock. No store behind it: a hit asks none, and here nothing flushes."""
    cache = TicketCache(open_store("sqlite://:memory:"), _keys(), capacity=capacity)
    cache._checker.set_offset_ms(_wall_ms() - cache._checker.monotonic_ms())
    cache._near.renew_lease(0, _wall_ms() + LEASE_MS)
    return cache


def _insert(cache: TicketCache, raw: bytes, now_ms: int) -> None:
    assert cache._near.insert(raw, 0, now_ms + IDLE_TIMEOUT_S * 1000, now_ms, False)


def _empty(ticket: str) -> None:
    pass


@functools.cache
def _names() -> dict[str, Any]:
    """The names that the statements use. Each call is checked to do its work."""
    now_ms = _wall_ms()
    keys, known, unknown = _keys(), _cache(), _cache()
    ticket = keys.mint(PRINCIPAL, now_ms, IDLE_TIMEOUT_S, LIFETIME_S)
    verified = keys.verify(ticket, now_ms)
    assert isinstance(verified, Ticket)
    _insert(known, verified.raw, now_ms)
    session = known.check(ticket)
    assert isinstance(session, Session)
    assert session.principal == PRINCIPAL
    assert known._near.dirty_count == 1  # a use was noted
    assert unknown.check(ticket) is Verdict.MISS  # the signature is good, the session unknown
    signer, timestamp_signer = itsdangerous.Signer(SECRET), itsdangerous.TimestampSigner(SECRET)
    claims = {"sub": PRINCIPAL, "iat": now_ms // 1000, "exp": now_ms // 1000 + LIFETIME_S}
    return {
        "ticket": ticket,
        "body": verified.raw[:-32],
        "now_ms": now_ms,
        "secret": SECRET,
        "empty": _empty,
        "check": known.check,
        "check_unknown": unknown.check,
        "verify": keys.verify,
        "mint": keys.mint,
        "digest": hmac.digest,
        "unsign": signer.unsign,
        "signed": signer.sign(PRINCIPAL),
        "unsign_timestamp": timestamp_signer.unsign,
        "sign_timestamp": timestamp_signer.sign,
        "timestamped": timestamp_signer.sign(PRINCIPAL),
        "decode": jwt.decode,
        "decode_jose": joserfc.jwt.decode,
        "jose_key": OctKey.import_key(SECRET),
        "token": jwt.encode(claims, SECRET, "HS256"),
    }


@passes.over(STATEMENTS)
def test_call(benchmark: BenchmarkFixture, number: int, row: str) -> None:
    """One pass over one statement."""
    passes.time_calls(benchmark, "core", row, timeit.Timer(STATEMENTS[row], globals=_names()).timeit)


# ------------------------------------------------------------------------------------ many sessions


def ticket_of(keys: Keyring, number: int, issued_at_ms: int) -> str:
    """The same ticket again for the same number: a million of them need not be kept. Its principal
    has 24 bytes.
    """
    session_id = hashlib.blake2b(number.to_bytes(8, "big"), digest_size=16).digest()
    return keys.mint(f"user-{number:019}", issued_at_ms, IDLE_TIMEOUT_S, LIFETIME_S, session_id)


@functools.cache
def full_cache(sessions: int) -> tuple[TicketCache, int]:
    """A near cache with so many sessions, every slot taken, and when they logged in."""
    keys, cache, now_ms = _keys(), _cache(sessions), _wall_ms()
    for number in range(sessions):
        ticket = ticket_of(keys, number, now_ms)
        _insert(cache, base64.urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4)), now_ms)
    assert len(cache._near) == sessions
    return cache, now_ms


def check_all(cache: TicketCache, tickets: list[str]) -> None:
    """With as little Python around a call as there can be: no bytecode runs in between."""
    collections.deque(map(cache.check, tickets), maxlen=0)


@pytest.mark.parametrize("sessions", [FEW_SESSIONS, MANY_SESSIONS])
@pytest.mark.parametrize("number", range(passes.PASSES), ids=lambda number: f"pass{number}")
def test_sessions(benchmark: BenchmarkFixture, record_figure: Any, number: int, sessions: int) -> None:
    """Hits in random order. As from a socket, the text of a ticket was just written; what is cold
    is the near cache.
    """
    cache, issued_at_ms = full_cache(sessions)
    keys = _keys()
    order = random.Random(number)

    def draw() -> tuple[tuple[TicketCache, list[str]], dict[str, Any]]:
        numbers = order.sample(range(sessions), TICKETS_PER_ROUND)
        return (cache, [ticket_of(keys, drawn, issued_at_ms) for drawn in numbers]), {}

    hits = cache._near.hits
    benchmark.extra_info.update(
        table="core",
        row=f"cached check, {sessions:,} sessions in random order",
        calls=TICKETS_PER_ROUND,
    )
    if sessions == MANY_SESSIONS:
        record_figure("core/near cache, bytes a session", cache._near.memory_bytes / sessions, "bytes")
    benchmark.pedantic(check_all, setup=draw, rounds=passes.ROUNDS, warmup_rounds=2)
    assert cache._near.hits - hits == TICKETS_PER_ROUND * (passes.ROUNDS + 2)
