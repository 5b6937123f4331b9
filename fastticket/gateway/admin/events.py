"""What becomes of sessions, as server-sent events (WHATWG HTML, 9.2).

    id: POSITION
    event: revoked
    data: {"kind": "revoked", "session_id": ..., ...}

The events are read from the store's log, by the worker: a page of them at a time, after the last
position that the reader was sent. So a stream holds nothing but a position. It goes on when the
worker is replaced, and from any gateway, with Last-Event-ID. Where the log does not go back far
enough there is an event `lost`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from fastticket.gateway.admin.contract import Call
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.refusals import Refused
from fastticket.sessions.events import EVERY_KIND, KINDS

PATIENCE_S = 5.0  # for something to happen; then a comment says that the stream lives
AWAY_PAUSE_S = 1.0  # before a worker that does not answer is asked again
RETRY_MS = 1000  # for browsers
#: What may pass: while a worker is replaced there is none to ask, and the store may be away.
PASSING = ("no_worker", "worker_silent", "store_unavailable", "busy")
KINDS_PATTERN = f"^({'|'.join(sorted(EVERY_KIND))})(,({'|'.join(sorted(EVERY_KIND))}))*$"
KINDS_DEFAULT = ",".join(KINDS)


async def follow_events(gateway: Gateway, call: Call) -> AsyncGenerator[bytes, None]:
    """GET /v1/events. Refused: no such position; or nobody knows the position of now."""
    kinds = call["kinds"].split(",")
    after = call["Last-Event-ID"] or call["after"]
    if not after:
        after = (await _read(gateway, None, kinds))["position"]
        return _pieces(gateway, after, kinds, {"events": [], "position": after})
    return _pieces(gateway, after, kinds, await _read(gateway, after, kinds, patience_s=0.0))


async def _pieces(gateway: Gateway, begin: str, kinds: list[str], read: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """`read`: the first page, which is after `begin`."""
    yield f"retry: {RETRY_MS}\nid: {begin}\n\n".encode()
    while True:
        for event in read["events"]:
            yield _event(event)
        position = read["position"]
        # What a reader is not told of has passed all the same.
        yield f":\nid: {position}\n\n".encode()
        try:
            read = await _read(gateway, position, kinds)
        except Refused as error:
            if error.reason not in PASSING:
                return
            yield f": {error.reason}\n\n".encode()
            await asyncio.sleep(AWAY_PAUSE_S)
            read = {"events": [], "position": position}


async def _read(
    gateway: Gateway, position: str | None, kinds: list[str], patience_s: float = PATIENCE_S
) -> dict[str, Any]:
    wanted = {"position": position, "kinds": kinds, "patience_s": patience_s}
    read: dict[str, Any] = await gateway.inquire("events", wanted, timeout_s=2 * PATIENCE_S)
    return read


def _event(event: dict[str, Any]) -> bytes:
    shown = {name: value for name, value in event.items() if name != "position"}
    text = json.dumps(shown, ensure_ascii=False)
    return f"id: {event['position']}\nevent: {event['kind']}\ndata: {text}\n\n".encode(errors="replace")
