from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.dataplane.accesslog cimport AccessLog, Entry
from fastticket.core.check cimport Checked, Checker
from fastticket.dataplane.clients cimport ADDRESS_BYTES, ADDRESS_TEXT_MAX, Networks, Tally
from fastticket.dataplane.counters cimport Counters
from fastticket.dataplane.asks cimport AskKind, Question
from fastticket.dataplane.conn cimport (
    AGENT_BYTES_MAX, AGENT_CHARS_MAX, DOUBT_BYTES_MAX, HOST_BYTES_MAX, Agent, Change, Client, Conn, Doubt, Endpoint,
    Link, Preference, Request, Side,
)
from fastticket.dataplane.chunks cimport Chunks
from fastticket.dataplane.fieldnames cimport Names
from fastticket.dataplane.endpoint cimport Front
from fastticket.dataplane.forwarding cimport Forwarding
from fastticket.dataplane.lists cimport NONE
from fastticket.dataplane.states cimport Downstream, Upstream
from fastticket.dataplane.http1 cimport Field, Framing, Head, Method
from fastticket.dataplane.octets cimport Span
from fastticket.dataplane.reasons cimport Reason, Row
from fastticket.dataplane.routes cimport Auth, Routes, Text
from fastticket.dataplane.sockets cimport epoll_event, sockaddr_storage, socklen_t
from fastticket.dataplane.balance cimport Group, Upstreams
from fastticket.dataplane.writer cimport Writer
from fastticket.core.verdict cimport VERDICTS, Verdict

cdef enum:
    TIMERS = 14
    WAIT_BYTES = 16             # for so many, and a power of two
    DEADLINES_MAX = 250
    WAITS_MAX = 64
    FAULTS_NOTED_MAX = 16
    EVENTS_MAX = 256


cdef enum Timer:
    NO_TIMER = 0
    KEEP_ALIVE
    HEAD_IN
    ASKED
    CONNECT
    FIRST_BYTE
    REQUEST_BODY
    RESPONSE_BODY
    LINGER
    POOL
    PENDING
    TUNNEL
    VOUCH
    SEND                        # the upstream is slow to take a request


cdef struct Deadlines:          # of all that wait for the same, equally long: sorted by itself
    Timer kind
    uint32_t first
    uint32_t last
    int64_t length_ms


cdef struct Noted:              # what an operator is to be told of a server
    uint16_t server
    const char *what


cdef class Proxy:
    cdef readonly Checker checker
    cdef readonly Upstreams upstreams
    cdef readonly Routes routes
    cdef readonly AccessLog log
    cdef Networks trusted
    cdef Tally clients
    cdef Names names
    cdef Forwarding forwarding
    cdef int epoll_fd
    cdef Conn *conns
    cdef uint32_t conn_max              # slots that there are
    cdef uint32_t conn_count            # slots that were ever used: the first ones
    cdef uint32_t free_first            # of those that were used, linked
    cdef uint32_t freed_first           # closed in this turn: not to be reused before it ends
    cdef uint32_t downstream_count
    cdef uint32_t pooled_count
    cdef uint32_t upstream_count
    cdef uint32_t descriptors_max       # of both sides; 0: no limit
    cdef bint accepts
    cdef int64_t accepts_again_ms
    cdef bint leaving               # every connection closes after its next answer; others are still let in
    cdef bint draining
    cdef bint closes_idle
    cdef uint64_t freed_groups          # a bit for each group in which a server may have room for a pending request
    cdef Front front                    # who asks at the endpoint
    cdef bint records_address           # with a login
    cdef bint records_agent
    cdef bint expects_proxy_header
    cdef const char *unannounced_why    # the last connection was closed that had no PROXY header that counts
    cdef char[ADDRESS_TEXT_MAX] unannounced_peer
    cdef bint keeps_entry               # of each request: for the log, or its id
    cdef int64_t date_s                 # which second `date` says
    cdef char[40] date
    # limits
    cdef uint32_t downstream_max
    cdef uint32_t per_client_max
    cdef uint32_t requests_max
    cdef uint32_t head_bytes            # of a request; also the size of a block
    cdef uint32_t fields_max
    cdef uint32_t target_bytes_max
    cdef uint32_t response_head_bytes
    cdef uint32_t extension_bytes_max
    cdef uint64_t request_rate_min      # bytes/s
    cdef uint64_t response_rate_min
    cdef Deadlines[DEADLINES_MAX] deadlines       # 0 is none, 1 to TIMERS - 1 those of the kinds
    cdef int deadlines_count
    cdef uint8_t[WAITS_MAX][WAIT_BYTES] waits
    cdef int waits_count
    cdef epoll_event[EVENTS_MAX] events
    cdef int64_t now_us                 # monotonic, of this turn
    cdef int64_t now_ms
    cdef Head head                      # the last one parsed
    cdef uint64_t head_of               # the handle of the connection whose request it is of, or NOBODYS
    cdef uint8_t *scratch               # what was received just now
    cdef Writer out                     # what is about to be sent
    cdef uint8_t *block_first           # free blocks of `head_bytes`, linked through their first bytes
    cdef uint32_t block_count
    cdef Question *ask_list
    cdef uint32_t ask_count
    cdef uint64_t *again                # connections with more to read than one turn takes
    cdef uint32_t again_count
    cdef uint8_t[::1] page
    cdef Counters *counters             # in the page
    cdef Noted[FAULTS_NOTED_MAX] noted
    cdef uint32_t noted_count
    cdef uint32_t noted_more            # for which there was no room

    cdef int _set_limits(self, dict limits) except -1
    cdef int _set_timeouts(self, dict timeouts_s) except -1
    cdef int _allocate(self) except -1
    cdef bytes _normal_path(self, uint32_t index)
    cdef bint _has_exact_path(self, uint32_t index) noexcept nogil
    cdef dict _details(self, const Conn *c)
    cdef object _record(self, const Question *question)
    cdef object _where(self, uint32_t index)
    cdef tuple _several(self, uint32_t index)
    cdef str _doubtful(self, const Conn *c)

    cdef uint32_t _asked(self, object handle) except? 0
    cdef uint32_t _find(self, object handle, Downstream state) except? 0
    cdef uint64_t _handle(self, uint32_t index) noexcept nogil
    cdef void _begin_now(self) noexcept nogil
    cdef void _end_now(self) noexcept nogil
    cdef void _close_downstream(self, uint32_t index) noexcept nogil
    cdef void _close_upstream(self, uint32_t index) noexcept nogil
    cdef int64_t _length_ms(self, const Conn *c, Timer timer) noexcept nogil
    cdef void _upstream_is_late(self, uint32_t index, Timer timer) noexcept nogil
    cdef void _vouch(self, uint32_t index) noexcept nogil
    cdef bint _is_alive(self, uint32_t index) noexcept nogil
    cdef void _wait_for_request(self, uint32_t index) noexcept nogil
    cdef void _end_for_session(self, uint32_t index) noexcept nogil
    cdef bint _read_peer(self, Conn *c, const sockaddr_storage *address) noexcept nogil
    cdef bint _register_peer(self, Conn *c) noexcept nogil
    cdef bint _read_proxy_header(self, uint32_t index) noexcept nogil
    cdef void _note_unannounced(self, const Conn *c, const char *why) noexcept nogil
    cdef int _over_limits(self, const Head *head, int size) noexcept nogil
    cdef void _refuse_body(self, uint32_t index) noexcept nogil
    cdef void _note_request(self, Conn *c) noexcept nogil
    cdef void _note_nothing(self, Conn *c) noexcept nogil
    cdef void _note_refused(self, Conn *c, int verdict) noexcept nogil
    cdef void _set_date(self) noexcept nogil
    cdef int _socket(self, int family) noexcept nogil
    cdef bint _spare_one(self) noexcept nogil
    cdef void _pause_accepting(self) noexcept nogil
    cdef void _note_agent(self, Conn *c) noexcept nogil
    cdef void _note_where(self, Conn *c) noexcept nogil
    cdef void _account(self, Conn *c, bint was_cut) noexcept nogil
    cdef void _close_entry(self, Conn *c, int64_t took_us, bint was_cut) noexcept nogil
    cdef void _log(self, const Conn *c, int64_t took_us, bint was_cut) noexcept nogil
    cdef AskKind _asks_for(self, const Conn *c) noexcept nogil
    cdef bint _is_strong(self, const Conn *c) noexcept nogil
    cdef void _wait_for_verdict(self, uint32_t index, AskKind kind) noexcept nogil
    cdef void _admit(self, uint32_t index) noexcept nogil
    cdef void _pass(self, uint32_t index) noexcept nogil
    cdef uint64_t _key(self, const Conn *c, const Group *group) noexcept nogil
    cdef void _forward_now(self, uint32_t index) noexcept nogil
    cdef void _make_pending(self, uint32_t index, Group *group) noexcept nogil
    cdef void _leave_pending(self, uint32_t index) noexcept nogil
    cdef void _has_room(self, uint16_t server) noexcept nogil
    cdef void _serve_pending(self) noexcept nogil
    cdef uint32_t _take_slot(self) noexcept nogil
    cdef uint32_t _new_conn(self, int fd, Side side) noexcept nogil
    cdef void _close(self, uint32_t index) noexcept nogil
    cdef void _reclaim(self) noexcept nogil
    cdef bint _watch(self, uint32_t index, uint32_t events, int operation) noexcept nogil
    cdef uint8_t *_take_block(self) noexcept nogil
    cdef void _give_block(self, uint8_t *block) noexcept nogil
    cdef void _set_timer(self, uint32_t index, Timer timer) noexcept nogil
    cdef void _clear_timer(self, uint32_t index) noexcept nogil
    cdef void _tick(self) noexcept nogil
    cdef void _on_timeout(self, uint32_t index, Timer timer) noexcept nogil
    cdef bint _request_flows(self, uint32_t index) noexcept nogil
    cdef void _await_body(self, uint32_t index) noexcept nogil
    cdef void _restart_silence(self, uint32_t upstream) noexcept nogil
    cdef void _note(self, uint16_t server, const char *what) noexcept nogil
    cdef void _malformed(self, uint32_t index, const char *what) noexcept nogil
    cdef uint32_t _kept_for(self, uint32_t index, const Group *group) noexcept nogil
    cdef void _keep(self, uint32_t index, uint32_t downstream) noexcept nogil
    cdef void _let_go_of_kept(self, Conn *c) noexcept nogil
    cdef bint _waits_for_kept(self, const Conn *c, const Group *group) noexcept nogil
    cdef void _use_kept(self, uint32_t index, uint32_t upstream) noexcept nogil
    cdef bint _is_use(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil
    cdef const char *_fault_of(self, int result, const uint8_t *at, uint32_t size, Method method) noexcept nogil
    cdef int _change_asked(self, const Conn *d, const uint8_t *at, const Field *field) noexcept nogil
    cdef bint _response_flows(self, uint32_t index) noexcept nogil
    cdef void _turn(self) noexcept nogil
    cdef void _on_event(self, uint32_t index, uint32_t events) noexcept nogil
    cdef void _received(self, Conn *c, ssize_t size, uint32_t room) noexcept nogil
    cdef void _continue_later(self, uint32_t index) noexcept nogil
    cdef void _accept(self, int listener) noexcept nogil
    cdef void _set_accepting(self, bint accepts) noexcept nogil
    cdef bint _send(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil
    cdef void _flush(self, uint32_t index) noexcept nogil
    cdef void _send_failed(self, uint32_t index) noexcept nogil
    cdef void _close_both(self, uint32_t index) noexcept nogil
    cdef void _advance_downstream(self, uint32_t index) noexcept nogil
    cdef void _read_head(self, uint32_t index) noexcept nogil
    cdef void _serve(self, uint32_t index) noexcept nogil
    cdef void _begin(self, uint32_t index) noexcept nogil
    cdef bint _begin_body(self, Conn *c) noexcept nogil
    cdef void _check(self, uint32_t index) noexcept nogil
    cdef bint _touches(self, const Conn *c) noexcept nogil
    cdef void _read_again(self, uint32_t index) noexcept nogil
    cdef bint _stand_in(self, uint32_t index) noexcept nogil
    cdef void _note_target(self, Conn *c) noexcept nogil
    cdef void _ask(self, uint32_t index, AskKind kind, Span value) noexcept nogil
    cdef void _refused(self, uint32_t index, int verdict) noexcept nogil
    cdef bint _is_browser(self, uint32_t index) noexcept nogil
    cdef void _reject_unreadable(self, uint32_t index, Reason reason) noexcept nogil
    cdef void _fail_exchange(self, uint32_t index, Reason reason) noexcept nogil
    cdef void _count(self, const Row *row) noexcept nogil
    cdef void _fail_exchange_as(self, uint32_t index, int status, const char *slug) noexcept nogil
    cdef void _answer(self, uint32_t index, Reason reason) noexcept nogil
    cdef void _answer_identity(self, uint32_t index) noexcept nogil
    cdef void _deliver(self, uint32_t index, int status, const uint8_t *answer, uint32_t size) noexcept nogil
    cdef const char *_connection_field(self, Conn *c) noexcept nogil
    cdef void _begin_answer(self, uint32_t index, int status, const char *slug) noexcept nogil
    cdef void _put_challenge(self, const char *slug) noexcept nogil
    cdef void _end_answer(self, uint32_t index, int status, const char *slug) noexcept nogil
    cdef void _flush_out(self, uint32_t index) noexcept nogil
    cdef void _after_answer(self, uint32_t index) noexcept nogil
    cdef void _linger(self, uint32_t index, bint more_held) noexcept nogil
    cdef void _discard(self, uint32_t index) noexcept nogil
    cdef void _forward(self, uint32_t index) noexcept nogil
    cdef uint32_t _connect(self, uint16_t server) noexcept nogil
    cdef void _connected(self, uint32_t index) noexcept nogil
    cdef void _connect_failed(self, uint32_t index, int reason) noexcept nogil
    cdef uint32_t _unpool(self, uint16_t server, bint can_be_sent_again) noexcept nogil
    cdef void _pool(self, uint32_t index) noexcept nogil
    cdef bint _is_quiet(self, Conn *c) noexcept nogil
    cdef void _leave_pool(self, uint32_t index) noexcept nogil
    cdef void _send_request(self, uint32_t index) noexcept nogil
    cdef void _pump(self, uint32_t index) noexcept nogil
    cdef uint32_t _room(self, Conn *c) noexcept nogil
    cdef bint _move(self, uint32_t index, uint8_t *at, uint32_t size) noexcept nogil
    cdef bint _take_body(self, Conn *c, uint8_t *at, uint32_t *consumed, uint32_t *produced) noexcept nogil
    cdef bint _send_body(self, uint32_t index, uint8_t *at, uint32_t size, bint complete) noexcept nogil
    cdef void _body_complete(self, uint32_t index) noexcept nogil
    cdef void _body_ended(self, uint32_t index, bint cleanly) noexcept nogil
    cdef void _malformed_body(self, uint32_t index) noexcept nogil
    cdef void _advance_upstream(self, uint32_t index) noexcept nogil
    cdef void _read_response(self, uint32_t index) noexcept nogil
    cdef void _response_missing(self, uint32_t index) noexcept nogil
    cdef void _on_response(self, uint32_t index, uint8_t *at, uint32_t size) noexcept nogil
    cdef bint _hold(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil
    cdef bint _changes_session(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil
    cdef int _login_kind(self, const uint8_t *at) noexcept nogil
    cdef void _relay(self, uint32_t index, uint8_t *at, uint32_t size, const Text *fields) noexcept nogil
    cdef void _note_dropped(self, uint16_t server, int cookies) noexcept nogil
    cdef void _guard_end(self, Conn *c, bint is_unframed) noexcept nogil
    cdef void _open_tunnel(self, uint32_t index) noexcept nogil
    cdef bint _part(self, uint32_t index) noexcept nogil
    cdef void _finish(self, uint32_t index) noexcept nogil
