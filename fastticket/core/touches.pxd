from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    TOUCH_BYTES_MAX = 256       # in the packed command


cdef class Touches:
    cdef readonly object shard
    cdef readonly uint32_t count
    cdef bint is_out            # the near cache waits to hear of them
    cdef uint32_t *places       # of their entries there
    cdef uint32_t places_room
    cdef uint8_t *text
    cdef uint32_t text_size
    cdef uint32_t text_room

    cdef uint32_t settle(self) noexcept
    cdef bint make_room(self) noexcept
    cdef void add(
        self, uint32_t place, const uint8_t *session_id, const uint8_t *principal, uint8_t size, int64_t deadline_ms) noexcept
