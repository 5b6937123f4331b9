"""Another server than before serves a shard: what it may lack is made again, before it is believed.

    note           a shard has another server, or the same one with older data
    settle         wait until no server can take over any more that lacks this process's changes
    make_again     send the ledger (redis/again.py) to the servers of some shards
    run            a script in a shard, believed only when nothing is left to make again there
    catch_up       hear the last minute of a log, for the ledger

Rules of this file
- A server that answers in another's place may lack the last writes. So before anything is believed
  of a shard that it serves, all that this process has heard in the last minute is made again there,
  and the shard's next reply is a gap.
- Making again goes on in the background until it has succeeded, or for AGAIN_GIVE_UP_S: nobody may
  ask for these shards for long, and what they lack must not wait for that.
- A change that the old server took when the new one was promoted already is in the ledgers of those
  who made it or read the log in time. So a process does not end before it would have heard of a
  promotion that was under way when it made its last change.
- Nobody's cancellation ends it: all callers wait for the same task of a shard.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from redis.exceptions import MovedError

from fastticket import spans
from fastticket.errors import ConfigError, StoreUnavailable
from fastticket.stores.contract import Fleet
from fastticket.stores.redis.again import HEARD_S, Ledger, sessions_in
from fastticket.stores.redis.layout import attributes_key, key, user_key
from fastticket.stores.redis.scripts import AGAIN, Script
from fastticket.stores.redis.sending import Sender

log = logging.getLogger("fastticket.redis")

T = TypeVar("T")

TAKING_OVER = "redis: another server is taking over, and may not have everything yet; try again"
BELIEF_ATTEMPTS = 3  # while servers take over from each other
AGAIN_PAUSE_S = 0.1
AGAIN_GIVE_UP_S = 60.0
PROMOTION_S = 1.0  # sentinels look at a server that they promote once a second, and tell of it then
SETTLE_S = 2.0  # for making again, at the end of a process
CATCH_UP_ENTRIES = 8192  # of a shard's log: all that it holds


class Takeover:
    """`join`: writes `ft:meta` where the new server lacks it (`Meta.join`)."""

    def __init__(
        self, sender: Sender, join: Callable[[Fleet], Awaitable[Fleet | None]], clock: Callable[[], float]
    ) -> None:
        shards = len(sender.slots)
        self.ledger = Ledger(shards, clock)
        self.changed: set[int] = set()  #: shards whose next reply is a gap
        self.behind: set[int] = set()  #: shards on whose server the ledger must be made again
        self._sender = sender
        self._join = join
        self._changes = [0] * shards  # how often each had another server
        self._reasons = [0] * shards  # how often there was one to make its ledger again
        self._making: dict[int, asyncio.Task[dict[int, StoreUnavailable]]] = {}
        self._persisting: asyncio.Task[None] | None = None
        self._persists_until_s = 0.0
        self._changed_s = -math.inf  # when this process last changed something
        self.chores: set[asyncio.Task[Any]] = set()  #: tasks in the background; the store ends them

    # --- noticing

    def note(self, shards: Collection[int]) -> None:
        """Other servers serve these shards, or their data is older than what was heard of it."""
        self.changed |= set(shards)
        for shard in shards:
            self._changes[shard] += 1
        self._is_behind(shards)

    def changes(self, shard: int) -> int:
        """How often it had another server: for `note_late`."""
        return self._changes[shard]

    def note_late(self, shard: int, changes_before: int) -> None:
        """This process's change is in the ledger, asked for when there had been `changes_before`.
        Another server may have come while the old one's answer was under way, and have been sent
        the ledger without this.
        """
        self._changed_s = time.monotonic()
        if changes_before != self._changes[shard]:
            self._is_behind([shard])

    def _is_behind(self, shards: Iterable[int]) -> None:
        """The ledger must be made again there; once more, if that is being done just now."""
        for shard in shards:
            self.behind.add(shard)
            self._reasons[shard] += 1
        self._persists_until_s = time.monotonic() + AGAIN_GIVE_UP_S
        if self._persisting is None or self._persisting.done():
            self._persisting = self._start(self._persist(), "again")

    # --- making again

    async def settle(self, doubt_s: float) -> None:
        """Wait until a server that was promoted before the last change is known, and has all of the
        ledger; at most PROMOTION_S + `doubt_s` + SETTLE_S. `doubt_s`: how long such news take.
        """
        await asyncio.sleep(max(0.0, self._changed_s + PROMOTION_S + doubt_s - time.monotonic()))
        if self._persisting is not None:
            await asyncio.wait([self._persisting], timeout=SETTLE_S)

    async def run(
        self,
        shard: int,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Any],
        *,
        confirm: bool = True,
        believes: Callable[[Any], bool] = bool,
    ) -> Any:
        """`believes`: whether an answer is true even of a server that has just taken over: what it
        has, it has; it may lack much. StoreUnavailable.
        """
        for _ in range(BELIEF_ATTEMPTS):
            failed = await self.make_again(self.behind & {shard})
            if failed:
                raise failed[shard]
            answer = await self._sender.run_script(shard, script, keys, arguments, confirm=confirm)
            if shard not in self.behind or believes(answer):
                return answer
        raise StoreUnavailable(TAKING_OVER)

    async def make_again(self, shards: Collection[int]) -> dict[int, StoreUnavailable]:
        """The shards for which it failed. Each is done once at a time, for all who wait for it."""
        if not shards:
            return {}
        if left := [shard for shard in shards if shard not in self._making]:
            making = self._start(self._make_shards_again(left), "make-again")
            if making is None:
                return dict.fromkeys(shards, StoreUnavailable("the redis store is not open"))
            self._making |= dict.fromkeys(left, making)
        tasks = {shard: self._making[shard] for shard in shards}
        await asyncio.wait(set(tasks.values()))
        failed: dict[int, StoreUnavailable] = {}
        for shard, task in tasks.items():
            if task.cancelled():
                failed[shard] = StoreUnavailable("the redis store is closed")
            elif error := task.result().get(shard):
                failed[shard] = error
        return failed

    async def _persist(self) -> None:
        """Servers change roles more than once: until none is behind."""
        while self.behind and time.monotonic() < self._persists_until_s:
            if await self.make_again(set(self.behind)):
                await asyncio.sleep(AGAIN_PAUSE_S)

    async def _make_shards_again(self, shards: Sequence[int]) -> dict[int, StoreUnavailable]:
        try:
            with spans.span("failover"):
                spans.note("shards", len(shards))
                await self._join(Fleet(0, 0))
                results = await asyncio.gather(*(self._make_shard_again(shard) for shard in shards))
            return {shard: error for shard, error in zip(shards, results, strict=True) if error}
        except StoreUnavailable as error:
            return dict.fromkeys(shards, error)
        except ConfigError as error:
            return dict.fromkeys(shards, StoreUnavailable(str(error)))
        finally:
            for shard in shards:
                del self._making[shard]

    async def _make_shard_again(self, shard: int) -> StoreUnavailable | None:
        reasons, made = self._reasons[shard], 0
        for piece in self.ledger.words(shard):
            named = list(sessions_in(piece))
            keys = {user_key(shard, principal): None for _, principal in named}
            keys |= {attributes_key(shard, session_id): None for session_id, _ in named if session_id}
            words = [word for each in piece for word in each]
            try:
                made += await self._sender.run_script(shard, AGAIN, list(keys), (shard, *words))
            except StoreUnavailable as error:
                return error
        if reasons == self._reasons[shard]:  # else another reason came in between
            self.behind.discard(shard)
        if made:
            log.warning("redis: shard %d: %d ends, rotations and logins were lost, and are made again", shard, made)
        return None

    # --- the log's last minute

    async def catch_up(self, shards: Iterable[int], now_ms: int, *, is_start: bool = False) -> None:
        """`XREVRANGE`: what other processes did in the last minute is for this one, too, to make
        again. Logs that cannot be read are left out. StoreUnavailable at the start, where the URL
        takes a Cluster for a single server.
        """
        since = f"{now_ms - round(HEARD_S * 1000)}"

        async def catch_up(shard: int) -> None:
            command = ("XREVRANGE", key(shard, "log"), "+", since, "COUNT", CATCH_UP_ENTRIES)
            try:
                self.ledger.hear(shard, (await self._sender.ask(self._sender.slots[shard], command))[::-1])
            except StoreUnavailable as error:
                if isinstance(error.__cause__, MovedError) and is_start:
                    raise

        await asyncio.gather(*map(catch_up, shards))

    def catch_up_soon(self, shard: int, now_ms: int) -> None:
        """In the background: entries of its log were not heard."""
        self._start(self.catch_up([shard], now_ms), "catch-up")

    def _start(self, chore: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T] | None:
        """None: the store is closed."""
        if not self._sender.is_open:
            chore.close()
            return None
        task = asyncio.create_task(chore, name=f"fastticket-{name}")
        self.chores.add(task)
        task.add_done_callback(self.chores.discard)
        return task
