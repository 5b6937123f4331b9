from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.dataplane.accesslog cimport AccessLog, Entry
from fastticket.core.check cimport Checked, Checker
from fastticket.dataplane.clients cimport ADDRESS_BYTES, ADDRESS_TEXT_MAX, Networks, Tally
from fastticket.dataplane.frames cimport Frames
from fastticket.dataplane.chunks cimport Chunks
from fastticket.dataplane.fieldnames cimport Names
from fastticket.dataplane.http1 cimport Field, Framing, Head, Method
from fastticket.dataplane.octets cimport Span
from fastticket.dataplane.routes cimport Auth, Routes, Text
from fastticket.dataplane.sockets cimport epoll_event, sockaddr_storage, socklen_t
from fastticket.dataplane.balance cimport Group, Upstreams
from fastticket.core.verdict cimport VERDICTS, Verdict

cdef enum:
    TIMERS = 14
    WAIT_BYTES = 16             # for so many, and a power of two
    QUEUES_MAX = 250
    WAITS_MAX = 64
    FAULTS_NOTED_MAX = 16
    UPGRADES_MAX = 8
    EVENTS_MAX = 256
    LATENCY_BUCKETS = 28        # bucket i: less than 2**i µs; the last one has the rest
    HOST_BYTES_MAX = 100
    AGENT_CHARS_MAX = 200
    NEXT_BYTES_MAX = 4096       # of where a client wanted to go, encoded
    LOCATION_BYTES_MAX = 5120
    AGENT_BYTES_MAX = 800       # so many characters in UTF-8
    DOUBT_BYTES_MAX = 3000      # of fields that clear cookies


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
    QUEUED                      # all servers are busy: in the queue of its group
    CONNECTING                  # of both sides: waiting for the upstream connection
    EXCHANGING                  # request and response under way
    HOOKED                      # the control plane: log in, log out; the response waits
    FLUSHING                    # the last answer is on its way
    LINGERING                   # no more is sent; read until the client has seen it
    # upstream
    POOLED
    KEPT                        # idle, for one client alone
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
    PENDING
    TUNNEL
    VOUCH
    SEND                        # the upstream is slow to take a request


cdef enum AskKind:
    AUTHENTICATE = 0
    AUTHENTICATE_STRONG
    AUTHENTICATE_LATEST         # who asks how long his session still lives
    EXEMPTION
    STILL_ALIVE
    SEVERAL                     # tickets: which cookies to clear
    LOGIN                       # from here on: a response waits
    LOGIN_REMEMBERED
    LOGOUT
    LOGOUT_EVERYWHERE
    ROTATE
    # never asked:
    UNCLEAR                     # nobody knows what the application wants
    UNHEARD                     # of an application that may not, or of nobody's session
    NO_WISH


cdef enum Wish:                 # what a client says about its session
    NO_USE_WISH = 1             # this request is none of it
    LIFETIME_WISH = 2           # how long does it still live?


cdef enum Endpoint:
    NO_ENDPOINT = 0
    OF_TICKETS                  # whether the ticket is good
    OF_REQUESTS                 # whether the request that another gateway describes may pass


cdef enum Front:                # what the gateway that asks says of the request that it has
    NO_FRONT = 0
    SAYS_ORIGINAL               # X-Original-Method, X-Original-URI, Host
    SAYS_FORWARDED              # X-Forwarded-Method, X-Forwarded-Uri, X-Forwarded-Host
    SAYS_BELOW                  # its own method and Host, and the target after the endpoint's path


cdef struct Queue:              # of all that wait for the same, equally long
    Timer kind
    uint32_t first
    uint32_t last
    int64_t length_ms


cdef struct Noted:              # what an operator is to be told of a server
    uint16_t server
    const char *what


cdef struct Agent:              # what a client calls its program, who may be about to log in
    uint16_t size
    uint8_t[AGENT_BYTES_MAX] text


cdef struct Doubt:              # of a request with several tickets
    uint32_t fields_size
    uint32_t tickets_size
    uint8_t *text               # field lines for the answer, then the tickets


cdef struct Conn:
    int fd
    uint32_t generation
    Side side
    State state
    bint readable               # the kernel may have bytes for us (edge-triggered: it will not say so again)
    bint hung_up                # it has said that no more will come after those
    bint watches_out
    uint32_t peer               # the other side of the exchange
    uint32_t link_next          # free connections, a server's pool, a group's pending requests
    uint32_t link_previous
    # timer
    uint8_t waits               # which set of timeouts
    uint8_t queue               # 0: none
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
    uint64_t window_bytes       # received since the timer was set
    uint64_t taken_bytes        # and sent
    # downstream: the request
    uint32_t head_size          # in `held`
    uint32_t body_size          # in `held`, after the head, decoded
    bint held_is_whole          # `held` begins with the head, and so the request can be sent (again)
    bint closes                 # after this answer
    bint is_unframed            # only the connection's end tells where the answer ends: to close it before that is a reset
    uint8_t upgrade             # the protocol to change to, from 1
    uint8_t minor
    bint is_routed              # the route is that of the request under way
    bint is_held_up             # in this window of the body, by the upstream: the client is not to blame
    int64_t window_ends_ms
    bint retried
    bint answered               # a byte of the response went to the client
    Method method
    uint16_t route
    uint16_t attempts
    Auth auth                   # what the route asks for
    bint is_plain               # its path; else it needs a ticket whatever the route says
    bint exemption_asked
    uint8_t verdict             # for which it would be refused
    uint8_t asked               # what the control plane was asked last
    bint is_admitted
    bint is_used                # has sent something since its ticket was judged
    bint is_vouched             # the control plane was asked whether the session still lives
    uint8_t wishes              # of Wish
    uint8_t endpoint            # of Endpoint: answered here, for another gateway
    bint was_confirmed          # judged again after it had waited
    uint32_t asks               # of the control plane so far: the number of the last one
    uint32_t requests           # so far
    int64_t began_us            # of the request under way; 0: none
    uint64_t body_bytes_out
    uint16_t status
    const char *reason          # of an answer of our own
    Entry *entry                # for the access log
    Agent *agent                # of the request under way, if a login would record it
    Doubt *doubt                # if there were several
    Checked checked             # the ticket
    bint awaits_proxy_header
    bint is_trusted             # whom we speak with is a proxy of ours
    bint is_counted             # in `clients`
    bint has_address
    uint8_t[ADDRESS_BYTES] peer_address
    uint8_t[ADDRESS_BYTES] client
    uint8_t address_size
    char[ADDRESS_TEXT_MAX] address      # whom we speak with
    bint is_https               # with `host`, as a proxy of ours has it
    uint8_t host_size           # 0: not kept, or longer
    char[HOST_BYTES_MAX] host
    uint32_t kept               # of both sides: an upstream connection that is this client's alone, and whose it is; or NONE
    # upstream
    uint16_t server
    bint is_personal            # who authenticates has authenticated the connection: never in the pool
    int keep_alive_s            # of its last response, as `Head` has it
    int64_t usable_until_ms     # in the pool, as the server says; 0: it says nothing
    Frames frames               # of a tunnel, what comes from here
    bint is_parted              # and its client was told that the gateway goes away: nothing follows that
    bint reused
    bint keeps_alive
    bint send_failed
    uint8_t interims            # interim responses so far


cdef struct Ask:
    uint32_t index
    uint32_t generation
    uint32_t number             # of the connection's
    uint8_t kind
    Span value                  # in the upstream connection's `held`


cdef struct Counters:
    uint64_t accepted
    uint64_t over_client_limit
    uint64_t proxy_headers_refused      # connections closed for want of a PROXY header that counts
    uint64_t requests
    uint64_t admitted
    uint64_t anonymous                  # passed on without a ticket
    uint64_t responses
    uint64_t bad_requests
    uint64_t upstream_connects
    uint64_t upstream_errors
    uint64_t upstream_timeouts
    uint64_t retries
    uint64_t queue_full
    uint64_t timeouts
    uint64_t tunnels
    uint64_t cut                        # streams and tunnels, because their session was over
    uint64_t cut_short                  # requests whose answer did not get through
    uint64_t forged                     # tickets under a key of ours, with a signature that is not
    uint64_t full                       # times that connections_max were there, and others had to wait
    uint64_t out_of_descriptors         # times that there was none for a connection
    uint64_t cookies_dropped            # of the ticket's name, that an upstream had no right to set
    uint64_t[VERDICTS] refused
    uint64_t[6] answers                 # by the first digit of their status
    uint64_t[LATENCY_BUCKETS] latency
    uint64_t latency_us_sum


cdef class Proxy:
    cdef readonly Checker checker
    cdef readonly Upstreams upstreams
    cdef readonly Routes routes
    cdef readonly AccessLog log
    cdef Networks trusted
    cdef Tally clients
    cdef Names names
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
    cdef uint8_t websocket          # which of `upgrades`, from 1; 0: none
    cdef bint leaving               # every connection closes after its next answer; others are still let in
    cdef bint draining
    cdef bint closes_idle
    cdef uint64_t freed_groups          # a bit for each group in which a server may have room for a pending request
    cdef tuple texts                    # what these borrow:
    cdef Text cookie
    cdef Text identity_field            # with ": "
    cdef bint escapes_identity          # percent-encoding, for who does not read UTF-8 in a field
    cdef Text request_id_field          # with ": "
    cdef Text login_url
    cdef Text login_fragment            # of it, with its "#"
    cdef Text next_name                 # the parameter for where a client wanted to go, with what goes before and after it
    cdef Text lifetime_field            # with ": "
    cdef Front front                    # who asks at the endpoint
    cdef bint forwards_ticket
    cdef Text[UPGRADES_MAX] upgrades
    cdef uint32_t upgrade_count
    cdef bint records_address           # with a login
    cdef bint records_agent
    cdef bint expects_proxy_header
    cdef const char *unannounced_why    # the last connection was closed that had no PROXY header that counts
    cdef char[ADDRESS_TEXT_MAX] unannounced_peer
    cdef bint writes_forwarded
    cdef bint keeps_entry               # of each request: for the log, or its id
    cdef int64_t date_s                 # which second `date` says
    cdef char[40] date
    cdef uint64_t random
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
    cdef Queue[QUEUES_MAX] queues       # 0 is none, 1 to TIMERS - 1 those of the kinds
    cdef int queue_count
    cdef char[LOCATION_BYTES_MAX] location  # of an answer of our own
    cdef uint8_t[WAITS_MAX][WAIT_BYTES] waits
    cdef int waits_count
    cdef epoll_event[EVENTS_MAX] events
    cdef int64_t now_us                 # monotonic, of this turn
    cdef int64_t now_ms
    cdef Head head                      # the last one parsed
    cdef int tickets                    # that head has; -1: nobody has looked
    cdef Span ticket                    # the last one
    cdef int chain_field                # where it names the client; -1: nowhere
    cdef uint32_t chain_at
    cdef uint8_t *scratch               # what was received just now
    cdef uint8_t *out                   # what is about to be sent
    cdef uint32_t out_size
    cdef uint32_t out_bytes             # its size
    cdef uint32_t run_at                # field lines that go on as they came, still to be copied
    cdef uint32_t run_end
    cdef uint8_t *block_first           # free blocks of `head_bytes`, linked through their first bytes
    cdef uint32_t block_count
    cdef Ask *ask_list
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
    cdef bytes _normal_path(self, Conn *c)
    cdef bint _has_exact_path(self, Conn *c) noexcept nogil
    cdef dict _details(self, const Conn *c)
    cdef tuple _where(self, Conn *c)
    cdef tuple _several(self, Conn *c)
    cdef str _doubtful(self, const Conn *c)

    cdef uint32_t _asked(self, object handle) except? 0
    cdef uint32_t _find(self, object handle, State state) except? 0
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
    cdef void _cut(self, uint32_t index) noexcept nogil
    cdef bint _meet(self, Conn *c, const sockaddr_storage *address) noexcept nogil
    cdef bint _know(self, Conn *c) noexcept nogil
    cdef bint _read_proxy_header(self, uint32_t index) noexcept nogil
    cdef void _note_unannounced(self, const Conn *c, const char *why) noexcept nogil
    cdef int _over_limits(self, const Head *head, int size) noexcept nogil
    cdef void _refuse_body(self, uint32_t index) noexcept nogil
    cdef uint8_t _upgrade_of(self, const Conn *c, const Head *head) noexcept nogil
    cdef void _note_request(self, Conn *c) noexcept nogil
    cdef void _note_nothing(self, Conn *c) noexcept nogil
    cdef void _note_refused(self, Conn *c, int verdict) noexcept nogil
    cdef void _name_request(self, Conn *c, bint is_read) noexcept nogil
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
    cdef void _admit(self, uint32_t index, bint parsed) noexcept nogil
    cdef void _pass(self, uint32_t index, bint parsed) noexcept nogil
    cdef uint64_t _key(self, const Conn *c, const Group *group) noexcept nogil
    cdef void _forward_now(self, uint32_t index) noexcept nogil
    cdef void _enqueue(self, uint32_t index, Group *group) noexcept nogil
    cdef void _leave_queue(self, uint32_t index) noexcept nogil
    cdef void _freed(self, uint16_t server) noexcept nogil
    cdef void _serve_pending(self) noexcept nogil
    cdef void _put_upgrade(self, const Conn *c) noexcept nogil
    cdef void _find_client(self, Conn *c) noexcept nogil
    cdef void _put_forwarded(self, Conn *c, const Field *proto) noexcept nogil
    cdef void _put_request_id(self, const Conn *c) noexcept nogil
    cdef bint _agreed(self, const Conn *d, const uint8_t *at) noexcept nogil
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
    cdef void _body_is_late(self, uint32_t index) noexcept nogil
    cdef void _stir(self, uint32_t upstream) noexcept nogil
    cdef void _note(self, uint16_t server, const char *what) noexcept nogil
    cdef void _malformed(self, uint32_t index, const char *what) noexcept nogil
    cdef void _put_own_fields(self, const Text *lines) noexcept nogil
    cdef bint _goes_downstream(self, const Conn *d, const uint8_t *at, const Field *field, bint has_ours) noexcept nogil
    cdef bint _may_set(self, const Conn *d, const uint8_t *at, const Field *field, bint has_ours) noexcept nogil
    cdef uint32_t _kept_for(self, uint32_t index, const Group *group) noexcept nogil
    cdef void _keep(self, uint32_t index, uint32_t downstream) noexcept nogil
    cdef void _let_go_of_kept(self, Conn *c) noexcept nogil
    cdef bint _waits_for_kept(self, const Conn *c, const Group *group) noexcept nogil
    cdef void _use_kept(self, uint32_t index, uint32_t upstream, bint parsed) noexcept nogil
    cdef bint _is_use(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil
    cdef const char *_fault_of(self, int result, const uint8_t *at, uint32_t size, Method method) noexcept nogil
    cdef AskKind _wish(self, const Conn *d, const uint8_t *at, const Field *field) noexcept nogil
    cdef bint _response_flows(self, uint32_t index) noexcept nogil
    cdef void _turn(self) noexcept nogil
    cdef void _on_event(self, uint32_t index, uint32_t events) noexcept nogil
    cdef void _received(self, Conn *c, ssize_t size, uint32_t room) noexcept nogil
    cdef void _later(self, uint32_t index) noexcept nogil
    cdef void _accept(self, int listener) noexcept nogil
    cdef void _set_accepting(self, bint accepts) noexcept nogil
    cdef bint _send(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil
    cdef void _flush(self, uint32_t index) noexcept nogil
    cdef void _send_failed(self, uint32_t index) noexcept nogil
    cdef void _abort(self, uint32_t index) noexcept nogil
    cdef void _resume(self, uint32_t index) noexcept nogil
    cdef void _read_head(self, uint32_t index) noexcept nogil
    cdef void _serve(self, uint32_t index) noexcept nogil
    cdef void _begin(self, uint32_t index) noexcept nogil
    cdef bint _begin_body(self, Conn *c) noexcept nogil
    cdef void _check(self, uint32_t index) noexcept nogil
    cdef bint _touches(self, const Conn *c) noexcept nogil
    cdef void _read_again(self, Conn *c) noexcept nogil
    cdef bint _stand_in(self, uint32_t index) noexcept nogil
    cdef int _find_original(self, const Conn *c) noexcept nogil
    cdef bint _find_below(self, const Conn *c, Span *target) noexcept nogil
    cdef const char *_login_line(self, const Conn *c, int verdict) noexcept nogil
    cdef uint32_t _encode_next(self, const Conn *c, uint8_t *out) noexcept nogil
    cdef bint _withhold_ticket(self, const Conn *c, const Field *field) noexcept nogil
    cdef bint _put_cookies_left(self, const Conn *c, const Field *field) noexcept nogil
    cdef void _note_wish(self, Conn *c, const Field *field) noexcept nogil
    cdef void _put_lifetime(self, const Conn *c) noexcept nogil
    cdef void _note_target(self, Conn *c) noexcept nogil
    cdef int _find_tickets(self, Conn *c, Span *ticket) noexcept nogil
    cdef void _ask(self, uint32_t index, AskKind kind, Span value) noexcept nogil
    cdef void _refused(self, uint32_t index, int verdict, bint parsed) noexcept nogil
    cdef bint _is_browser(self, Conn *c, bint parsed) noexcept nogil
    cdef void _reject(self, uint32_t index, int status, const char *reason) noexcept nogil
    cdef void _fail(self, uint32_t index, int status, const char *reason) noexcept nogil
    cdef void _put_identity(self, const Conn *c) noexcept nogil
    cdef void _put_escaped(self, uint8_t c) noexcept nogil
    cdef void _answer_identity(self, uint32_t index) noexcept nogil
    cdef void _deliver(self, uint32_t index, int status, const uint8_t *answer, uint32_t size) noexcept nogil
    cdef const char *_connection_field(self, Conn *c) noexcept nogil
    cdef void _respond(self, uint32_t index, int status, const char *reason, const char *fields) noexcept nogil
    cdef void _flush_out(self, uint32_t index) noexcept nogil
    cdef void _after_answer(self, uint32_t index) noexcept nogil
    cdef void _linger(self, uint32_t index, bint more_held) noexcept nogil
    cdef void _discard(self, uint32_t index) noexcept nogil
    cdef void _forward(self, uint32_t index, bint parsed) noexcept nogil
    cdef uint32_t _connect(self, uint16_t server) noexcept nogil
    cdef void _connected(self, uint32_t index) noexcept nogil
    cdef void _connect_failed(self, uint32_t index, int reason) noexcept nogil
    cdef uint32_t _unpool(self, uint16_t server, bint can_be_sent_again) noexcept nogil
    cdef void _pool(self, uint32_t index) noexcept nogil
    cdef bint _is_quiet(self, Conn *c) noexcept nogil
    cdef void _leave_pool(self, uint32_t index) noexcept nogil
    cdef void _send_request(self, uint32_t index, bint parsed) noexcept nogil
    cdef void _compose_request(self, Conn *c) noexcept nogil
    cdef void _put_forwarding(self, Conn *c) noexcept nogil
    cdef void _put(self, const uint8_t *at, uint32_t size) noexcept nogil
    cdef void _put_field(self, const uint8_t *at, const Field *field) noexcept nogil
    cdef void _put_apart(self, const uint8_t *at, const Field *field) noexcept nogil
    cdef void _end_run(self, const uint8_t *at) noexcept nogil
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
    cdef AskKind _login_kind(self, const uint8_t *at) noexcept nogil
    cdef void _relay(
        self, uint32_t index, uint8_t *at, uint32_t size, const uint8_t *fields, uint32_t fields_size) noexcept nogil
    cdef void _guard_end(self, Conn *c, bint is_unframed) noexcept nogil
    cdef void _compose_response(
        self, Conn *d, const uint8_t *at, const uint8_t *fields, uint32_t fields_size, bint is_tunnel) noexcept nogil
    cdef void _open_tunnel(self, uint32_t index) noexcept nogil
    cdef bint _part(self, uint32_t index) noexcept nogil
    cdef void _finish(self, uint32_t index) noexcept nogil
