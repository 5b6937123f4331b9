"""The hot path: ticket text -> near cache -> signature -> verdict."""

from collections.abc import Callable
from typing import final

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

    def __init__(self, keys: Keyring, near: NearCache, clock: Callable[[], int] | None = None) -> None:
        """`clock`: monotonic ms, for tests; default CLOCK_MONOTONIC_COARSE."""

    def check(self, ticket: str | bytes, touch: bool = True) -> Session | Verdict:
        """A Session, or a falsy verdict. MISS and REFRESH: authentic as far as is known here; the store has to be asked."""

    def collect(self, shard: int, touches_max: int, unwritten: dict[tuple[str, str], int]) -> None:
        """Drain touches of a shard into `unwritten`: (session id, principal) to idle deadline, the latest counts."""

    def session_of(self, ticket: str | bytes, idle_deadline_ms: int) -> Session:
        """For the caller that has verified and loaded the ticket itself. ValueError: malformed."""

    def now_ms(self) -> int:
        """The store's clock as known here: `monotonic_ms() + offset_ms`."""

    def monotonic_ms(self) -> int: ...
    def set_offset_ms(self, offset_ms: int) -> None: ...
    @property
    def offset_ms(self) -> int: ...

@final
class Session:
    """Whom a ticket admitted. Always true. Refers to the ticket; each field is decoded when it is read."""

    @property
    def principal(self) -> str: ...
    @property
    def id(self) -> str:
        """22 characters of base64url."""

    @property
    def issued_at_ms(self) -> int:
        """Store time."""

    @property
    def idle_deadline_ms(self) -> int:
        """Store time; as it was when the session was checked."""

    @property
    def absolute_deadline_ms(self) -> int:
        """Store time; 2**53 - 1 if there is none."""
