"""What the data plane can not find out by itself about the servers behind it: their addresses, and whether they are well.

Names are looked up again every `resolve_interval_s`: each address that a name has is a server. A name that can not be looked up keeps
the addresses that it had. Health checks go to each address by itself; one that no longer belongs to a name is not asked any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Mapping

from fastticket.core.http1 import response_head
from fastticket.core.proxy import Proxy
from fastticket.core.upstreams import server_text
from fastticket.errors import ConfigError
from fastticket.gateway.addresses import Address
from fastticket.gateway.config import Config, Upstream
from fastticket.tasks import end

log = logging.getLogger("fastticket.gateway")

#: As the data plane takes it: (host, port), numeric, or a Unix socket's path.
Server = tuple[str, int] | str

HEAD_BYTES_MAX = 16_384  # of the answer to a health check


class UpstreamGroup:
    """One `[[upstream]]`. Its names are looked up when it is made: ConfigError."""

    def __init__(self, proxy: Proxy, config: Config, upstream: Upstream) -> None:
        self.name = upstream.name
        self.number = proxy.upstreams.add_group(
            upstream.balance,
            connections_max=upstream.connections_max,
            pending_max=upstream.pending_max,
            slow_return_ms=int(upstream.slow_return_s * 1000),
            retry_percent=upstream.retry_percent,
        )
        self._proxy = proxy
        self._upstream = upstream
        addresses = config.server_addresses(upstream)
        self._weights = dict(zip(addresses, upstream.weights or [1] * len(addresses), strict=True))
        self._found = {address: _look_up(address) for address in addresses}
        self._checks: dict[Server, asyncio.Task[None]] = {}
        self._resolver: asyncio.Task[None] | None = None
        self._applied = self._servers()
        proxy.set_servers(self.number, self._applied.items())

    async def start(self) -> None:
        """See who is well, and keep an eye on them."""
        if not all(address.path or _is_numeric(address.host) for address in self._weights):
            self._resolver = asyncio.create_task(self._resolve_for_ever(), name=f"fastticket-resolve-{self.name}")
        servers = self._servers()
        if self._upstream.health_path:
            faults = await asyncio.gather(*map(self._fault_of, servers))
            for server, fault in zip(servers, faults, strict=True):
                if fault:
                    self._tell(server, fault)
            self._check_all({server: not fault for server, fault in zip(servers, faults, strict=True)})

    async def stop(self) -> None:
        """No more."""
        await end(*self._checks.values(), self._resolver)

    def _servers(self) -> dict[Server, int]:
        """With their weights. Two names for one address are one server."""
        return {server: self._weights[address] for address, servers in self._found.items() for server in servers}

    async def _resolve_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._upstream.resolve_interval_s)
            await self.resolve()

    async def resolve(self) -> None:
        """Look the names up again."""
        for address in self._weights:
            try:
                self._found[address] = await asyncio.to_thread(_look_up, address)
            except ConfigError as error:
                log.warning("upstream %s: %s; going on with what it was", self.name, error)
        servers = self._servers()
        if servers == self._applied:
            return
        try:
            self._proxy.set_servers(self.number, servers.items())
        except ValueError as error:
            log.error("upstream %s: %s", self.name, error)
            return
        self._applied = servers
        log.info("upstream %s: the servers are now %s", self.name, ", ".join(map(server_text, servers)))
        if self._upstream.health_path:
            self._check_all(dict.fromkeys(servers, True))

    def _check_all(self, servers: Mapping[Server, bool]) -> None:
        """One task for each server that is still there, with what is held of it to begin with."""
        for server in self._checks.keys() - servers.keys():
            self._checks.pop(server).cancel()
        for server in servers.keys() - self._checks.keys():
            self._proxy.set_health(self.number, server, servers[server])
            task = asyncio.create_task(
                self._check_for_ever(server, servers[server]), name=f"fastticket-health-{self.name}"
            )
            self._checks[server] = task

    async def _check_for_ever(self, server: Server, is_well: bool) -> None:
        """As many failures, or successes, in a row as it takes."""
        row = 0
        while self._checks.get(server) is asyncio.current_task():  # else its cancellation got lost
            await asyncio.sleep(self._upstream.health_interval_s)
            fault = await self._fault_of(server)
            is_right = not fault
            row = row + 1 if is_right != is_well else 0
            if row == (self._upstream.health_successes if is_right else self._upstream.health_failures):
                is_well, row = is_right, 0
                self._proxy.set_health(self.number, server, is_well)
                self._tell(server, fault)

    def _tell(self, server: Server, fault: str) -> None:
        """What a health check has found; no fault: it is well."""
        if fault:
            log.warning("upstream %s: %s is not well: %s", self.name, server_text(server), fault)
        else:
            log.warning("upstream %s: %s is well", self.name, server_text(server))

    async def _fault_of(self, server: Server) -> str:
        """Why it does not answer GET with a status of 2xx or 3xx in time; empty: it does."""
        writer = None
        try:
            async with asyncio.timeout(self._upstream.health_timeout_s):
                reader, writer = await _connect(server)
                host = "localhost" if isinstance(server, str) else server_text(server)
                writer.write(
                    f"GET {self._upstream.health_path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
                )
                raw = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return f"no answer in {self._upstream.health_timeout_s:g} s"
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


async def _connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(server, str):
        return await asyncio.open_unix_connection(server, limit=HEAD_BYTES_MAX)
    return await asyncio.open_connection(*server, limit=HEAD_BYTES_MAX)


def _look_up(address: Address) -> list[Server]:
    """All its addresses, of IPv4 if it has any: a server on both would be two. ConfigError."""
    if address.path:
        return [address.path]
    if address.fd >= 0:
        raise ConfigError(f"{address}: an upstream can not be a descriptor")
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:  # UnicodeError: no name at all
        raise ConfigError(f"{address}: the name does not resolve: {getattr(error, 'strerror', error)}") from None
    family = min((entry[0] for entry in found), key=lambda family: family != socket.AF_INET)
    return sorted({(str(entry[4][0]), int(entry[4][1])) for entry in found if entry[0] == family})


def _is_numeric(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False
