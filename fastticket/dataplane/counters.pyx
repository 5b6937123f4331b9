# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""The data plane's counters: numbers written in place, into memory that another process may read.

The struct `Counters` (counters.pxd) is the one list of them. METRICS says what `/metrics` calls
each; those that it lacks are parts of a metric with labels (gateway/metrics.py).

One plane writes a page, with plain stores; others read it word by word while it does, without a
lock. So what is read is of no single moment, but each number is one that was there.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    """
    /* ThreadSanitizer is not to look: the writer's stores are plain, of aligned words. */
    __attribute__((no_sanitize("thread")))
    static void fastticket_read_words(uint64_t *to, const uint64_t *from, size_t count) {
        for (size_t i = 0; i < count; i++) to[i] = ((const volatile uint64_t *)from)[i];
    }
    """
    void read_words "fastticket_read_words"(uint64_t *to, const uint64_t *words, size_t count)

from fastticket.errors import Verdict

COUNTERS_BYTES = sizeof(Counters)

METRICS = {
    "accepted": ("connections_accepted", "Client connections."),
    "over_client_limit": ("connections_refused", "Client connections beyond connections_per_client_max."),
    "proxy_headers_refused": ("proxy_headers_refused", "Connections without a PROXY header that counts, closed."),
    "requests": ("requests_received", "Request heads that could be read."),
    "responses": ("upstream_responses", "Responses passed on from upstream servers."),
    "upstream_connects": ("upstream_connections", "Connections made to upstream servers."),
    "upstream_errors": ("upstream_errors", "Connections to upstream servers that failed."),
    "upstream_timeouts": ("upstream_timeouts", "Upstream servers that took too long."),
    "retries": ("upstream_retries", "Requests sent again, on another connection."),
    "queue_full": ("upstream_queue_full", "Requests refused because pending_max were waiting."),
    "timeouts": ("client_timeouts", "Clients that took too long."),
    "tunnels": ("tunnels", "WebSockets and others that were opened."),
    "cut": ("sessions_cut", "Tunnels and streams that ended with their session."),
    "forged": ("tickets_forged", "Tickets under a key of the ring whose signature is not that key's."),
    "full": ("connections_full", "Times that connections_max clients were connected, and others had to wait."),
    "out_of_descriptors": ("descriptor_shortages", "Times that there was no file descriptor for a connection."),
    "cookies_dropped": ("ticket_cookies_dropped", "Cookies of the ticket's name that an upstream had no right to set."),
    "cut_short": ("responses_cut_short", "Requests whose answer did not get through to its end."),
}


cdef dict _numbers():
    """The place of each number in the struct; of an array, those of all its elements."""
    cdef Counters places
    cdef size_t i
    for i in range(sizeof(Counters) // sizeof(uint64_t)):
        (<uint64_t *>&places)[i] = i
    return places


NUMBERS = _numbers()


def read_counters(page):
    """What a data plane writes into its page, from whatever process."""
    cdef Counters counters
    cdef Py_buffer memory
    PyObject_GetBuffer(page, &memory, PyBUF_SIMPLE)
    try:
        if memory.len < <Py_ssize_t>COUNTERS_BYTES:
            raise ValueError(f"counters have {COUNTERS_BYTES} bytes, not {memory.len}")
        read_words(<uint64_t *>&counters, <const uint64_t *>memory.buf, sizeof(Counters) // sizeof(uint64_t))
    finally:
        PyBuffer_Release(&memory)
    found = dict(counters)
    refused = found["refused"]
    found["refused"] = {verdict.reason: refused[verdict.value] for verdict in Verdict if refused[verdict.value]}
    found["answers"] = _by_class(found["answers"])
    found["latency_us"] = _by_bound(found.pop("latency"))
    return found


cdef dict read_upstream(const UpstreamCounters *counters):
    """What this process's plane has counted of an upstream, from whatever thread."""
    cdef UpstreamCounters copy
    read_words(<uint64_t *>&copy, <const uint64_t *>counters, sizeof(UpstreamCounters) // sizeof(uint64_t))
    return {
        "answers": _by_class(copy.answers),
        "latency_us": _by_bound(copy.latency),
        "latency_us_sum": copy.latency_us_sum,
    }


cdef dict _by_class(list answers):
    return {f"{i}xx": answers[i] for i in range(1, ANSWER_CLASSES)}


cdef list _by_bound(list latency):
    cdef int last = LATENCY_BUCKETS - 1
    return [(None if i == last else BOUNDS_US[i], latency[i]) for i in range(LATENCY_BUCKETS)]


def bucket_number(int64_t took_us):
    """In which bucket the planes count a time."""
    return bucket_of(took_us)
