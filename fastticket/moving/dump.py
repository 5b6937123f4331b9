"""A file of sessions: lines of JSON, in the clear or sealed (moving/sealing.py).

    {"format": "fastticket-sessions", "version": 1, "dump": "<id>", "from": "<store>", ...}
    {"principal": ..., "id": "<22 characters>", "created_ms": ..., "last_access_ms": ...,
     "idle_timeout_s": ..., "absolute_lifetime_s": ..., "details": {...},
     "attributes": {"<name>": "<base64>"}}
    {"cursor": "<of Store.scan>"}      after some sessions: an export that was killed goes on there
    {"end": true, "sessions": <how many lines of them>, "sha256": "<of all the lines before>"}

It mints no ticket: it has no key, and of a ticket only the id. It has what the application keeps in
its sessions.

    open_pieces   the text of a file, piece by piece
    check         read all of it: ConfigError unless it is whole
    records       its sessions
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fastticket.core.ticket import decode_session_id, encode_session_id
from fastticket.errors import ConfigError
from fastticket.moving import sealing
from fastticket.moving.record import MovedSession, Skipped
from fastticket.stores.contract import NO_ATTRIBUTES, NO_DETAILS

FORMAT = "fastticket-sessions"
VERSION = 1
LINE_BYTES_MAX = 1 << 27
#: What the first line has beside.
HEAD: Mapping[str, type] = {"dump": str, "exported_at_ms": int, "from": str}


class Summary(NamedTuple):
    """What a whole file says of itself."""

    dump: str  #: its id
    exported_at_ms: int
    source: str  #: the store's URL, without passwords
    sessions: int  #: lines; a session that was met twice has two


def line_of(value: Any) -> bytes:
    """One line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def session_line(moved: MovedSession) -> bytes:
    """The line of a session."""
    values: dict[str, Any] = {
        "principal": moved.principal,
        "id": encode_session_id(moved.session_id),
        "created_ms": moved.created_ms,
        "last_access_ms": moved.last_access_ms,
        "idle_timeout_s": moved.idle_timeout_s,
        "absolute_lifetime_s": moved.absolute_lifetime_s,
    }
    if moved.details:
        values["details"] = dict(moved.details)
    if moved.attributes:
        values["attributes"] = {name: base64.b64encode(value).decode() for name, value in moved.attributes.items()}
    return line_of(values)


def end_line(sessions: int, digest: str) -> bytes:
    """The last line. `digest`: SHA-256 of all lines before, in hexadecimal."""
    return line_of({"end": True, "sessions": sessions, "sha256": digest})


def value_of(line: bytes) -> dict[str, Any]:
    """What a line says. ConfigError."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ConfigError("it is damaged, or no export of fastticket")
    return value


def is_session(line: bytes) -> bool:
    """Whether it is the line of a session: each of them begins in this way."""
    return line.startswith(b'{"principal":')


def open_pieces(file: BinaryIO, secret: bytes | None) -> Iterator[tuple[bytes, int]]:
    """(whole lines, where they end in the file), one after the other; what is cut off at the end is
    left out. ConfigError.
    """
    if sealing.is_sealed(file):
        if secret is None:
            raise ConfigError("it is sealed; name its key file with --key-file")
        yield from sealing.opened(file, secret)
        return
    if secret is not None and file.seek(0, 2):
        raise ConfigError("it is not sealed; leave out --key-file")
    file.seek(0)
    while (line := file.readline(LINE_BYTES_MAX)).endswith(b"\n"):
        yield line, file.tell()


def lines(file: BinaryIO, secret: bytes | None) -> Iterator[bytes]:
    """Each of them. ConfigError."""
    for piece, _ in open_pieces(file, secret):
        yield from piece.splitlines(keepends=True)


def check(path: Path, secret: bytes | None) -> Summary:
    """Read the whole file. ConfigError: it is none of ours, cut off, or was changed."""
    try:
        with path.open("rb") as file:
            return _check(file, secret)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _check(file: BinaryIO, secret: bytes | None) -> Summary:
    digest, count, head, end = hashlib.sha256(), 0, None, None
    for line in lines(file, secret):
        if end is not None:
            raise ConfigError("it is damaged: lines come after its end")
        if head is None:
            head = checked_head(value_of(line))
        if line.startswith(b'{"end":'):
            end = line
        else:
            digest.update(line)
            count += is_session(line)
    if head is None:
        raise ConfigError("it is no export of fastticket")
    if end is None:
        raise ConfigError("it is cut off: the export was not finished, or not all of it was copied")
    if end != end_line(count, digest.hexdigest()):
        raise ConfigError("it was changed since it was written")
    return Summary(head["dump"], head["exported_at_ms"], head["from"], count)


def checked_head(value: dict[str, Any]) -> dict[str, Any]:
    """The first line. ConfigError."""
    if value.get("format") != FORMAT:
        raise ConfigError("it is no export of fastticket")
    if value.get("version") != VERSION:
        raise ConfigError(f"it has version {value.get('version')} of the format; this fastticket reads {VERSION}")
    if not all(isinstance(value.get(name), kind) for name, kind in HEAD.items()):
        raise ConfigError("it is damaged: its first line does not say what it is of")
    return value


def records(path: Path, secret: bytes | None) -> Iterator[MovedSession | Skipped]:
    """The sessions of a file that was checked. ConfigError, OSError."""
    with path.open("rb") as file:
        for number, line in enumerate(lines(file, secret), 1):
            if is_session(line):
                yield _record(number, value_of(line))


def _record(number: int, value: dict[str, Any]) -> MovedSession | Skipped:
    try:
        return MovedSession(
            _text(value["principal"]),
            decode_session_id(value["id"]),
            _whole(value["created_ms"]),
            _whole(value["last_access_ms"]),
            _whole(value["idle_timeout_s"]),
            _whole(value["absolute_lifetime_s"]),
            {_text(name): _text(text) for name, text in value.get("details", NO_DETAILS).items()},
            {_text(name): base64.b64decode(text) for name, text in value.get("attributes", NO_ATTRIBUTES).items()},
        )
    except (KeyError, ValueError, TypeError, AttributeError, binascii.Error):
        return Skipped(f"line {number}", "unreadable")


def _text(value: Any) -> str:
    """TypeError: it is none. UnicodeEncodeError: not one that can be written."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    value.encode()
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("not a whole number")
    return value
