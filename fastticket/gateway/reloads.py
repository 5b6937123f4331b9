"""What came of reloads, as a supervisor counts them."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Reloads:
    """`at_s`: when the last one was over, s since the epoch; at first, when the gateway started,
    which counts as one that was done.
    """

    def __init__(self) -> None:
        self.counts = {"done": 0, "refused": 0}
        self.took_s = 0.0  #: from SIGHUP until the last one was done or refused
        self.at_s = time.time()
        self.was_done = True  #: the last one; else the configuration before stays
        self.why = ""  #: the last one was refused
        self._began_s: float | None = None

    def adopt(self, counts: Mapping[str, int]) -> None:
        """Go on from what another program has counted."""
        self.counts = dict(counts)

    def begin(self) -> None:
        """One is asked for. It may be asked for again before it is over."""
        self._began_s = time.monotonic() if self._began_s is None else self._began_s

    def end(self, result: str, why: str = "") -> None:
        """`done`, or `refused` and why."""
        self.counts[result] += 1
        self.took_s = 0.0 if self._began_s is None else time.monotonic() - self._began_s
        self.at_s, self.was_done, self.why, self._began_s = time.time(), result == "done", why, None
