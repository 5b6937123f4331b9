from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.core.check cimport Checked, Checker
from fastticket.core.http1 cimport Chunks, Field, Framing, Head, Method, Names, Span
from fastticket.core.sockets cimport epoll_event, sockaddr_storage, socklen_t
from fastticket.core.verdict cimport Verdict

cdef enum:
    TIMERS = 10
    SERVERS_MAX = 256
    GROUPS_MAX = 64
    ROUTES_MAX = 256
    ROUTE_PATH_MAX = 255
    NETWORKS_MAX = 64
    EVENTS_MAX = 256
    VERDICTS = 12
    HOST_BYTES_MAX = 100


cdef enum Side:
    FREE = 0
    LISTENER
    DOWNSTREAM
    UPSTREAM


cdef enum State:
    # downstream
    IDLE = 0                    # between requests, nothing read
    READING_HEAD
    ASKING                      # the control plane: is this ticket alive?
    CONNECTING                  # of both sides: waiting for the upstream connection
    EXCHANGING                  # request and response under way
    HOOKED                      # the control plane: log in, log out; the response waits
    FLUSHING                    # the last answer is on its way
    LINGERING                   # no more is sent; read until the client has seen it
    # upstream
    POOLED
    AWAITING_HEAD
    RELAYING
    # both
    TUNNELLING


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


cdef enum AskKind:
    AUTHENTICATE = 0
    LOGIN
    LOGOUT
    LOGOUT_EVERYWHERE

cdef enum Auth:
    AUTH_NONE = 0
    AUTH_OPTIONAL
    AUTH_REQUIRED


cdef struct Conn:
    int fd
    uint32_t generation
    Side side
    State state
    bint readable               # the kernel may have bytes for us (edge-triggered: it will not say so again)
    bint hung_up                # it has said that no more will come after those
    bint watches_out
    uint32_t peer               # the other side of the exchange
    # timer queue
    Timer timer
    int64_t deadline_ms
    uint32_t timer_next
    uint32_t timer_previous
    # what was read and must be kept: a request from its head on, pieces of a response head
    uint8_t *held
    uint32_t held_size
    # what the kernel did not take yet
    uint8_t *unsent
    uint32_t unsent_at
    uint32_t unsent_size
    # the message coming in
    Framing framing
    bint complete
    uint64_t left
    Chunks chunks
    # the message going out
    bint sends_chunks
    uint64_t window_bytes       # moved since the timer was set
    # downstream: the request
    uint32_t head_size          # in `held`
    uint32_t body_size          # in `held`, after the head, decoded
    bint held_is_whole          # `held` begins with the head, and so the request can be sent (again)
    bint closes                 # after this answer
    bint websocket
    bint retried
    bint answered               # a byte of the response went to the client
    uint8_t minor
    Method method
    uint16_t route
    uint16_t attempts
    uint8_t auth                # what the route asks for
    bint is_admitted
    Checked checked             # the ticket
    bint is_trusted             # the client is a proxy of ours
    uint8_t address_size
    char[46] address
    uint8_t host_size           # 0: not kept, or longer
    char[HOST_BYTES_MAX] host
    # upstream
    uint16_t server
    bint reused
    bint keeps_alive
    bint send_failed
    uint32_t pool_next
    uint32_t pool_previous


cdef struct Server:
    sockaddr_storage address
    socklen_t address_size
    uint32_t idle_first         # most recently used
    uint32_t idle_count
    int64_t down_until_ms
    uint32_t failures


cdef struct Group:
    uint16_t first
    uint16_t count
    uint16_t following


cdef struct Route:
    uint16_t path_size
    uint8_t[ROUTE_PATH_MAX] path
    uint8_t auth                # 0 none, 1 optional, 2 required
    bint touches
    bint logs_in
    bint is_endpoint            # answered here: 204 with the identity, no upstream
    uint16_t group


cdef struct Network:
    uint8_t[16] address
    uint8_t bits


cdef struct Ask:
    uint32_t index
    uint32_t generation
    uint8_t kind
    Span value                  # in the upstream connection's `held`


cdef struct Text:
    const uint8_t *at
    uint32_t size


cdef struct Counters:
    uint64_t accepted
    uint64_t requests
    uint64_t admitted
    uint64_t responses
    uint64_t bad_requests
    uint64_t upstream_connects
    uint64_t upstream_errors
    uint64_t upstream_timeouts
    uint64_t retries
    uint64_t timeouts
    uint64_t[VERDICTS] refused


cdef class Proxy:
    cdef readonly Checker checker
    cdef Names names
    cdef int epoll_fd
    cdef Conn *conns
    cdef uint32_t conn_count
    cdef uint32_t free_first            # linked by pool_next
    cdef uint32_t freed_first           # closed in this turn: not to be reused before it ends
    cdef uint32_t downstream_max
    cdef uint32_t downstream_count
    cdef bint accepts
    cdef int64_t accepts_again_ms
    cdef bint draining
    cdef Server[SERVERS_MAX] servers
    cdef uint16_t server_count
    cdef Group[GROUPS_MAX] groups
    cdef uint16_t group_count
    cdef Route[ROUTES_MAX] routes
    cdef uint16_t route_count
    cdef Network[NETWORKS_MAX] networks
    cdef int network_count
    cdef bint trusts_unix
    cdef tuple texts                    # what the three below borrow
    cdef Text cookie
    cdef Text identity_field            # with ": "
    cdef bint keeps_host                # for cookies with a domain
    cdef Text login_url
    cdef uint32_t[TIMERS] timer_first
    cdef uint32_t[TIMERS] timer_last
    cdef int64_t[TIMERS] timer_ms
    cdef uint64_t request_rate_min      # bytes/s
    cdef uint64_t response_rate_min
    cdef epoll_event[EVENTS_MAX] events
    cdef int64_t now_ms                 # monotonic, of this turn
    cdef Head head                      # the last one parsed
    cdef uint8_t *scratch               # what was received just now
    cdef uint8_t *out                   # what is about to be sent
    cdef uint32_t out_size
    cdef uint8_t *block_first           # free blocks of HEAD_BYTES_MAX, linked through their first bytes
    cdef uint32_t block_count
    cdef Ask *ask_list
    cdef uint32_t ask_count
    cdef uint64_t *again                # connections with more to read than one turn takes
    cdef uint32_t again_count
    cdef Counters counters

    cdef uint32_t _find(self, object handle, State state) except? 0
    cdef uint64_t _handle(self, uint32_t index) noexcept nogil
    cdef void _begin_now(self) noexcept nogil
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
    cdef bint _response_flows(self, uint32_t index) noexcept nogil
    cdef void _turn(self) noexcept nogil
    cdef void _on_event(self, uint32_t index, uint32_t events) noexcept nogil
    cdef void _received(self, Conn *c, ssize_t size, uint32_t room) noexcept nogil
    cdef void _later(self, uint32_t index) noexcept nogil
    cdef void _accept(self, int listener) noexcept nogil
    cdef void _set_accepting(self, bint accepts) noexcept nogil
    cdef void _remember_client(self, Conn *c, const sockaddr_storage *address) noexcept nogil
    cdef bint _send(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil
    cdef void _flush(self, uint32_t index) noexcept nogil
    cdef void _send_failed(self, uint32_t index) noexcept nogil
    cdef void _abort(self, uint32_t index) noexcept nogil
    cdef void _resume(self, uint32_t index) noexcept nogil
    cdef void _read_head(self, uint32_t index) noexcept nogil
    cdef void _serve(self, uint32_t index) noexcept nogil
    cdef void _begin(self, uint32_t index) noexcept nogil
    cdef bint _begin_body(self, Conn *c) noexcept nogil
    cdef bint _route(self, Conn *c) noexcept nogil
    cdef void _check(self, uint32_t index) noexcept nogil
    cdef int _find_tickets(self, Conn *c, Span *ticket) noexcept nogil
    cdef void _ask(self, uint32_t index, AskKind kind, Span value) noexcept nogil
    cdef void _refused(self, uint32_t index, int verdict, bint parsed) noexcept nogil
    cdef bint _is_browser(self, Conn *c, bint parsed) noexcept nogil
    cdef void _reject(self, uint32_t index, int status, const char *slug) noexcept nogil
    cdef void _fail(self, uint32_t index, int status, const char *slug) noexcept nogil
    cdef void _answer_identity(self, uint32_t index) noexcept nogil
    cdef void _deliver(self, uint32_t index, const uint8_t *answer, uint32_t size) noexcept nogil
    cdef const char *_connection_field(self, Conn *c) noexcept nogil
    cdef void _respond(self, uint32_t index, int status, const char *slug, const char *fields) noexcept nogil
    cdef void _flush_out(self, uint32_t index) noexcept nogil
    cdef void _after_answer(self, uint32_t index) noexcept nogil
    cdef void _linger(self, uint32_t index, bint more_held) noexcept nogil
    cdef void _discard(self, uint32_t index) noexcept nogil
    cdef void _forward(self, uint32_t index, bint parsed) noexcept nogil
    cdef uint16_t _pick(self, Group *group) noexcept nogil
    cdef uint32_t _connect(self, uint16_t server) noexcept nogil
    cdef void _connected(self, uint32_t index) noexcept nogil
    cdef void _connect_failed(self, uint32_t index) noexcept nogil
    cdef void _server_failed(self, uint16_t server) noexcept nogil
    cdef uint32_t _unpool_alive(self, uint16_t server, Method method) noexcept nogil
    cdef void _pool(self, uint32_t index) noexcept nogil
    cdef bint _is_quiet(self, Conn *c) noexcept nogil
    cdef void _unpool(self, uint32_t index) noexcept nogil
    cdef void _send_request(self, uint32_t index, bint parsed) noexcept nogil
    cdef void _compose_request(self, Conn *c) noexcept nogil
    cdef void _put_forwarding(self, Conn *c) noexcept nogil
    cdef void _put(self, const uint8_t *at, uint32_t size) noexcept nogil
    cdef void _put_field(self, const uint8_t *at, const Field *field) noexcept nogil
    cdef void _put_length(self, uint64_t length) noexcept nogil
    cdef void _put_number(self, uint64_t number) noexcept nogil
    cdef void _put_body(self, const uint8_t *at, uint32_t size, bint chunked, bint complete) noexcept nogil
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
    cdef void _lost(self, uint32_t index) noexcept nogil
    cdef void _on_response(self, uint32_t index, uint8_t *at, uint32_t size) noexcept nogil
    cdef bint _hold(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil
    cdef bint _hooked(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil
    cdef void _relay(
        self, uint32_t index, uint8_t *at, uint32_t size, const uint8_t *fields, uint32_t fields_size) noexcept nogil
    cdef void _compose_response(
        self, Conn *d, const uint8_t *at, const uint8_t *fields, uint32_t fields_size, bint is_tunnel) noexcept nogil
    cdef void _open_tunnel(self, uint32_t index) noexcept nogil
    cdef void _finish(self, uint32_t index) noexcept nogil
