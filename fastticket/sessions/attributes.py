"""Attributes: what an application keeps in a session, as names and values.

    AttributeChanges  a mapping that knows what was changed since it was read; without I/O
    Attributes        the mapping for asyncio: `async with cache.attributes(session) as attributes`
    Source            where `Attributes` reads and writes

Rules of this file
- A value is serialized when it is saved, and compared with what the store holds: a list that was
  appended to is a change, an assignment of an equal value is none.
- Only changed attributes are written: two processes that change different ones lose neither.
- A value that cannot be read back raises when that attribute is asked for. The other attributes,
  and the session, work on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from fastticket.core.check import Session
from fastticket.errors import BadAttribute, NotLoaded
from fastticket.stores.contract import NEVER_WRITTEN, Position, StoredAttributes, Written

NAME_BYTES_MAX = 255
#: The prefix of names that an integration keeps for itself, and that other frameworks' sessions do
#: not show.
RESERVED = "_fastticket."


class Serializer(Protocol):
    """How values become bytes. Equal values must give equal bytes, or they are written although
    they did not change.
    """

    def dumps(self, value: Any) -> bytes:
        """The value as bytes. TypeError, ValueError: it cannot be serialized."""

    def loads(self, data: bytes) -> Any:
        """The value of these bytes. Any exception: they are not a serialized value. Everybody with
        access to the store can choose them, so it must be safe to call.
        """


class JSONSerializer:
    """JSON (RFC 8259), compact. Values that JSON does not have (bytes, dates, NaN) are refused;
    tuples come back as lists, keys as strings.
    """

    def dumps(self, value: Any) -> bytes:
        """UTF-8. TypeError, ValueError."""
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def loads(self, data: bytes) -> Any:
        """ValueError."""
        return json.loads(data)


class Changes(NamedTuple):
    """False if there is nothing to write."""

    values: Mapping[str, bytes]  #: new or changed, serialized
    removed: list[str]

    def __bool__(self) -> bool:
        return bool(self.values or self.removed)


class Saved(NamedTuple):
    """The result of a write."""

    version: Position
    stored: StoredAttributes | None  #: what the store holds now; None: not known, another process had written, too


class AttributeChanges(MutableMapping[str, Any]):
    """Attributes by name, and their changes since they were read. Does no I/O: subclasses do, in
    `_load_now`.
    """

    def __init__(self, serializer: Serializer) -> None:
        self._serializer = serializer
        self._held: StoredAttributes | None = None
        self._version: Position | None = None
        self._is_outdated = False  # others have written since `_held` was read, so it may differ from the store's
        self._set_since: set[str] = set()  # names that were set while outdated: written even if equal to `_held`
        self._saved: dict[str, bytes] = {}  # written without having been read before
        self._values: dict[str, Any] = {}
        self._removed: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        raw = None if name in self._removed else self._stored().get(name)
        if raw is None:
            raise KeyError(name)
        try:
            value = self._values[name] = self._serializer.loads(raw)
        except Exception as error:
            raise BadAttribute(
                name, f"its {len(raw)} bytes can not be read back ({type(error).__name__}); set or delete it"
            ) from error
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        self._values[name] = value
        self._removed.discard(name)
        if self._is_outdated:
            self._set_since.add(name)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self.discard(name)

    def discard(self, name: str) -> None:
        """Remove an attribute, if it is there. Unlike `del` it needs no reading."""
        self._values.pop(name, None)
        self._removed.add(name)

    def __contains__(self, name: object) -> bool:
        return name in self._values or (name not in self._removed and name in self._stored())

    def __iter__(self) -> Iterator[str]:
        stored = self._stored()
        yield from [name for name in stored if name not in self._removed]
        yield from [name for name in self._values if name not in stored]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {'not loaded' if self._held is None else f'{len(self)} attributes'}>"

    @property
    def unsaved(self) -> dict[str, Any]:
        """The attributes that were set or looked at so far, by name."""
        return dict(self._values)

    @property
    def is_loaded(self) -> bool:
        """Whether the attributes were read from the store."""
        return self._held is not None

    @property
    def version(self) -> Position | None:
        """The version that was read or written last. As `seen=` of another reader it means: none
        older. None: neither was done yet.
        """
        return self._version

    def changes(self) -> Changes:
        """What there is to write. BadAttribute: a value cannot be serialized."""
        stored = self._held.values if self._held else {}
        if self._held and not self._is_outdated:
            self._removed.intersection_update(stored)
        values = {}
        for name, value in self._values.items():
            try:
                raw = self._serializer.dumps(value)
            except (TypeError, ValueError, RecursionError) as error:
                raise BadAttribute(name, f"can not be written: {error}") from error
            known = None if name in self._set_since else self._saved.get(name, stored.get(name))
            if known is None or (raw != known and raw != self._as_written_here(known)):
                values[name] = raw
        return Changes(values, list(self._removed))

    def hold(self, stored: StoredAttributes) -> None:
        """Take in what the store has. Attributes that were set or removed before stay so."""
        self._held = stored
        self._version = stored.version

    def settle(self, changes: Changes, saved: Saved) -> None:
        """The changes are written. What others have changed in between is not seen here."""
        self._version, now = saved
        self._is_outdated = now is None and self._held is not None
        self._set_since.clear()
        if now is None and self._held:
            now = StoredAttributes(self._held.version, _merged(self._held, changes))
        if now is None:
            self._saved.update(changes.values)
            for name in changes.removed:
                self._saved.pop(name, None)
        else:
            self._saved.clear()
        self._held = now
        self._removed.difference_update(changes.removed)

    def _as_written_here(self, raw: bytes) -> bytes | None:
        """The value serialized anew: another program may have written it in another form, such as
        JSON with spaces. None: it cannot be read.
        """
        try:
            return self._serializer.dumps(self._serializer.loads(raw))
        except Exception:
            return None

    def _stored(self) -> Mapping[str, bytes]:
        if self._held is None:
            self._load_now()
        if self._held is None:
            raise NotLoaded("the session's attributes are not loaded: `await attributes.load()`, or `async with`")
        return self._held.values

    def _load_now(self) -> None:
        """Read them, in subclasses that may block."""


class Source(Protocol):
    """Where the attributes of sessions are read and written."""

    async def read(self, session: Session, *, seen: Position = NEVER_WRITTEN) -> StoredAttributes:
        """As stored, of version `seen` or later. TicketRefused, StoreUnavailable."""

    async def write(self, session: Session, changes: Changes, held: StoredAttributes | None) -> Saved:
        """Write changes to what was read as `held`. AttributesTooLarge, TicketRefused,
        StoreUnavailable.
        """


class Attributes(AttributeChanges):
    """The attributes of one session, for asyncio. Reading them needs `await load()` first; setting,
    `discard` and `save` do not.
    """

    def __init__(
        self, source: Source, session: Session, serializer: Serializer, seen: Position = NEVER_WRITTEN
    ) -> None:
        super().__init__(serializer)
        self._source = source
        self._session = session
        self._seen = seen

    async def __aenter__(self) -> Self:
        await self.load()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.save()

    async def load(self) -> Self:
        """Read them, once. TicketRefused: the session is over; StoreUnavailable."""
        if not self.is_loaded:
            self.hold(await self._source.read(self._session, seen=self._seen))
        return self

    async def save(self) -> bool:
        """Write what changed, in one command. False: nothing did.

        BadAttribute, AttributesTooLarge, TicketRefused (the session is over), StoreUnavailable: the
        changes are still unsaved then.
        """
        changes = self.changes()
        if changes:
            self.settle(changes, await self._source.write(self._session, changes, self._held))
        return bool(changes)


def after(held: StoredAttributes | None, changes: Changes, written: Written) -> StoredAttributes | None:
    """What the store holds after a write; None: not known, because another process had written
    since `held` was read.
    """
    if held is None or held.version != written.replaced:
        return None
    return StoredAttributes(written.version, _merged(held, changes))


def _merged(held: StoredAttributes, changes: Changes) -> Mapping[str, bytes]:
    kept = {name: raw for name, raw in held.values.items() if name not in changes.removed}
    return kept | dict(changes.values)


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"an attribute's name is a str, not {type(name).__name__}")
    try:
        size_bytes = len(name.encode())
    except UnicodeEncodeError:
        raise BadAttribute(name, "its name is not valid Unicode") from None
    if not 0 < size_bytes <= NAME_BYTES_MAX:
        raise BadAttribute(name[:40], f"a name has 1 to {NAME_BYTES_MAX} bytes of UTF-8, not {size_bytes}")
