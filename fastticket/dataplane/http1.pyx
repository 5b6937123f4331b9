# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Message heads and body framing of HTTP/1.1 (RFC 9112), sans-I/O.

Rules of this file
- Strict: what two readers could take for two things is refused, never repaired. No bare LF, no
  folding, no space before a colon, one Host, one Content-Length, no Content-Length beside
  Transfer-Encoding, no coding but `chunked`. What is taken although some refuse it (docs/http.md)
  ends where every reader sees its end, and goes on in the plain form.
- A field name is classified by its *normal spelling*: lower case, and `-` for every character that
  is neither letter nor digit. A name that we know in any other spelling (`X_Forwarded_User`) is one
  that somebody behind us could take for the real one: DROP.
- A parse returns the size of the head, INCOMPLETE, or the negated status to answer with. Positions
  are offsets into the buffer.
- It may be called again with more bytes; it starts anew. The caller calls it only when a CR or LF
  came, so a slow sender can make it run twice a line at most.
"""

cimport cython
from libc.string cimport memchr, memcmp, memcpy, memset

cdef extern from "<endian.h>" nogil:
    uint64_t le64toh(uint64_t word)

cdef extern from *:
    int __builtin_ctzll(unsigned long long word) noexcept nogil

cdef enum:
    METHOD_BYTES_MAX = 32
    LEADING_CRLF_MAX = 2        # some old clients send one after a body; two are still harmless
    CHUNK_DIGITS_MAX = 16       # zeros before them included
    CHUNK_SIZE_BITS = 60
    CHUNK_LINE_BYTES_MAX = 256
    TRAILER_BYTES_MAX = 4096
    # Chosen so that neither the names that we know nor fifty that browsers and servers send meet in
    # the table.
    SIZE_FACTOR = 21
    FIRST_FACTOR = 26
    LAST_FACTOR = 5

cdef uint8_t[256] TOKEN         # its normal spelling, or 0: not a token character (RFC 9110, 5.6.2)
cdef uint8_t[256] IS_ODD        # a token character that is not a letter, a digit or "-"
cdef uint8_t[256] IN_VALUE      # HTAB, SP, VCHAR, obs-text
cdef uint8_t[256] IN_TARGET     # VCHAR but "#"
cdef uint8_t[256] IN_HOST       # of a name or an IPv4 address; [v6] is read apart
cdef uint8_t[256] HEX           # 0xFF: not a hexadecimal digit

def _fill_tables():
    cdef int c
    memset(HEX, 0xFF, sizeof(HEX))
    for c in range(256):
        character = chr(c)
        is_alphanumeric = c < 128 and character.isalnum()
        if is_alphanumeric:
            TOKEN[c] = ord(character.lower())
        elif character in "!#$%&'*+-.^_`|~":
            TOKEN[c] = c'-'
            IS_ODD[c] = character != "-"
        IN_VALUE[c] = c == 9 or 32 <= c <= 126 or c >= 128
        IN_TARGET[c] = 33 <= c <= 126 and character != "#"
        IN_HOST[c] = is_alphanumeric or character in "-._~"
        if character in "0123456789abcdefABCDEF":
            HEX[c] = int(character, 16)

_fill_tables()


# -------------------------------------------------------------------------------------- field names

KNOWN = {
    "host": Kind.HOST,
    "content-length": Kind.CONTENT_LENGTH,
    "transfer-encoding": Kind.TRANSFER_ENCODING,
    "connection": Kind.CONNECTION,
    "keep-alive": Kind.KEEP_ALIVE,
    "proxy-connection": Kind.HOP,
    "proxy-authorization": Kind.HOP,
    "proxy-authenticate": Kind.HOP,
    "proxy": Kind.HOP,                      # CGI turns it into HTTP_PROXY
    "x-original-url": Kind.HOP,             # some frameworks take the path from here, and we have judged another one
    "x-rewrite-url": Kind.HOP,
    "te": Kind.HOP,
    "trailer": Kind.HOP,
    "upgrade": Kind.UPGRADE,
    "expect": Kind.EXPECT,
    "cookie": Kind.COOKIE,
    "authorization": Kind.AUTHORIZATION,
    "www-authenticate": Kind.AUTHENTICATE,
    "set-cookie": Kind.SET_COOKIE,
    "accept": Kind.ACCEPT,
    "sec-websocket-key": Kind.WEBSOCKET_KEY,
    "forwarded": Kind.FORWARDED_ELEMENT,
    "x-forwarded-port": Kind.FORWARDED,
    "x-forwarded-prefix": Kind.FORWARDED,
    "x-forwarded-scheme": Kind.FORWARDED,
    "x-forwarded-server": Kind.FORWARDED,
    "x-forwarded-ssl": Kind.FORWARDED,
    "x-client-ip": Kind.FORWARDED,
    "x-real-ip": Kind.FORWARDED,
    "true-client-ip": Kind.FORWARDED,
    "x-forwarded-for": Kind.FORWARDED_FOR,
    "x-forwarded-proto": Kind.FORWARDED_PROTO,
    "x-forwarded-host": Kind.FORWARDED_HOST,
    "x-ticket-login": Kind.TICKET_LOGIN,
    "x-ticket-logout": Kind.TICKET_LOGOUT,
    "x-ticket-remember": Kind.TICKET_REMEMBER,
    "x-ticket-rotate": Kind.TICKET_ROTATE,
}


cdef inline uint32_t _place(uint8_t first, uint8_t last, uint32_t size) noexcept nogil:
    """Where the search for a name begins, by its normal spelling: enough to tell the names we know
    from those browsers send.
    """
    return (size * SIZE_FACTOR + first * FIRST_FACTOR + last * LAST_FACTOR) % NAME_TABLE


@cython.final
cdef class Names:
    """The field names that mean something to us: a small open hash table. `identity` are those that
    only we may set, `dropped` those that nobody may.
    """

    def __cinit__(self, identity=(), request_id="", *, no_use="", lifetime="", dropped=()):
        for name, kind in KNOWN.items():
            self._add(name, kind)
        for name in identity:
            self._add(name, Kind.IDENTITY)
        for name, kind in ((request_id, Kind.REQUEST_ID), (no_use, Kind.NO_USE), (lifetime, Kind.LIFETIME)):
            if name:
                self._add(name, kind)
        for name in dropped:
            self._add(name, Kind.DROP)

    def _add(self, name, kind):
        cdef bytes normal = bytes(TOKEN[c] for c in name.encode("ascii"))
        cdef uint32_t place
        if not 0 < len(normal) <= NAME_BYTES_MAX or 0 in normal or self.count >= NAME_TABLE // 2:
            raise ValueError(f"not a field name of at most {NAME_BYTES_MAX} bytes, or too many of them: {name!r}")
        place = _place(<uint8_t>normal[0], <uint8_t>normal[len(normal) - 1], <uint32_t>len(normal))
        while self.table[place].size:
            if bytes(self.table[place].text[:self.table[place].size]) == normal:
                raise ValueError(f"the field {name!r} has a meaning of its own")
            place = (place + 1) % NAME_TABLE
        self.table[place].size = <uint8_t>len(normal)
        self.table[place].kind = kind
        memcpy(self.table[place].text, <const char *>normal, len(normal))
        self.count += 1

    cdef Kind kind_of(self, const uint8_t *name, uint32_t size) noexcept nogil:
        """Of a token, in any spelling; not empty."""
        cdef uint32_t place = _place(TOKEN[name[0]], TOKEN[name[size - 1]], size)
        while self.table[place].size:
            if self.table[place].size == size and _is_spelled(name, self.table[place].text, size):
                return <Kind>self.table[place].kind
            place = (place + 1) % NAME_TABLE
        return Kind.OTHER


cdef inline bint _is_spelled(const uint8_t *name, const uint8_t *normal, uint32_t size) noexcept nogil:
    cdef uint32_t i
    for i in range(size):
        if TOKEN[name[i]] != normal[i]:
            return False
    return True


# ------------------------------------------------------------------------------------------- pieces

cdef bint equals(const uint8_t *at, Span span, const char *lower, uint32_t size) noexcept nogil:
    """Whether the span is that ASCII text, in any case."""
    cdef uint32_t i
    if span.size != size:
        return False
    for i in range(size):
        if (at[span.at + i] | 0x20 if c'A' <= at[span.at + i] <= c'Z' else at[span.at + i]) != <uint8_t>lower[i]:
            return False
    return True


cdef bint reads_as(const uint8_t *name, uint32_t name_size, const uint8_t *other, uint32_t other_size) noexcept nogil:
    """Whether two names have one normal spelling."""
    cdef uint32_t i
    if name_size != other_size:
        return False
    for i in range(name_size):
        if TOKEN[name[i]] != TOKEN[other[i]]:
            return False
    return True


cdef inline bint _reads_as(const uint8_t *at, Span name, const char *other, uint32_t size) noexcept nogil:
    return reads_as(at + name.at, name.size, <const uint8_t *>other, size)


cdef bint is_nominated(const uint8_t *at, const Head *head, const Field *field) noexcept nogil:
    """Whether the Connection field makes this one hop-by-hop. Compared by normal spelling."""
    cdef int n
    for n in range(head.nominated_count):
        if reads_as(at + head.nominated[n].at, head.nominated[n].size, at + field.name.at, field.name.size):
            return True
    return False


cdef inline const uint8_t *_past(const uint8_t *table, const uint8_t *at, const uint8_t *end) noexcept nogil:
    """The first byte that the table does not have. By fours: names and targets are a third of what
    a head is read for.
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


cdef bint _is_odd(const uint8_t *name, uint32_t size) noexcept nogil:
    """Whether a token is spelled with other characters than letters, digits and "-"."""
    cdef uint32_t i
    for i in range(size):
        if IS_ODD[name[i]]:
            return True
    return False


cdef inline uint64_t _controls(const uint8_t *at) noexcept nogil:
    """Of 8 bytes, the lowest bit that is set is the top bit of the first control character, HTAB
    and DEL among them; 0: there is none.

    Bits above it mean nothing: a subtraction borrows from the next byte only where it has found
    something.
    """
    cdef uint64_t word
    cdef uint64_t low
    cdef uint64_t without_del
    memcpy(&word, at, 8)
    word = le64toh(word)
    low = (word - 0x2020202020202020ULL) & ~word
    without_del = word ^ 0x7F7F7F7F7F7F7F7FULL
    return (low | (without_del - 0x0101010101010101ULL) & ~without_del) & 0x8080808080808080ULL


cdef inline const uint8_t *_past_value(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """The first byte that can not be in a value."""
    cdef uint64_t controls
    while end - at >= 8:
        controls = _controls(at)
        if controls == 0:
            at += 8
            continue
        at += __builtin_ctzll(controls) // 8
        if at[0] != c'\t':
            return at
        at += 1
    while at != end and IN_VALUE[at[0]]:
        at += 1
    return at


cdef int _field_line(Names names, const uint8_t *at, uint32_t size, uint32_t start, Field *field) noexcept nogil:
    """One field line from `start`. The offset after its CRLF, INCOMPLETE, or -400."""
    cdef uint32_t i = <uint32_t>(_past(TOKEN, at + start, at + size) - at)
    cdef uint32_t end
    if i == size:
        return INCOMPLETE
    if at[i] != c':' or i == start or i - start > 0xFFFF:
        return -400
    field.name = Span(start, i - start)
    field.kind = names.kind_of(at + start, i - start)
    if field.kind != Kind.OTHER and _is_odd(at + start, i - start):
        field.kind = Kind.DROP
    i += 1
    while i < size and (at[i] == c' ' or at[i] == c'\t'):
        i += 1
    field.value.at = i
    i = <uint32_t>(_past_value(at + i, at + size) - at)
    if i + 1 >= size:
        return INCOMPLETE if i == size or at[i] == c'\r' else -400
    if at[i] != c'\r' or at[i + 1] != c'\n':
        return -400
    end = i
    while end > field.value.at and (at[end - 1] == c' ' or at[end - 1] == c'\t'):
        end -= 1
    field.value.size = end - field.value.at
    return <int>(i + 2)


cdef int _fields(Names names, const uint8_t *at, uint32_t size, uint32_t start, Head *head) noexcept nogil:
    """Field lines up to the empty line. The size of the head, INCOMPLETE, or -status."""
    cdef uint32_t i = start
    cdef int after
    head.field_count = 0
    head.known_count = 0
    while True:
        if i == size:
            return INCOMPLETE
        if at[i] == c'\r':
            if i + 1 == size:
                return INCOMPLETE
            return <int>(i + 2) if at[i + 1] == c'\n' else -400
        if head.field_count == FIELDS_MAX:
            return -431
        after = _field_line(names, at, size, i, &head.fields[head.field_count])
        if after <= 0:
            return after
        if head.fields[head.field_count].kind != Kind.OTHER:
            head.known[head.known_count] = <uint16_t>head.field_count
            head.known_count += 1
        head.field_count += 1
        i = <uint32_t>after


cdef int _length(const uint8_t *at, Span value, uint64_t *length) noexcept nogil:
    """1*DIGIT, and nothing that does not fit. 0, or -400."""
    cdef uint32_t i
    length[0] = 0
    if value.size == 0:
        return -400
    for i in range(value.at, value.at + value.size):
        if not c'0' <= at[i] <= c'9' or length[0] >> 56:      # the next digit could overflow
            return -400
        length[0] = length[0] * 10 + (at[i] - c'0')
    return 0


cdef int _connection(const uint8_t *at, Span value, Head *head) noexcept nogil:
    """A list of tokens (RFC 9110, 7.6.1). 0, or -400."""
    cdef uint32_t end = value.at + value.size
    cdef uint32_t i = value.at
    cdef Span token
    while i < end:
        while i < end and (at[i] == c',' or at[i] == c' ' or at[i] == c'\t'):
            i += 1
        token.at = i
        while i < end and TOKEN[at[i]]:
            i += 1
        token.size = i - token.at
        if token.size == 0:
            return 0 if i == end else -400
        while i < end and (at[i] == c' ' or at[i] == c'\t'):
            i += 1
        if i < end and at[i] != c',':
            i = _past_parameters(at, i, end) if equals(at, token, b"keep-alive", 10) else 0
            if i == 0:
                return -400
            continue                        # no token, so no option (RFC 9110, 7.6.1): it says nothing
        if equals(at, token, b"close", 5):
            head.close = True
        elif equals(at, token, b"keep-alive", 10):
            head.keep_alive = True
        elif equals(at, token, b"upgrade", 7):
            head.upgrade = True
        elif _reads_as(at, token, b"content-length", 14) or _reads_as(at, token, b"transfer-encoding", 17) \
                or _reads_as(at, token, b"host", 4) or head.nominated_count == NOMINATED_MAX:
            return -400
        else:
            head.nominated[head.nominated_count] = token
            head.nominated_count += 1
    return 0


cdef uint32_t _past_parameters(const uint8_t *at, uint32_t i, uint32_t end) noexcept nogil:
    """`; name` or `; name=value`, of tokens, once or more, up to a comma or the end: where that is.
    0: it is something else.
    """
    cdef uint32_t start
    while i < end and at[i] == c';':
        i += 1
        while i < end and (at[i] == c' ' or at[i] == c'\t'):
            i += 1
        start = i
        i = <uint32_t>(_past(TOKEN, at + i, at + end) - at)
        if i == start:
            return 0
        if i < end and at[i] == c'=':
            start = i + 1
            i = <uint32_t>(_past(TOKEN, at + start, at + end) - at)
            if i == start:
                return 0
        while i < end and (at[i] == c' ' or at[i] == c'\t'):
            i += 1
    return i if i == end or at[i] == c',' else 0


cdef int _keep_alive_s(const uint8_t *at, Span value) noexcept nogil:
    """`timeout=N` out of a Keep-Alive field, s; -1: there is none, or more than a day."""
    cdef uint32_t end = value.at + value.size
    cdef uint32_t i = value.at
    cdef uint32_t start
    cdef int seconds = 0
    while i < end:
        start = i
        while i < end and TOKEN[at[i]]:
            i += 1
        if i < end and at[i] == c'=' and equals(at, Span(start, i - start), b"timeout", 7):
            start = i + 1
            i = start
            while i < end and c'0' <= at[i] <= c'9' and seconds <= 86400:
                seconds = seconds * 10 + (at[i] - c'0')
                i += 1
            return seconds if i > start and seconds <= 86400 else -1
        i += 1
    return -1


cdef bint _is_personal(const uint8_t *at, Span value, bint is_list) noexcept nogil:
    """Whether a list of challenges, or else credentials, name a scheme that authenticates a
    connection and not a request (RFC 4559).

    A realm of that name is taken for it, too: that costs a connection, and nothing else.
    """
    cdef uint32_t end = value.at + value.size
    cdef uint32_t i = value.at
    cdef Span word
    while i < end:
        word.at = i
        while i < end and TOKEN[at[i]]:
            i += 1
        word.size = i - word.at
        if equals(at, word, b"ntlm", 4) or equals(at, word, b"negotiate", 9) or equals(at, word, b"nego2", 5) \
                or equals(at, word, b"kerberos", 8):
            return True
        if not is_list:
            return False
        i += 1
    return False


cdef int _framing(const uint8_t *at, Head *head) noexcept nogil:
    """Content-Length, Transfer-Encoding, Connection and whose the connection is, of any message. 0,
    or -status.
    """
    cdef Field *field
    cdef bint has_coding = False
    cdef int i
    head.framing = Framing.NO_BODY
    head.has_length = False
    head.content_length = 0
    head.close = head.keep_alive = head.upgrade = head.is_personal = False
    head.keep_alive_s = -1
    head.nominated_count = 0
    for i in range(head.known_count):
        field = &head.fields[head.known[i]]
        if field.kind == Kind.CONTENT_LENGTH:
            if head.has_length or _length(at, field.value, &head.content_length) < 0:
                return -400
            head.has_length = True
            head.framing = Framing.LENGTH
        elif field.kind == Kind.TRANSFER_ENCODING:
            if has_coding or head.minor == 0:
                return -400
            if not equals(at, field.value, b"chunked", 7):
                return -501
            has_coding = True
        elif field.kind == Kind.CONNECTION:
            if _connection(at, field.value, head) < 0:
                return -400
        elif field.kind == Kind.KEEP_ALIVE:
            head.keep_alive_s = _keep_alive_s(at, field.value)
        elif field.kind == Kind.AUTHENTICATE or field.kind == Kind.AUTHORIZATION:
            head.is_personal |= _is_personal(at, field.value, field.kind == Kind.AUTHENTICATE)
    if has_coding:
        if head.has_length:
            return -400
        head.framing = Framing.CHUNKED
    return 0


# ----------------------------------------------------------------------------------------- requests

cdef Method _method(const uint8_t *at, Span name) noexcept nogil:
    """Methods are case-sensitive (RFC 9110, 9.1)."""
    cdef const uint8_t *m = at + name.at
    if name.size == 3:
        if memcmp(m, b"GET", 3) == 0:
            return Method.GET
        if memcmp(m, b"PUT", 3) == 0:
            return Method.PUT
    elif name.size == 4:
        if memcmp(m, b"POST", 4) == 0:
            return Method.POST
        if memcmp(m, b"HEAD", 4) == 0:
            return Method.HEAD
    elif name.size == 5:
        if memcmp(m, b"PATCH", 5) == 0:
            return Method.PATCH
        if memcmp(m, b"TRACE", 5) == 0:
            return Method.TRACE
    elif name.size == 6:
        if memcmp(m, b"DELETE", 6) == 0:
            return Method.DELETE
    elif name.size == 7:
        if memcmp(m, b"OPTIONS", 7) == 0:
            return Method.OPTIONS
        if memcmp(m, b"CONNECT", 7) == 0:
            return Method.CONNECT
    return Method.OTHER_METHOD


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
        while i < end and IN_HOST[at[i]]:
            i += 1
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
        while i + digits < end and digits < 5 and HEX[at[i + digits]] != 0xFF:
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


cdef int _absolute_form(const uint8_t *at, Head *head) noexcept nogil:
    """http://authority/path?query: the authority replaces Host (RFC 9112, 3.2.2), the rest goes on.
    0, or -400.
    """
    cdef uint32_t end = head.target.at + head.target.size
    cdef uint32_t i = head.target.at
    cdef Span scheme
    while i < end and at[i] != c':':
        i += 1
    scheme = Span(head.target.at, i - head.target.at)
    if not equals(at, scheme, b"http", 4) and not equals(at, scheme, b"https", 5):
        return -400
    if end - i < 3 or at[i + 1] != c'/' or at[i + 2] != c'/':
        return -400
    i += 3
    head.host.at = i
    while i < end and at[i] != c'/' and at[i] != c'?':
        i += 1
    head.host.size = i - head.host.at
    if not read_host(at, &head.host):
        return -400
    head.target = Span(i, end - i)
    head.target_is_bare = i == end or at[i] == c'?'
    head.target_is_star = i == end and head.method == Method.OPTIONS        # RFC 9112, 3.2.4
    return 0


cdef int _target(const uint8_t *at, Head *head) noexcept nogil:
    """Which form the target has, and its path. 0, or -status."""
    cdef uint32_t i
    head.target_is_bare = head.target_is_star = False
    head.host = Span(0, 0)
    if at[head.target.at] == c'*':
        if head.target.size != 1 or head.method != Method.OPTIONS:
            return -400
    elif at[head.target.at] != c'/' and _absolute_form(at, head) < 0:
        return -400
    head.path = Span(head.target.at, 0)
    for i in range(head.target.at, head.target.at + head.target.size):
        if at[i] == c'?':
            break
        head.path.size += 1
        if at[i] == c'%' and head.target.at + head.target.size - i >= 3 and at[i + 1] == c'0' and at[i + 2] == c'0':
            return -400
    return 0


cdef bint take_target(const uint8_t *at, Span target, Span method, Head *head) noexcept nogil:
    """Put a request into the head that is described elsewhere: its target, a path with or without a
    query, and its method.

    The Host stays what it was. False: they are none, and the head is spoilt.
    """
    cdef Span host = head.host
    if target.size == 0 or target.size > TARGET_BYTES_MAX or at[target.at] != c'/' or not 0 < method.size <= METHOD_BYTES_MAX \
            or _past(IN_TARGET, at + target.at, at + target.at + target.size) != at + target.at + target.size \
            or _past(TOKEN, at + method.at, at + method.at + method.size) != at + method.at + method.size:
        return False
    head.target = target
    head.method_name = method
    head.method = _method(at, method)
    if _target(at, head) < 0:
        return False
    head.host = host
    return True


cdef int _request_line(const uint8_t *at, uint32_t size, uint32_t start, Head *head) noexcept nogil:
    """The offset after its CRLF, INCOMPLETE, or -status."""
    cdef uint32_t i = start
    i = <uint32_t>(_past(TOKEN, at + start, at + size) - at)
    if i - start > METHOD_BYTES_MAX:
        return -400
    if i == size:
        return INCOMPLETE
    if at[i] != c' ' or i == start:
        return -400
    head.method_name = Span(start, i - start)
    i += 1
    head.target.at = i
    i = <uint32_t>(_past(IN_TARGET, at + i, at + size) - at)
    head.target.size = i - head.target.at
    if head.target.size > TARGET_BYTES_MAX:
        return -414
    if i == size:
        return INCOMPLETE
    if at[i] != c' ' or head.target.size == 0:
        return -400
    i += 1
    return _version_and_end(at, size, i, head)


cdef int _version_and_end(const uint8_t *at, uint32_t size, uint32_t i, Head *head) noexcept nogil:
    cdef const char *wanted = b"HTTP/1."
    cdef uint32_t k
    for k in range(7):
        if i + k == size:
            return INCOMPLETE
        if at[i + k] != <uint8_t>wanted[k]:
            return -505 if k == 5 and c'2' <= at[i + k] <= c'9' else -400
    if size - i < 8:
        return INCOMPLETE
    if not c'0' <= at[i + 7] <= c'9':
        return -400
    if at[i + 7] > c'1':
        return -505
    head.minor = at[i + 7] - c'0'
    if size - i < 10:
        return INCOMPLETE if size - i == 8 or at[i + 8] == c'\r' else -400
    if at[i + 8] != c'\r' or at[i + 9] != c'\n':
        return -400
    return <int>(i + 10)


cdef bint asks_head(const uint8_t *at, uint32_t size) noexcept nogil:
    """Whether what may be no request asks for a head all the same: then it is answered without
    content (RFC 9110, 9.3.2).
    """
    cdef uint32_t start = 0
    while size - start >= 2 and start < 2 * LEADING_CRLF_MAX and at[start] == c'\r' and at[start + 1] == c'\n':
        start += 2
    return size - start >= 5 and memcmp(at + start, b"HEAD ", 5) == 0


cdef int parse_request(Names names, const uint8_t *at, uint32_t size, Head *head) noexcept nogil:
    """A request head (RFC 9112, 3). Its size, INCOMPLETE, or -status."""
    cdef uint32_t start = 0
    cdef int after
    cdef int refused
    while size - start >= 2 and start < 2 * LEADING_CRLF_MAX and at[start] == c'\r' and at[start + 1] == c'\n':
        start += 2
    if start == size or size - start == 1 and at[start] == c'\r' and start < 2 * LEADING_CRLF_MAX:
        return INCOMPLETE
    after = _request_line(at, size, start, head)
    if after <= 0:
        return after
    after = _fields(names, at, size, <uint32_t>after, head)
    if after <= 0:
        return after
    head.size = <uint32_t>after
    head.method = _method(at, head.method_name)
    if head.method == Method.CONNECT or head.method == Method.TRACE:
        return -405
    refused = _target(at, head)
    if refused == 0:
        refused = _framing(at, head)
    if refused == 0:
        refused = _request_fields(at, head)
    return refused if refused else after


cdef int _request_fields(const uint8_t *at, Head *head) noexcept nogil:
    """Host, Expect and Upgrade. 0, or -status."""
    cdef Field *field
    cdef Span host
    cdef int hosts = 0
    cdef int expectations = 0
    cdef int websocket_keys = 0
    cdef int upgrades = 0
    cdef int i
    head.expect_continue = False
    head.upgrade_to = Span(0, 0)
    for i in range(head.known_count):
        field = &head.fields[head.known[i]]
        if field.kind == Kind.HOST:
            hosts += 1
            host = field.value
            if not read_host(at, &host):
                return -400
            if head.host.size == 0:
                head.host = host
        elif field.kind == Kind.EXPECT:
            expectations += 1
            if not equals(at, field.value, b"100-continue", 12) or expectations > 1:
                return -417
            head.expect_continue = head.minor == 1
        elif field.kind == Kind.WEBSOCKET_KEY:
            websocket_keys += 1
        elif field.kind == Kind.UPGRADE:
            if not equals(at, head.upgrade_to, b"websocket", 9):
                head.upgrade_to = field.value
            upgrades += 1
    if hosts != 1 and (hosts or head.minor):        # HTTP/1.0 does without
        return -400
    if not head.upgrade or not _is_protocol(at, head.upgrade_to):
        head.upgrade_to.size = 0
    head.websocket = equals(at, head.upgrade_to, b"websocket", 9)
    if upgrades > 1 and not head.websocket:
        head.upgrade_to.size = 0                    # a choice of several, and none that we know
    if head.websocket and (
        websocket_keys != 1 or head.method != Method.GET or head.minor != 1 or head.framing != Framing.NO_BODY
    ):
        return -400
    return 0


cdef bint _is_protocol(const uint8_t *at, Span name) noexcept nogil:
    """One token, perhaps with a version (RFC 9110, 7.8)."""
    cdef uint32_t i
    cdef int slashes = 0
    for i in range(name.at, name.at + name.size):
        if at[i] == c'/':
            slashes += 1
        elif not TOKEN[at[i]]:
            return False
    return slashes <= 1


# ---------------------------------------------------------------------------------------- responses

cdef int _start_of_status_line(const uint8_t *at, uint32_t size) noexcept nogil:
    """Of 7 to 12 bytes that begin with `HTTP/1.`, whether they could become a status line:
    INCOMPLETE, or -502.
    """
    cdef uint32_t i
    if size > 7 and not c'0' <= at[7] <= c'1' or size > 8 and at[8] != c' ' or size > 9 and at[9] == c'0':
        return -502
    for i in range(9, size):
        if not c'0' <= at[i] <= c'9':
            return -502
    return INCOMPLETE


cdef int parse_response(Names names, const uint8_t *at, uint32_t size, Method asked, Head *head) noexcept nogil:
    """A response head (RFC 9112, 4) to a request with the method `asked`. Its size, INCOMPLETE, or
    -502.
    """
    cdef const char *wanted = b"HTTP/1."
    cdef uint32_t i
    cdef int after
    for i in range(7):
        if i == size:
            return INCOMPLETE
        if at[i] != <uint8_t>wanted[i]:
            return -502
    if size < 13:
        return _start_of_status_line(at, size)      # "HTTP/1.1 200" and one more
    if not c'0' <= at[7] <= c'1' or at[8] != c' ':
        return -502
    head.minor = at[7] - c'0'
    for i in range(9, 12):
        if not c'0' <= at[i] <= c'9':
            return -502
    head.status = (at[9] - c'0') * 100 + (at[10] - c'0') * 10 + (at[11] - c'0')
    if head.status < 100 or (at[12] != c' ' and at[12] != c'\r'):
        return -502
    i = 13 if at[12] == c' ' else 12
    head.reason.at = i
    i = <uint32_t>(_past(IN_VALUE, at + i, at + size) - at)
    head.reason.size = i - head.reason.at
    if size - i < 2:
        return INCOMPLETE if i == size or at[i] == c'\r' else -502
    if at[i] != c'\r' or at[i + 1] != c'\n':
        return -502
    after = _fields(names, at, size, i + 2, head)
    if after <= 0:
        return after if after == INCOMPLETE else -502
    head.size = <uint32_t>after
    if _framing(at, head) < 0:
        return -502
    if asked == Method.HEAD or head.status < 200 or head.status == 204 or head.status == 304:
        head.framing = Framing.NO_BODY
    elif head.framing == Framing.NO_BODY:
        head.framing = Framing.UNTIL_CLOSE
    return after


cdef const char *fault_of(Names names, const uint8_t *at, uint32_t size, Method asked, Head *head) noexcept nogil:
    """Why `parse_response` refuses a head, in words for an operator."""
    head.field_count = -1
    head.size = 0
    if parse_response(names, at, size, asked, head) >= 0:
        return b"its head does not end"
    if head.field_count < 0:
        return b"no status line"
    if head.field_count == FIELDS_MAX:
        return b"too many fields"
    if head.size == 0:
        return b"a line that is no field"
    return b"Content-Length, Transfer-Encoding or Connection that can be read in two ways"


# ------------------------------------------------------------------------------------------ cookies

cdef bint sets_cookie(const uint8_t *at, Span value, const uint8_t *name, uint32_t name_size) noexcept nogil:
    """Whether a browser that reads this Set-Cookie sends a cookie of that name afterwards (RFC
    6265bis, 5.6 and 5.7.3).

    White space around the name goes. Without a name (`=ticket=x`) it is sent as its value alone,
    which then reads as name and value.
    """
    cdef uint32_t end = value.at + value.size
    cdef uint32_t i = value.at
    cdef uint32_t stop
    cdef const uint8_t *semicolon = <const uint8_t *>memchr(at + i, c';', end - i)
    if semicolon != NULL:
        end = <uint32_t>(semicolon - at)
    while i < end and (at[i] == c' ' or at[i] == c'\t'):
        i += 1
    if i < end and at[i] == c'=':
        i += 1
        while i < end and (at[i] == c' ' or at[i] == c'\t'):
            i += 1
    stop = i
    while stop < end and at[stop] != c'=':
        stop += 1
    if stop == end:
        return False
    while stop > i and (at[stop - 1] == c' ' or at[stop - 1] == c'\t'):
        stop -= 1
    return stop - i == name_size and memcmp(at + i, name, name_size) == 0


cdef int find_cookie(const uint8_t *at, Span value, const uint8_t *name, uint32_t name_size, Span *found) noexcept nogil:
    """How many cookies of that name a Cookie field holds (RFC 6265, 4.2.1), but for empty ones;
    `found` is the last one's value.
    """
    cdef const uint8_t *start = at + value.at
    cdef const uint8_t *end = start + value.size
    cdef const uint8_t *stop
    cdef const uint8_t *last
    cdef const uint8_t *semicolon
    cdef int count = 0
    while start < end:
        while start < end and separates(start[0]):
            start += 1
        semicolon = <const uint8_t *>memchr(start, c';', end - start)
        stop = semicolon if semicolon != NULL else end
        if stop - start > name_size and start[name_size] == c'=' and memcmp(start, name, name_size) == 0:
            last = stop
            while last - start > name_size + 1 and ((last - 1)[0] == c' ' or (last - 1)[0] == c'\t'):
                last -= 1
            if last - start > name_size + 1:
                count += 1
                found.at = <uint32_t>(start - at) + name_size + 1
                found.size = <uint32_t>(last - at) - found.at
        start = stop
    return count


# ------------------------------------------------------------------------------------- chunked body

cdef enum ChunkState:
    SIZE_FIRST = 0              # a chunk must begin here
    SIZE
    BLANK                       # between the size and an extension, which must come
    EXTENSION
    QUOTED
    QUOTED_PAIR
    SIZE_LF
    DATA
    DATA_CR
    DATA_LF
    LINE_START                  # of a trailer, or the empty line
    TRAILER_NAME
    TRAILER_VALUE
    TRAILER_LF
    END_LF
    DONE


cdef int dechunk(Chunks *chunks, uint8_t *at, uint32_t size, uint32_t *consumed, uint32_t *produced) noexcept nogil:
    """Read a chunked body (RFC 9112, 7.1) in place: `at[0:produced]` is its data. 1: it is
    complete; 0: more is to come; -400.

    Extensions and trailers are read, bounded, and dropped. Start with a zeroed `Chunks`.
    """
    cdef uint32_t i = 0
    cdef uint32_t out = 0
    cdef uint32_t n
    cdef uint8_t c
    while i < size and chunks.state != ChunkState.DONE:
        if chunks.state == ChunkState.DATA:
            n = <uint32_t>min(<uint64_t>(size - i), chunks.left)
            if out != i:
                _move(at + out, at + i, n)
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


cdef extern from "<string.h>" nogil:
    void *_move "memmove"(void *to, const void *source, size_t size)


cdef int _chunk_step(Chunks *chunks, uint8_t c) noexcept nogil:
    """One byte of framing. 0, or -400."""
    cdef int state = chunks.state
    chunks.line_bytes += 1
    if state == ChunkState.SIZE_FIRST or state == ChunkState.SIZE:
        if HEX[c] != 0xFF:
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
    """One byte of chunk-ext (RFC 9112, 7.1.1), with white space where that has it: around `;` and
    `=`. What is between them matters to nobody. The line ends at the first CR, in quotes or not,
    whoever reads it.
    """
    cdef int state = chunks.state
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
    cdef int state = chunks.state
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

cdef bytes _slice(const uint8_t *at, Span span):
    return (<const char *>at)[span.at:span.at + span.size]


cdef dict _common(const uint8_t *at, const Head *head):
    return {
        "size": head.size,
        "minor": head.minor,
        "framing": ("none", "length", "chunked", "close")[<int>head.framing],
        "content_length": head.content_length if head.has_length else None,
        "close": bool(head.close),
        "keep_alive": bool(head.keep_alive),
        "fields": [
            (_slice(at, head.fields[i].name), _slice(at, head.fields[i].value), <int>head.fields[i].kind)
            for i in range(head.field_count)
        ],
        "nominated": [_slice(at, head.nominated[i]) for i in range(head.nominated_count)],
    }


def request_head(const uint8_t[::1] data not None, Names names=None):
    cdef Head head
    cdef int result
    if names is None:
        names = Names()
    if data.shape[0] == 0:
        return 0
    result = parse_request(names, &data[0], <uint32_t>data.shape[0], &head)
    if result <= 0:
        return result
    prefix = b"*" if head.target_is_star else b"/" if head.target_is_bare else b""
    return {
        **_common(&data[0], &head),
        "method": _slice(&data[0], head.method_name),
        "target": prefix + _slice(&data[0], head.target),
        "path": prefix + _slice(&data[0], head.path),
        "host": (<const char *>host_at(&data[0], &head))[:host_size(&head)],
        "expect_continue": bool(head.expect_continue),
        "websocket": bool(head.websocket),
        "upgrade_to": _slice(&data[0], head.upgrade_to),
    }


def response_head(const uint8_t[::1] data not None, bint to_head=False, Names names=None):
    cdef Head head
    cdef int result
    if names is None:
        names = Names()
    if data.shape[0] == 0:
        return 0
    result = parse_response(names, &data[0], <uint32_t>data.shape[0], Method.HEAD if to_head else Method.GET, &head)
    if result <= 0:
        return result
    return {**_common(&data[0], &head), "status": head.status, "reason": _slice(&data[0], head.reason)}


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


def cookies_named(bytes value not None, bytes name not None):
    cdef Span found = Span(0, 0)
    cdef int count = find_cookie(
        <const uint8_t *><const char *>value, Span(0, <uint32_t>len(value)),
        <const uint8_t *><const char *>name, <uint32_t>len(name), &found)
    return count, value[found.at:found.at + found.size]


def without_cookies(bytes value not None, bytes name not None):
    cdef Span found = Span(0, 0)
    cdef Span cut
    while find_cookie(
        <const uint8_t *><const char *>value, Span(0, <uint32_t>len(value)),
        <const uint8_t *><const char *>name, <uint32_t>len(name), &found,
    ):
        cut = cookie_in(<const uint8_t *><const char *>value, Span(0, <uint32_t>len(value)), <uint32_t>len(name), found)
        value = value[:cut.at] + value[cut.at + cut.size:]
    return value


def gives_cookie(bytes value not None, bytes name not None):
    return sets_cookie(
        <const uint8_t *><const char *>value, Span(0, <uint32_t>len(value)),
        <const uint8_t *><const char *>name, <uint32_t>len(name))
