/* What the parsers of HTTP/1.1 promise, tried on the inputs of a coverage-guided fuzzer, under AddressSanitizer and
 * UndefinedBehaviorSanitizer. `fuzz/run.py` builds it and runs it.
 *
 *     http1 [libFuzzer's options] [FOLDER]        http1 FINDING       tries one input again
 *
 * Which parser reads an input, harness.h says. Every input is in a room of exactly its size, and what a parser must not see yet is poisoned.
 */
#include <core.c> /* from a system folder (-isystem): its warnings are not ours */

static const char *const mode_names[] = {"request", "response", "response to HEAD", "body", "cookie"};

#include "harness.h"

#define HTTP1(what, name) __pyx_##what##_10fastticket_9dataplane_5http1_##name

typedef struct HTTP1(t, Span) Span;
typedef struct HTTP1(t, Field) Field;
typedef struct HTTP1(t, Head) Head;
typedef struct HTTP1(t, Chunks) Chunks;

enum mode { REQUEST, RESPONSE, RESPONSE_TO_HEAD, BODY, COOKIE };

enum {
    PREFIXES_MAX = 64,          /* of a head that are read; of a short one that is all */
    SPLIT_EVERYWHERE_BYTES = 32 /* up to here a body is split in two at every place */
};

static struct HTTP1(obj, Names) *names;

/* ------------------------------------------------------------------------------------------------------------- heads */

static int parse(enum mode mode, const uint8_t *at, uint32_t size, Head *head) {
    if (mode == REQUEST) return HTTP1(f, parse_request)(names, at, size, head);
    return HTTP1(f, parse_response)(names, at, size, mode == RESPONSE ? HTTP1(e, GET) : HTTP1(e, HEAD), head);
}

static void require_inside(Span span, uint32_t size) {
    require(span.at <= size && span.size <= size - span.at, "a span lies inside the head");
}

static void check_spans(enum mode mode, const Head *head) {
    for (int i = 0; i < head->field_count; i++) {
        require_inside(head->fields[i].name, head->size);
        require_inside(head->fields[i].value, head->size);
    }
    for (int i = 0; i < head->nominated_count; i++) require_inside(head->nominated[i], head->size);
    if (mode == REQUEST) {
        require_inside(head->method_name, head->size);
        require_inside(head->target, head->size);
        require_inside(head->path, head->size);
        require_inside(head->host, head->size);
    } else {
        require_inside(head->reason, head->size);
    }
}

/* A head, and the bytes that it is about. */
struct reading {
    const uint8_t *at;
    Head head;
};

static void require_same_text(const struct reading *one, Span span, const struct reading *other, Span other_span) {
    require(span.size == other_span.size && memcmp(one->at + span.at, other->at + other_span.at, span.size) == 0,
            "the same message has the same texts");
}

/* Of an absolute-form without a path, the slash or star stands only in what is written anew. */
static Span without_slash(Span span, const struct reading *first, const struct reading *anew) {
    int has_more = first->head.target_is_bare && !anew->head.target_is_bare;
    return has_more ? (Span){span.at + 1, span.size - 1} : span;
}

static void require_same_fields(const struct reading *one, const struct reading *other) {
    require(one->head.field_count == other->head.field_count, "the same message has the same fields");
    for (int i = 0; i < one->head.field_count; i++) {
        const Field *field = &one->head.fields[i];
        const Field *other_field = &other->head.fields[i];
        require(field->kind == other_field->kind, "the same field is of the same kind");
        require(HTTP1(f, is_nominated)(one->at, &one->head, field) ==
                    HTTP1(f, is_nominated)(other->at, &other->head, other_field),
                "the same field is nominated");
        require_same_text(one, field->name, other, other_field->name);
        /* What Host says goes by the host of an absolute-form, which is compared by itself. */
        if (field->kind != HTTP1(e, HOST)) require_same_text(one, field->value, other, other_field->value);
    }
    require(one->head.nominated_count == other->head.nominated_count, "the same fields are nominated");
    for (int i = 0; i < one->head.nominated_count; i++)
        require_same_text(one, one->head.nominated[i], other, other->head.nominated[i]);
}

/* HTTP/1.0 needs none: then what an absolute-form says is lost where that becomes an origin-form. A gateway writes Host itself. */
static int has_host(const Head *head) {
    for (int i = 0; i < head->field_count; i++)
        if (head->fields[i].kind == HTTP1(e, HOST)) return 1;
    return 0;
}

static void require_same(enum mode mode, const struct reading *one, const struct reading *other) {
    const Head *a = &one->head;
    const Head *b = &other->head;
    require(a->minor == b->minor && a->framing == b->framing && a->has_length == b->has_length &&
                a->content_length == b->content_length,
            "the same message has the same framing");
    require(a->close == b->close && a->keep_alive == b->keep_alive && a->upgrade == b->upgrade,
            "the same message has the same connection options");
    require_same_fields(one, other);
    if (mode == REQUEST) {
        require(a->method == b->method && a->expect_continue == b->expect_continue, "the same request asks the same");
        require_same_text(one, a->method_name, other, b->method_name);
        require_same_text(one, a->target, other, without_slash(b->target, one, other));
        require_same_text(one, a->path, other, without_slash(b->path, one, other));
        if (has_host(a)) require_same_text(one, a->host, other, b->host);
    } else {
        require(a->status == b->status, "the same response has the same status");
        require_same_text(one, a->reason, other, b->reason);
    }
}

/* Bytes that come later change nothing: it is INCOMPLETE up to some size, and from there on it is the verdict. */
static void check_prefixes(enum mode mode, uint8_t *at, uint32_t size, int verdict) {
    static Head head;
    uint32_t step = 1 + size / PREFIXES_MAX;
    int longer = verdict;
    for (uint32_t shorter = size; shorter >= step;) {
        shorter -= step;
        ASAN_POISON_MEMORY_REGION(at + shorter, size - shorter);
        int now = parse(mode, at, shorter, &head);
        require(now == longer || now == HTTP1(e, INCOMPLETE), "more bytes do not change a verdict");
        require(verdict <= 0 || (now == verdict) == (shorter >= (uint32_t)verdict), "a head is complete at its end");
        longer = now;
    }
    ASAN_UNPOISON_MEMORY_REGION(at, size);
}

struct text {
    uint8_t *at;
    uint32_t size;
};

static void put(struct text *text, const void *from, uint32_t size) {
    memcpy(text->at + text->size, from, size);
    text->size += size;
}

static void put_span(struct text *text, const struct reading *reading, Span span) {
    put(text, reading->at + span.at, span.size);
}

static void put_start_line(struct text *text, enum mode mode, const struct reading *reading) {
    const Head *head = &reading->head;
    char line[32];
    if (mode == REQUEST) {
        put_span(text, reading, head->method_name);
        put(text, head->target_is_star ? " *" : " /", head->target_is_bare ? 2 : 1);
        put_span(text, reading, head->target);
        put(text, line, (uint32_t)snprintf(line, sizeof line, " HTTP/1.%d\r\n", head->minor));
    } else {
        put(text, line, (uint32_t)snprintf(line, sizeof line, "HTTP/1.%d %03d ", head->minor, head->status));
        put_span(text, reading, head->reason);
        put(text, "\r\n", 2);
    }
}

/* Written anew from what was understood, as a gateway does, it is the same message to whoever reads it next. */
static void check_written_anew(enum mode mode, const struct reading *reading) {
    static struct reading anew;
    const Head *head = &reading->head;
    struct text text = {room(2 * head->size), 0}; /* no text is written more than twice: the host, in Host */
    put_start_line(&text, mode, reading);
    for (int i = 0; i < head->field_count; i++) {
        const Field *field = &head->fields[i];
        int is_host = mode == REQUEST && field->kind == HTTP1(e, HOST);
        put_span(&text, reading, field->name);
        put(&text, ":", 1);
        put_span(&text, reading, is_host ? head->host : field->value);
        put(&text, "\r\n", 2);
    }
    put(&text, "\r\n", 2);
    uint8_t *exact = copy_of(text.at, text.size);
    anew.at = exact;
    require(parse(mode, exact, text.size, &anew.head) == (int)text.size, "what was understood can be written anew");
    require_same(mode, reading, &anew);
    free(exact);
    free(text.at);
}

static void check_head(enum mode mode, const uint8_t *input, uint32_t size) {
    static struct reading first, second;
    uint8_t *at = copy_of(input, size);
    memset(&first, 0, sizeof first); /* different, so that what is left of an earlier parse would be seen */
    memset(&second, 0xA5, sizeof second);
    first.at = second.at = at;
    int verdict = parse(mode, at, size, &first.head);
    require(verdict <= (int)size, "a head is not larger than what was read");
    require(verdict >= 0 || (verdict <= -400 && verdict > -600), "a refusal is a status");
    if (verdict > 0) {
        require(first.head.size == (uint32_t)verdict, "a head knows its size");
        check_spans(mode, &first.head);
        require(parse(mode, at, (uint32_t)verdict - 1, &second.head) == HTTP1(e, INCOMPLETE), "a head has an end");
        require(parse(mode, at, (uint32_t)verdict, &second.head) == verdict, "what follows a head does not matter");
        require_same(mode, &first, &second);
        check_written_anew(mode, &first);
    }
    check_prefixes(mode, at, size, verdict);
    free(at);
}

/* ------------------------------------------------------------------------------------------------------------ bodies */

struct body {
    int verdict;
    uint32_t consumed;
    struct text data;
};

/* Its first piece has `first` bytes, every other one `step`. */
static struct body read_body(const uint8_t *at, uint32_t size, uint32_t first, uint32_t step) {
    struct body body = {0, 0, {room(size), 0}};
    Chunks chunks;
    memset(&chunks, 0, sizeof chunks);
    for (uint32_t rest = size, piece = first; body.verdict == 0 && rest > 0; rest -= piece, piece = step) {
        uint32_t consumed = 0;
        uint32_t produced = 0;
        piece = piece < rest ? piece : rest;
        uint8_t *buffer = copy_of(at + (size - rest), piece);
        body.verdict = HTTP1(f, dechunk)(&chunks, buffer, piece, &consumed, &produced);
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

/* Its first two bytes say where it is split. */
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

/* ----------------------------------------------------------------------------------------------------------- cookies */

/* Its first byte is the size of a name, which comes next; then comes the value of a Cookie field. */
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
    int count = HTTP1(f, find_cookie)(once, (Span){0, value_size}, name, name_size, &found);
    int twice_count = HTTP1(f, find_cookie)(twice.at, (Span){0, twice.size}, name, name_size, &last);
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

/* ----------------------------------------------------------------------------------------------------- for libFuzzer */

static void check(unsigned mode, const uint8_t *rest, uint32_t rest_size) {
    if (mode == BODY) check_body(rest, rest_size);
    else if (mode == COOKIE) check_cookie(rest, rest_size);
    else check_head((enum mode)mode, rest, rest_size);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    PyObject *http1 = start_python("http1", PyInit_http1);
    names = (struct HTTP1(obj, Names) *)PyObject_CallMethod(http1, "Names", "((s))", "X-Forwarded-User");
    if (PyErr_Occurred()) PyErr_Print();
    require(names != NULL, "there are names");
    return 0;
}
