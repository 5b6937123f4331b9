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

    is_stopping: bool  #: or is about to
    readiness: Sequence[str]  #: what counts: `[gateway] readiness`
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
        """What is not there, as any of the workers sees it."""
        notes = self._notes_of_serving()
        store = ["store"] if any(map(is_store_away, notes)) else []
        return [*self._ending(), *self.unhealthy(), *store, *self._groups_away(notes)]

    def unready(self) -> list[str]:
        """What of it is a reason to send requests to another gateway.

        A store that is away is none while sessions are admitted without it, and an upstream is none
        while there is another: every gateway would be avoided at once. `store-any` and
        `upstreams-any` make them reasons.
        """
        notes, counts = self._notes_of_serving(), set(self.readiness)
        workers = self.unhealthy() if "workers" in counts else []
        is_store_missed = "store" in counts and any(map(_admits_nobody, notes))
        is_store_away_at_all = "store-any" in counts and any(map(is_store_away, notes))
        groups, all_groups = self._groups_away(notes), {name for note in notes for name in _groups(note)}
        is_one_left = len(groups) < len(all_groups)
        upstreams = groups if "upstreams-any" in counts or ("upstreams" in counts and not is_one_left) else []
        return [*self._ending(), *workers, *(["store"] if is_store_missed or is_store_away_at_all else []), *upstreams]

    def _ending(self) -> list[str]:
        return ["gateway: it stops"] if self.is_stopping else []

    def _notes_of_serving(self) -> list[Mapping[str, Any]]:
        return [note for note in self.serving.values() if note]

    def _groups_away(self, notes: Sequence[Mapping[str, Any]]) -> list[str]:
        return sorted({f"upstream {name}" for note in notes for name in _groups_away(note)})


def _is_fresh(note: Mapping[str, Any] | None, now_s: float) -> bool:
    return note is not None and now_s - note["at_s"] < NOTE_AGE_MAX_S


def is_store_away(note: Mapping[str, Any]) -> bool:
    """By a worker's note."""
    states = note["store"].values()
    return note["now"]["shards_away"] > 0 or (bool(states) and "closed" not in states)


def _admits_nobody(note: Mapping[str, Any]) -> bool:
    """A worker without its store. One that holds nobody's session admits nobody either, but would,
    as soon as the store is back: that is so on every gateway of a quiet fleet at once.
    """
    now = note["now"]
    is_any_admitted = now["shards_leased"] > 0 or now["sessions_held"] == 0
    return is_store_away(note) and not (now["is_outage_tolerated"] and is_any_admitted)


def _groups(note: Mapping[str, Any]) -> set[str]:
    return {server["group"] for server in note["upstreams"]} | set(note["without_servers"])


def _groups_away(note: Mapping[str, Any]) -> set[str]:
    return _groups(note) - {server["group"] for server in note["upstreams"] if server["state"] == "up"}
