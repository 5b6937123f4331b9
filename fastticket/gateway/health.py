"""Health checks of one upstream's servers: a GET of `health_path` to each, every
`health_interval_s`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Iterable, Mapping

from fastticket.dataplane.http1 import response_head
from fastticket.dataplane.upstreams import Upstreams, server_text
from fastticket.gateway.addresses import Server
from fastticket.gateway.settings import UpstreamSettings
from fastticket.tasks import end

log = logging.getLogger("fastticket.gateway")

HEAD_BYTES_MAX = 16_384  # of the answer to a health check
FIRST_CHECK_TIMEOUT_S = 2.0  # a server that takes longer to answer the first one counts as well until it fails


class HealthChecks:
    """The checks of one upstream, one task for each server. `group`: its number among the data
    plane's upstreams, which get every change.

    `unreported`: servers whose health no log line tells. `faults`: why those are not well that are
    not, as they were told.
    """

    def __init__(self, upstreams: Upstreams, group: int, upstream: UpstreamSettings) -> None:
        self.unreported: set[Server] = set()
        self.faults: dict[Server, str] = {}
        self._upstreams = upstreams
        self._group = group
        self._upstream = upstream
        self._tasks: dict[Server, asyncio.Task[None]] = {}

    async def check_first(self, servers: Iterable[Server]) -> dict[Server, bool]:
        """Check each server once, at the same time: which are well, as far as they answer in
        FIRST_CHECK_TIMEOUT_S.
        """
        checks = {server: asyncio.create_task(fault_of(server, self._upstream)) for server in servers}
        if checks:
            await asyncio.wait(checks.values(), timeout=FIRST_CHECK_TIMEOUT_S)
        faults = {server: check.result() if check.done() else "" for server, check in checks.items()}
        await end(*checks.values())
        for server, fault in faults.items():
            if fault:
                self._tell(server, fault)
        return {server: not fault for server, fault in faults.items()}

    def follow(self, servers: Mapping[Server, bool]) -> None:
        """Check these servers from now on, and no others; the values say which are well at
        first.
        """
        for server in self._tasks.keys() - servers.keys():
            self._tasks.pop(server).cancel()
            self.faults.pop(server, None)
        for server in servers.keys() - self._tasks.keys():
            self._upstreams.set_health(self._group, server, servers[server])
            self._tasks[server] = asyncio.create_task(
                self._check_for_ever(server, servers[server]), name=f"fastticket-health-{self._upstream.name}"
            )

    async def stop(self) -> None:
        """End the checks."""
        await end(*self._tasks.values())
        self._tasks.clear()  # a cancelled task refers to its frame, and that to us

    async def _check_for_ever(self, server: Server, is_well: bool) -> None:
        """A server changes after `health_failures` or `health_successes` in a row."""
        row = 0
        while self._tasks.get(server) is asyncio.current_task():  # else its cancellation was swallowed
            await asyncio.sleep(self._upstream.health_interval_s)
            fault = await fault_of(server, self._upstream)
            is_right = not fault
            row = row + 1 if is_right != is_well else 0
            if row == (self._upstream.health_successes if is_right else self._upstream.health_failures):
                is_well, row = is_right, 0
                self._upstreams.set_health(self._group, server, is_well)
                self._tell(server, fault)

    def _tell(self, server: Server, fault: str) -> None:
        self.faults[server] = fault
        if server in self.unreported:
            return
        if fault:
            log.warning("upstream %s: %s is not well: %s", self._upstream.name, server_text(server), fault)
        else:
            log.warning("upstream %s: %s is well", self._upstream.name, server_text(server))


async def fault_of(server: Server, upstream: UpstreamSettings) -> str:
    """One health check: why the server did not answer in time with a status of 2xx or 3xx; "" if it
    did.
    """
    writer = None
    try:
        async with asyncio.timeout(upstream.health_timeout_s):
            reader, writer = await connect(server)
            host = upstream.health_host or ("localhost" if isinstance(server, str) else server_text(server))
            writer.write(f"GET {upstream.health_path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            raw = await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        return f"no answer in {upstream.health_timeout_s:g} s"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return "no whole response head"
    finally:
        if writer:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    head = response_head(raw)
    if not isinstance(head, dict):
        return "a response that is not HTTP"
    return "" if 200 <= head["status"] < 400 else f"status {head['status']}"


async def connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """OSError."""
    if isinstance(server, str):
        reader, writer = await asyncio.open_unix_connection(server, limit=HEAD_BYTES_MAX)
        if writer.get_extra_info("peername") is None:  # EAGAIN, its queue is full, which asyncio takes for success
            writer.close()
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return reader, writer
    return await asyncio.open_connection(*server, limit=HEAD_BYTES_MAX)
