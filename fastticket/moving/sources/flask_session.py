"""Flask-Session in Redis: `session:<id>` is the session's dictionary, in msgpack (0.7 and later) or
JSON. The cookie is the id; with SESSION_USE_SIGNER, which is deprecated, "id.signature".

Rules of this file
- Versions before 0.7 pickled sessions, and later ones still read those. Here they are skipped:
  reading them would run what is in them.
- Nothing says when a session was used. Each request sets the key's time to live to
  PERMANENT_SESSION_LIFETIME, so the last use is that long before the key's end; the session is
  taken to have begun then, and said not to say when it began (`says_began`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

from fastticket.moving.record import MovedSession, Skipped
from fastticket.moving.sources import id_here, now_ms, shown
from fastticket.moving.sources.rediskeys import RedisStrings, Value
from fastticket.moving.sources.values import (
    LeftBehind,
    Unreadable,
    attributes_of,
    principal_in,
    read_json,
    read_msgpack,
)
from fastticket.stores.redis.foreign import ForeignRedis

SOURCE = "flask-session"
PREFIX = "session:"  # SESSION_KEY_PREFIX
COOKIE = "session"
LIFETIME_S = 31 * 86_400  # PERMANENT_SESSION_LIFETIME
PRINCIPALS = ("_user_id",)  # Flask-Login's
SALT = b"flask-session"
NOT_MOVED = "_permanent"  # Flask's: whether the cookie outlives the browser, which the cookie says
_JSON_BEGINS = b"{ \t\r\n"
_PICKLE = b"\x80"  # PROTO, from protocol 2 on; a map without entries in msgpack, where nothing follows


class FlaskSessions(RedisStrings):
    """See above. `secret_key`: to check signed cookies with; empty: they are not signed."""

    def __init__(
        self,
        redis: ForeignRedis,
        *,
        prefix: str = PREFIX,
        principals: Sequence[str] = PRINCIPALS,
        idle_timeout_s: int = LIFETIME_S,
        absolute_lifetime_s: int = 0,
        secret_key: str = "",
    ) -> None:
        super().__init__(redis, prefix)
        self.left = LeftBehind()
        self._principals = principals
        self._lifetimes_s = (idle_timeout_s, absolute_lifetime_s)
        self._secret_key = secret_key

    async def read_one(self, cookie: str) -> MovedSession | Skipped:
        """As a source's."""
        identifier = unsigned(cookie, self._secret_key) if self._secret_key else cookie
        return Skipped(shown(cookie), "forged") if identifier is None else await self._one(identifier)

    def _session(self, identifier: str, value: Value) -> MovedSession | Skipped:
        content = read_content(value.data)
        principal = principal_in(content, self._principals)
        if principal is None:
            return Skipped(shown(identifier), "anonymous")
        idle_timeout_s, absolute_lifetime_s = self._lifetimes_s
        used_ms = now_ms()
        if value.left_ms >= 0 and idle_timeout_s:
            used_ms = min(used_ms, used_ms + value.left_ms - idle_timeout_s * 1000)
        moving = {name: held for name, held in content.items() if name != NOT_MOVED}
        return MovedSession(
            principal,
            id_here(SOURCE, identifier),
            created_ms=used_ms,
            last_access_ms=used_ms,
            idle_timeout_s=idle_timeout_s,
            absolute_lifetime_s=absolute_lifetime_s,
            attributes=attributes_of(moving, self.left),
            says_began=False,
        )


def read_content(data: bytes) -> dict[object, object]:
    """A session's dictionary. Unreadable."""
    if data[:1] in _JSON_BEGINS:
        content = read_json(data)
    elif data[:1] == _PICKLE and len(data) > 1:
        raise Unreadable("pickled")
    else:
        content = read_msgpack(data)
    if not isinstance(content, dict):
        raise Unreadable("malformed")
    return content


def unsigned(cookie: str, secret_key: str) -> str | None:
    """The id in a signed cookie: itsdangerous' `Signer(secret_key, salt="flask-session",
    key_derivation="hmac")`. None: the signature is not of this key.
    """
    identifier, dot, signature = cookie.rpartition(".")
    key = hmac.new(secret_key.encode(), SALT, hashlib.sha1).digest()
    made = base64.urlsafe_b64encode(hmac.new(key, identifier.encode("utf-8", "replace"), hashlib.sha1).digest())
    is_genuine = hmac.compare_digest(made.rstrip(b"="), signature.encode("utf-8", "replace"))
    return identifier if dot and is_genuine else None
