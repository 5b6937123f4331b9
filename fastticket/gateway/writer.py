"""Writes a configuration as TOML: what `fastticket check-config` prints."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from fastticket.dataplane.proxy import LIMITS, TIMEOUTS_S
from fastticket.gateway.settings import SECTIONS, Config
from fastticket.stores import without_password

SECRET = "***"  # noqa: S105 -- stands for one
OF_OURS = "fastticket's default"  #: what is said of a value that no file has given


def to_toml(config: Config) -> str:
    """The configuration in full, defaults included; `load_config` reads the same from it. If it is
    of another system's file, a comment says of each value where it comes from.
    """
    written = _Written(config.origins)
    for name, value in to_tables(config).items():
        if isinstance(value, list):
            for table in value:
                written.entry(f"[[{name}]]", table)
        else:
            written.table(f"[{name}]", value)
    return "\n".join(written.lines)


def to_tables(config: Config) -> dict[str, Any]:
    """The same as tables, and lists of tables, by name."""
    tables: dict[str, Any] = {name: dataclasses.asdict(getattr(config, name)) for name in SECTIONS}
    tables["limits"] = {name: config.limits.get(name, default) for name, (default, _, _) in LIMITS.items()}
    tables["timeouts"] = {
        f"{name}_s": config.timeouts.get(name, float(default)) for name, (_, default) in TIMEOUTS_S.items()
    }
    tables["upstream"] = [dataclasses.asdict(upstream) for upstream in config.upstream]
    tables["route"] = [
        dataclasses.asdict(route) | {"timeouts": {f"{name}_s": value for name, value in route.timeouts.items()}}
        for route in config.route
    ]
    tables["migration"] = [dataclasses.asdict(migration) for migration in config.migration]
    return tables


def without_secrets(config: Config) -> Config:
    """The configuration with `***` in place of passwords in the stores' URLs and of the values of
    `request_headers`.
    """
    return dataclasses.replace(
        config,
        store=dataclasses.replace(
            config.store,
            url=without_password(config.store.url),
            mirror_url=without_password(config.store.mirror_url) if config.store.mirror_url else "",
        ),
        route=[
            dataclasses.replace(route, request_headers=dict.fromkeys(route.request_headers, SECRET))
            for route in config.route
        ],
        migration=[
            dataclasses.replace(migration, url=without_password(migration.url)) for migration in config.migration
        ],
    )


class _Written:
    """The lines so far. `origins`: as `Config.origins`."""

    def __init__(self, origins: Mapping[str, str]) -> None:
        self.lines: list[str] = []
        self._origins = origins

    def table(self, header: str, values: Mapping[str, Any]) -> None:
        """A table, with a comment behind each value if there are origins."""
        self.lines.append(header)
        for key, value in values.items():
            origin = f"  {_comment(self._origins.get(f'{header} {key}', OF_OURS))}" if self._origins else ""
            self.lines.append(f"{key} = {_toml_value(value)}{origin}")
        self.lines.append("")

    def entry(self, header: str, values: Mapping[str, Any]) -> None:
        """One of several tables, with a comment before it if there are origins."""
        if self._origins:
            name = values.get("name") or values.get("path") or values.get("source")
            self.lines.append(_comment(f"{self._origins.get(f'{header} {name}', OF_OURS)}; all else: {OF_OURS}"))
        self.lines.append(header)
        self.lines += [f"{key} = {_toml_value(value)}" for key, value in values.items()]
        self.lines.append("")


def _comment(text: str) -> str:
    """One line, whatever a foreign file has put into a value."""
    return "# " + re.sub(r"[\x00-\x1f\x7f]", "?", text)


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
