"""What is wrong with a configuration, collected so that one reading names all of it.

Every problem is one line that names the file, the key and the reason; for a configuration made of
command-line options it names the option.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TypeVar

from fastticket.errors import ConfigError

COMMAND_LINE = "command line"  #: the source of a configuration that options make
#: The option that sets a key, for such a configuration.
OPTIONS = {
    "[gateway] listen": "--listen",
    "[gateway] threads": "--threads",
    "[gateway] workers": "--workers",
    "[[upstream]] app: servers": "--upstream",
    "[store] url": "--store",
    "[ticket] keys": "--keys",
}

_T = TypeVar("_T")


def place_of(source: str, where: str) -> str:
    """How a problem names its place: the file and the key, or the option that sets the key."""
    return OPTIONS[where] if source == COMMAND_LINE and where in OPTIONS else f"{source}: {where}"


class Problems:
    """The problems found so far. `incomplete` names the lists ("upstream", "route") that lack
    entries because those are wrong, so that the missing entries are not reported again.
    """

    def __init__(self, source: str) -> None:
        self.found: list[str] = []
        self.incomplete: set[str] = set()
        self.source = source

    def add(self, where: str, reason: str) -> None:
        """Note a problem; the same one is noted once."""
        self._add(f"{place_of(self.source, where)}: {reason}")

    def require(self, holds: object, where: str, reason: str) -> None:
        """Note a problem unless `holds` is true."""
        if not holds:
            self.add(where, reason)

    def attempt(self, read: Callable[[], _T]) -> _T | None:
        """Call `read` and return its result; a ConfigError is noted, and the result is None."""
        try:
            return read()
        except ConfigError as error:
            for problem in error.problems:
                self._add(problem)
            return None

    def refuse_unknown(self, table: Iterable[str], known: Iterable[str], where: str) -> bool:
        """Note every key of `table` that is not in `known`. Returns whether all are known."""
        names = list(known)
        unknown = [key for key in table if key not in names]
        for key in unknown:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            self.add(f"{where} {key}".strip(), f"no such key; {hint}")
        return not unknown

    def _add(self, problem: str) -> None:
        if problem not in self.found:
            self.found.append(problem)
