/* What http1.pyx promises of message heads, tried on the inputs of a coverage-guided fuzzer, under
 * AddressSanitizer and UndefinedBehaviorSanitizer. `fuzz/run.py` builds it and runs it.
 *
 *     http1 [libFuzzer's options] [FOLDER]        http1 FINDING       tries one input again
 *
 * harness.h says which parser reads an input. Every input is in memory of exactly its size, and what
 * a parser must not see yet is poisoned.
 */
#include <core.c> /* from a system folder (-isystem): its warnings are not ours */

static const char *const mode_names[] = {"request", "response", "response to HEAD"};

#include "harness.h"

#define HTTP1(what, name) __pyx_##what##_10fastticket_9dataplane_5http1_##name
#define NAMES(what, name) __pyx_##what##_10fastticket_9dataplane_10fieldnames_##name

typedef struct __pyx_t_10fastticket_9dataplane_6octets_Span Span;
typedef struct HTTP1(t, Field) Field;
typedef struct HTTP1(t, Head) Head;

enum mode { REQUEST, RESPONSE, RESPONSE_TO_HEAD };

enum { INCOMPLETE = __pyx_e_10fastticket_9dataplane_6octets_INCOMPLETE };
enum { PREFIXES_MAX = 64 /* of a head that are read; of a short one that is all */ };

static struct NAMES(obj, Names) *names;

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

/* An absolute-form without a path has its slash or star only when it is written anew. */
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
        if (field->kind != NAMES(e, HOST)) require_same_text(one, field->value, other, other_field->value);
    }
    require(one->head.nominated_count == other->head.nominated_count, "the same fields are nominated");
    for (int i = 0; i < one->head.nominated_count; i++)
        require_same_text(one, one->head.nominated[i], other, other->head.nominated[i]);
}

/* HTTP/1.0 needs none. Then the host of an absolute-form is lost when that becomes an origin-form; a
 * gateway writes Host itself. */
static int has_host(const Head *head) {
    for (int i = 0; i < head->field_count; i++)
        if (head->fields[i].kind == NAMES(e, HOST)) return 1;
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

/* Bytes that come later change nothing: a head is INCOMPLETE up to some size, and from there on the
 * verdict stays. */
static void check_prefixes(enum mode mode, uint8_t *at, uint32_t size, int verdict) {
    static Head head;
    uint32_t step = 1 + size / PREFIXES_MAX;
    int longer = verdict;
    for (uint32_t shorter = size; shorter >= step;) {
        shorter -= step;
        ASAN_POISON_MEMORY_REGION(at + shorter, size - shorter);
        int now = parse(mode, at, shorter, &head);
        require(now == longer || now == INCOMPLETE, "more bytes do not change a verdict");
        require(verdict <= 0 || (now == verdict) == (shorter >= (uint32_t)verdict), "a head is complete at its end");
        longer = now;
    }
    ASAN_UNPOISON_MEMORY_REGION(at, size);
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

/* A head written anew from what was understood, as a gateway does, is the same message to the next
 * reader. */
static void check_written_anew(enum mode mode, const struct reading *reading) {
    static struct reading anew;
    const Head *head = &reading->head;
    struct text text = {room(2 * head->size), 0}; /* no text is written more than twice: the host, in Host */
    put_start_line(&text, mode, reading);
    for (int i = 0; i < head->field_count; i++) {
        const Field *field = &head->fields[i];
        int is_host = mode == REQUEST && field->kind == NAMES(e, HOST);
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
        require(parse(mode, at, (uint32_t)verdict - 1, &second.head) == INCOMPLETE, "a head has an end");
        require(parse(mode, at, (uint32_t)verdict, &second.head) == verdict, "what follows a head does not matter");
        require_same(mode, &first, &second);
        check_written_anew(mode, &first);
    }
    check_prefixes(mode, at, size, verdict);
    free(at);
}

/* ----------------------------------------------------------------------------------------------------- for libFuzzer */

static void check(unsigned mode, const uint8_t *rest, uint32_t rest_size) {
    check_head((enum mode)mode, rest, rest_size);
}

PyObject *PyInit_fieldnames(void);
PyObject *PyInit_hosts(void);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    build_in("fastticket.dataplane.fieldnames", PyInit_fieldnames);
    build_in("fastticket.dataplane.hosts", PyInit_hosts);
    start_python("http1", PyInit_http1);
    PyObject *fieldnames = PyImport_ImportModule("fastticket.dataplane.fieldnames");
    require(fieldnames != NULL, "there are field names");
    names = (struct NAMES(obj, Names) *)PyObject_CallMethod(fieldnames, "Names", "((s))", "X-Forwarded-User");
    if (PyErr_Occurred()) PyErr_Print();
    require(names != NULL, "there are names");
    return 0;
}
