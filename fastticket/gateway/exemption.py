"""Which paths need no ticket, by a route's regular expression.

Whoever sends a request chooses the path, and the expression is matched in the worker's loop: so by
RE2, whose time is linear in the path's length whatever the expression is, and which therefore knows
no look-around and no back-references.
"""

from __future__ import annotations

from typing import Any

import re2


class Exemption:
    """One route's. ValueError: not an expression that RE2 knows."""

    def __init__(self, expression: str) -> None:
        options = re2.Options()
        options.log_errors = False  # it would write to standard error by itself
        try:
            self._compiled: Any = re2.compile(expression, options)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
            raise ValueError(reason) from None

    def covers(self, path: bytes) -> bool:
        """Of the whole path, decoded."""
        return self._compiled.fullmatch(path.decode("latin-1")) is not None
