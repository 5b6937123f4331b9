"""The state of a gateway at one moment: what its supervisor knows, and the notes of its workers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

NOTE_AGE_MAX_S = 5.0  # a worker writes a note each second; after so long without one it does not serve


class LastReload(NamedTuple):
    """What came of the last reload, or of the start."""

    was_done: bool = True
    at_s: float = 0.0  #: s since the epoch
    took_s: float = 0.0
    why: str = ""  #: it was refused


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """`notes` describes what is in a note."""

    is_stopping: bool  #: or drained, or about to stop
    readiness: Sequence[str]  #: what decides about it: `[gateway] readiness`
    serving: Mapping[str, Any] | None  #: the note of the present generation's worker, if that is ready
    notes: Sequence[Mapping[str, Any]]  #: of all workers, those that retire included
    counted: Mapping[str, Any]  #: since the start, by all workers that there were
    retiring: int  #: workers, and configurations that a worker had before
    restarts: int
    reloads: Mapping[str, int]  #: done, refused
    last_reload: LastReload = dataclasses.field(default_factory=LastReload)
    notes_of_others: Sequence[Mapping[str, Any]] = ()  #: of all workers but that of the present generation
    workers: Sequence[int] = ()  #: the pids of all of them, that of the one that serves first

    def unhealthy(self) -> list[str]:
        """["worker"] if it does not serve."""
        return [] if self.serving and is_fresh(self.serving) else ["worker"]

    def away(self) -> list[str]:
        """What is missing: the worker, the store, those of other systems whose sessions go on here,
        upstreams without a server that is up.
        """
        store = ["store"] if self.serving and is_store_away(self.serving) else []
        old = [f"old store {source}" for source, is_away in old_stores_away(self.serving).items() if is_away]
        return [*self._ending(), *self.unhealthy(), *store, *old, *self._groups_away()]

    def unready(self) -> list[str]:
        """What is missing so that balancers should send requests to other gateways, by `readiness`.

        A store that is away does not count while sessions are admitted without it, nor does one
        upstream while another one is up: all gateways would be avoided at once. `store-any` and
        `upstreams-any` make them count.
        """
        note, counts = self.serving, set(self.readiness)
        workers = self.unhealthy() if "workers" in counts else []
        is_store_missed = "store" in counts and note is not None and _admits_nobody(note)
        is_store_away_at_all = "store-any" in counts and note is not None and is_store_away(note)
        groups = self._groups_away()
        is_one_left = note is not None and len(groups) < len(_groups(note))
        upstreams = groups if "upstreams-any" in counts or ("upstreams" in counts and not is_one_left) else []
        return [*self._ending(), *workers, *(["store"] if is_store_missed or is_store_away_at_all else []), *upstreams]

    def _ending(self) -> list[str]:
        return ["gateway: it stops"] if self.is_stopping else []

    def _groups_away(self) -> list[str]:
        return sorted(f"upstream {name}" for name in _groups_away(self.serving)) if self.serving else []


def is_fresh(note: Mapping[str, Any]) -> bool:
    """Whether the worker of this note serves."""
    return time.monotonic() - float(note["at_s"]) < NOTE_AGE_MAX_S


def is_store_away(note: Mapping[str, Any]) -> bool:
    """Whether the worker of this note cannot reach its store, or a shard of it."""
    states = note["store"].values()
    return note["now"]["shards_away"] > 0 or (bool(states) and "closed" not in states)


def old_stores_away(note: Mapping[str, Any] | None) -> Mapping[str, bool]:
    """By a `[[migration]]`'s source: whether the worker of this note cannot reach its store."""
    away: Mapping[str, bool] = (note or {}).get("old_stores_away", {})
    return away


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
