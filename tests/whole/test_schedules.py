"""The short form of each schedule. `make faults` plays the whole forms, and those that have no
short one.

Each is a process of its own that is killed when its time is over; several run at a time, since most
of it is waiting.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from whole.schedules import SCHEDULES

BOUND_S = 60.0
AT_A_TIME = 3
SHORT = [name for name, schedule in SCHEDULES.items() if schedule.has_short_form]

Runs = dict[str, "Future[tuple[int, str]]"]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    """Those that were chosen, started in their order."""
    chosen = [name for item in request.session.items if (name := _schedule_of(item))]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {name: pool.submit(play, name) for name in chosen}
        pool.shutdown(cancel_futures=True)


def _schedule_of(item: pytest.Item) -> str:
    """The name of the schedule that a test is of; "" if it is of none."""
    if getattr(item, "originalname", "") != test_a_schedule.__name__:
        return ""
    return str(getattr(item, "callspec").params["name"])  # noqa: B009 - pytest.Item does not declare it


def play(name: str) -> tuple[int, str]:
    """The exit code, and what was printed."""
    # As it is deployed: traced for coverage, a gateway is another one, three times as slow.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-m", "whole.table", "--short", "--only", name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        output, _ = process.communicate(timeout=BOUND_S)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        output += f"\nnot over in {BOUND_S} s"
    return process.returncode, output


@pytest.mark.alone
@pytest.mark.parametrize("name", SHORT)
def test_a_schedule(name: str, runs: Runs) -> None:
    code, output = runs[name].result(BOUND_S * len(SHORT))
    assert code == 0, output
