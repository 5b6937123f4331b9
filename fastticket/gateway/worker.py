"""One gateway process: the control plane around the data plane.

The data plane (`dataplane.proxy`) serves sockets by itself. This is what it cannot do: load sessions,
log in and out, timers, signals. Shutdown, in order: close the listeners, end idle connections, let
the others finish (`drain_timeout_s`), write every touch, close. Where the sockets outlive the
gateway, whoever comes is served until the tunnels have ended: nobody else would serve him. A worker
that retires does the same, but first hands over the clients with nothing under way, who are served
by the new configuration from their next request on, and lets the others have their answer
(`retire_timeout_s`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Literal

from fastticket.core.ticket import Keyring
from fastticket.dataplane.accesslog import AccessLog
from fastticket.dataplane.asks import Ask, AskKind, Where
from fastticket.dataplane.clients import Networks
from fastticket.dataplane.proxy import LIMITS, Proxy
from fastticket.dataplane.routes import Routes, in_order
from fastticket.dataplane.upstreams import Upstreams
from fastticket.errors import (
    FastticketError,
    InvalidPrincipal,
    StoreUnavailable,
    TicketRefused,
    TooManySessions,
    Verdict,
)
from fastticket.gateway import descriptors, errorlog
from fastticket.gateway.addresses import BACKLOG
from fastticket.gateway.config import Config, Route
from fastticket.gateway.exemption import Exemption
from fastticket.gateway.given import GO, LEAVE, STAY, Given, Start, pairs_of
from fastticket.gateway.handover import Handover
from fastticket.gateway.listeners import is_of
from fastticket.gateway.logfile import LogFile
from fastticket.gateway.slot import Slot
from fastticket.gateway.upstreams import UpstreamGroup
from fastticket.sessions.ticketcache import NOW, Consistency, TicketCache
from fastticket.tasks import end

log = logging.getLogger("fastticket.gateway")

TICK_S = 0.1
PARTING_SHARE = 0.8  # of the drain timeout, for the last ones to have some of it, too
PARTED_PER_S_MIN = 20  # a few WebSockets are no crowd
WORDS_BYTES_MAX = 65_536
LAST_ANSWERS_S = 1.0  # for those that were let in while the tunnels had all of the drain timeout
NOTE_INTERVAL_S = 1.0
LOOKS_PER_TURN = 32  # of what was asked is begun with in one turn of the loop: about a millisecond of work
CHANGES_PER_TURN = 8
TAKEN_PER_TURN = 64  # clients of another worker
STORE_PATIENCE_S = 5.0  # for the store to answer before anybody is served without it
REPLACEMENT_PATIENCE_S = 1.0  # the same while clients wait already
SHORTAGE_S = 10.0  # without one, and the next is another
SHORTAGES = {
    "full": "connections_max: %d clients are connected, others wait until some of them go",
    "out_of_descriptors": "there are no file descriptors left, with %d clients: others wait; a request that needs one more gets 503",
}
NOT_CACHED = b"Cache-Control: no-store\r\n"
CHANGES = frozenset(
    (AskKind.LOGIN, AskKind.LOGIN_REMEMBERED, AskKind.LOGOUT, AskKind.LOGOUT_EVERYWHERE, AskKind.ROTATE)
)

#: Which kinds of asks are about a request's ticket, and how closely the store is followed.
CONSISTENCY: dict[AskKind, Consistency | Literal["latest"]] = {
    AskKind.AUTHENTICATE: "near",
    AskKind.AUTHENTICATE_STRONG: "strong",
    AskKind.AUTHENTICATE_LATEST: "latest",
}


def make_cache(config: Config, keys: Keyring) -> TicketCache:
    """The cache that a configuration describes, not opened yet."""
    return TicketCache(
        config.open_store(),
        keys,
        idle_timeout_s=config.ticket.idle_timeout_s,
        absolute_lifetime_s=config.ticket.absolute_lifetime_s,
        remember_lifetime_s=config.ticket.remember_lifetime_s,
        sessions_max=config.ticket.sessions_max,
        sessions_max_policy=config.ticket.sessions_max_policy,
        capacity=config.cache.capacity,
        flush_interval_ms=config.store.flush_interval_ms,
        lease_ms=config.store.lease_ms,
        touch_resolution_ms=config.store.touch_resolution_ms,
        outage_policy=config.store.outage_policy,
        outage_grace_s=config.store.outage_grace_s,
    )


def make_proxy(config: Config, cache: TicketCache, counters: memoryview | None = None) -> Proxy:
    """The data plane that a configuration describes, without listeners and routes; it counts in
    `counters`, if given.
    """
    gateway = config.gateway
    return Proxy(
        cache.checker,
        Upstreams(),
        Routes(),
        limits={**config.limits, "connections_max": clients_max(config)[0]},
        timeouts_s=config.timeouts,
        cookie=config.ticket.cookie,
        identity_field=gateway.identity_header,
        escapes_identity=gateway.identity_encoding == "percent",
        request_id_field=gateway.request_id_header,
        login_url=gateway.login_url,
        next_parameter=gateway.next_parameter,
        front=gateway.auth_front,
        no_use_field=gateway.no_use_header,
        lifetime_field=gateway.lifetime_header,
        dropped_fields=config.overrides_dropped(),
        forwards_ticket=config.ticket.forward_ticket,
        login_details=config.ticket.login_details,
        trusted=Networks(config.trusted_networks()),
        expects_proxy_header=gateway.proxy_protocol,
        writes_forwarded=gateway.forwarded,
        upgrades=gateway.upgrades,
        log=AccessLog(gateway.access_log_format == "json") if gateway.access_log else None,
        counters=counters,
        descriptors_max=_shares(config).connections,
    )


def clients_max(config: Config) -> tuple[int, int]:
    """How many clients there may be, and how many the configuration would let in: there are
    descriptors for no more.
    """
    wanted = config.limits.get("connections_max", LIMITS["connections_max"][0])
    return min(wanted, _shares(config).clients), wanted


def _shares(config: Config) -> descriptors.Shares:
    return descriptors.share(descriptors.limit(), sum(len(upstream.servers) for upstream in config.upstream))


def add_routes(proxy: Proxy, config: Config, groups: dict[str, int]) -> list[Route]:
    """The routes of a configuration, by the numbers that the data plane gives them."""
    routes = in_order(config.routes())
    for route in routes:
        proxy.routes.add(
            route.path,
            route.auth,
            None if route not in config.route else groups[route.upstream or config.upstream[0].name],
            host=route.host,
            touches=route.touch,
            logs_in=route.login,
            is_strong=route.consistency == "strong",
            has_exemption=bool(route.exempt),
            waits=proxy.add_waits(route.timeouts),
            request_fields=route.request_headers.items(),
            response_fields=route.response_headers.items(),
            methods=route.methods,
            first=route.first,
        )
    return routes


class Asks:
    """What the data plane has asked and nobody works on yet. At most one of each connection, so
    they are bounded as those are.

    What changes a session waits behind what only looks at one: a storm of logins keeps nobody out
    who is logged in.
    """

    def __init__(self) -> None:
        self._looks: deque[Ask] = deque()
        self._changes: deque[Ask] = deque()

    def __bool__(self) -> bool:
        return bool(self._looks or self._changes)

    def add(self, asks: Iterable[Ask]) -> bool:
        """Whether they are the first."""
        had_some = bool(self)
        for ask in asks:
            (self._changes if ask.kind in CHANGES else self._looks).append(ask)
        return bool(self) and not had_some

    def take(self) -> list[Ask]:
        """Those to begin with in this turn of the loop."""
        taken = [self._looks.popleft() for _ in range(min(len(self._looks), LOOKS_PER_TURN))]
        return taken + [self._changes.popleft() for _ in range(min(len(self._changes), CHANGES_PER_TURN))]


class Parting:
    """When which of the WebSockets are told that the gateway goes away: all of them at once would
    all come back at once.
    """

    def __init__(self, tunnels: int, began_s: float, drain_timeout_s: float) -> None:
        span_s = min(PARTING_SHARE * drain_timeout_s, tunnels / PARTED_PER_S_MIN)
        self._began_s = began_s
        self._per_s = tunnels / span_s if span_s else PARTED_PER_S_MIN
        self.told = 0

    def due(self, now_s: float) -> int:
        """How many to tell now."""
        since_s = now_s - self._began_s
        return max(0, math.ceil(since_s * self._per_s) - self.told)


class Shortages:
    """Says when clients have to wait, as far as it has not been said: one line while it goes on,
    and again when it comes again.
    """

    def __init__(self) -> None:
        self._seen = {"full": 0, "out_of_descriptors": 0}
        self._said_s = dict.fromkeys(self._seen, -SHORTAGE_S)

    def tell(self, proxy: Proxy) -> None:
        """Look at its counters."""
        stats, now_s = proxy.shortages, time.monotonic()
        for name, count in stats.items():
            if count == self._seen[name]:
                continue
            self._seen[name] = count
            if now_s - self._said_s[name] >= SHORTAGE_S:
                log.error(SHORTAGES[name], proxy.connection_count)
            self._said_s[name] = now_s


class Unannounced:
    """Says that connections are closed for want of a PROXY header that counts: one line while it
    goes on, as of shortages.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._seen_s = -SHORTAGE_S

    def tell(self, proxy: Proxy) -> None:
        """Look at its counter."""
        count, peer, why = proxy.unannounced
        if count == self._seen:
            return
        now_s = time.monotonic()
        if now_s - self._seen_s >= SHORTAGE_S:
            log.warning("a connection from %s was closed: %s (%d so far)", peer or "a Unix socket", why, count)
        self._seen, self._seen_s = count, now_s


class Worker:
    """A gateway on sockets that listen already."""

    def __init__(
        self,
        given: Given,
        listeners: list[socket.socket],
        slot: Slot | None = None,
        handover: Handover | None = None,
    ) -> None:
        """Bound sockets. `slot`: where to tell the supervisor how things are; `handover`: the way
        to other workers. ConfigError.
        """
        config = given.config
        self._given = given
        self._config = config
        self._listeners = listeners
        self._slot = slot
        self._handover = handover
        self._is_retiring = False
        self._cache = make_cache(config, given.keys)
        self.proxy = make_proxy(config, self._cache, slot.counters if slot else None)
        self._groups = [UpstreamGroup(self.proxy, config, upstream, given.servers) for upstream in config.upstream]
        routes = add_routes(self.proxy, config, {group.name: group.number for group in self._groups})
        self._exemptions = [Exemption(route.exempt) if route.exempt else None for route in routes]
        self._log_file = LogFile(config.log_path("access_log")) if self.proxy.log else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._asks = Asks()
        self._half_word = b""  # of the supervisor
        self._idle = asyncio.Event()  # nobody is connected
        self._ticked = asyncio.Event()
        self._parting: Parting | None = None  # from WebSockets, when it stops
        self._sockets_outlive = any(address.fd >= 0 for address in config.listen_addresses())
        self._has_more = False
        self._is_note_cut = False
        self._ticker: asyncio.TimerHandle | None = None
        self._publisher: asyncio.TimerHandle | None = None
        self._changes: Counter[str] = Counter()  # of sessions, by what the application asked for
        self._shortages = Shortages()
        self._unannounced = Unannounced()
        self._cookie = config.ticket_cookie()
        self._was_http_told = False

    async def run(self, ready: Callable[[], None], go: int) -> None:
        """Serve until SIGTERM, or until SIGUSR2 and nobody is connected.

        `ready` is called when requests could be served; they are once GO can be read from the
        descriptor `go`. From then on somebody may be in the listen queue, so signals have to be
        answered before. LEAVE: SIGTERM will follow.
        """
        await self._open()
        gc.collect()
        gc.freeze()  # what is there now stays: a full collection that goes through it would hold the loop for milliseconds
        loop = asyncio.get_running_loop()
        begin, stop, retire = asyncio.Event(), asyncio.Event(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGUSR2, retire.set)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen_logs)
        loop.add_reader(go, self._hear, go, begin)
        ready()
        await _first_of(begin, stop, retire)
        if begin.is_set():
            self._serve()
            await _first_of(stop, retire)
            if not stop.is_set():
                await self._retire(stop)
        await self.stop()

    def _hear(self, go: int, begin: asyncio.Event) -> None:
        """A word of the supervisor."""
        said = os.read(go, WORDS_BYTES_MAX)
        if not said:  # it is gone, and SIGTERM has come
            asyncio.get_running_loop().remove_reader(go)
        *words, self._half_word = (self._half_word + said).split(b"\n")
        for word in words:
            if word == GO:
                begin.set()
            elif word in (LEAVE, STAY):
                self.proxy.leave(word == LEAVE)
            else:
                self._cache.replace_keys(pairs_of(word))

    async def start(self) -> None:
        """Open the store and serve."""
        await self._open()
        self._serve()

    async def _open(self) -> None:
        groups = [asyncio.create_task(group.start(self._given.start)) for group in self._groups]
        try:
            await self._open_store()
            await asyncio.gather(*groups)
        finally:
            await end(*groups)
        self._publish()

    async def _open_store(self) -> None:
        if self._given.may_lack_store:
            is_replacement = self._given.start is Start.REPLACEMENT
            patience_s = REPLACEMENT_PATIENCE_S if is_replacement else STORE_PATIENCE_S
            await self._cache.begin(patience_s, is_known_good=is_replacement)
        else:
            await self._cache.open()

    def _serve(self) -> None:
        self._tell_limit()
        for listener in self._listeners:
            listener.listen(BACKLOG)
            self.proxy.listen(listener.fileno())
        asyncio.get_running_loop().add_reader(self.proxy.fileno(), self._turn)
        if self._handover:
            asyncio.get_running_loop().add_reader(self._handover.fileno(), self._take_over)
        self._tick()

    def _tell_limit(self) -> None:
        allowed, wanted = clients_max(self._config)
        if allowed < wanted:
            log.log(
                logging.WARNING
                if "connections_max" in self._config.limits
                else logging.INFO,  # nobody thought of the default
                "connections_max is %d, not %d: there may be %d file descriptors (ulimit -n, LimitNOFILE), and a client needs two",
                allowed,
                wanted,
                descriptors.limit(),
            )

    async def stop(self) -> None:
        """Drain, then flush."""
        loop = asyncio.get_running_loop()
        drained_s = loop.time() + self._config.gateway.drain_timeout_s
        self._parting = Parting(self.proxy.tunnel_count, loop.time(), self._config.gateway.drain_timeout_s)
        if self._listeners and self._sockets_outlive:
            await self._outwait_tunnels(drained_s)
        self._stop_accepting()
        if self.proxy.connection_count:
            await asyncio.sleep(TICK_S)  # who was let in last has not asked yet
        self.proxy.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(max(drained_s, loop.time() + LAST_ANSWERS_S)):
                while self._connections_awaited(drained_s):
                    await self._next_tick()
        if self.proxy.connection_count:
            log.warning("%d connections were still in use after the drain timeout", self.proxy.connection_count)
        if self._ticker:
            self._ticker.cancel()
        asyncio.get_running_loop().remove_reader(self.proxy.fileno())
        for group in self._groups:
            await group.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._cache.aclose()
        if self._log_file and self.proxy.log:
            await self._log_file.aclose(self.proxy.log.take())
        self._publish()
        if self._publisher:
            self._publisher.cancel()

    def _connections_awaited(self, drained_s: float) -> int:
        """Tunnels have had their time."""
        is_over = asyncio.get_running_loop().time() >= drained_s
        return self.proxy.connection_count - (self.proxy.tunnel_count if is_over else 0)

    async def _next_tick(self) -> None:
        self._ticked.clear()
        await self._ticked.wait()

    async def _outwait_tunnels(self, drained_s: float) -> None:
        """Nobody else reads the queue of these sockets before this gateway has gone: who comes is
        served, and not kept waiting.
        """
        self.proxy.leave()
        while self.proxy.tunnel_count and asyncio.get_running_loop().time() < drained_s:
            await self._next_tick()

    async def _retire(self, stop: asyncio.Event) -> None:
        """Another worker accepts from these sockets now. Who waits for an answer gets it."""
        self._stop_accepting()
        self._is_retiring = True
        self._hand_over()
        log.info("worker (pid %d) retires: %d connections", os.getpid(), self.proxy.connection_count)
        self._idle.clear()
        await _first_of(stop, self._idle, timeout_s=self._config.gateway.retire_timeout_s)

    def _hand_over(self) -> None:
        """Those with nothing under way; as many as there is room for, and the others with the next
        tick.
        """
        while self._handover and (client := self.proxy.release()):
            fd, address, is_believed = client
            if not self._handover.give(fd, address, is_believed):
                self.proxy.adopt(fd, address, is_believed)
                return
            os.close(fd)

    def _take_over(self) -> None:
        """Clients of a worker that retires. Where nobody listens any more they get one answer."""
        for _ in range(TAKEN_PER_TURN):
            client = self._handover.take() if self._handover else None
            if not client:
                return
            fd, address, is_believed = client
            self.proxy.adopt(fd, address, is_believed, is_last=not is_of(fd, self._listeners))

    def _stop_accepting(self) -> None:
        """Who is in the listen queue already is let in, and so is who was handed over."""
        if self._handover:
            asyncio.get_running_loop().remove_reader(self._handover.fileno())
        if self._listeners:
            if self._ticker:  # it has served: one that never did takes nobody
                self._take_over()
            self._turn()
            self.proxy.stop_accepting()
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    def _turn(self) -> None:
        """The loop calls it when a socket is ready. What a turn has left over takes turns with
        whatever else the loop has to do.
        """
        if self.proxy.turn() and not self._has_more:
            self._has_more = True
            asyncio.get_running_loop().call_soon(self._turn_again)
        self._answer_asks()

    def _turn_again(self) -> None:
        self._has_more = False
        self._turn()

    def _tick(self) -> None:
        self.proxy.tick()
        if self._parting:
            self._parting.told += self.proxy.part(self._parting.due(asyncio.get_running_loop().time()))
        self._ticked.set()
        self._answer_asks()
        self._tell_news()
        if self._is_retiring:
            self._hand_over()
        if not self.proxy.connection_count:
            self._idle.set()
        if self._log_file and self.proxy.log:
            self._log_file.write(self.proxy.log.take())
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tell_news(self) -> None:
        """What the data plane has noticed, and an operator wants to know."""
        for group, server, reason in self.proxy.upstream_news():
            if reason:
                log.warning("upstream %s: %s is down: %s", self._groups[group].name, server, reason)
            else:
                log.warning("upstream %s: %s is up again", self._groups[group].name, server)
        self._shortages.tell(self.proxy)
        self._unannounced.tell(self.proxy)
        self._tell_faults()

    def _tell_faults(self) -> None:
        """The error log bounds how often."""
        found, more = self.proxy.faults()
        for group, server, what in found:
            if what:
                log.warning("upstream %s: %s: 502, no response: %s", self._groups[group].name, server, what)
            else:
                log.warning(
                    "upstream %s: %s sets the cookie %s, on a route without login = true: dropped",
                    self._groups[group].name,
                    server,
                    self._config.ticket.cookie,
                )
        if more:
            log.warning("upstreams: %d more such faults", more)

    def _publish(self) -> None:
        if not self._slot:
            return
        self._publisher = asyncio.get_running_loop().call_later(NOTE_INTERVAL_S, self._publish)
        self._slot.beat()
        note = self._note()
        try:
            self._slot.publish(note)
        except ValueError as error:  # too many servers, or names too long
            if not self._is_note_cut:
                log.error("%s: upstream servers are not shown any more", error)
            self._is_note_cut = True
            self._slot.publish({**note, "resolved": {}, "upstreams": []})

    def _note(self) -> dict[str, Any]:
        """What the supervisor sums and shows, beside the data plane's counters."""
        cache = self._cache.stats
        return {
            "at_s": time.monotonic(),
            "counters": {
                **{name: value for name, value in cache.items() if name not in NOW},
                "log_lines_lost": self._lines_lost(),
                "session_changes": dict(self._changes),
                "key_uses": {str(key_id): uses for key_id, uses in self._cache.checker.keys.uses.items()},
            },
            "now": {name: cache[name] for name in NOW},
            "store": dict(self._cache.store_servers),
            "resolved": {name: servers for group in self._groups for name, servers in group.resolved.items()},
            "without_servers": [group.name for group in self._groups if not group.has_servers],
            "upstreams": [
                {**state, "group": self._groups[state["group"]].name} for state in self.proxy.upstream_states()
            ],
        }

    def _lines_lost(self) -> int:
        """Of the access log."""
        if not (self._log_file and self.proxy.log):
            return 0
        return self._log_file.lines_lost + self.proxy.log.dropped

    def _answer_asks(self) -> None:
        if self._asks.add(self.proxy.asks()):
            asyncio.get_running_loop().call_soon(self._begin_answers)

    def _begin_answers(self) -> None:
        """Some in this turn of the loop, more in the next: between them the data plane serves who
        needs no answer.
        """
        for ask in self._asks.take():
            task = asyncio.get_running_loop().create_task(self._answer(ask))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._asks:
            asyncio.get_running_loop().call_soon(self._begin_answers)

    async def _answer(self, ask: Ask) -> None:
        if ask.kind in CONSISTENCY:
            await self._authenticate(ask.handle, ask.tickets, ask.is_use, CONSISTENCY[ask.kind])
        elif ask.kind == AskKind.EXEMPTION:
            self.proxy.exempt(ask.handle, self._is_exempt(ask.route, ask.path))
        elif ask.kind == AskKind.SEVERAL:
            self._doubt(ask)
        elif ask.kind == AskKind.STILL_ALIVE:
            self.proxy.vouch(ask.handle, await self._is_alive(ask.tickets, ask.is_use))
        elif ask.kind in (AskKind.LOGIN, AskKind.LOGIN_REMEMBERED):
            await self._change_session(ask, self._log_in(ask))
        elif ask.kind == AskKind.LOGOUT:
            await self._change_session(ask, self._log_out(ask.tickets, ask.where))
        elif ask.kind == AskKind.LOGOUT_EVERYWHERE:
            await self._change_session(ask, self._log_out_everywhere(ask.tickets, ask.where))
        elif ask.kind == AskKind.ROTATE:
            await self._change_session(ask, self._rotate(ask.handle, ask.tickets, ask.where))
        self._answer_asks()  # the connection may have gone on to its next request

    def _doubt(self, ask: Ask) -> None:
        """The client came with several tickets. They go out of its browser; a logout or login is to
        end the sessions of all of them.
        """
        tickets = [ticket for ticket in self._cookie.find_all(ask.cookies.decode("latin-1")) if " " not in ticket]
        values = self._cookie.clear(
            ask.where.host, is_https=ask.where.is_https, asked_path=ask.path.decode("latin-1") or "/"
        )
        self.proxy.doubt(ask.handle, _set_cookies(values), " ".join(tickets).encode("latin-1"))

    def _is_exempt(self, route: int, path: bytes) -> bool:
        exemption = self._exemptions[route]
        return exemption is not None and exemption.covers(path)

    async def _is_alive(self, ticket: str, touch: bool) -> bool:
        """Of a stream or tunnel, which is admitted for as long as a request would be."""
        try:
            await self._cache.authenticate(ticket, touch=touch)
        except FastticketError:
            return False
        except Exception:
            log.exception("a session could not be looked up again")
            return False
        return True

    async def _authenticate(
        self, handle: int, ticket: str, touch: bool, consistency: Consistency | Literal["latest"]
    ) -> None:
        try:
            if consistency == "latest":
                await self._authenticate_latest(ticket, touch)
            else:
                await self._cache.authenticate(ticket, touch=touch, consistency=consistency)
        except TicketRefused as refused:
            self.proxy.refuse(handle, refused.verdict)
        except StoreUnavailable:
            self.proxy.refuse(handle, Verdict.STORE_UNAVAILABLE)
        except Exception:
            log.exception("a session could not be loaded")
            self.proxy.refuse(handle, Verdict.STORE_UNAVAILABLE)
        else:
            self.proxy.admit(handle)

    async def _authenticate_latest(self, ticket: str, touch: bool) -> None:
        """As the store has it: other gateways may have moved the deadline that is asked for. Where
        it is away, as it is known here.
        """
        try:
            await self._cache.authenticate(ticket, touch=touch, consistency="strong")
        except StoreUnavailable:
            await self._cache.authenticate(ticket, touch=touch)

    async def _log_in(self, ask: Ask) -> bytes:
        """A new session for every login; what the client came with ends (against fixation)."""
        try:
            name = ask.principal.decode()
        except UnicodeDecodeError:
            raise InvalidPrincipal("the application named a principal that is not UTF-8") from None
        remember = ask.kind == AskKind.LOGIN_REMEMBERED
        ticket = await self._cache.login(
            name, remember=remember, details=ask.details, suits=lambda ticket: self.proxy.suits(ask.handle, ticket)
        )
        await self._end_sessions(ask.tickets)
        max_age_s = self._config.ticket.remember_lifetime_s if remember else None
        self._changes["login"] += 1
        self._tell_of_http(ask.where)
        return self._set(ticket, ask.where, max_age_s)

    async def _log_out(self, tickets: str, where: Where) -> bytes:
        await self._end_sessions(tickets)
        self._changes["logout"] += 1
        return self._clear(where)

    async def _end_sessions(self, tickets: str) -> None:
        """None, one, or where nobody knew which of several was meant, all of them; what is refused
        is over already.
        """
        for ticket in tickets.split():
            with contextlib.suppress(TicketRefused):
                await self._cache.logout(ticket)

    async def _log_out_everywhere(self, tickets: str, where: Where) -> bytes:
        for ticket in tickets.split():
            with contextlib.suppress(TicketRefused):
                await self._cache.logout_everywhere((await self._cache.authenticate(ticket, touch=False)).principal)
        self._changes["logout_everywhere"] += 1
        return self._clear(where)

    async def _rotate(self, handle: int, old_ticket: str, where: Where) -> bytes:
        try:
            ticket = await self._cache.rotate(old_ticket, suits=lambda ticket: self.proxy.suits(handle, ticket))
        except TicketRefused:  # another request may have renewed it: the cookie that the client has from that one stays
            return b""
        self._changes["rotation"] += 1
        self.proxy.readmit(handle, ticket)
        return self._set(ticket, where, self._remembered_s(ticket))

    def _set(self, ticket: str, where: Where, max_age_s: int | None) -> bytes:
        """The field lines that give the client its ticket. No cache is to give it to others."""
        host, is_https = where
        return _set_cookies(self._cookie.set(ticket, host, is_https=is_https, max_age_s=max_age_s)) + NOT_CACHED

    def _clear(self, where: Where) -> bytes:
        """Those that take it away."""
        host, is_https = where
        return _set_cookies(self._cookie.clear(host, is_https=is_https)) + NOT_CACHED

    def _tell_of_http(self, where: Where) -> None:
        """Once: who logs in by plain http may never come back with the ticket."""
        host, is_https = where
        if self._was_http_told or is_https or not self._cookie.is_guessed_secure:
            return
        if self._cookie.is_secure(host, is_https=False):
            self._was_http_told = True
            log.warning(
                "a login on %s came by http, as far as trusted_proxies say, and its cookie is Secure: browsers drop it unless https "
                "ends before this gateway. [ticket] cookie_secure = true if it does, false if there is none",
                host or "a host without a name",
            )

    def _remembered_s(self, text: str) -> int | None:
        """How much longer a browser keeps the ticket of who is remembered; None: as long as it
        runs.
        """
        now_ms = self._cache.now_ms()
        ticket = self._cache.checker.keys.verify(text, now_ms)
        usual_s = (self._config.ticket.idle_timeout_s, self._config.ticket.absolute_lifetime_s)
        if not ticket or ticket.idle_timeout_s or (0, ticket.absolute_lifetime_s) == usual_s:
            return None
        return min((ticket.absolute_deadline_ms - now_ms) // 1000, self._config.ticket.remember_lifetime_s)

    async def _change_session(self, ask: Ask, change: Coroutine[None, None, bytes]) -> None:
        """Do it, then let the response go on with the cookie; a response that says "logged out"
        must be true.
        """
        try:
            self.proxy.relay(ask.handle, await change)
        except TicketRefused:  # over already
            self.proxy.relay(ask.handle, self._clear(ask.where))
        except TooManySessions as error:  # for the user to solve
            self.proxy.fail(ask.handle, error.status, error.reason)
        except FastticketError as error:
            log.error("a session could not be changed: %s", error)
            self.proxy.fail(ask.handle, error.status, error.reason)
        except Exception:
            log.exception("a session could not be changed")
            self.proxy.fail(ask.handle, 503, StoreUnavailable.reason)

    def _reopen_logs(self) -> None:
        """SIGUSR1: somebody has moved the files away."""
        errorlog.reopen()
        if self._log_file:
            self._log_file.reopen()


def _set_cookies(values: Iterable[str]) -> bytes:
    """The field lines."""
    return "".join(f"Set-Cookie: {value}\r\n" for value in values).encode()


async def _first_of(*events: asyncio.Event, timeout_s: float | None = None) -> None:
    """Until one of them is set, or for so long."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()
