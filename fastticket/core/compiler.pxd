# What GCC and clang offer beside C: bit counts of a word that is not 0, and hints.

cdef extern from *:
    int __builtin_clzll(unsigned long long word) noexcept nogil     # zeros above the highest bit set
    int __builtin_ctzll(unsigned long long word) noexcept nogil     # zeros below the lowest bit set
    # Have the cache line of an address fetched meanwhile. Any address will do.
    void prefetch "__builtin_prefetch"(const void *at) noexcept nogil
    # `is_rare(condition, 0)`: the compiler lays out the code for a condition that is mostly false.
    bint is_rare "__builtin_expect"(bint condition, long usual) noexcept nogil
