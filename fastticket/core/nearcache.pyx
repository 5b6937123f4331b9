# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The near cache: verified tickets with what the store last said of their sessions.

Structure
    One allocation holds the slots, the buckets and the shards; links are slot numbers. A ticket
    takes one slot of 144 bytes, one or two more if its principal is longer than 27 bytes. An entry
    is
      - in the bucket chain that bits of its session id select (random, and only verified tickets
        get in: no flooding);
      - in the LRU chain, newest first;
      - if it was touched, in its shard's dirty chain: the entry is the write-behind buffer, so
        touches coalesce for free.

Rules of this file
    - No clock: the caller says what time it is, in store time. No allocation after the start. No
      Python object per entry.
    - Eviction takes an entry off the LRU chain. A dirty entry *lingers*: it can still be found, and
      keeps its slot, until its touch was drained; if it is found before, it goes back on the LRU
      chain. So no touch is lost to eviction, and a session never has two pending touches.
    - An entry that is only out of date (lease, epoch, age, idle deadline) answers REFRESH, never a
      refusal: another gateway may have seen a use that this one did not.
    - Refusals are remembered apart, briefly, in a table of fixed size, where a newer one replaces
      an older one in its place. The table is read only after a signature was verified.
"""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from fastticket.core.wire cimport (
    PRINCIPAL_AT,
    PRINCIPAL_LENGTH_AT,
    RAW_BYTES_MAX,
    RAW_BYTES_MIN,
    SESSION_ID_AT,
    SESSION_ID_BYTES,
    idle_deadline_after_ms,
    raw_idle_timeout_s,
    raw_absolute_deadline_ms,
    raw_key_id,
)

from fastticket.errors import Verdict as _Verdict

cdef enum:
    NONE = 0xFFFFFFFF
    IN_LRU = 1
    DIRTY = 2
    INVALID = 4                 # must be loaded again, whatever its epoch; its touch is not drained
    CAPACITY_MAX = 0x7FFFFFFF
    EVICTIONS_MAX = 64          # entries visited to make room for one
    STALE_BUCKETS = 4096        # buckets visited in one call, in about a millisecond


cdef inline uint8_t *_tail_bytes(Slot *slot) noexcept nogil:
    return <uint8_t *>slot + sizeof(uint32_t)


cdef inline int _tails_of(int size) noexcept nogil:
    return 0 if size <= INLINE_BYTES else (size - INLINE_BYTES + TAIL_BYTES - 1) // TAIL_BYTES


cdef inline uint64_t _word(const uint8_t *at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, sizeof(word))
    return word


cdef inline uint64_t _difference(const uint8_t *a, const uint8_t *b, size_t size) noexcept nogil:
    """0 if equal. The time does not depend on where a difference is. By words: CRYPTO_memcmp goes
    by bytes.
    """
    cdef uint64_t difference = 0
    cdef size_t i = 0
    while i + 8 <= size:
        difference |= _word(a + i) ^ _word(b + i)
        i += 8
    if i and i < size:
        return difference | (_word(a + size - 8) ^ _word(b + size - 8))     # this word overlaps the one before
    while i < size:
        difference |= a[i] ^ b[i]
        i += 1
    return difference


cdef inline bint _is_same_id(const uint8_t *a, const uint8_t *b) noexcept nogil:
    return ((_word(a) ^ _word(b)) | (_word(a + 8) ^ _word(b + 8))) == 0


@cython.final
cdef class NearCache:
    def __cinit__(self, capacity, shards=1, *, slack_ms=500, touch_resolution_ms=0, recheck_s=300, refusal_ms=1000):
        cdef size_t slot_bytes, shard_bytes, refusal_bytes, bucket_bytes
        cdef uint32_t bucket_count = 1
        cdef uint32_t refusal_count
        cdef uint32_t i
        if not 1 <= capacity <= CAPACITY_MAX:
            raise ValueError(f"capacity must be from 1 to {CAPACITY_MAX} sessions, not {capacity}")
        if not 1 <= shards <= 16384:
            raise ValueError(f"shards must be from 1 to 16384, not {shards}")
        self.slot_count = max(capacity, 1 + _tails_of(RAW_BYTES_MAX))      # any one ticket must fit
        self.shard_count = shards
        while bucket_count < self.slot_count:
            bucket_count *= 2
        slot_bytes = self.slot_count * sizeof(Slot)
        shard_bytes = self.shard_count * sizeof(Shard)
        bucket_bytes = bucket_count * sizeof(uint32_t)
        refusal_count = max(1, bucket_count // 16)
        refusal_bytes = refusal_count * sizeof(Refusal)
        self.memory_bytes = slot_bytes + shard_bytes + refusal_bytes + bucket_bytes
        self.memory = calloc(1, self.memory_bytes)
        if self.memory == NULL:
            raise MemoryError(f"no memory for a near cache of {capacity} sessions")
        self.slots = <Slot *>self.memory
        self.shards = <Shard *>(<char *>self.memory + slot_bytes)
        self.refusals = <Refusal *>(<char *>self.memory + slot_bytes + shard_bytes)
        self.buckets = <uint32_t *>(<char *>self.memory + slot_bytes + shard_bytes + refusal_bytes)
        self.bucket_mask = bucket_count - 1
        self.refusal_mask = refusal_count - 1
        self.free_first = NONE
        self.newest = NONE
        self.oldest = NONE
        self.touch_slack_ms = slack_ms
        self.touch_resolution_ms = touch_resolution_ms
        self.recheck_s = recheck_s
        self.refusal_ms = refusal_ms
        for i in range(self.shard_count):
            self.shards[i].dirty_first = NONE
            self.shards[i].dirty_last = NONE

    def __dealloc__(self):
        free(self.memory)

    def __repr__(self):
        return f"<NearCache {self.entry_count} of {self.slot_count}>"

    def __len__(self):
        return self.entry_count

    @property
    def capacity(self):
        return self.slot_count

    @property
    def slack_ms(self):
        return self.touch_slack_ms

    @slack_ms.setter
    def slack_ms(self, int64_t slack_ms):
        self.touch_slack_ms = slack_ms

    @property
    def dirty_count(self):
        return sum(self.shards[i].dirty_count for i in range(self.shard_count))

    # ------------------------------------------------------------------------------------- hot path

    cdef Verdict find(
        self, const uint8_t *raw, int size, int64_t now_ms, bint touch, int64_t *idle_deadline_ms
    ) noexcept nogil:
        """Judge a ticket by what is held: HIT, MISS, REFRESH or EXPIRED. On HIT
        `*idle_deadline_ms` is set, and with `touch` the session is used at `now_ms`.
        """
        cdef uint32_t index = self._lookup(raw + SESSION_ID_AT)
        cdef Slot *slot
        cdef Shard *shard
        if index == NONE or not self._same(&self.slots[index], raw, size):
            self.misses += 1
            return Verdict.MISS
        slot = &self.slots[index]
        shard = &self.shards[slot.shard]
        if now_ms >= slot.absolute_deadline_ms:
            return Verdict.EXPIRED
        if (
            slot.flags & INVALID
            or slot.epoch != shard.epoch
            or now_ms >= shard.lease_until_ms
            or now_ms >= slot.idle_deadline_ms
            or now_ms >= (slot.loaded_at_s + self.recheck_s) * 1000
        ):
            self.refreshes += 1
            return Verdict.REFRESH
        self.hits += 1
        self._use(index)
        if touch:
            self._touch(index, now_ms)
        idle_deadline_ms[0] = slot.idle_deadline_ms
        return Verdict.HIT

    cdef inline uint32_t _bucket(self, const uint8_t *session_id) noexcept nogil:
        cdef uint32_t bits
        memcpy(&bits, session_id, sizeof(bits))
        return bits & self.bucket_mask

    cdef inline uint32_t _lookup(self, const uint8_t *session_id) noexcept nogil:
        # Buckets hold slot number + 1, so that zeroed memory is an empty table.
        cdef uint32_t index = self.buckets[self._bucket(session_id)] - 1
        while index != NONE:
            if _is_same_id(self.slots[index].raw + SESSION_ID_AT, session_id):
                return index
            index = self.slots[index].next
        return NONE

    cdef inline bint _same(self, const Slot *slot, const uint8_t *raw, int size) noexcept nogil:
        """Whether the entry is of exactly this ticket; in constant time for tickets of one size."""
        cdef uint32_t tail = slot.tail
        cdef int at = INLINE_BYTES
        cdef uint64_t difference
        if slot.size != size:
            return False
        difference = _difference(slot.raw, raw, min(size, <int>INLINE_BYTES))
        while at < size:
            difference |= _difference(_tail_bytes(&self.slots[tail]), raw + at, min(size - at, <int>TAIL_BYTES))
            tail = self.slots[tail].next
            at += TAIL_BYTES
        return difference == 0

    cdef inline void _use(self, uint32_t index) noexcept nogil:
        """Move an entry to the newest end of the LRU chain, or put it back there if it lingers."""
        if index == self.newest:
            return
        if self.slots[index].flags & IN_LRU:
            self._unlink(index)
        self._link_newest(index)

    cdef inline void _link_newest(self, uint32_t index) noexcept nogil:
        cdef Slot *slot = &self.slots[index]
        slot.newer = NONE
        slot.older = self.newest
        if self.newest != NONE:
            self.slots[self.newest].newer = index
        else:
            self.oldest = index
        self.newest = index
        slot.flags |= IN_LRU

    cdef inline void _unlink(self, uint32_t index) noexcept nogil:
        cdef Slot *slot = &self.slots[index]
        if slot.newer != NONE:
            self.slots[slot.newer].older = slot.older
        else:
            self.newest = slot.older
        if slot.older != NONE:
            self.slots[slot.older].newer = slot.newer
        else:
            self.oldest = slot.newer
        slot.flags &= ~IN_LRU

    cdef inline void _touch(self, uint32_t index, int64_t now_ms) noexcept nogil:
        """Note a use: move the deadline, and put the entry on its shard's dirty chain unless it is
        there already. A deadline that would move by `touch_resolution_ms` or less is not moved.
        """
        cdef Slot *slot = &self.slots[index]
        cdef Shard *shard = &self.shards[slot.shard]
        cdef int64_t deadline_ms = idle_deadline_after_ms(
            raw_idle_timeout_s(slot.raw), slot.absolute_deadline_ms, now_ms, self.touch_slack_ms)
        if deadline_ms <= slot.idle_deadline_ms + self.touch_resolution_ms:
            self.touches_coalesced += 1
            return
        slot.idle_deadline_ms = deadline_ms
        if slot.flags & DIRTY:
            self.touches_coalesced += 1
            return
        slot.flags |= DIRTY
        slot.dirty_next = NONE
        if shard.dirty_last != NONE:
            self.slots[shard.dirty_last].dirty_next = index
        else:
            shard.dirty_first = index
        shard.dirty_last = index
        shard.dirty_count += 1

    cdef Verdict refusal(self, const uint8_t *session_id, int64_t now_ms) noexcept nogil:
        """The remembered refusal of a session, or HIT if there is none."""
        cdef Refusal *place = &self.refusals[self._bucket(session_id) & self.refusal_mask]
        if now_ms < place.until_ms and memcmp(place.session_id, session_id, SESSION_ID_BYTES) == 0:
            return <Verdict>place.verdict
        return Verdict.HIT

    # ---------------------------------------------------------------------- entries and their slots

    cdef bint put(
        self, const uint8_t *raw, int size, uint16_t shard, int64_t deadline_ms, int64_t now_ms, bint touch
    ) noexcept nogil:
        """Enter a verified ticket whose session was loaded and lives, or renew its entry. False:
        there is no room before touches were drained, or the session id has another ticket.
        """
        cdef uint32_t index = self._lookup(raw + SESSION_ID_AT)
        cdef Slot *slot
        if index == NONE:
            if not self._make_room(1 + _tails_of(size)):
                return False
            index = self._take_slot()
            self._enter(index, raw, size, shard)
        slot = &self.slots[index]
        if slot.size != size:
            return False            # one session id, two principals: no login makes such a ticket; it is not held
        self._write_raw(slot, raw, size)        # the same session may come under another signature: a newer key
        # A touch of this gateway may still be on its way to the store: the deadline that was loaded
        # can be older than the entry's.
        slot.idle_deadline_ms = max(deadline_ms, slot.idle_deadline_ms)
        slot.absolute_deadline_ms = raw_absolute_deadline_ms(raw)
        slot.epoch = self.shards[shard].epoch
        slot.loaded_at_s = <uint32_t>(now_ms // 1000)
        slot.flags &= ~INVALID
        self._use(index)
        if touch:
            self._touch(index, now_ms)
        return True

    cdef void _enter(self, uint32_t index, const uint8_t *raw, int size, uint16_t shard) noexcept nogil:
        """Put a ticket into the table. `_make_room` has freed the slots."""
        cdef Slot *slot = &self.slots[index]
        cdef uint32_t *bucket = &self.buckets[self._bucket(raw + SESSION_ID_AT)]
        cdef uint32_t *link = &slot.tail
        cdef uint32_t tail
        cdef int _
        slot.flags = 0
        slot.size = <uint16_t>size
        slot.shard = shard
        slot.idle_deadline_ms = 0
        slot.next = bucket[0] - 1
        bucket[0] = index + 1
        for _ in range(_tails_of(size)):
            tail = self._take_slot()
            link[0] = tail
            link = &self.slots[tail].next
        link[0] = NONE
        self.entry_count += 1
        self.shards[shard].entry_count += 1

    cdef void _write_raw(self, Slot *slot, const uint8_t *raw, int size) noexcept nogil:
        cdef uint32_t tail = slot.tail
        cdef int at = INLINE_BYTES
        memcpy(slot.raw, raw, min(size, <int>INLINE_BYTES))
        while at < size:
            memcpy(_tail_bytes(&self.slots[tail]), raw + at, min(size - at, <int>TAIL_BYTES))
            tail = self.slots[tail].next
            at += TAIL_BYTES

    cdef void _copy_raw(self, const Slot *slot, uint8_t *raw) noexcept nogil:
        cdef uint32_t tail = slot.tail
        cdef int at = INLINE_BYTES
        memcpy(raw, slot.raw, min(<int>slot.size, <int>INLINE_BYTES))
        while at < slot.size:
            memcpy(raw + at, _tail_bytes(&self.slots[tail]), min(<int>slot.size - at, <int>TAIL_BYTES))
            tail = self.slots[tail].next
            at += TAIL_BYTES

    cdef uint32_t _take_slot(self) noexcept nogil:
        cdef uint32_t index = self.free_first
        if index == NONE:
            self.fresh += 1
            return self.fresh - 1
        self.free_first = self.slots[index].next
        self.free_count -= 1
        return index

    cdef void _give_slot(self, uint32_t index) noexcept nogil:
        self.slots[index].next = self.free_first
        self.free_first = index
        self.free_count += 1

    cdef bint _make_room(self, uint32_t wanted) noexcept nogil:
        """Evict from the oldest end until `wanted` slots are free. False: EVICTIONS_MAX entries did
        not suffice, because dirty ones only begin to linger.
        """
        cdef int looked_at = 0
        cdef uint32_t victim
        while self.free_count + (self.slot_count - self.fresh) < wanted:
            victim = self.oldest
            if victim == NONE or looked_at == EVICTIONS_MAX:
                return False
            looked_at += 1
            self._unlink(victim)
            if not self.slots[victim].flags & DIRTY:
                self.evictions += 1
                self._forget(victim)
        return True

    cdef void _invalidate(self, uint32_t index) noexcept nogil:
        cdef Slot *slot = &self.slots[index]
        slot.flags |= INVALID
        if slot.flags & IN_LRU:
            self._unlink(index)
        if not slot.flags & DIRTY:
            self._forget(index)

    cdef void _forget(self, uint32_t index) noexcept nogil:
        """Take an entry out of the table and free its slots. It is on neither the LRU chain nor a
        dirty chain.
        """
        cdef Slot *slot = &self.slots[index]
        cdef uint32_t bucket = self._bucket(slot.raw + SESSION_ID_AT)
        cdef uint32_t at = self.buckets[bucket] - 1
        cdef uint32_t tail = slot.tail
        if at == index:
            self.buckets[bucket] = slot.next + 1
        else:
            while self.slots[at].next != index:
                at = self.slots[at].next
            self.slots[at].next = slot.next
        while tail != NONE:
            at = self.slots[tail].next
            self._give_slot(tail)
            tail = at
        self.shards[slot.shard].entry_count -= 1
        self._give_slot(index)
        self.entry_count -= 1

    # ----------------------------------------------------------------- what the control plane calls

    def insert(self, const uint8_t[::1] raw, shard, int64_t idle_deadline_ms, int64_t now_ms, bint touch=True):
        _check_size(raw)
        self._shard(shard)
        return bool(self.put(&raw[0], <int>raw.shape[0], shard, idle_deadline_ms, now_ms, touch))

    def extend(self, const uint8_t[::1] raw, int64_t now_ms):
        """While the store is away, put off an entry's recheck. False: the entry is not held, must
        be loaded again for another reason, or its session is past a deadline.
        """
        cdef uint32_t index
        cdef Slot *slot
        _check_size(raw)
        index = self._lookup(&raw[SESSION_ID_AT])
        if index == NONE or not self._same(&self.slots[index], &raw[0], <int>raw.shape[0]):
            return False
        slot = &self.slots[index]
        if slot.flags & INVALID or slot.epoch != self.shards[slot.shard].epoch:
            return False
        slot.loaded_at_s = <uint32_t>(now_ms // 1000)
        return now_ms < slot.idle_deadline_ms and now_ms < slot.absolute_deadline_ms

    def idle_deadline_ms(self, const uint8_t[::1] session_id):
        """The latest known idle deadline of a session, written to the store or not; 0: the session
        is not held.
        """
        cdef uint32_t index
        _check_session_id(session_id)
        index = self._lookup(&session_id[0])
        if index == NONE or self.slots[index].flags & INVALID:
            return 0
        return self.slots[index].idle_deadline_ms

    def refuse(self, const uint8_t[::1] session_id, verdict, int64_t now_ms):
        """A session has ended: forget its entry and its touch, and remember why for `refusal_ms`.
        """
        cdef Refusal *place
        cdef uint32_t index
        _check_session_id(session_id)
        place = &self.refusals[self._bucket(&session_id[0]) & self.refusal_mask]
        memcpy(place.session_id, &session_id[0], SESSION_ID_BYTES)
        place.verdict = verdict.value
        place.until_ms = now_ms + self.refusal_ms
        index = self._lookup(&session_id[0])
        if index != NONE:
            self._invalidate(index)

    def remembered_refusal(self, const uint8_t[::1] session_id, int64_t now_ms):
        cdef Verdict verdict
        _check_session_id(session_id)
        verdict = self.refusal(&session_id[0], now_ms)
        return None if verdict == Verdict.HIT else _Verdict(<int>verdict)

    def forget_refusals(self):
        """Forget all of them. The clock was set, so they could be remembered for an hour."""
        memset(self.refusals, 0, (self.refusal_mask + 1) * sizeof(Refusal))

    def drop_key(self, key):
        """Invalidate every entry verified under a key id; how many there were. Visits the whole
        table.
        """
        cdef uint32_t bucket, index, following
        dropped = 0
        for bucket in range(self.bucket_mask + 1):
            index = self.buckets[bucket] - 1
            while index != NONE:
                following = self.slots[index].next
                if raw_key_id(self.slots[index].raw) == key and not self.slots[index].flags & INVALID:
                    self._invalidate(index)
                    dropped += 1
                index = following
        return dropped

    cdef bint drain_first(self, Shard *shard, uint8_t *raw, int64_t *idle_deadline_ms) noexcept:
        """Take entries off a dirty chain up to the first that was not revoked: its ticket and
        deadline. False: there is none.
        """
        while shard.dirty_first != NONE:
            if self._undirty_first(shard, raw, idle_deadline_ms):
                return True
        return False

    cdef bint _undirty_first(self, Shard *shard, uint8_t *raw, int64_t *idle_deadline_ms) noexcept:
        """Take the first entry off a dirty chain. False: it was revoked."""
        cdef uint32_t index = shard.dirty_first
        cdef Slot *slot = &self.slots[index]
        cdef bint is_touch = not slot.flags & INVALID
        if is_touch:
            self._copy_raw(slot, raw)
            idle_deadline_ms[0] = slot.idle_deadline_ms
        shard.dirty_first = slot.dirty_next
        if shard.dirty_first == NONE:
            shard.dirty_last = NONE
        shard.dirty_count -= 1
        slot.flags &= ~DIRTY
        if not slot.flags & IN_LRU:
            self.evictions += 1
            self._forget(index)
        return is_touch

    def renew_lease(self, shard, int64_t until_ms):
        """Let a shard's entries answer until `until_ms`. A lease is never shortened."""
        cdef Shard *at = self._shard(shard)
        at.lease_until_ms = max(at.lease_until_ms, until_ms)

    def shift_lease(self, shard, int64_t by_ms):
        """The clock was set: a lease keeps its length."""
        self._shard(shard).lease_until_ms += by_ms

    def bump_epoch(self, shard):
        """Every entry of the shard must be loaded again before its next hit."""
        self._shard(shard).epoch += 1

    def stale(self, uint32_t cursor, Py_ssize_t entries_max):
        """Some of the entries that are older than their shard's epoch, and where to go on. Visits
        STALE_BUCKETS buckets at most.
        """
        cdef uint32_t last = min(self.bucket_mask, cursor + STALE_BUCKETS - 1)
        cdef uint8_t[RAW_BYTES_MAX] raw
        cdef uint32_t index
        cdef Slot *slot
        cdef list found = []
        while cursor <= last and len(found) < entries_max:
            index = self.buckets[cursor] - 1
            while index != NONE:
                slot = &self.slots[index]
                if slot.epoch != self.shards[slot.shard].epoch and not slot.flags & INVALID:
                    self._copy_raw(slot, raw)
                    found.append((
                        slot.shard,
                        (<char *>raw)[SESSION_ID_AT:SESSION_ID_AT + SESSION_ID_BYTES],
                        (<char *>raw)[PRINCIPAL_AT:PRINCIPAL_AT + raw[PRINCIPAL_LENGTH_AT]],
                    ))
                index = slot.next
            cursor += 1
        return found, cursor if cursor <= self.bucket_mask else None

    def confirm(self, const uint8_t[::1] session_id, epoch, int64_t idle_deadline_ms, int64_t now_ms):
        """The store said that a session lives. False, and nothing is changed: the session is not
        held or was ended, or its shard's epoch is another by now.
        """
        cdef uint32_t index
        cdef Slot *slot
        _check_session_id(session_id)
        index = self._lookup(&session_id[0])
        if index == NONE:
            return False
        slot = &self.slots[index]
        if slot.flags & INVALID or self.shards[slot.shard].epoch != <uint32_t>epoch:
            return False
        slot.epoch = <uint32_t>epoch
        slot.loaded_at_s = <uint32_t>(now_ms // 1000)
        slot.idle_deadline_ms = max(slot.idle_deadline_ms, idle_deadline_ms)
        return True

    def epoch(self, shard):
        return self._shard(shard).epoch

    def held_in(self, shard):
        return self._shard(shard).entry_count

    def dirty_in(self, shard):
        return self._shard(shard).dirty_count

    def lease_until_ms(self, shard):
        return self._shard(shard).lease_until_ms

    cdef Shard *_shard(self, object number) except NULL:
        if not 0 <= number < self.shard_count:
            raise ValueError(f"there are {self.shard_count} shards, no number {number}")
        return &self.shards[<uint16_t>number]

    # -------------------------------------------------------------------------- for tests and tools

    def lookup(self, const uint8_t[::1] raw, int64_t now_ms, bint touch=True):
        cdef int64_t deadline_ms = 0
        cdef Verdict verdict
        _check_size(raw)
        verdict = self.find(&raw[0], <int>raw.shape[0], now_ms, touch, &deadline_ms)
        return deadline_ms if verdict == Verdict.HIT else _Verdict(<int>verdict)

    def drain(self, shard, Py_ssize_t touches_max):
        cdef Shard *at = self._shard(shard)
        cdef uint8_t[RAW_BYTES_MAX] raw
        cdef int64_t deadline_ms
        cdef list touches = []
        while len(touches) < touches_max and self.drain_first(at, raw, &deadline_ms):
            touches.append((
                (<char *>raw)[SESSION_ID_AT:SESSION_ID_AT + SESSION_ID_BYTES],
                (<char *>raw)[PRINCIPAL_AT:PRINCIPAL_AT + raw[PRINCIPAL_LENGTH_AT]],
                deadline_ms,
            ))
        return touches


cdef int _check_size(const uint8_t[::1] raw) except -1:
    if not RAW_BYTES_MIN <= raw.shape[0] <= RAW_BYTES_MAX:
        raise ValueError(f"a raw ticket has {RAW_BYTES_MIN} to {RAW_BYTES_MAX} bytes, not {raw.shape[0]}")
    return 0


cdef int _check_session_id(const uint8_t[::1] session_id) except -1:
    if session_id.shape[0] != SESSION_ID_BYTES:
        raise ValueError(f"a session id has {SESSION_ID_BYTES} bytes, not {session_id.shape[0]}")
    return 0
