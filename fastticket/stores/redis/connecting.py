"""Connecting to a Redis server: a socket to the first address that answers, TLS, and the greeting.

Each step has a timeout of its own, and library code whose end is awaited is never cancelled: a TLS
handshake that takes too long ends by itself when its socket is shut down.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from redis.exceptions import RedisError

from fastticket.stores.redis.address import Command, Place
from fastticket.stores.redis.link import Batch, Link, LinkLost, fail_all, pack
from fastticket.stores.redis.patience import patiently

ADDRESS_PAUSE_S = 0.25  # before the next address of a name is tried beside the last one
KEEPALIVE_IDLE_S = 60  # then every 10 s, three times: a firewall may have forgotten an unused connection


async def connect(place: Place, timeout_s: float) -> Link:
    """A link that is logged in, one round trip after those of TCP and TLS, each of which may take
    `timeout_s`.

    OSError (LinkLost and TimeoutError are OSErrors); RedisError: the server refuses. A cancelled
    call leaves nothing open.
    """
    opening = asyncio.ensure_future(_open_socket(place))
    try:
        connection = await patiently(opening, timeout_s)
    except BaseException:
        opening.add_done_callback(_close_socket)
        raise
    link = await _linked(connection, place, timeout_s)
    try:
        if greeting := place.greeting():
            link.info = await _greet(link, greeting)
    except BaseException:
        link.close()
        raise
    return link


async def _open_socket(place: Place) -> socket.socket:
    """TCP or Unix, the first address that answers. The next one is tried beside the others after
    ADDRESS_PAUSE_S (RFC 8305, section 5). OSError.
    """
    if place.path:
        return await _connected(socket.AF_UNIX, place.path)
    addresses = [(each[0], each[4]) for each in await _look_up(place.host, place.port)]
    attempts: list[asyncio.Task[socket.socket]] = []
    try:
        for family, address in addresses:
            attempts.append(asyncio.ensure_future(_connected(family, address)))
            is_last = len(attempts) == len(addresses)
            if (connection := await _first_of(attempts, None if is_last else ADDRESS_PAUSE_S)) is not None:
                return connection
    finally:
        for attempt in attempts:
            _abandon(attempt)
    raise _failure_of(attempts) if attempts else OSError(f"{place.host}: no address")


async def _first_of(attempts: list[asyncio.Task[socket.socket]], wait_s: float | None) -> socket.socket | None:
    """The first attempt's socket that succeeds, removed from `attempts`; None: the time is over, or
    all have failed.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            while True:
                for attempt in attempts:  # first: one may have come when the time of the call before was over
                    if attempt.done() and not attempt.exception():
                        attempts.remove(attempt)
                        return attempt.result()
                pending = [attempt for attempt in attempts if not attempt.done()]
                if not pending:
                    break
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    return None


def _abandon(attempt: asyncio.Task[socket.socket]) -> None:
    """Cancel an attempt, which closes its socket; close the socket of one that is done."""
    attempt.cancel()
    attempt.add_done_callback(_close_socket)


def _failure_of(attempts: list[asyncio.Task[socket.socket]]) -> BaseException:
    """The error of the first address."""
    return attempts[0].exception() or OSError("no address")


async def _connected(family: int, address: Any) -> socket.socket:
    """A socket to one address. OSError."""
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, address)
        if family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    except OSError as error:
        connection.close()
        raise _plain(error) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _plain(error: OSError) -> OSError:
    """The error with the system's text: asyncio's names the address, and not what is wrong."""
    return OSError(error.errno, os.strerror(error.errno)) if error.errno else error


def _close_socket(opening: asyncio.Future[socket.socket]) -> None:
    """Its caller does not wait any more."""
    if not opening.cancelled() and not opening.exception():
        opening.result().close()


async def _look_up(host: str, port: int) -> list[Any]:
    """getaddrinfo, in a thread unless `host` is a numeric address. OSError."""
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    try:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OSError(f"the name does not resolve: {error.strerror}") from None


async def _linked(connection: socket.socket, place: Place, timeout_s: float) -> Link:
    """A link over a socket, by TLS if the place says so. A handshake that takes too long is not
    cancelled: its socket is shut down, and it ends by itself.
    """
    link = Link(timeout_s)
    try:
        context = _context(place.tls_files) if place.tls else None
    except BaseException:
        connection.close()
        raise
    making = asyncio.ensure_future(_make(link, connection, context, place.host, 4 * timeout_s))
    try:
        await patiently(asyncio.shield(making), timeout_s)
    except BaseException:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        making.add_done_callback(lambda made: _close_link(made, link))
        raise
    return link


async def _make(
    link: Link, connection: socket.socket, context: ssl.SSLContext | None, name: str, handshake_s: float
) -> None:
    """Connect a link with its socket, in two steps: nothing may end the transport before the loop
    has returned it. uvloop takes charge of the socket at that moment; of a transport that ended
    before, it has closed the descriptor, and the socket closes it once more when it is collected:
    under whoever has it by then.
    """
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: link, sock=connection)
    if context is not None:
        if transport.is_closing():
            raise LinkLost("the connection was lost before the TLS handshake")
        secured = await loop.start_tls(
            transport, link, context, server_hostname=name, ssl_handshake_timeout=handshake_s
        )
        link.connection_made(cast(asyncio.Transport, secured))


def _close_link(making: asyncio.Future[None], link: Link) -> None:
    """Its caller does not wait any more."""
    link.close()
    if not making.cancelled():
        making.exception()


_contexts: dict[tuple[Any, ...], ssl.SSLContext] = {}


def _context(files: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    """The TLS context for these files, made again when one has changed: certificates are renewed.
    OSError (ssl.SSLError is one).
    """
    names = dict(files)
    key = tuple((name, path, Path(path).stat().st_mtime_ns) for name, path in files)
    if key not in _contexts:
        made = ssl.create_default_context(cafile=names.get("ssl_ca_certs"))
        if certificate := names.get("ssl_certfile"):
            made.load_cert_chain(certificate, names.get("ssl_keyfile"))
        for old in [each for each in _contexts if [part[:2] for part in each] == [part[:2] for part in key]]:
            del _contexts[old]
        _contexts[key] = made
    return _contexts[key]


async def _greet(link: Link, greeting: Sequence[Command]) -> dict[str, str]:
    """The server's INFO. RedisError: it refuses."""
    batch = Batch(pack(greeting), len(greeting), asyncio.get_running_loop().create_future())
    link.on_lost = lambda _, error, batches: batch.fail(_refusal(batch) or error)
    link.send([batch])
    # A server with too many clients sends one error reply and closes: `_refusal` finds that reply.
    replies = await batch.answer
    link.on_lost, link.batches_answered = fail_all, 0
    if link.is_over:
        raise LinkLost("the connection was lost at once")
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply
    return info_of(replies[-1]) if isinstance(replies[-1], bytes) else {}


def _refusal(batch: Batch) -> RedisError | None:
    return next((reply for reply in batch.replies if isinstance(reply, RedisError)), None)


def info_of(reply: bytes) -> dict[str, str]:
    """The fields of an INFO reply."""
    return dict(line.split(":", 1) for line in reply.decode(errors="replace").splitlines() if ":" in line)
