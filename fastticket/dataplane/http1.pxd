from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.dataplane.fieldnames cimport Kind, Names
from fastticket.dataplane.octets cimport Span

cdef enum:
    FIELDS_MAX = 512
    NOMINATED_MAX = 8
    TARGET_BYTES_MAX = 65536


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


cdef struct Field:
    Span name
    Span value                  # without outer white space
    Kind kind


cdef struct Head:
    uint32_t size               # of the head, its empty line included
    uint8_t minor               # HTTP/1.minor
    Framing framing
    bint has_length
    uint64_t content_length
    bint close                  # Connection options
    bint keep_alive
    bint upgrade
    bint is_personal            # NTLM or Negotiate: it authenticates the connection, not the request
    int keep_alive_s            # `timeout` of Keep-Alive; -1: there is none
    int nominated_count         # names of fields that Connection makes hop-by-hop
    int field_count
    int known_count             # fields of a kind that is not OTHER
    bint is_as_it_goes          # every field line came as `name: value CRLF`, which is how it is forwarded
    # requests
    Method method
    Span method_name
    Span target                 # as it is forwarded: origin-form, or "*"
    Span path                   # the target without its query
    bint target_is_bare         # it was an absolute-form without a path: "/" is put before it
    bint target_is_star         # and without a query, of OPTIONS: "*" is put before it
    Span host                   # empty in HTTP/1.0 without one; `host_at` and `host_size` have the default
    bint expect_continue
    Span upgrade_to             # the one protocol that the client offers to change to, or empty
    bint websocket              # it is "websocket"
    # responses
    int status
    Span reason
    # behind what is small: the tables
    uint16_t[FIELDS_MAX] known  # where fields of a kind that is not OTHER are in `fields`
    Field[FIELDS_MAX] fields
    Span[NOMINATED_MAX] nominated


cdef enum:
    NO_HOST_BYTES = 9

cdef inline const uint8_t *host_at(const uint8_t *at, const Head *head) noexcept nogil:
    """The host of a request; of HTTP/1.0 without one, `localhost`, by which it is routed, logged
    and forwarded.
    """
    return at + head.host.at if head.host.size else <const uint8_t *>b"localhost"


cdef inline uint32_t host_size(const Head *head) noexcept nogil:
    return head.host.size if head.host.size else <uint32_t>NO_HOST_BYTES


cdef int parse_request(Names names, const uint8_t *at, uint32_t size, Head *head) noexcept nogil
cdef bint asks_head(const uint8_t *at, uint32_t size) noexcept nogil
cdef int parse_response(Names names, const uint8_t *at, uint32_t size, Method asked, Head *head) noexcept nogil
cdef bint is_nominated(const uint8_t *at, const Head *head, const Field *field) noexcept nogil
cdef const char *fault_of(Names names, const uint8_t *at, uint32_t size, Method asked, Head *head) noexcept nogil
cdef bint take_target(const uint8_t *at, Span target, Span method, Head *head) noexcept nogil
