# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""The data plane: an HTTP/1.1 reverse proxy on an epoll of its own, driven from one event-loop
callback, or in a thread of its own, without the GIL.

    turn()      every ready socket: recv -> head -> ticket -> patched head -> send
    tick()      what took too long
    run()       both, for as long as it is not stopped, in a thread
    asks()      what only the control plane can answer (load a session, log in, log out); it answers by handle

This is the uppermost layer: clients, and the requests that they send. connections.pyx names the
layers below it and the rules of all of them.
"""

cimport cython
from cpython.buffer cimport PyBuffer_IsContiguous
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy, memmove

from fastticket.core.check cimport Checker
from fastticket.core.verdict cimport Verdict
from fastticket.dataplane.accesslog cimport AccessLog
from fastticket.dataplane.answers cimport LOCATION_BYTES_MAX, NO_HANDLE
from fastticket.dataplane.asks cimport IS_BELIEVED, IS_LAST, Order, Question, Told
from fastticket.dataplane.clients cimport (
    ADDRESS_BYTES,
    Announced,
    Who,
    read_proxy_header,
    write_address,
)
from fastticket.dataplane.conn cimport DOUBT_BYTES_MAX, Conn, Side, enter, is_idle, reads_heads
from fastticket.dataplane.connections cimport READS_MAX, SCRATCH_BYTES, Timer
from fastticket.dataplane.counters cimport Counters
from fastticket.dataplane.dialogue cimport EXTRA_BYTES_MAX
from fastticket.dataplane.minted cimport MINTED_BYTES_MAX
from fastticket.dataplane.forwarding cimport Forwarding
from fastticket.dataplane.http1 cimport FIELDS_MAX, Head, TARGET_BYTES_MAX, parse_request
from fastticket.dataplane.octets cimport INCOMPLETE
from fastticket.dataplane.lists cimport NONE
from fastticket.dataplane.occupancy cimport COUNT_ORDER, Occupancy, count_of, less_of, more_of, set_count
from fastticket.dataplane.reasons cimport Reason, unreadable
from fastticket.dataplane.routes cimport Routes, Text
from fastticket.dataplane.sockets cimport *
from fastticket.dataplane.states cimport Downstream, Upstream
from fastticket.dataplane.upstreams cimport Upstreams

import os

from fastticket.dataplane.connections import ROUTE_TIMEOUTS, TIMEOUTS_S  # no-cython-lint: re-exported for gateway/
from fastticket.dataplane.counters import COUNTERS_BYTES as _COUNTERS_BYTES, read_counters as _read_counters
from fastticket.dataplane.endpoint import FRONTS as _FRONTS

cdef enum:
    ACCEPTS_MAX = 64
    RELEASED_AT_ONCE = 1024             # by a plane in a thread, before it is asked again
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


@cython.final
@cython.no_gc_clear                     # closing connections needs what it refers to
cdef class Proxy(Dialogue):
    # --------------------------------------------------------------------------------------- making

    def __cinit__(
        self,
        Checker checker not None,
        Upstreams upstreams not None,
        Routes routes not None,
        Forwarding forwarding not None,
        *,
        Occupancy occupancy=None,
        bint in_thread=False,
        limits=None,
        timeouts_s=None,
        front="",
        login_details=(),
        expects_proxy_header=False,
        tells_traces=False,
        AccessLog log=None,
        counters=None,
    ):
        self.checker = checker
        self.upstreams = upstreams
        self.routes = routes
        self.forwarding = forwarding
        self.names = forwarding.names
        self.trusted = forwarding.trusted
        self.log = log
        self.front = _FRONTS[front]
        self.records_address = "address" in login_details
        self.records_agent = "user_agent" in login_details
        self.expects_proxy_header = expects_proxy_header
        self.tells_traces = tells_traces
        self.keeps_entry = log is not None or forwarding.request_id_field.size > 0
        self.in_thread = in_thread
        if in_thread:
            checker.near.share()
        self.date_s = -1
        self.page = memoryview(bytearray(_COUNTERS_BYTES) if counters is None else counters)
        page = PyMemoryView_GET_BUFFER(self.page)
        if page.len < <Py_ssize_t>_COUNTERS_BYTES or page.readonly or not PyBuffer_IsContiguous(page, b"C"):
            raise ValueError(f"counters need {_COUNTERS_BYTES} bytes, in one piece, that can be written")
        self.counters = <Counters *>page.buf
        self._set_limits(limits or {}, occupancy)
        self._set_timeouts(timeouts_s or {})
        self._allocate()

    cdef int _set_limits(self, dict limits, Occupancy occupancy) except -1:
        """Take the limits of a plane; of all planes together, only if nobody else sees to them."""
        values = {name: default for name, (default, _, _) in LIMITS.items()} | limits
        for name, value in values.items():
            _, least, most = LIMITS[name]
            if not least <= value <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {value}")
        if occupancy is None:
            occupancy = Occupancy(values["connections_max"], per_client_max=values["connections_per_client_max"])
        self.occupancy = occupancy
        self.downstream_max = occupancy.clients_max
        self.requests_max = values["requests_per_connection_max"]
        self.head_bytes = values["head_bytes_max"]
        self.fields_max = values["fields_max"]
        self.target_bytes_max = values["target_bytes_max"]
        self.response_head_bytes = values["response_head_bytes_max"]
        self.extension_bytes_max = values["chunk_extension_bytes_max"]
        self.request_rate_min = values["request_body_rate_min"]
        self.response_rate_min = values["response_body_rate_min"]
        return 0

    cdef int _allocate(self) except -1:
        # A head is at most what was read, a line more for the identity, the forwarding fields, and
        # what a route adds.
        cdef uint32_t out_bytes = (
            2 * max(self.head_bytes, self.response_head_bytes) + max(self.head_bytes, <uint32_t>SCRATCH_BYTES)
            + FORWARDING_BYTES_MAX + EXTRA_BYTES_MAX + DOUBT_BYTES_MAX + LOCATION_BYTES_MAX + self.forwarding.login_url.size + 4096
            + MINTED_BYTES_MAX + self.forwarding.minted_cookie.size)
        self._allocate_connections()
        self.head_of = NO_HANDLE
        self.out.at = <uint8_t *>malloc(out_bytes)
        self.ask_list = <Question *>malloc(2 * self.conn_max * sizeof(Question))
        if self.out.at == NULL or self.ask_list == NULL:
            raise MemoryError(f"no memory for {self.downstream_max} connections")
        self._join()
        self._open_rings()
        return 0

    def __dealloc__(self):
        if self.plane >= 0:
            self._end()

    # ---------------------------------------------------------------------------------- from Python

    def listen(self, int fd):
        cdef int ours = fcntl(fd, F_DUPFD_CLOEXEC, 0)
        if ours < 0:
            raise OSError(errno, os.strerror(errno), "listening socket")
        self._command(Order.LISTEN, ours, 0, b"")

    def leave(self, bint is_leaving=True):
        """Close every connection after its next answer, while others are still let in. `is_leaving`
        False: do not, after all.
        """
        self._command(Order.LEAVE, is_leaving, 0, b"")

    def stop_accepting(self):
        """Accept who is there, and close the listeners. Every connection closes after its next
        answer.
        """
        self._command(Order.STOP_ACCEPTING, 0, 0, b"")

    def drain(self):
        """Close idle connections, and those that become idle; those also that were let go of, and
        that nobody has taken.
        """
        self._command(Order.DRAIN, 0, 0, b"")
        self.takes_back = True
        self._collect()
        while self.released:
            self.adopt(*self.released.popleft())

    def part(self, uint32_t most):
        """Tell clients with a WebSocket that the gateway goes away (1001), so many at most; how many
        were told since the last call. A client in the middle of a frame is told later.
        """
        cdef uint32_t told
        self._command(Order.PART, most, 0, b"")
        told = count_of(&self.parted, COUNT_ORDER)
        less_of(&self.parted, told, COUNT_ORDER)
        return told

    def release(self):
        """Let go of the client that has waited longest between two requests: (descriptor, address,
        whether it may be a trusted proxy); the descriptor is the caller's now. None: there is none,
        or the plane's thread has not let go of one yet.
        """
        self._collect()
        if not self.released and self.is_caught_up:
            self._command(Order.RELEASE, RELEASED_AT_ONCE if self.in_thread else 1, 0, b"")
            self._collect()
        return self.released.popleft() if self.released else None

    def adopt(self, int fd, bytes address not None, bint is_believed, bint is_last=False):
        """Serve a client that another data plane has let go of; the descriptor is ours. `is_last`:
        one answer, and then it closes.

        It is trusted if it is one of ours *and* was believed before: the address of a connection
        for which a PROXY header named nobody is the proxy's. Beyond `connections_per_client_max` it
        is counted, but not closed: it was let in.
        """
        self._command(Order.ADOPT, fd, (IS_BELIEVED if is_believed else 0) | (IS_LAST if is_last else 0), address)

    def stop(self):
        """Close every connection. `run` returns, if it runs."""
        if self.in_thread:
            set_count(&self.is_stopping, 1, COUNT_ORDER)
            self.upstreams.ring(self.plane, 0)
        else:
            self._end()

    cdef int _command(self, Order order, int64_t value, uint64_t flags, bytes address) except -1:
        cdef Told told
        told.order = order
        told.number = 0
        told.handle = 0
        told.value = value
        told.flags = flags
        told.first = Text(<const uint8_t *><const char *>address, <uint32_t>len(address))
        told.second = Text(told.first.at, 0)
        return self._tell(&told)

    @property
    def connection_count(self):
        return count_of(&self.downstream_count, COUNT_ORDER)

    @property
    def shortages(self):
        """How often clients had to wait, and for what."""
        counted = _read_counters(self.page)
        return {name: counted[name] for name in ("full", "out_of_descriptors")}

    @property
    def stats(self):
        """Counters since the start."""
        return _read_counters(self.page)

    # ------------------------------------------------------------- commands, done in the plane's thread

    cdef void _obey(self, const Told *told) noexcept nogil:
        """Do as commanded."""
        if told.order == Order.LISTEN:
            if not self._listen(<int>told.value):
                self._pause_accepting()                     # the next tick tries again
        elif told.order == Order.LEAVE:
            self.leaving = told.value != 0
        elif told.order == Order.STOP_ACCEPTING:
            self._stop_accepting()
        elif told.order == Order.DRAIN:
            self._drain()
        elif told.order == Order.PART:
            more_of(&self.parted, self._part(<uint32_t>told.value), COUNT_ORDER)
        elif told.order == Order.RELEASE:
            self._release(told.value)
        else:
            self._adopt(told)

    cdef void _stop_accepting(self) noexcept nogil:
        cdef uint32_t i
        if self.draining:
            return
        for i in range(self.conn_count):
            if self.conns[i].side == Side.LISTENER and self.accepts:
                self._accept(self.conns[i].fd)              # whoever has connected is not to be sent away
        self.draining = self.leaving = True
        self._set_accepting(False)
        for i in range(self.conn_count):
            if self.conns[i].side == Side.LISTENER:
                self._close(i)

    cdef void _drain(self) noexcept nogil:
        """Close who is idle; not of whom bytes have come that nobody has read yet: a request."""
        cdef uint32_t i
        self.closes_idle = True
        for i in range(self.conn_count):
            if self.conns[i].side == Side.DOWNSTREAM and is_idle(&self.conns[i]):
                self._close_if_quiet(i)

    cdef bint _close_if_quiet(self, uint32_t index) noexcept nogil:
        """Close an idle client of whom the kernel has nothing either; whether it did."""
        cdef Conn *c = &self.conns[index]
        c.readable = True                                           # for all that this plane knows
        if not self._is_quiet(c):
            return False
        self._close(index)
        return True

    cdef void _release(self, int64_t most) noexcept nogil:
        """Let go of the clients that have waited longest between two requests, so many at most, as
        long as there is room to say so.
        """
        cdef uint32_t index = self.deadlines[<int>Timer.KEEP_ALIVE].first
        while most and index != NONE and self._write_released(index):
            most -= 1
            index = self.deadlines[<int>Timer.KEEP_ALIVE].first

    cdef void _adopt(self, const Told *told) noexcept nogil:
        """Serve a client of another plane. Its descriptor is ours."""
        cdef uint32_t index = self._new_conn(<int>told.value, Side.DOWNSTREAM)
        cdef Conn *c
        if index == NONE:
            close(<int>told.value)
            return
        c = &self.conns[index]
        self.occupancy.enter_anyway()
        enter(c, Downstream.IDLE)
        c.client.is_trusted = self.trusted.has_unix
        if told.first.size == ADDRESS_BYTES:
            c.client.has_address = True
            memcpy(c.client.peer_address, told.first.at, ADDRESS_BYTES)
            self._register_peer(c)
        c.client.is_trusted = c.client.is_trusted and told.flags & IS_BELIEVED != 0
        if told.flags & IS_LAST:
            c.request.requests = self.requests_max - 1          # so that the next one is the last, also where 0 is no limit
        if self.closes_idle and self._close_if_quiet(index):
            return
        if self._watch(index, EPOLLIN | EPOLLRDHUP | EPOLLET, EPOLL_CTL_ADD):
            self._set_timer(index, Timer.KEEP_ALIVE)
        else:
            self._close(index)

    cdef void _end(self) noexcept nogil:
        """Close everything: nothing is served any more, and nobody waits for this plane."""
        cdef uint32_t i
        if self.has_ended:
            return
        set_count(&self.has_ended, 1, COUNT_ORDER)
        self.draining = True
        self.accepts = False
        for i in range(self.conn_count):
            if self.conns[i].side != Side.BELL:
                self._close(i)
        self._end_turn()

    # -------------------------------------------------------------------------------------- clients

    cdef void _accept(self, int listener) noexcept nogil:
        cdef sockaddr_storage address
        cdef socklen_t size
        cdef int fd
        cdef int on = 1
        cdef int _
        cdef uint32_t index
        for _ in range(ACCEPTS_MAX):
            if not self.occupancy.enter():
                self.counters.full += 1
                self._set_accepting(False)      # the backlog waits; `_tick` looks again
                return
            size = sizeof(address)
            fd = accept4(listener, <sockaddr *>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                self.occupancy.leave()
                if errno == ECONNABORTED or errno == EINTR:
                    continue
                if _is_shortage(errno):
                    self._pause_accepting()
                return
            index = self._new_conn(fd, Side.DOWNSTREAM)
            if index == NONE:
                self.occupancy.leave()
                close(fd)
                return
            if not self._watch(index, EPOLLIN | EPOLLRDHUP | EPOLLET, EPOLL_CTL_ADD):
                self._close(index)
                return
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
            self.counters.accepted += 1
            enter(&self.conns[index], <int>Downstream.AWAITING_PROXY_HEADER if self.expects_proxy_header else <int>Downstream.IDLE)
            if not self._read_peer(&self.conns[index], &address):
                if self.expects_proxy_header:
                    self._note_unannounced(&self.conns[index], b"it is not of trusted_proxies, whose PROXY header counts")
                self._close(index)
                continue
            self._set_timer(index, Timer.HEAD_IN if self.expects_proxy_header else Timer.KEEP_ALIVE)

    cdef bint _read_peer(self, Conn *c, const sockaddr_storage *address) noexcept nogil:
        """Note the peer of a new connection. False: it is not to be served."""
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
        """Note the client at `peer_address`. False: it has more connections than one client may.
        """
        c.client.peer_text_size = <uint8_t>write_address(c.client.peer_address, c.client.peer_text)
        memcpy(c.client.address, c.client.peer_address, ADDRESS_BYTES)
        c.client.is_trusted = self.trusted.contains(c.client.peer_address)
        if c.client.is_trusted or self.occupancy.admits(c.client.peer_address, &c.client.is_counted):
            return True                             # a proxy of ours has many clients
        self.counters.over_client_limit += 1
        return False

    cdef bint _read_proxy_header(self, uint32_t index) noexcept nogil:
        """Read the PROXY header with which a connection begins. False: it is not all there, or the
        connection is closed.
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
            c.client.is_trusted = False                    # what follows is not the proxy's word, but an unknown client's
        c.held_size -= size
        memmove(c.held, c.held + size, c.held_size)
        return True

    cdef void _note_unannounced(self, const Conn *c, const char *why) noexcept nogil:
        """Note that a connection is about to be closed for want of a PROXY header that counts.
        `why` stays valid.
        """
        self.counters.proxy_headers_refused += 1
        self.occupancy.note_unannounced(c.client.has_address, c.client.peer_address, why)

    cdef void _on_closing(self, uint32_t index) noexcept nogil:
        """Let go of all that a connection has but its socket."""
        cdef Conn *c = &self.conns[index]
        if c.kept != NONE:
            self._let_go_of_kept(c)
        if c.side == Side.DOWNSTREAM:
            self._close_downstream(index)
        elif c.side == Side.UPSTREAM:
            self._close_upstream(index)
            free(c.held)

    cdef void _close_downstream(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.state == Downstream.QUEUED:
            self._leave_pending(index)
        if c.request.began_us:
            self._account(c, True)
        if c.client.is_counted:
            self.occupancy.forget(c.client.peer_address)
        if c.state == Downstream.TUNNELLING:
            set_count(&self.tunnels, self.tunnels - 1, COUNT_ORDER)
        self.occupancy.leave()
        set_count(&self.downstream_count, self.downstream_count - 1, COUNT_ORDER)
        self._give_block(c.held)
        free(c.request.entry)
        c.request.entry = NULL

    # ----------------------------------------------------------------------------- reading requests

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
        cdef bint begins = c.state == Downstream.IDLE
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
        if begins:
            enter(c, Downstream.READING_HEAD)
            self._clear_timer(index)
        if c.state == Downstream.AWAITING_PROXY_HEADER and at == c.held:
            self._set_timer(index, Timer.HEAD_IN)
        if (
            memchr(at, c'\n', size) != NULL or memchr(at, c'\r', size) != NULL
            or at > c.held and (at - 1)[0] == c'\r'          # whatever follows a CR decides something
            or c.held_size == self.head_bytes
            or c.state == Downstream.AWAITING_PROXY_HEADER
        ):
            self._serve(index)
        if begins and c.side == Side.DOWNSTREAM and c.state == Downstream.READING_HEAD:
            self._set_timer(index, Timer.HEAD_IN)           # nearly every head comes whole, and needs no deadline

    cdef void _serve(self, uint32_t index) noexcept nogil:
        """Serve requests from what is held, until one has to wait or its head is not all there."""
        cdef Conn *c = &self.conns[index]
        cdef int result
        if c.state == Downstream.AWAITING_PROXY_HEADER and not self._read_proxy_header(index):
            return
        if c.held_size == 0:
            self._wait_for_request(index)
            return
        while c.side == Side.DOWNSTREAM and (c.state == Downstream.READING_HEAD or c.state == Downstream.NEXT_HELD):
            if c.state == Downstream.NEXT_HELD:
                enter(c, Downstream.READING_HEAD)
            c.request.held_is_whole = False
            self.head.target.size = 0
            self.head_of = NO_HANDLE
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
        """The size of the head again, or -status if it is over a limit."""
        if head.target.size > self.target_bytes_max:
            return -414
        return -431 if <uint32_t>head.field_count > self.fields_max else size

    # ------------------------------------------------------------------------- events and deadlines

    cdef void _on_event(self, uint32_t index, uint32_t events) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef uint32_t peer = c.peer
        if c.side == Side.LISTENER:
            self._accept(c.fd)
        elif c.side == Side.DOWNSTREAM:
            if events & (EPOLLERR | EPOLLHUP):
                self._close_both(index)              # there is no client to answer
                return
            c.readable |= events & (EPOLLIN | EPOLLRDHUP) != 0
            c.hung_up |= events & EPOLLRDHUP != 0
            if events & EPOLLOUT and c.unsent != NULL:
                self._flush(index)
            self._advance_downstream(index)
        elif c.side == Side.BELL:
            self._on_bell()
            self._do_all_told()
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

    cdef void _on_timeout(self, uint32_t index, Timer timer) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer if c.side == Side.UPSTREAM else index
        if timer == Timer.KEEP_ALIVE or timer == Timer.LINGER or timer == Timer.POOL:
            self._close(index)
            return
        if timer == Timer.VOUCH:
            self._recheck_session(index)
            return
        if timer == Timer.REQUEST_BODY and self._request_flows(index):
            self._await_body(index)
            return
        if timer == Timer.RESPONSE_BODY and self._extend_if_response_flows(index):
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


cdef bint _is_shortage(int error) noexcept nogil:
    """Whether this process or the machine lacks what a connection is made of: descriptors or
    memory.
    """
    return error == EMFILE or error == ENFILE or error == ENOBUFS or error == ENOMEM
