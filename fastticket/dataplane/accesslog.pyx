# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Lines of the access log, written by the data plane into memory and fetched by the control plane,
which writes the file.

Rules of this file
- A line has no secret: no ticket, no cookie, a path without its query and without what looks like a
  ticket, and of a session id the first characters only.
- Text from outside is escaped, in JSON by its escapes and in text by %XX, so that a client cannot
  write lines or fields.
- Memory is bounded. A line for which there is no room is dropped and counted; no request waits for
  the log.
- One plane writes, and the control plane takes. The lock is held while a line is composed, and to
  exchange the buffer for an empty one.
"""

cimport cython
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strlen
from libc.time cimport gmtime_r, strftime, time_t, tm

from fastticket.core.lock cimport acquire, end_lock, make_lock, release
from fastticket.core.wire cimport TEXT_CHARS_MIN

cdef enum:
    LINES_BYTES_MAX = 4194304
    LINE_BYTES_MAX = 8192       # every byte of an entry escaped

cdef const char *HEX_DIGITS = b"0123456789ABCDEF"


cdef uint16_t keep_path(uint8_t *kept, const uint8_t *path, uint32_t size) noexcept nogil:
    """Copy what a line shows of a path: at most PATH_KEPT_MAX bytes, with `***` for what could be a
    ticket. The size of that.
    """
    cdef uint32_t i = 0
    cdef uint32_t run
    cdef uint16_t out = 0
    if size < TEXT_CHARS_MIN:
        memcpy(kept, path, size)
        return <uint16_t>size
    while i < size and out < PATH_KEPT_MAX:
        run = _ticket_chars(path + i, size - i)
        if run == 0:
            kept[out] = path[i]
            out += 1
            i += 1
            continue
        i += run
        run = min(<uint32_t>3, <uint32_t>PATH_KEPT_MAX - out)
        memcpy(kept + out, b"***", run)
        out += <uint16_t>run
    return out


cdef uint32_t _ticket_chars(const uint8_t *at, uint32_t size) noexcept nogil:
    """How many characters of base64url there are from `at` on, if they could be a ticket: enough of
    them, and a beginning like that of format 1. Else 0.
    """
    cdef uint32_t run = 0
    if size < TEXT_CHARS_MIN or at[0] != c'A' or not c'Q' <= at[1] <= c'f':
        return 0
    while run < size and (
        c'A' <= at[run] <= c'Z' or c'a' <= at[run] <= c'z' or c'0' <= at[run] <= c'9' or at[run] == c'-' or at[run] == c'_'
    ):
        run += 1
    return run if run >= TEXT_CHARS_MIN else 0


@cython.final
cdef class AccessLog:
    def __cinit__(self, bint is_json):
        self.is_json = is_json
        self.second = -1
        make_lock(&self.lock)
        self.lines = <uint8_t *>malloc(LINES_BYTES_MAX)
        self.taken = <uint8_t *>malloc(LINES_BYTES_MAX)
        if self.lines == NULL or self.taken == NULL:
            raise MemoryError("no memory for the access log")

    def __dealloc__(self):
        free(self.lines)
        free(self.taken)
        end_lock(&self.lock)

    def take(self):
        """The lines written since the last call."""
        cdef uint32_t size
        acquire(&self.lock)
        self.lines, self.taken = self.taken, self.lines
        size = self.size
        self.size = 0
        release(&self.lock)
        return (<char *>self.taken)[:size]

    @property
    def dropped(self):
        cdef uint64_t count
        acquire(&self.lock)
        count = self.dropped_count
        release(&self.lock)
        return count

    cdef void write(self, const Entry *entry, const Outcome *outcome, int64_t now_ms) noexcept nogil:
        """Write a request's line. `now_ms`: wall clock."""
        cdef tm parts
        cdef time_t second = now_ms // 1000
        if second != self.second:
            gmtime_r(&second, &parts)
            strftime(self.second_text, sizeof(self.second_text), b"%Y-%m-%dT%H:%M:%S", &parts)
            self.second = second
        acquire(&self.lock)
        if self.size + LINE_BYTES_MAX > LINES_BYTES_MAX:
            self.dropped_count += 1
        elif self.is_json:
            self._write_json(entry, outcome, <int>(now_ms % 1000))
        else:
            self._write_text(entry, outcome, <int>(now_ms % 1000))
        release(&self.lock)

    cdef void _write_json(self, const Entry *entry, const Outcome *outcome, int milliseconds) noexcept nogil:
        self._put(b"{\"time\": \"")
        self._put_time(milliseconds)
        self._put(b"\"")
        self._put_key(b"client", <const uint8_t *>outcome.client, <uint32_t>strlen(outcome.client))
        self._put_key(b"principal", outcome.principal, outcome.principal_size)
        self._put_key(b"session", outcome.session, SESSION_CHARS if outcome.principal_size else 0)
        self._put_key(b"method", entry.method, entry.method_size)
        self._put_key(b"host", entry.host, entry.host_size)
        self._put_key(b"path", entry.path, entry.path_size)
        self._put_key(b"request_id", entry.request_id, entry.request_id_size)
        self._put_key(b"verdict", <const uint8_t *>outcome.verdict, <uint32_t>strlen(outcome.verdict))
        if outcome.key_id != NO_KEY:
            self._put(b", \"key_id\": ")
            self._put_number(outcome.key_id)
        self._put(b", \"status\": ")
        self._put_number(outcome.status)
        self._put(b", \"body_bytes\": ")
        self._put_number(outcome.body_bytes)
        self._put(b", \"duration_ms\": ")
        self._put_milliseconds(outcome.duration_us)
        if outcome.was_cut:
            self._put(b", \"cut\": true")
        self._put(b"}\n")

    cdef void _write_text(self, const Entry *entry, const Outcome *outcome, int milliseconds) noexcept nogil:
        """`time client principal session verdict method host path status bytes duration
        request-id`, and perhaps `key=N` and `cut`. An empty word is `-`.
        """
        self._put_time(milliseconds)
        self._put_word(<const uint8_t *>outcome.client, <uint32_t>strlen(outcome.client))
        self._put_word(outcome.principal, outcome.principal_size)
        self._put_word(outcome.session, SESSION_CHARS if outcome.principal_size else 0)
        self._put_word(<const uint8_t *>outcome.verdict, <uint32_t>strlen(outcome.verdict))
        self._put_word(entry.method, entry.method_size)
        self._put_word(entry.host, entry.host_size)
        self._put_word(entry.path, entry.path_size)
        self._put(b" ")
        self._put_number(outcome.status)
        self._put(b" ")
        self._put_number(outcome.body_bytes)
        self._put(b" ")
        self._put_milliseconds(outcome.duration_us)
        self._put(b"ms")
        self._put_word(entry.request_id, entry.request_id_size)
        if outcome.key_id != NO_KEY:
            self._put(b" key=")
            self._put_number(outcome.key_id)
        self._put(b" cut\n" if outcome.was_cut else b"\n")

    cdef void _put(self, const char *text) noexcept nogil:
        cdef size_t size = strlen(text)
        memcpy(self.lines + self.size, text, size)
        self.size += <uint32_t>size

    cdef void _put_time(self, int milliseconds) noexcept nogil:
        """Put `second_text` and a fraction of that second."""
        cdef char[8] fraction
        snprintf(fraction, sizeof(fraction), b".%03dZ", milliseconds % 1000)
        self._put(self.second_text)
        self._put(fraction)

    cdef void _put_number(self, uint64_t number) noexcept nogil:
        cdef char[24] digits
        snprintf(digits, sizeof(digits), b"%llu", <unsigned long long>number)
        self._put(digits)

    cdef void _put_milliseconds(self, int64_t duration_us) noexcept nogil:
        cdef char[32] text
        snprintf(text, sizeof(text), b"%lld.%03d", <long long>(duration_us // 1000), <int>(duration_us % 1000))
        self._put(text)

    cdef void _put_key(self, const char *name, const uint8_t *at, uint32_t size) noexcept nogil:
        """Put a member of the JSON object, unless its value is empty."""
        if size == 0:
            return
        self._put(b", \"")
        self._put(name)
        self._put(b"\": \"")
        self._put_safe(at, size)
        self._put(b"\"")

    cdef void _put_word(self, const uint8_t *at, uint32_t size) noexcept nogil:
        self._put(b" ")
        if size:
            self._put_safe(at, size)
        else:
            self._put(b"-")

    cdef bint _is_plain(self, uint8_t c) noexcept nogil:
        """Whether an octet is written as it is. In text only ASCII is: Unicode has line ends of its
        own.
        """
        if c < 0x20 or c == c'"' or c == c'\\' or c == 0x7F:
            return False
        return self.is_json or c != 0x20 and c != c'%' and c < 0x80

    cdef void _put_safe(self, const uint8_t *at, uint32_t size) noexcept nogil:
        cdef uint32_t i
        cdef uint8_t c
        for i in range(size):
            c = at[i]
            if self._is_plain(c):
                self.lines[self.size] = c
                self.size += 1
                continue
            self._put(b"\\u00" if self.is_json else b"%")
            self.lines[self.size] = HEX_DIGITS[c >> 4]
            self.lines[self.size + 1] = HEX_DIGITS[c & 15]
            self.size += 2
