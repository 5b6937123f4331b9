"""Sessions, of any principal. All of it is the store's, so every gateway of a fleet says and does
the same.
"""

from __future__ import annotations

import math
from typing import Any

from fastticket.gateway.admin.contract import Call
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.refusals import Refused

SCAN_TIMEOUT_S = 20.0  # to look through all sessions, or to end them
END_ALL_S = 15.0  # in one request; then the caller asks again


async def show_of_principal(gateway: Gateway, call: Call) -> Any:
    """GET /v1/principals/{principal}/sessions"""
    found = await gateway.inquire("sessions_of", {"principal": call["principal"], "values": call["values"]})
    return {"sessions": found}


async def show(gateway: Gateway, call: Call) -> Any:
    """GET /v1/sessions/{id}"""
    wanted = {"session_id": call["id"], "principal": call["principal"], "values": call["values"]}
    return await gateway.inquire("session", wanted, SCAN_TIMEOUT_S)


async def show_all(gateway: Gateway, call: Call) -> Any:
    """GET /v1/sessions"""
    return await gateway.inquire(
        "scan", {"cursor": call["cursor"], "count": call["limit"], "values": call["values"]}, SCAN_TIMEOUT_S
    )


async def count(gateway: Gateway, _call: Call) -> Any:
    """GET /v1/sessions/count"""
    return {"count": await gateway.inquire("count", {})}


async def end(gateway: Gateway, call: Call) -> Any:
    """DELETE /v1/sessions/{id}"""
    wanted = {"session_id": call["id"], "principal": call["principal"]}
    return {"ended": 1, "principal": await gateway.inquire("end_session", wanted, SCAN_TIMEOUT_S)}


async def end_of_principal(gateway: Gateway, call: Call) -> Any:
    """DELETE /v1/principals/{principal}/sessions"""
    wanted = {"principal": call["principal"], "but": call["but"]}
    return {"ended": await gateway.inquire("end_of_principal", wanted)}


async def end_all(gateway: Gateway, call: Call) -> Any:
    """DELETE /v1/sessions"""
    if not call["yes"]:
        raise Refused("not_confirmed", "this logs everybody out: say yes=true")
    return await gateway.inquire("end_all", {"patience_s": END_ALL_S}, SCAN_TIMEOUT_S)


async def issue(gateway: Gateway, call: Call) -> Any:
    """POST /v1/sessions"""
    options = {name: value for name, value in call.body.items() if name != "principal" and value is not None}
    for name in ("idle_timeout_s", "absolute_lifetime_s"):
        if options.get(name) == 0:
            options[name] = math.inf
    return await gateway.inquire("issue", {"principal": call.body["principal"], "options": options})


async def rotate(gateway: Gateway, call: Call) -> Any:
    """POST /v1/sessions/{id}/rotate"""
    wanted = {"session_id": call["id"], "principal": call["principal"]}
    return await gateway.inquire("rotate", wanted, SCAN_TIMEOUT_S)
