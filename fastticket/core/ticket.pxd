from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastticket.core.lock cimport Lock
from fastticket.core.verdict cimport Verdict
from fastticket.core.wire cimport RAW_BUFFER_BYTES

cdef int decode(const uint8_t *text, Py_ssize_t chars, uint8_t *raw) noexcept nogil
cdef int encode(const uint8_t *data, int size, uint8_t *text) noexcept nogil
cdef bint ascii_text(object ticket, const uint8_t **text, Py_ssize_t *chars) except -1
cdef str session_id_text(const uint8_t *session_id)
cdef bint parse_session_id(object text, uint8_t *session_id) except -1


cdef extern from *:
    """
    #define OPENSSL_SUPPRESS_DEPRECATED
    #include <openssl/sha.h>
    """
    ctypedef struct SHA256_CTX:
        pass
    int SHA256_Init(SHA256_CTX *state) nogil
    int SHA256_Update(SHA256_CTX *state, const void *data, size_t size) nogil
    int SHA256_Final(unsigned char *out, SHA256_CTX *state) nogil


cdef struct Key:
    bint is_there
    SHA256_CTX inner            # after one block of key ^ ipad
    SHA256_CTX outer            # after one block of key ^ opad
    uint64_t uses               # good signatures verified under this key
    uint8_t[32] signing_key


cdef class Ring:
    """The prepared keys of a ring, by id; wiped when the object is freed."""
    cdef Key[256] keys
    cdef uint8_t[256] order     # the ids of those that are there: oldest first, the last one signs
    cdef int count

    cdef list ids(self)


cdef enum:
    ACCEPTED_MAX = 8            # audiences besides the own one: each costs a bad ticket one more HMAC


cdef class Keyring:
    cdef Lock lock
    cdef Ring ring
    cdef readonly str audience
    cdef readonly tuple accept_audiences
    cdef list accepted          # a Ring for each of them
    cdef Key *others[ACCEPTED_MAX]  # their keys
    cdef int others_count

    cdef uint64_t _uses_of(self, uint8_t key_id) noexcept
    cdef void _sign(self, uint8_t *raw, int body_bytes) noexcept nogil
    cdef Verdict verify_raw(self, const uint8_t *raw, int size, int64_t now_ms) noexcept nogil


cdef class Ticket:
    cdef uint8_t[RAW_BUFFER_BYTES] bytes
    cdef int size
