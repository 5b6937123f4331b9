# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
# cython: freethreading_compatible=True
"""What a debug build knows of the locks that a thread holds. The rules stand in lock.pxd."""

from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort

cdef extern from *:
    """
    static __thread int fastticket_locks_held = 0;
    """
    int fastticket_locks_held


cdef void note_acquired() noexcept nogil:
    global fastticket_locks_held
    fastticket_locks_held += 1


cdef void note_released() noexcept nogil:
    global fastticket_locks_held
    fastticket_locks_held -= 1


cdef void check_none_is_held(const char *what) noexcept nogil:
    """End the process if this thread holds a lock: it is about to take, or to call, `what`."""
    if fastticket_locks_held:
        fprintf(stderr, b"fastticket: under a lock: %s\n", what)
        abort()


# ------------------------------------------------------------------------------ for tests and tools

def check_free(str what):
    """End the process if this thread holds a lock."""
    cdef bytes text = what.encode()
    check_none_is_held(text)
