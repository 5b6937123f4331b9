"""Message heads and body framing of HTTP/1.1 (RFC 9112), sans-I/O. Strict: what could be read in
two ways is refused.

The gateway calls the compiled functions beneath these; from Python they are for tests and tools.
Nothing here decides what is forwarded: a head says what was understood, and a `Kind` (http1.pxd)
what each field means to us.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, Self, TypedDict, final, type_check_only

from typing_extensions import Buffer

KNOWN: dict[str, int]
"""The field names that mean something to every gateway, in normal spelling, with their `Kind`."""

if TYPE_CHECKING:  # what the dictionaries hold; these classes are not there at run time
    @type_check_only
    class _Head(TypedDict):
        size: int
        """Of the head, with its empty line: the body begins here."""
        minor: int
        """0 or 1, of HTTP/1.0 and HTTP/1.1."""
        framing: Literal["none", "length", "chunked", "close"]
        """How the body ends (RFC 9112, 6.3). "close" is for responses alone."""
        content_length: int | None
        """The field's value, even where a response has no body (to HEAD, 304). Less than 2**60."""
        close: bool
        """Connection has the option `close` (RFC 9112, 9.6)."""
        keep_alive: bool
        """Connection has the option `keep-alive`."""
        fields: list[tuple[bytes, bytes, int]]
        """Name as it came, value without outer white space, `Kind`: in order, at most 512."""
        nominated: list[bytes]
        """Names that Connection makes hop-by-hop (RFC 9110, 7.6.1), its options excepted; at most
        8. To be compared with field names by normal spelling.
        """

    @type_check_only
    class _RequestHead(_Head):
        method: bytes
        """Case-sensitive, at most 32 bytes (RFC 9110, 9.1)."""
        target: bytes
        """As it goes on: origin-form, not normalised, or `*` (RFC 9112, 3.2)."""
        path: bytes
        """The target up to its `?`."""
        host: bytes
        """What Host says, or the authority of an absolute-form target in its place (RFC 9112,
        3.2.2), without an empty port. `localhost` of HTTP/1.0 that says neither.
        """
        expect_continue: bool
        """The client waits for 100 (RFC 9110, 10.1.1). Never of HTTP/1.0."""
        websocket: bool
        """An opening handshake (RFC 6455, 4.1): GET, HTTP/1.1, no body, exactly one
        Sec-WebSocket-Key.
        """
        upgrade_to: bytes
        """The one protocol that the client offers to change to (RFC 9110, 7.8), or nothing."""

    @type_check_only
    class _ResponseHead(_Head):
        status: int
        """100 to 999."""
        reason: bytes

@final
class Names:
    """The field names that mean something: `KNOWN`, `identity`, those that only the gateway may
    set, `dropped`, those that nobody may, and the ones that hold a request id, say that a request
    is no use of its session (`no_use`), and ask for its remaining lifetime (`lifetime`), if there
    are such.

    A name is found by its *normal spelling*: lower case, and `-` for every character but letters
    and digits. One of them in any other spelling (`X_Forwarded_User`) is DROP: somebody behind us
    could take it for the real one.

    ValueError: a name is empty, longer than 47 bytes, not a token, already has a meaning, or there
    are too many (64 with those of `KNOWN`).
    """

    def __new__(
        cls,
        identity: Iterable[str] = (),
        request_id: str = "",
        *,
        no_use: str = "",
        lifetime: str = "",
        dropped: Iterable[str] = (),
    ) -> Self: ...

def request_head(data: Buffer, names: Names | None = None) -> _RequestHead | int:
    """Read a request head (RFC 9112, 2 to 7). `data` may hold more; up to two empty lines before it
    are skipped.

    The head; or 0: it is incomplete; or the negated status to refuse it with: -400, -405 (CONNECT,
    TRACE), -414 (a target over 65,536 bytes), -417 (Expect), -431 (more than 512 fields), -501 (a
    coding but `chunked`), -505.

    What is refused with some bytes is refused the same with more of them.
    """

def response_head(data: Buffer, to_head: bool = False, names: Names | None = None) -> _ResponseHead | int:
    """Read a response head (RFC 9112, 4), the answer to HEAD or to another method. The head, or 0,
    or -502: refused.
    """

@final
class Dechunker:
    """A chunked body (RFC 9112, 7.1). Extensions and trailers are checked, bounded and dropped.

    Bounds: 15 hexadecimal digits, 256 bytes a size line, 4096 bytes for the trailer section.
    """

    def feed(self, data: bytes) -> tuple[bytes, int, bool]:
        """The data in these bytes, how many of them were used, and whether the body is complete.

        Less than all are used only at the body's end. ValueError: malformed; the object is then of
        no more use.
        """

def cookies_named(value: bytes, name: bytes) -> tuple[int, bytes]:
    """How many cookies of that name a Cookie field's value holds, and the last one's value (RFC
    6265, 4.2.1).

    More than one is for the caller to refuse: readers differ in which they take.
    """

def without_cookies(value: bytes, name: bytes) -> bytes:
    """A Cookie field's value without the cookies of that name; the others as they are, byte for
    byte. Empty if there are none.
    """

def gives_cookie(value: bytes, name: bytes) -> bool:
    """Whether a browser that reads this value of Set-Cookie sends a cookie of that name afterwards."""
