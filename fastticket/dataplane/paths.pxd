from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    EXACT = -1                  # in place of `odd_at`: every reader sees the same path


cdef bint is_normal(const uint8_t *path, uint32_t size) noexcept nogil
cdef int normal_path(const uint8_t *path, uint32_t size, uint8_t *out, int *odd_at) noexcept nogil
cdef bint stays_outside(const uint8_t *normal, uint32_t size, uint32_t odd_at, const uint8_t *route, uint32_t route_size) noexcept nogil
