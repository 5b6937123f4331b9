from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.core.partition cimport Partition, Slot
from fastticket.core.touches cimport Touches
from fastticket.core.verdict cimport Verdict
from fastticket.core.wire cimport RAW_BYTES_MAX


cdef struct Shard:
    int64_t lease_until_ms
    uint32_t epoch
    uint32_t entry_count


cdef struct Seen:               # an entry as it is copied out
    int64_t idle_deadline_ms
    uint32_t loaded_at_s
    uint16_t shard
    uint16_t size
    uint8_t[RAW_BYTES_MAX] raw


cdef struct Totals:             # of all partitions
    uint32_t entries
    uint32_t dirty
    uint32_t sent
    uint64_t hits
    uint64_t misses
    uint64_t refreshes
    uint64_t evictions
    uint64_t touches_coalesced


cdef class NearCache:
    cdef void *memory
    cdef Partition *partitions      # and one more, of the touches of sessions that are not held
    cdef Shard *shards
    cdef uint32_t partition_count
    cdef uint32_t refusal_count     # of each partition
    cdef uint32_t capacity_asked
    cdef bint is_shared
    cdef int64_t touch_slack_ms
    cdef int64_t touch_resolution_ms
    cdef int64_t recheck_s
    cdef int64_t refusal_ms
    cdef readonly uint16_t shard_count
    cdef readonly size_t memory_bytes

    cdef Verdict find(
        self, const uint8_t *raw, int size, int64_t now_ms, bint touch, int64_t *idle_deadline_ms) noexcept nogil
    cdef Verdict refusal(self, const uint8_t *session_id, int64_t now_ms) noexcept nogil
    cdef bint put(
        self, const uint8_t *raw, int size, uint16_t shard, int64_t deadline_ms, int64_t now_ms, bint touch) noexcept nogil

    cdef int _allocate(self) except -1
    cdef void _enter(self, Partition *p) noexcept nogil
    cdef void _leave(self, Partition *p) noexcept nogil
    cdef Partition *_partition_of(self, const uint8_t *session_id) noexcept nogil
    cdef Partition *_unheld(self) noexcept nogil
    cdef Verdict _judge(self, const Slot *slot, int64_t absolute_ms, int64_t now_ms) noexcept nogil
    cdef void _touch(self, Partition *p, uint32_t index, int64_t absolute_ms, int64_t now_ms) noexcept nogil
    cdef uint32_t _make_entry(self, Partition *p, const uint8_t *raw, int size, uint16_t shard) noexcept nogil
    cdef bint _make_room(self, Partition *p, uint32_t wanted) noexcept nogil
    cdef void _forget(self, Partition *p, uint32_t index) noexcept nogil
    cdef void _invalidate(self, Partition *p, uint32_t index) noexcept nogil
    cdef void _invalidate_session(self, Partition *p, const uint8_t *session_id) noexcept nogil
    cdef bint _send_first(self, Partition *p, uint8_t *raw, int64_t *deadline_ms, uint16_t *shard, uint32_t *index) noexcept nogil
    cdef bint _is_written_with_entry(self, Partition *unheld) noexcept nogil
    cdef void _drop_first(self, Partition *p) noexcept nogil
    cdef void _settle(self, uint32_t place, bint is_written) noexcept nogil
    cdef int64_t _deadline_in(self, Partition *p, const uint8_t *session_id) noexcept nogil
    cdef int _write_touch(
        self, dict taken, uint16_t shard, Py_ssize_t piece, uint32_t place, const uint8_t *raw, int64_t deadline_ms
    ) except -1
    cdef uint32_t _drop_key_in(self, Partition *p, uint32_t first, uint8_t key_id) noexcept nogil
    cdef bint _restore_one(self, const Seen *each, int64_t now_ms) noexcept nogil
    cdef int _see(self, uint32_t *cursor, bint is_stale, Seen *seen) noexcept nogil
    cdef uint32_t _dirty_in(self, Partition *p) noexcept nogil
    cdef Totals _totals(self) noexcept nogil
    cdef Shard *_shard(self, object number) except NULL
