"""Who a client is: addresses, networks that are trusted, the PROXY header, connections by address.
Addresses are 16 bytes.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, Self, final

@final
class Networks:
    """A set of networks; the word "unix" stands for every client on a Unix socket. ValueError: more
    than 64.
    """

    has_unix: bool

    def __new__(cls, networks: Iterable[IPv4Network | IPv6Network | str] = ()) -> Self: ...
    def __contains__(self, address: object, /) -> bool:
        """Whether an address, as text, is in one of them."""

@final
class Tally:
    """How often each of at most `most` addresses is there. All of an IPv6 /64 are one."""

    def __new__(cls, most: int) -> Self: ...
    def enter(self, address: bytes) -> int:
        """Once more; how often it is there now."""

    def leave(self, address: bytes) -> None:
        """Once less."""

def address_of(text: bytes) -> bytes | None:
    """An element of X-Forwarded-For (v4, v4:port, v6, [v6], [v6]:port) as an address; None if it is
    none.
    """

def address_text(address: bytes) -> str:
    """As it is written: IPv4 with dots."""

def proxy_header(data: bytes, most: int) -> int | tuple[int, bytes | Literal["own"] | None]:
    """A PROXY header, version 1 or 2, of at most so many bytes: its size, and the client's address;
    None: he is not named; "own": the connection is the proxy's. Or 0: it is incomplete; -400: it is
    none; -431: it is larger.
    """
