# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Message heads of HTTP/1.1 (RFC 9112), sans-I/O: start line, fields, and how the body is framed.

Rules of this file
- Strict: what two readers could understand in two ways is refused, never repaired. No bare LF, no
  folding, no space before a colon, one Host, one Content-Length, no Content-Length beside
  Transfer-Encoding, no coding but `chunked`. docs/reference/http.md lists what is accepted although
  some servers refuse it: every reader sees its end at the same octet, and it is forwarded in the
  plain form.
- A parse returns the size of the head, INCOMPLETE, or the negated status to answer with. Positions
  are offsets into the buffer.
- A parse starts anew each time. The caller calls it only when a CR or LF has come, so a slow sender
  can make it run twice a line at most.
"""

from libc.string cimport memchr, memcmp

from fastticket.core.compiler cimport __builtin_ctzll, is_rare
from fastticket.dataplane.fieldnames cimport NAME_BYTES_MAX, find_kind, find_kind_by_words, is_odd, reads_as
from fastticket.dataplane.hosts cimport read_host, split_absolute
from fastticket.dataplane.octets cimport INCOMPLETE, equals, fill_targets, fill_tokens, fill_values, little_endian, past

cdef enum:
    METHOD_BYTES_MAX = 32
    LEADING_CRLF_MAX = 2        # some old clients send one after a body; two are still harmless
    KEEP_ALIVE_S_MAX = 86400

cdef uint8_t[256] TOKEN
cdef uint8_t[256] IN_VALUE
cdef uint8_t[256] IN_TARGET

fill_tokens(TOKEN)
fill_values(IN_VALUE)
fill_targets(IN_TARGET)


# -------------------------------------------------------------- fields, of requests and responses

cdef inline bint _reads_as(const uint8_t *at, Span name, const char *other, uint32_t size) noexcept nogil:
    return reads_as(at + name.at, name.size, <const uint8_t *>other, size)


cdef bint is_nominated(const uint8_t *at, const Head *head, const Field *field) noexcept nogil:
    """Whether Connection nominates a field, which makes it hop-by-hop. Names are compared by normal
    spelling.
    """
    cdef int n
    for n in range(head.nominated_count):
        if reads_as(at + head.nominated[n].at, head.nominated[n].size, at + field.name.at, field.name.size):
            return True
    return False


cdef inline uint64_t _controls(const uint8_t *at) noexcept nogil:
    """Find the first control character, HTAB and DEL included, in 8 octets: the lowest bit set in
    the result is its octet's top bit. 0: there is none.

    Higher bits mean nothing: a subtraction borrows from the next octet only where it has found a
    control character.
    """
    cdef uint64_t word = little_endian(at)
    cdef uint64_t low = word - 0x2020202020202020ULL
    cdef uint64_t after_del = (word & 0x7F7F7F7F7F7F7F7FULL) + 0x0101010101010101ULL
    return (low | after_del) & ~word & 0x8080808080808080ULL


cdef inline uint64_t _no_letters(const uint8_t *at) noexcept nogil:
    """Find the first octet of 8 that is neither letter nor `-`, as `_controls` does.

    Higher bits mean nothing: an addition carries into the next octet only from one above 0x7F.
    """
    cdef uint64_t word = little_endian(at)
    cdef uint64_t lower_case = word | 0x2020202020202020ULL
    cdef uint64_t from_a = lower_case + 0x1F1F1F1F1F1F1F1FULL         # top bit: not less than `a`
    cdef uint64_t after_z = lower_case + 0x0505050505050505ULL        # top bit: more than `z`
    cdef uint64_t no_dash = (word ^ 0x2D2D2D2D2D2D2D2DULL) + 0x7F7F7F7F7F7F7F7FULL
    return ((~from_a | after_z) & no_dash | word) & 0x8080808080808080ULL


cdef inline const uint8_t *_past_letters(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """The first octet from `at` on that is neither letter nor `-`; or one before it, fewer than 8
    from `end`.
    """
    cdef uint64_t found
    while end - at >= 8:
        found = _no_letters(at)
        if found:
            return at + (__builtin_ctzll(found) >> 3)
        at += 8
    return at


cdef inline const uint8_t *_past_value(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """The first octet from `at` on that cannot be in a value (RFC 9110, 5.5), or `end`."""
    cdef uint64_t controls
    while end - at >= 8:
        controls = _controls(at)
        if controls == 0:
            at += 8
            continue
        at += __builtin_ctzll(controls) >> 3
        if at[0] != c'\t':
            return at
        at += 1
    while at != end and IN_VALUE[at[0]]:
        at += 1
    return at


cdef inline bint _is_blank(uint8_t c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef int _odd_name(Names names, const uint8_t *at, const uint8_t *end, Kind *kind) noexcept nogil:
    """Read a field name octet by octet: one that may have others than letters and `-`, or whose end
    is near that of the buffer. Its size, INCOMPLETE, or -400.
    """
    cdef uint32_t size = <uint32_t>(past(TOKEN, at, end) - at)
    if at + size == end:
        return INCOMPLETE
    if at[size] != c':' or size == 0 or size > 0xFFFF:
        return -400
    kind[0] = find_kind(names, TOKEN, at, size)
    if kind[0] != Kind.OTHER and is_odd(TOKEN, at, size):
        kind[0] = Kind.DROP
    return <int>size


cdef int _fields(Names names, const uint8_t *at, uint32_t size, uint32_t start, Head *head) noexcept nogil:
    """Read the field lines from `start` on (RFC 9112, 5) and the empty line. The size of the head,
    INCOMPLETE, or -status.
    """
    cdef const uint8_t *line = at + start
    cdef const uint8_t *end = at + size
    cdef const uint8_t *colon
    cdef const uint8_t *value
    cdef const uint8_t *stop
    cdef Field *field = head.fields
    cdef uint16_t *known = head.known
    cdef bint is_as_it_goes = True
    cdef Kind kind = Kind.OTHER
    cdef int count = 0
    cdef int name_size
    head.field_count = 0
    while True:
        if line == end:
            return INCOMPLETE
        if line[0] == c'\r':
            if line + 1 == end:
                return INCOMPLETE
            head.field_count = count
            head.known_count = <int>(known - head.known)
            head.is_as_it_goes = is_as_it_goes
            return <int>(line + 2 - at) if line[1] == c'\n' else -400
        if count == FIELDS_MAX:
            head.field_count = count
            return -431
        colon = _past_letters(line, end)
        if end - colon >= 8 and colon[0] == c':' and 0 < colon - line <= NAME_BYTES_MAX:
            kind = find_kind_by_words(names, line, <uint32_t>(colon - line))
        else:
            name_size = _odd_name(names, line, end, &kind)
            if name_size <= 0:
                return name_size
            colon = line + name_size
        value = colon + 1
        if value != end and value[0] == c' ':
            value += 1
        else:
            is_as_it_goes = False
        while value != end and is_rare(_is_blank(value[0]), 0):
            is_as_it_goes = False
            value += 1
        stop = _past_value(value, end)
        if end - stop < 2:
            return INCOMPLETE if stop == end or stop[0] == c'\r' else -400
        if memcmp(stop, b"\r\n", 2) != 0:
            return -400
        field.name = Span(<uint32_t>(line - at), <uint32_t>(colon - line))
        line = stop + 2
        while is_rare(stop != value and _is_blank((stop - 1)[0]), 0):
            is_as_it_goes = False
            stop -= 1
        field.value = Span(<uint32_t>(value - at), <uint32_t>(stop - value))
        field.kind = kind
        if kind != Kind.OTHER:
            known[0] = <uint16_t>count
            known += 1
        count += 1
        field += 1


cdef int _length(const uint8_t *at, Span value, uint64_t *length) noexcept nogil:
    """Read Content-Length: 1*DIGIT (RFC 9110, 8.6), less than 2**60. 0, or -400."""
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
    """Read Connection, a list of options (RFC 9110, 7.6.1). 0, or -400."""
    cdef uint32_t end = value.at + value.size
    cdef uint32_t i = value.at
    cdef Span token
    if equals(at, value, b"keep-alive", 10):            # what nearly all say
        head.keep_alive = True
        return 0
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
            continue                        # `keep-alive; timeout=5` is no token, so no option: it says nothing
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
    """Skip parameters, `; name` or `; name=value` of tokens, once or more, from `i` on. The offset
    of the comma or end after them; 0: these are no parameters.
    """
    cdef uint32_t start
    while i < end and at[i] == c';':
        i += 1
        while i < end and (at[i] == c' ' or at[i] == c'\t'):
            i += 1
        start = i
        i = <uint32_t>(past(TOKEN, at + i, at + end) - at)
        if i == start:
            return 0
        if i < end and at[i] == c'=':
            start = i + 1
            i = <uint32_t>(past(TOKEN, at + start, at + end) - at)
            if i == start:
                return 0
        while i < end and (at[i] == c' ' or at[i] == c'\t'):
            i += 1
    return i if i == end or at[i] == c',' else 0


cdef int _keep_alive_s(const uint8_t *at, Span value) noexcept nogil:
    """The seconds that Keep-Alive has as `timeout=N`; -1: none, or more than KEEP_ALIVE_S_MAX."""
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
            while i < end and c'0' <= at[i] <= c'9' and seconds <= KEEP_ALIVE_S_MAX:
                seconds = seconds * 10 + (at[i] - c'0')
                i += 1
            return seconds if i > start and seconds <= KEEP_ALIVE_S_MAX else -1
        i += 1
    return -1


cdef bint _is_personal(const uint8_t *at, Span value, bint is_list) noexcept nogil:
    """Whether WWW-Authenticate (`is_list`) or Authorization names a scheme that authenticates the
    connection and not the request: NTLM, Negotiate (RFC 4559).

    A realm of such a name counts, too: that costs a connection, and nothing else.
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
    """Read the fields that any message may have: Content-Length, Transfer-Encoding (RFC 9112, 6),
    Connection, Keep-Alive, and authentication of the connection. 0, or -status.
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
    """A method by its name, which is case-sensitive (RFC 9110, 9.1)."""
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


cdef int _target(const uint8_t *at, Head *head) noexcept nogil:
    """Find the form of the target (RFC 9112, 3.2), the host of an absolute one, and the path. 0, or
    -400.
    """
    cdef const uint8_t *query
    head.target_is_bare = head.target_is_star = False
    head.host = Span(0, 0)
    if at[head.target.at] == c'*':
        if head.target.size != 1 or head.method != Method.OPTIONS:
            return -400
    elif at[head.target.at] != c'/':
        if not split_absolute(at, &head.target, &head.host):
            return -400
        head.target_is_bare = head.target.size == 0 or at[head.target.at] == c'?'
        head.target_is_star = head.target.size == 0 and head.method == Method.OPTIONS        # RFC 9112, 3.2.4
    query = <const uint8_t *>memchr(at + head.target.at, c'?', head.target.size)
    head.path = Span(head.target.at, head.target.size if query == NULL else <uint32_t>(query - at) - head.target.at)
    return -400 if _has_nul(at, head) else 0


cdef inline bint _has_nul(const uint8_t *at, const Head *head) noexcept nogil:
    """Whether a path has `%00`."""
    cdef const uint8_t *end = at + head.target.at + head.target.size
    cdef const uint8_t *escape = at + head.path.at
    cdef const uint8_t *stop = escape + head.path.size
    while escape != stop:
        escape = <const uint8_t *>memchr(escape, c'%', stop - escape)
        if escape == NULL:
            return False
        if end - escape >= 3 and escape[1] == c'0' and escape[2] == c'0':
            return True
        escape += 1
    return False


cdef bint take_target(const uint8_t *at, Span target, Span method, Head *head) noexcept nogil:
    """Replace a head's target and method with those of a request that is described in its fields.
    `target` is a path with or without a query. The host stays.

    False: they are no target or no method; the head is of no more use.
    """
    cdef Span host = head.host
    if target.size == 0 or target.size > TARGET_BYTES_MAX or at[target.at] != c'/' or not 0 < method.size <= METHOD_BYTES_MAX \
            or past(IN_TARGET, at + target.at, at + target.at + target.size) != at + target.at + target.size \
            or past(TOKEN, at + method.at, at + method.at + method.size) != at + method.at + method.size:
        return False
    head.target = target
    head.method_name = method
    head.method = _method(at, method)
    if _target(at, head) < 0:
        return False
    head.host = host
    return True


cdef int _request_line(const uint8_t *at, uint32_t size, uint32_t start, Head *head) noexcept nogil:
    """Read the request line at `start` (RFC 9112, 3). The offset after its CRLF, INCOMPLETE, or
    -status.
    """
    cdef uint32_t i = start
    i = <uint32_t>(past(TOKEN, at + start, at + size) - at)
    if i - start > METHOD_BYTES_MAX:
        return -400
    if i == size:
        return INCOMPLETE
    if at[i] != c' ' or i == start:
        return -400
    head.method_name = Span(start, i - start)
    i += 1
    head.target.at = i
    i = <uint32_t>(past(IN_TARGET, at + i, at + size) - at)
    head.target.size = i - head.target.at
    if head.target.size > TARGET_BYTES_MAX:
        return -414
    if i == size:
        return INCOMPLETE
    if at[i] != c' ' or head.target.size == 0:
        return -400
    return _version_and_end(at, size, i + 1, head)


cdef int _version_and_end(const uint8_t *at, uint32_t size, uint32_t i, Head *head) noexcept nogil:
    """Read `HTTP/1.minor` and CRLF at `i`. The offset after them, INCOMPLETE, or -status."""
    cdef const char *wanted = b"HTTP/1."
    cdef uint32_t k
    if size - i >= 10 and memcmp(at + i, b"HTTP/1.1\r\n", 10) == 0:
        head.minor = 1
        return <int>(i + 10)
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


cdef inline uint32_t _after_empty_lines(const uint8_t *at, uint32_t size) noexcept nogil:
    """Where the request line begins (RFC 9112, 2.2)."""
    cdef uint32_t start = 0
    while size - start >= 2 and start < 2 * LEADING_CRLF_MAX and at[start] == c'\r' and at[start + 1] == c'\n':
        start += 2
    return start


cdef bint asks_head(const uint8_t *at, uint32_t size) noexcept nogil:
    """Whether a message that may be no valid request begins with the method HEAD: the answer then
    has no content (RFC 9110, 9.3.2).
    """
    cdef uint32_t start = _after_empty_lines(at, size)
    return size - start >= 5 and memcmp(at + start, b"HEAD ", 5) == 0


cdef int parse_request(Names names, const uint8_t *at, uint32_t size, Head *head) noexcept nogil:
    """Read a request head (RFC 9112, 2 to 7). Its size, INCOMPLETE, or -status."""
    cdef uint32_t start = _after_empty_lines(at, size)
    cdef int after
    cdef int refused
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
    """Read the fields that only requests have: Host, Expect, Upgrade and the WebSocket key. 0, or
    -status.
    """
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
        head.upgrade_to.size = 0                    # a choice of several without websocket
    if head.websocket and (
        websocket_keys != 1 or head.method != Method.GET or head.minor != 1 or head.framing != Framing.NO_BODY
    ):
        return -400
    return 0


cdef bint _is_protocol(const uint8_t *at, Span name) noexcept nogil:
    """Whether a name is one protocol of Upgrade: a token, with or without a version (RFC 9110,
    7.8).
    """
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
    """Whether 7 to 12 octets that begin with `HTTP/1.` could become a status line: INCOMPLETE; else
    -502.
    """
    cdef uint32_t i
    if size > 7 and not c'0' <= at[7] <= c'1' or size > 8 and at[8] != c' ' or size > 9 and at[9] == c'0':
        return -502
    for i in range(9, size):
        if not c'0' <= at[i] <= c'9':
            return -502
    return INCOMPLETE


cdef int parse_response(Names names, const uint8_t *at, uint32_t size, Method asked, Head *head) noexcept nogil:
    """Read the head of a response (RFC 9112, 4) to a request whose method was `asked`. Its size,
    INCOMPLETE, or -502.
    """
    cdef const char *wanted = b"HTTP/1."
    cdef uint32_t i
    cdef int after
    if memcmp(at, wanted, min(size, <uint32_t>7)) != 0:
        return -502
    if size < 13:
        return _start_of_status_line(at, size) if size >= 7 else INCOMPLETE     # "HTTP/1.1 200" and one more
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
    i = <uint32_t>(_past_value(at + i, at + size) - at)
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
    """Why `parse_response` refuses a head, in words for the error log."""
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
