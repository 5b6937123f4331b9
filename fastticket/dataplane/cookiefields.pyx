# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Cookies by name in the fields Cookie and Set-Cookie, as the browser that sends them and the
readers behind the gateway understand them (RFC 6265, 4.2.1; RFC 6265bis, 5.6).

A name is compared octet by octet. Nothing is decoded: a value goes on as it came, or not at all.
"""

from libc.string cimport memchr, memcmp


cdef inline bint _is_blank(uint8_t c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef inline bint _separates(uint8_t c) noexcept nogil:
    """Whether an octet stands between cookies of a Cookie field."""
    return c == c';' or c == c' ' or c == c'\t'


cdef bint sets_cookie(const uint8_t *at, Span value, const uint8_t *name, uint32_t name_size) noexcept nogil:
    """Whether a browser that reads this Set-Cookie sends a cookie of that name afterwards (RFC
    6265bis, 5.6 and 5.7.3).

    White space around the name does not count. A cookie without a name (`=ticket=x`) is sent as
    its value alone, which a reader then takes for name and value.
    """
    cdef uint32_t end = value.at + value.size
    cdef uint32_t i = value.at
    cdef uint32_t stop
    cdef const uint8_t *semicolon = <const uint8_t *>memchr(at + i, c';', end - i)
    if semicolon != NULL:
        end = <uint32_t>(semicolon - at)
    while i < end and _is_blank(at[i]):
        i += 1
    if i < end and at[i] == c'=':
        i += 1
        while i < end and _is_blank(at[i]):
            i += 1
    stop = i
    while stop < end and at[stop] != c'=':
        stop += 1
    if stop == end:
        return False
    while stop > i and _is_blank(at[stop - 1]):
        stop -= 1
    return stop - i == name_size and memcmp(at + i, name, name_size) == 0


cdef int find_cookie(const uint8_t *at, Span value, const uint8_t *name, uint32_t name_size, Span *found) noexcept nogil:
    """How many cookies of that name a Cookie field has (RFC 6265, 4.2.1), those with an empty value
    not counted. `found` is the value of the last one, and unchanged if there is none.
    """
    cdef const uint8_t *start = at + value.at
    cdef const uint8_t *end = start + value.size
    cdef const uint8_t *stop
    cdef const uint8_t *last
    cdef const uint8_t *semicolon
    cdef int count = 0
    while start < end:
        while start < end and _separates(start[0]):
            start += 1
        semicolon = <const uint8_t *>memchr(start, c';', end - start)
        stop = semicolon if semicolon != NULL else end
        if stop - start > name_size and start[name_size] == c'=' and memcmp(start, name, name_size) == 0:
            last = stop
            while last - start > name_size + 1 and _is_blank((last - 1)[0]):
                last -= 1
            if last - start > name_size + 1:
                count += 1
                found.at = <uint32_t>(start - at) + name_size + 1
                found.size = <uint32_t>(last - at) - found.at
        start = stop
    return count


cdef Span cookie_in(const uint8_t *at, Span value, uint32_t name_size, Span found) noexcept nogil:
    """What to cut out of a Cookie field to remove one cookie: `found` is its value, as
    `find_cookie` has it, and `name_size` the size of its name.

    The separators after it are cut, too, and those before it if it is the last cookie. The others
    stay as they are, octet by octet.
    """
    cdef uint32_t start = found.at - name_size - 1
    cdef uint32_t end = found.at + found.size
    cdef uint32_t stop = value.at + value.size
    while end < stop and _separates(at[end]):
        end += 1
    while end == stop and start > value.at and _separates(at[start - 1]):
        start -= 1
    return Span(start, end - start)


# ------------------------------------------------------------------------------ for tests and tools

cdef inline const uint8_t *_octets(bytes text) noexcept:
    return <const uint8_t *><const char *>text


def cookies_named(bytes value not None, bytes name not None):
    cdef Span found = Span(0, 0)
    cdef int count = find_cookie(_octets(value), Span(0, <uint32_t>len(value)), _octets(name), <uint32_t>len(name), &found)
    return count, value[found.at:found.at + found.size]


def without_cookies(bytes value not None, bytes name not None):
    cdef Span found = Span(0, 0)
    cdef Span cut
    while find_cookie(_octets(value), Span(0, <uint32_t>len(value)), _octets(name), <uint32_t>len(name), &found):
        cut = cookie_in(_octets(value), Span(0, <uint32_t>len(value)), <uint32_t>len(name), found)
        value = value[:cut.at] + value[cut.at + cut.size:]
    return value


def gives_cookie(bytes value not None, bytes name not None):
    return sets_cookie(_octets(value), Span(0, <uint32_t>len(value)), _octets(name), <uint32_t>len(name))
