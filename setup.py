"""Builds the compiled core. Everything declarative is in pyproject.toml.

Switches (environment):
    FASTTICKET_WERROR=1    a C compiler warning is an error
    FASTTICKET_TRACE=1     line tracing in the compiled modules, for coverage
    FASTTICKET_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer
    FASTTICKET_DEBUG=1     each move of a connection's state is checked against the table (dataplane/states)
    FASTTICKET_QUICK=1     hardly optimised: for a build that is thrown away (tests/mutations)
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup


def switched_on(name: str) -> bool:
    return os.environ.get(f"FASTTICKET_{name}", "") not in ("", "0")


CORES = os.cpu_count() or 1

compile_args = ["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
link_args: list[str] = []
macros: list[tuple[str, str | None]] = []
trace = switched_on("TRACE")

if switched_on("WERROR"):
    compile_args += ["-Werror"]
if trace:
    compile_args += ["-O0"]
    macros += [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")]
if trace or switched_on("DEBUG"):
    macros += [("FASTTICKET_DEBUG", "1")]
if switched_on("SANITIZE"):
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    compile_args += ["-O1", "-g", *sanitize]
    link_args += sanitize
if switched_on("QUICK"):
    compile_args += ["-O0"]


def compiled(name: str, libraries: tuple[str, ...] = ()) -> Extension:
    return Extension(
        f"fastticket.{name}",
        [f"fastticket/{name.replace('.', '/')}.pyx"],
        libraries=list(libraries),
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        define_macros=macros,
    )


setup(
    ext_modules=cythonize(
        [
            compiled("core.ticket", ("crypto",)),
            compiled("core.nearcache"),
            compiled("core.check"),
            compiled("dataplane.asks"),
            compiled("dataplane.counters"),
            compiled("dataplane.reasons"),
            compiled("dataplane.states"),
            compiled("dataplane.endpoint"),
            compiled("dataplane.forwarding"),
            compiled("dataplane.http1"),
            compiled("dataplane.paths"),
            compiled("dataplane.routes"),
            compiled("dataplane.clients"),
            compiled("dataplane.upstreams", ("m",)),
            compiled("dataplane.accesslog"),
            compiled("dataplane.connections"),
            compiled("dataplane.answers"),
            compiled("dataplane.links"),
            compiled("dataplane.exchange"),
            compiled("dataplane.admission"),
            compiled("dataplane.proxy"),
        ],
        compiler_directives={"linetrace": trace},
        force=trace,
        nthreads=CORES,
    ),
    options={"build_ext": {"parallel": CORES}},
)
