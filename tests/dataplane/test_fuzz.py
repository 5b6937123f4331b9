"""The fuzzers of fuzz/ build and run, always with the same inputs: the seeds and what comes of them
first. `make fuzz` tries more.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "fuzz" / "run.py"
RUNS = 40_000
BOUND_S = 300
pytestmark = pytest.mark.timeout(2 * BOUND_S)


LINKS = ["clang", "-fsanitize=fuzzer,address,undefined", "-x", "c", "-", "-o", "/dev/null"]
EMPTY = b"int LLVMFuzzerTestOneInput(void) { return 0; }"


def has_fuzzer():
    try:
        return subprocess.run(LINKS, input=EMPTY, capture_output=True, timeout=BOUND_S).returncode == 0
    except FileNotFoundError:
        return False


def test_the_parsers_keep_their_promises(tmp_path):
    if not has_fuzzer():
        pytest.skip("clang with libFuzzer is missing: `make fuzz` installs it")
    command = [sys.executable, RUN, "--runs", str(RUNS), "--seed", "1", "--folder", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=BOUND_S)
    assert run.returncode == 0, run.stderr[-4000:]
    for name in ("http1", "chunks", "cookiefields", "paths", "ticket", "clients", "python", "foreign"):
        assert f"fuzz: {name}: " in run.stdout
    assert int(re.search(r"^fuzz: (\d+) executions, no findings$", run.stdout, re.MULTILINE)[1]) >= RUNS - 5
