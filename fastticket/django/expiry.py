"""What Django's `set_expiry` leaves in a session under `_session_expiry`, and what it means for a
ticket.

    int or float  seconds without use after which the session ends; 0: the cookie ends with the
                  browser
    str           a moment in ISO 8601 at which the session ends
    None, absent  the usual lifetimes
"""

from __future__ import annotations

import math
import time
from datetime import datetime
from typing import Any

from django.utils import timezone

EXPIRY = "_session_expiry"  # Django's name

#: Idle timeout and absolute lifetime, in s; None: the usual one, math.inf: none.
Lifetimes = tuple[float | None, float | None]


def is_past(expiry: Any) -> bool:
    """Whether the session is over by what `set_expiry` has left: a moment that is past, or a
    negative number of seconds.
    """
    if isinstance(expiry, str):
        return _left_s(expiry) <= 0
    return expiry is not None and expiry < 0


def lifetimes_s(expiry: Any, issued_at_ms: int | None, usual_s: float) -> Lifetimes:
    """The lifetimes of a ticket that is made now, so that it ends when `set_expiry` says.

    `expiry`: a moment, or more than 0 seconds. `issued_at_ms`: of the session's present ticket,
    since the absolute lifetime counts from the login; None: the session begins now. `usual_s`: the
    usual absolute lifetime; 0: none.
    """
    age_s = _age_s(issued_at_ms)
    if isinstance(expiry, str):
        return math.inf, math.ceil(age_s + _left_s(expiry))
    idle_s = math.ceil(expiry)
    return idle_s, max(usual_s, math.ceil(age_s + idle_s)) if usual_s else math.inf


def usual_again_s(issued_at_ms: int | None, idle_s: float, absolute_s: float) -> Lifetimes:
    """The usual lifetimes of a ticket that is made now, in place of what `set_expiry` had said.

    `idle_s`, `absolute_s`: the usual ones; 0: none. The absolute one counts from now, as in Django.
    """
    return idle_s or math.inf, math.ceil(_age_s(issued_at_ms) + absolute_s) if absolute_s else math.inf


def ends_in_s(lifetimes: Lifetimes, issued_at_ms: int) -> float:
    """In how many seconds a session with these lifetimes ends if it is unused; math.inf: never."""
    idle_s, absolute_s = (math.inf if each is None else each for each in lifetimes)
    return min(idle_s, absolute_s - _age_s(issued_at_ms))


def _age_s(issued_at_ms: int | None) -> float:
    return time.time() - issued_at_ms / 1000 if issued_at_ms is not None else 0.0


def _left_s(moment: str) -> float:
    return (datetime.fromisoformat(moment) - timezone.now()).total_seconds()
