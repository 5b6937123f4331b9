"""Input and output of the commands where the locale's encoding is not UTF-8: ASCII, Latin-1.

A character that the encoding lacks is written as an escape: in text for people as Python writes it,
in JSON and TOML as their escapes. JSON and TOML are escaped in every encoding but UTF-8, because
their readers expect UTF-8.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import sys
from typing import Any


def prepare() -> None:
    """Make standard streams replace what they cannot encode or decode, instead of raising."""
    for stream, errors in ((sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace"), (sys.stdin, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def arguments() -> list[str]:
    """The arguments of the process; what the locale could not decode is read as UTF-8."""
    return [_read(argument) for argument in sys.argv[1:]]


def _read(argument: str) -> str:
    try:
        argument.encode()
        return argument
    except UnicodeEncodeError:
        return os.fsencode(argument).decode(errors="replace")


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON for standard output."""
    return json.dumps(value, ensure_ascii=not _is_utf8(), indent=indent)


def print_json(value: Any) -> None:
    """For a command's --json; commands/schemas.py describes each."""
    print(json_text(value, indent=2))


def toml_text(text: str) -> str:
    """TOML for standard output. What is not ASCII in it must stand in basic strings."""
    return text if _is_utf8() else re.sub(r"[^\x00-\x7f]", _escape, text)


def _escape(character: re.Match[str]) -> str:
    number = ord(character[0])
    return f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"


def _is_utf8() -> bool:
    return codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
