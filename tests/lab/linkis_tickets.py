"""Apache Linkis' tickets and what it holds of them in Redis, written from what is known of Linkis,
and not from the code of fastticket: the judge of that code, and what the stand-in service runs on.

ServerConfiguration and DESUtil: how a ticket is made and read, up to 1.8.0 and later. SSOUtils:
when it is good.
"""

import base64
import hashlib
import os
import time

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

COOKIE = "linkis_user_session_ticket_id_v1"
HASH = "user_ticket_redis_key"
CRYPT_KEY = "bdp-for-server"


class IllegalTicketError(Exception):
    """SSOUtils' IllegalUserTicketException, or what javax.crypto throws."""


class LoginError(Exception):
    """SSOUtils' LoginExpireException."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def mime(data: bytes) -> str:
    """java.util.Base64.getMimeEncoder: CR LF after 76 characters, none at the end."""
    text = base64.b64encode(data).decode()
    return "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76))


def des_ecb(key: bytes) -> Cipher:
    """javax.crypto's "DES" with DESKeySpec, which looks at the first 8 bytes of a key."""
    return Cipher(TripleDES(key[:8] * 3), modes.ECB())


class Tickets:
    """How an installation makes and reads tickets. `era`: "1.8", or "later" than it."""

    def __init__(self, era: str = "1.8", crypt_key: str = CRYPT_KEY, header: str = "bfs_") -> None:
        self.era = era
        self.header = header
        raw = crypt_key.encode()
        self._des_key = mime(raw).encode() if era == "1.8" else raw
        if era == "later":
            self._aes = AESGCM(hashlib.pbkdf2_hmac("sha256", raw, b"linkis-ticket-v2", 10_000, 32))

    def make(self, user: str, login_ms: int) -> str:
        text = f"{self.header}{user},{login_ms}".encode()
        if self.era == "later":
            iv = os.urandom(12)
            return base64.b64encode(b"\x02" + iv + self._aes.encrypt(iv, text, None)).decode()
        padder, encryptor = PKCS7(64).padder(), des_ecb(self._des_key).encryptor()
        return mime(encryptor.update(padder.update(text) + padder.finalize()) + encryptor.finalize())

    def user_of(self, ticket: str) -> str:
        """IllegalTicketError."""
        try:
            sealed = base64.b64decode(ticket)  # Java's MIME decoder skips what is not base64, and so does this
            text = self._opened(sealed).decode()
        except Exception as error:
            raise IllegalTicketError(str(error)) from None
        user, comma, login = text.removeprefix(self.header).rpartition(",")
        if not text.startswith(self.header) or not comma or not login.isdecimal():
            raise IllegalTicketError("not a ticket's text")
        return user

    def _opened(self, sealed: bytes) -> bytes:
        if self.era == "later" and sealed[:1] == b"\x02":
            return self._aes.decrypt(sealed[1:13], sealed[13:], None)
        unpadder, decryptor = PKCS7(64).unpadder(), des_ecb(self._des_key).decryptor()
        return unpadder.update(decryptor.update(sealed) + decryptor.finalize()) + unpadder.finalize()


class SSOUtils:
    """Whose ticket one is, by the hash that the gateways of an installation share."""

    def __init__(self, redis, tickets: Tickets, timeout_ms: int) -> None:
        """`redis`: a client of redis.asyncio."""
        self._redis = redis
        self._tickets = tickets
        self._timeout_ms = timeout_ms

    async def set_login_user(self, user: str) -> str:
        """A new ticket."""
        ticket = self._tickets.make(user, now_ms())
        await self._redis.hset(HASH, ticket, str(now_ms()))
        return ticket

    async def remove_login_user(self, ticket: str) -> None:
        if await self._redis.hget(HASH, ticket) is not None:
            await self._redis.hdel(HASH, ticket)

    async def get_login_user(self, ticket: str) -> str:
        """LoginError, IllegalTicketError."""
        await self._check_timeout(ticket)
        return self._tickets.user_of(ticket)

    async def _check_timeout(self, ticket: str) -> None:
        if await self._redis.hget(HASH, ticket) is None:  # containsKey
            raise LoginError("You are not logged in, please login first!")
        last = int(await self._redis.hget(HASH, ticket) or 0)
        idle_ms = now_ms() - last
        if idle_ms > self._timeout_ms:
            await self._redis.hdel(HASH, ticket)
            raise LoginError("Login has expired, please log in again!")
        if idle_ms >= self._timeout_ms * 0.5:
            await self._redis.hset(HASH, ticket, str(now_ms()))
