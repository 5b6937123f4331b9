# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Connections to the servers of upstream groups: made, pooled, kept for one client, waited for.

An upstream connection is anybody's after each response, unless somebody may have authenticated it
(NTLM, Negotiate): then it is one client's, for the requests of one principal, and never in the
pool.
"""

cimport cython
from libc.errno cimport EINPROGRESS, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy

from fastticket.core.mixing cimport mix
from fastticket.core.wire cimport PRINCIPAL_AT, PRINCIPAL_LENGTH_AT, TAG_BYTES
from fastticket.dataplane.conn cimport Conn, Side, can_be_sent_again, enter
from fastticket.dataplane.connections cimport Timer
from fastticket.dataplane.lists cimport NONE, append, prepend, remove
from fastticket.dataplane.octets cimport le64toh
from fastticket.dataplane.reasons cimport Reason
from fastticket.dataplane.sockets cimport *
from fastticket.dataplane.states cimport Downstream, Upstream
from fastticket.dataplane.balance cimport Balance, Group, Server, is_busy

cdef enum:
    IDLE_MAX = 256                      # pooled connections a server


@cython.no_gc_clear                     # closing connections needs what it refers to
cdef class Links(Answers):
    # ------------------------------------------------------------------------- from Python: servers

    def set_servers(self, int group, servers, seconds=()):
        """Replace a group's servers; connections to those that go end with what is under way."""
        cdef uint32_t i
        self.upstreams.set_servers(group, servers, seconds)
        self._read_clock()
        for i in range(self.conn_count):
            if self.conns[i].side == Side.UPSTREAM and self.upstreams.servers[self.conns[i].link.server].is_retired \
                    and (self.conns[i].state == Upstream.POOLED or self.conns[i].state == Upstream.KEPT):
                self._close(i)
        self.freed_groups |= <uint64_t>1 << group
        self._end_turn()

    def set_health(self, int group, server, bint is_well):
        """What a health check has found."""
        self._read_clock()
        self.upstreams.set_health(group, server, is_well, self.now_ms)

    def upstream_news(self):
        """Which servers went down or came up since the last call, as `Upstreams.news` (balance) gives it."""
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
        self._read_clock()
        return self.upstreams.state(self.now_ms)

    # ----------------------------------------------------------------------- connections to servers

    cdef inline uint32_t _connect(self, uint16_t server) noexcept nogil:
        """A new connection to a server, perhaps still OPENING. NONE: it failed at once;
        NO_DESCRIPTOR: not by the server's fault.
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

    cdef inline int _socket(self, int family) noexcept nogil:
        """A new socket, or -1. Idle connections are closed first, so that clients that are served
        already still are.
        """
        cdef int fd
        cdef int _
        if self.descriptors_max and self.downstream_count + self.upstream_count >= self.descriptors_max:
            self._close_idlest()
        for _ in range(2):
            fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
            if fd >= 0:
                return fd
            self._pause_accepting()
            if not self._close_idlest():
                break
        return -1

    cdef inline bint _close_idlest(self) noexcept nogil:
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

    cdef inline void _close_upstream(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Server *server = &self.upstreams.servers[c.link.server]
        if c.state == Upstream.POOLED:
            self._leave_pool(index)
        elif c.state == Upstream.KEPT:
            server.kept_count -= 1
        server.open_count -= 1
        self.upstream_count -= 1
        self._note_room(c.link.server)

    cdef inline void _note(self, uint16_t server, const char *what) noexcept nogil:
        """Keep a fault of a server for the operator. `what` NULL: it set the ticket's cookie."""
        if self.noted_count == FAULTS_NOTED_MAX:
            self.noted_more += 1
            return
        self.noted[self.noted_count].server = server
        self.noted[self.noted_count].what = what
        self.noted_count += 1

    cdef void _on_tick(self) noexcept nogil:
        """Give groups their credit of retries, and look at pending requests: a server may be up
        again.
        """
        cdef int group
        self.upstreams.refill()
        for group in range(self.upstreams.group_count):
            if self.upstreams.groups[group].pending_count:
                self.freed_groups |= <uint64_t>1 << group

    cdef void _on_turn_over(self) noexcept nogil:
        if self.freed_groups:
            self._serve_pending()

    # ------------------------------------------------------------------------- the pool of a server

    cdef inline uint32_t _unpool(self, uint16_t server, bint is_repeatable) noexcept nogil:
        """A pooled connection, or NONE. A request that cannot be sent twice gets one that was just
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
            if is_repeatable:
                return index
            self.conns[index].readable = True           # ask the kernel
            if self._is_quiet(&self.conns[index]):
                return index
            self._close(index)
        return NONE

    cdef inline void _pool(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Server *server = &self.upstreams.servers[c.link.server]
        if server.idle_count >= IDLE_MAX or self.draining or server.is_retired \
                or self.descriptors_max and self.downstream_count + self.upstream_count > self.descriptors_max:
            self._close(index)
            return
        if self.pooled_count >= self.downstream_max:
            self._close(self.deadlines[<int>Timer.POOL].first)
        self.pooled_count += 1
        self._note_room(c.link.server)
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

    cdef inline void _leave_pool(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Server *server = &self.upstreams.servers[c.link.server]
        remove(&self.conns.place, sizeof(Conn), &server.idle_first, NULL, index)
        server.idle_count -= 1
        self.pooled_count -= 1
        enter(c, Upstream.AWAITING_HEAD)

    # ------------------------------------------ connections that are one client's (NTLM, Negotiate)

    cdef inline uint32_t _kept_for(self, uint32_t index, const Group *group) noexcept nogil:
        """The connection kept for this client, if it leads to this group and is of this principal;
        or NONE. One that is of no use is closed.
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
        if not can_be_sent_again(c):
            u.readable = True                           # ask the kernel
            if not self._is_quiet(u):
                self._close(upstream)
                return NONE
        return upstream

    cdef inline bint _waits_for_kept(self, const Conn *c, const Group *group) noexcept nogil:
        """Whether a pending request needs the connection that is kept for its client, whose server
        is busy.
        """
        cdef const Server *server
        if c.kept == NONE:
            return False
        server = &self.upstreams.servers[self.conns[c.kept].link.server]
        return &self.upstreams.groups[server.group] == group and not server.is_retired \
            and _is_same_principal(c, &self.conns[c.kept]) and is_busy(group, server)

    cdef inline void _keep(self, uint32_t index, uint32_t downstream) noexcept nogil:
        """Keep a connection that a client has authenticated for that client: the server takes it
        for the sender of each request.

        A proxy of ours has many clients, of which only those with a ticket can be told apart.
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
        self._note_room(c.link.server)

    cdef inline void _let_go_of_kept(self, Conn *c) noexcept nogil:
        """A client's connection or the one kept for it is about to be closed. The client goes on
        without; the kept one is closed with it.
        """
        cdef uint32_t other = c.kept
        c.kept = NONE
        self.conns[other].kept = NONE
        if self.conns[other].side == Side.UPSTREAM:
            self._close(other)

    # ------------------------------------------------------------------ pending requests of a group

    cdef inline uint64_t _key(self, const Conn *c, const Group *group) noexcept nogil:
        """What the server is chosen by, where it is not chosen in turn; 0: nothing."""
        cdef uint64_t high
        cdef uint64_t low
        if group.balance == Balance.TICKET_HASH and c.request.is_admitted:
            return ticket_key(c.request.checked.raw, c.request.checked.size)
        if group.balance != Balance.IP_HASH or not c.client.has_address:
            return 0
        memcpy(&high, c.client.address, 8)
        memcpy(&low, c.client.address + 8, 8)
        return mix(mix(high) ^ low) | 1

    cdef inline void _make_pending(self, uint32_t index, Group *group) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if group.pending_count >= group.pending_max:
            self._fail_exchange(index, Reason.UPSTREAM_BUSY)
            return
        append(&self.conns.place, sizeof(Conn), &group.pending_first, &group.pending_last, index)
        group.pending_count += 1
        enter(c, Downstream.QUEUED)
        self._set_timer(index, Timer.PENDING)

    cdef inline void _leave_pending(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Group *group = &self.upstreams.groups[self.routes.table[c.request.route].group]
        remove(&self.conns.place, sizeof(Conn), &group.pending_first, &group.pending_last, index)
        group.pending_count -= 1
        enter(c, Downstream.READING_HEAD)

    cdef inline void _note_room(self, uint16_t server) noexcept nogil:
        """Note that a server may take one more request. Pending ones are served at the end of the
        turn, since the caller is in the middle of something.
        """
        if self.upstreams.groups[self.upstreams.servers[server].group].pending_count:
            self.freed_groups |= <uint64_t>1 << self.upstreams.servers[server].group

    cdef inline void _serve_pending(self) noexcept nogil:
        """Forward pending requests in the order in which they came. One that waits for a certain
        server does not hold up the others.
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

    # --------------------------------------------------------------------- what the layers above do

    cdef void _forward_now(self, uint32_t index) noexcept nogil:
        """A request that was pending has its turn."""

    cdef void _advance_downstream(self, uint32_t index) noexcept nogil:
        """Go on with a client's connection as far as its bytes reach."""


cdef uint64_t ticket_key(const uint8_t *raw, int size) noexcept nogil:
    """What TICKET_HASH chooses a server by: the ticket's tag, not the session's id, so that a
    server says nothing about the id (docs/decisions/0010).
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
    """How long a connection is used again if its server closes it after `keep_alive_s`: less, for
    what is on its way then.
    """
    return keep_alive_s * <int64_t>1000 - min(1000, keep_alive_s * 500)
