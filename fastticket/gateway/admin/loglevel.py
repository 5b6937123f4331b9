"""The level from which on lines are logged, changed until the next reload."""

from __future__ import annotations

from typing import Any

from fastticket.gateway.admin.contract import Call
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.shapes import record

LEVEL = {"type": "string", "enum": ["debug", "info", "warning", "error"]}
LOG_LEVEL = record(level=LEVEL, configured=LEVEL)


async def show_level(gateway: Gateway, _call: Call) -> Any:
    """GET /v1/log-level"""
    return {"level": gateway.log_level, "configured": gateway.in_force.config.gateway.log_level}


async def set_level(gateway: Gateway, call: Call) -> Any:
    """PUT /v1/log-level"""
    gateway.set_log_level(call.body["level"])
    return await show_level(gateway, call)
