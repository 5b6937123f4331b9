"""What the gateway is and does: build, readiness, rates, workers, the store, the configuration."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from typing import Any

from fastticket.gateway.admin.contract import Call
from fastticket.gateway.admin.figures import ATTENTION, FIGURES, REFUSALS, attention, figures_of, refusals_of
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.refusals import Refused
from fastticket.gateway.admin.schema import Schema
from fastticket.gateway.admin.shapes import FLAG, NUMBER, TEXT, TEXTS, TIME, WHOLE, listed, optional, record, table
from fastticket.gateway.snapshot import is_store_away
from fastticket.gateway.writer import to_tables, without_secrets
from fastticket.stores import without_password

STORE = record(
    url=TEXT,
    is_away=FLAG,
    servers=table(TEXT),
    shards_leased=WHOLE,
    shards_away=WHOLE,
    outage_ms=WHOLE,
    is_outage_tolerated=FLAG,
    touches_unwritten=WHOLE,
    flush_lag_ms=WHOLE,
    flush_interval_ms=WHOLE,
    lease_ms=WHOLE,
)
THREAD = record(connections=WHOLE, tunnels=WHOLE)
WORKER = record(
    pid=WHOLE,
    state={"type": "string", "enum": ["starting", "serving", "retiring", "stopping"]},
    age_s=NUMBER,
    silent_s=NUMBER,
    is_of_program_before=FLAG,
    connections=WHOLE,
    sessions_held=WHOLE,
    retiring_configurations=WHOLE,
    threads=listed(THREAD),
)
OF_CARD: Schema = {"type": "object", "description": "of the last seconds; none at first"}
CARD: Schema = {
    **record(
        id=TEXT,
        host=TEXT,
        pid=WHOLE,
        started_ms=TIME,
        version=TEXT,
        admin=optional(TEXT),
        is_leaving=FLAG,
        figures=OF_CARD,
    ),
    "additionalProperties": {},  # of another version
}
GATEWAYS = record(self=TEXT, known_at_ms=optional(TIME), unknown_since_ms=optional(TIME), gateways=listed(CARD))
STATUS = record(
    version=TEXT,
    python=TEXT,
    pid=WHOLE,
    uptime_s=NUMBER,
    configuration=TEXT,
    is_healthy=FLAG,
    is_ready=FLAG,
    is_draining=FLAG,
    away=TEXTS,
    reasons=TEXTS,
    workers=listed(WORKER),
    restarts=WHOLE,
    reloads=table(WHOLE),
    connections=WHOLE,
    sessions_held=WHOLE,
    rates=record(requests=NUMBER, refused=NUMBER, store_exchanges=NUMBER),
    figures=FIGURES,
    attention=ATTENTION,
    refusals=REFUSALS,
    store=optional(STORE),
)


async def show_status(gateway: Gateway, _call: Call) -> Any:
    """GET /v1/status"""
    snapshot, workers = gateway.snapshot(), gateway.worker_states()
    figures = figures_of(gateway, snapshot)
    return {
        "version": gateway.version,
        "python": platform.python_version(),
        "pid": os.getpid(),
        "uptime_s": round(time.monotonic() - gateway.recent.began_s, 3),
        "configuration": gateway.in_force.config.source,
        "is_healthy": not snapshot.unhealthy(),
        "is_ready": not snapshot.unready(),
        "is_draining": snapshot.is_stopping,
        "away": snapshot.away(),
        "reasons": snapshot.unready(),
        "workers": workers,
        "restarts": snapshot.restarts,
        "reloads": dict(snapshot.reloads),
        "connections": sum(worker["connections"] for worker in workers),
        "sessions_held": sum(worker["sessions_held"] for worker in workers),
        "rates": gateway.recent.rates(),
        "figures": figures,
        "attention": attention(figures, gateway.in_force.config.store.lease_ms),
        "refusals": refusals_of(gateway, snapshot),
        "store": _store(gateway, snapshot.serving) if snapshot.serving else None,
    }


async def show_workers(gateway: Gateway, _call: Call) -> Any:
    """GET /v1/workers"""
    return {"workers": gateway.worker_states()}


async def show_gateways(gateway: Gateway, _call: Call) -> Any:
    """GET /v1/gateways"""
    return await gateway.inquire("gateways", {})


async def show_store(gateway: Gateway, _call: Call) -> Any:
    """GET /v1/store"""
    note = gateway.snapshot().serving
    if not note:
        raise Refused("no_worker")
    return _store(gateway, note)


async def show_config(gateway: Gateway, _call: Call) -> Any:
    """GET /v1/config"""
    config = gateway.in_force.config
    return {"source": config.source, "tables": to_tables(without_secrets(config))}


def _store(gateway: Gateway, note: Mapping[str, Any]) -> dict[str, Any]:
    """As the worker of that note sees it."""
    store, now = gateway.in_force.config.store, note["now"]
    figures = ("shards_leased", "shards_away", "outage_ms", "touches_unwritten", "flush_lag_ms")
    return {
        "url": without_password(store.url),
        "is_away": is_store_away(note),
        "servers": dict(note["store"]),
        **{name: now[name] for name in figures},
        "is_outage_tolerated": bool(now["is_outage_tolerated"]),
        "flush_interval_ms": store.flush_interval_ms,
        "lease_ms": store.lease_ms,
    }
