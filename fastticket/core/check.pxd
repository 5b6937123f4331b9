from libc.stdint cimport int64_t, uint8_t

from fastticket.core.nearcache cimport NearCache
from fastticket.core.ticket cimport Keyring
from fastticket.core.verdict cimport Verdict
from fastticket.core.wire cimport RAW_BUFFER_BYTES


cdef struct Checked:
    int size                    # of the raw ticket; 0: malformed
    int64_t idle_deadline_ms    # store time; set on HIT only
    uint8_t[RAW_BUFFER_BYTES] raw


cdef class Checker:
    cdef readonly Keyring keys
    cdef readonly NearCache near
    cdef readonly object clock
    cdef int64_t clock_offset_ms
    cdef int64_t boot_ms        # CLOCK_BOOTTIME, read in this tick of CLOCK_MONOTONIC_COARSE:
    cdef int64_t tick_ns

    cdef int64_t now(self) noexcept nogil
    cdef void _read_boot_clock(self, int64_t tick) noexcept nogil
    cdef Verdict judge(
        self, const uint8_t *text, Py_ssize_t chars, int64_t now_ms, bint touch, Checked *checked) noexcept nogil
    cdef Verdict judge_again(self, Checked *checked, int64_t now_ms, bint touch) noexcept nogil
    cdef Verdict _unless_refused(self, const Checked *checked, Verdict verdict, int64_t now_ms) noexcept nogil


cdef class Session:
    cdef object ticket
    cdef int64_t deadline_ms

    cdef int decode_into(self, uint8_t *raw) except -1
