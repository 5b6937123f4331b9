"""The stores of other systems, while their sessions go on here: what is read of a session, whether
it is still there, and the two things that are written there.

    LinkisHash    one hash: field = the whole ticket, value = last use, ms
    SpringHashes  a hash a session, and a key that expires (springstore.py)
    Strings       a string a session, which expires: Flask-Session, starsessions, oauth2-proxy

Rules of this file
- Nothing is written that brings a session back: last uses are moved by scripts that look first, and
  only forward.
- Each call is bounded: PIECE sessions a command.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Any, NamedTuple, Protocol

from fastticket.errors import OldStoreUnavailable
from fastticket.moving.formats.linkis_ticket import LinkisTickets, TicketFormat, hash_fields, unbroken
from fastticket.moving.record import MovedSession, Skipped
from fastticket.moving.sources import Begun
from fastticket.moving.sources.linkis import HASH, IDLE_TIMEOUT_S, LinkisSessions
from fastticket.stores.redis.foreign import ForeignRedis, Refused

PIECE = 200  # sessions in one command or script: a fraction of a millisecond of the old store
DIGITS_MAX = 15  # of a time in ms

KEEP_IN_HASH = """
local kept = 0
for at = 1, #ARGV, 2 do
  local seen = redis.call('HGET', KEYS[1], ARGV[at])
  if seen and tonumber(seen) and tonumber(seen) < tonumber(ARGV[at + 1]) then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
    kept = kept + 1
  end
end
return kept
"""
KEEP_STRINGS = """
local kept = 0
for at = 1, #KEYS do
  local left = redis.call('PTTL', KEYS[at])
  if left >= 0 and left < tonumber(ARGV[at]) then
    redis.call('PEXPIRE', KEYS[at], ARGV[at])
    kept = kept + 1
  end
end
return kept
"""


class Seen(NamedTuple):
    """A session that is there."""

    used_ms: int  #: its last use
    idle_timeout_s: int  #: its own, for which a use there prolongs it; 0: it ends by none

    def is_over(self, now_ms: int) -> bool:
        """Whether it has idled out by now, if nobody has used it since."""
        return 0 < self.idle_timeout_s * 1000 < now_ms - self.used_ms


FindBegun = Callable[[Set[str]], AsyncIterator[list[Begun]]]


class Reader(Protocol):
    """What reads one session of a source."""

    async def read_one(self, cookie: str) -> MovedSession | Skipped:
        """The session of a cookie, or why there is none. StoreUnavailable."""


class OldStore(Protocol):
    """Of one `[[migration]]`. Every call but `identify` may be StoreUnavailable. Ids are those of
    `identify`.
    """

    source: str
    #: The sessions of some principals, or of EVERYBODY, some at a time; None: it cannot tell which
    #: they are, or when they began.
    begun: FindBegun | None

    def identify(self, cookie: str) -> str:
        """What names the session of a cookie here; empty: it is not in the source's form, or not
        made with its key. Raises nothing.
        """

    def fault(self, cookie: str) -> str:
        """Why `identify` finds nothing in it: `forged`, `expired`. Raises nothing."""

    async def read(self, cookie: str) -> MovedSession | Skipped:
        """The session of a cookie, if it lives."""

    async def uses(self, old_ids: Sequence[str]) -> list[Seen | None]:
        """What each is like; None: there is no such session (any more)."""

    async def keep(self, uses: Mapping[str, Seen]) -> int:
        """Move last uses on to these, of those that are there. How many it were."""

    async def end(self, old_ids: Sequence[str]) -> None:
        """End sessions. Idempotent."""

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""


class LinkisHash:
    """Apache Linkis' hash."""

    source = "linkis"

    def __init__(
        self, redis: ForeignRedis, reader: LinkisSessions, tickets: LinkisTickets, idle_timeout_s: int
    ) -> None:
        self.idle_timeout_s = idle_timeout_s
        self.begun: FindBegun | None = reader.begun
        self._redis = redis
        self._reader = reader
        self._tickets = tickets

    def identify(self, cookie: str) -> str:
        """The ticket itself."""
        return unbroken(cookie) if self._tickets.open(cookie) else ""

    def fault(self, cookie: str) -> str:
        """A ticket says no end."""
        return "forged"

    async def read(self, cookie: str) -> MovedSession | Skipped:
        """`HGET`."""
        return await self._reader.read_one(cookie)

    async def uses(self, old_ids: Sequence[str]) -> list[Seen | None]:
        """`HMGET`. Nothing there says what the idle timeout is: if ours is the longer one, it may
        be Linkis' usual one.
        """
        fields = [hash_fields(old_id) for old_id in old_ids]
        flat = [field for of_one in fields for field in of_one]
        replies = await ask(self._redis, [("HMGET", HASH, *piece) for piece in pieces(flat)])
        values = iter([value for reply in replies for value in reply])
        found = [max(map(_time_ms, islice(values, len(of_one))), default=None, key=_or_zero) for of_one in fields]
        idle_timeout_s = min(self.idle_timeout_s, IDLE_TIMEOUT_S)
        return [None if used_ms is None else Seen(used_ms, idle_timeout_s) for used_ms in found]

    async def keep(self, uses: Mapping[str, Seen]) -> int:
        """A script a piece."""
        pairs = [(field, seen.used_ms) for old_id, seen in uses.items() for field in hash_fields(old_id)]
        commands = [
            ("EVAL", KEEP_IN_HASH, 1, HASH, *(word for pair in piece for word in pair)) for piece in pieces(pairs)
        ]
        return sum(await ask(self._redis, commands))

    async def end(self, old_ids: Sequence[str]) -> None:
        """`HDEL`."""
        fields = [field for old_id in old_ids for field in hash_fields(old_id)]
        await ask(self._redis, [("HDEL", HASH, *piece) for piece in pieces(fields)])

    async def make(
        self, principal: str, login_ms: int, kind: TicketFormat, used_ms: int, *, is_of_token: bool = False
    ) -> str:
        """A ticket for a session of ours, or for a program's token, which the hash has from now on:
        `HSETNX`.
        """
        ticket = unbroken(self._tickets.seal_minted(principal, login_ms, kind, is_of_token=is_of_token))
        await ask(self._redis, [("HSETNX", HASH, ticket, used_ms)])
        return ticket

    async def aclose(self) -> None:
        """As an old store's."""
        await self._redis.aclose()


class Strings:
    """A key a session, which expires an idle timeout after each use. `identify`: the id in a
    cookie.
    """

    def __init__(
        self,
        source: str,
        redis: ForeignRedis,
        reader: Reader,
        *,
        prefix: str,
        idle_timeout_s: int,
        identify: Callable[[str], str],
        now_ms: Callable[[], int],
        begun: FindBegun | None = None,
        fault: Callable[[str], str] = lambda _: "forged",
    ) -> None:
        self.source = source
        self.begun = begun
        self.identify = identify
        self.fault = fault
        self._redis = redis
        self._reader = reader
        self._prefix = prefix
        self._idle_timeout_s = idle_timeout_s
        self._now_ms = now_ms

    async def read(self, cookie: str) -> MovedSession | Skipped:
        """By the source's reader."""
        return await self._reader.read_one(cookie)

    async def uses(self, old_ids: Sequence[str]) -> list[Seen | None]:
        """`PTTL`: the last use is an idle timeout before the end."""
        now_ms = self._now_ms()
        replies = await ask(self._redis, [("PTTL", self._prefix + old_id) for old_id in old_ids])
        return [
            None
            if left_ms == -2
            else Seen(now_ms, 0)
            if left_ms < 0
            else Seen(now_ms + left_ms - self._idle_timeout_s * 1000, self._idle_timeout_s)
            for left_ms in replies
        ]

    async def keep(self, uses: Mapping[str, Seen]) -> int:
        """A script a piece; a key without an end has none."""
        now_ms = self._now_ms()
        lefts = [
            (self._prefix + old_id, seen.used_ms + seen.idle_timeout_s * 1000 - now_ms) for old_id, seen in uses.items()
        ]
        alive = [(key, left_ms) for key, left_ms in lefts if left_ms > 0]
        return sum(
            await ask(
                self._redis,
                [
                    ("EVAL", KEEP_STRINGS, len(piece), *(key for key, _ in piece), *(left_ms for _, left_ms in piece))
                    for piece in pieces(alive)
                ],
            )
        )

    async def end(self, old_ids: Sequence[str]) -> None:
        """`DEL`."""
        await ask(self._redis, [("DEL", *piece) for piece in pieces([self._prefix + old_id for old_id in old_ids])])

    async def aclose(self) -> None:
        """As an old store's."""
        await self._redis.aclose()


async def ask(redis: ForeignRedis, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The replies. A refusal, which has another cause than a session, is StoreUnavailable."""
    replies = await redis.ask(commands) if commands else []
    for reply in replies:
        if isinstance(reply, Refused):
            raise OldStoreUnavailable(f"{redis.shown}: {type(reply).__name__}")
    return replies


def pieces(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Of PIECE each."""
    return (items[first : first + PIECE] for first in range(0, len(items), PIECE))


def _time_ms(value: bytes | None) -> int | None:
    """None: no such session. A value that is no time is one that was never used."""
    if value is None:
        return None
    return int(value) if value.isdigit() and len(value) <= DIGITS_MAX else 0


def _or_zero(value: int | None) -> int:
    return -1 if value is None else value
