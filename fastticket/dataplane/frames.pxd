"""Where the frames of a WebSocket begin and end (RFC 6455, 5.2), in octets that pass by in pieces
of any size. Only the headers are read. So a frame of the gateway's own can be put between two of
the sender's, and never into one.

    FIRST ──► SECOND ──► LENGTH ──► MASK ──► PAYLOAD ──► FIRST
                         (2 or 8)   (4)

LENGTH, MASK and PAYLOAD are skipped where a frame has none.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    OPCODE_CLOSE = 8
    CLOSE_FRAME_BYTES = 4
    MASK_BYTES = 4


cdef enum FrameState:
    FIRST = 0                   # between two frames: the octet with the opcode comes next
    SECOND                      # the octet with the mask bit and the short length
    LENGTH                      # an extended length
    MASK
    PAYLOAD


cdef struct Frames:
    # What one side of a tunnel sends. All zero at its beginning.
    FrameState state
    uint8_t due                 # octets of LENGTH or MASK that are still to come
    uint8_t is_masked           # 0 or 1, as those that follow
    uint8_t is_control          # the frame under way is a control frame (RFC 6455, 5.5)
    uint8_t has_closed          # a Close frame has begun
    uint8_t has_data            # octets of a data frame have passed; the caller sets it back
    uint64_t left               # payload that is still to come


cdef inline void follow(Frames *frames, const uint8_t *at, uint32_t count) noexcept nogil:
    """Take note of the octets that pass now."""
    cdef uint32_t i = 0
    cdef uint64_t passed
    while i < count:
        if frames.state == FrameState.PAYLOAD:
            passed = min(frames.left, <uint64_t>(count - i))
            frames.left -= passed
            frames.has_data |= not frames.is_control
            i += <uint32_t>passed
            if frames.left == 0:
                frames.state = FrameState.FIRST
        else:
            _follow_header(frames, at[i])
            i += 1


cdef inline void _follow_header(Frames *frames, uint8_t octet) noexcept nogil:
    if frames.state == FrameState.FIRST:
        frames.has_closed |= (octet & 0x0F) == OPCODE_CLOSE
        frames.is_control = (octet & 0x08) != 0
        frames.has_data |= not frames.is_control
        frames.state = FrameState.SECOND
        return
    if frames.state == FrameState.SECOND:
        frames.is_masked = (octet & 0x80) != 0
        frames.left = octet & 0x7F
        frames.due = 8 if frames.left == 127 else 2 if frames.left == 126 else 0
        if frames.due:
            frames.left = 0
            frames.state = FrameState.LENGTH
            return
    else:
        if frames.state == FrameState.LENGTH:
            frames.left = frames.left << 8 | octet
        frames.due -= 1
        if frames.due:
            return
    if frames.is_masked and frames.state != FrameState.MASK:
        frames.due = MASK_BYTES
        frames.state = FrameState.MASK
    else:
        frames.state = FrameState.PAYLOAD if frames.left else FrameState.FIRST


cdef inline bint is_between(const Frames *frames) noexcept nogil:
    """Whether no frame is under way."""
    return frames.state == FrameState.FIRST


cdef inline const uint8_t *close_frame() noexcept nogil:
    """CLOSE_FRAME_BYTES: a Close frame of a server that goes away (1001; RFC 6455, 7.4.1)."""
    return b"\x88\x02\x03\xe9"
