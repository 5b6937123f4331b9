/* What paths.pyx promises of request paths. `fuzz/run.py paths` builds it and runs it. */
#include <core.c> /* from a system folder (-isystem): its warnings are not ours */

static const char *const mode_names[] = {"path", "path and route"};

#include "harness.h"

#define PATHS(what, name) __pyx_##what##_10fastticket_9dataplane_5paths_##name

enum { PATH, PATH_AND_ROUTE };

/* Whether readers agree where a path leads: no empty segment but the last, and no dot segments. */
static int has_plain_segments(const uint8_t *path, uint32_t size) {
    for (uint32_t at = 1, end; at < size; at = end + 1) {
        for (end = at; end < size && path[end] != '/'; end++) continue;
        uint32_t dots = 0;
        while (at + dots < end && path[at + dots] == '.') dots++;
        if (end == at || (dots == end - at && dots <= 2)) return 0;
    }
    return 1;
}

/* Whether a path is plain without its characters beyond ASCII and, `with_letters`, without the
 * letters that may combine with one. Segments that had nothing else do not count. */
static int is_plain_without_others(const uint8_t *path, uint32_t size, int with_letters) {
    uint8_t *left = room(size);
    uint32_t count = 0;
    for (uint32_t i = 0; i < size; i++) {
        int merges = i + 1 < size && (path[i + 1] == 0xCC || path[i + 1] == 0xCD) && (path[i] | 0x20) >= 'a' && (path[i] | 0x20) <= 'z';
        if (path[i] >= 0x80 || (with_letters && merges) || (path[i] == '/' && count && left[count - 1] == '/')) continue;
        left[count++] = path[i];
    }
    int is_plain = has_plain_segments(left, count);
    free(left);
    return is_plain;
}

static void check_escapes(const uint8_t *path, uint32_t size) {
    for (uint32_t i = 0; i < size; i++) {
        require(path[i] != '\\' && path[i] != 0x7F, "nothing ambiguous is left in a normal path");
        if (path[i] == '%' && i + 1 < size)
            require(!strchr("0123456789abcdefABCDEFuU%", path[i + 1]) && path[i + 1] < 0x80, "no escape is left in it");
    }
}

static void check(unsigned mode, const uint8_t *input, uint32_t size) {
    uint32_t route_size = mode == PATH_AND_ROUTE && size ? input[0] : 0;
    if (mode == PATH_AND_ROUTE && (size == 0 || size - 1 < route_size)) return;
    uint32_t before = mode == PATH_AND_ROUTE ? 1 + route_size : 0;
    uint32_t path_size = size - before;
    if (path_size == 0 || input[before] != '/') return;
    for (uint32_t i = before; i < size; i++)
        if (input[i] <= ' ' || input[i] == 0x7F) return; /* no request's target has such */
    uint8_t *route = copy_of(input + before - route_size, route_size);
    uint8_t *path = copy_of(input + before, path_size);
    uint8_t *out = room(path_size);
    int odd_at = 0;
    int normal = PATHS(f, normal_path)(path, path_size, out, &odd_at);
    require(normal >= -1 && normal <= (int)path_size, "a normal path is not longer than the path");
    if (normal >= 0) {
        uint32_t normal_size = (uint32_t)normal;
        uint8_t *exact = copy_of(out, normal_size);
        require(odd_at >= -1 && odd_at < normal + (normal == 0), "the odd segment is in it");
        check_escapes(exact, normal_size);
        require(has_plain_segments(exact, normal_size), "its segments are plain");
        require(is_plain_without_others(exact, normal_size, 0) && is_plain_without_others(exact, normal_size, 1),
                "they are without what is beyond ASCII");
        if (odd_at == -1) {
            require(memchr(exact, '%', normal_size) == NULL && memchr(exact, ';', normal_size) == NULL, "an exact path has nothing odd");
            require(PATHS(f, normal_path)(exact, normal_size, out, &odd_at) == normal && odd_at == -1 &&
                        memcmp(exact, out, normal_size) == 0,
                    "an exact path is normal");
        } else if (mode == PATH_AND_ROUTE) {
            int is_outside = PATHS(f, stays_outside)(exact, normal_size, (uint32_t)odd_at, route, route_size);
            if (is_outside && route_size > (uint32_t)odd_at && memcmp(route, exact, (uint32_t)odd_at) == 0) {
                /* Cut where the odd segment begins to be odd, it is not the route's segment. */
                uint32_t end = (uint32_t)odd_at;
                while (end < normal_size && exact[end] < 0x80 && !strchr("%;?#/", exact[end])) end++;
                require(!(route_size == end && memcmp(route, exact, end) == 0), "a path that is cut is not of another route");
            }
        }
        free(exact);
    }
    require(PATHS(f, is_normal)(path, path_size) == 0 || (normal == (int)path_size && odd_at == -1), "a quick look errs on one side");
    free(out);
    free(path);
    free(route);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    start_python("paths", PyInit_paths);
    return 0;
}
