"""The note that a worker writes for its supervisor each second: what `/metrics`, `/readyz` and the
next workers need to know of it, beside the data plane's counters.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastticket.dataplane.proxy import Proxy
from fastticket.gateway.logfile import AccessLogFile
from fastticket.gateway.sharedmemory import Slot
from fastticket.gateway.upstreams import UpstreamGroup
from fastticket.sessions.ticketcache import NOW, TicketCache, checker_of

log = logging.getLogger("fastticket.gateway")

NOTE_INTERVAL_S = 1.0


class Notes:
    """Writes the notes of one worker into its slot, and beats for the supervisor's watchdog."""

    def __init__(
        self,
        slot: Slot,
        proxy: Proxy,
        cache: TicketCache,
        groups: Sequence[UpstreamGroup],
        access_log: AccessLogFile | None,
        session_changes: Counter[str],
    ) -> None:
        """`session_changes`: how many sessions were changed, by what the application asked for."""
        self._slot = slot
        self._proxy = proxy
        self._cache = cache
        self._groups = groups
        self._access_log = access_log
        self._session_changes = session_changes
        self._is_too_long = False
        self._timer: asyncio.TimerHandle | None = None

    def publish(self) -> None:
        """Write a note now, and the next one in NOTE_INTERVAL_S."""
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(NOTE_INTERVAL_S, self.publish)
        self._slot.beat()
        note = self._note()
        try:
            self._slot.publish(note)
        except ValueError as error:  # too many servers, or names too long
            if not self._is_too_long:
                log.error("%s: upstream servers are not shown any more", error)
            self._is_too_long = True
            self._slot.publish({**note, "resolved": {}, "upstreams": []})

    def publish_last(self) -> None:
        """Write a note, and no further one."""
        self.publish()
        assert self._timer  # noqa: S101 -- for mypy
        self._timer.cancel()

    def _note(self) -> dict[str, Any]:
        cache = self._cache.stats
        return {
            "at_s": time.monotonic(),
            "counters": {
                **{name: value for name, value in cache.items() if name not in NOW},
                "log_lines_lost": self._access_log.lines_lost if self._access_log else 0,
                "session_changes": dict(self._session_changes),
                "key_uses": {str(key_id): uses for key_id, uses in checker_of(self._cache).keys.uses.items()},
            },
            "now": {name: cache[name] for name in NOW},
            "store": dict(self._cache.store_servers),
            "resolved": {name: servers for group in self._groups for name, servers in group.resolved.items()},
            "without_servers": [group.name for group in self._groups if not group.has_servers],
            "upstreams": [
                {**state, "group": self._groups[state["group"]].name} for state in self._proxy.upstreams.state()
            ],
        }
