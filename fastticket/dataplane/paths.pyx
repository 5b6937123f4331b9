# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""Request paths as the services behind the gateway read them, for routing
(docs/decisions/0026-public-paths.md). A *reader* here is any of those services.

Rules of this file
- Every reader must see the same segments. A path is *ambiguous* if a reader could find a slash, a
  dot segment or an escape in it that another does not: it has dot segments or empty ones,
  backslashes, escaped slashes, control characters, `%` before what could be an escape, bytes that
  are not UTF-8, or characters that some reader turns into any of these.
- A segment is *odd* if readers see different text in it: it has characters beyond ASCII, `%`, `;`,
  `?` or `#`. A reader may leave such a character out, or end the path at it. It may turn a *letter*
  (Latin, Greek, wide forms) into its base letter, perhaps with a second one (ß, ä), and a *sign*
  (punctuation, marks, digits) into other signs. All other characters are *solid* (Cyrillic, Arabic,
  Han, Hangul ...). A reader that takes UTF-8 for Latin-1 sees letters and signs in the bytes of all
  of them.
- An odd path still belongs to one route if no other route begins in the folder of its first odd
  segment with a segment that one of its segments could be read as. No reader leaves that folder.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memchr, memcmp, strchr

from fastticket.dataplane.octets cimport NOT_HEX, fill_hex

import unicodedata

cdef enum:
    # What stands in a path, and, four bits higher, what may not follow it unseen.
    SPECIAL = 1
    STARTS = 2
    PLAIN = SPECIAL << 4
    SLASH = STARTS | (SPECIAL | STARTS) << 4
    FULL_STOP = STARTS | SPECIAL << 4

cdef enum:
    ODD_BYTES_MAX = 512         # of a path from its first odd segment on that are compared with routes; more: a match
    BASES = 0x2000              # `base` has the letters below this code
    ANY = 0xFF                  # in place of a base letter: any letter
    SEGMENT_BITS = 63           # of a route's segment, in a set of places; a longer one counts as a match

cdef enum Kind:
    REFUSED = 0                 # some reader's slash, dot or percent sign, or no character of text
    SOLID
    SIGN
    DOT                         # a sign that is some reader's dot
    LETTER

cdef struct Run:
    uint32_t first
    uint32_t last
    Kind kind

cdef uint8_t[256] IN_PATH       # SPECIAL: look closer; STARTS: look closer if it begins a segment
cdef uint8_t[256] HEX

# A character in none of these is refused. tests/dataplane/test_paths.py asks Unicode, glibc and the
# tables of code pages about each.
RUNS = [
    (0x00A0, 0x00A0, "sign"), (0x00AA, 0x00AA, "letter"), (0x00AB, 0x00AB, "sign"), (0x00B0, 0x00B0, "letter"),
    (0x00B7, 0x00B7, "dot"), (0x00BA, 0x00BA, "letter"), (0x00BB, 0x00BB, "sign"),
    (0x00C0, 0x00F6, "letter"), (0x00F8, 0x02AF, "letter"),                 # Latin
    (0x0300, 0x0336, "sign"), (0x0339, 0x036F, "sign"),                     # marks: names as macOS has them
    (0x0370, 0x0373, "letter"), (0x0376, 0x0377, "letter"), (0x037B, 0x037D, "letter"), (0x0386, 0x0386, "letter"),
    (0x0388, 0x03FF, "letter"),                                             # Greek
    (0x0400, 0x0481, "solid"), (0x0483, 0x0489, "sign"), (0x048A, 0x04B9, "solid"), (0x04BA, 0x04BB, "letter"),
    (0x04BC, 0x052F, "solid"),                                              # Cyrillic
    (0x0531, 0x0556, "solid"), (0x0561, 0x0587, "solid"),                   # Armenian
    (0x0591, 0x05BE, "sign"), (0x05C1, 0x05C2, "sign"), (0x05D0, 0x05EA, "solid"), (0x05F0, 0x05F4, "sign"),    # Hebrew
    (0x060C, 0x060C, "sign"), (0x0610, 0x061A, "sign"), (0x0620, 0x063F, "solid"), (0x0640, 0x0640, "sign"),
    (0x0641, 0x064A, "solid"), (0x064B, 0x0669, "sign"), (0x066E, 0x066F, "solid"), (0x0671, 0x06D3, "solid"),
    (0x06D5, 0x06DC, "sign"), (0x06DF, 0x06EF, "sign"), (0x06F0, 0x06F9, "sign"), (0x06FA, 0x06FF, "sign"),    # Arabic
    (0x0900, 0x0903, "sign"), (0x0904, 0x0939, "solid"), (0x093A, 0x0963, "sign"), (0x0966, 0x097F, "sign"),   # Devanagari
    (0x0980, 0x0984, "sign"), (0x0985, 0x09B9, "solid"), (0x09BA, 0x0A04, "sign"), (0x0A05, 0x0A39, "solid"),
    (0x0A3A, 0x0A84, "sign"), (0x0A85, 0x0AB9, "solid"), (0x0ABA, 0x0B04, "sign"), (0x0B05, 0x0B39, "solid"),
    (0x0B3A, 0x0B82, "sign"), (0x0B83, 0x0BB9, "solid"), (0x0BBA, 0x0C04, "sign"), (0x0C05, 0x0C39, "solid"),
    (0x0C3A, 0x0C84, "sign"), (0x0C85, 0x0CB9, "solid"), (0x0CBA, 0x0D04, "sign"), (0x0D05, 0x0D3A, "solid"),
    (0x0D3B, 0x0D84, "sign"), (0x0D85, 0x0DC6, "solid"), (0x0DC7, 0x0DF3, "sign"),      # Bengali to Sinhala
    (0x0E01, 0x0E30, "solid"), (0x0E31, 0x0E31, "sign"), (0x0E32, 0x0E32, "solid"), (0x0E33, 0x0E59, "sign"),   # Thai
    (0x0E81, 0x0EB0, "solid"), (0x0EB1, 0x0EDF, "sign"), (0x0F40, 0x0F6C, "solid"), (0x0F71, 0x0F84, "sign"),
    (0x0F8D, 0x0FBC, "sign"), (0x1000, 0x102A, "solid"), (0x102B, 0x1049, "sign"), (0x1050, 0x1055, "solid"),
    (0x1056, 0x109D, "sign"), (0x10A0, 0x10FA, "solid"), (0x10FC, 0x10FF, "sign"),      # Lao, Tibetan, Myanmar, Georgian
    (0x1100, 0x115E, "solid"), (0x1161, 0x135A, "solid"), (0x135D, 0x135F, "sign"), (0x1380, 0x138F, "solid"),
    (0x1780, 0x17B3, "solid"), (0x17B4, 0x17D3, "sign"), (0x17E0, 0x17E9, "sign"), (0x1820, 0x1878, "solid"),
    (0x1E00, 0x1FFF, "letter"),                                             # more Latin and Greek
    (0x200C, 0x200F, "sign"), (0x2010, 0x2015, "sign"), (0x2018, 0x201F, "sign"), (0x2116, 0x2116, "letter"),
    (0x2D30, 0x2D67, "solid"),
    (0x3000, 0x3001, "sign"), (0x3005, 0x3005, "solid"), (0x3007, 0x3011, "sign"), (0x3014, 0x301C, "sign"),
    (0x3041, 0x3096, "solid"), (0x3099, 0x309F, "sign"), (0x30A1, 0x30FA, "solid"), (0x30FB, 0x30FB, "dot"),
    (0x30FC, 0x30FF, "sign"), (0x3105, 0x312F, "solid"), (0x3131, 0x3163, "solid"), (0x31F0, 0x31FF, "solid"),
    (0x3400, 0x4DBF, "solid"), (0x4E00, 0x9FFF, "solid"), (0xAC00, 0xD7A3, "solid"), (0xF900, 0xFAD9, "solid"),
    (0xFE00, 0xFE0F, "sign"),
    (0xFF01, 0xFF04, "sign"), (0xFF06, 0xFF0D, "sign"), (0xFF10, 0xFF20, "sign"), (0xFF21, 0xFF3A, "letter"),
    (0xFF3B, 0xFF3B, "sign"), (0xFF3D, 0xFF40, "sign"), (0xFF41, 0xFF5A, "letter"), (0xFF5B, 0xFF5E, "sign"),  # wide forms
    (0xFF66, 0xFF9F, "sign"),
    (0x1F300, 0x1F64F, "solid"), (0x1F680, 0x1F6FF, "solid"), (0x1F900, 0x1FAFF, "solid"),                      # emoji
    (0x20000, 0x323AF, "solid"),
]
# What code pages without these letters turn them into; they have no marks to lose.
_GREEK = dict(zip("ΓΘΣΦΩαδεπσςτφ", "gtsfoadepsstf"))
_LATIN = dict(zip("ÆæÐðØøÞþßĐđĦħıŁłŊŋŒœŦŧµ×", "aaddoottsddhhillnnoottux"))
_KINDS = {"refused": REFUSED, "solid": SOLID, "sign": SIGN, "dot": DOT, "letter": LETTER}

cdef const char *SIGNS = b" !\"#$&'()*+,-.:;<=>?@[]^_`{|}~0123456789"

cdef Run[256] runs
cdef int run_count = 0
cdef uint8_t[BASES] base        # a letter's base letter in lower case, or ANY; 0: there is none
cdef uint8_t[256] LATIN_1       # of a byte in Latin-1: the same; b"0" for a sign


def _fill_tables():
    global run_count
    cdef int c
    fill_hex(HEX)
    for c in range(256):
        character = chr(c)
        IN_PATH[c] = SPECIAL if character in "%\\;?#" or c >= 128 else PLAIN
    IN_PATH[c'/'] = SLASH
    IN_PATH[c'.'] = FULL_STOP
    for first, last, kind in RUNS:
        runs[run_count] = Run(first, last, _KINDS[kind])
        run_count += 1
        if kind == "letter" and last < BASES:
            for c in range(first, last + 1):
                base[c] = _base_of(chr(c))
    for c in range(0xA0, 256):
        LATIN_1[c] = _base_of(chr(c)) if chr(c).isalpha() or chr(c) in _LATIN else c"0"


def _base_of(character):
    """The base letter of a letter: what is left without its marks."""
    plain = unicodedata.normalize("NFKD", character)[0]
    plain = _LATIN.get(character) or _GREEK.get(plain, plain).lower()
    if plain.isascii():
        return ord(plain)
    return 0 if "GREEK" in unicodedata.name(character, "GREEK") else ANY


_fill_tables()


cdef bint is_normal(const uint8_t *path, uint32_t size) noexcept nogil:
    """Whether a path is its own normal path, as nearly all are: then it need not be copied. False:
    it may still be one; `normal_path` tells.
    """
    cdef uint8_t looked_at = SPECIAL
    cdef uint8_t kind
    cdef uint32_t i
    for i in range(size):
        kind = IN_PATH[path[i]]
        if kind & looked_at:
            return False
        looked_at = kind >> 4
    return True


cdef int normal_path(const uint8_t *path, uint32_t size, uint8_t *out, int *odd_at) noexcept nogil:
    """Write the normal path, decoded, to `out`, and to `odd_at` where its first odd segment begins,
    or EXACT. Its size; -1: the path is ambiguous.
    """
    cdef uint32_t i = 0
    cdef int n = 0
    cdef int segment = 0                # where the segment under way began, its slash included
    cdef uint8_t c
    odd_at[0] = EXACT
    while i < size:
        c = path[i]
        if c == c'%':
            if size - i < 3 or HEX[path[i + 1]] == NOT_HEX or HEX[path[i + 2]] == NOT_HEX:
                return -1
            c = <uint8_t>(HEX[path[i + 1]] << 4 | HEX[path[i + 2]])
            i += 2
            if c < 0x20 or c == c'/' or c == 0x7F:
                return -1
        if c == c'\\':
            return -1
        if c == c'/':
            if n and not _takes_segment(out, segment, n, odd_at):
                return -1
            segment = n
        out[n] = c
        n += 1
        i += 1
    if n and out[n - 1] != c'/' and not _takes_segment(out, segment, n, odd_at):
        return -1
    return n


cdef bint _takes_segment(const uint8_t *out, int slash, int end, int *odd_at) noexcept nogil:
    """Whether a segment is not empty, no dot segment, and not ambiguous. Notes the first odd one.
    """
    cdef int start = slash + 1 if out[slash] == c'/' else slash             # "*" has no slash
    cdef int size = end - start
    cdef bint is_odd = False
    if size == 0 or size <= 2 and out[start] == c'.' and (size == 1 or out[start + 1] == c'.'):
        return False
    if not _is_clear(out + start, size, &is_odd):
        return False
    if is_odd and odd_at[0] == EXACT:
        odd_at[0] = start
    return True


cdef bint _is_clear(const uint8_t *at, int size, bint *is_odd) noexcept nogil:
    """Whether no reader finds a slash, a dot segment or an escape in a segment, wherever it ends
    the path and whatever it leaves out. `is_odd` is set if readers see different text.
    """
    cdef uint32_t code = 0
    cdef int letters = 0                # characters of ASCII that every reader keeps, without dots
    cdef int dots = 0
    cdef int dots_perhaps = 0
    cdef bint has_solid = False
    cdef bint has_entity = memchr(at, c'&', size) != NULL and memchr(at, c';', size) != NULL
    cdef int width
    cdef Kind kind
    cdef int i = 0
    while i < size:
        width = 1
        if at[i] >= 0x80 or at[i] == c'%' or at[i] == c';' or at[i] == c'?' or at[i] == c'#':
            is_odd[0] = True
            if letters == 0 and _could_be_dots(dots, 0 if has_solid else dots_perhaps):
                return False
        if at[i] >= 0x80:
            width = _character(at + i, size - i, &code)
            kind = kind_of(code) if width else REFUSED
            if kind == REFUSED:
                return False
            has_solid |= kind == SOLID
            dots_perhaps += kind == DOT
        elif at[i] == c'%':
            if i + 1 < size and (HEX[at[i + 1]] != NOT_HEX or at[i + 1] == c'%' or at[i + 1] | 0x20 == c'u' or at[i + 1] >= 0x80):
                return False
            if i + 1 < size and _may_merge(at, i + 1, size):
                return False
        elif at[i] == c';':
            if i == 0 or has_entity:
                return False
        elif at[i] == c'.':
            dots += 1
        elif at[i] != c'?' and at[i] != c'#' and not _may_merge(at, i, size):
            letters += 1
        i += width
    return letters != 0 or not is_odd[0] or not _could_be_dots(dots, 0 if has_solid else dots_perhaps)


cdef inline bint _may_merge(const uint8_t *at, int i, int size) noexcept nogil:
    """Whether a letter and a mark that follows it (U+0300 to U+036F) may become one character, as
    `e` and an accent do: then a reader may leave both out.
    """
    return c'a' <= at[i] | 0x20 <= c'z' and i + 1 < size and 0xCC <= at[i + 1] <= 0xCD


cdef inline bint _could_be_dots(int dots, int perhaps) noexcept nogil:
    """Whether a segment of `dots` dots and `perhaps` that may be dots could be a dot segment."""
    return dots <= 2 and dots + perhaps >= 1


cdef int _character(const uint8_t *at, int size, uint32_t *code) noexcept nogil:
    """Decode a character beyond ASCII (UTF-8, RFC 3629). Its size; 0: it is malformed."""
    cdef int following = 1 if 0xC2 <= at[0] <= 0xDF else 2 if at[0] >> 4 == 0xE else 3 if 0xF0 <= at[0] <= 0xF4 else 0
    cdef int i
    if following == 0 or size <= following:
        return 0
    code[0] = at[0] & (0x3F >> following)
    for i in range(1, following + 1):
        if at[i] >> 6 != 2:
            return 0
        code[0] = code[0] << 6 | (at[i] & 0x3F)
    if following == 2 and (code[0] < 0x800 or 0xD800 <= code[0] <= 0xDFFF) or following == 3 and not 0x10000 <= code[0] <= 0x10FFFF:
        return 0
    return following + 1


cdef Kind kind_of(uint32_t code) noexcept nogil:
    """The kind of a character beyond ASCII."""
    cdef int low = 0
    cdef int high = run_count
    cdef int middle
    while low < high:
        middle = (low + high) // 2
        if runs[middle].last < code:
            low = middle + 1
        else:
            high = middle
    return runs[low].kind if low < run_count and runs[low].first <= code else REFUSED


# -------------------------------------------------------------------------------- odd paths, routes

cdef bint stays_outside(
    const uint8_t *normal, uint32_t size, uint32_t odd_at, const uint8_t *route, uint32_t route_size
) noexcept nogil:
    """Whether no reader takes an odd path for a path of a route that it is not under. `normal`: the
    normal path; `odd_at`: where its first odd segment begins.
    """
    cdef const uint8_t *wanted = route + odd_at
    cdef const uint8_t *slash
    cdef uint32_t wanted_size
    cdef uint32_t start = odd_at
    cdef uint32_t end
    if route_size <= odd_at or memcmp(normal, route, odd_at) != 0:
        return True
    slash = <const uint8_t *>memchr(wanted, c'/', route_size - odd_at)
    wanted_size = <uint32_t>(slash - wanted) if slash != NULL else route_size - odd_at
    if size - odd_at > ODD_BYTES_MAX or wanted_size > SEGMENT_BITS:
        return False
    while start <= size:
        slash = <const uint8_t *>memchr(normal + start, c'/', size - start)
        end = <uint32_t>(slash - normal) if slash != NULL else size
        if _could_be(normal + start, end - start, wanted, wanted_size):
            return False
        start = end + 1
    return True


cdef bint _could_be(const uint8_t *at, uint32_t size, const uint8_t *wanted, uint32_t wanted_size) noexcept nogil:
    """Whether some reader takes a segment for `wanted`. Works through the segment with a set of
    places in `wanted`, a bit each: those up to which some reader has read by now.
    """
    cdef uint64_t places = 1
    cdef uint64_t whole = <uint64_t>1 << wanted_size
    cdef uint32_t code = 0
    cdef uint32_t i = 0
    cdef int width
    while i < size and places:
        if at[i] >= 0x80:
            if places & whole:
                return True                                     # a reader stops here
            width = max(_character(at + i, <int>(size - i), &code), 1)
            places |= _read_character(places, code, at + i, width, wanted, wanted_size)
            i += <uint32_t>width
            continue
        if at[i] == c'%' or at[i] == c';' or at[i] == c'?' or at[i] == c'#':
            if places & whole:
                return True
        elif _may_merge(at, <int>i, <int>size):
            if places & whole:
                return True
            places |= _read_on(places, at[i], wanted, wanted_size)
        else:
            places = _read_on(places, at[i], wanted, wanted_size)
        i += 1
    return places & whole != 0


cdef uint64_t _read_character(
    uint64_t places, uint32_t code, const uint8_t *at, int width, const uint8_t *wanted, uint32_t wanted_size
) noexcept nogil:
    """The places after a character beyond ASCII, read as one or, in Latin-1, as its bytes."""
    cdef Kind kind = kind_of(code)
    cdef uint64_t after = places
    cdef uint64_t whole = (<uint64_t>2 << wanted_size) - 1
    cdef uint64_t read
    cdef uint8_t letter
    cdef int i
    for i in range(width):
        if LATIN_1[at[i]]:
            after |= _read_form(after, LATIN_1[at[i]], wanted, wanted_size)
    if kind == LETTER:
        letter = base[code] if code < BASES else <uint8_t>(c'a' + (code - 0xFF21) % 0x20) if code >= 0xFF21 else <uint8_t>ANY
        if letter:
            read = _read_form(places, letter, wanted, wanted_size)
            after |= read | read << 1 & whole
    elif kind != SOLID:
        after |= _read_form(places, c'0', wanted, wanted_size)
    return after


cdef uint64_t _read_form(uint64_t places, uint8_t form, const uint8_t *wanted, uint32_t wanted_size) noexcept nogil:
    """The places after a base letter in either case, after one or more signs (b"0"), or after ANY
    character.
    """
    cdef uint64_t after = 0
    cdef uint32_t j
    for j in range(wanted_size):
        if form == ANY or form != c'0' and wanted[j] | 0x20 == form or form == c'0' and strchr(SIGNS, wanted[j]) != NULL:
            if (places | (after if form == c'0' else 0)) >> j & 1:
                after |= <uint64_t>2 << j
    return after


cdef uint64_t _read_on(uint64_t places, uint8_t c, const uint8_t *wanted, uint32_t wanted_size) noexcept nogil:
    """The places after a character of ASCII, which every reader keeps."""
    cdef uint64_t after = 0
    cdef uint32_t j
    for j in range(wanted_size):
        if places >> j & 1 and wanted[j] == c:
            after |= <uint64_t>2 << j
    return after


# ------------------------------------------------------------------------------ for tests and tools

def routing_path(bytes path not None):
    found = readable_path(path)
    return None if found is None or found[1] != EXACT else found[0]


def readable_path(bytes path not None):
    cdef bytearray out = bytearray(len(path) + 1)
    cdef int odd_at = EXACT
    cdef int size = normal_path(
        <const uint8_t *><const char *>path, <uint32_t>len(path), <uint8_t *><char *>out, &odd_at)
    return None if size < 0 else (bytes(out[:size]), odd_at)


def may_be_under(bytes path not None, str route not None):
    cdef bytes normal
    cdef bytes prefix = route.encode("ascii")
    cdef int odd_at
    normal, odd_at = readable_path(path)
    return odd_at != EXACT and not stays_outside(
        <const uint8_t *><const char *>normal, <uint32_t>len(normal), <uint32_t>odd_at,
        <const uint8_t *><const char *>prefix, <uint32_t>len(prefix))


def kind_of_character(uint32_t code):
    return next(name for name, kind in _KINDS.items() if kind == kind_of(code))
