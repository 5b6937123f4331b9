# What the data plane asks the control plane. asks.pyx has the record that Python gets.

from libc.stdint cimport uint8_t, uint32_t

from fastticket.dataplane.octets cimport Span

cpdef enum AskKind:
    AUTHENTICATE = 0
    AUTHENTICATE_STRONG
    AUTHENTICATE_LATEST         # for a client that asks how long its session still lives
    EXEMPTION
    STILL_ALIVE
    SEVERAL                     # tickets: which cookies to clear
    LOGIN                       # from here on: a response waits
    LOGIN_REMEMBERED
    LOGOUT
    LOGOUT_EVERYWHERE
    ROTATE


cdef struct Question:
    uint32_t index
    uint32_t generation
    uint32_t number             # of the connection's
    uint8_t kind                # of AskKind
    Span value                  # in the upstream connection's `held`
