# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Threads that judge tickets without the GIL, as data planes do, and what they saw.

A test builds this module (lab/building.py); it is no part of the package.

    Fates    of each ticket: whether it may be admitted, as the control plane has told the store
    Judge    judges tickets in a thread, and notes the uses it admitted
    flaws    what is wrong in a near cache that nobody uses at the moment
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from fastticket.core.atomics cimport ACQUIRE, RELAXED, RELEASE, load_u32, store_u32
from fastticket.core.check cimport Checked, Checker
from fastticket.core.nearcache cimport NearCache
from fastticket.core.partition cimport DIRTY, IN_LRU, NONE, SENT, Partition, lookup
from fastticket.core.verdict cimport Verdict
from fastticket.core.wire cimport SESSION_ID_AT


@cython.final
cdef class Fates:
    """A number for each ticket, which grows with each change: odd while nobody may be admitted on
    it. And a flag: the judges are to stop.
    """
    cdef uint32_t *of
    cdef readonly uint32_t count
    cdef uint32_t is_over

    def __cinit__(self, uint32_t count):
        self.count = count
        self.of = <uint32_t *>calloc(count, sizeof(uint32_t))
        if self.of == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.of)

    def bar(self, uint32_t ticket):
        """From now on nobody is admitted on it."""
        store_u32(&self.of[ticket], self.of[ticket] | 1, RELEASE)

    def allow(self, uint32_t ticket):
        """It may be admitted again."""
        store_u32(&self.of[ticket], (self.of[ticket] | 1) + 1, RELEASE)

    def stop(self):
        store_u32(&self.is_over, 1, RELAXED)


@cython.final
cdef class Judge:
    """Judges tickets in random order, until it is told to stop."""
    cdef Checker checker
    cdef Fates fates
    cdef list tickets
    cdef const uint8_t **texts
    cdef Py_ssize_t *sizes
    cdef int64_t *deadlines
    cdef uint64_t seed
    cdef uint64_t[<int>Verdict.VERDICTS] counts
    cdef readonly uint64_t wrongly_admitted

    def __cinit__(self, Checker checker not None, Fates fates not None, list tickets not None, uint64_t seed):
        cdef Py_ssize_t i
        cdef Py_ssize_t count = len(tickets)
        cdef bytes ticket
        self.checker = checker
        self.fates = fates
        self.tickets = tickets                  # owns the texts
        self.seed = seed | 1
        self.texts = <const uint8_t **>calloc(count, sizeof(uint8_t *))
        self.sizes = <Py_ssize_t *>calloc(count, sizeof(Py_ssize_t))
        self.deadlines = <int64_t *>calloc(count, sizeof(int64_t))
        if self.texts == NULL or self.sizes == NULL or self.deadlines == NULL:
            raise MemoryError
        for i in range(count):
            ticket = tickets[i]
            self.texts[i] = <const uint8_t *><const char *>ticket
            self.sizes[i] = len(ticket)

    def __dealloc__(self):
        free(self.texts)
        free(self.sizes)
        free(self.deadlines)

    def run(self):
        with nogil:
            while not load_u32(&self.fates.is_over, RELAXED):
                self._judge_one()

    cdef void _judge_one(self) noexcept nogil:
        cdef uint32_t i = self._any()
        cdef uint32_t before = load_u32(&self.fates.of[i], ACQUIRE)
        cdef Checked checked
        cdef Verdict verdict = self.checker.judge(self.texts[i], self.sizes[i], self.checker.now(), True, &checked)
        self.counts[<int>verdict] += 1
        if verdict != Verdict.HIT:
            return
        if before & 1 and load_u32(&self.fates.of[i], ACQUIRE) == before:
            self.wrongly_admitted += 1
        self.deadlines[i] = max(self.deadlines[i], checked.idle_deadline_ms)

    cdef uint32_t _any(self) noexcept nogil:
        """A ticket; each next one is likelier than all before it: some sessions are used much."""
        self.seed ^= self.seed << 13
        self.seed ^= self.seed >> 7
        self.seed ^= self.seed << 17
        return <uint32_t>(self.seed >> 32) % (self.fates.count if self.seed & 1 else 1 + self.fates.count // 8)

    @property
    def verdicts(self):
        """How often each verdict was given, by its number; 0 is a hit."""
        return [self.counts[i] for i in range(<int>Verdict.VERDICTS)]

    def deadline_ms(self, uint32_t ticket):
        """The latest that it was told; 0: it admitted nobody on this ticket."""
        return self.deadlines[ticket]


# ------------------------------------------------------------------------------- a cache that is whole

def flaws(NearCache near not None):
    """What is wrong with the chains, tables and counts of a near cache that no thread uses now."""
    cdef uint32_t number
    cdef list found = []
    for number in range(near.partition_count + 1):
        found += [f"partition {number}: {flaw}" for flaw in _flaws_of(&near.partitions[number])]
    return found


cdef list _flaws_of(Partition *p):
    cdef list found = []
    cdef dict flags = {}            # of each first slot
    cdef set free_slots = set()
    cdef uint32_t tails = 0
    cdef uint32_t i, tail
    for i in range(p.fresh):
        if p.slots[i].size:
            flags[i] = p.slots[i].flags
    i = p.free_first
    while i != NONE and i not in free_slots:
        free_slots.add(i)
        i = p.slots[i].link
    for i in flags:
        tail = p.slots[i].link
        while tail != NONE and tails <= p.slot_count:
            tails += 1
            if p.slots[tail].size or tail in free_slots:
                found.append(f"slot {tail} is a tail, and something else")
            tail = p.slots[tail].link
    _compare(found, "entries", len(flags), p.entry_count)
    _compare(found, "free slots", len(free_slots), p.free_count)
    _compare(found, "slots used", len(flags) + tails + len(free_slots), p.fresh)
    if free_slots & flags.keys():
        found.append("an entry is in a free slot")
    _compare(found, "the dirty chain", _dirty_chain(p), [i for i in flags if flags[i] & DIRTY])
    _compare(found, "dirty entries", len([i for i in flags if flags[i] & DIRTY]), p.dirty_count)
    _compare(found, "sent entries", len([i for i in flags if flags[i] & SENT]), p.sent_count)
    _compare(found, "the LRU chain, from its new end", _lru_chain(p, False), [i for i in flags if flags[i] & IN_LRU])
    _compare(found, "the LRU chain, from its old end", _lru_chain(p, True), [i for i in flags if flags[i] & IN_LRU])
    _compare(found, "the table", _table(p), list(flags))
    for i in flags:
        if lookup(p, p.slots[i].raw + SESSION_ID_AT) != i:
            found.append(f"slot {i} cannot be found")
    return found


cdef void _compare(list found, str what, object seen, object wanted) except *:
    if isinstance(seen, list):
        seen, wanted = sorted(seen), sorted(wanted)
    if seen != wanted:
        found.append(f"{what}: {seen}, not {wanted}")


cdef list _dirty_chain(Partition *p):
    cdef list chain = []
    cdef uint32_t i = p.dirty_first
    while i != NONE and len(chain) <= p.slot_count:
        chain.append(i)
        if p.slots[i].dirty_next == NONE and i != p.dirty_last:
            chain.append(-1)        # it ends too early
        i = p.slots[i].dirty_next
    return chain


cdef list _lru_chain(Partition *p, bint is_from_oldest):
    cdef list chain = []
    cdef uint32_t i = p.oldest if is_from_oldest else p.newest
    while i != NONE and len(chain) <= p.slot_count:
        chain.append(i)
        i = p.slots[i].newer if is_from_oldest else p.slots[i].older
    return chain


cdef list _table(Partition *p):
    cdef uint32_t place
    return [<uint32_t>p.table[place] - 1 for place in range(p.table_size) if p.table[place]]
