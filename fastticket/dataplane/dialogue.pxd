# What a plane and the control plane say to each other.

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from fastticket.dataplane.admission cimport Admission
from fastticket.dataplane.asks cimport Asked, AskKind, Order, Question, Told
from fastticket.dataplane.conn cimport Conn
from fastticket.dataplane.http1 cimport Field
from fastticket.dataplane.ring cimport Ring
from fastticket.dataplane.routes cimport Text
from fastticket.dataplane.states cimport Downstream
from fastticket.dataplane.writer cimport Writer

cdef enum:
    EXTRA_BYTES_MAX = 8192      # of fields that the control plane adds
    TRACE_BYTES_MAX = 128       # of a traceparent: 55 by W3C's first version; later ones may be longer


cdef class Dialogue(Admission):
    cdef Ring asked                     # from the plane
    cdef Ring told                      # to a plane in a thread of its own
    cdef int asked_fd                   # readable while the first one has something
    cdef uint32_t lacks_room            # there are questions for which it had no room
    cdef uint32_t has_ended
    cdef bint tells_traces              # of requests, where they name one
    cdef uint32_t parted                # clients that were told that we go, since the last call of `part`
    cdef list untold                    # what did not fit into the other one: (Told, first, second) as bytes
    cdef list unread                    # records that `release` has met
    cdef object released                # clients that were let go of
    cdef bint takes_back                # nobody takes those any more

    cdef int _open_rings(self) except -1
    cdef uint64_t _cookies_more(self) noexcept nogil
    # questions
    cdef void _write_questions(self) noexcept nogil
    cdef uint32_t _write_some(self) noexcept nogil
    cdef bint _is_awaited(self, const Question *question) noexcept nogil
    cdef bint _write_question(self, const Question *question) noexcept nogil
    cdef uint64_t _bytes_max(self, const Question *question) noexcept nogil
    cdef void _put_texts(self, const Question *question, Asked *asked, Writer *out) noexcept nogil
    cdef void _put_tickets(self, const Conn *c, Asked *asked, Writer *out) noexcept nogil
    cdef void _put_normal_path(self, uint32_t index, Asked *asked, Writer *out) noexcept nogil
    cdef void _put_cookies(self, uint32_t index, Asked *asked, Writer *out) noexcept nogil
    cdef void _put_token(self, uint32_t index, Asked *asked, Writer *out) noexcept nogil
    cdef void _put_details(self, const Conn *c, Asked *asked, Writer *out) noexcept nogil
    cdef void _put_trace(self, uint32_t index, Asked *asked, Writer *out) noexcept nogil
    cdef void _put_where(self, uint32_t index, Asked *asked, Writer *out) noexcept nogil
    cdef bint _write_released(self, uint32_t index) noexcept nogil
    cdef void _say(self, uint64_t size) noexcept nogil
    # what Python reads of them
    cdef int _collect(self) except -1
    # orders
    cdef int _tell(self, Told *told) except -1
    cdef int _answer_ask(self, Order order, object handle, int value, Text first, Text second) except -1
    cdef bint _post(self, const Told *told) noexcept nogil
    cdef int _post_untold(self) except -1
    cdef void _do_all_told(self) noexcept nogil
    cdef void _do(self, const Told *told) noexcept nogil
    cdef void _obey(self, const Told *told) noexcept nogil
    cdef void _discard_told(self) noexcept nogil
    # answers
    cdef void _judged(self, const Told *told) noexcept nogil
    cdef bint _is_late(self, const Told *told) noexcept nogil
    cdef bint _gets_ticket(self, const Conn *c) noexcept nogil
    cdef int _reason_of(self, const Conn *c, int verdict) noexcept nogil
    cdef void _has_minted(self, uint32_t index, const Told *told) noexcept nogil
    cdef void _exchanged(self, uint32_t index, const Told *told) noexcept nogil
    cdef void _doubted(self, uint32_t index, const Told *told) noexcept nogil
    cdef void _vouched(self, const Told *told) noexcept nogil
    cdef void _changed(self, const Told *told) noexcept nogil
    cdef void _relay_on(self, uint32_t index, const Text *lines) noexcept nogil
    cdef uint32_t _find(self, const Told *told, Downstream state) noexcept nogil
    cdef uint32_t _asked_by(self, const Told *told) noexcept nogil
