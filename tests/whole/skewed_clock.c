/* A clock of its own for a server under test, by LD_PRELOAD: gettimeofday, which is the TIME of Redis. (libfaketime does not start with jemalloc.)
 * The file that SKEWED_CLOCK names says "since ahead drift": from the monotonic time `since` on the clock is `ahead` seconds ahead, and
 * gains `drift` seconds a second. It is mapped once and read at each call, so that a change is in force at once. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *setting;

__attribute__((constructor)) static void open_setting(void) {
    const char *name = getenv("SKEWED_CLOCK");
    int file = name ? open(name, O_RDONLY) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, 100, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) setting = mapped;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec real, steady;
    clock_gettime(CLOCK_REALTIME, &real);
    clock_gettime(CLOCK_MONOTONIC, &steady);
    double ahead = 0;
    if (setting) {
        char *at;
        double since = strtod(setting, &at), base = strtod(at, &at), drift = strtod(at, &at);
        ahead = base + (steady.tv_sec + steady.tv_nsec / 1e9 - since) * drift;
    }
    long long us = real.tv_sec * 1000000LL + real.tv_nsec / 1000 + (long long)(ahead * 1e6);
    now->tv_sec = us / 1000000;
    now->tv_usec = us % 1000000;
    return 0;
}
