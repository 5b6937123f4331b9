# Wire format 1 as C sees it: sizes, offsets, and the fields of a raw (decoded) ticket whose shape
# has been checked. docs/reference/ticket-format.md is the specification.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    FORMAT = 1
    KEY_ID_AT = 1
    SESSION_ID_AT = 2
    SESSION_ID_BYTES = 16
    SESSION_ID_CHARS = 22
    PRINCIPAL_LENGTH_AT = 32
    PRINCIPAL_AT = 33
    PRINCIPAL_BYTES_MAX = 190
    TAG_BYTES = 32
    RAW_BYTES_MIN = 66
    RAW_BYTES_MAX = 255
    RAW_BUFFER_BYTES = 256      # the room that `decode` needs
    TEXT_CHARS_MIN = 88
    TEXT_CHARS_MAX = 340


cdef extern from "<endian.h>" nogil:
    uint64_t be64toh(uint64_t word)


cdef inline uint64_t octets_at(const uint8_t *at) noexcept nogil:
    """Eight octets as a number, the first one highest."""
    cdef uint64_t word
    memcpy(&word, at, sizeof(word))
    return be64toh(word)


# Fields of a well-formed raw ticket; `decode` has checked the shape.

cdef inline uint8_t raw_key_id(const uint8_t *raw) noexcept nogil:
    return raw[KEY_ID_AT]

cdef inline int64_t raw_issued_at_ms(const uint8_t *raw) noexcept nogil:
    return <int64_t>(octets_at(raw + 16) << 16 >> 16)       # six octets, from 18 on

cdef inline uint32_t raw_idle_timeout_s(const uint8_t *raw) noexcept nogil:
    return <uint32_t>(octets_at(raw + 24) >> 32)

cdef inline uint32_t raw_absolute_lifetime_s(const uint8_t *raw) noexcept nogil:
    return <uint32_t>octets_at(raw + 24)                        # the latter four of eight

cdef inline int64_t never_ms() noexcept nogil:
    """The deadline of a session without one: past every timestamp of the format, and exact as a
    Redis score, which is a double.
    """
    return (<int64_t>1 << 53) - 1

cdef inline int64_t raw_absolute_deadline_ms(const uint8_t *raw) noexcept nogil:
    """Store time, ms."""
    cdef uint32_t lifetime_s = raw_absolute_lifetime_s(raw)
    return raw_issued_at_ms(raw) + <int64_t>lifetime_s * 1000 if lifetime_s else never_ms()

cdef inline int64_t idle_deadline_after_ms(
    uint32_t timeout_s, int64_t absolute_ms, int64_t used_at_ms, int64_t slack_ms
) noexcept nogil:
    """The idle deadline after a use: `slack_ms` later than the timeout says, and never past the
    absolute deadline. Store time, ms.
    """
    cdef int64_t deadline_ms = used_at_ms + <int64_t>timeout_s * 1000 + slack_ms
    if timeout_s == 0 or deadline_ms > absolute_ms:
        return absolute_ms
    return deadline_ms

cdef inline int64_t raw_idle_deadline_ms(const uint8_t *raw, int64_t used_at_ms, int64_t slack_ms) noexcept nogil:
    return idle_deadline_after_ms(raw_idle_timeout_s(raw), raw_absolute_deadline_ms(raw), used_at_ms, slack_ms)
