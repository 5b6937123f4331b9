"""One gateway process: the control plane around the data plane.

The data plane (`core.proxy`) serves sockets by itself. This is what it can not do: load sessions, log in and out, timers, signals.
Shutdown, in order: close the listeners, end idle connections, let the others finish (`drain_timeout_s`), write every touch, close.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from fastticket.cache import TicketCache
from fastticket.core.proxy import ASK_AUTHENTICATE, ASK_LOGIN, ASK_LOGOUT, ASK_LOGOUT_EVERYWHERE, Proxy
from fastticket.core.ticket import Keyring
from fastticket.errors import FastticketError, InvalidPrincipal, StoreUnavailable, TicketRefused, Verdict
from fastticket.gateway.addresses import resolve
from fastticket.gateway.config import Config
from fastticket.gateway.cookies import TicketCookie

log = logging.getLogger("fastticket.gateway")

TICK_S = 0.1


def make_cache(config: Config, keys: Keyring) -> TicketCache:
    """The cache that a configuration describes, not opened yet."""
    return TicketCache(
        config.open_store(),
        keys,
        idle_timeout_s=config.ticket.idle_timeout_s,
        absolute_lifetime_s=config.ticket.absolute_lifetime_s,
        capacity=config.cache.capacity,
        flush_interval_ms=config.store.flush_interval_ms,
        lease_ms=config.store.lease_ms,
        touch_resolution_ms=config.store.touch_resolution_ms,
        outage_policy=config.store.outage_policy,
        outage_grace_s=config.store.outage_grace_s,
    )


def make_proxy(config: Config, cache: TicketCache) -> Proxy:
    """The data plane that a configuration describes, without listeners."""
    proxy = Proxy(
        cache.checker,
        connections_max=config.gateway.connections_max,
        cookie=config.ticket.cookie,
        identity_field=config.gateway.identity_header,
        login_url=config.gateway.login_url,
        keeps_host=config.ticket.cookie_domain_level > 0,
        timeouts_s=config.timeouts,
        request_rate_min=config.gateway.request_body_rate_min,
        response_rate_min=config.gateway.response_body_rate_min,
    )
    proxy.trust(config.trusted_networks())
    groups = {u.name: proxy.add_group([resolve(a) for a in config.server_addresses(u)]) for u in config.upstream}
    for route in sorted(config.routes(), key=lambda r: len(r.path), reverse=True):
        group = None if route.path == config.gateway.auth_path else groups[route.upstream or config.upstream[0].name]
        proxy.add_route(route.path, route.auth, group, touches=route.touch, logs_in=route.login)
    return proxy


class Worker:
    """A gateway on sockets that listen already."""

    def __init__(self, config: Config, listeners: list[socket.socket]) -> None:
        self._config = config
        self._listeners = listeners
        self._cache = make_cache(config, config.keyring())
        self.proxy = make_proxy(config, self._cache)
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._ticker: asyncio.TimerHandle | None = None
        ticket = config.ticket
        self._cookie = TicketCookie(
            ticket.cookie, is_secure=ticket.cookie_secure, domain_level=ticket.cookie_domain_level
        )

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT. `ready` is called when requests are served."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_keys)
        loop.add_signal_handler(signal.SIGUSR1, self._log_stats)
        await self.start()
        gc.collect()
        gc.freeze()  # what is there now stays: a full collection that goes through it would hold the loop for milliseconds
        ready()
        await stop.wait()
        await self.stop()

    async def start(self) -> None:
        """Open the store and serve."""
        await self._cache.open()
        for listener in self._listeners:
            self.proxy.listen(listener.fileno())
        asyncio.get_running_loop().add_reader(self.proxy.fileno(), self._turn)
        self._tick()

    async def stop(self) -> None:
        """Drain, then flush."""
        self.proxy.stop_accepting()
        for listener in self._listeners:
            listener.close()
        self.proxy.drain()
        try:
            async with asyncio.timeout(self._config.gateway.drain_timeout_s):
                while self.proxy.connection_count:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            log.warning("%d connections were still in use after the drain timeout", self.proxy.connection_count)
        if self._ticker:
            self._ticker.cancel()
        asyncio.get_running_loop().remove_reader(self.proxy.fileno())
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._cache.aclose()

    def _turn(self) -> None:
        if self.proxy.turn():
            asyncio.get_running_loop().call_soon(self._turn)
        self._answer_asks()

    def _tick(self) -> None:
        self.proxy.tick()
        self._answer_asks()
        if not self.proxy.connection_count:
            self._idle.set()
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _answer_asks(self) -> None:
        for ask in self.proxy.asks():
            task = asyncio.get_running_loop().create_task(self._answer(*ask))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, kind: int, handle: int, ticket: str, value: Any, host: str) -> None:
        if kind == ASK_AUTHENTICATE:
            await self._authenticate(handle, ticket, value)
        elif kind == ASK_LOGIN:
            await self._change_session(handle, host, self._log_in(ticket, value, host))
        elif kind == ASK_LOGOUT:
            await self._change_session(handle, host, self._log_out(ticket, host))
        elif kind == ASK_LOGOUT_EVERYWHERE:
            await self._change_session(handle, host, self._log_out_everywhere(ticket, host))
        self._answer_asks()  # the connection may have gone on to its next request

    async def _authenticate(self, handle: int, ticket: str, touch: bool) -> None:
        try:
            await self._cache.authenticate(ticket, touch=touch)
        except TicketRefused as refused:
            self.proxy.refuse(handle, refused.verdict)
        except StoreUnavailable:
            self.proxy.refuse(handle, Verdict.STORE_UNAVAILABLE)
        except Exception:
            log.exception("a session could not be loaded")
            self.proxy.refuse(handle, Verdict.STORE_UNAVAILABLE)
        else:
            self.proxy.admit(handle)

    async def _log_in(self, old_ticket: str, principal: bytes, host: str) -> bytes:
        """A new session for every login; the one that the client came with ends (against fixation)."""
        try:
            ticket = await self._cache.login(principal.decode())
        except UnicodeDecodeError:
            raise InvalidPrincipal("the application named a principal that is not UTF-8") from None
        if old_ticket:
            await self._cache.logout(old_ticket)
        return self._cookie.set(ticket, host)

    async def _log_out(self, ticket: str, host: str) -> bytes:
        await self._cache.logout(ticket)
        return self._cookie.clear(host)

    async def _log_out_everywhere(self, ticket: str, host: str) -> bytes:
        await self._cache.logout_everywhere((await self._cache.authenticate(ticket, touch=False)).principal)
        return self._cookie.clear(host)

    async def _change_session(self, handle: int, host: str, change: Coroutine[None, None, bytes]) -> None:
        """Do it, then let the response go on with the cookie; a response that says "logged out" must be true."""
        try:
            self.proxy.relay(handle, await change)
        except TicketRefused:  # over already
            self.proxy.relay(handle, self._cookie.clear(host))
        except FastticketError as error:
            log.error("%s", error)
            self.proxy.fail(handle, error.status, error.reason)
        except Exception:
            log.exception("a session could not be changed")
            self.proxy.fail(handle, 503, StoreUnavailable.reason)

    def _log_stats(self) -> None:
        """SIGUSR1: counters and states, as one line of JSON."""
        stats = {"cache": self._cache.stats, "store": dict(self._cache.store_servers), "proxy": self.proxy.stats}
        log.info("stats %s", json.dumps(stats))

    def _reload_keys(self) -> None:
        """SIGHUP: the key file again. One that can not be used changes nothing."""
        try:
            pairs = self._config.key_pairs()
            if pairs is None:
                log.warning("the keys come from the environment: restart to change them")
                return
            self._cache.replace_keys(pairs)
            log.info("key ring reloaded")
        except FastticketError as error:
            log.error("the key ring was not reloaded: %s", error)
