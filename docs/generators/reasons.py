"""Every error class with its reason and status, and every verdict: fastticket/errors.py."""

from __future__ import annotations

import fastticket
from fastticket import errors
from fastticket.errors import FastticketError, Verdict
from generators.tables import sentences, table

#: A reason that is no constant of the class.
REASONS_OF_INSTANCES = {
    errors.TicketRefused: "[the verdict's](#verdicts)",
    errors.CacheMisused: "[one of these](../how-to/embed.md#mistakes-and-what-they-say)",
}
#: `check` never returns these.
OF_A_GATEWAY = (Verdict.MISSING, Verdict.AMBIGUOUS, Verdict.STORE_UNAVAILABLE)


def _classes() -> list[type[FastticketError]]:
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, FastticketError)]
    return [each for each in found if each is not FastticketError]


def _row(kind: type[FastticketError]) -> list[str]:
    place = "fastticket" if hasattr(fastticket, kind.__name__) else "fastticket.errors"
    parents = [f"`{base.__name__}`" for base in kind.__bases__ if base is not FastticketError]
    says = sentences(kind.__doc__) + (f" Also a {' and '.join(parents)}." if parents else "")
    reason = REASONS_OF_INSTANCES.get(kind, f"`{kind.reason}`")
    return [f"`{place}.{kind.__name__}`", reason, str(kind.status), says]


def error_table(_: str) -> str:
    """A row for each class."""
    return table(["class", "`reason`", "`status`", "meaning"], map(_row, _classes()))


def verdict_table(_: str) -> str:
    """A row for each verdict."""
    rows = [
        [
            f"`Verdict.{each.name}`",
            f"`{each.reason}`",
            "yes" if each.is_refusal else "no: ask `authenticate`",
            "no: a gateway does" if each in OF_A_GATEWAY else "yes",
        ]
        for each in Verdict
    ]
    return table(["verdict", "`reason`", "refuses", "`check` says it"], rows)


BLOCKS = {"errors": error_table, "verdicts": verdict_table}
