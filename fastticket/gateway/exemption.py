"""The paths of a route that need no ticket, by a regular expression (`exempt`).

Clients choose the paths, and the expression is matched in the worker's loop. RE2 takes time linear
in the path's length, whatever the expression is; therefore it has no look-around and no
back-references.
"""

from __future__ import annotations

from typing import Any

import re2


class Exemption:
    """The exemption of one route. ValueError: RE2 does not know the expression."""

    def __init__(self, expression: str) -> None:
        options = re2.Options()
        options.log_errors = False  # RE2 would write to standard error
        try:
            self._compiled: Any = re2.compile(expression, options)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
            raise ValueError(reason) from None

    def covers(self, path: bytes) -> bool:
        """Whether the expression matches the whole path, which is decoded."""
        return self._compiled.fullmatch(path.decode("latin-1")) is not None
