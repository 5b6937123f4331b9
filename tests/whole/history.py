"""The history of a run: what clients did and saw, and the faults of the schedule. All times are of
time.monotonic(), in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

#: What a client may ask. `use` and `strong` change nothing; `revoke` and `revoke_all` are the
#: operator's commands.
ENDS_ONE = ("logout", "rotate", "revoke")
ENDS_ALL = ("everywhere", "revoke_all")
LOST = 0  # the status of a request that got no answer
OPERATOR = -1  # the gateway of what asked the store itself


@dataclass(frozen=True, slots=True)
class Event:
    """One request and its answer."""

    kind: str  # login, use, strong, logout, everywhere, rotate, revoke, revoke_all
    gateway: int
    session: int  # the one that it came with; the one that it made, for a login
    principal: str
    sent_s: float
    received_s: float  # when the answer was whole, or there was to be none
    status: int  # LOST: a reset, an end, or the client's own time limit
    successor: int | None = None  # made by a rotation that was acknowledged
    has_retry_after: bool = False
    what: str = (
        ""  # the answer's reason, or the failure's; of an admission: the user that it was for, if that was another
    )

    @property
    def is_admission(self) -> bool:
        return self.status == 200 and self.kind not in ("login", "revoke", "revoke_all")

    @property
    def is_failure(self) -> bool:
        return self.status == LOST or self.status >= 500


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which something was wrong for a gateway."""

    gateway: int
    start_s: float
    end_s: float
    #: It could not hear the store: what was ended meanwhile it may admit on credit, and what it
    #: holds it must.
    is_deaf: bool = True
    #: Requests may fail in it.
    may_fail: bool = True
    #: What it holds is to be admitted throughout. Not if the process itself was away, or there are
    #: too many sessions to hold.
    holds: bool = True


@dataclass(frozen=True, slots=True)
class Loss:
    """The store came back without what was written in (kept_s, at_s]."""

    at_s: float
    kept_s: float = -math.inf
    #: Rotations after kept_s are made again by the gateways (those of sessions that were kept).
    are_rotations_made_again: bool = True


@dataclass(slots=True)
class Rules:
    """The configuration, and the time that a gateway has to recover after a window."""

    lease_s: float = 2.0
    flush_s: float = 0.5
    idle_s: float = math.inf
    lifetime_s: float = math.inf
    grace_s: float = 300.0
    recovery_s: float = 5.0
    #: Kinds that may be refused with 503 and Retry-After though nothing is wrong: a burst, beyond
    #: the named bound.
    may_be_refused: tuple[str, ...] = ()
    outage_policy: str = "serve-cached"


@dataclass(slots=True)
class History:
    """The history of one run."""

    rules: Rules = field(default_factory=Rules)
    events: list[Event] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    forgets: list[tuple[int, float]] = field(default_factory=list)  # (gateway, when): its near cache was emptied, by us

    def windows_of(self, gateway: int) -> list[Window]:
        return sorted((w for w in self.windows if w.gateway == gateway), key=lambda w: w.start_s)


@dataclass(slots=True)
class Life:
    """When a session was made and ended, as far as clients can know: [sent, acknowledged]."""

    session: int
    principal: str
    born_sent_s: float
    born_s: float
    parent: int | None = None
    ended_s: float = math.inf  # the first acknowledgement of an end
    end_sent_s: float = math.inf  # the first attempt at one, whatever came of it


def lives_of(events: Iterable[Event]) -> dict[int, Life]:
    """The lives of all sessions that clients were given."""
    ordered = sorted(events, key=lambda e: e.received_s)
    lives: dict[int, Life] = {}
    for event in ordered:
        if event.kind == "login" and event.status == 200:
            lives[event.session] = Life(event.session, event.principal, event.sent_s, event.received_s)
        elif event.successor is not None:
            lives[event.successor] = Life(
                event.successor, event.principal, event.sent_s, event.received_s, parent=event.session
            )
    by_principal: dict[str, list[Life]] = {}
    for life in lives.values():
        by_principal.setdefault(life.principal, []).append(life)
    for event in ordered:
        if event.kind in ENDS_ONE and event.session in lives:
            _end(lives[event.session], event, is_certain=True)
        elif event.kind in ENDS_ALL:
            for life in by_principal.get(event.principal, ()):
                if life.born_sent_s < event.received_s:
                    _end(life, event, is_certain=life.born_s <= event.sent_s)
    return lives


def _end(life: Life, event: Event, *, is_certain: bool) -> None:
    """A refusal (401, 403) ended nothing; a failure (5xx, none) may have."""
    if 400 <= event.status < 500:
        return
    life.end_sent_s = min(life.end_sent_s, event.sent_s)
    if is_certain and event.status == 200:
        life.ended_s = min(life.ended_s, event.received_s)
