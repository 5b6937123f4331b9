"""What a worker tells its supervisor: a memory file, mapped before the fork.

    beats      a number that grows while the worker runs
    pages      one for each data plane, which counts in it, in place
    two notes  of the control plane, JSON, written in turns

A page keeps its numbers when its plane is gone, and the next plane adds to them: so no count is
lost or moved, whenever the worker is killed. For the same reason a reader takes the newer note
whose checksum is right.
"""

from __future__ import annotations

import heapq
import json
import mmap
import os
import struct
import weakref
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fastticket.dataplane.counters import COUNTERS_BYTES, read_counters
from fastticket.errors import FastticketError

NOTE_BYTES_MAX = 2 * 1024 * 1024  # for 1,024 upstream servers with the longest names; unwritten pages cost nothing
_HEADER = struct.Struct("=QII")  # of a note: its number from 1, its size, CRC-32
PAGES_MAX = 640  # 64 threads, of the configuration in force, the coming one, and eight that retire
_NUMBER = struct.Struct("=Q")
_BEATS_AT, _PAGES_USED_AT = 0, 8
_PAGES_AT = 64
_PAGE_ROOM = COUNTERS_BYTES + -COUNTERS_BYTES % 64  # no two planes write to one line of a processor's cache
_NOTE_AT = _PAGES_AT + PAGES_MAX * _PAGE_ROOM
_NOTE_ROOM = _HEADER.size + NOTE_BYTES_MAX
_BYTES = _NOTE_AT + 2 * _NOTE_ROOM


class Page(NamedTuple):
    """The memory in which one plane counts."""

    number: int
    counters: memoryview


class Slot:
    """One worker's memory: the worker writes, the supervisor reads."""

    def __init__(self, fd: int = -1) -> None:
        """`fd`: a memory file that another program has left (`upgrade`); by default a fresh one."""
        self._fd = fd if fd >= 0 else os.memfd_create("fastticket-slot")
        self._forget_fd = weakref.finalize(self, os.close, self._fd)  # also if what follows fails
        os.set_inheritable(self._fd, False)
        os.ftruncate(self._fd, _BYTES)
        self._mapping = mmap.mmap(self._fd, _BYTES)  # shared with children
        self._memory = memoryview(self._mapping)
        self._notes = [self._memory[at : at + _NOTE_ROOM] for at in (_NOTE_AT, _NOTE_AT + _NOTE_ROOM)]
        self._published = 0
        self._free: list[int] = []  # pages that were used, and are not now

    def fileno(self) -> int:
        """The descriptor of its memory file. A worker closes it, and keeps the memory."""
        return self._fd

    def close(self) -> None:
        """Forget what was written."""
        for each in (*self._notes, self._memory):
            each.release()
        self._mapping.close()  # it has a descriptor of its own
        self._forget_fd()

    # --- beats

    def beat(self) -> None:
        """Note that the worker runs."""
        self._set(_BEATS_AT, self.beats + 1)

    @property
    def beats(self) -> int:
        """How often `beat` was called."""
        return self._get(_BEATS_AT)

    # --- counters

    def take_pages(self, count: int) -> list[Page]:
        """Room for the counters of so many planes. FastticketError: there is not so much left."""
        used = self._get(_PAGES_USED_AT)
        if count > PAGES_MAX - used + len(self._free):
            raise FastticketError("too many configurations retire; try again when some of them have ended")
        again = [heapq.heappop(self._free) for _ in range(min(count, len(self._free)))]
        fresh = range(used, used + count - len(again))
        self._set(_PAGES_USED_AT, used + len(fresh))
        return [self._page(number) for number in (*again, *fresh)]

    def give_back(self, pages: Iterable[Page]) -> None:
        """Let other planes go on with these pages."""
        for page in pages:
            heapq.heappush(self._free, page.number)

    def counted(self) -> dict[str, Any]:
        """What all planes have counted, as `read_counters` has it, and the counters of the last
        note.
        """
        note = self.note()
        total: dict[str, Any] = read_counters(self._page(0).counters)
        for number in range(1, self._get(_PAGES_USED_AT)):
            total = add(total, read_counters(self._page(number).counters))
        return {**total, **(note["counters"] if note else {})}

    def _page(self, number: int) -> Page:
        at = _PAGES_AT + number * _PAGE_ROOM
        return Page(number, self._memory[at : at + COUNTERS_BYTES])

    # --- notes

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

    # --- numbers

    def _get(self, at: int) -> int:
        return int(_NUMBER.unpack_from(self._memory, at)[0])

    def _set(self, at: int, number: int) -> None:
        _NUMBER.pack_into(self._memory, at, number)


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
