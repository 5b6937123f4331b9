/* What the harnesses share: promises, memory of exactly a size, Python with one compiled module in
 * it, and how often each mode ran.
 *
 * A harness includes the C that Cython makes of a module (`core.c`), whose parsers are static
 * functions, and this file; it defines `mode_names` and `check`. The first byte of an input says
 * which mode reads the rest.
 */
#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void require(int holds, const char *promise) {
    if (holds) return;
    fprintf(stderr, "not so: %s\n", promise);
    abort();
}

static inline uint8_t *room(uint32_t size) {
    uint8_t *at = malloc(size);
    require(at != NULL, "there is memory");
    return at;
}

static inline uint8_t *copy_of(const uint8_t *at, uint32_t size) {
    return memcpy(room(size), at, size);
}

struct text {
    uint8_t *at;
    uint32_t size;
};

static inline void put(struct text *text, const void *from, uint32_t size) {
    memcpy(text->at + text->size, from, size);
    text->size += size;
}

/* CPython frees little when it ends, and the parsers allocate nothing. */
const char *__asan_default_options(void) {
    return "detect_leaks=0";
}

static unsigned long executions[sizeof mode_names / sizeof *mode_names];

static void print_executions(void) {
    for (size_t mode = 0; mode < sizeof executions / sizeof *executions; mode++)
        fprintf(stderr, "executions of %s: %lu\n", mode_names[mode], executions[mode]);
}

static void check(unsigned mode, const uint8_t *rest, uint32_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    if (size == 0) return 0;
    unsigned mode = input[0] % (sizeof executions / sizeof *executions);
    executions[mode]++;
    check(mode, input + 1, (uint32_t)(size - 1));
    return 0;
}

/* A compiled module that the one under test imports; before Python starts. */
static inline void build_in(const char *name, PyObject *(*initialize)(void)) {
    require(PyImport_AppendInittab(name, initialize) == 0, "a module is built in");
}

/* Starts Python without its site packages, with the plain modules of fastticket, and imports the
 * compiled one, which fills its tables. */
static PyObject *start_python(const char *name, PyObject *(*initialize)(void)) {
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    build_in(name, initialize);
    require(!PyStatus_Exception(PyConfig_SetBytesString(&config, &config.program_name, PYTHON)) &&
                !PyStatus_Exception(Py_InitializeFromConfig(&config)),
            "Python starts");
    PyRun_SimpleString("import sys, types\nfastticket = sys.modules['fastticket'] = types.ModuleType('fastticket')\n"
                       "fastticket.__path__ = ['" PACKAGE "']\n");
    PyObject *module = PyImport_ImportModule(name);
    if (PyErr_Occurred()) PyErr_Print();
    require(module != NULL, "the module is there");
    atexit(print_executions);
    return module;
}
