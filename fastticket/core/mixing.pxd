# Spreads the bits of a word over the whole word (the finalizer of splitmix64), for hash tables and
# for consistent hashing. It hides nothing.

from libc.stdint cimport uint64_t


cdef inline uint64_t mix(uint64_t word) noexcept nogil:
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9ULL
    word = (word ^ word >> 27) * 0x94D049BB133111EBULL
    return word ^ word >> 31
