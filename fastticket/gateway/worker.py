"""One gateway process: the control plane around the data plane.

The data plane (`dataplane.proxy`) serves sockets by itself. The worker does what it cannot do: load
sessions, log in and out, timers, signals.

    stop     (SIGTERM)  close the listeners, end idle connections, let the others finish
                        (`drain_timeout_s`), write every touch, close. Inherited sockets are accepted
                        from until the tunnels have ended: no other process would serve the clients.
    retire   (SIGUSR2)  the same for a worker whose configuration was replaced. First it hands clients
                        with nothing under way to the workers of the new configuration, and gives the
                        others `retire_timeout_s` for their answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Literal

from fastticket.dataplane.asks import Ask, AskKind, Where
from fastticket.errors import (
    FastticketError,
    InvalidPrincipal,
    StoreUnavailable,
    TicketRefused,
    TooManySessions,
    Verdict,
)
from fastticket.gateway import descriptors, errorlog
from fastticket.gateway.assembly import add_routes, clients_max, make_cache, make_proxy
from fastticket.gateway.binding import BACKLOG
from fastticket.gateway.control import LEAVE, SERVE, STAY, CommandReader, pairs_of
from fastticket.gateway.exemption import Exemption
from fastticket.gateway.given import Given, Start
from fastticket.gateway.handover import Handover
from fastticket.gateway.listeners import is_of
from fastticket.gateway.logfile import AccessLogFile
from fastticket.gateway.notes import Notes
from fastticket.gateway.notices import Notices
from fastticket.gateway.pacing import Pacing
from fastticket.gateway.slot import Slot
from fastticket.gateway.upstreams import UpstreamGroup
from fastticket.sessions.ticketcache import Consistency
from fastticket.tasks import end

log = logging.getLogger("fastticket.gateway")

TICK_S = 0.1
COMMANDS_BYTES_MAX = 65_536  # read at once; key rings are the long ones
LAST_ANSWERS_S = 1.0  # for clients that were accepted while tunnels used up the drain timeout
LOOKS_PER_TURN = 32  # asks begun in one turn of the loop: about a millisecond of work
CHANGES_PER_TURN = 8
TAKEN_PER_TURN = 64  # clients of another worker
STORE_TIMEOUT_S = 5.0  # for the store to answer before clients are served without it
REPLACEMENT_STORE_TIMEOUT_S = 1.0  # the same for a replacement, while clients already wait
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


class Worker:
    """A gateway on bound sockets: the store, timers, signals and session changes around one data
    plane.
    """

    def __init__(
        self,
        given: Given,
        listeners: list[socket.socket],
        slot: Slot | None = None,
        handover: Handover | None = None,
    ) -> None:
        """`slot`: shared memory for counters and notes; `handover`: the way to other workers.
        ConfigError.
        """
        config = given.config
        self._given = given
        self._config = config
        self._listeners = listeners
        self._handover = handover
        self._is_retiring = False
        self._cache = make_cache(config, given.keys)
        self.proxy = make_proxy(config, self._cache, slot.counters if slot else None)
        self._groups = [UpstreamGroup(self.proxy, config, upstream, given.servers) for upstream in config.upstream]
        routes = add_routes(self.proxy, config, {group.name: group.number for group in self._groups})
        self._exemptions = [Exemption(route.exempt) if route.exempt else None for route in routes]
        self._access_log = AccessLogFile(self.proxy.log, config.log_path("access_log")) if self.proxy.log else None
        self._changes: Counter[str] = Counter()  # of sessions, by what the application asked for
        self._notes = (
            Notes(slot, self.proxy, self._cache, self._groups, self._access_log, self._changes) if slot else None
        )
        self._notices = Notices(self.proxy, [group.name for group in self._groups], config.ticket.cookie)
        self._tasks: set[asyncio.Task[None]] = set()  # answers to asks
        self._asks = Asks()
        self._commands = CommandReader()
        self._idle = asyncio.Event()  # no client is connected
        self._ticked = asyncio.Event()
        self._pacing: Pacing | None = None  # of closing WebSockets, once the worker stops
        # Inherited sockets outlive the gateway: the supervisor cannot replace them, nor its parent.
        self._sockets_outlive = any(address.fd >= 0 for address in config.listen_addresses())
        self._is_turn_due = False
        self._ticker: asyncio.TimerHandle | None = None
        self._cookie = config.ticket_cookie()
        self._was_http_told = False

    # --- from start to stop

    async def run(self, ready: Callable[[], None], commands: int) -> None:
        """Serve until SIGTERM, or until SIGUSR2 and the last client has gone.

        `ready` is called when requests could be served; they are served once the command SERVE comes
        out of the descriptor `commands`. Clients may be in the listen queue from then on, so a signal
        before it ends the worker without them.
        """
        await self._open()
        gc.collect()
        gc.freeze()  # else a full collection would go through all that is there now, for milliseconds
        loop = asyncio.get_running_loop()
        begin, stop, retire = asyncio.Event(), asyncio.Event(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGUSR2, retire.set)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen_logs)
        loop.add_reader(commands, self._obey, commands, begin)
        ready()
        await _first_of(begin, stop, retire)
        if begin.is_set():
            self._serve()
            await _first_of(stop, retire)
            if not stop.is_set():
                await self._retire(stop)
        await self.stop()

    def _obey(self, commands: int, begin: asyncio.Event) -> None:
        """Read commands of the supervisor."""
        data = os.read(commands, COMMANDS_BYTES_MAX)
        if not data:  # the supervisor is gone, and SIGTERM has come
            asyncio.get_running_loop().remove_reader(commands)
        for command in self._commands.feed(data):
            if command == SERVE:
                begin.set()
            elif command in (LEAVE, STAY):
                self.proxy.leave(command == LEAVE)
            else:
                self._cache.replace_keys(pairs_of(command))

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
        if self._notes:
            self._notes.publish()

    async def _open_store(self) -> None:
        if self._given.may_lack_store:
            is_replacement = self._given.start is Start.REPLACEMENT
            timeout_s = REPLACEMENT_STORE_TIMEOUT_S if is_replacement else STORE_TIMEOUT_S
            await self._cache.begin(timeout_s, is_known_good=is_replacement)
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
            # A default that does not fit is nobody's mistake.
            is_configured = "connections_max" in self._config.limits
            log.log(
                logging.WARNING if is_configured else logging.INFO,
                "connections_max is %d, not %d: there may be %d file descriptors (ulimit -n, LimitNOFILE), and a client needs two",
                allowed,
                wanted,
                descriptors.limit(),
            )

    async def stop(self) -> None:
        """Drain, then write every touch, then close."""
        await self._drain()
        if self._ticker:
            self._ticker.cancel()
        asyncio.get_running_loop().remove_reader(self.proxy.fileno())
        for group in self._groups:
            await group.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._cache.aclose()
        if self._access_log:
            await self._access_log.aclose()
        if self._notes:
            self._notes.publish_last()

    async def _drain(self) -> None:
        """Accept no more clients, and let those that are connected finish, for `drain_timeout_s`."""
        loop = asyncio.get_running_loop()
        timeout_s = self._config.gateway.drain_timeout_s
        drained_s = loop.time() + timeout_s
        self._pacing = Pacing(self.proxy.tunnel_count, loop.time(), timeout_s)
        if self._listeners and self._sockets_outlive:
            await self._outwait_tunnels(drained_s)
        self._stop_accepting()
        if self.proxy.connection_count:
            await asyncio.sleep(TICK_S)  # clients that were accepted last have not sent their request yet
        self.proxy.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(max(drained_s, loop.time() + LAST_ANSWERS_S)):
                while self._connections_awaited(drained_s):
                    await self._next_tick()
        if self.proxy.connection_count:
            log.warning("%d connections were still in use after the drain timeout", self.proxy.connection_count)

    def _connections_awaited(self, drained_s: float) -> int:
        """Connections that the drain waits for: tunnels only until `drained_s`."""
        is_over = asyncio.get_running_loop().time() >= drained_s
        return self.proxy.connection_count - (self.proxy.tunnel_count if is_over else 0)

    async def _next_tick(self) -> None:
        self._ticked.clear()
        await self._ticked.wait()

    async def _outwait_tunnels(self, drained_s: float) -> None:
        """Go on accepting until the tunnels have ended: no other process reads the queue of these
        sockets before this one has gone, so new clients are served, not kept waiting.
        """
        self.proxy.leave()
        while self.proxy.tunnel_count and asyncio.get_running_loop().time() < drained_s:
            await self._next_tick()

    def _stop_accepting(self) -> None:
        """Close the listeners, after accepting the clients that are in their queues or on their way
        from another worker.
        """
        if self._handover:
            asyncio.get_running_loop().remove_reader(self._handover.fileno())
        if self._listeners:
            if self._ticker:  # a worker that has never served takes no clients
                self._take_over()
            self._turn()
            self.proxy.stop_accepting()
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    # --- retirement: clients go to a worker of the next generation

    async def _retire(self, stop: asyncio.Event) -> None:
        """Leave accepting to the next workers, and serve what is under way for `retire_timeout_s`."""
        self._stop_accepting()
        self._is_retiring = True
        self._hand_over()
        log.info("worker (pid %d) retires: %d connections", os.getpid(), self.proxy.connection_count)
        self._idle.clear()
        await _first_of(stop, self._idle, timeout_s=self._config.gateway.retire_timeout_s)

    def _hand_over(self) -> None:
        """Give away the clients with nothing under way, as many as there is room for; the next tick
        tries again.
        """
        while self._handover and (client := self.proxy.release()):
            fd, address, is_believed = client
            if not self._handover.give(fd, address, is_believed):
                self.proxy.adopt(fd, address, is_believed)
                return
            os.close(fd)

    def _take_over(self) -> None:
        """Serve clients of a worker that retires. A client of a listener that this worker does not
        have gets one more answer.
        """
        for _ in range(TAKEN_PER_TURN):
            client = self._handover.take() if self._handover else None
            if not client:
                return
            fd, address, is_believed = client
            self.proxy.adopt(fd, address, is_believed, is_last=not is_of(fd, self._listeners))

    # --- turns and ticks

    def _turn(self) -> None:
        """The data plane has ready sockets. If one turn does not serve all of them, the next one
        comes after whatever else the loop has to do.
        """
        if self.proxy.turn() and not self._is_turn_due:
            self._is_turn_due = True
            asyncio.get_running_loop().call_soon(self._turn_again)
        self._answer_asks()

    def _turn_again(self) -> None:
        self._is_turn_due = False
        self._turn()

    def _tick(self) -> None:
        """Every TICK_S: what the data plane needs the time for, and what may wait for so long."""
        self.proxy.tick()
        if self._pacing:
            self._pacing.told += self.proxy.part(self._pacing.due(asyncio.get_running_loop().time()))
        self._ticked.set()
        self._answer_asks()
        self._notices.tell()
        if self._is_retiring:
            self._hand_over()
        if not self.proxy.connection_count:
            self._idle.set()
        if self._access_log:
            self._access_log.collect()
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _reopen_logs(self) -> None:
        """SIGUSR1: log rotation has moved the files away."""
        errorlog.reopen()
        if self._access_log:
            self._access_log.reopen()

    # --- what the data plane asks

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
        return self._set(ticket, where, self._cache.remembered_s(ticket))

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


def _set_cookies(values: Iterable[str]) -> bytes:
    """The field lines."""
    return "".join(f"Set-Cookie: {value}\r\n" for value in values).encode()


async def _first_of(*events: asyncio.Event, timeout_s: float | None = None) -> None:
    """Until one of them is set, or for so long."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()
