"""Reads TOML files: configurations and key files."""

from __future__ import annotations

import codecs
import os
import tomllib
from typing import Any

from fastticket.errors import ConfigError

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_toml(path: str | os.PathLike[str], if_missing: str = "") -> dict[str, Any]:
    """The table of a file, which is UTF-8 with or without a byte order mark. ConfigError, with
    `if_missing` appended if there is no such file.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        hint = f"; {if_missing}" if if_missing and isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{path}: {error.strerror}{hint}") from None
    if raw.startswith(UTF16):
        raise ConfigError(f"{path}: is UTF-16; save it as UTF-8")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: not TOML: line {line} is not UTF-8") from None
    except (ValueError, RecursionError) as error:  # int() and deep nesting raise them through tomllib
        raise ConfigError(f"{path}: not TOML: {error}") from None
