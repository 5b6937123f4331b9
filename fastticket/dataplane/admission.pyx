# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Whether a request may pass: its ticket, its route, and what only the control plane knows.

A request that was admitted stays so for one answer, and no longer than its session: while a tunnel,
a stream or an upload goes on, its ticket is judged again every VOUCH_MS.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from fastticket.core.compiler cimport is_rare
from fastticket.core.verdict cimport Verdict, is_store_away
from fastticket.core.wire cimport FORMAT, SESSION_ID_AT
from fastticket.dataplane.accesslog cimport NO_KEY
from fastticket.dataplane.asks cimport AskKind, Question
from fastticket.dataplane.compared cimport mark_of
from fastticket.dataplane.conn cimport Conn, Endpoint, Preference, Request, enter
from fastticket.dataplane.connections cimport Timer
from fastticket.dataplane.endpoint cimport Front, find_original
from fastticket.dataplane.fieldnames cimport Kind
from fastticket.dataplane.http1 cimport Field, Head, Method, TARGET_BYTES_MAX
from fastticket.dataplane.lists cimport NONE
from fastticket.dataplane.octets cimport Span, equals
from fastticket.dataplane.paths cimport EXACT, normal_path
from fastticket.dataplane.reasons cimport Reason, Row, row_of, slug_of
from fastticket.dataplane.routes cimport NO_ROUTE, Auth
from fastticket.dataplane.states cimport Downstream


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
        c.request.exchange_asked = False
        c.request.token_asked = False
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
        if is_rare(self.routes.table[self.conns[index].request.route].minds_old_cookies, 0) and self._asks_of_old(index):
            pass
        elif self.conns[index].request.endpoint:
            self._answer_identity(index)
        else:
            self._forward(index)

    cdef bint _asks_of_old(self, uint32_t index) noexcept nogil:
        """Whether the control plane has to be asked first: about another system's cookie beside a
        ticket, which may be another user's, or for that system's ticket, which the upstream wants.
        A request that a token admitted has no session.
        """
        cdef Request *request = &self.conns[index].request
        cdef uint64_t mark
        if not request.is_admitted or request.checked.raw[0] != FORMAT:
            return False
        mark = self._old_mark(index)
        if mark and not self.forwarding.compared.has(mark):
            request.is_admitted = False
            self.counters.admitted -= 1
            self._wait_for_verdict(index, AskKind.AUTHENTICATE)
            return True
        if not self.routes.table[request.route].wants_old_ticket or request.endpoint \
                or self.forwarding.minted.find(request.checked.raw + SESSION_ID_AT).size:
            return False
        self._wait_for_verdict(index, AskKind.MINT)
        return True

    cdef void _note_compared(self, uint32_t index) noexcept nogil:
        """The control plane admits a request, whatever other system's cookies it has."""
        cdef const Request *request = &self.conns[index].request
        cdef uint64_t mark
        if is_rare(self.routes.table[request.route].minds_old_cookies, 0) and request.checked.raw[0] == FORMAT:
            mark = self._old_mark(index)
            if mark:
                self.forwarding.compared.put(mark)

    cdef uint64_t _old_mark(self, uint32_t index) noexcept nogil:
        """Of a request's session and its cookies of other systems; 0: it has none of them."""
        cdef const Conn *c = &self.conns[index]
        if self.forwarding.old_cookie_count == 0:
            return 0
        self._read_again(index)
        return mark_of(
            c.held, &self.head, self.forwarding.old_cookies, self.forwarding.old_cookie_count,
            c.request.checked.raw + SESSION_ID_AT, self.now_ms)

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
        cdef bint is_certain = not is_store_away(verdict)
        cdef bint has_challenge = True
        cdef bint has_location = False
        cdef int status = 401
        self._note_refused(c, verdict)
        if is_certain and self.forwarding.old_cookie_count and verdict != Verdict.AMBIGUOUS \
                and not c.request.exchange_asked and self._has_old_cookie(index):
            c.request.exchange_asked = True
            c.request.has_no_ticket = verdict == Verdict.MISSING
            c.request.verdict = <uint8_t>verdict
            c.request.checked.size = 0
            self._wait_for_verdict(index, AskKind.EXCHANGE)
            return
        if is_certain and self.forwarding.takes_tokens and verdict != Verdict.AMBIGUOUS \
                and not c.request.token_asked and self._has_token(index):
            c.request.token_asked = True
            c.request.checked.size = 0
            self._wait_for_verdict(index, AskKind.TOKEN)
            return
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
        self.counters.refused[self._counted_as(c, verdict)] += 1
        if verdict == Verdict.AMBIGUOUS:
            c.request.closes = True             # as with every request that can be read in two ways
        if not is_certain:
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
            self._put_location(c)
        self._end_answer(index, status, slug_of(verdict))

    cdef int _counted_as(self, const Conn *c, int verdict) noexcept nogil:
        """Under which reason a refusal is counted. A request that came with another system's cookie
        alone had no ticket: what is wrong with the cookie must not look as if a ticket of ours were
        forged, or a key had leaked. The exchange counts the cookies by what is wrong with them.
        """
        if not c.request.exchange_asked or not c.request.has_no_ticket or verdict == Verdict.BAD_TOKEN \
                or is_store_away(verdict):
            return verdict
        return Verdict.MISSING

    cdef inline bint _is_browser(self, uint32_t index) noexcept nogil:
        """Whether the client would rather see the login page."""
        self._read_again(index)
        return _prefers_html(self.conns[index].held, &self.head)

    cdef inline bint _has_old_cookie(self, uint32_t index) noexcept nogil:
        self._read_again(index)
        return self.forwarding.has_old_cookie(self.conns[index].held, &self.head)

    cdef inline bint _has_token(self, uint32_t index) noexcept nogil:
        cdef Span code
        cdef Span user
        self._read_again(index)
        return self.forwarding.find_token(self.conns[index].held, &self.head, &code, &user)

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
        # Of two questions only the later one is answered: if it is another, liveness has to be asked again.
        self.conns[index].request.liveness_is_asked = kind == AskKind.STILL_ALIVE
        self.ask_count += 1


cdef bint _prefers_html(const uint8_t *at, const Head *head) noexcept nogil:
    """Whether the client would rather see the login page: GET or HEAD, and text/html is welcome."""
    cdef const Field *field
    cdef int i
    if head.method != Method.GET and head.method != Method.HEAD:
        return False
    for i in range(head.known_count):
        field = &head.fields[head.known[i]]
        if field.kind == Kind.ACCEPT and _contains(at, field.value, b"text/html", 9):
            return True
    return False


cdef bint _contains(const uint8_t *at, Span span, const char *lower, uint32_t size) noexcept nogil:
    cdef uint32_t i
    if span.size < size:
        return False
    for i in range(span.size - size + 1):
        if equals(at, Span(span.at + i, size), lower, size):
            return True
    return False
