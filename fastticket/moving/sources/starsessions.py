"""starsessions in Redis: `starsessions.<id>` is JSON, the session's dictionary with the library's
own `__metadata__`: when it was created and last used, in s, and its lifetime. The cookie is the id.

Rules of this file
- starsessions knows no user: which attribute names one has to be said.
- With `rolling` each use prolongs a session, so its lifetime is an idle timeout here; without, it
  counts from the login. A lifetime of 0, the library's default, means a cookie that ends with the
  browser: the lifetimes are then those that the caller names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastticket.moving.record import MovedSession, Skipped
from fastticket.moving.sources import id_here, is_over, shown
from fastticket.moving.sources.rediskeys import RedisStrings, Value
from fastticket.moving.sources.values import LeftBehind, Unreadable, attributes_of, principal_in, read_json
from fastticket.stores.redis.foreign import ForeignRedis

SOURCE = "starsessions"
PREFIX = "starsessions."
COOKIE = "session"
METADATA = "__metadata__"
YEAR_3000_S = 32_503_680_000


class StarSessions(RedisStrings):
    """See above. `idle_timeout_s`, `absolute_lifetime_s`: of sessions without a lifetime of their
    own; 0: none.
    """

    def __init__(
        self,
        redis: ForeignRedis,
        *,
        principals: Sequence[str],
        prefix: str = PREFIX,
        is_rolling: bool = False,
        idle_timeout_s: int = 0,
        absolute_lifetime_s: int = 0,
    ) -> None:
        super().__init__(redis, prefix)
        self.left = LeftBehind()
        self._principals = principals
        self._is_rolling = is_rolling
        self._lifetimes_s = (idle_timeout_s, absolute_lifetime_s)

    async def read_one(self, cookie: str) -> MovedSession | Skipped:
        """As a source's."""
        return await self._one(cookie)

    def _session(self, identifier: str, value: Value) -> MovedSession | Skipped:
        content = read_json(value.data)
        if not isinstance(content, dict):
            raise Unreadable("malformed")
        metadata = content.pop(METADATA, None)
        principal = principal_in(content, self._principals)
        if principal is None:
            return Skipped(shown(identifier), "anonymous")
        created_s, used_s, lifetime_s = (_time_s(metadata, name) for name in ("created", "last_access", "lifetime"))
        idle_timeout_s, absolute_lifetime_s = self._lifetimes_s
        if lifetime_s:
            whole_s = math.ceil(lifetime_s)
            idle_timeout_s, absolute_lifetime_s = (whole_s, 0) if self._is_rolling else (0, whole_s)
        session = MovedSession(
            principal,
            id_here(SOURCE, identifier),
            created_ms=int(created_s * 1000),
            last_access_ms=int(used_s * 1000),
            idle_timeout_s=idle_timeout_s,
            absolute_lifetime_s=absolute_lifetime_s,
            attributes=attributes_of(content, self.left),
        )
        return Skipped(shown(identifier), "expired") if is_over(session) else session


def _time_s(metadata: Any, name: str) -> float:
    """Unreadable: it is not there, or not a time."""
    found = metadata.get(name) if isinstance(metadata, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= YEAR_3000_S:
        raise Unreadable("bad_times")
    return found
