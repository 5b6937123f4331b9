"""The note that a worker writes for its supervisor each second: what `/metrics`, `/readyz` and the
next workers need to know of it, beside the data plane's counters.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fastticket.gateway import errorlog
from fastticket.gateway.assembly import clients_max
from fastticket.gateway.services import Services
from fastticket.gateway.sharedmemory import Slot
from fastticket.sessions.canary import Canary
from fastticket.sessions.census import Census
from fastticket.sessions.ticketcache import NOW, TicketCache, checker_of, is_giving_back, measured, mirroring_of

log = logging.getLogger("fastticket.gateway")

NOTE_INTERVAL_S = 1.0


class Notes:
    """Writes the notes of one worker into its slot, and beats for the supervisor's watchdog, as
    long as all of its threads run.
    """

    def __init__(self, slot: Slot, services: Services, cache: TicketCache, canary: Canary, census: Census) -> None:
        self._slot = slot
        self._canary = canary
        self._census = census
        self._services = services
        self._cache = cache
        self._alive_s = time.monotonic()  # when all threads ran
        self._is_too_long = False
        self._earlier_key_uses: Counter[int] = Counter()  # by id, of secrets that have left the ring
        self._timer: asyncio.TimerHandle | None = None

    def publish(self) -> None:
        """Write a note now, and the next one in NOTE_INTERVAL_S."""
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(NOTE_INTERVAL_S, self.publish)
        if self._services.are_alive():
            self._slot.beat()
            self._alive_s = time.monotonic()
        note = self._note()
        try:
            self._slot.publish(note)
        except ValueError as error:  # too many servers, or names too long
            if not self._is_too_long:
                log.error("%s: upstream servers are not shown any more", error)
            self._is_too_long = True
            self._slot.publish({**note, "resolved": {}, "upstreams": [], "drained": []})

    def publish_last(self) -> None:
        """Write a note, and no further one."""
        self.publish()
        assert self._timer  # noqa: S101 -- for mypy
        self._timer.cancel()

    def keep_key_uses(self, before: Mapping[int, int]) -> None:
        """The key ring was replaced: what it had counted `before` is not lost."""
        uses = checker_of(self._cache).keys.uses
        self._earlier_key_uses.update(
            {key_id: count for key_id, count in before.items() if uses.get(key_id, 0) < count}
        )

    def _note(self) -> dict[str, Any]:
        cache, services = self._cache.stats, self._services
        earlier = self._earlier_key_uses
        upstreams = services.present.upstreams
        return {
            "at_s": self._alive_s,
            "counters": {
                **{name: value for name, value in cache.items() if name not in NOW},
                **measured(self._cache),
                **errorlog.counted(),
                "revocation_lag": self._canary.lag.counted,
                "canaries": dict(self._canary.ended),
                "upstream_counts": services.upstream_counts,
                "log_lines_lost": services.log_lines_lost,
                "session_changes": dict(services.session_changes),
                "migrations": services.present.exchange.counted if services.present.exchange else {},
                "token_requests": dict(services.token_requests),
                "key_uses": {
                    str(key_id): uses + earlier[key_id] for key_id, uses in checker_of(self._cache).keys.uses.items()
                },
            },
            "now": {
                **{name: cache[name] for name in NOW},
                "connections": services.connection_count,
                "tunnels": services.tunnel_count,
                "connections_max": clients_max(services.present.config)[0],
                "capacity": services.present.config.cache.capacity,
            },
            "canary_heard_s": self._canary.heard_s,
            "sessions_living": self._census.living,
            "retiring": services.retiring_count,
            "threads": [
                {"connections": plane.connection_count, "tunnels": plane.tunnel_count}
                for plane in services.present.planes
            ],
            "store": dict(self._cache.store_servers),
            "mirroring": mirroring_of(self._cache),
            "is_giving_back": is_giving_back(self._cache),
            "migrations": services.present.exchange.now if services.present.exchange else {"held": 0, "late": 0},
            "old_stores_away": services.present.exchange.away if services.present.exchange else {},
            "resolved": upstreams.resolved,
            "without_servers": upstreams.without_servers,
            "upstreams": upstreams.states(),
            "drained": services.drained_states(),
        }
