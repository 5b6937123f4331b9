# Numbers that one thread writes and others read, without a lock (the builtins of GCC and clang).

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    enum:
        RELAXED "__ATOMIC_RELAXED"
        ACQUIRE "__ATOMIC_ACQUIRE"
        RELEASE "__ATOMIC_RELEASE"
    int64_t load_i64 "__atomic_load_n"(const int64_t *at, int order) noexcept nogil
    void store_i64 "__atomic_store_n"(int64_t *at, int64_t value, int order) noexcept nogil
    uint32_t load_u32 "__atomic_load_n"(const uint32_t *at, int order) noexcept nogil
    void store_u32 "__atomic_store_n"(uint32_t *at, uint32_t value, int order) noexcept nogil
    uint64_t add_u64 "__atomic_fetch_add"(uint64_t *at, uint64_t more, int order) noexcept nogil
    bint exchange_i64 "__atomic_compare_exchange_n"(
        int64_t *at, int64_t *known, int64_t wanted, bint weak, int success, int failure) noexcept nogil
