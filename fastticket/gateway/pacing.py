"""The pace at which a stopping gateway closes WebSockets: all at once would all reconnect at
once.
"""

from __future__ import annotations

import math

SPREAD_SHARE = 0.8  # of the drain timeout; the rest is for the last ones to close
CLOSED_PER_S_MIN = 20  # fewer WebSockets than that reconnect without harm


class Pacing:
    """Spreads the closing of `tunnels` WebSockets over the drain timeout, from `began_s` on.

    `told` is how many have been told to close; the owner adds to it.
    """

    def __init__(self, tunnels: int, began_s: float, drain_timeout_s: float) -> None:
        span_s = min(SPREAD_SHARE * drain_timeout_s, tunnels / CLOSED_PER_S_MIN)
        self._began_s = began_s
        self._per_s = tunnels / span_s if span_s else CLOSED_PER_S_MIN
        self.told = 0

    def due(self, now_s: float) -> int:
        """How many to tell now."""
        since_s = now_s - self._began_s
        return max(0, math.ceil(since_s * self._per_s) - self.told)
