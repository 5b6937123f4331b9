from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastticket.core.atomics cimport (
    RELAXED as COUNT_ORDER,
    add_u32 as more_of,
    load_u32 as count_of,
    store_u32 as set_count,
    subtract_u32 as less_of,
)
from fastticket.core.lock cimport Lock
from fastticket.dataplane.clients cimport ADDRESS_TEXT_MAX, Tally


cdef class Occupancy:
    # counted by all planes, read by each
    cdef uint32_t clients
    cdef uint32_t upstream
    cdef uint32_t clients_max
    cdef uint32_t per_client_max
    cdef uint32_t descriptors_max       # connections of both sides; 0: no limit
    # under the lock
    cdef Lock lock
    cdef Tally tally
    cdef uint32_t tallied               # connections that it counts
    cdef uint32_t tallied_max
    cdef uint64_t unannounced_count
    cdef const char *unannounced_why
    cdef char[ADDRESS_TEXT_MAX] unannounced_peer

    cdef inline bint has_room(self) noexcept nogil:
        return count_of(&self.clients, COUNT_ORDER) < count_of(&self.clients_max, COUNT_ORDER)

    cdef inline bint enter(self) noexcept nogil:
        """One client more, if there is room for it: planes that accept at the same time do not take
        the last room twice.
        """
        if more_of(&self.clients, 1, COUNT_ORDER) <= count_of(&self.clients_max, COUNT_ORDER):
            return True
        less_of(&self.clients, 1, COUNT_ORDER)
        return False

    cdef inline void enter_anyway(self) noexcept nogil:
        """One client more, who was let in before."""
        more_of(&self.clients, 1, COUNT_ORDER)

    cdef inline void leave(self) noexcept nogil:
        less_of(&self.clients, 1, COUNT_ORDER)

    cdef inline void upstream_opened(self) noexcept nogil:
        more_of(&self.upstream, 1, COUNT_ORDER)

    cdef inline void upstream_closed(self) noexcept nogil:
        less_of(&self.upstream, 1, COUNT_ORDER)

    cdef inline uint32_t _connections(self) noexcept nogil:
        return count_of(&self.clients, COUNT_ORDER) + count_of(&self.upstream, COUNT_ORDER)

    cdef inline bint is_full(self) noexcept nogil:
        """Whether one connection more needs a descriptor that is meant for something else."""
        cdef uint32_t most = count_of(&self.descriptors_max, COUNT_ORDER)
        return most and self._connections() >= most

    cdef inline bint is_over(self) noexcept nogil:
        cdef uint32_t most = count_of(&self.descriptors_max, COUNT_ORDER)
        return most and self._connections() > most

    cdef bint admits(self, const uint8_t *address, bint *is_counted) noexcept nogil
    cdef void forget(self, const uint8_t *address) noexcept nogil
    cdef void note_unannounced(self, bint has_address, const uint8_t *address, const char *why) noexcept nogil
