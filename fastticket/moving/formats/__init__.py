"""What other systems' cookies and stored sessions look like. A module a format: bytes in, values
out, no I/O. What they read came from a client or another system: it is refused by a `Refused`, a
value with a reason, and never raises.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Refused(NamedTuple):
    """Why something foreign is not taken. Falsy. It does not repeat what it refuses."""

    reason: str  #: a slug that is safe to log and to count

    def __bool__(self) -> Literal[False]:
        return False
