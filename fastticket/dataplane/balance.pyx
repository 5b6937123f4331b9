# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Which of a group's servers a request goes to: balancing, weights, and who is left out.

Rules of this file
- Computation alone, under the lock of who calls (upstreams.pyx). `pick` is a request's turn; what
  only asks moves no turn.
- A server that is paused or whose health check fails gets no request. If all servers of a group are
  so, all are tried: a wrong guess must not become an outage.
- A server that comes back gets a growing part of its share for `slow_return_ms`, so that cold
  caches are not overrun.
- Consistent hashing is rendezvous hashing: a key belongs to the server with the highest draw for
  it. Every gateway draws alike, and a server that goes gives away its own keys only. A request
  whose server is busy waits; it goes to no other.
- If a name has addresses of two families (127.0.0.1 and ::1), those of the second family get
  requests only while no address of the first is up: they may be the same server.
"""

from libc.math cimport log
from libc.string cimport memcpy

from fastticket.core.mixing cimport mix
from fastticket.core.wire cimport TAG_BYTES
from fastticket.dataplane.octets cimport le64toh

cdef enum:
    SHARES = 64                 # for a weight of 1, so that a server can have a part of it

BALANCES = {
    "round_robin": Balance.ROUND_ROBIN,
    "least_connections": Balance.LEAST_CONNECTIONS,
    "ip_hash": Balance.IP_HASH,
    "ticket_hash": Balance.TICKET_HASH,
}


cdef uint16_t pick(Server *servers, Group *group, uint64_t key, int64_t now_ms) noexcept nogil:
    """Choose a server for a request. NOBODY: all that could have it are busy. `key`: the hash
    that decides, or 0. Servers that are down are tried only if all are.
    """
    cdef uint16_t server
    cdef int down_too
    for down_too in range(2):
        if key:
            server = pick_for_key(servers, group, key, now_ms, down_too)
            if server != NOBODY:
                return NOBODY if is_busy(group, &servers[server]) else server
            continue
        if group.balance == Balance.LEAST_CONNECTIONS:
            server = _pick_least(servers, group, now_ms, down_too)
        else:
            server = _pick_in_turn(servers, group, now_ms, down_too)
        if server != NOBODY or _is_up(servers, group, now_ms):
            return server
    return NOBODY


cdef bint would_place(const Server *servers, const Group *group, uint64_t key, int64_t now_ms) noexcept nogil:
    """Whether `pick` would find a server. No server's turn passes."""
    cdef bint down_too = not _is_up(servers, group, now_ms)
    cdef const Server *at
    cdef uint16_t i
    if key:
        i = pick_for_key(servers, group, key, now_ms, down_too)
        return not is_busy(group, &servers[i])
    for i in range(group.count):
        at = &servers[group.members[i]]
        if _may_have(servers, group, at, now_ms, down_too) and not is_busy(group, at):
            return True
    return False


cdef bint _is_up(const Server *servers, const Group *group, int64_t now_ms) noexcept nogil:
    """Whether a server of the group is up, busy or not."""
    cdef uint16_t i
    for i in range(group.count):
        if servers[group.members[i]].down_until_ms <= now_ms and not servers[group.members[i]].is_sick:
            return True
    return False


cdef bint _may_have(const Server *servers, const Group *group, const Server *server, int64_t now_ms, bint down_too) noexcept nogil:
    """Whether a server may get a request, busy or not. `down_too`: even if it is down."""
    if down_too:
        return True
    if server.down_until_ms > now_ms or server.is_sick:
        return False
    return not server.is_second or not has_first(servers, group, server, now_ms)


cdef bint has_first(const Server *servers, const Group *group, const Server *second, int64_t now_ms) noexcept nogil:
    """Whether a first address of the same name is up."""
    cdef const Server *at
    cdef uint16_t i
    for i in range(group.count):
        at = &servers[group.members[i]]
        if at.name == second.name and not at.is_second and not at.is_sick and at.down_until_ms <= now_ms:
            return True
    return False


cdef int64_t _share(const Group *group, const Server *server, int64_t now_ms) noexcept nogil:
    """A server's share of the requests: its weight, or a growing part of it after a return."""
    cdef int64_t whole = <int64_t>server.weight * SHARES
    cdef int64_t since_ms = now_ms - server.returned_ms
    if server.returned_ms == 0 or since_ms >= group.slow_return_ms:
        return whole
    return max(<int64_t>1, whole * since_ms // group.slow_return_ms)


cdef uint16_t _pick_in_turn(Server *servers, Group *group, int64_t now_ms, bint down_too) noexcept nogil:
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
        at = &servers[group.members[0]]
        return group.members[0] if _may_have(servers, group, at, now_ms, down_too) and not is_busy(group, at) else NOBODY
    for i in range(group.count):
        at = &servers[group.members[i]]
        if not _may_have(servers, group, at, now_ms, down_too) or is_busy(group, at):
            continue
        share = _share(group, at, now_ms)
        at.score += share
        total += share
        if best == NULL or at.score > best.score:
            best = at
            found = group.members[i]
    if best != NULL:
        best.score -= total
    return found


cdef uint16_t _pick_least(Server *servers, Group *group, int64_t now_ms, bint down_too) noexcept nogil:
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
        at = &servers[member]
        if not _may_have(servers, group, at, now_ms, down_too) or is_busy(group, at):
            continue
        share = _share(group, at, now_ms)
        active = <int64_t>at.active_count + 1
        if found == NOBODY or active * best_share < best_active * share:
            found, best_share, best_active = member, share, active
    group.following = (group.following + 1) % group.count
    return found


cdef uint16_t pick_for_key(const Server *servers, const Group *group, uint64_t key, int64_t now_ms, bint down_too) noexcept nogil:
    """Rendezvous hashing: each server draws a number from the key, uniform in (0, 1), and the
    least -ln(draw) ÷ share wins, which gives each its share of the keys. NOBODY: all are down.
    """
    cdef const Server *at
    cdef uint16_t found = NOBODY
    cdef double cost
    cdef double best = 0
    cdef uint16_t i
    for i in range(group.count):
        at = &servers[group.members[i]]
        if not _may_have(servers, group, at, now_ms, down_too):
            continue
        cost = -log((<double>(mix(key ^ at.key) >> 11) + 0.5) / 9007199254740992.0) / <double>_share(group, at, now_ms)
        if found == NOBODY or cost < best:
            found, best = group.members[i], cost
    return found


cdef uint64_t ticket_key(const uint8_t *raw, int size) noexcept nogil:
    """What TICKET_HASH chooses a server by: the ticket's tag, not the session's id, so that a
    server says nothing about the id (docs/decisions/0010).
    """
    cdef uint64_t key
    memcpy(&key, raw + size - TAG_BYTES, 8)
    return le64toh(key) | 1
