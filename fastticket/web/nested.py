"""Changes within a list or dictionary that a visitor's session holds, where the framework keeps it.

Frameworks that keep a visitor's session in a signed cookie notice that an entry is assigned, and
not that something is appended to it. So an entry that was looked at, and is another one at the end
of the request, is assigned here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, MutableMapping
from typing import Any


class NestedChanges(MutableMapping[str, Any]):
    """The framework's mapping, which `tell` tells what has changed within its entries."""

    def __init__(self, kept: MutableMapping[str, Any]) -> None:
        self._kept = kept
        self._before: dict[str, Any] = {}  # as they were when they were first looked at

    def __getitem__(self, name: str) -> Any:
        value = self._kept[name]
        if isinstance(value, list | dict) and name not in self._before:
            self._before[name] = copy.deepcopy(value)
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        self._kept[name] = value

    def __delitem__(self, name: str) -> None:
        del self._kept[name]

    def __contains__(self, name: object) -> bool:
        return name in self._kept

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """As of a dictionary."""
        self._kept.clear()

    @property
    def adds_vary(self) -> bool:
        """Whether the framework adds `Vary: Cookie` itself: Starlette's session notes that it was
        looked at, or changed.
        """
        return bool(getattr(self._kept, "accessed", False))

    def tell(self) -> None:
        """Assign what has changed since it was first looked at."""
        before, self._before = self._before, {}
        for name, value in before.items():
            if name in self._kept and self._kept[name] != value:
                self._kept[name] = self._kept[name]
