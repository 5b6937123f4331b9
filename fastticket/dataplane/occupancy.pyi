"""How many connections all planes of a process have together, and may have."""

from typing import Self, final

@final
class Occupancy:
    """The connections of a process, counted. One for all its planes (`Proxy`); it may outlive
    them.
    """

    def __new__(cls, connections_max: int = 10_000, *, per_client_max: int = 0, descriptors_max: int = 0) -> Self:
        """`connections_max`: of clients. `per_client_max`: of one client (an address, or a /64 of
        IPv6); 0: any number. `descriptors_max`: connections of both sides, beyond which none is
        kept that idles; 0: any number.
        """

    def allow(self, connections_max: int, *, per_client_max: int = 0, descriptors_max: int = 0) -> None:
        """Change the limits. Nobody who is connected is sent away."""

    @property
    def client_count(self) -> int:
        """Client connections that are open, in all planes."""

    @property
    def unannounced(self) -> tuple[int, str, str]:
        """How many connections were closed for want of a PROXY header that counts; the last one's
        address ("" of a Unix socket); why
        """
