"""What in the documents is made whole from a record: tables whose rows come and go, and the line
that says which record it is. Everything else is quoted figure by figure: quotes.py.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import budgets
import capacity
import figures

Record = Mapping[str, Any]
COLUMNS = 100

#: Of the README's table; who is not here authenticates nobody.
KNOWS = {
    "nginx, Lua, HMAC": "HMAC; sessions in its own memory",
    "nginx, Lua, HMAC, Redis": "HMAC; Redis on every request",
    "nginx, auth_request": "asks an auth server",
    "Traefik, ForwardAuth": "asks an auth server",
    "Caddy, forward_auth": "asks an auth server",
    "haproxy, jwt_verify": "token, not revocable",
    "Envoy, jwt_authn": "token, not revocable",
}
#: Column -> the figure's last part, and its form.
BRIEF = {
    "CPU µs/request": ("cpu", ".1f"),
    "+ its Redis": ("redis", "+.1f"),
    "÷ nginx": ("cpu ÷ nginx", ".2f"),
    "requests/s": ("rate", ",.0f"),
    "p99 µs": ("p99", ",.0f"),
}
WHOLE = {
    "CPU µs/request": ("cpu", ".1f"),
    "user": ("user", ".1f"),
    "system": ("system", ".1f"),
    "its Redis": ("redis", ".1f"),
    "÷ nginx": ("cpu ÷ nginx", ".2f"),
    "requests/s": ("rate", ",.0f"),
    "p50 µs": ("p50", ",.0f"),
    "p99 µs": ("p99", ",.0f"),
    "p99.9 µs": ("p999", ",.0f"),
    "system calls": ("system calls", ".1f"),
    "Redis commands": ("redis commands", ".3g"),
}


def gateways(found: Mapping[str, Any], root: str = "gateway") -> Sequence[str]:
    """Those that were measured, the one that costs least first."""
    names = {path.split("/")[1] for path in found if path.startswith(f"{root}/") and path.endswith("/cpu")}
    return sorted(names, key=lambda name: found[f"{root}/{name}/cpu"]["value"])


def table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    """Markdown."""
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def _gateway_cells(found: Mapping[str, Any], path: str, columns: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    for quantity, form in columns.values():
        own = found.get(f"{path}/{quantity}")
        yield format(own["value"], form).replace("+", "+ ") if own else ""


def _name(gateway: str) -> str:
    return f"**{gateway}**" if gateway.startswith("fastticket") else gateway


def gateways_in_brief(record: Record) -> Iterator[str]:
    """The README's table."""
    found = record["figures"]

    def knows(name: str) -> str:
        says = "Redis on every request" if name.startswith("naive") else KNOWS.get(name, "no")
        return "yes" if name.startswith("fastticket") else says

    rows = ([_name(each), knows(each), *_gateway_cells(found, f"gateway/{each}", BRIEF)] for each in gateways(found))
    return table(["gateway", "knows the user", *BRIEF], rows)


def all_gateways(record: Record) -> Iterator[str]:
    """The table of docs/explanation/benchmarks.md."""
    found = record["figures"]
    rows = ([_name(each), *_gateway_cells(found, f"gateway/{each}", WHOLE)] for each in gateways(found))
    return table(["gateway", *WHOLE], rows)


def gateways_at_256(record: Record) -> Iterator[str]:
    """The same at 256 connections."""
    found, root = record["figures"], "gateway at 256"
    rows = ([_name(each), *_gateway_cells(found, f"{root}/{each}", WHOLE)] for each in gateways(found, root))
    return table(["gateway, 256 connections", *WHOLE], rows)


def budget_table(record: Record) -> Iterator[str]:
    """Every budget, those that the record does not show among them."""
    found = record["figures"]

    def row(budget: budgets.Budget) -> Sequence[str]:
        if budget.figure not in found:
            return [budget.text, "—", budget.wanted, "not measured"]
        verdict = "met" if budget.is_met(found) else "**missed**"
        return [budget.text, budget.said(found), budget.wanted, verdict]

    return table(["budget", "measured", "wanted", ""], map(row, budgets.BUDGETS))


def source(record: Record) -> Iterator[str]:
    """Which record a page is of."""
    text = (
        f"All figures on this page come from one record, `{record['name']}`: {figures.describe(record['environment'])}."
    )
    yield from textwrap.wrap(text, COLUMNS, break_long_words=False, break_on_hyphens=False)


def model_beside_measured(record: Record) -> Iterator[str]:
    """The model of docs/explanation/capacity.md beside the runs of scale.py."""
    return table(capacity.CHECKED, capacity.checked_rows(record["figures"]))


def example(record: Record) -> Iterator[str]:
    """The plan that docs/explanation/capacity.md begins with."""
    return table(capacity.EXAMPLE, capacity.example_rows(capacity.Costs.of(record["figures"])))


def plans(record: Record) -> Iterator[str]:
    """What the model says of large fleets."""
    return table(capacity.PLANNED, capacity.planned_rows(capacity.Costs.of(record["figures"])))


#: Name -> how its text begins in a page, and what makes it.
BLOCKS: dict[str, tuple[str, Callable[[Record], Iterator[str]]]] = {
    "gateways in brief": ("| gateway | knows the user |", gateways_in_brief),
    "gateways": ("| gateway | CPU µs/request | user |", all_gateways),
    "gateways at 256": ("| gateway, 256 connections |", gateways_at_256),
    "budgets": ("| budget | measured |", budget_table),
    "source": ("All figures on this page come from one record,", source),
    "model beside measured": ("| run | commands for 1,000 requests: model · measured |", model_beside_measured),
    "example": ("|  | round robin, gateways of one core |", example),
    "plans": ("| active sessions | balancing |", plans),
}
