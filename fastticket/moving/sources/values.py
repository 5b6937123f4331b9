"""Values of other systems' sessions: read from JSON or msgpack, within bounds, and written as our
attributes.

Rules of this file
- Never pickle, and no other format that can name code. Bytes that are neither are Unreadable.
- What is read has at most VALUE_BYTES_MAX bytes and DEPTH_MAX levels, and a session at most
  ATTRIBUTES_MAX attributes.
- An attribute moves if JSON says the same of it: bytes, dates, NaN, and keys that are no strings
  do not. It is left behind, and counted; the session moves without it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastticket.core.ticket import check_principal
from fastticket.errors import ConfigError, InvalidPrincipal
from fastticket.sessions.attributes import NAME_BYTES_MAX, RESERVED, JSONSerializer

VALUE_BYTES_MAX = 1_000_000
DEPTH_MAX = 64
ATTRIBUTES_MAX = 1000
NAMES_COUNTED_MAX = 100  # of attributes that are left behind
OTHERS = "(other names)"

_json = JSONSerializer()


class Unreadable(ValueError):  # noqa: N818 -- a value, not a malfunction
    """Foreign bytes are not what they should be; `reason` is a slug of `WHY` in this folder."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LeftBehind(Counter[tuple[str, str]]):
    """How many attributes were left behind, by name and reason."""

    def note(self, name: str, why: str) -> None:
        """One more."""
        known = (name, why) in self or len(self) < NAMES_COUNTED_MAX
        self[(name if known else OTHERS, why)] += 1


# ------------------------------------------------------------------------------- reading


def read_json(data: bytes) -> Any:
    """Unreadable: not JSON (RFC 8259) in UTF-8, too large, or too deep."""
    if len(data) > VALUE_BYTES_MAX:
        raise Unreadable("too_large")
    try:
        found = json.loads(data.decode(), parse_constant=_refuse_constant)
    except RecursionError:
        raise Unreadable("too_deep") from None
    except ValueError:
        raise Unreadable("not_json") from None
    _check_depth(found)
    return found


def read_msgpack(data: bytes) -> Any:
    """Unreadable: not msgpack, too large, or too deep. ConfigError: the library is missing."""
    if len(data) > VALUE_BYTES_MAX:
        raise Unreadable("too_large")
    try:
        import msgpack
    except ImportError:
        raise ConfigError("sessions in msgpack need the library msgpack: pip install 'fastticket[migration]'") from None
    try:
        found = msgpack.unpackb(data, raw=False, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.UnpackException):
        # TypeError: a map's key cannot be hashed.
        raise Unreadable("not_msgpack") from None
    _check_depth(found)
    return found


def _refuse_constant(_: str) -> None:
    raise ValueError("JSON has no NaN and no Infinity")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return
    raise Unreadable("too_deep")


def _inner(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


# ------------------------------------------------------------------------------- as ours


def attribute(value: Any) -> bytes:
    """A value serialized as ours. Unreadable: JSON has no such value, or would change it."""
    if not _is_plain(value):
        raise Unreadable("not_in_json")
    try:
        return _json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        raise Unreadable("not_in_json") from None


def attributes_of(
    content: Mapping[Any, Any], left: LeftBehind, dumps: Callable[[Any], bytes] = attribute
) -> dict[str, bytes]:
    """The attributes that move, serialized by `dumps`. Unreadable: there are too many."""
    if len(content) > ATTRIBUTES_MAX:
        raise Unreadable("too_many_attributes")
    attributes: dict[str, bytes] = {}
    for name, value in content.items():
        why = _why_not_named(name)
        if why is None:
            try:
                attributes[name] = dumps(value)
                continue
            except Unreadable as error:
                why = error.reason
            except (TypeError, ValueError, RecursionError):
                why = "not_in_json"
        left.note(str(name)[:NAME_BYTES_MAX], why)
    return attributes


def _is_plain(value: Any) -> bool:
    """Whether all keys within are strings, since JSON makes other keys strings."""
    waiting = [value]
    while waiting:
        outer = waiting.pop()
        if isinstance(outer, dict) and not all(isinstance(key, str) for key in outer):
            return False
        waiting.extend(_inner(outer))
    return True


def _why_not_named(name: object) -> str | None:
    if not isinstance(name, str):
        return "name_is_no_text"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "name_is_no_text"
    if not name or size > NAME_BYTES_MAX:
        return "bad_name"
    return "reserved_name" if name.startswith(RESERVED) else None


# ------------------------------------------------------------------------------- who


def principal_in(content: Mapping[Any, Any], names: Sequence[str]) -> str | None:
    """The principal that the first of these attributes names that there is; a name with dots may be
    a path, `user.name`. None: nobody is logged in. Unreadable: what it holds is no principal.
    """
    for name in names:
        found = _at(content, name)
        if found is not None:
            return principal_of(found)
    return None


def principal_of(value: Any) -> str:
    """A value as a principal: a text, or a whole number in decimal. Unreadable."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Unreadable("bad_principal")
    try:
        text = str(value)
        check_principal(text)
    except (InvalidPrincipal, ValueError):
        raise Unreadable("bad_principal") from None
    return text


def _at(content: Any, path: str) -> Any:
    if isinstance(content, Mapping) and path in content:
        return content[path]
    first, dot, rest = path.partition(".")
    inner = content.get(first) if isinstance(content, Mapping) and dot else None
    return _at(inner, rest) if inner is not None else None
