"""What became of a move, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastticket.moving.importing import Imported
from fastticket.moving.sources import WHY
from fastticket.moving.sources.values import LeftBehind

#: What becomes of sessions, in the order of reports.
OUTCOMES: Mapping[str, str] = {
    "created": "made here",
    "exists": "there already; the later idle deadline counts",
    "done_before": "brought by an earlier run",
    "in_doubt": "of these perhaps: not there, and may have been ended since",
    "ended": "ended here, and stay so",
    "expired": "expired",
}


def values(imported: Imported, left: LeftBehind) -> dict[str, Any]:
    """For programs. `read`: all that the source had; `skipped` by reason."""
    counts = {name: getattr(imported, name) for name in OUTCOMES}
    read = sum(counts.values()) - imported.in_doubt + imported.skipped.total()
    return {
        "read": read,
        **counts,
        "skipped": dict(imported.skipped),
        "examples": [{"what": each.what, "why": each.why} for each in imported.examples],
        "attributes_left": [{"name": name, "why": why, "count": count} for (name, why), count in left.items()],
    }


def told(imported: Imported, left: LeftBehind, *, is_dry_run: bool) -> Iterator[str]:
    """For people, a line each."""
    found = values(imported, left)
    yield f"{found['read']} sessions read{': a dry run, nothing is written' if is_dry_run else ''}"
    for name, text in OUTCOMES.items():
        if found[name]:
            yield f"{found[name]:>8}  {'to be ' if is_dry_run and name == 'created' else ''}{text}"
    for why, count in sorted(imported.skipped.items()):
        yield f"{count:>8}  skipped, {why}: {WHY.get(why, 'no store can hold it')}"
    for (name, why), count in sorted(left.items()):
        yield f"{count:>8}  attributes left behind, {name!r}: {WHY[why]}"
