"""Builds the compiled core, and makes of it what a wheel ships. pyproject.toml declares the rest.

A build in place (`build_ext --inplace`, `pip install -e`) keeps its debug information, for gdb and
perf. A wheel's modules keep only their symbols: the rest is most of their size.

Switches (environment):
    FASTTICKET_WERROR=1    a C compiler warning is an error
    FASTTICKET_STATIC_LIBCRYPTO=1 SHA-256 is linked in, from libcrypto.a: for wheels (decision 36)
    FASTTICKET_GCOV=1      gcc counts which lines of the compiled modules run, for coverage
    FASTTICKET_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer
    FASTTICKET_THREADSAN=1 ThreadSanitizer
    FASTTICKET_DEBUG=1     each move of a connection's state is checked (dataplane/states), and each
                           lock that is taken (core/lock)
    FASTTICKET_QUICK=1     hardly optimised: for a build that is thrown away (tests/mutations)
"""

import os
import re
import runpy
import subprocess
import tomllib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORES = os.cpu_count() or 1


def switched_on(name: str) -> bool:
    return os.environ.get(f"FASTTICKET_{name}", "") not in ("", "0")


compile_args = ["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
# No tables for unwinding: C has no exceptions, and a debugger has its own in the debug information.
compile_args += ["-fno-asynchronous-unwind-tables"]
# What few requests run through, tables, and what is mostly for the control plane: small rather than
# fast, as a wheel has 2 MB at most. bench/gate.py sees it if that costs a request too much.
SMALL = {
    "asks",
    "clients",
    "compared",
    "counters",
    "dialogue",
    "endpoint",
    "minted",
    "occupancy",
    "reasons",
    "states",
    "upstreams",
}
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

# What is linked in is seen by its module alone: another libcrypto in the process is not affected.
LIBCRYPTO = ["-l:libcrypto.a", "-Wl,--exclude-libs,ALL"] if switched_on("STATIC_LIBCRYPTO") else ["-lcrypto"]


def compiled(name: str, *libraries: str) -> Extension:
    return Extension(
        f"fastticket.{name}",
        [f"fastticket/{name.replace('.', '/')}.pyx"],
        extra_compile_args=[*compile_args[:1], "-Os", *compile_args[1:]]
        if name.partition(".")[2] in SMALL
        else compile_args,
        extra_link_args=[*link_args, *libraries],
    )


class Modules(build_ext):
    """`.pyx` files become C where modules are built only: a source distribution has none of it."""

    def run(self) -> None:
        from Cython.Build import cythonize

        for module, made in zip(self.extensions, cythonize(self.extensions, nthreads=CORES), strict=True):
            module.sources, module.depends = made.sources, made.depends
        super().run()


class Wheel(bdist_wheel):
    """Has no debug information in it, and a bill of materials (release/sbom.py) where PEP 770 looks
    for it.
    """

    def write_wheelfile(self, folder: str, *more: str) -> None:
        super().write_wheelfile(folder, *more)  # the last step before all is packed
        for module in Path(self.bdist_dir).rglob("*.so"):
            subprocess.run(["strip", "--strip-debug", module], check=True)
        bill = runpy.run_path(str(ROOT / "release/sbom.py"))["bill_of_materials"]
        sboms = Path(folder, "sboms")
        sboms.mkdir(exist_ok=True)
        (sboms / "fastticket.cdx.json").write_text(bill(PROJECT, self.distribution.get_version(), LIBCRYPTO))


def readme() -> str:
    """README.md for readers elsewhere, as on the page of a package index: links that lead to files
    of the repository lead there from everywhere.
    """
    text = (ROOT / "README.md").read_text()
    return re.sub(r"\]\((?!https?://|#)", f"]({PROJECT['urls']['Source']}/", text)


if __name__ == "__main__":  # since Python 3.14 the processes that compile import this file
    setup(
        ext_modules=[
            compiled("dataplane.exchange"),  # the longest first
            compiled("dataplane.minted"),
            compiled("dataplane.compared"),
            compiled("dataplane.forwarding"),
            compiled("core.ticket", *LIBCRYPTO),
            compiled("core.nearcache", "-lm"),
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
            compiled("dataplane.balance", "-lm"),
            compiled("dataplane.upstreams"),
            compiled("dataplane.accesslog"),
            compiled("dataplane.connections"),
            compiled("dataplane.answers"),
            compiled("dataplane.links"),
            compiled("dataplane.admission"),
            compiled("dataplane.occupancy"),
            compiled("dataplane.dialogue"),
            compiled("dataplane.proxy"),
        ],
        cmdclass={"build_ext": Modules, "bdist_wheel": Wheel},
        long_description=readme(),
        long_description_content_type="text/markdown",
        options={"build_ext": {"parallel": CORES}},
    )
