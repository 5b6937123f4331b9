"""Where the frames of a WebSocket begin and end (RFC 6455, 5.2), in bytes that pass by. Nothing of
them is read but their headers.

So that a frame of our own comes between two of the sender's, and never into one.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    OPCODE_CLOSE = 8
    CLOSE_FRAME_BYTES = 4


cdef struct Frames:
    uint64_t left               # payload of the frame under way
    uint64_t size               # of the payload whose header is being read
    uint8_t seen                # of that header's bytes
    uint8_t length_bytes        # in it, after the first two
    uint8_t header_bytes        # in all
    bint has_closed             # a frame said so
    bint is_control             # the frame under way (RFC 6455, 5.5)
    bint has_data               # some of another one has passed; who asks makes it false


cdef inline void follow(Frames *frames, const uint8_t *at, uint32_t count) noexcept nogil:
    """So many bytes have come."""
    cdef uint32_t i = 0
    cdef uint64_t passed
    while i < count:
        if frames.left:
            passed = min(frames.left, <uint64_t>(count - i))
            frames.left -= passed
            frames.has_data |= not frames.is_control
            i += <uint32_t>passed
            continue
        if frames.seen == 0:
            frames.has_closed |= (at[i] & 0x0F) == OPCODE_CLOSE
            frames.is_control = at[i] & 0x08
            frames.has_data |= not frames.is_control
        elif frames.seen == 1:
            frames.size = at[i] & 0x7F
            frames.length_bytes = 8 if frames.size == 127 else 2 if frames.size == 126 else 0
            frames.header_bytes = <uint8_t>(2 + frames.length_bytes + (4 if at[i] & 0x80 else 0))
            if frames.length_bytes:
                frames.size = 0
        elif frames.seen < 2 + frames.length_bytes:
            frames.size = frames.size << 8 | at[i]
        frames.seen += 1
        i += 1
        if frames.seen >= 2 and frames.seen == frames.header_bytes:
            frames.left = frames.size
            frames.seen = 0


cdef inline bint is_between(const Frames *frames) noexcept nogil:
    """No frame is under way."""
    return frames.left == 0 and frames.seen == 0


cdef inline const uint8_t *close_frame() noexcept nogil:
    """What a server sends that goes away: 1001."""
    return b"\x88\x02\x03\xe9"
