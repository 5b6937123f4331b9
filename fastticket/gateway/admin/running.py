"""Reloads, and whether the gateway is ready."""

from __future__ import annotations

from typing import Any

from fastticket.gateway.admin.contract import Call
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.refusals import Refused
from fastticket.gateway.admin.shapes import FLAG, TEXT, TEXTS, record

RELOADED = record(configuration=TEXT)
DRAIN = record(is_draining=FLAG, is_ready=FLAG, reasons=TEXTS)


async def reload(gateway: Gateway, _call: Call) -> Any:
    """POST /v1/reload"""
    await gateway.reload()
    return {"configuration": gateway.in_force.config.source}


async def drain(gateway: Gateway, _call: Call) -> Any:
    """POST /v1/drain"""
    gateway.drain()
    return _readiness(gateway)


async def undrain(gateway: Gateway, _call: Call) -> Any:
    """DELETE /v1/drain"""
    if not gateway.undrain():
        raise Refused("stopping")
    return _readiness(gateway)


def _readiness(gateway: Gateway) -> dict[str, Any]:
    snapshot = gateway.snapshot()
    reasons = snapshot.unready()
    return {"is_draining": snapshot.is_stopping, "is_ready": not reasons, "reasons": reasons}
