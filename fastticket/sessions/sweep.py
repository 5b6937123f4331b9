"""The sweep: removing sessions that are past their deadline, and logging their end.

A removal is final: a touch that comes later brings no session back. So a session stays past its
deadline for as long as an outage may last (`outage_grace_s`), and at least for a lease. It goes
after `expiry_margin_s` instead, if that is configured, while somebody follows the events, and once
this process has seen the store answer without a pause for SETTLE_LEASES leases: after an outage
every process must have had that long to write touches of sessions that were in use meanwhile.
"""

from __future__ import annotations

import asyncio
import random

from fastticket.sessions.shards import Shards

SWEEP_INTERVAL_S = 60.0  # times 0.5 to 1.5 at random, so that processes take turns
SWEEP_FOLLOWED_S = 0.25  # while somebody follows the events, and while there is more to remove
FOLLOWED_S = 60.0  # that long after an event was asked for: handling one may take its time
SWEEP_SESSIONS_MAX = 200  # of each shard in one go: a script holds up everybody else
SETTLE_LEASES = 5
OBSERVED_GAP_MS = 1000  # between two looks at the store: an outage in a longer pause would not be noticed


class Sweeper:
    """When to sweep, and which sessions may go. Times in s are the event loop's, in ms the
    process's.
    """

    def __init__(self, shards: Shards) -> None:
        self.at_s = 0.0  # when the next sweep is due
        self._shards = shards
        self._followed_until_s = 0.0
        self._observed_since_ms = 0  # the store has answered every look at it since then

    def begin(self) -> None:
        """The first sweep comes after a pause."""
        self.at_s = asyncio.get_running_loop().time() + _pause_s()

    def follow(self) -> None:
        """Somebody asks for events: sessions that expire are to be logged soon. CacheClosed,
        CacheMisused.
        """
        self._shards.life.check()
        now_s = asyncio.get_running_loop().time()
        self._followed_until_s = now_s + FOLLOWED_S
        self.at_s = min(self.at_s, now_s + SWEEP_FOLLOWED_S)

    async def run(self, now_s: float) -> None:
        """Sweep if that is due, and say when the next sweep is. StoreUnavailable."""
        if now_s < self.at_s:
            return
        is_followed = self._is_followed
        self.at_s = now_s + (SWEEP_FOLLOWED_S if is_followed else _pause_s())
        if await self._sweep() >= SWEEP_SESSIONS_MAX:  # a shard may have more
            self.at_s = now_s + (0 if is_followed else SWEEP_FOLLOWED_S)

    async def observe(self) -> None:
        """See whether the store answers between sweeps, so that the first follower hears of an
        expiry in time. Only one server alone says so; behind Sentinel and Cluster there are
        several.
        """
        if self._shards.settings.expiry_margin_ms is None or self._shards.store.doubt_ms:
            return
        now_ms = self._shards.monotonic_ms()
        await self._begin_observation(now_ms)
        await self._shards.opened.time_ms()
        self._shards.observed_at_ms = now_ms

    async def _sweep(self) -> int:
        """How many sessions it removed."""
        shards = self._shards
        now_ms = shards.monotonic_ms()
        await self._begin_observation(now_ms)
        is_settled = now_ms - self._observed_since_ms >= SETTLE_LEASES * shards.fleet.lease_ms
        margin_ms = max(shards.settings.outage_grace_ms, shards.fleet.lease_ms)
        if is_settled and self._is_followed and shards.settings.expiry_margin_ms is not None:
            margin_ms = shards.settings.expiry_margin_ms
        swept = await shards.opened.sweep(shards.now_ms() - margin_ms, SWEEP_SESSIONS_MAX)
        shards.observed_at_ms = now_ms
        return swept

    async def _begin_observation(self, now_ms: int) -> None:
        """If none goes on. A process that has just started asks the store for how long it has been
        there; after an outage or a pause the observation begins now.
        """
        if self._shards.observed_at_ms is None:
            self._observed_since_ms = now_ms - await self._shards.opened.uptime_ms()
        elif now_ms - self._shards.observed_at_ms > OBSERVED_GAP_MS:
            self._observed_since_ms = now_ms

    @property
    def _is_followed(self) -> bool:
        return asyncio.get_running_loop().time() < self._followed_until_s


def _pause_s() -> float:
    return SWEEP_INTERVAL_S * random.uniform(0.5, 1.5)  # noqa: S311
