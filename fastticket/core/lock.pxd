# A lock that several threads take for a moment: a hundred nanoseconds of computation.
#
# Two rules, which a debug build (FASTTICKET_DEBUG=1) checks in every call:
#   - whoever holds a lock takes no other one, so there is no order to keep;
#   - whoever holds a lock makes no system call, takes no GIL, and allocates nothing.

cdef extern from *:
    """
    #ifdef FASTTICKET_DEBUG
    #define FASTTICKET_CHECKS_LOCKS 1
    #else
    #define FASTTICKET_CHECKS_LOCKS 0
    #endif
    """
    bint CHECKS_LOCKS "FASTTICKET_CHECKS_LOCKS"


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)


cdef struct Lock:
    pthread_mutex_t mutex


cdef void note_acquired() noexcept nogil
cdef void note_released() noexcept nogil
cdef void check_none_is_held(const char *what) noexcept nogil


cdef inline void make_lock(Lock *lock) noexcept nogil:
    pthread_mutex_init(&lock.mutex, NULL)       # Linux: cannot fail without attributes


cdef inline void end_lock(Lock *lock) noexcept nogil:
    pthread_mutex_destroy(&lock.mutex)


cdef inline void acquire(Lock *lock) noexcept nogil:
    if CHECKS_LOCKS:
        check_none_is_held(b"another lock")
    pthread_mutex_lock(&lock.mutex)
    if CHECKS_LOCKS:
        note_acquired()


cdef inline void release(Lock *lock) noexcept nogil:
    if CHECKS_LOCKS:
        note_released()
    pthread_mutex_unlock(&lock.mutex)


cdef inline void outside_locks(const char *what) noexcept nogil:
    """In front of a system call: this thread holds no lock."""
    if CHECKS_LOCKS:
        check_none_is_held(what)
