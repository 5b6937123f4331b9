# A partition of the near cache: slots, the table that finds them, the LRU chain, the dirty chain. What
# an entry means, and when it may answer, nearcache.pyx decides; these functions only move links.
#
# Structure
#   - A ticket takes one slot of 136 bytes, one or two more (tails) if its principal is longer than 29
#     bytes. Links are slot numbers.
#   - The table is open addressing with linear probing: (tag, slot) side by side, eight to a cache
#     line, so that a lookup reads one line of the table and then the right slot. The tag is four bytes
#     of the random session id, and the home place is in proportion to it; to remove an entry, those
#     behind it are moved up.
#   - Every function here wants the partition's lock, if the cache is shared.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastticket.core.lock cimport Lock
from fastticket.core.wire cimport SESSION_ID_AT

cdef enum:
    NONE = 0xFFFFFFFF
    INLINE_BYTES = 94           # of the raw ticket in its first slot: enough for a principal of 29 bytes
    TAIL_BYTES = 128            # of it in each further slot
    IN_LRU = 1
    DIRTY = 2                   # on the dirty chain
    SENT = 4                    # a touch of it is on its way to the store
    INVALID = 8                 # must be loaded again, whatever its epoch; its touch is not written
    TICK_BITS = 10              # an entry is moved to the LRU's front once in so many (2**10) ms


cdef struct Slot:
    # An entry's first slot. A tail slot and a free one have `link` and no size; a tail's bytes of
    # the ticket begin at `newer`.
    uint32_t link               # the slot with the rest of the ticket, or the next free slot; or NONE
    uint16_t size               # of the raw ticket; 0: this is no first slot
    uint8_t flags
    uint8_t unused
    uint32_t newer              # LRU chain
    uint32_t older
    uint32_t dirty_next         # dirty chain
    uint32_t moved_at           # when it was made the newest, in ticks of 2**TICK_BITS ms
    uint32_t epoch              # the shard's, when the session was loaded
    uint32_t loaded_at_s        # store time
    int64_t idle_deadline_ms    # store time
    uint16_t shard
    uint8_t[INLINE_BYTES] raw


cdef struct Refusal:
    uint8_t[16] session_id
    int64_t until_ms            # store time
    int64_t verdict


cdef struct Partition:
    Lock lock                   # of all that follows, and of what it points to
    Slot *slots
    uint64_t *table             # tag << 32 | slot + 1; 0: the place is free
    Refusal *refusals
    uint32_t table_size
    uint32_t slot_count
    uint32_t fresh              # the first slot that was never used
    uint32_t free_first         # the list of slots that were used and are free
    uint32_t free_count         # on that list
    uint32_t entry_count
    uint32_t newest             # ends of the LRU chain
    uint32_t oldest
    uint32_t dirty_first
    uint32_t dirty_last
    uint32_t dirty_count
    uint32_t sent_count
    uint32_t to_take            # of the dirty ones, in this flush; the control plane's own
    uint64_t hits
    uint64_t misses
    uint64_t refreshes
    uint64_t evictions
    uint64_t touches_coalesced
    uint8_t[64] apart           # so that no two partitions share a cache line


# --------------------------------------------------------------------------------------- comparisons

cdef inline uint64_t word_at(const uint8_t *at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, sizeof(word))
    return word


cdef inline uint64_t difference(const uint8_t *a, const uint8_t *b, size_t size) noexcept nogil:
    """0 if equal. The time does not depend on where a difference is. By words: CRYPTO_memcmp goes
    by bytes.
    """
    cdef uint64_t found = 0
    cdef size_t i = 0
    while i + 8 <= size:
        found |= word_at(a + i) ^ word_at(b + i)
        i += 8
    if i and i < size:
        return found | (word_at(a + size - 8) ^ word_at(b + size - 8))      # this word overlaps the one before
    while i < size:
        found |= a[i] ^ b[i]
        i += 1
    return found


cdef inline bint is_same_id(const uint8_t *a, const uint8_t *b) noexcept nogil:
    return ((word_at(a) ^ word_at(b)) | (word_at(a + 8) ^ word_at(b + 8))) == 0


# ----------------------------------------------------------------------------------------- the table

cdef inline uint32_t tag_of(const uint8_t *session_id) noexcept nogil:
    cdef uint32_t tag
    memcpy(&tag, session_id, sizeof(tag))
    return tag


cdef inline uint32_t in_proportion(uint32_t tag, uint32_t size) noexcept nogil:
    """A place among `size`, for a tag that is random in all its bits."""
    return <uint32_t>(<uint64_t>tag * size >> 32)


cdef inline uint32_t next_place(const Partition *p, uint32_t place) noexcept nogil:
    return place + 1 if place + 1 < p.table_size else 0


cdef inline uint32_t lookup(const Partition *p, const uint8_t *session_id) noexcept nogil:
    """The first slot of the session's entry, or NONE."""
    cdef uint32_t tag = tag_of(session_id)
    cdef uint32_t place = in_proportion(tag, p.table_size)
    cdef uint64_t there = p.table[place]
    while there:
        if <uint32_t>(there >> 32) == tag and is_same_id(p.slots[<uint32_t>there - 1].raw + SESSION_ID_AT, session_id):
            return <uint32_t>there - 1
        place = next_place(p, place)
        there = p.table[place]
    return NONE


cdef inline void enter_in_table(Partition *p, uint32_t index, const uint8_t *session_id) noexcept nogil:
    cdef uint32_t tag = tag_of(session_id)
    cdef uint32_t place = in_proportion(tag, p.table_size)
    while p.table[place]:
        place = next_place(p, place)
    p.table[place] = <uint64_t>tag << 32 | (index + 1)


cdef inline void leave_table(Partition *p, uint32_t index) noexcept nogil:
    """Free the entry's place, and move up what could not be at home because of it."""
    cdef uint32_t place = in_proportion(tag_of(p.slots[index].raw + SESSION_ID_AT), p.table_size)
    cdef uint32_t following
    cdef uint32_t home
    while <uint32_t>p.table[place] != index + 1:
        place = next_place(p, place)
    following = next_place(p, place)
    while p.table[following]:
        home = in_proportion(<uint32_t>(p.table[following] >> 32), p.table_size)
        # Cyclically: home is not after the free place, so the entry may go there.
        if (place < following and (home <= place or home > following)) or (place > following and following < home <= place):
            p.table[place] = p.table[following]
            place = following
        following = next_place(p, following)
    p.table[place] = 0


# --------------------------------------------------------------------------------------------- slots

cdef inline int tails_of(int size) noexcept nogil:
    return 0 if size <= INLINE_BYTES else (size - INLINE_BYTES + TAIL_BYTES - 1) // TAIL_BYTES


cdef inline uint8_t *tail_bytes(Slot *slot) noexcept nogil:
    return <uint8_t *>&slot.newer


cdef inline bint has_room(const Partition *p, uint32_t wanted) noexcept nogil:
    return p.free_count + (p.slot_count - p.fresh) >= wanted


cdef inline uint32_t take_slot(Partition *p) noexcept nogil:
    """A free slot; `has_room` has said that there is one."""
    cdef uint32_t index = p.free_first
    if index == NONE:
        p.fresh += 1
        return p.fresh - 1
    p.free_first = p.slots[index].link
    p.free_count -= 1
    return index


cdef inline void give_slot(Partition *p, uint32_t index) noexcept nogil:
    p.slots[index].link = p.free_first
    p.slots[index].size = 0
    p.free_first = index
    p.free_count += 1


cdef inline void give_slots(Partition *p, uint32_t index) noexcept nogil:
    """Free an entry's slot and its tails."""
    cdef uint32_t tail = p.slots[index].link
    cdef uint32_t following
    give_slot(p, index)
    while tail != NONE:
        following = p.slots[tail].link
        give_slot(p, tail)
        tail = following


cdef inline uint32_t take_slots(Partition *p, int size) noexcept nogil:
    """A slot and its tails, for a ticket of this size; `has_room` has said that there are."""
    cdef uint32_t index = take_slot(p)
    cdef uint32_t *link = &p.slots[index].link
    cdef uint32_t tail
    cdef int _
    p.slots[index].size = <uint16_t>size
    for _ in range(tails_of(size)):
        tail = take_slot(p)
        p.slots[tail].size = 0
        link[0] = tail
        link = &p.slots[tail].link
    link[0] = NONE
    return index


cdef inline bint is_ticket_of(const Partition *p, uint32_t index, const uint8_t *raw, int size) noexcept nogil:
    """Whether the entry is of exactly this ticket; in constant time for tickets of one size."""
    cdef Slot *slot = &p.slots[index]
    cdef uint32_t tail = slot.link
    cdef int at = INLINE_BYTES
    cdef uint64_t found
    if slot.size != size:
        return False
    found = difference(slot.raw, raw, min(size, <int>INLINE_BYTES))
    while at < size:
        found |= difference(tail_bytes(&p.slots[tail]), raw + at, min(size - at, <int>TAIL_BYTES))
        tail = p.slots[tail].link
        at += TAIL_BYTES
    return found == 0


cdef inline void write_raw(Partition *p, uint32_t index, const uint8_t *raw, int size) noexcept nogil:
    cdef uint32_t tail = p.slots[index].link
    cdef int at = INLINE_BYTES
    memcpy(p.slots[index].raw, raw, min(size, <int>INLINE_BYTES))
    while at < size:
        memcpy(tail_bytes(&p.slots[tail]), raw + at, min(size - at, <int>TAIL_BYTES))
        tail = p.slots[tail].link
        at += TAIL_BYTES


cdef inline void copy_raw(const Partition *p, uint32_t index, uint8_t *raw) noexcept nogil:
    cdef int size = p.slots[index].size
    cdef uint32_t tail = p.slots[index].link
    cdef int at = INLINE_BYTES
    memcpy(raw, p.slots[index].raw, min(size, <int>INLINE_BYTES))
    while at < size:
        memcpy(raw + at, tail_bytes(&p.slots[tail]), min(size - at, <int>TAIL_BYTES))
        tail = p.slots[tail].link
        at += TAIL_BYTES


# -------------------------------------------------------------------------------------------- chains

cdef inline void leave_lru(Partition *p, uint32_t index) noexcept nogil:
    cdef Slot *slot = &p.slots[index]
    if slot.newer != NONE:
        p.slots[slot.newer].older = slot.older
    else:
        p.newest = slot.older
    if slot.older != NONE:
        p.slots[slot.older].newer = slot.newer
    else:
        p.oldest = slot.newer
    slot.flags &= ~IN_LRU


cdef inline void make_newest(Partition *p, uint32_t index, int64_t now_ms) noexcept nogil:
    """Move an entry to the newest end of the LRU chain, or put it back there if it lingers; but not
    if it was moved in this tick already: most hits write no neighbour's cache line.
    """
    cdef Slot *slot = &p.slots[index]
    cdef uint32_t tick = <uint32_t>(now_ms >> TICK_BITS)
    if slot.flags & IN_LRU:
        if slot.moved_at == tick or index == p.newest:
            return
        leave_lru(p, index)
    slot.moved_at = tick
    slot.newer = NONE
    slot.older = p.newest
    if p.newest != NONE:
        p.slots[p.newest].newer = index
    else:
        p.oldest = index
    p.newest = index
    slot.flags |= IN_LRU


cdef inline void make_dirty(Partition *p, uint32_t index) noexcept nogil:
    """Put an entry at the end of the dirty chain."""
    cdef Slot *slot = &p.slots[index]
    slot.flags |= DIRTY
    slot.dirty_next = NONE
    if p.dirty_last != NONE:
        p.slots[p.dirty_last].dirty_next = index
    else:
        p.dirty_first = index
    p.dirty_last = index
    p.dirty_count += 1


cdef inline uint32_t take_dirty(Partition *p) noexcept nogil:
    """Take the first entry off the dirty chain. There is one."""
    cdef uint32_t index = p.dirty_first
    cdef Slot *slot = &p.slots[index]
    p.dirty_first = slot.dirty_next
    if p.dirty_first == NONE:
        p.dirty_last = NONE
    p.dirty_count -= 1
    slot.flags &= ~DIRTY
    return index
