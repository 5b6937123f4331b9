/* What cookiefields.pyx promises of the field Cookie. `fuzz/run.py cookiefields` builds and runs it. */
#include <core.c> /* from a system folder (-isystem): its warnings are not ours */

static const char *const mode_names[] = {"cookie"};

#include "harness.h"

typedef struct __pyx_t_10fastticket_9dataplane_6octets_Span Span;

#define COOKIES(what, name) __pyx_##what##_10fastticket_9dataplane_12cookiefields_##name

static void require_inside(Span span, uint32_t size) {
    require(span.at <= size && span.size <= size - span.at, "a span lies inside the field");
}

/* The first byte is the size of a name, which follows; the rest is the value of a Cookie field. */
static void check_cookie(const uint8_t *input, uint32_t size) {
    if (size == 0 || size - 1 < input[0]) return;
    uint32_t name_size = input[0];
    uint8_t *name = copy_of(input + 1, name_size);
    const uint8_t *value = input + 1 + name_size;
    uint32_t value_size = size - 1 - name_size;
    uint8_t *once = copy_of(value, value_size);
    struct text twice = {room(2 * value_size + 1), 0};
    put(&twice, value, value_size);
    put(&twice, ";", 1);
    put(&twice, value, value_size);
    Span found = {0, 0};
    Span last = {0, 0};
    int count = COOKIES(f, find_cookie)(once, (Span){0, value_size}, name, name_size, &found);
    int twice_count = COOKIES(f, find_cookie)(twice.at, (Span){0, twice.size}, name, name_size, &last);
    require(count >= 0 && twice_count == 2 * count, "a field said twice has twice the cookies");
    if (count) {
        require_inside(found, value_size);
        require(found.at > name_size && once[found.at - 1] == '=' &&
                    memcmp(once + found.at - 1 - name_size, name, name_size) == 0,
                "a cookie that is found has the name");
        require(memchr(once + found.at, ';', found.size) == NULL, "a cookie ends at a semicolon");
        require(last.at == found.at + value_size + 1 && last.size == found.size, "the last cookie is the one found");
    }
    free(twice.at);
    free(once);
    free(name);
}

static void check(unsigned mode, const uint8_t *rest, uint32_t rest_size) {
    (void)mode;
    check_cookie(rest, rest_size);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    start_python("cookiefields", PyInit_cookiefields);
    return 0;
}
