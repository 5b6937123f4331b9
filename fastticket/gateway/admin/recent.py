"""What the last seconds were like: rates, how late ends were heard, and when each key was used
last. The supervisor notes once a second.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastticket.errors import OldStoreUnavailable, StoreUnavailable

WINDOW_S = 10  # of the rates
LAG_WINDOW_S = 60  # an end is heard every 10 to 15 s


def refusals_of(refused: Mapping[str, int]) -> int:
    """How many requests were refused for their ticket's sake. `refused`: by reason. One that was
    told to come again, because the store or the old one is away, is none: it failed (5xx).
    """
    away = (StoreUnavailable.reason, OldStoreUnavailable.reason)
    return sum(count for reason, count in refused.items() if reason not in away)


class Moment(NamedTuple):
    """Counters since the start, at one moment."""

    at_s: float
    requests: int
    refused: Mapping[str, int]  #: by reason
    store_exchanges: int


class Recent:
    """`key_used_s`: when a ticket was last verified under a key, by its id, as far as this gateway
    has seen; monotonic.
    """

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self.key_used_s: dict[int, float] = {}
        self._key_uses: dict[int, int] = {}
        self._moments: deque[Moment] = deque(maxlen=WINDOW_S + 1)
        self._lags: deque[Sequence[Any]] = deque(maxlen=LAG_WINDOW_S + 1)  # buckets

    def note(self, counted: Mapping[str, Any]) -> None:
        """Note what all workers have counted since the start (`Snapshot.counted`)."""
        now_s = time.monotonic()
        for text, uses in counted.get("key_uses", {}).items():
            key_id = int(text)
            if uses > self._key_uses.get(key_id, 0):
                self.key_used_s[key_id] = now_s
            self._key_uses[key_id] = uses
        refused = dict(counted.get("refused", {}))
        others = counted.get("admitted", 0) + counted.get("anonymous", 0) + counted.get("bad_requests", 0)
        requests = others + sum(refused.values())
        self._moments.append(Moment(now_s, requests, refused, counted.get("exchanges", 0)))
        self._lags.append(counted.get("revocation_lag", {}).get("buckets", []))

    def rates(self) -> dict[str, float]:
        """Per second, over the last WINDOW_S or since the start."""
        if len(self._moments) < 2:
            return {"requests": 0.0, "refused": 0.0, "store_exchanges": 0.0}
        first, last = self._moments[0], self._moments[-1]
        return {
            "requests": _rate(first, last, last.requests - first.requests),
            "refused": _rate(first, last, refusals_of(last.refused) - refusals_of(first.refused)),
            "store_exchanges": _rate(first, last, last.store_exchanges - first.store_exchanges),
        }

    def refused_per_s(self) -> dict[str, float]:
        """By reason, of the same time."""
        if len(self._moments) < 2:
            return {}
        first, last = self._moments[0], self._moments[-1]
        return {
            reason: _rate(first, last, count - first.refused.get(reason, 0)) for reason, count in last.refused.items()
        }

    def revocation_lag_s(self) -> float | None:
        """Within which 99 of 100 ends of the last LAG_WINDOW_S were heard, as `bound_of` has it."""
        return bound_of(self._lags[0], self._lags[-1]) if self._lags else None


def bound_of(before: Sequence[Any], counted: Sequence[Any], share: float = 0.99) -> float | None:
    """The upper end of the bucket in which that share of what was counted in between ends; the last
    one has none, so it is the one before. Buckets are (bound, how many). None: there was nothing.
    """
    earlier = dict(before)
    buckets = [(bound, number - earlier.get(bound, 0)) for bound, number in counted]
    wanted, seen, known = share * sum(number for _, number in buckets), 0, 0.0
    if wanted <= 0:
        return None
    for bound, number in buckets:
        seen, known = seen + number, bound or known
        if seen >= wanted:
            break
    return known


def _rate(first: Moment, last: Moment, more: int) -> float:
    return round(max(0, more) / max(last.at_s - first.at_s, 0.001), 2)
