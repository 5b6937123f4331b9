/* What ticket.pyx promises of tickets. `fuzz/run.py ticket` builds it and runs it. */
#include <core.c> /* from a system folder (-isystem): its warnings are not ours */

static const char *const mode_names[] = {"text", "body under our key", "principal"};

#include "harness.h"

#define TICKET(what, name) __pyx_##what##_10fastticket_4core_6ticket_##name

enum { TEXT, BODY, PRINCIPAL };
enum { RAW_ROOM = 256, RAW_MAX = 255, TEXT_MAX = 340, TAG = 32, PRINCIPAL_AT = 33, PRINCIPAL_MAX = 190 };
static const int64_t NOW_MS = (int64_t)1 << 47; /* past nearly every time that 6 bytes can say */

static struct TICKET(obj, Keyring) *keyring;
static const int hit = __pyx_e_10fastticket_4core_7verdict_HIT;

static int verdict_of(const uint8_t *raw, int size, int64_t now_ms) {
    return (int)keyring->__pyx_vtab->verify_raw(keyring, raw, size, now_ms);
}

/* UTF-8 by Python's decoder, and the rules of docs/reference/ticket-format.md. */
static int is_principal(const uint8_t *at, uint32_t size) {
    if (size == 0 || size > PRINCIPAL_MAX || at[0] == ' ' || at[size - 1] == ' ') return 0;
    for (uint32_t i = 0; i < size; i++)
        if (at[i] < 0x20 || at[i] == 0x7F) return 0;
    PyObject *text = PyUnicode_DecodeUTF8((const char *)at, size, NULL);
    PyErr_Clear();
    Py_XDECREF(text);
    return text != NULL;
}

static void check_text(const uint8_t *input, uint32_t size) {
    uint8_t *text = copy_of(input, size);
    uint8_t *raw = room(RAW_ROOM);
    uint8_t *again = room(TEXT_MAX);
    int decoded = TICKET(f, decode)(text, size, raw);
    require(decoded >= 0 && decoded <= RAW_MAX, "a ticket has a size");
    if (decoded) {
        require(decoded == PRINCIPAL_AT + raw[PRINCIPAL_AT - 1] + TAG && raw[0] == 1, "a ticket that is read has the format's shape");
        require((uint32_t)TICKET(f, encode)(raw, decoded, again) == size && memcmp(again, text, size) == 0,
                "a ticket has one text");
        require(verdict_of(raw, decoded, NOW_MS) != hit, "nobody makes a tag without the key");
    }
    free(again);
    free(raw);
    free(text);
}

/* A body that is signed: if it is well formed it is authentic, and with any byte changed it is not. */
static void check_body(const uint8_t *input, uint32_t size) {
    if (size < PRINCIPAL_AT + 1 || size > PRINCIPAL_AT + PRINCIPAL_MAX) return;
    uint8_t *raw = room(RAW_ROOM);
    uint8_t *text = room(TEXT_MAX);
    uint8_t *back = room(RAW_ROOM);
    memcpy(raw, input, size);
    raw[0] = 1;
    raw[1] = 7;
    raw[PRINCIPAL_AT - 1] = (uint8_t)(size - PRINCIPAL_AT);
    keyring->__pyx_vtab->_sign(keyring, raw, (int)size); /* with its one key, 7 */
    int whole = (int)size + TAG;
    int chars = TICKET(f, encode)(raw, whole, text);
    require(TICKET(f, decode)(text, chars, back) == whole && memcmp(raw, back, (size_t)whole) == 0, "what is written is read");
    int verdict = verdict_of(raw, whole, 0);
    if (!is_principal(raw + PRINCIPAL_AT, size - PRINCIPAL_AT)) require(verdict != hit, "an authentic ticket has a principal that is one");
    uint32_t at = (uint32_t)(input[2] + 256 * input[3]) % (uint32_t)whole;
    raw[at] ^= (uint8_t)(1 + input[4] % 255);
    require(verdict_of(raw, whole, 0) != hit, "a ticket that was changed is not authentic");
    free(back);
    free(text);
    free(raw);
}

static void check_principal(const uint8_t *input, uint32_t size) {
    uint8_t *exact = copy_of(input, size);
    require(TICKET(f, _is_principal)(exact, (int)size) == is_principal(exact, size), "a principal is what the format says");
    free(exact);
}

static void check(unsigned mode, const uint8_t *input, uint32_t size) {
    if (mode == TEXT) check_text(input, size);
    else if (mode == BODY) check_body(input, size);
    else check_principal(input, size);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    PyObject *ticket = start_python("ticket", PyInit_ticket);
    PyObject *made = PyObject_CallMethod(ticket, "Keyring", "([(iy#)])", 7, "0123456789abcdef0123456789abcdef", (Py_ssize_t)32);
    if (PyErr_Occurred()) PyErr_Print();
    require(made != NULL, "there is a key");
    keyring = (struct TICKET(obj, Keyring) *)made;
    return 0;
}
