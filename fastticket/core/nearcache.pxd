from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.core.verdict cimport Verdict

cdef enum:
    INLINE_BYTES = 92       # of the raw ticket in its first slot: enough for a principal of 27 bytes
    TAIL_BYTES = 140        # of it in each further slot


cdef struct Slot:
    # An entry's first slot. A tail slot and a free one have `next` only, for the next tail and the
    # next free slot; a tail's bytes of the ticket begin right after it.
    uint32_t next           # the next entry in the bucket
    uint32_t tail           # the slot with the rest of the ticket, or NONE
    uint32_t newer          # LRU chain
    uint32_t older
    uint32_t dirty_next     # dirty chain of its shard
    uint32_t epoch          # the shard's, when the session was loaded
    uint32_t loaded_at_s    # store time
    uint16_t shard
    uint16_t size           # of the raw ticket
    int64_t idle_deadline_ms    # store time
    int64_t absolute_deadline_ms
    uint8_t flags
    uint8_t[3] unused
    uint8_t[INLINE_BYTES] raw


cdef struct Shard:
    int64_t lease_until_ms
    uint32_t epoch
    uint32_t dirty_first
    uint32_t dirty_last
    uint32_t dirty_count
    uint32_t entry_count


cdef struct Refusal:
    uint8_t[16] session_id
    int64_t until_ms        # store time
    int64_t verdict


cdef class NearCache:
    cdef void *memory
    cdef Slot *slots
    cdef Shard *shards
    cdef uint32_t *buckets
    cdef Refusal *refusals
    cdef uint32_t bucket_mask
    cdef uint32_t slot_count
    cdef uint32_t fresh         # the first slot that was never used
    cdef uint32_t free_first    # the list of slots that were used and are free
    cdef uint32_t free_count    # on that list
    cdef uint32_t newest        # ends of the LRU chain
    cdef uint32_t oldest
    cdef int64_t touch_slack_ms
    cdef int64_t touch_resolution_ms
    cdef int64_t recheck_s
    cdef int64_t refusal_ms
    cdef uint32_t refusal_mask
    cdef readonly uint16_t shard_count
    cdef readonly uint32_t entry_count
    cdef readonly size_t memory_bytes
    cdef readonly uint64_t hits
    cdef readonly uint64_t misses
    cdef readonly uint64_t refreshes
    cdef readonly uint64_t evictions
    cdef readonly uint64_t touches_coalesced

    cdef Verdict find(
        self, const uint8_t *raw, int size, int64_t now_ms, bint touch, int64_t *idle_deadline_ms) noexcept nogil
    cdef Verdict refusal(self, const uint8_t *session_id, int64_t now_ms) noexcept nogil
    cdef bint put(
        self, const uint8_t *raw, int size, uint16_t shard, int64_t deadline_ms, int64_t now_ms, bint touch) noexcept nogil

    cdef uint32_t _bucket(self, const uint8_t *session_id) noexcept nogil
    cdef uint32_t _lookup(self, const uint8_t *session_id) noexcept nogil
    cdef bint _same(self, const Slot *slot, const uint8_t *raw, int size) noexcept nogil
    cdef void _use(self, uint32_t index) noexcept nogil
    cdef void _link_newest(self, uint32_t index) noexcept nogil
    cdef void _unlink(self, uint32_t index) noexcept nogil
    cdef void _touch(self, uint32_t index, int64_t now_ms) noexcept nogil
    cdef void _enter(self, uint32_t index, const uint8_t *raw, int size, uint16_t shard) noexcept nogil
    cdef void _write_raw(self, Slot *slot, const uint8_t *raw, int size) noexcept nogil
    cdef void _copy_raw(self, const Slot *slot, uint8_t *raw) noexcept nogil
    cdef uint32_t _take_slot(self) noexcept nogil
    cdef void _give_slot(self, uint32_t index) noexcept nogil
    cdef bint _make_room(self, uint32_t wanted) noexcept nogil
    cdef void _invalidate(self, uint32_t index) noexcept nogil
    cdef void _forget(self, uint32_t index) noexcept nogil
    cdef bint drain_first(self, Shard *shard, uint8_t *raw, int64_t *idle_deadline_ms) noexcept
    cdef bint _undirty_first(self, Shard *shard, uint8_t *raw, int64_t *idle_deadline_ms) noexcept
    cdef Shard *_shard(self, object number) except NULL
