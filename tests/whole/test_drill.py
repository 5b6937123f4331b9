"""One row of `make drill`, so that the others can be relied on when they are wanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from whole.drill import FAULTS, play

TESTS = Path(__file__).parent.parent


def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    (row,) = (fault for fault in FAULTS if fault.name == "worker killed")
    assert play(row, tmp_path)


def test_every_row_is_wanted_by_its_name() -> None:
    command = [sys.executable, "-m", "whole.drill", "--only", "no such row"]
    asked = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False, timeout=60)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert all(fault.name in asked.stderr for fault in FAULTS)
