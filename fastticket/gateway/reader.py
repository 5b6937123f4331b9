"""Reads a configuration: TOML to settings.

A wrong value is reported and left out, so that everything else is still read and checked: one
reading finds all problems.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from fastticket.dataplane.proxy import LIMITS, ROUTE_TIMEOUTS, TIMEOUTS_S
from fastticket.errors import ConfigError
from fastticket.gateway.problems import COMMAND_LINE, Problems, place_of
from fastticket.gateway.rules import DAY_S, THREADS_MAX, apply_rules
from fastticket.gateway.settings import LISTS, SECTIONS, Config, RouteSettings
from fastticket.tomlfile import read_toml

#: The environment variable with the store's URL, used where the file has none: a password in it
#: appears in no file and in no list of processes.
STORE_VARIABLE = "FASTTICKET_STORE"

KIND_NAMES = {str: "a string", int: "a whole number", bool: "true or false", float: "a number"}
KIND_NAMES_MANY = {str: "strings", int: "whole numbers", float: "numbers"}

_T = TypeVar("_T")
_types_of: Callable[[type], dict[str, Any]] = functools.cache(typing.get_type_hints)  # there may be 256 routes


class FaultyConfig(ConfigError):  # noqa: N818 -- it is one
    """A configuration with problems. `config` is the rest of it, without the wrong values: more
    problems may be found in it, but no gateway can run by it.
    """

    def __init__(self, config: Config, problems: Iterable[str]) -> None:
        super().__init__(*problems)
        self.config = config


def load_config(*paths: Path) -> Config:
    """Read and check a file, or several of one folder. ConfigError: a file cannot be read.
    FaultyConfig.
    """
    table: dict[str, Any] = {}
    for path in paths:
        _lay_over(table, read_toml(path))
    if len({path.absolute().parent for path in paths}) > 1:
        raise ConfigError(
            f"{', '.join(map(str, paths))}: paths in a file are relative to its folder; put them into one folder"
        )
    store = table.setdefault("store", {})
    if isinstance(store, dict) and (url := os.environ.get(STORE_VARIABLE)):
        store.setdefault("url", url)
    return read_config(table, ", ".join(map(str, paths)), paths[0].parent)


def _lay_over(table: dict[str, Any], later: Mapping[str, Any]) -> None:
    """Let a later file win: key by key in a table; a list of tables (`[[route]]`) as a whole."""
    for name, value in later.items():
        earlier = table.get(name)
        table[name] = earlier | value if isinstance(earlier, dict) and isinstance(value, dict) else value


def read_config(table: Mapping[str, Any], source: str, base: Path) -> Config:
    """Read and check a table as TOML gives it. `source` names it in problems; `base` is the folder
    of its paths. FaultyConfig, with all problems.
    """
    problems, outdated = Problems(source), list[str]()
    table = _with_threads(table, problems, outdated)
    problems.refuse_unknown(table, [*SECTIONS, *LISTS, "limits", "timeouts"], "")
    values: dict[str, Any] = {
        name: _read(kind, table.get(name, {}), problems, f"[{name}]") or kind() for name, kind in SECTIONS.items()
    }
    for name, kind in LISTS.items():
        values[name] = _read_list(kind, table.get(name, []), problems, name)
    values["limits"] = _read_limits(table.get("limits", {}), problems)
    values["timeouts"] = _read_timeouts(table.get("timeouts", {}), TIMEOUTS_S, problems, "[timeouts]")
    values["route"] = [_with_timeouts(route, problems) for route in values["route"]]
    config = Config(source=source, base=base, outdated=outdated, **values)
    apply_rules(config, problems)
    if problems.found:
        raise FaultyConfig(config, problems.found)
    return config


def _with_threads(table: Mapping[str, Any], problems: Problems, outdated: list[str]) -> Mapping[str, Any]:
    """The table with `threads` in place of `workers`, which was its name while each worker was a
    process.
    """
    gateway = table.get("gateway")
    if not isinstance(gateway, dict) or "workers" not in gateway:
        return table
    rest = {name: value for name, value in gateway.items() if name != "workers"}
    where, workers = "[gateway] workers", gateway["workers"]
    wrong = _mismatch(workers, int) or ("" if 1 <= workers <= THREADS_MAX else f"must be from 1 to {THREADS_MAX}")
    problems.require(not wrong, where, wrong)
    if not wrong and rest.setdefault("threads", workers) != workers:
        problems.add(where, "is the former name of threads, which has another value: leave workers out")
    outdated.append(f"{place_of(problems.source, where)}: is called threads now: one process has so many of them")
    return {**table, "gateway": rest}


def simple_config(
    listen: list[str],
    upstream: list[str],
    store: str,
    keys: str,
    sizes: Mapping[str, int] | None = None,
    *,
    source: str = COMMAND_LINE,
    base: Path | None = None,
) -> Config:
    """The configuration of `serve` without a file: `/login` is the login route, everything else
    requires a ticket. `sizes`: threads, or workers. `base`: the current folder by default.
    FaultyConfig.
    """
    table = {
        "gateway": {"listen": listen, "login_url": "/login", **(sizes or {})},
        "ticket": {"keys": keys},
        "store": {"url": store},
        "upstream": [{"name": "app", "servers": upstream}],
        "route": [{"path": "/login", "auth": "optional", "login": True}, {"path": "/", "auth": "required"}],
    }
    return read_config(table, source, base or Path())


def _read(kind: type[_T], table: Any, problems: Problems, where: str) -> _T | None:
    """A dataclass of a table, without its wrong values; None: a key that is required is missing or
    wrong.
    """
    if not isinstance(table, dict):
        problems.add(where, "must be a table")
        return None
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = _types_of(kind)
    are_known = problems.refuse_unknown(table, fields, where)
    wrong = {name: _mismatch(value, hints[name]) for name, value in table.items() if name in fields}
    for name, problem in wrong.items():
        problems.require(not problem, f"{where} {name}", problem)
    good = {name: table[name] for name, problem in wrong.items() if not problem}
    required = [
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in table]
    if missing and are_known:  # an unknown key may be this one, misspelt
        problems.add(where, f"{missing[0]} is missing")
    return kind(**good) if all(name in good for name in required) else None


def _read_list(kind: type[_T], entries: Any, problems: Problems, name: str) -> list[_T]:
    if not isinstance(entries, list):
        problems.add(name, f"write it as [[{name}]], once for each")
        problems.incomplete.add(name)
        return []
    found = [_read(kind, entry, problems, f"[[{name}]] number {n}") for n, entry in enumerate(entries, 1)]
    if None in found:
        problems.incomplete.add(name)
    return [entry for entry in found if entry is not None]


def _read_limits(table: Any, problems: Problems) -> dict[str, int]:
    """`[limits]`, with the names and bounds of the data plane's LIMITS."""
    if not isinstance(table, dict):
        problems.add("[limits]", "must be a table")
        return {}
    problems.refuse_unknown(table, LIMITS, "[limits]")
    good = {}
    for name, value in table.items():
        _, least, most = LIMITS.get(name, (0, 0, 0))
        if type(value) is int and least <= value <= most:
            good[name] = value
        elif name in LIMITS:
            problems.add(f"[limits] {name}", f"must be from {least} to {most}, not {value!r}")
    return good


def _read_timeouts(table: Any, names: Iterable[str], problems: Problems, where: str) -> dict[str, float]:
    """A table of timeouts in seconds: `names` in the result, with `_s` in the file."""
    if not isinstance(table, dict):
        problems.add(where, "must be a table")
        return {}
    known = [f"{name}_s" for name in names]
    problems.refuse_unknown(table, known, where)
    good = {}
    for name, value in table.items():
        if not isinstance(value, bool) and isinstance(value, int | float) and 0 < value <= DAY_S:
            good[name.removesuffix("_s")] = float(value)
        elif name in known:
            problems.add(f"{where} {name}", f"must be a number of seconds, more than 0 and at most {DAY_S}")
    return good


def _with_timeouts(route: RouteSettings, problems: Problems) -> RouteSettings:
    where = f"[[route]] {route.host}{route.path} timeouts"
    return dataclasses.replace(route, timeouts=_read_timeouts(route.timeouts, ROUTE_TIMEOUTS, problems, where))


def _mismatch(value: Any, wanted: Any) -> str:
    """Why a value is not of the wanted type; "" if it is. Numbers must not be negative."""
    if typing.get_origin(wanted) is Literal:
        choices = typing.get_args(wanted)
        return "" if value in choices else f"must be one of {', '.join(choices)}, not {value!r}"
    if typing.get_origin(wanted) is typing.Union:
        problems = [_mismatch(value, each) for each in typing.get_args(wanted)]
        kinds = [problem.removeprefix("must be ").partition(", not ")[0] for problem in problems]
        return "" if "" in problems else f"must be {' or '.join(kinds)}, not {value!r}"
    if isinstance(wanted, types.GenericAlias):
        return _mismatch_inside(value, typing.get_origin(wanted), typing.get_args(wanted)[-1])
    is_number = isinstance(value, int | float if wanted is float else int) and not isinstance(value, bool)
    if wanted in (int, float) and is_number:
        return "" if value >= 0 else f"must not be negative, it is {value}"
    return "" if type(value) is wanted else f"must be {KIND_NAMES[wanted]}, not {value!r}"


def _mismatch_inside(value: Any, container: type, item: type) -> str:
    """Why a value is not a list of `item`, or a table with `item` values; "" if it is."""
    items = value.values() if isinstance(value, dict) else value
    if isinstance(value, container) and not any(_mismatch(each, item) for each in items):
        return ""
    wanted = KIND_NAMES_MANY.get(item) or " and ".join(typing.get_args(item))
    return f"must be a {'table' if container is dict else 'list'} of {wanted}, not {value!r}"
