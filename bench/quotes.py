"""Every figure in the documents from one record: the newest in bench/history/.

    python bench/quotes.py            what in the pages differs from the record; exit status 1 if so
    python bench/quotes.py --write    the pages, with the figures of the record

`quotes/` has a file for each page: the passages in it that quote, each with holes for the figures.

    | near cache, a session | {core/near cache, bytes a session|.0f} bytes |

A hole is the name of a figure, which `python bench/report.py` lists. Its form follows `said`
(figures.py), unless one is given after a bar; `|/1024` divides first. A figure that the record
lacks is written as a dash. A passage stands in its page exactly once, however its lines are broken.
`[gateways]` in a line of its own is a block that is made whole: tables.py.

The passages are apart from the pages so that those stay plain text. tests/house/test_figures.py
finds a passage that has changed, a figure that differs, and one that no passage covers.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import figures
import tables
import track

ROOT = track.HERE.parent
QUOTES = track.HERE / "quotes"
HOLE = re.compile(r"\{([^{}|]+)(?:\|(/\d+)?([^{}]*))?\}")
NUMBER = r"(—|\d[\d,.]*)"


class MisquotedError(Exception):
    """A page and its passages do not fit."""


@dataclasses.dataclass(frozen=True)
class Quotes:
    """A page, and the passages in it that quote."""

    page: Path
    passages: Sequence[str]

    @property
    def name(self) -> str:
        """The page's path in the repository."""
        return str(self.page.relative_to(ROOT))


def all_quotes() -> list[Quotes]:
    """Of all pages that quote."""
    return [_read(path) for path in sorted(QUOTES.glob("*.txt"))]


def _read(path: Path) -> Quotes:
    """`page: PATH`, then passages, with blank lines between them."""
    first, *passages = re.split(r"\n\s*\n", path.read_text().strip())
    return Quotes(ROOT / first.removeprefix("page: "), passages)


def newest() -> dict[str, Any]:
    """The last record, with the name of its file."""
    path = track.records()[-1]
    return {**json.loads(path.read_text()), "name": path.name}


def rewritten(text: str, passages: Sequence[str], record: Mapping[str, Any]) -> str:
    """A page with the figures of a record. MisquotedError."""
    for passage in passages:
        for (begin, end), value in reversed(list(zip(*_places(text, passage, record), strict=True))):
            text = text[:begin] + value + text[end:]
    return text


def covered(text: str, passages: Sequence[str], record: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Where in a page stands what comes from the record."""
    return [span for passage in passages for span in _places(text, passage, record)[0]]


def _places(text: str, passage: str, record: Mapping[str, Any]) -> tuple[list[tuple[int, int]], list[str]]:
    """The spans of a passage's figures in a page, and what shall stand there."""
    if block := re.fullmatch(r"\[(.+)\]", passage):
        begins, make = tables.BLOCKS[block[1]]
        found = list(re.finditer(rf"^{re.escape(begins)}.*?(?=\n\n|\Z)", text.rstrip("\n"), re.S | re.M))
        values = ["\n".join(make(record))]
    else:
        found = list(_pattern(passage).finditer(text))
        values = [_value(hole, record["figures"]) for hole in HOLE.finditer(passage)]
    if len(found) != 1:
        raise MisquotedError(f"stands {len(found)} times in the page: {passage}")
    groups = range(1, len(values) + 1) if found[0].re.groups else [0]
    return [found[0].span(group) for group in groups], values


def _pattern(passage: str) -> re.Pattern[str]:
    texts = HOLE.sub("\0", passage).split("\0")
    return re.compile(NUMBER.join(r"\s+".join(map(re.escape, re.split(r"\s+", text))) for text in texts))


def _value(hole: re.Match[str], found: Mapping[str, Any]) -> str:
    name, divisor, form = hole.groups()
    if name not in found:
        return "—"
    value = found[name]["value"] / int((divisor or "/1")[1:])
    return format(value, form if form.startswith(",") else f",{form}") if form else figures.said(value)


def differences(record: Mapping[str, Any]) -> Iterator[str]:
    """Of all pages, as a diff."""
    for quotes in all_quotes():
        is_now = quotes.page.read_text()
        should = rewritten(is_now, quotes.passages, record)
        yield from difflib.unified_diff(
            is_now.splitlines(), should.splitlines(), quotes.name, record["name"], "", "", 0
        )


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    record = newest()
    found = list(differences(record))
    print(*found, sep="\n")
    if options.write:
        for quotes in all_quotes():
            quotes.page.write_text(rewritten(quotes.page.read_text(), quotes.passages, record))
        return 0
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
