# What the data plane and the control plane say to each other. asks.pyx has the record that Python
# gets of a question.
#
# A message is a struct with its texts behind it, one after the other, in the order of its sizes.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastticket.dataplane.octets cimport Span
from fastticket.dataplane.routes cimport Text

cpdef enum AskKind:
    AUTHENTICATE = 0
    AUTHENTICATE_STRONG
    AUTHENTICATE_LATEST         # for a client that asks how long its session still lives
    EXEMPTION
    STILL_ALIVE
    SEVERAL                     # tickets: which cookies to clear
    EXCHANGE                    # another system's cookie for a ticket
    TOKEN                       # of a program, without a session
    MINT                        # what the upstream wants beside the identity
    LOGIN                       # from here on: a response waits
    LOGIN_REMEMBERED
    LOGOUT
    LOGOUT_EVERYWHERE
    ROTATE
    SUPERSEDED                  # the upstream sets another system's cookie, in which the session may have begun


cdef struct Question:           # while it waits to be written down
    uint32_t index
    uint32_t generation
    uint32_t number             # of the connection's
    uint8_t kind                # of AskKind
    Span value                  # in the upstream connection's `held`


cdef enum:
    RELEASED = 64               # beside AskKind: a client that was let go of; its address is `path`


cdef struct Asked:              # to the control plane
    uint32_t kind               # of AskKind, or RELEASED
    uint32_t number
    uint64_t handle             # of the connection
    int fd                      # RELEASED: the descriptor
    uint16_t route
    uint16_t server             # whose response waits
    bint is_use
    bint is_https
    bint is_believed
    bint has_agent
    uint32_t tickets_size
    uint32_t path_size
    uint32_t cookies_size
    uint32_t principal_size
    uint32_t address_size
    uint32_t agent_size
    uint32_t host_size
    uint32_t trace_size


cdef enum Order:                # what a plane is told
    ADMIT = 0
    REFUSE                      # `value`: the verdict
    DOUBT                       # `first`: field lines, `second`: tickets
    EXCHANGED                   # `first`: the raw ticket, `second`: field lines
    MINTED                      # `first`: the other system's ticket
    EXEMPT                      # `value`: whether it is
    VOUCH                       # `value`: whether it lives
    READMIT                     # `first`: the raw ticket
    RELAY                       # `first`: field lines
    FAIL                        # `value`: the status, `first`: the slug, ended by NUL
    LISTEN                      # `value`: a descriptor, which is the plane's
    LEAVE                       # `value`: whether it does
    STOP_ACCEPTING
    DRAIN
    PART                        # `value`: how many at most
    RELEASE                     # the same
    ADOPT                       # `value`: a descriptor, `first`: the address; IS_BELIEVED, IS_LAST


cdef enum:                      # flags of ADOPT
    IS_BELIEVED = 1
    IS_LAST = 2


cdef struct Told:               # to a plane
    uint32_t order              # of Order
    uint32_t number             # of the question that is answered
    uint64_t handle
    int64_t value
    uint64_t flags              # of ADOPT; of an answer: when it was given, store time
    Text first                  # behind it in a ring
    Text second
