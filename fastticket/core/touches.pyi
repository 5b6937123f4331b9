"""Touches of one shard on their way to the store."""

from collections.abc import Iterable, Iterator
from typing import Self, final

@final
class Touches:
    """What `NearCache.take` took of one shard: uses of sessions, each as (session id, principal,
    idle deadline, ms). For `NearCache.acknowledge` or `give_back`, one of them, once.
    """

    def __new__(cls, shard: int) -> Self:
        """None yet."""

    @classmethod
    def of(cls, shard: int, touches: Iterable[tuple[str, str, int]]) -> Self:
        """Touches that no near cache waits for. ValueError: no session id, or no principal."""

    shard: int
    count: int

    @property
    def packed(self) -> bytes:
        """Two bulk strings of RESP for each: score and member, as `ZADD` takes them."""

    def __len__(self) -> int:
        """How many."""

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """(session id, principal, idle deadline)."""
