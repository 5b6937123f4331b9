# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""What a plane and the control plane say to each other: questions and their answers, and commands.

Rules of this file
    - The plane writes down what it asks at the end of a turn, with all that the answer needs, into a
      ring (`asked`). The control plane reads records from there (`asks`). It never looks into a
      connection.
    - What the control plane answers or commands is a message, too (`Told`). A plane that the event
      loop drives does at once what it is told (`_do`), in the caller's thread, which is its own. One
      in a thread of its own finds it in the other ring (`told`), when its bell wakes it.
    - Both rings are bounded, and nobody waits for room. A question waits in the plane's list, of
      which each connection has one place; an answer in `untold`, of which each question has one.
    - An answer names the connection and the question. If the connection has gone on meanwhile, it is
      dropped.
"""

cimport cython
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memset

from fastticket.core.atomics cimport SEQ_CST as FLAG_ORDER, swap_u32 as swap_flag
from fastticket.core.ticket cimport ascii_text, decode, encode
from fastticket.core.verdict cimport Verdict, is_store_away
from fastticket.core.wire cimport RAW_BUFFER_BYTES, SESSION_ID_AT, TEXT_CHARS_MAX
from fastticket.dataplane.answers cimport NO_HANDLE
from fastticket.dataplane.asks cimport RELEASED, Asked, AskKind, Order, Question, Told
from fastticket.dataplane.clients cimport ADDRESS_BYTES, ADDRESS_TEXT_MAX, write_address
from fastticket.dataplane.conn cimport (
    AGENT_BYTES_MAX,
    AGENT_CHARS_MAX,
    DOUBT_BYTES_MAX,
    HOST_BYTES_MAX,
    Conn,
    Doubt,
    Side,
    enter,
)
from fastticket.dataplane.fieldnames cimport Kind
from fastticket.dataplane.http1 cimport (
    FIELDS_MAX,
    TARGET_BYTES_MAX,
    Field,
    parse_request,
    parse_response,
)
from fastticket.dataplane.connections cimport VOUCH_MS
from fastticket.dataplane.lists cimport NONE
from fastticket.dataplane.occupancy cimport COUNT_ORDER, count_of
from fastticket.dataplane.octets cimport Span, equals
from fastticket.dataplane.paths cimport normal_path
from fastticket.dataplane.reasons cimport Reason
from fastticket.dataplane.ring cimport (
    consume,
    end_ring,
    first_in,
    is_read_out,
    make_ring,
    publish,
    room_in,
)
from fastticket.dataplane.routes cimport Text
from fastticket.dataplane.sockets cimport *
from fastticket.dataplane.states cimport Downstream
from fastticket.dataplane.writer cimport Writer, put

import os
from collections import deque

from fastticket.dataplane.asks import Ask as _Ask, Where as _Where

cdef enum:
    RING_BYTES = 131072

cdef Text NOTHING = Text(<const uint8_t *>b"", 0)


@cython.no_gc_clear                     # closing connections needs what it refers to
cdef class Dialogue(Admission):
    def __cinit__(self):
        self.asked_fd = -1

    cdef int _open_rings(self) except -1:
        """Make the rings, and the slot of the bell. MemoryError, OSError."""
        cdef uint64_t asked_max = (
            sizeof(Asked) + 3 * self.head_bytes + 2 * TEXT_CHARS_MAX + self._cookies_more() + TARGET_BYTES_MAX
            + self.response_head_bytes + ADDRESS_TEXT_MAX + AGENT_BYTES_MAX + HOST_BYTES_MAX)
        cdef uint64_t told_max = sizeof(Told) + EXTRA_BYTES_MAX + DOUBT_BYTES_MAX + self.head_bytes + self._cookies_more()
        cdef uint32_t index
        self.untold = []
        self.unread = []
        self.released = deque()
        if not make_ring(&self.asked, asked_max, RING_BYTES):
            raise MemoryError("no memory for what is asked")
        if self.in_thread and not make_ring(&self.told, told_max, RING_BYTES):
            raise MemoryError("no memory for what is answered")
        self.asked_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        index = self._new_conn(self.upstreams.bells[self.plane].fd, Side.BELL)
        if self.asked_fd < 0 or not self._watch(index, EPOLLIN | EPOLLET, EPOLL_CTL_ADD):
            raise OSError(errno, os.strerror(errno), "eventfd")
        return 0

    def __dealloc__(self):
        """The thread has ended, if there was one; the layer above has closed the connections."""
        cdef const Asked *asked
        cdef Told told
        while self.asked.bytes != NULL:
            asked = <const Asked *>first_in(&self.asked)
            if asked == NULL:
                break
            if asked.kind == RELEASED:
                close(asked.fd)
            consume(&self.asked)
        for released in self.released or ():
            close(released[0])
        for message in self.untold or ():
            _read_told(<const uint8_t *><const char *>message, &told)
            _discard(&told)
        if self.told.bytes != NULL:
            self._discard_told()
        end_ring(&self.asked)
        end_ring(&self.told)
        if self.asked_fd >= 0:
            close(self.asked_fd)

    cdef inline uint64_t _cookies_more(self) noexcept nogil:
        """How much longer than its head may be what is collected of a request's cookies."""
        return FIELDS_MAX * (self.forwarding.cookie.size + 3)

    # --------------------------------------------------------- questions: what the plane writes down

    cdef void _on_turn_over(self) noexcept nogil:
        Admission._on_turn_over(self)
        if self.ask_count:
            self._write_questions()

    cdef inline void _write_questions(self) noexcept nogil:
        """Write down what was asked, as far as there is room. The rest waits until the control plane
        has read: it sees that some lack room, or else the plane sees the room that it made.
        """
        cdef uint32_t left = self._write_some()
        if left:
            swap_flag(&self.lacks_room, 1, FLAG_ORDER)
            self._write_some()

    cdef inline uint32_t _write_some(self) noexcept nogil:
        """How many questions are left for which there is no room."""
        cdef uint32_t kept = 0
        cdef uint32_t i
        for i in range(self.ask_count):
            if not self._is_awaited(&self.ask_list[i]):             # it was closed, or answered by a timeout
                continue
            if kept or not self._write_question(&self.ask_list[i]):
                self.ask_list[kept] = self.ask_list[i]
                kept += 1
        self.ask_count = kept
        return kept

    cdef inline bint _is_awaited(self, const Question *question) noexcept nogil:
        """Whether the connection still waits for that answer."""
        cdef const Conn *c = &self.conns[question.index]
        if c.generation != question.generation or c.side != Side.DOWNSTREAM or c.request.asks != question.number:
            return False
        if question.kind == AskKind.STILL_ALIVE:
            return c.request.liveness_is_asked
        return c.state == <int>(Downstream.ASKING if question.kind < AskKind.LOGIN else Downstream.CHANGING)

    cdef inline bint _write_question(self, const Question *question) noexcept nogil:
        """False: there is no room for it."""
        cdef Asked *asked = <Asked *>room_in(&self.asked, self._bytes_max(question))
        cdef Writer out
        if asked == NULL:
            return False
        memset(asked, 0, sizeof(Asked))
        out.at = <uint8_t *>asked
        out.size = sizeof(Asked)
        asked.kind = question.kind
        asked.number = question.number
        asked.handle = self._handle(question.index)
        self._put_texts(question, asked, &out)
        self._say(out.size)
        return True

    cdef inline void _say(self, uint64_t size) noexcept nogil:
        """Let the control plane have a message. It is woken if it had read all before."""
        if publish(&self.asked, size) and self.in_thread:
            eventfd_write(self.asked_fd, 1)

    cdef inline uint64_t _bytes_max(self, const Question *question) noexcept nogil:
        """How large its message may be."""
        cdef const Conn *c = &self.conns[question.index]
        cdef uint64_t size = sizeof(Asked) + HOST_BYTES_MAX + TRACE_BYTES_MAX
        size += TEXT_CHARS_MAX if c.request.doubt == NULL else TEXT_CHARS_MAX + c.request.doubt.tickets_size
        if question.kind == AskKind.EXEMPTION:
            size += TARGET_BYTES_MAX
        elif question.kind == AskKind.TOKEN:
            size += c.held_size + ADDRESS_TEXT_MAX
        elif question.kind == AskKind.SEVERAL or self.forwarding.old_cookie_count:
            size += 2 * c.held_size + self._cookies_more()
        if question.kind >= AskKind.LOGIN:
            size += c.request.notes.cookies_size if c.request.notes != NULL else 0
            size += question.value.size + ADDRESS_TEXT_MAX + AGENT_BYTES_MAX
        return size

    cdef inline void _put_texts(self, const Question *question, Asked *asked, Writer *out) noexcept nogil:
        """Write all that the answer needs, in the order of Asked's sizes."""
        cdef Conn *c = &self.conns[question.index]
        cdef AskKind kind = <AskKind>question.kind
        self._put_tickets(c, asked, out)
        if kind == AskKind.EXEMPTION:
            asked.route = c.request.route
            self._put_normal_path(question.index, asked, out)
        elif kind == AskKind.STILL_ALIVE:
            asked.is_use = self._touches(c) and c.request.is_used
            c.request.is_used = False
        elif kind == AskKind.SEVERAL or kind == AskKind.EXCHANGE:
            asked.route = c.request.route
            asked.is_use = self._touches(c)
            self._put_cookies(question.index, asked, out)
            self._put_where(question.index, asked, out)
        elif kind == AskKind.TOKEN:
            self._put_token(question.index, asked, out)
        elif kind < AskKind.LOGIN:
            asked.is_use = self._touches(c)
            asked.route = c.request.route
            if self.forwarding.old_cookie_count:
                self._put_cookies(question.index, asked, out)
        else:
            asked.server = self.conns[c.peer].link.server
            if self.forwarding.old_cookie_count and c.request.held_is_whole:
                self._put_cookies(question.index, asked, out)
            elif c.request.notes != NULL and c.request.notes.cookies_size:
                asked.cookies_size = c.request.notes.cookies_size
                put(out, c.request.notes.cookies, c.request.notes.cookies_size)
            if kind == AskKind.SUPERSEDED:
                asked.principal_size = question.value.size
                put(out, self.conns[c.peer].held + question.value.at, question.value.size)
            elif kind <= AskKind.LOGIN_REMEMBERED:
                asked.principal_size = question.value.size
                put(out, self.conns[c.peer].held + question.value.at, question.value.size)
                self._put_details(c, asked, out)
            self._put_where(question.index, asked, out)
        if self.tells_traces and kind != AskKind.STILL_ALIVE and (kind < AskKind.LOGIN or c.request.held_is_whole):
            self._put_trace(question.index, asked, out)

    cdef inline void _put_trace(self, uint32_t index, Asked *asked, Writer *out) noexcept nogil:
        """The trace that the request is part of, as its client names it."""
        cdef Conn *c = &self.conns[index]
        cdef const Field *field
        cdef int i
        self._read_again(index)
        for i in range(self.head.field_count):
            field = &self.head.fields[i]
            if field.value.size <= TRACE_BYTES_MAX and equals(c.held, field.name, b"traceparent", 11):
                asked.trace_size = field.value.size
                put(out, c.held + field.value.at, field.value.size)
                return

    cdef inline void _put_tickets(self, const Conn *c, Asked *asked, Writer *out) noexcept nogil:
        """The ticket, or all tickets of a request that came with several."""
        cdef const Doubt *doubt = c.request.doubt
        if doubt != NULL and doubt.tickets_size:
            asked.tickets_size = doubt.tickets_size
            put(out, doubt.text + doubt.fields_size, doubt.tickets_size)
        elif c.request.checked.size:
            asked.tickets_size = encode(c.request.checked.raw, c.request.checked.size, out.at + out.size)
            out.size += asked.tickets_size

    cdef inline void _put_normal_path(self, uint32_t index, Asked *asked, Writer *out) noexcept nogil:
        """The normal form of a path that is plain."""
        cdef Conn *c = &self.conns[index]
        cdef int odd_at
        cdef int size
        self._read_again(index)
        if self.head.target_is_bare:
            put(out, b"*" if self.head.target_is_star else b"/", 1)
            asked.path_size = 1
            return
        size = normal_path(c.held + self.head.path.at, self.head.path.size, out.at + out.size, &odd_at)
        asked.path_size = <uint32_t>max(size, 0)
        out.size += asked.path_size

    cdef inline void _put_cookies(self, uint32_t index, Asked *asked, Writer *out) noexcept nogil:
        """Of a request with more than one ticket, or with another system's cookie: its path as it
        came, and all that may have a ticket, as a Cookie field.
        """
        cdef Conn *c = &self.conns[index]
        cdef const Field *field
        cdef uint32_t begin
        cdef int i
        self._read_again(index)
        asked.path_size = self.head.path.size
        put(out, c.held + self.head.path.at, self.head.path.size)
        begin = out.size
        for i in range(self.head.known_count):
            field = &self.head.fields[self.head.known[i]]
            if field.kind == Kind.COOKIE:
                put(out, b"; ", 2 if out.size > begin else 0)
                put(out, c.held + field.value.at, field.value.size)
            elif field.kind == Kind.AUTHORIZATION and field.value.size > 7 and equals(c.held, Span(field.value.at, 7), b"ticket ", 7):
                put(out, b"; ", 2 if out.size > begin else 0)
                put(out, self.forwarding.cookie.at, self.forwarding.cookie.size)
                put(out, b"=", 1)
                put(out, c.held + field.value.at + 7, field.value.size - 7)
        asked.cookies_size = out.size - begin

    cdef inline void _put_token(self, uint32_t index, Asked *asked, Writer *out) noexcept nogil:
        """Of a program that names a token: its path as it came, the code, the user, its address."""
        cdef Conn *c = &self.conns[index]
        cdef Span code = Span(0, 0)
        cdef Span user = Span(0, 0)
        self._read_again(index)
        self.forwarding.find_token(c.held, &self.head, &code, &user)
        asked.path_size = self.head.path.size
        put(out, c.held + self.head.path.at, self.head.path.size)
        asked.cookies_size = code.size
        put(out, c.held + code.at, code.size)
        asked.principal_size = user.size
        put(out, c.held + user.at, user.size)
        if c.client.has_address:
            asked.address_size = write_address(c.client.address, <char *>out.at + out.size)
            out.size += asked.address_size

    cdef inline void _put_details(self, const Conn *c, Asked *asked, Writer *out) noexcept nogil:
        """What to record with a login, as far as it is known."""
        if self.records_address and c.client.has_address:
            asked.address_size = write_address(c.client.address, <char *>out.at + out.size)
            out.size += asked.address_size
        if c.request.notes != NULL and c.request.notes.has_agent:
            asked.has_agent = True
            asked.agent_size = c.request.notes.agent_size
            put(out, c.request.notes.agent, c.request.notes.agent_size)

    cdef inline void _put_where(self, uint32_t index, Asked *asked, Writer *out) noexcept nogil:
        """What of a request decides about cookies: its Host, and whether it came by https."""
        cdef Conn *c = &self.conns[index]
        if c.request.held_is_whole:
            self.head_of = NO_HANDLE                  # the request itself, not one that it describes
            parse_request(self.names, c.held, c.held_size, &self.head)
            self._note_where(c)
        asked.is_https = c.request.is_https
        asked.host_size = c.request.host_size
        put(out, <const uint8_t *>c.request.host, c.request.host_size)

    cdef inline bint _write_released(self, uint32_t index) noexcept nogil:
        """Let the control plane have a client with nothing under way. False: there is no room."""
        cdef Conn *c = &self.conns[index]
        cdef Asked *asked = <Asked *>room_in(&self.asked, sizeof(Asked) + ADDRESS_BYTES)
        if asked == NULL:
            return False
        memset(asked, 0, sizeof(Asked))
        asked.kind = RELEASED
        asked.fd = c.fd
        asked.is_believed = c.client.is_trusted
        asked.path_size = ADDRESS_BYTES if c.client.peer_text_size else 0
        memcpy(<uint8_t *>asked + sizeof(Asked), c.client.peer_address, asked.path_size)
        self._watch(index, 0, EPOLL_CTL_DEL)
        c.fd = -1
        self._close(index)
        self._say(sizeof(Asked) + asked.path_size)
        return True

    # ------------------------------------------------------------ questions: what Python reads of them

    def asks_fileno(self):
        return self.asked_fd

    def asks(self):
        """What the control plane is asked since the last call: records of `asks.Ask`."""
        if self.untold:
            self._post_untold()
        self._collect()
        found, self.unread = self.unread, []
        return found

    cdef int _collect(self) except -1:
        """Read the ring."""
        cdef const Asked *asked
        cdef eventfd_t wakes
        cdef bint is_released
        if self.in_thread:
            eventfd_read(self.asked_fd, &wakes)             # first: what comes from now on makes it readable again
        while True:
            asked = <const Asked *>first_in(&self.asked)
            if asked != NULL:
                is_released = asked.kind == RELEASED
                if is_released:
                    self.released.append((asked.fd, _text_of(asked, 1), bool(asked.is_believed)))
                else:
                    self.unread.append(_record_of(asked))
                consume(&self.asked)
                if is_released and self.takes_back:
                    self.adopt(*self.released.pop())
            elif self.in_thread:
                if swap_flag(&self.lacks_room, 0, FLAG_ORDER):
                    self.upstreams.ring(self.plane, 0)
                return 0
            elif self.ask_count:
                self._write_questions()
                if self.ask_count and is_read_out(&self.asked):
                    return 0
            else:
                self.asked.read_at = self.asked.written_at = 0      # one thread: the same few lines of memory again
                return 0

    # ---------------------------------------------------------------- orders: what Python answers

    def admit(self, handle):
        """The ticket is alive: forward the request."""
        self._answer_ask(Order.ADMIT, handle, 0, NOTHING, NOTHING)

    def refuse(self, handle, verdict):
        """The ticket is not alive, or that is not known: answer 401 or 503; where a ticket is
        optional, forward without identity.
        """
        self._answer_ask(Order.REFUSE, handle, verdict.value, NOTHING, NOTHING)

    def doubt(self, handle, bytes fields not None, bytes tickets not None):
        """The client came with these tickets (spaces between), and it is not known which is meant;
        the answer gets these field lines.
        """
        if len(fields) > DOUBT_BYTES_MAX:
            raise ValueError(f"at most {DOUBT_BYTES_MAX} bytes of fields, not {len(fields)}")
        if <uint64_t>len(tickets) > self.head_bytes + self._cookies_more():
            raise ValueError("more tickets than a head has")
        self._answer_ask(Order.DOUBT, handle, 0, _text(fields), _text(tickets))

    def exchanged(self, handle, ticket, bytes fields not None):
        """The client's cookie of another system is good for this ticket: forward the request; the
        answer gets these field lines.
        """
        cdef uint8_t[RAW_BUFFER_BYTES] raw
        cdef const uint8_t *text = NULL
        cdef Py_ssize_t chars = 0
        if len(fields) > DOUBT_BYTES_MAX:
            raise ValueError(f"at most {DOUBT_BYTES_MAX} bytes of fields, not {len(fields)}")
        if ascii_text(ticket, &text, &chars):
            self._answer_ask(Order.EXCHANGED, handle, 0, Text(&raw[0], decode(text, chars, raw)), _text(fields))

    def minted(self, handle, bytes ticket not None):
        """What the upstream wants beside the identity of this request's session."""
        self._answer_ask(Order.MINTED, handle, 0, _text(ticket), NOTHING)

    def exempt(self, handle, bint is_exempt):
        """Whether the path of a request that has no good ticket needs none."""
        self._answer_ask(Order.EXEMPT, handle, is_exempt, NOTHING, NOTHING)

    def vouch(self, handle, bint is_alive):
        """The answer to STILL_ALIVE. False ends the stream, tunnel or upload."""
        self._answer_ask(Order.VOUCH, handle, is_alive, NOTHING, NOTHING)

    def readmit(self, handle, ticket):
        """The session of a response that waits has another ticket now: a stream or tunnel that
        begins goes on with it.
        """
        cdef uint8_t[RAW_BUFFER_BYTES] raw
        cdef const uint8_t *text = NULL
        cdef Py_ssize_t chars = 0
        if ascii_text(ticket, &text, &chars):
            self._answer_ask(Order.READMIT, handle, 0, Text(&raw[0], decode(text, chars, raw)), NOTHING)

    def relay(self, handle, bytes fields not None):
        """Let a response that waited go on, with these field lines (each ended by CRLF) added."""
        if len(fields) > EXTRA_BYTES_MAX:
            raise ValueError(f"at most {EXTRA_BYTES_MAX} bytes of fields, not {len(fields)}")
        self._answer_ask(Order.RELAY, handle, 0, _text(fields), NOTHING)

    def fail(self, handle, int status, slug):
        """Answer with an error in place of a response that waited."""
        cdef bytes reason = slug.encode("ascii") + b"\0"
        self._answer_ask(Order.FAIL, handle, status, _text(reason), NOTHING)

    cdef int _answer_ask(self, Order order, object handle, int value, Text first, Text second) except -1:
        cdef Told told
        told.order = order
        told.number = handle >> 64
        told.handle = handle & 0xFFFFFFFFFFFFFFFF
        told.value = value
        told.flags = <uint64_t>self.checker.now()
        told.first = first
        told.second = second
        return self._tell(&told)

    # ------------------------------------------------------------------ orders: how they reach the plane

    cdef int _tell(self, Told *told) except -1:
        """Do as told now, or let the plane's thread do it."""
        if count_of(&self.has_ended, COUNT_ORDER):
            _discard(told)
        elif not self.in_thread:
            self._read_clock()
            self._do(told)
            self._end_turn()
        elif self.untold and not self._post_untold() or not self._post(told):
            self.untold.append(
                (<char *>told)[:sizeof(Told)] + (<char *>told.first.at)[:told.first.size]
                + (<char *>told.second.at)[:told.second.size])
        return 0

    cdef bint _post(self, const Told *told) noexcept nogil:
        """Put a message into the ring. False: there is no room."""
        cdef uint64_t size = sizeof(Told) + told.first.size + told.second.size
        cdef uint8_t *at = room_in(&self.told, size)
        if at == NULL:
            return False
        memcpy(at, told, sizeof(Told))
        memcpy(at + sizeof(Told), told.first.at, told.first.size)
        memcpy(at + sizeof(Told) + told.first.size, told.second.at, told.second.size)
        if publish(&self.told, size):
            self.upstreams.ring(self.plane, 0)
        return True

    cdef int _post_untold(self) except -1:
        """Put what had no room into the ring, in its order. Whether all of it is there."""
        cdef Told told
        cdef bytes message
        while self.untold:
            message = self.untold[0]
            _read_told(<const uint8_t *><const char *>message, &told)
            if not self._post(&told):
                return 0
            self.untold.pop(0)
        return 1

    @property
    def is_caught_up(self):
        """Whether all that the plane was told has been done."""
        if not self.in_thread or count_of(&self.has_ended, COUNT_ORDER):
            return True
        if not (self._post_untold() and is_read_out(&self.told)):
            return False
        if self.takes_back:
            self._collect()                                 # whom it takes back it is told of
        return bool(is_read_out(&self.told))

    cdef void _do_all_told(self) noexcept nogil:
        """Do all that other threads have told this plane."""
        cdef const uint8_t *at
        cdef Told told
        if not self.in_thread:
            return
        while True:
            at = first_in(&self.told)
            if at == NULL:
                return
            _read_told(at, &told)
            self._do(&told)
            consume(&self.told)

    cdef void _discard_told(self) noexcept nogil:
        """Nobody does these any more."""
        cdef const uint8_t *at
        cdef Told told
        while True:
            at = first_in(&self.told)
            if at == NULL:
                return
            _read_told(at, &told)
            _discard(&told)
            consume(&self.told)

    cdef void _do(self, const Told *told) noexcept nogil:
        """The one place where a plane does what it was told, in its own thread."""
        if told.order <= Order.EXEMPT:
            self._judged(told)
        elif told.order == Order.VOUCH:
            self._vouched(told)
        elif told.order <= Order.FAIL:
            self._changed(told)
        else:
            self._obey(told)

    # -------------------------------------------------------------------------------- answers, done

    cdef void _judged(self, const Told *told) noexcept nogil:
        """An answer about a request that waits for it. One to another question is dropped."""
        cdef uint32_t index = self._find(told, Downstream.ASKING)
        cdef Conn *c
        if index == NONE:
            return
        c = &self.conns[index]
        if (c.request.asked == AskKind.EXEMPTION) != (told.order == Order.EXEMPT):
            return
        if told.order != Order.REFUSE and (
                self._gets_ticket(c) != (told.order == Order.EXCHANGED)
                or (c.request.asked == AskKind.MINT) != (told.order == Order.MINTED)):
            return
        if (told.order == Order.ADMIT or told.order == Order.EXCHANGED) and self._is_late(told):
            self._ask(index, <AskKind>c.request.asked, Span(0, 0))      # until the deadline of the first time
            return
        if told.order == Order.ADMIT:
            self._note_compared(index)
            self._admit(index)
        elif told.order == Order.EXCHANGED:
            self._exchanged(index, told)
        elif told.order == Order.MINTED:
            self._has_minted(index, told)
        elif c.request.asked == AskKind.MINT:
            self.counters.admitted -= 1
            c.request.is_admitted = False
            self._refused(index, <int>told.value)
        elif told.order == Order.REFUSE:
            self._refused(index, self._reason_of(c, <int>told.value))
        elif told.order == Order.DOUBT:
            self._doubted(index, told)
        elif told.value:
            self._pass(index)
        else:
            self._refused(index, c.request.verdict)
        self._advance_downstream(index)

    cdef inline bint _is_late(self, const Told *told) noexcept nogil:
        """Whether an answer has waited for a thread, or a process, that was stopped: the session may
        have ended since.
        """
        cdef int64_t waited_ms = self.checker.now() - <int64_t>told.flags
        return not 0 <= waited_ms < VOUCH_MS

    cdef inline bint _gets_ticket(self, const Conn *c) noexcept nogil:
        """Whether a request waits for something to go on with in the place of a ticket of its own."""
        return c.request.asked == AskKind.EXCHANGE or c.request.asked == AskKind.TOKEN

    cdef inline int _reason_of(self, const Conn *c, int verdict) noexcept nogil:
        """Why a request is refused. If it came with a ticket of ours, that one's reason counts, not
        the other system's cookie's.
        """
        if c.request.asked != AskKind.EXCHANGE or c.request.verdict == Verdict.MISSING \
                or is_store_away(verdict):
            return verdict
        return c.request.verdict

    cdef void _exchanged(self, uint32_t index, const Told *told) noexcept nogil:
        """As if the request had come with this ticket; the answer gives it to the client."""
        cdef Conn *c = &self.conns[index]
        c.request.checked.size = <int>told.first.size
        memcpy(c.request.checked.raw, told.first.at, told.first.size)
        if told.second.size:
            c.request.doubt = _doubt(&told.second, &NOTHING)
        self._note_compared(index)
        self._admit(index)

    cdef void _has_minted(self, uint32_t index, const Told *told) noexcept nogil:
        if self.forwarding.minted.put(self.conns[index].request.checked.raw + SESSION_ID_AT, &told.first):
            self._forward(index)
        else:
            self._fail_exchange(index, Reason.OUT_OF_MEMORY)

    cdef void _doubted(self, uint32_t index, const Told *told) noexcept nogil:
        if self.conns[index].request.asked == AskKind.SEVERAL:
            self.conns[index].request.doubt = _doubt(&told.first, &told.second)
            self._refused(index, Verdict.AMBIGUOUS)

    cdef void _vouched(self, const Told *told) noexcept nogil:
        cdef uint32_t index = self._asked_by(told)
        if index == NONE or not self.conns[index].request.liveness_is_asked:
            return
        self.conns[index].request.liveness_is_asked = False
        if not told.value:
            self._end_for_session(index)

    cdef void _changed(self, const Told *told) noexcept nogil:
        """An answer to a response that waits for a change of its session."""
        cdef uint32_t index = self._find(told, Downstream.CHANGING)
        cdef Conn *c
        if index == NONE:
            return
        c = &self.conns[index]
        if told.order == Order.READMIT:
            c.request.checked.size = <int>told.first.size
            memcpy(c.request.checked.raw, told.first.at, told.first.size)
            return
        if told.order == Order.RELAY:
            self._relay_on(index, &told.first)
        else:
            self._fail_exchange_as(index, <int>told.value, <const char *>told.first.at)
        self._advance_downstream(index)

    cdef void _relay_on(self, uint32_t index, const Text *lines) noexcept nogil:
        cdef uint32_t upstream = self.conns[index].peer
        self._clear_timer(index)
        enter(&self.conns[index], Downstream.EXCHANGING)
        self.head_of = NO_HANDLE
        parse_response(
            self.names, self.conns[upstream].held, self.conns[upstream].held_size, self.conns[index].request.method, &self.head)
        self._relay(upstream, self.conns[upstream].held, self.conns[upstream].held_size, lines)

    cdef uint32_t _find(self, const Told *told, Downstream state) noexcept nogil:
        """The connection that is answered, or NONE: it is gone, or no longer in that state."""
        cdef uint32_t index = self._asked_by(told)
        return NONE if index == NONE or self.conns[index].state != <int>state else index

    cdef uint32_t _asked_by(self, const Told *told) noexcept nogil:
        """The connection that asked, or NONE. An answer has the number of the question, because the
        connection may have gone on:

        1. a request asks, and the store is slow
        2. it is answered by a timeout, and the next request of the connection asks
        3. the first answer comes: it must not be taken for the second one
        """
        cdef uint32_t index = <uint32_t>told.handle
        if index >= self.conn_count or self.conns[index].generation != <uint32_t>(told.handle >> 32):
            return NONE
        if self.conns[index].side != Side.DOWNSTREAM or self.conns[index].request.asks != told.number:
            return NONE
        return index

    # --------------------------------------------------------------------- what the layers above do

    cdef void _obey(self, const Told *told) noexcept nogil:
        """Do as commanded: Order.LISTEN and what follows."""


cdef Text _text(bytes value):
    """Borrowed: the caller keeps `value`."""
    return Text(<const uint8_t *><const char *>value, <uint32_t>len(value))


cdef void _read_told(const uint8_t *at, Told *told) noexcept nogil:
    """Read a message that stands in one piece. Its texts stay where they are."""
    memcpy(told, at, sizeof(Told))
    told.first.at = at + sizeof(Told)
    told.second.at = at + sizeof(Told) + told.first.size


cdef void _discard(const Told *told) noexcept nogil:
    """A message that nobody acts upon: a descriptor that came with it is closed."""
    if told.order == Order.ADOPT or told.order == Order.LISTEN:
        close(<int>told.value)


cdef bytes _text_of(const Asked *asked, int number):
    """A text of a question, by its number in the order of their sizes."""
    cdef const uint32_t *sizes = &asked.tickets_size
    cdef const char *at = <const char *>asked + sizeof(Asked)
    cdef int i
    for i in range(number):
        at += sizes[i]
    return at[:sizes[number]]


cdef object _record_of(const Asked *asked):
    """A question as Python gets it."""
    cdef AskKind kind = <AskKind>asked.kind
    return _Ask(
        kind, <object>asked.number << 64 | asked.handle, _text_of(asked, 0).decode("latin-1"),
        is_use=bool(asked.is_use),
        route=asked.route,
        path=_text_of(asked, 1),
        cookies=_text_of(asked, 2),
        principal=_text_of(asked, 3),
        details=_details_of(asked),
        where=_Where(_text_of(asked, 6).decode("ascii"), bool(asked.is_https)),
        server=asked.server,
        trace=_text_of(asked, 7).decode("latin-1"),
    )


cdef dict _details_of(const Asked *asked):
    """What to record with a login, as far as it is known."""
    cdef dict details = {}
    if asked.address_size:
        details["address"] = _text_of(asked, 4).decode("ascii")
    if asked.has_agent:
        details["user_agent"] = _text_of(asked, 5).decode("utf-8", "replace")[:AGENT_CHARS_MAX]
    return details


cdef Doubt *_doubt(const Text *fields, const Text *tickets) noexcept nogil:
    """A Doubt, to be freed. NULL: there is no memory, and so no clearing this time."""
    cdef Doubt *made = <Doubt *>malloc(sizeof(Doubt) + fields.size + tickets.size)
    if made != NULL:
        made.text = <uint8_t *>made + sizeof(Doubt)
        made.fields_size = fields.size
        made.tickets_size = tickets.size
        memcpy(made.text, fields.at, fields.size)
        memcpy(made.text + fields.size, tickets.at, tickets.size)
    return made
