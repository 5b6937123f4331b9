# What a check can say, as C sees it: `fastticket.errors.Verdict`, in its order, after HIT. The
# order gives the numbers, and tests/house/test_architecture.py holds the two together.

cdef enum Verdict:
    HIT = 0
    MALFORMED
    UNKNOWN_KEY
    BAD_SIGNATURE
    EXPIRED
    IDLE
    REVOKED
    MISS
    REFRESH
    MISSING
    AMBIGUOUS
    STORE_UNAVAILABLE
    UNKNOWN_SESSION
    BAD_TOKEN
    OLD_STORE_UNAVAILABLE
    VERDICTS                    # how many there are, HIT included


cdef inline bint is_store_away(int verdict) noexcept nogil:
    """Whether nothing is known: the store that would know, ours or another system's, did not answer."""
    return verdict == Verdict.STORE_UNAVAILABLE or verdict == Verdict.OLD_STORE_UNAVAILABLE
