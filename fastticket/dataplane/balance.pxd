from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.core.lock cimport Lock, acquire, release
from fastticket.dataplane.sockets cimport sockaddr_storage, socklen_t

cdef enum:
    SERVERS_MAX = 1024
    GROUPS_LIMIT = 64
    GROUP_SERVERS_LIMIT = 256
    WEIGHT_LIMIT = 1000
    PLANES_LIMIT = 64
    FAULTS_NOTED_MAX = 16
    FAULTY = -1                 # in place of an errno: it took requests and gave no proper answer


cdef enum Choice:               # what `take` says beside a server's number
    NOBODY = 0xFFFF             # all that could have the request are busy: it waits
    NO_SERVERS = 0xFFFE         # their names have no address yet
    NO_MORE = 0xFFFD            # it was tried often enough


cdef enum Queued:               # what `enqueue` says
    QUEUE_IS_FULL = 0
    WAITS
    HAS_ROOM                    # there is room by now


cdef enum Returned:             # what `give_back` says
    IS_GONE = 1                 # the server has left its group
    IS_ROOM_HERE = 2            # for a request of this plane that waits


cdef enum Place:                # whether a request that waits would find a server
    NO_PLACE = 0
    ONE_PLACE                   # and then it is another plane's turn
    A_PLACE


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


cdef struct Bell:               # what wakes a plane
    int fd                      # an eventfd; -1: never made
    bint is_taken               # by a plane
    uint64_t freed              # groups in which there may be room for requests of this plane
    uint32_t is_changed         # servers were replaced since it looked


cdef struct Noted:              # what an operator is to be told of a server
    uint16_t server
    const char *what


cdef class Upstreams:
    cdef Lock lock
    cdef bint is_shared         # with another thread
    cdef Server *servers
    cdef Group *groups
    cdef list names             # of each slot: its server, as it was configured
    cdef readonly int group_count
    cdef bint has_news          # a server failed or came back since the last `news`
    cdef int64_t refilled_ms
    cdef Bell[PLANES_LIMIT] bells
    cdef Noted[FAULTS_NOTED_MAX] noted
    cdef uint32_t noted_count
    cdef uint32_t noted_more            # for which there was no room

    cdef inline void hold(self) noexcept nogil:
        if self.is_shared:
            acquire(&self.lock)

    cdef inline void let_go(self) noexcept nogil:
        if self.is_shared:
            release(&self.lock)

    # of planes
    cdef int join(self, bint in_thread) except -1
    cdef void quit(self, int plane) noexcept
    cdef void ring(self, int plane, uint64_t groups) noexcept nogil
    # of requests
    cdef uint16_t take(self, int group, uint64_t key, uint32_t attempts, int plane, int64_t now_ms) noexcept nogil
    cdef Choice take_kept(self, uint16_t server, int plane) noexcept nogil
    cdef bint is_kept_busy(self, uint16_t server) noexcept nogil
    cdef int give_back(self, uint16_t server, bint is_closed, int plane) noexcept nogil
    cdef Queued enqueue(self, int group, uint64_t key, uint16_t kept, int plane, int64_t now_ms) noexcept nogil
    cdef void dequeue(self, int group) noexcept nogil
    cdef Place place_for(self, int group, uint64_t key, int plane, int64_t now_ms) noexcept nogil
    cdef void pass_turn(self, int group, int plane, bint has_more, bint has_placed, int64_t now_ms) noexcept nogil
    # of connections and answers
    cdef void opened(self, uint16_t server) noexcept nogil
    cdef void closed(self, uint16_t server) noexcept nogil
    cdef bint is_gone(self, uint16_t server) noexcept nogil
    cdef void connected(self, uint16_t server, int64_t now_ms) noexcept nogil
    cdef void failed(self, uint16_t server, int64_t now_ms, int reason) noexcept nogil
    cdef void faulted(self, uint16_t server, int64_t now_ms) noexcept nogil
    cdef void answered(self, uint16_t server) noexcept nogil
    cdef void note(self, uint16_t server, const char *what) noexcept nogil
    cdef void refill(self, int64_t now_ms) noexcept nogil
    # under the lock
    cdef uint16_t pick(self, Group *group, uint64_t key, int64_t now_ms) noexcept nogil
    cdef uint16_t _pick_for_key(self, Group *group, uint64_t key, int64_t now_ms, bint down_too) noexcept nogil
    cdef bint _would_place(self, Group *group, uint64_t key, int64_t now_ms) noexcept nogil
    cdef bint _may_retry(self, Group *group) noexcept nogil
    cdef void _add_retry_credit(self, Group *group) noexcept nogil
    cdef void _failed(self, uint16_t server, int64_t now_ms, int reason) noexcept nogil
    cdef bint _is_up(self, Group *group, int64_t now_ms) noexcept nogil
    cdef uint16_t _pick_in_turn(self, Group *group, int64_t now_ms, bint down_too) noexcept nogil
    cdef uint16_t _pick_least(self, Group *group, int64_t now_ms, bint down_too) noexcept nogil
    cdef bint _has_first(self, const Server *second, int64_t now_ms) noexcept nogil
    cdef bint _may_have(self, const Server *server, int64_t now_ms, bint down_too) noexcept nogil
    cdef int64_t _share(self, const Group *group, const Server *server, int64_t now_ms) noexcept nogil
    # of the control plane
    cdef Group *_group(self, int number) except NULL
    cdef int _check_servers(self, Group *group, dict wanted) except -1
    cdef int _slot_of(self, Group *group, address) except -2
    cdef bint _is_free(self, int slot) noexcept nogil
    cdef int _free_count(self) noexcept nogil
    cdef int _take_slot(self, int number, address) except -1
    cdef int _set_seconds(self, Group *group, seconds) except -1


cdef uint64_t ticket_key(const uint8_t *raw, int size) noexcept nogil


cdef inline bint is_busy(const Group *group, const Server *server) noexcept nogil:
    """Whether a server has as many requests under way as its group allows. Under the lock."""
    return group.connections_max != 0 and server.active_count >= group.connections_max
