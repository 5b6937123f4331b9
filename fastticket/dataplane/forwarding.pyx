# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Heads written anew, in both directions. This is the room of promise P10: an identity field
reaches an upstream only if this gateway set it.

Rules of this file
    - No I/O and no clock but the checker's. A method reads a head that was understood (`Head`, with
      the bytes that it is of) and writes to a `Writer`.
    - A field goes on if it has no meaning to us, or one for which `_goes_upstream` or
      `_goes_downstream` says so. What we have a meaning for is written by us, or not at all.
    - What a client says of itself (X-Forwarded-*, Forwarded, the request id) counts only if the
      peer is a proxy of ours.
"""

cimport cython
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy, memmove, memset

from fastticket.core.compiler cimport is_rare
from fastticket.core.mixing cimport mix
from fastticket.core.ticket cimport encode
from fastticket.core.verdict cimport Verdict
from fastticket.core.wire cimport (
    PRINCIPAL_AT,
    PRINCIPAL_LENGTH_AT,
    SESSION_ID_AT,
    never_ms,
    raw_absolute_deadline_ms,
    raw_idle_timeout_s,
)
from fastticket.dataplane.accesslog cimport PRINCIPAL_KEPT_MAX, Entry
from fastticket.dataplane.clients cimport (
    ADDRESS_BYTES,
    ADDRESS_TEXT_MAX,
    is_v4,
    read_address,
    write_address,
)
from fastticket.dataplane.conn cimport Preference
from fastticket.dataplane.cookiefields cimport cookie_in, find_cookie, sets_cookie
from fastticket.dataplane.fieldnames cimport Kind
from fastticket.dataplane.http1 cimport (
    Method,
    host_at,
    host_size,
    is_nominated,
    parse_request,
    parse_response,
)
from fastticket.dataplane.octets cimport equals
from fastticket.dataplane.routes cimport adds
from fastticket.dataplane.writer cimport (
    begin_run,
    came_as_it_goes,
    end_run,
    leave_out,
    put,
    put_escaped,
    put_field,
    put_length,
    put_number,
)

import os

cdef enum:
    TRIED_BYTES = 16384         # what a head that is tried from Python may grow by, beside twice its size


cdef Text _text(bytes value):
    """Borrowed: the caller keeps `value`."""
    return Text(<const uint8_t *><const char *>value, <uint32_t>len(value))


cdef tuple _login_parts(str login_url, str next_parameter):
    """(URL before the fragment, `#fragment`, query prefix such as `?next=`)."""
    url, sign, fragment = login_url.partition("#")
    joint = "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
    name = f"{joint}{next_parameter}=" if next_parameter else ""
    return url.encode("ascii"), (sign + fragment).encode("ascii"), name.encode("ascii")


@cython.final
cdef class Forwarding:
    # -------------------------------------------------------------------------------- configuration

    def __cinit__(
        self,
        Checker checker,
        *,
        cookie="ticket",
        old_cookies=(),
        minted_cookie="",
        login_sign="",
        identity_field="X-Forwarded-User",
        escapes_identity=False,
        request_id_field="",
        login_url="",
        next_parameter="",
        no_use_field="",
        lifetime_field="",
        dropped_fields=(),
        removed_fields=(),
        forwards_ticket=False,
        Networks trusted=None,
        writes_forwarded=False,
        upgrades=("websocket",),
        tokens="",
    ):
        cdef uint32_t i
        withheld = [name for name in removed_fields if name.lower() != "authorization"]
        self.checker = checker
        self.trusted = Networks() if trusted is None else trusted
        self.names = Names(
            (identity_field, *withheld), request_id_field, no_use=no_use_field, lifetime=lifetime_field,
            dropped=dropped_fields, tokens=tokens)
        self.texts = (
            cookie.encode("ascii"), identity_field.encode("ascii") + b": ", lifetime_field.encode("ascii") + b": ",
            request_id_field.encode("ascii") + b": ", tuple(name.lower().encode("ascii") for name in upgrades),
            *_login_parts(login_url, next_parameter), tuple(name.encode("ascii") for name in old_cookies),
            minted_cookie.encode("ascii"), login_sign.encode("ascii"))
        self.cookie = _text(self.texts[0])
        self.identity_field = _text(self.texts[1])
        self.lifetime_field = _text(self.texts[2])
        self.request_id_field = _text(self.texts[3]) if request_id_field else Text(NULL, 0)
        self.login_url = _text(self.texts[5])
        self.login_fragment = _text(self.texts[6])
        self.next_name = _text(self.texts[7])
        self.forwards_ticket = forwards_ticket
        self.withholds_authorization = len(withheld) < len(removed_fields)
        self.takes_tokens = bool(tokens)
        self.escapes_identity = escapes_identity
        self.writes_forwarded = writes_forwarded
        self.upgrade_count = len(upgrades)
        if self.upgrade_count > UPGRADES_MAX:
            raise ValueError(f"at most {UPGRADES_MAX} protocols to upgrade to")
        for i in range(self.upgrade_count):
            self.upgrades[i] = _text(self.texts[4][i])
            if self.texts[4][i] == b"websocket":
                self.websocket = <uint8_t>(i + 1)
        self.minted = MintedTickets()
        self.minted_cookie = _text(self.texts[9])
        self.login_sign = _text(self.texts[10])
        self.old_cookie_count = len(old_cookies)
        self.compared = ComparedCookies() if old_cookies else None
        if self.old_cookie_count > OLD_COOKIES_MAX:
            raise ValueError(f"at most {OLD_COOKIES_MAX} cookies of other systems")
        for i in range(self.old_cookie_count):
            self.old_cookies[i] = _text(self.texts[8][i])
        self.random = int.from_bytes(os.urandom(8), "little")

    # -------------------------------------------------------------------- what a head says: tickets

    cdef int find_tickets(self, Request *request, const uint8_t *at, const Head *head) noexcept nogil:
        """How many tickets a request has, in cookies and in `Authorization: Ticket`; `ticket` is
        the last one. What the client prefers is noted on the way.
        """
        cdef const Field *field
        cdef Span scheme
        cdef int tickets = 0
        cdef int i
        for i in range(head.known_count):
            field = &head.fields[head.known[i]]
            if field.kind == Kind.COOKIE:
                tickets += find_cookie(at, field.value, self.cookie.at, self.cookie.size, &self.ticket)
            elif field.kind == Kind.AUTHORIZATION and field.value.size > 7:
                scheme = Span(field.value.at, 7)
                if equals(at, scheme, b"ticket ", 7):
                    tickets += 1
                    self.ticket = Span(field.value.at + 7, field.value.size - 7)
            elif is_rare(field.kind >= Kind.NO_USE, 0):
                _note_preference(request, at, field)
        self.tickets = tickets
        return tickets

    cdef bint find_token(self, const uint8_t *at, const Head *head, Span *code, Span *user) noexcept nogil:
        """Whether a program names a token and a user. What stands there twice is read as empty."""
        cdef const Field *field
        cdef int codes = 0
        cdef int users = 0
        cdef int i
        for i in range(head.known_count):
            field = &head.fields[head.known[i]]
            if field.kind == Kind.TOKEN_CODE or field.kind == Kind.TOKEN_CODE_SHOWN:
                codes += 1
                code[0] = Span(field.value.at, field.value.size if codes == 1 else 0)
            elif field.kind == Kind.TOKEN_USER or field.kind == Kind.TOKEN_USER_SHOWN:
                users += 1
                user[0] = Span(field.value.at, field.value.size if users == 1 else 0)
        return codes > 0 and users > 0

    cdef bint has_old_cookie(self, const uint8_t *at, const Head *head) noexcept nogil:
        """Whether a request brings a cookie that another system has set."""
        cdef const Field *field
        cdef Span value
        cdef uint32_t number
        cdef int i
        for i in range(head.known_count):
            field = &head.fields[head.known[i]]
            for number in range(self.old_cookie_count if field.kind == Kind.COOKIE else 0):
                if find_cookie(at, field.value, self.old_cookies[number].at, self.old_cookies[number].size, &value):
                    return True
        return False

    cdef bint sets_old_cookie(self, const uint8_t *at, const Field *field) noexcept nogil:
        """Whether a Set-Cookie is of another system's cookie."""
        cdef uint32_t number
        for number in range(self.old_cookie_count):
            if sets_cookie(at, field.value, self.old_cookies[number].at, self.old_cookies[number].size):
                return True
        return False

    cdef uint8_t upgrade_of(self, const uint8_t *at, const Head *head) noexcept nogil:
        """Which protocol of ours the client may change to, from 1; or 0."""
        cdef uint32_t i
        if head.minor != 1 or head.framing != Framing.NO_BODY:
            return 0
        for i in range(self.upgrade_count):
            if equals(at, head.upgrade_to, <const char *>self.upgrades[i].at, self.upgrades[i].size):
                return <uint8_t>(i + 1)
        return 0

    cdef bint agrees(self, uint8_t upgrade, const uint8_t *at, const Head *head) noexcept nogil:
        """Whether a 101 changes to the protocol that the client has asked for, and says so (RFC
        9110, 7.8).
        """
        cdef const Field *field
        cdef Text *protocol
        cdef bint is_said = False
        cdef int i
        if upgrade == 0:
            return False
        protocol = &self.upgrades[upgrade - 1]
        for i in range(head.known_count):
            field = &head.fields[head.known[i]]
            if field.kind == Kind.UPGRADE:
                if not equals(at, field.value, <const char *>protocol.at, protocol.size):
                    return False
                is_said = True
        return is_said

    cdef void name_request(self, Request *request, bint is_trusted, const uint8_t *at, const Head *head) noexcept nogil:
        """Give a request that has an entry its id: the one that a proxy of ours gave it, or a new
        one. `head` may be NULL: nothing could be read.
        """
        cdef uint8_t *made = request.entry.request_id
        cdef const Field *field
        cdef uint64_t word = 0
        cdef int i
        for i in range(head.known_count if is_trusted and head != NULL else 0):
            field = &head.fields[head.known[i]]
            if field.kind == Kind.REQUEST_ID and 0 < field.value.size <= REQUEST_ID_BYTES_MAX and _is_printable(at, field.value):
                request.entry.request_id_size = <uint8_t>field.value.size
                memcpy(made, at + field.value.at, field.value.size)
                return
        for i in range(32):
            if i % 16 == 0:
                self.random += 0x9E3779B97F4A7C15ULL
                word = mix(self.random)
            made[i] = b"0123456789abcdef"[word & 15]
            word >>= 4
        request.entry.request_id_size = 32

    cdef void find_client(self, Client *client, const uint8_t *at, const Head *head) noexcept nogil:
        """Walk X-Forwarded-For from right to left, as long as proxies of ours speak: the last
        address that they name is the client's.

        Nobody vouches for what stands left of it. `chain_field` and `chain_at` are where it stands.
        """
        cdef uint8_t[ADDRESS_BYTES] named
        cdef const Field *field
        cdef uint32_t start
        cdef uint32_t end
        cdef int i
        self.chain_field = -1
        client.has_address = client.peer_text_size > 0
        memcpy(client.address, client.peer_address, ADDRESS_BYTES)
        for i in range(head.field_count - 1, -1, -1):
            field = &head.fields[i]
            end = field.value.at + field.value.size
            while field.kind == Kind.FORWARDED_FOR and end > field.value.at:
                start = end
                while start > field.value.at and at[start - 1] != c',':
                    start -= 1
                if not _read_element(at, start, end, named):
                    return
                memcpy(client.address, named, ADDRESS_BYTES)
                client.has_address = True
                self.chain_field = i
                self.chain_at = start
                if not self.trusted.contains(named):
                    return
                end = start - 1 if start > field.value.at else start

    # ----------------------------------------------------------------------------- a request's head

    cdef void put_request_head(
        self, Client *client, const Request *request, const uint8_t *at, const Head *head, const Route *route, Framing framing,
        Writer *out
    ) noexcept nogil:
        """For an upstream: the request line, what goes on of the client's fields, and ours."""
        cdef const Field *field
        cdef bint in_runs = _goes_in_runs(head, &route.request_fields)
        cdef int count = head.known_count if in_runs else head.field_count
        cdef int first = 0
        cdef int i
        cdef bint writes_cookies = is_rare(
            route.wants_old_ticket or request.doubt != NULL and request.is_admitted and self.forwards_ticket, 0)
        if in_runs and _begins_as_it_goes(at, head):
            begin_run(out, head.method_name.at)
            first = 1                                   # Host
        else:
            _put_request_line(at, head, out)
            begin_run(out, _fields_at(head))
        for i in range(first, count):
            field = &head.fields[head.known[i] if in_runs else i]
            if in_runs:
                out.run_end = field.name.at             # what stands before it goes on as it came
            if writes_cookies and _is_replaced(request, at, field):
                leave_out(out, at, field)
                continue
            if not _goes_upstream(client, field) or head.nominated_count and is_nominated(at, head, field):
                leave_out(out, at, field)
                continue
            if (field.kind == Kind.COOKIE or field.kind == Kind.AUTHORIZATION) and not self.forwards_ticket \
                    and self._withhold_ticket(at, field, out):
                continue
            if route.request_fields.size == 0 or not adds(&route.request_fields, at, field):
                put_field(out, at, field)
        if in_runs:
            out.run_end = head.size - 2
        end_run(out, at)
        if writes_cookies:
            self._put_cookies_anew(request, at, head, route, out)
        if framing == Framing.CHUNKED:
            put(out, b"Transfer-Encoding: chunked\r\n", 28)
        elif framing == Framing.LENGTH:
            put_length(out, head.content_length)
        if request.upgrade:
            self._put_upgrade(request.upgrade, out)
        self._put_forwarding(client, at, head, out)
        if self.request_id_field.size:
            self.put_request_id(request, out)
        if route.request_fields.size:
            put(out, route.request_fields.at, route.request_fields.size)
        if request.is_admitted:
            put(out, self.identity_field.at, self.identity_field.size)
            self.put_identity(request, out)
            put(out, b"\r\n", 2)
        put(out, b"\r\n", 2)

    cdef bint _withhold_ticket(self, const uint8_t *at, const Field *field, Writer *out) noexcept nogil:
        """Whether a Cookie or Authorization field holds a ticket: then what it holds beside it was
        written. Of a line that goes on as it came, the run goes on after the ticket. An
        Authorization that no client may send on is withheld, whatever it holds.
        """
        cdef uint32_t end = field.value.at + field.value.size
        cdef Span cut
        if field.kind == Kind.AUTHORIZATION:
            if not self.withholds_authorization \
                    and (field.value.size <= 7 or not equals(at, Span(field.value.at, 7), b"ticket ", 7)):
                return False
            leave_out(out, at, field)
            return True
        if self.tickets != 1 or not came_as_it_goes(at, field):
            return self.tickets != 0 and self._put_cookies_left(at, field, out)
        if self.ticket.at - field.value.at >= field.value.size:
            return False                            # it is in another field
        cut = cookie_in(at, field.value, self.cookie.size, self.ticket)
        if cut.size == field.value.size:
            leave_out(out, at, field)
            return True
        if field.name.at != out.run_end:
            end_run(out, at)
            out.run_at = field.name.at
        put(out, at + out.run_at, cut.at - out.run_at)
        out.run_at = cut.at + cut.size
        out.run_end = end + 2
        return True

    cdef bint _put_cookies_left(self, const uint8_t *at, const Field *field, Writer *out) noexcept nogil:
        """As `_withhold_ticket` does, where nobody has looked for tickets or where there are
        several: on routes that need none.
        """
        cdef Span value = field.value
        cdef Span ticket
        cdef uint32_t begin
        if find_cookie(at, value, self.cookie.at, self.cookie.size, &ticket) == 0:
            return False
        leave_out(out, at, field)
        begin = out.size
        put(out, at + field.name.at, field.name.size)
        put(out, b": ", 2)
        value.at = out.size
        put(out, at + field.value.at, value.size)
        _cut_cookies(out.at, &value, &self.cookie)
        out.size = value.at + value.size if value.size else begin
        if value.size:
            put(out, b"\r\n", 2)
        return True

    cdef void _put_cookies_anew(
        self, const Request *request, const uint8_t *at, const Head *head, const Route *route, Writer *out
    ) noexcept nogil:
        """One Cookie field: the client's cookies without those that name a user; the ticket that the
        request was exchanged for, if upstreams see tickets; the other system's ticket for this
        upstream, if the request was admitted.
        """
        cdef const Field *field
        cdef Span value
        cdef Text ticket
        cdef uint32_t begin = out.size
        cdef uint32_t first
        cdef uint32_t before
        cdef int i
        put(out, b"Cookie: ", 8)
        first = out.size
        for i in range(head.known_count):
            field = &head.fields[head.known[i]]
            if field.kind != Kind.COOKIE or head.nominated_count and is_nominated(at, head, field):
                continue
            before = out.size
            put(out, b"; ", 2 if out.size > first else 0)
            value = Span(out.size, field.value.size)
            put(out, at + field.value.at, value.size)
            if not self.forwards_ticket or request.doubt != NULL:
                _cut_cookies(out.at, &value, &self.cookie)
            if route.wants_old_ticket:
                _cut_cookies(out.at, &value, &self.minted_cookie)
            out.size = value.at + value.size if value.size else before
        if self.forwards_ticket and request.doubt != NULL and request.is_admitted:
            put(out, b"; ", 2 if out.size > first else 0)
            put(out, self.cookie.at, self.cookie.size)
            put(out, b"=", 1)
            out.size += encode(request.checked.raw, request.checked.size, out.at + out.size)
        ticket = Text(NULL, 0)
        if route.wants_old_ticket and request.is_admitted:
            ticket = self.minted.find(request.checked.raw + SESSION_ID_AT)
        if ticket.size:
            put(out, b"; ", 2 if out.size > first else 0)
            put(out, self.minted_cookie.at, self.minted_cookie.size)
            put(out, b"=", 1)
            put(out, ticket.at, ticket.size)
        if out.size == first:
            out.size = begin
        else:
            put(out, b"\r\n", 2)

    cdef void put_identity(self, const Request *request, Writer *out) noexcept nogil:
        """The principal of a ticket that was admitted: UTF-8, or percent-encoded as configured."""
        cdef const uint8_t *name = request.checked.raw + PRINCIPAL_AT
        cdef uint32_t i
        if not self.escapes_identity:
            put(out, name, request.checked.raw[PRINCIPAL_LENGTH_AT])
            return
        for i in range(request.checked.raw[PRINCIPAL_LENGTH_AT]):
            put_escaped(out, name[i], c'~')

    cdef void put_request_id(self, const Request *request, Writer *out) noexcept nogil:
        if request.entry != NULL:
            put(out, self.request_id_field.at, self.request_id_field.size)
            put(out, request.entry.request_id, request.entry.request_id_size)
            put(out, b"\r\n", 2)

    cdef void _put_upgrade(self, uint8_t upgrade, Writer *out) noexcept nogil:
        cdef Text *protocol = &self.upgrades[upgrade - 1]
        put(out, b"Upgrade: ", 9)
        put(out, protocol.at, protocol.size)
        put(out, b"\r\nConnection: Upgrade\r\n", 23)

    cdef void _put_forwarding(self, Client *client, const uint8_t *at, const Head *head, Writer *out) noexcept nogil:
        """X-Forwarded-For, -Proto and -Host: from the client on, as proxies of ours vouch for it;
        else what is known first-hand.
        """
        cdef const Field *field
        cdef const Field *proto = NULL
        cdef const Field *host = NULL
        cdef int i
        cdef uint32_t start = out.size
        put(out, b"X-Forwarded-For: ", 17)
        if client.is_trusted:
            self.find_client(client, at, head)
            self._put_chain(at, head, out)
            for i in range(head.field_count):
                field = &head.fields[i]
                if field.kind == Kind.FORWARDED_PROTO:
                    proto = field
                elif field.kind == Kind.FORWARDED_HOST:
                    host = field
        put(out, <uint8_t *>client.peer_text, client.peer_text_size)
        if client.peer_text_size == 0 and out.size > start + 17:
            out.size -= 2                           # a proxy on a Unix socket has no address to end the list with
        put(out, b"\r\n", 2)
        if out.size == start + 19:
            out.size = start                        # nobody to name
        put(out, b"X-Forwarded-Proto: ", 19)
        if proto != NULL:
            put(out, at + proto.value.at, proto.value.size)
        else:
            put(out, b"http", 4)
        put(out, b"\r\nX-Forwarded-Host: ", 20)
        if host != NULL:
            put(out, at + host.value.at, host.value.size)
        else:
            put(out, host_at(at, head), host_size(head))
        put(out, b"\r\n", 2)
        if self.writes_forwarded:
            self._put_forwarded(client, at, head, proto, out)

    cdef void _put_chain(self, const uint8_t *at, const Head *head, Writer *out) noexcept nogil:
        """What X-Forwarded-For names from the client on, each with a comma after it."""
        cdef const Field *field
        cdef uint32_t begin
        cdef int i
        for i in range(head.field_count):
            field = &head.fields[i]
            if field.kind == Kind.FORWARDED_FOR and field.value.size and 0 <= self.chain_field <= i:
                begin = self.chain_at if i == self.chain_field else field.value.at
                while at[begin] == c' ' or at[begin] == c'\t':
                    begin += 1
                put(out, at + begin, field.value.at + field.value.size - begin)
                put(out, b", ", 2)

    cdef void _put_forwarded(
        self, const Client *client, const uint8_t *at, const Head *head, const Field *proto, Writer *out
    ) noexcept nogil:
        """Forwarded (RFC 7239): one element, ours."""
        cdef char[ADDRESS_TEXT_MAX] address
        cdef int size
        put(out, b"Forwarded: for=", 15)
        if not client.has_address:
            put(out, b"unknown", 7)
        else:
            size = write_address(client.address, address)
            put(out, b"\"[", 0 if is_v4(client.address) else 2)
            put(out, <uint8_t *>address, size)
            put(out, b"]\"", 0 if is_v4(client.address) else 2)
        put(out, b";host=\"", 7)
        put(out, host_at(at, head), host_size(head))
        put(out, b"\";proto=", 8)
        if proto != NULL and equals(at, proto.value, b"https", 5):
            put(out, b"https", 5)
        else:
            put(out, b"http", 4)
        put(out, b"\r\n", 2)

    # ---------------------------------------------------------------------------- a response's head

    cdef int put_response_head(
        self, const Request *request, bint sends_chunks, const uint8_t *at, const Head *head, const Route *route, const Text *ours,
        Writer *out
    ) noexcept nogil:
        """For the client: the status line, what goes on of the upstream's fields, and ours (`ours`:
        field lines of the control plane). How many cookies of the ticket's name were dropped.
        """
        cdef const Field *field
        cdef bint is_tunnel = head.status == 101
        cdef bint in_runs = _goes_in_runs(head, &route.response_fields)
        cdef int count = head.known_count if in_runs else head.field_count
        cdef int dropped = 0
        cdef int i
        if in_runs and head.minor == 1 and at[head.reason.at - 1] == c' ':
            begin_run(out, 0)                           # the status line, too
        else:
            put(out, b"HTTP/1.1 ", 9)
            put_number(out, head.status)
            put(out, b" ", 1)
            put(out, at + head.reason.at, head.reason.size)
            put(out, b"\r\n", 2)
            begin_run(out, _fields_at(head))
        for i in range(count):
            field = &head.fields[head.known[i] if in_runs else i]
            if in_runs:
                out.run_end = field.name.at             # what stands before it goes on as it came
            if field.kind != Kind.OTHER and not self._goes_downstream(request, at, field, route, ours.size > 0, &dropped) \
                    or head.nominated_count and is_nominated(at, head, field):
                leave_out(out, at, field)
                continue
            if route.response_fields.size == 0 or not adds(&route.response_fields, at, field):
                put_field(out, at, field)
        if in_runs:
            out.run_end = head.size - 2
        end_run(out, at)
        if request.doubt != NULL:
            put(out, request.doubt.text, request.doubt.fields_size)
            put(out, b"Cache-Control: no-store\r\n", 25)
        if ours.size:
            put(out, ours.at, ours.size)
        if route.response_fields.size:
            put(out, route.response_fields.at, route.response_fields.size)
        if request.preferences and request.is_admitted and request.preferences & Preference.LIFETIME_ASKED:
            self.put_lifetime(request, out)
        if sends_chunks:
            put(out, b"Transfer-Encoding: chunked\r\n", 28)
        elif head.has_length and head.status != 204:
            put_length(out, head.content_length)
        if is_tunnel:
            self._put_upgrade(request.upgrade, out)
        elif request.closes:
            put(out, b"Connection: close\r\n", 19)
        elif request.minor == 0:
            put(out, b"Connection: keep-alive\r\n", 24)
        put(out, b"\r\n", 2)
        return dropped

    cdef bint _goes_downstream(
        self, const Request *request, const uint8_t *at, const Field *field, const Route *route, bint has_ours, int *dropped
    ) noexcept nogil:
        """Whether a field that we have a meaning for goes on. `has_ours`: the response gets a
        cookie of ours.
        """
        if field.kind == Kind.SET_COOKIE:
            if self._may_set(request, at, field, route, has_ours):
                return True
            dropped[0] += 1
            return False
        return field.kind != Kind.DROP and field.kind != Kind.CONTENT_LENGTH and field.kind != Kind.TRANSFER_ENCODING \
            and field.kind != Kind.CONNECTION and field.kind != Kind.HOP and field.kind != Kind.UPGRADE \
            and field.kind != Kind.KEEP_ALIVE \
            and field.kind != Kind.TICKET_LOGIN and field.kind != Kind.TICKET_LOGOUT \
            and field.kind != Kind.TICKET_REMEMBER and field.kind != Kind.TICKET_ROTATE and field.kind != Kind.LIFETIME

    cdef bint _may_set(
        self, const Request *request, const uint8_t *at, const Field *field, const Route *route, bint has_ours
    ) noexcept nogil:
        """Whether a cookie that an upstream sets is none of ours, or the upstream is one that may
        log in.
        """
        if not sets_cookie(at, field.value, self.cookie.at, self.cookie.size):
            return True
        return route.logs_in and request.is_plain and not has_ours

    cdef void put_lifetime(self, const Request *request, Writer *out) noexcept nogil:
        """How long the session still lives if nobody uses it, and at most: whole seconds, those of
        the two that there are.
        """
        cdef char[64] text
        cdef int64_t now_ms = self.checker.now()
        cdef int64_t absolute_ms = raw_absolute_deadline_ms(request.checked.raw)
        cdef int64_t idle_ms = 0
        cdef bint has_idle = raw_idle_timeout_s(request.checked.raw) and self.checker.near.find(
            request.checked.raw, request.checked.size, now_ms, False, &idle_ms) == Verdict.HIT
        cdef bint has_absolute = absolute_ms != never_ms()
        cdef int size = 0
        if has_idle:
            size = snprintf(text, sizeof(text), b"idle=%lld", <long long>((idle_ms - now_ms) // 1000))
        if has_absolute:
            size += snprintf(
                text + size, sizeof(text) - size, b", absolute=%lld" if size else b"absolute=%lld",
                <long long>((absolute_ms - now_ms) // 1000))
        if size:
            put(out, self.lifetime_field.at, self.lifetime_field.size)
            put(out, <const uint8_t *>text, <uint32_t>size)
            put(out, b"\r\n", 2)

    # ----------------------------------------------------------------- from Python, without sockets

    def forward_request(
        self, bytes raw not None, *, peer="", is_trusted=False, principal=None, bytes request_fields=b"", is_searched=True
    ):
        cdef Head head
        cdef Client client
        cdef Request request
        cdef Route route
        cdef Entry entry
        cdef Writer out
        cdef const uint8_t *at = <const uint8_t *><const char *>raw
        cdef bytes address = peer.encode("ascii")
        memset(&client, 0, sizeof(client))
        memset(&request, 0, sizeof(request))
        memset(&route, 0, sizeof(route))
        if parse_request(self.names, at, <uint32_t>len(raw), &head) <= 0:
            raise ValueError("no request head that can be read")
        if address and not read_address(<const uint8_t *><const char *>address, <uint32_t>len(address), client.peer_address):
            raise ValueError(f"no address: {peer}")
        client.peer_text_size = <uint8_t>write_address(client.peer_address, client.peer_text) if address else 0
        client.has_address = client.peer_text_size > 0
        memcpy(client.address, client.peer_address, ADDRESS_BYTES)
        client.is_trusted = is_trusted
        request.upgrade = self.upgrade_of(at, &head) if head.upgrade_to.size else 0
        self.tickets = -1
        if is_searched:
            self.find_tickets(&request, at, &head)
        if principal is not None:
            _admit(&request, principal.encode())
        if self.request_id_field.size:
            memset(&entry, 0, sizeof(entry))
            request.entry = &entry
            self.name_request(&request, is_trusted, at, &head)
        route.request_fields = _text(request_fields)
        written = bytearray(2 * len(raw) + TRIED_BYTES)
        out = Writer(<uint8_t *><char *>written, 0, 0, 0)
        self.put_request_head(&client, &request, at, &head, &route, head.framing, &out)
        return bytes(written[:out.size]) + raw[head.size:]

    def forward_response(
        self, bytes raw not None, *, logs_in=False, is_plain=True, principal=None, bytes fields=b"", bytes response_fields=b"",
        closes=False, int minor=1
    ):
        cdef Head head
        cdef Request request
        cdef Route route
        cdef Writer out
        cdef Text ours = _text(fields)
        cdef const uint8_t *at = <const uint8_t *><const char *>raw
        cdef int dropped
        memset(&request, 0, sizeof(request))
        memset(&route, 0, sizeof(route))
        if parse_response(self.names, at, <uint32_t>len(raw), Method.GET, &head) <= 0:
            raise ValueError("no response head that can be read")
        request.is_plain = is_plain
        request.closes = closes
        request.minor = <uint8_t>minor
        if principal is not None:
            _admit(&request, principal.encode())
        route.logs_in = logs_in
        route.response_fields = _text(response_fields)
        written = bytearray(2 * len(raw) + TRIED_BYTES)
        out = Writer(<uint8_t *><char *>written, 0, 0, 0)
        dropped = self.put_response_head(&request, False, at, &head, &route, &ours, &out)
        return bytes(written[:out.size]) + raw[head.size:], dropped


cdef void _admit(Request *request, bytes principal) except *:
    """As a request is with a ticket of this principal, of which nothing else is looked at."""
    if not 0 < len(principal) <= PRINCIPAL_KEPT_MAX:
        raise ValueError("a principal has 1 to 190 bytes")
    request.is_admitted = True
    request.checked.size = 1
    request.checked.raw[PRINCIPAL_LENGTH_AT] = <uint8_t>len(principal)
    memcpy(request.checked.raw + PRINCIPAL_AT, <const char *>principal, len(principal))


cdef void _cut_cookies(uint8_t *at, Span *value, const Text *name) noexcept nogil:
    """Cut all cookies of a name out of what was written of a Cookie field."""
    cdef Span found
    cdef Span cut
    while find_cookie(at, value[0], name.at, name.size, &found):
        cut = cookie_in(at, value[0], name.size, found)
        memmove(at + cut.at, at + cut.at + cut.size, value.at + value.size - cut.at - cut.size)
        value.size -= cut.size


cdef inline bint _goes_in_runs(const Head *head, const Text *added) noexcept nogil:
    """Whether only fields of a known kind have to be looked at: all others, and all lines, go on as
    they came. `added`: the route's own field lines, whose names may be anything.
    """
    return head.is_as_it_goes and head.nominated_count == 0 and added.size == 0


cdef inline uint32_t _fields_at(const Head *head) noexcept nogil:
    return head.fields[0].name.at if head.field_count else head.size - 2


cdef inline bint _begins_as_it_goes(const uint8_t *at, const Head *head) noexcept nogil:
    """Whether request line and Host came as we write them: as the first two lines."""
    cdef const Field *host = &head.fields[0]
    return head.field_count and host.kind == Kind.HOST and memcmp(at + host.name.at, b"Host", 4) == 0 \
        and host.value.at == head.host.at and host.value.size == head.host.size \
        and head.minor == 1 and head.target.at == head.method_name.at + head.method_name.size + 1


cdef void _put_request_line(const uint8_t *at, const Head *head, Writer *out) noexcept nogil:
    """The request line, and Host."""
    put(out, at + head.method_name.at, head.method_name.size)
    if head.target_is_bare:
        put(out, b" *" if head.target_is_star else b" /", 2)
    else:
        put(out, b" ", 1)
    put(out, at + head.target.at, head.target.size)
    put(out, b" HTTP/1.1\r\nHost: ", 17)
    put(out, host_at(at, head), host_size(head))
    put(out, b"\r\n", 2)


cdef inline bint _goes_upstream(const Client *client, const Field *field) noexcept nogil:
    """What we have a meaning for is written by us, or not at all."""
    return field.kind == Kind.OTHER or field.kind == Kind.COOKIE or field.kind == Kind.AUTHORIZATION \
        or field.kind == Kind.ACCEPT or field.kind == Kind.WEBSOCKET_KEY or field.kind == Kind.NO_USE \
        or field.kind >= Kind.AUTHENTICATE \
        or field.kind == Kind.TRUSTED_ONLY and client.is_trusted


cdef bint _is_replaced(const Request *request, const uint8_t *at, const Field *field) noexcept nogil:
    """Whether a field of a request whose cookies are written anew is one that they take the place
    of: a Cookie, or the ticket beside which another one was exchanged.
    """
    return field.kind == Kind.COOKIE or (
        field.kind == Kind.AUTHORIZATION and request.doubt != NULL
        and field.value.size > 7 and equals(at, Span(field.value.at, 7), b"ticket ", 7))


cdef void _note_preference(Request *request, const uint8_t *at, const Field *field) noexcept nogil:
    """What a client says of its session. It is believed of anybody: it gives nobody more time."""
    if field.kind == Kind.NO_USE and equals(at, field.value, b"1", 1):
        request.preferences |= Preference.NO_USE_ASKED
    elif field.kind == Kind.LIFETIME:
        request.preferences |= Preference.LIFETIME_ASKED


cdef bint says_https(const uint8_t *at, const Head *head) noexcept nogil:
    """Whether X-Forwarded-Proto says that the client came by https: in a list, what it has used
    itself stands first.
    """
    cdef const Field *field
    cdef bint is_https = False
    cdef int i
    for i in range(head.field_count):
        field = &head.fields[i]
        if field.kind == Kind.FORWARDED_PROTO:
            is_https = field.value.size >= 5 and equals(at, Span(field.value.at, 5), b"https", 5) \
                and (field.value.size == 5 or at[field.value.at + 5] == c',' or at[field.value.at + 5] == c' ')
    return is_https


cdef bint _read_element(const uint8_t *at, uint32_t start, uint32_t end, uint8_t *address) noexcept nogil:
    """The address of one element of a list, without white space around it."""
    while start < end and (at[start] == c' ' or at[start] == c'\t'):
        start += 1
    while end > start and (at[end - 1] == c' ' or at[end - 1] == c'\t'):
        end -= 1
    return read_address(at + start, end - start, address)


cdef bint _is_printable(const uint8_t *at, Span span) noexcept nogil:
    """ASCII without spaces."""
    cdef uint32_t i
    for i in range(span.at, span.at + span.size):
        if not 0x20 < at[i] < 0x7F:
            return False
    return True
