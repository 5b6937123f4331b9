from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef enum ChunkState:
    SIZE_FIRST = 0              # the first digit of a chunk's size comes next
    SIZE                        # more digits, or what ends them
    BLANK                       # white space after the size: an extension must follow
    EXTENSION
    QUOTED                      # a quoted-string of an extension
    QUOTED_PAIR                 # after a backslash in it
    SIZE_LF
    DATA
    DATA_CR
    DATA_LF
    LINE_START                  # a trailer field, or the empty line
    TRAILER_NAME
    TRAILER_VALUE
    TRAILER_LF
    END_LF
    DONE


cdef struct Chunks:
    # Where a reader is in one chunked body. All zero at its beginning.
    ChunkState state
    uint8_t is_blank            # 0 or 1: the last octet of an extension was white space
    uint8_t may_begin           # 0 or 1: before it came `;` or `=`
    uint32_t line_bytes         # of the size line so far, or of the trailer section
    uint32_t extension_bytes    # of all extensions so far; the caller bounds them
    uint64_t left               # data of the chunk that is still to come


cdef int dechunk(Chunks *chunks, uint8_t *at, uint32_t size, uint32_t *consumed, uint32_t *produced) noexcept nogil
