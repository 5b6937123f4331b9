"""The canary: a session that nobody has, which is ended every few seconds, so that each gateway
measures how late it hears of an end.

    stored_canary   the session: past its deadline from the start, of a principal that no user has
    Canary          ends one where none was heard of for a while; measures when an end is heard

What is ended and heard is what a logout ends and everybody hears: `revoke`, the doorbell, the log,
`Shards._hear`. Nothing on the way knows canaries, but where sessions and events are shown.

Rules of this file
- Nobody is elected. Whoever has heard of no canary for INTERVAL_S, and up to half as much again,
  ends one; all the others hear it, and wait again. Two at a time do no harm.
- Each is of a shard drawn by lot, so that all of them are measured.
- The end's reason is the store's time at which it was asked for. So the lag has all that a logout
  takes to come here: the way to the store, its write, the doorbell, and the look at the log.
- With the store away nothing is heard, and the time since then grows.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import re
import time

from fastticket.core.ticket import encode_session_id
from fastticket.errors import FastticketError
from fastticket.sessions.shards import Shards
from fastticket.stores.contract import CANARY, Event, StoredSession, shard_of
from fastticket.stores.usage import Histogram
from fastticket.tasks import end

log = logging.getLogger("fastticket.cache")

#: The system's: a program that seeds Python's does not make all its processes act in step, nor does
#: a fork.
_random = random.SystemRandom()

INTERVAL_S = 10.0  # 25 commands of Redis each time: within the budget of bench/store_load.py
CLOCK_ERROR_MS = 1000  # of what a process takes for the store's time, at most
REASON = re.compile(r"canary ([0-9]{1,16})")


def stored_canary(shard: int, shards: int, now_ms: int) -> StoredSession:
    """A canary of this shard. It is past its deadline already: nobody counts or lists it as one
    that lives, and a sweep removes what somebody has left who ended in between.
    """
    names = (f"{CANARY}{number}" for number in itertools.count())
    principal = next(name for name in names if shard_of(name, shards) == shard)
    over_ms = now_ms - CLOCK_ERROR_MS
    return StoredSession(encode_session_id(_random.randbytes(16)), principal, over_ms, over_ms, 1, 1)


class Canary:
    """Of one ticket cache, in its event loop."""

    def __init__(self, shards: Shards) -> None:
        self.lag = Histogram()  #: s, of each end that was heard
        self.ended = {"ended": 0, "failed": 0}  #: of those that were this process's to end
        self.heard_s = time.monotonic()  #: when the last one was heard; at first, when this began
        self._shards = shards
        self._due_s = 0.0  # to end one, unless one is heard before
        self._awaited_id = ""  # the last one that this process has ended
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Measure from now on, until `stop`."""
        self._wait_again()
        self._shards.on_canary = self._hear
        self._task = asyncio.create_task(self._watch(), name="fastticket-canary")

    async def stop(self) -> None:
        """End none any more. Idempotent."""
        await end(self._task)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._due_s - _now_s()))
            if _now_s() < self._due_s:  # one was heard meanwhile
                continue
            self._wait_again()
            try:
                await self._end_one()
            except FastticketError as error:  # an outage, which was logged when it began
                log.debug("canary: %s", error)
                self.ended["failed"] += 1
            except Exception:
                log.exception("canaries go on after an unexpected error")
                self.ended["failed"] += 1
            else:
                self.ended["ended"] += 1

    async def _end_one(self) -> None:
        """StoreUnavailable."""
        shards, store = self._shards, self._shards.opened
        number = _random.randrange(store.shards)
        session = stored_canary(number, store.shards, shards.now_ms())
        await store.create(session)
        # Whoever has ended it looks at that shard with each flush, as if it had a session there: a
        # doorbell may be lost, and SQLite's does not ring for what this process has done.
        shards.awaited, self._awaited_id = number, session.id
        await store.revoke(session.id, session.principal, f"canary {shards.now_ms()}")

    def _hear(self, event: Event) -> None:
        """An end is applied here."""
        if event.session_id == self._awaited_id:
            self._shards.awaited = None
        said = REASON.fullmatch(event.reason)
        if event.kind == "revoked" and said:
            self.heard_s = _now_s()
            self.lag.add(max(0, self._shards.now_ms() - int(said[1])) / 1000)
            self._wait_again()

    def _wait_again(self) -> None:
        self._due_s = _now_s() + INTERVAL_S * _random.uniform(1.0, 1.5)


def _now_s() -> float:
    """Of the loop's clock, which is `time.monotonic`."""
    return asyncio.get_running_loop().time()
