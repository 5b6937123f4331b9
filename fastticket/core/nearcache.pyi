"""The near cache: verified tickets with what the store last said of their sessions. Times are ms of
the store's clock.
"""

from typing import Self, final

from fastticket.errors import Verdict

@final
class NearCache:
    """Bounded, in one allocation made at the start: 144 bytes a session (principal up to 27 bytes)
    and 8 for finding it.
    """

    def __new__(
        cls,
        capacity: int,
        shards: int = 1,
        *,
        slack_ms: int = 500,
        touch_resolution_ms: int = 0,
        recheck_s: int = 300,
        refusal_ms: int = 1000,
    ) -> Self:
        """`capacity` in sessions; one with a longer principal takes two or three places.
        ValueError, MemoryError.

        `slack_ms`: added to a touch's deadline for the time it takes to be written.
        `touch_resolution_ms`: a deadline that would move by no more is left. `recheck_s`: how old
        what the store said may be. `refusal_ms`: how long a refusal is remembered.
        """

    def __len__(self) -> int:
        """Sessions that are held now."""

    @property
    def capacity(self) -> int:
        """Places for sessions: what the constructor was told, but room for any one ticket at least."""

    @property
    def shard_count(self) -> int:
        """As the store has them; a shard's number is below it, or ValueError is raised."""

    @property
    def entry_count(self) -> int:
        """The same as `len`."""

    @property
    def memory_bytes(self) -> int:
        """Of the one allocation."""

    @property
    def slack_ms(self) -> int:
        """Added to a touch's deadline; may be set."""

    @slack_ms.setter
    def slack_ms(self, slack_ms: int) -> None:
        """For touches from now on."""

    @property
    def dirty_count(self) -> int:
        """Touches that wait to be drained, of all shards."""

    @property
    def hits(self) -> int:
        """Lookups answered from here, since the start."""

    @property
    def misses(self) -> int:
        """Lookups of sessions that are not held."""

    @property
    def refreshes(self) -> int:
        """Lookups of sessions that are held, but must be loaded again."""

    @property
    def evictions(self) -> int:
        """Sessions that made room for others."""

    @property
    def touches_coalesced(self) -> int:
        """Those that needed no write of their own."""

    def lookup(self, raw: bytes, now_ms: int, touch: bool = True) -> int | Verdict:
        """The idle deadline on a hit; else MISS, REFRESH (known, but out of date) or EXPIRED.

        `raw`: a decoded ticket, 66 to 255 bytes, else ValueError.
        """

    def insert(self, raw: bytes, shard: int, idle_deadline_ms: int, now_ms: int, touch: bool = True) -> bool:
        """Enter a ticket that was verified and whose session was loaded. False: no room, too much
        is dirty.
        """

    def extend(self, raw: bytes, now_ms: int) -> bool:
        """Let an entry that is due for a recheck go on while the store is away. False: it must not,
        or is not there.
        """

    def idle_deadline_ms(self, session_id: bytes) -> int:
        """The latest known here, written or not; 0: none is."""

    def refuse(self, session_id: bytes, verdict: Verdict, now_ms: int) -> None:
        """A session is over: forget it, its touch included, and remember the refusal for
        `refusal_ms`.
        """

    def remembered_refusal(self, session_id: bytes, now_ms: int) -> Verdict | None:
        """What `refuse` was told of a session, if that is young enough; else None."""

    def forget_refusals(self) -> None:
        """All of them: the clock that they were timed by was set."""

    def drop_key(self, key: int) -> int:
        """Forget every entry verified under a key id; how many there were. Goes through the whole
        table.
        """

    def drain(self, shard: int, touches_max: int) -> list[tuple[bytes, bytes, int]]:
        """Take touches off the dirty chain, oldest first: (session id, principal, idle deadline)."""

    def renew_lease(self, shard: int, until_ms: int) -> None:
        """Answer from this shard's entries until then. A lease is never shortened."""

    def shift_lease(self, shard: int, by_ms: int) -> None:
        """The clock was set: a lease keeps its length."""

    def bump_epoch(self, shard: int) -> None:
        """Every entry of the shard must be loaded again before its next hit."""

    def dirty_in(self, shard: int) -> int:
        """Touches of a shard that wait to be drained."""

    def held_in(self, shard: int) -> int:
        """Sessions of a shard that are held."""

    def epoch(self, shard: int) -> int:
        """How often `bump_epoch` was called for the shard."""

    def stale(self, cursor: int, entries_max: int) -> tuple[list[tuple[int, bytes, bytes]], int | None]:
        """Entries that must be looked up again because of `bump_epoch`: (shard, session id,
        principal), about so many at once.

        And where to go on: `cursor` begins with 0; None: the whole table was seen.
        """

    def confirm(self, session_id: bytes, epoch: int, idle_deadline_ms: int, now_ms: int) -> bool:
        """An entry was looked up again, and its session lives. `epoch`: its shard's when the store
        was asked.

        False, and nothing changes: it is not held any more, was ended meanwhile, or the epoch is
        another one by now.
        """

    def lease_until_ms(self, shard: int) -> int:
        """What `renew_lease` was told, shifts included; 0: never."""
