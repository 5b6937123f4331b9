# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""The host that a request is for: what Host says, or the authority of an absolute-form target
(RFC 9110, 7.2; RFC 9112, 3.2.2).

A host is a name of letters, digits and `-._~`, an IPv4 address, or an IPv6 address in brackets (RFC
3986, 3.2.2), with or without a port. What is anything else is refused, so that nobody behind the
gateway reads another host out of it.
"""

from libc.stdint cimport uint32_t

from fastticket.dataplane.octets cimport NOT_HEX, equals, fill_hex, past

cdef uint8_t[256] IN_HOST       # of a name or an IPv4 address; between brackets it is read apart
cdef uint8_t[256] HEX

def _fill_tables():
    cdef int c
    for c in range(128):
        IN_HOST[c] = chr(c).isalnum() or chr(c) in "-._~"
    fill_hex(HEX)

_fill_tables()


cdef bint read_host(const uint8_t *at, Span *host) noexcept nogil:
    """Whether it is uri-host [ ":" port ] (RFC 9110, 7.2), not empty. A colon without a port says
    nothing, and is taken off.
    """
    cdef uint32_t end = host.at + host.size
    cdef uint32_t i = host.at
    cdef uint32_t port = 0
    if i < end and at[i] == c'[':
        i = _past_v6(at, i, end)
    else:
        i = <uint32_t>(past(IN_HOST, at + i, at + end) - at)
    if i == host.at:
        return False
    if i == end:
        return True
    if at[i] != c':' or end - i > 6:
        return False
    if i + 1 == end:
        host.size -= 1
        return True
    for i in range(i + 1, end):
        if not c'0' <= at[i] <= c'9':
            return False
        port = port * 10 + (at[i] - c'0')
    return port <= 65535


cdef uint32_t _past_v6(const uint8_t *at, uint32_t start, uint32_t end) noexcept nogil:
    """The end of `[` IPv6address `]` (RFC 3986, 3.2.2), which begins at `start`; `start` again: it
    is none.
    """
    cdef uint32_t i = start + 1
    cdef uint32_t digits
    cdef int groups = 0
    cdef bint has_gap = end - i >= 2 and at[i] == c':' and at[i + 1] == c':'
    if has_gap:
        i += 2
    while i < end and at[i] != c']':
        digits = 0
        while i + digits < end and digits < 5 and HEX[at[i + digits]] != NOT_HEX:
            digits += 1
        if digits == 0 or digits > 4 or i + digits == end:
            return start
        if at[i + digits] == c'.':
            i = _past_v4(at, i, end)
            groups += 2
            break
        i += digits
        groups += 1
        if at[i] == c']':
            break
        if at[i] != c':' or i + 1 == end or at[i + 1] == c']':
            return start
        i += 1
        if at[i] == c':':
            if has_gap:
                return start
            has_gap = True
            i += 1
    if i >= end or at[i] != c']' or (groups > 7 if has_gap else groups != 8):
        return start
    return i + 1


cdef uint32_t _past_v4(const uint8_t *at, uint32_t i, uint32_t end) noexcept nogil:
    """The end of IPv4address (RFC 3986, 3.2.2), or the end of everything: it is none."""
    cdef uint32_t start
    cdef uint32_t value
    cdef int octet
    for octet in range(4):
        if octet:
            if i == end or at[i] != c'.':
                return end
            i += 1
        start = i
        value = 0
        while i < end and i - start < 3 and c'0' <= at[i] <= c'9':
            value = value * 10 + (at[i] - c'0')
            i += 1
        if i == start or value > 255 or at[start] == c'0' and i - start > 1:
            return end
    return i


cdef bint split_absolute(const uint8_t *at, Span *target, Span *host) noexcept nogil:
    """Split `http://authority/path?query` (RFC 9112, 3.2.2): `host` is the authority, `target` what
    follows it, which may be empty or begin with `?`. False: the target is none of http or https.
    """
    cdef uint32_t end = target.at + target.size
    cdef uint32_t i = target.at
    cdef Span scheme
    while i < end and at[i] != c':':
        i += 1
    scheme = Span(target.at, i - target.at)
    if not equals(at, scheme, b"http", 4) and not equals(at, scheme, b"https", 5):
        return False
    if end - i < 3 or at[i + 1] != c'/' or at[i + 2] != c'/':
        return False
    i += 3
    host.at = i
    while i < end and at[i] != c'/' and at[i] != c'?':
        i += 1
    host.size = i - host.at
    target[0] = Span(i, end - i)
    return read_host(at, host)
