from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FIELDS_MAX = 512
    NOMINATED_MAX = 8
    NAME_BYTES_MAX = 47         # of a name that we know
    NAME_TABLE = 128
    TARGET_BYTES_MAX = 65536
    INCOMPLETE = 0              # what a parse returns, besides the size of the head and -status


cdef enum Kind:
    OTHER = 0
    DROP                        # a known name in an odd spelling
    HOST
    CONTENT_LENGTH
    TRANSFER_ENCODING
    CONNECTION
    HOP
    UPGRADE
    EXPECT
    COOKIE
    AUTHORIZATION
    ACCEPT
    WEBSOCKET_KEY
    FORWARDED                   # what only a trusted proxy may say
    FORWARDED_FOR
    FORWARDED_PROTO
    FORWARDED_HOST
    IDENTITY
    TICKET_LOGIN
    TICKET_LOGOUT
    TICKET_REMEMBER
    TICKET_ROTATE
    FORWARDED_ELEMENT           # Forwarded, of RFC 7239
    REQUEST_ID
    NO_USE                      # a client says that the request is no use of its session
    LIFETIME                    # asks how long its session still lives; and the answer
    KEEP_ALIVE                  # hop-by-hop, too
    AUTHENTICATE                # WWW-Authenticate
    SET_COOKIE


cdef enum Framing:
    NO_BODY = 0
    LENGTH
    CHUNKED
    UNTIL_CLOSE


cdef enum Method:
    OTHER_METHOD = 0
    GET
    HEAD
    POST
    PUT
    DELETE
    OPTIONS
    PATCH
    CONNECT
    TRACE


cdef struct Span:
    uint32_t at
    uint32_t size


cdef struct Field:
    Span name
    Span value                  # without outer white space
    Kind kind


cdef struct Head:
    uint32_t size               # up to and with the empty line
    uint8_t minor               # HTTP/1.minor
    Framing framing
    bint has_length
    uint64_t content_length
    bint close                  # Connection options
    bint keep_alive
    bint upgrade
    bint is_personal            # speaks of NTLM or Negotiate, which make the connection somebody's
    int keep_alive_s            # Keep-Alive: timeout=; -1: it says none
    int nominated_count         # field names that Connection makes hop-by-hop
    Span[NOMINATED_MAX] nominated
    int field_count
    Field[FIELDS_MAX] fields
    int known_count             # of those that mean something to us, where they are
    uint16_t[FIELDS_MAX] known
    # requests
    Method method
    Span method_name
    Span target                 # as it goes on: origin-form, or "*"
    Span path                   # of the target, without the query
    bint target_is_bare         # absolute-form without a path: "/" goes before the target
    bint target_is_star         # and without a query, to OPTIONS: "*" does
    Span host                   # nothing: HTTP/1.0 without one; `host_at` and `host_size` say what it counts as
    bint expect_continue
    Span upgrade_to             # the one protocol that the client offers to change to, or nothing
    bint websocket              # it is that
    # responses
    int status
    Span reason


cdef struct Name:
    uint8_t size
    uint8_t kind
    uint8_t[NAME_BYTES_MAX + 1] text


cdef class Names:
    cdef Name[NAME_TABLE] table
    cdef int count
    cdef Kind kind_of(self, const uint8_t *name, uint32_t size) noexcept nogil


cdef struct Chunks:
    int state
    bint is_blank               # in an extension: white space has come since anything else
    bint may_begin              # and before it stood ";" or "="
    uint32_t line_bytes         # of the size line or of the trailers so far
    uint32_t extension_bytes    # of all of them; the caller says how many are too many
    uint64_t left               # of the chunk


cdef enum:
    NO_HOST_BYTES = 9

cdef inline const uint8_t *host_at(const uint8_t *at, const Head *head) noexcept nogil:
    """The host of a request. HTTP/1.0 need not say one: that is routed, logged and forwarded as if
    it had said this one.
    """
    return at + head.host.at if head.host.size else <const uint8_t *>b"localhost"


cdef inline uint32_t host_size(const Head *head) noexcept nogil:
    return head.host.size if head.host.size else <uint32_t>NO_HOST_BYTES


cdef int parse_request(Names names, const uint8_t *at, uint32_t size, Head *head) noexcept nogil
cdef bint asks_head(const uint8_t *at, uint32_t size) noexcept nogil
cdef int parse_response(Names names, const uint8_t *at, uint32_t size, Method asked, Head *head) noexcept nogil
cdef bint is_nominated(const uint8_t *at, const Head *head, const Field *field) noexcept nogil
cdef bint reads_as(const uint8_t *name, uint32_t name_size, const uint8_t *other, uint32_t other_size) noexcept nogil
cdef bint equals(const uint8_t *at, Span span, const char *lower, uint32_t size) noexcept nogil
cdef const char *fault_of(Names names, const uint8_t *at, uint32_t size, Method asked, Head *head) noexcept nogil
cdef bint sets_cookie(const uint8_t *at, Span value, const uint8_t *name, uint32_t name_size) noexcept nogil
cdef int find_cookie(const uint8_t *at, Span value, const uint8_t *name, uint32_t name_size, Span *found) noexcept nogil
cdef bint read_host(const uint8_t *at, Span *host) noexcept nogil
cdef bint take_target(const uint8_t *at, Span target, Span method, Head *head) noexcept nogil
cdef int dechunk(Chunks *chunks, uint8_t *at, uint32_t size, uint32_t *consumed, uint32_t *produced) noexcept nogil


cdef inline bint separates(uint8_t c) noexcept nogil:
    """Whether it stands between cookies."""
    return c == c';' or c == c' ' or c == c'\t'


cdef inline Span cookie_in(const uint8_t *at, Span value, uint32_t name_size, Span found) noexcept nogil:
    """What to take out of a Cookie field for one cookie to be gone, by the size of its name and
    where its value is.

    What separated it goes with it, the others stay as they are, byte for byte. If there are none,
    no separator stays either.
    """
    cdef uint32_t start = found.at - name_size - 1
    cdef uint32_t end = found.at + found.size
    cdef uint32_t stop = value.at + value.size
    while end < stop and separates(at[end]):
        end += 1
    while end == stop and start > value.at and separates(at[start - 1]):
        start -= 1
    return Span(start, end - start)
