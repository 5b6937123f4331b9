# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Answers of the data plane's own, what follows an answer, and what is kept of a request for the
log.

Answers of our own (4xx, 5xx) end the connection unless the request was read to its end. What each
says stands in reasons.pyx.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcpy, memmove, strlen
from libc.time cimport gmtime_r, strftime, time_t, tm
from posix.time cimport CLOCK_REALTIME_COARSE, clock_gettime, timespec

from fastticket.core.ticket cimport encode
from fastticket.core.verdict cimport Verdict
from fastticket.core.wire cimport PRINCIPAL_AT, PRINCIPAL_LENGTH_AT, SESSION_ID_AT, raw_key_id
from fastticket.dataplane.accesslog cimport (
    HOST_KEPT_MAX,
    METHOD_KEPT_MAX,
    NO_KEY,
    PRINCIPAL_KEPT_MAX,
    Entry,
    Outcome,
    keep_path,
)
from fastticket.dataplane.clients cimport ADDRESS_BYTES, ADDRESS_TEXT_MAX, write_address
from fastticket.dataplane.conn cimport (
    AGENT_BYTES_MAX,
    HOST_BYTES_MAX,
    Conn,
    Notes,
    Preference,
    enter,
)
from fastticket.dataplane.connections cimport READS_MAX, SCRATCH_BYTES, Timer
from fastticket.dataplane.counters cimport bucket_of, count_one
from fastticket.dataplane.endpoint cimport Front
from fastticket.dataplane.fieldnames cimport Kind, reads_as
from fastticket.dataplane.forwarding cimport says_https
from fastticket.dataplane.http1 cimport Field, Method, asks_head, host_at, host_size
from fastticket.dataplane.octets cimport Span, equals
from fastticket.dataplane.lists cimport NONE
from fastticket.dataplane.reasons cimport UNCOUNTED, Reason, Row, phrase_of, row_of
from fastticket.dataplane.sockets cimport *
from fastticket.dataplane.states cimport Downstream
from fastticket.dataplane.writer cimport put, put_escaped, put_length, put_number, put_text

cdef enum:
    BODY_FRAME_BYTES = 28               # of the body of an answer of ours, beside phrase and slug


@cython.no_gc_clear                     # closing connections needs what it refers to
cdef class Answers(Connections):
    def __dealloc__(self):
        free(self.out.at)

    # --------------------------------------------------------------------------- answers of our own

    cdef inline void _answer(self, uint32_t index, Reason reason) noexcept nogil:
        """Give an answer of the table, counted as its row says."""
        cdef const Row *row = row_of(reason)
        self._count(row)
        self._begin_answer(index, row.status, row.slug)
        self._end_answer(index, row.status, row.slug)

    cdef inline void _count(self, const Row *row) noexcept nogil:
        if row.counter != UNCOUNTED:
            count_one(self.counters, row.counter)

    cdef inline void _reject_unreadable(self, uint32_t index, Reason reason) noexcept nogil:
        """Answer a request that could not be read to its end: nothing after it on this connection
        can be trusted.
        """
        cdef Conn *c = &self.conns[index]
        self.counters.bad_requests += 1
        c.request.is_routed &= c.request.began_us != 0
        c.complete = False
        c.request.held_is_whole = False
        c.request.method = Method.HEAD if asks_head(c.held, c.held_size) else Method.OTHER_METHOD
        if c.request.began_us == 0 and self.keeps_entry:        # nothing is known of it but its sender
            c.request.is_admitted = False
            c.request.body_bytes_out = 0
            c.client.has_address = c.client.peer_text_size > 0
            memcpy(c.client.address, c.client.peer_address, ADDRESS_BYTES)
            self._note_nothing(c)
            if c.request.entry != NULL and self.forwarding.request_id_field.size:
                self.forwarding.name_request(&c.request, False, NULL, NULL)
        self._answer(index, reason)

    cdef inline void _fail_exchange(self, uint32_t index, Reason reason) noexcept nogil:
        """End an exchange with an answer of the table, as `_fail_exchange_as` does."""
        cdef const Row *row = row_of(reason)
        self._count(row)
        self._fail_exchange_as(index, row.status, row.slug)

    cdef inline void _fail_exchange_as(self, uint32_t index, int status, const char *slug) noexcept nogil:
        """Answer in place of a response, and close the upstream connection. If the response has
        begun, the client learns of the failure from the closed connection.
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

    cdef inline void _begin_answer(self, uint32_t index, int status, const char *slug) noexcept nogil:
        """Write the head of an answer of our own, up to the fields that only some answers have.
        Every 503 says when to try again.
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
        put_length(&self.out, BODY_FRAME_BYTES + strlen(phrase) + strlen(slug) + self._sign(status).size)
        put(&self.out, b"Cache-Control: no-store\r\n", 25)
        put_text(&self.out, b"Retry-After: 1\r\n" if status == 503 else b"")
        if c.request.doubt != NULL:
            put(&self.out, c.request.doubt.text, c.request.doubt.fields_size)

    cdef inline Text _sign(self, int status) noexcept nogil:
        return self.forwarding.login_sign if status == 401 else Text(NULL, 0)

    cdef inline void _put_challenge(self, const char *slug) noexcept nogil:
        put_text(&self.out, b"WWW-Authenticate: Ticket realm=\"fastticket\", error=\"")
        put_text(&self.out, slug)
        put(&self.out, b"\"\r\n", 3)

    cdef inline void _end_answer(self, uint32_t index, int status, const char *slug) noexcept nogil:
        """Write the rest of the head, and JSON with the reason; send it."""
        cdef Conn *c = &self.conns[index]
        cdef Text sign
        put_text(&self.out, self._connection_field(c))
        if self.forwarding.request_id_field.size:
            self.forwarding.put_request_id(&c.request, &self.out)
        if c.request.is_routed:
            self._put_own_fields(&self.routes.table[c.request.route].response_fields)
        put(&self.out, b"\r\n", 2)
        if c.request.method != Method.HEAD:
            put(&self.out, b"{\"error\": \"", 11)
            put_text(&self.out, phrase_of(status))
            put(&self.out, b"\", \"reason\": \"", 14)
            put_text(&self.out, slug)
            put(&self.out, b"\"", 1)
            sign = self._sign(status)
            if sign.size:
                put(&self.out, sign.at, sign.size)
            put(&self.out, b"}\n", 2)
        c.request.reason = slug
        self._deliver(index, status, self.out.at, self.out.size)

    cdef inline void _put_own_fields(self, const Text *lines) noexcept nogil:
        """What a route adds to responses; but for names that an answer of our own has, or may have."""
        cdef const uint8_t *line = lines.at
        cdef const uint8_t *end = lines.at + lines.size
        cdef const uint8_t *after
        while line != end:
            after = <const uint8_t *>memchr(line, c'\n', end - line) + 1
            if not _is_own_field(
                    line, <uint32_t>(<const uint8_t *>memchr(line, c':', after - line) - line), &self.forwarding.request_id_field):
                put(&self.out, line, <uint32_t>(after - line))
            line = after

    cdef inline void _put_location(self, const Conn *c) noexcept nogil:
        """Location: the login page, and where the client wanted to go, if that is a path of ours
        beyond doubt. LOCATION_BYTES_MAX at most. `self.head` is the request's.
        """
        cdef uint32_t begin
        put(&self.out, b"Location: ", 10)
        put(&self.out, self.forwarding.login_url.at, self.forwarding.login_url.size)
        if self.forwarding.next_name.size:
            begin = self.out.size
            put(&self.out, self.forwarding.next_name.at, self.forwarding.next_name.size)
            if not self._put_next(c):
                self.out.size = begin
        put(&self.out, self.forwarding.login_fragment.at, self.forwarding.login_fragment.size)
        put(&self.out, b"\r\n", 2)

    cdef inline bint _put_next(self, const Conn *c) noexcept nogil:
        """The target as a parameter's value: path and query, never a host. False: it is too long,
        or a path that another reader could take for another one, `//host` and `/\\host` among them.
        """
        cdef const Span *target = &self.head.target
        cdef uint32_t begin = self.out.size
        cdef uint32_t i
        if not c.request.is_plain:
            return False
        if self.head.target_is_bare:
            put(&self.out, b"/", 1)
        for i in range(target.at, target.at + target.size):
            if self.out.size - begin + 3 > NEXT_BYTES_MAX:
                return False
            put_escaped(&self.out, c.held[i], c'/')
        return self.out.size > begin

    cdef inline void _answer_identity(self, uint32_t index) noexcept nogil:
        """Tell a gateway that asked at the endpoint that the request may pass, and whose it is."""
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
        if c.request.doubt != NULL:                         # the ticket that it was exchanged for
            put(&self.out, c.request.doubt.text, c.request.doubt.fields_size)
        if c.request.preferences & Preference.LIFETIME_ASKED:
            self.forwarding.put_lifetime(&c.request, &self.out)
        put_text(&self.out, connection)
        put(&self.out, b"\r\n", 2)
        self._deliver(index, status, self.out.at, self.out.size)

    cdef inline void _set_date(self) noexcept nogil:
        """Make `date` the field line of this second."""
        cdef timespec now
        cdef tm parts
        cdef time_t second
        clock_gettime(CLOCK_REALTIME_COARSE, &now)
        if now.tv_sec != self.date_s:
            self.date_s = second = now.tv_sec
            gmtime_r(&second, &parts)
            strftime(self.date, sizeof(self.date), b"Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts)

    cdef inline const char *_connection_field(self, Conn *c) noexcept nogil:
        """The Connection field of an answer of our own; decides whether the connection stays."""
        if not c.complete or self.leaving:
            c.request.closes = True
        if c.request.closes:
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if c.request.minor == 0 else b""

    cdef inline void _deliver(self, uint32_t index, int status, const uint8_t *answer, uint32_t size) noexcept nogil:
        """Send an answer of our own, whole."""
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

    # ------------------------------------------------------------------------------ after an answer

    cdef inline void _flush_out(self, uint32_t index) noexcept nogil:
        """Wait until the client has taken the end of an answer."""
        enter(&self.conns[index], Downstream.FLUSHING)
        self.conns[index].taken_bytes = 0
        self._set_timer(index, Timer.RESPONSE_BODY)

    cdef inline void _after_answer(self, uint32_t index) noexcept nogil:
        """Go on to the next request, or end the connection. What was read of the next request
        stands in `held` after this one.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t done = c.request.head_size + c.request.body_size if c.request.held_is_whole else 0
        if c.request.closes or self.closes_idle:            # one whose answer said nothing of an end is let go of between two requests
            self._linger(index, c.held_size > done)
            return
        self.head_of = NO_HANDLE
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

    cdef inline void _wait_for_request(self, uint32_t index) noexcept nogil:
        """Wait for a request of which nothing was read yet."""
        cdef Conn *c = &self.conns[index]
        self._give_block(c.held)
        c.held = NULL
        enter(c, Downstream.IDLE)
        self._set_timer(index, Timer.KEEP_ALIVE)

    cdef inline void _linger(self, uint32_t index, bint more_held) noexcept nogil:
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

    cdef inline void _discard(self, uint32_t index) noexcept nogil:
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

    # --------------------------------- what is kept of a request: for the log, a login, its cookies

    cdef inline void _note_request(self, Conn *c) noexcept nogil:
        """Keep what the access log and the request's id need: the head will be gone when the answer
        is. Without memory there is no line.
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

    cdef inline void _note_target(self, Conn *c) noexcept nogil:
        """Keep method, host and path, as `self.head` has them."""
        cdef Entry *entry = c.request.entry
        entry.method_size = <uint8_t>min(self.head.method_name.size, <uint32_t>METHOD_KEPT_MAX)
        entry.host_size = <uint8_t>min(host_size(&self.head), <uint32_t>HOST_KEPT_MAX)
        memcpy(entry.method, c.held + self.head.method_name.at, entry.method_size)
        memcpy(entry.host, host_at(c.held, &self.head), entry.host_size)
        entry.path_size = keep_path(entry.path, c.held + self.head.path.at, self.head.path.size)

    cdef inline void _note_nothing(self, Conn *c) noexcept nogil:
        """Make an entry for a request of which nothing is known yet, if there is memory for one."""
        if c.request.entry == NULL:
            c.request.entry = <Entry *>malloc(sizeof(Entry))
            if c.request.entry == NULL:
                return
        c.request.entry.method_size = c.request.entry.host_size = c.request.entry.request_id_size = c.request.entry.principal_size = 0
        c.request.entry.path_size = 0
        c.request.entry.key_id = NO_KEY

    cdef inline void _note_refused(self, Conn *c, int verdict) noexcept nogil:
        """Note the key of a ticket that is not admitted; its principal only if its signature was
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

    cdef inline void _note_agent(self, Conn *c) noexcept nogil:
        """Keep the User-Agent for the details of a login: the head will be gone when the body goes
        on. Without memory, or such a field, there is none.
        """
        cdef Notes *notes
        cdef Field *field
        cdef int i
        for i in range(self.head.field_count):
            field = &self.head.fields[i]
            if equals(c.held, field.name, b"user-agent", 10):
                notes = _notes_of(c)
                if notes != NULL:
                    notes.has_agent = True
                    notes.agent_size = <uint16_t>min(field.value.size, <uint32_t>AGENT_BYTES_MAX)
                    memcpy(notes.agent, c.held + field.value.at, notes.agent_size)
                return

    cdef void _note_cookies(self, Conn *c) noexcept nogil:
        """Keep the cookies of a request that has another system's, as one Cookie field: the session
        there ends with that here. Without memory there are none.
        """
        cdef const Field *field
        cdef Notes *notes
        cdef uint32_t size = 0
        cdef int i
        if not self.forwarding.has_old_cookie(c.held, &self.head):
            return
        for i in range(self.head.known_count):
            field = &self.head.fields[self.head.known[i]]
            size += field.value.size + 2 if field.kind == Kind.COOKIE else 0
        notes = _notes_of(c)
        if notes == NULL:
            return
        free(notes.cookies)                         # it is sent to another server
        notes.cookies = <uint8_t *>malloc(size)
        notes.cookies_size = 0
        for i in range(self.head.known_count if notes.cookies != NULL else 0):
            field = &self.head.fields[self.head.known[i]]
            if field.kind == Kind.COOKIE:
                memcpy(notes.cookies + notes.cookies_size, c.held + field.value.at, field.value.size)
                memcpy(notes.cookies + notes.cookies_size + field.value.size, b"; ", 2)
                notes.cookies_size += field.value.size + 2

    cdef inline void _note_where(self, Conn *c) noexcept nogil:
        """Keep what decides about cookies: the Host of the request in `self.head`, and whether a
        proxy of ours says that it was https.
        """
        c.request.host_size = <uint8_t>self.head.host.size if self.head.host.size <= HOST_BYTES_MAX else 0
        memcpy(c.request.host, c.held + self.head.host.at, c.request.host_size)
        c.request.is_https = c.client.is_trusted and says_https(c.held, &self.head)

    cdef inline void _account(self, Conn *c, bint was_cut) noexcept nogil:
        """Count a request that is over, and how long it took."""
        cdef int64_t took_us = max(self.now_us - c.request.began_us, <int64_t>1)
        self.counters.latency[bucket_of(took_us)] += 1
        self.counters.latency_us_sum += took_us
        c.request.began_us = 0
        if was_cut:
            self.counters.cut_short += 1
        else:
            self.counters.answers[min(c.request.status // 100, 5)] += 1
        if c.request.notes != NULL or c.request.doubt != NULL or c.request.entry != NULL:
            self._close_entry(c, took_us, was_cut)

    cdef inline void _close_entry(self, Conn *c, int64_t took_us, bint was_cut) noexcept nogil:
        """Free what was kept of a request that is over, and write its line of the access log."""
        _free_notes(c)
        if self.log is not None and c.request.entry != NULL:
            self._log(c, took_us, was_cut)

    cdef inline void _log(self, const Conn *c, int64_t took_us, bint was_cut) noexcept nogil:
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


cdef Notes *_notes_of(Conn *c) noexcept nogil:
    """NULL: there is no memory."""
    if c.request.notes == NULL:
        c.request.notes = <Notes *>calloc(1, sizeof(Notes))
    return c.request.notes


cdef void _free_notes(Conn *c) noexcept nogil:
    """Free what was kept of a request until its answer."""
    if c.request.notes != NULL:
        free(c.request.notes.cookies)
    free(c.request.notes)
    c.request.notes = NULL
    free(c.request.doubt)
    c.request.doubt = NULL


cdef bint _is_own_field(const uint8_t *name, uint32_t size, const Text *request_id) noexcept nogil:
    """Whether answers of our own say that themselves. `request_id`: the field that they may have,
    with ": ".
    """
    return reads_as(name, size, b"content-type", 12) or reads_as(name, size, b"cache-control", 13) \
        or reads_as(name, size, b"date", 4) or reads_as(name, size, b"location", 8) \
        or reads_as(name, size, b"retry-after", 11) or reads_as(name, size, b"www-authenticate", 16) \
        or request_id.size > 2 and reads_as(name, size, request_id.at, request_id.size - 2)
