"""A demonstration as a command: measure, print one table, and write the same as JSON if asked."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]  # column heading -> value; None: an empty cell
Measure = Callable[[], list[Row]]


def run(title: str, measure: Measure) -> None:
    """Measure and print. `--json FILE` writes the rows."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    rows = measure()
    print(table(title, rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def table(title: str, rows: list[Row]) -> str:
    """The table as plain text: names to the left, numbers to the right."""
    lines = [list(rows[0]), *([shown(value) for value in row.values()] for row in rows)]
    is_number = [not isinstance(value, str) for value in rows[0].values()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width for width in widths]
    aligned = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        ).rstrip()
        for line in (lines[0], rule, *lines[1:])
    ]
    return "\n".join([title, "", *aligned, ""])


def shown(value: object) -> str:
    """The text of a cell."""
    if value is None:
        return ""
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
