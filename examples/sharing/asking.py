"""Sessions in Redis that is asked on every request: the commands that four programs send for each
request.

Session ids are fastticket's, so that all four are asked the same. No values are stored: the count
is the price of knowing that a session is alive, and of keeping it alive.
"""

from __future__ import annotations

import time

import redis

IDLE_TIMEOUT_S = 7200


class EveryRequest:
    """One way to keep sessions in the Redis at that socket."""

    def __init__(self, path: str) -> None:
        self._redis = redis.Redis(unix_socket_path=path)

    def begin(self, session_id: str) -> None:
        raise NotImplementedError

    def is_alive(self, session_id: str) -> bool:
        """Whether the session is alive; counts as use, so its idle deadline moves."""
        raise NotImplementedError

    def end(self, session_id: str) -> None:
        raise NotImplementedError


class GetExpire(EveryRequest):
    """The minimum that can revoke and that notices use."""

    def begin(self, session_id: str) -> None:
        self._redis.set(f"session:{session_id}", "x", ex=IDLE_TIMEOUT_S)

    def is_alive(self, session_id: str) -> bool:
        if self._redis.get(f"session:{session_id}") is None:
            return False
        self._redis.expire(f"session:{session_id}", IDLE_TIMEOUT_S)
        return True

    def end(self, session_id: str) -> None:
        self._redis.delete(f"session:{session_id}")


class Linkis(EveryRequest):
    """One hash of all tickets: field -> last access, ms. Each request reads it twice, and writes it
    once in half the idle timeout.
    """

    KEY = "user_ticket_redis_key"

    def begin(self, session_id: str) -> None:
        self._write(session_id)

    def is_alive(self, session_id: str) -> bool:
        self._read(session_id)
        last_access_ms = self._read(session_id)
        if last_access_ms is None:
            return False
        if _now_ms() - int(last_access_ms) > IDLE_TIMEOUT_S * 1000 / 2:
            self._write(session_id)
        return True

    def end(self, session_id: str) -> None:
        self._redis.hdel(self.KEY, session_id)

    def _read(self, session_id: str) -> bytes | None:
        return self._redis.hget(self.KEY, session_id)

    def _write(self, session_id: str) -> None:
        self._redis.hset(self.KEY, session_id, str(_now_ms()))


class LinkisPool(Linkis):
    """The same, with the tests of its pool: one when a connection is borrowed, one when it is
    returned.
    """

    def _read(self, session_id: str) -> bytes | None:
        self._redis.ping()
        found = super()._read(session_id)
        self._redis.ping()
        return found


class SpringSession(EveryRequest):
    """The seven commands of RedisIndexedSessionRepository for a session that is read and used."""

    def begin(self, session_id: str) -> None:
        self._redis.hset(_key(session_id), "creationTime", str(_now_ms()))
        self._touch(session_id)

    def is_alive(self, session_id: str) -> bool:
        if not self._redis.hgetall(_key(session_id)):
            return False
        self._touch(session_id)
        return True

    def end(self, session_id: str) -> None:
        self._redis.delete(_key(session_id), f"spring:session:sessions:expires:{session_id}")

    def _touch(self, session_id: str) -> None:
        now_ms, member = _now_ms(), f"expires:{session_id}"
        minute_ms = now_ms // 60_000 * 60_000 + IDLE_TIMEOUT_S * 1000
        expirations = f"spring:session:expirations:{minute_ms}"
        self._redis.hset(_key(session_id), "lastAccessedTime", str(now_ms))
        self._redis.srem(f"spring:session:expirations:{minute_ms - 60_000}", member)
        self._redis.sadd(expirations, member)
        self._redis.expire(expirations, IDLE_TIMEOUT_S + 300)
        self._redis.set(f"spring:session:sessions:expires:{session_id}", "", ex=IDLE_TIMEOUT_S)
        self._redis.expire(_key(session_id), IDLE_TIMEOUT_S + 300)


PATTERNS = {
    "GET, EXPIRE": GetExpire,
    "Linkis": Linkis,
    "Linkis, pool tests counted": LinkisPool,
    "Spring Session, indexed": SpringSession,
}


def _key(session_id: str) -> str:
    return f"spring:session:sessions:{session_id}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
