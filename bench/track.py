"""The history of the figures: measure everything, and see what changed.

    python bench/track.py run [--quick]         all benchmarks in turn (half an hour), and a record
                                                of them in bench/history/
                          … --only NAME …       some of them, into the record of the same commit
    python bench/track.py compare [OLD [NEW]]   the differences of two records, else of the last two

A record is named after its time and commit; commit it. Times in it are this machine's, on that day:
it swings by a fifth. What counts are ratios, taken within one run, and instructions, which repeat.
`compare` therefore marks times as such, and prints them only when they differ by more than the
machine does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import budgets
import figures

HERE = Path(__file__).resolve().parent
HISTORY = HERE / "history"

Command = list[str]
SOURCE = ("commit", "changed_files", "versions")

BY_WRK = ("nginx", "fastticket", "haproxy, jwt_verify", "nginx, auth_request", "floor: 2 recv, 2 send")

# Name -> command; `--json FILE` is added. The quick ones keep `--quick` within ten minutes.
BENCHMARKS: dict[str, tuple[Command, Command]] = {
    "instructions": (["instructions.py"], ["instructions.py"]),
    "gateway": (["gateway.py"], ["gateway.py", "--quick"]),
    "wrk": (["gateway.py", "--wrk", "--only", *BY_WRK], ["gateway.py", "--wrk", "--only", "nginx", "fastticket"]),
    "flush": (["flush.py"], ["flush.py"]),
    "store load": (["store_load.py"], ["store_load.py", "--seconds", "3", "--only", "fastticket"]),
    "store memory": (["store_memory.py"], ["store_memory.py", "--sessions", "20000"]),
    "attributes": (["attributes.py"], ["attributes.py", "--requests", "300"]),
    "revocation": (["revocation.py", "--revocations", "4000"], ["revocation.py", "--revocations", "500"]),
    "crowd": (["crowd.py"], ["crowd.py"]),
    "storm": (["storm.py"], ["storm.py", "--seconds", "10"]),
    "reload": (["reload.py"], ["reload.py", "--quick"]),
    **{
        f"scale, {name}": (["scale.py", "--only", name], ["scale.py", "--quick", "--only", name])
        for name in ("sessions", "connections", "threads", "gateways", "shards", "redis")
    },
}
CALLS = ("core", "cache", "stores", "middleware")
TIMEOUT_S = 900.0  # of one benchmark; the longest takes six minutes

# How far a figure may differ without being worth a line.
NOISE = {
    "ratio": 0.03,
    "instructions": 0.005,
    "calls": 0.01,
    "bytes": 0.005,
    "a request": 0.02,
    "per 1,000 requests": 0.03,
}
NOISE_OF_TIMES = 0.25


def run(is_quick: bool, only: Sequence[str] = ()) -> tuple[Path, list[str]]:
    """The new record, and the benchmarks that failed: theirs is missing in it, or a part of it.
    With `only`, the last record again, with those measured anew.
    """
    record = {"environment": figures.environment() | {"seconds": {}}, "figures": {}, "series": {}}
    path, failed = _new_path(record["environment"], is_quick), []
    if only:
        path = max(HISTORY.glob(f"*{record['environment']['commit'][:7]}*.json"), default=path)
        record = json.loads(path.read_text()) if path.exists() else record
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        for name, command in commands(is_quick, out):
            if only and name not in only:
                continue
            print(f"--- {name}", flush=True)
            if not _measure(name, command, out, record):
                failed.append(name)
                print(f"--- {name} HAS FAILED", flush=True)
            now = figures.environment()
            if any(now[each] != record["environment"][each] for each in SOURCE):
                raise SystemExit("track: the sources were changed while they were measured; nothing is kept")
            path.with_suffix(".unfinished").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".unfinished").rename(path)
    return path, failed


def _new_path(place: Mapping[str, Any], is_quick: bool) -> Path:
    HISTORY.mkdir(exist_ok=True)
    dirty = "-changed" if place["changed_files"] else ""
    time_text = place["date"][:16].replace(":", "").replace("T", "-")
    return HISTORY / f"{time_text}-{place['commit'][:7]}{dirty}{'-quick' if is_quick else ''}.json"


def _measure(name: str, command: Command, out: Path, record: dict[str, Any]) -> bool:
    """Add what one benchmark finds. Of the programs, exit status 1 is a missed budget, which is a
    result, too; of pytest it is a row that failed.
    """
    out.unlink(missing_ok=True)
    began_s = time.monotonic()
    try:
        status = subprocess.run([sys.executable, *command], cwd=HERE.parent, check=False, timeout=TIMEOUT_S).returncode
    except subprocess.TimeoutExpired:
        return False
    record["environment"]["seconds"][name] = round(time.monotonic() - began_s)
    if not out.exists():
        return False
    told = json.loads(out.read_text())
    record["figures"] |= told["figures"]
    record["series"] |= told["series"]
    return not (status and name in CALLS)


def commands(is_quick: bool, out: Path) -> Iterator[tuple[str, Command]]:
    """The name and the command of each benchmark, in order."""
    for name, (whole, quick) in BENCHMARKS.items():
        script, *options = quick if is_quick else whole
        yield name, [str(HERE / script), *options, "--json", str(out)]
    for name in CALLS:
        yield name, ["-m", "pytest", "-q", str(HERE / f"bench_{name}.py"), "--figures", str(out)]


def records() -> list[Path]:
    """Oldest first, quick ones left out."""
    found = [path for path in HISTORY.glob("*.json") if not path.stem.endswith("-quick")]
    return sorted(found, key=lambda path: json.loads(path.read_text())["environment"]["date"])


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """The figures that differ by more than noise, the largest difference first."""
    yield f"old: {figures.describe(old['environment'])}"
    yield f"new: {figures.describe(new['environment'])}"
    before, after = old["figures"], new["figures"]
    changes = []
    for name in before.keys() & after.keys():
        was, now = before[name]["value"], after[name]["value"]
        if was and abs(now / was - 1) > max(noise(after[name]["unit"]), doubt(before[name]), doubt(after[name])):
            changes.append((abs(now / was - 1), name, was, now))
    for _, name, was, now in sorted(changes, reverse=True):
        unit = after[name]["unit"]
        note = "" if is_steady(unit) else "   (a time: look at the ratios first)"
        yield f"{now / was - 1:+8.1%}  {name}: {was:,.4g} -> {now:,.4g} {unit}{note}"
    for budget in budgets.BUDGETS:
        if budget.figure in before and budget.figure in after and budget.is_met(before) != budget.is_met(after):
            yield f"{'now met' if budget.is_met(after) else 'NOW MISSED'}: {budget.text}, wanted {budget.wanted}"
    yield f"{len(changes)} of {len(before.keys() & after.keys())} figures differ by more than noise"
    for title, names in (("gone", before.keys() - after.keys()), ("new", after.keys() - before.keys())):
        if names:
            yield f"{title}: {', '.join(sorted(names))}"


def noise(unit: str) -> float:
    """The difference up to which nothing has happened."""
    return next((share for known, share in NOISE.items() if unit.startswith(known)), NOISE_OF_TIMES)


def is_steady(unit: str) -> bool:
    """Whether a unit repeats on a busy machine, as times do not."""
    return any(unit.startswith(known) for known in NOISE)


def doubt(own: Mapping[str, float]) -> float:
    """The uncertainty of a median, as a share of it: half of the distance between its quartiles,
    over the root of ten rounds or more.
    """
    return (own["high"] - own["low"]) / 2 / own["value"] / 10**0.5 if "low" in own else 0.0


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    running = actions.add_parser("run")
    running.add_argument("--quick", action="store_true", help="a smaller one; not part of the history")
    running.add_argument("--only", nargs="+", choices=[*BENCHMARKS, *CALLS], default=[], metavar="NAME")
    comparing = actions.add_parser("compare")
    comparing.add_argument("old", type=Path, nargs="?")
    comparing.add_argument("new", type=Path, nargs="?")
    options = parser.parse_args()
    if options.action == "run":
        path, failed = run(options.quick, options.only)
        print(
            f"written: {path}, in {sum(json.loads(path.read_text())['environment']['seconds'].values()) / 60:.0f} min"
        )
        print("`make bench-quote` writes its figures into the documents")
        print(*(f"FAILED: {name}; again: track.py run --only '{name}'" for name in failed), sep="\n")
        return 1 if failed else 0
    known = records()
    chosen = [path for path in (options.old, options.new) if path]
    chosen = [*chosen, *known[len(chosen) - 2 :]] if len(chosen) < 2 else chosen
    if len(chosen) < 2:
        raise SystemExit(f"track: two records are needed; there are {len(known)} in {HISTORY}. `make bench` writes one")
    contents = [json.loads(path.read_text()) for path in chosen]
    print(*compare(*contents), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
