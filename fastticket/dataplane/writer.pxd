# What is about to be sent, in one buffer. A caller sees to it that there is room: how much a head
# can need at most is known (`_allocate` in proxy.pyx).

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strlen

from fastticket.dataplane.http1 cimport Field

cdef enum:
    CHUNK_HEADER_BYTES = 16     # room for the header of a chunk


cdef struct Writer:
    uint8_t *at
    uint32_t size               # so far
    uint32_t run_at             # field lines that go on as they came, still to be copied
    uint32_t run_end


cdef inline void put(Writer *out, const uint8_t *at, uint32_t size) noexcept nogil:
    memcpy(out.at + out.size, at, size)
    out.size += size


cdef inline void put_text(Writer *out, const char *text) noexcept nogil:
    put(out, <const uint8_t *>text, <uint32_t>strlen(text))


cdef inline void begin_run(Writer *out, uint32_t at) noexcept nogil:
    """What stands from there on goes on as it came: up to `run_end`, which the caller moves."""
    out.run_at = out.run_end = at


cdef inline void leave_out(Writer *out, const uint8_t *at, const Field *field) noexcept nogil:
    """A field that does not go on: the run ends before it, and the next one may begin after it."""
    put(out, at + out.run_at, out.run_end - out.run_at)
    begin_run(out, field.value.at + field.value.size + 2)


cdef inline void end_run(Writer *out, const uint8_t *at) noexcept nogil:
    put(out, at + out.run_at, out.run_end - out.run_at)
    out.run_at = out.run_end = 0


cdef inline bint came_as_it_goes(const uint8_t *at, const Field *field) noexcept nogil:
    """As `name: value CRLF`."""
    return field.value.at == field.name.at + field.name.size + 2 and at[field.value.at - 1] == c' ' \
        and at[field.value.at + field.value.size] == c'\r'


cdef inline void put_apart(Writer *out, const uint8_t *at, const Field *field) noexcept nogil:
    """A field that begins another run, or stands in none."""
    end_run(out, at)
    if came_as_it_goes(at, field):
        out.run_at = field.name.at
        out.run_end = field.value.at + field.value.size + 2
        return
    put(out, at + field.name.at, field.name.size)
    put(out, b": ", 2)
    put(out, at + field.value.at, field.value.size)
    put(out, b"\r\n", 2)


cdef inline void put_field(Writer *out, const uint8_t *at, const Field *field) noexcept nogil:
    """As `name: value CRLF`. Lines that came so, one after the other, are a run that `end_run`
    copies at once.
    """
    if field.name.at == out.run_end and came_as_it_goes(at, field):
        out.run_end = field.value.at + field.value.size + 2
    else:
        put_apart(out, at, field)


cdef inline void put_number(Writer *out, uint64_t number) noexcept nogil:
    """Decimal. By hand: snprintf was a tenth of what a request takes in user space."""
    cdef uint8_t[20] digits
    cdef uint32_t first = sizeof(digits)
    while True:
        first -= 1
        digits[first] = <uint8_t>(c'0' + number % 10)
        number //= 10
        if number == 0:
            break
    put(out, digits + first, sizeof(digits) - first)


cdef inline void put_length(Writer *out, uint64_t length) noexcept nogil:
    put(out, b"Content-Length: ", 16)
    put_number(out, length)
    put(out, b"\r\n", 2)


cdef inline void put_escaped(Writer *out, uint8_t c, uint8_t kept) noexcept nogil:
    """In percent-encoding, but for letters, digits, `-`, `.`, `_` (RFC 3986, 2.3) and one character
    more.
    """
    cdef const char *digits = b"0123456789ABCDEF"
    cdef uint8_t[3] text
    if c'a' <= c <= c'z' or c'A' <= c <= c'Z' or c'0' <= c <= c'9' or c == c'-' or c == c'.' or c == c'_' or c == kept:
        put(out, &c, 1)
        return
    text[0] = c'%'
    text[1] = digits[c >> 4]
    text[2] = digits[c & 15]
    put(out, text, 3)


cdef inline void put_body(Writer *out, const uint8_t *at, uint32_t size, bint chunked, bint complete) noexcept nogil:
    cdef char[CHUNK_HEADER_BYTES] line
    if chunked and size:
        put(out, <uint8_t *>line, <uint32_t>snprintf(line, sizeof(line), b"%x\r\n", <unsigned int>size))
    put(out, at, size)
    if chunked and size:
        put(out, b"\r\n", 2)
    if chunked and complete:
        put(out, b"0\r\n\r\n", 5)
