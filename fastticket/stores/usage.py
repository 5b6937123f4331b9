"""What a store costs: calls by kind with how long they took, and what goes over its connections.

Histogram       numbers by size, to be published and added up
Traffic         of a store's connections, counted by each of them (redis/link.py)
MeasuredStore   a store whose calls are timed
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastticket import spans
from fastticket.stores.contract import Store

#: Upper bounds of times, s: those of the data plane (dataplane/counters.pxd).
BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: The calls that are timed: all but those that begin and end a store's use.
KINDS = tuple(
    name
    for name, member in vars(Store).items()
    if inspect.iscoroutinefunction(member) and name not in ("open", "settle", "aclose")
)


class Histogram:
    """Numbers, counted by the first bound that is not below them."""

    def __init__(self, bounds: Sequence[float] = BOUNDS_S) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, number: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, number)] += 1
        self._sum += number

    @property
    def counted(self) -> dict[str, Any]:
        """`buckets`: (bound, how many), the last bound None; and the `sum` of all numbers."""
        return {"buckets": list(zip((*self._bounds, None), self._counts, strict=True)), "sum": self._sum}


class Traffic:
    """Of all connections of a store since the start, without what it asks of sentinels."""

    def __init__(self) -> None:
        self.round_trips = 0  #: writes of commands that go together
        self.bytes_sent = 0
        self.bytes_received = 0

    def sent(self, size: int) -> None:
        """Commands were written together."""
        self.round_trips += 1
        self.bytes_sent += size


class MeasuredStore:
    """A Store, as the one that it is made of. `durations`: of its calls by kind, those that failed
    included; a call that was cancelled is not counted.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.durations = {kind: Histogram() for kind in KINDS}
        for kind, durations in self.durations.items():
            vars(self)[kind] = _timed(getattr(store, kind), durations)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @property
    def counted(self) -> Mapping[str, Mapping[str, Any]]:
        """The calls of each kind, as `Histogram.counted` has them; kinds that were never called are
        left out.
        """
        counted = {kind: durations.counted for kind, durations in self.durations.items()}
        return {kind: each for kind, each in counted.items() if any(count for _, count in each["buckets"])}


def _timed(call: Callable[..., Any], durations: Histogram) -> Callable[..., Any]:
    @functools.wraps(call)
    async def timed(*arguments: Any, **named: Any) -> Any:
        began_s = time.perf_counter()
        try:
            with spans.step(f"store {call.__name__}"):
                answer = await call(*arguments, **named)
        except asyncio.CancelledError:
            raise
        except BaseException:
            durations.add(time.perf_counter() - began_s)
            raise
        durations.add(time.perf_counter() - began_s)
        return answer

    return timed
