# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""A request and its response: what goes to the server, what comes back, bodies and tunnels.

Rules of this file
    - A request is kept as it came (`held`) until its body is streamed or its response begins: to
      wait for a verdict or a connection, and to be sent again, it is read again. What goes upstream
      is written anew from what was understood.
    - Bodies pass through one shared buffer (connections.pyx has the rule of what is not taken).
    - An answer that breaks off never looks whole. Where only the connection's end tells its end
      (HTTP/1.0), a close before that is a reset.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, ETIMEDOUT, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memmove, memset

from fastticket.dataplane.answers cimport NO_HANDLE
from fastticket.dataplane.asks cimport AskKind
from fastticket.dataplane.conn cimport (
    Change,
    Conn,
    Endpoint,
    Side,
    can_be_sent_again,
    enter,
    is_tunnelling,
)
from fastticket.dataplane.connections cimport READS_MAX, SCRATCH_BYTES, Timer
from fastticket.dataplane.endpoint cimport find_original
from fastticket.dataplane.frames cimport CLOSE_FRAME_BYTES, Frames, close_frame, follow, is_between
from fastticket.dataplane.chunks cimport Chunks, dechunk
from fastticket.dataplane.fieldnames cimport Kind
from fastticket.dataplane.http1 cimport (
    Field,
    Framing,
    Head,
    Method,
    fault_of,
    parse_request,
    parse_response,
)
from fastticket.dataplane.octets cimport INCOMPLETE, Span, equals
from fastticket.dataplane.links cimport NO_DESCRIPTOR
from fastticket.dataplane.lists cimport NONE
from fastticket.dataplane.occupancy cimport COUNT_ORDER, count_of, set_count
from fastticket.dataplane.reasons cimport Reason
from fastticket.dataplane.routes cimport Route, Text
from fastticket.dataplane.sockets cimport *
from fastticket.dataplane.states cimport Downstream, Upstream
from fastticket.dataplane.balance cimport Choice
from fastticket.dataplane.writer cimport CHUNK_HEADER_BYTES, put_body

cdef enum:
    INTERIMS_MAX = 100                  # interim responses before a final one


@cython.no_gc_clear                     # closing connections needs what it refers to
cdef class Exchange(Links):
    # ------------------------------------------------------------------------------------- requests

    cdef inline void _forward(self, uint32_t index) noexcept nogil:
        """Give the request to a server of its group, over a pooled connection if there is one. If
        all are busy it waits.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint16_t group = self.routes.table[c.request.route].group
        cdef uint16_t server
        cdef uint32_t upstream
        if c.kept != NONE and self._forward_to_kept(index, group):
            return
        while True:
            server = self.upstreams.take(group, self._key(c, group), c.request.attempts, self.plane, self.now_ms)
            if server == Choice.NOBODY:
                self._make_pending(index, group, Choice.NOBODY)
                return
            if server == Choice.NO_SERVERS:
                self._fail_exchange(index, Reason.UPSTREAM_UNRESOLVED)
                return
            if server == Choice.NO_MORE:
                break
            self.counters.retries += c.request.attempts > 0
            c.request.attempts += 1
            upstream = NONE if c.request.retried else self._unpool(server, can_be_sent_again(c))
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

    cdef inline bint _forward_to_kept(self, uint32_t index, uint16_t group) noexcept nogil:
        """Forward a request over the connection that is kept for its client, or let it wait for that.
        False: that one is of no use for it.
        """
        cdef uint32_t upstream = self._kept_for(index, group)
        cdef Choice said
        if upstream == NONE:
            return False
        said = self.upstreams.take_kept(self.conns[upstream].link.server, self.plane)
        if said == Choice.NO_MORE:                          # the server has gone since
            self._close(upstream)
            return False
        if said == Choice.NOBODY:
            self._make_pending(index, group, self.conns[upstream].link.server)
        else:
            self._use_kept(index, upstream)
        return True

    cdef inline void _use_kept(self, uint32_t index, uint32_t upstream) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Conn *u = &self.conns[upstream]
        u.link.is_active = True
        c.request.attempts += 1
        c.peer = upstream
        u.peer = index
        u.waits = c.waits
        enter(u, Upstream.AWAITING_HEAD)
        self._send_request(index)

    cdef inline void _connected(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef int error = 0
        cdef socklen_t size = sizeof(error)
        if getsockopt(c.fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 or error != 0:
            self._connect_failed(index, error)
            return
        self._clear_timer(index)
        self.upstreams.connected(c.link.server, self.now_ms)
        self._send_request(c.peer)

    cdef inline void _connect_failed(self, uint32_t index, int reason) noexcept nogil:
        """Try another server: nothing of the request was sent, so its method does not matter."""
        cdef uint32_t downstream = self.conns[index].peer
        self.counters.upstream_errors += 1
        self.upstreams.failed(self.conns[index].link.server, self.now_ms, reason)
        self.conns[downstream].peer = NONE
        self._close(index)
        self._forward(downstream)

    cdef inline void _read_again(self, uint32_t index) noexcept nogil:
        """Make `self.head` this connection's request's, which may have waited since it was read."""
        cdef Conn *c = &self.conns[index]
        if self.head_of == self._handle(index):
            return
        parse_request(self.names, c.held, c.held_size, &self.head)
        self.head_of = self._handle(index)
        self.forwarding.tickets = -1
        if c.request.endpoint == Endpoint.OF_REQUESTS:
            find_original(self.front, &self.routes.table[self.routes.endpoint], c.held, &self.head)

    cdef inline void _send_request(self, uint32_t index) noexcept nogil:
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
            if self.forwarding.old_cookie_count:
                self._note_cookies(c)
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
        u.link.asked_us = self.now_us
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

    # ------------------------------------------------------------------------------------ responses

    cdef inline void _advance_upstream(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef int _
        if c.side != Side.UPSTREAM:
            return
        if c.state == Upstream.POOLED or c.state == Upstream.KEPT:
            if c.readable:
                self._close(index)                  # closed by the server, or bytes outside a response
        elif c.state == Upstream.AWAITING_HEAD:
            for _ in range(READS_MAX):
                if c.side != Side.UPSTREAM or c.state != Upstream.AWAITING_HEAD or not c.readable \
                        or self.conns[c.peer].state != Downstream.EXCHANGING:
                    return
                self._read_response(index)
            self._continue_later(index)
        else:
            self._pump(index)

    cdef inline void _read_response(self, uint32_t index) noexcept nogil:
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

    cdef inline void _response_missing(self, uint32_t index) noexcept nogil:
        """The upstream closed before it answered. A connection that had idled may not have seen the
        request at all: it is sent again.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        cdef bint again = c.link.reused and c.held_size == 0 and not d.request.retried and not d.request.answered \
            and can_be_sent_again(d)
        if not again:
            self.upstreams.faulted(c.link.server, self.now_ms)
            self.upstreams.note(c.link.server, b"closed before its head was there")
            self._fail_exchange(downstream, Reason.UPSTREAM_CLOSED)
            return
        self.counters.upstream_errors += 1
        d.peer = NONE
        c.peer = NONE
        self._close(index)
        d.request.retried = True
        self._forward(downstream)

    cdef inline void _on_response(self, uint32_t index, uint8_t *at, uint32_t size) noexcept nogil:
        """Read a response head; drop interim ones (RFC 9110, 15.2); see whether the application
        changes the session.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        cdef Text nothing = Text(NULL, 0)
        cdef int result
        while True:
            self.head_of = NO_HANDLE
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
        self._count_response(c, self.head.status)
        if not self._changes_session(index, at, size):
            self._relay(index, at, size, &nothing)

    cdef inline const char *_fault_of(self, int result, const uint8_t *at, uint32_t size, Method method) noexcept nogil:
        """Why a head does not go on, for the operator; `result` is what `parse_response` said."""
        if result < 0:
            return fault_of(self.names, at, size, method, &self.head)
        if result == INCOMPLETE or <uint32_t>result > self.response_head_bytes:
            return b"a head of more than response_head_bytes_max"
        return b"a change of protocols that nobody asked for"

    cdef inline void _malformed(self, uint32_t index, const char *what) noexcept nogil:
        """Answer 502 in place of a response that cannot be understood."""
        self.upstreams.note(self.conns[index].link.server, what)
        self._fail_exchange(self.conns[index].peer, Reason.UPSTREAM_MALFORMED)

    cdef inline bint _hold(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil:
        if c.held == NULL:
            c.held = <uint8_t *>malloc(SCRATCH_BYTES)
            if c.held == NULL:
                return False
        memmove(c.held, at, size)
        c.held_size = size
        return True

    cdef inline bint _changes_session(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil:
        """Whether the application begins, ends or renews a session; the response then waits for the
        control plane.
        """
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[c.peer]
        cdef Field *field
        cdef Field *change = NULL
        cdef Field *old_cookie = NULL
        cdef int kind = Change.NO_CHANGE
        cdef int said
        cdef int i
        for i in range(self.head.known_count):
            field = &self.head.fields[self.head.known[i]]
            if field.kind != Kind.DROP and not Kind.TICKET_LOGIN <= field.kind <= Kind.TICKET_ROTATE:
                if field.kind == Kind.SET_COOKIE and change == NULL and d.request.is_admitted \
                        and self.forwarding.sets_old_cookie(at, field):
                    old_cookie = field
                continue
            said = self._change_asked(d, at, field)
            if said == Change.NO_CHANGE:
                continue
            if change != NULL or said == Change.UNCLEAR:         # of several, never guess which
                self._malformed(
                    index,
                    b"contradictory X-Ticket fields" if change != NULL else b"an X-Ticket field with an unknown value",
                )
                return True
            change = field
            kind = said
        if old_cookie != NULL and (kind == Change.NO_CHANGE or kind == Change.IGNORED):
            kind = AskKind.SUPERSEDED
            change = old_cookie
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

    cdef inline int _change_asked(self, const Conn *d, const uint8_t *at, const Field *field) noexcept nogil:
        """The change of the session that one field of a response asks for. An end or a change that
        cannot be read must not pass for done.
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

    cdef inline int _login_kind(self, const uint8_t *at) noexcept nogil:
        """LOGIN or LOGIN_REMEMBERED, as `self.head` says once or not at all; else UNCLEAR."""
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

    cdef inline void _relay(self, uint32_t index, uint8_t *at, uint32_t size, const Text *fields) noexcept nogil:
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
        if c.framing == Framing.CHUNKED:
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
        self.upstreams.answered(c.link.server)
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

    cdef inline void _note_dropped(self, uint16_t server, int cookies) noexcept nogil:
        """Count and keep for the operator that a server set so many cookies of the ticket's name
        without the right to.
        """
        cdef int _
        self.counters.cookies_dropped += cookies
        for _ in range(cookies):
            self.upstreams.note(server, NULL)

    cdef inline void _finish(self, uint32_t index) noexcept nogil:
        """Part the two connections of an exchange whose response is complete."""
        cdef Conn *c = &self.conns[index]
        cdef uint32_t downstream = c.peer
        cdef Conn *d = &self.conns[downstream]
        self._clear_timer(index)
        self._clear_timer(downstream)
        self._account(d, False)
        d.request.liveness_is_asked = False
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

    # --------------------------------------------------------------------------------------- bodies

    cdef inline bint _begin_body(self, Conn *c) noexcept nogil:
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

    cdef inline void _pump(self, uint32_t index) noexcept nogil:
        """Move a message body on from this connection to its peer, until there
        are no more bytes or the peer takes none."""
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

    cdef inline uint32_t _room(self, Conn *c) noexcept nogil:
        """How much to read: never past the end of a message of known length, nor more of a request
        than a block holds.
        """
        if c.framing == Framing.LENGTH:
            return <uint32_t>min(c.left, <uint64_t>SCRATCH_BYTES)
        if c.framing == Framing.CHUNKED and c.side == Side.DOWNSTREAM:
            return self.head_bytes
        return SCRATCH_BYTES

    cdef inline bint _move(self, uint32_t index, uint8_t *at, uint32_t size) noexcept nogil:
        """Send on bytes of a body that have come. False: the exchange is over."""
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
            self.head_of = NO_HANDLE
            c.request.held_is_whole = False                 # streamed: it cannot be sent again
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
            if c.link.is_close_announced:
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

    cdef inline bint _is_use(self, Conn *c, const uint8_t *at, uint32_t size) noexcept nogil:
        """Whether what a client sends is use of its session: all but frames of control (RFC 6455,
        5.5), which programs send by themselves.
        """
        if c.state != Downstream.TUNNELLING or c.request.upgrade != self.forwarding.websocket:
            return True
        c.frames.has_data = False
        follow(&c.frames, at, size)
        return c.frames.has_data

    cdef inline bint _take_body(self, Conn *c, uint8_t *at, uint32_t *consumed, uint32_t *produced) noexcept nogil:
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

    cdef inline bint _send_body(self, uint32_t index, uint8_t *at, uint32_t size, bint complete) noexcept nogil:
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

    cdef inline void _body_complete(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.side == Side.UPSTREAM:
            self._finish(index)
        else:
            self._clear_timer(index)
            if self.conns[c.peer].state == Upstream.AWAITING_HEAD:
                self._set_timer(c.peer, Timer.FIRST_BYTE)
            elif c.request.is_admitted:
                self._set_timer(index, Timer.VOUCH)             # its response goes on already

    cdef inline void _body_ended(self, uint32_t index, bint cleanly) noexcept nogil:
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

    cdef void _send_failed(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.side == Side.DOWNSTREAM or c.state == Upstream.TUNNELLED:
            self._close_both(index)
            return
        # The upstream takes no more of the request. It may have answered before it closed: look at
        # that first.
        self._drop_unsent(c)
        c.link.send_failed = True
        c.readable = True
        self._advance_upstream(index)

    cdef void _on_some_taken(self, uint32_t index) noexcept nogil:
        """The kernel has taken some of what waited."""
        cdef Conn *c = &self.conns[index]
        if c.peer != NONE:
            self._restart_silence(index if c.side == Side.UPSTREAM else c.peer)

    cdef void _on_all_taken(self, uint32_t index) noexcept nogil:
        """The kernel has taken all that waited: the other side may be read on."""
        cdef Conn *c = &self.conns[index]
        if c.state == Downstream.FLUSHING:
            self._after_answer(index)
        elif c.peer != NONE:
            if c.side == Side.DOWNSTREAM and self.conns[c.peer].framing == Framing.LENGTH:
                c.request.is_used = True
            self._restart_silence(index if c.side == Side.UPSTREAM else c.peer)
            self._pump(c.peer)

    cdef inline void _malformed_body(self, uint32_t index) noexcept nogil:
        if self.conns[index].side == Side.DOWNSTREAM:
            self.counters.bad_requests += 1
            self._fail_exchange(index, Reason.BAD_REQUEST)
        else:
            self.counters.upstream_errors += 1
            self.upstreams.note(self.conns[index].link.server, b"a body with malformed chunks")
            self._close_both(index)

    # -------------------------------------------------------------------------------------- tunnels

    @property
    def tunnel_count(self):
        """Clients with a tunnel now."""
        return count_of(&self.tunnels, COUNT_ORDER)

    cdef inline uint32_t _part(self, uint32_t most) noexcept nogil:
        """Tell clients with a WebSocket that the gateway goes away (1001), so many at most; how
        many. A client in the middle of a frame is told later.
        """
        cdef uint32_t i
        cdef uint32_t told = 0
        for i in range(self.conn_count):
            if told == most:
                break
            told += self.conns[i].side == Side.UPSTREAM and self.conns[i].state == Upstream.TUNNELLED and self._announce_close(i)
        return told

    cdef inline void _open_tunnel(self, uint32_t index) noexcept nogil:
        """Open a tunnel (101): from here on bytes pass both ways unread, until both sides have
        closed.
        """
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[c.peer]
        cdef uint32_t early = d.held_size - d.request.head_size
        d.framing = Framing.UNTIL_CLOSE
        d.complete = False
        d.request.closes = True
        c.sends_chunks = False
        c.link.is_close_announced = False
        enter(c, Upstream.TUNNELLED)
        enter(d, Downstream.TUNNELLING)
        memset(&d.frames, 0, sizeof(Frames))
        d.request.is_used = early and self._is_use(d, d.held + d.request.head_size, early)
        self._account(d, False)
        self.counters.tunnels += 1
        set_count(&self.tunnels, self.tunnels + 1, COUNT_ORDER)
        self._set_timer(index, Timer.TUNNEL)
        if d.request.is_admitted:
            self._set_timer(c.peer, Timer.VOUCH)
        if early and not self._send(index, d.held + d.request.head_size, early):
            self._close_both(index)
            return
        d.request.held_is_whole = False
        d.held_size = 0
        self._pump(index)

    cdef inline bint _announce_close(self, uint32_t index) noexcept nogil:
        """Send a close frame to the client of a tunnel, between two frames of its upstream. The
        client's answer passes, and so both sides end it. Whether it was sent.
        """
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[c.peer]
        if c.link.is_close_announced or c.frames.has_closed or c.complete or d.unsent != NULL:
            return False
        if d.request.upgrade != self.forwarding.websocket:
            return False
        if not is_between(&c.frames):
            return False
        c.link.is_close_announced = True
        if not self._send(c.peer, close_frame(), CLOSE_FRAME_BYTES):
            self._close_both(index)
        return True

    # ---------------------------------------------------------------------------------- what is slow

    cdef inline void _upstream_is_late(self, uint32_t index, Timer timer) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if timer == Timer.CONNECT:
            self.counters.upstream_timeouts += 1
            self._connect_failed(index, ETIMEDOUT)
            return
        if timer == Timer.FIRST_BYTE or timer == Timer.SEND:
            self.upstreams.faulted(c.link.server, self.now_ms)
        self._fail_exchange(c.peer, Reason.UPSTREAM_LATE)

    cdef inline bint _request_flows(self, uint32_t index) noexcept nogil:
        """Whether a client kept its minimum rate in a window of its body; it need not in one in
        which the upstream held it up.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint64_t wanted = self.request_rate_min * <uint64_t>self._length_ms(c, Timer.REQUEST_BODY) // 1000
        if c.request.answered:                              # it need not send the rest (RFC 9112, 9.5), but to get the answer
            return True
        return c.request.is_held_up or self.conns[c.peer].unsent != NULL or c.window_bytes >= wanted

    cdef inline void _await_body(self, uint32_t index) noexcept nogil:
        """A window of a request's body begins. For a request that was admitted it ends in `_recheck_session`."""
        cdef Conn *c = &self.conns[index]
        c.window_bytes = 0
        c.request.is_held_up = self.conns[c.peer].unsent != NULL
        c.request.window_ends_ms = self.now_ms + self._length_ms(c, Timer.REQUEST_BODY)
        self._set_timer(index, Timer.VOUCH if c.request.is_admitted else Timer.REQUEST_BODY)

    cdef inline bint _extend_if_response_flows(self, uint32_t index) noexcept nogil:
        """Whether a client that we wait for kept its minimum rate. False also if we wait for the
        upstream.
        """
        cdef Conn *c = &self.conns[index]
        cdef Conn *client = c if c.side == Side.DOWNSTREAM else &self.conns[c.peer]
        cdef uint64_t wanted = self.response_rate_min * <uint64_t>self._length_ms(c, Timer.RESPONSE_BODY) // 1000
        cdef bint flows = client.unsent != NULL and client.taken_bytes >= wanted
        if flows:
            client.taken_bytes = 0
            self._set_timer(index, Timer.RESPONSE_BODY)
        return flows

    cdef inline void _restart_silence(self, uint32_t upstream) noexcept nogil:
        """Something has moved through an exchange or a tunnel: begin anew what bounds a silence."""
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

    # --------------------------------------------------------------------- what the layers above do

    cdef void _ask(self, uint32_t index, AskKind kind, Span value) noexcept nogil:
        """Ask the control plane. `value`: of a response that waits, in what is held of it."""
