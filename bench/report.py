"""An HTML page of the history, with plots; it stands on its own: no script, no font, no picture
from elsewhere.

    python bench/report.py [--out FILE]

The last record is shown whole: the gateways, the budgets, what things cost as the work grows. Plots
of costs begin at zero; where an axis is logarithmic, it says so, and what is on it are points, not
bars.
"""

from __future__ import annotations

import argparse
import html
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import budgets
import figures
import matplotlib as mpl
import matplotlib.ticker
import tables
import track

mpl.use("svg")
import matplotlib.pyplot as plt

OUT = track.HERE / "build" / "report.html"
OURS, THEIRS = "#0b5fa5", "#5f6b76"
REDIS = "#c0392b"
HISTORY_FIGURES = {
    "instructions of the hot paths": [
        "instructions/check, hit",
        "instructions/check, HMAC",
        "instructions/request, head scan",
        "instructions/request",
    ],
    "gateway CPU ÷ another's, in one run": [
        "gateway/ratio/fastticket ÷ nginx",
        "gateway/ratio/fastticket ÷ nginx, auth_request",
        "gateway/ratio/fastticket ÷ haproxy, jwt_verify",
        "gateway/ratio/fastticket ÷ nginx, Lua, HMAC, Redis",
    ],
    "itsdangerous unsign ÷ a check": ["core/ratio/unsign ÷ cached check", "core/ratio/unsign ÷ check with HMAC"],
}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2329; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #d5dbe0; }
table { border-collapse: collapse; font-size: 13px; }
td, th { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #e6eaed; }
td:first-child, th:first-child { text-align: left; } tr.ours { font-weight: 600; } .missed { color: #b3261e; font-weight: 600; }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; } figcaption, .note { color: #55606a; font-size: 13px; }
"""


def svg(plot: Any) -> str:
    """A plot as an element of the page."""
    text = io.StringIO()
    plot.savefig(
        text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    plt.close(plot)
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), flags=re.S)


def figure_of(plot: Any, caption: str) -> str:
    """A plot as HTML, with its caption."""
    return f"<figure>{svg(plot)}<figcaption>{html.escape(caption)}</figcaption></figure>"


# -------------------------------------------------------------------------------------- competitors


def cpu_bars(found: Mapping[str, Any], names: Sequence[str], title: str) -> Any:
    """User, system and Redis' CPU, one bar a gateway, from zero."""
    plot, axes = plt.subplots(figsize=(9.5, 0.34 * len(names) + 1.1))
    for at, name in enumerate(reversed(names)):
        parts = [
            found.get(f"gateway/{name}/{quantity}", {"value": 0.0})["value"] for quantity in ("user", "system", "redis")
        ]
        color = OURS if name.startswith("fastticket") else THEIRS
        axes.barh(at, parts[0], color=color)
        axes.barh(at, parts[1], left=parts[0], color=color, alpha=0.45)
        axes.barh(at, parts[2], left=parts[0] + parts[1], color=REDIS, alpha=0.6)
        axes.text(sum(parts), at, f" {sum(parts):.1f}", va="center", fontsize=9)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xlabel("µs of CPU a request: user (dark), system (light), its Redis (red); means")
    axes.set_title(title, loc="left")
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    return plot


def whole_cpu(found: Mapping[str, Any], name: str) -> float:
    """A gateway's, with its Redis'."""
    paths = (f"gateway/{name}/{quantity}" for quantity in ("user", "system", "redis"))
    return sum(found[path]["value"] for path in paths if path in found)


def latency_points(found: Mapping[str, Any], names: Sequence[str]) -> Any:
    """p50, p99 and p99.9 of each gateway."""
    plot, axes = plt.subplots(figsize=(9.5, 0.34 * len(names) + 1.1))
    for at, name in enumerate(reversed(names)):
        values = [found[f"gateway/{name}/{quantity}"]["value"] for quantity in ("p50", "p99", "p999")]
        color = OURS if name.startswith("fastticket") else THEIRS
        axes.plot(values, [at] * 3, color=color, linewidth=1)
        for value, marker in zip(values, "o|x", strict=True):
            axes.plot(value, at, marker, color=color, markersize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xlabel("µs from request to answer, logarithmic: p50 (dot), p99 (bar), p99.9 (cross); 64 in flight")
    axes.set_title("latency when the gateway's core is full", loc="left")
    axes.grid(axis="x", which="both", alpha=0.3)
    return plot


# -------------------------------------------------------------------------------------------- scale


def scale_plots(series: Mapping[str, Any]) -> Iterator[Any]:
    """One plot for all series whose names have the same beginning and the same units."""
    groups: dict[tuple[str, str, str], list[tuple[str, Any]]] = {}
    for name, line in series.items():
        title, _, label = name.partition(": ")
        key = (
            title if label in ("fastticket", "nginx", "round robin", "hashed") else name,
            line["x_unit"],
            line["y_unit"],
        )
        groups.setdefault(key, []).append((label, line))
    for (title, x_unit, y_unit), lines in groups.items():
        plot, axes = plt.subplots(figsize=(5.2, 3.2))
        for (label, line), color, style in zip(lines, (OURS, THEIRS), ("o-", "s--"), strict=False):
            axes.plot(line["x"], line["y"], style, color=color, label=label)  # dashed, where both fall on one line
        if max(lines[0][1]["x"]) / min(lines[0][1]["x"]) > 20:
            axes.set_xscale("log")
            x_unit += " (logarithmic)"
            axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.set_xticks(lines[0][1]["x"], [f"{value:,.0f}" for value in lines[0][1]["x"]], rotation=20, ha="right")
        axes.set_ylim(bottom=0, top=max(max(line["y"]) for _, line in lines) * 1.15)
        axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.set_xlabel(x_unit)
        axes.set_ylabel(y_unit)
        axes.set_title(title, loc="left", fontsize=11)
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend(frameon=False)
        yield plot


# ------------------------------------------------------------------------------------------ history


def history_plot(title: str, names: Sequence[str], records: Sequence[Mapping[str, Any]]) -> Any:
    """The figures of some names over all records."""
    plot, axes = plt.subplots(figsize=(9.5, 3.2))
    labels = [f"{record['environment']['date'][:10]}\n{record['environment']['commit'][:7]}" for record in records]
    for name in names:
        values = [record["figures"].get(name, {}).get("value") for record in records]
        points = [(at, value) for at, value in enumerate(values) if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", label=name.rpartition("/")[2])
    axes.set_xticks(range(len(records)), labels, fontsize=8)
    axes.set_xlim(-0.5, len(records) - 0.5)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_ylabel("instructions" if title.startswith("instructions") else "ratio")
    axes.set_title(title, loc="left")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left", fontsize=9)
    return plot


# --------------------------------------------------------------------------------------------- page


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The page of all records."""
    last = records[-1]
    return "\n".join(
        [
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>fastticket: benchmarks</title><style>{STYLE}</style>",
            "<h1>fastticket: benchmarks</h1>",
            f"<p class='note'>{html.escape(figures.describe(last['environment']))}</p>",
            *budget_section(last["figures"]),
            *gateway_section(last["figures"]),
            *scale_section(last["series"]),
            *history_section(records),
            *figure_section(last["figures"]),
            "</html>",
        ]
    )


def budget_section(found: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Budgets</h2><table><tr><th>what<th>measured<th>wanted<th></tr>"
    for budget in budgets.measured(found):
        verdict = "met" if budget.is_met(found) else "<span class='missed'>missed</span>"
        yield f"<tr><td>{html.escape(budget.text)}<td>{budget.said(found)}<td>{html.escape(budget.wanted)}<td>{verdict}</tr>"
    yield "</table>"


def gateway_section(found: Mapping[str, Any]) -> Iterator[str]:
    names = sorted(tables.gateways(found), key=lambda name: whole_cpu(found, name))
    if not names:
        return
    yield "<h2>A request through a gateway</h2>"
    yield figure_of(
        cpu_bars(found, names, "CPU of a request"),
        "Gateway alone on one core, loader and upstream in one spinning process on the other; candidates take turns in one run.",
    )
    dearest = 3 * found["gateway/nginx/cpu"]["value"] if "nginx" in names else 0
    if cheap := [name for name in names if found[f"gateway/{name}/cpu"]["value"] <= dearest]:
        caption = "The same, without those that take more than three times as much as nginx, at a larger scale."
        yield figure_of(cpu_bars(found, cheap, "CPU of a request, the cheaper ones"), caption)
    yield figure_of(
        latency_points(found, names),
        "All are driven to the limit of one core, so these are times of waiting in turn; the order is that of the first plot.",
    )


def scale_section(series: Mapping[str, Any]) -> Iterator[str]:
    if series:
        yield "<h2>As the work grows</h2>"
        yield from (svg(plot) for plot in scale_plots(series))


def history_section(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "<h2>History</h2>"
    yield from (svg(history_plot(title, names, records)) for title, names in HISTORY_FIGURES.items())


def figure_section(found: Mapping[str, Any]) -> Iterator[str]:
    yield "<h2>Every figure of the last record</h2><table><tr><th>figure<th>median<th>quartiles<th>unit</tr>"
    for name, own in sorted(found.items()):
        spread = f"{own['low']:,.4g} to {own['high']:,.4g}" if "low" in own else ""
        ours = " class='ours'" if "/fastticket" in name else ""
        yield f"<tr{ours}><td>{html.escape(name)}<td>{own['value']:,.4g}<td>{spread}<td>{html.escape(own['unit'])}</tr>"
    yield "</table>"


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="The history as a page with plots.")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help="where to write it; %(default)s")
    options = parser.parse_args()
    known = [json.loads(path.read_text()) for path in track.records()]
    if not known:
        raise SystemExit(f"report: there is no record in {track.HISTORY}; `make bench` writes one")
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(page(known))
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
