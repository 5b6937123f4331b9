# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Touches of one shard on their way to the store, as the bytes of a Redis command.

They are written once, from the near cache's entries (`NearCache.take`), as a command has them: for
each touch two bulk strings of RESP, the score and the member of a ZADD. A store that wants something
else reads them again by iteration.
"""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from fastticket.core.ticket cimport encode
from fastticket.core.wire cimport PRINCIPAL_BYTES_MAX, SESSION_ID_BYTES, SESSION_ID_CHARS

from fastticket.core.ticket import decode_session_id

cdef enum:
    DIGITS_MAX = 20
    PLACES_FIRST = 64


cdef inline uint32_t _put_number(uint8_t *at, uint64_t number) noexcept:
    """Write a decimal number; its digits."""
    cdef uint8_t[DIGITS_MAX] digits
    cdef uint32_t count = 0
    cdef uint32_t i
    while True:
        digits[count] = <uint8_t>(48 + number % 10)
        count += 1
        number //= 10
        if number == 0:
            break
    for i in range(count):
        at[i] = digits[count - 1 - i]
    return count


cdef inline uint32_t _put_end(uint8_t *at) noexcept:
    at[0] = 13
    at[1] = 10
    return 2


@cython.final
cdef class Touches:
    def __cinit__(self, shard):
        self.shard = shard

    def __dealloc__(self):
        PyMem_Free(self.places)
        PyMem_Free(self.text)

    @classmethod
    def of(cls, shard, touches):
        cdef Touches made = Touches(shard)
        cdef bytes session
        cdef bytes user
        for session_id, principal, deadline_ms in touches:
            session = decode_session_id(session_id)
            user = principal.encode()
            if not 0 < len(user) <= PRINCIPAL_BYTES_MAX:
                raise ValueError(f"a principal has 1 to {PRINCIPAL_BYTES_MAX} bytes, not {len(user)}")
            if not made.make_room():
                raise MemoryError("no memory for a touch")
            made.add(0, <const uint8_t *><const char *>session, <const uint8_t *><const char *>user, <uint8_t>len(user), deadline_ms)
        return made

    def __len__(self):
        return self.count

    def __repr__(self):
        return f"<Touches {self.count} of shard {self.shard}>"

    @property
    def packed(self):
        return (<char *>self.text)[:self.text_size]

    def __iter__(self):
        parts = self.packed.split(b"\r\n")[1::2]        # neither ids nor principals have control characters
        for score, member in zip(parts[::2], parts[1::2]):
            text = member.decode()
            yield text[:SESSION_ID_CHARS], text[SESSION_ID_CHARS + 1:], int(score)

    cdef uint32_t settle(self) noexcept:
        """How many entries wait to hear of their touches: all, and after this call none."""
        cdef uint32_t waiting = self.count if self.is_out else 0
        self.is_out = False
        return waiting

    cdef bint make_room(self) noexcept:
        """For one touch more. False: there is no memory."""
        cdef void *more
        if self.count == self.places_room:
            more = PyMem_Realloc(self.places, max(2 * self.places_room, <uint32_t>PLACES_FIRST) * sizeof(uint32_t))
            if more == NULL:
                return False
            self.places = <uint32_t *>more
            self.places_room = max(2 * self.places_room, <uint32_t>PLACES_FIRST)
        if self.text_room - self.text_size < TOUCH_BYTES_MAX:
            more = PyMem_Realloc(self.text, 2 * self.text_room + TOUCH_BYTES_MAX)
            if more == NULL:
                return False
            self.text = <uint8_t *>more
            self.text_room = 2 * self.text_room + TOUCH_BYTES_MAX
        return True

    cdef void add(
        self, uint32_t place, const uint8_t *session_id, const uint8_t *principal, uint8_t size, int64_t deadline_ms
    ) noexcept:
        """Add a touch, for which `make_room` has made room."""
        cdef uint8_t[DIGITS_MAX] score
        cdef uint32_t digits = _put_number(score, <uint64_t>deadline_ms)
        cdef uint8_t *at = self.text + self.text_size
        at[0] = b"$"
        at += 1
        at += _put_number(at, digits)
        at += _put_end(at)
        memcpy(at, score, digits)
        at += digits
        at += _put_end(at)
        at[0] = b"$"
        at += 1
        at += _put_number(at, SESSION_ID_CHARS + 1 + size)
        at += _put_end(at)
        at += encode(session_id, SESSION_ID_BYTES, at)
        at[0] = b"."
        at += 1
        memcpy(at, principal, size)
        at += size
        at += _put_end(at)
        self.text_size = <uint32_t>(at - self.text)
        self.places[self.count] = place
        self.count += 1
