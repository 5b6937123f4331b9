"""TOML files: a configuration, a key ring."""

from __future__ import annotations

import codecs
import os
import tomllib
from typing import Any

from fastticket.errors import ConfigError

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_toml(path: str | os.PathLike[str], if_missing: str = "") -> dict[str, Any]:
    """A file's table; a byte order mark before it means nothing. ConfigError, with `if_missing`
    where there is no such file.
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
    except (ValueError, RecursionError) as error:  # what int() and deep nesting raise through tomllib, too
        raise ConfigError(f"{path}: not TOML: {error}") from None
