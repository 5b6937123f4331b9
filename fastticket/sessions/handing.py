"""Hands what a process holds of sessions to another process of the same machine, key ring and
store, which then begins warm.

    Known     how far the logs were heard, and the store's clock; taken first
    entries   of the near cache, piece by piece; taken later

Rules of this file
- No lease goes along. The next process serves nobody before the store has answered it, and that
  answer leases the shards.
- The position of a log is older than every entry that goes along. So an end that was heard in
  between is heard again, and one that comes later is heard by the next process's first question.
- When it was heard goes along, too: where the store loses its data now, the next process gives
  back what it was handed (restoring.py).
- A shard whose log was never heard has no position: its entries must be looked up again.
- Touches stay with the process that has them, which writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fastticket.sessions.shards import Shards
from fastticket.stores.contract import Position


class Known(NamedTuple):
    """What a process knows beside the entries."""

    offset_ms: int  #: from CLOCK_BOOTTIME, which all processes of the machine have, to the store's clock
    positions: list[Position | None]  #: in each shard's log
    answered_at_ms: list[int]  #: when each was heard for the last time, ms of CLOCK_BOOTTIME


def handed(shards: Shards) -> Iterator[Known | bytes]:
    """All that is handed over. Between two parts the caller may do something else."""
    yield Known(
        shards.checker.offset_ms, [shard.position for shard in shards], [shard.answered_at_ms for shard in shards]
    )
    cursor: int | None = 0
    while cursor is not None:
        entries, cursor = shards.near.snapshot(cursor)
        yield entries


def take_over(shards: Shards, parts: Iterable[Known | bytes]) -> int:
    """Enter what another process has handed over, before the store is opened; how many sessions.
    ValueError: it comes from another number of shards.
    """
    count = 0
    for part in parts:
        if isinstance(part, bytes):
            count += shards.near.restore(part, shards.keys, shards.now_ms())
            continue
        if len(part.positions) != len(list(shards)):
            raise ValueError(f"what is handed over has {len(part.positions)} shards")
        shards.checker.set_offset_ms(part.offset_ms)
        for shard, position, answered_at_ms in zip(shards, part.positions, part.answered_at_ms, strict=True):
            shard.position, shard.answered_at_ms = position, answered_at_ms
    for shard in shards:
        if shard.position is None:
            shards.near.bump_epoch(shard.number)
    return count
