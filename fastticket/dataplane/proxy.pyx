# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The data plane: an epoll of its own, driven from one event-loop callback, without the GIL.

    turn()      every ready socket: recv -> head -> ticket -> patched head -> send
    tick()      what took too long
    asks()      what only the control plane can answer (load a session, log in, log out); it answers by handle

Structure
    A *connection* is a slot of a fixed table; a handle is its number and its generation, so what is
    said about a closed connection never reaches the next one in its slot, and a slot closed in a
    turn is not used again before the turn ends. An *exchange* is a downstream and an upstream
    connection that are each other's peer, from the forwarding of a request to the end of its
    response.

Rules of this file
    - Sockets are edge-triggered. `readable` remembers what the kernel will not say again; a read
      shorter than asked for clears it, unless the other side has hung up: then only the end itself
      does.
    - A request is kept as it came (`held`) until its body is streamed or its response begins: to
      wait for a verdict or a connection, and to be sent again, it is read again. What goes upstream
      is written anew from what was understood.
    - Bodies pass through one shared buffer. What the next kernel buffer does not take is kept
      (`unsent`), and nothing more is read from the other side until it has gone: so at most one
      buffer a direction is in flight.
    - Each kind of wait has one length, so each has one queue, sorted by itself. A deadline of ours
      or of a client is set once and is not extended by bytes; bodies must keep a minimum rate
      instead. What bounds a silence (of a response, of a tunnel, of an upstream that takes nothing)
      begins anew with what moves.
    - Answers of our own (4xx, 5xx) end the connection unless the request was read to its end.
    - An answer that breaks off never looks whole. Where only the connection's end tells its end
      (HTTP/1.0), a close before that is a reset.
    - Who was admitted stays so for one answer, and no longer than the session: while a tunnel, a
      stream or an upload goes on, its ticket is judged again every VOUCH_MS.
    - An upstream connection is anybody's after each response, unless somebody may have
      authenticated it (NTLM, Negotiate): then it is one client's, for the requests of one
      principal, and never in the pool.
    - Counters are written in place, into memory that another process may read.
"""

cimport cython
from libc.errno cimport (
    EAGAIN, ECONNABORTED, EINPROGRESS, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, ETIMEDOUT, errno
)
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strlen
from libc.time cimport gmtime_r, strftime, time_t, tm
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME_COARSE, clock_gettime, timespec

from fastticket.dataplane.accesslog cimport (
    HOST_KEPT_MAX,
    METHOD_KEPT_MAX,
    NO_KEY,
    PRINCIPAL_KEPT_MAX,
    AccessLog,
    Entry,
    Outcome,
    keep_path,
)
from fastticket.dataplane.answers cimport phrase_of, slug_of
from fastticket.dataplane.clients cimport (
    ADDRESS_BYTES,
    ADDRESS_TEXT_MAX,
    Announced,
    Networks,
    Tally,
    Who,
    is_v4,
    read_address,
    read_proxy_header,
    write_address,
)

from fastticket.dataplane.frames cimport CLOSE_FRAME_BYTES, Frames, close_frame, follow, is_between
from fastticket.dataplane.chunks cimport dechunk
from fastticket.dataplane.cookiefields cimport cookie_in, find_cookie, sets_cookie
from fastticket.dataplane.fieldnames cimport Kind, reads_as
from fastticket.dataplane.hosts cimport read_host
from fastticket.dataplane.http1 cimport (
    FIELDS_MAX,
    TARGET_BYTES_MAX,
    Field,
    asks_head,
    fault_of,
    host_at,
    host_size,
    is_nominated,
    parse_request,
    parse_response,
    take_target,
)
from fastticket.dataplane.octets cimport INCOMPLETE, equals, le64toh
from fastticket.core.compiler cimport __builtin_clzll, is_rare
from fastticket.core.mixing cimport mix
from fastticket.dataplane.paths cimport EXACT, normal_path
from fastticket.dataplane.routes cimport NO_ROUTE, Auth, Route, Routes, Text, adds
from fastticket.dataplane.sockets cimport *
from fastticket.core.ticket cimport ascii_text, decode, encode
from fastticket.dataplane.balance cimport NOBODY, Balance, Group, Server, Upstreams, is_busy
from fastticket.core.wire cimport (
    PRINCIPAL_AT,
    PRINCIPAL_LENGTH_AT,
    RAW_BUFFER_BYTES,
    SESSION_ID_AT,
    TAG_BYTES,
    TEXT_CHARS_MAX,
    never_ms,
    raw_absolute_deadline_ms,
    raw_idle_timeout_s,
    raw_key_id,
)

import os

from fastticket.errors import Verdict as _Verdict

cdef enum:
    NONE = 0xFFFFFFFF
    NO_DESCRIPTOR = 0xFFFFFFFE
    SCRATCH_BYTES = 65536               # read at once
    CHUNK_HEADER_BYTES = 16             # room for one before what was read
    CHUNK_END_BYTES = 16                # and for what ends it after
    EXTRA_BYTES_MAX = 8192              # of fields that the control plane adds
    BLOCKS_KEPT_MAX = 256
    READS_MAX = 16                      # from one connection in one turn
    ACCEPTS_MAX = 64
    IDLE_MAX = 256                      # pooled connections a server
    ACCEPT_PAUSE_MS = 100
    VOUCH_MS = 250
    INTERIMS_MAX = 100                  # interim responses before a final one
    REQUEST_ID_BYTES_MAX = 200
    FORWARDING_BYTES_MAX = 4096         # of the fields that say who the client is, beside those of a trusted proxy

(
    ASK_AUTHENTICATE, ASK_AUTHENTICATE_STRONG, ASK_AUTHENTICATE_LATEST, ASK_EXEMPTION, ASK_VOUCH, ASK_SEVERAL, ASK_LOGIN,
    ASK_LOGIN_REMEMBERED,
    ASK_LOGOUT, ASK_LOGOUT_EVERYWHERE, ASK_ROTATE,
) = range(11)

COUNTERS_BYTES = sizeof(Counters)

cdef const char *CHALLENGE = b"WWW-Authenticate: Ticket realm=\"fastticket\", error=\"%s\"\r\n"

# Who asks at the endpoint, and how it says what it is asked itself.
FRONTS = {
    "": Front.NO_FRONT,
    "nginx": Front.SAYS_ORIGINAL,
    "haproxy": Front.SAYS_ORIGINAL,
    "traefik": Front.SAYS_FORWARDED,
    "caddy": Front.SAYS_FORWARDED,
    "envoy": Front.SAYS_BELOW,
}

# What may be set, its default, the least and the most.
LIMITS = {
    "connections_max": (10_000, 1, 1_000_000),
    "connections_per_client_max": (0, 0, 1_000_000),
    "requests_per_connection_max": (0, 0, 1 << 30),
    "head_bytes_max": (16_384, 1_024, 65_536),
    "fields_max": (128, 1, FIELDS_MAX),
    "target_bytes_max": (8_192, 64, TARGET_BYTES_MAX),
    "response_head_bytes_max": (32_768, 1_024, SCRATCH_BYTES),
    "chunk_extension_bytes_max": (4_096, 0, 1 << 30),
    "request_body_rate_min": (500, 0, 1 << 40),
    "response_body_rate_min": (500, 0, 1 << 40),
}

# What each timer bounds, and its default, s.
TIMEOUTS_S = {
    "keep_alive": (Timer.KEEP_ALIVE, 75),
    "request_head": (Timer.HEAD_IN, 10),
    "verdict": (Timer.ASKED, 30),
    "upstream_connect": (Timer.CONNECT, 5),
    "upstream_first_byte": (Timer.FIRST_BYTE, 60),
    "upstream_send": (Timer.SEND, 60),
    "request_body_window": (Timer.REQUEST_BODY, 10),
    "response_body_window": (Timer.RESPONSE_BODY, 60),
    "linger": (Timer.LINGER, 2),
    "upstream_idle": (Timer.POOL, 1.5),
    "upstream_pending": (Timer.PENDING, 5),
    "tunnel_idle": (Timer.TUNNEL, 300),
}

# Those that a route may have of its own.
ROUTE_TIMEOUTS = (
    "verdict", "upstream_connect", "upstream_first_byte", "upstream_send", "request_body_window", "response_body_window",
    "upstream_pending", "tunnel_idle",
)


cdef inline int64_t _monotonic_us() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1_000_000 + t.tv_nsec // 1000


cdef int64_t _ms(seconds) except -1:
    """At least one: a deadline must not have passed already when it is set."""
    return max(1, int(seconds * 1000))


cdef Text _text(bytes value):
    """Borrowed: the caller keeps `value`."""
    return Text(<const uint8_t *><const char *>value, <uint32_t>len(value))


cdef tuple _login_parts(str login_url, str next_parameter):
    """What is before a fragment, the fragment, and what stands between the first and where a client
    wanted to go.
    """
    url, sign, fragment = login_url.partition("#")
    joint = "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
    name = f"{joint}{next_parameter}=" if next_parameter else ""
    return url.encode("ascii"), (sign + fragment).encode("ascii"), name.encode("ascii")


@cython.final
@cython.no_gc_clear                     # __dealloc__ closes connections, and needs the rooms for it
cdef class Proxy:
    # -------------------------------------------------------------------------------------- control

    def __cinit__(
        self,
        Checker checker not None,
        Upstreams upstreams not None,
        Routes routes not None,
        *,
        limits=None,
        timeouts_s=None,
        cookie="ticket",
        identity_field="X-Forwarded-User",
        escapes_identity=False,
        request_id_field="",
        login_url="",
        next_parameter="",
        front="",
        no_use_field="",
        lifetime_field="",
        dropped_fields=(),
        forwards_ticket=False,
        login_details=(),
        Networks trusted=None,
        expects_proxy_header=False,
        writes_forwarded=False,
        upgrades=("websocket",),
        AccessLog log=None,
        counters=None,
        uint32_t descriptors_max=0,
    ):
        cdef uint32_t i
        self.epoll_fd = -1
        self.checker = checker
        self.upstreams = upstreams
        self.routes = routes
        self.trusted = Networks() if trusted is None else trusted
        self.log = log
        self.names = Names(
            (identity_field,), request_id_field, no_use=no_use_field, lifetime=lifetime_field, dropped=dropped_fields)
        self.texts = (
            cookie.encode("ascii"), identity_field.encode("ascii") + b": ", lifetime_field.encode("ascii") + b": ",
            request_id_field.encode("ascii") + b": ", tuple(name.lower().encode("ascii") for name in upgrades),
            *_login_parts(login_url, next_parameter))
        self.cookie = _text(self.texts[0])
        self.identity_field = _text(self.texts[1])
        self.login_url = _text(self.texts[5])
        self.login_fragment = _text(self.texts[6])
        self.next_name = _text(self.texts[7])
        self.lifetime_field = _text(self.texts[2])
        self.front = FRONTS[front]
        self.forwards_ticket = forwards_ticket
        self.escapes_identity = escapes_identity
        self.request_id_field = _text(self.texts[3]) if request_id_field else Text(NULL, 0)
        self.upgrade_count = len(upgrades)
        if self.upgrade_count > UPGRADES_MAX:
            raise ValueError(f"at most {UPGRADES_MAX} protocols to upgrade to")
        for i in range(self.upgrade_count):
            self.upgrades[i] = _text(self.texts[4][i])
            if self.texts[4][i] == b"websocket":
                self.websocket = <uint8_t>(i + 1)
        self.records_address = "address" in login_details
        self.records_agent = "user_agent" in login_details
        self.expects_proxy_header = expects_proxy_header
        self.writes_forwarded = writes_forwarded
        self.keeps_entry = log is not None or bool(request_id_field)
        self.descriptors_max = descriptors_max
        self.date_s = -1
        self.random = int.from_bytes(os.urandom(8), "little")
        self.page = bytearray(COUNTERS_BYTES) if counters is None else counters
        if self.page.shape[0] < <Py_ssize_t>COUNTERS_BYTES:
            raise ValueError(f"counters need {COUNTERS_BYTES} bytes")
        self.counters = <Counters *>&self.page[0]
        self._set_limits(limits or {})
        self._set_timeouts(timeouts_s or {})
        self._allocate()
        self.accepts = True
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll_fd < 0:
            raise OSError(errno, os.strerror(errno), "epoll_create1")

    cdef int _set_limits(self, dict limits) except -1:
        values = {name: default for name, (default, _, _) in LIMITS.items()} | limits
        for name, value in values.items():
            _, least, most = LIMITS[name]
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {value}")
        self.downstream_max = values["connections_max"]
        self.per_client_max = values["connections_per_client_max"]
        self.requests_max = values["requests_per_connection_max"]
        self.head_bytes = values["head_bytes_max"]
        self.fields_max = values["fields_max"]
        self.target_bytes_max = values["target_bytes_max"]
        self.response_head_bytes = values["response_head_bytes_max"]
        self.extension_bytes_max = values["chunk_extension_bytes_max"]
        self.request_rate_min = values["request_body_rate_min"]
        self.response_rate_min = values["response_body_rate_min"]
        if self.per_client_max:
            self.clients = Tally(self.downstream_max)
        return 0

    cdef int _set_timeouts(self, dict timeouts_s) except -1:
        """A queue for each kind of wait; the first set of waits is these."""
        cdef int kind
        for name, (timer, seconds) in TIMEOUTS_S.items():
            kind = timer
            self.queues[kind].length_ms = _ms(timeouts_s.get(name, seconds))
        self.queues[<int>Timer.VOUCH].length_ms = VOUCH_MS
        for kind in range(1, TIMERS):
            self.queues[kind].kind = <Timer>kind
            self.queues[kind].first = self.queues[kind].last = NONE
            self.waits[0][kind] = <uint8_t>kind
        self.queue_count = TIMERS
        self.waits_count = 1
        return 0

    cdef int _allocate(self) except -1:
        self.conn_max = 4 * self.downstream_max + 64        # for each an upstream one, a pooled and a kept one, and the listeners
        # A head is at most what was read, a line more for the identity, the forwarding fields, and
        # what a route adds.
        self.out_bytes = (
            2 * max(self.head_bytes, self.response_head_bytes) + max(self.head_bytes, <uint32_t>SCRATCH_BYTES)
            + FORWARDING_BYTES_MAX + EXTRA_BYTES_MAX + DOUBT_BYTES_MAX + 4096)
        self.conns = <Conn *>calloc(self.conn_max, sizeof(Conn))        # what is never used never takes memory
        self.scratch = <uint8_t *>malloc(CHUNK_HEADER_BYTES + SCRATCH_BYTES + CHUNK_END_BYTES)
        self.out = <uint8_t *>malloc(self.out_bytes)
        self.ask_list = <Ask *>malloc(2 * self.conn_max * sizeof(Ask))
        self.again = <uint64_t *>malloc(2 * self.conn_max * sizeof(uint64_t))
        if not self.conns or not self.scratch or not self.out or not self.ask_list or not self.again:
            raise MemoryError(f"no memory for {self.downstream_max} connections")
        self.freed_first = NONE
        self.free_first = NONE
        return 0

    def __dealloc__(self):
        cdef uint32_t i
        cdef uint8_t *block
        if self.conns != NULL:
            for i in range(self.conn_count):
                if self.conns[i].side == Side.DOWNSTREAM or self.conns[i].side == Side.UPSTREAM:
                    self._close(i)
        while self.block_first != NULL:
            block = self.block_first
            memcpy(&self.block_first, block, sizeof(block))
            free(block)
        free(self.conns)
        free(self.scratch)
        free(self.out)
        free(self.ask_list)
        free(self.again)
        if self.epoll_fd >= 0:
            close(self.epoll_fd)

    def fileno(self):
        return self.epoll_fd

    def listen(self, int fd):
        cdef uint32_t index = self._new_conn(fd, Side.LISTENER)
        if index == NONE or not self._watch(index, EPOLLIN, EPOLL_CTL_ADD):
            raise OSError(errno, os.strerror(errno), "listening socket")

    def add_waits(self, timeouts_s):
        """A set of timeouts for routes: those of ROUTE_TIMEOUTS that differ from the general ones.
        Its number.
        """
        cdef int queue
        cdef int kind
        if not timeouts_s:
            return 0
        if self.waits_count == WAITS_MAX:
            raise ValueError(f"at most {WAITS_MAX} sets of timeouts")
        memcpy(self.waits[self.waits_count], self.waits[0], TIMERS)
        for name, seconds in timeouts_s.items():
            if name not in ROUTE_TIMEOUTS:
                raise ValueError(f"no timeout that a route may have: {name}")
            kind = TIMEOUTS_S[name][0]
            queue = 1
            while queue < self.queue_count and not (
                self.queues[queue].kind == <Timer>kind and self.queues[queue].length_ms == _ms(seconds)
            ):
                queue += 1
            if queue == QUEUES_MAX:
                raise ValueError(f"at most {QUEUES_MAX - TIMERS} timeouts of routes that differ")
            if queue == self.queue_count:
                self.queues[queue].kind = <Timer>kind
                self.queues[queue].length_ms = _ms(seconds)
                self.queues[queue].first = self.queues[queue].last = NONE
                self.queue_count += 1
            self.waits[self.waits_count][kind] = <uint8_t>queue
        self.waits_count += 1
        return self.waits_count - 1

    def set_servers(self, int group, servers, seconds=()):
        """Replace a group's servers; connections to those that go end with what is under way."""
        cdef uint32_t i
        self.upstreams.set_servers(group, servers, seconds)
        self._begin_now()
        for i in range(self.conn_count):
            if self.conns[i].side == Side.UPSTREAM and self.upstreams.servers[self.conns[i].server].is_retired \
                    and (self.conns[i].state == State.POOLED or self.conns[i].state == State.KEPT):
                self._close(i)
        self.freed_groups |= <uint64_t>1 << group
        self._end_now()

    def set_health(self, int group, server, bint is_well):
        """What a health check has found."""
        self._begin_now()
        self.upstreams.set_health(group, server, is_well, self.now_ms)

    def upstream_news(self):
        """Who is down or up since the last call, as `Upstreams.news` has it."""
        return self.upstreams.news()

    def faults(self):
        """What servers have done since the last call that an operator should hear of: ([(group,
        server, what)], how many more).

        `what`: why their response was malformed; empty: they set the ticket's cookie, which was
        dropped.
        """
        cdef uint32_t i
        cdef uint32_t more = self.noted_more
        cdef list found = []
        for i in range(self.noted_count):
            what = b"" if self.noted[i].what == NULL else <bytes>self.noted[i].what
            found.append((*self.upstreams.name_of(self.noted[i].server), what.decode("ascii")))
        self.noted_count = self.noted_more = 0
        return found, more

    def upstream_states(self):
        """Each server, as `Upstreams.state` has it."""
        self._begin_now()
        return self.upstreams.state(self.now_ms)

    def turn(self):
        """Serve every ready socket. True: there is more to do at once."""
        with nogil:
            self._turn()
        return self.again_count > 0

    def tick(self):
        """End what took too long. Call a few times a second."""
        with nogil:
            self._tick()

    def leave(self, bint is_leaving=True):
        """Every connection closes after its next answer. Others are still let in. False: it does
        not, after all.
        """
        self.leaving = is_leaving

    def stop_accepting(self):
        """Let go of the listeners, which may then be closed. Every connection closes after its next
        answer.
        """
        self.draining = self.leaving = True
        self._set_accepting(False)

    def drain(self):
        """Close idle connections, and those that become idle."""
        cdef uint32_t i
        self.closes_idle = True
        for i in range(self.conn_count):
            if self.conns[i].side == Side.DOWNSTREAM and self.conns[i].state == State.IDLE:
                self._close(i)
        self._reclaim()

    def release(self):
        """Let go of the client that has waited longest between two requests: (descriptor, address,
        whether it may be a trusted proxy); the descriptor is the caller's now. None: there is none.
        """
        cdef uint32_t index = self.queues[<int>Timer.KEEP_ALIVE].first
        cdef Conn *c
        cdef int fd
        if index == NONE:
            return None
        c = &self.conns[index]
        fd = c.fd
        address = (<char *>c.peer_address)[:ADDRESS_BYTES] if c.address_size else b""
        is_believed = bool(c.is_trusted)
        self._begin_now()
        self._watch(index, 0, EPOLL_CTL_DEL)
        c.fd = -1
        self._close(index)
        self._end_now()
        return fd, address, is_believed

    def adopt(self, int fd, bytes address not None, bint is_believed, bint is_last=False):
        """Serve a client whom another data plane has let go of; the descriptor is ours. `is_last`:
        one answer, and then it closes.

        It is trusted if it is one of ours *and* was believed before: the address of a connection
        for which a PROXY header named nobody is the proxy's. Beyond `connections_per_client_max` it
        is counted, but not closed: it was let in.
        """
        cdef uint32_t index = self._new_conn(fd, Side.DOWNSTREAM)
        cdef Conn *c
        if index == NONE:
            close(fd)
            return
        c = &self.conns[index]
        self._begin_now()
        c.is_trusted = self.trusted.has_unix
        if len(address) == ADDRESS_BYTES:
            c.has_address = True
            memcpy(c.peer_address, <const char *>address, ADDRESS_BYTES)
            self._know(c)
        c.is_trusted = c.is_trusted and is_believed
        if is_last:
            c.requests = self.requests_max - 1          # so that the next one is the last, also where 0 is no limit
        if self._watch(index, EPOLLIN | EPOLLRDHUP | EPOLLET, EPOLL_CTL_ADD):
            self._set_timer(index, Timer.KEEP_ALIVE)
        else:
            self._close(index)
        self._end_now()

    def part(self, uint32_t most):
        """Tell clients with a WebSocket that the gateway goes away (1001), so many at most; how
        many. Who is being sent a frame is not told yet.
        """
        cdef uint32_t i
        cdef uint32_t told = 0
        self._begin_now()
        for i in range(self.conn_count):
            if told == most:
                break
            told += self.conns[i].side == Side.UPSTREAM and self.conns[i].state == State.TUNNELLING and self._part(i)
        self._end_now()
        return told

    def asks(self):
        """What the control plane is asked since the last call: (kind, handle, ticket, value, host).

        ASK_AUTHENTICATE: value says whether the request counts as a use; answer with `admit` or
        `refuse`.
        ASK_SEVERAL (value: the path, and the cookies): nobody knows which ticket is meant; answer
        with `doubt`.
        ASK_LOGIN, ASK_LOGIN_REMEMBERED (value: the principal, and what to record), ASK_LOGOUT,
        ASK_LOGOUT_EVERYWHERE, ASK_ROTATE: answer with `relay` or `fail`.
        """
        cdef uint32_t i
        cdef Ask *ask
        cdef Conn *c
        cdef object handle
        cdef list result = []
        cdef uint8_t[TEXT_CHARS_MAX] text
        cdef int chars
        for i in range(self.ask_count):
            ask = &self.ask_list[i]
            c = &self.conns[ask.index]
            if c.generation != ask.generation or c.asks != ask.number or not _awaits(c, <AskKind>ask.kind):
                continue                                # it was closed, or answered by a timeout, in between
            handle = <object>ask.number << 64 | self._handle(ask.index)
            chars = encode(c.checked.raw, c.checked.size, text) if c.checked.size else 0
            if ask.kind == AskKind.EXEMPTION:
                value = self._normal_path(c)
            elif ask.kind == AskKind.STILL_ALIVE:
                value = bool(self._touches(c) and c.is_used)
                c.is_used = False
            elif ask.kind == AskKind.SEVERAL:
                value = self._several(c)
            elif ask.kind < AskKind.LOGIN:
                value = bool(self._touches(c))
            elif ask.kind <= AskKind.LOGIN_REMEMBERED:
                value = (<char *>self.conns[c.peer].held)[ask.value.at:ask.value.at + ask.value.size], self._details(c)
            else:
                value = None
            tickets = (<char *>text)[:chars].decode("ascii") if c.doubt == NULL else self._doubtful(c)
            if ask.kind == AskKind.EXEMPTION:
                where = c.route
            else:
                where = self._where(c) if ask.kind >= AskKind.SEVERAL else None
            result.append((ask.kind, handle, tickets, value, where))
        self.ask_count = 0
        return result

    cdef tuple _where(self, Conn *c):
        """What of a request decides about cookies: its Host, and whether it came by https."""
        if c.held_is_whole:
            parse_request(self.names, c.held, c.held_size, &self.head)
            self._note_where(c)
        return c.host[:c.host_size].decode("ascii"), bool(c.is_https)

    cdef tuple _several(self, Conn *c):
        """Of a request with more than one ticket, which waits: its path as it came, and all that
        may have a ticket, as cookies.
        """
        cdef Field *field
        cdef list cookies = []
        cdef int i
        self._read_again(c)
        for i in range(self.head.known_count):
            field = &self.head.fields[self.head.known[i]]
            value = (<char *>c.held)[field.value.at:field.value.at + field.value.size]
            if field.kind == Kind.COOKIE:
                cookies.append(value)
            elif field.kind == Kind.AUTHORIZATION and field.value.size > 7 and equals(c.held, Span(field.value.at, 7), b"ticket ", 7):
                cookies.append(self.texts[0] + b"=" + value[7:])
        return (<char *>c.held)[self.head.path.at:self.head.path.at + self.head.path.size], b"; ".join(cookies)

    cdef str _doubtful(self, const Conn *c):
        """The tickets of a request that came with several."""
        return (<const char *>c.doubt.text)[c.doubt.fields_size:c.doubt.fields_size + c.doubt.tickets_size].decode("latin-1")

    cdef dict _details(self, const Conn *c):
        """What to record with a login, as far as it is known."""
        cdef char[ADDRESS_TEXT_MAX] address
        cdef dict details = {}
        if self.records_address and c.has_address:
            details["address"] = address[:write_address(c.client, address)].decode("ascii")
        if c.agent != NULL:
            details["user_agent"] = (<const char *>c.agent.text)[:c.agent.size].decode("utf-8", "replace")[:AGENT_CHARS_MAX]
        return details

    cdef bytes _normal_path(self, Conn *c):
        """Of a request that has a plain one."""
        cdef uint8_t[TARGET_BYTES_MAX] normal
        cdef int odd_at
        cdef int size
        self._read_again(c)
        if self.head.target_is_bare:
            return b"*" if self.head.target_is_star else b"/"
        size = normal_path(c.held + self.head.path.at, self.head.path.size, normal, &odd_at)
        return (<char *>normal)[:max(size, 0)]

    cdef bint _has_exact_path(self, Conn *c) noexcept nogil:
        """Whether every reader sees the very same path: an expression is not asked about another.
        """
        cdef uint8_t[TARGET_BYTES_MAX] normal
        cdef int odd_at
        self._read_again(c)
        return self.head.target_is_bare or (
            normal_path(c.held + self.head.path.at, self.head.path.size, normal, &odd_at) >= 0 and odd_at == EXACT)

    def admit(self, handle):
        """The ticket is alive: forward the request."""
        cdef uint32_t index = self._find(handle, State.ASKING)
        if index != NONE and self.conns[index].asked != AskKind.EXEMPTION:
            self._begin_now()
            self._admit(index, False)
            self._resume(index)
            self._end_now()

    def refuse(self, handle, verdict):
        """The ticket is not alive, or nobody knows: answer 401 or 503; where a ticket is optional,
        forward without identity.
        """
        cdef uint32_t index = self._find(handle, State.ASKING)
        if index != NONE and self.conns[index].asked != AskKind.EXEMPTION:
            self._begin_now()
            self._refused(index, verdict.value, False)
            self._resume(index)
            self._end_now()

    def doubt(self, handle, bytes fields not None, bytes tickets not None):
        """The client came with these tickets (spaces between), and nobody knows which is meant; the
        answer gets these field lines.
        """
        cdef uint32_t index = self._find(handle, State.ASKING)
        if len(fields) > DOUBT_BYTES_MAX:
            raise ValueError(f"at most {DOUBT_BYTES_MAX} bytes of fields, not {len(fields)}")
        if index != NONE and self.conns[index].asked == AskKind.SEVERAL:
            self._begin_now()
            self.conns[index].doubt = _doubt(fields, tickets)
            self._refused(index, Verdict.AMBIGUOUS, False)
            self._resume(index)
            self._end_now()

    def exempt(self, handle, bint is_exempt):
        """Whether the path of a request that has no good ticket needs none."""
        cdef uint32_t index = self._find(handle, State.ASKING)
        if index != NONE and self.conns[index].asked == AskKind.EXEMPTION:
            self._begin_now()
            if is_exempt:
                self._pass(index, False)
            else:
                self._refused(index, self.conns[index].verdict, False)
            self._resume(index)
            self._end_now()

    def vouch(self, handle, bint is_alive):
        """Whether the session of a stream or a tunnel still lives; it ends with it."""
        cdef uint32_t index = self._asked(handle)
        if index == NONE or not self.conns[index].is_vouched:
            return
        self.conns[index].is_vouched = False
        if not is_alive:
            self._begin_now()
            self._cut(index)
            self._end_now()

    def suits(self, handle, ticket):
        """Whether the holder of a ticket that is about to be made comes back to the server whose
        response waits now.
        """
        cdef uint32_t index = self._find(handle, State.HOOKED)
        cdef uint8_t[RAW_BUFFER_BYTES] raw
        cdef const uint8_t *text = NULL
        cdef Py_ssize_t chars = 0
        cdef Group *group
        cdef Server *server
        cdef int size
        if index == NONE:
            return True
        group = &self.upstreams.groups[self.routes.table[self.conns[index].route].group]
        if group.balance != Balance.TICKET_HASH or not ascii_text(ticket, &text, &chars):
            return True
        size = decode(text, chars, raw)
        self._begin_now()
        server = &self.upstreams.servers[self.conns[self.conns[index].peer].server]
        if server.is_retired or server.is_sick or server.down_until_ms > self.now_ms:
            return True                                     # nobody comes back to it
        return size == 0 or self.upstreams.pick_for_key(group, _ticket_key(raw, size), self.now_ms, False) \
            == self.conns[self.conns[index].peer].server

    def readmit(self, handle, ticket):
        """The session of a response that waits has another ticket now: a stream or tunnel that
        begins goes on with it.
        """
        cdef uint32_t index = self._find(handle, State.HOOKED)
        cdef const uint8_t *text = NULL
        cdef Py_ssize_t chars = 0
        if index != NONE and ascii_text(ticket, &text, &chars):
            self.conns[index].checked.size = decode(text, chars, self.conns[index].checked.raw)

    def relay(self, handle, bytes fields not None):
        """Let a response that waited go on, with these field lines (each ended by CRLF) added."""
        cdef uint32_t index = self._find(handle, State.HOOKED)
        cdef uint32_t upstream
        if len(fields) > EXTRA_BYTES_MAX:
            raise ValueError(f"at most {EXTRA_BYTES_MAX} bytes of fields, not {len(fields)}")
        if index != NONE:
            self._begin_now()
            upstream = self.conns[index].peer
            self._clear_timer(index)
            self.conns[index].state = State.EXCHANGING
            parse_response(
                self.names, self.conns[upstream].held, self.conns[upstream].held_size, self.conns[index].method, &self.head)
            self._relay(upstream, self.conns[upstream].held, self.conns[upstream].held_size,
                        <const uint8_t *><const char *>fields, <uint32_t>len(fields))
            self._resume(index)
            self._end_now()

    def fail(self, handle, int status, slug):
        """Answer with an error in place of a response that waited."""
        cdef uint32_t index = self._find(handle, State.HOOKED)
        cdef bytes reason = slug.encode("ascii")
        if index != NONE:
            self._begin_now()
            self._fail(index, status, reason)
            self._resume(index)
            self._end_now()

    @property
    def connection_count(self):
        return self.downstream_count

    @property
    def tunnel_count(self):
        """Clients with a tunnel now."""
        cdef uint32_t i
        cdef uint32_t count = 0
        for i in range(self.conn_count):
            count += self.conns[i].side == Side.DOWNSTREAM and self.conns[i].state == State.TUNNELLING
        return count

    @property
    def shortages(self):
        """How often clients had to wait, and for what."""
        return {"full": self.counters.full, "out_of_descriptors": self.counters.out_of_descriptors}

    @property
    def unannounced(self):
        """How many connections were closed for want of a PROXY header that counts; whose the last
        one was, and why.
        """
        cdef bytes peer = self.unannounced_peer
        cdef bytes why = self.unannounced_why if self.unannounced_why != NULL else b""
        return self.counters.proxy_headers_refused, peer.decode("ascii"), why.decode("ascii")

    @property
    def stats(self):
        """Counters since the start."""
        return read_counters(self.page)

    cdef uint32_t _find(self, object handle, State state) except? 0:
        """The connection of a handle, or NONE: it is gone, or no longer in that state."""
        cdef uint32_t index = self._asked(handle)
        return NONE if index == NONE or self.conns[index].state != state else index

    cdef uint32_t _asked(self, object handle) except? 0:
        """The connection that asked, or NONE. A handle has the number of the question, because the
        connection may have gone on:

        1. a request asks, and the store is slow
        2. it is answered by a timeout, and the next request of the connection asks
        3. the first answer comes: it must not be taken for the second one
        """
        cdef uint64_t value = handle & 0xFFFFFFFFFFFFFFFF
        cdef uint32_t number = handle >> 64
        cdef uint32_t index = <uint32_t>value
        if index >= self.conn_count or self.conns[index].generation != <uint32_t>(value >> 32):
            return NONE
        if self.conns[index].side != Side.DOWNSTREAM or self.conns[index].asks != number:
            return NONE
        return index

    cdef inline uint64_t _handle(self, uint32_t index) noexcept nogil:
        return <uint64_t>self.conns[index].generation << 32 | index

    cdef void _begin_now(self) noexcept nogil:
        self.now_us = _monotonic_us()
        self.now_ms = self.now_us // 1000

    cdef void _end_now(self) noexcept nogil:
        """What was put off to the end of the turn."""
        if self.freed_groups:
            self._serve_pending()
        self._reclaim()

    # ---------------------------------------------------------------------------------- connections

    cdef uint32_t _new_conn(self, int fd, Side side) noexcept nogil:
        cdef uint32_t index = self._take_slot()
        cdef uint32_t generation
        cdef Conn *c
        if index == NONE:
            return NONE
        c = &self.conns[index]
        generation = c.generation
        memset(c, 0, sizeof(Conn))
        c.generation = generation
        c.fd = fd
        c.side = side
        c.peer = NONE
        c.complete = True
        c.timer_next = NONE
        c.timer_previous = NONE
        c.link_next = NONE
        c.link_previous = NONE
        c.kept = NONE
        if side == Side.DOWNSTREAM:
            self.downstream_count += 1
        return index

    cdef uint32_t _take_slot(self) noexcept nogil:
        """One that was used before, or else the next fresh one."""
        cdef uint32_t index = self.free_first
        if index != NONE:
            self.free_first = self.conns[index].link_next
        elif self.conn_count < self.conn_max:
            index = self.conn_count
            self.conn_count += 1
        return index

    cdef void _close(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.side == Side.FREE:
            return
        self._clear_timer(index)
        if c.kept != NONE:
            self._let_go_of_kept(c)
        if c.side == Side.DOWNSTREAM:
            self._close_downstream(index)
        else:
            if c.side == Side.UPSTREAM:
                self._close_upstream(index)
            free(c.held)
        free(c.unsent)
        c.held = NULL
        c.unsent = NULL
        if c.side != Side.LISTENER:
            close(c.fd)
        c.fd = -1
        c.side = Side.FREE
        c.generation += 1
        c.link_next = self.freed_first
        self.freed_first = index

    cdef void _close_downstream(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.state == State.QUEUED:
            self._leave_queue(index)
        if c.began_us:
            self._account(c, True)
        if c.is_counted:
            self.clients.remove(c.peer_address)
        self.downstream_count -= 1
        self._give_block(c.held)
        free(c.entry)
        c.entry = NULL

    cdef void _close_upstream(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Server *server = &self.upstreams.servers[c.server]
        if c.state == State.POOLED:
            self._leave_pool(index)
        elif c.state == State.KEPT:
            server.kept_count -= 1
        server.open_count -= 1
        self.upstream_count -= 1
        self._freed(c.server)

    cdef void _reclaim(self) noexcept nogil:
        """The turn is over: nothing speaks of the closed connections any more, their slots can be
        used.
        """
        cdef uint32_t index
        while self.freed_first != NONE:
            index = self.freed_first
            self.freed_first = self.conns[index].link_next
            self.conns[index].link_next = self.free_first
            self.free_first = index

    cdef bint _watch(self, uint32_t index, uint32_t events, int operation) noexcept nogil:
        cdef epoll_event event
        event.events = events
        event.data.u64 = self._handle(index)
        return epoll_ctl(self.epoll_fd, operation, self.conns[index].fd, &event) == 0

    cdef uint8_t *_take_block(self) noexcept nogil:
        cdef uint8_t *block = self.block_first
        if block == NULL:
            return <uint8_t *>malloc(self.head_bytes)
        memcpy(&self.block_first, block, sizeof(block))
        self.block_count -= 1
        return block

    cdef void _give_block(self, uint8_t *block) noexcept nogil:
        if block == NULL:
            return
        if self.block_count == BLOCKS_KEPT_MAX:
            free(block)
            return
        memcpy(block, &self.block_first, sizeof(block))
        self.block_first = block
        self.block_count += 1

    # --------------------------------------------------------------------------------------- timers

    cdef void _set_timer(self, uint32_t index, Timer timer) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Queue *queue
        self._clear_timer(index)
        c.queue = self.waits[c.waits][<int>timer]
        queue = &self.queues[c.queue]
        c.deadline_ms = self.now_ms + queue.length_ms
        c.timer_next = NONE
        c.timer_previous = queue.last
        if c.timer_previous != NONE:
            self.conns[c.timer_previous].timer_next = index
        else:
            queue.first = index
        queue.last = index

    cdef void _clear_timer(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Queue *queue = &self.queues[c.queue]
        if c.queue == 0:
            return
        if c.timer_previous != NONE:
            self.conns[c.timer_previous].timer_next = c.timer_next
        else:
            queue.first = c.timer_next
        if c.timer_next != NONE:
            self.conns[c.timer_next].timer_previous = c.timer_previous
        else:
            queue.last = c.timer_previous
        c.queue = 0

    cdef int64_t _length_ms(self, const Conn *c, Timer timer) noexcept nogil:
        return self.queues[self.waits[c.waits][<int>timer]].length_ms

    cdef void _tick(self) noexcept nogil:
        cdef int number
        cdef int group
        cdef Queue *queue
        cdef uint32_t index
        self._begin_now()
        for number in range(1, self.queue_count):
            queue = &self.queues[number]
            while queue.first != NONE and self.conns[queue.first].deadline_ms <= self.now_ms:
                index = queue.first
                self._clear_timer(index)
                self._on_timeout(index, queue.kind)
        if not self.accepts and not self.draining and self.now_ms >= self.accepts_again_ms:
            if self.downstream_count < self.downstream_max:
                self._set_accepting(True)
        self.upstreams.refill()
        for group in range(self.upstreams.group_count):
            if self.upstreams.groups[group].pending_count:
                self.freed_groups |= <uint64_t>1 << group       # a server may be up again
        self._end_now()

    cdef void _on_timeout(self, uint32_t index, Timer timer) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer if c.side == Side.UPSTREAM else index
        if timer == Timer.KEEP_ALIVE or timer == Timer.LINGER or timer == Timer.POOL:
            self._close(index)
            return
        if timer == Timer.VOUCH:
            self._vouch(index)
            return
        if timer == Timer.REQUEST_BODY and self._request_flows(index):
            self._await_body(index)
            return
        if timer == Timer.RESPONSE_BODY and self._response_flows(index):
            return
        if c.side == Side.UPSTREAM:
            self._upstream_is_late(index, timer)
        else:
            self.counters.timeouts += 1
            if timer == Timer.HEAD_IN:
                self._reject(index, 408, b"request_timeout")
            elif timer == Timer.ASKED:
                self._note_refused(c, Verdict.STORE_UNAVAILABLE)
                c.closes = True
                self._fail(index, 503, b"store_unavailable")
            elif timer == Timer.PENDING:
                self._leave_queue(index)
                self._fail(index, 503, b"upstream_busy")
            elif timer == Timer.REQUEST_BODY:
                self._fail(index, 408, b"request_timeout")
            else:
                self._close(index)
        self._resume(downstream)

    cdef void _upstream_is_late(self, uint32_t index, Timer timer) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        self.counters.upstream_timeouts += 1
        if timer == Timer.CONNECT:
            self._connect_failed(index, ETIMEDOUT)
            return
        if timer == Timer.FIRST_BYTE or timer == Timer.SEND:
            self.upstreams.faulted(c.server, self.now_ms)
        self._fail(c.peer, 504, b"upstream_timeout")

    cdef bint _request_flows(self, uint32_t index) noexcept nogil:
        """Whether a client kept its minimum rate in a window of its body. In one in which the
        upstream held it up it need not.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint64_t wanted = self.request_rate_min * <uint64_t>self._length_ms(c, Timer.REQUEST_BODY) // 1000
        if c.answered:                              # it need not send the rest (RFC 9112, 9.5), but to get the answer
            return True
        return c.is_held_up or self.conns[c.peer].unsent != NULL or c.window_bytes >= wanted

    cdef void _await_body(self, uint32_t index) noexcept nogil:
        """A window of a request's body begins. Of who was admitted it ends in `_vouch`."""
        cdef Conn *c = &self.conns[index]
        c.window_bytes = 0
        c.is_held_up = self.conns[c.peer].unsent != NULL
        c.window_ends_ms = self.now_ms + self._length_ms(c, Timer.REQUEST_BODY)
        self._set_timer(index, Timer.VOUCH if c.is_admitted else Timer.REQUEST_BODY)

    cdef void _body_is_late(self, uint32_t index) noexcept nogil:
        self.counters.timeouts += 1
        self._fail(index, 408, b"request_timeout")

    cdef bint _response_flows(self, uint32_t index) noexcept nogil:
        """Whether a client that we wait for kept its minimum rate. If it is the upstream, it was
        silent for so long.
        """
        cdef Conn *c = &self.conns[index]
        cdef Conn *client = c if c.side == Side.DOWNSTREAM else &self.conns[c.peer]
        cdef uint64_t wanted = self.response_rate_min * <uint64_t>self._length_ms(c, Timer.RESPONSE_BODY) // 1000
        cdef bint flows = client.unsent != NULL and client.taken_bytes >= wanted
        if flows:
            client.taken_bytes = 0
            self._set_timer(index, Timer.RESPONSE_BODY)
        return flows

    cdef void _stir(self, uint32_t upstream) noexcept nogil:
        """Something has moved through an exchange or a tunnel: what bounds a silence begins anew.
        """
        cdef Conn *u = &self.conns[upstream]
        cdef Conn *client = &self.conns[u.peer]
        if u.state == State.TUNNELLING:
            self._set_timer(upstream, Timer.TUNNEL)
        elif u.state == State.RELAYING:
            if client.unsent == NULL:               # else it must keep its rate
                self._set_timer(upstream, Timer.RESPONSE_BODY)
        elif client.state == State.EXCHANGING and not client.complete:
            if u.unsent != NULL:
                client.is_held_up = True
                self._set_timer(upstream, Timer.SEND)
            else:
                self._clear_timer(upstream)

    # ----------------------------------------------------------------------------- streams, tunnels

    cdef void _vouch(self, uint32_t index) noexcept nogil:
        """A stream, a tunnel or an upload goes on: does its session?"""
        cdef Conn *c = &self.conns[index]
        cdef bint is_upload = not c.complete and c.state == State.EXCHANGING
        if is_upload and c.readable and self.conns[c.peer].unsent != NULL:
            c.is_used = True                        # there is more of it, which the upstream does not take yet
        if not self._is_alive(index):
            self._cut(index)
        elif not is_upload or self.now_ms < c.window_ends_ms:
            self._set_timer(index, Timer.VOUCH)
        elif self._request_flows(index):
            self._await_body(index)
        else:
            self._body_is_late(index)

    cdef bint _is_alive(self, uint32_t index) noexcept nogil:
        """As far as is known here. What the near cache does not know the control plane is asked; it
        answers with `vouch`.
        """
        cdef Conn *c = &self.conns[index]
        cdef bint touches = c.is_used and self._touches(c)
        cdef Verdict verdict = self.checker.judge_again(&c.checked, self.checker.now(), touches)
        if verdict == Verdict.HIT:
            c.is_used = False
        elif verdict != Verdict.MISS and verdict != Verdict.REFRESH:
            return False
        elif not c.is_vouched and self.ask_count < 2 * self.conn_max:
            c.is_vouched = True
            self._ask(index, AskKind.STILL_ALIVE, Span(0, 0))
        return True

    cdef void _cut(self, uint32_t index) noexcept nogil:
        """Its session is over. Who sends an upload is told so: nothing of the answer is on its way.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t upstream = c.peer
        self.counters.cut += 1
        if c.state != State.EXCHANGING or c.answered:
            self._abort(index)
            return
        c.peer = NONE
        self.conns[upstream].peer = NONE
        self._close(upstream)
        self._respond(
            index, 401, b"session_over", b"WWW-Authenticate: Ticket realm=\"fastticket\", error=\"session_over\"\r\n")

    # ----------------------------------------------------------------------------------------- turn

    cdef void _turn(self) noexcept nogil:
        cdef int i
        cdef int count = epoll_wait(self.epoll_fd, self.events, EVENTS_MAX, 0)
        cdef uint32_t again = self.again_count
        cdef uint32_t index
        cdef uint32_t k
        self._begin_now()
        for i in range(count):
            index = <uint32_t>self.events[i].data.u64
            if self.conns[index].generation == <uint32_t>(self.events[i].data.u64 >> 32):
                self._on_event(index, self.events[i].events)
        for k in range(again):
            index = <uint32_t>self.again[k]
            if self.conns[index].generation == <uint32_t>(self.again[k] >> 32):
                self._on_event(index, EPOLLIN)
        self.again_count -= again
        memmove(self.again, self.again + again, self.again_count * sizeof(uint64_t))
        self._end_now()

    cdef void _on_event(self, uint32_t index, uint32_t events) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef uint32_t peer = c.peer
        if c.side == Side.LISTENER:
            self._accept(c.fd)
        elif c.side == Side.DOWNSTREAM:
            if events & (EPOLLERR | EPOLLHUP):
                self._abort(index)              # nobody is there to answer
                return
            c.readable |= events & (EPOLLIN | EPOLLRDHUP) != 0
            c.hung_up |= events & EPOLLRDHUP != 0
            if events & EPOLLOUT and c.unsent != NULL:
                self._flush(index)
            self._resume(index)
        elif c.side == Side.UPSTREAM:
            if c.state == State.CONNECTING:
                if events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
                    self._connected(index)
            else:
                c.readable |= events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP) != 0
                c.hung_up |= events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP) != 0
                if events & EPOLLOUT and c.unsent != NULL:
                    self._flush(index)
                self._advance_upstream(index)
            if peer != NONE:
                self._resume(peer)

    cdef inline void _received(self, Conn *c, ssize_t size, uint32_t room) noexcept nogil:
        """A short read has emptied the socket, and the kernel will say when there is more; but not
        again that it has ended.
        """
        if <uint32_t>size < room and not c.hung_up:
            c.readable = False

    cdef void _later(self, uint32_t index) noexcept nogil:
        """Fairness: this one has had its share of the turn."""
        if self.again_count < 2 * self.conn_max:
            self.again[self.again_count] = self._handle(index)
            self.again_count += 1

    cdef void _accept(self, int listener) noexcept nogil:
        cdef sockaddr_storage address
        cdef socklen_t size
        cdef int fd
        cdef int on = 1
        cdef int _
        cdef uint32_t index
        for _ in range(ACCEPTS_MAX):
            if self.downstream_count >= self.downstream_max:
                self.counters.full += 1
                self._set_accepting(False)      # the backlog waits; `_tick` looks again
                return
            size = sizeof(address)
            fd = accept4(listener, <sockaddr *>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno == ECONNABORTED or errno == EINTR:
                    continue
                if _is_shortage(errno):
                    self._pause_accepting()
                return
            index = self._new_conn(fd, Side.DOWNSTREAM)
            if index == NONE:
                close(fd)
                return
            if not self._watch(index, EPOLLIN | EPOLLRDHUP | EPOLLET, EPOLL_CTL_ADD):
                self._close(index)
                return
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
            self.counters.accepted += 1
            if not self._meet(&self.conns[index], &address):
                if self.expects_proxy_header:
                    self._note_unannounced(&self.conns[index], b"it is not of trusted_proxies, whose PROXY header counts")
                self._close(index)
                continue
            self._set_timer(index, Timer.HEAD_IN if self.expects_proxy_header else Timer.KEEP_ALIVE)

    cdef void _pause_accepting(self) noexcept nogil:
        """There are no descriptors: those that there are, and that come back, are for whom we serve
        already.
        """
        self.counters.out_of_descriptors += 1
        self.accepts_again_ms = self.now_ms + ACCEPT_PAUSE_MS
        if self.accepts:
            self._set_accepting(False)

    cdef void _set_accepting(self, bint accepts) noexcept nogil:
        cdef uint32_t i
        self.accepts = accepts
        for i in range(self.conn_count):
            if self.conns[i].side == Side.LISTENER:
                self._watch(i, EPOLLIN, EPOLL_CTL_ADD if accepts else EPOLL_CTL_DEL)

    cdef bint _meet(self, Conn *c, const sockaddr_storage *address) noexcept nogil:
        """Who is there. False: nobody whom we serve."""
        if address.ss_family == AF_UNIX:
            c.is_trusted = self.trusted.has_unix
            c.awaits_proxy_header = self.expects_proxy_header
            return c.is_trusted or not self.expects_proxy_header
        c.has_address = True
        memcpy(c.peer_address, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12)
        if address.ss_family == AF_INET:
            memcpy(c.peer_address + 12, &(<const sockaddr_in *>address).sin_addr, 4)
        else:
            memcpy(c.peer_address, &(<const sockaddr_in6 *>address).sin6_addr, ADDRESS_BYTES)
        if self.expects_proxy_header:
            c.awaits_proxy_header = True
            return self.trusted.contains(c.peer_address)
        return self._know(c)

    cdef bint _know(self, Conn *c) noexcept nogil:
        """`peer_address` is whom we speak with. False: he has more connections than one may have.
        """
        c.address_size = <uint8_t>write_address(c.peer_address, c.address)
        memcpy(c.client, c.peer_address, ADDRESS_BYTES)
        c.is_trusted = self.trusted.contains(c.peer_address)
        if self.per_client_max == 0 or c.is_trusted or self.downstream_count > self.downstream_max:
            return True                             # a proxy of ours has many clients; beyond the most there is no room to count
        c.is_counted = True
        if self.clients.add(c.peer_address) <= self.per_client_max:
            return True
        self.counters.over_client_limit += 1
        return False

    cdef bint _read_proxy_header(self, uint32_t index) noexcept nogil:
        """What the connection begins with if a proxy announces its clients. False: it is not all
        there, or the connection is closed.
        """
        cdef Conn *c = &self.conns[index]
        cdef Announced announced
        cdef int size = read_proxy_header(c.held, c.held_size, self.head_bytes, &announced)
        if size == INCOMPLETE:
            return False
        c.awaits_proxy_header = False
        if size < 0:
            self.counters.bad_requests += 1
            self._note_unannounced(
                c, b"its PROXY header is larger than head_bytes_max" if size == -431 else b"its PROXY header is malformed")
            self._close(index)
            return False
        if announced.who == Who.NAMED:
            c.has_address = True
            memcpy(c.peer_address, announced.source, ADDRESS_BYTES)
        if c.has_address and not self._know(c):
            self._close(index)
            return False
        if announced.who == Who.NAMELESS:
            c.is_trusted = False                    # what follows is not the proxy's word, but of somebody whom nobody knows
        c.held_size -= size
        memmove(c.held, c.held + size, c.held_size)
        return True

    cdef void _note_unannounced(self, const Conn *c, const char *why) noexcept nogil:
        """A connection is about to be closed for want of a PROXY header that counts. `why` stays
        valid.
        """
        self.counters.proxy_headers_refused += 1
        self.unannounced_why = why
        self.unannounced_peer[0] = 0
        if c.has_address:
            write_address(c.peer_address, self.unannounced_peer)

    # -------------------------------------------------------------------------------------- sending

    cdef bint _send(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil:
        """Send, or keep what the kernel does not take. False: the connection is broken."""
        cdef Conn *c = &self.conns[index]
        cdef ssize_t sent = 0
        cdef uint8_t *kept
        if c.unsent == NULL:
            sent = send(c.fd, at, size, MSG_NOSIGNAL)
            if sent < 0:
                if errno != EAGAIN and errno != EINTR:
                    return False
                sent = 0
            c.taken_bytes += sent
            if sent == size:
                return True
        kept = <uint8_t *>realloc(c.unsent, c.unsent_size + size - sent)
        if kept == NULL:
            return False
        memcpy(kept + c.unsent_size, at + sent, size - sent)
        c.unsent = kept
        c.unsent_size += size - <uint32_t>sent
        if not c.watches_out:
            c.watches_out = True
            return self._watch(index, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, EPOLL_CTL_MOD)
        return True

    cdef void _flush(self, uint32_t index) noexcept nogil:
        """The kernel has room again. When all is gone, the other side may be read on."""
        cdef Conn *c = &self.conns[index]
        cdef ssize_t sent = send(c.fd, c.unsent + c.unsent_at, c.unsent_size - c.unsent_at, MSG_NOSIGNAL)
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                self._send_failed(index)
            return
        c.taken_bytes += sent
        c.unsent_at += <uint32_t>sent
        if c.unsent_at < c.unsent_size:
            if c.peer != NONE and sent > 0:
                self._stir(index if c.side == Side.UPSTREAM else c.peer)
            return
        free(c.unsent)
        c.unsent = NULL
        c.unsent_at = c.unsent_size = 0
        if c.state == State.FLUSHING:
            self._after_answer(index)
        elif c.peer != NONE:
            if c.side == Side.DOWNSTREAM and self.conns[c.peer].framing == Framing.LENGTH:
                c.is_used = True
            self._stir(index if c.side == Side.UPSTREAM else c.peer)
            self._pump(c.peer)

    cdef void _send_failed(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.side == Side.DOWNSTREAM or c.state == State.TUNNELLING:
            self._abort(index)
            return
        # The upstream takes no more of the request. It may have answered before it closed: look at
        # that first.
        free(c.unsent)
        c.unsent = NULL
        c.unsent_at = c.unsent_size = 0
        c.send_failed = True
        c.readable = True
        self._advance_upstream(index)

    cdef void _abort(self, uint32_t index) noexcept nogil:
        """End an exchange without another word."""
        cdef uint32_t peer = self.conns[index].peer
        self._close(index)
        if peer != NONE:
            self.conns[peer].peer = NONE
            self._close(peer)

    # ------------------------------------------------------------------------- downstream: requests

    cdef void _resume(self, uint32_t index) noexcept nogil:
        """Go on with a downstream connection as far as its bytes reach."""
        cdef Conn *c = &self.conns[index]
        cdef int reads = 0
        if c.side != Side.DOWNSTREAM:
            return
        if c.state == State.READING_HEAD and c.held_is_whole:
            self._serve(index)
        while c.side == Side.DOWNSTREAM and c.readable and (c.state == State.IDLE or c.state == State.READING_HEAD):
            if reads == READS_MAX:
                self._later(index)
                return
            reads += 1
            self._read_head(index)
        if c.side != Side.DOWNSTREAM:
            return
        if c.state == State.EXCHANGING or c.state == State.TUNNELLING:
            self._pump(index)
        elif c.state == State.LINGERING:
            self._discard(index)

    cdef void _read_head(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef uint8_t *at
        cdef uint32_t room
        cdef ssize_t size
        if c.held == NULL:
            c.held = self._take_block()
            if c.held == NULL:
                self._close(index)
                return
        at = c.held + c.held_size
        room = self.head_bytes - c.held_size
        size = recv(c.fd, at, room, 0)
        if size < 0 and (errno == EAGAIN or errno == EINTR):
            c.readable = errno == EINTR
            if c.held_size == 0:
                self._give_block(c.held)
                c.held = NULL
            return
        if size <= 0:
            self._close(index)
            return
        self._received(c, size, room)
        c.held_size += <uint32_t>size
        if c.state == State.IDLE:
            c.state = State.READING_HEAD
            self._set_timer(index, Timer.HEAD_IN)
        if (
            memchr(at, c'\n', size) != NULL or memchr(at, c'\r', size) != NULL
            or at > c.held and (at - 1)[0] == c'\r'          # whatever follows a CR decides something
            or c.held_size == self.head_bytes
            or c.awaits_proxy_header
        ):
            self._serve(index)

    cdef void _serve(self, uint32_t index) noexcept nogil:
        """Serve requests from what is held, until one has to wait or its head is not all there."""
        cdef Conn *c = &self.conns[index]
        cdef int result
        if c.awaits_proxy_header and not self._read_proxy_header(index):
            return
        if c.held_size == 0:
            self._wait_for_request(index)
            return
        while c.side == Side.DOWNSTREAM and c.state == State.READING_HEAD:
            c.held_is_whole = False
            self.head.target.size = 0
            result = parse_request(self.names, c.held, c.held_size, &self.head)
            if result == INCOMPLETE:
                if self.head.target.size > self.target_bytes_max:
                    self._reject(index, 414, b"bad_request")
                elif c.held_size == self.head_bytes:
                    self._reject(index, 431, b"head_too_large")
                return
            if result > 0:
                result = self._over_limits(&self.head, result)
            if result < 0:
                self._reject(index, -result, b"bad_request")
                return
            self._begin(index)

    cdef int _over_limits(self, const Head *head, int size) noexcept nogil:
        """The size again, or -status."""
        if head.target.size > self.target_bytes_max:
            return -414
        return -431 if <uint32_t>head.field_count > self.fields_max else size

    cdef void _begin(self, uint32_t index) noexcept nogil:
        """`self.head` has just been read from `held`."""
        cdef Conn *c = &self.conns[index]
        cdef Head *head = &self.head
        self.counters.requests += 1
        c.requests += 1
        c.began_us = self.now_us
        c.body_bytes_out = 0
        c.head_size = head.size
        c.body_size = 0
        c.held_is_whole = True
        c.method = head.method
        c.minor = head.minor
        c.upgrade = self._upgrade_of(c, head) if head.upgrade_to.size else 0
        c.closes = head.close or head.minor == 0 and not head.keep_alive or c.requests == self.requests_max
        c.retried = False
        c.answered = False
        c.is_admitted = False
        c.is_vouched = False
        c.is_used = False
        c.exemption_asked = False
        c.was_confirmed = False
        c.status = 0
        c.wishes = 0
        c.attempts = 0
        c.checked.size = 0
        c.reason = NULL
        if self.keeps_entry:
            self._note_request(c)
        if c.is_trusted:
            self._find_client(c)
        if not self._begin_body(c):
            self._refuse_body(index)
            return
        c.route = self.routes.find(c.held, head, &c.is_plain)
        c.is_routed = c.route != NO_ROUTE
        if c.route == NO_ROUTE:
            c.route = 0
            self._respond(index, 404, b"no_route", b"")
            return
        c.endpoint = Endpoint.OF_TICKETS if self.routes.table[c.route].is_endpoint else Endpoint.NO_ENDPOINT
        if c.endpoint and self.front and c.is_trusted and not self._stand_in(index):
            return
        c.auth = self.routes.table[c.route].auth if c.is_plain else Auth.AUTH_REQUIRED
        c.waits = self.routes.table[c.route].waits
        if c.auth == Auth.AUTH_NONE:
            self.tickets = -1
            self._pass(index, True)
        else:
            self._check(index)

    cdef bint _stand_in(self, uint32_t index) noexcept nogil:
        """A gateway of ours asks about a request that it has: judge that one, by the route that it
        falls under. False: answered.
        """
        cdef Conn *c = &self.conns[index]
        cdef int found = self._find_original(c)
        if found == 0:
            return True                             # it says nothing of one: it is about the ticket alone
        if found > 0:
            c.endpoint = Endpoint.OF_REQUESTS
            if self.log is not None and c.entry != NULL:
                self._note_target(c)
            c.route = self.routes.find(c.held, &self.head, &c.is_plain)
            if c.route != NO_ROUTE:
                return True
            c.route = 0
            self._respond(index, 403, b"no_route", b"")      # nginx makes 500 of 404
            return False
        self._note_refused(c, Verdict.AMBIGUOUS)
        self.counters.refused[<int>Verdict.AMBIGUOUS] += 1
        c.closes = True
        self._respond(index, 403, slug_of(Verdict.AMBIGUOUS), b"")
        return False

    cdef int _find_original(self, const Conn *c) noexcept nogil:
        """Put what the gateway in front was asked into `self.head`: method, target, host. 1: it is
        there; 0: nothing is said of it; -1: in a way that can be read as two, or as none.
        """
        cdef Head *head = &self.head
        cdef bint is_forwarded = self.front == Front.SAYS_FORWARDED
        cdef Span method = head.method_name
        cdef Span target = Span(0, 0)
        cdef Span host = head.host
        cdef Field *field
        cdef int methods = 0
        cdef int targets = 0
        cdef int hosts = 0
        cdef int i
        if self.front == Front.SAYS_BELOW:
            if not self._find_below(c, &target):
                return 0
            return 1 if take_target(c.held, target, method, head) else -1
        for i in range(head.field_count):
            field = &head.fields[i]
            if _is_called(c.held, field, b"x-forwarded-method" if is_forwarded else b"x-original-method"):
                methods += 1
                method = field.value
            elif _is_called(c.held, field, b"x-forwarded-uri" if is_forwarded else b"x-original-uri"):
                targets += 1
                target = field.value
            elif is_forwarded and _is_called(c.held, field, b"x-forwarded-host"):
                hosts += 1
                host = field.value
        if methods == 0 and targets == 0:
            return 0
        if methods != 1 or targets != 1 or is_forwarded and (hosts != 1 or not read_host(c.held, &host)):
            return -1
        if not take_target(c.held, target, method, head):
            return -1
        head.host = host
        return 1

    cdef bint _find_below(self, const Conn *c, Span *target) noexcept nogil:
        """What of the target comes after the endpoint's path. False: nothing does."""
        cdef const Route *route = &self.routes.table[self.routes.endpoint]
        cdef uint32_t size = route.path_size - (route.path[route.path_size - 1] == c'/')
        if self.head.target.size <= size or memcmp(c.held + self.head.target.at, route.path, size) != 0:
            return False
        target[0] = Span(self.head.target.at + size, self.head.target.size - size)
        return c.held[target.at] == c'/'

    cdef void _read_again(self, Conn *c) noexcept nogil:
        """`self.head` as it was when the request came: it has waited since."""
        parse_request(self.names, c.held, c.held_size, &self.head)
        self.tickets = -1
        if c.endpoint == Endpoint.OF_REQUESTS:
            self._find_original(c)

    cdef void _refuse_body(self, uint32_t index) noexcept nogil:
        """Its head was good, so the answer is its route's."""
        cdef Conn *c = &self.conns[index]
        c.route = self.routes.find(c.held, &self.head, &c.is_plain)
        c.is_routed = c.route != NO_ROUTE
        if not c.is_routed:
            c.route = 0
        self._reject(index, 400, b"bad_request")

    cdef uint8_t _upgrade_of(self, const Conn *c, const Head *head) noexcept nogil:
        """Which protocol of ours the client may change to, from 1; or 0."""
        cdef uint32_t i
        if head.minor != 1 or head.framing != Framing.NO_BODY:
            return 0
        for i in range(self.upgrade_count):
            if equals(c.held, head.upgrade_to, <const char *>self.upgrades[i].at, self.upgrades[i].size):
                return <uint8_t>(i + 1)
        return 0

    cdef void _note_request(self, Conn *c) noexcept nogil:
        """What will be gone when the answer is: for the access log, and the request's id. Without
        memory there is no line.
        """
        cdef Entry *entry
        self._note_nothing(c)
        entry = c.entry
        if entry == NULL:
            return
        if self.request_id_field.size:
            self._name_request(c, True)
        if self.log is None:
            return
        self._note_target(c)

    cdef void _note_target(self, Conn *c) noexcept nogil:
        """What is asked for, as `self.head` has it."""
        cdef Entry *entry = c.entry
        entry.method_size = <uint8_t>min(self.head.method_name.size, <uint32_t>METHOD_KEPT_MAX)
        entry.host_size = <uint8_t>min(host_size(&self.head), <uint32_t>HOST_KEPT_MAX)
        memcpy(entry.method, c.held + self.head.method_name.at, entry.method_size)
        memcpy(entry.host, host_at(c.held, &self.head), entry.host_size)
        entry.path_size = keep_path(entry.path, c.held + self.head.path.at, self.head.path.size)

    cdef void _note_nothing(self, Conn *c) noexcept nogil:
        """An entry for a request of which nothing is known yet, if there is memory for one."""
        if c.entry == NULL:
            c.entry = <Entry *>malloc(sizeof(Entry))
            if c.entry == NULL:
                return
        c.entry.method_size = c.entry.host_size = c.entry.request_id_size = c.entry.principal_size = 0
        c.entry.path_size = 0
        c.entry.key_id = NO_KEY

    cdef void _note_refused(self, Conn *c, int verdict) noexcept nogil:
        """Whose ticket it is that is not admitted: who he is it says only if its signature was
        good.
        """
        cdef Entry *entry = c.entry
        if entry == NULL or c.checked.size == 0 or verdict == Verdict.MALFORMED:
            return
        entry.key_id = raw_key_id(c.checked.raw)
        if verdict == Verdict.UNKNOWN_KEY or verdict == Verdict.BAD_SIGNATURE:
            return
        entry.principal_size = min(c.checked.raw[PRINCIPAL_LENGTH_AT], <uint8_t>PRINCIPAL_KEPT_MAX)
        memcpy(entry.principal, c.checked.raw + PRINCIPAL_AT, entry.principal_size)
        encode(c.checked.raw + SESSION_ID_AT, 6, entry.session)

    cdef void _name_request(self, Conn *c, bint is_read) noexcept nogil:
        """The id that a proxy of ours gave it, or a new one. `is_read`: its head is in `self.head`.
        """
        cdef uint8_t *made = c.entry.request_id
        cdef Field *field
        cdef uint64_t word = 0
        cdef int i
        for i in range(self.head.known_count if c.is_trusted and is_read else 0):
            field = &self.head.fields[self.head.known[i]]
            if field.kind == Kind.REQUEST_ID and 0 < field.value.size <= REQUEST_ID_BYTES_MAX and _is_printable(c.held, field.value):
                c.entry.request_id_size = <uint8_t>field.value.size
                memcpy(made, c.held + field.value.at, field.value.size)
                return
        for i in range(32):
            if i % 16 == 0:
                self.random += 0x9E3779B97F4A7C15ULL
                word = mix(self.random)
            made[i] = b"0123456789abcdef"[word & 15]
            word >>= 4
        c.entry.request_id_size = 32

    cdef void _note_agent(self, Conn *c) noexcept nogil:
        """For the details of a login: it will be gone when the body goes on. Without memory, or
        such a field, there is none.
        """
        cdef Field *field
        cdef int i
        for i in range(self.head.field_count):
            field = &self.head.fields[i]
            if equals(c.held, field.name, b"user-agent", 10):
                if c.agent == NULL:
                    c.agent = <Agent *>malloc(sizeof(Agent))
                if c.agent != NULL:
                    c.agent.size = <uint16_t>min(field.value.size, <uint32_t>AGENT_BYTES_MAX)
                    memcpy(c.agent.text, c.held + field.value.at, c.agent.size)
                return

    cdef void _note_where(self, Conn *c) noexcept nogil:
        """What decides about cookies: the Host of the request in `self.head`, and whether a proxy
        of ours says that it was https.
        """
        cdef Field *field
        cdef int i
        c.host_size = <uint8_t>self.head.host.size if self.head.host.size <= HOST_BYTES_MAX else 0
        memcpy(c.host, c.held + self.head.host.at, c.host_size)
        c.is_https = False
        for i in range(self.head.field_count if c.is_trusted else 0):
            field = &self.head.fields[i]
            if field.kind == Kind.FORWARDED_PROTO:
                c.is_https = _begins_with_https(c.held, field.value)

    cdef void _account(self, Conn *c, bint was_cut) noexcept nogil:
        """A request is over: count it, and how long it took."""
        cdef int64_t took_us = max(self.now_us - c.began_us, <int64_t>1)
        cdef int bucket = 64 - __builtin_clzll(<unsigned long long>took_us)
        self.counters.latency[min(bucket, LATENCY_BUCKETS - 1)] += 1
        self.counters.latency_us_sum += took_us
        c.began_us = 0
        if was_cut:
            self.counters.cut_short += 1
        else:
            self.counters.answers[min(c.status // 100, 5)] += 1
        if c.agent != NULL or c.doubt != NULL or c.entry != NULL:
            self._close_entry(c, took_us, was_cut)

    cdef void _close_entry(self, Conn *c, int64_t took_us, bint was_cut) noexcept nogil:
        """What was kept of a request that is over, for others."""
        _free_notes(c)
        if self.log is not None and c.entry != NULL:
            self._log(c, took_us, was_cut)

    cdef void _log(self, const Conn *c, int64_t took_us, bint was_cut) noexcept nogil:
        cdef timespec t
        cdef uint8_t[16] session
        cdef char[ADDRESS_TEXT_MAX] client
        cdef Outcome outcome
        client[0] = 0
        if c.has_address:
            write_address(c.client, client)
        outcome.client = client
        outcome.status = c.status
        outcome.body_bytes = c.body_bytes_out
        outcome.duration_us = took_us
        outcome.was_cut = was_cut
        outcome.verdict = b"admitted" if c.is_admitted else b"anonymous"
        if c.reason != NULL:
            outcome.verdict = c.reason
        outcome.principal_size = c.entry.principal_size
        outcome.principal = c.entry.principal
        outcome.session = c.entry.session
        outcome.key_id = c.entry.key_id
        if c.is_admitted:
            outcome.principal = c.checked.raw + PRINCIPAL_AT
            outcome.principal_size = c.checked.raw[PRINCIPAL_LENGTH_AT]
            encode(c.checked.raw + SESSION_ID_AT, 6, session)
            outcome.session = session
        clock_gettime(CLOCK_REALTIME_COARSE, &t)
        self.log.write(c.entry, &outcome, <int64_t>t.tv_sec * 1000 + t.tv_nsec // 1_000_000)

    cdef bint _begin_body(self, Conn *c) noexcept nogil:
        """Take what came of the body together with the head; a chunked one is decoded in place.
        False: malformed.
        """
        cdef uint8_t *body = c.held + c.head_size
        cdef uint32_t there = c.held_size - c.head_size
        cdef uint32_t consumed = 0
        cdef uint32_t produced = 0
        cdef int done
        c.framing = self.head.framing
        c.left = self.head.content_length
        c.complete = True
        if c.framing == Framing.LENGTH:
            c.body_size = <uint32_t>min(<uint64_t>there, c.left)
            c.left -= c.body_size
            c.complete = c.left == 0
        elif c.framing == Framing.CHUNKED:
            memset(&c.chunks, 0, sizeof(Chunks))
            done = dechunk(&c.chunks, body, there, &consumed, &produced)
            if done < 0:
                return False
            c.body_size = produced
            if c.chunks.extension_bytes > self.extension_bytes_max:
                return False
            c.complete = done == 1
            memmove(body + produced, body + consumed, there - consumed)
            c.held_size -= consumed - produced
        return True

    cdef void _check(self, uint32_t index) noexcept nogil:
        """The ticket, from the cookie or `Authorization: Ticket`: exactly one."""
        cdef Conn *c = &self.conns[index]
        cdef int tickets = self._find_tickets(c, &self.ticket)
        cdef AskKind asks = self._asks_for(c)
        cdef Verdict verdict
        self.tickets = tickets
        if tickets == 0:
            verdict = Verdict.MISSING
        elif tickets > 1:
            self._wait_for_verdict(index, AskKind.SEVERAL)
            return
        else:
            verdict = self.checker.judge(
                c.held + self.ticket.at, self.ticket.size, self.checker.now(),
                self._touches(c) and asks == AskKind.AUTHENTICATE, &c.checked)
        if verdict == Verdict.HIT and asks == AskKind.AUTHENTICATE:
            self._admit(index, True)
        elif verdict == Verdict.HIT or verdict == Verdict.MISS or verdict == Verdict.REFRESH:
            self._wait_for_verdict(index, asks)
        else:
            self.counters.forged += verdict == Verdict.BAD_SIGNATURE
            self._refused(index, verdict, True)

    cdef inline AskKind _asks_for(self, const Conn *c) noexcept nogil:
        """What the control plane is asked where it has to be."""
        if self._is_strong(c):
            return AskKind.AUTHENTICATE_STRONG
        return AskKind.AUTHENTICATE_LATEST if c.wishes & Wish.LIFETIME_WISH else AskKind.AUTHENTICATE

    cdef inline bint _touches(self, const Conn *c) noexcept nogil:
        """Whether the request is use of its session."""
        return self.routes.table[c.route].touches and not c.wishes & Wish.NO_USE_WISH

    cdef inline bint _is_strong(self, const Conn *c) noexcept nogil:
        """Whether the store decides. A path that is not plain may be a strong route's to whoever is
        behind us.
        """
        return self.routes.table[c.route].is_strong or not c.is_plain and self.routes.has_strong

    cdef void _wait_for_verdict(self, uint32_t index, AskKind kind) noexcept nogil:
        self.conns[index].state = State.ASKING
        self._set_timer(index, Timer.ASKED)
        self._ask(index, kind, Span(0, 0))

    cdef void _admit(self, uint32_t index, bint parsed) noexcept nogil:
        self.counters.admitted += 1
        self.conns[index].is_admitted = True
        self._forward(index, parsed)

    cdef void _pass(self, uint32_t index, bint parsed) noexcept nogil:
        """Without a ticket, or in spite of one."""
        if self.conns[index].entry != NULL:
            self.conns[index].entry.principal_size = 0
            self.conns[index].entry.key_id = NO_KEY
        self.counters.anonymous += 1
        self._forward(index, parsed)

    cdef int _find_tickets(self, Conn *c, Span *ticket) noexcept nogil:
        cdef Field *field
        cdef Span scheme
        cdef int tickets = 0
        cdef int i
        for i in range(self.head.known_count):
            field = &self.head.fields[self.head.known[i]]
            if field.kind == Kind.COOKIE:
                tickets += find_cookie(c.held, field.value, self.cookie.at, self.cookie.size, ticket)
            elif field.kind == Kind.AUTHORIZATION and field.value.size > 7:
                scheme = Span(field.value.at, 7)
                if equals(c.held, scheme, b"ticket ", 7):
                    tickets += 1
                    ticket[0] = Span(field.value.at + 7, field.value.size - 7)
            elif is_rare(field.kind >= Kind.NO_USE, 0):
                self._note_wish(c, field)
        return tickets

    cdef void _note_wish(self, Conn *c, const Field *field) noexcept nogil:
        """What a client says of its session. It is believed of anybody: it gives nobody more time.
        """
        if field.kind == Kind.NO_USE and equals(c.held, field.value, b"1", 1):
            c.wishes |= Wish.NO_USE_WISH
        elif field.kind == Kind.LIFETIME:
            c.wishes |= Wish.LIFETIME_WISH

    cdef void _ask(self, uint32_t index, AskKind kind, Span value) noexcept nogil:
        cdef Ask *ask = &self.ask_list[self.ask_count]
        ask.index = index
        ask.generation = self.conns[index].generation
        ask.kind = <uint8_t>kind
        ask.value = value
        self.conns[index].asks += 1
        ask.number = self.conns[index].asks
        self.conns[index].asked = <uint8_t>kind
        self.ask_count += 1

    cdef void _refused(self, uint32_t index, int verdict, bint parsed) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef bint is_certain = verdict != Verdict.STORE_UNAVAILABLE
        cdef char[512] fields
        cdef const char *lines = fields
        cdef int status = 401
        self._note_refused(c, verdict)
        if is_certain and self.routes.table[c.route].has_exemption and c.is_plain and not c.exemption_asked and self._has_exact_path(c):
            c.exemption_asked = True
            c.verdict = <uint8_t>verdict
            c.checked.size = 0
            self._wait_for_verdict(index, AskKind.EXEMPTION)
            return
        c.checked.size = 0
        if c.auth == Auth.AUTH_OPTIONAL and is_certain:
            self._pass(index, parsed)
            return
        self.counters.refused[verdict] += 1
        if verdict == Verdict.AMBIGUOUS:
            c.closes = True                     # as with every request that can be read in two ways
        if verdict == Verdict.STORE_UNAVAILABLE:
            status = 503
            fields[0] = 0
        elif self.login_url.size and c.endpoint != Endpoint.OF_TICKETS and self._is_browser(c, parsed):
            status = 401 if c.endpoint and self.front == Front.SAYS_ORIGINAL else 302      # nginx makes 500 of a redirect
            lines = self._login_line(c, verdict if status == 401 else Verdict.HIT)
        elif verdict == Verdict.AMBIGUOUS and not c.endpoint:
            status = 400
            fields[0] = 0
        else:
            snprintf(fields, sizeof(fields), CHALLENGE, slug_of(verdict))
        self._respond(index, status, slug_of(verdict), lines)

    cdef const char *_login_line(self, const Conn *c, int verdict) noexcept nogil:
        """Location: the login page, and where the client wanted to go, if that is a path of ours
        beyond doubt. With the challenge of a 401 before it, unless `verdict` is HIT. `self.head` is
        the request's.
        """
        cdef uint8_t[NEXT_BYTES_MAX] encoded
        cdef uint32_t size = self._encode_next(c, encoded) if self.next_name.size else 0
        cdef int begin = 0
        if verdict != Verdict.HIT:
            begin = snprintf(self.location, sizeof(self.location), CHALLENGE, slug_of(verdict))
        snprintf(
            self.location + begin, sizeof(self.location) - begin, b"Location: %.*s%.*s%.*s%.*s\r\n",
            <int>self.login_url.size, <const char *>self.login_url.at,
            <int>(self.next_name.size if size else 0), <const char *>self.next_name.at, <int>size, <const char *>encoded,
            <int>self.login_fragment.size, <const char *>self.login_fragment.at)
        return self.location

    cdef uint32_t _encode_next(self, const Conn *c, uint8_t *out) noexcept nogil:
        """The target as a parameter's value: path and query, never a host. Its size, or 0: it is
        too long, or a path that another reader could take for another one, `//host` and `/\\host`
        among them.
        """
        cdef Span target = self.head.target
        cdef uint32_t size = 0
        cdef uint32_t i
        cdef uint8_t byte
        if not c.is_plain:
            return 0
        if self.head.target_is_bare:
            out[0] = c'/'
            size = 1
        for i in range(target.at, target.at + target.size):
            if size + 3 > NEXT_BYTES_MAX:
                return 0
            byte = c.held[i]
            if c'a' <= byte <= c'z' or c'A' <= byte <= c'Z' or c'/' <= byte <= c'9' or byte == c'-' or byte == c'.' or byte == c'_':
                out[size] = byte
                size += 1
            else:
                out[size] = c'%'
                out[size + 1] = b"0123456789ABCDEF"[byte >> 4]
                out[size + 2] = b"0123456789ABCDEF"[byte & 15]
                size += 3
        return size

    cdef bint _is_browser(self, Conn *c, bint parsed) noexcept nogil:
        """Somebody who would rather see the login page: GET or HEAD, and text/html is welcome."""
        cdef Field *field
        cdef int i
        if not parsed:
            self._read_again(c)
        if self.head.method != Method.GET and self.head.method != Method.HEAD:
            return False
        for i in range(self.head.known_count):
            field = &self.head.fields[self.head.known[i]]
            if field.kind == Kind.ACCEPT and _contains(c.held, field.value, b"text/html", 9):
                return True
        return False

    # --------------------------------------------------------------------------- answers of our own

    cdef void _reject(self, uint32_t index, int status, const char *reason) noexcept nogil:
        """A request that could not be read to its end: nothing after it on this connection can be
        trusted.
        """
        cdef Conn *c = &self.conns[index]
        self.counters.bad_requests += 1
        c.is_routed &= c.began_us != 0
        c.complete = False
        c.held_is_whole = False
        c.method = Method.HEAD if asks_head(c.held, c.held_size) else Method.OTHER_METHOD
        if c.began_us == 0 and self.keeps_entry:        # nothing is known of it, but who has sent it
            c.is_admitted = False
            c.body_bytes_out = 0
            c.has_address = c.address_size > 0
            memcpy(c.client, c.peer_address, ADDRESS_BYTES)
            self._note_nothing(c)
            if c.entry != NULL and self.request_id_field.size:
                self._name_request(c, False)
        self._respond(index, status, reason, b"")

    cdef void _fail(self, uint32_t index, int status, const char *reason) noexcept nogil:
        """The exchange can not be completed. If its response has begun, the client learns it from
        the closed connection.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t upstream = c.peer
        if upstream != NONE:
            c.peer = NONE
            self.conns[upstream].peer = NONE
            self._close(upstream)
        if c.answered:
            self._close(index)
        else:
            self._respond(index, status, reason, b"")

    cdef void _respond(self, uint32_t index, int status, const char *reason, const char *fields) noexcept nogil:
        """An answer without an upstream: JSON, with the reason. `fields`: more field lines. Every
        503 says when to try again.
        """
        cdef Conn *c = &self.conns[index]
        cdef const char *retry = b"Retry-After: 1\r\n" if status == 503 else b""
        cdef char[LOCATION_BYTES_MAX + 2048 + DOUBT_BYTES_MAX] answer
        cdef char[256] body
        cdef const char *name = <const char *>self.request_id_field.at
        cdef const char *id = b""
        cdef int id_size = 0
        cdef const char *cleared = b""
        cdef int cleared_size = 0
        cdef int size = snprintf(body, sizeof(body), b"{\"error\": \"%s\", \"reason\": \"%s\"}\n", phrase_of(status), reason)
        cdef const char *shown = body
        cdef const char *connection = self._connection_field(c)
        if c.method == Method.HEAD:
            shown = b""
        if c.doubt != NULL:
            cleared = <const char *>c.doubt.text
            cleared_size = <int>c.doubt.fields_size
        if c.entry != NULL and self.request_id_field.size:
            id = <const char *>c.entry.request_id
            id_size = c.entry.request_id_size
        self._set_date()
        size = snprintf(
            answer, sizeof(answer),
            b"HTTP/1.1 %d %s\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\nCache-Control: no-store\r\n"
            b"%s%.*s%s%s%.*s%.*s%s",
            status, phrase_of(status), self.date, size, retry,
            cleared_size, cleared, fields, connection,
            <int>(self.request_id_field.size if id_size else 0), name, id_size, id, b"\r\n" if id_size else b"")
        self.out_size = 0
        self._put(<const uint8_t *>answer, <uint32_t>size)
        if c.is_routed:
            self._put_own_fields(&self.routes.table[c.route].response_fields)
        self._put(b"\r\n", 2)
        self._put(<const uint8_t *>shown, <uint32_t>strlen(shown))
        c.reason = reason
        self._deliver(index, status, self.out, self.out_size)

    cdef void _put_own_fields(self, const Text *lines) noexcept nogil:
        """What a route adds to responses, to an answer of our own; but for names that such an
        answer has, or may have.
        """
        cdef const uint8_t *line = lines.at
        cdef const uint8_t *end = lines.at + lines.size
        cdef const uint8_t *after
        while line != end:
            after = <const uint8_t *>memchr(line, c'\n', end - line) + 1
            if not _is_own_field(line, <uint32_t>(<const uint8_t *>memchr(line, c':', after - line) - line), &self.request_id_field):
                self._put(line, <uint32_t>(after - line))
            line = after

    cdef void _answer_identity(self, uint32_t index) noexcept nogil:
        """What another gateway has asked: the request may pass, and whose it is."""
        cdef Conn *c = &self.conns[index]
        cdef const char *connection = self._connection_field(c)
        cdef int status = 200 if self.front == Front.SAYS_BELOW else 204      # Envoy takes 204 for a refusal
        self.out_size = 0
        self._set_date()
        if status == 200:
            self._put(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", 36)
        else:
            self._put(b"HTTP/1.1 204 No Content\r\n", 25)
        self._put(<const uint8_t *>self.date, <uint32_t>strlen(self.date))
        self._put(b"Cache-Control: no-store\r\n", 25)
        if self.request_id_field.size:
            self._put_request_id(c)
        self._put(self.identity_field.at, self.identity_field.size)
        if c.is_admitted:                           # else empty, in place of what a client may have sent
            self._put_identity(c)
        self._put(b"\r\n", 2)
        if c.wishes & Wish.LIFETIME_WISH:
            self._put_lifetime(c)
        self._put(<const uint8_t *>connection, <uint32_t>strlen(connection))
        self._put(b"\r\n", 2)
        self._deliver(index, status, self.out, self.out_size)

    cdef void _set_date(self) noexcept nogil:
        """`date`: the field line, of this second."""
        cdef timespec now
        cdef tm parts
        cdef time_t second
        clock_gettime(CLOCK_REALTIME_COARSE, &now)
        if now.tv_sec != self.date_s:
            self.date_s = second = now.tv_sec
            gmtime_r(&second, &parts)
            strftime(self.date, sizeof(self.date), b"Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts)

    cdef const char *_connection_field(self, Conn *c) noexcept nogil:
        """Of an answer of our own; whether the connection stays is decided here."""
        if not c.complete or self.leaving:
            c.closes = True
        if c.closes:
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if c.minor == 0 else b""

    cdef void _deliver(self, uint32_t index, int status, const uint8_t *answer, uint32_t size) noexcept nogil:
        """An answer of our own, whole."""
        self.conns[index].status = <uint16_t>status
        if self.conns[index].began_us:
            self._account(&self.conns[index], False)
        elif self.log is not None and self.conns[index].entry != NULL:
            self._log(&self.conns[index], 0, False)
        self._clear_timer(index)
        if not self._send(index, answer, size):
            self._close(index)
        elif self.conns[index].unsent != NULL:
            self._flush_out(index)
        else:
            self._after_answer(index)

    cdef void _flush_out(self, uint32_t index) noexcept nogil:
        """All has been handed over but for what the client is slow to take."""
        self.conns[index].state = State.FLUSHING
        self.conns[index].taken_bytes = 0
        self._set_timer(index, Timer.RESPONSE_BODY)

    cdef void _after_answer(self, uint32_t index) noexcept nogil:
        """The next request, or the end. Whatever of the next one was read already is `held` after
        this one.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t done = c.head_size + c.body_size if c.held_is_whole else 0
        if c.closes or self.closes_idle:            # one whose answer said nothing of an end is let go of between two requests
            self._linger(index, c.held_size > done)
            return
        c.held_size -= done
        c.head_size = c.body_size = 0
        c.waits = 0
        c.held_is_whole = c.held_size > 0           # `_resume` shall look at it
        if c.held_size:
            memmove(c.held, c.held + done, c.held_size)
            c.state = State.READING_HEAD
            self._set_timer(index, Timer.HEAD_IN)
        else:
            self._wait_for_request(index)

    cdef void _wait_for_request(self, uint32_t index) noexcept nogil:
        """Nothing of it is there."""
        cdef Conn *c = &self.conns[index]
        self._give_block(c.held)
        c.held = NULL
        c.state = State.IDLE
        self._set_timer(index, Timer.KEEP_ALIVE)

    cdef void _linger(self, uint32_t index, bint more_held) noexcept nogil:
        """Close so that the client sees the answer: unread bytes would turn the close into a reset
        (RFC 9112, 9.6).
        """
        cdef Conn *c = &self.conns[index]
        if c.is_unframed:
            self._guard_end(c, False)
        if c.complete and not c.readable and not more_held:
            self._close(index)
            return
        shutdown(c.fd, SHUT_WR)
        c.state = State.LINGERING
        self._set_timer(index, Timer.LINGER)
        self._discard(index)

    cdef void _discard(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef ssize_t size
        cdef int _
        for _ in range(READS_MAX):
            if not c.readable:
                return
            size = recv(c.fd, self.scratch, SCRATCH_BYTES, 0)
            if size == 0 or size < 0 and errno != EAGAIN and errno != EINTR:
                self._close(index)
                return
            if size < 0:
                c.readable = errno == EINTR
            else:
                self._received(c, size, SCRATCH_BYTES)
        self._later(index)

    # ------------------------------------------------------------------------ upstream: connections

    cdef void _forward(self, uint32_t index, bint parsed) noexcept nogil:
        """Give the request to a server of its group, over a pooled connection if there is one. If
        all are busy it waits.
        """
        cdef Conn *c = &self.conns[index]
        cdef Group *group = &self.upstreams.groups[self.routes.table[c.route].group]
        cdef uint16_t server
        cdef uint32_t upstream
        if c.endpoint:
            self._answer_identity(index)
            return
        if group.count == 0:  # its names have no address yet
            self._fail(index, 503, b"upstream_unresolved")
            return
        if c.kept != NONE:
            upstream = self._kept_for(index, group)
            if upstream != NONE and is_busy(group, &self.upstreams.servers[self.conns[upstream].server]):
                self._enqueue(index, group)
                return
            if upstream != NONE:
                self._use_kept(index, upstream, parsed)
                return
        while c.attempts <= group.count:
            if c.attempts and not self.upstreams.may_retry(group):
                break
            server = self.upstreams.pick(group, self._key(c, group), self.now_ms)
            if server == NOBODY:
                self._enqueue(index, group)
                return
            if c.attempts == 0:
                self.upstreams.earn(group)
            else:
                self.counters.retries += 1
            c.attempts += 1
            upstream = NONE if c.retried else self._unpool(server, _can_be_sent_again(c))
            if upstream == NONE:
                upstream = self._connect(server)
                if upstream == NO_DESCRIPTOR:
                    self._fail(index, 503, b"out_of_descriptors")
                    return
                if upstream == NONE:
                    continue
            c.peer = upstream
            self.conns[upstream].peer = index
            self.conns[upstream].waits = c.waits
            if self.conns[upstream].state == State.CONNECTING:
                c.state = State.CONNECTING
                self._clear_timer(index)
                self._set_timer(upstream, Timer.CONNECT)
            else:
                self._send_request(index, parsed)
            return
        self._fail(index, 502, b"upstream_refused")

    # ------------------------------------------------------------- upstream: somebody's connections

    cdef uint32_t _kept_for(self, uint32_t index, const Group *group) noexcept nogil:
        """The connection that is this client's, if it is one to this group, for this principal; or
        NONE. A useless one is closed.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t upstream = c.kept
        cdef Conn *u = &self.conns[upstream]
        cdef Server *server = &self.upstreams.servers[u.server]
        if &self.upstreams.groups[server.group] != group:
            return NONE
        if server.is_retired or c.retried or not _is_same_person(c, u):
            self._close(upstream)
            return NONE
        if not _can_be_sent_again(c):
            u.readable = True                           # ask the kernel
            if not self._is_quiet(u):
                self._close(upstream)
                return NONE
        return upstream

    cdef bint _waits_for_kept(self, const Conn *c, const Group *group) noexcept nogil:
        """Whether a request in the queue is for a connection of its client's own, whose server is
        busy: no other one will do.
        """
        cdef const Server *server
        if c.kept == NONE:
            return False
        server = &self.upstreams.servers[self.conns[c.kept].server]
        return &self.upstreams.groups[server.group] == group and not server.is_retired \
            and _is_same_person(c, &self.conns[c.kept]) and is_busy(group, server)

    cdef void _use_kept(self, uint32_t index, uint32_t upstream, bint parsed) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Conn *u = &self.conns[upstream]
        cdef Server *server = &self.upstreams.servers[u.server]
        server.kept_count -= 1
        self.upstreams.earn(&self.upstreams.groups[server.group])
        c.attempts += 1
        c.peer = upstream
        u.peer = index
        u.waits = c.waits
        u.state = State.AWAITING_HEAD
        self._send_request(index, parsed)

    cdef void _keep(self, uint32_t index, uint32_t downstream) noexcept nogil:
        """Whoever authenticates over this connection is whom it takes for the sender of each
        request: so it stays this client's.

        A proxy of ours has many clients, of whom we tell apart only those with a ticket.
        """
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[downstream]
        cdef Server *server = &self.upstreams.servers[c.server]
        if d.closes or self.leaving or server.is_retired or d.is_trusted and not d.is_admitted:
            self._close(index)
            return
        if d.kept != NONE and d.kept != index:
            self._close(d.kept)
        c.kept = downstream
        d.kept = index
        c.checked.size = 0
        if d.is_admitted:
            memcpy(&c.checked, &d.checked, sizeof(Checked))
        c.waits = 0
        free(c.held)
        c.held = NULL
        c.held_size = 0
        c.reused = True
        c.state = State.KEPT
        server.kept_count += 1
        self._freed(c.server)

    cdef void _let_go_of_kept(self, Conn *c) noexcept nogil:
        """One of the two is about to be closed. The client goes on without; nobody else may have
        the other one.
        """
        cdef uint32_t other = c.kept
        c.kept = NONE
        self.conns[other].kept = NONE
        if self.conns[other].side == Side.UPSTREAM:
            self._close(other)

    cdef uint64_t _key(self, const Conn *c, const Group *group) noexcept nogil:
        """What the server is chosen by, where it is not anybody's turn; 0: nothing."""
        cdef uint64_t high
        cdef uint64_t low
        if group.balance == Balance.TICKET_HASH and c.is_admitted:
            return _ticket_key(c.checked.raw, c.checked.size)
        if group.balance != Balance.IP_HASH or not c.has_address:
            return 0
        memcpy(&high, c.client, 8)
        memcpy(&low, c.client + 8, 8)
        return mix(mix(high) ^ low) | 1

    # ----------------------------------------------------------------------------- pending requests

    cdef void _forward_now(self, uint32_t index) noexcept nogil:
        """A request that has waited: whether it is admitted may have changed meanwhile. It is asked
        again once.
        """
        cdef Conn *c = &self.conns[index]
        cdef bint is_strong = self._is_strong(c)
        if c.is_admitted and not c.was_confirmed:
            if is_strong or self.checker.judge_again(&c.checked, self.checker.now(), False) != Verdict.HIT:
                c.was_confirmed = True
                c.is_admitted = False
                self.counters.admitted -= 1
                self._wait_for_verdict(index, AskKind.AUTHENTICATE_STRONG if is_strong else AskKind.AUTHENTICATE)
                return
        self._forward(index, False)

    cdef void _enqueue(self, uint32_t index, Group *group) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if group.pending_count >= group.pending_max:
            self.counters.queue_full += 1
            self._fail(index, 503, b"upstream_busy")
            return
        c.link_next = NONE
        c.link_previous = group.pending_last
        if group.pending_last != NONE:
            self.conns[group.pending_last].link_next = index
        else:
            group.pending_first = index
        group.pending_last = index
        group.pending_count += 1
        c.state = State.QUEUED
        self._set_timer(index, Timer.PENDING)

    cdef void _leave_queue(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Group *group = &self.upstreams.groups[self.routes.table[c.route].group]
        if c.link_previous != NONE:
            self.conns[c.link_previous].link_next = c.link_next
        else:
            group.pending_first = c.link_next
        if c.link_next != NONE:
            self.conns[c.link_next].link_previous = c.link_previous
        else:
            group.pending_last = c.link_previous
        group.pending_count -= 1
        c.state = State.READING_HEAD

    cdef void _freed(self, uint16_t server) noexcept nogil:
        """It may have one more. Not now: whoever calls is in the middle of something."""
        if self.upstreams.groups[self.upstreams.servers[server].group].pending_count:
            self.freed_groups |= <uint64_t>1 << self.upstreams.servers[server].group

    cdef void _serve_pending(self) noexcept nogil:
        """In the order in which they came; but one that waits for a server of its own holds up
        nobody else.
        """
        cdef uint64_t freed = self.freed_groups
        cdef Group *group
        cdef Conn *c
        cdef uint32_t index
        cdef uint32_t following
        cdef uint32_t left
        cdef int number
        self.freed_groups = 0
        for number in range(self.upstreams.group_count):
            if not freed >> number & 1:
                continue
            group = &self.upstreams.groups[number]
            index = group.pending_first
            left = group.pending_count
            while left and index != NONE:
                left -= 1
                c = &self.conns[index]
                following = c.link_next
                if self._waits_for_kept(c, group):
                    index = following
                    continue
                if self.upstreams.would_place(group, self._key(c, group), self.now_ms):
                    self._leave_queue(index)
                    self._clear_timer(index)
                    self._forward_now(index)
                    self._resume(index)
                elif not self._key(c, group):
                    break
                index = following

    cdef uint32_t _connect(self, uint16_t server) noexcept nogil:
        """A new connection, perhaps still CONNECTING; NONE: it failed at once. NO_DESCRIPTOR: it is
        not the server's fault.
        """
        cdef Server *at = &self.upstreams.servers[server]
        cdef int fd = self._socket(at.address.ss_family)
        cdef int on = 1
        cdef bint waits
        cdef uint32_t index
        if fd < 0:
            return NO_DESCRIPTOR
        if at.address.ss_family != AF_UNIX:
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        waits = connect(fd, <const sockaddr *>&at.address, at.address_size) != 0
        if waits and errno != EINPROGRESS:
            self.upstreams.failed(server, self.now_ms, errno)
            close(fd)
            self.counters.upstream_errors += 1
            return NONE
        index = self._new_conn(fd, Side.UPSTREAM)
        if index == NONE:
            close(fd)
            return NONE
        at.open_count += 1
        self.upstream_count += 1
        self.conns[index].server = server
        self.conns[index].watches_out = waits
        if not self._watch(index, EPOLLIN | EPOLLRDHUP | EPOLLET | (EPOLLOUT if waits else 0), EPOLL_CTL_ADD):
            self._close(index)
            return NONE
        self.counters.upstream_connects += 1
        self.conns[index].state = State.CONNECTING if waits else State.AWAITING_HEAD
        if not waits:
            self.upstreams.connected(server, self.now_ms)
        return index

    cdef int _socket(self, int family) noexcept nogil:
        """A new one, or -1. What idles goes first, so that those who are served already still are.
        """
        cdef int fd
        cdef int _
        if self.descriptors_max and self.downstream_count + self.upstream_count >= self.descriptors_max:
            self._spare_one()
        for _ in range(2):
            fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
            if fd >= 0:
                return fd
            self._pause_accepting()
            if not self._spare_one():
                break
        return -1

    cdef bint _spare_one(self) noexcept nogil:
        """Close what has idled longest: a pooled connection, or else a client's between two
        requests. False: there is none.
        """
        cdef uint32_t index = self.queues[<int>Timer.POOL].first
        if index == NONE:
            index = self.queues[<int>Timer.KEEP_ALIVE].first
        if index == NONE:
            return False
        self._close(index)
        return True

    cdef void _connected(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef int error = 0
        cdef socklen_t size = sizeof(error)
        if getsockopt(c.fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 or error != 0:
            self._connect_failed(index, error)
            return
        self._clear_timer(index)
        self.upstreams.connected(c.server, self.now_ms)
        self._send_request(c.peer, False)

    cdef void _connect_failed(self, uint32_t index, int reason) noexcept nogil:
        """Nothing of the request was sent: another server may have it, whatever its method."""
        cdef uint32_t downstream = self.conns[index].peer
        self.counters.upstream_errors += 1
        self.upstreams.failed(self.conns[index].server, self.now_ms, reason)
        self.conns[downstream].peer = NONE
        self._close(index)
        self._forward(downstream, False)

    cdef uint32_t _unpool(self, uint16_t server, bint can_be_sent_again) noexcept nogil:
        """A pooled connection, or NONE. A request that can not be sent twice gets one that was just
        seen to be open.
        """
        cdef Server *at = &self.upstreams.servers[server]
        cdef uint32_t index
        while at.idle_first != NONE:
            index = at.idle_first
            self._leave_pool(index)
            self._clear_timer(index)
            if self.conns[index].usable_until_ms and self.conns[index].usable_until_ms <= self.now_ms:
                self._close(index)                      # the server is about to close it
                continue
            if can_be_sent_again:
                return index
            self.conns[index].readable = True           # ask the kernel
            if self._is_quiet(&self.conns[index]):
                return index
            self._close(index)
        return NONE

    cdef void _pool(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Server *server = &self.upstreams.servers[c.server]
        if server.idle_count >= IDLE_MAX or self.draining or server.is_retired \
                or self.descriptors_max and self.downstream_count + self.upstream_count > self.descriptors_max:
            self._close(index)
            return
        if self.pooled_count >= self.downstream_max:
            self._close(self.queues[<int>Timer.POOL].first)
        self.pooled_count += 1
        self._freed(c.server)
        c.usable_until_ms = 0
        if c.keep_alive_s >= 0:
            c.usable_until_ms = self.now_ms + _usable_ms(c.keep_alive_s)
        c.waits = 0
        free(c.held)
        c.held = NULL
        c.held_size = 0
        c.peer = NONE
        c.reused = True
        c.state = State.POOLED
        c.link_previous = NONE
        c.link_next = server.idle_first
        if server.idle_first != NONE:
            self.conns[server.idle_first].link_previous = index
        server.idle_first = index
        server.idle_count += 1
        self._set_timer(index, Timer.POOL)

    cdef bint _is_quiet(self, Conn *c) noexcept nogil:
        """Whether nothing follows a response. After one whose end was read exactly, only the kernel
        knows.
        """
        cdef uint8_t byte
        if c.readable and recv(c.fd, &byte, 1, MSG_PEEK) < 0 and errno == EAGAIN:
            c.readable = False
        return not c.readable

    cdef void _leave_pool(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Server *server = &self.upstreams.servers[c.server]
        if c.link_previous != NONE:
            self.conns[c.link_previous].link_next = c.link_next
        else:
            server.idle_first = c.link_next
        if c.link_next != NONE:
            self.conns[c.link_next].link_previous = c.link_previous
        server.idle_count -= 1
        self.pooled_count -= 1
        c.state = State.AWAITING_HEAD

    # --------------------------------------------------------------------------- upstream: requests

    cdef void _send_request(self, uint32_t index, bint parsed) noexcept nogil:
        """Write the head anew, with what is held of the body, in one send."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t upstream = c.peer
        cdef Conn *u = &self.conns[upstream]
        cdef bint continues
        if not parsed:
            self._read_again(c)
        continues = self.head.expect_continue and not c.complete and c.body_size == 0
        self._compose_request(c)
        u.sends_chunks = c.framing == Framing.CHUNKED
        self._put_body(c.held + c.head_size, c.body_size, u.sends_chunks, c.complete)
        c.state = State.EXCHANGING
        u.state = State.AWAITING_HEAD
        u.complete = False
        u.interims = 0
        u.is_personal |= self.head.is_personal
        if c.complete:
            self._clear_timer(index)
            self._set_timer(upstream, Timer.FIRST_BYTE)
        else:
            self._await_body(index)
        if not self._send(upstream, self.out, self.out_size):
            self._send_failed(upstream)
            return
        if u.unsent != NULL:
            self._stir(upstream)
        if continues and not self._send(index, b"HTTP/1.1 100 Continue\r\n\r\n", 25):
            self._abort(index)

    cdef void _compose_request(self, Conn *c) noexcept nogil:
        cdef Head *head = &self.head
        cdef Route *route = &self.routes.table[c.route]
        cdef Field *field
        cdef int i
        self.out_size = 0
        if not c.complete:
            self._note_where(c)                 # the head will be gone when the body goes on
        if self.records_agent and route.logs_in:
            self._note_agent(c)
        self._put(c.held + head.method_name.at, head.method_name.size)
        if head.target_is_bare:
            self._put(b" *" if head.target_is_star else b" /", 2)
        else:
            self._put(b" ", 1)
        self._put(c.held + head.target.at, head.target.size)
        self._put(b" HTTP/1.1\r\nHost: ", 17)
        self._put(host_at(c.held, head), host_size(head))
        self._put(b"\r\n", 2)
        for i in range(head.field_count):
            field = &head.fields[i]
            if not _goes_upstream(c, field) or head.nominated_count and is_nominated(c.held, head, field):
                continue
            if (field.kind == Kind.COOKIE or field.kind == Kind.AUTHORIZATION) and not self.forwards_ticket \
                    and self._withhold_ticket(c, field):
                continue
            if route.request_fields.size == 0 or not adds(&route.request_fields, c.held, field):
                self._put_field(c.held, field)
        self._end_run(c.held)
        if c.framing == Framing.CHUNKED:
            self._put(b"Transfer-Encoding: chunked\r\n", 28)
        elif c.framing == Framing.LENGTH:
            self._put_length(head.content_length)
        if c.upgrade:
            self._put_upgrade(c)
        self._put_forwarding(c)
        if self.request_id_field.size:
            self._put_request_id(c)
        if route.request_fields.size:
            self._put(route.request_fields.at, route.request_fields.size)
        if c.is_admitted:
            self._put(self.identity_field.at, self.identity_field.size)
            if self.escapes_identity:
                self._put_identity(c)
            else:
                self._put(c.checked.raw + PRINCIPAL_AT, c.checked.raw[PRINCIPAL_LENGTH_AT])
            self._put(b"\r\n", 2)
        self._put(b"\r\n", 2)

    cdef bint _withhold_ticket(self, const Conn *c, const Field *field) noexcept nogil:
        """Whether a Cookie or Authorization field holds a ticket: then what it holds beside it was
        written. Of a line that goes on as it came, the run goes on after the ticket.
        """
        cdef uint32_t end = field.value.at + field.value.size
        cdef Span cut
        if field.kind == Kind.AUTHORIZATION:
            return field.value.size > 7 and equals(c.held, Span(field.value.at, 7), b"ticket ", 7)
        if self.tickets != 1 or not _came_as_it_goes(c.held, field):
            return self.tickets != 0 and self._put_cookies_left(c, field)
        if self.ticket.at - field.value.at >= field.value.size:
            return False                            # it is in another field
        cut = cookie_in(c.held, field.value, self.cookie.size, self.ticket)
        if cut.size == field.value.size:
            return True
        if field.name.at != self.run_end:
            self._end_run(c.held)
            self.run_at = field.name.at
        self._put(c.held + self.run_at, cut.at - self.run_at)
        self.run_at = cut.at + cut.size
        self.run_end = end + 2
        return True

    cdef bint _put_cookies_left(self, const Conn *c, const Field *field) noexcept nogil:
        """The same where nobody has looked for tickets, or where there are several: on routes that
        need none.
        """
        cdef Span value = field.value
        cdef Span ticket
        cdef Span cut
        cdef uint32_t begin = self.out_size
        if find_cookie(c.held, value, self.cookie.at, self.cookie.size, &ticket) == 0:
            return False
        self._end_run(c.held)
        begin = self.out_size
        self._put(c.held + field.name.at, field.name.size)
        self._put(b": ", 2)
        value.at = self.out_size
        self._put(c.held + field.value.at, value.size)
        while find_cookie(self.out, value, self.cookie.at, self.cookie.size, &ticket):
            cut = cookie_in(self.out, value, self.cookie.size, ticket)
            memmove(self.out + cut.at, self.out + cut.at + cut.size, value.at + value.size - cut.at - cut.size)
            value.size -= cut.size
        self.out_size = value.at + value.size if value.size else begin
        if value.size:
            self._put(b"\r\n", 2)
        return True

    cdef void _put_lifetime(self, const Conn *c) noexcept nogil:
        """How long the session still lives if nobody uses it, and at most: whole seconds, those of
        the two that there are.
        """
        cdef char[64] text
        cdef int64_t now_ms = self.checker.now()
        cdef int64_t absolute_ms = raw_absolute_deadline_ms(c.checked.raw)
        cdef int64_t idle_ms = 0
        cdef bint has_idle = raw_idle_timeout_s(c.checked.raw) and self.checker.near.find(
            c.checked.raw, c.checked.size, now_ms, False, &idle_ms) == Verdict.HIT
        cdef bint has_absolute = absolute_ms != never_ms()
        cdef int size = 0
        if has_idle:
            size = snprintf(text, sizeof(text), b"idle=%lld", <long long>((idle_ms - now_ms) // 1000))
        if has_absolute:
            size += snprintf(
                text + size, sizeof(text) - size, b", absolute=%lld" if size else b"absolute=%lld",
                <long long>((absolute_ms - now_ms) // 1000))
        if size:
            self._put(self.lifetime_field.at, self.lifetime_field.size)
            self._put(<const uint8_t *>text, <uint32_t>size)
            self._put(b"\r\n", 2)
    cdef void _put_identity(self, const Conn *c) noexcept nogil:
        """Whose ticket it is, in percent-encoding, if so wished: all of it but what RFC 3986 calls
        unreserved.
        """
        cdef const uint8_t *name = c.checked.raw + PRINCIPAL_AT
        cdef uint32_t i
        if not self.escapes_identity:
            self._put(name, c.checked.raw[PRINCIPAL_LENGTH_AT])
            return
        for i in range(c.checked.raw[PRINCIPAL_LENGTH_AT]):
            self._put_escaped(name[i])

    cdef void _put_escaped(self, uint8_t c) noexcept nogil:
        cdef const char *digits = b"0123456789ABCDEF"
        cdef uint8_t[3] text
        if c'a' <= c <= c'z' or c'A' <= c <= c'Z' or c'0' <= c <= c'9' or c == c'-' or c == c'.' or c == c'_' or c == c'~':
            self._put(&c, 1)
            return
        text[0] = c'%'
        text[1] = digits[c >> 4]
        text[2] = digits[c & 15]
        self._put(text, 3)

    cdef void _put_upgrade(self, const Conn *c) noexcept nogil:
        cdef Text *protocol = &self.upgrades[c.upgrade - 1]
        self._put(b"Upgrade: ", 9)
        self._put(protocol.at, protocol.size)
        self._put(b"\r\nConnection: Upgrade\r\n", 23)

    cdef void _find_client(self, Conn *c) noexcept nogil:
        """Walk X-Forwarded-For from right to left, as long as proxies of ours speak: who the last
        of them names is the client.

        What stands left of him nobody vouches for. `chain_field` and `chain_at` are where he
        stands, in the head that was just read.
        """
        cdef uint8_t[ADDRESS_BYTES] named
        cdef Field *field
        cdef uint32_t start
        cdef uint32_t end
        cdef int i
        self.chain_field = -1
        c.has_address = c.address_size > 0
        memcpy(c.client, c.peer_address, ADDRESS_BYTES)
        for i in range(self.head.field_count - 1, -1, -1):
            field = &self.head.fields[i]
            end = field.value.at + field.value.size
            while field.kind == Kind.FORWARDED_FOR and end > field.value.at:
                start = end
                while start > field.value.at and c.held[start - 1] != c',':
                    start -= 1
                if not _read_element(c.held, start, end, named):
                    return
                memcpy(c.client, named, ADDRESS_BYTES)
                c.has_address = True
                self.chain_field = i
                self.chain_at = start
                if not self.trusted.contains(named):
                    return
                end = start - 1 if start > field.value.at else start

    cdef void _put_forwarding(self, Conn *c) noexcept nogil:
        """X-Forwarded-For, -Proto and -Host: from the client on, as proxies of ours vouch for it;
        else what is known first-hand.
        """
        cdef Field *field
        cdef Field *proto = NULL
        cdef Field *host = NULL
        cdef int i
        cdef uint32_t start = self.out_size
        cdef uint32_t at
        self._put(b"X-Forwarded-For: ", 17)
        if c.is_trusted:
            self._find_client(c)
            for i in range(self.head.field_count):
                field = &self.head.fields[i]
                if field.kind == Kind.FORWARDED_PROTO:
                    proto = field
                elif field.kind == Kind.FORWARDED_HOST:
                    host = field
                elif field.kind == Kind.FORWARDED_FOR and field.value.size and 0 <= self.chain_field <= i:
                    at = self.chain_at if i == self.chain_field else field.value.at
                    while c.held[at] == c' ' or c.held[at] == c'\t':
                        at += 1
                    self._put(c.held + at, field.value.at + field.value.size - at)
                    self._put(b", ", 2)
        self._put(<uint8_t *>c.address, c.address_size)
        if c.address_size == 0 and self.out_size > start + 17:
            self.out_size -= 2                          # a proxy on a Unix socket has no address to end the list with
        self._put(b"\r\n", 2)
        if self.out_size == start + 19:
            self.out_size = start                       # nobody to name
        self._put(b"X-Forwarded-Proto: ", 19)
        if proto != NULL:
            self._put(c.held + proto.value.at, proto.value.size)
        else:
            self._put(b"http", 4)
        self._put(b"\r\nX-Forwarded-Host: ", 20)
        if host != NULL:
            self._put(c.held + host.value.at, host.value.size)
        else:
            self._put(host_at(c.held, &self.head), host_size(&self.head))
        self._put(b"\r\n", 2)
        if self.writes_forwarded:
            self._put_forwarded(c, proto)

    cdef void _put_forwarded(self, Conn *c, const Field *proto) noexcept nogil:
        """Forwarded (RFC 7239): one element, ours."""
        cdef char[ADDRESS_TEXT_MAX] client
        cdef int size
        self._put(b"Forwarded: for=", 15)
        if not c.has_address:
            self._put(b"unknown", 7)
        else:
            size = write_address(c.client, client)
            self._put(b"\"[", 0 if is_v4(c.client) else 2)
            self._put(<uint8_t *>client, size)
            self._put(b"]\"", 0 if is_v4(c.client) else 2)
        self._put(b";host=\"", 7)
        self._put(host_at(c.held, &self.head), host_size(&self.head))
        self._put(b"\";proto=", 8)
        if proto != NULL and (equals(c.held, proto.value, b"https", 5)):
            self._put(b"https", 5)
        else:
            self._put(b"http", 4)
        self._put(b"\r\n", 2)

    cdef void _put_request_id(self, const Conn *c) noexcept nogil:
        if c.entry != NULL:
            self._put(self.request_id_field.at, self.request_id_field.size)
            self._put(c.entry.request_id, c.entry.request_id_size)
            self._put(b"\r\n", 2)

    cdef inline void _put(self, const uint8_t *at, uint32_t size) noexcept nogil:
        memcpy(self.out + self.out_size, at, size)
        self.out_size += size

    cdef inline void _put_field(self, const uint8_t *at, const Field *field) noexcept nogil:
        """As `name: value CRLF`. Lines that came so, one after the other, are a run that `_end_run`
        copies at once.
        """
        if field.name.at == self.run_end and _came_as_it_goes(at, field):
            self.run_end = field.value.at + field.value.size + 2
        else:
            self._put_apart(at, field)

    cdef void _put_apart(self, const uint8_t *at, const Field *field) noexcept nogil:
        """A field that begins another run, or stands in none."""
        self._end_run(at)
        if _came_as_it_goes(at, field):
            self.run_at = field.name.at
            self.run_end = field.value.at + field.value.size + 2
            return
        self._put(at + field.name.at, field.name.size)
        self._put(b": ", 2)
        self._put(at + field.value.at, field.value.size)
        self._put(b"\r\n", 2)

    cdef void _end_run(self, const uint8_t *at) noexcept nogil:
        self._put(at + self.run_at, self.run_end - self.run_at)
        self.run_at = self.run_end = 0

    cdef void _put_length(self, uint64_t length) noexcept nogil:
        self._put(b"Content-Length: ", 16)
        self._put_number(length)
        self._put(b"\r\n", 2)

    cdef void _put_number(self, uint64_t number) noexcept nogil:
        """Decimal. By hand: snprintf was a tenth of what a request takes in user space."""
        cdef uint8_t[20] digits
        cdef uint32_t first = sizeof(digits)
        while True:
            first -= 1
            digits[first] = <uint8_t>(c'0' + number % 10)
            number //= 10
            if number == 0:
                break
        self._put(digits + first, sizeof(digits) - first)

    cdef void _put_body(self, const uint8_t *at, uint32_t size, bint chunked, bint complete) noexcept nogil:
        cdef char[CHUNK_HEADER_BYTES] line
        if chunked and size:
            self._put(<uint8_t *>line, <uint32_t>snprintf(line, sizeof(line), b"%x\r\n", <unsigned int>size))
        self._put(at, size)
        if chunked and size:
            self._put(b"\r\n", 2)
        if chunked and complete:
            self._put(b"0\r\n\r\n", 5)

    # --------------------------------------------------------------------------------------- bodies

    cdef void _pump(self, uint32_t index) noexcept nogil:
        """Move a message body on from this connection to its peer, as long as both go along."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t peer = c.peer
        cdef uint8_t *at = self.scratch + CHUNK_HEADER_BYTES
        cdef uint32_t room
        cdef ssize_t size
        cdef int _
        for _ in range(READS_MAX):
            if c.side == Side.FREE or c.peer != peer or c.complete or not c.readable or self.conns[peer].unsent != NULL:
                return
            if c.side == Side.UPSTREAM and c.state != State.RELAYING and c.state != State.TUNNELLING:
                return
            if self.conns[peer].send_failed:
                return                              # an early answer: what is left of the request is not wanted
            room = self._room(c)
            size = recv(c.fd, at, room, 0)
            if size < 0 and (errno == EAGAIN or errno == EINTR):
                c.readable = errno == EINTR
                return
            if size <= 0:
                self._body_ended(index, size == 0)
                return
            self._received(c, size, room)
            if not self._move(index, at, <uint32_t>size):
                return
        if c.readable and not c.complete:
            self._later(index)

    cdef uint32_t _room(self, Conn *c) noexcept nogil:
        """How much to read: never past the end of a message of known length, nor more of a request
        than a block holds.
        """
        if c.framing == Framing.LENGTH:
            return <uint32_t>min(c.left, <uint64_t>SCRATCH_BYTES)
        if c.framing == Framing.CHUNKED and c.side == Side.DOWNSTREAM:
            return self.head_bytes
        return SCRATCH_BYTES

    cdef bint _move(self, uint32_t index, uint8_t *at, uint32_t size) noexcept nogil:
        """Bytes of a body have come. False: the exchange is over."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t peer = c.peer
        cdef uint32_t consumed = size
        cdef uint32_t produced = size
        cdef bint was_whole = self._take_body(c, at, &consumed, &produced)
        if not was_whole:
            self._malformed_body(index)
            return False
        c.window_bytes += produced                  # data, not what it is wrapped in
        if c.side == Side.DOWNSTREAM:
            c.is_used |= self._is_use(c, at, produced)
            c.held_is_whole = False                 # streamed: it can not be sent again
            c.held_size = size - consumed           # of the next request
            if c.held_size:
                memcpy(c.held, at + consumed, c.held_size)
        else:
            self.conns[peer].body_bytes_out += produced
            self.conns[peer].is_used |= c.framing == Framing.LENGTH     # a download: it has an end
            if consumed < size:
                c.keeps_alive = False
        if c.state == State.TUNNELLING and c.side == Side.UPSTREAM:
            follow(&c.frames, at, produced)
            if c.is_parted:
                return True
        if not self._send_body(peer, at, produced, c.complete):
            self._send_failed(peer)
            return False
        if c.complete:
            self._body_complete(index)
            return False
        if c.state == State.RELAYING:
            self.conns[peer].taken_bytes = 0
            self._set_timer(index, Timer.RESPONSE_BODY)
        else:
            self._stir(peer if c.side == Side.DOWNSTREAM else index)
        return True

    cdef bint _is_use(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil:
        """Whether what a client sends is use of its session: all but frames of control (RFC 6455,
        5.5), which nobody sends by hand.
        """
        if c.state != State.TUNNELLING or c.upgrade != self.websocket:
            return True
        c.frames.has_data = False
        follow(&c.frames, at, size)
        return c.frames.has_data

    cdef bint _take_body(self, Conn *c, uint8_t *at, uint32_t *consumed, uint32_t *produced) noexcept nogil:
        """Of so many bytes, how many belong to the message, and how many are data after decoding in
        place. False: malformed.
        """
        cdef uint32_t size = consumed[0]
        cdef int done
        if c.framing == Framing.CHUNKED:
            done = dechunk(&c.chunks, at, size, consumed, produced)
            c.complete = done == 1
            return done >= 0 and c.chunks.extension_bytes <= self.extension_bytes_max
        if c.framing == Framing.LENGTH:
            consumed[0] = <uint32_t>min(<uint64_t>size, c.left)
            c.left -= consumed[0]
            c.complete = c.left == 0
        elif c.framing == Framing.NO_BODY:
            consumed[0] = 0
            c.complete = True
        produced[0] = consumed[0]
        return True

    cdef bint _send_body(self, uint32_t index, uint8_t *at, uint32_t size, bint complete) noexcept nogil:
        """Send data that lies in `scratch`, framed there in place. False: the connection is broken.
        """
        cdef Conn *c = &self.conns[index]
        cdef char[CHUNK_HEADER_BYTES] line
        cdef int header
        if c.sends_chunks:
            if size:
                header = snprintf(line, sizeof(line), b"%x\r\n", <unsigned int>size)
                memcpy(at + size, b"\r\n", 2)
                at -= header
                memcpy(at, line, header)
                size += header + 2
            if complete:
                memcpy(at + size, b"0\r\n\r\n", 5)
                size += 5
        return self._send(index, at, size) if size else True

    cdef void _body_complete(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.side == Side.UPSTREAM:
            self._finish(index)
        else:
            self._clear_timer(index)
            if self.conns[c.peer].state == State.AWAITING_HEAD:
                self._set_timer(c.peer, Timer.FIRST_BYTE)
            elif c.is_admitted:
                self._set_timer(index, Timer.VOUCH)             # its response goes on already

    cdef void _body_ended(self, uint32_t index, bint cleanly) noexcept nogil:
        """The sender has closed: the end of a message that goes on until then, or a message cut
        short.
        """
        cdef Conn *c = &self.conns[index]
        if c.state == State.TUNNELLING and cleanly:
            c.complete = True
            if self.conns[c.peer].complete:
                self._abort(index)
            else:
                shutdown(self.conns[c.peer].fd, SHUT_WR)
        elif c.framing == Framing.UNTIL_CLOSE and cleanly and c.side == Side.UPSTREAM:
            c.complete = True
            if not self._send_body(c.peer, self.scratch + CHUNK_HEADER_BYTES, 0, True):
                self._abort(index)
                return
            self._finish(index)
        else:
            if c.side == Side.UPSTREAM:
                self.counters.upstream_errors += 1
            self._abort(index)

    cdef void _malformed_body(self, uint32_t index) noexcept nogil:
        if self.conns[index].side == Side.DOWNSTREAM:
            self.counters.bad_requests += 1
            self._fail(index, 400, b"bad_request")
        else:
            self.counters.upstream_errors += 1
            self._note(self.conns[index].server, b"a chunked body that is none")
            self._abort(index)

    # -------------------------------------------------------------------------- upstream: responses

    cdef void _note(self, uint16_t server, const char *what) noexcept nogil:
        """For the operator. NULL: it set the ticket's cookie."""
        if self.noted_count == FAULTS_NOTED_MAX:
            self.noted_more += 1
            return
        self.noted[self.noted_count].server = server
        self.noted[self.noted_count].what = what
        self.noted_count += 1

    cdef void _malformed(self, uint32_t index, const char *what) noexcept nogil:
        """A response that nobody could understand: 502."""
        self.counters.upstream_errors += 1
        self._note(self.conns[index].server, what)
        self._fail(self.conns[index].peer, 502, b"upstream_malformed")

    cdef void _advance_upstream(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef int _
        if c.side != Side.UPSTREAM:
            return
        if c.state == State.POOLED or c.state == State.KEPT:
            if c.readable:
                self._close(index)                  # the end of it, or bytes that nobody asked for
        elif c.state == State.AWAITING_HEAD:
            for _ in range(READS_MAX):
                if c.side != Side.UPSTREAM or c.state != State.AWAITING_HEAD or not c.readable \
                        or self.conns[c.peer].state != State.EXCHANGING:
                    return
                self._read_response(index)
            self._later(index)
        else:
            self._pump(index)

    cdef void _read_response(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef uint8_t *at = self.scratch + CHUNK_HEADER_BYTES
        cdef uint32_t room = SCRATCH_BYTES
        cdef ssize_t size
        if c.held_size:
            at = c.held + c.held_size
            room -= c.held_size
        size = recv(c.fd, at, room, 0)
        if size < 0 and (errno == EAGAIN or errno == EINTR):
            c.readable = errno == EINTR
            if c.send_failed and not c.readable:
                self._lost(index)
            return
        if size <= 0:
            self._lost(index)
            return
        self._received(c, size, room)
        if c.held_size:
            c.held_size += <uint32_t>size
            self._on_response(index, c.held, c.held_size)
        else:
            self._on_response(index, at, <uint32_t>size)

    cdef void _lost(self, uint32_t index) noexcept nogil:
        """The upstream closed before it answered. If it is one that had been idle, it may not have
        seen the request at all.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        cdef bint again = c.reused and c.held_size == 0 and not d.retried and not d.answered and _can_be_sent_again(d)
        self.counters.upstream_errors += 1
        if not again:
            self.upstreams.faulted(c.server, self.now_ms)
            self._note(c.server, b"closed before its head was there")
            self._fail(downstream, 502, b"upstream_closed")
            return
        d.peer = NONE
        c.peer = NONE
        self._close(index)
        d.retried = True
        self._forward(downstream, False)

    cdef void _on_response(self, uint32_t index, uint8_t *at, uint32_t size) noexcept nogil:
        """Read a response head; drop interim ones (RFC 9110, 15.2); see whether the control plane
        has a word in it.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        cdef int result
        while True:
            result = parse_response(self.names, at, size, d.method, &self.head)
            if result == INCOMPLETE and size < self.response_head_bytes:
                if not self._hold(c, at, size):
                    self._fail(downstream, 503, b"out_of_memory")
                return
            if result <= 0 or <uint32_t>result > self.response_head_bytes or self.head.status == 101 and not self._agreed(d, at):
                self.upstreams.faulted(c.server, self.now_ms)
                self._malformed(index, self._fault_of(result, at, size, d.method))
                return
            c.is_personal |= self.head.is_personal
            if self.head.status >= 200 or self.head.status == 101:
                break
            c.interims += 1
            if c.interims > INTERIMS_MAX:
                self.upstreams.faulted(c.server, self.now_ms)
                self._malformed(index, b"interim responses without end")
                return
            at += result
            size -= result
            if size == 0:
                c.held_size = 0
                return
        if not self._hooked(index, at, size):
            self._relay(index, at, size, NULL, 0)

    cdef const char *_fault_of(self, int result, const uint8_t *at, uint32_t size, Method method) noexcept nogil:
        """Why a head is none that goes on; `result` is what `parse_response` said."""
        if result < 0:
            return fault_of(self.names, at, size, method, &self.head)
        if result == INCOMPLETE or <uint32_t>result > self.response_head_bytes:
            return b"a head of more than response_head_bytes_max"
        return b"a change of protocols that nobody asked for"

    cdef bint _agreed(self, const Conn *d, const uint8_t *at) noexcept nogil:
        """Whether a 101 says that it changes to what the client has asked for (RFC 9110, 7.8: it
        must say to what).
        """
        cdef Field *field
        cdef Text *protocol
        cdef bint is_said = False
        cdef int i
        if d.upgrade == 0:
            return False
        protocol = &self.upgrades[d.upgrade - 1]
        for i in range(self.head.known_count):
            field = &self.head.fields[self.head.known[i]]
            if field.kind == Kind.UPGRADE:
                if not equals(at, field.value, <const char *>protocol.at, protocol.size):
                    return False
                is_said = True
        return is_said

    cdef bint _hold(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil:
        if c.held == NULL:
            c.held = <uint8_t *>malloc(SCRATCH_BYTES)
            if c.held == NULL:
                return False
        memmove(c.held, at, size)
        c.held_size = size
        return True

    cdef bint _hooked(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil:
        """Whether the application begins, ends or renews a session. Then the response waits for the
        control plane.
        """
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[c.peer]
        cdef Field *field
        cdef Field *wish = NULL
        cdef AskKind kind = AskKind.NO_WISH
        cdef AskKind said
        cdef int i
        for i in range(self.head.known_count):
            field = &self.head.fields[self.head.known[i]]
            if field.kind != Kind.DROP and not Kind.TICKET_LOGIN <= field.kind <= Kind.TICKET_ROTATE:
                continue
            said = self._wish(d, at, field)
            if said == AskKind.NO_WISH:
                continue
            if wish != NULL or said == AskKind.UNCLEAR:         # of several, never guess which
                self._malformed(index, b"several wishes for the session" if wish != NULL else b"an X-Ticket field with an odd value")
                return True
            wish = field
            kind = said
        if kind == AskKind.NO_WISH or kind == AskKind.UNHEARD:
            return False
        if not self._hold(c, at, size):
            self._fail(c.peer, 503, b"out_of_memory")
            return True
        self._clear_timer(index)
        d.state = State.HOOKED
        self._set_timer(c.peer, Timer.ASKED)
        self._ask(c.peer, kind, wish.value)
        return True

    cdef AskKind _wish(self, const Conn *d, const uint8_t *at, const Field *field) noexcept nogil:
        """What one field of a response wants of the session. An end or a change that can not be
        read must not pass for done.
        """
        cdef Kind kind = field.kind
        if kind == Kind.DROP:
            kind = self.names.kind_of(at + field.name.at, field.name.size)
            return AskKind.UNCLEAR if kind == Kind.TICKET_LOGOUT or kind == Kind.TICKET_ROTATE else AskKind.NO_WISH
        if kind == Kind.TICKET_LOGIN:
            return self._login_kind(at) if self.routes.table[d.route].logs_in and d.is_plain else AskKind.UNHEARD
        if kind == Kind.TICKET_LOGOUT and equals(at, field.value, b"session", 7):
            return AskKind.LOGOUT if d.is_admitted or d.doubt != NULL else AskKind.UNHEARD
        if kind == Kind.TICKET_LOGOUT and equals(at, field.value, b"everywhere", 10):
            return AskKind.LOGOUT_EVERYWHERE if d.is_admitted or d.doubt != NULL else AskKind.UNHEARD
        if kind == Kind.TICKET_ROTATE and equals(at, field.value, b"1", 1):
            return AskKind.ROTATE if d.is_admitted else AskKind.UNHEARD
        return AskKind.NO_WISH if kind == Kind.TICKET_REMEMBER else AskKind.UNCLEAR

    cdef AskKind _login_kind(self, const uint8_t *at) noexcept nogil:
        """Whether the client is to be remembered, as `self.head` says once, or not at all."""
        cdef Field *field
        cdef AskKind kind = AskKind.LOGIN
        cdef int i
        for i in range(self.head.known_count):
            field = &self.head.fields[self.head.known[i]]
            if field.kind == Kind.TICKET_REMEMBER:
                if kind != AskKind.LOGIN or not equals(at, field.value, b"1", 1):
                    return AskKind.UNCLEAR
                kind = AskKind.LOGIN_REMEMBERED
        return kind

    cdef void _relay(
        self, uint32_t index, uint8_t *at, uint32_t size, const uint8_t *fields, uint32_t fields_size
    ) noexcept nogil:
        """Write the response head anew, with what came of the body, in one send. `self.head` has
        been read from `at`.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        cdef Head *head = &self.head
        cdef uint32_t consumed = size - head.size
        cdef uint32_t produced = consumed
        cdef bint is_tunnel = head.status == 101
        c.framing = Framing.UNTIL_CLOSE if is_tunnel else head.framing
        c.left = head.content_length
        c.complete = False
        c.keeps_alive = c.framing != Framing.UNTIL_CLOSE and not head.close and (head.minor == 1 or head.keep_alive) \
            and d.upgrade == 0              # one that was declined: the parser behind may have stopped at the offer
        memset(&c.chunks, 0, sizeof(Chunks))
        if not self._take_body(c, at + head.size, &consumed, &produced) or consumed < size - head.size:
            self._malformed(index, b"a body that is not as its head says")
            return
        c.keep_alive_s = head.keep_alive_s
        if c.framing == Framing.NO_BODY or c.framing == Framing.LENGTH and c.left == 0:
            c.complete = True
        if self.leaving or not d.complete and c.complete:
            d.closes = True
        d.sends_chunks = not is_tunnel and d.minor == 1 and (c.framing == Framing.CHUNKED or c.framing == Framing.UNTIL_CLOSE)
        if d.minor == 0 and (c.framing == Framing.CHUNKED or c.framing == Framing.UNTIL_CLOSE):
            d.closes = True
            self._guard_end(d, True)
        self._compose_response(d, at, fields, fields_size, is_tunnel)
        self._put_body(at + head.size, produced, d.sends_chunks, c.complete)
        self.counters.responses += 1
        self.upstreams.servers[c.server].faults = 0
        d.answered = True
        d.status = <uint16_t>head.status
        d.body_bytes_out = produced
        d.taken_bytes = 0
        c.state = State.RELAYING
        c.held_size = 0
        if not self._send(downstream, self.out, self.out_size):
            self._abort(downstream)
        elif is_tunnel:
            memset(&c.frames, 0, sizeof(Frames))
            follow(&c.frames, at + head.size, produced)
            self._open_tunnel(index)
        elif c.complete:
            self._finish(index)
        else:
            self._set_timer(index, Timer.RESPONSE_BODY)
            if d.is_admitted and d.complete:
                self._set_timer(downstream, Timer.VOUCH)
            elif not d.complete and d.queue == 0:       # the response had to wait for the control plane
                self._await_body(downstream)
            self._pump(index)

    cdef void _guard_end(self, Conn *c, bint is_unframed) noexcept nogil:
        """From the head of an answer whose end is the connection's to its last byte, whatever
        closes that resets it: a service that breaks off, a deadline, the death of this process. The
        kernel is told beforehand, so nothing else has to think of it.
        """
        cdef linger how
        how.l_onoff = is_unframed
        how.l_linger = 0
        c.is_unframed = is_unframed
        setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &how, sizeof(how))

    cdef void _compose_response(
        self, Conn *d, const uint8_t *at, const uint8_t *fields, uint32_t fields_size, bint is_tunnel
    ) noexcept nogil:
        cdef Head *head = &self.head
        cdef Route *route = &self.routes.table[d.route]
        cdef Field *field
        cdef int i
        self.out_size = 0
        self._put(b"HTTP/1.1 ", 9)
        self._put_number(head.status)
        self._put(b" ", 1)
        self._put(at + head.reason.at, head.reason.size)
        self._put(b"\r\n", 2)
        for i in range(head.field_count):
            field = &head.fields[i]
            if field.kind != Kind.OTHER and not self._goes_downstream(d, at, field, fields_size > 0):
                continue
            if head.nominated_count and is_nominated(at, head, field):
                continue
            if route.response_fields.size == 0 or not adds(&route.response_fields, at, field):
                self._put_field(at, field)
        self._end_run(at)
        if d.doubt != NULL:
            self._put(d.doubt.text, d.doubt.fields_size)
            self._put(b"Cache-Control: no-store\r\n", 25)
        if fields_size:
            self._put(fields, fields_size)
        if route.response_fields.size:
            self._put(route.response_fields.at, route.response_fields.size)
        if d.wishes and d.is_admitted and d.wishes & Wish.LIFETIME_WISH:
            self._put_lifetime(d)
        if d.sends_chunks:
            self._put(b"Transfer-Encoding: chunked\r\n", 28)
        elif head.has_length and head.status != 204:
            self._put_length(head.content_length)
        if is_tunnel:
            self._put_upgrade(d)
        elif d.closes:
            self._put(b"Connection: close\r\n", 19)
        elif d.minor == 0:
            self._put(b"Connection: keep-alive\r\n", 24)
        self._put(b"\r\n", 2)

    cdef bint _goes_downstream(self, const Conn *d, const uint8_t *at, const Field *field, bint has_ours) noexcept nogil:
        """Whether a field that we have a meaning for goes on. `has_ours`: the response gets a
        cookie of ours.
        """
        if field.kind == Kind.SET_COOKIE:
            return self._may_set(d, at, field, has_ours)
        return field.kind != Kind.DROP and field.kind != Kind.CONTENT_LENGTH and field.kind != Kind.TRANSFER_ENCODING \
            and field.kind != Kind.CONNECTION and field.kind != Kind.HOP and field.kind != Kind.UPGRADE \
            and field.kind != Kind.KEEP_ALIVE \
            and field.kind != Kind.TICKET_LOGIN and field.kind != Kind.TICKET_LOGOUT \
            and field.kind != Kind.TICKET_REMEMBER and field.kind != Kind.TICKET_ROTATE and field.kind != Kind.LIFETIME

    cdef bint _may_set(self, const Conn *d, const uint8_t *at, const Field *field, bint has_ours) noexcept nogil:
        """Whether a cookie that an upstream sets is none of ours, or the upstream is one that may
        log in.
        """
        if not sets_cookie(at, field.value, self.cookie.at, self.cookie.size):
            return True
        if self.routes.table[d.route].logs_in and d.is_plain and not has_ours:
            return True
        self.counters.cookies_dropped += 1
        self._note(self.conns[d.peer].server, NULL)
        return False

    cdef void _open_tunnel(self, uint32_t index) noexcept nogil:
        """101: from here on bytes pass both ways unread, until both sides have closed."""
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[c.peer]
        cdef uint32_t early = d.held_size - d.head_size
        d.framing = Framing.UNTIL_CLOSE
        d.complete = False
        d.closes = True
        c.sends_chunks = False
        c.is_parted = False
        c.state = State.TUNNELLING
        d.state = State.TUNNELLING
        memset(&d.frames, 0, sizeof(Frames))
        d.is_used = early and self._is_use(d, d.held + d.head_size, early)
        self._account(d, False)
        self.counters.tunnels += 1
        self._set_timer(index, Timer.TUNNEL)
        if d.is_admitted:
            self._set_timer(c.peer, Timer.VOUCH)
        if early and not self._send(index, d.held + d.head_size, early):
            self._abort(index)
            return
        d.held_is_whole = False
        d.held_size = 0
        self._pump(index)

    cdef bint _part(self, uint32_t index) noexcept nogil:
        """A close frame to the client of a tunnel, between two frames of its upstream. Its answer
        passes, and so both sides end it.
        """
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[c.peer]
        if c.is_parted or c.frames.has_closed or c.complete or d.upgrade != self.websocket or d.unsent != NULL:
            return False
        if not is_between(&c.frames):
            return False
        c.is_parted = True
        if not self._send(c.peer, close_frame(), CLOSE_FRAME_BYTES):
            self._abort(index)
        return True

    cdef void _finish(self, uint32_t index) noexcept nogil:
        """The response is complete: part the two connections."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        self._clear_timer(index)
        self._clear_timer(downstream)
        self._account(d, False)
        d.is_vouched = False
        d.peer = NONE
        c.peer = NONE
        if not d.complete:
            d.closes = True                         # an early answer: the rest of the request is not wanted
        if c.keeps_alive and d.complete and c.unsent == NULL and not c.send_failed and self._is_quiet(c):
            if c.is_personal:
                self._keep(index, downstream)
            else:
                self._pool(index)
        else:
            self._close(index)
        if d.unsent != NULL:
            self._flush_out(downstream)
        else:
            self._after_answer(downstream)


cdef bint _is_shortage(int error) noexcept nogil:
    """Of what a connection is made of, in this process or the whole machine."""
    return error == EMFILE or error == ENFILE or error == ENOBUFS or error == ENOMEM


cdef bint _awaits(const Conn *c, AskKind kind) noexcept nogil:
    """Whether the connection still waits for that answer."""
    if kind == AskKind.STILL_ALIVE:
        return c.is_vouched
    return c.state == (State.ASKING if kind < AskKind.LOGIN else State.HOOKED)


cdef uint64_t _ticket_key(const uint8_t *raw, int size) noexcept nogil:
    """By its tag, not by the session's id: which server a session has says nothing about its id
    (docs/decisions/0010).
    """
    cdef uint64_t key
    memcpy(&key, raw + size - TAG_BYTES, 8)
    return le64toh(key) | 1


cdef bint _is_same_person(const Conn *d, const Conn *kept) noexcept nogil:
    """Whether a request is of the principal that a connection is kept for; of somebody without a
    ticket only where none was before.
    """
    cdef uint8_t size = d.checked.raw[PRINCIPAL_LENGTH_AT]
    if not d.is_admitted or kept.checked.size == 0:
        return not d.is_admitted and kept.checked.size == 0
    return size == kept.checked.raw[PRINCIPAL_LENGTH_AT] and memcmp(
        d.checked.raw + PRINCIPAL_AT, kept.checked.raw + PRINCIPAL_AT, size) == 0


cdef int64_t _usable_ms(int keep_alive_s) noexcept nogil:
    """How long a connection is used again that its server closes after so long: less, for what is
    on its way then.
    """
    return keep_alive_s * <int64_t>1000 - min(1000, keep_alive_s * 500)


cdef bint _is_own_field(const uint8_t *name, uint32_t size, const Text *request_id) noexcept nogil:
    """Whether answers of our own say that themselves. `request_id`: the field that they may have,
    with ": ".
    """
    return reads_as(name, size, b"content-type", 12) or reads_as(name, size, b"cache-control", 13) \
        or reads_as(name, size, b"date", 4) or reads_as(name, size, b"location", 8) \
        or reads_as(name, size, b"retry-after", 11) or reads_as(name, size, b"www-authenticate", 16) \
        or request_id.size > 2 and reads_as(name, size, request_id.at, request_id.size - 2)


cdef bint _read_element(const uint8_t *at, uint32_t start, uint32_t end, uint8_t *address) noexcept nogil:
    """One of a list, without white space around it."""
    while start < end and (at[start] == c' ' or at[start] == c'\t'):
        start += 1
    while end > start and (at[end - 1] == c' ' or at[end - 1] == c'\t'):
        end -= 1
    return read_address(at + start, end - start, address)


cdef void _free_notes(Conn *c) noexcept nogil:
    """What was kept of a request until its answer."""
    free(c.agent)
    c.agent = NULL
    free(c.doubt)
    c.doubt = NULL


cdef Doubt *_doubt(bytes fields, bytes tickets) except? NULL:
    """To be freed. NULL: there is no memory, and so no clearing this time."""
    cdef Doubt *made = <Doubt *>malloc(sizeof(Doubt) + len(fields) + len(tickets))
    if made != NULL:
        made.text = <uint8_t *>made + sizeof(Doubt)
        made.fields_size = <uint32_t>len(fields)
        made.tickets_size = <uint32_t>len(tickets)
        memcpy(made.text, <const char *>fields, len(fields))
        memcpy(made.text + len(fields), <const char *>tickets, len(tickets))
    return made


cdef bint _begins_with_https(const uint8_t *at, Span value) noexcept nogil:
    """Of a list of schemes: what the client itself has used stands first."""
    return value.size >= 5 and equals(at, Span(value.at, 5), b"https", 5) \
        and (value.size == 5 or at[value.at + 5] == c',' or at[value.at + 5] == c' ')


cdef bint _can_be_sent_again(const Conn *d) noexcept nogil:
    """Whether all of a request is held, and doing it twice is as good as once (RFC 9110, 9.2.2)."""
    cdef Method method = d.method
    return d.held_is_whole and d.complete and (
        method == Method.GET or method == Method.HEAD or method == Method.OPTIONS
        or method == Method.PUT or method == Method.DELETE
    )


cdef inline bint _goes_upstream(const Conn *c, const Field *field) noexcept nogil:
    """What we have a meaning for is written by us, or not at all."""
    return field.kind == Kind.OTHER or field.kind == Kind.COOKIE or field.kind == Kind.AUTHORIZATION \
        or field.kind == Kind.ACCEPT or field.kind == Kind.WEBSOCKET_KEY or field.kind == Kind.NO_USE \
        or field.kind == Kind.SET_COOKIE or field.kind == Kind.AUTHENTICATE \
        or field.kind == Kind.FORWARDED and c.is_trusted


cdef inline bint _came_as_it_goes(const uint8_t *at, const Field *field) noexcept nogil:
    """As `name: value CRLF`."""
    return field.value.at == field.name.at + field.name.size + 2 and at[field.value.at - 1] == c' ' \
        and at[field.value.at + field.value.size] == c'\r'


cdef bint _is_called(const uint8_t *at, const Field *field, const char *name) noexcept nogil:
    """Whether somebody could take the field for that one."""
    return reads_as(at + field.name.at, field.name.size, <const uint8_t *>name, <uint32_t>strlen(name))


cdef bint _is_printable(const uint8_t *at, Span span) noexcept nogil:
    """ASCII without spaces."""
    cdef uint32_t i
    for i in range(span.at, span.at + span.size):
        if not 0x20 < at[i] < 0x7F:
            return False
    return True


cdef bint _contains(const uint8_t *at, Span span, const char *lower, uint32_t size) noexcept nogil:
    cdef uint32_t i
    if span.size < size:
        return False
    for i in range(span.size - size + 1):
        if equals(at, Span(span.at + i, size), lower, size):
            return True
    return False


# ----------------------------------------------------------------------------------------- counters

def read_counters(const uint8_t[::1] page not None):
    """What a `Proxy` writes into its page, from whatever process."""
    cdef Counters counters
    cdef int i
    if page.shape[0] < <Py_ssize_t>COUNTERS_BYTES:
        raise ValueError(f"counters have {COUNTERS_BYTES} bytes, not {page.shape[0]}")
    memcpy(&counters, &page[0], sizeof(Counters))
    return {
        "accepted": counters.accepted,
        "over_client_limit": counters.over_client_limit,
        "proxy_headers_refused": counters.proxy_headers_refused,
        "requests": counters.requests,
        "admitted": counters.admitted,
        "anonymous": counters.anonymous,
        "responses": counters.responses,
        "bad_requests": counters.bad_requests,
        "upstream_connects": counters.upstream_connects,
        "upstream_errors": counters.upstream_errors,
        "upstream_timeouts": counters.upstream_timeouts,
        "retries": counters.retries,
        "queue_full": counters.queue_full,
        "timeouts": counters.timeouts,
        "tunnels": counters.tunnels,
        "cut": counters.cut,
        "cut_short": counters.cut_short,
        "forged": counters.forged,
        "full": counters.full,
        "out_of_descriptors": counters.out_of_descriptors,
        "cookies_dropped": counters.cookies_dropped,
        "refused": {v.reason: counters.refused[<int>v.value] for v in _Verdict if counters.refused[<int>v.value]},
        "answers": {f"{i}xx": counters.answers[i] for i in range(1, 6)},
        "latency_us": [
            (None if i == LATENCY_BUCKETS - 1 else 1 << i, counters.latency[i]) for i in range(LATENCY_BUCKETS)
        ],
        "latency_us_sum": counters.latency_us_sum,
    }
