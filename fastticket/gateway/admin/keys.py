"""The keys of the ring: what is in the key file, what this gateway has loaded, and when each was
used. No secret is shown.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastticket.errors import ConfigError
from fastticket.gateway.admin.contract import Call
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.refusals import Refused
from fastticket.gateway.admin.shapes import FLAG, KEY_ID, NUMBER, TEXT, WHOLE, listed, optional, record
from fastticket.keyfile import Key, read_ring

KEY = record(
    id=KEY_ID,
    state={"type": "string", "enum": ["signs", "verifies"]},
    created=optional(TEXT),
    age_s=optional(WHOLE),
    is_loaded=FLAG,
    uses=WHOLE,
    last_used_s=optional(NUMBER),
)
KEYS = record(source=TEXT, keys=listed(KEY))


async def show_keys(gateway: Gateway, _call: Call) -> Any:
    """GET /v1/keys"""
    given = gateway.in_force
    loaded = given.keys.ids
    uses: Mapping[str, int] = gateway.snapshot().counted.get("key_uses", {})
    path = _path_of(gateway)
    if path is None:
        keys = [Key(key_id, b"") for key_id in loaded]
    else:
        try:
            keys = read_ring(path)
        except ConfigError as error:
            raise Refused("key_file", str(error)) from None
    source = "the environment" if path is None else str(path)
    return {"source": source, "keys": [_key(gateway, key, keys[-1].id, loaded, uses) for key in keys]}


def _path_of(gateway: Gateway) -> Path | None:
    """The key file; None: the keys are in the environment."""
    config = gateway.in_force.config
    return config.base / config.ticket.keys if config.ticket.keys else None


def _key(gateway: Gateway, key: Key, signing: int, loaded: Any, uses: Mapping[str, int]) -> dict[str, Any]:
    used_s = gateway.recent.key_used_s.get(key.id)
    age_s = int((datetime.datetime.now(datetime.UTC) - key.created).total_seconds()) if key.created else None
    return {
        "id": key.id,
        "state": "signs" if key.id == signing else "verifies",
        "created": key.created.isoformat().replace("+00:00", "Z") if key.created else None,
        "age_s": None if age_s is None else max(0, age_s),
        "is_loaded": key.id in loaded,
        "uses": uses.get(str(key.id), 0),
        "last_used_s": None if used_s is None else round(time.monotonic() - used_s, 1),
    }
