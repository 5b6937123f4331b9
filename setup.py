"""Builds the compiled core. Everything declarative is in pyproject.toml.

Switches (environment):
    FASTTICKET_WERROR=1    a C compiler warning is an error
    FASTTICKET_GCOV=1      gcc counts which lines of the compiled modules run, for coverage
    FASTTICKET_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer
    FASTTICKET_THREADSAN=1 ThreadSanitizer
    FASTTICKET_DEBUG=1     each move of a connection's state is checked (dataplane/states), and each
                           lock that is taken (core/lock)
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
counted = switched_on("GCOV")

if switched_on("WERROR"):
    compile_args += ["-Werror"]
if counted:
    compile_args += ["-O0", "--coverage"]
    link_args += ["--coverage"]
if counted or switched_on("DEBUG"):
    compile_args += ["-DFASTTICKET_DEBUG=1"]
if switched_on("SANITIZE"):
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    compile_args += ["-O1", "-g", *sanitize]
    link_args += sanitize
if switched_on("THREADSAN"):
    compile_args += ["-O1", "-g", "-fsanitize=thread"]
    link_args += ["-fsanitize=thread"]
if switched_on("QUICK"):
    compile_args += ["-O0"]


def compiled(name: str, libraries: tuple[str, ...] = ()) -> Extension:
    return Extension(
        f"fastticket.{name}",
        [f"fastticket/{name.replace('.', '/')}.pyx"],
        libraries=list(libraries),
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


if __name__ == "__main__":  # since Python 3.14 the processes that compile import this file
    modules = cythonize(
        [
            compiled("dataplane.exchange"),  # the longest first
            compiled("dataplane.forwarding"),
            compiled("core.ticket", ("crypto",)),
            compiled("core.nearcache", ("m",)),
            compiled("core.touches"),
            compiled("core.lock"),
            compiled("core.check"),
            compiled("dataplane.asks"),
            compiled("dataplane.counters"),
            compiled("dataplane.reasons"),
            compiled("dataplane.states"),
            compiled("dataplane.fieldnames"),
            compiled("dataplane.hosts"),
            compiled("dataplane.endpoint"),
            compiled("dataplane.http1"),
            compiled("dataplane.chunks"),
            compiled("dataplane.cookiefields"),
            compiled("dataplane.paths"),
            compiled("dataplane.routes"),
            compiled("dataplane.clients"),
            compiled("dataplane.balance", ("m",)),
            compiled("dataplane.accesslog"),
            compiled("dataplane.connections"),
            compiled("dataplane.answers"),
            compiled("dataplane.links"),
            compiled("dataplane.admission"),
            compiled("dataplane.occupancy"),
            compiled("dataplane.dialogue"),
            compiled("dataplane.proxy"),
        ],
        nthreads=CORES,
    )
    setup(ext_modules=modules, options={"build_ext": {"parallel": CORES}})
