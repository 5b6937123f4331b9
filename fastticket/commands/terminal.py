"""What the commands read and write where the terminal's encoding is not UTF-8: ASCII, Latin-1.

A character that the terminal does not have is written as an escape: for people as Python has it,
for programs as JSON and TOML do. Both of these are escaped wherever the terminal is not UTF-8:
their readers take them for UTF-8.
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
    """Let no character stop a command."""
    for stream, errors in ((sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace"), (sys.stdin, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def arguments() -> list[str]:
    """Those of the process; what its locale could not read is UTF-8, if it can be."""
    return [_read(argument) for argument in sys.argv[1:]]


def _read(argument: str) -> str:
    try:
        argument.encode()
        return argument
    except UnicodeEncodeError:
        return os.fsencode(argument).decode(errors="replace")


def json_text(value: Any, indent: int | None = None) -> str:
    """For standard output."""
    return json.dumps(value, ensure_ascii=not _is_utf8(), indent=indent)


def toml_text(text: str) -> str:
    """TOML for standard output: all that is not ASCII stands in basic strings."""
    return text if _is_utf8() else re.sub(r"[^\x00-\x7f]", _escape, text)


def _escape(character: re.Match[str]) -> str:
    number = ord(character[0])
    return f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"


def _is_utf8() -> bool:
    return codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
