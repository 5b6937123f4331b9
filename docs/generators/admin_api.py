"""The operations of the admin API, and why one is refused, from the table that the gateway has."""

from __future__ import annotations

from fastticket.gateway.admin.contract import Operation
from fastticket.gateway.admin.operations import TABLE
from fastticket.gateway.admin.refusals import REFUSALS
from generators.tables import table


def operation_table(_before: str) -> str:
    """A row for each operation."""
    rows = ([f"`{each.method} {each.path}`", _says(each), _takes(each), _refuses(each)] for each in TABLE)
    return table(["operation", "what it does", "parameters", "its refusals"], rows)


def _says(operation: Operation) -> str:
    return " ".join(filter(None, (operation.summary, operation.text)))


def _takes(operation: Operation) -> str:
    taken = [f"`{each.name}`: {each.text}" for each in operation.parameters if each.place != "path"]
    if operation.body is not None:
        names = ", ".join(f"`{name}`" for name in operation.body["properties"])
        taken.append(f"body: {names}")
    return "<br>".join(taken)


def _refuses(operation: Operation) -> str:
    return ", ".join(f"`{slug}`" for slug in operation.refusals)


def refusal_table(_before: str) -> str:
    """A row for each slug."""
    rows = ([f"`{slug}`", str(status.value), text] for slug, (status, text) in REFUSALS.items())
    return table(["error", "status", "meaning"], rows)


BLOCKS = {"operations": operation_table, "refusals": refusal_table}
