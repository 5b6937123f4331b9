"""What a worker tells its supervisor: shared memory, mapped before the fork.

    counters   of the data plane, written in place
    beats      a number that grows while the worker's loop runs
    two notes  of the control plane, JSON, written in turns

A reader takes the newer note whose checksum is right, so a worker may be killed while it writes.
"""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from fastticket.dataplane.counters import COUNTERS_BYTES, read_counters

NOTE_BYTES_MAX = 2 * 1024 * 1024  # for 1,024 upstream servers with the longest names; unwritten pages cost nothing
_HEADER = struct.Struct("=QII")  # of a note: its number from 1, its size, CRC-32
_BEATS = struct.Struct("=Q")
_BEATS_AT = COUNTERS_BYTES + -COUNTERS_BYTES % 64
_NOTE_AT = _BEATS_AT + 64
_NOTE_ROOM = _HEADER.size + NOTE_BYTES_MAX


class Slot:
    """One worker's memory: the worker writes, the supervisor reads."""

    def __init__(self) -> None:
        memory = memoryview(mmap.mmap(-1, _NOTE_AT + 2 * _NOTE_ROOM))  # shared with children
        self.counters = memory[:COUNTERS_BYTES]
        self._notes = [memory[at : at + _NOTE_ROOM] for at in (_NOTE_AT, _NOTE_AT + _NOTE_ROOM)]
        self._beats = memory[_BEATS_AT : _BEATS_AT + _BEATS.size]
        self._published = 0

    def beat(self) -> None:
        """Note that the loop runs."""
        _BEATS.pack_into(self._beats, 0, self.beats + 1)

    @property
    def beats(self) -> int:
        """How often `beat` was called."""
        return int(_BEATS.unpack_from(self._beats)[0])

    def publish(self, note: Mapping[str, Any]) -> None:
        """Write a note over the last but one. ValueError: it is too long."""
        text = json.dumps(note, separators=(",", ":")).encode()
        if len(text) > NOTE_BYTES_MAX:
            raise ValueError(f"a note of {len(text)} bytes; there is room for {NOTE_BYTES_MAX}")
        self._published += 1
        place = self._notes[self._published % 2]
        place[_HEADER.size : _HEADER.size + len(text)] = text
        _HEADER.pack_into(place, 0, self._published, len(text), zlib.crc32(text))

    def note(self) -> dict[str, Any] | None:
        """The last note (see `notes`); None: there is none yet."""
        whole = [note for place in self._notes if (note := _read(place))]
        return max(whole, key=lambda each: each[0])[1] if whole else None

    def counted(self) -> dict[str, Any]:
        """The data plane's counters, as `read_counters` has them, and those of the last note."""
        note = self.note()
        return {**read_counters(self.counters), **(note["counters"] if note else {})}


def _read(place: memoryview) -> tuple[int, dict[str, Any]] | None:
    number, size, checksum = _HEADER.unpack_from(place)
    text = bytes(place[_HEADER.size : _HEADER.size + min(size, NOTE_BYTES_MAX)])
    return (number, json.loads(text)) if number and zlib.crc32(text) == checksum else None


def add(total: Any, counted: Any) -> Any:
    """The sum of two results of `Slot.counted`, or of parts of them: numbers, tables by name, or
    lists of (bound, number).
    """
    if isinstance(counted, dict):
        missing = {name: value for name, value in total.items() if name not in counted}
        return missing | {name: add(total[name], value) if name in total else value for name, value in counted.items()}
    if isinstance(counted, list):
        return [(bound, before + more) for (bound, before), (_, more) in zip(total, counted, strict=True)]
    return total + counted
