"""Spring Session in Redis, the indexed repository and the plain one.

    <namespace>:sessions:<id>         hash: creationTime, lastAccessedTime (ms), maxInactiveInterval
                                      (s), and sessionAttr:<name> for each attribute
    <namespace>:index:<INDEX>:<name>  set of the ids of a principal; of the indexed repository only

The cookie SESSION is the id in base64. Values are as the JVM serializes them, or JSON if the
application has set a serializer.

Rules of this file
- A principal is who an attribute names; else who is authenticated in a security context in JSON;
  else who the index says. Of two principals in the index neither is believed.
- Attributes move if they are JSON, or a text or whole number of Java.
- The index is read as a whole, when it is first needed. For a session that is not in it, it is read
  again, but not for more than a twentieth of the time. Who asks for one session, which may have
  begun a moment ago, waits for that, if it is soon: the first time, since most are of visitors.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence, Set
from typing import Any

from fastticket.errors import ConfigError
from fastticket.moving.record import MovedSession, Skipped
from fastticket.moving.sources import Begun, begun_in, begun_of, id_here, is_over, shown
from fastticket.moving.sources.javavalues import is_java, read_java
from fastticket.moving.sources.rediskeys import ID_CHARS_MAX, pages_of_keys
from fastticket.moving.sources.values import (
    ATTRIBUTES_MAX,
    VALUE_BYTES_MAX,
    LeftBehind,
    Unreadable,
    attributes_of,
    principal_in,
    principal_of,
    read_json,
)
from fastticket.stores.contract import EVERYBODY, NO_ATTRIBUTES
from fastticket.stores.redis.foreign import ForeignRedis, Refused

SOURCE = "spring"
NAMESPACE = "spring:session"  # spring.session.redis.namespace
COOKIE = "SESSION"
INDEX = "org.springframework.session.FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME"
CONTEXT = "SPRING_SECURITY_CONTEXT"
ATTRIBUTE = "sessionAttr:"
NOT_A_SESSION = "expires:"  # <namespace>:sessions:expires:<id>, beside each session
INDEXED_MAX = 2_000_000
SESSIONS_OF_ONE_MAX = 10_000
LOADING_PART = 20
LOADED_AGAIN_S = 10.0
LOADED_SOON_S = 0.25  # for a session that was never asked for
WAIT_S_MAX = 1.0
MISSING_MAX = 10_000


class SpringSessions:
    """See above. `principals`: names of attributes to look for a principal in, before the context
    and the index.
    """

    def __init__(
        self,
        redis: ForeignRedis,
        *,
        namespace: str = NAMESPACE,
        principals: Sequence[str] = (INDEX,),
        is_cookie_encoded: bool = True,
        absolute_lifetime_s: int = 0,
    ) -> None:
        self.left = LeftBehind()
        self._redis = redis
        self._prefix = f"{namespace}:sessions:"
        self._principals = principals
        self._is_cookie_encoded = is_cookie_encoded
        self._absolute_lifetime_s = absolute_lifetime_s
        self._index = _Index(redis, f"{namespace}:index:{INDEX}:")

    async def records(self) -> AsyncIterator[MovedSession | Skipped]:
        """As a source's. StoreUnavailable, ConfigError."""
        async for identifiers in pages_of_keys(self._redis, self._prefix):
            for record in await self._read([name for name in identifiers if not name.startswith(NOT_A_SESSION)]):
                yield record

    async def begun(self, principals: Set[str]) -> AsyncIterator[list[Begun]]:
        """The sessions that the index has of these principals; of EVERYBODY, all.
        StoreUnavailable.
        """
        if EVERYBODY in principals:
            async for names in pages_of_keys(self._redis, self._prefix):
                yield await self._begun([name for name in names if not name.startswith(NOT_A_SESSION)], principals)
        for principal in principals - {EVERYBODY}:
            yield await self._begun(await self._index.ids_of(principal), principals)

    async def _begun(self, identifiers: Sequence[str], principals: Set[str]) -> list[Begun]:
        return begun_of(map(begun_in, identifiers, await self._read(identifiers)), principals)

    async def read_one(self, cookie: str) -> MovedSession | Skipped:
        """As a source's."""
        identifier = identifier_in(cookie) if self._is_cookie_encoded else cookie
        if not identifier or len(identifier) > ID_CHARS_MAX:
            return Skipped(shown(cookie), "malformed")
        found = await self._hashes([identifier])
        return await self._record(identifier, found[identifier], self._index.principal_by_now)

    async def _read(self, identifiers: Sequence[str]) -> list[MovedSession | Skipped]:
        found = await self._hashes(identifiers)
        return [await self._record(name, found[name], self._index.principal_of) for name in identifiers]

    async def _hashes(self, identifiers: Sequence[str]) -> dict[str, Mapping[bytes, bytes] | str]:
        """The sessions' hashes, or why not."""
        if not identifiers:
            return {}
        found: dict[str, Mapping[bytes, bytes] | str] = {}
        sizes = await self._redis.ask([("HLEN", self._prefix + name) for name in identifiers])
        for name, size in zip(identifiers, sizes, strict=True):
            if isinstance(size, Refused):
                found[name] = "wrong_type"
            elif not 0 < size <= ATTRIBUTES_MAX:
                found[name] = "too_many_attributes" if size else "not_found"
        for name in [name for name in identifiers if name not in found]:  # one at a time: each may be large
            (pairs,) = await self._redis.ask([("HGETALL", self._prefix + name)])
            found[name] = (
                "wrong_type" if isinstance(pairs, Refused) else dict(zip(pairs[::2], pairs[1::2], strict=True))
            )
        return found

    async def _record(
        self,
        identifier: str,
        found: Mapping[bytes, bytes] | str,
        indexed: Callable[[str], Awaitable[str | None]],
    ) -> MovedSession | Skipped:
        if isinstance(found, str):
            return Skipped(shown(identifier), found)
        try:
            created_ms, used_ms, idle_s = (
                number_of(found.get(name)) for name in (b"creationTime", b"lastAccessedTime", b"maxInactiveInterval")
            )
            check_times(created_ms, used_ms, idle_s)
            content = self._content(found)
            principal = principal_in(content, self._principals) or authenticated_in(content.get(CONTEXT))
            principal = principal or await indexed(identifier)
            if principal is None:
                return Skipped(shown(identifier), "anonymous")
            attributes = attributes_of(content, self.left)
        except Unreadable as error:
            return Skipped(shown(identifier), error.reason)
        return moved(identifier, principal, (created_ms, used_ms, idle_s), self._absolute_lifetime_s, attributes)

    def _content(self, found: Mapping[bytes, bytes]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for field, data in found.items():
            name = field.decode("utf-8", "replace")
            if name.startswith(ATTRIBUTE):
                name = name.removeprefix(ATTRIBUTE)
                try:
                    content[name] = value_of(data)
                except Unreadable as error:
                    self.left.note(name, error.reason)
        return content

    async def aclose(self) -> None:
        """As a source's."""
        await self._redis.aclose()


class _Index:
    """Whose session an id is, by the sets of all principals."""

    def __init__(self, redis: ForeignRedis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._principals: dict[str, str | None] = {}  # None: two claim it
        self._began_s = 0.0  # the last reading
        self._again_at_s = 0.0
        self._soon_at_s = 0.0
        self._missing: dict[str, None] = {}  # these were asked for, and were not in it
        self._turn = asyncio.Lock()

    async def principal_of(self, identifier: str) -> str | None:
        if identifier not in self._principals and time.monotonic() >= self._again_at_s:
            await self._read()
        return self._principals.get(identifier)

    async def principal_by_now(self, identifier: str) -> str | None:
        """As `principal_of`, by a reading that begins from now on if there has to be one, and if it
        may begin within WAIT_S_MAX. One reading is for all who wait.
        """
        if identifier in self._principals or identifier in self._missing:
            return await self.principal_of(identifier)
        asked_s = time.monotonic()
        async with self._turn:
            wait_s = self._soon_at_s - time.monotonic()
            if identifier not in self._principals and self._began_s < asked_s and wait_s <= WAIT_S_MAX:
                await asyncio.sleep(max(0.0, wait_s))
                await self._read()
        if identifier not in self._principals and self._began_s >= asked_s:
            self._missing[identifier] = None
            if len(self._missing) > MISSING_MAX:
                del self._missing[next(iter(self._missing))]
        return self._principals.get(identifier)

    async def _read(self) -> None:
        self._began_s = began_s = time.monotonic()
        self._principals = await self._load()
        ended_s = time.monotonic()
        self._again_at_s = ended_s + max(LOADED_AGAIN_S, LOADING_PART * (ended_s - began_s))
        self._soon_at_s = ended_s + max(LOADED_SOON_S, LOADING_PART * (ended_s - began_s))

    async def ids_of(self, name: str) -> list[str]:
        """What its set has now, which `principal_of` knows from then on."""
        (members,) = await self._redis.ask([("SRANDMEMBER", self._prefix + name, SESSIONS_OF_ONE_MAX)])
        self._add(self._principals, name, members)
        return _identifiers(members)

    async def _load(self) -> dict[str, str | None]:
        loaded: dict[str, str | None] = {}
        async for names in pages_of_keys(self._redis, self._prefix):
            sets = await self._redis.ask([("SRANDMEMBER", self._prefix + name, SESSIONS_OF_ONE_MAX) for name in names])
            for name, members in zip(names, sets, strict=True):
                self._add(loaded, name, members)
            if len(loaded) > INDEXED_MAX:
                raise ConfigError(
                    f"the index {self._prefix}* has more than {INDEXED_MAX} sessions: name the user by --principal-attribute"
                )
        return loaded

    @staticmethod
    def _add(loaded: dict[str, str | None], name: str, members: Any) -> None:
        try:
            principal = principal_of(name)
        except Unreadable:
            return
        for identifier in _identifiers(members):
            loaded[identifier] = principal if loaded.get(identifier, principal) == principal else None


def _identifiers(members: Any) -> list[str]:
    """The ids in a set of the index."""
    identifiers = []
    for member in () if isinstance(members, Refused) else members:
        with contextlib.suppress(ValueError):
            identifiers.append(value_of(member) if is_java(member) or member[:1] == b'"' else member.decode())
    return [each for each in identifiers if isinstance(each, str)]


def check_times(created_ms: int, used_ms: int, idle_s: int) -> None:
    """Unreadable: Spring has no session with such times, or has marked it as ended."""
    if created_ms < 0 or used_ms < 0:
        raise Unreadable("bad_times")
    if idle_s == 0:
        raise Unreadable("expired")


def moved(
    identifier: str,
    principal: str,
    times: tuple[int, int, int],
    absolute_lifetime_s: int,
    attributes: Mapping[str, bytes] = NO_ATTRIBUTES,
) -> MovedSession | Skipped:
    """A session that was read; skipped if its time is over. `times`: created, last used (ms), and
    the idle timeout (s), which is none below 0.
    """
    created_ms, used_ms, idle_s = times
    session = MovedSession(
        principal,
        id_here(SOURCE, identifier),
        created_ms=created_ms,
        last_access_ms=used_ms,
        idle_timeout_s=max(0, idle_s),
        absolute_lifetime_s=absolute_lifetime_s,
        attributes=attributes,
    )
    return Skipped(shown(identifier), "expired") if is_over(session) else session


def identifier_in(cookie: str) -> str:
    """The session's id in the cookie SESSION. Empty: it is none."""
    try:
        return base64.b64decode(cookie, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def number_of(data: bytes | None) -> int:
    """A whole number of Java, or one in JSON, with its class or without. Unreadable."""
    found = value_of(data) if data and len(data) <= VALUE_BYTES_MAX else None
    if isinstance(found, list) and len(found) == 2:  # ["java.lang.Long", 1404360000000]
        found = found[1]
    if isinstance(found, bool) or not isinstance(found, int) or abs(found) >= 1 << 53:
        raise Unreadable("bad_times")
    return found


def value_of(data: bytes) -> Any:
    """A value of Java or JSON. Unreadable."""
    return read_java(data) if is_java(data) else read_json(data)


def authenticated_in(context: Any) -> str | None:
    """The name in a Spring Security context in JSON. None: it says of nobody that they are
    authenticated. Unreadable.
    """
    authentication = context.get("authentication") if isinstance(context, dict) else None
    if not isinstance(authentication, dict) or authentication.get("authenticated") is not True:
        return None
    if isinstance(authentication.get("principal"), str):
        return principal_of(authentication["principal"])
    return principal_in(authentication, ("principal.username", "principal.name", "name"))
