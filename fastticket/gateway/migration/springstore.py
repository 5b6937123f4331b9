"""Spring Session's sessions in Redis, while they go on here: a hash each, with when it was last
used as the JVM serializes it or as JSON, and beside it, with the indexed repository, a key that
expires with the session.

Rules of this file
- Only what Spring itself would write is written: its own bytes of a number with another number, and
  the times to live that it gives. Nothing is written where the hash has gone.
- The end is as Spring's: the expiring key goes, which its listeners hear of; the hash says that its
  session is over, and goes five minutes later, so that Spring can still clear its index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fastticket.gateway.migration.oldstores import FindBegun, Seen, ask, pieces
from fastticket.moving.record import MovedSession, Skipped
from fastticket.moving.sources.spring import SOURCE, SpringSessions, identifier_in, number_of
from fastticket.moving.sources.values import Unreadable
from fastticket.stores.redis.foreign import ForeignRedis

AFTER_S = 300  # for which the hash of an indexed session outlives it
FIELDS = ("lastAccessedTime", "maxInactiveInterval")

# The last bytes of a serialized Long or Integer are its value, big endian.
KEEP = """
local kept = 0
for at = 1, #KEYS, 2 do
  local seen = redis.call('HGET', KEYS[at], 'lastAccessedTime')
  local first = 2 * at - 1
  local digits, packed, left_ms, after_ms = ARGV[first], ARGV[first + 1], ARGV[first + 2], ARGV[first + 3]
  local made
  if seen and string.sub(seen, 1, 4) == '\\172\\237\\0\\5' and #seen > 20 then
    if string.sub(seen, -8) < packed then made = string.sub(seen, 1, -9) .. packed end
  elseif seen and tonumber(seen) and tonumber(seen) < tonumber(digits) then
    made = digits
  end
  if made then
    redis.call('HSET', KEYS[at], 'lastAccessedTime', made)
    local is_indexed = redis.call('EXISTS', KEYS[at + 1]) == 1
    if redis.call('PTTL', KEYS[at]) >= 0 then redis.call('PEXPIRE', KEYS[at], is_indexed and after_ms or left_ms) end
    if is_indexed then redis.call('PEXPIRE', KEYS[at + 1], left_ms) end
    kept = kept + 1
  end
end
return kept
"""
END = """
for at = 1, #KEYS, 2 do
  local was_indexed = redis.call('DEL', KEYS[at + 1]) == 1
  local interval = redis.call('HGET', KEYS[at], 'maxInactiveInterval')
  if was_indexed and interval then
    local is_java = string.sub(interval, 1, 4) == '\\172\\237\\0\\5' and #interval > 20
    redis.call('HSET', KEYS[at], 'maxInactiveInterval', is_java and string.sub(interval, 1, -5) .. '\\0\\0\\0\\0' or '0')
    redis.call('EXPIRE', KEYS[at], ARGV[1])
  else
    redis.call('DEL', KEYS[at])
  end
end
return 0
"""


class SpringHashes:
    """An old store. Ids are Spring's own."""

    source = SOURCE

    def __init__(
        self,
        redis: ForeignRedis,
        reader: SpringSessions,
        namespace: str,
        now_ms: Callable[[], int],
    ) -> None:
        self.begun: FindBegun | None = reader.begun
        self._redis = redis
        self._reader = reader
        self._prefix = f"{namespace}:sessions:"
        self._now_ms = now_ms

    def identify(self, cookie: str) -> str:
        """The cookie is the id in base64."""
        return identifier_in(cookie)

    def fault(self, cookie: str) -> str:
        """A cookie says no end."""
        return "forged"

    async def read(self, cookie: str) -> MovedSession | Skipped:
        """By the source's reader."""
        return await self._reader.read_one(cookie)

    async def uses(self, old_ids: Sequence[str]) -> list[Seen | None]:
        """`HMGET`."""
        now_ms = self._now_ms()
        replies = await ask(self._redis, [("HMGET", self._prefix + old_id, *FIELDS) for old_id in old_ids])
        return [_seen(used, interval, now_ms) for used, interval in replies]

    async def keep(self, uses: Mapping[str, Seen]) -> int:
        """A script a piece."""
        commands = []
        for piece in pieces(list(uses.items())):
            words: list[str | bytes | int] = []
            for _, (used_ms, idle_timeout_s) in piece:
                left_ms = max(1, used_ms + idle_timeout_s * 1000 - self._now_ms())
                words += [str(used_ms), used_ms.to_bytes(8, "big"), left_ms, left_ms + AFTER_S * 1000]
            keys = self._keys([old_id for old_id, _ in piece])
            commands.append(("EVAL", KEEP, len(keys), *keys, *words))
        return sum(await ask(self._redis, commands))

    async def end(self, old_ids: Sequence[str]) -> None:
        """A script a piece."""
        commands = []
        for piece in pieces(old_ids):
            keys = self._keys(piece)
            commands.append(("EVAL", END, len(keys), *keys, AFTER_S))
        await ask(self._redis, commands)

    async def aclose(self) -> None:
        """As an old store's."""
        await self._redis.aclose()

    def _keys(self, old_ids: Sequence[str]) -> list[str]:
        return [key for each in old_ids for key in (f"{self._prefix}{each}", f"{self._prefix}expires:{each}")]


def _seen(used: bytes | None, interval: bytes | None, now_ms: int) -> Seen | None:
    """None: there is no such session, or it is over."""
    if used is None:
        return None
    try:
        seen = Seen(number_of(used), number_of(interval))
    except Unreadable:
        return Seen(now_ms, 0)  # it is there; the reader has found it good
    return (
        None
        if seen.idle_timeout_s == 0 or seen.is_over(now_ms)
        else seen._replace(idle_timeout_s=max(0, seen.idle_timeout_s))
    )
