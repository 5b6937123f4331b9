"""The part of JSON Schema (2020-12) that the table of operations uses: checking a value by it, and
reading the text of a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def fault_of(value: Any, schema: Schema, where: str) -> str:
    """Why a value is not as its schema says; "" if it is. Values are not repeated: one may be a
    secret.
    """
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return f"{where} must be {' or '.join(kinds)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} must be one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        return _fault_of_number(value, schema, where)
    if isinstance(value, str):
        return _fault_of_text(value, schema, where)
    return _fault_inside(value, schema, where) if isinstance(value, dict) else ""


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _fault_of_number(value: float, schema: Schema, where: str) -> str:
    least, most = schema.get("minimum", value), schema.get("maximum", value)
    return "" if least <= value <= most else f"{where} must be from {least} to {schema.get('maximum', 'any number')}"


def _fault_of_text(value: str, schema: Schema, where: str) -> str:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        return f"{where} must have from {schema.get('minLength', 0)} to {schema['maxLength']} characters"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{where} is not of the form {schema['pattern']}"
    return ""


def _fault_inside(value: Mapping[str, Any], schema: Schema, where: str) -> str:
    known = schema.get("properties", {})
    rest = schema.get("additionalProperties", {})
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        return f"{where}: {missing[0]} is missing"
    if rest is False and (unknown := [name for name in value if name not in known]):
        return f"{where}: {unknown[0]!r} is not known; there are: {', '.join(known)}"
    faults = (fault_of(each, known.get(name, rest), f"{where}: {name}") for name, each in value.items())
    return next(filter(None, faults), "")


def value_of(text: str, schema: Schema) -> Any:
    """The value that a parameter's text stands for. It is the text itself where that is of no other
    type, which `fault_of` finds then.
    """
    match schema.get("type"):
        case "integer" if re.fullmatch(r"-?[0-9]{1,18}", text):
            return int(text)
        case "boolean" if text in ("true", "false"):
            return text == "true"
    return text
