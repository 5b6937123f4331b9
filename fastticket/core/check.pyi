"""The hot path: ticket text -> near cache -> signature -> verdict."""

from collections.abc import Callable
from typing import Self, final

from fastticket.core.nearcache import NearCache
from fastticket.core.ticket import Keyring
from fastticket.errors import Verdict

def clock_resolution_ms() -> int:
    """How late `Checker.now_ms()` can be, ms, rounded up."""

@final
class Checker:
    """Judges tickets at the present time, in any thread; one of them sets the clock."""

    keys: Keyring
    near: NearCache
    clock: Callable[[], int] | None
    """What the constructor was given."""

    def __new__(cls, keys: Keyring, near: NearCache, clock: Callable[[], int] | None = None) -> Self:
        """`clock`: monotonic ms, for tests; default CLOCK_BOOTTIME."""

    def check(self, ticket: str | bytes, touch: bool = True) -> Session | Verdict:
        """A Session, or a falsy verdict. MISS and REFRESH are no refusals: the ticket is authentic
        as far as this process knows, and the store has to be asked, by `TicketCache.authenticate`.
        `touch`: whether the check is a use of the session. A bad ticket raises nothing. TypeError:
        `ticket` is neither str nor bytes.
        """

    def session_of(self, ticket: str | bytes, idle_deadline_ms: int) -> Session:
        """A Session for a ticket that the caller has verified and loaded. ValueError: the ticket is
        malformed.
        """

    def now_ms(self) -> int:
        """The store's clock as this process knows it: `monotonic_ms() + offset_ms`."""

    def monotonic_ms(self) -> int:
        """The clock that leases and outages are measured by, ms: it is never set, and goes on
        while the machine is suspended (CLOCK_BOOTTIME).
        """

    def set_offset_ms(self, offset_ms: int) -> None:
        """Set how far the store's clock is ahead of the monotonic one."""

    @property
    def offset_ms(self) -> int:
        """The value that was set last."""

@final
class Session:
    """The session that a ticket was admitted to. Always true. Refers to the ticket, and decodes a
    field when it is read.
    """

    @property
    def principal(self) -> str:
        """The owner of the session: 1 to 190 bytes in UTF-8."""

    @property
    def id(self) -> str:
        """16 random bytes as 22 characters of base64url. It admits nobody, and may be logged."""

    @property
    def issued_at_ms(self) -> int:
        """Login, store time, ms since the epoch."""

    @property
    def idle_deadline_ms(self) -> int:
        """Store time, ms since the epoch, as of the check."""

    @property
    def absolute_deadline_ms(self) -> int:
        """Store time, ms since the epoch; 2**53 - 1 if the session has none."""
