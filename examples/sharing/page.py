"""Write the figures of one run of all.py into the page about it, and draw its picture (plot.py).

python page.py RUN.json DOCS-FOLDER

In session-sharing.md, the text between `<!-- NAME -->` and `<!-- end -->` is written here: the rows
of each demonstration, and `comparison`, which compares one figure of each.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import table
from plot import Point, drawn

FAILED, ADDED, REMOVED = "requests failed, %", "lost when a server comes, %", "lost when one goes, %"
WORST = "sessions not found at worst, %"
ASKED, COPIES = "messages or commands for 1,000 requests", "a copied cookie after logout, requests admitted of 10"

Rows = list[table.Row]


def comparison(found: dict[str, Rows]) -> Rows:
    """One row for each demonstration; a figure that does not exist is None."""
    return [*_in_memory(found), *_replicated(found), *_signed(found), *_in_redis(found), *_fastticket(found)]


def _in_memory(found: dict[str, Rows]) -> Rows:
    reads = sum(row["reads"] for row in found["problem"])
    read = sum(row["reads that found it"] for row in found["problem"])
    hashed = {row["change"]: row for row in found["ip_hash"] if row["clients"] != "one NAT"}
    return [
        _row("own sessions, in turns", 100 * (reads - read) / reads),
        _row(
            "own sessions, ip_hash",
            hashed["nothing changes"]["lost, %"],
            hashed["a server is added"]["lost, %"],
            hashed["a server is removed"]["lost, %"],
        ),
    ]


def _replicated(found: dict[str, Rows]) -> Rows:
    """Nodes came and went under the harder of the two balancing methods, in turns."""
    rows = found["replication"]
    in_turns = [
        _row(
            f"replication, {row['nodes']} nodes, in turns",
            100 * row["failed reads"] / row["reads"],
            100 * row["lost by adding"] / row["sessions"],
            100 * row["lost by removing"] / row["sessions"],
            row["messages/1,000 requests"],
        )
        for row in rows
    ]
    return in_turns + [
        _row(f"replication, {row['nodes']} nodes, ip_hash", None, None, None, row["messages, ip_hash"]) for row in rows
    ]


def _signed(found: dict[str, Rows]) -> Rows:
    rows = {row["situation"]: row for row in found["cookie_only"]}
    steps = ("logged in, a name of 5 bytes", "servers are added", "a server is removed")
    failed = [_failed(rows[step]) for step in steps]
    return [_row("the cookie alone", *failed, None, rows["logged out, a copy of the cookie"]["admitted"])]


def _in_redis(found: dict[str, Rows]) -> Rows:
    return [
        _row(
            f"Redis on every request: {row['sessions as kept by']}",
            100 * row["refused"] / row["requests"],
            100 * row["lost by adding"] / row["sessions"],
            100 * row["lost by removing"] / row["sessions"],
            row["commands/1,000 requests"],
            row["copies admitted after logout"],
        )
        for row in found["redis_per_request"]
    ]


def _fastticket(found: dict[str, Rows]) -> Rows:
    """After the changes, the user and the value were requested equally often. A value that is lost
    is answered with 404.
    """
    rows = {row["step"]: row for row in found["fastticket_shared"]}
    steps = {"fastticket": "everybody asks for the session's id", "fastticket, values": "everybody asks for it again"}
    return [
        _row(
            name,
            _failed(rows[step]),
            _failed(rows["a gateway is added"], rows["an application is added"]),
            _failed(rows["a gateway is removed"], rows["an application is removed"]),
            rows[step]["commands/1,000 requests"],
            rows["a copy of the cookie"]["admitted"],
        )
        for name, step in steps.items()
    ]


def _failed(*steps: table.Row) -> float:
    """The percentage of requests that were not admitted, whatever the answer, in the worst of these
    steps.
    """
    return max(100 * (row["requests"] - row["admitted"]) / row["requests"] for row in steps)


def _row(name: str, *figures: float | None) -> table.Row:
    headings = (FAILED, ADDED, REMOVED, ASKED, COPIES)
    return {"sessions": name, **dict.fromkeys(headings), **dict(zip(headings, figures, strict=False))}


def markdown(rows: Rows) -> str:
    lines = [list(rows[0]), ["---" if isinstance(value, str) else "---:" for value in rows[0].values()]]
    lines += [[table.shown(value) for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written(page: str, blocks: dict[str, str]) -> str:
    """The page with these blocks in place of its old ones."""
    for name, text in blocks.items():
        page, number = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda found, text=text: f"{found[1]}{text}\n{found[2]}",
            page,
            flags=re.S,
        )
        if number != 1:
            sys.exit(f"the page has {number} blocks {name}")
    return page


def picture(rows: Rows) -> str:
    """The SVG of the comparison."""
    points = [Point(row["sessions"], row["sessions"].startswith("fastticket"), _worst(row), row[ASKED]) for row in rows]
    return drawn(points, WORST, ASKED)


def _worst(row: table.Row) -> float | None:
    return max((row[column] for column in (FAILED, ADDED, REMOVED) if row[column] is not None), default=None)


def main() -> None:
    run: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    docs = Path(sys.argv[2])
    compared = comparison(run["rows"])
    blocks = {name: markdown(rows) for name, rows in run["rows"].items()}
    page = docs / "session-sharing.md"
    page.write_text(
        written(page.read_text(), {**blocks, "comparison": markdown(compared), "where": f"Measured {run['where']}."})
    )
    (docs / "session-sharing.svg").write_text(picture(compared))


if __name__ == "__main__":
    main()
