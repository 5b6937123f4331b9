"""The near cache: verified tickets with what the store last said of their sessions. Times are ms of
the store's clock.
"""

from typing import Self, final

from fastticket.core.ticket import Keyring
from fastticket.core.touches import Touches
from fastticket.errors import Verdict

@final
class NearCache:
    """Bounded, in one allocation made at the start: 136 bytes a session (principal up to 29 bytes),
    11 for finding it, and some room, because sessions spread over the partitions by chance.

    One thread makes, changes and ends entries. After `share` any other may ask for them (`Checker`
    does).
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
        """`capacity`: places for sessions; one with a principal over 29 bytes takes two or three.
        `slack_ms`: added to a touch's deadline, for the time until it is written.
        `touch_resolution_ms`: a deadline that would move by no more is not moved. `recheck_s`: for
        how long a session that was loaded may answer. `refusal_ms`: for how long a refusal is
        remembered. ValueError, MemoryError.
        """

    def __len__(self) -> int:
        """Sessions that are held now."""

    @property
    def capacity(self) -> int:
        """Places for sessions: what the constructor was told, but room for any one ticket at
        least.
        """

    @property
    def shard_count(self) -> int:
        """Shards of the store. Methods that take a shard raise ValueError unless it is below
        this.
        """

    @property
    def entry_count(self) -> int:
        """Sessions that are held now."""

    @property
    def memory_bytes(self) -> int:
        """Size of the one allocation."""

    def share(self) -> None:
        """From now on several threads ask. Always so in a Python without a GIL."""

    @property
    def slack_ms(self) -> int:
        """Added to the deadline of touches from now on; may be set."""

    @slack_ms.setter
    def slack_ms(self, slack_ms: int) -> None:
        """Set it for touches from now on."""

    @property
    def dirty_count(self) -> int:
        """Touches that wait to be taken."""

    @property
    def sent_count(self) -> int:
        """Touches that were taken, and neither acknowledged nor given back."""

    @property
    def hits(self) -> int:
        """Checks that were answered, since the start."""

    @property
    def misses(self) -> int:
        """Checks of tickets that were not held."""

    @property
    def refreshes(self) -> int:
        """Checks of sessions that were held, but must be loaded again."""

    @property
    def evictions(self) -> int:
        """Sessions that were evicted to make room."""

    @property
    def touches_coalesced(self) -> int:
        """Uses of sessions that needed no write of their own."""

    def lookup(self, raw: bytes, now_ms: int, touch: bool = True) -> int | Verdict:
        """For tests: what `Checker.check` asks. The idle deadline on a hit; else MISS, REFRESH
        (held, but out of date) or EXPIRED. `raw`: a decoded ticket of 66 to 255 bytes, else
        ValueError.
        """

    def insert(self, raw: bytes, shard: int, idle_deadline_ms: int, now_ms: int, touch: bool = True) -> bool:
        """Enter a verified ticket whose session was loaded, or renew its entry. False: there is no
        room before touches are written, or the session id has another ticket. ValueError as above.
        """

    def extend(self, raw: bytes, now_ms: int) -> bool:
        """While the store is away, put off an entry's recheck. False: the entry is not held, must
        be loaded again for another reason, or its session is past a deadline.
        """

    def idle_deadline_ms(self, session_id: bytes) -> int:
        """The latest known idle deadline of a session, written to the store or not; 0: it is not
        held, and no touch of it waits.
        """

    def raw(self, session_id: bytes) -> bytes | None:
        """The ticket of a session that is held, whether it may answer or not, decoded; None: it is
        not held. As good as the ticket: never log it.
        """

    def refuse(self, session_id: bytes, verdict: Verdict, now_ms: int) -> None:
        """A session has ended: forget its entry and its touch, and remember `verdict` for
        `refusal_ms`.
        """

    def remembered_refusal(self, session_id: bytes, now_ms: int) -> Verdict | None:
        """The verdict that `refuse` was given for a session, if it is still remembered; else
        None.
        """

    def forget_refusals(self) -> None:
        """Forget every remembered refusal: the clock that they were timed by was set."""

    def drop_key(self, key: int) -> int:
        """Forget every entry verified under a key id; how many there were. Visits the whole
        table.
        """

    def take(self, taken: dict[int, list[Touches]], touches_max: int, piece: int, *, begins: bool = True) -> int:
        """Take touches that wait, at most `touches_max`; how many. Each is added to the last
        `Touches` of its shard in `taken`, or to a new one if that has `piece` of them. `begins`
        False: go on with those that waited when it last was true.

        Fewer than `touches_max`: no more wait, but for sessions of which an earlier touch is still
        on its way.
        """

    def acknowledge(self, touches: Touches) -> None:
        """The store has written them. What was used again since waits again, by itself."""

    def give_back(self, touches: Touches) -> None:
        """The store may not have written them: they wait again."""

    def touch_unheld(self, shard: int, session_id: bytes, principal: bytes, idle_deadline_ms: int) -> bool:
        """A use of a session that has no entry, because there was no room: it waits like any other.
        False: too many wait already, and some must be taken and written first. ValueError.
        """

    def renew_lease(self, shard: int, until_ms: int) -> None:
        """Let a shard's entries answer until `until_ms`. A lease is never shortened."""

    def shift_lease(self, shard: int, by_ms: int) -> None:
        """The clock was set: a lease keeps its length."""

    def bump_epoch(self, shard: int) -> None:
        """Every entry of the shard must be loaded again before its next hit."""

    def held_in(self, shard: int) -> int:
        """Sessions of a shard that are held now, and touches of others that wait."""

    def epoch(self, shard: int) -> int:
        """How often `bump_epoch` was called for the shard."""

    def stale(self, cursor: int, entries_max: int) -> tuple[list[tuple[int, bytes, bytes]], int | None]:
        """Entries that must be loaded again because of `bump_epoch`, about `entries_max` at once,
        as (shard, session id, principal), and the `cursor` to go on with; None: the whole table was
        seen. The first cursor is 0.
        """

    def snapshot(self, cursor: int) -> tuple[bytes, int | None]:
        """Entries that may answer, for `restore`, and the `cursor` to go on with; None: the whole
        table was seen. The first cursor is 0.
        """

    def restore(self, entries: bytes, keys: Keyring, now_ms: int) -> int:
        """Enter what `snapshot` has returned, in another process, as far as the tickets are
        authentic under these keys and there is room; how many. They answer once their shards have
        leases. ValueError: that is no snapshot, or one of a cache with more shards.
        """

    def confirm(self, session_id: bytes, epoch: int, idle_deadline_ms: int, now_ms: int) -> bool:
        """Renew an entry whose session the store said to live. `epoch`: the shard's when the store
        was asked. False, and nothing changes: the session is not held or was ended, or the epoch is
        another by now.
        """

    def lease_until_ms(self, shard: int) -> int:
        """Until when a shard's entries answer; 0: it never had a lease."""
