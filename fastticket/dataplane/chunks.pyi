"""Chunked bodies (RFC 9112, 7.1)."""

from typing import final

@final
class Dechunker:
    """Reads one chunked body. Extensions and trailers are checked, bounded and dropped.

    Bounds: 15 hexadecimal digits, leading zeros not counted, and 16 in all; 256 bytes a size line;
    4,096 bytes for the trailer section.
    """

    def feed(self, data: bytes) -> tuple[bytes, int, bool]:
        """The data in these bytes, how many of them were used, and whether the body is complete.

        Fewer than all are used only at the body's end. ValueError: the body is malformed; the
        object is of no more use.
        """
