"""The last word of `bench_core.py`: one row for each statement, and the budgets (ratios; absolute times are this machine's mood)."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

# The unsign with a maximum age: like a check, it answers "authentic, and not too old". `Signer.unsign` answers only the first.
UNSIGN = "itsdangerous TimestampSigner.unsign"
FEW = "cached check, 1,000 sessions in random order"
MANY = "cached check, 1,000,000 sessions in random order"


class Budget(NamedTuple):
    """A ratio of two rows that must be at least, or at most, so much."""

    text: str
    above: str
    below: str
    bound: float
    is_minimum: bool

    def is_met(self, ratio: float) -> bool:
        """Whether a measured ratio keeps to it."""
        return ratio >= self.bound if self.is_minimum else ratio <= self.bound


BUDGETS = [
    Budget("itsdangerous TimestampSigner.unsign ÷ cached check", UNSIGN, "cached check", 100, True),
    Budget("itsdangerous TimestampSigner.unsign ÷ check with HMAC", UNSIGN, "check with HMAC", 30, True),
    Budget("hit at 1,000,000 sessions ÷ at 1,000", MANY, FEW, 3, False),
]
BYTES_PER_SESSION_MAX = 160


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_group_stats(group_by: str) -> list[Any] | None:
    """pytest-benchmark's own tables would show each pass by itself: only if some grouping is asked for."""
    return [] if group_by == "group" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, after everything else."""
    benchmarks = [b for b in config._benchmarksession.benchmarks if "row" in b.extra_info and b.stats.rounds]
    if benchmarks:
        terminalreporter.section("medians")
        for line in _table(benchmarks):
            terminalreporter.write_line(line)


def _table(benchmarks: Sequence[Any]) -> Iterator[str]:
    passes: dict[str, list[float]] = {}
    for benchmark in benchmarks:
        ns = benchmark.stats.median * 1e9 / benchmark.extra_info["calls"]
        passes.setdefault(benchmark.extra_info["row"], []).append(ns)
    yield f"{'ns a call':>64} {'÷ cached check':>15} {'passes from':>12} {'to':>8}"
    for row, ns in passes.items():
        relative = f"{_ratio(ns, passes['cached check']):15.2f}" if "cached check" in passes else " " * 15
        yield f"{row:54} {statistics.median(ns):9,.0f} {relative} {min(ns):12,.0f} {max(ns):8,.0f}"
    yield ""
    yield from _verdicts(passes, benchmarks)


def _verdicts(passes: Mapping[str, Sequence[float]], benchmarks: Sequence[Any]) -> Iterator[str]:
    yield f"{'budget':54} {'measured':>9} {'wanted':>9}"
    for budget in BUDGETS:
        if budget.above in passes and budget.below in passes:
            ratio = _ratio(passes[budget.above], passes[budget.below])
            yield _verdict(budget.text, ratio, budget.bound, budget.is_minimum, budget.is_met(ratio))
    for benchmark in benchmarks:
        if benchmark.extra_info["row"] == MANY:
            size = benchmark.extra_info["bytes_per_session"]
            yield _verdict(
                "near cache, bytes a session", size, BYTES_PER_SESSION_MAX, False, size <= BYTES_PER_SESSION_MAX
            )
            break


def _verdict(text: str, measured: float, bound: float, is_minimum: bool, is_met: bool) -> str:
    return f"{text:54} {measured:9.1f} {'≥' if is_minimum else '≤'}{bound:8g}  {'met' if is_met else 'MISSED'}"


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios within a pass."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
