# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Whether a request may pass: its ticket, its route, and what only the control plane knows.

A request that was admitted stays so for one answer, and no longer than its session: while a tunnel,
a stream or an upload goes on, its ticket is judged again every VOUCH_MS.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastticket.core.ticket cimport ascii_text, decode, encode
from fastticket.core.verdict cimport Verdict
from fastticket.core.wire cimport RAW_BUFFER_BYTES, TEXT_CHARS_MAX
from fastticket.dataplane.accesslog cimport NO_KEY
from fastticket.dataplane.answers cimport NO_HANDLE
from fastticket.dataplane.asks cimport AskKind, Question
from fastticket.dataplane.clients cimport ADDRESS_TEXT_MAX, write_address
from fastticket.dataplane.conn cimport (
    AGENT_CHARS_MAX,
    DOUBT_BYTES_MAX,
    Conn,
    Doubt,
    Endpoint,
    Preference,
    Side,
    enter,
)
from fastticket.dataplane.connections cimport Timer
from fastticket.dataplane.endpoint cimport Front, find_original
from fastticket.dataplane.forwarding cimport is_browser
from fastticket.dataplane.fieldnames cimport Kind
from fastticket.dataplane.http1 cimport Field, Head, TARGET_BYTES_MAX, parse_request, parse_response
from fastticket.dataplane.octets cimport Span, equals
from fastticket.dataplane.links cimport ticket_key
from fastticket.dataplane.lists cimport NONE
from fastticket.dataplane.paths cimport EXACT, normal_path
from fastticket.dataplane.reasons cimport Reason, Row, row_of, slug_of
from fastticket.dataplane.routes cimport NO_ROUTE, Auth, Text
from fastticket.dataplane.sockets cimport *
from fastticket.dataplane.states cimport Downstream
from fastticket.dataplane.balance cimport Balance, Group, Server

from fastticket.dataplane.asks import Ask as _Ask, Where as _Where


@cython.no_gc_clear                     # closing connections needs what it refers to
cdef class Admission(Exchange):
    def __dealloc__(self):
        free(self.ask_list)

    # ----------------------------------------------------------------------------- a request begins

    cdef inline void _begin(self, uint32_t index) noexcept nogil:
        """Begin a request whose head has just been read from `held` into `self.head`."""
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
        c.request.liveness_is_asked = False
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
        if c.request.endpoint and self.front and c.client.is_trusted and not self._judge_described_request(index):
            return
        c.request.auth = self.routes.table[c.request.route].auth if c.request.is_plain else Auth.AUTH_REQUIRED
        c.waits = self.routes.table[c.request.route].waits
        if c.request.auth == Auth.AUTH_NONE:
            self._pass(index)
        else:
            self._check(index)

    cdef inline void _refuse_body(self, uint32_t index) noexcept nogil:
        """Reject a request with a malformed body. Its head was good, so the answer has its route's
        fields.
        """
        cdef Conn *c = &self.conns[index]
        c.request.route = self.routes.find(c.held, &self.head, &c.request.is_plain)
        c.request.is_routed = c.request.route != NO_ROUTE
        if not c.request.is_routed:
            c.request.route = 0
        self._reject_unreadable(index, Reason.BAD_REQUEST)

    cdef inline bint _judge_described_request(self, uint32_t index) noexcept nogil:
        """Judge the request that a gateway of ours describes at the endpoint, by the route that it
        falls under. False: it was answered.
        """
        cdef Conn *c = &self.conns[index]
        cdef int found = find_original(self.front, &self.routes.table[self.routes.endpoint], c.held, &self.head)
        if found == 0:
            return True                             # no request is described: only the ticket is judged
        if found > 0:
            c.request.endpoint = Endpoint.OF_REQUESTS
            if self.log is not None and c.request.entry != NULL:
                self._note_target(c)
            c.request.route = self.routes.find(c.held, &self.head, &c.request.is_plain)
            if c.request.route != NO_ROUTE:
                return True
            c.request.route = 0
            self._answer(index, Reason.NO_ROUTE_DESCRIBED)      # nginx's auth_request turns 404 into 500
            return False
        self._note_refused(c, Verdict.AMBIGUOUS)
        self.counters.refused[<int>Verdict.AMBIGUOUS] += 1
        c.request.closes = True
        self._answer(index, Reason.AMBIGUOUS_DESCRIPTION)
        return False

    cdef inline void _check(self, uint32_t index) noexcept nogil:
        """Judge the ticket, from the cookie or `Authorization: Ticket`: there must be exactly one.
        """
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
        """What to ask the control plane where the near cache does not decide."""
        if self._is_strong(c):
            return AskKind.AUTHENTICATE_STRONG
        return AskKind.AUTHENTICATE_LATEST if c.request.preferences & Preference.LIFETIME_ASKED else AskKind.AUTHENTICATE

    cdef inline bint _touches(self, const Conn *c) noexcept nogil:
        """Whether the request is use of its session."""
        return self.routes.table[c.request.route].touches and not c.request.preferences & Preference.NO_USE_ASKED

    cdef inline bint _is_strong(self, const Conn *c) noexcept nogil:
        """Whether the store decides. A path that is not plain may be a strong route's to the
        service behind us.
        """
        return self.routes.table[c.request.route].is_strong or not c.request.is_plain and self.routes.has_strong

    cdef inline void _admit(self, uint32_t index) noexcept nogil:
        self.counters.admitted += 1
        self.conns[index].request.is_admitted = True
        self._go_on(index)

    cdef inline void _pass(self, uint32_t index) noexcept nogil:
        """Forward a request without identity: it has no ticket, or none is needed."""
        if self.conns[index].request.entry != NULL:
            self.conns[index].request.entry.principal_size = 0
            self.conns[index].request.entry.key_id = NO_KEY
        self.counters.anonymous += 1
        self._go_on(index)

    cdef inline void _go_on(self, uint32_t index) noexcept nogil:
        """Forward a request that may pass, or tell the gateway that asks about it."""
        if self.conns[index].request.endpoint:
            self._answer_identity(index)
        else:
            self._forward(index)

    cdef void _forward_now(self, uint32_t index) noexcept nogil:
        """Forward a request that was pending. Whether it is admitted may have changed meanwhile: it
        is judged again, once.
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

    cdef inline void _refused(self, uint32_t index, int verdict) noexcept nogil:
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

    cdef inline bint _is_browser(self, uint32_t index) noexcept nogil:
        self._read_again(index)
        return is_browser(self.conns[index].held, &self.head)

    cdef inline bint _has_exact_path(self, uint32_t index) noexcept nogil:
        """Whether every reader sees the very same path: an exemption's expression is not asked
        about another.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint8_t[TARGET_BYTES_MAX] normal
        cdef int odd_at
        self._read_again(index)
        return self.head.target_is_bare or (
            normal_path(c.held + self.head.path.at, self.head.path.size, normal, &odd_at) >= 0 and odd_at == EXACT)

    # ----------------------------------------------------------------------------- while it goes on

    cdef inline void _recheck_session(self, uint32_t index) noexcept nogil:
        """Look whether the session of a stream, a tunnel or an upload goes on."""
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

    cdef inline bint _is_alive(self, uint32_t index) noexcept nogil:
        """Whether a session lives, as far as is known here. What the near cache does not know the
        control plane is asked; it answers with `vouch`.
        """
        cdef Conn *c = &self.conns[index]
        cdef bint touches = c.request.is_used and self._touches(c)
        cdef Verdict verdict = self.checker.judge_again(&c.request.checked, self.checker.now(), touches)
        if verdict == Verdict.HIT:
            c.request.is_used = False
        elif verdict != Verdict.MISS and verdict != Verdict.REFRESH:
            return False
        elif not c.request.liveness_is_asked and self.ask_count < 2 * self.conn_max:
            c.request.liveness_is_asked = True
            self._ask(index, AskKind.STILL_ALIVE, Span(0, 0))
        return True

    cdef inline void _end_for_session(self, uint32_t index) noexcept nogil:
        """End a stream, tunnel or upload whose session is over. A client that uploads gets 401:
        nothing of the answer is on its way.
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

    # -------------------------------------------------------------- what the control plane is asked

    cdef inline void _wait_for_verdict(self, uint32_t index, AskKind kind) noexcept nogil:
        enter(&self.conns[index], Downstream.ASKING)
        self._set_timer(index, Timer.ASKED)
        self._ask(index, kind, Span(0, 0))

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
            self.head_of = NO_HANDLE                  # the request itself, not one that it describes
            parse_request(self.names, c.held, c.held_size, &self.head)
            self._note_where(c)
        return _Where(c.request.host[:c.request.host_size].decode("ascii"), bool(c.request.is_https))

    cdef tuple _several(self, uint32_t index):
        """Of a request with more than one ticket: its path as it came, and all that may have a
        ticket, as a Cookie field.
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

    # ------------------------------------------------------------------------------ what it answers

    def admit(self, handle):
        """The ticket is alive: forward the request."""
        cdef uint32_t index = self._find(handle, Downstream.ASKING)
        if index != NONE and self.conns[index].request.asked != AskKind.EXEMPTION:
            self._read_clock()
            self._admit(index)
            self._advance_downstream(index)
            self._end_turn()

    def refuse(self, handle, verdict):
        """The ticket is not alive, or that is not known: answer 401 or 503; where a ticket is
        optional, forward without identity.
        """
        cdef uint32_t index = self._find(handle, Downstream.ASKING)
        if index != NONE and self.conns[index].request.asked != AskKind.EXEMPTION:
            self._read_clock()
            self._refused(index, verdict.value)
            self._advance_downstream(index)
            self._end_turn()

    def doubt(self, handle, bytes fields not None, bytes tickets not None):
        """The client came with these tickets (spaces between), and it is not known which is meant;
        the answer gets these field lines.
        """
        cdef uint32_t index = self._find(handle, Downstream.ASKING)
        if len(fields) > DOUBT_BYTES_MAX:
            raise ValueError(f"at most {DOUBT_BYTES_MAX} bytes of fields, not {len(fields)}")
        if index != NONE and self.conns[index].request.asked == AskKind.SEVERAL:
            self._read_clock()
            self.conns[index].request.doubt = _doubt(fields, tickets)
            self._refused(index, Verdict.AMBIGUOUS)
            self._advance_downstream(index)
            self._end_turn()

    def exempt(self, handle, bint is_exempt):
        """Whether the path of a request that has no good ticket needs none."""
        cdef uint32_t index = self._find(handle, Downstream.ASKING)
        if index != NONE and self.conns[index].request.asked == AskKind.EXEMPTION:
            self._read_clock()
            if is_exempt:
                self._pass(index)
            else:
                self._refused(index, self.conns[index].request.verdict)
            self._advance_downstream(index)
            self._end_turn()

    def vouch(self, handle, bint is_alive):
        """The answer to STILL_ALIVE. False ends the stream, tunnel or upload."""
        cdef uint32_t index = self._asked(handle)
        if index == NONE or not self.conns[index].request.liveness_is_asked:
            return
        self.conns[index].request.liveness_is_asked = False
        if not is_alive:
            self._read_clock()
            self._end_for_session(index)
            self._end_turn()

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
        self._read_clock()
        server = &self.upstreams.servers[self.conns[self.conns[index].peer].link.server]
        if server.is_retired or server.is_sick or server.down_until_ms > self.now_ms:
            return True                                     # no client comes back to it
        return size == 0 or self.upstreams.pick_for_key(group, ticket_key(raw, size), self.now_ms, False) \
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
            self._read_clock()
            upstream = self.conns[index].peer
            self._clear_timer(index)
            enter(&self.conns[index], Downstream.EXCHANGING)
            self.head_of = NO_HANDLE
            parse_response(
                self.names, self.conns[upstream].held, self.conns[upstream].held_size, self.conns[index].request.method, &self.head)
            self._relay(upstream, self.conns[upstream].held, self.conns[upstream].held_size, &lines)
            self._advance_downstream(index)
            self._end_turn()

    def fail(self, handle, int status, slug):
        """Answer with an error in place of a response that waited."""
        cdef uint32_t index = self._find(handle, Downstream.CHANGING)
        cdef bytes reason = slug.encode("ascii")
        if index != NONE:
            self._read_clock()
            self._fail_exchange_as(index, status, reason)
            self._advance_downstream(index)
            self._end_turn()

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


cdef bint _awaits(const Conn *c, AskKind kind) noexcept nogil:
    """Whether the connection still waits for that answer."""
    if kind == AskKind.STILL_ALIVE:
        return c.request.liveness_is_asked
    return c.state == <int>(Downstream.ASKING if kind < AskKind.LOGIN else Downstream.CHANGING)


cdef Doubt *_doubt(bytes fields, bytes tickets) except? NULL:
    """A Doubt, to be freed. NULL: there is no memory, and so no clearing this time."""
    cdef Doubt *made = <Doubt *>malloc(sizeof(Doubt) + len(fields) + len(tickets))
    if made != NULL:
        made.text = <uint8_t *>made + sizeof(Doubt)
        made.fields_size = <uint32_t>len(fields)
        made.tickets_size = <uint32_t>len(tickets)
        memcpy(made.text, <const char *>fields, len(fields))
        memcpy(made.text + len(fields), <const char *>tickets, len(tickets))
    return made
