"""Servers that an operator has drained: they get no new request until they are put back in.

A drained server leaves its upstream as one does that is gone from the configuration: what is under
way there ends in peace, tunnels included, and nothing is asked for each request. A drain is by the
server's own address, or by the name that the configuration has for it: then it is all of the name's
addresses.

Where a drain would leave an upstream without any server, all of its servers stay: what was drained
is the only place left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from fastticket.dataplane.upstreams import server_text
from fastticket.gateway.addresses import Address, Server
from fastticket.gateway.lookups import fallbacks_of

Found = Mapping[Address, Sequence[Server]]  # the servers of each address of a configuration
Place = tuple[str, str]  # (upstream, server), as an operator has named them


def left_of(found: Found, upstream: str, drained: AbstractSet[Place]) -> Found:
    """The servers of an upstream that are not drained; none, if all are."""
    names = {server for name, server in drained if name == upstream}
    gone = {server for address, servers in found.items() for server in servers if names & texts_of(address, server)}
    # The fallbacks of a name may be its first servers by other addresses.
    gone |= {server for firsts, seconds in fallbacks_of(found.values()) if firsts <= gone for server in seconds}
    return {address: [server for server in servers if server not in gone] for address, servers in found.items()}


def texts_of(address: Address, server: Server) -> set[str]:
    """What an operator may call a server of that address."""
    return {server_text(server), str(address)}
