"""The keys of the ring: what is in the key file, what this gateway has loaded, and when each was
used. No secret is shown.

A change is made in the key file, by `keyfile`, and then loaded by a reload. While somebody else
changes the file, it is tried again and again: the supervisor must not wait in a system call.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fastticket.errors import ConfigError
from fastticket.gateway.admin.contract import Call
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.refusals import Refused
from fastticket.gateway.admin.shapes import FLAG, KEY_ID, NUMBER, TEXT, WHOLE, listed, optional, record
from fastticket.keyfile import (
    LOCK_RETRY_S,
    LOCK_TIMEOUT_S,
    Key,
    KeyFileBusy,
    add_key,
    promote_key,
    read_ring,
    retire_key,
)

IN_USE_S = 600.0  # a key by which a ticket was verified not longer ago is in use

_T = TypeVar("_T")

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


async def add(gateway: Gateway, call: Call) -> Any:
    """POST /v1/keys"""
    path, wanted = _file_of(gateway), call.body.get("id")
    key_id = await _change(lambda: add_key(path, wanted, patience_s=0))
    await _load(gateway, f"key {key_id} is in the file")
    return {"id": key_id, "state": "verifies"}


async def promote(gateway: Gateway, call: Call) -> Any:
    """POST /v1/keys/{id}/promote"""
    path, key_id = _file_of(gateway), call["id"]
    _ring_with(path, key_id)
    if key_id not in gateway.in_force.keys.ids:
        raise Refused("key_not_loaded")
    await _change(lambda: promote_key(path, key_id, patience_s=0))
    await _load(gateway, f"key {key_id} signs in the file")
    return {"id": key_id, "state": "signs"}


async def retire(gateway: Gateway, call: Call) -> Any:
    """DELETE /v1/keys/{id}"""
    path, key_id = _file_of(gateway), call["id"]
    if _ring_with(path, key_id)[-1].id == key_id:
        raise Refused("key_in_use", f"key {key_id} signs: promote another one, on every gateway, before it retires")
    used_s = gateway.recent.key_used_s.get(key_id)
    if not call["force"] and used_s is not None and time.monotonic() - used_s < IN_USE_S:
        ago_s = time.monotonic() - used_s
        what = f"a ticket was verified by key {key_id} {ago_s:.0f} s ago"
        raise Refused("key_in_use", f"{what}; it retires only if forced")
    await _change(lambda: retire_key(path, key_id, patience_s=0))
    await _load(gateway, f"key {key_id} is out of the file")
    return {"id": key_id}


async def _change(act: Callable[[], _T]) -> _T:
    """Change the key file, as soon as nobody else does. Refused: nothing has changed."""
    until_s = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            return act()
        except KeyFileBusy as error:
            if time.monotonic() >= until_s:
                raise Refused("key_file", str(error)) from None
        except ConfigError as error:
            raise Refused("key_file", str(error)) from None
        await asyncio.sleep(LOCK_RETRY_S)


async def _load(gateway: Gateway, done: str) -> None:
    """Serve by the changed file. Refused: it is changed, but not in force here."""
    try:
        await gateway.reload()
    except Refused as error:
        raise Refused(error.reason, f"{done}, but this gateway has not loaded it: {error}") from None


def _ring_with(path: Path, key_id: int) -> list[Key]:
    """The ring of a file that has that key. Refused."""
    try:
        ring = read_ring(path)
    except ConfigError as error:
        raise Refused("key_file", str(error)) from None
    if key_id not in [key.id for key in ring]:
        raise Refused("no_such_key")
    return ring


def _file_of(gateway: Gateway) -> Path:
    """The key file. Refused: the keys are in the environment."""
    path = _path_of(gateway)
    if path is None:
        raise Refused("keys_not_in_file")
    return path


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
