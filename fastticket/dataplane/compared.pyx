# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Which cookies of another system have come with which of our sessions: the control plane has
compared them, and this plane need not ask again with each request. One thread.

A place holds one mark, made of the session's id, the values of the cookies, and the minute, so that
what becomes of a cookie's session there is seen after a minute at most. A place that another takes
costs a question. Marks are no secrets and guard none: who sends a cookie has it.
"""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from fastticket.core.mixing cimport mix
from fastticket.dataplane.cookiefields cimport find_cookie
from fastticket.dataplane.fieldnames cimport Kind
from fastticket.dataplane.http1 cimport Field
from fastticket.dataplane.octets cimport Span


@cython.final
cdef class ComparedCookies:
    def __cinit__(self):
        self.table = <uint64_t *>calloc(1 << COMPARED_BITS, sizeof(uint64_t))
        if self.table == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.table)

    cdef bint has(self, uint64_t mark) noexcept nogil:
        return self.table[mark >> (64 - COMPARED_BITS)] == mark

    cdef void put(self, uint64_t mark) noexcept nogil:
        self.table[mark >> (64 - COMPARED_BITS)] = mark


cdef uint64_t mark_of(
        const uint8_t *at, const Head *head, const Text *names, uint32_t count, const uint8_t *session, int64_t now_ms) noexcept nogil:
    """Of a request's cookies of these names, and a session. 0: it has none of them."""
    cdef const Field *field
    cdef Span value
    cdef uint64_t[2] words
    cdef uint64_t mark
    cdef uint32_t number
    cdef uint32_t octet
    cdef uint32_t found = 0
    cdef int count_here
    cdef int i
    memcpy(words, session, 16)
    # Each session has minutes of its own: else all would be asked about at once.
    mark = <uint64_t>now_ms + (words[0] & ((1 << COMPARED_FOR_BITS) - 1))
    mark = mix(words[0] ^ mix(words[1] ^ mark >> COMPARED_FOR_BITS))
    for i in range(head.known_count):
        field = &head.fields[head.known[i]]
        for number in range(count if field.kind == Kind.COOKIE else 0):
            count_here = find_cookie(at, field.value, names[number].at, names[number].size, &value)
            if count_here:
                if count_here > 1:
                    value = field.value             # of several all count: one of them alone is another matter
                found += 1
                mark ^= number + 1
                for octet in range(value.size):
                    mark = (mark ^ at[value.at + octet]) * 0x100000001B3ULL     # FNV-1a
    return mix(mark) | 1 if found else 0
