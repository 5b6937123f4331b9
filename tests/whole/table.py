"""Every schedule in its whole form, one after the other, as one table; `make faults`. Exit code 1
if anything is wrong.

python -m whole.table [--short] [--only NAME[,NAME]] [--details]
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
import traceback
from pathlib import Path

import uvloop

from whole.judge import Judgement
from whole.schedules import SCHEDULES
from whole.stage import Schedule, perform

HEAD = (
    "schedule",
    "requests",
    "late (risen)",
    "worst",
    "wrong 401",
    "other wrong",
    "failed",
    "recovery",
    "touches",
    "s",
    "verdict",
)
WIDTHS = (40, 8, 13, 7, 9, 26, 26, 8, 8, 5, 7)
OTHERS = ("overlong", "held_503", "failed_well", "bare_503", "somebody_else", "odd")


def main() -> int:
    """Play, print, and say whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names, or beginnings of names, with commas")
    parser.add_argument("--short", action="store_true", help="the forms of `make test`")
    parser.add_argument("--details", action="store_true", help="findings of schedules that are well, too")
    options = parser.parse_args()
    wanted = tuple(name for name in options.only.split(",") if name)
    rows = [s for s in SCHEDULES.values() if not wanted or s.name.startswith(wanted)]
    rows = [SCHEDULES[options.only]] if options.only in SCHEDULES else rows
    rows = [s for s in rows if s.has_short_form or not options.short]
    print(_line(HEAD), flush=True)
    details, bad, began_s = [], 0, time.monotonic()
    for row in rows:
        outcome, took_s = _play(row, is_short=options.short)
        is_good = isinstance(outcome, Judgement) and outcome.is_good
        bad += not is_good
        print(_line(_cells(row, outcome, took_s)), flush=True)
        if not is_good or options.details or (isinstance(outcome, Judgement) and outcome.notes):
            details.append(f"\n{row.name}: {row.about}\n{outcome}")
    print(*details, sep="\n")
    print(f"\n{len(rows)} schedules, {bad} with something wrong, {time.monotonic() - began_s:.0f} s")
    return 1 if bad else 0


def _play(row: Schedule, *, is_short: bool) -> tuple[Judgement | str, float]:
    """(a judgement, or why there is none; seconds)"""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        try:
            outcome: Judgement | str = uvloop.run(perform(row, Path(folder), is_short=is_short))
        except Exception:
            outcome = traceback.format_exc(limit=-3)
    return outcome, time.monotonic() - began_s


def _cells(row: Schedule, outcome: Judgement | str, took_s: float) -> tuple[str, ...]:
    if isinstance(outcome, str):
        return (row.name, *[""] * 8, f"{took_s:.0f}", "BROKEN")
    risen = outcome.count("risen")
    late = outcome.count("late") + risen
    others = ", ".join(f"{outcome.count(what)} {what}" for what in OTHERS if outcome.count(what))
    failed = ", ".join(f"{number} {what}" for what, number in sorted(outcome.failed.items()))
    recovery = outcome.recovery_s
    lost = outcome.touches_lost_s
    return (
        row.name,
        str(outcome.requests),
        f"{late} ({risen})" if risen else str(late),
        f"{outcome.worst_s('late', 'risen'):.1f} s" if late else "",
        str(outcome.count("wrong_401")),
        others + (f" +{len(outcome.broken)}" if outcome.broken else ""),
        failed or "0",
        "" if recovery is None else "never" if recovery == math.inf else f"{recovery:.1f} s",
        "" if lost is None else f"{lost:.2f} s",
        f"{took_s:.0f}",
        "well" if outcome.is_good else "WRONG",
    )


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


if __name__ == "__main__":
    sys.exit(main())
