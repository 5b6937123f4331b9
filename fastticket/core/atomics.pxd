# Numbers that several threads write or read, without a lock (the builtins of GCC and clang).

from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from *:
    enum:
        RELAXED "__ATOMIC_RELAXED"
        ACQUIRE "__ATOMIC_ACQUIRE"
        RELEASE "__ATOMIC_RELEASE"
        SEQ_CST "__ATOMIC_SEQ_CST"
    int64_t load_i64 "__atomic_load_n"(const int64_t *at, int order) noexcept nogil
    void store_i64 "__atomic_store_n"(int64_t *at, int64_t value, int order) noexcept nogil
    uint32_t load_u32 "__atomic_load_n"(const uint32_t *at, int order) noexcept nogil
    void store_u32 "__atomic_store_n"(uint32_t *at, uint32_t value, int order) noexcept nogil
    uint32_t swap_u32 "__atomic_exchange_n"(uint32_t *at, uint32_t value, int order) noexcept nogil
    uint32_t add_u32 "__atomic_add_fetch"(uint32_t *at, uint32_t count, int order) noexcept nogil
    uint32_t subtract_u32 "__atomic_sub_fetch"(uint32_t *at, uint32_t count, int order) noexcept nogil
    uint32_t or_u32 "__atomic_fetch_or"(uint32_t *at, uint32_t bits, int order) noexcept nogil
    uint64_t load_u64 "__atomic_load_n"(const uint64_t *at, int order) noexcept nogil
    void store_u64 "__atomic_store_n"(uint64_t *at, uint64_t value, int order) noexcept nogil
    uint64_t swap_u64 "__atomic_exchange_n"(uint64_t *at, uint64_t value, int order) noexcept nogil
    uint64_t or_u64 "__atomic_fetch_or"(uint64_t *at, uint64_t bits, int order) noexcept nogil
    bint exchange_i64 "__atomic_compare_exchange_n"(
        int64_t *at, int64_t *known, int64_t wanted, bint weak, int success, int failure) noexcept nogil
