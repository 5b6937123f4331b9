"""Copy a store into its mirror while gateways change both (stores/mirrored.py).

    copy_store   every session of the truth into the mirror, its bars (all of a principal's were
                 ended), and a look for what only the mirror has

Rules of this file
- Every gateway must have the mirror already: what one changes in the truth alone may be missed.
- A session is restored within seconds after it was read, and looked up in the truth again then: if
  it has ended meanwhile, it ends in the mirror, too. Marks keep it from coming back in between.
- What only the mirror has, was ended in the truth, by a process that died in between: it ends. But
  not where gateways have the mirror as their truth already: it may be one of their logins.
- Killed, it is started again, as often as one likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from fastticket.moving.importing import BARS_AT_ONCE, Pace, all_bars, deadlines_of, patiently
from fastticket.stores.contract import ENDED_MS, Bar, Fleet, Store, StoredSession
from fastticket.stores.mirrored import copy_session

PAGE = 100


@dataclass
class Copied:
    """How many sessions the truth has; how many were written to the mirror, as a whole or in part;
    how many it does not take, because it knows that they have ended; how many only it had, and
    whether these were ended. And how far its clock is ahead of the truth's.
    """

    sessions: int = 0
    written: int = 0
    ended: int = 0
    strays: int = 0
    strays_ended: bool = True
    clock_ahead_ms: int = 0


async def copy_store(
    truth: Store, mirror: Store, *, rate_per_s: int = 0, advance: Callable[[int], None] = lambda _: None
) -> Copied:
    """Both are open. StoreUnavailable: one of them was away for too long."""
    copied = Copied()
    copied.clock_ahead_ms = await mirror.time_ms() - await truth.time_ms()
    fleet = await mirror.join(Fleet(0, 0))
    copied.strays_ended = not (fleet and fleet.flush_interval_ms)
    await _copy_bars(truth, mirror)
    pace = Pace(rate_per_s)
    cursor: str | None = None
    while cursor != "":
        cursor, page = await patiently(partial(truth.scan, cursor or "", PAGE))
        await patiently(partial(_copy_page, truth, mirror, page, copied))
        advance(len(page))
        await pace.after(len(page))
    await _end_strays(truth, mirror, copied)
    return copied


async def _copy_bars(truth: Store, mirror: Store) -> None:
    bars: list[Bar] = []
    async for bar in all_bars(truth):
        bars.append(bar)
        if len(bars) == BARS_AT_ONCE:
            await patiently(partial(mirror.bar, bars))
            bars = []
    await patiently(partial(mirror.bar, bars))


async def _copy_page(truth: Store, mirror: Store, page: Sequence[StoredSession], copied: Copied) -> None:
    outcomes = await asyncio.gather(*(copy_session(truth, mirror, session) for session in page))
    await _end_those_gone(truth, mirror, page)
    copied.sessions += len(page)
    copied.written += outcomes.count("created")
    copied.ended += outcomes.count("ended")


async def _end_those_gone(truth: Store, mirror: Store, page: Sequence[StoredSession]) -> int:
    """End in the mirror what the truth does not have (any more); how many these are."""
    deadlines_ms = await deadlines_of(truth, [session[:2] for session in page])
    gone = [session for session, at in zip(page, deadlines_ms, strict=True) if at is None or at == ENDED_MS]
    ended = await asyncio.gather(*(mirror.revoke(session.id, session.principal, "revoked") for session in gone))
    return sum(ended)


async def _end_strays(truth: Store, mirror: Store, copied: Copied) -> None:
    cursor: str | None = None
    while cursor != "":
        cursor, page = await patiently(partial(mirror.scan, cursor or "", PAGE))
        if copied.strays_ended:
            copied.strays += await patiently(partial(_end_those_gone, truth, mirror, page))
        else:
            found = await patiently(partial(deadlines_of, truth, [session[:2] for session in page]))
            copied.strays += sum(at is None or at == ENDED_MS for at in found)
