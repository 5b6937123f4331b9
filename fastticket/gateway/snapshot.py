"""How a gateway is, at one moment: what its supervisor knows, and what its workers have told."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

NOTE_AGE_MAX_S = 5.0  # a worker writes one each second; one that has not for so long is not counted on


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Notes are those of `Worker`."""

    is_stopping: bool
    workers: int  #: that there should be
    serving: Mapping[int, Mapping[str, Any] | None]  #: notes of the present generation's workers that serve
    notes: Sequence[Mapping[str, Any]]  #: of all that live, those that retire too
    counted: Mapping[str, Any]  #: since the start, by all that ever were
    retiring: int  #: processes
    restarts: int
    reloads: Mapping[str, int]  #: done, refused

    def unhealthy(self) -> list[str]:
        """The workers that do not serve."""
        now_s = time.monotonic()
        return [f"worker {number}" for number in range(self.workers) if not _is_fresh(self.serving.get(number), now_s)]

    def away(self) -> list[str]:
        """What keeps requests from being served, as any of the workers sees it."""
        notes = [note for note in self.serving.values() if note]
        stopping = ["gateway: it stops"] if self.is_stopping else []
        store = ["store"] if any(map(is_store_away, notes)) else []
        groups = {f"upstream {name}" for note in notes for name in _groups_away(note)}
        return [*stopping, *self.unhealthy(), *store, *sorted(groups)]


def _is_fresh(note: Mapping[str, Any] | None, now_s: float) -> bool:
    return note is not None and now_s - note["at_s"] < NOTE_AGE_MAX_S


def is_store_away(note: Mapping[str, Any]) -> bool:
    """By a worker's note."""
    states = note["store"].values()
    return note["now"]["shards_away"] > 0 or (bool(states) and "closed" not in states)


def _groups_away(note: Mapping[str, Any]) -> set[str]:
    groups = {server["group"] for server in note["upstreams"]}
    return set(note["without_servers"]) | groups - {
        server["group"] for server in note["upstreams"] if server["state"] == "up"
    }
