# Which of a group's servers a request goes to, and what is known of servers and groups.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.dataplane.sockets cimport sockaddr_storage, socklen_t

cdef enum:
    GROUP_SERVERS_LIMIT = 256


cdef enum Choice:               # what `take` says beside a server's number
    NOBODY = 0xFFFF             # all that could have the request are busy: it waits
    NO_SERVERS = 0xFFFE         # their names have no address yet
    NO_MORE = 0xFFFD            # it was tried often enough


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
    uint32_t active_count       # requests under way, those whose connection is being made included
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
    uint32_t pending_count      # requests that wait, in the queues of all planes
    uint64_t waiting            # a bit for each plane that has some
    uint8_t turn                # the one of them that gets the next room
    uint8_t asked_left          # planes that are to be woken yet, one after the other, for the room there is


cdef uint16_t pick(Server *servers, Group *group, uint64_t key, int64_t now_ms) noexcept nogil
cdef bint would_place(const Server *servers, const Group *group, uint64_t key, int64_t now_ms) noexcept nogil
cdef uint16_t pick_for_key(
    const Server *servers, const Group *group, uint64_t key, int64_t now_ms, bint down_too) noexcept nogil
cdef bint has_first(const Server *servers, const Group *group, const Server *second, int64_t now_ms) noexcept nogil
cdef uint64_t ticket_key(const uint8_t *raw, int size) noexcept nogil


cdef inline bint is_busy(const Group *group, const Server *server) noexcept nogil:
    """Whether a server has as many requests under way as its group allows."""
    return group.connections_max != 0 and server.active_count >= group.connections_max
