from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.dataplane.sockets cimport sockaddr_storage, socklen_t

cdef enum:
    SERVERS_MAX = 1024
    GROUPS_LIMIT = 64
    GROUP_SERVERS_LIMIT = 256
    WEIGHT_LIMIT = 1000
    NOBODY = 0xFFFF             # no server
    NO_CONN = 0xFFFFFFFF
    FAULTY = -1                 # in place of an errno: it took requests and gave no proper answer


cdef enum Balance:
    ROUND_ROBIN = 0
    LEAST_CONNECTIONS
    IP_HASH
    TICKET_HASH


cdef struct Server:
    sockaddr_storage address
    socklen_t address_size
    bint is_taken               # the slot is in use
    bint is_retired             # left its group; the slot is free when its last connection has ended
    bint is_sick                # a health check failed last
    bint is_second              # an address of a second family: used while no first one of its name is up
    uint16_t name               # number of the name that it is an address of; 0: the name has one family
    uint16_t group
    uint32_t weight
    uint64_t key                # its hash for rendezvous hashing, the same on every gateway
    int64_t score               # of smooth weighted round robin
    uint32_t open_count         # connections, idle ones included
    uint32_t idle_count         # connections in the pool
    uint32_t kept_count         # idle connections outside the pool, each reserved for one client
    uint32_t idle_first         # the pool: the connection used last, which links to the others
    uint32_t failures           # in a row; each pauses the server
    uint32_t faults             # bad answers in a row
    int reason                  # of the last failure: an errno, or FAULTY
    bint is_said_down           # the last `news` said that it is down
    int64_t down_until_ms
    int64_t returned_ms         # when it came back; 0: it never went


cdef struct Group:
    uint16_t[GROUP_SERVERS_LIMIT] members
    uint16_t count
    uint16_t following          # the member at which least-connections begins
    Balance balance
    uint32_t connections_max    # requests under way at one server; 0: no limit
    uint32_t pending_max        # requests that wait for a server
    int64_t slow_return_ms
    int32_t retry_percent
    int32_t credit              # for retries, in hundredths of one
    uint32_t pending_first      # the queue of downstream connections that wait, linked
    uint32_t pending_last
    uint32_t pending_count


cdef class Upstreams:
    cdef Server *servers
    cdef Group *groups
    cdef list names             # of each slot: its server, as it was configured
    cdef readonly int group_count
    cdef bint has_news          # a server failed or came back since the last `news`
    cdef uint16_t pick(self, Group *group, uint64_t key, int64_t now_ms) noexcept nogil
    cdef uint16_t pick_for_key(self, Group *group, uint64_t key, int64_t now_ms, bint down_too) noexcept nogil
    cdef bint would_place(self, Group *group, uint64_t key, int64_t now_ms) noexcept nogil
    cdef bint may_retry(self, Group *group) noexcept nogil
    cdef void add_retry_credit(self, Group *group) noexcept nogil
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
    cdef uint16_t _pick_in_turn(self, Group *group, int64_t now_ms, bint down_too) noexcept nogil
    cdef uint16_t _pick_least(self, Group *group, int64_t now_ms, bint down_too) noexcept nogil
    cdef int _set_seconds(self, Group *group, seconds) except -1
    cdef bint _has_first(self, const Server *second, int64_t now_ms) noexcept nogil
    cdef bint _may_have(self, const Server *server, int64_t now_ms, bint down_too) noexcept nogil
    cdef int64_t _share(self, const Group *group, const Server *server, int64_t now_ms) noexcept nogil


cdef inline bint is_busy(const Group *group, const Server *server) noexcept nogil:
    """Whether a server has as many requests under way as its group allows."""
    return group.connections_max != 0 and server.open_count - server.idle_count - server.kept_count >= group.connections_max
