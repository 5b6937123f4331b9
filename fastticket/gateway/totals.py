"""What a supervisor keeps of its workers' memory when they are gone: sums of their counters, and
the addresses that they have found for names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastticket.gateway.addresses import Server
from fastticket.gateway.sharedmemory import Slot, add


class Totals:
    """`servers`: the addresses of names by `host:port`, as a worker found them last."""

    def __init__(self) -> None:
        self.servers: dict[str, list[Server]] = {}
        self.departed: dict[str, Any] = {}  #: the counters of workers that are gone

    def adopt(self, departed: Mapping[str, Any], servers: Mapping[str, Any]) -> None:
        """Go on from what another program has kept, through JSON."""
        self.departed = dict(departed)
        self._learn_from({"resolved": servers})

    def learn_servers(self, slots: Iterable[Slot]) -> None:
        """Take addresses from the notes of workers that live; the latest note counts."""
        notes = [note for slot in slots if (note := slot.note())]
        for note in sorted(notes, key=lambda note: float(note["at_s"])):
            self._learn_from(note)

    def keep(self, slot: Slot) -> None:
        """Keep what a worker that has ended has counted and found."""
        self.departed = add(self.departed, slot.counted())
        if note := slot.note():
            self._learn_from(note)

    def counted(self, slots: Iterable[Slot]) -> dict[str, Any]:
        """The counters of all workers since the start: those that live, and those that are gone."""
        counted = self.departed
        for slot in slots:
            counted = add(counted, slot.counted())
        return counted

    def _learn_from(self, note: Mapping[str, Any]) -> None:
        """A name that a worker has found no address for keeps those it had."""
        found = {name: [_server(each) for each in servers] for name, servers in note["resolved"].items()}
        self.servers |= {name: servers for name, servers in found.items() if servers or name not in self.servers}


def _server(noted: list[Any] | str) -> Server:
    """A server out of JSON, which has no tuples."""
    return noted if isinstance(noted, str) else (str(noted[0]), int(noted[1]))
