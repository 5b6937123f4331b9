from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.core.lock cimport Lock

cdef enum:
    METHOD_KEPT_MAX = 16
    HOST_KEPT_MAX = 100
    PATH_KEPT_MAX = 512
    REQUEST_ID_KEPT_MAX = 200
    PRINCIPAL_KEPT_MAX = 190
    NO_KEY = -1
    SESSION_CHARS = 6           # of a session id: enough to tell sessions apart, too few to name one


cdef struct Entry:
    # What is kept of a request until its line is written. Known when it begins:
    uint8_t method_size
    uint8_t host_size
    uint16_t path_size
    uint8_t request_id_size
    uint8_t[METHOD_KEPT_MAX] method
    uint8_t[HOST_KEPT_MAX] host
    uint8_t[PATH_KEPT_MAX] path
    uint8_t[REQUEST_ID_KEPT_MAX] request_id
    # of a ticket that was refused:
    int key_id                  # the key that the ticket names, or NO_KEY
    uint8_t principal_size      # 0: the ticket was not verified
    uint8_t[PRINCIPAL_KEPT_MAX] principal
    uint8_t[8] session


cdef struct Outcome:
    # What is known when a request has ended.
    int status
    uint64_t body_bytes
    int64_t duration_us
    const char *verdict
    const char *client          # an address; empty for a client on a Unix socket
    const uint8_t *principal
    int principal_size
    int key_id                  # of a ticket that was refused, or NO_KEY
    const uint8_t *session      # SESSION_CHARS of the session id, if there is a principal
    bint was_cut                # the client did not get the whole answer


cdef uint16_t keep_path(uint8_t *kept, const uint8_t *path, uint32_t size) noexcept nogil

cdef class AccessLog:
    cdef bint is_json
    cdef Lock lock
    # under it:
    cdef uint8_t *lines             # written, and not yet taken
    cdef uint32_t size              # of them
    cdef uint64_t dropped_count
    # of who takes:
    cdef uint8_t *taken
    # of who writes:
    cdef int64_t second             # the second that `second_text` says
    cdef char[24] second_text
    cdef void write(self, const Entry *entry, const Outcome *outcome, int64_t now_ms) noexcept nogil
    cdef void _write_json(self, const Entry *entry, const Outcome *outcome, int milliseconds) noexcept nogil
    cdef void _write_text(self, const Entry *entry, const Outcome *outcome, int milliseconds) noexcept nogil
    cdef void _put(self, const char *text) noexcept nogil
    cdef void _put_time(self, int milliseconds) noexcept nogil
    cdef void _put_number(self, uint64_t number) noexcept nogil
    cdef void _put_milliseconds(self, int64_t duration_us) noexcept nogil
    cdef bint _is_plain(self, uint8_t c) noexcept nogil
    cdef void _put_safe(self, const uint8_t *at, uint32_t size) noexcept nogil
    cdef void _put_key(self, const char *name, const uint8_t *at, uint32_t size) noexcept nogil
    cdef void _put_word(self, const uint8_t *at, uint32_t size) noexcept nogil
