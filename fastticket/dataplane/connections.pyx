# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""The slots of connections: their sockets, deadlines and turns. The lowest layer of the data plane.

Layers, each a class that extends the one before it. A call goes down as it is; up it goes by a
method that the lower class declares and an upper one overrides (under the ruler "what the layers
above do"):

    Connections   slots, generations, deadlines, epoll, sending
    Answers       answers of our own, what follows an answer, the access log
    Links         connections to servers: pool, kept ones, pending requests
    Exchange      a request and its response: heads, bodies, tunnels
    Admission     tickets: what a request needs, what the control plane is asked
    Dialogue      what goes to the control plane, and what comes from there
    Proxy         clients: accepting, reading requests; the control interface

A method that no layer overrides is `inline`: its own file calls it directly, the others through the
vtable.

Planes and threads. There may be several planes in a process. The first one is driven by the event
loop (`turn`, `tick`), each further one by `run`, in a thread of its own that never takes the GIL.
All that is in these classes is one thread's, and needs no lock, but for what other threads are told
atomically. Three objects are shared, each with a lock of its own that is held for a computation:
`Upstreams` (upstreams.pyx), `Occupancy` (occupancy.pyx), the near cache. Nobody holds two of them, and
nobody makes a system call under one (sockets.pxd checks it in a debug build). What else is for
another thread goes through two rings (dialogue.pyx).

Rules of all of them
    - A *connection* is a slot of a fixed table; a handle is its number and its generation, so what
      is said about a closed connection never reaches the next one in its slot, and a slot closed in
      a turn is not used again before the turn ends. An *exchange* is a downstream and an upstream
      connection that are each other's peer, from the forwarding of a request to the end of its
      response.
    - Sockets are edge-triggered. `readable` remembers what the kernel will not say again; a read
      shorter than asked for clears it, unless the other side has hung up: then only the end itself
      does.
    - What the kernel's send buffer does not take is kept (`unsent`), and nothing more is read from
      the other side until it has gone: so at most one buffer a direction is in flight.
    - Each kind of wait has one length, so its deadlines are a list that is sorted by itself. A
      deadline of ours or of a client is set once and is not extended by bytes; bodies must keep a
      minimum rate instead. What bounds a silence (of a response, of a tunnel, of an upstream that
      takes nothing) begins anew with what moves.
    - The states of a connection and the moves between them stand in states.pyx.
    - Counters are written in place, into memory that another process may read.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from fastticket.core.compiler cimport prefetch
from fastticket.dataplane.conn cimport Conn, Side
from fastticket.dataplane.lists cimport NONE
from fastticket.dataplane.occupancy cimport COUNT_ORDER, count_of, set_count
from fastticket.dataplane.sockets cimport *
from fastticket.dataplane.writer cimport CHUNK_HEADER_BYTES

import os

cdef enum:
    ACCEPT_PAUSE_MS = 100

# What each timer bounds, and its default, s.
TIMEOUTS_S = {
    "keep_alive": (Timer.KEEP_ALIVE, 75),
    "request_head": (Timer.HEAD_IN, 10),
    "verdict": (Timer.ASKED, 30),
    "upstream_connect": (Timer.CONNECT, 5),
    "upstream_first_byte": (Timer.FIRST_BYTE, 60),
    "upstream_send": (Timer.SEND, 60),
    "request_body_window": (Timer.REQUEST_BODY, 10),
    "response_body_window": (Timer.RESPONSE_BODY, 60),
    "linger": (Timer.LINGER, 2),
    "upstream_idle": (Timer.POOL, 1.5),
    "upstream_pending": (Timer.PENDING, 5),
    "tunnel_idle": (Timer.TUNNEL, 300),
}

# Those that a route may have of its own.
ROUTE_TIMEOUTS = (
    "verdict", "upstream_connect", "upstream_first_byte", "upstream_send", "request_body_window", "response_body_window",
    "upstream_pending", "tunnel_idle",
)


cdef inline int64_t _monotonic_us() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1_000_000 + t.tv_nsec // 1000


cdef int64_t _ms(seconds) except -1:
    """A timeout in ms. At least one: a deadline must not have passed already when it is set."""
    return max(1, int(seconds * 1000))


@cython.no_gc_clear                     # closing connections needs what it refers to
cdef class Connections:
    def __cinit__(self):
        self.epoll_fd = -1

    def __dealloc__(self):
        """Free the tables; the upper layers have closed the connections."""
        while self.block_count:
            self.block_count -= 1
            free(self.blocks[self.block_count])
        free(self.conns)
        free(self.scratch)
        free(self.again)
        if self.epoll_fd >= 0:
            close(self.epoll_fd)

    # ------------------------------------------------------------------------------------- settings

    cdef int _set_timeouts(self, dict timeouts_s) except -1:
        """Make a list of deadlines for each kind of wait; set 0 of `waits` is the general timeouts.
        """
        cdef int kind
        for name, (timer, seconds) in TIMEOUTS_S.items():
            kind = timer
            self.deadlines[kind].length_ms = _ms(timeouts_s.get(name, seconds))
        self.deadlines[<int>Timer.VOUCH].length_ms = VOUCH_MS
        for kind in range(1, TIMERS):
            self.deadlines[kind].kind = <Timer>kind
            self.deadlines[kind].first = self.deadlines[kind].last = NONE
            self.waits[0][kind] = <uint8_t>kind
        self.deadlines_count = TIMERS
        self.waits_count = 1
        return 0

    cdef int _allocate_connections(self) except -1:
        """Make the table: for each client an upstream connection, a pooled and a kept one, and the
        listeners. `head_bytes` and `downstream_max` are set. MemoryError, OSError.
        """
        self.conn_max = 4 * self.downstream_max + 64
        self.conns = <Conn *>calloc(self.conn_max, sizeof(Conn))        # what is never used never takes memory
        self.scratch = <uint8_t *>malloc(CHUNK_HEADER_BYTES + SCRATCH_BYTES + CHUNK_END_BYTES)
        self.again = <uint64_t *>malloc(2 * self.conn_max * sizeof(uint64_t))
        if not self.conns or not self.scratch or not self.again:
            raise MemoryError(f"no memory for {self.downstream_max} connections")
        self.freed_first = NONE
        self.free_first = NONE
        self.accepts = True
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll_fd < 0:
            raise OSError(errno, os.strerror(errno), "epoll_create1")
        return 0

    def add_waits(self, timeouts_s):
        """Make a set of timeouts for routes, of those of ROUTE_TIMEOUTS that differ from the
        general ones; its number.
        """
        cdef int number
        cdef int kind
        if not timeouts_s:
            return 0
        if self.waits_count == WAITS_MAX:
            raise ValueError(f"at most {WAITS_MAX} sets of timeouts")
        memcpy(self.waits[self.waits_count], self.waits[0], TIMERS)
        for name, seconds in timeouts_s.items():
            if name not in ROUTE_TIMEOUTS:
                raise ValueError(f"no timeout that a route may have: {name}")
            kind = TIMEOUTS_S[name][0]
            number = 1
            while number < self.deadlines_count and not (
                self.deadlines[number].kind == <Timer>kind and self.deadlines[number].length_ms == _ms(seconds)
            ):
                number += 1
            if number == DEADLINES_MAX:
                raise ValueError(f"at most {DEADLINES_MAX - TIMERS} timeouts of routes that differ")
            if number == self.deadlines_count:
                self.deadlines[number].kind = <Timer>kind
                self.deadlines[number].length_ms = _ms(seconds)
                self.deadlines[number].first = self.deadlines[number].last = NONE
                self.deadlines_count += 1
            self.waits[self.waits_count][kind] = <uint8_t>number
        self.waits_count += 1
        return self.waits_count - 1

    # ---------------------------------------------------------------------------------- from Python

    def fileno(self):
        return self.epoll_fd

    def turn(self):
        """Serve every ready socket. True: there is more to do at once."""
        self._check_driver(False)
        with nogil:
            self._turns()
        return self.again_count > 0

    def tick(self):
        """End what took too long. Call a few times a second."""
        self._check_driver(False)
        with nogil:
            self._tick()

    def run(self):
        """Serve until `stop`, without the GIL."""
        self._check_driver(True)
        with nogil:
            self._run()

    cdef int _check_driver(self, bint in_thread) except -1:
        if self.in_thread != in_thread:
            raise RuntimeError("a plane in a thread is driven by run(), another one by turn() and tick()")
        return 0

    # ---------------------------------------------------------------------------------------- slots

    cdef inline uint32_t _new_conn(self, int fd, Side side) noexcept nogil:
        cdef uint32_t index = self._take_slot()
        cdef uint32_t generation
        cdef Conn *c
        if index == NONE:
            return NONE
        c = &self.conns[index]
        generation = c.generation
        memset(c, 0, sizeof(Conn))
        c.generation = generation
        c.fd = fd
        c.side = side
        c.peer = NONE
        c.complete = True
        c.kept = NONE
        if side == Side.DOWNSTREAM:
            set_count(&self.downstream_count, self.downstream_count + 1, COUNT_ORDER)
        return index

    cdef inline uint32_t _take_slot(self) noexcept nogil:
        """A slot that was used before, or else the next fresh one; NONE: the table is full."""
        cdef uint32_t index = self.free_first
        if index != NONE:
            self.free_first = self.conns[index].place.next
        elif self.conn_count < self.conn_max:
            index = self.conn_count
            self.conn_count += 1
        return index

    cdef inline void _close(self, uint32_t index) noexcept nogil:
        cdef Conn *c = &self.conns[index]
        if c.side == Side.FREE:
            return
        self._clear_timer(index)
        self._on_closing(index)
        free(c.unsent)
        c.held = NULL
        c.unsent = NULL
        if c.side != Side.BELL:             # which is of `Upstreams`
            close(c.fd)
        c.fd = -1
        c.side = Side.FREE
        c.generation += 1
        c.place.next = self.freed_first
        self.freed_first = index

    cdef inline void _close_both(self, uint32_t index) noexcept nogil:
        """Close both connections of an exchange, without an answer."""
        cdef uint32_t peer = self.conns[index].peer
        self._close(index)
        if peer != NONE:
            self.conns[peer].peer = NONE
            self._close(peer)

    cdef inline void _reclaim(self) noexcept nogil:
        """Make the slots that were closed in this turn free: nothing of the turn speaks of them any
        more.
        """
        cdef uint32_t index
        while self.freed_first != NONE:
            index = self.freed_first
            self.freed_first = self.conns[index].place.next
            self.conns[index].place.next = self.free_first
            self.free_first = index

    cdef inline bint _watch(self, uint32_t index, uint32_t events, int operation) noexcept nogil:
        cdef epoll_event event
        event.events = events
        event.data.u64 = self._handle(index)
        return epoll_ctl(self.epoll_fd, operation, self.conns[index].fd, &event) == 0

    cdef inline void _give_block(self, uint8_t *block) noexcept nogil:
        if block == NULL:
            return
        if self.block_count == BLOCKS_KEPT_MAX:
            free(block)
            return
        self.blocks[self.block_count] = block
        self.block_count += 1

    # ------------------------------------------------------------------------------------ deadlines

    cdef inline void _tick(self) noexcept nogil:
        cdef int number
        cdef Deadlines *list
        cdef uint32_t index
        self._read_clock()
        for number in range(1, self.deadlines_count):
            list = &self.deadlines[number]
            while list.first != NONE and self.conns[list.first].deadline_ms <= self.now_ms:
                index = list.first
                self._clear_timer(index)
                self._on_timeout(index, list.kind)
        if not self.accepts and not self.draining and self.now_ms >= self.accepts_again_ms:
            if self.occupancy.has_room():
                self._set_accepting(True)
        self._on_tick()
        self._end_turn()

    # ---------------------------------------------------------------------------------------- turns

    cdef inline void _run(self) noexcept nogil:
        cdef int64_t tick_ms
        self._read_clock()
        tick_ms = self.now_ms + TICK_MS
        while not count_of(&self.is_stopping, COUNT_ORDER):
            self._turn(0 if self.again_count else <int>max(tick_ms - self.now_ms, <int64_t>0))
            if self.now_ms >= tick_ms:
                self._tick()
                tick_ms = self.now_ms + TICK_MS
        self._end()

    cdef inline void _turns(self) noexcept nogil:
        """Serve what is ready, and what has become so meanwhile, while there is much of it: the way
        through the event loop costs as much as a tenth of a request.
        """
        cdef int count = self._turn(0)
        cdef int64_t end_us = self.now_us + TURN_US
        while count >= BUSY_EVENTS and self.now_us < end_us:
            count = self._turn(0)

    cdef inline int _turn(self, int timeout_ms) noexcept nogil:
        """Serve what is ready, or will be in `timeout_ms`. How many events there were."""
        cdef int i
        cdef int count = epoll_wait(self.epoll_fd, self.events, EVENTS_MAX, timeout_ms)
        cdef uint32_t again = self.again_count
        cdef uint32_t index
        cdef uint32_t k
        self._read_clock()
        for i in range(count):
            index = <uint32_t>self.events[i].data.u64
            if i + 1 < count:
                prefetch(&self.conns[<uint32_t>self.events[i + 1].data.u64].fd)
            self._fetch(&self.conns[index])
            if self.conns[index].generation == <uint32_t>(self.events[i].data.u64 >> 32):
                self._on_event(index, self.events[i].events)
        for k in range(again):
            index = <uint32_t>self.again[k]
            if self.conns[index].generation == <uint32_t>(self.again[k] >> 32):
                self._on_event(index, EPOLLIN)
        self.again_count -= again
        memmove(self.again, self.again + again, self.again_count * sizeof(uint64_t))
        self._end_turn()
        return count

    cdef inline void _fetch(self, const Conn *c) noexcept nogil:
        """Have what an event is going to need fetched while the kernel copies: what is known of the
        request, of this connection's or its peer's.
        """
        cdef const Conn *d = c
        if c.side == Side.UPSTREAM and c.peer != NONE:
            d = &self.conns[c.peer]
            prefetch(&d.fd)
            prefetch(&c.link.server)
        else:
            prefetch(&d.client)
        prefetch(&d.held)
        prefetch(&d.request)
        prefetch(&d.request.began_us)
        prefetch(&d.request.checked)

    cdef inline void _read_clock(self) noexcept nogil:
        self.now_us = _monotonic_us()
        self.now_ms = self.now_us // 1000

    cdef inline void _end_turn(self) noexcept nogil:
        """Do what was put off to the end of the turn."""
        self._on_turn_over()
        self._reclaim()

    cdef inline void _continue_later(self, uint32_t index) noexcept nogil:
        """Read on from this connection in the next turn: it has had its share of this one."""
        if self.again_count < 2 * self.conn_max:
            self.again[self.again_count] = self._handle(index)
            self.again_count += 1

    cdef inline void _pause_accepting(self) noexcept nogil:
        """Stop accepting for a moment: the file descriptors that there are, and that come back, are
        for clients that are served already.
        """
        self.counters.out_of_descriptors += 1
        self.accepts_again_ms = self.now_ms + ACCEPT_PAUSE_MS
        if self.accepts:
            self._set_accepting(False)

    cdef inline void _set_accepting(self, bint accepts) noexcept nogil:
        cdef uint32_t i
        self.accepts = accepts
        for i in range(self.conn_count):
            if self.conns[i].side == Side.LISTENER:
                self._watch(i, EPOLLIN, EPOLL_CTL_ADD if accepts else EPOLL_CTL_DEL)

    cdef inline bint _listen(self, int fd) noexcept nogil:
        """Accept from a listener, of which the descriptor is ours. False: not now, as errno says; the
        next time that accepting begins again it is tried again.
        """
        cdef uint32_t index = self._new_conn(fd, Side.LISTENER)
        if index == NONE:
            close(fd)
            return False
        return not self.accepts or self._watch(index, EPOLLIN, EPOLL_CTL_ADD)

    # -------------------------------------------------------------------------------------- sending

    cdef inline bint _send(self, uint32_t index, const uint8_t *at, uint32_t size) noexcept nogil:
        """Send, or keep what the kernel does not take. False: the connection is broken."""
        cdef Conn *c = &self.conns[index]
        cdef ssize_t sent = 0
        cdef uint8_t *kept
        if c.unsent == NULL:
            sent = send(c.fd, at, size, MSG_NOSIGNAL)
            if sent < 0:
                if errno != EAGAIN and errno != EINTR:
                    return False
                sent = 0
            c.taken_bytes += sent
            if sent == size:
                return True
        kept = <uint8_t *>realloc(c.unsent, c.unsent_size + size - sent)
        if kept == NULL:
            return False
        memcpy(kept + c.unsent_size, at + sent, size - sent)
        c.unsent = kept
        c.unsent_size += size - <uint32_t>sent
        if not c.watches_out:
            c.watches_out = True
            return self._watch(index, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, EPOLL_CTL_MOD)
        return True

    cdef inline void _flush(self, uint32_t index) noexcept nogil:
        """Send what was kept, since the kernel has room again."""
        cdef Conn *c = &self.conns[index]
        cdef ssize_t sent = send(c.fd, c.unsent + c.unsent_at, c.unsent_size - c.unsent_at, MSG_NOSIGNAL)
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                self._send_failed(index)
            return
        c.taken_bytes += sent
        c.unsent_at += <uint32_t>sent
        if c.unsent_at == c.unsent_size:
            self._drop_unsent(c)
            self._on_all_taken(index)
        elif sent > 0:
            self._on_some_taken(index)

    cdef inline void _drop_unsent(self, Conn *c) noexcept nogil:
        free(c.unsent)
        c.unsent = NULL
        c.unsent_at = c.unsent_size = 0

    cdef inline bint _is_quiet(self, Conn *c) noexcept nogil:
        """Whether nothing follows a response. After one whose end was read exactly only the kernel
        knows.
        """
        cdef uint8_t byte
        if c.readable and recv(c.fd, &byte, 1, MSG_PEEK) < 0 and errno == EAGAIN:
            c.readable = False
        return not c.readable

    cdef inline void _guard_end(self, Conn *c, bint is_unframed) noexcept nogil:
        """Set SO_LINGER so that any close of this connection is a reset, or is ordinary again. From
        the head of an answer whose end is the connection's to its last byte, whatever closes it
        resets it: a service that breaks off, a deadline, the death of this process. The kernel is
        told beforehand, so no other place has to think of it.
        """
        cdef linger how
        how.l_onoff = is_unframed
        how.l_linger = 0
        c.request.is_unframed = is_unframed
        setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &how, sizeof(how))

    # --------------------------------------------------------------------- what the layers above do

    cdef void _on_event(self, uint32_t index, uint32_t events) noexcept nogil:
        """The kernel says something of a socket."""

    cdef void _on_timeout(self, uint32_t index, Timer timer) noexcept nogil:
        """A deadline has passed; it is cleared already."""

    cdef void _on_tick(self) noexcept nogil:
        """Some times a second."""

    cdef void _end(self) noexcept nogil:
        """Nothing is served any more: close everything."""

    cdef void _on_turn_over(self) noexcept nogil:
        """The turn ends: do what was put off to its end."""

    cdef void _on_closing(self, uint32_t index) noexcept nogil:
        """Let go of all that a connection has but its socket."""

    cdef void _on_some_taken(self, uint32_t index) noexcept nogil:
        """The kernel has taken some of what waited (`unsent`)."""

    cdef void _on_all_taken(self, uint32_t index) noexcept nogil:
        """The kernel has taken all that waited: the other side may be read on."""

    cdef void _send_failed(self, uint32_t index) noexcept nogil:
        """The other end takes nothing any more."""
