# The states of a connection, one enum for each side. states.pyx has the moves between them and a
# diagram; each move goes through `enter` (conn.pxd), which a debug build checks.

cpdef enum Downstream:
    NEW = 0                     # of both sides: just made
    IDLE = 1                    # between requests, nothing read
    AWAITING_PROXY_HEADER       # it has to come first
    READING_HEAD
    NEXT_HELD                   # answered; bytes of the next request were read with it
    ASKING                      # the control plane: is this ticket alive?
    QUEUED                      # all servers are busy: pending in its group
    CONNECTING                  # waits for the upstream connection
    EXCHANGING                  # request and response under way
    CHANGING                    # the control plane logs in or out, or rotates; the response waits
    FLUSHING                    # the last answer is on its way
    LINGERING                   # no more is sent; read until the client has seen it
    TUNNELLING


cpdef enum Upstream:
    OPENING = 16                # connect() is under way
    AWAITING_HEAD
    RELAYING
    POOLED                      # idle, for any client
    KEPT                        # idle, for one client alone
    TUNNELLED


cdef enum:
    STATES = 32


cdef extern from *:
    """
    #ifdef FASTTICKET_DEBUG
    #define FASTTICKET_CHECKS_MOVES 1
    #else
    #define FASTTICKET_CHECKS_MOVES 0
    #endif
    """
    bint CHECKS_MOVES "FASTTICKET_CHECKS_MOVES"


cdef void check_move(int before, int after) noexcept nogil
