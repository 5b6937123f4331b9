"""Markdown that several pages need."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A bar in a cell would end it."""
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in rows]
    return "\n".join(lines)


def sentences(docstring: str | None) -> str:
    """A docstring's first paragraph in one line."""
    return " ".join(inspect.cleandoc(docstring or "").partition("\n\n")[0].split())
