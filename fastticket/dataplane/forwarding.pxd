# Heads written anew, in both directions: what goes on, what is added, and what is withheld (P10).

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastticket.core.check cimport Checker
from fastticket.dataplane.clients cimport Networks
from fastticket.dataplane.compared cimport ComparedCookies
from fastticket.dataplane.conn cimport Client, Request
from fastticket.dataplane.fieldnames cimport Names
from fastticket.dataplane.http1 cimport Field, Framing, Head
from fastticket.dataplane.minted cimport MintedTickets
from fastticket.dataplane.octets cimport Span
from fastticket.dataplane.routes cimport Route, Text
from fastticket.dataplane.writer cimport Writer

cdef enum:
    UPGRADES_MAX = 8
    OLD_COOKIES_MAX = 8
    REQUEST_ID_BYTES_MAX = 200


cdef class Forwarding:
    cdef Checker checker
    cdef readonly Names names
    cdef readonly Networks trusted
    cdef tuple texts                    # what these borrow:
    cdef Text cookie
    cdef Text[OLD_COOKIES_MAX] old_cookies      # of other systems, which are exchanged
    cdef uint32_t old_cookie_count
    cdef ComparedCookies compared       # None where there are none
    cdef Text minted_cookie             # in which an upstream gets another system's ticket
    cdef readonly MintedTickets minted
    cdef Text identity_field            # with ": "
    cdef Text request_id_field          # with ": "
    cdef Text lifetime_field            # with ": "
    cdef Text login_url
    cdef Text login_fragment            # of it, with its "#"
    cdef Text login_sign                # in the body of each 401: what a web page knows by that a login is missing
    cdef Text next_name                 # the parameter for where a client wanted to go, with what goes before and after it
    cdef bint escapes_identity          # percent-encoding, for services that do not read UTF-8 in a field
    cdef bint forwards_ticket
    cdef bint withholds_authorization  # of whatever scheme
    cdef bint takes_tokens
    cdef bint writes_forwarded
    cdef Text[UPGRADES_MAX] upgrades
    cdef uint32_t upgrade_count
    cdef uint8_t websocket              # which of `upgrades`, from 1; 0: none
    cdef uint64_t random
    # found in the request's head that was read last
    cdef int tickets                    # that it has; -1: nobody has looked
    cdef Span ticket                    # the last one
    cdef int chain_field                # where it names the client; -1: nowhere
    cdef uint32_t chain_at

    cdef int find_tickets(self, Request *request, const uint8_t *at, const Head *head) noexcept nogil
    cdef bint find_token(self, const uint8_t *at, const Head *head, Span *code, Span *user) noexcept nogil
    cdef bint has_old_cookie(self, const uint8_t *at, const Head *head) noexcept nogil
    cdef bint sets_old_cookie(self, const uint8_t *at, const Field *field) noexcept nogil
    cdef uint8_t upgrade_of(self, const uint8_t *at, const Head *head) noexcept nogil
    cdef bint agrees(self, uint8_t upgrade, const uint8_t *at, const Head *head) noexcept nogil
    cdef void name_request(self, Request *request, bint is_trusted, const uint8_t *at, const Head *head) noexcept nogil
    cdef void find_client(self, Client *client, const uint8_t *at, const Head *head) noexcept nogil
    cdef void put_request_head(
        self, Client *client, const Request *request, const uint8_t *at, const Head *head, const Route *route, Framing framing,
        Writer *out) noexcept nogil
    cdef int put_response_head(
        self, const Request *request, bint sends_chunks, const uint8_t *at, const Head *head, const Route *route, const Text *ours,
        Writer *out) noexcept nogil
    cdef void put_identity(self, const Request *request, Writer *out) noexcept nogil
    cdef void put_request_id(self, const Request *request, Writer *out) noexcept nogil
    cdef void put_lifetime(self, const Request *request, Writer *out) noexcept nogil

    cdef bint _withhold_ticket(self, const uint8_t *at, const Field *field, Writer *out) noexcept nogil
    cdef bint _put_cookies_left(self, const uint8_t *at, const Field *field, Writer *out) noexcept nogil
    cdef void _put_cookies_anew(
        self, const Request *request, const uint8_t *at, const Head *head, const Route *route, Writer *out) noexcept nogil
    cdef void _put_upgrade(self, uint8_t upgrade, Writer *out) noexcept nogil
    cdef void _put_forwarding(self, Client *client, const uint8_t *at, const Head *head, Writer *out) noexcept nogil
    cdef void _put_chain(self, const uint8_t *at, const Head *head, Writer *out) noexcept nogil
    cdef void _put_forwarded(
        self, const Client *client, const uint8_t *at, const Head *head, const Field *proto, Writer *out) noexcept nogil
    cdef bint _goes_downstream(
        self, const Request *request, const uint8_t *at, const Field *field, const Route *route, bint has_ours,
        int *dropped) noexcept nogil
    cdef bint _may_set(
        self, const Request *request, const uint8_t *at, const Field *field, const Route *route, bint has_ours) noexcept nogil


cdef bint says_https(const uint8_t *at, const Head *head) noexcept nogil
