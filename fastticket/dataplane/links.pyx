# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Connections to the servers of upstream groups: made, pooled, kept for one client, waited for.

An upstream connection is anybody's after each response, unless somebody may have authenticated it
(NTLM, Negotiate): then it is one client's, for the requests of one principal, and never in the
pool.

Connections, pools and queues are this plane's own. Which server has room, who is down and whose
turn it is, all planes share (upstreams.pyx): a request that `Upstreams.take` gave a server is under
way there until `_give_back`.
"""

cimport cython
from libc.errno cimport EINPROGRESS, errno
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from fastticket.core.atomics cimport SEQ_CST as BELL_ORDER, swap_u32 as take_flag, swap_u64 as take_bits
from fastticket.core.mixing cimport mix
from fastticket.core.wire cimport PRINCIPAL_AT, PRINCIPAL_LENGTH_AT
from fastticket.dataplane.conn cimport Conn, Side, can_be_sent_again, enter
from fastticket.dataplane.connections cimport Timer
from fastticket.dataplane.counters cimport UpstreamCounters, bucket_of, read_upstream
from fastticket.dataplane.lists cimport NONE, append, prepend, remove
from fastticket.dataplane.reasons cimport Reason
from fastticket.dataplane.sockets cimport *
from fastticket.dataplane.states cimport Downstream, Upstream
from fastticket.dataplane.balance cimport Balance, Server, ticket_key
from fastticket.dataplane.upstreams cimport SERVERS_MAX, Place, Queued, Returned

cdef enum:
    IDLE_MAX = 256                      # pooled connections a server


@cython.no_gc_clear                     # closing connections needs what it refers to
cdef class Links(Answers):
    def __cinit__(self):
        self.plane = -1

    def __dealloc__(self):
        free(self.pools)
        free(self.counted)
        if self.plane >= 0:
            self.upstreams.quit(self.plane)

    # -------------------------------------------------------------------------- what planes share

    cdef int _join(self) except -1:
        """Become one of the planes that share the upstreams. MemoryError, OSError, ValueError: there
        are too many.
        """
        cdef int i
        self.pools = <Pool *>malloc(SERVERS_MAX * sizeof(Pool))
        self.counted = <UpstreamCounters *>calloc(GROUPS_LIMIT, sizeof(UpstreamCounters))
        if self.pools == NULL or self.counted == NULL:
            raise MemoryError("no memory for the pools of servers")
        for i in range(SERVERS_MAX):
            self.pools[i] = Pool(NONE, 0)
        for i in range(GROUPS_LIMIT):
            self.pending[i] = Pending(NONE, NONE, 0)
        self.plane = self.upstreams.join(self.in_thread)
        return 0

    @property
    def upstream_counts(self):
        """What was counted of each upstream, in the order of their numbers."""
        return [read_upstream(&self.counted[group]) for group in range(self.upstreams.group_count)]

    cdef inline void _count_response(self, const Conn *c, int status) noexcept nogil:
        """The head of a response is there."""
        cdef UpstreamCounters *counted = &self.counted[self.upstreams.servers[c.link.server].group]
        cdef int64_t took_us = max(self.now_us - c.link.asked_us, <int64_t>1)
        counted.answers[min(status // 100, 5)] += 1
        counted.latency[bucket_of(took_us)] += 1
        counted.latency_us_sum += took_us

    cdef inline void _on_bell(self) noexcept nogil:
        """Another thread says that there is room for requests that wait, or that servers are gone.
        """
        self.freed_groups |= take_bits(&self.upstreams.bells[self.plane].freed, 0, BELL_ORDER)
        if take_flag(&self.upstreams.bells[self.plane].is_changed, 0, BELL_ORDER):
            self._close_retired()

    cdef inline void _close_retired(self) noexcept nogil:
        """Close idle connections to servers that have gone; others end with what is under way."""
        cdef uint32_t i
        for i in range(self.conn_count):
            if self.conns[i].side == Side.UPSTREAM and not self.conns[i].link.is_active \
                    and self.upstreams.is_gone(self.conns[i].link.server):
                self._close(i)

    # ----------------------------------------------------------------------- connections to servers

    cdef inline uint32_t _connect(self, uint16_t server) noexcept nogil:
        """A new connection to a server that `take` gave, perhaps still OPENING. NONE: it failed at
        once, and the server is given back; NO_DESCRIPTOR: so it is, but not by the server's fault.
        """
        cdef Server *at = &self.upstreams.servers[server]
        cdef int fd = self._socket(at.address.ss_family)
        cdef int on = 1
        cdef bint is_pending
        cdef uint32_t index
        if fd < 0:
            self._return_server(server)
            return NO_DESCRIPTOR
        if at.address.ss_family != AF_UNIX:
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        is_pending = connect(fd, <const sockaddr *>&at.address, at.address_size) != 0
        if is_pending and errno != EINPROGRESS:
            self.upstreams.failed(server, self.now_ms, errno)
            close(fd)
            self.counters.upstream_errors += 1
            self._return_server(server)
            return NONE
        index = self._new_conn(fd, Side.UPSTREAM)
        if index == NONE:
            close(fd)
            self._return_server(server)
            return NONE
        self.upstreams.opened(server)
        self.occupancy.upstream_opened()
        self.conns[index].link.server = server
        self.conns[index].link.is_active = True
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
        if self.occupancy.is_full():
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
        if c.state == Upstream.POOLED:
            self._leave_pool(index)
        if c.link.is_active:
            self._give_back(c, True)
        else:
            self.upstreams.closed(c.link.server)
        self.occupancy.upstream_closed()

    cdef inline bint _give_back(self, Conn *c, bint is_closed) noexcept nogil:
        """A connection's request is over. True: its server is gone."""
        cdef uint16_t group = self.upstreams.servers[c.link.server].group
        cdef int said = self.upstreams.give_back(c.link.server, is_closed, self.plane)
        c.link.is_active = False
        if said & Returned.IS_ROOM_HERE:
            self._note_room(group)
        return said & Returned.IS_GONE

    cdef inline void _return_server(self, uint16_t server) noexcept nogil:
        """Give back a server to which no connection could be made."""
        cdef uint16_t group = self.upstreams.servers[server].group
        if self.upstreams.give_back(server, False, self.plane) & Returned.IS_ROOM_HERE:
            self._note_room(group)

    cdef inline void _note_room(self, uint16_t group) noexcept nogil:
        """Note that a server of a group may take one more request. Pending ones are served at the end of the
        turn, since the caller is in the middle of something.
        """
        self.freed_groups |= <uint64_t>1 << group

    cdef void _on_tick(self) noexcept nogil:
        """Give groups their credit of retries, and look at pending requests: a server may be up
        again.
        """
        cdef int group
        self.upstreams.refill(self.now_ms)
        for group in range(self.upstreams.group_count):
            if self.pending[group].count:
                self.freed_groups |= <uint64_t>1 << group

    cdef void _on_turn_over(self) noexcept nogil:
        if self.freed_groups:
            self._serve_pending()

    # ------------------------------------------------------------------------- the pool of a server

    cdef inline uint32_t _unpool(self, uint16_t server, bint is_repeatable) noexcept nogil:
        """A pooled connection, or NONE. A request that cannot be sent twice gets one that was just
        seen to be open.
        """
        cdef Pool *pool = &self.pools[server]
        cdef uint32_t index
        while pool.first != NONE:
            index = pool.first
            self._leave_pool(index)
            self._clear_timer(index)
            if self.conns[index].link.usable_until_ms and self.conns[index].link.usable_until_ms <= self.now_ms:
                self._close(index)                      # the server is about to close it
                continue
            if not is_repeatable:
                self.conns[index].readable = True           # ask the kernel
                if not self._is_quiet(&self.conns[index]):
                    self._close(index)
                    continue
            self.conns[index].link.is_active = True
            return index
        return NONE

    cdef inline void _pool(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Pool *pool = &self.pools[c.link.server]
        if pool.count >= IDLE_MAX or self.draining or self.occupancy.is_over() or self._give_back(c, False):
            self._close(index)
            return
        if self.pooled_count >= self.downstream_max:
            self._close(self.deadlines[<int>Timer.POOL].first)
        self.pooled_count += 1
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
        prepend(&self.conns.place, sizeof(Conn), &pool.first, NULL, index)
        pool.count += 1
        self._set_timer(index, Timer.POOL)

    cdef inline void _leave_pool(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef Pool *pool = &self.pools[c.link.server]
        remove(&self.conns.place, sizeof(Conn), &pool.first, NULL, index)
        pool.count -= 1
        self.pooled_count -= 1
        enter(c, Upstream.AWAITING_HEAD)

    # ------------------------------------------ connections that are one client's (NTLM, Negotiate)

    cdef inline uint32_t _kept_for(self, uint32_t index, uint16_t group) noexcept nogil:
        """The connection kept for this client, if it leads to this group and is of this principal;
        or NONE. One that is of no use is closed.
        """
        cdef Conn *c = &self.conns[index]
        cdef uint32_t upstream = c.kept
        cdef Conn *u = &self.conns[upstream]
        if self.upstreams.servers[u.link.server].group != group:
            return NONE
        if self.upstreams.is_gone(u.link.server) or c.request.retried or not _is_same_principal(c, u):
            self._close(upstream)
            return NONE
        if not can_be_sent_again(c):
            u.readable = True                           # ask the kernel
            if not self._is_quiet(u):
                self._close(upstream)
                return NONE
        return upstream

    cdef inline bint _waits_for_kept(self, const Conn *c, uint16_t group) noexcept nogil:
        """Whether a pending request needs the connection that is kept for its client, whose server
        is busy.
        """
        cdef uint16_t server
        if c.kept == NONE:
            return False
        server = self.conns[c.kept].link.server
        return self.upstreams.servers[server].group == group and _is_same_principal(c, &self.conns[c.kept]) \
            and self.upstreams.is_kept_busy(server)

    cdef inline void _keep(self, uint32_t index, uint32_t downstream) noexcept nogil:
        """Keep a connection that a client has authenticated for that client: the server takes it
        for the sender of each request.

        A proxy of ours has many clients, of which only those with a ticket can be told apart.
        """
        cdef Conn *c = &self.conns[index]
        cdef Conn *d = &self.conns[downstream]
        if d.request.closes or self.leaving or d.client.is_trusted and not d.request.is_admitted or self._give_back(c, False):
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

    cdef inline uint64_t _key(self, const Conn *c, uint16_t group) noexcept nogil:
        """What the server is chosen by, where it is not chosen in turn; 0: nothing."""
        cdef Balance balance = self.upstreams.groups[group].balance
        cdef uint64_t high
        cdef uint64_t low
        if balance == Balance.TICKET_HASH and c.request.is_admitted:
            return ticket_key(c.request.checked.raw, c.request.checked.size)
        if balance != Balance.IP_HASH or not c.client.has_address:
            return 0
        memcpy(&high, c.client.address, 8)
        memcpy(&low, c.client.address + 8, 8)
        return mix(mix(high) ^ low) | 1

    cdef inline void _make_pending(self, uint32_t index, uint16_t group, uint16_t kept) noexcept nogil:
        """Let a request wait, for the server `kept` or, if that is NOBODY, for any of its group."""
        cdef Conn *c = &self.conns[index]
        cdef Pending *queue = &self.pending[group]
        cdef Queued said = self.upstreams.enqueue(group, self._key(c, group), kept, self.plane, self.now_ms)
        if said == Queued.QUEUE_IS_FULL:
            self._fail_exchange(index, Reason.UPSTREAM_BUSY)
            return
        if said == Queued.HAS_ROOM:
            self.freed_groups |= <uint64_t>1 << group
        append(&self.conns.place, sizeof(Conn), &queue.first, &queue.last, index)
        queue.count += 1
        enter(c, Downstream.QUEUED)
        self._set_timer(index, Timer.PENDING)

    cdef inline void _leave_pending(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        cdef uint16_t group = self.routes.table[c.request.route].group
        cdef Pending *queue = &self.pending[group]
        remove(&self.conns.place, sizeof(Conn), &queue.first, &queue.last, index)
        queue.count -= 1
        self.upstreams.dequeue(group)
        if queue.count == 0:
            self.freed_groups |= <uint64_t>1 << group       # other planes need not wait for this one
        enter(c, Downstream.READING_HEAD)

    cdef inline void _serve_pending(self) noexcept nogil:
        """Serve pending requests of the groups in which there is room, and let other planes have
        their turns.
        """
        cdef uint64_t freed = self.freed_groups
        cdef uint16_t group
        cdef bint has_placed
        self.freed_groups = 0
        for group in range(<uint16_t>self.upstreams.group_count):
            if freed >> group & 1:
                has_placed = self._serve_group(group)
                self.upstreams.pass_turn(group, self.plane, self.pending[group].count > 0, has_placed, self.now_ms)
                if self.pending[group].count == 0:
                    self.freed_groups &= ~(<uint64_t>1 << group)

    cdef inline bint _serve_group(self, uint16_t group) noexcept nogil:
        """Forward pending requests in the order in which they came. One that waits for a certain
        server does not hold up the others. Whether one has got a place.
        """
        cdef Pending *queue = &self.pending[group]
        cdef uint32_t index = queue.first
        cdef uint32_t left = queue.count
        cdef bint has_placed = False
        cdef uint32_t following
        cdef Place place
        cdef Conn *c
        while left and index != NONE:
            left -= 1
            c = &self.conns[index]
            following = c.place.next
            if self._waits_for_kept(c, group):
                index = following
                continue
            place = self.upstreams.place_for(group, self._key(c, group), self.plane, self.now_ms)
            if place != Place.NO_PLACE:
                self._leave_pending(index)
                self._clear_timer(index)
                self._forward_now(index)
                self._advance_downstream(index)
                has_placed = True
                if place == Place.ONE_PLACE:
                    break
            elif not self._key(c, group):
                break
            index = following
        return has_placed

    # --------------------------------------------------------------------- what the layers above do

    cdef void _forward_now(self, uint32_t index) noexcept nogil:
        """A request that was pending has its turn."""

    cdef void _advance_downstream(self, uint32_t index) noexcept nogil:
        """Go on with a client's connection as far as its bytes reach."""


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
