# What a check can say, as C sees it. The numbers are those of `fastticket.errors.Verdict`.

cdef enum Verdict:
    HIT = 0
    MALFORMED = 1
    UNKNOWN_KEY = 2
    BAD_SIGNATURE = 3
    EXPIRED = 4
    IDLE = 5
    REVOKED = 6
    MISS = 7
    REFRESH = 8
    MISSING = 9
    AMBIGUOUS = 10
    STORE_UNAVAILABLE = 11
    UNKNOWN_SESSION = 12
    VERDICTS                    # how many there are
