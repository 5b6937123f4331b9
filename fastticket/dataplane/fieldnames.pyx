# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Which field names mean something to the gateway.

A name is looked up by its *normal spelling*: lower case, and `-` for every character that is
neither letter nor digit. CGI and its descendants do the same, so a service could take
`X_Forwarded_User` for `X-Forwarded-User`. A name that has a meaning, in any other spelling than its
own, is DROP: it is not forwarded.
"""

cimport cython
from libc.string cimport memcpy

from fastticket.dataplane.octets cimport fill_tokens

cdef uint8_t[256] NORMAL        # the normal spelling of an octet, or 0: no token has it

fill_tokens(NORMAL)

KNOWN = {
    "host": Kind.HOST,
    "content-length": Kind.CONTENT_LENGTH,
    "transfer-encoding": Kind.TRANSFER_ENCODING,
    "connection": Kind.CONNECTION,
    "keep-alive": Kind.KEEP_ALIVE,
    "proxy-connection": Kind.HOP,
    "proxy-authorization": Kind.HOP,
    "proxy-authenticate": Kind.HOP,
    "proxy": Kind.HOP,                      # CGI turns it into HTTP_PROXY
    "x-original-url": Kind.HOP,             # some frameworks take the path from here, and we have judged another one
    "x-rewrite-url": Kind.HOP,
    "te": Kind.HOP,
    "trailer": Kind.HOP,
    "upgrade": Kind.UPGRADE,
    "expect": Kind.EXPECT,
    "cookie": Kind.COOKIE,
    "authorization": Kind.AUTHORIZATION,
    "www-authenticate": Kind.AUTHENTICATE,
    "set-cookie": Kind.SET_COOKIE,
    "accept": Kind.ACCEPT,
    "sec-websocket-key": Kind.WEBSOCKET_KEY,
    "forwarded": Kind.FORWARDED,
    "x-forwarded-port": Kind.TRUSTED_ONLY,
    "x-forwarded-prefix": Kind.TRUSTED_ONLY,
    "x-forwarded-scheme": Kind.TRUSTED_ONLY,
    "x-forwarded-server": Kind.TRUSTED_ONLY,
    "x-forwarded-ssl": Kind.TRUSTED_ONLY,
    "x-client-ip": Kind.TRUSTED_ONLY,
    "x-real-ip": Kind.TRUSTED_ONLY,
    "true-client-ip": Kind.TRUSTED_ONLY,
    "x-forwarded-for": Kind.FORWARDED_FOR,
    "x-forwarded-proto": Kind.FORWARDED_PROTO,
    "x-forwarded-host": Kind.FORWARDED_HOST,
    "x-ticket-login": Kind.TICKET_LOGIN,
    "x-ticket-logout": Kind.TICKET_LOGOUT,
    "x-ticket-remember": Kind.TICKET_REMEMBER,
    "x-ticket-rotate": Kind.TICKET_ROTATE,
}

# How a program names its token and its user.
_TOKEN_FIELDS = {
    "withheld": {"token-code": Kind.TOKEN_CODE, "token-user": Kind.TOKEN_USER},
    "shown": {"token-code": Kind.TOKEN_CODE_SHOWN, "token-user": Kind.TOKEN_USER_SHOWN},
}
_WITHHELD_TOKENS = tuple(_TOKEN_FIELDS["withheld"].values())


@cython.final
cdef class Names:
    """An open hash table of names, in normal spelling, and what each means."""

    def __cinit__(self, identity=(), request_id="", *, no_use="", lifetime="", dropped=(), tokens=""):
        for name, kind in KNOWN.items():
            self._add(name, kind)
        for name, kind in _TOKEN_FIELDS.get(tokens, {}).items():
            self._add(name, kind)
        for name in identity:
            self._add(name, Kind.IDENTITY)
        for name, kind in ((request_id, Kind.REQUEST_ID), (no_use, Kind.NO_USE), (lifetime, Kind.LIFETIME)):
            if name:
                self._add(name, kind)
        for name in dropped:
            self._add(name, Kind.DROP)

    def _add(self, name, kind):
        cdef bytes normal = bytes(NORMAL[c] for c in name.encode("ascii"))
        cdef uint32_t place
        if not 0 < len(normal) <= NAME_BYTES_MAX or 0 in normal or self.count >= NAME_TABLE // 2:
            raise ValueError(f"not a field name of at most {NAME_BYTES_MAX} bytes, or too many of them: {name!r}")
        place = first_place(<uint8_t>normal[0], <uint8_t>normal[len(normal) - 1], <uint32_t>len(normal))
        while self.sizes[place]:
            if bytes(self.table[place].text[:self.sizes[place]]) == normal:
                if kind == Kind.IDENTITY and self.table[place].kind in _WITHHELD_TOKENS:
                    return                      # read as a token, and as little forwarded as an identity
                raise ValueError(f"the field {name!r} has a meaning of its own")
            place = (place + 1) % NAME_TABLE
        self.sizes[place] = <uint8_t>len(normal)
        self.table[place].kind = kind
        memcpy(self.table[place].text, <const char *>normal, len(normal))
        self.count += 1

    cdef Kind kind_of(self, const uint8_t *name, uint32_t size) noexcept nogil:
        """What a field of that name means, whatever its spelling. The name is a token, not empty.
        """
        return find_kind(self, NORMAL, name, size)


cdef bint reads_as(const uint8_t *name, uint32_t name_size, const uint8_t *other, uint32_t other_size) noexcept nogil:
    """Whether two names have one normal spelling."""
    cdef uint32_t i
    if name_size != other_size:
        return False
    for i in range(name_size):
        if NORMAL[name[i]] != NORMAL[other[i]]:
            return False
    return True
