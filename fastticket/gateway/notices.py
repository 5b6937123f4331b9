"""What the data plane has noticed, as log lines for operators: servers that are down, shortages,
refused PROXY headers, faulty responses.

A state that goes on is logged when it begins, and again after SHORTAGE_S without it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from fastticket.dataplane.proxy import Proxy

log = logging.getLogger("fastticket.gateway")

SHORTAGE_S = 10.0  # without it, and the next one is logged again
SHORTAGES = {
    "full": "connections_max: %d clients are connected, others wait until some of them go",
    "out_of_descriptors": "there are no file descriptors left, with %d clients: others wait; a request that needs one more gets 503",
}


class Notices:
    """Logs the news of the data planes of one service, which share what is asked here of the first.
    `upstreams`: their names, by number; `cookie`: the ticket's.
    """

    def __init__(self, planes: Sequence[Proxy], upstreams: Sequence[str], cookie: str) -> None:
        self._planes = planes
        self._proxy = planes[0]
        self._upstreams = upstreams
        self._cookie = cookie
        self._shortages = {name: _Episodes(self._shortage(name)) for name in SHORTAGES}
        self._unannounced = _Episodes(self._proxy.occupancy.unannounced[0])

    def tell(self, *, is_accepting: bool) -> None:
        """Log everything that is new; of connections that were not let in, if any are."""
        self._tell_servers()
        self._tell_shortages()
        if is_accepting:
            self._tell_unannounced()
        self._tell_faults()

    def _tell_servers(self) -> None:
        for group, server, reason in self._proxy.upstreams.news():
            if reason:
                log.warning("upstream %s: %s is down: %s", self._upstreams[group], server, reason)
            else:
                log.warning("upstream %s: %s is up again", self._upstreams[group], server)

    def _tell_shortages(self) -> None:
        """Clients have to wait."""
        for name, text in SHORTAGES.items():
            if self._shortages[name].begins(self._shortage(name)):
                log.error(text, self._proxy.occupancy.client_count)

    def _shortage(self, name: str) -> int:
        """How often there was one, in all planes."""
        return sum(plane.shortages[name] for plane in self._planes)

    def _tell_unannounced(self) -> None:
        """Connections were closed for want of a valid PROXY header."""
        count, peer, why = self._proxy.occupancy.unannounced
        if self._unannounced.begins(count):
            log.warning("a connection from %s was closed: %s (%d so far)", peer or "a Unix socket", why, count)

    def _tell_faults(self) -> None:
        """Faulty responses; the error log limits how many lines of one kind it writes."""
        found, more = self._proxy.upstreams.faults()
        for group, server, what in found:
            if what:
                log.warning("upstream %s: %s: 502, no response: %s", self._upstreams[group], server, what)
            else:
                log.warning(
                    "upstream %s: %s sets the cookie %s, on a route without login = true: dropped",
                    self._upstreams[group],
                    server,
                    self._cookie,
                )
        if more:
            log.warning("upstreams: %d more such faults", more)


class _Episodes:
    """Tells from a counter when a state begins: the counter grows after SHORTAGE_S without
    growth.
    """

    def __init__(self, count: int) -> None:
        self._count = count  # which may be that of planes before this one
        self._seen_s = -SHORTAGE_S

    def begins(self, count: int) -> bool:
        """Whether the state has begun; `count`: the counter now."""
        if count == self._count:
            return False
        now_s = time.monotonic()
        is_new = now_s - self._seen_s >= SHORTAGE_S
        self._count, self._seen_s = count, now_s
        return is_new
