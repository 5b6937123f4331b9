"""One gateway process: the control plane around the data plane.

The data plane (`dataplane.proxy`) serves sockets by itself. The worker does what it cannot do: open
and close the store, answer its asks (`asks`), timers, signals.

    stop    (SIGTERM)  close the listeners, end idle connections, let the others finish
                       (`drain_timeout_s`), write every touch, close. Inherited sockets are
                       accepted from until the tunnels have ended: no other process would serve
                       the clients.
    retire  (SIGUSR2)  the same for a worker whose configuration was replaced. First it hands
                       clients with nothing under way to the workers of the new configuration,
                       and gives the others `retire_timeout_s` for their answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable

from fastticket.gateway import descriptors, errorlog
from fastticket.gateway.asks import Answers
from fastticket.gateway.assembly import add_routes, clients_max, make_cache, make_proxy
from fastticket.gateway.binding import BACKLOG
from fastticket.gateway.control import LEAVE, SERVE, STAY, CommandReader, pairs_of
from fastticket.gateway.handover import Handover
from fastticket.gateway.inheritance import Given, Start
from fastticket.gateway.listeners import is_of
from fastticket.gateway.logfile import AccessLogFile
from fastticket.gateway.notes import Notes
from fastticket.gateway.notices import Notices
from fastticket.gateway.pacing import Pacing
from fastticket.gateway.sharedmemory import Slot
from fastticket.gateway.upstreams import UpstreamGroup
from fastticket.tasks import end

log = logging.getLogger("fastticket.gateway")

TICK_S = 0.1
COMMANDS_BYTES_MAX = 65_536  # read at once; key rings are the long ones
LAST_ANSWERS_S = 1.0  # for clients that were accepted while tunnels used up the drain timeout
TAKEN_PER_TURN = 64  # clients of another worker
STORE_TIMEOUT_S = 5.0  # for the store to answer before clients are served without it
REPLACEMENT_STORE_TIMEOUT_S = 1.0  # the same for a replacement, while clients already wait


class Worker:
    """A gateway on bound sockets: the store, upstreams, timers and signals around one data
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
        self._groups = [
            UpstreamGroup(self.proxy.upstreams, config, upstream, given.servers) for upstream in config.upstream
        ]
        routes = add_routes(self.proxy, config, {group.name: group.number for group in self._groups})
        self._answers = Answers(self.proxy, self._cache, config, routes)
        self._access_log = AccessLogFile(self.proxy.log, config.log_path("access_log")) if self.proxy.log else None
        self._notes = (
            Notes(slot, self.proxy, self._cache, self._groups, self._access_log, self._answers.session_changes)
            if slot
            else None
        )
        self._notices = Notices(self.proxy, [group.name for group in self._groups], config.ticket.cookie)
        self._commands = CommandReader()
        self._idle = asyncio.Event()  # no client is connected
        self._ticked = asyncio.Event()
        self._pacing: Pacing | None = None  # of closing WebSockets, once the worker stops
        # Inherited sockets outlive the gateway: the supervisor cannot replace them, nor its parent.
        self._sockets_outlive = any(address.fd >= 0 for address in config.listen_addresses())
        self._is_turn_due = False
        self._ticker: asyncio.TimerHandle | None = None

    # --- from start to stop

    async def run(self, ready: Callable[[], None], commands: int) -> None:
        """Serve until SIGTERM, or until SIGUSR2 and the last client has gone.

        `ready` is called when requests could be served; they are served once the command SERVE
        comes out of the descriptor `commands`. Clients may be in the listen queue from then on, so
        a signal before it ends the worker without them.
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
        await self._answers.finish()
        await self._cache.aclose()
        if self._access_log:
            await self._access_log.aclose()
        if self._notes:
            self._notes.publish_last()

    async def _drain(self) -> None:
        """Accept no more clients, and let those that are connected finish, for
        `drain_timeout_s`.
        """
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
        """Leave accepting to the next workers, and serve what is under way for
        `retire_timeout_s`.
        """
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
        self._answers.begin_new()

    def _turn_again(self) -> None:
        self._is_turn_due = False
        self._turn()

    def _tick(self) -> None:
        """Every TICK_S: what the data plane needs the time for, and what may wait for so long."""
        self.proxy.tick()
        if self._pacing:
            self._pacing.told += self.proxy.part(self._pacing.due(asyncio.get_running_loop().time()))
        self._ticked.set()
        self._answers.begin_new()
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


async def _first_of(*events: asyncio.Event, timeout_s: float | None = None) -> None:
    """Wait until one of the events is set, `timeout_s` at most."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()
