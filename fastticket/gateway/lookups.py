"""Names to addresses: the one place that calls getaddrinfo, for sockets to bind and for upstream
servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterable, Sequence

from fastticket.gateway.addresses import Address, Server


class UnresolvedName(Exception):  # noqa: N818 -- it says what is so
    """A name has no address. `reason`: why not, in the resolver's words."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the name does not resolve: {reason}")
        self.reason = reason


def look_up(address: Address) -> list[tuple[str, int]]:
    """All addresses of a host, numeric, with its port: each once, in the resolver's order. Blocks.
    UnresolvedName.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: the text cannot be a name (IDNA)
        raise UnresolvedName(getattr(error, "strerror", None) or str(error)) from None
    return list(dict.fromkeys((str(entry[4][0]), int(entry[4][1])) for entry in found))


async def look_up_aside(address: Address) -> list[tuple[str, int]]:
    """As `look_up`, without blocking the loop: in a daemon thread, because a name server may be
    silent for long and the end of the process must not wait for it. UnresolvedName.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[list[tuple[str, int]]] = loop.create_future()

    def settle(found: list[tuple[str, int]], error: UnresolvedName | None) -> None:
        if answered.done():  # the caller was cancelled, or its time is over
            return
        if error:
            answered.set_exception(error)
        else:
            answered.set_result(found)

    def look() -> None:
        found: list[tuple[str, int]] = []
        failure = None
        try:
            found = look_up(address)
        except UnresolvedName as error:
            failure = error
        except Exception as error:
            failure = UnresolvedName(f"unexpected: {type(error).__name__}: {error}")
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, found, failure)

    threading.Thread(target=look, daemon=True, name="fastticket-lookup").start()
    return await answered


def fallbacks_of(names: Iterable[Sequence[Server]]) -> list[tuple[set[Server], set[Server]]]:
    """For each name with addresses of both families, given as its addresses: those to use first
    (IPv4), and the fallbacks (IPv6). Names that share an address are one. No server is in two sets.
    """
    split = [
        ({each for each in found if not _is_v6(each)}, {each for each in found if _is_v6(each)}) for found in names
    ]
    firsts = {server for v4, v6 in split for server in v4 or v6}
    merged: list[tuple[set[Server], set[Server]]] = []
    for v4, v6 in split:
        fallbacks = v6 - firsts
        if not v4 or not fallbacks:
            continue
        alike = [each for each in merged if each[0] & v4 or each[1] & fallbacks]
        merged = [each for each in merged if each not in alike]
        merged.append((v4.union(*(each[0] for each in alike)), fallbacks.union(*(each[1] for each in alike))))
    return merged


def _is_v6(server: Server) -> bool:
    return not isinstance(server, str) and ":" in server[0]
