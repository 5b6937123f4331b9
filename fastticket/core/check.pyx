# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""The hot path in one place: ticket text -> near cache -> signature -> verdict.

The clock. `Checker.now` is the store's clock as this process knows it: CLOCK_BOOTTIME plus the
offset that the control plane sets. So a jump of the machine's wall clock changes nothing, and a
lease runs out while the machine is suspended.

CLOCK_BOOTTIME takes 25 ns to read, CLOCK_MONOTONIC_COARSE 5. So the coarse clock is read each time,
and CLOCK_BOOTTIME once a tick of it, which is a few ms long (the tick after a suspension is always
another one). `now` is up to `clock_resolution_ms` late, and leases are granted for that much less.
"""

cimport cython
from posix.time cimport CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE, clock_getres, clock_gettime, timespec

from fastticket.core.atomics cimport ACQUIRE, RELAXED, RELEASE, exchange_i64, load_i64, store_i64
from fastticket.core.ticket cimport ascii_text, decode, session_id_text
from fastticket.core.wire cimport (
    PRINCIPAL_AT,
    PRINCIPAL_LENGTH_AT,
    RAW_BUFFER_BYTES,
    SESSION_ID_AT,
    raw_absolute_deadline_ms,
    raw_issued_at_ms,
)

from fastticket.errors import Verdict as _Verdict

cdef tuple VERDICT_OF = (None, *_Verdict)       # by number; HIT has none


def clock_resolution_ms():
    """How far behind `Checker.now_ms()` can be, ms, rounded up."""
    cdef timespec resolution
    clock_getres(CLOCK_MONOTONIC_COARSE, &resolution)
    return resolution.tv_sec * 1000 + (resolution.tv_nsec + 999_999) // 1_000_000


@cython.final
cdef class Checker:
    """Judges tickets at the present time, in any thread. The clock is set by one of them."""

    def __cinit__(self, Keyring keys not None, NearCache near not None, clock=None):
        self.keys = keys
        self.near = near
        self.clock = clock

    def now_ms(self):
        return self.now()

    @property
    def offset_ms(self):
        return load_i64(&self.clock_offset_ms, RELAXED)

    def set_offset_ms(self, int64_t offset_ms):
        store_i64(&self.clock_offset_ms, offset_ms, RELEASE)

    def monotonic_ms(self):
        return self.now() - load_i64(&self.clock_offset_ms, RELAXED)

    @cython.binding(False)          # a plain built-in method: the interpreter has a shorter way to call it
    @cython.embedsignature(True)    # which knows its signature by its docstring alone
    @cython.embedsignature.format("clinic")
    def check(self, ticket, bint touch=True):
        """A Session, or a falsy verdict. MISS and REFRESH are no refusals: the store has to be asked,
        by `TicketCache.authenticate`. `touch`: whether the check is a use of the session.
        """
        cdef const uint8_t *text = NULL
        cdef Py_ssize_t chars = 0
        cdef Checked checked
        cdef Verdict verdict
        cdef Session session
        if not ascii_text(ticket, &text, &chars):
            return VERDICT_OF[<int>Verdict.MALFORMED]
        verdict = self.judge(text, chars, self.now(), touch, &checked)
        if verdict != Verdict.HIT:
            return VERDICT_OF[<int>verdict]
        session = Session.__new__(Session)
        session.ticket = ticket
        session.deadline_ms = checked.idle_deadline_ms
        return session

    def session_of(self, ticket, int64_t idle_deadline_ms):
        """A Session for a ticket that the caller has verified and loaded."""
        cdef uint8_t[RAW_BUFFER_BYTES] raw
        cdef Session session = Session.__new__(Session)
        session.ticket = ticket
        session.deadline_ms = idle_deadline_ms
        session.decode_into(raw)
        return session

    cdef int64_t now(self) noexcept nogil:
        cdef timespec t
        cdef int64_t tick
        if self.clock is None:
            clock_gettime(CLOCK_MONOTONIC_COARSE, &t)
            tick = <int64_t>t.tv_sec * 1_000_000_000 + t.tv_nsec
            if load_i64(&self.tick_ns, ACQUIRE) != tick:
                self._read_boot_clock(tick)
            return load_i64(&self.boot_ms, RELAXED) + load_i64(&self.clock_offset_ms, ACQUIRE)
        with gil:
            return <int64_t>self.clock() + load_i64(&self.clock_offset_ms, RELAXED)

    cdef void _read_boot_clock(self, int64_t tick) noexcept nogil:
        """Several threads may do it in one tick, and one of them may be stopped in between:

        1. a thread reads the clock, and is stopped
        2. a second later another thread reads it, and writes what it read
        3. the first one goes on: what it read must not be taken for the present time

        So `boot_ms` only ever grows, and is written before the tick it was read in.
        """
        cdef timespec t
        cdef int64_t known = load_i64(&self.boot_ms, RELAXED)
        cdef int64_t read
        clock_gettime(CLOCK_BOOTTIME, &t)
        read = <int64_t>t.tv_sec * 1000 + t.tv_nsec // 1_000_000
        while known < read and not exchange_i64(&self.boot_ms, &known, read, False, RELAXED, RELAXED):
            pass
        store_i64(&self.tick_ns, tick, RELEASE)

    cdef Verdict judge(
        self, const uint8_t *text, Py_ssize_t chars, int64_t now_ms, bint touch, Checked *checked
    ) noexcept nogil:
        """Judge a ticket. HIT: admitted. MISS and REFRESH: authentic as far as this process knows;
        the store has to be asked. Every other verdict is a refusal.
        """
        cdef Verdict verdict
        checked.size = decode(text, chars, checked.raw)
        if checked.size == 0:
            return Verdict.MALFORMED
        verdict = self.near.find(checked.raw, checked.size, now_ms, touch, &checked.idle_deadline_ms)
        if verdict == Verdict.HIT:
            return verdict
        if verdict == Verdict.MISS:
            verdict = self.keys.verify_raw(checked.raw, checked.size, now_ms)
            if verdict != Verdict.HIT:
                return verdict
            verdict = Verdict.MISS
        return self._unless_refused(checked, verdict, now_ms)

    cdef Verdict judge_again(self, Checked *checked, int64_t now_ms, bint touch) noexcept nogil:
        """Judge a ticket that was judged before, and whose signature was good. It is not verified
        again: after MISS its key may have left the ring.
        """
        cdef Verdict verdict = self.near.find(checked.raw, checked.size, now_ms, touch, &checked.idle_deadline_ms)
        return verdict if verdict == Verdict.HIT else self._unless_refused(checked, verdict, now_ms)

    cdef Verdict _unless_refused(self, const Checked *checked, Verdict verdict, int64_t now_ms) noexcept nogil:
        cdef Verdict remembered = self.near.refusal(checked.raw + SESSION_ID_AT, now_ms)
        return verdict if remembered == Verdict.HIT else remembered


@cython.final
@cython.freelist(64)
@cython.no_gc                       # it refers to a str or bytes only
cdef class Session:
    """The session that a ticket was admitted to. Always true. Only a check makes one.

    It refers to the ticket, and decodes it when a field is read: one is made on every hit.
    """

    def __repr__(self):
        return f"<Session {self.id[:6]}… of {self.principal!r}>"

    cdef int decode_into(self, uint8_t *raw) except -1:
        cdef const uint8_t *text = NULL
        cdef Py_ssize_t chars = 0
        if self.ticket is None or not ascii_text(self.ticket, &text, &chars) or decode(text, chars, raw) == 0:
            raise ValueError("a session comes from a check, and has a ticket")
        return 0

    @property
    def principal(self):
        """The owner of the session: 1 to 190 bytes in UTF-8."""
        cdef uint8_t[RAW_BUFFER_BYTES] raw
        self.decode_into(raw)
        return (<char *>raw)[PRINCIPAL_AT:PRINCIPAL_AT + raw[PRINCIPAL_LENGTH_AT]].decode("utf-8")

    @property
    def id(self):
        """16 random bytes as 22 characters of base64url. It admits nobody, and may be logged."""
        cdef uint8_t[RAW_BUFFER_BYTES] raw
        self.decode_into(raw)
        return session_id_text(raw + SESSION_ID_AT)

    @property
    def issued_at_ms(self):
        """Login, store time, ms since the epoch."""
        cdef uint8_t[RAW_BUFFER_BYTES] raw
        self.decode_into(raw)
        return raw_issued_at_ms(raw)

    @property
    def idle_deadline_ms(self):
        """Store time, ms since the epoch, as of the check."""
        return self.deadline_ms

    @property
    def absolute_deadline_ms(self):
        """Store time, ms since the epoch; 2**53 - 1 if the session has none."""
        cdef uint8_t[RAW_BUFFER_BYTES] raw
        self.decode_into(raw)
        return raw_absolute_deadline_ms(raw)
