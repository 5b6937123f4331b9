# The C library's clocks and calendar, as far as the data plane uses them.

cdef extern from "<time.h>" nogil:
    ctypedef int clockid_t
    struct timespec:
        long tv_sec
        long tv_nsec
    const clockid_t CLOCK_MONOTONIC
    const clockid_t CLOCK_REALTIME_COARSE
    int clock_gettime(clockid_t clock, timespec *out)
    ctypedef long time_t
    struct tm:
        pass
    tm *gmtime_r(const time_t *time, tm *out)
    size_t strftime(char *out, size_t size, const char *format, const tm *time)
