"""A circuit breaker: a server that has just failed is not asked again by every call at once.

    closed      calls go through
    open        calls fail at once, until a back-off is over; each failure after it doubles it
    half-open   one call goes through; its outcome decides

The back-off is jittered, so that many gateways do not come back in step.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

BACKOFF_FIRST_S = 0.05
#: Less than a lease together with a flush before it and one after it: P2 counts from when the store
#: is back, and until this process notices, held sessions are admitted on credit.
BACKOFF_MAX_S = 0.25


class Breaker:
    """One a server. `clock`: monotonic, s; `jitter`: a factor for the back-off."""

    def __init__(
        self,
        clock: Callable[[], float],
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0),  # noqa: S311 -- no secret
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._closed_again_at_s = 0.0
        self._probing = False

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """The state that the next call finds."""
        if not self._failures:
            return "closed"
        return "open" if self._probing or self._clock() < self._closed_again_at_s else "half-open"

    def admit(self) -> bool:
        """Whether a call may go through. For a call that may, `succeeded`, `failed` or `gave_up` is
        called later.
        """
        state = self.state
        self._probing |= state == "half-open"
        return state != "open"

    def succeeded(self) -> bool:
        """A call was answered. True: that has closed the breaker."""
        was_open = self._failures > 0
        self._failures = 0
        self._probing = False
        return was_open

    def failed(self) -> bool:
        """A call has failed. True: that has opened the breaker, which was closed."""
        was_closed = not self._failures
        if not was_closed and not self._probing:
            return False  # this call was under way when another one opened the breaker
        backoff_s = min(BACKOFF_FIRST_S * 2 ** min(self._failures, 16), BACKOFF_MAX_S)
        self._failures += 1
        self._probing = False
        self._closed_again_at_s = self._clock() + backoff_s * self._jitter()
        return was_closed

    def gave_up(self) -> None:
        """A call has ended without saying anything of the server, e.g. by cancellation."""
        self._probing = False
