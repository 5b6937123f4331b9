"""The sockets that clients connect to.

The supervisor keeps them: a replacement takes over the listen queue of a worker that has died, and
a reload hands them on. On a host and port each plane of the worker has a socket of its own
(SO_REUSEPORT), and the kernel spreads clients over them; a Unix socket, or an inherited one, is
shared. They are bound here; a worker that is ready makes them listen, so no client waits for one
that is not.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from fastticket.errors import ConfigError
from fastticket.gateway.addresses import Address
from fastticket.gateway.binding import bind

Sockets = list[list[socket.socket]]  # for each plane, one or more of each address


class Listeners:
    """All bound sockets, by address."""

    def __init__(self) -> None:
        self._bound: dict[Address, list[socket.socket]] = {}

    def for_planes(self, addresses: Iterable[Address], planes: int) -> Sockets:
        """The sockets of so many planes, bound if they are missing. ConfigError: nothing has
        changed.

        If there were more planes before, every plane gets their sockets, too: the kernel still
        sends clients there, and to close one would reset the clients in its queue.
        """
        addresses = list(dict.fromkeys(addresses))
        fresh: dict[Address, list[socket.socket]] = {}
        try:
            for address in addresses:
                there = self._bound.get(address, [])
                fresh[address] = []
                while len(there) + len(fresh[address]) < (planes if address.host else 1):
                    fresh[address].append(bind(_place(address, there + fresh[address]), shared=True))
        except ConfigError:
            _close(fresh)
            raise
        for address, sockets in fresh.items():
            self._bound.setdefault(address, []).extend(sockets)
        return [[s for address in addresses for s in self._of(address, number, planes)] for number in range(planes)]

    def adopt(self, bound: Mapping[Address, list[socket.socket]]) -> Sockets:
        """Keep sockets that another program has bound, as the sockets of one plane."""
        self._bound = {address: list(sockets) for address, sockets in bound.items()}
        return [[each for sockets in self._bound.values() for each in sockets]]

    def bound(self) -> dict[Address, list[socket.socket]]:
        """All sockets, by address."""
        return {address: list(sockets) for address, sockets in self._bound.items()}

    def renew(self) -> dict[socket.socket, socket.socket]:
        """Bind the sockets of hosts and ports anew, and close the old ones. Returns old to new; a
        socket that cannot be bound anew stays.
        """
        renewed = {}
        for address, bound in self._bound.items():
            for number, old in enumerate(bound if address.host else []):
                with contextlib.suppress(ConfigError):
                    bound[number] = bind(_place(address, bound), shared=True)
                    renewed[old] = bound[number]
                    old.close()
        return renewed

    def keep(self, sockets: Sockets) -> None:
        """Close every socket but these."""
        kept = set(itertools.chain.from_iterable(sockets))
        others = {address: [s for s in bound if s not in kept] for address, bound in self._bound.items()}
        bound = {address: [s for s in bound if s in kept] for address, bound in self._bound.items()}
        self._bound = {address: left for address, left in bound.items() if left}
        _close(others)

    def _of(self, address: Address, number: int, planes: int) -> list[socket.socket]:
        sockets = self._bound[address]
        return [sockets[number], *sockets[planes:]] if address.host else sockets


def name_of(listener: socket.socket) -> str:
    """The address of a listener as a URL, or `unix:PATH`."""
    address = listener.getsockname()
    if isinstance(address, str):
        return f"unix:{address}"
    host = f"[{address[0]}]" if listener.family == socket.AF_INET6 else address[0]
    return f"http://{host}:{address[1]}"


def _place(address: Address, there: list[socket.socket]) -> Address:
    """The address to bind beside those that are there: port 0 is chosen once, for the first."""
    return address._replace(port=there[0].getsockname()[1]) if address.host and there else address


def _close(sockets: dict[Address, list[socket.socket]]) -> None:
    for each in itertools.chain.from_iterable(sockets.values()):
        each.close()


def is_of(fd: int, listeners: Iterable[socket.socket]) -> bool:
    """Whether an accepted connection came through one of these listeners, judged by its local
    address.
    """
    connection = socket.socket(fileno=fd)
    try:
        name = connection.getsockname()
    finally:
        connection.detach()  # it stays open, and no further descriptor was needed: there may be none left
    return any(_covers(listener.getsockname(), name, listener.family) for listener in listeners)


def _covers(listening: Any, name: Any, family: int) -> bool:
    if family == socket.AF_UNIX or isinstance(name, str | bytes):
        return bool(listening == name)
    return listening[1] == name[1] and (listening[0] in ("0.0.0.0", "::") or listening[0] == name[0])  # noqa: S104
