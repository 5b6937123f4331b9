# What is known of a connection: of its socket (`Conn`), of the client at its other end (`Client`),
# of the request under way (`Request`), of the way to a server (`Link`). A downstream connection has
# a client and a request, an upstream one a link; the other parts of its slot stay zero.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.core.check cimport Checked
from fastticket.dataplane.accesslog cimport PRINCIPAL_KEPT_MAX, Entry
from fastticket.dataplane.clients cimport ADDRESS_BYTES, ADDRESS_TEXT_MAX
from fastticket.dataplane.frames cimport Frames
from fastticket.dataplane.chunks cimport Chunks
from fastticket.dataplane.http1 cimport Framing, Method
from fastticket.dataplane.octets cimport Span
from fastticket.dataplane.lists cimport Node
from fastticket.dataplane.routes cimport Auth
from fastticket.dataplane.states cimport CHECKS_MOVES, Downstream, Upstream, check_move

cdef enum:
    HOST_BYTES_MAX = 100
    AGENT_CHARS_MAX = 200
    AGENT_BYTES_MAX = 800       # so many characters in UTF-8
    DOUBT_BYTES_MAX = 3000      # of fields that clear cookies


cdef enum Side:
    FREE = 0
    LISTENER
    DOWNSTREAM
    UPSTREAM
    BELL                        # other threads say that there is something for this plane


cdef enum Change:               # what a response wants of the session, beside the kinds of asks.AskKind from LOGIN on
    UNCLEAR = 15                # after AskKind.SUPERSEDED; its fields can be read in two ways, or not at all
    IGNORED                     # the application may not, or there is no session
    NO_CHANGE


cdef enum Preference:           # what a client says about its session
    NO_USE_ASKED = 1            # this request is no use of it
    LIFETIME_ASKED = 2          # how long does it still live?


cdef enum Endpoint:
    NO_ENDPOINT = 0
    OF_TICKETS                  # whether the ticket is good
    OF_REQUESTS                 # whether the request that another gateway describes may pass


cdef struct Notes:              # of a request whose head may be gone when its response comes
    uint8_t *cookies            # all, if another system's is among them
    uint32_t cookies_size
    bint has_agent              # what a client calls its program, where a login may record it
    uint16_t agent_size
    uint8_t[AGENT_BYTES_MAX] agent


cdef struct Doubt:              # of a request with several tickets, or that was exchanged for one
    uint32_t fields_size
    uint32_t tickets_size       # 0: exchanged
    uint8_t *text               # field lines for the answer, then the tickets


# The order of the members below is that of use: what each request reads and writes stands together,
# in as few cache lines as can be; what only some connections have stands behind it (of `Link`:
# before it). Between two system calls the kernel drives out what was there, and a line that has to
# be fetched costs more than all that is done with it (docs/decisions/0033).

ctypedef uint8_t flag           # 0 or 1


cdef struct Client:
    flag is_trusted             # the peer is a proxy of ours
    bint is_counted             # in `clients`
    flag has_address            # `address` is one
    uint8_t peer_text_size
    char[ADDRESS_TEXT_MAX] peer_text
    uint8_t[ADDRESS_BYTES] peer_address     # of the peer: the client itself, or the last proxy before us
    uint8_t[ADDRESS_BYTES] address          # of the client, as far as proxies of ours vouch for it


cdef struct Request:
    uint32_t head_size          # in `held`
    uint32_t body_size          # in `held`, after the head, decoded
    uint32_t requests           # of the connection so far
    uint16_t status
    uint16_t route
    uint16_t attempts
    flag held_is_whole          # `held` begins with the head, and so the request can be sent (again)
    flag closes                 # after this answer
    flag is_unframed            # only the connection's end tells where the answer ends: to close it before that is a reset
    uint8_t upgrade             # the protocol to change to, from 1
    uint8_t minor
    flag is_routed              # the route is that of the request under way
    flag is_held_up             # in this window of the body, by the upstream: the client is not to blame
    flag retried
    flag answered               # a byte of the response went to the client
    flag exemption_asked
    flag exchange_asked
    flag has_no_ticket          # when the exchange was asked
    flag token_asked
    flag is_admitted
    flag is_used                # has sent something since its ticket was judged
    flag liveness_is_asked      # the control plane was asked whether the session still lives
    uint8_t preferences         # of Preference
    uint8_t endpoint            # of Endpoint: answered here, for another gateway
    flag was_confirmed          # judged again after it had waited
    uint8_t verdict             # for which it would be refused
    uint8_t asked               # the AskKind of the last ask
    bint is_plain               # its path; else it needs a ticket whatever the route says
    Method method
    Auth auth                   # what the route asks for
    int64_t began_us            # 0: no request is under way
    uint64_t body_bytes_out
    const char *reason          # of an answer of our own
    Entry *entry                # for the access log
    Notes *notes                # if there are any
    Doubt *doubt                # if there were several tickets, or another system's cookie
    uint32_t asks               # of the connection so far: the number of the last one
    Checked checked             # the ticket
    int64_t window_ends_ms
    flag is_https               # with `host`, as a proxy of ours has it
    uint8_t host_size           # 0: not kept, or longer
    char[HOST_BYTES_MAX] host


cdef struct Link:
    uint8_t[PRINCIPAL_KEPT_MAX] principal
    uint8_t principal_size      # KEPT: the principal that it is kept for; 0: a client without a ticket
    flag is_close_announced     # its client was told that the gateway goes away: nothing follows that
    uint16_t server
    flag is_active              # a request is under way, of which Upstreams knows
    flag is_personal            # a client has authenticated it (NTLM, Negotiate): never in the pool
    flag reused
    flag keeps_alive
    flag send_failed
    uint8_t interims            # interim responses so far
    int keep_alive_s            # of its last response, as `Head` has it
    int64_t usable_until_ms     # in the pool, as the server says; 0: it says nothing
    int64_t asked_us            # when the request under way was sent


cdef struct Conn:
    Link link
    int fd
    uint32_t generation
    uint32_t peer               # the other side of the exchange
    Side side
    uint8_t state               # of Downstream or Upstream
    flag readable               # the kernel may have bytes for us (edge-triggered: it will not say so again)
    flag hung_up                # it has said that no more will come after those
    flag watches_out
    flag complete               # the message coming in
    flag sends_chunks           # the message going out
    # timer
    uint8_t waits               # which set of timeouts
    uint8_t deadlines           # which list of deadlines; 0: none
    int64_t deadline_ms
    Node timer
    # what was read and must be kept: a request from its head on, pieces of a response head
    uint8_t *held
    uint32_t held_size
    uint32_t kept               # of both sides: an upstream connection that is this client's alone, and whose it is; or NONE
    # what the kernel did not take yet
    uint8_t *unsent
    # the message coming in
    uint64_t left
    Framing framing
    Node place                  # among free slots, in a server's pool, in a group's pending requests
    uint64_t taken_bytes        # sent since the timer was set
    Client client
    Request request
    # what few connections have
    uint64_t window_bytes       # received since the timer was set
    uint32_t unsent_at
    uint32_t unsent_size
    Chunks chunks               # of the message coming in
    Frames frames               # of a tunnel, what comes from here


cdef inline void enter(Conn *c, int state) noexcept nogil:
    """The one way to change a connection's state."""
    if CHECKS_MOVES:
        check_move(c.state, state)
    c.state = <uint8_t>state


cdef inline bint reads_heads(const Conn *c) noexcept nogil:
    """Whether what comes next is a request's head, or what stands before it."""
    return Downstream.IDLE <= c.state <= Downstream.READING_HEAD


cdef inline bint is_idle(const Conn *c) noexcept nogil:
    """Whether a client has nothing under way, not even half a head."""
    return c.state == Downstream.IDLE or c.state == Downstream.AWAITING_PROXY_HEADER and c.held_size == 0


cdef inline bint is_tunnelling(const Conn *c) noexcept nogil:
    return c.state == Downstream.TUNNELLING or c.state == Upstream.TUNNELLED


cdef inline bint can_be_sent_again(const Conn *d) noexcept nogil:
    """Whether all of a request is held, and doing it twice is as good as once (RFC 9110, 9.2.2)."""
    cdef Method method = d.request.method
    return d.request.held_is_whole and d.complete and (
        method == Method.GET or method == Method.HEAD or method == Method.OPTIONS
        or method == Method.PUT or method == Method.DELETE
    )
