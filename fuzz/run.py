"""Fuzzes the parsers of HTTP/1.1: builds http1.c with clang, libFuzzer and sanitizers, runs it from the seeds on, and sums up.

    python fuzz/run.py [--runs 10000000] [--seed N] [--folder build/fuzz]

`make fuzz` does it. Inputs that reach something new stay in FOLDER/corpus, where the next run goes on; a seed and an empty folder make
the same run again. It ends with 1 at the first finding, an input that stays as FOLDER/finding-…: `FOLDER/http1 FOLDER/finding-…` tries
it again, and it becomes a test in tests/test_http1.py.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import seeds

HERE = Path(__file__).resolve().parent
PARSERS = HERE.parent / "fastticket" / "core" / "http1.pyx"
SECONDS_AN_INPUT_MAX = 10

# What guides and what is counted are the parsers: neither the harness nor what makes Python objects of their results for tests.
GUIDES = "src:*\nfun:__pyx_f_10fastticket_4core_5http1_*\n"
GUIDES_NOT = "fun:*http1__slice\nfun:*http1__common\n"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def translate(folder: Path) -> None:
    """The parsers into C."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "cython", "-3", "-o", folder / "core.c", PARSERS], check=True)


def build(folder: Path, name: str, *sanitizers: str) -> Path:
    (folder / "guides").write_text(GUIDES)
    (folder / "guides-not").write_text(GUIDES_NOT)
    libraries = sysconfig.get_config_var("LIBDIR")
    command = [
        *("clang", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=fuzzer", *sanitizers),
        "-fno-inline",  # each parser with counters of its own
        f"-fsanitize-coverage-allowlist={folder / 'guides'}",
        f"-fsanitize-coverage-ignorelist={folder / 'guides-not'}",
        *("-isystem", folder, "-isystem", sysconfig.get_path("include"), f'-DPYTHON="{sys.executable}"'),
        *(HERE / "http1.c", "-o", folder / name),
        *(f"-L{libraries}", f"-Wl,-rpath,{libraries}", f"-lpython{sysconfig.get_config_var('LDVERSION')}"),
    ]
    subprocess.run(command, check=True)
    return folder / name


def artifacts(folder: Path) -> str:
    """Where inputs that break something go."""
    return f"-artifact_prefix={folder}/finding-"


def fuzz(fuzzer: Path, folder: Path, options: list[str]) -> tuple[int, str]:
    """Its exit status, and what it said, which is shown, too."""
    seeds.plant(folder / "seeds")
    (folder / "corpus").mkdir(exist_ok=True)
    command = [
        *(fuzzer, folder / "corpus", folder / "seeds", f"-dict={HERE / 'http1.dict'}"),
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


def coverage(folder: Path) -> str:
    """Of all that was kept, in a build without the sanitizers, whose checks would count as edges that nothing ever takes."""
    fuzzer = build(folder, "http1-unsanitized")
    command = [fuzzer, "-runs=0", artifacts(folder), folder / "corpus", folder / "seeds"]
    said = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace").stderr
    covered, counted = last(r" cov: (\d+)", said), last(r"\((\d+) inline 8-bit counters\)", said)
    return f"{covered} of {counted} edges of the parsers"


def last(pattern: str, said: str) -> str:
    return (re.findall(pattern, said) or ["?"])[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=0, help="of the random choices; 0: a new one")
    parser.add_argument("--folder", type=Path, default=HERE.parent / "build" / "fuzz")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    translate(folder)
    fuzzer = build(folder, "http1", *SANITIZERS)
    status, said = fuzz(fuzzer, folder, [f"-runs={arguments.runs}", f"-seed={arguments.seed}"])
    executions = last(r"stat::number_of_executed_units: +(\d+)", said)
    finding = last(r"Test unit written to (\S+)", said)
    findings = f"1 finding: {finding}, exit status {status}" if status else "no findings"
    print(f"fuzz: {executions} executions; covered are {coverage(folder)}; {findings}", flush=True)
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
