# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""The near cache: verified tickets with what the store last said of their sessions.

Structure
    One allocation holds it. Bits of the session id choose an entry's partition; partition.pxd has
    what is in one. If an entry was touched, it is on its partition's dirty chain: the entry is the
    write-behind buffer, so touches coalesce for free. `take` makes a dirty entry sent, `acknowledge`
    makes it clean, and `give_back` dirty again. One partition more has no sessions, but touches of
    sessions for which there was no room.

Threads
    One thread, the control plane's, makes, changes, evicts and ends entries; any thread may `find`
    one and touch it. After `share`:
      - a partition's lock guards all that is in it, and its counters;
      - what is known of a shard is written by the control plane, and read as atomic numbers. Of an
        answer that shows a gap the epoch is raised first, and then the lease renewed; so the lease is
        read first: whoever sees the new lease sees the new epoch;
      - no lock is held while another one is taken, or for longer than a few entries take.
    Before it, the locks are not taken: one thread pays nothing for them.

Rules of this file
    - No clock: the caller says what time it is, in store time. No allocation after the start. No
      Python object per entry.
    - Eviction takes an entry off the LRU chain. A dirty or sent entry *lingers*: it can still be
      found, and keeps its slot, until its touch was written; if it is found before, it goes back on
      the LRU chain. So no touch is lost to eviction, and a session never has two pending touches.
    - An entry that is only out of date (lease, epoch, age, idle deadline) answers REFRESH, never a
      refusal: another gateway may have seen a use that this one did not.
    - Refusals are remembered apart, briefly, in a table of fixed size, where a newer one replaces
      an older one in its place. The table is read only after a signature was verified.
"""

cimport cython
from libc.math cimport ceil, sqrt
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from fastticket.core.atomics cimport ACQUIRE, RELAXED, RELEASE, load_i64, load_u32, store_i64, store_u32
from fastticket.core.lock cimport acquire, end_lock, make_lock, release
from fastticket.core.partition cimport (
    DIRTY,
    IN_LRU,
    INVALID,
    NONE,
    SENT,
    Refusal,
    copy_raw,
    enter_in_table,
    give_slots,
    has_room,
    in_proportion,
    is_ticket_of,
    leave_lru,
    leave_table,
    lookup,
    make_dirty,
    make_newest,
    tag_of,
    tails_of,
    take_dirty,
    take_slots,
    write_raw,
)
from fastticket.core.ticket cimport Keyring
from fastticket.core.wire cimport (
    PRINCIPAL_AT,
    PRINCIPAL_BYTES_MAX,
    PRINCIPAL_LENGTH_AT,
    RAW_BYTES_MAX,
    RAW_BYTES_MIN,
    SESSION_ID_AT,
    SESSION_ID_BYTES,
    TAG_BYTES,
    idle_deadline_after_ms,
    raw_absolute_deadline_ms,
    raw_idle_timeout_s,
    raw_key_id,
)

from fastticket.errors import Verdict as _Verdict

cdef extern from "<sys/mman.h>" nogil:
    enum: MADV_HUGEPAGE
    int madvise(void *at, size_t size, int advice)

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define FASTTICKET_HAS_NO_GIL 1
    #else
    #define FASTTICKET_HAS_NO_GIL 0
    #endif
    """
    bint HAS_NO_GIL "FASTTICKET_HAS_NO_GIL"

cdef enum:
    CAPACITY_MAX = 0x7FFFFFFF
    PARTITIONS = 16             # of a cache with room for PARTITIONED_MIN sessions; of a smaller one, 1
    PARTITIONED_MIN = 4096
    DEVIATIONS = 4              # room in each partition for this many standard deviations more than its share
    SLOT_BITS = 27              # of a place: the slot in its partition; the rest is the partition
    SLOT_MASK = (1 << SLOT_BITS) - 1
    UNHELD_MAX = 1024           # touches of sessions that are not held
    EVICTIONS_MAX = 64          # entries visited to make room for one
    SLOTS_PER_LOCK = 16         # visited at once, in a walk through all of them
    SLOTS_PER_CALL = 4096       # visited in one call: about a millisecond
    SEEN_BYTES = 16             # of Seen, before the ticket
    PAGE_BYTES = 4096
    HUGE_BYTES_MIN = 1 << 22    # a cache of that size asks for huge pages, as misses of the TLB are most of a hit


@cython.final
cdef class NearCache:
    def __cinit__(self, capacity, shards=1, *, slack_ms=500, touch_resolution_ms=0, recheck_s=300, refusal_ms=1000):
        if not 1 <= capacity <= CAPACITY_MAX:
            raise ValueError(f"capacity must be from 1 to {CAPACITY_MAX} sessions, not {capacity}")
        if not 1 <= shards <= 16384:
            raise ValueError(f"shards must be from 1 to 16384, not {shards}")
        self.capacity_asked = max(capacity, 1 + tails_of(RAW_BYTES_MAX))        # any one ticket must fit
        self.shard_count = shards
        self.touch_slack_ms = slack_ms
        self.touch_resolution_ms = touch_resolution_ms
        self.recheck_s = recheck_s
        self.refusal_ms = refusal_ms
        self.is_shared = HAS_NO_GIL
        self._allocate()

    cdef int _allocate(self) except -1:
        """Lay out one block: partitions, shards, then of each partition slots, table, refusals."""
        cdef uint32_t partitions = PARTITIONS if self.capacity_asked >= PARTITIONED_MIN else 1
        cdef double share = <double>self.capacity_asked / partitions
        # Session ids are random: a partition gets its share of them, give or take.
        cdef uint32_t slots = <uint32_t>ceil(share + (DEVIATIONS * sqrt(share) if partitions > 1 else 0))
        cdef uint32_t refusals = max(1, slots // 16)
        cdef size_t head_bytes = (partitions + 1) * sizeof(Partition) + self.shard_count * sizeof(Shard)
        cdef size_t part_bytes = slots * sizeof(Slot) + _table_size(slots) * sizeof(uint64_t) + refusals * sizeof(Refusal)
        cdef size_t unheld_bytes = UNHELD_MAX * sizeof(Slot) + _table_size(UNHELD_MAX) * sizeof(uint64_t)
        cdef uint8_t *at
        cdef uint32_t i
        self.memory_bytes = head_bytes + partitions * part_bytes + unheld_bytes
        self.memory = calloc(1, self.memory_bytes)
        if self.memory == NULL:
            raise MemoryError(f"no memory for a near cache of {self.capacity_asked} sessions")
        if self.memory_bytes >= HUGE_BYTES_MIN:
            _ask_for_huge_pages(self.memory, self.memory_bytes)
        self.partition_count = partitions
        self.refusal_count = refusals
        self.partitions = <Partition *>self.memory
        self.shards = <Shard *>(self.partitions + partitions + 1)
        at = <uint8_t *>self.memory + head_bytes
        for i in range(partitions):
            at = _lay_out(&self.partitions[i], at, slots, refusals)
        _lay_out(self._unheld(), at, UNHELD_MAX, 0)
        return 0

    def __dealloc__(self):
        cdef uint32_t i
        if self.memory != NULL:
            for i in range(self.partition_count + 1):
                end_lock(&self.partitions[i].lock)
            free(self.memory)

    def __repr__(self):
        return f"<NearCache {len(self)} of {self.capacity_asked}>"

    def __len__(self):
        return self._totals().entries

    @property
    def capacity(self):
        return self.capacity_asked

    def share(self):
        if not self.is_shared:                          # else threads read it now
            self.is_shared = True

    @property
    def slack_ms(self):
        return load_i64(&self.touch_slack_ms, RELAXED)

    @slack_ms.setter
    def slack_ms(self, int64_t slack_ms):
        store_i64(&self.touch_slack_ms, slack_ms, RELAXED)

    # ---------------------------------------------------------------------------------- partitions

    cdef inline void _enter(self, Partition *p) noexcept nogil:
        if self.is_shared:
            acquire(&p.lock)

    cdef inline void _leave(self, Partition *p) noexcept nogil:
        if self.is_shared:
            release(&p.lock)

    cdef inline Partition *_partition_of(self, const uint8_t *session_id) noexcept nogil:
        return &self.partitions[session_id[4] & (self.partition_count - 1)]      # the tag has bytes 0 to 3

    cdef inline Partition *_unheld(self) noexcept nogil:
        return &self.partitions[self.partition_count]

    # ------------------------------------------------------------------------------------- hot path

    cdef Verdict find(
        self, const uint8_t *raw, int size, int64_t now_ms, bint touch, int64_t *idle_deadline_ms
    ) noexcept nogil:
        """Judge a ticket by what is held: HIT, MISS, REFRESH or EXPIRED. On HIT
        `*idle_deadline_ms` is set, and with `touch` the session is used at `now_ms`.
        """
        cdef Partition *p = self._partition_of(raw + SESSION_ID_AT)
        cdef int64_t absolute_ms = raw_absolute_deadline_ms(raw)
        cdef Verdict verdict = Verdict.MISS
        cdef uint32_t index
        self._enter(p)
        index = lookup(p, raw + SESSION_ID_AT)
        if index == NONE or not is_ticket_of(p, index, raw, size):
            p.misses += 1
        else:
            verdict = self._judge(&p.slots[index], absolute_ms, now_ms)
            if verdict == Verdict.HIT:
                p.hits += 1
                make_newest(p, index, now_ms)
                if touch:
                    self._touch(p, index, absolute_ms, now_ms)
                idle_deadline_ms[0] = p.slots[index].idle_deadline_ms
            elif verdict == Verdict.REFRESH:
                p.refreshes += 1
        self._leave(p)
        return verdict

    cdef inline Verdict _judge(self, const Slot *slot, int64_t absolute_ms, int64_t now_ms) noexcept nogil:
        cdef Shard *shard = &self.shards[slot.shard]
        if now_ms >= absolute_ms:
            return Verdict.EXPIRED
        if (
            slot.flags & INVALID
            or now_ms >= load_i64(&shard.lease_until_ms, ACQUIRE)       # before the epoch: see the rule at the top
            or slot.epoch != load_u32(&shard.epoch, RELAXED)
            or now_ms >= slot.idle_deadline_ms
            or now_ms >= (slot.loaded_at_s + self.recheck_s) * 1000
        ):
            return Verdict.REFRESH
        return Verdict.HIT

    cdef inline void _touch(self, Partition *p, uint32_t index, int64_t absolute_ms, int64_t now_ms) noexcept nogil:
        """Note a use: move the deadline, and put the entry on the dirty chain unless it is there
        already. A deadline that would move by `touch_resolution_ms` or less is not moved.
        """
        cdef Slot *slot = &p.slots[index]
        cdef int64_t deadline_ms = idle_deadline_after_ms(
            raw_idle_timeout_s(slot.raw), absolute_ms, now_ms, load_i64(&self.touch_slack_ms, RELAXED))
        if deadline_ms <= slot.idle_deadline_ms + self.touch_resolution_ms:
            p.touches_coalesced += 1
            return
        slot.idle_deadline_ms = deadline_ms
        if slot.flags & DIRTY:
            p.touches_coalesced += 1
            return
        make_dirty(p, index)

    cdef Verdict refusal(self, const uint8_t *session_id, int64_t now_ms) noexcept nogil:
        """The remembered refusal of a session, or HIT if there is none."""
        cdef Partition *p = self._partition_of(session_id)
        cdef Refusal *place = &p.refusals[in_proportion(tag_of(session_id), self.refusal_count)]
        cdef Verdict verdict = Verdict.HIT
        self._enter(p)
        if now_ms < place.until_ms and memcmp(place.session_id, session_id, SESSION_ID_BYTES) == 0:
            verdict = <Verdict>place.verdict
        self._leave(p)
        return verdict

    # ------------------------------------------------------------------- entries; under their lock

    cdef bint put(
        self, const uint8_t *raw, int size, uint16_t shard, int64_t deadline_ms, int64_t now_ms, bint touch
    ) noexcept nogil:
        """Enter a verified ticket whose session was loaded and lives, or renew its entry. False:
        there is no room before touches were written, or the session id has another ticket.
        """
        cdef Partition *p = self._partition_of(raw + SESSION_ID_AT)
        cdef bint is_held = False
        cdef uint32_t index
        cdef Slot *slot
        self._enter(p)
        index = lookup(p, raw + SESSION_ID_AT)
        if index == NONE and self._make_room(p, 1 + tails_of(size)):
            index = self._make_entry(p, raw, size, shard)
        # One session id, two principals: no login makes such a ticket; it is not held.
        if index != NONE and p.slots[index].size == size:
            is_held = True
            slot = &p.slots[index]
            write_raw(p, index, raw, size)      # the same session may come under another signature: a newer key
            # A touch of this gateway may still be on its way to the store: the deadline that was
            # loaded can be older than the entry's.
            slot.idle_deadline_ms = max(deadline_ms, slot.idle_deadline_ms)
            slot.epoch = self.shards[shard].epoch
            slot.loaded_at_s = <uint32_t>(now_ms // 1000)
            slot.flags &= ~INVALID
            make_newest(p, index, now_ms)
            if touch:
                self._touch(p, index, raw_absolute_deadline_ms(raw), now_ms)
        self._leave(p)
        return is_held

    cdef uint32_t _make_entry(self, Partition *p, const uint8_t *raw, int size, uint16_t shard) noexcept nogil:
        """Put a ticket into the table. There is room for it."""
        cdef uint32_t index = take_slots(p, size)
        p.slots[index].flags = 0
        p.slots[index].shard = shard
        p.slots[index].idle_deadline_ms = 0
        write_raw(p, index, raw, size)
        enter_in_table(p, index, raw + SESSION_ID_AT)
        p.entry_count += 1
        self.shards[shard].entry_count += 1
        return index

    cdef bint _make_room(self, Partition *p, uint32_t wanted) noexcept nogil:
        """Evict from the oldest end until `wanted` slots are free. False: EVICTIONS_MAX entries did
        not suffice, because dirty and sent ones only begin to linger.
        """
        cdef int looked_at = 0
        cdef uint32_t victim
        while not has_room(p, wanted):
            victim = p.oldest
            if victim == NONE or looked_at == EVICTIONS_MAX:
                return False
            looked_at += 1
            leave_lru(p, victim)
            if not p.slots[victim].flags & (DIRTY | SENT):
                p.evictions += 1
                self._forget(p, victim)
        return True

    cdef void _forget(self, Partition *p, uint32_t index) noexcept nogil:
        """Take an entry out of the table and free its slots. It is on neither chain, nor sent."""
        leave_table(p, index)
        self.shards[p.slots[index].shard].entry_count -= 1
        give_slots(p, index)
        p.entry_count -= 1

    cdef void _invalidate(self, Partition *p, uint32_t index) noexcept nogil:
        """The entry answers nothing any more, and its touch is not written."""
        cdef Slot *slot = &p.slots[index]
        slot.flags |= INVALID
        if slot.flags & IN_LRU:
            leave_lru(p, index)
        if not slot.flags & (DIRTY | SENT):
            self._forget(p, index)

    cdef void _invalidate_session(self, Partition *p, const uint8_t *session_id) noexcept nogil:
        cdef uint32_t index
        self._enter(p)
        index = lookup(p, session_id)
        if index != NONE:
            self._invalidate(p, index)
        self._leave(p)

    # ------------------------------------------------------------------------ touches and the store

    cdef bint _send_first(
        self, Partition *p, uint8_t *raw, int64_t *deadline_ms, uint16_t *shard, uint32_t *index
    ) noexcept nogil:
        """Take the first entry off the dirty chain: it is sent now. False: its session has ended,
        or an earlier touch of it is still on its way, and it goes to the end of the chain.
        """
        cdef Slot *slot
        cdef bint is_sent = False
        self._enter(p)
        index[0] = take_dirty(p)
        slot = &p.slots[index[0]]
        if slot.flags & INVALID:
            if not slot.flags & (IN_LRU | SENT):
                self._forget(p, index[0])
        elif slot.flags & SENT:
            make_dirty(p, index[0])
        else:
            is_sent = True
            slot.flags |= SENT
            p.sent_count += 1
            copy_raw(p, index[0], raw)
            deadline_ms[0] = slot.idle_deadline_ms
            shard[0] = slot.shard
        self._leave(p)
        return is_sent

    cdef bint _is_written_with_entry(self, Partition *unheld) noexcept nogil:
        """Whether the session of the first touch without an entry has got one since, and a touch of
        that is on its way that is no earlier. Those of entries are sent first. One that is dirty
        may have to wait for the next flush, and this one must not.
        """
        cdef Slot *touch = &unheld.slots[unheld.dirty_first]
        cdef Partition *p = self._partition_of(touch.raw + SESSION_ID_AT)
        cdef uint32_t index
        cdef bint is_written = False
        self._enter(p)
        index = lookup(p, touch.raw + SESSION_ID_AT)
        if index != NONE and p.slots[index].flags & (DIRTY | SENT | INVALID) == SENT:
            is_written = p.slots[index].idle_deadline_ms >= touch.idle_deadline_ms
        self._leave(p)
        return is_written

    cdef void _drop_first(self, Partition *p) noexcept nogil:
        """Take the first entry off the dirty chain, and forget it if no touch of it is on its
        way.
        """
        cdef uint32_t index
        self._enter(p)
        index = take_dirty(p)
        if not p.slots[index].flags & SENT:
            self._forget(p, index)
        self._leave(p)

    cdef void _settle(self, uint32_t place, bint is_written) noexcept nogil:
        """A sent touch was written, or was not and is dirty again. An entry that lingered for it
        goes.
        """
        cdef Partition *p = &self.partitions[place >> SLOT_BITS]
        cdef uint32_t index = place & SLOT_MASK
        cdef Slot *slot = &p.slots[index]
        self._enter(p)
        slot.flags &= ~SENT
        p.sent_count -= 1
        if not slot.flags & DIRTY:
            if not is_written and not slot.flags & INVALID:
                make_dirty(p, index)
            elif not slot.flags & IN_LRU:
                if not slot.flags & INVALID and p != self._unheld():
                    p.evictions += 1
                self._forget(p, index)
        self._leave(p)

    def take(self, dict taken not None, Py_ssize_t touches_max, Py_ssize_t piece, *, bint begins=True):
        """A partition's share is what waits there when a flush begins: what comes while it goes on
        does not take the place of what waits in the next one.
        """
        cdef uint8_t[RAW_BYTES_MAX] raw
        cdef int64_t deadline_ms = 0
        cdef uint16_t shard = 0
        cdef uint32_t index = 0
        cdef uint32_t number
        cdef Partition *p
        cdef Py_ssize_t count = 0
        if begins:
            for number in range(self.partition_count + 1):
                self.partitions[number].to_take = self._dirty_in(&self.partitions[number])
        for number in range(self.partition_count + 1):
            p = &self.partitions[number]
            while p.to_take and count < touches_max:
                p.to_take -= 1
                if p == self._unheld() and self._is_written_with_entry(p):
                    self._drop_first(p)
                elif self._send_first(p, raw, &deadline_ms, &shard, &index):
                    self._write_touch(taken, shard, piece, number << SLOT_BITS | index, raw, deadline_ms)
                    count += 1
        return count

    cdef int _write_touch(
        self, dict taken, uint16_t shard, Py_ssize_t piece, uint32_t place, const uint8_t *raw, int64_t deadline_ms
    ) except -1:
        """Add a sent touch to the last Touches of its shard, or to a new one."""
        cdef Touches touches = None
        cdef list pieces
        try:
            pieces = taken.get(shard)
            if pieces is None:
                pieces = taken[shard] = []
            if pieces:
                touches = pieces[len(pieces) - 1]
            if touches is None or touches.count >= <uint32_t>piece:
                touches = Touches(shard)
                touches.is_out = True
                pieces.append(touches)
            if not touches.make_room():
                raise MemoryError("no memory for touches")
        except BaseException:
            self._settle(place, False)
            raise
        touches.add(place, raw + SESSION_ID_AT, raw + PRINCIPAL_AT, raw[PRINCIPAL_LENGTH_AT], deadline_ms)
        return 0

    def acknowledge(self, Touches touches not None):
        cdef uint32_t i
        for i in range(touches.settle()):
            self._settle(touches.places[i], True)

    def give_back(self, Touches touches not None):
        cdef uint32_t i
        for i in range(touches.settle()):
            self._settle(touches.places[i], False)

    def touch_unheld(
        self, shard, const uint8_t[::1] session_id, const uint8_t[::1] principal, int64_t idle_deadline_ms
    ):
        """It has an entry like a ticket's, but for what nobody reads, in the partition where nobody
        looks for tickets.
        """
        cdef uint8_t[RAW_BYTES_MAX] raw
        cdef int size = PRINCIPAL_AT + <int>principal.shape[0] + TAG_BYTES
        cdef Partition *p = self._unheld()
        cdef uint32_t index
        self._shard(shard)
        _check_session_id(session_id)
        if not 0 < principal.shape[0] <= PRINCIPAL_BYTES_MAX:
            raise ValueError(f"a principal has 1 to {PRINCIPAL_BYTES_MAX} bytes, not {principal.shape[0]}")
        memset(raw, 0, sizeof(raw))
        memcpy(raw + SESSION_ID_AT, &session_id[0], SESSION_ID_BYTES)
        raw[PRINCIPAL_LENGTH_AT] = <uint8_t>principal.shape[0]
        memcpy(raw + PRINCIPAL_AT, &principal[0], principal.shape[0])
        self._enter(p)
        index = lookup(p, &session_id[0])
        if index == NONE and has_room(p, 1 + tails_of(size)):
            index = self._make_entry(p, raw, size, shard)
        if index != NONE and p.slots[index].idle_deadline_ms < idle_deadline_ms:
            p.slots[index].idle_deadline_ms = idle_deadline_ms
            if not p.slots[index].flags & DIRTY:
                make_dirty(p, index)
        self._leave(p)
        return index != NONE

    # --------------------------------------------------- what the control plane says of sessions

    def insert(self, const uint8_t[::1] raw, shard, int64_t idle_deadline_ms, int64_t now_ms, bint touch=True):
        _check_size(raw)
        self._shard(shard)
        return bool(self.put(&raw[0], <int>raw.shape[0], shard, idle_deadline_ms, now_ms, touch))

    def extend(self, const uint8_t[::1] raw, int64_t now_ms):
        """While the store is away, put off an entry's recheck. False: the entry is not held, must
        be loaded again for another reason, or its session is past a deadline.
        """
        cdef Partition *p
        cdef Slot *slot
        cdef uint32_t index
        cdef bint lives = False
        _check_size(raw)
        p = self._partition_of(&raw[SESSION_ID_AT])
        self._enter(p)
        index = lookup(p, &raw[SESSION_ID_AT])
        if index != NONE and is_ticket_of(p, index, &raw[0], <int>raw.shape[0]):
            slot = &p.slots[index]
            if not slot.flags & INVALID and slot.epoch == self.shards[slot.shard].epoch:
                slot.loaded_at_s = <uint32_t>(now_ms // 1000)
                lives = now_ms < slot.idle_deadline_ms and now_ms < raw_absolute_deadline_ms(slot.raw)
        self._leave(p)
        return lives

    def confirm(self, const uint8_t[::1] session_id, epoch, int64_t idle_deadline_ms, int64_t now_ms):
        """The store said that a session lives. False, and nothing is changed: the session is not
        held or was ended, or its shard's epoch is another by now.
        """
        cdef Partition *p
        cdef Slot *slot
        cdef uint32_t index
        cdef bint is_held = False
        _check_session_id(session_id)
        p = self._partition_of(&session_id[0])
        self._enter(p)
        index = lookup(p, &session_id[0])
        if index != NONE:
            slot = &p.slots[index]
            is_held = not slot.flags & INVALID and self.shards[slot.shard].epoch == <uint32_t>epoch
            if is_held:
                slot.epoch = <uint32_t>epoch
                slot.loaded_at_s = <uint32_t>(now_ms // 1000)
                slot.idle_deadline_ms = max(slot.idle_deadline_ms, idle_deadline_ms)
        self._leave(p)
        return is_held

    def idle_deadline_ms(self, const uint8_t[::1] session_id):
        """The latest known idle deadline of a session, written to the store or not; 0: it is not
        held, and no touch of it waits.
        """
        _check_session_id(session_id)
        return max(
            self._deadline_in(self._partition_of(&session_id[0]), &session_id[0]),
            self._deadline_in(self._unheld(), &session_id[0]),
        )

    cdef int64_t _deadline_in(self, Partition *p, const uint8_t *session_id) noexcept nogil:
        cdef int64_t deadline_ms = 0
        cdef uint32_t index
        self._enter(p)
        index = lookup(p, session_id)
        if index != NONE and not p.slots[index].flags & INVALID:
            deadline_ms = p.slots[index].idle_deadline_ms
        self._leave(p)
        return deadline_ms

    def raw(self, const uint8_t[::1] session_id):
        """The ticket of a session that is held, decoded; None: it is not held."""
        cdef uint8_t[RAW_BYTES_MAX] raw
        cdef Partition *p
        cdef uint32_t index
        cdef int size = 0
        _check_session_id(session_id)
        p = self._partition_of(&session_id[0])
        self._enter(p)
        index = lookup(p, &session_id[0])
        if index != NONE and not p.slots[index].flags & INVALID:
            size = p.slots[index].size
            copy_raw(p, index, raw)
        self._leave(p)
        return (<char *>raw)[:size] if size else None

    def refuse(self, const uint8_t[::1] session_id, verdict, int64_t now_ms):
        """A session has ended: forget its entry and its touch, and remember why for `refusal_ms`.
        """
        cdef Partition *p
        cdef Refusal *place
        cdef int64_t why = verdict.value
        _check_session_id(session_id)
        p = self._partition_of(&session_id[0])
        place = &p.refusals[in_proportion(tag_of(&session_id[0]), self.refusal_count)]
        self._enter(p)
        memcpy(place.session_id, &session_id[0], SESSION_ID_BYTES)
        place.verdict = why
        place.until_ms = now_ms + self.refusal_ms
        self._leave(p)
        self._invalidate_session(p, &session_id[0])
        self._invalidate_session(self._unheld(), &session_id[0])

    def remembered_refusal(self, const uint8_t[::1] session_id, int64_t now_ms):
        cdef Verdict verdict
        _check_session_id(session_id)
        verdict = self.refusal(&session_id[0], now_ms)
        return None if verdict == Verdict.HIT else _Verdict(<int>verdict)

    def forget_refusals(self):
        """Forget all of them. The clock was set, so they could be remembered for an hour. Memory
        that none was ever in stays untouched: each process sets its clock when it starts.
        """
        cdef uint32_t number
        cdef uint32_t i
        for number in range(self.partition_count):
            for i in range(self.refusal_count):
                self._enter(&self.partitions[number])
                if self.partitions[number].refusals[i].until_ms:
                    self.partitions[number].refusals[i].until_ms = 0
                self._leave(&self.partitions[number])

    # ------------------------------------------------------------------------------------- shards

    def renew_lease(self, shard, int64_t until_ms):
        """Let a shard's entries answer until `until_ms`. A lease is never shortened."""
        cdef Shard *at = self._shard(shard)
        store_i64(&at.lease_until_ms, max(at.lease_until_ms, until_ms), RELEASE)

    def shift_lease(self, shard, int64_t by_ms):
        """The clock was set: a lease keeps its length."""
        cdef Shard *at = self._shard(shard)
        store_i64(&at.lease_until_ms, at.lease_until_ms + by_ms, RELEASE)

    def bump_epoch(self, shard):
        """Every entry of the shard must be loaded again before its next hit."""
        cdef Shard *at = self._shard(shard)
        store_u32(&at.epoch, at.epoch + 1, RELAXED)

    def epoch(self, shard):
        return self._shard(shard).epoch

    def lease_until_ms(self, shard):
        return self._shard(shard).lease_until_ms

    def held_in(self, shard):
        return self._shard(shard).entry_count

    cdef Shard *_shard(self, object number) except NULL:
        if not 0 <= number < self.shard_count:
            raise ValueError(f"there are {self.shard_count} shards, no number {number}")
        return &self.shards[<uint16_t>number]

    # --------------------------------------------------------------------- walks through all entries

    def drop_key(self, key):
        """Invalidate every entry verified under a key id; how many there were. Visits all."""
        cdef uint8_t key_id = key
        cdef uint32_t number
        cdef uint32_t first
        dropped = 0
        for number in range(self.partition_count):
            for first in range(0, self.partitions[number].fresh, SLOTS_PER_LOCK):
                dropped += self._drop_key_in(&self.partitions[number], first, key_id)
        return dropped

    cdef uint32_t _drop_key_in(self, Partition *p, uint32_t first, uint8_t key_id) noexcept nogil:
        cdef uint32_t dropped = 0
        cdef uint32_t i
        self._enter(p)
        for i in range(first, min(first + SLOTS_PER_LOCK, p.fresh)):
            if p.slots[i].size and raw_key_id(p.slots[i].raw) == key_id and not p.slots[i].flags & INVALID:
                self._invalidate(p, i)
                dropped += 1
        self._leave(p)
        return dropped

    def stale(self, uint32_t cursor, Py_ssize_t entries_max):
        """Some of the entries that are older than their shard's epoch, and where to go on. Visits
        SLOTS_PER_CALL slots at most.
        """
        cdef Seen[SLOTS_PER_LOCK] seen
        cdef list found = []
        cdef Seen *each
        cdef int i
        cdef int visited = 0
        while cursor != NONE and len(found) < entries_max and visited < SLOTS_PER_CALL:
            for i in range(self._see(&cursor, True, seen)):
                each = &seen[i]
                found.append((
                    each.shard,
                    (<char *>each.raw)[SESSION_ID_AT:SESSION_ID_AT + SESSION_ID_BYTES],
                    (<char *>each.raw)[PRINCIPAL_AT:PRINCIPAL_AT + each.raw[PRINCIPAL_LENGTH_AT]],
                ))
            visited += SLOTS_PER_LOCK
        return found, None if cursor == NONE else cursor

    def snapshot(self, uint32_t cursor):
        """Some of the entries that may answer, for `restore` in another process, and where to go
        on. Visits SLOTS_PER_CALL slots at most.
        """
        cdef Seen[SLOTS_PER_LOCK] seen
        cdef list parts = []
        cdef int i
        cdef int visited = 0
        while cursor != NONE and visited < SLOTS_PER_CALL:
            for i in range(self._see(&cursor, False, seen)):
                parts.append((<char *>&seen[i])[:SEEN_BYTES + seen[i].size])
            visited += SLOTS_PER_LOCK
        return b"".join(parts), None if cursor == NONE else cursor

    def restore(self, const uint8_t[::1] entries, Keyring keys not None, int64_t now_ms):
        """Enter what `snapshot` has, as far as its tickets are authentic under these keys."""
        cdef Py_ssize_t at = 0
        cdef Seen each
        restored = 0
        while at < entries.shape[0]:
            if entries.shape[0] - at < SEEN_BYTES:
                raise ValueError("the snapshot is cut off")
            memcpy(&each, &entries[at], SEEN_BYTES)
            if not RAW_BYTES_MIN <= each.size <= RAW_BYTES_MAX or each.shard >= self.shard_count \
                    or entries.shape[0] - at - SEEN_BYTES < each.size:
                raise ValueError("that is no snapshot of a near cache with these shards")
            memcpy(each.raw, &entries[at + SEEN_BYTES], each.size)
            at += SEEN_BYTES + each.size
            if keys.verify_raw(each.raw, each.size, now_ms) == Verdict.HIT:
                restored += self._restore_one(&each, now_ms)
        return restored

    cdef bint _restore_one(self, const Seen *each, int64_t now_ms) noexcept nogil:
        cdef Partition *p = self._partition_of(each.raw + SESSION_ID_AT)
        cdef uint32_t index
        if not self.put(each.raw, each.size, each.shard, each.idle_deadline_ms, now_ms, False):
            return False
        self._enter(p)
        index = lookup(p, each.raw + SESSION_ID_AT)
        p.slots[index].loaded_at_s = each.loaded_at_s       # it was looked up then, not now
        self._leave(p)
        return True

    cdef int _see(self, uint32_t *cursor, bint is_stale, Seen *seen) noexcept nogil:
        """Copy the entries in SLOTS_PER_LOCK slots that are stale, or are not, and move the cursor:
        a place, or NONE at the end.
        """
        cdef Partition *p = &self.partitions[cursor[0] >> SLOT_BITS]
        cdef uint32_t i = cursor[0] & SLOT_MASK
        cdef uint32_t last = i + SLOTS_PER_LOCK
        cdef int count = 0
        cdef Slot *slot
        self._enter(p)
        while i < last and i < p.fresh:
            slot = &p.slots[i]
            if slot.size and not slot.flags & INVALID and (slot.epoch != self.shards[slot.shard].epoch) == is_stale:
                seen[count].size = slot.size
                seen[count].shard = slot.shard
                seen[count].loaded_at_s = slot.loaded_at_s
                seen[count].idle_deadline_ms = slot.idle_deadline_ms
                copy_raw(p, i, seen[count].raw)
                count += 1
            i += 1
        if i < p.fresh:
            cursor[0] += SLOTS_PER_LOCK
        elif (cursor[0] >> SLOT_BITS) + 1 < self.partition_count:
            cursor[0] = ((cursor[0] >> SLOT_BITS) + 1) << SLOT_BITS
        else:
            cursor[0] = NONE
        self._leave(p)
        return count

    # ------------------------------------------------------------------------------------- counters

    cdef uint32_t _dirty_in(self, Partition *p) noexcept nogil:
        cdef uint32_t count
        self._enter(p)
        count = p.dirty_count
        self._leave(p)
        return count

    cdef Totals _totals(self) noexcept nogil:
        cdef Totals totals
        cdef Partition *p
        cdef uint32_t i
        memset(&totals, 0, sizeof(totals))
        for i in range(self.partition_count + 1):
            p = &self.partitions[i]
            self._enter(p)
            totals.entries += p.entry_count if p != self._unheld() else 0
            totals.dirty += p.dirty_count
            totals.sent += p.sent_count
            totals.hits += p.hits
            totals.misses += p.misses
            totals.refreshes += p.refreshes
            totals.evictions += p.evictions
            totals.touches_coalesced += p.touches_coalesced
            self._leave(p)
        return totals

    @property
    def entry_count(self):
        return self._totals().entries

    @property
    def dirty_count(self):
        return self._totals().dirty

    @property
    def sent_count(self):
        return self._totals().sent

    @property
    def hits(self):
        return self._totals().hits

    @property
    def misses(self):
        return self._totals().misses

    @property
    def refreshes(self):
        return self._totals().refreshes

    @property
    def evictions(self):
        return self._totals().evictions

    @property
    def touches_coalesced(self):
        return self._totals().touches_coalesced

    # -------------------------------------------------------------------------- for tests and tools

    def lookup(self, const uint8_t[::1] raw, int64_t now_ms, bint touch=True):
        cdef int64_t deadline_ms = 0
        cdef Verdict verdict
        _check_size(raw)
        verdict = self.find(&raw[0], <int>raw.shape[0], now_ms, touch, &deadline_ms)
        return deadline_ms if verdict == Verdict.HIT else _Verdict(<int>verdict)


cdef uint32_t _table_size(uint32_t slots) noexcept:
    """Three quarters of the table are in use when all slots are."""
    return slots + slots // 3 + 1


cdef uint8_t *_lay_out(Partition *p, uint8_t *at, uint32_t slots, uint32_t refusals) noexcept:
    """Make a partition of the zeroed memory from `at` on; where the next one begins."""
    make_lock(&p.lock)
    p.slot_count = slots
    p.table_size = _table_size(slots)
    p.free_first = p.newest = p.oldest = p.dirty_first = p.dirty_last = NONE
    p.slots = <Slot *>at
    p.table = <uint64_t *>(p.slots + slots)
    p.refusals = <Refusal *>(p.table + p.table_size)
    return <uint8_t *>(p.refusals + refusals)


cdef void _ask_for_huge_pages(void *memory, size_t size) noexcept nogil:
    """A hint, for the whole pages in between."""
    cdef size_t first = (<size_t>memory + PAGE_BYTES - 1) & ~<size_t>(PAGE_BYTES - 1)
    madvise(<void *>first, (<size_t>memory + size - first) & ~<size_t>(PAGE_BYTES - 1), MADV_HUGEPAGE)


cdef int _check_size(const uint8_t[::1] raw) except -1:
    if not RAW_BYTES_MIN <= raw.shape[0] <= RAW_BYTES_MAX:
        raise ValueError(f"a raw ticket has {RAW_BYTES_MIN} to {RAW_BYTES_MAX} bytes, not {raw.shape[0]}")
    return 0


cdef int _check_session_id(const uint8_t[::1] session_id) except -1:
    if session_id.shape[0] != SESSION_ID_BYTES:
        raise ValueError(f"a session id has {SESSION_ID_BYTES} bytes, not {session_id.shape[0]}")
    return 0
