# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""How many connections all planes of a process have together, and may have: clients, those of one
client, descriptors.

Rules of this file
- The counts are atomic, each for itself: a plane that compares their sum with a limit may be one or
  two connections off, which the descriptors that are kept for everything else allow for. The count
  of clients is never above `clients_max`, but for those that another plane has handed over.
- The lock guards the table of addresses, and what was noted last. It is held for a computation.
- It may outlive a configuration: `allow` changes the limits, while planes of the one before still
  have clients, which are counted on.
"""

cimport cython

from fastticket.core.lock cimport acquire, end_lock, make_lock, release
from fastticket.dataplane.clients cimport write_address


@cython.final
cdef class Occupancy:
    def __cinit__(
        self, uint32_t connections_max=10_000, *, uint32_t per_client_max=0, uint32_t descriptors_max=0
    ):
        make_lock(&self.lock)
        self.allow(connections_max, per_client_max=per_client_max, descriptors_max=descriptors_max)

    def __dealloc__(self):
        end_lock(&self.lock)

    def allow(self, uint32_t connections_max, *, uint32_t per_client_max=0, uint32_t descriptors_max=0):
        """Change the limits. Nobody who is connected is sent away."""
        cdef Tally tally = None
        if per_client_max and (self.tally is None or connections_max > self.tallied_max):
            tally = Tally(connections_max)
        acquire(&self.lock)
        if tally is not None:
            if self.tally is not None:
                tally.take_over(self.tally)
            self.tally, tally = tally, self.tally       # the other one is freed when the lock is
            self.tallied_max = connections_max
        set_count(&self.clients_max, connections_max, COUNT_ORDER)
        set_count(&self.per_client_max, per_client_max, COUNT_ORDER)
        set_count(&self.descriptors_max, descriptors_max, COUNT_ORDER)
        release(&self.lock)

    @property
    def client_count(self):
        return count_of(&self.clients, COUNT_ORDER)

    @property
    def unannounced(self):
        cdef char[ADDRESS_TEXT_MAX] peer
        cdef const char *why
        cdef uint64_t count
        acquire(&self.lock)
        peer = self.unannounced_peer
        why = self.unannounced_why
        count = self.unannounced_count
        release(&self.lock)
        return count, (<bytes>peer).decode("ascii"), (<bytes>why).decode("ascii") if why != NULL else ""

    # ------------------------------------------------------------------------------------- of planes

    cdef bint admits(self, const uint8_t *address, bint *is_counted) noexcept nogil:
        """Count a connection of a client's address, as long as there is room in the table: it has as
        much as connections may be, and a few may be handed over beyond. False: it is one too many.
        """
        cdef uint32_t most = count_of(&self.per_client_max, COUNT_ORDER)
        cdef uint32_t count = 0
        if most == 0:
            return True
        acquire(&self.lock)
        is_counted[0] = self.tallied < self.tallied_max
        if is_counted[0]:
            self.tallied += 1
            count = self.tally.add(address)
        release(&self.lock)
        return count <= most

    cdef void forget(self, const uint8_t *address) noexcept nogil:
        """A connection that was counted is closed."""
        acquire(&self.lock)
        self.tallied -= 1
        self.tally.remove(address)
        release(&self.lock)

    cdef void note_unannounced(self, bint has_address, const uint8_t *address, const char *why) noexcept nogil:
        """A connection is closed for want of a PROXY header that counts. On a Unix socket it has no
        address. `why` stays valid.
        """
        cdef char[ADDRESS_TEXT_MAX] peer
        peer[0] = 0
        if has_address:
            write_address(address, peer)
        acquire(&self.lock)
        self.unannounced_count += 1
        self.unannounced_why = why
        self.unannounced_peer = peer
        release(&self.lock)
