/* Where callgrind begins and ends to count: loaded by `instructions.py` into the process that it counts in. */
#include <valgrind/callgrind.h>

void begin_count(void) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

/* Writes what was counted to a file of callgrind's, under this name. */
void end_count(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}
