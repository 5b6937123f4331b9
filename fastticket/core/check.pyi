"""The hot path: ticket text -> near cache -> signature -> verdict."""

from collections.abc import Callable
from typing import Self, final

from fastticket.core.nearcache import NearCache
from fastticket.core.ticket import Keyring
from fastticket.errors import Verdict

def clock_resolution_ms() -> int:
    """How far behind `Checker.now_ms()` can be, rounded up."""

@final
class Checker:
    """Judges tickets at the present time. Not for several threads."""

    keys: Keyring
    near: NearCache
    clock: Callable[[], int] | None

    def __new__(cls, keys: Keyring, near: NearCache, clock: Callable[[], int] | None = None) -> Self:
        """`clock`: monotonic ms, for tests; default CLOCK_BOOTTIME."""

    def check(self, ticket: str | bytes, touch: bool = True) -> Session | Verdict:
        """A Session, or a falsy verdict. MISS and REFRESH: authentic as far as is known here; the
        store has to be asked.

        `touch`: whether it counts as a use of the session. Nothing is raised for a bad ticket, only
        TypeError for what is neither str nor bytes.
        """

    def collect(self, shard: int, touches_max: int, unwritten: dict[tuple[str, str], int]) -> None:
        """Drain at most so many touches of a shard into `unwritten`: (session id, principal) to
        idle deadline; the latest counts.
        """

    def session_of(self, ticket: str | bytes, idle_deadline_ms: int) -> Session:
        """A Session, for the caller that has verified and loaded the ticket itself. ValueError:
        malformed.
        """

    def now_ms(self) -> int:
        """The store's clock as known here: `monotonic_ms() + offset_ms`."""

    def monotonic_ms(self) -> int:
        """ms of the clock that nobody sets, and that goes on while the machine is suspended: leases
        and outages are measured in it.
        """

    def set_offset_ms(self, offset_ms: int) -> None:
        """The store's clock is ahead of the monotonic one by so much."""

    @property
    def offset_ms(self) -> int:
        """What `set_offset_ms` was told last, in ms."""

@final
class Session:
    """Whom a ticket admitted. Always true. Refers to the ticket; each field is decoded when it is
    read.
    """

    @property
    def principal(self) -> str:
        """Whose session it is: 1 to 190 bytes in UTF-8."""

    @property
    def id(self) -> str:
        """22 characters of base64url: 16 random bytes. It admits nobody, and may be logged."""

    @property
    def issued_at_ms(self) -> int:
        """Login, store time, ms since the epoch."""

    @property
    def idle_deadline_ms(self) -> int:
        """Store time, ms since the epoch; as it was when the session was checked."""

    @property
    def absolute_deadline_ms(self) -> int:
        """Store time, ms since the epoch; 2**53 - 1 if there is none."""
