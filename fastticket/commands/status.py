"""`fastticket status`: how a running gateway is, once. The exit code: 0 if neither the worker
nor a store nor a whole upstream is away. And `fastticket top`, which is in top.py, if its packages
are there.
"""

from __future__ import annotations

import argparse
import sys

from fastticket.commands import terminal
from fastticket.commands.admin import admin_of
from fastticket.commands.figures import Line, Rates, Reading, Table, lines, read, sorted_rows, tables
from fastticket.errors import ConfigError
from fastticket.gateway.exitcodes import FAILED


def status(options: argparse.Namespace) -> int:
    """Print the figures of a gateway. AdminError, ConfigError."""
    reading = read(admin_of(options, "status"))
    if options.json:
        terminal.print_json(
            {
                "is_healthy": reading.is_healthy,
                "status": reading.status,
                "upstreams": list(reading.upstreams),
                "fleet": dict(reading.gateways) or None,
            }
        )
    else:
        print(as_text(reading))
    return 0 if reading.is_healthy else FAILED


def top(options: argparse.Namespace) -> int:
    """Show the figures until the user quits. ConfigError: without a terminal or without textual."""
    admin = admin_of(options, "top")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("top needs a terminal; fastticket status prints the same figures once")
    try:
        from fastticket.commands.top import run_top
    except ImportError:
        raise ConfigError("top needs the packages rich and textual: pip install 'fastticket[tui]'") from None
    run_top(admin)
    return 0


def as_text(reading: Reading) -> str:
    """For people: the lines, then the servers of upstreams, the fleet, and what was refused."""
    rates = Rates(None, reading)  # since the start: one reading knows of no other
    shown = tables(reading, rates)
    parts = [_line(line) for line in lines(reading, rates)]
    for key in ("u", "g", "r"):
        parts += _table(shown[key]) if shown[key].rows else ()
    return "\n".join(parts)


def _line(line: Line) -> str:
    return f"{line.name:9} {line.text}"


def _table(table: Table) -> list[str]:
    rows = [table.columns, *(tuple(map(str, row.cells)) for row in sorted_rows(table, 0, is_reversed=False))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
    ]
