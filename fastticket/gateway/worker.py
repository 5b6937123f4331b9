"""The worker process: what outlives a reload. It keeps the ticket cache, signals, what the
supervisor says, and the ticks; what serves a configuration is a service (`service`).

    reload  (Reload)   another service takes the place of the one in force, which retires. The
                       ticket cache stays, with every session that it holds.
    stop    (SIGTERM)  close the listeners, end idle connections, let the others finish
                       (`drain_timeout_s`), write every touch, close. Inherited sockets are
                       accepted from until the tunnels have ended: no other process would serve
                       the clients.
    retire  (SIGUSR2)  the same for a worker whose place another process has taken. First it hands
                       clients with nothing under way to that one, and gives the others
                       `retire_timeout_s` for their answers.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

from fastticket import spans
from fastticket.dataplane.occupancy import Occupancy
from fastticket.dataplane.proxy import Proxy
from fastticket.errors import FastticketError
from fastticket.gateway import errorlog, tracing
from fastticket.gateway.assembly import allow, changeable_settings, make_cache
from fastticket.gateway.channel import Channel
from fastticket.gateway.control import (
    DrainServers,
    Handed,
    HandSessions,
    Inquiry,
    Leave,
    Ready,
    Reload,
    Reloaded,
    ReplaceKeys,
    Serve,
    SetLogLevel,
)
from fastticket.gateway.handover import Handover
from fastticket.gateway.inheritance import Given, Start
from fastticket.gateway.inquiries import Inquiries
from fastticket.gateway.leaving import TICK_S
from fastticket.gateway.listeners import Sockets
from fastticket.gateway.notes import Notes
from fastticket.gateway.register import Register
from fastticket.gateway.service import Client, Service
from fastticket.gateway.services import Services
from fastticket.gateway.settings import Config
from fastticket.gateway.sharedmemory import Slot
from fastticket.gateway.upstreams import UpstreamGroups
from fastticket.sessions.canary import Canary
from fastticket.sessions.census import Census
from fastticket.sessions.ticketcache import checker_of, finish_giving_back, hand_to, handed_by, shards_of
from fastticket.tasks import end

log = logging.getLogger("fastticket.gateway")

TAKEN_PER_TURN = 64  # clients of another worker
STORE_TIMEOUT_S = 5.0  # for the store to answer before clients are served without it
REPLACEMENT_STORE_TIMEOUT_S = 1.0  # the same for a replacement, while clients already wait


class Worker:
    """A ticket cache, and the services on it."""

    def __init__(
        self,
        given: Given,
        listeners: Sockets,
        slot: Slot | None = None,
        handover: Handover | None = None,
    ) -> None:
        """`listeners`: bound sockets for each plane; `slot`: shared memory for counters and notes;
        `handover`: the way to other workers. ConfigError.
        """
        self._given = given
        self._slot = slot or Slot()
        self._handover = handover
        self._cache = make_cache(given.config, given.keys)
        self._occupancy = Occupancy()
        self._drained: set[tuple[str, str]] = set()  # the upstreams of every service look at it
        self._services = Services(
            self._make_service(given.config, UpstreamGroups(given.config, given.servers, self._drained), listeners)
        )
        shards = shards_of(self._cache)
        self._canary, self._census = Canary(shards), Census(shards)
        self._notes = Notes(self._slot, self._services, self._cache, self._canary, self._census)
        self.register = Register(given.identity, self._cache, self._services, self._slot)
        self._begin, self._stop, self._retire = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._channel: Channel | None = None
        self._inquiries: Inquiries | None = None
        self._tracing: tracing.Tracing | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._handing: asyncio.Task[None] | None = None
        self._ticker: asyncio.TimerHandle | None = None

    @property
    def proxy(self) -> Proxy:
        """The data plane that the loop drives."""
        return self._services.present.planes[0]

    def _make_service(
        self, config: Config, upstreams: UpstreamGroups, listeners: Sockets, before: Service | None = None
    ) -> Service:
        """FastticketError."""
        allow(self._occupancy, config)
        try:
            return Service(config, self._cache, upstreams, self._occupancy, listeners, self._slot, before)
        except OSError as error:
            raise FastticketError(f"no room for {len(listeners)} data planes: {error.strerror}") from None

    # --- from start to stop

    async def run(self, channel: Channel) -> None:
        """Serve until SIGTERM, or until SIGUSR2 and the last client has gone.

        It says Ready when requests could be served; they are served once the answer is Serve.
        Clients may be in the listen queue from then on, so a signal before it ends the worker
        without them.
        """
        await self._open()
        gc.collect()
        gc.freeze()  # else a full collection would go through all that is there now, for milliseconds
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR2, self._retire.set)
        loop.add_signal_handler(signal.SIGUSR1, self._reopen_logs)
        self._channel = channel
        self._inquiries = Inquiries(
            self._cache, self._services, self._drained, self._follow_drains, self.register, channel.send
        )
        channel.attach(loop, self._obey)
        channel.send(Ready())
        await _first_of(self._begin, self._stop, self._retire)
        if self._begin.is_set():
            self._serve()
            await _first_of(self._stop, self._retire)
            if not self._stop.is_set():
                await self._give_up_place()
        await self.stop()

    def _obey(self, message: Any, sockets: list[socket.socket]) -> None:
        """Do what the supervisor says."""
        match message:
            case Serve():
                self._begin.set()
            case Leave(is_leaving):
                self._services.leave(is_leaving)
            case ReplaceKeys(pairs):
                self._replace_keys(pairs)
            case HandSessions():
                if self._handing:  # of a reload that was given up
                    self._handing.cancel()
                self._handing = asyncio.create_task(self._hand_sessions(), name="fastticket-hand")
            case Inquiry() if self._inquiries:
                self._inquiries.begin(message)
            case DrainServers(servers):
                self._drained.clear()
                self._drained.update(servers)
                self._follow_drains()
            case SetLogLevel(level):
                logging.getLogger().setLevel(level.upper())
            case Reload():
                self._reloading = asyncio.create_task(self._reload(message, sockets), name="fastticket-reload")

    def _follow_drains(self) -> None:
        """Servers were drained, or put back in. The note says so before the operator is answered:
        who waits until nothing is under way there must not read what was before.
        """
        self._services.follow_drains()
        self._notes.publish()

    async def start(self) -> None:
        """Open the store and serve."""
        await self._open()
        self._serve()

    async def _open(self) -> None:
        self._tracing = tracing.begin()
        finding = asyncio.create_task(self._services.present.upstreams.start(self._given.start))
        try:
            await self._open_store()
            await finding
        finally:
            await end(finding)
        self._notes.publish()

    async def _open_store(self) -> None:
        if self._given.handed and not self._given.config.migration:  # else gateway/migration/held.py would miss them
            count = hand_to(self._cache, self._given.handed)
            log.info("worker (pid %d) begins with %d sessions of the one before", os.getpid(), count)
        self._given.handed.clear()  # it is as large as the near cache
        if self._given.may_lack_store:
            is_replacement = self._given.start is Start.REPLACEMENT
            timeout_s = REPLACEMENT_STORE_TIMEOUT_S if is_replacement else STORE_TIMEOUT_S
            await self._cache.begin(timeout_s, is_known_good=is_replacement)
        else:
            await self._cache.open()

    def _serve(self) -> None:
        self._services.present.serve()
        self._canary.start()
        self._census.start()
        if self._handover:
            asyncio.get_running_loop().add_reader(self._handover.fileno(), self._take_over)
        self.register.start()
        self._tick()

    async def stop(self) -> None:
        """Drain, then write every touch, then close."""
        await end(self._reloading, self._handing)
        self._stop_taking()
        service = self._services.present
        # Inherited sockets outlive the gateway: the supervisor cannot replace them, nor its parent.
        outlive = any(address.fd >= 0 for address in service.config.listen_addresses())
        await self._services.stop(outwaits=outlive and bool(service.listeners))
        if self._ticker:
            self._ticker.cancel()
        await self._canary.stop()
        await self._census.stop()
        if self._inquiries:
            await self._inquiries.stop()
        await self.register.leave()
        await self._cache.aclose()
        self._notes.publish_last()
        if self._tracing:
            await self._tracing.end()

    # --- reload

    async def _reload(self, asked: Reload, sockets: list[socket.socket]) -> None:
        with spans.span("reload"):
            await self._take_over_configuration(asked, sockets)

    async def _take_over_configuration(self, asked: Reload, sockets: list[socket.socket]) -> None:
        """Let another service take the place of the one in force, and say so; or say why not, and
        nothing has changed.
        """
        assert self._channel  # noqa: S101 -- for mypy
        present = self._services.present.config
        upstreams = coming = None
        try:
            if self._stop.is_set() or self._retire.is_set():  # it came late: a long message, or a busy loop
                raise FastticketError("the worker is about to end")
            if len(sockets) <= max((number for of_plane in asked.listeners for number in of_plane), default=-1):
                # The kernel has dropped those for which there was no descriptor.
                raise FastticketError(
                    "no room for the sockets of the new configuration: Too many open files (ulimit -n)"
                )
            listeners = [[sockets[number] for number in of_plane] for of_plane in asked.listeners]
            upstreams = UpstreamGroups(asked.config, asked.servers, self._drained)
            await upstreams.start(Start.RELOAD)
            upstreams.follow_drains()  # of what was drained meanwhile
            self._cache.change_settings(**changeable_settings(asked.config))
            coming = self._make_service(asked.config, upstreams, listeners, self._services.present)
            coming.serve()
        except BaseException as error:
            allow(self._occupancy, present)
            self._cache.change_settings(**changeable_settings(present))
            for each in sockets:
                each.close()
            if coming:
                await coming.close()
            elif upstreams:
                await upstreams.stop()
            if not isinstance(error, Exception):
                raise
            if not isinstance(error, FastticketError):
                log.exception("a reload has failed")
            spans.note("refused", error.reason if isinstance(error, FastticketError) else type(error).__name__)
            self._channel.send(Reloaded(str(error) or type(error).__name__))
            return
        if asked.pairs is not None:
            self._replace_keys(asked.pairs)
        errorlog.follow(asked.config)
        self._services.succeed(coming)
        self._notes.publish()
        self._channel.send(Reloaded())

    def _replace_keys(self, pairs: Sequence[tuple[int, bytes]]) -> None:
        """ConfigError."""
        uses = checker_of(self._cache).keys.uses
        self._cache.replace_keys(pairs)
        self._notes.keep_key_uses(uses)

    async def _hand_sessions(self) -> None:
        """Tell what the ticket cache holds, a piece in each turn of the loop."""
        assert self._channel  # noqa: S101 -- for mypy
        self._notes.publish()  # whether something is given back: the supervisor waits for that
        await finish_giving_back(self._cache)
        for part in handed_by(self._cache):
            self._channel.send(Handed(part))
            await asyncio.sleep(0)
        self._channel.send(Handed(None))

    # --- clients from and to other workers

    async def _give_up_place(self) -> None:
        """Leave accepting to another worker, and serve what is under way for `retire_timeout_s`."""
        await end(self._reloading)
        await self.register.stop()
        self._stop_taking()
        await self._services.retire(self._give, self._stop)

    def _give(self, client: Client) -> bool:
        """Hand a client to another worker. False: there is no room for it now."""
        if not self._handover or not self._handover.give(*client):
            return False
        os.close(client.fd)
        return True

    def _take_over(self) -> None:
        """Serve clients of a worker that retires."""
        for _ in range(TAKEN_PER_TURN):
            client = self._handover.take() if self._handover else None
            if not client:
                return
            self._services.present.adopt(Client(*client))

    def _stop_taking(self) -> None:
        """Take no more clients from other workers than are on their way."""
        if self._handover:
            asyncio.get_running_loop().remove_reader(self._handover.fileno())
            if self._ticker and self._services.present.listeners:  # one that does not serve takes nobody
                self._take_over()

    # --- ticks

    def _tick(self) -> None:
        """Every TICK_S."""
        self._services.tick()
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _reopen_logs(self) -> None:
        """SIGUSR1: log rotation has moved the files away."""
        errorlog.reopen()
        self._services.reopen_logs()


async def _first_of(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()
