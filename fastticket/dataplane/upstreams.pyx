# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Groups of servers, what is known of each, who waits for one, and how often a request may be
retried: the one state that all planes of a configuration share. Which server a request goes to is
for balance.pyx. No sockets.

Rules of this file
- One lock guards everything here that planes change: servers' scores, counts, failures, health;
  groups' credit and queues; what is noted. It is held for a computation, never across a system
  call, never with another lock. While no plane has a thread of its own it is not taken. Names,
  addresses and configurations are written by the control plane alone: a slot that is in use keeps
  its address and its group, so these are read without the lock.
- A request that `take` gives a server is under way there, before there is a connection, until
  `give_back`. So the room of a server is given away once, whichever plane asks.
- Each plane has a queue of its own of requests that wait. They take turns: room that comes free is
  for the plane whose turn it is, and nobody takes it before. A plane that could place one, or none,
  passes the turn on. The one that is next is woken by its bell.
- A group's servers can be replaced at any time. A server that stays keeps its slot. A server that
  goes is retired: it gets no new request, and its slot is free when its last connection has ended.
- A server is down from when it refused a connection, or gave FAULTS_MAX bad answers in a row, until
  it takes a connection (passive), and while its last health check failed (active). It gets no
  request while it is paused, which is a part of that time.
- Once its pause is over, whoever comes first may find out whether it is up: a request, or the
  control plane, which knocks (`unreached`, `knocked`).
- A retry costs credit, and each request adds a part of that: so a failing upstream gets few more
  requests than a healthy one.
"""

cimport cython
from libc.errno cimport ECONNREFUSED, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from fastticket.core.atomics cimport (
    RELAXED,
    SEQ_CST as BELL_ORDER,
    load_u32 as load_count,
    or_u64 as add_bits,
    store_u32 as set_flag,
    store_u32 as store_count,
)
from fastticket.core.compiler cimport __builtin_ctzll
from fastticket.core.lock cimport end_lock, make_lock
from fastticket.core.ticket cimport ascii_text, decode
from fastticket.core.wire cimport RAW_BUFFER_BYTES
from fastticket.dataplane.balance cimport (
    GROUP_SERVERS_LIMIT,
    NOBODY,
    Balance,
    has_first,
    is_busy,
    pick,
    pick_for_key,
    ticket_key,
    would_place,
)
from fastticket.dataplane.sockets cimport *

import hashlib
import os

from fastticket.dataplane.balance import BALANCES as _BALANCES

cdef extern from *:
    int __builtin_popcountll(unsigned long long word) noexcept nogil

WEIGHT_MAX = WEIGHT_LIMIT
GROUPS_MAX = GROUPS_LIMIT
GROUP_SERVERS_MAX = GROUP_SERVERS_LIMIT
ALL_SERVERS_MAX = SERVERS_MAX
PLANES_MAX = PLANES_LIMIT

cdef enum:
    PAUSE_MS = 1000             # of a failed server, times its failures in a row
    PAUSE_MAX_MS = 10000
    FAILURES_MAX = 1000         # where their count stops
    FAULTS_MAX = 3              # bad answers in a row that are a failure
    RETRY_COST = 100
    CREDIT_MAX = 100 * RETRY_COST
    REFILL = 100                # of each REFILL_MS, so that a group with few requests may retry, too
    REFILL_MS = 90

cdef str FAULTY_TEXT = f"no proper answer {FAULTS_MAX} times in a row"


@cython.final
cdef class Upstreams:
    def __cinit__(self):
        cdef int plane
        make_lock(&self.lock)
        for plane in range(PLANES_LIMIT):
            self.bells[plane].fd = -1
        self.servers = <Server *>calloc(SERVERS_MAX, sizeof(Server))
        self.groups = <Group *>calloc(GROUPS_LIMIT, sizeof(Group))
        self.names = [None] * SERVERS_MAX
        if self.servers == NULL or self.groups == NULL:
            raise MemoryError("no memory for upstreams")

    def __dealloc__(self):
        cdef int plane
        for plane in range(PLANES_LIMIT):
            if self.bells[plane].fd >= 0:
                close(self.bells[plane].fd)
        free(self.servers)
        free(self.groups)
        end_lock(&self.lock)

    # --------------------------------------------------------------------------------------- planes

    cdef int join(self, bint in_thread) except -1:
        """Give a plane its number, and a bell. From the first one on that does not run in the thread
        of the control plane the lock is taken.
        """
        cdef int plane = 0
        while plane < PLANES_LIMIT and self.bells[plane].is_taken:
            plane += 1
        if plane == PLANES_LIMIT:
            raise ValueError(f"at most {PLANES_LIMIT} planes")
        if self.bells[plane].fd < 0:
            self.bells[plane].fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
            if self.bells[plane].fd < 0:
                raise OSError(errno, os.strerror(errno), "eventfd")
        self.bells[plane].is_taken = True
        if in_thread and not self.is_shared:
            self.is_shared = True                       # of those that serve already none is in another thread
        return plane

    cdef void quit(self, int plane) noexcept:
        """A plane is no more. Who rings its bell now rings that of nobody, or of the next one."""
        self.bells[plane].is_taken = False

    cdef void ring(self, int plane, uint64_t groups) noexcept nogil:
        """Wake a plane: there may be room in these groups. It is woken once for all that it has not
        looked at.
        """
        if add_bits(&self.bells[plane].freed, groups, BELL_ORDER) == 0:
            eventfd_write(self.bells[plane].fd, 1)

    # --------------------------------------------------------------------------- groups and servers

    def add_group(
        self, balance="round_robin", *, connections_max=0, pending_max=1000, slow_return_ms=10_000, retry_percent=20
    ):
        cdef Group *group = &self.groups[self.group_count]
        if self.group_count == GROUPS_LIMIT:
            raise ValueError(f"at most {GROUPS_LIMIT} upstreams")
        group.balance = _BALANCES[balance]
        group.connections_max = connections_max
        group.pending_max = pending_max
        group.slow_return_ms = slow_return_ms
        group.retry_percent = retry_percent
        group.credit = CREDIT_MAX if retry_percent else 0
        self.group_count += 1
        return self.group_count - 1

    def set_servers(self, int number, servers, seconds=()):
        cdef Group *group = self._group(number)
        cdef uint16_t[GROUP_SERVERS_LIMIT] members
        cdef uint32_t[GROUP_SERVERS_LIMIT] weights
        cdef uint16_t count = 0
        cdef uint16_t i
        cdef int slot
        cdef int plane
        wanted = dict(servers)
        self._check_servers(group, wanted)
        for address in wanted:
            slot = self._slot_of(group, address)
            members[count] = <uint16_t>(slot if slot >= 0 else self._take_slot(number, address))
            count += 1
        for i, weight in enumerate(wanted.values()):
            weights[i] = weight
        self.hold()
        for i in range(group.count):
            self.servers[group.members[i]].is_retired = True
        for i in range(count):
            self.servers[members[i]].is_retired = False
            self.servers[members[i]].weight = weights[i]
        memcpy(group.members, members, sizeof(members))
        group.count = count
        group.following = 0
        self.let_go()
        self._set_seconds(group, seconds)
        for plane in range(PLANES_LIMIT):
            if self.bells[plane].is_taken:
                set_flag(&self.bells[plane].is_changed, 1, BELL_ORDER)
                self.ring(plane, <uint64_t>1 << number)

    cdef int _set_seconds(self, Group *group, seconds) except -1:
        """Note which servers are second addresses: (firsts, seconds) of each name with both."""
        cdef uint16_t number
        cdef bint is_second
        cdef Server *at
        cdef int slot
        cdef uint16_t i
        self.hold()
        for i in range(group.count):
            self.servers[group.members[i]].is_second = False
            self.servers[group.members[i]].name = 0
        self.let_go()
        for name, (first, second) in enumerate(seconds, 1):
            for address in (*first, *second):
                slot = self._slot_of(group, address)
                if slot < 0:
                    raise ValueError(f"there is no server {server_text(address)}")
                at = &self.servers[slot]
                number, is_second = <uint16_t>name, address not in first
                self.hold()
                at.name = number
                at.is_second = is_second
                self.let_go()
        return 0

    cdef int _check_servers(self, Group *group, dict wanted) except -1:
        """ValueError for servers that a group cannot have, before anything is changed."""
        if not 0 < len(wanted) <= GROUP_SERVERS_LIMIT:
            raise ValueError(f"an upstream has 1 to {GROUP_SERVERS_LIMIT} servers, not {len(wanted)}")
        for weight in wanted.values():
            if not 1 <= weight <= WEIGHT_LIMIT:
                raise ValueError(f"a weight is from 1 to {WEIGHT_LIMIT}, not {weight}")
        fresh = sum(self._slot_of(group, address) < 0 for address in wanted)
        if fresh > self._free_count():
            raise ValueError(f"at most {SERVERS_MAX} servers, those that are being let go among them")
        return 0

    cdef Group *_group(self, int number) except NULL:
        if not 0 <= number < self.group_count:
            raise ValueError(f"there is no upstream group {number}")
        return &self.groups[number]

    cdef int _slot_of(self, Group *group, address) except -2:
        """The slot of a group's server; -1: it is none of the group's. ValueError: no address."""
        cdef Server wanted
        cdef Server *at
        cdef uint16_t i
        _read_server(address, &wanted)
        for i in range(group.count):
            at = &self.servers[group.members[i]]
            if at.address_size == wanted.address_size and memcmp(&at.address, &wanted.address, at.address_size) == 0:
                return group.members[i]
        return -1

    cdef bint _is_free(self, int slot) noexcept nogil:
        cdef const Server *at = &self.servers[slot]
        return not at.is_taken or at.is_retired and at.open_count == 0 and at.active_count == 0

    cdef int _free_count(self) noexcept nogil:
        cdef int slot
        cdef int count = 0
        self.hold()
        for slot in range(SERVERS_MAX):
            count += self._is_free(slot)
        self.let_go()
        return count

    cdef int _take_slot(self, int number, address) except -1:
        """A free slot, which no plane knows of before it is a member of the group."""
        cdef int slot = 0
        self.hold()
        while not self._is_free(slot):
            slot += 1
        self.let_go()
        _read_server(address, &self.servers[slot])
        self.servers[slot].is_taken = True
        self.servers[slot].group = <uint16_t>number
        self.names[slot] = address
        return slot

    def set_health(self, int number, address, bint is_well, now_ms=None):
        """Note what a health check found. Nothing happens if the group has no such server now."""
        cdef int slot = self._slot_of(self._group(number), address)
        cdef int64_t at_ms = _now_ms() if now_ms is None else now_ms
        self.hold()
        if slot >= 0 and self.servers[slot].is_sick == is_well:
            self.servers[slot].is_sick = not is_well
            if is_well:
                self.servers[slot].returned_ms = at_ms
        self.let_go()

    def unreached(self, int number, int64_t within_ms, now_ms=None):
        cdef int64_t until_ms = within_ms + (_now_ms() if now_ms is None else now_ms)
        cdef Group *group = self._group(number)
        cdef const Server *at
        cdef uint16_t i
        cdef bint is_due
        found = []
        for i in range(group.count):
            at = &self.servers[group.members[i]]
            self.hold()
            is_due = at.failures > 0 and at.down_until_ms <= until_ms
            self.let_go()
            if is_due:
                found.append(self.names[group.members[i]])
        return found

    def knocked(self, int number, address, int reason, now_ms=None):
        cdef int slot = self._slot_of(self._group(number), address)
        cdef int64_t at_ms = _now_ms() if now_ms is None else now_ms
        if slot >= 0 and reason == 0:
            self.connected(<uint16_t>slot, at_ms)
        elif slot >= 0:
            self.hold()
            if self.servers[slot].failures:             # else a request has reached it since the knock began
                self._failed(<uint16_t>slot, at_ms, reason)
            self.let_go()

    def state(self, now_ms=None):
        cdef int64_t at_ms = _now_ms() if now_ms is None else now_ms
        cdef Server at
        cdef uint32_t queued
        cdef uint16_t i
        cdef bint is_unused
        cdef int number
        found = []
        for number in range(self.group_count):
            for i in range(self.groups[number].count):
                self.hold()
                at = self.servers[self.groups[number].members[i]]
                queued = self.groups[number].pending_count
                is_unused = at.is_second and at.open_count == 0 and has_first(self.servers, &self.groups[number], &at, at_ms)
                self.let_go()
                if is_unused:
                    continue                            # nothing need listen there
                found.append({
                    "group": number,
                    "server": server_text(self.names[self.groups[number].members[i]]),
                    "state": "down" if at.is_sick or at.failures else "up",
                    "why": "" if not at.failures else FAULTY_TEXT if at.reason == FAULTY else os.strerror(at.reason),
                    "active": at.active_count,
                    "idle": max(0, <int>at.open_count - <int>at.active_count),
                    "queued": queued,
                })
        return found

    def under_way(self, int number, address):
        cdef Server wanted
        cdef Server *at
        cdef int slot
        cdef uint32_t count = 0
        self._group(number)
        _read_server(address, &wanted)
        self.hold()
        for slot in range(SERVERS_MAX):
            at = &self.servers[slot]
            if not at.is_taken or at.group != number or at.address_size != wanted.address_size:
                continue
            if memcmp(&at.address, &wanted.address, at.address_size) == 0:
                count += at.active_count
        self.let_go()
        return count

    def suits(self, uint16_t number, ticket, now_ms=None):
        """Whether the holder of a ticket that is about to be made comes back to this server."""
        cdef int64_t at_ms = _now_ms() if now_ms is None else now_ms
        cdef Server *server = &self.servers[number]
        cdef Group *group
        cdef uint8_t[RAW_BUFFER_BYTES] raw
        cdef const uint8_t *text = NULL
        cdef Py_ssize_t chars = 0
        cdef int size
        cdef uint16_t chosen = number
        if number >= SERVERS_MAX or not ascii_text(ticket, &text, &chars):
            return True
        group = &self.groups[server.group]
        size = decode(text, chars, raw)
        if size == 0 or group.balance != Balance.TICKET_HASH:
            return True
        self.hold()
        if not server.is_retired and not server.is_sick and server.down_until_ms <= at_ms:   # else no client comes back to it
            chosen = pick_for_key(self.servers, group, ticket_key(raw, size), at_ms, False)
        self.let_go()
        return chosen == number

    def name_of(self, int slot):
        """The (group, server) of a slot, as `news` has them."""
        return self.servers[slot].group, server_text(self.names[slot])

    def news(self):
        """Servers that failed or took a connection again since the last call: (group, server,
        reason). An empty reason: it is up.
        """
        cdef Server *at
        cdef int slot
        cdef int reason
        cdef bint is_down
        cdef bint has_news
        self.hold()
        has_news, self.has_news = self.has_news, False
        self.let_go()
        found = []
        for slot in range(SERVERS_MAX if has_news else 0):
            at = &self.servers[slot]
            self.hold()
            is_down = at.failures > 0
            has_news = at.is_taken and not at.is_retired and is_down != at.is_said_down
            if has_news:
                at.is_said_down = is_down
            reason = at.reason
            self.let_go()
            if has_news:
                why = "" if not is_down else FAULTY_TEXT if reason == FAULTY else os.strerror(reason)
                found.append((at.group, server_text(self.names[slot]), why))
        return found

    def faults(self):
        cdef Noted[FAULTS_NOTED_MAX] noted
        cdef uint32_t count
        cdef uint32_t more
        cdef uint32_t i
        self.hold()
        memcpy(noted, self.noted, sizeof(noted))
        count, more = self.noted_count, self.noted_more
        self.noted_count = self.noted_more = 0
        self.let_go()
        found = []
        for i in range(count):
            what = b"" if noted[i].what == NULL else <bytes>noted[i].what
            found.append((*self.name_of(noted[i].server), what.decode("ascii")))
        return found, more

    cdef void note(self, uint16_t server, const char *what) noexcept nogil:
        """Keep a fault of a server for the operator. `what`, which stays valid: why its response was
        malformed; NULL: it set the ticket's cookie.
        """
        self.hold()
        if self.noted_count == FAULTS_NOTED_MAX:
            self.noted_more += 1
        else:
            self.noted[self.noted_count].server = server
            self.noted[self.noted_count].what = what
            self.noted_count += 1
        self.let_go()

    # ------------------------------------------------------------------- requests, and who is to wait

    cdef uint16_t take(self, int number, uint64_t key, uint32_t attempts, int plane, int64_t now_ms) noexcept nogil:
        """A server for a request, which is under way there from now on; or NOBODY, NO_SERVERS or
        NO_MORE. `attempts`: made so far; each costs credit, the first one adds some.
        """
        cdef Group *group = &self.groups[number]
        cdef uint16_t server
        self.hold()
        if group.count == 0:
            server = Choice.NO_SERVERS
        elif attempts > group.count or attempts and group.credit < RETRY_COST:
            server = Choice.NO_MORE
        elif _is_turn_of_another(group, plane):
            server = Choice.NOBODY
        else:
            server = pick(self.servers, group, key, now_ms)
            if server != Choice.NOBODY:                 # who waits for one pays when he has it
                if attempts == 0:
                    self._add_retry_credit(group)
                else:
                    group.credit -= RETRY_COST
                self.servers[server].active_count += 1
        self.let_go()
        return server

    cdef Choice take_kept(self, uint16_t server, int plane) noexcept nogil:
        """Take the server of a connection that is kept for the client; NOBODY: it is busy, NO_MORE:
        it is gone.
        """
        cdef Server *at = &self.servers[server]
        cdef Group *group = &self.groups[at.group]
        cdef Choice said = <Choice>0
        self.hold()
        if at.is_retired:
            said = Choice.NO_MORE
        elif is_busy(group, at) or _is_turn_of_another(group, plane):
            said = Choice.NOBODY
        else:
            at.active_count += 1
            self._add_retry_credit(group)
        self.let_go()
        return said

    cdef bint is_kept_busy(self, uint16_t server) noexcept nogil:
        """Whether a request has to wait for the connection that is kept for its client."""
        cdef const Server *at = &self.servers[server]
        cdef bint found
        self.hold()
        found = not at.is_retired and is_busy(&self.groups[at.group], at)
        self.let_go()
        return found

    cdef int give_back(self, uint16_t server, bint is_closed, int plane) noexcept nogil:
        """A request is over that `take` has given a server. `is_closed`: its connection is, too.
        What is said: of Returned.
        """
        cdef Server *at = &self.servers[server]
        cdef uint16_t number = at.group         # a server that is gone may be another group's as soon as the lock is released
        cdef Group *group = &self.groups[number]
        cdef int woken = -1
        cdef int said = 0
        self.hold()
        at.active_count -= 1
        at.open_count -= is_closed
        if at.is_retired:
            said = Returned.IS_GONE
        if group.waiting:
            woken = group.turn
            group.asked_left = <uint8_t>__builtin_popcountll(group.waiting)
        self.let_go()
        if woken == plane:
            said |= Returned.IS_ROOM_HERE
        elif woken >= 0:
            self.ring(woken, <uint64_t>1 << number)
        return said

    cdef Queued enqueue(self, int number, uint64_t key, uint16_t kept, int plane, int64_t now_ms) noexcept nogil:
        """Count a request that has to wait, for the server `kept` or, if that is NOBODY, for any.
        What came free since it was told to wait rang no bell for it: HAS_ROOM.
        """
        cdef Group *group = &self.groups[number]
        cdef Queued said = Queued.WAITS
        cdef int woken = -1
        cdef bint has_room
        self.hold()
        if group.pending_count >= group.pending_max:
            said = Queued.QUEUE_IS_FULL
        else:
            group.pending_count += 1
            group.waiting |= <uint64_t>1 << plane
            if not group.waiting >> group.turn & 1:
                group.turn = <uint8_t>plane
            if kept != Choice.NOBODY:
                has_room = not is_busy(group, &self.servers[kept])
            else:
                has_room = would_place(self.servers, group, key, now_ms)
            if has_room and group.turn == plane:
                said = Queued.HAS_ROOM
            elif has_room:
                woken = group.turn
                group.asked_left = <uint8_t>__builtin_popcountll(group.waiting)
        self.let_go()
        if woken >= 0:
            self.ring(woken, <uint64_t>1 << number)
        return said

    cdef void dequeue(self, int number) noexcept nogil:
        """A request waits no longer. Its plane's bit stays until `pass_turn`."""
        self.hold()
        self.groups[number].pending_count -= 1
        self.let_go()

    cdef Place place_for(self, int number, uint64_t key, int plane, int64_t now_ms) noexcept nogil:
        """Whether `take` would find a server for a request that waits. No server's turn passes."""
        cdef Group *group = &self.groups[number]
        cdef Place said = Place.NO_PLACE
        self.hold()
        if not _is_turn_of_another(group, plane) and would_place(self.servers, group, key, now_ms):
            said = Place.ONE_PLACE if group.waiting & ~(<uint64_t>1 << plane) else Place.A_PLACE
        self.let_go()
        return said

    cdef void pass_turn(self, int number, int plane, bint has_more, bint has_placed, int64_t now_ms) noexcept nogil:
        """A plane has gone through its requests that wait in a group; `has_more`: some still do. The
        next plane has its turn. It is woken if there is room, once for each room that came free.
        """
        cdef Group *group = &self.groups[number]
        cdef uint64_t ours = <uint64_t>1 << plane
        cdef int woken = -1
        self.hold()
        if not has_more:
            group.waiting &= ~ours
        if has_placed:
            group.asked_left = <uint8_t>__builtin_popcountll(group.waiting)
        if group.waiting & ~ours and (group.turn == plane or not group.waiting >> group.turn & 1):
            group.turn = _next_of(group.waiting, plane)
            if group.asked_left and would_place(self.servers, group, 0, now_ms):
                group.asked_left -= 1
                woken = group.turn
        self.let_go()
        if woken >= 0:
            self.ring(woken, <uint64_t>1 << number)

    # ---------------------------------------------------------------------------------- connections

    cdef void opened(self, uint16_t server) noexcept nogil:
        """A connection is being made, for a request that is under way."""
        self.hold()
        self.servers[server].open_count += 1
        self.let_go()

    cdef void closed(self, uint16_t server) noexcept nogil:
        """A connection that idled is closed."""
        self.hold()
        self.servers[server].open_count -= 1
        self.let_go()

    cdef bint is_gone(self, uint16_t server) noexcept nogil:
        """Whether a server has left its group."""
        cdef bint found
        self.hold()
        found = self.servers[server].is_retired
        self.let_go()
        return found

    # ----------------------------------------------------------------------------- results, retries

    cdef void _add_retry_credit(self, Group *group) noexcept nogil:
        """Add credit for retries: a request was sent for the first time."""
        group.credit = min(group.credit + group.retry_percent, <int32_t>CREDIT_MAX)

    cdef void refill(self, int64_t now_ms) noexcept nogil:
        """Add credit with time. Each plane calls it, some times a second."""
        cdef int i
        self.hold()
        for i in range(self.group_count if now_ms - self.refilled_ms >= REFILL_MS else 0):
            self.refilled_ms = now_ms
            if self.groups[i].retry_percent:
                self.groups[i].credit = min(self.groups[i].credit + REFILL, <int32_t>CREDIT_MAX)
        self.let_go()

    cdef void failed(self, uint16_t server, int64_t now_ms, int reason) noexcept nogil:
        """A server took no connection for a request: pause it. `reason`: an errno."""
        cdef Server *at = &self.servers[server]
        self.hold()
        self._failed(server, now_ms, reason)
        if at.name and not at.is_second:        # its next address costs nothing: nobody was asked yet
            self.groups[at.group].credit = min(self.groups[at.group].credit + RETRY_COST, <int32_t>CREDIT_MAX)
        self.let_go()

    cdef void _failed(self, uint16_t server, int64_t now_ms, int reason) noexcept nogil:
        cdef Server *at = &self.servers[server]
        at.reason = reason
        self.has_news = True
        at.failures = min(at.failures + 1, <uint32_t>FAILURES_MAX)
        at.down_until_ms = now_ms + min(PAUSE_MS * <int64_t>at.failures, <int64_t>PAUSE_MAX_MS)

    cdef void faulted(self, uint16_t server, int64_t now_ms) noexcept nogil:
        """A server took a request and gave no proper answer. The third time in a row it has failed:
        one bad path alone does not pause it.
        """
        cdef Server *at = &self.servers[server]
        self.hold()
        store_count(&at.faults, at.faults + 1, RELAXED)
        if at.faults >= FAULTS_MAX:
            store_count(&at.faults, 0, RELAXED)
            self._failed(server, now_ms, FAULTY)
        self.let_go()

    cdef void answered(self, uint16_t server) noexcept nogil:
        """A server gave a proper answer."""
        if load_count(&self.servers[server].faults, RELAXED):        # seldom; if it is late, the next answer sees it
            self.hold()
            store_count(&self.servers[server].faults, 0, RELAXED)
            self.let_go()

    cdef void connected(self, uint16_t server, int64_t now_ms) noexcept nogil:
        """A server took a connection: it is up."""
        cdef Server *at = &self.servers[server]
        self.hold()
        if at.failures:
            self.has_news = True
            at.failures = 0
            at.down_until_ms = 0
            at.returned_ms = now_ms
        self.let_go()


cdef inline bint _is_turn_of_another(const Group *group, int plane) noexcept nogil:
    """Whether requests of another plane wait, and it is that one's turn."""
    return group.waiting and group.turn != plane and group.waiting >> group.turn & 1


cdef uint8_t _next_of(uint64_t waiting, int plane) noexcept nogil:
    """The plane after this one, of those that wait; some do."""
    cdef uint64_t later = waiting & ~((<uint64_t>2 << plane) - 1)
    return <uint8_t>__builtin_ctzll(later if later else waiting)


cdef int64_t _now_ms() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000 + t.tv_nsec // 1_000_000


cdef int _read_server(object server, Server *at) except -1:
    """Fill a slot from (host, port), numeric, or a Unix socket's path. ValueError."""
    cdef sockaddr_un *unix_address = <sockaddr_un *>&at.address
    cdef sockaddr_in *v4 = <sockaddr_in *>&at.address
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>&at.address
    cdef bytes name
    memset(at, 0, sizeof(Server))
    at.key = int.from_bytes(hashlib.blake2b(server_text(server).encode(), digest_size=8).digest(), "little")
    if isinstance(server, str):
        name = os.fsencode(server)
        if len(name) >= <Py_ssize_t>sizeof(unix_address.sun_path):
            raise ValueError(f"the path of a Unix socket has at most {sizeof(unix_address.sun_path) - 1} bytes: {server}")
        unix_address.sun_family = AF_UNIX
        memcpy(unix_address.sun_path, <const char *>name, len(name))
        at.address_size = sizeof(sockaddr_un)
        return 0
    host, port = server
    name = host.encode("ascii")
    if inet_pton(AF_INET, name, &v4.sin_addr) == 1:
        v4.sin_family = AF_INET
        v4.sin_port = htons(port)
        at.address_size = sizeof(sockaddr_in)
    elif inet_pton(AF_INET6, name, &v6.sin6_addr) == 1:
        v6.sin6_family = AF_INET6
        v6.sin6_port = htons(port)
        at.address_size = sizeof(sockaddr_in6)
    else:
        raise ValueError(f"not a numeric address: {host}")
    return 0


def server_text(server):
    """A server as a configuration has it."""
    if isinstance(server, str):
        return f"unix:{server}"
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# ------------------------------------------------------------------------------ for tests and tools

def picks(Upstreams upstreams not None, int group, keys, int64_t now_ms=1):
    """The servers of requests with these keys, one after the other; None for one that waits."""
    cdef uint16_t server
    cdef list found = []
    for key in keys:
        server = pick(upstreams.servers, upstreams._group(group), key, now_ms)
        found.append(None if server == NOBODY else server_text(upstreams.names[server]))
    return found


def report(Upstreams upstreams not None, int group, server, str event, int64_t now_ms=1):
    """Report to the balancer: failed, faulted, connected, opened or closed (a connection)."""
    cdef int slot = upstreams._slot_of(upstreams._group(group), server)
    if slot < 0:
        raise ValueError(f"there is no server {server_text(server)}")
    if event == "failed":
        upstreams.failed(<uint16_t>slot, now_ms, ECONNREFUSED)
    elif event == "faulted":
        upstreams.faulted(<uint16_t>slot, now_ms)
    elif event == "connected":
        upstreams.connected(<uint16_t>slot, now_ms)
    else:
        upstreams.servers[slot].open_count += 1 if event == "opened" else -1
        upstreams.servers[slot].active_count += 1 if event == "opened" else -1
