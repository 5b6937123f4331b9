"""`fastticket top`: how a running gateway is, in a terminal, anew each second.

It reads what `status` reads. While the gateway does not answer, it shows what was last known and
since when, and goes on asking: a restart needs no restart here. Asking happens in a thread, so keys
work while an answer is waited for.

`textual` is in the extra `tui`: only this module imports it, and only `top` imports this module.
"""

from __future__ import annotations

import time
from collections import deque
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Sparkline, Static

from fastticket.commands.admin import AdminApi
from fastticket.commands.figures import Rates, Reading, lines, read, shown_time, sorted_rows, tables
from fastticket.errors import FastticketError

INTERVAL_S = 1.0
WINDOW = 10  # readings, for rates and quantiles: as the page has them
CURVE = 120  # readings, for the curve of requests


class Top(App[None]):
    """The screen."""

    CSS = """
    Screen { layout: vertical; }
    #said { height: 1; background: $error; color: $text; display: none; }
    #said.shown { display: block; }
    #lines { height: auto; max-height: 13; }
    #curve { height: 2; }
    #title { height: 1; text-style: bold; }
    #table { height: 1fr; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("g", "show('g')", "Gateways"),
        Binding("u", "show('u')", "Upstreams"),
        Binding("k", "show('k')", "Keys"),
        Binding("r", "show('r')", "Refusals"),
        Binding("s", "sort", "Sort"),
        Binding("i", "invert", "Invert"),
        Binding("p", "pause", "Pause"),
    ]

    def __init__(self, admin: AdminApi, interval_s: float = INTERVAL_S) -> None:
        super().__init__()
        self._admin = admin
        self._interval_s = interval_s
        self._readings: deque[Reading] = deque(maxlen=WINDOW + 1)
        self._curve: deque[float] = deque([0.0] * CURVE, maxlen=CURVE)
        self._failure = ""
        self._table_key = "g"
        self._column = 0
        self._is_inverted = False
        self._is_paused = False
        self._is_asking = False

    def compose(self) -> ComposeResult:
        """The parts, from above; textual calls it."""
        yield Static(id="said", markup=False)
        yield Static(id="lines", markup=False)
        yield Sparkline(list(self._curve), id="curve")
        yield Static(id="title", markup=False)
        yield DataTable(id="table", cursor_type="row", zebra_stripes=True)
        yield Footer()

    def on_mount(self) -> None:
        """Begin to ask; textual calls it."""
        self._ask_once()
        self.set_interval(self._interval_s, self._ask_once)

    def _ask_once(self) -> None:
        """Unless it was told to pause, or the answer before is still waited for."""
        if not (self._is_paused or self._is_asking):
            self._is_asking = True
            self._ask()
        elif self._failure:
            self._draw()

    @work(thread=True)
    def _ask(self) -> None:
        reading, failure = None, ""
        try:
            reading = read(self._admin)
        except FastticketError as error:
            failure = str(error).removeprefix(f"{self._admin.address}: ")
        self.call_from_thread(self._take, reading, failure)

    def _take(self, reading: Reading | None, failure: str) -> None:
        self._is_asking, self._failure = False, failure
        if reading:
            if self._readings and self._readings[-1].status["pid"] != reading.status["pid"]:
                self._readings.clear()  # another process counts from zero
            self._readings.append(reading)
            self._curve.append(reading.status["rates"]["requests"])
        self._draw()

    # --- the screen

    def _draw(self) -> None:
        said = self.query_one("#said", Static)
        said.set_class(bool(self._failure) or self._is_paused, "shown")
        said.update(Text(self._warning(), no_wrap=True, overflow="ellipsis"))
        if not self._readings:
            return
        reading = self._readings[-1]
        rates = Rates(self._readings[0] if len(self._readings) > 1 else None, reading)
        shown = Text(style="dim" if self._failure else "", no_wrap=True, overflow="ellipsis")
        for line in lines(reading, rates):
            shown.append(f"{line.name:9} ", "bold")
            shown.append(f"{line.text}\n", "bold red" if line.is_bad else "")
        self.query_one("#lines", Static).update(shown)
        self.query_one("#curve", Sparkline).data = list(self._curve)
        self._draw_table(reading, rates)

    def _warning(self) -> str:
        if not self._failure:
            return "paused: p goes on"
        if not self._readings:
            return self._failure
        return f"as it was {shown_time(time.monotonic() - self._readings[-1].at_s)} ago: {self._failure}"

    def _draw_table(self, reading: Reading, rates: Rates) -> None:
        table = tables(reading, rates)[self._table_key]
        column = self._column % len(table.columns)
        arrow = "▲" if self._is_inverted else "▼"
        self.query_one("#title", Static).update(f"{table.title}, by {table.columns[column]} {arrow}")
        view = self.query_one("#table", DataTable)
        row, top = view.cursor_row, view.scroll_y
        view.clear(columns=True)
        view.add_columns(*table.columns)
        for each in sorted_rows(table, column, self._is_inverted):
            view.add_row(*map(_cell, each.cells), key=each.key)
        view.move_cursor(row=row, scroll=False)
        view.scroll_to(y=top, animate=False)

    # --- keys

    def action_show(self, key: str) -> None:
        """Show another table."""
        self._table_key, self._column, self._is_inverted = key, 0, False
        self._draw()

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._column, self._is_inverted = self._column + 1, False
        self._draw()

    def action_invert(self) -> None:
        """Sort the other way round."""
        self._is_inverted = not self._is_inverted
        self._draw()

    def action_pause(self) -> None:
        """Ask no more, or again."""
        self._is_paused = not self._is_paused
        self._draw()


def _cell(value: str | float) -> Text:
    if isinstance(value, str):
        return Text(value)
    return Text(f"{value:.1f}" if isinstance(value, float) else str(value), justify="right")


def run_top(admin: AdminApi) -> None:
    """Until the user quits."""
    Top(admin).run()
