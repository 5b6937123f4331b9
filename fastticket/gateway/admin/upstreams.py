"""Upstreams and their servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastticket.gateway.admin.contract import Call
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.refusals import Refused
from fastticket.gateway.admin.shapes import TEXT, TEXTS, WHOLE, listed, record

UPSTREAM_SERVER = record(
    server=TEXT,
    state={"type": "string", "enum": ["up", "down", "drained"]},
    why={**TEXT, "description": "it is down; empty if it is not"},
    active=WHOLE,
    idle=WHOLE,
    queued=WHOLE,
)
DRAINED = record(drained=listed(record(upstream=TEXT, server=TEXT)))
UPSTREAMS = record(upstreams=listed(record(name=TEXT, balance=TEXT, configured=TEXTS, servers=listed(UPSTREAM_SERVER))))


async def show_upstreams(gateway: Gateway, _call: Call) -> Any:
    """GET /v1/upstreams"""
    snapshot = gateway.snapshot()
    note = snapshot.serving
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
                    for state in [
                        *note["upstreams"],
                        *(_drained(state, snapshot.notes_of_others) for state in note["drained"]),
                    ]
                    if state["group"] == upstream.name
                ],
            }
            for upstream in gateway.in_force.config.upstream
        ]
    }


def _drained(state: Mapping[str, Any], notes_of_others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A drained server. What workers that retire still have under way there counts, too."""
    place = state["group"], state["server"]
    others = [each for note in notes_of_others for each in [*note["upstreams"], *note["drained"]]]
    active = state["active"] + sum(each["active"] for each in others if (each["group"], each["server"]) == place)
    return {**state, "state": "drained", "why": "", "active": active, "idle": 0, "queued": 0}


async def drain(gateway: Gateway, call: Call) -> Any:
    """POST /v1/upstreams/{upstream}/servers/{server}/drain"""
    return await _drain(gateway, call, is_drained=True)


async def undrain(gateway: Gateway, call: Call) -> Any:
    """DELETE /v1/upstreams/{upstream}/servers/{server}/drain"""
    return await _drain(gateway, call, is_drained=False)


async def _drain(gateway: Gateway, call: Call, *, is_drained: bool) -> Any:
    wanted = {"upstream": call["upstream"], "server": call["server"], "is_drained": is_drained}
    drained = await gateway.inquire("drain_server", wanted)
    return {"drained": [{"upstream": upstream, "server": server} for upstream, server in drained]}
