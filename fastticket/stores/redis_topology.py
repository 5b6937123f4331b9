"""Which Redis server serves which shard, and how it is reached: one server, Sentinel's master, or a Cluster's primaries.

    URL ──► parse_url ──► Address ──► Single | Sentinel | Cluster ──► Server ──► a pool of redis.asyncio's connections

Rules of this file
- A server is called with a whole pipeline at once, in at most `timeout_s`, through its breaker.
- A connection on which anything but a reply happened is closed: the next one to use it would read the answer to another question.
- Whoever connects to another server than before (by its run id) says so to `on_change`: its data may be older.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hiredis
import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, SentinelConnectionPool
from redis.asyncio.sentinel import Sentinel as SentinelClient
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from fastticket.errors import ConfigError, StoreUnavailable
from fastticket.stores.breaker import Breaker

log = logging.getLogger("fastticket.redis")

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")

Command = Sequence[Any]  # its name, then bytes, str and int

REDIS_PORT = 6379
SENTINEL_PORT = 26379
VERSION_MIN = (7, 0)
CONNECTIONS_MAX = 8  # to one server, which serves one command at a time; a call waits for its turn
SLOTS_FRESH_S = 0.1  # a Cluster is asked for its slots no more often
TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: What a server answers that has another, or none, to serve in its place: it is as good as away.
AWAY = (ReadOnlyError, MasterDownError, BusyLoadingError)


@dataclass(frozen=True)
class Address:
    """A store's URL in parts. Secrets stay out of its repr."""

    kind: str  #: single, unix, sentinel or cluster
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""  #: of a Unix socket
    master: str = ""  #: Sentinel's name of it
    db: int = 0
    tls: bool = False
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls_files: tuple[tuple[str, str], ...] = ()
    shards: int = 16
    timeout_s: float = 1.0
    is_replicated: bool = False  #: writes that must last wait for a replica


def parse_url(url: str, base: Path) -> Address:
    """The parts of a URL. ConfigError, which repeats no secret."""
    # By hand: urlsplit refuses several hosts, one of them in brackets, since a security release of Python.
    full_scheme, _, rest = url.partition("://")
    rest, hash_sign, _ = rest.partition("#")
    place, _, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    if hash_sign:
        raise ConfigError("store url: can not be read; write what is special in a name or password as %XX")
    if full_scheme.lower() not in SCHEMES:
        raise ConfigError(f"store url: {full_scheme}: no such kind of Redis")
    scheme, _, kind = full_scheme.lower().partition("+")
    credentials, _, where = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    options = _options(query)
    values: dict[str, Any] = {
        "kind": "unix" if scheme == "unix" else kind or "single",
        "tls": scheme == "rediss",
        "username": urllib.parse.unquote(username) or None,
        "password": urllib.parse.unquote(password) or None,
        "sentinel_username": options.pop("sentinel_username", None),
        "sentinel_password": options.pop("sentinel_password", None),
        "tls_files": tuple((name, str(base / options.pop(name))) for name in TLS_OPTIONS if name in options),
        "shards": _whole(options.pop("shards", "16"), "shards", 1, 4096),
        "timeout_s": _whole(options.pop("timeout_ms", "1000"), "timeout_ms", 10, 60_000) / 1000,
        "is_replicated": _durability(options.pop("durability", "primary")),
    }
    path = urllib.parse.unquote(slash + path)
    if kind == "sentinel":
        master, _, db = path.strip("/").partition("/")
        if not master:
            raise ConfigError("store url: redis+sentinel: write the master's name after the hosts, as in /mymaster")
        values |= {"hosts": _hosts(where, SENTINEL_PORT), "master": master, "db": _db(db)}
    elif kind == "cluster":
        if path.strip("/"):
            raise ConfigError("store url: redis+cluster: a Cluster has no numbered databases; leave the path out")
        values |= {"hosts": _hosts(where, REDIS_PORT)}
    elif scheme == "unix":
        if not path:
            raise ConfigError("store url: unix: write unix:///path/to/redis.sock")
        values |= {"path": path, "db": _db(options.pop("db", ""))}
    else:
        hosts = _hosts(where, REDIS_PORT)
        if len(hosts) > 1:
            raise ConfigError("store url: redis: several hosts need redis+sentinel or redis+cluster")
        values |= {"hosts": hosts, "db": _db(path.strip("/"))}
    if options:
        raise ConfigError(
            f"store url: {next(iter(options))}: no such option; known are shards, timeout_ms, durability, "
            f"{', '.join(TLS_OPTIONS)}, sentinel_username, sentinel_password"
        )
    return Address(**values)


def _options(query: str) -> dict[str, str]:
    try:
        return dict(urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise ConfigError("store url: what follows ? must be name=value, joined by &") from None


def _whole(text: str, name: str, low: int, high: int) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ConfigError(f"store url: {name}: must be a whole number from {low} to {high}")
    return int(text)


def _db(text: str) -> int:
    return _whole(text or "0", "database", 0, 1 << 30)


def _durability(text: str) -> bool:
    if text not in ("primary", "replicated"):
        raise ConfigError("store url: durability: must be primary or replicated")
    return text == "replicated"


def _hosts(text: str, default_port: int) -> tuple[tuple[str, int], ...]:
    found = []
    for part in text.split(","):
        try:
            split = urllib.parse.urlsplit(f"//{part}")
            host, port = split.hostname, split.port
        except ValueError:
            host, port = None, None
        if not host:
            raise ConfigError("store url: hosts: must be host:port or [v6]:port, joined by commas")
        found.append((host, port or default_port))
    return tuple(found)


class Server:
    """One server, or whichever is Sentinel's master just now."""

    def __init__(
        self,
        name: str,
        timeout_s: float,
        make_pool: Callable[[Callable[[AbstractConnection], Any]], ConnectionPool],
        on_change: Callable[[Server], None],
    ) -> None:
        self.name = name
        self.version = ""
        self._timeout_s = timeout_s
        self._on_change = on_change
        self._run_id = ""
        self._is_closed = False
        self._pool = make_pool(self._on_connect)
        self._connections = asyncio.Semaphore(CONNECTIONS_MAX)
        self.breaker = Breaker(asyncio.get_running_loop().time)

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one go; their replies in order, a ResponseError for one that failed. StoreUnavailable: all failed."""
        if self._is_closed:
            raise StoreUnavailable("the redis store is closed")
        if not self.breaker.admit():
            raise StoreUnavailable(f"redis {self.name}: not asked, it failed a moment ago")
        try:
            async with asyncio.timeout(self._timeout_s), self._connections:
                replies = await self._call(commands)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task and not task.cancelling():  # not our caller's: it came out of a connection that others closed
                raise await self._failed(error) from error
            self.breaker.gave_up()
            raise
        except Exception as error:
            raise await self._failed(error) from error
        for reply in replies:
            if isinstance(reply, AWAY):
                raise await self._failed(reply)
        if self.breaker.succeeded():
            log.warning("redis %s: answers again", self.name)
        return replies

    async def subscribe(self, channel: str) -> AbstractConnection:
        """A connection that listens to a channel; give it back to `release`. RedisError, OSError, TimeoutError.

        Whoever is cancelled meanwhile waits until it has come, for at most `timeout_s`: a connect that is cancelled before its protocol
        has heard of it leaves its socket open (CPython 3.11, TLS).
        """
        subscribing = asyncio.create_task(self._subscribe(channel))
        try:
            return await asyncio.shield(subscribing)
        except asyncio.CancelledError:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await self.release(await subscribing)
            raise

    async def _subscribe(self, channel: str) -> AbstractConnection:
        async with asyncio.timeout(self._timeout_s):
            connection: AbstractConnection = await self._pool.get_connection()
            try:
                await connection.send_command("SUBSCRIBE", channel)
                await connection.read_response()
            except BaseException:
                await self.release(connection)
                raise
            return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Close it: a connection that had subscribed is good for nothing else. Waits for TLS' goodbye, for at most `timeout_s`."""
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await connection.disconnect()
        await self._pool.release(connection)

    async def aclose(self) -> None:
        """Close every connection, once the calls under way have ended: in at most `timeout_s`. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        for _ in range(CONNECTIONS_MAX):
            await self._connections.acquire()
        await self._pool.aclose()

    async def _call(self, commands: Sequence[Command]) -> list[Any]:
        connection = await self._pool.get_connection()
        try:
            # hiredis packs ten times faster than the connection's own packer; a flush is nothing but packing.
            await connection.send_packed_command([hiredis.pack_command(tuple(command)) for command in commands])
            return [await _reply(connection) for _ in commands]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def _failed(self, error: BaseException) -> StoreUnavailable:
        reason = str(error)[:200] or f"no answer in {self._timeout_s:g} s"
        if isinstance(error, MasterNotFoundError):
            reason = "no sentinel names a master"  # redis-py 7 shows passwords in its own words for it
        if self.breaker.failed():
            log.error("redis %s: %s; asked again after a back-off", self.name, reason)
        # Its name may lead to another server by now; and who connects anew asks for it. Not by the pool's own disconnect: that waits
        # for the other end to say goodbye, and meanwhile others take what it closes.
        for connection in tuple(self._pool._available_connections):
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
        if isinstance(error, AuthenticationError | NoPermissionError):
            reason += " (look at the user, the password and the ACL rules; docs/redis.md lists those that are needed)"
        return StoreUnavailable(f"redis {self.name}: {reason}")

    async def _on_connect(self, connection: AbstractConnection) -> None:
        """Called by a new connection. What it leaves half done, by a timeout say, must not come back from the pool."""
        try:
            await connection.on_connect()
            await connection.send_command("INFO", "server")
            told = _info(await connection.read_response())
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self.version = told.get("redis_version", "0")
        run_id, self._run_id = self._run_id, told.get("run_id", "")
        if run_id and run_id != self._run_id:
            log.warning("redis %s: another server answers there now", self.name)
            self._on_change(self)

    async def check(self) -> None:
        """At start: the version, and that nothing is evicted. ConfigError, StoreUnavailable."""
        (memory,) = await self.call([("INFO", "memory")])
        if isinstance(memory, ResponseError):
            raise ConfigError(f"redis {self.name}: {memory} (docs/redis.md lists the ACL rules that are needed)")
        if tuple(int(part) for part in self.version.split(".")[:2]) < VERSION_MIN:
            raise ConfigError(
                f"redis {self.name}: is version {self.version}; fastticket needs Redis 7.0 or newer, or Valkey"
            )
        policy = _info(memory).get("maxmemory_policy", "")
        if policy.startswith("allkeys"):
            raise ConfigError(
                f"redis {self.name}: maxmemory-policy is {policy}, which throws sessions away; set it to noeviction"
            )
        if policy.startswith("volatile"):
            log.warning(
                "redis %s: maxmemory-policy is %s, which throws attributes of sessions away when memory is short; "
                "noeviction does not",
                self.name,
                policy,
            )


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except AWAY:
        raise
    except ResponseError as error:
        return error


def _info(reply: bytes) -> dict[str, str]:
    return dict(line.split(":", 1) for line in reply.decode(errors="replace").splitlines() if ":" in line)


class OneServer:
    """Everything is on one server: standalone, or Sentinel's master."""

    def __init__(self, address: Address, on_change: Callable[[Server], None]) -> None:
        make = _sentinel_pool if address.kind == "sentinel" else _pool
        place = address.path or ",".join(f"{host}:{port}" for host, port in address.hosts)
        name = f"{address.master} of {place}" if address.kind == "sentinel" else place
        host = address.hosts[0] if address.hosts else None
        server = Server(name, address.timeout_s, lambda hook: make(address, host, hook), on_change)
        self._server = server
        self.servers = {name: server}

    async def server_of(self, slot: int) -> Server:
        """The one."""
        return self._server

    async def moved(self) -> None:
        """Nothing to look up."""


class Cluster:
    """The primaries of a Cluster, by `CLUSTER SLOTS`."""

    def __init__(self, address: Address, on_change: Callable[[Server], None]) -> None:
        self._address = address
        self._on_change = on_change
        self._ranges: list[tuple[int, int, Server]] = []
        self._is_stale = True
        self._read_at_s = self._failed_at_s = -SLOTS_FRESH_S
        self._reading = asyncio.Lock()
        self._asking: set[asyncio.Task[tuple[Server, Sequence[Any]]]] = set()
        self.servers: dict[str, Server] = {}

    async def server_of(self, slot: int) -> Server:
        """From the table, which is read again first if it is known to be old."""
        if self._is_stale:
            async with self._reading:
                if self._is_stale:
                    await self._read_slots()
        for first, last, server in self._ranges:
            if first <= slot <= last:
                return server
        await self.moved()
        raise StoreUnavailable("redis cluster: a slot has no primary just now")

    def server_at(self, host: str, port: int) -> Server:
        """The server at an address that a redirection named."""
        name = f"{host}:{port}"
        if name not in self.servers:
            self.servers[name] = Server(
                name, self._address.timeout_s, lambda hook: _pool(self._address, (host, port), hook), self._on_change
            )
        return self.servers[name]

    async def moved(self) -> None:
        """Look again, but not too often."""
        self._is_stale |= asyncio.get_running_loop().time() >= self._read_at_s + SLOTS_FRESH_S

    async def _read_slots(self) -> None:
        """Ask all that we know and those of the URL at once, and believe the first that knows: others may hang."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._failed_at_s + SLOTS_FRESH_S:
            raise StoreUnavailable("redis cluster: nobody knew a moment ago who has which slots")
        known = (server for _, _, server in self._ranges)
        named = (self.server_at(host, port) for host, port in self._address.hosts)
        asking = {asyncio.create_task(self._slots_by(server)) for server in dict.fromkeys([*known, *named])}
        self._asking |= asking
        for task in asking:
            task.add_done_callback(self._asking.discard)
        errors = ["no server to ask"]
        for answer in asyncio.as_completed(asking):
            try:
                server, slots = await answer
            except StoreUnavailable as error:
                errors.append(str(error))
                continue
            self._ranges = [(first, last, self._primary(entry, server)) for first, last, entry, *_ in slots]
            self._read_at_s = loop.time()
            self._is_stale = False
            return
        self._failed_at_s = loop.time()
        raise StoreUnavailable(f"redis cluster: {errors[-1]}")

    async def _slots_by(self, server: Server) -> tuple[Server, Sequence[Any]]:
        (slots,) = await server.call([("CLUSTER", "SLOTS")])
        if isinstance(slots, ResponseError) or not slots:
            raise StoreUnavailable(f"redis {server.name}: CLUSTER SLOTS: {slots or 'none'}")
        return server, slots

    def _primary(self, entry: Sequence[Any], asked: Server) -> Server:
        host = (entry[0] or b"").decode()
        return self.server_at(host if host not in ("", "?") else asked.name.rpartition(":")[0], int(entry[1]))


def make_topology(address: Address, on_change: Callable[[Server], None]) -> OneServer | Cluster:
    """What an address describes."""
    return Cluster(address, on_change) if address.kind == "cluster" else OneServer(address, on_change)


def slot_of(key: str) -> int:
    """The Cluster's hash slot of a key."""
    return int(key_slot(key.encode()))


async def close_all(servers: Iterable[Server]) -> None:
    """Close servers; one that can not be closed well does not keep the others open."""
    await asyncio.gather(*(server.aclose() for server in servers), return_exceptions=True)


def _pool(address: Address, host: tuple[str, int] | None, hook: Callable[[AbstractConnection], Any]) -> ConnectionPool:
    arguments = _arguments(address, hook)
    if host is None:
        return ConnectionPool(aioredis.UnixDomainSocketConnection, path=address.path, **arguments)
    kind = SSLConnection if address.tls else Connection
    return ConnectionPool(kind, host=host[0], port=host[1], **arguments)


class _SentinelPool(SentinelConnectionPool):
    """Connections to the master, and those to the sentinels, which are nobody's else to close."""

    async def aclose(self) -> None:
        await super().aclose()
        await asyncio.gather(*(client.aclose() for client in self.sentinel_manager.sentinels), return_exceptions=True)


def _sentinel_pool(
    address: Address, _: tuple[str, int] | None, hook: Callable[[AbstractConnection], Any]
) -> ConnectionPool:
    tls = dict(address.tls_files) if address.tls else {}
    client = SentinelClient(
        address.hosts,
        sentinel_kwargs={
            "username": address.sentinel_username,
            "password": address.sentinel_password,
            "socket_timeout": address.timeout_s / 2,  # so that one that hangs leaves time to ask the next
            "socket_connect_timeout": address.timeout_s / 2,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "ssl": address.tls,
            **tls,
        },
    )
    return _SentinelPool(address.master, client, ssl=address.tls, **_arguments(address, hook))


def _arguments(address: Address, hook: Callable[[AbstractConnection], Any]) -> dict[str, Any]:
    """Timeouts are the caller's (`Server.call`), over everything at once."""
    return {
        "db": address.db,
        "username": address.username,
        "password": address.password,
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": address.timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "redis_connect_func": hook,
        **(dict(address.tls_files) if address.tls else {}),
    }
