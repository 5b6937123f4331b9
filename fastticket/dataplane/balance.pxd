from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.dataplane.sockets cimport sockaddr_storage, socklen_t

cdef enum:
    SERVERS_MAX = 1024
    GROUPS_LIMIT = 64
    GROUP_SERVERS_LIMIT = 256
    WEIGHT_LIMIT = 1000
    NOBODY = 0xFFFF             # no server
    NO_CONN = 0xFFFFFFFF
    FAULTY = -1                 # took requests and gave no proper answer


cdef enum Balance:
    ROUND_ROBIN = 0
    LEAST_CONNECTIONS
    IP_HASH
    TICKET_HASH


cdef struct Server:
    sockaddr_storage address
    socklen_t address_size
    bint is_taken               # the slot
    bint is_retired             # no longer one of its group: ends with its last connection
    bint is_sick                # a health check says so
    bint is_second              # takes the place of the first ones of its name, when none of them is up
    uint16_t name               # of which it is an address, where that has seconds; 0: no such one
    uint16_t group
    uint32_t weight
    uint64_t key                # what consistent hashing knows it by, the same on every gateway
    int64_t score               # smooth weighted round robin
    uint32_t open_count         # connections, those in the pool among them
    uint32_t idle_count
    uint32_t kept_count         # that idle, too, each for one client alone: not in the pool
    uint32_t idle_first         # the most recently used one of the pool; its connections are linked
    uint32_t failures           # in a row, each of which has put it aside
    uint32_t faults             # answers that failed, in a row
    int reason                  # of the last failure: an errno, or FAULTY
    bint is_said_down           # the control plane has heard of it
    int64_t down_until_ms
    int64_t returned_ms         # when it came back, or 0: it has its whole share


cdef struct Group:
    uint16_t[GROUP_SERVERS_LIMIT] members
    uint16_t count
    uint16_t following          # where the search among equals begins
    Balance balance
    uint32_t connections_max    # that a server has under way; 0: no limit
    uint32_t pending_max        # requests that wait for one
    int64_t slow_return_ms
    int32_t retry_percent
    int32_t credit              # of retries, in hundredths
    uint32_t pending_first      # downstream connections, linked
    uint32_t pending_last
    uint32_t pending_count


cdef class Upstreams:
    cdef Server *servers
    cdef Group *groups
    cdef list names             # of each slot's server, as it was given
    cdef readonly int group_count
    cdef bint has_news          # somebody has failed, or come back
    cdef uint16_t pick(self, Group *group, uint64_t key, int64_t now_ms) noexcept nogil
    cdef uint16_t pick_for_key(self, Group *group, uint64_t key, int64_t now_ms, bint desperate) noexcept nogil
    cdef bint would_place(self, Group *group, uint64_t key, int64_t now_ms) noexcept nogil
    cdef bint may_retry(self, Group *group) noexcept nogil
    cdef void earn(self, Group *group) noexcept nogil
    cdef void refill(self) noexcept nogil
    cdef void failed(self, uint16_t server, int64_t now_ms, int reason) noexcept nogil
    cdef void faulted(self, uint16_t server, int64_t now_ms) noexcept nogil
    cdef void connected(self, uint16_t server, int64_t now_ms) noexcept nogil
    cdef bint is_up(self, Group *group, int64_t now_ms) noexcept nogil
    cdef Group *_group(self, int number) except NULL
    cdef int _check_servers(self, Group *group, dict wanted) except -1
    cdef int _slot_of(self, Group *group, address) except -2
    cdef bint _is_free(self, int slot) noexcept
    cdef int _take_slot(self, int number, address) except -1
    cdef uint16_t _pick_in_turn(self, Group *group, int64_t now_ms, bint desperate) noexcept nogil
    cdef uint16_t _pick_least(self, Group *group, int64_t now_ms, bint desperate) noexcept nogil
    cdef int _set_seconds(self, Group *group, seconds) except -1
    cdef bint _has_first(self, const Server *second, int64_t now_ms) noexcept nogil
    cdef bint _may_have(self, const Server *server, int64_t now_ms, bint desperate) noexcept nogil
    cdef int64_t _share(self, const Group *group, const Server *server, int64_t now_ms) noexcept nogil


cdef inline bint is_busy(const Group *group, const Server *server) noexcept nogil:
    """Whether it has as many requests as it may."""
    return group.connections_max != 0 and server.open_count - server.idle_count - server.kept_count >= group.connections_max
