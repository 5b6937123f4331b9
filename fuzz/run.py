"""Fuzzes the parsers: builds each harness with clang, libFuzzer and sanitizers, runs it from the
seeds on, and sums up.

    python fuzz/run.py [NAME ...] [--runs 20000000] [--seed N] [--folder build/fuzz]

NAME: http1 (heads), chunks (bodies), cookiefields, paths, ticket, clients (PROXY headers,
addresses); and without sanitizers what is Python (guided.py): python (properties files and the
cookies of the frameworks, beside their twins), foreign (whatever other systems have written:
sessions, cookies, files; and our exports). By default all of them; `--runs` is for all together, by
SHARES.

`make fuzz` does it. Inputs that reach something new stay in FOLDER/NAME/corpus, where the next run
goes on; a seed and an empty folder make the same run again. It ends with 1 at the first finding, an
input that stays as FOLDER/NAME/finding-…: `FOLDER/NAME/NAME FOLDER/NAME/finding-…` tries it again,
and it becomes a test of the parser's. A finding of python or foreign is printed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import foreign_readers
import guided
import python_parsers
import seeds

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "fastticket"
SECONDS_AN_INPUT_MAX = 10

#: Each fuzzer's share of the executions, in hundredths.
SHARES = {
    "http1": 28,
    "chunks": 10,
    "cookiefields": 5,
    "paths": 18,
    "ticket": 18,
    "clients": 18,
    "python": 1,
    "foreign": 2,
}
#: What is Python.
CHECKS = {"python": python_parsers.CHECKS, "foreign": foreign_readers.CHECKS}
#: The compiled module that each harness tries, and those that it imports.
MODULES = {
    "http1": ["dataplane.http1", "dataplane.fieldnames", "dataplane.hosts"],
    "chunks": ["dataplane.chunks"],
    "cookiefields": ["dataplane.cookiefields"],
    "paths": ["dataplane.paths"],
    "ticket": ["core.ticket"],
    "clients": ["dataplane.clients"],
}
LIBRARIES = {"ticket": ["-lcrypto"]}

# Only the parsers guide the fuzzer and are counted, not the harness, nor the functions that make
# Python objects of results for tests.
GUIDES = "src:*\nfun:__pyx_f_10fastticket_*\n"
GUIDES_NOT = "fun:*http1__slice\nfun:*http1__common\n"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def translate(name: str, folder: Path) -> None:
    """Compile the parsers into C: `core.c` for the harness to include, and a file for each module
    that is linked to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for module in MODULES[name]:
        source = PACKAGE / f"{module.replace('.', '/')}.pyx"
        into = folder / ("core.c" if module == MODULES[name][0] else f"{source.stem}.c")
        subprocess.run([sys.executable, "-m", "cython", "-3", "-o", into, source], check=True)


def linked(name: str, folder: Path) -> list[Path]:
    """A source for each module that the one under test imports. It includes Cython's from a system
    folder: its warnings are not ours.
    """
    sources = []
    for module in MODULES[name][1:]:
        stem = module.rpartition(".")[2]
        sources.append(folder / f"linked-{stem}.c")
        sources[-1].write_text(f"#include <{stem}.c>\n")
    return sources


def build(name: str, folder: Path, program: str, *sanitizers: str) -> Path:
    (folder / "guides").write_text(GUIDES)
    (folder / "guides-not").write_text(GUIDES_NOT)
    libraries = sysconfig.get_config_var("LIBDIR")
    command = [
        *("clang", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=fuzzer", *sanitizers),
        "-fno-inline",  # each parser with counters of its own
        f"-fsanitize-coverage-allowlist={folder / 'guides'}",
        f"-fsanitize-coverage-ignorelist={folder / 'guides-not'}",
        *("-isystem", folder, "-isystem", sysconfig.get_path("include")),
        *(f'-DPYTHON="{sys.executable}"', f'-DPACKAGE="{PACKAGE}"'),
        *(HERE / f"{name}.c", *linked(name, folder), "-o", folder / program),
        *(f"-L{libraries}", f"-Wl,-rpath,{libraries}", f"-lpython{sysconfig.get_config_var('LDVERSION')}"),
        *LIBRARIES.get(name, []),
    ]
    subprocess.run(command, check=True)
    return folder / program


def artifacts(folder: Path) -> str:
    """libFuzzer's option for where inputs that break a promise go."""
    return f"-artifact_prefix={folder}/finding-"


def fuzz(name: str, fuzzer: Path, folder: Path, options: list[str]) -> tuple[int, str]:
    """Run a fuzzer and show what it prints. Its exit status, and what it printed."""
    seeds.plant(name, folder / "seeds")
    (folder / "corpus").mkdir(exist_ok=True)
    command = [
        *(fuzzer, folder / "corpus", folder / "seeds", f"-dict={HERE / f'{name}.dict'}"),
        *(artifacts(folder), f"-max_len={seeds.BYTES_MAX}", f"-timeout={SECONDS_AN_INPUT_MAX}"),
        *("-print_final_stats=1", *options),
    ]
    said = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stderr
        for line in process.stderr:
            sys.stderr.write(line)
            said.append(line)
    return process.returncode, "".join(said)


def coverage(name: str, folder: Path) -> str:
    """The edges that the kept inputs cover, in a build without the sanitizers: their checks would
    count as edges that are never taken.
    """
    fuzzer = build(name, folder, f"{name}-unsanitized")
    command = [fuzzer, "-runs=0", artifacts(folder), folder / "corpus", folder / "seeds"]
    said = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace").stderr
    covered, counted = last(r" cov: (\d+)", said), last(r"\((\d+) inline 8-bit counters\)", said)
    return f"{covered} of {counted} edges of the parsers"


def last(pattern: str, said: str) -> str:
    return (re.findall(pattern, said) or ["?"])[-1]


def run(name: str, runs: int, seed: int, folder: Path) -> tuple[int, bool]:
    """Run one fuzzer and print a line about it: how many executions, and whether there was a
    finding.
    """
    if name in CHECKS:
        executions, finding = guided.run(CHECKS[name], runs, seed)
        print(f"fuzz: {name}: {executions} executions; {finding or 'no findings'}", flush=True)
        return executions, bool(finding)
    translate(name, folder)
    fuzzer = build(name, folder, name, *SANITIZERS)
    status, said = fuzz(name, fuzzer, folder, [f"-runs={runs}", f"-seed={seed}"])
    executions = int(last(r"stat::number_of_executed_units: +(\d+)", said).replace("?", "0"))
    finding = last(r"Test unit written to (\S+)", said)
    findings = f"1 finding: {finding}, exit status {status}" if status else "no findings"
    print(f"fuzz: {name}: {executions} executions; covered are {coverage(name, folder)}; {findings}", flush=True)
    return executions, bool(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SHARES))
    parser.add_argument("--runs", type=int, default=20_000_000)
    parser.add_argument("--seed", type=int, default=0, help="of the random choices; 0: a new one")
    parser.add_argument("--folder", type=Path, default=HERE.parent / "build" / "fuzz")
    arguments = parser.parse_args()
    names = arguments.names or list(SHARES)
    shares = sum(SHARES[name] for name in names)
    total = 0
    for name in names:
        runs = arguments.runs * SHARES[name] // shares
        executions, has_finding = run(name, runs, arguments.seed, arguments.folder.resolve() / name)
        total += executions
        if has_finding:
            return 1
    print(f"fuzz: {total} executions, no findings", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
