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
    Span host
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
    bint quoted
    uint32_t line_bytes         # of the size line or of the trailers so far
    uint32_t extension_bytes    # of all of them; the caller says how many are too many
    uint64_t left               # of the chunk


cdef int parse_request(Names names, const uint8_t *at, uint32_t size, Head *head) noexcept nogil
cdef int parse_response(Names names, const uint8_t *at, uint32_t size, Method asked, Head *head) noexcept nogil
cdef bint is_nominated(const uint8_t *at, const Head *head, const Field *field) noexcept nogil
cdef bint reads_as(const uint8_t *name, uint32_t name_size, const uint8_t *other, uint32_t other_size) noexcept nogil
cdef bint equals(const uint8_t *at, Span span, const char *lower, uint32_t size) noexcept nogil
cdef const char *fault_of(Names names, const uint8_t *at, uint32_t size, Method asked, Head *head) noexcept nogil
cdef bint sets_cookie(const uint8_t *at, Span value, const uint8_t *name, uint32_t name_size) noexcept nogil
cdef int find_cookie(const uint8_t *at, Span value, const uint8_t *name, uint32_t name_size, Span *found) noexcept nogil
cdef int dechunk(Chunks *chunks, uint8_t *at, uint32_t size, uint32_t *consumed, uint32_t *produced) noexcept nogil
cdef bint is_normal(const uint8_t *path, uint32_t size) noexcept nogil
cdef int normal_path(const uint8_t *path, uint32_t size, uint8_t *out) noexcept nogil
