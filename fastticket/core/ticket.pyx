# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""The ticket: wire format 1, the key ring, mint and verify.

Rules of this file
- What is refused, and in which order, is docs/reference/ticket-format.md; tests/lab/reference.py is
  the plain twin, and must agree.
- No branch depends on a key or a tag before the tag was compared in constant time.
- The ring's lock guards its keys: any thread may verify while they are replaced. It is held for one
  computation, and only for tickets that the near cache does not have.
- libcrypto hashes. Each key is absorbed once, when the ring is built; a computation copies the two
  prepared states, which are plain structs: no allocation, no lock, nothing to free. Why SHA256_*
  and not EVP: docs/decisions/0001-hmac-interface.md.
"""

cimport cython
from libc.string cimport memcmp, memcpy, memset

from fastticket.core.lock cimport acquire, end_lock, make_lock, release
from fastticket.core.wire cimport (
    FORMAT,
    KEY_ID_AT,
    PRINCIPAL_AT,
    PRINCIPAL_BYTES_MAX,
    PRINCIPAL_LENGTH_AT,
    RAW_BUFFER_BYTES,
    RAW_BYTES_MIN,
    SESSION_ID_AT,
    SESSION_ID_BYTES,
    SESSION_ID_CHARS,
    TAG_BYTES,
    TEXT_CHARS_MAX,
    TEXT_CHARS_MIN,
    raw_absolute_deadline_ms,
    raw_absolute_lifetime_s,
    raw_idle_deadline_ms,
    raw_idle_timeout_s,
    raw_issued_at_ms,
    raw_key_id,
)

import base64
import binascii
import hmac
import os
import secrets
from operator import index

from fastticket.errors import ConfigError, InvalidPrincipal
from fastticket.errors import Verdict as _Verdict

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    void *PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef extern from "<openssl/crypto.h>" nogil:
    int CRYPTO_memcmp(const void *a, const void *b, size_t size)
    void OPENSSL_cleanse(void *at, size_t size)

SESSION_ID_TEXT_CHARS = SESSION_ID_CHARS

cdef enum:
    BLOCK_BYTES = 64            # of SHA-256
    SECRET_BYTES_MIN = 32

cdef const char *ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
cdef uint8_t[256] SIXTETS              # character -> its 6 bits; 0xFF: not in the alphabet
cdef uint32_t[4][256] QUARTERS         # place in a group of 4, character -> its bits where they lie in the 3 bytes; else all ones


cdef void _fill_tables() noexcept:
    cdef uint8_t[4] group              # a group's bytes in memory order, whatever the machine's
    cdef uint32_t bits
    cdef int value, place
    memset(SIXTETS, 0xFF, sizeof(SIXTETS))
    memset(QUARTERS, 0xFF, sizeof(QUARTERS))
    for value in range(64):
        SIXTETS[<uint8_t>ALPHABET[value]] = <uint8_t>value
        for place in range(4):
            bits = <uint32_t>value << (18 - 6 * place)
            group[0] = <uint8_t>(bits >> 16)
            group[1] = <uint8_t>(bits >> 8)
            group[2] = <uint8_t>bits
            group[3] = 0
            memcpy(&QUARTERS[place][<uint8_t>ALPHABET[value]], group, 4)

_fill_tables()


# ---------------------------------------------------------------------------------------- base64url

cdef int decode(const uint8_t *text, Py_ssize_t chars, uint8_t *raw) noexcept nogil:
    """Decode a ticket's text into `raw`, which has RAW_BUFFER_BYTES. The size of the raw ticket; 0
    if the text is not that of a well-formed ticket, in its one canonical spelling.
    """
    cdef int size
    if chars < TEXT_CHARS_MIN or chars > TEXT_CHARS_MAX:
        return 0
    size = _decode_canonical(text, <int>chars, raw)
    if size < RAW_BYTES_MIN or raw[0] != FORMAT:
        return 0
    if raw[PRINCIPAL_LENGTH_AT] == 0 or raw[PRINCIPAL_LENGTH_AT] > PRINCIPAL_BYTES_MAX:
        return 0
    if size != PRINCIPAL_AT + raw[PRINCIPAL_LENGTH_AT] + TAG_BYTES:
        return 0
    return size


cdef int _decode_canonical(const uint8_t *text, int chars, uint8_t *raw) noexcept nogil:
    """Decode base64url without padding (RFC 4648, 5). The size; 0 if it is not canonical.

    `raw` needs room for one byte more: each group of 4 characters is stored as a 4-byte word, whose
    last byte the next word overwrites.
    """
    cdef const uint8_t *at = text
    cdef const uint8_t *whole = text + (chars & ~3)
    cdef uint8_t *out = raw
    cdef uint32_t word
    cdef uint32_t seen = 0             # all ones from a bad character; else its fourth byte stays 0
    cdef uint8_t[4] seen_bytes
    cdef uint8_t a, b, c
    cdef uint8_t bad = 0
    cdef int size
    cdef int i = chars & ~3
    while at != whole:
        word = QUARTERS[0][at[0]] | QUARTERS[1][at[1]] | QUARTERS[2][at[2]] | QUARTERS[3][at[3]]
        seen |= word
        memcpy(out, &word, 4)
        out += 3
        at += 4
    size = <int>(out - raw)
    memcpy(seen_bytes, &seen, 4)
    if seen_bytes[3] != 0 or chars - i == 1:
        return 0
    if chars - i >= 2:
        a = SIXTETS[text[i]]
        b = SIXTETS[text[i + 1]]
        bad = a | b
        raw[size] = <uint8_t>(a << 2 | b >> 4)
        size += 1
        if chars - i == 2:
            bad |= <uint8_t>(b << 4 | b << 6)        # bits that encode nothing must be zero: the low four, seen in bits 6 and 7
        else:
            c = SIXTETS[text[i + 2]]
            bad |= c | <uint8_t>((c & 0x03) << 6)
            raw[size] = <uint8_t>(b << 4 | c >> 2)
            size += 1
    return 0 if bad & 0xC0 else size


cdef int encode(const uint8_t *data, int size, uint8_t *text) noexcept nogil:
    """Write base64url without padding (RFC 4648, 5). The number of characters written."""
    cdef int i = 0
    cdef int chars = 0
    while i + 2 < size:
        text[chars] = ALPHABET[data[i] >> 2]
        text[chars + 1] = ALPHABET[(data[i] & 0x03) << 4 | data[i + 1] >> 4]
        text[chars + 2] = ALPHABET[(data[i + 1] & 0x0F) << 2 | data[i + 2] >> 6]
        text[chars + 3] = ALPHABET[data[i + 2] & 0x3F]
        i += 3
        chars += 4
    if i < size:
        text[chars] = ALPHABET[data[i] >> 2]
        if i + 1 == size:
            text[chars + 1] = ALPHABET[(data[i] & 0x03) << 4]
            return chars + 2
        text[chars + 1] = ALPHABET[(data[i] & 0x03) << 4 | data[i + 1] >> 4]
        text[chars + 2] = ALPHABET[(data[i + 1] & 0x0F) << 2]
        return chars + 3
    return chars


cdef bint ascii_text(object ticket, const uint8_t **text, Py_ssize_t *chars) except -1:
    """Borrow the characters of a `str` or `bytes`. False: they are not ASCII, so no ticket.
    TypeError.
    """
    if isinstance(ticket, str):
        if not PyUnicode_IS_ASCII(ticket):
            return False
        text[0] = <const uint8_t *>PyUnicode_DATA(ticket)
        chars[0] = PyUnicode_GET_LENGTH(ticket)
        return True
    if isinstance(ticket, bytes):
        text[0] = <const uint8_t *><const char *>ticket
        chars[0] = len(<bytes>ticket)
        return True
    raise TypeError(f"a ticket is str or bytes, not {type(ticket).__name__}")


cdef str session_id_text(const uint8_t *session_id):
    cdef uint8_t[SESSION_ID_CHARS] text
    encode(session_id, SESSION_ID_BYTES, text)
    return (<char *>text)[:SESSION_ID_CHARS].decode("ascii")


cdef bint parse_session_id(object text, uint8_t *session_id) except -1:
    """Decode a session id. False: `text` is none. TypeError."""
    cdef uint8_t[SESSION_ID_BYTES + 4] raw
    cdef const uint8_t *at = NULL
    cdef Py_ssize_t chars = 0
    if not ascii_text(text, &at, &chars) or chars != SESSION_ID_CHARS:
        return False
    if _decode_canonical(at, <int>chars, raw) != SESSION_ID_BYTES:
        return False
    memcpy(session_id, raw, SESSION_ID_BYTES)
    return True


def encode_session_id(const uint8_t[::1] session_id):
    if session_id.shape[0] != SESSION_ID_BYTES:
        raise ValueError(f"a session id has {SESSION_ID_BYTES} bytes, not {session_id.shape[0]}")
    return session_id_text(&session_id[0])


def decode_session_id(text):
    cdef uint8_t[SESSION_ID_BYTES] session_id
    if not parse_session_id(text, session_id):
        raise ValueError(f"a session id is {SESSION_ID_CHARS} characters of base64url")
    return (<char *>session_id)[:SESSION_ID_BYTES]


# ---------------------------------------------------------------------------------------- principal

def check_principal(principal):
    """InvalidPrincipal, which says why a ticket cannot carry this principal; TypeError."""
    cdef bytes name
    if not isinstance(principal, str):
        raise TypeError(f"a principal is str, not {type(principal).__name__}")
    name = principal.encode("utf-8", "surrogatepass")
    if not _is_principal(<const uint8_t *><const char *>name, <int>min(len(name), PRINCIPAL_BYTES_MAX + 1)):
        raise InvalidPrincipal(
            f"a principal is 1 to {PRINCIPAL_BYTES_MAX} bytes of UTF-8 without control characters or outer spaces, "
            f"this one {_problem_of(principal, len(name))}; log in under another name"
        )


def _problem_of(str principal, Py_ssize_t size):
    if size == 0:
        return "is empty"
    if size > PRINCIPAL_BYTES_MAX:
        return f"has {size} bytes in {len(principal)} characters"
    return "has outer spaces" if principal != principal.strip(" ") else "has what is no character of a name"


cdef bint _is_principal(const uint8_t *at, int size) noexcept nogil:
    """Whether a name is UTF-8 (RFC 3629) without C0 controls, DEL and outer spaces: safe as a field
    value, and the same to every reader.
    """
    cdef int i = 0
    cdef int following
    cdef uint8_t low, high
    if size == 0 or size > PRINCIPAL_BYTES_MAX or at[0] == 0x20 or at[size - 1] == 0x20:
        return False
    while i < size:
        low, high = 0x80, 0xBF                          # what the second byte may be
        if at[i] < 0x80:
            if at[i] < 0x20 or at[i] == 0x7F:
                return False
            following = 0
        elif 0xC2 <= at[i] <= 0xDF:
            following = 1
        elif 0xE0 <= at[i] <= 0xEF:
            following = 2
            if at[i] == 0xE0:
                low = 0xA0                              # below, there is a shorter form
            elif at[i] == 0xED:
                high = 0x9F                             # surrogates
        elif 0xF0 <= at[i] <= 0xF4:
            following = 3
            if at[i] == 0xF0:
                low = 0x90
            elif at[i] == 0xF4:
                high = 0x8F                             # past U+10FFFF
        else:
            return False
        i += 1
        while following:
            if i == size or not low <= at[i] <= high:
                return False
            low, high = 0x80, 0xBF
            following -= 1
            i += 1
    return True


# ----------------------------------------------------------------------------------------- key ring

def checked_keys(keys, where):
    # No message shows a value: it could be a secret in the wrong place.
    checked = {}
    for number, (key_id, secret) in enumerate(keys, 1):
        if type(key_id) is not int or not 0 <= key_id <= 255:
            raise ConfigError(f"{where}: the id of key number {number} is not a whole number from 0 to 255")
        if key_id in checked:
            raise ConfigError(f"{where}: key id {key_id} is there twice; give each key its own")
        if len(secret) < SECRET_BYTES_MIN:
            raise ConfigError(
                f"{where}: the secret of key {key_id} has {len(secret)} bytes, at least {SECRET_BYTES_MIN} are needed; "
                "make one with `fastticket keygen`"
            )
        checked[key_id] = bytes(secret)
    if not checked:
        raise ConfigError(f"{where}: there is no key in it; make one with `fastticket keygen`")
    return list(checked.items())


def _signing_key(secret, audience):
    """HKDF-SHA-256 (RFC 5869) of a secret: no salt, one block."""
    pseudorandom = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(pseudorandom, b"fastticket/1/" + audience.encode() + b"\x01", "sha256")


cdef void _absorb(const uint8_t *signing_key, uint8_t pad, SHA256_CTX *state) noexcept:
    """Start a hash with the block key ^ pad of HMAC (RFC 2104)."""
    cdef uint8_t[BLOCK_BYTES] block
    cdef int i
    for i in range(BLOCK_BYTES):
        block[i] = pad ^ (signing_key[i] if i < 32 else 0)
    SHA256_Init(state)
    SHA256_Update(state, block, BLOCK_BYTES)
    OPENSSL_cleanse(block, BLOCK_BYTES)


@cython.final
cdef class Ring:
    def __cinit__(self, keys, audience):
        cdef bytes signing_key
        cdef Key *key
        for key_id, secret in checked_keys(keys, "key ring"):
            signing_key = _signing_key(secret, audience)
            key = &self.keys[<uint8_t>key_id]
            _absorb(signing_key, 0x36, &key.inner)
            _absorb(signing_key, 0x5C, &key.outer)
            key.is_there = True
            memcpy(key.signing_key, <const char *>signing_key, 32)
            self.order[self.count] = key_id
            self.count += 1

    def __dealloc__(self):
        OPENSSL_cleanse(self.keys, sizeof(self.keys))

    cdef list ids(self):
        """Oldest first."""
        return [self.order[i] for i in range(self.count)]


@cython.final
cdef class Keyring:
    """Keyring(keys, audience="default", accept_audiences=())\n--\n
    The keys that tickets are signed with: 1 to 256 of `(id, secret)`, oldest first. The last one
    signs, each verifies.

    An id is from 0 to 255, a secret has at least 32 bytes from a good random source. Rings of
    different audiences refuse each other's tickets; but tickets of `accept_audiences` are good here,
    too. ConfigError.
    """

    def __cinit__(self, keys, audience="default", accept_audiences=()):
        make_lock(&self.lock)
        keys = list(keys)
        self.ring = Ring(keys, audience)
        self.audience = audience
        self.accept_audiences = tuple(each for each in accept_audiences if each != audience)
        if len(self.accept_audiences) > ACCEPTED_MAX:
            raise ConfigError(f"accept_audiences: at most {ACCEPTED_MAX}, not {len(self.accept_audiences)}")
        self.accepted = [Ring(keys, each) for each in self.accept_audiences]
        for i, ring in enumerate(self.accepted):
            self.others[i] = (<Ring>ring).keys
        self.others_count = len(self.accepted)

    def __dealloc__(self):
        end_lock(&self.lock)

    def __repr__(self):
        return f"<Keyring audience={self.audience!r} ids={list(self.ids)}>"

    @classmethod
    def generate(cls, audience="default"):
        """A ring of one new random key, id 1, which no other process has."""
        return cls([(1, secrets.token_bytes(32))], audience)

    @classmethod
    def from_file(cls, path, audience="default", accept_audiences=()):
        """The ring in a key file. ConfigError."""
        # Late, against the direction of imports: the core knows no files, but this name is public.
        from fastticket.keyfile import read_keys
        return cls(read_keys(path), audience, accept_audiences)

    @classmethod
    def from_env(cls, name="FASTTICKET_KEYS", audience="default", accept_audiences=()):
        """The ring in an environment variable: `id:secret,id:secret`, oldest first, secrets in
        base64url. ConfigError.
        """
        text = os.environ.get(name, "")
        if not text.strip():
            raise ConfigError(f"{name} is not set; it holds the key ring as id:secret,id:secret, oldest first")
        keys = []
        for number, item in enumerate(text.split(","), 1):
            key_id, colon, secret = item.strip().partition(":")
            if not colon or not key_id.isascii() or not key_id.isdigit() or len(key_id) > 3:
                raise ConfigError(f"{name}: item {number} is not id:secret")
            keys.append((int(key_id), decode_secret(secret, f"{name}: item {number}")))
        return cls(checked_keys(keys, name), audience, accept_audiences)

    def replace(self, keys):
        """Replace the keys, all or nothing. The ids whose key left the ring. ConfigError."""
        cdef list pairs = list(keys)
        cdef Ring new = Ring(pairs, self.audience)
        cdef list others = [Ring(pairs, each) for each in self.accept_audiences]
        cdef Ring old = self.ring
        cdef Key *before
        cdef Key *after
        cdef list gone = []
        cdef list known = old.ids()
        for key_id in known:                            # nobody but this method changes them
            before = &old.keys[<uint8_t>key_id]
            after = &new.keys[<uint8_t>key_id]
            if not after.is_there or memcmp(before.signing_key, after.signing_key, 32) != 0:
                gone.append(key_id)
        acquire(&self.lock)
        _replace(old, new)
        for i in range(self.others_count):
            _replace(<Ring>self.accepted[i], <Ring>others[i])
        release(&self.lock)
        return set(gone)

    @property
    def ids(self):
        """The key ids, oldest first; the last one signs."""
        cdef uint8_t[256] order
        cdef int count
        acquire(&self.lock)
        count = self.ring.count
        memcpy(order, self.ring.order, sizeof(order))
        release(&self.lock)
        return tuple([order[i] for i in range(count)])

    @property
    def uses(self):
        """For each key id, the good signatures verified under the key since it came into this ring."""
        return {key_id: self._uses_of(key_id) for key_id in self.ids}

    cdef uint64_t _uses_of(self, uint8_t key_id) noexcept:
        cdef uint64_t uses
        cdef int i
        acquire(&self.lock)
        uses = self.ring.keys[key_id].uses
        for i in range(self.others_count):
            uses += self.others[i][key_id].uses
        release(&self.lock)
        return uses

    def mint(self, principal, issued_at_ms, idle_timeout_s=0, absolute_lifetime_s=0, session_id=None):
        """A ticket, signed with the newest key; 0 s: no timeout, no end. InvalidPrincipal,
        ValueError, TypeError.
        """
        cdef uint8_t[RAW_BUFFER_BYTES] raw
        cdef uint8_t[TEXT_CHARS_MAX] text
        cdef int body_bytes
        cdef bytes name
        cdef bytes fields
        check_principal(principal)
        name = principal.encode()
        if session_id is None:
            session_id = secrets.token_bytes(SESSION_ID_BYTES)
        if not isinstance(session_id, bytes):           # of another buffer, len() need not count bytes
            raise TypeError(f"a session id is bytes, not {type(session_id).__name__}")
        if len(session_id) != SESSION_ID_BYTES:
            raise ValueError(f"a session id has {SESSION_ID_BYTES} bytes, not {len(session_id)}")
        if not 0 <= issued_at_ms < 1 << 48:
            raise ValueError(f"issued_at_ms must be from 0 to 2**48 - 1, not {issued_at_ms}")
        if not 0 <= idle_timeout_s < 1 << 32 or not 0 <= absolute_lifetime_s < 1 << 32:
            raise ValueError("idle_timeout_s and absolute_lifetime_s must be from 0 to 2**32 - 1")
        fields = (
            bytes((FORMAT, 0))                          # `_sign` has the key id
            + session_id
            + int(issued_at_ms).to_bytes(6, "big")
            + index(idle_timeout_s).to_bytes(4, "big")
            + index(absolute_lifetime_s).to_bytes(4, "big")
            + bytes((len(name),))
            + name
        )
        body_bytes = <int>len(fields)
        memcpy(raw, <const char *>fields, body_bytes)
        self._sign(raw, body_bytes)
        return (<char *>text)[: encode(raw, body_bytes + TAG_BYTES, text)].decode("ascii")

    def verify(self, ticket, now_ms):
        """The ticket, if it is authentic and before its absolute deadline; else a falsy verdict.
        TypeError.
        """
        cdef const uint8_t *text = NULL
        cdef Py_ssize_t chars = 0
        cdef Verdict verdict
        cdef Ticket result = Ticket.__new__(Ticket)
        if ascii_text(ticket, &text, &chars):
            result.size = decode(text, chars, result.bytes)
        if result.size == 0:
            return _Verdict.MALFORMED
        verdict = self.verify_raw(result.bytes, result.size, now_ms)
        return result if verdict == Verdict.HIT else _Verdict(<int>verdict)

    cdef void _sign(self, uint8_t *raw, int body_bytes) noexcept nogil:
        """Name the newest key in a ticket's body, and put the tag behind it."""
        acquire(&self.lock)
        raw[KEY_ID_AT] = self.ring.order[self.ring.count - 1]
        _tag(&self.ring.keys[raw[KEY_ID_AT]], raw, body_bytes, raw + body_bytes)
        release(&self.lock)

    cdef Verdict verify_raw(self, const uint8_t *raw, int size, int64_t now_ms) noexcept nogil:
        """Judge a decoded ticket. HIT: it is authentic and before its absolute deadline."""
        cdef Verdict verdict
        cdef int i = 0
        acquire(&self.lock)
        verdict = _judge_tag(&self.ring.keys[raw_key_id(raw)], raw, size - TAG_BYTES)
        while verdict == Verdict.BAD_SIGNATURE and i < self.others_count:
            verdict = _judge_tag(&self.others[i][raw_key_id(raw)], raw, size - TAG_BYTES)
            i += 1
        release(&self.lock)
        if verdict != Verdict.HIT:
            return verdict
        if not _is_principal(raw + PRINCIPAL_AT, raw[PRINCIPAL_LENGTH_AT]):
            return Verdict.MALFORMED
        return Verdict.EXPIRED if now_ms >= raw_absolute_deadline_ms(raw) else Verdict.HIT


cdef void _replace(Ring old, Ring new) noexcept nogil:
    """Put the keys of another ring in place of these; those that stay keep their count."""
    cdef int i
    for i in range(256):
        if new.keys[i].is_there and old.keys[i].is_there and memcmp(old.keys[i].signing_key, new.keys[i].signing_key, 32) == 0:
            new.keys[i].uses = old.keys[i].uses
    memcpy(old.keys, new.keys, sizeof(old.keys))
    memcpy(old.order, new.order, sizeof(old.order))
    old.count = new.count


cdef inline void _tag(const Key *key, const uint8_t *body, size_t size, uint8_t *out) noexcept nogil:
    """HMAC-SHA-256 of `body` under a key, into `out` (32 bytes)."""
    cdef SHA256_CTX state = key.inner
    SHA256_Update(&state, body, size)
    SHA256_Final(out, &state)
    state = key.outer
    SHA256_Update(&state, out, TAG_BYTES)
    SHA256_Final(out, &state)


cdef inline Verdict _judge_tag(Key *key, const uint8_t *raw, int body_bytes) noexcept nogil:
    """HIT: the ticket's tag is this key's."""
    cdef uint8_t[TAG_BYTES] expected
    if not key.is_there:
        return Verdict.UNKNOWN_KEY
    _tag(key, raw, body_bytes, expected)
    if CRYPTO_memcmp(expected, raw + body_bytes, TAG_BYTES) != 0:
        return Verdict.BAD_SIGNATURE
    key.uses += 1
    return Verdict.HIT


def decode_secret(text, where):
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) & 3), b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ConfigError(f"{where}: the secret is not base64url; make one with `fastticket keygen`") from None


# ------------------------------------------------------------------------------------------- ticket

@cython.final
cdef class Ticket:
    """The fields of an authentic ticket. Only `Keyring.verify` makes one."""

    def __repr__(self):
        return f"<Ticket session {self.session_id[:6]}…>"

    @property
    def raw(self):
        """All of it, decoded, tag included. As good as the ticket: never log it."""
        return (<char *>self.bytes)[:self.size]

    @property
    def key_id(self):
        """The id of the key that signed it."""
        return raw_key_id(self.bytes)

    @property
    def session_id(self):
        """16 random bytes as 22 characters of base64url."""
        return session_id_text(self.bytes + SESSION_ID_AT)

    @property
    def issued_at_ms(self):
        """Login, store time, ms since the epoch."""
        return raw_issued_at_ms(self.bytes)

    @property
    def idle_timeout_s(self):
        """For how long the session may be unused; 0: for all its life."""
        return raw_idle_timeout_s(self.bytes)

    @property
    def absolute_lifetime_s(self):
        """For how long the session lives, used or not; 0: without end."""
        return raw_absolute_lifetime_s(self.bytes)

    @property
    def absolute_deadline_ms(self):
        """The first ms, store time, at which the session is over; 2**53 - 1: there is none."""
        return raw_absolute_deadline_ms(self.bytes)

    def idle_deadline_ms(self, used_at_ms, slack_ms=0):
        """The idle deadline after a use, plus `slack_ms`, but never past the absolute deadline."""
        return raw_idle_deadline_ms(self.bytes, used_at_ms, slack_ms)

    @property
    def principal(self):
        """The owner of the session."""
        return (<char *>self.bytes)[PRINCIPAL_AT:PRINCIPAL_AT + self.bytes[PRINCIPAL_LENGTH_AT]].decode("utf-8")
