# What the data plane counts. This struct is the list: `read_counters` gives its names, counters.pyx
# says under which metric each is published, and reasons.pyx which answer adds to which.

from libc.stdint cimport uint64_t

from fastticket.core.verdict cimport VERDICTS

cdef enum:
    LATENCY_BUCKETS = 28        # bucket i: less than 2**i µs; the last one has the rest
    ANSWER_CLASSES = 6


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


cdef inline void count_one(Counters *counters, int number) noexcept nogil:
    """One more of the number at that place of the struct, as `NUMBERS` has it."""
    (<uint64_t *>counters)[number] += 1
