"""Client addresses: trusted networks, the PROXY header, connections counted by address. An address
is 16 bytes, of IPv4 ::ffff:a.b.c.d.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, Self, final

@final
class Networks:
    """A set of networks; the word "unix" stands for every client on a Unix socket. ValueError:
    there are more than 64.
    """

    has_unix: bool
    """The word "unix" is one of them."""

    def __new__(cls, networks: Iterable[IPv4Network | IPv6Network | str] = ()) -> Self: ...
    def __contains__(self, address: object, /) -> bool:
        """Whether an address, as text, is in one of the networks."""

@final
class Tally:
    """Counts at most `most` connections by address. All addresses of an IPv6 /64 are one."""

    def __new__(cls, most: int) -> Self: ...
    def enter(self, address: bytes) -> int:
        """Count one more connection of an address; how many there are now."""

    def leave(self, address: bytes) -> None:
        """Count one connection of an address less."""

def address_of(text: bytes) -> bytes | None:
    """The address in an element of X-Forwarded-For: v4, v4:port, v6, [v6] or [v6]:port. None: it is
    none of these.
    """

def address_text(address: bytes) -> str:
    """An address as text, of IPv4 with dots."""

def proxy_header(data: bytes, most: int) -> int | tuple[int, bytes | Literal["own"] | None]:
    """Read a PROXY header, version 1 or 2, of at most `most` bytes.

    Returns its size and the client's address, None for a client without one of TCP, or "own" for
    the proxy's own connection. Else 0: it is incomplete; -400: it is malformed; -431: it is larger.
    """
