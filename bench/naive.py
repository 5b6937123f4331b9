"""The naive path, done well: every request asks Redis, awaited, before it is forwarded.

    python bench/naive.py UPSTREAM-PORT REDIS-PORT KEYS [--pattern get-expire | linkis | spring]

uvloop, one Protocol a connection, llhttp (httptools) for parsing, pooled keep-alive connections
upstream, one pooled redis-py client with hiredis. The ticket is verified in Python with `hmac` on
each request. Serves GET, answers without a body or with Content-Length: what the benchmark asks
for, no more. Prints {"listening": PORT}. Tickets are fastticket's own, so that both are asked the
same.

    get-expire  GET session, EXPIRE session: the smallest that revokes and slides
    linkis      HGET, HGET of one hash, ticket -> last access; its HSET at half the idle timeout is
                left out
    spring      what RedisIndexedSessionRepository sends for a session that is read and touched:
                seven commands
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import time
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httptools
import redis.asyncio
import uvloop

IDLE_TIMEOUT_S = 7200
UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


def signing_keys(path: Path) -> dict[int, bytes]:
    """HKDF-SHA-256, as docs/reference/ticket-format.md says."""
    found = {}
    for key in tomllib.loads(path.read_text())["key"]:
        secret = base64.urlsafe_b64decode(key["secret"] + "==")
        extracted = hmac.digest(bytes(32), secret, hashlib.sha256)
        found[key["id"]] = hmac.digest(extracted, b"fastticket/1/default\x01", hashlib.sha256)
    return found


class Sessions:
    """The store, asked on every request."""

    def __init__(self, client: redis.asyncio.Redis, keys: dict[int, bytes], pattern: str) -> None:
        self._redis = client
        self._keys = keys
        patterns: dict[str, Callable[[str], Awaitable[bool]]] = {
            "get-expire": self._get_expire,
            "linkis": self._linkis,
            "spring": self._spring,
        }
        self._is_alive = patterns[pattern]

    async def principal(self, ticket: str) -> str | None:
        """None: not authentic, or over."""
        raw = base64.urlsafe_b64decode(ticket + "==")
        key = self._keys.get(raw[1])
        if key is None or not hmac.compare_digest(hmac.digest(key, raw[:-32], hashlib.sha256), raw[-32:]):
            return None
        if not await self._is_alive(raw[2:18].hex()):
            return None
        return raw[33 : 33 + raw[32]].decode()

    async def _get_expire(self, session_id: str) -> bool:
        if await self._redis.get(f"session:{session_id}") is None:
            return False
        await self._redis.expire(f"session:{session_id}", IDLE_TIMEOUT_S)
        return True

    async def _linkis(self, session_id: str) -> bool:
        for _ in range(2):
            if await self._redis.hget("user_ticket_redis_key", session_id) is None:
                return False
        return True

    async def _spring(self, session_id: str) -> bool:
        key, now_ms = f"spring:session:sessions:{session_id}", int(time.time() * 1000)
        minute_ms = now_ms // 60_000 * 60_000 + IDLE_TIMEOUT_S * 1000
        if not await self._redis.hgetall(key):
            return False
        await self._redis.hset(key, "lastAccessedTime", str(now_ms))
        await self._redis.srem(f"spring:session:expirations:{minute_ms - 60_000}", f"expires:{session_id}")
        await self._redis.sadd(f"spring:session:expirations:{minute_ms}", f"expires:{session_id}")
        await self._redis.expire(f"spring:session:expirations:{minute_ms}", IDLE_TIMEOUT_S + 300)
        await self._redis.set(f"spring:session:sessions:expires:{session_id}", "", ex=IDLE_TIMEOUT_S)
        await self._redis.expire(key, IDLE_TIMEOUT_S + 300)
        return True


class Upstream(asyncio.Protocol):
    """One pooled connection; one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    async def ask(self, request: bytes) -> bytes:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n") + 4
        if head_end < 4:
            return
        length_at = self._buffer.find(b"Content-Length: ", 0, head_end)
        length = int(self._buffer[length_at + 16 : self._buffer.index(b"\r", length_at)]) if length_at >= 0 else 0
        if len(self._buffer) >= head_end + length and self._answer:
            answer, self._buffer = self._buffer[: head_end + length], self._buffer[head_end + length :]
            self._answer.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the upstream closed its connection"))


class Downstream(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, sessions: Sessions, upstream_port: int, pool: list[Upstream]) -> None:
        self._sessions = sessions
        self._upstream_port = upstream_port
        self._pool = pool
        self._parser = httptools.HttpRequestParser(self)
        self._fields: list[tuple[bytes, bytes]] = []
        self._target = b""
        self._transport: Any = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_message_complete(self) -> None:
        target, fields = self._target, self._fields
        self._target, self._fields = b"", []
        task = asyncio.get_running_loop().create_task(self._serve(target, fields))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, target: bytes, fields: list[tuple[bytes, bytes]]) -> None:
        cookies = b"; ".join(value for name, value in fields if name.lower() == b"cookie").split(b"; ")
        ticket = next((cookie[7:].decode() for cookie in cookies if cookie.startswith(b"ticket=")), "")
        principal = await self._sessions.principal(ticket) if ticket else None
        if principal is None:
            self._transport.write(UNAUTHORIZED)
            return
        lines = [
            b"%s: %s\r\n" % field for field in fields if field[0].lower() not in (b"connection", b"x-forwarded-user")
        ]
        request = b"GET %s HTTP/1.1\r\n%sX-Forwarded-User: %s\r\n\r\n" % (target, b"".join(lines), principal.encode())
        upstream = await self._connection()
        self._transport.write(await upstream.ask(request))
        self._pool.append(upstream)

    async def _connection(self) -> Upstream:
        if self._pool:
            return self._pool.pop()
        _, upstream = await asyncio.get_running_loop().create_connection(Upstream, "127.0.0.1", self._upstream_port)
        return upstream


async def serve(options: argparse.Namespace) -> None:
    client = redis.asyncio.Redis(port=options.redis_port, protocol=2)
    sessions = Sessions(client, signing_keys(options.keys), options.pattern)
    pool: list[Upstream] = []
    server = await asyncio.get_running_loop().create_server(
        lambda: Downstream(sessions, options.upstream_port, pool), "127.0.0.1", 0, backlog=4096
    )
    print(json.dumps({"listening": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="A gateway that asks Redis on every request.")
    parser.add_argument("upstream_port", type=int)
    parser.add_argument("redis_port", type=int)
    parser.add_argument("keys", type=Path)
    parser.add_argument("--pattern", choices=("get-expire", "linkis", "spring"), default="get-expire")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
