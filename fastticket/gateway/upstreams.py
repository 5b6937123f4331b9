"""The servers of the upstreams, which the data plane only gets by address: names are looked up,
again every `resolve_interval_s`, health checks run, and servers that are down are knocked at.

Each address of a name is a server. For a name with addresses of IPv4 and IPv6, those of IPv6 are
fallbacks: a server that listens on both is one, and the data plane uses the fallbacks while none of
the first ones is up. A name that stops resolving keeps its addresses; one that has never resolved
has none until it does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from fastticket.dataplane.upstreams import Upstreams, server_text
from fastticket.errors import ConfigError
from fastticket.gateway.addresses import Address, Server, is_numeric
from fastticket.gateway.drains import Found, Place, left_of, texts_of
from fastticket.gateway.health import HealthChecks
from fastticket.gateway.inheritance import Start
from fastticket.gateway.knocking import Knocking
from fastticket.gateway.lookups import UnresolvedName, fallbacks_of, look_up, look_up_aside
from fastticket.gateway.settings import Config, UpstreamSettings
from fastticket.tasks import end

log = logging.getLogger("fastticket.gateway")

LOOKUP_TIMEOUT_S = 5.0  # for names to resolve at the start, before anybody is served
UNRESOLVED_PAUSE_S = 2.0  # between two lookups while a name has no address


class UpstreamGroups:
    """All upstreams of a configuration. `upstreams`: what the data planes have of them."""

    def __init__(
        self,
        config: Config,
        known: Mapping[str, Sequence[Server]] | None = None,
        drained: AbstractSet[Place] = frozenset(),
    ) -> None:
        """`known`: as for UpstreamGroup. `drained`: what it has at any time is drained, from the
        next `follow_drains` on. ConfigError.
        """
        self.upstreams = Upstreams()
        self._groups = [UpstreamGroup(self.upstreams, config, each, known, drained) for each in config.upstream]
        self._knocking = Knocking(self.upstreams, len(self._groups))

    async def start(self, start: Start = Start.FIRST) -> None:
        """As `UpstreamGroup.start`, all at once. ConfigError, at a reload."""
        starting = [asyncio.create_task(group.start(start)) for group in self._groups]
        try:
            await asyncio.gather(*starting)
        finally:
            await end(*(each for each in starting if not each.done()))  # what one has raised is raised here, not logged
        self._knocking.start()

    async def stop(self) -> None:
        """End lookups, health checks and knocking."""
        await self._knocking.stop()
        for group in self._groups:
            await group.stop()

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each upstream, by its name."""
        return {group.name: group.number for group in self._groups}

    @property
    def names(self) -> list[str]:
        """Their names, in the order of their numbers."""
        return [group.name for group in self._groups]

    @property
    def resolved(self) -> dict[str, list[Server]]:
        """The addresses of each name, for the worker or service that takes this one's place."""
        return {name: servers for group in self._groups for name, servers in group.resolved.items()}

    @property
    def without_servers(self) -> list[str]:
        """The upstreams of which the data plane has no server."""
        return [group.name for group in self._groups if not group.has_servers]

    def follow_drains(self) -> None:
        """Servers were drained, or put back in."""
        for group in self._groups:
            group.follow_drains()

    def group_of(self, name: str) -> UpstreamGroup | None:
        """The upstream of that name."""
        return next((group for group in self._groups if group.name == name), None)

    def drained_states(self) -> list[dict[str, Any]]:
        """Each server that is drained: its `group`, `server`, and how many requests are still
        `active` there.
        """
        return [state for group in self._groups for state in group.drained_states()]

    def states(self) -> list[dict[str, Any]]:
        """Each server, as `Upstreams.state` has it, with the upstream's name as its `group`, and
        `why` it is down.
        """
        faults = [group.faults for group in self._groups]
        return [
            {
                **state,
                "group": self._groups[state["group"]].name,
                "why": state["why"] or faults[state["group"]].get(state["server"], ""),
            }
            for state in self.upstreams.state()
        ]


class UpstreamGroup:
    """The servers of one `[[upstream]]`. Without any, its routes answer 503.

    `known`: the addresses of names by `host:port`, as another worker found them last.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        config: Config,
        upstream: UpstreamSettings,
        known: Mapping[str, Sequence[Server]] | None = None,
        drained: AbstractSet[Place] = frozenset(),
    ) -> None:
        """ConfigError: an address cannot be that of a server."""
        self.name = upstream.name
        self.number = upstreams.add_group(
            upstream.balance,
            connections_max=upstream.connections_max,
            pending_max=upstream.pending_max,
            slow_return_ms=int(upstream.slow_return_s * 1000),
            retry_percent=upstream.retry_percent,
        )
        self._upstreams = upstreams
        self._upstream = upstream
        addresses = config.server_addresses(upstream)
        self._weights = dict(zip(addresses, upstream.weights or [1] * len(addresses), strict=True))
        self._known = known or {}
        self._drained = drained
        self._is_started = False
        self._names = [address for address in addresses if not address.path and not is_numeric(address.host)]
        for address in addresses:
            _check_name(address)
        self._found = {address: self._servers_at(address) for address in addresses}  # and applied
        self._unresolved: dict[Address, str] = {}  # the reasons
        self._health = HealthChecks(upstreams, self.number, upstream)
        self._resolver: asyncio.Task[None] | None = None
        self._applied: dict[Server, int] = {}  # what the data plane has: servers and weights
        left = self._undrained(self._found)
        if servers := self._servers(left):
            self._apply(left, servers)

    async def start(self, start: Start = Start.FIRST) -> None:
        """Look the names up, check health once, and go on doing both. ConfigError, at a reload: a
        name that the present workers do not know does not resolve.
        """
        if self._names and start is not Start.REPLACEMENT:
            await self._resolve_first(start)
        if self._upstream.health_path:
            are_well = await self._health.check_first(self._applied)
            self._health.follow({server: are_well.get(server, True) for server in self._applied})
        self._is_started = True
        if self._names:
            pause_s = 0.0 if start is Start.REPLACEMENT else self._pause_s
            self._resolver = asyncio.create_task(
                self._resolve_for_ever(pause_s), name=f"fastticket-resolve-{self.name}"
            )

    async def stop(self) -> None:
        """End lookups and health checks."""
        await end(self._resolver)
        self._resolver = None  # a cancelled task refers to its frame, and that to us
        await self._health.stop()

    @property
    def resolved(self) -> dict[str, list[Server]]:
        """The addresses of each name, for the worker that takes this one's place."""
        return {str(address): self._found[address] for address in self._names}

    @property
    def has_servers(self) -> bool:
        """Whether the data plane has any server of this upstream."""
        return bool(self._applied)

    @property
    def faults(self) -> dict[str, str]:
        """Why servers are not well by their health checks, as `server_text` has them."""
        return {server_text(server): fault for server, fault in self._health.faults.items() if fault}

    # --- drains

    def follow_drains(self) -> None:
        """Servers were drained, or put back in."""
        self._change_to(self._found)

    def knows(self, server: str) -> bool:
        """Whether an operator may call one of its servers so."""
        return any(server in texts_of(address, each) for address, servers in self._found.items() for each in servers)

    def has_left(self, drained: AbstractSet[Place]) -> bool:
        """Whether a server would be left."""
        return any(left_of(self._found, self.name, drained).values())

    def _undrained(self, found: Found) -> Found:
        left = left_of(found, self.name, self._drained)
        return left if any(left.values()) else found

    def drained_states(self) -> list[dict[str, Any]]:
        """As `UpstreamGroups.drained_states`."""
        gone = [server for server in self._servers(self._found) if server not in self._applied]
        return [
            {
                "group": self.name,
                "server": server_text(server),
                "active": self._upstreams.under_way(self.number, server),
            }
            for server in gone
        ]

    # --- names

    async def resolve(self) -> None:
        """Look all names up; servers that are new or gone change in the data plane."""
        # What is found counts once it is applied: a replacement is given `_found` at any moment.
        found = self._found | dict(
            zip(self._names, await asyncio.gather(*map(self._look_up, self._names)), strict=True)
        )
        if self._change_to(found):
            self._found = found

    def _change_to(self, found: Found) -> bool:
        """Let the data plane have these servers, but those that are drained. False: there is no
        room for so many.
        """
        left = self._undrained(found)
        servers = self._servers(left)
        if servers != self._applied:
            if not self._apply(left, servers):
                return False
            log.info("upstream %s: the servers are now %s", self.name, ", ".join(map(server_text, servers)))
            if self._upstream.health_path and self._is_started:  # before that, `start` begins the checks
                self._health.follow(dict.fromkeys(servers, True))
        return True

    async def _resolve_first(self, start: Start) -> None:
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                await self.resolve()
        except TimeoutError:
            for address in self._names:
                if not self._found[address]:
                    self._note_unresolved(address, f"no answer in {LOOKUP_TIMEOUT_S:g} s")
        if start is Start.RELOAD:
            for address, reason in self._unresolved.items():
                if str(address) not in self._known:
                    raise ConfigError(f"{address}: {UnresolvedName(reason)}")

    async def _resolve_for_ever(self, pause_s: float) -> None:
        while True:
            await asyncio.sleep(pause_s)
            await self.resolve()
            pause_s = self._pause_s

    @property
    def _pause_s(self) -> float:
        interval_s = self._upstream.resolve_interval_s
        return interval_s if all(self._found.values()) else min(interval_s, UNRESOLVED_PAUSE_S)

    async def _look_up(self, address: Address) -> list[Server]:
        """The servers of a name now; those that it had, if it does not resolve."""
        try:
            servers: list[Server] = [*sorted(await look_up_aside(address))]
        except UnresolvedName as error:
            self._note_unresolved(address, error.reason)
            return self._found[address]
        if self._unresolved.pop(address, None):
            log.warning("upstream %s: %s: the name resolves again", self.name, address)
        return servers

    def _note_unresolved(self, address: Address, reason: str) -> None:
        """Logged when it begins, not with every lookup."""
        if address not in self._unresolved:
            then = "going on with what it was" if self._found[address] else "it is looked up again until it does"
            log.warning("upstream %s: %s: the name does not resolve: %s; %s", self.name, address, reason, then)
        self._unresolved[address] = reason

    # --- servers

    def _servers_at(self, address: Address) -> list[Server]:
        """The servers of an address before any lookup: those of a name are the ones that are
        known.
        """
        if address in self._names:
            return list(self._known.get(str(address), ()))
        return [address.path] if address.path else [*look_up(address)]

    def _servers(self, found: Found) -> dict[Server, int]:
        """All servers, with their weights. Two names for one address are one server."""
        return {server: self._weights[address] for address, servers in found.items() for server in servers}

    def _apply(self, found: Found, servers: dict[Server, int]) -> bool:
        """Give the data plane these servers. False: there is no room for so many, which a name
        server may return at any time; the servers stay as they were.
        """
        try:
            self._set_servers(found, servers)
        except ValueError as error:
            log.error("upstream %s: %s", self.name, error)
            return False
        self._applied = servers
        return True

    def _set_servers(self, found: Found, servers: Mapping[Server, int]) -> None:
        """Without the fallbacks, if all together are too many. ValueError: still too many."""
        names = fallbacks_of(found.values())
        every_fallback = {server for _, fallbacks in names for server in fallbacks}
        self._health.unreported = every_fallback  # it is normal that one of them does not answer
        try:
            self._upstreams.set_servers(self.number, servers.items(), names)
        except ValueError:
            if not names:
                raise
            firsts = [(server, weight) for server, weight in servers.items() if server not in every_fallback]
            self._health.unreported = set()
            self._upstreams.set_servers(self.number, firsts)


def _check_name(address: Address) -> None:
    """ConfigError: no name server can know it (IDNA)."""
    try:
        address.host.encode("idna")
    except UnicodeError as error:
        raise ConfigError(f"{address}: {UnresolvedName(str(error))}") from None
