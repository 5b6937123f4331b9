"""The fleet's register: this gateway's entry in the store, and what the store knows of the others.

    card       what a gateway says of itself: who and where it is, and a few figures of now
    announce   every ANNOUNCE_S the worker that serves writes its card, with a lease
    view       the fleet, for operators: this gateway by what it knows, the others by the store

Rules of this file
- One small command each ANNOUNCE_S, whatever the traffic; the others' cards are read when somebody
  looks, once a second at most.
- An entry that nobody renews goes with its lease: a gateway that was killed needs no undertaker.
- Without the store nothing waits and nothing fails: the view has this gateway, what was known of
  the others, and since when that is unknown.
- A card is another program's word, maybe of another version: what is no JSON object is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastticket.errors import StoreUnavailable
from fastticket.gateway.admin.recent import bound_of, refusals_of
from fastticket.gateway.identity import Identity
from fastticket.gateway.services import Services
from fastticket.gateway.sharedmemory import Slot
from fastticket.gateway.snapshot import is_store_away
from fastticket.sessions.ticketcache import TicketCache, shards_of
from fastticket.tasks import end

log = logging.getLogger("fastticket.gateway")

ANNOUNCE_S = 5.0
LEASE_MS = 15_000  # two announcements may be lost
LOOK_AGAIN_S = 1.0
MEASURE_AGAIN_S = 1.0  # while somebody looks
STORE_PATIENCE_S = 2.0  # for one call
#: What a card of another version may lack.
NOTHING_SAID = {"host": "", "pid": 0, "started_ms": 0, "version": "", "admin": None, "is_leaving": False}


class Register:
    """One worker's part in it. `slot`: where its planes count, and its notes are."""

    def __init__(self, identity: Identity, cache: TicketCache, services: Services, slot: Slot) -> None:
        self._identity = identity
        self._cache = cache
        self._services = services
        self._slot = slot
        self._before: tuple[float, Mapping[str, Any]] | None = None
        self._figures: dict[str, Any] = {}
        self._others: dict[str, Any] = {}  # cards, as the store had them last
        self._known_at_ms: int | None = None  # when it was last heard of, wall clock
        self._unknown_since_ms: int | None = None
        self._look_at_s = 0.0
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._is_full = False

    # --- this gateway's entry

    def start(self) -> None:
        """Announce this gateway from now on."""
        self._task = asyncio.create_task(self._announce_for_ever(), name="fastticket-announce")

    async def stop(self) -> None:
        """Announce it no more: another worker does."""
        await end(self._task)
        self._task = None

    async def leave(self) -> None:
        """The gateway ends: take it out of the register, if it is there. A store that has not
        answered is not waited for once more.
        """
        if not self._task:
            return
        await self.stop()
        if self._unknown_since_ms is None:
            with contextlib.suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(STORE_PATIENCE_S):
                    await shards_of(self._cache).opened.announce(self._identity.id, b"", 0)

    async def _announce_for_ever(self) -> None:
        while True:
            try:
                await self._announce()
            except Exception:
                log.exception("this gateway could not announce itself; it goes on trying")
            await asyncio.sleep(ANNOUNCE_S)

    async def _announce(self) -> None:
        self._measure()
        card = json.dumps(self._card(), separators=(",", ":")).encode()
        try:
            async with asyncio.timeout(STORE_PATIENCE_S):
                is_there = await shards_of(self._cache).opened.announce(self._identity.id, card, LEASE_MS)
        except (StoreUnavailable, TimeoutError):
            self._note_silence()
            return
        self._unknown_since_ms = None
        if not is_there and not self._is_full:
            log.warning("the store's register of gateways is full: this one is not shown at the others")
        self._is_full = not is_there

    def _card(self) -> dict[str, Any]:
        admin = self._services.present.config.admin_address()
        if admin and admin.path:
            admin = admin._replace(path=os.path.abspath(admin.path))
        return {
            **dataclasses.asdict(self._identity),
            "admin": str(admin) if admin else None,
            "is_leaving": self._services.is_leaving,
            "figures": self._figures,
        }

    def _measure(self) -> None:
        """The figures, of the time since the last call."""
        now_s, counted, note = time.monotonic(), self._slot.counted(), self._slot.note()
        before_s, before = self._before or (now_s - ANNOUNCE_S, {})
        self._before = now_s, counted
        if note:
            self._figures = {
                **rates_of(before, counted, max(now_s - before_s, 0.001)),
                **state_of(note),
                "connections": self._services.connection_count,
                "threads": len(self._services.present.planes),
            }

    # --- the fleet

    async def view(self) -> dict[str, Any]:
        """The fleet, as JSON has it. Never fails, and takes STORE_PATIENCE_S at most.

        `self`: this gateway's id; `gateways`: the cards, this one's first; `known_at_ms`: when the
        store was last heard of the others, null: never; `unknown_since_ms`: since when it is not.
        """
        async with self._looking:
            if asyncio.get_running_loop().time() >= self._look_at_s:
                await self._look()
                self._look_at_s = asyncio.get_running_loop().time() + LOOK_AGAIN_S
        if self._before is None or time.monotonic() - self._before[0] >= MEASURE_AGAIN_S:
            self._measure()
        others = [card for gateway_id, card in self._others.items() if gateway_id != self._identity.id]
        return {
            "self": self._identity.id,
            "known_at_ms": self._known_at_ms,
            "unknown_since_ms": self._unknown_since_ms,
            "gateways": [self._card(), *sorted(others, key=lambda card: (str(card.get("host")), str(card["id"])))],
        }

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(STORE_PATIENCE_S):
                cards = await shards_of(self._cache).opened.gateways()
        except (StoreUnavailable, TimeoutError):
            self._note_silence()
            return
        read = {gateway_id: _read(gateway_id, card) for gateway_id, card in cards.items()}
        self._others = {gateway_id: card for gateway_id, card in read.items() if card}
        self._known_at_ms, self._unknown_since_ms = _wall_ms(), None

    def _note_silence(self) -> None:
        self._unknown_since_ms = self._unknown_since_ms or _wall_ms()


def rates_of(before: Mapping[str, Any], counted: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """A second's share of what was counted between two results of `Slot.counted`, and the latency
    under which 99 of 100 requests stayed, in ms; None: there was no request.
    """

    def rate(more: float) -> float:
        return round(max(more, 0) / seconds, 1)

    def grown(name: str) -> float:
        return float(counted.get(name, 0) - before.get(name, 0))

    refused = refusals_of(counted.get("refused", {})) - refusals_of(before.get("refused", {}))
    failed = counted.get("answers", {}).get("5xx", 0) - before.get("answers", {}).get("5xx", 0)
    return {
        "requests_per_s": rate(grown("requests")),
        "refused_per_s": rate(refused),
        "failed_per_s": rate(failed),
        "loads_per_s": rate(grown("loads")),
        "p99_ms": p99_ms_of(before.get("latency_us", []), counted.get("latency_us", [])),
    }


def p99_ms_of(before: Sequence[Any], counted: Sequence[Any]) -> float | None:
    """As `bound_of` of 99 in 100, of buckets in us."""
    bound_us = bound_of(before, counted)
    return None if bound_us is None else round(bound_us / 1000, 3)


def state_of(note: Mapping[str, Any]) -> dict[str, Any]:
    """How things are, by a worker's note."""
    now, servers = note["now"], note["upstreams"]
    return {
        "sessions_held": now["sessions_held"],
        "touches_unwritten": now["touches_unwritten"],
        "store": "away" if is_store_away(note) else "up",
        "outage_ms": now["outage_ms"],
        "servers": len(servers),
        "servers_up": sum(server["state"] == "up" for server in servers),
        "error_lines_left_out": note["counters"].get("error_lines_left_out", 0),
    }


def _read(gateway_id: str, card: bytes) -> dict[str, Any] | None:
    """A card; None: it is none."""
    try:
        read = json.loads(card)
    except ValueError:
        return None
    if not isinstance(read, dict):
        return None
    figures = read.get("figures")
    return {**NOTHING_SAID, **read, "id": gateway_id, "figures": figures if isinstance(figures, dict) else {}}


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
