"""Writes a configuration as TOML: what `fastticket check-config` prints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from fastticket.dataplane.proxy import LIMITS, TIMEOUTS_S
from fastticket.gateway.settings import SECTIONS, Config
from fastticket.stores import without_password

SECRET = "***"  # noqa: S105 -- stands for one


def to_toml(config: Config) -> str:
    """The configuration in full, defaults included; `load_config` reads the same from it."""
    lines: list[str] = []
    for name in SECTIONS:
        _table(lines, f"[{name}]", dataclasses.asdict(getattr(config, name)))
    _table(lines, "[limits]", {name: config.limits.get(name, default) for name, (default, _, _) in LIMITS.items()})
    _table(
        lines,
        "[timeouts]",
        {f"{name}_s": config.timeouts.get(name, float(default)) for name, (_, default) in TIMEOUTS_S.items()},
    )
    for upstream in config.upstream:
        _table(lines, "[[upstream]]", dataclasses.asdict(upstream))
    for route in config.route:
        timeouts = {f"{name}_s": value for name, value in route.timeouts.items()}
        _table(lines, "[[route]]", dataclasses.asdict(route) | {"timeouts": timeouts})
    return "\n".join(lines)


def without_secrets(config: Config) -> Config:
    """The configuration with `***` in place of passwords in the store's URL and of the values of
    `request_headers`.
    """
    return dataclasses.replace(
        config,
        store=dataclasses.replace(config.store, url=without_password(config.store.url)),
        route=[
            dataclasses.replace(route, request_headers=dict.fromkeys(route.request_headers, SECRET))
            for route in config.route
        ],
    )


def _table(lines: list[str], header: str, values: Mapping[str, Any]) -> None:
    lines.append(header)
    lines += [f"{key} = {_toml_value(value)}" for key, value in values.items()]
    lines.append("")


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_value(name)} = {_toml_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML's escapes are JSON's
    return str(value)
