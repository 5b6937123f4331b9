# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The data plane: an epoll of its own, driven from one event-loop callback, without the GIL.

    turn()      every ready socket: recv -> head -> ticket -> patched head -> send
    tick()      what took too long
    asks()      what only the control plane can answer (load a session, log in, log out); it answers by handle

Structure
    A *connection* is a slot of a fixed table; a handle is its number and its generation, so what is said about a closed connection
    never reaches the next one in its slot, and a slot closed in a turn is not used again before the turn ends. An *exchange* is a
    downstream and an upstream connection that are each other's peer, from the forwarding of a request to the end of its response.

Rules of this file
    - Sockets are edge-triggered. `readable` remembers what the kernel will not say again; a read shorter than asked for clears it,
      unless the other side has hung up: then only the end itself does.
    - A request is kept as it came (`held`) until its body is streamed or its response begins: to wait for a verdict or a
      connection, and to be sent again, it is read again. What goes upstream is written anew from what was understood.
    - Bodies pass through one shared buffer. What the next kernel buffer does not take is kept (`unsent`), and nothing more is read
      from the other side until it has gone: so at most one buffer a direction is in flight.
    - Each kind of wait has one length, so each has one queue, sorted by itself. A deadline is set once and is not extended by
      bytes; bodies must keep a minimum rate instead.
    - Answers of our own (4xx, 5xx) end the connection unless the request was read to its end.
"""

cimport cython
from libc.errno cimport EAGAIN, ECONNABORTED, EINPROGRESS, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strlen

from fastticket.core.http1 cimport (
    INCOMPLETE,
    Field,
    Kind,
    dechunk,
    equals,
    find_cookie,
    is_nominated,
    normal_path,
    parse_request,
    parse_response,
)
from fastticket.core.sockets cimport *
from fastticket.core.ticket cimport encode
from fastticket.core.wire cimport PRINCIPAL_AT, PRINCIPAL_LENGTH_AT, TEXT_CHARS_MAX

import os

from fastticket.errors import Verdict as _Verdict

cdef extern from "<time.h>" nogil:
    ctypedef int clockid_t
    struct timespec:
        long tv_sec
        long tv_nsec
    const clockid_t CLOCK_MONOTONIC_COARSE
    int clock_gettime(clockid_t clock, timespec *out)

cdef enum:
    NONE = 0xFFFFFFFF
    HEAD_BYTES_MAX = 16384              # of a request; also the size of a block
    RESPONSE_HEAD_BYTES_MAX = 32768
    SCRATCH_BYTES = 65536               # read at once
    CHUNK_HEADER_BYTES = 16             # room for one before what was read
    CHUNK_END_BYTES = 16                # and for what ends it after
    EXTRA_BYTES_MAX = 8192              # of fields that the control plane adds
    BLOCKS_KEPT_MAX = 256
    READS_MAX = 16                      # from one connection in one turn
    ACCEPTS_MAX = 64
    IDLE_MAX = 256                      # pooled connections a server
    ACCEPT_PAUSE_MS = 100
    SERVER_PAUSE_MS = 1000
    SERVER_PAUSE_MAX_MS = 10000

ASK_AUTHENTICATE, ASK_LOGIN, ASK_LOGOUT, ASK_LOGOUT_EVERYWHERE = range(4)

AUTH = {"none": Auth.AUTH_NONE, "optional": Auth.AUTH_OPTIONAL, "required": Auth.AUTH_REQUIRED}

# What each timer bounds, and its default, s.
TIMEOUTS_S = {
    "keep_alive": (Timer.KEEP_ALIVE, 75),
    "request_head": (Timer.HEAD_IN, 10),
    "verdict": (Timer.ASKED, 30),
    "upstream_connect": (Timer.CONNECT, 5),
    "upstream_first_byte": (Timer.FIRST_BYTE, 60),
    "request_body_window": (Timer.REQUEST_BODY, 10),
    "response_body_window": (Timer.RESPONSE_BODY, 60),
    "linger": (Timer.LINGER, 2),
    "upstream_idle": (Timer.POOL, 30),
}


cdef inline int64_t _monotonic_ms() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t)
    return <int64_t>t.tv_sec * 1000 + t.tv_nsec // 1_000_000


cdef const char *_phrase(int status) noexcept nogil:
    if status == 302:
        return b"Found"
    if status == 400:
        return b"Bad Request"
    if status == 401:
        return b"Unauthorized"
    if status == 403:
        return b"Forbidden"
    if status == 404:
        return b"Not Found"
    if status == 405:
        return b"Method Not Allowed"
    if status == 408:
        return b"Request Timeout"
    if status == 414:
        return b"URI Too Long"
    if status == 417:
        return b"Expectation Failed"
    if status == 431:
        return b"Request Header Fields Too Large"
    if status == 501:
        return b"Not Implemented"
    if status == 502:
        return b"Bad Gateway"
    if status == 503:
        return b"Service Unavailable"
    if status == 504:
        return b"Gateway Timeout"
    if status == 505:
        return b"HTTP Version Not Supported"
    return b"Error"


cdef const char *_slug(int verdict) noexcept nogil:
    if verdict == Verdict.MALFORMED:
        return b"malformed"
    if verdict == Verdict.UNKNOWN_KEY:
        return b"unknown_key"
    if verdict == Verdict.BAD_SIGNATURE:
        return b"bad_signature"
    if verdict == Verdict.EXPIRED:
        return b"expired"
    if verdict == Verdict.IDLE:
        return b"idle"
    if verdict == Verdict.REVOKED:
        return b"revoked"
    if verdict == Verdict.MISSING:
        return b"missing"
    if verdict == Verdict.AMBIGUOUS:
        return b"ambiguous"
    return b"store_unavailable"


cdef Text _text(bytes value):
    """Borrowed: the caller keeps `value`."""
    return Text(<const uint8_t *><const char *>value, <uint32_t>len(value))


@cython.final
cdef class Proxy:
    # ------------------------------------------------------------------------------------------------------- control

    def __cinit__(
        self,
        Checker checker not None,
        *,
        connections_max=10000,
        cookie="ticket",
        identity_field="X-Forwarded-User",
        login_url="",
        keeps_host=False,
        timeouts_s=None,
        request_rate_min=500,
        response_rate_min=500,
    ):
        cdef uint32_t i
        self.epoll_fd = -1
        self.checker = checker
        self.names = Names((identity_field,))
        self.texts = (cookie.encode("ascii"), identity_field.encode("ascii") + b": ", login_url.encode("ascii"))
        self.cookie = _text(self.texts[0])
        self.identity_field = _text(self.texts[1])
        self.login_url = _text(self.texts[2])
        self.keeps_host = keeps_host
        self.downstream_max = connections_max
        self.conn_count = 2 * connections_max + 64          # an upstream one for each, and the listeners
        self.request_rate_min = request_rate_min
        self.response_rate_min = response_rate_min
        for name, (timer, seconds) in TIMEOUTS_S.items():
            self.timer_ms[<int>timer] = int((timeouts_s or {}).get(name, seconds) * 1000)
        for i in range(<uint32_t>TIMERS):
            self.timer_first[i] = NONE
            self.timer_last[i] = NONE
        self.conns = <Conn *>calloc(self.conn_count, sizeof(Conn))
        self.scratch = <uint8_t *>malloc(CHUNK_HEADER_BYTES + SCRATCH_BYTES + CHUNK_END_BYTES)
        self.out = <uint8_t *>malloc(3 * RESPONSE_HEAD_BYTES_MAX + EXTRA_BYTES_MAX + SCRATCH_BYTES + 4096)
        self.ask_list = <Ask *>malloc(self.conn_count * sizeof(Ask))
        self.again = <uint64_t *>malloc(2 * self.conn_count * sizeof(uint64_t))
        if not self.conns or not self.scratch or not self.out or not self.ask_list or not self.again:
            raise MemoryError(f"no memory for {connections_max} connections")
        self.freed_first = NONE
        self.free_first = 0
        for i in range(self.conn_count):
            self.conns[i].fd = -1
            self.conns[i].pool_next = i + 1 if i + 1 < self.conn_count else <uint32_t>NONE
        self.accepts = True
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll_fd < 0:
            raise OSError(errno, os.strerror(errno), "epoll_create1")

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

    def add_group(self, servers):
        """Upstream servers that share the requests: (host, port), numeric, or a Unix socket's path. Returns the group's number."""
        cdef Group *group = &self.groups[self.group_count]
        if self.group_count == GROUPS_MAX or not servers or self.server_count + len(servers) > SERVERS_MAX:
            raise ValueError(f"at most {GROUPS_MAX} upstreams and {SERVERS_MAX} servers, and no upstream without a server")
        group.first = self.server_count
        group.count = len(servers)
        for server in servers:
            self._add_server(server)
        self.group_count += 1
        return self.group_count - 1

    def _add_server(self, server):
        cdef Server *at = &self.servers[self.server_count]
        cdef sockaddr_un *unix_address = <sockaddr_un *>&at.address
        cdef sockaddr_in *v4 = <sockaddr_in *>&at.address
        cdef sockaddr_in6 *v6 = <sockaddr_in6 *>&at.address
        cdef bytes name
        memset(at, 0, sizeof(Server))
        at.idle_first = NONE
        if isinstance(server, str):
            name = os.fsencode(server)
            if len(name) >= <Py_ssize_t>sizeof(unix_address.sun_path):
                raise ValueError(f"the path of a Unix socket has at most {sizeof(unix_address.sun_path) - 1} bytes: {server}")
            unix_address.sun_family = AF_UNIX
            memcpy(unix_address.sun_path, <const char *>name, len(name))
            at.address_size = sizeof(sockaddr_un)
        else:
            host, port = server
            name = host.encode("ascii")
            if inet_pton(AF_INET, name, &v4.sin_addr) == 1:
                v4.sin_family = AF_INET
                v4.sin_port = htons(port)
                at.address_size = sizeof(sockaddr_in)
            elif inet_pton(AF_INET6, name, &v6.sin6_addr) == 1:
                v6.sin6_family = AF_INET6
                v6.sin6_port = htons(port)
                at.address_size = sizeof(sockaddr_in6)
            else:
                raise ValueError(f"not a numeric address: {host}")
        self.server_count += 1

    def add_route(self, path, auth, group, *, touches=True, logs_in=False):
        """Requests whose normal path is `path` or below it. Longer paths must be added before shorter ones."""
        cdef Route *route = &self.routes[self.route_count]
        cdef bytes prefix = path.encode("ascii")
        if self.route_count == ROUTES_MAX or not prefix.startswith(b"/") or len(prefix) > ROUTE_PATH_MAX:
            raise ValueError(f"at most {ROUTES_MAX} routes, each a path of at most {ROUTE_PATH_MAX} bytes: {path}")
        if group is not None and not 0 <= group < self.group_count:
            raise ValueError(f"there is no upstream group {group}")
        if group is None and AUTH[auth] != Auth.AUTH_REQUIRED:
            raise ValueError(f"{path}: without an upstream, a ticket is all there is to answer for")
        if self.route_count and len(prefix) > self.routes[self.route_count - 1].path_size:
            raise ValueError(f"{path} is longer than the route before it")
        route.path_size = len(prefix)
        memcpy(route.path, <const char *>prefix, len(prefix))
        route.auth = AUTH[auth]
        route.touches = touches
        route.logs_in = logs_in
        route.is_endpoint = group is None
        route.group = group or 0
        self.route_count += 1

    def trust(self, networks):
        """Clients whose X-Forwarded-* and Forwarded fields are believed: ipaddress networks, or the word "unix"."""
        cdef Network *at
        for network in networks:
            if network == "unix":
                self.trusts_unix = True
                continue
            if self.network_count == NETWORKS_MAX:
                raise ValueError(f"at most {NETWORKS_MAX} trusted networks")
            at = &self.networks[self.network_count]
            packed = network.network_address.packed
            mapped = bytes(10) + b"\xff\xff" + packed if len(packed) == 4 else packed
            memcpy(at.address, <const char *><bytes>mapped, 16)
            at.bits = network.prefixlen + (96 if len(packed) == 4 else 0)
            self.network_count += 1

    def turn(self):
        """Serve every ready socket. True: there is more to do at once."""
        with nogil:
            self._turn()
        return self.again_count > 0

    def tick(self):
        """End what took too long. Call a few times a second."""
        with nogil:
            self._tick()

    def stop_accepting(self):
        """Let go of the listeners, which may then be closed. Every connection closes after its next answer."""
        self.draining = True
        self._set_accepting(False)

    def drain(self):
        """Close idle connections."""
        cdef uint32_t i
        for i in range(self.conn_count):
            if self.conns[i].side == Side.DOWNSTREAM and self.conns[i].state == State.IDLE:
                self._close(i)
        self._reclaim()

    def asks(self):
        """What the control plane is asked since the last call: (kind, handle, ticket, value, host).

        ASK_AUTHENTICATE: value says whether the request counts as a use; answer with `admit` or `refuse`.
        ASK_LOGIN (value: the principal), ASK_LOGOUT, ASK_LOGOUT_EVERYWHERE: answer with `relay` or `fail`.
        """
        cdef uint32_t i
        cdef Ask *ask
        cdef Conn *c
        cdef list result = []
        cdef uint8_t[TEXT_CHARS_MAX] text
        cdef int chars
        for i in range(self.ask_count):
            ask = &self.ask_list[i]
            c = &self.conns[ask.index]
            if c.generation != ask.generation or c.side != Side.DOWNSTREAM \
                    or c.state != (State.ASKING if ask.kind == AskKind.AUTHENTICATE else State.HOOKED):
                continue                                # it was closed, or answered by a timeout, in between
            chars = encode(c.checked.raw, c.checked.size, text) if c.checked.size else 0
            if ask.kind == AskKind.AUTHENTICATE:
                value = bool(self.routes[c.route].touches)
            else:
                value = (<char *>self.conns[c.peer].held)[ask.value.at:ask.value.at + ask.value.size]
            result.append((ask.kind, self._handle(ask.index), (<char *>text)[:chars].decode("ascii"), value,
                           c.host[:c.host_size].decode("ascii")))
        self.ask_count = 0
        return result

    def admit(self, handle):
        """The ticket is alive: forward the request."""
        cdef uint32_t index = self._find(handle, State.ASKING)
        if index != NONE:
            self._begin_now()
            self.counters.admitted += 1
            self.conns[index].is_admitted = True
            self._forward(index, False)
            self._resume(index)
            self._reclaim()

    def refuse(self, handle, verdict):
        """The ticket is not alive, or nobody knows: answer 401 or 503; where a ticket is optional, forward without identity."""
        cdef uint32_t index = self._find(handle, State.ASKING)
        if index != NONE:
            self._begin_now()
            self._refused(index, verdict.value, False)
            self._resume(index)
            self._reclaim()

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
            self._reclaim()

    def fail(self, handle, int status, slug):
        """Answer with an error in place of a response that waited."""
        cdef uint32_t index = self._find(handle, State.HOOKED)
        cdef bytes reason = slug.encode("ascii")
        if index != NONE:
            self._begin_now()
            self._fail(index, status, reason)
            self._resume(index)
            self._reclaim()

    @property
    def connection_count(self):
        return self.downstream_count

    @property
    def stats(self):
        """Counters since the start."""
        return {
            "accepted": self.counters.accepted,
            "requests": self.counters.requests,
            "admitted": self.counters.admitted,
            "responses": self.counters.responses,
            "bad_requests": self.counters.bad_requests,
            "upstream_connects": self.counters.upstream_connects,
            "upstream_errors": self.counters.upstream_errors,
            "upstream_timeouts": self.counters.upstream_timeouts,
            "retries": self.counters.retries,
            "timeouts": self.counters.timeouts,
            "refused": {v.reason: self.counters.refused[<int>v.value] for v in _Verdict if self.counters.refused[<int>v.value]},
        }

    cdef uint32_t _find(self, object handle, State state) except? 0:
        """The connection of a handle, or NONE: it is gone, or no longer in that state."""
        cdef uint64_t value = handle
        cdef uint32_t index = <uint32_t>value
        if index >= self.conn_count or self.conns[index].generation != <uint32_t>(value >> 32):
            return NONE
        if self.conns[index].side != Side.DOWNSTREAM or self.conns[index].state != state:
            return NONE
        return index

    cdef inline uint64_t _handle(self, uint32_t index) noexcept nogil:
        return <uint64_t>self.conns[index].generation << 32 | index

    cdef void _begin_now(self) noexcept nogil:
        self.now_ms = _monotonic_ms()

    # --------------------------------------------------------------------------------------------------- connections

    cdef uint32_t _new_conn(self, int fd, Side side) noexcept nogil:
        cdef uint32_t index = self.free_first
        cdef uint32_t generation
        cdef Conn *c
        if index == NONE:
            return NONE
        c = &self.conns[index]
        self.free_first = c.pool_next
        generation = c.generation
        memset(c, 0, sizeof(Conn))
        c.generation = generation
        c.fd = fd
        c.side = side
        c.peer = NONE
        c.complete = True
        c.timer_next = NONE
        c.timer_previous = NONE
        c.pool_next = NONE
        c.pool_previous = NONE
        if side == Side.DOWNSTREAM:
            self.downstream_count += 1
        return index

    cdef void _close(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.side == Side.FREE:
            return
        self._clear_timer(index)
        if c.state == State.POOLED and c.side == Side.UPSTREAM:
            self._unpool(index)
        if c.side == Side.DOWNSTREAM:
            self.downstream_count -= 1
            self._give_block(c.held)
        else:
            free(c.held)
        free(c.unsent)
        c.held = NULL
        c.unsent = NULL
        if c.side != Side.LISTENER:
            close(c.fd)
        c.fd = -1
        c.side = Side.FREE
        c.generation += 1
        c.pool_next = self.freed_first
        self.freed_first = index

    cdef void _reclaim(self) noexcept nogil:
        """The turn is over: nothing speaks of the closed connections any more, their slots can be used."""
        cdef uint32_t index
        while self.freed_first != NONE:
            index = self.freed_first
            self.freed_first = self.conns[index].pool_next
            self.conns[index].pool_next = self.free_first
            self.free_first = index

    cdef bint _watch(self, uint32_t index, uint32_t events, int operation) noexcept nogil:
        cdef epoll_event event
        event.events = events
        event.data.u64 = self._handle(index)
        return epoll_ctl(self.epoll_fd, operation, self.conns[index].fd, &event) == 0

    cdef uint8_t *_take_block(self) noexcept nogil:
        cdef uint8_t *block = self.block_first
        if block == NULL:
            return <uint8_t *>malloc(HEAD_BYTES_MAX)
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

    # -------------------------------------------------------------------------------------------------------- timers

    cdef void _set_timer(self, uint32_t index, Timer timer) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        self._clear_timer(index)
        c.timer = timer
        c.deadline_ms = self.now_ms + self.timer_ms[<int>timer]
        c.timer_next = NONE
        c.timer_previous = self.timer_last[<int>timer]
        if c.timer_previous != NONE:
            self.conns[c.timer_previous].timer_next = index
        else:
            self.timer_first[<int>timer] = index
        self.timer_last[<int>timer] = index

    cdef void _clear_timer(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.timer == Timer.NO_TIMER:
            return
        if c.timer_previous != NONE:
            self.conns[c.timer_previous].timer_next = c.timer_next
        else:
            self.timer_first[<int>c.timer] = c.timer_next
        if c.timer_next != NONE:
            self.conns[c.timer_next].timer_previous = c.timer_previous
        else:
            self.timer_last[<int>c.timer] = c.timer_previous
        c.timer = Timer.NO_TIMER

    cdef void _tick(self) noexcept nogil:
        cdef int timer
        cdef uint32_t index
        self.now_ms = _monotonic_ms()
        for timer in range(1, TIMERS):
            while self.timer_first[timer] != NONE and self.conns[self.timer_first[timer]].deadline_ms <= self.now_ms:
                index = self.timer_first[timer]
                self._clear_timer(index)
                self._on_timeout(index, <Timer>timer)
        if not self.accepts and not self.draining and self.now_ms >= self.accepts_again_ms:
            if self.downstream_count < self.downstream_max:
                self._set_accepting(True)
        self._reclaim()

    cdef void _on_timeout(self, uint32_t index, Timer timer) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer if c.side == Side.UPSTREAM else index
        if timer == Timer.KEEP_ALIVE or timer == Timer.LINGER or timer == Timer.POOL:
            self._close(index)
            return
        if timer == Timer.REQUEST_BODY and self._request_flows(index):
            return
        if timer == Timer.RESPONSE_BODY and self._response_flows(index):
            return
        if c.side == Side.UPSTREAM:
            self.counters.upstream_timeouts += 1
            if timer == Timer.CONNECT:
                self._connect_failed(index)
            else:
                self._fail(downstream, 504, b"upstream_timeout")
        else:
            self.counters.timeouts += 1
            if timer == Timer.HEAD_IN:
                self._reject(index, 408, b"request_timeout")
            elif timer == Timer.ASKED:
                self._fail(index, 503, b"store_unavailable")
            elif timer == Timer.REQUEST_BODY and self.conns[c.peer].unsent != NULL:
                self._fail(index, 504, b"upstream_timeout")
            elif timer == Timer.REQUEST_BODY:
                self._fail(index, 408, b"request_timeout")
            else:
                self._close(index)
        self._resume(downstream)

    cdef bint _request_flows(self, uint32_t index) noexcept nogil:
        """Whether a request body kept its minimum rate, or the upstream took some of what it is too slow for."""
        cdef Conn *c = &self.conns[index]
        cdef Conn *upstream = &self.conns[c.peer]
        cdef uint64_t wanted = self.request_rate_min * <uint64_t>self.timer_ms[<int>Timer.REQUEST_BODY] // 1000
        cdef bint flows = upstream.window_bytes > 0 if upstream.unsent != NULL else c.window_bytes >= wanted
        if flows:
            c.window_bytes = 0
            upstream.window_bytes = 0
            self._set_timer(index, Timer.REQUEST_BODY)
        return flows

    cdef bint _response_flows(self, uint32_t index) noexcept nogil:
        """Whether the client kept its minimum rate; when it is not the one we wait for, whether the upstream sent anything at all."""
        cdef Conn *c = &self.conns[index]
        cdef Conn *client = c if c.side == Side.DOWNSTREAM else &self.conns[c.peer]
        cdef uint64_t wanted = self.response_rate_min * <uint64_t>self.timer_ms[<int>Timer.RESPONSE_BODY] // 1000
        cdef bint flows = client.window_bytes >= (wanted if client.unsent != NULL else 1)
        if c.state == State.TUNNELLING:
            flows = flows or c.window_bytes > 0
        if flows:
            client.window_bytes = 0
            c.window_bytes = 0
            self._set_timer(index, Timer.RESPONSE_BODY)
        return flows

    # ---------------------------------------------------------------------------------------------------------- turn

    cdef void _turn(self) noexcept nogil:
        cdef int i
        cdef int count = epoll_wait(self.epoll_fd, self.events, EVENTS_MAX, 0)
        cdef uint32_t again = self.again_count
        cdef uint32_t index
        cdef uint32_t k
        self.now_ms = _monotonic_ms()
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
        self._reclaim()

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
        """A short read has emptied the socket, and the kernel will say when there is more; but not again that it has ended."""
        if <uint32_t>size < room and not c.hung_up:
            c.readable = False

    cdef void _later(self, uint32_t index) noexcept nogil:
        """Fairness: this one has had its share of the turn."""
        if self.again_count < 2 * self.conn_count:
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
                self._set_accepting(False)      # the backlog waits; `_tick` looks again
                return
            size = sizeof(address)
            fd = accept4(listener, <sockaddr *>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno == ECONNABORTED or errno == EINTR:
                    continue
                if errno == EMFILE or errno == ENFILE or errno == ENOBUFS or errno == ENOMEM:
                    self.accepts_again_ms = self.now_ms + ACCEPT_PAUSE_MS
                    self._set_accepting(False)
                return
            index = self._new_conn(fd, Side.DOWNSTREAM)
            if index == NONE:
                close(fd)
                return
            if not self._watch(index, EPOLLIN | EPOLLRDHUP | EPOLLET, EPOLL_CTL_ADD):
                self._close(index)
                return
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
            self._remember_client(&self.conns[index], &address)
            self._set_timer(index, Timer.KEEP_ALIVE)
            self.counters.accepted += 1

    cdef void _set_accepting(self, bint accepts) noexcept nogil:
        cdef uint32_t i
        self.accepts = accepts
        for i in range(self.conn_count):
            if self.conns[i].side == Side.LISTENER:
                self._watch(i, EPOLLIN, EPOLL_CTL_ADD if accepts else EPOLL_CTL_DEL)

    cdef void _remember_client(self, Conn *c, const sockaddr_storage *address) noexcept nogil:
        """Its address as text, and whether it is one of our proxies."""
        cdef uint8_t[16] mapped
        cdef int i
        if address.ss_family == AF_UNIX:
            c.is_trusted = self.trusts_unix
            return
        memset(mapped, 0, 10)
        mapped[10] = mapped[11] = 0xFF
        if address.ss_family == AF_INET:
            memcpy(mapped + 12, &(<const sockaddr_in *>address).sin_addr, 4)
        else:
            memcpy(mapped, &(<const sockaddr_in6 *>address).sin6_addr, 16)
        if _shares_prefix(mapped, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 96):
            inet_ntop(AF_INET, mapped + 12, c.address, sizeof(c.address))
        else:
            inet_ntop(AF_INET6, mapped, c.address, sizeof(c.address))
        c.address_size = <uint8_t>strlen(c.address)
        for i in range(self.network_count):
            if _shares_prefix(mapped, <const char *>self.networks[i].address, self.networks[i].bits):
                c.is_trusted = True

    # ------------------------------------------------------------------------------------------------------- sending

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
            c.window_bytes += sent
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
        c.window_bytes += sent
        c.unsent_at += <uint32_t>sent
        if c.unsent_at < c.unsent_size:
            return
        free(c.unsent)
        c.unsent = NULL
        c.unsent_at = c.unsent_size = 0
        if c.state == State.FLUSHING:
            self._after_answer(index)
        elif c.peer != NONE:
            self._pump(c.peer)

    cdef void _send_failed(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.side == Side.DOWNSTREAM or c.state == State.TUNNELLING:
            self._abort(index)
            return
        # The upstream takes no more of the request. It may have answered before it closed: look at that first.
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

    # ------------------------------------------------------------------------------------------- downstream: requests

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
        room = HEAD_BYTES_MAX - c.held_size
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
            or c.held_size == HEAD_BYTES_MAX
        ):
            self._serve(index)

    cdef void _serve(self, uint32_t index) noexcept nogil:
        """Serve requests from what is held, until one has to wait or its head is not all there."""
        cdef Conn *c = &self.conns[index]
        cdef int result
        while c.side == Side.DOWNSTREAM and c.state == State.READING_HEAD:
            c.held_is_whole = False
            result = parse_request(self.names, c.held, c.held_size, &self.head)
            if result == INCOMPLETE:
                if c.held_size == HEAD_BYTES_MAX:
                    self._reject(index, 431, b"head_too_large")
                return
            if result < 0:
                self._reject(index, -result, b"bad_request")
                return
            self._begin(index)

    cdef void _begin(self, uint32_t index) noexcept nogil:
        """`self.head` has just been read from `held`."""
        cdef Conn *c = &self.conns[index]
        cdef Head *head = &self.head
        self.counters.requests += 1
        c.head_size = head.size
        c.body_size = 0
        c.held_is_whole = True
        c.method = head.method
        c.minor = head.minor
        c.websocket = head.websocket
        c.closes = head.close or head.minor == 0 and not head.keep_alive
        c.retried = False
        c.answered = False
        c.is_admitted = False
        c.attempts = 0
        c.checked.size = 0
        if not self._begin_body(c):
            self._reject(index, 400, b"bad_request")
            return
        if not self._route(c):
            self._respond(index, 404, b"no_route", b"")
            return
        if c.auth == Auth.AUTH_NONE:
            self._forward(index, True)
        else:
            self._check(index)

    cdef bint _begin_body(self, Conn *c) noexcept nogil:
        """Take what came of the body together with the head; a chunked one is decoded in place. False: malformed."""
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
            c.complete = done == 1
            memmove(body + produced, body + consumed, there - consumed)
            c.held_size -= consumed - produced
        return True

    cdef bint _route(self, Conn *c) noexcept nogil:
        """Find the route by the normal path. An ambiguous path needs a ticket, whatever the route says. False: there is none."""
        cdef uint8_t[HEAD_BYTES_MAX] normal
        cdef const uint8_t *path = c.held + self.head.path.at
        cdef int size = <int>self.head.path.size
        cdef bint is_plain = True
        cdef Route *route
        cdef uint16_t i
        if self.head.target_is_bare or size and path[0] == c'*':
            path = b"/"
            size = 1
        elif memchr(path, c'%', size) != NULL or normal_path(path, size, normal) < 0:
            size = normal_path(path, size, normal)
            is_plain = size >= 0
            if is_plain:
                path = normal
            else:
                size = <int>self.head.path.size
        for i in range(self.route_count):
            route = &self.routes[i]
            if size < route.path_size or memcmp(path, route.path, route.path_size) != 0:
                continue
            if size == route.path_size or path[route.path_size] == c'/' or route.path[route.path_size - 1] == c'/':
                c.route = i
                c.auth = route.auth if is_plain else <uint8_t>Auth.AUTH_REQUIRED
                return True
        return False

    cdef void _check(self, uint32_t index) noexcept nogil:
        """The ticket, from the cookie or `Authorization: Ticket`: exactly one."""
        cdef Conn *c = &self.conns[index]
        cdef Span ticket = Span(0, 0)
        cdef int tickets = self._find_tickets(c, &ticket)
        cdef Verdict verdict
        if tickets == 0:
            verdict = Verdict.MISSING
        elif tickets > 1:
            verdict = Verdict.AMBIGUOUS
        else:
            verdict = self.checker.judge(
                c.held + ticket.at, ticket.size, self.checker.now(), self.routes[c.route].touches, &c.checked)
        if verdict == Verdict.HIT:
            self.counters.admitted += 1
            c.is_admitted = True
            self._forward(index, True)
        elif verdict == Verdict.MISS or verdict == Verdict.REFRESH:
            c.state = State.ASKING
            self._set_timer(index, Timer.ASKED)
            self._ask(index, AskKind.AUTHENTICATE, Span(0, 0))
        else:
            self._refused(index, verdict, True)

    cdef int _find_tickets(self, Conn *c, Span *ticket) noexcept nogil:
        cdef Field *field
        cdef Span scheme
        cdef int tickets = 0
        cdef int i
        for i in range(self.head.field_count):
            field = &self.head.fields[i]
            if field.kind == Kind.COOKIE:
                tickets += find_cookie(c.held, field.value, self.cookie.at, self.cookie.size, ticket)
            elif field.kind == Kind.AUTHORIZATION and field.value.size > 7:
                scheme = Span(field.value.at, 7)
                if equals(c.held, scheme, b"ticket ", 7):
                    tickets += 1
                    ticket[0] = Span(field.value.at + 7, field.value.size - 7)
        return tickets

    cdef void _ask(self, uint32_t index, AskKind kind, Span value) noexcept nogil:
        cdef Ask *ask = &self.ask_list[self.ask_count]
        ask.index = index
        ask.generation = self.conns[index].generation
        ask.kind = <uint8_t>kind
        ask.value = value
        self.ask_count += 1

    cdef void _refused(self, uint32_t index, int verdict, bint parsed) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef char[512] fields
        cdef int status = 401
        self.counters.refused[verdict] += 1
        c.checked.size = 0
        if c.auth == Auth.AUTH_OPTIONAL and verdict != Verdict.AMBIGUOUS and verdict != Verdict.STORE_UNAVAILABLE:
            self._forward(index, parsed)
            return
        if verdict == Verdict.AMBIGUOUS:
            c.closes = True                     # as with every request that can be read in two ways
            status = 403 if self.routes[c.route].is_endpoint else 400
            fields[0] = 0
        elif verdict == Verdict.STORE_UNAVAILABLE:
            status = 503
            snprintf(fields, sizeof(fields), b"Retry-After: 1\r\n")
        elif self.login_url.size and not self.routes[c.route].is_endpoint and self._is_browser(c, parsed):
            status = 302
            snprintf(fields, sizeof(fields), b"Location: %s\r\nCache-Control: no-store\r\n", <const char *>self.login_url.at)
        else:
            snprintf(fields, sizeof(fields), b"WWW-Authenticate: Ticket realm=\"fastticket\", error=\"%s\"\r\n", _slug(verdict))
        self._respond(index, status, _slug(verdict), fields)

    cdef bint _is_browser(self, Conn *c, bint parsed) noexcept nogil:
        """Somebody who would rather see the login page: GET or HEAD, and text/html is welcome."""
        cdef Field *field
        cdef int i
        if c.method != Method.GET and c.method != Method.HEAD:
            return False
        if not parsed:
            parse_request(self.names, c.held, c.held_size, &self.head)
        for i in range(self.head.field_count):
            field = &self.head.fields[i]
            if field.kind == Kind.ACCEPT and _contains(c.held, field.value, b"text/html", 9):
                return True
        return False

    # -------------------------------------------------------------------------------------------- answers of our own

    cdef void _reject(self, uint32_t index, int status, const char *slug) noexcept nogil:
        """A request that could not be read to its end: nothing after it on this connection can be trusted."""
        self.counters.bad_requests += 1
        self.conns[index].complete = False
        self.conns[index].held_is_whole = False
        self.conns[index].method = Method.OTHER_METHOD
        self._respond(index, status, slug, b"")

    cdef void _fail(self, uint32_t index, int status, const char *slug) noexcept nogil:
        """The exchange can not be completed. If its response has begun, the client learns it from the closed connection."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t upstream = c.peer
        if upstream != NONE:
            c.peer = NONE
            self.conns[upstream].peer = NONE
            self._close(upstream)
        if c.answered:
            self._close(index)
        else:
            self._respond(index, status, slug, b"")

    cdef void _respond(self, uint32_t index, int status, const char *slug, const char *fields) noexcept nogil:
        """An answer without an upstream: JSON, with the reason. `fields`: more field lines."""
        cdef Conn *c = &self.conns[index]
        cdef char[1536] answer
        cdef char[256] body
        cdef int size = snprintf(body, sizeof(body), b"{\"error\": \"%s\", \"reason\": \"%s\"}\n", _phrase(status), slug)
        cdef const char *shown = body
        cdef const char *connection = self._connection_field(c)
        if c.method == Method.HEAD:
            shown = b""
        size = snprintf(
            answer, sizeof(answer),
            b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s%s\r\n%s",
            status, _phrase(status), size, fields, connection, shown)
        self._deliver(index, <uint8_t *>answer, <uint32_t>size)

    cdef void _answer_identity(self, uint32_t index) noexcept nogil:
        """What another gateway has asked: the ticket is good, and whose it is."""
        cdef Conn *c = &self.conns[index]
        cdef const char *connection = self._connection_field(c)
        self.out_size = 0
        self._put(b"HTTP/1.1 204 No Content\r\n", 25)
        self._put(self.identity_field.at, self.identity_field.size)
        self._put(c.checked.raw + PRINCIPAL_AT, c.checked.raw[PRINCIPAL_LENGTH_AT])
        self._put(b"\r\n", 2)
        self._put(<const uint8_t *>connection, <uint32_t>strlen(connection))
        self._put(b"\r\n", 2)
        self._deliver(index, self.out, self.out_size)

    cdef const char *_connection_field(self, Conn *c) noexcept nogil:
        """Of an answer of our own; whether the connection stays is decided here."""
        if not c.complete or self.draining:
            c.closes = True
        if c.closes:
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if c.minor == 0 else b""

    cdef void _deliver(self, uint32_t index, const uint8_t *answer, uint32_t size) noexcept nogil:
        """An answer of our own, whole."""
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
        self.conns[index].window_bytes = 0
        self._set_timer(index, Timer.RESPONSE_BODY)

    cdef void _after_answer(self, uint32_t index) noexcept nogil:
        """The next request, or the end. Whatever of the next one was read already is `held` after this one."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t done = c.head_size + c.body_size if c.held_is_whole else 0
        if c.closes or self.draining:
            self._linger(index, c.held_size > done)
            return
        c.held_size -= done
        c.head_size = c.body_size = 0
        c.held_is_whole = c.held_size > 0           # `_resume` shall look at it
        if c.held_size:
            memmove(c.held, c.held + done, c.held_size)
            c.state = State.READING_HEAD
            self._set_timer(index, Timer.HEAD_IN)
        else:
            self._give_block(c.held)
            c.held = NULL
            c.state = State.IDLE
            self._set_timer(index, Timer.KEEP_ALIVE)

    cdef void _linger(self, uint32_t index, bint more_held) noexcept nogil:
        """Close so that the client sees the answer: unread bytes would turn the close into a reset (RFC 9112, 9.6)."""
        cdef Conn *c = &self.conns[index]
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
            self._received(c, size, SCRATCH_BYTES)
        self._later(index)

    # ------------------------------------------------------------------------------------------ upstream: connections

    cdef void _forward(self, uint32_t index, bint parsed) noexcept nogil:
        """Give the request to a server of its group, over a pooled connection if there is one."""
        cdef Conn *c = &self.conns[index]
        cdef Group *group = &self.groups[self.routes[c.route].group]
        cdef uint16_t server
        cdef uint32_t upstream
        if self.routes[c.route].is_endpoint:
            self._answer_identity(index)
            return
        while c.attempts <= group.count:
            c.attempts += 1
            server = self._pick(group)
            upstream = NONE if c.retried else self._unpool_alive(server, c.method)
            if upstream == NONE:
                upstream = self._connect(server)
                if upstream == NONE:
                    continue
            c.peer = upstream
            self.conns[upstream].peer = index
            if self.conns[upstream].state == State.CONNECTING:
                c.state = State.CONNECTING
                self._clear_timer(index)
            else:
                self._send_request(index, parsed)
            return
        self._fail(index, 502, b"upstream_refused")

    cdef uint16_t _pick(self, Group *group) noexcept nogil:
        """Round robin over the servers that answer; over all, if none does."""
        cdef uint16_t i
        cdef uint16_t server
        for i in range(group.count):
            server = group.first + (group.following + i) % group.count
            if self.servers[server].down_until_ms <= self.now_ms:
                group.following = (group.following + i + 1) % group.count
                return server
        server = group.first + group.following
        group.following = (group.following + 1) % group.count
        return server

    cdef uint32_t _connect(self, uint16_t server) noexcept nogil:
        """A new connection, perhaps still CONNECTING; NONE: it failed at once."""
        cdef Server *at = &self.servers[server]
        cdef int fd = socket(at.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        cdef int on = 1
        cdef bint waits
        cdef uint32_t index
        if fd < 0:
            return NONE
        if at.address.ss_family != AF_UNIX:
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        waits = connect(fd, <const sockaddr *>&at.address, at.address_size) != 0
        if waits and errno != EINPROGRESS:
            close(fd)
            self._server_failed(server)
            return NONE
        index = self._new_conn(fd, Side.UPSTREAM)
        if index == NONE:
            close(fd)
            return NONE
        self.conns[index].server = server
        self.conns[index].watches_out = waits
        if not self._watch(index, EPOLLIN | EPOLLRDHUP | EPOLLET | (EPOLLOUT if waits else 0), EPOLL_CTL_ADD):
            self._close(index)
            return NONE
        self.counters.upstream_connects += 1
        self.conns[index].state = State.CONNECTING if waits else State.AWAITING_HEAD
        if waits:
            self._set_timer(index, Timer.CONNECT)
        return index

    cdef void _connected(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef int error = 0
        cdef socklen_t size = sizeof(error)
        if getsockopt(c.fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 or error != 0:
            self._connect_failed(index)
            return
        self._clear_timer(index)
        self.servers[c.server].failures = 0
        self.servers[c.server].down_until_ms = 0
        self._send_request(c.peer, False)

    cdef void _connect_failed(self, uint32_t index) noexcept nogil:
        """Nothing of the request was sent: another server may have it, whatever its method."""
        cdef uint32_t downstream = self.conns[index].peer
        self._server_failed(self.conns[index].server)
        self.conns[downstream].peer = NONE
        self._close(index)
        self._forward(downstream, False)

    cdef void _server_failed(self, uint16_t server) noexcept nogil:
        cdef Server *at = &self.servers[server]
        self.counters.upstream_errors += 1
        at.failures = min(at.failures + 1, <uint32_t>1000)
        at.down_until_ms = self.now_ms + min(SERVER_PAUSE_MS * <int64_t>at.failures, <int64_t>SERVER_PAUSE_MAX_MS)

    cdef uint32_t _unpool_alive(self, uint16_t server, Method method) noexcept nogil:
        """A pooled connection, or NONE. A request that can not be sent twice gets one that was just seen to be open."""
        cdef Server *at = &self.servers[server]
        cdef uint32_t index
        while at.idle_first != NONE:
            index = at.idle_first
            self._unpool(index)
            self._clear_timer(index)
            if _is_idempotent(method):
                return index
            self.conns[index].readable = True           # ask the kernel
            if self._is_quiet(&self.conns[index]):
                return index
            self._close(index)
        return NONE

    cdef void _pool(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Server *server = &self.servers[c.server]
        if server.idle_count >= IDLE_MAX or self.draining:
            self._close(index)
            return
        free(c.held)
        c.held = NULL
        c.held_size = 0
        c.peer = NONE
        c.reused = True
        c.state = State.POOLED
        c.pool_previous = NONE
        c.pool_next = server.idle_first
        if server.idle_first != NONE:
            self.conns[server.idle_first].pool_previous = index
        server.idle_first = index
        server.idle_count += 1
        self._set_timer(index, Timer.POOL)

    cdef bint _is_quiet(self, Conn *c) noexcept nogil:
        """Whether nothing follows a response. After one whose end was read exactly, only the kernel knows."""
        cdef uint8_t byte
        if c.readable and recv(c.fd, &byte, 1, MSG_PEEK) < 0 and errno == EAGAIN:
            c.readable = False
        return not c.readable

    cdef void _unpool(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Server *server = &self.servers[c.server]
        if c.pool_previous != NONE:
            self.conns[c.pool_previous].pool_next = c.pool_next
        else:
            server.idle_first = c.pool_next
        if c.pool_next != NONE:
            self.conns[c.pool_next].pool_previous = c.pool_previous
        server.idle_count -= 1
        c.state = State.AWAITING_HEAD

    # -------------------------------------------------------------------------------------------- upstream: requests

    cdef void _send_request(self, uint32_t index, bint parsed) noexcept nogil:
        """Write the head anew, with what is held of the body, in one send."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t upstream = c.peer
        cdef Conn *u = &self.conns[upstream]
        cdef bint continues
        if not parsed:
            parse_request(self.names, c.held, c.held_size, &self.head)
        continues = self.head.expect_continue and not c.complete and c.body_size == 0
        self._compose_request(c)
        u.sends_chunks = c.framing == Framing.CHUNKED
        self._put_body(c.held + c.head_size, c.body_size, u.sends_chunks, c.complete)
        c.state = State.EXCHANGING
        u.state = State.AWAITING_HEAD
        u.complete = False
        u.window_bytes = 0
        c.window_bytes = 0
        if c.complete:
            self._clear_timer(index)
            self._set_timer(upstream, Timer.FIRST_BYTE)
        else:
            self._set_timer(index, Timer.REQUEST_BODY)
        if not self._send(upstream, self.out, self.out_size):
            self._send_failed(upstream)
            return
        if continues and not self._send(index, b"HTTP/1.1 100 Continue\r\n\r\n", 25):
            self._abort(index)

    cdef void _compose_request(self, Conn *c) noexcept nogil:
        cdef Head *head = &self.head
        cdef Field *field
        cdef int i
        self.out_size = 0
        if self.keeps_host:
            c.host_size = <uint8_t>head.host.size if head.host.size <= HOST_BYTES_MAX else 0
            memcpy(c.host, c.held + head.host.at, c.host_size)
        self._put(c.held + head.method_name.at, head.method_name.size)
        self._put(b" /" if head.target_is_bare else b" ", 2 if head.target_is_bare else 1)
        self._put(c.held + head.target.at, head.target.size)
        self._put(b" HTTP/1.1\r\nHost: ", 17)
        self._put(c.held + head.host.at, head.host.size)
        self._put(b"\r\n", 2)
        for i in range(head.field_count):
            field = &head.fields[i]
            if _goes_upstream(c, head, field) and not (head.nominated_count and is_nominated(c.held, head, field)):
                self._put_field(c.held, field)
        if c.framing == Framing.CHUNKED:
            self._put(b"Transfer-Encoding: chunked\r\n", 28)
        elif c.framing == Framing.LENGTH:
            self._put_length(head.content_length)
        if c.websocket:
            self._put(b"Upgrade: websocket\r\nConnection: Upgrade\r\n", 41)
        self._put_forwarding(c)
        if c.is_admitted:
            self._put(self.identity_field.at, self.identity_field.size)
            self._put(c.checked.raw + PRINCIPAL_AT, c.checked.raw[PRINCIPAL_LENGTH_AT])
            self._put(b"\r\n", 2)
        self._put(b"\r\n", 2)

    cdef void _put_forwarding(self, Conn *c) noexcept nogil:
        """X-Forwarded-For, -Proto and -Host: what a trusted proxy said, and who it is; else only what is known first-hand."""
        cdef Field *field
        cdef Field *proto = NULL
        cdef Field *host = NULL
        cdef bint first = True
        cdef int i
        cdef uint32_t start = self.out_size
        self._put(b"X-Forwarded-For: ", 17)
        for i in range(self.head.field_count if c.is_trusted else 0):
            field = &self.head.fields[i]
            if field.kind == Kind.FORWARDED_FOR and field.value.size:
                self._put(b", ", 0 if first else 2)
                self._put(c.held + field.value.at, field.value.size)
                first = False
            elif field.kind == Kind.FORWARDED_PROTO:
                proto = field
            elif field.kind == Kind.FORWARDED_HOST:
                host = field
        self._put(b", ", 0 if first or c.address_size == 0 else 2)
        self._put(<uint8_t *>c.address, c.address_size)
        self._put(b"\r\n", 2)
        if first and c.address_size == 0:
            self.out_size = start                       # a Unix socket: nobody to name
        self._put(b"X-Forwarded-Proto: ", 19)
        if proto != NULL:
            self._put(c.held + proto.value.at, proto.value.size)
        else:
            self._put(b"http", 4)
        self._put(b"\r\nX-Forwarded-Host: ", 20)
        if host != NULL:
            self._put(c.held + host.value.at, host.value.size)
        else:
            self._put(c.held + self.head.host.at, self.head.host.size)
        self._put(b"\r\n", 2)

    cdef inline void _put(self, const uint8_t *at, uint32_t size) noexcept nogil:
        memcpy(self.out + self.out_size, at, size)
        self.out_size += size

    cdef void _put_field(self, const uint8_t *at, const Field *field) noexcept nogil:
        self._put(at + field.name.at, field.name.size)
        self._put(b": ", 2)
        self._put(at + field.value.at, field.value.size)
        self._put(b"\r\n", 2)

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

    # --------------------------------------------------------------------------------------------------------- bodies

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
        """How much to read: never past the end of a message of known length, nor more of a request than a block holds."""
        if c.framing == Framing.LENGTH:
            return <uint32_t>min(c.left, <uint64_t>SCRATCH_BYTES)
        if c.framing == Framing.CHUNKED and c.side == Side.DOWNSTREAM:
            return HEAD_BYTES_MAX
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
            c.held_is_whole = False                 # streamed: it can not be sent again
            c.held_size = size - consumed           # of the next request
            if c.held_size:
                memcpy(c.held, at + consumed, c.held_size)
        elif consumed < size:
            c.keeps_alive = False
        if not self._send_body(peer, at, produced, c.complete):
            self._send_failed(peer)
            return False
        if c.complete:
            self._body_complete(index)
            return False
        return True

    cdef bint _take_body(self, Conn *c, uint8_t *at, uint32_t *consumed, uint32_t *produced) noexcept nogil:
        """Of so many bytes, how many belong to the message, and how many are data after decoding in place. False: malformed."""
        cdef uint32_t size = consumed[0]
        cdef int done
        if c.framing == Framing.CHUNKED:
            done = dechunk(&c.chunks, at, size, consumed, produced)
            c.complete = done == 1
            return done >= 0
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
        """Send data that lies in `scratch`, framed there in place. False: the connection is broken."""
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

    cdef void _body_ended(self, uint32_t index, bint cleanly) noexcept nogil:
        """The sender has closed: the end of a message that goes on until then, or a message cut short."""
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
            self._abort(index)

    # -------------------------------------------------------------------------------------------- upstream: responses

    cdef void _advance_upstream(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.side != Side.UPSTREAM:
            return
        if c.state == State.POOLED:
            if c.readable:
                self._close(index)                  # the end of it, or bytes that nobody asked for
        elif c.state == State.AWAITING_HEAD:
            while c.side == Side.UPSTREAM and c.state == State.AWAITING_HEAD and c.readable \
                    and self.conns[c.peer].state == State.EXCHANGING:
                self._read_response(index)
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
        """The upstream closed before it answered. If it is one that had been idle, it may not have seen the request at all."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        cdef bint again = (
            c.reused and c.held_size == 0 and not d.retried and not d.answered
            and d.held_is_whole and d.complete and _is_idempotent(d.method)
        )
        self.counters.upstream_errors += 1
        if not again:
            self._fail(downstream, 502, b"upstream_closed")
            return
        self.counters.retries += 1
        d.peer = NONE
        c.peer = NONE
        self._close(index)
        d.retried = True
        self._forward(downstream, False)

    cdef void _on_response(self, uint32_t index, uint8_t *at, uint32_t size) noexcept nogil:
        """Read a response head; drop interim ones (RFC 9110, 15.2); see whether the control plane has a word in it."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        cdef int result
        while True:
            result = parse_response(self.names, at, size, d.method, &self.head)
            if result == INCOMPLETE and size < RESPONSE_HEAD_BYTES_MAX:
                if not self._hold(c, at, size):
                    self._fail(downstream, 503, b"out_of_memory")
                return
            if result <= 0 or result > RESPONSE_HEAD_BYTES_MAX or self.head.status == 101 and not d.websocket:
                self.counters.upstream_errors += 1
                self._fail(downstream, 502, b"upstream_malformed")
                return
            if self.head.status >= 200 or self.head.status == 101:
                break
            at += result
            size -= result
            if size == 0:
                c.held_size = 0
                return
        if not self._hooked(index, at, size):
            self._relay(index, at, size, NULL, 0)

    cdef bint _hold(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil:
        if c.held == NULL:
            c.held = <uint8_t *>malloc(SCRATCH_BYTES)
            if c.held == NULL:
                return False
        memmove(c.held, at, size)
        c.held_size = size
        return True

    cdef bint _hooked(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil:
        """Whether the application logs somebody in or out. Then the response waits for the control plane."""
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[c.peer]
        cdef Field *field
        cdef Field *wish = NULL
        cdef AskKind kind = AskKind.LOGIN
        cdef int i
        for i in range(self.head.field_count):
            field = &self.head.fields[i]
            if field.kind == Kind.TICKET_LOGIN and self.routes[d.route].logs_in and d.auth == self.routes[d.route].auth:
                kind = AskKind.LOGIN
            elif field.kind == Kind.TICKET_LOGOUT and d.is_admitted and equals(at, field.value, b"session", 7):
                kind = AskKind.LOGOUT
            elif field.kind == Kind.TICKET_LOGOUT and d.is_admitted and equals(at, field.value, b"everywhere", 10):
                kind = AskKind.LOGOUT_EVERYWHERE
            else:
                continue
            if wish != NULL:
                self.counters.upstream_errors += 1
                self._fail(c.peer, 502, b"upstream_malformed")       # two wishes: never guess which
                return True
            wish = field
        if wish == NULL:
            return False
        if not self._hold(c, at, size):
            self._fail(c.peer, 503, b"out_of_memory")
            return True
        self._clear_timer(index)
        d.state = State.HOOKED
        self._set_timer(c.peer, Timer.ASKED)
        self._ask(c.peer, kind, wish.value)
        return True

    cdef void _relay(
        self, uint32_t index, uint8_t *at, uint32_t size, const uint8_t *fields, uint32_t fields_size
    ) noexcept nogil:
        """Write the response head anew, with what came of the body, in one send. `self.head` has been read from `at`."""
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
        c.keeps_alive = c.framing != Framing.UNTIL_CLOSE and not head.close and (head.minor == 1 or head.keep_alive)
        memset(&c.chunks, 0, sizeof(Chunks))
        if not self._take_body(c, at + head.size, &consumed, &produced) or consumed < size - head.size:
            self.counters.upstream_errors += 1
            self._fail(downstream, 502, b"upstream_malformed")
            return
        if c.framing == Framing.NO_BODY or c.framing == Framing.LENGTH and c.left == 0:
            c.complete = True
        if self.draining or not d.complete and c.complete:
            d.closes = True
        d.sends_chunks = not is_tunnel and d.minor == 1 and (c.framing == Framing.CHUNKED or c.framing == Framing.UNTIL_CLOSE)
        if d.minor == 0 and (c.framing == Framing.CHUNKED or c.framing == Framing.UNTIL_CLOSE):
            d.closes = True
        self._compose_response(d, at, fields, fields_size, is_tunnel)
        self._put_body(at + head.size, produced, d.sends_chunks, c.complete)
        self.counters.responses += 1
        d.answered = True
        d.window_bytes = 0
        c.window_bytes = 0
        c.state = State.RELAYING
        c.held_size = 0
        if not self._send(downstream, self.out, self.out_size):
            self._abort(downstream)
        elif is_tunnel:
            self._open_tunnel(index)
        elif c.complete:
            self._finish(index)
        else:
            self._set_timer(index, Timer.RESPONSE_BODY)
            self._pump(index)

    cdef void _compose_response(
        self, Conn *d, const uint8_t *at, const uint8_t *fields, uint32_t fields_size, bint is_tunnel
    ) noexcept nogil:
        cdef Head *head = &self.head
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
            if _goes_downstream(field) and not (head.nominated_count and is_nominated(at, head, field)):
                self._put_field(at, field)
        if fields_size:
            self._put(fields, fields_size)
        if d.sends_chunks:
            self._put(b"Transfer-Encoding: chunked\r\n", 28)
        elif head.has_length and head.status != 204:
            self._put_length(head.content_length)
        if is_tunnel:
            self._put(b"Upgrade: websocket\r\nConnection: Upgrade\r\n", 41)
        elif d.closes:
            self._put(b"Connection: close\r\n", 19)
        elif d.minor == 0:
            self._put(b"Connection: keep-alive\r\n", 24)
        self._put(b"\r\n", 2)

    cdef void _open_tunnel(self, uint32_t index) noexcept nogil:
        """101: from here on bytes pass both ways unread, until both sides have closed."""
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[c.peer]
        cdef uint32_t early = d.held_size - d.head_size
        d.framing = Framing.UNTIL_CLOSE
        d.complete = False
        d.closes = True
        c.sends_chunks = False
        c.state = State.TUNNELLING
        d.state = State.TUNNELLING
        self._set_timer(index, Timer.RESPONSE_BODY)
        if early and not self._send(index, d.held + d.head_size, early):
            self._abort(index)
            return
        d.held_is_whole = False
        d.held_size = 0
        self._pump(index)

    cdef void _finish(self, uint32_t index) noexcept nogil:
        """The response is complete: part the two connections."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        self._clear_timer(index)
        self._clear_timer(downstream)
        d.peer = NONE
        c.peer = NONE
        if not d.complete:
            d.closes = True                         # an early answer: the rest of the request is not wanted
        if c.keeps_alive and d.complete and c.unsent == NULL and not c.send_failed and self._is_quiet(c):
            self._pool(index)
        else:
            self._close(index)
        if d.unsent != NULL:
            self._flush_out(downstream)
        else:
            self._after_answer(downstream)


cdef bint _shares_prefix(const uint8_t *address, const char *network, int bits) noexcept nogil:
    cdef int whole = bits // 8
    cdef int rest = bits % 8
    if memcmp(address, network, whole) != 0:
        return False
    return rest == 0 or (address[whole] ^ <uint8_t>network[whole]) >> (8 - rest) == 0


cdef bint _is_idempotent(Method method) noexcept nogil:
    """RFC 9110, 9.2.2."""
    return method == Method.GET or method == Method.HEAD or method == Method.OPTIONS \
        or method == Method.PUT or method == Method.DELETE


cdef bint _goes_upstream(const Conn *c, const Head *head, const Field *field) noexcept nogil:
    """What we have a meaning for is written by us, or not at all."""
    return field.kind == Kind.OTHER or field.kind == Kind.COOKIE or field.kind == Kind.AUTHORIZATION \
        or field.kind == Kind.ACCEPT or field.kind == Kind.WEBSOCKET_KEY \
        or field.kind == Kind.FORWARDED and c.is_trusted


cdef bint _goes_downstream(const Field *field) noexcept nogil:
    return field.kind != Kind.DROP and field.kind != Kind.CONTENT_LENGTH and field.kind != Kind.TRANSFER_ENCODING \
        and field.kind != Kind.CONNECTION and field.kind != Kind.HOP and field.kind != Kind.UPGRADE \
        and field.kind != Kind.TICKET_LOGIN and field.kind != Kind.TICKET_LOGOUT


cdef bint _contains(const uint8_t *at, Span span, const char *lower, uint32_t size) noexcept nogil:
    cdef uint32_t i
    if span.size < size:
        return False
    for i in range(span.size - size + 1):
        if equals(at, Span(span.at + i, size), lower, size):
            return True
    return False
