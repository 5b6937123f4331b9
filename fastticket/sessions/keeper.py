"""The keeper: a background task that keeps what this process holds true to the store.

    open, begin        open the store, or wait for it in the background
    _keep              the loop: doorbell, flush, clock, sweep
    _answer_doorbell   the tails of the shards that rang, at once
    _join              the fleet's longest intervals
    read_clock         the offset to the store's clock
    _beat              so that a stall of this process is noticed

Flush, repair and sweep have files of their own.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Coroutine

from fastticket.errors import ConfigError, StoreUnavailable
from fastticket.sessions.coherence import clock_step
from fastticket.sessions.flush import Flusher
from fastticket.sessions.repair import Repair
from fastticket.sessions.restoring import Restorer
from fastticket.sessions.shards import Shards
from fastticket.sessions.sweep import Sweeper
from fastticket.stores.contract import Changed, Fleet, Request
from fastticket.tasks import end

log = logging.getLogger("fastticket.cache")

OPEN_PAUSE_S = 0.5  # on average, between two attempts to open a store that was away from the start
CLOCK_INTERVAL_S = 10.0  # between two looks at the store's clock and the fleet's longest intervals
FLEET_SETTLE_S = 2.5 * CLOCK_INTERVAL_S  # until every process knows that one with longer intervals has joined
CLOSE_ATTEMPTS = 3


class Keeper:
    """One task from `open` or `begin` to `stop`."""

    def __init__(self, shards: Shards) -> None:
        self.flusher = Flusher(shards)
        self.sweeper = Sweeper(shards)
        self._shards = shards
        self._repair = Repair(shards)
        self.restorer = Restorer(shards)
        shards.on_gap = self._repair.start
        shards.on_loss = self.restorer.start
        self._task: asyncio.Task[None] | None = None
        self._beater: asyncio.TimerHandle | None = None
        self._rung: set[int] = set()  # shards
        self._bell = asyncio.Event()
        self._known_to_all = shards.fleet  # the longest intervals that every process already knows
        self._settled_at_ms = 0  # when every process must know `shards.fleet`

    @property
    def was_started(self) -> bool:
        """Whether `open` or `begin` has succeeded."""
        return self._task is not None

    # --- opening and closing

    async def open(self) -> None:
        """StoreUnavailable, ConfigError."""
        await self._open_store()
        self._start(self._keep())

    async def begin(self, patience_s: float, *, is_known_good: bool = False) -> None:
        """As `TicketCache.begin`. ConfigError."""
        opening = asyncio.create_task(self._open_store(), name="fastticket-open")
        try:
            await asyncio.wait({opening}, timeout=patience_s)
        except BaseException:
            await end(opening)
            raise
        if opening.done() and (error := opening.exception()):
            if not isinstance(error, StoreUnavailable | ConfigError) or (
                isinstance(error, ConfigError) and not is_known_good
            ):
                raise error
            self._shards.begin_away(str(error))
        elif not opening.done():
            self._shards.begin_away(f"the store has not answered in {patience_s:g} s")
        self._start(self._await_store(opening))

    async def stop(self) -> None:
        """End the background tasks. What is unwritten stays so."""
        await end(self._task, self._repair.task, self.restorer.task)
        self._end_beats()

    async def write_all(self) -> None:
        """Flush until nothing is unwritten, CLOSE_ATTEMPTS times at most."""
        for _ in range(CLOSE_ATTEMPTS):
            await self.flusher.flush()
            if not self.flusher.pending:
                break
        else:
            log.error("closing with %d touches unwritten: the store does not take them", self.flusher.pending)

    def _start(self, loop: Coroutine[None, None, None]) -> None:
        self._task = asyncio.create_task(loop, name="fastticket-flush")
        self._repair.may_run = True

    async def _open_store(self) -> None:
        shards = self._shards
        try:
            await shards.store.open()
            await self._join()
            await self.read_clock()
            shards.absence = ""
            self._beat()
            self.flusher.begin()
            shards.store.on_doorbell(self.on_doorbell)
            # What another process has handed over is followed from there on: with what has ended
            # since.
            await shards.exchange({shard.number: Request(shard.position) for shard in shards})
            if shards.settings.restore_from_cache:
                await self.restorer.heed()
        except BaseException:  # also at its end: another attempt opens the store anew
            self._end_beats()
            await shards.store.aclose()
            raise

    async def _await_store(self, opening: asyncio.Task[None]) -> None:
        """Retry `opening`, the first attempt, until the store is open, then run `_keep`."""
        attempt: Awaitable[None] = opening
        while True:
            try:
                await attempt
                break
            except ConfigError as error:
                if str(error) != self._shards.absence:
                    log.error("%s", error)
                self._shards.absence = str(error)
            except StoreUnavailable as error:
                self._shards.absence = str(error)
            except Exception:
                log.exception("the store could not be opened; it is tried again")
            await asyncio.sleep(OPEN_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311
            attempt = self._open_store()
        self._shards.absence = ""  # it may have been given up between its opening and its first answer
        await self._keep()

    # --- the loop

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        flush_at = loop.time() + self._interval_ms / 1000
        clock_at = loop.time() + CLOCK_INTERVAL_S
        self.sweeper.begin()
        while True:
            is_due = False
            wake_at = min(flush_at, self.sweeper.at_s)
            try:
                async with asyncio.timeout_at(wake_at):
                    await self._bell.wait()
            except TimeoutError:
                is_due = wake_at == flush_at
            try:
                await self._answer_doorbell()
                now = loop.time()
                if is_due or now >= flush_at:
                    flush_at = now + self._interval_ms / 1000
                    await self.flusher.flush()
                    await self.sweeper.observe()
                if now >= clock_at:
                    clock_at = now + CLOCK_INTERVAL_S
                    await self._join()
                    await self.read_clock()
                await self.sweeper.run(now)
            except (StoreUnavailable, ConfigError) as error:
                self._shards.observed_at_ms = 0
                # An outage was logged when it began.
                if isinstance(error, ConfigError) or not self._shards.away_count():
                    log.warning("%s", error)
            except Exception:
                log.exception("the flush loop goes on after an unexpected error")

    def on_doorbell(self, number: int, changed: Changed | None = None) -> None:
        """A shard's log has news. Of a change of attributes `changed` tells all: an older near copy
        goes at once, and the store is asked when a newer one is wanted.
        """
        if changed:
            self._shards.near_attributes.changed(*changed)
            return
        self._rung.add(number)
        self._bell.set()

    async def _answer_doorbell(self) -> None:
        """Log tails only: touches keep to their interval."""
        self._bell.clear()
        rung, self._rung = self._rung, set()
        if rung:
            await self._shards.exchange({number: Request(self._shards[number].position) for number in rung})

    def _beat(self) -> None:
        """Note that this process runs; called every lease / 8."""
        self._shards.pulse.beat(self._shards.monotonic_ms())
        self._beater = asyncio.get_running_loop().call_later(self._shards.settings.lease_ms / 8000, self._beat)

    def _end_beats(self) -> None:
        if self._beater:
            self._beater.cancel()

    # --- the fleet and its clock

    async def _join(self) -> None:
        """Tell the fleet this process's intervals, and learn the longest: every deadline allows for
        the time that a use takes to be written.

        1. the others' deadlines allow for a flush interval of 500 ms
        2. a process joins that flushes every 2,000 ms
        3. until all have heard of it, a use that it writes could come too late for their deadlines

        So until then it flushes as often as they expect.
        """
        shards = self._shards
        before = await shards.store.join(shards.fleet)
        longest = shards.fleet if before is None else Fleet(*map(max, before, shards.fleet))
        if before is not None and longest != before:
            self._known_to_all = before
            self._settled_at_ms = shards.monotonic_ms() + round(FLEET_SETTLE_S * 1000)
            log.info("the fleet's longest flush interval is now %d ms, its longest lease %d ms", *longest)
        shards.fleet = longest
        shards.near.slack_ms = longest.flush_interval_ms

    @property
    def _interval_ms(self) -> int:
        """Between two flushes."""
        own_ms = self._shards.settings.flush_interval_ms
        if self._shards.monotonic_ms() >= self._settled_at_ms:
            return own_ms
        return min(own_ms, self._known_to_all.flush_interval_ms)

    async def read_clock(self) -> None:
        """Follow the store's clock. After a jump everything held must be looked up again.
        StoreUnavailable.
        """
        shards = self._shards
        before_ms = shards.monotonic_ms()
        store_ms = await shards.store.time_ms()
        after_ms = shards.monotonic_ms()
        measured_ms = store_ms - (before_ms + after_ms) // 2
        uncertainty_ms = after_ms - before_ms + shards.clock_resolution_ms
        step = clock_step(shards.checker.offset_ms, measured_ms, uncertainty_ms)
        if not step.by_ms:
            return
        if step.is_jump:  # before the clock is set: other threads look on
            shards.near.forget_refusals()
            for shard in shards:
                shards.near.bump_epoch(shard.number)
        shards.step_clock(step.by_ms)
        if step.is_jump:
            self._repair.start()
