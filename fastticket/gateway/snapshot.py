"""The state of a gateway at one moment: what its supervisor knows, and the notes of its workers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

NOTE_AGE_MAX_S = 5.0  # a worker writes a note each second; after so long without one it does not serve


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """`notes` describes what is in a note."""

    is_stopping: bool  #: or drained, or about to stop
    readiness: Sequence[str]  #: what decides about it: `[gateway] readiness`
    workers: int  #: as configured
    serving: Mapping[int, Mapping[str, Any] | None]  #: notes of the present generation's ready workers, by number
    notes: Sequence[Mapping[str, Any]]  #: of all workers, those that retire included
    counted: Mapping[str, Any]  #: since the start, by all workers that there were
    retiring: int  #: processes
    restarts: int
    reloads: Mapping[str, int]  #: done, refused

    def unhealthy(self) -> list[str]:
        """The workers that do not serve, as `worker N`."""
        now_s = time.monotonic()
        return [f"worker {number}" for number in range(self.workers) if not _is_fresh(self.serving.get(number), now_s)]

    def away(self) -> list[str]:
        """What at least one worker is missing: workers, the store, upstreams without a server that
        is up.
        """
        notes = self._notes_of_serving()
        store = ["store"] if any(map(is_store_away, notes)) else []
        return [*self._ending(), *self.unhealthy(), *store, *self._groups_away(notes)]

    def unready(self) -> list[str]:
        """What is missing so that balancers should send requests to other gateways, by `readiness`.

        A store that is away does not count while sessions are admitted without it, nor does one
        upstream while another one is up: all gateways would be avoided at once. `store-any` and
        `upstreams-any` make them count.
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
    """Whether the worker of this note cannot reach its store, or a shard of it."""
    states = note["store"].values()
    return note["now"]["shards_away"] > 0 or (bool(states) and "closed" not in states)


def _admits_nobody(note: Mapping[str, Any]) -> bool:
    """Whether a worker without its store admits no session. A worker that holds none does not
    count: on a quiet fleet that is every gateway at once.
    """
    now = note["now"]
    is_any_admitted = now["shards_leased"] > 0 or now["sessions_held"] == 0
    return is_store_away(note) and not (now["is_outage_tolerated"] and is_any_admitted)


def _groups(note: Mapping[str, Any]) -> set[str]:
    return {server["group"] for server in note["upstreams"]} | set(note["without_servers"])


def _groups_away(note: Mapping[str, Any]) -> set[str]:
    return _groups(note) - {server["group"] for server in note["upstreams"] if server["state"] == "up"}
