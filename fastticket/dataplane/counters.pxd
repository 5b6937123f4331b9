# What the data plane counts. This struct is the list: `read_counters` gives its names, counters.pyx
# says under which metric each is published, and reasons.pyx which answer adds to which.

from libc.stdint cimport int64_t, uint64_t

from fastticket.core.compiler cimport __builtin_clzll
from fastticket.core.verdict cimport VERDICTS

cdef enum:
    LATENCY_BUCKETS = 15        # 0.5 ms to 10 s, and the rest: BOUNDS_US
    ANSWER_CLASSES = 6

cdef extern from *:
    """
    /* A bucket has what took no longer than its bound. Between two powers of two lies one bound at most:
       so the number of bits says which bound comes first, and one compare says on which side of it. */
    static const int64_t fastticket_bounds_us[15] = {
        500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000,
        INT64_MAX};
    static const unsigned char fastticket_first_bound[65] = {
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11, 12, 13, 14, 14, 14, 14, 14, 14, 14, 14,
        14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14,
        14, 14, 14, 14};
    """
    const int64_t *BOUNDS_US "fastticket_bounds_us"             # of each bucket; the last has none
    const unsigned char *FIRST_BOUND "fastticket_first_bound"   # by the number of bits


cdef struct Counters:
    uint64_t accepted
    uint64_t over_client_limit
    uint64_t proxy_headers_refused      # connections closed for want of a PROXY header that counts
    uint64_t requests
    uint64_t admitted
    uint64_t anonymous                  # passed on without a ticket
    uint64_t responses
    uint64_t bad_requests
    uint64_t upstream_connects
    uint64_t upstream_errors
    uint64_t upstream_timeouts
    uint64_t retries
    uint64_t queue_full
    uint64_t timeouts
    uint64_t tunnels
    uint64_t cut                        # streams and tunnels, because their session was over
    uint64_t cut_short                  # requests whose answer did not get through
    uint64_t forged                     # tickets under a key of ours, with a signature that is not
    uint64_t full                       # times that connections_max were there, and others had to wait
    uint64_t out_of_descriptors         # times that there was none for a connection
    uint64_t cookies_dropped            # of the ticket's name, that an upstream had no right to set
    uint64_t[VERDICTS] refused          # by verdict
    uint64_t[ANSWER_CLASSES] answers    # by the first digit of their status
    uint64_t[LATENCY_BUCKETS] latency
    uint64_t latency_us_sum


cdef struct UpstreamCounters:           # of one upstream, by one plane
    uint64_t[ANSWER_CLASSES] answers    # by the first digit of their status
    uint64_t[LATENCY_BUCKETS] latency   # from the request's last attempt to the head of its response
    uint64_t latency_us_sum


cdef inline void count_one(Counters *counters, int number) noexcept nogil:
    """One more of the number at that place of the struct, as `NUMBERS` has it."""
    (<uint64_t *>counters)[number] += 1


cdef inline int bucket_of(int64_t took_us) noexcept nogil:
    """Of a time of 1 µs or more."""
    cdef int first = FIRST_BOUND[64 - __builtin_clzll(<unsigned long long>took_us)]
    return first + (took_us > BOUNDS_US[first])


cdef dict read_upstream(const UpstreamCounters *counters)
