"""The last word of `bench_*.py`: one row for each statement, and the budgets (ratios; absolute
times are this machine's mood).

... --figures FILE                the figures, as all benchmarks write them
... --benchmark-group-by=func     pytest-benchmark's own tables, too
... --benchmark-json=FILE         every round of it
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import budgets
import figures
import pytest
from children import GATEWAY_CORE, claim_machine

# Name -> what is divided by what. The unsign with a maximum age: like a check, it answers
# "authentic, and not too old".
RATIOS = {
    "unsign ÷ cached check": ("itsdangerous TimestampSigner.unsign", "cached check"),
    "unsign ÷ check with HMAC": ("itsdangerous TimestampSigner.unsign", "check with HMAC"),
    "hit at 1,000,000 ÷ at 1,000": (
        "cached check, 1,000,000 sessions in random order",
        "cached check, 1,000 sessions in random order",
    ),
}
RECORDED = pytest.StashKey[dict[str, figures.Figure]]()

# Row -> its medians, ns a call, pass by pass.
Passes = Mapping[str, Sequence[float]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--figures`."""
    parser.addoption("--figures", type=Path, metavar="FILE", help="write the figures to it")


def pytest_configure(config: pytest.Config) -> None:
    """On one core; what tests record beside times."""
    claim_machine(GATEWAY_CORE)
    config.stash[RECORDED] = {}


@pytest.fixture
def record_figure(request: pytest.FixtureRequest) -> Callable[[str, float, str], None]:
    """`record_figure(name, value, unit)`: a figure that is no time."""

    def record(name: str, value: float, unit: str) -> None:
        request.config.stash[RECORDED][name] = figures.figure(value, unit)

    return record


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_group_stats(group_by: str) -> list[Any] | None:
    """pytest-benchmark's own tables would show each pass by itself: only if some grouping is asked
    for.
    """
    return [] if group_by == "group" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The tables, after everything else."""
    benchmarks = [b for b in config._benchmarksession.benchmarks if "row" in b.extra_info and b.stats.rounds]
    found = dict(config.stash[RECORDED])
    for table in dict.fromkeys(b.extra_info["table"] for b in benchmarks):
        own = [b for b in benchmarks if b.extra_info["table"] == table]
        terminalreporter.section(f"{table}: medians")
        rows = _rows(own)
        for line in _table(rows, {b.extra_info["row"]: b.extra_info.get("reference", "cached check") for b in own}):
            terminalreporter.write_line(line)
        found |= {f"{table}/{row}": figures.middle(ns, "ns a call") for row, ns in rows.items()}
        for name, (above, below) in RATIOS.items():
            if {above, below} <= set(rows):
                found[f"{table}/ratio/{name}"] = figures.middle(_ratios(rows[above], rows[below]), "ratio")
    for name, figure in config.stash[RECORDED].items():
        terminalreporter.write_line(f"{name:54} {figure['value']:9.1f} {figure['unit']}")
    for line in budgets.lines(found):
        terminalreporter.write_line(line)
    figures.write(config.option.figures, found)


def _rows(benchmarks: Sequence[Any]) -> Passes:
    rows: dict[str, list[float]] = {}
    for benchmark in benchmarks:
        ns = benchmark.stats.median * 1e9 / benchmark.extra_info["calls"]
        rows.setdefault(benchmark.extra_info["row"], []).append(ns)
    return rows


def _table(rows: Passes, references: Mapping[str, str]) -> Iterator[str]:
    yield f"{'ns a call':>64} {'÷ reference':>12} {'passes from':>12} {'to':>8}   reference"
    for row, ns in rows.items():
        reference = references[row]
        relative = f"{statistics.median(_ratios(ns, rows[reference])):12.2f}" if reference in rows else " " * 12
        yield f"{row:54} {statistics.median(ns):9,.0f} {relative} {min(ns):12,.0f} {max(ns):8,.0f}   {reference}"
    yield ""


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The ratio of each pass."""
    return [a / b for a, b in zip(above, below, strict=True)]
