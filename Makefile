# Times are those of two quiet cores; the first command in a clone takes two minutes more, to set up.
#
# To work on the code
#   make run        start the demo; PORT=8081 for another port than 8080                    seconds
#   make quick      lint, types, and the tests that start no process                        30 s
#   make check      lint and types                                                          20 s
#   make test       everything that a change must pass: lint, types, all tests, those of
#                   the compiled code once more in a debug build, the gate                  16 minutes
#   make gate       compare the hot paths with their baseline; red if one is slower         20 s
#   make coverage   which lines and branches of the Python code the tests run               15 minutes
#   make coverage-core  line coverage of the compiled code alone                            a minute
#   make rooms      print the package's rooms: files with their lines, imports              a second
#   make clean      remove what was built
#
# FASTTICKET_FUZZ=10 make test tries ten times as many random inputs.
#
# To look deeper, before a release or after a change of what they are about
#   make fuzz       the parsers under sanitizers, FUZZ_RUNS inputs of each kind (20,000,000);
#                   FUZZ="ticket paths" for some of them                                    15 minutes
#   make tsan       threads on the compiled code under ThreadSanitizer, STRESS_S seconds of each
#                   kind (20)                                                               5 minutes
#   make asan       the same, and the compiled code's tests, under AddressSanitizer and
#                   UndefinedBehaviorSanitizer                                              minutes
#   make versions   the core's tests on the other interpreters that are there               minutes
#   make model      every interleaving of the coherence protocol up to a bound, then each
#                   fault put back, and the counterexample that finds it                    minutes
#   make mutations  break the product on purpose, one fault at a time, and see which test
#                   fails (docs/explanation/promises.md); ONLY="ID ID" for some, NEW=1 for those that
#                   have changed since they were seen                                       20 minutes
#   make faults     every fault that store and gateways must survive, on real servers, as
#                   a table; FAULTS="--only NAME" for one                                   15 minutes
#   make drill      break eight things under a running gateway, and print what clients,
#                   log, /healthz, /readyz and /metrics say                                 a minute
#   make emergencies  make each alert fire once, beside a Prometheus, and print after how long
#                   it did, which figure shows it, and what repairs it                      10 minutes
#   make losing     FLUSHALL under two gateways in use, and print who had to log in again
#                   and who came back that had been logged out; LOSING=SESSIONS             20 seconds
#   make corpus     every raw request and response that must be withstood, with what is
#                   wanted and what is seen, as a table                                     a minute
#   make suites     Django's, Flask's, flask-login's and Starlette's own tests with our
#                   sessions, as a table                                                    2 minutes
#   make real       JupyterLab, socket.io and Streamlit, used by Chromium through a gateway;
#                   needs a gigabyte in build/real                                          minutes
#
# To read
#   make docs       build the pages of docs/ into build/docs                                10 s
#   make docs-reference   write what the reference has from the code                        10 s
#   make man        write docs/man/fastticket.1, and show it                                10 s
#   make docs-pictures    take the pictures of tutorial and operators' page anew        2 min
#
# To release (docs/development.md)
#   make wheel      source distribution, wheel and bill of materials, into dist/; checked    4 minutes
#   make wheel-check  install that wheel on a bare Debian 12 without a compiler, and log in   2 minutes
#
# To measure, on a quiet machine
#   make bench      every benchmark; leaves a record in bench/history/                      30 minutes
#   make bench-NAME one of gateway, calls, scale, instructions, revocation, flush,
#                   store-load, store-memory, attributes, storm, reload, crowd, hmac
#   make bench-compare, make bench-report   compare the records, and draw them
#   make bench-quote    write the figures of the newest record into the documents

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COUNTED := build/counted

# Built otherwise, in a copy of its own, so that the tree's own modules stay as they are.
COPIED := setup.py pyproject.toml README.md docs fastticket fastticket_start.py tests
COPY_TO = rm -rf $(1) && mkdir -p $(1) && cp -rp $(COPIED) $(1)/ && rm -f $(1)/fastticket/*/*.so

# Compiling its modules takes a third of a second of each Python that starts, and tests start a thousand.
export PYTHONDONTWRITEBYTECODE :=

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get
SOURCES := setup.py pyproject.toml $(wildcard fastticket/*/*.pyx fastticket/*/*.pxd)

# Many tests wait for something, so twice as many files at a time as there are cores.
SIDE_BY_SIDE := -n $(shell echo $$((2 * $$(nproc)))) --dist loadfile --no-loadscope-reorder

# The files with tests of a mark, so that no others are read.
MARKED = $(shell grep -rl "^@pytest.mark.$(1)$$" tests)

# What exercises the compiled code from inside the process.
CORE_TESTS := tests/core tests/dataplane --ignore=tests/dataplane/test_fuzz.py tests/sessions/test_cache.py \
	$(addprefix tests/gateway/test_gateway_,$(addsuffix .py,auth clients cookies http limits own_fields personal routes sessions set_cookie upstreams withheld))

# What starts no process, or few: for the inner loop, in which random inputs are a fifth of the usual.
QUICK_TESTS := tests/core $(addprefix tests/dataplane/test_,$(addsuffix .py,access_log balance chunks clients cookiefields forwarding http1 paths states)) \
	$(addprefix tests/sessions/test_,$(addsuffix .py,attributes cache coherence events sync)) \
	$(addprefix tests/stores/test_,$(addsuffix .py,breaker redis_url)) \
	$(addprefix tests/web/test_,$(addsuffix .py,asgi cookies flask seen_version wsgi)) \
	$(addprefix tests/gateway/test_gateway_,$(addsuffix .py,auth clients cookies http limits own_fields personal routes sessions set_cookie upstreams withheld)) \
	tests/gateway/test_linkis.py $(addprefix tests/house/test_,$(addsuffix .py,architecture documents mutations references)) \
	$(addprefix tests/docs/test_,$(addsuffix .py,navigation reference))

.PHONY: run test passes quick gate check rooms docs docs-reference docs-pictures man model fuzz real faults drill emergencies losing corpus suites mutations bench bench-compare bench-report bench-quote bench-calls bench-gateway bench-scale bench-instructions \
	bench-revocation bench-store-load bench-store-memory bench-attributes bench-storm bench-reload bench-crowd bench-flush bench-hmac \
	coverage coverage-core counted-build counted-tests compiled-tests tsan asan versions wheel wheel-check sdist-check clean

run: $(VENV)/built
	@echo "--- the demo, until Ctrl-C"
	@$(BIN)/fastticket demo $(if $(PORT),--port $(PORT))

test: $(VENV)/built-dev
	$(MAKE) -j2 --output-sync=target check counted-build compiled-tests
	$(MAKE) passes
	$(MAKE) counted-tests
	@echo "--- the hot paths, beside their baseline"
	$(MAKE) gate

# Each test once: beside others, beside two others, and alone.
RUN := $(BIN)/python
passes:
	$(RUN) -m pytest -q -m "not alone and not timed" $(SIDE_BY_SIDE)
	$(RUN) -m pytest -q -m timed -n 3 $(call MARKED,timed)
	$(RUN) -m pytest -q -m alone $(call MARKED,alone)

# Which lines and branches of the Python code the tests run. It judges nothing, and takes half as long again:
# docs/decisions/0061-coverage-apart.md.
coverage: $(VENV)/built-dev
	rm -f .coverage .coverage.*
	$(MAKE) passes RUN="$(BIN)/coverage run"
	@echo "--- branch coverage of the Python code"
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

quick: $(VENV)/built-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	FASTTICKET_FUZZ=0.2 $(BIN)/python -m pytest -q $(SIDE_BY_SIDE) $(sort $(QUICK_TESTS))

# Whether the hot paths have become slower: bench/gate.py says how, and how to record a new baseline.
gate: $(VENV)/built-dev
	$(BIN)/python bench/gate.py

check: $(VENV)/built-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint fastticket

# The house: rooms, files with their lines, and what each room imports.
rooms:
	cd tests && $(PYTHON) -m lab.imports

# A warning is an error, and a link that leads nowhere is a warning. Nothing in it asks another machine for anything.
docs: $(VENV)/built-dev
	$(BIN)/python -m sphinx -W --keep-going -q -j auto -d build/docs-trees docs build/docs
	@echo "build/docs/index.html"

docs-reference: $(VENV)/built-dev
	$(BIN)/python docs/generate.py --write

man: docs-reference
	man --local-file docs/man/fastticket.1

docs-pictures: $(VENV)/built-dev
	$(BIN)/python docs/tutorial/pictures.py
	$(BIN)/python docs/how-to/pictures.py

corpus: $(VENV)/built-dev
	cd tests && ../$(BIN)/python -m lab.corpus_table

# What is meant to fail, and why, tests/suites/differences.toml says. Fetches them from the package registry, once.
suites: $(VENV)/built-dev
	cd tests && ../$(BIN)/python -m suites.runs

# Each schedule in its whole form; the short ones are in the suite. tests/whole/ says how it is judged.
FAULTS ?=
faults: $(VENV)/built-dev
	cd tests && ../$(BIN)/python -m whole.table $(FAULTS)

drill: $(VENV)/built-dev
	cd tests && ../$(BIN)/python -m whole.drill

emergencies: $(VENV)/built-dev
	cd tests && ../$(BIN)/python -m whole.emergencies

LOSING ?= 10000
losing: $(VENV)/built-dev
	cd tests && ../$(BIN)/python -m whole.losing $(LOSING)

# What is explored, tests/model/scopes.py says; what must be found, tests/model/faults.py. `make test` does it with a small bound.
model: $(VENV)/built-dev
	$(BIN)/python tests/model/check.py --large

# A fault that no test sees is an error. How the copy is made and built, tests/mutations/run.py says.
mutations: $(VENV)/built-dev
	cd tests && ../$(BIN)/python -m mutations.run --write $(if $(ONLY),--only $(ONLY)) $(if $(NEW),--new)

# Python's bytecode of all tests, once, and not in each of the processes that run them side by side.
compiled-tests: $(VENV)/built-dev
	$(BIN)/python -m pytest -q --collect-only >/dev/null

# The compiled core once more, in a copy in which gcc counts the lines that run: tests/lab/compiled_lines.py.
counted-build: $(VENV)/built-dev
	$(call COPY_TO,$(COUNTED))
	cd $(COUNTED) && FASTTICKET_GCOV=1 ../../$(BIN)/python -W ignore setup.py -q build_ext --inplace

coverage-core: counted-build
	$(MAKE) counted-tests

# With little fuzzing, which runs no further lines. The copy is a debug build: a move between states that is none, or locks
# out of their order, end it.
counted-tests:
	cd $(COUNTED) && FASTTICKET_FUZZ=0.02 ../../$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) $(CORE_TESTS)
	@echo "--- line coverage of the Cython code"
	cd $(COUNTED) && PYTHONPATH=tests ../../$(BIN)/python -m lab.compiled_lines

# What several threads do to the compiled code, with the checks of a debug build besides. The interpreter
# is not instrumented; that it hands its lock on is seen all the same, since it does it by pthread. Without
# random addresses, among which this sanitizer would not always find room for its own.
STRESS_S ?= 20
STRESS_TESTS := tests/stress $(wildcard tests/dataplane/test_planes_stress.py)
UNDER_TSAN = CFLAGS="-g -O1 -fsanitize=thread" LD_PRELOAD="$$(gcc -print-file-name=libtsan.so)" \
	TSAN_OPTIONS="exitcode=66 history_size=7 suppressions=tests/stress/thread_sanitizer.txt" setarch "$$(uname -m)" -R
UNBOUNDED := -s -o timeout=0 -o faulthandler_timeout=0
tsan: $(VENV)/built-dev
	$(call COPY_TO,build/tsan)
	cd build/tsan && FASTTICKET_THREADSAN=1 FASTTICKET_DEBUG=1 ../../$(BIN)/python -W ignore setup.py -q build_ext --inplace
	cd build/tsan && FASTTICKET_STRESS_S=$(STRESS_S) $(UNDER_TSAN) ../../$(BIN)/python -m pytest -q $(UNBOUNDED) $(STRESS_TESTS)

# Leaks are not looked for: the interpreter has some that are none.
UNDER_ASAN = CFLAGS="-g -O1 -fsanitize=address,undefined" LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0
asan: $(VENV)/built-dev
	$(call COPY_TO,build/asan)
	cd build/asan && FASTTICKET_SANITIZE=1 FASTTICKET_DEBUG=1 ../../$(BIN)/python -W ignore setup.py -q build_ext --inplace
	cd build/asan && FASTTICKET_STRESS_S=$(STRESS_S) $(UNDER_ASAN) ../../$(BIN)/python -m pytest -q $(UNBOUNDED) $(STRESS_TESTS) tests/core tests/dataplane

# Names or paths. docs/development.md says where an interpreter without a GIL comes from.
VERSIONS ?= python3.11 python3.12 python3.13 python3.13t python3.14 python3.14t
versions:
	cd tests && $(PYTHON) -m lab.versions $(VERSIONS)

# The wheel is made of the source distribution, which proves that that one builds. Nothing of the tree's own builds is in it.
wheel: $(VENV)/built-release
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/cibuildwheel --platform linux --print-build-identifiers
	rm -rf dist build/wheel
	FASTTICKET_STATIC_LIBCRYPTO=1 FASTTICKET_WERROR=1 $(BIN)/python -m build -o build/wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" auditwheel repair -w dist build/wheel/*.whl
	cp build/wheel/*.tar.gz dist/
	$(BIN)/python release/sbom.py dist/*.whl >dist/fastticket.cdx.json
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/pyroma --min=10 dist/*.tar.gz
	ls -l dist

# Whether a source distribution has all that its own tests need: it is unpacked, built, and tested there.
sdist-check: $(VENV)/built-dev
	rm -rf build/sdist && $(BIN)/python -W ignore setup.py -q sdist -d build/sdist
	tar -xzf build/sdist/*.tar.gz -C build/sdist --strip-components 1
	cd build/sdist && ../../$(BIN)/python -W ignore setup.py -q build_ext --inplace
	cd build/sdist && ../../$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) $(CORE_TESTS)

wheel-check: wheel
	command -v debootstrap >/dev/null || { $(APT) update -q && $(APT) install -qy --no-install-recommends debootstrap; }
	$(SUDO) sh release/bare_debian.sh dist/*.whl

# Which promises of the parsers are tried, fuzz/*.c say; what a finding becomes, fuzz/run.py.
FUZZ_RUNS ?= 20000000
FUZZ ?=
fuzz: $(VENV)/fuzzer $(VENV)/built
	$(BIN)/python fuzz/run.py $(FUZZ) --runs $(FUZZ_RUNS)

# Programs that are too heavy for the suite, in an environment of their own; tests/real/ says what is asserted of them.
REAL := build/real
real: $(VENV)/built-dev $(REAL)/installed
	FASTTICKET_REAL=$(REAL) $(BIN)/python -m pytest -q tests/real

$(REAL)/installed: tests/real/requirements.txt tests/real/package.json
	mkdir -p $(REAL)
	$(PYTHON) -m venv $(REAL)/venv
	$(REAL)/venv/bin/pip install -q -r tests/real/requirements.txt
	command -v npm >/dev/null || $(APT) install -qy --no-install-recommends npm
	cp tests/real/package.json $(REAL)/ && cd $(REAL) && npm install --silent --no-audit --no-fund
	touch $@

# Everything, one after the other: half an hour, on a machine that does nothing else. Leaves a record in bench/history/.
bench: $(VENV)/built-bench
	$(BIN)/python bench/track.py run

bench-compare: $(VENV)/built-dev
	$(BIN)/python bench/track.py compare

bench-report: $(VENV)/built-dev
	$(BIN)/python bench/report.py

# What differs, it prints; tests/house/test_figures.py is red until it is done.
bench-quote: $(VENV)/built-dev
	$(BIN)/python bench/quotes.py --write

bench-calls: $(VENV)/built-bench
	$(BIN)/python -m pytest -q bench/bench_core.py bench/bench_cache.py bench/bench_stores.py bench/bench_middleware.py

bench-gateway bench-crowd bench-storm bench-reload bench-scale bench-instructions bench-revocation bench-store-load bench-store-memory \
		bench-attributes bench-flush: \
		bench-%: $(VENV)/built-bench
	$(BIN)/python bench/$(subst -,_,$*).py

bench-hmac:
	mkdir -p bench/build
	gcc -O3 -Wall -Wextra -Werror -o bench/build/hmac_interfaces bench/hmac_interfaces.c -lcrypto
	bench/build/hmac_interfaces

clean:
	rm -rf $(VENV) build fastticket/*/*.so fastticket/*/*.c

# What the system must have; asked for only where it is missing.
HAS_COMPILER = command -v gcc >/dev/null && [ -e /usr/include/openssl/evp.h ] && \
	$(PYTHON) -c 'import ensurepip, os, sysconfig as s; assert os.path.exists(s.get_path("include") + "/Python.h")' 2>/dev/null
HAS_SERVERS = command -v nginx >/dev/null && command -v redis-server >/dev/null && command -v wrk >/dev/null && \
	command -v curl >/dev/null && command -v openssl >/dev/null && [ -e /usr/include/valgrind/callgrind.h ] && \
	command -v h2load >/dev/null && command -v chromium >/dev/null && command -v node >/dev/null && [ -e /usr/share/nodejs/ws ] && \
	command -v haproxy >/dev/null && command -v groff >/dev/null && command -v zsh >/dev/null

# Said before what takes its time; "about" is two cores and a fast network.
SAY = @echo "--- $(1)"

$(VENV)/compiler:
	$(call SAY,1 of 3: gcc and the headers of Python and OpenSSL by apt: about 30 s; nothing to do if they are there)
	@$(HAS_COMPILER) || { $(APT) update -q && $(APT) install -qy --no-install-recommends \
		gcc libc6-dev libssl-dev python3 python3-dev python3-venv; }
	$(call SAY,2 of 3: a virtual environment in $(VENV) with Cython by pip: about 15 s)
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q 'setuptools>=77' 'cython>=3.1,<4' wheel
	@touch $@

$(VENV)/servers: Makefile
	$(HAS_SERVERS) || { $(APT) update -q && $(APT) install -qy --no-install-recommends \
		nginx-light redis-server wrk curl openssl valgrind nghttp2-client chromium nodejs node-ws haproxy groff-base zsh; }
	mkdir -p $(VENV) && touch $@

# The programs alone: the package would start a server at each boot.
HAS_PROMETHEUS = command -v prometheus >/dev/null && command -v promtool >/dev/null

$(VENV)/prometheus: $(VENV)/compiler
	$(HAS_PROMETHEUS) || { $(APT) update -q && mkdir -p build/prometheus && cd build/prometheus && \
		apt-get download -q prometheus && dpkg-deb -x prometheus_*.deb . && \
		install usr/bin/prometheus usr/bin/promtool $(CURDIR)/$(BIN) && rm -r $(CURDIR)/build/prometheus; }
	touch $@

# Of what pip says at length: a line for each module as its turn comes. All of it is in the log.
MODULES := $(wildcard fastticket/*/*.pyx)
SHOW_MODULES = sed -un "s/^ *\(\[ *[0-9]*\/[0-9]*\] Cythonizing .*\)/    \1/p; s/^ *building '\(.*\)' extension/    gcc \1/p"

$(VENV)/built: $(VENV)/compiler $(SOURCES)
	$(call SAY,3 of 3: $(words $(MODULES)) modules by Cython and gcc $(shell nproc) at a time: about two minutes on two cores)
	@set -o pipefail; FASTTICKET_WERROR=1 PYTHONUNBUFFERED=1 $(BIN)/pip install -v --no-build-isolation -e . 2>&1 | \
		tee $(VENV)/build.log | $(SHOW_MODULES) || \
		{ tail -n 50 $(VENV)/build.log; echo "--- all of it: $(VENV)/build.log"; exit 1; }
	@touch $@

# libFuzzer is of clang, and comes with its runtime: only a link shows whether that is there.
HAS_FUZZER = echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' | clang -fsanitize=fuzzer,address -x c -o /dev/null - 2>/dev/null

$(VENV)/fuzzer: $(VENV)/compiler
	$(HAS_FUZZER) || { $(APT) update -q && $(APT) install -qy --no-install-recommends clang libclang-rt-dev; }
	touch $@

# The competitors that are not on PyPI.
HAS_PEERS = command -v haproxy >/dev/null && command -v strace >/dev/null && \
	[ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ] && [ -e /usr/share/lua/5.1/nginx/redis.lua ]

$(VENV)/peers: $(VENV)/servers Makefile
	$(HAS_PEERS) || { $(APT) update -q && $(APT) install -qy --no-install-recommends haproxy strace libnginx-mod-http-lua lua-nginx-redis; }
	touch $@

# The packages of one of pyproject's extras; `pip install -e .[dev]` would compile everything once more.
PACKAGES_OF = $(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(*extras["optional-dependencies"]["$(1)"], sep="\n")'

$(VENV)/built-bench: $(VENV)/built-dev $(VENV)/peers
	$(call PACKAGES_OF,bench) | $(BIN)/pip install -q -r /dev/stdin
	touch $@

$(VENV)/built-release: $(VENV)/built
	$(call PACKAGES_OF,release) | $(BIN)/pip install -q -r /dev/stdin
	touch $@

$(VENV)/built-dev: $(VENV)/servers $(VENV)/prometheus $(VENV)/built
	$(call PACKAGES_OF,dev) | $(BIN)/pip install -q -r /dev/stdin
	touch $@
