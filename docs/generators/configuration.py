"""Every key of the configuration file: its type, its default, what values it may have, and since
which version it exists.

Bounds are not read from anywhere: they are tried. A value is allowed if the gateway itself takes a
configuration that sets it, with all other keys at their defaults.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fastticket import ConfigError, Keyring
from fastticket.dataplane.proxy import LIMITS, TIMEOUTS_S
from fastticket.gateway.assembly import make_cache
from fastticket.gateway.reader import read_config
from fastticket.gateway.settings import LISTS, SECTIONS, CacheSettings
from generators.tables import table

HERE = Path(__file__).parent
SINCE = HERE / "since.toml"
HEADING = "# The version in which each key of the configuration first was: make docs-reference adds new ones.\n"
BASE: Mapping[str, Any] = {
    "ticket": {"keys": "keys.toml"},
    "upstream": [{"name": "app", "servers": ["127.0.0.1:9001"]}],
    "route": [{"path": "/"}],
    "migration": [{"source": "linkis", "url": "redis://127.0.0.1:6379/0", "until": "2030-01-01"}],
}
KEYS = Keyring.generate()
GREATEST = 1 << 62
STEP = 1000  # tries of a number with a fraction are thousandths
ANCHORS = (1, 2, 3, 10, 100, 1_000, 10_000, 100_000, 1_000_000)


@dataclasses.dataclass(frozen=True)
class Key:
    """A key of one table of the file. `default` is None where there is none."""

    section: str
    name: str
    kind: Any
    default: Any

    @property
    def place(self) -> str:
        """Its name in since.toml."""
        return f"{self.section}.{self.name}"

    def is_allowed(self, value: Any) -> bool:
        """Whether the gateway takes a configuration with this value."""
        changed = json.loads(json.dumps(BASE))
        if self.section in LISTS:
            changed[self.section][0][self.name] = value
        else:
            changed.setdefault(self.section, {})[self.name] = value
        try:
            config = read_config(changed, "", Path())
            make_cache(dataclasses.replace(config, cache=CacheSettings(capacity=1)), KEYS)
        except ConfigError:
            return False
        return True


def keys_of(section: str) -> Iterator[Key]:
    """The keys of a table, in the order of the code."""
    if section == "limits":
        yield from (Key(section, name, int, default) for name, (default, _, _) in LIMITS.items())
    elif section == "timeouts":
        yield from (Key(section, f"{name}_s", float, default) for name, (_, default) in TIMEOUTS_S.items())
    else:
        kind = SECTIONS.get(section) or LISTS[section]
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            yield Key(section, field.name, hints[field.name], _default(field))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


# --- what a cell says


def type_of(kind: Any) -> str:
    """In the words of TOML."""
    if typing.get_origin(kind) is Literal:
        return "string"
    if typing.get_origin(kind) is list:
        return f"list of {type_of(typing.get_args(kind)[0])}s"
    if typing.get_origin(kind) is dict:
        return f"table of {type_of(typing.get_args(kind)[1])}s"
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " or ".join(dict.fromkeys(type_of(each) for each in typing.get_args(kind)))
    return {str: "string", int: "integer", float: "number", bool: "boolean"}[kind]


def choices_of(kind: Any) -> list[Any]:
    """The words that it may be."""
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    return [choice for each in typing.get_args(kind) for choice in choices_of(each)]


def values_of(key: Key) -> str:
    """What is allowed."""
    words = [f"`{json.dumps(each)}`" for each in choices_of(key.kind)]
    if bool in typing.get_args(key.kind):
        words = ["`true`", "`false`", *words]
    if words:
        return ", ".join(words)
    if key.kind in (int, float):
        return range_of(key.is_allowed, key.kind, key.default or 0)
    if key.kind == list[int]:
        return f"each {range_of(lambda value: key.is_allowed([value]), int, 0)}"
    return ""


def range_of(is_allowed: Callable[[Any], bool], kind: type, default: float) -> str:
    """The numbers that are allowed, in words. They are taken to be one range, and perhaps 0."""
    step = 1 if kind is int else STEP
    tried = lambda units: is_allowed(kind(units / step) if step > 1 else units)  # noqa: E731
    anchor = next(
        units for units in (int(default * step), *(each * step for each in ANCHORS)) if units and tried(units)
    )
    least = _last(tried, anchor, 1)
    most = None if tried(GREATEST) else _last(tried, anchor, GREATEST)
    if tried(0) and least == 1:
        least = 0
    begin, end = _said(least, step), "" if most is None else _said(most, step)
    also_zero = "0, or " if tried(0) and least > 0 else ""
    return also_zero + (f"{begin} to {end}" if end else f"at least {begin}")


def _last(tried: Callable[[int], bool], good: int, bad: int) -> int:
    """The last good number on the way from a good one to one that is bad, or may be."""
    if tried(bad):
        return bad
    while abs(good - bad) > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if tried(middle) else (good, middle)
    return good


def _said(units: int, step: int) -> str:
    return f"{units / step:,.15g}"


def default_of(key: Key) -> str:
    """As TOML has it."""
    return "required" if key.default is None else f"`{json.dumps(key.default)}`"


# --- since when


def since() -> dict[str, str]:
    """Place -> version."""
    return {place: version for version, places in tomllib.loads(SINCE.read_text()).items() for place in places}


def note_new_keys(version: str) -> None:
    """Write down which keys are in no version yet: they are in this one."""
    known = since()
    new = [key.place for section in ALL for key in keys_of(section) if key.place not in known]
    if new:
        versions = tomllib.loads(SINCE.read_text())
        versions.setdefault(version, []).extend(new)
        tables = (
            f'"{each}" = [\n' + "".join(f'    "{place}",\n' for place in versions[each]) + "]\n" for each in versions
        )
        SINCE.write_text(HEADING + "".join(tables))


def key_table(section: str, _: str) -> str:
    """The keys of a table of the file."""
    known = since()
    rows = [
        [f"`{key.name}`", type_of(key.kind), default_of(key), values_of(key), known.get(key.place, "?")]
        for key in keys_of(section)
    ]
    return table(["key", "type", "default", "values", "since"], rows)


ALL = [*SECTIONS, "limits", "timeouts", *LISTS]
BLOCKS = {f"keys of {section}": partial(key_table, section) for section in ALL}
