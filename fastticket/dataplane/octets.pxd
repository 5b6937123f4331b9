# What a message is read by: pieces of a buffer, and the classes of octets that may stand where.
#
# A module that scans has tables of its own, filled here when it is imported: the compiler then
# addresses them directly, which costs the hot path nothing.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

cdef extern from "<endian.h>" nogil:
    uint64_t le64toh(uint64_t word)


cdef struct Span:
    # A piece of a buffer, by offset. Offsets stay right when the buffer moves.
    uint32_t at
    uint32_t size


cdef enum:
    INCOMPLETE = 0              # what a reader returns, beside a size and -status: more has to come
    NOT_HEX = 0xFF              # what `fill_hex` has for an octet that is no digit


# ------------------------------------------------------------------------------- classes of octets


cdef inline void fill_tokens(uint8_t *table) noexcept:
    """`tchar` (RFC 9110, 5.6.2): an octet's normal spelling, which is lower case, and `-` for what
    is neither letter nor digit; 0 for an octet that no token has.
    """
    cdef const char *others = b"!#$%&'*+-.^_`|~"
    cdef int c
    for c in range(256):
        if c'0' <= c <= c'9' or c'a' <= c <= c'z':
            table[c] = <uint8_t>c
        elif c'A' <= c <= c'Z':
            table[c] = <uint8_t>(c | 0x20)
        else:
            table[c] = c'-' if memchr(others, c, 15) != NULL else 0


cdef inline void fill_values(uint8_t *table) noexcept:
    """What a field value or a reason phrase has (RFC 9110, 5.5): HTAB, SP, VCHAR, obs-text."""
    cdef int c
    for c in range(256):
        table[c] = c == 9 or 32 <= c <= 126 or c >= 128


cdef inline void fill_targets(uint8_t *table) noexcept:
    """What a request target has (RFC 9112, 3.2): VCHAR but `#`."""
    cdef int c
    for c in range(256):
        table[c] = 33 <= c <= 126 and c != c'#'


cdef inline void fill_hex(uint8_t *table) noexcept:
    """The value of a hexadecimal digit, in either case, or NOT_HEX."""
    cdef int c
    for c in range(256):
        table[c] = NOT_HEX
    for c in range(10):
        table[c'0' + c] = <uint8_t>c
    for c in range(6):
        table[c'A' + c] = table[c'a' + c] = <uint8_t>(10 + c)


# --------------------------------------------------------------------------------------- scanning

cdef inline const uint8_t *past(const uint8_t *table, const uint8_t *at, const uint8_t *end) noexcept nogil:
    """The first octet from `at` on that the table has 0 for, or `end`. Four at a time: names and
    targets are a third of what a head is read for.
    """
    while end - at >= 4:
        if not table[at[0]]:
            return at
        if not table[at[1]]:
            return at + 1
        if not table[at[2]]:
            return at + 2
        if not table[at[3]]:
            return at + 3
        at += 4
    while at != end and table[at[0]]:
        at += 1
    return at


cdef inline uint64_t little_endian(const uint8_t *at) noexcept nogil:
    """8 octets as a number, the first one lowest."""
    cdef uint64_t word
    memcpy(&word, at, 8)
    return le64toh(word)


cdef inline uint8_t lower(uint8_t c) noexcept nogil:
    """An ASCII letter in lower case; every other octet as it is."""
    return c | 0x20 if c'A' <= c <= c'Z' else c


cdef inline bint equals(const uint8_t *at, Span span, const char *text, uint32_t size) noexcept nogil:
    """Whether a span is that text, which is in lower case, in any case of ASCII."""
    cdef uint32_t i
    if span.size != size:
        return False
    if memcmp(at + span.at, text, size) == 0:
        return True
    for i in range(size):
        if lower(at[span.at + i]) != <uint8_t>text[i]:
            return False
    return True
