"""What a plane and the control plane say to each other."""

from typing_extensions import disjoint_base

from fastticket.dataplane.admission import Admission
from fastticket.dataplane.asks import Ask
from fastticket.errors import Verdict

@disjoint_base
class Dialogue(Admission):
    """Questions of the plane, and what it is told. All methods are the control plane's, whichever
    thread the plane is in; nothing happens if the client has gone.
    """

    def asks(self) -> list[Ask]:
        """What the control plane is asked since the last call."""

    def asks_fileno(self) -> int:
        """Of a plane in a thread of its own: readable when `asks` or `release` has something.

        `asks` reads it empty. Call that on each tick, too: it also sends on answers for which there
        was no room.
        """

    @property
    def is_caught_up(self) -> bool:
        """Whether the plane has done all that it was told. Always true if the event loop drives
        it.
        """

    def admit(self, handle: int) -> None:
        """The ticket is alive: forward the request."""

    def refuse(self, handle: int, verdict: Verdict) -> None:
        """Answer 401, or 503 for STORE_UNAVAILABLE and
        OLD_STORE_UNAVAILABLE; where a ticket is optional, forward without
        identity.
        """

    def doubt(self, handle: int, fields: bytes, tickets: bytes) -> None:
        """Refuse a request with these tickets (spaces between), or pass it on without identity.

        The answer gets the fields, 3,000 bytes at most. ValueError: more of either than may be.
        """

    def exchanged(self, handle: int, ticket: str, fields: bytes) -> None:
        """Pass on a request with another system's cookie, or with a program's token, as if it had
        come with this ticket, which is good. The answer gets the fields, 3,000 bytes at most.
        ValueError: more.
        """

    def minted(self, handle: int, ticket: bytes) -> None:
        """Pass on a request with this ticket of another system, and its session's later ones."""

    def exempt(self, handle: int, is_exempt: bool) -> None:
        """Pass the request on without identity, or refuse it as it would have been."""

    def vouch(self, handle: int, is_alive: bool) -> None:
        """Let a stream or tunnel go on, or end it at once."""

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
