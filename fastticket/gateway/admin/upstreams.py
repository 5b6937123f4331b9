"""Upstreams and their servers."""

from __future__ import annotations

from typing import Any

from fastticket.gateway.admin.contract import Call
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.refusals import Refused
from fastticket.gateway.admin.shapes import TEXT, TEXTS, WHOLE, listed, record

UPSTREAM_SERVER = record(
    server=TEXT,
    state={"type": "string", "enum": ["up", "down", "drained"]},
    active=WHOLE,
    idle=WHOLE,
    queued=WHOLE,
)
UPSTREAMS = record(upstreams=listed(record(name=TEXT, balance=TEXT, configured=TEXTS, servers=listed(UPSTREAM_SERVER))))


async def show_upstreams(gateway: Gateway, _call: Call) -> Any:
    """GET /v1/upstreams"""
    note = gateway.snapshot().serving
    if not note:
        raise Refused("no_worker")
    return {
        "upstreams": [
            {
                "name": upstream.name,
                "balance": upstream.balance,
                "configured": upstream.servers,
                "servers": [
                    {name: value for name, value in state.items() if name != "group"}
                    for state in note["upstreams"]
                    if state["group"] == upstream.name
                ],
            }
            for upstream in gateway.in_force.config.upstream
        ]
    }
