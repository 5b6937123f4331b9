"""The ends that the logs still have: what `restore` must not bring back although its mark has gone.

Read once a shard, and again after a minute: for ends since then there are marks, which restore.lua
looks at. In the script itself it would take 35 ms for a full log, which holds up everybody.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from fastticket.stores.contract import RestoredSession
from fastticket.stores.redis.layout import key, split_member
from fastticket.stores.redis.sending import Sender

READ_EVERY_S = 60.0  # with FRESH_MS it is less than a mark lasts, three minutes (prelude.lua)
FRESH_MS = 60_000
ENTRIES = 8192  # all that a log holds
ENDS = (b"revoked", b"rotated", b"expired")


class _Ends(NamedTuple):
    read_at_s: float
    members: frozenset[bytes]
    all_before_ms: dict[str, int]  # by principal: all of its sessions that were created by then


class LoggedEnds:
    """By shard."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._known: dict[int, _Ends] = {}

    async def are_ended(self, shard: int, sessions: list[RestoredSession]) -> list[bool]:
        """Which of them the shard's log says are over. A login of the last minute is not looked
        for: its end left a mark. StoreUnavailable.
        """
        if all(_is_fresh(each.session.created_ms) for each in sessions):
            return [False] * len(sessions)
        known = self._known.get(shard)
        if known is None or time.monotonic() - known.read_at_s > READ_EVERY_S:
            known = self._known[shard] = await self._read(shard)
        return [
            f"{session.id}.{session.principal}".encode() in known.members
            or session.created_ms <= known.all_before_ms.get(session.principal, -1)
            for session, *_ in sessions
        ]

    async def _read(self, shard: int) -> _Ends:
        read_at_s, members, all_before_ms = time.monotonic(), set[bytes](), dict[str, int]()
        command = ("XREVRANGE", key(shard, "log"), "+", "-", "COUNT", ENTRIES)
        for _, fields in await self._sender.ask(self._sender.slots[shard], command):
            if fields[0] in ENDS:
                members.add(fields[1])
            elif fields[0] == b"everywhere" and fields[-1] == b"":  # none was kept
                all_before_ms.setdefault(split_member(fields[1])[1], int(fields[3]))
        return _Ends(read_at_s, frozenset(members), all_before_ms)


def _is_fresh(created_ms: int) -> bool:
    """By this machine's clock. If that is wrong by more, the log is read, or the mark is still
    there.
    """
    return abs(time.time_ns() // 1_000_000 - created_ms) < FRESH_MS
