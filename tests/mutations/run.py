"""Breaks the product on purpose, one fault at a time, in a copy of the tree, and sees which tests
turn red.

    make mutations                every fault, after a run without any; records what was seen, and
                                  writes docs/explanation/promises.md
    make mutations ONLY="ID ID"   these alone
    make mutations NEW=1          those that have changed since they were seen
    python -m mutations.run [--write] [--only ID ...] [--new]   the same, in the folder `tests`

A fault that no test sees is an error, and so is one that some test was said to see and did not. A
test that does not end, or takes the interpreter along, is red.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from mutations.faults import PROMISES, ROOT, Fault, read_faults

SEEN = Path(__file__).with_name("seen.json")
TABLE = ROOT / "docs/explanation/promises.md"
TREE = ROOT / "build" / "mutations" / "tree"
PRISTINE = ROOT / "build" / "mutations" / "pristine"
BUILT = (
    "fastticket",
    "build",
)  # where a fault is, and where it is left by the compiler: setuptools copies from `build`
TEST_TIMEOUT_S = 60
RUN_TIMEOUT_S = 300
RED = re.compile(r"^(?:FAILED|ERROR) (\S+::[^\s\[]+)", re.MULTILINE)


class Copy:
    """A copy of the working tree, built, in which one fault at a time is made."""

    def __init__(self) -> None:
        shutil.rmtree(TREE.parent, ignore_errors=True)
        TREE.mkdir(parents=True)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():  # not one that was deleted
                (TREE / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, TREE / name)
        self._environment = {**os.environ, "FASTTICKET_QUICK": "1", "PYTHONPATH": f"{TREE}{os.pathsep}{TREE / 'tests'}"}
        for name in ("COVERAGE_PROCESS_START", "PYTEST_ADDOPTS"):
            self._environment.pop(name, None)
        self._build()
        for name in BUILT:
            shutil.copytree(TREE / name, PRISTINE / name)

    def red(self, tests: Iterable[str], fault: Fault | None = None) -> set[str]:
        """Which of the tests fail, all parameters of one together; every one if pytest itself does
        not get to its end.
        """
        wanted = sorted(set(tests))
        try:
            if fault:
                fault.apply(TREE)
                self._build()
            return self._run(wanted)
        finally:
            for name in BUILT:
                shutil.rmtree(TREE / name)
                shutil.copytree(
                    PRISTINE / name, TREE / name
                )  # with the times of its files, so that nothing is built again

    def _build(self) -> None:
        """Build the modules that have changed since the last build."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace"],
            cwd=TREE,
            env=self._environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"it cannot be built:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")

    def _run(self, tests: Sequence[str]) -> set[str]:
        seconds = RUN_TIMEOUT_S * (1 + len(tests) // 20)
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", f"--timeout={TEST_TIMEOUT_S}", *tests],
            cwd=TREE,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            output, _ = "", _end(process)
        if process.returncode in (0, 1):
            return set(RED.findall(output)) & {test.partition("[")[0] for test in tests}
        if process.returncode in (4, 5):  # pytest's: bad arguments, nothing collected
            raise RuntimeError(f"pytest could not run {tests}:\n{output[-2000:]}")
        return set(tests)


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 if a fault was not seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID")
    parser.add_argument("--new", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    faults = read_faults()
    unknown = set(options.only) - {fault.id for fault in faults}
    errors = [f"no such fault: {name}" for name in sorted(unknown)]
    errors += [error for fault in faults for error in fault.errors()]
    if errors:
        print("\n".join(errors))
        return 1
    seen = read_seen()
    chosen = [fault for fault in faults if not options.only or fault.id in options.only]
    chosen = [fault for fault in chosen if not options.new or seen.get(fault.id) != digest_of(fault)]
    copy = Copy()
    print(f"{len(chosen)} faults; first without any", flush=True)
    if red := copy.red(test for fault in chosen for test in fault.tests):
        print("red without any fault:", *sorted(red), sep="\n  ")
        return 1
    survivors = []
    for number, fault in enumerate(chosen, 1):
        began_s = time.monotonic()
        red = copy.red(fault.tests, fault)
        green = [test for test in fault.tests if test.partition("[")[0] not in red]
        survivors += [fault.id] if green else []
        verdict = f"GREEN {green}" if green else "red"
        print(f"{number:3} {fault.id:34} {fault.promise:4} {time.monotonic() - began_s:5.1f} s  {verdict}", flush=True)
        seen.pop(fault.id, None)
        if not green:
            seen[fault.id] = digest_of(fault)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults were seen by every test that was to see them")
    if options.write:
        order = [fault.id for fault in faults]
        kept = {name: seen[name] for name in order if name in seen}
        SEEN.write_text(json.dumps(kept, indent=1) + "\n")
        if not survivors:
            TABLE.write_text(table_of(faults))
    return 1 if survivors else 0


# --- what was seen


def digest_of(fault: Fault) -> str:
    """A digest of the fault as it was tried: one that has changed must be tried again, one that has
    only moved, with its tests, need not.
    """
    tests = sorted(test.partition("::")[2] for test in fault.tests)
    text = json.dumps([fault.old, fault.new, tests])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_seen() -> dict[str, str]:
    """Fault id to the digest of the fault that was seen."""
    return json.loads(SEEN.read_text()) if SEEN.exists() else {}


def table_of(faults: Sequence[Fault]) -> str:
    """docs/explanation/promises.md. No line numbers: they would change with every commit."""
    parts = [
        "# The promises, and what turns red when one is broken\n\n"
        "Each row is one deliberate fault, made in a copy of the tree by `make mutations` (tests/mutations/run.py) from\n"
        "tests/mutations/faults.toml, one at a time; every test named beside it was green without the fault and red with it.\n"
        "None stays green. `make test` checks that each fault still fits the code, that its tests are there, and that this page\n"
        f"says what was seen. {len(faults)} faults.\n"
    ]
    for promise, text in PROMISES.items():
        rows = [fault for fault in faults if fault.promise == promise]
        parts.append(f"\n## {promise}\n\n{text}\n\n")
        if not rows:
            parts.append("No fault is listed yet.\n")
            continue
        parts.append("| fault | where | what it breaks | red |\n|---|---|---|---|\n")
        for fault in rows:
            red = "<br>".join(f"`{test.removeprefix('tests/')}`" for test in fault.tests)
            parts.append(f"| {fault.id} | `{fault.file.removeprefix('fastticket/')}` | {fault.breaks} | {red} |\n")
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
