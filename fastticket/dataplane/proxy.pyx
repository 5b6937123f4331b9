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
    - Each kind of wait has one length, so its deadlines are a list that is sorted by itself. A deadline of ours
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
from fastticket.dataplane.clients cimport (
    ADDRESS_BYTES,
    ADDRESS_TEXT_MAX,
    Announced,
    Networks,
    Tally,
    Who,
    read_proxy_header,
    write_address,
)

from fastticket.dataplane.counters cimport LATENCY_BUCKETS, Counters, count_one
from fastticket.dataplane.conn cimport enter, is_idle, is_tunnelling, reads_heads
from fastticket.dataplane.endpoint cimport Front, find_original
from fastticket.dataplane.forwarding cimport LOCATION_BYTES_MAX, Forwarding, is_browser, says_https
from fastticket.dataplane.frames cimport CLOSE_FRAME_BYTES, Frames, close_frame, follow, is_between
from fastticket.dataplane.chunks cimport dechunk
from fastticket.dataplane.fieldnames cimport Kind
from fastticket.dataplane.http1 cimport (
    FIELDS_MAX,
    TARGET_BYTES_MAX,
    Field,
    asks_head,
    fault_of,
    host_at,
    host_size,
    parse_request,
    parse_response,
)
from fastticket.dataplane.lists cimport append, prepend, remove
from fastticket.dataplane.octets cimport INCOMPLETE, equals, le64toh
from fastticket.core.compiler cimport __builtin_clzll
from fastticket.core.mixing cimport mix
from fastticket.dataplane.paths cimport EXACT, normal_path
from fastticket.dataplane.reasons cimport UNCOUNTED, Reason, Row, phrase_of, row_of, slug_of, unreadable
from fastticket.dataplane.routes cimport NO_ROUTE, Auth, Route, Routes, Text
from fastticket.dataplane.sockets cimport *
from fastticket.core.ticket cimport ascii_text, decode, encode
from fastticket.dataplane.balance cimport NOBODY, Balance, Group, Server, Upstreams, is_busy
from fastticket.dataplane.writer cimport CHUNK_HEADER_BYTES, put, put_body, put_length, put_number, put_text
from fastticket.core.wire cimport (
    PRINCIPAL_AT,
    PRINCIPAL_LENGTH_AT,
    RAW_BUFFER_BYTES,
    SESSION_ID_AT,
    TAG_BYTES,
    TEXT_CHARS_MAX,
    raw_key_id,
)

import os

from fastticket.dataplane.asks import Ask as _Ask, Where as _Where
from fastticket.dataplane.endpoint import FRONTS as _FRONTS
from fastticket.dataplane.counters import COUNTERS_BYTES as _COUNTERS_BYTES, read_counters as _read_counters

cdef enum:
    NO_DESCRIPTOR = 0xFFFFFFFE
    NOBODYS = 0xFFFFFFFFFFFFFFFF        # no request's head
    SCRATCH_BYTES = 65536               # read at once
    CHUNK_END_BYTES = 16                # and for what ends it after
    EXTRA_BYTES_MAX = 8192              # of fields that the control plane adds
    BLOCKS_KEPT_MAX = 256
    READS_MAX = 16                      # from one connection in one turn
    ACCEPTS_MAX = 64
    IDLE_MAX = 256                      # pooled connections a server
    ACCEPT_PAUSE_MS = 100
    VOUCH_MS = 250
    INTERIMS_MAX = 100                  # interim responses before a final one
    BODY_FRAME_BYTES = 28               # of the body of an answer of ours, beside phrase and slug
    FORWARDING_BYTES_MAX = 4096         # of the fields that say who the client is, beside those of a trusted proxy

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
        self.epoll_fd = -1
        self.checker = checker
        self.upstreams = upstreams
        self.routes = routes
        self.forwarding = Forwarding(
            checker, cookie=cookie, identity_field=identity_field, escapes_identity=escapes_identity,
            request_id_field=request_id_field, login_url=login_url, next_parameter=next_parameter, no_use_field=no_use_field,
            lifetime_field=lifetime_field, dropped_fields=dropped_fields, forwards_ticket=forwards_ticket, trusted=trusted,
            writes_forwarded=writes_forwarded, upgrades=upgrades)
        self.names = self.forwarding.names
        self.trusted = self.forwarding.trusted
        self.log = log
        self.front = _FRONTS[front]
        self.records_address = "address" in login_details
        self.records_agent = "user_agent" in login_details
        self.expects_proxy_header = expects_proxy_header
        self.keeps_entry = log is not None or bool(request_id_field)
        self.descriptors_max = descriptors_max
        self.date_s = -1
        self.page = bytearray(_COUNTERS_BYTES) if counters is None else counters
        if self.page.shape[0] < <Py_ssize_t>_COUNTERS_BYTES:
            raise ValueError(f"counters need {_COUNTERS_BYTES} bytes")
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
        """A list of deadlines for each kind of wait; the first set of waits is these."""
        cdef int kind
        for name, (timer, seconds) in TIMEOUTS_S.items():
            kind = timer
            self.deadlines[kind].length_ms = _ms(timeouts_s.get(name, seconds))
        self.deadlines[<int>Timer.VOUCH].length_ms = VOUCH_MS
        for kind in range(1, TIMERS):
            self.deadlines[kind].kind = <Timer>kind
            self.deadlines[kind].first = self.deadlines[kind].last = NONE
            self.waits[0][kind] = <uint8_t>kind
        self.deadlines_count = TIMERS
        self.waits_count = 1
        return 0

    cdef int _allocate(self) except -1:
        self.conn_max = 4 * self.downstream_max + 64        # for each an upstream one, a pooled and a kept one, and the listeners
        # A head is at most what was read, a line more for the identity, the forwarding fields, and
        # what a route adds.
        cdef uint32_t out_bytes = (
            2 * max(self.head_bytes, self.response_head_bytes) + max(self.head_bytes, <uint32_t>SCRATCH_BYTES)
            + FORWARDING_BYTES_MAX + EXTRA_BYTES_MAX + DOUBT_BYTES_MAX + LOCATION_BYTES_MAX + self.forwarding.login_url.size + 4096)
        self.conns = <Conn *>calloc(self.conn_max, sizeof(Conn))        # what is never used never takes memory
        self.scratch = <uint8_t *>malloc(CHUNK_HEADER_BYTES + SCRATCH_BYTES + CHUNK_END_BYTES)
        self.out.at = <uint8_t *>malloc(out_bytes)
        self.ask_list = <Question *>malloc(2 * self.conn_max * sizeof(Question))
        self.again = <uint64_t *>malloc(2 * self.conn_max * sizeof(uint64_t))
        if not self.conns or not self.scratch or self.out.at == NULL or not self.ask_list or not self.again:
            raise MemoryError(f"no memory for {self.downstream_max} connections")
        self.freed_first = NONE
        self.free_first = NONE
        self.head_of = NOBODYS
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
        free(self.out.at)
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
        cdef int number
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
            number = 1
            while number < self.deadlines_count and not (
                self.deadlines[number].kind == <Timer>kind and self.deadlines[number].length_ms == _ms(seconds)
            ):
                number += 1
            if number == DEADLINES_MAX:
                raise ValueError(f"at most {DEADLINES_MAX - TIMERS} timeouts of routes that differ")
            if number == self.deadlines_count:
                self.deadlines[number].kind = <Timer>kind
                self.deadlines[number].length_ms = _ms(seconds)
                self.deadlines[number].first = self.deadlines[number].last = NONE
                self.deadlines_count += 1
            self.waits[self.waits_count][kind] = <uint8_t>number
        self.waits_count += 1
        return self.waits_count - 1

    def set_servers(self, int group, servers, seconds=()):
        """Replace a group's servers; connections to those that go end with what is under way."""
        cdef uint32_t i
        self.upstreams.set_servers(group, servers, seconds)
        self._begin_now()
        for i in range(self.conn_count):
            if self.conns[i].side == Side.UPSTREAM and self.upstreams.servers[self.conns[i].link.server].is_retired \
                    and (self.conns[i].state == Upstream.POOLED or self.conns[i].state == Upstream.KEPT):
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
            if self.conns[i].side == Side.DOWNSTREAM and is_idle(&self.conns[i]):
                self._close(i)
        self._reclaim()

    def release(self):
        """Let go of the client that has waited longest between two requests: (descriptor, address,
        whether it may be a trusted proxy); the descriptor is the caller's now. None: there is none.
        """
        cdef uint32_t index = self.deadlines[<int>Timer.KEEP_ALIVE].first
        cdef Conn *c
        cdef int fd
        if index == NONE:
            return None
        c = &self.conns[index]
        fd = c.fd
        address = (<char *>c.client.peer_address)[:ADDRESS_BYTES] if c.client.peer_text_size else b""
        is_believed = bool(c.client.is_trusted)
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
        enter(c, Downstream.IDLE)
        c.client.is_trusted = self.trusted.has_unix
        if len(address) == ADDRESS_BYTES:
            c.client.has_address = True
            memcpy(c.client.peer_address, <const char *>address, ADDRESS_BYTES)
            self._register_peer(c)
        c.client.is_trusted = c.client.is_trusted and is_believed
        if is_last:
            c.request.requests = self.requests_max - 1          # so that the next one is the last, also where 0 is no limit
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
            told += self.conns[i].side == Side.UPSTREAM and self.conns[i].state == Upstream.TUNNELLED and self._part(i)
        self._end_now()
        return told

    def asks(self):
        """What the control plane is asked since the last call: records of `asks.Ask`."""
        cdef uint32_t i
        cdef Question *question
        cdef Conn *c
        cdef list result = []
        for i in range(self.ask_count):
            question = &self.ask_list[i]
            c = &self.conns[question.index]
            if c.generation == question.generation and c.request.asks == question.number and _awaits(c, <AskKind>question.kind):
                result.append(self._record(question))       # else it was closed, or answered by a timeout, in between
        self.ask_count = 0
        return result

    cdef object _record(self, const Question *question):
        cdef Conn *c = &self.conns[question.index]
        cdef uint8_t[TEXT_CHARS_MAX] text
        cdef int chars = encode(c.request.checked.raw, c.request.checked.size, text) if c.request.checked.size else 0
        cdef AskKind kind = <AskKind>question.kind
        tickets = (<char *>text)[:chars].decode("ascii") if c.request.doubt == NULL else self._doubtful(c)
        ask = _Ask(kind, <object>question.number << 64 | self._handle(question.index), tickets)
        if kind == AskKind.EXEMPTION:
            return ask._replace(route=c.request.route, path=self._normal_path(question.index))
        if kind == AskKind.STILL_ALIVE:
            ask = ask._replace(is_use=bool(self._touches(c) and c.request.is_used))
            c.request.is_used = False
            return ask
        if kind == AskKind.SEVERAL:
            path, cookies = self._several(question.index)
            return ask._replace(path=path, cookies=cookies, where=self._where(question.index))
        if kind < AskKind.LOGIN:
            return ask._replace(is_use=bool(self._touches(c)))
        if kind <= AskKind.LOGIN_REMEMBERED:
            principal = (<char *>self.conns[c.peer].held)[question.value.at:question.value.at + question.value.size]
            ask = ask._replace(principal=principal, details=self._details(c))
        return ask._replace(where=self._where(question.index))

    cdef object _where(self, uint32_t index):
        """What of a request decides about cookies: its Host, and whether it came by https."""
        cdef Conn *c = &self.conns[index]
        if c.request.held_is_whole:
            self.head_of = NOBODYS                  # the request itself, not one that it describes
            parse_request(self.names, c.held, c.held_size, &self.head)
            self._note_where(c)
        return _Where(c.request.host[:c.request.host_size].decode("ascii"), bool(c.request.is_https))

    cdef tuple _several(self, uint32_t index):
        """Of a request with more than one ticket, which waits: its path as it came, and all that
        may have a ticket, as cookies.
        """
        cdef Conn *c = &self.conns[index]
        cdef Field *field
        cdef list cookies = []
        cdef int i
        self._read_again(index)
        for i in range(self.head.known_count):
            field = &self.head.fields[self.head.known[i]]
            value = (<char *>c.held)[field.value.at:field.value.at + field.value.size]
            if field.kind == Kind.COOKIE:
                cookies.append(value)
            elif field.kind == Kind.AUTHORIZATION and field.value.size > 7 and equals(c.held, Span(field.value.at, 7), b"ticket ", 7):
                cookies.append(self.forwarding.texts[0] + b"=" + value[7:])
        return (<char *>c.held)[self.head.path.at:self.head.path.at + self.head.path.size], b"; ".join(cookies)

    cdef str _doubtful(self, const Conn *c):
        """The tickets of a request that came with several."""
        cdef const Doubt *doubt = c.request.doubt
        return (<const char *>doubt.text)[doubt.fields_size:doubt.fields_size + doubt.tickets_size].decode("latin-1")

    cdef dict _details(self, const Conn *c):
        """What to record with a login, as far as it is known."""
        cdef char[ADDRESS_TEXT_MAX] address
        cdef dict details = {}
        if self.records_address and c.client.has_address:
            details["address"] = address[:write_address(c.client.address, address)].decode("ascii")
        if c.request.agent != NULL:
            text = (<const char *>c.request.agent.text)[:c.request.agent.size].decode("utf-8", "replace")
            details["user_agent"] = text[:AGENT_CHARS_MAX]
        return details

    cdef bytes _normal_path(self, uint32_t index):
        """The normal form of a path that is plain."""
        cdef Conn *c = &self.conns[index]
        cdef uint8_t[TARGET_BYTES_MAX] normal
        cdef int odd_at
        cdef int size
        self._read_again(index)
        if self.head.target_is_bare:
            return b"*" if self.head.target_is_star else b"/"
        size = normal_path(c.held + self.head.path.at, self.head.path.size, normal, &odd_at)
        return (<char *>normal)[:max(size, 0)]

    cdef bint _has_exact_path(self, uint32_t index) noexcept nogil:
        """Whether every reader sees the very same path: an expression is not asked about another.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint8_t[TARGET_BYTES_MAX] normal
        cdef int odd_at
        self._read_again(index)
        return self.head.target_is_bare or (
            normal_path(c.held + self.head.path.at, self.head.path.size, normal, &odd_at) >= 0 and odd_at == EXACT)

    def admit(self, handle):
        """The ticket is alive: forward the request."""
        cdef uint32_t index = self._find(handle, Downstream.ASKING)
        if index != NONE and self.conns[index].request.asked != AskKind.EXEMPTION:
            self._begin_now()
            self._admit(index)
            self._advance_downstream(index)
            self._end_now()

    def refuse(self, handle, verdict):
        """The ticket is not alive, or nobody knows: answer 401 or 503; where a ticket is optional,
        forward without identity.
        """
        cdef uint32_t index = self._find(handle, Downstream.ASKING)
        if index != NONE and self.conns[index].request.asked != AskKind.EXEMPTION:
            self._begin_now()
            self._refused(index, verdict.value)
            self._advance_downstream(index)
            self._end_now()

    def doubt(self, handle, bytes fields not None, bytes tickets not None):
        """The client came with these tickets (spaces between), and nobody knows which is meant; the
        answer gets these field lines.
        """
        cdef uint32_t index = self._find(handle, Downstream.ASKING)
        if len(fields) > DOUBT_BYTES_MAX:
            raise ValueError(f"at most {DOUBT_BYTES_MAX} bytes of fields, not {len(fields)}")
        if index != NONE and self.conns[index].request.asked == AskKind.SEVERAL:
            self._begin_now()
            self.conns[index].request.doubt = _doubt(fields, tickets)
            self._refused(index, Verdict.AMBIGUOUS)
            self._advance_downstream(index)
            self._end_now()

    def exempt(self, handle, bint is_exempt):
        """Whether the path of a request that has no good ticket needs none."""
        cdef uint32_t index = self._find(handle, Downstream.ASKING)
        if index != NONE and self.conns[index].request.asked == AskKind.EXEMPTION:
            self._begin_now()
            if is_exempt:
                self._pass(index)
            else:
                self._refused(index, self.conns[index].request.verdict)
            self._advance_downstream(index)
            self._end_now()

    def vouch(self, handle, bint is_alive):
        """Whether the session of a stream or a tunnel still lives; it ends with it."""
        cdef uint32_t index = self._asked(handle)
        if index == NONE or not self.conns[index].request.is_vouched:
            return
        self.conns[index].request.is_vouched = False
        if not is_alive:
            self._begin_now()
            self._end_for_session(index)
            self._end_now()

    def suits(self, handle, ticket):
        """Whether the holder of a ticket that is about to be made comes back to the server whose
        response waits now.
        """
        cdef uint32_t index = self._find(handle, Downstream.CHANGING)
        cdef uint8_t[RAW_BUFFER_BYTES] raw
        cdef const uint8_t *text = NULL
        cdef Py_ssize_t chars = 0
        cdef Group *group
        cdef Server *server
        cdef int size
        if index == NONE:
            return True
        group = &self.upstreams.groups[self.routes.table[self.conns[index].request.route].group]
        if group.balance != Balance.TICKET_HASH or not ascii_text(ticket, &text, &chars):
            return True
        size = decode(text, chars, raw)
        self._begin_now()
        server = &self.upstreams.servers[self.conns[self.conns[index].peer].link.server]
        if server.is_retired or server.is_sick or server.down_until_ms > self.now_ms:
            return True                                     # nobody comes back to it
        return size == 0 or self.upstreams.pick_for_key(group, _ticket_key(raw, size), self.now_ms, False) \
            == self.conns[self.conns[index].peer].link.server

    def readmit(self, handle, ticket):
        """The session of a response that waits has another ticket now: a stream or tunnel that
        begins goes on with it.
        """
        cdef uint32_t index = self._find(handle, Downstream.CHANGING)
        cdef const uint8_t *text = NULL
        cdef Py_ssize_t chars = 0
        if index != NONE and ascii_text(ticket, &text, &chars):
            self.conns[index].request.checked.size = decode(text, chars, self.conns[index].request.checked.raw)

    def relay(self, handle, bytes fields not None):
        """Let a response that waited go on, with these field lines (each ended by CRLF) added."""
        cdef uint32_t index = self._find(handle, Downstream.CHANGING)
        cdef uint32_t upstream
        cdef Text lines = Text(<const uint8_t *><const char *>fields, <uint32_t>len(fields))
        if len(fields) > EXTRA_BYTES_MAX:
            raise ValueError(f"at most {EXTRA_BYTES_MAX} bytes of fields, not {len(fields)}")
        if index != NONE:
            self._begin_now()
            upstream = self.conns[index].peer
            self._clear_timer(index)
            enter(&self.conns[index], Downstream.EXCHANGING)
            self.head_of = NOBODYS
            parse_response(
                self.names, self.conns[upstream].held, self.conns[upstream].held_size, self.conns[index].request.method, &self.head)
            self._relay(upstream, self.conns[upstream].held, self.conns[upstream].held_size, &lines)
            self._advance_downstream(index)
            self._end_now()

    def fail(self, handle, int status, slug):
        """Answer with an error in place of a response that waited."""
        cdef uint32_t index = self._find(handle, Downstream.CHANGING)
        cdef bytes reason = slug.encode("ascii")
        if index != NONE:
            self._begin_now()
            self._fail_exchange_as(index, status, reason)
            self._advance_downstream(index)
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
            count += self.conns[i].side == Side.DOWNSTREAM and self.conns[i].state == Downstream.TUNNELLING
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
        return _read_counters(self.page)

    cdef uint32_t _find(self, object handle, Downstream state) except? 0:
        """The connection of a handle, or NONE: it is gone, or no longer in that state."""
        cdef uint32_t index = self._asked(handle)
        return NONE if index == NONE or self.conns[index].state != <int>state else index

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
        if self.conns[index].side != Side.DOWNSTREAM or self.conns[index].request.asks != number:
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
        c.kept = NONE
        if side == Side.DOWNSTREAM:
            self.downstream_count += 1
        return index

    cdef uint32_t _take_slot(self) noexcept nogil:
        """One that was used before, or else the next fresh one."""
        cdef uint32_t index = self.free_first
        if index != NONE:
            self.free_first = self.conns[index].place.next
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
        c.place.next = self.freed_first
        self.freed_first = index

    cdef void _close_downstream(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.state == Downstream.QUEUED:
            self._leave_pending(index)
        if c.request.began_us:
            self._account(c, True)
        if c.client.is_counted:
            self.clients.remove(c.client.peer_address)
        self.downstream_count -= 1
        self._give_block(c.held)
        free(c.request.entry)
        c.request.entry = NULL

    cdef void _close_upstream(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Server *server = &self.upstreams.servers[c.link.server]
        if c.state == Upstream.POOLED:
            self._leave_pool(index)
        elif c.state == Upstream.KEPT:
            server.kept_count -= 1
        server.open_count -= 1
        self.upstream_count -= 1
        self._has_room(c.link.server)

    cdef void _reclaim(self) noexcept nogil:
        """The turn is over: nothing speaks of the closed connections any more, their slots can be
        used.
        """
        cdef uint32_t index
        while self.freed_first != NONE:
            index = self.freed_first
            self.freed_first = self.conns[index].place.next
            self.conns[index].place.next = self.free_first
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
        cdef Deadlines *following
        self._clear_timer(index)
        c.deadlines = self.waits[c.waits][<int>timer]
        following = &self.deadlines[c.deadlines]
        c.deadline_ms = self.now_ms + following.length_ms
        append(&self.conns.timer, sizeof(Conn), &following.first, &following.last, index)

    cdef void _clear_timer(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Deadlines *following = &self.deadlines[c.deadlines]
        if c.deadlines == 0:
            return
        remove(&self.conns.timer, sizeof(Conn), &following.first, &following.last, index)
        c.deadlines = 0

    cdef int64_t _length_ms(self, const Conn *c, Timer timer) noexcept nogil:
        return self.deadlines[self.waits[c.waits][<int>timer]].length_ms

    cdef void _tick(self) noexcept nogil:
        cdef int number
        cdef int group
        cdef Deadlines *following
        cdef uint32_t index
        self._begin_now()
        for number in range(1, self.deadlines_count):
            following = &self.deadlines[number]
            while following.first != NONE and self.conns[following.first].deadline_ms <= self.now_ms:
                index = following.first
                self._clear_timer(index)
                self._on_timeout(index, following.kind)
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
            if timer == Timer.HEAD_IN:
                self._reject_unreadable(index, Reason.HEAD_LATE)
            elif timer == Timer.ASKED:
                self._note_refused(c, Verdict.STORE_UNAVAILABLE)
                c.request.closes = True
                self._fail_exchange(index, Reason.VERDICT_LATE)
            elif timer == Timer.PENDING:
                self._leave_pending(index)
                self._fail_exchange(index, Reason.PENDING_LATE)
            elif timer == Timer.REQUEST_BODY:
                self._fail_exchange(index, Reason.BODY_LATE)
            else:
                self.counters.timeouts += 1
                self._close(index)
        self._advance_downstream(downstream)

    cdef void _upstream_is_late(self, uint32_t index, Timer timer) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if timer == Timer.CONNECT:
            self.counters.upstream_timeouts += 1
            self._connect_failed(index, ETIMEDOUT)
            return
        if timer == Timer.FIRST_BYTE or timer == Timer.SEND:
            self.upstreams.faulted(c.link.server, self.now_ms)
        self._fail_exchange(c.peer, Reason.UPSTREAM_LATE)

    cdef bint _request_flows(self, uint32_t index) noexcept nogil:
        """Whether a client kept its minimum rate in a window of its body. In one in which the
        upstream held it up it need not.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint64_t wanted = self.request_rate_min * <uint64_t>self._length_ms(c, Timer.REQUEST_BODY) // 1000
        if c.request.answered:                              # it need not send the rest (RFC 9112, 9.5), but to get the answer
            return True
        return c.request.is_held_up or self.conns[c.peer].unsent != NULL or c.window_bytes >= wanted

    cdef void _await_body(self, uint32_t index) noexcept nogil:
        """A window of a request's body begins. Of who was admitted it ends in `_vouch`."""
        cdef Conn *c = &self.conns[index]
        c.window_bytes = 0
        c.request.is_held_up = self.conns[c.peer].unsent != NULL
        c.request.window_ends_ms = self.now_ms + self._length_ms(c, Timer.REQUEST_BODY)
        self._set_timer(index, Timer.VOUCH if c.request.is_admitted else Timer.REQUEST_BODY)

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

    cdef void _restart_silence(self, uint32_t upstream) noexcept nogil:
        """Something has moved through an exchange or a tunnel: what bounds a silence begins anew.
        """
        cdef Conn *u = &self.conns[upstream]
        cdef Conn *client = &self.conns[u.peer]
        if u.state == Upstream.TUNNELLED:
            self._set_timer(upstream, Timer.TUNNEL)
        elif u.state == Upstream.RELAYING:
            if client.unsent == NULL:               # else it must keep its rate
                self._set_timer(upstream, Timer.RESPONSE_BODY)
        elif client.state == Downstream.EXCHANGING and not client.complete:
            if u.unsent != NULL:
                client.request.is_held_up = True
                self._set_timer(upstream, Timer.SEND)
            else:
                self._clear_timer(upstream)

    # ----------------------------------------------------------------------------- streams, tunnels

    cdef void _vouch(self, uint32_t index) noexcept nogil:
        """A stream, a tunnel or an upload goes on: does its session?"""
        cdef Conn *c = &self.conns[index]
        cdef bint is_upload = not c.complete and c.state == Downstream.EXCHANGING
        if is_upload and c.readable and self.conns[c.peer].unsent != NULL:
            c.request.is_used = True                        # there is more of it, which the upstream does not take yet
        if not self._is_alive(index):
            self._end_for_session(index)
        elif not is_upload or self.now_ms < c.request.window_ends_ms:
            self._set_timer(index, Timer.VOUCH)
        elif self._request_flows(index):
            self._await_body(index)
        else:
            self._fail_exchange(index, Reason.BODY_LATE)

    cdef bint _is_alive(self, uint32_t index) noexcept nogil:
        """As far as is known here. What the near cache does not know the control plane is asked; it
        answers with `vouch`.
        """
        cdef Conn *c = &self.conns[index]
        cdef bint touches = c.request.is_used and self._touches(c)
        cdef Verdict verdict = self.checker.judge_again(&c.request.checked, self.checker.now(), touches)
        if verdict == Verdict.HIT:
            c.request.is_used = False
        elif verdict != Verdict.MISS and verdict != Verdict.REFRESH:
            return False
        elif not c.request.is_vouched and self.ask_count < 2 * self.conn_max:
            c.request.is_vouched = True
            self._ask(index, AskKind.STILL_ALIVE, Span(0, 0))
        return True

    cdef void _end_for_session(self, uint32_t index) noexcept nogil:
        """Its session is over. Who sends an upload is told so: nothing of the answer is on its way.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t upstream = c.peer
        cdef const Row *row = row_of(Reason.SESSION_OVER)
        self.counters.cut += 1
        if c.state != Downstream.EXCHANGING or c.request.answered:
            self._close_both(index)
            return
        c.peer = NONE
        self.conns[upstream].peer = NONE
        self._close(upstream)
        self._begin_answer(index, row.status, row.slug)
        self._put_challenge(row.slug)
        self._end_answer(index, row.status, row.slug)

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
                self._close_both(index)              # nobody is there to answer
                return
            c.readable |= events & (EPOLLIN | EPOLLRDHUP) != 0
            c.hung_up |= events & EPOLLRDHUP != 0
            if events & EPOLLOUT and c.unsent != NULL:
                self._flush(index)
            self._advance_downstream(index)
        elif c.side == Side.UPSTREAM:
            if c.state == Upstream.OPENING:
                if events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
                    self._connected(index)
            else:
                c.readable |= events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP) != 0
                c.hung_up |= events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP) != 0
                if events & EPOLLOUT and c.unsent != NULL:
                    self._flush(index)
                self._advance_upstream(index)
            if peer != NONE:
                self._advance_downstream(peer)

    cdef inline void _received(self, Conn *c, ssize_t size, uint32_t room) noexcept nogil:
        """A short read has emptied the socket, and the kernel will say when there is more; but not
        again that it has ended.
        """
        if <uint32_t>size < room and not c.hung_up:
            c.readable = False

    cdef void _continue_later(self, uint32_t index) noexcept nogil:
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
            enter(&self.conns[index], <int>Downstream.ANNOUNCING if self.expects_proxy_header else <int>Downstream.IDLE)
            if not self._read_peer(&self.conns[index], &address):
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

    cdef bint _read_peer(self, Conn *c, const sockaddr_storage *address) noexcept nogil:
        """Who is there. False: nobody whom we serve."""
        if address.ss_family == AF_UNIX:
            c.client.is_trusted = self.trusted.has_unix
            return c.client.is_trusted or not self.expects_proxy_header
        c.client.has_address = True
        memcpy(c.client.peer_address, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12)
        if address.ss_family == AF_INET:
            memcpy(c.client.peer_address + 12, &(<const sockaddr_in *>address).sin_addr, 4)
        else:
            memcpy(c.client.peer_address, &(<const sockaddr_in6 *>address).sin6_addr, ADDRESS_BYTES)
        if self.expects_proxy_header:
            return self.trusted.contains(c.client.peer_address)
        return self._register_peer(c)

    cdef bint _register_peer(self, Conn *c) noexcept nogil:
        """`peer_address` is whom we speak with. False: he has more connections than one may have.
        """
        c.client.peer_text_size = <uint8_t>write_address(c.client.peer_address, c.client.peer_text)
        memcpy(c.client.address, c.client.peer_address, ADDRESS_BYTES)
        c.client.is_trusted = self.trusted.contains(c.client.peer_address)
        if self.per_client_max == 0 or c.client.is_trusted or self.downstream_count > self.downstream_max:
            return True                             # a proxy of ours has many clients; beyond the most there is no room to count
        c.client.is_counted = True
        if self.clients.add(c.client.peer_address) <= self.per_client_max:
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
        enter(c, Downstream.READING_HEAD)
        if size < 0:
            self.counters.bad_requests += 1
            self._note_unannounced(
                c, b"its PROXY header is larger than head_bytes_max" if size == -431 else b"its PROXY header is malformed")
            self._close(index)
            return False
        if announced.who == Who.NAMED:
            c.client.has_address = True
            memcpy(c.client.peer_address, announced.source, ADDRESS_BYTES)
        if c.client.has_address and not self._register_peer(c):
            self._close(index)
            return False
        if announced.who == Who.NAMELESS:
            c.client.is_trusted = False                    # what follows is not the proxy's word, but of somebody whom nobody knows
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
        if c.client.has_address:
            write_address(c.client.peer_address, self.unannounced_peer)

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
                self._restart_silence(index if c.side == Side.UPSTREAM else c.peer)
            return
        free(c.unsent)
        c.unsent = NULL
        c.unsent_at = c.unsent_size = 0
        if c.state == Downstream.FLUSHING:
            self._after_answer(index)
        elif c.peer != NONE:
            if c.side == Side.DOWNSTREAM and self.conns[c.peer].framing == Framing.LENGTH:
                c.request.is_used = True
            self._restart_silence(index if c.side == Side.UPSTREAM else c.peer)
            self._pump(c.peer)

    cdef void _send_failed(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.side == Side.DOWNSTREAM or c.state == Upstream.TUNNELLED:
            self._close_both(index)
            return
        # The upstream takes no more of the request. It may have answered before it closed: look at
        # that first.
        free(c.unsent)
        c.unsent = NULL
        c.unsent_at = c.unsent_size = 0
        c.link.send_failed = True
        c.readable = True
        self._advance_upstream(index)

    cdef void _close_both(self, uint32_t index) noexcept nogil:
        """End an exchange without another word."""
        cdef uint32_t peer = self.conns[index].peer
        self._close(index)
        if peer != NONE:
            self.conns[peer].peer = NONE
            self._close(peer)

    # ------------------------------------------------------------------------- downstream: requests

    cdef void _advance_downstream(self, uint32_t index) noexcept nogil:
        """Go on with a downstream connection as far as its bytes reach."""
        cdef Conn *c = &self.conns[index]
        cdef int reads = 0
        if c.side != Side.DOWNSTREAM:
            return
        if c.state == Downstream.NEXT_HELD:
            self._serve(index)
        while c.side == Side.DOWNSTREAM and c.readable and reads_heads(c):
            if reads == READS_MAX:
                self._continue_later(index)
                return
            reads += 1
            self._read_head(index)
        if c.side != Side.DOWNSTREAM:
            return
        if c.state == Downstream.EXCHANGING or c.state == Downstream.TUNNELLING:
            self._pump(index)
        elif c.state == Downstream.LINGERING:
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
        if c.state == Downstream.IDLE:
            enter(c, Downstream.READING_HEAD)
            self._set_timer(index, Timer.HEAD_IN)
        elif c.state == Downstream.ANNOUNCING and at == c.held:
            self._set_timer(index, Timer.HEAD_IN)
        if (
            memchr(at, c'\n', size) != NULL or memchr(at, c'\r', size) != NULL
            or at > c.held and (at - 1)[0] == c'\r'          # whatever follows a CR decides something
            or c.held_size == self.head_bytes
            or c.state == Downstream.ANNOUNCING
        ):
            self._serve(index)

    cdef void _serve(self, uint32_t index) noexcept nogil:
        """Serve requests from what is held, until one has to wait or its head is not all there."""
        cdef Conn *c = &self.conns[index]
        cdef int result
        if c.state == Downstream.ANNOUNCING and not self._read_proxy_header(index):
            return
        if c.held_size == 0:
            self._wait_for_request(index)
            return
        while c.side == Side.DOWNSTREAM and (c.state == Downstream.READING_HEAD or c.state == Downstream.NEXT_HELD):
            if c.state == Downstream.NEXT_HELD:
                enter(c, Downstream.READING_HEAD)
            c.request.held_is_whole = False
            self.head.target.size = 0
            self.head_of = NOBODYS
            result = parse_request(self.names, c.held, c.held_size, &self.head)
            if result == INCOMPLETE:
                if self.head.target.size > self.target_bytes_max:
                    self._reject_unreadable(index, Reason.TARGET_TOO_LONG)
                elif c.held_size == self.head_bytes:
                    self._reject_unreadable(index, Reason.HEAD_TOO_LARGE)
                return
            if result > 0:
                result = self._over_limits(&self.head, result)
            if result < 0:
                self._reject_unreadable(index, unreadable(-result))
                return
            self.head_of = self._handle(index)
            self.forwarding.tickets = -1
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
        c.request.requests += 1
        c.request.began_us = self.now_us
        c.request.body_bytes_out = 0
        c.request.head_size = head.size
        c.request.body_size = 0
        c.request.held_is_whole = True
        c.request.method = head.method
        c.request.minor = head.minor
        c.request.upgrade = self.forwarding.upgrade_of(c.held, head) if head.upgrade_to.size else 0
        c.request.closes = head.close or head.minor == 0 and not head.keep_alive or c.request.requests == self.requests_max
        c.request.retried = False
        c.request.answered = False
        c.request.is_admitted = False
        c.request.is_vouched = False
        c.request.is_used = False
        c.request.exemption_asked = False
        c.request.was_confirmed = False
        c.request.status = 0
        c.request.preferences = 0
        c.request.attempts = 0
        c.request.checked.size = 0
        c.request.reason = NULL
        if self.keeps_entry:
            self._note_request(c)
        if c.client.is_trusted:
            self.forwarding.find_client(&c.client, c.held, &self.head)
        if not self._begin_body(c):
            self._refuse_body(index)
            return
        c.request.route = self.routes.find(c.held, head, &c.request.is_plain)
        c.request.is_routed = c.request.route != NO_ROUTE
        if c.request.route == NO_ROUTE:
            c.request.route = 0
            self._answer(index, Reason.NO_ROUTE_FOUND)
            return
        c.request.endpoint = Endpoint.OF_TICKETS if self.routes.table[c.request.route].is_endpoint else Endpoint.NO_ENDPOINT
        if c.request.endpoint and self.front and c.client.is_trusted and not self._stand_in(index):
            return
        c.request.auth = self.routes.table[c.request.route].auth if c.request.is_plain else Auth.AUTH_REQUIRED
        c.waits = self.routes.table[c.request.route].waits
        if c.request.auth == Auth.AUTH_NONE:
            self._pass(index)
        else:
            self._check(index)

    cdef bint _stand_in(self, uint32_t index) noexcept nogil:
        """A gateway of ours asks about a request that it has: judge that one, by the route that it
        falls under. False: answered.
        """
        cdef Conn *c = &self.conns[index]
        cdef int found = find_original(self.front, &self.routes.table[self.routes.endpoint], c.held, &self.head)
        if found == 0:
            return True                             # it says nothing of one: it is about the ticket alone
        if found > 0:
            c.request.endpoint = Endpoint.OF_REQUESTS
            if self.log is not None and c.request.entry != NULL:
                self._note_target(c)
            c.request.route = self.routes.find(c.held, &self.head, &c.request.is_plain)
            if c.request.route != NO_ROUTE:
                return True
            c.request.route = 0
            self._answer(index, Reason.NO_ROUTE_DESCRIBED)      # nginx makes 500 of 404
            return False
        self._note_refused(c, Verdict.AMBIGUOUS)
        self.counters.refused[<int>Verdict.AMBIGUOUS] += 1
        c.request.closes = True
        self._answer(index, Reason.AMBIGUOUS_DESCRIPTION)
        return False

    cdef void _read_again(self, uint32_t index) noexcept nogil:
        """Make `self.head` this connection's request's, which may have waited since it was read."""
        cdef Conn *c = &self.conns[index]
        if self.head_of == self._handle(index):
            return
        parse_request(self.names, c.held, c.held_size, &self.head)
        self.head_of = self._handle(index)
        self.forwarding.tickets = -1
        if c.request.endpoint == Endpoint.OF_REQUESTS:
            find_original(self.front, &self.routes.table[self.routes.endpoint], c.held, &self.head)

    cdef void _refuse_body(self, uint32_t index) noexcept nogil:
        """Its head was good, so the answer is its route's."""
        cdef Conn *c = &self.conns[index]
        c.request.route = self.routes.find(c.held, &self.head, &c.request.is_plain)
        c.request.is_routed = c.request.route != NO_ROUTE
        if not c.request.is_routed:
            c.request.route = 0
        self._reject_unreadable(index, Reason.BAD_REQUEST)

    cdef void _note_request(self, Conn *c) noexcept nogil:
        """What will be gone when the answer is: for the access log, and the request's id. Without
        memory there is no line.
        """
        cdef Entry *entry
        self._note_nothing(c)
        entry = c.request.entry
        if entry == NULL:
            return
        if self.forwarding.request_id_field.size:
            self.forwarding.name_request(&c.request, c.client.is_trusted, c.held, &self.head)
        if self.log is None:
            return
        self._note_target(c)

    cdef void _note_target(self, Conn *c) noexcept nogil:
        """What is asked for, as `self.head` has it."""
        cdef Entry *entry = c.request.entry
        entry.method_size = <uint8_t>min(self.head.method_name.size, <uint32_t>METHOD_KEPT_MAX)
        entry.host_size = <uint8_t>min(host_size(&self.head), <uint32_t>HOST_KEPT_MAX)
        memcpy(entry.method, c.held + self.head.method_name.at, entry.method_size)
        memcpy(entry.host, host_at(c.held, &self.head), entry.host_size)
        entry.path_size = keep_path(entry.path, c.held + self.head.path.at, self.head.path.size)

    cdef void _note_nothing(self, Conn *c) noexcept nogil:
        """An entry for a request of which nothing is known yet, if there is memory for one."""
        if c.request.entry == NULL:
            c.request.entry = <Entry *>malloc(sizeof(Entry))
            if c.request.entry == NULL:
                return
        c.request.entry.method_size = c.request.entry.host_size = c.request.entry.request_id_size = c.request.entry.principal_size = 0
        c.request.entry.path_size = 0
        c.request.entry.key_id = NO_KEY

    cdef void _note_refused(self, Conn *c, int verdict) noexcept nogil:
        """Whose ticket it is that is not admitted: who he is it says only if its signature was
        good.
        """
        cdef Entry *entry = c.request.entry
        if entry == NULL or c.request.checked.size == 0 or verdict == Verdict.MALFORMED:
            return
        entry.key_id = raw_key_id(c.request.checked.raw)
        if verdict == Verdict.UNKNOWN_KEY or verdict == Verdict.BAD_SIGNATURE:
            return
        entry.principal_size = min(c.request.checked.raw[PRINCIPAL_LENGTH_AT], <uint8_t>PRINCIPAL_KEPT_MAX)
        memcpy(entry.principal, c.request.checked.raw + PRINCIPAL_AT, entry.principal_size)
        encode(c.request.checked.raw + SESSION_ID_AT, 6, entry.session)

    cdef void _note_agent(self, Conn *c) noexcept nogil:
        """For the details of a login: it will be gone when the body goes on. Without memory, or
        such a field, there is none.
        """
        cdef Field *field
        cdef int i
        for i in range(self.head.field_count):
            field = &self.head.fields[i]
            if equals(c.held, field.name, b"user-agent", 10):
                if c.request.agent == NULL:
                    c.request.agent = <Agent *>malloc(sizeof(Agent))
                if c.request.agent != NULL:
                    c.request.agent.size = <uint16_t>min(field.value.size, <uint32_t>AGENT_BYTES_MAX)
                    memcpy(c.request.agent.text, c.held + field.value.at, c.request.agent.size)
                return

    cdef void _note_where(self, Conn *c) noexcept nogil:
        """What decides about cookies: the Host of the request in `self.head`, and whether a proxy
        of ours says that it was https.
        """
        c.request.host_size = <uint8_t>self.head.host.size if self.head.host.size <= HOST_BYTES_MAX else 0
        memcpy(c.request.host, c.held + self.head.host.at, c.request.host_size)
        c.request.is_https = c.client.is_trusted and says_https(c.held, &self.head)

    cdef void _account(self, Conn *c, bint was_cut) noexcept nogil:
        """A request is over: count it, and how long it took."""
        cdef int64_t took_us = max(self.now_us - c.request.began_us, <int64_t>1)
        cdef int bucket = 64 - __builtin_clzll(<unsigned long long>took_us)
        self.counters.latency[min(bucket, LATENCY_BUCKETS - 1)] += 1
        self.counters.latency_us_sum += took_us
        c.request.began_us = 0
        if was_cut:
            self.counters.cut_short += 1
        else:
            self.counters.answers[min(c.request.status // 100, 5)] += 1
        if c.request.agent != NULL or c.request.doubt != NULL or c.request.entry != NULL:
            self._close_entry(c, took_us, was_cut)

    cdef void _close_entry(self, Conn *c, int64_t took_us, bint was_cut) noexcept nogil:
        """What was kept of a request that is over, for others."""
        _free_notes(c)
        if self.log is not None and c.request.entry != NULL:
            self._log(c, took_us, was_cut)

    cdef void _log(self, const Conn *c, int64_t took_us, bint was_cut) noexcept nogil:
        cdef timespec t
        cdef uint8_t[16] session
        cdef char[ADDRESS_TEXT_MAX] client
        cdef Outcome outcome
        client[0] = 0
        if c.client.has_address:
            write_address(c.client.address, client)
        outcome.client = client
        outcome.status = c.request.status
        outcome.body_bytes = c.request.body_bytes_out
        outcome.duration_us = took_us
        outcome.was_cut = was_cut
        outcome.verdict = b"admitted" if c.request.is_admitted else b"anonymous"
        if c.request.reason != NULL:
            outcome.verdict = c.request.reason
        outcome.principal_size = c.request.entry.principal_size
        outcome.principal = c.request.entry.principal
        outcome.session = c.request.entry.session
        outcome.key_id = c.request.entry.key_id
        if c.request.is_admitted:
            outcome.principal = c.request.checked.raw + PRINCIPAL_AT
            outcome.principal_size = c.request.checked.raw[PRINCIPAL_LENGTH_AT]
            encode(c.request.checked.raw + SESSION_ID_AT, 6, session)
            outcome.session = session
        clock_gettime(CLOCK_REALTIME_COARSE, &t)
        self.log.write(c.request.entry, &outcome, <int64_t>t.tv_sec * 1000 + t.tv_nsec // 1_000_000)

    cdef bint _begin_body(self, Conn *c) noexcept nogil:
        """Take what came of the body together with the head; a chunked one is decoded in place.
        False: malformed.
        """
        cdef uint8_t *body = c.held + c.request.head_size
        cdef uint32_t there = c.held_size - c.request.head_size
        cdef uint32_t consumed = 0
        cdef uint32_t produced = 0
        cdef int done
        c.framing = self.head.framing
        c.left = self.head.content_length
        c.complete = True
        if c.framing == Framing.LENGTH:
            c.request.body_size = <uint32_t>min(<uint64_t>there, c.left)
            c.left -= c.request.body_size
            c.complete = c.left == 0
        elif c.framing == Framing.CHUNKED:
            memset(&c.chunks, 0, sizeof(Chunks))
            done = dechunk(&c.chunks, body, there, &consumed, &produced)
            if done < 0:
                return False
            c.request.body_size = produced
            if c.chunks.extension_bytes > self.extension_bytes_max:
                return False
            c.complete = done == 1
            memmove(body + produced, body + consumed, there - consumed)
            c.held_size -= consumed - produced
        return True

    cdef void _check(self, uint32_t index) noexcept nogil:
        """The ticket, from the cookie or `Authorization: Ticket`: exactly one."""
        cdef Conn *c = &self.conns[index]
        cdef int tickets = self.forwarding.find_tickets(&c.request, c.held, &self.head)
        cdef AskKind asks = self._asks_for(c)
        cdef Verdict verdict
        if tickets == 0:
            verdict = Verdict.MISSING
        elif tickets > 1:
            self._wait_for_verdict(index, AskKind.SEVERAL)
            return
        else:
            verdict = self.checker.judge(
                c.held + self.forwarding.ticket.at, self.forwarding.ticket.size, self.checker.now(),
                self._touches(c) and asks == AskKind.AUTHENTICATE, &c.request.checked)
        if verdict == Verdict.HIT and asks == AskKind.AUTHENTICATE:
            self._admit(index)
        elif verdict == Verdict.HIT or verdict == Verdict.MISS or verdict == Verdict.REFRESH:
            self._wait_for_verdict(index, asks)
        else:
            self.counters.forged += verdict == Verdict.BAD_SIGNATURE
            self._refused(index, verdict)

    cdef inline AskKind _asks_for(self, const Conn *c) noexcept nogil:
        """What the control plane is asked where it has to be."""
        if self._is_strong(c):
            return AskKind.AUTHENTICATE_STRONG
        return AskKind.AUTHENTICATE_LATEST if c.request.preferences & Preference.LIFETIME_ASKED else AskKind.AUTHENTICATE

    cdef inline bint _touches(self, const Conn *c) noexcept nogil:
        """Whether the request is use of its session."""
        return self.routes.table[c.request.route].touches and not c.request.preferences & Preference.NO_USE_ASKED

    cdef inline bint _is_strong(self, const Conn *c) noexcept nogil:
        """Whether the store decides. A path that is not plain may be a strong route's to whoever is
        behind us.
        """
        return self.routes.table[c.request.route].is_strong or not c.request.is_plain and self.routes.has_strong

    cdef void _wait_for_verdict(self, uint32_t index, AskKind kind) noexcept nogil:
        enter(&self.conns[index], Downstream.ASKING)
        self._set_timer(index, Timer.ASKED)
        self._ask(index, kind, Span(0, 0))

    cdef void _admit(self, uint32_t index) noexcept nogil:
        self.counters.admitted += 1
        self.conns[index].request.is_admitted = True
        self._forward(index)

    cdef void _pass(self, uint32_t index) noexcept nogil:
        """Without a ticket, or in spite of one."""
        if self.conns[index].request.entry != NULL:
            self.conns[index].request.entry.principal_size = 0
            self.conns[index].request.entry.key_id = NO_KEY
        self.counters.anonymous += 1
        self._forward(index)

    cdef void _ask(self, uint32_t index, AskKind kind, Span value) noexcept nogil:
        cdef Question *ask = &self.ask_list[self.ask_count]
        ask.index = index
        ask.generation = self.conns[index].generation
        ask.kind = <uint8_t>kind
        ask.value = value
        self.conns[index].request.asks += 1
        ask.number = self.conns[index].request.asks
        self.conns[index].request.asked = <uint8_t>kind
        self.ask_count += 1

    cdef void _refused(self, uint32_t index, int verdict) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef bint is_certain = verdict != Verdict.STORE_UNAVAILABLE
        cdef bint has_challenge = True
        cdef bint has_location = False
        cdef int status = 401
        self._note_refused(c, verdict)
        if is_certain and self.routes.table[c.request.route].has_exemption and c.request.is_plain \
                and not c.request.exemption_asked and self._has_exact_path(index):
            c.request.exemption_asked = True
            c.request.verdict = <uint8_t>verdict
            c.request.checked.size = 0
            self._wait_for_verdict(index, AskKind.EXEMPTION)
            return
        c.request.checked.size = 0
        if c.request.auth == Auth.AUTH_OPTIONAL and is_certain:
            self._pass(index)
            return
        self.counters.refused[verdict] += 1
        if verdict == Verdict.AMBIGUOUS:
            c.request.closes = True             # as with every request that can be read in two ways
        if verdict == Verdict.STORE_UNAVAILABLE:
            status = 503
            has_challenge = False
        elif self.forwarding.login_url.size and c.request.endpoint != Endpoint.OF_TICKETS and self._is_browser(index):
            has_challenge = c.request.endpoint and self.front == Front.SAYS_ORIGINAL      # nginx makes 500 of a redirect
            has_location = True
            status = 401 if has_challenge else 302
        elif verdict == Verdict.AMBIGUOUS and not c.request.endpoint:
            status = 400
            has_challenge = False
        self._begin_answer(index, status, slug_of(verdict))
        if has_challenge:
            self._put_challenge(slug_of(verdict))
        if has_location:
            self.forwarding.put_location(&c.request, c.held, &self.head, &self.out)
        self._end_answer(index, status, slug_of(verdict))

    cdef bint _is_browser(self, uint32_t index) noexcept nogil:
        self._read_again(index)
        return is_browser(self.conns[index].held, &self.head)

    # --------------------------------------------------------------------------- answers of our own

    cdef void _reject_unreadable(self, uint32_t index, Reason reason) noexcept nogil:
        """A request that could not be read to its end: nothing after it on this connection can be
        trusted.
        """
        cdef Conn *c = &self.conns[index]
        self.counters.bad_requests += 1
        c.request.is_routed &= c.request.began_us != 0
        c.complete = False
        c.request.held_is_whole = False
        c.request.method = Method.HEAD if asks_head(c.held, c.held_size) else Method.OTHER_METHOD
        if c.request.began_us == 0 and self.keeps_entry:        # nothing is known of it, but who has sent it
            c.request.is_admitted = False
            c.request.body_bytes_out = 0
            c.client.has_address = c.client.peer_text_size > 0
            memcpy(c.client.address, c.client.peer_address, ADDRESS_BYTES)
            self._note_nothing(c)
            if c.request.entry != NULL and self.forwarding.request_id_field.size:
                self.forwarding.name_request(&c.request, False, NULL, NULL)
        self._answer(index, reason)

    cdef void _answer(self, uint32_t index, Reason reason) noexcept nogil:
        """An answer of the table, counted as its row says."""
        cdef const Row *row = row_of(reason)
        self._count(row)
        self._begin_answer(index, row.status, row.slug)
        self._end_answer(index, row.status, row.slug)

    cdef void _count(self, const Row *row) noexcept nogil:
        if row.counter != UNCOUNTED:
            count_one(self.counters, row.counter)

    cdef void _fail_exchange(self, uint32_t index, Reason reason) noexcept nogil:
        """End an exchange with an answer of the table, as `_fail_exchange_as` does."""
        cdef const Row *row = row_of(reason)
        self._count(row)
        self._fail_exchange_as(index, row.status, row.slug)

    cdef void _fail_exchange_as(self, uint32_t index, int status, const char *slug) noexcept nogil:
        """The exchange can not be completed. If its response has begun, the client learns it from
        the closed connection.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t upstream = c.peer
        if upstream != NONE:
            c.peer = NONE
            self.conns[upstream].peer = NONE
            self._close(upstream)
        if c.request.answered:
            self._close(index)
        else:
            self._begin_answer(index, status, slug)
            self._end_answer(index, status, slug)

    cdef void _begin_answer(self, uint32_t index, int status, const char *slug) noexcept nogil:
        """The head of an answer without an upstream, up to fields that only some of them have. Every
        503 says when to try again.
        """
        cdef Conn *c = &self.conns[index]
        cdef const char *phrase = phrase_of(status)
        self._set_date()
        self.out.size = 0
        put(&self.out, b"HTTP/1.1 ", 9)
        put_number(&self.out, status)
        put(&self.out, b" ", 1)
        put_text(&self.out, phrase)
        put(&self.out, b"\r\n", 2)
        put_text(&self.out, self.date)
        put(&self.out, b"Content-Type: application/json\r\n", 32)
        put_length(&self.out, BODY_FRAME_BYTES + strlen(phrase) + strlen(slug))
        put(&self.out, b"Cache-Control: no-store\r\n", 25)
        put_text(&self.out, b"Retry-After: 1\r\n" if status == 503 else b"")
        if c.request.doubt != NULL:
            put(&self.out, c.request.doubt.text, c.request.doubt.fields_size)

    cdef void _put_challenge(self, const char *slug) noexcept nogil:
        put_text(&self.out, b"WWW-Authenticate: Ticket realm=\"fastticket\", error=\"")
        put_text(&self.out, slug)
        put(&self.out, b"\"\r\n", 3)

    cdef void _end_answer(self, uint32_t index, int status, const char *slug) noexcept nogil:
        """The rest of its head, and JSON with the reason."""
        cdef Conn *c = &self.conns[index]
        put_text(&self.out, self._connection_field(c))
        if self.forwarding.request_id_field.size:
            self.forwarding.put_request_id(&c.request, &self.out)
        if c.request.is_routed:
            self.forwarding.put_own_fields(&self.routes.table[c.request.route].response_fields, &self.out)
        put(&self.out, b"\r\n", 2)
        if c.request.method != Method.HEAD:
            put(&self.out, b"{\"error\": \"", 11)
            put_text(&self.out, phrase_of(status))
            put(&self.out, b"\", \"reason\": \"", 14)
            put_text(&self.out, slug)
            put(&self.out, b"\"}\n", 3)
        c.request.reason = slug
        self._deliver(index, status, self.out.at, self.out.size)

    cdef void _answer_identity(self, uint32_t index) noexcept nogil:
        """What another gateway has asked: the request may pass, and whose it is."""
        cdef Conn *c = &self.conns[index]
        cdef const char *connection = self._connection_field(c)
        cdef int status = 200 if self.front == Front.SAYS_BELOW else 204      # Envoy takes 204 for a refusal
        self.out.size = 0
        self._set_date()
        if status == 200:
            put(&self.out, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", 36)
        else:
            put(&self.out, b"HTTP/1.1 204 No Content\r\n", 25)
        put_text(&self.out, self.date)
        put(&self.out, b"Cache-Control: no-store\r\n", 25)
        if self.forwarding.request_id_field.size:
            self.forwarding.put_request_id(&c.request, &self.out)
        put(&self.out, self.forwarding.identity_field.at, self.forwarding.identity_field.size)
        if c.request.is_admitted:                           # else empty, in place of what a client may have sent
            self.forwarding.put_identity(&c.request, &self.out)
        put(&self.out, b"\r\n", 2)
        if c.request.preferences & Preference.LIFETIME_ASKED:
            self.forwarding.put_lifetime(&c.request, &self.out)
        put_text(&self.out, connection)
        put(&self.out, b"\r\n", 2)
        self._deliver(index, status, self.out.at, self.out.size)

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
            c.request.closes = True
        if c.request.closes:
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if c.request.minor == 0 else b""

    cdef void _deliver(self, uint32_t index, int status, const uint8_t *answer, uint32_t size) noexcept nogil:
        """An answer of our own, whole."""
        self.conns[index].request.status = <uint16_t>status
        if self.conns[index].request.began_us:
            self._account(&self.conns[index], False)
        elif self.log is not None and self.conns[index].request.entry != NULL:
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
        enter(&self.conns[index], Downstream.FLUSHING)
        self.conns[index].taken_bytes = 0
        self._set_timer(index, Timer.RESPONSE_BODY)

    cdef void _after_answer(self, uint32_t index) noexcept nogil:
        """The next request, or the end. Whatever of the next one was read already is `held` after
        this one.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t done = c.request.head_size + c.request.body_size if c.request.held_is_whole else 0
        if c.request.closes or self.closes_idle:            # one whose answer said nothing of an end is let go of between two requests
            self._linger(index, c.held_size > done)
            return
        self.head_of = NOBODYS
        c.held_size -= done
        c.request.head_size = c.request.body_size = 0
        c.waits = 0
        c.request.held_is_whole = False
        if c.held_size:
            memmove(c.held, c.held + done, c.held_size)
            enter(c, Downstream.NEXT_HELD)
            self._set_timer(index, Timer.HEAD_IN)
        else:
            self._wait_for_request(index)

    cdef void _wait_for_request(self, uint32_t index) noexcept nogil:
        """Nothing of it is there."""
        cdef Conn *c = &self.conns[index]
        self._give_block(c.held)
        c.held = NULL
        enter(c, Downstream.IDLE)
        self._set_timer(index, Timer.KEEP_ALIVE)

    cdef void _linger(self, uint32_t index, bint more_held) noexcept nogil:
        """Close so that the client sees the answer: unread bytes would turn the close into a reset
        (RFC 9112, 9.6).
        """
        cdef Conn *c = &self.conns[index]
        if c.request.is_unframed:
            self._guard_end(c, False)
        if c.complete and not c.readable and not more_held:
            self._close(index)
            return
        shutdown(c.fd, SHUT_WR)
        enter(c, Downstream.LINGERING)
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
        self._continue_later(index)

    # ------------------------------------------------------------------------ upstream: connections

    cdef void _forward(self, uint32_t index) noexcept nogil:
        """Give the request to a server of its group, over a pooled connection if there is one. If
        all are busy it waits.
        """
        cdef Conn *c = &self.conns[index]
        cdef Group *group = &self.upstreams.groups[self.routes.table[c.request.route].group]
        cdef uint16_t server
        cdef uint32_t upstream
        if c.request.endpoint:
            self._answer_identity(index)
            return
        if group.count == 0:  # its names have no address yet
            self._fail_exchange(index, Reason.UPSTREAM_UNRESOLVED)
            return
        if c.kept != NONE:
            upstream = self._kept_for(index, group)
            if upstream != NONE and is_busy(group, &self.upstreams.servers[self.conns[upstream].link.server]):
                self._make_pending(index, group)
                return
            if upstream != NONE:
                self._use_kept(index, upstream)
                return
        while c.request.attempts <= group.count:
            if c.request.attempts and not self.upstreams.may_retry(group):
                break
            server = self.upstreams.pick(group, self._key(c, group), self.now_ms)
            if server == NOBODY:
                self._make_pending(index, group)
                return
            if c.request.attempts == 0:
                self.upstreams.earn(group)
            else:
                self.counters.retries += 1
            c.request.attempts += 1
            upstream = NONE if c.request.retried else self._unpool(server, _can_be_sent_again(c))
            if upstream == NONE:
                upstream = self._connect(server)
                if upstream == NO_DESCRIPTOR:
                    self._fail_exchange(index, Reason.OUT_OF_DESCRIPTORS)
                    return
                if upstream == NONE:
                    continue
            c.peer = upstream
            self.conns[upstream].peer = index
            self.conns[upstream].waits = c.waits
            if self.conns[upstream].state == Upstream.OPENING:
                enter(c, Downstream.CONNECTING)
                self._clear_timer(index)
                self._set_timer(upstream, Timer.CONNECT)
            else:
                self._send_request(index)
            return
        self._fail_exchange(index, Reason.UPSTREAM_REFUSED)

    # ------------------------------------------------------------- upstream: somebody's connections

    cdef uint32_t _kept_for(self, uint32_t index, const Group *group) noexcept nogil:
        """The connection that is this client's, if it is one to this group, for this principal; or
        NONE. A useless one is closed.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t upstream = c.kept
        cdef Conn *u = &self.conns[upstream]
        cdef Server *server = &self.upstreams.servers[u.link.server]
        if &self.upstreams.groups[server.group] != group:
            return NONE
        if server.is_retired or c.request.retried or not _is_same_principal(c, u):
            self._close(upstream)
            return NONE
        if not _can_be_sent_again(c):
            u.readable = True                           # ask the kernel
            if not self._is_quiet(u):
                self._close(upstream)
                return NONE
        return upstream

    cdef bint _waits_for_kept(self, const Conn *c, const Group *group) noexcept nogil:
        """Whether a pending request is for a connection of its client's own, whose server is
        busy: no other one will do.
        """
        cdef const Server *server
        if c.kept == NONE:
            return False
        server = &self.upstreams.servers[self.conns[c.kept].link.server]
        return &self.upstreams.groups[server.group] == group and not server.is_retired \
            and _is_same_principal(c, &self.conns[c.kept]) and is_busy(group, server)

    cdef void _use_kept(self, uint32_t index, uint32_t upstream) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Conn *u = &self.conns[upstream]
        cdef Server *server = &self.upstreams.servers[u.link.server]
        server.kept_count -= 1
        self.upstreams.earn(&self.upstreams.groups[server.group])
        c.request.attempts += 1
        c.peer = upstream
        u.peer = index
        u.waits = c.waits
        enter(u, Upstream.AWAITING_HEAD)
        self._send_request(index)

    cdef void _keep(self, uint32_t index, uint32_t downstream) noexcept nogil:
        """Whoever authenticates over this connection is whom it takes for the sender of each
        request: so it stays this client's.

        A proxy of ours has many clients, of whom we tell apart only those with a ticket.
        """
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[downstream]
        cdef Server *server = &self.upstreams.servers[c.link.server]
        if d.request.closes or self.leaving or server.is_retired or d.client.is_trusted and not d.request.is_admitted:
            self._close(index)
            return
        if d.kept != NONE and d.kept != index:
            self._close(d.kept)
        c.kept = downstream
        d.kept = index
        c.link.principal_size = 0
        if d.request.is_admitted:
            c.link.principal_size = d.request.checked.raw[PRINCIPAL_LENGTH_AT]
            memcpy(c.link.principal, d.request.checked.raw + PRINCIPAL_AT, c.link.principal_size)
        c.waits = 0
        free(c.held)
        c.held = NULL
        c.held_size = 0
        c.link.reused = True
        enter(c, Upstream.KEPT)
        server.kept_count += 1
        self._has_room(c.link.server)

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
        if group.balance == Balance.TICKET_HASH and c.request.is_admitted:
            return _ticket_key(c.request.checked.raw, c.request.checked.size)
        if group.balance != Balance.IP_HASH or not c.client.has_address:
            return 0
        memcpy(&high, c.client.address, 8)
        memcpy(&low, c.client.address + 8, 8)
        return mix(mix(high) ^ low) | 1

    # ----------------------------------------------------------------------------- pending requests

    cdef void _forward_now(self, uint32_t index) noexcept nogil:
        """A request that has waited: whether it is admitted may have changed meanwhile. It is asked
        again once.
        """
        cdef Conn *c = &self.conns[index]
        cdef bint is_strong = self._is_strong(c)
        if c.request.is_admitted and not c.request.was_confirmed:
            if is_strong or self.checker.judge_again(&c.request.checked, self.checker.now(), False) != Verdict.HIT:
                c.request.was_confirmed = True
                c.request.is_admitted = False
                self.counters.admitted -= 1
                self._wait_for_verdict(index, AskKind.AUTHENTICATE_STRONG if is_strong else AskKind.AUTHENTICATE)
                return
        self._forward(index)

    cdef void _make_pending(self, uint32_t index, Group *group) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if group.pending_count >= group.pending_max:
            self._fail_exchange(index, Reason.UPSTREAM_BUSY)
            return
        append(&self.conns.place, sizeof(Conn), &group.pending_first, &group.pending_last, index)
        group.pending_count += 1
        enter(c, Downstream.QUEUED)
        self._set_timer(index, Timer.PENDING)

    cdef void _leave_pending(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Group *group = &self.upstreams.groups[self.routes.table[c.request.route].group]
        remove(&self.conns.place, sizeof(Conn), &group.pending_first, &group.pending_last, index)
        group.pending_count -= 1
        enter(c, Downstream.READING_HEAD)

    cdef void _has_room(self, uint16_t server) noexcept nogil:
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
                following = c.place.next
                if self._waits_for_kept(c, group):
                    index = following
                    continue
                if self.upstreams.would_place(group, self._key(c, group), self.now_ms):
                    self._leave_pending(index)
                    self._clear_timer(index)
                    self._forward_now(index)
                    self._advance_downstream(index)
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
        cdef bint is_pending
        cdef uint32_t index
        if fd < 0:
            return NO_DESCRIPTOR
        if at.address.ss_family != AF_UNIX:
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        is_pending = connect(fd, <const sockaddr *>&at.address, at.address_size) != 0
        if is_pending and errno != EINPROGRESS:
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
        self.conns[index].link.server = server
        self.conns[index].watches_out = is_pending
        if not self._watch(index, EPOLLIN | EPOLLRDHUP | EPOLLET | (EPOLLOUT if is_pending else 0), EPOLL_CTL_ADD):
            self._close(index)
            return NONE
        self.counters.upstream_connects += 1
        enter(&self.conns[index], <int>Upstream.OPENING if is_pending else <int>Upstream.AWAITING_HEAD)
        if not is_pending:
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
        cdef uint32_t index = self.deadlines[<int>Timer.POOL].first
        if index == NONE:
            index = self.deadlines[<int>Timer.KEEP_ALIVE].first
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
        self.upstreams.connected(c.link.server, self.now_ms)
        self._send_request(c.peer)

    cdef void _connect_failed(self, uint32_t index, int reason) noexcept nogil:
        """Nothing of the request was sent: another server may have it, whatever its method."""
        cdef uint32_t downstream = self.conns[index].peer
        self.counters.upstream_errors += 1
        self.upstreams.failed(self.conns[index].link.server, self.now_ms, reason)
        self.conns[downstream].peer = NONE
        self._close(index)
        self._forward(downstream)

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
            if self.conns[index].link.usable_until_ms and self.conns[index].link.usable_until_ms <= self.now_ms:
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
        cdef Server *server = &self.upstreams.servers[c.link.server]
        if server.idle_count >= IDLE_MAX or self.draining or server.is_retired \
                or self.descriptors_max and self.downstream_count + self.upstream_count > self.descriptors_max:
            self._close(index)
            return
        if self.pooled_count >= self.downstream_max:
            self._close(self.deadlines[<int>Timer.POOL].first)
        self.pooled_count += 1
        self._has_room(c.link.server)
        c.link.usable_until_ms = 0
        if c.link.keep_alive_s >= 0:
            c.link.usable_until_ms = self.now_ms + _usable_ms(c.link.keep_alive_s)
        c.waits = 0
        free(c.held)
        c.held = NULL
        c.held_size = 0
        c.peer = NONE
        c.link.reused = True
        enter(c, Upstream.POOLED)
        prepend(&self.conns.place, sizeof(Conn), &server.idle_first, NULL, index)
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
        cdef Server *server = &self.upstreams.servers[c.link.server]
        remove(&self.conns.place, sizeof(Conn), &server.idle_first, NULL, index)
        server.idle_count -= 1
        self.pooled_count -= 1
        enter(c, Upstream.AWAITING_HEAD)

    # --------------------------------------------------------------------------- upstream: requests

    cdef void _send_request(self, uint32_t index) noexcept nogil:
        """Write the head anew, with what is held of the body, in one send."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t upstream = c.peer
        cdef Conn *u = &self.conns[upstream]
        cdef const Route *route = &self.routes.table[c.request.route]
        cdef bint continues
        self._read_again(index)
        continues = self.head.expect_continue and not c.complete and c.request.body_size == 0
        if not c.complete:
            self._note_where(c)                 # the head will be gone when the body goes on
        if self.records_agent and route.logs_in:
            self._note_agent(c)
        self.out.size = 0
        self.forwarding.put_request_head(&c.client, &c.request, c.held, &self.head, route, c.framing, &self.out)
        u.sends_chunks = c.framing == Framing.CHUNKED
        put_body(&self.out, c.held + c.request.head_size, c.request.body_size, u.sends_chunks, c.complete)
        enter(c, Downstream.EXCHANGING)
        enter(u, Upstream.AWAITING_HEAD)
        u.complete = False
        u.link.interims = 0
        u.link.is_personal |= self.head.is_personal
        if c.complete:
            self._clear_timer(index)
            self._set_timer(upstream, Timer.FIRST_BYTE)
        else:
            self._await_body(index)
        if not self._send(upstream, self.out.at, self.out.size):
            self._send_failed(upstream)
            return
        if u.unsent != NULL:
            self._restart_silence(upstream)
        if continues and not self._send(index, b"HTTP/1.1 100 Continue\r\n\r\n", 25):
            self._close_both(index)

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
            if c.side == Side.UPSTREAM and c.state != Upstream.RELAYING and c.state != Upstream.TUNNELLED:
                return
            if self.conns[peer].link.send_failed:
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
            self._continue_later(index)

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
            c.request.is_used |= self._is_use(c, at, produced)
            self.head_of = NOBODYS
            c.request.held_is_whole = False                 # streamed: it can not be sent again
            c.held_size = size - consumed           # of the next request
            if c.held_size:
                memcpy(c.held, at + consumed, c.held_size)
        else:
            self.conns[peer].request.body_bytes_out += produced
            self.conns[peer].request.is_used |= c.framing == Framing.LENGTH     # a download: it has an end
            if consumed < size:
                c.link.keeps_alive = False
        if c.state == Upstream.TUNNELLED:
            follow(&c.frames, at, produced)
            if c.link.is_parted:
                return True
        if not self._send_body(peer, at, produced, c.complete):
            self._send_failed(peer)
            return False
        if c.complete:
            self._body_complete(index)
            return False
        if c.state == Upstream.RELAYING:
            self.conns[peer].taken_bytes = 0
            self._set_timer(index, Timer.RESPONSE_BODY)
        else:
            self._restart_silence(peer if c.side == Side.DOWNSTREAM else index)
        return True

    cdef bint _is_use(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil:
        """Whether what a client sends is use of its session: all but frames of control (RFC 6455,
        5.5), which nobody sends by hand.
        """
        if c.state != Downstream.TUNNELLING or c.request.upgrade != self.forwarding.websocket:
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
            if self.conns[c.peer].state == Upstream.AWAITING_HEAD:
                self._set_timer(c.peer, Timer.FIRST_BYTE)
            elif c.request.is_admitted:
                self._set_timer(index, Timer.VOUCH)             # its response goes on already

    cdef void _body_ended(self, uint32_t index, bint cleanly) noexcept nogil:
        """The sender has closed: the end of a message that goes on until then, or a message cut
        short.
        """
        cdef Conn *c = &self.conns[index]
        if is_tunnelling(c) and cleanly:
            c.complete = True
            if self.conns[c.peer].complete:
                self._close_both(index)
            else:
                shutdown(self.conns[c.peer].fd, SHUT_WR)
        elif c.framing == Framing.UNTIL_CLOSE and cleanly and c.side == Side.UPSTREAM:
            c.complete = True
            if not self._send_body(c.peer, self.scratch + CHUNK_HEADER_BYTES, 0, True):
                self._close_both(index)
                return
            self._finish(index)
        else:
            if c.side == Side.UPSTREAM:
                self.counters.upstream_errors += 1
            self._close_both(index)

    cdef void _malformed_body(self, uint32_t index) noexcept nogil:
        if self.conns[index].side == Side.DOWNSTREAM:
            self.counters.bad_requests += 1
            self._fail_exchange(index, Reason.BAD_REQUEST)
        else:
            self.counters.upstream_errors += 1
            self._note(self.conns[index].link.server, b"a chunked body that is none")
            self._close_both(index)

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
        self._note(self.conns[index].link.server, what)
        self._fail_exchange(self.conns[index].peer, Reason.UPSTREAM_MALFORMED)

    cdef void _advance_upstream(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef int _
        if c.side != Side.UPSTREAM:
            return
        if c.state == Upstream.POOLED or c.state == Upstream.KEPT:
            if c.readable:
                self._close(index)                  # the end of it, or bytes that nobody asked for
        elif c.state == Upstream.AWAITING_HEAD:
            for _ in range(READS_MAX):
                if c.side != Side.UPSTREAM or c.state != Upstream.AWAITING_HEAD or not c.readable \
                        or self.conns[c.peer].state != Downstream.EXCHANGING:
                    return
                self._read_response(index)
            self._continue_later(index)
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
            if c.link.send_failed and not c.readable:
                self._response_missing(index)
            return
        if size <= 0:
            self._response_missing(index)
            return
        self._received(c, size, room)
        if c.held_size:
            c.held_size += <uint32_t>size
            self._on_response(index, c.held, c.held_size)
        else:
            self._on_response(index, at, <uint32_t>size)

    cdef void _response_missing(self, uint32_t index) noexcept nogil:
        """The upstream closed before it answered. If it is one that had been idle, it may not have
        seen the request at all.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        cdef bint again = c.link.reused and c.held_size == 0 and not d.request.retried and not d.request.answered \
            and _can_be_sent_again(d)
        if not again:
            self.upstreams.faulted(c.link.server, self.now_ms)
            self._note(c.link.server, b"closed before its head was there")
            self._fail_exchange(downstream, Reason.UPSTREAM_CLOSED)
            return
        self.counters.upstream_errors += 1
        d.peer = NONE
        c.peer = NONE
        self._close(index)
        d.request.retried = True
        self._forward(downstream)

    cdef void _on_response(self, uint32_t index, uint8_t *at, uint32_t size) noexcept nogil:
        """Read a response head; drop interim ones (RFC 9110, 15.2); see whether the control plane
        has a word in it.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        cdef Text nothing = Text(NULL, 0)
        cdef int result
        while True:
            self.head_of = NOBODYS
            result = parse_response(self.names, at, size, d.request.method, &self.head)
            if result == INCOMPLETE and size < self.response_head_bytes:
                if not self._hold(c, at, size):
                    self._fail_exchange(downstream, Reason.OUT_OF_MEMORY)
                return
            if result <= 0 or <uint32_t>result > self.response_head_bytes \
                    or self.head.status == 101 and not self.forwarding.agrees(d.request.upgrade, at, &self.head):
                self.upstreams.faulted(c.link.server, self.now_ms)
                self._malformed(index, self._fault_of(result, at, size, d.request.method))
                return
            c.link.is_personal |= self.head.is_personal
            if self.head.status >= 200 or self.head.status == 101:
                break
            c.link.interims += 1
            if c.link.interims > INTERIMS_MAX:
                self.upstreams.faulted(c.link.server, self.now_ms)
                self._malformed(index, b"interim responses without end")
                return
            at += result
            size -= result
            if size == 0:
                c.held_size = 0
                return
        if not self._changes_session(index, at, size):
            self._relay(index, at, size, &nothing)

    cdef const char *_fault_of(self, int result, const uint8_t *at, uint32_t size, Method method) noexcept nogil:
        """Why a head is none that goes on; `result` is what `parse_response` said."""
        if result < 0:
            return fault_of(self.names, at, size, method, &self.head)
        if result == INCOMPLETE or <uint32_t>result > self.response_head_bytes:
            return b"a head of more than response_head_bytes_max"
        return b"a change of protocols that nobody asked for"

    cdef bint _hold(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil:
        if c.held == NULL:
            c.held = <uint8_t *>malloc(SCRATCH_BYTES)
            if c.held == NULL:
                return False
        memmove(c.held, at, size)
        c.held_size = size
        return True

    cdef bint _changes_session(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil:
        """Whether the application begins, ends or renews a session. Then the response waits for the
        control plane.
        """
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[c.peer]
        cdef Field *field
        cdef Field *change = NULL
        cdef int kind = Change.NO_CHANGE
        cdef int said
        cdef int i
        for i in range(self.head.known_count):
            field = &self.head.fields[self.head.known[i]]
            if field.kind != Kind.DROP and not Kind.TICKET_LOGIN <= field.kind <= Kind.TICKET_ROTATE:
                continue
            said = self._change_asked(d, at, field)
            if said == Change.NO_CHANGE:
                continue
            if change != NULL or said == Change.UNCLEAR:         # of several, never guess which
                self._malformed(index, b"several wishes for the session" if change != NULL else b"an X-Ticket field with an odd value")
                return True
            change = field
            kind = said
        if kind == Change.NO_CHANGE or kind == Change.IGNORED:
            return False
        if not self._hold(c, at, size):
            self._fail_exchange(c.peer, Reason.OUT_OF_MEMORY)
            return True
        self._clear_timer(index)
        enter(d, Downstream.CHANGING)
        self._set_timer(c.peer, Timer.ASKED)
        self._ask(c.peer, <AskKind>kind, change.value)
        return True

    cdef int _change_asked(self, const Conn *d, const uint8_t *at, const Field *field) noexcept nogil:
        """What one field of a response wants of the session. An end or a change that can not be
        read must not pass for done.
        """
        cdef Kind kind = field.kind
        if kind == Kind.DROP:
            kind = self.names.kind_of(at + field.name.at, field.name.size)
            return <int>Change.UNCLEAR if kind == Kind.TICKET_LOGOUT or kind == Kind.TICKET_ROTATE else <int>Change.NO_CHANGE
        if kind == Kind.TICKET_LOGIN:
            return self._login_kind(at) if self.routes.table[d.request.route].logs_in and d.request.is_plain else <int>Change.IGNORED
        if kind == Kind.TICKET_LOGOUT and equals(at, field.value, b"session", 7):
            return <int>AskKind.LOGOUT if d.request.is_admitted or d.request.doubt != NULL else <int>Change.IGNORED
        if kind == Kind.TICKET_LOGOUT and equals(at, field.value, b"everywhere", 10):
            return <int>AskKind.LOGOUT_EVERYWHERE if d.request.is_admitted or d.request.doubt != NULL else <int>Change.IGNORED
        if kind == Kind.TICKET_ROTATE and equals(at, field.value, b"1", 1):
            return <int>AskKind.ROTATE if d.request.is_admitted else <int>Change.IGNORED
        return <int>Change.NO_CHANGE if kind == Kind.TICKET_REMEMBER else <int>Change.UNCLEAR

    cdef int _login_kind(self, const uint8_t *at) noexcept nogil:
        """Whether the client is to be remembered, as `self.head` says once, or not at all."""
        cdef Field *field
        cdef int kind = AskKind.LOGIN
        cdef int i
        for i in range(self.head.known_count):
            field = &self.head.fields[self.head.known[i]]
            if field.kind == Kind.TICKET_REMEMBER:
                if kind != AskKind.LOGIN or not equals(at, field.value, b"1", 1):
                    return Change.UNCLEAR
                kind = AskKind.LOGIN_REMEMBERED
        return kind

    cdef void _relay(self, uint32_t index, uint8_t *at, uint32_t size, const Text *fields) noexcept nogil:
        """Write the response head anew, with what came of the body, in one send. `self.head` has
        been read from `at`; `fields` are lines of the control plane.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        cdef Head *head = &self.head
        cdef uint32_t consumed = size - head.size
        cdef uint32_t produced = consumed
        cdef bint is_tunnel = head.status == 101
        cdef int dropped
        c.framing = Framing.UNTIL_CLOSE if is_tunnel else head.framing
        c.left = head.content_length
        c.complete = False
        c.link.keeps_alive = c.framing != Framing.UNTIL_CLOSE and not head.close and (head.minor == 1 or head.keep_alive) \
            and d.request.upgrade == 0              # one that was declined: the parser behind may have stopped at the offer
        memset(&c.chunks, 0, sizeof(Chunks))
        if not self._take_body(c, at + head.size, &consumed, &produced) or consumed < size - head.size:
            self._malformed(index, b"a body that is not as its head says")
            return
        c.link.keep_alive_s = head.keep_alive_s
        if c.framing == Framing.NO_BODY or c.framing == Framing.LENGTH and c.left == 0:
            c.complete = True
        if self.leaving or not d.complete and c.complete:
            d.request.closes = True
        d.sends_chunks = not is_tunnel and d.request.minor == 1 and (c.framing == Framing.CHUNKED or c.framing == Framing.UNTIL_CLOSE)
        if d.request.minor == 0 and (c.framing == Framing.CHUNKED or c.framing == Framing.UNTIL_CLOSE):
            d.request.closes = True
            self._guard_end(d, True)
        self.out.size = 0
        dropped = self.forwarding.put_response_head(
            &d.request, d.sends_chunks, at, head, &self.routes.table[d.request.route], fields, &self.out)
        if dropped:
            self._note_dropped(c.link.server, dropped)
        put_body(&self.out, at + head.size, produced, d.sends_chunks, c.complete)
        self.counters.responses += 1
        self.upstreams.servers[c.link.server].faults = 0
        d.request.answered = True
        d.request.status = <uint16_t>head.status
        d.request.body_bytes_out = produced
        d.taken_bytes = 0
        enter(c, Upstream.RELAYING)
        c.held_size = 0
        if not self._send(downstream, self.out.at, self.out.size):
            self._close_both(downstream)
        elif is_tunnel:
            memset(&c.frames, 0, sizeof(Frames))
            follow(&c.frames, at + head.size, produced)
            self._open_tunnel(index)
        elif c.complete:
            self._finish(index)
        else:
            self._set_timer(index, Timer.RESPONSE_BODY)
            if d.request.is_admitted and d.complete:
                self._set_timer(downstream, Timer.VOUCH)
            elif not d.complete and d.deadlines == 0:       # the response had to wait for the control plane
                self._await_body(downstream)
            self._pump(index)

    cdef void _note_dropped(self, uint16_t server, int cookies) noexcept nogil:
        """So many cookies of the ticket's name, that it had no right to set."""
        cdef int _
        self.counters.cookies_dropped += cookies
        for _ in range(cookies):
            self._note(server, NULL)

    cdef void _guard_end(self, Conn *c, bint is_unframed) noexcept nogil:
        """From the head of an answer whose end is the connection's to its last byte, whatever
        closes that resets it: a service that breaks off, a deadline, the death of this process. The
        kernel is told beforehand, so nothing else has to think of it.
        """
        cdef linger how
        how.l_onoff = is_unframed
        how.l_linger = 0
        c.request.is_unframed = is_unframed
        setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &how, sizeof(how))

    cdef void _open_tunnel(self, uint32_t index) noexcept nogil:
        """101: from here on bytes pass both ways unread, until both sides have closed."""
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[c.peer]
        cdef uint32_t early = d.held_size - d.request.head_size
        d.framing = Framing.UNTIL_CLOSE
        d.complete = False
        d.request.closes = True
        c.sends_chunks = False
        c.link.is_parted = False
        enter(c, Upstream.TUNNELLED)
        enter(d, Downstream.TUNNELLING)
        memset(&d.frames, 0, sizeof(Frames))
        d.request.is_used = early and self._is_use(d, d.held + d.request.head_size, early)
        self._account(d, False)
        self.counters.tunnels += 1
        self._set_timer(index, Timer.TUNNEL)
        if d.request.is_admitted:
            self._set_timer(c.peer, Timer.VOUCH)
        if early and not self._send(index, d.held + d.request.head_size, early):
            self._close_both(index)
            return
        d.request.held_is_whole = False
        d.held_size = 0
        self._pump(index)

    cdef bint _part(self, uint32_t index) noexcept nogil:
        """A close frame to the client of a tunnel, between two frames of its upstream. Its answer
        passes, and so both sides end it.
        """
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[c.peer]
        if c.link.is_parted or c.frames.has_closed or c.complete or d.request.upgrade != self.forwarding.websocket or d.unsent != NULL:
            return False
        if not is_between(&c.frames):
            return False
        c.link.is_parted = True
        if not self._send(c.peer, close_frame(), CLOSE_FRAME_BYTES):
            self._close_both(index)
        return True

    cdef void _finish(self, uint32_t index) noexcept nogil:
        """The response is complete: part the two connections."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        self._clear_timer(index)
        self._clear_timer(downstream)
        self._account(d, False)
        d.request.is_vouched = False
        d.peer = NONE
        c.peer = NONE
        if not d.complete:
            d.request.closes = True                         # an early answer: the rest of the request is not wanted
        if c.link.keeps_alive and d.complete and c.unsent == NULL and not c.link.send_failed and self._is_quiet(c):
            if c.link.is_personal:
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
        return c.request.is_vouched
    return c.state == <int>(Downstream.ASKING if kind < AskKind.LOGIN else Downstream.CHANGING)


cdef uint64_t _ticket_key(const uint8_t *raw, int size) noexcept nogil:
    """By its tag, not by the session's id: which server a session has says nothing about its id
    (docs/decisions/0010).
    """
    cdef uint64_t key
    memcpy(&key, raw + size - TAG_BYTES, 8)
    return le64toh(key) | 1


cdef bint _is_same_principal(const Conn *d, const Conn *kept) noexcept nogil:
    """Whether a request is of the principal that a connection is kept for; one without a ticket
    only where none was before.
    """
    if not d.request.is_admitted or kept.link.principal_size == 0:
        return not d.request.is_admitted and kept.link.principal_size == 0
    return d.request.checked.raw[PRINCIPAL_LENGTH_AT] == kept.link.principal_size and memcmp(
        d.request.checked.raw + PRINCIPAL_AT, kept.link.principal, kept.link.principal_size) == 0


cdef int64_t _usable_ms(int keep_alive_s) noexcept nogil:
    """How long a connection is used again that its server closes after so long: less, for what is
    on its way then.
    """
    return keep_alive_s * <int64_t>1000 - min(1000, keep_alive_s * 500)


cdef void _free_notes(Conn *c) noexcept nogil:
    """What was kept of a request until its answer."""
    free(c.request.agent)
    c.request.agent = NULL
    free(c.request.doubt)
    c.request.doubt = NULL


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


cdef bint _can_be_sent_again(const Conn *d) noexcept nogil:
    """Whether all of a request is held, and doing it twice is as good as once (RFC 9110, 9.2.2)."""
    cdef Method method = d.request.method
    return d.request.held_is_whole and d.complete and (
        method == Method.GET or method == Method.HEAD or method == Method.OPTIONS
        or method == Method.PUT or method == Method.DELETE
    )
