# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Which server a request goes to: groups, balancing, weights, failures, and how often a request may
be retried. No sockets.

Rules of this file
- A group's servers can be replaced at any time. A server that stays keeps its slot. A server that
  goes is retired: it gets no new request, and its slot is free when its last connection has ended.
- A server is down while it is paused because it refused a connection or gave FAULTS_MAX bad answers
  in a row (passive), and while its last health check failed (active). If all servers of a group are
  down, all are tried: a wrong guess must not become an outage.
- A server that comes back gets a growing part of its share for `slow_return_ms`, so that cold
  caches are not overrun.
- Consistent hashing is rendezvous hashing: a key belongs to the server with the highest draw for
  it. Every gateway draws alike, and a server that goes gives away its own keys only. A request
  whose server is busy waits; it goes to no other.
- If a name has addresses of two families (127.0.0.1 and ::1), those of the second family get
  requests only while no address of the first is up: they may be the same server.
- A retry costs credit, and each request adds a part of that: so a failing upstream gets few more
  requests than a healthy one.
"""

cimport cython
from libc.errno cimport ECONNREFUSED
from libc.math cimport log
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from fastticket.core.mixing cimport mix
from fastticket.dataplane.sockets cimport *

import hashlib
import os

WEIGHT_MAX = WEIGHT_LIMIT
GROUPS_MAX = GROUPS_LIMIT
GROUP_SERVERS_MAX = GROUP_SERVERS_LIMIT
ALL_SERVERS_MAX = SERVERS_MAX

cdef enum:
    SHARES = 64                 # for a weight of 1, so that a server can have a part of it
    PAUSE_MS = 1000             # of a failed server, times its failures in a row
    PAUSE_MAX_MS = 10000
    FAILURES_MAX = 1000         # where their count stops
    FAULTS_MAX = 3              # bad answers in a row that are a failure
    RETRY_COST = 100
    CREDIT_MAX = 100 * RETRY_COST
    REFILL = 100                # of each call of `refill`, so that a group with few requests may retry, too

cdef str FAULTY_TEXT = f"no proper answer {FAULTS_MAX} times in a row"

BALANCES = {
    "round_robin": Balance.ROUND_ROBIN,
    "least_connections": Balance.LEAST_CONNECTIONS,
    "ip_hash": Balance.IP_HASH,
    "ticket_hash": Balance.TICKET_HASH,
}


@cython.final
cdef class Upstreams:
    def __cinit__(self):
        self.servers = <Server *>calloc(SERVERS_MAX, sizeof(Server))
        self.groups = <Group *>calloc(GROUPS_LIMIT, sizeof(Group))
        self.names = [None] * SERVERS_MAX
        if self.servers == NULL or self.groups == NULL:
            raise MemoryError("no memory for upstreams")

    def __dealloc__(self):
        free(self.servers)
        free(self.groups)

    def add_group(
        self, balance="round_robin", *, connections_max=0, pending_max=1000, slow_return_ms=10_000, retry_percent=20
    ):
        cdef Group *group = &self.groups[self.group_count]
        if self.group_count == GROUPS_LIMIT:
            raise ValueError(f"at most {GROUPS_LIMIT} upstreams")
        group.balance = BALANCES[balance]
        group.connections_max = connections_max
        group.pending_max = pending_max
        group.slow_return_ms = slow_return_ms
        group.retry_percent = retry_percent
        group.credit = CREDIT_MAX if retry_percent else 0
        group.pending_first = group.pending_last = NO_CONN
        self.group_count += 1
        return self.group_count - 1

    def set_servers(self, int number, servers, seconds=()):
        cdef Group *group = self._group(number)
        cdef uint16_t[GROUP_SERVERS_LIMIT] members
        cdef uint16_t count = 0
        cdef uint16_t i
        cdef int slot
        wanted = dict(servers)
        self._check_servers(group, wanted)
        for address in wanted:
            slot = self._slot_of(group, address)
            members[count] = <uint16_t>(slot if slot >= 0 else self._take_slot(number, address))
            count += 1
        for i in range(group.count):
            self.servers[group.members[i]].is_retired = True
        for i, weight in enumerate(wanted.values()):
            self.servers[members[i]].is_retired = False
            self.servers[members[i]].weight = weight
        memcpy(group.members, members, sizeof(members))
        group.count = count
        group.following = 0
        self._set_seconds(group, seconds)

    cdef int _set_seconds(self, Group *group, seconds) except -1:
        """Note which servers are second addresses: (firsts, seconds) of each name with both."""
        cdef Server *at
        cdef int slot
        cdef uint16_t i
        for i in range(group.count):
            self.servers[group.members[i]].is_second = False
            self.servers[group.members[i]].name = 0
        for name, (first, second) in enumerate(seconds, 1):
            for address in (*first, *second):
                slot = self._slot_of(group, address)
                if slot < 0:
                    raise ValueError(f"there is no server {server_text(address)}")
                at = &self.servers[slot]
                at.name = <uint16_t>name
                at.is_second = address not in first
        return 0

    cdef int _check_servers(self, Group *group, dict wanted) except -1:
        """ValueError for servers that a group cannot have, before anything is changed."""
        cdef int slot
        if not 0 < len(wanted) <= GROUP_SERVERS_LIMIT:
            raise ValueError(f"an upstream has 1 to {GROUP_SERVERS_LIMIT} servers, not {len(wanted)}")
        for weight in wanted.values():
            if not 1 <= weight <= WEIGHT_LIMIT:
                raise ValueError(f"a weight is from 1 to {WEIGHT_LIMIT}, not {weight}")
        fresh = sum(self._slot_of(group, address) < 0 for address in wanted)
        if fresh > sum(self._is_free(slot) for slot in range(SERVERS_MAX)):
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

    cdef bint _is_free(self, int slot) noexcept:
        return not self.servers[slot].is_taken or self.servers[slot].is_retired and self.servers[slot].open_count == 0

    cdef int _take_slot(self, int number, address) except -1:
        cdef int slot = 0
        while not self._is_free(slot):
            slot += 1
        _read_server(address, &self.servers[slot])
        self.servers[slot].is_taken = True
        self.servers[slot].group = <uint16_t>number
        self.servers[slot].idle_first = NO_CONN
        self.names[slot] = address
        return slot

    def set_health(self, int number, address, bint is_well, int64_t now_ms):
        """Note what a health check found. Nothing happens if the group has no such server now."""
        cdef int slot = self._slot_of(self._group(number), address)
        if slot >= 0 and self.servers[slot].is_sick == is_well:
            self.servers[slot].is_sick = not is_well
            if is_well:
                self.servers[slot].returned_ms = now_ms

    def state(self, int64_t now_ms):
        cdef Server *at
        cdef uint16_t i
        cdef int number
        found = []
        for number in range(self.group_count):
            for i in range(self.groups[number].count):
                at = &self.servers[self.groups[number].members[i]]
                if at.is_second and at.open_count == 0 and self._has_first(at, now_ms):
                    continue                            # nothing need listen there
                found.append({
                    "group": number,
                    "server": server_text(self.names[self.groups[number].members[i]]),
                    "state": "down" if at.is_sick or at.down_until_ms > now_ms else "up",
                    "active": at.open_count - at.idle_count - at.kept_count,
                    "idle": at.idle_count + at.kept_count,
                    "queued": self.groups[number].pending_count,
                })
        return found

    def name_of(self, int slot):
        """The (group, server) of a slot, as `news` has them."""
        return self.servers[slot].group, server_text(self.names[slot])

    def news(self):
        """Servers that failed or took a connection again since the last call: (group, server,
        reason). An empty reason: it is up.
        """
        cdef Server *at
        cdef int slot
        cdef bint is_down
        found = []
        if not self.has_news:
            return found
        self.has_news = False
        for slot in range(SERVERS_MAX):
            at = &self.servers[slot]
            is_down = at.failures > 0
            if not at.is_taken or at.is_retired or is_down == at.is_said_down:
                continue
            at.is_said_down = is_down
            reason = "" if not is_down else FAULTY_TEXT if at.reason == FAULTY else os.strerror(at.reason)
            found.append((at.group, server_text(self.names[slot]), reason))
        return found

    # ----------------------------------------------------------------------------------------- pick

    cdef uint16_t pick(self, Group *group, uint64_t key, int64_t now_ms) noexcept nogil:
        """Choose a server for a request. NOBODY: all that could have it are busy. `key`: the hash
        that decides, or 0. Servers that are down are tried only if all are.
        """
        cdef uint16_t server
        cdef int down_too
        for down_too in range(2):
            if key:
                server = self.pick_for_key(group, key, now_ms, down_too)
                if server != NOBODY:
                    return NOBODY if is_busy(group, &self.servers[server]) else server
                continue
            if group.balance == Balance.LEAST_CONNECTIONS:
                server = self._pick_least(group, now_ms, down_too)
            else:
                server = self._pick_in_turn(group, now_ms, down_too)
            if server != NOBODY or self.is_up(group, now_ms):
                return server
        return NOBODY

    cdef bint would_place(self, Group *group, uint64_t key, int64_t now_ms) noexcept nogil:
        """Whether `pick` would find a server. No server's turn passes."""
        cdef bint down_too = not self.is_up(group, now_ms)
        cdef Server *at
        cdef uint16_t i
        if key:
            i = self.pick_for_key(group, key, now_ms, down_too)
            return not is_busy(group, &self.servers[i])
        for i in range(group.count):
            at = &self.servers[group.members[i]]
            if self._may_have(at, now_ms, down_too) and not is_busy(group, at):
                return True
        return False

    cdef bint is_up(self, Group *group, int64_t now_ms) noexcept nogil:
        """Whether a server of the group is up, busy or not."""
        cdef uint16_t i
        for i in range(group.count):
            if self.servers[group.members[i]].down_until_ms <= now_ms and not self.servers[group.members[i]].is_sick:
                return True
        return False

    cdef bint _may_have(self, const Server *server, int64_t now_ms, bint down_too) noexcept nogil:
        """Whether a server may get a request, busy or not. `down_too`: even if it is down."""
        if down_too:
            return True
        if server.down_until_ms > now_ms or server.is_sick:
            return False
        return not server.is_second or not self._has_first(server, now_ms)

    cdef bint _has_first(self, const Server *second, int64_t now_ms) noexcept nogil:
        """Whether a first address of the same name is up."""
        cdef Group *group = &self.groups[second.group]
        cdef Server *at
        cdef uint16_t i
        for i in range(group.count):
            at = &self.servers[group.members[i]]
            if at.name == second.name and not at.is_second and not at.is_sick and at.down_until_ms <= now_ms:
                return True
        return False

    cdef int64_t _share(self, const Group *group, const Server *server, int64_t now_ms) noexcept nogil:
        """A server's share of the requests: its weight, or a growing part of it after a return."""
        cdef int64_t whole = <int64_t>server.weight * SHARES
        cdef int64_t since_ms = now_ms - server.returned_ms
        if server.returned_ms == 0 or since_ms >= group.slow_return_ms:
            return whole
        return max(<int64_t>1, whole * since_ms // group.slow_return_ms)

    cdef uint16_t _pick_in_turn(self, Group *group, int64_t now_ms, bint down_too) noexcept nogil:
        """Smooth weighted round robin: each server's score grows by its share; the highest score is
        chosen, and pays the sum of the shares.
        """
        cdef Server *at
        cdef Server *best = NULL
        cdef uint16_t found = NOBODY
        cdef int64_t share
        cdef int64_t total = 0
        cdef uint16_t i
        if group.count == 1:
            at = &self.servers[group.members[0]]
            return group.members[0] if self._may_have(at, now_ms, down_too) and not is_busy(group, at) else NOBODY
        for i in range(group.count):
            at = &self.servers[group.members[i]]
            if not self._may_have(at, now_ms, down_too) or is_busy(group, at):
                continue
            share = self._share(group, at, now_ms)
            at.score += share
            total += share
            if best == NULL or at.score > best.score:
                best = at
                found = group.members[i]
        if best != NULL:
            best.score -= total
        return found

    cdef uint16_t _pick_least(self, Group *group, int64_t now_ms, bint down_too) noexcept nogil:
        """The server with the fewest requests under way for its share; equals take turns."""
        cdef Server *at
        cdef uint16_t found = NOBODY
        cdef int64_t share
        cdef int64_t active
        cdef int64_t best_share = 1
        cdef int64_t best_active = 0
        cdef uint16_t i
        cdef uint16_t member
        for i in range(group.count):
            member = group.members[(group.following + i) % group.count]
            at = &self.servers[member]
            if not self._may_have(at, now_ms, down_too) or is_busy(group, at):
                continue
            share = self._share(group, at, now_ms)
            active = <int64_t>(at.open_count - at.idle_count - at.kept_count) + 1
            if found == NOBODY or active * best_share < best_active * share:
                found, best_share, best_active = member, share, active
        group.following = (group.following + 1) % group.count
        return found

    cdef uint16_t pick_for_key(self, Group *group, uint64_t key, int64_t now_ms, bint down_too) noexcept nogil:
        """Rendezvous hashing: each server draws a number from the key, uniform in (0, 1), and the
        least -ln(draw) ÷ share wins, which gives each its share of the keys. NOBODY: all are down.
        """
        cdef Server *at
        cdef uint16_t found = NOBODY
        cdef double cost
        cdef double best = 0
        cdef uint16_t i
        for i in range(group.count):
            at = &self.servers[group.members[i]]
            if not self._may_have(at, now_ms, down_too):
                continue
            cost = -log((<double>(mix(key ^ at.key) >> 11) + 0.5) / 9007199254740992.0) / <double>self._share(group, at, now_ms)
            if found == NOBODY or cost < best:
                found, best = group.members[i], cost
        return found

    # ----------------------------------------------------------------------------- results, retries

    cdef void add_retry_credit(self, Group *group) noexcept nogil:
        """Add credit for retries: a request was sent for the first time."""
        group.credit = min(group.credit + group.retry_percent, <int32_t>CREDIT_MAX)

    cdef bint may_retry(self, Group *group) noexcept nogil:
        """Whether a request may be sent again. If so, the credit for it is taken."""
        if group.credit < RETRY_COST:
            return False
        group.credit -= RETRY_COST
        return True

    cdef void refill(self) noexcept nogil:
        """Add credit with time. Called some times a second."""
        cdef int i
        for i in range(self.group_count):
            if self.groups[i].retry_percent:
                self.groups[i].credit = min(self.groups[i].credit + REFILL, <int32_t>CREDIT_MAX)

    cdef void failed(self, uint16_t server, int64_t now_ms, int reason) noexcept nogil:
        """A server took no connection, or is FAULTY: pause it. `reason`: an errno, or FAULTY."""
        cdef Server *at = &self.servers[server]
        at.reason = reason
        self.has_news = True
        at.failures = min(at.failures + 1, <uint32_t>FAILURES_MAX)
        at.down_until_ms = now_ms + min(PAUSE_MS * <int64_t>at.failures, <int64_t>PAUSE_MAX_MS)
        if at.name and not at.is_second and reason != FAULTY:           # its next address costs nothing: nobody was asked yet
            self.groups[at.group].credit = min(self.groups[at.group].credit + RETRY_COST, <int32_t>CREDIT_MAX)

    cdef void faulted(self, uint16_t server, int64_t now_ms) noexcept nogil:
        """A server took a request and gave no proper answer. The third time in a row it has failed:
        one bad path alone does not pause it.
        """
        cdef Server *at = &self.servers[server]
        at.faults += 1
        if at.faults >= FAULTS_MAX:
            at.faults = 0
            self.failed(server, now_ms, FAULTY)

    cdef void connected(self, uint16_t server, int64_t now_ms) noexcept nogil:
        """A server took a connection: it is up."""
        cdef Server *at = &self.servers[server]
        if at.failures:
            self.has_news = True
            at.failures = 0
            at.down_until_ms = 0
            at.returned_ms = now_ms


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
        server = upstreams.pick(upstreams._group(group), key, now_ms)
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
