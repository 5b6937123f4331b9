"""What may happen in a search, and how often: one search of everything would never end, so each looks at one part closely.

`quick` has the bounds that fit into `make test`, `large` those of `make model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NOW = 1000  # the present in every state; far from 0, since hash(-1) == hash(-2)
PAST = NOW - 20  # older than anything that matters
NEVER = 10_000
TICK_MS = 250


@dataclass(frozen=True)
class Scope:
    """Spans are in ticks; a flush is due every tick."""

    name: str
    budgets: Mapping[str, int] = field(hash=False)  #: how often each may happen; nothing else does
    gateways: int = 2
    caches: int = 1  #: so many of the gateways hold sessions; the others end them elsewhere
    principals: tuple[str, ...] = ("ann",)  #: of each session that there can be
    sessions: int = 1  #: so many are there at the start
    holds: bool = True
    lease: int = 3
    timeout: int = 2
    grace: int = 8
    idle: int = 0  #: 0: deadlines play no part
    ticks: bool = True
    is_full: bool = False  #: the near cache has no room
    keeps: bool = False  #: a logout everywhere may keep one
    old_lives: bool = False  #: the old primary may live on after a failover
    depth: int = 30

    def has(self, name: str) -> bool:
        return self.budgets.get(name, 0) > 0

    def allowed(self, name: str) -> int:
        return self.budgets.get(name, 0)
