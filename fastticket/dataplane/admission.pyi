"""Whether a request may pass, and what the control plane is asked."""

from typing_extensions import disjoint_base

from fastticket.core.check import Checker
from fastticket.dataplane.asks import Ask
from fastticket.dataplane.exchange import Exchange
from fastticket.errors import Verdict

@disjoint_base
class Admission(Exchange):
    """What decides whether a request may pass."""

    checker: Checker

    def asks(self) -> list[Ask]:
        """What the control plane is asked since the last call."""

    def admit(self, handle: int) -> None:
        """The ticket is alive: forward the request. Nothing happens if the client has gone, as in
        all that take a handle.
        """

    def refuse(self, handle: int, verdict: Verdict) -> None:
        """Answer 401, or 503 for STORE_UNAVAILABLE; where a ticket is optional, forward without
        identity.
        """

    def doubt(self, handle: int, fields: bytes, tickets: bytes) -> None:
        """Refuse a request with these tickets (spaces between), or pass it on without identity.

        The answer gets the fields, 3,000 bytes at most.
        """

    def exempt(self, handle: int, is_exempt: bool) -> None:
        """Pass the request on without identity, or refuse it as it would have been."""

    def vouch(self, handle: int, is_alive: bool) -> None:
        """Let a stream or tunnel go on, or end it at once."""

    def suits(self, handle: int, ticket: str) -> bool:
        """Whether the holder of that ticket will come back to the server whose response waits
        now.
        """

    def readmit(self, handle: int, ticket: str) -> None:
        """The session of a response that waits has another ticket now (AskKind.ROTATE): a stream or
        tunnel that begins goes on with it.
        """

    def relay(self, handle: int, fields: bytes) -> None:
        """Let a response that waited go on, with these field lines (each ended by CRLF, 8,192 bytes
        at most) added.
        """

    def fail(self, handle: int, status: int, slug: str) -> None:
        """Answer with an error in place of a response that waited."""
