from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastticket.dataplane.octets cimport little_endian

cdef enum:
    NAME_BYTES_MAX = 47         # of a name that has a meaning
    NAME_TABLE = 128            # places of the hash table
    # Chosen so that neither the names in the table nor fifty that browsers and servers send share
    # a place.
    SIZE_FACTOR = 21
    FIRST_FACTOR = 26
    LAST_FACTOR = 5


cpdef enum Kind:
    # What a field means to the gateway, by its name. Which names: KNOWN, and `Names`.
    OTHER = 0
    DROP                        # a known name in an odd spelling, or one that is never forwarded
    HOST
    CONTENT_LENGTH
    TRANSFER_ENCODING
    CONNECTION
    HOP                         # hop-by-hop (RFC 9110, 7.6.1), and what must not pass a gateway
    UPGRADE
    EXPECT
    COOKIE
    AUTHORIZATION
    ACCEPT
    WEBSOCKET_KEY
    TRUSTED_ONLY                # what only a trusted proxy may say
    FORWARDED_FOR
    FORWARDED_PROTO
    FORWARDED_HOST
    IDENTITY                    # only the gateway sets it in a request
    TICKET_LOGIN
    TICKET_LOGOUT
    TICKET_REMEMBER
    TICKET_ROTATE
    FORWARDED                   # the field Forwarded (RFC 7239)
    REQUEST_ID
    NO_USE                      # the client says that the request is no use of its session
    LIFETIME                    # the client asks how long its session lives, and the answer
    KEEP_ALIVE                  # hop-by-hop, too
    TOKEN_CODE                  # of a program that comes without a session
    TOKEN_USER
    AUTHENTICATE                # WWW-Authenticate. From here on: goes upstream
    SET_COOKIE
    TOKEN_CODE_SHOWN            # as TOKEN_CODE, where applications are to see it
    TOKEN_USER_SHOWN


cdef struct Name:
    uint8_t kind
    uint8_t[NAME_BYTES_MAX + 1] text    # in normal spelling, then zeros; a whole number of words


cdef class Names:
    cdef uint8_t[NAME_TABLE] sizes      # of the name at each place; 0: it is free
    cdef Name[NAME_TABLE] table
    cdef int count
    cdef Kind kind_of(self, const uint8_t *name, uint32_t size) noexcept nogil


cdef bint reads_as(const uint8_t *name, uint32_t name_size, const uint8_t *other, uint32_t other_size) noexcept nogil


# The search is here and not in the module: it is on the hot path, and inlined where heads are read.
# `normal` is the caller's table of `fill_tokens`; a name is a token, and not empty.

cdef inline uint32_t first_place(uint8_t first, uint8_t last, uint32_t size) noexcept nogil:
    """Where the search for a name begins, by the ends of its normal spelling and its size."""
    return (size * SIZE_FACTOR + first * FIRST_FACTOR + last * LAST_FACTOR) % NAME_TABLE


cdef inline Kind find_kind(Names names, const uint8_t *normal, const uint8_t *name, uint32_t size) noexcept nogil:
    """What a field of that name means, whatever its spelling."""
    cdef uint32_t place = first_place(normal[name[0]], normal[name[size - 1]], size)
    while names.sizes[place]:
        if names.sizes[place] == size and is_spelled(normal, name, names.table[place].text, size):
            return <Kind>names.table[place].kind
        place = (place + 1) % NAME_TABLE
    return Kind.OTHER


cdef inline Kind find_kind_by_words(Names names, const uint8_t *name, uint32_t size) noexcept nogil:
    """As `find_kind`, for a name of letters and `-` only, in whatever case: then a name's normal
    spelling is its lower case, and it is compared 8 octets at a time. The octets after it can be
    read up to a whole number of words.
    """
    cdef uint32_t place = first_place(name[0] | 0x20, name[size - 1] | 0x20, size)
    while names.sizes[place]:
        if names.sizes[place] == size and _is_spelled_by_words(name, names.table[place].text, size):
            return <Kind>names.table[place].kind
        place = (place + 1) % NAME_TABLE
    return Kind.OTHER


cdef inline bint _is_spelled_by_words(const uint8_t *name, const uint8_t *text, uint32_t size) noexcept nogil:
    cdef uint64_t lower_case = 0x2020202020202020ULL          # `-` has that bit already
    while size > 8:
        if little_endian(name) | lower_case != little_endian(text):
            return False
        name += 8
        text += 8
        size -= 8
    return ((little_endian(name) | lower_case) ^ little_endian(text)) << (64 - 8 * size) == 0


cdef inline bint is_spelled(const uint8_t *normal, const uint8_t *name, const uint8_t *text, uint32_t size) noexcept nogil:
    """Whether the normal spelling of a name is that text of the same size."""
    cdef uint32_t i
    for i in range(size):
        if normal[name[i]] != text[i]:
            return False
    return True


cdef inline bint is_odd(const uint8_t *normal, const uint8_t *name, uint32_t size) noexcept nogil:
    """Whether a name has other characters than letters, digits and `-`."""
    cdef uint32_t i
    for i in range(size):
        if normal[name[i]] == c'-' and name[i] != c'-':
            return True
    return False
