/* What chunks.pyx promises of chunked bodies. `fuzz/run.py chunks` builds it and runs it. */
#include <core.c> /* from a system folder (-isystem): its warnings are not ours */

static const char *const mode_names[] = {"body"};

#include "harness.h"

#define CHUNKS(what, name) __pyx_##what##_10fastticket_9dataplane_6chunks_##name

typedef struct CHUNKS(t, Chunks) Chunks;

enum { SPLIT_EVERYWHERE_BYTES = 32 /* up to here a body is split in two at every place */ };

struct body {
    int verdict;
    uint32_t consumed;
    struct text data;
};

/* Reads a body in pieces: the first has `first` bytes, each other one `step`. */
static struct body read_body(const uint8_t *at, uint32_t size, uint32_t first, uint32_t step) {
    struct body body = {0, 0, {room(size), 0}};
    Chunks chunks;
    memset(&chunks, 0, sizeof chunks);
    for (uint32_t rest = size, piece = first; body.verdict == 0 && rest > 0; rest -= piece, piece = step) {
        uint32_t consumed = 0;
        uint32_t produced = 0;
        piece = piece < rest ? piece : rest;
        uint8_t *buffer = copy_of(at + (size - rest), piece);
        body.verdict = CHUNKS(f, dechunk)(&chunks, buffer, piece, &consumed, &produced);
        require(consumed <= piece && produced <= consumed, "a body is read in place");
        require(body.verdict != 0 || consumed == piece, "an incomplete body takes all bytes");
        body.consumed += consumed;
        put(&body.data, buffer, produced);
        free(buffer);
    }
    return body;
}

static void check_split(const uint8_t *at, uint32_t size, uint32_t first, uint32_t step, const struct body *whole) {
    struct body split = read_body(at, size, first, step);
    require(split.verdict == whole->verdict, "the verdict is the same in pieces");
    if (whole->verdict >= 0) { /* what came before an error may have been passed on, or not */
        require(split.consumed == whole->consumed, "the end is the same in pieces");
        require(split.data.size == whole->data.size && memcmp(split.data.at, whole->data.at, split.data.size) == 0,
                "the data are the same in pieces");
    }
    free(split.data.at);
}

/* The first two bytes say where the body is split. */
static void check_body(const uint8_t *input, uint32_t size) {
    if (size < 2) return;
    const uint8_t *at = input + 2;
    size -= 2;
    struct body whole = read_body(at, size, size, 1);
    check_split(at, size, input[0], 1 + input[1], &whole);
    check_split(at, size, 1, 1, &whole);
    for (uint32_t first = 1; first < size && size <= SPLIT_EVERYWHERE_BYTES; first++)
        check_split(at, size, first, size, &whole);
    if (whole.verdict == 1) {
        struct body again = read_body(at, whole.consumed, whole.consumed, 1);
        require(again.verdict == 1 && again.consumed == whole.consumed, "what follows a body does not matter");
        free(again.data.at);
    }
    free(whole.data.at);
}

static void check(unsigned mode, const uint8_t *rest, uint32_t rest_size) {
    (void)mode;
    check_body(rest, rest_size);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    start_python("chunks", PyInit_chunks);
    return 0;
}
