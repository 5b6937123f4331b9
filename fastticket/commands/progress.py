"""How far a command is that takes long: `export`, `import`, `migrate`, `sessions --all`.

    with progress("export", "sessions", total=100_000) as advance:
        for page in pages:
            ...
            advance(len(page))

Nothing shows in the first two seconds. After those, a terminal shows a bar on the standard error,
or, without `rich` (the extra `tui`), one plain line. Where the standard error is no terminal,
nothing is printed: a log of a nightly export has no use for a bar.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

SILENT_S = 2.0


@contextlib.contextmanager
def progress(doing: str, unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yields `advance(count)`: so many more are done. `doing` and `unit` name it: "export",
    "sessions". `total`: how many there will be; None: not known. What shows is gone at the end.
    """
    shown = _Shown(doing, unit, total) if sys.stderr.isatty() else None
    try:
        yield shown.advance if shown else _silent
    finally:
        if shown:
            shown.end()


def _silent(_: int) -> None:
    """No terminal reads it."""


class _Shown:
    def __init__(self, doing: str, unit: str, total: int | None) -> None:
        self._doing, self._unit, self._total = doing, unit, total
        self._done = 0
        self._show_at_s: float | None = time.monotonic() + SILENT_S  # None: it shows
        self._bar: Progress | None = None

    def advance(self, count: int) -> None:
        self._done += count
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._done)
        elif self._show_at_s is not None and time.monotonic() >= self._show_at_s:
            self._show_at_s = None
            self._begin()

    def _begin(self) -> None:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        except ImportError:
            of = f" of {self._total}" if self._total is not None else ""
            print(f"fastticket: {self._doing}: {self._done}{of} {self._unit} so far; it goes on", file=sys.stderr)
            return
        columns = [
            TextColumn(f"{self._doing} {{task.percentage:>3.0f}}%" if self._total else self._doing),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(self._unit),
            TimeRemainingColumn(),
        ]
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.add_task(self._doing, total=self._total, completed=self._done)
        self._bar.start()

    def end(self) -> None:
        if self._bar:
            self._bar.stop()
