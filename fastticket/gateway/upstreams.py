"""What the data plane can not find out by itself about the servers behind it: their addresses, and
whether they are well.

Names are looked up again every `resolve_interval_s`: each address that a name has is a server. Of a
name that has addresses of IPv4 and of IPv6, those of IPv6 are seconds, which the data plane uses
while none of the first ones is up: a server that listens on both is one. A name that can not be
looked up keeps the addresses that it had; one that never could be has none until it can. Health
checks go to each address by itself; one that no longer belongs to a name is not asked any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence

from fastticket.dataplane.balance import server_text
from fastticket.dataplane.http1 import response_head
from fastticket.dataplane.proxy import Proxy
from fastticket.errors import ConfigError
from fastticket.gateway.addresses import Address
from fastticket.gateway.given import Server, Start
from fastticket.gateway.settings import Config, UpstreamSettings
from fastticket.tasks import end

log = logging.getLogger("fastticket.gateway")

HEAD_BYTES_MAX = 16_384  # of the answer to a health check
LOOKUP_PATIENCE_S = 5.0  # for names to be found before anybody is served
HEALTH_PATIENCE_S = (
    2.0  # for the first answers to health checks; a server that takes longer is well until it has failed
)
UNRESOLVED_PAUSE_S = 2.0  # between two looks for a name that has no address yet


class UpstreamGroup:
    """One `[[upstream]]`. Without an address of any of its names it has no servers: 503.

    `known`: addresses of names, as somebody found them last, by `host:port`.
    """

    def __init__(
        self,
        proxy: Proxy,
        config: Config,
        upstream: UpstreamSettings,
        known: Mapping[str, Sequence[Server]] | None = None,
    ) -> None:
        """ConfigError: an address that cannot be one."""
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
        self._known = known = known or {}
        self._names = [address for address in addresses if not address.path and not _is_numeric(address.host)]
        for address in addresses:
            _check_address(address)
        self._found = {
            address: list(known.get(str(address), ())) if address in self._names else _look_up(address)
            for address in addresses
        }
        self._unresolved: dict[Address, str] = {}  # and why
        self._checks: dict[Server, asyncio.Task[None]] = {}
        self._resolver: asyncio.Task[None] | None = None
        self._applied: dict[Server, int] = {}
        self._seconds: set[Server] = set()
        if servers := self._servers():
            self._apply(servers)

    async def start(self, start: Start = Start.FIRST) -> None:
        """Find them, see who is well, and keep an eye on them. ConfigError, at a reload: a name
        that is new has no address.
        """
        if self._names and start is not Start.REPLACEMENT:
            await self._look_up_in_time(start)
        if self._upstream.health_path:
            self._check_all(await self._first_look(self._applied))
        if self._names:
            pause_s = 0.0 if start is Start.REPLACEMENT else self._pause_s
            self._resolver = asyncio.create_task(
                self._resolve_for_ever(pause_s), name=f"fastticket-resolve-{self.name}"
            )

    @property
    def resolved(self) -> dict[str, list[Server]]:
        """The addresses of each name, for whoever takes this one's place."""
        return {str(address): self._found[address] for address in self._names}

    @property
    def has_servers(self) -> bool:
        """Whether it knows any."""
        return bool(self._applied)

    async def _look_up_in_time(self, start: Start) -> None:
        try:
            async with asyncio.timeout(LOOKUP_PATIENCE_S):
                await self.resolve()
        except TimeoutError:
            for address in self._names:
                if not self._found[address]:
                    self._note_unresolved(address, f"no answer in {LOOKUP_PATIENCE_S:g} s")
        if start is Start.RELOAD:
            for address, reason in self._unresolved.items():
                if str(address) not in self._known:
                    raise ConfigError(f"{address}: the name does not resolve: {reason}")

    async def _first_look(self, servers: Iterable[Server]) -> dict[Server, bool]:
        """Who is well, as far as they say in time."""
        looks = {server: asyncio.create_task(self._fault_of(server)) for server in servers}
        if looks:
            await asyncio.wait(looks.values(), timeout=HEALTH_PATIENCE_S)
        faults = {server: look.result() if look.done() else "" for server, look in looks.items()}
        await end(*looks.values())
        for server, fault in faults.items():
            if fault:
                self._tell(server, fault)
        return {server: not fault for server, fault in faults.items()}

    async def stop(self) -> None:
        """No more."""
        await end(*self._checks.values(), self._resolver)

    def _servers(self) -> dict[Server, int]:
        """With their weights. Two names for one address are one server."""
        return {server: self._weights[address] for address, servers in self._found.items() for server in servers}

    def _hand_over(self, servers: Mapping[Server, int]) -> None:
        """Let the data plane have them; without the seconds, if that makes too many. ValueError."""
        names = _with_seconds(self._found.values())
        self._seconds = {server for _, seconds in names for server in seconds}
        try:
            self._proxy.set_servers(self.number, servers.items(), names)
        except ValueError:
            if not names:
                raise
            firsts = [(server, weight) for server, weight in servers.items() if server not in self._seconds]
            self._seconds = set()
            self._proxy.set_servers(self.number, firsts)

    @property
    def _pause_s(self) -> float:
        interval_s = self._upstream.resolve_interval_s
        return interval_s if all(self._found.values()) else min(interval_s, UNRESOLVED_PAUSE_S)

    async def _resolve_for_ever(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            await self.resolve()
            pause_s = self._pause_s

    async def resolve(self) -> None:
        """Look the names up again."""
        before = dict(self._found)
        await asyncio.gather(*map(self._resolve_one, self._names))
        servers = self._servers()
        if servers == self._applied:
            return
        if not self._apply(servers):
            self._found = before  # nor does the next worker get more than there is room for
            return
        log.info("upstream %s: the servers are now %s", self.name, ", ".join(map(server_text, servers)))
        if self._upstream.health_path and self._resolver:  # else `start` does it
            self._check_all(dict.fromkeys(servers, True))

    def _apply(self, servers: dict[Server, int]) -> bool:
        """Whether these serve from now on. More than there is room for, which a name server may say
        at any time, do not.
        """
        try:
            self._hand_over(servers)
        except ValueError as error:
            log.error("upstream %s: %s", self.name, error)
            return False
        self._applied = servers
        return True

    async def _resolve_one(self, address: Address) -> None:
        try:
            self._found[address] = await _look_up_aside(address)
        except OSError as error:
            self._note_unresolved(address, error.strerror or str(error))
        else:
            if self._unresolved.pop(address, None):
                log.warning("upstream %s: %s: the name resolves again", self.name, address)

    def _note_unresolved(self, address: Address, reason: str) -> None:
        """Said once."""
        if address not in self._unresolved:
            then = "going on with what it was" if self._found[address] else "it is looked up again until it does"
            log.warning("upstream %s: %s: the name does not resolve: %s; %s", self.name, address, reason, then)
        self._unresolved[address] = reason

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
        """What a health check has found; no fault: it is well. That nobody listens on a second
        address says nothing.
        """
        if server in self._seconds:
            return
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
                host = self._upstream.health_host or ("localhost" if isinstance(server, str) else server_text(server))
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


def _check_address(address: Address) -> None:
    """ConfigError: it can be no server's, whoever is asked."""
    if address.fd >= 0:
        raise ConfigError(f"{address}: an upstream can not be a descriptor")
    try:
        address.host.encode("idna")
    except UnicodeError as error:
        raise ConfigError(f"{address}: the name does not resolve: {error}") from None


def _look_up(address: Address) -> list[Server]:
    """All its addresses. OSError."""
    if address.path:
        return [address.path]
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return sorted({(str(entry[4][0]), int(entry[4][1])) for entry in found})


def _with_seconds(names: Iterable[Sequence[Server]]) -> list[tuple[set[Server], set[Server]]]:
    """Of the names that have addresses of two families: those asked first (IPv4), and the others.
    No server is both, or twice.
    """
    split = [
        ({each for each in found if not _is_v6(each)}, {each for each in found if _is_v6(each)}) for found in names
    ]
    firsts = {server for v4, v6 in split for server in v4 or v6}
    merged: list[tuple[set[Server], set[Server]]] = []
    for v4, v6 in split:
        seconds = v6 - firsts
        if not v4 or not seconds:
            continue
        alike = [each for each in merged if each[0] & v4 or each[1] & seconds]
        merged = [each for each in merged if each not in alike]
        merged.append((v4.union(*(each[0] for each in alike)), seconds.union(*(each[1] for each in alike))))
    return merged


def _is_v6(server: Server) -> bool:
    return not isinstance(server, str) and ":" in server[0]


async def _look_up_aside(address: Address) -> list[Server]:
    """In a thread of its own, for which the end of the process does not wait: a name server may be
    silent for long. OSError.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[list[Server]] = loop.create_future()

    def settle(found: list[Server], error: OSError | None) -> None:
        if answered.done():  # nobody waits any more
            return
        if error:
            answered.set_exception(error)
        else:
            answered.set_result(found)

    def look() -> None:
        found: list[Server] = []
        failure = None
        try:
            found = _look_up(address)
        except OSError as error:
            failure = error
        except Exception as error:
            failure = OSError(f"unexpected: {type(error).__name__}: {error}")
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, found, failure)

    threading.Thread(target=look, daemon=True, name="fastticket-lookup").start()
    return await answered


def _is_numeric(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False
