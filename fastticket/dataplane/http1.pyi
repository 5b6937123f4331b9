"""Message heads of HTTP/1.1 (RFC 9112), sans-I/O. Strict: what could be read in two ways is
refused.

The gateway calls the compiled functions beneath these; from Python they are for tests and tools.
Nothing here decides what is forwarded: a head says what was understood, and a `Kind` what each
field means to the gateway.
"""

from typing import TYPE_CHECKING, Literal, TypedDict, type_check_only

from typing_extensions import Buffer

from fastticket.dataplane.fieldnames import Names

if TYPE_CHECKING:  # what the dictionaries hold; these classes are not there at run time
    @type_check_only
    class _Head(TypedDict):
        size: int
        """Bytes of the head, its empty line included: the body begins here."""
        minor: int
        """0 in HTTP/1.0, 1 in HTTP/1.1."""
        framing: Literal["none", "length", "chunked", "close"]
        """How the body ends (RFC 9112, 6.3). Only a response has "close"."""
        content_length: int | None
        """The field's value, even where a response has no body (to HEAD, 304). Less than 2**60."""
        close: bool
        """Connection has the option `close` (RFC 9112, 9.6)."""
        keep_alive: bool
        """Connection has the option `keep-alive`."""
        fields: list[tuple[bytes, bytes, int]]
        """Name as it came, value without outer white space, number of its `Kind`: in order, at most
        512.
        """
        nominated: list[bytes]
        """Names that Connection makes hop-by-hop (RFC 9110, 7.6.1), at most 8; not `close`,
        `keep-alive` and `upgrade`. A field is meant if its name has the same normal spelling.
        """

    @type_check_only
    class _RequestHead(_Head):
        method: bytes
        """Case-sensitive, at most 32 bytes (RFC 9110, 9.1)."""
        target: bytes
        """As it is forwarded: origin-form, not normalised, or `*` (RFC 9112, 3.2)."""
        path: bytes
        """The target up to its `?`."""
        host: bytes
        """The value of Host, or the authority of an absolute-form target in its place (RFC 9112,
        3.2.2), without an empty port. `localhost` in HTTP/1.0 with neither.
        """
        expect_continue: bool
        """The client waits for 100 (RFC 9110, 10.1.1). Never true in HTTP/1.0."""
        websocket: bool
        """An opening handshake (RFC 6455, 4.1): GET, HTTP/1.1, no body, exactly one
        Sec-WebSocket-Key.
        """
        upgrade_to: bytes
        """The one protocol that the client offers to change to (RFC 9110, 7.8), or empty."""

    @type_check_only
    class _ResponseHead(_Head):
        status: int
        """The status code, 100 to 999."""
        reason: bytes
        """The reason phrase, perhaps empty."""

def request_head(data: Buffer, names: Names | None = None) -> _RequestHead | int:
    """Read a request head (RFC 9112, 2 to 7). `data` may hold more; up to two empty lines before it
    are skipped.

    Returns the head; 0 if it is incomplete; or the negated status to refuse it with: -400, -405
    (CONNECT, TRACE), -414 (a target over 65,536 bytes), -417 (Expect), -431 (more than 512 fields),
    -501 (a coding but `chunked`), -505. A head that is refused stays so with more bytes.
    """

def response_head(data: Buffer, to_head: bool = False, names: Names | None = None) -> _ResponseHead | int:
    """Read a response head (RFC 9112, 4); `to_head`: the request's method was HEAD. Returns the
    head; 0 if it is incomplete; -502 if it is refused.
    """
