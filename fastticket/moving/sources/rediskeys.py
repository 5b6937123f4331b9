"""Sessions that are keys in Redis: one key a session, under a prefix."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence, Set
from typing import NamedTuple

from fastticket.moving.record import MovedSession, Skipped
from fastticket.moving.sources import Begun, begun_in, begun_of, shown
from fastticket.moving.sources.values import VALUE_BYTES_MAX, Unreadable
from fastticket.stores.redis.foreign import ForeignRedis, Refused

PAGE_KEYS = 200
ID_CHARS_MAX = 512


class Value(NamedTuple):
    """A string in Redis."""

    data: bytes
    left_ms: int  #: until the key goes; -1: it stays


class RedisStrings:
    """A source whose sessions are strings. Subclasses say what is in one."""

    def __init__(self, redis: ForeignRedis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix

    def _session(self, identifier: str, value: Value) -> MovedSession | Skipped:
        """What is in the value. Unreadable."""
        raise NotImplementedError

    async def records(self) -> AsyncIterator[MovedSession | Skipped]:
        """As a source's. StoreUnavailable."""
        async for identifiers in pages_of_keys(self._redis, self._prefix):
            for record in await self._read(identifiers):
                yield record

    async def begun(self, principals: Set[str]) -> AsyncIterator[list[Begun]]:
        """The sessions of these principals, or of EVERYBODY, that say when they began: it goes
        through all. StoreUnavailable.
        """
        async for identifiers in pages_of_keys(self._redis, self._prefix):
            yield begun_of(map(begun_in, identifiers, await self._read(identifiers)), principals)

    async def _one(self, identifier: str) -> MovedSession | Skipped:
        if len(identifier) > ID_CHARS_MAX:
            return Skipped(shown(identifier), "malformed")
        return (await self._read([identifier]))[0]

    async def _read(self, identifiers: Sequence[str]) -> list[MovedSession | Skipped]:
        if not identifiers:
            return []
        replies = await self._redis.ask(
            [
                command
                for name in identifiers
                for command in (
                    ("GETRANGE", self._prefix + name, 0, VALUE_BYTES_MAX),
                    ("PTTL", self._prefix + name),
                )
            ]
        )
        return [self._record(*each) for each in zip(identifiers, replies[::2], replies[1::2], strict=True)]

    def _record(self, identifier: str, data: bytes | Refused, left_ms: int | Refused) -> MovedSession | Skipped:
        if isinstance(data, Refused) or isinstance(left_ms, Refused):
            return Skipped(shown(identifier), "wrong_type")
        if not data:
            return Skipped(shown(identifier), "not_found")
        try:
            return self._session(identifier, Value(data, left_ms))
        except Unreadable as error:
            return Skipped(shown(identifier), error.reason)

    async def aclose(self) -> None:
        """As a source's."""
        await self._redis.aclose()


async def pages_of_keys(redis: ForeignRedis, prefix: str) -> AsyncIterator[list[str]]:
    """What follows the prefix in the keys, some at a time. StoreUnavailable."""
    cursor, begins = "", True
    while begins or cursor:
        begins = False
        cursor, keys = await redis.scan(_literal(prefix) + "*", cursor, PAGE_KEYS)
        names = (key.removeprefix(prefix.encode()) for key in keys)
        yield list(dict.fromkeys(name.decode() for name in names if _is_text(name)))


def _literal(text: str) -> str:
    """The text as a pattern of Redis that matches only it."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def _is_text(name: bytes) -> bool:
    try:
        return 0 < len(name.decode()) <= ID_CHARS_MAX
    except UnicodeDecodeError:
        return False
