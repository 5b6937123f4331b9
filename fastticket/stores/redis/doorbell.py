"""The doorbell: a subscription that makes the cache look at a shard's log sooner.

It may be lost: the log is the truth. After each interruption every shard rings, for what was
published meanwhile was not heard.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Iterable

from redis.exceptions import RedisError

from fastticket.errors import StoreUnavailable
from fastticket.stores.contract import Changed, Ring
from fastticket.stores.redis.layout import DOORBELL
from fastticket.stores.redis.sending import Sender
from fastticket.stores.redis.servers import Listener

log = logging.getLogger("fastticket.redis")

MESSAGE = re.compile(rb"(\d{1,9}) (\d{1,20})-(\d{1,20})(?: ([A-Za-z0-9_-]{22}))?")
PING_S = 5.0
PAUSE_MAX_S = 2.0
HELD_S = 5.0  # for so long it must work until that is logged: something may cut it off each time


class Doorbell:
    """`ring` is called in the event loop, as `Store.on_doorbell` says."""

    def __init__(self, sender: Sender) -> None:
        self.ring: Ring | None = None
        self._sender = sender
        self._shards = range(len(sender.slots))

    def ring_for(self, shards: Iterable[int], changed: Changed | None = None) -> None:
        """There is news in the logs of these shards."""
        if self.ring:
            for shard in shards:
                self.ring(shard, changed)

    async def listen(self) -> None:
        """Subscribe, on any server (in a Cluster each publishes to all), for as long as the store
        is open.
        """
        failures = 0
        is_failure_logged = False
        while True:
            try:
                slot = self._sender.slots[random.randrange(len(self._shards))]  # noqa: S311
                server = await self._sender.topology.server_of(slot)
                listener = await server.subscribe(DOORBELL)
                try:
                    failures, since_s = 0, time.monotonic()
                    self.ring_for(self._shards)
                    await self._hear(
                        listener, f"redis {server.name}: the doorbell works again" if is_failure_logged else ""
                    )
                finally:
                    listener.close()
                    is_failure_logged = is_failure_logged and time.monotonic() < since_s + HELD_S
            except (RedisError, OSError, StoreUnavailable):
                pass
            except Exception:
                log.exception("redis: the doorbell goes on after an unexpected error")
            failures += 1
            if not is_failure_logged:
                is_failure_logged = True
                log.warning("redis: the doorbell's connection is lost; revocations elsewhere are seen within the lease")
            await asyncio.sleep(min(0.05 * 2 ** min(failures, 10), PAUSE_MAX_S) * random.uniform(0.5, 1))  # noqa: S311

    async def _hear(self, listener: Listener, news: str) -> None:
        """Until two pings in a row were not answered. `news` is logged if this lasts for HELD_S."""
        logging_news = asyncio.get_running_loop().call_later(HELD_S, log.warning, news) if news else None
        try:
            async for message in listener.published(PING_S):
                said = MESSAGE.fullmatch(message)
                if said and int(said[1]) in self._shards:
                    self.ring_for((int(said[1]),), _changed(said))
        finally:
            if logging_news:
                logging_news.cancel()


def _changed(said: re.Match[bytes]) -> Changed | None:
    return Changed(said[4].decode(), (int(said[2]), int(said[3]))) if said[4] else None
