"""The time of a test."""

from __future__ import annotations

UP_MS = 1_000_000  # as of a machine that has been up for a while


class Clock:
    """A monotonic clock, in ms, that stands still until it is moved. Give the same one to the store
    and to each cache on it.
    """

    def __init__(self) -> None:
        self._now_ms = UP_MS

    def __call__(self) -> int:
        """The time, ms."""
        return self._now_ms

    def advance(self, seconds: float) -> None:
        """Let time pass: sessions idle out and end, leases run out. ValueError: it would go
        back.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot go back, by {seconds} s: make a new one, and what depends on it")
        self._now_ms += round(seconds * 1000)
