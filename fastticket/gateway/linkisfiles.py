"""Linkis' properties files as one set of settings, read as Linkis reads them: a later file wins
over an earlier one, an empty value is none, and a setting that no file has is Linkis' built-in
value.

What a setting means to the gateway, `linkis` knows.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fastticket.errors import ConfigError
from fastticket.gateway.properties import WHITE, MalformedProperties, read_properties

log = logging.getLogger("fastticket.gateway")

MARK = "\ufeff"
WHOLE = re.compile(r"[0-9]{1,18}")
#: Values of these stay as Java reads them, white space included, and no message has them.
SECRETS = ("password", ".crypt.key")


#: Under which Linkis makes its tickets, and what the key is where no file has one.
CRYPT_KEY = "wds.linkis.crypt.key"
DEFAULT_CRYPT_KEY = "bdp-for-server"


class Said(NamedTuple):
    """A value, and the file that has it."""

    value: str
    source: str


class LinkisFiles:
    """The settings of some files. `defaults`: Linkis' built-in values of those that are known."""

    def __init__(self, paths: Sequence[Path], defaults: Mapping[str, str]) -> None:
        """ConfigError: a file cannot be read, or Linkis would not read it."""
        self.source = ", ".join(map(str, paths))
        self._defaults = defaults
        self._said: dict[str, Said] = {}
        for path in paths:
            self._said |= {name: Said(value, str(path)) for name, value in _read(path, defaults).items()}

    def value(self, name: str) -> str:
        """The value in force."""
        said = self._said.get(name)
        return said.value if said and said.value else self._defaults[name]

    def names(self) -> Iterable[str]:
        """What the files name, known or not."""
        return self._said

    def has(self, name: str) -> bool:
        """Whether a file gives a value."""
        return name in self._said and bool(self._said[name].value)

    def source_of(self, name: str) -> str:
        """The file that names a setting, or all of them."""
        return self._said[name].source if name in self._said else self.source

    def where(self, name: str) -> str:
        """The place of a value, for a message."""
        return f"{self.source_of(name)}: {name}"

    def origin(self, *names: str) -> str:
        """Where values come from, in words. A secret is not repeated."""
        return "; ".join(self._origin(name) for name in names)

    def _origin(self, name: str) -> str:
        shown = "" if name.endswith(SECRETS) else f"={self.value(name)}"
        if self.has(name):
            return f"{name}{shown} in {Path(self._said[name].source).name}"
        return f"{name}{shown} (Linkis' default)"

    def switch(self, name: str) -> bool:
        """A setting that is true or false. ConfigError."""
        text = self.value(name).lower()
        if text not in ("true", "false"):
            raise ConfigError(f"{self.where(name)}: must be true or false, not {text}")
        return text == "true"

    def whole(self, name: str) -> int:
        """A setting that is a whole number. ConfigError."""
        text = self.value(name)
        if not WHOLE.fullmatch(text):
            raise ConfigError(f"{self.where(name)}: must be a whole number, not {text}")
        return int(text)


def crypt_key_of(path: Path) -> str:
    """The key under which Linkis makes tickets, of one file. ConfigError."""
    return _read(path, {}).get(CRYPT_KEY) or DEFAULT_CRYPT_KEY


def _read(path: Path, known: Mapping[str, str]) -> dict[str, str]:
    """The properties of a file. Values are stripped of white space, except secrets. ConfigError."""
    properties = _decoded(path)
    for name, value in properties.items():
        if not _is_text(name + value):
            shown = name.encode(errors="backslashreplace").decode()
            raise ConfigError(f"{path}: {shown}: has half a character (a \\uD800 to \\uDFFF by itself)")
        if not name.endswith(SECRETS):
            properties[name] = value.strip(WHITE)
        elif value.strip(WHITE) != value and name in known:
            log.warning("%s: %s: ends in white space, which Java takes for a part of it", path, name)
    return properties


def _decoded(path: Path) -> dict[str, str]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{path}: is UTF-16, which Linkis does not read; save it as UTF-8 without a byte order mark")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # as Java reads it
    try:
        return read_properties(text)
    except MalformedProperties as error:
        raise ConfigError(f"{path}: {error}; Linkis does not read such a file either") from None


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
