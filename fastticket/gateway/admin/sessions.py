"""Sessions, of any principal. All of it is the store's, so every gateway of a fleet says and does
the same.
"""

from __future__ import annotations

from typing import Any

from fastticket.gateway.admin.contract import Call
from fastticket.gateway.admin.gateway import Gateway


async def show_of_principal(gateway: Gateway, call: Call) -> Any:
    """GET /v1/principals/{principal}/sessions"""
    found = await gateway.inquire("sessions_of", {"principal": call["principal"], "values": call["values"]})
    return {"sessions": found}


async def show(gateway: Gateway, call: Call) -> Any:
    """GET /v1/sessions/{id}"""
    wanted = {"session_id": call["id"], "principal": call["principal"], "values": call["values"]}
    return await gateway.inquire("session", wanted)
