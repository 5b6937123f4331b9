/* What clients.pyx promises of PROXY headers and of addresses. `fuzz/run.py clients` builds and runs
 * it. */
#include <core.c> /* from a system folder (-isystem): its warnings are not ours */

static const char *const mode_names[] = {"PROXY header", "address"};

#include "harness.h"

#define CLIENTS(what, name) __pyx_##what##_10fastticket_9dataplane_7clients_##name

typedef struct CLIENTS(t, Announced) Announced;

enum { HEADER, ADDRESS };
enum { MOST = 4096, PREFIXES_MAX = 64 };

/* Reads a PROXY header: its size, 0 if it is incomplete, or the negative status to refuse with. */
static int read_header(const uint8_t *at, uint32_t size, Announced *announced) {
    memset(announced, 0, sizeof *announced);
    return CLIENTS(f, read_proxy_header)(at, size, MOST, announced);
}

static void check_header(const uint8_t *input, uint32_t size) {
    if (size == 0) return;
    Announced whole, part;
    uint8_t *header = copy_of(input, size);
    int verdict = read_header(header, size, &whole);
    require(verdict == -400 || verdict == -431 || (verdict >= 0 && verdict <= (int)size), "a header has a size, or is refused");
    require(verdict <= MOST, "a header is not too large");
    /* Bytes that come later change nothing: a header is incomplete up to some size, and from there
     * on the verdict stays. */
    uint32_t step = 1 + size / PREFIXES_MAX;
    int longer = verdict;
    for (uint32_t shorter = size; shorter > step;) {
        shorter -= step;
        ASAN_POISON_MEMORY_REGION(header + shorter, size - shorter);
        int now = read_header(header, shorter, &part);
        ASAN_UNPOISON_MEMORY_REGION(header + shorter, size - shorter);
        require(now == 0 || now == verdict, "bytes that come later change nothing");
        require(now == 0 || longer == verdict, "what is decided stays so");
        if (now > 0) require(memcmp(&part, &whole, sizeof part) == 0, "the same header names the same client");
        longer = now;
    }
    if (verdict > 0) {
        uint8_t *exact = copy_of(header, (uint32_t)verdict);
        require(read_header(exact, (uint32_t)verdict, &part) == verdict && memcmp(&part, &whole, sizeof part) == 0,
                "what follows a header is not read");
        free(exact);
    }
    free(header);
}

/* An address that is read, written and read again is the same. */
static void check_address(const uint8_t *input, uint32_t size) {
    uint8_t *text = copy_of(input, size);
    uint8_t address[16], again[16];
    if (CLIENTS(f, read_address)(text, size, address)) {
        char written[46];
        int chars = CLIENTS(f, write_address)(address, written);
        require(chars > 0 && chars < (int)sizeof written, "an address has a text");
        uint8_t *exact = copy_of((const uint8_t *)written, (uint32_t)chars);
        require(CLIENTS(f, read_address)(exact, (uint32_t)chars, again) && memcmp(address, again, sizeof again) == 0,
                "an address that is written is the same");
        free(exact);
    }
    free(text);
}

static void check(unsigned mode, const uint8_t *input, uint32_t size) {
    if (mode == HEADER) check_header(input, size);
    else check_address(input, size);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    start_python("clients", PyInit_clients);
    return 0;
}
