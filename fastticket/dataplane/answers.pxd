# What the data plane's own answers say: reason phrases, and the slugs of refusals.

from fastticket.core.verdict cimport Verdict


cdef inline const char *phrase_of(int status) noexcept nogil:
    if status == 302:
        return b"Found"
    if status == 400:
        return b"Bad Request"
    if status == 401:
        return b"Unauthorized"
    if status == 403:
        return b"Forbidden"
    if status == 404:
        return b"Not Found"
    if status == 405:
        return b"Method Not Allowed"
    if status == 408:
        return b"Request Timeout"
    if status == 409:
        return b"Conflict"
    if status == 414:
        return b"URI Too Long"
    if status == 417:
        return b"Expectation Failed"
    if status == 431:
        return b"Request Header Fields Too Large"
    if status == 501:
        return b"Not Implemented"
    if status == 502:
        return b"Bad Gateway"
    if status == 503:
        return b"Service Unavailable"
    if status == 504:
        return b"Gateway Timeout"
    if status == 505:
        return b"HTTP Version Not Supported"
    return b"Error"


cdef inline const char *slug_of(int verdict) noexcept nogil:
    if verdict == Verdict.MALFORMED:
        return b"malformed"
    if verdict == Verdict.UNKNOWN_KEY:
        return b"unknown_key"
    if verdict == Verdict.BAD_SIGNATURE:
        return b"bad_signature"
    if verdict == Verdict.EXPIRED:
        return b"expired"
    if verdict == Verdict.IDLE:
        return b"idle"
    if verdict == Verdict.REVOKED:
        return b"revoked"
    if verdict == Verdict.UNKNOWN_SESSION:
        return b"unknown_session"
    if verdict == Verdict.MISSING:
        return b"missing"
    if verdict == Verdict.AMBIGUOUS:
        return b"ambiguous"
    return b"store_unavailable"
