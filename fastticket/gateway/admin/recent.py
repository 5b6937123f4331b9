"""What the last seconds were like: rates, and when each key was used last. The supervisor notes
once a second.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

WINDOW_S = 10  # of the rates


class Moment(NamedTuple):
    """Counters since the start, at one moment."""

    at_s: float
    requests: int
    refused: int
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

    def note(self, counted: Mapping[str, Any]) -> None:
        """Note what all workers have counted since the start (`Snapshot.counted`)."""
        now_s = time.monotonic()
        for text, uses in counted.get("key_uses", {}).items():
            key_id = int(text)
            if uses > self._key_uses.get(key_id, 0):
                self.key_used_s[key_id] = now_s
            self._key_uses[key_id] = uses
        refused = sum(counted.get("refused", {}).values())
        requests = counted.get("admitted", 0) + counted.get("anonymous", 0) + refused + counted.get("bad_requests", 0)
        self._moments.append(Moment(now_s, requests, refused, counted.get("exchanges", 0)))

    def rates(self) -> dict[str, float]:
        """Per second, over the last WINDOW_S or since the start."""
        if len(self._moments) < 2:
            return {"requests": 0.0, "refused": 0.0, "store_exchanges": 0.0}
        first, last = self._moments[0], self._moments[-1]
        passed_s = max(last.at_s - first.at_s, 0.001)
        return {
            name: round(max(0, getattr(last, name) - getattr(first, name)) / passed_s, 2)
            for name in ("requests", "refused", "store_exchanges")
        }
