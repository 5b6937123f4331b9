"""What may happen in a search, and how often: one search of everything would never end, so each
looks at one part closely.

`quick` has the bounds that fit into `make test`, `large` those of `make model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
    caches: int = (
        1  #: so many of the gateways hold sessions; the others end them elsewhere, and their exchanges are one move
    )
    principals: tuple[str, ...] = ("ann",)  #: of each session that there can be
    sessions: int = 1  #: so many are there at the start
    holds: int = 9  #: so many of these are held at the start
    lease: int = 3
    timeout: int = 2
    grace: int = 8
    idle: int = 0  #: 0: deadlines play no part
    ticks: bool = True
    is_strong: bool = False  #: loads are asked for although there is an entry
    is_behind: bool = False  #: gateways have not heard the log's last entry
    is_full: bool = False  #: the near cache has no room
    keeps: bool = False  #: a logout everywhere may keep one
    old_lives: bool = False  #: the old primary may live on after a failover
    prelude: tuple[tuple, ...] = ()  #: moves that have happened before the search begins
    depth: int = 30

    def has(self, name: str) -> bool:
        return self.budgets.get(name, 0) > 0

    def allowed(self, name: str) -> int:
        return self.budgets.get(name, 0)


def _scope(name: str, depth: int, budgets: Mapping[str, int], **settings: object) -> Scope:
    return Scope(name, budgets, depth=depth, **settings)  # type: ignore[arg-type]


_TWO = {"principals": ("ann", "bob")}
_FAILOVER = {"failovers": 1, "snapshots": 1}
_THREE = {"principals": ("ann",) * 3, "holds": 0, "caches": 0, "ticks": False}

#: Messages of one gateway late and lost, it stalls, and sessions end elsewhere: P2.
STALL = _scope("stall", 9, {"logouts": 1, "loads": 1, "losses": 1, "stalls": 1})
#: The log has a gap while loads and repairs are under way: P2, P6.
GAP = _scope("gap", 7, {"logouts": 1, "loads": 1, "trims": 2}, sessions=2, holds=1, **_TWO)
#: The store goes away, and comes back, after a gap or a step of its clock: P8.
OUTAGE = _scope(
    "outage",
    7,
    {"losses": 6, "trims": 1, "steps": 1, "jumps": 1, "loads": 1, "logins": 1},
    gateways=2,
    lease=4,
    **_TWO,
)
#: A gateway holds what it makes, while answers are on the way and the log has gaps: P2.
MADE = _scope("made", 6, {"logins": 1, "rotations": 1, "logouts": 1, "losses": 1, "trims": 1}, principals=("ann",) * 3)
#: The near cache has no room, so that what is loaded is admitted right there: P2.
FULL = _scope("full", 9, {"logouts": 1, "loads": 1, "stalls": 1}, is_full=True, holds=0)
#: Another primary, and the old one lives: P2.
PRIMARY = _scope("primary", 8, {"logouts": 1, "failovers": 1, "stalls": 1}, old_lives=True)
#: A snapshot becomes the primary, and both gateways make again what they heard: P6, and nobody else
#: is logged out. Logins and ends,
AGAIN = _scope("again", 6, {"logins": 1, "logouts": 1, "rotations": 1, **_FAILOVER}, **_THREE)
#: rotations and ends,
ROTATE = _scope("rotate", 20, {"rotations": 2, "logouts": 1, **_FAILOVER}, **_THREE)
#: logouts everywhere,
EVERYWHERE = _scope("everywhere", 6, {"logins": 1, "rotations": 1, "everywheres": 1, **_FAILOVER}, **_THREE)
#: and those that keep a session.
KEEPS = _scope("keeps", 5, {"logins": 1, "rotations": 1, "everywheres": 1, **_FAILOVER}, keeps=True, **_THREE)
#: The same, and requests are done twice, or asked for again on the other server, while the old one
#: lives;
TWICE = _scope(
    "twice",
    3,
    {"logins": 1, "logouts": 1, "rotations": 1, "strays": 1, "retries": 1, **_FAILOVER},
    old_lives=True,
    **_THREE,
)
#: or a gateway restarts.
RESTART = _scope("restart", 7, {"logouts": 1, "rotations": 1, "everywheres": 1, "restarts": 1, **_FAILOVER}, **_THREE)
#: Uses through two gateways, touches late, lost and doubled: P3, P4, P6.
IDLE = _scope("idle", 9, {"uses": 2, "loads": 1, "strays": 1}, caches=2, idle=4, is_strong=True)
#: A little of everything.
ALL = _scope(
    "all",
    3,
    {
        "logins": 1,
        "logouts": 1,
        "rotations": 1,
        "everywheres": 1,
        "loads": 1,
        "losses": 1,
        "stalls": 1,
        "restarts": 1,
        "failovers": 1,
        "trims": 1,
        "strays": 1,
    },
    caches=2,
    old_lives=True,
    **_TWO,
)

QUICK = (STALL, GAP, OUTAGE, MADE, FULL, PRIMARY, AGAIN, ROTATE, EVERYWHERE, KEEPS, TWICE, RESTART, IDLE, ALL)


def _larger(scope: Scope, depth: int, **budgets: int) -> Scope:
    return replace(scope, budgets={**scope.budgets, **budgets}, depth=depth)


#: At depth WHOLE there is nothing left to explore.
WHOLE = 99
LARGE = (
    _larger(STALL, 12, losses=2, stalls=2),
    _larger(GAP, 11, loads=2),
    _larger(OUTAGE, 9),
    _larger(MADE, 9, losses=2, stalls=1),
    _larger(FULL, 17, stalls=2),
    _larger(PRIMARY, 12, losses=1),
    replace(_larger(AGAIN, WHOLE, logouts=2), principals=("ann",) * 4),
    replace(_larger(ROTATE, 8, logins=1), principals=("ann",) * 4),
    _larger(EVERYWHERE, WHOLE),
    _larger(KEEPS, WHOLE),
    _larger(TWICE, 6),
    _larger(RESTART, WHOLE),
    _larger(IDLE, 18, uses=3),
    _larger(ALL, 5),
)
