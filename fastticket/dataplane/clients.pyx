# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Client addresses, sans-I/O: as text and bytes, trusted networks, the PROXY header, connections
counted by address.

Rules of this file
- An address is 16 bytes. IPv4 is mapped into IPv6 (::ffff:a.b.c.d), so that one client has one
  address on either socket.
- A client can forge addresses in fields and headers. The caller asks `Networks` whether the peer is
  trusted before it believes them.
- The PROXY header (haproxy's proxy-protocol.txt, versions 1 and 2) is read strictly: what is not
  exactly one is refused. Of what a balancer adds after the addresses (TLVs) only the size is read.
"""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy, memset

from fastticket.core.mixing cimport mix
from fastticket.dataplane.octets cimport INCOMPLETE
from fastticket.dataplane.sockets cimport AF_INET, AF_INET6, inet_ntop, inet_pton

import os

cdef enum:
    V1_BYTES_MAX = 107          # with CRLF
    V2_HEAD_BYTES = 16
    MAPPED_BITS = 96
    V6_SITE_BYTES = 8           # of IPv6, a subscriber has a /64

cdef const char *MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"
cdef const char *V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


cdef bint is_v4(const uint8_t *address) noexcept nogil:
    """Whether an address is IPv4, mapped."""
    return memcmp(address, MAPPED, 12) == 0


cdef bint _read_numeric(const uint8_t *text, uint32_t size, uint8_t *address) noexcept nogil:
    """Read an address without port or brackets. False: the text is none."""
    cdef char[ADDRESS_TEXT_MAX] copy
    if size == 0 or size >= ADDRESS_TEXT_MAX or memchr(text, 0, size) != NULL:
        return False
    memcpy(copy, text, size)
    copy[size] = 0
    if memchr(text, c':', size) != NULL:
        return inet_pton(AF_INET6, copy, address) == 1
    memcpy(address, MAPPED, 12)
    return inet_pton(AF_INET, copy, address + 12) == 1


cdef bint read_address(const uint8_t *text, uint32_t size, uint8_t *address) noexcept nogil:
    """Read an element of X-Forwarded-For: v4, v4:port, v6, [v6], [v6]:port. False: the text is
    none of these.
    """
    cdef const uint8_t *end
    if size and text[0] == c'[':
        end = <const uint8_t *>memchr(text, c']', size)
        if end == NULL or not _is_port(end + 1, text + size):
            return False
        return memchr(text, c':', end - text) != NULL and _read_numeric(text + 1, <uint32_t>(end - text - 1), address)
    end = <const uint8_t *>memchr(text, c':', size)
    if end == NULL or memchr(end + 1, c':', text + size - end - 1) != NULL:
        return _read_numeric(text, size, address)
    return _is_port(end, text + size) and _read_numeric(text, <uint32_t>(end - text), address)


cdef bint _is_port(const uint8_t *at, const uint8_t *end) noexcept nogil:
    """Whether the rest of a text is empty, or `:` and 1 to 5 digits."""
    if at == end:
        return True
    if at[0] != c':' or end - at < 2 or end - at > 6:
        return False
    at += 1
    while at != end and c'0' <= at[0] <= c'9':
        at += 1
    return at == end


cdef int write_address(const uint8_t *address, char *text) noexcept nogil:
    """Write an address as text, with a NUL. Its length without that. `text` has room for
    ADDRESS_TEXT_MAX.
    """
    cdef int size = 0
    if is_v4(address):
        inet_ntop(AF_INET, address + 12, text, ADDRESS_TEXT_MAX)
    else:
        inet_ntop(AF_INET6, address, text, ADDRESS_TEXT_MAX)
    while text[size]:
        size += 1
    return size


# ----------------------------------------------------------------------------------------- networks

@cython.final
cdef class Networks:
    def __cinit__(self, networks=()):
        cdef Network *at
        cdef bytes address
        for network in networks:
            if network == "unix":
                self.has_unix = True
                continue
            if self.count == NETWORKS_MAX:
                raise ValueError(f"at most {NETWORKS_MAX} networks")
            at = &self.table[self.count]
            packed = network.network_address.packed
            address = (<bytes>MAPPED[:12]) + packed if len(packed) == 4 else packed
            memcpy(at.address, <const char *>address, ADDRESS_BYTES)
            at.bits = network.prefixlen + (MAPPED_BITS if len(packed) == 4 else 0)
            self.count += 1

    cdef bint contains(self, const uint8_t *address) noexcept nogil:
        cdef int bits_min = MAPPED_BITS if is_v4(address) else 0      # ::/0 is every address of IPv6, not of IPv4
        cdef int i
        for i in range(self.count):
            if self.table[i].bits >= bits_min and _shares_prefix(address, self.table[i].address, self.table[i].bits):
                return True
        return False

    def __contains__(self, address):
        cdef bytes text = address.encode("ascii")
        cdef uint8_t[ADDRESS_BYTES] read
        return read_address(<const uint8_t *><const char *>text, <uint32_t>len(text), read) and self.contains(read)


cdef bint _shares_prefix(const uint8_t *address, const uint8_t *network, int bits) noexcept nogil:
    cdef int whole = bits // 8
    cdef int rest = bits % 8
    if memcmp(address, network, whole) != 0:
        return False
    return rest == 0 or (address[whole] ^ network[whole]) >> (8 - rest) == 0


# -------------------------------------------------------------------------------------------- tally

@cython.final
cdef class Tally:
    """Counts connections by address: an open hash table for `most` connections, with a secret seed.
    All IPv6 addresses of a /64 are one.
    """

    def __cinit__(self, uint32_t most):
        cdef uint64_t size = 2
        while size < <uint64_t>2 * most:
            size *= 2
        self.mask = <uint32_t>(size - 1)
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.table = <Counted *>calloc(size, sizeof(Counted))
        if self.table == NULL:
            raise MemoryError(f"no memory to count {most} addresses")

    def __dealloc__(self):
        free(self.table)

    cdef uint32_t add(self, const uint8_t *address) noexcept nogil:
        """Count one more connection of an address; how many there are now."""
        cdef Counted *at = &self.table[self._find(address)]
        if at.count == 0:
            _site(address, at.address)
        at.count += 1
        return at.count

    cdef void take_over(self, Tally other) noexcept nogil:
        """Count what another one counts, too."""
        cdef uint64_t i
        for i in range(<uint64_t>other.mask + 1):
            if other.table[i].count:
                self.table[self._find(other.table[i].address)] = other.table[i]

    cdef void remove(self, const uint8_t *address) noexcept nogil:
        """Count one connection less. When a place becomes free, entries that lie behind their own
        place because of it move up (Knuth, 6.4, algorithm R).
        """
        cdef uint32_t hole = self._find(address)
        cdef uint32_t at = hole
        cdef uint32_t home
        if self.table[hole].count == 0:
            return
        self.table[hole].count -= 1
        if self.table[hole].count:
            return
        while True:
            at = (at + 1) & self.mask
            if self.table[at].count == 0:
                return
            home = self._place(self.table[at].address)
            if ((at - home) & self.mask) >= ((at - hole) & self.mask):
                self.table[hole] = self.table[at]
                self.table[at].count = 0
                hole = at

    cdef uint32_t _place(self, const uint8_t *address) noexcept nogil:
        """Where the search for an address begins."""
        cdef uint64_t high
        cdef uint64_t low
        memcpy(&high, address, 8)
        memcpy(&low, address + 8, 8)
        return <uint32_t>(mix(mix(high ^ self.seed) ^ low) >> 32) & self.mask

    cdef uint32_t _find(self, const uint8_t *address) noexcept nogil:
        """The place that an address has, or would get."""
        cdef uint8_t[ADDRESS_BYTES] site
        cdef uint32_t at
        _site(address, site)
        at = self._place(site)
        while self.table[at].count and memcmp(self.table[at].address, site, ADDRESS_BYTES) != 0:
            at = (at + 1) & self.mask
        return at

    def enter(self, address):
        return self.add(_packed(address))

    def leave(self, address):
        self.remove(_packed(address))


cdef void _site(const uint8_t *address, uint8_t *site) noexcept nogil:
    """What an address is counted as: itself, or its /64 of IPv6."""
    memcpy(site, address, ADDRESS_BYTES)
    if not is_v4(address):
        memset(site + V6_SITE_BYTES, 0, ADDRESS_BYTES - V6_SITE_BYTES)


cdef const uint8_t *_packed(bytes address) except NULL:
    if len(address) != ADDRESS_BYTES:
        raise ValueError(f"an address has {ADDRESS_BYTES} bytes")
    return <const uint8_t *><const char *>address


# ------------------------------------------------------------------------------------- PROXY header

cdef int read_proxy_header(const uint8_t *at, uint32_t size, uint32_t most, Announced *announced) noexcept nogil:
    """Read a PROXY header. Its size, at most `most`; INCOMPLETE; -400; or -431: it is larger."""
    cdef uint32_t shorter = min(size, <uint32_t>12)
    announced.who = Who.NAMELESS
    if memcmp(at, V2_SIGNATURE, shorter) == 0:
        return _read_v2(at, size, most, announced)
    if memcmp(at, b"PROXY ", min(size, <uint32_t>6)) == 0:
        return _read_v1(at, size, announced)
    return -400


cdef int _read_v1(const uint8_t *at, uint32_t size, Announced *announced) noexcept nogil:
    """Read version 1: `PROXY TCP4 source destination port port CRLF`, or `PROXY UNKNOWN … CRLF`.
    Its size, INCOMPLETE, or -400.
    """
    cdef const uint8_t *lf = <const uint8_t *>memchr(at, c'\n', min(size, <uint32_t>V1_BYTES_MAX))
    cdef uint8_t[ADDRESS_BYTES] address
    cdef bint wants_v4
    cdef uint32_t line
    cdef uint32_t i = 11
    cdef uint32_t start
    cdef int word
    if lf == NULL:
        return INCOMPLETE if size < V1_BYTES_MAX else -400
    line = <uint32_t>(lf - at) + 1
    if line < 15 or at[line - 2] != c'\r':
        return -400
    if memcmp(at + 6, b"UNKNOWN", 7) == 0 and (at[13] == c'\r' or at[13] == c' '):
        return <int>line
    wants_v4 = memcmp(at + 6, b"TCP4 ", 5) == 0
    if not wants_v4 and memcmp(at + 6, b"TCP6 ", 5) != 0:
        return -400
    for word in range(4):
        start = i
        while at[i] != c' ' and at[i] != c'\r':
            i += 1
        if at[i] != (c' ' if word < 3 else c'\r'):
            return -400
        if word < 2:
            if not _read_numeric(at + start, i - start, address) or (memchr(at + start, c':', i - start) == NULL) != wants_v4:
                return -400
            if word == 0:
                memcpy(announced.source, address, ADDRESS_BYTES)
        elif not _is_port_number(at + start, i - start):
            return -400
        i += 1
    if i + 1 != line:
        return -400
    announced.who = Who.NAMED
    return <int>line


cdef bint _is_port_number(const uint8_t *at, uint32_t size) noexcept nogil:
    """Whether a text is a port: 1 to 5 digits, at most 65535."""
    cdef uint32_t value = 0
    cdef uint32_t i
    if not 1 <= size <= 5:
        return False
    for i in range(size):
        if not c'0' <= at[i] <= c'9':
            return False
        value = value * 10 + at[i] - c'0'
    return value <= 65535


cdef int _read_v2(const uint8_t *at, uint32_t size, uint32_t most, Announced *announced) noexcept nogil:
    """Read version 2, which is binary. Its size, INCOMPLETE, -400 or -431."""
    cdef uint32_t length
    if size < V2_HEAD_BYTES:
        return INCOMPLETE
    length = <uint32_t>at[14] << 8 | at[15]
    if at[12] != 0x20 and at[12] != 0x21:
        return -400
    if V2_HEAD_BYTES + length > most:
        return -431
    if size < V2_HEAD_BYTES + length:
        return INCOMPLETE
    if at[12] == 0x20:                              # LOCAL: the rest means nothing
        announced.who = Who.ITSELF
    elif at[13] == 0x11:                            # TCP over IPv4
        if length < 12:
            return -400
        memcpy(announced.source, MAPPED, 12)
        memcpy(announced.source + 12, at + 16, 4)
        announced.who = Who.NAMED
    elif at[13] == 0x21:                            # TCP over IPv6
        if length < 36:
            return -400
        memcpy(announced.source, at + 16, ADDRESS_BYTES)
        announced.who = Who.NAMED
    return <int>(V2_HEAD_BYTES + length)


# ------------------------------------------------------------------------------ for tests and tools

def address_of(bytes text not None):
    cdef uint8_t[ADDRESS_BYTES] address
    if not read_address(<const uint8_t *><const char *>text, <uint32_t>len(text), address):
        return None
    return (<char *>address)[:ADDRESS_BYTES]


def address_text(bytes address not None):
    cdef char[ADDRESS_TEXT_MAX] text
    cdef int size = write_address(_packed(address), text)
    return text[:size].decode("ascii")


def proxy_header(bytes data not None, uint32_t most):
    cdef Announced announced
    cdef int size
    if not data:
        return 0
    size = read_proxy_header(<const uint8_t *><const char *>data, <uint32_t>len(data), most, &announced)
    if size <= 0:
        return size
    if announced.who == Who.ITSELF:
        return size, "own"
    return size, (<char *>announced.source)[:ADDRESS_BYTES] if announced.who == Who.NAMED else None
