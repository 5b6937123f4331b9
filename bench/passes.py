"""How the tables of `bench_*.py` are measured: every row many times a round, many rounds a pass,
and passes that take turns.

So a mood of the machine strikes all rows alike; ratios are medians of ratios within a pass
(conftest.py). Nothing is subtracted: the loop around a statement is in its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

PASSES = 7
ROUNDS = 30
ROUND_S = 0.001  # about; as many calls as fit

# Runs a row's call so many times.
Run = Callable[[int], object]


def over(rows: Iterable[str]) -> Callable[[Any], Any]:
    """A test for each row and pass, with `row` and `number`; a pass goes over all rows before the
    next one begins.
    """

    def decorate(test: Any) -> Any:
        by_row = pytest.mark.parametrize("row", list(rows))(test)
        return pytest.mark.parametrize("number", range(PASSES), ids=lambda number: f"pass{number}")(by_row)

    return decorate


def time_calls(benchmark: BenchmarkFixture, table: str, row: str, run: Run, sessions_a_call: int = 1) -> None:
    """One pass over one row. A call that serves many sessions counts as that many."""
    calls = _calls_a_round(run)
    benchmark.extra_info.update(table=table, row=row, calls=calls * sessions_a_call)
    benchmark.pedantic(run, args=(calls,), rounds=ROUNDS, warmup_rounds=2)


def _calls_a_round(run: Run) -> int:
    """Enough for a round, however fast it is."""
    calls = 1
    while True:
        began = time.perf_counter()
        run(calls)
        took_s = time.perf_counter() - began
        if took_s >= ROUND_S / 4:
            return max(1, int(calls * ROUND_S / took_s))
        calls *= 2
