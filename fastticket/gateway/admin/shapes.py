"""Schemas that several operations of the table use, and short ways to write one."""

from __future__ import annotations

from typing import Any

from fastticket.gateway.admin.contract import Parameter
from fastticket.gateway.admin.schema import Schema

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "array", "items": TEXT}
TIME: Schema = {"type": "integer", "description": "ms since the epoch, the store's clock"}

SESSION_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{22}$"}
PRINCIPAL: Schema = {"type": "string", "minLength": 1, "maxLength": 190}
KEY_ID: Schema = {"type": "integer", "minimum": 0, "maximum": 255}
UPSTREAM: Schema = {"type": "string", "minLength": 1, "maxLength": 64}
SERVER: Schema = {"type": "string", "minLength": 1, "maxLength": 300}
LIFETIME: Schema = {
    "type": "integer",
    "minimum": 0,
    "maximum": 4294967295,
    "description": "seconds; 0: no end",
}


def record(**fields: Schema) -> Schema:
    """An object that has these fields, and no others."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def listed(of: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": of}


def table(of: Schema) -> Schema:
    """An object with any names."""
    return {"type": "object", "additionalProperties": of}


def optional(of: Schema) -> Schema:
    """The same, or null."""
    return {**of, "type": [of["type"], "null"]}


def with_default(of: Schema, default: Any) -> Schema:
    """The same, with a default."""
    return {**of, "default": default}


ATTRIBUTE: Schema = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "bytes": WHOLE,
        "value": {"description": "only with values=true, if it is JSON"},
        "base64": {"type": "string", "description": "only with values=true, if it is not JSON"},
    },
    "required": ["name", "bytes"],
    "additionalProperties": False,
}
SESSION: Schema = record(
    id=SESSION_ID,
    principal=TEXT,
    created_ms=TIME,
    last_access_ms=optional(TIME),
    idle_deadline_ms=optional(TIME),
    absolute_deadline_ms=optional(TIME),
    details=table(TEXT),
    attributes=listed(ATTRIBUTE),
)

VALUES = Parameter(
    "values",
    "query",
    with_default(FLAG, False),
    "the attributes' values, too; the audit log notes that they were looked at",
)
FORCE_TEXT = "although it is refused otherwise"
