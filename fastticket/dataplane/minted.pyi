"""Tickets of another system, by our sessions."""

from typing import final

@final
class MintedTickets:
    """At most 65,536, of one plane. Where there is no room, another one goes: the control plane is
    asked for it again.
    """

    def keep(self, session_id: bytes, ticket: bytes) -> bool:
        """For tests: keep a session's ticket. ValueError: the id has not 16 bytes."""

    def kept(self, session_id: bytes) -> bytes:
        """For tests: a session's ticket; empty: there is none. ValueError as above."""
