# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Tickets of another system, by our sessions: made by the control plane, once a session, and kept by
the plane that forwards its requests. A set-associative table; one thread.

A session's id is random, or made by HMAC, so nobody chooses which set it falls into. What is kept of
a session that is over is of no use to anybody: only requests that were admitted find it.
"""

cimport cython
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy


@cython.final
cdef class MintedTickets:
    def __dealloc__(self):
        cdef int i
        if self.table != NULL:
            for i in range(MINTED_WAYS << MINTED_BITS):
                free(self.table[i].text)
            free(self.table)

    cdef Text find(self, const uint8_t *session) noexcept nogil:
        """A session's ticket; of size 0: there is none."""
        cdef Minted *entry
        cdef int way
        if self.table != NULL:
            entry = self.table + _first_of(session)
            for way in range(MINTED_WAYS):
                if entry[way].size and memcmp(entry[way].session, session, 16) == 0:
                    return Text(entry[way].text, entry[way].size)
        return Text(NULL, 0)

    cdef bint put(self, const uint8_t *session, const Text *ticket) noexcept nogil:
        """Keep a ticket. False: it is too long, or there is no memory."""
        cdef Minted *entry
        cdef uint8_t *text
        cdef int way
        cdef int i
        if self.table == NULL:
            self.table = <Minted *>calloc(MINTED_WAYS << MINTED_BITS, sizeof(Minted))
        if self.table == NULL or not 0 < ticket.size <= MINTED_BYTES_MAX:
            return False
        text = <uint8_t *>malloc(ticket.size)
        if text == NULL:
            return False
        memcpy(text, ticket.at, ticket.size)
        entry = self.table + _first_of(session)
        self.turn += 1
        way = self.turn % MINTED_WAYS
        for i in range(MINTED_WAYS):
            if entry[i].size == 0:
                way = i
        for i in range(MINTED_WAYS):
            if entry[i].size and memcmp(entry[i].session, session, 16) == 0:
                way = i
        free(entry[way].text)
        entry[way].text = text
        entry[way].size = <uint16_t>ticket.size
        memcpy(entry[way].session, session, 16)
        return True

    # ------------------------------------------------------------------------------ for tests

    def keep(self, bytes session_id not None, bytes ticket not None):
        cdef Text text = Text(<const uint8_t *><const char *>ticket, <uint32_t>len(ticket))
        return self.put(_id(session_id), &text)

    def kept(self, bytes session_id not None):
        cdef Text found = self.find(_id(session_id))
        return (<const char *>found.at)[:found.size] if found.size else b""


cdef const uint8_t *_id(bytes session_id) except NULL:
    if len(session_id) != 16:
        raise ValueError("a session id has 16 bytes")
    return <const uint8_t *><const char *>session_id


cdef inline uint32_t _first_of(const uint8_t *session) noexcept nogil:
    """The first place of a session's set."""
    cdef uint32_t word
    memcpy(&word, session, 4)
    return MINTED_WAYS * (word & ((1 << MINTED_BITS) - 1))
