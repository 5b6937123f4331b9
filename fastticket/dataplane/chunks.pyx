# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Chunked bodies (RFC 9112, 7.1), decoded in place, in whatever pieces they come.

States. Data is copied as a block; every other octet is one step.

    SIZE_FIRST ──hex──► SIZE ──CR──► SIZE_LF ──LF──► DATA ──► DATA_CR ──► DATA_LF ──► SIZE_FIRST
                          │ blank, ;     ▲             │ instead, after the size 0
                          ▼              │ CR          ▼
            BLANK ──;──► EXTENSION ──────┘           LINE_START ──CR──► END_LF ──LF──► DONE
                           │   ▲                       │      ▲
                           ▼ " │                 tchar ▼      └──LF── TRAILER_LF
                         QUOTED ◄─► QUOTED_PAIR      TRAILER_NAME              ▲ CR
                                                       └───:──► TRAILER_VALUE ─┘

An octet for which a state has no arrow makes the body malformed: it is refused with 400, never
repaired. Extensions and trailers are checked, bounded and dropped; chunk sizes have at most 16
digits, zeros included.
"""

cimport cython
from libc.string cimport memmove

from fastticket.dataplane.octets cimport NOT_HEX, fill_hex, fill_tokens, fill_values

cdef enum:
    CHUNK_DIGITS_MAX = 16       # leading zeros included
    CHUNK_SIZE_BITS = 60
    CHUNK_LINE_BYTES_MAX = 256
    TRAILER_BYTES_MAX = 4096

cdef uint8_t[256] TOKEN
cdef uint8_t[256] IN_VALUE
cdef uint8_t[256] HEX

fill_tokens(TOKEN)
fill_values(IN_VALUE)
fill_hex(HEX)


cdef int dechunk(Chunks *chunks, uint8_t *at, uint32_t size, uint32_t *consumed, uint32_t *produced) noexcept nogil:
    """Decode the next piece of a body in place. Of its `size` octets the first `consumed` belong to
    the body, and `at[0:produced]` is now their data.

    1: the body is complete; 0: more is to come; -400: malformed.
    """
    cdef uint32_t i = 0
    cdef uint32_t out = 0
    cdef uint32_t n
    cdef uint8_t c
    while i < size and chunks.state != ChunkState.DONE:
        if chunks.state == ChunkState.DATA:
            n = <uint32_t>min(<uint64_t>(size - i), chunks.left)
            if out != i:
                memmove(at + out, at + i, n)
            out += n
            i += n
            chunks.left -= n
            if chunks.left == 0:
                chunks.state = ChunkState.DATA_CR
            continue
        c = at[i]
        i += 1
        if _chunk_step(chunks, c) < 0:
            return -400
    consumed[0] = i
    produced[0] = out
    return chunks.state == ChunkState.DONE


cdef int _chunk_step(Chunks *chunks, uint8_t c) noexcept nogil:
    """One octet outside the data. 0, or -400."""
    cdef ChunkState state = chunks.state
    chunks.line_bytes += 1
    if state == ChunkState.SIZE_FIRST or state == ChunkState.SIZE:
        if HEX[c] != NOT_HEX:
            chunks.left = (0 if state == ChunkState.SIZE_FIRST else chunks.left) * 16 + HEX[c]
            if state == ChunkState.SIZE_FIRST:
                chunks.line_bytes = 1
                chunks.state = ChunkState.SIZE
            return 0 if chunks.line_bytes <= CHUNK_DIGITS_MAX and chunks.left >> CHUNK_SIZE_BITS == 0 else -400
        if state == ChunkState.SIZE_FIRST:
            return -400
        if c == c' ' or c == c'\t':
            chunks.state = ChunkState.BLANK
            return _extension_step(chunks, c)
        if c != c'\r' and c != c';':
            return -400
        chunks.state = ChunkState.EXTENSION if c == c';' else ChunkState.SIZE_LF
        chunks.is_blank = False
        chunks.may_begin = True
    elif state <= ChunkState.QUOTED_PAIR:
        return _extension_step(chunks, c)
    elif state == ChunkState.SIZE_LF:
        if c != c'\n':
            return -400
        chunks.line_bytes = 0
        chunks.state = ChunkState.DATA if chunks.left else ChunkState.LINE_START
    elif state == ChunkState.DATA_CR:
        if c != c'\r':
            return -400
        chunks.state = ChunkState.DATA_LF
    elif state == ChunkState.DATA_LF:
        if c != c'\n':
            return -400
        chunks.state = ChunkState.SIZE_FIRST
    else:
        return _trailer_step(chunks, c)
    return 0


cdef int _extension_step(Chunks *chunks, uint8_t c) noexcept nogil:
    """One octet of chunk-ext (RFC 9112, 7.1.1), with white space where the grammar has it: around
    `;` and `=`. 0, or -400.

    Names and values are not told apart: nobody uses them. No quoted-string has a CR, so the line
    ends at its first CR for every reader.
    """
    cdef ChunkState state = chunks.state
    chunks.extension_bytes += 1
    if chunks.line_bytes > CHUNK_LINE_BYTES_MAX:
        return -400
    if state == ChunkState.QUOTED_PAIR or state == ChunkState.QUOTED and c != c'"':
        chunks.state = ChunkState.QUOTED_PAIR if state == ChunkState.QUOTED and c == c'\\' else ChunkState.QUOTED
        return 0 if IN_VALUE[c] else -400
    if state == ChunkState.QUOTED:
        chunks.state = ChunkState.EXTENSION
    elif c == c' ' or c == c'\t':
        chunks.is_blank = True
    elif c == c';' or c == c'=' and state == ChunkState.EXTENSION:
        chunks.state = ChunkState.EXTENSION
        chunks.is_blank = False
        chunks.may_begin = True
    elif state == ChunkState.BLANK or chunks.is_blank and not chunks.may_begin:
        return -400
    elif c == c'\r' and not chunks.is_blank:
        chunks.state = ChunkState.SIZE_LF
    elif c == c'"' or TOKEN[c]:
        chunks.state = ChunkState.QUOTED if c == c'"' else ChunkState.EXTENSION
        chunks.is_blank = chunks.may_begin = False
    else:
        return -400
    return 0


cdef int _trailer_step(Chunks *chunks, uint8_t c) noexcept nogil:
    """One octet of the trailer section (RFC 9112, 7.1.2). 0, or -400."""
    cdef ChunkState state = chunks.state
    if chunks.line_bytes > TRAILER_BYTES_MAX:
        return -400
    if state == ChunkState.LINE_START:
        if c == c'\r':
            chunks.state = ChunkState.END_LF
        elif TOKEN[c]:
            chunks.state = ChunkState.TRAILER_NAME
        else:
            return -400
    elif state == ChunkState.TRAILER_NAME:
        if c == c':':
            chunks.state = ChunkState.TRAILER_VALUE
        elif not TOKEN[c]:
            return -400
    elif state == ChunkState.TRAILER_VALUE:
        if c == c'\r':
            chunks.state = ChunkState.TRAILER_LF
        elif not IN_VALUE[c]:
            return -400
    elif c != c'\n':
        return -400
    else:
        chunks.state = ChunkState.DONE if state == ChunkState.END_LF else ChunkState.LINE_START
    return 0


# ------------------------------------------------------------------------------ for tests and tools

@cython.final
cdef class Dechunker:
    cdef Chunks chunks

    def feed(self, bytes data not None):
        cdef bytearray buffer = bytearray(data)
        cdef uint32_t consumed = 0
        cdef uint32_t produced = 0
        cdef int result = dechunk(&self.chunks, <uint8_t *><char *>buffer, <uint32_t>len(data), &consumed, &produced)
        if result < 0:
            raise ValueError("malformed chunked body")
        return bytes(buffer[:produced]), consumed, bool(result)
