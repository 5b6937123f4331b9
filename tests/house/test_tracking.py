"""The benchmarks are tracked: what judges, compares and draws the figures does so. What they are is
not judged here.
"""

import dataclasses
import html.parser
import itertools
import json
import random
import statistics
import sys
from collections import Counter
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
sys.path.append(str(BENCH))

import budgets  # noqa: E402
import capacity  # noqa: E402
import gate  # noqa: E402
import report  # noqa: E402
import tables  # noqa: E402
import track  # noqa: E402

RECORDS = [json.loads(path.read_text()) for path in track.records()]


def test_there_is_a_history():
    assert RECORDS
    dates = [record["environment"]["date"] for record in RECORDS]
    assert dates == sorted(dates)


@pytest.mark.parametrize(("kind", "worse", "good"), [("instructions", 103.2, 102.8), ("ratios", 116.0, 114.0)])
def test_the_gate_turns_red_at_its_tolerance(kind, worse, good):
    assert [ok for ok, _ in gate.judge(kind, {"hit": worse}, {"hit": 100.0})] == [False]
    assert [ok for ok, _ in gate.judge(kind, {"hit": good}, {"hit": 100.0})] == [True]


def test_what_was_won_is_recorded():
    """Else it would be room for the next loss. Ratios swing too much for that."""
    assert [ok for ok, _ in gate.judge("instructions", {"hit": 96.0}, {"hit": 100.0})] == [False]
    assert [ok for ok, _ in gate.judge("ratios", {"hit": 60.0}, {"hit": 100.0})] == [True]


def test_the_gate_turns_red_for_what_is_not_measured_any_more_and_for_what_has_no_baseline():
    judged = dict.fromkeys(["gone", "new", "kept"])
    for ok, line in gate.judge("ratios", {"new": 1.0, "kept": 1.0}, {"gone": 1.0, "kept": 1.0}):
        judged[next(name for name in judged if name in line.split(":")[0])] = ok
    assert judged == {"gone": False, "new": False, "kept": True}


def test_the_baseline_has_all_that_is_judged():
    baselines = json.loads(gate.BASELINE.read_text())
    for kind in gate.TOLERANCES:
        assert baselines[kind]
        names = [set(figures) for figures in baselines[kind].values()]
        assert all(one == other for one, other in itertools.pairwise(names))


def test_every_budget_is_shown_by_a_figure_of_the_last_record():
    assert {budget.figure for budget in budgets.BUDGETS} <= RECORDS[-1]["figures"].keys()


def record_with(**figures):
    return {
        "environment": {**RECORDS[-1]["environment"]},
        "figures": {name: {"value": value, "unit": unit} for name, (value, unit) in figures.items()},
        "series": {},
    }


def test_compare_tells_what_changed_and_not_what_swings():
    old = record_with(
        steady=(1.0, "ratio"),
        time=(10.0, "µs"),
        slower=(100.0, "instructions"),
        calls=(4.1, "a request"),
        ratio=(0.83, "ratio"),
        gone=(1.0, "µs"),
    )
    new = record_with(
        steady=(1.01, "ratio"),
        time=(11.5, "µs"),
        slower=(104.0, "instructions"),
        calls=(5.1, "a request"),
        ratio=(0.874, "ratio"),
        extra=(1.0, "µs"),
    )
    told = "\n".join(track.compare(old, new))
    assert "+4.0%  slower: 100 -> 104 instructions" in told
    assert "steady" not in told
    assert "time:" not in told
    assert "gone: gone" in told
    assert "calls: 4.1 -> 5.1 a request" in told
    assert "ratio: 0.83 -> 0.874 ratio" in told
    assert "new: extra" in told


def test_the_tables_name_every_gateway_and_budget():
    told = "\n".join(tables.all_gateways(RECORDS[-1]))
    assert all(f"| {name} |" in told or f"| **{name}** |" in told for name in tables.gateways(RECORDS[-1]["figures"]))
    verdicts = [line.split("|")[-2].strip() for line in list(tables.budget_table(RECORDS[-1]))[2:]]
    assert len(verdicts) == len(budgets.BUDGETS)
    assert set(verdicts) <= {"met", "**missed**", "not measured"}


REPORTS = """
import json, pathlib, sys
told = {"figures": {sys.argv[1]: {"value": 1.0, "unit": "µs"}}, "series": {}}
pathlib.Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps(told))
sys.exit(int(sys.argv[2]))
"""


def test_a_benchmark_that_fails_costs_no_figures_of_others(tmp_path, monkeypatch):
    """It is named, and can be measured again. A missed budget, exit status 1, is no failure."""
    script = tmp_path / "script.py"
    script.write_text(REPORTS)
    broken = tmp_path / "broken.py"
    monkeypatch.setattr(track, "HISTORY", tmp_path / "history")
    monkeypatch.setattr(track, "CALLS", ())
    names = {"first": [str(script), "a", "0"], "second": [str(broken), "b", "0"], "third": [str(script), "c", "1"]}
    monkeypatch.setattr(track, "BENCHMARKS", {name: (command, command) for name, command in names.items()})
    path, failed = track.run(is_quick=False)
    assert failed == ["second"]
    assert json.loads(path.read_text())["figures"].keys() == {"a", "c"}
    broken.write_text(REPORTS)
    assert track.run(is_quick=False, only=["second"]) == (path, [])
    assert json.loads(path.read_text())["figures"].keys() == {"a", "b", "c"}
    assert [each.name for each in track.HISTORY.iterdir()] == [path.name]


class Page(html.parser.HTMLParser):
    """What a browser would load, and what it would draw."""

    def __init__(self):
        super().__init__()
        self.loaded, self.plots, self.text = [], 0, ""

    def handle_starttag(self, tag, attributes):
        self.plots += tag == "svg"
        for name, value in attributes:
            if tag in ("script", "link", "img", "iframe") or (
                name in ("src", "href", "xlink:href") and value[:1] != "#"
            ):
                self.loaded.append((tag, name, value))

    def handle_data(self, data):
        self.text += data


def test_the_report_stands_on_its_own():
    page = Page()
    page.feed(report.page(RECORDS))
    assert page.loaded == []
    assert page.plots >= 10
    assert all(budget.text in page.text for budget in budgets.measured(RECORDS[-1]["figures"]))


def test_the_threads_of_a_gateway_cost_the_store_what_one_does():
    """They share a near cache, so cores are not in the load; only the gateways are fewer."""
    fleet = capacity.Fleet(4, 5e6, 1e6)
    assert capacity.load(dataclasses.replace(fleet, cores=8)) == capacity.load(fleet)
    one, eight = (capacity.plan(1e8, dataclasses.replace(fleet, cores=n), capacity.Costs()) for n in (1, 8))
    assert eight.fleet.gateways < one.fleet.gateways / 4
    assert eight.store.loads < one.store.loads
    assert eight.first_thread <= capacity.UTILISATION


@pytest.mark.parametrize(("cores", "connections"), [(2, 64), (8, 100), (8, 1000), (32, 10_000)])
def test_the_busiest_thread_has_what_chance_gives_it(cores, connections):
    draw = random.Random(1)
    most = [max(Counter(draw.choices(range(cores), k=connections)).values()) * cores / connections for _ in range(200)]
    expected = statistics.mean(most)
    assert expected <= capacity.busiest(cores, connections) <= 1 + 2.2 * (expected - 1)


def test_the_model_of_the_store_s_load_fits_what_was_measured():
    measured = RECORDS[-1]["figures"]
    fleets = dict(capacity.fleets(measured))
    assert len(fleets) == 14
    for name, fleet in fleets.items():
        predicted = capacity.load(fleet)
        commands = predicted.commands / fleet.requests_per_s * 1000
        if "recheck" not in name:  # there, one load is awaited after the other, each in an exchange of its own
            assert commands == pytest.approx(measured[f"{name}/commands"]["value"], rel=0.05), name
        assert predicted.touches == pytest.approx(measured[f"{name}/touches"]["value"], rel=0.1), name
        assert predicted.loads == pytest.approx(measured[f"{name}/loads"]["value"], rel=0.1, abs=10), name
